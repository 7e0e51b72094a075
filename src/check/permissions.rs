//! Permissions both ways: what a job needs of an account, as data, and what an account's token shows to be lacking or too
//! much.
//!
//! The least permissions are those of "Microsoft Graph permissions reference" and "Authenticate an IMAP, POP or SMTP
//! connection using OAuth".

use super::ImportJob;
use crate::auth::{Auth, Claims};

/// Something that a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Need {
    /// List folders and messages, without their text.
    List,
    /// Read texts and attachments.
    Attachments,
    /// Move messages to another folder, or mark them as read.
    Move,
    /// Make the folders that are missing.
    CreateFolder,
    /// Look addresses up in the tenant's directory: an alias, or a list to pick mailboxes from.
    ListAddresses,
}

impl Need {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::List, Self::Attachments, Self::Move, Self::CreateFolder, Self::ListAddresses];

    /// What a job does; without one, what reading takes.
    ///
    /// ```
    /// use mail_account::{ImportJob, check::permissions::Need};
    ///
    /// let job = ImportJob::new("invoices", "Inbox".parse()?).with_processed_folder("Done".parse()?);
    /// assert_eq!(Need::of(Some(&job)), [Need::List, Need::Attachments, Need::Move]);
    /// # Ok::<(), mail_account::Error>(())
    /// ```
    #[must_use]
    pub fn of(job: Option<&ImportJob>) -> Vec<Self> {
        let mut needs = vec![Self::List, Self::Attachments];
        if let Some(job) = job
            && (job.processed_folder.is_some() || job.failed_folder.is_some())
        {
            needs.push(Self::Move);
            if job.create_folders {
                needs.push(Self::CreateFolder);
            }
        }
        needs
    }
}

/// A service that has permissions of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Service {
    /// An account of provider `graph`.
    Graph,
    /// An account of provider `graph` for a mailbox of which somebody else than its owner signs in.
    GraphShared,
    /// An account of provider `imap` at Exchange Online, with `oauth`.
    ExchangeImap,
}

impl Service {
    /// The API under which the permissions are listed in an app registration.
    #[must_use]
    pub const fn api(self) -> &'static str {
        match self {
            Self::Graph | Self::GraphShared => "Microsoft Graph",
            Self::ExchangeImap => "Office 365 Exchange Online",
        }
    }
}

/// One row: what a need takes.
struct Row {
    need: Need,
    graph_app: &'static str,
    graph_person: &'static str,
    graph_shared: &'static str,
}

static ROWS: [Row; 5] = [
    Row {
        need: Need::List,
        graph_app: "Mail.ReadBasic.All",
        graph_person: "Mail.ReadBasic",
        graph_shared: "Mail.Read.Shared",
    },
    Row {
        need: Need::Attachments,
        graph_app: "Mail.Read",
        graph_person: "Mail.Read",
        graph_shared: "Mail.Read.Shared",
    },
    Row {
        need: Need::Move,
        graph_app: "Mail.ReadWrite",
        graph_person: "Mail.ReadWrite",
        graph_shared: "Mail.ReadWrite.Shared",
    },
    Row {
        need: Need::CreateFolder,
        graph_app: "Mail.ReadWrite",
        graph_person: "Mail.ReadWrite",
        graph_shared: "Mail.ReadWrite.Shared",
    },
    Row {
        need: Need::ListAddresses,
        graph_app: "User.Read.All",
        graph_person: "User.ReadBasic.All",
        graph_shared: "User.ReadBasic.All",
    },
];

/// Who holds the first may do all of the others.
static COVERS: [(&str, &[&str]); 7] = [
    ("Mail.ReadBasic", &["Mail.ReadBasic.All"]),
    ("Mail.ReadBasic.All", &["Mail.ReadBasic"]),
    ("Mail.Read", &["Mail.ReadBasic", "Mail.ReadBasic.All"]),
    ("Mail.ReadWrite", &["Mail.Read", "Mail.ReadBasic", "Mail.ReadBasic.All"]),
    ("Mail.Read.Shared", &["Mail.Read", "Mail.ReadBasic"]),
    ("Mail.ReadWrite.Shared", &["Mail.Read.Shared", "Mail.ReadWrite", "Mail.Read", "Mail.ReadBasic"]),
    ("User.Read.All", &["User.ReadBasic.All"]),
];

/// Asked for by signing in, or used where it is granted: never too much.
const HARMLESS: [&str; 8] = [
    "openid",
    "profile",
    "email",
    "offline_access",
    "User.Read",
    "User.Read.All",
    "User.ReadBasic.All",
    "MailboxSettings.Read",
];

/// The least permissions with which an account can do all this: none of them covers another.
///
/// A person's sign-in also asks for `offline_access`, without which it ends after an hour.
///
/// ```
/// use mail_account::{auth::Auth, check::permissions::{Need, Service, least}};
///
/// assert_eq!(least(Service::Graph, Auth::App, &[Need::List, Need::Attachments]), ["Mail.Read"]);
/// assert_eq!(least(Service::Graph, Auth::App, &Need::ALL), ["Mail.ReadWrite", "User.Read.All"]);
/// assert_eq!(least(Service::ExchangeImap, Auth::App, &[Need::Move]), ["IMAP.AccessAsApp"]);
/// ```
#[must_use]
pub fn least(service: Service, auth: Auth, needs: &[Need]) -> Vec<&'static str> {
    let of = |need: &Need| match (service, auth) {
        (Service::ExchangeImap, Auth::App) => (*need != Need::ListAddresses).then_some("IMAP.AccessAsApp"),
        (Service::ExchangeImap, Auth::Delegated) => (*need != Need::ListAddresses).then_some("IMAP.AccessAsUser.All"),
        (_, Auth::App) => ROWS.iter().find(|row| row.need == *need).map(|row| row.graph_app),
        (Service::Graph, Auth::Delegated) => ROWS.iter().find(|row| row.need == *need).map(|row| row.graph_person),
        (Service::GraphShared, Auth::Delegated) => {
            ROWS.iter().find(|row| row.need == *need).map(|row| row.graph_shared)
        }
    };
    let mut all: Vec<_> = needs.iter().filter_map(of).collect();
    all.sort_unstable();
    all.dedup();
    let covered = |name: &&str| all.iter().any(|other| other != name && covers(other, name));
    all.iter().copied().filter(|name| !covered(name)).collect()
}

/// Whether who holds `held` may do what `asked` allows.
fn covers(held: &str, asked: &str) -> bool {
    held.eq_ignore_ascii_case(asked)
        || COVERS.iter().any(|(name, below)| {
            name.eq_ignore_ascii_case(held) && below.iter().any(|name| name.eq_ignore_ascii_case(asked))
        })
}

/// What a token shows of an account's permissions. A hint: what Exchange's RBAC for Applications grants does not stand
/// in it, and a policy may take away what does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assessment {
    /// Whether the token shows any permission at all; an app that was granted its access by RBAC for Applications has
    /// none.
    pub shown: bool,
    /// Needed, and not in the token.
    pub lacking: Vec<&'static str>,
    /// In the token, and not needed.
    pub surplus: Vec<String>,
    /// Whether the permissions reach every mailbox of the tenant, unless a policy of Exchange limits them.
    pub tenant_wide: bool,
    /// Whether the token is of the other kind than the account's: an app's instead of a person's, or the reverse.
    pub other_kind: bool,
    /// The service that the token is for, where that is another one.
    pub other_audience: Option<String>,
}

impl Assessment {
    /// Compares what a token shows with what is needed.
    ///
    /// ```
    /// use mail_account::{Secret, auth::{Auth, Claims}, check::permissions::{Assessment, Need, Service}};
    ///
    /// // {} . {"roles":["Mail.Read","Mail.Send"]} .
    /// let token = Secret::new("e30.eyJyb2xlcyI6WyJNYWlsLlJlYWQiLCJNYWlsLlNlbmQiXX0.");
    /// let seen = Assessment::of(&Claims::of(&token).unwrap(), Service::Graph, Auth::App, &[Need::Move]);
    /// assert_eq!(seen.lacking, ["Mail.ReadWrite"]);
    /// assert_eq!(seen.surplus, ["Mail.Send"]);
    /// ```
    #[must_use]
    pub fn of(claims: &Claims, service: Service, auth: Auth, needs: &[Need]) -> Self {
        let shown = claims.permissions();
        let needed = least(service, auth, needs);
        let lacking = needed.iter().filter(|name| !shown.iter().any(|held| covers(held, name))).copied().collect();
        // More than what is needed is too much, less is not: a permission below the needed one does no harm.
        let is_needed = |held: &str| needed.iter().any(|name| covers(name, held));
        let harmless = |held: &str| HARMLESS.iter().any(|name| name.eq_ignore_ascii_case(held));
        let surplus = shown.iter().filter(|held| !is_needed(held) && !harmless(held)).cloned().collect();
        let reaches = |held: &String| {
            held.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("mail.")) || held == "full_access_as_app"
        };
        Self {
            shown: !shown.is_empty(),
            lacking,
            surplus,
            tenant_wide: claims.grant() == Auth::App && claims.roles.iter().any(reaches),
            other_kind: (claims.grant() != auth && !shown.is_empty())
                || (auth == Auth::Delegated && claims.scopes.is_empty()),
            other_audience: claims.audience.clone().filter(|audience| !is_for(audience, service)),
        }
    }
}

/// Whether a token's audience is this service, in any cloud ("Access token claims reference": `aud` is a URI or an id).
fn is_for(audience: &str, service: Service) -> bool {
    let audience = audience.trim_end_matches('/').to_ascii_lowercase();
    match service {
        Service::Graph | Service::GraphShared => {
            audience == "00000003-0000-0000-c000-000000000000"
                || audience.starts_with("https://") && audience.contains("graph")
        }
        Service::ExchangeImap => {
            audience == "00000002-0000-0ff1-ce00-000000000000"
                || audience.starts_with("https://") && audience.contains("outlook")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(roles: &[&str]) -> Claims {
        Claims { roles: roles.iter().map(|role| (*role).to_owned()).collect(), ..Claims::default() }
    }

    fn person(scopes: &[&str]) -> Claims {
        Claims { scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(), ..Claims::default() }
    }

    #[test]
    fn the_least_for_every_kind_of_account() {
        use Auth::{App, Delegated};
        use Need::{Attachments, CreateFolder, List, ListAddresses, Move};
        let rows: [(Service, Auth, &[Need], &[&str]); 12] = [
            (Service::Graph, App, &[List], &["Mail.ReadBasic.All"]),
            (Service::Graph, App, &[List, Attachments], &["Mail.Read"]),
            (Service::Graph, App, &[List, Attachments, Move], &["Mail.ReadWrite"]),
            (Service::Graph, App, &[CreateFolder, ListAddresses], &["Mail.ReadWrite", "User.Read.All"]),
            (Service::Graph, Delegated, &[List], &["Mail.ReadBasic"]),
            (Service::Graph, Delegated, &[List, Attachments], &["Mail.Read"]),
            (Service::Graph, Delegated, &[Move, ListAddresses], &["Mail.ReadWrite", "User.ReadBasic.All"]),
            (Service::GraphShared, Delegated, &[List, Attachments], &["Mail.Read.Shared"]),
            (Service::GraphShared, Delegated, &[List, Move], &["Mail.ReadWrite.Shared"]),
            (Service::ExchangeImap, App, &[List, Attachments, Move, CreateFolder], &["IMAP.AccessAsApp"]),
            (Service::ExchangeImap, Delegated, &[List, Move], &["IMAP.AccessAsUser.All"]),
            (Service::ExchangeImap, App, &[ListAddresses], &[]),
        ];
        for (service, auth, needs, expected) in rows {
            assert_eq!(least(service, auth, needs), expected, "{service:?} {auth:?} {needs:?}");
        }
    }

    #[test]
    fn what_a_token_lacks_and_what_it_has_too_much() {
        let needs = [Need::List, Need::Attachments, Need::Move];
        let of = |claims: &Claims| Assessment::of(claims, Service::Graph, Auth::App, &needs);
        let right = of(&app(&["Mail.ReadWrite"]));
        assert!(right.lacking.is_empty() && right.surplus.is_empty() && right.tenant_wide && !right.other_kind);
        let low = of(&app(&["Mail.Read"]));
        assert_eq!((low.lacking, low.surplus), (vec!["Mail.ReadWrite"], vec![]));
        let high = of(&app(&["mail.readwrite", "Mail.Send", "full_access_as_app", "User.Read.All"]));
        assert_eq!((high.lacking, high.surplus), (vec![], vec!["Mail.Send".to_owned(), "full_access_as_app".into()]));
        let none = of(&app(&[]));
        assert!(!none.shown && !none.tenant_wide && none.lacking == ["Mail.ReadWrite"]);
        let reads = Assessment::of(&app(&["Mail.ReadWrite"]), Service::Graph, Auth::App, &[Need::Attachments]);
        assert_eq!(reads.surplus, ["Mail.ReadWrite"]);
        // The wrong kind, both ways.
        assert!(of(&person(&["Mail.ReadWrite"])).other_kind);
        let signed_in = |claims: &Claims| Assessment::of(claims, Service::GraphShared, Auth::Delegated, &needs);
        assert!(signed_in(&app(&["Mail.ReadWrite"])).other_kind);
        let shared = signed_in(&person(&["openid", "Mail.ReadWrite", "offline_access"]));
        assert_eq!(
            (shared.lacking, shared.surplus, shared.tenant_wide),
            (vec!["Mail.ReadWrite.Shared"], vec![], false)
        );
    }

    #[test]
    fn a_token_for_another_service_is_told() {
        let claims = |audience: &str| Claims { audience: Some(audience.into()), ..app(&["Mail.Read"]) };
        let other = |audience, service| Assessment::of(&claims(audience), service, Auth::App, &[]).other_audience;
        for graph in
            ["https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000", "https://dod-graph.microsoft.us/"]
        {
            assert_eq!(other(graph, Service::Graph), None);
            assert_eq!(other(graph, Service::ExchangeImap).as_deref(), Some(graph));
        }
        assert_eq!(other("https://outlook.office365.com", Service::ExchangeImap), None);
        assert!(other("https://outlook.office.com", Service::Graph).is_some());
    }
}
