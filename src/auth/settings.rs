//! How an account signs in, as its settings say: what Graph and IMAP accounts have in common.

use url::Url;

#[cfg(feature = "oauth")]
use super::is_guid;
use super::{Audience, Auth, Registration, is_loopback};
use crate::{Result, setting::Places, store::SignInId};

/// How an account signs in with OAuth. A provider makes it of its settings
/// ([`ProviderConfig::sign_in`](crate::provider::ProviderConfig::sign_in)).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SignInSettings {
    /// The app registration.
    pub app: Registration,
    /// Where its keys stand, for errors.
    pub places: Places,
    /// Who signs in.
    pub auth: Auth,
    /// What the tokens are for.
    pub audience: Audience,
    /// Which person signs in: an address or an object id. Of no meaning with [`Auth::App`].
    pub principal: String,
    /// Which mailbox is read.
    pub mailbox: String,
    /// Where a person signs in at a service that is not Microsoft's; it may have parameters of its own, which are kept.
    pub authorize_url: Option<Url>,
}

impl SignInSettings {
    /// The app, or the owner of this mailbox, signs in.
    pub fn new(app: Registration, places: Places, auth: Auth, audience: Audience, mailbox: impl Into<String>) -> Self {
        let mailbox = mailbox.into().trim().to_owned();
        Self { app, places, auth, audience, principal: mailbox.clone(), mailbox, authorize_url: None }
    }

    /// Somebody else than the mailbox's owner signs in, where one is named.
    #[must_use]
    pub fn with_principal(mut self, principal: Option<&str>) -> Self {
        if let Some(principal) = principal {
            principal.trim().clone_into(&mut self.principal);
        }
        self
    }

    /// Where a person signs in at a service that is not Microsoft's.
    #[must_use]
    pub fn with_authorize_url(mut self, url: Option<Url>) -> Self {
        self.authorize_url = url;
        self
    }

    /// Whether a sign-in comes back to the machine that it was begun on: the app registration's redirect URI is one of
    /// loopback, or there is none, so that `http://localhost` is used. Otherwise it comes to a page of the host's.
    #[must_use]
    pub fn returns_here(&self) -> bool {
        let is_here = |url: Url| url.scheme() == "http" && url.host_str().is_some_and(is_loopback);
        self.app.redirect_uri.as_deref().is_none_or(|uri| Url::parse(uri.trim()).is_ok_and(is_here))
    }

    /// Where tokens are asked for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when the tenant cannot be read.
    pub fn token_url(&self) -> Result<Url> {
        match &self.audience {
            Audience::Other { token_url, .. } => Ok(token_url.clone()),
            Audience::Graph | Audience::Exchange => Ok(self.app.authority(&self.places)?.token_url()),
        }
    }

    /// Whose sign-in it is; the same for all accounts of one registration that one person signs in for.
    ///
    /// # Errors
    ///
    /// As [`token_url`](Self::token_url).
    pub fn id(&self) -> Result<SignInId> {
        let client_id = self.app.client_id.as_deref().unwrap_or_default();
        Ok(SignInId::new(self.token_url()?.as_str(), client_id, &self.principal))
    }

    /// What is asked for: everything the app was granted, or for a person what reading and moving this mailbox takes
    /// ("Microsoft Graph permissions reference"; "Authenticate an IMAP, POP or SMTP connection using OAuth", Exchange
    /// Online). One resource, as every request for a token must be.
    ///
    /// # Errors
    ///
    /// As [`token_url`](Self::token_url).
    pub fn scopes(&self) -> Result<Vec<String>> {
        if let Audience::Other { scopes, .. } = &self.audience {
            return Ok(scopes.clone());
        }
        let cloud = self.app.authority(&self.places)?.cloud;
        if self.auth == Auth::App {
            return Ok(vec![self.audience.app_scope(cloud)]);
        }
        Ok(match self.audience {
            Audience::Graph => {
                // Another person's mailbox needs the `.Shared` permission, and the person's own right to it in Exchange.
                let shared = if self.principal.eq_ignore_ascii_case(&self.mailbox) { "" } else { ".Shared" };
                vec![format!("{}/Mail.ReadWrite{shared}", cloud.graph_url()), profile_scope(cloud)]
            }
            _ => vec![format!("{}/IMAP.AccessAsUser.All", cloud.exchange_user_url())],
        })
    }

    /// What is asked for beside the scopes, when a person signs in: who they are, and a sign-in that lasts.
    #[cfg(feature = "oauth")]
    pub(crate) fn lasting_scopes(&self) -> &'static [&'static str] {
        match self.audience {
            // Other services have other words for it, which stand in `scopes`.
            Audience::Other { .. } => &[],
            _ => &["openid", "profile", "offline_access"],
        }
    }

    /// What a person is asked to agree to beyond this account's scopes: reading their profile, where only the profile
    /// tells whether they are the principal.
    #[cfg(feature = "oauth")]
    pub(crate) fn more_to_consent(&self) -> Result<Option<String>> {
        Ok(match self.audience {
            Audience::Exchange if !is_guid(&self.principal) => {
                Some(profile_scope(self.app.authority(&self.places)?.cloud))
            }
            _ => None,
        })
    }
}

/// Reading one's own profile.
pub(super) fn profile_scope(cloud: super::Cloud) -> String {
    format!("{}/User.Read", cloud.graph_url())
}
