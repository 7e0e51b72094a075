//! Base64 (RFC 2045, section 6.8), clean or not.

use base64_simd::STANDARD_NO_PAD;
use memchr::memchr;

/// How much is looked at in one go: small enough to stay in the first-level cache twice.
const STRIDE: usize = 12 * 1024;

const FOREIGN: u8 = 0xff;
const BLANK: u8 = 0xfe;
const PAD: u8 = 0xfd;

/// What each byte stands for.
const VALUES: [u8; 256] = {
    let mut values = [FOREIGN; 256];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut i = 0;
    while i < alphabet.len() {
        values[alphabet[i] as usize] = i as u8;
        i += 1;
    }
    values[b'\r' as usize] = BLANK;
    values[b'\n' as usize] = BLANK;
    values[b' ' as usize] = BLANK;
    values[b'\t' as usize] = BLANK;
    values[b'=' as usize] = PAD;
    values
};

#[derive(Debug, Default)]
pub(super) struct Base64 {
    /// Characters of a group of four that is not complete yet.
    group: [u8; 4],
    len: usize,
    /// The input without its line ends.
    packed: Vec<u8>,
    pub(super) broken: bool,
}

impl Base64 {
    pub(super) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        out.reserve(input.len() / 4 * 3 + 3);
        for input in input.chunks(STRIDE) {
            self.stride(input, out);
        }
    }

    fn stride(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let mut packed = std::mem::take(&mut self.packed);
        packed.clear();
        packed.extend_from_slice(&self.group[..self.len]);
        self.len = 0;
        let mut rest = input;
        while let Some(end) = memchr(b'\n', rest) {
            let line = &rest[..end];
            packed.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
            rest = &rest[end + 1..];
        }
        packed.extend_from_slice(rest.strip_suffix(b"\r").unwrap_or(rest));

        // Whole groups up to the padding go through SIMD. It says no when anything else is among them.
        let whole = memchr(b'=', &packed).unwrap_or(packed.len()) / 4 * 4;
        let (clean, rest) = packed.split_at(whole);
        if STANDARD_NO_PAD.decode_append(clean, out).is_err() {
            self.one_by_one(clean, out);
        }
        self.one_by_one(rest, out);
        self.packed = packed;
    }

    fn one_by_one(&mut self, input: &[u8], out: &mut Vec<u8>) {
        for &byte in input {
            match VALUES[usize::from(byte)] {
                BLANK => {}
                FOREIGN => self.broken = true,
                // More may follow: encodings of several pieces are joined by careless senders.
                PAD => self.finish(out),
                _ => {
                    self.group[self.len] = byte;
                    self.len += 1;
                    if self.len == 4 {
                        let bits = self.bits();
                        out.extend_from_slice(&bits);
                        self.len = 0;
                    }
                }
            }
        }
    }

    /// The bytes of the group; what is missing counts as zeros.
    fn bits(&self) -> [u8; 3] {
        let bits = self.group[..self.len]
            .iter()
            .zip([18, 12, 6, 0])
            .fold(0_u32, |bits, (&byte, shift)| bits | u32::from(VALUES[usize::from(byte)]) << shift);
        let [_, a, b, c] = bits.to_be_bytes();
        [a, b, c]
    }

    /// Six bits alone are no byte, and trailing bits are dropped.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let whole = self.len * 6 / 8;
        self.broken |= self.len == 1;
        let bits = self.bits();
        out.extend_from_slice(&bits[..whole]);
        self.len = 0;
    }
}
