//! IMAP under the importer while connections break and processes die: nothing is lost, nothing comes twice, sums close.
#![cfg(all(feature = "imap", feature = "sqlite"))]

#[path = "support/dovecot.rs"]
mod dovecot;
#[path = "support/mortal.rs"]
mod mortal;
#[path = "support/proxy.rs"]
mod proxy;

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use mail_account::{
    Clock, Context, Delivery, ImportJob, Importer, MailAccount, Outcome, Secret, SecretSource, Status, handler_fn,
    provider::{
        Opening,
        imap::{ImapConfig, Tls},
    },
    testing::MemoryLedger,
};

use dovecot::{Dovecot, Options, PASSWORD};
use mortal::{MortalAccount, Seen, Steps, TestClock, check_report, mime};
use proxy::Proxy;

/// A clock whose pauses are over soon.
#[derive(Debug)]
struct Hurry;

#[async_trait]
impl Clock for Hurry {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait.min(Duration::from_millis(2))).await;
    }
}

fn config(server: &Dovecot, user: &str) -> ImapConfig {
    let mut config = ImapConfig::new("localhost", user, SecretSource::Literal(Secret::new(PASSWORD)));
    config.port = Some(server.tls_port);
    config.ca_file = Some(server.ca_file.clone());
    config
}

/// The subjects in a folder, sorted, as they lie on the server's disk. Names end in their flags; a `T` among them means
/// that it is as good as gone.
fn subjects(server: &Dovecot, user: &str, folder: &str) -> Vec<String> {
    let folder = server.maildir(user, folder);
    let mut subjects = Vec::new();
    for part in ["cur", "new"] {
        for entry in fs::read_dir(folder.join(part)).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if name.split_once(":2,").is_some_and(|(_, flags)| flags.contains('T')) {
                continue;
            }
            let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
            subjects.push(text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap().to_owned());
        }
    }
    subjects.sort();
    subjects
}

fn on_disk(folder: &str) -> &str {
    match folder {
        "Inbox" => "",
        "Inbox/Processed" => ".INBOX.Processed",
        _ => ".INBOX.Failed",
    }
}

// ---- Connections that break -----------------------------------------------------------------------------------------

const N: usize = 150;

/// What `n` is called by: one of its own, one that many have, none.
fn message_id(n: usize) -> Option<String> {
    match n % 5 {
        3 => Some("scanner@kantoor.example".to_owned()),
        4 => None,
        _ => Some(format!("{n}@leverancier.example")),
    }
}

/// Mostly small, some that are read by their parts, and some in between.
fn file(n: usize) -> String {
    let size = match n % 25 {
        7 => 1_500_000,
        12 => 300_000,
        _ => 3_000,
    };
    let line = format!("<regel nummer=\"{n}\">{}</regel>\r\n", "x".repeat(50 + n % 7));
    line.repeat(size / line.len() + 1)
}

/// Returns how often a connection was cut.
async fn chaos(percent: u64, seed: u64, capability: Option<&'static str>) -> u64 {
    let server = Dovecot::with(Options { capability, ..Options::default() });
    let user = server.user();
    for n in 0..N {
        let text = mime(&n.to_string(), message_id(n).as_deref(), &file(n));
        server.deliver(&user, "", text.as_bytes(), SystemTime::now() - Duration::from_secs(10_000 - n as u64));
    }
    let proxy = Proxy::start(server.tls_port);
    proxy.chaos(seed, percent);
    let context = Context::default().with_clock(Arc::new(Hurry));
    let mut config = config(&server, &user);
    config.port = Some(proxy.port);
    let account = config.account(Opening::new("invoices").with_context(context.clone()), None).unwrap();
    let account: Arc<dyn MailAccount> = Arc::new(account);
    let ledger = Arc::new(MemoryLedger::new());
    let got = Arc::new(Mutex::new(BTreeMap::<String, Vec<bool>>::new()));
    let mut imported = 0;
    let mut runs = 0;
    loop {
        runs += 1;
        assert!(runs < 400, "{percent} %, seed {seed}: no end, {imported} of {N}");
        let job = ImportJob::new("facturen", "Inbox".parse().unwrap())
            .with_processed_folder("Inbox/Processed".parse().unwrap())
            .with_create_folders(true)
            .with_handler_concurrency(3);
        let importer =
            Importer::new(job, [Arc::clone(&account)], Arc::clone(&ledger) as _).with_context(context.clone());
        let seen = Arc::clone(&got);
        let report = importer
            .run(handler_fn(move |mail: Delivery| {
                let seen = Arc::clone(&seen);
                async move {
                    let subject = mail.subject.clone().unwrap_or_default();
                    let n: usize = subject.rsplit(' ').next().unwrap().parse().unwrap();
                    let bytes = mail.attachments()[0].content().bytes(4 << 20).await?;
                    // The line end before the boundary is not the file's.
                    let right = bytes == file(n).as_bytes();
                    seen.lock().unwrap().entry(subject).or_default().push(right);
                    Ok(Outcome::Imported)
                }
            }))
            .await
            .unwrap();
        let report = &report.accounts[0];
        let counts = &report.counts;
        assert!(counts.closes(), "{counts:?}");
        imported += counts.imported;
        if report.status == Status::Done && counts.unmoved == 0 && subjects(&server, &user, "").is_empty() {
            break;
        }
    }
    let when =
        format!("{percent} %, seed {seed}, {} connections, {} cuts, {runs} runs", proxy.connections(), proxy.cuts());
    println!("{when}");
    let mut expected: Vec<String> = (0..N).map(|n| format!("Factuur {n}")).collect();
    expected.sort();
    assert_eq!(subjects(&server, &user, ".INBOX.Processed"), expected, "{when}");
    let got = got.lock().unwrap();
    assert_eq!(got.keys().cloned().collect::<Vec<_>>(), expected, "{when}");
    for (subject, handed) in got.iter() {
        assert_eq!(handed, &[true], "{when}: {subject} once, with the right bytes");
    }
    assert_eq!(imported, N as u64, "{when}");
    proxy.cuts()
}

/// Several mailboxes, because one takes so few commands that it may well be spared.
async fn chaos_until(enough: u64, percent: u64, capability: Option<&'static str>) {
    let mut cuts = 0;
    for seed in 1..=8 {
        cuts += chaos(percent, seed, capability).await;
        if cuts >= enough {
            return;
        }
    }
    panic!("{cuts} cuts are no chaos");
}

/// Without MOVE, a move is COPY, STORE and EXPUNGE, and can break between them.
const COPIES: Option<&str> =
    Some("IMAP4rev1 SASL-IR AUTH=PLAIN UIDPLUS LITERAL+ LIST-EXTENDED SPECIAL-USE LIST-STATUS");

#[tokio::test(flavor = "multi_thread")]
async fn five_per_cent() {
    chaos_until(5, 5, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_per_cent_of_copies() {
    chaos_until(5, 5, COPIES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_per_cent() {
    chaos_until(20, 20, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_per_cent_of_copies() {
    chaos_until(20, 20, COPIES).await;
}

// ---- Processes that die ---------------------------------------------------------------------------------------------

/// One mailbox, and what is known of the processes that read it.
struct World<'a> {
    server: &'a Dovecot,
    user: String,
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
    seen: Arc<Seen>,
}

const RECEIVED: u64 = 1_790_000_000;

impl<'a> World<'a> {
    fn new(server: &'a Dovecot, messages: usize) -> Self {
        let user = server.user();
        for n in 0..messages {
            let text = mime(&n.to_string(), message_id(n).as_deref(), &format!("<factuur>{n}</factuur>"));
            let received = SystemTime::UNIX_EPOCH + Duration::from_secs(RECEIVED + n as u64);
            server.deliver(&user, "", text.as_bytes(), received);
        }
        let now = (RECEIVED as i64 + 86_400) * 1000;
        let clock = Arc::new(TestClock(AtomicI64::new(now)));
        Self { server, user, folder: tempfile::tempdir().unwrap(), clock, seen: Arc::default() }
    }

    async fn process(&self, steps: &Arc<Steps>) -> Option<mail_account::JobReport> {
        let context = Context::default().with_clock(Arc::clone(&self.clock) as Arc<dyn Clock>);
        // In the clear, because a hundred processes shake hands here.
        let mut config = config(self.server, &self.user);
        (config.port, config.tls) = (Some(self.server.port), Tls::None);
        let inner = config.account(Opening::new("invoices").with_context(context.clone()), None).unwrap();
        let account = Arc::new(MortalAccount { inner: Arc::new(inner), steps: Arc::clone(steps) });
        mortal::process(self.folder.path(), &context, &self.seen, steps, account, 2).await
    }

    /// As often as redeliveries need.
    async fn run_to_the_end(&self) {
        for _ in 0..3 {
            let report = self.process(&Steps::kill_at(0)).await.expect("nothing kills it");
            check_report(&report);
            self.clock.0.fetch_add(3_600_000, SeqCst);
            if subjects(self.server, &self.user, "").is_empty() {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_die_lose_and_repeat_nothing() {
    const MESSAGES: usize = 6;
    for capability in [None, COPIES] {
        let server = Dovecot::with(Options { capability, ..Options::default() });
        // All made before anybody signs in: the server sees no change of its password file within a second.
        let mut worlds: Vec<World<'_>> = (0..80).map(|_| World::new(&server, MESSAGES)).collect();
        let count = {
            let steps = Steps::kill_at(0);
            worlds.pop().unwrap().process(&steps).await.unwrap();
            steps.count.load(SeqCst)
        };
        assert!(count > 50, "{count} steps");
        // The core's own test dies everywhere; here one of two places is enough.
        let deaths = (1..=count).step_by(2).map(|at| {
            let (server, world) = (&server, worlds.pop().expect("more worlds than deaths"));
            async move {
                let when = format!("killed at step {at} of {count}, {capability:?}");
                world.process(&Steps::kill_at(at)).await;
                world.seen.verdict(&when);
                world.run_to_the_end().await;
                let there = |folder: &str| subjects(server, &world.user, on_disk(folder));
                world.seen.check_all_there(there, MESSAGES, &when);
            }
        });
        stream::iter(deaths).buffer_unordered(4).collect::<Vec<()>>().await;
    }
}
