//! The importer: config -> account -> importer -> handler -> move.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | [`Importer`]: a job on its accounts, once or every few minutes |
//! | `run/` | one run on one mailbox, read top to bottom |
//! | `lease.rs` | the lease that keeps two runs off one mailbox |
//! | `identity.rs` | when two messages are the same message |
//! | `handler.rs` | what the host writes, and what it is given |
//! | `job.rs`, `report.rs`, `reason.rs` | nouns |
//!
//! # The guarantee
//!
//! A message is handed over at least once, and never again after its outcome was recorded. One copy ends in the
//! processed folder (servers that can only copy excepted, and said). No message is lost, and none is moved unless its
//! outcome is recorded. This holds when the process is killed at any moment. Between several processes a lease per (job,
//! mailbox) keeps all but one off; one that was paused past its lease may cause a second hand-over under the same
//! delivery id, and nothing else.

mod handler;
pub(crate) mod identity;
mod job;
mod lease;
mod reason;
mod report;
mod run;

use std::{
    fmt,
    sync::{Arc, OnceLock, atomic::AtomicI64},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use handler::{Delivered, Delivery, Earlier, Handler, HandlerError, HandlerFn, Outcome, SavedFile, handler_fn};
pub use identity::{Digest, MessageKey};
pub use job::{ImportJob, Since};
pub use reason::{Language, Reason};
pub use report::{AccountReport, Counts, Event, EventSink, Fate, JobReport, MessageRecord, RunError, Status};

use crate::{Context, Error, ErrorKind, MailAccount, MailboxInfo, Result, store::Ledger};
use run::{Mode, Shared};

/// Learns how each account's run ended.
#[async_trait]
pub(crate) trait Observer: Send + Sync {
    async fn ended(&self, job: &ImportJob, run: &Result<AccountReport, RunError>);
}

type Open = Arc<dyn Fn() -> Result<Arc<dyn MailAccount>> + Send + Sync>;

/// An account of a job: open already, or opened when its turn comes, so that one that cannot be opened is an error of
/// its own and stops no other.
#[derive(Clone)]
pub struct JobAccount {
    info: MailboxInfo,
    open: Open,
    opened: Arc<OnceLock<Arc<dyn MailAccount>>>,
}

impl JobAccount {
    /// An account that `open` gives when its turn comes. What it is called must be known before.
    pub fn deferred(
        info: MailboxInfo,
        open: impl Fn() -> Result<Arc<dyn MailAccount>> + Send + Sync + 'static,
    ) -> Self {
        Self { info, open: Arc::new(open), opened: Arc::default() }
    }

    fn open(&self) -> Result<Arc<dyn MailAccount>> {
        if let Some(account) = self.opened.get() {
            return Ok(Arc::clone(account));
        }
        let account = (self.open)()?;
        Ok(Arc::clone(self.opened.get_or_init(|| account)))
    }
}

impl From<Arc<dyn MailAccount>> for JobAccount {
    fn from(account: Arc<dyn MailAccount>) -> Self {
        let info = account.mailbox().clone();
        Self::deferred(info, move || Ok(Arc::clone(&account)))
    }
}

impl fmt::Debug for JobAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobAccount").field("info", &self.info).finish_non_exhaustive()
    }
}

/// Runs one job on its accounts.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use std::sync::Arc;
/// use mail_account::{Delivery, ImportJob, Importer, MailAccount, Outcome, SqlStore, handler_fn};
/// use mail_account::provider::memory::{MemoryAccount, MemoryMailbox, MemoryOptions};
///
/// let mailbox = MemoryMailbox::new("facturen@contoso.example");
/// let account: Arc<dyn MailAccount> = Arc::new(MemoryAccount::open("local", &mailbox, MemoryOptions::default()));
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("state.db");
/// let ledger = Arc::new(SqlStore::open(path).await?);
/// let job = ImportJob::new("emailed-invoices", "Inbox".parse()?);
///
/// let report = Importer::new(job, [account], ledger)
///     .run(handler_fn(|mail: Delivery| async move {
///         println!("{}", mail.subject.as_deref().unwrap_or("no subject"));
///         Ok(Outcome::Imported)
///     }))
///     .await?;
/// assert_eq!(report.counts().seen, 0);
/// # Ok(()) })
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct Importer {
    job: Arc<ImportJob>,
    accounts: Vec<JobAccount>,
    ledger: Arc<dyn Ledger>,
    handler: Option<Arc<dyn Handler>>,
    context: Context,
    events: Option<EventSink>,
    observer: Option<Arc<dyn Observer>>,
    limit: Option<u64>,
}

impl fmt::Debug for Importer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Importer")
            .field("job", &self.job)
            .field("accounts", &self.accounts)
            .field("ledger", &self.ledger)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Importer {
    /// A job on these accounts, with this memory.
    pub fn new<A: Into<JobAccount>>(
        job: ImportJob,
        accounts: impl IntoIterator<Item = A>,
        ledger: Arc<dyn Ledger>,
    ) -> Self {
        Self {
            job: Arc::new(job),
            accounts: accounts.into_iter().map(Into::into).collect(),
            ledger,
            handler: None,
            context: Context::default(),
            events: None,
            observer: None,
            limit: None,
        }
    }

    /// Another clock and randomness.
    #[must_use]
    pub fn with_context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// Tells what happens while a run goes on.
    #[must_use]
    pub fn with_events(mut self, sink: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.events = Some(Arc::new(sink));
        self
    }

    /// Tells how each account's run ended.
    #[must_use]
    pub(crate) fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// At most so many hand-overs in one run, over all accounts.
    #[must_use]
    pub fn with_limit(mut self, limit: impl Into<Option<u64>>) -> Self {
        self.limit = limit.into();
        self
    }

    /// Another pause between two runs than the job's.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        Arc::make_mut(&mut self.job).interval = interval;
        self
    }

    /// Who takes the messages, for [`run_mailbox`](Self::run_mailbox), [`run_all`](Self::run_all) and
    /// [`run_every`](Self::run_every).
    #[must_use]
    pub fn with_handler(mut self, handler: impl Handler) -> Self {
        self.handler = Some(Arc::new(handler));
        self
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> &ImportJob {
        &self.job
    }

    /// The accounts' identifiers.
    pub fn accounts(&self) -> impl Iterator<Item = &str> {
        self.accounts.iter().map(|a| a.info.account.as_str())
    }

    /// Runs the job once on all its accounts, at the same time. What an account meets stands in its report: one that
    /// fails stops no other.
    ///
    /// # Errors
    ///
    /// Only what stops everything before any account is looked at: a ledger that cannot be read, a missing handler.
    pub async fn run(&self, handler: impl Handler) -> Result<JobReport> {
        self.clone().with_handler(handler).run_all(CancellationToken::new()).await
    }

    /// As [`run`](Self::run), until `stop`: deliveries in hand are finished then.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run).
    pub async fn run_all(&self, stop: CancellationToken) -> Result<JobReport> {
        self.all(Mode::Both, stop).await
    }

    /// Records what is waiting in the import folders, and hands nothing over. With [`process`](Self::process) the
    /// two halves of a run, for hosts that drive them apart.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run).
    pub async fn fetch(&self, stop: CancellationToken) -> Result<JobReport> {
        self.all(Mode::Fetch, stop).await
    }

    /// Hands over what [`fetch`](Self::fetch) has recorded.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run).
    pub async fn process(&self, stop: CancellationToken) -> Result<JobReport> {
        self.all(Mode::Process, stop).await
    }

    /// Runs the job on one of its accounts: the unit for job engines. That another run holds the mailbox is a normal
    /// result ([`Status::Busy`]), not an error.
    ///
    /// # Errors
    ///
    /// What the account or the ledger met, with what was done until then. [`RunError::is_retryable`] and
    /// [`RunError::retry_after`] tell an engine whether and when to try again; single messages are tried again by the
    /// ledger, whatever the engine does.
    pub async fn run_mailbox(&self, account: &str, stop: CancellationToken) -> Result<AccountReport, RunError> {
        let early = |error: Error| RunError::new(error, AccountReport::new(account, "", ""));
        let Some(found) = self.accounts.iter().find(|a| a.info.account == account) else {
            let known: Vec<_> = self.accounts().map(|a| format!("`{a}`")).collect();
            return Err(early(Error::new(
                ErrorKind::InvalidConfig,
                format!("job `{}` has no account `{account}`; it has {}", self.job.name, known.join(", ")),
            )));
        };
        let shared = self.shared(Mode::Both, stop).map_err(early)?;
        let remembered = self.ledger.mailboxes(&self.job.name).await.map_err(early)?;
        self.one(&shared, found, &remembered).await
    }

    /// Runs the job again and again until `stop`, never overlapping, with [`ImportJob::interval`] and some jitter from
    /// the end of one run to the start of the next.
    pub async fn run_every(&self, stop: CancellationToken, mut report: impl FnMut(Result<JobReport>) + Send) {
        while !stop.is_cancelled() {
            report(self.run_all(stop.clone()).await);
            let pause = self.context.jitter(self.job.interval);
            tokio::select! {
                () = self.context.sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn all(&self, mode: Mode, stop: CancellationToken) -> Result<JobReport> {
        let shared = self.shared(mode, stop)?;
        let remembered = self.ledger.mailboxes(&self.job.name).await?;
        let runs = self.accounts.iter().map(|account| self.one(&shared, account, &remembered));
        let accounts = join_all(runs).await;
        Ok(JobReport {
            job: self.job.name.clone(),
            accounts: accounts.into_iter().map(|run| run.unwrap_or_else(RunError::into_report)).collect(),
        })
    }

    fn shared(&self, mode: Mode, stop: CancellationToken) -> Result<Shared> {
        if self.handler.is_none() && mode != Mode::Fetch {
            return Err(Error::new(ErrorKind::InvalidConfig, "no handler was given; call `Importer::with_handler`"));
        }
        let budget_kib = u32::try_from(self.job.prefetch_bytes / 1024).unwrap_or(u32::MAX).clamp(1, 1 << 22);
        Ok(Shared {
            job: Arc::clone(&self.job),
            ledger: Arc::clone(&self.ledger),
            handler: self.handler.clone(),
            context: self.context.clone(),
            events: self.events.clone(),
            stop,
            limit: self.limit.map(|limit| AtomicI64::new(i64::try_from(limit).unwrap_or(i64::MAX))),
            budget: Arc::new(Semaphore::new(budget_kib as usize)),
            budget_kib,
            mode,
        })
    }

    async fn one(
        &self,
        shared: &Shared,
        account: &JobAccount,
        remembered: &[String],
    ) -> Result<AccountReport, RunError> {
        let info = &account.info;
        // Of an account that cannot be opened the name may be unknown too, and its own error says why.
        let ended = match account.open().and_then(|account| self.check_mailbox(info, remembered).map(|()| account)) {
            Ok(account) => run::run(shared, account).await,
            Err(error) => {
                let error = error.with_account(&info.account).with_provider(info.provider.clone());
                Err(RunError::new(error, AccountReport::new(&info.account, &info.provider, &info.name)))
            }
        };
        if let Some(observer) = &self.observer {
            observer.ended(&self.job, &ended).await;
        }
        ended
    }

    /// A mailbox that has rows but is named by no account, and one that is named but has no rows, are probably the
    /// same, seen through two accounts. That is never guessed: importing everything twice, or nothing, would follow.
    fn check_mailbox(&self, info: &MailboxInfo, remembered: &[String]) -> Result<()> {
        if self.job.ledger_new || remembered.contains(&info.name) {
            return Ok(());
        }
        let orphan = remembered.iter().find(|name| !self.accounts.iter().any(|a| a.info.name == **name));
        match orphan {
            None => Ok(()),
            Some(orphan) => Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "the ledger of job `{}` belongs to the mailbox `{orphan}`, which none of its accounts names, and knows nothing of `{}`. Is it the same mailbox? Then set `address = \"{orphan}\"` in account `{}`; if it is another one, set `ledger = \"new\"` in the job",
                    self.job.name, info.name, info.account
                ),
            )),
        }
    }
}
