//! The fake of Entra's sign-in for people does what the service does, and refuses what it refuses. Driven with plain
//! HTTP, so that nothing of the library's own client stands between.

#![cfg(all(feature = "testing", feature = "graph"))]

use mail_account::testing::graph::{
    Answer, App, AppBuilder, FakeBrowser, Fault, GraphFake, ImapAnswer, Mailbox, Rotation, Route,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::time::Duration;

const VERIFIER: &str = "a-verifier-of-these-tests-0123456789-0123456789";
const CALLBACK: &str = "https://host.example/callback";
const GRAPH: &str = "https://graph.microsoft.com/";
const SCOPES: &str =
    "openid profile offline_access https://graph.microsoft.com/Mail.ReadWrite https://graph.microsoft.com/User.Read";
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

struct Reply {
    status: u16,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {} {}", self.status, self.text))
    }

    #[track_caller]
    fn good(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }

    #[track_caller]
    fn refused(&self, status: u16, error: &str, code: u32) -> Value {
        let body = self.json();
        assert_eq!((self.status, body["error"].as_str().unwrap()), (status, error), "{body}");
        if code != 0 {
            assert_eq!(body["error_codes"], json!([code]), "{body}");
            assert!(body["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{code}: ")), "{body}");
        }
        body
    }

    fn graph_code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

struct Rig {
    fake: GraphFake,
    app: App,
    user: Mailbox,
    http: reqwest::Client,
}

impl Rig {
    async fn new() -> Rig {
        Rig::with(|app| app.secret("right").redirect_uri(CALLBACK)).await
    }

    /// A public client whose redirect is on loopback.
    async fn native() -> Rig {
        Rig::with(|app| app.public_client().native_redirect_uri("http://localhost")).await
    }

    async fn with(build: impl FnOnce(AppBuilder) -> AppBuilder) -> Rig {
        let fake = GraphFake::start().await;
        let app = fake.app("Invoices").delegated_permissions(["Mail.ReadWrite", "Mail.ReadWrite.Shared", "User.Read"]);
        let app = build(app).create();
        let user = fake.mailbox("facturen@contoso.nl").display_name("Facturen").create();
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Rig { fake, app, user, http }
    }

    fn link(&self) -> Link {
        let parameters = [
            ("client_id", self.app.client_id()),
            ("response_type", "code".into()),
            ("redirect_uri", CALLBACK.into()),
            ("scope", SCOPES.into()),
            ("state", "s1".into()),
            ("nonce", "n1".into()),
            ("prompt", "select_account".into()),
            ("code_challenge", base64_url(&Sha256::digest(VERIFIER))),
            ("code_challenge_method", "S256".into()),
        ];
        Link {
            base: format!("{}/{}/oauth2/v2.0/authorize", self.fake.login_url(), self.fake.tenant()),
            parameters: parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Reply {
        let url = format!("{}/{path}", self.fake.login_url());
        answer(self.http.post(url).form(form)).await
    }

    async fn token(&self, form: &[(&str, &str)]) -> Reply {
        self.post(&format!("{}/oauth2/v2.0/token", self.fake.tenant()), form).await
    }

    async fn redeem(&self, code: &str, change: &[(&str, Option<&str>)]) -> Reply {
        let client_id = self.app.client_id();
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", &client_id),
            ("client_secret", "right"),
            ("code", code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ];
        self.token(&changed(&form, change)).await
    }

    async fn refresh(&self, token: &str, change: &[(&str, Option<&str>)]) -> Reply {
        let client_id = self.app.client_id();
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", &client_id),
            ("client_secret", "right"),
            ("refresh_token", token),
        ];
        self.token(&changed(&form, change)).await
    }

    /// Signs the user in and redeems the code.
    async fn signed_in(&self) -> Value {
        let code = code(&self.fake.sign_in_as(&self.link().url(), &self.user).await);
        self.redeem(&code, &[]).await.good()
    }

    async fn graph(&self, token: &Value, path: &str) -> Reply {
        let url = format!("{}/v1.0{path}", self.fake.graph_url());
        answer(self.http.get(url).bearer_auth(token["access_token"].as_str().unwrap())).await
    }

    /// What the link shows without any session: the AADSTS code on an error page, or in the redirect.
    async fn shown(&self, link: &Link) -> (u16, String) {
        let response = self.http.get(link.url()).send().await.unwrap();
        let status = response.status().as_u16();
        let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
        (status, location.unwrap_or(response.text().await.unwrap()))
    }

    /// Refused on a page, because nobody may be told by redirect.
    async fn refused_on_page(&self, link: &Link, code: u32) {
        let (status, text) = self.shown(link).await;
        assert!(status == 400 && text.contains(&format!("data-code=\"{code}\"")), "{status} {text}");
    }

    async fn refused_by_redirect(&self, link: &Link, error: &str, code: u32) {
        let (status, location) = self.shown(link).await;
        assert_eq!(status, 302, "{location}");
        let fields = fields(&location);
        assert_eq!(fields["error"], error, "{location}");
        assert!(fields["error_description"].starts_with(&format!("AADSTS{code}: ")), "{location}");
        assert_eq!(fields["state"], "s1");
        assert!(!fields.contains_key("code"));
    }
}

struct Link {
    base: String,
    parameters: Vec<(String, String)>,
}

impl Link {
    fn with(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.parameters.retain(|(known, _)| known != name);
        self
    }

    fn tenant(mut self, from: &GraphFake, tenant: &str) -> Self {
        self.base = format!("{}/{tenant}/oauth2/v2.0/authorize", from.login_url());
        self
    }

    fn url(&self) -> String {
        url::Url::parse_with_params(&self.base, &self.parameters).unwrap().to_string()
    }
}

fn changed<'a>(form: &[(&'a str, &'a str)], change: &[(&'a str, Option<&'a str>)]) -> Vec<(&'a str, &'a str)> {
    let kept = form.iter().filter(|(name, _)| !change.iter().any(|(changed, _)| changed == name)).copied();
    kept.chain(change.iter().filter_map(|(name, value)| Some((*name, (*value)?)))).collect()
}

async fn answer(request: reqwest::RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    Reply { status: response.status().as_u16(), text: response.text().await.unwrap() }
}

fn base64_url(bytes: &[u8]) -> String {
    base64_simd::URL_SAFE_NO_PAD.encode_to_string(bytes)
}

/// The parameters of a callback, in its query or fragment.
fn fields(callback: &str) -> HashMap<String, String> {
    let (_, query) = callback.split_once(['?', '#']).unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

#[track_caller]
fn code(callback: &str) -> String {
    fields(callback).remove("code").unwrap_or_else(|| panic!("no code in {callback}"))
}

fn claims(jwt: &Value) -> Value {
    let part = jwt.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&base64_simd::URL_SAFE_NO_PAD.decode_to_vec(part).unwrap()).unwrap()
}

fn refresh_token(answer: &Value) -> String {
    answer["refresh_token"].as_str().unwrap_or_else(|| panic!("no refresh token in {answer}")).to_owned()
}

#[tokio::test]
async fn a_person_signs_in_and_reads_their_own_mail() {
    let rig = Rig::new().await;
    rig.user.deliver("inbox", "From: a@example.org\r\nSubject: Invoice 1\r\n\r\nhello\r\n");
    let callback = rig.fake.sign_in_as(&rig.link().url(), &rig.user).await;
    assert!(callback.starts_with("https://host.example/callback?code="), "{callback}");
    assert_eq!(fields(&callback)["state"], "s1");
    let answer = rig.redeem(&code(&callback), &[]).await.good();
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(3599)));
    let scope = answer["scope"].as_str().unwrap();
    assert_eq!(scope, format!("{GRAPH}Mail.ReadWrite {GRAPH}User.Read openid profile"));

    let id = claims(&answer["id_token"]);
    assert_eq!(id["oid"], rig.user.id());
    assert_eq!((&id["tid"], &id["aud"]), (&json!(rig.fake.tenant()), &json!(rig.app.client_id())));
    assert_eq!((&id["nonce"], &id["preferred_username"]), (&json!("n1"), &json!("facturen@contoso.nl")));
    let access = claims(&answer["access_token"]);
    assert_eq!(access["scp"], "Mail.ReadWrite User.Read");
    assert_eq!((&access["oid"], &access["appidacr"]), (&id["oid"], &json!("1")));
    assert!(access.get("roles").is_none());

    let me = rig.graph(&answer, "/me?$select=id,userPrincipalName,mail").await.good();
    assert_eq!((&me["id"], &me["mail"]), (&id["oid"], &json!("facturen@contoso.nl")));
    for path in ["/me/mailFolders/inbox/messages", "/users/facturen@contoso.nl/mailFolders/inbox/messages"] {
        assert_eq!(rig.graph(&answer, path).await.good()["value"][0]["subject"], "Invoice 1");
    }
    assert_eq!(rig.fake.counters().of_grant("authorization_code"), 1);
    assert_eq!(rig.fake.counters().token_requests, 1);
    assert_eq!(rig.fake.counters().of(Route::Authorize), 1);
}

#[tokio::test]
async fn a_code_is_good_once_for_ten_minutes_for_its_application_redirect_and_verifier() {
    let rig = Rig::new().await;
    let sign_in = async || code(&rig.fake.sign_in_as(&rig.link().url(), &rig.user).await);
    let used = sign_in().await;
    rig.redeem(&used, &[]).await.good();
    rig.redeem(&used, &[]).await.refused(400, "invalid_grant", 54005);

    let old = sign_in().await;
    rig.fake.advance(Duration::from_secs(601));
    rig.redeem(&old, &[]).await.refused(400, "invalid_grant", 70008);

    let fresh = sign_in().await;
    rig.redeem("nonsense", &[]).await.refused(400, "invalid_grant", 70000);
    rig.redeem(&fresh, &[("redirect_uri", Some("https://host.example/other"))]).await.refused(
        400,
        "invalid_request",
        50011,
    );
    rig.redeem(&fresh, &[("redirect_uri", None)]).await.refused(400, "invalid_request", 900144);
    let wrong = "b".repeat(43);
    rig.redeem(&fresh, &[("code_verifier", Some(&wrong))]).await.refused(400, "invalid_grant", 501481);
    rig.redeem(&fresh, &[("code_verifier", None)]).await.refused(400, "invalid_grant", 501481);
    rig.redeem(&fresh, &[("client_secret", None)]).await.refused(401, "invalid_client", 7000218);
    rig.redeem(&fresh, &[("client_secret", Some("wrong"))]).await.refused(401, "invalid_client", 7000215);
    let stray = [("resource", Some("https://graph.microsoft.com"))];
    rig.redeem(&fresh, &stray).await.refused(400, "invalid_request", 9002313);
    let other = rig.fake.app("Other").secret("right").create().client_id();
    rig.redeem(&fresh, &[("client_id", Some(&other))]).await.refused(400, "invalid_grant", 70000);
    // None of that used it up.
    rig.redeem(&fresh, &[]).await.good();
}
