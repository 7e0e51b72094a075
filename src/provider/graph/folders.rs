//! Folders: the tree, and from specs to ids.
//!
//! Ids of folders never change, so what a spec was found to mean is remembered for an hour, and asking again costs
//! nothing. A folder that was deleted and made anew has another id: whoever gets a "not found" for a remembered id asks
//! [`Folders::refind`] once.
//!
//! Roles come from well-known names, never from display names, which are in the mailbox's language.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    batch,
    client::{Call, Client, To, encode, names_nothing, not_json, with_query},
    failure::About,
    wire::WireFolder,
};
use crate::{
    Access, Error, ErrorKind, Folder, FolderId, FolderSpec, Result, Role,
    folder::{is_inbox, not_found, pick_name},
    net::page::Page,
};

/// The roles that have a well-known name ("mailFolder resource type", well-known folder names).
const WELL_KNOWN: [(Role, &str); 7] = [
    (Role::Inbox, "inbox"),
    (Role::Archive, "archive"),
    (Role::Drafts, "drafts"),
    (Role::Sent, "sentitems"),
    (Role::Trash, "deleteditems"),
    (Role::Junk, "junkemail"),
    (Role::Outbox, "outbox"),
];

/// The top of the tree people see.
const ROOT: &str = "msgfolderroot";

/// Folders a page; without it the service gives 10.
const TOP: &str = "100";

/// More levels than Exchange allows; a circle must come to an end.
const DEEPEST: usize = 300;

/// What specs mean, as far as it was asked.
#[derive(Debug, Default)]
pub(super) struct Folders {
    known: Mutex<HashMap<FolderSpec, Remembered>>,
    /// Made by us, and not yet seen again: remembered once somebody asks for access to it.
    made: Mutex<Vec<(FolderSpec, Folder)>>,
}

#[derive(Clone, Debug)]
struct Remembered {
    folder: Folder,
    at: Timestamp,
}

/// A folder may be renamed, and another be given its name. Then "not found" tells nothing.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(1);

impl Folders {
    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<FolderSpec, Remembered>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, client: &Client, spec: FolderSpec, folder: &Folder) {
        let mut folder = folder.clone();
        // By the time somebody asks again they are others.
        (folder.messages, folder.unread) = (None, None);
        self.known().insert(spec, Remembered { folder, at: client.context.now() });
    }

    fn remembered(&self, client: &Client, spec: &FolderSpec) -> Option<Folder> {
        let now = client.context.now();
        let known = self.known();
        known.get(spec).filter(|known| now.duration_since(known.at) < REMEMBERED).map(|known| known.folder.clone())
    }

    /// The folder a spec means.
    pub(super) async fn resolve(&self, client: &Client, spec: &FolderSpec) -> Result<Folder> {
        if let Some(folder) = self.remembered(client, spec) {
            return Ok(folder);
        }
        let found = match spec {
            FolderSpec::Role(role) => by_role(client, *role).await?,
            FolderSpec::Id(id) => by_id(client, id).await?,
            FolderSpec::Path(segments) => match self.walk(client, segments, None).await? {
                Walked::Found(folder) => Some(*folder),
                Walked::Missing { .. } => None,
            },
        };
        match found {
            Some(folder) => {
                self.remember(client, spec.clone(), &folder);
                Ok(folder)
            }
            None => Err(not_found(spec, &tree(client).await?)),
        }
    }

    /// Makes a folder, and what is missing above it.
    pub(super) async fn create(&self, client: &Client, spec: &FolderSpec) -> Result<Folder> {
        let FolderSpec::Path(segments) = spec else { return self.resolve(client, spec).await };
        let mut from = None;
        // Each turn makes at most one folder; what it made is found by the next.
        for _ in 0..=segments.len() {
            match self.walk(client, segments, from.take()).await? {
                Walked::Found(folder) => {
                    let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
                    made.retain(|(other, _)| other != spec);
                    made.push((spec.clone(), (*folder).clone()));
                    return Ok(*folder);
                }
                Walked::Missing { at, parent } => {
                    let made = make(client, parent.as_ref(), &segments[at]).await?;
                    from = made.map(|made| (at + 1, made));
                }
            }
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!("the folder `{spec}` could not be made: Exchange says that it exists, but does not list it"),
        ))
    }

    /// Goes down a path by display names, from the top or from a folder that is known already.
    async fn walk(&self, client: &Client, segments: &[String], from: Option<(usize, Folder)>) -> Result<Walked> {
        let (start, mut here) = match from {
            Some((at, folder)) => (at, Some(folder)),
            None => (0, None),
        };
        for (at, wanted) in segments.iter().enumerate().skip(start) {
            if at == 0 && is_inbox(wanted) {
                here = Some(self.inbox(client).await?);
                continue;
            }
            let mut level = children(client, here.as_ref()).await?;
            let Some(found) = pick_name(level.iter().map(Folder::name), wanted)? else {
                return Ok(Walked::Missing { at, parent: here });
            };
            let mut found = level.swap_remove(found);
            if at == 0 && self.inbox(client).await?.id == found.id {
                found.role = Some(Role::Inbox);
            }
            here = Some(found);
        }
        match here {
            Some(folder) => Ok(Walked::Found(Box::new(folder))),
            None => Ok(Walked::Missing { at: 0, parent: None }),
        }
    }

    async fn inbox(&self, client: &Client) -> Result<Folder> {
        let spec = FolderSpec::Role(Role::Inbox);
        if let Some(folder) = self.remembered(client, &spec) {
            return Ok(folder);
        }
        let inbox = by_role(client, Role::Inbox).await?;
        let inbox = inbox.ok_or_else(|| Error::new(ErrorKind::NotFound, "the mailbox has no inbox"))?;
        self.remember(client, spec, &inbox);
        Ok(inbox)
    }

    /// A remembered folder was not found: forgets it, and looks for another one by the same spec. `None` when there is
    /// none, or when the id did not come from a spec.
    pub(super) async fn refind(&self, client: &Client, id: &FolderId) -> Result<Option<Folder>> {
        let specs: Vec<_> = {
            let mut known = self.known();
            let specs =
                known.iter().filter(|(_, known)| known.folder.id == *id).map(|(spec, _)| spec.clone()).collect();
            known.retain(|_, known| known.folder.id != *id);
            specs
        };
        for spec in specs {
            if matches!(spec, FolderSpec::Id(_)) {
                continue;
            }
            match self.resolve(client, &spec).await {
                Ok(folder) if folder.id != *id => return Ok(Some(folder)),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Whether a folder can be moved to or from, as far as can be told without writing: a token's permissions are opaque
    /// by contract, and Exchange's policies are not in it. Costs nothing for a folder that was resolved.
    pub(super) async fn access(&self, client: &Client, id: &FolderId) -> Result<Access> {
        let known = self.known().values().find(|known| known.folder.id == *id).map(|known| known.folder.search);
        if names_nothing(id.as_str()) {
            return Err(no_id());
        }
        let search = match known {
            Some(search) => search,
            None => {
                let path = format!("/mailFolders/{}", encode(id.as_str()));
                let folder = client.json::<WireFolder>(&Call::get(About::Folder, To::Mailbox(path))).await?;
                let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
                let (seen, others): (Vec<_>, Vec<_>) = made.into_iter().partition(|(_, made)| made.id == *id);
                self.made.lock().unwrap_or_else(PoisonError::into_inner).extend(others);
                for (spec, folder) in seen {
                    self.remember(client, spec, &folder);
                }
                folder.into_folder(&[]).search
            }
        };
        Ok(if search { Access::ReadOnly } else { Access::Unknown })
    }
}

enum Walked {
    Found(Box<Folder>),
    /// The first name that is not there, and the folder it should be in; `None` is the top.
    Missing {
        at: usize,
        parent: Option<Folder>,
    },
}

/// The whole tree.
pub(super) async fn tree(client: &Client) -> Result<Vec<Folder>> {
    let mut level = vec![(None::<Folder>, 0_usize)];
    let mut seen = HashSet::new();
    let mut tree = Vec::new();
    while !level.is_empty() {
        let found: Vec<_> = stream::iter(level)
            .map(|(parent, depth)| async move {
                let children = match read_children(client, parent.as_ref()).await {
                    // Deleted while we were looking.
                    Err(error) if error.kind() == ErrorKind::NotFound && parent.is_some() => Vec::new(),
                    other => other?,
                };
                let above = parent.map(|p| p.segments).unwrap_or_default();
                Ok::<_, Error>(children.into_iter().map(move |child| (child, above.clone(), depth)).collect::<Vec<_>>())
            })
            .buffered(4)
            .try_collect()
            .await?;
        level = Vec::new();
        for (child, above, depth) in found.into_iter().flatten() {
            if !seen.insert(child.id.clone()) {
                continue;
            }
            let has_children = child.child_folder_count.0.is_none_or(|n| n > 0);
            let folder = child.into_folder(&above);
            // A view has no folders of its own.
            if has_children && !folder.search && depth < DEEPEST {
                level.push((Some(folder.clone()), depth + 1));
            }
            tree.push(folder);
        }
    }
    let roles = roles(client).await?;
    for folder in &mut tree {
        folder.role = roles.get(folder.id.as_str()).copied();
    }
    tree.sort_by(|a, b| a.segments.cmp(&b.segments));
    Ok(tree)
}

/// The ids of the folders that have a role, in one round trip. One that the mailbox never made is left out.
async fn roles(client: &Client) -> Result<HashMap<String, Role>> {
    let part = |(role, name)| {
        // Every mailbox has an inbox: one that is not found belongs to somebody who does not share it.
        let about = if role == Role::Inbox { About::Mailbox } else { About::Folder };
        batch::Part::get(about, with_query(&format!("/mailFolders/{name}"), &[("$select", "id")]))
    };
    let parts = WELL_KNOWN.map(part).into();
    let answers = batch::all(client, parts).await?;
    let mut roles = HashMap::new();
    for ((role, _), answer) in WELL_KNOWN.into_iter().zip(answers) {
        match answer {
            Ok(body) => {
                let folder: WireFolder = serde_json::from_slice(&body).map_err(|e| {
                    Error::new(ErrorKind::Malformed, "Graph's answer about a folder is none").with_source(e)
                })?;
                roles.insert(folder.id, role);
            }
            Err(error) if error.kind() == ErrorKind::NotFound && role != Role::Inbox => {}
            Err(error) => return Err(error),
        }
    }
    Ok(roles)
}

async fn by_role(client: &Client, role: Role) -> Result<Option<Folder>> {
    let Some((_, name)) = WELL_KNOWN.into_iter().find(|(r, _)| *r == role) else { return Ok(None) };
    let about = if role == Role::Inbox { About::Mailbox } else { About::Folder };
    let found =
        optional(client.json::<WireFolder>(&Call::get(about, To::Mailbox(format!("/mailFolders/{name}")))).await)?;
    Ok(found.map(|folder| folder.into_folder(&[]).with_role(Some(role))))
}

/// A folder by id, with the names above it: they are asked for one by one, up to the top.
async fn by_id(client: &Client, id: &FolderId) -> Result<Option<Folder>> {
    if names_nothing(id.as_str()) {
        return Ok(None);
    }
    let get = |id: String| async move {
        let path = format!("/mailFolders/{}", encode(&id));
        optional(client.json::<WireFolder>(&Call::get(About::Folder, To::Mailbox(path))).await)
    };
    let Some(folder) = get(id.as_str().to_owned()).await? else { return Ok(None) };
    let root = get(ROOT.to_owned()).await?.map(|root| root.id);
    let (mut above, mut parent) = (Vec::new(), folder.parent_folder_id.0.clone());
    while let Some(id) = parent
        && Some(&id) != root.as_ref()
        && above.len() < DEEPEST
    {
        let Some(next) = get(id).await? else { break };
        above.insert(0, next.name().to_owned());
        parent = next.parent_folder_id.0;
    }
    let mut folder = folder.into_folder(&above);
    if above.is_empty() {
        let inbox = by_role(client, Role::Inbox).await?;
        folder.role = inbox.filter(|inbox| inbox.id == folder.id).and(Some(Role::Inbox));
    }
    Ok(Some(folder))
}

async fn children(client: &Client, parent: Option<&Folder>) -> Result<Vec<Folder>> {
    let above = parent.map_or(&[][..], |p| &p.segments);
    Ok(read_children(client, parent).await?.into_iter().map(|child| child.into_folder(above)).collect())
}

/// The folders directly below one, or at the top; all pages, hidden ones included.
async fn read_children(client: &Client, parent: Option<&Folder>) -> Result<Vec<WireFolder>> {
    let (about, path) = match parent {
        Some(parent) => (About::Folder, format!("/mailFolders/{}/childFolders", encode(parent.id.as_str()))),
        None => (About::Mailbox, "/mailFolders".to_owned()),
    };
    let mut to = To::Mailbox(with_query(&path, &[("$top", TOP), ("includeHiddenFolders", "true")]));
    let mut all = Vec::new();
    loop {
        let call = Call::get(about, to);
        let (folders, next) = client
            .read(&call, |answer| {
                let unreadable = |e: Error| not_json(answer).with_source(e);
                let page = Page::read(&answer.body).map_err(unreadable)?;
                let folders: Result<Vec<WireFolder>, _> =
                    page.entries.iter().map(|raw| serde_json::from_str(raw.get())).collect();
                // A folder without an id would be missing from the tree without anybody noticing.
                let folders = folders.map_err(|e| {
                    Error::new(ErrorKind::Malformed, "Graph listed a folder without an id").with_source(e)
                })?;
                Ok((folders, page.next))
            })
            .await?;
        all.extend(folders);
        match next {
            Some(next) => to = client.follow(&next)?,
            None => return Ok(all),
        }
        if all.len() > 100_000 {
            return Err(Error::new(ErrorKind::Malformed, "Graph's list of folders does not end"));
        }
    }
}

/// Makes one folder. `None` when it exists already, which is told as 409 or as 400, also when two programs make it at
/// once, or when the answer to our own first attempt was lost.
async fn make(client: &Client, parent: Option<&Folder>, name: &str) -> Result<Option<Folder>> {
    let path = match parent {
        Some(parent) => format!("/mailFolders/{}/childFolders", encode(parent.id.as_str())),
        None => "/mailFolders".to_owned(),
    };
    let call = Call::post(About::Folder, To::Mailbox(path), &json!({"displayName": name}));
    match client.json::<WireFolder>(&call).await {
        Ok(made) => Ok(Some(made.into_folder(parent.map_or(&[], |p| &p.segments)))),
        Err(error) if error.code().is_some_and(|code| code.eq_ignore_ascii_case("ErrorFolderExists")) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn no_id() -> Error {
    Error::new(ErrorKind::NotFound, "an empty id, or one of dots, names no folder")
}

fn optional<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
