//! The settings of an IMAP account.

use std::{path::PathBuf, sync::Arc};

use serde::Deserialize;
use url::Url;

use super::NAME;
use crate::{
    MailAccount, MailboxInfo, Result, SecretSource,
    auth::{Audience, Auth, Registration, SignInSettings, is_loopback, override_url},
    provider::{Opening, ProviderConfig, is_address},
    setting::{Field, Kind, Label, Places, Value},
};

/// An account of provider `imap`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ImapConfig {
    /// The server's name or address.
    pub host: String,
    /// The port; [`port`](Self::port) gives the default.
    #[serde(default)]
    pub port: Option<u16>,
    /// How the connection is protected.
    #[serde(default)]
    pub tls: Tls,
    /// A file of certificates to trust besides the platform's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The name to sign in with; with OAuth the mailbox.
    pub username: String,
    /// The password; either this or `oauth`.
    #[serde(default)]
    pub password: Option<SecretSource>,
    /// Sign-in with a token instead of a password.
    #[serde(default)]
    pub oauth: Option<ImapOAuth>,
}

/// How the connection to an IMAP server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Tls {
    /// From the first byte (port 993).
    #[default]
    Implicit,
    /// Begun in the clear, then protected before anything is said (port 143).
    Starttls,
    /// Not at all; only to this machine (port 143).
    None,
}

/// Whether a server is Exchange Online's or Outlook.com's, in any cloud.
pub(crate) fn is_exchange_online(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    ["outlook.office365.com", "outlook.office.com", "outlook.com", "imap-mail.outlook.com", "partner.outlook.cn"]
        .iter()
        .any(|known| host == *known || host.ends_with(&format!(".{known}")))
        || host.ends_with(".office365.us")
}

impl Tls {
    const NAMES: &'static [&'static str] = &["implicit", "starttls", "none"];
}

/// `oauth = { ... }`: sign-in with a token.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ImapOAuth {
    /// The app registration.
    #[serde(default)]
    pub app: Registration,
    /// Who signs in.
    pub auth: Auth,
    /// Which person signs in, where that is not the mailbox itself. Only with [`Auth::Delegated`].
    #[serde(default)]
    pub principal: Option<String>,
    /// The token endpoint of a service that is not Microsoft's.
    #[serde(default)]
    pub token_url: Option<String>,
    /// Its authorisation endpoint.
    #[serde(default)]
    pub authorize_url: Option<String>,
    /// The scopes to ask for there.
    #[serde(default)]
    pub scopes: Option<Vec<String>>,
}

impl ImapConfig {
    /// An account with a password and implicit TLS.
    pub fn new(host: impl Into<String>, username: impl Into<String>, password: SecretSource) -> Self {
        Self {
            host: host.into(),
            port: None,
            tls: Tls::Implicit,
            ca_file: None,
            username: username.into(),
            password: Some(password),
            oauth: None,
        }
    }

    /// The port, by default that of the kind of protection (RFC 9051, section 2.1; RFC 8314).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.tls {
            Tls::Implicit => 993,
            Tls::Starttls | Tls::None => 143,
        })
    }

    /// Checks everything that can be checked before any call.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) naming the key and the remedy.
    pub fn check(&self, places: &Places) -> Result<()> {
        let host = self.host.trim();
        if host.contains("://") {
            return Err(places.invalid("host", "is a URL; write only the server's name"));
        }
        let is_ip = host.parse::<std::net::IpAddr>().is_ok();
        if let Some((name, port)) = host.rsplit_once(':').filter(|_| !is_ip) {
            return Err(
                places.invalid("host", format!("has a port in it; write `host = \"{name}\"` and `port = {port}`"))
            );
        }
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || "/\"'@".contains(c)) {
            return Err(places.invalid("host", "is not the name of a server, such as `mail.contoso.nl`"));
        }
        if self.tls == Tls::None && !is_loopback(host) {
            return Err(places.invalid(
                "tls",
                format!("is `none`, which would send the password unprotected to `{host}`; write `implicit` or `starttls`, `none` is only for this machine"),
            ));
        }
        if self.username.trim().is_empty() {
            return Err(places.invalid("username", "is empty"));
        }
        // SASL PLAIN ends its fields with NUL, and a command ends with a line break.
        if self.username.contains(char::is_control) {
            return Err(places.invalid("username", "contains a control character"));
        }
        match (&self.password, &self.oauth) {
            (None, None) => Err(places.invalid("password", "is missing; write `password` or `oauth`")),
            (Some(_), Some(_)) => Err(places.invalid("password", "is given beside `oauth`; keep one of them")),
            (Some(_), None) => Ok(()),
            (None, Some(oauth)) => oauth.check(&places.within("oauth")),
        }
    }
}

impl ImapOAuth {
    fn check(&self, places: &Places) -> Result<()> {
        if self.auth == Auth::App && self.principal.is_some() {
            return Err(places.invalid(
                "principal",
                "says who signs in, but with `auth = \"app\"` nobody does; remove it, or write `auth = \"delegated\"`",
            ));
        }
        if let Some(url) = &self.token_url {
            override_url(url).map_err(|e| places.invalid("token_url", e.chain()))?;
        }
        if let Some(url) = &self.authorize_url {
            page_url(url).map_err(|e| places.invalid("authorize_url", e.chain()))?;
        }
        if self.token_url.is_some() {
            if self.auth == Auth::Delegated && self.authorize_url.is_none() {
                return Err(places.invalid("authorize_url", "is missing beside `token_url`; a person signs in there"));
            }
            if self.scopes.as_ref().is_none_or(Vec::is_empty) {
                return Err(places.invalid("scopes", "is missing beside `token_url`; write the scopes of that service"));
            }
        } else if self.authorize_url.is_some() {
            return Err(places.invalid("token_url", "is missing beside `authorize_url`"));
        }
        self.app.check(places, self.auth, self.token_url.is_some())
    }
}

impl ImapOAuth {
    /// How the account signs in, once the settings have been found right.
    fn settings(&self, mailbox: &str, places: &Places) -> Result<SignInSettings> {
        let audience = match &self.token_url {
            Some(url) => Audience::Other {
                token_url: override_url(url).map_err(|e| places.invalid("token_url", e.chain()))?,
                scopes: self.scopes.clone().unwrap_or_default(),
            },
            None => Audience::Exchange,
        };
        let authorize_url = match &self.authorize_url {
            Some(url) => Some(page_url(url).map_err(|e| places.invalid("authorize_url", e.chain()))?),
            None => None,
        };
        let settings = SignInSettings::new(self.app.clone(), places.clone(), self.auth, audience, mailbox);
        Ok(settings.with_principal(self.principal.as_deref()).with_authorize_url(authorize_url))
    }
}

/// The address of a sign-in page. Some services take their wishes as parameters in it, such as `access_type=offline`.
fn page_url(text: &str) -> Result<Url> {
    let (bare, parameters) = text.trim().split_once('?').map_or((text, None), |(bare, rest)| (bare, Some(rest)));
    let mut url = override_url(bare)?;
    url.set_query(parameters);
    Ok(url)
}

impl ProviderConfig for ImapConfig {
    const NAME: &'static str = NAME;

    fn kind() -> Kind {
        let mut oauth = Registration::fields();
        oauth.extend([
            Field::new("auth", Value::Choice(Auth::NAMES), "Who signs in", "Wie meldt zich aan").required(),
            Field::new("principal", Value::Text, "Signs in as", "Meldt zich aan als"),
            Field::new("token_url", Value::Url, "Token endpoint", "Token-eindpunt"),
            Field::new("authorize_url", Value::Url, "Authorisation endpoint", "Autorisatie-eindpunt"),
            Field::new("scopes", Value::List, "Scopes", "Scopes"),
        ]);
        let fields = vec![
            Field::new("host", Value::Text, "Server", "Server").required(),
            Field::new("port", Value::Number { min: 1, max: 65_535 }, "Port", "Poort"),
            Field::new("tls", Value::Choice(Tls::NAMES), "Protection", "Beveiliging"),
            Field::new("ca_file", Value::Path, "Extra CA certificates (PEM)", "Extra CA-certificaten (PEM)"),
            Field::new("username", Value::Text, "User name", "Gebruikersnaam").required(),
            Field::new("password", Value::Text, "Password", "Wachtwoord").secret(),
            Field::new("oauth", Value::Group(oauth), "Sign-in with OAuth", "Aanmelden met OAuth"),
        ];
        Kind::new(NAME, Label::new("IMAP mailbox", "IMAP-postvak"), fields)
    }

    fn mailbox(&self, opening: &Opening) -> MailboxInfo {
        let username = self.username.trim();
        let name = match &opening.address {
            Some(address) => address.clone(),
            None if is_address(username) => username.to_owned(),
            // A bare user name says nothing without its server.
            None => format!("{username}@{}", self.host.trim()),
        };
        MailboxInfo::new(&opening.account, NAME, &name)
    }

    fn sign_in(&self, places: &Places) -> Result<Option<SignInSettings>> {
        self.check(places)?;
        let Some(oauth) = &self.oauth else { return Ok(None) };
        oauth.settings(&self.username, &places.within("oauth")).map(Some)
    }

    fn open(&self, opening: Opening) -> Result<Arc<dyn MailAccount>> {
        #[cfg(feature = "imap")]
        {
            let placed = |e: crate::Error| e.with_provider(NAME).with_account(&opening.account);
            let tokens = match self.sign_in(&opening.places).map_err(placed)? {
                Some(settings) => Some(opening.tokens_for(&settings).map_err(placed)?),
                None => None,
            };
            Ok(Arc::new(self.account(opening, tokens)?))
        }
        #[cfg(not(feature = "imap"))]
        {
            self.check(&opening.places)?;
            Err(crate::provider::not_built(NAME).with_account(opening.account))
        }
    }
}

#[cfg(feature = "imap")]
impl ImapConfig {
    /// Makes the account without connecting. `tokens` is who gives access tokens, where [`oauth`](Self::oauth) asks
    /// for them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) naming the key and the remedy.
    pub fn account(
        &self,
        opening: Opening,
        tokens: Option<Arc<dyn crate::auth::TokenProvider>>,
    ) -> Result<super::ImapAccount> {
        let timeouts = opening.context.patience().into();
        self.account_with(opening, tokens, timeouts, super::ImapAccount::CONNECTIONS)
    }

    pub(crate) fn account_with(
        &self,
        opening: Opening,
        tokens: Option<Arc<dyn crate::auth::TokenProvider>>,
        timeouts: super::session::Timeouts,
        connections: usize,
    ) -> Result<super::ImapAccount> {
        use super::pool::{Credentials, Settings, Shared};

        let placed = |e: crate::Error| e.with_provider(NAME).with_account(&opening.account);
        self.check(&opening.places).map_err(placed)?;
        let credentials = match (&self.password, tokens) {
            (Some(password), _) => Credentials::Password(password.clone(), opening.places.place("password")),
            (None, Some(tokens)) => Credentials::Tokens(tokens),
            (None, None) => {
                return Err(placed(opening.places.invalid("oauth", "is set, but nothing here gives access tokens")));
            }
        };
        let settings = Settings {
            info: self.mailbox(&opening),
            facts: self.facts(),
            server: super::signin::Server { host: self.host.trim().to_owned(), port: self.port(), tls: self.tls },
            user: self.username.trim().to_owned(),
            credentials,
            ca_file: self.ca_file.clone(),
            timeouts,
            connections,
        };
        Ok(super::ImapAccount::new(Shared::new(settings, opening.context)))
    }

    fn facts(&self) -> crate::provider::insight::Facts {
        let oauth = self.oauth.as_ref();
        let text = |value: &Option<String>| value.as_deref().map(|value| value.trim().to_owned());
        crate::provider::insight::Facts {
            server: Some(format!("{}:{}", self.host.trim(), self.port())),
            tenant: oauth.and_then(|oauth| text(&oauth.app.tenant)),
            client_id: oauth.and_then(|oauth| text(&oauth.app.client_id)),
            auth: oauth.map(|oauth| oauth.auth),
            shared: oauth
                .and_then(|oauth| text(&oauth.principal))
                .is_some_and(|principal| !principal.eq_ignore_ascii_case(self.username.trim())),
            is_microsofts: oauth.is_some_and(|oauth| oauth.token_url.is_none()),
        }
    }
}
