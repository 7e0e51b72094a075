//! Microsoft Graph.
//!
//! | file | what it holds |
//! |---|---|
//! | `config.rs` | the settings |

mod config;

pub use config::GraphConfig;

/// The value of `provider`.
pub const NAME: &str = "graph";
