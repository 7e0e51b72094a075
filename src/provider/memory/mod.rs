//! A mailbox in memory, for tests: scripted faults, a hook around every call, a call log.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | [`MemoryAccount`] and its trait impl, which only forwards |
//! | `config.rs` | [`MemoryOptions`]: what kind of service the account imitates; settings in a file |
//! | `mailbox.rs` | [`MemoryMailbox`]: what a test does to the mailbox behind the account's back |
//! | `state.rs` | folders and messages, and the rules for changing them |
//! | `session.rs` | one function per call of the trait |
//! | `script.rs` | [`Operation`], [`Call`], [`Fault`]: what goes wrong, and when |
//! | `generated.rs` | [`Generated`]: messages made from a number, for large mailboxes |
//! | `tests.rs` | that it does what it imitates |

mod config;
mod generated;
mod mailbox;
mod script;
mod session;
mod state;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::stream::BoxStream;

pub use config::{MemoryConfig, MemoryOptions};
pub use generated::Generated;
pub use mailbox::{MemoryMailbox, StoredId, StoredMail};
pub use script::{Call, Fault, Operation, Phase, Reaction};

use crate::{
    Access, AttachmentId, Capabilities, Content, Folder, FolderId, FolderSpec, MailAccount, MailboxInfo, Message,
    MessageId, MoveOutcome, Query, Result, Usage,
};
use session::Session;

/// The provider's name.
pub const NAME: &str = "memory";

/// A view of a [`MemoryMailbox`] through the trait. Several accounts may look at one mailbox; each has handles of its
/// own, so that a swap from one to the other can be tested.
///
/// ```
/// use futures::TryStreamExt as _;
/// use mail_account::{
///     MailAccount as _, Query,
///     provider::memory::{MemoryAccount, MemoryMailbox, MemoryOptions},
/// };
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let mailbox = MemoryMailbox::new("facturen@contoso.nl");
/// let received = "2026-01-31T12:00:00Z".parse().expect("a time");
/// mailbox.deliver("Inbox", "Subject: Factuur\r\n\r\nzie bijlage\r\n", received)?;
///
/// let account = MemoryAccount::open("local", &mailbox, MemoryOptions::default());
/// let inbox = account.resolve_folder(&"Inbox".parse()?).await?;
/// let messages: Vec<_> = account.fetch_messages(&inbox.id, Query::default()).try_collect().await?;
/// assert_eq!(messages.len(), 1);
/// # Ok::<(), mail_account::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct MemoryAccount {
    session: Arc<Session>,
}

impl MemoryAccount {
    /// Opens a mailbox under the name `account`. Handles belong to that name: opened again under the same name, they
    /// are the same.
    #[must_use]
    pub fn open(account: impl Into<String>, mailbox: &MemoryMailbox, options: MemoryOptions) -> Self {
        Self { session: Arc::new(Session::new(account.into(), mailbox.clone(), options)) }
    }

    /// The mailbox behind it.
    #[must_use]
    pub fn memory(&self) -> &MemoryMailbox {
        &self.session.mailbox
    }

    /// This account's handle of a message, `None` when there is no such message.
    #[must_use]
    pub fn handle(&self, stored: StoredId) -> Option<MessageId> {
        self.session.handle_of(stored)
    }

    /// The message that a handle of this account names, `None` when it names none (any more).
    #[must_use]
    pub fn stored(&self, handle: &MessageId) -> Option<StoredId> {
        self.session.stored(handle)
    }
}

impl fmt::Debug for MemoryAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryAccount").field("mailbox", &self.session.info).finish_non_exhaustive()
    }
}

#[async_trait]
impl MailAccount for MemoryAccount {
    async fn list_folders(&self) -> Result<Vec<Folder>> {
        self.session.list_folders().await
    }

    fn fetch_messages(&self, folder: &FolderId, query: Query) -> BoxStream<'static, Result<Message>> {
        Arc::clone(&self.session).fetch_messages(folder.clone(), query)
    }

    fn download_attachment(&self, message: &MessageId, attachment: &AttachmentId) -> Content {
        Arc::clone(&self.session).download(message.clone(), attachment.clone())
    }

    async fn move_to_processed(&self, messages: &[MessageId], to: &FolderId) -> Vec<Result<MoveOutcome>> {
        self.session.move_all(messages, to).await
    }

    fn mailbox(&self) -> &MailboxInfo {
        &self.session.info
    }

    async fn resolve_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        self.session.resolve_folder(spec).await
    }

    async fn create_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        self.session.create_folder(spec).await
    }

    async fn folder_access(&self, folder: &FolderId) -> Result<Access> {
        self.session.folder_access(folder).await
    }

    async fn fetch_message(&self, message: &MessageId) -> Result<Message> {
        self.session.fetch_message(message).await
    }

    async fn mark_read(&self, messages: &[MessageId], read: bool) -> Vec<Result<()>> {
        self.session.mark_read(messages, read).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(self.session.options.move_batch, self.session.options.stable_ids)
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}
