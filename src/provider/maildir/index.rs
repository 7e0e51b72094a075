//! Which files a folder has, and which one is a message now: other programs rename them at any time.

use std::{
    borrow::Borrow,
    collections::HashSet,
    fs,
    hash::{Hash, Hasher},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    name,
    sys::{self, Inode},
};

/// The two directories of a folder that hold messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sub {
    /// Arrived, and nobody has looked yet.
    New,
    /// The rest.
    Cur,
}

impl Sub {
    /// In the order in which messages pass through them, so that one that goes on while both are read is seen twice
    /// rather than not at all.
    const BOTH: [Self; 2] = [Self::New, Self::Cur];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Cur => "cur",
        }
    }
}

/// A message file; equal to every other with the same key. Cheap to clone: a listing and an index share the name.
#[derive(Clone, Debug)]
pub(super) struct MailFile {
    name: Arc<[u8]>,
    key: u16,
    pub(super) sub: Sub,
}

impl MailFile {
    pub(super) fn new(name: impl Into<Arc<[u8]>>, sub: Sub) -> Self {
        let name = name.into();
        let key = u16::try_from(name::key(&name).len()).expect("file names are far shorter");
        Self { name, key, sub }
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.name[..usize::from(self.key)]
    }

    /// Where it is, in the folder with this directory.
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(self.sub.name()).join(sys::os_name(&self.name))
    }

    fn is(&self, other: &Self) -> bool {
        self.sub == other.sub && self.name == other.name
    }
}

impl PartialEq for MailFile {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for MailFile {}

impl Hash for MailFile {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Borrow<[u8]> for MailFile {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

/// The files of one folder at one time. About 130 bytes each.
#[derive(Debug)]
pub(super) struct Index {
    files: HashSet<MailFile>,
    /// Further files with a key that is taken: different messages under one name, which no well-behaved program makes.
    twins: Vec<MailFile>,
    stamp: Stamp,
    /// When the reading began and ended.
    pub(super) since: Instant,
    pub(super) until: Instant,
}

impl Index {
    /// How often a folder is read at most to get it all.
    const PASSES: usize = 8;
    /// How many times in a row a folder that changes must show nothing more.
    const SURE: usize = 2;

    /// Reads a folder's file names. The folder is not there when it has neither `new` nor `cur`: `NotFound`. One of
    /// the two may be missing, as after a copy by a program that leaves out empty directories.
    pub(super) fn read(folder: &Path) -> io::Result<Self> {
        let since = Instant::now();
        let mut index =
            Self { files: HashSet::new(), twins: Vec::new(), stamp: Stamp::of(folder)?, since, until: since };
        let mut sure = 0;
        for pass in 0..Self::PASSES {
            // A file that is renamed while its directory is read may be missed (POSIX leaves it open), so a folder
            // that changes is read until nothing more comes up.
            let before = Stamp::of(folder)?;
            let known = index.files.len();
            each(folder, |file| index.add(file))?;
            index.stamp = Stamp::of(folder)?;
            sure = if pass > 0 && index.files.len() == known { sure + 1 } else { 0 };
            if (index.stamp == before && before.is_settled()) || sure == Self::SURE {
                break;
            }
        }
        index.until = Instant::now();
        index.settle_twins(folder);
        Ok(index)
    }

    /// Whether the folder has not changed since, as far as the times of its directories tell.
    pub(super) fn is_current(&self, folder: &Path) -> bool {
        Stamp::of(folder).is_ok_and(|stamp| stamp == self.stamp)
    }

    /// Takes the folder as it is now for what has been read: after changes that were noted here one by one.
    pub(super) fn stamp(&mut self, folder: &Path) {
        if let Ok(stamp) = Stamp::of(folder) {
            self.stamp = stamp;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &MailFile> {
        self.files.iter().chain(&self.twins)
    }

    /// The files with this key; more than one only when different files share it.
    pub(super) fn with_key<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a MailFile> {
        self.files.get(key).into_iter().chain(self.twins.iter().filter(move |file| file.key() == key))
    }

    /// The keys that different files share.
    pub(super) fn shared_keys(&self) -> HashSet<&[u8]> {
        self.twins.iter().map(MailFile::key).collect()
    }

    /// Notes a file.
    pub(super) fn add(&mut self, file: MailFile) {
        match self.files.get(file.key()) {
            None => _ = self.files.insert(file),
            Some(known) if known.is(&file) || self.twins.iter().any(|twin| twin.is(&file)) => {}
            Some(_) => self.twins.push(file),
        }
    }

    /// Notes that a file of this name is no longer there.
    pub(super) fn remove(&mut self, file: &MailFile) {
        self.twins.retain(|twin| !twin.is(file));
        if self.files.get(file.key()).is_some_and(|known| known.is(file)) {
            self.files.remove(file.key());
            if let Some(at) = self.twins.iter().position(|twin| twin.key() == file.key()) {
                self.files.insert(self.twins.swap_remove(at));
            }
        }
    }

    /// Tells two files with one key from one file that was seen under two names, because it was renamed in between or
    /// because a program died between making the second name and removing the first.
    fn settle_twins(&mut self, folder: &Path) {
        let mut twins = std::mem::take(&mut self.twins);
        twins.sort_by(|a, b| a.key().cmp(b.key()));
        for twins in twins.chunk_by(|a, b| a.key() == b.key()) {
            let mut seen: Vec<Inode> = Vec::new();
            for file in self.files.take(twins[0].key()).iter().chain(twins) {
                let Ok(metadata) = fs::symlink_metadata(file.path(folder)) else { continue };
                let inode = sys::inode(&metadata);
                if seen.contains(&inode) {
                    continue;
                }
                match seen.is_empty() {
                    true => _ = self.files.insert(file.clone()),
                    false => self.twins.push(file.clone()),
                }
                seen.push(inode);
            }
            // It has a third name by now, and is not gone for that.
            if seen.is_empty() {
                self.files.extend(twins.last().cloned());
            }
        }
    }
}

/// Calls `found` for every message file of a folder.
pub(super) fn each(folder: &Path, mut found: impl FnMut(MailFile)) -> io::Result<()> {
    let mut missing = 0;
    for sub in Sub::BOTH {
        let entries = match fs::read_dir(folder.join(sub.name())) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound && missing == 0 => {
                missing += 1;
                continue;
            }
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            let name = sys::bytes(&entry.file_name());
            // Nothing that begins with a dot is a message (D. J. Bernstein, "Using maildir format"); on a server that
            // shares the folder, these are files that are still open somewhere.
            if name.starts_with(b".") || name::key(&name).is_empty() {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_file() || kind.is_symlink() => found(MailFile::new(name, sub)),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(_) => found(MailFile::new(name, sub)),
            }
        }
    }
    Ok(())
}

/// When the two directories last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp([Option<(i64, i64)>; 2]);

impl Stamp {
    /// Fails with `NotFound` when both directories are missing.
    fn of(folder: &Path) -> io::Result<Self> {
        let mut times = [None; 2];
        for (time, sub) in times.iter_mut().zip(Sub::BOTH) {
            match fs::metadata(folder.join(sub.name())) {
                Ok(metadata) => *time = Some(sys::modified(&metadata)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        if times == [None; 2] {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self(times))
    }

    /// Whether so much time has passed that another change would have another time: file systems keep time in ticks,
    /// the coarsest in steps of two seconds.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs().cast_signed());
        self.0.iter().flatten().all(|(seconds, _)| *seconds < now - 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for sub in ["new", "cur"] {
            fs::create_dir(temp.path().join(sub)).unwrap();
        }
        for file in files {
            fs::write(temp.path().join(file), file).unwrap();
        }
        temp
    }

    fn names(index: &Index) -> Vec<String> {
        let mut names: Vec<_> = index.iter().map(|f| String::from_utf8_lossy(f.name()).into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_messages_are_listed() {
        let temp = folder(&["new/a", "cur/b:2,S", "cur/.hidden", "cur/:2,S", "dovecot-uidlist"]);
        fs::create_dir(temp.path().join("cur/directory")).unwrap();
        assert_eq!(names(&Index::read(temp.path()).unwrap()), ["a", "b:2,S"]);
    }

    #[test]
    fn one_directory_may_be_missing_but_not_both() {
        let temp = folder(&["cur/b:2,S"]);
        fs::remove_dir(temp.path().join("new")).unwrap();
        assert_eq!(names(&Index::read(temp.path()).unwrap()).len(), 1);
        fs::remove_dir_all(temp.path().join("cur")).unwrap();
        assert_eq!(Index::read(temp.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn one_file_with_two_names_is_one_message_and_two_files_are_two() {
        let temp = folder(&["new/a", "cur/b:2,", "cur/b:2,S", "cur/b:2,FS"]);
        fs::hard_link(temp.path().join("new/a"), temp.path().join("cur/a:2,S")).unwrap();
        let index = Index::read(temp.path()).unwrap();
        assert_eq!(names(&index).len(), 4);
        assert_eq!(index.with_key(b"a").count(), 1);
        assert_eq!(index.with_key(b"b").count(), 3);
        assert_eq!(index.shared_keys().into_iter().collect::<Vec<_>>(), [b"b"]);
    }

    #[test]
    fn what_was_renamed_while_reading_is_one_message() {
        let temp = folder(&["cur/a:2,S"]);
        let mut index = Index::read(temp.path()).unwrap();
        index.add(MailFile::new(*b"a", Sub::New));
        index.add(MailFile::new(*b"gone", Sub::New));
        index.add(MailFile::new(*b"gone:2,", Sub::Cur));
        index.settle_twins(temp.path());
        assert_eq!(names(&index), ["a:2,S", "gone:2,"]);
    }

    #[test]
    fn removing_one_of_two_keeps_the_other() {
        let temp = folder(&["cur/b:2,", "cur/b:2,S"]);
        let mut index = Index::read(temp.path()).unwrap();
        index.remove(&MailFile::new(*b"b:2,", Sub::Cur));
        assert_eq!(names(&index), ["b:2,S"]);
        index.remove(&MailFile::new(*b"b:2,S", Sub::Cur));
        assert_eq!(index.with_key(b"b").count(), 0);
    }
}
