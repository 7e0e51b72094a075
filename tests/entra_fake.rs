//! The fake of Entra's sign-in for people does what the service does, and refuses what it refuses. Driven with plain
//! HTTP, so that nothing of the library's own client stands between.

#![cfg(all(feature = "testing", feature = "graph"))]

use mail_account::testing::graph::{Answer, App, AppBuilder, Fault, GraphFake, ImapAnswer, Mailbox, Rotation, Route};
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

#[tokio::test]
async fn requests_are_taken_to_the_letter() {
    let rig = Rig::new().await;
    for (link, code) in [
        (rig.link().without("client_id"), 900144),
        (rig.link().without("redirect_uri"), 900144),
        (rig.link().with("client_id", "11111111-2222-3333-4444-555555555555"), 700016),
        (rig.link().with("redirect_uri", "https://host.example/callback/"), 50011),
        (rig.link().with("redirect_uri", "https://host.example/Callback"), 50011),
        (rig.link().with("redirect_uri", "https://evil.example/callback"), 50011),
        (rig.link().with("response_mode", "web_message"), 9002313),
        (rig.link().with("resource", "https://graph.microsoft.com"), 9002313),
        (rig.link().tenant(&rig.fake, "common"), 50194),
        (rig.link().tenant(&rig.fake, "organizations"), 50194),
        (rig.link().tenant(&rig.fake, "consumers"), 90130),
        (rig.link().tenant(&rig.fake, "nowhere.example"), 90002),
        (rig.link().tenant(&rig.fake, "nowhere"), 900023),
    ] {
        rig.refused_on_page(&link, code).await;
    }
    let mut doubled = rig.link();
    doubled.parameters.push(("state".into(), "s2".into()));
    rig.refused_on_page(&doubled, 9002313).await;
    for (link, error, code) in [
        (rig.link().without("response_type"), "invalid_request", 900144),
        (rig.link().with("response_type", "token"), "unsupported_response_type", 700054),
        (rig.link().without("scope"), "invalid_request", 900144),
        (rig.link().with("scope", "openid Mail.Everything"), "invalid_scope", 70011),
        (rig.link().with("scope", "https://graph.microsoft.com/.default Mail.ReadWrite"), "invalid_scope", 70011),
        (rig.link().with("scope", "https%3A%2F%2Fgraph.microsoft.com%2FMail.ReadWrite"), "invalid_scope", 70011),
        (rig.link().with("scope", "https://graph.microsoft.nl/Mail.ReadWrite"), "invalid_resource", 500011),
        (rig.link().with("scope", "https://outlook.office.com/IMAP.AccessAsUser.All"), "invalid_resource", 650057),
        (rig.link().with("prompt", "maybe"), "invalid_request", 9002313),
        (rig.link().without("code_challenge"), "invalid_request", 9002313),
        (rig.link().without("code_challenge").without("code_challenge_method"), "invalid_request", 9002313),
        (rig.link().with("code_challenge_method", "plain"), "invalid_request", 9002313),
        (rig.link().with("code_challenge", "short"), "invalid_request", 9002313),
        (rig.link().with("claims", "{"), "invalid_request", 9002313),
    ] {
        rig.refused_by_redirect(&link, error, code).await;
    }
    rig.app.set_disabled(true);
    rig.refused_on_page(&rig.link(), 7000112).await;
    let nowhere = rig.fake.app("No reply address").create().client_id();
    rig.refused_on_page(&rig.link().with("client_id", &nowhere), 900971).await;
}

#[tokio::test]
async fn answers_come_back_as_the_mode_and_the_redirect_say() {
    let rig = Rig::with(|app| {
        app.redirect_uri(CALLBACK)
            .native_redirect_uri("http://localhost")
            .native_redirect_uri("http://localhost/done")
            .redirect_uri("https://host.example?page=mail")
            .consented()
    })
    .await;
    let to = async |redirect: &str, mode: &str| {
        let link = rig.link().with("redirect_uri", redirect).with("response_mode", mode);
        rig.fake.sign_in_as(&link.url(), &rig.user).await
    };
    for (redirect, mode, start) in [
        (CALLBACK, "query", "https://host.example/callback?code="),
        (CALLBACK, "fragment", "https://host.example/callback#code="),
        (CALLBACK, "form_post", "https://host.example/callback?code="),
        ("http://localhost:53682", "query", "http://localhost:53682/?code="),
        ("http://localhost", "query", "http://localhost/?code="),
        ("http://localhost:1/done", "query", "http://localhost:1/done?code="),
        ("https://host.example?page=mail", "query", "https://host.example?page=mail&code="),
    ] {
        let callback = to(redirect, mode).await;
        assert!(callback.starts_with(start), "{callback}");
        assert_eq!(fields(&callback)["state"], "s1", "{callback}");
    }
    for redirect in [
        "http://localhost:1/",
        "http://localhost:1/other",
        "http://localhost.example",
        "http://127.0.0.1:1",
        "https://localhost",
    ] {
        rig.refused_on_page(&rig.link().with("redirect_uri", redirect), 50011).await;
    }
    let code = code(&to("http://localhost:53682", "query").await);
    let other_port = [("redirect_uri", Some("http://localhost:53683")), ("client_secret", None)];
    rig.redeem(&code, &other_port).await.refused(400, "invalid_request", 50011);
    rig.redeem(&code, &[("redirect_uri", Some("http://localhost:53682")), ("client_secret", None)]).await.good();
}

#[tokio::test]
async fn the_browsers_sessions_decide_what_is_asked() {
    let rig = Rig::with(|app| app.secret("right").redirect_uri(CALLBACK).consented()).await;
    let other = rig.fake.mailbox("beheer@contoso.nl").create();
    let who = async |callback: &str| {
        let answer = rig.redeem(&code(callback), &[]).await.good();
        claims(&answer["id_token"])["preferred_username"].as_str().unwrap().to_owned()
    };
    let mut browser = rig.fake.browser();
    let quiet = rig.link().with("prompt", "none").url();
    assert_eq!(fields(&browser.follow(&quiet).await)["error"], "login_required");
    browser.sign_in(&rig.link().url(), &other).await;

    // The trap: without a prompt, whoever is signed in goes on, whatever the hint says.
    let hinted = rig.link().without("prompt").with("login_hint", "facturen@contoso.nl").url();
    assert_eq!(who(&browser.follow(&hinted).await).await, "beheer@contoso.nl");
    assert_eq!(who(&browser.follow(&quiet).await).await, "beheer@contoso.nl");
    // Not with select_account: the list comes, and someone else can sign in.
    assert_eq!(who(&browser.sign_in(&rig.link().url(), &rig.user).await).await, "facturen@contoso.nl");
    // Two live sessions: no prompt is ambiguous, a hint decides.
    assert_eq!(fields(&browser.follow(&quiet).await)["error"], "interaction_required");
    assert_eq!(who(&browser.follow(&hinted).await).await, "facturen@contoso.nl");
    let list = rig.http.get(rig.link().url()).send().await.unwrap().text().await.unwrap();
    assert!(list.contains("data-page=\"username\""), "another browser knows nobody: {list}");

    rig.user.sign_out_everywhere();
    assert_eq!(who(&browser.follow(&quiet).await).await, "beheer@contoso.nl", "one session is left");
    assert_eq!(who(&browser.sign_in(&rig.link().url(), &rig.user).await).await, "facturen@contoso.nl");
    let logout = format!("{}/{}/oauth2/v2.0/logout", rig.fake.login_url(), rig.fake.tenant());
    assert_eq!(rig.http.get(logout).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_test_can_demand_the_account_list() {
    let rig = Rig::new().await;
    rig.fake.configure(|settings| settings.sign_in.demand_account_choice = true);
    for link in [rig.link().without("prompt"), rig.link().with("prompt", "consent"), rig.link().with("prompt", "login")]
    {
        rig.refused_by_redirect(&link, "invalid_request", 9002313).await;
    }
    rig.signed_in().await;
}

#[tokio::test]
async fn the_account_must_exist_and_the_password_be_right() {
    let rig = Rig::new().await;
    let browser = reqwest::Client::builder().build().unwrap();
    let first = browser.get(rig.link().with("login_hint", "facturen@contoso.nl").url()).send().await.unwrap();
    let cookie = first.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let page = first.text().await.unwrap();
    assert!(page.contains("name=\"username\" type=\"text\" value=\"facturen@contoso.nl\""), "{page}");
    let flow = page.split("name=\"flow\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let post = async |cookie: &str, name: &str, value: &str| {
        let form = [("flow", flow.as_str()), (name, value)];
        let url = format!("{}/login", rig.fake.login_url());
        answer(browser.post(url).header("cookie", cookie).form(&form)).await.text
    };
    assert!(post(&cookie, "username", "niemand@contoso.nl").await.contains("data-code=\"50034\""));
    assert!(post(&cookie, "password", "too early").await.contains("data-code=\"50089\""));
    assert!(post(&cookie, "username", "facturen@contoso.nl").await.contains("data-page=\"password\""));
    assert!(post(&cookie, "password", "wrong").await.contains("data-code=\"50126\""));
    assert!(post(&cookie, "consent", "accept").await.contains("data-code=\"9002313\""), "nobody is signed in");
    assert!(post("ESTSAUTH=b.other", "password", &rig.user.password()).await.contains("data-code=\"50089\""));
    assert!(post(&cookie, "password", &rig.user.password()).await.contains("data-page=\"consent\""));
    rig.fake.advance(Duration::from_secs(3601));
    assert!(post(&cookie, "consent", "accept").await.contains("data-code=\"50089\""));
}

#[tokio::test]
async fn refresh_tokens_rotate_and_the_old_one_stays_good() {
    let rig = Rig::new().await;
    let first = refresh_token(&rig.signed_in().await);
    let answer = rig.refresh(&first, &[]).await.good();
    assert_eq!(claims(&answer["access_token"])["upn"], "facturen@contoso.nl");
    let second = refresh_token(&answer);
    assert_ne!(first, second);
    for token in [&first, &second, &first] {
        rig.refresh(token, &[]).await.good();
    }
    rig.refresh(&first, &[("client_secret", None)]).await.refused(401, "invalid_client", 7000218);
    rig.refresh("nonsense", &[]).await.refused(400, "invalid_grant", 70000);
    let other = rig.fake.app("Other").secret("right").create().client_id();
    rig.refresh(&first, &[("client_id", Some(&other))]).await.refused(400, "invalid_grant", 70000);

    // 90 days of inactivity, sliding.
    let day = Duration::from_secs(86_400);
    for _ in 0..3 {
        rig.fake.advance(day * 80);
        rig.refresh(&second, &[]).await.good();
    }
    rig.fake.advance(day * 91);
    rig.refresh(&second, &[]).await.refused(400, "invalid_grant", 700082);
    assert!(rig.fake.counters().of_grant("refresh_token") > 8);
}

#[tokio::test]
async fn rotation_can_be_strict_or_absent() {
    let rig = Rig::new().await;
    rig.fake.configure(|settings| settings.sign_in.rotation = Rotation::Kept);
    let kept = refresh_token(&rig.signed_in().await);
    assert!(rig.refresh(&kept, &[]).await.good().get("refresh_token").is_none());
    rig.refresh(&kept, &[]).await.good();

    rig.fake.configure(|settings| settings.sign_in.rotation = Rotation::SingleUse);
    let first = refresh_token(&rig.signed_in().await);
    let second = refresh_token(&rig.refresh(&first, &[]).await.good());
    let third = refresh_token(&rig.refresh(&second, &[]).await.good());
    rig.refresh(&first, &[]).await.refused(400, "invalid_grant", 70000);
    // A replay ends the whole grant, the newest token too.
    rig.refresh(&third, &[]).await.refused(400, "invalid_grant", 50173);
}

#[tokio::test]
async fn what_ends_a_refresh_token() {
    let web = Rig::new().await;
    let native = Rig::native().await;
    let at = [("redirect_uri", Some("http://localhost:5")), ("client_secret", None)];
    let native_in = async || {
        let link = native.link().with("redirect_uri", "http://localhost:5").url();
        let callback = native.fake.sign_in_as(&link, &native.user).await;
        refresh_token(&native.redeem(&code(&callback), &at).await.good())
    };
    let no_secret = [("client_secret", None)];
    // The user changes the password: only public clients' tokens end.
    let (of_web, of_native) = (refresh_token(&web.signed_in().await), native_in().await);
    web.user.change_password("Nieuw-1");
    native.user.change_password("Nieuw-1");
    web.refresh(&of_web, &[]).await.good();
    native.refresh(&of_native, &no_secret).await.refused(400, "invalid_grant", 50173);
    // Revoked sessions, a reset by an administrator, sign-in frequency: all of them.
    let of_native = native_in().await;
    native.user.sign_out_everywhere();
    native.refresh(&of_native, &no_secret).await.refused(400, "invalid_grant", 50173);
    web.user.reset_password("Nieuw-2");
    web.refresh(&of_web, &[]).await.refused(400, "invalid_grant", 50173);
    let fresh = refresh_token(&web.signed_in().await);
    web.user.end_by_sign_in_frequency();
    web.refresh(&fresh, &[]).await.refused(400, "invalid_grant", 70043);
    // What only stands in the way as long as it is there.
    let fresh = refresh_token(&web.signed_in().await);
    web.user.refuse_sign_in(50076);
    let body = web.refresh(&fresh, &[]).await.refused(400, "invalid_grant", 50076);
    assert_eq!(body["suberror"], "basic_action");
    web.user.refuse_sign_in(None);
    web.user.set_enabled(false);
    web.refresh(&fresh, &[]).await.refused(400, "invalid_grant", 50057);
    web.user.set_enabled(true);
    web.app.withdraw_consent();
    let body = web.refresh(&fresh, &[]).await.refused(400, "invalid_grant", 65001);
    assert_eq!(body["suberror"], "consent_required");
    web.app.consent_for_everyone();
    web.refresh(&fresh, &[]).await.good();
}

#[tokio::test]
async fn one_refresh_token_serves_every_resource_one_at_a_time() {
    let imap = "https://outlook.office.com/IMAP.AccessAsUser.All";
    let rig = Rig::with(|app| app.secret("right").redirect_uri(CALLBACK).delegated_permissions([imap])).await;
    let both = format!("offline_access Mail.ReadWrite {imap}");
    let callback = rig.fake.sign_in_as(&rig.link().with("scope", &both).url(), &rig.user).await;
    let answer = rig.redeem(&code(&callback), &[]).await.good();
    assert_eq!(claims(&answer["access_token"])["aud"], "https://graph.microsoft.com", "the first resource");
    assert!(answer.get("id_token").is_none());
    let token = refresh_token(&answer);
    let answer = rig.refresh(&token, &[("scope", Some(imap))]).await.good();
    assert_eq!(claims(&answer["access_token"])["aud"], "https://outlook.office.com");
    assert_eq!(answer["scope"], imap);
    // offline_access was left out of the scope this time.
    assert!(answer.get("refresh_token").is_none());
    rig.refresh(&token, &[("scope", Some(&both))]).await.refused(400, "invalid_request", 28000);
    let more = "https://graph.microsoft.com/MailboxSettings.Read";
    rig.refresh(&token, &[("scope", Some(more))]).await.refused(400, "invalid_grant", 65001);
}

#[tokio::test]
async fn tokens_hold_what_was_asked_for_and_granted() {
    let rig = Rig::with(|app| app.secret("right").redirect_uri(CALLBACK).withholding("Mail.ReadWrite.Shared")).await;
    let sign_in = async |scope: &str| {
        let callback = rig.fake.sign_in_as(&rig.link().with("scope", scope).url(), &rig.user).await;
        rig.redeem(&code(&callback), &[]).await.good()
    };
    let answer = sign_in("openid email Mail.ReadWrite Mail.ReadWrite.Shared").await;
    assert_eq!(answer["scope"], format!("{GRAPH}Mail.ReadWrite email openid"), "less than asked");
    assert!(answer.get("refresh_token").is_none());
    let id = claims(&answer["id_token"]);
    assert_eq!(id["email"], "facturen@contoso.nl");
    assert!(id.get("oid").is_none() && id.get("preferred_username").is_none(), "only with `profile`");
    // More than asked: what was consented to before.
    rig.fake.configure(|settings| settings.sign_in.short_scopes = true);
    let answer = sign_in("User.Read offline_access").await;
    assert_eq!(answer["scope"], "Mail.ReadWrite User.Read");
    refresh_token(&answer);
}

#[tokio::test]
async fn consent_is_asked_once_and_can_be_declined() {
    let rig = Rig::new().await;
    let mut browser = rig.fake.browser();
    let declined = browser.decline(&rig.link().url(), &rig.user).await;
    let told = fields(&declined);
    assert_eq!((told["error"].as_str(), told["state"].as_str()), ("access_denied", "s1"), "{declined}");
    assert!(told["error_description"].starts_with("AADSTS65004: "), "{declined}");
    let quiet = rig.link().with("prompt", "none").url();
    assert_eq!(fields(&browser.follow(&quiet).await)["error"], "consent_required");
    browser.sign_in(&rig.link().url(), &rig.user).await;
    code(&browser.follow(&quiet).await);
    // Asked again only with prompt=consent, or for more.
    let again = browser.decline(&rig.link().with("prompt", "consent").url(), &rig.user).await;
    assert_eq!(fields(&again)["error"], "access_denied");
    let more = rig.link().with("scope", "Mail.ReadWrite.Shared").url();
    assert_eq!(fields(&browser.decline(&more, &rig.user).await)["error"], "access_denied");
}

#[tokio::test]
async fn some_consent_is_an_administrators() {
    let rig =
        Rig::with(|app| app.secret("right").redirect_uri(CALLBACK).delegated_permissions(["User.Read.All"])).await;
    let admin = rig.fake.mailbox("beheer@contoso.nl").admin().create();
    let told = async |link: &Link, user: &Mailbox| fields(&rig.fake.sign_in_as(&link.url(), user).await);
    let high = rig.link().with("scope", "User.Read.All");
    let refused = told(&high, &rig.user).await;
    assert_eq!(refused["error"], "access_denied");
    assert!(refused["error_description"].starts_with("AADSTS90094: "));
    assert!(told(&high, &admin).await.contains_key("code"));

    rig.fake.configure(|settings| {
        settings.sign_in.people_consent = false;
        settings.sign_in.consent_requests = true;
        settings.sign_in.admin_consent_error = "consent_required".into();
    });
    let refused = told(&rig.link(), &rig.user).await;
    assert_eq!(refused["error"], "consent_required");
    assert!(refused["error_description"].starts_with("AADSTS90095: "));
    rig.app.consent_for_everyone();
    assert!(told(&rig.link(), &rig.user).await.contains_key("code"));
}

#[tokio::test]
async fn policy_stands_in_the_way_of_people() {
    let rig = Rig::new().await;
    let told = async |user: &Mailbox| {
        let told = fields(&rig.fake.sign_in_as(&rig.link().url(), user).await);
        assert!(!told.contains_key("code") && told["state"] == "s1");
        (told["error"].clone(), told["error_description"].split(':').next().unwrap().to_owned())
    };
    for (code, error) in [
        (50076, "interaction_required"),
        (50079, "interaction_required"),
        (53003, "access_denied"),
        (53000, "access_denied"),
        (530035, "access_denied"),
        (50053, "access_denied"),
        (50055, "access_denied"),
    ] {
        rig.user.refuse_sign_in(code);
        assert_eq!(told(&rig.user).await, (error.to_owned(), format!("AADSTS{code}")));
    }
    rig.user.refuse_sign_in(None);
    rig.app.assign_to(["iemand@contoso.nl"]);
    assert_eq!(told(&rig.user).await, ("access_denied".into(), "AADSTS50105".into()));
    rig.app.assign_to(["facturen@contoso.nl"]);
    rig.signed_in().await;
    let shared = rig.fake.mailbox("gedeeld@contoso.nl").shared().create();
    assert_eq!(told(&shared).await, ("access_denied".into(), "AADSTS50057".into()));
    // Someone who was let in before the policy came gets no token either.
    let code = code(&rig.fake.sign_in_as(&rig.link().url(), &rig.user).await);
    rig.user.refuse_sign_in(53003);
    rig.redeem(&code, &[]).await.refused(400, "invalid_grant", 53003);
}

#[tokio::test]
async fn the_platform_decides_how_codes_are_redeemed() {
    let native = Rig::native().await;
    let link = native.link().with("redirect_uri", "http://localhost:5").url();
    let at = ("redirect_uri", Some("http://localhost:5"));
    let callback = native.fake.sign_in_as(&link, &native.user).await;
    native.redeem(&code(&callback), &[at]).await.refused(401, "invalid_client", 700025);
    let redeemed = native.redeem(&code(&callback), &[at, ("client_secret", None)]).await.good();
    assert_eq!(claims(&redeemed["access_token"])["appidacr"], "0");
    let token = refresh_token(&redeemed);
    native.refresh(&token, &[]).await.refused(401, "invalid_client", 700025);
    native.refresh(&token, &[("client_secret", None)]).await.good();

    let spa = Rig::with(|app| app.secret("right").spa_redirect_uri(CALLBACK).consented()).await;
    let bare = spa.link().without("code_challenge").without("code_challenge_method");
    spa.refused_by_redirect(&bare, "invalid_request", 9002325).await;
    let callback = spa.fake.sign_in_as(&spa.link().url(), &spa.user).await;
    spa.redeem(&code(&callback), &[]).await.refused(400, "invalid_request", 9002327);
    let client_id = spa.app.client_id();
    let url = format!("{}/{}/oauth2/v2.0/token", spa.fake.login_url(), spa.fake.tenant());
    let from_page = async |form: &[(&str, &str)]| {
        answer(spa.http.post(&url).header("origin", "https://host.example").form(form)).await
    };
    let found = code(&callback);
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", client_id.as_str()),
        ("code", &found),
        ("redirect_uri", CALLBACK),
        ("code_verifier", VERIFIER),
    ];
    let token = refresh_token(&from_page(&form).await.good());
    let form = [("grant_type", "refresh_token"), ("client_id", &client_id), ("refresh_token", &token)];
    from_page(&form).await.good();
    spa.fake.advance(Duration::from_secs(86_401));
    from_page(&form).await.refused(400, "invalid_grant", 700084);
}

impl Rig {
    async fn device_code(&self, scope: &str) -> Value {
        let path = format!("{}/oauth2/v2.0/devicecode", self.fake.tenant());
        self.post(&path, &[("client_id", &self.app.client_id()), ("scope", scope)]).await.good()
    }

    async fn poll(&self, device: &Value) -> Reply {
        let code = device["device_code"].as_str().unwrap();
        self.token(&[("grant_type", DEVICE_GRANT), ("client_id", &self.app.client_id()), ("device_code", code)]).await
    }
}

#[tokio::test]
async fn a_device_signs_in_by_code() {
    let rig = Rig::native().await;
    let device = rig.device_code(SCOPES).await;
    assert_eq!((&device["expires_in"], &device["interval"]), (&json!(900), &json!(5)));
    assert_eq!(device["verification_uri"], format!("{}/devicelogin", rig.fake.login_url()));
    let user_code = device["user_code"].as_str().unwrap();
    assert!(device["message"].as_str().unwrap().contains(user_code));
    assert!(device.get("verification_uri_complete").is_none());
    rig.poll(&device).await.refused(400, "authorization_pending", 70016);
    rig.fake.answer_device_code(&user_code.to_lowercase(), &rig.user, Answer::Accept).await;
    let answer = rig.poll(&device).await.good();
    assert_eq!(claims(&answer["id_token"])["oid"], rig.user.id());
    rig.refresh(&refresh_token(&answer), &[("client_secret", None)]).await.good();
    rig.poll(&device).await.refused(400, "invalid_grant", 54005);

    let declined = rig.device_code(SCOPES).await;
    rig.fake.answer_device_code(declined["user_code"].as_str().unwrap(), &rig.user, Answer::Decline).await;
    rig.poll(&declined).await.refused(400, "authorization_declined", 0);
    let old = rig.device_code(SCOPES).await;
    rig.fake.advance(Duration::from_secs(901));
    rig.poll(&old).await.refused(400, "expired_token", 70019);
    rig.poll(&json!({"device_code": "nonsense"})).await.refused(400, "bad_verification_code", 70018);

    rig.fake.configure(|settings| {
        settings.sign_in.device_interval = None;
        settings.sign_in.slow_down = true;
    });
    let device = rig.device_code(SCOPES).await;
    assert!(device.get("interval").is_none());
    rig.poll(&device).await.refused(400, "authorization_pending", 70016);
    rig.poll(&device).await.refused(400, "slow_down", 0);
    rig.fake.advance(Duration::from_secs(11));
    rig.poll(&device).await.refused(400, "authorization_pending", 70016);
}

#[tokio::test]
async fn device_codes_need_public_client_flows() {
    let rig = Rig::new().await;
    let device = rig.device_code(SCOPES).await;
    rig.poll(&device).await.refused(401, "invalid_client", 7000218);
    let public = Rig::native().await;
    let device = public.device_code(SCOPES).await;
    let code = device["device_code"].as_str().unwrap();
    let client_id = public.app.client_id();
    let form =
        [("grant_type", DEVICE_GRANT), ("client_id", &client_id), ("device_code", code), ("client_secret", "right")];
    public.token(&form).await.refused(401, "invalid_client", 700025);
    let path = format!("{}/oauth2/v2.0/devicecode", public.fake.tenant());
    public.post(&path, &[("client_id", &client_id)]).await.refused(400, "invalid_request", 900144);
    let hinted = [("client_id", client_id.as_str()), ("scope", SCOPES), ("login_hint", "facturen@contoso.nl")];
    public.post(&path, &hinted).await.refused(400, "invalid_request", 9002313);
    let dutch = public.post(&format!("{path}?mkt=nl-NL"), &[("client_id", &client_id), ("scope", SCOPES)]).await;
    assert!(dutch.good()["message"].as_str().unwrap().starts_with("Open in een browser"));
}

#[tokio::test]
async fn an_administrator_consents_for_everyone() {
    let rig =
        Rig::with(|app| app.secret("right").redirect_uri(CALLBACK).requested_permissions(["Mail.ReadWrite"])).await;
    let admin = rig.fake.mailbox("beheer@contoso.nl").admin().create();
    let link = |path: &str, scope: Option<&str>| {
        let mut link = rig.link();
        link.base = format!("{}/{path}", rig.fake.login_url());
        link.parameters.retain(|(name, _)| ["client_id", "redirect_uri", "state"].contains(&name.as_str()));
        match scope {
            Some(scope) => link.with("scope", scope).url(),
            None => link.url(),
        }
    };
    let all = Some("https://graph.microsoft.com/.default");
    let newer = link("organizations/v2.0/adminconsent", all);
    let older = link(&format!("{}/adminconsent", rig.fake.tenant()), None);

    let refused = fields(&rig.fake.sign_in_as(&newer, &rig.user).await);
    assert_eq!((refused["error"].as_str(), refused["admin_consent"].as_str()), ("access_denied", "True"));
    let declined = fields(&rig.fake.browser().decline(&older, &admin).await);
    assert_eq!(declined["error"], "permission_denied");
    assert!(!declined.contains_key("admin_consent"));

    let app_token = [
        ("grant_type", "client_credentials"),
        ("client_id", &rig.app.client_id()),
        ("client_secret", "right"),
        ("scope", "https://graph.microsoft.com/.default"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let app_token: Vec<(&str, &str)> = app_token.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert!(claims(&rig.token(&app_token).await.good()["access_token"]).get("roles").is_none());
    for link in [newer, older] {
        let granted = fields(&rig.fake.sign_in_as(&link, &admin).await);
        assert_eq!(
            (granted["admin_consent"].as_str(), granted["tenant"].as_str()),
            ("True", rig.fake.tenant().as_str())
        );
        assert_eq!(granted["state"], "s1");
    }
    assert_eq!(claims(&rig.token(&app_token).await.good()["access_token"])["roles"], json!(["Mail.ReadWrite"]));
    // Nobody is asked any more.
    let mut browser = rig.fake.browser();
    code(&browser.decline(&rig.link().url(), &rig.user).await);

    for (path, scope, code) in [
        ("common/v2.0/adminconsent", all, 90130),
        ("contoso.nl/v2.0/adminconsent", None, 900144),
        ("contoso.nl/adminconsent", all, 9002313),
    ] {
        let text = rig.http.get(link(path, scope)).send().await.unwrap().text().await.unwrap();
        assert!(text.contains(&format!("data-code=\"{code}\"")), "{path}: {text}");
    }
}

#[tokio::test]
async fn a_person_sees_their_own_mail_and_what_they_were_given() {
    let rig = Rig::new().await;
    let shared = rig.fake.mailbox("gedeeld@contoso.nl").shared().create();
    let sign_in = async |scope: &str| {
        rig.app.withdraw_consent();
        let callback = rig.fake.sign_in_as(&rig.link().with("scope", scope).url(), &rig.user).await;
        rig.redeem(&code(&callback), &[]).await.good()
    };
    let plain = sign_in("Mail.ReadWrite").await;
    let inbox = format!("/users/{}/mailFolders/inbox", shared.id());
    assert_eq!(rig.graph(&plain, "/me").await.status, 403, "User.Read was not asked for");
    rig.graph(&plain, "/me/mailFolders/inbox").await.good();
    shared.set_full_access("facturen@contoso.nl", true);
    let refused = rig.graph(&plain, &inbox).await;
    assert_eq!((refused.status, refused.graph_code().as_str()), (403, "ErrorAccessDenied"), "no .Shared scope");

    let both = sign_in("Mail.ReadWrite.Shared").await;
    rig.graph(&both, &inbox).await.good();
    rig.graph(&both, "/me/mailFolders/inbox").await.good();
    assert_eq!(rig.graph(&both, &format!("/users/{}/mailboxSettings", shared.id())).await.status, 403);
    shared.set_full_access("facturen@contoso.nl", false);
    assert_eq!(rig.graph(&both, &inbox).await.graph_code(), "ErrorAccessDenied");
    rig.fake.configure(|settings| settings.stranger_code = Some("ErrorFolderNotFound".into()));
    let refused = rig.graph(&both, &inbox).await;
    assert_eq!((refused.status, refused.graph_code().as_str()), (404, "ErrorFolderNotFound"));
    // The directory shows others only with a permission for it.
    let profile = sign_in("User.Read").await;
    rig.graph(&profile, "/users/facturen@contoso.nl").await.good();
    assert_eq!(rig.graph(&profile, "/users/gedeeld@contoso.nl").await.graph_code(), "Authorization_RequestDenied");
    assert_eq!(rig.graph(&profile, "/me/mailFolders/inbox").await.status, 403);

    // An application is nobody.
    let app = rig.fake.app("job").secret("right").permissions(["Mail.ReadWrite", "User.Read.All"]).create();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &app.client_id()),
        ("client_secret", "right"),
        ("scope", "https://graph.microsoft.com/.default"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let token = rig.token(&form).await.good();
    for path in ["/me", "/me/mailFolders/inbox"] {
        let refused = rig.graph(&token, path).await;
        assert_eq!((refused.status, refused.graph_code().as_str()), (400, "BadRequest"));
    }
    rig.graph(&token, &inbox).await.good();
}

#[tokio::test]
async fn exchange_tokens_open_mailboxes_by_imap() {
    let imap = "https://outlook.office.com/IMAP.AccessAsUser.All";
    let rig = Rig::with(|app| {
        app.secret("right")
            .redirect_uri(CALLBACK)
            .delegated_permissions([imap, "https://graph.microsoft.com/IMAP.AccessAsUser.All"])
            .permissions(["IMAP.AccessAsApp", "Mail.ReadWrite"])
            .imap_mailboxes(["gedeeld@contoso.nl"])
    })
    .await;
    let shared = rig.fake.mailbox("gedeeld@contoso.nl").shared().create();
    let sign_in = async |scope: &str| {
        let callback = rig.fake.sign_in_as(&rig.link().with("scope", scope).url(), &rig.user).await;
        rig.redeem(&code(&callback), &[]).await.good()["access_token"].as_str().unwrap().to_owned()
    };
    let token = sign_in(imap).await;
    assert_eq!(rig.fake.imap_login(&token, "facturen@contoso.nl"), ImapAnswer::Accepted);
    assert_eq!(rig.fake.imap_login(&token, "gedeeld@contoso.nl"), ImapAnswer::NotConnected);
    assert_eq!(rig.fake.imap_login(&token, "niemand@contoso.nl"), ImapAnswer::NotConnected);
    shared.set_full_access("facturen@contoso.nl", true);
    assert_eq!(rig.fake.imap_login(&token, "gedeeld@contoso.nl"), ImapAnswer::Accepted);
    for refused in [sign_in("https://graph.microsoft.com/IMAP.AccessAsUser.All").await, "nonsense".into()] {
        assert!(matches!(rig.fake.imap_login(&refused, "facturen@contoso.nl"), ImapAnswer::Refused(_)));
    }
    // Graph refuses the other's audience too.
    assert_eq!(rig.graph(&json!({"access_token": token}), "/me").await.status, 401);

    let app_token = async |scope: &str| {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &rig.app.client_id()),
            ("client_secret", "right"),
            ("scope", scope),
        ];
        rig.token(&form).await.good()["access_token"].clone()
    };
    let app = app_token("https://outlook.office365.com/.default").await;
    assert_eq!(claims(&app)["roles"], json!(["IMAP.AccessAsApp"]), "only Exchange's permissions");
    let app = app.as_str().unwrap();
    assert_eq!(rig.fake.imap_login(app, "gedeeld@contoso.nl"), ImapAnswer::Accepted);
    assert_eq!(rig.fake.imap_login(app, "facturen@contoso.nl"), ImapAnswer::NotConnected);
    let graph = app_token("https://graph.microsoft.com/.default").await;
    assert!(matches!(rig.fake.imap_login(graph.as_str().unwrap(), "gedeeld@contoso.nl"), ImapAnswer::Refused(_)));

    // What Dovecot asks.
    let ask = async |path: &str, token: &str| rig.post(path, &[("token", token)]).await.good();
    let own = ask("introspect", &token).await;
    assert_eq!((&own["active"], &own["email"]), (&json!(true), &json!("facturen@contoso.nl")));
    assert_eq!(ask("introspect/gedeeld@contoso.nl", app).await["username"], "gedeeld@contoso.nl");
    assert_eq!(ask("introspect", "nonsense").await["active"], false);
    shared.set_full_access("facturen@contoso.nl", false);
    assert_eq!(ask("introspect/gedeeld@contoso.nl", &token).await["email"], "facturen@contoso.nl");
    let url = format!("{}/introspect?token={token}", rig.fake.login_url());
    assert_eq!(answer(rig.http.get(url)).await.good()["active"], true);
    rig.fake.advance(Duration::from_secs(3700));
    assert_eq!(ask("introspect", &token).await["active"], false);
}

#[tokio::test]
async fn people_of_another_tenant() {
    let rig = Rig::with(|app| {
        app.secret("right").redirect_uri(CALLBACK).multi_tenant().requested_permissions(["Mail.ReadWrite"])
    })
    .await;
    let fabrikam = rig.fake.add_tenant("fabrikam.nl");
    let there = rig.fake.mailbox("inkoop@fabrikam.nl").in_tenant("fabrikam.nl").create();
    let admin = rig.fake.mailbox("baas@fabrikam.nl").in_tenant(&fabrikam).admin().create();

    // At the first tenant's address there is no such person.
    let refused = fields(&rig.fake.sign_in_as(&rig.link().url(), &there).await);
    assert!(refused["error_description"].starts_with("AADSTS50020: "), "{refused:?}");
    for tenant in ["common", "organizations", "fabrikam.nl"] {
        let link = rig.link().tenant(&rig.fake, tenant).url();
        let callback = rig.fake.sign_in_as(&link, &there).await;
        // Redeemed at the first tenant it is worth nothing.
        rig.redeem(&code(&callback), &[]).await.refused(400, "invalid_grant", 70000);
        let client_id = rig.app.client_id();
        let found = code(&callback);
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", client_id.as_str()),
            ("client_secret", "right"),
            ("code", &found),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ];
        let answer = rig.post(&format!("{tenant}/oauth2/v2.0/token"), &form).await.good();
        assert_eq!(claims(&answer["id_token"])["tid"], fabrikam);
        rig.graph(&answer, "/me").await.good();
        assert_eq!(rig.graph(&answer, "/users/facturen@contoso.nl/messages").await.graph_code(), "ErrorInvalidUser");
    }
    // A live session from elsewhere is picked, and refused.
    let mut browser = rig.fake.browser();
    browser.sign_in(&rig.link().tenant(&rig.fake, "organizations").url(), &there).await;
    let refused = fields(&browser.sign_in(&rig.link().url(), &there).await);
    assert!(refused["error_description"].starts_with("AADSTS16000: "), "{refused:?}");

    // The application itself comes there by an administrator's consent.
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &rig.app.client_id()),
        ("client_secret", "right"),
        ("scope", "https://graph.microsoft.com/.default"),
    ];
    rig.post("fabrikam.nl/oauth2/v2.0/token", &form).await.refused(400, "unauthorized_client", 700016);
    let mut link = rig.link();
    link.base = format!("{}/organizations/v2.0/adminconsent", rig.fake.login_url());
    link.parameters.retain(|(name, _)| ["client_id", "redirect_uri", "state"].contains(&name.as_str()));
    let link = link.with("scope", "https://graph.microsoft.com/.default").url();
    assert_eq!(fields(&rig.fake.sign_in_as(&link, &admin).await)["tenant"], fabrikam);
    let answer = rig.post("fabrikam.nl/oauth2/v2.0/token", &form).await.good();
    assert_eq!(claims(&answer["access_token"])["roles"], json!(["Mail.ReadWrite"]));
    rig.graph(&answer, "/users/inkoop@fabrikam.nl/mailFolders/inbox").await.good();
    assert_eq!(rig.graph(&answer, "/users/facturen@contoso.nl/messages").await.graph_code(), "ErrorInvalidUser");
}

#[tokio::test]
async fn a_capable_client_is_challenged_when_sessions_are_revoked() {
    let rig = Rig::new().await;
    let capable = r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#;
    let plain = rig.signed_in().await;
    let link = rig.link().with("claims", capable).url();
    let code = code(&rig.fake.sign_in_as(&link, &rig.user).await);
    let answer = rig.redeem(&code, &[("claims", Some(capable))]).await.good();
    rig.graph(&answer, "/me").await.good();
    rig.user.sign_out_everywhere();
    rig.graph(&plain, "/me").await.good();
    let url = format!("{}/v1.0/me", rig.fake.graph_url());
    let refused = rig.http.get(url).bearer_auth(answer["access_token"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert!(refused.headers()["www-authenticate"].to_str().unwrap().contains("error=\"insufficient_claims\""));
    rig.graph(&rig.signed_in().await, "/me").await.good();
}

/// Every code of the error list that a mail client meets, at both places that tell it.
#[tokio::test]
async fn every_code_can_be_scripted() {
    let rig = Rig::new().await;
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", &rig.app.client_id()),
        ("client_secret", "right"),
        ("refresh_token", "any"),
    ];
    for code in [
        7000215, 7000222, 7000218, 700025, 7000112, 700016, 700027, 700024, 50012, 70021, 700213, 90002, 900023, 90038,
        50194, 9001023, 90130, 90124, 50011, 900971, 9002325, 9002327, 501481, 54005, 70008, 700082, 700084, 70043,
        70000, 50173, 50132, 50133, 50089, 50076, 50079, 50072, 50074, 50158, 53003, 53000, 53001, 530032, 530035,
        50105, 65001, 65004, 90094, 90095, 650057, 650056, 65005, 650052, 500011, 70011, 1002012, 28000, 700022, 50034,
        50020, 16000, 50126, 50053, 50055, 50057, 50058, 50196, 90033, 90055, 9002313, 900144, 90014, 900561, 900382,
        900432,
    ] {
        rig.fake.fault(Fault::aadsts(code).times(1));
        let body = rig.token(&form).await.json();
        assert_eq!(body["error_codes"], json!([code]), "{body}");
        let description = body["error_description"].as_str().unwrap();
        assert!(description.starts_with(&format!("AADSTS{code}: ")), "{description}");
        assert!(
            description.contains("\r\nTrace ID: ") && description.contains("\r\nCorrelation ID: "),
            "{description}"
        );
        assert!(description.ends_with(&format!("\r\nTimestamp: {}", body["timestamp"].as_str().unwrap())));
        assert!(body["timestamp"].as_str().unwrap().contains(' '), "a space in place of the T");
        rig.fake.fault(Fault::aadsts_redirect(code).times(1));
        let (status, location) = rig.shown(&rig.link()).await;
        assert_eq!(status, 302, "{location}");
        assert!(fields(&location)["error_description"].starts_with(&format!("AADSTS{code}: ")), "{location}");
    }
    rig.fake.fault(Fault::entra(400, "slow_down", 0, "").times(1));
    assert!(rig.token(&form).await.refused(400, "slow_down", 0).get("error_codes").is_none());
}
