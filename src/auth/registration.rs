//! The app registration, entered once and used by many accounts.

use std::path::PathBuf;

use jiff::civil::Date;
use serde::Deserialize;
use url::Url;

use super::authority::{Authority, Cloud, is_guid, override_url};
use crate::{
    Error, Result, Secret, SecretSource,
    setting::{Field, Places, Value},
};

/// Who signs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Auth {
    /// The app itself, with its own secret, certificate or federated token.
    App,
    /// A person, once, in a browser.
    Delegated,
}

impl Auth {
    /// The names in the configuration.
    pub(crate) const NAMES: &'static [&'static str] = &["app", "delegated"];
}

/// An app registration as it stands in the configuration: `[registrations.*]`, or the same keys in the account.
///
/// Everything is optional here, because its two places are laid together; [`authority`](Self::authority) and
/// [`check`](Self::check) say what is missing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Registration {
    /// The tenant's id or domain, `organizations`, or a pasted URL of its sign-in service.
    pub tenant: Option<String>,
    /// The application (client) id.
    pub client_id: Option<String>,
    /// The client secret's value.
    pub client_secret: Option<SecretSource>,
    /// The value that replaces it, during rotation.
    pub client_secret_next: Option<SecretSource>,
    /// The day on which the secret expires.
    pub secret_expires: Option<Date>,
    /// A certificate instead of a secret.
    pub certificate: Option<Certificate>,
    /// A file with a token of another issuer instead of a secret; read again each time.
    pub federated_token_file: Option<PathBuf>,
    /// Which of Microsoft's clouds.
    pub cloud: Option<Cloud>,
    /// Another sign-in service: the authority without tenant.
    pub login_url: Option<String>,
    /// Another Microsoft Graph: the root without `/v1.0`.
    pub graph_url: Option<String>,
    /// Where the browser comes back to after a sign-in.
    pub redirect_uri: Option<String>,
    /// The proxy for all HTTP; its URL may hold a password.
    pub proxy: Option<SecretSource>,
    /// A file of certificates to trust besides the platform's.
    pub ca_file: Option<PathBuf>,
}

/// A certificate and its private key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Certificate {
    /// The certificate.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

impl Registration {
    /// The keys, for settings screens.
    pub(crate) fn fields() -> Vec<Field> {
        let certificate = vec![
            Field::new("cert_file", Value::Path, "Certificate file (PEM)", "Certificaatbestand (PEM)").required(),
            Field::new("key_file", Value::Path, "Private key file (PEM)", "Bestand met privésleutel (PEM)").required(),
        ];
        [
            Field::new(
                "tenant",
                Value::Text,
                "Tenant (id, domain or pasted URL)",
                "Tenant (id, domein of geplakte URL)",
            ),
            Field::new("client_id", Value::Text, "Application (client) id", "Toepassings-id (client)"),
            Field::new("client_secret", Value::Text, "Client secret (value)", "Clientgeheim (waarde)").secret(),
            Field::new(
                "client_secret_next",
                Value::Text,
                "Next client secret (value)",
                "Volgend clientgeheim (waarde)",
            )
            .secret(),
            Field::new("secret_expires", Value::Date, "Secret expires on", "Geheim verloopt op"),
            Field::new("certificate", Value::Group(certificate), "Certificate", "Certificaat"),
            Field::new("federated_token_file", Value::Path, "Federated token file", "Bestand met federatief token"),
            Field::new("cloud", Value::Choice(Cloud::NAMES), "Cloud", "Cloud"),
            Field::new("login_url", Value::Url, "Sign-in service", "Aanmeldservice"),
            Field::new("graph_url", Value::Url, "Microsoft Graph address", "Adres van Microsoft Graph"),
            Field::new("redirect_uri", Value::Url, "Redirect URI", "Omleidings-URI"),
            Field::new("proxy", Value::Url, "Proxy", "Proxy").secret(),
            Field::new("ca_file", Value::Path, "Extra CA certificates (PEM)", "Extra CA-certificaten (PEM)"),
        ]
        .map(Field::of_registration)
        .into()
    }

    /// Tenant, cloud and overrides as URLs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) naming the key.
    pub fn authority(&self, places: &Places) -> Result<Authority> {
        let Some(tenant) = &self.tenant else {
            return Err(places.invalid("tenant", "is missing; write the tenant's id or its domain"));
        };
        let told = |key: &'static str| move |e: Error| places.invalid(key, e.chain());
        let mut authority = Authority::parse(tenant, self.cloud).map_err(told("tenant"))?;
        if let Some(url) = &self.login_url {
            authority.login = override_url(url).map_err(told("login_url"))?;
        }
        if let Some(url) = &self.graph_url {
            authority.graph = override_url(url).map_err(told("graph_url"))?;
        }
        Ok(authority)
    }

    /// Where the browser comes back to.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when it is no URL, or plain http to another machine.
    pub fn redirect_uri(&self, places: &Places) -> Result<Option<Url>> {
        let told = |e: Error| places.invalid("redirect_uri", e.chain());
        self.redirect_uri.as_deref().map(|url| override_url(url).map_err(told)).transpose()
    }

    /// Checks the shapes of what was entered, before any call: the mistakes that are made when copying from a portal.
    ///
    /// `elsewhere` says that the account names its own `token_url`, so that Microsoft's rules do not hold.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) naming the key and the remedy.
    pub fn check(&self, places: &Places, auth: Auth, elsewhere: bool) -> Result<()> {
        let Some(client_id) = self.client_id.as_deref().map(str::trim).filter(|id| !id.is_empty()) else {
            return Err(
                places.invalid("client_id", "is missing; write the Application (client) ID of the app registration")
            );
        };
        self.redirect_uri(places)?;
        if !elsewhere {
            if !is_guid(client_id) {
                return Err(places.invalid(
                    "client_id",
                    "is not an id of 36 characters; write the Application (client) ID that the app registration's overview shows",
                ));
            }
            let authority = self.authority(places)?;
            if auth == Auth::App && !authority.is_one_tenant() {
                return Err(places.invalid(
                    "tenant",
                    format!(
                        "is `{}`, but with `auth = \"app\"` only one tenant's id or domain works",
                        authority.tenant
                    ),
                ));
            }
        }
        let given: Vec<_> = [
            ("client_secret", self.client_secret.is_some()),
            ("certificate", self.certificate.is_some()),
            ("federated_token_file", self.federated_token_file.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, given)| given.then_some(key))
        .collect();
        match given[..] {
            [] if auth == Auth::App => {
                return Err(places.invalid(
                    "client_secret",
                    "is missing; write `client_secret`, `certificate` or `federated_token_file`",
                ));
            }
            [one, other, ..] => {
                return Err(places.invalid(other, format!("is given beside `{one}`; keep one of them")));
            }
            _ => {}
        }
        if self.client_secret_next.is_some() && self.client_secret.is_none() {
            return Err(places.invalid("client_secret_next", "is given without `client_secret`"));
        }
        for (key, source) in [("client_secret", &self.client_secret), ("client_secret_next", &self.client_secret_next)]
        {
            if let Some(SecretSource::Literal(secret)) = source {
                self.check_client_secret(secret).map_err(|what| places.invalid(key, what))?;
            }
        }
        Ok(())
    }

    /// Reads `client_secret`, and `client_secret_next` where it is given, and checks their shape. Does I/O for
    /// `{ file = "..." }`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) naming the key and the remedy.
    pub fn read_client_secrets(&self, places: &Places) -> Result<Vec<Secret>> {
        let keys = [("client_secret", &self.client_secret), ("client_secret_next", &self.client_secret_next)];
        keys.into_iter()
            .filter_map(|(key, source)| Some((key, source.as_ref()?)))
            .map(|(key, source)| {
                let secret = source.read(&places.place(key))?;
                self.check_client_secret(&secret).map_err(|what| places.invalid(key, what))?;
                Ok(secret)
            })
            .collect()
    }

    /// The mistakes that are made when a client secret is copied.
    fn check_client_secret(&self, secret: &Secret) -> Result<(), &'static str> {
        let value = secret.expose();
        // Microsoft's secrets have ids, and every app of theirs a tenant. Elsewhere a GUID may be the secret itself.
        if self.tenant.is_some() && is_guid(value.trim()) {
            return Err(
                "looks like the secret's ID; write the secret's value, which is shown only once, when the secret is made",
            );
        }
        if value.trim() != value {
            return Err("has blanks or a line break at its start or end; remove them");
        }
        if value.contains(char::is_control) {
            return Err("has a line break or another control character in it; copy it once more, as one line");
        }
        if value.len() > 1 && value.starts_with(['"', '\'']) && value.ends_with(['"', '\'']) {
            return Err("has quotes around it; remove them");
        }
        if value.is_empty() { Err("is empty") } else { Ok(()) }
    }
}
