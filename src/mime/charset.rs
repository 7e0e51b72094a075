//! Charsets.

use encoding_rs::{Encoding, REPLACEMENT, WINDOWS_1252};
use mail_parser::decoders::charsets::map::charset_decoder;

/// `bytes` as text. Without a charset that says more than ASCII, they are UTF-8 if they can be, else windows-1252.
pub(crate) fn decode(label: Option<&str>, bytes: &[u8]) -> String {
    let label = label.map(|label| label.trim().trim_matches(['"', '\'']).trim()).unwrap_or_default();
    // Generators that build `charset="charset=us-ascii"`.
    let label = label.rsplit('=').next().unwrap_or_default();
    if label.is_empty() || is_ascii(label) {
        return guess(None, bytes);
    }
    // Asked before encoding_rs, which has no UTF-7, because it is all ASCII: any other decoder would take it.
    let utf7 = label.to_ascii_lowercase().contains("utf-7");
    if !utf7 && let Some(encoding) = Encoding::for_label(label.as_bytes()).filter(|&e| e != REPLACEMENT) {
        return encoding.decode(bytes).0.into_owned();
    }
    // Old code pages and other names: what browsers no longer know, mail still carries.
    match charset_decoder(if utf7 { b"utf-7" } else { label.as_bytes() }) {
        Some(decode) => decode(bytes),
        None => guess(None, bytes),
    }
}

/// Raw bytes in a header, which nobody declared: UTF-8 if they can be, else the charset of the part they stand in, else
/// windows-1252.
pub(crate) fn guess(charset: Option<&str>, bytes: &[u8]) -> String {
    if bytes.windows(2).any(|pair| pair == b"\x1b$") {
        return encoding_rs::ISO_2022_JP.decode(bytes).0.into_owned();
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let declared = charset.filter(|label| !is_ascii(label) && !label.to_ascii_lowercase().contains("utf"));
    match declared.and_then(|label| Encoding::for_label(label.trim().as_bytes())).filter(|&e| e != REPLACEMENT) {
        Some(encoding) => encoding.decode(bytes).0.into_owned(),
        None => WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(),
    }
}

/// Whether a label says no more than ASCII: then bytes above it are not what it says, and anybody's guess.
fn is_ascii(label: &str) -> bool {
    ["us-ascii", "ascii", "ansi_x3.4-1968", "unknown", "unknown-8bit", "x-unknown", "default"]
        .iter()
        .any(|name| label.trim().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_believed_where_they_can_be() {
        assert_eq!(decode(Some("ISO-8859-15"), b"\xa4 5"), "€ 5");
        assert_eq!(decode(Some("\"utf-8\""), "é".as_bytes()), "é");
        assert_eq!(decode(Some("unicode-1-1-utf-7"), b"Caf+AOk-"), "Café");
        assert_eq!(decode(Some("utf-7"), b"Caf+AOk-"), "Café");
        assert_eq!(decode(Some("cp850"), b"Caf\x82"), "Café");
        assert_eq!(decode(Some("iso-2022-jp"), b"\x1b$B$\"\x1b(B"), "あ");
        assert_eq!(decode(Some("us-ascii"), b"Caf\xe9"), "Café");
        assert_eq!(decode(Some("no-such-charset"), "Café".as_bytes()), "Café");
    }

    #[test]
    fn what_nobody_declared_is_guessed() {
        assert_eq!(guess(None, "Café".as_bytes()), "Café");
        assert_eq!(guess(None, b"Caf\xe9 \x80"), "Café €");
        assert_eq!(guess(Some("koi8-r"), b"\xf0\xd2\xc9"), "При");
        assert_eq!(guess(Some("utf-8"), b"Caf\xe9"), "Café");
        assert_eq!(guess(None, b"\x1b$B$\"\x1b(B"), "あ");
    }
}
