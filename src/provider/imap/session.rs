//! One connection: commands out, events in.
//!
//! A session is used by one caller at a time. Any failure that is not a plain NO makes it unusable, and the pool
//! drops it; so nothing here has to recover half-read answers.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{io::AsyncWriteExt as _, time::Instant};

use super::{
    failure::{Failure, Outcome},
    stream::Stream,
    usage::Counters,
    wire::{
        encode::{Command, NonSync, Piece},
        reader::{Deadline, Frame, ReadError, Reader},
        response::{self, Incoming, Untagged},
        status::{Code, Condition, Status},
    },
};
use crate::{Patience, Secret};

/// Bytes that a server may send beside what was asked for, within one command.
const MAX_NOISE: u64 = 64 << 20;

/// How long to wait, for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    /// Greeting, and TLS handshake.
    pub(crate) greeting: Duration,
    /// Dovecot alone delays a refusal by up to some 15 seconds.
    pub(crate) sign_in: Duration,
    pub(crate) command: Duration,
    /// Window within which a download must make progress.
    pub(crate) progress: Duration,
    /// One operation with all its tries.
    pub(crate) operation: Duration,
}

impl From<Patience> for Timeouts {
    fn from(patience: Patience) -> Self {
        // A greeting comes from a server that has done nothing yet, and a command's answer from one that has searched.
        let (greeting, answer) = (patience.silence * 3 / 5, patience.silence * 3 / 2);
        Self {
            connect: patience.connect,
            greeting,
            sign_in: answer,
            command: answer,
            progress: answer,
            // However little is borne, there is time for one sign-in.
            operation: (patience.faults * 9 / 8).max(greeting + answer),
        }
    }
}

/// What the server says it can do, in upper case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offered(Vec<String>);

impl Offered {
    pub(crate) fn new(words: &[String]) -> Self {
        Self(words.iter().map(|word| word.to_ascii_uppercase()).collect())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|word| word == name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn non_sync(&self) -> NonSync {
        if self.has("LITERAL+") {
            NonSync::Always
        } else if self.has("LITERAL-") {
            NonSync::Small
        } else {
            NonSync::Never
        }
    }
}

/// The folder that is open.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    pub(crate) folder: Bytes,
    /// 0 where the server has no lasting numbering.
    pub(crate) validity: u64,
    pub(crate) exists: u64,
    /// The least UID that the next arrival can have, if the server said it when the folder was opened.
    pub(crate) next: Option<u64>,
    pub(crate) writable: bool,
    /// Whether messages can be flagged as deleted; `true` where the server does not say.
    pub(crate) can_delete: bool,
}

#[derive(Debug)]
pub(crate) enum Event {
    Untagged(Untagged),
    Done {
        tag: u64,
        status: Status,
    },
    Continue(Bytes),
    /// A literal begins that the caller wanted to stream; read it with [`Session::chunk`].
    Literal {
        size: u64,
    },
}

pub(crate) struct Session {
    reader: Reader<Stream>,
    tags: u64,
    pending: VecDeque<(u64, &'static str)>,
    pub(crate) offered: Offered,
    /// Set whenever the server tells what it offers, so that it need not be asked.
    pub(crate) offered_again: bool,
    pub(crate) selected: Option<Selected>,
    timeouts: Timeouts,
    /// When the operation as a whole must be over.
    limit: Option<Instant>,
    counters: Arc<Counters>,
    noise: u64,
    pub(crate) used: Instant,
    /// The access token that it was signed in with.
    pub(crate) token: Option<Secret>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("commands", &self.tags)
            .field("pending", &self.pending.len())
            .field("selected", &self.selected)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(stream: Stream, timeouts: Timeouts, counters: Arc<Counters>) -> Self {
        Self {
            reader: Reader::new(stream, Deadline::At(Instant::now() + timeouts.greeting)),
            tags: 0,
            pending: VecDeque::new(),
            offered: Offered::default(),
            offered_again: false,
            selected: None,
            timeouts,
            limit: None,
            counters,
            noise: 0,
            used: Instant::now(),
            token: None,
        }
    }

    /// Bounds everything that follows, until changed.
    pub(crate) fn set_limit(&mut self, limit: Option<Instant>) {
        self.limit = limit;
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// The stream with all that was read and not used: for STARTTLS, which must find nothing there.
    pub(crate) fn into_stream(self) -> (Stream, usize) {
        let (stream, rest) = self.reader.into_parts();
        (stream, rest.len())
    }

    /// Waits at most `wait` for each answer from now on.
    pub(crate) fn wait_at_most(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        self.reader.set_deadline(Deadline::At(self.limit.map_or(until, |limit| limit.min(until))));
    }

    /// Waits as long as bytes keep coming.
    pub(crate) fn wait_for_progress(&mut self) {
        self.reader.set_deadline(Deadline::progress(self.timeouts.progress));
    }

    /// Whether nothing is under way, so that the session may be put back.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.reader.is_idle()
    }

    /// The greeting: whether we are signed in already.
    pub(crate) async fn greeting(&mut self) -> Outcome<Condition> {
        self.wait_at_most(self.timeouts.greeting);
        loop {
            match self.event(|_, _| false).await? {
                Event::Untagged(Untagged::Status(status)) if status.condition == Condition::No => {
                    return Err(Failure::Refused { command: "the connection", status });
                }
                Event::Untagged(Untagged::Status(status)) if status.condition == Condition::Bad => {
                    return Err(Failure::Refused { command: "the connection", status });
                }
                Event::Untagged(Untagged::Status(status)) => return Ok(status.condition),
                Event::Untagged(_) => {}
                _ => return Err(Failure::Protocol("no greeting")),
            }
        }
    }

    /// Sends a command and returns its tag. Its answer, and those of others under way, come as events.
    pub(crate) async fn start(&mut self, command: Command) -> Outcome<u64> {
        let name = command.name;
        let literal = command.has_literal();
        let pieces = command.finish().map_err(|_| Failure::Unsendable)?;
        let non_sync = self.offered.non_sync();
        self.tags += 1;
        let tag = self.tags;
        self.pending.push_back((tag, name));
        self.noise = 0;
        self.counters.command();
        tracing::trace!(tag, name, "imap command");
        let mut line = format!("A{tag} ").into_bytes();
        for piece in pieces {
            match piece {
                Piece::Text(text) => line.extend_from_slice(&text),
                Piece::Literal(data) if non_sync.allows(data.len()) => {
                    line.extend_from_slice(format!("{{{}+}}\r\n", data.len()).as_bytes());
                    line.extend_from_slice(&data);
                }
                Piece::Literal(data) => {
                    debug_assert!(self.pending.len() == 1, "waits for the server, so nothing else may be under way");
                    line.extend_from_slice(format!("{{{}}}\r\n", data.len()).as_bytes());
                    self.send(&line).await?;
                    self.permission(tag, name).await?;
                    line = data;
                }
            }
        }
        line.extend_from_slice(b"\r\n");
        self.send(&line).await?;
        debug_assert!(!literal || !line.is_empty());
        Ok(tag)
    }

    /// Waits for the `+` that lets a literal be sent.
    async fn permission(&mut self, tag: u64, command: &'static str) -> Outcome<()> {
        loop {
            match self.event(|_, _| false).await? {
                Event::Continue(_) => return Ok(()),
                Event::Done { tag: done, status } if done == tag => {
                    return Err(match status.condition {
                        Condition::Ok => Failure::Protocol("a command was done before it was sent"),
                        _ => Failure::Refused { command, status },
                    });
                }
                _ => {}
            }
        }
    }

    /// Sends bytes as they are: the answer to a challenge.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Outcome<()> {
        let until = Instant::now() + self.timeouts.command;
        let until = self.limit.map_or(until, |limit| limit.min(until));
        let stream = self.reader.stream_mut();
        let written = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        match tokio::time::timeout_at(until, written).await {
            Err(_) => Err(Failure::Lost(ReadError::Timeout)),
            Ok(Err(error)) => Err(Failure::Lost(ReadError::Io(error))),
            Ok(Ok(())) => Ok(()),
        }
    }

    /// The next thing the server says. Answers to commands that are not ours, or are over, are dropped.
    pub(crate) async fn event(&mut self, mut stream_it: impl FnMut(&[u8], u64) -> bool) -> Outcome<Event> {
        loop {
            let before = self.reader.received();
            let response = match self.reader.next(&mut stream_it).await? {
                Frame::Literal { size } => return Ok(Event::Literal { size }),
                Frame::Response(response) => response,
            };
            match response::parse(&response) {
                Incoming::Continue(data) => return Ok(Event::Continue(data)),
                Incoming::Tagged(tag, status) => {
                    let number = tag.strip_prefix(b"A").and_then(super::wire::token::number);
                    let Some(at) = self.pending.iter().position(|(tag, _)| Some(*tag) == number) else {
                        tracing::debug!("an answer to no command of ours was dropped");
                        continue;
                    };
                    let Some((tag, _)) = self.pending.remove(at) else { continue };
                    self.note(&status);
                    self.used = Instant::now();
                    return Ok(Event::Done { tag, status });
                }
                Incoming::Untagged(untagged) => {
                    match &untagged {
                        Untagged::Status(status) if status.condition == Condition::Bye && !self.is_leaving() => {
                            return Err(Failure::Bye(status.clone()));
                        }
                        Untagged::Status(status) => self.note(status),
                        Untagged::Capability(words) => self.offer(words),
                        Untagged::Exists(n) => {
                            if let Some(selected) = &mut self.selected {
                                selected.exists = *n;
                            }
                        }
                        _ => {}
                    }
                    self.noise += self.reader.received() - before;
                    if matches!(untagged, Untagged::Fetch(_) | Untagged::Search(_) | Untagged::List(_)) {
                        self.noise = 0;
                    }
                    if self.noise > MAX_NOISE {
                        return Err(Failure::Protocol("far more than was asked for"));
                    }
                    return Ok(Event::Untagged(untagged));
                }
            }
        }
    }

    /// The next piece of a literal that is being streamed.
    pub(crate) async fn chunk(&mut self) -> Outcome<Option<Bytes>> {
        Ok(self.reader.chunk().await?)
    }

    fn is_leaving(&self) -> bool {
        self.pending.iter().any(|(_, name)| *name == "LOGOUT")
    }

    fn offer(&mut self, words: &[String]) {
        self.offered = Offered::new(words);
        self.offered_again = true;
    }

    /// Codes change what we know of the server whatever they stand in.
    fn note(&mut self, status: &Status) {
        match &status.code {
            Some(Code::Capability(words)) => self.offer(words),
            Some(Code::Closed) => self.selected = None,
            // Outside SELECT this means that the numbering changed under us; the next use must notice.
            Some(Code::UidValidity(now)) if self.selected.as_ref().is_some_and(|open| open.validity != *now) => {
                self.selected = None;
            }
            _ => {}
        }
    }

    /// Sends a command and waits for its end; `on` gets all that comes in between. NO and BAD are errors.
    pub(crate) async fn run(&mut self, command: Command, on: impl FnMut(Untagged)) -> Outcome<Status> {
        let name = command.name;
        self.wait_at_most(self.timeouts.command);
        let tag = self.start(command).await?;
        self.finish(tag, name, on).await
    }

    pub(crate) async fn finish(
        &mut self,
        tag: u64,
        command: &'static str,
        mut on: impl FnMut(Untagged),
    ) -> Outcome<Status> {
        loop {
            match self.event(|_, _| false).await? {
                Event::Untagged(untagged) => on(untagged),
                Event::Done { tag: done, status } if done == tag => return checked(command, status),
                Event::Continue(_) => return Err(Failure::Protocol("a prompt where none was expected")),
                Event::Done { .. } | Event::Literal { .. } => {}
            }
        }
    }

    pub(crate) async fn capability(&mut self) -> Outcome<()> {
        self.offered = Offered::default();
        self.run(Command::new("CAPABILITY"), |_| {}).await?;
        if self.offered.is_empty() {
            return Err(Failure::Protocol("no capabilities"));
        }
        Ok(())
    }

    /// Opens a folder unless it is open, for writing if asked. Reading leaves no trace in the folder.
    pub(crate) async fn open(&mut self, folder: &Bytes, write: bool) -> Outcome<Selected> {
        if let Some(open) = &self.selected
            && open.folder == *folder
            && (open.writable || !write)
        {
            return Ok(open.clone());
        }
        // Whatever happens now, the old folder is closed.
        self.selected = None;
        let name = if write { "SELECT" } else { "EXAMINE" };
        let mut selected =
            Selected { folder: folder.clone(), validity: 0, exists: 0, next: None, writable: write, can_delete: true };
        let opened = self
            .run(Command::new(name).string(folder), |untagged| match untagged {
                Untagged::Exists(n) => selected.exists = n,
                Untagged::Status(Status { code: Some(code), .. }) => match code {
                    Code::UidValidity(n) => selected.validity = n,
                    // Numbers that do not last are as good as none.
                    Code::UidNotSticky => selected.validity = 0,
                    Code::UidNext(n) => selected.next = Some(n),
                    Code::PermanentFlags(flags) => {
                        selected.can_delete = flags.iter().any(|flag| flag.eq_ignore_ascii_case("\\Deleted"));
                    }
                    Code::ReadOnly => selected.writable = false,
                    _ => {}
                },
                _ => {}
            })
            .await;
        let status = match opened {
            Err(Failure::Refused { status, .. }) if self.is_missing(folder, &status).await? => {
                return Err(Failure::NoFolder { name: super::wire::utf7::decode(folder) });
            }
            opened => opened?,
        };
        match status.code {
            Some(Code::ReadOnly) => selected.writable = false,
            Some(Code::UidValidity(n)) => selected.validity = n,
            _ => {}
        }
        self.selected = Some(selected.clone());
        Ok(selected)
    }

    /// Opens a folder for reading as it is now. In one that is open already, the server tells of arrivals and losses
    /// only when it is asked for something.
    pub(crate) async fn look_again(&mut self, folder: &Bytes, write: bool) -> Outcome<Selected> {
        let commands = self.tags;
        self.open(folder, write).await?;
        if self.tags == commands {
            self.run(Command::new("NOOP"), |_| {}).await?;
        }
        // It may have been closed under us just now.
        self.open(folder, write).await
    }

    /// Whether a folder was refused because it is not there. Many servers say so in words only.
    pub(crate) async fn is_missing(&mut self, folder: &Bytes, status: &Status) -> Outcome<bool> {
        match status.code {
            Some(Code::TryCreate | Code::NonExistent) => return Ok(true),
            None | Some(Code::Other(_)) if status.condition == Condition::No => {}
            _ => return Ok(false),
        }
        let mut exists = false;
        self.run(Command::new("LIST").raw("\"\"").string(folder), |untagged| {
            exists |= matches!(untagged, Untagged::List(entry) if !entry.has("\\nonexistent"));
        })
        .await?;
        Ok(!exists)
    }

    /// Whether the session is still good after some idle time: nothing bad has come in, and, after long idling,
    /// the server still answers.
    pub(crate) async fn still_good(&mut self, ask_after: Duration) -> bool {
        use futures::FutureExt as _;
        self.wait_at_most(Duration::from_secs(5));
        loop {
            match self.event(|_, _| false).now_or_never() {
                None => break,
                Some(Ok(_)) => {}
                Some(Err(_)) => return false,
            }
        }
        // Half a line that was waiting is lost with the poll that read it.
        if !self.is_idle() {
            return false;
        }
        if self.used.elapsed() < ask_after {
            return true;
        }
        let Ok(tag) = self.start(Command::new("NOOP")).await else { return false };
        self.wait_at_most(Duration::from_secs(10));
        self.finish(tag, "NOOP", |_| {}).await.is_ok()
    }

    /// Says goodbye. What the server answers does not matter any more.
    pub(crate) async fn logout(mut self) {
        self.wait_at_most(Duration::from_secs(3));
        let _ = self.run_short(Command::new("LOGOUT")).await;
        let _ = self.reader.stream_mut().shutdown().await;
    }

    async fn run_short(&mut self, command: Command) -> Outcome<Status> {
        let name = command.name;
        let tag = self.start(command).await?;
        self.finish(tag, name, |_| {}).await
    }
}

/// NO and BAD are errors, for every command.
pub(crate) fn checked(command: &'static str, status: Status) -> Outcome<Status> {
    match status.condition {
        Condition::Ok => Ok(status),
        _ => Err(Failure::Refused { command, status }),
    }
}
