//! What the checks share: a folder of their own, and words for what they do and expect.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use super::Harness;
use crate::{
    AttachmentId, AttachmentKind, Error, ErrorKind, Folder, FolderSpec, MailAccount, Message, MessageId, MoveOutcome,
    Query, Result,
    testing::mail::{Mail, hex, mail},
};

/// A check's own folder, and the account.
pub(super) struct Room<'a> {
    pub(super) harness: &'a dyn Harness,
    pub(super) account: Arc<dyn MailAccount>,
    base: Folder,
}

/// When the first message of a check arrives.
pub(super) const START: Timestamp = Timestamp::constant(1_769_860_800, 0);

impl<'a> Room<'a> {
    pub(super) async fn enter(harness: &'a dyn Harness, check: &str) -> Result<Self> {
        let account = harness.open().await?;
        let mut path = match harness.parent() {
            Some(parent) => account.resolve_folder(&parent).await?.segments,
            None => Vec::new(),
        };
        // Names of folders have limits; the number makes it unique.
        let short: String = check.chars().take(40).collect();
        path.push(format!("check {short} {}", hex(&rand::random::<[u8; 4]>())));
        let base = account.create_folder(&FolderSpec::Path(path)).await?;
        Ok(Self { harness, account, base })
    }

    pub(super) async fn leave(self) -> Result<()> {
        self.harness.delete_folder(&spec(&self.base)).await
    }

    /// The names from the top down to a folder of this check.
    pub(super) fn path(&self, names: &[&str]) -> Vec<String> {
        self.base.segments.iter().cloned().chain(names.iter().map(ToString::to_string)).collect()
    }

    pub(super) fn spec(&self, names: &[&str]) -> FolderSpec {
        FolderSpec::Path(self.path(names))
    }

    /// A folder of this check, made if need be.
    pub(super) async fn folder(&self, name: &str) -> Folder {
        done(self.account.create_folder(&self.spec(&[name])).await, "create a folder")
    }

    pub(super) async fn deliver(&self, folder: &Folder, mail: &Mail) {
        done(self.harness.deliver(&spec(folder), mail.build(), mail.received()).await, "deliver a message");
    }

    /// Delivers so many small messages, a second apart, and gives their Message-IDs in that order.
    pub(super) async fn deliver_some(&self, folder: &Folder, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for n in 0..count {
            let mail = numbered(n);
            self.deliver(folder, &mail).await;
            ids.push(mail.message_id().expect("it has one"));
        }
        ids
    }

    pub(super) async fn list(&self, folder: &Folder, query: Query) -> Vec<Message> {
        done(self.account.fetch_messages(&folder.id, query).try_collect().await, "list a folder")
    }

    /// The Message-IDs that a listing gives.
    pub(super) async fn list_ids(&self, folder: &Folder, query: Query) -> Vec<String> {
        ids(&self.list(folder, query).await)
    }

    /// The only message of a folder.
    pub(super) async fn only(&self, folder: &Folder, query: Query) -> Message {
        let mut messages = self.list(folder, query).await;
        assert_eq!(messages.len(), 1, "one message was delivered; the listing has {:?}", ids(&messages));
        messages.remove(0)
    }

    /// Delivers one message to a fresh folder and lists it.
    pub(super) async fn given(&self, mail: &Mail, query: Query) -> Message {
        let folder = self.folder("Work").await;
        self.deliver(&folder, mail).await;
        self.only(&folder, query).await
    }

    pub(super) async fn download(&self, message: &MessageId, attachment: &AttachmentId) -> Bytes {
        done(self.account.download_attachment(message, attachment).bytes(64 << 20).await, "download an attachment")
    }

    /// Moves one message and gives its new handle.
    pub(super) async fn move_one(&self, message: &MessageId, to: &Folder) -> MessageId {
        let answers = self.account.move_to_processed(std::slice::from_ref(message), &to.id).await;
        assert_eq!(answers.len(), 1, "one message, one answer; got {answers:?}");
        moved(answers.into_iter().next().expect("one"))
    }

    /// Names and hashes of a message's attached files, as they are compared over providers.
    pub(super) async fn files(&self, message: &Message) -> Vec<(String, String)> {
        let mut files = Vec::new();
        for attachment in message.attachments.iter().filter(|a| a.kind == AttachmentKind::File) {
            let bytes = self.download(&message.id, &attachment.id).await;
            files.push((attachment.name.clone().unwrap_or_default(), folded_hash(&bytes)));
        }
        files.sort();
        files
    }

    /// Compares a message with the one that was delivered, in terms that every provider keeps.
    pub(super) async fn assert_same(&self, message: &Message, mail: &Mail) {
        assert_eq!(message.internet_message_id, mail.message_id(), "the Message-ID");
        assert_eq!(message.subject.as_deref(), mail.subject(), "the subject");
        assert_eq!(message.from.as_ref(), mail.from(), "the writer");
        let addresses = |all: &[crate::Address]| all.iter().map(|a| a.address.clone()).collect::<Vec<_>>();
        assert_eq!(addresses(&message.to), addresses(mail.to()), "the recipients");
        assert_eq!(message.sent.map(Timestamp::as_second), mail.date().map(Timestamp::as_second), "the sent second");
        let mut expected: Vec<_> = mail
            .files()
            .into_iter()
            .map(|(name, bytes)| (name.unwrap_or_default().to_owned(), folded_hash(&bytes)))
            .collect();
        expected.sort();
        assert_eq!(self.files(message).await, expected, "names and hashes of the files");
    }
}

/// The `n`th of many small messages.
pub(super) fn numbered(n: usize) -> Mail {
    let at = START + SignedDuration::from_secs(n as i64);
    mail().with_subject(format!("Bericht {n:04}")).with_date(at).with_received(at)
}

pub(super) fn spec(folder: &Folder) -> FolderSpec {
    FolderSpec::Path(folder.segments.clone())
}

pub(super) fn ids(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|m| m.internet_message_id.clone().unwrap_or_else(|| "(none)".to_owned())).collect()
}

/// The new handle of a message that was moved. A server that can only copy did what it could.
#[track_caller]
pub(super) fn moved(answer: Result<MoveOutcome>) -> MessageId {
    match answer {
        Ok(MoveOutcome::Moved(id) | MoveOutcome::CopiedNotRemoved(id)) => id,
        Ok(MoveOutcome::Gone) => panic!("the message is there, and the move says `Gone`"),
        Err(error) => panic!("cannot move a message: {}", error.chain()),
    }
}

#[track_caller]
pub(super) fn done<T>(result: Result<T>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("cannot {what}: {} (kind `{}`)", error.chain(), error.kind()))
}

/// The error of a call that must not succeed.
#[track_caller]
pub(super) fn refused<T>(result: Result<T>, kind: ErrorKind, what: &str) -> Error {
    match result {
        Ok(_) => panic!("{what} succeeded; expected an error of kind `{kind}`"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{what} failed as it should, but with: {}", error.chain());
            error
        }
    }
}

/// SHA-256 with CRLF as LF: services change line ends.
pub(super) fn folded_hash(bytes: &[u8]) -> String {
    let mut folded = Vec::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        if !(*byte == b'\r' && bytes.get(at + 1) == Some(&b'\n')) {
            folded.push(*byte);
        }
    }
    hex(&Sha256::digest(&folded))
}
