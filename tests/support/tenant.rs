//! A tenant on the Graph fake, with one app and one mailbox.
#![allow(dead_code, reason = "each test program uses its part")]

use std::time::Duration;

use futures::TryStreamExt as _;
use mail_account::{
    Content, Context, FolderId, FolderSpec, ImportJob, MailAccount as _, Message, Patience, Query, Role, Secret,
    SecretSource,
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
        self.open_in(&self.context, mailbox)
    }

    /// With another clock, or connections of another runtime.
    pub(crate) fn open_in(&self, context: &Context, mailbox: &str) -> GraphAccount {
        let config = GraphConfig::new(self.registration(), Auth::App, mailbox);
        let opening = self.opening().with_context(context.clone());
        GraphAccount::open(&config, opening).expect("the configuration is right")
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

pub(crate) const INBOX: FolderSpec = FolderSpec::Role(Role::Inbox);

pub(crate) async fn inbox(account: &GraphAccount) -> FolderId {
    account.resolve_folder(&INBOX).await.expect("there is an inbox").id
}

pub(crate) async fn list(account: &GraphAccount, query: Query) -> Vec<Message> {
    let inbox = inbox(account).await;
    account.fetch_messages(&inbox, query).try_collect().await.unwrap_or_else(|e| panic!("{}", e.chain()))
}

pub(crate) async fn bytes(content: Content) -> Vec<u8> {
    content.bytes(usize::MAX).await.unwrap_or_else(|e| panic!("{}", e.chain())).to_vec()
}

pub(crate) fn mime(subject: &str, attachments: &[(&str, &[u8])]) -> String {
    let mut mime = format!(
        "From: A <a@b.example>\r\nTo: facturen@contoso.nl\r\nSubject: {subject}\r\nDate: Sat, 31 Jan 2026 10:00:00 +0000\r\n\
         Message-ID: <{subject}@b.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\n\
         --b\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
    );
    for (name, bytes) in attachments {
        mime.push_str(&format!(
            "--b\r\nContent-Type: application/pdf; name=\"{name}\"\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n{}\r\n",
            base64_simd::STANDARD.encode_to_string(bytes)
        ));
    }
    mime + "--b--\r\n"
}

pub(crate) fn noise(length: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Waits short enough for tests.
pub(crate) fn impatient() -> Context {
    let mut patience = Patience::default();
    patience.silence = Duration::from_millis(700);
    patience.first_wait = Duration::from_millis(5);
    patience.longest_wait = Duration::from_millis(100);
    Context::default().with_patience(patience)
}

pub(crate) fn job() -> ImportJob {
    ImportJob::new("invoices", INBOX)
        .with_processed_folder("Inbox/Processed".parse().expect("a path"))
        .with_create_folders(true)
}
