//! The tree of folders, and making new ones.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use super::{disk::Disk, index::each, layout::Place, name, sys};
use crate::{
    ErrorKind, Folder, FolderSpec, Result, Role,
    folder::{self, is_inbox},
};

impl Disk {
    /// All folders, the inbox first, then by name.
    ///
    /// Only the inbox has a role: what a Maildir's other folders are for stands in the settings of its mail server,
    /// not in it.
    pub(super) fn tree(&self) -> Result<Vec<Folder>> {
        let inbox = Place::inbox();
        if !self.exists(&inbox)? {
            return Err(self.no_mailbox());
        }
        let failed = |e| self.failed("list the folders in", &self.root, e);
        let mut places = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let Some(place) = Place::of_directory(&sys::bytes(&entry.map_err(failed)?.file_name())) else { continue };
            // A folder that may not be looked into is one, too: using it will say so.
            if self.exists(&place).unwrap_or(true) {
                places.push((place, true));
            }
        }
        // Folders that are only there for those below them.
        let mut above = Vec::new();
        for (place, _) in &places {
            let mut next = place.parent();
            while let Some(parent) = next {
                next = parent.parent();
                if !parent.is_inbox() && !places.iter().chain(&above).any(|(known, _)| *known == parent) {
                    above.push((parent, false));
                }
            }
        }
        places.append(&mut above);
        let mut folders: Vec<_> = places
            .into_iter()
            .map(|(place, selectable)| {
                let mut folder = Folder::new(place.id(), place.segments());
                folder.selectable = selectable;
                folder
            })
            .collect();
        folders.sort_by(|a, b| (&a.segments, a.id.as_str()).cmp(&(&b.segments, b.id.as_str())));
        folders.insert(0, Folder::new(inbox.id(), inbox.segments()).with_role(Some(Role::Inbox)));
        Ok(folders)
    }

    /// All folders with what they hold, which takes reading all file names.
    pub(super) fn counted_tree(&self) -> Result<Vec<Folder>> {
        let mut folders = self.tree()?;
        for folder in folders.iter_mut().filter(|folder| folder.selectable) {
            let Some(place) = Place::parse(folder.id.as_str()) else { continue };
            let (mut messages, mut unread) = (0, 0);
            let counted = each(&place.path(&self.root), |file| {
                messages += 1;
                unread += u64::from(!name::is_read(file.name()));
            });
            if counted.is_ok() {
                (folder.messages, folder.unread) = (Some(messages), Some(unread));
            }
        }
        Ok(folders)
    }

    pub(super) fn resolve(&self, spec: &FolderSpec) -> Result<Folder> {
        let folders = self.tree()?;
        let folder = folder::resolve(&folders, spec).map_err(|e| self.here(e))?;
        if !folder.selectable {
            return Err(self.error(
                ErrorKind::NotFound,
                format!("`{spec}` holds no messages: it is only there for the folders below it; create it, or name one of those"),
            ));
        }
        Ok(folder.clone())
    }

    /// Makes a folder and what is missing above it.
    pub(super) fn create(&self, spec: &FolderSpec) -> Result<Folder> {
        let folders = self.tree()?;
        let FolderSpec::Path(segments) = spec else {
            return self.resolve(spec);
        };
        let mut parent: Option<Place> = None;
        for depth in 1..=segments.len() {
            let level = FolderSpec::Path(segments[..depth].to_vec());
            let existing = match folder::resolve(&folders, &level) {
                Ok(folder) => Place::parse(folder.id.as_str()),
                Err(e) if e.kind() == ErrorKind::NotFound => None,
                Err(e) => return Err(self.here(e)),
            };
            let place = match existing {
                Some(place) => place,
                None if depth == 1 && is_inbox(&segments[0]) => Place::inbox(),
                None => Place::child(parent.as_ref(), &segments[depth - 1]).map_err(|e| self.here(e))?,
            };
            if !place.is_inbox() {
                self.make(&place)?;
            }
            parent = Some(place);
        }
        let place = parent.ok_or_else(|| self.here(folder::not_found(spec, &folders)))?;
        let mut folder = Folder::new(place.id(), place.segments());
        folder.role = place.is_inbox().then_some(Role::Inbox);
        Ok(folder)
    }

    /// Makes what is missing of one folder.
    fn make(&self, place: &Place) -> Result<()> {
        if self.exists(place)? {
            return Ok(());
        }
        let path = place.path(&self.root);
        let failed = |e| self.failed("make the folder", &path, e);
        match sys::create_directory(&path, fs::metadata(&self.root).ok().as_ref()) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(e) => return Err(failed(e)),
        }
        // Tells delivery programs that this is part of a mailbox (Maildir++).
        match sys::create_file(&path.join("maildirfolder")) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(e)),
        }
        self.complete(place)?;
        self.sync(&self.root)?;
        if let Err(error) = subscribe(&self.root, place) {
            tracing::warn!(%error, folder = %place.id(), "cannot subscribe to the folder; mail programs may not show it");
        }
        Ok(())
    }

    /// Makes the mailbox itself.
    pub(super) fn make_mailbox(&self) -> Result<()> {
        if let Some(above) = self.root.parent() {
            fs::create_dir_all(above).map_err(|e| self.failed("make the directory", above, e))?;
        }
        match sys::create_directory(&self.root, None) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && self.root.is_dir() => {}
            Err(e) => return Err(self.failed("make the mailbox", &self.root, e)),
        }
        self.complete(&Place::inbox())
    }
}

/// Adds a folder to the list of those that mail programs show. Dovecot's newer form begins with `V\t2` and puts tabs
/// between names; the older one is the directory's name without its dot.
fn subscribe(root: &Path, place: &Place) -> io::Result<()> {
    const NEWER: &[u8] = b"V\t2\n\n";
    let path = root.join("subscriptions");
    let present = match fs::read(&path) {
        Ok(present) => present,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e),
    };
    let mut line = place.raw()[1..].to_vec();
    let mut addition = Vec::new();
    if present.is_empty() || present.starts_with(b"V\t2\n") {
        line.iter_mut().filter(|byte| **byte == b'.').for_each(|byte| *byte = b'\t');
        if present.is_empty() {
            addition.extend(NEWER);
        }
    }
    if present.split(|byte| *byte == b'\n').any(|known| known == line) {
        return Ok(());
    }
    if present.last().is_some_and(|last| *last != b'\n') {
        addition.push(b'\n');
    }
    addition.extend(line);
    addition.push(b'\n');
    // One write, so that it does not mix with another program's.
    let mut file = File::options().append(true).create(true).open(&path)?;
    file.write_all(&addition)?;
    file.sync_all()
}
