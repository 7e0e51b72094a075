//! What the importer itself costs: a mailbox in memory, a handler that takes everything at once.
//!
//! `cargo bench --features testing --bench importer`. Each case is a process of its own, so that the most memory it
//! took can be told (on Linux), beyond what mailbox and ledger took before the run.

use std::{env, fs, process::Command, sync::Arc, time::Instant};

use mail_account::{
    FolderSpec, ImportJob, Importer, Ledger, MailAccount, Outcome, Role, SqlStore, handler_fn,
    provider::memory::{Generated, MemoryAccount, MemoryMailbox, MemoryOptions},
    testing::MemoryLedger,
};
use tokio::runtime::Runtime;

/// With a ledger in memory: the importer alone. With SQLite: every outcome is on disk before its message is moved.
const LEDGERS: [&str; 2] = ["memory", "sqlite"];
const MESSAGES: [&str; 2] = ["1000", "100000"];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [case, ledger, messages] = &arguments[..]
        && case == "case"
    {
        return measure(ledger, messages.parse().expect("a number"));
    }
    println!("ledger  messages  messages/s  peak memory  a message");
    for (ledger, messages) in LEDGERS.iter().flat_map(|ledger| MESSAGES.map(|messages| (ledger, messages))) {
        let this = env::current_exe().expect("this program");
        let ended = Command::new(this).args(["case", ledger, messages]).status().expect("this program starts again");
        assert!(ended.success(), "{ledger}, {messages}: {ended}");
    }
}

fn measure(ledger: &str, messages: u32) {
    let world = World::new(messages, ledger == "sqlite");
    // From here on the highest mark counts anew (proc_pid_clear_refs(5)).
    let _ = fs::write("/proc/self/clear_refs", "5");
    let (before, start) = (kilobytes("VmRSS"), Instant::now());
    world.import(messages);
    let rate = f64::from(messages) / start.elapsed().as_secs_f64();
    let more = kilobytes("VmHWM").zip(before).map(|(peak, before)| peak.saturating_sub(before));
    let memory = more.map_or_else(String::new, |kb| {
        format!("{:>8.1} MB  {:>7.0} B", kb as f64 / 1e3, kb as f64 * 1e3 / f64::from(messages))
    });
    println!("{ledger:<8}{messages:>8}{rate:>12.0}  {memory}");
}

/// A line of `/proc/self/status`, where there is one.
fn kilobytes(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim_start_matches(':').split_whitespace().next()?.parse().ok())
}

struct World {
    runtime: Runtime,
    mailbox: MemoryMailbox,
    ledger: Arc<dyn Ledger>,
    _folder: tempfile::TempDir,
}

impl World {
    fn new(messages: u32, durable: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mailbox = MemoryMailbox::new("facturen@contoso.example");
        mailbox.generate("Inbox", messages, Generated::new(1)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ledger: Arc<dyn Ledger> = if durable {
            Arc::new(runtime.block_on(SqlStore::open(folder.path().join("state.db"))).unwrap())
        } else {
            Arc::new(MemoryLedger::new())
        };
        Self { runtime, mailbox, ledger, _folder: folder }
    }

    fn import(&self, messages: u32) {
        let job = ImportJob::new("bench", FolderSpec::Role(Role::Inbox))
            .with_processed_folder("Inbox/Processed".parse().unwrap())
            .with_create_folders(true);
        let account: Arc<dyn MailAccount> =
            Arc::new(MemoryAccount::open("memory", &self.mailbox, MemoryOptions::default()));
        let importer = Importer::new(job, [account], Arc::clone(&self.ledger));
        let report = self.runtime.block_on(importer.run(handler_fn(|_| async { Ok(Outcome::Imported) }))).unwrap();
        assert_eq!(report.counts().imported, u64::from(messages));
    }
}
