//! The tenant's directory: which mailboxes there are.

use std::sync::Arc;

use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::{
    NAME, account,
    batch::{self, Part},
    client::{Call, Client, To, encode, not_json, quoted, with_query},
    failure::About,
    wire::{Each, Lenient},
};
use crate::{
    Error, ErrorKind, Result,
    auth::{Audience, Auth, Registration, SignInSettings, is_guid},
    net::{http::Answer, page::Page},
    provider::{Opening, insight::Absence},
};

/// The directory's largest page.
const TOP: &str = "999";

const SELECT: &str = "id,displayName,mail,userPrincipalName,proxyAddresses,accountEnabled,userType";

/// A user of the tenant that has a mailbox, by the directory's word. Shared and room mailboxes are users as well.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryMailbox {
    /// The directory object id: the name that never changes.
    pub id: String,
    /// The primary address.
    pub address: String,
    /// The user principal name, which Graph also takes for a mailbox; often the address.
    pub principal_name: String,
    /// What people call it.
    pub display_name: Option<String>,
    /// Its other addresses.
    pub aliases: Vec<String>,
    /// Whether somebody can sign in as this user. `false` is normal for shared mailboxes.
    pub enabled: Option<bool>,
    /// What it is for (`user`, `shared`, `room`, `equipment`, ...), where it was asked for and can be read.
    pub purpose: Option<String>,
}

/// The mailboxes of a tenant, for a screen on which somebody picks those to read.
///
/// Needs the application permission `User.Read.All`; [`with_purpose`](Self::with_purpose) also `MailboxSettings.Read`.
/// A mailbox in this list is not thereby opened: only accounts in the configuration can be. To activate an address is
/// to write an account for it, with [`id`](DirectoryMailbox::id) as its `mailbox` and
/// [`address`](DirectoryMailbox::address) as its `address`.
///
/// ```
/// use futures::TryStreamExt as _;
/// use mail_account::{
///     Secret, SecretSource,
///     auth::Registration,
///     provider::{Opening, graph::GraphDirectory},
///     testing::graph::GraphFake,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> mail_account::Result<()> {
/// let fake = GraphFake::start().await;
/// let app = fake.app("invoices").secret("s3cret").permissions(["Mail.ReadWrite", "User.Read.All"]).create();
/// fake.mailbox("facturen@contoso.nl").alias("invoices@contoso.nl").shared().create();
///
/// let mut registration = Registration::default();
/// registration.tenant = Some(fake.tenant());
/// registration.client_id = Some(app.client_id());
/// registration.client_secret = Some(SecretSource::Literal(Secret::new("s3cret")));
/// // Only for the fake:
/// (registration.login_url, registration.graph_url) = (Some(fake.login_url()), Some(fake.graph_url()));
///
/// let directory = GraphDirectory::open(&registration, Opening::new("contoso"))?;
/// let mailboxes: Vec<_> = directory.mailboxes().try_collect().await?;
/// assert_eq!(mailboxes[0].address, "facturen@contoso.nl");
///
/// let found = directory.find("invoices@contoso.nl").await?.expect("an alias is found as well");
/// println!("[accounts.invoices]\nprovider = \"graph\"\nmailbox = \"{}\"\naddress = \"{}\"", found.id, found.address);
/// # assert_eq!(found, mailboxes[0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GraphDirectory {
    client: Arc<Client>,
    account: String,
    purpose: bool,
}

impl GraphDirectory {
    pub(super) fn new(client: Arc<Client>, account: String) -> Self {
        Self { client, account, purpose: false }
    }

    /// Opens the directory of a registration's tenant, so that mailboxes can be picked before there is an account. Does
    /// no I/O.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] naming the key and the remedy.
    pub fn open(app: &Registration, opening: Opening) -> Result<Self> {
        app.check(&opening.places, Auth::App, false)?;
        let settings = SignInSettings::new(app.clone(), opening.places.clone(), Auth::App, Audience::Graph, "");
        let tokens = opening.tokens_for(&settings)?;
        let tenant = app.authority(&opening.places)?.tenant;
        let client = account::client(app, &opening, &tenant, &tenant, tokens)?;
        Ok(Self::new(client, opening.account))
    }

    fn named(&self) -> impl Fn(Error) -> Error + Send + 'static {
        let account = self.account.clone();
        move |error| error.with_provider(NAME).with_account(&account).with_operation("directory")
    }

    /// Also asks what each mailbox is for: one more counted request per mailbox, in batches of twenty. Mailboxes whose
    /// settings may not be read are listed without.
    #[must_use]
    pub fn with_purpose(mut self, purpose: bool) -> Self {
        self.purpose = purpose;
        self
    }

    /// All of them, page by page.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`] naming the permission, and whatever keeps the directory from being asked. An error
    /// ends the stream.
    #[must_use]
    pub fn mailboxes(&self) -> BoxStream<'static, Result<DirectoryMailbox>> {
        let first = To::Version(with_query("/users", &[("$select", SELECT), ("$top", TOP)]));
        let pages = stream::try_unfold((self.clone(), Some(first)), |(directory, to)| async move {
            let Some(to) = to else { return Ok::<_, Error>(None) };
            let (mailboxes, next) = directory.page(to).await?;
            Ok(Some((stream::iter(mailboxes.into_iter().map(Ok)), (directory, next))))
        });
        pages.try_flatten().map_err(self.named()).boxed()
    }

    async fn page(&self, to: To) -> Result<(Vec<DirectoryMailbox>, Option<To>)> {
        let (users, next) = self.client.read(&Call::get(About::Directory, to), users).await?;
        let next = next.map(|next| self.client.follow(&next)).transpose()?;
        let mut mailboxes: Vec<_> = users.into_iter().filter_map(User::into_mailbox).collect();
        if self.purpose {
            self.add_purpose(&mut mailboxes).await?;
        }
        Ok((mailboxes, next))
    }

    async fn add_purpose(&self, mailboxes: &mut [DirectoryMailbox]) -> Result<()> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Settings {
            #[serde(default)]
            user_purpose: Lenient<String>,
        }
        // Not below this account's mailbox, but below each of them.
        let part = |m: &DirectoryMailbox| {
            let path = format!("/users/{}/mailboxSettings", encode(&m.id));
            Part::elsewhere(About::Directory, with_query(&path, &[("$select", "userPurpose")]))
        };
        for mailboxes in mailboxes.chunks_mut(batch::MOST) {
            let answers = batch::all(&self.client, mailboxes.iter().map(part).collect()).await?;
            for (mailbox, answer) in mailboxes.iter_mut().zip(answers) {
                if let Ok(body) = answer
                    && let Ok(settings) = serde_json::from_slice::<Settings>(&body)
                {
                    mailbox.purpose = settings.user_purpose.0;
                }
            }
        }
        Ok(())
    }

    /// The mailbox that has this address, primary or alias, principal name or object id. `None` when there is none.
    ///
    /// # Errors
    ///
    /// As [`mailboxes`](Self::mailboxes).
    pub async fn find(&self, name: &str) -> Result<Option<DirectoryMailbox>> {
        self.look_for(name.trim()).await.map_err(self.named())
    }

    async fn look_for(&self, name: &str) -> Result<Option<DirectoryMailbox>> {
        if !is_guid(name) {
            return owner_of(&self.client, name).await;
        }
        let to = To::Version(with_query(&format!("/users/{}", encode(name)), &[("$select", SELECT)]));
        match self.client.json::<User>(&Call::get(About::Directory, to)).await {
            Ok(user) => Ok(user.into_mailbox()),
            Err(error) if matches!(error.kind(), ErrorKind::MailboxGone | ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The user an address belongs to.
pub(super) async fn owner_of(client: &Client, address: &str) -> Result<Option<DirectoryMailbox>> {
    match owners(client, address, false).await {
        // It is not documented whether this filter needs an advanced query ("Advanced query capabilities on Microsoft
        // Entra ID objects").
        Err(error) if error.kind() == ErrorKind::Other => owners(client, address, true).await,
        found => found,
    }
}

async fn owners(client: &Client, address: &str, advanced: bool) -> Result<Option<DirectoryMailbox>> {
    let filter = format!(
        "mail eq {0} or userPrincipalName eq {0} or proxyAddresses/any(p:p eq {1})",
        quoted(address),
        quoted(&format!("smtp:{address}"))
    );
    let mut query = vec![("$filter", filter.as_str()), ("$select", SELECT)];
    if advanced {
        query.push(("$count", "true"));
    }
    let mut call = Call::get(About::Directory, To::Version(with_query("/users", &query)));
    if advanced {
        call = call.eventual();
    }
    // As named: a user that is not found here must not be looked up again.
    let (users, _) = client.read(&call, users).await?;
    let mut found: Vec<_> = users.into_iter().filter_map(User::into_mailbox).collect();
    if found.len() > 1 {
        // The one whose primary address it is.
        found.retain(|m| m.address.eq_ignore_ascii_case(address));
    }
    Ok(found.into_iter().next())
}

/// Why the account's mailbox is not served, by its user's licences ("user resource type": `assignedPlans`,
/// `onPremisesSyncEnabled`). `None` when the directory may not be read, or does not explain it.
pub(super) async fn absence(client: &Client) -> Option<Absence> {
    /// After a licence is assigned, Exchange takes about so long to make the mailbox.
    const LAG: SignedDuration = SignedDuration::from_mins(30);
    let select = [("$select", "assignedPlans,onPremisesSyncEnabled")];
    let to = To::Version(with_query(&client.user_path(""), &select));
    let user: Licensed = client.json(&Call::get(About::Directory, to)).await.ok()?;
    let given = |plan: &&Plan| plan.capability_status.0.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("enabled"));
    let exchange = |plan: &&Plan| plan.service.0.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("exchange"));
    let mut plans = user.assigned_plans.0.iter().filter(exchange).filter(given).peekable();
    if plans.peek().is_none() {
        let synced = user.on_premises_sync_enabled.0 == Some(true);
        return Some(if synced { Absence::OnPremises } else { Absence::NoLicence });
    }
    let now = client.context.now();
    let since = |plan: &Plan| plan.assigned_date_time.0.as_deref().and_then(|at| at.parse::<Timestamp>().ok());
    plans.filter_map(since).any(|at| now.duration_since(at) < LAG).then_some(Absence::JustLicensed)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Licensed {
    #[serde(default)]
    assigned_plans: Each<Plan>,
    #[serde(default)]
    on_premises_sync_enabled: Lenient<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    #[serde(default)]
    service: Lenient<String>,
    #[serde(default)]
    capability_status: Lenient<String>,
    #[serde(default)]
    assigned_date_time: Lenient<String>,
}

fn users(answer: &Answer) -> Result<(Vec<User>, Option<String>)> {
    let page = Page::read(&answer.body).map_err(|e| not_json(answer).with_source(e))?;
    Ok((page.entries.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok()).collect(), page.next))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct User {
    id: String,
    #[serde(default)]
    display_name: Lenient<String>,
    #[serde(default)]
    mail: Lenient<String>,
    #[serde(default)]
    user_principal_name: Lenient<String>,
    #[serde(default)]
    proxy_addresses: Each<String>,
    #[serde(default)]
    account_enabled: Lenient<bool>,
    #[serde(default)]
    user_type: Lenient<String>,
}

impl User {
    /// `None` for users without an address, and for guests, whose mail is elsewhere.
    fn into_mailbox(self) -> Option<DirectoryMailbox> {
        if self.user_type.0.is_some_and(|kind| kind.eq_ignore_ascii_case("guest")) {
            return None;
        }
        // `SMTP:` is the primary address, `smtp:` an alias, and there are other protocols.
        let of_smtp = |entry: &String| {
            let (scheme, address) = entry.split_once(':')?;
            scheme.eq_ignore_ascii_case("smtp").then(|| (scheme == "SMTP", address.to_owned()))
        };
        let all: Vec<(bool, String)> = self.proxy_addresses.0.iter().filter_map(of_smtp).collect();
        let primary = all.iter().find(|(primary, _)| *primary).map(|(_, address)| address.clone());
        let address = self.mail.0.filter(|mail| !mail.is_empty()).or(primary)?;
        let aliases = all.into_iter().map(|(_, a)| a).filter(|a| !a.eq_ignore_ascii_case(&address)).collect();
        Some(DirectoryMailbox {
            id: self.id,
            principal_name: self.user_principal_name.0.unwrap_or_else(|| address.clone()),
            address,
            display_name: self.display_name.0,
            aliases,
            enabled: self.account_enabled.0,
            purpose: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(json: &str) -> Option<DirectoryMailbox> {
        serde_json::from_str::<User>(json).unwrap().into_mailbox()
    }

    #[test]
    fn users_without_a_mailbox_are_left_out() {
        let shared = user(
            r#"{"id":"1","displayName":"Facturen","mail":null,"userPrincipalName":"facturen@contoso.onmicrosoft.com",
            "proxyAddresses":["X500:/o=x","smtp:oud@contoso.nl","SMTP:facturen@contoso.nl"],"accountEnabled":false}"#,
        )
        .unwrap();
        assert_eq!((shared.address.as_str(), shared.enabled), ("facturen@contoso.nl", Some(false)));
        assert_eq!(shared.aliases, ["oud@contoso.nl"]);
        assert!(user(r#"{"id":"2","mail":"gast@elders.nl","userType":"Guest"}"#).is_none());
        assert!(user(r#"{"id":"3","mail":null,"proxyAddresses":[]}"#).is_none());
    }
}
