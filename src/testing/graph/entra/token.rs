//! The token endpoint: who asks, for what, and the answer to each grant.
//!
//! From "The OAuth 2.0 client credentials flow", "... authorization code flow" and "... device authorization grant
//! flow on the Microsoft identity platform".

use super::super::odata::decode;
use super::super::reply::Reply;
use super::super::routes::Incoming;
use super::super::state::{App, State};
use super::codes::{Aadsts, aadsts};
use super::jwt::{sign, split_jwt};
use super::people::Authority;
use super::{grants, scope, tenant_of};
use serde_json::{Map, Value, json};

/// Allowed difference of clocks, seconds.
const SKEW: i64 = 300;

/// Fields of every grant.
const COMMON: [&str; 6] =
    ["grant_type", "client_id", "client_secret", "client_assertion_type", "client_assertion", "claims"];

/// Answers a request, and tells which grant it was.
pub(crate) fn handle(state: &mut State, incoming: &Incoming<'_>) -> (Option<String>, Result<Reply, Aadsts>) {
    let mut grant = None;
    let issued = issue(state, incoming, &mut grant);
    let reply = issued.map(|body| {
        Reply::json(200, body).with_header("Cache-Control", "no-store, no-cache").with_header("Pragma", "no-cache")
    });
    (grant, reply)
}

fn issue(state: &mut State, incoming: &Incoming<'_>, told: &mut Option<String>) -> Result<Value, Aadsts> {
    let path = incoming.target.split('?').next().unwrap_or_default();
    let tenant = tenant_of(path);
    if incoming.method != "POST" {
        return Err(aadsts(900561)
            .saying(format!("The endpoint only accepts POST requests. Received a {} request.", incoming.method)));
    }
    let form = Form::read(incoming)?;
    let grant = form.required("grant_type")?;
    if !path.ends_with("/v2.0/token") {
        // The older protocol names a resource; a v2 request sent there fails on it.
        form.required("resource")?;
    }
    *told = Some(grant.to_owned());
    match grant {
        "client_credentials" => {
            form.only(&COMMON, &["scope", "resource"])?;
            client_credentials(state, incoming, &tenant, &form)
        }
        "authorization_code" => {
            form.only(&COMMON, &["scope", "code", "redirect_uri", "code_verifier"])?;
            grants::code(state, &Caller::new(state, incoming, &tenant, &form)?)
        }
        "refresh_token" => {
            form.only(&COMMON, &["scope", "refresh_token"])?;
            grants::refresh(state, &Caller::new(state, incoming, &tenant, &form)?)
        }
        "urn:ietf:params:oauth:grant-type:device_code" => {
            form.only(&COMMON, &["device_code"])?;
            grants::device(state, &Caller::new(state, incoming, &tenant, &form)?)
        }
        other => Err(aadsts(70003).saying(format!("The app requested an unsupported grant type '{other}'."))),
    }
}

/// Who asks for a person's token.
pub(super) struct Caller<'a> {
    pub(super) app: App,
    pub(super) authority: Authority,
    tenant: &'a str,
    pub(super) form: &'a Form,
    secret: Option<String>,
    pub(super) origin: bool,
}

impl<'a> Caller<'a> {
    fn new(state: &State, incoming: &Incoming<'_>, tenant: &'a str, form: &'a Form) -> Result<Self, Aadsts> {
        let authority = state.authority(tenant)?;
        let (basic_id, basic_secret) = basic(incoming)?;
        let client_id = match basic_id {
            Some(id) => id,
            None => form.required("client_id")?.to_owned(),
        };
        let app = state.app_for(&client_id, &authority, tenant)?;
        let secret = form.get("client_secret").map(str::to_owned).or(basic_secret);
        Ok(Caller { app, authority, tenant, form, secret, origin: incoming.header("origin").is_some() })
    }

    /// Whether a secret or an assertion was sent.
    pub(super) fn presents_credential(&self) -> bool {
        self.secret.is_some() || self.form.get("client_assertion").is_some()
    }

    /// Checks secret or assertion; `appidacr` of the token.
    pub(super) fn credential(&self, state: &State) -> Result<&'static str, Aadsts> {
        check_credential(state, &self.app, self.tenant, self.form, self.secret.as_deref())
    }
}

fn check_credential(
    state: &State,
    app: &App,
    tenant: &str,
    form: &Form,
    secret: Option<&str>,
) -> Result<&'static str, Aadsts> {
    match (secret, form.get("client_assertion")) {
        (Some(_), Some(_)) => Err(aadsts(9002313).saying(
            "Invalid request. Request is malformed or invalid: both client_secret and client_assertion were sent.",
        )),
        (None, None) => Err(aadsts(7000218)),
        (Some(secret), None) => check_secret(state, app, secret).map(|()| "1"),
        (None, Some(assertion)) => {
            let kind = form.required("client_assertion_type")?;
            if kind != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
                return Err(aadsts(9002313)
                    .saying(format!("Invalid request: client_assertion_type '{kind}' is not supported.")));
            }
            check_assertion(state, app, &[tenant, &state.tenant_id], assertion).map(|()| "2")
        }
    }
}

fn client_credentials(state: &mut State, incoming: &Incoming<'_>, tenant: &str, form: &Form) -> Result<Value, Aadsts> {
    let Authority::Tenant(id) = state.authority(tenant).or_else(|refused| match refused.code {
        90130 => Ok(Authority::Any),
        _ => Err(refused),
    })?
    else {
        return Err(aadsts(9001023));
    };
    let (basic_id, basic_secret) = basic(incoming)?;
    let client_id = match &basic_id {
        Some(id) => id.clone(),
        None => form.required("client_id")?.to_owned(),
    };
    let scope = form.required("scope")?.to_owned();
    let app = state.app_for(&client_id, &Authority::Tenant(id.clone()), tenant)?;
    let roles = match app.roles_in(&state.tenant_id, &id) {
        Some(roles) => roles,
        None => {
            return Err(aadsts(700016).saying(format!(
                "Application with identifier '{client_id}' was not found in the directory '{tenant}'."
            )));
        }
    };
    let (audience, resource) = scope::default_of(&scope)?;
    let secret = form.get("client_secret").map(str::to_owned).or(basic_secret);
    let strength = check_credential(state, &app, tenant, form, secret.as_deref())?;
    let roles: Vec<&String> = roles.iter().filter(|role| resource.has_role(role)).collect();
    let mut claims = Map::new();
    claims.insert("idtyp".into(), "app".into());
    // Without a granted permission there is a token, but no roles in it.
    if !roles.is_empty() {
        claims.insert("roles".into(), json!(roles));
    }
    let token = AccessToken {
        audience,
        tenant: &id,
        app: &app,
        strength,
        object_id: &app.object_id,
        can_be_challenged: can_be_challenged(form)?,
    };
    Ok(token.issue(state, claims))
}

/// Whether the capability `cp1` was asked for.
pub(super) fn can_be_challenged(form: &Form) -> Result<bool, Aadsts> {
    let Some(text) = form.get("claims") else {
        return Ok(false);
    };
    let claims: Value =
        serde_json::from_str(text).map_err(|_| aadsts(9002313).saying("Invalid request: claims is not JSON."))?;
    Ok(claims.pointer("/access_token/xms_cc/values").is_some())
}

/// What every access token says.
pub(super) struct AccessToken<'a> {
    pub(super) audience: &'a str,
    pub(super) tenant: &'a str,
    pub(super) app: &'a App,
    pub(super) strength: &'a str,
    pub(super) object_id: &'a str,
    pub(super) can_be_challenged: bool,
}

impl AccessToken<'_> {
    /// The answer of the endpoint, with these claims besides.
    pub(super) fn issue(&self, state: &mut State, claims: Map<String, Value>) -> Value {
        let now = state.now_seconds();
        let lifetime = state.settings.token_lifetime.as_secs() as i64;
        let unique = format!("{:022x}", state.number());
        let mut payload = claims;
        payload.insert("aud".into(), self.audience.into());
        payload.insert("iss".into(), format!("https://sts.windows.net/{}/", self.tenant).into());
        for (name, time) in [("iat", now), ("nbf", now), ("exp", now + lifetime)] {
            payload.insert(name.into(), time.into());
        }
        payload.insert("appid".into(), self.app.client_id.clone().into());
        payload.insert("appidacr".into(), self.strength.into());
        payload.insert("oid".into(), self.object_id.into());
        payload.insert("sub".into(), self.object_id.into());
        payload.insert("tid".into(), self.tenant.into());
        payload.insert("uti".into(), unique.into());
        payload.insert("ver".into(), "1.0".into());
        if self.can_be_challenged {
            payload.insert("xms_cc".into(), json!(["cp1"]));
        }
        let token = sign(state, &Value::Object(payload));
        json!({
            "token_type": "Bearer",
            "expires_in": lifetime,
            "ext_expires_in": lifetime,
            "access_token": token,
        })
    }
}

/// Fields of a form or a query, each at most once.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// The body of a request.
    pub(super) fn read(incoming: &Incoming<'_>) -> Result<Self, Aadsts> {
        let is_form = incoming
            .header("content-type")
            .is_some_and(|value| value.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded"));
        // A body of another type is not read: everything seems to be missing from it.
        if !is_form {
            return Ok(Form(Vec::new()));
        }
        Self::parse(std::str::from_utf8(incoming.body).map_err(|_| aadsts(9002313))?)
    }

    pub(super) fn parse(text: &str) -> Result<Self, Aadsts> {
        let malformed = || aadsts(9002313);
        let mut fields: Vec<(String, String)> = Vec::new();
        for piece in text.split('&').filter(|piece| !piece.is_empty()) {
            let (name, value) = piece.split_once('=').ok_or_else(malformed)?;
            let name = decode(name, true).map_err(|_| malformed())?;
            let value = decode(value, true).map_err(|_| malformed())?;
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(malformed().saying(format!(
                    "Invalid request. Request is malformed or invalid: '{name}' was sent more than once."
                )));
            }
            fields.push((name, value));
        }
        Ok(Form(fields))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, Aadsts> {
        self.get(name).ok_or_else(|| {
            aadsts(900144).saying(format!("The request body must contain the following parameter: '{name}'."))
        })
    }

    /// Refuses fields that the documentation does not list. The service would pass over some of them; a client that
    /// sends one means something by it that does not happen.
    pub(super) fn only(&self, common: &[&str], others: &[&str]) -> Result<(), Aadsts> {
        let known = |name: &str| common.contains(&name) || others.contains(&name);
        match self.0.iter().find(|(name, _)| !known(name)) {
            Some((name, _)) => Err(aadsts(9002313)
                .saying(format!("Invalid request. Request is malformed or invalid: '{name}' is not known here."))),
            None => Ok(()),
        }
    }
}

/// Client id and secret in the `Authorization` header are accepted too.
fn basic(incoming: &Incoming<'_>) -> Result<(Option<String>, Option<String>), Aadsts> {
    let Some(value) = incoming.header("authorization").and_then(|value| value.strip_prefix("Basic ")) else {
        return Ok((None, None));
    };
    let malformed = || aadsts(7000215).saying("Invalid client secret provided.");
    let bytes = base64_simd::STANDARD.decode_to_vec(value.trim()).map_err(|_| malformed())?;
    let text = String::from_utf8(bytes).map_err(|_| malformed())?;
    let (id, secret) = text.split_once(':').ok_or_else(malformed)?;
    let decoded = |text: &str| decode(text, true).map_err(|_| malformed());
    Ok((Some(decoded(id)?), Some(decoded(secret)?)))
}

fn check_secret(state: &State, app: &App, secret: &str) -> Result<(), Aadsts> {
    let known = app.secrets.iter().find(|known| known.value == secret);
    match known {
        None => Err(aadsts(7000215).saying(format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{}'.",
                app.client_id
            ))),
        Some(known) if known.expires.is_some_and(|end| end <= state.now_seconds()) => Err(aadsts(7000222).saying(format!("The provided client secret keys for app '{}' are expired.", app.client_id))),
        Some(_) => Ok(()),
    }
}

fn check_assertion(state: &State, app: &App, tenants: &[&str], assertion: &str) -> Result<(), Aadsts> {
    let bad = |code, message: &str| aadsts(code).saying(message);
    let unreadable = || bad(50027, "JWT token is invalid or malformed.");
    let (header, claims, _) = split_jwt(assertion).ok_or_else(unreadable)?;
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |name: &str| claims.get(name).and_then(Value::as_i64);
    let now = state.now_seconds();
    let alive =
        number("exp").is_some_and(|end| end > now - SKEW) && number("nbf").is_none_or(|start| start <= now + SKEW);
    let (issuer, subject) = (text(&claims, "iss"), text(&claims, "sub"));
    let audiences: Vec<String> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    if issuer != app.client_id {
        // From another issuer: a federated credential must match to the letter.
        let matched = app
            .federated
            .iter()
            .any(|known| known.issuer == issuer && known.subject == subject && audiences.contains(&known.audience));
        return if !matched {
            Err(bad(700213, "No matching federated identity record found for presented assertion subject."))
        } else if !alive {
            Err(bad(700024, "Client assertion is not within its valid time range."))
        } else {
            Ok(())
        };
    }
    let thumbprint = text(&header, "x5t#S256");
    let Some(certificate) = app.certificates.iter().find(|known| known.thumbprint == thumbprint) else {
        return Err(bad(
            700027,
            "The certificate with identifier used to sign the client assertion is not registered on application.",
        ));
    };
    if subject != app.client_id || !["PS256", "RS256"].contains(&text(&header, "alg").as_str()) {
        return Err(bad(50012, "Authentication failed: the client assertion is not acceptable."));
    }
    let roots = [state.login_root.as_str(), "https://login.microsoftonline.com"];
    let expected = tenants.iter().any(|tenant| {
        roots
            .iter()
            .any(|root| audiences.iter().any(|audience| *audience == format!("{root}/{tenant}/oauth2/v2.0/token")))
    });
    if !expected {
        return Err(bad(
            50012,
            "Authentication failed: the audience of the client assertion is not the token endpoint.",
        ));
    }
    if text(&claims, "jti").is_empty() {
        return Err(unreadable());
    }
    if !alive {
        return Err(bad(700024, "Client assertion is not within its valid time range."));
    }
    if !signature_holds(certificate, assertion) {
        return Err(bad(700027, "Client assertion failed signature validation."));
    }
    Ok(())
}

#[cfg(feature = "certificate")]
fn signature_holds(certificate: &super::super::state::Certificate, assertion: &str) -> bool {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};
    let Ok(key) = DecodingKey::from_rsa_pem(certificate.pem.as_bytes()) else {
        return false;
    };
    let Ok(header) = jsonwebtoken::decode_header(assertion) else {
        return false;
    };
    let algorithm = match header.alg {
        Algorithm::PS256 => Algorithm::PS256,
        Algorithm::RS256 => Algorithm::RS256,
        _ => return false,
    };
    // Times and audience were checked against the fake's clock and name.
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.set_required_spec_claims::<&str>(&[]);
    jsonwebtoken::decode::<Value>(assertion, &key, &validation).is_ok()
}

/// Without the feature there is nothing to check a signature with.
#[cfg(not(feature = "certificate"))]
fn signature_holds(_: &super::super::state::Certificate, _: &str) -> bool {
    true
}
