//! Processes that die: what is the same whatever account they read.
#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream, stream::BoxStream};
use jiff::Timestamp;
use mail_account::{
    Access, AttachmentId, Capabilities, Clock, Content, Context, Delivery, Folder, FolderId, FolderSpec, HandlerError,
    ImportJob, Importer, JobReport, Ledger, MailAccount, MailboxInfo, Message, MessageId, MessageKey, MoveOutcome,
    Outcome, Query, Result, Scope, SqlStore, Status, Usage, handler_fn,
    store::{Find, Lease, Recorded, Row, Step},
};
use tokio_util::sync::CancellationToken;

/// Counts steps, and ends the process at one of them.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    at: usize,
    pub(crate) count: AtomicUsize,
    pub(crate) killed: CancellationToken,
}

impl Steps {
    pub(crate) fn kill_at(at: usize) -> Arc<Self> {
        Arc::new(Self { at, ..Self::default() })
    }

    /// Whether the process dies at this step.
    pub(crate) fn is_last(&self) -> bool {
        let last = self.count.fetch_add(1, SeqCst) + 1 == self.at;
        if last {
            self.killed.cancel();
        }
        last || self.killed.is_cancelled()
    }

    pub(crate) async fn step(&self) {
        if self.is_last() {
            pending::<()>().await;
        }
    }
}

/// A ledger that dies with its process.
#[derive(Debug)]
pub(crate) struct Mortal {
    pub(crate) store: SqlStore,
    pub(crate) steps: Arc<Steps>,
    pub(crate) seen: Arc<Seen>,
}

#[async_trait]
impl Ledger for Mortal {
    async fn acquire(&self, scope: &Scope, ttl: Duration) -> Result<Option<Lease>> {
        self.steps.step().await;
        let result = self.store.acquire(scope, ttl).await;
        self.steps.step().await;
        result
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<()> {
        self.store.renew(lease, ttl).await
    }

    async fn check(&self, lease: &Lease) -> Result<()> {
        self.steps.step().await;
        self.store.check(lease).await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        if self.steps.killed.is_cancelled() {
            return Ok(());
        }
        self.steps.step().await;
        let result = self.store.release(lease).await;
        self.steps.step().await;
        result
    }

    async fn commit(&self, lease: &Lease, rows: Vec<Row>) -> Result<()> {
        self.steps.step().await;
        let result = self.store.commit(lease, rows.clone()).await;
        if result.is_ok() {
            self.seen.recorded(&rows);
        }
        self.steps.step().await;
        result
    }

    async fn find(&self, scope: &Scope, what: Find<'_>) -> Result<Vec<Row>> {
        self.steps.step().await;
        self.store.find(scope, what).await
    }

    async fn watermark(&self, scope: &Scope) -> Result<Option<Timestamp>> {
        self.store.watermark(scope).await
    }

    async fn mailboxes(&self, job: &str) -> Result<Vec<String>> {
        self.store.mailboxes(job).await
    }

    async fn retry(&self, job: &str, key: Option<&MessageKey>) -> Result<u64> {
        self.store.retry(job, key).await
    }

    async fn baseline(&self, scope: &Scope, now: Timestamp) -> Result<Timestamp> {
        self.store.baseline(scope, now).await
    }
}

/// An account that dies with its process: before and after every call, and between the messages of a listing.
#[derive(Debug)]
pub(crate) struct MortalAccount {
    pub(crate) inner: Arc<dyn MailAccount>,
    pub(crate) steps: Arc<Steps>,
}

impl MortalAccount {
    async fn around<T>(&self, call: impl Future<Output = T>) -> T {
        self.steps.step().await;
        let result = call.await;
        self.steps.step().await;
        result
    }
}

#[async_trait]
impl MailAccount for MortalAccount {
    async fn list_folders(&self) -> Result<Vec<Folder>> {
        self.around(self.inner.list_folders()).await
    }

    fn fetch_messages(&self, folder: &FolderId, query: Query) -> BoxStream<'static, Result<Message>> {
        let steps = Arc::clone(&self.steps);
        let messages = self.inner.fetch_messages(folder, query);
        messages.then(move |message| step_before(Arc::clone(&steps), message)).boxed()
    }

    fn download_attachment(&self, message: &MessageId, attachment: &AttachmentId) -> Content {
        let pieces = self.inner.download_attachment(message, attachment).into_stream();
        let first = step_before(Arc::clone(&self.steps), pieces);
        Content::from_stream(stream::once(first).flatten())
    }

    async fn move_to_processed(&self, messages: &[MessageId], to: &FolderId) -> Vec<Result<MoveOutcome>> {
        self.around(self.inner.move_to_processed(messages, to)).await
    }

    fn mailbox(&self) -> &MailboxInfo {
        self.inner.mailbox()
    }

    async fn resolve_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        self.around(self.inner.resolve_folder(spec)).await
    }

    async fn create_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        self.around(self.inner.create_folder(spec)).await
    }

    async fn folder_access(&self, folder: &FolderId) -> Result<Access> {
        self.around(self.inner.folder_access(folder)).await
    }

    async fn fetch_message(&self, message: &MessageId) -> Result<Message> {
        self.around(self.inner.fetch_message(message)).await
    }

    async fn mark_read(&self, messages: &[MessageId], read: bool) -> Vec<Result<()>> {
        self.inner.mark_read(messages, read).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}

async fn step_before<T>(steps: Arc<Steps>, value: T) -> T {
    steps.step().await;
    value
}

/// A clock that a test moves on.
#[derive(Debug)]
pub(crate) struct TestClock(pub(crate) AtomicI64);

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.0.load(SeqCst)).unwrap()
    }

    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}

/// What is known of what the processes did.
#[derive(Debug, Default)]
pub(crate) struct Seen(pub(crate) Mutex<Known>);

#[derive(Debug, Default)]
pub(crate) struct Known {
    /// (key, discriminator) -> delivery id -> how often it was handed over.
    pub(crate) deliveries: BTreeMap<(String, u32), BTreeMap<String, usize>>,
    /// Outcomes that were durable.
    recorded: BTreeMap<(String, u32), Recorded>,
    /// Put back by a person since: may be handed over again.
    pub(crate) put_back: BTreeSet<String>,
    violations: Vec<String>,
}

impl Seen {
    fn recorded(&self, rows: &[Row]) {
        let mut seen = self.0.lock().unwrap();
        for row in rows {
            if let (Step::Handled | Step::Done, Some(outcome)) = (row.step, row.outcome) {
                seen.recorded.insert((row.key.to_string(), row.discriminator), outcome);
            }
        }
    }

    fn handed_over(&self, mail: &Delivery) {
        let name = (mail.key().to_string(), mail.discriminator());
        let subject = mail.subject.clone().unwrap_or_default();
        let mut seen = self.0.lock().unwrap();
        if let Some(outcome) = seen.recorded.get(&name).copied()
            && outcome != Recorded::Gone
            && !seen.put_back.contains(&subject)
        {
            seen.violations.push(format!("{name:?} was handed over after {outcome:?} was recorded"));
        }
        *seen.deliveries.entry(name).or_default().entry(mail.id().to_owned()).or_default() += 1;
    }

    pub(crate) fn verdict(&self, when: &str) {
        let seen = self.0.lock().unwrap();
        assert!(seen.violations.is_empty(), "{when}: {:#?}", seen.violations);
    }

    /// After everything has settled: every message handed over, each in the folder it belongs to, once. `subjects` are
    /// those of a folder, sorted.
    pub(crate) fn check_all_there(&self, subjects: impl Fn(&str) -> Vec<String>, messages: usize, when: &str) {
        self.verdict(when);
        let (mut processed, mut failed) = (Vec::new(), Vec::new());
        for n in 0..messages {
            let subject = format!("Factuur {n}");
            if n % 7 == 5 || is_poison(n) { failed.push(subject) } else { processed.push(subject) }
        }
        processed.sort();
        failed.sort();
        assert_eq!(subjects("Inbox"), Vec::<String>::new(), "{when}");
        assert_eq!(subjects("Inbox/Processed"), processed, "{when}");
        assert_eq!(subjects("Inbox/Failed"), failed, "{when}");
        let seen = self.0.lock().unwrap();
        assert_eq!(seen.deliveries.len(), messages, "{when}: {:#?}", seen.deliveries);
        for (name, deliveries) in &seen.deliveries {
            // A message whose handler fails is handed over three times, each under its own id, whatever crashed between.
            let attempts = if seen.recorded[name] == Recorded::Failed && deliveries.len() > 1 { 3 } else { 1 };
            assert_eq!(deliveries.len(), attempts, "{when}: {name:?} {deliveries:?}");
        }
    }
}

/// Runs the job over an account, and perhaps dies at a step, which gives `None`.
pub(crate) async fn process(
    folder: &Path,
    context: &Context,
    seen: &Arc<Seen>,
    steps: &Arc<Steps>,
    account: Arc<dyn MailAccount>,
    concurrency: usize,
) -> Option<JobReport> {
    let store = open(folder).await.with_context(context.clone());
    let ledger = Mortal { store, steps: Arc::clone(steps), seen: Arc::clone(seen) };
    let job = ImportJob::new("facturen", "Inbox".parse().unwrap())
        .with_processed_folder("Inbox/Processed".parse().unwrap())
        .with_failed_folder("Inbox/Failed".parse().unwrap())
        .with_create_folders(true)
        .with_handler_concurrency(concurrency);
    let (seen, handled) = (Arc::clone(seen), Arc::clone(steps));
    let handler = handler_fn(move |mail: Delivery| {
        let (seen, steps) = (Arc::clone(&seen), Arc::clone(&handled));
        async move {
            steps.step().await;
            seen.handed_over(&mail);
            for file in mail.attachments() {
                file.content().bytes(1 << 20).await?;
            }
            steps.step().await;
            outcome(mail.subject.as_deref().unwrap_or_default())
        }
    });
    let importer = Importer::new(job, [account], Arc::new(ledger)).with_context(context.clone());
    tokio::select! {
        biased;
        () = steps.killed.cancelled() => None,
        report = importer.run(handler) => Some(report.unwrap()),
    }
}

pub(crate) async fn open(folder: &Path) -> SqlStore {
    SqlStore::open(folder.join("state.db")).await.unwrap()
}

/// A mail with one file.
pub(crate) fn mime(name: &str, message_id: Option<&str>, file: &str) -> String {
    let id = message_id.map(|id| format!("Message-ID: <{id}>\r\n")).unwrap_or_default();
    format!(
        "From: Leverancier <facturen@leverancier.example>\r\nTo: import@contoso.example\r\nSubject: Factuur {name}\r\n\
         Date: Mon, 5 Jan 2026 10:00:00 +0100\r\n{id}MIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nBijgaand.\r\n\
         --b\r\nContent-Type: application/xml; name=f.xml\r\nContent-Disposition: attachment; filename=f.xml\r\n\r\n\
         {file}\r\n--b--\r\n"
    )
}

/// Says how the host handles a message: most are taken, some are not.
pub(crate) fn outcome(subject: &str) -> Result<Outcome, HandlerError> {
    let n: usize = subject.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    match n % 7 {
        4 => Ok(Outcome::Skip("not an invoice".into())),
        5 => Ok(Outcome::Reject("unreadable".into())),
        6 if is_poison(n) => Err("the archive does not like it".into()),
        _ => Ok(Outcome::Imported),
    }
}

/// Fewer than five: more of them in a row would be the host's trouble.
pub(crate) fn is_poison(n: usize) -> bool {
    n % 7 == 6 && n < 21
}

pub(crate) fn check_report(report: &JobReport) {
    for account in &report.accounts {
        assert!(account.counts.closes(), "{:?}", account.counts);
        assert!(account.error.is_none(), "{:?}", account.error);
        assert_eq!(account.status, Status::Done);
    }
}
