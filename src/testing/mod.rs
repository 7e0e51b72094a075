//! For the tests of hosts and of other providers (feature `testing`).
//!
//! - [`mail`] makes messages.
//! - [`conformance`] is the list of checks that every provider passes, and an outside one can pass too.
//! - [`graph`] is a fake of Microsoft Graph and of its sign-in.

pub mod conformance;
pub mod graph;
mod mail;

pub use mail::{Mail, mail};
