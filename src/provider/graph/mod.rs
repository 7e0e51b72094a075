//! Microsoft Graph.
//!
//! | file | what it holds |
//! |---|---|
//! | `config.rs` | the settings |
//! | `account.rs` | the public account type and a trait impl that only forwards |
//! | `client.rs` | one attempt at a call, and the loop around it |
//! | `failure.rs` | what refusals mean |
//! | `batch.rs` | twenty calls in one round trip |
//! | `folders.rs` | the tree, and from specs to ids |
//! | `ids.rs` | which messages a folder has: the first step of a listing |
//! | `messages.rs` | the second: windows of content |
//! | `content.rs` | downloads |
//! | `moves.rs` | moving, looked up before it is repeated |
//! | `directory.rs` | which mailboxes a tenant has |
//! | `wire.rs` | Graph's JSON |

#[cfg(feature = "graph")]
mod account;
#[cfg(feature = "graph")]
mod batch;
#[cfg(feature = "graph")]
mod client;
mod config;
#[cfg(feature = "graph")]
mod content;
#[cfg(feature = "graph")]
mod directory;
#[cfg(feature = "graph")]
mod failure;
#[cfg(feature = "graph")]
mod folders;
#[cfg(feature = "graph")]
mod ids;
#[cfg(feature = "graph")]
mod messages;
#[cfg(feature = "graph")]
mod moves;
#[cfg(feature = "graph")]
mod wire;

#[cfg(feature = "graph")]
pub use account::GraphAccount;
#[cfg(feature = "graph")]
use account::Inner;
pub use config::GraphConfig;
#[cfg(feature = "graph")]
pub use directory::{DirectoryMailbox, GraphDirectory};
#[cfg(all(test, feature = "graph"))]
pub(crate) use failure::refusal_of;

/// The value of `provider`.
pub const NAME: &str = "graph";
