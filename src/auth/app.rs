//! Tokens of an app that signs in by itself ("OAuth 2.0 client credentials flow", Microsoft identity platform).
//!
//! Three storeys: [`TokenProvider`] is what a service's client sees; the cache is here; `credential.rs` says what to
//! show at the door. The request itself is made by whoever is handed in as [`PostForm`], so that nothing in `auth` opens
//! a connection. The crate `oauth2` is not used for this grant: it is one form and one answer, and through its types
//! the service's Retry-After, its error codes and its request ids would be lost.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use url::Url;

use super::{
    Registration, TokenProvider,
    credential::{self, Proof},
    entra,
};
use crate::{Context, Error, ErrorKind, Result, Secret, setting::Places};

/// Sends forms to the sign-in service, again where the answer says so.
#[async_trait]
pub(crate) trait PostForm: fmt::Debug + Send + Sync + 'static {
    /// The first answer that `judge` calls final.
    async fn post(
        &self,
        url: &Url,
        form: &[(&str, &str)],
        judge: &(dyn for<'a> Fn(&'a Reply) -> Verdict + Sync),
    ) -> Result<Reply>;
}

/// An answer of the sign-in service.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) date: Option<Timestamp>,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The body may be a token.
        f.debug_struct("Reply").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Whether to ask again.
#[derive(Debug)]
pub(crate) enum Verdict {
    Final,
    /// It may pass; the error if it does not.
    Again(Error),
}

/// A token is replaced this long before it expires, so that none expires on its way ("refresh 5 minutes early").
const EARLY: Duration = Duration::from_secs(300);

/// How long a refusal is remembered. Thousands of mailboxes may wait for the same answer, and asking again with the
/// same credential ends in being locked out (AADSTS50196).
const REFUSAL: Duration = Duration::from_secs(30);

/// The tokens of one app for one resource.
pub(crate) struct AppTokens {
    app: Registration,
    places: Places,
    url: Url,
    client_id: String,
    scope: String,
    context: Context,
    post: Arc<dyn PostForm>,
    held: Mutex<Held>,
    /// Held while a token is being asked for: one request however many wait.
    flight: tokio::sync::Mutex<Flight>,
}

#[derive(Default)]
struct Held {
    token: Option<Token>,
    /// Of a challenge, for the next request.
    claims: Option<String>,
}

#[derive(Clone)]
struct Token {
    secret: Secret,
    asked: Timestamp,
    lives: Duration,
}

#[derive(Default)]
struct Flight {
    refused: Option<Refused>,
    /// Of several proofs, the one that worked.
    worked: usize,
    /// How far the service's clock is ahead of ours.
    skew: jiff::SignedDuration,
}

struct Refused {
    at: Timestamp,
    error: Error,
    proofs: [u8; 32],
}

impl Token {
    fn left(&self, now: Timestamp) -> Duration {
        let age = Duration::try_from(now.duration_since(self.asked)).unwrap_or_default();
        self.lives.saturating_sub(age)
    }

    fn is_fresh(&self, now: Timestamp) -> bool {
        // Some services give tokens that live for minutes; those are used for three quarters of their life.
        self.left(now) > EARLY.min(self.lives / 4)
    }
}

impl AppTokens {
    pub(crate) fn new(
        app: Registration,
        places: Places,
        url: Url,
        client_id: String,
        scope: String,
        context: Context,
        post: Arc<dyn PostForm>,
    ) -> Self {
        Self {
            app,
            places,
            url,
            client_id,
            scope,
            context,
            post,
            held: Mutex::default(),
            flight: tokio::sync::Mutex::default(),
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> Option<Secret> {
        let now = self.context.now();
        self.held().token.as_ref().filter(|token| token.is_fresh(now)).map(|token| token.secret.clone())
    }

    /// One of the proofs must do: during a rotation there are two.
    async fn fetch(&self, flight: &mut Flight) -> Result<Token> {
        let now = self.context.now();
        let material = credential::read(self.app.clone(), self.places.clone()).await?;
        let proofs = material.fingerprint();
        if let Some(refused) = &flight.refused
            && refused.proofs == proofs
            && Duration::try_from(now.duration_since(refused.at)).is_ok_and(|age| age < REFUSAL)
        {
            return Err(again(&refused.error));
        }
        let mut last = None;
        let count = material.len();
        for turn in 0..count {
            let at = (flight.worked + turn) % count;
            match self.ask(&material, at, flight).await {
                Ok(token) => {
                    flight.worked = at;
                    flight.refused = None;
                    return Ok(token);
                }
                Err(error) => {
                    let other_may_do = error.kind() == ErrorKind::Unauthenticated;
                    last = Some(error);
                    if !other_may_do {
                        break;
                    }
                }
            }
        }
        let error = last.unwrap_or_else(|| Error::new(ErrorKind::InvalidConfig, "there is nothing to sign in with"));
        flight.refused = Some(Refused { at: self.context.now(), error: again(&error), proofs });
        Err(error)
    }

    async fn ask(&self, material: &credential::Material, at: usize, flight: &mut Flight) -> Result<Token> {
        let first = self.ask_once(material, at, flight).await;
        // "The assertion is not within its valid time range": our clock is wrong, and the answer told the right time.
        match first {
            Err(error)
                if error.code().is_some_and(|code| code == "AADSTS700024")
                    && material.is_dated()
                    && flight.skew.unsigned_abs() > Duration::from_secs(60) =>
            {
                tracing::warn!(seconds = flight.skew.as_secs(), "this machine's clock is off; check its time service");
                self.ask_once(material, at, flight).await
            }
            other => other,
        }
    }

    async fn ask_once(&self, material: &credential::Material, at: usize, flight: &mut Flight) -> Result<Token> {
        let now = self.context.now();
        let told = now.checked_add(flight.skew).unwrap_or(now);
        let proof = material.proof(at, &self.client_id, &self.url, told)?;
        let claims = self.held().claims.clone();
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_id", self.client_id.as_str()),
            ("scope", self.scope.as_str()),
        ];
        match &proof {
            Proof::Secret(secret) => form.push(("client_secret", secret.expose())),
            Proof::Assertion(jwt) => form.extend([
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                ("client_assertion", jwt.expose()),
            ]),
        }
        if let Some(claims) = &claims {
            form.push(("claims", claims));
        }
        let secrets = [proof.secret()];
        let judge = |reply: &Reply| entra::judge(reply, &secrets);
        let reply = self.post.post(&self.url, &form, &judge).await?;
        if let Some(date) = reply.date {
            flight.skew = date.duration_since(self.context.now());
        }
        let granted = entra::read(&reply, &secrets)?;
        // The challenge is answered.
        self.held().claims.take_if(|pending| claims.as_ref() == Some(pending));
        Ok(Token { secret: granted.token, asked: now, lives: granted.lives })
    }
}

#[async_trait]
impl TokenProvider for AppTokens {
    async fn token(&self) -> Result<Secret> {
        if let Some(token) = self.fresh() {
            return Ok(token);
        }
        let mut flight = self.flight.lock().await;
        if let Some(token) = self.fresh() {
            return Ok(token);
        }
        match self.fetch(&mut flight).await {
            Ok(token) => {
                let secret = token.secret.clone();
                self.held().token = Some(token);
                Ok(secret)
            }
            Err(error) => {
                // The early refresh failed, and the token in hand still works.
                let now = self.context.now();
                let held = self.held();
                match &held.token {
                    Some(token) if error.is_retryable() && token.left(now) > Duration::from_secs(60) => {
                        Ok(token.secret.clone())
                    }
                    _ => Err(error),
                }
            }
        }
    }

    fn reject(&self, token: &Secret, claims: Option<&str>) {
        let mut held = self.held();
        if held.token.as_ref().is_some_and(|held| held.secret.expose() == token.expose()) {
            held.token = None;
            if let Some(claims) = claims {
                held.claims = Some(claims.to_owned());
            }
        }
    }
}

impl fmt::Debug for AppTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppTokens")
            .field("client_id", &self.client_id)
            .field("url", &self.url.as_str())
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// The same error for the next one who waits for it.
fn again(error: &Error) -> Error {
    let mut again = Error::new(error.kind(), error.message().to_owned());
    if let Some(account) = error.account() {
        again = again.with_account(account);
    }
    if let Some(code) = error.code() {
        again = again.with_code(code);
    }
    if let Some(wait) = error.retry_after() {
        again = again.with_retry_after(wait);
    }
    error.request_ids().iter().fold(again, Error::with_request_id)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::{Clock, SecretSource};

    const ID: &str = "11111111-2222-3333-4444-555555555555";

    /// A sign-in service that knows one secret, and numbers its tokens.
    #[derive(Debug)]
    struct Door {
        secret: Mutex<&'static str>,
        asked: AtomicU32,
        forms: Mutex<Vec<Vec<(String, String)>>>,
        life: serde_json::Value,
        down: Mutex<bool>,
    }

    impl Door {
        fn new(secret: &'static str, life: serde_json::Value) -> Arc<Self> {
            Arc::new(Self {
                secret: Mutex::new(secret),
                asked: AtomicU32::new(0),
                forms: Mutex::default(),
                life,
                down: Mutex::new(false),
            })
        }

        fn asked(&self) -> u32 {
            self.asked.load(Ordering::SeqCst)
        }
    }

    #[async_trait]
    impl PostForm for Door {
        async fn post(
            &self,
            _: &Url,
            form: &[(&str, &str)],
            judge: &(dyn for<'a> Fn(&'a Reply) -> Verdict + Sync),
        ) -> Result<Reply> {
            tokio::task::yield_now().await;
            if *self.down.lock().unwrap() {
                return Err(Error::new(ErrorKind::Unavailable, "down"));
            }
            let n = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            self.forms.lock().unwrap().push(form.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
            let given = form.iter().find(|(name, _)| *name == "client_secret").map(|(_, value)| *value);
            let (status, body) = if given == Some(*self.secret.lock().unwrap()) {
                (200, serde_json::json!({"token_type":"Bearer","expires_in":self.life,"access_token":format!("t{n}")}))
            } else {
                (
                    401,
                    serde_json::json!({"error":"invalid_client","error_codes":[7000215],
                    "error_description":format!("AADSTS7000215: Invalid client secret provided: '{}'.\r\nTrace ID: x", given.unwrap_or("")),
                    "trace_id":"trace-1","correlation_id":"corr-1"}),
                )
            };
            let reply = Reply {
                status,
                retry_after: None,
                date: None,
                content_type: "application/json".into(),
                body: body.to_string().into(),
            };
            match judge(&reply) {
                Verdict::Final => Ok(reply),
                Verdict::Again(error) => Err(error),
            }
        }
    }

    #[derive(Debug)]
    struct Settable(Mutex<Timestamp>);

    #[async_trait]
    impl Clock for Settable {
        fn now(&self) -> Timestamp {
            *self.0.lock().unwrap()
        }

        async fn sleep(&self, _: Duration) {}
    }

    impl Settable {
        fn pass(&self, seconds: i64) {
            let mut now = self.0.lock().unwrap();
            *now = now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
        }
    }

    fn tokens(door: &Arc<Door>, secrets: &[&str]) -> (AppTokens, Arc<Settable>) {
        let clock = Arc::new(Settable(Mutex::new("2026-01-31T10:00:00Z".parse().unwrap())));
        let secret = |at: usize| secrets.get(at).map(|s| SecretSource::Literal(Secret::new(*s)));
        let app = Registration { client_secret: secret(0), client_secret_next: secret(1), ..Registration::default() };
        let url = Url::parse("https://login.microsoftonline.com/contoso.nl/oauth2/v2.0/token").unwrap();
        let context = Context::default().with_clock(clock.clone());
        let scope = "https://graph.microsoft.com/.default".to_owned();
        (AppTokens::new(app, Places::new("a"), url, ID.into(), scope, context, door.clone()), clock)
    }

    async fn text(tokens: &AppTokens) -> String {
        tokens.token().await.unwrap().expose().to_owned()
    }

    #[tokio::test]
    async fn one_request_however_many_wait() {
        let door = Door::new("right", 3599.into());
        let (tokens, _) = tokens(&door, &["right"]);
        let all = futures::future::join_all((0..100).map(|_| text(&tokens))).await;
        assert!(all.iter().all(|t| t == "t1"));
        assert_eq!(door.asked(), 1);
        let form = &door.forms.lock().unwrap()[0];
        let value = |name: &str| form.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(value("grant_type"), Some("client_credentials"));
        assert_eq!(value("scope"), Some("https://graph.microsoft.com/.default"));
        assert_eq!(value("client_id"), Some(ID));
    }

    #[tokio::test]
    async fn replaced_five_minutes_early_and_kept_when_that_fails() {
        // `expires_in` has been seen as a string.
        let door = Door::new("right", "3600".into());
        let (tokens, clock) = tokens(&door, &["right"]);
        assert_eq!(text(&tokens).await, "t1");
        clock.pass(3_290);
        assert_eq!(text(&tokens).await, "t1");
        clock.pass(20);
        *door.down.lock().unwrap() = true;
        assert_eq!(text(&tokens).await, "t1");
        *door.down.lock().unwrap() = false;
        clock.pass(31);
        assert_eq!(text(&tokens).await, "t2");
        clock.pass(3_600);
        *door.down.lock().unwrap() = true;
        assert_eq!(tokens.token().await.unwrap_err().kind(), ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn a_rejected_token_is_replaced_once_and_a_challenge_is_answered() {
        let door = Door::new("right", 3599.into());
        let (tokens, _) = tokens(&door, &["right"]);
        let dead = tokens.token().await.unwrap();
        tokens.reject(&dead, Some(r#"{"access_token":{"nbf":{"essential":true}}}"#));
        assert_eq!(text(&tokens).await, "t2");
        tokens.reject(&dead, None);
        assert_eq!(text(&tokens).await, "t2");
        tokens.reject(&Secret::new("t2"), None);
        assert_eq!(text(&tokens).await, "t3");
        let forms = door.forms.lock().unwrap();
        let has_claims: Vec<_> = forms.iter().map(|form| form.iter().any(|(name, _)| name == "claims")).collect();
        assert_eq!(has_claims, [false, true, false]);
    }

    #[tokio::test]
    async fn during_a_rotation_both_secrets_work() {
        let door = Door::new("new-secret", 10.into());
        let (tokens, clock) = tokens(&door, &["old-secret", "new-secret"]);
        assert_eq!(text(&tokens).await, "t2");
        // The one that worked goes first from now on.
        clock.pass(60);
        assert_eq!(text(&tokens).await, "t3");
        *door.secret.lock().unwrap() = "old-secret";
        clock.pass(60);
        assert_eq!(text(&tokens).await, "t5");
    }

    #[tokio::test]
    async fn a_refusal_is_named_remembered_and_holds_no_secret() {
        let door = Door::new("right", 3599.into());
        let (tokens, clock) = tokens(&door, &["wrong-but-secret"]);
        for _ in 0..50 {
            let error = tokens.token().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthenticated);
            assert_eq!(error.code(), Some("AADSTS7000215"));
            assert_eq!(error.request_ids(), ["corr-1", "trace-1"]);
            let all = format!("{error:?} {} {tokens:?}", error.chain());
            assert!(!all.contains("wrong-but"), "{all}");
        }
        assert_eq!(door.asked(), 1);
        clock.pass(31);
        tokens.token().await.unwrap_err();
        assert_eq!(door.asked(), 2);
    }
}
