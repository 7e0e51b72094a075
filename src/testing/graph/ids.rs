//! Ids as Exchange makes them: long, case-sensitive, with `-`, `_` and `=`.
//!
//! Alphabet and prefixes follow "Get Outlook resources with immutable identifiers" and the samples
//! of the mail API reference: base64 with `/` as `-` and `+` as `_`. The fake's ids say which
//! mailbox and which item they name, so nothing has to be stored for them. Two neighbours differ
//! only in the case of one letter: whoever compares ids without case loses a message at once.

use super::content::mix;

/// What a message id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageRef {
    pub(crate) mailbox: u32,
    pub(crate) key: u64,
    /// How often the item had moved when the id was made; `None` in an immutable id.
    pub(crate) generation: Option<u32>,
}

const MUTABLE: [u8; 4] = [0x00, 0x03, 0x24, 0x00];
const IMMUTABLE: [u8; 4] = [0x00, 0x09, 0x00, 0x01];
/// Bytes of every message id, and where the fields stand.
const LENGTH: usize = 112;
const TAG: usize = 4;
const LETTER: usize = 42;
const MAILBOX: usize = 48;
const GENERATION: usize = 52;
const KEY: usize = 56;
const CHECK: usize = 64;

pub(crate) fn message_id(reference: MessageRef) -> String {
    let pair = reference.key >> 1;
    let mut bytes = [0u8; LENGTH];
    bytes[..4].copy_from_slice(if reference.generation.is_some() { &MUTABLE } else { &IMMUTABLE });
    let tag = super::content::guid(0xab00_0000 + u64::from(reference.mailbox));
    bytes[TAG..TAG + 36].copy_from_slice(tag.as_bytes());
    bytes[MAILBOX..MAILBOX + 4].copy_from_slice(&reference.mailbox.to_be_bytes());
    bytes[GENERATION..GENERATION + 4].copy_from_slice(&reference.generation.unwrap_or_default().to_be_bytes());
    bytes[KEY..KEY + 8].copy_from_slice(&pair.to_be_bytes());
    for block in 0..5u64 {
        let seed = mix(pair)
            ^ mix(u64::from(reference.mailbox) << 32)
            ^ mix(0x77 + u64::from(reference.generation.map_or(0, |count| count + 1)));
        let at = CHECK + 8 * block as usize;
        bytes[at..at + 8].copy_from_slice(&mix(seed.wrapping_add(block)).to_be_bytes());
    }
    // `-` and `_` in every id: clients must not take either for a separator.
    bytes[LENGTH - 7..LENGTH - 4].copy_from_slice(&[0xfb, 0xef, 0xff]);
    let mut id = spell(&bytes).into_bytes();
    let letter = b'A' + (pair % 26) as u8;
    id[LETTER / 3 * 4] = if reference.key & 1 == 0 { letter } else { letter.to_ascii_lowercase() };
    String::from_utf8(id).expect("base64 is ASCII")
}

/// Reads a message id; `None` if Exchange could not have made it.
pub(crate) fn parse_message_id(id: &str) -> Option<MessageRef> {
    let standard: Vec<u8> = id
        .bytes()
        .map(|byte| match byte {
            b'-' => b'/',
            b'_' => b'+',
            b'/' | b'+' => b'!',
            other => other,
        })
        .collect();
    let bytes = base64_simd::STANDARD.decode_to_vec(&standard).ok()?;
    if bytes.len() != LENGTH {
        return None;
    }
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let pair = u64::from_be_bytes(bytes[KEY..KEY + 8].try_into().expect("eight bytes"));
    let odd = id.as_bytes()[LETTER / 3 * 4].is_ascii_lowercase();
    let reference = MessageRef {
        mailbox: number(MAILBOX),
        key: pair.checked_mul(2)? + u64::from(odd),
        generation: (bytes[..4] == MUTABLE).then(|| number(GENERATION)),
    };
    (message_id(reference) == id).then_some(reference)
}

pub(crate) fn folder_id(mailbox: u32, folder: u32) -> String {
    let mut bytes = [0u8; 83];
    bytes[..3].copy_from_slice(&[0x01, 0x03, 0x24]);
    let tag = super::content::guid(0xab00_0000 + u64::from(mailbox));
    bytes[4..40].copy_from_slice(tag.as_bytes());
    bytes[42..46].copy_from_slice(&mailbox.to_be_bytes());
    bytes[46..50].copy_from_slice(&folder.to_be_bytes());
    let check = mix((u64::from(mailbox) << 32) | u64::from(folder));
    bytes[50..58].copy_from_slice(&check.to_be_bytes());
    bytes[60..66].copy_from_slice(&[0xfb, 0xef, 0xff, 0xfb, 0xef, 0xff]);
    spell(&bytes)
}

/// Which folder of which mailbox an id names.
pub(crate) fn parse_folder_id(id: &str) -> Option<(u32, u32)> {
    let standard: Vec<u8> = id
        .bytes()
        .map(|byte| match byte {
            b'-' => b'/',
            b'_' => b'+',
            b'/' | b'+' => b'!',
            other => other,
        })
        .collect();
    let bytes = base64_simd::STANDARD.decode_to_vec(&standard).ok()?;
    if bytes.len() != 83 {
        return None;
    }
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let (mailbox, folder) = (number(42), number(46));
    (folder_id(mailbox, folder) == id).then_some((mailbox, folder))
}

/// Begins with the id of the message, and therefore changes with it.
pub(crate) fn attachment_id(message_id: &str, index: usize) -> String {
    let stem = message_id.trim_end_matches('=');
    format!("{stem}BEgAQA{:02x}{:016x}A=", index & 0xff, mix(index as u64 + 99))
}

/// The id of the message and the number of the attachment.
pub(crate) fn parse_attachment_id(id: &str) -> Option<(MessageRef, usize)> {
    const SUFFIX: usize = 6 + 2 + 16 + 2;
    let stem = id.get(..id.len().checked_sub(SUFFIX)?)?;
    let message_id = format!("{stem}==");
    let message = parse_message_id(&message_id)?;
    let index = usize::from_str_radix(id.get(stem.len() + 6..stem.len() + 8)?, 16).ok()?;
    (attachment_id(&message_id, index) == id).then_some((message, index))
}

/// `changeKey` and the version in `@odata.etag`.
pub(crate) fn change_key(mailbox: u32, change: u64) -> String {
    let mut bytes = [0u8; 30];
    bytes[..4].copy_from_slice(&[0x09, 0x00, 0x00, 0x00]);
    bytes[4..8].copy_from_slice(&[0x16, 0x00, 0x00, 0x00]);
    bytes[8..16].copy_from_slice(&mix(u64::from(mailbox) + 5).to_be_bytes());
    bytes[20..28].copy_from_slice(&change.to_be_bytes());
    base64_simd::STANDARD.encode_to_string(bytes)
}

fn spell(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes).replace('/', "-").replace('+', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back() {
        for key in [0, 1, 2, 3, 51, 52, 99_999, u64::MAX >> 1] {
            for generation in [None, Some(0), Some(7)] {
                let reference = MessageRef { mailbox: 3, key, generation };
                let id = message_id(reference);
                assert_eq!(parse_message_id(&id), Some(reference));
                assert!(id.contains('-') && id.contains('_') && id.ends_with("=="), "{id}");
                assert!(id.starts_with(if generation.is_some() { "AAMk" } else { "AAkA" }));
                let attachment = attachment_id(&id, 5);
                assert_eq!(parse_attachment_id(&attachment), Some((reference, 5)));
                assert_eq!(attachment.len() % 4, 0);
            }
        }
        assert_eq!(parse_folder_id(&folder_id(3, 9)), Some((3, 9)));
    }

    #[test]
    fn neighbours_differ_only_in_case() {
        let id = |key| message_id(MessageRef { mailbox: 0, key, generation: Some(0) });
        assert_ne!(id(8), id(9));
        assert!(id(8).eq_ignore_ascii_case(&id(9)));
        assert!(parse_message_id(&id(8).to_ascii_uppercase()).is_none());
    }
}
