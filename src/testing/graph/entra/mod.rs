//! The login site: Entra's endpoints for applications and people, and the pages between them.
//!
//! Everything a person does is a form on a page, so that a browser can be driven through it, and plain HTTP can too
//! ([`GraphFake::sign_in_as`](super::GraphFake::sign_in_as)). A browser is a cookie; it may hold sessions of several
//! people, and an authorize request meets whatever is there.
//!
//! | file | what it holds |
//! |---|---|
//! | `setup.rs`, `people.rs` | what a test says about signing in, and what the site keeps |
//! | `authorize.rs`, `consent.rs`, `device.rs`, `token.rs` | the endpoints |
//! | `pages.rs`, `steps.rs` | the pages, and which comes next |
//! | `grants.rs`, `jwt.rs`, `scope.rs` | tokens: for what they are given, what stands in them, what can be asked for |
//! | `codes.rs` | the AADSTS codes, and how each is answered |
//! | `exchange.rs` | whether a token opens a mailbox by IMAP |
//! | `walk.rs` | a person at the pages, without a browser |

// For maintainers:
//   token.rs      the token endpoint: forms, credentials, client_credentials; grants.rs: the grants of people
//   authorize.rs  the authorize endpoint's request, and the way back to the application
//   steps.rs      what the pages ask next: account, password, policy, consent; pages.rs: their HTML
//   device.rs     device codes; consent.rs: an administrator's consent
//   people.rs     what is kept; scope.rs: resources and scopes; codes.rs: AADSTS; jwt.rs: tokens
//   setup.rs      what tests say about all this
//   exchange.rs   whether a token opens a mailbox by IMAP; walk.rs: a person without a browser
mod authorize;
mod codes;
mod consent;
mod device;
mod exchange;
mod grants;
mod jwt;
mod pages;
mod people;
mod scope;
mod setup;
mod steps;
mod token;
mod walk;

pub use exchange::ImapAnswer;
pub use people::{Platform, Rotation};
pub use walk::{Answer, FakeBrowser};

pub(crate) use jwt::{Token, check, thumbprint};
pub(crate) use people::People;
pub(crate) use scope::Permission;
pub(crate) use setup::{consent_for_everyone, tenant_id};

use super::faults::Kind;
use super::log::Route;
use super::reply::Reply;
use super::routes::{Incoming, retry_after};
use super::state::{App, State};
use codes::{Aadsts, aadsts};
use percent_encoding::percent_decode_str;
use serde_json::json;

/// How the login site treats people, where the documentation leaves it open or a tenant decides.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SignInSettings {
    /// What becomes of a used refresh token: [`Rotation::Reusable`].
    pub rotation: Rotation,
    /// An authorize request without `prompt=select_account` is refused (9002313), `prompt=consent` with it: a client
    /// that signs in one mailbox after another in one browser must let the person choose. `false`.
    pub demand_account_choice: bool,
    /// An authorize request without `code_challenge` is refused (9002313). The service accepts it from all but
    /// single-page applications; no client should send it. `true`.
    pub demand_pkce: bool,
    /// People may consent for themselves to what needs no administrator. `true`; with `false`, all consent is an
    /// administrator's (90094).
    pub people_consent: bool,
    /// People can send a request to an administrator: 90095 in place of 90094. `false`.
    pub consent_requests: bool,
    /// `error` of the redirect when consent of an administrator is missing: `access_denied`; `consent_required` was
    /// seen too.
    pub admin_consent_error: String,
    /// `interval` in answers of the device code endpoint, in seconds: 5; `None` leaves it out.
    pub device_interval: Option<u64>,
    /// A device that polls before its interval is over gets `slow_down`, by the fake's clock. `false`, as Microsoft
    /// does not list it.
    pub slow_down: bool,
    /// `scope` of token answers holds bare names instead of whole ones. `false`.
    pub short_scopes: bool,
}

impl Default for SignInSettings {
    fn default() -> Self {
        SignInSettings {
            rotation: Rotation::Reusable,
            demand_account_choice: false,
            demand_pkce: true,
            people_consent: true,
            consent_requests: false,
            admin_consent_error: "access_denied".into(),
            device_interval: Some(5),
            slow_down: false,
            short_scopes: false,
        }
    }
}

/// Status, `error` and text of a code.
pub(crate) fn usual(code: u32) -> (u16, String, String) {
    let refused = aadsts(code);
    (refused.status, refused.error, refused.message)
}

/// The kind of a request to the login site.
pub(crate) fn route(target: &str) -> Route {
    let path = target.split('?').next().unwrap_or_default();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments.as_slice() {
        [_, "oauth2", "v2.0", "token"] | [_, "oauth2", "token"] => Route::Token,
        [_, "oauth2", "v2.0", "authorize"] => Route::Authorize,
        [_, "oauth2", "v2.0", "devicecode"] => Route::DeviceCode,
        [_, "v2.0", "adminconsent"] | [_, "adminconsent"] => Route::AdminConsent,
        ["login"] | ["devicelogin"] | [_, "oauth2", "v2.0", "logout"] => Route::SignInPage,
        ["introspect"] | ["introspect", _] => Route::Introspect,
        _ => Route::OtherLogin,
    }
}

/// Answers a request to the login site, and tells the grant of a token request.
pub(crate) fn handle(
    state: &mut State,
    incoming: &Incoming<'_>,
    route: Route,
    fault: Option<&Kind>,
) -> (Option<String>, Reply) {
    let struck = match fault {
        Some(Kind::Entra { status, error, code, message }) => {
            let known = aadsts(*code);
            let mut refused = Aadsts::other(*status, error, *code, message);
            if known.error == *error {
                refused.suberror = known.suberror;
                refused.redirected = known.redirected;
            }
            Some((refused, None))
        }
        // What the endpoint says under load ("Handling error codes in your application").
        Some(Kind::Error { status, retry_after: value, .. }) => {
            let mut refused = aadsts(90033);
            refused.status = *status;
            Some((refused, retry_after(state, value)))
        }
        Some(Kind::Throttle { retry_after: value, .. }) => Some((aadsts(90055), retry_after(state, value))),
        _ => None,
    };
    let (grant, result) = match (route, struck) {
        // What goes wrong there goes back to the application, if it is one that may be answered.
        (Route::Authorize, struck) => {
            (None, Ok(authorize::handle(state, incoming, struck.map(|(refused, _)| refused))))
        }
        (_, Some((refused, value))) => {
            let reply = match route {
                Route::Token | Route::DeviceCode => refused.reply(state, incoming),
                _ => pages::failed(&refused),
            };
            let reply = match value {
                Some(value) => reply.with_header("Retry-After", value),
                None => reply,
            };
            (None, Ok(reply))
        }
        (Route::Token, None) => token::handle(state, incoming),
        (Route::DeviceCode, None) => (None, device::code(state, incoming)),
        (Route::AdminConsent, None) => (None, Ok(consent::handle(state, incoming))),
        (Route::SignInPage, None) => (None, Ok(steps::handle(state, incoming))),
        (Route::Introspect, None) => (None, exchange::introspect(state, incoming)),
        _ => (None, metadata(state, incoming)),
    };
    let reply = result.unwrap_or_else(|refused| refused.reply(state, incoming));
    (grant, reply)
}

/// The tenant that a path of the login site begins with.
fn tenant_of(path: &str) -> String {
    percent_decode_str(path.split('/').nth(1).unwrap_or_default()).decode_utf8_lossy().into_owned()
}

/// Discovery and keys, as far as a client may want to find the endpoints there.
fn metadata(state: &State, incoming: &Incoming<'_>) -> Result<Reply, Aadsts> {
    let path = incoming.target.split('?').next().unwrap_or_default();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let root = &state.login_root;
    match segments.as_slice() {
        [tenant, "v2.0", ".well-known", "openid-configuration"] => {
            state.authority(tenant)?;
            Ok(Reply::json(
                200,
                json!({
                    "issuer": format!("{root}/{tenant}/v2.0"),
                    "authorization_endpoint": format!("{root}/{tenant}/oauth2/v2.0/authorize"),
                    "token_endpoint": format!("{root}/{tenant}/oauth2/v2.0/token"),
                    "device_authorization_endpoint": format!("{root}/{tenant}/oauth2/v2.0/devicecode"),
                    "end_session_endpoint": format!("{root}/{tenant}/oauth2/v2.0/logout"),
                    "jwks_uri": format!("{root}/{tenant}/discovery/v2.0/keys"),
                    "response_types_supported": ["code"],
                    "response_modes_supported": ["query", "fragment", "form_post"],
                }),
            ))
        }
        // The fake's signatures are its own; there is nothing to check them with.
        [_, "discovery", "v2.0", "keys"] => Ok(Reply::json(200, json!({"keys": []}))),
        _ => Err(aadsts(90009)),
    }
}

/// Whether this person may use this application at all.
fn vet(state: &State, app: &App, user: u32) -> Result<(), Aadsts> {
    let user = state.user_numbered(user);
    if !user.enabled || user.state == super::state::MailboxState::UserDeleted {
        return Err(aadsts(50057));
    }
    if let Some(code) = user.refused {
        return Err(aadsts(code));
    }
    match &app.assigned {
        Some(assigned) if !assigned.iter().any(|name| user.goes_by(name)) => Err(aadsts(50105).saying(format!(
            "Your administrator has configured the application ('{}') to block users unless they are specifically granted ('assigned') access to the application. The signed-in user '{}' is blocked because they are not a direct member of a group with access, nor had access directly assigned by an administrator.",
            app.client_id, user.upn
        ))),
        _ => Ok(()),
    }
}
