//! One Graph request: what it asks, whether it may, and the answer.
//!
//! The order of checks is the service's: gateway (faults), token, address, permission, mailbox,
//! policy, limits, query, content type, and only then the work itself.

use super::batch;
use super::content::{Body, Slots};
use super::delta;
use super::faults::{Kind as FaultKind, RetryAfter, Seen, Transport};
use super::ids;
use super::log::{LoggedRequest, Route};
use super::mime::{self, Kind};
use super::odata::{ATTACHMENT, Literal, Options, decode};
use super::proxy::Site;
use super::render::{self, Preferences, View};
use super::reply::{Refusal, Reply, ReplyBody};
use super::state::{MailboxState, Message, Paging, Policy, ROOT, State, http_date, iso};
use super::token::{self, Token};
use super::{Shared, content};
use serde_json::{Value, json};
use std::cell::OnceCell;
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
    fn admit(&mut self, state: &mut State, client_id: &str, user: u32, lane: usize) -> bool {
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
                let token = token::check(&state, authorization);
                let versioned = incoming.target.starts_with("/v1.0/");
                let outcome = perform(&mut state, &request, token, &mut permits, versioned);
                (outcome, delay)
            }
        }
    };
    finish(&mut state, incoming, outcome, delay, permits, &request_id)
}

fn login(state: &mut State, incoming: &Incoming<'_>) -> Outcome {
    state.counters.token_requests += 1;
    let fault =
        decide(state, &Seen { route: Route::Token, method: incoming.method, mailbox_names: &[], in_batch: false });
    let reply = token::handle(state, incoming, fault.as_ref().map(|fault| &fault.kind));
    let mut outcome = Outcome::new(Route::Token, reply);
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
    if !matches!(entry.route, Route::Token | Route::Batch) {
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
    fn header(&self, name: &str) -> Option<&str> {
        header(self.headers, name)
    }

    /// The JSON body of a write.
    fn json(&self) -> Result<Value, Refusal> {
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

/// What a path names.
#[derive(Debug, Clone, PartialEq)]
enum Op {
    Me,
    Users,
    User(String),
    MailboxSettings(String, bool),
    Folders(String),
    Folder(String, String),
    Children(String, String),
    /// Folder, if one was named.
    Messages(String, Option<String>),
    Delta(String, String),
    Message(String, Option<String>, String),
    MessageValue(String, Option<String>, String),
    MessageAction(String, Option<String>, String, Action),
    Attachments(String, Option<String>, String),
    Attachment(String, Option<String>, String, String),
    AttachmentValue(String, Option<String>, String, String),
    Translate(String),
    /// Exists in Graph, but not here.
    NotModelled,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Action {
    Move,
    Copy,
    PermanentDelete,
}

/// Splits a path into decoded segments, with `name('key')` as two.
fn segments(path: &str) -> Result<Vec<String>, Refusal> {
    let mut found = Vec::new();
    for raw in path.split('/').skip(1) {
        let segment = decode(raw, false)?;
        if segment.contains('/') {
            // An encoded slash is taken for a slash.
            let name = segment.rsplit('/').next().unwrap_or_default().to_owned();
            return Err(no_segment(&name));
        }
        match segment.split_once("('") {
            Some((name, rest)) if !name.is_empty() => {
                let key =
                    rest.strip_suffix("')").ok_or_else(|| Refusal::bad_request("The request URI is malformed."))?;
                found.push(name.to_owned());
                found.push(key.replace("''", "'"));
            }
            _ => found.push(segment),
        }
    }
    if found.last().is_some_and(String::is_empty) {
        found.pop();
    }
    Ok(found)
}

fn no_segment(name: &str) -> Refusal {
    Refusal::new(400, "RequestBroker--ParseUri", format!("Resource not found for the segment '{name}'."))
}

fn operation(path: &str) -> Result<Op, Refusal> {
    const ELSEWHERE: [&str; 12] = [
        "calendar",
        "calendars",
        "calendarview",
        "contacts",
        "contactfolders",
        "events",
        "findmeetingtimes",
        "getmailtips",
        "inferenceclassification",
        "outlook",
        "photo",
        "sendmail",
    ];
    let segments = segments(path)?;
    let words: Vec<String> = segments.iter().map(|segment| segment.to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let key = |at: usize| segments[at].clone();
    // The part below `messages`, wherever that stands.
    let below = |at: usize, user: String, folder: Option<String>| -> Result<Op, Refusal> {
        Ok(match &words[at..] {
            [] => Op::Messages(user, folder),
            ["delta" | "delta()" | "microsoft.graph.delta()"] => match folder {
                Some(folder) => Op::Delta(user, folder),
                None => {
                    return Err(Refusal::bad_request(
                        "Change tracking is not supported against 'microsoft.graph.message'.",
                    ));
                }
            },
            [_] => Op::Message(user, folder, key(at)),
            [_, "$value"] => Op::MessageValue(user, folder, key(at)),
            [_, "move" | "microsoft.graph.move"] => Op::MessageAction(user, folder, key(at), Action::Move),
            [_, "copy" | "microsoft.graph.copy"] => Op::MessageAction(user, folder, key(at), Action::Copy),
            [_, "permanentdelete"] => Op::MessageAction(user, folder, key(at), Action::PermanentDelete),
            [_, "attachments"] => Op::Attachments(user, folder, key(at)),
            [_, "attachments", "createuploadsession"] => Op::NotModelled,
            [_, "attachments", _] => Op::Attachment(user, folder, key(at), key(at + 2)),
            [_, "attachments", _, "$value"] => Op::AttachmentValue(user, folder, key(at), key(at + 2)),
            [
                _,
                "send" | "reply" | "replyall" | "forward" | "createreply" | "createreplyall" | "createforward"
                | "extensions",
                ..,
            ] => Op::NotModelled,
            [_, "attachments", _, other, ..] | [_, other, ..] => return Err(no_segment(other)),
        })
    };
    Ok(match words.as_slice() {
        ["me", ..] => Op::Me,
        ["users"] => Op::Users,
        ["users", _] => Op::User(key(1)),
        ["users", _, "mailboxsettings"] => Op::MailboxSettings(key(1), false),
        ["users", _, "mailboxsettings", "userpurpose"] => Op::MailboxSettings(key(1), true),
        ["users", _, "mailboxsettings", ..] => Op::NotModelled,
        ["users", _, "mailfolders"] => Op::Folders(key(1)),
        ["users", _, "mailfolders", "delta" | "delta()"] => Op::NotModelled,
        ["users", _, "mailfolders", _] => Op::Folder(key(1), key(3)),
        ["users", _, "mailfolders", _, "childfolders"] => Op::Children(key(1), key(3)),
        // A child may be addressed below its parent, to any depth.
        ["users", _, "mailfolders", _, "childfolders", rest @ ..] => {
            let mut at = 5;
            let mut rest = rest;
            loop {
                match rest {
                    [_] => break Op::Folder(key(1), key(at)),
                    [_, "childfolders"] => break Op::Children(key(1), key(at)),
                    [_, "childfolders", tail @ ..] => {
                        rest = tail;
                        at += 2;
                    }
                    [_, "messages", ..] => break below(at + 2, key(1), Some(key(at)))?,
                    [_, other, ..] => return Err(no_segment(other)),
                    [] => return Err(no_segment("childFolders")),
                }
            }
        }
        ["users", _, "mailfolders", _, "messages", ..] => below(5, key(1), Some(key(3)))?,
        ["users", _, "mailfolders", _, "messagerules" | "move" | "copy", ..] => Op::NotModelled,
        ["users", _, "messages", ..] => below(3, key(1), None)?,
        ["users", _, "translateexchangeids"] => Op::Translate(key(1)),
        ["users", _, other, ..] if ELSEWHERE.contains(other) => Op::NotModelled,
        ["subscriptions" | "groups" | "organization" | "applications", ..] => Op::NotModelled,
        ["$batch", ..] => {
            return Err(Refusal::bad_request("A batch request may not contain another batch."));
        }
        other => return Err(no_segment(other.last().copied().unwrap_or_default())),
    })
}

impl Op {
    fn route(&self, method: &str) -> Route {
        match (self, method) {
            (Op::Users, _) => Route::ListUsers,
            (Op::User(_), _) => Route::GetUser,
            (Op::MailboxSettings(..), _) => Route::MailboxSettings,
            (Op::Folders(_) | Op::Children(..), "POST") => Route::CreateFolder,
            (Op::Folders(_), _) => Route::ListFolders,
            (Op::Children(..), _) => Route::ListChildFolders,
            (Op::Folder(..), _) => Route::GetFolder,
            (Op::Messages(..), _) => Route::ListMessages,
            (Op::Delta(..), _) => Route::Delta,
            (Op::Message(..), "PATCH") => Route::Update,
            (Op::Message(..), "DELETE") => Route::Delete,
            (Op::Message(..), _) => Route::GetMessage,
            (Op::MessageValue(..), _) => Route::MessageValue,
            (Op::MessageAction(.., Action::Move), _) => Route::Move,
            (Op::MessageAction(.., Action::Copy), _) => Route::Copy,
            (Op::MessageAction(.., Action::PermanentDelete), _) => Route::Delete,
            (Op::Attachments(..), _) => Route::ListAttachments,
            (Op::Attachment(..), _) => Route::GetAttachment,
            (Op::AttachmentValue(..), _) => Route::AttachmentValue,
            (Op::Translate(_), _) => Route::TranslateIds,
            (Op::Me | Op::NotModelled, _) => Route::Other,
        }
    }

    fn user(&self) -> Option<&str> {
        match self {
            Op::Me | Op::Users | Op::NotModelled => None,
            Op::User(user)
            | Op::MailboxSettings(user, _)
            | Op::Folders(user)
            | Op::Folder(user, _)
            | Op::Children(user, _)
            | Op::Messages(user, _)
            | Op::Delta(user, _)
            | Op::Message(user, ..)
            | Op::MessageValue(user, ..)
            | Op::MessageAction(user, ..)
            | Op::Attachments(user, ..)
            | Op::Attachment(user, ..)
            | Op::AttachmentValue(user, ..)
            | Op::Translate(user) => Some(user),
        }
    }

    fn message(&self) -> Option<&str> {
        match self {
            Op::Message(.., id)
            | Op::MessageValue(.., id)
            | Op::MessageAction(.., id, _)
            | Op::Attachments(.., id)
            | Op::Attachment(_, _, id, _)
            | Op::AttachmentValue(_, _, id, _) => Some(id),
            _ => None,
        }
    }

    /// Any of these is enough ("Permissions" of each page of the reference).
    fn permissions(&self, method: &str) -> &'static [&'static str] {
        const BASIC: &[&str] = &["Mail.ReadBasic", "Mail.ReadBasic.All", "Mail.Read", "Mail.ReadWrite"];
        const READ: &[&str] = &["Mail.Read", "Mail.ReadWrite"];
        const WRITE: &[&str] = &["Mail.ReadWrite"];
        const DIRECTORY: &[&str] = &["User.Read.All", "User.ReadWrite.All", "Directory.Read.All"];
        const SETTINGS: &[&str] = &["MailboxSettings.Read", "MailboxSettings.ReadWrite"];
        match self {
            Op::Users | Op::User(_) | Op::Translate(_) => DIRECTORY,
            Op::MailboxSettings(..) => SETTINGS,
            Op::MessageAction(..) => WRITE,
            Op::MessageValue(..) | Op::Attachments(..) | Op::Attachment(..) | Op::AttachmentValue(..) => READ,
            _ if method != "GET" => WRITE,
            _ => BASIC,
        }
    }

    fn methods(&self) -> &'static [&'static str] {
        match self {
            Op::Folders(_) | Op::Children(..) => &["GET", "POST"],
            Op::Message(..) => &["GET", "PATCH", "DELETE"],
            Op::MessageAction(..) | Op::Translate(_) => &["POST"],
            _ => &["GET"],
        }
    }
}

/// Performs one request or batch part.
pub(crate) fn perform(
    state: &mut State,
    request: &Request<'_>,
    token: Result<Token, Refusal>,
    permits: &mut Permits,
    versioned: bool,
) -> Outcome {
    let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    let op = if versioned { operation(path) } else { Err(Refusal::bad_request("Invalid version.")) };
    let route = op.as_ref().map_or(Route::Other, |op| op.route(request.method));
    let user = op.as_ref().ok().and_then(Op::user);
    let user = user.and_then(|user| state.user(user));
    let names = user.map(|user| state.users[user].names()).unwrap_or_default();
    let fault =
        decide(state, &Seen { route, method: request.method, mailbox_names: &names, in_batch: request.lane.is_some() });
    let preferences: Vec<&str> = request
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("prefer"))
        .map(|(_, value)| value.as_str())
        .collect();
    let preferences = Preferences::parse(&preferences);
    let client_id = token.as_ref().ok().map(|token| token.client_id.clone());
    let mut call = Call { state, request, query, path, preferences, user, basic: false };
    let result = call.gate(fault.as_ref(), token, op, permits);
    let mut code = String::new();
    let reply = match result {
        Ok(mut reply) => {
            if let Some(applied) = preferences.applied() {
                reply = reply.with_header("Preference-Applied", applied);
            }
            reply
        }
        Err(refusal) => {
            code.clone_from(&refusal.code);
            refuse(state, &refusal, request.header("client-request-id"))
        }
    };
    let mut outcome = Outcome::new(route, reply);
    outcome.code = code;
    outcome.client_id = client_id;
    outcome.mailbox = user.map(|user| {
        let user = &state.users[user];
        user.mail.clone().unwrap_or_else(|| user.upn.clone())
    });
    outcome.immutable_ids = preferences.immutable_ids;
    outcome.apply(state, fault);
    outcome
}

pub(super) struct Call<'a> {
    pub(super) state: &'a mut State,
    pub(super) request: &'a Request<'a>,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) preferences: Preferences,
    user: Option<usize>,
    pub(super) basic: bool,
}

impl Call<'_> {
    fn gate(
        &mut self,
        fault: Option<&Struck>,
        token: Result<Token, Refusal>,
        op: Result<Op, Refusal>,
        permits: &mut Permits,
    ) -> Result<Reply, Refusal> {
        match fault.map(|fault| &fault.kind) {
            Some(FaultKind::Throttle { retry_after: value, .. }) => {
                let refusal = throttled();
                return Err(match retry_after(self.state, value) {
                    Some(value) => refusal.with_header("Retry-After", value),
                    None => refusal,
                });
            }
            Some(FaultKind::Error { status, code, message, retry_after: value }) => {
                let refusal = Refusal::new(*status, code, message.clone());
                return Err(match retry_after(self.state, value) {
                    Some(value) => refusal.with_header("Retry-After", value),
                    None => refusal,
                });
            }
            // The page of the gateway is put in place of this.
            Some(FaultKind::Html { status }) => return Ok(Reply::empty(*status)),
            _ => {}
        }
        let token = token?;
        match fault.map(|fault| &fault.kind) {
            Some(FaultKind::TokenExpired) => {
                self.state.dead_tokens.insert(token.unique);
                return Err(Refusal::unauthenticated("Lifetime validation failed, the token is expired."));
            }
            Some(FaultKind::ClaimsChallenge { claims }) => {
                self.state.dead_tokens.insert(token.unique);
                let mut refusal = Refusal::unauthenticated(
                    "Continuous access evaluation resulted in challenge with result: InteractionRequired and code: TokenIssuedBeforeRevocationTimestamp",
                );
                let claims = base64_simd::STANDARD.encode_to_string(claims);
                refusal.headers = vec![(
                    "WWW-Authenticate".into(),
                    format!(
                        "Bearer realm=\"\", authorization_uri=\"https://login.microsoftonline.com/common/oauth2/authorize\", client_id=\"00000003-0000-0000-c000-000000000000\", error=\"insufficient_claims\", claims=\"{claims}\""
                    ),
                )];
                return Err(refusal);
            }
            _ => {}
        }
        let op = op?;
        if !op.methods().contains(&self.request.method) && !matches!(op, Op::Me | Op::NotModelled) {
            return Err(Refusal::new(
                405,
                "Request_BadRequest",
                format!("Specified HTTP method is not allowed for the request target: {}.", self.request.method),
            ));
        }
        if self.request.method == "POST" && self.request.no_length {
            return Err(Refusal::new(411, "LengthRequired", "Length Required"));
        }
        if op == Op::Me {
            return Err(Refusal::bad_request("/me request is only valid with delegated authentication flow."));
        }
        if op == Op::NotModelled {
            return Err(Refusal::new(501, "NotModelledByTheFake", "Graph has this, the fake has not."));
        }
        match &op {
            Op::Users => {
                self.directory(&token, &op)?;
                return self.users();
            }
            Op::User(name) => {
                self.directory(&token, &op)?;
                return self.one_user(name);
            }
            Op::Translate(_) => self.directory(&token, &op)?,
            _ => {}
        }
        let user = self.mailbox(&token, &op, permits)?;
        if let Some(FaultKind::MovedFirst { folder }) = fault.map(|fault| &fault.kind) {
            self.someone_else(user, &op, Some(folder));
        } else if let Some(FaultKind::DeletedFirst) = fault.map(|fault| &fault.kind) {
            self.someone_else(user, &op, None);
        }
        self.run(user, op)
    }

    fn granted(&self, token: &Token, needed: &[&str], user: Option<usize>) -> bool {
        if token.roles.iter().any(|role| needed.contains(&role.as_str())) {
            return true;
        }
        // RBAC for Applications adds to the token, it is not in it.
        let Some(app) = self.state.app(&token.client_id) else {
            return false;
        };
        app.rbac.iter().any(|(permission, scope)| {
            needed.contains(&permission.as_str())
                && match (scope, user) {
                    (None, _) => true,
                    (Some(scope), Some(user)) => scope.iter().any(|name| self.state.users[user].goes_by(name)),
                    (Some(_), None) => false,
                }
        })
    }

    fn directory(&self, token: &Token, op: &Op) -> Result<(), Refusal> {
        if self.granted(token, op.permissions(self.request.method), None) {
            Ok(())
        } else {
            Err(Refusal::new(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation."))
        }
    }

    /// Everything that stands between a token and a mailbox.
    fn mailbox(&mut self, token: &Token, op: &Op, permits: &mut Permits) -> Result<usize, Refusal> {
        let needed = op.permissions(self.request.method);
        let app = self.state.app(&token.client_id);
        let nothing_granted = token.roles.is_empty() && app.is_none_or(|app| app.rbac.is_empty());
        if nothing_granted {
            return Err(Refusal::access_denied());
        }
        let name = op.user().unwrap_or_default();
        let user = self
            .user
            .ok_or_else(|| Refusal::new(404, "ErrorInvalidUser", format!("The requested user '{name}' is invalid.")))?;
        match self.state.users[user].state {
            MailboxState::Ready => {}
            MailboxState::NotEnabled => {
                return Err(Refusal::new(
                    404,
                    "MailboxNotEnabledForRESTAPI",
                    "The mailbox is either inactive, soft-deleted, or is hosted on-premise.",
                ));
            }
            MailboxState::Undiscoverable => {
                return Err(Refusal::new(404, "ResourceNotFound", "Resource could not be discovered."));
            }
            MailboxState::NonExistent => {
                return Err(Refusal::new(
                    404,
                    "ErrorNonExistentMailbox",
                    "The SMTP address has no mailbox associated with it.",
                ));
            }
            MailboxState::UserDeleted => {
                return Err(Refusal::new(404, "ErrorInvalidUser", format!("The requested user '{name}' is invalid.")));
            }
        }
        let blocked = match app.and_then(|app| app.policy.as_ref()) {
            None => false,
            Some(Policy::Restrict(names)) => !names.iter().any(|name| self.state.users[user].goes_by(name)),
            Some(Policy::Deny(names)) => names.iter().any(|name| self.state.users[user].goes_by(name)),
        };
        if blocked {
            return Err(Refusal::new(
                403,
                "ErrorAccessDenied",
                "Access to OData is disabled: [RAOP] : Blocked by tenant configured AppOnly AccessPolicy settings.",
            ));
        }
        if !self.granted(token, needed, Some(user)) {
            return Err(Refusal::access_denied());
        }
        self.basic = !self.granted(token, &["Mail.Read", "Mail.ReadWrite"], Some(user));

        let number = self.state.users[user].number;
        let now = self.state.now();
        let window = self.state.windows.entry((token.client_id.clone(), number)).or_insert((now, 0));
        if now - window.0 >= 600_000_000 {
            *window = (now, 0);
        }
        window.1 += 1;
        let over_rate = window.1 > self.state.settings.requests_per_ten_minutes;
        let lane = self.request.lane.unwrap_or_default();
        if over_rate || !permits.admit(self.state, &token.client_id, number, lane) {
            self.state.counters.throttled += 1;
            let refusal = throttled();
            return Err(match retry_after(self.state, &self.state.settings.retry_after) {
                Some(value) => refusal.with_header("Retry-After", value),
                None => refusal,
            });
        }
        Ok(user)
    }

    fn someone_else(&mut self, user: usize, op: &Op, folder: Option<&str>) {
        let now = self.state.now_seconds();
        let user = &mut self.state.users[user];
        let Some(id) = op.message() else {
            return;
        };
        let Ok(message) = user.store.find(user.number, id) else {
            return;
        };
        let key = message.key;
        match folder {
            Some(folder) => {
                let target = user.store.ensure_path(folder);
                user.store.move_message(user.number, key, target, now);
            }
            None => user.store.remove_message(user.number, key),
        }
    }

    fn run(&mut self, user: usize, op: Op) -> Result<Reply, Refusal> {
        let method = self.request.method;
        match op {
            Op::MailboxSettings(_, purpose) => self.mailbox_settings(user, purpose),
            Op::Folders(_) if method == "POST" => self.create_folder(user, ROOT),
            Op::Folders(_) => self.list_folders(user, ROOT),
            Op::Children(_, parent) => {
                let number = self.state.users[user].number;
                let parent = self.state.users[user].store.find_folder(number, &parent)?;
                if method == "POST" { self.create_folder(user, parent) } else { self.list_folders(user, parent) }
            }
            Op::Folder(_, folder) => self.one_folder(user, &folder),
            Op::Messages(_, folder) => self.list_messages(user, folder.as_deref()),
            Op::Delta(_, folder) => delta::list(self, user, &folder),
            Op::Message(_, folder, id) => {
                let key = self.find(user, folder.as_deref(), &id)?;
                match method {
                    "PATCH" => self.update(user, key),
                    "DELETE" => self.delete(user, key),
                    _ => self.one_message(user, key),
                }
            }
            Op::MessageValue(_, folder, id) => {
                self.no_options()?;
                let key = self.find(user, folder.as_deref(), &id)?;
                let item = self.state.users[user].store.messages[&key].item();
                Ok(Reply::raw(200, mime::to_mime(&item), "text/plain"))
            }
            Op::MessageAction(_, folder, id, action) => {
                self.no_options()?;
                let key = self.find(user, folder.as_deref(), &id)?;
                match action {
                    Action::Move => self.move_or_copy(user, key, false),
                    Action::Copy => self.move_or_copy(user, key, true),
                    Action::PermanentDelete => {
                        let user = &mut self.state.users[user];
                        user.store.remove_message(user.number, key);
                        Ok(Reply::empty(204))
                    }
                }
            }
            Op::Attachments(_, folder, id) => {
                let key = self.find(user, folder.as_deref(), &id)?;
                self.list_attachments(user, key)
            }
            Op::Attachment(_, folder, id, attachment) => {
                let key = self.find(user, folder.as_deref(), &id)?;
                self.one_attachment(user, key, &attachment)
            }
            Op::AttachmentValue(_, folder, id, attachment) => {
                self.no_options()?;
                let key = self.find(user, folder.as_deref(), &id)?;
                self.attachment_value(user, key, &attachment)
            }
            Op::Translate(_) => self.translate(user),
            Op::Me | Op::Users | Op::User(_) | Op::NotModelled => Err(no_segment("unreachable segment")),
        }
    }

    fn no_options(&self) -> Result<(), Refusal> {
        const NONE: super::odata::Schema = super::odata::Schema { options: &[], ..render::ONE_MESSAGE };
        Options::parse(self.query, &NONE).map(|_| ())
    }

    /// The message, in the folder that the path names.
    fn find(&self, user: usize, folder: Option<&str>, id: &str) -> Result<u64, Refusal> {
        let user = &self.state.users[user];
        let message = user.store.find(user.number, id)?;
        if let Some(folder) = folder
            && user.store.find_folder(user.number, folder)? != message.folder
        {
            return Err(Refusal::item_not_found());
        }
        Ok(message.key)
    }

    fn view<'b>(&'b self, user: usize, options: &'b Options) -> View<'b> {
        View {
            settings: &self.state.settings,
            user: &self.state.users[user],
            preferences: self.preferences,
            select: options.select.as_ref(),
            expand: &options.expand,
            basic: self.basic,
        }
    }

    /// `Mail.ReadBasic` covers neither bodies nor attachments nor extended properties.
    pub(super) fn check_basic(&self, options: &Options) -> Result<(), Refusal> {
        let asks = options.select.iter().flatten().any(|name| render::NOT_BASIC.contains(&name.as_str()));
        if self.basic && (asks || !options.expand.is_empty() || options.search.is_some()) {
            return Err(Refusal::access_denied());
        }
        Ok(())
    }

    fn context(&self, tail: &str) -> String {
        format!("{}/v1.0/$metadata#users{tail}", self.state.graph_root)
    }

    // Directory ----------------------------------------------------------------------------------

    fn users(&mut self) -> Result<Reply, Refusal> {
        let options = Options::parse(self.query, &render::USER)?;
        let eventual =
            self.request.header("consistencylevel").is_some_and(|value| value.eq_ignore_ascii_case("eventual"));
        let advanced = options.search.is_some()
            || (options.filter.is_some() && !options.order_by.is_empty())
            || options.raw.iter().any(|(name, value)| name == "$filter" && value.contains("endsWith"));
        if advanced && !(eventual && options.count) {
            return Err(Refusal::new(
                400,
                "Request_UnsupportedQuery",
                "Operator is not supported without the header 'ConsistencyLevel:eventual' and '$count=true'.",
            ));
        }
        let search = options.search.as_ref().map(|search| {
            let text = search.split_once(':').map_or(search.as_str(), |(_, text)| text);
            text.to_lowercase()
        });
        let mut found: Vec<&super::state::User> = self
            .state
            .users
            .iter()
            .filter(|user| user.state != MailboxState::UserDeleted)
            .filter(|user| {
                options.filter.as_ref().is_none_or(|filter| filter.matches(&|name| render::user_values(user, name)))
            })
            .filter(|user| {
                search.as_ref().is_none_or(|search| {
                    user.display_name.to_lowercase().contains(search) || user.upn.to_lowercase().contains(search)
                })
            })
            .collect();
        if let Some((name, descending)) = options.order_by.first() {
            found.sort_by_key(|user| render::user_values(user, name));
            if *descending {
                found.reverse();
            }
        }
        let total = found.len();
        let start = position(&options)?;
        // "List users": 100 by default, 999 at most.
        let top = options.top.unwrap_or(100) as usize;
        let page: Vec<Value> = found
            .iter()
            .skip(start as usize)
            .take(top)
            .map(|user| render::user(user, options.select.as_ref()))
            .collect();
        let next = start as usize + page.len();
        let more = next < total;
        let mut out = json!({"@odata.context": self.context(""), "value": page});
        if options.count && eventual {
            out["@odata.count"] = total.into();
        }
        if more {
            out["@odata.nextLink"] = self.next_link(&options, next as u64, true).into();
        }
        Ok(Reply::json(200, out))
    }

    fn one_user(&mut self, name: &str) -> Result<Reply, Refusal> {
        let options = Options::parse(self.query, &render::ONE_USER)?;
        let user = self.state.user(name).ok_or_else(|| {
            Refusal::new(
                404,
                "Request_ResourceNotFound",
                format!(
                    "Resource '{name}' does not exist or one of its queried reference-property objects are not present."
                ),
            )
        })?;
        let mut out = render::user(&self.state.users[user], options.select.as_ref());
        out["@odata.context"] = self.context("/$entity").into();
        Ok(Reply::json(200, out))
    }

    fn mailbox_settings(&mut self, user: usize, purpose: bool) -> Result<Reply, Refusal> {
        let options = Options::parse(self.query, &render::MAILBOX_SETTINGS)?;
        let user = &self.state.users[user];
        if purpose {
            return Ok(Reply::json(
                200,
                json!({
                    "@odata.context": self.context(&format!("('{}')/mailboxSettings/userPurpose", user.id)),
                    "value": user.purpose,
                }),
            ));
        }
        let mut out = json!({
            "@odata.context": self.context(&format!("('{}')/mailboxSettings", user.id)),
        });
        let all = [
            ("userPurpose", Value::from(user.purpose.clone())),
            ("timeZone", "W. Europe Standard Time".into()),
            ("language", json!({"locale": "nl-NL", "displayName": "Dutch (Netherlands)"})),
        ];
        for (name, value) in all {
            if options.select.as_ref().is_none_or(|select| select.iter().any(|wanted| wanted == name)) {
                out[name] = value;
            }
        }
        Ok(Reply::json(200, out))
    }

    // Folders ------------------------------------------------------------------------------------

    fn list_folders(&mut self, user: usize, parent: u32) -> Result<Reply, Refusal> {
        let options = Options::parse(self.query, &render::FOLDER)?;
        let store = &self.state.users[user].store;
        let mut found: Vec<u32> = store
            .children(parent)
            .filter(|(_, folder)| options.include_hidden || !folder.hidden)
            .filter(|(number, folder)| {
                options
                    .filter
                    .as_ref()
                    .is_none_or(|filter| filter.matches(&|name| render::folder_values(store, *number, folder, name)))
            })
            .map(|(number, _)| number)
            .collect();
        found.sort_by_key(|number| store.folders[number].name.to_lowercase());
        let total = found.len();
        let start = position(&options)? as usize;
        let top = options.top.unwrap_or(self.state.settings.page_size) as usize;
        let rest = found.get(start..).unwrap_or_default();
        let empty = self.page_stays_empty(!rest.is_empty());
        let take = if empty { 0 } else { top };
        let page: Vec<Value> = rest.iter().take(take).map(|number| self.folder_json(user, *number, &options)).collect();
        let next = start + page.len();
        let id = self.state.users[user].id.clone();
        let mut out = json!({
            "@odata.context": self.context(&format!("('{id}')/mailFolders")),
        });
        if next < total || (self.state.settings.trailing_empty_page && page.len() == top) {
            let token = match self.state.settings.paging {
                Paging::Mixed => parent != ROOT,
                Paging::Skip => false,
                Paging::SkipToken => true,
            };
            out["@odata.nextLink"] = self.next_link(&options, next as u64, token).into();
        }
        if options.count {
            out["@odata.count"] = total.into();
        }
        out["value"] = page.into();
        Ok(Reply::json(200, out))
    }

    fn folder_json(&self, user: usize, number: u32, options: &Options) -> Value {
        let user = &self.state.users[user];
        render::folder(
            user,
            number,
            &user.store.folders[&number],
            options.select.as_ref(),
            options.include_hidden,
            self.state.settings.foreign_item_every,
        )
    }

    fn one_folder(&mut self, user: usize, folder: &str) -> Result<Reply, Refusal> {
        let options = Options::parse(self.query, &render::ONE_FOLDER)?;
        let number = self.state.users[user].number;
        let folder = self.state.users[user].store.find_folder(number, folder)?;
        let mut out = self.folder_json(user, folder, &options);
        let id = &self.state.users[user].id;
        out["@odata.context"] = self.context(&format!("('{id}')/mailFolders/$entity")).into();
        Ok(Reply::json(200, out))
    }

    fn create_folder(&mut self, user: usize, parent: u32) -> Result<Reply, Refusal> {
        self.no_options()?;
        let body = self.request.json()?;
        let allowed = ["displayName", "isHidden", "@odata.type"];
        check_members(&body, &allowed, "microsoft.graph.mailFolder")?;
        let name = body.get("displayName").and_then(Value::as_str).map(str::trim).unwrap_or_default();
        if name.is_empty() {
            return Err(Refusal::new(400, "ErrorInvalidParameter", "The folder display name must not be empty."));
        }
        if self.state.users[user].store.child_named(parent, name).is_some() {
            return Err(Refusal::new(
                self.state.settings.folder_exists_status,
                "ErrorFolderExists",
                "A folder with the specified name already exists., Could not create folder.",
            ));
        }
        let hidden = body.get("isHidden").and_then(Value::as_bool) == Some(true);
        let store = &mut self.state.users[user].store;
        if store.folders.get(&parent).is_some_and(|parent| parent.search.is_some()) {
            return Err(Refusal::new(400, "ErrorInvalidOperation", "A search folder cannot hold folders."));
        }
        let folder = store.add_folder(Some(parent), name, None, hidden);
        let mut out = self.folder_json(user, folder, &Options::default());
        let id = &self.state.users[user].id;
        out["@odata.context"] = self.context(&format!("('{id}')/mailFolders/$entity")).into();
        Ok(Reply::json(201, out))
    }

    // Messages -----------------------------------------------------------------------------------

    fn list_messages(&mut self, user: usize, folder: Option<&str>) -> Result<Reply, Refusal> {
        let options = Options::parse(self.query, &render::MESSAGE)?;
        self.check_basic(&options)?;
        options.check_efficient()?;
        let mailbox = self.state.users[user].number;
        let folder = folder.map(|folder| self.state.users[user].store.find_folder(mailbox, folder)).transpose()?;
        let top = options.top.unwrap_or(self.state.settings.page_size) as usize;
        let every = self.state.settings.foreign_item_every.filter(|every| *every > 1);
        let start = position(&options)?;
        // Foreign items take every n-th position and are left out.
        let first = every.map_or(start, |every| start - start / every) as usize;
        let place = |item: usize| {
            let item = item as u64;
            every.map_or(item, |every| item + item / (every - 1))
        };
        let (mut keys, total) = self.matching(user, folder, &options, first, top + 1);
        let mut more = keys.len() > top;
        keys.truncate(top);
        if self.page_stays_empty(!keys.is_empty()) {
            keys.clear();
            more = true;
        }
        more = more || (self.state.settings.trailing_empty_page && keys.len() == top);

        let mut slots = Slots::default();
        let view = self.view(user, &options);
        let store = &self.state.users[user].store;
        let page: Vec<Value> = keys.iter().map(|key| view.message(&store.messages[key], &mut slots)).collect();
        let id = &self.state.users[user].id;
        let mut out = json!({
            "@odata.context": self.context(&format!("('{id}')/messages")),
        });
        if more {
            let next = match keys.len() {
                0 => start,
                count => place(first + count - 1) + 1,
            };
            let token = self.state.settings.paging == Paging::SkipToken;
            out["@odata.nextLink"] = self.next_link(&options, next, token).into();
        }
        if options.count {
            out["@odata.count"] = total.into();
        }
        out["value"] = page.into();
        self.within_time(Reply::with_slots(200, out, slots))
    }

    /// A list that is too heavy times out.
    fn within_time(&self, reply: Reply) -> Result<Reply, Refusal> {
        let Some(limit) = self.state.settings.list_timeout_above else {
            return Ok(reply);
        };
        let Reply { status, headers, body: ReplyBody::Json(value, slots) } = reply else {
            return Ok(reply);
        };
        let body = slots.finish(&value);
        if body.len() > limit {
            return Err(Refusal::new(504, "UnknownError", ""));
        }
        Ok(Reply {
            status,
            headers,
            body: ReplyBody::Raw(body, "application/json;odata.metadata=minimal;charset=utf-8".into()),
        })
    }

    fn page_stays_empty(&mut self, has_items: bool) -> bool {
        let Some(every) = self.state.settings.empty_page_every else {
            return false;
        };
        if !has_items {
            return false;
        }
        self.state.pages += 1;
        self.state.pages.is_multiple_of(every.max(2))
    }

    /// Keys of the messages that pass, from the `first` on, and how many pass in all (only
    /// reckoned if the count was asked for).
    fn matching(
        &self,
        user: usize,
        folder: Option<u32>,
        options: &Options,
        first: usize,
        limit: usize,
    ) -> (Vec<u64>, usize) {
        let user = &self.state.users[user];
        let store = &user.store;
        let passes = |message: &Message| {
            let item = OnceCell::new();
            let item = || Arc::clone(item.get_or_init(|| message.item()));
            let filtered = options
                .filter
                .as_ref()
                .is_none_or(|filter| filter.matches(&|name| render::message_values(user.number, message, &item, name)));
            filtered && options.search.as_ref().is_none_or(|search| found_by_search(&item(), search))
        };
        let bounds = options.filter.as_ref().map_or((None, None), |filter| filter.time_bounds("receivedDateTime"));
        let seconds = |micros: i64| micros.div_euclid(1_000_000);
        let low = (bounds.0.map_or(i64::MIN, seconds), 0, 0);
        let high = (bounds.1.map_or(i64::MAX, seconds), u64::MAX, u64::MAX);
        if low > high {
            return (Vec::new(), 0);
        }
        let plain_folder =
            folder.and_then(|folder| store.folders.get(&folder)).filter(|folder| folder.search.is_none());
        let only_received = options.order_by.iter().all(|(name, _)| name == "receivedDateTime");
        let ascending = options.order_by.first().is_some_and(|(_, down)| !down);
        if let Some(folder) = plain_folder
            && only_received
            && options.search.is_none()
        {
            let range = folder.messages.range(low..=high);
            let ordered: Box<dyn Iterator<Item = &(i64, u64, u64)>> =
                if ascending { Box::new(range) } else { Box::new(range.rev()) };
            let mut matched = ordered.map(|(_, _, key)| *key).filter(|key| passes(&store.messages[key]));
            let page = matched.by_ref().skip(first).take(limit).collect::<Vec<_>>();
            let total = if options.count { first + page.len() + matched.count() } else { 0 };
            return (page, total);
        }
        let mut keys: Vec<u64> = match (folder, folder.and_then(|f| store.folders.get(&f))) {
            (Some(_), Some(folder)) => match &folder.search {
                // The fake's search folders show what is unread in their sources.
                Some(sources) => sources
                    .iter()
                    .filter_map(|source| store.folders.get(source))
                    .flat_map(|source| source.messages.iter().map(|(_, _, key)| *key))
                    .filter(|key| !store.messages[key].is_read)
                    .collect(),
                None => folder.messages.iter().map(|(_, _, key)| *key).collect(),
            },
            _ => store.messages.keys().copied().collect(),
        };
        keys.retain(|key| passes(&store.messages[key]));
        let sorting: Vec<(String, bool)> = if options.search.is_some() {
            vec![("sentDateTime".into(), true)]
        } else if options.order_by.is_empty() {
            vec![("receivedDateTime".into(), true)]
        } else {
            options.order_by.clone()
        };
        let mut decorated: Vec<(Vec<Vec<Literal>>, u64)> = keys
            .into_iter()
            .map(|key| {
                let message = &store.messages[&key];
                let item = || message.item();
                let values =
                    sorting.iter().map(|(name, _)| render::message_values(user.number, message, &item, name)).collect();
                (values, key)
            })
            .collect();
        decorated.sort_by(|left, right| {
            for (at, (_, descending)) in sorting.iter().enumerate() {
                let order = left.0[at].cmp(&right.0[at]);
                let order = if *descending { order.reverse() } else { order };
                if order.is_ne() {
                    return order;
                }
            }
            content::mix(left.1).cmp(&content::mix(right.1))
        });
        if options.search.is_some() {
            decorated.truncate(1000);
        }
        let total = decorated.len();
        let page = decorated.into_iter().skip(first).take(limit).map(|(_, key)| key).collect();
        (page, total)
    }

    fn one_message(&mut self, user: usize, key: u64) -> Result<Reply, Refusal> {
        let options = Options::parse(self.query, &render::ONE_MESSAGE)?;
        self.check_basic(&options)?;
        Ok(self.message_reply(200, user, key, &options))
    }

    fn message_reply(&self, status: u16, user: usize, key: u64, options: &Options) -> Reply {
        let mut slots = Slots::default();
        let view = self.view(user, options);
        let user = &self.state.users[user];
        let mut out = view.message(&user.store.messages[&key], &mut slots);
        out["@odata.context"] = self.context(&format!("('{}')/messages/$entity", user.id)).into();
        Reply::with_slots(status, out, slots)
    }

    fn update(&mut self, user: usize, key: u64) -> Result<Reply, Refusal> {
        const ANY_TIME: [&str; 8] = [
            "isRead",
            "categories",
            "flag",
            "importance",
            "inferenceClassification",
            "isDeliveryReceiptRequested",
            "isReadReceiptRequested",
            "@odata.type",
        ];
        self.no_options()?;
        let body = self.request.json()?;
        let object = body.as_object().ok_or_else(|| Refusal::bad_request("The request body is not an object."))?;
        for name in object.keys() {
            if ANY_TIME.contains(&name.as_str()) {
                continue;
            }
            if render::MESSAGE.properties.contains(&name.as_str()) {
                return Err(Refusal::new(
                    400,
                    "ErrorInvalidPropertySet",
                    format!("The property '{name}' can be set only while the message is a draft."),
                ));
            }
            return Err(unknown_member(name, "microsoft.graph.message"));
        }
        let text = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
        let store = &mut self.state.users[user].store;
        if let Some(is_read) = object.get("isRead") {
            let is_read = is_read
                .as_bool()
                .ok_or_else(|| Refusal::bad_request("Cannot convert a value to target type 'Edm.Boolean'."))?;
            store.set_read(key, is_read);
        }
        store.change += 1;
        let change = store.change;
        let now = self.state.now_seconds();
        let store = &mut self.state.users[user].store;
        if let Some(message) = store.messages.get_mut(&key) {
            message.change = change;
            message.modified = now;
            if let Some(importance) = text("importance") {
                message.importance = Some(importance);
            }
            if let Some(inference) = text("inferenceClassification") {
                message.inference = Some(inference);
            }
            if let Some(status) = object.get("flag").and_then(|flag| flag.get("flagStatus")).and_then(Value::as_str) {
                message.flag = Some(status.to_owned());
            }
            if let Some(categories) = object.get("categories").and_then(Value::as_array) {
                message.categories =
                    categories.iter().filter_map(|category| category.as_str().map(str::to_owned)).collect();
            }
        }
        Ok(self.message_reply(200, user, key, &Options::default()))
    }

    fn delete(&mut self, user: usize, key: u64) -> Result<Reply, Refusal> {
        self.no_options()?;
        let now = self.state.now_seconds();
        let user = &mut self.state.users[user];
        let store = &mut user.store;
        let bin = store.well_known("deleteditems");
        let target = if store.messages.get(&key).map(|message| message.folder) == bin {
            store.well_known("recoverableitemsdeletions")
        } else {
            bin
        };
        match target {
            Some(target) => store.move_message(user.number, key, target, now),
            None => store.remove_message(user.number, key),
        }
        Ok(Reply::empty(204))
    }

    fn move_or_copy(&mut self, user: usize, key: u64, copy: bool) -> Result<Reply, Refusal> {
        let body = self.request.json()?;
        check_members(&body, &["destinationId", "DestinationId"], "move")?;
        let destination = body
            .get("destinationId")
            .or_else(|| body.get("DestinationId"))
            .and_then(Value::as_str)
            .ok_or_else(|| Refusal::new(400, "ErrorInvalidParameter", "The parameter destinationId is missing."))?;
        let now = self.state.now_seconds();
        let missing = self.state.settings.missing_folder_code.clone();
        let number = self.state.users[user].number;
        let store = &mut self.state.users[user].store;
        let target = store.find_folder(number, destination).map_err(|refusal| {
            if refusal.code == "ErrorItemNotFound" { Refusal::new(404, &missing, refusal.message) } else { refusal }
        })?;
        if store.folders[&target].search.is_some() {
            return Err(Refusal::new(400, "ErrorInvalidOperation", "A search folder cannot be the target of a move."));
        }
        let key = if copy {
            store.copy_message(key, target).ok_or_else(Refusal::item_not_found)?
        } else {
            store.move_message(number, key, target, now);
            key
        };
        Ok(self.message_reply(201, user, key, &Options::default()))
    }

    // Attachments --------------------------------------------------------------------------------

    fn list_attachments(&mut self, user: usize, key: u64) -> Result<Reply, Refusal> {
        let options = Options::parse(self.query, &ATTACHMENT)?;
        let message = &self.state.users[user].store.messages[&key];
        let item = message.item();
        let mut slots = Slots::default();
        let one_message = Options::default();
        let view = self.view(user, &one_message);
        let skip = options.skip as usize;
        let values = |index: usize, name: &str| {
            let attachment = &item.attachments[index];
            let text = |text: &Option<String>| text.clone().map_or(Literal::Null, Literal::Text);
            vec![match name {
                "name" => text(&attachment.name),
                "contentType" => text(&attachment.content_type),
                "isInline" => Literal::Bool(attachment.inline),
                "size" => Literal::Number(attachment.stated_size() as i64),
                _ => Literal::Null,
            }]
        };
        let passing: Vec<usize> = (0..item.attachments.len())
            .filter(|index| options.filter.as_ref().is_none_or(|filter| filter.matches(&|name| values(*index, name))))
            .collect();
        let take = options.top.map_or(usize::MAX, |top| top as usize);
        let list: Vec<Value> = passing
            .iter()
            .skip(skip)
            .take(take)
            .map(|index| {
                let attachment = &item.attachments[*index];
                view.attachment(message, *index, attachment, options.select.as_ref(), true, &mut slots)
            })
            .collect();
        let next = skip + list.len();
        let id = &self.state.users[user].id;
        let mut out = json!({
            "@odata.context": self.context(&format!("('{id}')/messages('{}')/attachments", message.id(0, false))),
            "value": list,
        });
        if next < passing.len() {
            out["@odata.nextLink"] = self.next_link(&options, next as u64, false).into();
        }
        Ok(Reply::with_slots(200, out, slots))
    }

    fn attachment_index(&self, user: usize, key: u64, id: &str) -> Result<usize, Refusal> {
        let user = &self.state.users[user];
        let (reference, index) = ids::parse_attachment_id(id).ok_or_else(Refusal::malformed_id)?;
        let message = user.store.look_up(user.number, reference)?;
        if message.key != key || index >= message.item().attachments.len() {
            return Err(Refusal::item_not_found());
        }
        Ok(index)
    }

    fn one_attachment(&mut self, user: usize, key: u64, id: &str) -> Result<Reply, Refusal> {
        const ONE: super::odata::Schema = super::odata::Schema { options: &["$select", "$expand"], ..ATTACHMENT };
        let options = Options::parse(self.query, &ONE)?;
        let index = self.attachment_index(user, key, id)?;
        let message = &self.state.users[user].store.messages[&key];
        let item = message.item();
        let attachment = &item.attachments[index];
        let mut slots = Slots::default();
        let plain = Options::default();
        let view = self.view(user, &plain);
        let mut out = view.attachment(message, index, attachment, options.select.as_ref(), false, &mut slots);
        if !options.expand.is_empty() {
            out["item"] = view.inner_item(attachment);
        }
        let user = &self.state.users[user].id;
        out["@odata.context"] = self.context(&format!("('{user}')/messages/attachments/$entity")).into();
        Ok(Reply::with_slots(200, out, slots))
    }

    fn attachment_value(&mut self, user: usize, key: u64, id: &str) -> Result<Reply, Refusal> {
        let index = self.attachment_index(user, key, id)?;
        let item = self.state.users[user].store.messages[&key].item();
        let attachment = &item.attachments[index];
        Ok(match &attachment.kind {
            Kind::File(content) => Reply::raw(
                200,
                Body::raw(content.clone()),
                attachment.content_type.as_deref().unwrap_or("application/octet-stream"),
            ),
            Kind::Message(inner) => Reply::raw(200, mime::to_mime(inner), "text/plain"),
            Kind::Other { text, .. } => {
                let mut body = Body::default();
                body.push(text.clone());
                Reply::raw(200, body, "text/plain")
            }
            Kind::Reference { .. } => {
                return Err(Refusal::new(
                    405,
                    "ErrorInvalidRequest",
                    "The $value of a reference attachment cannot be read.",
                ));
            }
        })
    }

    // Ids ----------------------------------------------------------------------------------------

    fn translate(&mut self, user: usize) -> Result<Reply, Refusal> {
        self.no_options()?;
        let body = self.request.json()?;
        check_members(
            &body,
            &["inputIds", "sourceIdType", "targetIdType", "InputIds", "SourceIdType", "TargetIdType"],
            "translateExchangeIds",
        )?;
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        let inputs = body
            .get("inputIds")
            .and_then(Value::as_array)
            .ok_or_else(|| Refusal::bad_request("The parameter inputIds is missing."))?;
        if inputs.len() > 1000 {
            return Err(Refusal::bad_request("At most 1000 ids can be translated at once."));
        }
        let immutable = match (text("sourceIdType"), text("targetIdType")) {
            ("restId" | "restImmutableEntryId", "restImmutableEntryId") => true,
            ("restId" | "restImmutableEntryId", "restId") => false,
            _ => {
                return Err(Refusal::new(
                    501,
                    "NotModelledByTheFake",
                    "Only restId and restImmutableEntryId are modelled.",
                ));
            }
        };
        let user = &self.state.users[user];
        let mut out = Vec::new();
        for input in inputs {
            let source = input.as_str().unwrap_or_default();
            let message = user.store.find(user.number, source)?;
            out.push(json!({
                "sourceId": source,
                "targetId": message.id(user.number, immutable),
            }));
        }
        Ok(Reply::json(
            200,
            json!({
                "@odata.context": format!("{}/v1.0/$metadata#Collection(microsoft.graph.convertIdResult)", self.state.graph_root),
                "value": out,
            }),
        ))
    }

    /// A whole URL with all parameters, in the form that the service prefers.
    pub(super) fn next_link(&self, options: &Options, next: u64, token: bool) -> String {
        let (name, value) = if token { ("$skiptoken", skip_token(next)) } else { ("$skip", next.to_string()) };
        self.link(options, name, &value)
    }

    pub(super) fn link(&self, options: &Options, name: &str, value: &str) -> String {
        const PAGING: [&str; 3] = ["$skip", "$skiptoken", "$deltatoken"];
        let mut url = format!("{}/v1.0", self.state.graph_root);
        let segments = segments(self.path).unwrap_or_default();
        let mut keyed = false;
        for segment in &segments {
            let collection =
                ["users", "mailfolders", "messages", "childfolders"].contains(&segment.to_ascii_lowercase().as_str());
            if keyed && !segment.eq_ignore_ascii_case("delta") {
                url.push_str(&format!("('{}')", encode(&segment.replace('\'', "''"))));
                keyed = false;
            } else {
                url.push('/');
                url.push_str(segment);
                keyed = collection;
            }
        }
        let mut separator = '?';
        let kept = options.raw.iter().filter(|(name, _)| !PAGING.contains(&name.to_ascii_lowercase().as_str()));
        for (name, value) in kept.map(|(name, value)| (name.as_str(), value.as_str())).chain([(name, value)]) {
            url.push(separator);
            separator = '&';
            url.push_str(&format!("{name}={}", encode(value).replace("%20", "+")));
        }
        url
    }
}

fn encode(text: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~')
        .remove(b'@')
        .remove(b'=')
        .remove(b'$')
        .remove(b',')
        .remove(b'(')
        .remove(b')')
        .remove(b':');
    percent_encoding::utf8_percent_encode(text, KEPT).to_string()
}

fn skip_token(position: u64) -> String {
    base64_simd::URL_SAFE_NO_PAD.encode_to_string(format!("fake-page:{position}"))
}

/// Where a page starts, from `$skip` or `$skiptoken`.
fn position(options: &Options) -> Result<u64, Refusal> {
    let Some(token) = &options.skip_token else {
        return Ok(options.skip);
    };
    base64_simd::URL_SAFE_NO_PAD
        .decode_to_vec(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| text.strip_prefix("fake-page:")?.parse().ok())
        .ok_or_else(|| Refusal::bad_request("The $skiptoken is not valid."))
}

fn found_by_search(item: &mime::Item, search: &str) -> bool {
    let address = |address: &Option<mime::Address>| {
        address.as_ref().map(|address| format!("{} {}", address.name, address.address)).unwrap_or_default()
    };
    let (field, text) = search.split_once(':').unwrap_or(("", search));
    let text = text.to_lowercase();
    let from = address(&item.from).to_lowercase();
    let subject = item.subject.clone().unwrap_or_default().to_lowercase();
    match field.to_ascii_lowercase().as_str() {
        "from" => from.contains(&text),
        "subject" => subject.contains(&text),
        _ => from.contains(&text) || subject.contains(&text) || item.body_text().to_lowercase().contains(&text),
    }
}

fn unknown_member(name: &str, of: &str) -> Refusal {
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
