//! Handles: how folders, messages and parts are named to callers.
//!
//! A folder's handle is its name as the server writes it, which need not be text: bytes that are not plain ASCII, and
//! `%`, are percent-encoded. A message's handle is the folder, its UIDVALIDITY and the UID (RFC 9051, section 2.3.1.1).

use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

use crate::{AttachmentId, Error, ErrorKind, FolderId, MessageId, Result};

const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// The handle of a folder. INBOX is one folder however it is written (RFC 3501, section 5.1).
pub(crate) fn folder_id(raw: &[u8]) -> FolderId {
    let raw = if raw.eq_ignore_ascii_case(b"INBOX") { b"INBOX" } else { raw };
    FolderId::new(percent_encode(raw, ESCAPED).to_string())
}

/// The name to send to the server.
pub(crate) fn folder_name(id: &FolderId) -> Bytes {
    Bytes::from(percent_decode_str(id.as_str()).collect::<Vec<u8>>())
}

/// A message in its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) folder: Bytes,
    /// The folder's numbering; see [`Shared::epoch`](super::pool::Shared::epoch).
    pub(crate) epoch: String,
    pub(crate) uid: u64,
}

impl Handle {
    pub(crate) fn id(&self) -> MessageId {
        MessageId::new(format!("{}.{}.{}", self.epoch, self.uid, folder_id(&self.folder)))
    }

    pub(crate) fn parse(id: &MessageId) -> Result<Self> {
        let mut parts = id.as_str().splitn(3, '.');
        let (Some(epoch), Some(uid), Some(folder)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(no_handle());
        };
        match uid.parse() {
            Ok(uid) if uid > 0 && !folder.is_empty() => {
                Ok(Self { folder: folder_name(&FolderId::new(folder)), epoch: epoch.to_owned(), uid })
            }
            _ => Err(no_handle()),
        }
    }
}

fn no_handle() -> Error {
    Error::new(ErrorKind::NotFound, "this is not the handle of a message in an IMAP account")
}

/// One part of a message, named by where the server keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartId {
    pub(crate) section: String,
    pub(crate) encoding: String,
    /// Encoded size, to tell an empty part from one that the server does not find.
    pub(crate) size: Option<u64>,
}

const PART: &str = "part:";

impl PartId {
    pub(crate) fn id(&self) -> AttachmentId {
        let size = self.size.map(|n| n.to_string()).unwrap_or_default();
        AttachmentId::new(format!("{PART}{}:{size}:{}", self.section, self.encoding))
    }

    /// `None` for an attachment that is only known within the whole message.
    pub(crate) fn parse(id: &AttachmentId) -> Option<Self> {
        let mut parts = id.as_str().strip_prefix(PART)?.splitn(3, ':');
        let (section, size, encoding) = (parts.next()?, parts.next()?, parts.next()?);
        // It goes into a command as it is.
        let proper = section.split('.').all(|n| !n.is_empty() && n.len() < 8 && n.bytes().all(|b| b.is_ascii_digit()));
        proper.then(|| Self { section: section.to_owned(), encoding: encoding.to_owned(), size: size.parse().ok() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_folder_name_survives() {
        for raw in [&b"INBOX/Entw&APw-rfe"[..], b"a%b c\"\\", b"R\xe4x", b"a.b.c", b"\xff\xfe\x01"] {
            let id = folder_id(raw);
            assert_eq!(folder_name(&id), raw, "{id}");
            let handle = Handle { folder: Bytes::copy_from_slice(raw), epoch: "17".into(), uid: 5 };
            assert_eq!(Handle::parse(&handle.id()).unwrap(), handle);
        }
        assert_eq!(folder_id(b"inbox"), folder_id(b"INBOX"));
        assert_eq!(folder_id(b"Sent Items").as_str(), "Sent Items");
    }

    #[test]
    fn foreign_handles_name_nothing() {
        for id in ["", "a", "1.2", "1.x.INBOX", "1.0.INBOX", "1.5.", "AAMkAGI2"] {
            assert_eq!(Handle::parse(&MessageId::new(id)).unwrap_err().kind(), ErrorKind::NotFound, "{id}");
        }
    }

    #[test]
    fn parts_cannot_become_commands() {
        let part = PartId { section: "2.1".into(), encoding: "base64".into(), size: Some(7) };
        assert_eq!(PartId::parse(&part.id()), Some(part));
        for id in ["part:2]:1:base64", "part::1:x", "part:2.:1:x", "part:2 A1 LOGOUT:1:x", "2", "raw"] {
            assert_eq!(PartId::parse(&AttachmentId::new(id)), None, "{id}");
        }
    }
}
