//! Authorize as a person meets it: the example programs, what they print and how they end.

#![cfg(all(feature = "testing", feature = "graph", feature = "sqlite"))]

#[path = "support/consent.rs"]
mod consent;
#[path = "support/example.rs"]
mod example;

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Stdio},
};

use consent::{INVOICES, SECRET, Site};
use example::example;
use mail_account::testing::graph::Answer;

/// A program that waits for somebody. Ended when dropped.
struct Waiting {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Waiting {
    fn start(name: &str, site: &Site, arguments: &[&str]) -> Self {
        let mut command = example(name);
        command.arg("--config").arg(site.config()).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = tokio::task::block_in_place(|| self.lines.next());
        match line {
            Some(line) => line.unwrap(),
            None => panic!("no more lines: {}", self.errors()),
        }
    }

    fn errors(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// How it ended, and what it said besides.
    async fn end(mut self) -> (i32, String, String) {
        tokio::task::block_in_place(|| {
            let rest: Vec<String> = self.lines.by_ref().map(Result::unwrap).collect();
            let errors = self.errors();
            (self.child.wait().unwrap().code().expect("not killed"), rest.join("\n"), errors)
        })
    }
}

fn authorize(site: &Site, more: &[&str]) -> Waiting {
    Waiting::start("authorize", site, &[&["--account", "invoices", "--no-browser"], more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_is_a_line_and_the_end_says_who_signed_in() {
    let site = Site::start().await;
    let other = site.fake.mailbox("other@contoso.nl").create();
    for (user, code) in [(&other, 1), (&site.user, 0)] {
        let mut program = authorize(&site, &[]);
        let callback = site.fake.sign_in_as(&program.line().await, user).await;
        let page = reqwest::get(&callback).await.unwrap().text().await.unwrap();
        let (ended, stdout, stderr) = program.end().await;
        assert_eq!(ended, code, "{stdout} {stderr}");
        let told = if code == 0 { &stdout } else { &stderr };
        assert!(told.contains(user.address()) && page.contains(user.address()), "{stdout} {stderr}");
        if code == 1 {
            assert!(stderr.contains("Nothing was stored") && stderr.contains("facturen@contoso.nl"), "{stderr}");
        }
        assert!(!format!("{stdout}{stderr}").contains(SECRET));
    }
    site.host().account("invoices").unwrap().list_folders().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_code_and_an_administrators_consent() {
    let mut site = Site::with(|app| app.secret(SECRET).public_client().redirect_uri("http://localhost")).await;
    site.fake.configure(|settings| {
        settings.sign_in.people_consent = false;
        settings.sign_in.device_interval = Some(1);
    });
    let admin = site.fake.mailbox("beheer@contoso.nl").admin().create();
    let mut program = authorize(&site, &[]);
    let callback = site.fake.sign_in_as(&program.line().await, &site.user).await;
    reqwest::get(&callback).await.unwrap();
    let (ended, _, stderr) = program.end().await;
    assert!(ended == 1 && stderr.contains("/v2.0/adminconsent?"), "{ended} {stderr}");

    let mut program = authorize(&site, &["--admin-consent"]);
    let callback = site.fake.sign_in_as(&program.line().await, &admin).await;
    reqwest::get(&callback).await.unwrap();
    let (ended, stdout, stderr) = program.end().await;
    assert!(ended == 0 && stdout.contains("consent"), "{ended} {stdout} {stderr}");

    let mut program = authorize(&site, &["--device-code"]);
    let page = program.line().await;
    assert!(page.starts_with("http"), "{page}");
    let code = program.line().await;
    site.fake.answer_device_code(&code, &site.user, Answer::Accept).await;
    let (ended, stdout, stderr) = program.end().await;
    assert!(ended == 0 && stdout.contains("facturen@contoso.nl"), "{ended} {stdout} {stderr}");

    // Nothing to authorize, and nothing that could be stored.
    site.accounts = INVOICES.replace("delegated", "app");
    let (ended, _, stderr) = authorize(&site, &[]).end().await;
    assert!(ended == 2 && stderr.contains("nobody signs in for this account"), "{ended} {stderr}");
    site.accounts = INVOICES.to_owned();
    site.state = "[state]\npath = \"state.db\"\n".to_owned();
    let (ended, stdout, stderr) = authorize(&site, &[]).end().await;
    assert!(ended == 2 && stdout.is_empty() && stderr.contains("key"), "{ended} {stdout} {stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_the_web_takes_the_answer() {
    let mut site = Site::with(|app| app.secret(SECRET).redirect_uri("http://localhost/callback")).await;
    let other = site.fake.mailbox("other@contoso.nl").create();
    site.registration = format!("client_secret = \"{SECRET}\"\n");
    site.accounts.push_str(
        &INVOICES
            .replace("invoices", "<b> two")
            .replace("[accounts.<b> two]", "[accounts.\"<b> two\"]")
            .replace("facturen@", "other@"),
    );
    let mut program = Waiting::start("web_callback", &site, &["--port", "0"]);
    let root = program.line().await;
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let get = async |url: &str| client.get(url).send().await.unwrap();

    let list = get(&root).await.text().await.unwrap();
    assert!(list.contains("/authorize/invoices") && list.contains("&lt;b&gt; two") && !list.contains("<b>"), "{list}");
    let begin = async |account: &str| {
        let answer = get(&format!("{root}authorize/{account}")).await;
        answer.headers()["location"].to_str().unwrap().to_owned()
    };
    // Two on their way at once, answered in the other order.
    let mut browser = site.fake.browser();
    let links = [begin("invoices").await, begin("%3Cb%3E%20two").await];
    let second = browser.sign_in(&links[1], &other).await;
    let first = browser.sign_in(&links[0], &site.user).await;
    for (callback, says) in [
        (&second, "other@contoso.nl has signed in"),
        (&first, "facturen@contoso.nl has signed in"),
        (&first, "was used already"),
        (&format!("{root}callback?code=x&state=y"), "was not begun here"),
    ] {
        let page = get(callback).await.text().await.unwrap();
        assert!(page.contains(says), "{page}");
    }
    let host = site.host();
    for account in ["invoices", "<b> two"] {
        host.account(account).unwrap().list_folders().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_waits_for_the_host_whose_page_takes_the_answer() {
    let web = "https://host.example/callback";
    let mut site = Site::with(|app| app.secret(SECRET).redirect_uri(web)).await;
    site.registration = format!("client_secret = \"{SECRET}\"\nredirect_uri = \"{web}\"\n");
    let mut program = authorize(&site, &[]);
    let callback = site.fake.sign_in_as(&program.line().await, &site.user).await;
    assert!(site.host().complete_sign_in(&callback).await.unwrap().is_ok());
    let (ended, stdout, stderr) = program.end().await;
    assert!(ended == 0 && stdout.contains("facturen@contoso.nl") && stderr.contains(web), "{ended} {stdout} {stderr}");
}
