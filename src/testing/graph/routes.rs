//! One request to either site: faults, the work, the answer, the log.

use super::Shared;
use super::batch;
use super::content;
use super::content::Body;
use super::entra;
use super::faults::{Kind as FaultKind, RetryAfter, Seen, Transport};
use super::gate::perform;
use super::log::{LoggedRequest, Route};
use super::proxy::Site;
use super::reply::{Refusal, Reply, ReplyBody};
use super::state::{State, http_date, iso};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A request as it came from the proxy.
pub(crate) struct Incoming<'a> {
    pub(crate) site: Site,
    pub(crate) method: &'a str,
    /// Path and query.
    pub(crate) target: &'a str,
    pub(crate) headers: &'a [(String, String)],
    pub(crate) body: &'a [u8],
    pub(crate) no_length: bool,
}

impl Incoming<'_> {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(self.headers, name)
    }
}

pub(crate) fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// A finished answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Body,
    pub(crate) transport: Option<Transport>,
    pub(crate) delay: Duration,
    pub(crate) permits: Permits,
}

/// Requests in flight on mailboxes; given back when dropped.
pub(crate) struct Permits {
    shared: Weak<Shared>,
    held: Vec<(String, u32)>,
    /// Which lane of a batch has one for which mailbox, or was refused.
    lanes: HashMap<(u32, usize), bool>,
}

impl Permits {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Permits { shared: Arc::downgrade(shared), held: Vec::new(), lanes: HashMap::new() }
    }

    /// Takes a permit for the lane, once; `false` if all are in use.
    pub(super) fn admit(&mut self, state: &mut State, client_id: &str, user: u32, lane: usize) -> bool {
        if let Some(known) = self.lanes.get(&(user, lane)) {
            return *known;
        }
        let limit = state.settings.concurrency_limit;
        let key = (client_id.to_owned(), user);
        let in_use = state.in_flight.entry(key.clone()).or_default();
        let granted = *in_use < limit;
        if granted {
            *in_use += 1;
            let now_in_use = *in_use;
            let address = state.users[user as usize].upn.clone();
            let peak = state.counters.peak_concurrency.entry(address).or_default();
            *peak = (*peak).max(now_in_use);
            self.held.push(key);
        }
        self.lanes.insert((user, lane), granted);
        granted
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let mut state = shared.state();
        for key in self.held.drain(..) {
            if let Some(in_use) = state.in_flight.get_mut(&key) {
                *in_use -= 1;
            }
        }
    }
}

/// Answers a request to either service.
pub(crate) fn handle(shared: &Arc<Shared>, incoming: &Incoming<'_>) -> Answer {
    let mut state = shared.state();
    let mut permits = Permits::new(shared);
    let request_id = content::guid(state.number() ^ 0x0e90_0000);
    let delay = state.settings.service_time;
    let (outcome, delay) = match incoming.site {
        Site::Login => (login(&mut state, incoming), Duration::ZERO),
        Site::Graph => {
            state.counters.round_trips += 1;
            let path = incoming.target.split('?').next().unwrap_or_default();
            if path.eq_ignore_ascii_case("/v1.0/$batch") {
                batch::handle(&mut state, incoming, &mut permits)
            } else {
                let request = Request {
                    method: incoming.method,
                    target: incoming.target.strip_prefix("/v1.0").unwrap_or_default(),
                    headers: incoming.headers,
                    body: RequestBody::Bytes(incoming.body),
                    no_length: incoming.no_length,
                    lane: None,
                };
                let authorization = incoming.header("authorization");
                let token = entra::check(&state, authorization);
                let versioned = incoming.target.starts_with("/v1.0/");
                let outcome = perform(&mut state, &request, token, &mut permits, versioned);
                (outcome, delay)
            }
        }
    };
    finish(&mut state, incoming, outcome, delay, permits, &request_id)
}

fn login(state: &mut State, incoming: &Incoming<'_>) -> Outcome {
    let route = entra::route(incoming.target);
    let fault = decide(state, &Seen { route, method: incoming.method, mailbox_names: &[], in_batch: false });
    let (grant, reply) = entra::handle(state, incoming, route, fault.as_ref().map(|fault| &fault.kind));
    if route == Route::Token {
        state.counters.token_requests += 1;
    }
    if let Some(grant) = grant {
        *state.counters.token_requests_by_grant.entry(grant).or_default() += 1;
    }
    let mut outcome = Outcome::new(route, reply);
    outcome.apply(state, fault);
    outcome
}

/// What came of one request, and what the log is told.
pub(crate) struct Outcome {
    pub(crate) route: Route,
    pub(crate) reply: Reply,
    pub(crate) code: String,
    pub(crate) mailbox: Option<String>,
    pub(crate) client_id: Option<String>,
    pub(crate) immutable_ids: bool,
    pub(crate) transport: Option<Transport>,
    pub(crate) cut_json: bool,
    pub(crate) fault: Option<String>,
}

impl Outcome {
    pub(crate) fn new(route: Route, reply: Reply) -> Self {
        Outcome {
            route,
            reply,
            code: String::new(),
            mailbox: None,
            client_id: None,
            immutable_ids: false,
            transport: None,
            cut_json: false,
            fault: None,
        }
    }

    /// What a fault does once the answer is known.
    pub(crate) fn apply(&mut self, state: &mut State, fault: Option<Struck>) {
        let Some(fault) = fault else {
            return;
        };
        match &fault.kind {
            FaultKind::AfterPerforming { status } => {
                let refusal = Refusal::new(*status, "UnknownError", "");
                self.code.clone_from(&refusal.code);
                self.reply = refuse(state, &refusal, None);
            }
            FaultKind::Html { status } => self.reply = html(*status),
            FaultKind::CutJson => self.cut_json = true,
            FaultKind::Wire(transport) => self.transport = Some(*transport),
            _ => {}
        }
        self.fault = Some(fault.name);
    }
}

/// A fault that met a request.
pub(crate) struct Struck {
    pub(crate) kind: FaultKind,
    name: String,
}

/// Which fault meets a request: scripts first, in their order, then chaos.
pub(crate) fn decide(state: &mut State, seen: &Seen<'_>) -> Option<Struck> {
    let now = state.now();
    let mut found = None;
    for active in &mut state.faults {
        let running = active.until.is_some_and(|end| now < end);
        if running && active.fault.would_match(seen) {
            active.fault.hits += 1;
            found = Some(active.fault.kind.clone());
            break;
        }
        if active.until.is_some() || !active.fault.strikes(seen) {
            continue;
        }
        if let FaultKind::Throttle { lasting, .. } = &active.fault.kind {
            active.until = Some(now + lasting.as_micros() as i64);
        }
        found = Some(active.fault.kind.clone());
        break;
    }
    let struck = match found {
        Some(kind) => Some(Struck { name: format!("{kind:?}"), kind }),
        None => {
            let struck = state.chaos.as_mut().and_then(|chaos| chaos.strike(seen));
            struck.map(|(chaos, kind)| {
                let name = format!("{chaos:?}");
                *state.chaos_struck.entry(name.clone()).or_default() += 1;
                Struck { kind, name }
            })
        }
    };
    if struck.is_some() {
        state.counters.faults += 1;
    }
    struck
}

fn html(status: u16) -> Reply {
    let mut body = Body::default();
    body.push(
        "<!DOCTYPE html><html><head><title>Gateway</title></head><body><h1>The service is unavailable.</h1></body></html>",
    );
    Reply::raw(status, body, "text/html; charset=us-ascii")
}

pub(crate) fn retry_after(state: &State, value: &RetryAfter) -> Option<String> {
    match value {
        RetryAfter::Missing => None,
        RetryAfter::Text(text) => Some(text.clone()),
        RetryAfter::DateIn(after) => Some(http_date(state.now_seconds() + after.as_secs() as i64)),
    }
}

pub(crate) fn refuse(state: &mut State, refusal: &Refusal, client_request_id: Option<&str>) -> Reply {
    let request_id = content::guid(state.number() ^ 0x0e90_0000);
    let date = iso(state.now_seconds());
    let mut reply = Reply::json(
        refusal.status,
        refusal.envelope(date.trim_end_matches('Z'), &request_id, client_request_id.unwrap_or(&request_id)),
    );
    reply.headers.clone_from(&refusal.headers);
    reply
}

fn finish(
    state: &mut State,
    incoming: &Incoming<'_>,
    outcome: Outcome,
    delay: Duration,
    permits: Permits,
    request_id: &str,
) -> Answer {
    let Outcome { reply, transport, .. } = &outcome;
    let transport = *transport;
    let mut headers = reply.headers.clone();
    let status = reply.status;
    headers.push(("request-id".into(), request_id.into()));
    let client_request_id = incoming.header("client-request-id");
    headers.push(("client-request-id".into(), client_request_id.unwrap_or(request_id).into()));
    headers.push((
        "x-ms-ags-diagnostic".into(),
        "{\"ServerInfo\":{\"DataCenter\":\"Fake\",\"Slice\":\"E\",\"Ring\":\"0\",\"ScaleUnit\":\"000\",\"RoleInstance\":\"FAKE\"}}".into(),
    ));
    headers.push(("Date".into(), http_date(state.now_seconds())));
    let cut_json = outcome.cut_json;
    let mut entry = LoggedRequest {
        route: outcome.route,
        method: incoming.method.to_owned(),
        target: incoming.target.to_owned(),
        mailbox: outcome.mailbox,
        client_id: outcome.client_id,
        in_batch: false,
        immutable_ids: outcome.immutable_ids,
        client_request_id: client_request_id.map(str::to_owned),
        status,
        code: outcome.code,
        fault: outcome.fault,
        body_length: 0,
    };
    let mut body = match outcome.reply.body {
        ReplyBody::Empty => Body::default(),
        ReplyBody::Json(value, slots) => {
            let content_type = match incoming.site {
                Site::Login => "application/json; charset=utf-8",
                Site::Graph => {
                    "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8"
                }
            };
            headers.push(("Content-Type".into(), content_type.into()));
            slots.finish(&value)
        }
        ReplyBody::Raw(body, content_type) => {
            headers.push(("Content-Type".into(), content_type));
            body
        }
    };
    if cut_json {
        let mut bytes = body.to_bytes();
        bytes.truncate(bytes.len() / 2);
        body = Body::default();
        body.push(bytes);
    }
    entry.body_length = body.len();
    count(state, entry);
    Answer { status, headers, body, transport, delay, permits }
}

pub(crate) fn count(state: &mut State, entry: LoggedRequest) {
    let counters = &mut state.counters;
    *counters.by_route.entry(entry.route).or_default() += 1;
    if entry.route != Route::Batch && !entry.route.at_login() {
        counters.graph_requests += 1;
    }
    if state.settings.log_requests {
        state.log.push(entry);
    }
}

pub(crate) enum RequestBody<'a> {
    Bytes(&'a [u8]),
    /// From a part of a batch.
    Json(&'a Value),
    Missing,
}

/// A single request or a part of a batch.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// Path and query after the version.
    pub(crate) target: &'a str,
    pub(crate) headers: &'a [(String, String)],
    pub(crate) body: RequestBody<'a>,
    pub(crate) no_length: bool,
    /// In a batch: which of the parallel lanes it runs in.
    pub(crate) lane: Option<usize>,
}

impl Request<'_> {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(self.headers, name)
    }

    /// The JSON body of a write.
    pub(super) fn json(&self) -> Result<Value, Refusal> {
        let content_type = self.header("content-type").unwrap_or_default();
        if content_type.is_empty() {
            return Err(Refusal::bad_request(
                "Write requests (excluding DELETE) must contain the Content-Type header declaration.",
            ));
        }
        if !content_type.to_ascii_lowercase().starts_with("application/json") {
            return Err(Refusal::bad_request("Entity only allows writes with a JSON Content-Type header."));
        }
        let unreadable = || {
            Refusal::bad_request(
                "Unable to read JSON request payload. Please ensure Content-Type header is set and payload is of valid JSON format.",
            )
        };
        match &self.body {
            RequestBody::Bytes(bytes) => serde_json::from_slice(bytes).map_err(|_| unreadable()),
            RequestBody::Json(value) => Ok((*value).clone()),
            RequestBody::Missing => Err(unreadable()),
        }
    }
}

pub(super) fn unknown_member(name: &str, of: &str) -> Refusal {
    Refusal::bad_request(format!(
        "The property '{name}' does not exist on type '{of}'. Make sure to only use property names that are defined by the type."
    ))
}

pub(crate) fn check_members(body: &Value, allowed: &[&str], of: &str) -> Result<(), Refusal> {
    let object = body
        .as_object()
        .ok_or_else(|| Refusal::bad_request("Unable to read JSON request payload: an object was expected."))?;
    match object.keys().find(|name| !allowed.contains(&name.as_str())) {
        Some(name) => Err(unknown_member(name, of)),
        None => Ok(()),
    }
}

pub(crate) fn throttled() -> Refusal {
    Refusal::new(429, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.")
}
