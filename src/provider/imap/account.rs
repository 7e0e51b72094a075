//! [`ImapAccount`], which only forwards.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, stream::BoxStream};

use super::{
    NAME, download, folders,
    handle::{Handle, PartId},
    listing::{self, Listing},
    moves,
    pool::{Credentials, Shared},
    whole,
};
use crate::{
    Access, AttachmentId, Capabilities, Content, Folder, FolderId, FolderSpec, MailAccount, MailboxInfo, Message,
    MessageId, MoveOutcome, Query, Result, Usage,
    auth::Claims,
    provider::insight::{Facts, Insight},
};

/// A mailbox on an IMAP server. Made by [`ImapConfig::account`](super::ImapConfig::account), or from a configuration.
///
/// A clone shares connections, of which there are at most two, caches and limits.
#[derive(Clone, Debug)]
pub struct ImapAccount {
    shared: Arc<Shared>,
}

impl ImapAccount {
    pub(crate) const CONNECTIONS: usize = 2;

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Signs out on all connections that nobody uses. The account can be used again, and connects then.
    pub async fn close(&self) {
        self.shared.close().await;
    }
}

#[async_trait]
impl MailAccount for ImapAccount {
    async fn list_folders(&self) -> Result<Vec<Folder>> {
        let tree = folders::list(&self.shared).await.map_err(|e| self.shared.place(e, "list_folders"))?;
        Ok(tree.folders)
    }

    fn fetch_messages(&self, folder: &FolderId, query: Query) -> BoxStream<'static, Result<Message>> {
        Listing::new(&self.shared, folder, query).boxed()
    }

    fn download_attachment(&self, message: &MessageId, attachment: &AttachmentId) -> Content {
        let handle = match Handle::parse(message) {
            Ok(handle) => handle,
            Err(error) => return Content::refused(self.shared.place(error, "download_attachment")),
        };
        if attachment.is_raw() {
            return Content::from_stream(download::Section::new(&self.shared, handle, ""));
        }
        match PartId::parse(attachment) {
            Some(part) => download::part(&self.shared, handle, part),
            None => whole::attachment(&self.shared, handle, attachment),
        }
    }

    async fn move_to_processed(&self, messages: &[MessageId], to: &FolderId) -> Vec<Result<MoveOutcome>> {
        moves::move_all(&self.shared, messages, to).await
    }

    fn mailbox(&self) -> &MailboxInfo {
        &self.shared.settings.info
    }

    async fn resolve_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        folders::find(&self.shared, spec).await.map_err(|e| self.shared.place(e, "resolve_folder"))
    }

    async fn create_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        folders::create(&self.shared, spec).await.map_err(|e| self.shared.place(e, "create_folder"))
    }

    async fn folder_access(&self, folder: &FolderId) -> Result<Access> {
        folders::access(&self.shared, folder).await.map_err(|e| self.shared.place(e, "folder_access"))
    }

    async fn fetch_message(&self, message: &MessageId) -> Result<Message> {
        listing::fetch_message(&self.shared, message).await.map_err(|e| self.shared.place(e, "fetch_message"))
    }

    async fn mark_read(&self, messages: &[MessageId], read: bool) -> Vec<Result<()>> {
        moves::mark_read(&self.shared, messages, read).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(moves::BATCH, false)
    }

    fn usage(&self) -> Usage {
        self.shared.counters.usage()
    }
}

impl std::fmt::Display for ImapAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{NAME}:{}", self.shared.settings.info.name)
    }
}

#[async_trait]
impl Insight for ImapAccount {
    fn facts(&self) -> Facts {
        self.shared.settings.facts.clone()
    }

    async fn claims(&self) -> Result<Option<Claims>> {
        match &self.shared.settings.credentials {
            Credentials::Tokens(tokens) => {
                Ok(Claims::of(&tokens.token().await.map_err(|e| self.shared.place(e, "sign_in"))?))
            }
            Credentials::Password(..) => Ok(None),
        }
    }

    async fn access(&self, folder: &FolderId, target: bool) -> Result<Access> {
        folders::rights(&self.shared, folder, target).await.map_err(|e| self.shared.place(e, "folder_access"))
    }
}
