//! What Graph's refusals mean ("Microsoft Graph error responses and resource types").
//!
//! Decided by status and `error.code`, never by `error.message`, which only helps to choose the words. Codes come in
//! mixed case and are compared without it. A refusal without Graph's own JSON is not Graph's: a 404 of some gateway must
//! never look like a message that is gone.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Error, ErrorKind,
    net::{
        http::{self, Answer},
        retry::Attempt,
    },
};

/// What a call was about, for the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// The mailbox as such: its inbox or its folders.
    Mailbox,
    Folder,
    Message,
    Attachment,
    Directory,
    /// The envelope of several calls.
    Batch,
}

/// An answer that may be a refusal: of a request of its own, or of a part of a batch.
#[derive(Debug)]
pub(super) struct Refusal<'a> {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: &'a [u8],
    pub(super) request_ids: Vec<String>,
    pub(super) content_type: &'a str,
    pub(super) challenge: Option<String>,
}

impl<'a> Refusal<'a> {
    pub(super) fn of(answer: &'a Answer, now: Timestamp) -> Self {
        Self {
            status: answer.status.as_u16(),
            retry_after: http::retry_after(&answer.headers, now),
            body: &answer.body,
            request_ids: request_ids(&answer.headers),
            content_type: answer.content_type(),
            challenge: challenge(&answer.headers),
        }
    }

    /// Graph's own code, and its words.
    pub(super) fn envelope(&self) -> Option<Envelope> {
        #[derive(Deserialize)]
        struct Outer {
            error: Value,
        }
        let Outer { error } = serde_json::from_slice(self.body).ok()?;
        let inner = ["innerError", "innererror", "inner_error"].into_iter().find_map(|key| error.get(key));
        let text = |value: Option<&Value>, key: &str| {
            value.and_then(|v| v.get(key)).and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned)
        };
        let object = error.is_object().then_some(&error)?;
        Some(Envelope {
            code: text(Some(object), "code").or_else(|| text(inner, "code")).unwrap_or_default(),
            message: text(Some(object), "message").unwrap_or_default(),
            request_id: text(inner, "request-id").or_else(|| text(inner, "requestId")),
        })
    }

    /// What to do about it. The caller has handled 2xx and the first 401.
    pub(super) fn attempt<T>(&self, about: About, mailbox: &str) -> Attempt<T> {
        let error = self.error(about, mailbox);
        match self.status {
            _ if self.is_no_batch(about) => Attempt::Fail(error),
            429 => Attempt::Pause(self.retry_after, error),
            503 if self.retry_after.is_some() => Attempt::Pause(self.retry_after, error),
            408 | 500 | 502..=504 | 506 | 508..=510 => Attempt::Again(error),
            // A gateway's page where Graph's JSON should be. It may pass; it must never be taken for the answer.
            404 | 410 if self.envelope().is_none() => Attempt::Again(error),
            _ => Attempt::Fail(error),
        }
    }

    pub(super) fn error(&self, about: About, mailbox: &str) -> Error {
        let envelope = self.envelope();
        let (kind, message) = match &envelope {
            _ if self.is_no_batch(about) => (
                ErrorKind::Unsupported,
                format!("Graph's address answered {} to `$batch`; a gateway may not let it through", self.status),
            ),
            Some(envelope) => explain(self, envelope, about, mailbox),
            None => self.foreign(),
        };
        let mut error = Error::new(kind, message);
        if let Some(envelope) = &envelope
            && !envelope.code.is_empty()
        {
            error = error.with_code(envelope.code.chars().take(100).collect::<String>());
        }
        if let Some(wait) = self.retry_after {
            error = error.with_retry_after(wait);
        }
        let in_body = envelope.and_then(|e| e.request_id).filter(|id| !self.request_ids.contains(id));
        self.request_ids.iter().cloned().chain(in_body).fold(error, Error::with_request_id)
    }

    /// Whether there is no such thing as a batch here: Graph has it at every address.
    fn is_no_batch(&self, about: About) -> bool {
        about == About::Batch && matches!(self.status, 404 | 405 | 501)
    }

    /// Not Graph's JSON: a proxy, a gateway or a network portal.
    fn foreign(&self) -> (ErrorKind, String) {
        let kind = match self.status {
            401 => ErrorKind::Unauthenticated,
            403 => ErrorKind::PermissionDenied,
            407 => ErrorKind::InvalidConfig,
            408 | 504 => ErrorKind::Timeout,
            413 => ErrorKind::TooLarge,
            429 => ErrorKind::Throttled,
            _ => ErrorKind::Unavailable,
        };
        let what =
            if (300..400).contains(&self.status) { "a redirect, which is not followed," } else { self.content_type };
        let text = format!(
            "Graph's address answered {} with {what} instead of Graph's JSON; a proxy or gateway may stand in between",
            self.status
        );
        (kind, text)
    }
}

/// `error` of a refusal.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) code: String,
    message: String,
    request_id: Option<String>,
}

/// No such mailbox, or none that Graph can open.
const NO_MAILBOX: [&str; 7] = [
    "ErrorInvalidUser",
    "Request_ResourceNotFound",
    "MailboxNotEnabledForRESTAPI",
    "MailboxNotSupportedForRESTAPI",
    "ErrorNonExistentMailbox",
    "ResourceNotFound",
    // "Error codes for authorization errors": for a mailbox on the company's own server, and for one that a policy excludes.
    "extensionError",
];

/// Refused for lack of rights, whatever the status.
const DENIED: [&str; 3] = ["ErrorAccessDenied", "Authorization_RequestDenied", "insufficient_claims"];

/// Codes for a user that the directory does not know by this name; it may know it by another.
pub(super) const UNKNOWN_USER: [&str; 3] = ["ErrorInvalidUser", "Request_ResourceNotFound", "ErrorNonExistentMailbox"];

/// An id that cannot be one of this mailbox.
const NO_ID: [&str; 4] =
    ["ErrorInvalidIdMalformed", "ErrorInvalidId", "ErrorInvalidMailboxItemId", "RequestBroker--ParseUri"];

fn explain(refusal: &Refusal<'_>, envelope: &Envelope, about: About, mailbox: &str) -> (ErrorKind, String) {
    let code = envelope.code.as_str();
    let is = |codes: &[&str]| codes.iter().any(|c| c.eq_ignore_ascii_case(code));
    let told = || told(envelope);
    // Decided by the code: the same refusal has been seen as 400.
    let denied = refusal.status == 403 || refusal.status == 400 && is(&DENIED);
    match refusal.status {
        401 => (ErrorKind::Unauthenticated, format!("Graph refused the access token{}", told())),
        // A token for another service is refused as 401 or as 403.
        403 if is(&["InvalidAuthenticationToken"]) => {
            (ErrorKind::Unauthenticated, format!("Graph refused the access token{}", told()))
        }
        _ if denied && about == About::Directory => (
            ErrorKind::PermissionDenied,
            "the app may not read the directory; grant it the application permission `User.Read.All` and give admin consent"
                .into(),
        ),
        _ if denied && is(&["insufficient_claims"]) => {
            (ErrorKind::PermissionDenied, format!("Conditional Access does not let the app read `{mailbox}`{}", told()))
        }
        _ if denied && blocked_by_policy(&envelope.message) => (
            ErrorKind::PermissionDenied,
            format!(
                "an application access policy of Exchange keeps this app out of `{mailbox}`; an Exchange administrator must add the mailbox to the policy's group, which takes up to some hours to work"
            ),
        ),
        _ if denied => (
            ErrorKind::PermissionDenied,
            format!(
                "the app may not do this in `{mailbox}`; it needs the permission `Mail.ReadWrite` of type Application with admin consent, or a role of Exchange's RBAC for Applications that covers this mailbox{}",
                told()
            ),
        ),
        404 | 410 if is(&NO_MAILBOX) => (ErrorKind::MailboxGone, no_mailbox(code, mailbox)),
        // The inbox always exists. Exchange says "not found" for what a person may not see.
        404 if about == About::Mailbox && is(&["ErrorItemNotFound", "ErrorFolderNotFound"]) => (
            ErrorKind::PermissionDenied,
            format!("`{mailbox}` is not shown to whoever signed in; they need full access to the mailbox, or its folders shared with them"),
        ),
        404 | 410 => (ErrorKind::NotFound, format!("there is no such {} in `{mailbox}` (any more)", about.noun())),
        400 if is(&NO_ID) => (
            ErrorKind::NotFound,
            format!("there is no such {} in `{mailbox}`; its id is not one of this mailbox", about.noun()),
        ),
        405 => (ErrorKind::Unsupported, format!("Graph cannot do this with this {}{}", about.noun(), told())),
        408 | 504 => (ErrorKind::Timeout, format!("Graph took too long{}", told())),
        409 | 412 => (ErrorKind::Conflict, format!("it changed at the same time{}", told())),
        413 => (ErrorKind::TooLarge, format!("Graph finds this too large{}", told())),
        429 => (ErrorKind::Throttled, format!("Graph asks for a pause for `{mailbox}`{}", told())),
        500.. => (ErrorKind::Unavailable, format!("Graph has a fault, {}{}", refusal.status, told())),
        status => (ErrorKind::Other, format!("Graph refused the request, {status}{}", told())),
    }
}

fn no_mailbox(code: &str, mailbox: &str) -> String {
    match code.to_ascii_lowercase().as_str() {
        "errorinvaliduser" | "request_resourcenotfound" => format!(
            "the tenant has no user `{mailbox}`; check the address. If it is an alias, write the user's principal name or object id, or grant the app `User.Read.All` so that it can look it up"
        ),
        "errornonexistentmailbox" => format!("the address `{mailbox}` has no mailbox"),
        _ => format!(
            "`{mailbox}` has no mailbox in Exchange Online: no licence, deleted, inactive, or still on the company's own server. A new mailbox can take 15 minutes to appear"
        ),
    }
}

/// "Access to OData is disabled", later "[RAOP] : Blocked by tenant configured AppOnly AccessPolicy settings". The code is
/// the same as for a missing permission, so that only the words tell them apart, and only for the words.
fn blocked_by_policy(message: &str) -> bool {
    ["RAOP", "AccessPolicy", "OData is disabled"].iter().any(|part| message.contains(part))
}

/// What Graph says, fit to be shown.
fn told(envelope: &Envelope) -> String {
    let line: String =
        envelope.message.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(300).collect();
    // Some messages quote the token.
    let line: Vec<_> = line.split(' ').map(|word| if word.contains("eyJ") { "***" } else { word }).collect();
    match (envelope.code.as_str(), line.join(" ")) {
        ("", line) if line.is_empty() => String::new(),
        ("", line) => format!(": {line}"),
        (code, line) if line.is_empty() => format!(" ({code})"),
        (code, line) => format!(" ({code}: {line})"),
    }
}

impl About {
    fn noun(self) -> &'static str {
        match self {
            Self::Mailbox | Self::Batch => "mailbox",
            Self::Folder => "folder",
            Self::Message => "message",
            Self::Attachment => "attachment",
            Self::Directory => "user",
        }
    }
}

fn request_ids(headers: &HeaderMap) -> Vec<String> {
    let value = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(|v| v.chars().take(64).collect());
    ["request-id", "client-request-id"].into_iter().filter_map(value).collect()
}

/// The claims of a challenge, as JSON ("Claims challenges, claims requests, and client capabilities"). There may be
/// several headers, and parameters in any order.
fn challenge(headers: &HeaderMap) -> Option<String> {
    headers.get_all("www-authenticate").iter().filter_map(|value| value.to_str().ok()).find_map(claims_of)
}

fn claims_of(header: &str) -> Option<String> {
    let at = header.to_ascii_lowercase().find("claims=")?;
    // Not the tail of another parameter's name.
    if header[..at].chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
        return None;
    }
    let rest = header[at + "claims=".len()..].trim_start();
    let value = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => rest.split([',', ' ']).next()?,
    };
    let trimmed = value.trim().trim_end_matches('=');
    let decoded = base64_simd::STANDARD_NO_PAD
        .decode_to_vec(trimmed)
        .or_else(|_| base64_simd::URL_SAFE_NO_PAD.decode_to_vec(trimmed))
        .ok()?;
    let json = String::from_utf8(decoded).ok()?;
    serde_json::from_str::<Value>(&json).ok().filter(Value::is_object).map(|_| json)
}

/// What an answer of Graph's about a mailbox, one of its folders or the directory becomes.
#[cfg(test)]
pub(crate) fn refusal_of(about: &str, status: u16, body: &str) -> Error {
    let about = match about {
        "folder" => About::Folder,
        "directory" => About::Directory,
        _ => About::Mailbox,
    };
    let body = body.as_bytes();
    let (request_ids, content_type) = (Vec::new(), "text/html");
    Refusal { status, retry_after: None, body, request_ids, content_type, challenge: None }.error(about, "a@b.nl")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> Refusal<'_> {
        Refusal {
            status,
            retry_after: None,
            body: body.as_bytes(),
            request_ids: vec!["r-1".into()],
            content_type: "text/html",
            challenge: None,
        }
    }

    fn body(code: &str, message: &str) -> String {
        serde_json::json!({"error": {"code": code, "message": message,
            "innerError": {"date": "2026-01-31T10:00:00", "request-id": "r-2", "client-request-id": "c"}}})
        .to_string()
    }

    #[test]
    fn what_a_bad_mailbox_answers() {
        use About::{Directory, Folder, Mailbox, Message};
        use ErrorKind::{MailboxGone, NotFound, PermissionDenied, Unauthenticated};
        let rows = [
            (
                400,
                "Authorization_RequestDenied",
                "Insufficient privileges",
                Directory,
                PermissionDenied,
                "User.Read.All",
            ),
            (404, "extensionError", "The mailbox is on-premises.", Mailbox, MailboxGone, "own server"),
            (403, "extensionError", "Blocked by AppOnly AccessPolicy", Mailbox, PermissionDenied, "access policy"),
            (403, "InvalidAuthenticationToken", "Invalid audience.", Mailbox, Unauthenticated, "access token"),
            (404, "ErrorInvalidUser", "The requested user 'x' is invalid.", Mailbox, MailboxGone, "no user"),
            (404, "Request_ResourceNotFound", "Resource 'x' does not exist", Mailbox, MailboxGone, "no user"),
            (404, "MailboxNotEnabledForRESTAPI", "The mailbox is either inactive", Mailbox, MailboxGone, "no licence"),
            (404, "MailboxNotEnabledForRESTAPI", "REST API is not yet supported", Folder, MailboxGone, "15 minutes"),
            (404, "MailboxNotSupportedForRESTAPI", "REST API is not yet supported", Mailbox, MailboxGone, "no licence"),
            (404, "ResourceNotFound", "Resource could not be discovered.", Mailbox, MailboxGone, "no mailbox"),
            (404, "ErrorNonExistentMailbox", "The SMTP address has no mailbox", Mailbox, MailboxGone, "no mailbox"),
            (403, "ErrorAccessDenied", "Access to OData is disabled.", Mailbox, PermissionDenied, "access policy"),
            (
                403,
                "ErrorAccessDenied",
                "Access to OData is disabled: [RAOP] : Blocked by tenant configured AppOnly AccessPolicy settings.",
                Folder,
                PermissionDenied,
                "access policy",
            ),
            (
                403,
                "ErrorAccessDenied",
                "Access is denied. Check credentials",
                Folder,
                PermissionDenied,
                "Mail.ReadWrite",
            ),
            (404, "ErrorItemNotFound", "Default folder Root not found.", Mailbox, PermissionDenied, "not shown"),
            (404, "ErrorFolderNotFound", "The specified folder could not", Mailbox, PermissionDenied, "not shown"),
            (
                403,
                "Authorization_RequestDenied",
                "Insufficient privileges",
                Directory,
                PermissionDenied,
                "User.Read.All",
            ),
            (404, "ErrorItemNotFound", "The specified object was not found", Message, NotFound, "no such message"),
            (404, "erroritemnotfound", "The specified object was not found", Folder, NotFound, "no such folder"),
            (400, "ErrorInvalidIdMalformed", "Id is malformed.", Message, NotFound, "not one of this mailbox"),
            (400, "RequestBroker--ParseUri", "Resource not found for the segment", Message, NotFound, "not one of"),
            (404, "ErrorInvalidMailboxItemId", "Item doesn't belong to", Message, NotFound, "no such message"),
        ];
        for (status, code, message, about, kind, says) in rows {
            let body = body(code, message);
            let Attempt::Fail(error) = refusal(status, &body).attempt::<()>(about, "info@contoso.nl") else {
                panic!("{code} must be final");
            };
            assert_eq!(error.kind(), kind, "{code}: {error}");
            assert!(
                error.to_string().contains(says)
                    && (error.to_string().contains("info@contoso.nl") || about == Directory || kind == Unauthenticated),
                "{code}: {error}"
            );
            assert_eq!(error.code(), Some(code));
            assert_eq!(error.request_ids(), ["r-1", "r-2"]);
            assert!(!error.is_retryable());
        }
    }

    #[test]
    fn what_is_tried_again() {
        for (status, body) in [
            (500, body("ErrorInternalServerError", "x")),
            (502, "<html>Bad Gateway</html>".into()),
            (503, body("UnknownError", "")),
            (504, body("UnknownError", "")),
            (509, String::new()),
            (408, String::new()),
            // Not Graph's own "not found".
            (404, "<html>404 Not Found</html>".into()),
            (404, String::new()),
        ] {
            let attempt = refusal(status, &body).attempt::<()>(About::Message, "x");
            assert!(matches!(&attempt, Attempt::Again(e) if e.is_retryable()), "{status}: {attempt:?}");
        }
        let throttled = body("ApplicationThrottled", "Application is over its MailboxConcurrency limit.");
        let mut refused = refusal(429, &throttled);
        refused.retry_after = Some(Duration::from_millis(2128));
        let Attempt::Pause(Some(wait), error) = refused.attempt::<()>(About::Folder, "x") else { panic!() };
        assert_eq!((wait, error.kind()), (Duration::from_millis(2128), ErrorKind::Throttled));
        assert_eq!(error.retry_after(), Some(wait));
        for status in [400, 401, 403, 405, 412, 413, 302, 501] {
            let attempt = refusal(status, "").attempt::<()>(About::Folder, "x");
            assert!(matches!(attempt, Attempt::Fail(_)), "{status}: {attempt:?}");
        }
    }

    #[test]
    fn the_envelope_has_many_spellings() {
        for text in [
            r#"{"error":{"code":"X","message":"m","innererror":{"requestId":"r"}}}"#,
            r#"{"error":{"code":"","message":"m","innerError":{"code":"X","request-id":"r"}}}"#,
            r#"{"error":{"code":"X","message":null,"innerError":{"request-id":"r","innerError":{}},"new":1}}"#,
        ] {
            let envelope = refusal(400, text).envelope().unwrap();
            assert_eq!((envelope.code.as_str(), envelope.request_id.as_deref()), ("X", Some("r")), "{text}");
        }
        for text in ["", "<html>", "{}", r#"{"error":"x"}"#, "null", "[]"] {
            assert!(refusal(400, text).envelope().is_none(), "{text}");
        }
    }

    #[test]
    fn a_challenge_is_found_among_headers_and_parameters() {
        let json = r#"{"access_token":{"nbf":{"essential":true,"value":"1700000000"}}}"#;
        let claims = base64_simd::STANDARD.encode_to_string(json);
        let header = format!(
            r#"Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", error="insufficient_claims", claims="{claims}""#
        );
        assert_eq!(claims_of(&header).as_deref(), Some(json));
        assert_eq!(claims_of(&format!("Bearer claims={claims}, error=x")).as_deref(), Some(json));
        for none in ["Bearer", "Bearer claims=\"%%\"", "Bearer xclaims=\"e30=\"", "Bearer claims=\"\""] {
            assert_eq!(claims_of(none), None, "{none}");
        }
        let mut headers = HeaderMap::new();
        headers.append("www-authenticate", "Basic".parse().unwrap());
        headers.append("www-authenticate", header.parse().unwrap());
        assert_eq!(challenge(&headers).as_deref(), Some(json));
    }

    #[test]
    fn a_quoted_token_is_not_shown() {
        let body = body("InvalidAuthenticationToken", "bad token eyJ0eXAi.abc.def");
        let error = refusal(401, &body).error(About::Mailbox, "x");
        assert!(!format!("{error:?}").contains("eyJ"), "{error:?}");
    }
}
