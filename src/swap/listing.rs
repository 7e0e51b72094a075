//! What is kept of a message to compare it, and how its files are read.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::{
    Defect, FolderId, MailAccount, Message, MessageId, Query, Result,
    import::identity::{Digest, Evidence, FoldedHash, MessageKey, is_hashed, is_tnef},
};

/// Half of a SHA-256: enough to tell texts apart, and small.
pub(super) type Short = [u8; 16];

pub(super) fn short(parts: &[&[u8]]) -> Short {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut out = Short::default();
    out.copy_from_slice(&hash.finalize()[..16]);
    out
}

/// A message, in a few hundred bytes.
pub(super) struct Entry {
    pub(super) id: MessageId,
    pub(super) key: Short,
    pub(super) has_message_id: bool,
    pub(super) sent: Option<i64>,
    pub(super) received: Timestamp,
    pub(super) subject: Short,
    pub(super) sender: Short,
    pub(super) recipients: Short,
    /// Attachments that are no files: other services render them in another way.
    pub(super) items: u32,
    /// Among them Outlook's `winmail.dat`, which Exchange opens: there the files in it stand in its place.
    pub(super) has_tnef: bool,
    pub(super) is_read: bool,
    pub(super) unreadable: bool,
    pub(super) files: Option<Files>,
    title: Box<str>,
}

/// The attached files of a message.
#[derive(Clone, Copy)]
pub(super) struct Files {
    pub(super) digest: Digest,
    /// Of names and content together.
    pub(super) named: Short,
}

impl Files {
    /// Reads all files of a message, piece by piece. `None` when one of them cannot be had.
    ///
    /// # Errors
    ///
    /// What speaks of the account as a whole.
    pub(super) async fn read(account: &dyn MailAccount, message: &Message) -> Result<Option<Self>> {
        if message.defects().contains(&Defect::Unreadable) {
            return Ok(None);
        }
        let mut files = Vec::new();
        for attachment in message.attachments.iter().filter(|a| is_hashed(a)) {
            let mut hash = FoldedHash::default();
            match &attachment.content {
                Some(bytes) => hash.update(bytes),
                None => {
                    let mut pieces = account.download_attachment(&message.id, &attachment.id).into_stream();
                    loop {
                        match pieces.try_next().await {
                            Ok(Some(piece)) => hash.update(&piece),
                            Ok(None) => break,
                            Err(error) if error.kind().is_account_wide() => return Err(error),
                            Err(_) => return Ok(None),
                        }
                    }
                }
            }
            files.push((attachment.file_name(), hash.finish()));
        }
        let digest = Digest::of(files.iter().map(|(_, hash)| *hash).collect());
        files.sort();
        let parts: Vec<&[u8]> = files.iter().flat_map(|(name, hash)| [name.as_bytes(), &hash[..]]).collect();
        Ok(Some(Self { digest, named: short(&parts) }))
    }
}

impl Entry {
    fn new(message: &Message, files: Option<Files>) -> Self {
        const LONGEST: usize = 60;
        let evidence = Evidence::of(message);
        let own = message.internet_message_id.as_deref().and_then(MessageKey::of_message_id);
        let has_message_id = own.is_some();
        let digest = files.map_or(Digest::Unknown, |files| files.digest);
        let key = own.unwrap_or_else(|| MessageKey::without_message_id(digest, &evidence));
        let mut to: Vec<_> = message.to.iter().map(|to| to.address.trim().to_lowercase()).collect();
        to.sort();
        let to: Vec<&[u8]> = to.iter().map(String::as_bytes).collect();
        let title: String = evidence.subject.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
        Self {
            id: message.id.clone(),
            key: short(&[key.as_str().as_bytes()]),
            has_message_id,
            sent: evidence.sent_second,
            received: message.received,
            subject: short(&[evidence.subject.as_bytes()]),
            sender: short(&[evidence.sender.as_bytes()]),
            recipients: short(&to),
            items: message.attachments.iter().filter(|a| !is_hashed(a)).count().try_into().unwrap_or(u32::MAX),
            has_tnef: message.attachments.iter().any(is_tnef),
            is_read: message.is_read,
            unreadable: message.defects().contains(&Defect::Unreadable),
            files,
            title: title.into(),
        }
    }

    /// The message, for people.
    pub(super) fn label(&self) -> [String; 2] {
        let title = |none: &'static str| if self.title.is_empty() { none.to_owned() } else { self.title.to_string() };
        [
            format!("\"{}\" received {}", title("(no subject)"), self.received),
            format!("\"{}\" ontvangen {}", title("(geen onderwerp)"), self.received),
        ]
    }
}

/// All messages of a folder. Of those without a `Message-ID` the files are read at once, because their key is made of
/// them.
///
/// # Errors
///
/// What the account meets.
pub(super) async fn list(account: &dyn MailAccount, folder: &FolderId) -> Result<Vec<Entry>> {
    let mut messages = account.fetch_messages(folder, Query::default().with_inline_up_to(0));
    let mut entries = Vec::new();
    while let Some(message) = messages.next().await {
        let message = message?;
        let named = message.internet_message_id.as_deref().and_then(MessageKey::of_message_id).is_some();
        let files = if named { None } else { Files::read(account, &message).await? };
        entries.push(Entry::new(&message, files));
    }
    Ok(entries)
}

/// Reads the files of some messages of a folder, in one more listing that leaves out the others.
///
/// # Errors
///
/// What the account meets.
pub(super) async fn read_files(
    account: &dyn MailAccount,
    folder: &FolderId,
    entries: &mut [Entry],
    wanted: Vec<usize>,
) -> Result<()> {
    let wanted: HashMap<MessageId, usize> =
        wanted.into_iter().filter(|&at| entries[at].files.is_none()).map(|at| (entries[at].id.clone(), at)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let ids: HashSet<MessageId> = wanted.keys().cloned().collect();
    let mut messages = account.fetch_messages(folder, Query::default().with_skip(move |id| !ids.contains(id)));
    while let Some(message) = messages.next().await {
        let message = message?;
        if let Some(&at) = wanted.get(&message.id) {
            entries[at].files = Files::read(account, &message).await?;
        }
    }
    Ok(())
}

/// Whether a message that only one account shows is gone from there too, or there after all by now. `known`: the other
/// account shows another message of the same key, so that a search would find that one.
pub(super) async fn has_changed(
    here: &dyn MailAccount,
    folder: &FolderId,
    entry: &Entry,
    there: (&dyn MailAccount, &FolderId),
    known: bool,
) -> bool {
    let message = match here.fetch_message(&entry.id).await {
        Ok(message) if message.folder == *folder => message,
        Ok(_) => return true,
        Err(error) => return error.kind() == crate::ErrorKind::NotFound,
    };
    let (Some(id), false) = (message.internet_message_id, known) else { return false };
    let query = Query::default().with_internet_message_id(id).with_limit(1).with_inline_up_to(0);
    matches!(there.0.fetch_messages(there.1, query).next().await, Some(Ok(_)))
}
