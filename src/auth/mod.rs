//! Signing in: app registrations, and where a cloud's sign-in service is.
//!
//! | file | what it holds |
//! |---|---|
//! | `registration.rs` | the app registration as it stands in the configuration, and its shape checks |
//! | `authority.rs` | the clouds, and tenant or pasted URL to endpoints |
//! | `app.rs` | tokens of an app that signs in by itself: one cache for all mailboxes, one request at a time |
//! | `credential.rs`, `certificate.rs` | what an app shows: secret, signed assertion, another issuer's token |
//! | `entra.rs` | the sign-in service's answers, and what its error codes mean |
//! | `token.rs` | [`TokenProvider`]: what Graph and IMAP ask for a token |

#[cfg(feature = "oauth")]
mod app;
mod authority;
#[cfg(all(feature = "oauth", feature = "certificate"))]
mod certificate;
#[cfg(feature = "oauth")]
mod credential;
#[cfg(feature = "oauth")]
mod entra;
mod registration;
mod token;

#[cfg(feature = "oauth")]
pub(crate) use app::{AppTokens, PostForm, Reply, Verdict};
pub use authority::{Authority, Cloud};
pub(crate) use authority::{is_guid, is_loopback, override_url};
pub use registration::{Auth, Certificate, Registration};
pub use token::{Audience, TokenProvider};
