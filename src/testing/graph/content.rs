//! Bytes that are not kept in memory: attachment content and answer bodies as lists of parts.
//!
//! An answer with a 150 MB attachment is described, not built: the proxy asks for it in small
//! chunks while it writes. Generated content has no storage at all; every block follows from a
//! seed and a position.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much is produced at a time. A multiple of 57, so that base64 lines stay whole.
const CHUNK: u64 = 57 * 1024;
/// Base64 in MIME: 57 bytes give a line of 76 characters (RFC 2045, section 6.8).
const MIME_LINE: u64 = 57;

/// The content of one file, stored or generated.
#[derive(Clone)]
pub(crate) enum Content {
    Stored(Bytes),
    Generated { seed: u64, len: u64 },
}

impl Content {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Content::Stored(bytes) => bytes.len() as u64,
            Content::Generated { len, .. } => *len,
        }
    }

    /// Appends `count` bytes from `offset`, less at the end.
    pub(crate) fn read(&self, offset: u64, count: u64, out: &mut Vec<u8>) {
        let end = (offset + count).min(self.len());
        if offset >= end {
            return;
        }
        match self {
            Content::Stored(bytes) => {
                out.extend_from_slice(&bytes[offset as usize..end as usize]);
            }
            Content::Generated { seed, .. } => {
                let noise = noise();
                let mut at = offset;
                while at < end {
                    let (block, lead) = (at / BLOCK, at % BLOCK);
                    let start = mix(seed.wrapping_add(block)) % (NOISE - BLOCK) + lead;
                    let count = (BLOCK - lead).min(end - at);
                    out.extend_from_slice(&noise[start as usize..(start + count) as usize]);
                    at += count;
                }
            }
        }
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        match self {
            Content::Stored(bytes) => bytes.clone(),
            Content::Generated { len, .. } => {
                let mut out = Vec::with_capacity(*len as usize + 8);
                self.read(0, *len, &mut out);
                out.into()
            }
        }
    }

    pub(crate) fn sha256(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let mut buffer = Vec::new();
        let mut offset = 0;
        while offset < self.len() {
            buffer.clear();
            self.read(offset, CHUNK, &mut buffer);
            digest.update(&buffer);
            offset += buffer.len() as u64;
        }
        digest.finalize().into()
    }
}

/// Generated content is cut out of one block of noise, each piece at a place that the seed and its
/// position give. Making every byte anew would cost tests more time than what they test.
const NOISE: u64 = 1 << 20;
const BLOCK: u64 = 4096;

fn noise() -> &'static [u8] {
    static NOISE_BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE_BYTES.get_or_init(|| (0..NOISE / 8).flat_map(|number| mix(number).to_le_bytes()).collect())
}

/// SplitMix64: the place of one block of generated content, and every other pseudo-random choice of the fake.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A GUID in its usual spelling, from a number.
pub(crate) fn guid(value: u64) -> String {
    let (a, b) = (mix(value), mix(value ^ 0x5555_5555_5555_5555));
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    )
}

#[derive(Clone)]
enum Part {
    Raw(Content),
    /// One unbroken run of base64, as in JSON.
    Base64(Content),
    /// Base64 in lines, as in MIME.
    Base64Lines(Content),
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Part::Raw(content) => content.len(),
            Part::Base64(content) => content.len().div_ceil(3) * 4,
            Part::Base64Lines(content) => {
                let lines = content.len().div_ceil(MIME_LINE);
                content.len().div_ceil(3) * 4 + lines * 2
            }
        }
    }

    /// Appends the encoding of the source bytes from `offset`; returns how many were consumed.
    fn read(&self, offset: u64, out: &mut Vec<u8>) -> u64 {
        match self {
            Part::Raw(content) => {
                let before = out.len();
                content.read(offset, CHUNK, out);
                (out.len() - before) as u64
            }
            Part::Base64(content) => {
                let mut source = Vec::new();
                content.read(offset, CHUNK, &mut source);
                base64_simd::STANDARD.encode_append(&source, out);
                source.len() as u64
            }
            Part::Base64Lines(content) => {
                let mut source = Vec::new();
                content.read(offset, CHUNK, &mut source);
                for line in source.chunks(MIME_LINE as usize) {
                    base64_simd::STANDARD.encode_append(line, out);
                    out.extend_from_slice(b"\r\n");
                }
                source.len() as u64
            }
        }
    }

    fn source_len(&self) -> u64 {
        match self {
            Part::Raw(content) | Part::Base64(content) | Part::Base64Lines(content) => content.len(),
        }
    }
}

/// The body of an answer.
#[derive(Clone, Default)]
pub(crate) struct Body {
    parts: Vec<Part>,
}

impl Body {
    pub(crate) fn raw(content: Content) -> Self {
        Body { parts: vec![Part::Raw(content)] }
    }

    pub(crate) fn push(&mut self, bytes: impl Into<Bytes>) {
        self.parts.push(Part::Raw(Content::Stored(bytes.into())));
    }

    pub(crate) fn push_base64_lines(&mut self, content: Content) {
        self.parts.push(Part::Base64Lines(content));
    }

    pub(crate) fn append(&mut self, other: Body) {
        self.parts.extend(other.parts);
    }

    pub(crate) fn len(&self) -> u64 {
        self.parts.iter().map(Part::len).sum()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut reader = BodyReader::new(self.clone());
        let mut out = Vec::with_capacity(self.len() as usize);
        while let Some(chunk) = reader.next_chunk() {
            out.extend_from_slice(&chunk);
        }
        out
    }
}

/// Produces a body chunk by chunk.
pub(crate) struct BodyReader {
    body: Body,
    part: usize,
    offset: u64,
}

impl BodyReader {
    pub(crate) fn new(body: Body) -> Self {
        BodyReader { body, part: 0, offset: 0 }
    }

    /// The next bytes, never empty; `None` at the end.
    pub(crate) fn next_chunk(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        while let Some(part) = self.body.parts.get(self.part) {
            if self.offset >= part.source_len() {
                self.part += 1;
                self.offset = 0;
                continue;
            }
            self.offset += part.read(self.offset, &mut out);
            if out.len() as u64 >= CHUNK / 2 {
                break;
            }
        }
        (!out.is_empty()).then_some(out)
    }
}

/// Contents that stand in a JSON document as a marker until the document is written.
///
/// `serde_json` would copy every base64 text several times; here it handles a short marker and the
/// content is put in its place as a part of the body.
#[derive(Default)]
pub(crate) struct Slots {
    contents: Vec<(u64, Content)>,
}

/// Below this a content is simply written into the document.
const SLOT_FROM: u64 = 4096;
const MARKER: &str = "@content-of-the-fake-";
static NEXT_SLOT: AtomicU64 = AtomicU64::new(0);

impl Slots {
    /// The content as a JSON string of base64.
    pub(crate) fn base64(&mut self, content: &Content) -> serde_json::Value {
        if content.len() < SLOT_FROM {
            return base64_simd::STANDARD.encode_to_string(content.to_bytes()).into();
        }
        let number = NEXT_SLOT.fetch_add(1, Ordering::Relaxed);
        self.contents.push((number, content.clone()));
        format!("{MARKER}{number:016x}@").into()
    }

    pub(crate) fn merge(&mut self, other: Slots) {
        self.contents.extend(other.contents);
    }

    /// Writes the document, with the contents in the places of their markers.
    pub(crate) fn finish(self, document: &serde_json::Value) -> Body {
        let text = Bytes::from(document.to_string());
        let mut body = Body::default();
        let mut done = 0;
        for at in memchr::memmem::find_iter(&text, MARKER) {
            let digits = at + MARKER.len();
            let number = text
                .get(digits..digits + 16)
                .and_then(|hex| std::str::from_utf8(hex).ok())
                .and_then(|hex| u64::from_str_radix(hex, 16).ok());
            let content = self.contents.iter().find(|(candidate, _)| Some(*candidate) == number);
            let Some((_, content)) = content else {
                continue;
            };
            body.push(text.slice(done..at));
            body.parts.push(Part::Base64(content.clone()));
            done = digits + 17;
        }
        body.push(text.slice(done..));
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_content_does_not_depend_on_how_it_is_read() {
        let content = Content::Generated { seed: 7, len: 1003 };
        let whole = content.to_bytes();
        assert_eq!(whole.len(), 1003);
        let mut pieces = Vec::new();
        for offset in (0..1003).step_by(13) {
            content.read(offset, 13, &mut pieces);
        }
        assert_eq!(whole, pieces);
    }

    #[test]
    fn a_body_is_as_long_as_it_says() {
        for len in [0, 1, 2, 3, 56, 57, 58, 113, 114, CHUNK - 1, CHUNK, CHUNK + 1] {
            let content = Content::Generated { seed: 1, len };
            let mut body = Body::default();
            body.push("head");
            body.push_base64_lines(content.clone());
            body.parts.push(Part::Base64(content.clone()));
            body.append(Body::raw(content.clone()));
            assert_eq!(body.to_bytes().len() as u64, body.len(), "{len}");
        }
    }

    #[test]
    fn slots_end_up_in_the_document() {
        let mut slots = Slots::default();
        let content = Content::Generated { seed: 3, len: 9000 };
        let document = serde_json::json!({"a": slots.base64(&content), "b": 1, "c": slots.base64(&content)});
        let text = slots.finish(&document).to_bytes();
        let parsed: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let expected = base64_simd::STANDARD.encode_to_string(content.to_bytes());
        assert_eq!(parsed["a"], expected);
        assert_eq!(parsed["c"], expected);
        assert_eq!(parsed["b"], 1);
    }
}
