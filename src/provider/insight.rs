//! What an account knows beyond [`MailAccount`]: for Test Connection and rehearsals, so that the trait stays small.

#[cfg(any(feature = "graph", feature = "imap"))]
use std::any::Any;

use async_trait::async_trait;

#[cfg(feature = "graph")]
use super::graph::GraphAccount;
#[cfg(feature = "imap")]
use super::imap::ImapAccount;
use crate::{
    Access, FolderId, MailAccount, Result,
    auth::{Auth, Claims},
};

/// What an account can tell of itself and its sign-in. Reads and asks only.
#[async_trait]
pub(crate) trait Insight: Send + Sync {
    /// What its configuration says, for texts.
    fn facts(&self) -> Facts;

    /// What its access token says; `None` when it has none, or one that cannot be read. The token stays here.
    ///
    /// # Errors
    ///
    /// As the sign-in itself.
    async fn claims(&self) -> Result<Option<Claims>>;

    /// As [`MailAccount::folder_access`], without opening the folder for writing. `target`: for what is moved into it,
    /// else for what is moved out.
    ///
    /// # Errors
    ///
    /// As [`MailAccount::folder_access`].
    async fn access(&self, folder: &FolderId, target: bool) -> Result<Access>;

    /// Why the mailbox is not served, where the directory tells.
    async fn absence(&self) -> Option<Absence> {
        None
    }
}

/// What an account's configuration says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Host and port of the server, where there is one.
    pub(crate) server: Option<String>,
    /// The tenant of the app registration.
    pub(crate) tenant: Option<String>,
    /// Its application (client) id.
    pub(crate) client_id: Option<String>,
    /// Who signs in, where tokens are used.
    pub(crate) auth: Option<Auth>,
    /// Whether a person signs in for a mailbox that is not their own.
    pub(crate) shared: bool,
    /// Whether the service is Microsoft's, so that its permissions mean something.
    pub(crate) is_microsofts: bool,
}

/// Why a user of the directory has no mailbox that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "graph"), allow(dead_code, reason = "only Graph has a directory to ask"))]
pub(crate) enum Absence {
    /// No plan of Exchange Online is assigned.
    NoLicence,
    /// One is, since a moment ago.
    JustLicensed,
    /// One is not, and the user comes from the company's own directory: the mailbox is there.
    OnPremises,
}

/// What an account can tell, where its provider knows how.
pub(crate) fn insight(account: &dyn MailAccount) -> Option<&dyn Insight> {
    #[cfg(feature = "graph")]
    if let Some(graph) = (account as &dyn Any).downcast_ref::<GraphAccount>() {
        return Some(graph);
    }
    #[cfg(feature = "imap")]
    if let Some(imap) = (account as &dyn Any).downcast_ref::<ImapAccount>() {
        return Some(imap);
    }
    let _ = account;
    None
}

/// Whether a folder can be written to, as far as can be told without a trace.
///
/// # Errors
///
/// As [`MailAccount::folder_access`].
pub(crate) async fn access(account: &dyn MailAccount, folder: &FolderId, target: bool) -> Result<Access> {
    match insight(account) {
        Some(insight) => insight.access(folder, target).await,
        None => account.folder_access(folder).await,
    }
}
