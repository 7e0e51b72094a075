//! Answers before they become HTTP: a status, headers and a body, or a refusal with its code.

use super::content::{Body, Slots};
use serde_json::{Value, json};

/// A refusal in the service's error envelope.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Refusal {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Refusal { status, code: code.to_owned(), message: message.into(), headers: Vec::new() }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Refusal::new(400, "BadRequest", message)
    }

    pub(crate) fn access_denied() -> Self {
        Refusal::new(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
    }

    pub(crate) fn item_not_found() -> Self {
        Refusal::new(404, "ErrorItemNotFound", "The specified object was not found in the store.")
    }

    pub(crate) fn malformed_id() -> Self {
        Refusal::new(400, "ErrorInvalidIdMalformed", "Id is malformed.")
    }

    pub(crate) fn unauthenticated(message: &str) -> Self {
        let mut refusal = Refusal::new(401, "InvalidAuthenticationToken", message);
        refusal.headers.push((
            "WWW-Authenticate".into(),
            "Bearer realm=\"\", authorization_uri=\"https://login.microsoftonline.com/common/oauth2/authorize\", client_id=\"00000003-0000-0000-c000-000000000000\"".into(),
        ));
        refusal
    }

    pub(crate) fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// `date` has no zone, as the service writes it.
    pub(crate) fn envelope(&self, date: &str, request_id: &str, client_request_id: &str) -> Value {
        json!({"error": {
            "code": self.code,
            "message": self.message,
            "innerError": {
                "date": date,
                "request-id": request_id,
                "client-request-id": client_request_id,
            },
        }})
    }
}

/// What an answer carries.
pub(crate) enum ReplyBody {
    Empty,
    Json(Value, Slots),
    Raw(Body, String),
}

/// An answer of the service.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: ReplyBody,
}

impl Reply {
    pub(crate) fn json(status: u16, value: Value) -> Self {
        Reply { status, headers: Vec::new(), body: ReplyBody::Json(value, Slots::default()) }
    }

    pub(crate) fn with_slots(status: u16, value: Value, slots: Slots) -> Self {
        Reply { status, headers: Vec::new(), body: ReplyBody::Json(value, slots) }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Reply { status, headers: Vec::new(), body: ReplyBody::Empty }
    }

    pub(crate) fn raw(status: u16, body: Body, content_type: &str) -> Self {
        Reply { status, headers: Vec::new(), body: ReplyBody::Raw(body, content_type.to_owned()) }
    }

    pub(crate) fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}
