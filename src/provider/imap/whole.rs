//! Whole messages: in memory while they are small, in a temporary file beyond that.

use std::{io::Write as _, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tempfile::TempPath;

use super::{download::Section, handle::Handle, pool::Shared};
use crate::{AttachmentId, Content, Error, ErrorKind, Result, mime, mime::Source};

/// Largest message that is kept in memory.
const IN_MEMORY: usize = 4 << 20;

/// A message's bytes; a file goes when this goes.
pub(crate) struct Whole {
    pub(crate) source: Source,
    file: Option<TempPath>,
}

pub(crate) async fn fetch(shared: &Arc<Shared>, handle: Handle) -> Result<Whole> {
    keep(Section::new(shared, handle, "")).await
}

async fn keep(mut section: impl Stream<Item = Result<Bytes>> + Unpin) -> Result<Whole> {
    let mut head: Vec<u8> = Vec::new();
    let more = loop {
        match section.next().await.transpose()? {
            None => return Ok(Whole { source: Source::Bytes(head.into()), file: None }),
            Some(bytes) if head.len() + bytes.len() <= IN_MEMORY => head.extend_from_slice(&bytes),
            Some(bytes) => break bytes,
        }
    };
    // Only its owner can read it.
    let mut file = tempfile::Builder::new().prefix("mail-account-").tempfile().map_err(storage)?;
    let mut next = Some(Bytes::from(head));
    let mut then = Some(more);
    while let Some(bytes) = next {
        // A disk may be slow, and others share this thread.
        file = tokio::task::spawn_blocking(move || file.write_all(&bytes).map(|()| file))
            .await
            .map_err(|e| Error::new(ErrorKind::Other, "writing a temporary file was cut off").with_source(e))?
            .map_err(storage)?;
        next = match then.take() {
            Some(bytes) => Some(bytes),
            None => section.next().await.transpose()?,
        };
    }
    let path = file.into_temp_path();
    Ok(Whole { source: Source::File(Arc::new(path.to_path_buf())), file: Some(path) })
}

fn storage(error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Storage,
        "a large message cannot be kept in a temporary file; free some room, or set TMPDIR to another place",
    )
    .with_source(error)
}

/// An attachment that is only known within the whole message.
pub(crate) fn attachment(shared: &Arc<Shared>, handle: Handle, id: &AttachmentId) -> Content {
    let (shared, id) = (Arc::clone(shared), id.clone());
    Content::from_fn(async move || {
        let whole = fetch(&shared, handle).await?;
        let file = whole.file;
        let bytes = mime::content(whole.source, &id).into_stream();
        // The file must outlive the stream that reads it.
        Ok(bytes.inspect(move |_| _ = &file).boxed())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn large_messages_go_to_a_file_that_goes_away() {
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        let pieces = |n| futures::stream::iter(std::iter::repeat_n(piece.clone(), n).map(Ok));
        let small = keep(pieces(4)).await.unwrap();
        assert!(matches!(&small.source, Source::Bytes(bytes) if bytes.len() == 4 << 20));
        let large = keep(pieces(6)).await.unwrap();
        let Source::File(path) = &large.source else { panic!("a file") };
        let path = path.to_path_buf();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 6 << 20);
        drop(large);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_broken_download_is_no_message() {
        let pieces = futures::stream::iter([Ok(Bytes::from("half")), Err(Error::new(ErrorKind::Unavailable, "cut"))]);
        assert_eq!(keep(pieces).await.err().unwrap().kind(), ErrorKind::Unavailable);
    }
}
