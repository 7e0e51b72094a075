//! IMAP.
//!
//! | file | what it holds |
//! |---|---|
//! | `config.rs` | the settings |

mod config;

pub use config::{ImapConfig, ImapOAuth, Tls};

/// The value of `provider`.
pub const NAME: &str = "imap";
