//! Calls that run while others are open: no call waits for its caller's next poll of another.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, future::join_all};

use super::{
    attachments::binary,
    room::{Room, done, ids, numbered},
};
use crate::{AttachmentId, Message, Query, testing::mail::mail};

/// A folder with messages that each carry a file of this many bytes.
async fn with_files(room: &Room<'_>, count: usize, bytes: usize) -> (crate::Folder, Vec<Message>) {
    let folder = room.folder("Work").await;
    for n in 0..count {
        room.deliver(&folder, &numbered(n).with_attachment("file.bin", binary(bytes + n))).await;
    }
    let messages = room.list(&folder, Query::default().with_inline_up_to(0)).await;
    (folder, messages)
}

pub(super) async fn a_download_works_while_a_listing_is_open(room: &Room<'_>) {
    let (folder, known) = with_files(room, 30, 2_000).await;
    let mut open = room.account.fetch_messages(&folder.id, Query::default().with_inline_up_to(0));
    let first = done(open.try_next().await, "list").expect("there are many");
    // The listing is open and nobody polls it.
    for message in [&first, &known[29], &known[15]] {
        room.download(&message.id, &message.attachments[0].id).await;
        room.download(&message.id, &AttachmentId::raw()).await;
    }
    let rest: Vec<_> = done(open.try_collect::<Vec<_>>().await, "go on listing");
    assert_eq!(rest.len(), 29, "the listing goes on where it was");
    assert_eq!(ids(&rest), ids(&known)[1..]);
}

pub(super) async fn two_downloads_can_be_read_in_turns(room: &Room<'_>) {
    let (_, messages) = with_files(room, 2, 2 << 20).await;
    let open = |m: &Message| room.account.download_attachment(&m.id, &m.attachments[0].id).into_stream();
    let (mut a, mut b) = (open(&messages[0]), open(&messages[1]));
    let (mut got_a, mut got_b) = (Vec::new(), Vec::new());
    loop {
        let (piece_a, piece_b) = (a.next().await, b.next().await);
        if let Some(piece) = &piece_a {
            got_a.extend_from_slice(piece.as_ref().unwrap_or_else(|e| panic!("the first download: {}", e.chain())));
        }
        if let Some(piece) = &piece_b {
            got_b.extend_from_slice(piece.as_ref().unwrap_or_else(|e| panic!("the second download: {}", e.chain())));
        }
        if piece_a.is_none() && piece_b.is_none() {
            break;
        }
    }
    assert!(got_a == binary(2 << 20), "the first is whole; got {} bytes", got_a.len());
    assert!(got_b == binary((2 << 20) + 1), "the second is whole; got {} bytes", got_b.len());
}

pub(super) async fn a_dropped_download_leaves_the_account_usable(room: &Room<'_>) {
    let (folder, messages) = with_files(room, 2, 2 << 20).await;
    for _ in 0..10 {
        let mut open = room.account.download_attachment(&messages[0].id, &messages[0].attachments[0].id).into_stream();
        let first = open.next().await.expect("it has bytes");
        assert!(!done(first, "download").is_empty());
        drop(open);
        drop(room.account.download_attachment(&messages[0].id, &AttachmentId::raw()));
    }
    let whole = room.download(&messages[1].id, &messages[1].attachments[0].id).await;
    assert!(whole == binary((2 << 20) + 1), "the next download is whole");
    assert_eq!(room.list(&folder, Query::default().with_inline_up_to(0)).await.len(), 2);
}

pub(super) async fn moves_work_while_a_listing_and_a_download_are_open(room: &Room<'_>) {
    let (folder, known) = with_files(room, 25, 300_000).await;
    let target = room.folder("Target").await;
    let mut listing = room.account.fetch_messages(&folder.id, Query::default().with_inline_up_to(0));
    let first = done(listing.try_next().await, "list").expect("there are many");
    let last = &known[24];
    let mut download = room.account.download_attachment(&last.id, &last.attachments[0].id).into_stream();
    let mut got = done(download.next().await.expect("it has bytes"), "download").to_vec();
    // Both are open and nobody polls them.
    room.move_one(&first.id, &target).await;
    done(room.account.list_folders().await, "list folders");
    done(room.account.fetch_message(&known[10].id).await, "fetch a message");
    while let Some(piece) = done(download.try_next().await, "go on downloading") {
        got.extend_from_slice(&piece);
    }
    assert!(got == binary(300_024), "the download is whole; got {} bytes", got.len());
    let rest: Vec<_> = done(listing.try_collect::<Vec<_>>().await, "go on listing");
    assert_eq!(ids(&rest), ids(&known)[1..], "the listing goes on where it was");
}

pub(super) async fn two_listings_can_be_read_in_turns(room: &Room<'_>) {
    let folder = room.folder("Work").await;
    room.deliver_some(&folder, 25).await;
    let expected = room.list_ids(&folder, Query::default()).await;
    let mut a = room.account.fetch_messages(&folder.id, Query::default());
    let mut b = room.account.fetch_messages(&folder.id, Query::default());
    let (mut got_a, mut got_b) = (Vec::new(), Vec::new());
    while let Some(message) = done(a.try_next().await, "list") {
        got_a.push(message);
        got_b.extend(done(b.try_next().await, "list a second time"));
    }
    got_b.extend(done(b.try_collect::<Vec<_>>().await, "finish the second listing"));
    assert_eq!(ids(&got_a), expected);
    assert_eq!(ids(&got_b), expected);
}

pub(super) async fn calls_of_many_tasks_share_one_account(room: &Room<'_>) {
    let (folder, messages) = with_files(room, 12, 20_000).await;
    let target = room.folder("Target").await;
    let downloads = messages.iter().enumerate().map(|(n, message)| {
        let account = Arc::clone(&room.account);
        async move {
            let bytes = account.download_attachment(&message.id, &message.attachments[0].id).bytes(1 << 20).await;
            assert!(done(bytes, "download") == binary(20_000 + n), "each gets its own bytes");
        }
    });
    join_all(downloads).await;
    let moves = messages.iter().map(|message| room.move_one(&message.id, &target));
    assert_eq!(join_all(moves).await.len(), 12);
    room.deliver(&folder, &mail()).await;
    assert_eq!(room.list(&folder, Query::default()).await.len(), 1);
    assert_eq!(room.list(&target, Query::default().with_inline_up_to(0)).await.len(), 12);
}
