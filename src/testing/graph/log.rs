//! What was asked of the fake: counters, and a log to assert on.

use std::collections::BTreeMap;

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Route {
    /// `POST /{tenant}/oauth2/v2.0/token`.
    Token,
    /// `POST /$batch`, the envelope.
    Batch,
    /// `GET /users`.
    ListUsers,
    /// `GET /users/{id}`.
    GetUser,
    /// `GET /users/{id}/mailboxSettings` and below.
    MailboxSettings,
    /// `GET .../mailFolders`.
    ListFolders,
    /// `GET .../childFolders`.
    ListChildFolders,
    /// `GET .../mailFolders/{id}`.
    GetFolder,
    /// `POST .../mailFolders` and `.../childFolders`.
    CreateFolder,
    /// `GET .../messages`.
    ListMessages,
    /// `GET .../messages/delta`.
    Delta,
    /// `GET .../messages/{id}`.
    GetMessage,
    /// `GET .../messages/{id}/$value`.
    MessageValue,
    /// `GET .../attachments`.
    ListAttachments,
    /// `GET .../attachments/{id}`.
    GetAttachment,
    /// `GET .../attachments/{id}/$value`.
    AttachmentValue,
    /// `POST .../messages/{id}/move`.
    Move,
    /// `POST .../messages/{id}/copy`.
    Copy,
    /// `PATCH .../messages/{id}`.
    Update,
    /// `DELETE .../messages/{id}` and `permanentDelete`.
    Delete,
    /// `POST .../translateExchangeIds`.
    TranslateIds,
    /// `GET /me`.
    Me,
    /// `/{tenant}/oauth2/v2.0/authorize`.
    Authorize,
    /// `POST /{tenant}/oauth2/v2.0/devicecode`.
    DeviceCode,
    /// `/{tenant}/v2.0/adminconsent` and `/{tenant}/adminconsent`.
    AdminConsent,
    /// The login site's pages: `/login`, `/devicelogin` and sign-out.
    SignInPage,
    /// `/introspect`.
    Introspect,
    /// Anything else at the login site.
    OtherLogin,
    /// Anything else at Graph.
    Other,
}

impl Route {
    /// Whether it belongs to the login site.
    pub(crate) fn at_login(self) -> bool {
        matches!(
            self,
            Route::Token
                | Route::Authorize
                | Route::DeviceCode
                | Route::AdminConsent
                | Route::SignInPage
                | Route::Introspect
                | Route::OtherLogin
        )
    }

    pub(crate) fn names_a_message(self) -> bool {
        matches!(
            self,
            Route::GetMessage
                | Route::MessageValue
                | Route::ListAttachments
                | Route::GetAttachment
                | Route::AttachmentValue
                | Route::Move
                | Route::Copy
                | Route::Update
                | Route::Delete
        )
    }
}

/// One request, or one part of a `$batch`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoggedRequest {
    /// Its kind.
    pub route: Route,
    /// Its method.
    pub method: String,
    /// Path and query as sent, without host.
    pub target: String,
    /// The mailbox's address, where one was named and exists.
    pub mailbox: Option<String>,
    /// The client id in the token, where there was a good one.
    pub client_id: Option<String>,
    /// Whether it came inside a `$batch`.
    pub in_batch: bool,
    /// Whether immutable ids were asked for.
    pub immutable_ids: bool,
    /// The `client-request-id` header.
    pub client_request_id: Option<String>,
    /// The status of the answer.
    pub status: u16,
    /// The code in the error envelope, empty if it was none.
    pub code: String,
    /// The fault that a script or chaos put on it.
    pub fault: Option<String>,
    /// Length of the answer's body; 0 for parts of a batch.
    pub body_length: u64,
}

/// Sums over all requests since the start or [`GraphFake::reset_counters`].
///
/// [`GraphFake::reset_counters`]: super::GraphFake::reset_counters
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// HTTP requests to Graph; a `$batch` is one.
    pub round_trips: u64,
    /// Requests as the service counts them: a part of a `$batch` is one, its envelope none.
    pub graph_requests: u64,
    /// Requests to the token endpoint.
    pub token_requests: u64,
    /// Token requests by `grant_type`, refused ones included.
    pub token_requests_by_grant: BTreeMap<String, u64>,
    /// All requests by kind, parts of batches included.
    pub by_route: BTreeMap<Route, u64>,
    /// 429s that a limit of the fake provoked; scripted ones are not in it.
    pub throttled: u64,
    /// Most requests in flight at once, by address of the mailbox.
    pub peak_concurrency: BTreeMap<String, usize>,
    /// Faults that scripts and chaos put on requests.
    pub faults: u64,
    /// Bytes of answer bodies that were written.
    pub bytes_sent: u64,
}

impl Counters {
    /// How many token requests of this `grant_type`.
    pub fn of_grant(&self, grant_type: &str) -> u64 {
        self.token_requests_by_grant.get(grant_type).copied().unwrap_or_default()
    }

    /// How many requests of this kind.
    pub fn of(&self, route: Route) -> u64 {
        self.by_route.get(&route).copied().unwrap_or_default()
    }
}
