//! Signing in: app registrations, and where a cloud's sign-in service is.
//!
//! | file | what it holds |
//! |---|---|
//! | `registration.rs` | the app registration as it stands in the configuration, and its shape checks |
//! | `authority.rs` | the clouds, and tenant or pasted URL to endpoints |
//! | `token.rs` | [`TokenProvider`]: what Graph and IMAP ask for a token |

mod authority;
mod registration;
mod token;

pub use authority::{Authority, Cloud};
pub(crate) use authority::{is_guid, is_loopback, override_url};
pub use registration::{Auth, Certificate, Registration};
pub use token::{Audience, TokenProvider};
