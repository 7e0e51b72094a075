//! Access tokens, and whoever has one.

use std::fmt;

use async_trait::async_trait;
use url::Url;

use super::{Authority, Cloud};
use crate::{Result, Secret};

/// Has an access token for one resource: shared by all accounts that sign in the same way, Graph or IMAP.
///
/// # Contract
///
/// - [`token`](Self::token) gives one that lives for at least another minute, from a cache where it can. However many
///   ask at once, the sign-in service is asked once.
/// - A caller whose token is refused says so with [`reject`](Self::reject) and asks once more; the second refusal is
///   final. Rejecting a token that has been replaced meanwhile does nothing.
#[async_trait]
pub trait TokenProvider: fmt::Debug + Send + Sync + 'static {
    /// A token to show to the service.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unauthenticated`](crate::ErrorKind::Unauthenticated) when the credentials are refused,
    /// [`ErrorKind::SignInNeeded`](crate::ErrorKind::SignInNeeded) when a person must sign in (again),
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig),
    /// [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) where consent or policy is missing, and the
    /// kinds of a service that cannot be reached.
    async fn token(&self) -> Result<Secret>;

    /// The service refused this token. `claims` is the JSON of its claims challenge, if it sent one ("Continuous
    /// access evaluation", Microsoft identity platform); it goes into the next request for a token.
    fn reject(&self, token: &Secret, claims: Option<&str>);
}

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Audience {
    /// Microsoft Graph.
    Graph,
    /// IMAP of Exchange Online.
    Exchange,
    /// A service that is not Microsoft's.
    Other {
        /// Its token endpoint.
        token_url: Url,
        /// What to ask for there.
        scopes: Vec<String>,
    },
}

impl Audience {
    /// The scope that an app asks for by itself: everything it was granted for one resource. It follows the cloud,
    /// whatever addresses are overridden.
    #[must_use]
    pub fn app_scope(&self, cloud: Cloud) -> String {
        match self {
            Self::Graph => format!("{}/.default", cloud.graph_url()),
            Self::Exchange => format!("{}/.default", cloud.exchange_url()),
            Self::Other { scopes, .. } => scopes.join(" "),
        }
    }

    /// Where its tokens are asked for.
    #[must_use]
    pub fn token_url(&self, authority: &Authority) -> Url {
        match self {
            Self::Graph | Self::Exchange => authority.token_url(),
            Self::Other { token_url, .. } => token_url.clone(),
        }
    }
}

/// A token that was just given, while it is proven: it is not replaced.
#[cfg(feature = "oauth")]
#[derive(Debug)]
pub(crate) struct OneToken(pub(crate) Secret);

#[cfg(feature = "oauth")]
#[async_trait]
impl TokenProvider for OneToken {
    async fn token(&self) -> Result<Secret> {
        Ok(self.0.clone())
    }

    fn reject(&self, _: &Secret, _: Option<&str>) {}
}
