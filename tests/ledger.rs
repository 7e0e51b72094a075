//! What only several processes can show about the ledger: opening it at once, dying, being paused, a full disk.
//!
//! The processes are this program again, with the first argument `child`.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use libtest_mimic::{Arguments, Failed, Trial};
use mail_account::{
    Clock, Context, ErrorKind, Ledger as _, MessageId, Scope, SqlStore,
    store::{Find, Row, Step},
};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

const TTL: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [child, role, path, mailbox] = args.as_slice()
        && child == "child"
    {
        runtime().block_on(play(role, Path::new(path), mailbox));
        return ExitCode::SUCCESS;
    }
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok::<(), Failed>(())
        })
    };
    let trials = vec![
        trial("processes_may_open_a_new_ledger_at_once", processes_may_open_a_new_ledger_at_once),
        trial("processes_take_turns_on_one_lease", processes_take_turns_on_one_lease),
        #[cfg(unix)]
        trial("a_killed_writer_loses_nothing_it_acknowledged", a_killed_writer_loses_nothing_it_acknowledged),
        #[cfg(unix)]
        trial("a_paused_holder_keeps_its_lease_and_a_dead_one_does_not", a_paused_holder_keeps_its_lease),
        #[cfg(unix)]
        trial("a_holder_paused_past_its_lease_writes_nothing_more", a_holder_paused_past_its_lease),
        #[cfg(target_os = "linux")]
        trial("a_full_disk_is_survived", a_full_disk_is_survived),
        #[cfg(unix)]
        trial("a_folder_that_cannot_be_written_is_named", a_folder_that_cannot_be_written_is_named),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn scope(mailbox: &str) -> Scope {
    Scope::new("job", mailbox)
}

fn row(key: &str) -> Row {
    let received = "2026-11-22T09:00:00Z".parse().unwrap();
    Row::new(key.parse().unwrap(), "account", MessageId::new(key), received)
}

// What the children do. Each line on standard output is a fact that the parent may rely on.

async fn play(role: &str, path: &Path, mailbox: &str) {
    match role {
        "open" => open(path, mailbox).await,
        "turns" => take_turns(path, mailbox).await,
        "write" => write(path, mailbox).await,
        "hold" => hold(path, mailbox).await,
        "fill" => fill(path, mailbox).await,
        other => panic!("no such role: {other}"),
    }
}

fn say(fact: &str) {
    println!("{fact}");
}

fn wait_for_line() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

async fn open(path: &Path, mailbox: &str) {
    say("ready");
    wait_for_line();
    let store = SqlStore::open(path).await.unwrap();
    let lease = store.acquire(&scope(mailbox), TTL).await.unwrap().unwrap();
    store.commit(&lease, vec![row("k:1")]).await.unwrap();
    say("written");
}

async fn take_turns(path: &Path, mailbox: &str) {
    let store = SqlStore::open(path).await.unwrap();
    let mut turns = 0;
    while turns < 15 {
        let Some(lease) = store.acquire(&scope(mailbox), TTL).await.unwrap() else {
            tokio::task::yield_now().await;
            continue;
        };
        // The one before us has put the mark away, or two hold the lease at once.
        assert!(store.find(&scope(mailbox), Find::Pending).await.unwrap().is_empty());
        store.commit(&lease, vec![row("k:mark")]).await.unwrap();
        let mut done = row("k:mark");
        done.step = Step::Done;
        store.commit(&lease, vec![done]).await.unwrap();
        store.release(&lease).await.unwrap();
        say(&lease.token.to_string());
        turns += 1;
    }
}

async fn write(path: &Path, mailbox: &str) {
    let store = SqlStore::open(path).await.unwrap();
    let lease = store.acquire(&scope(mailbox), TTL).await.unwrap().unwrap();
    let writers = (0..4).map(|writer| {
        let (store, lease) = (store.clone(), lease.clone());
        tokio::spawn(async move {
            for n in 0.. {
                let pair = ["a", "b"].map(|half| row(&format!("k:{}.{writer}.{n}.{half}", lease.token)));
                store.commit(&lease, pair.to_vec()).await.unwrap();
                say(&format!("{}.{writer}.{n}", lease.token));
            }
        })
    });
    futures::future::join_all(writers).await;
}

async fn hold(path: &Path, mailbox: &str) {
    let store = SqlStore::open(path).await.unwrap();
    let lease = store.acquire(&scope(mailbox), TTL).await.unwrap().unwrap();
    store.commit(&lease, vec![row("k:in-time")]).await.unwrap();
    say("held");
    wait_for_line();
    match store.commit(&lease, vec![row("k:late")]).await {
        Ok(()) => say("written"),
        Err(error) => say(error.kind().as_str()),
    }
}

async fn fill(path: &Path, mailbox: &str) {
    let store = SqlStore::open(path).await.unwrap();
    let lease = store.acquire(&scope(mailbox), TTL).await.unwrap().unwrap();
    let put = async |key: String| {
        let mut row = row(&key);
        row.subject = Some("x".repeat(20_000));
        store.commit(&lease, vec![row]).await
    };
    let mut failures = 0;
    for n in 0.. {
        match put(format!("k:{n}")).await {
            Ok(()) => {
                say(&format!("k:{n}"));
                failures = 0;
            }
            // SQLite may find room once more, by moving its log into the database.
            Err(_) if failures < 3 => failures += 1,
            Err(error) => {
                say(&format!("failed {} {error}", error.kind()));
                break;
            }
        }
    }
    wait_for_line();
    for n in 0..20 {
        put(format!("k:more.{n}")).await.unwrap();
        say(&format!("k:more.{n}"));
    }
}

/// A child, killed when dropped.
struct Player {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Player {
    fn start(role: &str, path: &Path, mailbox: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        Self::of(command.args(["child", role]).arg(path).arg(mailbox))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    fn tell(&mut self) {
        self.input.write_all(b"go\n").unwrap();
    }

    /// `None` at its end.
    fn fact(&mut self) -> Option<String> {
        let mut line = String::new();
        // What it was writing when it was killed is no fact.
        (self.output.read_line(&mut line).unwrap() > 0 && line.ends_with('\n')).then(|| line.trim_end().to_owned())
    }

    fn facts(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.fact()).collect()
    }

    fn expect(&mut self, fact: &str) {
        assert_eq!(self.fact().as_deref(), Some(fact));
    }

    fn finish(mut self) -> Vec<String> {
        let facts = self.facts();
        assert!(self.child.wait().unwrap().success());
        facts
    }

    #[cfg(unix)]
    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// By SIGKILL: nothing of it runs any more.
    #[cfg(unix)]
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // One that has ended already is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ledger() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ledger.db");
    (folder, path)
}

async fn keys(store: &SqlStore, mailbox: &str) -> BTreeSet<String> {
    let rows = store.find(&scope(mailbox), Find::Pending).await.unwrap();
    rows.iter().map(|row| row.key.to_string()).collect()
}

async fn assert_intact(path: &Path) {
    let mut raw = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.unwrap();
    let said: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut raw).await.unwrap();
    assert_eq!(said, "ok");
    raw.close().await.unwrap();
}

fn processes_may_open_a_new_ledger_at_once() {
    for _ in 0..6 {
        let (_folder, path) = ledger();
        let mut players: Vec<Player> = (0..6).map(|n| Player::start("open", &path, &format!("m{n}"))).collect();
        for player in &mut players {
            player.expect("ready");
        }
        for player in &mut players {
            player.tell();
        }
        for player in players {
            assert_eq!(player.finish(), ["written"]);
        }
        runtime().block_on(async {
            let store = SqlStore::open(&path).await.unwrap();
            assert_eq!(store.mailboxes("job").await.unwrap(), ["m0", "m1", "m2", "m3", "m4", "m5"]);
            assert_intact(&path).await;
        });
    }
}

fn processes_take_turns_on_one_lease() {
    let (_folder, path) = ledger();
    let players: Vec<Player> = (0..3).map(|_| Player::start("turns", &path, "m")).collect();
    let mut tokens: Vec<i64> =
        players.into_iter().flat_map(Player::finish).map(|token| token.parse().unwrap()).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (1..=45).collect::<Vec<i64>>(), "each token was given once");
}

#[cfg(unix)]
fn a_killed_writer_loses_nothing_it_acknowledged() {
    let (_folder, path) = ledger();
    let mut acknowledged = [BTreeSet::new(), BTreeSet::new()];
    for round in 0..20_u32 {
        let mut players = ["m0", "m1"].map(|mailbox| Player::start("write", &path, mailbox));
        for (n, player) in players.iter_mut().enumerate() {
            // Some die while they open or before their first commit, others in the middle of many.
            let moment = rand::random_range(0..60);
            let facts: Vec<String> =
                (0..if round % 4 == 0 { 0 } else { moment }).map_while(|_| player.fact()).collect();
            std::thread::sleep(Duration::from_micros(rand::random_range(0..3000)));
            player.kill();
            acknowledged[n].extend(facts);
            acknowledged[n].extend(player.facts());
        }
        runtime().block_on(async {
            let store = SqlStore::open(&path).await.unwrap();
            for (mailbox, acknowledged) in ["m0", "m1"].iter().zip(&acknowledged) {
                let found = keys(&store, mailbox).await;
                for fact in acknowledged {
                    assert!(found.contains(&format!("k:{fact}.a")), "round {round}: {fact} was lost");
                }
                for key in &found {
                    let other = if key.ends_with('a') { "b" } else { "a" };
                    let pair = format!("{}{other}", &key[..key.len() - 1]);
                    assert!(found.contains(&pair), "round {round}: {key} is half of a commit");
                }
                // The lease of the dead is free at once.
                let lease = store.acquire(&scope(mailbox), TTL).await.unwrap().expect("its holder is dead");
                store.release(&lease).await.unwrap();
            }
        });
        runtime().block_on(assert_intact(&path));
    }
    let count: usize = acknowledged.iter().map(BTreeSet::len).sum();
    assert!(count > 400, "only {count} commits in 40 lives: this proves little");
    let owners = std::fs::read_dir(path.with_file_name("ledger.db-owners")).map_or(0, Iterator::count);
    assert_eq!(owners, 0, "the dead were cleared away");
}

#[cfg(unix)]
fn a_paused_holder_keeps_its_lease() {
    let (_folder, path) = ledger();
    let mut holder = Player::start("hold", &path, "m");
    holder.expect("held");
    runtime().block_on(async {
        let store = SqlStore::open(&path).await.unwrap();
        holder.signal("STOP");
        assert!(store.acquire(&scope("m"), TTL).await.unwrap().is_none(), "paused is not dead");
        holder.kill();
        let lease = store.acquire(&scope("m"), TTL).await.unwrap().expect("dead is dead");
        assert_eq!(lease.token, 2);
    });
}

/// The computer's clock, an hour later.
#[derive(Debug)]
struct Later;

#[async_trait]
impl Clock for Later {
    fn now(&self) -> Timestamp {
        Timestamp::now() + jiff::SignedDuration::from_hours(1)
    }

    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}

#[cfg(unix)]
fn a_holder_paused_past_its_lease() {
    let (_folder, path) = ledger();
    let mut holder = Player::start("hold", &path, "m");
    holder.expect("held");
    runtime().block_on(async {
        holder.signal("STOP");
        let store = SqlStore::open(&path).await.unwrap();
        assert!(store.acquire(&scope("m"), TTL).await.unwrap().is_none());
        let later = store.clone().with_context(Context::default().with_clock(Arc::new(Later)));
        let lease = later.acquire(&scope("m"), TTL).await.unwrap().expect("it has expired");
        holder.signal("CONT");
        holder.tell();
        holder.expect("conflict");
        assert_eq!(keys(&store, "m").await, BTreeSet::from(["k:in-time".to_owned()]));
        later.commit(&lease, vec![row("k:next")]).await.unwrap();
    });
    assert_eq!(holder.finish(), [""; 0]);
}

/// A limit on the size of files, which the writer's shell sets and we lift again: no disk has to be made and mounted.
#[cfg(target_os = "linux")]
fn a_full_disk_is_survived() {
    let (_folder, path) = ledger();
    let program = std::env::current_exe().unwrap();
    // Without its signal the limit is an error of the write, as a full disk is. In blocks of 512 bytes.
    let script = r#"trap "" XFSZ; ulimit -S -f 2048; exec "$0" child fill "$1" m"#;
    let mut writer = Player::of(Command::new("sh").args(["-c", script]).arg(program).arg(&path));
    let mut acknowledged = BTreeSet::new();
    let failure = loop {
        let fact = writer.fact().expect("it goes on until the disk is full");
        if fact.starts_with("failed") {
            break fact;
        }
        acknowledged.insert(fact);
    };
    assert!(failure.starts_with("failed storage the ledger `"), "{failure}");
    assert!(failure.contains("ledger.db` cannot be") && failure.contains("full"), "{failure}");
    assert!(acknowledged.len() > 20, "{failure} after {}", acknowledged.len());

    runtime().block_on(async {
        let store = SqlStore::open(&path).await.unwrap();
        assert_eq!(keys(&store, "m").await, acknowledged, "what was acknowledged, and nothing else");
    });
    let pid = writer.child.id().to_string();
    assert!(Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status().unwrap().success());
    writer.tell();
    acknowledged.extend(writer.finish());
    assert!(acknowledged.contains("k:more.19"));
    runtime().block_on(async {
        let store = SqlStore::open(&path).await.unwrap();
        assert_eq!(keys(&store, "m").await, acknowledged);
        assert_intact(&path).await;
    });
}

#[cfg(unix)]
fn a_folder_that_cannot_be_written_is_named() {
    // `/proc` refuses everybody, also root, whom no mode of a folder of our own would stop.
    let path = Path::new("/proc/ledger.db");
    let error = runtime().block_on(SqlStore::open(path)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(error.to_string().contains("`/proc/ledger.db` cannot be opened"), "{error}");
}
