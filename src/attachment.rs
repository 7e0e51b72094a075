//! Attachments, and [`Content`]: bytes that are fetched when asked for.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::{
    Stream, StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::{Error, ErrorKind, Result};

/// The provider's handle of one attachment within its message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttachmentId(String);

impl AttachmentId {
    /// The whole message, as RFC 5322. Every message of every provider can be downloaded under it.
    pub const RAW: &'static str = "raw";

    /// Wraps the provider's handle.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The whole message, as RFC 5322.
    #[must_use]
    pub fn raw() -> Self {
        Self::new(Self::RAW)
    }

    /// The provider's handle.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the whole message.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.0 == Self::RAW
    }
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of thing is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttachmentKind {
    /// A file.
    File,
    /// A message, event or contact. A message arrives as `message/rfc822`, named `.eml`.
    Item,
    /// A link to a file in somebody's cloud. Its content cannot be downloaded; see [`Attachment::url`].
    Link,
}

impl AttachmentKind {
    /// The name used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Item => "item",
            Self::Link => "link",
        }
    }
}

/// One attachment, without its content unless that was small enough to come along.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attachment {
    /// The provider's handle.
    pub id: AttachmentId,
    /// The name as the sender gave it, decoded. May be hostile; for a disk use [`file_name`](Self::file_name).
    pub name: Option<String>,
    /// The media type, lower case, without parameters.
    pub content_type: String,
    /// What kind of thing it is.
    pub kind: AttachmentKind,
    /// Meant to be shown within the text, such as a logo.
    pub inline: bool,
    /// What the HTML text refers to it by, without angle brackets.
    pub content_id: Option<String>,
    /// About how many bytes, where the service says so. A hint; only a download tells.
    pub size_hint: Option<u64>,
    /// Where a [`Link`](AttachmentKind::Link) leads.
    pub url: Option<String>,
    /// The bytes, decoded, when they came with the listing; see [`Query::inline_up_to`](crate::Query::inline_up_to).
    pub content: Option<Bytes>,
}

impl Attachment {
    /// A plain file; set the other fields as needed.
    pub fn new(id: AttachmentId, content_type: impl Into<String>) -> Self {
        Self {
            id,
            name: None,
            content_type: content_type.into(),
            kind: AttachmentKind::File,
            inline: false,
            content_id: None,
            size_hint: None,
            url: None,
            content: None,
        }
    }

    /// A name that is safe on any disk: no path, no control or bidirectional characters, no reserved device name,
    /// at most 150 bytes with the extension kept, never empty.
    ///
    /// ```
    /// use mail_account::{Attachment, AttachmentId};
    /// let mut attachment = Attachment::new(AttachmentId::new("2"), "application/pdf");
    /// attachment.name = Some(r"C:\scans\..\CON.pdf".into());
    /// assert_eq!(attachment.file_name(), "_CON.pdf");
    /// attachment.name = None;
    /// assert_eq!(attachment.file_name(), "attachment.pdf");
    /// ```
    #[must_use]
    pub fn file_name(&self) -> String {
        crate::mime::names::safe_file_name(self.name.as_deref(), &self.content_type)
    }
}

type Opened = Pin<Box<dyn Future<Output = Result<BoxStream<'static, Result<Bytes>>>> + Send>>;

/// The bytes of an attachment, or of a whole message, decoded; fetched when first polled.
///
/// Either complete or an error: a stream that ends without an error has given every byte. Memory use does not depend
/// on the length.
///
/// ```
/// use mail_account::Content;
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let content = Content::from_bytes("hello");
/// let mut out = Vec::new();
/// assert_eq!(content.write_to(&mut out).await?, 5);
/// assert_eq!(out, b"hello");
/// # Ok::<(), mail_account::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Content {
    open: Box<dyn FnOnce() -> Opened + Send>,
    tap: Option<Tap>,
}

/// Listens to what passes through a [`Content`].
pub(crate) type Tap = Arc<dyn Fn(Tapped<'_>) + Send + Sync>;

/// What passes through a [`Content`], for whoever listens: the importer, which hashes it.
pub(crate) enum Tapped<'a> {
    Bytes(&'a [u8]),
    End,
    Failed(&'a Error),
}

impl Content {
    /// Bytes that are there already.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::from_fn(async move || Ok(stream::once(async move { Ok(bytes) }).boxed()))
    }

    /// Bytes that `open` gets when they are first asked for.
    pub fn from_fn<F, Fut>(open: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<BoxStream<'static, Result<Bytes>>>> + Send + 'static,
    {
        Self { open: Box::new(move || Box::pin(open())), tap: None }
    }

    /// A stream that starts its own I/O at its first poll.
    pub fn from_stream(stream: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self::from_fn(async move || Ok(stream.boxed()))
    }

    /// Bytes that cannot be had, with the reason.
    pub fn refused(error: Error) -> Self {
        Self::from_fn(async move || Err(error))
    }

    pub(crate) fn with_tap(mut self, tap: Tap) -> Self {
        self.tap = Some(tap);
        self
    }

    /// All bytes, in pieces of any length.
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        let Self { open, tap } = self;
        let bytes = stream::once(async move { open().await }).try_flatten();
        match tap {
            None => bytes.boxed(),
            Some(tap) => {
                let end = Arc::clone(&tap);
                let mut failed = false;
                bytes
                    .map(Some)
                    .chain(stream::once(async { None }))
                    .filter_map(move |piece| {
                        match &piece {
                            Some(Ok(bytes)) => tap(Tapped::Bytes(bytes)),
                            Some(Err(error)) => {
                                failed = true;
                                tap(Tapped::Failed(error));
                            }
                            None if !failed => end(Tapped::End),
                            None => {}
                        }
                        std::future::ready(piece)
                    })
                    .boxed()
            }
        }
    }

    /// Writes all bytes to `sink` and flushes it; returns how many there were.
    ///
    /// # Errors
    ///
    /// The account's error when the bytes cannot be had in full, [`ErrorKind::Storage`] when the sink fails.
    pub async fn write_to<W: AsyncWrite + Unpin + Send + ?Sized>(self, sink: &mut W) -> Result<u64> {
        let failed = |e| Error::new(ErrorKind::Storage, "cannot write an attachment's bytes").with_source(e);
        let mut stream = self.into_stream();
        let mut written = 0;
        while let Some(bytes) = stream.try_next().await? {
            sink.write_all(&bytes).await.map_err(failed)?;
            written += bytes.len() as u64;
        }
        sink.flush().await.map_err(failed)?;
        Ok(written)
    }

    /// All bytes in memory, if there are at most `limit`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] as soon as there are more; the account's error when they cannot be had in full.
    pub async fn bytes(self, limit: usize) -> Result<Bytes> {
        let mut stream = self.into_stream();
        let mut all = Vec::new();
        let (mut only, mut total) = (None, 0);
        while let Some(bytes) = stream.try_next().await? {
            total += bytes.len();
            if total > limit {
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    format!("the content is longer than the {limit} bytes that were allowed for it"),
                ));
            }
            // One piece is handed on as it is: small attachments are in memory already.
            if all.is_empty() && only.is_none() {
                only = Some(bytes);
                continue;
            }
            if let Some(first) = only.take() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&bytes);
        }
        Ok(only.unwrap_or_else(|| all.into()))
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_keeps_to_its_limit() {
        let two = || Content::from_stream(stream::iter([Ok(Bytes::from("ab")), Ok(Bytes::from("cd"))]));
        assert_eq!(two().bytes(4).await.unwrap(), "abcd");
        assert_eq!(two().bytes(3).await.unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(Content::from_bytes("").bytes(0).await.unwrap(), "");
        assert_eq!(Content::from_bytes("a").bytes(0).await.unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[tokio::test]
    async fn a_broken_stream_is_an_error_not_a_short_file() {
        let broken =
            Content::from_stream(stream::iter([Ok(Bytes::from("ab")), Err(Error::new(ErrorKind::Unavailable, "cut"))]));
        let mut out = Vec::new();
        assert_eq!(broken.write_to(&mut out).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
