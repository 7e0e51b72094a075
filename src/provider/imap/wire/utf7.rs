//! Modified UTF-7: how folder names travel.
//!
//! Decoding is for people only, and never fails: a name that is not proper is shown as it is. The raw name is what
//! goes back to the server.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

/// The name for people.
pub(crate) fn decode(raw: &[u8]) -> String {
    strict(raw).unwrap_or_else(|| String::from_utf8_lossy(raw).into_owned())
}

fn strict(raw: &[u8]) -> Option<String> {
    let mut text = String::new();
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'&' => {
                let end = rest.iter().position(|b| *b == b'-')?;
                if end == 0 {
                    text.push('&');
                } else {
                    shifted(&rest[..end], &mut text)?;
                }
                rest = &rest[end + 1..];
            }
            0x20..=0x7e => text.push(byte as char),
            _ => return None,
        }
    }
    Some(text)
}

fn shifted(encoded: &[u8], text: &mut String) -> Option<()> {
    let mut units = Vec::new();
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in encoded {
        let value = ALPHABET.iter().position(|b| b == byte)? as u32;
        bits = (bits << 6) | value;
        held += 6;
        if held >= 16 {
            held -= 16;
            units.push((bits >> held) as u16);
            bits &= (1 << held) - 1;
        }
    }
    // What is left over is padding: less than one sextet, all zero.
    if held >= 6 || bits != 0 {
        return None;
    }
    for unit in char::decode_utf16(units) {
        text.push(unit.ok()?);
    }
    Some(())
}

/// The name for the server.
pub(crate) fn encode(name: &str) -> Vec<u8> {
    let mut raw = Vec::with_capacity(name.len());
    let mut pending: Vec<u16> = Vec::new();
    for c in name.chars() {
        if matches!(c, '\x20'..='\x7e') {
            flush(&mut pending, &mut raw);
            raw.push(c as u8);
            if c == '&' {
                raw.push(b'-');
            }
        } else {
            pending.extend_from_slice(c.encode_utf16(&mut [0; 2]));
        }
    }
    flush(&mut pending, &mut raw);
    raw
}

fn flush(pending: &mut Vec<u16>, raw: &mut Vec<u8>) {
    if pending.is_empty() {
        return;
    }
    raw.push(b'&');
    let (mut bits, mut held) = (0u32, 0u32);
    for unit in pending.drain(..) {
        bits = (bits << 16) | u32::from(unit);
        held += 16;
        while held >= 6 {
            held -= 6;
            raw.push(ALPHABET[(bits >> held) as usize & 63]);
            bits &= (1 << held) - 1;
        }
    }
    if held > 0 {
        raw.push(ALPHABET[(bits << (6 - held)) as usize & 63]);
    }
    raw.push(b'-');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_names() {
        for (raw, name) in [
            ("Entw&APw-rfe &- x", "Entwürfe & x"),
            ("~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語"),
            ("&2D3cqQ-", "💩"),
            ("Gel&APY-schte Elemente", "Gelöschte Elemente"),
            ("INBOX", "INBOX"),
        ] {
            assert_eq!(decode(raw.as_bytes()), name);
            assert_eq!(encode(name), raw.as_bytes());
        }
    }

    #[test]
    fn faults_keep_the_raw_name() {
        for raw in ["&!!-", "&APw", "&", "a&b", "&AP-", "&2D0-", "&ZeVnLIqe", "&AAAAAA-x&"] {
            assert_eq!(decode(raw.as_bytes()), raw);
        }
        assert_eq!(decode(b"R\xc3\xa4x"), "Räx");
        assert_eq!(decode(b"R\xe4x"), "R\u{fffd}x");
    }

    proptest! {
        #[test]
        fn any_name_round_trips(name in any::<String>()) {
            prop_assert_eq!(decode(&encode(&name)), name.clone());
            prop_assert!(encode(&name).iter().all(|b| matches!(b, 0x20..=0x7e)));
        }

        #[test]
        fn any_bytes_decode(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
            decode(&raw);
        }
    }
}
