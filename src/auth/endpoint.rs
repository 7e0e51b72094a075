//! An app at its token endpoint: what it shows there beside the form, and the answer.
//!
//! The crate `oauth2` makes links and PKCE challenges (`hand_over.rs`) and reads device codes (`device.rs`), but does
//! not ask for tokens: through its types the service's Retry-After, its error codes and its request ids would be lost,
//! and a second secret during a rotation has no place there. A request for a token is one form and one answer, and is
//! made by whoever is handed in as [`Ask`], so that nothing in `auth` opens a connection.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use url::Url;

use super::{
    Registration,
    cache::Token,
    credential::{self, Material, Proof},
    entra::{self, Refusal},
};
use crate::{Context, Error, ErrorKind, Result, Secret, setting::Places};

/// Asks services over HTTP, again where the answer says so. Gives the first answer that `judge` calls final.
#[async_trait]
pub(crate) trait Ask: fmt::Debug + Send + Sync + 'static {
    /// Sends a form.
    async fn post(&self, url: &Url, form: &[(&str, &str)], judge: &Judge<'_>) -> Result<Reply>;

    /// Reads something with an access token.
    async fn get(&self, url: &Url, token: &Secret, judge: &Judge<'_>) -> Result<Reply>;
}

/// Whether an answer is final.
pub(crate) type Judge<'a> = dyn for<'r> Fn(&'r Reply) -> Verdict + Sync + 'a;

/// An answer.
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

/// One app at one token endpoint.
pub(crate) struct Endpoint {
    app: Registration,
    places: Places,
    url: Url,
    client_id: String,
    context: Context,
    ask: Arc<dyn Ask>,
    learnt: Mutex<Learnt>,
}

/// Of several secrets of an app, the one that worked last: 0 for `client_secret`, 1 for `client_secret_next`. Known to
/// all who use one context, so that each registration learns it once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Worked(Arc<Mutex<HashMap<(Url, String), usize>>>);

impl Worked {
    /// `None` when no token was asked for yet. An app is its token endpoint and its client id.
    pub(crate) fn of(&self, url: &Url, client_id: &str) -> Option<usize> {
        self.map().get(&(url.clone(), client_id.to_owned())).copied()
    }

    fn note(&self, url: &Url, client_id: &str, at: usize) {
        self.map().insert((url.clone(), client_id.to_owned()), at);
    }

    fn map(&self) -> MutexGuard<'_, HashMap<(Url, String), usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, Default)]
struct Learnt {
    /// How far the service's clock is ahead of ours.
    skew: SignedDuration,
}

/// What the service gave.
pub(crate) struct Granted {
    pub(crate) token: Token,
    pub(crate) refresh_token: Option<Secret>,
    pub(crate) id_token: Option<Secret>,
    /// As the service listed them; may be less or more than what was asked for.
    pub(crate) scopes: Vec<String>,
}

impl Endpoint {
    pub(crate) fn new(app: Registration, places: Places, url: Url, context: Context, ask: Arc<dyn Ask>) -> Self {
        let client_id = app.client_id.as_deref().unwrap_or_default().trim().to_owned();
        Self { app, places, url, client_id, context, ask, learnt: Mutex::default() }
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    pub(super) fn asker(&self) -> &dyn Ask {
        &*self.ask
    }

    /// What the app proves itself with; read anew for every token.
    pub(super) async fn material(&self) -> Result<Material> {
        credential::read(self.app.clone(), self.places.clone()).await
    }

    fn learnt(&self) -> std::sync::MutexGuard<'_, Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for tokens. One of the proofs must do: during a rotation there are two. `secrets` are those in the form,
    /// which the service's words may quote.
    pub(super) async fn grant(
        &self,
        material: &Material,
        form: &[(&str, &str)],
        secrets: &[&Secret],
    ) -> Result<Granted, Refusal> {
        let mut last = None;
        let worked = self.context.worked();
        let (count, first) = (material.len(), worked.of(&self.url, &self.client_id).unwrap_or_default());
        for turn in 0..count {
            let at = (first + turn) % count;
            match self.grant_in_time(material, at, form, secrets).await {
                Ok(granted) => {
                    // Of several: what a public client was given without proof says nothing about secrets.
                    if count > 1 {
                        worked.note(&self.url, &self.client_id, at);
                    }
                    return Ok(granted);
                }
                Err(refusal) => {
                    let other_may_do = refusal.error.kind() == ErrorKind::Unauthenticated;
                    last = Some(refusal);
                    if !other_may_do {
                        break;
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::new(ErrorKind::InvalidConfig, "there is nothing to sign in with").into()))
    }

    /// Asks with a refresh token. One of a public client, such as a device code gives, is used without proof even where
    /// the app has one (AADSTS700025).
    pub(super) async fn refresh(
        &self,
        material: &Material,
        refresh_token: &Secret,
        more: &[(&str, &str)],
    ) -> Result<Granted, Refusal> {
        let form = [&[("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())], more].concat();
        match self.grant(material, &form, &[refresh_token]).await {
            Err(refusal) if refusal.error.code() == Some("AADSTS700025") && !matches!(material, Material::Public) => {
                self.grant(&Material::Public, &form, &[refresh_token]).await
            }
            answer => answer,
        }
    }

    async fn grant_in_time(
        &self,
        material: &Material,
        at: usize,
        form: &[(&str, &str)],
        secrets: &[&Secret],
    ) -> Result<Granted, Refusal> {
        let first = self.grant_once(material, at, form, secrets).await;
        // "The assertion is not within its valid time range": our clock is wrong, and the answer told the right time.
        let skew = self.learnt().skew;
        match first {
            Err(refusal)
                if refusal.error.code().is_some_and(|code| code == "AADSTS700024")
                    && material.is_dated()
                    && skew.unsigned_abs() > Duration::from_secs(60) =>
            {
                tracing::warn!(seconds = skew.as_secs(), "this machine's clock is off; check its time service");
                self.grant_once(material, at, form, secrets).await
            }
            other => other,
        }
    }

    async fn grant_once(
        &self,
        material: &Material,
        at: usize,
        form: &[(&str, &str)],
        secrets: &[&Secret],
    ) -> Result<Granted, Refusal> {
        let now = self.context.now();
        let told = now.checked_add(self.learnt().skew).unwrap_or(now);
        let proof = material.proof(at, &self.client_id, &self.url, told)?;
        let mut form = [form, &[("client_id", self.client_id.as_str())]].concat();
        match &proof {
            Some(Proof::Secret(secret)) => form.push(("client_secret", secret.expose())),
            Some(Proof::Assertion(jwt)) => form.extend([
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                ("client_assertion", jwt.expose()),
            ]),
            None => {}
        }
        let secrets: Vec<&Secret> = secrets.iter().copied().chain(proof.as_ref().map(Proof::secret)).collect();
        let judge = |reply: &Reply| entra::judge(reply, &secrets);
        let reply = self.ask.post(&self.url, &form, &judge).await?;
        if let Some(date) = reply.date {
            self.learnt().skew = date.duration_since(self.context.now());
        }
        let body = entra::read(&reply, &secrets)?;
        Ok(Granted {
            token: Token { secret: body.token, asked: now, lives: body.lives },
            refresh_token: body.refresh_token,
            id_token: body.id_token,
            scopes: body.scopes,
        })
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("client_id", &self.client_id)
            .field("url", &self.url.as_str())
            .finish_non_exhaustive()
    }
}
