//! The guarantee over real processes: killed at random moments, run at the same time, paused past their lease, and
//! with a disk that is full. All on a Maildir and SQLite.
//!
//! The processes are this program again, with the first argument `child`.
#![cfg(all(unix, feature = "sqlite"))]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use libtest_mimic::{Arguments, Failed, Trial};
use mail_account::{
    Clock, Context, Delivery, FolderSpec, ImportJob, Importer, Ledger as _, MailAccount, Outcome, Query, Role, Scope,
    SqlStore, Status, handler_fn,
    provider::maildir::{MaildirAccount, MaildirConfig},
    store::{Find, Recorded, Step},
    testing::mail,
};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [child, folder, ahead, out] = args.as_slice()
        && child == "child"
    {
        let ahead = ahead.parse().expect("seconds");
        return runtime().block_on(import(Path::new(folder), ahead, Path::new(out)));
    }
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok::<(), Failed>(())
        })
    };
    let trials = vec![
        trial("killed_at_random_moments_it_loses_nothing", killed_at_random_moments),
        trial("a_second_process_is_busy_and_a_dead_one_is_not_waited_for", a_second_process_is_busy),
        trial("a_process_paused_past_its_lease_writes_nothing_more", paused_past_its_lease),
        trial("a_full_disk_stops_the_run_and_costs_no_attempt", a_full_disk),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The real time, or some time later.
#[derive(Debug)]
struct Ahead(i64);

#[async_trait]
impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(Timestamp::now().as_millisecond() + self.0 * 1000).unwrap()
    }

    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}

fn maildir(folder: &Path) -> MaildirAccount {
    MaildirAccount::open("local", MaildirConfig::new(folder.join("mailbox"))).unwrap()
}

fn job() -> ImportJob {
    ImportJob::new("facturen", FolderSpec::Role(Role::Inbox))
        .with_processed_folder("Inbox/Processed".parse().unwrap())
        .with_failed_folder("Inbox/Failed".parse().unwrap())
        .with_create_folders(true)
        .with_max_attempts(1)
}

/// What a child does: one run. It writes down each hand-over before it begins, and while a file `hold` lies in the
/// folder it does not finish any.
async fn import(folder: &Path, ahead: i64, out: &Path) -> ExitCode {
    let context = Context::default().with_clock(Arc::new(Ahead(ahead)));
    let store = SqlStore::open(folder.join("state.db")).await.unwrap().with_context(context.clone());
    let account: Arc<dyn MailAccount> = Arc::new(maildir(folder));
    let (hold, log, out) = (folder.join("hold"), folder.join("hand-overs"), out.to_owned());
    let handler = handler_fn(move |mail: Delivery| {
        let (hold, log, out) = (hold.clone(), log.clone(), out.clone());
        async move {
            let line = format!("{} {} {} {}\n", mail.key(), mail.discriminator(), mail.id(), mail.attempt());
            // One write: lines of several processes do not mix.
            let mut log = std::fs::OpenOptions::new().append(true).create(true).open(log)?;
            log.write_all(line.as_bytes())?;
            for file in mail.attachments() {
                file.save_in(&out).await?;
            }
            while hold.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(Outcome::Imported)
        }
    });
    let report = Importer::new(job(), [account], Arc::new(store)).with_context(context).run(handler).await.unwrap();
    let account = &report.accounts[0];
    assert!(account.counts.closes(), "{:?}", account.counts);
    let text = format!("{} {:?} {:?}", account.status.as_str(), account.counts, account.error);
    println!("{text}");
    match account.status {
        Status::Done => ExitCode::SUCCESS,
        Status::Busy => ExitCode::from(3),
        Status::Stopped => ExitCode::from(4),
        _ => ExitCode::from(5),
    }
}

const BUSY: i32 = 3;
const STOPPED: i32 = 4;
const ERROR: i32 = 5;

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new(messages: usize) -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        runtime().block_on(async {
            let account = maildir(world.path());
            account.create_mailbox().await.unwrap();
            let inbox = account.resolve_folder(&FolderSpec::Role(Role::Inbox)).await.unwrap().id;
            for n in 0..messages {
                let id = format!("<{n}@leverancier.example>");
                let mail = mail()
                    .with_subject(format!("Factuur {n}"))
                    .with_message_id(id.as_str())
                    .with_attachment("factuur.xml", content(n));
                let received = Timestamp::from_second(1_770_000_000 + i64::try_from(n).unwrap()).unwrap();
                account.deliver_at(&inbox, mail.build(), received).await.unwrap();
            }
        });
        world
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn out(&self) -> PathBuf {
        self.path().join("out")
    }

    fn start(&self, ahead: i64) -> Child {
        self.start_with(ahead, &self.out())
    }

    fn start_with(&self, ahead: i64, out: &Path) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .arg("child")
            .arg(self.path())
            .arg(ahead.to_string())
            .arg(out)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn finish(&self) {
        let ended = self.start(0).wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    }

    /// (key, discriminator, delivery id, attempt) of each hand-over, in order.
    fn hand_overs(&self) -> Vec<(String, String, String, String)> {
        let log = std::fs::read_to_string(self.path().join("hand-overs")).unwrap_or_default();
        log.lines()
            .map(|line| {
                let mut words = line.split(' ').map(str::to_owned);
                let mut next = || words.next().expect("four words");
                (next(), next(), next(), next())
            })
            .collect()
    }

    /// Keys whose outcome is recorded.
    fn recorded(&self) -> BTreeSet<String> {
        runtime().block_on(async {
            let store = SqlStore::open(self.path().join("state.db")).await.unwrap();
            let scope = self.scope();
            let mut keys = BTreeSet::new();
            for (key, ..) in self.hand_overs() {
                let key: mail_account::MessageKey = key.parse().unwrap();
                let nobody = mail_account::MessageId::new("");
                let what = Find::Message { account: "", handle: &nobody, key: &key };
                for row in store.find(&scope, what).await.unwrap() {
                    if matches!(row.step, Step::Handled | Step::Done) && row.outcome == Some(Recorded::Imported) {
                        keys.insert(row.key.to_string());
                    }
                }
            }
            keys
        })
    }

    fn scope(&self) -> Scope {
        Scope::new("facturen", maildir(self.path()).mailbox().name.clone())
    }

    fn count(&self, folder: &str) -> usize {
        runtime().block_on(async {
            let account = maildir(self.path());
            let Ok(folder) = account.resolve_folder(&folder.parse().unwrap()).await else { return 0 };
            account.fetch_messages(&folder.id, Query::default()).try_collect::<Vec<_>>().await.unwrap().len()
        })
    }

    /// Every file, complete, and nothing unfinished.
    fn check_files(&self, messages: usize) {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(self.out().join("local")).unwrap() {
            for file in std::fs::read_dir(entry.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                assert!(path.extension().is_some_and(|e| e == "xml"), "left behind: {}", path.display());
                *found.entry(std::fs::read(path).unwrap()).or_insert(0) += 1;
            }
        }
        assert_eq!(found.len(), messages);
        for n in 0..messages {
            assert_eq!(found.get(content(n).as_bytes()), Some(&1), "file of message {n}");
        }
    }
}

fn content(n: usize) -> String {
    format!("<factuur>{n}</factuur>\r\n").repeat(40)
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if is_there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("waited for {what} in vain");
}

fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status().unwrap();
    assert!(status.success(), "kill -{signal}");
}

fn killed_at_random_moments() {
    const MESSAGES: usize = 500;
    const KILLS: usize = 60;
    let world = World::new(MESSAGES);
    let mut dice = 0x2545_F491_4F6C_DD1D_u64;
    let mut recorded = BTreeSet::new();
    for kill in 0..KILLS {
        let before = world.hand_overs().len();
        let mut child = world.start(0);
        // After some hand-overs, and a moment more: anywhere between two of them.
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let more = usize::try_from(dice % 8).unwrap();
        let mut ended = false;
        wait_for("hand-overs", || {
            ended = child.try_wait().unwrap().is_some();
            ended || world.hand_overs().len() > before + more
        });
        assert!(!ended, "the run was over after {kill} kills: kill earlier");
        std::thread::sleep(Duration::from_micros(dice % 5000));
        child.kill().unwrap();
        child.wait().unwrap();
        for (key, ..) in &world.hand_overs()[before..] {
            assert!(!recorded.contains(key), "{key} was handed over after its outcome was recorded");
        }
        recorded = world.recorded();
    }
    world.finish();
    assert_eq!(world.count("Inbox"), 0);
    assert_eq!(world.count("Inbox/Processed"), MESSAGES);
    assert_eq!(world.count("Inbox/Failed"), 0);
    world.check_files(MESSAGES);
    let mut deliveries: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (key, discriminator, delivery, attempt) in world.hand_overs() {
        assert_eq!((discriminator.as_str(), attempt.as_str()), ("0", "1"), "{key}: a crash uses up no attempt");
        deliveries.entry(key).or_default().insert(delivery);
    }
    assert_eq!(deliveries.len(), MESSAGES);
    assert!(deliveries.values().all(|ids| ids.len() == 1), "a repeated hand-over has the same delivery id");
}

fn a_second_process_is_busy() {
    let world = World::new(20);
    std::fs::write(world.path().join("hold"), "").unwrap();
    let mut first = world.start(0);
    wait_for("the first hand-over", || !world.hand_overs().is_empty());
    let second = world.start(0).wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(BUSY), "{}", String::from_utf8_lossy(&second.stdout));
    // A paused process is alive: it is not robbed before its lease expires.
    signal(&first, "STOP");
    let third = world.start(0).wait_with_output().unwrap();
    assert_eq!(third.status.code(), Some(BUSY));
    first.kill().unwrap();
    first.wait().unwrap();
    // A dead one is, at once.
    std::fs::remove_file(world.path().join("hold")).unwrap();
    world.finish();
    assert_eq!(world.count("Inbox/Processed"), 20);
}

fn paused_past_its_lease() {
    let world = World::new(12);
    std::fs::write(world.path().join("hold"), "").unwrap();
    let first = world.start(0);
    wait_for("four hand-overs", || world.hand_overs().len() == 4);
    signal(&first, "STOP");
    std::fs::remove_file(world.path().join("hold")).unwrap();
    // Another machine's clock says that the lease has expired.
    let second = world.start(600).wait_with_output().unwrap();
    assert!(second.status.success(), "{}", String::from_utf8_lossy(&second.stdout));
    assert_eq!(world.count("Inbox/Processed"), 12);
    let before = world.recorded();
    assert_eq!(before.len(), 12);
    signal(&first, "CONT");
    let first = first.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&first.stdout);
    assert_eq!(first.status.code(), Some(ERROR), "{text}");
    assert!(text.contains("taken"), "{text}");
    assert_eq!(world.recorded(), before);
    assert_eq!(world.count("Inbox/Processed"), 12);
    let mut times: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (key, _, delivery, _) in world.hand_overs() {
        *times.entry((key, delivery)).or_default() += 1;
    }
    assert_eq!(times.len(), 12, "a second hand-over has the same delivery id");
    assert_eq!(times.values().filter(|n| **n == 2).count(), 4, "{times:?}");
}

/// A disk of its own, if this user may mount one; else the same error by another way: a file in place of a folder.
fn a_full_disk() {
    let world = World::new(8);
    let small = world.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8k", "tmpfs"])
        .arg(&small)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let out = if mounted { small.join("out") } else { Path::new("/dev/full").join("out") };
    let ended = world.start_with(0, &out).wait_with_output().unwrap();
    if mounted {
        assert!(Command::new("umount").arg(&small).status().unwrap().success());
    }
    assert_eq!(ended.status.code(), Some(STOPPED), "{}", String::from_utf8_lossy(&ended.stdout));
    assert_eq!(world.count("Inbox/Failed"), 0);
    let handled = world.count("Inbox/Processed");
    assert_eq!(world.count("Inbox") + handled, 8);
    assert!(handled < 8, "the disk was not full");
    world.finish();
    assert_eq!(world.count("Inbox/Processed"), 8);
    assert!(world.hand_overs().iter().all(|(.., attempt)| attempt == "1"), "no attempt was lost");
}
