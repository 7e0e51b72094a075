//! [`SqlStore`].

/// The ledger on SQLite.
#[derive(Debug)]
pub struct SqlStore {}
