//! The Graph account, on the fake of this crate.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use mail_account::{
    Context, Error, ErrorKind, FolderSpec, MailAccount, Result,
    auth::Auth,
    provider::{
        Opening,
        graph::{GraphAccount, GraphConfig},
    },
    testing::conformance::{Harness, Need, Seen},
};

use super::tenant::Tenant;

/// For the conformance list: the fake outlives the runtimes of the single checks.
pub(crate) struct GraphHarness {
    tenant: Tenant,
    _runtime: tokio::runtime::Runtime,
}

impl GraphHarness {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime for the fake");
        Self { tenant: runtime.block_on(Tenant::start()), _runtime: runtime }
    }

    fn find(&self, folder: &FolderSpec, internet_message_id: &str) -> Result<String> {
        let here = self.tenant.mailbox.messages(&folder.to_string());
        let found = here.into_iter().find(|m| m.internet_message_id.as_deref() == Some(internet_message_id));
        found.map(|m| m.id).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("`{folder}` has no message `{internet_message_id}`"))
        })
    }
}

#[async_trait]
impl Harness for GraphHarness {
    async fn open(&self) -> Result<Arc<dyn MailAccount>> {
        // Connections belong to the runtime that made them, and each check has its own.
        let opening = Opening::new("check").with_context(Context::default());
        let config = GraphConfig::new(self.tenant.registration(), Auth::App, self.tenant.mailbox.address());
        Ok(Arc::new(GraphAccount::open(&config, opening)?))
    }

    async fn deliver(&self, folder: &FolderSpec, raw: Bytes, received: Timestamp) -> Result<()> {
        self.tenant.mailbox.deliver_at(&folder.to_string(), raw, received);
        Ok(())
    }

    async fn delete_folder(&self, folder: &FolderSpec) -> Result<()> {
        self.tenant.mailbox.remove_folder(&folder.to_string());
        Ok(())
    }

    fn lacks(&self, need: Need) -> Option<String> {
        match need {
            Need::ExactBytes => Some("Exchange renders messages anew".to_owned()),
            Need::MissingMessageId => Some("Exchange makes up a Message-ID".to_owned()),
            Need::Links => Some("Graph v1.0 does not tell where a link leads".to_owned()),
            Need::Unreadable => Some("the fake has no message it cannot show".to_owned()),
            _ => None,
        }
    }

    async fn look(&self, folder: &FolderSpec) -> Result<Vec<Seen>> {
        let here = self.tenant.mailbox.messages(&folder.to_string());
        Ok(here.into_iter().map(|m| Seen::new(m.internet_message_id, m.is_read)).collect())
    }

    async fn delete(&self, folder: &FolderSpec, internet_message_id: &str) -> Result<()> {
        self.tenant.mailbox.delete_message(&self.find(folder, internet_message_id)?);
        Ok(())
    }

    async fn relocate(&self, folder: &FolderSpec, internet_message_id: &str, to: &FolderSpec) -> Result<()> {
        self.tenant.mailbox.move_message(&self.find(folder, internet_message_id)?, &to.to_string());
        Ok(())
    }

    async fn mark(&self, folder: &FolderSpec, internet_message_id: &str, read: bool) -> Result<()> {
        self.tenant.mailbox.set_read(&self.find(folder, internet_message_id)?, read);
        Ok(())
    }
}
