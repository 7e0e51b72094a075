//! `[state]`: where the ledger and the sign-ins live, and the one store that both are opened in.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::OnceCell;
use toml::{Table, Value as Toml};

use super::{
    file::Document,
    kinds,
    value::{self, Problem},
};
use crate::{
    Context, Error, ErrorKind, Ledger, Result, Secret, SecretSource,
    store::{MemoryStates, Pending, RefreshLease, SignIn, SignInId, StateStore, Taken, TokenStore},
};

/// The database file's name where `[state]` names none; it lies beside the configuration file.
const DEFAULT_FILE: &str = "mail-account.db";

/// `[state]` of the configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct StateConfig {
    /// The database file.
    pub path: Option<PathBuf>,
    /// A database server instead; may hold a password.
    pub url: Option<SecretSource>,
    /// The key that seals stored sign-ins: 32 bytes, base64.
    pub key: Option<SecretSource>,
    /// Stores sign-ins without sealing them. Beside `key` it only lets those be read that were stored so before.
    pub plaintext_tokens: bool,
}

pub(super) fn state(document: &Document, value: Option<Toml>) -> Result<StateConfig> {
    let mut table = match value {
        None => Table::new(),
        Some(Toml::Table(table)) => table,
        Some(_) => return Err(document.invalid("state", "must be a table: `[state]`")),
    };
    // Without its store no job can run, so that here every mistake is one of the whole file.
    if let Some(Problem(text)) = value::check(document, "state", "`[state]`", &mut table, &kinds::state())? {
        return Err(Error::new(ErrorKind::InvalidConfig, text));
    }
    let mut state: StateConfig = table
        .try_into()
        .map_err(|e: toml::de::Error| document.invalid("state", &format!("cannot be used: {}", e.message())))?;
    if state.path.is_some() && state.url.is_some() {
        return Err(document.invalid("state.url", "is given beside `path`; keep one of them"));
    }
    if state.path.is_none() && state.url.is_none() {
        state.path = Some(document.base.join(DEFAULT_FILE));
    }
    // What stands in the file itself is looked at now; a variable or another file when it is first needed.
    let shape = |key: &str, what: Result<(), String>| what.map_err(|what| document.invalid(key, &what));
    if let Some(SecretSource::Literal(url)) = &state.url {
        shape("state.url", check_url(url))?;
    }
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    if let Some(SecretSource::Literal(key)) = &state.key {
        shape("state.key", KeyRing::parse(key).map(drop))?;
    }
    Ok(state)
}

/// The store that `[state]` names, opened when it is first needed. Clones are the same store.
#[derive(Clone, Debug)]
pub(super) struct Stores {
    config: Arc<StateConfig>,
    context: Context,
    store: Arc<OnceCell<Store>>,
    ledger: Arc<OnceCell<Arc<dyn Ledger>>>,
    tokens: Arc<OnceCell<Arc<dyn TokenStore>>>,
    states: Arc<OnceCell<Arc<dyn StateStore>>>,
}

impl Stores {
    pub(super) fn new(config: StateConfig, context: Context) -> Self {
        Self {
            config: Arc::new(config),
            context,
            store: Arc::default(),
            ledger: Arc::default(),
            tokens: Arc::default(),
            states: Arc::default(),
        }
    }

    /// With this ledger instead. States of accounts are then remembered as long as the process lives, unless a store
    /// is given for them: no database is made only for them.
    pub(super) fn with_ledger(mut self, ledger: Arc<dyn Ledger>) -> Self {
        self.ledger = Arc::new(OnceCell::new_with(Some(ledger)));
        if !self.states.initialized() {
            self = self.with_state_store(Arc::new(MemoryStates::default()));
        }
        self
    }

    /// With this store of the accounts' states instead.
    pub(super) fn with_state_store(mut self, states: Arc<dyn StateStore>) -> Self {
        self.states = Arc::new(OnceCell::new_with(Some(states)));
        self
    }

    /// With this store of sign-ins instead.
    pub(super) fn with_token_store(mut self, tokens: Arc<dyn TokenStore>) -> Self {
        self.tokens = Arc::new(OnceCell::new_with(Some(tokens)));
        self
    }

    pub(super) fn config(&self) -> &StateConfig {
        &self.config
    }

    pub(super) async fn ledger(&self) -> Result<Arc<dyn Ledger>> {
        let open = async || Ok(ledger_of(self.store().await?));
        self.ledger.get_or_try_init(open).await.map(Arc::clone)
    }

    /// The key is read by the first call, so that who stores no sign-in needs none.
    pub(super) async fn tokens(&self) -> Result<Arc<dyn TokenStore>> {
        let open = async || tokens_of(self.store().await?, &self.config);
        self.tokens.get_or_try_init(open).await.map(Arc::clone)
    }

    pub(super) async fn states(&self) -> Result<Arc<dyn StateStore>> {
        let open = async || Ok(states_of(self.store().await?));
        self.states.get_or_try_init(open).await.map(Arc::clone)
    }

    /// Whose sign-ins are stored, and when they were last used with success. Needs no key.
    #[cfg(feature = "oauth")]
    pub(super) async fn sign_ins(&self) -> Result<Vec<(crate::store::SignInId, jiff::Timestamp)>> {
        match self.tokens.get() {
            Some(tokens) => tokens.sign_ins().await,
            None => keyless(self.store().await?).sign_ins().await,
        }
    }

    /// Makes the database file, but no folder.
    async fn store(&self) -> Result<&Store> {
        let open = async || match (&self.config.path, &self.config.url) {
            (Some(path), _) => open_file(path, &self.context).await,
            (None, Some(url)) => open_url(&url.read("state.url")?, &self.context).await,
            (None, None) => Err(Error::new(ErrorKind::InvalidConfig, "`state.path` is missing")),
        };
        self.store.get_or_try_init(open).await
    }
}

/// The store of sign-ins that `[state]` names, opened by the first call: opening an account does no I/O.
#[derive(Debug)]
pub(super) struct LazyTokens(pub(super) Stores);

#[async_trait]
impl TokenStore for LazyTokens {
    async fn ready(&self) -> Result<()> {
        self.0.tokens().await?.ready().await
    }

    async fn sign_in(&self, id: &SignInId) -> Result<Option<SignIn>> {
        self.0.tokens().await?.sign_in(id).await
    }

    async fn put_sign_in(&self, id: &SignInId, sign_in: &SignIn, replace: bool) -> Result<i64> {
        self.0.tokens().await?.put_sign_in(id, sign_in, replace).await
    }

    async fn forget_sign_in(&self, id: &SignInId) -> Result<()> {
        self.0.tokens().await?.forget_sign_in(id).await
    }

    async fn sign_ins(&self) -> Result<Vec<(SignInId, Timestamp)>> {
        self.0.tokens().await?.sign_ins().await
    }

    async fn lock(&self, id: &SignInId, ttl: Duration) -> Result<Option<RefreshLease>> {
        self.0.tokens().await?.lock(id, ttl).await
    }

    async fn unlock(&self, lease: &RefreshLease) -> Result<()> {
        self.0.tokens().await?.unlock(lease).await
    }

    async fn put_pending(&self, pending: &Pending) -> Result<()> {
        self.0.tokens().await?.put_pending(pending).await
    }

    async fn take_pending(&self, state: &Secret, now: Timestamp) -> Result<Taken> {
        self.0.tokens().await?.take_pending(state, now).await
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::{SqlStore as Store, store::KeyRing};

/// There is none in this program.
#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
#[derive(Debug)]
enum Store {}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn ledger_of(store: &Store) -> Arc<dyn Ledger> {
    Arc::new(store.clone())
}

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
fn ledger_of(store: &Store) -> Arc<dyn Ledger> {
    match *store {}
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn states_of(store: &Store) -> Arc<dyn StateStore> {
    Arc::new(store.clone())
}

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
fn states_of(store: &Store) -> Arc<dyn StateStore> {
    match *store {}
}

#[cfg(all(feature = "oauth", any(feature = "sqlite", feature = "postgres")))]
fn keyless(store: &Store) -> &dyn TokenStore {
    store
}

#[cfg(all(feature = "oauth", not(any(feature = "sqlite", feature = "postgres"))))]
fn keyless(store: &Store) -> &dyn TokenStore {
    match *store {}
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn tokens_of(store: &Store, config: &StateConfig) -> Result<Arc<dyn TokenStore>> {
    let mut store = store.clone();
    if let Some(key) = &config.key {
        store = store.with_keys(KeyRing::parse(&key.read("state.key")?).map_err(|what| invalid("state.key", &what))?);
    }
    if config.plaintext_tokens {
        store = store.with_plaintext_tokens();
    }
    Ok(Arc::new(store))
}

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
fn tokens_of(store: &Store, _config: &StateConfig) -> Result<Arc<dyn TokenStore>> {
    match *store {}
}

#[cfg(feature = "sqlite")]
async fn open_file(path: &Path, context: &Context) -> Result<Store> {
    Ok(Store::open(path).await?.with_context(context.clone()))
}

#[cfg(not(feature = "sqlite"))]
async fn open_file(path: &Path, _context: &Context) -> Result<Store> {
    Err(not_built(&format!("the state `{}` is an SQLite database", path.display()), "sqlite"))
}

#[cfg(feature = "postgres")]
async fn open_url(url: &Secret, context: &Context) -> Result<Store> {
    check_url(url).map_err(|what| invalid("state.url", &what))?;
    Ok(Store::connect(url.expose()).await?.with_context(context.clone()))
}

#[cfg(not(feature = "postgres"))]
async fn open_url(url: &Secret, _context: &Context) -> Result<Store> {
    check_url(url).map_err(|what| invalid("state.url", &what))?;
    Err(not_built("`state.url` names a PostgreSQL database", "postgres"))
}

/// The error continues a sentence that begins with the key.
fn check_url(url: &Secret) -> Result<(), String> {
    if url.expose().starts_with("postgres://") || url.expose().starts_with("postgresql://") {
        return Ok(());
    }
    Err("is not the URL of a PostgreSQL database (`postgres://...`); for a file write `state.path`".to_owned())
}

/// Of a value that was read when it was needed.
fn invalid(key: &str, what: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("`{key}` {what}"))
}

#[cfg(not(all(feature = "sqlite", feature = "postgres")))]
fn not_built(what: &str, feature: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "{what}, which is not built into this program; enable the feature `{feature}` of mail-account, or use `MailApp::with_ledger`"
        ),
    )
}
