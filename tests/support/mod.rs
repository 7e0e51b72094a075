//! What the conformance list needs of each provider: one file each.

pub(crate) mod maildir;
pub(crate) mod memory;
