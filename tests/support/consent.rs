//! A tenant in which people sign in, and the configuration of a host there.
#![allow(dead_code, reason = "each test program uses its part")]

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use mail_account::{
    Clock, Context, MailApp, Random,
    store::SignIn,
    testing::graph::{App, AppBuilder, GraphFake, Mailbox},
};

pub(crate) const SECRET: &str = "canary-5ecr3t~value";
pub(crate) const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A clock that can be moved.
#[derive(Debug, Default)]
pub(crate) struct Moved(Mutex<SignedDuration>);

impl Moved {
    pub(crate) fn pass(&self, time: Duration) {
        *self.0.lock().unwrap() += SignedDuration::try_from(time).unwrap();
    }
}

#[async_trait]
impl Clock for Moved {
    fn now(&self) -> Timestamp {
        Timestamp::now().checked_add(*self.0.lock().unwrap()).unwrap()
    }

    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}

/// Randomness that remembers what it gave, as it stands in links and forms.
#[derive(Default)]
pub(crate) struct Remembered(Mutex<Vec<String>>);

impl std::fmt::Debug for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remembered")
    }
}

impl Remembered {
    pub(crate) fn given(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Random for Remembered {
    fn fill(&self, bytes: &mut [u8]) {
        let (one, two) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
        let random = [*one.as_bytes(), *two.as_bytes()].concat();
        bytes.iter_mut().zip(random.iter().cycle()).for_each(|(to, from)| *to = *from);
        if bytes.len() >= 32 {
            self.0.lock().unwrap().push(base64_simd::URL_SAFE_NO_PAD.encode_to_string(&*bytes));
        }
    }
}

/// A tenant with one app and one mailbox, and a host's folder.
pub(crate) struct Site {
    pub(crate) fake: GraphFake,
    pub(crate) app: App,
    pub(crate) user: Mailbox,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) clock: Arc<Moved>,
    pub(crate) random: Arc<Remembered>,
    /// Keys of the registration beside the ids and addresses.
    pub(crate) registration: String,
    /// The sections behind the registration.
    pub(crate) accounts: String,
    pub(crate) state: String,
}

pub(crate) const INVOICES: &str = "
[accounts.invoices]
provider = \"graph\"
registration = \"contoso\"
auth = \"delegated\"
mailbox = \"facturen@contoso.nl\"
";

impl Site {
    /// A confidential app whose redirect is on loopback.
    pub(crate) async fn start() -> Self {
        Self::with(|app| app.secret(SECRET).redirect_uri("http://localhost")).await
    }

    pub(crate) async fn with(build: impl FnOnce(AppBuilder) -> AppBuilder) -> Self {
        let fake = GraphFake::start().await;
        fake.configure(|settings| settings.sign_in.demand_account_choice = true);
        let app = fake.app("Invoices").delegated_permissions([
            "Mail.ReadWrite",
            "Mail.ReadWrite.Shared",
            "User.Read",
            "IMAP.AccessAsUser.All",
        ]);
        let app = build(app).create();
        let user = fake.mailbox("facturen@contoso.nl").alias("oud@contoso.nl").create();
        Self {
            fake,
            app,
            user,
            folder: tempfile::tempdir().unwrap(),
            clock: Arc::default(),
            random: Arc::default(),
            registration: format!("client_secret = \"{SECRET}\"\nredirect_uri = \"http://localhost\"\n"),
            accounts: INVOICES.to_owned(),
            state: format!("[state]\npath = \"state.db\"\nkey = \"{KEY}\"\n"),
        }
    }

    pub(crate) fn config(&self) -> PathBuf {
        let text = format!(
            "{}\n[registrations.contoso]\ntenant = \"{}\"\nclient_id = \"{}\"\nlogin_url = \"{}\"\ngraph_url = \"{}\"\n{}\n{}",
            self.state,
            self.fake.tenant(),
            self.app.client_id(),
            self.fake.login_url(),
            self.fake.graph_url(),
            self.registration,
            self.accounts,
        );
        let path = self.folder.path().join("mail.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A host's process: nothing is shared with another but the folder.
    pub(crate) fn host(&self) -> MailApp {
        let context = Context::default().with_clock(self.clock.clone()).with_random(self.random.clone());
        MailApp::loader().with_context(context).load(self.config()).unwrap_or_else(|e| panic!("{}", e.chain()))
    }

    pub(crate) async fn stored(&self, host: &MailApp, account: &str) -> Option<SignIn> {
        let id = host.sign_in_settings(account).unwrap().expect("OAuth").id().unwrap();
        host.token_store().await.unwrap().sign_in(&id).await.unwrap()
    }
}
