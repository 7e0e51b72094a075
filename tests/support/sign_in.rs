//! Signing in at the fake of Entra with plain HTTP, so that nothing of the library's own client stands between.
#![allow(dead_code, reason = "each test program uses its part")]

use mail_account::testing::graph::{App, AppBuilder, GraphFake, Mailbox};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

pub(crate) const VERIFIER: &str = "a-verifier-of-these-tests-0123456789-0123456789";
pub(crate) const CALLBACK: &str = "https://host.example/callback";
pub(crate) const GRAPH: &str = "https://graph.microsoft.com/";
pub(crate) const SCOPES: &str =
    "openid profile offline_access https://graph.microsoft.com/Mail.ReadWrite https://graph.microsoft.com/User.Read";
pub(crate) const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {} {}", self.status, self.text))
    }

    #[track_caller]
    pub(crate) fn good(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }

    #[track_caller]
    pub(crate) fn refused(&self, status: u16, error: &str, code: u32) -> Value {
        let body = self.json();
        assert_eq!((self.status, body["error"].as_str().unwrap()), (status, error), "{body}");
        if code != 0 {
            assert_eq!(body["error_codes"], json!([code]), "{body}");
            assert!(body["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{code}: ")), "{body}");
        }
        body
    }

    pub(crate) fn graph_code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

pub(crate) struct Rig {
    pub(crate) fake: GraphFake,
    pub(crate) app: App,
    pub(crate) user: Mailbox,
    pub(crate) http: reqwest::Client,
}

impl Rig {
    pub(crate) async fn new() -> Rig {
        Rig::with(|app| app.secret("right").redirect_uri(CALLBACK)).await
    }

    /// A public client whose redirect is on loopback.
    pub(crate) async fn native() -> Rig {
        Rig::with(|app| app.public_client().native_redirect_uri("http://localhost")).await
    }

    pub(crate) async fn with(build: impl FnOnce(AppBuilder) -> AppBuilder) -> Rig {
        let fake = GraphFake::start().await;
        let app = fake.app("Invoices").delegated_permissions(["Mail.ReadWrite", "Mail.ReadWrite.Shared", "User.Read"]);
        let app = build(app).create();
        let user = fake.mailbox("facturen@contoso.nl").display_name("Facturen").create();
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Rig { fake, app, user, http }
    }

    pub(crate) fn link(&self) -> Link {
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

    pub(crate) async fn post(&self, path: &str, form: &[(&str, &str)]) -> Reply {
        let url = format!("{}/{path}", self.fake.login_url());
        answer(self.http.post(url).form(form)).await
    }

    pub(crate) async fn token(&self, form: &[(&str, &str)]) -> Reply {
        self.post(&format!("{}/oauth2/v2.0/token", self.fake.tenant()), form).await
    }

    pub(crate) async fn redeem(&self, code: &str, change: &[(&str, Option<&str>)]) -> Reply {
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

    pub(crate) async fn refresh(&self, token: &str, change: &[(&str, Option<&str>)]) -> Reply {
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
    pub(crate) async fn signed_in(&self) -> Value {
        let code = code(&self.fake.sign_in_as(&self.link().url(), &self.user).await);
        self.redeem(&code, &[]).await.good()
    }

    pub(crate) async fn graph(&self, token: &Value, path: &str) -> Reply {
        let url = format!("{}/v1.0{path}", self.fake.graph_url());
        answer(self.http.get(url).bearer_auth(token["access_token"].as_str().unwrap())).await
    }

    /// What the link shows without any session: the AADSTS code on an error page, or in the redirect.
    pub(crate) async fn shown(&self, link: &Link) -> (u16, String) {
        let response = self.http.get(link.url()).send().await.unwrap();
        let status = response.status().as_u16();
        let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
        (status, location.unwrap_or(response.text().await.unwrap()))
    }

    /// Refused on a page, because nobody may be told by redirect.
    pub(crate) async fn refused_on_page(&self, link: &Link, code: u32) {
        let (status, text) = self.shown(link).await;
        assert!(status == 400 && text.contains(&format!("data-code=\"{code}\"")), "{status} {text}");
    }

    pub(crate) async fn refused_by_redirect(&self, link: &Link, error: &str, code: u32) {
        let (status, location) = self.shown(link).await;
        assert_eq!(status, 302, "{location}");
        let fields = fields(&location);
        assert_eq!(fields["error"], error, "{location}");
        assert!(fields["error_description"].starts_with(&format!("AADSTS{code}: ")), "{location}");
        assert_eq!(fields["state"], "s1");
        assert!(!fields.contains_key("code"));
    }
}

pub(crate) struct Link {
    pub(crate) base: String,
    pub(crate) parameters: Vec<(String, String)>,
}

impl Link {
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.parameters.retain(|(known, _)| known != name);
        self
    }

    pub(crate) fn tenant(mut self, from: &GraphFake, tenant: &str) -> Self {
        self.base = format!("{}/{tenant}/oauth2/v2.0/authorize", from.login_url());
        self
    }

    pub(crate) fn url(&self) -> String {
        url::Url::parse_with_params(&self.base, &self.parameters).unwrap().to_string()
    }
}

pub(crate) fn changed<'a>(
    form: &[(&'a str, &'a str)],
    change: &[(&'a str, Option<&'a str>)],
) -> Vec<(&'a str, &'a str)> {
    let kept = form.iter().filter(|(name, _)| !change.iter().any(|(changed, _)| changed == name)).copied();
    kept.chain(change.iter().filter_map(|(name, value)| Some((*name, (*value)?)))).collect()
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    Reply { status: response.status().as_u16(), text: response.text().await.unwrap() }
}

pub(crate) fn base64_url(bytes: &[u8]) -> String {
    base64_simd::URL_SAFE_NO_PAD.encode_to_string(bytes)
}

/// The parameters of a callback, in its query or fragment.
pub(crate) fn fields(callback: &str) -> HashMap<String, String> {
    let (_, query) = callback.split_once(['?', '#']).unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

#[track_caller]
pub(crate) fn code(callback: &str) -> String {
    fields(callback).remove("code").unwrap_or_else(|| panic!("no code in {callback}"))
}

pub(crate) fn claims(jwt: &Value) -> Value {
    let part = jwt.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&base64_simd::URL_SAFE_NO_PAD.decode_to_vec(part).unwrap()).unwrap()
}

pub(crate) fn refresh_token(answer: &Value) -> String {
    answer["refresh_token"].as_str().unwrap_or_else(|| panic!("no refresh token in {answer}")).to_owned()
}

impl Rig {
    pub(crate) async fn device_code(&self, scope: &str) -> Value {
        let path = format!("{}/oauth2/v2.0/devicecode", self.fake.tenant());
        self.post(&path, &[("client_id", &self.app.client_id()), ("scope", scope)]).await.good()
    }

    pub(crate) async fn poll(&self, device: &Value) -> Reply {
        let code = device["device_code"].as_str().unwrap();
        self.token(&[("grant_type", DEVICE_GRANT), ("client_id", &self.app.client_id()), ("device_code", code)]).await
    }
}

impl Rig {
    /// A token of the application itself.
    pub(crate) async fn app_token(&self, tenant: &str, client_id: &str, scope: &str) -> Reply {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("client_secret", "right"),
            ("scope", scope),
        ];
        self.post(&format!("{tenant}/oauth2/v2.0/token"), &form).await
    }

    /// A link to an admin consent endpoint.
    pub(crate) fn consent_link(&self, path: &str, scope: Option<&str>) -> String {
        let mut link = self.link();
        link.base = format!("{}/{path}", self.fake.login_url());
        link.parameters.retain(|(name, _)| ["client_id", "redirect_uri", "state"].contains(&name.as_str()));
        match scope {
            Some(scope) => link.with("scope", scope).url(),
            None => link.url(),
        }
    }
}
