//! Every store of sign-ins against the same list of checks, and what those in a database must do besides.
//!
//! A store is a few lines in `main`.

#[cfg(all(unix, feature = "postgres"))]
#[path = "support/postgres.rs"]
mod postgres;

use std::{collections::BTreeSet, path::Path, process::ExitCode, sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt as _, join_all};
use jiff::{SignedDuration, Timestamp};
use libtest_mimic::{Arguments, Failed, Trial};
use mail_account::{
    ErrorKind, Result, Secret, SqlStore,
    store::{KeyRing, Pending, Purpose, SignIn, SignInId, SignInNeeded, Signer, Taken, TokenStore},
    testing::MemoryTokenStore,
};

/// Opens the same store again, as another process does.
type Open = Box<dyn Fn() -> BoxFuture<'static, Arc<dyn TokenStore>> + Send + Sync>;

type Check = fn(Open) -> BoxFuture<'static, ()>;

const TTL: Duration = Duration::from_secs(120);

macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        [$((stringify!($name), (|open| $name(open).boxed()) as Check)),*]
    };
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let checks = checks![
        nothing_is_known_at_first,
        a_sign_in_comes_back_as_it_was_stored,
        a_late_write_is_refused,
        a_person_who_signs_in_anew_replaces_it,
        what_is_forgotten_does_not_come_back,
        spelling_makes_no_other_sign_in,
        all_are_listed,
        one_refreshes_at_a_time,
        a_lease_ends,
        many_who_want_the_lease_take_turns,
        many_writers_lose_nothing,
        a_hand_over_is_taken_once,
        a_hand_over_expires,
        old_hand_overs_are_cleared_away,
    ];
    let mut trials = Vec::new();
    for (name, check) in checks {
        trials.push(trial(&format!("sqlite::{name}"), move || {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state.db");
            block_on(check(sealed(move || SqlStore::open(path.clone()))));
        }));
    }
    for (name, check) in checks {
        trials.push(trial(&format!("memory::{name}"), move || {
            let store: Arc<dyn TokenStore> = Arc::new(MemoryTokenStore::new());
            block_on(check(Box::new(move || std::future::ready(Arc::clone(&store)).boxed())));
        }));
    }
    for (name, test) in [
        ("no_secret_lies_in_the_file", no_secret_lies_in_the_file as fn()),
        ("without_a_key_nothing_is_stored", without_a_key_nothing_is_stored),
        ("the_wrong_key_loses_nothing", the_wrong_key_loses_nothing),
        ("a_key_is_replaced_by_the_next_write", a_key_is_replaced_by_the_next_write),
    ] {
        trials.push(trial(&format!("sqlite::{name}"), test));
    }
    #[cfg(all(unix, feature = "postgres"))]
    let server = Arc::new(std::sync::LazyLock::<postgres::Postgres>::new(postgres::Postgres::start));
    #[cfg(all(unix, feature = "postgres"))]
    for (name, check) in checks {
        let server = Arc::clone(&server);
        trials.push(trial(&format!("postgres::{name}"), move || {
            let url = server.database();
            block_on(check(sealed(move || connect(url.clone()))));
        }));
    }
    // Returned from here, so that the server is stopped.
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: &str, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test();
        Ok::<(), Failed>(())
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

#[cfg(all(unix, feature = "postgres"))]
async fn connect(url: String) -> Result<SqlStore> {
    SqlStore::connect(&url).await
}

/// A database with a key.
fn sealed<F: Future<Output = Result<SqlStore>> + Send + 'static>(open: impl Fn() -> F + Send + Sync + 'static) -> Open {
    Box::new(move || {
        let store = open();
        async move { Arc::new(store.await.unwrap().with_keys(KeyRing::new([7; 32]))) as Arc<dyn TokenStore> }.boxed()
    })
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second).unwrap()
}

fn id() -> SignInId {
    SignInId::new("https://login.example/contoso", "00000000-0000-0000-0000-00000000000a", "jan@contoso.example")
}

fn sign_in(token: &str) -> SignIn {
    SignIn::new(Secret::new(token), Signer::new("oid-1", "jan@contoso.example"), at(0))
}

async fn token(store: &dyn TokenStore) -> Option<String> {
    store.sign_in(&id()).await.unwrap().map(|sign_in| sign_in.refresh_token.expose().to_owned())
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

async fn nothing_is_known_at_first(open: Open) {
    let store = open().await;
    store.ready().await.unwrap();
    assert!(store.sign_in(&id()).await.unwrap().is_none());
    assert!(store.sign_ins().await.unwrap().is_empty());
    store.forget_sign_in(&id()).await.unwrap();
    assert!(matches!(store.take_pending(&Secret::new("state"), at(0)).await.unwrap(), Taken::Unknown));
    // A lease alone is no sign-in.
    let lease = store.lock(&id(), TTL).await.unwrap().unwrap();
    assert_eq!((lease.token, &lease.id), (1, &id()));
    assert!(store.sign_in(&id()).await.unwrap().is_none());
    assert!(store.sign_ins().await.unwrap().is_empty());
    assert_eq!(store.put_sign_in(&id(), &sign_in("a"), false).await.unwrap(), 1);
}

async fn a_sign_in_comes_back_as_it_was_stored(open: Open) {
    let store = open().await;
    let mut full = sign_in("0.AX-refresh\u{e9}");
    full.previous = Some(Secret::new("0.AX-previous"));
    full.scopes = vec!["https://graph.example/Mail.ReadWrite".to_owned(), "offline_access".to_owned()];
    full.signer.tenant = Some("tenant-1".to_owned());
    full.refreshed = at(5);
    full.needed = Some(SignInNeeded::new(at(9), Some("AADSTS50173".to_owned()), "The password was changed."));
    assert_eq!(store.put_sign_in(&id(), &full, false).await.unwrap(), 1);
    let found = open().await.sign_in(&id()).await.unwrap().unwrap();
    assert_eq!(found.refresh_token.expose(), full.refresh_token.expose());
    assert_eq!(found.previous.as_ref().unwrap().expose(), "0.AX-previous");
    assert_eq!((&found.scopes, &found.signer), (&full.scopes, &full.signer));
    assert_eq!((found.signed_in, found.refreshed), (at(0), at(5)));
    assert_eq!((found.needed, found.version), (full.needed, 1));

    // Also where a value becomes nothing.
    let mut bare = sign_in("b");
    bare.version = 1;
    assert_eq!(store.put_sign_in(&id(), &bare, false).await.unwrap(), 2);
    let found = store.sign_in(&id()).await.unwrap().unwrap();
    assert!(found.previous.is_none() && found.scopes.is_empty() && found.needed.is_none());
    assert_eq!((found.signer, found.version), (bare.signer, 2));
}

async fn a_late_write_is_refused(open: Open) {
    let (one, two) = (open().await, open().await);
    let mut early = sign_in("a");
    early.version = 3;
    assert_eq!(kind(one.put_sign_in(&id(), &early, false).await), ErrorKind::Conflict);
    assert!(token(&*one).await.is_none());
    one.put_sign_in(&id(), &sign_in("a"), false).await.unwrap();
    assert_eq!(kind(two.put_sign_in(&id(), &sign_in("other"), false).await), ErrorKind::Conflict);

    let (mut first, mut second) =
        (one.sign_in(&id()).await.unwrap().unwrap(), two.sign_in(&id()).await.unwrap().unwrap());
    first.refresh_token = Secret::new("b");
    second.refresh_token = Secret::new("late");
    assert_eq!(one.put_sign_in(&id(), &first, false).await.unwrap(), 2);
    assert_eq!(kind(two.put_sign_in(&id(), &second, false).await), ErrorKind::Conflict);
    assert_eq!(token(&*two).await.as_deref(), Some("b"));
}

async fn a_person_who_signs_in_anew_replaces_it(open: Open) {
    let store = open().await;
    assert_eq!(store.put_sign_in(&id(), &sign_in("a"), true).await.unwrap(), 1);
    let late = store.sign_in(&id()).await.unwrap().unwrap();
    assert_eq!(store.put_sign_in(&id(), &sign_in("b"), true).await.unwrap(), 2);
    assert_eq!(kind(store.put_sign_in(&id(), &late, false).await), ErrorKind::Conflict);
    assert_eq!(token(&*store).await.as_deref(), Some("b"));
}

async fn what_is_forgotten_does_not_come_back(open: Open) {
    let store = open().await;
    store.put_sign_in(&id(), &sign_in("a"), false).await.unwrap();
    let late = store.sign_in(&id()).await.unwrap().unwrap();
    let lease = store.lock(&id(), TTL).await.unwrap().unwrap();
    store.forget_sign_in(&id()).await.unwrap();
    store.forget_sign_in(&id()).await.unwrap();
    assert!(store.sign_in(&id()).await.unwrap().is_none());
    assert!(store.sign_ins().await.unwrap().is_empty());
    // Whoever is just refreshing it can neither bring it back nor harm the one that follows.
    assert_eq!(kind(store.put_sign_in(&id(), &late, false).await), ErrorKind::Conflict);
    store.put_sign_in(&id(), &sign_in("b"), false).await.unwrap();
    assert_eq!(kind(store.put_sign_in(&id(), &late, false).await), ErrorKind::Conflict);
    assert_eq!(token(&*store).await.as_deref(), Some("b"));
    store.unlock(&lease).await.unwrap();
}

async fn spelling_makes_no_other_sign_in(open: Open) {
    let store = open().await;
    store.put_sign_in(&id(), &sign_in("a"), false).await.unwrap();
    let id = |principal| SignInId::new("HTTPS://login.example/Contoso ", id().client_id(), principal);
    assert!(store.sign_in(&id(" Jan@Contoso.example")).await.unwrap().is_some());
    assert!(store.sign_in(&id("jan@other.example")).await.unwrap().is_none());
}

async fn all_are_listed(open: Open) {
    let store = open().await;
    let other = |n: i64| SignInId::new("https://login.example/contoso", "app", &format!("user{n}@contoso.example"));
    for n in 0..3 {
        let mut sign_in = sign_in("a");
        sign_in.refreshed = at(n);
        store.put_sign_in(&other(n), &sign_in, false).await.unwrap();
    }
    store.forget_sign_in(&other(1)).await.unwrap();
    let mut listed = open().await.sign_ins().await.unwrap();
    listed.sort();
    assert_eq!(listed, [(other(0), at(0)), (other(2), at(2))]);
}

async fn one_refreshes_at_a_time(open: Open) {
    let (one, two) = (open().await, open().await);
    let first = one.lock(&id(), TTL).await.unwrap().unwrap();
    assert!(two.lock(&id(), TTL).await.unwrap().is_none());
    assert!(one.lock(&id(), TTL).await.unwrap().is_none(), "not even the holder gets it twice");
    let other = SignInId::new("https://login.example/contoso", "app", "piet@contoso.example");
    assert!(two.lock(&other, TTL).await.unwrap().is_some(), "each sign-in has its own");
    one.unlock(&first).await.unwrap();
    let second = two.lock(&id(), TTL).await.unwrap().unwrap();
    assert!(second.token > first.token);
    // Given back again by one who no longer has it.
    one.unlock(&first).await.unwrap();
    assert!(one.lock(&id(), TTL).await.unwrap().is_none());
}

async fn a_lease_ends(open: Open) {
    let (one, two) = (open().await, open().await);
    let short = one.lock(&id(), Duration::from_millis(1)).await.unwrap().unwrap();
    let next = loop {
        match two.lock(&id(), TTL).await.unwrap() {
            Some(next) => break next,
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    assert_eq!(next.token, short.token + 1);
}

/// Reads, refreshes and stores, as [`TokenStore`] describes it.
async fn many_who_want_the_lease_take_turns(open: Open) {
    let stores = [open().await, open().await];
    stores[0].put_sign_in(&id(), &sign_in("0"), false).await.unwrap();
    let runs = stores.iter().flat_map(|store| (0..4).map(move |_| store)).map(async |store| {
        let mut tokens = Vec::new();
        while tokens.len() < 5 {
            let Some(lease) = store.lock(&id(), TTL).await.unwrap() else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            let mut found = store.sign_in(&id()).await.unwrap().unwrap();
            let next: i64 = found.refresh_token.expose().parse::<i64>().unwrap() + 1;
            found.previous = Some(found.refresh_token);
            found.refresh_token = Secret::new(next.to_string());
            store.put_sign_in(&id(), &found, false).await.expect("nobody else writes");
            store.unlock(&lease).await.unwrap();
            tokens.push(lease.token);
        }
        tokens
    });
    let tokens: Vec<i64> = join_all(runs).await.into_iter().flatten().collect();
    assert_eq!(tokens.iter().collect::<BTreeSet<_>>().len(), 40, "no token was given twice");
    assert_eq!(token(&*stores[0]).await.as_deref(), Some("40"));
}

/// Without the lease the version alone keeps them apart.
async fn many_writers_lose_nothing(open: Open) {
    let stores = [open().await, open().await];
    stores[0].put_sign_in(&id(), &sign_in("0"), false).await.unwrap();
    let runs = stores.iter().flat_map(|store| (0..3).map(move |_| store)).map(async |store| {
        let mut written = 0;
        while written < 5 {
            let mut found = store.sign_in(&id()).await.unwrap().unwrap();
            let next = found.refresh_token.expose().parse::<i64>().unwrap() + 1;
            found.refresh_token = Secret::new(next.to_string());
            match store.put_sign_in(&id(), &found, false).await {
                Ok(version) => {
                    assert_eq!(version, found.version + 1);
                    written += 1;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
            }
        }
    });
    join_all(runs).await;
    let last = stores[1].sign_in(&id()).await.unwrap().unwrap();
    assert_eq!((last.refresh_token.expose(), last.version), ("30", 31));
}

fn pending(state: &str, begun: Timestamp) -> Pending {
    Pending::new(
        Secret::new(state),
        "invoices",
        Purpose::AdminConsent,
        id(),
        Secret::new("a-verifier"),
        "http://127.0.0.1:4711/callback",
        Secret::new("a-nonce"),
        begun,
        begun + SignedDuration::from_hours(1),
    )
}

async fn a_hand_over_is_taken_once(open: Open) {
    let (one, two) = (open().await, open().await);
    one.put_pending(&pending("s1", at(0))).await.unwrap();
    one.put_pending(&pending("s2", at(1))).await.unwrap();
    let state = Secret::new("s1");
    let both = tokio::join!(one.take_pending(&state, at(2)), two.take_pending(&state, at(2)));
    let (open, used): (Vec<_>, Vec<_>) =
        [both.0.unwrap(), both.1.unwrap()].into_iter().partition(|taken| matches!(taken, Taken::Open(_)));
    let ([Taken::Open(taken)], [Taken::Used { account }]) = (open.as_slice(), used.as_slice()) else {
        panic!("one gets it: {open:?} {used:?}");
    };
    assert_eq!((account.as_str(), taken.account.as_str()), ("invoices", "invoices"));
    assert_eq!((taken.state.expose(), taken.verifier.expose(), taken.nonce.expose()), ("s1", "a-verifier", "a-nonce"));
    assert_eq!((taken.purpose, &taken.id), (Purpose::AdminConsent, &id()));
    assert_eq!(taken.redirect_uri, "http://127.0.0.1:4711/callback");
    assert_eq!((taken.begun, taken.expires), (at(0), at(3600)));
    // Used stays used, also after its time; the other one is untouched.
    assert!(matches!(two.take_pending(&state, at(9000)).await.unwrap(), Taken::Used { .. }));
    assert!(matches!(two.take_pending(&Secret::new("S2"), at(2)).await.unwrap(), Taken::Unknown));
    assert!(matches!(two.take_pending(&Secret::new("s2"), at(2)).await.unwrap(), Taken::Open(_)));
}

async fn a_hand_over_expires(open: Open) {
    let store = open().await;
    store.put_pending(&pending("late", at(0))).await.unwrap();
    store.put_pending(&pending("in time", at(0))).await.unwrap();
    let state = Secret::new("late");
    let expired = store.take_pending(&state, at(3600)).await.unwrap();
    assert!(matches!(&expired, Taken::Expired { account } if account == "invoices"), "{expired:?}");
    assert!(matches!(store.take_pending(&state, at(4000)).await.unwrap(), Taken::Expired { .. }));
    assert!(matches!(store.take_pending(&Secret::new("in time"), at(3599)).await.unwrap(), Taken::Open(_)));
}

async fn old_hand_overs_are_cleared_away(open: Open) {
    const YEAR: i64 = 366 * 24 * 3600;
    let store = open().await;
    store.put_pending(&pending("old", at(-YEAR))).await.unwrap();
    store.put_pending(&pending("yesterday", at(-24 * 3600))).await.unwrap();
    store.put_pending(&pending("new", at(0))).await.unwrap();
    let take = async |state| store.take_pending(&Secret::new(state), at(0)).await.unwrap();
    assert!(matches!(take("old").await, Taken::Unknown));
    assert!(matches!(take("yesterday").await, Taken::Expired { .. }));
    assert!(matches!(take("new").await, Taken::Open(_)));
}

/// All bytes of the database and the files beside it.
fn files(folder: &Path) -> Vec<u8> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    names.flat_map(|path| std::fs::read(path).unwrap()).collect()
}

fn no_secret_lies_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    block_on(async {
        let store = SqlStore::open(&path).await.unwrap().with_keys(KeyRing::new([7; 32]));
        let mut sign_in = sign_in("canary-refresh");
        sign_in.previous = Some(Secret::new("canary-previous"));
        store.put_sign_in(&id(), &sign_in, false).await.unwrap();
        let mut pending = pending("canary-state", at(0));
        pending.verifier = Secret::new("canary-verifier");
        pending.nonce = Secret::new("canary-nonce");
        store.put_pending(&pending).await.unwrap();
        let has = |text: &str| files(folder.path()).windows(text.len()).any(|part| part == text.as_bytes());
        assert!(has("jan@contoso.example") && has("invoices"), "this looks into the right files");
        assert!(!has("canary"));
        assert!(!format!("{sign_in:?} {pending:?} {store:?}").contains("canary"));
    });
}

fn without_a_key_nothing_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    block_on(async {
        let bare = SqlStore::open(&path).await.unwrap();
        for result in [
            bare.ready().await,
            bare.put_sign_in(&id(), &sign_in("a"), false).await.map(drop),
            bare.put_pending(&pending("s", at(0))).await,
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            let text = error.to_string();
            assert!(text.contains("`key` in `[state]`") && text.contains("plaintext_tokens = true"), "{text}");
        }
        assert!(bare.sign_ins().await.unwrap().is_empty());

        let plain = bare.clone().with_plaintext_tokens();
        plain.ready().await.unwrap();
        plain.put_sign_in(&id(), &sign_in("a"), false).await.unwrap();
        assert_eq!(token(&plain).await.as_deref(), Some("a"));
        // On the way to a key.
        let error = bare.clone().with_keys(KeyRing::new([1; 32])).sign_in(&id()).await.unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidConfig && error.to_string().contains("plain text"), "{error}");
        let both = plain.with_keys(KeyRing::new([1; 32]));
        let stored = both.sign_in(&id()).await.unwrap().unwrap();
        both.put_sign_in(&id(), &stored, false).await.unwrap();
        assert_eq!(token(&bare.with_keys(KeyRing::new([1; 32]))).await.as_deref(), Some("a"));
    });
}

fn the_wrong_key_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    block_on(async {
        let store = SqlStore::open(&path).await.unwrap();
        let right = store.clone().with_keys(KeyRing::new([1; 32]));
        right.put_sign_in(&id(), &sign_in("a"), false).await.unwrap();
        right.put_pending(&pending("s", at(0))).await.unwrap();
        let state = Secret::new("s");
        for wrong in [store.clone(), store.clone().with_keys(KeyRing::new([2; 32]))] {
            for error in [
                wrong.sign_in(&id()).await.map(drop).unwrap_err(),
                wrong.take_pending(&state, at(1)).await.map(drop).unwrap_err(),
            ] {
                assert_eq!(error.kind(), ErrorKind::InvalidConfig);
                assert!(error.to_string().contains("nothing is lost"), "{error}");
            }
            assert_eq!(wrong.sign_ins().await.unwrap().len(), 1, "listing needs no key");
        }
        assert_eq!(token(&right).await.as_deref(), Some("a"));
        assert!(matches!(right.take_pending(&state, at(1)).await.unwrap(), Taken::Open(_)));
    });
}

fn a_key_is_replaced_by_the_next_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    block_on(async {
        let store = SqlStore::open(&path).await.unwrap();
        let old = store.clone().with_keys(KeyRing::new([1; 32]));
        let new = store.clone().with_keys(KeyRing::new([2; 32]));
        let mut first = sign_in("b");
        first.previous = Some(Secret::new("a"));
        old.put_sign_in(&id(), &first, false).await.unwrap();
        let both = store.with_keys(KeyRing::new([2; 32]).with_old([1; 32]));
        let found = both.sign_in(&id()).await.unwrap().unwrap();
        assert!(new.sign_in(&id()).await.is_err(), "reading alone re-seals nothing");
        both.put_sign_in(&id(), &found, false).await.unwrap();
        let found = new.sign_in(&id()).await.unwrap().unwrap();
        assert_eq!((found.refresh_token.expose(), found.previous.unwrap().expose()), ("b", "a"));
        assert!(old.sign_in(&id()).await.is_err());
    });
}
