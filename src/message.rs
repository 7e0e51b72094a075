//! Messages, as every provider gives them.

use std::{fmt, sync::Arc};

use jiff::Timestamp;

use crate::{Attachment, FolderId};

/// The provider's handle of one message: opaque, valid in one account.
///
/// Not to be confused with the `Message-ID` header, which is [`Message::internet_message_id`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// Wraps the provider's handle.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The provider's handle.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A mail address with the name that stood beside it (RFC 5322, section 3.4).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address {
    /// The display name, decoded.
    pub name: Option<String>,
    /// The address. Whatever stood in its place, when it is not one.
    pub address: String,
}

impl Address {
    /// An address without a name.
    pub fn new(address: impl Into<String>) -> Self {
        Self { name: None, address: address.into() }
    }

    /// With a display name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} <{}>", self.address),
            None => f.write_str(&self.address),
        }
    }
}

/// What may be wrong with a message that is delivered all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Defect {
    /// Nothing of it could be understood; the raw message can still be downloaded.
    Unreadable,
    /// It ends before its last boundary.
    Truncated,
    /// An attachment's encoding was broken and was decoded as far as it goes.
    BrokenEncoding,
    /// A `Date` header is absent or is not a date.
    BadDate,
    /// It is nested deeper, or has more parts, than this crate follows; what is deeper is one attachment.
    TooComplex,
    /// The text was cut at this crate's cap.
    TextCut,
}

/// What a service says of itself about a message. Never a gate: services err in all three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hints {
    /// Graph says `false` for a message whose only attachments are inline.
    pub has_attachments: Option<bool>,
    /// Bytes, as the service counts them.
    pub size: Option<u64>,
}

impl Hints {
    /// With what the service said.
    #[must_use]
    pub fn new(has_attachments: Option<bool>, size: Option<u64>) -> Self {
        Self { has_attachments, size }
    }
}

/// One message: its envelope, and its attachments without their content.
///
/// A message that could not be read is still one, with [`Defect::Unreadable`] among its [`defects`](Self::defects).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Message {
    /// The provider's handle.
    pub id: MessageId,
    /// The folder it was found in.
    pub folder: FolderId,
    /// The `Message-ID` header, as it stands there, with its angle brackets. Not unique: scanners reuse theirs.
    pub internet_message_id: Option<String>,
    /// Decoded.
    pub subject: Option<String>,
    /// Who wrote it, by its own word.
    pub from: Option<Address>,
    /// Who handed it in on the writer's behalf.
    pub sender: Option<Address>,
    /// Where answers should go.
    pub reply_to: Vec<Address>,
    /// Primary recipients.
    pub to: Vec<Address>,
    /// Copy recipients.
    pub cc: Vec<Address>,
    /// The address it was delivered to, where a server noted it (`Delivered-To`, `X-Original-To`, `Envelope-To`).
    pub delivered_to: Option<String>,
    /// The `Date` header, where it is a date.
    pub sent: Option<Timestamp>,
    /// When the mailbox got it.
    pub received: Timestamp,
    /// The message it answers (`In-Reply-To`), with angle brackets.
    pub in_reply_to: Option<String>,
    /// The conversation so far (`References`), oldest first, with angle brackets.
    pub references: Vec<String>,
    /// The service's own name for the conversation.
    pub conversation_id: Option<String>,
    /// Whether somebody has read it.
    pub is_read: bool,
    /// Sent by a machine: `Auto-Submitted`, `Precedence: bulk`, a list, a bounce (RFC 3834).
    pub is_automatic: bool,
    /// A report on a message that could not be delivered (RFC 3464), or sent with an empty return path.
    pub is_bounce: bool,
    /// Written by this very mailbox: a copy of what it sent.
    pub is_own: bool,
    /// Attached files, items and links, inline ones included, in the order they stand in the message.
    pub attachments: Vec<Attachment>,
    /// The plain text, when asked for with [`Query::with_text`](crate::Query::with_text) and there is one.
    pub text: Option<String>,
    /// The HTML text, likewise.
    pub html: Option<String>,
    /// The headers asked for with [`Query::with_headers`](crate::Query::with_headers), repeated names repeated.
    pub headers: Vec<(String, String)>,
    /// What the service says, as a hint only.
    pub hints: Hints,
    /// What is wrong with it.
    pub defects: Vec<Defect>,
}

impl Message {
    /// An empty message; providers fill in what they know.
    pub fn new(id: MessageId, folder: FolderId, received: Timestamp) -> Self {
        Self {
            id,
            folder,
            internet_message_id: None,
            subject: None,
            from: None,
            sender: None,
            reply_to: Vec::new(),
            to: Vec::new(),
            cc: Vec::new(),
            delivered_to: None,
            sent: None,
            received,
            in_reply_to: None,
            references: Vec::new(),
            conversation_id: None,
            is_read: false,
            is_automatic: false,
            is_bounce: false,
            is_own: false,
            attachments: Vec::new(),
            text: None,
            html: None,
            headers: Vec::new(),
            hints: Hints::default(),
            defects: Vec::new(),
        }
    }

    /// What is wrong with it; empty for a healthy message.
    #[must_use]
    pub fn defects(&self) -> &[Defect] {
        &self.defects
    }

    /// The first value of a header that was asked for, ignoring case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// How many bytes of attachments it carries in memory.
    #[must_use]
    pub fn inline_bytes(&self) -> u64 {
        self.attachments.iter().filter_map(|a| a.content.as_ref()).map(|c| c.len() as u64).sum()
    }
}
