//! The decoded bytes of one part.

use std::ops::Range;

use bytes::Bytes;
use futures::stream;

use crate::{AttachmentId, Content, Error, ErrorKind, Result};

use super::{
    Input, Source,
    decode::{Decoder, Encoding},
    interrupted,
    scan::Scanner,
};

/// The decoded bytes of one attachment that [`read`](super::read()) listed, or the raw message.
pub(crate) fn content(source: Source, attachment: &AttachmentId) -> Content {
    let attachment = attachment.clone();
    Content::from_fn(async move || {
        let in_memory = matches!(source, Source::Bytes(_));
        let part = blocking(in_memory, move || Part::open(&source, &attachment)).await?;
        let pieces = stream::try_unfold(part, move |part| async move {
            let step = move || {
                let mut part = part;
                Ok(part.next()?.map(|bytes| (bytes, part)))
            };
            blocking(in_memory, step).await
        });
        Ok(Box::pin(pieces) as _)
    })
}

/// Files are read where waiting is allowed; a piece of memory is decoded in well under a millisecond.
async fn blocking<T: Send + 'static>(in_memory: bool, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    if in_memory {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(interrupted)?
}

#[derive(Debug)]
struct Part {
    input: Input,
    range: Range<u64>,
    /// `None` once everything has come out.
    decoder: Option<Decoder>,
    as_is: bool,
}

impl Part {
    fn open(source: &Source, attachment: &AttachmentId) -> Result<Self> {
        let mut input = Input::open(source)?;
        if attachment.is_raw() {
            let range = 0..input.len()?;
            return Ok(Self { input, range, decoder: None, as_is: true });
        }
        let structure = input.scan(Scanner::until(attachment.as_str()))?;
        let part = structure.parts.into_iter().find(|part| part.id == attachment.as_str()).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("the message has no part `{attachment}`; list its attachments again"),
            )
        })?;
        let encoding = part.header.encoding;
        let as_is = matches!(encoding, Encoding::Identity | Encoding::Unknown);
        Ok(Self { input, range: part.body, decoder: (!as_is).then(|| Decoder::new(encoding)), as_is })
    }

    fn next(&mut self) -> Result<Option<Bytes>> {
        if self.as_is {
            return if self.range.is_empty() { Ok(None) } else { self.input.next(&mut self.range).map(Some) };
        }
        let mut out = Vec::new();
        while out.is_empty()
            && let Some(decoder) = &mut self.decoder
        {
            if self.range.is_empty() {
                decoder.finish(&mut out);
                self.decoder = None;
            } else {
                decoder.push(&self.input.next(&mut self.range)?, &mut out);
            }
        }
        Ok((!out.is_empty()).then(|| out.into()))
    }
}
