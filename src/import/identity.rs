//! When two messages are the same message.
//!
//! Handles change when a message moves and differ between accounts, and `Message-ID`s are reused by scanners and made
//! up by services. So a message is recognised by several things together: see [`same`].

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use memchr::memchr;
use sha2::{Digest as _, Sha256};
use unicode_normalization::UnicodeNormalization as _;

use crate::{
    Attachment, AttachmentKind, Error, ErrorKind, Message, Result,
    attachment::{Tap, Tapped},
    store::Row,
};

/// What a message is called across providers: its normalised `Message-ID`, else the digest of its attached files, else
/// a hash of when it was sent, by whom, and about what.
///
/// ```
/// use mail_account::MessageKey;
/// let key = MessageKey::of_message_id(" <Invoice.7@Supplier.Example> ").unwrap();
/// assert_eq!(key.as_str(), "mid:Invoice.7@supplier.example");
/// assert!(MessageKey::of_message_id("<>").is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageKey(Arc<str>);

impl MessageKey {
    /// The key of a message with this `Message-ID` header; `None` when there is nothing in it.
    ///
    /// Angle brackets and blanks do not count, nor does the case of the domain (RFC 5322, section 3.6.4).
    #[must_use]
    pub fn of_message_id(header: &str) -> Option<Self> {
        let id: String = header.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
        let id = id.trim_start_matches('<').trim_end_matches('>');
        if id.is_empty() {
            return None;
        }
        Some(Self(match id.rsplit_once('@') {
            Some((left, domain)) => format!("mid:{left}@{}", domain.to_lowercase()).into(),
            None => format!("mid:{id}").into(),
        }))
    }

    /// The key of a message that has no `Message-ID`.
    pub(crate) fn without_message_id(digest: Digest, evidence: &Evidence) -> Self {
        if let Digest::Known(hash) = digest {
            return Self(format!("sha:{}", hex(&hash)).into());
        }
        let mut hash = Sha256::new();
        hash.update(evidence.sent_second.map(|s| s.to_string()).unwrap_or_default());
        for text in [&evidence.sender, &evidence.subject] {
            hash.update([0]);
            hash.update(text);
        }
        Self(format!("evd:{}", hex(&hash.finalize())).into())
    }

    /// A key that no message has.
    pub(crate) fn nothing() -> Self {
        Self("".into())
    }

    /// The text form, as JSON and the command line show it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl fmt::Display for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MessageKey {
    type Err = Error;

    /// Takes the text form as it is.
    fn from_str(s: &str) -> Result<Self> {
        if s.trim().is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a message key is empty; copy one from the list of failures",
            ));
        }
        Ok(Self(s.trim().into()))
    }
}

/// What a message's attached files hash to, whatever provider gave them: SHA-256 over the sorted SHA-256 of each, after
/// CRLF -> LF. Attached items, TNEF, calendars, signatures, delivery reports and texts are left out, because services
/// re-render them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Digest {
    /// Not all of the attached files were read.
    #[default]
    Unknown,
    /// There is nothing to hash.
    Nothing,
    /// Of all attached files.
    Known([u8; 32]),
}

impl Digest {
    /// Of files with these hashes, in any order.
    pub(crate) fn of(mut hashes: Vec<[u8; 32]>) -> Self {
        if hashes.is_empty() {
            return Self::Nothing;
        }
        hashes.sort_unstable();
        Self::Known(Sha256::digest(hashes.concat()).into())
    }
}

/// Whether a service gives the same bytes of this attachment as any other.
pub(crate) fn is_hashed(attachment: &Attachment) -> bool {
    attachment.kind == AttachmentKind::File
        && !is_tnef(attachment)
        && !matches!(
            attachment.content_type.as_str(),
            "text/calendar"
                | "message/delivery-status"
                | "message/disposition-notification"
                | "application/pkcs7-signature"
                | "application/x-pkcs7-signature"
                | "application/pgp-signature"
        )
}

/// Whether this is Outlook's `winmail.dat`.
pub(crate) fn is_tnef(attachment: &Attachment) -> bool {
    matches!(attachment.content_type.as_str(), "application/ms-tnef" | "application/vnd.ms-tnef")
}

/// Hashes a file as if its lines ended in LF, piece by piece.
#[derive(Default)]
pub(crate) struct FoldedHash {
    hash: Sha256,
    held_cr: bool,
}

impl FoldedHash {
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        // A CR at the end of the last piece counts unless this piece begins with LF.
        if std::mem::take(&mut self.held_cr) && bytes[0] != b'\n' {
            self.hash.update(b"\r");
        }
        while let Some(at) = memchr(b'\r', bytes) {
            match bytes.get(at + 1) {
                Some(b'\n') => self.hash.update(&bytes[..at]),
                Some(_) => self.hash.update(&bytes[..=at]),
                None => {
                    self.hash.update(&bytes[..at]);
                    self.held_cr = true;
                    return;
                }
            }
            bytes = &bytes[at + 1..];
        }
        self.hash.update(bytes);
    }

    pub(crate) fn finish(mut self) -> [u8; 32] {
        if self.held_cr {
            self.hash.update(b"\r");
        }
        self.hash.finalize().into()
    }
}

/// What is learnt of one message's attachments as their bytes pass.
#[derive(Clone)]
pub(crate) struct Fingerprints(Arc<Mutex<Passed>>);

struct Passed {
    files: Vec<(Option<[u8; 32]>, Option<u64>)>,
    failure: Option<(ErrorKind, String)>,
}

impl Fingerprints {
    /// Of these attachments; those whose bytes are in memory are hashed at once.
    pub(crate) fn of(attachments: &[Attachment]) -> Self {
        let files = attachments
            .iter()
            .map(|attachment| {
                let Some(bytes) = &attachment.content else { return (None, None) };
                let hash = is_hashed(attachment).then(|| {
                    let mut hash = FoldedHash::default();
                    hash.update(bytes);
                    hash.finish()
                });
                (hash, Some(bytes.len() as u64))
            })
            .collect();
        Self(Arc::new(Mutex::new(Passed { files, failure: None })))
    }

    /// The attachments that must be read before the digest is known.
    pub(crate) fn missing(&self, attachments: &[Attachment]) -> Vec<usize> {
        let passed = self.lock();
        (0..attachments.len()).filter(|&i| is_hashed(&attachments[i]) && passed.files[i].0.is_none()).collect()
    }

    /// The digest, as far as the bytes have passed.
    pub(crate) fn digest(&self, attachments: &[Attachment]) -> Digest {
        let passed = self.lock();
        let mut hashes = Vec::new();
        for (attachment, (hash, _)) in attachments.iter().zip(&passed.files) {
            match hash {
                _ if !is_hashed(attachment) => {}
                Some(hash) => hashes.push(*hash),
                None => return Digest::Unknown,
            }
        }
        Digest::of(hashes)
    }

    /// Decoded bytes of all attachments, as far as they have passed.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().files.iter().filter_map(|(_, length)| *length).sum()
    }

    /// How the account failed to give bytes, if it did.
    pub(crate) fn failure(&self) -> Option<(ErrorKind, String)> {
        self.lock().failure.clone()
    }

    /// A listener for one download of one attachment.
    pub(crate) fn tap(&self, index: usize, attachment: &Attachment) -> Tap {
        let this = self.clone();
        let unhashed = is_hashed(attachment) && this.lock().files[index].0.is_none();
        let state = Mutex::new((unhashed.then(FoldedHash::default), 0u64));
        Arc::new(move |what| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let (hash, length) = &mut *state;
            match what {
                Tapped::Bytes(bytes) => {
                    if let Some(hash) = hash {
                        hash.update(bytes);
                    }
                    *length += bytes.len() as u64;
                }
                Tapped::End => {
                    let file = &mut this.lock().files[index];
                    file.1 = Some(*length);
                    if let Some(hash) = hash.take() {
                        file.0 = Some(hash.finish());
                    }
                }
                Tapped::Failed(error) => {
                    *hash = None;
                    this.lock().failure = Some((error.kind(), error.message().to_owned()));
                }
            }
        })
    }

    /// A listener that only notes how the account fails.
    pub(crate) fn failure_tap(&self) -> Tap {
        let this = self.clone();
        Arc::new(move |what| {
            if let Tapped::Failed(error) = what {
                this.lock().failure = Some((error.kind(), error.message().to_owned()));
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, Passed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What speaks for two messages being the same when their names do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// `None` where the message has no date, or none that can be read: a service may have put one in.
    pub(crate) sent_second: Option<i64>,
    /// The writer's address, lower case.
    pub(crate) sender: String,
    /// The subject with blanks collapsed, which services do too.
    pub(crate) subject: String,
}

impl Evidence {
    pub(crate) fn of(message: &Message) -> Self {
        let sender = message.from.as_ref().or(message.sender.as_ref());
        Self {
            sent_second: message.sent.map(|sent| sent.as_second()),
            sender: sender.map(|a| a.address.trim().to_lowercase()).unwrap_or_default(),
            subject: normalise_subject(message.subject.as_deref().unwrap_or_default()),
        }
    }

    pub(crate) fn of_row(row: &Row) -> Self {
        Self { sent_second: row.sent_second, sender: row.sender.clone(), subject: row.subject_norm.clone() }
    }

    /// Whether it says anything by itself.
    fn is_whole(&self) -> bool {
        self.sent_second.is_some() && !(self.sender.is_empty() && self.subject.is_empty())
    }

    /// Whether nothing speaks against the same message. With the same files the sender may differ: services replace
    /// an address by the one in their directory.
    pub(crate) fn agrees(&self, other: &Self, same_files: bool) -> bool {
        let dates = match (self.sent_second, other.sent_second) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        dates && self.subject == other.subject && (same_files || self.sender == other.sender)
    }
}

/// Blanks collapsed, NFC.
pub(crate) fn normalise_subject(subject: &str) -> String {
    let mut normal = String::with_capacity(subject.len());
    for word in subject.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()) {
        if !normal.is_empty() {
            normal.push(' ');
        }
        normal.extend(word.nfc());
    }
    normal
}

/// How a listed message relates to a row of the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Same,
    Other,
    /// Nobody can tell: on one side there is nothing to compare, or it was not all read.
    Unproven,
}

/// Whether a message is the one that a row of the same key is about.
///
/// A row without an outcome is the same when the evidence agrees: the message is then handed over under that row,
/// which is what should happen to either. Where an outcome is recorded, only files that were compared, or the absence
/// of any together with the evidence, prove it. Never lost outranks never twice.
pub(crate) fn same(row: &Row, digest: Digest, evidence: &Evidence) -> Relation {
    match (row.digest, digest) {
        (Digest::Known(a), Digest::Known(b)) if a == b => Relation::Same,
        (Digest::Nothing, Digest::Nothing) if Evidence::of_row(row).agrees(evidence, false) => Relation::Same,
        (Digest::Unknown, _) if row.outcome.is_none() && Evidence::of_row(row).agrees(evidence, true) => Relation::Same,
        (Digest::Known(_), Digest::Known(_)) => Relation::Other,
        // One service shows files where another shows only what cannot be compared, such as a `winmail.dat`.
        _ => Relation::Unproven,
    }
}

/// Whether a message is the one that a row is about although their keys differ, because one side had no `Message-ID`:
/// a service may have made one up.
pub(crate) fn same_without_message_id(row: &Row, digest: Digest, evidence: &Evidence) -> bool {
    let theirs = Evidence::of_row(row);
    match (row.digest, digest) {
        (Digest::Known(a), Digest::Known(b)) => a == b && theirs.agrees(evidence, true),
        // Nothing but the evidence speaks for it, so all of it must be there.
        (Digest::Nothing, Digest::Nothing) => {
            evidence.is_whole() && theirs.is_whole() && theirs.agrees(evidence, false)
        }
        (Digest::Unknown, _) => row.outcome.is_none() && theirs.is_whole() && theirs.agrees(evidence, false),
        _ => false,
    }
}

/// What may be compared of a message without a `Message-ID`. Attached messages are not hashed, because services
/// re-render them; two messages that carry nothing else must not be taken for one because their envelopes are alike.
pub(crate) fn comparable(digest: Digest, message: &Message) -> Digest {
    let unhashed = message.attachments.iter().any(|attachment| !is_hashed(attachment));
    match digest {
        Digest::Nothing if unhashed && message.internet_message_id.is_none() => Digest::Unknown,
        digest => digest,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::AttachmentId;

    fn folded(pieces: &[&[u8]]) -> [u8; 32] {
        let mut hash = FoldedHash::default();
        for piece in pieces {
            hash.update(piece);
        }
        hash.finish()
    }

    proptest! {
        #[test]
        fn folding_does_not_depend_on_the_pieces(text in "[ab\r\n]{0,40}", cuts in prop::collection::vec(0usize..40, 0..6)) {
            let bytes = text.as_bytes();
            let plain: [u8; 32] = Sha256::digest(text.replace("\r\n", "\n")).into();
            let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(folded(&pieces), plain);
        }
    }

    fn file(content: &'static str) -> Attachment {
        let mut a = Attachment::new(AttachmentId::new("1"), "application/pdf");
        a.content = Some(content.into());
        a
    }

    #[test]
    fn a_digest_does_not_depend_on_order_but_on_count() {
        let digest = |files: &[Attachment]| Fingerprints::of(files).digest(files);
        assert_eq!(digest(&[file("a"), file("b")]), digest(&[file("b"), file("a")]));
        assert_ne!(digest(&[file("a"), file("a")]), digest(&[file("a")]));
        assert_eq!(digest(&[file("a\r\n")]), digest(&[file("a\n")]));
        assert_eq!(digest(&[]), Digest::Nothing);
        let mut unread = file("a");
        unread.content = None;
        assert_eq!(digest(&[unread.clone(), file("b")]), Digest::Unknown);
        unread.kind = AttachmentKind::Item;
        assert_eq!(digest(&[unread]), Digest::Nothing);
    }

    #[test]
    fn thin_evidence_alone_proves_nothing() {
        let row = |sent_second, sender: &str| {
            let mut row = Row::new(MessageKey::nothing(), "a", crate::MessageId::new("1"), jiff::Timestamp::UNIX_EPOCH);
            (row.digest, row.outcome) = (Digest::Nothing, Some(crate::store::Recorded::Imported));
            (row.sent_second, row.sender) = (sent_second, sender.to_owned());
            row
        };
        let evidence = |row: &Row| Evidence::of_row(row);
        for (sent, sender, expected) in [(Some(1), "a@b", true), (None, "a@b", false), (Some(1), "", false)] {
            let row = row(sent, sender);
            assert_eq!(same_without_message_id(&row, Digest::Nothing, &evidence(&row)), expected, "{sent:?} {sender}");
        }
    }

    #[test]
    fn subjects_are_compared_with_blanks_collapsed() {
        assert_eq!(normalise_subject("  Factuur\t 7 \u{a0}mei"), "Factuur 7 mei");
        assert_eq!(normalise_subject("e\u{301}"), "\u{e9}");
    }

    #[test]
    fn message_ids_are_compared_without_brackets() {
        let key = |s| MessageKey::of_message_id(s);
        assert_eq!(key("<a@B.nl>"), key(" a@b.NL "));
        assert_ne!(key("<A@b.nl>"), key("<a@b.nl>"));
        assert_eq!(key("\r\n <a@b.nl>"), key("<a@b.nl>"));
        assert_eq!(key("  "), None);
    }
}
