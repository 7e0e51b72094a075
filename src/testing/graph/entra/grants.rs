//! Tokens for people: a code, a refresh token or a device code for tokens.

use super::super::state::State;
use super::codes::{Aadsts, aadsts};
use super::jwt::{opaque, sign};
use super::people::{
    CODE_LIFE, DEVICE_LIFE, DeviceState, Grant, Platform, REFRESH_LIFE, RefreshToken, Rotation, SPA_LIFE,
};
use super::scope::{self, Asked, Scopes};
use super::token::{AccessToken, Caller, can_be_challenged};
use super::vet;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

pub(super) fn code(state: &mut State, caller: &Caller<'_>) -> Result<Value, Aadsts> {
    let text = caller.form.required("code")?;
    let redirect = caller.form.required("redirect_uri")?;
    let now = state.now_seconds();
    let code = state.people.codes.get_mut(text).ok_or_else(|| aadsts(70000))?;
    let authorization = code.authorization.clone();
    let user = code.user;
    if authorization.client_id != caller.app.client_id {
        return Err(aadsts(70000).saying("The provided authorization code was issued to another application."));
    }
    if now - code.born > CODE_LIFE {
        return Err(aadsts(70008));
    }
    if code.used {
        return Err(aadsts(54005));
    }
    if redirect != authorization.redirect {
        return Err(aadsts(50011)
            .saying("The redirect URI in the request does not match the one of the authorization request."));
    }
    let strength = match authorization.platform {
        Platform::Web => caller.credential(state)?,
        Platform::Native if caller.presents_credential() => return Err(aadsts(700025)),
        Platform::Native => "0",
        Platform::Spa if authorization.challenge.is_none() => return Err(aadsts(9002325)),
        Platform::Spa if !caller.origin => return Err(aadsts(9002327)),
        Platform::Spa if caller.presents_credential() => return Err(aadsts(700025)),
        Platform::Spa => "0",
    };
    match (&authorization.challenge, caller.form.get("code_verifier")) {
        (None, None) => {}
        (None, Some(_)) => {
            return Err(aadsts(501481).saying("A code_verifier was sent, and no code_challenge before."));
        }
        (Some(_), None) => return Err(aadsts(501481).saying("The Code_Verifier is missing.")),
        (Some(challenge), Some(verifier)) => {
            // RFC 7636, section 4.1.
            let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            let sound = (43..=128).contains(&verifier.len()) && verifier.bytes().all(unreserved);
            let digest = base64_simd::URL_SAFE_NO_PAD.encode_to_string(Sha256::digest(verifier));
            if !sound || digest != *challenge {
                return Err(aadsts(501481));
            }
        }
    }
    let tenant = state.user_numbered(user).tenant.clone();
    if !caller.authority.admits(&tenant) {
        return Err(aadsts(70000).saying("The provided authorization code was issued in another tenant."));
    }
    vet(state, &caller.app, user)?;
    if let Some(code) = state.people.codes.get_mut(text) {
        code.used = true;
    }
    let challengeable = authorization.can_be_challenged || can_be_challenged(caller.form)?;
    let grant = Grant {
        client_id: caller.app.client_id.clone(),
        user,
        tenant,
        scopes: authorization.scopes,
        platform: authorization.platform,
        can_be_challenged: challengeable,
        born: now,
        revoked: None,
        newest: String::new(),
        last_used: String::new(),
    };
    let nonce = authorization.nonce;
    start(state, caller, grant, strength, nonce.as_deref())
}

pub(super) fn device(state: &mut State, caller: &Caller<'_>) -> Result<Value, Aadsts> {
    let text = caller.form.required("device_code")?;
    let strength = public_or_confidential(state, caller)?;
    let (now, micros) = (state.now_seconds(), state.now());
    let strict = state.settings.sign_in.slow_down;
    let device = state.people.devices.iter_mut().find(|device| device.device_code == text);
    let device = device.filter(|device| device.client_id == caller.app.client_id).ok_or_else(|| aadsts(70018))?;
    let too_soon = device.polled.is_some_and(|last| micros - last < device.interval as i64 * 1_000_000);
    device.polled = Some(micros);
    if now - device.born > DEVICE_LIFE {
        return Err(aadsts(70019));
    }
    let user = match device.answer {
        DeviceState::Pending if strict && too_soon => {
            device.interval += 5;
            return Err(Aadsts::other(400, "slow_down", 0, "The client polls too often."));
        }
        DeviceState::Pending => return Err(aadsts(70016)),
        DeviceState::Declined => {
            return Err(Aadsts::other(
                400,
                "authorization_declined",
                0,
                "The end user denied the authorization request.",
            ));
        }
        DeviceState::Redeemed => return Err(aadsts(54005).saying("The device code was already redeemed.")),
        DeviceState::Accepted(user) => user,
    };
    device.answer = DeviceState::Redeemed;
    let (scopes, challengeable) = (device.scopes.clone(), device.can_be_challenged);
    let tenant = state.user_numbered(user).tenant.clone();
    let grant = Grant {
        client_id: caller.app.client_id.clone(),
        user,
        tenant,
        scopes,
        platform: Platform::Native,
        can_be_challenged: challengeable || can_be_challenged(caller.form)?,
        born: now,
        revoked: None,
        newest: String::new(),
        last_used: String::new(),
    };
    start(state, caller, grant, strength, None)
}

/// Without a secret only where public client flows are allowed.
pub(super) fn public_or_confidential(state: &State, caller: &Caller<'_>) -> Result<&'static str, Aadsts> {
    match (caller.app.public_flows, caller.presents_credential()) {
        (true, true) => Err(aadsts(700025)),
        (true, false) => Ok("0"),
        (false, _) => caller.credential(state),
    }
}

pub(super) fn refresh(state: &mut State, caller: &Caller<'_>) -> Result<Value, Aadsts> {
    let text = caller.form.required("refresh_token")?.to_owned();
    let now = state.now_seconds();
    let known = state.people.refresh_tokens.get(&text).ok_or_else(|| aadsts(70000))?;
    let (at, used) = (known.grant, known.used);
    let grant = &state.people.grants[at];
    if grant.client_id != caller.app.client_id || !caller.authority.admits(&grant.tenant) {
        return Err(aadsts(70000).saying("The provided refresh token was issued to another application or tenant."));
    }
    let strength = match grant.platform {
        Platform::Web => caller.credential(state)?,
        Platform::Native if caller.app.public_flows || !caller.presents_credential() => {
            if caller.presents_credential() {
                return Err(aadsts(700025));
            }
            "0"
        }
        Platform::Native => caller.credential(state)?,
        Platform::Spa if !caller.origin => return Err(aadsts(9002327)),
        Platform::Spa => "0",
    };
    if let Some(code) = grant.revoked {
        return Err(aadsts(code));
    }
    if grant.platform == Platform::Spa && now - grant.born > SPA_LIFE {
        return Err(aadsts(700084));
    }
    if now - used > REFRESH_LIFE {
        return Err(aadsts(700082));
    }
    let user = grant.user;
    let is_good = match state.settings.sign_in.rotation {
        Rotation::SingleUse => grant.newest == text,
        Rotation::OneBack => grant.newest == text || grant.last_used == text,
        Rotation::Reusable | Rotation::Kept => true,
    };
    if !is_good {
        state.people.grants[at].revoked = Some(50173);
        return Err(aadsts(70000).saying("The refresh token was used before; the grant is revoked."));
    }
    vet(state, &caller.app, user)?;
    let mut out = tokens(state, caller, at, strength, None)?;
    if let Some(known) = state.people.refresh_tokens.get_mut(&text) {
        known.used = now;
    }
    state.people.grants[at].last_used = text;
    let asks = match caller.form.get("scope") {
        Some(scope) => scope::parse(scope)?.has("offline_access"),
        None => true,
    };
    if asks && state.settings.sign_in.rotation != Rotation::Kept {
        out["refresh_token"] = new_refresh_token(state, at).into();
    }
    Ok(out)
}

/// The first answer of a sign-in.
fn start(
    state: &mut State,
    caller: &Caller<'_>,
    grant: Grant,
    strength: &str,
    nonce: Option<&str>,
) -> Result<Value, Aadsts> {
    let asked = caller.form.get("scope").map(scope::parse).transpose()?;
    // Only what both the sign-in and the redemption asked for.
    let offline = grant.scopes.has("offline_access") && asked.as_ref().is_none_or(|asked| asked.has("offline_access"));
    state.people.grants.push(grant);
    let at = state.people.grants.len() - 1;
    let mut out = match tokens(state, caller, at, strength, nonce) {
        Ok(out) => out,
        Err(refused) => {
            state.people.grants.pop();
            return Err(refused);
        }
    };
    if offline {
        out["refresh_token"] = new_refresh_token(state, at).into();
    }
    Ok(out)
}

fn new_refresh_token(state: &mut State, grant: usize) -> String {
    let text = opaque(state, "1.Afake.");
    let used = state.now_seconds();
    state.people.refresh_tokens.insert(text.clone(), RefreshToken { grant, used });
    state.people.grants[grant].newest.clone_from(&text);
    text
}

/// Access token and id token for a grant, of one resource.
fn tokens(
    state: &mut State,
    caller: &Caller<'_>,
    grant: usize,
    strength: &str,
    nonce: Option<&str>,
) -> Result<Value, Aadsts> {
    let grant = &state.people.grants[grant];
    let asked = match caller.form.get("scope") {
        Some(scope) => scope::parse(scope)?,
        None => grant.scopes.clone(),
    };
    if caller.form.get("scope").is_some() && asked.resources.len() > 1 {
        return Err(aadsts(28000));
    }
    let user = state.user_numbered(grant.user);
    let consented = state.consented(&caller.app.client_id, user);
    // Without a scope, or with the OpenID ones only, the first resource of the sign-in is meant.
    let resource: Option<&Asked> = asked.resources.first().or(grant.scopes.resources.first());
    let mut granted = BTreeSet::new();
    let host = match resource {
        Some(resource) => {
            let wanted = resource.permissions(&caller.app.delegated);
            if !wanted.is_subset(&consented) {
                return Err(aadsts(65001));
            }
            // Whatever was consented to before comes along.
            granted.extend(consented.iter().filter(|p| p.resource == resource.resource).map(|p| p.name.clone()));
            resource.host
        }
        None => "https://graph.microsoft.com",
    };
    granted.retain(|name| !caller.app.withheld.contains(name));
    if granted.is_empty() {
        // Signing in alone gives a token for the profile.
        granted.insert("User.Read".to_owned());
    }
    let openid: Vec<&str> =
        grant.scopes.openid.iter().copied().filter(|name| asked.openid.is_empty() || asked.has(name)).collect();
    let short = state.settings.sign_in.short_scopes;
    let told: Vec<String> = granted
        .iter()
        .map(|name| if short { name.clone() } else { format!("{host}/{name}") })
        .chain(openid.iter().filter(|name| **name != "offline_access").map(|name| (*name).to_owned()))
        .collect();
    let mut claims = Map::new();
    claims.insert("scp".into(), granted.into_iter().collect::<Vec<_>>().join(" ").into());
    claims.insert("upn".into(), user.upn.clone().into());
    claims.insert("unique_name".into(), user.upn.clone().into());
    claims.insert("name".into(), user.display_name.clone().into());
    let (object_id, tenant, upn) = (user.id.clone(), user.tenant.clone(), user.upn.clone());
    let (name, mail) = (user.display_name.clone(), user.mail.clone());
    let token = AccessToken {
        audience: host,
        tenant: &tenant,
        app: &caller.app,
        strength,
        object_id: &object_id,
        can_be_challenged: grant.can_be_challenged,
    };
    let mut out = token.issue(state, claims);
    out["scope"] = told.join(" ").into();
    if openid.contains(&"openid") {
        let now = state.now_seconds();
        let mut claims = json!({
            "aud": caller.app.client_id,
            "iss": format!("{}/{tenant}/v2.0", state.login_root),
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "sub": format!("{}-{}", caller.app.client_id, object_id),
            "tid": tenant,
            "ver": "2.0",
        });
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        // "ID token claims reference": these need the scope `profile`.
        if openid.contains(&"profile") {
            claims["oid"] = object_id.clone().into();
            claims["preferred_username"] = upn.into();
            claims["name"] = name.into();
        }
        if let Some(mail) = mail.filter(|_| openid.contains(&"email")) {
            claims["email"] = mail.into();
        }
        out["id_token"] = sign(state, &claims).into();
    }
    Ok(out)
}

/// The scopes of a sign-in, checked against the registration.
pub(super) fn check_scopes(app: &super::super::state::App, scopes: &Scopes) -> Result<(), Aadsts> {
    for asked in &scopes.resources {
        if !app.delegated.iter().any(|permission| permission.resource == asked.resource) {
            return Err(aadsts(650057).saying(format!(
                "Invalid resource. The client has requested access to a resource which is not listed in the requested permissions in the client's application registration. Client app ID: {}. Resource value from request: {}.",
                app.client_id, asked.host
            )));
        }
    }
    Ok(())
}
