//! `POST /$batch`: up to 20 requests in one, four at a time.
//!
//! From "Combine multiple HTTP requests using JSON batching" and, for the four at a time,
//! "Microsoft Graph throttling guidance".

use super::content::{Slots, mix};
use super::entra;
use super::faults::{Kind, Seen};
use super::gate::perform;
use super::log::{LoggedRequest, Route};
use super::reply::{Refusal, Reply, ReplyBody};
use super::routes::{
    Incoming, Outcome, Permits, Request, RequestBody, check_members, count, decide, refuse, retry_after, throttled,
};
use super::state::State;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::time::Duration;

const MAX_PARTS: usize = 20;
const LANES: usize = 4;

struct Part {
    id: String,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Value>,
    depends_on: Vec<String>,
}

pub(crate) fn handle(state: &mut State, incoming: &Incoming<'_>, permits: &mut Permits) -> (Outcome, Duration) {
    let fault =
        decide(state, &Seen { route: Route::Batch, method: incoming.method, mailbox_names: &[], in_batch: false });
    let token = entra::check(state, incoming.header("authorization"));
    let client_id = token.as_ref().ok().map(|token| token.client_id.clone());
    let refused = match fault.as_ref().map(|fault| &fault.kind) {
        Some(Kind::Throttle { retry_after: value, .. }) => Some((throttled(), Some(value.clone()))),
        Some(Kind::Error { status, code, message, retry_after: value }) => {
            Some((Refusal::new(*status, code, message.clone()), Some(value.clone())))
        }
        Some(Kind::TokenExpired | Kind::ClaimsChallenge { .. }) => {
            if let Ok(token) = &token {
                state.dead_tokens.insert(token.unique.clone());
            }
            Some((Refusal::unauthenticated("Lifetime validation failed, the token is expired."), None))
        }
        Some(Kind::Html { .. }) => Some((Refusal::new(502, "UnknownError", ""), None)),
        _ => None,
    };
    let result = match refused {
        Some((mut refusal, value)) => {
            if let Some(value) = value.and_then(|value| retry_after(state, &value)) {
                refusal = refusal.with_header("Retry-After", value);
            }
            Err(refusal)
        }
        None => token.and_then(|token| {
            let parts = read(incoming)?;
            Ok(run(state, &parts, &token, permits))
        }),
    };
    let mut code = String::new();
    let (reply, delay) = match result {
        Ok((reply, rounds)) => (reply, state.settings.service_time * rounds),
        Err(refusal) => {
            code.clone_from(&refusal.code);
            let client = incoming.header("client-request-id");
            (refuse(state, &refusal, client), Duration::ZERO)
        }
    };
    let mut outcome = Outcome::new(Route::Batch, reply);
    outcome.code = code;
    outcome.client_id = client_id;
    outcome.apply(state, fault);
    (outcome, delay)
}

fn read(incoming: &Incoming<'_>) -> Result<Vec<Part>, Refusal> {
    let bad = |message: &str| Refusal::bad_request(message);
    if incoming.method != "POST" {
        return Err(Refusal::new(
            405,
            "Request_BadRequest",
            "Specified HTTP method is not allowed for the request target.",
        ));
    }
    let content_type = incoming.header("content-type").unwrap_or_default();
    if !content_type.to_ascii_lowercase().starts_with("application/json") {
        return Err(bad("Write requests (excluding DELETE) must contain the Content-Type header declaration."));
    }
    let document: Value = serde_json::from_slice(incoming.body).map_err(|_| bad("Invalid batch payload format."))?;
    check_members(&document, &["requests"], "batch")?;
    let requests = document
        .get("requests")
        .and_then(Value::as_array)
        .filter(|requests| !requests.is_empty())
        .ok_or_else(|| bad("Invalid batch payload format."))?;
    if requests.len() > MAX_PARTS {
        return Err(bad("Number of batch request steps exceeds the maximum value of 20."));
    }
    let mut parts: Vec<Part> = Vec::new();
    for request in requests {
        check_members(request, &["id", "method", "url", "headers", "body", "dependsOn"], "batch request")?;
        let text = |name: &str| {
            request
                .get(name)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
                .ok_or_else(|| bad(&format!("Invalid batch payload format: '{name}' is missing.")))
        };
        let part = Part {
            id: text("id")?,
            method: text("method")?,
            url: text("url")?,
            headers: match request.get("headers") {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::Object(headers)) => headers
                    .iter()
                    .map(|(name, value)| {
                        let value = value.as_str().map(str::to_owned);
                        value.map(|value| (name.clone(), value))
                    })
                    .collect::<Option<_>>()
                    .ok_or_else(|| bad("Invalid batch payload format: a header is no text."))?,
                Some(_) => return Err(bad("Invalid batch payload format: 'headers'.")),
            },
            body: request.get("body").filter(|body| !body.is_null()).cloned(),
            depends_on: request
                .get("dependsOn")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|id| id.as_str().map(str::to_owned))
                .collect(),
        };
        if parts.iter().any(|known| known.id.eq_ignore_ascii_case(&part.id)) {
            return Err(bad("Request Id values must be unique in the batch."));
        }
        if part.url.contains("://") || part.url.starts_with("//") {
            return Err(bad("Invalid batch payload format: a url must be relative to the version."));
        }
        if part.url.to_ascii_lowercase().contains("$batch") {
            return Err(bad("A batch request may not contain another batch."));
        }
        let has_type = part.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let writes = matches!(part.method.as_str(), "POST" | "PUT" | "PATCH");
        if (part.body.is_some() && !has_type) || (writes && part.body.is_some() != has_type) {
            return Err(bad(&format!("Write request id : {} does not contain Content-Type header or body.", part.id)));
        }
        parts.push(part);
    }
    for part in &parts {
        for wanted in &part.depends_on {
            if wanted == &part.id || !parts.iter().any(|known| known.id == *wanted) {
                return Err(bad("Invalid batch payload format: 'dependsOn'."));
            }
        }
    }
    Ok(parts)
}

/// The answer, and how many rounds of four it took.
fn run(state: &mut State, parts: &[Part], token: &entra::Token, permits: &mut Permits) -> (Reply, u32) {
    // With dependsOn the parts go one at a time.
    let serial = parts.iter().any(|part| !part.depends_on.is_empty());
    let lanes = if serial { 1 } else { LANES };
    let mut statuses: HashMap<&str, u16> = HashMap::new();
    let mut responses: Vec<Value> = Vec::new();
    let mut slots = Slots::default();
    let mut waiting: Vec<(usize, &Part)> = parts.iter().enumerate().collect();
    while !waiting.is_empty() {
        let ready =
            waiting.iter().position(|(_, part)| part.depends_on.iter().all(|id| statuses.contains_key(id.as_str())));
        // A circle of dependencies never becomes ready.
        let (at, part) = waiting.remove(ready.unwrap_or(0));
        let failed = ready.is_none()
            || part.depends_on.iter().any(|id| statuses.get(id.as_str()).is_none_or(|status| *status >= 400));
        let outcome = if failed {
            let refusal = Refusal::new(
                424,
                "FailedDependency",
                "The request was not performed because one it depends on failed.",
            );
            let reply = refuse(state, &refusal, None);
            let mut outcome = Outcome::new(Route::Other, reply);
            outcome.code = refusal.code;
            outcome
        } else {
            one(state, part, token, permits, at % lanes)
        };
        statuses.insert(&part.id, outcome.reply.status);
        let status = outcome.reply.status;
        let odd = at % 2 == 1;
        let mut headers = Map::new();
        for (name, value) in &outcome.reply.headers {
            // The case of names differs from part to part.
            let name = if odd { name.to_ascii_lowercase() } else { name.clone() };
            headers.insert(name, value.clone().into());
        }
        let mut response = json!({"id": part.id, "status": status});
        let content_type = match outcome.reply.body {
            ReplyBody::Empty => None,
            ReplyBody::Json(value, more) => {
                response["body"] = value;
                slots.merge(more);
                Some("application/json".to_owned())
            }
            ReplyBody::Raw(body, content_type) => {
                let bytes = body.to_bytes();
                response["body"] = if content_type.starts_with("application/json") {
                    serde_json::from_slice(&bytes).unwrap_or_default()
                } else {
                    // What is not JSON is base64.
                    base64_simd::STANDARD.encode_to_string(bytes).into()
                };
                Some(content_type)
            }
        };
        if let Some(content_type) = content_type {
            headers.insert("Content-Type".into(), content_type.into());
        }
        response["headers"] = headers.into();
        count(
            state,
            LoggedRequest {
                route: outcome.route,
                method: part.method.clone(),
                target: part.url.clone(),
                mailbox: outcome.mailbox,
                client_id: outcome.client_id,
                in_batch: true,
                immutable_ids: outcome.immutable_ids,
                client_request_id: None,
                status,
                code: outcome.code,
                fault: outcome.fault,
                body_length: 0,
            },
        );
        responses.push(response);
    }
    // In any order.
    let salt = state.number();
    let mut order: Vec<(u64, Value)> =
        responses.into_iter().enumerate().map(|(at, response)| (mix(salt ^ mix(at as u64)), response)).collect();
    order.sort_by_key(|(place, _)| *place);
    let responses: Vec<Value> = order.into_iter().map(|(_, response)| response).collect();
    let rounds = parts.len().div_ceil(lanes) as u32;
    (Reply::with_slots(200, json!({"responses": responses}), slots), rounds)
}

fn one(state: &mut State, part: &Part, token: &entra::Token, permits: &mut Permits, lane: usize) -> Outcome {
    let target = if part.url.starts_with('/') { part.url.clone() } else { format!("/{}", part.url) };
    let request = Request {
        method: &part.method,
        target: &target,
        headers: &part.headers,
        body: match &part.body {
            Some(body) => RequestBody::Json(body),
            None => RequestBody::Missing,
        },
        no_length: false,
        lane: Some(lane),
    };
    perform(state, &request, Ok(token.clone()), permits, true)
}
