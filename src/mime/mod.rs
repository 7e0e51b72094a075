//! RFC 5322 bytes to [`Message`] and attachments.
//!
//! | file | what it knows |
//! |---|---|
//! | `scan.rs` | where the parts of a message lie, found without holding them |
//! | `part.rs` | what a part's header says, and what is an attachment |
//! | `header.rs`, `params.rs`, `words.rs`, `charset.rs` | from raw header bytes to text |
//! | `envelope.rs`, `addresses.rs`, `date.rs` | from header fields to the fields of a [`Message`] |
//! | `names.rs` | what an attachment is called, and what it may be called on a disk |
//! | `decode/` | transfer encodings, undone piece by piece |
//! | `read.rs`, `content.rs` | the two that others call |
//! | `tests.rs` | whole messages |
//!
//! mail-parser reads address lists and the rarer charsets. It is not given whole messages: it holds bodies, and gives
//! up on encodings and parameters that this crate has to get through (see the tests of `decode` and `params`).

mod addresses;
mod charset;
mod content;
mod date;
pub(crate) mod decode;
pub(crate) mod envelope;
mod header;
pub(crate) mod names;
mod params;
mod part;
mod read;
mod scan;
mod words;

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    ops::Range,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;

use self::scan::{Scanner, Structure};
pub(crate) use self::{content::content, read::read};
use crate::{Error, ErrorKind, Result};

/// How much is read from a file at once.
const PIECE: usize = 64 * 1024;

/// Where the bytes of a whole message lie.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Bytes(Bytes),
    File(Arc<PathBuf>),
}

/// A [`Source`] that is open. A file that is renamed meanwhile stays readable.
#[derive(Debug)]
enum Input {
    Bytes(Bytes),
    File(File),
}

impl Input {
    fn open(source: &Source) -> Result<Self> {
        match source {
            Source::Bytes(bytes) => Ok(Self::Bytes(bytes.clone())),
            Source::File(path) => File::open(path.as_path()).map(Self::File).map_err(failed),
        }
    }

    fn len(&mut self) -> Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(file) => file.seek(SeekFrom::End(0)).map_err(failed),
        }
    }

    fn scan(&mut self, mut scanner: Scanner) -> Result<Structure> {
        match self {
            Self::Bytes(bytes) => scanner.push(bytes),
            Self::File(file) => {
                file.rewind().map_err(failed)?;
                let mut piece = vec![0; PIECE];
                while !scanner.is_done() {
                    match file.read(&mut piece) {
                        Ok(0) => break,
                        Ok(read) => scanner.push(&piece[..read]),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(failed(error)),
                    }
                }
            }
        }
        Ok(scanner.finish(self.len()?))
    }

    /// Bytes from the start of `range`, at most a piece, and at least one unless the range is empty. Moves the start on.
    fn next(&mut self, range: &mut Range<u64>) -> Result<Bytes> {
        let some = range.end.saturating_sub(range.start).min(PIECE as u64) as usize;
        let piece = match self {
            Self::Bytes(bytes) => {
                let start = range.start.min(bytes.len() as u64) as usize;
                bytes.slice(start..bytes.len().min(start + some))
            }
            Self::File(file) => {
                file.seek(SeekFrom::Start(range.start)).map_err(failed)?;
                let mut piece = Vec::with_capacity(some);
                file.take(some as u64).read_to_end(&mut piece).map_err(failed)?;
                piece.into()
            }
        };
        if piece.len() < some {
            // Never a short file without an error.
            return Err(Error::new(ErrorKind::Conflict, "the message's file became shorter while it was being read"));
        }
        range.start += some as u64;
        Ok(piece)
    }
}

fn failed(error: io::Error) -> Error {
    let (kind, message) = match error.kind() {
        io::ErrorKind::NotFound => (ErrorKind::NotFound, "the message's file is not there (any more)"),
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::PermissionDenied, "the message's file may not be read by this user; check its permissions")
        }
        _ => (ErrorKind::Storage, "the message's file cannot be read"),
    };
    Error::new(kind, message).with_source(error)
}

fn interrupted(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Other, "reading a message was interrupted").with_source(error)
}

#[cfg(test)]
mod tests;
