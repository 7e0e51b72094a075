//! What kind of service an account imitates, and the settings of one that stands in a configuration file.

use std::sync::Arc;

use serde::Deserialize;

use super::{MemoryAccount, MemoryMailbox, NAME};
use crate::{
    MailAccount, MailboxInfo, Result,
    provider::{Opening, ProviderConfig},
    setting::{Field, Kind, Label, Value},
};

/// An account of provider `memory` in a configuration file: a mailbox that is empty when it is opened.
///
/// To run a configured job on a mailbox that a test has filled, use
/// [`MailApp::with_account`](crate::MailApp::with_account).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// The mailbox's name.
    pub mailbox: String,
}

impl ProviderConfig for MemoryConfig {
    const NAME: &'static str = NAME;

    fn kind() -> Kind {
        let fields = vec![Field::new("mailbox", Value::Text, "Mailbox", "Postvak").required()];
        Kind::new(NAME, Label::new("In memory, for tests", "In het geheugen, voor tests"), fields)
    }

    fn mailbox(&self, opening: &Opening) -> MailboxInfo {
        MailboxInfo::new(&opening.account, NAME, opening.address.as_deref().unwrap_or(&self.mailbox))
    }

    fn open(&self, opening: Opening) -> Result<Arc<dyn MailAccount>> {
        let options = MemoryOptions { address: opening.address, ..MemoryOptions::default() };
        Ok(Arc::new(MemoryAccount::open(opening.account, &MemoryMailbox::new(&self.mailbox), options)))
    }
}

/// How a [`MemoryAccount`](super::MemoryAccount) behaves where services differ.
///
/// ```
/// use mail_account::provider::memory::MemoryOptions;
/// let like_graph = MemoryOptions::default().with_stable_ids(true).with_move_batch(20);
/// let like_an_old_server = MemoryOptions::default().with_copy_only(true);
/// # let _ = (like_graph, like_an_old_server);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemoryOptions {
    /// Whether a handle stays the same when its message moves, as on Graph. Default `false`: a move gives a new
    /// handle and the old one names nothing, as on IMAP.
    pub stable_ids: bool,
    /// [`Capabilities::move_batch`](crate::Capabilities::move_batch). Default 100.
    pub move_batch: usize,
    /// A move only copies, and marks the original as deleted: an IMAP server without MOVE and UIDPLUS.
    pub copy_only: bool,
    /// The mailbox's name for the ledger, where it should differ from the mailbox's own.
    pub address: Option<String>,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self { stable_ids: false, move_batch: 100, copy_only: false, address: None }
    }
}

impl MemoryOptions {
    /// Sets [`stable_ids`](Self::stable_ids).
    #[must_use]
    pub fn with_stable_ids(mut self, stable: bool) -> Self {
        self.stable_ids = stable;
        self
    }

    /// Sets [`move_batch`](Self::move_batch); at least 1.
    #[must_use]
    pub fn with_move_batch(mut self, messages: usize) -> Self {
        self.move_batch = messages.max(1);
        self
    }

    /// Sets [`copy_only`](Self::copy_only).
    #[must_use]
    pub fn with_copy_only(mut self, copy_only: bool) -> Self {
        self.copy_only = copy_only;
        self
    }

    /// Sets [`address`](Self::address).
    #[must_use]
    pub fn with_address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }
}
