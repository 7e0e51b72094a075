//! The states of accounts as a host sees them, and the calendar of secrets.
#![cfg(feature = "sqlite")]

#[cfg(all(unix, feature = "postgres"))]
#[path = "support/postgres.rs"]
mod postgres;

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use mail_account::{
    Clock, Context, Delivery, ErrorKind, Language, MailAccount, MailApp, Outcome, SqlStore, Status,
    check::Cause,
    handler_fn,
    provider::memory::{MemoryAccount, MemoryMailbox, MemoryOptions},
    store::{StateStore, StoredState},
    watch::{AccountEvent, Condition},
};

const CONFIG: &str = r#"
[accounts.invoices]
provider = "memory"
mailbox = "facturen@contoso.example"

[jobs.invoices]
accounts = ["invoices"]
import_folder = "Inbox"
interval = "5m"
"#;

#[derive(Debug)]
struct Hands(AtomicI64);

#[async_trait]
impl Clock for Hands {
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

/// A host with one account on a mailbox in memory, and what it was told.
struct Host {
    app: MailApp,
    clock: Arc<Hands>,
    told: Arc<Mutex<Vec<AccountEvent>>>,
}

impl Host {
    fn new(config: &str, folder: &Path) -> Self {
        let clock = Arc::new(Hands(AtomicI64::new(START)));
        let context = Context::default().with_clock(Arc::clone(&clock) as _);
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&told);
        let app = MailApp::loader().with_context(context).from_str(config, folder).unwrap();
        let app = app.with_account_events(move |event| sink.lock().unwrap().push(event.clone()));
        Self { app, clock, told }
    }

    fn on(mut self, mailbox: &MemoryMailbox) -> Self {
        let account: Arc<dyn MailAccount> =
            Arc::new(MemoryAccount::open("invoices", mailbox, MemoryOptions::default()));
        self.app = self.app.with_account(account).unwrap();
        self
    }

    fn wait(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds, SeqCst);
    }

    async fn run(&self) -> (Status, Option<ErrorKind>) {
        let importer = self.app.importer("invoices").await.unwrap();
        let report = importer.run(handler_fn(|_: Delivery| async { Ok(Outcome::Imported) })).await.unwrap();
        let account = &report.accounts[0];
        (account.status, account.error.as_ref().map(mail_account::Error::kind))
    }

    /// (before, now, cause) of each change since the last call.
    fn changes(&self) -> Vec<(Option<Condition>, Condition, Option<Cause>)> {
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        told.into_iter()
            .map(|event| match event {
                AccountEvent::StateChanged { before, state } => (before, state.condition, state.cause),
                other => panic!("{other:?}"),
            })
            .collect()
    }
}

#[tokio::test]
async fn a_state_follows_the_runs_and_each_change_is_told_once() {
    use Condition::*;
    let folder = tempfile::tempdir().unwrap();
    let mailbox = MemoryMailbox::new("facturen@contoso.example");
    let host = Host::new(CONFIG, folder.path()).on(&mailbox);
    let state = host.app.state_of("invoices").await.unwrap();
    assert_eq!((state.condition, state.since, state.last_success), (Draft, at(0), None));

    host.wait(10);
    for _ in 0..3 {
        assert_eq!(host.run().await, (Status::Done, None));
        host.wait(300);
    }
    assert_eq!(host.changes(), [(None, Ready, None)]);
    let state = host.app.state_of("invoices").await.unwrap();
    assert_eq!((state.condition, state.since, state.last_success), (Ready, at(10), Some(at(610))));
    assert_eq!((state.next_try, state.message(Language::Dutch)), (None, "Werkt"));

    // A vanished mailbox: the report says so each time, the state changes once.
    mailbox.outage(ErrorKind::MailboxGone);
    for _ in 0..3 {
        assert_eq!(host.run().await, (Status::Error, Some(ErrorKind::MailboxGone)));
        host.wait(300);
    }
    let changes = host.changes();
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!((changes[0].0, changes[0].1), (Some(Ready), MailboxGone));
    let state = host.app.state_of("invoices").await.unwrap();
    assert_eq!((state.condition, state.since), (MailboxGone, at(910)));
    assert_eq!((state.last_success, state.next_try), (Some(at(610)), Some(at(1510 + 300))));
    assert!(state.cause.is_some() && state.who().is_some());
    let (english, dutch) = (state.message(Language::English), state.message(Language::Dutch));
    assert!(!english.is_empty() && !dutch.is_empty() && english != dutch);

    for (kind, condition) in [
        (ErrorKind::Unavailable, Unreachable),
        (ErrorKind::Unauthenticated, Misconfigured),
        (ErrorKind::SignInNeeded, SignInNeeded),
        (ErrorKind::Timeout, Unreachable),
    ] {
        mailbox.mend();
        mailbox.outage(kind);
        assert_eq!(host.run().await.1, Some(kind));
        let changes = host.changes();
        assert_eq!(changes.iter().map(|change| change.1).collect::<Vec<_>>(), [condition], "{kind}");
    }
    mailbox.mend();
    host.run().await;
    assert_eq!(host.changes().iter().map(|change| change.1).collect::<Vec<_>>(), [Ready]);
}

#[tokio::test]
async fn a_state_survives_a_restart_and_the_same_state_is_no_news() {
    let folder = tempfile::tempdir().unwrap();
    let mailbox = MemoryMailbox::new("facturen@contoso.example");
    let host = Host::new(CONFIG, folder.path()).on(&mailbox);
    host.run().await;
    host.wait(60);
    mailbox.outage(ErrorKind::MailboxGone);
    host.run().await;
    let before = host.app.state_of("invoices").await.unwrap();
    drop(host);

    // Reading it opens no account: this one has none that would work.
    let host = Host::new(CONFIG, folder.path());
    let state = host.app.state_of("invoices").await.unwrap();
    assert_eq!((state.condition, state.since, state.cause), (Condition::MailboxGone, at(60), before.cause));
    assert_eq!(state.last_success, Some(at(0)));
    assert_eq!(state.message(Language::Dutch), before.message(Language::Dutch));
    let host = host.on(&mailbox);
    host.run().await;
    assert!(host.changes().is_empty());
    assert_eq!(host.app.states().await.unwrap().len(), 1);
}

#[tokio::test]
async fn polls_that_find_nothing_new_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mailbox = MemoryMailbox::new("facturen@contoso.example");
    let store = SqlStore::open(folder.path().join("state.db")).await.unwrap();
    let mut host = Host::new(CONFIG, folder.path()).on(&mailbox);
    host.app = host.app.with_ledger(Arc::new(store.clone())).with_state_store(Arc::new(store.clone()));
    host.run().await;
    let before = store.syncs();
    assert!(before > 0, "the first change is written");
    for _ in 0..5 {
        host.run().await;
    }
    mailbox.outage(ErrorKind::Unavailable);
    host.run().await;
    let after = store.syncs();
    assert_eq!(after, before + 1, "one change");
    for _ in 0..5 {
        host.run().await;
    }
    assert_eq!(store.syncs(), after);
    assert!(!folder.path().join("mail-account.db").exists());
}

#[tokio::test]
async fn of_two_processes_one_tells_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let mailbox = MemoryMailbox::new("facturen@contoso.example");
    let hosts = [0, 1].map(|_| Host::new(CONFIG, folder.path()).on(&mailbox));
    for kind in [None, Some(ErrorKind::MailboxGone), Some(ErrorKind::Unavailable)] {
        kind.map_or_else(|| mailbox.mend(), |kind| mailbox.outage(kind));
        tokio::join!(hosts[0].run(), hosts[1].run());
        let told: Vec<_> = hosts.iter().flat_map(Host::changes).collect();
        assert_eq!(told.len(), 1, "{kind:?}: {told:?}");
    }
}

#[tokio::test]
async fn what_the_file_says_needs_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"
        [accounts.off]
        provider = "memory"
        mailbox = "a@contoso.example"
        enabled = false
        [accounts.broken]
        provider = "memory"
        [accounts.local]
        provider = "memory"
        mailbox = "b@contoso.example"
        [jobs.invoices]
        accounts = ["off", "broken"]
        import_folder = "Inbox"
    "#;
    let host = Host::new(config, folder.path());
    let states = host.app.states().await.unwrap();
    let conditions: Vec<_> = states.iter().map(|state| (state.account.as_str(), state.condition)).collect();
    assert_eq!(
        conditions,
        [("off", Condition::Draft), ("broken", Condition::Misconfigured), ("local", Condition::Draft)]
    );
    assert_eq!(states[1].cause, Some(Cause::SettingsWrong));
    assert!(states[1].message(Language::English).contains("mailbox"), "{:?}", states[1]);
    assert_eq!(host.app.state_of("none").await.unwrap_err().kind(), ErrorKind::InvalidConfig);
    // A run says of an account that is switched off what the file says.
    host.run().await;
    let told: Vec<_> = host.changes().iter().map(|change| change.1).collect();
    assert_eq!(told, [Condition::Misconfigured]);
    assert_eq!(host.app.state_of("off").await.unwrap().condition, Condition::Draft);
}

#[tokio::test]
async fn a_folder_that_was_renamed_is_told_as_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::new(&CONFIG.replace("\"Inbox\"", "\"Facturen\""), folder.path());
    host.run().await;
    let state = host.app.state_of("invoices").await.unwrap();
    assert_eq!((state.condition, state.cause), (Condition::Misconfigured, Some(Cause::FolderMissing)));
    for language in [Language::English, Language::Dutch] {
        assert!(state.message(language).contains("`Facturen`"), "{}", state.message(language));
    }
}

#[cfg(feature = "graph")]
const DELEGATED: &str = r#"
[state]
plaintext_tokens = true

[accounts.invoices]
provider = "graph"
tenant = "contoso.nl"
client_id = "00000000-0000-0000-0000-00000000000a"
client_secret = "x"
auth = "delegated"
mailbox = "facturen@contoso.nl"
"#;

#[cfg(feature = "graph")]
#[tokio::test]
async fn who_has_signed_in_counts_without_a_token() {
    use mail_account::{
        Secret,
        store::{SignIn, Signer},
    };
    let folder = tempfile::tempdir().unwrap();
    let host = Host::new(DELEGATED, folder.path());
    let state = async || host.app.state_of("invoices").await.unwrap();
    assert_eq!(state().await.condition, Condition::AwaitingSignIn);

    let settings = host.app.sign_in_settings("invoices").unwrap().unwrap();
    let id = settings.id().unwrap();
    let store = host.app.token_store().await.unwrap();
    let signer = Signer::new("oid", "facturen@contoso.nl");
    store.put_sign_in(&id, &SignIn::new(Secret::new("a"), signer.clone(), at(100)), true).await.unwrap();
    assert_eq!((state().await.condition, state().await.since), (Condition::Ready, at(100)));

    // A run found that the sign-in does not work any more; then the person signs in again.
    let states = SqlStore::open(folder.path().join("mail-account.db")).await.unwrap();
    let mut needed = StoredState::new("invoices", "sign_in_needed", at(200));
    needed.cause = Some("sign_in_needed".to_owned());
    assert!(states.put_account_state(&needed).await.unwrap());
    assert_eq!((state().await.condition, state().await.since), (Condition::SignInNeeded, at(200)));
    store.put_sign_in(&id, &SignIn::new(Secret::new("b"), signer, at(300)), true).await.unwrap();
    assert_eq!((state().await.condition, state().await.since), (Condition::Ready, at(300)));

    store.forget_sign_in(&id).await.unwrap();
    assert_eq!(state().await.condition, Condition::AwaitingSignIn);
}

async fn keeps_states(one: SqlStore, two: SqlStore) {
    assert!(one.account_states().await.unwrap().is_empty());
    let mut state = StoredState::new("b", "mailbox_gone", at(5));
    (state.cause, state.code) = (Some("mailbox_unknown".to_owned()), Some("ErrorInvalidUser".to_owned()));
    (state.english, state.dutch) = ("Gone.".to_owned(), "Weg.".to_owned());
    state.last_success = Some(at(1));
    assert!(one.put_account_state(&state).await.unwrap());
    assert_eq!(two.account_state("b").await.unwrap(), Some(state.clone()));
    let mut later = state.clone();
    later.since = at(9);
    assert!(!two.put_account_state(&later).await.unwrap(), "the same state is no change");
    assert_eq!(two.account_state("b").await.unwrap(), Some(state.clone()));
    later.cause = None;
    let both = tokio::join!(one.put_account_state(&later), two.put_account_state(&later));
    assert!(both.0.unwrap() ^ both.1.unwrap(), "one of two made the change");
    one.put_account_state(&StoredState::new("a", "ready", at(0))).await.unwrap();
    let names: Vec<_> = two.account_states().await.unwrap().into_iter().map(|state| state.account).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(two.account_state("c").await.unwrap().is_none());
}

#[tokio::test]
async fn sqlite_keeps_states() {
    let folder = tempfile::tempdir().unwrap();
    let open = || SqlStore::open(folder.path().join("state.db"));
    keeps_states(open().await.unwrap(), open().await.unwrap()).await;
}

#[cfg(all(unix, feature = "postgres"))]
#[tokio::test]
async fn postgres_keeps_states() {
    let server = postgres::Postgres::start();
    let url = server.database();
    keeps_states(SqlStore::connect(&url).await.unwrap(), SqlStore::connect(&url).await.unwrap()).await;
}

#[cfg(feature = "graph")]
const REGISTRATIONS: &str = r#"
[registrations.contoso]
tenant = "contoso.nl"
client_id = "00000000-0000-0000-0000-00000000000a"
client_secret = "old"
client_secret_next = "new"
secret_expires = "2026-12-31"

[accounts.a]
provider = "graph"
registration = "contoso"
auth = "app"
mailbox = "a@contoso.nl"
[accounts.b]
provider = "imap"
host = "outlook.office365.com"
username = "b@contoso.nl"
oauth = { registration = "contoso", auth = "app" }
[accounts.off]
provider = "graph"
registration = "contoso"
auth = "app"
mailbox = "off@contoso.nl"
enabled = false
[accounts.own]
provider = "graph"
tenant = "contoso.nl"
client_id = "00000000-0000-0000-0000-00000000000b"
client_secret = "x"
auth = "app"
mailbox = "c@contoso.nl"
[accounts.local]
provider = "maildir"
path = "m"
"#;

#[cfg(all(feature = "graph", feature = "imap"))]
#[test]
fn a_secret_is_warned_about_at_each_step_once() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::new(REGISTRATIONS, folder.path());
    let calendar = host.app.secret_calendar();
    assert_eq!(calendar.len(), 2, "{calendar:?}");
    assert_eq!(calendar[0].place, "registrations.contoso.client_secret");
    assert_eq!(calendar[0].accounts, ["a", "b"]);
    assert!(calendar[0].has_next && !calendar[1].has_next);
    assert_eq!(calendar[0].next_in_use, None, "no token was asked for yet");
    let end: Timestamp = "2026-12-31T00:00:00Z".parse().unwrap();
    assert_eq!((calendar[0].expires, calendar[1].expires), (Some(end), None));
    assert_eq!(calendar[0].days_left(end - SignedDuration::from_hours(25)), Some(1));

    // Twice a day, from long before to long after.
    let mut warned = Vec::new();
    for half_day in -200..20 {
        host.clock.0.store(end.as_second() + half_day * 12 * 3600, SeqCst);
        warned.extend(host.app.secret_warnings().into_iter().map(|warning| (half_day, warning.within)));
    }
    assert_eq!(warned, [(-120, 60), (-60, 30), (-14, 7), (-2, 1), (0, 0)]);
    let told = std::mem::take(&mut *host.told.lock().unwrap());
    assert_eq!(told.len(), 5, "each is an event too");
    let AccountEvent::Credential(last) = &told[4] else { panic!("{told:?}") };
    let (english, dutch) = (last.message(Language::English), last.message(Language::Dutch));
    assert!(english.contains("has expired on 2026-12-31") && english.contains("`a`, `b`"), "{english}");
    assert!(dutch.contains("is verlopen op 2026-12-31") && dutch.contains("client_secret_next"), "{dutch}");
    assert!(!format!("{told:?}").contains("old"), "the secret itself");
}

#[cfg(all(feature = "graph", feature = "certificate"))]
#[test]
fn a_certificate_tells_its_own_end() {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"
        [accounts.a]
        provider = "graph"
        tenant = "contoso.nl"
        client_id = "00000000-0000-0000-0000-00000000000a"
        certificate = { cert_file = "cert.pem", key_file = "key.pem" }
        auth = "app"
        mailbox = "a@contoso.nl"
    "#;
    let host = Host::new(config, folder.path());
    let missing = &host.app.secret_calendar()[0];
    assert_eq!(missing.expires, None);
    assert!(missing.problem.as_ref().unwrap().contains("cert.pem` cannot be read"), "{missing:?}");

    let mut params = rcgen::CertificateParams::new(vec!["app.contoso.nl".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2027, 3, 9);
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(folder.path().join("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let found = &host.app.secret_calendar()[0];
    let end: Timestamp = "2027-03-09T00:00:00Z".parse().unwrap();
    assert_eq!((found.expires, &found.problem), (Some(end), &None));
    host.clock.0.store(end.as_second() - 5 * 24 * 3600, SeqCst);
    let warning = &host.app.secret_warnings()[0];
    assert_eq!(warning.within, 7);
    assert!(
        warning.message(Language::English).contains("The certificate `accounts.a.certificate` expires within 7 days")
    );
    assert!(host.app.secret_warnings().is_empty());
}

#[cfg(feature = "graph")]
#[tokio::test]
async fn the_calendar_knows_which_secret_is_in_use() {
    use mail_account::testing::graph::GraphFake;
    let fake = GraphFake::start().await;
    let app = fake.app("Invoices").secret("new").permissions(["Mail.ReadWrite"]).create();
    fake.mailbox("a@contoso.nl").create();
    let folder = tempfile::tempdir().unwrap();
    let config = |first: &str, second: &str| {
        format!(
            "[accounts.a]\nprovider = \"graph\"\ntenant = \"{}\"\nclient_id = \"{}\"\nlogin_url = \"{}\"\n\
             graph_url = \"{}\"\nclient_secret = \"{first}\"\nclient_secret_next = \"{second}\"\nauth = \"app\"\n\
             mailbox = \"a@contoso.nl\"",
            fake.tenant(),
            app.client_id(),
            fake.login_url(),
            fake.graph_url()
        )
    };
    for (first, second, next_in_use) in [("old", "new", true), ("new", "later", false)] {
        let host = MailApp::from_str(&config(first, second), folder.path()).unwrap();
        host.account("a").unwrap().list_folders().await.unwrap_or_else(|e| panic!("{}", e.chain()));
        assert_eq!(host.secret_calendar()[0].next_in_use, Some(next_in_use));
    }
}
