//! Who has signed in, learnt from the service itself, never from the browser.
//!
//! The id token comes from the token endpoint, so its signature need not be checked (OpenID Connect Core, section
//! 3.1.3.7). It tells the object id and the tenant, which never change; the name in it is only a hint. A person's
//! addresses are told by their profile. This is the only place in the crate that asks for `/me`: everywhere else a
//! mailbox is named.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{
    Audience, SignInSettings,
    endpoint::{Endpoint, Granted, Verdict},
    is_guid,
    settings::profile_scope,
};
use crate::{Error, ErrorKind, Result, Secret, store::Signer};

/// The tenant of all personal accounts, whose ids in tokens and in profiles differ in form.
const PERSONAL: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

/// Who has signed in, by all the names that are theirs.
pub(super) struct Identity {
    pub(super) signer: Signer,
    names: Vec<String>,
}

impl Identity {
    /// Whether this is the person whom the configuration names, by object id or by any address.
    pub(super) fn is(&self, principal: &str) -> bool {
        self.names.iter().any(|name| name.to_lowercase() == principal.trim().to_lowercase())
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Claims {
    aud: Value,
    nonce: Option<String>,
    oid: Option<String>,
    tid: Option<String>,
    sub: Option<String>,
    preferred_username: Option<String>,
    upn: Option<String>,
    email: Option<String>,
    email_verified: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    id: String,
    #[serde(default)]
    user_principal_name: Option<String>,
    #[serde(default)]
    mail: Option<String>,
    #[serde(default)]
    proxy_addresses: Option<Vec<String>>,
}

/// Learns who has signed in. May use the refresh token for a token of the profile's own; `granted` holds the newest.
///
/// # Errors
///
/// When the id token belongs to another sign-in, or the service cannot be asked. Not when it will not tell the
/// addresses: then only the object id and the principal name are known.
pub(super) async fn learn(
    endpoint: &Endpoint,
    settings: &SignInSettings,
    granted: &mut Granted,
    nonce: Option<&Secret>,
) -> Result<Identity> {
    let claims = match &granted.id_token {
        Some(token) => Some(check(decode(token)?, endpoint.client_id(), nonce)?),
        None => None,
    };
    match &settings.audience {
        Audience::Other { .. } => of_claims(claims.unwrap_or_default()),
        Audience::Graph | Audience::Exchange => {
            let authority = settings.app.authority(&settings.places)?;
            let claims = claims.unwrap_or_default();
            if let (Some(tid), true) = (&claims.tid, is_guid(&authority.tenant))
                && !tid.eq_ignore_ascii_case(&authority.tenant)
            {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!(
                        "the sign-in was made in tenant `{}`, but `{}` is `{}`. Use an account of that tenant",
                        tame(tid),
                        settings.places.place("tenant"),
                        authority.tenant
                    ),
                ));
            }
            // The object id alone settles it, and asks for no permission.
            if claims.oid.is_some() && is_guid(&settings.principal) {
                return of_claims(claims);
            }
            match profile(endpoint, settings, granted, &authority.graph, authority.cloud).await {
                Ok(profile) => of_profile(profile, claims),
                Err(error) if error.is_retryable() || claims.oid.is_none() => Err(error),
                Err(error) => {
                    tracing::debug!(error = %error.chain(), "the profile of the person who signed in cannot be read");
                    of_claims(claims)
                }
            }
        }
    }
}

fn decode(token: &Secret) -> Result<Claims> {
    let unreadable = || Error::new(ErrorKind::Malformed, "the id token cannot be read");
    let middle = token.expose().split('.').nth(1).ok_or_else(unreadable)?;
    let json = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(middle.trim_end_matches('=')).map_err(|_| unreadable())?;
    serde_json::from_slice(&json).map_err(|_| unreadable())
}

fn check(claims: Claims, client_id: &str, nonce: Option<&Secret>) -> Result<Claims> {
    let is_for_us = match &claims.aud {
        Value::String(aud) => aud.eq_ignore_ascii_case(client_id),
        Value::Array(all) => all.iter().any(|aud| aud.as_str().is_some_and(|aud| aud.eq_ignore_ascii_case(client_id))),
        _ => false,
    };
    // The code's verifier has bound the answer to this sign-in already (RFC 9700, section 2.1.1), so that a token without
    // a nonce is no other's. One with another nonce is.
    let same = nonce.zip(claims.nonce.as_deref()).is_none_or(|(nonce, told)| told == nonce.expose());
    if is_for_us && same {
        return Ok(claims);
    }
    Err(Error::new(
        ErrorKind::Malformed,
        "the answer belongs to another sign-in or another app. Start the sign-in again",
    ))
}

fn of_claims(claims: Claims) -> Result<Identity> {
    let Some(id) = claims.oid.or(claims.sub) else {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            "the sign-in service does not tell who has signed in, so that nobody can be let in. Add `openid` to `scopes`",
        ));
    };
    // A service may let people claim any address; only one that it says it has not verified is left out.
    let verified = !matches!(&claims.email_verified, Value::Bool(false))
        && claims.email_verified.as_str().is_none_or(|text| text != "false");
    // In a directory, `email` is what somebody wrote there ("Claims validation", Microsoft identity platform).
    let email = claims.email.filter(|_| verified && claims.tid.is_none());
    let names: Vec<String> = [claims.upn, claims.preferred_username, email].into_iter().flatten().collect();
    let name = names.first().unwrap_or(&id).clone();
    let mut signer = Signer::new(tame(&id), tame(&name));
    signer.tenant = claims.tid.as_deref().map(tame);
    Ok(Identity { signer, names: names.into_iter().chain([id]).collect() })
}

fn of_profile(profile: Profile, claims: Claims) -> Result<Identity> {
    let personal = claims.tid.as_deref() == Some(PERSONAL);
    if claims.oid.as_ref().is_some_and(|oid| !personal && !oid.eq_ignore_ascii_case(&profile.id)) {
        return Err(Error::new(
            ErrorKind::Malformed,
            "the profile and the id token speak of two people. Start the sign-in again",
        ));
    }
    let smtp = |entry: String| {
        let (scheme, address) = entry.split_once(':')?;
        scheme.eq_ignore_ascii_case("smtp").then(|| address.to_owned())
    };
    let aliases = profile.proxy_addresses.unwrap_or_default().into_iter().filter_map(smtp);
    let names = [profile.user_principal_name, profile.mail].into_iter().flatten().chain(aliases);
    let names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
    let id = claims.oid.unwrap_or(profile.id);
    let mut signer = Signer::new(tame(&id), tame(names.first().unwrap_or(&id)));
    signer.tenant = claims.tid.as_deref().map(tame);
    Ok(Identity { signer, names: names.into_iter().chain([id]).collect() })
}

async fn profile(
    endpoint: &Endpoint,
    settings: &SignInSettings,
    granted: &mut Granted,
    graph: &Url,
    cloud: super::Cloud,
) -> Result<Profile> {
    let token = match settings.audience {
        Audience::Graph => granted.token.secret.clone(),
        _ => graph_token(endpoint, granted, &profile_scope(cloud)).await?,
    };
    let root = graph.as_str().trim_end_matches('/');
    let url = Url::parse(&format!("{root}/v1.0/me?$select=id,userPrincipalName,mail,proxyAddresses"))
        .map_err(|e| Error::new(ErrorKind::Other, "the address of the profile cannot be made").with_source(e))?;
    let judge = |reply: &super::endpoint::Reply| match reply.status {
        429 => Verdict::Again(unread(ErrorKind::Throttled, reply.status)),
        500.. => Verdict::Again(unread(ErrorKind::Unavailable, reply.status)),
        _ => Verdict::Final,
    };
    let reply = endpoint.asker().get(&url, &token, &judge).await?;
    match reply.status {
        200 => {
            serde_json::from_slice(&reply.body).map_err(|e| unread(ErrorKind::Malformed, reply.status).with_source(e))
        }
        401 | 403 => Err(unread(ErrorKind::PermissionDenied, reply.status)),
        _ => Err(unread(ErrorKind::Other, reply.status)),
    }
}

fn unread(kind: ErrorKind, status: u16) -> Error {
    Error::new(kind, format!("the profile of the person who signed in cannot be read: Graph answered {status}"))
}

/// A token of another resource, from the same sign-in.
async fn graph_token(endpoint: &Endpoint, granted: &mut Granted, scope: &str) -> Result<Secret> {
    let Some(refresh) = granted.refresh_token.clone() else {
        return Err(Error::new(ErrorKind::PermissionDenied, "there is no refresh token to read the profile with"));
    };
    let material = endpoint.material().await?;
    let more = endpoint.refresh(&material, &refresh, &[("scope", scope)]).await.map_err(|refusal| refusal.error)?;
    if more.refresh_token.is_some() {
        granted.refresh_token = more.refresh_token;
    }
    Ok(more.token.secret)
}

/// A name from outside, fit for a log, a terminal and a page.
fn tame(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(256).collect()
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("signer", &self.signer).finish_non_exhaustive()
    }
}
