//! `[state]`: where the ledger lives.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use toml::{Table, Value as Toml};

use super::{
    file::Document,
    kinds,
    value::{self, Problem},
};
use crate::{Context, Error, ErrorKind, Ledger, Result, Secret, SecretSource};

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
    /// Stores sign-ins without sealing them.
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
    Ok(state)
}

impl StateConfig {
    /// Opens the ledger; makes the database file, but no folder.
    pub(super) async fn open(&self, context: &Context) -> Result<Arc<dyn Ledger>> {
        match (&self.path, &self.url) {
            (Some(path), _) => open_file(path, context).await,
            (None, Some(url)) => open_url(&url.read("state.url")?, context).await,
            (None, None) => Err(Error::new(ErrorKind::InvalidConfig, "`state.path` is missing")),
        }
    }
}

#[cfg(feature = "sqlite")]
async fn open_file(path: &Path, context: &Context) -> Result<Arc<dyn Ledger>> {
    Ok(Arc::new(crate::SqlStore::open(path).await?.with_context(context.clone())))
}

#[cfg(not(feature = "sqlite"))]
async fn open_file(path: &Path, _context: &Context) -> Result<Arc<dyn Ledger>> {
    Err(not_built(&format!("the state `{}` is an SQLite database", path.display()), "sqlite"))
}

#[cfg(feature = "postgres")]
async fn open_url(url: &Secret, context: &Context) -> Result<Arc<dyn Ledger>> {
    check_url(url)?;
    Ok(Arc::new(crate::SqlStore::connect(url.expose()).await?.with_context(context.clone())))
}

#[cfg(not(feature = "postgres"))]
async fn open_url(url: &Secret, _context: &Context) -> Result<Arc<dyn Ledger>> {
    check_url(url)?;
    Err(not_built("`state.url` names a PostgreSQL database", "postgres"))
}

fn check_url(url: &Secret) -> Result<()> {
    if url.expose().starts_with("postgres://") || url.expose().starts_with("postgresql://") {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidConfig,
        "`state.url` is not the URL of a PostgreSQL database (`postgres://...`); for a file write `state.path`",
    ))
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
