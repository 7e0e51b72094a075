//! Several processes that share a PostgreSQL database, one of them killed: no mailbox is worked on by two at once,
//! nothing is imported twice, nothing is lost.
//!
//! The processes are this program again, with the first argument `child`.
#![cfg(all(unix, feature = "sqlite", feature = "postgres"))]

#[path = "support/postgres.rs"]
mod postgres;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use futures::TryStreamExt as _;
use jiff::Timestamp;
use libtest_mimic::{Arguments, Failed, Trial};
use mail_account::{
    Delivery, FolderSpec, MailAccount as _, MailApp, Outcome, Query, Role, Status, handler_fn,
    provider::maildir::{MaildirAccount, MaildirConfig},
    testing::mail,
};
use postgres::Postgres;

const MAILBOXES: usize = 20;
const MESSAGES: usize = 8;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [child, folder, url] = args.as_slice()
        && child == "child"
    {
        runtime().block_on(import(Path::new(folder), url));
        return ExitCode::SUCCESS;
    }
    let trials = vec![Trial::test("two_importers_share_twenty_mailboxes_and_one_is_killed", || {
        two_importers();
        Ok::<(), Failed>(())
    })];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The configuration of a host with all mailboxes in one job, and its state on the server.
fn app(folder: &Path, url: &str) -> MailApp {
    let mut text = format!("[state]\nurl = \"{url}\"\n");
    for n in 0..MAILBOXES {
        write!(text, "[accounts.m{n}]\nprovider = \"maildir\"\npath = \"m{n}\"\n").unwrap();
    }
    let accounts: Vec<_> = (0..MAILBOXES).map(|n| format!("\"m{n}\"")).collect();
    write!(
        text,
        "[jobs.facturen]\naccounts = [{}]\nimport_folder = \"Inbox\"\nprocessed_folder = \"Inbox/Processed\"\n\
         create_folders = true\nhandler_concurrency = 2",
        accounts.join(", ")
    )
    .unwrap();
    MailApp::from_str(&text, folder).unwrap()
}

/// What a child does: runs the job until nothing is left in any mailbox. It writes down each hand-over before it
/// begins, and when it is over.
async fn import(folder: &Path, url: &str) {
    let log = folder.join("hand-overs");
    let app = app(folder, url);
    let importer = app.importer("facturen").await.unwrap();
    loop {
        let log = log.clone();
        let handler = handler_fn(move |mail: Delivery| {
            let log = log.clone();
            async move {
                let note = |what: &str| {
                    let (process, account) = (std::process::id(), mail.account());
                    let line = format!("{process} {what} {account} {} {}\n", mail.key(), mail.id());
                    // One write: lines of several processes do not mix.
                    std::fs::OpenOptions::new().append(true).create(true).open(&log)?.write_all(line.as_bytes())
                };
                note("begins")?;
                tokio::time::sleep(Duration::from_millis(2)).await;
                note("ends")?;
                Ok(Outcome::Imported)
            }
        });
        let report = importer.run(handler).await.unwrap();
        for account in &report.accounts {
            assert!(account.counts.closes() && account.error.is_none(), "{account:?}");
        }
        if report.counts().seen == 0 && report.accounts.iter().all(|account| account.status == Status::Done) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One line of the log.
#[derive(Clone, Debug)]
struct Note {
    process: String,
    begins: bool,
    account: String,
    key: String,
    delivery: String,
}

fn notes(folder: &Path) -> Vec<Note> {
    let log = std::fs::read_to_string(folder.join("hand-overs")).unwrap_or_default();
    log.lines()
        .map(|line| {
            let mut words = line.split(' ').map(str::to_owned);
            let mut next = || words.next().expect("five words");
            let (process, what) = (next(), next());
            Note { process, begins: what == "begins", account: next(), key: next(), delivery: next() }
        })
        .collect()
}

/// A child that does not outlive its test, even if that fails.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to do for one that is dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn start(args: &[&str]) -> Self {
        let program = std::env::current_exe().unwrap();
        Self(Command::new(program).arg("child").args(args).stdin(Stdio::null()).spawn().unwrap())
    }

    fn id(&self) -> String {
        self.0.id().to_string()
    }

    fn is_over(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.id()).status().unwrap();
        assert!(status.success(), "kill -{signal}");
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn finish(mut self) {
        assert!(self.0.wait().unwrap().success(), "a child failed; see its words above");
    }
}

fn mailbox(folder: &Path, n: usize) -> MaildirAccount {
    MaildirAccount::open("local", MaildirConfig::new(folder.join(format!("m{n}")))).unwrap()
}

async fn fill(folder: &Path) {
    for n in 0..MAILBOXES {
        let account = mailbox(folder, n);
        account.create_mailbox().await.unwrap();
        let inbox = account.resolve_folder(&FolderSpec::Role(Role::Inbox)).await.unwrap().id;
        for m in 0..MESSAGES {
            let id = format!("<{n}.{m}@leverancier.example>");
            let mail = mail().with_subject(format!("Factuur {m}")).with_message_id(id.as_str()).with_text("Hierbij.");
            let received = Timestamp::from_second(1_770_000_000 + i64::try_from(m).unwrap()).unwrap();
            account.deliver_at(&inbox, mail.build(), received).await.unwrap();
        }
    }
}

async fn count(folder: &Path, n: usize, name: &str) -> usize {
    let account = mailbox(folder, n);
    let found = account.resolve_folder(&name.parse().unwrap()).await.unwrap();
    account.fetch_messages(&found.id, Query::default()).try_collect::<Vec<_>>().await.unwrap().len()
}

fn two_importers() {
    let server = Postgres::start();
    let mut killed_in_hand = 0;
    for round in 0..2_usize {
        let temp = tempfile::tempdir().unwrap();
        let (folder, url): (PathBuf, String) = (temp.path().to_owned(), server.database());
        runtime().block_on(fill(&folder));
        let args = [folder.to_str().unwrap(), url.as_str()];
        let mut children = [Process::start(&args), Process::start(&args)];
        // Somewhere in the middle of the work of whoever gets there first. Up to 40 are in hand at once.
        let enough = 45 + 10 * round + rand::random_range(0..10);
        let mut doomed = None;
        for _ in 0..6000 {
            let notes = notes(&folder);
            let begun = |child: &Process| {
                let id = child.id();
                notes.iter().filter(|note| note.process == id && note.begins).count()
            };
            doomed = children.iter().position(|child| begun(child) >= enough);
            if doomed.is_some() {
                break;
            }
            for child in &mut children {
                assert!(!child.is_over(), "it was over too soon to be killed");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if doomed.expect("one of them gets there") == 1 {
            children.swap(0, 1);
        }
        let [mut doomed, other] = children;
        // The other one holds still while we look what the dead one had recorded.
        other.signal("STOP");
        doomed.kill();
        let before = notes(&folder);
        let recorded = server.query(&url, "SELECT key FROM mail_account_messages WHERE step >= 2 AND outcome = 0");
        let recorded: BTreeSet<&str> = recorded.lines().collect();
        let (done, all) = (recorded.len(), MAILBOXES * MESSAGES);
        assert!(done > 0 && done < all, "killed in the middle of it: {done} of {all}");
        other.signal("CONT");
        other.finish();

        let all = notes(&folder);
        for note in &all[before.len()..] {
            // What was in the other's hands when it was stopped may just have been recorded as it ends.
            let was_in_hand = before.iter().any(|early| early.key == note.key && early.process == note.process);
            assert!(was_in_hand || !recorded.contains(note.key.as_str()), "{note:?} although its outcome was recorded");
        }
        killed_in_hand += check(&all, &doomed.id());
        runtime().block_on(async {
            for n in 0..MAILBOXES {
                assert_eq!(count(&folder, n, "Inbox").await, 0, "round {round}, mailbox {n}");
                assert_eq!(count(&folder, n, "Inbox/Processed").await, MESSAGES, "round {round}, mailbox {n}");
            }
        });
        let left = server
            .query(&url, "SELECT count(*) FROM mail_account_messages WHERE step <> 3 OR outcome <> 0 OR deaths > 1");
        assert_eq!(left.trim(), "0");
    }
    assert!(killed_in_hand > 0, "no kill met a message in hand: this proves little");
}

/// Nobody begins in a mailbox where another one, which lives, has not ended; each message has one delivery, which only
/// the death of its process repeats. How many it had in hand.
fn check(notes: &[Note], doomed: &str) -> usize {
    let mut open: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    let mut deliveries: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut begun: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for note in notes {
        let open = open.entry(&note.account).or_default();
        if note.begins {
            open.retain(|_, process| *process == note.process || *process != doomed);
            assert!(open.values().all(|process| *process == note.process), "{note:?} while {open:?}");
            open.insert(&note.key, &note.process);
            deliveries.entry(&note.key).or_default().insert(&note.delivery);
            begun.entry(&note.key).or_default().push(&note.process);
        } else {
            open.remove(note.key.as_str());
        }
    }
    assert_eq!(deliveries.len(), MAILBOXES * MESSAGES, "nothing is lost");
    for (key, ids) in &deliveries {
        assert_eq!(ids.len(), 1, "{key} has one delivery");
    }
    let repeated: Vec<_> = begun.iter().filter(|(_, by)| by.len() > 1).collect();
    for (key, by) in &repeated {
        assert!(by.len() == 2 && by[0] == doomed && by[1] != doomed, "{key} was begun by {by:?}");
    }
    repeated.len()
}
