//! The settings of a Graph account.

use std::sync::Arc;

use serde::Deserialize;

use super::NAME;
use crate::{
    MailAccount, MailboxInfo, Result,
    auth::{Audience, Auth, Registration, SignInSettings, is_guid},
    provider::{Opening, ProviderConfig, is_address},
    setting::{Field, Kind, Label, Places, Value},
};

/// An account of provider `graph`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct GraphConfig {
    /// The app registration.
    #[serde(default)]
    pub app: Registration,
    /// Who signs in.
    pub auth: Auth,
    /// Whose mail is read: an address or a directory object id.
    pub mailbox: String,
    /// Which person signs in, where that is not the mailbox itself. Only with [`Auth::Delegated`].
    #[serde(default)]
    pub principal: Option<String>,
}

impl GraphConfig {
    /// A mailbox that this app reads.
    pub fn new(app: Registration, auth: Auth, mailbox: impl Into<String>) -> Self {
        Self { app, auth, mailbox: mailbox.into(), principal: None }
    }

    /// Checks everything that can be checked before any call.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) naming the key and the remedy.
    pub fn check(&self, places: &Places) -> Result<()> {
        let mailbox = self.mailbox.trim();
        if !is_address(mailbox) && !is_guid(mailbox) {
            return Err(places.invalid(
                "mailbox",
                "is neither a mail address nor a directory object id (36 characters); write the mailbox's address",
            ));
        }
        if self.auth == Auth::App && self.principal.is_some() {
            return Err(places.invalid(
                "principal",
                "says who signs in, but with `auth = \"app\"` nobody does; remove it, or write `auth = \"delegated\"`",
            ));
        }
        self.app.check(places, self.auth, false)
    }
}

impl GraphConfig {
    /// How the account signs in, once the settings have been found right.
    pub(super) fn settings(&self, places: &Places) -> Result<SignInSettings> {
        self.check(places)?;
        let settings =
            SignInSettings::new(self.app.clone(), places.clone(), self.auth, Audience::Graph, &*self.mailbox);
        Ok(settings.with_principal(self.principal.as_deref()))
    }
}

impl ProviderConfig for GraphConfig {
    const NAME: &'static str = NAME;

    fn kind() -> Kind {
        let mut fields = Registration::fields();
        for field in &mut fields {
            field.required = matches!(field.name, "tenant" | "client_id");
        }
        fields.extend([
            Field::new("auth", Value::Choice(Auth::NAMES), "Who signs in", "Wie meldt zich aan").required(),
            Field::new("mailbox", Value::Text, "Mailbox (address or object id)", "Postvak (adres of object-id)")
                .required(),
            Field::new("principal", Value::Text, "Signs in as", "Meldt zich aan als"),
        ]);
        Kind::new(NAME, Label::new("Microsoft 365 (Graph)", "Microsoft 365 (Graph)"), fields)
    }

    fn mailbox(&self, opening: &Opening) -> MailboxInfo {
        MailboxInfo::new(&opening.account, NAME, opening.address.as_deref().unwrap_or(&self.mailbox))
    }

    fn sign_in(&self, places: &Places) -> Result<Option<SignInSettings>> {
        self.settings(places).map(Some)
    }

    fn open(&self, opening: Opening) -> Result<Arc<dyn MailAccount>> {
        #[cfg(feature = "graph")]
        return Ok(Arc::new(super::GraphAccount::open(self, opening)?));
        #[cfg(not(feature = "graph"))]
        {
            self.check(&opening.places)?;
            Err(crate::provider::not_built(NAME).with_account(opening.account))
        }
    }
}
