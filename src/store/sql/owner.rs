//! Who holds a lease on this machine, and whether that process still lives.
//!
//! Each opened store keeps a file locked in the folder `<database>-owners` for as long as it exists. The operating
//! system drops the lock when the process dies, however it dies, and keeps it while the process is merely paused. So
//! a lock that can be taken, or a file that is gone, means that the owner is dead.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::Context;

/// One opened store.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) id: String,
    pub(super) machine: Machine,
    /// `None` where there is no disk that all owners share: then a lease ends by its expiry alone.
    seat: Option<Seat>,
}

#[derive(Debug)]
struct Seat {
    folder: PathBuf,
    path: PathBuf,
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
    /// Without a lock.
    #[cfg(feature = "postgres")]
    pub(super) fn unseated() -> Self {
        Self { id: new_id(), machine: Machine::this(), seat: None }
    }

    /// Takes a seat beside this database, and clears away those of the dead.
    #[cfg(feature = "sqlite")]
    pub(super) fn beside(database: &Path) -> io::Result<Self> {
        let mut folder = database.as_os_str().to_owned();
        folder.push("-owners");
        let folder = PathBuf::from(folder);
        let (id, seat) = loop {
            if let Some(seat) = take_seat(&folder)? {
                break seat;
            }
        };
        sweep(&folder, &seat.path);
        Ok(Self { id, machine: Machine::this(), seat: Some(seat) })
    }

    /// Whether the owner with this id is known to be dead.
    pub(super) fn is_dead(&self, id: &str, machine: &Machine) -> bool {
        let Some(seat) = &self.seat else { return false };
        // The name comes out of a database: it must not lead out of the folder.
        let is_ours = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !is_ours || !self.machine.is_same(machine) {
            return false;
        }
        is_abandoned(&seat.folder.join(id))
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

/// `None` when somebody who was clearing away was faster.
#[cfg(feature = "sqlite")]
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
    Ok(Some((id, Seat { folder: folder.to_owned(), path, _file: file })))
}

#[cfg(feature = "sqlite")]
fn sweep(folder: &Path, mine: &Path) {
    // What cannot be read or removed now is left to the next one.
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path != mine) {
        if let Ok(file) = File::open(&path)
            && file.try_lock_shared().is_ok()
        {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Asks with a shared lock, so that two who ask at the same moment do not take each other for the owner.
fn is_abandoned(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => file.try_lock_shared().is_ok(),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
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
}
