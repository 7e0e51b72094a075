//! The fake's tokens: JWTs that only the fake can make, and their check at Graph.

use super::super::reply::Refusal;
use super::super::state::State;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What a good token says.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) client_id: String,
    pub(crate) tenant: String,
    /// Object id of the application's service principal, or of the person.
    pub(crate) object_id: String,
    pub(crate) audience: String,
    pub(crate) roles: Vec<String>,
    /// Delegated scopes; `None` in a token of an application.
    pub(crate) scopes: Option<Vec<String>>,
    pub(crate) expires: i64,
    pub(crate) issued: i64,
    /// Asked for with the capability `cp1`.
    pub(crate) can_be_challenged: bool,
    pub(crate) unique: String,
}

pub(crate) const GRAPH_ID: &str = "00000003-0000-0000-c000-000000000000";

/// Header and claims of a JWT, and the two as they were signed.
pub(crate) fn split_jwt(token: &str) -> Option<(Value, Value, &str)> {
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

pub(crate) fn sign(state: &State, payload: &Value) -> String {
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
    let token = read(state, token)?;
    if !["https://graph.microsoft.com", GRAPH_ID].contains(&token.audience.as_str()) {
        return Err(Refusal::unauthenticated("Access token validation failure. Invalid audience."));
    }
    Ok(token)
}

/// A token of the fake that is still alive, whatever resource it is for.
pub(crate) fn read(state: &State, token: &str) -> Result<Token, Refusal> {
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
    let number = |name: &str| claims.get(name).and_then(Value::as_i64).unwrap_or_default();
    if number("exp") <= state.now_seconds() || state.dead_tokens.contains(&text("uti")) {
        return Err(Refusal::unauthenticated("Lifetime validation failed, the token is expired."));
    }
    Ok(Token {
        client_id: text("appid"),
        tenant: text("tid"),
        object_id: text("oid"),
        audience: text("aud"),
        roles: claims
            .get("roles")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|role| role.as_str().map(str::to_owned))
            .collect(),
        scopes: claims.get("scp").and_then(Value::as_str).map(|scopes| scopes.split(' ').map(str::to_owned).collect()),
        expires: number("exp"),
        issued: number("iat"),
        can_be_challenged: claims.get("xms_cc").is_some(),
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

/// A text that means nothing to its bearer: codes, refresh tokens, session cookies.
pub(crate) fn opaque(state: &mut State, prefix: &str) -> String {
    let number = state.number();
    let mut digest = Sha256::new();
    digest.update("an opaque text of ");
    digest.update(&state.tenant_id);
    digest.update(state.login_root.as_bytes());
    digest.update(number.to_be_bytes());
    format!("{prefix}{}", base64_simd::URL_SAFE_NO_PAD.encode_to_string(digest.finalize()))
}
