//! Tokens of an app that signs in by itself ("OAuth 2.0 client credentials flow", Microsoft identity platform).

use std::sync::Arc;

use super::{
    cache::{Refused, Source, Token, Tokens},
    endpoint::Endpoint,
};
use crate::{Result, auth::entra::Refusal};

/// An app that signs in by itself, for one resource.
#[derive(Debug)]
pub(crate) struct App {
    endpoint: Arc<Endpoint>,
    scope: String,
}

impl App {
    pub(crate) fn tokens(endpoint: Arc<Endpoint>, scope: String) -> Arc<Tokens<Self>> {
        let context = endpoint.context().clone();
        Tokens::of(Self { endpoint, scope }, context)
    }
}

impl Source for App {
    async fn fetch(&self, claims: Option<&str>, refused: &mut Refused) -> Result<Token> {
        let now = self.endpoint.context().now();
        let material = self.endpoint.material().await?;
        let proofs = material.fingerprint();
        if let Some(error) = refused.recall(now, &proofs) {
            return Err(error);
        }
        let mut form = vec![("grant_type", "client_credentials"), ("scope", self.scope.as_str())];
        form.extend(claims.map(|claims| ("claims", claims)));
        match self.endpoint.grant(&material, &form, &[]).await {
            Ok(granted) => {
                refused.forget();
                Ok(granted.token)
            }
            Err(Refusal { error, .. }) => {
                refused.note(self.endpoint.context().now(), proofs, &error);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicU32, Ordering},
        },
        time::Duration,
    };

    use async_trait::async_trait;
    use jiff::Timestamp;
    use url::Url;

    use super::*;
    use crate::{
        Clock, Context, Error, ErrorKind, Secret, SecretSource,
        auth::{
            Registration, TokenProvider as _,
            endpoint::{Ask, Judge, Reply, Verdict},
        },
        setting::Places,
    };

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
    impl Ask for Door {
        async fn get(&self, _: &Url, _: &Secret, _: &Judge<'_>) -> Result<Reply> {
            unreachable!("an app reads nothing about itself")
        }

        async fn post(&self, _: &Url, form: &[(&str, &str)], judge: &Judge<'_>) -> Result<Reply> {
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

    fn tokens(door: &Arc<Door>, secrets: &[&str]) -> (Arc<Tokens<App>>, Arc<Settable>) {
        let clock = Arc::new(Settable(Mutex::new("2026-01-31T10:00:00Z".parse().unwrap())));
        let secret = |at: usize| secrets.get(at).map(|s| SecretSource::Literal(Secret::new(*s)));
        let app = Registration {
            client_id: Some(ID.into()),
            client_secret: secret(0),
            client_secret_next: secret(1),
            ..Registration::default()
        };
        let url = Url::parse("https://login.microsoftonline.com/contoso.nl/oauth2/v2.0/token").unwrap();
        let context = Context::default().with_clock(clock.clone());
        let scope = "https://graph.microsoft.com/.default".to_owned();
        let endpoint = Endpoint::new(app, Places::new("a"), url, context, door.clone());
        (App::tokens(Arc::new(endpoint), scope), clock)
    }

    async fn text(tokens: &Tokens<App>) -> String {
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
