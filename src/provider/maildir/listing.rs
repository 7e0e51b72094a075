//! Listing a folder, and reading its messages.

use std::{
    fs::{self, File, Metadata},
    io::{self, BufRead as _, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};

use super::{
    blocking,
    disk::{ATTEMPTS, Disk, Located},
    index::MailFile,
    layout::Place,
    name::{self, Handle},
    sys,
};
use crate::{
    AttachmentId, Content, Defect, Error, ErrorKind, FolderId, Hints, Message, MessageId, Query, Result,
    mime::{self, Source},
};

/// A message of a listing: what it takes to find it when it is its turn. Small, because there is one for each message
/// of a folder.
#[derive(Debug)]
pub(super) struct Listed {
    file: MailFile,
    /// Where the file's name is not enough.
    handle: Option<Box<Handle>>,
}

/// A message file that was just opened, so that what is wrong with it is known.
enum Opened {
    Readable { file: MailFile, path: PathBuf, metadata: Metadata },
    Unreadable { file: MailFile, metadata: Option<Metadata>, error: Error },
    Gone,
}

impl Disk {
    /// The messages of a folder that fit a query, as far as file names tell, oldest received first.
    fn set(&self, place: &Place, query: &Query) -> Result<Vec<Listed>> {
        let asked = Instant::now();
        let files: Vec<_> = self.read_folder(place, |index| {
            let shared = index.shared_keys();
            let wanted = index.iter().filter(|file| !query.unread_only || !name::is_read(file.name()));
            wanted.map(|file| (file.clone(), shared.contains(file.key()))).collect()
        })?;
        let mut listed = Vec::with_capacity(files.len());
        for (file, shared) in files {
            let metadata = if shared || self.time_in_name(file.key()).is_none() {
                match fs::symlink_metadata(file.path(&place.path(&self.root))) {
                    Ok(metadata) => Some(metadata),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        // Renamed just now, or gone.
                        match self.locate(&Self::handle(place, &file, None, false), asked)? {
                            Located::Found(found) => Some(found.metadata),
                            Located::Absent(_) => continue,
                        }
                    }
                    Err(_) => None,
                }
            } else {
                None
            };
            let received = self.received(file.key(), metadata.as_ref()).as_second();
            if query.since.is_some_and(|since| received < since.as_second()) {
                continue;
            }
            let handle = Self::handle(place, &file, metadata.as_ref(), shared);
            let handle = (handle.written.is_some() || handle.number.is_some()).then(|| Box::new(handle));
            listed.push((received, name::microseconds(file.key()), Listed { file, handle }));
        }
        listed.sort_unstable_by(|a, b| (a.0, a.1, a.2.file.name()).cmp(&(b.0, b.1, b.2.file.name())));
        Ok(listed.into_iter().map(|(_, _, listed)| listed).collect())
    }

    /// Opens a message's file, wherever it is now; `known` is where it was.
    fn open(&self, handle: &Handle, known: Option<&MailFile>, asked: Instant) -> Result<Opened> {
        let mut known = known.filter(|_| handle.written.is_none() && handle.number.is_none()).cloned();
        for _ in 0..ATTEMPTS {
            let file = match known.take() {
                Some(file) => file,
                None => match self.locate(handle, asked)? {
                    Located::Found(found) => found.file,
                    Located::Absent(_) => return Ok(Opened::Gone),
                },
            };
            let path = file.path(&handle.place.path(&self.root));
            match readable(&path) {
                Ok(metadata) => return Ok(Opened::Readable { file, path, metadata }),
                Err(e) if sys::is_exhausted(&e) => return Err(self.failed("open", &path, e)),
                Err(e) => {
                    let metadata = fs::symlink_metadata(&path).ok();
                    // There is no file of this name any more, rather than a link that leads nowhere.
                    if e.kind() == io::ErrorKind::NotFound && !metadata.as_ref().is_some_and(Metadata::is_symlink) {
                        continue;
                    }
                    return Ok(Opened::Unreadable { file, metadata, error: self.unreadable(&path).with_source(e) });
                }
            }
        }
        Err(self.too_busy(handle))
    }

    /// The error for a single message. Not `PermissionDenied` or `Storage`, which speak of the whole account.
    fn unreadable(&self, path: &Path) -> Error {
        self.error(
            ErrorKind::Other,
            format!("the message file `{}` cannot be read; make it a file that this program may read", path.display()),
        )
    }

    /// What is known of a message without reading it.
    fn shell(&self, handle: &Handle, file: &MailFile, metadata: Option<&Metadata>) -> Message {
        let received = self.received(file.key(), metadata);
        let mut message = Message::new(handle.id(), handle.place.id(), received);
        message.is_read = name::is_read(file.name());
        message.hints = Hints::new(None, metadata.map(Metadata::len));
        message
    }
}

/// Reads a message; `None` when it is gone, or not the one that `query` asks for by its `Message-ID`.
async fn read(
    disk: &Arc<Disk>,
    handle: Handle,
    mut known: Option<MailFile>,
    query: &Query,
    mailbox: &str,
) -> Result<Option<Message>> {
    let asked = Instant::now();
    for _ in 0..ATTEMPTS {
        let (wanted, file) = (query.internet_message_id.clone(), known.take());
        let for_open = handle.clone();
        let opened = blocking(disk, move |disk| {
            let opened = disk.open(&for_open, file.as_ref(), asked)?;
            Ok(match (&opened, wanted) {
                (Opened::Readable { path, .. }, Some(wanted)) => match has_message_id(path, &wanted) {
                    Ok(true) => Some(opened),
                    Ok(false) => None,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => Some(opened),
                    Err(e) if sys::is_exhausted(&e) => return Err(disk.failed("read", path, e)),
                    Err(_) => None,
                },
                // Nobody can tell what its Message-ID is.
                (Opened::Unreadable { .. }, Some(_)) => None,
                _ => Some(opened),
            })
        });
        let Some(opened) = opened.await? else { return Ok(None) };
        let unreadable = |mut message: Message, error: &Error| {
            tracing::warn!(error = %error.chain(), "a message cannot be read");
            message.defects.push(Defect::Unreadable);
            message
        };
        match opened {
            Opened::Gone => return Ok(None),
            Opened::Unreadable { file, metadata, error } => {
                return Ok(Some(unreadable(disk.shell(&handle, &file, metadata.as_ref()), &error)));
            }
            Opened::Readable { file, path, metadata } => {
                let shell = disk.shell(&handle, &file, Some(&metadata));
                let path = Arc::new(path);
                match mime::read(&Source::File(Arc::clone(&path)), shell.clone(), query, mailbox).await {
                    Ok(message) => return Ok(Some(message)),
                    // A file that shrinks is being written anew by somebody.
                    Err(e) if e.kind() == ErrorKind::Conflict => {}
                    Err(e) if has_cause(&e, is_not_found) || is_gone(&path).await => {}
                    Err(e) if has_cause(&e, sys::is_exhausted) => return Err(e),
                    Err(e) => return Ok(Some(unreadable(shell, &e))),
                }
            }
        }
    }
    Err(disk.too_busy(&handle))
}

async fn is_gone(path: &Path) -> bool {
    tokio::fs::symlink_metadata(path).await.is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}

fn is_not_found(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn has_cause(error: &Error, wanted: fn(&io::Error) -> bool) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if cause.downcast_ref().is_some_and(wanted) {
            return true;
        }
        next = cause.source();
    }
    false
}

/// The messages of a folder. See [`MailAccount::fetch_messages`](crate::MailAccount::fetch_messages).
pub(super) fn fetch(
    disk: Arc<Disk>,
    folder: FolderId,
    query: Query,
    mailbox: Arc<str>,
) -> BoxStream<'static, Result<Message>> {
    let started = async move {
        let Some(place) = Place::parse(folder.as_str()) else {
            let what = format!("there is no folder `id:{folder}`: this is no id of a Maildir's folder");
            return Err(disk.error(ErrorKind::NotFound, what));
        };
        let (for_set, asked) = (place.clone(), query.clone());
        let set = blocking(&disk, move |disk| disk.set(&for_set, &asked)).await?;
        let left = query.limit.unwrap_or(usize::MAX);
        let state = Some((disk, place, query, mailbox, set.into_iter(), left));
        Ok(stream::unfold(state, async |state| {
            let (disk, place, query, mailbox, mut set, left) = state?;
            if left == 0 {
                return None;
            }
            loop {
                let Listed { file, handle } = set.next()?;
                let handle = handle.map_or_else(|| Disk::handle(&place, &file, None, false), |handle| *handle);
                if query.skips(&handle.id()) {
                    continue;
                }
                match read(&disk, handle, Some(file), &query, &mailbox).await {
                    Ok(None) => {}
                    Ok(Some(message)) => {
                        return Some((Ok(message), Some((disk, place, query, mailbox, set, left - 1))));
                    }
                    Err(error) => return Some((Err(error), None)),
                }
            }
        }))
    };
    stream::once(started).try_flatten().map_err(|e| e.with_operation("fetch_messages")).boxed()
}

/// One message. See [`MailAccount::fetch_message`](crate::MailAccount::fetch_message).
pub(super) async fn fetch_one(disk: &Arc<Disk>, id: &MessageId, mailbox: &str) -> Result<Message> {
    let handle = Handle::parse(id).ok_or_else(|| disk.no_handle(id))?;
    let message = read(disk, handle.clone(), None, &Query::default(), mailbox).await?;
    message.ok_or_else(|| disk.no_message(&handle))
}

/// The bytes of an attachment. See [`MailAccount::download_attachment`](crate::MailAccount::download_attachment).
pub(super) fn download(disk: Arc<Disk>, id: MessageId, attachment: AttachmentId) -> Content {
    Content::from_fn(async move || {
        let handle = Handle::parse(&id).ok_or_else(|| disk.no_handle(&id))?;
        let asked = Instant::now();
        for _ in 0..ATTEMPTS {
            let for_open = handle.clone();
            let path = match blocking(&disk, move |disk| disk.open(&for_open, None, asked)).await? {
                Opened::Readable { path, .. } => Arc::new(path),
                Opened::Unreadable { error, .. } => return Err(error),
                Opened::Gone => return Err(disk.no_message(&handle)),
            };
            let mut bytes = mime::content(Source::File(Arc::clone(&path)), &attachment).into_stream();
            let first = bytes.next().await;
            // Renamed between looking and opening. Once it is open, its name no longer matters.
            if let Some(Err(e)) = &first
                && (has_cause(e, is_not_found) || is_gone(&path).await)
            {
                continue;
            }
            let bytes = stream::iter(first).chain(bytes).map_err(move |e| {
                // One file with a bad block is not a bad account.
                match has_cause(&e, |_| true) && !has_cause(&e, sys::is_exhausted) {
                    true => disk.unreadable(&path).with_source(e),
                    false => disk.here(e),
                }
                .with_operation("download_attachment")
            });
            return Ok(bytes.boxed());
        }
        Err(disk.too_busy(&handle))
    })
}

/// Whether a file can be read, judged by opening it. What is no plain file is never opened: a pipe would block.
fn readable(path: &Path) -> io::Result<Metadata> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file"));
    }
    File::open(path).map(|_| metadata)
}

/// Whether a message has this `Message-ID`, read from its headers alone.
fn has_message_id(path: &Path, wanted: &str) -> io::Result<bool> {
    // Far more than any message has; what comes later is not looked at.
    const LONGEST: u64 = 1024 * 1024;
    let wanted = bare(wanted.as_bytes());
    let mut lines = io::BufReader::new(File::open(path)?.take(LONGEST));
    let (mut line, mut value): (Vec<u8>, Option<Vec<u8>>) = Default::default();
    loop {
        line.clear();
        lines.read_until(b'\n', &mut line)?;
        let text = line.trim_ascii_end();
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            // A folded line (RFC 5322, section 2.2.3).
            if let Some(value) = &mut value {
                value.extend_from_slice(text.trim_ascii_start());
            }
            if !text.is_empty() {
                continue;
            }
        }
        if value.take().is_some_and(|value| bare(&value) == wanted) {
            return Ok(true);
        }
        if text.is_empty() {
            return Ok(false);
        }
        let colon = text.iter().position(|byte| *byte == b':').unwrap_or(0);
        if text[..colon].trim_ascii_end().eq_ignore_ascii_case(b"message-id") {
            value = Some(text[colon + 1..].to_vec());
        }
    }
}

fn bare(id: &[u8]) -> &[u8] {
    let id = id.trim_ascii();
    let id = id.strip_prefix(b"<").unwrap_or(id);
    id.strip_suffix(b">").unwrap_or(id)
}
