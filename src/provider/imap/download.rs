//! Downloads: one section of one message, streamed from the socket.
//!
//! A task reads ahead by a few pieces while its consumer polls. When the consumer stops polling for long, or somebody
//! else needs the connection meanwhile, the task lets go of it and ends; the next poll starts another one, which
//! goes on where the first stopped (`BODY.PEEK[2]<offset.count>`). A broken connection is mended in the same way.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{
    failure::{Failure, Outcome},
    handle::{Handle, PartId},
    pool::Shared,
    session::{Event, Session, checked},
    wire::{
        encode::Command,
        fetch::{self, Data},
        response::Untagged,
    },
};
use crate::{
    Content, Error, ErrorKind, Result,
    mime::decode::{Decoder, Encoding},
};

/// Pieces of at most 64 KiB that are read ahead.
const AHEAD: usize = 4;
/// How long a consumer may pause before it loses the connection to somebody who waits for one.
const GRACE: Duration = Duration::from_millis(500);
/// How long it may pause when nobody waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// What one command asks for when a download goes on in the middle.
const PIECE: u64 = 8 << 20;

/// How far a download has come.
#[derive(Debug, Default)]
struct Progress {
    /// Encoded bytes handed over.
    offset: u64,
    /// How many there are, once the server has said so.
    total: Option<u64>,
    finished: bool,
}

/// The encoded bytes of a section.
pub(crate) struct Section {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
    section: Arc<str>,
    progress: Arc<Mutex<Progress>>,
    running: Option<Running>,
}

struct Running {
    pieces: mpsc::Receiver<Result<Bytes>>,
    _task: AbortOnDropHandle<()>,
}

fn locked(progress: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Section {
    /// `section` is empty for the whole message.
    pub(crate) fn new(shared: &Arc<Shared>, handle: Handle, section: &str) -> Self {
        Self {
            shared: Arc::clone(shared),
            handle: Arc::new(handle),
            section: section.into(),
            progress: Arc::default(),
            running: None,
        }
    }

    fn start(&self) -> Running {
        let (send, pieces) = mpsc::channel(AHEAD);
        let task = Task {
            shared: Arc::clone(&self.shared),
            handle: Arc::clone(&self.handle),
            section: Arc::clone(&self.section),
            progress: Arc::clone(&self.progress),
            send,
        };
        Running { pieces, _task: AbortOnDropHandle::new(tokio::spawn(task.run())) }
    }
}

impl Stream for Section {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.running.is_none() {
                if locked(&self.progress).finished {
                    return Poll::Ready(None);
                }
                self.running = Some(self.start());
            }
            let Some(running) = &mut self.running else { continue };
            match running.pieces.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(piece)) => {
                    if piece.is_err() {
                        locked(&self.progress).finished = true;
                        self.running = None;
                    }
                    return Poll::Ready(Some(piece));
                }
                // The task is over: it had all, or it let go of the connection.
                Poll::Ready(None) => self.running = None,
            }
        }
    }
}

struct Task {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
    section: Arc<str>,
    progress: Arc<Mutex<Progress>>,
    send: mpsc::Sender<Result<Bytes>>,
}

enum End {
    Complete,
    /// The consumer does not poll.
    Paused,
}

impl Task {
    async fn run(self) {
        let mut attempts = self.shared.attempts();
        let error = loop {
            let mut lease = match attempts.lease(Some(&self.handle.folder)).await {
                Ok(lease) => lease,
                Err(error) => break error,
            };
            // A download takes as long as it takes; what is bounded is the time without progress.
            lease.set_limit(None);
            let before = locked(&self.progress).offset;
            match self.read(&mut lease).await {
                Ok(End::Complete) => {
                    lease.done();
                    locked(&self.progress).finished = true;
                    return;
                }
                // In the middle of a literal, so the connection is dropped with the lease.
                Ok(End::Paused) => return,
                Err(failure) => {
                    if locked(&self.progress).offset > before {
                        attempts.progressed();
                    }
                    if let Err(error) = attempts.failed(lease, failure).await {
                        break error;
                    }
                }
            }
        };
        // Nobody left to tell is no error.
        let _ = self.send.send(Err(self.shared.place(error, "download_attachment"))).await;
    }

    async fn read(&self, session: &mut Session) -> Outcome<End> {
        let open = session.open(&self.handle.folder, false).await?;
        if self.shared.epoch(open.validity) != self.handle.epoch {
            return Err(Failure::Voided);
        }
        loop {
            let (offset, total) = {
                let progress = locked(&self.progress);
                (progress.offset, progress.total)
            };
            if total.is_some_and(|total| offset >= total) {
                return Ok(End::Complete);
            }
            let piece = total.map(|total| PIECE.min(total - offset));
            let item = match piece {
                Some(count) => format!("(UID BODY.PEEK[{}]<{offset}.{count}>)", self.section),
                None => format!("(UID BODY.PEEK[{}])", self.section),
            };
            match self.fetch(session, &item, offset, piece).await? {
                Some(end) => return Ok(end),
                None if locked(&self.progress).offset == offset && total.is_some() => {
                    // Nothing came though there was more a moment ago.
                    return Err(Failure::Protocol("a message that became shorter while it was read"));
                }
                None => {}
            }
        }
    }

    /// One FETCH. `Some` when the download is over or paused, `None` to ask for more.
    async fn fetch(&self, session: &mut Session, item: &str, offset: u64, piece: Option<u64>) -> Outcome<Option<End>> {
        let uid = self.handle.uid;
        session.wait_for_progress();
        let tag = session.start(Command::new("UID FETCH").set(&[uid]).raw(item)).await?;
        let mut found = false;
        let mut seen = false;
        loop {
            let mut origin = None;
            let stream_it = |head: &[u8], _| match section_of(head, &self.section) {
                Some(from) => {
                    origin = from;
                    true
                }
                None => false,
            };
            match session.event(stream_it).await? {
                Event::Literal { size } => {
                    if found {
                        return Err(Failure::Protocol("one part was sent twice"));
                    }
                    // Without an origin, more than was asked for may be the whole part from its beginning.
                    let wrong = match (piece, origin) {
                        (Some(_), Some(from)) => from != offset,
                        (Some(asked), None) => size > asked,
                        (None, _) => false,
                    };
                    if wrong {
                        return Err(Failure::Protocol("another range of a part than was asked for"));
                    }
                    found = true;
                    if piece.is_none() {
                        locked(&self.progress).total = Some(size);
                    }
                    let mut left = piece.unwrap_or(size).min(size);
                    while let Some(bytes) = session.chunk().await? {
                        // More than was asked for has been seen; it is what comes next all the same, but the next
                        // command asks for it again.
                        let bytes = bytes.slice(..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                        left -= bytes.len() as u64;
                        if !bytes.is_empty() && !self.hand_over(bytes).await {
                            return Ok(Some(End::Paused));
                        }
                    }
                }
                Event::Untagged(Untagged::Fetch(fetch)) if fetch.section(&self.section).is_some() => {
                    if fetch.uid != Some(uid) {
                        return Err(Failure::Protocol("a part of another message than was asked for"));
                    }
                    seen = true;
                    let section = fetch.section(&self.section);
                    if piece.is_some() && section.and_then(|s| s.origin).is_some_and(|origin| origin != offset) {
                        return Err(Failure::Protocol("another range of a part than was asked for"));
                    }
                    // Short bodies come as quoted strings from some servers.
                    match section.map(|s| &s.data) {
                        Some(Data::Bytes(bytes)) if !found => {
                            found = true;
                            if piece.is_none() {
                                locked(&self.progress).total = Some(bytes.len() as u64);
                            }
                            if !bytes.is_empty() && !self.hand_over(bytes.clone()).await {
                                return Ok(Some(End::Paused));
                            }
                        }
                        Some(Data::Nil) if !found => {
                            found = true;
                            if piece.is_none() {
                                locked(&self.progress).total = Some(0);
                            }
                        }
                        _ => {}
                    }
                }
                Event::Done { tag: done, status } if done == tag => {
                    checked("UID FETCH", status)?;
                    if !found || !seen {
                        return Err(Failure::Public(Error::new(
                            ErrorKind::NotFound,
                            "the message is no longer in its folder",
                        )));
                    }
                    let progress = locked(&self.progress);
                    let complete = progress.total.is_some_and(|total| progress.offset >= total);
                    return Ok(complete.then_some(End::Complete));
                }
                Event::Continue(_) => return Err(Failure::Protocol("a prompt where none was expected")),
                _ => {}
            }
        }
    }

    /// Whether the consumer took it; a consumer that does not poll makes the task let go.
    async fn hand_over(&self, bytes: Bytes) -> bool {
        let length = bytes.len() as u64;
        let permit = match self.send.try_reserve() {
            Ok(permit) => permit,
            Err(_) => {
                let unpolled = async {
                    let wanted = async {
                        self.shared.somebody_waits().await;
                        tokio::time::sleep(GRACE).await;
                    };
                    let _ = tokio::time::timeout(PATIENCE, wanted).await;
                };
                tokio::select! {
                    biased;
                    permit = self.send.reserve() => match permit {
                        Ok(permit) => permit,
                        Err(_) => return false,
                    },
                    () = unpolled => return false,
                }
            }
        };
        permit.send(Ok(bytes));
        locked(&self.progress).offset += length;
        true
    }
}

/// Whether a response, up to the literal that it has just announced, is about to give this section; and from where.
fn section_of(head: &[u8], section: &str) -> Option<Option<u64>> {
    let brace = head.iter().rposition(|b| *b == b'{')?;
    // A section's name is short; the line before it need not be.
    let head = head[brace.saturating_sub(200)..brace].trim_ascii_end();
    let head = head.strip_suffix(b"~").unwrap_or(head).trim_ascii_end().to_ascii_uppercase();
    let start = memchr::memmem::rfind(&head, b"BODY[")?;
    let (name, origin) = fetch::section(&head[start..])?;
    // What follows the name must be the literal itself.
    let ends = head.ends_with(b"]") || head.ends_with(b">");
    (ends && name == section).then_some(origin)
}

/// The decoded bytes of one part.
pub(crate) fn part(shared: &Arc<Shared>, handle: Handle, part: PartId) -> Content {
    let encoded = Section::new(shared, handle, &part.section);
    let shared = Arc::clone(shared);
    let state = (encoded, Some(Decoder::new(Encoding::from_header(part.encoding.as_bytes()))), 0u64, shared);
    Content::from_stream(futures::stream::try_unfold(
        state,
        move |(mut encoded, mut decoder, mut count, shared)| async move {
            loop {
                let Some(open) = &mut decoder else { return Ok(None) };
                let mut out = Vec::new();
                match encoded.next().await.transpose()? {
                    Some(bytes) => {
                        count += bytes.len() as u64;
                        out.reserve(bytes.len());
                        open.push(&bytes, &mut out);
                    }
                    None => {
                        // A part that the server does not find comes as an empty one.
                        if count == 0 && part_has_bytes(part.size) {
                            let error = Error::new(
                                ErrorKind::Malformed,
                                "the server lists this attachment with a size, and then gives nothing; download the whole message instead",
                            );
                            return Err(shared.place(error, "download_attachment"));
                        }
                        open.finish(&mut out);
                        decoder = None;
                    }
                }
                if !out.is_empty() {
                    return Ok(Some((Bytes::from(out), (encoded, decoder, count, shared))));
                }
            }
        },
    ))
}

fn part_has_bytes(size: Option<u64>) -> bool {
    size.is_some_and(|size| size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_literal_that_was_asked_for() {
        let of = |head: &[u8], section| section_of(head, section);
        assert_eq!(of(b"* 1 FETCH (UID 5 BODY[2] {100}\r\n", "2"), Some(None));
        assert_eq!(of(b"* 1 FETCH (body[2]<7> {100}\r\n", "2"), Some(Some(7)));
        assert_eq!(of(b"* 1 FETCH (UID 5 BODY[] ~{100}\r\n", ""), Some(None));
        assert_eq!(of(b"* 1 FETCH (BODY[1] {2}\r\nxx BODY[2] {100}\r\n", "2"), Some(None));
        for head in [
            &b"* 1 FETCH (UID 5 BODY[1] {100}\r\n"[..],
            b"* 1 FETCH (UID 5 BODY[2.MIME] {100}\r\n",
            b"* 1 FETCH (BODY[2] NIL ENVELOPE (NIL {100}\r\n",
            b"* LIST () \"/\" {100}\r\n",
        ] {
            assert_eq!(of(head, "2"), None, "{}", String::from_utf8_lossy(head));
        }
    }
}
