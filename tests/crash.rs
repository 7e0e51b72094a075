//! The guarantee, at every crash point: the importer is killed before and after every single call of the ledger and the
//! account, and in the handler, and started again. A second actor moves, deletes and adds mail meanwhile.
#![cfg(feature = "sqlite")]

#[path = "support/mortal.rs"]
mod mortal;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use jiff::Timestamp;
use mail_account::{
    Clock, Context, Delivery, ImportJob, Importer, JobReport, MailAccount, Outcome, handler_fn,
    provider::memory::{MemoryAccount, MemoryMailbox, MemoryOptions, Operation, Phase, Reaction},
};
use mortal::{Mortal, Seen, Steps, TestClock, check_report, mime, open};

/// What outlives the processes, and what is known of what they did.
struct World {
    mailbox: MemoryMailbox,
    clock: Arc<TestClock>,
    folder: tempfile::TempDir,
    seen: Arc<Seen>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

const RECEIVED: i64 = 1_790_000_000;

impl World {
    fn new(messages: usize) -> Arc<Self> {
        let mailbox = MemoryMailbox::new("import@contoso.example");
        let world = Arc::new(Self {
            mailbox,
            clock: Arc::new(TestClock(AtomicI64::new((RECEIVED + 86_400) * 1000))),
            folder: tempfile::tempdir().unwrap(),
            seen: Arc::default(),
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

    /// One process: runs the job, and perhaps dies at a step.
    fn process(self: &Arc<Self>, steps: &Arc<Steps>, concurrency: usize, act: Option<Act>) -> Option<JobReport> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
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
            mortal::process(self.folder.path(), &self.context(), &self.seen, steps, account, concurrency).await
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
}

type Act = Box<dyn FnMut(&Arc<World>, Operation) + Send>;

fn check_all_there(world: &World, messages: usize, when: &str) {
    world.seen.check_all_there(|folder| world.subjects(folder), messages, when);
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
        world.seen.verdict(&when);
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
                            world.seen.0.lock().unwrap().put_back.insert(subject(&mail.raw));
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
        world.seen.verdict(&when);
        assert_eq!(world.subjects("Inbox"), Vec::<String>::new(), "{when}");
        let removed = removed.lock().unwrap();
        let mut places: HashMap<String, usize> = HashMap::new();
        for folder in ["Inbox/Processed", "Inbox/Failed", "Elsewhere"] {
            for subject in world.subjects(folder) {
                *places.entry(subject).or_default() += 1;
            }
        }
        let seen = world.seen.0.lock().unwrap();
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
        let ledger = Mortal { store, steps: Arc::clone(steps), seen: Arc::clone(&world.seen) };
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
