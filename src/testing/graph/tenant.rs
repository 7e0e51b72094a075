//! What a test puts into the tenant, and looks up in it afterwards.

use super::content::{Content, guid};
use super::entra::{consent_for_everyone, tenant_id, thumbprint};
use super::mime::{self, Attachment, Kind};
use super::state::{
    self, Certificate, Federated, Generated, Language, MailboxState, Policy, ROOT, Secret, Source, Store,
};
use super::{GraphFake, Shared};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Describes an application before it is created.
#[derive(Clone)]
pub struct AppBuilder {
    fake: GraphFake,
    pub(super) app: state::App,
    pub(super) consented: bool,
}

impl fmt::Debug for AppBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppBuilder")
            .field("name", &self.app.name)
            .field("client_id", &self.app.client_id)
            .field("permissions", &self.app.permissions)
            .finish_non_exhaustive()
    }
}

impl AppBuilder {
    pub(super) fn new(fake: &GraphFake, name: &str) -> Self {
        let number = fake.state().number();
        AppBuilder {
            fake: fake.clone(),
            consented: false,
            app: state::App {
                name: name.to_owned(),
                client_id: guid(0xa000_0000 + number),
                object_id: guid(0xb000_0000 + number),
                secrets: Vec::new(),
                certificates: Vec::new(),
                federated: Vec::new(),
                permissions: BTreeSet::new(),
                policy: None,
                rbac: Vec::new(),
                disabled: false,
                requested: BTreeSet::new(),
                elsewhere: BTreeMap::new(),
                delegated: BTreeSet::new(),
                withheld: BTreeSet::new(),
                redirects: Vec::new(),
                public_flows: false,
                multi_tenant: false,
                assigned: None,
                imap_mailboxes: None,
            },
        }
    }

    /// Its application (client) id; a made-up one otherwise.
    #[must_use]
    pub fn client_id(mut self, client_id: &str) -> Self {
        self.app.client_id = client_id.to_owned();
        self
    }

    /// A client secret that does not expire. May be called again for a second one.
    #[must_use]
    pub fn secret(mut self, value: &str) -> Self {
        self.app.secrets.push(Secret { value: value.to_owned(), expires: None });
        self
    }

    /// A client secret that is refused from this time on (AADSTS7000222).
    #[must_use]
    pub fn secret_until(mut self, value: &str, end: jiff::Timestamp) -> Self {
        self.app.secrets.push(Secret { value: value.to_owned(), expires: Some(end.as_second()) });
        self
    }

    /// A certificate in PEM. Signatures are checked if the feature `certificate` is on.
    ///
    /// # Panics
    ///
    /// If the text holds no certificate.
    #[must_use]
    pub fn certificate(mut self, pem: &str) -> Self {
        self.app
            .certificates
            .push(Certificate { pem: pem.to_owned(), thumbprint: thumbprint(pem).expect("a certificate in PEM") });
        self
    }

    /// A federated credential: assertions with exactly these claims are accepted.
    #[must_use]
    pub fn federated(mut self, issuer: &str, subject: &str, audience: &str) -> Self {
        self.app.federated.push(Federated {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            audience: audience.to_owned(),
        });
        self
    }

    /// Consented application permissions: `Mail.ReadWrite`, `User.Read.All`,
    /// `MailboxSettings.Read` and so on.
    #[must_use]
    pub fn permissions<'a>(mut self, permissions: impl IntoIterator<Item = &'a str>) -> Self {
        self.app.permissions.extend(permissions.into_iter().map(str::to_owned));
        self
    }

    /// An application access policy that allows only these mailboxes.
    #[must_use]
    pub fn restricted_to<'a>(mut self, mailboxes: impl IntoIterator<Item = &'a str>) -> Self {
        self.app.policy = Some(Policy::Restrict(mailboxes.into_iter().map(str::to_owned).collect()));
        self
    }

    /// An application access policy that refuses these mailboxes.
    #[must_use]
    pub fn denied<'a>(mut self, mailboxes: impl IntoIterator<Item = &'a str>) -> Self {
        self.app.policy = Some(Policy::Deny(mailboxes.into_iter().map(str::to_owned).collect()));
        self
    }

    /// A role of RBAC for Applications (`Mail.ReadWrite`, or `Application Mail.ReadWrite`) over
    /// these mailboxes. It is not in the token and works all the same.
    #[must_use]
    pub fn rbac<'a>(mut self, role: &str, mailboxes: impl IntoIterator<Item = &'a str>) -> Self {
        let permission = role.strip_prefix("Application ").unwrap_or(role);
        self.app.rbac.push((permission.to_owned(), Some(mailboxes.into_iter().map(str::to_owned).collect())));
        self
    }

    /// The application is disabled in the tenant (AADSTS7000112).
    #[must_use]
    pub fn disabled(mut self) -> Self {
        self.app.disabled = true;
        self
    }

    /// Creates it.
    pub fn create(self) -> App {
        let client_id = self.app.client_id.clone();
        let mut state = self.fake.state();
        state.apps.push(self.app);
        if self.consented {
            let tenant = state.tenant_id.clone();
            consent_for_everyone(&mut state, &client_id, &tenant);
        }
        drop(state);
        App { shared: Arc::clone(self.fake.shared()), client_id }
    }
}

/// An application of the tenant.
#[derive(Clone)]
pub struct App {
    pub(super) shared: Arc<Shared>,
    pub(super) client_id: String,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl App {
    /// Its application (client) id.
    pub fn client_id(&self) -> String {
        self.client_id.clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut state::App)) {
        let mut state = self.shared.state();
        if let Some(app) = state.apps.iter_mut().find(|app| app.client_id == self.client_id) {
            change(app);
        }
    }

    /// Consents to one more permission. Tokens that are already issued do not get it.
    pub fn grant(&self, permission: &str) {
        self.change(|app| {
            app.permissions.insert(permission.to_owned());
        });
    }

    /// Takes a permission back. Tokens that are already issued keep it.
    pub fn revoke(&self, permission: &str) {
        self.change(|app| {
            app.permissions.remove(permission);
        });
    }

    /// Replaces the secrets by this one.
    pub fn replace_secret(&self, value: &str) {
        self.change(|app| {
            app.secrets = vec![Secret { value: value.to_owned(), expires: None }];
        });
    }

    /// An application access policy that allows only these mailboxes, from now on.
    pub fn restrict_to<'a>(&self, mailboxes: impl IntoIterator<Item = &'a str>) {
        let mailboxes = mailboxes.into_iter().map(str::to_owned).collect();
        self.change(|app| app.policy = Some(Policy::Restrict(mailboxes)));
    }

    /// Disables or enables it.
    pub fn set_disabled(&self, disabled: bool) {
        self.change(|app| app.disabled = disabled);
    }
}

/// Describes a user and mailbox before they are created.
#[derive(Clone)]
pub struct MailboxBuilder {
    fake: GraphFake,
    address: String,
    upn: Option<String>,
    id: Option<String>,
    display_name: Option<String>,
    aliases: Vec<String>,
    purpose: String,
    enabled: bool,
    user_type: String,
    has_mail: bool,
    licensed: Option<i64>,
    synced: bool,
    language: Language,
    state: MailboxState,
    pub(super) password: Option<String>,
    pub(super) admin: bool,
    pub(super) tenant: Option<String>,
    pub(super) full_access: Vec<String>,
}

impl fmt::Debug for MailboxBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailboxBuilder").field("address", &self.address).finish_non_exhaustive()
    }
}

impl MailboxBuilder {
    pub(super) fn new(fake: &GraphFake, address: &str) -> Self {
        MailboxBuilder {
            fake: fake.clone(),
            address: address.to_owned(),
            upn: None,
            id: None,
            display_name: None,
            aliases: Vec::new(),
            purpose: "user".into(),
            enabled: true,
            user_type: "Member".into(),
            has_mail: true,
            licensed: None,
            synced: false,
            language: Language::English,
            state: MailboxState::Ready,
            password: None,
            admin: false,
            tenant: None,
            full_access: Vec::new(),
        }
    }

    /// The user principal name, where it is not the address.
    #[must_use]
    pub fn upn(mut self, upn: &str) -> Self {
        self.upn = Some(upn.to_owned());
        self
    }

    /// The object id; a made-up one otherwise.
    #[must_use]
    pub fn object_id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// The name in the directory.
    #[must_use]
    pub fn display_name(mut self, name: &str) -> Self {
        self.display_name = Some(name.to_owned());
        self
    }

    /// Another address of the mailbox. It does not address the mailbox in Graph.
    #[must_use]
    pub fn alias(mut self, address: &str) -> Self {
        self.aliases.push(address.to_owned());
        self
    }

    /// A shared mailbox: its account is disabled, its purpose `shared`.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.purpose = "shared".into();
        self.enabled = false;
        self
    }

    /// The value of `userPurpose`: `user`, `linked`, `shared`, `room`, `equipment`, `others`.
    #[must_use]
    pub fn purpose(mut self, purpose: &str) -> Self {
        self.purpose = purpose.to_owned();
        self
    }

    /// A guest: `userType` is `Guest`.
    #[must_use]
    pub fn guest(mut self) -> Self {
        self.user_type = "Guest".into();
        self
    }

    /// `mail` is null in the directory.
    #[must_use]
    pub fn without_mail(mut self) -> Self {
        self.has_mail = false;
        self
    }

    /// A plan of Exchange Online is assigned in the directory since then; without this call none is.
    #[must_use]
    pub fn licensed_since(mut self, since: jiff::Timestamp) -> Self {
        self.licensed = Some(since.as_second());
        self
    }

    /// The user comes from the company's own directory: `onPremisesSyncEnabled`.
    #[must_use]
    pub fn synced(mut self) -> Self {
        self.synced = true;
        self
    }

    /// The language of the folders' names.
    #[must_use]
    pub fn language(mut self, language: Language) -> Self {
        self.language = language;
        self
    }

    /// The user has no mailbox that answers.
    #[must_use]
    pub fn state(mut self, state: MailboxState) -> Self {
        self.state = state;
        self
    }

    /// Creates them.
    pub fn create(self) -> Mailbox {
        let fake = self.fake;
        let tenant = self.tenant.map(|name| tenant_id(fake.shared(), &name));
        let mut state = fake.state();
        let home = state.tenant_id.clone();
        let tenant = tenant.unwrap_or_else(|| home.clone());
        let number = state.users.len() as u32;
        let id = self.id.unwrap_or_else(|| guid(0xc000_0000 + u64::from(number)));
        let upn = self.upn.unwrap_or_else(|| self.address.clone());
        for name in [&self.address, &upn].into_iter().filter(|_| tenant == home) {
            if let Some((_, domain)) = name.rsplit_once('@') {
                let domain = domain.to_ascii_lowercase();
                if !state.domains.contains(&domain) {
                    state.domains.push(domain);
                }
            }
        }
        let local = self.address.split('@').next().unwrap_or_default();
        state.users.push(state::User {
            number,
            tenant,
            password: self.password.unwrap_or_else(|| format!("a-password-of-{number}")),
            admin: self.admin,
            refused: None,
            full_access: self.full_access,
            revoked_at: None,
            id,
            upn,
            display_name: self.display_name.unwrap_or_else(|| local.to_owned()),
            mail: self.has_mail.then(|| self.address.clone()),
            aliases: self.aliases,
            purpose: self.purpose,
            enabled: self.enabled,
            licensed: self.licensed,
            synced: self.synced,
            user_type: self.user_type,
            state: self.state,
            store: Store::new(self.language),
        });
        drop(state);
        Mailbox { shared: Arc::clone(fake.shared()), address: self.address, number }
    }
}

/// Messages that are generated from a seed instead of stored.
#[derive(Clone, Debug)]
pub struct GeneratedMail {
    count: u64,
    seed: u64,
    attachments: u32,
    attachment_size: u64,
    start: Option<jiff::Timestamp>,
    step: i64,
}

impl GeneratedMail {
    /// This many messages without attachments, the last of them received now.
    pub fn new(count: u64) -> Self {
        GeneratedMail { count, seed: 1, attachments: 0, attachment_size: 0, start: None, step: 1 }
    }

    /// Another seed, other content and Message-IDs.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Files on each message, and their size in bytes.
    #[must_use]
    pub fn attachments(mut self, count: u32, size: u64) -> Self {
        self.attachments = count.min(255);
        self.attachment_size = size;
        self
    }

    /// When the first was received, and seconds between two (0 for all at once).
    #[must_use]
    pub fn received(mut self, start: jiff::Timestamp, step: u32) -> Self {
        self.start = Some(start);
        self.step = i64::from(step);
        self
    }
}

/// An attachment that is put on a message without MIME.
#[derive(Clone)]
pub struct Attached {
    attachment: Attachment,
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("name", &self.attachment.name).finish_non_exhaustive()
    }
}

impl Attached {
    fn new(name: Option<&str>, content_type: Option<&str>, kind: Kind) -> Self {
        Attached {
            attachment: Attachment {
                name: name.map(str::to_owned),
                content_type: content_type.map(str::to_owned),
                content_id: None,
                inline: false,
                kind,
            },
        }
    }

    /// A file; without a name, `name` is null.
    pub fn file(name: Option<&str>, content_type: &str, bytes: impl Into<Bytes>) -> Self {
        let kind = Kind::File(Content::Stored(bytes.into()));
        Self::new(name, Some(content_type), kind)
    }

    /// A file of this size whose content follows from the seed and takes no memory.
    pub fn generated(name: &str, content_type: &str, seed: u64, size: u64) -> Self {
        let kind = Kind::File(Content::Generated { seed, len: size });
        Self::new(Some(name), Some(content_type), kind)
    }

    /// A link to a file in the cloud.
    pub fn reference(name: &str, url: &str) -> Self {
        let url = url.to_owned();
        Self::new(Some(name), None, Kind::Reference { url })
    }

    /// An attached event; its `$value` is this iCalendar text.
    pub fn event(subject: &str, icalendar: &str) -> Self {
        let text = Bytes::from(icalendar.to_owned());
        let odata_type = "#microsoft.graph.event";
        Self::new(Some(subject), None, Kind::Other { odata_type, text })
    }

    /// An attached contact; its `$value` is this vCard text.
    pub fn contact(name: &str, vcard: &str) -> Self {
        let text = Bytes::from(vcard.to_owned());
        let odata_type = "#microsoft.graph.contact";
        Self::new(Some(name), None, Kind::Other { odata_type, text })
    }

    /// Inline, with this content id.
    #[must_use]
    pub fn inline(mut self, content_id: &str) -> Self {
        self.attachment.inline = true;
        self.attachment.content_id = Some(content_id.to_owned());
        self
    }
}

/// A user and their mailbox.
#[derive(Clone)]
pub struct Mailbox {
    pub(super) shared: Arc<Shared>,
    address: String,
    number: u32,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Folders are named by path: `Inbox/Processed`, the first name well-known or as displayed. Ids are
/// accepted in either kind and handed out as immutable ids.
impl Mailbox {
    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The object id of its user.
    pub fn id(&self) -> String {
        self.user(|user, _| user.id.clone())
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn user<T>(&self, work: impl FnOnce(&mut state::User, i64) -> T) -> T {
        let mut state = self.shared.state();
        let now = state.now_seconds();
        work(&mut state.users[self.number as usize], now)
    }

    /// Delivers a message, received now; returns its immutable id. The folder is made if missing.
    pub fn deliver(&self, folder: &str, mime: impl Into<Bytes>) -> String {
        let now = self.shared.state().now();
        let now = jiff::Timestamp::from_microsecond(now).unwrap_or_default();
        self.deliver_at(folder, mime, now)
    }

    /// Delivers a message with this time of arrival (whole seconds, as Exchange shows it).
    pub fn deliver_at(&self, folder: &str, mime: impl Into<Bytes>, received: jiff::Timestamp) -> String {
        let raw = mime.into();
        let received = received.as_second();
        let mut state = self.shared.state();
        let rendering = state.settings.rendering.clone();
        let item = mime::to_item(&raw, received, &rendering, &|address| state.resolve(address));
        let user = &mut state.users[self.number as usize];
        let folder = user.store.ensure_path(folder);
        let key = user.store.insert(folder, received, Source::Item(Arc::new(item)));
        user.store.messages[&key].id(self.number, true)
    }

    /// Fills a folder with generated messages.
    pub fn generate(&self, folder: &str, mail: &GeneratedMail) {
        self.user(|user, now| {
            let folder = user.store.ensure_path(folder);
            let last = mail.step * (mail.count.max(1) as i64 - 1);
            let generated = Arc::new(Generated {
                seed: mail.seed,
                attachments: mail.attachments,
                attachment_size: mail.attachment_size,
                recipient: mime::Address {
                    name: user.display_name.clone(),
                    address: user.mail.clone().unwrap_or_else(|| user.upn.clone()),
                },
                start: mail.start.map_or(now - last, |start| start.as_second()),
                step: mail.step,
            });
            for index in 0..mail.count {
                let received = generated.received(index);
                let source = Source::Generated(Arc::clone(&generated), index);
                user.store.insert(folder, received, source);
            }
        });
    }

    /// Puts an attachment on a message.
    ///
    /// # Panics
    ///
    /// If there is no such message.
    pub fn attach(&self, message: &str, attached: Attached) {
        self.user(|user, _| {
            let key = self.key(user, message);
            let change = user.store.change + 1;
            user.store.change = change;
            if let Some(message) = user.store.messages.get_mut(&key) {
                let mut item = (*message.item()).clone();
                item.attachments.push(attached.attachment);
                message.source = Source::Item(Arc::new(item));
                message.change = change;
            }
        });
    }

    fn key(&self, user: &state::User, message: &str) -> u64 {
        match user.store.find(user.number, message) {
            Ok(message) => message.key,
            Err(refusal) => panic!("no message {message}: {}", refusal.code),
        }
    }

    /// Makes a folder, and the folders above it; returns its id.
    pub fn create_folder(&self, path: &str) -> String {
        self.user(|user, _| {
            let folder = user.store.ensure_path(path);
            super::ids::folder_id(user.number, folder)
        })
    }

    /// Makes a folder in which a `/` of the name is part of it; returns its id.
    pub fn create_folder_named(&self, parent: &str, name: &str) -> String {
        self.user(|user, _| {
            let parent = user.store.ensure_path(parent);
            let folder = user.store.add_folder(Some(parent), name, None, false);
            super::ids::folder_id(user.number, folder)
        })
    }

    /// Makes a hidden folder; returns its id.
    pub fn create_hidden_folder(&self, path: &str) -> String {
        self.user(|user, _| {
            let folder = user.store.ensure_path(path);
            if let Some(folder) = user.store.folders.get_mut(&folder) {
                folder.hidden = true;
            }
            super::ids::folder_id(user.number, folder)
        })
    }

    /// Makes a search folder at the top that shows what is unread in these; returns its id.
    pub fn create_search_folder(&self, name: &str, sources: &[&str]) -> String {
        self.user(|user, _| {
            let sources = sources.iter().map(|source| user.store.ensure_path(source)).collect();
            let folder = user.store.add_folder(Some(ROOT), name, None, false);
            if let Some(folder) = user.store.folders.get_mut(&folder) {
                folder.search = Some(sources);
            }
            super::ids::folder_id(user.number, folder)
        })
    }

    /// Removes a folder with all it holds.
    pub fn remove_folder(&self, path: &str) {
        self.user(|user, _| {
            if let Some(folder) = user.store.resolve_path(path) {
                user.store.remove_folder(folder);
            }
        });
    }

    /// Gives a folder another name.
    pub fn rename_folder(&self, path: &str, name: &str) {
        self.user(|user, _| {
            if let Some(folder) = user.store.resolve_path(path)
                && let Some(folder) = user.store.folders.get_mut(&folder)
            {
                name.clone_into(&mut folder.name);
            }
        });
    }

    /// The id of a folder.
    pub fn folder_id(&self, path: &str) -> Option<String> {
        self.user(|user, _| {
            let folder = user.store.resolve_path(path)?;
            Some(super::ids::folder_id(user.number, folder))
        })
    }

    /// The paths of all folders, hidden ones included.
    pub fn folders(&self) -> Vec<String> {
        self.user(|user, _| {
            user.store
                .folders
                .keys()
                .filter(|number| **number != ROOT)
                .map(|number| user.store.path_of(*number))
                .collect()
        })
    }

    /// How many messages a folder holds; 0 if there is no such folder.
    pub fn count(&self, folder: &str) -> usize {
        self.user(|user, _| {
            user.store.resolve_path(folder).map_or(0, |folder| user.store.folders[&folder].messages.len())
        })
    }

    /// The messages of a folder, oldest first.
    pub fn messages(&self, folder: &str) -> Vec<StoredMessage> {
        self.user(|user, _| {
            let Some(folder) = user.store.resolve_path(folder) else {
                return Vec::new();
            };
            user.store.folders[&folder]
                .messages
                .iter()
                .filter_map(|(_, _, key)| user.store.messages.get(key))
                .map(|message| StoredMessage::new(user.number, message))
                .collect()
        })
    }

    /// One message, by its id of either kind.
    pub fn message(&self, id: &str) -> Option<StoredMessage> {
        self.user(|user, _| {
            let message = user.store.find(user.number, id).ok()?;
            Some(StoredMessage::new(user.number, message))
        })
    }

    /// The folder in which a message is.
    pub fn folder_of(&self, message: &str) -> Option<String> {
        self.user(|user, _| {
            let folder = user.store.find(user.number, message).ok()?.folder;
            Some(user.store.path_of(folder))
        })
    }

    /// Moves a message as a person would, in Outlook.
    ///
    /// # Panics
    ///
    /// If there is no such message.
    pub fn move_message(&self, message: &str, folder: &str) {
        self.user(|user, now| {
            let key = self.key(user, message);
            let target = user.store.ensure_path(folder);
            user.store.move_message(user.number, key, target, now);
        });
    }

    /// Deletes a message for good.
    ///
    /// # Panics
    ///
    /// If there is no such message.
    pub fn delete_message(&self, message: &str) {
        self.user(|user, _| {
            let key = self.key(user, message);
            user.store.remove_message(user.number, key);
        });
    }

    /// Marks a message as read or unread.
    ///
    /// # Panics
    ///
    /// If there is no such message.
    pub fn set_read(&self, message: &str, read: bool) {
        self.user(|user, _| {
            let key = self.key(user, message);
            user.store.set_read(key, read);
        });
    }

    /// The mailbox vanishes, or comes back.
    pub fn set_state(&self, state: MailboxState) {
        self.user(|user, _| user.state = state);
    }

    /// The folder's mutable id of a message, as it is now.
    pub fn mutable_id(&self, message: &str) -> Option<String> {
        self.user(|user, _| {
            let message = user.store.find(user.number, message).ok()?;
            Some(message.id(user.number, false))
        })
    }
}

/// A message as it stands in the mailbox.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoredMessage {
    /// Its immutable id.
    pub id: String,
    /// The subject as Exchange keeps it.
    pub subject: Option<String>,
    /// The address of the author.
    pub from: Option<String>,
    /// The Message-ID header, with angle brackets; made up if the message had none.
    pub internet_message_id: Option<String>,
    /// Time of arrival.
    pub received: jiff::Timestamp,
    /// Whether it was read.
    pub is_read: bool,
    /// How often it was moved.
    pub moves: u32,
    /// Its attachments, inline ones included.
    pub attachments: Vec<StoredAttachment>,
}

impl StoredMessage {
    fn new(mailbox: u32, message: &state::Message) -> Self {
        let item = message.item();
        StoredMessage {
            id: message.id(mailbox, true),
            subject: item.subject.clone(),
            from: item.from.as_ref().map(|from| from.address.clone()),
            internet_message_id: item.internet_message_id.clone(),
            received: jiff::Timestamp::from_second(message.received).unwrap_or_default(),
            is_read: message.is_read,
            moves: message.generation,
            attachments: item
                .attachments
                .iter()
                .map(|attachment| StoredAttachment {
                    name: attachment.name.clone(),
                    content_type: attachment.content_type.clone(),
                    inline: attachment.inline,
                    content: match &attachment.kind {
                        Kind::File(content) => Some(content.clone()),
                        _ => None,
                    },
                })
                .collect(),
        }
    }
}

/// An attachment as it stands in the mailbox.
#[derive(Clone)]
#[non_exhaustive]
pub struct StoredAttachment {
    /// Its name.
    pub name: Option<String>,
    /// Its content type.
    pub content_type: Option<String>,
    /// Whether it is inline.
    pub inline: bool,
    content: Option<Content>,
}

impl fmt::Debug for StoredAttachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredAttachment")
            .field("name", &self.name)
            .field("content_type", &self.content_type)
            .field("inline", &self.inline)
            .field("size", &self.size())
            .finish()
    }
}

impl StoredAttachment {
    /// Bytes of a file; `None` for items and links.
    pub fn size(&self) -> Option<u64> {
        self.content.as_ref().map(Content::len)
    }

    /// A file's content.
    pub fn bytes(&self) -> Option<Bytes> {
        self.content.as_ref().map(Content::to_bytes)
    }

    /// The SHA-256 of a file's content, without holding it in memory.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        self.content.as_ref().map(Content::sha256)
    }
}
