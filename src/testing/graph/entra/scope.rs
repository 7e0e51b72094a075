//! Resources and their scopes: what can be asked for, and who may consent to it.

use super::codes::{Aadsts, aadsts};
use super::jwt::GRAPH_ID;
use std::collections::BTreeSet;

/// What a scope belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Resource {
    Graph,
    Exchange,
}

/// Scope hosts, and the audience of a token for each.
const HOSTS: [(&str, Resource); 4] = [
    ("https://graph.microsoft.com", Resource::Graph),
    (GRAPH_ID, Resource::Graph),
    ("https://outlook.office365.com", Resource::Exchange),
    ("https://outlook.office.com", Resource::Exchange),
];

/// In the consent URL of vendors, "Authenticate an IMAP, POP or SMTP connection using OAuth".
const CONSENT_ONLY: &str = "https://ps.outlook.com";

const OPENID: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// Delegated permissions of Graph that this fake has a use for ("Microsoft Graph permissions reference"), and
/// whether only an administrator can consent.
const GRAPH: [(&str, bool); 22] = [
    ("Mail.Read", false),
    ("Mail.Read.Shared", false),
    ("Mail.ReadBasic", false),
    ("Mail.ReadBasic.Shared", false),
    ("Mail.ReadWrite", false),
    ("Mail.ReadWrite.Shared", false),
    ("Mail.Send", false),
    ("Mail.Send.Shared", false),
    ("Mail-Advanced.ReadWrite", true),
    ("Mail-Advanced.ReadWrite.Shared", true),
    ("MailboxSettings.Read", false),
    ("MailboxSettings.ReadWrite", false),
    ("User.Read", false),
    ("User.ReadWrite", false),
    ("User.ReadBasic.All", false),
    ("User.Read.All", true),
    ("User.ReadWrite.All", true),
    ("Directory.Read.All", true),
    // The portal lists these under Graph as well; the token is then Graph's, and IMAP refuses it.
    ("IMAP.AccessAsUser.All", false),
    ("POP.AccessAsUser.All", false),
    ("SMTP.Send", false),
    ("Calendars.Read", false),
];

const EXCHANGE: [(&str, bool); 3] =
    [("IMAP.AccessAsUser.All", false), ("POP.AccessAsUser.All", false), ("SMTP.Send", false)];

impl Resource {
    fn known(self) -> &'static [(&'static str, bool)] {
        match self {
            Resource::Graph => &GRAPH,
            Resource::Exchange => &EXCHANGE,
        }
    }

    /// Whether an application permission is one of this resource.
    pub(crate) fn has_role(self, permission: &str) -> bool {
        let exchange = ["IMAP.", "POP.", "SMTP."].iter().any(|start| permission.starts_with(start))
            || permission == "full_access_as_app";
        exchange == (self == Resource::Exchange)
    }
}

/// A delegated permission: a resource and a name of its.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Permission {
    pub(crate) resource: Resource,
    pub(crate) name: String,
}

impl Permission {
    /// Whether only an administrator can consent to it.
    pub(crate) fn admin_only(&self) -> bool {
        self.resource.known().iter().any(|(name, admin)| *name == self.name && *admin)
    }
}

/// One resource of a request, and what is asked of it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The audience, as the request names the resource.
    pub(crate) host: &'static str,
    pub(crate) resource: Resource,
    pub(crate) names: BTreeSet<String>,
    /// `/.default`: whatever the registration lists.
    pub(crate) default: bool,
}

impl Asked {
    /// Permissions by name, `.default` spelt out.
    pub(crate) fn permissions(&self, registered: &BTreeSet<Permission>) -> BTreeSet<Permission> {
        if self.default {
            return registered.iter().filter(|permission| permission.resource == self.resource).cloned().collect();
        }
        let resource = self.resource;
        self.names.iter().map(|name| Permission { resource, name: name.clone() }).collect()
    }
}

/// The `scope` of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scopes {
    pub(crate) openid: BTreeSet<&'static str>,
    /// In the order of their first mention.
    pub(crate) resources: Vec<Asked>,
}

impl Scopes {
    pub(crate) fn has(&self, openid: &str) -> bool {
        self.openid.contains(openid)
    }
}

pub(crate) fn parse(text: &str) -> Result<Scopes, Aadsts> {
    let mut scopes = Scopes::default();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if let Some(known) = OPENID.iter().find(|known| **known == word) {
            scopes.openid.insert(known);
            continue;
        }
        let invalid = || {
            aadsts(70011).saying(format!(
                "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope {word} is not valid."
            ))
        };
        let (host, resource, name) = split(word).ok_or_else(|| unknown_resource(word).unwrap_or_else(invalid))?;
        let default = name == ".default";
        if !default && !resource.known().iter().any(|(known, _)| *known == name) {
            return Err(invalid());
        }
        let at = match scopes.resources.iter().position(|asked| asked.host == host) {
            Some(at) => at,
            None => {
                scopes.resources.push(Asked { host, resource, names: BTreeSet::new(), default: false });
                scopes.resources.len() - 1
            }
        };
        let asked = &mut scopes.resources[at];
        if default {
            asked.default = true;
        } else {
            asked.names.insert(name.to_owned());
        }
        if asked.default && !asked.names.is_empty() {
            return Err(aadsts(70011).saying(
                "The provided value for the input parameter 'scope' is not valid. .default scope can't be combined with resource-specific scopes.",
            ));
        }
    }
    Ok(scopes)
}

fn split(word: &str) -> Option<(&'static str, Resource, &str)> {
    let qualified = HOSTS.iter().find_map(|(host, resource)| {
        let name = word.strip_prefix(host)?.strip_prefix('/')?;
        Some((*host, *resource, name))
    });
    // A bare name is one of Graph's.
    qualified.or_else(|| (!word.contains('/')).then_some((HOSTS[0].0, HOSTS[0].1, word)))
}

fn unknown_resource(word: &str) -> Option<Aadsts> {
    let host = word.rsplit_once('/')?.0;
    host.starts_with("https://")
        .then(|| aadsts(500011).saying(format!("The resource principal named {host} was not found in the tenant.")))
}

/// A permission as a test writes it: a bare name is Graph's, or Exchange's if only that protocol needs it.
pub(crate) fn registered(text: &str) -> Option<Permission> {
    if text.starts_with("IMAP.") || text.starts_with("POP.") || text == "SMTP.Send" {
        return Some(Permission { resource: Resource::Exchange, name: text.to_owned() });
    }
    let asked = parse(text).ok()?.resources.pop()?;
    Some(Permission { resource: asked.resource, name: asked.names.into_iter().next()? })
}

/// The one resource of a `/.default` scope, as applications ask for it.
pub(crate) fn default_of(scope: &str) -> Result<(&'static str, Resource), Aadsts> {
    let scopes: Vec<&str> = scope.split_whitespace().collect();
    let [scope] = scopes.as_slice() else {
        return Err(aadsts(28000));
    };
    let Some(resource) = scope.strip_suffix("/.default") else {
        return Err(aadsts(1002012).saying(format!(
            "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."
        )));
    };
    HOSTS.iter().find(|(host, _)| *host == resource.trim_end_matches('/')).copied().ok_or_else(|| {
        aadsts(500011).saying(format!("The resource principal named {resource} was not found in the tenant."))
    })
}

/// Whether administrators can be asked to consent to this `scope`.
pub(crate) fn check_admin_consent(scope: &str) -> Result<(), Aadsts> {
    if scope == format!("{CONSENT_ONLY}/.default") {
        return Ok(());
    }
    parse(scope).map(|_| ())
}
