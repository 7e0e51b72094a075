//! HTTP: one client, one retry policy, one limiter per mailbox.
//!
//! | file | what it holds |
//! |---|---|
//! | `tls.rs` | the HTTP client: roots, proxy, no redirects; made when first needed |
//! | `http.rs` | one attempt at a request: sending, deadlines, capped bodies, and what can go wrong without an answer |
//! | `retry.rs` | the one retry policy: how long to wait, and when to give up |
//! | `limit.rs` | what the service allows per app and mailbox |
//! | `page.rs` | lists that come in pages: envelopes and next links |
//! | `sign_in.rs` | the way of `auth` to the sign-in service, and who shares tokens |
//! | `loopback.rs` | the other way round: the browser that comes back from a sign-in |
//!
//! Nothing here knows a service. What an answer means is decided by the provider, or by `auth` for the sign-in.

pub(crate) mod http;
pub(crate) mod limit;
pub(crate) mod loopback;
pub(crate) mod page;
pub(crate) mod retry;
mod sign_in;
mod tls;

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use http::Http;
pub(crate) use sign_in::{endpoint, person, tokens};

use crate::{
    Secret,
    auth::{Registration, TokenProvider},
    setting::Places,
};

/// What all accounts of one [`Context`](crate::Context) share: HTTP clients, and the tokens of each registration.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    clients: HashMap<Route, Weak<Http>>,
    tokens: HashMap<sign_in::Key, Weak<dyn TokenProvider>>,
}

/// How to get out: accounts that agree in this share a client and its connections.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Route {
    proxy: Option<RouteProxy>,
    ca_file: Option<PathBuf>,
    /// Where the settings stand, for errors.
    proxy_place: String,
    ca_place: String,
}

/// A proxy's place, told apart without keeping its password.
#[derive(Clone)]
struct RouteProxy {
    source: crate::SecretSource,
    print: [u8; 32],
}

impl PartialEq for RouteProxy {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}

impl Eq for RouteProxy {}

impl std::hash::Hash for RouteProxy {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.print.hash(state);
    }
}

impl Route {
    pub(crate) fn of(app: &Registration, places: &Places) -> Self {
        let proxy = app.proxy.clone().map(|source| RouteProxy { print: fingerprint(&source), source });
        Self {
            proxy_place: if proxy.is_some() { places.place("proxy") } else { String::new() },
            ca_place: if app.ca_file.is_some() { places.place("ca_file") } else { String::new() },
            proxy,
            ca_file: app.ca_file.clone(),
        }
    }
}

/// Tells secrets' places apart: equal for the same variable, file or literal.
pub(crate) fn fingerprint(source: &crate::SecretSource) -> [u8; 32] {
    use sha2::{Digest as _, Sha256};
    let mut hash = Sha256::new();
    match source {
        crate::SecretSource::Literal(secret) => hash.update([b"l", secret.expose().as_bytes()].concat()),
        crate::SecretSource::Env(name) => hash.update(["e", &name.env].concat()),
        crate::SecretSource::File(name) => {
            hash.update(b"f");
            hash.update(name.file.as_os_str().as_encoded_bytes());
        }
    }
    hash.finalize().into()
}

impl Shared {
    /// The client for this way out.
    pub(crate) fn http(&self, route: &Route) -> Arc<Http> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(http) = inner.clients.get(route).and_then(Weak::upgrade) {
            return http;
        }
        let http = Arc::new(Http::new(route.clone()));
        inner.clients.retain(|_, http| http.strong_count() > 0);
        inner.clients.insert(route.clone(), Arc::downgrade(&http));
        http
    }

    fn tokens(&self, key: sign_in::Key, make: impl FnOnce() -> Arc<dyn TokenProvider>) -> Arc<dyn TokenProvider> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tokens) = inner.tokens.get(&key).and_then(Weak::upgrade) {
            return tokens;
        }
        let tokens = make();
        inner.tokens.retain(|_, tokens| tokens.strong_count() > 0);
        inner.tokens.insert(key, Arc::downgrade(&tokens));
        tokens
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A bearer token as the header's value; never shown by anything that prints headers.
pub(crate) fn bearer(token: &Secret) -> Option<reqwest::header::HeaderValue> {
    let mut value = reqwest::header::HeaderValue::from_str(&format!("Bearer {}", token.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}
