//! IMAP with tokens, end to end: the configuration file, the sign-in service (a fake of Entra), and Dovecot, which asks
//! a stand-in for Exchange what each token is worth.
#![cfg(all(feature = "imap", feature = "graph"))]

#[path = "support/dovecot.rs"]
mod dovecot;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/tenant.rs"]
mod tenant;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use dovecot::{Dovecot, Options};
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use mail_account::{
    Clock, Context, ErrorKind, FolderSpec, MailAccount, MailApp, Message, Query, Result,
    testing::graph::{App, GraphFake},
};
use proxy::Proxy;
use tenant::{SECRET, exchange};

/// A clock that a test moves ahead.
#[derive(Debug, Default)]
struct Ahead(AtomicI64);

#[async_trait]
impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp::now() + jiff::SignedDuration::from_secs(self.0.load(SeqCst))
    }

    async fn sleep(&self, _: Duration) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct World {
    server: Dovecot,
    proxy: Proxy,
    user: String,
    fake: GraphFake,
    app: App,
    clock: Arc<Ahead>,
}

impl World {
    async fn new(options: Options, permissions: &[&str]) -> Self {
        let server = Dovecot::with(options);
        let user = server.user();
        let fake = GraphFake::start().await;
        let app = fake.app("imap").secret(SECRET).permissions(permissions.iter().copied()).create();
        server.judge_tokens(exchange(&fake, &user));
        let proxy = Proxy::start(server.tls_port);
        Self { server, proxy, user, fake, app, clock: Arc::default() }
    }

    fn deliver(&self, count: usize, lines: usize) {
        let body = "Hello, this is a line of a longer text\r\n".repeat(lines);
        for n in 0..count {
            let text = format!("Message-ID: <{n}@example.com>\r\nSubject: Number {n}\r\n\r\n{body}");
            let received = SystemTime::now() - Duration::from_secs(60 * (count - n) as u64);
            self.server.deliver(&self.user, "", text.as_bytes(), received);
        }
    }

    /// `oauth` stands in the account beside `auth = "app"`.
    fn account(&self, oauth: &str) -> Result<Arc<dyn MailAccount>> {
        let client_id = self.app.client_id();
        let text = format!(
            r#"
[registrations.contoso]
tenant = "{tenant}"
client_id = "{client_id}"
client_secret = "{SECRET}"
login_url = "{login}"

[accounts.invoices]
provider = "imap"
host = "localhost"
port = {port}
ca_file = "{ca_file}"
username = "{user}"
oauth = {{ {oauth}, auth = "app" }}
"#,
            tenant = self.fake.tenant(),
            login = self.fake.login_url(),
            port = self.proxy.port,
            ca_file = self.server.ca_file.display(),
            user = self.user,
        );
        let context = Context::default().with_clock(Arc::clone(&self.clock) as Arc<dyn Clock>);
        MailApp::loader().with_context(context).from_str(&text, "/")?.account("invoices")
    }
}

async fn subjects(account: &Arc<dyn MailAccount>) -> Result<Vec<String>> {
    let inbox = account.resolve_folder(&"inbox".parse::<FolderSpec>()?).await?;
    let messages: Vec<Message> = account.fetch_messages(&inbox.id, Query::default()).try_collect().await?;
    Ok(messages.into_iter().map(|m| m.subject.unwrap_or_default()).collect())
}

const BOTH: [&str; 3] =
    ["auth_mechanisms = xoauth2\n", "auth_mechanisms = oauthbearer\n", "auth_mechanisms = plain xoauth2 oauthbearer\n"];

#[tokio::test(flavor = "multi_thread")]
async fn an_app_opens_a_mailbox_as_its_configuration_says() {
    for extra in BOTH {
        let world = World::new(Options { extra, ..Options::default() }, &["IMAP.AccessAsApp"]).await;
        world.deliver(3, 1);
        let account = world.account(r#"registration = "contoso""#).unwrap();
        assert_eq!(subjects(&account).await.unwrap(), ["Number 0", "Number 1", "Number 2"], "{extra}");
        let asked = world.fake.counters().token_requests;
        assert_eq!(asked, 1, "two connections at most, one token");
        let logs = world.server.logs();
        let shown = world.server.tokens();
        assert!(shown.windows(2).all(|pair| pair[0] == pair[1]), "{extra}");
        for secret in [SECRET, &shown[0]] {
            assert!(!format!("{account:?} {logs}").contains(secret), "{extra}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_the_permission_is_asked_for_again_once_and_explained() {
    let world = World::new(Options::default(), &["Mail.ReadWrite"]).await;
    let account = world.account(r#"registration = "contoso""#).unwrap();
    let error = subjects(&account).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{}", error.chain());
    assert!(error.to_string().contains("IMAP permission"), "{error}");
    assert_eq!((world.server.tokens().len(), world.fake.counters().token_requests), (2, 2));
    let printed = format!("{error:?} {}", error.chain());
    assert!(world.server.tokens().iter().all(|token| !printed.contains(token.as_str())), "{printed}");
    // Fixed at the service, the next run succeeds: what was refused was that token, not the app.
    world.app.grant("IMAP.AccessAsApp");
    world.clock.0.fetch_add(2 * 3600, SeqCst);
    world.fake.advance(Duration::from_secs(2 * 3600));
    assert_eq!(subjects(&account).await.unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_in_the_middle_is_replaced() {
    let world = World::new(Options::default(), &["IMAP.AccessAsApp"]).await;
    // More than is read ahead of a consumer that does not ask.
    world.deliver(200, 2_500);
    let account = world.account(r#"registration = "contoso""#).unwrap();
    let inbox = account.resolve_folder(&"inbox".parse::<FolderSpec>().unwrap()).await.unwrap();
    let mut listing = account.fetch_messages(&inbox.id, Query::default());
    let mut seen = vec![listing.next().await.unwrap().unwrap().subject.unwrap()];
    // An hour later the service ends the sessions of yesterday's tokens, as Exchange does.
    world.clock.0.fetch_add(2 * 3600, SeqCst);
    world.fake.advance(Duration::from_secs(2 * 3600));
    world.proxy.cut_all();
    while let Some(message) = listing.next().await {
        seen.push(message.unwrap().subject.unwrap());
    }
    let expected: Vec<String> = (0..200).map(|n| format!("Number {n}")).collect();
    assert_eq!(seen, expected);
    account.list_folders().await.unwrap();
    assert_eq!(world.fake.counters().token_requests, 2);
    assert!(!world.server.logs().contains("auth failed"), "the old token was not shown again: {}", world.server.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_service_revokes_is_replaced_once() {
    let world = World::new(Options::default(), &["IMAP.AccessAsApp"]).await;
    world.deliver(2, 1);
    let account = world.account(r#"registration = "contoso""#).unwrap();
    assert_eq!(subjects(&account).await.unwrap().len(), 2);
    let old = world.server.tokens().remove(0);
    let judge = exchange(&world.fake, &world.user);
    let revoked = old.clone();
    world.server.judge_tokens(move |token| if token == revoked { None } else { judge(token) });
    world.proxy.cut_all();
    assert_eq!(subjects(&account).await.unwrap().len(), 2);
    let shown = world.server.tokens();
    assert_eq!(shown.iter().filter(|token| **token == old).count(), 2, "shown once more, and never again");
    assert_eq!(world.fake.counters().token_requests, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_service_has_an_endpoint_of_its_own() {
    let world = World::new(Options::default(), &["IMAP.AccessAsApp"]).await;
    world.deliver(1, 1);
    let client_id = world.app.client_id();
    let url = format!("{}/{}/oauth2/v2.0/token", world.fake.login_url(), world.fake.tenant());
    let own = format!(
        r#"client_id = "{client_id}", client_secret = "{SECRET}", token_url = "{url}", scopes = ["https://outlook.office.com/.default"]"#
    );
    let account = world.account(&own).unwrap();
    assert_eq!(subjects(&account).await.unwrap(), ["Number 0"]);
    // The sign-in service's own refusal is what is told, and the mail server is not asked at all.
    let shown = world.server.tokens().len();
    let wrong = own.replace(SECRET, "another");
    let error = subjects(&world.account(&wrong).unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), error.account()), (ErrorKind::Unauthenticated, Some("invoices")), "{}", error.chain());
    assert_eq!(error.code(), Some("AADSTS7000215"), "{}", error.chain());
    assert_eq!(world.server.tokens().len(), shown);
}
