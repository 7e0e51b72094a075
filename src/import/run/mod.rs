//! One run on one mailbox, read top to bottom.
//!
//! One loop owns all state. Everything slow goes on beside it, in tasks: the listing (ahead of the handlers, as far as
//! the prefetch budget goes), the handlers, and one batch of moves at a time. The loop takes in what they have
//! finished, decides about the next messages, writes all of that to the ledger in one commit, and only then lets the
//! consequences begin: a hand-over after its claim is durable, a move after its outcome is.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | the state, and the loop |
//! | `open.rs` | folders, memory, lease, listing: before anything is handed over |
//! | `next.rs` | which message comes next |
//! | `judge.rs` | what to do with it |
//! | `deliver.rs` | handing it over |
//! | `settle.rs` | how that ended |
//! | `moves.rs` | moving what is settled |
//! | `left.rs` | the end |

mod deliver;
mod judge;
mod left;
mod moves;
mod next;
mod open;
mod settle;

use std::{
    any::Any,
    collections::{HashMap, HashSet, VecDeque},
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{OnceCell, OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    handler::{Delivered, Delivery, Earlier, Handler, HandlerError, Opener, Outcome, file_names, message_folder},
    identity::{Digest, Evidence, Fingerprints, MessageKey, Relation, comparable, same, same_without_message_id},
    job::{ImportJob, Since},
    lease::Held,
    reason::Reason,
    report::{AccountReport, Event, EventSink, FAILURES_LISTED, Fate, MessageRecord, RunError, Status},
};
use left::without_content;
use settle::{settled_reason, shorten};

use crate::{
    Access, Attachment, AttachmentId, AttachmentKind, Content, Context, Defect, Error, ErrorKind, Folder, FolderId,
    FolderSpec, MailAccount, Message, MessageId, MoveOutcome, Query, Result,
    store::{Find, Ledger, Place, Recorded, Row, Scope, Step},
};

/// A message that was in hand when so many runs died is handed out last and alone: it may be what kills them.
const DEATHS_BEFORE_LAST: u32 = 5;
/// So many failures in a row, on different messages, are the host's trouble and not the messages'.
const ERRORS_IN_A_ROW: usize = 5;
/// How long a settled message waits for others to be moved with.
const MOVE_DELAY: Duration = Duration::from_secs(2);
/// How many messages may wait for a handler, whatever their size.
const PREFETCH_MESSAGES: usize = 256;
/// After the limit is reached, so much more is counted as left; the rest is not looked at.
const LOOK_AHEAD: usize = 256;
/// Rows in one commit.
const BATCH: usize = 256;
const DAY: i64 = 24 * 60 * 60;

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Records what is new, hands nothing over.
    Fetch,
    /// Hands over what is recorded, looks for nothing new.
    Process,
    /// Both.
    Both,
}

/// What all accounts of one run of a job share.
pub(super) struct Shared {
    pub(super) job: Arc<ImportJob>,
    pub(super) ledger: Arc<dyn Ledger>,
    /// Only a run that hands nothing over has none.
    pub(super) handler: Option<Arc<dyn Handler>>,
    pub(super) context: Context,
    pub(super) events: Option<EventSink>,
    pub(super) stop: CancellationToken,
    /// Hand-overs still allowed.
    pub(super) limit: Option<AtomicI64>,
    /// The prefetch budget, in KiB.
    pub(super) budget: Arc<Semaphore>,
    pub(super) budget_kib: u32,
    pub(super) mode: Mode,
}

/// Runs one job on one mailbox.
pub(super) async fn run(shared: &Shared, account: Arc<dyn MailAccount>) -> Result<AccountReport, RunError> {
    let info = account.mailbox().clone();
    let before = account.usage().requests;
    let mut run = Run {
        shared,
        scope: Scope::new(&shared.job.name, &info.name),
        report: AccountReport::new(&info.account, &info.provider, &info.name),
        me: info.account,
        account,
        import: FolderId::new(""),
        processed: None,
        failed: None,
        lease: None,
        pending: HashMap::new(),
        known: Known::default(),
        retries: VecDeque::new(),
        listing: None,
        incoming: VecDeque::new(),
        unseen: None,
        held: VecDeque::new(),
        later: VecDeque::new(),
        last: VecDeque::new(),
        batch: Vec::new(),
        in_hand: HashMap::new(),
        tasks: JoinSet::new(),
        serial: 0,
        suspects: Vec::new(),
        to_move: VecDeque::new(),
        moving: JoinSet::new(),
        ended: Vec::new(),
        moved: Vec::new(),
        oldest_move: None,
        ending: None,
    };
    run.emit(Event::Started { account: run.me.clone() });
    let mut result = run.drive().await;
    if result.is_err() {
        run.abandon().await;
    }
    if let Some(held) = run.lease.take()
        && let Err(error) = held.release().await
        && result.is_ok()
    {
        result = Err(error);
    }
    run.report.requests = run.account.usage().requests.saturating_sub(before);
    debug_assert!(run.report.counts.closes(), "{:?}", run.report.counts);
    let (me, sink) = (run.me, shared.events.clone());
    let report = run.report;
    let status = if result.is_err() { Status::Error } else { report.status };
    if let Some(sink) = sink {
        sink(&Event::Finished { account: me.clone(), status });
    }
    match result {
        Ok(()) => Ok(report),
        Err(error) => {
            let error = error.with_account(me).with_provider(report.provider.clone());
            Err(RunError::new(error, report))
        }
    }
}

struct Run<'a> {
    shared: &'a Shared,
    account: Arc<dyn MailAccount>,
    /// The account's identifier.
    me: String,
    scope: Scope,
    report: AccountReport,
    import: FolderId,
    processed: Option<Folder>,
    failed: Option<Folder>,
    lease: Option<Held>,
    /// Rows that are to be seen to and that this run has not met yet, with when they were received. There may be very
    /// many, so each is read when its turn comes.
    pending: HashMap<RowName, Timestamp>,
    /// Handles whose content the listing need not fetch.
    known: Known,
    /// Rows that a person asked another try for, and that do not lie in the import folder.
    retries: VecDeque<RowName>,
    listing: Option<Listing>,
    incoming: VecDeque<Listed>,
    /// Once the listing is over: the pending rows it did not show, the oldest first.
    unseen: Option<VecDeque<(Timestamp, RowName)>>,
    /// Messages whose key is in hand.
    held: VecDeque<(MessageKey, Candidate)>,
    /// Messages at which an earlier run stopped. They come after the others, so that a few that the host can never
    /// take do not keep it from all the rest.
    later: VecDeque<Candidate>,
    /// Messages that may have killed earlier runs.
    last: VecDeque<Candidate>,
    /// What the next commit writes, with what follows from it.
    batch: Vec<(Option<Row>, Effect)>,
    in_hand: HashMap<u64, InHand>,
    tasks: JoinSet<(u64, Ended)>,
    serial: u64,
    /// Failures in a row that are not recorded yet: they may turn out to be the host's.
    suspects: Vec<(Reason, InHand)>,
    to_move: VecDeque<ToMove>,
    moving: JoinSet<Moved>,
    /// Finished tasks that `wait` came across.
    ended: Vec<(u64, Ended)>,
    moved: Vec<Moved>,
    oldest_move: Option<Instant>,
    /// Why nothing more is handed over.
    ending: Option<Ending>,
}

type RowName = (MessageKey, u32);

fn name(row: &Row) -> RowName {
    (row.key.clone(), row.discriminator)
}

/// Whether it waits for another attempt whose time has not come.
fn is_idle(row: &Row, now: Timestamp) -> bool {
    row.step == Step::Waiting && !row.retry && row.next_attempt.is_some_and(|at| at > now)
}

enum Ending {
    /// The hand-overs that were allowed are used up.
    Limit,
    /// The host wants to stop, or should.
    Stopped(Reason),
    /// The account, or the lease, is of no more use.
    Failed(Error),
}

/// A message that may have to be handed over.
struct Candidate {
    message: Message,
    /// Its share of the prefetch budget.
    permit: Option<OwnedSemaphorePermit>,
    /// The row it was looked up by, if it was.
    row: Option<Row>,
    /// It was kept for later, or until last.
    late: bool,
}

/// A hand-over that begins once its claim is durable.
struct Ready {
    row: Row,
    message: Message,
    permit: Option<OwnedSemaphorePermit>,
    fingerprints: Fingerprints,
    earlier: Option<Earlier>,
    /// What the row was before, for giving the attempt back.
    before: (u32, Option<Timestamp>),
}

/// A hand-over that goes on.
struct InHand {
    row: Row,
    /// The attachments, for the digest; without content.
    message: Message,
    fingerprints: Fingerprints,
    earlier: Option<Earlier>,
    before: (u32, Option<Timestamp>),
    delivery: String,
    _permit: Option<OwnedSemaphorePermit>,
}

enum Ended {
    Outcome(Outcome),
    Err(HandlerError),
    Panic(String),
}

/// What follows from a commit.
enum Effect {
    Start(Box<Ready>),
    Tell(Box<MessageRecord>, Option<ToMove>),
    Nothing,
}

/// What became of one batch of moves.
type Moved = Vec<(ToMove, Result<MoveOutcome>)>;

struct ToMove {
    /// To be settled by the move; `None` for a mere duplicate.
    row: Option<Box<Row>>,
    id: MessageId,
    place: Place,
}

/// What the listing gives: a message with its share of the budget, or the account's failure.
type Listed = Result<(Message, Option<OwnedSemaphorePermit>)>;

struct Listing {
    messages: mpsc::Receiver<Listed>,
    _task: AbortOnDropHandle<()>,
}

/// Handles that are known, and which of them the listing has met.
#[derive(Clone, Default)]
struct Known {
    handles: Arc<HashSet<MessageId>>,
    met: Arc<Mutex<VecDeque<MessageId>>>,
}

impl Known {
    /// Whether the listing need not fetch this message, which is noted then.
    fn skips(&self, id: &MessageId) -> bool {
        let known = self.handles.get(id);
        // Not the listing's own: all that are known may be met, and then no handle is in memory twice.
        self.met().extend(known.cloned());
        known.is_some()
    }

    fn met(&self) -> MutexGuard<'_, VecDeque<MessageId>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_met(&self) -> Option<MessageId> {
        self.met().pop_front()
    }

    fn has_met(&self) -> bool {
        !self.met().is_empty()
    }
}

/// What there is to do next.
enum Next {
    Candidate(Box<Candidate>),
    /// Nothing now, but more may come.
    Wait,
    /// Nothing, ever.
    End,
}

/// What to do with a candidate.
enum Judgement {
    HandOver {
        row: Box<Row>,
        fingerprints: Fingerprints,
        earlier: Option<Earlier>,
        before: (u32, Option<Timestamp>),
        is_new: bool,
    },
    /// Settled; tell, and move it if it is wanted elsewhere.
    Settled(Fate, Reason, Box<Row>, Option<ToMove>),
    /// As settled, and the row has changed.
    Update(Fate, Reason, Box<Row>),
    /// This key is in hand.
    Hold(MessageKey),
    /// An earlier run stopped at it.
    Later(Box<Row>),
    /// It may have killed earlier runs.
    Last(Box<Row>),
}

impl Run<'_> {
    fn job(&self) -> &ImportJob {
        &self.shared.job
    }

    fn now(&self) -> Timestamp {
        self.shared.context.now()
    }

    fn emit(&self, event: Event) {
        if let Some(sink) = &self.shared.events {
            sink(&event);
        }
    }

    fn warn(&mut self, message: String) {
        tracing::warn!(account = %self.me, "{message}");
        self.emit(Event::Warning { account: self.me.clone(), message: message.clone() });
        if self.report.warnings.len() < FAILURES_LISTED {
            self.report.warnings.push(message);
        }
    }

    /// The whole run, but for giving back the lease.
    async fn drive(&mut self) -> Result<()> {
        self.resolve_folders().await?;
        if !self.recall().await? {
            return Ok(());
        }
        self.open_listing().await?;
        loop {
            self.take_in_finished().await?;
            if !self.fill().await? {
                return Ok(());
            }
            self.commit().await?;
            self.start_moves().await?;
            if self.is_over() {
                break;
            }
            self.wait().await;
        }
        self.finish();
        match self.ending.take() {
            Some(Ending::Failed(error)) => Err(error),
            Some(Ending::Stopped(reason)) => {
                self.report.status = Status::Stopped;
                self.report.stopped_by = Some(reason);
                Ok(())
            }
            Some(Ending::Limit) | None => Ok(()),
        }
    }

    fn token(&self) -> i64 {
        self.lease.as_ref().map_or(0, |held| held.lease().token)
    }

    async fn take_in_finished(&mut self) -> Result<()> {
        while let Some(task) = self.tasks.try_join_next() {
            self.ended.push(task.map_err(broken_off)?);
        }
        while let Some(task) = self.moving.try_join_next() {
            self.moved.push(task.map_err(broken_off)?);
        }
        for (serial, ended) in std::mem::take(&mut self.ended) {
            let in_hand = self.in_hand.remove(&serial).expect("every task is in hand");
            self.take_in(in_hand, ended).await?;
        }
        for moved in std::mem::take(&mut self.moved) {
            self.take_in_moved(moved).await?;
        }
        if self.shared.stop.is_cancelled() && self.ending.is_none() {
            self.ending = Some(Ending::Stopped(Reason::STOPPED));
        }
        if self.lease.as_ref().is_some_and(Held::is_lost) && !matches!(self.ending, Some(Ending::Failed(_))) {
            return Err(lost());
        }
        Ok(())
    }

    fn record(&self, row: &Row, fate: Fate, reason: Option<Reason>) -> MessageRecord {
        MessageRecord {
            account: self.me.clone(),
            key: Some(row.key.clone()),
            id: row.handle.clone(),
            internet_message_id: row.internet_message_id.clone(),
            subject: row.subject.clone(),
            from: row.from.clone(),
            received: row.received,
            fate,
            reason,
            will_retry: fate == Fate::Left && row.attempts > 0,
            delivery: None,
        }
    }

    fn tell(&mut self, record: MessageRecord) {
        self.report.counts.add(record.fate);
        let failed = record.fate == Fate::Failed || record.will_retry;
        if failed && self.report.failures.len() < FAILURES_LISTED {
            self.report.failures.push(record.clone());
        }
        self.emit(Event::Message(Box::new(record)));
    }

    /// Writes what was decided, then lets it happen.
    async fn commit(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let rows: Vec<Row> = self.batch.iter().filter_map(|(row, _)| row.clone()).collect();
        if !rows.is_empty() {
            let held = self.lease.as_ref().expect("rows are only written under the lease");
            self.shared.ledger.commit(held.lease(), rows).await?;
        }
        for (_, effect) in std::mem::take(&mut self.batch) {
            match effect {
                Effect::Start(ready) => self.start(*ready),
                Effect::Tell(record, to_move) => {
                    self.tell(*record);
                    if let Some(to_move) = to_move {
                        self.queue_move(to_move);
                    }
                }
                Effect::Nothing => {}
            }
        }
        Ok(())
    }

    /// Whether nothing is left but moves.
    fn is_drained(&self) -> bool {
        self.listing.is_none()
            && self.incoming.is_empty()
            && self.retries.is_empty()
            && self.held.is_empty()
            && self.later.is_empty()
            && self.last.is_empty()
            && self.unseen.as_ref().is_some_and(VecDeque::is_empty)
    }

    fn is_over(&self) -> bool {
        let idle = self.batch.is_empty()
            && self.in_hand.is_empty()
            && self.suspects.is_empty()
            && !self.known.has_met()
            && self.moving.is_empty()
            && self.moved.is_empty();
        match self.ending {
            Some(Ending::Failed(_)) => idle,
            Some(_) => idle && self.to_move.is_empty(),
            None => idle && self.to_move.is_empty() && self.is_drained(),
        }
    }

    /// Until something has finished, or there is more to decide about.
    async fn wait(&mut self) {
        if self.known.has_met() {
            return;
        }
        let more = self.ending.is_none() && self.in_hand.len() < self.job().handler_concurrency;
        let nothing_goes_on = self.in_hand.is_empty() && self.moving.is_empty();
        if nothing_goes_on && (self.listing.is_none() || !self.incoming.is_empty()) {
            return;
        }
        let moves_due = self.oldest_move.filter(|_| self.moving.is_empty()).map(|since| since + MOVE_DELAY);
        let listing = &mut self.listing;
        let lost = self.lease.as_ref().map(|held| held.lost().clone());
        tokio::select! {
            listed = async { listing.as_mut().expect("guarded").messages.recv().await }, if more && listing.is_some() => {
                match listed {
                    Some(listed) => self.incoming.push_back(listed),
                    None => self.listing = None,
                }
            }
            Some(Ok(task)) = self.tasks.join_next(), if !self.tasks.is_empty() => self.ended.push(task),
            Some(Ok(task)) = self.moving.join_next(), if !self.moving.is_empty() => self.moved.push(task),
            () = async { tokio::time::sleep_until(moves_due.expect("guarded")).await }, if moves_due.is_some() => {}
            () = self.shared.stop.cancelled(), if self.ending.is_none() => {}
            () = async { lost.as_ref().expect("guarded").cancelled().await }, if lost.is_some() => {}
            else => {}
        }
    }
}

fn lost() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "another run has taken this mailbox over, because this one did not renew its lease in time; what it had in hand is handed over again",
    )
}

fn broken_off(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Other, "a task of the importer broke off").with_source(error)
}
