//! Messages made from a number: a hundred thousand of them cost no more memory than their entries.

use bytes::Bytes;
use jiff::{Timestamp, tz::TimeZone};

use crate::{Address, Attachment, AttachmentId, Content, Error, ErrorKind, Hints, Message, Query, Result};

/// Invoice mails that are made when they are read. The same seed makes the same mails.
///
/// ```
/// use mail_account::provider::memory::{Generated, MemoryMailbox};
/// let mailbox = MemoryMailbox::new("facturen@contoso.nl");
/// mailbox.generate("Inbox", 1_000, Generated::new(7).with_attachments(2, 2_000))?;
/// assert_eq!(mailbox.ids("Inbox")?.len(), 1_000);
/// # Ok::<(), mail_account::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Generated {
    /// Makes one mailbox's mails differ from another's.
    pub seed: u64,
    /// How many files each mail carries. Default 1.
    pub attachments: u8,
    /// How many bytes each file has. Default 1,000.
    pub attachment_bytes: u32,
    /// When the first was received; each one a second after the one before. Default 1 January 2026.
    pub first_received: Timestamp,
}

impl Generated {
    /// Mails of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, attachments: 1, attachment_bytes: 1_000, first_received: Timestamp::constant(1_767_225_600, 0) }
    }

    /// Sets [`attachments`](Self::attachments) and [`attachment_bytes`](Self::attachment_bytes).
    #[must_use]
    pub fn with_attachments(mut self, count: u8, bytes: u32) -> Self {
        self.attachments = count;
        self.attachment_bytes = bytes;
        self
    }

    /// Sets [`first_received`](Self::first_received).
    #[must_use]
    pub fn with_first_received(mut self, at: Timestamp) -> Self {
        self.first_received = at;
        self
    }

    pub(super) fn received(&self, number: u32) -> Timestamp {
        self.first_received + jiff::SignedDuration::from_secs(number.into())
    }

    fn internet_message_id(&self, number: u32) -> String {
        format!("<invoice.{number}.{:016x}@supplier.example>", mix(self.seed ^ u64::from(number)))
    }

    fn subject(number: u32) -> String {
        format!("Factuur 2026-{number:06}")
    }

    fn file_name(number: u32, at: u8) -> String {
        format!("factuur-2026-{number:06}-{}.pdf", at + 1)
    }

    fn from(number: u32) -> Address {
        Address::new(format!("verkoop@leverancier{}.example", number % 100)).with_name("Leverancier")
    }

    /// The message, as if it had been parsed.
    pub(super) fn message(&self, number: u32, shell: Message, query: &Query, mailbox: &str) -> Message {
        let mut message = shell;
        message.internet_message_id = Some(self.internet_message_id(number));
        message.subject = Some(Self::subject(number));
        message.from = Some(Self::from(number));
        message.to = vec![Address::new(mailbox)];
        message.sent = Some(self.received(number));
        message.hints = Hints::new(Some(self.attachments > 0), None);
        if query.text {
            message.text = Some(TEXT.to_owned());
        }
        message.headers = query
            .headers
            .iter()
            .filter_map(|name| {
                let headers = self.headers(number, mailbox);
                headers.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(n, v)| (n.to_owned(), v))
            })
            .collect();
        message.attachments = (0..self.attachments)
            .map(|at| {
                let mut attachment = Attachment::new(AttachmentId::new((at + 1).to_string()), "application/pdf");
                attachment.name = Some(Self::file_name(number, at));
                attachment.size_hint = Some(self.attachment_bytes.into());
                if u64::from(self.attachment_bytes) <= query.inline_up_to {
                    attachment.content = Some(self.bytes(number, at));
                }
                attachment
            })
            .collect();
        message
    }

    /// The bytes of one attachment, or of the whole message.
    pub(super) fn content(&self, number: u32, attachment: &AttachmentId, mailbox: &str) -> Result<Content> {
        if attachment.is_raw() {
            return Ok(Content::from_bytes(self.raw(number, mailbox)));
        }
        let at = attachment.as_str().parse::<u8>().ok().and_then(|n| n.checked_sub(1));
        match at.filter(|at| *at < self.attachments) {
            Some(at) => Ok(Content::from_bytes(self.bytes(number, at))),
            None => Err(Error::new(ErrorKind::NotFound, format!("the message has no attachment `{attachment}`"))),
        }
    }

    fn bytes(&self, number: u32, at: u8) -> Bytes {
        let mut state = mix(self.seed ^ (u64::from(number) << 8) ^ u64::from(at));
        let mut bytes = b"%PDF-1.4\n".to_vec();
        while bytes.len() < self.attachment_bytes as usize {
            state = mix(state);
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(self.attachment_bytes as usize);
        bytes.into()
    }

    fn headers(&self, number: u32, mailbox: &str) -> Vec<(&'static str, String)> {
        let from = Self::from(number);
        let date = self.received(number).to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S +0000").to_string();
        vec![
            ("Date", date),
            ("From", from.to_string()),
            ("To", mailbox.to_owned()),
            ("Subject", Self::subject(number)),
            ("Message-ID", self.internet_message_id(number)),
        ]
    }

    /// The message as RFC 5322.
    pub(super) fn raw(&self, number: u32, mailbox: &str) -> Bytes {
        let mut raw = String::new();
        for (name, value) in self.headers(number, mailbox) {
            raw += &format!("{name}: {value}\r\n");
        }
        raw += "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=_generated\"\r\n\r\n";
        raw += &format!("--=_generated\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{TEXT}\r\n");
        for at in 0..self.attachments {
            raw += "--=_generated\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n";
            raw += &format!("Content-Disposition: attachment; filename=\"{}\"\r\n\r\n", Self::file_name(number, at));
            // 57 bytes make a line of 76 characters (RFC 2045, section 6.8).
            for line in self.bytes(number, at).chunks(57) {
                raw += &base64_simd::STANDARD.encode_to_string(line);
                raw += "\r\n";
            }
        }
        raw += "--=_generated--\r\n";
        raw.into()
    }
}

const TEXT: &str = "Bijgaand onze factuur.";

/// SplitMix64's output function: enough to make bytes that do not repeat.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
