//! The ledger in memory and those in SQLite and PostgreSQL give the same answers to the same calls, whatever the calls:
//! tests of hosts run on the one, hosts on the others.
#![cfg(feature = "sqlite")]

#[cfg(all(unix, feature = "postgres"))]
#[path = "support/postgres.rs"]
mod postgres;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use mail_account::{
    Clock, Context, ErrorKind, Ledger, MessageId, MessageKey, Reason, Result, Scope, SqlStore,
    store::{Find, Lease, Place, Recorded, Row, Step},
    testing::MemoryLedger,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

#[derive(Debug)]
struct TestClock(AtomicI64);

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(SeqCst)).unwrap()
    }

    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}

const START: i64 = 1_790_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).unwrap()
}

fn key(dice: &mut StdRng) -> MessageKey {
    format!("id:<{}@a.example>", dice.random_range(0..4)).parse().unwrap()
}

fn pick<T: Clone>(dice: &mut StdRng, of: &[T]) -> T {
    of[dice.random_range(0..of.len())].clone()
}

fn row(dice: &mut StdRng) -> Row {
    let handle = MessageId::new(format!("h{}", dice.random_range(0..6)));
    let mut row = Row::new(key(dice), pick(dice, &["a", "b"]), handle, at(dice.random_range(-50..50)));
    row.discriminator = dice.random_range(0..2);
    row.step = pick(dice, &[Step::Waiting, Step::Claimed, Step::Handled, Step::Done]);
    row.outcome = match row.step {
        Step::Waiting | Step::Claimed => None,
        _ => Some(pick(dice, &[Recorded::Imported, Recorded::Skipped, Recorded::Failed, Recorded::Gone])),
    };
    row.reason = pick(dice, &[None, Some(Reason::new("why", "Because.").with_dutch("Daarom."))]);
    row.attempts = dice.random_range(0..3);
    row.next_attempt = pick(dice, &[None, Some(at(60))]);
    row.place = pick(dice, &[Place::Import, Place::Processed, Place::Failed]);
    row.subject_norm = pick(dice, &["factuur", "offerte"]).to_owned();
    row.internet_message_id = pick(dice, &[None, Some("<1@a.example>".to_owned())]);
    row.first_seen = at(dice.random_range(-50..50));
    row
}

/// What two answers are compared by: the value, or the kind of the error.
fn told<T: std::fmt::Debug>(answer: Result<T>) -> std::result::Result<String, ErrorKind> {
    answer.map(|value| format!("{value:?}")).map_err(|error| error.kind())
}

async fn find(ledger: &dyn Ledger, dice: &mut StdRng, scope: &Scope) -> std::result::Result<String, ErrorKind> {
    let (key, handle) = (key(dice), MessageId::new(format!("h{}", dice.random_range(0..6))));
    let since = pick(dice, &[None, Some(at(0))]);
    let what = match dice.random_range(0..5) {
        0 => Find::Message { account: "a", handle: &handle, key: &key },
        1 => Find::Subject { subject_norm: "factuur", without_message_id: dice.random_bool(0.5) },
        2 => Find::Pending,
        3 => Find::Remaining { account: "a", since },
        _ => Find::Failures,
    };
    let found = ledger.find(scope, what.clone()).await;
    let mut each = Vec::new();
    let read = ledger.find_each(scope, what, &mut |row| each.push(row)).await;
    let found = told(found);
    assert_eq!(told(read.map(|()| each)), found, "one after the other");
    found
}

/// One call, the same for every ledger that is given dice of the same seed.
async fn step(
    ledger: &dyn Ledger,
    mut dice: StdRng,
    leases: &[Lease],
    // The same for all, as a run has it: SQLite takes another one for a clock that was set back.
    ttl: Duration,
) -> (std::result::Result<String, ErrorKind>, Option<Lease>) {
    let dice = &mut dice;
    let scope = Scope::new(pick(dice, &["job", "other"]), pick(dice, &["x@a.example", "y@a.example"]));
    let lease = (!leases.is_empty()).then(|| pick(dice, leases));
    let answer = match (dice.random_range(0..12), lease) {
        (0 | 1, _) => {
            let taken = ledger.acquire(&scope, ttl).await;
            let lease = taken.as_ref().ok().cloned().flatten();
            return (told(taken), lease);
        }
        (2, Some(lease)) => told(ledger.renew(&lease, ttl).await),
        (3, Some(lease)) => told(ledger.check(&lease).await),
        (4, Some(lease)) => told(ledger.release(&lease).await),
        (5..=8, Some(lease)) => {
            let rows = (0..dice.random_range(0..4)).map(|_| row(dice)).collect();
            told(ledger.commit(&lease, rows).await)
        }
        (9, _) => {
            let bare = format!("<{}@a.example>", dice.random_range(0..4)).parse().unwrap();
            let whole = key(dice);
            let key = pick(dice, &[None, Some(whole), Some(bare)]);
            told(ledger.retry(&scope.job, key.as_ref()).await)
        }
        (10, _) => told(ledger.watermark(&scope).await),
        _ => match dice.random_range(0..4) {
            0 => told(ledger.mailboxes(&scope.job).await),
            1 => told(ledger.baseline(&scope, at(dice.random_range(0..9))).await),
            _ => find(ledger, dice, &scope).await,
        },
    };
    (answer, None)
}

/// Many calls to both, the left one of which is what is tested. `pace` moves the clock between them.
async fn agree(seed: u64, left: &dyn Ledger, right: &dyn Ledger, ttl: Duration, mut pace: impl FnMut(&mut StdRng)) {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut leases = Vec::new();
    for n in 0..250 {
        let same = StdRng::seed_from_u64(dice.random());
        let (a, lease) = step(left, same.clone(), &leases, ttl).await;
        let (b, _) = step(right, same, &leases, ttl).await;
        assert_eq!(a, b, "seed {seed}, call {n}: the database on the left, memory on the right");
        leases.extend(lease);
        pace(&mut dice);
    }
    for scope in [("job", "x@a.example"), ("other", "y@a.example")].map(|(job, mailbox)| Scope::new(job, mailbox)) {
        let (a, b) = (left.find(&scope, Find::Pending).await, right.find(&scope, Find::Pending).await);
        assert_eq!(told(a), told(b), "seed {seed}");
    }
}

#[tokio::test]
async fn random_calls_have_the_same_answers() {
    for seed in 0..8 {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(START)));
        let context = || Context::default().with_clock(Arc::clone(&clock) as _);
        let sql = SqlStore::open(folder.path().join("state.db")).await.unwrap().with_context(context());
        let memory = MemoryLedger::new().with_context(context());
        agree(seed, &sql, &memory, Duration::from_secs(10), |dice| {
            clock.0.fetch_add(i64::from(dice.random_bool(0.3)), SeqCst);
        })
        .await;
    }
}

/// Its leases end by the server's clock, which no test can move: none ends here.
#[cfg(all(unix, feature = "postgres"))]
#[tokio::test]
async fn random_calls_have_the_same_answers_on_postgres() {
    let server = postgres::Postgres::start();
    for seed in 0..8 {
        let sql = SqlStore::connect(&server.database()).await.unwrap();
        agree(seed, &sql, &MemoryLedger::new(), Duration::from_secs(3600), |_| ()).await;
    }
}
