//! One run on one mailbox, read top to bottom.
//!
//! One loop owns all state. Everything slow goes on beside it, in tasks: the listing (ahead of the handlers, as far as
//! the prefetch budget goes), the handlers, and one batch of moves at a time. The loop takes in what they have
//! finished, decides about the next messages, writes all of that to the ledger in one commit, and only then lets the
//! consequences begin: a hand-over after its claim is durable, a move after its outcome is.

use std::{
    any::Any,
    collections::{HashMap, HashSet, VecDeque},
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
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
    identity::{Digest, Evidence, Fingerprints, MessageKey, Relation, same, same_without_message_id},
    job::{ImportJob, Since},
    lease::Held,
    reason::Reason,
    report::{AccountReport, Event, EventSink, FAILURES_LISTED, Fate, MessageRecord, RunError, Status},
};
use crate::{
    Access, AttachmentKind, Content, Context, Error, ErrorKind, Folder, FolderId, FolderSpec, MailAccount, Message,
    MessageId, MoveOutcome, Query, Result,
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
    /// Rows that are not settled and that this run has not met yet.
    pending: HashMap<RowName, Row>,
    /// Handles whose content the listing need not fetch.
    known: Known,
    /// Rows that a person asked another try for, and that do not lie in the import folder.
    retries: VecDeque<Row>,
    listing: Option<Listing>,
    incoming: VecDeque<Listed>,
    /// Once the listing is over: the pending rows it did not show.
    unseen: Option<VecDeque<Row>>,
    /// Messages whose key is in hand.
    held: VecDeque<Candidate>,
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
    /// It was kept until last.
    last: bool,
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
    row: Option<Row>,
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
    met: Arc<Mutex<Vec<MessageId>>>,
}

impl Known {
    fn take_met(&self) -> Vec<MessageId> {
        std::mem::take(&mut *self.met.lock().unwrap_or_else(PoisonError::into_inner))
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
    /// Its key is in hand.
    Hold,
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

    // ---- Before anything is handed over -------------------------------------------------------------------------

    async fn resolve_folders(&mut self) -> Result<()> {
        let job = Arc::clone(&self.shared.job);
        let import = self.account.resolve_folder(&job.import_folder).await?;
        let bad = |key: &str, spec: &FolderSpec, what: &str| {
            Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("`{key}` of job `{}` is `{spec}`, which {what}; name another folder", job.name),
            ))
        };
        if !import.selectable {
            return bad("import_folder", &job.import_folder, "cannot hold messages");
        }
        let mut moves = false;
        for (key, spec) in [("processed_folder", &job.processed_folder), ("failed_folder", &job.failed_folder)] {
            let Some(spec) = spec else { continue };
            let folder = match self.account.resolve_folder(spec).await {
                Err(error) if error.kind() == ErrorKind::NotFound && job.create_folders => {
                    self.account.create_folder(spec).await?
                }
                other => other?,
            };
            if folder.id == import.id {
                return bad(key, spec, "is the import folder itself");
            }
            if folder.search || !folder.selectable {
                return bad(key, spec, "is not a folder that mail can be moved to");
            }
            self.refuse_read_only(&folder.id, key, spec).await?;
            moves = true;
            match key {
                "processed_folder" => self.processed = Some(folder),
                _ => self.failed = Some(folder),
            }
        }
        if moves {
            self.refuse_read_only(&import.id, "import_folder", &job.import_folder).await?;
        }
        self.import = import.id;
        Ok(())
    }

    async fn refuse_read_only(&self, folder: &FolderId, key: &str, spec: &FolderSpec) -> Result<()> {
        if self.account.folder_access(folder).await? != Access::ReadOnly {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "the folder `{spec}` (`{key}` of job `{}`) is read-only for this account, but mail is to be moved; grant write access to it",
                self.job().name
            ),
        ))
    }

    /// Reads what the ledger knows; `false` when there is something to do but another run is at it.
    async fn recall(&mut self) -> Result<bool> {
        let since = self.listed_since().await?;
        let pending = self.shared.ledger.find(&self.scope, Find::Pending).await?;
        let remaining = self.shared.ledger.find(&self.scope, Find::Remaining { account: &self.me, since }).await?;
        let now = self.now();
        let mut handles: HashSet<MessageId> = remaining
            .iter()
            .filter(|row| !row.retry && self.wanted_in(row.outcome).is_none())
            .map(|row| row.handle.clone())
            .collect();
        let mut work = false;
        for row in &pending {
            let idle = row.step == Step::Waiting && !row.retry && row.next_attempt.is_some_and(|at| at > now);
            let here = row.account == self.me && row.place == Place::Import;
            if here && (idle || row.step == Step::Handled) {
                handles.insert(row.handle.clone());
            }
            work |= !idle;
        }
        self.known.handles = Arc::new(handles);
        self.remember(pending);
        if work && self.shared.mode != Mode::Fetch { self.hold().await } else { Ok(true) }
    }

    fn remember(&mut self, pending: Vec<Row>) {
        self.retries = pending.iter().filter(|row| row.retry && row.place == Place::Failed).cloned().collect();
        self.pending = pending.into_iter().map(|row| (name(&row), row)).collect();
        for row in &self.retries {
            self.pending.remove(&name(row));
        }
    }

    /// Takes the lease, if this run does not have it yet; `false` when another run does.
    async fn hold(&mut self) -> Result<bool> {
        if self.lease.is_some() {
            return Ok(true);
        }
        let Some(held) = Held::acquire(&self.shared.ledger, &self.scope, &self.shared.context).await? else {
            self.report.status = Status::Busy;
            self.leave_queued(&Reason::BUSY);
            return Ok(false);
        };
        // What was read before the lease may be out of date.
        let mut pending = self.shared.ledger.find(&self.scope, Find::Pending).await?;
        let mut dead = Vec::new();
        for row in pending.iter_mut().filter(|row| row.step == Step::Claimed) {
            row.deaths += 1;
            row.run = held.lease().token;
            dead.push(row.clone());
        }
        if !dead.is_empty() {
            self.shared.ledger.commit(held.lease(), dead).await?;
        }
        self.remember(pending);
        self.lease = Some(held);
        Ok(true)
    }

    fn token(&self) -> i64 {
        self.lease.as_ref().map_or(0, |held| held.lease().token)
    }

    /// From when on the import folder is listed.
    async fn listed_since(&self) -> Result<Option<Timestamp>> {
        let since = match self.job().since {
            Since::All => None,
            Since::Date(date) => Some(date),
            Since::Now => Some(self.shared.ledger.baseline(&self.scope, self.now()).await?),
        };
        if self.job().processed_folder.is_some() {
            return Ok(since);
        }
        // Messages stay where they are: what is older than the watermark, less a day for clocks and late deliveries,
        // is settled.
        let watermark = self.shared.ledger.watermark(&self.scope).await?;
        let floor = watermark.and_then(|at| Timestamp::from_second(at.as_second() - DAY).ok());
        Ok(since.max(floor))
    }

    async fn open_listing(&mut self) -> Result<()> {
        if self.shared.mode == Mode::Process {
            return Ok(());
        }
        let known = self.known.clone();
        let mut query = Query::default()
            .with_unread_only(self.job().unread_only)
            .with_since(self.listed_since().await?)
            .with_headers(self.job().headers.clone())
            .with_text(self.job().text)
            .with_skip(move |id| {
                let skip = known.handles.contains(id);
                if skip {
                    known.met.lock().unwrap_or_else(PoisonError::into_inner).push(id.clone());
                }
                skip
            });
        if self.shared.mode == Mode::Fetch {
            query = query.with_inline_up_to(0);
        }
        let mut stream = self.account.fetch_messages(&self.import, query);
        let (sender, messages) = mpsc::channel(PREFETCH_MESSAGES);
        let budget = Arc::clone(&self.shared.budget);
        let all = self.shared.budget_kib;
        let task = tokio::spawn(async move {
            while let Some(item) = stream.next().await {
                let item = match item {
                    Ok(message) => {
                        let kib = u32::try_from(message.inline_bytes() / 1024 + 1).unwrap_or(all).min(all);
                        let Ok(permit) = Arc::clone(&budget).acquire_many_owned(kib).await else { break };
                        Ok((message, Some(permit)))
                    }
                    Err(error) => Err(error),
                };
                let failed = item.is_err();
                if sender.send(item).await.is_err() || failed {
                    break;
                }
            }
        });
        self.listing = Some(Listing { messages, _task: AbortOnDropHandle::new(task) });
        Ok(())
    }

    // ---- What has finished --------------------------------------------------------------------------------------

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

    /// A hand-over has ended.
    async fn take_in(&mut self, mut hand: InHand, ended: Ended) -> Result<()> {
        hand.row.last_attempt = Some(self.now());
        let digest = hand.fingerprints.digest(&hand.message.attachments);
        if digest != Digest::Unknown {
            hand.row.digest = digest;
        }
        self.report.attachments +=
            hand.message.attachments.iter().filter(|a| a.kind != AttachmentKind::Link).count() as u64;
        self.report.bytes += hand.fingerprints.bytes();
        let reason = match ended {
            Ended::Outcome(outcome) => return self.take_in_outcome(hand, outcome).await,
            Ended::Panic(text) => Reason::handler_panic(&text),
            Ended::Err(error) => {
                if let Some((kind, message)) = hand.fingerprints.failure() {
                    if kind.is_account_wide() {
                        self.give_back(hand, Reason::ACCOUNT_ERROR, false);
                        self.ending.get_or_insert(Ending::Failed(Error::new(kind, message)));
                        return Ok(());
                    }
                    if kind == ErrorKind::NotFound && self.is_gone(&hand.row.handle).await? {
                        self.settle_gone(hand.row);
                        return Ok(());
                    }
                }
                let text = shorten(&chain(&*error));
                if is_storage(&*error) {
                    let reason = Reason::storage(&text);
                    self.give_back(hand, reason.clone(), true);
                    self.ending.get_or_insert(Ending::Stopped(reason));
                    return Ok(());
                }
                Reason::handler_error(&text)
            }
        };
        self.suspects.push((reason, hand));
        if self.suspects.len() >= ERRORS_IN_A_ROW {
            for (reason, hand) in std::mem::take(&mut self.suspects) {
                self.give_back(hand, reason, true);
            }
            self.ending.get_or_insert(Ending::Stopped(Reason::HOST_TROUBLE));
        }
        Ok(())
    }

    async fn take_in_outcome(&mut self, mut hand: InHand, outcome: Outcome) -> Result<()> {
        if let Outcome::Stop(reason) = outcome {
            self.give_back(hand, reason.clone(), true);
            self.ending.get_or_insert(Ending::Stopped(reason));
            return Ok(());
        }
        // The host is well: what failed before was the messages' own fault.
        self.settle_suspects();
        let (recorded, fate, reason) = match outcome {
            Outcome::Imported => match &hand.earlier {
                Some(earlier) if earlier.outcome == Recorded::Imported => {
                    (Recorded::Imported, Fate::Reimported, Some(Reason::PUT_BACK))
                }
                _ => (Recorded::Imported, Fate::Imported, None),
            },
            Outcome::Skip(reason) => (Recorded::Skipped, Fate::Skipped, Some(reason)),
            Outcome::Reject(reason) => {
                hand.row.attempts += 1;
                (Recorded::Failed, Fate::Failed, Some(reason))
            }
            Outcome::Retry(reason) => {
                self.attempt_failed(hand, reason);
                return Ok(());
            }
            Outcome::Stop(_) => unreachable!("handled above"),
        };
        self.settle(hand, recorded, fate, reason);
        Ok(())
    }

    /// The run ends with failures that nothing spoke for or against.
    fn settle_last_suspects(&mut self) {
        if matches!(self.ending, None | Some(Ending::Limit)) {
            return self.settle_suspects();
        }
        for (reason, hand) in std::mem::take(&mut self.suspects) {
            self.give_back(hand, reason, true);
        }
    }

    fn settle_suspects(&mut self) {
        for (reason, hand) in std::mem::take(&mut self.suspects) {
            self.attempt_failed(hand, reason);
        }
    }

    /// An attempt counts: another one later, or never.
    fn attempt_failed(&mut self, mut hand: InHand, reason: Reason) {
        hand.row.attempts += 1;
        if hand.row.attempts >= self.job().max_attempts {
            return self.settle(hand, Recorded::Failed, Fate::Failed, Some(reason));
        }
        let wait = 60i64.saturating_mul(4i64.saturating_pow(hand.row.attempts - 1)).min(30 * DAY);
        hand.row.next_attempt = Timestamp::from_second(self.now().as_second() + wait).ok();
        self.put_off(hand.row, Some(hand.delivery), reason, true);
    }

    /// The attempt does not count: the message is as it was before.
    fn give_back(&mut self, mut hand: InHand, reason: Reason, tried: bool) {
        (hand.row.attempts, hand.row.next_attempt) = hand.before;
        self.put_off(hand.row, Some(hand.delivery), reason, tried);
    }

    fn put_off(&mut self, mut row: Row, delivery: Option<String>, reason: Reason, tried: bool) {
        row.step = Step::Waiting;
        row.outcome = None;
        row.reason = Some(reason.clone());
        row.deaths = 0;
        let mut record = self.record(&row, Fate::Left, Some(reason));
        record.delivery = delivery;
        record.will_retry = tried;
        self.batch.push((Some(row), Effect::Tell(Box::new(record), None)));
    }

    /// An outcome is final.
    fn settle(&mut self, hand: InHand, outcome: Recorded, fate: Fate, reason: Option<Reason>) {
        let mut row = hand.row;
        row.outcome = Some(outcome);
        row.reason.clone_from(&reason);
        row.next_attempt = None;
        row.deaths = 0;
        let place = self.wanted_in(Some(outcome)).filter(|place| *place != row.place);
        row.step = if place.is_some() { Step::Handled } else { Step::Done };
        let mut record = self.record(&row, fate, reason);
        record.delivery = Some(hand.delivery);
        let to_move = place.map(|place| ToMove { id: row.handle.clone(), row: Some(row.clone()), place });
        self.batch.push((Some(row), Effect::Tell(Box::new(record), to_move)));
    }

    fn settle_gone(&mut self, mut row: Row) {
        row.step = Step::Done;
        row.outcome = Some(Recorded::Gone);
        row.reason = Some(Reason::VANISHED);
        row.run = self.token();
        let record = self.record(&row, Fate::Gone, Some(Reason::VANISHED));
        self.batch.push((Some(row), Effect::Tell(Box::new(record), None)));
    }

    /// In which folder messages with this outcome belong, if not where they are.
    fn wanted_in(&self, outcome: Option<Recorded>) -> Option<Place> {
        match outcome? {
            Recorded::Imported | Recorded::Skipped => self.processed.as_ref().map(|_| Place::Processed),
            Recorded::Failed => self.failed.as_ref().map(|_| Place::Failed),
            Recorded::Gone => None,
        }
    }

    fn folder_of(&self, place: Place) -> Option<&FolderId> {
        match place {
            Place::Import => Some(&self.import),
            Place::Processed => self.processed.as_ref().map(|f| &f.id),
            Place::Failed => self.failed.as_ref().map(|f| &f.id),
        }
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
        self.emit(Event::Message(record));
    }

    /// A batch of moves has ended.
    async fn take_in_moved(&mut self, moved: Moved) -> Result<()> {
        let mut count = 0;
        for (item, result) in moved {
            let place = item.place;
            match result {
                Ok(MoveOutcome::Moved(id)) => {
                    count += 1;
                    self.moved(item.row, id, place);
                }
                Ok(MoveOutcome::CopiedNotRemoved(id)) => {
                    count += 1;
                    self.warn(format!(
                        "message `{}` was copied and marked as deleted, but this server cannot remove single messages",
                        item.id
                    ));
                    self.moved(item.row, id, place);
                }
                Ok(MoveOutcome::Gone) => {
                    let Some(row) = item.row else { continue };
                    // Perhaps it was moved before, by a run that died before it could say so.
                    let folder = self.folder_of(place).cloned();
                    let found = match folder {
                        Some(folder) => self.locate(&row, &[folder]).await?,
                        None => None,
                    };
                    match found {
                        Some(message) => self.moved(Some(row), message.id, place),
                        None => {
                            self.report.counts.unmoved += 1;
                            self.done(row);
                        }
                    }
                }
                Err(error) => {
                    self.report.counts.unmoved += 1;
                    if error.kind().is_account_wide() {
                        self.ending.get_or_insert(Ending::Failed(error));
                    } else {
                        self.warn(format!("message `{}` could not be moved: {}", item.id, error.chain()));
                    }
                }
            }
        }
        if count > 0 {
            self.emit(Event::Moved { account: self.me.clone(), messages: count });
        }
        Ok(())
    }

    fn moved(&mut self, row: Option<Row>, id: MessageId, place: Place) {
        let Some(mut row) = row else { return };
        row.handle = id;
        row.place = place;
        row.account.clone_from(&self.me);
        self.done(row);
    }

    fn done(&mut self, mut row: Row) {
        row.step = Step::Done;
        row.run = self.token();
        self.batch.push((Some(row), Effect::Nothing));
    }

    // ---- What comes next ----------------------------------------------------------------------------------------

    /// Decides about messages until every handler has one; `false` when another run holds the mailbox.
    async fn fill(&mut self) -> Result<bool> {
        let mut starting = self.batch.iter().filter(|(_, effect)| matches!(effect, Effect::Start(_))).count();
        while self.ending.is_none()
            && self.batch.len() < BATCH
            && self.in_hand.len() + starting < self.job().handler_concurrency
        {
            let candidate = match self.next().await? {
                Next::Candidate(candidate) => *candidate,
                Next::Wait | Next::End => break,
            };
            if !self.hold().await? {
                self.leave(&candidate.message, Reason::BUSY);
                return Ok(false);
            }
            let judgement = match self.judge(&candidate).await {
                Ok(judgement) => judgement,
                Err(error) => {
                    self.leave(&candidate.message, Reason::ACCOUNT_ERROR);
                    return Err(error);
                }
            };
            match judgement {
                Judgement::HandOver { row, is_new, .. } if self.shared.mode == Mode::Fetch => {
                    let record = self.record(&row, Fate::Left, Some(Reason::WAITING));
                    let row = is_new.then(|| Row { step: Step::Waiting, ..*row });
                    self.batch.push((row, Effect::Tell(Box::new(record), None)));
                }
                Judgement::HandOver { .. } if !self.take_from_limit() => {
                    self.leave(&candidate.message, Reason::LIMIT);
                    self.ending = Some(Ending::Limit);
                    self.look_ahead().await;
                }
                Judgement::HandOver { row, fingerprints, earlier, before, .. } => {
                    let Candidate { message, permit, .. } = candidate;
                    starting += 1;
                    let ready = Ready { row: *row.clone(), message, permit, fingerprints, earlier, before };
                    self.batch.push((Some(*row), Effect::Start(Box::new(ready))));
                }
                Judgement::Settled(fate, reason, row, to_move) => {
                    let mut record = self.record(&row, fate, Some(reason));
                    record.id = candidate.message.id;
                    self.batch.push((None, Effect::Tell(Box::new(record), to_move)));
                }
                Judgement::Update(fate, reason, row) => {
                    let record = self.record(&row, fate, Some(reason));
                    self.batch.push((Some(*row), Effect::Tell(Box::new(record), None)));
                }
                Judgement::Hold => self.held.push_back(without_content(candidate)),
                Judgement::Last(row) => {
                    let row = Some(*row);
                    self.last.push_back(without_content(Candidate { row, last: true, ..candidate }));
                }
            }
        }
        if self.in_hand.is_empty() && starting == 0 && (self.ending.is_some() || self.is_drained()) {
            self.settle_last_suspects();
        }
        self.count_met().await?;
        Ok(true)
    }

    fn take_from_limit(&self) -> bool {
        let Some(limit) = &self.shared.limit else { return true };
        limit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| (left > 0).then(|| left - 1)).is_ok()
    }

    async fn next(&mut self) -> Result<Next> {
        let busy: HashSet<_> = self.busy_keys();
        if let Some(at) = self.held.iter().position(|c| c.row.as_ref().is_none_or(|row| !busy.contains(&row.key))) {
            let free = self.held.remove(at).expect("just found");
            return Ok(Next::Candidate(Box::new(free)));
        }
        if self.shared.mode != Mode::Fetch {
            while let Some(row) = self.retries.pop_front() {
                if let Some(candidate) = self.find_waiting(row).await? {
                    return Ok(Next::Candidate(Box::new(candidate)));
                }
            }
        }
        if let Some(listed) = self.incoming.pop_front() {
            return self.take_listed(listed);
        }
        if let Some(listing) = &mut self.listing {
            return match listing.messages.try_recv() {
                Ok(listed) => self.take_listed(listed),
                Err(mpsc::error::TryRecvError::Empty) => Ok(Next::Wait),
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.listing = None;
                    Ok(Next::Wait)
                }
            };
        }
        // The listing is over. What is pending and was not in it is looked for.
        self.count_met().await?;
        if self.unseen.is_none() {
            let mut rows: Vec<_> = self.pending.drain().map(|(_, row)| row).collect();
            rows.sort_by_key(|row| row.received);
            self.unseen = Some(rows.into());
        }
        while let Some(row) = self.unseen.as_mut().and_then(VecDeque::pop_front) {
            if self.shared.mode == Mode::Fetch {
                continue;
            }
            if let Some(candidate) = self.settle_unseen(row).await? {
                return Ok(Next::Candidate(Box::new(candidate)));
            }
            if self.batch.len() >= BATCH {
                return Ok(Next::Wait);
            }
        }
        if self.held.is_empty() && self.in_hand.is_empty() && self.batch.is_empty() {
            if let Some(candidate) = self.last.pop_front() {
                return Ok(Next::Candidate(Box::new(candidate)));
            }
            return Ok(Next::End);
        }
        Ok(Next::Wait)
    }

    fn take_listed(&mut self, listed: Listed) -> Result<Next> {
        match listed {
            Ok((message, permit)) => {
                self.report.counts.seen += 1;
                Ok(Next::Candidate(Box::new(Candidate { message, permit, row: None, last: false })))
            }
            Err(error) => {
                self.listing = None;
                self.ending.get_or_insert(Ending::Failed(error));
                Ok(Next::End)
            }
        }
    }

    fn busy_keys(&self) -> HashSet<MessageKey> {
        let starting = self.batch.iter().filter_map(|(_, effect)| match effect {
            Effect::Start(ready) => Some(ready.row.key.clone()),
            _ => None,
        });
        self.in_hand.values().map(|hand| hand.row.key.clone()).chain(starting).collect()
    }

    /// Messages whose handle was known, so that the listing left them out.
    async fn count_met(&mut self) -> Result<()> {
        for id in self.known.take_met() {
            self.report.counts.seen += 1;
            let found = self.rows_of(&id, None).await?;
            let Some(row) = found.into_iter().find(|row| row.account == self.me && row.handle == id) else {
                // Another run has moved on with it between our look at the ledger and our listing.
                let record = MessageRecord {
                    account: self.me.clone(),
                    key: None,
                    id,
                    internet_message_id: None,
                    subject: None,
                    from: None,
                    received: self.now(),
                    fate: Fate::AlreadyDone,
                    reason: Some(Reason::ALREADY_DONE),
                    will_retry: false,
                    delivery: None,
                };
                self.batch.push((None, Effect::Tell(Box::new(record), None)));
                continue;
            };
            self.pending.remove(&name(&row));
            match row.step {
                Step::Waiting | Step::Claimed => {
                    let reason = row.reason.clone().unwrap_or(Reason::WAITING);
                    let record = self.record(&row, Fate::Left, Some(reason));
                    self.batch.push((None, Effect::Tell(Box::new(record), None)));
                }
                Step::Handled | Step::Done => {
                    let record = self.record(&row, Fate::AlreadyDone, Some(settled_reason(&row)));
                    let to_move = self.still_to_move(&row);
                    self.batch.push((None, Effect::Tell(Box::new(record), to_move)));
                }
            }
        }
        Ok(())
    }

    fn still_to_move(&self, row: &Row) -> Option<ToMove> {
        if row.step != Step::Handled || self.lease.is_none() {
            return None;
        }
        let place = self.wanted_in(row.outcome).filter(|place| *place != row.place)?;
        let mut row = row.clone();
        row.run = self.token();
        Some(ToMove { id: row.handle.clone(), row: Some(row), place })
    }

    /// A row that waits for a hand-over, outside the listing: finds its message.
    async fn find_waiting(&mut self, row: Row) -> Result<Option<Candidate>> {
        let mut folders = vec![self.import.clone()];
        folders.extend(self.failed.iter().map(|f| f.id.clone()));
        self.report.counts.seen += 1;
        let found = match self.locate(&row, &folders).await {
            Ok(found) => found,
            Err(error) => {
                let record = self.record(&row, Fate::Left, Some(Reason::ACCOUNT_ERROR));
                self.tell(record);
                return Err(error);
            }
        };
        let Some(message) = found else {
            self.settle_gone(row);
            return Ok(None);
        };
        Ok(Some(Candidate { message, permit: None, row: Some(row), last: false }))
    }

    /// A row that the complete listing did not show.
    async fn settle_unseen(&mut self, row: Row) -> Result<Option<Candidate>> {
        match row.step {
            Step::Waiting | Step::Claimed => {
                if !row.retry && row.next_attempt.is_some_and(|at| at > self.now()) {
                    return Ok(None);
                }
                self.find_waiting(row).await
            }
            Step::Done => {
                // A retry whose message lies in the import folder, but was not listed.
                if row.retry { self.find_waiting(row).await } else { Ok(None) }
            }
            Step::Handled => {
                self.report.counts.seen += 1;
                let record = self.record(&row, Fate::AlreadyDone, Some(settled_reason(&row)));
                let Some(place) = self.wanted_in(row.outcome) else {
                    // The job's folder was taken out of its settings: nothing is left to do.
                    self.done(row);
                    self.tell(record);
                    return Ok(None);
                };
                if row.account == self.me {
                    let to_move = self.still_to_move(&row);
                    if to_move.is_none() {
                        self.done(row);
                    }
                    self.batch.push((None, Effect::Tell(Box::new(record), to_move)));
                    return Ok(None);
                }
                // Settled under another account of this mailbox: its handle says nothing here.
                self.tell(record);
                let import = self.import.clone();
                if let Some(message) = self.locate(&row, &[import]).await? {
                    let row = Row { run: self.token(), ..row };
                    let to_move = ToMove { id: message.id, row: Some(row), place };
                    self.queue_move(to_move);
                    return Ok(None);
                }
                let folder: Vec<_> = self.folder_of(place).cloned().into_iter().collect();
                match self.locate(&row, &folder).await? {
                    Some(message) => self.moved(Some(row), message.id, place),
                    None => {
                        self.report.counts.unmoved += 1;
                        self.done(row);
                    }
                }
                Ok(None)
            }
        }
    }

    /// The message that a row is about, in one of these folders: by its handle if it is ours, else by what it is.
    async fn locate(&self, row: &Row, folders: &[FolderId]) -> Result<Option<Message>> {
        if row.account == self.me {
            match self.account.fetch_message(&row.handle).await {
                Ok(message) if folders.contains(&message.folder) => return Ok(Some(message)),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        for folder in folders {
            let query = match &row.internet_message_id {
                Some(id) => Query::default().with_internet_message_id(id.clone()),
                None => Query::default().with_since(Timestamp::from_second(row.received.as_second() - DAY).ok()),
            };
            let mut stream = self.account.fetch_messages(folder, query);
            while let Some(message) = stream.try_next().await? {
                let evidence = Evidence::of(&message);
                if !Evidence::of_row(row).agrees(&evidence, true) {
                    continue;
                }
                let compared = match row.digest {
                    Digest::Known(_) => self.read_digest(&message, &Fingerprints::of(&message.attachments)).await?,
                    // There is nothing to compare with; the evidence must do.
                    other => other,
                };
                if row.digest == compared {
                    return Ok(Some(message));
                }
            }
        }
        Ok(None)
    }

    async fn is_gone(&self, id: &MessageId) -> Result<bool> {
        match self.account.fetch_message(id).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    // ---- What to do with one message ----------------------------------------------------------------------------

    async fn judge(&mut self, candidate: &Candidate) -> Result<Judgement> {
        let message = &candidate.message;
        let fingerprints = Fingerprints::of(&message.attachments);
        if let Some(row) = &candidate.row {
            self.pending.remove(&name(row));
            // Its step may have changed while it was held back.
            let fresh = self.rows_of(&row.handle, Some(&row.key)).await?;
            if let Some(row) = fresh.into_iter().find(|r| name(r) == name(row)) {
                return self.judge_known(message, row, fingerprints, candidate.last).await;
            }
        }
        let evidence = Evidence::of(message);
        let mid = message.internet_message_id.as_deref().and_then(MessageKey::of_message_id);
        let busy = self.busy_keys();
        if mid.as_ref().is_some_and(|key| busy.contains(key)) {
            return Ok(Judgement::Hold);
        }
        let mut rows = self.rows_of(&message.id, mid.as_ref()).await?;
        if let Some(at) = rows.iter().position(|row| row.account == self.me && row.handle == message.id) {
            let row = rows.swap_remove(at);
            self.pending.remove(&name(&row));
            return self.judge_known(message, row, fingerprints, false).await;
        }
        let mut duplicate_of = None;
        let mut digest = Digest::Unknown;
        let key = match mid {
            Some(key) => {
                if !rows.is_empty() {
                    digest = self.read_digest(message, &fingerprints).await?;
                    for row in &rows {
                        match same(row, digest, &evidence) {
                            Relation::Same => return self.recognise(message, row.clone(), digest, fingerprints).await,
                            Relation::Unproven => duplicate_of = Some((row.key.clone(), row.discriminator)),
                            Relation::Other => {}
                        }
                    }
                }
                key
            }
            None => {
                digest = self.read_digest(message, &fingerprints).await?;
                let key = MessageKey::without_message_id(digest, &evidence);
                if busy.contains(&key) {
                    return Ok(Judgement::Hold);
                }
                rows = self.rows_of(&message.id, Some(&key)).await?;
                for row in rows.iter().filter(|row| row.key == key) {
                    if same_without_message_id(row, digest, &evidence) {
                        return self.recognise(message, row.clone(), digest, fingerprints).await;
                    }
                }
                key
            }
        };
        // One side without a Message-ID: the other may have been made up by the service.
        let what = Find::Subject {
            subject_norm: &evidence.subject,
            without_message_id: message.internet_message_id.is_some(),
        };
        for row in self.shared.ledger.find(&self.scope, what).await? {
            if row.key == key || !Evidence::of_row(&row).agrees(&evidence, true) {
                continue;
            }
            if digest == Digest::Unknown {
                digest = self.read_digest(message, &fingerprints).await?;
            }
            if same_without_message_id(&row, digest, &evidence) {
                return self.recognise(message, row, digest, fingerprints).await;
            }
        }
        let now = self.now();
        let discriminator =
            rows.iter().filter(|row| row.key == key).map(|row| row.discriminator + 1).max().unwrap_or(0);
        let row = Row {
            key,
            discriminator,
            step: Step::Claimed,
            outcome: None,
            reason: None,
            deliveries: 1,
            attempts: 0,
            deaths: 0,
            last_attempt: None,
            next_attempt: None,
            retry: false,
            account: self.me.clone(),
            handle: message.id.clone(),
            place: Place::Import,
            run: self.token(),
            digest,
            sent_second: evidence.sent_second,
            sender: evidence.sender,
            subject_norm: evidence.subject,
            subject: message.subject.clone(),
            from: message.from.clone(),
            internet_message_id: message.internet_message_id.clone(),
            received: message.received,
            first_seen: now,
            possible_duplicate_of: duplicate_of,
        };
        Ok(Judgement::HandOver { row: Box::new(row), fingerprints, earlier: None, before: (0, None), is_new: true })
    }

    async fn rows_of(&self, id: &MessageId, key: Option<&MessageKey>) -> Result<Vec<Row>> {
        let nothing = MessageKey::nothing();
        let what = Find::Message { account: &self.me, handle: id, key: key.unwrap_or(&nothing) };
        self.shared.ledger.find(&self.scope, what).await
    }

    /// A message recognised by what it is, not by its handle.
    async fn recognise(
        &mut self,
        message: &Message,
        mut row: Row,
        digest: Digest,
        fingerprints: Fingerprints,
    ) -> Result<Judgement> {
        if self.busy_keys().contains(&row.key) {
            return Ok(Judgement::Hold);
        }
        let open = self.pending.remove(&name(&row)).is_some() || row.step != Step::Done;
        if digest != Digest::Unknown {
            row.digest = digest;
        }
        if open {
            // Not settled yet, so it goes on under the handle that works here.
            let moved_on = row.account != self.me || row.step != Step::Handled;
            if moved_on {
                row.account.clone_from(&self.me);
                row.handle = message.id.clone();
                row.place = Place::Import;
            }
        }
        self.judge_known(message, row, fingerprints, false).await
    }

    async fn judge_known(
        &mut self,
        message: &Message,
        mut row: Row,
        fingerprints: Fingerprints,
        last: bool,
    ) -> Result<Judgement> {
        let before = (row.attempts, row.next_attempt);
        match row.step {
            Step::Claimed => {
                // A run died with it in hand: the same delivery again.
                if row.deaths >= DEATHS_BEFORE_LAST && !last {
                    return Ok(Judgement::Last(Box::new(row)));
                }
            }
            Step::Waiting => {
                if !row.retry && row.next_attempt.is_some_and(|at| at > self.now()) {
                    let reason = row.reason.clone().unwrap_or(Reason::WAITING);
                    return Ok(Judgement::Settled(Fate::Left, reason, Box::new(row), None));
                }
                row.deliveries += 1;
            }
            Step::Handled => {
                let Some(place) = self.wanted_in(row.outcome) else {
                    row.step = Step::Done;
                    return Ok(Judgement::Update(Fate::AlreadyDone, settled_reason(&row), Box::new(row)));
                };
                row.run = self.token();
                let reason = settled_reason(&row);
                let to_move = ToMove { id: message.id.clone(), row: Some(row.clone()), place };
                return Ok(Judgement::Settled(Fate::AlreadyDone, reason, Box::new(row), Some(to_move)));
            }
            Step::Done if row.retry || row.outcome == Some(Recorded::Gone) => {
                row.deliveries += 1;
                row.attempts = 0;
            }
            Step::Done => return self.judge_settled(message, row, fingerprints).await,
        }
        let earlier = None;
        Ok(self.hand_over(message, row, fingerprints, earlier, before))
    }

    /// Found in the import folder although it was settled.
    async fn judge_settled(
        &mut self,
        message: &Message,
        mut row: Row,
        fingerprints: Fingerprints,
    ) -> Result<Judgement> {
        let place = self.wanted_in(row.outcome);
        let mine = row.account == self.me;
        if row.place == Place::Import {
            // It was to stay there, and is known under this handle or, after a swap, under another.
            let reason = settled_reason(&row);
            let renamed = !mine || (row.handle != message.id && self.is_gone(&row.handle).await?);
            row.run = self.token();
            if renamed {
                row.account.clone_from(&self.me);
                row.handle = message.id.clone();
            }
            if let Some(place) = place {
                let own = row.handle == message.id;
                if own {
                    row.step = Step::Handled;
                }
                let to_move = ToMove { id: message.id.clone(), row: own.then(|| row.clone()), place };
                return Ok(Judgement::Settled(Fate::AlreadyDone, reason, Box::new(row), Some(to_move)));
            }
            return Ok(if renamed {
                Judgement::Update(Fate::AlreadyDone, reason, Box::new(row))
            } else {
                Judgement::Settled(Fate::AlreadyDone, reason, Box::new(row), None)
            });
        }
        if mine && row.run != self.token() {
            let here = match self.account.fetch_message(&message.id).await {
                Ok(fresh) => fresh.folder == self.import,
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                Err(error) => return Err(error),
            };
            if !here {
                // The listing was made before an earlier run moved it.
                return Ok(Judgement::Settled(Fate::AlreadyDone, settled_reason(&row), Box::new(row), None));
            }
            if row.handle == message.id || self.copy_is_gone(&row).await? {
                let earlier = row.outcome.map(|outcome| Earlier { outcome, at: row.last_attempt });
                let before = (0, None);
                row.deliveries += 1;
                row.attempts = 0;
                return Ok(self.hand_over(message, row, fingerprints, earlier, before));
            }
        }
        let to_move = place.map(|place| ToMove { id: message.id.clone(), row: None, place });
        Ok(Judgement::Settled(Fate::AlreadyDone, Reason::DUPLICATE, Box::new(row), to_move))
    }

    async fn copy_is_gone(&self, row: &Row) -> Result<bool> {
        match self.account.fetch_message(&row.handle).await {
            Ok(copy) => Ok(Some(&copy.folder) != self.folder_of(row.place)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn hand_over(
        &self,
        message: &Message,
        mut row: Row,
        fingerprints: Fingerprints,
        earlier: Option<Earlier>,
        before: (u32, Option<Timestamp>),
    ) -> Judgement {
        row.place =
            if self.failed.as_ref().is_some_and(|f| f.id == message.folder) { Place::Failed } else { Place::Import };
        row.step = Step::Claimed;
        row.outcome = None;
        row.retry = false;
        row.next_attempt = None;
        row.account.clone_from(&self.me);
        row.handle = message.id.clone();
        row.run = self.token();
        Judgement::HandOver { row: Box::new(row), fingerprints, earlier, before, is_new: false }
    }

    /// The digest of a message's files; reads those that are not in memory.
    async fn read_digest(&self, message: &Message, fingerprints: &Fingerprints) -> Result<Digest> {
        for index in fingerprints.missing(&message.attachments) {
            let attachment = &message.attachments[index];
            let content = self
                .account
                .download_attachment(&message.id, &attachment.id)
                .with_tap(fingerprints.tap(index, attachment));
            let read = content.into_stream().try_for_each(|_| async { Ok(()) }).await;
            match read {
                Err(error) if error.kind().is_account_wide() => return Err(error),
                // What cannot be read cannot be compared.
                Err(_) => return Ok(Digest::Unknown),
                Ok(()) => {}
            }
        }
        Ok(fingerprints.digest(&message.attachments))
    }

    // ---- What follows -------------------------------------------------------------------------------------------

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

    fn queue_move(&mut self, item: ToMove) {
        self.oldest_move.get_or_insert_with(Instant::now);
        self.to_move.push_back(item);
    }

    fn start(&mut self, ready: Ready) {
        let Ready { row, message, permit, fingerprints, earlier, before } = ready;
        let delivery = self.delivery(&row, &message, &fingerprints, earlier.clone());
        let mut message = message;
        for attachment in &mut message.attachments {
            attachment.content = None;
        }
        message.text = None;
        message.html = None;
        self.serial += 1;
        let serial = self.serial;
        let hand =
            InHand { row, message, fingerprints, earlier, before, delivery: delivery.id.clone(), _permit: permit };
        self.in_hand.insert(serial, hand);
        let handler = self.shared.handler.clone().expect("checked before the run");
        self.tasks.spawn(async move {
            let ended = match AssertUnwindSafe(handler.handle(delivery)).catch_unwind().await {
                Ok(Ok(outcome)) => Ended::Outcome(outcome),
                Ok(Err(error)) => Ended::Err(error),
                Err(panic) => Ended::Panic(panic_text(&*panic)),
            };
            (serial, ended)
        });
    }

    fn delivery(
        &self,
        row: &Row,
        message: &Message,
        fingerprints: &Fingerprints,
        earlier: Option<Earlier>,
    ) -> Delivery {
        let folder: Arc<std::path::Path> = message_folder(&self.me, message, &row.key, row.discriminator).into();
        let swept = Arc::new(OnceCell::new());
        let attachments = message
            .attachments
            .iter()
            .zip(file_names(&message.attachments))
            .enumerate()
            .map(|(index, (attachment, file_name))| {
                let open = match &attachment.content {
                    Some(bytes) => {
                        let bytes = bytes.clone();
                        Opener(Arc::new(move || Content::from_bytes(bytes.clone())))
                    }
                    None => {
                        let account = Arc::clone(&self.account);
                        let (id, fingerprints, attachment) =
                            (message.id.clone(), fingerprints.clone(), attachment.clone());
                        Opener(Arc::new(move || {
                            let content = account.download_attachment(&id, &attachment.id);
                            if attachment.kind == AttachmentKind::Link {
                                return content;
                            }
                            content.with_tap(fingerprints.tap(index, &attachment))
                        }))
                    }
                };
                Delivered {
                    attachment: attachment.clone(),
                    file_name,
                    folder: Arc::clone(&folder),
                    open,
                    swept: Arc::clone(&swept),
                }
            })
            .collect();
        let (account, id) = (Arc::clone(&self.account), message.id.clone());
        Delivery {
            id: delivery_id(&self.scope, row),
            job: self.scope.job.clone(),
            account: self.me.clone(),
            mailbox: self.scope.mailbox.clone(),
            key: row.key.clone(),
            discriminator: row.discriminator,
            attempt: row.attempts + 1,
            earlier,
            possible_duplicate_of: row.possible_duplicate_of.as_ref().map(|(key, _)| key.clone()),
            message: message.clone(),
            attachments,
            raw: Opener(Arc::new(move || account.download_attachment(&id, &crate::AttachmentId::raw()))),
        }
    }

    /// Lets one batch of moves begin, when there are enough, or they have waited, or nothing else is going on.
    async fn start_moves(&mut self) -> Result<()> {
        if !self.moving.is_empty() || matches!(self.ending, Some(Ending::Failed(_))) {
            return Ok(());
        }
        let Some(first) = self.to_move.front() else { return Ok(()) };
        let place = first.place;
        let size = self.account.capabilities().move_batch.max(1);
        let waited = self.oldest_move.is_some_and(|since| since.elapsed() >= MOVE_DELAY);
        let same_place = self.to_move.iter().filter(|item| item.place == place).count();
        let quiet = self.in_hand.is_empty() && (self.ending.is_some() || self.is_drained());
        if same_place < size && !waited && !quiet {
            return Ok(());
        }
        let held = self.lease.as_ref().expect("nothing is moved without the lease");
        self.shared.ledger.check(held.lease()).await?;
        let mut items = Vec::new();
        let mut rest = VecDeque::new();
        for item in std::mem::take(&mut self.to_move) {
            if item.place == place && items.len() < size { items.push(item) } else { rest.push_back(item) }
        }
        self.to_move = rest;
        self.oldest_move = (!self.to_move.is_empty()).then(Instant::now);
        let folder = self.folder_of(place).cloned().expect("only folders of the job are wanted");
        let account = Arc::clone(&self.account);
        self.moving.spawn(async move {
            let ids: Vec<_> = items.iter().map(|item| item.id.clone()).collect();
            let mut results = account.move_to_processed(&ids, &folder).await;
            // A provider that breaks its contract must not make us lose count.
            results.resize_with(items.len(), || {
                Err(Error::new(ErrorKind::Malformed, "the provider did not say what became of a move"))
            });
            items.into_iter().zip(results).collect()
        });
        Ok(())
    }

    /// Whether nothing is left but moves.
    fn is_drained(&self) -> bool {
        self.listing.is_none()
            && self.incoming.is_empty()
            && self.retries.is_empty()
            && self.held.is_empty()
            && self.last.is_empty()
            && self.unseen.as_ref().is_some_and(VecDeque::is_empty)
    }

    fn is_over(&self) -> bool {
        let idle = self.batch.is_empty()
            && self.in_hand.is_empty()
            && self.suspects.is_empty()
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

    // ---- The end ------------------------------------------------------------------------------------------------

    /// Counts what is left over, after an orderly end.
    fn finish(&mut self) {
        self.report.counts.unmoved += self.to_move.drain(..).filter(|item| item.row.is_some()).count() as u64;
        let reason = match &self.ending {
            None => return,
            Some(Ending::Limit) => Reason::LIMIT,
            Some(Ending::Stopped(_)) => Reason::STOPPED,
            Some(Ending::Failed(_)) => Reason::ACCOUNT_ERROR,
        };
        self.leave_queued(&reason);
    }

    /// Counts what is left over, after the ledger or the account failed in the middle. Handlers end in peace, but what
    /// they say can no longer be recorded: their messages will be handed over again.
    async fn abandon(&mut self) {
        while self.tasks.join_next().await.is_some() {}
        while let Some(task) = self.moving.join_next().await {
            self.moved.extend(task);
        }
        let results = std::mem::take(&mut self.moved).into_iter().flatten();
        let unproven = results.filter(|(item, result)| {
            item.row.is_some() && !matches!(result, Ok(MoveOutcome::Moved(_) | MoveOutcome::CopiedNotRemoved(_)))
        });
        self.report.counts.unmoved += unproven.count() as u64;
        self.report.counts.unmoved += self.to_move.drain(..).filter(|item| item.row.is_some()).count() as u64;
        for (row, effect) in std::mem::take(&mut self.batch) {
            match effect {
                Effect::Start(ready) => self.leave(&ready.message, Reason::ACCOUNT_ERROR),
                Effect::Tell(mut record, _) => {
                    if row.is_some() {
                        record.fate = Fate::Left;
                        record.reason = Some(Reason::ACCOUNT_ERROR);
                    }
                    self.tell(*record);
                }
                Effect::Nothing => {}
            }
        }
        let hands: Vec<_> = self.in_hand.drain().map(|(_, hand)| hand).collect();
        let suspects: Vec<_> = std::mem::take(&mut self.suspects).into_iter().map(|(_, hand)| hand).collect();
        for hand in hands.into_iter().chain(suspects) {
            let record = self.record(&hand.row, Fate::Left, Some(Reason::ACCOUNT_ERROR));
            self.tell(MessageRecord { delivery: Some(hand.delivery), ..record });
        }
        self.leave_queued(&Reason::ACCOUNT_ERROR);
    }

    /// After the limit is reached: counts what stands next in the folder, without reading it all.
    async fn look_ahead(&mut self) {
        let mut bytes = 0;
        for _ in 0..LOOK_AHEAD {
            let listed = match self.incoming.pop_front() {
                Some(listed) => Some(listed),
                None => match &mut self.listing {
                    Some(listing) => listing.messages.recv().await,
                    None => None,
                },
            };
            let Some(Ok((message, _))) = listed else { break };
            bytes += message.inline_bytes();
            self.report.counts.seen += 1;
            self.leave(&message, Reason::LIMIT);
            if bytes > self.job().prefetch_bytes {
                break;
            }
        }
        self.listing = None;
        self.incoming.clear();
    }

    /// Counts what was seen and has had no turn.
    fn leave_queued(&mut self, reason: &Reason) {
        for candidate in self.held.drain(..).chain(self.last.drain(..)).collect::<Vec<_>>() {
            self.leave(&candidate.message, reason.clone());
        }
        let mut listed: Vec<_> = self.incoming.drain(..).collect();
        if let Some(mut listing) = self.listing.take() {
            while let Ok(item) = listing.messages.try_recv() {
                listed.push(item);
            }
        }
        for (message, _) in listed.into_iter().flatten() {
            self.report.counts.seen += 1;
            self.leave(&message, reason.clone());
        }
    }

    fn leave(&mut self, message: &Message, reason: Reason) {
        let record = MessageRecord {
            account: self.me.clone(),
            key: message.internet_message_id.as_deref().and_then(MessageKey::of_message_id),
            id: message.id.clone(),
            internet_message_id: message.internet_message_id.clone(),
            subject: message.subject.clone(),
            from: message.from.clone(),
            received: message.received,
            fate: Fate::Left,
            reason: Some(reason),
            will_retry: false,
            delivery: None,
        };
        self.tell(record);
    }
}

/// A message that has to wait gives its share of the prefetch budget back; its content is fetched again.
fn without_content(mut candidate: Candidate) -> Candidate {
    candidate.permit = None;
    for attachment in &mut candidate.message.attachments {
        attachment.content = None;
    }
    candidate
}

/// The same for every hand-over of one delivery.
fn delivery_id(scope: &Scope, row: &Row) -> String {
    let mut hash = Sha256::new();
    for part in [&scope.job, &scope.mailbox, row.key.as_str()] {
        hash.update(part);
        hash.update([0]);
    }
    hash.update(row.discriminator.to_le_bytes());
    hash.update(row.deliveries.to_le_bytes());
    hash.finalize()[..16].iter().map(|b| format!("{b:02x}")).collect()
}

fn settled_reason(row: &Row) -> Reason {
    match row.outcome {
        Some(Recorded::Failed | Recorded::Skipped) => row.reason.clone().unwrap_or(Reason::ALREADY_DONE),
        _ => Reason::ALREADY_DONE,
    }
}

fn lost() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "another run has taken this mailbox over, because this one did not renew its lease in time; what it had in hand is handed over again",
    )
}

#[allow(clippy::needless_pass_by_value)] // For `map_err`.
fn broken_off(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Other, "a task of the importer broke off").with_source(error)
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

fn shorten(text: &str) -> String {
    const LONGEST: usize = 1000;
    if text.chars().count() <= LONGEST { text.to_owned() } else { text.chars().take(LONGEST).chain(['…']).collect() }
}

/// Whether the host's own disk or database failed.
fn is_storage(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::Storage) {
            return true;
        }
        let full = error.downcast_ref::<std::io::Error>().is_some_and(|e| {
            use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
            matches!(e.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
        });
        if full {
            return true;
        }
        next = error.source();
    }
    false
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    shorten(&text.unwrap_or_else(|| "a panic without a text".to_owned()))
}
