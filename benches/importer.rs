//! What the importer itself costs: a mailbox in memory, a handler that takes everything at once.
//!
//! `cargo bench --features testing --bench importer`. The largest amount of memory that was allocated at one time is
//! counted by divan's profiler.

use std::sync::Arc;

use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use mail_account::{
    FolderSpec, ImportJob, Importer, Ledger, MailAccount, Outcome, Role, SqlStore, handler_fn,
    provider::memory::{Generated, MemoryAccount, MemoryMailbox, MemoryOptions},
    testing::MemoryLedger,
};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
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

fn measure(bencher: Bencher<'_, '_>, messages: u32, durable: bool) {
    bencher
        .counter(ItemsCount::new(messages))
        .with_inputs(|| World::new(messages, durable))
        .bench_local_refs(|world| world.import(messages));
}

/// With a ledger in memory: the importer alone.
#[divan::bench(args = [1_000], sample_count = 5, sample_size = 1)]
fn without_a_disk(bencher: Bencher<'_, '_>, messages: u32) {
    measure(bencher, messages, false);
}

/// Once is enough to show that the time stays in proportion.
#[divan::bench(args = [100_000], sample_count = 1, sample_size = 1)]
fn without_a_disk_large(bencher: Bencher<'_, '_>, messages: u32) {
    measure(bencher, messages, false);
}

/// With SQLite: every outcome is on disk before its message is moved.
#[divan::bench(args = [1_000], sample_count = 5, sample_size = 1)]
fn on_sqlite(bencher: Bencher<'_, '_>, messages: u32) {
    measure(bencher, messages, true);
}

/// Once, because each message waits for the disk.
#[divan::bench(args = [100_000], sample_count = 1, sample_size = 1)]
fn on_sqlite_large(bencher: Bencher<'_, '_>, messages: u32) {
    measure(bencher, messages, true);
}
