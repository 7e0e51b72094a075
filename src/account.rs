//! [`MailAccount`]: one mailbox, whoever serves it.

use std::{any::Any, fmt, path::Path, sync::Arc};

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;

use crate::{AttachmentId, Content, Folder, FolderId, FolderSpec, Message, MessageId, Result};

/// One mailbox. Hosts hold it as `Arc<dyn MailAccount>`; cloning that shares connections, caches and limits.
///
/// # Contract
///
/// Each line is a check of the [conformance list](crate::testing::conformance) (feature `testing`).
///
/// - **Opening** an account does no I/O; the first call connects.
/// - **Ids.** A [`MessageId`] names one message as long as it stays in its folder, over restarts, unless the server
///   voids its numbering (IMAP UIDVALIDITY: [`ErrorKind::NotFound`] then). Moving may give a new one, and the old one
///   may go on working; take the new one from [`MoveOutcome`]. [`FolderId`]s last as long as the folder. None is
///   valid in another account.
/// - **Order.** [`fetch_messages`](Self::fetch_messages) gives the oldest received first.
/// - **Fixed set.** What a stream gives is fixed at its first poll: moving what it has given never makes it skip or
///   repeat a message, and what arrives later belongs to the next stream. A message that vanishes before it is its
///   turn is left out.
/// - **Errors.** An `Err` in the stream means that the account failed, and ends it. A single unreadable message is
///   `Ok`, with [`defects`](Message::defects), a handle, and a raw download. "Nothing there" is never an error in
///   disguise: an empty result means that the server said so.
/// - **Reading changes nothing.** No call but [`mark_read`](Self::mark_read) marks a message as read.
/// - **Repeating.** Every call is safe to repeat. A move whose answer was lost is looked up before it is tried again.
/// - **No waiting on each other.** Downloads and moves work while a stream or another download is open and is not
///   being polled, even if there is only one connection. [`Content`] does its I/O when polled; after a long pause it
///   may have to start over on its own, and then gives the same bytes.
/// - **Deadlines** run only while the account waits for the server, never while it waits for its caller.
///
/// [`ErrorKind::NotFound`]: crate::ErrorKind::NotFound
#[async_trait]
pub trait MailAccount: Any + fmt::Debug + Send + Sync + 'static {
    /// The whole tree: all levels, all pages, with roles; search and hidden folders marked.
    async fn list_folders(&self) -> Result<Vec<Folder>>;

    /// The messages of one folder, oldest received first, without the content of large attachments.
    fn fetch_messages(&self, folder: &FolderId, query: Query) -> BoxStream<'static, Result<Message>>;

    /// The bytes of one attachment, or with [`AttachmentId::raw`] of the whole message. Lazy: errors show at the first
    /// poll. A cloud link refuses with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) and names its URL.
    fn download_attachment(&self, message: &MessageId, attachment: &AttachmentId) -> Content;

    /// Moves messages of this mailbox to another of its folders; the answer has the same length and order.
    async fn move_to_processed(&self, messages: &[MessageId], to: &FolderId) -> Vec<Result<MoveOutcome>>;

    /// Which mailbox this is.
    fn mailbox(&self) -> &MailboxInfo;

    /// The folder that a spec means.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound), listing existing folders, nearest first.
    async fn resolve_folder(&self, spec: &FolderSpec) -> Result<Folder>;

    /// Makes a folder and what is missing above it. One that exists is a success.
    async fn create_folder(&self, spec: &FolderSpec) -> Result<Folder>;

    /// Whether messages can be moved out of, or into, this folder, as far as can be told without writing.
    async fn folder_access(&self, folder: &FolderId) -> Result<Access>;

    /// One message, wherever it is now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is no such message (any more).
    async fn fetch_message(&self, message: &MessageId) -> Result<Message>;

    /// Marks messages as read, or as unread; the answer has the same length and order.
    async fn mark_read(&self, messages: &[MessageId], read: bool) -> Vec<Result<()>>;

    /// What callers must do differently for this account.
    fn capabilities(&self) -> Capabilities;

    /// What the account has cost so far.
    fn usage(&self) -> Usage;
}

/// Which mailbox an account reads, and by what name the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MailboxInfo {
    /// The account's identifier in the configuration.
    pub account: String,
    /// The provider's name: `graph`, `imap`, `maildir`, `memory`.
    pub provider: String,
    /// The mailbox's name: its address where known, else its object id or path. The ledger's scope.
    pub name: String,
}

impl MailboxInfo {
    /// Names are compared trimmed and ignoring case; `name` is kept in that form.
    pub fn new(account: impl Into<String>, provider: impl Into<String>, name: &str) -> Self {
        Self { account: account.into(), provider: provider.into(), name: name.trim().to_lowercase() }
    }

    /// A mailbox that is known by where it lies. `path` should be canonical; its case is kept.
    pub fn from_path(account: impl Into<String>, provider: impl Into<String>, path: &Path) -> Self {
        Self { account: account.into(), provider: provider.into(), name: path.display().to_string() }
    }
}

/// Which messages, and how much of each.
///
/// ```
/// use mail_account::Query;
/// let query = Query::default().with_unread_only(true).with_limit(10);
/// assert_eq!(query.limit, Some(10));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Query {
    /// Only messages nobody has read.
    pub unread_only: bool,
    /// Only messages received then or later. A second early is possible: services round.
    pub since: Option<Timestamp>,
    /// At most so many.
    pub limit: Option<usize>,
    /// Only messages with this `Message-ID` header, compared without regard to angle brackets. Servers that can
    /// search do; the others are read through.
    pub internet_message_id: Option<String>,
    /// Names of headers to give in [`Message::headers`].
    pub headers: Vec<String>,
    /// Whether to give [`Message::text`] and [`Message::html`], each up to 1 MiB.
    pub text: bool,
    /// Attachments of at most so many bytes come with their content. Default 256 KiB.
    pub inline_up_to: u64,
    /// Asked before a message's content is fetched; one for which it says `true` is left out.
    pub skip: Option<Skip>,
}

/// Says which messages a listing need not fetch.
pub type Skip = Arc<dyn Fn(&MessageId) -> bool + Send + Sync>;

impl Default for Query {
    fn default() -> Self {
        Self {
            unread_only: false,
            since: None,
            limit: None,
            internet_message_id: None,
            headers: Vec::new(),
            text: false,
            inline_up_to: 256 * 1024,
            skip: None,
        }
    }
}

impl Query {
    /// Sets [`unread_only`](Self::unread_only).
    #[must_use]
    pub fn with_unread_only(mut self, unread_only: bool) -> Self {
        self.unread_only = unread_only;
        self
    }

    /// Sets [`since`](Self::since).
    #[must_use]
    pub fn with_since(mut self, since: impl Into<Option<Timestamp>>) -> Self {
        self.since = since.into();
        self
    }

    /// Sets [`limit`](Self::limit).
    #[must_use]
    pub fn with_limit(mut self, limit: impl Into<Option<usize>>) -> Self {
        self.limit = limit.into();
        self
    }

    /// Sets [`internet_message_id`](Self::internet_message_id).
    #[must_use]
    pub fn with_internet_message_id(mut self, id: impl Into<String>) -> Self {
        self.internet_message_id = Some(id.into());
        self
    }

    /// Sets [`headers`](Self::headers).
    #[must_use]
    pub fn with_headers<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.headers = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`text`](Self::text).
    #[must_use]
    pub fn with_text(mut self, text: bool) -> Self {
        self.text = text;
        self
    }

    /// Sets [`inline_up_to`](Self::inline_up_to).
    #[must_use]
    pub fn with_inline_up_to(mut self, bytes: u64) -> Self {
        self.inline_up_to = bytes;
        self
    }

    /// Sets [`skip`](Self::skip).
    #[must_use]
    pub fn with_skip(mut self, skip: impl Fn(&MessageId) -> bool + Send + Sync + 'static) -> Self {
        self.skip = Some(Arc::new(skip));
        self
    }

    /// Whether a listing need not fetch this message. Ask once per message: the caller may be counting.
    #[must_use]
    pub fn skips(&self, id: &MessageId) -> bool {
        self.skip.as_ref().is_some_and(|skip| skip(id))
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("unread_only", &self.unread_only)
            .field("since", &self.since)
            .field("limit", &self.limit)
            .field("internet_message_id", &self.internet_message_id)
            .field("headers", &self.headers)
            .field("text", &self.text)
            .field("inline_up_to", &self.inline_up_to)
            .field("skip", &self.skip.is_some())
            .finish()
    }
}

/// What became of one message that was to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MoveOutcome {
    /// It is in that folder and no longer in the old one; verified whenever the answer was lost or ambiguous.
    Moved(MessageId),
    /// A copy is in that folder, and the original is marked as deleted but still there, because this server cannot
    /// remove single messages (IMAP without MOVE and UIDPLUS). Listings leave the original out.
    CopiedNotRemoved(MessageId),
    /// It is no longer in this mailbox, or not where the handle said.
    Gone,
}

/// Whether a folder can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// It can.
    ReadWrite,
    /// It cannot.
    ReadOnly,
    /// Only writing would tell.
    Unknown,
}

/// What callers must do differently for an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// How many messages one call of [`move_to_processed`](MailAccount::move_to_processed) should carry.
    pub move_batch: usize,
    /// Whether a handle stays the same when its message moves.
    pub stable_ids: bool,
}

impl Capabilities {
    /// With these values.
    #[must_use]
    pub const fn new(move_batch: usize, stable_ids: bool) -> Self {
        Self { move_batch, stable_ids }
    }
}

/// What an account has cost since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Requests as the service counts them: Graph requests (a part of a batch counts as one), IMAP commands; 0 for
    /// providers without a server.
    pub requests: u64,
    /// Times we waited for the network: Graph HTTP requests, IMAP commands.
    pub round_trips: u64,
    /// Times the service asked for a pause.
    pub throttled: u64,
}

impl Usage {
    /// Of so many requests and round trips.
    #[must_use]
    pub fn new(requests: u64, round_trips: u64, throttled: u64) -> Self {
        Self { requests, round_trips, throttled }
    }
}
