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

/// What Exchange Online makes of a token for IMAP: the mailbox that it opens. An app's opens `mailbox`, which its service
/// principal was given; a person's opens his own. Signatures are the sign-in service's business, and not checked.
pub(crate) fn exchange(fake: &GraphFake, mailbox: &str) -> impl Fn(&str) -> Option<String> + Send + Sync + use<> {
    let (fake, mailbox) = (fake.clone(), mailbox.to_owned());
    move |token| {
        let payload = token.split('.').nth(1)?;
        let payload = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(payload).ok()?;
        let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
        let text = |name: &str| claims.get(name).and_then(serde_json::Value::as_str);
        let ours = text("aud")?.starts_with("https://outlook.office");
        if !ours || claims.get("exp")?.as_i64()? <= fake.now().as_second() {
            return None;
        }
        if text("idtyp") == Some("app") {
            let roles = claims.get("roles")?.as_array()?;
            return roles.iter().any(|role| role == "IMAP.AccessAsApp").then(|| mailbox.clone());
        }
        let scopes = text("scp")?;
        let may = scopes.split(' ').any(|scope| scope == "IMAP.AccessAsUser.All");
        may.then(|| text("upn").or_else(|| text("preferred_username")).map(str::to_owned)).flatten()
    }
}
