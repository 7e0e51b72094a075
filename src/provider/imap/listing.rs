//! The messages of a folder, oldest received first.
//!
//! A task finds out what there is (`facts.rs`), then fetches: small messages whole, in sets, two sets in flight; large
//! ones one by one through `large`. It runs ahead of its consumer by a bounded number of bytes. When the consumer does
//! not keep up and somebody else waits for the connection, it reads what is nearly there and lets go, or drops the
//! connection and asks for the rest again later.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::{
    evidence::{self, Evidence},
    facts::{self, Facts},
    failure::{Failure, Outcome},
    handle::{Handle, folder_id, folder_name},
    large,
    pool::{Attempts, Lease, Shared},
    session::{Event, Session, checked},
    whole,
    wire::{
        encode::Command,
        fetch::{Data, Fetch},
        reader::ReadError,
        response::Untagged,
        uidset::{self, Cut},
    },
};
use crate::{Defect, FolderId, Hints, Message, MessageId, Query, Result, mime, mime::Source};

/// Content that may wait for the consumer.
const AHEAD: usize = 8 << 20;
/// In permits of this many bytes, because a semaphore counts in 32 bits.
const UNIT: usize = 1 << 10;
/// What is still read when somebody waits for the connection; more than that is asked for again later.
const NEARLY: u64 = 8 << 20;
/// Structures in one command.
const STRUCTURES: usize = 20;
/// Single messages that a server may refuse in a row before that is taken for a failure of the account.
const MAX_REFUSED: usize = 3;

pub(crate) struct Listing {
    shared: Arc<Shared>,
    start: Option<(FolderId, Query)>,
    running: Option<(mpsc::UnboundedReceiver<Item>, AbortOnDropHandle<()>)>,
    /// Of the message given last; giving the next means that the consumer is done with it.
    held: Option<OwnedSemaphorePermit>,
}

type Item = (Result<Message>, Option<OwnedSemaphorePermit>);

impl Listing {
    pub(crate) fn new(shared: &Arc<Shared>, folder: &FolderId, query: Query) -> Self {
        Self { shared: Arc::clone(shared), start: Some((folder.clone(), query)), running: None, held: None }
    }
}

impl Stream for Listing {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some((folder, query)) = self.start.take() {
            let (send, receive) = mpsc::unbounded_channel();
            let lister = Lister::new(&self.shared, &folder, query, send);
            self.running = Some((receive, AbortOnDropHandle::new(tokio::spawn(lister.run()))));
        }
        self.held = None;
        let Some((items, _)) = &mut self.running else { return Poll::Ready(None) };
        match items.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some((item, permit))) => {
                self.held = permit;
                if item.is_err() {
                    self.running = None;
                }
                Poll::Ready(Some(item))
            }
            Poll::Ready(None) => {
                self.running = None;
                Poll::Ready(None)
            }
        }
    }
}

struct Lister {
    shared: Arc<Shared>,
    folder: Bytes,
    folder_id: FolderId,
    epoch: String,
    query: Query,
    send: mpsc::UnboundedSender<Item>,
    room: Arc<Semaphore>,
    plan: VecDeque<Facts>,
    /// How many may still be given.
    left: usize,
    refused: usize,
    whole_up_to: u64,
    sets: Cut,
}

/// Why a stretch of work ended early.
enum Stop {
    /// Nobody listens any more.
    Closed,
    /// The connection is wanted by somebody else.
    LetGo,
}

impl Lister {
    fn new(shared: &Arc<Shared>, folder: &FolderId, query: Query, send: mpsc::UnboundedSender<Item>) -> Self {
        // Messages of a few attachments that come along anyway are cheapest whole.
        let whole_up_to = (query.inline_up_to.saturating_mul(4)).clamp(128 << 10, 4 << 20);
        // A connection that is shared with downloads and moves is kept for a shorter time.
        let bytes = if shared.settings.connections > 1 { 32 << 20 } else { 8 << 20 };
        Self {
            shared: Arc::clone(shared),
            folder: folder_name(folder),
            folder_id: folder_id(&folder_name(folder)),
            epoch: String::new(),
            left: query.limit.unwrap_or(usize::MAX),
            query,
            send,
            room: Arc::new(Semaphore::new(AHEAD / UNIT)),
            plan: VecDeque::new(),
            refused: 0,
            whole_up_to,
            sets: Cut { count: 200, bytes, line: uidset::MAX_SET },
        }
    }

    async fn run(mut self) {
        if let Err(error) = self.list().await {
            let error = self.shared.place(error, "fetch_messages");
            let _ = self.send.send((Err(error), None));
        }
    }

    async fn list(&mut self) -> Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        self.find().await?;
        while self.left > 0 {
            self.choose();
            let Some(next) = self.plan.front() else { return Ok(()) };
            // No connection is held while the consumer catches up.
            let Ok(room) = Arc::clone(&self.room).acquire_owned().await else { return Ok(()) };
            drop(room);
            let done = match (next.odd, self.is_small(next)) {
                (true, _) => self.odd().await?,
                (false, true) => self.small().await?,
                (false, false) => self.large().await?,
            };
            if let Some(Stop::Closed) = done {
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_small(&self, facts: &Facts) -> bool {
        facts.size.is_some_and(|size| size <= self.whole_up_to)
    }

    fn id(&self, uid: u64) -> MessageId {
        self.handle(uid).id()
    }

    fn handle(&self, uid: u64) -> Handle {
        Handle { folder: self.folder.clone(), epoch: self.epoch.clone(), uid }
    }

    /// Drops what the caller does not want from the front of the plan; it is asked once for each message.
    fn choose(&mut self) {
        while let Some(next) = self.plan.front_mut() {
            if next.wanted {
                return;
            }
            next.wanted = true;
            let uid = next.uid;
            if !self.query.skips(&self.id(uid)) {
                return;
            }
            self.plan.pop_front();
        }
    }

    /// Fixes the set of messages.
    async fn find(&mut self) -> Result<()> {
        let mut attempts = self.shared.attempts();
        loop {
            let mut lease = attempts.lease(Some(&self.folder)).await?;
            match self.find_on(&mut lease).await {
                Ok(plan) => {
                    lease.done();
                    self.plan = plan;
                    return Ok(());
                }
                Err(failure) => attempts.failed(lease, failure).await?,
            }
        }
    }

    async fn find_on(&mut self, session: &mut Session) -> Outcome<VecDeque<Facts>> {
        let open = session.look_again(&self.folder, false).await?;
        self.epoch = self.shared.epoch(open.validity);
        facts::search(session, &self.query).await
    }

    async fn open(&self, session: &mut Session) -> Outcome<()> {
        let open = session.open(&self.folder, false).await?;
        if self.shared.epoch(open.validity) != self.epoch {
            return Err(Failure::Voided);
        }
        Ok(())
    }

    fn shell(&self, facts: &Facts) -> Message {
        let received = facts.received.unwrap_or(Timestamp::UNIX_EPOCH);
        let mut shell = Message::new(self.id(facts.uid), self.folder_id.clone(), received);
        shell.is_read = facts.seen;
        shell.hints = Hints::new(None, facts.size);
        shell
    }

    /// Gives a message to the consumer, in whose memory it then is. With `or_let_go`, comes back with it when somebody
    /// waits for the connection meanwhile.
    async fn give(&mut self, facts: &Facts, mut message: Message, or_let_go: bool) -> Result<(), (Stop, Box<Message>)> {
        if let Some(wanted) = self.query.internet_message_id.as_deref().and_then(evidence::normal_id)
            && message.internet_message_id.as_deref().and_then(evidence::normal_id) != Some(wanted)
        {
            return Ok(());
        }
        if facts.received.is_none()
            && let Some(sent) = message.sent
        {
            message.received = sent;
        }
        let bytes = usize::try_from(message.inline_bytes()).unwrap_or(usize::MAX).saturating_add(2 * UNIT);
        let units = (bytes.min(AHEAD) / UNIT) as u32;
        let room = Arc::clone(&self.room);
        let shared = Arc::clone(&self.shared);
        let permit = tokio::select! {
            biased;
            permit = room.acquire_many_owned(units) => permit.ok(),
            () = shared.somebody_waits(), if or_let_go => return Err((Stop::LetGo, Box::new(message))),
        };
        if self.send.send((Ok(message), permit)).is_err() {
            self.left = 0;
            return Err((Stop::Closed, Box::new(self.shell(facts))));
        }
        self.left -= 1;
        Ok(())
    }

    /// A stretch of small messages, in sets, two in flight.
    async fn small(&mut self) -> Result<Option<Stop>> {
        let mut attempts = self.shared.attempts();
        loop {
            let mut lease = attempts.lease(Some(&self.folder)).await?;
            let before = self.plan.len();
            match self.small_on(&mut lease).await {
                Ok(Work { stop, usable, parsed }) => {
                    if usable {
                        lease.done();
                    } else {
                        drop(lease);
                    }
                    // What was read and not yet given, now without holding the connection.
                    for (facts, message) in parsed {
                        if self.left == 0 {
                            return Ok(None);
                        }
                        if self.give(&facts, message, false).await.is_err() {
                            return Ok(Some(Stop::Closed));
                        }
                    }
                    return Ok(stop);
                }
                Err(Abort::Failure(failure)) => {
                    if self.plan.len() < before {
                        attempts.progressed();
                    }
                    self.small_failed(&mut attempts, lease, failure).await?;
                }
                Err(Abort::Error(error)) => return Err(error),
            }
        }
    }

    /// A set that was refused, or answered with bytes that are no answer, is tried message by message, to find the one
    /// that the server cannot give.
    async fn small_failed(&mut self, attempts: &mut Attempts, lease: Lease, failure: Failure) -> Result<()> {
        if is_of_the_message(&failure) {
            lease.end(&failure);
            for facts in self.plan.iter_mut().take(self.sets.count) {
                facts.odd = true;
            }
            return Ok(());
        }
        attempts.failed(lease, failure).await
    }

    /// The next set: consecutive small messages of the plan from `from` on, as many as fit one command.
    fn next_set(&mut self, from: usize, room: usize) -> usize {
        let mut sized: Vec<(u64, u64)> = Vec::new();
        let mut at = from;
        while at < self.plan.len() && sized.len() < self.sets.count.min(room) {
            let facts = &mut self.plan[at];
            if facts.odd || facts.size.is_none_or(|size| size > self.whole_up_to) {
                break;
            }
            if !facts.wanted {
                facts.wanted = true;
                let uid = facts.uid;
                if self.query.skips(&self.id(uid)) {
                    self.plan.remove(at);
                    continue;
                }
            }
            let facts = &self.plan[at];
            sized.push((facts.uid, facts.size.unwrap_or(0)));
            at += 1;
        }
        // Cut as if in UID order, in which they are asked for; the plan's order is the same almost always.
        uidset::cut(&sized, self.sets)
    }

    async fn small_on(&mut self, session: &mut Session) -> Result<Work, Abort> {
        self.open(session).await?;
        let mut flight = Flight::default();
        let mut holding: Vec<(Facts, Message)> = Vec::new();
        let mut overflow = false;
        loop {
            // Two sets on their way, unless the consumer has enough or somebody waits.
            while flight.sets.len() < 2
                && !overflow
                && !(flight.sets.is_empty() && flight.started && self.shared.is_wanted())
                && self.left > flight.order.len()
                && (flight.sets.is_empty() || self.room.available_permits() > 0)
            {
                let ahead = flight.order.len();
                let count = self.next_set(ahead, self.left - ahead);
                if count == 0 {
                    break;
                }
                let set: Vec<u64> = self.plan.iter().skip(ahead).take(count).map(|f| f.uid).collect();
                self.ask(session, &mut flight, set).await?;
            }
            if flight.sets.is_empty() {
                break;
            }
            match session.event(|_, _| false).await? {
                Event::Untagged(Untagged::Fetch(fetch)) => flight.take(*fetch, &self.plan),
                Event::Done { tag, status } => {
                    let Some(at) = flight.sets.iter().position(|(t, _)| *t == tag) else { continue };
                    let (_, set) = flight.sets.remove(at);
                    checked("UID FETCH", status)?;
                    flight.over.extend(set);
                }
                Event::Continue(_) => return Err(Failure::Protocol("a prompt where none was expected").into()),
                _ => {}
            }
            while let Some(uid) = flight.order.front().copied() {
                let Some(fetched) = flight.got.remove(&uid) else {
                    if !flight.over.contains(&uid) {
                        break;
                    }
                    // Its set is over and it did not come, or came in a form that cannot be read.
                    break;
                };
                let Some(facts) = self.plan.pop_front() else { break };
                flight.order.pop_front();
                flight.over.remove(&uid);
                flight.expected = flight.expected.saturating_sub(facts.size.unwrap_or(0));
                let message = self.parse(&facts, fetched).await?;
                self.refused = 0;
                if overflow {
                    holding.push((facts, message));
                    continue;
                }
                match self.give(&facts, message, true).await {
                    Ok(()) => {}
                    Err((Stop::Closed, _)) => {
                        return Ok(Work { stop: Some(Stop::Closed), usable: false, parsed: Vec::new() });
                    }
                    Err((Stop::LetGo, message)) => {
                        holding.push((facts, *message));
                        if flight.expected > NEARLY {
                            return Ok(Work { stop: Some(Stop::LetGo), usable: false, parsed: holding });
                        }
                        overflow = true;
                    }
                }
            }
        }
        self.settle_missing(session, flight, &mut holding).await?;
        Ok(Work { stop: None, usable: true, parsed: holding })
    }

    async fn ask(&self, session: &mut Session, flight: &mut Flight, mut set: Vec<u64>) -> Outcome<()> {
        flight.order.extend(&set);
        flight.started = true;
        let sizes = self.plan.iter().skip(flight.order.len() - set.len()).take(set.len());
        flight.expected += sizes.map(|f| f.size.unwrap_or(0)).sum::<u64>();
        set.sort_unstable();
        session.wait_for_progress();
        let tag = session.start(Command::new("UID FETCH").set(&set).raw("(UID BODY.PEEK[])")).await?;
        flight.sets.push((tag, set));
        Ok(())
    }

    /// Messages that did not come though their set is over: gone, or in a form that needs another way.
    async fn settle_missing(
        &mut self,
        session: &mut Session,
        mut flight: Flight,
        holding: &mut Vec<(Facts, Message)>,
    ) -> Result<(), Abort> {
        if flight.order.is_empty() {
            return Ok(());
        }
        let mut missing: Vec<u64> = flight.order.iter().copied().filter(|uid| !flight.got.contains_key(uid)).collect();
        missing.sort_unstable();
        let here = evidence::present(session, &missing).await?;
        let gone: HashSet<u64> = missing.into_iter().filter(|uid| !here.contains(uid)).collect();
        while let Some(uid) = flight.order.pop_front() {
            if gone.contains(&uid) {
                self.plan.pop_front();
            } else if let Some(fetched) = flight.got.remove(&uid) {
                let Some(facts) = self.plan.pop_front() else { break };
                let message = self.parse(&facts, fetched).await?;
                holding.push((facts, message));
            } else {
                if let Some(facts) = self.plan.front_mut() {
                    facts.odd = true;
                }
                // Those behind it are asked for again, in their turn: that costs less than keeping them.
                break;
            }
        }
        Ok(())
    }

    async fn parse(&self, facts: &Facts, raw: Bytes) -> Result<Message> {
        let shell = self.shell(facts);
        let id = shell.id.clone();
        let header = evidence::header_hash_if_anonymous(&raw);
        let message = mime::read(&Source::Bytes(raw), shell, &self.query, &self.shared.settings.info.name).await?;
        self.note(facts, &id, &message, header);
        Ok(message)
    }

    fn note(&self, facts: &Facts, id: &MessageId, message: &Message, header: Option<[u8; 32]>) {
        let message_id = message.internet_message_id.as_deref().and_then(evidence::normal_id);
        if message_id.is_none() && header.is_none() {
            // Nothing to recognise it by; a move will ask the server.
            return;
        }
        let evidence = Evidence { header, message_id, size: facts.size, date: facts.received };
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner).note(id, evidence);
    }

    /// A stretch of large messages: their structures together, then each by itself.
    async fn large(&mut self) -> Result<Option<Stop>> {
        let run: Vec<u64> = self
            .plan
            .iter()
            .take_while(|f| !f.odd && !self.is_small(f))
            .take(STRUCTURES.min(self.left))
            .map(|f| f.uid)
            .collect();
        let mut sorted = run.clone();
        sorted.sort_unstable();
        let mut attempts = self.shared.attempts();
        let mut structures = loop {
            let mut lease = attempts.lease(Some(&self.folder)).await?;
            let found = match self.open(&mut lease).await {
                Ok(()) => large::structures(&mut lease, &sorted).await,
                Err(failure) => Err(failure),
            };
            match found {
                Ok(found) => {
                    lease.done();
                    break found;
                }
                Err(failure) if is_of_the_message(&failure) => {
                    // Some server cannot tell the structure of one of them; each will be read whole.
                    lease.end(&failure);
                    break HashMap::new();
                }
                Err(failure) => attempts.failed(lease, failure).await?,
            }
        };
        for uid in run {
            self.choose();
            match self.plan.front() {
                Some(next) if next.uid == uid => {}
                // The caller did not want it.
                Some(_) => continue,
                None => return Ok(None),
            }
            let fetched = structures.remove(&uid).unwrap_or_default();
            if let Some(stop) = self.one(&fetched).await? {
                return Ok(Some(stop));
            }
            if self.left == 0 {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// A message that could not be read in a set.
    async fn odd(&mut self) -> Result<Option<Stop>> {
        self.one(&Fetch::default()).await
    }

    /// The first message of the plan, by its structure if that does, else whole.
    async fn one(&mut self, fetched: &Fetch) -> Result<Option<Stop>> {
        let Some(facts) = self.plan.front().cloned() else { return Ok(None) };
        let found = one(&self.shared, &self.handle(facts.uid), fetched, self.shell(&facts), &self.query).await?;
        self.plan.pop_front();
        let message = match found {
            One::Gone => return Ok(None),
            One::Message(message) => {
                self.refused = 0;
                *message
            }
            One::Refused(message, error) => {
                self.refused += 1;
                if self.refused >= MAX_REFUSED {
                    return Err(error);
                }
                *message
            }
        };
        self.note(&facts, &message.id, &message, None);
        // No connection is held here, so there is none to let go of.
        match self.give(&facts, message, false).await {
            Ok(()) => Ok(None),
            Err((stop, _)) => Ok(Some(stop)),
        }
    }
}

enum Abort {
    Failure(Failure),
    Error(crate::Error),
}

impl From<Failure> for Abort {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<crate::Error> for Abort {
    fn from(error: crate::Error) -> Self {
        Self::Error(error)
    }
}

/// What became of a stretch of small messages.
struct Work {
    stop: Option<Stop>,
    /// Whether the connection was read to the end of all answers.
    usable: bool,
    /// Read, and not yet given to the consumer.
    parsed: Vec<(Facts, Message)>,
}

/// Sets that have been asked for.
#[derive(Default)]
struct Flight {
    sets: Vec<(u64, Vec<u64>)>,
    /// UIDs in the plan's order: its first so many.
    order: VecDeque<u64>,
    got: HashMap<u64, Bytes>,
    /// UIDs whose set is over.
    over: HashSet<u64>,
    expected: u64,
    started: bool,
}

impl Flight {
    fn take(&mut self, fetch: Fetch, plan: &VecDeque<Facts>) {
        let Some(uid) = fetch.uid else { return };
        let Some(at) = self.order.iter().position(|asked| *asked == uid) else { return };
        let Some(Data::Bytes(bytes)) = fetch.section("").map(|section| section.data.clone()) else { return };
        // An empty answer for a message that has a size is none.
        let empty = bytes.is_empty() && plan.get(at).is_some_and(|facts| facts.size != Some(0));
        if !fetch.damaged && !empty {
            self.got.insert(uid, bytes);
        }
    }
}

/// Whether a failure may be that of one message, so that asking in another way may avoid it.
fn is_of_the_message(failure: &Failure) -> bool {
    match failure {
        Failure::Lost(ReadError::Framing(_)) => true,
        Failure::Refused { .. } => {
            failure.leaves_session_usable() && !failure.is_worth_another_try() && failure.asked_pause().is_none()
        }
        _ => false,
    }
}

pub(crate) enum One {
    Gone,
    Message(Box<Message>),
    /// The server does not give this one: a message that cannot be read, and the server's reason.
    Refused(Box<Message>, crate::Error),
}

/// One message on its own.
async fn one(shared: &Arc<Shared>, handle: &Handle, fetched: &Fetch, shell: Message, query: &Query) -> Result<One> {
    let mut attempts = shared.attempts();
    while fetched.structure.is_some() {
        let mut lease = attempts.lease(Some(&handle.folder)).await?;
        let read = async {
            let open = lease.open(&handle.folder, false).await?;
            if shared.epoch(open.validity) != handle.epoch {
                return Err(Failure::Voided);
            }
            large::read(&mut lease, shared, handle, fetched, &shell, query).await
        };
        match read.await {
            Ok(Some(message)) => {
                lease.done();
                return Ok(One::Message(Box::new(message)));
            }
            Ok(None) => {
                lease.done();
                break;
            }
            Err(failure) if is_of_the_message(&failure) => {
                lease.end(&failure);
                break;
            }
            Err(failure) => attempts.failed(lease, failure).await?,
        }
    }
    match whole::fetch(shared, handle.clone()).await {
        Ok(whole) => {
            let message = mime::read(&whole.source, shell, query, &shared.settings.info.name).await?;
            Ok(One::Message(Box::new(message)))
        }
        // With a code it is the folder that is gone, or its numbering: that is more than one message.
        Err(error) if error.kind() == crate::ErrorKind::NotFound && error.code().is_none() => Ok(One::Gone),
        // The server's own trouble with this message, such as one that it cannot convert.
        Err(error) if matches!(error.kind(), crate::ErrorKind::Other | crate::ErrorKind::Malformed) => {
            let mut message = shell;
            message.defects.push(Defect::Unreadable);
            Ok(One::Refused(Box::new(message), error))
        }
        Err(error) => Err(error),
    }
}

/// One message by its handle.
pub(crate) async fn fetch_message(shared: &Arc<Shared>, id: &MessageId) -> Result<Message> {
    let handle = Handle::parse(id)?;
    let (send, _receive) = mpsc::unbounded_channel();
    let mut lister = Lister::new(shared, &folder_id(&handle.folder), Query::default(), send);
    lister.epoch.clone_from(&handle.epoch);
    let not_found = || crate::Error::new(crate::ErrorKind::NotFound, "the message is no longer in its folder");
    let mut attempts = shared.attempts();
    let (facts, fetched) = loop {
        let mut lease = attempts.lease(Some(&handle.folder)).await?;
        let found = async {
            lister.open(&mut lease).await?;
            let mut facts = facts::of(&mut lease, &[handle.uid]).await?;
            let facts = facts.pop();
            match facts {
                Some(facts) if !lister.is_small(&facts) => {
                    let mut found = large::structures(&mut lease, &[handle.uid]).await?;
                    Ok((Some(facts), found.remove(&handle.uid).unwrap_or_default()))
                }
                facts => Ok((facts, Fetch::default())),
            }
        };
        match found.await {
            Ok(found) => {
                lease.done();
                break found;
            }
            Err(failure) => {
                attempts.failed(lease, failure).await?;
            }
        }
    };
    let Some(facts) = facts else { return Err(not_found()) };
    match one(shared, &handle, &fetched, lister.shell(&facts), &lister.query).await? {
        One::Gone => Err(not_found()),
        One::Message(message) | One::Refused(message, _) => {
            lister.note(&facts, id, &message, None);
            let mut message = *message;
            if facts.received.is_none()
                && let Some(sent) = message.sent
            {
                message.received = sent;
            }
            Ok(message)
        }
    }
}
