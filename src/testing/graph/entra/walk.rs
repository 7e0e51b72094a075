//! A person at the pages, without a browser: plain HTTP, a cookie, and what stands in the forms.

use super::super::proxy::Wire;
use super::super::tenant::Mailbox;
use super::super::{GraphFake, Shared};
use super::authorize::encoded;
use std::fmt;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// What a person says to a device that asks to sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Signs in, and consents where that is asked.
    Accept,
    /// Cancels.
    Decline,
}

/// A browser without a screen: it keeps the sessions of everyone who signs in with it.
///
/// It does what people do on the fake's pages and never calls the application: the address to which the login site
/// sends it is returned.
///
/// ```
/// use mail_account::testing::graph::GraphFake;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let fake = GraphFake::start().await;
/// let app = fake
///     .app("invoices")
///     .secret("s3cret")
///     .redirect_uri("https://host.example/callback")
///     .delegated_permissions(["Mail.ReadWrite", "User.Read"])
///     .create();
/// let user = fake.mailbox("facturen@contoso.nl").create();
///
/// // Your code makes such a link; the verifier of this challenge is kept for the redemption.
/// let link = format!(
///     "{}/{}/oauth2/v2.0/authorize?client_id={}&response_type=code&redirect_uri=https%3A%2F%2Fhost.example%2Fcallback\
///      &scope=openid+offline_access+Mail.ReadWrite&state=s1&prompt=select_account\
///      &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256",
///     fake.login_url(), fake.tenant(), app.client_id(),
/// );
/// let callback = fake.sign_in_as(&link, &user).await;
/// assert!(callback.starts_with("https://host.example/callback?code="));
/// assert!(callback.contains("&state=s1&"));
/// # }
/// ```
pub struct FakeBrowser {
    shared: Arc<Shared>,
    login: String,
    cookie: Option<String>,
}

impl fmt::Debug for FakeBrowser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeBrowser").field("has_cookie", &self.cookie.is_some()).finish_non_exhaustive()
    }
}

/// One answer of the login site.
struct Page {
    status: u16,
    location: Option<String>,
    html: String,
}

impl Page {
    fn between<'a>(&'a self, start: &str, end: &str) -> Option<&'a str> {
        let rest = self.html.split_once(start)?.1;
        rest.split_once(end).map(|(found, _)| found)
    }

    fn kind(&self) -> &str {
        self.between("data-page=\"", "\"").unwrap_or_default()
    }

    fn flow(&self) -> String {
        self.between("name=\"flow\" value=\"", "\"").unwrap_or_default().to_owned()
    }

    fn complaint(&self) -> &str {
        self.between("role=\"alert\"", "</p>").and_then(|text| text.split_once('>')).map_or("", |(_, text)| text)
    }
}

impl GraphFake {
    /// A browser in which nobody has signed in.
    pub fn browser(&self) -> FakeBrowser {
        FakeBrowser { shared: Arc::clone(self.shared()), login: self.login_url(), cookie: None }
    }

    /// Opens an authorize or admin consent link in a new browser, signs in as this user and accepts what is asked.
    /// Returns where the login site sends the browser. In `form_post` mode the fields stand in its query.
    ///
    /// # Panics
    ///
    /// If the login site shows an error that goes back to no application; the text says which.
    pub async fn sign_in_as(&self, link: &str, user: &Mailbox) -> String {
        self.browser().sign_in(link, user).await
    }

    /// Enters a device's code in a new browser, signs in as this user, and answers.
    ///
    /// # Panics
    ///
    /// If the code is not known or over, or the user may not sign in; the text says why.
    pub async fn answer_device_code(&self, user_code: &str, user: &Mailbox, answer: Answer) {
        self.browser().answer_device_code(user_code, user, answer).await;
    }
}

impl FakeBrowser {
    /// As [`GraphFake::sign_in_as`], in this browser: a live session of the user is picked from the list, anyone else
    /// gives the password.
    ///
    /// # Panics
    ///
    /// As there.
    pub async fn sign_in(&mut self, link: &str, user: &Mailbox) -> String {
        self.visit(link, Some(user), Answer::Accept).await
    }

    /// Opens the link, signs in as this user, and cancels where consent is asked.
    ///
    /// # Panics
    ///
    /// As [`GraphFake::sign_in_as`].
    pub async fn decline(&mut self, link: &str, user: &Mailbox) -> String {
        self.visit(link, Some(user), Answer::Decline).await
    }

    /// Opens the link and clicks nothing: where it leads, if the login site asks nothing.
    ///
    /// # Panics
    ///
    /// If it shows a page; the text names it.
    pub async fn follow(&mut self, link: &str) -> String {
        self.visit(link, None, Answer::Accept).await
    }

    async fn visit(&mut self, link: &str, user: Option<&Mailbox>, answer: Answer) -> String {
        let path = link
            .strip_prefix(self.login.as_str())
            .unwrap_or_else(|| panic!("`{link}` is no link to the fake's login site {}", self.login))
            .to_owned();
        let mut page = self.ask("GET", &path, "").await;
        loop {
            if let Some(location) = page.location {
                return location;
            }
            page = match page.kind() {
                "form-post" => return form_post(&page),
                _ => self.click(page, user, answer).await,
            };
        }
    }

    /// As [`GraphFake::answer_device_code`], in this browser.
    ///
    /// # Panics
    ///
    /// As there.
    pub async fn answer_device_code(&mut self, user_code: &str, user: &Mailbox, answer: Answer) {
        let mut page = self.ask("POST", "/devicelogin", &encoded(&[("otc", user_code.to_owned())])).await;
        while !["device-done", "device-declined"].contains(&page.kind()) {
            page = self.click(page, Some(user), answer).await;
        }
    }

    /// Does on a page what the person would.
    async fn click(&mut self, page: Page, user: Option<&Mailbox>, answer: Answer) -> Page {
        let kind = page.kind().to_owned();
        let Some(user) = user else { panic!("the login site shows the page `{kind}`") };
        let (upn, password) = {
            let state = self.shared.state();
            let user = state.user_numbered(user.number());
            (user.upn.clone(), user.password.clone())
        };
        let complaint = page.complaint().to_owned();
        let listed = page.html.contains(&format!("name=\"account\" value=\"{upn}\""));
        let accept = answer == Answer::Accept;
        let field = match kind.as_str() {
            "accounts" if listed => ("account", upn),
            "accounts" => ("other", "1".into()),
            "username" if complaint.is_empty() => ("username", upn),
            "password" if complaint.is_empty() => ("password", password),
            "consent" => ("consent", if accept { "accept" } else { "cancel" }.into()),
            "device-confirm" => ("device", if accept { "continue" } else { "cancel" }.into()),
            "admin-approval" | "blocked" => ("return", "1".into()),
            _ => panic!("the login site shows the page `{kind}` with status {}: {complaint}", page.status),
        };
        let body = encoded(&[("flow", page.flow()), field]);
        self.ask("POST", "/login", &body).await
    }

    async fn ask(&mut self, method: &str, path: &str, body: &str) -> Page {
        self.exchange(method, path, body).await.expect("the fake answers on loopback")
    }

    async fn exchange(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<Page> {
        let host = self.login.trim_start_matches("http://").to_owned();
        let mut wire = Wire::new(TcpStream::connect(&host).await?);
        let cookie = self.cookie.as_ref().map_or_else(String::new, |cookie| format!("cookie: {cookie}\r\n"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{cookie}content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        wire.stream.write_all(request.as_bytes()).await?;
        let head = wire.head().await?;
        let html = String::from_utf8_lossy(&wire.body(&head).await?).into_owned();
        if let Some(cookie) = head.get("set-cookie") {
            self.cookie = cookie.split(';').next().map(str::to_owned);
        }
        let status = head.first.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default();
        Ok(Page { status, location: head.get("location").map(str::to_owned), html })
    }
}

/// The fields of a `form_post` page behind the address they go to.
fn form_post(page: &Page) -> String {
    let plain = |text: &str| {
        text.replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&#39;", "'")
            .replace("&amp;", "&")
    };
    let action = plain(page.between("action=\"", "\"").unwrap_or_default());
    let mut fields = Vec::new();
    for piece in page.html.split("<input type=\"hidden\" name=\"").skip(1) {
        if let Some((name, rest)) = piece.split_once("\" value=\"") {
            let value = plain(rest.split('"').next().unwrap_or_default());
            fields.push(format!("{name}={}", encoded(&[("", value)]).trim_start_matches('=')));
        }
    }
    format!("{action}?{}", fields.join("&"))
}
