//! The answers of Microsoft's sign-in service ("Microsoft identity platform and OAuth 2.0 authorization code flow",
//! error responses; "Microsoft Entra authentication and authorization error codes").
//!
//! What to do follows from the OAuth `error`; the AADSTS code chooses the help text, because Microsoft says that codes may
//! change. A few codes are listed with a kind of their own: there the OAuth error says less than the code.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::endpoint::{Reply, Verdict};
use crate::{Error, ErrorKind, Result, Secret};

/// What was given.
pub(super) struct Body {
    pub(super) token: Secret,
    pub(super) lives: Duration,
    pub(super) refresh_token: Option<Secret>,
    pub(super) id_token: Option<Secret>,
    pub(super) scopes: Vec<String>,
}

/// A refusal, with what the protocol calls it: flows go by that name where an [`Error`] says less.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The OAuth `error`; empty when there was no answer in the protocol's terms.
    pub(super) oauth: String,
    pub(super) error: Error,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { oauth: String::new(), error }
    }
}

impl Refusal {
    /// A refusal that came back through the browser, in the query of a redirect.
    pub(super) fn of_redirect(error: &str, description: &str) -> Self {
        let refused = RefusedBody {
            error: error.to_owned(),
            error_description: description.into(),
            error_codes: Value::Null,
            trace_id: Value::Null,
            correlation_id: Value::Null,
        };
        let reply = Reply {
            status: 400,
            retry_after: None,
            date: None,
            content_type: String::new(),
            body: bytes::Bytes::new(),
        };
        let error = refused_error(&refused, &reply, &[]);
        Self { oauth: refused.error, error }
    }

    /// Whether an administrator must consent before this can work.
    pub(super) fn needs_consent(&self) -> bool {
        self.oauth == "consent_required"
            || self.error.code().is_some_and(|code| matches!(code, "AADSTS65001" | "AADSTS90094" | "AADSTS90095"))
    }
}

#[derive(Deserialize)]
struct GrantedBody {
    access_token: String,
    #[serde(default)]
    expires_in: Value,
    #[serde(default)]
    refresh_token: Value,
    #[serde(default)]
    id_token: Value,
    #[serde(default)]
    scope: Value,
}

#[derive(Deserialize)]
struct RefusedBody {
    error: String,
    #[serde(default)]
    error_description: Value,
    #[serde(default)]
    error_codes: Value,
    #[serde(default)]
    trace_id: Value,
    #[serde(default)]
    correlation_id: Value,
}

/// Whether an answer is final; asked before [`read`].
pub(super) fn judge(reply: &Reply, secrets: &[&Secret]) -> Verdict {
    match read(reply, secrets) {
        Err(Refusal { error, .. }) if error.is_retryable() => Verdict::Again(error),
        _ => Verdict::Final,
    }
}

/// Reads an answer.
///
/// # Errors
///
/// By its OAuth error and AADSTS code; [`ErrorKind::Unavailable`] for anything that is not the service's JSON.
pub(super) fn read(reply: &Reply, secrets: &[&Secret]) -> Result<Body, Refusal> {
    if reply.status == 200
        && let Ok(granted) = serde_json::from_slice::<GrantedBody>(&reply.body)
        && !granted.access_token.is_empty()
    {
        let seconds = match &granted.expires_in {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        // RFC 6749 only recommends it; an hour is what Microsoft's tokens live at least.
        let lives = Duration::from_secs(seconds.unwrap_or(3_600));
        let secret = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(Secret::new);
        return Ok(Body {
            token: Secret::new(granted.access_token),
            lives,
            refresh_token: secret(&granted.refresh_token),
            id_token: secret(&granted.id_token),
            scopes: granted.scope.as_str().unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        });
    }
    Err(refusal(reply, secrets))
}

/// What an answer says that gives nothing.
pub(super) fn refusal(reply: &Reply, secrets: &[&Secret]) -> Refusal {
    match serde_json::from_slice::<RefusedBody>(&reply.body) {
        Ok(refused) if reply.status >= 400 => {
            Refusal { error: refused_error(&refused, reply, secrets), oauth: refused.error }
        }
        _ => not_an_answer(reply).into(),
    }
}

fn not_an_answer(reply: &Reply) -> Error {
    let kind = match reply.status {
        429 => ErrorKind::Throttled,
        407 => ErrorKind::InvalidConfig,
        _ => ErrorKind::Unavailable,
    };
    let error = Error::new(
        kind,
        format!(
            "the sign-in service answered {} with {} instead of its JSON; a proxy or network portal may stand in between",
            reply.status, reply.content_type
        ),
    );
    match reply.retry_after {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

fn refused_error(refused: &RefusedBody, reply: &Reply, secrets: &[&Secret]) -> Error {
    let description = refused.error_description.as_str().unwrap_or_default();
    let code = code(&refused.error_codes, description);
    let help = code.and_then(|code| HELP.iter().find(|row| row.codes.contains(&code)));
    let transient = matches!(refused.error.as_str(), "temporarily_unavailable" | "server_error");
    let kind = match (help.and_then(|row| row.kind), reply.status) {
        (_, 429) => ErrorKind::Throttled,
        (_, 500..) => ErrorKind::Unavailable,
        _ if transient => ErrorKind::Unavailable,
        (Some(kind), _) => kind,
        (None, _) => match refused.error.as_str() {
            "invalid_client" => ErrorKind::Unauthenticated,
            "invalid_grant" | "interaction_required" | "login_required" | "consent_required" => ErrorKind::SignInNeeded,
            "access_denied" | "authorization_declined" => ErrorKind::PermissionDenied,
            "expired_token" => ErrorKind::SignInNeeded,
            "unauthorized_client"
            | "invalid_scope"
            | "invalid_resource"
            | "invalid_request"
            | "unsupported_grant_type" => ErrorKind::InvalidConfig,
            _ => ErrorKind::Other,
        },
    };
    let message = match help {
        Some(row) => format!("sign-in refused: {}", row.text),
        None => format!("sign-in refused ({}): {}", clean(&refused.error, secrets), clean(description, secrets)),
    };
    let mut error = Error::new(kind, message);
    if let Some(code) = code {
        error = error.with_code(format!("AADSTS{code}"));
    } else {
        error = error.with_code(clean(&refused.error, secrets));
    }
    for id in [&refused.correlation_id, &refused.trace_id] {
        if let Some(id) = id.as_str() {
            error = error.with_request_id(id.chars().take(64).collect::<String>());
        }
    }
    if let Some(wait) = reply.retry_after {
        error = error.with_retry_after(wait);
    }
    error
}

/// From `error_codes`, or from the description, which begins with it.
fn code(codes: &Value, description: &str) -> Option<u64> {
    let listed = match codes {
        Value::Array(codes) => codes.first(),
        other => Some(other),
    };
    let listed = listed.and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
    listed.or_else(|| {
        let (_, rest) = description.split_once("AADSTS")?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}

/// The service's words, fit to be shown: one line, not endless, and without what it quotes of a secret.
fn clean(text: &str, secrets: &[&Secret]) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut shown: String = line.chars().filter(|c| !c.is_control()).take(400).collect();
    for secret in secrets {
        shown = without_quotes_of(&shown, secret.expose());
    }
    // Anything that looks like a token, whoever's it is.
    let words = shown.split(' ').map(|word| if word.contains("eyJ") { "***" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Blanks out every piece of at least six characters that also stands in the secret.
fn without_quotes_of(text: &str, secret: &str) -> String {
    const PIECE: usize = 6;
    let text: Vec<char> = text.chars().collect();
    let secret: Vec<char> = secret.chars().collect();
    if secret.len() < PIECE {
        let whole: String = secret.iter().collect();
        let text: String = text.iter().collect();
        return if whole.is_empty() { text } else { text.replace(&whole, "***") };
    }
    let pieces: std::collections::HashSet<&[char]> = secret.windows(PIECE).collect();
    let mut quoted = vec![false; text.len()];
    for (at, window) in text.windows(PIECE).enumerate() {
        if pieces.contains(window) {
            quoted[at..at + PIECE].fill(true);
        }
    }
    let mut shown = String::new();
    for (at, c) in text.iter().enumerate() {
        match quoted[at] {
            false => shown.push(*c),
            true if at == 0 || !quoted[at - 1] => shown.push_str("***"),
            true => {}
        }
    }
    shown
}

struct Help {
    codes: &'static [u64],
    /// Where the OAuth error says less.
    kind: Option<ErrorKind>,
    text: &'static str,
}

const fn row(codes: &'static [u64], text: &'static str) -> Help {
    Help { codes, kind: None, text }
}

const fn kind(codes: &'static [u64], kind: ErrorKind, text: &'static str) -> Help {
    Help { codes, kind: Some(kind), text }
}

use ErrorKind::{InvalidConfig, PermissionDenied, SignInNeeded, Throttled, Unauthenticated, Unavailable};

/// What is wrong and what to do, by AADSTS code.
static HELP: &[Help] = &[
    kind(
        &[7_000_215],
        Unauthenticated,
        "the client secret is wrong. Write the secret's value, not its ID; if it was rotated, write the new one",
    ),
    kind(
        &[7_000_222],
        Unauthenticated,
        "the client secret has expired. Make a new one in the app registration, or use a certificate",
    ),
    row(
        &[7_000_218],
        "the request held neither secret nor assertion. Write `client_secret`, or allow public client flows in the app registration",
    ),
    row(
        &[700_025],
        "the app registration is a public client, which must not send a secret. Remove `client_secret`, or register the redirect URI as Web",
    ),
    kind(
        &[7_000_112],
        PermissionDenied,
        "the application is disabled in this tenant. An administrator must enable its enterprise application",
    ),
    kind(
        &[700_016],
        InvalidConfig,
        "there is no application with this client id in this tenant. Check `tenant`, and that `client_id` is the Application (client) ID and not an object ID; an app of another tenant needs consent here first",
    ),
    kind(
        &[700_027, 50_012],
        Unauthenticated,
        "the signed assertion was not accepted. Upload the certificate to the app registration, check that the key belongs to it, and check this machine's clock",
    ),
    kind(&[700_024], Unauthenticated, "the signed assertion is not within its valid time. Check this machine's clock"),
    kind(
        &[70_021, 700_213],
        Unauthenticated,
        "the federated token matches no federated credential of the app registration. Compare issuer, subject and audience, character by character",
    ),
    kind(&[90_002], InvalidConfig, "there is no such tenant in this cloud. Check `tenant` and `cloud`"),
    kind(&[900_023], InvalidConfig, "`tenant` is neither a tenant's id nor a valid domain"),
    kind(&[90_038], InvalidConfig, "the tenant belongs to another cloud. Check `cloud`"),
    kind(
        &[50_194, 9_001_023, 90_130, 90_124],
        InvalidConfig,
        "this app cannot sign in at `common` or `consumers`. Write the tenant's id or domain",
    ),
    row(
        &[50_011, 900_971],
        "the redirect URI is not registered. Add it to the app registration, with exact case and the right platform",
    ),
    row(&[9_002_325, 9_002_327], "the redirect URI is registered as a single-page application. Register it as Web"),
    kind(&[501_481], SignInNeeded, "the answer belongs to another sign-in. Start the sign-in again"),
    kind(&[54_005], SignInNeeded, "the sign-in's code was used already. Start the sign-in again"),
    kind(
        &[70_008, 700_082, 70_000, 50_173, 50_089],
        SignInNeeded,
        "the stored sign-in has expired or was revoked. Sign in again",
    ),
    kind(
        &[700_084],
        SignInNeeded,
        "sign-ins of a single-page application end after 24 hours. Register the redirect URI as Web and sign in again",
    ),
    kind(
        &[70_043],
        SignInNeeded,
        "a policy on sign-in frequency ended the stored sign-in. Sign in again, or ask an administrator for an exception",
    ),
    kind(
        &[50_132, 50_133],
        SignInNeeded,
        "the password was changed or has expired, which ended the stored sign-in. Sign in again",
    ),
    kind(
        &[50_076, 50_079, 50_072, 50_074, 50_158],
        SignInNeeded,
        "the tenant asks for a further proof of identity. Sign in again; a job that must not depend on a person uses `auth = \"app\"`",
    ),
    kind(&[53_003], PermissionDenied, "blocked by Conditional Access. An administrator must look at the policy"),
    kind(
        &[53_000, 53_001],
        PermissionDenied,
        "the tenant's policy asks for a managed device. An administrator must look at the policy",
    ),
    kind(
        &[530_032, 530_035],
        PermissionDenied,
        "blocked by the tenant's security policy. An administrator must look at it",
    ),
    kind(
        &[50_105],
        PermissionDenied,
        "the user is not assigned to the application. An administrator must assign them, or drop the requirement",
    ),
    kind(
        &[65_001],
        PermissionDenied,
        "nobody has consented to this application here. An administrator must grant consent",
    ),
    kind(&[65_004], PermissionDenied, "the user declined consent. Try again, or have an administrator grant it"),
    kind(&[90_094, 90_095], PermissionDenied, "an administrator must grant consent to this application"),
    row(
        &[650_057],
        "the app registration does not list the API that is asked for. Add the permission there and grant consent",
    ),
    row(
        &[650_056, 65_005],
        "the app registration lists no permission for this API, or consent is missing. Add it and grant consent",
    ),
    row(&[650_052], "the tenant has no subscription for this service. An administrator must provide it"),
    kind(
        &[500_011],
        InvalidConfig,
        "the tenant does not know the service that is asked for. Check `cloud` and `tenant`",
    ),
    row(&[70_011, 1_002_012], "the scope is not valid"),
    row(&[28_000, 700_022], "scopes of more than one service were asked for at once"),
    row(&[50_034], "there is no such user in this tenant. Check the address and `tenant`"),
    row(
        &[50_020, 16_000],
        "the account that signed in does not belong to this tenant. Use another account, or have it invited as a guest",
    ),
    kind(&[50_126], Unauthenticated, "user name or password is wrong"),
    kind(
        &[50_053],
        Unauthenticated,
        "the account is locked, or sign-ins come from a blocked address. Wait, or ask an administrator",
    ),
    kind(&[50_055], SignInNeeded, "the password has expired. Change it and sign in again"),
    kind(&[50_057], PermissionDenied, "the user account is disabled. An administrator must enable it"),
    kind(&[50_058], SignInNeeded, "nobody is signed in. Sign in again"),
    kind(
        &[90_033, 90_024, 90_006, 90_012, 50_033],
        Unavailable,
        "the sign-in service has a passing fault. Try again later",
    ),
    kind(
        &[50_196],
        Throttled,
        "the same request came too often. Wait some minutes; several programs may be using this registration",
    ),
    kind(&[90_055], Throttled, "the tenant sends too many requests. Try again later"),
    row(&[9_002_313, 900_144, 90_014], "the request was malformed or something was missing in it"),
    row(&[900_561], "the sign-in service was asked with the wrong method; a proxy may have changed the request"),
    row(&[900_382, 900_432], "an app with a secret cannot sign in across clouds. Check `cloud`"),
];

/// What a refusal of the sign-in service becomes.
#[cfg(test)]
pub(crate) fn refusal_of(error: &str, code: u64) -> Error {
    let body =
        serde_json::json!({ "error": error, "error_codes": [code], "error_description": format!("AADSTS{code}: x") });
    let status = if error == "invalid_client" { 401 } else { 400 };
    let body = body.to_string().into();
    let reply = Reply { status, retry_after: None, date: None, content_type: "application/json".into(), body };
    read(&reply, &[]).err().expect("a refusal").error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status, retry_after: None, date: None, content_type: "text/html".into(), body: body.to_owned().into() }
    }

    fn refusal(status: u16, error: &str, code: u64) -> Error {
        let body = serde_json::json!({
            "error": error, "error_codes": [code], "trace_id": "t-1", "correlation_id": "c-1",
            "error_description": format!("AADSTS{code}: Something. 'sup3r-secret-value'\r\nTrace ID: t-1"),
            "timestamp": "2026-01-31 10:00:00Z", "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
        });
        let secret = Secret::new("sup3r-secret-value");
        read(&reply(status, &body.to_string()), &[&secret]).err().unwrap().error
    }

    /// Every code of Microsoft's error list that concerns us, with the OAuth error it comes with, and a word that its
    /// explanation must hold.
    #[test]
    fn every_code_names_its_cause() {
        use ErrorKind::*;
        let table: &[(u64, &str, ErrorKind, &str)] = &[
            (7000215, "invalid_client", Unauthenticated, "not its ID"),
            (7000222, "invalid_client", Unauthenticated, "expired"),
            (7000218, "invalid_request", InvalidConfig, "public client flows"),
            (700025, "invalid_client", Unauthenticated, "public client"),
            (7000112, "unauthorized_client", PermissionDenied, "disabled"),
            (700016, "unauthorized_client", InvalidConfig, "Application (client) ID"),
            (700027, "invalid_client", Unauthenticated, "certificate"),
            (50012, "invalid_client", Unauthenticated, "certificate"),
            (90002, "invalid_request", InvalidConfig, "no such tenant"),
            (90038, "invalid_request", InvalidConfig, "another cloud"),
            (50194, "invalid_request", InvalidConfig, "`common`"),
            (9001023, "invalid_request", InvalidConfig, "`common`"),
            (90130, "invalid_request", InvalidConfig, "`common`"),
            (90124, "invalid_request", InvalidConfig, "`common`"),
            (50011, "invalid_request", InvalidConfig, "redirect URI"),
            (900971, "invalid_request", InvalidConfig, "redirect URI"),
            (501481, "invalid_grant", SignInNeeded, "again"),
            (54005, "invalid_grant", SignInNeeded, "used already"),
            (70008, "invalid_grant", SignInNeeded, "Sign in again"),
            (700082, "invalid_grant", SignInNeeded, "Sign in again"),
            (700084, "invalid_grant", SignInNeeded, "24 hours"),
            (70043, "invalid_grant", SignInNeeded, "frequency"),
            (70000, "invalid_grant", SignInNeeded, "Sign in again"),
            (50173, "invalid_grant", SignInNeeded, "revoked"),
            (50132, "invalid_grant", SignInNeeded, "password"),
            (50133, "invalid_grant", SignInNeeded, "password"),
            (50089, "invalid_grant", SignInNeeded, "Sign in again"),
            (50076, "interaction_required", SignInNeeded, "proof of identity"),
            (50079, "interaction_required", SignInNeeded, "proof of identity"),
            (50072, "interaction_required", SignInNeeded, "proof of identity"),
            (50074, "interaction_required", SignInNeeded, "proof of identity"),
            (50158, "interaction_required", SignInNeeded, "proof of identity"),
            (53003, "invalid_grant", PermissionDenied, "Conditional Access"),
            (53000, "interaction_required", PermissionDenied, "managed device"),
            (53001, "interaction_required", PermissionDenied, "managed device"),
            (530032, "invalid_grant", PermissionDenied, "security policy"),
            (530035, "invalid_grant", PermissionDenied, "security policy"),
            (50105, "invalid_grant", PermissionDenied, "not assigned"),
            (65001, "invalid_grant", PermissionDenied, "consent"),
            (65004, "access_denied", PermissionDenied, "declined"),
            (90094, "invalid_request", PermissionDenied, "administrator"),
            (90095, "invalid_request", PermissionDenied, "administrator"),
            (650057, "invalid_resource", InvalidConfig, "permission"),
            (650056, "invalid_request", InvalidConfig, "permission"),
            (65005, "invalid_resource", InvalidConfig, "permission"),
            (650052, "invalid_request", InvalidConfig, "subscription"),
            (500011, "invalid_resource", InvalidConfig, "`cloud`"),
            (70011, "invalid_scope", InvalidConfig, "scope"),
            (700022, "invalid_request", InvalidConfig, "more than one"),
            (50034, "invalid_grant", SignInNeeded, "no such user"),
            (50020, "invalid_grant", SignInNeeded, "guest"),
            (16000, "interaction_required", SignInNeeded, "does not belong"),
            (50126, "invalid_grant", Unauthenticated, "password"),
            (50053, "invalid_grant", Unauthenticated, "locked"),
            (50055, "invalid_grant", SignInNeeded, "expired"),
            (50057, "invalid_grant", PermissionDenied, "disabled"),
            (50058, "interaction_required", SignInNeeded, "nobody is signed in"),
            (50196, "invalid_grant", Throttled, "Wait"),
            (90033, "temporarily_unavailable", Unavailable, "passing"),
            (90055, "invalid_request", Throttled, "too many"),
            (9002313, "invalid_request", InvalidConfig, "malformed"),
            (900144, "invalid_request", InvalidConfig, "missing"),
            (90014, "invalid_request", InvalidConfig, "missing"),
            (900561, "invalid_request", InvalidConfig, "method"),
            (900382, "invalid_client", Unauthenticated, "across clouds"),
            (900432, "invalid_client", Unauthenticated, "across clouds"),
        ];
        for (code, oauth, kind, says) in table {
            let error = refusal(if *oauth == "invalid_client" { 401 } else { 400 }, oauth, *code);
            assert_eq!(error.kind(), *kind, "{code}: {error}");
            assert!(error.to_string().contains(says), "{code}: {error}");
            assert_eq!(error.code(), Some(format!("AADSTS{code}").as_str()));
            assert_eq!(error.request_ids(), ["c-1", "t-1"]);
            assert!(!format!("{error:?}").contains("sup3r"), "{error:?}");
            assert_eq!(error.is_retryable(), matches!(kind, Throttled | Unavailable), "{code}");
        }
    }

    #[test]
    fn no_code_stands_twice() {
        let mut all: Vec<u64> = HELP.iter().flat_map(|row| row.codes.iter().copied()).collect();
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn an_unknown_code_is_told_in_the_services_words_without_the_secret() {
        let error = refusal(400, "invalid_request", 123_456);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert_eq!(error.message(), "sign-in refused (invalid_request): AADSTS123456: Something. '***'");
        // Also when only its beginning is quoted.
        assert_eq!(without_quotes_of("provided 'sup3r-s...' is", "sup3r-secret-value"), "provided '***...' is");
        assert_eq!(clean("bad assertion eyJhbGciOi.x.y here", &[]), "bad assertion *** here");
    }

    #[test]
    fn what_is_not_the_services_answer_is_a_passing_fault() {
        for (status, body) in [
            (200, "<html>Sign in to the network</html>"),
            (200, ""),
            (200, r#"{"access_token":"abc"#),
            (200, r#"{"access_token":""}"#),
            (502, "<html>Bad Gateway</html>"),
            (503, r#"{"error":"temporarily_unavailable"}"#),
            (302, ""),
        ] {
            let error = read(&reply(status, body), &[]).err().unwrap().error;
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{status} {body}: {error}");
            assert!(!format!("{error:?}").contains("abc"));
        }
        assert_eq!(read(&reply(429, ""), &[]).err().unwrap().error.kind(), ErrorKind::Throttled);
    }

    #[test]
    fn the_life_of_a_token_may_be_a_string_or_missing() {
        for (expires, lives) in [("3599", 3599), ("\"1800\"", 1800), ("null", 3600), ("\"soon\"", 3600)] {
            let body =
                format!(r#"{{"token_type":"Bearer","expires_in":{expires},"ext_expires_in":1,"access_token":"x"}}"#);
            let granted = read(&reply(200, &body), &[]).ok().unwrap();
            assert_eq!(granted.lives, Duration::from_secs(lives));
        }
    }
}
