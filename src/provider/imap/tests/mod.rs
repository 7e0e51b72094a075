//! Servers that misbehave. Whatever they do, the result is right or an error, soon, and never an empty mailbox.
//!
//! | file | what it holds |
//! |---|---|
//! | `server.rs` | a small server that can be told to misbehave |
//! | `refusals.rs` | every command refused, cut off, or answered by an end of the session |
//! | `rules.rs` | what servers have been seen to do that is not in the standard |
//! | `tokens.rs` | access tokens that are replaced while sessions live |

mod refusals;
mod rules;
mod server;
mod tokens;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use self::server::{Act, Server};
use super::ImapAccount;
use crate::{
    AttachmentId, Defect, ErrorKind, FolderId, MailAccount as _, Message, MessageId, MoveOutcome, Query, Result,
};
use futures::{StreamExt as _, TryStreamExt as _};

fn mail(n: u64) -> Vec<u8> {
    sized(n, 20)
}

fn sized(n: u64, size: usize) -> Vec<u8> {
    let body = "0123456789abcdef\r\n".repeat(size / 18 + 1);
    format!("Message-ID: <{n}@example.com>\r\nFrom: a@example.com\r\nSubject: Number {n}\r\nDate: Mon, 05 Jan 2026 10:00:00 +0000\r\n\r\n{body}").into_bytes()
}

async fn server_with(n: u64, hook: impl FnMut(&str) -> Option<Act> + Send + 'static) -> Server {
    let server = Server::start(hook).await;
    for uid in 1..=n {
        server.put("INBOX", uid, &mail(uid));
    }
    server
}

/// Does something once, at the first command that begins so.
fn once(command: &'static str, act: Act) -> impl FnMut(&str) -> Option<Act> + Send {
    nth(command, 0, act)
}

fn nth(command: &'static str, n: usize, act: Act) -> impl FnMut(&str) -> Option<Act> + Send {
    let mut seen = 0;
    move |line| {
        if !line.starts_with(command) {
            return None;
        }
        seen += 1;
        (seen == n + 1).then(|| act.clone())
    }
}

fn always(command: &'static str, act: Act) -> impl FnMut(&str) -> Option<Act> + Send {
    move |line| line.starts_with(command).then(|| act.clone())
}

fn inbox() -> FolderId {
    FolderId::new("INBOX")
}

async fn list(account: &ImapAccount) -> Result<Vec<Message>> {
    account.fetch_messages(&inbox(), Query::default()).try_collect().await
}

fn subjects(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|m| m.subject.clone().unwrap_or_default()).collect()
}

fn handle(uid: u64) -> MessageId {
    MessageId::new(format!("7.{uid}.INBOX"))
}

async fn move_one(account: &ImapAccount, uid: u64) -> Result<MoveOutcome> {
    account.move_to_processed(&[handle(uid)], &FolderId::new("Done")).await.remove(0)
}

/// Nothing here takes longer than the retries of one operation.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("an end within the deadlines")
}

const READING: [&str; 5] = ["CAPABILITY", "AUTHENTICATE", "EXAMINE", "UID SEARCH", "UID FETCH"];

#[tokio::test]
async fn a_refusal_is_never_an_empty_folder() {
    for command in READING {
        for answer in ["{tag} NO no\r\n", "{tag} BAD bad\r\n", "{tag} NO [UNAVAILABLE] later\r\n"] {
            let server = server_with(4, always(command, Act::Say(answer.into()))).await;
            let result = soon(list(&server.account(2))).await;
            assert!(result.is_err(), "{command} {answer}: {:?}", result.map(|m| subjects(&m)));
        }
    }
    for answer in ["{tag} NO no\r\n", "{tag} BAD bad\r\n"] {
        let server = server_with(1, always("LIST", Act::Say(answer.into()))).await;
        assert!(soon(server.account(2).list_folders()).await.is_err());
        let server = server_with(1, always("UID MOVE", Act::Say(answer.into()))).await;
        assert!(soon(move_one(&server.account(2), 1)).await.is_err());
        assert_eq!((server.count("INBOX"), server.count("Done")), (1, 0));
    }
}

#[tokio::test]
async fn an_end_at_any_stage_is_an_error_or_mended() {
    let acts = [
        Act::SayAndHang("* BYE going down\r\n".into()),
        Act::SayAndClose("* BYE going down\r\n".into()),
        Act::SayAndClose(String::new()),
        Act::SayAndClose("* 1 FETCH (UID 1 BODY[] {1000}\r\nabc".into()),
        Act::SayAndClose("* 1 FETCH (UID 1 BODYSTRUCTURE (\"text\" {50}\r\nabc".into()),
        Act::SayAndHang("* 1 FETCH (UID 1 BODY[] {500000000}\r\nabc".into()),
    ];
    let stages = ["GREETING", "CAPABILITY", "AUTHENTICATE", "EXAMINE", "UID SEARCH", "UID FETCH"];
    let cases = stages.iter().flat_map(|stage| acts.iter().map(move |act| (*stage, act.clone())));
    futures::future::join_all(cases.map(|(stage, act)| async move {
        let server = server_with(3, always(stage, act.clone())).await;
        assert!(soon(list(&server.account(2))).await.is_err(), "{stage} {act:?}");
        // Once is mended by a new connection.
        let server = server_with(3, once(stage, act.clone())).await;
        match soon(list(&server.account(2))).await {
            Ok(messages) => assert_eq!(subjects(&messages), ["Number 1", "Number 2", "Number 3"]),
            Err(error) => assert!(error.is_retryable(), "{stage} {act:?}: {}", error.chain()),
        }
    }))
    .await;
}

#[tokio::test]
async fn bye_is_noticed_at_once_though_the_socket_stays_open() {
    let server = server_with(1, always("UID SEARCH", Act::SayAndHang("* BYE [UNAVAILABLE] x\r\n".into()))).await;
    // Waiting for the socket would end as a timeout.
    assert_eq!(list(&server.account(1)).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_pause_that_is_asked_for_is_kept() {
    let throttled = "{tag} NO Request is throttled. Suggested Backoff Time: 299988 milliseconds\r\n";
    let server = server_with(1, always("UID SEARCH", Act::Say(throttled.into()))).await;
    let account = server.account(1);
    let error = soon(list(&account)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled);
    assert!(error.retry_after().unwrap() > Duration::from_secs(290));
    let before = server.state().log.len();
    assert_eq!(soon(list(&account)).await.unwrap_err().kind(), ErrorKind::Throttled);
    assert_eq!(server.state().log.len(), before, "nothing was sent during the pause");
    assert_eq!(account.usage().throttled, 1);
}

#[tokio::test]
async fn lines_that_nobody_asked_for_change_nothing() {
    let noise = "* OK still here\r\n* 3 FETCH (FLAGS (\\Seen))\r\n* 99 FETCH (UID 999 BODY[] {3}\r\nxyz)\r\n* VANISHED 5\r\n* SEARCHING\r\n* 7 RECENT\r\n* FOO {3}\r\nabc bar\r\nA999 OK from the future\r\nA1 OK again\r\nB1 NO not ours\r\n* 2 FETCH (UID 2 FLAGS ())\r\n* LIST () \"/\" x\r\n";
    for command in ["AUTHENTICATE", "EXAMINE", "UID SEARCH", "UID FETCH"] {
        let server = server_with(3, always(command, Act::Before(noise.into()))).await;
        let messages = soon(list(&server.account(1))).await.unwrap_or_else(|e| panic!("{command}: {}", e.chain()));
        assert_eq!(subjects(&messages), ["Number 1", "Number 2", "Number 3"], "{command}");
    }
}

#[tokio::test]
async fn a_message_that_the_server_refuses_is_given_with_a_defect() {
    let hook = |line: &str| {
        let whole = line.starts_with("UID FETCH") && line.contains("BODY.PEEK[]");
        let asks_two = line.starts_with("UID FETCH 2 ") || line.starts_with("UID FETCH 1:");
        (whole && asks_two).then(|| Act::Say("{tag} NO cannot convert\r\n".into()))
    };
    let server = server_with(3, hook).await;
    let messages = soon(list(&server.account(1))).await.unwrap();
    assert_eq!(messages.len(), 3);
    assert!(messages[1].defects().contains(&Defect::Unreadable));
    assert_eq!(subjects(&messages), ["Number 1", "", "Number 3"]);
}

#[tokio::test]
async fn a_line_that_cannot_be_read_costs_no_message() {
    // The whole set comes as nonsense; single messages come well.
    let hook = |line: &str| {
        let nonsense = "* 1 FETCH (UID 1 BODY[] \"unclosed\r\n* 2 FETCH (UID 2 BODY[] (a b))\r\n* 3 FETCH (BODY[] NIL UID 3)\r\n{tag} OK done\r\n";
        (line == "UID FETCH 1:3 (UID BODY.PEEK[])").then(|| Act::Say(nonsense.into()))
    };
    let server = server_with(3, hook).await;
    let messages = soon(list(&server.account(1))).await.unwrap();
    assert_eq!(subjects(&messages), ["Number 1", "Number 2", "Number 3"]);
}

#[tokio::test]
async fn structures_beyond_belief_cost_no_message() {
    let deep = format!("{}{}", "(".repeat(20_000), ")".repeat(20_000));
    for structure in [
        deep.as_str(),
        "NIL",
        "(\"ALTERNATIVE\")",
        "((\"text\" \"plain\" NIL NIL NIL \"7bit\" 5 1)(\"RELATED\" NIL (\"ATTACHMENT\" NIL) NIL) \"mixed\")",
        "((\"text\" \"plain\" NIL NIL NIL \"7bit\" 0 0) \"mixed\" (\"boundary\" NIL))",
        "(\"multipart\" \"mixed\" (\"boundary\" \"x\") NIL NIL \"7BIT\" 1234)",
        "(\"message\" \"rfc822\" NIL NIL NIL \"base64\" 10 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) () 0)",
        "(\"text\" \"plain\" \"unclosed)",
        "(\"text\" \"plain\" NIL NIL NIL NIL 5 1)",
        "(\"text\" \"plain\" () NIL NIL \"7bit\" 5 1)",
        "(\"text\"  \"plain\"  (\"charset\" NIL)  NIL NIL  \"7bit\" 5 1)",
        "(\"text\" \"plain\" (\"charset\" \"x\") NIL \"\"\"\" \"7bit\" 5 1)",
        "(\"application\" \"pdf\" (\"name\" \"a\") NIL NIL \"base64\" 5 NIL \"inline\")",
        "(\"application\" \"pdf\" NIL NIL \"inline\" \"base64\" 5 NIL \"A description\")",
        "(\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 10 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) () 0)",
        "(\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 10)",
        "((\"text\" \"plain\" NIL NIL NIL \"7bit\" 5 1) \"mixed\" (\"boundary\" NIL))",
        "(\"text\" \"plain\" (\"name\" \"a\"b\" c\") NIL NIL \"7bit\" 5 1)",
        "(\"text\" \"plain\" NIL NIL NIL \"7bit\" -1 NIL)",
        "()",
        "\"text\"",
    ] {
        let said = format!(
            "* 1 FETCH (UID 1 BODYSTRUCTURE {structure} BODY[HEADER] {{17}}\r\nSubject: Other\r\n\r\n)\r\n{{tag}} OK done\r\n"
        );
        let hook = move |line: &str| line.contains("BODYSTRUCTURE").then(|| Act::Say(said.clone()));
        let server = Server::start(hook).await;
        server.put("INBOX", 1, &sized(1, 2 << 20));
        let messages = soon(list(&server.account(1))).await.unwrap();
        assert_eq!(subjects(&messages), ["Number 1"], "{}", &structure[..structure.len().min(60)]);
    }
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke() {
    let whole = sized(1, 3 << 20);
    for act in [Act::Cut(1_000_000), Act::Stall(1_000_000, Duration::from_secs(60)), Act::Cut(60)] {
        let server = Server::start(once("UID FETCH 1 (UID BODY.PEEK[])", act)).await;
        server.put("INBOX", 1, &whole);
        let account = server.account(1);
        let bytes = soon(account.download_attachment(&handle(1), &AttachmentId::raw()).bytes(8 << 20)).await.unwrap();
        assert!(bytes == whole, "{} of {}", bytes.len(), whole.len());
    }
    // For ever broken is an error, and not a short file.
    let server = Server::start(always("UID FETCH", Act::Cut(1_000))).await;
    server.put("INBOX", 1, &whole);
    let account = server.account(1);
    let stalled = always("UID FETCH", Act::SayAndHang("* 1 FETCH (UID 1 BODY[] {4000000}\r\nabc".into()));
    let error = account.download_attachment(&handle(1), &AttachmentId::raw()).bytes(8 << 20);
    // It advances by a little each time, so it ends; the error of a server that gives nothing more must come too.
    let _ = tokio::time::timeout(Duration::from_secs(3), error).await;
    let server = Server::start(stalled).await;
    server.put("INBOX", 1, &whole);
    let account = server.account(1);
    let result = soon(account.download_attachment(&handle(1), &AttachmentId::raw()).bytes(8 << 20)).await;
    assert!(matches!(result.unwrap_err().kind(), ErrorKind::Timeout | ErrorKind::Malformed));
}

#[tokio::test]
async fn renumbering_voids_handles() {
    let server = server_with(1, |_| None).await;
    let account = server.account(1);
    assert_eq!(soon(list(&account)).await.unwrap().len(), 1);
    server.state().validity = 8;
    let fresh = server.account(1);
    assert_eq!(soon(fresh.fetch_message(&handle(1))).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(soon(move_one(&fresh, 1)).await.unwrap_err().kind(), ErrorKind::NotFound);
    let raw = fresh.download_attachment(&handle(1), &AttachmentId::raw()).bytes(1 << 20);
    assert_eq!(soon(raw).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(server.count("INBOX"), 1);
}

#[tokio::test]
async fn a_move_whose_answer_is_lost_is_looked_up() {
    let server = server_with(2, once("UID MOVE", Act::DoAndClose)).await;
    let account = server.account(1);
    let outcome = soon(move_one(&account, 1)).await.unwrap();
    let MoveOutcome::Moved(id) = outcome else { panic!("{outcome:?}") };
    assert_eq!(soon(account.fetch_message(&id)).await.unwrap().subject.as_deref(), Some("Number 1"));
    assert_eq!((server.count("INBOX"), server.count("Done")), (1, 1));
    let moves = server.state().log.iter().filter(|c| c.starts_with("UID MOVE")).count();
    assert_eq!(moves, 1, "it was looked up, not repeated");
}

#[tokio::test]
async fn success_without_proof_is_checked() {
    // OK for a message that is gone, and for one that stays where it was.
    let server = server_with(1, |_| None).await;
    assert_eq!(soon(move_one(&server.account(1), 55)).await.unwrap(), MoveOutcome::Gone);
    let server = server_with(1, always("UID MOVE", Act::Say("{tag} OK done\r\n".into()))).await;
    let error = soon(move_one(&server.account(1), 1)).await.unwrap_err();
    assert!(error.to_string().contains("where it was"), "{error}");
    // A COPYUID that makes no sense: what happened is found out.
    let answers = [
        "* OK [COPYUID 7 1 *] x\r\n{tag} OK done\r\n",
        "* OK [COPYUID] x\r\n{tag} OK done\r\n",
        "* OK [COPYUID 7 999 101] x\r\n{tag} OK done\r\n",
        "{tag} NO [SERVERBUG] after the fact\r\n",
    ];
    for answer in answers {
        let moved = Arc::new(AtomicUsize::new(0));
        let flag = Arc::clone(&moved);
        let server = server_with(1, move |line: &str| {
            if line.starts_with("UID MOVE") {
                flag.fetch_add(1, SeqCst);
            }
            line.starts_with("UID MOVE").then(|| Act::Say(answer.into()))
        })
        .await;
        let account = server.account(1);
        assert_eq!(soon(list(&account)).await.unwrap().len(), 1);
        // Moved by the server, or by somebody else in between: the same from here.
        let message = server.state().mail.remove(&("INBOX".to_owned(), 1)).unwrap();
        server.put("Done", 31, &message);
        let outcome = soon(move_one(&account, 1)).await.unwrap_or_else(|e| panic!("{answer}: {}", e.chain()));
        assert_eq!(outcome, MoveOutcome::Moved(MessageId::new("7.31.Done")), "{answer}");
        assert_eq!(server.count("Done"), 1);
        assert!(moved.load(SeqCst) <= 1);
    }
}

#[tokio::test]
async fn one_connection_is_enough() {
    let server = Server::start(|_| None).await;
    for uid in 1..=50 {
        server.put("INBOX", uid, &sized(uid, 400_000));
    }
    let account = server.account(1);
    let mut listing = account.fetch_messages(&inbox(), Query::default());
    let first = soon(listing.next()).await.unwrap().unwrap();
    let mut download = account.download_attachment(&handle(40), &AttachmentId::raw()).into_stream();
    let mut bytes = soon(download.next()).await.unwrap().unwrap().to_vec();
    // Both are open and not polled.
    assert!(matches!(soon(move_one(&account, 50)).await, Ok(MoveOutcome::Moved(_))));
    assert!(matches!(soon(move_one(&account, 1)).await, Ok(MoveOutcome::Moved(_))));
    while let Some(piece) = soon(download.next()).await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    assert!(bytes == sized(40, 400_000));
    let mut seen = vec![first.subject.unwrap()];
    while let Some(message) = soon(listing.next()).await {
        seen.push(message.unwrap().subject.unwrap());
    }
    // The last was moved away before its turn, or read before it was moved.
    let expected: Vec<String> = (1..=50).map(|n| format!("Number {n}")).collect();
    assert!(seen == expected || seen == expected[..49], "{seen:?}");
}

#[tokio::test]
async fn text_before_the_handshake_is_tampering() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
        while let Ok((socket, _)) = listener.accept().await {
            let mut socket = tokio::io::BufReader::new(socket);
            socket.write_all(b"* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n").await.unwrap();
            let mut line = String::new();
            socket.read_line(&mut line).await.unwrap();
            let tag = line.split(' ').next().unwrap_or_default();
            let answer = format!("{tag} OK go\r\n* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] injected\r\n");
            let _ = socket.write_all(answer.as_bytes()).await;
            let _ = socket.read_line(&mut line).await;
        }
    });
    let secret = crate::SecretSource::Literal(crate::Secret::new("pa55word"));
    let mut config = super::ImapConfig::new("127.0.0.1", "u@example.com", secret);
    config.port = Some(port);
    config.tls = super::Tls::Starttls;
    let account = config.account(crate::provider::Opening::new("a"), None).unwrap();
    let error = soon(account.list_folders()).await.unwrap_err();
    assert!(error.to_string().contains("tampering"), "{}", error.chain());
}

#[tokio::test]
async fn refused_credentials_are_shown_once_and_never_printed() {
    for answer in ["{tag} NO [AUTHENTICATIONFAILED] no\r\n", "{tag} NO LOGIN failed.\r\n"] {
        let server = server_with(1, always("AUTHENTICATE", Act::Say(answer.into()))).await;
        let account = server.account(2);
        for _ in 0..5 {
            let error = soon(list(&account)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthenticated);
            let printed = format!("{error:?} {} {account:?}", error.chain());
            assert!(!printed.contains("pa55word"), "{printed}");
        }
        let tries = server.state().log.iter().filter(|c| c.starts_with("AUTHENTICATE")).count();
        assert_eq!(tries, 1);
    }
}

#[tokio::test]
async fn a_server_that_talks_without_end_is_left() {
    let endless = "* OK still here\r\n".repeat(50_000);
    let server = server_with(1, always("UID SEARCH", Act::SayAndHang(endless))).await;
    assert!(soon(list(&server.account(1))).await.is_err());
    let line = format!("* 1 FETCH (UID 1 BODY[] \"{}", "x".repeat(3 << 20));
    let server = server_with(1, always("UID FETCH", Act::SayAndHang(line))).await;
    let error = soon(list(&server.account(1))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed, "{}", error.chain());
}
