//! Folders and messages, and the rules for changing them. Knows no accounts: messages are numbers here.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;

use super::{generated::Generated, script::Script};
use crate::{
    Access, Error, ErrorKind, Folder, FolderId, FolderSpec, Result, Role,
    folder::{self, is_inbox, pick_name},
};

pub(super) struct State {
    /// By number; a deleted folder leaves a hole, so that its number is not given out again.
    folders: Vec<Option<FolderEntry>>,
    /// By number; likewise.
    items: Vec<Option<Item>>,
    locations: u64,
    /// Handles of another epoch are void.
    pub(super) epoch: u32,
    pub(super) script: Script,
}

struct FolderEntry {
    parent: Option<usize>,
    name: String,
    role: Option<Role>,
    access: Access,
    hidden: bool,
    search: bool,
    selectable: bool,
    /// Oldest received first; among equals in the order of arrival in the mailbox.
    items: BTreeSet<(Timestamp, u64)>,
}

#[derive(Clone)]
pub(super) struct Item {
    pub(super) body: Body,
    pub(super) received: Timestamp,
    pub(super) folder: usize,
    /// Changes with every move: what a handle names where handles do not survive one.
    pub(super) location: u64,
    pub(super) read: bool,
    pub(super) unreadable: bool,
    /// Marked as deleted, because this copy of it was made.
    pub(super) copied_to: Option<u64>,
}

#[derive(Clone)]
pub(super) enum Body {
    Raw(Bytes),
    Generated(Arc<Generated>, u32),
}

/// What a mailbox calls its folders when it is new.
pub(super) const ENGLISH: [(&str, Role); 6] = [
    ("Inbox", Role::Inbox),
    ("Drafts", Role::Drafts),
    ("Sent Items", Role::Sent),
    ("Deleted Items", Role::Trash),
    ("Junk Email", Role::Junk),
    ("Archive", Role::Archive),
];

/// The same as a Dutch Exchange mailbox has them.
pub(super) const DUTCH: [(&str, Role); 6] = [
    ("Postvak IN", Role::Inbox),
    ("Concepten", Role::Drafts),
    ("Verzonden items", Role::Sent),
    ("Verwijderde items", Role::Trash),
    ("Ongewenste e-mail", Role::Junk),
    ("Archief", Role::Archive),
];

impl State {
    pub(super) fn new(names: &[(&str, Role)]) -> Self {
        let mut state =
            Self { folders: Vec::new(), items: Vec::new(), locations: 0, epoch: 1, script: Script::default() };
        for (name, role) in names {
            let at = state.add_folder(None, name);
            state.entry_mut(at).role = Some(*role);
        }
        state
    }

    fn entry(&self, folder: usize) -> &FolderEntry {
        self.folders[folder].as_ref().expect("only numbers of existing folders are passed around")
    }

    fn entry_mut(&mut self, folder: usize) -> &mut FolderEntry {
        self.folders[folder].as_mut().expect("only numbers of existing folders are passed around")
    }

    fn add_folder(&mut self, parent: Option<usize>, name: &str) -> usize {
        self.folders.push(Some(FolderEntry {
            parent,
            name: name.to_owned(),
            role: None,
            access: Access::ReadWrite,
            hidden: false,
            search: false,
            selectable: true,
            items: BTreeSet::new(),
        }));
        self.folders.len() - 1
    }

    fn numbered(&self) -> impl Iterator<Item = (usize, &FolderEntry)> + Clone {
        self.folders.iter().enumerate().filter_map(|(n, entry)| entry.as_ref().map(|entry| (n, entry)))
    }

    fn segments(&self, folder: usize) -> Vec<String> {
        let entry = self.entry(folder);
        let mut segments = entry.parent.map(|parent| self.segments(parent)).unwrap_or_default();
        segments.push(entry.name.clone());
        segments
    }

    pub(super) fn has_folder(&self, folder: usize) -> bool {
        self.folders.get(folder).is_some_and(Option::is_some)
    }

    pub(super) fn path(&self, folder: usize) -> String {
        Folder::new(FolderId::new(""), self.segments(folder)).path()
    }

    /// All folders; their numbers become ids by `id`. Counting the unread ones reads every message.
    pub(super) fn folders(&self, id: impl Fn(usize) -> FolderId, count: bool) -> Vec<Folder> {
        self.numbered()
            .map(|(n, entry)| {
                let mut folder = Folder::new(id(n), self.segments(n)).with_role(entry.role);
                folder.hidden = entry.hidden;
                folder.search = entry.search;
                folder.selectable = entry.selectable;
                if count {
                    let here = || self.listed(n).map(|(_, item)| item);
                    folder.messages = Some(here().count() as u64);
                    folder.unread = Some(here().filter(|item| !item.read).count() as u64);
                }
                folder
            })
            .collect()
    }

    /// The folder that a spec means, ids being plain numbers.
    pub(super) fn find_folder(&self, spec: &FolderSpec) -> Result<usize> {
        let folders = self.folders(|n| FolderId::new(n.to_string()), false);
        let found = folder::resolve(&folders, spec)?;
        Ok(found.id.as_str().parse().expect("a number, by the line above"))
    }

    pub(super) fn create_folder(&mut self, spec: &FolderSpec) -> Result<usize> {
        let segments = match spec {
            FolderSpec::Path(segments) => segments,
            FolderSpec::Role(role) => {
                if let Some((n, _)) = self.numbered().find(|(_, entry)| entry.role == Some(*role)) {
                    return Ok(n);
                }
                let name = ENGLISH.iter().find(|(_, r)| r == role).map_or(role.as_str(), |(name, _)| name);
                let n = self.add_folder(None, name);
                self.entry_mut(n).role = Some(*role);
                return Ok(n);
            }
            FolderSpec::Id(_) => return self.find_folder(spec),
        };
        let mut parent = None;
        for name in segments {
            let inbox = self.numbered().find(|(_, entry)| entry.role == Some(Role::Inbox) && entry.parent.is_none());
            let found = match (parent, inbox) {
                (None, Some((inbox, _))) if is_inbox(name) => Some(inbox),
                _ => {
                    let here: Vec<_> = self.numbered().filter(|(_, entry)| entry.parent == parent).collect();
                    pick_name(here.iter().map(|(_, entry)| entry.name.as_str()), name)?.map(|at| here[at].0)
                }
            };
            parent = Some(found.unwrap_or_else(|| self.add_folder(parent, name)));
        }
        Ok(parent.expect("a path has at least one name"))
    }

    /// Deletes a folder with all that is in it and below it.
    pub(super) fn delete_folder(&mut self, folder: usize) {
        let below: Vec<_> = self.numbered().filter(|(_, entry)| entry.parent == Some(folder)).map(|(n, _)| n).collect();
        for child in below {
            self.delete_folder(child);
        }
        if let Some(entry) = self.folders[folder].take() {
            for (_, item) in entry.items {
                self.items[item as usize] = None;
            }
        }
    }

    pub(super) fn rename_folder(&mut self, folder: usize, name: &str) {
        name.clone_into(&mut self.entry_mut(folder).name);
    }

    pub(super) fn access(&self, folder: usize) -> Access {
        let entry = self.entry(folder);
        if entry.search || !entry.selectable { Access::ReadOnly } else { entry.access }
    }

    pub(super) fn set_access(&mut self, folder: usize, access: Access) {
        self.entry_mut(folder).access = access;
    }

    pub(super) fn set_flags(&mut self, folder: usize, hidden: bool, search: bool, selectable: bool) {
        let entry = self.entry_mut(folder);
        (entry.hidden, entry.search, entry.selectable) = (hidden, search, selectable);
    }

    /// Why messages cannot be moved out of, or into, a folder.
    pub(super) fn writable(&self, folder: usize) -> Result<()> {
        let entry = self.entry(folder);
        let path = self.path(folder);
        if entry.search {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("`{path}` is a search folder: messages cannot be moved to it; name the folder they live in"),
            ));
        }
        if !entry.selectable {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("`{path}` is only there for the folders below it and cannot hold messages"),
            ));
        }
        if entry.access == Access::ReadOnly {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!("the folder `{path}` is read-only; ask its owner for the right to move messages"),
            ));
        }
        Ok(())
    }

    /// What a listing shows, in its order: not what is marked as deleted.
    pub(super) fn listed(&self, folder: usize) -> impl Iterator<Item = (u64, &Item)> {
        self.stored(folder).filter(|(_, item)| item.copied_to.is_none())
    }

    /// All that is in a folder, in the order of a listing.
    pub(super) fn stored(&self, folder: usize) -> impl Iterator<Item = (u64, &Item)> {
        self.entry(folder).items.iter().filter_map(|(_, n)| self.item(*n).map(|item| (*n, item)))
    }

    pub(super) fn item(&self, number: u64) -> Option<&Item> {
        self.items.get(usize::try_from(number).ok()?)?.as_ref()
    }

    pub(super) fn item_mut(&mut self, number: u64) -> Option<&mut Item> {
        self.items.get_mut(usize::try_from(number).ok()?)?.as_mut()
    }

    pub(super) fn reserve(&mut self, items: usize) {
        self.items.reserve_exact(items);
    }

    pub(super) fn add(&mut self, folder: usize, body: Body, received: Timestamp) -> u64 {
        let number = self.items.len() as u64;
        self.locations += 1;
        self.items.push(Some(Item {
            body,
            received,
            folder,
            location: self.locations,
            read: false,
            unreadable: false,
            copied_to: None,
        }));
        self.entry_mut(folder).items.insert((received, number));
        number
    }

    pub(super) fn delete(&mut self, number: u64) -> bool {
        let Some(slot) = self.items.get_mut(usize::try_from(number).unwrap_or(usize::MAX)) else { return false };
        let Some(item) = slot.take() else { return false };
        self.entry_mut(item.folder).items.remove(&(item.received, number));
        true
    }

    /// Puts a message into another folder. Into its own: nothing happens.
    pub(super) fn relocate(&mut self, number: u64, to: usize) -> bool {
        let location = self.locations + 1;
        let Some(item) = self.item_mut(number) else { return false };
        let (from, received) = (item.folder, item.received);
        if from == to {
            return true;
        }
        item.folder = to;
        item.location = location;
        self.locations = location;
        self.entry_mut(from).items.remove(&(received, number));
        self.entry_mut(to).items.insert((received, number));
        true
    }

    /// Copies a message into another folder and marks the original as deleted; gives the copy. Done before: gives the
    /// same copy, `None` once that is gone.
    pub(super) fn copy_and_mark(&mut self, number: u64, to: usize) -> Option<u64> {
        let item = self.item(number)?.clone();
        if item.folder == to {
            return Some(number);
        }
        if let Some(copy) = item.copied_to {
            return self.item(copy).filter(|copy| copy.folder == to).map(|_| copy);
        }
        let copy = self.add(to, item.body, item.received);
        let made = self.item_mut(copy)?;
        (made.read, made.unreadable) = (item.read, item.unreadable);
        self.item_mut(number)?.copied_to = Some(copy);
        Some(copy)
    }
}
