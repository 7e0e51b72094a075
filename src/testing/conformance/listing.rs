//! Order, the fixed set, filters, skip.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::SignedDuration;

use super::room::{Room, START, done, ids, moved, numbered, spec};
use crate::{Query, testing::mail::mail};

pub(super) async fn an_empty_folder_is_empty(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    assert!(room.list(&folder, Query::default()).await.is_empty());
}

pub(super) async fn the_oldest_come_first(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    for n in [3, 0, 4, 1, 2] {
        room.deliver(&folder, &numbered(n)).await;
    }
    let expected: Vec<_> = (0..5).filter_map(|n| numbered(n).message_id()).collect();
    assert_eq!(room.list_ids(&folder, Query::default()).await, expected, "by received time");
}

pub(super) async fn messages_of_the_same_second_all_come(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let mut expected = Vec::new();
    for n in 0..60 {
        let mail = mail().with_subject(format!("Gelijktijdig {n}"));
        room.deliver(&folder, &mail).await;
        expected.extend(mail.message_id());
    }
    let mut got = room.list_ids(&folder, Query::default()).await;
    expected.sort();
    got.sort();
    assert_eq!(got, expected);
}

pub(super) async fn moving_every_message_given_disturbs_nothing(room: &Room<'_>) {
    const COUNT: usize = 500;
    let (folder, target) = (room.folder("Work").await, room.folder("Target").await);
    let expected = room.deliver_some(&folder, COUNT).await;
    let mut messages = room.account.fetch_messages(&folder.id, Query::default().with_inline_up_to(0));
    let mut got = Vec::new();
    while let Some(message) = done(messages.try_next().await, "go on listing while messages are moved") {
        room.move_one(&message.id, &target).await;
        got.extend(message.internet_message_id);
    }
    got.sort();
    let mut sorted = expected;
    sorted.sort();
    assert_eq!(got.len(), COUNT, "every message was given once");
    assert_eq!(got, sorted);
    assert!(room.list(&folder, Query::default()).await.is_empty(), "nothing is left");
    assert_eq!(room.list(&target, Query::default().with_inline_up_to(0)).await.len(), COUNT);
}

pub(super) async fn later_arrivals_belong_to_the_next_listing(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let first = room.deliver_some(&folder, 3).await;
    let mut messages = room.account.fetch_messages(&folder.id, Query::default());
    let mut got = vec![done(messages.try_next().await, "list a folder").expect("the first of three")];
    // One that is older than what was there, one that is newer.
    let older = mail().with_subject("Ouder").with_received(START - SignedDuration::from_hours(1));
    let newer = mail().with_subject("Nieuwer").with_received(START + SignedDuration::from_hours(1));
    room.deliver(&folder, &older).await;
    room.deliver(&folder, &newer).await;
    got.extend(done(messages.try_collect::<Vec<_>>().await, "go on listing"));
    let mut got = ids(&got);
    let mut expected = first;
    got.sort();
    expected.sort();
    assert_eq!(got, expected, "the set was fixed at the first poll");
    assert_eq!(room.list(&folder, Query::default()).await.len(), 5, "the next listing has them");
}

pub(super) async fn a_message_that_vanishes_disturbs_nothing(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let all = room.deliver_some(&folder, 60).await;
    let mut messages = room.account.fetch_messages(&folder.id, Query::default());
    let mut got = vec![done(messages.try_next().await, "list a folder").expect("the first of many")];
    let vanished = [&all[30], &all[59]];
    for id in vanished {
        done(room.harness.delete(&spec(&folder), id).await, "delete a message as another client");
    }
    got.extend(done(messages.try_collect::<Vec<_>>().await, "go on listing after a message vanished"));
    // Those that were fetched already may still be given: what is in the caller's hands can vanish as well.
    let got: Vec<_> = ids(&got).into_iter().filter(|id| !vanished.contains(&id)).collect();
    let mut expected: Vec<_> = all.iter().filter(|id| !vanished.contains(id)).cloned().collect();
    let mut sorted = got;
    sorted.sort();
    expected.sort();
    assert_eq!(sorted, expected, "all others are given, once");
}

pub(super) async fn reading_marks_nothing_as_read(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let mail = mail().with_attachment("a.pdf", vec![7; 300_000]);
    room.deliver(&folder, &mail).await;
    let message = room.only(&folder, Query::default().with_text(true).with_headers(["Received", "Subject"])).await;
    assert!(!message.is_read, "it was delivered unread");
    done(room.account.fetch_message(&message.id).await, "fetch it by its handle");
    room.download(&message.id, &message.attachments[0].id).await;
    room.download(&message.id, &crate::AttachmentId::raw()).await;
    let found = Query::default().with_internet_message_id(mail.message_id().expect("it has one"));
    room.only(&folder, found).await;
    let seen = done(room.harness.look(&spec(&folder)).await, "look as another client");
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].read, "another client still sees it as unread");
    assert!(!room.only(&folder, Query::default()).await.is_read);
}

pub(super) async fn unread_only_leaves_out_what_was_read(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let all = room.deliver_some(&folder, 3).await;
    let messages = room.list(&folder, Query::default()).await;
    let second = messages.iter().find(|m| m.internet_message_id.as_ref() == Some(&all[1])).expect("it is listed");
    for answer in room.account.mark_read(std::slice::from_ref(&second.id), true).await {
        done(answer, "mark as read");
    }
    let mut unread = room.list_ids(&folder, Query::default().with_unread_only(true)).await;
    unread.sort();
    let mut expected = vec![all[0].clone(), all[2].clone()];
    expected.sort();
    assert_eq!(unread, expected);
}

pub(super) async fn since_leaves_out_what_is_older(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    for (name, hours) in [("oud", -48), ("net te oud", -1), ("op tijd", 0), ("nieuw", 30)] {
        let at = START + SignedDuration::from_hours(hours);
        // The header says otherwise: it is the received time that counts.
        room.deliver(&folder, &mail().with_subject(name).with_date(START).with_received(at)).await;
    }
    let query = Query::default().with_since(START);
    let subjects: Vec<_> = room.list(&folder, query).await.into_iter().filter_map(|m| m.subject).collect();
    assert_eq!(subjects, ["op tijd", "nieuw"]);
}

pub(super) async fn limit_counts_what_is_given(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    room.deliver_some(&folder, 6).await;
    let all = room.list(&folder, Query::default()).await;
    let given = ids(&all);
    assert_eq!(room.list_ids(&folder, Query::default().with_limit(2)).await, given[..2]);
    assert_eq!(room.list_ids(&folder, Query::default().with_limit(50)).await, given);
    assert!(room.list_ids(&folder, Query::default().with_limit(0)).await.is_empty());
    let skipped: Vec<_> = all.iter().take(3).map(|m| m.id.clone()).collect();
    let query = Query::default().with_limit(2).with_skip(move |id| skipped.contains(id));
    assert_eq!(room.list_ids(&folder, query).await, given[3..5], "what is skipped does not count");
}

pub(super) async fn a_message_id_is_found_with_or_without_brackets(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    room.deliver_some(&folder, 4).await;
    let twin = mail().with_subject("Tweeling").with_message_id("scan.0001@kantoor.example");
    room.deliver(&folder, &twin).await;
    room.deliver(&folder, &twin.clone().with_attachment("b.pdf", "b")).await;
    for id in ["<scan.0001@kantoor.example>", "scan.0001@kantoor.example"] {
        let found = room.list(&folder, Query::default().with_internet_message_id(id)).await;
        assert_eq!(found.len(), 2, "`{id}`: ids are not unique, and all are given");
        assert!(found.iter().all(|m| m.internet_message_id.as_deref() == Some("<scan.0001@kantoor.example>")));
    }
    for id in ["<scan.0002@kantoor.example>", "scan.0001", "<can.0001@kantoor.example>"] {
        let found = room.list_ids(&folder, Query::default().with_internet_message_id(id)).await;
        assert!(found.is_empty(), "`{id}` is nobody's whole id; found {found:?}");
    }
}

pub(super) async fn skip_is_asked_once_for_each_message(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let all = room.deliver_some(&folder, 45).await;
    let handles: Vec<_> = room.list(&folder, Query::default()).await.into_iter().map(|m| m.id).collect();
    let asked = Arc::new(Mutex::new(HashMap::<_, u32>::new()));
    let every_third: Vec<_> = handles.iter().step_by(3).cloned().collect();
    let query = Query::default().with_skip({
        let (asked, skipped) = (Arc::clone(&asked), every_third.clone());
        move |id| {
            *asked.lock().expect("no panic").entry(id.clone()).or_default() += 1;
            skipped.contains(id)
        }
    });
    let given: Vec<_> = room.list(&folder, query).await.into_iter().map(|m| m.id).collect();
    let expected: Vec<_> = handles.iter().filter(|id| !every_third.contains(id)).cloned().collect();
    assert_eq!(given, expected, "those for which it said no, in their order");
    {
        let asked = asked.lock().expect("no panic");
        assert_eq!(asked.len(), all.len(), "asked for every message, by the handle that it is given with");
        assert!(asked.values().all(|times| *times == 1), "and once; got {:?}", asked.values().max());
    }
    // Where everything is skipped, nothing is given, and that is no error.
    assert!(room.list(&folder, Query::default().with_skip(|_| true)).await.is_empty());
}

pub(super) async fn filters_work_together(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    let all = room.deliver_some(&folder, 8).await;
    let messages = room.list(&folder, Query::default()).await;
    let by_id = |id: &String| messages.iter().find(|m| m.internet_message_id.as_ref() == Some(id)).expect("listed");
    for answer in room.account.mark_read(&[by_id(&all[2]).id.clone(), by_id(&all[5]).id.clone()], true).await {
        done(answer, "mark as read");
    }
    let skipped = by_id(&all[3]).id.clone();
    let query = Query::default()
        .with_unread_only(true)
        .with_since(START - SignedDuration::from_hours(1))
        .with_headers(["Subject"])
        .with_skip(move |id| *id == skipped)
        .with_limit(4);
    let given = room.list(&folder, query.clone()).await;
    let listed = ids(&messages);
    let left: Vec<_> = listed.iter().filter(|id| ![&all[2], &all[3], &all[5]].contains(id)).take(4).cloned().collect();
    assert_eq!(ids(&given), left);
    assert!(given.iter().all(|m| m.header("subject").is_some()), "with the header that was asked for");
    let one = room.list_ids(&folder, query.with_internet_message_id(&*all[6])).await;
    assert_eq!(one, [all[6].clone()]);
}

pub(super) async fn a_dropped_listing_leaves_the_account_usable(room: &Room<'_>) {
    let (folder, target) = (room.folder("Work").await, room.folder("Target").await);
    let all = room.deliver_some(&folder, 30).await;
    for _ in 0..12 {
        let mut messages = room.account.fetch_messages(&folder.id, Query::default());
        let first = done(messages.next().await.expect("there are many"), "list a folder");
        drop(messages);
        assert!(all.contains(&first.internet_message_id.expect("it has one")));
    }
    drop(room.account.fetch_messages(&folder.id, Query::default()));
    let first = room.list(&folder, Query::default()).await.swap_remove(0);
    let answers = room.account.move_to_processed(std::slice::from_ref(&first.id), &target.id).await;
    answers.into_iter().for_each(|answer| drop(moved(answer)));
    assert_eq!(room.list(&folder, Query::default()).await.len(), 29);
}
