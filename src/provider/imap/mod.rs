//! IMAP (RFC 3501, RFC 9051), by a client of our own.
//!
//! | file | what it holds |
//! |---|---|
//! | `config.rs` | the settings |
//! | `account.rs`, `usage.rs` | the public account type, which only forwards; what it has cost |
//! | `folders.rs`, `listing.rs`, `download.rs`, `moves.rs` | one verb of the trait each |
//! | `facts.rs` | which messages a folder has, before their content |
//! | `large.rs`, `whole.rs` | messages read by their structure; messages read whole, in memory or a temporary file |
//! | `evidence.rs` | what a message is recognised by in another folder |
//! | `handle.rs` | how folders, messages and parts are named to callers |
//! | `pool.rs` | the account's few connections, and the one place where anything is tried again |
//! | `session.rs` | one connection: commands out, events in |
//! | `signin.rs`, `stream.rs` | from a host name to a signed-in session |
//! | `failure.rs` | what goes wrong, and what it means for a caller |
//! | `wire/` | the bytes: framing, tokens, commands |
//! | `tests/` | servers that misbehave |
//!
//! The client knows some twenty commands and is not for anything else. What it takes care of: a NO is never an empty
//! result, a message that cannot be parsed is still delivered, and memory never follows what a server announces.

mod config;

#[cfg(feature = "imap")]
mod account;
#[cfg(feature = "imap")]
mod download;
#[cfg(feature = "imap")]
mod evidence;
#[cfg(feature = "imap")]
mod facts;
#[cfg(feature = "imap")]
mod failure;
#[cfg(feature = "imap")]
mod folders;
#[cfg(feature = "imap")]
mod handle;
#[cfg(feature = "imap")]
mod large;
#[cfg(feature = "imap")]
mod listing;
#[cfg(feature = "imap")]
mod moves;
#[cfg(feature = "imap")]
mod pool;
#[cfg(feature = "imap")]
mod session;
#[cfg(feature = "imap")]
mod signin;
#[cfg(feature = "imap")]
mod stream;
#[cfg(all(test, feature = "imap"))]
mod tests;
#[cfg(feature = "imap")]
mod usage;
#[cfg(feature = "imap")]
mod whole;
// Fuzzed without the rest, which needs TLS.
#[cfg(any(feature = "imap", fuzzing))]
#[cfg_attr(not(feature = "imap"), allow(dead_code, unused_imports, reason = "fuzzing reads, and sends nothing"))]
pub(crate) mod wire;

#[cfg(feature = "imap")]
pub use account::ImapAccount;
pub(crate) use config::is_exchange_online;
pub use config::{ImapConfig, ImapOAuth, Tls};
#[cfg(all(test, feature = "imap"))]
pub(crate) use {failure::refusal_of, signin::refusal as refusal_of_sign_in, wire::status::Condition};

/// The value of `provider`.
pub const NAME: &str = "imap";
