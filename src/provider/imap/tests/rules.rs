//! What servers have been seen to do that is not in the standard, or is and is rarely thought of.

use std::sync::Mutex;

use super::{super::handle::PartId, *};
use crate::{Access, FolderSpec, auth::TokenProvider};

#[tokio::test]
async fn content_may_come_before_the_end_of_an_earlier_command() {
    // Two sets are on their way, and both come before either is said to be done.
    let late = |line: &str| line.starts_with("UID FETCH 1:200 (UID BODY").then_some(Act::Late);
    let server = server_with(300, late).await;
    let messages = soon(list(&server.account(1))).await.unwrap();
    let expected: Vec<String> = (1..=300).map(|n| format!("Number {n}")).collect();
    assert_eq!(subjects(&messages), expected);
    assert!(server.state().log.iter().any(|line| line.starts_with("UID FETCH 201:300 (UID BODY")));
}

#[tokio::test]
async fn garbage_beside_a_good_item_costs_nothing() {
    let whole = mail(1);
    let text = String::from_utf8(whole.clone()).unwrap();
    let size = whole.len();
    let good = format!("BODY[] {{{size}}}\r\n{text}");
    for items in [
        format!("X-GM-LABELS (\\Inbox \"a b\" {{3}}\r\nx)y) UID 1 {good}"),
        format!("{good} EMAILID (M1) UID 1 PREVIEW {{9}}\r\n) * 1 FET SAVEDATE NIL"),
        format!("BODYSTRUCTURE (((() UID 1 MODSEQ (7))))) {good} UID 1"),
        format!("FLAGS () INTERNALDATE \"yesterday\" RFC822.SIZE -1 UID 1 {good}"),
        format!("UID 1 ENVELOPE ({}) {good}", "\"x\" ".repeat(5_000)),
        format!("UID 1 \u{fffd}\u{1}=? NIL {good}"),
        format!("UID 1 X {{0}}\r\n {good}"),
    ] {
        let other = String::from_utf8(mail(2)).unwrap();
        let said =
            format!("* 1 FETCH ({items})\r\n* 2 FETCH (UID 2 BODY[] {{{size}}}\r\n{other})\r\n{{tag}} OK done\r\n");
        let server = server_with(2, always("UID FETCH 1:2 (UID BODY.PEEK[])", Act::Say(said))).await;
        let messages = soon(list(&server.account(1))).await.unwrap_or_else(|e| panic!("{items}: {}", e.chain()));
        assert_eq!(subjects(&messages), ["Number 1", "Number 2"], "{items}");
        assert!(messages.iter().all(|message| message.defects().is_empty()), "{items}");
    }
}

#[tokio::test]
async fn pieces_of_one_message_are_put_together() {
    let whole = sized(1, 300_000);
    let head = whole.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let header = String::from_utf8_lossy(&whole[..head]).into_owned();
    let body = String::from_utf8_lossy(&whole[head..]).into_owned();
    let structure = format!("(\"text\" \"plain\" NIL NIL NIL \"7bit\" {} 1)", body.len());
    let said = format!(
        "* 1 FETCH (UID 1 FLAGS ())\r\n* 1 FETCH (BODYSTRUCTURE {structure} UID 1)\r\n* 1 FETCH (FLAGS ())\r\n\
         * 1 FETCH (UID 1 BODY[HEADER] {{{head}}}\r\n{header})\r\n{{tag}} OK done\r\n"
    );
    let server = Server::start(always("UID FETCH 1 (UID BODYSTRUCTURE", Act::Say(said))).await;
    server.put("INBOX", 1, &whole);
    let query = Query::default().with_inline_up_to(10_000);
    let messages: Vec<Message> = soon(server.account(1).fetch_messages(&inbox(), query).try_collect()).await.unwrap();
    assert_eq!(subjects(&messages), ["Number 1"]);
    assert!(messages[0].defects().is_empty());
}

#[tokio::test]
async fn a_message_that_goes_meanwhile_is_left_out() {
    let server = server_with(3, |_| None).await;
    let account = server.account(1);
    // Asked before its content is fetched, and after it was found.
    let others = server.clone();
    let query = Query::default().with_skip(move |id| {
        if *id == handle(1) {
            others.state().mail.remove(&("INBOX".to_owned(), 2));
        }
        false
    });
    let messages: Vec<Message> = soon(account.fetch_messages(&inbox(), query).try_collect()).await.unwrap();
    assert_eq!(subjects(&messages), ["Number 1", "Number 3"]);
    assert_eq!(soon(account.fetch_message(&handle(2))).await.unwrap_err().kind(), ErrorKind::NotFound);
    let gone = account.download_attachment(&handle(2), &AttachmentId::raw()).bytes(1 << 20);
    assert_eq!(soon(gone).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn nothing_is_no_empty_file() {
    let part = |size| PartId { section: "2".into(), encoding: "base64".into(), size }.id();
    for (answer, size, right) in [
        ("* 1 FETCH (UID 1 BODY[2] {0}\r\n)\r\n{tag} OK done\r\n", Some(700), Err(ErrorKind::Malformed)),
        ("* 1 FETCH (UID 1 BODY[2] \"\")\r\n{tag} OK done\r\n", Some(700), Err(ErrorKind::Malformed)),
        ("* 1 FETCH (UID 1 BODY[2] NIL)\r\n{tag} OK done\r\n", Some(700), Err(ErrorKind::Malformed)),
        ("* 1 FETCH (UID 1 BODY[2] {0}\r\n)\r\n{tag} OK done\r\n", Some(0), Ok("")),
        ("* 1 FETCH (UID 1 BODY[2] {0}\r\n)\r\n{tag} OK done\r\n", None, Ok("")),
        ("* 1 FETCH (UID 1 BODY[2] {8}\r\nQUJDREVG)\r\n{tag} OK done\r\n", None, Ok("ABCDEF")),
        ("* 1 FETCH (UID 1 BODY[2] \"QUJD\")\r\n{tag} OK done\r\n", Some(4), Ok("ABC")),
        ("* 1 FETCH (BODY[2] {4}\r\nQUJD UID 1)\r\n{tag} OK done\r\n", Some(4), Ok("ABC")),
        ("* 1 FETCH (UID 1 BODY[2] {4}\r\nQUJD)\r\n{tag} NO no\r\n", Some(4), Err(ErrorKind::Other)),
        ("* 2 FETCH (UID 2 BODY[2] {4}\r\nQUJD)\r\n{tag} OK done\r\n", Some(4), Err(ErrorKind::Malformed)),
        ("* 1 FETCH (UID 1 FLAGS ())\r\n{tag} OK done\r\n", Some(4), Err(ErrorKind::NotFound)),
        ("{tag} OK done\r\n", Some(4), Err(ErrorKind::NotFound)),
    ] {
        let server = server_with(2, always("UID FETCH", Act::Say(answer.into()))).await;
        let bytes = soon(server.account(1).download_attachment(&handle(1), &part(size)).bytes(1 << 20)).await;
        let got = bytes.map_err(|e| e.kind()).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        assert_eq!(got, right.map(str::to_owned), "{answer}");
    }
}

#[tokio::test]
async fn renumbering_in_the_middle_is_noticed() {
    // In a session: the server says so between two answers.
    let server = server_with(2, once("UID SEARCH", Act::Before("* OK [UIDVALIDITY 8] renumbered\r\n".into()))).await;
    server.state().validity = 8;
    let account = server.account(1);
    assert_eq!(soon(account.fetch_message(&handle(1))).await.unwrap_err().kind(), ErrorKind::NotFound);
    // In a listing: by the time that a broken connection is mended.
    let server = Server::start(once("UID FETCH 3 (UID BODY.PEEK[])", Act::Cut(200))).await;
    for uid in 1..=3 {
        server.put("INBOX", uid, &sized(uid, 3 << 20));
    }
    let renumbered = server.clone();
    let query = Query::default().with_skip(move |id| {
        if *id == handle(3) {
            renumbered.state().validity = 8;
        }
        false
    });
    let all: Vec<_> = soon(server.account(1).fetch_messages(&inbox(), query).collect::<Vec<_>>()).await;
    let error = all.into_iter().find_map(Result::err).expect("an error, and not the end of the folder");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.chain());
    assert!(error.to_string().contains("UIDVALIDITY"), "{error}");
    // In a download: bytes of another message are never joined to those of the first.
    let server = Server::start(once("UID FETCH", Act::Cut(100_000))).await;
    server.put("INBOX", 1, &sized(1, 1 << 20));
    let account = server.account(1);
    let mut download = account.download_attachment(&handle(1), &AttachmentId::raw()).into_stream();
    assert!(soon(download.next()).await.unwrap().is_ok());
    server.state().validity = 8;
    let end = loop {
        match soon(download.next()).await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert_eq!(end.expect("an error, and no short file").unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn numbers_that_do_not_last_are_good_for_this_run() {
    let server = server_with(1, |_| None).await;
    server.state().validity = 0;
    let account = server.account(1);
    let messages = soon(list(&account)).await.unwrap();
    assert!(matches!(
        soon(account.move_to_processed(&[messages[0].id.clone()], &FolderId::new("Done"))).await[0],
        Ok(MoveOutcome::Moved(_))
    ));
    let another = server.account(1);
    assert_eq!(soon(another.fetch_message(&messages[0].id)).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn noise_changes_nothing_of_folders_and_moves() {
    let noise = "* 5 EXISTS\r\n* 1 EXPUNGE\r\n* 0 RECENT\r\n* FLAGS (\\Seen)\r\n* OK [UIDNEXT 1] x\r\n* NO [ALERT] disk nearly full\r\n* BAD nobody asked\r\n* ESEARCH (TAG \"A9\") UID\r\n* STATUS Other (MESSAGES 3)\r\n* CAPABILITY IMAP4rev1 UIDPLUS MOVE\r\n* 9 FETCH (UID 9 FLAGS (\\Deleted))\r\nA0 OK never sent\r\nA7777 BAD never sent\r\n* ID NIL\r\n* ENABLED\r\n*\r\n\r\n";
    for command in ["SELECT", "UID FETCH", "UID MOVE", "LIST", "NOOP"] {
        let server = server_with(2, always(command, Act::Before(noise.into()))).await;
        let account = server.account(1);
        let outcome = soon(move_one(&account, 1)).await.unwrap_or_else(|e| panic!("{command}: {}", e.chain()));
        assert!(matches!(outcome, MoveOutcome::Moved(_)), "{command}: {outcome:?}");
        assert_eq!((server.count("INBOX"), server.count("Done")), (1, 1), "{command}");
        assert_eq!(soon(account.list_folders()).await.unwrap().len(), 2, "{command}");
    }
}

#[tokio::test]
async fn a_full_folder_and_one_that_cannot_be_changed_are_told_as_such() {
    let full = "{tag} NO [OVERQUOTA] Quota exceeded\r\n";
    let server = server_with(1, always("UID MOVE", Act::Say(full.into()))).await;
    let error = soon(move_one(&server.account(1), 1)).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::PermissionDenied, Some("OVERQUOTA")));
    assert_eq!((server.count("INBOX"), server.count("Done")), (1, 0));
    for said in [
        "* 1 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n{tag} OK [READ-ONLY] done\r\n",
        "* 1 EXISTS\r\n* OK [READ-ONLY] shared\r\n* OK [UIDVALIDITY 7] x\r\n{tag} OK done\r\n",
        "* OK [PERMANENTFLAGS (\\Seen)] x\r\n* OK [UIDVALIDITY 7] x\r\n{tag} OK [READ-WRITE] done\r\n",
    ] {
        let server = server_with(1, always("SELECT", Act::Say(said.into()))).await;
        let account = server.account(1);
        let error = soon(move_one(&account, 1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{said}");
        let asked = |name: &str| server.state().log.iter().any(|line| line.starts_with(name));
        assert!(!asked("UID MOVE") && !asked("UID FETCH"), "before any work is done: {said}");
        assert_ne!(soon(account.folder_access(&inbox())).await.unwrap(), Access::ReadWrite, "{said}");
    }
}

#[tokio::test]
async fn a_copy_of_a_try_before_is_not_copied_again() {
    async fn copies(hook: impl FnMut(&str) -> Option<Act> + Send + 'static) -> Server {
        let server = server_with(2, hook).await;
        server.state().capability = "IMAP4rev1 SASL-IR AUTH=PLAIN UIDPLUS LITERAL+".into();
        server
    }
    // The process dies between COPY and STORE: another account object goes on.
    let server = copies(once("UID STORE", Act::SayAndHang(String::new()))).await;
    let account = server.account(1);
    let dying = tokio::time::timeout(Duration::from_millis(300), move_one(&account, 1)).await;
    assert!(dying.is_err(), "it was dropped in the middle");
    drop(account);
    assert_eq!((server.count("INBOX"), server.count("Done")), (2, 1));
    assert!(matches!(soon(move_one(&server.account(1), 1)).await, Ok(MoveOutcome::Moved(_))));
    assert_eq!((server.count("INBOX"), server.count("Done")), (1, 1));
    assert_eq!(server.state().log.iter().filter(|line| line.starts_with("UID COPY")).count(), 1);
    // COPYUID missing and malformed: the copy is looked for before the original is touched.
    for said in ["{tag} OK done\r\n", "{tag} OK [COPYUID 7 1:* 5] done\r\n", "{tag} OK [COPYUID 0 1 5] done\r\n"] {
        let server = copies(always("UID COPY", Act::Say(said.into()))).await;
        let result = soon(move_one(&server.account(1), 1)).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Other, "{said}: nothing was copied");
        assert_eq!((server.count("INBOX"), server.state().deleted.len()), (2, 0), "{said}");
    }
}

/// A server of little more than RFC 3501 names no copies, and its SEARCH may be less than that.
#[tokio::test]
async fn copies_are_found_where_search_knows_little() {
    for said in ["* SEARCH\r\n{tag} OK done\r\n", "* SEARCH 101\r\n{tag} OK done\r\n", "{tag} BAD no OR here\r\n"] {
        let server = server_with(3, always("UID SEARCH UNDELETED OR", Act::Say(said.into()))).await;
        server.state().capability = "IMAP4rev1 AUTH=PLAIN".into();
        // One that has always been there.
        server.put("Done", 31, &mail(77));
        let ids = [handle(1), handle(2), handle(3)];
        let moved = soon(server.account(1).move_to_processed(&ids, &FolderId::new("Done"))).await;
        let copied =
            ["7.101.Done", "7.102.Done", "7.103.Done"].map(|id| MoveOutcome::CopiedNotRemoved(MessageId::new(id)));
        let moved: Vec<_> =
            moved.into_iter().map(|outcome| outcome.unwrap_or_else(|e| panic!("{}", e.chain()))).collect();
        assert_eq!(moved, copied, "{said}");
        assert_eq!((server.count("Done"), server.state().deleted.len()), (4, 3), "{said}");
    }
}

#[tokio::test]
async fn a_framing_fault_costs_a_connection_and_no_message() {
    let long = format!("* 1 FETCH (UID 1 BODY[] \"{}", "x".repeat(2 << 20));
    let unreadable = "* 1 FETCH (UID 1 BODY[] {99999999999999999999999}\r\n".to_owned();
    for fault in [long, unreadable] {
        // In a set of which one message is at fault: that one is told from the others.
        let hook = move |line: &str| {
            let whole = line.starts_with("UID FETCH") && line.contains("BODY.PEEK[]");
            let asks_two = line.starts_with("UID FETCH 2 ") || line.starts_with("UID FETCH 1:");
            (whole && asks_two).then(|| Act::SayAndHang(fault.clone()))
        };
        let server = server_with(3, hook).await;
        let messages = soon(list(&server.account(1))).await.unwrap();
        assert_eq!(subjects(&messages), ["Number 1", "", "Number 3"]);
        assert!(messages[1].defects().contains(&Defect::Unreadable));
    }
    // A structure that cannot be framed: the message is read whole.
    let deep = format!("* 1 FETCH (UID 1 BODYSTRUCTURE {}", "(".repeat(2 << 20));
    let server = Server::start(always("UID FETCH 1 (UID BODYSTRUCTURE", Act::SayAndHang(deep))).await;
    server.put("INBOX", 1, &sized(1, 2 << 20));
    let messages = soon(list(&server.account(1))).await.unwrap();
    assert_eq!(subjects(&messages), ["Number 1"]);
    // A server that does nothing else is no mailbox of unreadable mail.
    let server = server_with(5, always("UID FETCH", Act::SayAndHang("x".repeat(2 << 20)))).await;
    assert_eq!(soon(list(&server.account(1))).await.unwrap_err().kind(), ErrorKind::Malformed);
}

#[tokio::test]
async fn a_mailbox_that_is_not_opened_after_sign_in_is_explained() {
    let said = "{tag} BAD User is authenticated but not connected.\r\n";
    let server = server_with(1, always("EXAMINE", Act::Say(said.into()))).await;
    let error = soon(list(&server.account(1))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("IMAP may be switched off"), "{error}");
    let server = server_with(1, once("EXAMINE", Act::Say(said.into()))).await;
    assert_eq!(soon(list(&server.account(1))).await.unwrap().len(), 1, "a passing fault passes");
}

#[tokio::test]
async fn an_end_at_the_door_says_nothing_of_the_password() {
    for (stage, act) in [
        ("AUTHENTICATE", Act::SayAndClose(String::new())),
        ("AUTHENTICATE", Act::SayAndClose("* BYE [UNAVAILABLE] busy\r\n".into())),
        ("AUTHENTICATE", Act::SayAndHang("* BYE Too many connections\r\n".into())),
        ("GREETING", Act::SayAndClose("* BYE Connection refused\r\n".into())),
        ("GREETING", Act::SayAndHang("* NO [ALERT] overloaded, too many\r\n".into())),
        ("GREETING", Act::SayAndClose("HTTP/1.1 400 Bad Request\r\n\r\n".into())),
        ("GREETING", Act::SayAndHang(String::new())),
    ] {
        let server = server_with(1, always(stage, act.clone())).await;
        let error = soon(list(&server.account(1))).await.unwrap_err();
        assert_ne!(error.kind(), ErrorKind::Unauthenticated, "{stage} {act:?}: {}", error.chain());
    }
}

#[tokio::test]
async fn passwords_go_only_where_they_may() {
    let with = |capability: &'static str| async move {
        let server = server_with(1, |_| None).await;
        server.state().capability = capability.into();
        (soon(list(&server.account(1))).await.map(|m| m.len()), server)
    };
    let (result, server) = with("IMAP4rev1").await;
    assert_eq!(result.unwrap(), 1);
    assert!(server.state().log.iter().any(|line| line == "LOGIN \"u@example.com\" \"pa55word\""));
    for capability in ["IMAP4rev1 LOGINDISABLED", "IMAP4rev1 LOGINDISABLED AUTH=XOAUTH2 STARTTLS"] {
        let (result, server) = with(capability).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("only over TLS"), "{error}");
        assert!(!server.state().log.iter().any(|line| line.contains("LOGIN \"")), "nothing was sent");
    }
    // One that is announced and not accepted: the other way is tried, once.
    let hook = always("AUTHENTICATE", Act::Say("{tag} NO [ALERT] Unsupported authentication mechanism.\r\n".into()));
    let server = server_with(1, hook).await;
    assert_eq!(soon(list(&server.account(1))).await.unwrap().len(), 1);
    assert!(server.state().log.iter().any(|line| line.starts_with("LOGIN ")));
}

#[derive(Debug, Default)]
struct Tokens(Mutex<u32>);

#[async_trait::async_trait]
impl TokenProvider for Tokens {
    async fn token(&self) -> Result<crate::Secret> {
        Ok(crate::Secret::new(format!("tok3n-{}", self.0.lock().unwrap())))
    }

    fn reject(&self, _: &crate::Secret, _: Option<&str>) {
        *self.0.lock().unwrap() += 1;
    }
}

/// A server that answers lines of a sign-in as told, and knows nothing else.
async fn door(mut answer: impl FnMut(&str) -> Option<String> + Send + 'static) -> (u16, Arc<Mutex<Vec<String>>>) {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let mut socket = BufReader::new(socket);
            let _ = socket.write_all(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2 AUTH=OAUTHBEARER] hi\r\n").await;
            let (mut line, mut tag) = (String::new(), String::new());
            while socket.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                let text = line.trim_end().to_owned();
                log.lock().unwrap().push(text.clone());
                if let Some((found, _)) = text.split_once(' ') {
                    found.clone_into(&mut tag);
                }
                let Some(said) = answer(&text) else { break };
                let _ = socket.write_all(said.replace("{tag}", &tag).as_bytes()).await;
                line.clear();
            }
        }
    });
    (port, heard)
}

#[tokio::test]
async fn a_challenge_is_answered_and_never_with_the_token() {
    // {"status":"401","schemes":"bearer","scope":"mail"}
    let challenge = "+ eyJzdGF0dXMiOiI0MDEiLCJzY2hlbWVzIjoiYmVhcmVyIiwic2NvcGUiOiJtYWlsIn0=\r\n";
    let ends = [
        "{tag} NO [AUTHENTICATIONFAILED] no\r\n",
        "{tag} NO AUTHENTICATE failed.\r\n",
        "* BAD Command Error. 12\r\n",
        "{tag} BAD Command Error. 12\r\n",
    ];
    for end in ends {
        let (port, heard) =
            door(move |line| Some(if line.contains("AUTHENTICATE") { challenge } else { end }.to_owned())).await;
        let account = server::account_at(port, Some(Arc::new(Tokens::default())), 1);
        let error = soon(account.list_folders()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{end}: {}", error.chain());
        assert!(error.to_string().contains("status 401, scope mail"), "{end}: {error}");
        let printed = format!("{error:?} {} {account:?}", error.chain());
        assert!(!printed.contains("tok3n") && !printed.contains("dXNlcj"), "{printed}");
        // One token, an empty answer to what it met, a fresh token, and no third.
        let heard = heard.lock().unwrap().clone();
        let shown = heard.iter().filter(|line| line.contains("AUTHENTICATE XOAUTH2 ")).count();
        let empty = heard.iter().filter(|line| line.is_empty()).count();
        assert_eq!((shown, empty, heard.len()), (2, 2, 4), "{end}: {heard:?}");
    }
}

#[tokio::test]
async fn a_challenge_without_end_ends() {
    let challenge = "+ eyJzdGF0dXMiOiI0MDEifQ==\r\n";
    let answers: [fn(&str) -> Option<String>; 3] = [
        |_| Some("+ eyJzdGF0dXMiOiI0MDEifQ==\r\n".to_owned()),
        |line| Some(if line.is_empty() { "" } else { "+ eyJzdGF0dXMiOiI0MDEifQ==\r\n" }.to_owned()),
        |line| (!line.is_empty()).then(|| "+ eyJzdGF0dXMiOiI0MDEifQ==\r\n".to_owned()),
    ];
    assert!(answers.iter().all(|answer| answer("x") == Some(challenge.to_owned())));
    for answer in answers {
        let (port, heard) = door(answer).await;
        let account = server::account_at(port, Some(Arc::new(Tokens::default())), 1);
        assert!(soon(account.list_folders()).await.is_err());
        let heard = heard.lock().unwrap();
        let bearers = heard.iter().filter(|line| line.contains("dXNlcj")).count();
        assert!(
            bearers <= 4 && heard.iter().filter(|l| !l.contains("AUTHENTICATE")).all(String::is_empty),
            "{heard:?}"
        );
    }
}

#[tokio::test]
async fn the_other_mechanism_is_tried_where_one_is_not_taken() {
    let (port, heard) = door(|line| {
        let unsupported = "{tag} NO [ALERT] Unsupported authentication mechanism.\r\n";
        let said = match line {
            line if line.contains("XOAUTH2") => unsupported,
            line if line.contains("OAUTHBEARER") => "{tag} OK [CAPABILITY IMAP4rev1] in\r\n",
            line if line.contains("LIST") => "* LIST () \"/\" INBOX\r\n{tag} OK done\r\n",
            _ => "{tag} BAD what\r\n",
        };
        Some(said.to_owned())
    })
    .await;
    let account = server::account_at(port, Some(Arc::new(Tokens::default())), 1);
    assert_eq!(soon(account.resolve_folder(&"inbox".parse::<FolderSpec>().unwrap())).await.unwrap().path(), "INBOX");
    assert_eq!(heard.lock().unwrap().len(), 3);
}
