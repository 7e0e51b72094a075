//! What the fuzz targets in `fuzz/` call: the code that reads bytes of strangers, each with what must hold for any bytes.
//!
//! Built only by `cargo fuzz`, which sets `cfg(fuzzing)`. A target has nothing but a call in it, so that what is checked
//! is checked by the compiler with everything else.

use std::collections::HashSet;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream};
use jiff::Timestamp;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use crate::{
    FolderId, Message, MessageId, Query,
    folder::utf7,
    mime::{
        self, Source,
        decode::{self, Decoder, Encoding},
        names,
    },
    provider::imap::wire::{
        reader::{Deadline, Frame, Kept, MAX_LITERALS, Reader, Response},
        response::{self, Incoming, Untagged},
        structure::{Part, Structure},
        token::{Cursor, MAX_DEPTH},
    },
};

/// The first byte says how the rest is cut. An empty input is nobody's.
fn cut(data: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = data.split_first()?;
    Some((usize::from(*first) + 1, rest))
}

fn in_pieces(bytes: &[u8], size: usize) -> impl AsyncRead + Unpin {
    let pieces: Vec<_> = bytes.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    StreamReader::new(stream::iter::<Vec<std::io::Result<Bytes>>>(pieces))
}

/// Everything that a reader makes of bytes: responses, and the pieces of streamed literals put together.
fn frames(source: impl AsyncRead + Unpin, streams: bool) -> (Vec<Response>, Vec<Vec<u8>>, bool) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let mut reader = Reader::new(source, Deadline::progress(std::time::Duration::from_secs(5)));
            let (mut responses, mut literals) = (Vec::new(), Vec::new());
            loop {
                match reader.next(|_, size| streams && size % 2 == 0).await {
                    Ok(Frame::Response(response)) => responses.push(response),
                    Ok(Frame::Literal { .. }) => {
                        let mut literal = Vec::new();
                        loop {
                            match reader.chunk().await {
                                Ok(Some(piece)) => literal.extend_from_slice(&piece),
                                Ok(None) => break,
                                Err(_) => return (responses, literals, false),
                            }
                        }
                        literals.push(literal);
                    }
                    Err(_) => return (responses, literals, true),
                }
            }
        })
    })
}

/// Framing does not depend on how the bytes arrive, and keeps no more than came.
pub fn reader(data: &[u8]) {
    let Some((size, bytes)) = cut(data) else { return };
    let streams = size.is_multiple_of(2);
    let (whole, literals, between) = frames(bytes, streams);
    let (pieces, same_literals, same) = frames(in_pieces(bytes, size), streams);
    assert_eq!((literals, between), (same_literals, same));
    assert_eq!(whole.len(), pieces.len());
    let mut kept = 0;
    for (one, other) in whole.iter().zip(&pieces) {
        assert_eq!(one.raw, other.raw);
        kept += one.raw.len();
        let inline =
            one.literals.iter().filter(|l| l.kept == Kept::Inline).map(|l| l.announced as usize).sum::<usize>();
        assert!(inline <= MAX_LITERALS);
    }
    assert!(kept <= bytes.len());
}

/// Every value ends behind where it began, and every response means something or nothing.
pub fn tokens(data: &[u8]) {
    for response in frames(data, false).0 {
        let mut cursor = Cursor::new(&response);
        while !cursor.is_end() {
            let before = cursor.rest().len();
            cursor.text_outside_literals();
            if cursor.value().is_err() {
                break;
            }
            assert!(cursor.rest().len() < before);
        }
        response::parse(&response);
    }
}

/// A structure is unknown, or all its leaves have sections of their own.
pub fn structure(data: &[u8]) {
    let text = [b"* 1 FETCH (UID 7 BODYSTRUCTURE ", data, b")\r\n"].concat();
    for response in frames(&text[..], false).0 {
        let Incoming::Untagged(Untagged::Fetch(fetch)) = response::parse(&response) else { continue };
        let Some(Structure::Part(top)) = fetch.structure else { continue };
        let leaves = top.leaves();
        let sections: HashSet<&str> = leaves.iter().map(|leaf| leaf.section.as_str()).collect();
        assert_eq!(sections.len(), leaves.len());
        assert!(depth(&top) <= MAX_DEPTH);
    }
}

fn depth(part: &Part) -> usize {
    1 + part.children.iter().map(depth).max().unwrap_or(0)
}

/// What comes out does not depend on how what goes in is cut.
pub fn decoders(data: &[u8]) {
    let Some((size, bytes)) = cut(data) else { return };
    for encoding in [Encoding::Base64, Encoding::QuotedPrintable, Encoding::Uuencode, Encoding::Unknown] {
        let (whole, broken) = decode::decode(encoding, bytes);
        let mut decoder = Decoder::new(encoding);
        let mut out = Vec::new();
        for piece in bytes.chunks(size) {
            decoder.push(piece, &mut out);
        }
        decoder.finish(&mut out);
        assert_eq!((out, decoder.is_broken()), (whole, broken), "{encoding:?}");
        assert!(out_of(bytes) >= decode::decode(encoding, bytes).0.len(), "{encoding:?}");
    }
}

/// The most that may come of these bytes: a line of uuencode whose blanks were lost on the way says what it had.
fn out_of(bytes: &[u8]) -> usize {
    bytes.len() + 64 * (1 + bytes.iter().filter(|byte| **byte == b'\n').count())
}

/// A name from any header is safe to write, and stays the same when it is made safe again.
pub fn file_names(data: &[u8]) {
    let text = [b"Content-Type: application/pdf; ", data, b"\r\n\r\n"].concat();
    let named = read(Bytes::from(text)).attachments.into_iter().filter_map(|attachment| attachment.name);
    for name in named.chain([String::from_utf8_lossy(data).into_owned()]) {
        for kind in ["application/pdf", "message/rfc822"] {
            let safe = names::safe_file_name(Some(&name), kind);
            assert!(!safe.is_empty() && safe.len() <= 255, "{safe:?}");
            assert!(!safe.starts_with('.') && !safe.ends_with(['.', ' ']), "{safe:?}");
            assert!(!safe.contains(|c: char| c.is_control() || "/\\<>:\"|?*".contains(c)), "{safe:?}");
            assert_eq!(names::safe_file_name(Some(&safe), kind), safe);
        }
    }
}

/// A name that people see leads back to the name on the wire, or is shown as it is.
pub fn folder_names(data: &[u8]) {
    let name = utf7::decode(data);
    assert_eq!(utf7::decode(&utf7::encode(&name)), name);
}

/// A whole message is read, and its attachments give when downloaded what they gave when listed.
pub fn message(data: &[u8]) {
    let message = read(Bytes::copy_from_slice(data));
    let mut total = 0;
    for attachment in &message.attachments {
        let Some(inline) = &attachment.content else { continue };
        total += inline.len();
        let source = Source::Bytes(Bytes::copy_from_slice(data));
        let pieces = mime::content(source, &attachment.id).into_stream().collect::<Vec<_>>().now_or_never();
        let pieces: crate::Result<Vec<Bytes>> = pieces.expect("memory does not wait").into_iter().collect();
        assert_eq!(pieces.expect("what was listed is there").concat(), &inline[..]);
    }
    assert!(total <= out_of(data), "{total} of {}", data.len());
}

fn read(bytes: Bytes) -> Message {
    let shell = Message::new(MessageId::new("1"), FolderId::new("1"), Timestamp::UNIX_EPOCH);
    let query = Query::default().with_text(true);
    // No thread is started for a message as small as a fuzzer makes them.
    let read = mime::read(&Source::Bytes(bytes), shell, &query, "box@example.com").now_or_never();
    read.expect("memory does not wait").expect("no message is too broken")
}
