//! Transfer encodings, undone piece by piece.
//!
//! Every decoder keeps its state over piece boundaries: however the input is cut, the output is the same. None refuses
//! anything: what is broken is decoded as far as it goes, and [`Decoder::is_broken`] says so.
//!
//! | file | what it undoes |
//! |---|---|
//! | `base64.rs` | base64 (RFC 2045) |
//! | `quoted_printable.rs` | quoted-printable (RFC 2045) |
//! | `uuencode.rs` | uuencode, from before MIME |

mod base64;
mod quoted_printable;
mod uuencode;

pub(crate) use self::uuencode::{is_begin as is_uu_begin, is_data as is_uu_data};
use self::{base64::Base64, quoted_printable::QuotedPrintable, uuencode::Uuencode};

/// A content transfer encoding (RFC 2045, section 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// `7bit`, `8bit`, `binary`, or none given.
    #[default]
    Identity,
    Base64,
    QuotedPrintable,
    /// Never standardised, and still sent (`x-uuencode`).
    Uuencode,
    /// A word that nobody knows. The bytes are given as they are.
    Unknown,
}

impl Encoding {
    /// Reads the value of a `Content-Transfer-Encoding` header, comments and stray punctuation included.
    pub(crate) fn from_header(value: &[u8]) -> Self {
        let value = String::from_utf8_lossy(value).to_ascii_lowercase();
        let value = value.split(['(', ';']).next().unwrap_or_default();
        let word: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
        match word.as_str() {
            "" | "7bit" | "7bits" | "8bit" | "8bits" | "binary" | "none" => Self::Identity,
            "base64" | "xbase64" => Self::Base64,
            "quotedprintable" | "xquotedprintable" => Self::QuotedPrintable,
            "uuencode" | "xuuencode" | "uue" | "xuue" => Self::Uuencode,
            _ => Self::Unknown,
        }
    }

    /// About how many bytes `encoded` bytes are once decoded. A guess, good for telling large from small.
    pub(crate) fn decoded_size(self, encoded: u64) -> u64 {
        match self {
            // Lines of 76 columns with CRLF.
            Self::Base64 => encoded / 78 * 57 + encoded % 78 * 3 / 4,
            // Lines of 61 columns with LF.
            Self::Uuencode => encoded / 62 * 45,
            Self::Identity | Self::QuotedPrintable | Self::Unknown => encoded,
        }
    }
}

/// Undoes one [`Encoding`].
#[derive(Debug)]
pub(crate) struct Decoder(Kind);

#[derive(Debug)]
enum Kind {
    Raw { broken: bool },
    Base64(Base64),
    QuotedPrintable(QuotedPrintable),
    Uuencode(Uuencode),
}

impl Decoder {
    pub(crate) fn new(encoding: Encoding) -> Self {
        Self(match encoding {
            Encoding::Identity => Kind::Raw { broken: false },
            Encoding::Unknown => Kind::Raw { broken: true },
            Encoding::Base64 => Kind::Base64(Base64::default()),
            Encoding::QuotedPrintable => Kind::QuotedPrintable(QuotedPrintable::default()),
            Encoding::Uuencode => Kind::Uuencode(Uuencode::default()),
        })
    }

    /// Appends to `out` what can be decoded with this piece of input.
    pub(crate) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        match &mut self.0 {
            Kind::Raw { .. } => out.extend_from_slice(input),
            Kind::Base64(decoder) => decoder.push(input, out),
            Kind::QuotedPrintable(decoder) => decoder.push(input, out),
            Kind::Uuencode(decoder) => decoder.push(input, out),
        }
    }

    /// Appends what is left when the input is over.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        match &mut self.0 {
            Kind::Raw { .. } => {}
            Kind::Base64(decoder) => decoder.finish(out),
            Kind::QuotedPrintable(decoder) => decoder.finish(out),
            Kind::Uuencode(decoder) => decoder.finish(out),
        }
    }

    /// Whether anything so far was not as the encoding has it. Missing padding, blanks and line ends of any kind are
    /// not worth mentioning.
    pub(crate) fn is_broken(&self) -> bool {
        match &self.0 {
            Kind::Raw { broken } => *broken,
            Kind::Base64(decoder) => decoder.broken,
            Kind::QuotedPrintable(decoder) => decoder.broken,
            Kind::Uuencode(decoder) => decoder.broken,
        }
    }
}

/// All of `input` at once, and whether it was broken.
pub(crate) fn decode(encoding: Encoding, input: &[u8]) -> (Vec<u8>, bool) {
    let mut decoder = Decoder::new(encoding);
    let mut out = Vec::new();
    decoder.push(input, &mut out);
    decoder.finish(&mut out);
    (out, decoder.is_broken())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(encoding: Encoding, input: &str) -> (String, bool) {
        let (bytes, broken) = decode(encoding, input.as_bytes());
        (String::from_utf8(bytes).unwrap(), broken)
    }

    #[test]
    fn an_encoding_is_recognised_through_what_senders_add() {
        for value in ["base64", " BASE64 ", "base64 (x)", "base64;", "\"base64\"", "x-base64"] {
            assert_eq!(Encoding::from_header(value.as_bytes()), Encoding::Base64, "{value}");
        }
        for value in ["", "7bit", "8BIT", "binary", "8-bit"] {
            assert_eq!(Encoding::from_header(value.as_bytes()), Encoding::Identity, "{value}");
        }
        assert_eq!(Encoding::from_header(b"quoted-printable"), Encoding::QuotedPrintable);
        assert_eq!(Encoding::from_header(b"X-UUENCODE"), Encoding::Uuencode);
        assert_eq!(Encoding::from_header(b"base85"), Encoding::Unknown);
        assert_eq!(decode(Encoding::Unknown, b"a=b"), (b"a=b".to_vec(), true));
    }

    #[test]
    fn base64_is_read_whatever_stands_in_it() {
        for (input, output, broken) in [
            ("SGVsbG8sIHdvcmxkIQ==", "Hello, world!", false),
            ("SGVsbG8sIHdvcmxkIQ", "Hello, world!", false),
            ("SGVs\r\nbG8s\nIHdv\rcmxk IQ==\r\n", "Hello, world!", false),
            ("SG*Vs!bG8\u{e9}=", "Hello", true),
            ("SGVsbG8=LCB3b3JsZCE=", "Hello, world!", false),
            ("SGVsbG8===", "Hello", false),
            ("SGVsbG8sIHdvcmxkIQ==\r\nSGVsbG8=\r\n", "Hello, world!Hello", false),
            ("SGVsbG8A=", "Hello\0", false),
            ("SGVsS", "Hel", true),
            ("SGVsS=SGVs", "HelHel", true),
            ("", "", false),
            ("====", "", false),
        ] {
            assert_eq!(text(Encoding::Base64, input), (output.to_owned(), broken), "{input}");
        }
    }

    #[test]
    fn quoted_printable_is_read_whatever_stands_in_it() {
        for (input, output, broken) in [
            ("caf=C3=A9 =\r\nau lait  \r\n", "café au lait\r\n", false),
            ("caf=c3=a9=\nx= \t \r\ny", "caféxy", false),
            ("50=% =XY =4 =", "50=% =XY =4 ", true),
            ("a=20  \nb\t\n", "a \nb\n", false),
            ("a\rb \r\nc\r", "a\rb\r\nc\r", false),
            ("end= ", "end", false),
            ("end=4", "end=4", true),
            ("a = b", "a = b", true),
        ] {
            assert_eq!(text(Encoding::QuotedPrintable, input), (output.to_owned(), broken), "{input}");
        }
    }

    #[test]
    fn uuencode_is_read_from_begin_to_end() {
        let cat = "begin 644 cat.txt\n#0V%T\n`\nend\n";
        assert_eq!(text(Encoding::Uuencode, cat), ("Cat".to_owned(), false));
        assert_eq!(text(Encoding::Uuencode, &format!("\r\n{}rest", cat.replace('\n', "\r\n"))).0, "Cat");
        // Blanks at line ends get lost on the way, and stand for zeros.
        assert_eq!(decode(Encoding::Uuencode, b"begin 644 x\n&0V%T\n \nend").0, b"Cat\0\0\0");
        // A file of nothing but zeros, from whose lines all blanks were taken on the way.
        let zeros = decode(Encoding::Uuencode, b"begin 644 x\nM\nM\n#\n`\nend\n");
        assert_eq!(zeros, (vec![0; 45 + 45 + 3], false));
        assert_eq!(text(Encoding::Uuencode, "no such\nthing"), ("no such\nthing".to_owned(), true));
        assert_eq!(text(Encoding::Uuencode, "begin 644 x\n#0V%T"), ("Cat".to_owned(), true));
    }

    fn encodings() -> impl Strategy<Value = Encoding> {
        prop_oneof![
            Just(Encoding::Base64),
            Just(Encoding::QuotedPrintable),
            Just(Encoding::Uuencode),
            Just(Encoding::Identity)
        ]
    }

    fn inputs() -> impl Strategy<Value = Vec<u8>> {
        let likely = proptest::sample::select(b"AZaz09+/=  \t\r\n\nfF3`!#~\x80".to_vec());
        let begun = prop_oneof![Just(b"".to_vec()), Just(b"begin 644 x\n".to_vec())];
        (begun, proptest::collection::vec(prop_oneof![4 => likely, 1 => any::<u8>()], 0..400)).prop_map(
            |(mut start, rest)| {
                start.extend(rest);
                start
            },
        )
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(
            encoding in encodings(),
            input in inputs(),
            cuts in proptest::collection::vec(1_usize..20, 0..100),
        ) {
            let whole = decode(encoding, &input);
            let (mut decoder, mut out) = (Decoder::new(encoding), Vec::new());
            let mut rest = input.as_slice();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                // Callers take what came out between two pieces.
                let mut some = Vec::new();
                decoder.push(piece, &mut some);
                out.extend(some);
                rest = after;
            }
            decoder.push(rest, &mut out);
            decoder.finish(&mut out);
            prop_assert_eq!((out, decoder.is_broken()), whole);
        }

        #[test]
        fn base64_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..30_000), columns in 1_usize..100) {
            let encoded = base64_simd::STANDARD.encode_to_string(&bytes);
            let lines: Vec<_> = encoded.as_bytes().chunks(columns).collect();
            prop_assert_eq!(decode(Encoding::Base64, &lines.join(&b"\r\n"[..])), (bytes, false));
        }
    }

    #[test]
    fn where_a_long_run_of_blanks_is_cut_does_not_matter() {
        let input = [&[b' '; 5000][..], b"x", &[b'\t'; 4096], b"y \r\n"].concat();
        let whole = decode(Encoding::QuotedPrintable, &input);
        for cut in [1, 100, 4095, 4096, 4097, 5000, 5001, 6000, 9096, 9097] {
            let (mut decoder, mut out) = (Decoder::new(Encoding::QuotedPrintable), Vec::new());
            decoder.push(&input[..cut], &mut out);
            decoder.push(&input[cut..], &mut out);
            decoder.finish(&mut out);
            assert_eq!((out.len(), out, decoder.is_broken()), (whole.0.len(), whole.0.clone(), whole.1), "{cut}");
        }
    }

    #[test]
    fn a_run_of_blanks_takes_no_memory() {
        let mut decoder = Decoder::new(Encoding::QuotedPrintable);
        let mut out = Vec::new();
        for _ in 0..1_000 {
            decoder.push(&[b' '; 4096], &mut out);
        }
        decoder.push(b"\nx", &mut out);
        assert_eq!(out, b"\nx");
    }
}
