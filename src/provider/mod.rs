//! The providers: one folder each, with the same rooms.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | what a provider is opened with |
//! | `graph/`, `imap/`, `maildir/`, `memory/` | the providers |
//! | `insight.rs` | what some accounts can tell of their sign-in, for Test Connection |
//!
//! In each provider's folder:
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` or `account.rs` | the public account type and a trait impl that only forwards |
//! | `config.rs` | the settings as they stand in the configuration file, and `open` |
//! | `client.rs`, `session.rs` or `disk.rs` | one function per remote call |
//! | `wire.rs` or `wire/` | the service's shapes and their conversion |
//!
//! A new provider is a folder here, its line below, one line in the table of `config/registry.rs`, and one line in
//! `tests/conformance.rs`. Settings are compiled whatever the features are, so that a file is checked the same way in
//! every build; a feature only decides whether such an account can be opened.

pub mod graph;
pub mod imap;
pub(crate) mod insight;
pub mod maildir;
pub mod memory;

use std::{fmt, sync::Arc};

use serde::de::DeserializeOwned;

use crate::{
    Context, Error, ErrorKind, MailAccount, MailboxInfo, Result,
    auth::{SignInSettings, TokenProvider},
    setting::{Kind, Places},
    store::TokenStore,
};

/// The settings of one provider, as they stand in an account of the configuration file.
///
/// An outside crate implements this for its own provider and hands it to
/// [`Registry::register`](crate::config::Registry::register).
///
/// The keys of the struct are those of [`kind`](Self::kind), by which a file is checked before it gets here: unknown
/// keys, missing ones and wrong types are told with their place, and relative paths are already made relative to the
/// file. Keys that belong to an app registration come in a field `app`, a [`Registration`](crate::auth::Registration).
/// `provider`, `enabled` and `address` are handled for all providers alike, and are not among the keys.
pub trait ProviderConfig: DeserializeOwned + fmt::Debug + Send + Sync + 'static {
    /// The value of `provider`.
    const NAME: &'static str;

    /// The settings as data.
    fn kind() -> Kind;

    /// Which mailbox this is, without asking a server: by [`Opening::address`] where that is given, else by an address
    /// among the settings, else by an object id or a path.
    fn mailbox(&self, opening: &Opening) -> MailboxInfo;

    /// Checks what can be checked without I/O, and makes the account. Variables, secret files and CA files are read
    /// later, when first needed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] for settings that cannot be right, [`ErrorKind::Unsupported`] when the provider is
    /// not built into this program.
    fn open(&self, opening: Opening) -> Result<Arc<dyn MailAccount>>;

    /// How the account signs in with OAuth; `None` when it does not. Does no I/O.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] for settings that cannot be right.
    fn sign_in(&self, places: &Places) -> Result<Option<SignInSettings>> {
        let _ = places;
        Ok(None)
    }
}

/// What an account is opened with besides its own settings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Opening {
    /// The account's identifier.
    pub account: String,
    /// The mailbox's name in the ledger, where `address` gives one.
    pub address: Option<String>,
    /// Clock and randomness.
    pub context: Context,
    /// Where the account's keys stand, for errors.
    pub places: Places,
    /// Where the sign-ins of people are stored; opened when first needed.
    pub token_store: Option<Arc<dyn TokenStore>>,
    /// Who gives access tokens, in the place of what the settings say.
    pub tokens: Option<Arc<dyn TokenProvider>>,
}

impl Opening {
    /// For an account of this name.
    pub fn new(account: impl Into<String>) -> Self {
        let account = account.into();
        Self {
            places: Places::new(&account),
            account,
            address: None,
            context: Context::default(),
            token_store: None,
            tokens: None,
        }
    }

    /// With the mailbox's name in the ledger.
    #[must_use]
    pub fn with_address(mut self, address: impl Into<Option<String>>) -> Self {
        self.address = address.into();
        self
    }

    /// With another clock or randomness.
    #[must_use]
    pub fn with_context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// With a store for the sign-ins of people.
    #[must_use]
    pub fn with_token_store(mut self, store: Arc<dyn TokenStore>) -> Self {
        self.token_store = Some(store);
        self
    }

    /// With access tokens of the caller's, whatever the settings say about signing in.
    #[must_use]
    pub fn with_tokens(mut self, tokens: Arc<dyn TokenProvider>) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Who gives access tokens to an account with these settings.
    #[cfg(feature = "oauth")]
    pub(crate) fn tokens_for(&self, settings: &SignInSettings) -> Result<Arc<dyn TokenProvider>> {
        match &self.tokens {
            Some(tokens) => Ok(Arc::clone(tokens)),
            None => crate::net::tokens(&self.context, settings, self.token_store.as_ref()),
        }
    }

    /// With keys that stand elsewhere.
    #[must_use]
    pub fn with_places(mut self, places: Places) -> Self {
        self.places = places;
        self
    }
}

/// Whether a name is a mail address, as far as that can be told: `local@domain`, without blanks.
pub(crate) fn is_address(name: &str) -> bool {
    name.trim().rsplit_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !domain.is_empty() && !name.trim().contains(char::is_whitespace)
    })
}

/// The error for an account whose provider a build lacks.
#[cfg_attr(all(feature = "graph", feature = "imap"), allow(dead_code, reason = "every provider is built"))]
pub(crate) fn not_built(provider: &'static str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "the provider `{provider}` is not built into this program; enable the feature `{provider}` of mail-account"
        ),
    )
    .with_provider(provider)
}
