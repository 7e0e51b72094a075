use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use super::{
    db::{Arg, Target},
    schema::{self, Failed, STEPS, Step as SchemaStep},
    *,
};
use crate::{
    Address, Clock, Digest, ErrorKind, Language, MessageId, Reason,
    store::{Place, Recorded, Step},
};

const TTL: Duration = Duration::from_secs(120);

/// A clock that moves when it is told to.
#[derive(Debug)]
struct Hands(Mutex<Timestamp>);

impl Hands {
    fn context() -> (Arc<Self>, Context) {
        let hands = Arc::new(Self(Mutex::new(at(0))));
        (Arc::clone(&hands), Context::default().with_clock(hands))
    }

    fn turn(&self, seconds: i64) {
        *self.0.lock().unwrap() += SignedDuration::from_secs(seconds);
    }
}

#[async_trait]
impl Clock for Hands {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    async fn sleep(&self, _: Duration) {
        panic!("the ledger never sleeps on this clock");
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second).unwrap()
}

fn scope() -> Scope {
    Scope::new("invoices", "facturen@contoso.nl")
}

fn row(key: &str, second: i64) -> Row {
    Row::new(key.parse().unwrap(), "old", MessageId::new(format!("handle of {key}")), at(second))
}

fn keys(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| row.key.as_str()).collect()
}

async fn store() -> (TempDir, SqlStore, Lease) {
    let folder = TempDir::new().unwrap();
    let store = SqlStore::open(folder.path().join("ledger.db")).await.unwrap();
    let lease = store.acquire(&scope(), TTL).await.unwrap().unwrap();
    (folder, store, lease)
}

/// Makes calls meet in one transaction: somebody else is writing until all of them wait.
async fn together<T>(path: &Path, calls: impl Future<Output = T>) -> T {
    let mut other = connection(path).await;
    other.begin().await.unwrap();
    // In this order: what is polled first waits before the other one goes away.
    let (answers, ()) = tokio::join!(biased; calls, async { other.rollback().await.unwrap() });
    answers
}

/// Every field differs from its default, and from every other field of its type.
fn full_row() -> Row {
    let mut row = row("mid:<A@b>", 10);
    row.discriminator = 3;
    row.step = Step::Handled;
    row.outcome = Some(Recorded::Failed);
    row.reason = Some(Reason::new("no-invoice", "No invoice.").with_dutch("Geen factuur."));
    row.deliveries = 4;
    row.attempts = 5;
    row.deaths = 6;
    row.last_attempt = Some(at(20));
    row.next_attempt = Some(at(30));
    row.place = Place::Failed;
    row.run = 7;
    row.digest = Digest::Known([8; 32]);
    row.sent_second = Some(-62_135_596_800);
    row.sender = "jan@leverancier.nl".to_owned();
    row.subject_norm = "factuur\0 9".to_owned();
    row.subject = Some("Re: Factuur\0 9 \u{1f4c4}".to_owned());
    row.from = Some(Address::new("jan@leverancier.nl").with_name("Jan de Boer"));
    row.internet_message_id = Some("<A@b>".to_owned());
    row.first_seen = at(40);
    row.possible_duplicate_of = Some(("mid:<other@b>".parse().unwrap(), 9));
    row
}

#[tokio::test]
async fn a_row_comes_back_as_it_was_written() {
    let (_folder, store, lease) = store().await;
    let rows = [full_row(), row("mid:<bare>", 11)];
    store.commit(&lease, rows.to_vec()).await.unwrap();
    let found = store.find(&scope(), Find::Pending).await.unwrap();
    assert_eq!(found, rows);
    assert_eq!(found[0].reason.as_ref().unwrap().text(Language::Dutch), "Geen factuur.");

    // Replaced whole, also where a value becomes nothing.
    let mut bare = row("mid:<A@b>", 10);
    bare.discriminator = 3;
    bare.digest = Digest::Nothing;
    store.commit(&lease, vec![bare.clone()]).await.unwrap();
    assert_eq!(store.find(&scope(), Find::Pending).await.unwrap(), [bare, row("mid:<bare>", 11)]);
}

#[tokio::test]
async fn every_step_outcome_and_place_survives() {
    let (_folder, store, lease) = store().await;
    for step in [Step::Waiting, Step::Claimed, Step::Handled, Step::Done] {
        for outcome in [None, Some(Recorded::Imported), Some(Recorded::Skipped), Some(Recorded::Gone)] {
            for place in [Place::Import, Place::Processed, Place::Failed] {
                let mut row = row("mid:<a>", 0);
                (row.step, row.outcome, row.place) = (step, outcome, place);
                store.commit(&lease, vec![row.clone()]).await.unwrap();
                let what = Find::Message { account: "", handle: &MessageId::new(""), key: &row.key.clone() };
                assert_eq!(store.find(&scope(), what).await.unwrap(), [row]);
            }
        }
    }
}

#[tokio::test]
async fn times_are_kept_to_the_microsecond_and_over_the_whole_range() {
    let (_folder, store, lease) = store().await;
    let mut row = row("mid:<a>", 0);
    row.received = Timestamp::MIN;
    row.first_seen = Timestamp::MAX;
    row.last_attempt = Some("1969-12-31T23:59:59.999999999Z".parse().unwrap());
    store.commit(&lease, vec![row]).await.unwrap();
    let found = &store.find(&scope(), Find::Pending).await.unwrap()[0];
    assert_eq!(found.received, Timestamp::MIN);
    assert_eq!(found.first_seen.as_microsecond(), Timestamp::MAX.as_microsecond());
    assert_eq!(found.last_attempt, Some("1969-12-31T23:59:59.999999Z".parse().unwrap()));
}

#[tokio::test]
async fn find_message_by_handle_of_the_account_or_by_key() {
    let (_folder, store, lease) = store().await;
    let (mut upper, mut lower) = (row("mid:<1>", 1), row("mid:<2>", 2));
    upper.handle = MessageId::new("AAMkAG=");
    lower.handle = MessageId::new("aamkag=");
    let mut second = row("mid:<1>", 3);
    second.discriminator = 1;
    let mut elsewhere = row("mid:<4>", 4);
    elsewhere.account = "new".to_owned();
    elsewhere.handle = MessageId::new("AAMkAG=");
    store.commit(&lease, vec![upper, lower, second, elsewhere]).await.unwrap();

    let find = async |account, handle: &str, key: &str| {
        let what = Find::Message { account, handle: &MessageId::new(handle), key: &key.parse().unwrap() };
        let found = store.find(&scope(), what).await.unwrap();
        found.iter().map(|row| format!("{} {}", row.key, row.discriminator)).collect::<Vec<_>>()
    };
    assert_eq!(find("old", "AAMkAG=", "mid:<none>").await, ["mid:<1> 0"]);
    assert_eq!(find("old", "aamkag=", "mid:<none>").await, ["mid:<2> 0"]);
    assert_eq!(find("new", "AAMkAG=", "mid:<none>").await, ["mid:<4> 0"]);
    assert_eq!(find("old", "AAMkAG=", "mid:<1>").await, ["mid:<1> 0", "mid:<1> 1"]);
    assert_eq!(find("old", "none", "mid:<1>").await, ["mid:<1> 0", "mid:<1> 1"]);
    assert_eq!(find("old", "none", "MID:<1>").await, [""; 0]);
    assert!(store.find(&Scope::new("other", "m"), Find::Pending).await.unwrap().is_empty());
}

#[tokio::test]
async fn find_by_subject_pending_remaining_and_failures() {
    let (_folder, store, lease) = store().await;
    let made = |key, second, step, outcome, place, attempts| {
        let mut row = row(key, second);
        (row.step, row.outcome, row.place, row.attempts) = (step, outcome, place, attempts);
        row.subject_norm = if second < 4 { "a" } else { "b" }.to_owned();
        row.internet_message_id = (second % 2 == 0).then(|| key.to_owned());
        row
    };
    use {Place::*, Recorded::*, Step::*};
    let mut other_account = made("k:8", 8, Done, Some(Recorded::Imported), Import, 1);
    other_account.account = "new".to_owned();
    store
        .commit(
            &lease,
            vec![
                made("k:7", 7, Done, Some(Skipped), Import, 1),
                made("k:6", 6, Done, Some(Imported), Import, 1),
                made("k:5", 5, Done, Some(Recorded::Failed), Place::Failed, 3),
                made("k:4", 4, Handled, Some(Imported), Import, 1),
                made("k:3", 3, Claimed, None, Import, 0),
                made("k:2", 2, Waiting, None, Import, 2),
                made("k:1", 1, Waiting, None, Import, 0),
                made("k:0", 0, Done, Some(Imported), Processed, 1),
                other_account,
            ],
        )
        .await
        .unwrap();
    let find = async |what| {
        let rows = store.find(&scope(), what).await.unwrap();
        keys(&rows).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let subject = |without_message_id| Find::Subject { subject_norm: "a", without_message_id };
    assert_eq!(find(subject(false)).await, ["k:0", "k:1", "k:2", "k:3"]);
    assert_eq!(find(subject(true)).await, ["k:1", "k:3"]);
    assert_eq!(find(Find::Pending).await, ["k:1", "k:2", "k:3", "k:4"]);
    assert_eq!(find(Find::Failures).await, ["k:2", "k:5"]);
    let remaining = |since| Find::Remaining { account: "old", since };
    assert_eq!(find(remaining(None)).await, ["k:6", "k:7"]);
    assert_eq!(find(remaining(Some(at(6)))).await, ["k:6", "k:7"]);
    assert_eq!(find(remaining(Some(at(7)))).await, ["k:7"]);
}

#[tokio::test]
async fn watermark_and_mailboxes() {
    let (_folder, store, lease) = store().await;
    assert_eq!(store.watermark(&scope()).await.unwrap(), None);
    assert!(store.mailboxes("invoices").await.unwrap().is_empty(), "a lease alone makes no mailbox known");

    let done = |key, second| {
        let mut row = row(key, second);
        row.step = Step::Done;
        row
    };
    store.commit(&lease, vec![done("k:1", 1), done("k:9", 9), row("k:5", 5), row("k:6", 6)]).await.unwrap();
    assert_eq!(store.watermark(&scope()).await.unwrap(), Some(at(5)));
    store.commit(&lease, vec![done("k:5", 5), done("k:6", 6)]).await.unwrap();
    assert_eq!(store.watermark(&scope()).await.unwrap(), Some(at(9)));

    // A date in the future does not hide what arrives until then.
    let mut future = done("k:f", 9_000_000);
    future.first_seen = at(12);
    store.commit(&lease, vec![future]).await.unwrap();
    assert_eq!(store.watermark(&scope()).await.unwrap(), Some(at(12)));

    let second = Scope::new("invoices", "Another@contoso.nl");
    let lease = store.acquire(&second, TTL).await.unwrap().unwrap();
    store.commit(&lease, vec![row("k:1", 1)]).await.unwrap();
    assert_eq!(store.mailboxes("invoices").await.unwrap(), ["Another@contoso.nl", "facturen@contoso.nl"]);
    assert!(store.mailboxes("Invoices").await.unwrap().is_empty());
}

#[tokio::test]
async fn baseline_is_the_first_and_needs_no_second_write() {
    let (folder, store, _lease) = store().await;
    assert_eq!(store.baseline(&scope(), at(5)).await.unwrap(), at(5));
    let syncs = store.syncs();
    assert_eq!(store.baseline(&scope(), at(9)).await.unwrap(), at(5));
    assert_eq!(store.syncs(), syncs);
    assert_eq!(store.baseline(&Scope::new("new", "m"), at(7)).await.unwrap(), at(7));
    drop(store);
    let store = SqlStore::open(folder.path().join("ledger.db")).await.unwrap();
    assert_eq!(store.baseline(&scope(), at(9)).await.unwrap(), at(5));
}

fn failed(key: &str) -> Row {
    let mut row = row(key, 1);
    (row.step, row.outcome, row.place, row.attempts) = (Step::Done, Some(Recorded::Failed), Place::Failed, 3);
    row.next_attempt = Some(at(900));
    row.reason = Some(Reason::from("broken"));
    row
}

#[tokio::test]
async fn retry_queues_failures_by_key_with_or_without_its_prefix() {
    let (_folder, store, lease) = store().await;
    let mut second = failed("mid:1@x");
    second.discriminator = 1;
    let mut waiting = row("sha:ab:cd", 2);
    (waiting.attempts, waiting.next_attempt) = (1, Some(at(900)));
    let mut imported = row("mid:2@x", 3);
    (imported.step, imported.outcome, imported.attempts) = (Step::Done, Some(Recorded::Imported), 1);
    store.commit(&lease, vec![failed("mid:1@x"), second, waiting, imported, row("mid:3@x", 4)]).await.unwrap();

    let retry = async |key: &str| store.retry("invoices", Some(&key.parse().unwrap())).await.unwrap();
    for nothing in ["mid:2@x", "mid:3@x", "<3@x>", "cd", "@x", "mid", "<1@X>"] {
        assert_eq!(retry(nothing).await, 0, "{nothing}");
    }
    assert_eq!(store.retry("other", None).await.unwrap(), 0);
    assert_eq!(retry("1@x").await, 2);
    assert_eq!(retry("<1@x>").await, 2);
    assert_eq!(retry("ab:cd").await, 1);
    assert_eq!(retry("mid:1@x").await, 2, "asking again is not an error");
    assert_eq!(store.retry("invoices", None).await.unwrap(), 3);

    let queued = store.find(&scope(), Find::Failures).await.unwrap();
    assert_eq!(keys(&queued), ["mid:1@x", "mid:1@x", "sha:ab:cd"]);
    for row in &queued {
        assert!(row.retry && row.attempts == 0 && row.next_attempt.is_none(), "{row:?}");
    }
    assert_eq!((queued[0].step, queued[0].outcome), (Step::Done, Some(Recorded::Failed)));
    let pending = store.find(&scope(), Find::Pending).await.unwrap();
    assert_eq!(keys(&pending), ["mid:1@x", "mid:1@x", "sha:ab:cd", "mid:3@x"]);
}

#[tokio::test]
async fn a_retry_outlives_the_writes_of_a_run_that_did_not_see_it() {
    let (_folder, store, lease) = store().await;
    let stored = async |row: Row| {
        store.commit(&lease, vec![row.clone()]).await.unwrap();
        let what = Find::Message { account: "", handle: &row.handle, key: &row.key };
        store.find(&scope(), what).await.unwrap().remove(0)
    };
    // Never set by a write.
    let mut row = failed("k:1");
    row.retry = true;
    assert!(!stored(row.clone()).await.retry);

    store.retry("invoices", None).await.unwrap();
    row.retry = false;
    let kept = stored(row.clone()).await;
    assert!(kept.retry && kept.attempts == 0 && kept.next_attempt.is_none());

    // Handed over: answered.
    (row.step, row.attempts, row.retry) = (Step::Claimed, 1, true);
    let claimed = stored(row.clone()).await;
    assert!(!claimed.retry && claimed.attempts == 1 && claimed.next_attempt == row.next_attempt);

    // Vanished meanwhile: nothing to try again.
    stored(failed("k:1")).await;
    store.retry("invoices", None).await.unwrap();
    (row.step, row.outcome) = (Step::Done, Some(Recorded::Gone));
    assert!(!stored(row).await.retry);
    assert!(store.find(&scope(), Find::Pending).await.unwrap().is_empty());
}

#[tokio::test]
async fn one_holder_at_a_time_and_a_token_that_grows() {
    let (hands, context) = Hands::context();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ledger.db");
    let one = SqlStore::open(&path).await.unwrap().with_context(context.clone());
    let two = SqlStore::open(&path).await.unwrap().with_context(context);

    let first = one.acquire(&scope(), TTL).await.unwrap().unwrap();
    assert_eq!(first.token, 1);
    assert!(one.acquire(&scope(), TTL).await.unwrap().is_none());
    assert!(one.clone().acquire(&scope(), TTL).await.unwrap().is_none());
    assert!(two.acquire(&scope(), TTL).await.unwrap().is_none());
    assert!(two.acquire(&Scope::new("invoices", "Facturen@contoso.nl"), TTL).await.unwrap().is_some());

    // Renewed at a third, it outlives its first end.
    hands.turn(80);
    one.renew(&first, TTL).await.unwrap();
    hands.turn(80);
    one.check(&first).await.unwrap();
    assert!(two.acquire(&scope(), TTL).await.unwrap().is_none());

    // Expired, and taken over although its holder lives (a paused one lives too).
    hands.turn(40);
    assert_eq!(one.check(&first).await.unwrap_err().kind(), ErrorKind::Conflict);
    let second = two.acquire(&scope(), TTL).await.unwrap().unwrap();
    assert_eq!(second.token, 2);
    assert_eq!(one.renew(&first, TTL).await.unwrap_err().kind(), ErrorKind::Conflict);
    one.release(&first).await.unwrap();
    two.check(&second).await.unwrap();

    two.release(&second).await.unwrap();
    assert_eq!(two.check(&second).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(two.renew(&second, TTL).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(one.acquire(&scope(), TTL).await.unwrap().unwrap().token, 3);
}

#[tokio::test]
async fn late_commits_are_refused_and_write_nothing() {
    let (hands, context) = Hands::context();
    let (_folder, store, _) = store().await;
    let store = store.with_context(context);
    let lease = store.acquire(&Scope::new("j", "m"), TTL).await.unwrap().unwrap();
    let refused = async |lease: &Lease, text: &str| {
        let error = store.commit(lease, vec![row("k:1", 1), row("k:2", 2)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains(text), "{error}");
        assert!(store.find(&lease.scope, Find::Pending).await.unwrap().is_empty());
    };
    hands.turn(120);
    refused(&lease, "run 1 on job `j`, mailbox `m` has expired").await;
    // Nobody took it over: the run may go on.
    store.renew(&lease, TTL).await.unwrap();
    store.check(&lease).await.unwrap();
    hands.turn(120);
    let next = store.acquire(&Scope::new("j", "m"), TTL).await.unwrap().unwrap();
    refused(&lease, "was taken over by run 2").await;
    store.release(&next).await.unwrap();
    refused(&next, "was given back").await;
    refused(&Lease { scope: Scope::new("j", "other"), token: 1 }, "is not known").await;
}

#[tokio::test]
async fn a_refused_commit_does_not_disturb_those_beside_it() {
    let (folder, store, lease) = store().await;
    let late = Lease { token: 0, ..lease.clone() };
    let path = folder.path().join("ledger.db");
    for round in 0..3 {
        let calls = [(&lease, "k:good"), (&late, "k:late"), (&lease, "k:fine")];
        let calls = calls.map(|(lease, key)| store.commit(lease, vec![row(key, round)]));
        let [good, bad, fine] = together(&path, join_all(calls)).await.try_into().unwrap();
        assert_eq!(bad.unwrap_err().kind(), ErrorKind::Conflict);
        good.and(fine).unwrap();
        let found = store.find(&scope(), Find::Pending).await.unwrap();
        assert_eq!(keys(&found), ["k:fine", "k:good"]);
        assert!(found.iter().all(|row| row.received == at(round)));
    }
}

#[tokio::test]
async fn a_lease_ends_with_the_store_that_held_it() {
    let (folder, store, lease) = store().await;
    let path = folder.path().join("ledger.db");
    let other = SqlStore::open(&path).await.unwrap();
    assert!(other.acquire(&scope(), TTL).await.unwrap().is_none());
    let clone = store.clone();
    drop(store);
    assert!(other.acquire(&scope(), TTL).await.unwrap().is_none());
    drop(clone);
    let next = other.acquire(&scope(), TTL).await.unwrap().unwrap();
    assert_eq!(next.token, lease.token + 1);
    drop(other);
    assert!(!folder.path().join("ledger.db-owners").exists(), "nothing is left behind");
}

#[tokio::test]
async fn a_clock_that_is_set_back_neither_ends_nor_eternalises_a_lease() {
    let (hands, context) = Hands::context();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ledger.db");
    let one = SqlStore::open(&path).await.unwrap().with_context(context.clone());
    let two = SqlStore::open(&path).await.unwrap().with_context(context);
    let lease = one.acquire(&scope(), TTL).await.unwrap().unwrap();

    hands.turn(-3600);
    one.check(&lease).await.unwrap();
    one.renew(&lease, TTL).await.unwrap();
    // Set right again: the renewal under the wrong clock did not shorten the lease.
    hands.turn(3600 + 60);
    one.check(&lease).await.unwrap();

    // A holder that is paused while the clock is set back holds no longer than one more length.
    hands.turn(-3600);
    assert!(two.acquire(&scope(), TTL).await.unwrap().is_none());
    hands.turn(119);
    assert!(two.acquire(&scope(), TTL).await.unwrap().is_none());
    hands.turn(1);
    assert!(two.acquire(&scope(), TTL).await.unwrap().is_some());
    assert_eq!(one.commit(&lease, vec![row("k:1", 1)]).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn calls_that_wait_together_share_a_sync() {
    let (folder, store, lease) = store().await;
    let path = folder.path().join("ledger.db");
    let before = store.syncs();
    let commits = (0..100).map(|n| store.commit(&lease, vec![row(&format!("k:{n}"), n)]));
    for result in together(&path, join_all(commits)).await {
        result.unwrap();
    }
    // The first may already be on its way when the others come.
    let syncs = store.syncs() - before;
    assert!((1..=2).contains(&syncs), "{syncs} syncs for 100 commits that waited together");
    assert_eq!(store.find(&scope(), Find::Pending).await.unwrap().len(), 100);

    // One after the other: one each.
    let before = store.syncs();
    for n in 0..5 {
        store.commit(&lease, vec![row(&format!("k:{n}"), n), row("k:same", n)]).await.unwrap();
    }
    assert_eq!(store.syncs() - before, 5);
    // What changes nothing needs none.
    store.acquire(&scope(), TTL).await.unwrap();
    store.commit(&lease, Vec::new()).await.unwrap();
    store.check(&lease).await.unwrap();
    assert_eq!(store.syncs() - before, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_is_done_whole_or_not_at_all() {
    let (_folder, store, lease) = store().await;
    for round in 0..60 {
        let rows: Vec<Row> = (0..20).map(|n| row(&format!("k:{round}.{n}"), n)).collect();
        let (mine, lease) = (store.clone(), lease.clone());
        let call = tokio::spawn(async move { mine.commit(&lease, rows).await });
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        call.abort();
        let _ = call.await;
    }
    store.commit(&lease, vec![row("k:last", 99)]).await.unwrap();
    let found = store.find(&scope(), Find::Pending).await.unwrap();
    for round in 0..60 {
        let count = found.iter().filter(|row| row.key.as_str().starts_with(&format!("k:{round}."))).count();
        assert!(count == 0 || count == 20, "round {round}: {count} of 20 rows");
    }
    assert_eq!(found.last().unwrap().key.as_str(), "k:last");
}

#[test]
fn a_store_outlives_the_runtime_that_opened_it() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let first = runtime();
    let (_folder, store, lease) = first.block_on(store());
    // Left in the middle: the writer of these rows is never run to its end.
    first.block_on(async {
        let mut commit = Box::pin(store.commit(&lease, vec![row("k:left", 1)]));
        assert!(futures::poll!(&mut commit).is_pending());
    });
    drop(first);
    runtime().block_on(async {
        store.commit(&lease, vec![row("k:kept", 2)]).await.unwrap();
        let found = store.find(&scope(), Find::Pending).await.unwrap();
        assert_eq!(keys(&found).last(), Some(&"k:kept"));
    });
}

/// A handler that blocks its thread must not hold up other processes with a transaction that is left open.
#[test]
fn a_blocked_runtime_leaves_no_transaction_open() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime().block_on(async {
        let (folder, store, lease) = store().await;
        for yields in 0..8 {
            let mut commit = Box::pin(store.commit(&lease, vec![row("k:mine", 1)]));
            assert!(futures::poll!(&mut commit).is_pending());
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            let path = folder.path().join("ledger.db");
            let other = std::thread::spawn(move || {
                runtime().block_on(async {
                    let other = SqlStore::open(path).await.unwrap();
                    let lease = other.acquire(&Scope::new("other", "m"), TTL).await.unwrap().unwrap();
                    other.commit(&lease, vec![row("k:theirs", 2)]).await.unwrap();
                })
            });
            other.join().expect("the other one is not held up");
            commit.await.unwrap();
        }
    });
}

async fn connection(path: &Path) -> Connection {
    Target::Sqlite(Box::new(SqliteConnectOptions::new().filename(path))).connect().await.unwrap()
}

#[tokio::test]
async fn a_full_disk_fails_clearly_and_writes_nothing_half() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ledger.db");
    // Room for 60 pages of 4 KiB, and not one more: SQLite then says what it says of a full disk.
    let small = SqliteConnectOptions::new().pragma("max_page_count", "60");
    let store = SqlStore::open_with(&path, small).await.unwrap();
    let lease = store.acquire(&scope(), TTL).await.unwrap().unwrap();
    store.commit(&lease, vec![row("k:before", 0)]).await.unwrap();
    let rows: Vec<Row> = (0..2000).map(|n| row(&format!("k:{n}"), n)).collect();
    let calls = [vec![row("k:first", 0)], rows.clone(), vec![row("k:small", 1)]];
    let answers = together(&path, join_all(calls.map(|rows| store.commit(&lease, rows)))).await;
    let [first, full, fits] = answers.try_into().unwrap();
    first.unwrap();
    let error = full.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(error.to_string().contains("ledger.db` cannot be written because the disk is full"), "{error}");
    fits.expect("what still fits is not refused with the rest");
    assert_eq!(keys(&store.find(&scope(), Find::Pending).await.unwrap()), ["k:before", "k:first", "k:small"]);

    // Somebody makes room.
    let mut writer = store.shared.committer.idle().take().expect("small was written after the failure");
    writer.all("PRAGMA max_page_count = 100000", Vec::new()).await.unwrap();
    *store.shared.committer.idle() = Some(writer);
    store.commit(&lease, rows).await.unwrap();
    assert_eq!(store.find(&scope(), Find::Pending).await.unwrap().len(), 2003);
    let ok = connection(&path).await.one("PRAGMA integrity_check", Vec::new()).await;
    assert_eq!(ok.unwrap().unwrap().text(0).unwrap().as_deref(), Some("ok"));
}

#[tokio::test]
async fn finding_never_scans_the_ledger() {
    let (folder, store, _lease) = store().await;
    let mut connection = connection(&folder.path().join("ledger.db")).await;
    let (handle, key) = (MessageId::new("h"), "k:1".parse().unwrap());
    let cases: [(Find<'_>, &[&str]); 6] = [
        (
            Find::Message { account: "a", handle: &handle, key: &key },
            &[
                "messages_handle (scope=? AND account=? AND handle=?)",
                "autoindex_mail_account_messages_1 (scope=? AND key=?)",
            ],
        ),
        (
            Find::Subject { subject_norm: "s", without_message_id: true },
            &["messages_subject (scope=? AND subject_norm=?)"],
        ),
        (Find::Pending, &["messages_pending (scope=? AND pending=?)"]),
        (
            Find::Remaining { account: "a", since: None },
            &["messages_remaining (scope=? AND remaining=? AND account=? AND received>?)"],
        ),
        (Find::Failures, &["messages_failing (scope=? AND failing=?)"]),
        (Find::Subject { subject_norm: "s", without_message_id: false }, &["messages_subject"]),
    ];
    let mut queries: Vec<(&'static str, &[&str])> =
        cases.iter().map(|(what, indexes)| (rows::query(&scope(), what).0, *indexes)).collect();
    queries.push((rows::WATERMARK, &["messages_unsettled (scope=? AND unsettled=?)", "messages_settled (scope=?)"]));
    queries.push((rows::RETRY_KEY, &["messages_failing (scope=? AND failing=? AND key=?)"]));
    queries.push((rows::MAILBOXES, &["(job=?)", "(scope=?)"]));
    for (sql, indexes) in queries {
        let plan = connection.explain(sql).await;
        assert!(!plan.contains("SCAN mail_account"), "{sql}\n{plan}");
        for index in indexes {
            assert!(plan.contains(index), "{sql}\n{plan}\nmisses {index}");
        }
    }
    drop(store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_ledger_is_opened_by_many_at_once() {
    for _ in 0..3 {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("ledger.db");
        let stores = join_all((0..16).map(|_| tokio::spawn(SqlStore::open(path.clone())))).await;
        let stores: Vec<SqlStore> = stores.into_iter().map(|store| store.unwrap().unwrap()).collect();
        let scope = scope();
        let leases = join_all(stores.iter().map(|store| store.acquire(&scope, TTL))).await;
        assert_eq!(leases.into_iter().filter(|lease| lease.as_ref().unwrap().is_some()).count(), 1);
    }
}

/// The database of a host, which is not in WAL mode yet and is being read: the switch must wait.
#[tokio::test]
async fn a_database_in_use_is_waited_for() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("host.db");
    std::fs::write(&path, "").unwrap();
    let mut host = connection(&path).await;
    host.run("CREATE TABLE invoices (id integer)", Vec::new()).await.unwrap();
    host.run("BEGIN", Vec::new()).await.unwrap();
    assert!(host.one("SELECT id FROM invoices", Vec::new()).await.unwrap().is_none());
    let opening = tokio::spawn(SqlStore::open(path));
    tokio::time::sleep(Duration::from_millis(300)).await;
    host.rollback().await.unwrap();
    opening.await.unwrap().unwrap();
}

const NEXT: &[SchemaStep] = &[
    SchemaStep { version: 1, statements: STEPS[0].statements },
    SchemaStep { version: 2, statements: STEPS[1].statements },
    SchemaStep { version: 3, statements: STEPS[2].statements },
    SchemaStep {
        version: 4,
        statements: &[
            "ALTER TABLE mail_account_messages ADD COLUMN colour bigint NOT NULL DEFAULT 7",
            "CREATE TABLE IF NOT EXISTS mail_account_colours (id bigint NOT NULL PRIMARY KEY)",
        ],
    },
];

#[tokio::test]
async fn an_older_ledger_is_upgraded_and_a_newer_one_refused() {
    let (folder, store, lease) = store().await;
    let path = folder.path().join("ledger.db");
    store.commit(&lease, vec![row("k:1", 1)]).await.unwrap();
    drop(store);

    let mut raw = connection(&path).await;
    schema::migrate(&mut raw, NEXT).await.unwrap();
    schema::migrate(&mut raw, NEXT).await.unwrap();
    let versions = raw.all("SELECT version FROM mail_account_schema ORDER BY version", Vec::new()).await.unwrap();
    assert_eq!(versions.iter().map(|v| v.int(0).unwrap().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let kept = raw.one("SELECT key, colour FROM mail_account_messages", Vec::new()).await.unwrap().unwrap();
    assert_eq!((kept.text(0).unwrap().as_deref(), kept.int(1).unwrap()), (Some("k:1"), Some(7)));

    let error = SqlStore::open(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    let text = error.to_string();
    assert!(text.contains("newer version of mail-account (tables of version 4, this one knows up to 3)"), "{text}");
    assert!(text.contains(path.to_str().unwrap()) && text.contains("upgrade"), "{text}");
}

#[tokio::test]
async fn an_upgrade_that_fails_changes_nothing() {
    const BROKEN: &[SchemaStep] = &[SchemaStep {
        version: 1,
        statements: &["CREATE TABLE mail_account_half (id bigint)", "CREATE TABLE mail_account_half (id bigint)"],
    }];
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ledger.db");
    std::fs::write(&path, "").unwrap();
    let mut raw = connection(&path).await;
    assert!(matches!(schema::migrate(&mut raw, BROKEN).await, Err(Failed::Database(_))));
    let tables = raw.all("SELECT name FROM sqlite_master", Vec::<Arg>::new()).await.unwrap();
    assert!(tables.is_empty(), "{tables:?}");
    // The tables of a host are left alone.
    raw.run("CREATE TABLE invoices (id integer)", Vec::new()).await.unwrap();
    raw.close().await;
    let store = SqlStore::open(&path).await.unwrap();
    assert!(store.acquire(&scope(), TTL).await.unwrap().is_some());
    let mut raw = connection(&path).await;
    assert!(raw.one("SELECT id FROM invoices", Vec::new()).await.unwrap().is_none());
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_and_what_to_do() {
    let folder = TempDir::new().unwrap();
    let refused = async |path: &Path, parts: &[&str]| {
        let error = SqlStore::open(path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage);
        let text = error.to_string();
        for part in parts.iter().chain([&path.to_str().unwrap()]) {
            assert!(text.contains(part), "{text}\nmisses {part}");
        }
    };
    let missing = folder.path().join("none");
    refused(&missing.join("ledger.db"), &[missing.to_str().unwrap(), "does not exist; make it"]).await;
    assert!(!missing.exists());
    refused(folder.path(), &["is a folder; name a file"]).await;
    refused(Path::new(""), &["path is empty"]).await;

    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "no database, but a text that is longer than a header of SQLite".repeat(40)).unwrap();
    refused(&text, &["is not a SQLite database; name another file"]).await;
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_owner_can_read_a_new_ledger() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, store, lease) = store().await;
    store.commit(&lease, vec![row("k:1", 1)]).await.unwrap();
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_to_a_ledger_is_that_ledger() {
    let (folder, _store, _lease) = store().await;
    let other = TempDir::new().unwrap();
    let link = other.path().join("link.db");
    std::os::unix::fs::symlink(folder.path().join("ledger.db"), &link).unwrap();
    let second = SqlStore::open(&link).await.unwrap();
    assert!(second.acquire(&scope(), TTL).await.unwrap().is_none(), "its holder lives");
}

#[cfg(all(unix, feature = "postgres"))]
#[path = "../../../tests/support/postgres.rs"]
mod postgres;

/// The same statements on PostgreSQL.
#[cfg(all(unix, feature = "postgres"))]
#[tokio::test]
async fn postgres_does_the_same() {
    let server = postgres::Postgres::start();
    let url = server.database();
    let (one, two) = tokio::join!(SqlStore::connect(&url), SqlStore::connect(&url));
    let (one, two) = (one.unwrap(), two.unwrap());
    let (job, scope) = ("invoices", scope());
    assert_eq!(one.watermark(&scope).await.unwrap(), None);

    let (first, second) = tokio::join!(one.acquire(&scope, TTL), two.acquire(&scope, TTL));
    let (lease, holder, other) = match (first.unwrap(), second.unwrap()) {
        (Some(lease), None) => (lease, &one, &two),
        (None, Some(lease)) => (lease, &two, &one),
        both => panic!("{both:?}"),
    };
    assert_eq!(lease.token, 1);
    holder.renew(&lease, TTL).await.unwrap();
    holder.check(&lease).await.unwrap();

    let mut full = full_row();
    let bare = row("mid:<bare>", 11);
    holder.commit(&lease, vec![full.clone(), bare.clone()]).await.unwrap();
    // PostgreSQL has no text with U+0000.
    full.subject_norm = full.subject_norm.replace('\0', "\u{fffd}");
    full.subject = full.subject.map(|subject| subject.replace('\0', "\u{fffd}"));
    assert_eq!(other.find(&scope, Find::Pending).await.unwrap(), [full.clone(), bare.clone()]);
    assert_eq!(other.find(&scope, Find::Failures).await.unwrap(), [full.clone()]);
    let found = Find::Message { account: "old", handle: &full.handle, key: &bare.key };
    assert_eq!(other.find(&scope, found).await.unwrap(), [full.clone(), bare.clone()]);
    let found = Find::Subject { subject_norm: &full.subject_norm, without_message_id: false };
    assert_eq!(other.find(&scope, found).await.unwrap(), [full]);
    assert_eq!(other.watermark(&scope).await.unwrap(), Some(at(10)));
    let mut done = bare.clone();
    done.step = Step::Done;
    holder.commit(&lease, vec![done.clone()]).await.unwrap();
    let found = Find::Remaining { account: "old", since: Some(at(11)) };
    assert_eq!(other.find(&scope, found).await.unwrap(), [done]);
    assert_eq!(other.mailboxes(job).await.unwrap(), ["facturen@contoso.nl"]);

    assert_eq!(other.retry(job, Some(&"<A@b>".parse().unwrap())).await.unwrap(), 1);
    assert_eq!(other.retry(job, None).await.unwrap(), 1);
    let queued = other.find(&scope, Find::Failures).await.unwrap();
    assert!(queued[0].retry && queued[0].attempts == 0);
    assert_eq!(holder.baseline(&scope, at(5)).await.unwrap(), at(5));
    assert_eq!(other.baseline(&scope, at(6)).await.unwrap(), at(5));

    let before = holder.syncs();
    for result in join_all((0..100).map(|n| holder.commit(&lease, vec![row(&format!("k:{n}"), n)]))).await {
        result.unwrap();
    }
    assert!(holder.syncs() - before <= 50);

    // Held by one that lives elsewhere for all we know: until its end by the server's clock, and not a moment later.
    holder.release(&lease).await.unwrap();
    let short = holder.acquire(&scope, Duration::from_millis(1)).await.unwrap().unwrap();
    let next = loop {
        match other.acquire(&scope, TTL).await.unwrap() {
            Some(next) => break next,
            None => tokio::task::yield_now().await,
        }
    };
    assert_eq!(next.token, short.token + 1);
    let late = holder.commit(&short, vec![row("k:late", 1)]).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict);
    let found = Find::Message { account: "", handle: &MessageId::new(""), key: &"k:late".parse().unwrap() };
    assert!(other.find(&scope, found).await.unwrap().is_empty());
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_bad_postgres_url_is_refused_without_its_password() {
    for url in ["mysql://u:geheim@h/d", "postgres://u:geheim@h:port/d", "geheim"] {
        let error = SqlStore::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("postgres://user:password@host"), "{error}");
        assert!(!format!("{error:?} {}", error.chain()).contains("geheim"), "{error:?}");
    }
    // Nobody listens there.
    let error = SqlStore::connect("postgres://u:geheim@127.0.0.1:1/d").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(error.to_string().contains("`postgres://127.0.0.1:1/d` cannot be reached"), "{error}");
    assert!(!format!("{error:?} {}", error.chain()).contains("geheim"), "{error:?}");
}
