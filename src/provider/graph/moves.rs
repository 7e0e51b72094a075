//! Moving messages, and marking them as read.
//!
//! A move is repeated only when it is known not to have been done. After a lost answer, a timeout or a 5xx the message is
//! looked up first: with immutable ids it keeps its handle, and its `parentFolderId` tells. "Not found" on a move may
//! mean the message or the folder, so that is looked up as well. Any other refusal may be one because the message is
//! there already, which is what was wanted.

use reqwest::Method;
use serde_json::json;

use super::{
    batch::{self, Later, MOST, Part, Told, untold},
    client::{Client, encode, names_nothing, with_query},
    failure::About,
    folders::Folders,
    wire::Stub,
};
use crate::{
    Error, ErrorKind, FolderId, MessageId, MoveOutcome, Result,
    net::retry::{Attempt, Tries},
};

/// How far one message has come.
#[derive(Debug)]
enum Step {
    /// To be asked for: nothing has been done.
    Send,
    /// Nobody knows what was done.
    Look,
    /// Graph found something missing: the message, or the folder.
    LookForMissing,
    /// Graph refused, and it may be there already: what Graph makes of that is not documented.
    LookAfter(Error),
    Done(Result<MoveOutcome>),
}

impl Step {
    /// Whether the message must be looked up.
    fn is_question(&self) -> bool {
        matches!(self, Self::Look | Self::LookForMissing | Self::LookAfter(_))
    }
}

struct Moving<'a> {
    id: &'a MessageId,
    step: Step,
}

/// Moves messages; one answer each, in their order. `moved` is told about each message that is no longer where it was.
pub(super) async fn move_all(
    client: &Client,
    folders: &Folders,
    ids: &[MessageId],
    to: &FolderId,
    moved: &(dyn Fn(&MessageId) + Sync),
) -> Vec<Result<MoveOutcome>> {
    let mut to = to.clone();
    let mut answers = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(MOST) {
        let mut all: Vec<Moving<'_>> = chunk.iter().map(|id| Moving { id, step: first_step(id) }).collect();
        if let Err(error) = run(client, folders, &mut all, &mut to).await {
            // Those that are settled stay so; the others share the reason.
            for moving in all.iter_mut().filter(|m| !matches!(m.step, Step::Done(_))) {
                moving.step = Step::Done(Err(same(&error)));
            }
        }
        for moving in all {
            let Step::Done(answer) = moving.step else { continue };
            if let Ok(MoveOutcome::Moved(_) | MoveOutcome::Gone) = &answer {
                moved(moving.id);
            }
            answers.push(answer);
        }
    }
    answers
}

fn first_step(id: &MessageId) -> Step {
    if names_nothing(id.as_str()) { Step::Done(Ok(MoveOutcome::Gone)) } else { Step::Send }
}

async fn run(client: &Client, folders: &Folders, all: &mut [Moving<'_>], to: &mut FolderId) -> Result<()> {
    let mut tries = client.tries();
    let (mut refreshed, mut refound) = (false, false);
    loop {
        if all.iter().any(|m| m.step.is_question()) {
            let missing = look(client, all, to, &mut tries, &mut refreshed).await?;
            if missing {
                // Some message is there, and yet something was not found: the folder.
                match folders.refind(client, to).await {
                    Ok(Some(folder)) if !refound => {
                        *to = folder.id;
                        refound = true;
                    }
                    Ok(_) => return Err(no_folder(to)),
                    Err(error) => return Err(error),
                }
            }
            continue;
        }
        if all.iter().all(|m| matches!(m.step, Step::Done(_))) {
            tries.progress();
            return Ok(());
        }
        send(client, all, to, &mut tries, &mut refreshed).await?;
    }
}

async fn send(
    client: &Client,
    all: &mut [Moving<'_>],
    to: &FolderId,
    tries: &mut Tries<'_>,
    refreshed: &mut bool,
) -> Result<()> {
    let mut open: Vec<&mut Moving<'_>> = all.iter_mut().filter(|m| matches!(m.step, Step::Send)).collect();
    let parts: Vec<Part> = open
        .iter()
        .map(|moving| {
            let path = format!("/messages/{}/move", encode(moving.id.as_str()));
            Part::with_body(Method::POST, About::Message, path, json!({"destinationId": to.as_str()}))
        })
        .collect();
    let parts: Vec<&Part> = parts.iter().collect();
    let told = match batch::attempt(client, &parts, tries.silence()).await {
        Attempt::Done(told) => told,
        // Graph answers with the moved messages, texts and all. What was done is done.
        Attempt::Fail(error) if error.kind() == ErrorKind::TooLarge => {
            open.iter_mut().for_each(|m| m.step = Step::Look);
            return Ok(());
        }
        Attempt::Fail(error) => return Err(error),
        Attempt::Pause(asked, error) => return tries.pause(asked, error).await,
        Attempt::Again(error) => {
            // The whole answer is lost; any of them may have been moved.
            open.iter_mut().for_each(|m| m.step = Step::Look);
            return tries.again(error).await;
        }
    };
    let mut later = Later::default();
    let mut unauthorised = false;
    for (moving, told) in open.into_iter().zip(told) {
        moving.step = match told {
            Told::Done(body) => match serde_json::from_slice::<Stub>(&body) {
                Ok(stub) => Step::Done(Ok(MoveOutcome::Moved(MessageId::new(stub.id)))),
                // Moved, but under which id?
                Err(_) => Step::Look,
            },
            Told::Unknown => {
                later.note(Attempt::Again(untold()));
                Step::Look
            }
            Told::Refused(Attempt::Fail(error)) => match error.kind() {
                ErrorKind::Unauthenticated if !*refreshed => {
                    unauthorised = true;
                    Step::Send
                }
                // Of the message or of the folder, also where an id is malformed.
                ErrorKind::NotFound => Step::LookForMissing,
                ErrorKind::Conflict | ErrorKind::Other => Step::LookAfter(error),
                _ => Step::Done(Err(error)),
            },
            // Throttled: refused before anything was done.
            Told::Refused(attempt @ Attempt::Pause(..)) => {
                later.note(attempt);
                Step::Send
            }
            Told::Refused(attempt) => {
                later.note(attempt);
                Step::Look
            }
        };
    }
    *refreshed |= unauthorised;
    later.wait(tries).await
}

/// Looks where messages are. Returns whether one is there of which something was not found.
async fn look(
    client: &Client,
    all: &mut [Moving<'_>],
    to: &FolderId,
    tries: &mut Tries<'_>,
    refreshed: &mut bool,
) -> Result<bool> {
    let open: Vec<&mut Moving<'_>> = all.iter_mut().filter(|m| m.step.is_question()).collect();
    let parts: Vec<Part> = open
        .iter()
        .map(|moving| {
            let path = format!("/messages/{}", encode(moving.id.as_str()));
            Part::get(About::Message, with_query(&path, &[("$select", "id,parentFolderId")]))
        })
        .collect();
    let parts: Vec<&Part> = parts.iter().collect();
    let told = match batch::attempt(client, &parts, tries.silence()).await {
        Attempt::Done(told) => told,
        Attempt::Fail(error) => return Err(error),
        Attempt::Pause(asked, error) => return tries.pause(asked, error).await.map(|()| false),
        Attempt::Again(error) => return tries.again(error).await.map(|()| false),
    };
    let mut later = Later::default();
    let (mut unauthorised, mut missing) = (false, false);
    for (moving, told) in open.into_iter().zip(told) {
        match told {
            Told::Done(body) => match serde_json::from_slice::<Stub>(&body) {
                Ok(stub) if stub.parent.0.as_deref() == Some(to.as_str()) => {
                    moving.step = Step::Done(Ok(MoveOutcome::Moved(MessageId::new(stub.id))));
                }
                Ok(_) => {
                    moving.step = match std::mem::replace(&mut moving.step, Step::Send) {
                        Step::LookAfter(refusal) => Step::Done(Err(refusal)),
                        step => {
                            missing |= matches!(step, Step::LookForMissing);
                            Step::Send
                        }
                    };
                }
                Err(e) => later.note(Attempt::Again(untold().with_source(e))),
            },
            Told::Refused(Attempt::Fail(error)) => match error.kind() {
                ErrorKind::Unauthenticated if !*refreshed => unauthorised = true,
                ErrorKind::NotFound => moving.step = Step::Done(Ok(MoveOutcome::Gone)),
                _ => moving.step = Step::Done(Err(error)),
            },
            Told::Refused(attempt) => later.note(attempt),
            Told::Unknown => later.note(Attempt::Again(untold())),
        }
    }
    *refreshed |= unauthorised;
    later.wait(tries).await?;
    Ok(missing)
}

fn no_folder(to: &FolderId) -> Error {
    Error::new(ErrorKind::NotFound, format!("the folder to move to does not exist (any more); its id was `{to}`"))
}

/// The same error for another message.
pub(super) fn same(error: &Error) -> Error {
    let mut same = Error::new(error.kind(), error.message().to_owned());
    if let Some(code) = error.code() {
        same = same.with_code(code);
    }
    if let Some(wait) = error.retry_after() {
        same = same.with_retry_after(wait);
    }
    error.request_ids().iter().fold(same, Error::with_request_id)
}

/// Marks messages as read or unread; one answer each, in their order.
pub(super) async fn mark_all(client: &Client, ids: &[MessageId], read: bool) -> Vec<Result<()>> {
    let mut answers: Vec<Option<Result<()>>> = ids
        .iter()
        .map(|id| {
            let none = || Error::new(ErrorKind::NotFound, "an empty handle, or one of dots, names no message");
            names_nothing(id.as_str()).then(|| Err(none()))
        })
        .collect();
    let open: Vec<usize> = (0..ids.len()).filter(|at| answers[*at].is_none()).collect();
    let parts = open
        .iter()
        .map(|at| {
            let path = format!("/messages/{}", encode(ids[*at].as_str()));
            Part::with_body(Method::PATCH, About::Message, path, json!({"isRead": read}))
        })
        .collect();
    match batch::all(client, parts).await {
        Ok(told) => {
            for (at, told) in open.into_iter().zip(told) {
                answers[at] = Some(told.map(drop));
            }
        }
        Err(error) => {
            for at in open {
                answers[at] = Some(Err(same(&error)));
            }
        }
    }
    answers.into_iter().flatten().collect()
}
