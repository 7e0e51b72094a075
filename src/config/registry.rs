//! The one table of providers.

use std::{fmt, sync::Arc};

use toml::Table;

use super::kinds;
use crate::{
    MailAccount, MailboxInfo, Result,
    auth::SignInSettings,
    provider::{Opening, ProviderConfig, graph, imap, maildir, memory},
    setting::{Kind, Places},
};

/// The providers that a configuration can name.
///
/// A value, not a global: a program adds its own to a `Registry::default()`.
///
/// ```
/// use std::sync::Arc;
/// use mail_account::{
///     Error, ErrorKind, MailAccount, MailApp, MailboxInfo, Result,
///     config::Registry,
///     provider::{Opening, ProviderConfig},
///     setting::{Field, Kind, Label, Value},
/// };
///
/// #[derive(Debug, serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct PigeonConfig {
///     loft: String,
/// }
///
/// impl ProviderConfig for PigeonConfig {
///     const NAME: &'static str = "pigeon";
///
///     fn kind() -> Kind {
///         let loft = Field::new("loft", Value::Text, "Loft", "Til").required();
///         Kind::new(Self::NAME, Label::new("Carrier pigeon", "Postduif"), vec![loft])
///     }
///
///     fn mailbox(&self, opening: &Opening) -> MailboxInfo {
///         MailboxInfo::new(&opening.account, Self::NAME, opening.address.as_deref().unwrap_or(&self.loft))
///     }
///
///     fn open(&self, opening: Opening) -> Result<Arc<dyn MailAccount>> {
///         // A real one makes its account here, without I/O.
///         Err(Error::new(ErrorKind::Unsupported, format!("the loft `{}` is empty", self.loft)).with_account(opening.account))
///     }
/// }
///
/// let registry = Registry::default().register::<PigeonConfig>();
/// let text = r#"
///     [accounts.roof]
///     provider = "pigeon"
///     loft = "north"
/// "#;
/// let app = MailApp::loader().with_registry(registry).from_str(text, ".")?;
/// assert_eq!(app.account("roof").unwrap_err().to_string(), "the loft `north` is empty (account `roof`)");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Registry {
    entries: Vec<Entry>,
}

/// One provider, without its type.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) parse: fn(Table) -> Result<Arc<dyn Settings>, toml::de::Error>,
}

/// The settings of one account, without their type.
pub(super) trait Settings: fmt::Debug + Send + Sync {
    fn mailbox(&self, opening: &Opening) -> MailboxInfo;
    fn open(&self, opening: Opening) -> Result<Arc<dyn MailAccount>>;
    #[cfg_attr(not(feature = "oauth"), allow(dead_code, reason = "nobody can sign in"))]
    fn sign_in(&self, places: &Places) -> Result<Option<SignInSettings>>;
}

impl<C: ProviderConfig> Settings for C {
    fn mailbox(&self, opening: &Opening) -> MailboxInfo {
        ProviderConfig::mailbox(self, opening)
    }

    fn open(&self, opening: Opening) -> Result<Arc<dyn MailAccount>> {
        ProviderConfig::open(self, opening)
    }

    fn sign_in(&self, places: &Places) -> Result<Option<SignInSettings>> {
        ProviderConfig::sign_in(self, places)
    }
}

impl Default for Registry {
    /// The providers of this crate.
    fn default() -> Self {
        Self::empty()
            .register::<graph::GraphConfig>()
            .register::<imap::ImapConfig>()
            .register::<maildir::MaildirConfig>()
            .register::<memory::MemoryConfig>()
    }
}

impl Registry {
    /// No providers at all.
    #[must_use]
    pub fn empty() -> Self {
        Self { entries: Vec::new() }
    }

    /// With one more provider; replaces one of the same name.
    #[must_use]
    pub fn register<C: ProviderConfig>(mut self) -> Self {
        self.entries.retain(|entry| entry.kind.id != C::NAME);
        self.entries
            .push(Entry { kind: kinds::complete(C::kind()), parse: |table| Ok(Arc::new(table.try_into::<C>()?)) });
        self
    }

    /// The kinds of accounts there are, with all their settings: what a settings screen is generated from.
    ///
    /// ```
    /// use mail_account::{Language, config::Registry};
    /// for kind in Registry::default().kinds() {
    ///     println!("{} ({})", kind.label.text(Language::Dutch), kind.id);
    ///     for field in &kind.fields {
    ///         println!("- {}{}", field.label.text(Language::Dutch), if field.required { " *" } else { "" });
    ///     }
    /// }
    /// ```
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.entries.iter().map(|entry| &entry.kind)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.kind.id == name)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.kinds().map(|kind| kind.id)).finish()
    }
}
