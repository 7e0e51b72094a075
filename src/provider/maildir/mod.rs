//! A mailbox in a directory: Maildir, with Maildir++ subfolders as Dovecot writes them.
//!
//! Usable while Dovecot, mbsync or a delivery program works in the same directory: nothing is locked, nothing is
//! replaced, and messages are found again after others have renamed them.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | [`MaildirAccount`] and its trait impl, which only forwards |
//! | `config.rs` | [`MaildirConfig`], and the mailbox's name |
//! | `layout.rs` | folder names and directories |
//! | `name.rs` | file names: key, flags, time; the handles made from them |
//! | `index.rs` | which files a folder has; why one that is renamed meanwhile is not missed |
//! | `disk.rs` | finding, delivering and marking messages |
//! | `folders.rs` | the tree, and new folders |
//! | `listing.rs` | listing a folder and reading its messages |
//! | `moving.rs` | moving, and what a crash leaves |
//! | `sys.rs` | the operating system |
//! | `tests.rs` | other programs in the same directory, and crashes |

mod config;
mod disk;
mod folders;
mod index;
mod layout;
mod listing;
mod moving;
mod name;
mod sys;
#[cfg(test)]
mod tests;

use std::{fmt, path::Path, sync::Arc};

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;

pub use config::MaildirConfig;

use crate::{
    Access, AttachmentId, Capabilities, Content, Error, ErrorKind, Folder, FolderId, FolderSpec, MailAccount,
    MailboxInfo, Message, MessageId, MoveOutcome, Query, Result, Usage,
    provider::{Opening, ProviderConfig as _},
};
use disk::Disk;
use layout::Place;

/// The provider's name.
pub const NAME: &str = "maildir";

/// A Maildir.
///
/// - **Folders** lie as Dovecot puts them: `Processed` in `.Processed`, `Inbox/Processed` in `.INBOX.Processed`. A name
///   with a `.` or `/` has no place in this layout. Only the inbox has a role.
/// - **Handles** are a message's folder and its unique name, without flags. A move keeps the unique name wherever it
///   is free, but gives a new handle.
/// - **Received** is the time that the file's name begins with, to the second, else when the file was written.
/// - **Reading** renames nothing: what is in `new` stays there, and stays new for other programs.
/// - **Moved** messages go to `cur` with their flags. Keywords stay behind, because their letters mean something else in
///   every folder.
///
/// ```
/// use futures::TryStreamExt as _;
/// use mail_account::{
///     MailAccount as _, Query,
///     provider::maildir::{MaildirAccount, MaildirConfig},
/// };
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("mailbox");
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let account = MaildirAccount::open("local", MaildirConfig::new(path))?;
/// account.create_mailbox().await?;
/// let inbox = account.resolve_folder(&"Inbox".parse()?).await?;
/// account.deliver(&inbox.id, "Subject: Factuur\r\n\r\nzie bijlage\r\n").await?;
///
/// let processed = account.create_folder(&"Inbox/Processed".parse()?).await?;
/// let messages: Vec<_> = account.fetch_messages(&inbox.id, Query::default()).try_collect().await?;
/// account.move_to_processed(&[messages[0].id.clone()], &processed.id).await;
/// assert_eq!(account.fetch_messages(&processed.id, Query::default()).try_collect::<Vec<_>>().await?.len(), 1);
/// # Ok::<(), mail_account::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct MaildirAccount {
    info: MailboxInfo,
    /// The mailbox's name, by which messages are recognised that it sent itself.
    name: Arc<str>,
    disk: Arc<Disk>,
}

impl MaildirAccount {
    /// Opens the mailbox under the name `account`. Looks at nothing but the directory's own path.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] for a path that cannot be right.
    pub fn open(account: &str, config: MaildirConfig) -> Result<Self> {
        Self::with(Opening::new(account), &config)
    }

    fn with(opening: Opening, config: &MaildirConfig) -> Result<Self> {
        config.check(&opening.places)?;
        let info = config.mailbox(&opening);
        let root = std::path::absolute(&config.path)
            .map_err(|e| opening.places.invalid("path", "cannot be made a whole path").with_source(e))?;
        let disk = Disk::new(root, opening.account, opening.context);
        Ok(Self { name: info.name.as_str().into(), info, disk: Arc::new(disk) })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.disk.root
    }

    /// Makes the mailbox, where it is missing. No other call does: a directory that is not there is more often a wrong
    /// path, or a disk that is not mounted, than an empty mailbox.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`] or [`ErrorKind::Storage`] when the directory cannot be made.
    pub async fn create_mailbox(&self) -> Result<()> {
        self.blocking("create_mailbox", |disk| disk.make_mailbox()).await
    }

    /// Puts a message into a folder, as a delivery program does: unread, in `new`, durable when this returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no such folder, [`ErrorKind::Storage`] when the disk is full.
    pub async fn deliver(&self, folder: &FolderId, message: impl AsRef<[u8]> + Send) -> Result<MessageId> {
        self.put(folder, message.as_ref(), None).await
    }

    /// The same, for a message that was received at another time than now.
    ///
    /// # Errors
    ///
    /// As for [`deliver`](Self::deliver).
    pub async fn deliver_at(
        &self,
        folder: &FolderId,
        message: impl AsRef<[u8]> + Send,
        received: Timestamp,
    ) -> Result<MessageId> {
        self.put(folder, message.as_ref(), Some(received)).await
    }

    async fn put(&self, folder: &FolderId, message: &[u8], received: Option<Timestamp>) -> Result<MessageId> {
        let (place, message) = (self.place(folder), message.to_vec());
        self.blocking("deliver", move |disk| disk.deliver(&place?, &message, received)).await
    }

    fn place(&self, folder: &FolderId) -> Result<Place> {
        Place::parse(folder.as_str()).ok_or_else(|| {
            let what = format!("there is no folder `id:{folder}`: this is no id of a Maildir's folder");
            self.disk.error(ErrorKind::NotFound, what)
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Disk) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        blocking(&self.disk, work).await.map_err(|e| e.with_operation(operation))
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    disk: &Arc<Disk>,
    work: impl FnOnce(&Disk) -> Result<T> + Send + 'static,
) -> Result<T> {
    let shared = Arc::clone(disk);
    match tokio::task::spawn_blocking(move || work(&shared)).await {
        Ok(done) => done,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(e) => Err(disk.error(ErrorKind::Other, "the program is ending".into()).with_source(e)),
    }
}

impl fmt::Debug for MaildirAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaildirAccount").field("mailbox", &self.info).finish_non_exhaustive()
    }
}

#[async_trait]
impl MailAccount for MaildirAccount {
    async fn list_folders(&self) -> Result<Vec<Folder>> {
        self.blocking("list_folders", Disk::counted_tree).await
    }

    fn fetch_messages(&self, folder: &FolderId, query: Query) -> BoxStream<'static, Result<Message>> {
        listing::fetch(Arc::clone(&self.disk), folder.clone(), query, Arc::clone(&self.name))
    }

    fn download_attachment(&self, message: &MessageId, attachment: &AttachmentId) -> Content {
        listing::download(Arc::clone(&self.disk), message.clone(), attachment.clone())
    }

    async fn move_to_processed(&self, messages: &[MessageId], to: &FolderId) -> Vec<Result<MoveOutcome>> {
        let (moved, place) = (messages.to_vec(), self.place(to));
        let outcomes = self.blocking("move_to_processed", move |disk| Ok(disk.move_all(&moved, &place?))).await;
        self.each(messages, outcomes, "move_to_processed")
    }

    fn mailbox(&self) -> &MailboxInfo {
        &self.info
    }

    async fn resolve_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        let spec = spec.clone();
        self.blocking("resolve_folder", move |disk| disk.resolve(&spec)).await
    }

    async fn create_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        let spec = spec.clone();
        self.blocking("create_folder", move |disk| disk.create(&spec)).await
    }

    async fn folder_access(&self, folder: &FolderId) -> Result<Access> {
        let place = self.place(folder);
        self.blocking("folder_access", move |disk| disk.access(&place?)).await
    }

    async fn fetch_message(&self, message: &MessageId) -> Result<Message> {
        listing::fetch_one(&self.disk, message, &self.name).await.map_err(|e| e.with_operation("fetch_message"))
    }

    async fn mark_read(&self, messages: &[MessageId], read: bool) -> Vec<Result<()>> {
        let marked = messages.to_vec();
        let outcomes = self.blocking("mark_read", move |disk| {
            let mark = |id: &MessageId| disk.mark(&name::Handle::parse(id).ok_or_else(|| disk.no_handle(id))?, read);
            Ok(marked.iter().map(mark).collect())
        });
        self.each(messages, outcomes.await, "mark_read")
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(100, false)
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}

impl MaildirAccount {
    /// One answer for each message, also where one thing failed for all.
    fn each<T>(
        &self,
        messages: &[MessageId],
        outcomes: Result<Vec<Result<T>>>,
        operation: &'static str,
    ) -> Vec<Result<T>> {
        let outcomes =
            outcomes.unwrap_or_else(|error: Error| messages.iter().map(|_| Err(self.disk.repeat(&error))).collect());
        outcomes.into_iter().map(|outcome| outcome.map_err(|e| e.with_operation(operation))).collect()
    }
}
