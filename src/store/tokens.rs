//! [`TokenStore`]: the sign-ins of people, and the hand-overs on their way.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;

use crate::{Result, Secret};

/// Whose sign-in: one person at one app registration. All accounts that agree in this share one sign-in, whatever
/// mailbox and service they read; an account whose `principal` is changed has none.
///
/// Kept trimmed and in lower case, so that two spellings are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SignInId {
    authority: String,
    client_id: String,
    principal: String,
}

impl SignInId {
    /// `authority` is where tokens are asked for, the tenant included; `principal` is who signs in, as the
    /// configuration names them.
    #[must_use]
    pub fn new(authority: &str, client_id: &str, principal: &str) -> Self {
        let form = |text: &str| text.trim().to_lowercase();
        Self { authority: form(authority), client_id: form(client_id), principal: form(principal) }
    }

    /// Where its tokens are asked for.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The app registration.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Who signs in.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.principal
    }
}

impl fmt::Display for SignInId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` at app `{}`", self.principal, self.client_id)
    }
}

/// Who has signed in, as the sign-in service told on the back channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signer {
    /// Their object id in the directory (`oid`), or what another service calls its users by (`sub`).
    pub id: String,
    /// Their tenant (`tid`), where there is one.
    pub tenant: Option<String>,
    /// Their name for people: an address as a rule.
    pub name: String,
}

impl Signer {
    /// A person of this id and name.
    pub fn new(id: impl Into<String>, name: impl Into<String>) -> Self {
        Self { id: id.into(), tenant: None, name: name.into() }
    }
}

/// Why a stored sign-in does not work any more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignInNeeded {
    /// Since when.
    pub since: Timestamp,
    /// The service's code, such as `AADSTS50173`.
    pub code: Option<String>,
    /// What it means, in a sentence; holds no secret.
    pub why: String,
}

impl SignInNeeded {
    /// From this moment on.
    pub fn new(since: Timestamp, code: Option<String>, why: impl Into<String>) -> Self {
        Self { since, code, why: why.into() }
    }
}

/// One stored sign-in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SignIn {
    /// Gives the next access token.
    pub refresh_token: Secret,
    /// The one before it, kept for one generation: tried once when the service does not know the newer one, which
    /// happens when a process died between the service's answer and our write.
    pub previous: Option<Secret>,
    /// What was granted, as the service listed it.
    pub scopes: Vec<String>,
    /// Who has signed in.
    pub signer: Signer,
    /// When they did.
    pub signed_in: Timestamp,
    /// When the refresh token was last used with success; a service forgets one that is never used (Entra: 90 days).
    pub refreshed: Timestamp,
    /// Set when the service has refused it for good.
    pub needed: Option<SignInNeeded>,
    /// Grows by one with every write; see [`TokenStore::put_sign_in`]. 0 before the first.
    pub version: i64,
}

impl SignIn {
    /// A new one, not yet stored.
    #[must_use]
    pub fn new(refresh_token: Secret, signer: Signer, now: Timestamp) -> Self {
        Self {
            refresh_token,
            previous: None,
            scopes: Vec::new(),
            signer,
            signed_in: now,
            refreshed: now,
            needed: None,
            version: 0,
        }
    }
}

/// The right to refresh one sign-in, until it expires or is given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshLease {
    /// Whose.
    pub id: SignInId,
    /// Grows by one with every holder.
    pub token: i64,
}

/// A hand-over that has begun: a link was shown, and the answer is awaited. It may come in another process, and days
/// later.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pending {
    /// The random `state` parameter that the link carries and the answer must bring back. Stores keep a hash of it.
    pub state: Secret,
    /// The account that it is for.
    pub account: String,
    /// What is awaited.
    pub purpose: Purpose,
    /// Whose sign-in it makes.
    pub id: SignInId,
    /// The PKCE verifier (RFC 7636); what the code is redeemed with. Empty for an administrator's consent, which brings
    /// no code.
    pub verifier: Secret,
    /// The redirect URI in the link; the code is redeemed with the same.
    pub redirect_uri: String,
    /// The `nonce` in the link; the id token must bring it back. Empty as well.
    pub nonce: Secret,
    /// When it began.
    pub begun: Timestamp,
    /// Until when an answer is taken.
    pub expires: Timestamp,
}

/// What a hand-over is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// A person signs in.
    SignIn,
    /// An administrator consents for the tenant.
    AdminConsent,
}

impl Pending {
    /// A hand-over for this account.
    #[must_use]
    #[allow(clippy::too_many_arguments, reason = "a record of nine facts, none of which has a default")]
    pub fn new(
        state: Secret,
        account: impl Into<String>,
        purpose: Purpose,
        id: SignInId,
        verifier: Secret,
        redirect_uri: impl Into<String>,
        nonce: Secret,
        begun: Timestamp,
        expires: Timestamp,
    ) -> Self {
        Self {
            state,
            account: account.into(),
            purpose,
            id,
            verifier,
            redirect_uri: redirect_uri.into(),
            nonce,
            begun,
            expires,
        }
    }
}

/// What the store knows of a `state`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Taken {
    /// It was waiting, and is used now: nobody else gets it.
    Open(Pending),
    /// It was used before, for this account.
    Used {
        /// The account it was for.
        account: String,
    },
    /// Its time has passed.
    Expired {
        /// The account it was for.
        account: String,
    },
    /// No hand-over here has ever had this state.
    Unknown,
}

/// Durable memory of sign-ins, shared by all processes that use them.
///
/// Secrets are sealed by the store. An implementation must be durable when a call returns, and atomic per call.
/// `SqlStore` is the one that comes with the crate.
///
/// # How a refresh token is renewed
///
/// [`lock`](Self::lock), then [`sign_in`](Self::sign_in) (another process may have renewed it meanwhile), then the
/// service, then [`put_sign_in`](Self::put_sign_in) with the version that was read, then [`unlock`](Self::unlock); only
/// then is the new access token used. The lease keeps processes apart; the version is the second guard, for a holder
/// that was paused past its lease.
#[async_trait]
pub trait TokenStore: fmt::Debug + Send + Sync + 'static {
    /// Whether a sign-in could be stored: asked before a person is sent to sign in.
    ///
    /// # Errors
    ///
    /// Those of [`put_sign_in`](Self::put_sign_in), but for a conflict.
    async fn ready(&self) -> Result<()>;

    /// The stored sign-in, if there is one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage);
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when it is sealed with a key that is not at hand.
    async fn sign_in(&self, id: &SignInId) -> Result<Option<SignIn>>;

    /// Writes a sign-in if the stored version is still `sign_in.version` (0: there is none yet, or it does not
    /// matter who was there before: see `replace`). Returns the new version.
    ///
    /// With `replace` any stored one is replaced: a person has signed in anew.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) when another one was written meanwhile; nothing is written then.
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when there is no key to seal it with, and plain text was not asked for.
    async fn put_sign_in(&self, id: &SignInId, sign_in: &SignIn, replace: bool) -> Result<i64>;

    /// Forgets a sign-in. Not an error when there is none.
    async fn forget_sign_in(&self, id: &SignInId) -> Result<()>;

    /// All that are stored, without their secrets being opened: whose, and when they were last refreshed.
    async fn sign_ins(&self) -> Result<Vec<(SignInId, Timestamp)>>;

    /// Takes the right to refresh for `ttl`; `None` when another process has it. The lease of a process on this
    /// machine that is known to be dead is taken over at once, any other after it has expired.
    async fn lock(&self, id: &SignInId, ttl: Duration) -> Result<Option<RefreshLease>>;

    /// Gives it back. Not an error when it was lost before.
    async fn unlock(&self, lease: &RefreshLease) -> Result<()>;

    /// Remembers a hand-over that begins. Those whose time is long past are cleared away.
    ///
    /// # Errors
    ///
    /// As [`put_sign_in`](Self::put_sign_in): the verifier and the nonce are sealed too, unless they are empty.
    async fn put_pending(&self, pending: &Pending) -> Result<()>;

    /// Takes the hand-over that this `state` belongs to. Of two who ask for the same, one gets [`Taken::Open`].
    async fn take_pending(&self, state: &Secret, now: Timestamp) -> Result<Taken>;
}
