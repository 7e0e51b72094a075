//! Encoded words (RFC 2047), also where and how the standard does not have them.

use super::{
    charset,
    decode::{self, Encoding},
};

/// The standard allows 75 characters; some senders put a whole subject into one word. Without a limit, many openings
/// without an end would be searched for it over and over.
pub(super) const LONGEST_WORD: usize = 8 * 1024;

/// One `=?charset?encoding?payload?=`.
struct Word<'a> {
    charset: &'a [u8],
    base64: bool,
    payload: &'a [u8],
}

/// The word that `text` starts with, and what follows it.
fn word(text: &[u8]) -> Option<(Word<'_>, &[u8])> {
    let rest = text.strip_prefix(b"=?")?;
    let at = memchr::memchr(b'?', rest).filter(|&at| (1..=60).contains(&at))?;
    let (charset, rest) = (&rest[..at], &rest[at + 1..]);
    if !charset.iter().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let [encoding, b'?', rest @ ..] = rest else { return None };
    let base64 = match encoding {
        b'B' | b'b' => true,
        b'Q' | b'q' => false,
        _ => return None,
    };
    // A `?` within the payload is not allowed and not rare: only `?=` ends it.
    let end = memchr::memmem::find(&rest[..rest.len().min(LONGEST_WORD)], b"?=")?;
    let payload = &rest[..end];
    // RFC 2231, section 5: a language may follow the charset.
    let charset = charset.split(|&b| b == b'*').next().unwrap_or(charset);
    Some((Word { charset, base64, payload }, &rest[end + 2..]))
}

/// Bytes of one charset, gathered over adjacent words: a character may be cut between two of them.
#[derive(Default)]
struct Run {
    charset: Vec<u8>,
    bytes: Vec<u8>,
    /// Base64 characters that did not make a whole group at the end of a word, without padding. They go on in the next
    /// word if the two fit together.
    open: Vec<u8>,
}

impl Run {
    fn push(&mut self, word: &Word<'_>, out: &mut String) {
        if !self.charset.eq_ignore_ascii_case(word.charset) {
            self.flush(out);
            self.charset = word.charset.to_vec();
        }
        if !word.base64 {
            self.close();
            self.bytes.extend(q(word.payload));
            return;
        }
        let letters = word.payload.iter().filter(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/')).count();
        if !(self.open.len() + letters).is_multiple_of(4) {
            self.close();
        }
        let mut payload = std::mem::take(&mut self.open);
        payload.extend_from_slice(word.payload);
        if !payload.len().is_multiple_of(4) && !payload.ends_with(b"=") && letters == word.payload.len() {
            self.open = payload.split_off(payload.len() / 4 * 4);
        }
        self.bytes.extend(decode::decode(Encoding::Base64, &payload).0);
    }

    fn close(&mut self) {
        self.bytes.extend(decode::decode(Encoding::Base64, &self.open).0);
        self.open.clear();
    }

    fn flush(&mut self, out: &mut String) {
        self.close();
        if !self.bytes.is_empty() {
            out.push_str(&charset::decode(Some(&String::from_utf8_lossy(&self.charset)), &self.bytes));
        }
        *self = Self::default();
    }
}

/// The Q encoding (RFC 2047, section 4.2).
fn q(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len());
    let mut rest = payload;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let digit = |at: usize| after.get(at).and_then(|&b| char::from(b).to_digit(16)).map(|d| d as u8);
        match byte {
            b'_' => out.push(b' '),
            b'=' => {
                let (Some(high), Some(low)) = (digit(0), digit(1)) else {
                    out.push(b'=');
                    continue;
                };
                out.push(high << 4 | low);
                rest = &after[2..];
            }
            _ => out.push(byte),
        }
    }
    out
}

/// Whether there may be an encoded word in it.
pub(crate) fn maybe_encoded(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"=?").is_some()
}

/// A piece of a header value.
pub(crate) enum Piece<'a> {
    /// Neighbouring encoded words, decoded together.
    Words(String),
    Raw(&'a [u8]),
}

/// Splits a header value into encoded words and what stands between them.
pub(crate) fn pieces(value: &[u8]) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut run, mut in_run) = (Run::default(), false);
    let mut decoded = String::new();
    let (mut raw, mut at) = (0, 0);
    while let Some(next) = memchr::memmem::find(&value[at..], b"=?") {
        let start = at + next;
        let Some((word, rest)) = word(&value[start..]) else {
            at = start + 2;
            continue;
        };
        let between = &value[raw..start];
        // Blanks between two words belong to neither (RFC 2047, section 6.2).
        if !(in_run && between.iter().all(u8::is_ascii_whitespace)) {
            if in_run {
                run.flush(&mut decoded);
                pieces.push(Piece::Words(std::mem::take(&mut decoded)));
            }
            if !between.is_empty() {
                pieces.push(Piece::Raw(between));
            }
        }
        run.push(&word, &mut decoded);
        in_run = true;
        at = value.len() - rest.len();
        raw = at;
    }
    if in_run {
        run.flush(&mut decoded);
        pieces.push(Piece::Words(decoded));
    }
    if raw < value.len() {
        pieces.push(Piece::Raw(&value[raw..]));
    }
    pieces
}

/// A header value as text, wherever in it encoded words or raw 8-bit bytes stand. `fallback` is the charset of the part.
pub(crate) fn text(value: &[u8], fallback: Option<&str>) -> String {
    if !maybe_encoded(value) {
        return charset::guess(fallback, value);
    }
    pieces(value)
        .into_iter()
        .map(|piece| match piece {
            Piece::Words(text) => text,
            Piece::Raw(bytes) => charset::guess(fallback, bytes),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_decoded_wherever_they_stand() {
        for (value, expected) in [
            ("=?utf-8?Q?Caf=C3=A9?=", "Café"),
            ("=?iso-8859-1?q?a_b=E9?= c", "a bé c"),
            ("x=?utf-8?B?w6k=?=y", "xéy"),
            ("\"=?utf-8?B?w6k=?=\"", "\"é\""),
            ("=?utf-8?Q?a?= =?utf-8?Q?b?=", "ab"),
            ("=?utf-8?Q?a?= b =?utf-8?Q?c?=", "a b c"),
            ("=?utf-8?Q?a?=\t =?iso-8859-1?Q?=E9?=", "aé"),
            // A character cut between two words, in both encodings.
            ("=?utf-8?Q?=C3?= =?utf-8?Q?=A9?=", "é"),
            ("=?utf-8?B?ww==?= =?UTF-8?B?qQ==?=", "é"),
            // A group of four cut between two words; missing padding.
            ("=?utf-8?B?SGVsb?= =?utf-8?B?G8h?=", "Hello!"),
            ("=?utf-8?B?w6k?= =?utf-8?B?w6k?=", "éé"),
            // Blanks and `?` in the payload, a language, an unknown charset.
            ("=?utf-8?Q?a b? c?=", "a b? c"),
            ("=?utf-8*nl?Q?=C3=A9?=", "é"),
            ("=?x-nothing?Q?=C3=A9?=", "é"),
            ("=?utf-8?Q?no=ZZ=?=", "no=ZZ="),
            // Not words.
            ("=?utf-8?Q?open", "=?utf-8?Q?open"),
            ("=?utf-8?X?a?=", "=?utf-8?X?a?="),
            ("a =? b ?= c", "a =? b ?= c"),
        ] {
            assert_eq!(text(value.as_bytes(), None), expected, "{value}");
        }
        assert_eq!(text(b"Caf\xe9 =?utf-8?Q?=C3=A9?=", None), "Café é");
    }
}
