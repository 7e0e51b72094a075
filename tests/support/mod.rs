//! What the conformance list needs of each provider: one file each.

#[cfg(feature = "imap")]
pub(crate) mod dovecot;
#[cfg(feature = "graph")]
pub(crate) mod graph;
#[cfg(feature = "imap")]
pub(crate) mod imap;
pub(crate) mod maildir;
pub(crate) mod memory;
#[cfg(feature = "imap")]
pub(crate) mod proxy;
#[cfg(feature = "graph")]
pub(crate) mod tenant;
