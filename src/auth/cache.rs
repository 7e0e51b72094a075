//! Access tokens that are kept: replaced early, asked for once however many wait, thrown away when refused.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;

use super::TokenProvider;
use crate::{Context, Error, Result, Secret};

/// A token is replaced this long before it expires, so that none expires on its way ("refresh 5 minutes early").
const EARLY: Duration = Duration::from_secs(300);

/// How long a refusal is remembered. Thousands of mailboxes may wait for the same answer, and asking again with the
/// same credential ends in being locked out (AADSTS50196).
const REFUSAL: Duration = Duration::from_secs(30);

/// An access token, and when it was asked for.
#[derive(Clone)]
pub(crate) struct Token {
    pub(super) secret: Secret,
    pub(super) asked: Timestamp,
    pub(super) lives: Duration,
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

/// Who asks for a new token.
pub(crate) trait Source: fmt::Debug + Send + Sync + 'static {
    /// Asks, unless the same was refused a moment ago. `claims` answers a challenge.
    fn fetch(&self, claims: Option<&str>, refused: &mut Refused) -> impl Future<Output = Result<Token>> + Send;
}

/// The last refusal, and of what.
#[derive(Default)]
pub(crate) struct Refused(Option<(Timestamp, Error, [u8; 32])>);

impl Refused {
    /// The refusal of the same within the last half minute.
    pub(super) fn recall(&self, now: Timestamp, of: &[u8; 32]) -> Option<Error> {
        let (at, error, what) = self.0.as_ref()?;
        let age = Duration::try_from(now.duration_since(*at)).ok()?;
        (what == of && age < REFUSAL).then(|| again(error))
    }

    pub(super) fn note(&mut self, now: Timestamp, of: [u8; 32], error: &Error) {
        self.0 = Some((now, again(error), of));
    }

    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}

/// The tokens of one source.
pub(crate) struct Tokens<S> {
    source: S,
    context: Context,
    held: Mutex<Held>,
    /// Held while a token is being asked for: one request however many wait.
    flight: tokio::sync::Mutex<Refused>,
}

#[derive(Default)]
struct Held {
    token: Option<Token>,
    /// Of a challenge, for the next request.
    claims: Option<String>,
}

impl<S: Source> Tokens<S> {
    pub(super) fn of(source: S, context: Context) -> Arc<Self> {
        Arc::new(Self { source, context, held: Mutex::default(), flight: tokio::sync::Mutex::default() })
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> Option<Secret> {
        let now = self.context.now();
        self.held().token.as_ref().filter(|token| token.is_fresh(now)).map(|token| token.secret.clone())
    }
}

#[async_trait]
impl<S: Source> TokenProvider for Tokens<S> {
    async fn token(&self) -> Result<Secret> {
        if let Some(token) = self.fresh() {
            return Ok(token);
        }
        let mut refused = self.flight.lock().await;
        if let Some(token) = self.fresh() {
            return Ok(token);
        }
        let claims = self.held().claims.clone();
        match self.source.fetch(claims.as_deref(), &mut refused).await {
            Ok(token) => {
                let secret = token.secret.clone();
                let mut held = self.held();
                held.token = Some(token);
                // The challenge is answered.
                held.claims.take_if(|pending| claims.as_ref() == Some(pending));
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

impl<S: Source> fmt::Debug for Tokens<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("source", &self.source).finish_non_exhaustive()
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
