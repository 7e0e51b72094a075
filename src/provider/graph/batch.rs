//! `$batch` ("Combine multiple HTTP requests using JSON batching", Microsoft Graph): twenty calls in one round trip.
//!
//! The envelope's 200 says nothing about the parts, and they come back in any order. Each part counts as a request, and
//! Graph sends up to four on at a time, so that a batch takes all four places of its mailbox.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    client::{Call, Client, IMMUTABLE, To, not_json},
    failure::{About, Refusal},
};
use crate::{
    Error, ErrorKind, Result,
    net::retry::{self, Attempt},
};

/// Calls in one batch.
pub(super) const MOST: usize = 20;

/// One call of a batch.
#[derive(Clone, Debug)]
pub(super) struct Part {
    method: Method,
    /// Below the mailbox, or below the version.
    path: String,
    elsewhere: bool,
    body: Option<Value>,
    about: About,
}

impl Part {
    pub(super) fn get(about: About, path: String) -> Self {
        Self { method: Method::GET, path, elsewhere: false, body: None, about }
    }

    /// Not below the account's own mailbox.
    pub(super) fn elsewhere(about: About, path: String) -> Self {
        Self { elsewhere: true, ..Self::get(about, path) }
    }

    pub(super) fn with_body(method: Method, about: About, path: String, body: Value) -> Self {
        Self { method, body: Some(body), ..Self::get(about, path) }
    }
}

/// What became of one call.
#[derive(Debug)]
pub(super) enum Told {
    /// 2xx, with its body.
    Done(Bytes),
    /// A refusal, and what to do about it.
    Refused(Attempt<()>),
    /// Not told: nobody knows whether it was done.
    Unknown,
}

#[derive(Deserialize)]
struct Envelope {
    responses: Vec<Response>,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    status: Value,
    #[serde(default)]
    headers: Option<HashMap<String, Value>>,
    #[serde(default)]
    body: Option<Box<RawValue>>,
}

/// One attempt at up to [`MOST`] calls. `Done` has one entry per call, in their order.
pub(super) async fn attempt(client: &Client, parts: &[&Part], silence: Duration) -> Attempt<Vec<Told>> {
    let make = || {
        let requests: Vec<Value> = parts
            .iter()
            .enumerate()
            .map(|(at, part)| {
                let mut headers = json!({"Prefer": IMMUTABLE});
                let url = if part.elsewhere { part.path.clone() } else { client.user_path(&part.path) };
                let mut request = json!({"id": at.to_string(), "method": part.method.as_str(), "url": url});
                if let Some(body) = &part.body {
                    headers["Content-Type"] = "application/json".into();
                    request["body"] = body.clone();
                }
                request["headers"] = headers;
                request
            })
            .collect();
        let call = Call::post(About::Batch, To::Version("/$batch".into()), &json!({"requests": requests}));
        Ok(call.parts(parts.len()))
    };
    let answer = match client.attempt(make, silence).await {
        Attempt::Done(answer) => answer,
        Attempt::Fail(error) if error.kind() == ErrorKind::Unsupported => {
            return Attempt::Done(one_by_one(client, parts, silence).await);
        }
        Attempt::Fail(error) => return Attempt::Fail(error),
        Attempt::Again(error) => return Attempt::Again(error),
        Attempt::Pause(asked, error) => return Attempt::Pause(asked, error),
    };
    let envelope: Envelope = match serde_json::from_slice(&answer.body) {
        Ok(envelope) => envelope,
        Err(e) => return Attempt::Again(not_json(&answer).with_source(e)),
    };
    let mut told: Vec<Told> = parts.iter().map(|_| Told::Unknown).collect();
    let mut rejected = None;
    for response in envelope.responses {
        let at = match &response.id {
            Value::String(id) => id.parse().ok(),
            Value::Number(id) => id.as_u64().and_then(|id| usize::try_from(id).ok()),
            _ => None,
        };
        if let Some(at) = at.filter(|at| *at < parts.len()) {
            told[at] = read(client, response, parts[at].about, &mut rejected);
        }
    }
    if let Some(challenge) = rejected {
        client.reject_token(challenge.as_deref()).await;
    }
    Attempt::Done(told)
}

/// The same calls on their own, for gateways that let no batch through.
async fn one_by_one(client: &Client, parts: &[&Part], silence: Duration) -> Vec<Told> {
    let calls = parts.iter().map(|part| {
        let path = part.path.clone();
        let to = if part.elsewhere { To::Version(path) } else { To::Mailbox(path) };
        Call::new(part.method.clone(), part.about, to, part.body.as_ref())
    });
    let ask = |call: Call| async move {
        match client.attempt(|| Ok(call.clone()), silence).await {
            Attempt::Done(answer) => Told::Done(answer.body),
            Attempt::Fail(error) => Told::Refused(Attempt::Fail(error)),
            Attempt::Again(error) => Told::Refused(Attempt::Again(error)),
            Attempt::Pause(wait, error) => Told::Refused(Attempt::Pause(wait, error)),
        }
    };
    stream::iter(calls.collect::<Vec<_>>()).map(ask).buffered(4).collect().await
}

fn read(client: &Client, response: Response, about: About, rejected: &mut Option<Option<String>>) -> Told {
    let status = match &response.status {
        Value::Number(status) => status.as_u64(),
        Value::String(status) => status.parse().ok(),
        _ => None,
    };
    let Some(status) = status.and_then(|status| u16::try_from(status).ok()) else { return Told::Unknown };
    let body = response.body.map(|body| Bytes::from(body.get().to_owned().into_bytes())).unwrap_or_default();
    if (200..300).contains(&status) {
        return Told::Done(body);
    }
    let header = |name: &str| {
        let headers = response.headers.as_ref()?;
        let (_, value) = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let refusal = Refusal {
        status,
        retry_after: header("retry-after").and_then(|v| retry::retry_after(&v, client.context.now())),
        body: &body,
        request_ids: header("request-id").into_iter().collect(),
        content_type: "no JSON",
        challenge: None,
    };
    match status {
        // A part that depends on another, which we never ask for, or one that was not begun.
        424 => Told::Unknown,
        401 => {
            rejected.get_or_insert(refusal.challenge.clone());
            Told::Refused(Attempt::Fail(refusal.error(about, client.mailbox())))
        }
        _ => Told::Refused(client.refused(&refusal, about)),
    }
}

/// Calls that are safe to repeat, each tried again as its own answer asks for; one answer each, in their order.
///
/// # Errors
///
/// When the batch as a whole cannot be had.
pub(super) async fn all(client: &Client, parts: Vec<Part>) -> Result<Vec<Result<Bytes>>> {
    let mut answers: Vec<Option<Result<Bytes>>> = parts.iter().map(|_| None).collect();
    let mut refreshed = false;
    let mut most = MOST;
    let mut tries = client.tries();
    loop {
        let open: Vec<usize> = (0..parts.len()).filter(|at| answers[*at].is_none()).take(most).collect();
        if open.is_empty() {
            tries.progress();
            return Ok(answers.into_iter().flatten().collect());
        }
        let asked: Vec<&Part> = open.iter().map(|at| &parts[*at]).collect();
        let told = match attempt(client, &asked, tries.silence()).await {
            Attempt::Done(told) => told,
            // All answers come in one; a PATCH is answered with the whole message.
            Attempt::Fail(error) if error.kind() == ErrorKind::TooLarge => {
                match open[..] {
                    [at] => answers[at] = Some(Err(error)),
                    _ => most = open.len() / 2,
                }
                continue;
            }
            Attempt::Fail(error) => return Err(error),
            Attempt::Again(error) => {
                tries.again(error).await?;
                continue;
            }
            Attempt::Pause(asked, error) => {
                tries.pause(asked, error).await?;
                continue;
            }
        };
        let mut later = Later::default();
        let mut unauthorised = false;
        for (at, told) in open.into_iter().zip(told) {
            match told {
                Told::Done(body) => answers[at] = Some(Ok(body)),
                Told::Refused(Attempt::Fail(error)) if error.kind() == ErrorKind::Unauthenticated && !refreshed => {
                    unauthorised = true;
                }
                Told::Refused(Attempt::Fail(error)) => answers[at] = Some(Err(error)),
                Told::Refused(attempt) => later.note(attempt),
                Told::Unknown => later.note(Attempt::Again(untold())),
            }
        }
        refreshed |= unauthorised;
        if !later.is_none() {
            later.wait(&mut tries).await?;
        }
    }
}

pub(super) fn untold() -> Error {
    Error::new(ErrorKind::Unavailable, "Graph left a part of a batch without an answer")
}

/// Why parts must be tried again: the longest pause that one of them asked for, else a fault.
#[derive(Debug, Default)]
pub(super) struct Later {
    pause: Option<(Option<Duration>, Error)>,
    fault: Option<Error>,
}

impl Later {
    pub(super) fn note(&mut self, attempt: Attempt<()>) {
        match attempt {
            Attempt::Pause(asked, error) => {
                if self.pause.as_ref().is_none_or(|(longest, _)| *longest < asked) {
                    self.pause = Some((asked, error));
                }
            }
            Attempt::Again(error) | Attempt::Fail(error) => self.fault = Some(error),
            Attempt::Done(()) => {}
        }
    }

    pub(super) fn is_none(&self) -> bool {
        self.pause.is_none() && self.fault.is_none()
    }

    pub(super) async fn wait(self, tries: &mut retry::Tries<'_>) -> Result<()> {
        match (self.pause, self.fault) {
            (Some((asked, error)), _) => tries.pause(asked, error).await,
            (None, Some(error)) => tries.again(error).await,
            (None, None) => Ok(()),
        }
    }
}
