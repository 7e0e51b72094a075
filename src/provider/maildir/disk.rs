//! The mailbox's directory: one function per thing that is looked up in, or put into, it. All of them block.

use std::{
    fs::{self, Metadata},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    NAME,
    index::{Index, MailFile, Sub},
    layout::Place,
    name::{self, Handle, UniqueNames},
    sys::{self, Inode},
};
use crate::{Access, Context, Error, ErrorKind, MessageId, Result};

/// How often something is tried again that another program's renaming has spoiled.
pub(super) const ATTEMPTS: usize = 16;

/// What is known of a folder's files. Locked while they are looked at, so that the folder is read once for all who ask.
type Slot = Arc<Mutex<Option<Index>>>;

/// A mailbox on disk.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) root: PathBuf,
    account: String,
    context: Context,
    pub(super) names: UniqueNames,
    /// Of the folders used last.
    indexes: Mutex<Vec<(Place, Slot)>>,
    /// Whether to rename by linking and removing, because the file system has no rename that spares existing files.
    pub(super) links: AtomicBool,
}

/// A message file, found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: MailFile,
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
}

/// Where a message is.
pub(super) enum Located {
    Found(Box<Found>),
    /// Not in its folder, at this time.
    Absent(Instant),
}

/// What an index tells about a handle.
enum Pick {
    Found(Box<Found>),
    /// There was such a file, and it is no longer called so.
    Renamed,
    None,
}

impl Found {
    pub(super) fn inode(&self) -> Inode {
        sys::inode(&self.metadata)
    }
}

impl Disk {
    /// How many folders are remembered: where mail comes from, where it goes, and a few more.
    const INDEXES: usize = 8;

    pub(super) fn new(root: PathBuf, account: String, context: Context) -> Self {
        let (names, indexes) = (UniqueNames::new(), Mutex::default());
        Self { root, account, context, names, indexes, links: false.into() }
    }

    pub(super) fn error(&self, kind: ErrorKind, message: String) -> Error {
        Error::new(kind, message).with_provider(NAME).with_account(&self.account)
    }

    /// The error, said to be this account's.
    pub(super) fn here(&self, error: Error) -> Error {
        error.with_provider(NAME).with_account(&self.account)
    }

    /// The same error once more, for another message.
    pub(super) fn repeat(&self, error: &Error) -> Error {
        let source = std::error::Error::source(error).map_or_else(String::new, |source| format!(": {source}"));
        self.error(error.kind(), format!("{}{source}", error.message()))
    }

    /// The error for a file or directory that cannot be used.
    pub(super) fn failed(&self, what: &str, path: &Path, error: io::Error) -> Error {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
            io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => ErrorKind::InvalidConfig,
            _ => ErrorKind::Storage,
        };
        let remedy = match kind {
            ErrorKind::PermissionDenied => "; give the user that runs this program access to the mailbox",
            _ => "",
        };
        self.error(kind, format!("cannot {what} `{}`{remedy}", path.display())).with_source(error)
    }

    /// The error for a mailbox that is not there.
    pub(super) fn no_mailbox(&self) -> Error {
        let path = self.root.display();
        let what = match fs::metadata(&self.root) {
            Ok(metadata) if !metadata.is_dir() => format!("`{path}` is a file and not a Maildir"),
            Ok(_) => format!("`{path}` is not a Maildir: it has no directories `cur` and `new`"),
            Err(_) => format!("there is no Maildir at `{path}`"),
        };
        self.error(
            ErrorKind::NotFound,
            format!("{what}; correct `path`, or make one with `mkdir -p {path}/{{cur,new,tmp}}`"),
        )
    }

    pub(super) fn no_folder(&self, place: &Place) -> Error {
        if !self.exists(&Place::inbox()).unwrap_or(true) {
            return self.no_mailbox();
        }
        let (id, path) = (place.id(), place.path(&self.root));
        self.error(
            ErrorKind::NotFound,
            format!("there is no folder `id:{id}`: `{}` has no `cur` and `new`", path.display()),
        )
    }

    pub(super) fn now(&self) -> Timestamp {
        self.context.now()
    }

    /// Whether a folder is there.
    pub(super) fn exists(&self, place: &Place) -> Result<bool> {
        let path = place.path(&self.root);
        for sub in ["cur", "new"] {
            match fs::metadata(path.join(sub)) {
                Ok(metadata) if metadata.is_dir() => return Ok(true),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(e) => return Err(self.failed("look into", &path, e)),
            }
        }
        Ok(false)
    }

    pub(super) fn access(&self, place: &Place) -> Result<Access> {
        if !self.exists(place)? {
            return Err(self.no_folder(place));
        }
        let path = place.path(&self.root);
        let mut all = Access::ReadWrite;
        for sub in ["cur", "new"] {
            let access = match sys::access(&path.join(sub)) {
                // It is made when it is needed, which takes the right to write here.
                Err(e) if e.kind() == io::ErrorKind::NotFound => sys::access(&path),
                other => other,
            };
            match access.map_err(|e| self.failed("look into", &path, e))? {
                Access::ReadWrite => {}
                Access::ReadOnly => return Ok(Access::ReadOnly),
                Access::Unknown => all = Access::Unknown,
            }
        }
        Ok(all)
    }

    /// What is known of a folder's files.
    fn slot(&self, place: &Place) -> Slot {
        let mut indexes = lock(&self.indexes);
        let slot = match indexes.iter().position(|(known, _)| known == place) {
            Some(at) => indexes.remove(at),
            None => (place.clone(), Arc::default()),
        };
        let used = Arc::clone(&slot.1);
        indexes.push(slot);
        if indexes.len() > Self::INDEXES {
            indexes.remove(0);
        }
        used
    }

    /// Reads a folder's file names anew, and gives what `use_it` makes of them.
    pub(super) fn read_folder<T>(&self, place: &Place, use_it: impl FnOnce(&Index) -> T) -> Result<T> {
        let slot = self.slot(place);
        let mut slot = lock(&slot);
        Ok(use_it(slot.insert(self.read_index(place)?)))
    }

    fn read_index(&self, place: &Place) -> Result<Index> {
        let path = place.path(&self.root);
        Index::read(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => self.no_folder(place),
            _ => self.failed("list the messages in", &path, e),
        })
    }

    /// The file that a handle means now. Absent only if a reading of the folder that began after `asked` did not show
    /// it.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read, and [`ErrorKind::Conflict`] when the handle fits several different messages.
    pub(super) fn locate(&self, handle: &Handle, asked: Instant) -> Result<Located> {
        let slot = self.slot(&handle.place);
        let mut slot = lock(&slot);
        for _ in 0..ATTEMPTS {
            if let Some(index) = &*slot {
                match self.pick(index, handle)? {
                    Pick::Found(found) => return Ok(Located::Found(found)),
                    Pick::None if index.since >= asked => return Ok(Located::Absent(index.until)),
                    Pick::None | Pick::Renamed => {}
                }
            }
            if !self.exists(&handle.place)? {
                *slot = None;
                // A folder that was removed took its messages with it; a mailbox that is not there tells nothing.
                return if self.exists(&Place::inbox())? {
                    Ok(Located::Absent(Instant::now()))
                } else {
                    Err(self.no_mailbox())
                };
            }
            *slot = Some(self.read_index(&handle.place)?);
        }
        Err(self.too_busy(handle))
    }

    /// The error for a message that other programs do not leave alone for long enough.
    pub(super) fn too_busy(&self, handle: &Handle) -> Error {
        self.error(
            ErrorKind::Conflict,
            format!("the message `{}` is being renamed faster than it can be used; try again", handle.id()),
        )
    }

    /// The file of an index that a handle means, if it still has the name it had.
    fn pick(&self, index: &Index, handle: &Handle) -> Result<Pick> {
        let folder = handle.place.path(&self.root);
        let mut pick = Pick::None;
        for file in index.with_key(&handle.key) {
            let path = file.path(&folder);
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    if !matches!(pick, Pick::Found(_)) {
                        pick = Pick::Renamed;
                    }
                    continue;
                }
                Err(e) => return Err(self.failed("look at", &path, e)),
            };
            let found = Found { file: file.clone(), path, metadata };
            if handle.number.is_some_and(|number| number != found.inode().1)
                || handle.written.is_some_and(|written| written != sys::modified(&found.metadata).0)
            {
                continue;
            }
            match &pick {
                Pick::Found(other) if other.inode() != found.inode() => {
                    return Err(self.error(
                        ErrorKind::Conflict,
                        format!(
                            "`{}` and `{}` are different messages under one name; list the folder again",
                            other.path.display(),
                            found.path.display()
                        ),
                    ));
                }
                Pick::Found(_) => {}
                _ => pick = Pick::Found(Box::new(found)),
            }
        }
        Ok(pick)
    }

    /// The handle of a file in a folder; `shared` when a different file there has the same key.
    pub(super) fn handle(place: &Place, file: &MailFile, metadata: Option<&Metadata>, shared: bool) -> Handle {
        let key: Box<[u8]> = file.key().into();
        let written = metadata.filter(|_| name::seconds(&key).is_none()).map(|m| sys::modified(m).0);
        let number = metadata.filter(|_| shared).map(|m| sys::inode(m).1);
        Handle { place: place.clone(), key, written, number }
    }

    /// When a message arrived, where its name tells: not if that would be a day or more from now.
    pub(super) fn time_in_name(&self, key: &[u8]) -> Option<i64> {
        const DAY: i64 = 24 * 60 * 60;
        name::seconds(key).filter(|seconds| *seconds <= self.now().as_second() + DAY)
    }

    /// When a message arrived: what its name says, else when its file was written.
    pub(super) fn received(&self, key: &[u8], metadata: Option<&Metadata>) -> Timestamp {
        self.time_in_name(key)
            .or_else(|| metadata.map(|m| sys::modified(m).0))
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .unwrap_or_else(|| self.now())
    }

    /// Notes a change that was made here, so that the folder need not be read again.
    pub(super) fn note(&self, place: &Place, removed: Option<&MailFile>, added: Option<MailFile>) {
        if let Some(index) = &mut *lock(&self.slot(place)) {
            if let Some(file) = removed {
                index.remove(file);
            }
            if let Some(file) = added {
                index.add(file);
            }
        }
    }

    /// Forgets what is known of a folder, unless nothing has changed there.
    pub(super) fn freshen(&self, place: &Place) {
        let slot = self.slot(place);
        let mut slot = lock(&slot);
        if !slot.as_ref().is_some_and(|index| index.is_current(&place.path(&self.root))) {
            *slot = None;
        }
    }

    pub(super) fn forget(&self, place: &Place) {
        *lock(&self.slot(place)) = None;
    }

    /// Takes a folder for unchanged, after changes that were noted.
    pub(super) fn restamp(&self, place: &Place) {
        if let Some(index) = &mut *lock(&self.slot(place)) {
            index.stamp(&place.path(&self.root));
        }
    }

    /// The files in a folder with this key, as far as known: a folder that is not known yet is read.
    pub(super) fn with_key(&self, place: &Place, key: &[u8]) -> Result<Vec<Found>> {
        let slot = self.slot(place);
        let mut slot = lock(&slot);
        let folder = place.path(&self.root);
        let mut all = Vec::new();
        for _ in 0..ATTEMPTS {
            let index = match &mut *slot {
                Some(index) => index,
                none => none.insert(self.read_index(place)?),
            };
            all.clear();
            let mut renamed = false;
            for file in index.with_key(key) {
                let path = file.path(&folder);
                match fs::symlink_metadata(&path) {
                    Ok(metadata) => all.push(Found { file: file.clone(), path, metadata }),
                    Err(_) => renamed = true,
                }
            }
            if !renamed {
                break;
            }
            *slot = None;
        }
        Ok(all)
    }

    /// Makes those of a folder's three directories that are missing.
    pub(super) fn complete(&self, place: &Place) -> Result<()> {
        let path = place.path(&self.root);
        let like = fs::metadata(&self.root).ok();
        let mut made = false;
        for sub in ["tmp", "new", "cur"] {
            let sub = path.join(sub);
            match sys::create_directory(&sub, like.as_ref()) {
                Ok(()) => made = true,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                // Where it is there already, it need not be possible to make it.
                Err(_) if sub.is_dir() => {}
                Err(e) => return Err(self.failed("make the directory", &sub, e)),
            }
        }
        if made {
            self.sync(&path)?;
        }
        Ok(())
    }

    pub(super) fn sync(&self, directory: &Path) -> Result<()> {
        sys::sync_directory(directory).map_err(|e| self.failed("sync", directory, e))
    }

    /// Puts a message into a folder, durably.
    pub(super) fn deliver(&self, place: &Place, message: &[u8], received: Option<Timestamp>) -> Result<MessageId> {
        if !self.exists(place)? {
            return Err(self.no_folder(place));
        }
        self.complete(place)?;
        let folder = place.path(&self.root);
        for _ in 0..ATTEMPTS {
            let base = self.names.next(received.unwrap_or_else(|| self.now()), message.len() as u64);
            let temporary = folder.join("tmp").join(sys::os_name(&base));
            let file = MailFile::new(base, Sub::New);
            let path = file.path(&folder);
            match write(&temporary, message, received) {
                Ok(()) => {}
                // Not ours.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => {
                    _ = fs::remove_file(&temporary);
                    return Err(self.failed("deliver to", &folder, e));
                }
            }
            if let Err(e) = self.rename_new(&temporary, &path) {
                _ = fs::remove_file(&temporary);
                if e.kind() == io::ErrorKind::AlreadyExists {
                    continue;
                }
                return Err(self.failed("deliver to", &folder, e));
            }
            self.sync(&folder.join("new"))?;
            self.note(place, None, Some(file.clone()));
            return Ok(Self::handle(place, &file, None, false).id());
        }
        Err(self.error(ErrorKind::Conflict, format!("cannot find a free name in `{}`; try again", folder.display())))
    }

    /// Moves a file, and never replaces another: `AlreadyExists`. `NotFound` when somebody has renamed it first; it may
    /// then have both names.
    pub(super) fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.rename_at_once(from, to) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {}
            other => return other,
        }
        match fs::hard_link(from, to) {
            Ok(()) => fs::remove_file(from),
            Err(e) => match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists | io::ErrorKind::CrossesDevices => Err(e),
                // No links either, as on FAT.
                _ => rename_unless_there(from, to),
            },
        }
    }

    fn rename_at_once(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.links.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let renamed = sys::rename_new(from, to);
        if renamed.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::Unsupported) {
            self.links.store(true, Ordering::Relaxed);
        }
        renamed
    }

    /// Marks a message as read or as unread.
    pub(super) fn mark(&self, handle: &Handle, read: bool) -> Result<()> {
        let (asked, folder) = (Instant::now(), handle.place.path(&self.root));
        for _ in 0..ATTEMPTS {
            let Located::Found(found) = self.locate(handle, asked)? else {
                return Err(self.no_message(handle));
            };
            if name::is_read(found.file.name()) == read {
                return Ok(());
            }
            let marked = MailFile::new(name::marked(found.file.name(), read), Sub::Cur);
            let path = marked.path(&folder);
            let renamed = match self.rename_at_once(&found.path, &path) {
                // No linking here: within a folder it would show the message twice.
                Err(e) if e.kind() == io::ErrorKind::Unsupported => rename_unless_there(&found.path, &path),
                other => other,
            };
            match renamed {
                Ok(()) => {
                    self.note(&handle.place, Some(&found.file), Some(marked));
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => self.complete(&handle.place)?,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => break,
                Err(e) => return Err(self.failed("rename", &found.path, e)),
            }
        }
        Err(self.error(ErrorKind::Conflict, format!("cannot rename the message `{}`; try again", handle.id())))
    }

    pub(super) fn no_message(&self, handle: &Handle) -> Error {
        self.error(
            ErrorKind::NotFound,
            format!(
                "there is no message `{}` in `{}` (any more)",
                handle.id(),
                handle.place.path(&self.root).display()
            ),
        )
    }

    pub(super) fn no_handle(&self, id: &MessageId) -> Error {
        self.error(ErrorKind::NotFound, format!("there is no message `{id}`: this is no handle of a Maildir"))
    }
}

/// What is left where a file system cannot do better. It does not exclude that someone makes a file of just this name
/// in between; names are unique, so nobody does.
fn rename_unless_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

/// Writes a file that was not there, durably.
fn write(path: &Path, content: &[u8], modified: Option<Timestamp>) -> io::Result<()> {
    let mut file = sys::create_file(path)?;
    file.write_all(content)?;
    if let Some(modified) = modified {
        let modified = Duration::from_secs(modified.as_second().max(0).cast_unsigned());
        file.set_modified(std::time::UNIX_EPOCH + modified)?;
    }
    file.sync_all()
}

/// A panic elsewhere leaves nothing half done that matters here: what is known is checked at each use.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
