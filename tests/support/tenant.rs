//! A tenant on the Graph fake, with one app and one mailbox.
#![allow(dead_code, reason = "each test program uses its part")]

use mail_account::{
    Context, Secret, SecretSource,
    auth::{Auth, Registration},
    provider::{
        Opening,
        graph::{GraphAccount, GraphConfig},
    },
    testing::graph::{App, GraphFake, Language, Mailbox},
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
