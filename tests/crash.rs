//! The guarantee, at every crash point: the importer is killed before and after every single call of the ledger and the
//! account, and in the handler, and started again. A second actor moves, deletes and adds mail meanwhile.
#![cfg(feature = "sqlite")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    future::pending,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use mail_account::{
    Clock, Context, Delivery, HandlerError, ImportJob, Importer, JobReport, Ledger, MailAccount, MessageKey, Outcome,
    Result, Scope, SqlStore, Status, handler_fn,
    provider::memory::{MemoryAccount, MemoryMailbox, MemoryOptions, Operation, Phase, Reaction},
    store::{Find, Lease, Recorded, Row, Step},
};
use tokio_util::sync::CancellationToken;

/// Counts steps, and ends the process at one of them.
#[derive(Debug, Default)]
struct Steps {
    at: usize,
    count: AtomicUsize,
    killed: CancellationToken,
}

impl Steps {
    fn kill_at(at: usize) -> Arc<Self> {
        Arc::new(Self { at, ..Self::default() })
    }

    /// Whether the process dies at this step.
    fn is_last(&self) -> bool {
        let last = self.count.fetch_add(1, SeqCst) + 1 == self.at;
        if last {
            self.killed.cancel();
        }
        last || self.killed.is_cancelled()
    }

    async fn step(&self) {
        if self.is_last() {
            pending::<()>().await;
        }
    }
}

/// A ledger that dies with its process.
#[derive(Debug)]
struct Mortal {
    store: SqlStore,
    steps: Arc<Steps>,
    world: Arc<World>,
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
            self.world.recorded(&rows);
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

/// A clock that a test moves on.
#[derive(Debug)]
struct TestClock(AtomicI64);

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.0.load(SeqCst)).unwrap()
    }

    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}

/// What outlives the processes, and what is known of what they did.
struct World {
    mailbox: MemoryMailbox,
    clock: Arc<TestClock>,
    folder: tempfile::TempDir,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// (key, discriminator) -> delivery id -> how often it was handed over.
    deliveries: BTreeMap<(String, u32), BTreeMap<String, usize>>,
    /// Outcomes that were durable.
    recorded: BTreeMap<(String, u32), Recorded>,
    /// Put back by a person since: may be handed over again.
    put_back: BTreeSet<String>,
    violations: Vec<String>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

const RECEIVED: i64 = 1_790_000_000;

fn mime(name: &str, message_id: Option<&str>, file: &str) -> String {
    let id = message_id.map(|id| format!("Message-ID: <{id}>\r\n")).unwrap_or_default();
    format!(
        "From: Leverancier <facturen@leverancier.example>\r\nTo: import@contoso.example\r\nSubject: Factuur {name}\r\n\
         Date: Mon, 5 Jan 2026 10:00:00 +0100\r\n{id}MIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nBijgaand.\r\n\
         --b\r\nContent-Type: application/xml; name=f.xml\r\nContent-Disposition: attachment; filename=f.xml\r\n\r\n\
         {file}\r\n--b--\r\n"
    )
}

impl World {
    fn new(messages: usize) -> Arc<Self> {
        let mailbox = MemoryMailbox::new("import@contoso.example");
        let world = Arc::new(Self {
            mailbox,
            clock: Arc::new(TestClock(AtomicI64::new((RECEIVED + 86_400) * 1000))),
            folder: tempfile::tempdir().unwrap(),
            seen: Mutex::default(),
        });
        for n in 0..messages {
            world.deliver(n);
        }
        world
    }

    /// Every kind of message that the identity rules treat on their own: with and without a Message-ID, and a scanner
    /// that uses one Message-ID for everything.
    fn deliver(&self, n: usize) {
        let own = format!("{n}@leverancier.example");
        let id = match n % 4 {
            1 => Some("scanner@kantoor.example"),
            3 => None,
            _ => Some(own.as_str()),
        };
        let received = Timestamp::from_second(RECEIVED + i64::try_from(n).unwrap()).unwrap();
        self.mailbox.deliver("Inbox", mime(&n.to_string(), id, &format!("<factuur>{n}</factuur>")), received).unwrap();
    }

    fn context(&self) -> Context {
        Context::default().with_clock(Arc::clone(&self.clock) as Arc<dyn Clock>)
    }

    fn pass(&self, time: Duration) {
        self.clock.0.fetch_add(i64::try_from(time.as_millis()).unwrap(), SeqCst);
    }

    fn recorded(&self, rows: &[Row]) {
        let mut seen = self.seen.lock().unwrap();
        for row in rows {
            if let (Step::Handled | Step::Done, Some(outcome)) = (row.step, row.outcome) {
                seen.recorded.insert((row.key.to_string(), row.discriminator), outcome);
            }
        }
    }

    fn handed_over(&self, mail: &Delivery) {
        let name = (mail.key().to_string(), mail.discriminator());
        let subject = mail.subject.clone().unwrap_or_default();
        let mut seen = self.seen.lock().unwrap();
        if let Some(outcome) = seen.recorded.get(&name).copied()
            && outcome != Recorded::Gone
            && !seen.put_back.contains(&subject)
        {
            seen.violations.push(format!("{name:?} was handed over after {outcome:?} was recorded"));
        }
        *seen.deliveries.entry(name).or_default().entry(mail.id().to_owned()).or_default() += 1;
    }

    /// One process: runs the job, and perhaps dies at a step.
    fn process(self: &Arc<Self>, steps: &Arc<Steps>, concurrency: usize, act: Option<Act>) -> Option<JobReport> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = SqlStore::open(self.folder.path().join("state.db")).await.unwrap().with_context(self.context());
            let ledger = Mortal { store, steps: Arc::clone(steps), world: Arc::clone(self) };
            let account: Arc<dyn MailAccount> =
                Arc::new(MemoryAccount::open("memory", &self.mailbox, MemoryOptions::default().with_move_batch(3)));
            let hooked = Arc::clone(steps);
            let (act, world) = (act.map(Mutex::new), Arc::downgrade(self));
            self.mailbox.on_call(move |call| {
                if let (Some(act), Some(world)) = (&act, world.upgrade())
                    && call.phase == Phase::Before
                {
                    (act.lock().unwrap())(&world, call.operation);
                }
                if hooked.is_last() { Reaction::Hang } else { Reaction::Go }
            });
            let job = ImportJob::new("facturen", "Inbox".parse().unwrap())
                .with_processed_folder("Inbox/Processed".parse().unwrap())
                .with_failed_folder("Inbox/Failed".parse().unwrap())
                .with_create_folders(true)
                .with_handler_concurrency(concurrency);
            let (world, handled) = (Arc::clone(self), Arc::clone(steps));
            let handler = handler_fn(move |mail: Delivery| {
                let (world, steps) = (Arc::clone(&world), Arc::clone(&handled));
                async move {
                    steps.step().await;
                    world.handed_over(&mail);
                    for file in mail.attachments() {
                        file.content().bytes(1 << 20).await?;
                    }
                    steps.step().await;
                    outcome(mail.subject.as_deref().unwrap_or_default())
                }
            });
            let importer = Importer::new(job, [account], Arc::new(ledger)).with_context(self.context());
            tokio::select! {
                biased;
                () = steps.killed.cancelled() => None,
                report = importer.run(handler) => Some(report.unwrap()),
            }
        })
    }

    /// Runs to the end without dying: as often as redeliveries need.
    fn run_to_the_end(self: &Arc<Self>, concurrency: usize) {
        for _ in 0..4 {
            let steps = Steps::kill_at(0);
            let report = self.process(&steps, concurrency, None).expect("nothing kills it");
            check_report(&report);
            self.pass(Duration::from_secs(3600));
        }
    }

    fn subjects(&self, folder: &str) -> Vec<String> {
        let Ok(mails) = self.mailbox.contents(folder) else { return Vec::new() };
        let mut subjects: Vec<_> = mails
            .iter()
            .map(|mail| {
                let text = String::from_utf8_lossy(&mail.raw).into_owned();
                text.lines().find_map(|l| l.strip_prefix("Subject: ")).unwrap().to_owned()
            })
            .collect();
        subjects.sort();
        subjects
    }

    fn verdict(&self, when: &str) {
        let seen = self.seen.lock().unwrap();
        assert!(seen.violations.is_empty(), "{when}: {:#?}", seen.violations);
    }
}

type Act = Box<dyn FnMut(&Arc<World>, Operation) + Send>;

/// Says how the host handles a message: most are taken, some are not.
fn outcome(subject: &str) -> Result<Outcome, HandlerError> {
    let n: usize = subject.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    match n % 7 {
        4 => Ok(Outcome::Skip("not an invoice".into())),
        5 => Ok(Outcome::Reject("unreadable".into())),
        6 if is_poison(n) => Err("the archive does not like it".into()),
        _ => Ok(Outcome::Imported),
    }
}

/// Fewer than five: more of them in a row would be the host's trouble.
fn is_poison(n: usize) -> bool {
    n % 7 == 6 && n < 21
}

fn check_report(report: &JobReport) {
    for account in &report.accounts {
        assert!(account.counts.closes(), "{:?}", account.counts);
        assert!(account.error.is_none(), "{:?}", account.error);
        assert_eq!(account.status, Status::Done);
    }
}

/// After everything has settled: every message handed over, each in the folder it belongs to, once.
fn check_all_there(world: &World, messages: usize, when: &str) {
    world.verdict(when);
    let (mut processed, mut failed) = (Vec::new(), Vec::new());
    for n in 0..messages {
        let subject = format!("Factuur {n}");
        if n % 7 == 5 || is_poison(n) { failed.push(subject) } else { processed.push(subject) }
    }
    processed.sort();
    failed.sort();
    assert_eq!(world.subjects("Inbox"), Vec::<String>::new(), "{when}");
    assert_eq!(world.subjects("Inbox/Processed"), processed, "{when}");
    assert_eq!(world.subjects("Inbox/Failed"), failed, "{when}");
    let seen = world.seen.lock().unwrap();
    assert_eq!(seen.deliveries.len(), messages, "{when}: {:#?}", seen.deliveries);
    for (name, deliveries) in &seen.deliveries {
        // A message whose handler fails is handed over three times, each under its own id, whatever crashed between.
        let attempts = if seen.recorded[name] == Recorded::Failed && deliveries.len() > 1 { 3 } else { 1 };
        assert_eq!(deliveries.len(), attempts, "{when}: {name:?} {deliveries:?}");
    }
}

#[test]
fn nothing_is_lost_or_repeated_whereever_it_dies() {
    const MESSAGES: usize = 8;
    let count = {
        let world = World::new(MESSAGES);
        let steps = Steps::kill_at(0);
        world.process(&steps, 2, None).unwrap();
        steps.count.load(SeqCst)
    };
    assert!(count > 60, "{count} steps");
    for at in 1..=count + 2 {
        let when = format!("killed at step {at} of {count}");
        let world = World::new(MESSAGES);
        world.process(&Steps::kill_at(at), 2, None);
        world.verdict(&when);
        world.run_to_the_end(2);
        check_all_there(&world, MESSAGES, &when);
    }
}

/// A small random number generator with a fixed seed: failures can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }
}

#[test]
fn many_deaths_in_random_places_lose_nothing() {
    const MESSAGES: usize = 60;
    for seed in 1..=12u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let world = World::new(MESSAGES);
        for _ in 0..25 {
            let report = world.process(&Steps::kill_at(1 + dice.roll(90)), 4, None);
            if let Some(report) = report {
                check_report(&report);
            }
        }
        world.run_to_the_end(4);
        check_all_there(&world, MESSAGES, &format!("seed {seed}"));
    }
}

#[test]
fn somebody_else_at_work_loses_nothing_either() {
    for seed in 1..=12u64 {
        let world = World::new(30);
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let added = Arc::new(AtomicUsize::new(30));
        let removed: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        world.mailbox.create_folder("Elsewhere").unwrap();
        for round in 0..20 {
            let mut person = Dice(seed * 1000 + round + 1);
            let (added, removed) = (Arc::clone(&added), Arc::clone(&removed));
            let act: Act = Box::new(move |world, _| {
                if person.roll(6) != 0 {
                    return;
                }
                let mut pick = |folder: &str| {
                    let mails = world.mailbox.contents(folder).unwrap_or_default();
                    (!mails.is_empty()).then(|| mails[person.roll(mails.len())].clone())
                };
                let subject = |raw: &[u8]| {
                    let text = String::from_utf8_lossy(raw).into_owned();
                    text.lines().find_map(|l| l.strip_prefix("Subject: ")).unwrap().to_owned()
                };
                match round % 4 {
                    0 => world.deliver(added.fetch_add(1, SeqCst)),
                    1 => {
                        if let Some(mail) = pick("Inbox") {
                            world.mailbox.delete(mail.id);
                            removed.lock().unwrap().insert(subject(&mail.raw));
                        }
                    }
                    2 => {
                        if let Some(mail) = pick("Inbox") {
                            world.mailbox.move_by_person(mail.id, "Elsewhere").unwrap();
                            removed.lock().unwrap().insert(subject(&mail.raw));
                        }
                    }
                    _ => {
                        if let Some(mail) = pick("Inbox/Processed") {
                            world.seen.lock().unwrap().put_back.insert(subject(&mail.raw));
                            world.mailbox.move_by_person(mail.id, "Inbox").unwrap();
                        }
                    }
                }
            });
            // A process that meets somebody else's work may also end with an error; only its sums are checked.
            if let Some(report) = world.process(&Steps::kill_at(1 + dice.roll(120)), 3, Some(act)) {
                assert!(report.accounts.iter().all(|a| a.counts.closes()), "{report:?}");
            }
        }
        world.run_to_the_end(3);
        let when = format!("seed {seed}");
        world.verdict(&when);
        assert_eq!(world.subjects("Inbox"), Vec::<String>::new(), "{when}");
        let removed = removed.lock().unwrap();
        let mut places: HashMap<String, usize> = HashMap::new();
        for folder in ["Inbox/Processed", "Inbox/Failed", "Elsewhere"] {
            for subject in world.subjects(folder) {
                *places.entry(subject).or_default() += 1;
            }
        }
        let seen = world.seen.lock().unwrap();
        for n in 0..added.load(SeqCst) {
            let subject = format!("Factuur {n}");
            let copies = places.get(&subject).copied().unwrap_or(0);
            assert!(copies == 1 || (copies == 0 && removed.contains(&subject)), "{when}: {subject} {copies} times");
        }
        assert!(seen.deliveries.len() >= added.load(SeqCst) - removed.len(), "{when}");
    }
}

#[test]
fn what_kills_the_process_five_times_is_handed_over_last_and_alone() {
    let world = World::new(4);
    let order: Arc<Mutex<Vec<String>>> = Arc::default();
    for _ in 0..5 {
        // Dies whenever `Factuur 0` is in hand.
        let steps = Steps::kill_at(usize::MAX);
        run_with(&world, &steps, {
            let steps = Arc::clone(&steps);
            move |subject: String| {
                let steps = Arc::clone(&steps);
                async move {
                    if subject == "Factuur 0" {
                        steps.killed.cancel();
                        pending::<()>().await;
                    }
                    // The others are slower than the crash.
                    pending::<()>().await;
                }
            }
        });
    }
    let steps = Steps::kill_at(0);
    run_with(&world, &steps, {
        let order = Arc::clone(&order);
        move |subject: String| {
            let order = Arc::clone(&order);
            async move { order.lock().unwrap().push(subject) }
        }
    });
    let order = order.lock().unwrap();
    assert_eq!(order.len(), 4);
    assert_eq!(order.last().map(String::as_str), Some("Factuur 0"), "{order:?}");
}

/// One process whose handler does only this.
fn run_with<F, Fut>(world: &Arc<World>, steps: &Arc<Steps>, f: F)
where
    F: Fn(String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(world.folder.path()).await.with_context(world.context());
        let ledger = Mortal { store, steps: Arc::clone(steps), world: Arc::clone(world) };
        let account: Arc<dyn MailAccount> =
            Arc::new(MemoryAccount::open("memory", &world.mailbox, MemoryOptions::default()));
        world.mailbox.clear_hook();
        let job = ImportJob::new("facturen", "Inbox".parse().unwrap()).with_handler_concurrency(1);
        let f = Arc::new(f);
        let importer = Importer::new(job, [account], Arc::new(ledger)).with_context(world.context());
        let run = importer.run(handler_fn(move |mail: Delivery| {
            let f = Arc::clone(&f);
            async move {
                f(mail.subject.clone().unwrap_or_default()).await;
                Ok(Outcome::Imported)
            }
        }));
        tokio::select! {
            biased;
            () = steps.killed.cancelled() => {}
            report = run => check_report(&report.unwrap()),
        }
    });
}

async fn open(folder: &Path) -> SqlStore {
    SqlStore::open(folder.join("state.db")).await.unwrap()
}
