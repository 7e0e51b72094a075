//! For the tests of hosts and of other providers (feature `testing`).
//!
//! - [`FakeAccount`] tests a host's handler, through the real importer.
//! - [`mail`] makes messages.
//! - [`conformance`] is the list of checks that every provider passes, and an outside one can pass too.
//! - [`MemoryLedger`] is a ledger, and [`MemoryTokenStore`] a store of sign-ins, without a database.
//! - [`graph`] is a fake of Microsoft Graph and of its sign-in.

pub mod conformance;
mod fake;
pub mod graph;
mod ledger;
mod mail;
mod tokens;

pub use fake::{FakeAccount, FakeRun};
pub use ledger::MemoryLedger;
pub use mail::{Mail, mail};
pub use tokens::MemoryTokenStore;
