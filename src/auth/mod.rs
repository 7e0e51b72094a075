//! Signing in: app registrations, and where a cloud's sign-in service is.
//!
//! | file | what it holds |
//! |---|---|
//! | `registration.rs` | the app registration as it stands in the configuration, and its shape checks |
//! | `authority.rs` | the clouds, and tenant or pasted URL to endpoints |
//! | `settings.rs` | how an account signs in: app or person, for what, with which scopes |
//! | `token.rs` | [`TokenProvider`]: what Graph and IMAP ask for a token |
//! | `cache.rs` | tokens that are kept: one request at a time, replaced early |
//! | `claims.rs` | [`Claims`]: what a token says of itself, for help texts |
//! | `app.rs` | tokens of an app that signs in by itself |
//! | `delegated.rs` | tokens of a person who signed in once: using and renewing what is stored |
//! | `endpoint.rs` | an app at its token endpoint; who asks over HTTP is handed in |
//! | `credential.rs`, `certificate.rs` | what an app shows: secret, signed assertion, another issuer's token |
//! | `entra.rs` | the sign-in service's answers, and what its error codes mean |
//! | `hand_over.rs` | a person goes to sign in and comes back: link, state, code, consent |
//! | `callback.rs` | what the browser brings back |
//! | `device.rs` | the same with a code on another device |
//! | `identity.rs` | who has signed in |
//! | `outcome.rs` | what a hand-over came to, for the host and for the person at the browser |
//! | `tests.rs` | people and apps at a scripted sign-in service |
//!
//! # Authorize
//!
//! A person signs in once for an account with `auth = "delegated"`; from then on jobs run.
//! [`MailApp`](crate::MailApp) has the front: `sign_in_here` on the person's own machine, `begin_sign_in` and
//! `complete_sign_in` for a host's web page, `device_code` for a machine without a browser, `begin_admin_consent` where
//! an administrator must consent first, and `refresh_idle` for accounts that are seldom read. Accounts of one app
//! registration and one person share one sign-in.

#[cfg(feature = "oauth")]
mod app;
mod authority;
#[cfg(feature = "oauth")]
mod cache;
#[cfg(feature = "oauth")]
mod callback;
#[cfg(all(feature = "oauth", feature = "certificate"))]
mod certificate;
mod claims;
#[cfg(feature = "oauth")]
mod credential;
#[cfg(feature = "oauth")]
mod delegated;
#[cfg(feature = "oauth")]
mod device;
#[cfg(feature = "oauth")]
mod endpoint;
#[cfg(feature = "oauth")]
mod entra;
#[cfg(feature = "oauth")]
mod hand_over;
#[cfg(feature = "oauth")]
mod identity;
#[cfg(feature = "oauth")]
mod outcome;
mod registration;
mod settings;
#[cfg(all(test, feature = "oauth", feature = "testing"))]
mod tests;
mod token;

pub use authority::{Authority, Cloud};
pub(crate) use authority::{is_guid, is_loopback, override_url};
#[cfg(feature = "oauth")]
pub use callback::{Answer, Callback};
#[cfg(all(feature = "oauth", feature = "certificate"))]
pub(crate) use certificate::end as certificate_end;
pub use claims::Claims;
#[cfg(feature = "oauth")]
pub use device::DeviceCode;
#[cfg(all(test, feature = "oauth"))]
pub(crate) use entra::refusal_of;
#[cfg(feature = "oauth")]
pub use hand_over::HandOver;
#[cfg(feature = "oauth")]
pub use outcome::SignInOutcome;
pub use registration::{Auth, Certificate, Registration};
pub use settings::SignInSettings;
pub use token::{Audience, TokenProvider};
#[cfg(feature = "oauth")]
pub(crate) use {
    app::App,
    delegated::Person,
    endpoint::{Ask, Endpoint, Judge, Reply, Verdict, Worked},
    hand_over::{Flow, Prove, WEB},
    token::OneToken,
};
