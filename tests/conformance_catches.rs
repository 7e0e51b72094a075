//! The conformance list finds what it is there to find: an account with one fault each, and the check that must fail.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use jiff::Timestamp;
use mail_account::{
    Access, AttachmentId, Capabilities, Content, Error, ErrorKind, Folder, FolderId, FolderSpec, MailAccount,
    MailboxInfo, Message, MessageId, MoveOutcome, Query, Result, Usage,
    provider::memory::{MemoryAccount, MemoryMailbox, MemoryOptions},
    testing::conformance::{Harness, Need, Seen, checks},
};
use tokio::sync::Semaphore;

/// What an account does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Nothing,
    MarksAsRead,
    NewestFirst,
    LosesTheLast,
    PagesByNumber,
    AsksSkipTwice,
    IgnoresLimit,
    IgnoresUnread,
    IgnoresSince,
    EmptyInsteadOfMissing,
    GivesTheOldHandle,
    LeavesTheOriginal,
    FailsTheBatchForOne,
    AnswersInAnotherOrder,
    DownloadsShort,
    LosesNames,
    HasNoRawMessage,
    WaitsForTheListing,
    ForgetsHandles,
    RefusesWhatExists,
    DividesNames,
    SaysNothingAboutItself,
}

/// The fault, and a check that must find it.
const CAUGHT: &[(Wrong, &str)] = &[
    (Wrong::MarksAsRead, "reading_marks_nothing_as_read"),
    (Wrong::NewestFirst, "the_oldest_come_first"),
    (Wrong::LosesTheLast, "messages_of_the_same_second_all_come"),
    (Wrong::PagesByNumber, "moving_every_message_given_disturbs_nothing"),
    (Wrong::AsksSkipTwice, "skip_is_asked_once_for_each_message"),
    (Wrong::IgnoresLimit, "limit_counts_what_is_given"),
    (Wrong::IgnoresUnread, "unread_only_leaves_out_what_was_read"),
    (Wrong::IgnoresSince, "since_leaves_out_what_is_older"),
    (Wrong::EmptyInsteadOfMissing, "a_deleted_folder_is_not_found"),
    (Wrong::GivesTheOldHandle, "move_returns_a_usable_id"),
    (Wrong::LeavesTheOriginal, "move_returns_a_usable_id"),
    (Wrong::FailsTheBatchForOne, "a_vanished_message_is_gone_and_the_others_are_moved"),
    (Wrong::AnswersInAnotherOrder, "moves_are_answered_one_by_one_and_in_order"),
    (Wrong::DownloadsShort, "files_have_their_names_and_bytes"),
    (Wrong::DownloadsShort, "a_large_file_comes_in_full"),
    (Wrong::LosesNames, "hard_names_are_decoded"),
    (Wrong::HasNoRawMessage, "the_raw_message_is_the_same_message"),
    (Wrong::WaitsForTheListing, "a_download_works_while_a_listing_is_open"),
    (Wrong::ForgetsHandles, "handles_survive_reopening"),
    (Wrong::RefusesWhatExists, "creating_twice_gives_the_same_folder"),
    (Wrong::DividesNames, "a_separator_in_a_name_makes_no_level"),
    (Wrong::SaysNothingAboutItself, "a_missing_folder_is_told_with_the_nearest_names"),
];

#[derive(Debug)]
struct Faulty {
    inner: MemoryAccount,
    wrong: Wrong,
    /// What a single connection would be.
    connection: Arc<Semaphore>,
}

impl Faulty {
    fn is(&self, wrong: Wrong) -> bool {
        self.wrong == wrong
    }
}

#[async_trait]
impl MailAccount for Faulty {
    async fn list_folders(&self) -> Result<Vec<Folder>> {
        self.inner.list_folders().await
    }

    fn fetch_messages(&self, folder: &FolderId, mut query: Query) -> BoxStream<'static, Result<Message>> {
        if self.is(Wrong::PagesByNumber) {
            let (inner, folder) = (self.inner.clone(), folder.clone());
            return stream::try_unfold(0, move |at| {
                let seen = AtomicUsize::new(0);
                let query = Query::default().with_limit(1).with_skip(move |_| seen.fetch_add(1, SeqCst) < at);
                let mut page = inner.fetch_messages(&folder, query);
                async move { Ok(page.try_next().await?.map(|message| (message, at + 1))) }
            })
            .boxed();
        }
        match self.wrong {
            Wrong::IgnoresLimit => query.limit = None,
            Wrong::IgnoresUnread => query.unread_only = false,
            Wrong::IgnoresSince => query.since = None,
            Wrong::AsksSkipTwice => {
                if let Some(skip) = query.skip.take() {
                    query = query.with_skip(move |id| skip(id) | skip(id));
                }
            }
            _ => {}
        }
        let wrong = self.wrong;
        let mailbox = self.inner.memory().clone();
        let handles = self.inner.clone();
        let connection = Arc::clone(&self.connection);
        let listed = self.inner.fetch_messages(folder, query).map_ok(move |mut message| {
            if wrong == Wrong::MarksAsRead {
                handles.stored(&message.id).map(|stored| mailbox.mark(stored, true));
            }
            if wrong == Wrong::LosesNames {
                for attachment in &mut message.attachments {
                    attachment.name = attachment.name.take().map(|name| name.replace(|c: char| !c.is_ascii(), "?"));
                }
            }
            message
        });
        match wrong {
            Wrong::NewestFirst | Wrong::LosesTheLast | Wrong::EmptyInsteadOfMissing => stream::once(async move {
                let mut all: Vec<_> = listed.collect().await;
                match wrong {
                    Wrong::NewestFirst => all.reverse(),
                    Wrong::LosesTheLast => drop(all.pop()),
                    _ => all.retain(Result::is_ok),
                }
                stream::iter(all)
            })
            .flatten()
            .boxed(),
            // The connection is the listing's until that is dropped.
            Wrong::WaitsForTheListing => stream::once(async move { connection.acquire_owned().await.expect("open") })
                .zip(stream::once(async move { listed }))
                .flat_map(|(held, listed)| listed.inspect(move |_| _ = &held))
                .boxed(),
            _ => listed.boxed(),
        }
    }

    fn download_attachment(&self, message: &MessageId, attachment: &AttachmentId) -> Content {
        if self.is(Wrong::HasNoRawMessage) && attachment.is_raw() {
            return Content::refused(Error::new(ErrorKind::Unsupported, "there is no raw message"));
        }
        let bytes = self.inner.download_attachment(message, attachment).into_stream();
        if self.is(Wrong::DownloadsShort) {
            let mut left = 900;
            return Content::from_stream(bytes.map_ok(move |piece: Bytes| {
                let kept = piece.len().min(left);
                left -= kept;
                piece.slice(..kept)
            }));
        }
        let (connection, waits) = (Arc::clone(&self.connection), self.is(Wrong::WaitsForTheListing));
        Content::from_fn(async move || {
            if waits {
                drop(connection.acquire_owned().await.expect("open"));
            }
            Ok(bytes)
        })
    }

    async fn move_to_processed(&self, messages: &[MessageId], to: &FolderId) -> Vec<Result<MoveOutcome>> {
        if self.is(Wrong::LeavesTheOriginal) {
            let mut answers = Vec::new();
            for id in messages {
                let from = self.inner.fetch_message(id).await.map(|message| message.folder);
                let (mailbox, answer) =
                    (self.inner.memory(), self.inner.move_to_processed(std::slice::from_ref(id), to));
                answers.extend(answer.await);
                let tree = self.inner.list_folders().await.expect("it works");
                let path = |id: &FolderId| tree.iter().find(|f| f.id == *id).expect("it is there").path();
                let moved = mailbox.contents(&path(to)).expect("it is there").pop();
                if let (Ok(from), Some(moved)) = (from, moved) {
                    mailbox.deliver(&path(&from), moved.raw, moved.received).expect("it is there");
                }
            }
            return answers;
        }
        let mut answers = self.inner.move_to_processed(messages, to).await;
        match self.wrong {
            Wrong::GivesTheOldHandle => {
                messages.iter().zip(&mut answers).for_each(|(id, answer)| *answer = Ok(MoveOutcome::Moved(id.clone())));
            }
            Wrong::AnswersInAnotherOrder => answers.reverse(),
            Wrong::FailsTheBatchForOne if answers.iter().any(|a| matches!(a, Ok(MoveOutcome::Gone))) => {
                answers.iter_mut().for_each(|a| *a = Err(Error::new(ErrorKind::NotFound, "one of them is gone")));
            }
            _ => {}
        }
        answers
    }

    fn mailbox(&self) -> &MailboxInfo {
        self.inner.mailbox()
    }

    async fn resolve_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        let found = self.inner.resolve_folder(spec).await;
        if self.is(Wrong::SaysNothingAboutItself) {
            return found.map_err(|e| Error::new(e.kind(), e.message().to_owned()));
        }
        found
    }

    async fn create_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        if self.is(Wrong::RefusesWhatExists) && self.inner.resolve_folder(spec).await.is_ok() {
            return Err(Error::new(ErrorKind::Conflict, "it exists"));
        }
        match spec {
            FolderSpec::Path(names) if self.is(Wrong::DividesNames) => {
                let names = names.iter().flat_map(|name| name.split('/')).map(str::to_owned).collect();
                self.inner.create_folder(&FolderSpec::Path(names)).await
            }
            _ => self.inner.create_folder(spec).await,
        }
    }

    async fn folder_access(&self, folder: &FolderId) -> Result<Access> {
        self.inner.folder_access(folder).await
    }

    async fn fetch_message(&self, message: &MessageId) -> Result<Message> {
        self.inner.fetch_message(message).await
    }

    async fn mark_read(&self, messages: &[MessageId], read: bool) -> Vec<Result<()>> {
        self.inner.mark_read(messages, read).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}

struct FaultyHarness {
    mailbox: MemoryMailbox,
    wrong: Wrong,
}

fn message_id(raw: &[u8]) -> Option<String> {
    mail_parser::MessageParser::default().parse_headers(raw)?.message_id().map(|id| format!("<{id}>"))
}

#[async_trait]
impl Harness for FaultyHarness {
    async fn open(&self) -> Result<Arc<dyn MailAccount>> {
        if self.wrong == Wrong::ForgetsHandles {
            self.mailbox.void_handles();
        }
        let inner = MemoryAccount::open("check", &self.mailbox, MemoryOptions::default());
        Ok(Arc::new(Faulty { inner, wrong: self.wrong, connection: Arc::new(Semaphore::new(1)) }))
    }

    async fn deliver(&self, folder: &FolderSpec, raw: Bytes, received: Timestamp) -> Result<()> {
        self.mailbox.deliver(&folder.to_string(), raw, received).map(drop)
    }

    async fn delete_folder(&self, folder: &FolderSpec) -> Result<()> {
        self.mailbox.delete_folder(&folder.to_string())
    }

    fn lacks(&self, need: Need) -> Option<String> {
        matches!(need, Need::Links | Need::Unreadable).then(|| "not needed here".to_owned())
    }

    async fn look(&self, folder: &FolderSpec) -> Result<Vec<Seen>> {
        let here = self.mailbox.contents(&folder.to_string())?;
        Ok(here.iter().map(|m| Seen::new(message_id(&m.raw), m.read)).collect())
    }

    async fn delete(&self, folder: &FolderSpec, internet_message_id: &str) -> Result<()> {
        let here = self.mailbox.contents(&folder.to_string())?;
        let found = here.iter().find(|m| message_id(&m.raw).as_deref() == Some(internet_message_id));
        self.mailbox.delete(found.expect("it was delivered").id);
        Ok(())
    }
}

/// Time is skipped where nothing happens, so that a standstill is seen at once.
#[tokio::test(start_paused = true)]
async fn every_fault_is_caught_and_nothing_else() {
    for (wrong, name) in CAUGHT {
        let check = checks().iter().find(|check| check.name() == *name).expect("it is in the list");
        let harness = |wrong| FaultyHarness { mailbox: MemoryMailbox::new("facturen@contoso.nl"), wrong };
        let sound = check.run(&harness(Wrong::Nothing)).await;
        assert_eq!(sound, Ok(()), "{name} fails without a fault");
        let caught = check.run(&harness(*wrong)).await;
        assert!(caught.is_err(), "{name} does not see that an account {wrong:?}");
    }
}
