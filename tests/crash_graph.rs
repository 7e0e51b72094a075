//! The guarantee at every crash point, over Graph: the importer is killed before and after calls of the ledger and the
//! account, and in the handler, with requests of others on the wire, and started again.
#![cfg(all(feature = "testing", feature = "graph", feature = "sqlite"))]

#[path = "support/mortal.rs"]
mod mortal;
#[path = "support/tenant.rs"]
mod tenant;

use std::{
    sync::{Arc, atomic::AtomicI64, atomic::Ordering::SeqCst},
    time::Duration,
};

use jiff::Timestamp;
use mail_account::{Clock, Context, JobReport, MailAccount, testing::graph::Mailbox};
use mortal::{MortalAccount, Seen, Steps, TestClock, check_report, mime};
use tenant::Tenant;
use tokio::runtime::Runtime;

const RECEIVED: i64 = 1_790_000_000;

/// What outlives the processes, and what is known of what they did.
struct World {
    runtime: Runtime,
    tenant: Tenant,
    mailbox: Mailbox,
    clock: Arc<TestClock>,
    folder: tempfile::TempDir,
    seen: Arc<Seen>,
}

impl World {
    /// Every kind of message that the identity rules treat on their own: with and without a Message-ID, and a scanner
    /// that uses one Message-ID for everything.
    fn new(messages: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let tenant = runtime.block_on(Tenant::start());
        let mailbox = tenant.fake.mailbox("import@contoso.example").create();
        for n in 0..messages {
            let own = format!("{n}@leverancier.example");
            let id = match n % 4 {
                1 => Some("scanner@kantoor.example"),
                3 => None,
                _ => Some(own.as_str()),
            };
            let received = Timestamp::from_second(RECEIVED + i64::try_from(n).unwrap()).unwrap();
            mailbox.deliver_at("inbox", mime(&n.to_string(), id, &format!("<factuur>{n}</factuur>")), received);
        }
        Self {
            runtime,
            tenant,
            mailbox,
            clock: Arc::new(TestClock(AtomicI64::new((RECEIVED + 86_400) * 1000))),
            folder: tempfile::tempdir().unwrap(),
            seen: Arc::default(),
        }
    }

    /// One process: runs the job, and perhaps dies at a step.
    fn process(&self, steps: &Arc<Steps>, concurrency: usize) -> Option<JobReport> {
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        let context = Context::default().with_clock(clock);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let inner = Arc::new(self.tenant.open_in(&context, self.mailbox.address()));
        let account: Arc<dyn MailAccount> = Arc::new(MortalAccount { inner, steps: Arc::clone(steps) });
        runtime.block_on(mortal::process(self.folder.path(), &context, &self.seen, steps, account, concurrency))
    }

    fn run_to_the_end(&self, concurrency: usize) {
        // Requests of the dead process are still being worked on for a moment.
        assert!(self.runtime.block_on(self.tenant.fake.idle(Duration::from_secs(10))));
        // A redelivery is due after a minute, the next after four.
        for _ in 0..4 {
            check_report(&self.process(&Steps::kill_at(0), concurrency).expect("nothing kills it"));
            self.clock.0.fetch_add(3_600_000, SeqCst);
        }
    }

    fn subjects(&self, folder: &str) -> Vec<String> {
        if self.mailbox.folder_id(folder).is_none() {
            return Vec::new();
        }
        let mut subjects: Vec<_> = self.mailbox.messages(folder).into_iter().filter_map(|m| m.subject).collect();
        subjects.sort();
        subjects
    }

    fn check_all_there(&self, messages: usize, when: &str) {
        self.seen.check_all_there(|folder| self.subjects(folder), messages, when);
    }
}

#[test]
fn nothing_is_lost_or_repeated_wherever_it_dies() {
    const MESSAGES: usize = 7;
    let count = {
        let world = World::new(MESSAGES);
        let steps = Steps::kill_at(0);
        world.process(&steps, 2).unwrap();
        world.run_to_the_end(2);
        world.check_all_there(MESSAGES, "never killed");
        steps.count.load(SeqCst)
    };
    println!("{count} steps");
    assert!(count > 50, "{count} steps");
    // Every other one: each call has a step before and one after it, and the core's own test takes all of them.
    for at in (1..=count + 1).step_by(2) {
        let when = format!("killed at step {at} of {count}");
        let world = World::new(MESSAGES);
        world.process(&Steps::kill_at(at), 2);
        world.seen.verdict(&when);
        world.run_to_the_end(2);
        world.check_all_there(MESSAGES, &when);
    }
}

/// More than one batch of moves, and a death in every run.
#[test]
fn many_deaths_in_a_row_lose_nothing() {
    const MESSAGES: usize = 45;
    for seed in 1..=3_usize {
        let world = World::new(MESSAGES);
        for round in 0..12 {
            world.process(&Steps::kill_at(7 + (round * 31 + seed * 17) % 90), 4);
        }
        world.run_to_the_end(4);
        world.check_all_there(MESSAGES, &format!("seed {seed}"));
    }
}
