//! The Graph fake refuses what the service refuses, and does what the service does. Driven with
//! plain HTTP, so that nothing of the library's own client stands between.

#![cfg(all(feature = "testing", feature = "graph"))]

use mail_account::testing::graph::{
    App, Attached, Chaos, ChaosKind, Fault, GeneratedMail, GraphFake, Language, Mailbox, MailboxState, Paging,
    RetryAfter, Route,
};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::{Duration, Instant};

const IMMUTABLE: (&str, &str) = ("Prefer", "IdType=\"ImmutableId\"");

struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {} {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn values(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()["value"].as_array().cloned().unwrap_or_default()
    }

    fn ids(&self) -> Vec<String> {
        self.values().iter().map(|value| value["id"].as_str().unwrap().to_owned()).collect()
    }

    fn next(&self) -> Option<String> {
        self.json()["@odata.nextLink"].as_str().map(str::to_owned)
    }

    #[track_caller]
    fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{}", self.json());
    }

    /// Of the token endpoint.
    #[track_caller]
    fn aadsts(&self, status: u16, error: &str, code: u32) {
        let body = self.json();
        assert_eq!((self.status, body["error"].as_str().unwrap()), (status, error), "{body}");
        assert_eq!(body["error_codes"], json!([code]), "{body}");
        assert!(body["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{code}: ")));
    }
}

struct Rig {
    fake: GraphFake,
    app: App,
    mailbox: Mailbox,
    http: reqwest::Client,
    token: String,
}

impl Rig {
    async fn new() -> Rig {
        Rig::with(&["Mail.ReadWrite"]).await
    }

    async fn with(permissions: &[&str]) -> Rig {
        let fake = GraphFake::start().await;
        let app = fake.app("tests").secret("right").permissions(permissions.iter().copied()).create();
        let mailbox = fake.mailbox("facturen@contoso.nl").create();
        let mut rig = Rig { fake, app, mailbox, http: reqwest::Client::new(), token: String::new() };
        rig.token = rig.fresh_token().await;
        rig
    }

    async fn token_request(&self, tenant: &str, form: &[(&str, &str)]) -> Answer {
        let url = format!("{}/{tenant}/oauth2/v2.0/token", self.fake.login_url());
        send(self.http.post(url).form(form)).await
    }

    async fn fresh_token(&self) -> String {
        self.token_for("https://graph.microsoft.com/.default").await
    }

    async fn token_for(&self, scope: &str) -> String {
        let client_id = self.app.client_id();
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &client_id),
            ("client_secret", "right"),
            ("scope", scope),
        ];
        let answer = self.token_request(&self.fake.tenant(), &form).await;
        assert_eq!(answer.status, 200, "{}", answer.json());
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url =
            if path.starts_with("http") { path.to_owned() } else { format!("{}/v1.0{path}", self.fake.graph_url()) };
        self.http.request(method.parse().unwrap(), url).bearer_auth(&self.token)
    }

    async fn get(&self, path: &str) -> Answer {
        send(self.request("GET", path)).await
    }

    /// A path below the mailbox.
    async fn mail(&self, path: &str) -> Answer {
        self.get(&self.at(path)).await
    }

    fn at(&self, path: &str) -> String {
        format!("/users/{}/{path}", self.mailbox.id())
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        send(self.request("POST", path).json(&body)).await
    }

    async fn batch(&self, requests: Value) -> Answer {
        self.post("/$batch", json!({"requests": requests})).await
    }

    async fn move_to(&self, id: &str, folder: &str) -> Answer {
        self.post(&self.at(&format!("messages/{id}/move")), json!({"destinationId": folder})).await
    }

    /// One message a minute; returns the immutable ids.
    fn deliver(&self, count: usize) -> Vec<String> {
        let start: jiff::Timestamp = "2026-03-01T09:00:00Z".parse().unwrap();
        (0..count)
            .map(|number| {
                let received = start + jiff::SignedDuration::from_secs(60 * number as i64);
                self.mailbox.deliver_at("inbox", mime(&format!("Invoice {number}")), received)
            })
            .collect()
    }
}

async fn send(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = response.bytes().await.expect("a whole body").to_vec();
    Answer { status, headers, body }
}

fn mime(subject: &str) -> String {
    format!(
        "From: Supplier <a@supplier.example>\r\nTo: facturen@contoso.nl\r\nSubject: {subject}\r\nMessage-ID: <{}@supplier.example>\r\nDate: Sun, 01 Mar 2026 09:00:00 +0000\r\n\r\nhello\r\n",
        subject.replace(' ', ".")
    )
}

fn with_file(subject: &str, name: &str, bytes: &[u8]) -> String {
    let content = base64_simd::STANDARD.encode_to_string(bytes);
    format!(
        "From: a@supplier.example\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"{name}\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{content}\r\n--b--\r\n"
    )
}

// Pages --------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_page_of_messages_is_ten_with_an_odd_skip() {
    let rig = Rig::new().await;
    rig.deliver(25);
    let page = rig.mail("mailFolders/inbox/messages").await;
    assert_eq!(page.values().len(), 10);
    let next = page.next().unwrap();
    assert!(next.starts_with(&rig.fake.graph_url()), "{next}");
    assert!(next.contains("$skip=11"), "{next}");
    let mut seen: Vec<String> = page.ids();
    let mut next = Some(next);
    while let Some(url) = next {
        let page = rig.get(&url).await;
        seen.extend(page.ids());
        next = page.next();
    }
    assert_eq!(seen.len(), 25);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 25);
}

#[tokio::test]
async fn a_page_of_folders_is_ten_and_hidden_ones_are_asked_for() {
    let rig = Rig::new().await;
    rig.mailbox.create_folder("Projects");
    let page = rig.mail("mailFolders").await;
    assert_eq!(page.values().len(), 10);
    let rest = rig.get(&page.next().unwrap()).await;
    assert_eq!(rest.values().len(), 1);
    assert!(rest.next().is_none());
    let all = rig.mail("mailFolders?$top=100").await.values();
    assert!(all.iter().all(|folder| folder["isHidden"] == false));
    let hidden = rig.mail("mailFolders?$top=100&includeHiddenFolders=true").await.values();
    assert_eq!(hidden.len(), all.len() + 2);
}

#[tokio::test]
async fn moving_shifts_skip_paging() {
    let rig = Rig::new().await;
    rig.fake.configure(|settings| settings.foreign_item_every = None);
    rig.deliver(20);
    let page = rig.mail("mailFolders/inbox/messages").await;
    for id in page.ids() {
        let moved = rig.move_to(&id, "archive").await;
        assert_eq!(moved.status, 201, "{}", moved.json());
    }
    let rest = rig.get(&page.next().unwrap()).await;
    assert!(rest.values().is_empty(), "the ten that are left stand before $skip=10");
    assert_eq!(rig.mailbox.count("inbox"), 10);
}
