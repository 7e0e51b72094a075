//! What the login site keeps about people: browsers, pages under way, codes, grants and consent.

use super::super::state::{App, State, User};
use super::codes::{Aadsts, aadsts};
use super::scope::{Permission, Scopes};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Seconds an authorization code lives ("about 10 minutes").
pub(crate) const CODE_LIFE: i64 = 600;
/// Seconds a device code lives.
pub(crate) const DEVICE_LIFE: i64 = 900;
/// Seconds a page under way lives.
pub(crate) const PAGE_LIFE: i64 = 3600;
/// Seconds a refresh token lives without use.
pub(crate) const REFRESH_LIFE: i64 = 90 * 86_400;
/// Seconds a refresh token of a single-page application lives, used or not.
pub(crate) const SPA_LIFE: i64 = 86_400;

/// The kind of application that a redirect URI is registered for; it decides how codes are redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Platform {
    /// A server: redemption and refresh need the secret or an assertion.
    Web,
    /// Mobile and desktop, a public client: neither may be sent.
    Native,
    /// A page in a browser: only cross-origin redemption, refresh tokens live 24 hours.
    Spa,
}

/// What becomes of a refresh token that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rotation {
    /// Microsoft's way: the answer holds a new one, and the old one stays good.
    Reusable,
    /// The answer holds a new one; any older one is refused and ends the whole grant.
    SingleUse,
    /// The answer holds a new one, and the used one stays good until that is used itself; any older one is refused and
    /// ends the whole grant.
    OneBack,
    /// The answer holds none: the old one is to be kept.
    Kept,
}

/// Which directories a request accepts people from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Authority {
    /// This tenant's id.
    Tenant(String),
    /// `organizations` or `common`; the fake has no personal accounts.
    Any,
}

impl Authority {
    pub(crate) fn admits(&self, tenant: &str) -> bool {
        match self {
            Authority::Tenant(id) => id == tenant,
            Authority::Any => true,
        }
    }
}

/// An account that a browser remembers.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) user: u32,
    pub(crate) live: bool,
}

/// A checked request to the authorize endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Authorization {
    pub(crate) client_id: String,
    pub(crate) authority: Authority,
    /// As it was sent: redemption must send the same.
    pub(crate) redirect: String,
    pub(crate) platform: Platform,
    pub(crate) mode: ResponseMode,
    pub(crate) scopes: Scopes,
    pub(crate) state: Option<String>,
    pub(crate) nonce: Option<String>,
    pub(crate) challenge: Option<String>,
    pub(crate) prompt: Option<Prompt>,
    pub(crate) hint: Option<String>,
    pub(crate) can_be_challenged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseMode {
    Query,
    Fragment,
    FormPost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prompt {
    SelectAccount,
    Login,
    Consent,
    None,
}

/// A request for consent of an administrator.
#[derive(Clone, Debug)]
pub(crate) struct AdminRequest {
    pub(crate) client_id: String,
    pub(crate) authority: Authority,
    pub(crate) redirect: String,
    pub(crate) state: Option<String>,
    /// Of the newer endpoint.
    pub(crate) scope: Option<String>,
}

/// Why someone is on the pages.
#[derive(Clone, Debug)]
pub(crate) enum Errand {
    Code(Authorization),
    /// A device's user code.
    Device(String),
    AdminConsent(AdminRequest),
}

/// Pages under way in one browser.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) errand: Errand,
    pub(crate) browser: String,
    /// Who is to give the password.
    pub(crate) typed: Option<u32>,
    /// Who is signed in.
    pub(crate) user: Option<u32>,
    /// Why it can only go back.
    pub(crate) refused: Option<Aadsts>,
    pub(crate) consented: bool,
    pub(crate) born: i64,
}

/// An authorization code.
pub(crate) struct Code {
    pub(crate) authorization: Authorization,
    pub(crate) user: u32,
    pub(crate) born: i64,
    pub(crate) used: bool,
}

/// A sign-in on a device without a browser.
pub(crate) struct Device {
    pub(crate) device_code: String,
    pub(crate) user_code: String,
    pub(crate) client_id: String,
    pub(crate) authority: Authority,
    pub(crate) scopes: Scopes,
    pub(crate) can_be_challenged: bool,
    pub(crate) born: i64,
    pub(crate) answer: DeviceState,
    /// When it was asked last, in microseconds, and how long it must wait.
    pub(crate) polled: Option<i64>,
    pub(crate) interval: u64,
}

pub(crate) enum DeviceState {
    Pending,
    Accepted(u32),
    Declined,
    Redeemed,
}

/// What a sign-in left behind: all refresh tokens that came of it.
pub(crate) struct Grant {
    pub(crate) client_id: String,
    pub(crate) user: u32,
    pub(crate) tenant: String,
    pub(crate) scopes: Scopes,
    pub(crate) platform: Platform,
    pub(crate) can_be_challenged: bool,
    /// When the person signed in.
    pub(crate) born: i64,
    /// The AADSTS code that it is refused with from now on.
    pub(crate) revoked: Option<u32>,
    pub(crate) newest: String,
    /// The refresh token that was used last.
    pub(crate) last_used: String,
}

pub(crate) struct RefreshToken {
    pub(crate) grant: usize,
    pub(crate) used: i64,
}

/// Everything above.
#[derive(Default)]
pub(crate) struct People {
    /// By cookie.
    pub(crate) browsers: HashMap<String, Vec<Session>>,
    pub(crate) flows: HashMap<String, Flow>,
    pub(crate) codes: HashMap<String, Code>,
    pub(crate) devices: Vec<Device>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) refresh_tokens: HashMap<String, RefreshToken>,
    /// By application, tenant and user; without user, for everyone in the tenant.
    pub(crate) consent: BTreeMap<(String, String, Option<u32>), BTreeSet<Permission>>,
    /// Tenants besides the first: id and domains.
    pub(crate) other_tenants: Vec<(String, Vec<String>)>,
}

impl People {
    /// Ends what a person's applications hold: with a code to refuse it by, and only where `which` says so.
    pub(crate) fn revoke(&mut self, user: u32, code: u32, which: impl Fn(&Grant) -> bool) {
        for grant in self.grants.iter_mut().filter(|grant| grant.user == user && which(grant)) {
            grant.revoked.get_or_insert(code);
        }
    }

    /// Ends a person's sessions in all browsers; the browsers still remember the account.
    pub(crate) fn end_sessions(&mut self, user: u32) {
        for session in self.browsers.values_mut().flatten().filter(|session| session.user == user) {
            session.live = false;
        }
    }
}

impl State {
    /// The tenant that a path names.
    pub(crate) fn authority(&self, name: &str) -> Result<Authority, Aadsts> {
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "common" | "organizations" => return Ok(Authority::Any),
            "consumers" => {
                return Err(aadsts(90130).saying("Application is not supported over the /consumers endpoint."));
            }
            _ => {}
        }
        if lower == self.tenant_id || self.domains.contains(&lower) {
            return Ok(Authority::Tenant(self.tenant_id.clone()));
        }
        let other = self.people.other_tenants.iter().find(|(id, domains)| *id == lower || domains.contains(&lower));
        if let Some((id, _)) = other {
            return Ok(Authority::Tenant(id.clone()));
        }
        let guid_like = lower.len() == 36 && lower.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let domain_like = lower.contains('.')
            && lower.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-');
        Err(if guid_like || domain_like {
            aadsts(90002).saying(format!(
                "Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud."
            ))
        } else {
            aadsts(900023).saying(format!(
                "Specified tenant identifier '{name}' is neither a valid DNS name, nor a valid external domain."
            ))
        })
    }

    /// The application a request names, as far as this authority may use it at all.
    pub(crate) fn app_for(&self, client_id: &str, authority: &Authority, name: &str) -> Result<App, Aadsts> {
        let unknown = || {
            aadsts(700016).saying(format!(
                "Application with identifier '{client_id}' was not found in the directory '{name}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant."
            ))
        };
        let app = self.app(client_id).cloned().ok_or_else(unknown)?;
        match authority {
            Authority::Any if !app.multi_tenant => {
                return Err(aadsts(50194).saying(format!(
                    "Application '{client_id}' is not configured as a multi-tenant application. Usage of the /common endpoint is not supported for such apps created after '10/15/2018'. Use a tenant-specific endpoint or configure the application to be multi-tenant."
                )));
            }
            Authority::Tenant(id) if *id != self.tenant_id && !app.multi_tenant => return Err(unknown()),
            _ => {}
        }
        if app.disabled {
            return Err(aadsts(7000112).saying(format!("Application '{client_id}' is disabled.")));
        }
        Ok(app)
    }

    /// The person who signs in with this name; aliases are no names to sign in with.
    pub(crate) fn person(&self, name: &str) -> Option<u32> {
        self.user(name.trim()).map(|at| self.users[at].number)
    }

    pub(crate) fn user_numbered(&self, number: u32) -> &User {
        &self.users[number as usize]
    }

    /// What this person or their administrator consented to.
    pub(crate) fn consented(&self, client_id: &str, user: &User) -> BTreeSet<Permission> {
        let of = |who: Option<u32>| self.people.consent.get(&(client_id.to_owned(), user.tenant.clone(), who));
        of(None).into_iter().chain(of(Some(user.number))).flatten().cloned().collect()
    }
}
