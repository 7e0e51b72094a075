//! How fast attachments are decoded, beside a plain copy and mail-parser's decoders on the same bytes.
//!
//! `cargo bench --bench decode`. Throughput counts encoded bytes; every input has 16 MiB of content in lines of 76
//! columns, and is decoded in pieces of 64 KiB, as it is read from a file.

use std::hint::black_box;

use divan::{Bencher, counter::BytesCount};

// The decoders are private; they stand on their own, so the bench takes them as they are.
#[allow(dead_code, unused_imports, unreachable_pub)]
#[path = "../src/mime/decode/mod.rs"]
mod decode;

use decode::{Decoder, Encoding};

const CONTENT: usize = 16 * 1024 * 1024;
const PIECE: usize = 64 * 1024;

fn main() {
    divan::main();
}

fn content() -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let random = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    });
    random.take(CONTENT).collect()
}

fn base64() -> Vec<u8> {
    let encoded = base64_simd::STANDARD.encode_to_string(content());
    encoded.as_bytes().chunks(76).flat_map(|line| [line, b"\r\n"].concat()).collect()
}

/// Text in which one character of thirty is encoded, as in German or Dutch.
fn quoted_printable() -> Vec<u8> {
    let words = ["Rechnung ", "vom ", "f=C3=BCr ", "Lieferung ", "nach ", "Z=C3=BCrich, ", "Betrag ", "in ", "Euro; "];
    let (mut lines, mut column) = (Vec::new(), 0);
    for word in words.iter().cycle() {
        if column + word.len() > 74 {
            lines.extend_from_slice(b"=\r\n");
            column = 0;
        }
        lines.extend_from_slice(word.as_bytes());
        column += word.len();
        if lines.len() > CONTENT {
            return lines;
        }
    }
    lines
}

fn stream(encoding: Encoding, input: &[u8]) -> usize {
    let mut decoder = Decoder::new(encoding);
    let mut total = 0;
    for piece in input.chunks(PIECE) {
        let mut out = Vec::new();
        decoder.push(piece, &mut out);
        total += black_box(out).len();
    }
    let mut out = Vec::new();
    decoder.finish(&mut out);
    total + out.len()
}

#[divan::bench]
fn a_memcpy(bencher: Bencher<'_, '_>) {
    let input = base64();
    let mut output = vec![0; input.len()];
    bencher.counter(BytesCount::of_slice(&input)).bench_local(|| output.copy_from_slice(black_box(&input)));
}

#[divan::bench]
fn base64_ours(bencher: Bencher<'_, '_>) {
    let input = base64();
    bencher.counter(BytesCount::of_slice(&input)).bench_local(|| stream(Encoding::Base64, black_box(&input)));
}

#[divan::bench]
fn base64_mail_parser(bencher: Bencher<'_, '_>) {
    let input = base64();
    let decode = || mail_parser::decoders::base64::base64_decode(black_box(&input)).map(|out| out.len());
    bencher.counter(BytesCount::of_slice(&input)).bench_local(decode);
}

#[divan::bench]
fn quoted_printable_ours(bencher: Bencher<'_, '_>) {
    let input = quoted_printable();
    bencher.counter(BytesCount::of_slice(&input)).bench_local(|| stream(Encoding::QuotedPrintable, black_box(&input)));
}

#[divan::bench]
fn quoted_printable_mail_parser(bencher: Bencher<'_, '_>) {
    let input = quoted_printable();
    let decode =
        || mail_parser::decoders::quoted_printable::quoted_printable_decode(black_box(&input)).map(|out| out.len());
    bencher.counter(BytesCount::of_slice(&input)).bench_local(decode);
}
