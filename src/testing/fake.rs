//! [`FakeAccount`]: a host tests its handler against a mailbox, through the real importer.

use std::{
    fmt::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};

use super::{ledger::MemoryLedger, mail::Mail};
use crate::{
    Clock, Context, Event, Fate, Handler, ImportJob, Importer, JobReport, MailAccount, Query, Result,
    import::MessageRecord,
    provider::memory::{Fault, MemoryAccount, MemoryMailbox, MemoryOptions},
};

/// A mailbox with mail in it, a ledger, a clock, and a job that imports from `Inbox` to `Inbox/Processed` or
/// `Inbox/Failed`.
///
/// ```
/// use mail_account::{Delivery, Fate, Outcome, handler_fn, testing::{FakeAccount, mail}};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let fake = FakeAccount::new("facturen@contoso.nl")
///     .with_mail(mail().with_subject("Factuur 12").with_attachment("factuur.pdf", "%PDF-1.4"))
///     .with_mail(mail().with_subject("Nieuwsbrief"));
///
/// let run = fake.run(handler_fn(|mail: Delivery| async move {
///     Ok(if mail.attachments().is_empty() { Outcome::Skip("no invoice".into()) } else { Outcome::Imported })
/// })).await;
///
/// run.expect("Factuur 12", Fate::Imported).expect("Nieuwsbrief", Fate::Skipped);
/// assert_eq!(fake.subjects("Inbox/Processed").await?, ["Factuur 12", "Nieuwsbrief"]);
/// # Ok::<(), mail_account::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct FakeAccount {
    mailbox: MemoryMailbox,
    account: MemoryAccount,
    ledger: MemoryLedger,
    clock: Arc<FakeClock>,
    job: ImportJob,
}

impl FakeAccount {
    /// An empty mailbox of this address.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        let mailbox = MemoryMailbox::new(address);
        let account = MemoryAccount::open("fake", &mailbox, MemoryOptions::default());
        let clock = Arc::new(FakeClock::default());
        let ledger = MemoryLedger::new().with_context(Context::default().with_clock(Arc::clone(&clock) as _));
        let job = ImportJob::new("fake", path("Inbox"))
            .with_processed_folder(path("Inbox/Processed"))
            .with_failed_folder(path("Inbox/Failed"))
            .with_create_folders(true);
        Self { mailbox, account, ledger, clock, job }
    }

    /// Delivers a message to the inbox; also between two runs.
    #[must_use]
    pub fn with_mail(self, mail: Mail) -> Self {
        self.deliver(&mail);
        self
    }

    /// Delivers a message to the inbox.
    pub fn deliver(&self, mail: &Mail) {
        self.mailbox.deliver("Inbox", mail.build(), mail.received()).expect("an inbox can be named");
    }

    /// Scripts what goes wrong.
    #[must_use]
    pub fn with_fault(self, fault: Fault) -> Self {
        self.mailbox.fault(fault);
        self
    }

    /// Changes the job: attempts, headers, text, folders.
    #[must_use]
    pub fn with_job(mut self, change: impl FnOnce(ImportJob) -> ImportJob) -> Self {
        self.job = change(self.job);
        self
    }

    /// The mailbox, for what a person or the sender does to it, and for its call log.
    #[must_use]
    pub fn mailbox(&self) -> &MemoryMailbox {
        &self.mailbox
    }

    /// The account that the job runs on.
    #[must_use]
    pub fn account(&self) -> Arc<dyn MailAccount> {
        Arc::new(self.account.clone())
    }

    /// What the job remembers.
    #[must_use]
    pub fn ledger(&self) -> &MemoryLedger {
        &self.ledger
    }

    /// Lets so much time pass, so that the next run tries again what failed: 1 minute after the first attempt, 4 after
    /// the second, and so on.
    pub fn wait(&self, time: Duration) {
        let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
        let mut ahead = self.clock.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        *ahead = ahead.saturating_add(time);
    }

    /// Runs the job once.
    pub async fn run(&self, handler: impl Handler) -> FakeRun {
        let records = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&records);
        let report = Importer::new(self.job.clone(), [self.account()], Arc::new(self.ledger.clone()))
            .with_context(Context::default().with_clock(Arc::clone(&self.clock) as _))
            .with_events(move |event| {
                if let Event::Message(record) = event {
                    sink.lock().unwrap_or_else(PoisonError::into_inner).push(MessageRecord::clone(record));
                }
            })
            .run(handler)
            .await
            .expect("a ledger in memory can be read");
        let records = std::mem::take(&mut *records.lock().unwrap_or_else(PoisonError::into_inner));
        FakeRun { report, records, unmet: self.mailbox.unmet_faults() }
    }

    /// The subjects of the messages in a folder, oldest received first; empty for a missing subject.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is no such folder.
    pub async fn subjects(&self, folder: &str) -> Result<Vec<String>> {
        // Another name, so that looking is no call of the account that is tested.
        let person = MemoryAccount::open("person", &self.mailbox, MemoryOptions::default());
        let folder = person.resolve_folder(&folder.parse()?).await?;
        let messages = person.fetch_messages(&folder.id, Query::default().with_inline_up_to(0));
        messages.map_ok(|message| message.subject.unwrap_or_default()).try_collect().await
    }
}

fn path(folder: &str) -> crate::FolderSpec {
    folder.parse().expect("a path of this file")
}

/// What one run of a [`FakeAccount`] did.
#[derive(Debug)]
pub struct FakeRun {
    report: JobReport,
    records: Vec<MessageRecord>,
    unmet: Vec<String>,
}

impl FakeRun {
    /// The report.
    #[must_use]
    pub fn report(&self) -> &JobReport {
        &self.report
    }

    /// One record for each message that was seen.
    #[must_use]
    pub fn records(&self) -> &[MessageRecord] {
        &self.records
    }

    /// Expects that the messages with this subject, at least one, met this fate.
    ///
    /// # Panics
    ///
    /// When they did not; the text lists what was seen.
    #[track_caller]
    pub fn expect(&self, subject: &str, fate: Fate) -> &Self {
        let mut of_subject = self.records.iter().filter(|r| r.subject.as_deref() == Some(subject)).peekable();
        let met = of_subject.peek().is_some() && of_subject.all(|record| record.fate == fate);
        assert!(met, "expected `{subject}` to be {}, but the run saw:\n{self}", fate.as_str());
        self
    }

    /// Expects that so many messages were seen, whatever became of them.
    ///
    /// # Panics
    ///
    /// When there were more or fewer; the text lists what was seen.
    #[track_caller]
    pub fn expect_seen(&self, messages: usize) -> &Self {
        assert!(self.records.len() == messages, "expected {messages} messages, but the run saw:\n{self}");
        self
    }

    /// Expects that every scripted fault hit a call, in this run or before.
    ///
    /// # Panics
    ///
    /// When one did not; the text says which, and lists what was seen.
    #[track_caller]
    pub fn expect_faults_met(&self) -> &Self {
        assert!(self.unmet.is_empty(), "scripted faults hit no call: {}; the run saw:\n{self}", self.unmet.join(", "));
        self
    }
}

impl fmt::Display for FakeRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = String::new();
        for record in &self.records {
            let subject = record.subject.as_deref().unwrap_or("(no subject)");
            let _ = write!(lines, "  {:<12} {subject}", record.fate.as_str());
            if let Some(reason) = &record.reason {
                let _ = write!(lines, " ({reason})");
            }
            lines.push('\n');
        }
        if self.records.is_empty() {
            lines += "  no message\n";
        }
        for account in &self.report.accounts {
            if let Some(error) = &account.error {
                let _ = writeln!(lines, "  the account failed: {}", error.chain());
            }
            if let Some(reason) = &account.stopped_by {
                let _ = writeln!(lines, "  the handler stopped the run: {reason}");
            }
        }
        f.write_str(lines.trim_end())
    }
}

/// The time of day, set forward.
#[derive(Debug, Default)]
struct FakeClock {
    ahead: Mutex<SignedDuration>,
}

#[async_trait]
impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        let ahead = *self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        Timestamp::now().saturating_add(ahead).unwrap_or(Timestamp::MAX)
    }

    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Delivery, ErrorKind, Outcome, handler_fn, provider::memory::Operation, testing::mail};

    fn attempts(first_fail: u32) -> impl Handler {
        handler_fn(move |mail: Delivery| async move {
            Ok(if mail.attempt() <= first_fail { Outcome::Retry("not now".into()) } else { Outcome::Imported })
        })
    }

    #[tokio::test]
    async fn time_can_pass_between_attempts() {
        let fake = FakeAccount::new("x@contoso.nl").with_mail(mail().with_subject("A"));
        fake.run(attempts(1)).await.expect("A", Fate::Left);
        fake.run(attempts(1)).await.expect("A", Fate::Left);
        fake.wait(Duration::from_secs(90));
        fake.run(attempts(1)).await.expect("A", Fate::Imported);
        assert_eq!(fake.subjects("Inbox/Processed").await.unwrap(), ["A"]);
    }

    #[tokio::test]
    async fn the_last_attempt_fails_the_message() {
        let fake = FakeAccount::new("x@contoso.nl").with_mail(mail().with_subject("A"));
        for _ in 0..2 {
            fake.run(attempts(9)).await.expect("A", Fate::Left);
            fake.wait(Duration::from_secs(3600));
        }
        fake.run(attempts(9)).await.expect("A", Fate::Failed);
        assert_eq!(fake.subjects("Inbox/Failed").await.unwrap(), ["A"]);
    }

    #[tokio::test]
    #[should_panic(expected = "  imported     A")]
    async fn an_unmet_expectation_tells_what_was_seen() {
        let fake = FakeAccount::new("x@contoso.nl").with_mail(mail().with_subject("A"));
        fake.run(attempts(0)).await.expect("B", Fate::Imported);
    }

    #[tokio::test]
    #[should_panic(expected = "the account failed: a scripted fault")]
    async fn a_failing_account_is_told() {
        let fault = Fault::on(Operation::FetchMessages).always().error(ErrorKind::PermissionDenied);
        let fake = FakeAccount::new("x@contoso.nl").with_mail(mail()).with_fault(fault);
        fake.run(attempts(0)).await.expect_faults_met().expect_seen(1);
    }
}
