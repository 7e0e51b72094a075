//! Every command refused, cut off, or answered by an end of the session: an error or the right result, nothing lost and
//! nothing twice.

use super::{server::CAPABILITY, *};
use crate::{FolderSpec, Result};

/// Something that callers do, and the commands it takes.
#[derive(Clone, Copy, Debug)]
enum Work {
    List,
    Folders,
    One,
    Download,
    Move,
    MarkRead,
    Create,
}

/// No MOVE, so that moving takes COPY, STORE and EXPUNGE.
const COPIES: &str = "IMAP4rev1 SASL-IR AUTH=PLAIN UIDPLUS LITERAL+ NAMESPACE";
/// Neither SASL nor anything else beyond RFC 3501.
const BARE: &str = "IMAP4rev1";

const STEPS: &[(&str, Work, &str)] = &[
    (CAPABILITY, Work::List, "CAPABILITY"),
    (CAPABILITY, Work::List, "AUTHENTICATE"),
    (BARE, Work::List, "LOGIN"),
    (CAPABILITY, Work::List, "EXAMINE"),
    (CAPABILITY, Work::List, "UID SEARCH"),
    (CAPABILITY, Work::List, "UID FETCH"),
    (CAPABILITY, Work::Folders, "LIST"),
    (CAPABILITY, Work::One, "UID FETCH"),
    (CAPABILITY, Work::Download, "UID FETCH"),
    (CAPABILITY, Work::Move, "SELECT"),
    (CAPABILITY, Work::Move, "UID FETCH"),
    (CAPABILITY, Work::Move, "UID MOVE"),
    (COPIES, Work::Move, "UID COPY"),
    (COPIES, Work::Move, "UID STORE"),
    (COPIES, Work::Move, "UID EXPUNGE"),
    (CAPABILITY, Work::MarkRead, "UID SEARCH"),
    (CAPABILITY, Work::MarkRead, "UID STORE"),
    (CAPABILITY, Work::Create, "CREATE"),
];

const MAILS: u64 = 2;

/// What was got, in words that can be compared.
async fn work(account: &ImapAccount, work: Work) -> Result<String> {
    Ok(match work {
        Work::List => subjects(&list(account).await?).join(","),
        Work::Folders => account.list_folders().await?.iter().map(|f| f.id.to_string()).collect::<Vec<_>>().join(","),
        Work::One => account.fetch_message(&handle(1)).await?.subject.unwrap_or_default(),
        Work::Download => {
            let bytes = account.download_attachment(&handle(1), &AttachmentId::raw()).bytes(1 << 20).await?;
            (bytes == mail(1)).to_string()
        }
        Work::Move => match move_one(account, 1).await? {
            MoveOutcome::Moved(id) => account.fetch_message(&id).await?.subject.unwrap_or_default(),
            other => format!("{other:?}"),
        },
        Work::MarkRead => account.mark_read(&[handle(1)], true).await.remove(0).map(|()| "read".to_owned())?,
        Work::Create => account.create_folder(&"New".parse::<FolderSpec>()?).await.map(|f| f.id.to_string())?,
    })
}

fn right(work: Work) -> &'static str {
    match work {
        Work::List => "Number 1,Number 2",
        Work::Folders => "INBOX,Done",
        Work::Download => "true",
        Work::One | Work::Move => "Number 1",
        Work::MarkRead => "read",
        // The server of these tests makes none, and says so when it is asked for a list.
        Work::Create => unreachable!(),
    }
}

async fn server(capability: &str, hook: impl FnMut(&str) -> Option<Act> + Send + 'static) -> Server {
    let server = server_with(MAILS, hook).await;
    server.state().capability = capability.to_owned();
    server
}

/// One mail less in the inbox is one more in the other folder.
fn check_sums(server: &Server, moved: bool, when: &str) {
    let state = server.state();
    let visible = |folder: &str| {
        state.mail.keys().filter(|at| at.0 == folder && !state.deleted.contains(at)).map(|at| at.1).collect::<Vec<_>>()
    };
    let (inbox, done) = (visible("INBOX"), visible("Done"));
    if moved {
        assert_eq!((inbox.len(), done.len()), (1, 1), "{when}");
    } else {
        // A copy whose original could not be taken away yet is not a loss, and is found again by the next try.
        assert!(done.len() <= 1 && inbox.contains(&2) && (inbox.contains(&1) || done.len() == 1), "{when}");
    }
}

#[tokio::test]
async fn every_refusal_is_an_error() {
    for (capability, what, command) in STEPS {
        for answer in
            ["{tag} NO no\r\n", "{tag} BAD bad\r\n", "{tag} NO [UNAVAILABLE] x\r\n", "{tag} NO [NOPERM] x\r\n"]
        {
            let when = format!("{what:?} {command} {answer}");
            let server = server(capability, always(command, Act::Say(answer.into()))).await;
            let result = soon(work(&server.account(2), *what)).await;
            let error = result.map_err(|e| e.kind()).expect_err(&when);
            assert_ne!(error, ErrorKind::NotFound, "{when}: refused is not gone");
            check_sums(&server, false, &when);
        }
    }
}

#[tokio::test]
async fn what_nothing_depends_on_may_be_refused() {
    for (command, what) in [("NAMESPACE", Work::Folders), ("SUBSCRIBE", Work::Folders), ("LOGOUT", Work::List)] {
        let server = server(COPIES, always(command, Act::Say("{tag} NO no\r\n".into()))).await;
        let account = server.account(1);
        assert_eq!(soon(work(&account, what)).await.unwrap(), right(what), "{command}");
        soon(account.close()).await;
    }
    // LOGOUT that is never answered, and one that is answered as the standard has it.
    for act in [Act::SayAndHang(String::new()), Act::SayAndClose("* BYE bye\r\n{tag} OK done\r\n".into())] {
        let server = server(CAPABILITY, always("LOGOUT", act)).await;
        let account = server.account(1);
        assert_eq!(soon(work(&account, Work::List)).await.unwrap(), right(Work::List));
        soon(account.close()).await;
    }
}

#[tokio::test]
async fn an_end_at_any_command_is_mended_or_told() {
    let ends = [
        Act::SayAndHang("* BYE going down\r\n".into()),
        Act::SayAndClose("* BYE going down\r\n".into()),
        Act::SayAndClose(String::new()),
        Act::DoAndClose,
        Act::Before("* BYE after all\r\n".into()),
    ];
    for (capability, what, command) in STEPS.iter().filter(|(_, what, _)| !matches!(what, Work::Create)) {
        for end in &ends {
            let when = format!("{what:?} {command} {end:?}");
            let mended = server(capability, once(command, end.clone())).await;
            assert_eq!(soon(work(&mended.account(2), *what)).await.expect(&when), right(*what), "{when}");
            check_sums(&mended, matches!(what, Work::Move), &when);
            let lasting = server(capability, always(command, end.clone())).await;
            match soon(work(&lasting.account(2), *what)).await {
                // What was done before the answer was lost has been found out.
                Ok(result) => {
                    assert_eq!(result, right(*what), "{when}");
                    assert!(matches!(what, Work::Move), "{when}");
                    check_sums(&lasting, true, &when);
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{when}: {}", error.chain());
                    check_sums(&lasting, false, &when);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_cut_at_any_byte_of_any_answer_is_mended() {
    for (capability, what, command) in STEPS.iter().filter(|(_, what, _)| !matches!(what, Work::Create)) {
        for at in 0.. {
            let when = format!("{what:?} {command} cut at byte {at}");
            let server = server(capability, once(command, Act::Cut(at))).await;
            assert_eq!(soon(work(&server.account(1), *what)).await.expect(&when), right(*what), "{when}");
            check_sums(&server, matches!(what, Work::Move), &when);
            if server.state().uncut {
                assert!(at > 10, "{when}: there was nothing to cut");
                break;
            }
        }
    }
}
