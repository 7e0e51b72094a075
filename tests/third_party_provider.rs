//! A provider that another crate could write, in one file: its account, its settings, its harness. It uses nothing
//! but what this crate exports, is opened from a configuration file, and passes the whole conformance list.
//!
//! The service it speaks to is a pigeonhole in this process: numbered messages in numbered folders.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, LazyLock, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use jiff::Timestamp;
use mail_account::{
    Access, Address, Attachment, AttachmentId, AttachmentKind, Capabilities, Content, Defect, Error, ErrorKind, Folder,
    FolderId, FolderSpec, MailAccount, MailApp, MailboxInfo, Message, MessageId, MoveOutcome, Query, Result, Role,
    Usage,
    config::Registry,
    folder,
    provider::{Opening, ProviderConfig},
    setting::{Field, Kind, Label, Value},
    testing::conformance::{Harness, Need, Seen, checks},
};
use mail_parser::{MessageParser, MimeHeaders as _, PartType};
use serde::Deserialize;

/// The service.
#[derive(Default)]
struct Pigeonhole {
    folders: BTreeMap<u64, Vec<String>>,
    letters: BTreeMap<u64, Letter>,
    last: u64,
}

#[derive(Clone)]
struct Letter {
    folder: u64,
    raw: Bytes,
    received: Timestamp,
    read: bool,
}

static PIGEONHOLE: LazyLock<Mutex<Pigeonhole>> = LazyLock::new(|| {
    let folders = BTreeMap::from([(0, vec!["Inbox".to_owned()])]);
    Mutex::new(Pigeonhole { folders, ..Pigeonhole::default() })
});

fn service() -> MutexGuard<'static, Pigeonhole> {
    PIGEONHOLE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Pigeonhole {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn tree(&self) -> Vec<Folder> {
        let folder = |(n, segments): (&u64, &Vec<String>)| {
            let role = (*n == 0).then_some(Role::Inbox);
            Folder::new(FolderId::new(n.to_string()), segments.clone()).with_role(role)
        };
        self.folders.iter().map(folder).collect()
    }

    fn folder(&self, id: &FolderId) -> Result<u64> {
        let known = id.as_str().parse().ok().filter(|n| self.folders.contains_key(n));
        known.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no folder `{id}`")))
    }

    fn letter(&self, id: &MessageId) -> Result<(u64, &Letter)> {
        // Only the form that was given out is a handle.
        let n = id.as_str().parse::<u64>().ok().filter(|n| n.to_string() == id.as_str());
        n.and_then(|n| self.letters.get(&n).map(|letter| (n, letter)))
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no message `{id}`")))
    }

    fn in_folder(&self, folder: u64) -> Vec<u64> {
        let mut here: Vec<_> = self.letters.iter().filter(|(_, letter)| letter.folder == folder).collect();
        here.sort_by_key(|(n, letter)| (letter.received, **n));
        here.into_iter().map(|(n, _)| *n).collect()
    }
}

/// The settings, as they stand in a configuration file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PigeonholeConfig {
    owner: String,
}

impl ProviderConfig for PigeonholeConfig {
    const NAME: &'static str = "pigeonhole";

    fn kind() -> Kind {
        let owner = Field::new("owner", Value::Text, "Owner", "Eigenaar").required();
        Kind::new(Self::NAME, Label::new("Pigeonhole", "Postvakje"), vec![owner])
    }

    fn mailbox(&self, opening: &Opening) -> MailboxInfo {
        MailboxInfo::new(&*opening.account, Self::NAME, opening.address.as_deref().unwrap_or(&self.owner))
    }

    fn open(&self, opening: Opening) -> Result<Arc<dyn MailAccount>> {
        Ok(Arc::new(PigeonholeAccount { info: self.mailbox(&opening) }))
    }
}

#[derive(Clone)]
struct PigeonholeAccount {
    info: MailboxInfo,
}

impl fmt::Debug for PigeonholeAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PigeonholeAccount").field("mailbox", &self.info).finish()
    }
}

impl PigeonholeAccount {
    /// Says whose error it is.
    fn place(&self, operation: &'static str) -> impl Fn(Error) -> Error + Send + use<> {
        let account = self.info.account.clone();
        move |e| e.with_provider(PigeonholeConfig::NAME).with_account(&*account).with_operation(operation)
    }
}

#[async_trait]
impl MailAccount for PigeonholeAccount {
    async fn list_folders(&self) -> Result<Vec<Folder>> {
        Ok(service().tree())
    }

    fn fetch_messages(&self, folder: &FolderId, query: Query) -> BoxStream<'static, Result<Message>> {
        let folder = folder.clone();
        // The set is fixed at the first poll, when this future runs.
        let fix = async move {
            let service = service();
            let here = service.folder(&folder).map(|n| (n, service.in_folder(n)))?;
            Ok::<_, Error>((here.0, here.1.into_iter()))
        };
        let limit = query.limit.unwrap_or(usize::MAX);
        stream::once(fix)
            .map_ok(move |(folder, letters)| {
                let query = query.clone();
                stream::iter(letters).filter_map(move |n| {
                    let listed = listed(n, folder, &query);
                    async move { listed.map(Ok) }
                })
            })
            .try_flatten()
            .map_err(self.place("fetch_messages"))
            .take(limit)
            .boxed()
    }

    fn download_attachment(&self, message: &MessageId, attachment: &AttachmentId) -> Content {
        let (message, attachment) = (message.clone(), attachment.clone());
        let place = self.place("download_attachment");
        Content::from_fn(async move || {
            let bytes = service().letter(&message).and_then(|(_, letter)| content(&letter.raw, &attachment));
            let bytes = bytes.map_err(place)?;
            let pieces: Vec<_> = bytes.chunks(64 << 10).map(|piece| Ok(bytes.slice_ref(piece))).collect();
            Ok(stream::iter(pieces).boxed())
        })
    }

    async fn move_to_processed(&self, messages: &[MessageId], to: &FolderId) -> Vec<Result<MoveOutcome>> {
        let mut service = service();
        let mut one = |id: &MessageId| {
            let to = service.folder(to)?;
            let Ok((n, _)) = service.letter(id) else { return Ok(MoveOutcome::Gone) };
            service.letters.entry(n).and_modify(|letter| letter.folder = to);
            Ok(MoveOutcome::Moved(id.clone()))
        };
        messages.iter().map(|id| one(id).map_err(self.place("move_to_processed"))).collect()
    }

    fn mailbox(&self) -> &MailboxInfo {
        &self.info
    }

    async fn resolve_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        folder::resolve(&service().tree(), spec).cloned().map_err(self.place("resolve_folder"))
    }

    async fn create_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        let mut service = service();
        let FolderSpec::Path(segments) = spec else {
            return folder::resolve(&service.tree(), spec).cloned().map_err(self.place("create_folder"));
        };
        let mut found: Option<Folder> = None;
        for name in segments {
            let mut path = found.map(|above| above.segments).unwrap_or_default();
            path.push(name.clone());
            let tree = service.tree();
            found = Some(match folder::resolve(&tree, &FolderSpec::Path(path.clone())) {
                Ok(folder) => folder.clone(),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let n = service.next();
                    service.folders.insert(n, path.clone());
                    Folder::new(FolderId::new(n.to_string()), path)
                }
                Err(error) => return Err(self.place("create_folder")(error)),
            });
        }
        Ok(found.expect("a path has a name"))
    }

    async fn folder_access(&self, folder: &FolderId) -> Result<Access> {
        service().folder(folder).map(|_| Access::ReadWrite).map_err(self.place("folder_access"))
    }

    async fn fetch_message(&self, message: &MessageId) -> Result<Message> {
        let found = service().letter(message).map(|(n, letter)| read(n, letter, &Query::default()));
        found.map_err(self.place("fetch_message"))
    }

    async fn mark_read(&self, messages: &[MessageId], read: bool) -> Vec<Result<()>> {
        let mut service = service();
        let mut one = |id: &MessageId| {
            let n = service.letter(id)?.0;
            service.letters.entry(n).and_modify(|letter| letter.read = read);
            Ok(())
        };
        messages.iter().map(|id| one(id).map_err(self.place("mark_read"))).collect()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(100, true)
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}

/// A message of a fixed set, when its turn comes; `None` when it has gone, or the query leaves it out.
fn listed(n: u64, folder: u64, query: &Query) -> Option<Message> {
    let letter = service().letters.get(&n).filter(|letter| letter.folder == folder).cloned()?;
    let wanted = (!query.unread_only || !letter.read) && query.since.is_none_or(|since| letter.received >= since);
    if !wanted || query.skips(&MessageId::new(n.to_string())) {
        return None;
    }
    let message = read(n, &letter, query);
    let bare = |id: &str| id.trim_matches(['<', '>']).to_owned();
    let asked = query.internet_message_id.as_deref().map(bare);
    (asked.is_none() || asked == message.internet_message_id.as_deref().map(bare)).then_some(message)
}

fn read(n: u64, letter: &Letter, query: &Query) -> Message {
    let id = MessageId::new(n.to_string());
    let mut message = Message::new(id, FolderId::new(letter.folder.to_string()), letter.received);
    message.is_read = letter.read;
    let Some(parsed) = MessageParser::default().parse(&letter.raw[..]) else {
        message.defects.push(Defect::Unreadable);
        return message;
    };
    let brackets = |id: &str| format!("<{id}>");
    message.internet_message_id = parsed.message_id().map(brackets);
    message.subject = parsed.subject().map(Into::into);
    message.from = addresses(parsed.from()).into_iter().next();
    message.to = addresses(parsed.to());
    message.cc = addresses(parsed.cc());
    message.reply_to = addresses(parsed.reply_to());
    message.sent = parsed.date().and_then(|date| Timestamp::from_second(date.to_timestamp()).ok());
    message.in_reply_to = parsed.in_reply_to().as_text().map(brackets);
    let references = parsed.references();
    message.references = references.as_text_list().into_iter().flatten().map(|id| brackets(id)).collect();
    if message.references.is_empty() {
        message.references.extend(references.as_text().map(brackets));
    }
    let header = |wanted: &str| parsed.headers_raw().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    message.is_automatic = header("Auto-Submitted").is_some_and(|(_, value)| value.trim() != "no");
    message.is_bounce = header("Return-Path").is_some_and(|(_, value)| value.trim() == "<>");
    message.headers = parsed
        .headers_raw()
        .filter(|(name, _)| query.headers.iter().any(|wanted| wanted.eq_ignore_ascii_case(name)))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    if query.text {
        message.text = parsed.body_text(0).map(Into::into);
        message.html = parsed.body_html(0).map(Into::into);
    }
    message.attachments = parsed.attachments().enumerate().map(|(at, part)| attachment(at, part, query)).collect();
    message
}

fn addresses(header: Option<&mail_parser::Address<'_>>) -> Vec<Address> {
    let one = |a: &mail_parser::Addr<'_>| {
        let address = Address::new(a.address()?);
        Some(a.name().map_or_else(|| address.clone(), |name| address.clone().with_name(name)))
    };
    header.into_iter().flat_map(|header| header.iter()).filter_map(one).collect()
}

fn attachment(at: usize, part: &mail_parser::MessagePart<'_>, query: &Query) -> Attachment {
    let kind = part.content_type().map(|t| format!("{}/{}", t.ctype(), t.subtype().unwrap_or("octet-stream")));
    let mut attachment = Attachment::new(AttachmentId::new(at.to_string()), kind.unwrap_or_default().to_lowercase());
    attachment.name = part.attachment_name().map(Into::into);
    attachment.content_id = part.content_id().map(Into::into);
    attachment.inline = part.content_disposition().is_some_and(|d| d.ctype() == "inline");
    if matches!(part.body, PartType::Message(_)) {
        attachment.kind = AttachmentKind::Item;
        attachment.name.get_or_insert_with(|| "message.eml".to_owned());
    }
    let bytes = part_bytes(part);
    if bytes.len() as u64 <= query.inline_up_to {
        attachment.content = Some(bytes);
    }
    attachment
}

fn part_bytes(part: &mail_parser::MessagePart<'_>) -> Bytes {
    match &part.body {
        PartType::Message(inner) => Bytes::copy_from_slice(inner.raw_message()),
        _ => Bytes::copy_from_slice(part.contents()),
    }
}

fn content(raw: &Bytes, attachment: &AttachmentId) -> Result<Bytes> {
    if attachment.is_raw() {
        return Ok(raw.clone());
    }
    let parsed = MessageParser::default().parse(&raw[..]);
    let found = attachment.as_str().parse().ok().and_then(|at: u32| parsed.as_ref()?.attachment(at).map(part_bytes));
    found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no attachment `{attachment}`")))
}

/// What a check does to the pigeonhole from outside.
struct PigeonholeHarness(MailApp);

impl PigeonholeHarness {
    /// Registers the provider, and configures an account of it.
    fn new() -> Self {
        let registry = Registry::empty().register::<PigeonholeConfig>();
        let text = "[accounts.check]\nprovider = \"pigeonhole\"\nowner = \"facturen@contoso.nl\"\n";
        Self(MailApp::loader().with_registry(registry).from_str(text, ".").expect("the settings are right"))
    }

    fn folder(spec: &FolderSpec) -> Result<u64> {
        let service = service();
        let folder = folder::resolve(&service.tree(), spec)?.id.clone();
        service.folder(&folder)
    }

    fn find(spec: &FolderSpec, internet_message_id: &str) -> Result<u64> {
        let folder = Self::folder(spec)?;
        let service = service();
        let found = service
            .in_folder(folder)
            .into_iter()
            .find(|n| message_id(&service.letters[n].raw).as_deref() == Some(internet_message_id));
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such message"))
    }
}

fn message_id(raw: &[u8]) -> Option<String> {
    MessageParser::default().parse_headers(raw)?.message_id().map(|id| format!("<{id}>"))
}

#[async_trait]
impl Harness for PigeonholeHarness {
    async fn open(&self) -> Result<Arc<dyn MailAccount>> {
        self.0.account("check")
    }

    async fn deliver(&self, folder: &FolderSpec, raw: Bytes, received: Timestamp) -> Result<()> {
        let folder = Self::folder(folder)?;
        let mut service = service();
        let n = service.next();
        service.letters.insert(n, Letter { folder, raw, received, read: false });
        Ok(())
    }

    async fn delete_folder(&self, folder: &FolderSpec) -> Result<()> {
        let n = Self::folder(folder)?;
        let mut service = service();
        let above = service.folders[&n].clone();
        service.folders.retain(|_, segments| !segments.starts_with(&above));
        let Pigeonhole { folders, letters, .. } = &mut *service;
        letters.retain(|_, letter| folders.contains_key(&letter.folder));
        Ok(())
    }

    fn lacks(&self, need: Need) -> Option<String> {
        match need {
            Need::Links => Some("a pigeonhole has no links".to_owned()),
            Need::Unreadable => Some("what is in a pigeonhole can be read".to_owned()),
            _ => None,
        }
    }

    async fn look(&self, folder: &FolderSpec) -> Result<Vec<Seen>> {
        let folder = Self::folder(folder)?;
        let service = service();
        let letters = service.letters.values().filter(|letter| letter.folder == folder);
        Ok(letters.map(|letter| Seen::new(message_id(&letter.raw), letter.read)).collect())
    }

    async fn delete(&self, folder: &FolderSpec, internet_message_id: &str) -> Result<()> {
        let n = Self::find(folder, internet_message_id)?;
        service().letters.remove(&n);
        Ok(())
    }

    async fn relocate(&self, folder: &FolderSpec, internet_message_id: &str, to: &FolderSpec) -> Result<()> {
        let (n, to) = (Self::find(folder, internet_message_id)?, Self::folder(to)?);
        service().letters.entry(n).and_modify(|letter| letter.folder = to);
        Ok(())
    }

    async fn mark(&self, folder: &FolderSpec, internet_message_id: &str, read: bool) -> Result<()> {
        let n = Self::find(folder, internet_message_id)?;
        service().letters.entry(n).and_modify(|letter| letter.read = read);
        Ok(())
    }
}

#[tokio::test]
async fn a_provider_of_another_crate_passes_the_list() {
    let harness = PigeonholeHarness::new();
    let mut failed = Vec::new();
    for check in checks().iter().filter(|check| check.missing(&harness).is_none()) {
        if let Err(why) = check.run(&harness).await {
            failed.push(format!("{}: {why}", check.name()));
        }
    }
    assert!(failed.is_empty(), "{} checks failed:\n{}", failed.len(), failed.join("\n"));
}
