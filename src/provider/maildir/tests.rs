//! The account against a directory that other programs change.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use futures::{StreamExt as _, TryStreamExt as _};
use tempfile::TempDir;

use super::*;
use crate::{Defect, Role};

/// An account on a new mailbox with a processed folder.
struct Box_ {
    temp: TempDir,
    account: MaildirAccount,
    inbox: FolderId,
    processed: FolderId,
}

impl Box_ {
    async fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let account = MaildirAccount::open("local", MaildirConfig::new(temp.path().join("box"))).unwrap();
        account.create_mailbox().await.unwrap();
        let processed = account.create_folder(&"Inbox/Processed".parse().unwrap()).await.unwrap().id;
        Self { temp, account, inbox: FolderId::new("INBOX"), processed }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.temp.path().join("box").join(relative)
    }

    fn put(&self, relative: &str, content: &str) {
        fs::write(self.path(relative), content).unwrap();
    }

    async fn list(&self, folder: &FolderId, query: Query) -> Vec<Message> {
        self.account.fetch_messages(folder, query).try_collect().await.unwrap()
    }

    async fn ids(&self, folder: &FolderId) -> Vec<MessageId> {
        self.list(folder, Query::default()).await.into_iter().map(|message| message.id).collect()
    }

    async fn move_one(&self, id: &MessageId) -> Result<MoveOutcome> {
        self.account.move_to_processed(std::slice::from_ref(id), &self.processed).await.remove(0)
    }

    fn names(&self, relative: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(relative)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The files of both folders' messages, by name without flags.
    fn all_files(&self) -> Vec<String> {
        let subs = ["new", "cur", ".INBOX.Processed/new", ".INBOX.Processed/cur"];
        let mut names: Vec<_> = subs.iter().flat_map(|sub| self.names(sub)).collect();
        names.iter_mut().for_each(|name| name.truncate(name.find(":2,").unwrap_or(name.len())));
        names.sort();
        names
    }
}

fn moved(id: &str) -> MoveOutcome {
    MoveOutcome::Moved(MessageId::new(id))
}

#[tokio::test]
async fn a_missing_mailbox_is_told_and_not_made() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("absent/box");
    let account = MaildirAccount::open("local", MaildirConfig::new(&path)).unwrap();
    let inbox = FolderId::new("INBOX");
    let id = MessageId::new("INBOX/1737000000.x");
    for error in [
        account.list_folders().await.unwrap_err(),
        account.resolve_folder(&"Inbox".parse().unwrap()).await.unwrap_err(),
        account.create_folder(&"Inbox/x".parse().unwrap()).await.unwrap_err(),
        account.fetch_messages(&inbox, Query::default()).try_collect::<Vec<_>>().await.unwrap_err(),
        account.fetch_message(&id).await.unwrap_err(),
        account.folder_access(&inbox).await.unwrap_err(),
        account.deliver(&inbox, "x").await.unwrap_err(),
        account.move_to_processed(std::slice::from_ref(&id), &inbox).await.remove(0).unwrap_err(),
        account.mark_read(std::slice::from_ref(&id), true).await.remove(0).unwrap_err(),
        account.download_attachment(&id, &AttachmentId::raw()).bytes(9).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!((error.provider(), error.account()), (Some(NAME), Some("local")));
        let text = error.to_string();
        assert!(text.contains("absent/box") && text.contains("correct `path`") && text.contains("mkdir"), "{text}");
    }
    assert!(!temp.path().join("absent").exists());
}

#[tokio::test]
async fn a_mailbox_that_disappears_is_an_error_and_not_empty() {
    let b = Box_::new().await;
    let id = b.account.deliver(&b.inbox, "x").await.unwrap();
    fs::rename(b.path(""), b.temp.path().join("elsewhere")).unwrap();
    assert_eq!(b.move_one(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
    let listed = b.account.fetch_messages(&b.inbox, Query::default()).try_collect::<Vec<_>>().await;
    assert_eq!(listed.unwrap_err().kind(), ErrorKind::NotFound);
    fs::rename(b.temp.path().join("elsewhere"), b.path("")).unwrap();
    assert!(matches!(b.move_one(&id).await.unwrap(), MoveOutcome::Moved(_)));
}

#[tokio::test]
async fn folders_are_dovecots() {
    let b = Box_::new().await;
    for spec in ["Entwürfe & x", "a/b/c", "INBOX/Deep/er", "inbox/processed/x"] {
        b.account.create_folder(&spec.parse().unwrap()).await.unwrap();
    }
    // Made by Dovecot for a folder without anything in between.
    fs::create_dir_all(b.path(".Top.Middle.Low/cur")).unwrap();
    fs::create_dir_all(b.path(".git/objects")).unwrap();
    fs::create_dir_all(b.path("..bad/cur")).unwrap();
    let folders = b.account.list_folders().await.unwrap();
    let listed: Vec<_> = folders.iter().map(|f| (f.path(), f.id.to_string(), f.selectable)).collect();
    let expected = [
        ("Inbox", "INBOX", true),
        ("Entwürfe & x", ".Entw&APw-rfe &- x", true),
        ("Inbox/Deep", ".INBOX.Deep", true),
        ("Inbox/Deep/er", ".INBOX.Deep.er", true),
        ("Inbox/Processed", ".INBOX.Processed", true),
        ("Inbox/Processed/x", ".INBOX.Processed.x", true),
        ("Top", ".Top", false),
        ("Top/Middle", ".Top.Middle", false),
        ("Top/Middle/Low", ".Top.Middle.Low", true),
        ("a", ".a", true),
        ("a/b", ".a.b", true),
        ("a/b/c", ".a.b.c", true),
    ];
    assert_eq!(listed, expected.map(|(path, id, selectable)| (path.to_owned(), id.to_owned(), selectable)));
    assert!(folders.iter().all(|f| f.role == (f.id.as_str() == "INBOX").then_some(Role::Inbox)));
    assert!(b.path(".a.b/maildirfolder").is_file());
    assert!(b.path(".a.b/tmp").is_dir() && b.path(".a.b/new").is_dir());
    assert_eq!(
        fs::read_to_string(b.path("subscriptions")).unwrap(),
        "V\t2\n\nINBOX\tProcessed\nEntw&APw-rfe &- x\na\na\tb\na\tb\tc\nINBOX\tDeep\nINBOX\tDeep\ter\nINBOX\tProcessed\tx\n"
    );
    let hollow = b.account.resolve_folder(&"Top".parse().unwrap()).await.unwrap_err();
    assert!(hollow.message().contains("holds no messages"), "{hollow}");
    assert_eq!(b.account.create_folder(&"top".parse().unwrap()).await.unwrap().id.as_str(), ".Top");
    assert!(b.account.resolve_folder(&"Top".parse().unwrap()).await.unwrap().selectable);
}

#[tokio::test]
async fn an_older_subscription_list_stays_one() {
    let b = Box_::new().await;
    b.put("subscriptions", "INBOX.Sent\nINBOX.New");
    for _ in 0..2 {
        b.account.create_folder(&"Inbox/New".parse().unwrap()).await.unwrap();
        b.account.create_folder(&"Inbox/Newer".parse().unwrap()).await.unwrap();
    }
    assert_eq!(fs::read_to_string(b.path("subscriptions")).unwrap(), "INBOX.Sent\nINBOX.New\nINBOX.Newer\n");
}

#[tokio::test]
async fn folder_errors_name_the_remedy() {
    let b = Box_::new().await;
    let absent = b.account.resolve_folder(&"Inbox/Procesed".parse().unwrap()).await.unwrap_err();
    assert_eq!((absent.kind(), absent.account()), (ErrorKind::NotFound, Some("local")));
    assert!(absent.message().contains("`Inbox/Processed`"), "{absent}");
    for spec in ["Inbox/a.b", r"Inbox/a\/b", "Inbox/.."] {
        let error = b.account.create_folder(&spec.parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains("choose another name"), "{error}");
    }
    assert_eq!(
        b.account.create_folder(&"role:archive".parse().unwrap()).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    b.put("subscriptions", "");
    fs::write(b.path(".File"), "").unwrap();
    assert!(b.account.create_folder(&"File".parse().unwrap()).await.is_err());
    for hostile in ["..", "/etc", ".a%2F..%2Fb", ""] {
        let folder = FolderId::new(hostile);
        assert_eq!(b.account.folder_access(&folder).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(b.account.deliver(&folder, "x").await.unwrap_err().kind(), ErrorKind::NotFound);
        let listed = b.account.fetch_messages(&folder, Query::default()).try_collect::<Vec<_>>().await;
        assert_eq!(listed.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_make_the_same_folder() {
    let b = Box_::new().await;
    let spec: FolderSpec = "Inbox/A/B/C".parse().unwrap();
    let made = (0..16).map(|_| {
        // An account each: nothing is shared but the disk.
        let account = MaildirAccount::open("local", MaildirConfig::new(b.path(""))).unwrap();
        let spec = spec.clone();
        tokio::spawn(async move { account.create_folder(&spec).await.unwrap().id })
    });
    for id in futures::future::join_all(made).await {
        assert_eq!(id.unwrap().as_str(), ".INBOX.A.B.C");
    }
    assert_eq!(b.names(".INBOX.A.B.C"), ["cur", "maildirfolder", "new", "tmp"]);
}

#[tokio::test]
async fn delivered_mail_lies_in_new_and_reading_leaves_it_there() {
    let b = Box_::new().await;
    let received = "2026-01-31T12:00:00.5Z".parse().unwrap();
    let id = b.account.deliver_at(&b.inbox, "Subject: x\r\n\r\n", received).await.unwrap();
    let before = b.names("new");
    assert!(before[0].starts_with("1769860800.M500000P") && before[0].ends_with(",S=14"), "{before:?}");
    assert!(b.names("tmp").is_empty());
    let message = b.account.fetch_message(&id).await.unwrap();
    assert_eq!(message.received.to_string(), "2026-01-31T12:00:00Z");
    assert_eq!((message.id, message.is_read, message.hints.size), (id.clone(), false, Some(14)));
    b.account.download_attachment(&id, &AttachmentId::raw()).bytes(99).await.unwrap();
    assert_eq!(b.ids(&b.inbox).await, [id]);
    assert_eq!(b.names("new"), before);
    assert!(b.names("cur").is_empty());
}

#[tokio::test]
async fn the_oldest_comes_first_and_queries_are_kept() {
    let b = Box_::new().await;
    b.put("cur/1737000003.M9P1.h:2,S", "Message-ID: <three@x>\n\n");
    b.put("cur/1737000003.M10P1.h:2,", "message-id :\n <four@x>\nSubject: Message-ID: <one@x>\n\n");
    b.put("new/1737000001.x", "Subject: y\r\nMessage-Id: one@x\r\n\r\nMessage-ID: <body@x>\n");
    b.put("new/1737000002.x:2,FS", "");
    let ids = b.ids(&b.inbox).await;
    let keys: Vec<_> = ids.iter().map(MessageId::as_str).collect();
    let expected = ["INBOX/1737000001.x", "INBOX/1737000002.x", "INBOX/1737000003.M9P1.h", "INBOX/1737000003.M10P1.h"];
    assert_eq!(keys, expected);

    let some = async |query: Query| -> Vec<usize> {
        let found = b.list(&b.inbox, query).await;
        found.iter().map(|m| ids.iter().position(|id| *id == m.id).unwrap()).collect()
    };
    let since: Timestamp = Timestamp::from_second(1_737_000_002).unwrap();
    assert_eq!(some(Query::default().with_unread_only(true)).await, [0, 3]);
    assert_eq!(some(Query::default().with_since(since)).await, [1, 2, 3]);
    assert_eq!(some(Query::default().with_limit(2)).await, [0, 1]);
    assert_eq!(some(Query::default().with_limit(0)).await, [] as [usize; 0]);
    for (id, at) in [("<one@x>", 0), ("three@x", 2), ("four@x", 3)] {
        assert_eq!(some(Query::default().with_internet_message_id(id)).await, [at], "{id}");
    }
    assert_eq!(some(Query::default().with_internet_message_id("<body@x>")).await, [] as [usize; 0]);
    let asked = Arc::new(AtomicUsize::new(0));
    let (counter, first) = (Arc::clone(&asked), ids[0].clone());
    let skip = move |id: &MessageId| {
        counter.fetch_add(1, Ordering::Relaxed);
        *id == first
    };
    assert_eq!(some(Query::default().with_skip(skip).with_limit(2)).await, [1, 2]);
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn times_come_from_the_name_if_plausible() {
    let b = Box_::new().await;
    let written = "2026-01-31T12:00:00Z".parse::<Timestamp>().unwrap();
    let future = Timestamp::now().as_second() + 3 * 24 * 60 * 60;
    for name in ["scan.eml".to_owned(), "20250116-scan.eml".to_owned(), format!("{future}.x")] {
        b.put(&format!("new/{name}"), "");
        let file = fs::File::options().write(true).open(b.path(&format!("new/{name}"))).unwrap();
        file.set_modified(written.into()).unwrap();
        let messages = b.list(&b.inbox, Query::default()).await;
        assert_eq!(messages[0].received, written, "{name}");
        assert_eq!(b.account.fetch_message(&messages[0].id).await.unwrap().received, written, "{name}");
        fs::remove_file(b.path(&format!("new/{name}"))).unwrap();
    }
}

#[tokio::test]
async fn a_name_used_again_is_another_message() {
    let b = Box_::new().await;
    let mut seen = BTreeSet::new();
    for at in ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00Z"] {
        b.put("new/scan.eml", at);
        let file = fs::File::options().write(true).open(b.path("new/scan.eml")).unwrap();
        file.set_modified(at.parse::<Timestamp>().unwrap().into()).unwrap();
        let ids = b.ids(&b.inbox).await;
        assert_eq!(ids.len(), 1);
        for old in &seen {
            assert_eq!(b.account.fetch_message(old).await.unwrap_err().kind(), ErrorKind::NotFound);
        }
        assert!(matches!(b.move_one(&ids[0]).await.unwrap(), MoveOutcome::Moved(_)));
        assert!(seen.insert(ids[0].clone()), "the same handle twice");
    }
    let contents: BTreeSet<_> = b
        .names(".INBOX.Processed/cur")
        .iter()
        .map(|name| fs::read_to_string(b.path(".INBOX.Processed/cur").join(name)).unwrap())
        .collect();
    assert_eq!(contents.len(), 2, "one message replaced the other");
}

#[tokio::test]
async fn a_handle_outlives_changes_of_flags_and_mbsyncs_numbers() {
    let b = Box_::new().await;
    b.put("new/1737000000.M1P1.h,S=3", "abc");
    let ids = b.ids(&b.inbox).await;
    assert_eq!(ids[0].as_str(), "INBOX/1737000000.M1P1.h,S=3");
    let names =
        ["cur/1737000000.M1P1.h,S=3:2,", "cur/1737000000.M1P1.h,S=3,U=7:2,S", "cur/1737000000.M1P1.h,S=3,U=8:2,FSb"];
    let mut at = "new/1737000000.M1P1.h,S=3";
    for name in names {
        fs::rename(b.path(at), b.path(name)).unwrap();
        at = name;
        assert_eq!(
            b.account.fetch_message(&ids[0]).await.unwrap().is_read,
            name.contains('S') && name.contains(":2,S") || name.contains("FS")
        );
        assert_eq!(b.ids(&b.inbox).await, ids);
    }
    let target = moved(".INBOX.Processed/1737000000.M1P1.h,S=3");
    assert_eq!(b.move_one(&ids[0]).await.unwrap(), target);
    assert_eq!(b.names(".INBOX.Processed/cur"), ["1737000000.M1P1.h,S=3:2,FS"]);
    assert_eq!(b.move_one(&ids[0]).await.unwrap(), target, "a repeat finds it there");
    let MoveOutcome::Moved(new) = target else { unreachable!() };
    assert_eq!(b.account.fetch_message(&new).await.unwrap().folder, b.processed);
    assert_eq!(b.move_one(&new).await.unwrap(), MoveOutcome::Moved(new));
    assert_eq!(b.account.fetch_message(&ids[0]).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn moving_keeps_what_is_new_unread() {
    let b = Box_::new().await;
    let id = b.account.deliver(&b.inbox, "x").await.unwrap();
    let MoveOutcome::Moved(new) = b.move_one(&id).await.unwrap() else { panic!("not moved") };
    assert!(!b.account.fetch_message(&new).await.unwrap().is_read);
    assert!(b.names(".INBOX.Processed/cur")[0].ends_with(":2,"));
}

#[tokio::test]
async fn what_is_not_there_is_gone() {
    let b = Box_::new().await;
    let id = b.account.deliver(&b.inbox, "x").await.unwrap();
    fs::remove_file(b.path("new").join(&b.names("new")[0])).unwrap();
    let foreign = ["", "x", "INBOX/../x", ".Absent/1737000000.x", "AAMkAGI2=", "INBOX/.hidden"].map(MessageId::new);
    let asked = [&[id][..], &foreign].concat();
    for outcome in b.account.move_to_processed(&asked, &b.processed).await {
        assert_eq!(outcome.unwrap(), MoveOutcome::Gone);
    }
    for outcome in b.account.mark_read(&asked, true).await {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::NotFound);
    }
    for id in &asked {
        assert_eq!(b.account.fetch_message(id).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    let nowhere = FolderId::new(".Nowhere");
    for outcome in b.account.move_to_processed(&asked, &nowhere).await {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.message().contains(".Nowhere"), "{error}");
    }
}

#[tokio::test]
async fn marking_changes_one_flag() {
    let b = Box_::new().await;
    b.put("new/1737000000.a", "");
    b.put("cur/1737000001.b,U=3:2,FSTc", "");
    let ids = b.ids(&b.inbox).await;
    for read in [true, false, false, true] {
        assert!(b.account.mark_read(&ids, read).await.iter().all(Result::is_ok));
        assert!(b.list(&b.inbox, Query::default()).await.iter().all(|m| m.is_read == read));
    }
    assert_eq!(b.names("cur"), ["1737000000.a:2,S", "1737000001.b,U=3:2,FSTc"]);
}

#[tokio::test]
async fn the_same_name_in_the_target() {
    for (flags, same) in [("", true), ("S", true), ("", false), ("FS", false)] {
        let b = Box_::new().await;
        b.put("cur/1737000000.x:2,", "content");
        let other = if same { "content" } else { "CONTENT" };
        b.put(&format!(".INBOX.Processed/cur/1737000000.x:2,{flags}"), other);
        let id = b.ids(&b.inbox).await.remove(0);
        let MoveOutcome::Moved(new) = b.move_one(&id).await.unwrap() else { panic!("not moved") };
        assert!(b.names("cur").is_empty());
        let there = b.names(".INBOX.Processed/cur");
        assert_eq!(there.len(), if same { 1 } else { 2 }, "{there:?}");
        assert_eq!(new.as_str() == ".INBOX.Processed/1737000000.x", same);
        assert!(new.as_str().starts_with(".INBOX.Processed/1737000000."), "{new}: the time of arrival is kept");
        let contents: BTreeSet<_> =
            there.iter().map(|name| fs::read_to_string(b.path(".INBOX.Processed/cur").join(name)).unwrap()).collect();
        assert_eq!(contents, BTreeSet::from(["content".to_owned(), other.to_owned()]));
    }
}

#[tokio::test]
async fn a_crash_between_link_and_removal_ends_in_one_copy() {
    for flags in ["", "S"] {
        let b = Box_::new().await;
        b.put("new/1737000000.x", "content");
        let left = b.path(&format!(".INBOX.Processed/cur/1737000000.x:2,{flags}"));
        fs::hard_link(b.path("new/1737000000.x"), left).unwrap();
        let id = b.ids(&b.inbox).await.remove(0);
        assert_eq!(b.ids(&b.processed).await.len(), 1);
        for _ in 0..2 {
            assert_eq!(b.move_one(&id).await.unwrap(), moved(".INBOX.Processed/1737000000.x"));
            assert_eq!(b.all_files(), ["1737000000.x"]);
        }
    }
}

#[tokio::test]
async fn different_messages_under_one_name_are_all_listed_and_moved() {
    let b = Box_::new().await;
    b.put("new/1737000000.x", "one");
    b.put("cur/1737000000.x:2,S", "two");
    b.put("cur/1737000000.x:2,FS", "three");
    let ids = b.ids(&b.inbox).await;
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 3);
    let vague = MessageId::new("INBOX/1737000000.x");
    assert_eq!(b.move_one(&vague).await.unwrap_err().kind(), ErrorKind::Conflict);
    let outcomes = b.account.move_to_processed(&ids, &b.processed).await;
    let new: BTreeSet<_> = outcomes
        .into_iter()
        .map(|outcome| match outcome.unwrap() {
            MoveOutcome::Moved(id) => id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(new.len(), 3);
    assert_eq!(b.ids(&b.processed).await.into_iter().collect::<BTreeSet<_>>(), new);
    assert!(b.ids(&b.inbox).await.is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn names_that_are_no_text_are_names() {
    use std::os::unix::ffi::OsStrExt as _;
    let b = Box_::new().await;
    let names: [&[u8]; 5] =
        [b"caf\xe9 \xff", b"a%2Fb#t=1", "\u{202e}exe.ünï".as_bytes(), b"new\nline\t", b"-rf *;$(x)"];
    for name in names {
        fs::write(b.path("new").join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    let folder = b.path("").join(std::ffi::OsStr::from_bytes(b".R\xe4x"));
    fs::create_dir_all(folder.join("cur")).unwrap();
    let raw = b.account.resolve_folder(&"R\u{fffd}x".parse().unwrap()).await.unwrap();
    let ids = b.ids(&b.inbox).await;
    assert_eq!(ids.len(), names.len());
    for outcome in b.account.move_to_processed(&ids, &raw.id).await {
        let MoveOutcome::Moved(new) = outcome.unwrap() else { panic!("not moved") };
        assert!(new.as_str().is_ascii());
        b.account.fetch_message(&new).await.unwrap();
    }
    assert_eq!(fs::read_dir(folder.join("cur")).unwrap().count(), names.len());
}

#[cfg(unix)]
#[tokio::test]
async fn an_unreadable_message_is_one_with_a_defect() {
    let b = Box_::new().await;
    std::os::unix::fs::symlink("nowhere", b.path("cur/1737000001.dangling:2,S")).unwrap();
    std::os::unix::fs::symlink("1737000002.loop:2,", b.path("cur/1737000002.loop:2,")).unwrap();
    std::os::unix::fs::symlink("../tmp", b.path("cur/1737000003.directory:2,")).unwrap();
    b.put("cur/1737000004.good:2,", "Subject: x\n\n");
    let messages = b.list(&b.inbox, Query::default()).await;
    let unreadable: Vec<_> = messages.iter().map(|m| m.defects().contains(&Defect::Unreadable)).collect();
    assert_eq!(unreadable, [true, true, true, false]);
    assert!(messages[0].is_read);
    for message in &messages[..3] {
        let raw = b.account.download_attachment(&message.id, &AttachmentId::raw()).bytes(99).await.unwrap_err();
        assert!(!raw.kind().is_account_wide() && raw.message().contains("cannot be read"), "{raw}");
        assert!(matches!(b.move_one(&message.id).await.unwrap(), MoveOutcome::Moved(_)));
    }
}

#[tokio::test]
async fn what_arrives_or_leaves_does_not_disturb_a_listing() {
    let b = Box_::new().await;
    for at in 0..6 {
        b.put(&format!("new/173700000{at}.x"), "");
    }
    let mut stream = b.account.fetch_messages(&b.inbox, Query::default());
    let first = stream.next().await.unwrap().unwrap();
    b.put("new/1737000009.late", "");
    b.move_one(&first.id).await.unwrap();
    fs::rename(b.path("new/1737000001.x"), b.path("cur/1737000001.x:2,RS")).unwrap();
    fs::remove_file(b.path("new/1737000002.x")).unwrap();
    let rest: Vec<_> =
        stream.map_ok(|m| m.id.as_str()["INBOX/173700000".len()..][..1].to_owned()).try_collect().await.unwrap();
    assert_eq!(rest, ["1", "3", "4", "5"]);
}

/// Renames messages as mail programs do, until dropped.
struct Renamer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    renamed: Arc<AtomicUsize>,
}

impl Renamer {
    fn start(folders: Vec<PathBuf>) -> Self {
        let (stop, renamed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..2).map(|turn| {
            let (folders, stop, renamed) = (folders.clone(), Arc::clone(&stop), Arc::clone(&renamed));
            thread::spawn(move || {
                let mut flags = ["S", "", "FS", "RST", "Sa"].iter().cycle().skip(turn);
                while !stop.load(Ordering::Relaxed) {
                    // Leaves a processor to the test.
                    thread::sleep(std::time::Duration::from_micros(500));
                    for folder in &folders {
                        for sub in ["new", "cur"] {
                            for entry in fs::read_dir(folder.join(sub)).into_iter().flatten().flatten() {
                                let name = entry.file_name().into_string().unwrap();
                                let base = name.split(":2,").next().unwrap();
                                let to = format!("cur/{base}:2,{}", flags.next().unwrap());
                                renamed.fetch_add(
                                    usize::from(fs::rename(entry.path(), folder.join(to)).is_ok()),
                                    Ordering::Relaxed,
                                );
                            }
                        }
                    }
                }
            })
        });
        let threads = threads.collect();
        Self { stop, threads, renamed }
    }

    fn stop(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        self.renamed.load(Ordering::Relaxed)
    }
}

/// Lists and moves while two threads rename everything all the time.
async fn under_renaming(links: bool) {
    const MESSAGES: usize = 120;
    let b = Box_::new().await;
    b.account.disk.links.store(links, Ordering::Relaxed);
    let content = |at: usize| format!("Message-ID: <{at}@x>\r\n\r\n{at}\r\n");
    for at in 0..MESSAGES {
        b.put(&format!("new/17370{at:05}.x"), &content(at));
    }
    let renamer = Renamer::start(vec![b.path(""), b.path(".INBOX.Processed")]);
    let mut moved = 0;
    for _ in 0..200 {
        let listed = b.list(&b.inbox, Query::default()).await;
        assert_eq!(listed.len() + moved, MESSAGES, "the listing missed or doubled a message");
        assert!(listed.iter().all(|m| !m.defects().contains(&Defect::Unreadable)));
        if listed.is_empty() {
            break;
        }
        let ids: Vec<_> = listed.iter().take(40).map(|m| m.id.clone()).collect();
        for (id, outcome) in ids.iter().zip(b.account.move_to_processed(&ids, &b.processed).await) {
            match outcome {
                Ok(MoveOutcome::Moved(_)) => moved += 1,
                // Busier than any mail program; it says so, and is still there.
                Err(e) if e.kind() == ErrorKind::Conflict => {}
                other => panic!("{id}: {other:?}"),
            }
        }
    }
    assert_eq!(moved, MESSAGES);
    assert!(renamer.stop() > MESSAGES, "nothing was renamed meanwhile");
    let expected: Vec<_> = (0..MESSAGES).map(|at| format!("17370{at:05}.x")).collect();
    let files = b.all_files();
    let twice: Vec<_> = files.windows(2).filter(|two| two[0] == two[1]).collect();
    assert!(twice.is_empty(), "two copies of {twice:?}");
    assert!(files == expected, "lost: {:?}", expected.iter().filter(|name| !files.contains(name)).collect::<Vec<_>>());
    assert_eq!(b.names("cur").len() + b.names("new").len(), 0);
    for name in b.names(".INBOX.Processed/cur") {
        let at = name[5..10].parse().unwrap();
        assert_eq!(fs::read_to_string(b.path(".INBOX.Processed/cur").join(&name)).unwrap(), content(at));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_while_others_rename() {
    under_renaming(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_where_files_are_moved_by_linking() {
    under_renaming(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_movers_make_one_copy() {
    for links in [false, true] {
        let b = Box_::new().await;
        let mut ids = Vec::new();
        for _ in 0..100 {
            ids.push(b.account.deliver(&b.inbox, "x").await.unwrap());
        }
        let movers = (0..3).map(|_| {
            let account = MaildirAccount::open("local", MaildirConfig::new(b.path(""))).unwrap();
            account.disk.links.store(links, Ordering::Relaxed);
            let (ids, processed) = (ids.clone(), b.processed.clone());
            tokio::spawn(async move { account.move_to_processed(&ids, &processed).await })
        });
        for outcomes in futures::future::join_all(movers).await {
            for outcome in outcomes.unwrap() {
                assert!(matches!(outcome, Ok(MoveOutcome::Moved(_))), "{outcome:?}");
            }
        }
        assert_eq!(b.all_files().len(), 100);
        assert_eq!(b.names(".INBOX.Processed/cur").len(), 100);
    }
}

#[tokio::test]
async fn twenty_thousand_messages() {
    const MESSAGES: usize = 20_000;
    let b = Box_::new().await;
    for at in 0..MESSAGES {
        b.put(&format!("{}/17370{at:05}.x", if at % 2 == 0 { "new" } else { "cur" }), "Subject: x\n\n");
    }
    let folders = b.account.list_folders().await.unwrap();
    assert_eq!((folders[0].messages, folders[0].unread), (Some(MESSAGES as u64), Some(MESSAGES as u64)));
    let ids = b.ids(&b.inbox).await;
    assert_eq!(ids.len(), MESSAGES);
    assert!(ids.is_sorted());
    for batch in ids.chunks(100) {
        for outcome in b.account.move_to_processed(batch, &b.processed).await {
            assert!(matches!(outcome.unwrap(), MoveOutcome::Moved(_)));
        }
    }
    assert!(b.ids(&b.inbox).await.is_empty());
    assert_eq!(b.names(".INBOX.Processed/cur").len(), MESSAGES);
}

/// Root may do everything, so as root the test runs itself again as somebody else.
#[cfg(target_os = "linux")]
#[test]
fn permissions_are_told() {
    use std::{
        os::unix::{fs::MetadataExt as _, process::CommandExt as _},
        process::Command,
    };
    const AGAIN: &str = "MAILDIR_TEST_AS_NOBODY";
    const NOBODY: u32 = 65_534;
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return tokio::runtime::Runtime::new().unwrap().block_on(permissions());
    }
    assert!(std::env::var_os(AGAIN).is_none(), "still root");
    // By this name the program can be started even if nobody else may look into its folder.
    let child = Command::new("/proc/self/exe")
        .args(
            ["--exact", concat!(module_path!(), "::permissions_are_told")]
                .map(|arg| arg.trim_start_matches("mail_account::")),
        )
        .env(AGAIN, "1")
        .env_remove("TMPDIR")
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let said = [child.stdout, child.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

#[cfg(target_os = "linux")]
async fn permissions() {
    use std::os::unix::fs::PermissionsExt as _;
    let b = Box_::new().await;
    let allow = |relative: &str, mode| {
        fs::set_permissions(b.path(relative), fs::Permissions::from_mode(mode)).unwrap();
    };
    b.put("cur/1737000000.closed:2,S", "Subject: x\n\n");
    b.put("cur/1737000001.open:2,", "Subject: y\n\n");
    allow("cur/1737000000.closed:2,S", 0o000);
    let messages = b.list(&b.inbox, Query::default()).await;
    assert!(messages[0].defects().contains(&Defect::Unreadable));
    assert!(messages[0].is_read);
    assert!(!messages[1].defects().contains(&Defect::Unreadable));
    assert_eq!(messages[1].subject.as_deref(), Some("y"));
    let raw = b.account.download_attachment(&messages[0].id, &AttachmentId::raw()).bytes(99).await.unwrap_err();
    assert_eq!((raw.kind(), raw.account()), (ErrorKind::Other, Some("local")));

    let access = async |folder: &FolderId| b.account.folder_access(folder).await.unwrap();
    assert_eq!((access(&b.inbox).await, access(&b.processed).await), (Access::ReadWrite, Access::ReadWrite));
    for closed in [".INBOX.Processed/cur", "cur"] {
        allow(closed, 0o500);
        let folder = if closed == "cur" { &b.inbox } else { &b.processed };
        assert_eq!(access(folder).await, Access::ReadOnly, "{closed}");
        let error = b.move_one(&messages[1].id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert_eq!(b.ids(&b.inbox).await.len(), 2);
        allow(closed, 0o700);
    }
    allow("cur", 0o000);
    let listed = b.account.fetch_messages(&b.inbox, Query::default()).try_collect::<Vec<_>>().await;
    assert_eq!(listed.unwrap_err().kind(), ErrorKind::PermissionDenied);
    allow("cur", 0o700);
    allow(".INBOX.Processed", 0o000);
    let folders = b.account.list_folders().await.unwrap();
    assert_eq!(folders.iter().map(|f| f.messages).collect::<Vec<_>>(), [Some(2), None]);
    assert_eq!(b.move_one(&messages[1].id).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    allow(".INBOX.Processed", 0o700);
    allow("", 0o000);
    assert_eq!(b.account.list_folders().await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    allow("", 0o700);
    for message in &messages {
        assert!(matches!(b.move_one(&message.id).await.unwrap(), MoveOutcome::Moved(_)));
    }
}

#[test]
fn a_listing_is_small() {
    // One name, shared by listing and index, and little beside it: a folder may hold 100,000 messages.
    assert!(size_of::<index::MailFile>() <= 24);
    assert!(size_of::<listing::Listed>() <= 32);
}
