//! What a run tells: events while it goes on, counts when it is over.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{Address, Error, MessageId, MessageKey, Reason};

/// How many failures a report lists; all of them are events, and stand in the ledger.
pub(super) const FAILURES_LISTED: usize = 1000;

/// What became of one message in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fate {
    /// The handler took it.
    Imported,
    /// The handler took it again, after a person had put it back into the import folder.
    Reimported,
    /// It was settled in an earlier run; at most moved now.
    AlreadyDone,
    /// The handler did not want it.
    Skipped,
    /// Refused by the handler, or tried too often: final.
    Failed,
    /// It vanished before its hand-over was finished.
    Gone,
    /// Still to be imported: waiting for another try, or the run ended before its turn.
    Left,
}

impl Fate {
    /// The name used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Imported => "imported",
            Self::Reimported => "reimported",
            Self::AlreadyDone => "already_done",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Gone => "gone",
            Self::Left => "left",
        }
    }
}

/// One message that a run has seen; exactly one for each.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MessageRecord {
    /// The account's identifier.
    pub account: String,
    /// What the message is called across providers; `None` where the run ended before that was found out.
    pub key: Option<MessageKey>,
    /// The provider's handle when it was seen.
    pub id: MessageId,
    /// The `Message-ID` header.
    pub internet_message_id: Option<String>,
    /// For people.
    pub subject: Option<String>,
    /// For people.
    pub from: Option<Address>,
    /// When the mailbox got it.
    pub received: Timestamp,
    /// What became of it.
    pub fate: Fate,
    /// Why; set unless imported.
    pub reason: Option<Reason>,
    /// Whether a hand-over of it has failed, in this run or before, and will be repeated in a later one.
    pub will_retry: bool,
    /// The delivery's id, if there was a hand-over in this run.
    pub delivery: Option<String>,
}

/// What happens while a run goes on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// An account's run begins.
    Started {
        /// The account's identifier.
        account: String,
    },
    /// The fate of a message is known.
    Message(Box<MessageRecord>),
    /// So many messages were moved.
    Moved {
        /// The account's identifier.
        account: String,
        /// How many.
        messages: u64,
    },
    /// Something that a person should know, and that stops nothing.
    Warning {
        /// The account's identifier.
        account: String,
        /// What.
        message: String,
    },
    /// An account's run has ended.
    Finished {
        /// The account's identifier.
        account: String,
        /// How.
        status: Status,
    },
}

/// Takes events; called from the run, so it should be quick.
pub type EventSink = Arc<dyn Fn(&Event) + Send + Sync>;

/// How an account's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Nothing is left to do but what was left on purpose.
    Done,
    /// Another run holds the mailbox. A normal result.
    Busy,
    /// Stopped by the host.
    Stopped,
    /// The account failed; see [`AccountReport::error`].
    Error,
}

impl Status {
    /// The name used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Busy => "busy",
            Self::Stopped => "stopped",
            Self::Error => "error",
        }
    }
}

/// How many messages met which fate.
///
/// `seen = imported + reimported + already_done + skipped + failed + gone + left`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// All that were seen.
    pub seen: u64,
    /// See [`Fate::Imported`].
    pub imported: u64,
    /// See [`Fate::Reimported`].
    pub reimported: u64,
    /// See [`Fate::AlreadyDone`].
    pub already_done: u64,
    /// See [`Fate::Skipped`].
    pub skipped: u64,
    /// See [`Fate::Failed`].
    pub failed: u64,
    /// See [`Fate::Gone`].
    pub gone: u64,
    /// See [`Fate::Left`].
    pub left: u64,
    /// Beside the sum: settled, wanted in another folder, and not proven there at the end.
    pub unmoved: u64,
}

impl Counts {
    pub(super) fn add(&mut self, fate: Fate) {
        *match fate {
            Fate::Imported => &mut self.imported,
            Fate::Reimported => &mut self.reimported,
            Fate::AlreadyDone => &mut self.already_done,
            Fate::Skipped => &mut self.skipped,
            Fate::Failed => &mut self.failed,
            Fate::Gone => &mut self.gone,
            Fate::Left => &mut self.left,
        } += 1;
    }

    /// Whether every message that was seen met exactly one fate. Anything else is a bug of this crate.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.seen
            == self.imported + self.reimported + self.already_done + self.skipped + self.failed + self.gone + self.left
    }
}

/// What one run on one mailbox did.
#[derive(Debug)]
#[non_exhaustive]
pub struct AccountReport {
    /// The account's identifier.
    pub account: String,
    /// The provider's name.
    pub provider: String,
    /// The mailbox's name.
    pub mailbox: String,
    /// How it ended.
    pub status: Status,
    /// How many messages met which fate.
    pub counts: Counts,
    /// Files and items of the messages that were handed over, inline ones included, links not.
    pub attachments: u64,
    /// Their decoded bytes, as far as they were read.
    pub bytes: u64,
    /// Requests as the service counts them.
    pub requests: u64,
    /// Why the account failed.
    pub error: Option<Error>,
    /// Why the host stopped the run.
    pub stopped_by: Option<Reason>,
    /// The first 1,000 messages that failed, or whose hand-over failed and will be repeated.
    pub failures: Vec<MessageRecord>,
    /// What a person should know, and what stopped nothing.
    pub warnings: Vec<String>,
}

impl AccountReport {
    pub(super) fn new(account: &str, provider: &str, mailbox: &str) -> Self {
        Self {
            account: account.to_owned(),
            provider: provider.to_owned(),
            mailbox: mailbox.to_owned(),
            status: Status::Done,
            counts: Counts::default(),
            attachments: 0,
            bytes: 0,
            requests: 0,
            error: None,
            stopped_by: None,
            failures: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// What one run of a job did, account by account.
#[derive(Debug)]
#[non_exhaustive]
pub struct JobReport {
    /// The job's name.
    pub job: String,
    /// In the order of the job's settings.
    pub accounts: Vec<AccountReport>,
}

impl JobReport {
    /// The counts of all accounts together.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for Counts { seen, imported, reimported, already_done, skipped, failed, gone, left, unmoved } in
            self.accounts.iter().map(|a| a.counts)
        {
            sum.seen += seen;
            sum.imported += imported;
            sum.reimported += reimported;
            sum.already_done += already_done;
            sum.skipped += skipped;
            sum.failed += failed;
            sum.gone += gone;
            sum.left += left;
            sum.unmoved += unmoved;
        }
        sum
    }

    /// Whether an account failed.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.accounts.iter().any(|a| a.status == Status::Error)
    }

    /// Whether a message failed, is left after a failed attempt, or could not be moved.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        self.accounts.iter().any(|a| !a.failures.is_empty() || a.counts.failed > 0 || a.counts.unmoved > 0)
    }
}

/// Why a run on one mailbox ended early, with what it did until then.
#[derive(Debug)]
pub struct RunError {
    error: Error,
    report: Box<AccountReport>,
}

impl RunError {
    pub(super) fn new(error: Error, report: AccountReport) -> Self {
        Self { error, report: Box::new(report) }
    }

    /// What the run did until then; its [`error`](AccountReport::error) is `None` here.
    #[must_use]
    pub fn report(&self) -> &AccountReport {
        &self.report
    }

    /// The error itself.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Whether the same run may succeed later without anybody repairing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.error.is_retryable()
    }

    /// The service's lower bound for the next attempt.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.error.retry_after()
    }

    /// The report, with the error in it.
    #[must_use]
    pub fn into_report(self) -> AccountReport {
        AccountReport { error: Some(self.error), status: Status::Error, ..*self.report }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}
