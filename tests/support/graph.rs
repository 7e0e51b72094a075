//! The Graph account, on the fake of this crate.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use mail_account::{
    Context, Error, ErrorKind, FolderSpec, MailAccount, Result, Secret, SecretSource,
    auth::{Auth, Registration},
    provider::{
        Opening,
        graph::{GraphAccount, GraphConfig},
    },
    testing::{
        conformance::{Harness, Need, Seen},
        graph::{App, GraphFake, Language, Mailbox},
    },
};

pub(crate) const SECRET: &str = "canary-5ecr3t~value";

/// A tenant with one app and one mailbox.
pub(crate) struct Tenant {
    pub(crate) fake: GraphFake,
    pub(crate) app: App,
    pub(crate) mailbox: Mailbox,
    pub(crate) context: Context,
}

impl Tenant {
    pub(crate) async fn start() -> Self {
        let fake = GraphFake::start().await;
        let app = fake.app("invoices").secret(SECRET).permissions(["Mail.ReadWrite"]).create();
        let mailbox = fake.mailbox("facturen@contoso.nl").language(Language::Dutch).create();
        Self { fake, app, mailbox, context: Context::default() }
    }

    pub(crate) fn registration(&self) -> Registration {
        let mut app = Registration::default();
        app.tenant = Some(self.fake.tenant());
        app.client_id = Some(self.app.client_id());
        app.client_secret = Some(SecretSource::Literal(Secret::new(SECRET)));
        app.login_url = Some(self.fake.login_url());
        app.graph_url = Some(self.fake.graph_url());
        app
    }

    pub(crate) fn opening(&self) -> Opening {
        Opening::new("invoices-graph").with_context(self.context.clone())
    }

    pub(crate) fn open_as(&self, mailbox: &str) -> GraphAccount {
        let config = GraphConfig::new(self.registration(), Auth::App, mailbox);
        GraphAccount::open(&config, self.opening()).expect("the configuration is right")
    }

    pub(crate) fn open(&self) -> GraphAccount {
        self.open_as(self.mailbox.address())
    }
}

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
