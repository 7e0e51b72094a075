//! Who holds a lease on this machine, and whether that process still lives.
//!
//! Each opened store keeps a file locked for as long as it exists. The operating system drops the lock when the process
//! dies, however it dies, and keeps it while the process is merely paused. So a lock that can be taken means that the
//! owner is dead.
//!
//! For SQLite the file lies in the folder `<database>-owners`, which all who open the database share: there a file that
//! is gone means the same. For PostgreSQL it lies in a folder of this user on this machine. A file that is not there
//! tells nothing then: its owner may see another such folder, as in a container; its leases end by their expiry.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::Context;

/// One opened store.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) id: String,
    pub(super) machine: Machine,
    /// `None` where there is no folder for it: then a lease ends by its expiry alone.
    seat: Option<Seat>,
}

#[derive(Debug)]
struct Seat {
    folder: PathBuf,
    path: PathBuf,
    /// Whether all owners have their seats in this folder.
    is_shared_by_all: bool,
    /// Holds the lock.
    _file: File,
}

/// The computer, and which of its starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) host: String,
    pub(super) boot: String,
}

impl Machine {
    fn this() -> Self {
        let line = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        Self {
            host: line("/proc/sys/kernel/hostname").or_else(|| std::env::var("COMPUTERNAME").ok()).unwrap_or_default(),
            boot: line("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
        }
    }

    /// Whether a lock of that machine can be seen from here. Containers on one kernel share its start and not its
    /// name; a computer that was started anew keeps its name.
    fn is_same(&self, other: &Self) -> bool {
        (self.boot == other.boot && !self.boot.is_empty()) || self.host == other.host
    }
}

impl Owner {
    /// Takes a seat in this user's folder on this machine, if there can be one.
    #[cfg(feature = "postgres")]
    pub(super) fn on_this_machine() -> Self {
        let seated = user_folder().and_then(|folder| seated(&folder).ok().map(|seated| (folder, seated)));
        let Some((folder, (id, seat))) = seated else {
            return Self { id: new_id(), machine: Machine::this(), seat: None };
        };
        // Later than any lease of theirs has ended: until then their files tell that they are dead.
        sweep(&folder, &seat.path, Duration::from_secs(24 * 3600));
        Self { id, machine: Machine::this(), seat: Some(seat) }
    }

    /// Takes a seat beside this database, and clears away those of the dead.
    #[cfg(feature = "sqlite")]
    pub(super) fn beside(database: &Path) -> io::Result<Self> {
        let mut folder = database.as_os_str().to_owned();
        folder.push("-owners");
        let folder = PathBuf::from(folder);
        let (id, seat) = seated(&folder)?;
        sweep(&folder, &seat.path, Duration::ZERO);
        Ok(Self { id, machine: Machine::this(), seat: Some(Seat { is_shared_by_all: true, ..seat }) })
    }

    /// Whether the owner with this id is known to be dead.
    pub(super) fn is_dead(&self, id: &str, machine: &Machine) -> bool {
        let Some(seat) = &self.seat else { return false };
        // The name comes out of a database: it must not lead out of the folder.
        let is_ours = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !is_ours || !self.machine.is_same(machine) {
            return false;
        }
        is_abandoned(&seat.folder.join(id)).unwrap_or(seat.is_shared_by_all)
    }

    /// Gives the leases free that are still held: the file is gone, though its lock may be held a little longer by
    /// work that nobody waits for any more. That is refused then like any late write.
    pub(super) fn leave(&self) {
        let Some(seat) = &self.seat else { return };
        // What cannot be removed is cleared away by the next one who opens the database.
        let _ = fs::remove_file(&seat.path);
        let _ = fs::remove_dir(&seat.folder);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // While the lock is still held, so that nobody finds the file in between.
        self.leave();
    }
}

fn new_id() -> String {
    let random: String = Context::default().random::<8>().iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{random}", std::process::id())
}

/// A folder that only this user can write to, in memory where the system has such folders. Everybody who may write
/// there could make an owner seem dead.
#[cfg(all(feature = "postgres", unix))]
fn user_folder() -> Option<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    let user = rustix::process::geteuid().as_raw();
    let around = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let around = around.filter(|folder| folder.is_dir()).unwrap_or_else(std::env::temp_dir);
    let folder = around.join(format!("mail-account-owners-{user}"));
    // That it is there already is no error; what it is like is looked at.
    let _ = fs::DirBuilder::new().mode(0o700).create(&folder);
    let found = fs::symlink_metadata(&folder).ok()?;
    (found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0).then_some(folder)
}

#[cfg(all(feature = "postgres", not(unix)))]
fn user_folder() -> Option<PathBuf> {
    None
}

fn seated(folder: &Path) -> io::Result<(String, Seat)> {
    loop {
        if let Some(seat) = take_seat(folder)? {
            return Ok(seat);
        }
    }
}

/// `None` when somebody who was clearing away was faster.
fn take_seat(folder: &Path) -> io::Result<Option<(String, Seat)>> {
    match fs::create_dir(folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let id = new_id();
    let path = folder.join(&id);
    let file = match File::create_new(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && !folder.exists() => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        other => other?,
    };
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(e)) => return Err(e),
        Ok(()) => {}
    }
    // A file is only removed under its lock: one that is still there now stays.
    if !path.try_exists()? {
        return Ok(None);
    }
    Ok(Some((id, Seat { folder: folder.to_owned(), path, is_shared_by_all: false, _file: file })))
}

/// Clears away the dead of this age.
fn sweep(folder: &Path, mine: &Path, age: Duration) {
    // What cannot be read or removed now is left to the next one.
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path != mine) {
        let is_old = |file: &File| {
            let written = file.metadata().and_then(|found| found.modified()).ok();
            age.is_zero() || written.and_then(|time| time.elapsed().ok()).is_some_and(|old| old >= age)
        };
        if let Ok(file) = File::open(&path)
            && file.try_lock_shared().is_ok()
            && is_old(&file)
        {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Asks with a shared lock, so that two who ask at the same moment do not take each other for the owner. `None` when
/// there is no such file.
fn is_abandoned(path: &Path) -> Option<bool> {
    match File::open(path) {
        Ok(file) => Some(file.try_lock_shared().is_ok()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(false),
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_living_are_told_from_the_dead() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("ledger.db");
        let one = Owner::beside(&database).unwrap();
        let two = Owner::beside(&database).unwrap();
        let here = Machine::this();
        assert!(!one.is_dead(&two.id, &here) && !two.is_dead(&one.id, &here));
        assert!(!one.is_dead(&one.id, &here), "an owner is alive to itself");
        assert!(one.is_dead("1-00", &here), "its file is gone");

        // What a process that was killed leaves behind: its file, and no lock.
        let owners = folder.path().join("ledger.db-owners");
        fs::write(owners.join("2-00"), "").unwrap();
        assert!(one.is_dead("2-00", &here));
        let three = Owner::beside(&database).unwrap();
        let mut alive = vec![one.id.clone(), two.id.clone(), three.id.clone()];
        alive.sort();
        assert_eq!(names(&owners), alive, "the dead are cleared away, and nobody else");

        drop((two, three));
        assert_eq!(names(&owners), [one.id.as_str()]);
        drop(one);
        assert!(!owners.exists());
    }

    #[test]
    fn only_locks_that_can_be_seen_from_here_count() {
        let folder = tempfile::tempdir().unwrap();
        let owner = Owner::beside(&folder.path().join("ledger.db")).unwrap();
        let machine = |host: &str, boot: &str| Machine { host: host.to_owned(), boot: boot.to_owned() };
        let here = Machine::this();
        assert!(owner.is_dead("1-00", &machine("a-container", &here.boot)) || here.boot.is_empty());
        assert!(owner.is_dead("1-00", &machine(&here.host, "before the last start")));
        assert!(!owner.is_dead("1-00", &machine("another computer", "another start")));
        assert!(!owner.is_dead("1-00", &machine("another computer", "")));
        for foreign in ["", "..", "../../etc/none", "a/b", "a\0b"] {
            assert!(!owner.is_dead(foreign, &here), "{foreign:?} names no owner");
        }
    }

    #[cfg(all(unix, feature = "postgres"))]
    #[test]
    fn without_a_shared_folder_only_a_lock_that_is_free_tells_of_a_death() {
        let owner = Owner::on_this_machine();
        let here = Machine::this();
        let other = Owner::on_this_machine();
        assert!(!owner.is_dead(&other.id, &here), "it lives");
        assert!(!owner.is_dead("1-00", &here), "it may have its seat elsewhere");
        let left_behind = owner.seat.as_ref().unwrap().folder.join(new_id());
        fs::write(&left_behind, "").unwrap();
        let id = left_behind.file_name().unwrap().to_str().unwrap();
        assert!(owner.is_dead(id, &here));
        drop(Owner::on_this_machine());
        assert!(left_behind.exists(), "it tells of its death until no lease can be left");
        fs::remove_file(&left_behind).unwrap();
    }
}
