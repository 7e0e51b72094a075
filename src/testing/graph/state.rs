//! The tenant: its applications, its directory and what is in the mailboxes.

use super::content::{Content, guid, mix};
use super::entra::{People, Permission, Platform, SignInSettings};
use super::faults::{Chaos, Fault, RetryAfter};
use super::ids::{self, MessageRef};
use super::log::{Counters, LoggedRequest};
use super::mime::{Address, Attachment, Item, Kind, Rendering};
use super::reply::Refusal;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// How next links say where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Paging {
    /// `$skip` for messages and top folders, `$skiptoken` for child folders: both occur.
    Mixed,
    /// Always `$skip`.
    Skip,
    /// Always `$skiptoken`.
    SkipToken,
}

/// The language of a mailbox: its folders' display names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Language {
    /// `Inbox`, `Deleted Items`.
    English,
    /// `Postvak IN`, `Verwijderde items`.
    Dutch,
}

/// What the documentation leaves open, or a tenant can change. See each field's default.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Items on a page without `$top`: 10.
    pub page_size: u64,
    /// Every n-th item of a message listing is something that is no message: it counts in `$skip`
    /// and not in the answer. 7; `None` for never.
    pub foreign_item_every: Option<u64>,
    /// Every n-th page of a listing is empty, with a next link. `None`.
    pub empty_page_every: Option<u64>,
    /// A page that is full has a next link even where nothing follows. `false`.
    pub trailing_empty_page: bool,
    /// How next links are written: mixed.
    pub paging: Paging,
    /// Above this, `contentBytes` is missing in lists and expansions: 3 MB.
    pub content_bytes_limit: u64,
    /// A list answer longer than this times out with 504. `None`.
    pub list_timeout_above: Option<u64>,
    /// The status of `ErrorFolderExists`: 409, some have seen 400.
    pub folder_exists_status: u16,
    /// The code when the target of a move is missing: `ErrorItemNotFound`, or
    /// `ErrorFolderNotFound`.
    pub missing_folder_code: String,
    /// Requests at once for one application on one mailbox: 4.
    pub concurrency_limit: usize,
    /// Requests in ten minutes for one application on one mailbox: 10,000.
    pub requests_per_ten_minutes: u64,
    /// The `Retry-After` of the fake's own 429s: `1`.
    pub retry_after: RetryAfter,
    /// How long the service works on each request: nothing.
    pub service_time: Duration,
    /// Life of an access token: 3,599 s.
    pub token_lifetime: Duration,
    /// How people sign in.
    pub sign_in: SignInSettings,
    /// What a person's token gets for a mailbox they have no right to: 403 `ErrorAccessDenied`, or 404 with this code
    /// (`ErrorItemNotFound`, `ErrorFolderNotFound`), which was seen too. `None`.
    pub stranger_code: Option<String>,
    /// What is changed in messages on delivery.
    pub rendering: Rendering,
    /// Whether requests are kept in the log: yes.
    pub log_requests: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            page_size: 10,
            foreign_item_every: Some(7),
            empty_page_every: None,
            trailing_empty_page: false,
            paging: Paging::Mixed,
            content_bytes_limit: 3_000_000,
            list_timeout_above: None,
            folder_exists_status: 409,
            missing_folder_code: "ErrorItemNotFound".into(),
            concurrency_limit: 4,
            requests_per_ten_minutes: 10_000,
            retry_after: "1".into(),
            service_time: Duration::ZERO,
            token_lifetime: Duration::from_secs(3599),
            sign_in: SignInSettings::default(),
            stranger_code: None,
            rendering: Rendering::default(),
            log_requests: true,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Secret {
    pub(crate) value: String,
    /// Unix seconds.
    pub(crate) expires: Option<i64>,
}

#[derive(Clone)]
pub(crate) struct Certificate {
    #[cfg_attr(not(feature = "certificate"), allow(dead_code))]
    pub(crate) pem: String,
    /// base64url of the SHA-256 of the DER, as in `x5t#S256`.
    pub(crate) thumbprint: String,
}

#[derive(Clone)]
pub(crate) struct Federated {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) audience: String,
}

#[derive(Clone)]
pub(crate) enum Policy {
    Restrict(Vec<String>),
    Deny(Vec<String>),
}

/// An application and its service principal in the tenant.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) name: String,
    pub(crate) client_id: String,
    pub(crate) object_id: String,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) federated: Vec<Federated>,
    pub(crate) permissions: BTreeSet<String>,
    pub(crate) policy: Option<Policy>,
    /// RBAC for Applications: a permission and the mailboxes it holds for (all if `None`).
    pub(crate) rbac: Vec<(String, Option<Vec<String>>)>,
    pub(crate) disabled: bool,
    /// Application permissions of the registration, which an administrator's consent grants.
    pub(crate) requested: BTreeSet<String>,
    /// Application permissions that were granted in other tenants.
    pub(crate) elsewhere: BTreeMap<String, BTreeSet<String>>,
    /// Delegated permissions of the registration.
    pub(crate) delegated: BTreeSet<Permission>,
    /// Scopes that tokens lack although they were consented to.
    pub(crate) withheld: BTreeSet<String>,
    pub(crate) redirects: Vec<(String, Platform)>,
    /// "Allow public client flows".
    pub(crate) public_flows: bool,
    pub(crate) multi_tenant: bool,
    /// Only these may use it, where assignment is required.
    pub(crate) assigned: Option<Vec<String>>,
    /// Mailboxes its service principal has permission for in Exchange, where it is registered there.
    pub(crate) imap_mailboxes: Option<Vec<String>>,
}

impl App {
    /// Granted application permissions in this tenant; `None` if it has no service principal there.
    pub(crate) fn roles_in(&self, home: &str, tenant: &str) -> Option<&BTreeSet<String>> {
        if home == tenant { Some(&self.permissions) } else { self.elsewhere.get(tenant) }
    }
}

/// Why a directory user has no mailbox that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MailboxState {
    /// It answers.
    Ready,
    /// The user has no licence, or the mailbox is inactive, soft-deleted or on-premises: 404
    /// `MailboxNotEnabledForRESTAPI`.
    NotEnabled,
    /// 404 `ResourceNotFound`, "Resource could not be discovered."
    Undiscoverable,
    /// 404 `ErrorNonExistentMailbox`.
    NonExistent,
    /// The user is gone from the directory: 404 `ErrorInvalidUser`.
    UserDeleted,
}

pub(crate) struct User {
    pub(crate) number: u32,
    /// The id of their tenant.
    pub(crate) tenant: String,
    pub(crate) password: String,
    pub(crate) admin: bool,
    /// The AADSTS code that every sign-in of theirs ends with.
    pub(crate) refused: Option<u32>,
    /// Who else may open the mailbox, by any of their names.
    pub(crate) full_access: Vec<String>,
    /// Tokens with a number below this are challenged if they can be.
    pub(crate) revoked_at: Option<u64>,
    pub(crate) id: String,
    pub(crate) upn: String,
    pub(crate) mail: Option<String>,
    pub(crate) aliases: Vec<String>,
    pub(crate) display_name: String,
    pub(crate) purpose: String,
    pub(crate) enabled: bool,
    /// Since when a plan of Exchange Online is assigned, Unix seconds.
    pub(crate) licensed: Option<i64>,
    pub(crate) synced: bool,
    pub(crate) user_type: String,
    pub(crate) state: MailboxState,
    pub(crate) store: Store,
}

impl User {
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = vec![self.id.clone(), self.upn.clone()];
        names.extend(self.mail.clone());
        names.extend(self.aliases.iter().cloned());
        names
    }

    pub(crate) fn goes_by(&self, name: &str) -> bool {
        self.names().iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    pub(crate) fn proxy_addresses(&self) -> Vec<String> {
        let primary = self.mail.iter().map(|mail| format!("SMTP:{mail}"));
        let others = self.aliases.iter().map(|alias| format!("smtp:{alias}"));
        primary.chain(others).collect()
    }
}

/// What is generated instead of stored.
#[derive(Clone)]
pub(crate) struct Generated {
    pub(crate) seed: u64,
    pub(crate) attachments: u32,
    pub(crate) attachment_size: u64,
    pub(crate) recipient: Address,
    /// Unix seconds of the first message, and between two.
    pub(crate) start: i64,
    pub(crate) step: i64,
}

impl Generated {
    pub(crate) fn received(&self, index: u64) -> i64 {
        self.start + self.step * index as i64
    }

    pub(crate) fn internet_message_id(&self, index: u64) -> String {
        format!("<{:x}.{index}@generated.example>", self.seed)
    }

    pub(crate) fn content(&self, index: u64, attachment: u32) -> Content {
        Content::Generated { seed: mix(self.seed ^ mix(index * 64 + u64::from(attachment))), len: self.attachment_size }
    }

    pub(crate) fn item(&self, index: u64) -> Item {
        let supplier = mix(self.seed ^ index) % 50;
        let from =
            Address { name: format!("Supplier {supplier}"), address: format!("invoices@supplier{supplier}.example") };
        let attachments = (0..self.attachments)
            .map(|number| Attachment {
                name: Some(format!("invoice-{index:06}-{}.pdf", number + 1)),
                content_type: Some("application/pdf".into()),
                content_id: None,
                inline: false,
                kind: Kind::File(self.content(index, number)),
            })
            .collect();
        let subject = format!("Invoice {index:06}");
        let internet_message_id = self.internet_message_id(index);
        Item {
            odata_type: None,
            headers: vec![
                ("From".into(), format!("{} <{}>", from.name, from.address)),
                ("Subject".into(), subject.clone()),
                ("Message-ID".into(), internet_message_id.clone()),
            ],
            subject: Some(subject),
            sender: Some(from.clone()),
            from: Some(from),
            to: vec![self.recipient.clone()],
            cc: Vec::new(),
            bcc: Vec::new(),
            reply_to: Vec::new(),
            sent: Some(self.received(index) - 2),
            internet_message_id: Some(internet_message_id),
            text: Some(format!("Please find attached invoice {index:06}.\r\n")),
            html: None,
            importance: "normal",
            read_receipt: false,
            attachments,
            original: None,
        }
    }
}

#[derive(Clone)]
pub(crate) enum Source {
    Item(Arc<Item>),
    Generated(Arc<Generated>, u64),
}

pub(crate) struct Message {
    pub(crate) key: u64,
    pub(crate) generation: u32,
    pub(crate) folder: u32,
    /// Unix seconds.
    pub(crate) received: i64,
    pub(crate) modified: i64,
    pub(crate) change: u64,
    pub(crate) is_read: bool,
    pub(crate) categories: Vec<String>,
    pub(crate) flag: Option<String>,
    pub(crate) importance: Option<String>,
    pub(crate) inference: Option<String>,
    pub(crate) source: Source,
}

impl Message {
    pub(crate) fn item(&self) -> Arc<Item> {
        match &self.source {
            Source::Item(item) => Arc::clone(item),
            Source::Generated(generated, index) => Arc::new(generated.item(*index)),
        }
    }

    pub(crate) fn id(&self, mailbox: u32, immutable: bool) -> String {
        ids::message_id(MessageRef { mailbox, key: self.key, generation: (!immutable).then_some(self.generation) })
    }

    fn place(&self) -> (i64, u64, u64) {
        // Messages of the same second come in no useful order.
        (self.received, mix(self.key), self.key)
    }
}

pub(crate) struct Folder {
    pub(crate) parent: Option<u32>,
    pub(crate) name: String,
    pub(crate) well_known: Option<&'static str>,
    pub(crate) hidden: bool,
    /// The folders that a search folder looks into.
    pub(crate) search: Option<Vec<u32>>,
    pub(crate) messages: BTreeSet<(i64, u64, u64)>,
    pub(crate) unread: u64,
    /// What left the folder: the change, the key and the mutable id it had.
    pub(crate) removed: Vec<(u64, MessageRef)>,
}

/// The folders and messages of one mailbox.
pub(crate) struct Store {
    pub(crate) folders: BTreeMap<u32, Folder>,
    pub(crate) messages: HashMap<u64, Message>,
    next_folder: u32,
    next_key: u64,
    pub(crate) change: u64,
    /// Delta tokens older than this change are refused.
    pub(crate) oldest_delta: u64,
}

/// Well-known name, English and Dutch display name, hidden. "mailFolder resource type" lists the
/// names; the last two stand for the folders that every mailbox hides.
const FOLDERS: [(Option<&str>, &str, &str, bool); 12] = [
    (Some("inbox"), "Inbox", "Postvak IN", false),
    (Some("drafts"), "Drafts", "Concepten", false),
    (Some("sentitems"), "Sent Items", "Verzonden items", false),
    (Some("deleteditems"), "Deleted Items", "Verwijderde items", false),
    (Some("junkemail"), "Junk Email", "Ongewenste e-mail", false),
    (Some("outbox"), "Outbox", "Postvak UIT", false),
    (Some("archive"), "Archive", "Archief", false),
    (Some("conversationhistory"), "Conversation History", "Gespreksgeschiedenis", false),
    (None, "RSS Feeds", "RSS-feeds", false),
    (None, "Notes", "Notities", false),
    (None, "Conversation Action Settings", "Instellingen voor gespreksacties", true),
    (None, "Quick Step Settings", "Instellingen voor Snelle stappen", true),
];

/// Every name that "mailFolder resource type" lists.
pub(crate) const WELL_KNOWN: [&str; 17] = [
    "archive",
    "clutter",
    "conflicts",
    "conversationhistory",
    "deleteditems",
    "drafts",
    "inbox",
    "junkemail",
    "localfailures",
    "msgfolderroot",
    "outbox",
    "recoverableitemsdeletions",
    "scheduled",
    "searchfolders",
    "sentitems",
    "serverfailures",
    "syncissues",
];

pub(crate) const ROOT: u32 = 0;

impl Store {
    pub(crate) fn new(language: Language) -> Self {
        let mut store = Store {
            folders: BTreeMap::new(),
            messages: HashMap::new(),

            next_folder: 0,
            next_key: 0,
            change: 0,
            oldest_delta: 0,
        };
        store.add_folder(None, "Top of Information Store", Some("msgfolderroot"), false);
        for (well_known, english, dutch, hidden) in FOLDERS {
            let name = match language {
                Language::English => english,
                Language::Dutch => dutch,
            };
            store.add_folder(Some(ROOT), name, well_known, hidden);
        }
        // Outside the visible tree.
        store.add_folder(None, "Recoverable Items Deletions", Some("recoverableitemsdeletions"), true);
        store.add_folder(None, "Finder", Some("searchfolders"), true);
        store
    }

    pub(crate) fn add_folder(
        &mut self,
        parent: Option<u32>,
        name: &str,
        well_known: Option<&'static str>,
        hidden: bool,
    ) -> u32 {
        let number = self.next_folder;
        self.next_folder += 1;
        self.folders.insert(
            number,
            Folder {
                parent,
                name: name.to_owned(),
                well_known,
                hidden,
                search: None,
                messages: BTreeSet::new(),
                unread: 0,
                removed: Vec::new(),
            },
        );
        number
    }

    pub(crate) fn children(&self, parent: u32) -> impl Iterator<Item = (u32, &Folder)> {
        self.folders
            .iter()
            .filter(move |(_, folder)| folder.parent == Some(parent))
            .map(|(number, folder)| (*number, folder))
    }

    pub(crate) fn well_known(&self, name: &str) -> Option<u32> {
        self.folders
            .iter()
            .find(|(_, folder)| folder.well_known.is_some_and(|known| known.eq_ignore_ascii_case(name)))
            .map(|(number, _)| *number)
    }

    /// Names compare without case.
    pub(crate) fn child_named(&self, parent: u32, name: &str) -> Option<u32> {
        self.children(parent)
            .find(|(_, folder)| folder.name.to_lowercase() == name.to_lowercase())
            .map(|(number, _)| number)
    }

    /// A path as a host's test writes it: `Inbox/Processed`, the first name well-known or shown.
    pub(crate) fn resolve_path(&self, path: &str) -> Option<u32> {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let Some(first) = segments.next() else {
            return Some(ROOT);
        };
        let mut folder = self.child_named(ROOT, first).or_else(|| self.well_known(&first.replace(' ', "")))?;
        for segment in segments {
            folder = self.child_named(folder, segment)?;
        }
        Some(folder)
    }

    pub(crate) fn ensure_path(&mut self, path: &str) -> u32 {
        if let Some(folder) = self.resolve_path(path) {
            return folder;
        }
        match path.rsplit_once('/') {
            Some((parent, name)) => {
                let parent = self.ensure_path(parent);
                self.add_folder(Some(parent), name, None, false)
            }
            None => self.add_folder(Some(ROOT), path, None, false),
        }
    }

    pub(crate) fn path_of(&self, folder: u32) -> String {
        let mut names = Vec::new();
        let mut at = Some(folder);
        while let Some(number) = at {
            let Some(folder) = self.folders.get(&number) else {
                break;
            };
            if number != ROOT {
                names.push(folder.name.clone());
            }
            at = folder.parent;
        }
        names.reverse();
        names.join("/")
    }

    pub(crate) fn remove_folder(&mut self, folder: u32) {
        let children: Vec<u32> = self.children(folder).map(|(number, _)| number).collect();
        for child in children {
            self.remove_folder(child);
        }
        if let Some(folder) = self.folders.remove(&folder) {
            for (_, _, key) in folder.messages {
                self.messages.remove(&key);
            }
        }
    }

    pub(crate) fn insert(&mut self, folder: u32, received: i64, source: Source) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        self.change += 1;
        let message = Message {
            key,
            generation: 0,
            folder,
            received,
            modified: received,
            change: self.change,
            is_read: false,
            categories: Vec::new(),
            flag: None,
            importance: None,
            inference: None,
            source,
        };
        if let Some(folder) = self.folders.get_mut(&folder) {
            folder.messages.insert(message.place());
            folder.unread += 1;
        }
        self.messages.insert(key, message);
        key
    }

    /// Takes the message out of its folder's listing and notes it as left.
    fn leave(&mut self, mailbox: u32, key: u64) -> Option<()> {
        let message = self.messages.get(&key)?;
        self.change += 1;
        let reference = MessageRef { mailbox, key, generation: Some(message.generation) };
        let folder = self.folders.get_mut(&message.folder)?;
        folder.messages.remove(&message.place());
        folder.unread -= u64::from(!message.is_read);
        folder.removed.push((self.change, reference));
        Some(())
    }

    /// Moves: the mutable id dies, the immutable one lives on.
    pub(crate) fn move_message(&mut self, mailbox: u32, key: u64, target: u32, now: i64) {
        if self.leave(mailbox, key).is_none() {
            return;
        }
        let change = self.change;
        let Some(message) = self.messages.get_mut(&key) else {
            return;
        };
        message.folder = target;
        message.generation += 1;
        message.change = change;
        message.modified = now;
        if let Some(folder) = self.folders.get_mut(&target) {
            folder.messages.insert(message.place());
            folder.unread += u64::from(!message.is_read);
        }
    }

    pub(crate) fn copy_message(&mut self, key: u64, target: u32) -> Option<u64> {
        let message = self.messages.get(&key)?;
        let (received, source, is_read) = (message.received, message.source.clone(), message.is_read);
        let copy = self.insert(target, received, source);
        self.set_read(copy, is_read);
        Some(copy)
    }

    pub(crate) fn remove_message(&mut self, mailbox: u32, key: u64) {
        if self.leave(mailbox, key).is_some() {
            self.messages.remove(&key);
        }
    }

    pub(crate) fn set_read(&mut self, key: u64, is_read: bool) {
        let Some(message) = self.messages.get_mut(&key) else {
            return;
        };
        if message.is_read == is_read {
            return;
        }
        self.change += 1;
        message.change = self.change;
        message.is_read = is_read;
        if let Some(folder) = self.folders.get_mut(&message.folder) {
            if is_read {
                folder.unread -= 1;
            } else {
                folder.unread += 1;
            }
        }
    }

    /// The message that an id in a request names.
    pub(crate) fn find(&self, mailbox: u32, id: &str) -> Result<&Message, Refusal> {
        let reference = ids::parse_message_id(id).ok_or_else(Refusal::malformed_id)?;
        self.look_up(mailbox, reference)
    }

    pub(crate) fn look_up(&self, mailbox: u32, reference: MessageRef) -> Result<&Message, Refusal> {
        if reference.mailbox != mailbox {
            return Err(Refusal::new(
                404,
                "ErrorInvalidMailboxItemId",
                "Item ID doesn't belong to the targeted mailbox.",
            ));
        }
        self.messages
            .get(&reference.key)
            .filter(|message| reference.generation.is_none_or(|generation| generation == message.generation))
            .ok_or_else(Refusal::item_not_found)
    }

    /// The folder that an id or well-known name in a request names.
    pub(crate) fn find_folder(&self, mailbox: u32, id: &str) -> Result<u32, Refusal> {
        let missing = || {
            Refusal::new(
                404,
                "ErrorItemNotFound",
                "The specified object was not found in the store., The process failed to get the correct properties.",
            )
        };
        if WELL_KNOWN.iter().any(|known| known.eq_ignore_ascii_case(id)) {
            return self.well_known(id).ok_or_else(missing);
        }
        let (of, folder) = ids::parse_folder_id(id).ok_or_else(Refusal::malformed_id)?;
        if of != mailbox {
            return Err(Refusal::new(
                404,
                "ErrorInvalidMailboxItemId",
                "Item ID doesn't belong to the targeted mailbox.",
            ));
        }
        if self.folders.contains_key(&folder) { Ok(folder) } else { Err(missing()) }
    }
}

/// A fault script in force.
pub(crate) struct ActiveFault {
    pub(crate) id: u64,
    pub(crate) fault: Fault,
    /// End of a throttle that has begun, in microseconds.
    pub(crate) until: Option<i64>,
}

pub(crate) struct State {
    pub(crate) settings: Settings,
    /// What the fake's clock is ahead of the machine's, in microseconds.
    pub(crate) ahead: i64,
    /// The clock stands still at this time.
    pub(crate) frozen: Option<i64>,
    pub(crate) tenant_id: String,
    pub(crate) domains: Vec<String>,
    pub(crate) people: People,
    pub(crate) apps: Vec<App>,
    pub(crate) users: Vec<User>,
    pub(crate) faults: Vec<ActiveFault>,
    pub(crate) next_fault: u64,
    pub(crate) chaos: Option<Chaos>,
    pub(crate) chaos_struck: BTreeMap<String, u64>,
    pub(crate) counters: Counters,
    pub(crate) log: Vec<LoggedRequest>,
    /// Requests in flight for an application on a mailbox.
    pub(crate) in_flight: HashMap<(String, u32), usize>,
    /// Start of the ten minutes and requests in them.
    pub(crate) windows: HashMap<(String, u32), (i64, u64)>,
    pub(crate) dead_tokens: HashSet<String>,
    pub(crate) next_number: u64,
    pub(crate) pages: u64,
    pub(crate) graph_root: String,
    pub(crate) login_root: String,
}

impl State {
    pub(crate) fn new() -> Self {
        State {
            settings: Settings::default(),
            ahead: 0,
            frozen: None,
            tenant_id: guid(0x7e4a_0001),
            domains: vec!["contoso.nl".into(), "contoso.onmicrosoft.com".into()],
            people: People::default(),
            apps: Vec::new(),
            users: Vec::new(),
            faults: Vec::new(),
            next_fault: 0,
            chaos: None,
            chaos_struck: BTreeMap::new(),
            counters: Counters::default(),
            log: Vec::new(),
            in_flight: HashMap::new(),
            windows: HashMap::new(),
            dead_tokens: HashSet::new(),
            next_number: 1,
            pages: 0,
            graph_root: String::new(),
            login_root: String::new(),
        }
    }

    /// The fake's clock, in microseconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        self.frozen.unwrap_or_else(|| jiff::Timestamp::now().as_microsecond() + self.ahead)
    }

    pub(crate) fn now_seconds(&self) -> i64 {
        self.now().div_euclid(1_000_000)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// The directory's name and primary address for an address it knows.
    pub(crate) fn resolve(&self, address: &str) -> Option<Address> {
        let user = self.users.iter().find(|user| user.state != MailboxState::UserDeleted && user.goes_by(address))?;
        Some(Address {
            name: user.display_name.clone(),
            address: user.mail.clone().unwrap_or_else(|| user.upn.clone()),
        })
    }

    /// The user that a path names: object id or UPN, nothing else.
    pub(crate) fn user(&self, name: &str) -> Option<usize> {
        self.users.iter().position(|user| {
            user.state != MailboxState::UserDeleted
                && (user.id.eq_ignore_ascii_case(name) || user.upn.eq_ignore_ascii_case(name))
        })
    }

    /// Whether this person, by object id, was given the mailbox of another.
    pub(crate) fn has_full_access(&self, mailbox: &User, person: &str) -> bool {
        let person = self.users.iter().find(|user| user.id == person);
        person.is_some_and(|person| mailbox.full_access.iter().any(|name| person.goes_by(name)))
    }

    pub(crate) fn app(&self, client_id: &str) -> Option<&App> {
        self.apps.iter().find(|app| app.client_id.eq_ignore_ascii_case(client_id))
    }
}

/// Seconds as the service writes times.
pub(crate) fn iso(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

/// An HTTP date.
pub(crate) fn http_date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map(|time| time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
        .unwrap_or_default()
}
