//! The token endpoint of Entra for applications: `client_credentials` with a secret, a certificate
//! or a federated assertion.
//!
//! Errors from "Microsoft Entra authentication & authorization error codes" and "The OAuth 2.0
//! client credentials flow on the Microsoft identity platform".

use super::content::guid;
use super::faults::{Kind, RetryAfter};
use super::odata::decode;
use super::reply::{Refusal, Reply};
use super::routes::{Incoming, retry_after};
use super::state::{App, State};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Error of the token endpoint.
struct Aadsts {
    status: u16,
    error: &'static str,
    code: u32,
    message: String,
}

fn aadsts(status: u16, error: &'static str, code: u32, message: impl Into<String>) -> Aadsts {
    Aadsts { status, error, code, message: message.into() }
}

/// What a good token says.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) client_id: String,
    pub(crate) roles: Vec<String>,
    pub(crate) unique: String,
}

const GRAPH_ID: &str = "00000003-0000-0000-c000-000000000000";
/// What tokens can be asked for: scope host, audience.
const RESOURCES: [(&str, &str); 4] = [
    ("https://graph.microsoft.com", "https://graph.microsoft.com"),
    (GRAPH_ID, GRAPH_ID),
    ("https://outlook.office365.com", "https://outlook.office365.com"),
    ("https://outlook.office.com", "https://outlook.office.com"),
];
/// Allowed difference of clocks, seconds.
const SKEW: i64 = 300;

pub(crate) fn handle(state: &mut State, incoming: &Incoming<'_>, fault: Option<&Kind>) -> Reply {
    match fault {
        Some(Kind::Entra { status, error, code, message }) => {
            return error_reply(state, incoming, *status, error, *code, message);
        }
        // What the endpoint says under load ("Handling error codes in your application").
        Some(Kind::Error { status, retry_after, .. }) => {
            let message = "A transient error has occurred. Please try again.";
            let reply = error_reply(state, incoming, *status, "temporarily_unavailable", 90033, message);
            return with_retry_after(state, reply, retry_after);
        }
        Some(Kind::Throttle { retry_after, .. }) => {
            let message = "Tenant throttling: too many requests.";
            let reply = error_reply(state, incoming, 429, "temporarily_unavailable", 90055, message);
            return with_retry_after(state, reply, retry_after);
        }
        _ => {}
    }
    match issue(state, incoming) {
        Ok(body) => {
            Reply::json(200, body).with_header("Cache-Control", "no-store, no-cache").with_header("Pragma", "no-cache")
        }
        Err(refused) => error_reply(state, incoming, refused.status, refused.error, refused.code, &refused.message),
    }
}

fn with_retry_after(state: &State, reply: Reply, value: &RetryAfter) -> Reply {
    match retry_after(state, value) {
        Some(value) => reply.with_header("Retry-After", value),
        None => reply,
    }
}

fn error_reply(
    state: &mut State,
    incoming: &Incoming<'_>,
    status: u16,
    error: &str,
    code: u32,
    message: &str,
) -> Reply {
    let trace = guid(state.number());
    let correlation = incoming.header("client-request-id").map_or_else(|| guid(state.number()), str::to_owned);
    let stamp = jiff::Timestamp::from_second(state.now_seconds())
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
        .unwrap_or_default();
    Reply::json(
        status,
        json!({
            "error": error,
            "error_description": format!(
                "AADSTS{code}: {message} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {stamp}"
            ),
            "error_codes": [code],
            "timestamp": stamp,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": format!("{}/error?code={code}", state.login_root),
        }),
    )
}

fn issue(state: &mut State, incoming: &Incoming<'_>) -> Result<Value, Aadsts> {
    let path = incoming.target.split('?').next().unwrap_or_default();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let (tenant, version) = match segments.as_slice() {
        [tenant, "oauth2", "v2.0", "token"] => (*tenant, 2),
        [tenant, "oauth2", "token"] => (*tenant, 1),
        _ => return Err(aadsts(404, "invalid_request", 90009, "Not found.")),
    };
    if incoming.method != "POST" {
        return Err(aadsts(
            400,
            "invalid_request",
            900561,
            format!("The endpoint only accepts POST requests. Received a {} request.", incoming.method),
        ));
    }
    let tenant = percent_decode_str(tenant).decode_utf8_lossy().into_owned();
    let form = form(incoming)?;
    let field = |name: &str| {
        form.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };
    let required = |name: &str| {
        field(name).ok_or_else(|| {
            aadsts(
                400,
                "invalid_request",
                900144,
                format!("The request body must contain the following parameter: '{name}'."),
            )
        })
    };
    let grant = required("grant_type")?;
    if version == 1 {
        // The older protocol names a resource; a v2 request sent there fails on it.
        required("resource")?;
    }
    if grant != "client_credentials" {
        return Err(aadsts(
            400,
            "unsupported_grant_type",
            70003,
            format!("The app requested an unsupported grant type '{grant}'."),
        ));
    }
    check_tenant(state, &tenant)?;
    let (basic_id, basic_secret) = basic(incoming)?;
    let client_id = match &basic_id {
        Some(id) => id.clone(),
        None => required("client_id")?.to_owned(),
    };
    let scope = required("scope")?.to_owned();
    let app = state.app(&client_id).cloned().ok_or_else(|| {
        aadsts(
            400,
            "unauthorized_client",
            700016,
            format!(
                "Application with identifier '{client_id}' was not found in the directory '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant."
            ),
        )
    })?;
    if app.disabled {
        return Err(aadsts(400, "unauthorized_client", 7000112, format!("Application '{client_id}' is disabled.")));
    }
    let audience = audience(&scope)?;
    let secret = field("client_secret").map(str::to_owned).or(basic_secret);
    let assertion = field("client_assertion");
    let strength = match (secret, assertion) {
        (Some(_), Some(_)) => {
            return Err(aadsts(
                400,
                "invalid_request",
                9002313,
                "Invalid request. Request is malformed or invalid: both client_secret and client_assertion were sent.",
            ));
        }
        (None, None) => {
            return Err(aadsts(
                401,
                "invalid_client",
                7000218,
                "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
            ));
        }
        (Some(secret), None) => {
            check_secret(state, &app, &secret)?;
            "1"
        }
        (None, Some(assertion)) => {
            let kind = required("client_assertion_type")?;
            if kind != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
                return Err(aadsts(
                    400,
                    "invalid_request",
                    9002313,
                    format!("Invalid request: client_assertion_type '{kind}' is not supported."),
                ));
            }
            check_assertion(state, &app, &tenant, assertion)?;
            "2"
        }
    };
    let claims: Option<Value> = match field("claims") {
        Some(text) => Some(
            serde_json::from_str(text)
                .map_err(|_| aadsts(400, "invalid_request", 9002313, "Invalid request: claims is not JSON."))?,
        ),
        None => None,
    };
    let can_be_challenged =
        claims.as_ref().is_some_and(|claims| claims.pointer("/access_token/xms_cc/values").is_some());

    let now = state.now_seconds();
    let lifetime = state.settings.token_lifetime.as_secs() as i64;
    let unique = format!("{:022x}", state.number());
    let mut payload = Map::new();
    payload.insert("aud".into(), audience.into());
    payload.insert("iss".into(), format!("https://sts.windows.net/{}/", state.tenant_id).into());
    for (name, time) in [("iat", now), ("nbf", now), ("exp", now + lifetime)] {
        payload.insert(name.into(), time.into());
    }
    payload.insert("appid".into(), app.client_id.clone().into());
    payload.insert("appidacr".into(), strength.into());
    payload.insert("idtyp".into(), "app".into());
    payload.insert("oid".into(), app.object_id.clone().into());
    payload.insert("sub".into(), app.object_id.clone().into());
    payload.insert("tid".into(), state.tenant_id.clone().into());
    payload.insert("uti".into(), unique.into());
    payload.insert("ver".into(), "1.0".into());
    // Without a granted permission there is a token, but no roles in it.
    if !app.permissions.is_empty() {
        payload.insert("roles".into(), json!(app.permissions));
    }
    if can_be_challenged {
        payload.insert("xms_cc".into(), json!(["cp1"]));
    }
    let token = sign(state, &Value::Object(payload));
    Ok(json!({
        "token_type": "Bearer",
        "expires_in": lifetime,
        "ext_expires_in": lifetime,
        "access_token": token,
    }))
}

fn form(incoming: &Incoming<'_>) -> Result<Vec<(String, String)>, Aadsts> {
    let malformed = || aadsts(400, "invalid_request", 9002313, "Invalid request. Request is malformed or invalid.");
    let is_form = incoming
        .header("content-type")
        .is_some_and(|value| value.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded"));
    // A body of another type is not read: everything seems to be missing from it.
    if !is_form {
        return Ok(Vec::new());
    }
    let body = std::str::from_utf8(incoming.body).map_err(|_| malformed())?;
    let mut fields: Vec<(String, String)> = Vec::new();
    for piece in body.split('&').filter(|piece| !piece.is_empty()) {
        let (name, value) = piece.split_once('=').ok_or_else(malformed)?;
        let name = decode(name, true).map_err(|_| malformed())?;
        let value = decode(value, true).map_err(|_| malformed())?;
        if fields.iter().any(|(known, _)| *known == name) {
            return Err(malformed());
        }
        fields.push((name, value));
    }
    Ok(fields)
}

/// Client id and secret in the `Authorization` header are accepted too.
fn basic(incoming: &Incoming<'_>) -> Result<(Option<String>, Option<String>), Aadsts> {
    let Some(value) = incoming.header("authorization").and_then(|value| value.strip_prefix("Basic ")) else {
        return Ok((None, None));
    };
    let malformed = || aadsts(401, "invalid_client", 7000215, "Invalid client secret provided.");
    let bytes = base64_simd::STANDARD.decode_to_vec(value.trim()).map_err(|_| malformed())?;
    let text = String::from_utf8(bytes).map_err(|_| malformed())?;
    let (id, secret) = text.split_once(':').ok_or_else(malformed)?;
    let decoded = |text: &str| decode(text, true).map_err(|_| malformed());
    Ok((Some(decoded(id)?), Some(decoded(secret)?)))
}

fn check_tenant(state: &State, tenant: &str) -> Result<(), Aadsts> {
    let lower = tenant.to_ascii_lowercase();
    if ["common", "organizations", "consumers"].contains(&lower.as_str()) {
        return Err(aadsts(
            400,
            "invalid_request",
            9001023,
            "The grant type is not supported over the /common or /consumers endpoints. Please use the /organizations or tenant-specific endpoint.",
        ));
    }
    if lower == state.tenant_id || state.domains.contains(&lower) {
        return Ok(());
    }
    let guid_like = lower.len() == 36 && lower.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let domain_like =
        lower.contains('.') && lower.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-');
    if guid_like || domain_like {
        Err(aadsts(
            400,
            "invalid_request",
            90002,
            format!(
                "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud."
            ),
        ))
    } else {
        Err(aadsts(
            400,
            "invalid_request",
            900023,
            format!("Specified tenant identifier '{tenant}' is neither a valid DNS name, nor a valid external domain."),
        ))
    }
}

fn audience(scope: &str) -> Result<&'static str, Aadsts> {
    let scopes: Vec<&str> = scope.split_whitespace().collect();
    let [scope] = scopes.as_slice() else {
        return Err(aadsts(
            400,
            "invalid_request",
            28000,
            "Provided value for the input parameter scope is not valid because it contains more than one resource.",
        ));
    };
    let Some(resource) = scope.strip_suffix("/.default") else {
        return Err(aadsts(
            400,
            "invalid_scope",
            1002012,
            format!(
                "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."
            ),
        ));
    };
    RESOURCES
        .iter()
        .find(|(host, _)| *host == resource.trim_end_matches('/'))
        .map(|(_, audience)| *audience)
        .ok_or_else(|| {
            aadsts(
                400,
                "invalid_resource",
                500011,
                format!("The resource principal named {resource} was not found in the tenant."),
            )
        })
}

fn check_secret(state: &State, app: &App, secret: &str) -> Result<(), Aadsts> {
    let known = app.secrets.iter().find(|known| known.value == secret);
    match known {
        None => Err(aadsts(
            401,
            "invalid_client",
            7000215,
            format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{}'.",
                app.client_id
            ),
        )),
        Some(known) if known.expires.is_some_and(|end| end <= state.now_seconds()) => Err(aadsts(
            401,
            "invalid_client",
            7000222,
            format!("The provided client secret keys for app '{}' are expired.", app.client_id),
        )),
        Some(_) => Ok(()),
    }
}

fn check_assertion(state: &State, app: &App, tenant: &str, assertion: &str) -> Result<(), Aadsts> {
    let bad = |code, message: &str| aadsts(401, "invalid_client", code, message);
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
    let tenants = [tenant, state.tenant_id.as_str()];
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
fn signature_holds(certificate: &super::state::Certificate, assertion: &str) -> bool {
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
fn signature_holds(_: &super::state::Certificate, _: &str) -> bool {
    true
}

/// Header and claims of a JWT, and the two as they were signed.
fn split_jwt(token: &str) -> Option<(Value, Value, &str)> {
    let (signed, _) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    if claims.contains('.') {
        return None;
    }
    let part = |text: &str| {
        let bytes = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(text).ok()?;
        serde_json::from_slice::<Value>(&bytes).ok()
    };
    Some((part(header)?, part(claims)?, signed))
}

fn signature(state: &State, signed: &str) -> String {
    let mut digest = Sha256::new();
    digest.update("the fake's signing key for ");
    digest.update(&state.tenant_id);
    digest.update(signed);
    base64_simd::URL_SAFE_NO_PAD.encode_to_string(digest.finalize())
}

fn sign(state: &State, payload: &Value) -> String {
    let header = json!({"typ": "JWT", "alg": "RS256", "kid": "fake-signing-key"});
    let part = |value: &Value| base64_simd::URL_SAFE_NO_PAD.encode_to_string(value.to_string());
    let signed = format!("{}.{}", part(&header), part(payload));
    let signature = signature(state, &signed);
    format!("{signed}.{signature}")
}

/// Checks the bearer token of a Graph request.
pub(crate) fn check(state: &State, authorization: Option<&str>) -> Result<Token, Refusal> {
    let token = authorization
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| !token.is_empty())
        .ok_or_else(|| Refusal::unauthenticated("Access token is empty."))?;
    if !token.contains('.') {
        return Err(Refusal::unauthenticated("CompactToken parsing failed with error code: 80049217"));
    }
    let (_, claims, signed) = split_jwt(token).ok_or_else(|| {
        Refusal::unauthenticated(
            "IDX14100: JWT is not well formed, there must be two dots.\nThe token needs to be in JWS Compact Serialization Format.",
        )
    })?;
    if !token.ends_with(&signature(state, signed)) {
        return Err(Refusal::unauthenticated("Signature is invalid."));
    }
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let end = claims.get("exp").and_then(Value::as_i64).unwrap_or_default();
    if end <= state.now_seconds() || state.dead_tokens.contains(&text("uti")) {
        return Err(Refusal::unauthenticated("Lifetime validation failed, the token is expired."));
    }
    if !["https://graph.microsoft.com", GRAPH_ID].contains(&text("aud").as_str()) {
        return Err(Refusal::unauthenticated("Access token validation failure. Invalid audience."));
    }
    Ok(Token {
        client_id: text("appid"),
        roles: claims
            .get("roles")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|role| role.as_str().map(str::to_owned))
            .collect(),
        unique: text("uti"),
    })
}

/// The base64url SHA-256 of the certificate in a PEM text, as in `x5t#S256`.
pub(crate) fn thumbprint(pem: &str) -> Option<String> {
    let body = pem.split_once("-----BEGIN CERTIFICATE-----")?.1.split_once("-----END CERTIFICATE-----")?.0;
    let text: String = body.split_whitespace().collect();
    let der = base64_simd::STANDARD.decode_to_vec(text).ok()?;
    Some(base64_simd::URL_SAFE_NO_PAD.encode_to_string(Sha256::digest(der)))
}
