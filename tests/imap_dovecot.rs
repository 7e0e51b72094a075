//! The IMAP provider against a real server.
#![cfg(feature = "imap")]

#[path = "support/dovecot.rs"]
mod dovecot;

use std::time::{Duration, SystemTime};

use dovecot::{Dovecot, Options, PASSWORD};
use futures::{StreamExt as _, TryStreamExt as _};
use mail_account::{
    AttachmentId, ErrorKind, FolderSpec, MailAccount, Message, MoveOutcome, Query, Secret, SecretSource,
    auth::TokenProvider,
    provider::{
        Opening,
        imap::{ImapAccount, ImapConfig, Tls},
    },
};

fn config(server: &Dovecot, user: &str) -> ImapConfig {
    let mut config = ImapConfig::new("localhost", user, SecretSource::Literal(Secret::new(PASSWORD)));
    config.port = Some(server.tls_port);
    config.ca_file = Some(server.ca_file.clone());
    config
}

fn open(server: &Dovecot, user: &str) -> ImapAccount {
    config(server, user).account(Opening::new("test"), None).unwrap()
}

fn minutes_ago(minutes: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(60 * minutes)
}

/// A message with attachments of these sizes, whose bytes follow from the sizes.
fn mail(number: usize, sizes: &[usize]) -> Vec<u8> {
    let mut text = format!(
        "Message-ID: <{number}@example.com>\r\nFrom: A <a@example.com>\r\nTo: b@example.com\r\nSubject: Number {number}\r\nDate: Mon, 05 Jan 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b=_{number}\"\r\n\r\n--b=_{number}\r\nContent-Type: text/plain\r\n\r\nHello\r\n"
    );
    for (i, size) in sizes.iter().enumerate() {
        text.push_str(&format!("--b=_{number}\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=invoice {number} {i}.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"));
        let data = content(number, i, *size);
        let encoded = base64_simd::STANDARD.encode_to_string(&data);
        for line in encoded.as_bytes().chunks(76) {
            text.push_str(std::str::from_utf8(line).unwrap());
            text.push_str("\r\n");
        }
    }
    text.push_str(&format!("--b=_{number}--\r\n"));
    text.into_bytes()
}

fn content(number: usize, attachment: usize, size: usize) -> Vec<u8> {
    let mut seed = (number as u32).wrapping_mul(2_654_435_761) ^ (attachment as u32 + 1);
    (0..size)
        .map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .collect()
}

async fn inbox(account: &ImapAccount) -> mail_account::FolderId {
    account.resolve_folder(&"inbox".parse::<FolderSpec>().unwrap()).await.unwrap().id
}

async fn all(account: &ImapAccount, query: Query) -> Vec<Message> {
    let inbox = inbox(account).await;
    account.fetch_messages(&inbox, query).try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_with_their_attachments_whatever_their_size() {
    let server = Dovecot::start();
    let user = server.user();
    server.deliver(&user, "", &mail(1, &[1000, 2000]), minutes_ago(50));
    server.deliver(&user, "", &mail(2, &[3_000_000, 1000]), minutes_ago(40));
    server.deliver(&user, "", &mail(3, &[]), minutes_ago(30));
    let account = open(&server, &user);
    let messages = all(&account, Query::default().with_text(true)).await;
    assert_eq!(messages.len(), 3, "{}", server.logs());
    for (message, (number, sizes)) in
        messages.iter().zip([(1, vec![1000, 2000]), (2, vec![3_000_000, 1000]), (3, vec![])])
    {
        assert_eq!(message.subject.as_deref(), Some(format!("Number {number}").as_str()));
        assert_eq!(message.text.as_deref().map(str::trim), Some("Hello"));
        assert!(!message.is_read);
        assert!(message.defects().is_empty(), "{:?}", message.defects());
        assert_eq!(message.attachments.len(), sizes.len());
        for (i, (attachment, size)) in message.attachments.iter().zip(sizes).enumerate() {
            assert_eq!(attachment.name, Some(format!("invoice {number} {i}.pdf")));
            assert_eq!(attachment.content.is_some(), size < 256 * 1024);
            let bytes = account.download_attachment(&message.id, &attachment.id).bytes(10 << 20).await.unwrap();
            assert_eq!(bytes, content(number, i, size));
        }
        let raw = account.download_attachment(&message.id, &AttachmentId::raw()).bytes(10 << 20).await.unwrap();
        assert!(raw.starts_with(format!("Message-ID: <{number}@").as_bytes()));
    }
    // Nothing of that has marked anything as read.
    assert!(all(&account, Query::default().with_unread_only(true)).await.len() == 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_moved_and_found_again() {
    for capability in [None, Some("IMAP4rev1 UIDPLUS SASL-IR"), Some("IMAP4rev1 MOVE")] {
        let server = Dovecot::with(Options { capability, ..Options::default() });
        let user = server.user();
        for n in 0..5 {
            server.deliver(&user, "", &mail(n, &[100]), minutes_ago(50 - n as u64));
        }
        let account = open(&server, &user);
        let messages = all(&account, Query::default()).await;
        let processed = account.create_folder(&"Inbox/Processed".parse().unwrap()).await.unwrap();
        assert_eq!(processed.segments, ["INBOX", "Processed"]);
        let ids: Vec<_> = messages.iter().take(3).map(|m| m.id.clone()).collect();
        for round in 0..2 {
            let outcomes = account.move_to_processed(&ids, &processed.id).await;
            for (outcome, message) in outcomes.into_iter().zip(&messages) {
                let MoveOutcome::Moved(id) = outcome.unwrap() else { panic!("{capability:?} {round}") };
                let found = account.fetch_message(&id).await.unwrap();
                assert_eq!(found.subject, message.subject, "{capability:?}");
                assert_eq!(found.folder, processed.id);
            }
        }
        assert_eq!(all(&account, Query::default()).await.len(), 2, "{capability:?}");
        let moved: Vec<Message> = account.fetch_messages(&processed.id, Query::default()).try_collect().await.unwrap();
        assert_eq!(moved.len(), 3, "{capability:?}");
        let error = account.fetch_message(&ids[0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_uidplus_nothing_is_expunged() {
    let server = Dovecot::with(Options { capability: Some("IMAP4rev1"), ..Options::default() });
    let user = server.user();
    for n in 0..3 {
        server.deliver(&user, "", &mail(n, &[100]), minutes_ago(50 - n as u64));
    }
    let account = open(&server, &user);
    let messages = all(&account, Query::default()).await;
    let processed = account.create_folder(&"Processed".parse().unwrap()).await.unwrap();
    let ids = [messages[0].id.clone()];
    for _ in 0..2 {
        let outcome = account.move_to_processed(&ids, &processed.id).await.remove(0).unwrap();
        let MoveOutcome::CopiedNotRemoved(id) = outcome else { panic!("{outcome:?}") };
        assert_eq!(account.fetch_message(&id).await.unwrap().subject, messages[0].subject);
    }
    // The original is out of sight, and there is one copy.
    assert_eq!(all(&account, Query::default()).await.len(), 2);
    let copies: Vec<Message> = account.fetch_messages(&processed.id, Query::default()).try_collect().await.unwrap();
    assert_eq!(copies.len(), 1);
    account.close().await;
    let files = std::fs::read_dir(server.maildir(&user, "").join("cur")).unwrap().count();
    assert_eq!(files, 3, "the original is still on the server's disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_messages_cost_few_commands() {
    const N: usize = 1_000;
    let server = Dovecot::start();
    let user = server.user();
    for n in 0..N {
        server.deliver(&user, "", &mail(n, &[100_000, 100_000]), minutes_ago(5_000 - n as u64));
    }
    let account = open(&server, &user);
    let processed = account.create_folder(&"Processed".parse().unwrap()).await.unwrap();
    let inbox = inbox(&account).await;
    let mut stream = account.fetch_messages(&inbox, Query::default());
    let (mut batch, mut seen, mut bytes) = (Vec::new(), 0, 0);
    let size = account.capabilities().move_batch;
    loop {
        let next = stream.next().await.transpose().unwrap();
        let end = next.is_none();
        if let Some(message) = next {
            assert_eq!(message.subject, Some(format!("Number {seen}")));
            assert_eq!(message.attachments.len(), 2);
            bytes += message.attachments.iter().map(|a| a.content.as_ref().unwrap().len()).sum::<usize>();
            seen += 1;
            batch.push(message.id);
        }
        if batch.len() == size || end {
            for outcome in account.move_to_processed(&batch, &processed.id).await {
                assert!(matches!(outcome, Ok(MoveOutcome::Moved(_))), "{outcome:?}");
            }
            batch.clear();
        }
        if end {
            break;
        }
    }
    assert_eq!((seen, bytes), (N, N * 200_000));
    account.close().await;
    let commands = account.usage().requests;
    println!("{commands} commands for {N} messages");
    assert!(commands <= N as u64 / 50 + 15, "{commands}");
}

#[derive(Debug)]
struct Tokens(std::sync::Mutex<Vec<String>>);

#[async_trait::async_trait]
impl TokenProvider for Tokens {
    async fn token(&self) -> mail_account::Result<Secret> {
        Ok(Secret::new(self.0.lock().unwrap().last().cloned().unwrap()))
    }

    fn reject(&self, token: &Secret, _: Option<&str>) {
        let mut tokens = self.0.lock().unwrap();
        if tokens.len() > 1 && tokens.last().map(String::as_str) == Some(token.expose()) {
            tokens.pop();
        }
    }
}

fn with_tokens(server: &Dovecot, user: &str, tokens: &[String]) -> ImapAccount {
    let mut config = config(server, user);
    config.password = None;
    let oauth = r#"{"app": {"client_id": "x", "client_secret": "not asked for"}, "auth": "app", "token_url": "https://login.example.com/token", "scopes": ["imap"]}"#;
    config.oauth = Some(serde_json::from_str(oauth).unwrap());
    let tokens = Tokens(std::sync::Mutex::new(tokens.iter().rev().cloned().collect()));
    config.account(Opening::new("test"), Some(std::sync::Arc::new(tokens))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_open_a_mailbox_and_a_refused_one_is_renewed_once() {
    for capability in [None, Some("IMAP4rev1 SASL-IR AUTH=OAUTHBEARER"), Some("IMAP4rev1 AUTH=XOAUTH2")] {
        let extra = match capability {
            Some(text) if text.contains("OAUTHBEARER") => "auth_mechanisms = oauthbearer\n",
            Some(_) => "auth_mechanisms = xoauth2\n",
            None => "",
        };
        let server = Dovecot::with(Options { extra, capability, ..Options::default() });
        let user = server.user();
        server.deliver(&user, "", &mail(1, &[]), minutes_ago(5));
        let account = with_tokens(&server, &user, &["expired".into(), format!("good:{user}")]);
        assert_eq!(all(&account, Query::default()).await.len(), 1, "{capability:?}");

        let account = with_tokens(&server, &user, &["expired".into()]);
        let error = account.list_folders().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        assert!(!format!("{error:?} {error}").contains("expired\""), "{error:?}");
        assert_eq!(error.account(), Some("test"));

        let account = with_tokens(&server, &user, &["good:somebody-else@example.com".into()]);
        assert_eq!(account.list_folders().await.unwrap_err().kind(), ErrorKind::Unauthenticated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_shown_once() {
    let server = Dovecot::start();
    let user = server.user();
    let mut config = config(&server, &user);
    config.password = Some(SecretSource::Literal(Secret::new("wr0ng")));
    let account = config.account(Opening::new("test"), None).unwrap();
    for round in 0..3 {
        let error = account.list_folders().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert_eq!(error.code(), Some("AUTHENTICATIONFAILED"));
        assert!(!format!("{error:?}").contains("wr0ng"));
        assert_eq!(error.to_string().contains("not tried again"), round > 0, "{error}");
    }
    let failures = server.logs().matches("auth failed").count();
    assert!(failures <= 1, "{}", server.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_secured_or_refused() {
    let server = Dovecot::start();
    let user = server.user();
    let mut starttls = config(&server, &user);
    starttls.tls = Tls::Starttls;
    starttls.port = Some(server.port);
    assert!(!starttls.account(Opening::new("a"), None).unwrap().list_folders().await.unwrap().is_empty());

    let mut plain = starttls.clone();
    plain.tls = Tls::None;
    assert!(!plain.account(Opening::new("a"), None).unwrap().list_folders().await.unwrap().is_empty());

    let mut untrusted = config(&server, &user);
    untrusted.ca_file = None;
    let error = untrusted.account(Opening::new("a"), None).unwrap().list_folders().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{}", error.chain());
    assert!(error.to_string().contains("ca_file"), "{error}");

    let mut elsewhere = config(&server, &user);
    elsewhere.host = "127.0.0.2".into();
    let error = elsewhere.account(Opening::new("a"), None).unwrap().list_folders().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidConfig | ErrorKind::Unavailable), "{}", error.chain());
}
