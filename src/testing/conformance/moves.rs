//! What becomes of moved messages.

use super::room::{Room, done, ids, moved, numbered, refused, spec};
use crate::{ErrorKind, FolderId, MoveOutcome, Query, testing::mail::mail};

pub(super) async fn move_returns_a_usable_id(room: &Room<'_>) {
    let (folder, target) = (room.folder("Work").await, room.folder("Target").await);
    let sent = mail().with_attachment("a.pdf", "the bytes");
    room.deliver(&folder, &sent).await;
    let old = room.only(&folder, Query::default()).await;
    let new = room.move_one(&old.id, &target).await;
    let fetched = done(room.account.fetch_message(&new).await, "fetch the message by its new handle");
    assert_eq!((&fetched.id, &fetched.folder), (&new, &target.id));
    room.assert_same(&fetched, &sent).await;
    assert_eq!(room.download(&new, &fetched.attachments[0].id).await, "the bytes");
    let listed = room.only(&target, Query::default()).await;
    assert_eq!(listed.id, new, "the listing has it under the same handle");
    assert!(room.list(&folder, Query::default()).await.is_empty(), "the old folder no longer lists it");
    let again = done(room.harness.open().await, "open the account again");
    assert_eq!(done(again.fetch_message(&new).await, "fetch it after reopening").folder, target.id);
}

pub(super) async fn moving_keeps_the_message(room: &Room<'_>) {
    let (folder, target) = (room.folder("Work").await, room.folder("Target").await);
    let sent = numbered(5).with_attachment("naïef.pdf", "bytes");
    room.deliver(&folder, &sent).await;
    room.deliver(&folder, &numbered(6)).await;
    let before = room.list(&folder, Query::default()).await;
    for answer in room.account.mark_read(std::slice::from_ref(&before[1].id), true).await {
        done(answer, "mark as read");
    }
    let all: Vec<_> = before.iter().map(|m| m.id.clone()).collect();
    room.account.move_to_processed(&all, &target.id).await.into_iter().for_each(|answer| drop(moved(answer)));
    let after = room.list(&target, Query::default()).await;
    assert_eq!(ids(&after), ids(&before), "in the same order");
    assert_eq!(after.iter().map(|m| m.is_read).collect::<Vec<_>>(), [false, true], "read stays read, unread unread");
    let times = |all: &[crate::Message]| all.iter().map(|m| m.received).collect::<Vec<_>>();
    assert_eq!(times(&after), times(&before), "the received time stays");
    room.assert_same(&after[0], &sent).await;
}

pub(super) async fn moving_again_makes_no_copy(room: &Room<'_>) {
    let (folder, target) = (room.folder("Work").await, room.folder("Target").await);
    room.deliver(&folder, &mail()).await;
    let old = room.only(&folder, Query::default()).await.id;
    let new = room.move_one(&old, &target).await;
    // By the old handle: it is where it should be, or the handle means nothing any more.
    match room.account.move_to_processed(std::slice::from_ref(&old), &target.id).await.remove(0) {
        Ok(MoveOutcome::Gone) => {}
        answer => {
            let id = moved(answer);
            assert_eq!(done(room.account.fetch_message(&id).await, "fetch it").folder, target.id);
        }
    }
    let again = room.move_one(&new, &target).await;
    assert_eq!(done(room.account.fetch_message(&again).await, "fetch it").folder, target.id);
    assert_eq!(room.list(&target, Query::default()).await.len(), 1, "one message, however often it is moved");
    assert!(room.list(&folder, Query::default()).await.is_empty());
}

pub(super) async fn moving_into_its_own_folder_is_harmless(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let sent = mail().with_attachment("a.pdf", "a");
    room.deliver(&folder, &sent).await;
    let id = room.only(&folder, Query::default()).await.id;
    let same = room.move_one(&id, &folder).await;
    let listed = room.only(&folder, Query::default()).await;
    assert_eq!(listed.id, same, "the handle that was given is the one that is listed");
    room.assert_same(&listed, &sent).await;
}

pub(super) async fn moves_are_answered_one_by_one_and_in_order(room: &Room<'_>) {
    let (folder, target) = (room.folder("Work").await, room.folder("Target").await);
    // More than one batch of any service: the account divides what its caller does not.
    let count = (room.account.capabilities().move_batch + 5).min(130);
    room.deliver_some(&folder, count).await;
    let mut messages = room.list(&folder, Query::default()).await;
    // In an order that is not the mailbox's.
    messages.reverse();
    let asked: Vec<_> = messages.iter().map(|m| m.id.clone()).collect();
    let answers = room.account.move_to_processed(&asked, &target.id).await;
    assert_eq!(answers.len(), count);
    for (message, answer) in messages.iter().zip(answers) {
        let new = moved(answer);
        let fetched = done(room.account.fetch_message(&new).await, "fetch a moved message");
        assert_eq!(fetched.internet_message_id, message.internet_message_id, "each answer is of its own message");
    }
    assert_eq!(room.list(&target, Query::default()).await.len(), count);
}

pub(super) async fn no_messages_are_moved_with_no_answers(room: &Room<'_>) {
    let target = room.folder("Target").await;
    assert!(room.account.move_to_processed(&[], &target.id).await.is_empty());
}

pub(super) async fn a_vanished_message_is_gone_and_the_others_are_moved(room: &Room<'_>) {
    let (folder, target) = (room.folder("Work").await, room.folder("Target").await);
    let all = room.deliver_some(&folder, 5).await;
    let messages = room.list(&folder, Query::default()).await;
    done(room.harness.delete(&spec(&folder), &all[2]).await, "delete a message as another client");
    let asked: Vec<_> = messages.iter().map(|m| m.id.clone()).collect();
    let answers = room.account.move_to_processed(&asked, &target.id).await;
    assert_eq!(answers.len(), 5);
    for (message, answer) in messages.iter().zip(answers) {
        if message.internet_message_id.as_ref() == Some(&all[2]) {
            assert_eq!(done(answer, "move a vanished message"), MoveOutcome::Gone);
        } else {
            moved(answer);
        }
    }
    assert_eq!(room.list(&target, Query::default()).await.len(), 4);
    assert!(room.list(&folder, Query::default()).await.is_empty());
}

pub(super) async fn a_message_moved_by_somebody_else_is_not_copied(room: &Room<'_>) {
    let (folder, target) = (room.folder("Work").await, room.folder("Target").await);
    let elsewhere = room.folder("Elsewhere").await;
    let all = room.deliver_some(&folder, 2).await;
    let messages = room.list(&folder, Query::default()).await;
    let relocated = room.harness.relocate(&spec(&folder), &all[0], &spec(&elsewhere)).await;
    done(relocated, "move a message as another client");
    let asked: Vec<_> = messages.iter().map(|m| m.id.clone()).collect();
    for (message, answer) in messages.iter().zip(room.account.move_to_processed(&asked, &target.id).await) {
        match done(answer, "move a message that somebody else moved") {
            // Where handles follow a message, it is found wherever it went.
            MoveOutcome::Gone => assert_eq!(message.internet_message_id.as_ref(), Some(&all[0])),
            outcome => drop(moved(Ok(outcome))),
        }
    }
    let mut everywhere = Vec::new();
    for folder in [&folder, &target, &elsewhere] {
        everywhere.extend(room.list_ids(folder, Query::default()).await);
    }
    everywhere.sort();
    let mut expected = all;
    expected.sort();
    assert_eq!(everywhere, expected, "each message is there once");
}

pub(super) async fn a_message_put_back_is_listed_again(room: &Room<'_>) {
    let (folder, target) = (room.folder("Work").await, room.folder("Target").await);
    let sent = mail().with_attachment("a.pdf", "a");
    room.deliver(&folder, &sent).await;
    let first = room.only(&folder, Query::default()).await;
    room.move_one(&first.id, &target).await;
    let id = sent.message_id().expect("it has one");
    done(room.harness.relocate(&spec(&target), &id, &spec(&folder)).await, "put a message back as another client");
    let back = room.only(&folder, Query::default()).await;
    room.assert_same(&back, &sent).await;
    let moved_again = room.move_one(&back.id, &target).await;
    assert_eq!(done(room.account.fetch_message(&moved_again).await, "fetch it").folder, target.id);
    assert_eq!(room.list(&target, Query::default()).await.len(), 1);
}

pub(super) async fn a_missing_target_leaves_all_where_they_are(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let gone = room.folder("Gone").await;
    let all = room.deliver_some(&folder, 3).await;
    done(room.harness.delete_folder(&spec(&gone)).await, "delete a folder");
    let asked: Vec<_> = room.list(&folder, Query::default()).await.into_iter().map(|m| m.id).collect();
    for target in [gone.id, FolderId::new("no such folder")] {
        let answers = room.account.move_to_processed(&asked, &target).await;
        assert_eq!(answers.len(), 3);
        for answer in answers {
            refused(answer, ErrorKind::NotFound, "moving into a folder that is not there");
        }
    }
    let mut left = room.list_ids(&folder, Query::default()).await;
    left.sort();
    let mut expected = all;
    expected.sort();
    assert_eq!(left, expected);
}

pub(super) async fn ids_are_as_stable_as_promised(room: &Room<'_>) {
    let (folder, target) = (room.folder("Work").await, room.folder("Target").await);
    room.deliver(&folder, &mail()).await;
    let old = room.only(&folder, Query::default()).await;
    let new = room.move_one(&old.id, &target).await;
    if room.account.capabilities().stable_ids {
        assert_eq!(new, old.id, "the account says that handles stay the same");
        return;
    }
    // An old handle may go on working, and then means the same message; it never means another one.
    room.deliver(&folder, &numbered(7)).await;
    match room.account.fetch_message(&old.id).await {
        Ok(found) => assert_eq!(found.internet_message_id, old.internet_message_id),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.chain()),
    }
}
