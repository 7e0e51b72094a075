//! Authorize for IMAP: a person's token on a real server, which asks a stand-in for Exchange what it is worth.

#![cfg(all(feature = "testing", feature = "imap", feature = "graph", feature = "sqlite"))]

#[path = "support/consent.rs"]
mod consent;
#[path = "support/dovecot.rs"]
mod dovecot;
#[path = "support/tenant.rs"]
mod tenant;

use std::time::{Duration, SystemTime};

use consent::{SECRET, Site};
use dovecot::Dovecot;
use futures::TryStreamExt as _;
use mail_account::{
    ErrorKind, FolderSpec, MailApp, Message, Query, Result, Role, auth::SignInOutcome, testing::graph::Mailbox,
};
use tenant::exchange;

async fn sign_in(host: &MailApp, site: &Site, user: &Mailbox) -> SignInOutcome {
    let link = host.begin_sign_in("invoices", None).await.unwrap_or_else(|e| panic!("{}", e.chain())).link;
    let callback = site.fake.sign_in_as(link.as_str(), user).await;
    host.complete_sign_in(&callback).await.unwrap()
}

async fn subjects(host: &MailApp) -> Result<Vec<String>> {
    let account = host.account("invoices")?;
    let inbox = account.resolve_folder(&FolderSpec::Role(Role::Inbox)).await?;
    let messages: Vec<Message> = account.fetch_messages(&inbox.id, Query::default()).try_collect().await?;
    Ok(messages.into_iter().map(|m| m.subject.unwrap_or_default()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_once_and_the_mailbox_is_read_over_imap() {
    let server = Dovecot::start();
    let address = server.user();
    let mut site = Site::with(|app| app.secret(SECRET).redirect_uri("http://localhost")).await;
    let user = site.fake.mailbox(&address).create();
    let other = site.fake.mailbox("other@example.com").create();
    server.judge_tokens(exchange(&site.fake, &address));
    server.deliver(&address, "", b"Message-ID: <1@x>\r\nSubject: One\r\n\r\nHello\r\n", SystemTime::now());
    site.accounts = format!(
        "[accounts.invoices]\nprovider = \"imap\"\nhost = \"localhost\"\nport = {}\nca_file = \"{}\"\nusername = \"{address}\"\noauth = {{ registration = \"contoso\", auth = \"delegated\" }}\n",
        server.tls_port,
        server.ca_file.display(),
    );
    let host = site.host();
    assert_eq!(subjects(&host).await.unwrap_err().kind(), ErrorKind::SignInNeeded);
    assert!(server.tokens().is_empty(), "nothing was shown to the server");

    let wrong = sign_in(&host, &site, &other).await;
    assert!(matches!(wrong, SignInOutcome::WrongIdentity { .. }), "{wrong:?}");
    // The right person, but the server does not open the mailbox: nothing is stored.
    server.judge_tokens(|_| None);
    let refused = sign_in(&host, &site, &user).await;
    assert!(matches!(refused, SignInOutcome::Refused { .. }), "{refused:?}");
    assert!(site.stored(&host, "invoices").await.is_none());

    server.judge_tokens(exchange(&site.fake, &address));
    let right = sign_in(&host, &site, &user).await;
    assert!(right.is_ok(), "{right:?}");
    assert_eq!(subjects(&host).await.unwrap(), ["One"]);
    // In a process that never saw the browser, and when the token has been replaced between two looks.
    let host = site.host();
    assert_eq!(subjects(&host).await.unwrap(), ["One"]);
    let before = server.tokens().len();
    site.clock.pass(Duration::from_secs(2 * 3600));
    site.fake.advance(Duration::from_secs(2 * 3600));
    assert_eq!(subjects(&host).await.unwrap(), ["One"]);
    assert_eq!(server.tokens().len(), before + 1, "signed in anew, with the new token");
}
