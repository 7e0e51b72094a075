//! For the tests of hosts and of other providers (feature `testing`).
//!
//! | file | what it holds |
//! |---|---|
//! | `fake.rs` | [`FakeAccount`]: tests a host's handler, through the real importer |
//! | `mail.rs` | [`mail`]: makes messages |
//! | `ledger.rs`, `tokens.rs` | [`MemoryLedger`] and [`MemoryTokenStore`]: a ledger and a store of sign-ins without a database |
//! | `conformance/` | [`conformance`]: the list of checks that every provider passes, and an outside one can pass too |
//! | `graph/` | [`graph`]: a fake of Microsoft Graph and of its sign-in |

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
