//! Which cloud, which tenant, and the URLs that follow from them.

use serde::Deserialize;
use url::{Host, Url};
use uuid::Uuid;

use crate::{Error, ErrorKind, Result};

/// One of Microsoft's separate clouds ("National cloud deployments", Microsoft Graph documentation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cloud {
    /// The one almost everybody uses.
    #[default]
    Global,
    /// US Government, GCC High.
    UsGov,
    /// US Government, DoD.
    UsDod,
    /// China, run by 21Vianet.
    China,
}

impl Cloud {
    /// The names in the configuration.
    pub(crate) const NAMES: &'static [&'static str] = &["global", "us-gov", "us-dod", "china"];

    /// The sign-in service.
    #[must_use]
    pub const fn login_url(self) -> &'static str {
        match self {
            Self::Global => "https://login.microsoftonline.com",
            Self::UsGov | Self::UsDod => "https://login.microsoftonline.us",
            Self::China => "https://login.chinacloudapi.cn",
        }
    }

    /// Microsoft Graph, without version. Also what tokens are asked for, whatever overrides say.
    #[must_use]
    pub const fn graph_url(self) -> &'static str {
        match self {
            Self::Global => "https://graph.microsoft.com",
            Self::UsGov => "https://graph.microsoft.us",
            Self::UsDod => "https://dod-graph.microsoft.us",
            Self::China => "https://microsoftgraph.chinacloudapi.cn",
        }
    }

    /// Exchange Online, as the resource that IMAP tokens are asked for.
    #[must_use]
    pub const fn exchange_url(self) -> &'static str {
        match self {
            Self::Global => "https://outlook.office365.com",
            Self::UsGov => "https://outlook.office365.us",
            Self::UsDod => "https://outlook-dod.office365.us",
            Self::China => "https://partner.outlook.cn",
        }
    }

    /// The same for a person's tokens: the public cloud has another name there ("Authenticate an IMAP, POP or SMTP
    /// connection using OAuth", Exchange Online).
    #[must_use]
    pub const fn exchange_user_url(self) -> &'static str {
        match self {
            Self::Global => "https://outlook.office.com",
            other => other.exchange_url(),
        }
    }

    /// The name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::UsGov => "us-gov",
            Self::UsDod => "us-dod",
            Self::China => "china",
        }
    }

    /// The cloud of a sign-in host, current names and older aliases.
    fn of_login_host(host: &str) -> Option<Self> {
        match host {
            "login.microsoftonline.com" | "login.windows.net" | "login.microsoft.com" | "sts.windows.net" => {
                Some(Self::Global)
            }
            "login.microsoftonline.us" => Some(Self::UsGov),
            "login.chinacloudapi.cn" | "login.partner.microsoftonline.cn" | "sts.chinacloudapi.cn" => Some(Self::China),
            _ => None,
        }
    }

    fn shares_login_with(self, other: Self) -> bool {
        self.login_url() == other.login_url()
    }
}

/// A tenant at its sign-in service, and the Graph that goes with it.
///
/// ```
/// use mail_account::auth::{Authority, Cloud};
///
/// let pasted = "https://login.microsoftonline.us/contoso.nl/oauth2/token";
/// let authority = Authority::parse(pasted, None)?;
/// assert_eq!((authority.cloud, authority.tenant.as_str()), (Cloud::UsGov, "contoso.nl"));
/// assert_eq!(authority.token_url().as_str(), "https://login.microsoftonline.us/contoso.nl/oauth2/v2.0/token");
/// # Ok::<(), mail_account::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Authority {
    /// Which cloud's names tokens are asked for.
    pub cloud: Cloud,
    /// Tenant id or domain, `organizations`, `common` or `consumers`.
    pub tenant: String,
    /// The sign-in service, without tenant.
    pub login: Url,
    /// Microsoft Graph, without version.
    pub graph: Url,
}

impl Authority {
    /// Reads a tenant: its id or domain, `organizations`, or any URL of its sign-in service as portals show it (token
    /// and authorize endpoints of v1 and v2, metadata, issuer), which also tells the cloud.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`]; the text continues a sentence that begins with the key.
    pub fn parse(tenant: &str, cloud: Option<Cloud>) -> Result<Self> {
        let tenant = tenant.trim();
        if tenant.is_empty() {
            return Err(invalid("is empty; write the tenant's id or its domain, such as `contoso.nl`"));
        }
        let pasted = match tenant.split_once("://") {
            Some(("http" | "https", _)) => Some(tenant.to_owned()),
            Some((scheme, _)) => {
                return Err(invalid(format!("starts with `{scheme}:`; write the tenant's id or domain")));
            }
            // Copied without its scheme.
            None if tenant.contains('/') => Some(format!("https://{tenant}")),
            None => None,
        };
        let (cloud, tenant) = match pasted {
            None => (cloud.unwrap_or_default(), tenant.to_owned()),
            Some(pasted) => from_url(&pasted, cloud)?,
        };
        check_tenant(&tenant)?;
        let fixed = |text: &str| Url::parse(text).expect("a constant");
        Ok(Self { cloud, tenant, login: fixed(cloud.login_url()), graph: fixed(cloud.graph_url()) })
    }

    /// Where tokens are asked for (v2.0).
    #[must_use]
    pub fn token_url(&self) -> Url {
        self.endpoint(&["oauth2", "v2.0", "token"])
    }

    /// Where a person signs in (v2.0).
    #[must_use]
    pub fn authorize_url(&self) -> Url {
        self.endpoint(&["oauth2", "v2.0", "authorize"])
    }

    /// Where a device code is asked for.
    #[must_use]
    pub fn device_code_url(&self) -> Url {
        self.endpoint(&["oauth2", "v2.0", "devicecode"])
    }

    /// Where an administrator consents for the whole tenant. That page does not know `common`; administrators are at
    /// `organizations` ("Admin consent", Microsoft identity platform).
    #[must_use]
    pub fn admin_consent_url(&self) -> Url {
        let tenant = if self.tenant == "common" { "organizations" } else { &self.tenant };
        self.url_of(tenant, &["v2.0", "adminconsent"])
    }

    /// Whether the tenant is one tenant, and not a name for many.
    #[must_use]
    pub fn is_one_tenant(&self) -> bool {
        !MANY_TENANTS.contains(&self.tenant.as_str())
    }

    fn endpoint(&self, path: &[&str]) -> Url {
        self.url_of(&self.tenant, path)
    }

    fn url_of(&self, tenant: &str, path: &[&str]) -> Url {
        let mut url = self.login.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(tenant).extend(path);
        }
        url
    }
}

/// Names that stand for many tenants; no app can sign in by itself there.
const MANY_TENANTS: [&str; 3] = ["organizations", "common", "consumers"];

fn from_url(pasted: &str, cloud: Option<Cloud>) -> Result<(Cloud, String)> {
    let url = Url::parse(pasted).map_err(|e| invalid("looks like a URL, but is none").with_source(e))?;
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    let Some(found) = Cloud::of_login_host(&host) else {
        return Err(invalid(format!(
            "is a URL of `{host}`, which is not a Microsoft sign-in service; write the tenant's id or domain here, and another service's address in `login_url`"
        )));
    };
    let cloud = match cloud {
        Some(given) if !given.shares_login_with(found) => {
            return Err(invalid(format!(
                "is a URL of the cloud `{}`, but `cloud` says `{}`; correct one of them",
                found.as_str(),
                given.as_str()
            )));
        }
        given => given.unwrap_or(found),
    };
    let tenant = url.path_segments().and_then(|mut path| path.find(|s| !s.is_empty())).unwrap_or_default();
    if tenant.is_empty() {
        return Err(invalid("is a URL without a tenant; write the tenant's id or its domain, such as `contoso.nl`"));
    }
    Ok((cloud, tenant.to_owned()))
}

fn check_tenant(tenant: &str) -> Result<()> {
    if is_guid(tenant) || MANY_TENANTS.contains(&tenant) {
        return Ok(());
    }
    let domain = tenant.contains('.')
        && !tenant.starts_with('.')
        && !tenant.ends_with('.')
        && tenant.chars().all(|c| c.is_alphanumeric() || c == '.' || c == '-');
    if domain {
        return Ok(());
    }
    let hint = if tenant.contains(['"', '\'']) {
        "has quotes in it; remove them"
    } else if tenant.contains('@') {
        "is a mail address; write only the part after the @"
    } else {
        "is neither a tenant id (36 characters) nor a domain, such as `contoso.nl`"
    };
    Err(invalid(hint))
}

/// Whether this is a GUID in the form portals show.
pub(crate) fn is_guid(text: &str) -> bool {
    text.len() == 36 && Uuid::try_parse(text).is_ok()
}

/// Whether a connection to this host never leaves the machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    match Host::parse(host) {
        Ok(Host::Ipv4(ip)) => ip.is_loopback(),
        Ok(Host::Ipv6(ip)) => ip.is_loopback(),
        Ok(Host::Domain(name)) => name.trim_end_matches('.') == "localhost",
        // An IPv6 address without brackets.
        Err(_) => host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
    }
}

/// Reads a URL that replaces one of the cloud's: https, or http to this machine; no user name, query or fragment.
pub(crate) fn override_url(text: &str) -> Result<Url> {
    let url = Url::parse(text.trim()).map_err(|e| invalid("is not a URL").with_source(e))?;
    let Some(host) = url.host_str() else {
        return Err(invalid("is a URL without a host"));
    };
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(host) => {}
        "http" => {
            return Err(invalid(format!(
                "would send credentials unprotected to `{host}`; write https, http is only for this machine"
            )));
        }
        other => return Err(invalid(format!("starts with `{other}:`; write https"))),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("has a user name or password in it; remove them"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("has a `?` or `#` part; remove it"));
    }
    Ok(url)
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "11111111-2222-3333-4444-555555555555";

    #[test]
    fn pasted_urls_are_tenants() {
        let cases = [
            (format!("https://login.microsoftonline.com/{ID}/oauth2/v2.0/token"), Cloud::Global, ID),
            (format!("https://login.microsoftonline.com/{ID}/oauth2/token"), Cloud::Global, ID),
            (format!("https://login.microsoftonline.com/{ID}/oauth2/v2.0/authorize?client_id=x"), Cloud::Global, ID),
            (
                format!("https://login.microsoftonline.com/{ID}/v2.0/.well-known/openid-configuration"),
                Cloud::Global,
                ID,
            ),
            (
                format!("https://login.microsoftonline.com/{ID}/federationmetadata/2007-06/federationmetadata.xml"),
                Cloud::Global,
                ID,
            ),
            (format!("https://sts.windows.net/{ID}/"), Cloud::Global, ID),
            (format!("login.microsoftonline.com/{ID}/oauth2/token"), Cloud::Global, ID),
            (" https://LOGIN.microsoftonline.us/contoso.nl ".to_owned(), Cloud::UsGov, "contoso.nl"),
            ("https://login.partner.microsoftonline.cn/contoso.cn/oauth2/token".to_owned(), Cloud::China, "contoso.cn"),
            ("contoso.onmicrosoft.com".to_owned(), Cloud::Global, "contoso.onmicrosoft.com"),
            ("organizations".to_owned(), Cloud::Global, "organizations"),
        ];
        for (tenant, cloud, expected) in cases {
            let authority = Authority::parse(&tenant, None).unwrap_or_else(|e| panic!("{tenant}: {e}"));
            assert_eq!((authority.cloud, authority.tenant.as_str()), (cloud, expected), "{tenant}");
        }
    }

    #[test]
    fn a_pasted_url_and_the_cloud_must_agree() {
        let pasted = format!("https://login.microsoftonline.us/{ID}/oauth2/v2.0/token");
        assert_eq!(Authority::parse(&pasted, Some(Cloud::UsDod)).unwrap().cloud, Cloud::UsDod);
        let error = Authority::parse(&pasted, Some(Cloud::Global)).unwrap_err();
        assert!(error.to_string().contains("`us-gov`, but `cloud` says `global`"), "{error}");
    }

    #[test]
    fn consent_is_given_where_there_are_administrators() {
        for (tenant, at) in
            [("common", "organizations"), ("organizations", "organizations"), ("contoso.nl", "contoso.nl")]
        {
            let url = Authority::parse(tenant, None).unwrap().admin_consent_url();
            assert_eq!(url.path(), format!("/{at}/v2.0/adminconsent"));
        }
    }

    #[test]
    fn what_is_no_tenant_is_told() {
        for (tenant, says) in [
            ("", "is empty"),
            ("contoso", "neither a tenant id"),
            ("'contoso.nl'", "quotes"),
            ("info@contoso.nl", "after the @"),
            ("https://portal.azure.com/#home", "`portal.azure.com`, which is not"),
            ("https://login.microsoftonline.com/", "without a tenant"),
            ("ftp://contoso.nl", "starts with `ftp:`"),
        ] {
            let error = Authority::parse(tenant, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(says), "{tenant:?}: {error}");
        }
    }

    #[test]
    fn plain_http_only_to_this_machine() {
        for good in ["https://x.example", "http://localhost:8080", "http://127.0.0.1:1/a", "http://[::1]:2"] {
            override_url(good).unwrap_or_else(|e| panic!("{good}: {e}"));
        }
        for bad in [
            "http://x.example",
            "http://127.0.0.1.evil.example",
            "http://localhost.evil.example",
            "ftp://localhost",
            "x",
            "https://u:p@x.example",
            "https://x.example?a",
        ] {
            assert!(override_url(bad).is_err(), "{bad}");
        }
    }
}
