//! The folder tree, with the server's delimiters and namespaces hidden.

use std::{collections::HashMap, sync::PoisonError};

use bytes::Bytes;

use super::{
    failure::{Failure, Outcome},
    handle::{folder_id, folder_name},
    pool::Shared,
    session::Session,
    wire::{
        encode::Command,
        response::{ListEntry, Namespace, Untagged},
        utf7,
    },
};
use crate::{
    Access, Error, ErrorKind, Folder, FolderId, FolderSpec, Result, Role,
    folder::{is_inbox, not_found, resolve},
};

/// Most folders that are listed; a server that has no end of them has something else wrong.
const MAX_FOLDERS: usize = 100_000;

/// All folders. The last one seen is kept, for the names in errors only.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) folders: Vec<Folder>,
    /// Delimiter and attributes by handle.
    entries: HashMap<FolderId, Entry>,
    /// Where the user's own folders hang, and by what they are parted.
    prefix: Bytes,
    delimiter: Option<u8>,
    /// The server does not say where they hang, and all of them hang below the inbox.
    seems_below_inbox: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    delimiter: Option<u8>,
    no_children: bool,
}

pub(crate) async fn list(shared: &std::sync::Arc<Shared>) -> Result<Tree> {
    let mut attempts = shared.attempts();
    loop {
        let mut lease = attempts.lease(None).await?;
        match ask(&mut lease, shared).await {
            Ok(tree) => {
                lease.done();
                *shared.tree.lock().unwrap_or_else(PoisonError::into_inner) = Some(tree.clone());
                return Ok(tree);
            }
            Err(failure) => attempts.failed(lease, failure).await?,
        }
    }
}

async fn ask(session: &mut Session, shared: &Shared) -> Outcome<Tree> {
    let personal = match shared.namespace.get() {
        Some(known) => known.clone(),
        None => {
            let personal = namespace(session).await?;
            shared.namespace.get_or_init(|| personal).clone()
        }
    };
    let extended = ["LIST-EXTENDED", "SPECIAL-USE", "LIST-STATUS"].iter().all(|name| session.offered.has(name));
    let mut command = Command::new("LIST").raw("\"\" \"*\"");
    if extended {
        command = command.raw("RETURN (SPECIAL-USE STATUS (MESSAGES UNSEEN))");
    }
    let mut entries: Vec<ListEntry> = Vec::new();
    let mut counts = HashMap::new();
    session
        .run(command, |untagged| match untagged {
            Untagged::List(entry) if entries.len() < MAX_FOLDERS && !entry.name.is_empty() => entries.push(entry),
            Untagged::MailboxStatus(status) if counts.len() < MAX_FOLDERS => {
                counts.insert(folder_id(&status.name), (status.messages, status.unseen));
            }
            _ => {}
        })
        .await?;
    if entries.is_empty() {
        // Every mailbox has an inbox.
        return Err(Failure::Protocol("a mailbox without a single folder"));
    }
    Ok(tree(entries, &counts, personal.as_ref()))
}

/// Where the user's own folders are. Servers without NAMESPACE have them at the top, or do not say.
async fn namespace(session: &mut Session) -> Outcome<Option<Namespace>> {
    if !session.offered.has("NAMESPACE") {
        return Ok(None);
    }
    let mut personal = None;
    let answer = session
        .run(Command::new("NAMESPACE"), |untagged| {
            if let Untagged::Namespace(found) = untagged {
                personal = found.personal.into_iter().next();
            }
        })
        .await;
    match answer {
        // Nothing depends on it but names.
        Err(Failure::Refused { .. }) => Ok(None),
        Err(other) => Err(other),
        Ok(_) => Ok(personal),
    }
}

fn tree(
    entries: Vec<ListEntry>,
    counts: &HashMap<FolderId, (Option<u64>, Option<u64>)>,
    personal: Option<&Namespace>,
) -> Tree {
    let inbox_delimiter = entries.iter().find(|e| e.name.eq_ignore_ascii_case(b"INBOX")).and_then(|e| e.delimiter);
    let prefix = personal.map(|p| p.prefix.clone()).unwrap_or_default();
    let delimiter = personal.and_then(|p| p.delimiter).or(inbox_delimiter).or(entries[0].delimiter);
    let seems_below_inbox = personal.is_none() && entries.len() > 1 && entries.iter().all(is_inbox_or_below);
    let mut folders = Vec::with_capacity(entries.len());
    let mut known = HashMap::new();
    for entry in entries {
        let id = folder_id(&entry.name);
        if known.contains_key(&id) {
            continue;
        }
        let segments = segments(&entry, &prefix);
        if segments.is_empty() {
            continue;
        }
        let mut folder = Folder::new(id.clone(), segments).with_role(role(&entry));
        folder.selectable = !entry.has("\\noselect") && !entry.has("\\nonexistent");
        folder.search = matches!(folder.role, Some(Role::All | Role::Flagged));
        if let Some((messages, unread)) = counts.get(&id) {
            folder.messages = *messages;
            folder.unread = *unread;
        }
        let no_children = entry.has("\\noinferiors");
        known.insert(id, Entry { delimiter: entry.delimiter, no_children });
        folders.push(folder);
    }
    Tree { folders, entries: known, prefix, delimiter, seems_below_inbox }
}

/// In the layout of servers that have no folders beside the inbox; they part names by dots.
fn is_inbox_or_below(entry: &ListEntry) -> bool {
    let (head, rest) = entry.name.split_at(entry.name.len().min(5));
    head.eq_ignore_ascii_case(b"INBOX") && entry.delimiter == Some(b'.') && (rest.is_empty() || rest[0] == b'.')
}

/// The names from the top down, without the personal namespace's prefix: on servers that keep everything below
/// `INBOX.`, a folder called Processed is `Processed`.
fn segments(entry: &ListEntry, prefix: &[u8]) -> Vec<String> {
    let name = match entry.name.strip_prefix(prefix) {
        Some(rest) if !prefix.is_empty() && !rest.is_empty() => rest,
        _ => &entry.name[..],
    };
    let mut segments: Vec<String> = match entry.delimiter {
        Some(delimiter) => name.split(|b| *b == delimiter).filter(|part| !part.is_empty()).map(utf7::decode).collect(),
        None => vec![utf7::decode(name)],
    };
    // In whatever case the server writes it here and in its children, it is one folder.
    if name.len() == entry.name.len()
        && let Some(first) = segments.first_mut().filter(|first| is_inbox(first))
    {
        "INBOX".clone_into(first);
    }
    segments
}

fn role(entry: &ListEntry) -> Option<Role> {
    if entry.name.eq_ignore_ascii_case(b"INBOX") {
        return Some(Role::Inbox);
    }
    [
        ("\\archive", Role::Archive),
        ("\\drafts", Role::Drafts),
        ("\\sent", Role::Sent),
        ("\\trash", Role::Trash),
        ("\\junk", Role::Junk),
        ("\\all", Role::All),
        ("\\flagged", Role::Flagged),
    ]
    .into_iter()
    .find(|(attribute, _)| entry.has(attribute))
    .map(|(_, role)| role)
}

impl Tree {
    fn find(&self, spec: &FolderSpec) -> Result<&Folder> {
        match resolve(&self.folders, spec) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Where everything hangs below the inbox, `Inbox/Processed` and `Processed` are the same folder.
                let FolderSpec::Path(names) = spec else { return Err(error) };
                let other = match &names[..] {
                    [first, rest @ ..] if is_inbox(first) && !rest.is_empty() && self.hangs_below_inbox() => {
                        rest.to_vec()
                    }
                    [first, ..] if !is_inbox(first) && self.seems_below_inbox => {
                        std::iter::once("INBOX".to_owned()).chain(names.iter().cloned()).collect()
                    }
                    _ => return Err(error),
                };
                resolve(&self.folders, &FolderSpec::Path(other))
                    .map_err(|again| if again.kind() == ErrorKind::NotFound { error } else { again })
            }
            found => found,
        }
    }

    fn hangs_below_inbox(&self) -> bool {
        self.prefix.get(..5).is_some_and(|head| head.eq_ignore_ascii_case(b"INBOX"))
    }

    /// The name that the server would know a new folder by, given its parent.
    fn raw_child(&self, parent: Option<&Folder>, name: &str) -> Result<Bytes> {
        let (mut raw, delimiter) = match parent {
            Some(parent) => {
                let entry = self.entries.get(&parent.id);
                if entry.is_some_and(|e| e.no_children) {
                    return Err(Error::new(
                        ErrorKind::InvalidConfig,
                        format!("the server allows no folders below `{}`; put `{name}` elsewhere", parent.path()),
                    ));
                }
                (folder_name(&parent.id).to_vec(), entry.and_then(|e| e.delimiter).or(self.delimiter))
            }
            None => (self.prefix.to_vec(), self.delimiter),
        };
        let encoded = utf7::encode(name);
        match delimiter {
            None if parent.is_some() => {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!("this server has no folders within folders; put `{name}` at the top"),
                ));
            }
            Some(delimiter) if encoded.contains(&delimiter) => {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!("a folder's name cannot contain `{}` on this server: `{name}`", char::from(delimiter)),
                ));
            }
            Some(delimiter) if parent.is_some() => raw.push(delimiter),
            _ => {}
        }
        raw.extend_from_slice(&encoded);
        Ok(raw.into())
    }
}

/// Always asks: a folder may have been deleted by somebody else a moment ago, and it is one command.
pub(crate) async fn find(shared: &std::sync::Arc<Shared>, spec: &FolderSpec) -> Result<Folder> {
    list(shared).await?.find(spec).cloned()
}

/// The user's name for a folder, for errors.
pub(crate) fn path(shared: &Shared, raw: &Bytes) -> String {
    let id = folder_id(raw);
    let tree = shared.tree.lock().unwrap_or_else(PoisonError::into_inner);
    let known = tree.as_ref().and_then(|tree| tree.folders.iter().find(|f| f.id == id));
    known.map_or_else(|| utf7::decode(raw), Folder::path)
}

pub(crate) async fn create(shared: &std::sync::Arc<Shared>, spec: &FolderSpec) -> Result<Folder> {
    let mut tree = list(shared).await?;
    let names = match (tree.find(spec), spec) {
        (Ok(folder), _) => return Ok(folder.clone()),
        (Err(error), FolderSpec::Path(names)) if error.kind() == ErrorKind::NotFound => names.clone(),
        (Err(error), _) => return Err(error),
    };
    let inbox = tree.folders.iter().find(|folder| folder.role == Some(Role::Inbox));
    let mut parent: Option<Folder> = inbox.filter(|_| tree.seems_below_inbox).cloned();
    for depth in 1..=names.len() {
        let level = FolderSpec::Path(names[..depth].to_vec());
        match tree.find(&level) {
            Ok(found) => {
                parent = Some(found.clone());
                continue;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Servers that keep everything below the inbox have no folder beside it either.
        let below = parent.as_ref().filter(|p| !(tree.hangs_below_inbox() && p.role == Some(Role::Inbox)));
        let raw = tree.raw_child(below, &names[depth - 1])?;
        make(shared, &raw).await?;
        tree = list(shared).await?;
        let id = folder_id(&raw);
        let made = tree.folders.iter().find(|f| f.id == id).cloned();
        parent = match made {
            Some(folder) => Some(folder),
            // The server may have given it another name, such as one in another case.
            None => Some(tree.find(&level).map_err(|_| not_found(spec, &tree.folders))?.clone()),
        };
    }
    parent.ok_or_else(|| not_found(spec, &tree.folders))
}

/// CREATE and SUBSCRIBE. A folder that is there already is a success, whatever the server calls it.
pub(crate) async fn make(shared: &std::sync::Arc<Shared>, raw: &Bytes) -> Result<()> {
    let mut attempts = shared.attempts();
    loop {
        let mut lease = attempts.lease(None).await?;
        match create_one(&mut lease, raw).await {
            Ok(()) => {
                lease.done();
                return Ok(());
            }
            Err(failure) => attempts.failed(lease, failure).await?,
        }
    }
}

pub(crate) async fn create_one(session: &mut Session, raw: &Bytes) -> Outcome<()> {
    match session.run(Command::new("CREATE").string(raw), |_| {}).await {
        Ok(_) => {}
        Err(failure) if failure.refused().is_some() && failure.leaves_session_usable() => {
            let mut exists = false;
            let id = folder_id(raw);
            session
                .run(Command::new("LIST").raw("\"\"").string(raw), |untagged| {
                    if let Untagged::List(entry) = untagged {
                        exists |= folder_id(&entry.name) == id && !entry.has("\\nonexistent");
                    }
                })
                .await?;
            if !exists {
                return Err(failure);
            }
        }
        Err(failure) => return Err(failure),
    }
    // Mail programs show subscribed folders only; the folder works without.
    match session.run(Command::new("SUBSCRIBE").string(raw), |_| {}).await {
        Err(failure) if !failure.leaves_session_usable() => Err(failure),
        _ => Ok(()),
    }
}

pub(crate) async fn access(shared: &std::sync::Arc<Shared>, id: &FolderId) -> Result<Access> {
    let raw = folder_name(id);
    let mut attempts = shared.attempts();
    loop {
        let mut lease = attempts.lease(Some(&raw)).await?;
        match lease.open(&raw, true).await {
            Ok(open) => {
                lease.done();
                return Ok(if open.writable && open.can_delete { Access::ReadWrite } else { Access::ReadOnly });
            }
            Err(failure) => attempts.failed(lease, failure).await?,
        }
    }
}

/// As [`access`], without opening the folder for writing, which would leave traces: by the rights that the server tells
/// of, where it does (RFC 4314, section 4). `target`: for what is moved into it, else for what is moved out.
pub(crate) async fn rights(shared: &std::sync::Arc<Shared>, id: &FolderId, target: bool) -> Result<Access> {
    let raw = folder_name(id);
    let mut attempts = shared.attempts();
    loop {
        let mut lease = attempts.lease(Some(&raw)).await?;
        match rights_of(&mut lease, &raw).await {
            Ok(rights) => {
                lease.done();
                let Some(rights) = rights else { return Ok(Access::Unknown) };
                // `d` is `t` and `e` in servers of RFC 2086.
                let has = |right: u8| rights.contains(&right);
                let may = if target { has(b'i') } else { has(b'd') || (has(b't') && has(b'e')) };
                return Ok(if may { Access::ReadWrite } else { Access::ReadOnly });
            }
            Err(failure) => attempts.failed(lease, failure).await?,
        }
    }
}

async fn rights_of(session: &mut Session, raw: &Bytes) -> Outcome<Option<Bytes>> {
    session.open(raw, false).await?;
    if !session.offered.has("ACL") {
        return Ok(None);
    }
    let mut rights = None;
    let command = Command::new("MYRIGHTS").string(raw);
    let answer = session
        .run(command, |untagged| {
            if let Untagged::Rights(found) = untagged {
                rights = Some(found);
            }
        })
        .await;
    match answer {
        Err(Failure::Refused { .. }) => Ok(None),
        Err(other) => Err(other),
        Ok(_) => Ok(rights),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, delimiter: Option<u8>, attributes: &[&str]) -> ListEntry {
        ListEntry {
            attributes: attributes.iter().map(|a| (*a).to_owned()).collect(),
            delimiter,
            name: Bytes::copy_from_slice(name.as_bytes()),
        }
    }

    fn courier() -> Tree {
        let personal = Namespace { prefix: Bytes::from_static(b"INBOX."), delimiter: Some(b'.') };
        let entries = vec![
            entry("INBOX", Some(b'.'), &[]),
            entry("INBOX.Processed", Some(b'.'), &[]),
            entry("INBOX.Entw&APw-rfe", Some(b'.'), &["\\drafts"]),
        ];
        tree(entries, &HashMap::new(), Some(&personal))
    }

    #[test]
    fn a_prefix_that_the_server_does_not_tell_is_seen() {
        let list = |names: &[&str]| {
            tree(names.iter().map(|name| entry(name, Some(b'.'), &[])).collect(), &HashMap::new(), None)
        };
        let below = list(&["Inbox", "INBOX.Processed", "INBOX.Processed.2026"]);
        for spec in ["Processed", "Inbox/Processed"] {
            assert_eq!(found(&below, spec).unwrap(), "INBOX.Processed", "{spec}");
        }
        assert_eq!(found(&below, "processed/2026").unwrap(), "INBOX.Processed.2026");
        assert!(found(&below, "Failed").unwrap_err().to_string().contains("`INBOX/Processed`"));
        assert!(below.seems_below_inbox);
        for beside in [&["INBOX", "INBOX.Processed", "Sent"][..], &["INBOX"], &["INBOX", "INBOXES"]] {
            assert!(!list(beside).seems_below_inbox, "{beside:?}");
        }
        assert!(found(&list(&["INBOX", "INBOX.Processed", "Sent"]), "Processed").is_err());
    }

    fn dovecot() -> Tree {
        let personal = Namespace { prefix: Bytes::new(), delimiter: Some(b'/') };
        let entries = vec![
            entry("Sent", Some(b'/'), &["\\sent"]),
            entry("INBOX/a.b", Some(b'/'), &["\\noinferiors"]),
            entry("inbox", Some(b'/'), &[]),
            entry("All", Some(b'/'), &["\\all", "\\noselect"]),
        ];
        tree(entries, &HashMap::new(), Some(&personal))
    }

    fn found(tree: &Tree, spec: &str) -> Result<String> {
        tree.find(&spec.parse()?).map(|folder| folder.id.to_string())
    }

    #[test]
    fn a_prefix_is_added_for_the_user() {
        let tree = courier();
        for spec in ["Processed", "Inbox/Processed", "INBOX/processed"] {
            assert_eq!(found(&tree, spec).unwrap(), "INBOX.Processed", "{spec}");
        }
        assert_eq!(found(&tree, "inbox").unwrap(), "INBOX");
        assert_eq!(found(&tree, "role:drafts").unwrap(), "INBOX.Entw&APw-rfe");
        assert_eq!(found(&tree, "Entwürfe").unwrap(), "INBOX.Entw&APw-rfe");
        assert_eq!(tree.raw_child(None, "Prüfung").unwrap(), "INBOX.Pr&APw-fung");
        let error = found(&tree, "Inbox/Processes").unwrap_err();
        assert!(error.to_string().contains("`Processed`"), "{error}");
    }

    #[test]
    fn roles_and_attributes() {
        let tree = dovecot();
        assert_eq!(found(&tree, "Inbox").unwrap(), "INBOX");
        assert_eq!(found(&tree, "Inbox/a.b").unwrap(), "INBOX/a.b");
        assert_eq!(found(&tree, "role:sent").unwrap(), "Sent");
        let all = tree.folders.iter().find(|f| f.role == Some(Role::All)).unwrap();
        assert!(all.search && !all.selectable);
    }

    #[test]
    fn names_that_the_server_cannot_have() {
        let tree = dovecot();
        let inbox = tree.folders.iter().find(|f| f.role == Some(Role::Inbox));
        assert_eq!(tree.raw_child(inbox, "x").unwrap(), "INBOX/x");
        assert!(tree.raw_child(inbox, "x/y").unwrap_err().to_string().contains("x/y"));
        let flat = tree.folders.iter().find(|f| f.id.as_str() == "INBOX/a.b");
        assert!(tree.raw_child(flat, "x").unwrap_err().to_string().contains("allows no folders"));
    }

    #[test]
    fn a_flat_server_has_no_folders_within_folders() {
        let tree = tree(vec![entry("INBOX", None, &[])], &HashMap::new(), None);
        let inbox = &tree.folders[0];
        assert!(tree.raw_child(Some(inbox), "x").is_err());
        assert_eq!(tree.raw_child(None, "a/b").unwrap(), "a/b");
    }
}
