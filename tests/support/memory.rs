//! The memory account, as three kinds of service.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use mail_account::{
    Error, ErrorKind, FolderSpec, MailAccount, Result,
    provider::memory::{MemoryAccount, MemoryMailbox, MemoryOptions, StoredId},
    testing::conformance::{Harness, Need, Seen},
};
use mail_parser::MessageParser;

pub(crate) struct MemoryHarness {
    mailbox: MemoryMailbox,
    options: MemoryOptions,
}

impl MemoryHarness {
    pub(crate) fn new() -> Self {
        Self { mailbox: MemoryMailbox::new("facturen@contoso.nl"), options: MemoryOptions::default() }
    }

    /// As on Graph, with Dutch folder names.
    pub(crate) fn with_stable_ids() -> Self {
        let options = MemoryOptions::default().with_stable_ids(true).with_move_batch(20);
        Self { mailbox: MemoryMailbox::dutch("facturen@contoso.nl"), options }
    }

    /// An IMAP server without MOVE and UIDPLUS.
    pub(crate) fn that_only_copies() -> Self {
        let options = MemoryOptions::default().with_copy_only(true);
        Self { mailbox: MemoryMailbox::new("facturen@contoso.nl"), options }
    }

    fn find(&self, folder: &FolderSpec, internet_message_id: &str) -> Result<StoredId> {
        let here = self.mailbox.contents(&folder.to_string())?;
        let found = here.iter().find(|m| !m.deleted && message_id(&m.raw).as_deref() == Some(internet_message_id));
        found.map(|m| m.id).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("`{folder}` has no message `{internet_message_id}`"))
        })
    }
}

/// Read by another parser than the account's.
fn message_id(raw: &[u8]) -> Option<String> {
    MessageParser::default().parse_headers(raw)?.message_id().map(|id| format!("<{id}>"))
}

#[async_trait]
impl Harness for MemoryHarness {
    async fn open(&self) -> Result<Arc<dyn MailAccount>> {
        Ok(Arc::new(MemoryAccount::open("check", &self.mailbox, self.options.clone())))
    }

    async fn deliver(&self, folder: &FolderSpec, raw: Bytes, received: Timestamp) -> Result<()> {
        self.mailbox.deliver(&folder.to_string(), raw, received).map(drop)
    }

    async fn delete_folder(&self, folder: &FolderSpec) -> Result<()> {
        self.mailbox.delete_folder(&folder.to_string())
    }

    fn lacks(&self, need: Need) -> Option<String> {
        match need {
            Need::Links => Some("files and links to them are a matter of Graph".to_owned()),
            _ => None,
        }
    }

    async fn look(&self, folder: &FolderSpec) -> Result<Vec<Seen>> {
        let here = self.mailbox.contents(&folder.to_string())?;
        Ok(here.iter().filter(|m| !m.deleted).map(|m| Seen::new(message_id(&m.raw), m.read)).collect())
    }

    async fn delete(&self, folder: &FolderSpec, internet_message_id: &str) -> Result<()> {
        self.mailbox.delete(self.find(folder, internet_message_id)?);
        Ok(())
    }

    async fn relocate(&self, folder: &FolderSpec, internet_message_id: &str, to: &FolderSpec) -> Result<()> {
        self.mailbox.move_by_person(self.find(folder, internet_message_id)?, &to.to_string()).map(drop)
    }

    async fn mark(&self, folder: &FolderSpec, internet_message_id: &str, read: bool) -> Result<()> {
        self.mailbox.mark(self.find(folder, internet_message_id)?, read);
        Ok(())
    }

    async fn deliver_unreadable(&self, folder: &FolderSpec, raw: Bytes, received: Timestamp) -> Result<()> {
        self.mailbox.deliver_unreadable(&folder.to_string(), raw, received).map(drop)
    }
}
