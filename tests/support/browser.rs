//! Debian's Chromium, without a screen, driven through ChromeDriver ("WebDriver", W3C): the few calls that clicking
//! through a sign-in needs.
//!
//! Each [`Browser`] has a profile of its own in a temporary folder. Everything is stopped, and the folder removed, when
//! the value is dropped.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// The key of an element's id in every answer ("Elements").
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const PATIENCE: Duration = Duration::from_secs(30);

/// A running browser with one window.
pub(crate) struct Browser {
    driver: Child,
    session: String,
    http: reqwest::Client,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// # Panics
    ///
    /// Without Chromium or ChromeDriver: the test cannot be done, and must not seem to have been.
    pub(crate) async fn start() -> Self {
        let chromium = Path::new("/usr/bin/chromium");
        assert!(chromium.exists(), "these tests need Debian's chromium and chromium-driver: run `./tasks.sh setup`");
        let profile = tempfile::Builder::new().prefix("chromium-").tempdir().expect("a folder for the profile");
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // A group of its own, in which Chromium's processes stay: they are ended together.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut driver = command.spawn().expect("chromedriver starts: run `./tasks.sh setup`");
        let mut lines = BufReader::new(driver.stdout.take().expect("it is piped")).lines();
        let port = loop {
            let line = lines.next().and_then(Result::ok).expect("chromedriver tells its port");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        // What it says later is read and dropped, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let arguments = [
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-quic".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        let options = json!({"binary": chromium, "args": arguments});
        let capabilities = json!({"alwaysMatch": {"goog:chromeOptions": options}});
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(120)).build();
        let mut browser = Browser {
            driver,
            session: format!("http://127.0.0.1:{port}/session"),
            http: http.expect("a client for chromedriver"),
            _profile: profile,
        };
        let created = browser.call("POST", "", &json!({"capabilities": capabilities})).await.expect("Chromium starts");
        let id = created["sessionId"].as_str().expect("a session has an id").to_owned();
        browser.session = format!("{}/{id}", browser.session);
        browser
    }

    /// One WebDriver call; the error is its code and message.
    async fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}{path}", self.session);
        let request = match method {
            "GET" => self.http.get(url),
            _ => self.http.post(url).json(body),
        };
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let good = answer.status().is_success();
        let answer: Value = answer.json().await.map_err(|error| error.to_string())?;
        let value = answer["value"].clone();
        if good { Ok(value) } else { Err(format!("{}: {}", value["error"], value["message"])) }
    }

    async fn get(&self, path: &str) -> Result<Value, String> {
        self.call("GET", path, &Value::Null).await
    }

    /// Goes to an address.
    pub(crate) async fn open(&self, url: &str) {
        self.call("POST", "/url", &json!({"url": url})).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// The address that is shown.
    pub(crate) async fn url(&self) -> String {
        self.get("/url").await.ok().and_then(|url| url.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// The text that is shown.
    pub(crate) async fn text(&self) -> String {
        match self.find("body").await {
            Ok(body) => {
                self.get(&format!("/element/{body}/text")).await.ok().and_then(|t| t.as_str().map(str::to_owned))
            }
            Err(_) => None,
        }
        .unwrap_or_default()
    }

    async fn find(&self, css: &str) -> Result<String, String> {
        let found = self.call("POST", "/element", &json!({"using": "css selector", "value": css})).await?;
        found[ELEMENT].as_str().map(str::to_owned).ok_or_else(|| format!("no element in {found}"))
    }

    /// Whether the page has such an element now.
    pub(crate) async fn has(&self, css: &str) -> bool {
        self.find(css).await.is_ok()
    }

    /// Waits until something holds of what is shown.
    pub(crate) async fn wait_for(&self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self).await {
            if Instant::now() > end {
                panic!("waited for {what}; shown is {}:\n{}", self.url().await, self.text().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for a page of the fake's login site, by its `data-page`.
    pub(crate) async fn wait_for_page(&self, kind: &str) {
        let css = format!("body[data-page={kind}]");
        self.wait_for(&format!("the page `{kind}`"), async |browser| browser.has(&css).await).await;
    }

    /// Clicks the element, once it is there.
    pub(crate) async fn click(&self, css: &str) {
        self.wait_for(css, async |browser| browser.has(css).await).await;
        let element = self.find(css).await.expect("it was there");
        let clicked = self.call("POST", &format!("/element/{element}/click"), &json!({})).await;
        clicked.unwrap_or_else(|error| panic!("{css}: {error}"));
    }

    /// Puts this text into a field, in place of what is there.
    pub(crate) async fn fill(&self, css: &str, text: &str) {
        self.wait_for(css, async |browser| browser.has(css).await).await;
        let element = self.find(css).await.expect("it was there");
        self.call("POST", &format!("/element/{element}/clear"), &json!({})).await.expect("a field can be cleared");
        let typed = self.call("POST", &format!("/element/{element}/value"), &json!({"text": text})).await;
        typed.unwrap_or_else(|error| panic!("{css}: {error}"));
    }

    /// What stands in a field.
    pub(crate) async fn filled(&self, css: &str) -> String {
        let element = self.find(css).await.unwrap_or_else(|error| panic!("{css}: {error}"));
        let value = self.get(&format!("/element/{element}/property/value")).await.unwrap_or_default();
        value.as_str().unwrap_or_default().to_owned()
    }

    /// At the fake's account list: picks this account, which must be listed.
    pub(crate) async fn pick(&self, sign_in_name: &str) {
        self.wait_for_page("accounts").await;
        self.click(&format!("button[name=account][value=\"{sign_in_name}\"]")).await;
    }

    /// At the fake's pages: signs in as someone who may not be listed.
    pub(crate) async fn sign_in_other(&self, sign_in_name: &str, password: &str) {
        if self.has("button[name=other]").await {
            self.click("button[name=other]").await;
        }
        self.wait_for_page("username").await;
        self.fill("input[name=username]", sign_in_name).await;
        self.click("button[name=next]").await;
        self.wait_for_page("password").await;
        self.fill("input[name=password]", password).await;
        self.click("button[name=next]").await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium would outlive its driver. The minus makes it the group.
        let group = format!("-{}", self.driver.id());
        let ended = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        if ended.is_err() {
            let _ = self.driver.kill();
        }
        let _ = self.driver.wait();
    }
}
