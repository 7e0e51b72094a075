//! Durable memory: what each job did with each message, who has signed in, and how accounts fare.
//!
//! [`Ledger`] is the contract that the importer relies on, [`TokenStore`] the one that delegated accounts rely on;
//! `SqlStore` implements both on SQLite (feature `sqlite`) and PostgreSQL (feature `postgres`).
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | the trait and its nouns |
//! | `tokens.rs` | the trait for sign-ins, and its nouns |
//! | `states.rs` | the trait for what was last known of each account |
//! | `seal.rs` | secrets sealed under the host's key |
//! | `sql/` | `SqlStore`: the tables, migrations, leases, and the one committer |

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod seal;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
mod states;
mod tokens;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use seal::KeyRing;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::SqlStore;
pub(crate) use states::MemoryStates;
pub use states::{StateStore, StoredState};
pub use tokens::{Pending, Purpose, RefreshLease, SignIn, SignInId, SignInNeeded, Signer, Taken, TokenStore};

use crate::{Address, MessageId, MessageKey, Reason, Result, import::Digest};

/// Whose memory: one job on one mailbox. Survives the swap from one account to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// The job's name.
    pub job: String,
    /// The mailbox's [name](crate::MailboxInfo::name).
    pub mailbox: String,
}

impl Scope {
    /// Of this job and mailbox.
    pub fn new(job: impl Into<String>, mailbox: impl Into<String>) -> Self {
        Self { job: job.into(), mailbox: mailbox.into() }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job `{}`, mailbox `{}`", self.job, self.mailbox)
    }
}

/// The right to write about one scope until it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it covers.
    pub scope: Scope,
    /// Grows by one with every holder: late writes of an earlier holder are recognised by it. Also the number of the
    /// run that holds it.
    pub token: i64,
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Known, and waiting for a hand-over: not yet handed over, or an attempt failed.
    Waiting,
    /// Handed over; nobody knows yet how that ended.
    Claimed,
    /// The outcome is recorded; the message is still to be moved.
    Handled,
    /// Nothing is left to do.
    Done,
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Recorded {
    /// The handler took it.
    Imported,
    /// The handler did not want it.
    Skipped,
    /// Refused by the handler, or tried too often.
    Failed,
    /// It vanished before its hand-over could be finished.
    Gone,
}

/// Where the copy lies that a row's handle names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// In the import folder, where it was found.
    Import,
    /// In the processed folder.
    Processed,
    /// In the failed folder.
    Failed,
}

/// What the ledger knows about one message. Its name is (scope, `key`, `discriminator`).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Row {
    /// What the message is called across providers.
    pub key: MessageKey,
    /// Tells apart different messages of the same key, from 0.
    pub discriminator: u32,
    /// How far it has come.
    pub step: Step,
    /// How it ended.
    pub outcome: Option<Recorded>,
    /// Why it was skipped, failed, or is tried again.
    pub reason: Option<Reason>,
    /// How many deliveries were made of it; makes the delivery id.
    pub deliveries: u32,
    /// How many attempts count against it.
    pub attempts: u32,
    /// In how many runs that died it was in hand.
    pub deaths: u32,
    /// When it was last handed over.
    pub last_attempt: Option<Timestamp>,
    /// Not before then.
    pub next_attempt: Option<Timestamp>,
    /// A person asked for another try. Set by [`Ledger::retry`] alone, which leaves `step` and `outcome` as they are;
    /// [`Ledger::commit`] says when it is cleared.
    pub retry: bool,
    /// The account that `handle` belongs to.
    pub account: String,
    /// Where the message was last seen.
    pub handle: MessageId,
    /// In which of the job's folders that is.
    pub place: Place,
    /// The run that wrote the row last: [`Lease::token`].
    pub run: i64,
    /// Of the attached files.
    pub digest: Digest,
    /// The sent time in seconds, where the message has a date.
    pub sent_second: Option<i64>,
    /// The sender's address, lower case.
    pub sender: String,
    /// The subject, normalised for comparison.
    pub subject_norm: String,
    /// The subject, for people.
    pub subject: Option<String>,
    /// The writer, for people.
    pub from: Option<Address>,
    /// The `Message-ID` header as it stands in the message.
    pub internet_message_id: Option<String>,
    /// When the mailbox got it.
    pub received: Timestamp,
    /// When the row was first written.
    pub first_seen: Timestamp,
    /// Another row that this may be a copy of, when that cannot be proven.
    pub possible_duplicate_of: Option<(MessageKey, u32)>,
}

impl Row {
    /// Of a message that was never handed over: [`Step::Waiting`] in the import folder, first seen when it was
    /// received, and nothing else known about it.
    pub fn new(key: MessageKey, account: impl Into<String>, handle: MessageId, received: Timestamp) -> Self {
        Self {
            key,
            discriminator: 0,
            step: Step::Waiting,
            outcome: None,
            reason: None,
            deliveries: 0,
            attempts: 0,
            deaths: 0,
            last_attempt: None,
            next_attempt: None,
            retry: false,
            account: account.into(),
            handle,
            place: Place::Import,
            run: 0,
            digest: Digest::Unknown,
            sent_second: None,
            sender: String::new(),
            subject_norm: String::new(),
            subject: None,
            from: None,
            internet_message_id: None,
            received,
            first_seen: received,
            possible_duplicate_of: None,
        }
    }
}

/// Which rows of a scope.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Find<'a> {
    /// Those that a listed message could be: the same handle in the same account, or the same key.
    Message {
        /// The account it was listed by.
        account: &'a str,
        /// Its handle there.
        handle: &'a MessageId,
        /// Its key.
        key: &'a MessageKey,
    },
    /// Those with this normalised subject; with `without_message_id`, only those whose message had no Message-ID.
    Subject {
        /// As [`Row::subject_norm`].
        subject_norm: &'a str,
        /// Only rows whose `internet_message_id` is `None`.
        without_message_id: bool,
    },
    /// All that are not [`Step::Done`], and those that a retry was asked for.
    Pending,
    /// All that are [`Step::Done`] and lie in the import folder of this account ([`Place::Import`]), received then or
    /// later.
    Remaining {
        /// The account.
        account: &'a str,
        /// A lower bound for [`Row::received`].
        since: Option<Timestamp>,
    },
    /// All whose outcome is [`Recorded::Failed`], or which wait after an attempt that failed ([`Row::attempts`] above
    /// 0) or for the retry of one.
    Failures,
}

/// Durable memory of what each job did with each message, and the lease that lets one run write at a time.
///
/// An implementation must be durable when a call returns, and atomic per call. `SqlStore` is the one that comes with
/// the crate.
#[async_trait]
pub trait Ledger: fmt::Debug + Send + Sync + 'static {
    /// Takes the lease of a scope for `ttl`; `None` when another run holds it. The lease of a process on this machine
    /// that is known to be dead is taken over at once, any other after it has expired.
    async fn acquire(&self, scope: &Scope, ttl: Duration) -> Result<Option<Lease>>;

    /// Makes the lease last `ttl` from now, also one that has expired if nobody has taken it over yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) when somebody else has taken it over, or it was given
    /// back.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<()>;

    /// Whether the lease still holds; asked before every move.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) when it expired or somebody else has taken it over.
    async fn check(&self, lease: &Lease) -> Result<()>;

    /// Gives the lease back. Not an error when it was lost before.
    async fn release(&self, lease: &Lease) -> Result<()>;

    /// Writes these rows, all or none: inserts or replaces, by (scope, key, discriminator).
    ///
    /// [`Row::retry`] is not taken from the rows. One that is set stays set, together with the attempts and the next
    /// attempt that [`retry`](Self::retry) left, so that a run that read the row before cannot wipe the request out.
    /// Two writes clear it: of [`Step::Claimed`], which answers the request, and of an outcome other than
    /// [`Recorded::Failed`], which leaves nothing to try again. They, and every write of a row without a request,
    /// are stored as given.
    ///
    /// Times may be kept in whole microseconds, rounded down.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) when the lease no longer holds; nothing is written then.
    async fn commit(&self, lease: &Lease, rows: Vec<Row>) -> Result<()>;

    /// Rows of a scope, the oldest received first.
    async fn find(&self, scope: &Scope, what: Find<'_>) -> Result<Vec<Row>>;

    /// The same rows in the same order, one after the other, for a reader that keeps little of each: there may be as
    /// many as there are messages in a folder. This implementation reads them with [`find`](Self::find); one whose rows
    /// lie on disk should do better than to hold them all.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find); some rows may have been given by then.
    async fn find_each(&self, scope: &Scope, what: Find<'_>, take: &mut (dyn FnMut(Row) + Send)) -> Result<()> {
        self.find(scope, what).await?.into_iter().for_each(take);
        Ok(())
    }

    /// Everything received before this moment is settled: the smallest `received` of rows that are not
    /// [`Step::Done`], else the largest of those that are. No row counts as later than it was first seen. `None`
    /// without rows.
    async fn watermark(&self, scope: &Scope) -> Result<Option<Timestamp>>;

    /// The mailboxes that this job has rows for.
    async fn mailboxes(&self, job: &str) -> Result<Vec<String>>;

    /// Queues failed messages of a job for another try, with attempts starting at 0 and nothing to wait for: those
    /// with this key, or all that [`Find::Failures`] finds. When no failed message has exactly this key, those are
    /// taken whose key is this one after its first `:`, with or without angle brackets, as a person writes it who
    /// copies a Message-ID. Returns how many there were. Needs no lease.
    async fn retry(&self, job: &str, key: Option<&MessageKey>) -> Result<u64>;

    /// When `since = "now"` began to count for this scope: the time of the first call, remembered.
    async fn baseline(&self, scope: &Scope, now: Timestamp) -> Result<Timestamp>;
}
