//! Authorize as people do it: the example runs as a process, its link is opened in a real browser, and the import example
//! runs from then on.

#![cfg(all(feature = "testing", feature = "graph", feature = "sqlite"))]

#[path = "support/browser.rs"]
mod browser;
#[path = "support/example.rs"]
mod example;

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use browser::Browser;
use example::example;
use mail_account::{
    MailApp,
    store::SignIn,
    testing::graph::{GraphFake, Mailbox},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// Far more than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host: a configuration, and whatever its runs leave beside it.
struct Host {
    folder: TempDir,
}

impl Host {
    fn new(registration: &str, sections: &str) -> Self {
        let host = Self { folder: tempfile::tempdir().unwrap() };
        let text = format!(
            "[state]\npath = \"state.db\"\nkey = \"{KEY}\"\n\n[registrations.contoso]\n{registration}redirect_uri = \"http://localhost\"\n{sections}"
        );
        fs::write(host.config(), text).unwrap();
        host
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("mail.toml")
    }

    fn example(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::from(example(name));
        command.arg("--config").arg(self.config()).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Starts Authorize for an account; the link that it prints.
    async fn authorize(&self, account: &str) -> (Running, String) {
        let mut running = Running::start(self.example("authorize", &["--account", account, "--no-browser"]));
        let link = running.line().await;
        assert!(link.starts_with("http://127.0.0.1:"), "{link}");
        (running, link)
    }

    async fn stored(&self, account: &str) -> Option<SignIn> {
        let app = MailApp::load(self.config()).unwrap();
        let id = app.sign_in_settings(account).unwrap().expect("it signs in with OAuth").id().unwrap();
        app.token_store().await.unwrap().sign_in(&id).await.unwrap()
    }
}

/// A program that says something and goes on.
struct Running {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said }
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.said.next_line()).await.expect("it says something in time");
        match line.unwrap() {
            Some(line) => line,
            None => panic!("it ended: {}", self.complaint().await),
        }
    }

    async fn complaint(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.as_mut().unwrap().read_to_string(&mut text).await.unwrap();
        text
    }

    /// Exit code, and all that it said on both sides.
    async fn ended(mut self) -> (i32, String) {
        let mut text = String::new();
        while let Some(line) = self.said.next_line().await.unwrap() {
            text = text + &line + "\n";
        }
        text.push_str(&self.complaint().await);
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").unwrap();
        (status.code().expect("not killed"), text)
    }
}

/// Waits for the page on this machine with which a sign-in ends; its text.
async fn end_page(browser: &Browser) -> String {
    browser.wait_for("the end of the sign-in", async |b| b.url().await.starts_with("http://localhost:")).await;
    browser.text().await
}

#[tokio::test]
async fn somebody_signs_in_with_a_browser_and_the_import_runs() {
    let mut command = Command::from(example("graph_fake"));
    command.args(["--seed", "3", "--attachments", "1", "--attachment-size", "1000"]).stdin(Stdio::null());
    command.kill_on_drop(true);
    let mut fake = Running::start(command);
    let fake_says: Value = serde_json::from_str(&fake.line().await).unwrap();
    let says = |name: &str| fake_says[name].as_str().unwrap().to_owned();
    let user = &fake_says["users"][0];
    let (address, password) = (user["address"].as_str().unwrap(), user["password"].as_str().unwrap());
    let registration: String = ["tenant", "client_id", "client_secret", "login_url", "graph_url"]
        .iter()
        .map(|name| format!("{name} = \"{}\"\n", says(name)))
        .collect();
    let host = Host::new(
        &registration,
        &format!(
            "\n[accounts.invoices]\nprovider = \"graph\"\nregistration = \"contoso\"\nauth = \"delegated\"\nmailbox = \"{address}\"\n\n\
             [jobs.emailed]\naccounts = [\"invoices\"]\nimport_folder = \"Inbox\"\nprocessed_folder = \"Inbox/Processed\"\ncreate_folders = true\n"
        ),
    );

    let (running, link) = host.authorize("invoices").await;
    let browser = Browser::start().await;
    browser.open(&link).await;
    browser.wait_for_page("username").await;
    assert_eq!(browser.filled("input[name=username]").await, address, "the hint");
    browser.sign_in_other(address, password).await;
    browser.wait_for_page("consent").await;
    assert!(host.stored("invoices").await.is_none(), "not before somebody consented");
    browser.click("button[name=consent][value=accept]").await;
    let page = end_page(&browser).await;
    let works = format!("The account `invoices` works. {address} has signed in.");
    assert!(page.contains(&works) && page.contains("Aangemeld"), "{page}");
    let (code, said) = running.ended().await;
    assert!(code == 0 && said.contains(&works), "{code}: {said}");
    assert!(host.stored("invoices").await.is_some());
    let file = fs::read(host.folder.path().join("state.db")).unwrap();
    assert!(!file.windows(8).any(|bytes| bytes == b"1.Afake."), "the refresh token is sealed");

    let ended = host.example("import", &["--job", "emailed", "--json"]).output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{said}");
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let account = &report["accounts"][0];
    assert_eq!((account["imported"].as_u64(), account["attachments"].as_u64()), (Some(3), Some(3)), "{report}");
}

#[tokio::test]
async fn whoever_picks_another_account_is_refused_by_name() {
    const SECRET: &str = "canary-5ecr3t~value";
    let fake = GraphFake::start().await;
    fake.configure(|settings| settings.sign_in.demand_account_choice = true);
    let app = fake
        .app("Invoices")
        .secret(SECRET)
        .redirect_uri("http://localhost")
        .delegated_permissions(["Mail.ReadWrite", "User.Read"])
        .consented()
        .create();
    let admin = fake.mailbox("beheer@contoso.nl").admin().create();
    let boxes: Vec<Mailbox> = ["een", "twee"]
        .iter()
        .map(|name| fake.mailbox(&format!("{name}@contoso.nl")).full_access(admin.address()).create())
        .collect();
    let registration = format!(
        "tenant = \"{}\"\nclient_id = \"{}\"\nclient_secret = \"{SECRET}\"\nlogin_url = \"{}\"\ngraph_url = \"{}\"\n",
        fake.tenant(),
        app.client_id(),
        fake.login_url(),
        fake.graph_url()
    );
    let accounts: String = boxes
        .iter()
        .enumerate()
        .map(|(n, mailbox)| {
            format!(
                "\n[accounts.box-{n}]\nprovider = \"graph\"\nregistration = \"contoso\"\nauth = \"delegated\"\nmailbox = \"{}\"\n",
                mailbox.address()
            )
        })
        .collect();
    let host = Host::new(&registration, &accounts);
    let browser = Browser::start().await;

    // The administrator was at work here: a live session from the start, with access to every mailbox.
    let (running, link) = host.authorize("box-0").await;
    browser.open(&link).await;
    browser.sign_in_other(admin.address(), &admin.password()).await;
    refused(&host, &browser, running, "box-0", &admin, &boxes[0]).await;

    for (n, mailbox) in boxes.iter().enumerate() {
        let account = format!("box-{n}");
        // Somebody else's session is alive each time, and is picked by mistake.
        let wrong = n.checked_sub(1).map(|before| &boxes[before]);
        if let Some(wrong) = wrong {
            let (running, link) = host.authorize(&account).await;
            browser.open(&link).await;
            browser.pick(wrong.address()).await;
            refused(&host, &browser, running, &account, wrong, mailbox).await;
        }
        let (running, link) = host.authorize(&account).await;
        browser.open(&link).await;
        browser.wait_for_page("accounts").await;
        assert!(browser.text().await.contains(&format!("{} Signed in", admin.address())));
        browser.sign_in_other(mailbox.address(), &mailbox.password()).await;
        let page = end_page(&browser).await;
        assert!(page.contains(&format!("The account `{account}` works.")), "{page}");
        let (code, said) = running.ended().await;
        assert_eq!(code, 0, "{said}");
        let stored = host.stored(&account).await.expect("it is stored");
        assert_eq!((stored.signer.name.as_str(), stored.signer.id), (mailbox.address(), mailbox.id()));
    }
    // Each sign-in opens its own mailbox, and none of them another's.
    let host_app = MailApp::load(host.config()).unwrap();
    for n in 0..boxes.len() {
        host_app.account(&format!("box-{n}")).unwrap().list_folders().await.unwrap();
    }
}

/// The sign-in ends with both names on the page and in the program, and nothing is stored.
async fn refused(
    host: &Host,
    browser: &Browser,
    running: Running,
    account: &str,
    signed_in: &Mailbox,
    expected: &Mailbox,
) {
    let page = end_page(browser).await;
    let (code, said) = running.ended().await;
    let names =
        format!("{} has signed in, but the account `{account}` is for {}.", signed_in.address(), expected.address());
    assert!(page.contains(&names), "{page}");
    assert!(code == 1 && said.contains(&names) && said.contains("Nothing was stored."), "{code}: {said}");
    assert!(host.stored(account).await.is_none());
}
