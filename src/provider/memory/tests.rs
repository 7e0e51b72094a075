use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};

use super::*;
use crate::{ErrorKind, Role};

fn mailbox(mails: u32) -> MemoryMailbox {
    let mailbox = MemoryMailbox::new("Facturen@contoso.nl");
    mailbox.generate("Inbox", mails, Generated::new(1)).unwrap();
    mailbox
}

fn open(mailbox: &MemoryMailbox) -> MemoryAccount {
    MemoryAccount::open("local", mailbox, MemoryOptions::default())
}

async fn folder(account: &MemoryAccount, spec: &str) -> FolderId {
    account.create_folder(&spec.parse().unwrap()).await.unwrap().id
}

async fn list(account: &MemoryAccount, spec: &str) -> Result<Vec<Message>> {
    let folder = account.resolve_folder(&spec.parse().unwrap()).await?;
    account.fetch_messages(&folder.id, Query::default()).try_collect().await
}

#[tokio::test]
async fn two_accounts_see_the_same_mail_under_different_handles() {
    let mailbox = mailbox(3);
    let (a, b) = (open(&mailbox), MemoryAccount::open("other", &mailbox, MemoryOptions::default()));
    let (in_a, in_b) = (list(&a, "Inbox").await.unwrap(), list(&b, "Inbox").await.unwrap());
    let ids = |messages: &[Message]| messages.iter().map(|m| m.internet_message_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&in_a), ids(&in_b));
    let handles: HashSet<_> = in_a.iter().chain(&in_b).map(|m| &m.id).collect();
    assert_eq!(handles.len(), 6);
    assert_eq!(b.fetch_message(&in_a[0].id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(a.stored(&in_a[0].id), b.stored(&in_b[0].id));
    assert_eq!(a.mailbox().name, "facturen@contoso.nl");
}

#[tokio::test]
async fn handles_follow_a_move_only_where_they_are_stable() {
    for stable in [false, true] {
        let mailbox = mailbox(1);
        let account = MemoryAccount::open("a", &mailbox, MemoryOptions::default().with_stable_ids(stable));
        let old = list(&account, "Inbox").await.unwrap().remove(0).id;
        let to = folder(&account, "Inbox/Processed").await;
        let MoveOutcome::Moved(new) =
            account.move_to_processed(std::slice::from_ref(&old), &to).await.remove(0).unwrap()
        else {
            panic!("not moved");
        };
        assert_eq!(old == new, stable);
        assert_eq!(account.fetch_message(&new).await.unwrap().folder, to);
        assert_eq!(account.fetch_message(&old).await.is_ok(), stable);
        let again = account.move_to_processed(std::slice::from_ref(&old), &to).await.remove(0).unwrap();
        assert_eq!(again, if stable { MoveOutcome::Moved(new) } else { MoveOutcome::Gone });
        assert_eq!(mailbox.ids("Inbox/Processed").unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_only_copies_keeps_a_marked_original() {
    let mailbox = mailbox(1);
    let account = MemoryAccount::open("a", &mailbox, MemoryOptions::default().with_copy_only(true));
    let old = list(&account, "Inbox").await.unwrap().remove(0).id;
    let to = folder(&account, "Done").await;
    let first = account.move_to_processed(std::slice::from_ref(&old), &to).await.remove(0).unwrap();
    assert!(matches!(first, MoveOutcome::CopiedNotRemoved(_)));
    assert_eq!(account.move_to_processed(std::slice::from_ref(&old), &to).await.remove(0).unwrap(), first);
    assert_eq!(mailbox.ids("Done").unwrap().len(), 1);
    assert!(mailbox.ids("Inbox").unwrap().is_empty());
    assert!(mailbox.contents("Inbox").unwrap()[0].deleted);
    assert!(list(&account, "Inbox").await.unwrap().is_empty());
}

#[tokio::test]
async fn dutch_folders_have_the_same_roles() {
    let account = open(&MemoryMailbox::dutch("x@y.nl"));
    let inbox = account.resolve_folder(&"Inbox".parse().unwrap()).await.unwrap();
    assert_eq!((inbox.path().as_str(), inbox.role), ("Postvak IN", Some(Role::Inbox)));
    assert_eq!(account.resolve_folder(&"role:trash".parse().unwrap()).await.unwrap().name(), "Verwijderde items");
    let made = account.create_folder(&"inbox/Verwerkt/Oud".parse().unwrap()).await.unwrap();
    assert_eq!(made.path(), "Postvak IN/Verwerkt/Oud");
}

#[tokio::test]
async fn faults_hit_the_call_they_are_scripted_for() {
    let mailbox = mailbox(4).with_call_log();
    let account = open(&mailbox);
    mailbox.fault(Fault::on(Operation::NextMessage).nth(3).throttled(Duration::from_secs(7)));
    mailbox.fault(Fault::on(Operation::MarkRead));
    let inbox = folder(&account, "Inbox").await;
    let got: Vec<_> = account.fetch_messages(&inbox, Query::default()).collect().await;
    assert_eq!(got.len(), 3, "the error ends the stream");
    let error = got[2].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Throttled, Some(Duration::from_secs(7))));
    assert_eq!((error.account(), error.operation()), (Some("local"), Some("fetch_messages")));
    assert_eq!(mailbox.unmet_faults(), ["error `unavailable` on MarkRead call 1 (calls seen: 0, hit: 0)"]);
    let steps: Vec<_> = mailbox.calls().iter().map(|c| (c.operation, c.number, c.error)).collect();
    assert_eq!(
        steps,
        [
            (Operation::CreateFolder, 1, None),
            (Operation::FetchMessages, 1, None),
            (Operation::NextMessage, 1, None),
            (Operation::NextMessage, 2, None),
            (Operation::NextMessage, 3, Some(ErrorKind::Throttled)),
        ]
    );
}

#[tokio::test]
async fn a_lost_answer_comes_after_the_move() {
    let mailbox = mailbox(3);
    let account = open(&mailbox);
    let ids: Vec<_> = list(&account, "Inbox").await.unwrap().into_iter().map(|m| m.id).collect();
    let to = folder(&account, "Done").await;
    mailbox.fault(Fault::on(Operation::Move).error(ErrorKind::Timeout).after_performing());
    let answers = account.move_to_processed(&ids[..1], &to).await;
    assert_eq!(answers[0].as_ref().unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(mailbox.ids("Done").unwrap().len(), 1);

    mailbox.fault(Fault::on(Operation::Move).cut_after(1));
    let answers = account.move_to_processed(&ids[1..], &to).await;
    assert!(matches!(answers[0], Ok(MoveOutcome::Moved(_))));
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(mailbox.ids("Inbox").unwrap().len(), 1);
}

#[tokio::test]
async fn a_vanishing_message_spares_the_rest_of_its_batch() {
    let mailbox = mailbox(3);
    let account = open(&mailbox);
    let ids: Vec<_> = list(&account, "Inbox").await.unwrap().into_iter().map(|m| m.id).collect();
    let to = folder(&account, "Done").await;
    mailbox.fault(Fault::on(Operation::MoveMessage).nth(2).vanish());
    let answers: Vec<_> = account.move_to_processed(&ids, &to).await.into_iter().map(Result::unwrap).collect();
    assert!(matches!(answers[..], [MoveOutcome::Moved(_), MoveOutcome::Gone, MoveOutcome::Moved(_)]));
}

#[tokio::test]
async fn a_download_is_cut_with_an_error_never_short() {
    let mailbox = mailbox(1);
    let account = open(&mailbox);
    let message = list(&account, "Inbox").await.unwrap().remove(0);
    mailbox.fault(Fault::on(Operation::Download).times(2).cut_after(10));
    let attachment = &message.attachments[0].id;
    let mut pieces = account.download_attachment(&message.id, attachment).into_stream();
    assert_eq!(pieces.next().await.unwrap().unwrap().len(), 10);
    assert_eq!(pieces.next().await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(pieces.next().await.is_none());
    drop(account.download_attachment(&message.id, attachment));
    assert_eq!(mailbox.count(Operation::Download), 1, "a download that is not polled is no call");
    assert!(account.download_attachment(&message.id, attachment).bytes(1 << 20).await.is_err());
    let whole = account.download_attachment(&message.id, attachment).bytes(1 << 20).await.unwrap();
    assert_eq!(Some(whole), message.attachments[0].content);
}

#[tokio::test]
async fn a_hanging_call_never_returns_and_can_be_dropped() {
    let mailbox = mailbox(1);
    let account = open(&mailbox);
    mailbox.fault(Fault::on(Operation::ListFolders).hang());
    let mut call = Box::pin(account.list_folders());
    for _ in 0..10 {
        assert!((&mut call).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    drop(call);
    assert_eq!(account.list_folders().await.unwrap().len(), 6);
}

#[tokio::test]
async fn the_hook_sees_every_step_and_can_act_or_stop_it() {
    let mailbox = mailbox(2);
    let account = open(&mailbox);
    let ids: Vec<_> = list(&account, "Inbox").await.unwrap().into_iter().map(|m| m.id).collect();
    let to = folder(&account, "Done").await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    mailbox.on_call({
        let (seen, mailbox) = (Arc::clone(&seen), mailbox.clone());
        move |call: &Call| {
            seen.lock().unwrap().push((call.operation, call.phase, mailbox.ids("Done").unwrap().len()));
        }
    });
    account.move_to_processed(&ids[..1], &to).await.remove(0).unwrap();
    use Phase::{After, Before};
    assert_eq!(
        *seen.lock().unwrap(),
        [
            (Operation::Move, Before, 0),
            (Operation::MoveMessage, Before, 0),
            (Operation::MoveMessage, After, 1),
            (Operation::Move, After, 1),
        ]
    );
    mailbox.on_call(|call: &Call| match (call.operation, call.phase) {
        (Operation::Move, After) => Reaction::Hang,
        _ => Reaction::Go,
    });
    let mut killed = account.move_to_processed(&ids[1..], &to);
    for _ in 0..10 {
        assert!((&mut killed).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert_eq!(mailbox.ids("Done").unwrap().len(), 2, "performed, and nobody was told");
}

#[tokio::test]
async fn an_outage_can_be_of_one_account() {
    let mailbox = mailbox(1);
    let (a, b) = (open(&mailbox), MemoryAccount::open("b", &mailbox, MemoryOptions::default()));
    mailbox.outage_of("b", ErrorKind::MailboxGone);
    assert!(list(&a, "Inbox").await.is_ok());
    assert_eq!(list(&b, "Inbox").await.unwrap_err().kind(), ErrorKind::MailboxGone);
    mailbox.outage(ErrorKind::Unavailable);
    assert_eq!(list(&a, "Inbox").await.unwrap_err().kind(), ErrorKind::Unavailable);
    mailbox.mend();
    assert!(list(&b, "Inbox").await.is_ok());
}

#[tokio::test]
async fn a_person_can_put_a_message_back_and_a_server_can_void_handles() {
    let mailbox = mailbox(1);
    let account = open(&mailbox);
    let id = list(&account, "Inbox").await.unwrap().remove(0).id;
    let stored = account.stored(&id).unwrap();
    let to = folder(&account, "Done").await;
    account.move_to_processed(&[id], &to).await.remove(0).unwrap();
    assert!(mailbox.move_by_person(stored, "Inbox").unwrap());
    let back = list(&account, "Inbox").await.unwrap().remove(0).id;
    assert_eq!(account.stored(&back), Some(stored));
    mailbox.void_handles();
    assert_eq!(account.fetch_message(&back).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(account.stored(&list(&account, "Inbox").await.unwrap()[0].id), Some(stored));
}

#[tokio::test]
async fn a_folder_that_goes_while_it_is_read_is_an_error_not_an_end() {
    let mailbox = mailbox(0);
    mailbox.generate("Work", 2, Generated::new(2)).unwrap();
    let account = open(&mailbox);
    let work = folder(&account, "Work").await;
    let mut messages = account.fetch_messages(&work, Query::default());
    messages.next().await.unwrap().unwrap();
    mailbox.delete_folder("Work").unwrap();
    assert_eq!(messages.next().await.unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    assert!(messages.next().await.is_none());
}

#[tokio::test]
async fn a_read_only_folder_refuses_moves_both_ways() {
    let mailbox = mailbox(1);
    mailbox.create_folder("Shared").unwrap();
    mailbox.set_access("Shared", Access::ReadOnly).unwrap();
    let account = open(&mailbox);
    let id = list(&account, "Inbox").await.unwrap().remove(0).id;
    let (inbox, shared) = (folder(&account, "Inbox").await, folder(&account, "Shared").await);
    assert_eq!(account.folder_access(&shared).await.unwrap(), Access::ReadOnly);
    let refused = account.move_to_processed(std::slice::from_ref(&id), &shared).await.remove(0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    assert!(refused.to_string().contains("`Shared`"), "{refused}");
    assert!(mailbox.move_by_person(account.stored(&id).unwrap(), "Shared").unwrap());
    let id = list(&account, "Shared").await.unwrap().remove(0).id;
    assert!(account.move_to_processed(&[id], &inbox).await[0].is_err());
}

#[tokio::test]
async fn an_unreadable_message_is_given_with_its_bytes() {
    let mailbox = mailbox(0);
    let raw = Bytes::from_static(b"\xff\xfe garbage");
    mailbox.deliver_unreadable("Inbox", raw.clone(), "2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
    assert_eq!(mailbox.contents("Inbox").unwrap()[0].raw, raw);
    let message = list(&open(&mailbox), "Inbox").await.unwrap().remove(0);
    assert_eq!(message.defects(), [crate::Defect::Unreadable]);
}

#[tokio::test]
async fn a_generated_message_is_what_its_raw_form_says() {
    let mailbox = MemoryMailbox::new("facturen@contoso.nl");
    mailbox.generate("Made", 3, Generated::new(9).with_attachments(2, 5_000)).unwrap();
    for stored in mailbox.contents("Made").unwrap() {
        mailbox.deliver("Read", stored.raw, stored.received).unwrap();
    }
    let account = open(&mailbox);
    let query = || Query::default().with_text(true).with_headers(["Subject", "Message-ID"]);
    let mut folders = Vec::new();
    for name in ["Made", "Read"] {
        let id = folder(&account, name).await;
        folders.push(account.fetch_messages(&id, query()).try_collect::<Vec<_>>().await.unwrap());
    }
    for (made, read) in folders[0].iter().zip(&folders[1]) {
        let envelope = |m: &Message| {
            (m.internet_message_id.clone(), m.subject.clone(), m.from.clone(), m.to.clone(), m.sent, m.received)
        };
        assert_eq!(envelope(made), envelope(read));
        assert_eq!(made.text.as_deref().map(str::trim), read.text.as_deref().map(str::trim));
        assert_eq!(made.headers, read.headers);
        let files = |m: &Message| m.attachments.iter().map(|a| (a.name.clone(), a.content.clone())).collect::<Vec<_>>();
        assert_eq!(files(made), files(read));
    }
    assert_eq!(folders[0].len(), 3);
}
