//! What the operating system is asked for beyond the standard library.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata},
    io,
    path::Path,
};

use crate::Access;

/// Which file it is, whatever it is called: device and number.
pub(super) type Inode = (u64, u64);

pub(super) use system::*;

#[cfg(unix)]
mod system {
    use std::os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    };

    use rustix::{
        fs::{AtFlags, CWD, accessat},
        io::Errno,
    };

    use super::{Access, File, Inode, Metadata, OsStr, OsString, Path, fs, io};

    pub(in super::super) fn bytes(name: &OsStr) -> Vec<u8> {
        name.as_bytes().to_vec()
    }

    pub(in super::super) fn os_name(name: &[u8]) -> OsString {
        OsString::from_vec(name.to_vec())
    }

    pub(in super::super) fn inode(of: &Metadata) -> Inode {
        (of.dev(), of.ino())
    }

    /// When the content last changed: seconds, and nanoseconds beyond them.
    pub(in super::super) fn modified(of: &Metadata) -> (i64, i64) {
        (of.mtime(), of.mtime_nsec())
    }

    /// Whether files can be made in, and taken out of, a directory. The system is asked with the rights that calls
    /// have, so that access lists, capabilities and read-only mounts count.
    pub(in super::super) fn access(directory: &Path) -> io::Result<Access> {
        use rustix::fs::Access as Wanted;
        match accessat(CWD, directory, Wanted::WRITE_OK | Wanted::EXEC_OK, AtFlags::EACCESS) {
            Ok(()) => Ok(Access::ReadWrite),
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Ok(Access::ReadOnly),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(io::ErrorKind::NotFound.into()),
            Err(_) => Ok(Access::Unknown),
        }
    }

    /// Renames, and fails with `AlreadyExists` rather than replace a file; with `Unsupported` where the system or the
    /// file system has no such call (NFS has none).
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    pub(in super::super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
        use rustix::fs::{RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(io::ErrorKind::Unsupported.into()),
            other => Ok(other?),
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    pub(in super::super) fn rename_new(_: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes the names in a directory durable.
    pub(in super::super) fn sync_directory(directory: &Path) -> io::Result<()> {
        match File::open(directory)?.sync_all() {
            // Some file systems cannot, and need not.
            Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
            other => other,
        }
    }

    /// Whether the process or the machine has run out of something, so that the file in question is not to blame.
    pub(in super::super) fn is_exhausted(error: &io::Error) -> bool {
        let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
        error.raw_os_error().is_some_and(|code| exhausted.iter().any(|e| e.raw_os_error() == code))
    }

    /// Makes a directory that the same people may use as `like`; else only its owner.
    pub(in super::super) fn create_directory(path: &Path, like: Option<&Metadata>) -> io::Result<()> {
        fs::DirBuilder::new().mode(like.map_or(0o700, |m| m.mode() & 0o777)).create(path)
    }

    /// Makes a file that only its owner may read: mail is private.
    pub(in super::super) fn create_file(path: &Path) -> io::Result<File> {
        File::options().write(true).create_new(true).mode(0o600).open(path)
    }

    pub(in super::super) fn host() -> Vec<u8> {
        rustix::system::uname().nodename().to_bytes().to_vec()
    }
}

/// Enough to compile and to read mail; nobody has tried it beside other programs.
#[cfg(not(unix))]
mod system {
    use std::time::UNIX_EPOCH;

    use super::{Access, File, Inode, Metadata, OsStr, OsString, Path, fs, io};

    pub(in super::super) fn bytes(name: &OsStr) -> Vec<u8> {
        name.to_string_lossy().into_owned().into_bytes()
    }

    pub(in super::super) fn os_name(name: &[u8]) -> OsString {
        String::from_utf8_lossy(name).into_owned().into()
    }

    pub(in super::super) fn inode(_: &Metadata) -> Inode {
        (0, 0)
    }

    pub(in super::super) fn modified(of: &Metadata) -> (i64, i64) {
        let since = of.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        (since.as_secs().cast_signed(), since.subsec_nanos().into())
    }

    pub(in super::super) fn access(directory: &Path) -> io::Result<Access> {
        fs::metadata(directory).map(|_| Access::Unknown)
    }

    pub(in super::super) fn rename_new(_: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in super::super) fn sync_directory(_: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(in super::super) fn is_exhausted(_: &io::Error) -> bool {
        false
    }

    pub(in super::super) fn create_directory(path: &Path, _: Option<&Metadata>) -> io::Result<()> {
        fs::create_dir(path)
    }

    pub(in super::super) fn create_file(path: &Path) -> io::Result<File> {
        File::options().write(true).create_new(true).open(path)
    }

    pub(in super::super) fn host() -> Vec<u8> {
        std::env::var("COMPUTERNAME").unwrap_or_else(|_| "localhost".into()).into_bytes()
    }
}
