//! Tokens of a person who signed in once ("Refresh tokens", Microsoft identity platform): how the stored sign-in is
//! used and renewed.
//!
//! # Nothing is lost
//!
//! A service may give a new refresh token with every answer, and may take the reuse of an old one for theft. So only
//! one process asks at a time (the store's lease), what it asks with is read after it has the lease, and the new
//! refresh token is stored before the access token is used. A renewal that has begun is finished even when nobody waits
//! for it any more. If a process dies between the answer and our write, the one before it is still stored: it is tried
//! once, when the service does not know the newer one.

use std::{sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{
    cache::{Refused, Source, Token, Tokens},
    credential::Material,
    endpoint::{Endpoint, Granted},
    entra::Refusal,
};
use crate::{
    Error, ErrorKind, Result, Secret,
    store::{RefreshLease, SignIn, SignInId, SignInNeeded, TokenStore},
};

/// How long a renewal may ask; then the lease is given back, and the next caller tries again.
const RENEWAL: Duration = Duration::from_secs(25);

/// How long the lease of a process holds that has died, where nobody can tell that it has: longer than a renewal takes.
const LEASE: Duration = Duration::from_secs(30);

/// How long the lease is waited for: longer than the dead can hold it.
const TURN: Duration = Duration::from_secs(35);

/// A person's sign-in, for one resource. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    endpoint: Arc<Endpoint>,
    /// None: what was granted when the person signed in.
    scope: Option<String>,
    id: SignInId,
    store: Arc<dyn TokenStore>,
}

impl Person {
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        scope: Option<String>,
        id: SignInId,
        store: Arc<dyn TokenStore>,
    ) -> Self {
        Self { endpoint, scope, id, store }
    }

    pub(crate) fn tokens(self) -> Arc<Tokens<Self>> {
        let context = self.endpoint.context().clone();
        Tokens::of(self, context)
    }

    /// Uses the stored sign-in once, so that the service does not forget it.
    pub(crate) async fn renew(&self) -> Result<()> {
        let material = self.endpoint.material().await?;
        self.finish(material, None).await.map(drop)
    }

    /// Renews, whether or not the caller stays to hear of it.
    async fn finish(&self, material: Material, claims: Option<&str>) -> Result<Token> {
        let (person, claims) = (self.clone(), claims.map(str::to_owned));
        let renewal = tokio::spawn(async move { person.renew_alone(&material, claims.as_deref()).await });
        renewal
            .await
            .map_err(|e| Error::new(ErrorKind::Other, "the renewal of a sign-in was broken off").with_source(e))?
    }

    async fn renew_alone(&self, material: &Material, claims: Option<&str>) -> Result<Token> {
        let lease = self.lease().await?;
        let renewed = self.renew_leased(material, claims, Instant::now() + RENEWAL).await;
        if let Err(error) = self.store.unlock(&lease).await {
            tracing::warn!(error = %error.chain(), "the lease on a sign-in could not be given back; it expires");
        }
        renewed
    }

    async fn lease(&self) -> Result<RefreshLease> {
        let context = self.endpoint.context();
        let begun = context.now();
        let mut wait = Duration::from_millis(20);
        loop {
            if let Some(lease) = self.store.lock(&self.id, LEASE).await? {
                return Ok(lease);
            }
            let waited = Duration::try_from(context.now().duration_since(begun)).unwrap_or_default();
            if waited >= TURN {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("the sign-in of {} is being renewed by another process, which does not finish", self.id),
                ));
            }
            context.sleep(context.jitter(wait)).await;
            wait = (wait * 2).min(Duration::from_millis(500));
        }
    }

    async fn renew_leased(&self, material: &Material, claims: Option<&str>, until: Instant) -> Result<Token> {
        loop {
            let sign_in = self.stored().await?;
            let (granted, used) = match self.ask(material, &sign_in.refresh_token, claims, until).await {
                Ok(granted) => (granted, &sign_in.refresh_token),
                Err(refusal) if refusal.error.kind() == ErrorKind::SignInNeeded => {
                    match self.ask_with_previous(material, &sign_in, claims, until).await? {
                        Some((granted, previous)) => (granted, previous),
                        None => {
                            if self.note_needed(&sign_in, &refusal.error).await? {
                                return Err(self.needed(refusal.error));
                            }
                            continue;
                        }
                    }
                }
                Err(Refusal { error, .. }) => return Err(error),
            };
            let Granted { token, refresh_token, scopes, .. } = granted;
            let mut next = sign_in.clone();
            // An answer without one means that the old one goes on.
            next.refresh_token = refresh_token.unwrap_or_else(|| used.clone());
            if next.refresh_token.expose() != used.expose() {
                next.previous = Some(used.clone());
            }
            next.refreshed = token.asked;
            for scope in scopes {
                // One sign-in serves several resources, and each answer lists the scopes of one.
                if !next.scopes.contains(&scope) {
                    next.scopes.push(scope);
                }
            }
            match self.store.put_sign_in(&self.id, &next, false).await {
                Ok(_) => return Ok(token),
                // Somebody signed in anew meanwhile, or our lease had run out. What is stored now is newer.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The stored sign-in, if it can still be used.
    async fn stored(&self) -> Result<SignIn> {
        let Some(sign_in) = self.store.sign_in(&self.id).await? else {
            return Err(Error::new(
                ErrorKind::SignInNeeded,
                format!(
                    "{} has not signed in yet. Authorize the account: somebody signs in once, in a browser",
                    self.id
                ),
            ));
        };
        match &sign_in.needed {
            None => Ok(sign_in),
            Some(needed) => {
                let error = Error::new(ErrorKind::SignInNeeded, needed.why.clone());
                let error = match &needed.code {
                    Some(code) => error.with_code(code),
                    None => error,
                };
                Err(error)
            }
        }
    }

    /// Only the asking is broken off when it takes too long: what was answered is stored, however long that takes.
    async fn ask(
        &self,
        material: &Material,
        refresh: &Secret,
        claims: Option<&str>,
        until: Instant,
    ) -> Result<Granted, Refusal> {
        let scope = self.scope.as_deref().map(|scope| ("scope", scope));
        let more: Vec<_> = scope.into_iter().chain(claims.map(|claims| ("claims", claims))).collect();
        tokio::time::timeout_at(until, self.endpoint.refresh(material, refresh, &more)).await.unwrap_or_else(|_| {
            let late = format!("the sign-in of {} was not renewed within {} s", self.id, RENEWAL.as_secs());
            Err(Error::new(ErrorKind::Timeout, late).into())
        })
    }

    /// `None` when it is refused as well, or there is none.
    async fn ask_with_previous<'a>(
        &self,
        material: &Material,
        sign_in: &'a SignIn,
        claims: Option<&str>,
        until: Instant,
    ) -> Result<Option<(Granted, &'a Secret)>> {
        let Some(previous) = &sign_in.previous else { return Ok(None) };
        match self.ask(material, previous, claims, until).await {
            Ok(granted) => {
                tracing::warn!(sign_in = %self.id, "the newest refresh token is unknown to the service, the one before it works");
                Ok(Some((granted, previous)))
            }
            Err(refusal) if refusal.error.kind() == ErrorKind::SignInNeeded => Ok(None),
            // Not known whether it would do: nothing is final yet.
            Err(Refusal { error, .. }) => Err(error),
        }
    }

    /// Remembers that the person must sign in again. `false` when the sign-in changed meanwhile.
    async fn note_needed(&self, sign_in: &SignIn, error: &Error) -> Result<bool> {
        let mut next = sign_in.clone();
        let now = self.endpoint.context().now();
        next.needed = Some(SignInNeeded::new(now, error.code().map(str::to_owned), self.why(error)));
        match self.store.put_sign_in(&self.id, &next, false).await {
            Ok(_) => {
                tracing::warn!(sign_in = %self.id, code = error.code(), "a person must sign in again");
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn why(&self, error: &Error) -> String {
        format!("the sign-in of {} does not work any more: {}", self.id, error.message())
    }

    /// The service's refusal, with whose sign-in it is.
    fn needed(&self, error: Error) -> Error {
        let mut named = Error::new(error.kind(), self.why(&error));
        if let Some(code) = error.code() {
            named = named.with_code(code);
        }
        error.request_ids().iter().fold(named, Error::with_request_id)
    }
}

impl Source for Person {
    async fn fetch(&self, claims: Option<&str>, refused: &mut Refused) -> Result<Token> {
        // Nothing is asked of the service for somebody who must sign in first; and a new sign-in is tried at once.
        let sign_in = self.stored().await?;
        let material = self.endpoint.material().await?;
        let mut what = Sha256::new();
        what.update(material.fingerprint());
        what.update(sign_in.version.to_be_bytes());
        let what = what.finalize().into();
        let now = self.endpoint.context().now();
        if let Some(error) = refused.recall(now, &what) {
            return Err(error);
        }
        match self.finish(material, claims).await {
            Ok(token) => {
                refused.forget();
                Ok(token)
            }
            Err(error) => {
                refused.note(self.endpoint.context().now(), what, &error);
                Err(error)
            }
        }
    }
}
