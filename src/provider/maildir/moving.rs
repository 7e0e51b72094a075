//! Moving messages to another folder of the mailbox.
//!
//! A move is one rename, so that a crash leaves the message in one folder or the other. Where the file system has no
//! rename that spares existing files it is a link and a removal, and across file systems a copy and a removal; a crash
//! in between leaves the message in both folders, and the next move of it finds the twin and finishes.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufRead as _},
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Instant,
};

use super::{
    disk::{ATTEMPTS, Disk, Found, Located},
    index::{MailFile, Sub},
    layout::Place,
    name::{self, Handle},
    sys,
};
use crate::{MessageId, MoveOutcome, Result};

impl Disk {
    /// Moves messages; the answer has the same length and order.
    pub(super) fn move_all(&self, messages: &[MessageId], to: &Place) -> Vec<Result<MoveOutcome>> {
        let ready = || {
            if self.exists(to)? { self.complete(to) } else { Err(self.no_folder(to)) }
        };
        if let Err(error) = ready() {
            return messages.iter().map(|_| Err(self.repeat(&error))).collect();
        }
        self.freshen(to);
        let asked = Instant::now();
        let mut changed = BTreeSet::new();
        let mut outcomes: Vec<_> = messages
            .iter()
            .map(|id| match Handle::parse(id) {
                Some(handle) => self.move_one(&handle, to, asked, &mut changed),
                None => Ok(MoveOutcome::Gone),
            })
            .collect();
        self.restamp(to);
        // A move that is told must survive a power cut: the caller writes it down. The target first, so that the
        // message is in both folders rather than in none.
        let mut synced = self.sync(&to.path(&self.root).join("cur"));
        for directory in changed {
            synced = synced.and_then(|()| self.sync(&directory));
        }
        if let Err(error) = synced {
            for outcome in &mut outcomes {
                if matches!(outcome, Ok(MoveOutcome::Moved(_))) {
                    *outcome = Err(self.repeat(&error));
                }
            }
        }
        outcomes
    }

    fn move_one(
        &self,
        handle: &Handle,
        to: &Place,
        asked: Instant,
        changed: &mut BTreeSet<PathBuf>,
    ) -> Result<MoveOutcome> {
        for _ in 0..ATTEMPTS {
            let found = match self.locate(handle, asked)? {
                Located::Found(found) => found,
                Located::Absent(at) => return self.already_moved(handle, to, at),
            };
            if handle.place == *to {
                return Ok(MoveOutcome::Moved(handle.id()));
            }
            let sub = handle.place.path(&self.root).join(found.file.sub.name());
            let (file, by) = match self.twin(&found, to)? {
                Twin::Same(twin) => (twin, fs::remove_file(&found.path)),
                Twin::Other => {
                    let received = self.received(found.file.key(), Some(&found.metadata));
                    let size = fs::metadata(&found.path).map_or(0, |m| m.len());
                    let key = self.names.next(received, size);
                    self.put(&found, &key, to)
                }
                Twin::None => self.put(&found, found.file.key(), to),
            };
            match by {
                Ok(()) => {
                    changed.insert(sub);
                    self.note(&handle.place, Some(&found.file), None);
                    let path = file.path(&to.path(&self.root));
                    let metadata = fs::symlink_metadata(path).ok().unwrap_or(found.metadata);
                    let id = Self::handle(to, &file, Some(&metadata), false).id();
                    self.note(to, None, Some(file));
                    return Ok(MoveOutcome::Moved(id));
                }
                // Somebody has changed its flags, or the target is incomplete.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.complete(to)?;
                    // It may be there already, when the flags changed between linking and removing.
                    if self.links.load(Ordering::Relaxed) {
                        self.forget(to);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.forget(to),
                Err(e) => return Err(self.failed("move", &found.path, e)),
            }
        }
        Err(self.too_busy(handle))
    }

    /// The outcome for a message that is not in its folder, at least since `absent`.
    fn already_moved(&self, handle: &Handle, to: &Place, absent: Instant) -> Result<MoveOutcome> {
        let there = Handle { place: to.clone(), ..handle.clone() };
        Ok(match self.locate(&there, absent)? {
            Located::Found(found) => {
                MoveOutcome::Moved(Self::handle(to, &found.file, Some(&found.metadata), false).id())
            }
            Located::Absent(_) => MoveOutcome::Gone,
        })
    }

    fn twin(&self, found: &Found, to: &Place) -> Result<Twin> {
        let mut twin = Twin::None;
        for other in self.with_key(to, found.file.key())? {
            if other.inode() == found.inode() && cfg!(unix) || same_content(&other.path, &found.path) {
                return Ok(Twin::Same(other.file));
            }
            twin = Twin::Other;
        }
        Ok(twin)
    }

    /// Puts a file into `cur` of the target under this key.
    ///
    /// Dovecot puts what nobody has looked at into `new`, where mail programs take it for mail that has just arrived.
    /// This has been looked at, by the program that moves it, so it goes to `cur`: still unread, and no longer news.
    fn put(&self, found: &Found, key: &[u8], to: &Place) -> (MailFile, io::Result<()>) {
        let file = MailFile::new(name::elsewhere(key, found.file.name()), Sub::Cur);
        let folder = to.path(&self.root);
        let path = file.path(&folder);
        let put = match self.rename_new(&found.path, &path) {
            Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
                let temporary = folder.join("tmp").join(sys::os_name(&self.names.next(self.now(), 0)));
                let copied = copy(&found.path, &temporary).and_then(|()| self.rename_new(&temporary, &path));
                if copied.is_err() {
                    _ = fs::remove_file(&temporary);
                }
                copied
                    .and_then(|()| sys::sync_directory(&folder.join("cur")))
                    .and_then(|()| fs::remove_file(&found.path))
            }
            put => put,
        };
        (file, put)
    }
}

/// What the target has under a message's key.
enum Twin {
    None,
    /// This message: an earlier move did not get further.
    Same(MailFile),
    /// Another message.
    Other,
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = sys::create_file(to)?;
    io::copy(&mut source, &mut target)?;
    target.set_modified(source.metadata()?.modified()?)?;
    target.sync_all()
}

/// Whether two files hold the same bytes. What cannot be read is not the same.
fn same_content(one: &Path, other: &Path) -> bool {
    const CHUNK: usize = 64 * 1024;
    let same = || -> io::Result<bool> {
        let (one, other) = (File::open(one)?, File::open(other)?);
        if one.metadata()?.len() != other.metadata()?.len() {
            return Ok(false);
        }
        let (mut one, mut other) =
            (io::BufReader::with_capacity(CHUNK, one), io::BufReader::with_capacity(CHUNK, other));
        loop {
            let (a, b) = (one.fill_buf()?, other.fill_buf()?);
            let length = a.len().min(b.len());
            if a[..length] != b[..length] || (length == 0 && a.len() != b.len()) {
                return Ok(false);
            }
            if length == 0 {
                return Ok(true);
            }
            one.consume(length);
            other.consume(length);
        }
    };
    same().unwrap_or(false)
}
