//! What the host writes: a [`Handler`] that is given a [`Delivery`] and says how it ended.

use std::{
    fmt,
    future::Future,
    io,
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use futures::TryStreamExt as _;
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncWriteExt as _, sync::OnceCell};

use crate::{
    Attachment, AttachmentKind, Content, Error, ErrorKind, Message, MessageKey, Reason, Result, mime, store::Recorded,
};

/// What a handler's failure may be: anything.
pub type HandlerError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// How the host's handling of one message ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Taken; never handed over again.
    Imported,
    /// Not wanted; goes to the processed folder like an imported one.
    Skip(Reason),
    /// Not now; handed over again later, until [`ImportJob::max_attempts`](crate::ImportJob::max_attempts).
    Retry(Reason),
    /// Never; goes to the failed folder.
    Reject(Reason),
    /// The host is in trouble: ends the run, and does not count against the message.
    Stop(Reason),
}

/// Takes messages into the host's application.
///
/// May be called for several messages at once. An `Err` or a panic counts as [`Outcome::Retry`]; a failure to write to
/// the host's own disk as [`Outcome::Stop`]. After a crash a message may be handed over again, with the same
/// [`Delivery::id`]: never lost outranks never twice.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Takes one message.
    async fn handle(&self, mail: Delivery) -> Result<Outcome, HandlerError>;
}

/// A handler made of a closure; see [`handler_fn`].
#[derive(Clone, Copy)]
pub struct HandlerFn<F>(F);

impl<F> fmt::Debug for HandlerFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandlerFn")
    }
}

/// Makes a [`Handler`] of a closure.
///
/// ```
/// use mail_account::{Delivery, Outcome, handler_fn};
///
/// let handler = handler_fn(|mail: Delivery| async move {
///     for file in mail.attachments() {
///         println!("{} {}", file.file_name(), file.content().bytes(1 << 20).await?.len());
///     }
///     Ok(Outcome::Imported)
/// });
/// # let _ = handler;
/// ```
pub fn handler_fn<F, Fut>(f: F) -> HandlerFn<F>
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, HandlerError>> + Send + 'static,
{
    HandlerFn(f)
}

#[async_trait]
impl<F, Fut> Handler for HandlerFn<F>
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, HandlerError>> + Send + 'static,
{
    async fn handle(&self, mail: Delivery) -> Result<Outcome, HandlerError> {
        (self.0)(mail).await
    }
}

/// One hand-over of one message.
///
/// Derefs to the [`Message`].
#[derive(Debug)]
pub struct Delivery {
    pub(super) id: String,
    pub(super) job: String,
    pub(super) account: String,
    pub(super) mailbox: String,
    pub(super) key: MessageKey,
    pub(super) discriminator: u32,
    pub(super) attempt: u32,
    pub(super) earlier: Option<Earlier>,
    pub(super) possible_duplicate_of: Option<MessageKey>,
    pub(super) message: Message,
    pub(super) attachments: Vec<Delivered>,
    pub(super) raw: Opener,
}

/// Gets content again each time it is asked for.
#[derive(Clone)]
pub(super) struct Opener(pub(super) Arc<dyn Fn() -> Content + Send + Sync>);

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

/// An earlier hand-over of a message that a person put back into the import folder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Earlier {
    /// How it ended.
    pub outcome: Recorded,
    /// When it was handed over.
    pub at: Option<jiff::Timestamp>,
}

impl Delivery {
    /// The same for every hand-over of this attempt, also after a crash: a host that stores it with its own write can
    /// tell a repetition.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The job's name.
    #[must_use]
    pub fn job(&self) -> &str {
        &self.job
    }

    /// The account's identifier.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The mailbox's name.
    #[must_use]
    pub fn mailbox(&self) -> &str {
        &self.mailbox
    }

    /// What the message is called across providers.
    #[must_use]
    pub fn key(&self) -> &MessageKey {
        &self.key
    }

    /// Tells apart different messages of the same key, from 0.
    #[must_use]
    pub fn discriminator(&self) -> u32 {
        self.discriminator
    }

    /// Which attempt this is, from 1. A hand-over repeated after a crash has the same number.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The earlier import, when a person put the message back.
    #[must_use]
    pub fn earlier(&self) -> Option<&Earlier> {
        self.earlier.as_ref()
    }

    /// Another message that this may be a copy of, when that cannot be proven: same Message-ID, content not compared.
    #[must_use]
    pub fn possible_duplicate_of(&self) -> Option<&MessageKey> {
        self.possible_duplicate_of.as_ref()
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Files, items and links, inline ones included, in the order they stand in the message.
    ///
    /// A message of which nothing could be read ([`Defect::Unreadable`](crate::Defect::Unreadable)) has one: itself, so
    /// that a handler that only keeps attachments loses nothing.
    #[must_use]
    pub fn attachments(&self) -> &[Delivered] {
        &self.attachments
    }

    /// The whole message, as RFC 5322.
    #[must_use]
    pub fn raw(&self) -> Content {
        (self.raw.0)()
    }
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

/// One attachment of a [`Delivery`]. Derefs to the [`Attachment`].
#[derive(Clone, Debug)]
pub struct Delivered {
    pub(super) attachment: Attachment,
    pub(super) file_name: String,
    /// `<account>/<YYYYMMDD-HHMMSS>-<12 hex>`, the same in every run.
    pub(super) folder: Arc<Path>,
    pub(super) open: Opener,
    pub(super) swept: Arc<OnceCell<()>>,
}

impl Deref for Delivered {
    type Target = Attachment;

    fn deref(&self) -> &Attachment {
        &self.attachment
    }
}

/// A file that [`Delivered::save_in`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SavedFile {
    /// Where, relative to the directory that was given.
    pub path: PathBuf,
    /// How many bytes.
    pub bytes: u64,
    /// SHA-256 of exactly those bytes.
    pub sha256: [u8; 32],
}

impl Delivered {
    /// A name that is safe on any disk, and different from those of the message's other attachments: equal ones,
    /// ignoring case, get ` (2)`.
    #[must_use]
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// The bytes, decoded.
    #[must_use]
    pub fn content(&self) -> Content {
        (self.open.0)()
    }

    /// Writes the file to `dir/<account>/<YYYYMMDD-HHMMSS>-<12 hex>/<file_name>`: the time is the received time in
    /// UTC, the digits are of SHA-256 over the message's key and discriminator, so that a second hand-over overwrites
    /// what the first wrote. The file appears under its name only when it is complete and on disk.
    ///
    /// A link is not written.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Storage`] when the disk fails, which ends the run and counts against no message;
    /// [`ErrorKind::Unsupported`] for a link; else the account's error.
    pub async fn save_in(&self, dir: impl AsRef<Path> + Send) -> Result<SavedFile> {
        if self.attachment.kind == AttachmentKind::Link {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "`{}` is a link to {}, not a file; download it from there",
                    self.file_name,
                    self.attachment.url.as_deref().unwrap_or("a cloud file")
                ),
            ));
        }
        let folder = dir.as_ref().join(&self.folder);
        let path = self.folder.join(&self.file_name);
        let failed = |what: &str, at: &Path, e: io::Error| {
            Error::new(ErrorKind::Storage, format!("cannot {what} `{}`", at.display())).with_source(e)
        };
        tokio::fs::create_dir_all(&folder).await.map_err(|e| failed("create the folder", &folder, e))?;
        // What a hand-over that died left behind.
        self.swept
            .get_or_try_init(|| sweep(&folder))
            .await
            .map_err(|e| failed("remove unfinished files from", &folder, e))?;
        let target = folder.join(&self.file_name);
        // The dot keeps it apart from attachments that are called so: no `file_name` begins with one.
        let part = folder.join(format!(".{}.part", self.file_name));
        let mut file = tokio::fs::File::create(&part).await.map_err(|e| failed("create", &part, e))?;
        let (mut bytes, mut hash) = (0, Sha256::new());
        let mut content = self.content().into_stream();
        while let Some(piece) = content.try_next().await? {
            hash.update(&piece);
            bytes += piece.len() as u64;
            file.write_all(&piece).await.map_err(|e| failed("write", &part, e))?;
        }
        file.flush().await.map_err(|e| failed("write", &part, e))?;
        file.sync_all().await.map_err(|e| failed("write", &part, e))?;
        tokio::fs::rename(&part, &target).await.map_err(|e| failed("create", &target, e))?;
        sync_folder(&folder).await.map_err(|e| failed("write", &folder, e))?;
        Ok(SavedFile { path, bytes, sha256: hash.finalize().into() })
    }
}

async fn sweep(folder: &Path) -> io::Result<()> {
    let mut entries = tokio::fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        if entry.file_name().to_string_lossy().ends_with(".part") {
            match tokio::fs::remove_file(entry.path()).await {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
    }
    Ok(())
}

/// A renamed file is only sure to survive a power cut once its folder is on disk. Windows has no such call and does
/// not need it.
async fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        tokio::fs::File::open(folder).await?.sync_all().await?;
    }
    Ok(())
}

/// The folder of one message's files; see [`Delivered::save_in`].
pub(super) fn message_folder(account: &str, message: &Message, key: &MessageKey, discriminator: u32) -> PathBuf {
    let mut hash = Sha256::new();
    hash.update(key.as_str());
    hash.update([0]);
    hash.update(discriminator.to_string());
    let digits: String = hash.finalize()[..6].iter().map(|b| format!("{b:02x}")).collect();
    let stamp = message.received.to_zoned(TimeZone::UTC).strftime("%Y%m%d-%H%M%S");
    Path::new(&mime::names::safe_file_name(Some(account), "")).join(format!("{stamp}-{digits}"))
}

/// File names of one message's attachments, no two alike ignoring case.
pub(super) fn file_names(attachments: &[Attachment]) -> Vec<String> {
    let mut taken = std::collections::HashSet::new();
    attachments
        .iter()
        .map(|attachment| {
            let name = attachment.file_name();
            let mut candidate = name.clone();
            let mut n = 1;
            while !taken.insert(candidate.to_lowercase()) {
                n += 1;
                candidate = match name.rsplit_once('.') {
                    Some((stem, extension)) if !stem.is_empty() => format!("{stem} ({n}).{extension}"),
                    _ => format!("{name} ({n})"),
                };
            }
            candidate
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AttachmentId;

    #[test]
    fn equal_names_get_a_number() {
        let named = |name: &str| {
            let mut a = Attachment::new(AttachmentId::new("1"), "application/pdf");
            a.name = Some(name.to_owned());
            a
        };
        let names = file_names(&[named("a.pdf"), named("A.pdf"), named("a (2).pdf"), named("a.pdf")]);
        assert_eq!(names, ["a.pdf", "A (2).pdf", "a (2) (2).pdf", "a (3).pdf"]);
    }
}
