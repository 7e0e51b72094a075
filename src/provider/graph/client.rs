//! One attempt at a call of Graph, and the loop around it.

use std::{
    borrow::Cow,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Method, Response, StatusCode,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE},
};
use url::Url;
use uuid::Uuid;

use super::failure::{About, Refusal, UNKNOWN_USER};
use crate::{
    Context, Error, ErrorKind, Result, Usage,
    auth::{Claims, TokenProvider},
    net::{
        bearer,
        http::{self, Answer, Http},
        limit::{Limiter, Permit},
        page,
        retry::{Attempt, Tries, attempts, of_error},
    },
    provider::is_address,
};

/// An ordinary answer: a page of ids or folders, a message, a batch's answer.
pub(super) const CAP: usize = 8 * 1024 * 1024;

/// Ids that survive a move within the mailbox. Asked for on every request, because it is per request.
pub(super) const IMMUTABLE: &str = r#"IdType="ImmutableId""#;

/// Everything that may not stand in a path segment or a parameter's value as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The way to one mailbox.
#[derive(Debug)]
pub(super) struct Client {
    /// Graph's root, without version.
    service: Url,
    /// The mailbox as the configuration names it.
    mailbox: String,
    /// The name it goes by in URLs: its object id once an alias had to be looked up.
    user: Mutex<Arc<str>>,
    http: Arc<Http>,
    tokens: Arc<dyn TokenProvider>,
    pub(super) limiter: Arc<Limiter>,
    pub(super) context: Context,
    counters: Counters,
    /// Whether Graph ever took a token of ours, and how many it refused since.
    accepted: AtomicBool,
    refusals: AtomicU32,
}

/// So many tokens in a row may be refused by a service that took one before. One that never did is believed at the
/// second.
const REFUSALS: u32 = 4;

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    round_trips: AtomicU64,
    throttled: AtomicU64,
}

/// Where a call goes.
#[derive(Clone, Debug)]
pub(super) enum To {
    /// Below the mailbox: `/mailFolders/inbox?...`.
    Mailbox(String),
    /// Below the version: `/$batch`, `/users?...`.
    Version(String),
    /// A link to a next page.
    Link(Url),
}

/// One call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) to: To,
    pub(super) about: About,
    body: Option<Bytes>,
    prefer: Cow<'static, str>,
    eventual: bool,
    /// How many requests it counts as.
    parts: u32,
    cap: usize,
}

impl Call {
    pub(super) fn get(about: About, to: To) -> Self {
        Self {
            method: Method::GET,
            to,
            about,
            body: None,
            prefer: IMMUTABLE.into(),
            eventual: false,
            parts: 1,
            cap: CAP,
        }
    }

    pub(super) fn post(about: About, to: To, body: &serde_json::Value) -> Self {
        Self::new(Method::POST, about, to, Some(body))
    }

    pub(super) fn new(method: Method, about: About, to: To, body: Option<&serde_json::Value>) -> Self {
        Self { method, body: body.map(|body| body.to_string().into()), ..Self::get(about, to) }
    }

    pub(super) fn parts(mut self, parts: usize) -> Self {
        self.parts = u32::try_from(parts).unwrap_or(u32::MAX);
        self
    }

    pub(super) fn cap(mut self, cap: usize) -> Self {
        self.cap = cap;
        self
    }

    /// An "advanced query" of the directory, which answers from an index that may be some minutes behind.
    pub(super) fn eventual(mut self) -> Self {
        self.eventual = true;
        self
    }

    /// A preference beside the one for ids, in the same header: some intermediaries lose a repeated one.
    pub(super) fn prefer(mut self, preference: &str) -> Self {
        self.prefer = format!("{IMMUTABLE}, {preference}").into();
        self
    }
}

/// Percent-encodes one path segment, or a parameter's value.
pub(super) fn encode(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, ENCODED)
}

/// Whether an id would make an address of something else: without it, or with a step upwards that no encoding stops, a
/// path means the list above, or all messages of the mailbox.
pub(super) fn names_nothing(id: &str) -> bool {
    matches!(id, "" | "." | "..")
}

/// A text in a `$filter`: quoted, quotes within doubled. Not yet percent-encoded.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A path with parameters. Blanks become `%20`, because `+` is a plus sign to OData.
pub(super) fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let mut url = path.to_owned();
    for (at, (name, value)) in query.iter().enumerate() {
        let _ = write!(url, "{}{name}={}", if at == 0 { '?' } else { '&' }, encode(value));
    }
    url
}

/// The head of an answer whose body is still to come, and the place it takes up until then.
pub(super) struct Open {
    pub(super) response: Response,
    pub(super) permit: Permit,
}

impl Client {
    pub(super) fn new(
        service: Url,
        mailbox: String,
        http: Arc<Http>,
        tokens: Arc<dyn TokenProvider>,
        limiter: Arc<Limiter>,
        context: Context,
    ) -> Self {
        let user = Mutex::new(Arc::from(mailbox.as_str()));
        Self {
            service,
            mailbox,
            user,
            http,
            tokens,
            limiter,
            context,
            counters: Counters::default(),
            accepted: AtomicBool::new(false),
            refusals: AtomicU32::new(0),
        }
    }

    pub(super) fn mailbox(&self) -> &str {
        &self.mailbox
    }

    /// Where Graph is, for texts.
    pub(super) fn host(&self) -> Option<String> {
        let host = self.service.host_str()?;
        Some(self.service.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
    }

    /// What the token in use says of itself.
    pub(super) async fn claims(&self) -> Result<Option<Claims>> {
        Ok(Claims::of(&self.tokens.token().await?))
    }

    pub(super) fn usage(&self) -> Usage {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Usage::new(read(&counters.requests), read(&counters.round_trips), read(&counters.throttled))
    }

    pub(super) fn tries(&self) -> Tries<'_> {
        Tries::new(&self.context, &self.limiter.health)
    }

    /// Below the mailbox, from the version on: `/users/{id}{path}`.
    pub(super) fn user_path(&self, path: &str) -> String {
        let user = Arc::clone(&self.user.lock().unwrap_or_else(PoisonError::into_inner));
        if user.starts_with('$') {
            // "Get a user", Microsoft Graph: a leading $ breaks the other form.
            format!("/users({}){path}", encode(&quoted(&user)))
        } else {
            format!("/users/{}{path}", encode(&user))
        }
    }

    fn url(&self, to: &To) -> Result<Url> {
        let path = match to {
            To::Link(link) => return Ok(link.clone()),
            To::Mailbox(path) => self.user_path(path),
            To::Version(path) => path.clone(),
        };
        let root = self.service.as_str().trim_end_matches('/');
        Url::parse(&format!("{root}/v1.0{path}"))
            .map_err(|e| Error::new(ErrorKind::Other, "the request's address cannot be made").with_source(e))
    }

    /// Checks a link to a next page before the token goes with it.
    pub(super) fn follow(&self, link: &str) -> Result<To> {
        page::follow(link, &self.service).map(To::Link)
    }

    /// A call, tried again as its answers ask for. The answer is 2xx.
    pub(super) async fn call(&self, call: &Call) -> Result<Answer> {
        self.read(call, |answer| Ok(answer.clone())).await
    }

    /// A call whose answer is JSON of this shape.
    pub(super) async fn json<T: serde::de::DeserializeOwned + Send>(&self, call: &Call) -> Result<T> {
        self.read(call, |answer| serde_json::from_slice(&answer.body).map_err(|e| not_json(answer).with_source(e)))
            .await
    }

    pub(super) async fn read<T: Send>(
        &self,
        call: &Call,
        read: impl Fn(&Answer) -> Result<T> + Send + Sync,
    ) -> Result<T> {
        match self.read_as_named(call, &read).await {
            Err(error) if matches!(call.to, To::Mailbox(_)) && self.is_unknown(&error) => {
                if self.look_up_alias().await { self.read_as_named(call, &read).await } else { Err(error) }
            }
            answer => answer,
        }
    }

    async fn read_as_named<T: Send>(
        &self,
        call: &Call,
        read: &(impl Fn(&Answer) -> Result<T> + Send + Sync),
    ) -> Result<T> {
        let mut tries = self.tries();
        attempts!(
            tries,
            match self.attempt(|| Ok(call.clone()), tries.silence()).await {
                Attempt::Done(answer) => match read(&answer) {
                    Ok(value) => Attempt::Done(value),
                    Err(error) => of_error(error),
                },
                Attempt::Fail(error) => Attempt::Fail(error),
                Attempt::Again(error) => Attempt::Again(error),
                Attempt::Pause(wait, error) => Attempt::Pause(wait, error),
            }
        )
    }

    /// One attempt. `make` is asked once it is this request's turn, so that it can go by what was moved meanwhile.
    pub(super) async fn attempt(&self, make: impl Fn() -> Result<Call>, silence: Duration) -> Attempt<Answer> {
        let (open, call) = match self.open(make, silence, false).await {
            Attempt::Done(open) => open,
            Attempt::Fail(error) => return Attempt::Fail(error),
            Attempt::Again(error) => return Attempt::Again(error),
            Attempt::Pause(wait, error) => return Attempt::Pause(wait, error),
        };
        match http::whole(open.response, call.cap, silence).await {
            Ok(answer) => Attempt::Done(answer),
            Err(error) => of_error(error),
        }
    }

    /// One attempt, up to the head of a 2xx answer. `plain` asks for a body whose end is certain: without compression,
    /// so that its length is announced.
    pub(super) async fn open(
        &self,
        make: impl Fn() -> Result<Call>,
        silence: Duration,
        plain: bool,
    ) -> Attempt<(Open, Call)> {
        let client = match self.http.client(self.context.patience()) {
            Ok(client) => client,
            Err(error) => return Attempt::Fail(error),
        };
        for last in [false, true] {
            // Its own retries are over when it fails.
            let token = match self.tokens.token().await {
                Ok(token) => token,
                Err(error) => return Attempt::Fail(error),
            };
            let Some(authorization) = bearer(&token) else {
                return Attempt::Fail(Error::new(ErrorKind::Malformed, "the access token cannot stand in a header"));
            };
            let parts = match make() {
                Ok(call) => call.parts,
                Err(error) => return Attempt::Fail(error),
            };
            let permit = self.limiter.acquire(parts, &self.context).await;
            let (call, url) = match make().and_then(|call| Ok((self.url(&call.to)?, call))) {
                Ok((url, call)) => (call, url),
                Err(error) => return Attempt::Fail(error),
            };
            let id = Uuid::new_v4().to_string();
            let mut request = client
                .request(call.method.clone(), url)
                .header(AUTHORIZATION, authorization)
                .header("client-request-id", &id)
                .header("return-client-request-id", "true")
                .header("Prefer", call.prefer.as_ref());
            request = if plain {
                request.header(ACCEPT_ENCODING, "identity")
            } else {
                request.header(ACCEPT, "application/json")
            };
            if call.eventual {
                request = request.header("ConsistencyLevel", "eventual");
            }
            request = match &call.body {
                Some(body) => request.header(CONTENT_TYPE, "application/json").body(body.clone()),
                None if call.method != Method::GET => request.header(CONTENT_LENGTH, 0),
                None => request,
            };
            self.counters.requests.fetch_add(u64::from(call.parts), Ordering::Relaxed);
            self.counters.round_trips.fetch_add(1, Ordering::Relaxed);
            let response = match http::head(request, silence).await {
                Ok(response) => response,
                Err(error) => return of_error(error.with_request_id(id)),
            };
            tracing::debug!(method = %call.method, about = ?call.about, status = response.status().as_u16(), id, "graph");
            if response.status() != StatusCode::UNAUTHORIZED {
                self.accepted.store(true, Ordering::Relaxed);
                self.refusals.store(0, Ordering::Relaxed);
            }
            if response.status().is_success() {
                return Attempt::Done((Open { response, permit }, call));
            }
            let answer = match http::whole(response, 256 * 1024, silence).await {
                Ok(answer) => answer,
                Err(error) => return of_error(error.with_request_id(id)),
            };
            drop(permit);
            let refusal = Refusal::of(&answer, self.context.now());
            if refusal.status == 401 {
                self.tokens.reject(&token, refusal.challenge.as_deref());
                let refusals = self.refusals.fetch_add(1, Ordering::Relaxed) + 1;
                if !last {
                    continue;
                }
                if self.accepted.load(Ordering::Relaxed) && refusals < REFUSALS {
                    return Attempt::Again(refusal.error(call.about, &self.mailbox));
                }
            }
            return self.refused(&refusal, call.about);
        }
        unreachable!("the second turn returns")
    }

    /// What a refusal comes to; a pause that it asks for holds for the whole mailbox.
    pub(super) fn refused<T>(&self, refusal: &Refusal<'_>, about: About) -> Attempt<T> {
        let attempt = refusal.attempt(about, &self.mailbox);
        if let Attempt::Pause(asked, _) = &attempt {
            self.counters.throttled.fetch_add(1, Ordering::Relaxed);
            self.limiter.pause(asked.unwrap_or_default().min(self.context.patience().pauses), self.context.now());
        }
        attempt
    }

    /// The token in use did not do for a part of a batch.
    pub(super) async fn reject_token(&self, challenge: Option<&str>) {
        if let Ok(token) = self.tokens.token().await {
            self.tokens.reject(&token, challenge);
        }
    }

    fn is_unknown(&self, error: &Error) -> bool {
        error.kind() == ErrorKind::MailboxGone
            && error.code().is_some_and(|code| UNKNOWN_USER.iter().any(|c| c.eq_ignore_ascii_case(code)))
            && is_address(&self.mailbox)
    }

    /// Graph knows a mailbox by its principal name and object id only. Another of its addresses is looked up in the
    /// directory, if the app may read that, once.
    async fn look_up_alias(&self) -> bool {
        if *self.user.lock().unwrap_or_else(PoisonError::into_inner).as_ref() != *self.mailbox {
            return false;
        }
        match Box::pin(super::directory::owner_of(self, self.mailbox.trim())).await {
            Ok(Some(user)) => {
                *self.user.lock().unwrap_or_else(PoisonError::into_inner) = user.id.into();
                true
            }
            Ok(None) => false,
            Err(error) => {
                tracing::debug!(error = %error.chain(), "the directory could not be asked for an alias");
                false
            }
        }
    }
}

/// The error for an answer that should have been JSON. It may be a gateway's page, or cut: it is asked for again.
pub(super) fn not_json(answer: &Answer) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "Graph's address answered {} with {} bytes of {} that are not the JSON asked for; a proxy may stand in between",
            answer.status.as_u16(),
            answer.body.len(),
            answer.content_type()
        ),
    )
}
