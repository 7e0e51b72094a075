//! The names of message files, and the handles made from them.
//!
//! `1737000000.M5P77Q1.host,S=1234,U=7:2,FS` is a file that arrived at that second. Everything before `:2,` is its
//! *base name*, unique in the mailbox; behind it stand flags, which every mail program changes by renaming. `,U=7` at
//! the end of a base name is mbsync's number in this folder: mbsync adds it to files that have none, by renaming too,
//! and stops with an error when a file brings it along into another folder. So the *key* of a message is its base name
//! without it, and handles are made of keys.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

use super::{layout::Place, sys};
use crate::MessageId;

/// What stands between the base name and the flags. Windows allows no colons in file names.
pub(super) const INFO: &str = if cfg!(windows) { ";2," } else { ":2," };

fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memmem::find(name, INFO.as_bytes()) {
        Some(at) => (&name[..at], &name[at + INFO.len()..]),
        None => (name, b""),
    }
}

/// The name without its flags.
pub(super) fn base(name: &[u8]) -> &[u8] {
    split(name).0
}

/// What stays the same while the message is in its folder.
pub(super) fn key(name: &[u8]) -> &[u8] {
    let base = base(name);
    match memchr::memmem::rfind(base, b",U=") {
        Some(at) if at > 0 && base.len() > at + 3 && base[at + 3..].iter().all(u8::is_ascii_digit) => &base[..at],
        _ => base,
    }
}

/// Flags and keywords: a letter each.
pub(super) fn flags(name: &[u8]) -> &[u8] {
    split(name).1
}

/// Whether somebody has read it.
pub(super) fn is_read(name: &[u8]) -> bool {
    flags(name).contains(&b'S')
}

/// A name for the message in another folder. Lower-case letters are left behind: they are numbers in the folder's own
/// list of keywords (Dovecot's `dovecot-keywords`), and would mean other words elsewhere.
pub(super) fn elsewhere(key: &[u8], name: &[u8]) -> Vec<u8> {
    let mut flags = flags(name).to_vec();
    flags.retain(|flag| !flag.is_ascii_lowercase());
    with_flags(key, flags)
}

/// The name with or without the flag that says that somebody has read it.
pub(super) fn marked(name: &[u8], read: bool) -> Vec<u8> {
    let mut flags = flags(name).to_vec();
    flags.retain(|flag| *flag != b'S');
    if read {
        // "in ASCII order" (D. J. Bernstein, "Using maildir format").
        let at = flags.iter().position(|flag| *flag > b'S').unwrap_or(flags.len());
        flags.insert(at, b'S');
    }
    with_flags(base(name), flags)
}

fn with_flags(base: &[u8], flags: Vec<u8>) -> Vec<u8> {
    [base, INFO.as_bytes(), &flags].concat()
}

/// The seconds that a key begins with, where they can be a time of arrival: 1990 to 2100.
pub(super) fn seconds(key: &[u8]) -> Option<i64> {
    let digits = key.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > 12 || key.get(digits).is_some_and(u8::is_ascii_alphanumeric) {
        return None;
    }
    let seconds = std::str::from_utf8(&key[..digits]).ok()?.parse().ok()?;
    (631_152_000..4_102_444_800).contains(&seconds).then_some(seconds)
}

/// The microseconds beyond [`seconds`], where the name tells them (`.M123P...`); not every program pads them.
pub(super) fn microseconds(key: &[u8]) -> u32 {
    let part = key.split(|byte| *byte == b'.').nth(1).and_then(|part| part.strip_prefix(b"M"));
    let digits = part.map(|part| &part[..part.iter().take_while(|byte| byte.is_ascii_digit()).count()]);
    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
}

/// Makes base names that nobody else makes (D. J. Bernstein, "Using maildir format").
#[derive(Debug)]
pub(super) struct UniqueNames {
    host: String,
}

impl UniqueNames {
    pub(super) fn new() -> Self {
        let host = sys::host();
        let host = String::from_utf8_lossy(if host.is_empty() { b"localhost" } else { &host });
        // The octal forms are the specification's; the comma keeps `,S=` apart.
        Self { host: host.replace('/', r"\057").replace(':', r"\072").replace(',', r"\054") }
    }

    /// For a message of so many bytes that arrived at `received`.
    pub(super) fn next(&self, received: Timestamp, size: u64) -> Vec<u8> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (seconds, micros) = (received.as_second(), received.subsec_microsecond());
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        format!("{seconds}.M{micros:06}P{process}Q{count:05}.{},S={size}", self.host).into_bytes()
    }
}

/// Which message a [`MessageId`] means: `folder/key`, and where the key alone does not tell, what else it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) place: Place,
    pub(super) key: Box<[u8]>,
    /// When the file was written, for a key without a time of arrival: a program that ignores the rules and calls
    /// every file `scan.eml` delivers another message each time.
    pub(super) written: Option<i64>,
    /// The file's number, where two different files of one folder have the same key.
    pub(super) number: Option<u64>,
}

/// What would make a handle ambiguous or unprintable.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%').add(b'#').add(b'/').add(b' ');

impl Handle {
    pub(super) fn id(&self) -> MessageId {
        let mut id = format!("{}/{}", self.place.id(), percent_encode(&self.key, ESCAPED));
        if let Some(written) = self.written {
            id.push_str(&format!("#t={written}"));
        }
        if let Some(number) = self.number {
            id.push_str(&format!("#i={number}"));
        }
        MessageId::new(id)
    }

    /// `None` for what is no handle of a Maildir.
    pub(super) fn parse(id: &MessageId) -> Option<Self> {
        let (place, rest) = id.as_str().split_once('/')?;
        let mut parts = rest.split('#');
        let key: Box<[u8]> = percent_decode_str(parts.next()?).collect();
        if key.is_empty() || key.contains(&b'/') || key.contains(&0) || key[0] == b'.' {
            return None;
        }
        let mut handle = Self { place: Place::parse(place)?, key, written: None, number: None };
        for part in parts {
            match part.split_once('=')? {
                ("t", seconds) => handle.written = Some(seconds.parse().ok()?),
                ("i", number) => handle.number = Some(number.parse().ok()?),
                _ => return None,
            }
        }
        Some(handle)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_come_apart() {
        for (name, expected_key, expected_flags) in [
            ("1737000000.M5P7.host:2,FS", "1737000000.M5P7.host", "FS"),
            ("1737000000.M5P7.host,S=12,W=13:2,", "1737000000.M5P7.host,S=12,W=13", ""),
            ("1737000000.M5P7.host,S=12,U=3:2,Sa", "1737000000.M5P7.host,S=12", "Sa"),
            ("1737000000.M5P7.host,U=3", "1737000000.M5P7.host", ""),
            ("odd:name,U=x", "odd:name,U=x", ""),
            ("x,U=", "x,U=", ""),
            (",U=3", ",U=3", ""),
            ("x:2,S:2,T", "x", "S:2,T"),
        ] {
            assert_eq!(key(name.as_bytes()), expected_key.as_bytes(), "{name}");
            assert_eq!(flags(name.as_bytes()), expected_flags.as_bytes(), "{name}");
        }
    }

    #[test]
    fn flags_change_and_the_rest_stays() {
        let marked = |name: &str, read| String::from_utf8(marked(name.as_bytes(), read)).unwrap();
        assert_eq!(marked("x,U=3", true), "x,U=3:2,S");
        assert_eq!(marked("x:2,DTa", true), "x:2,DSTa");
        assert_eq!(marked("x:2,DSTa", true), "x:2,DSTa");
        assert_eq!(marked("x:2,DSTa", false), "x:2,DTa");
        assert_eq!(elsewhere(b"x", b"x,U=3:2,FSab"), b"x:2,FS");
        assert_eq!(elsewhere(b"x", b"x"), b"x:2,");
    }

    #[test]
    fn times_are_read_where_they_are_plausible() {
        for (name, expected) in [
            ("1737000000.M5P7.host", Some(1_737_000_000)),
            ("1737000000_0.7.host", Some(1_737_000_000)),
            ("1737000000", Some(1_737_000_000)),
            ("20250116-scan.eml", None),
            ("1737000000x", None),
            ("99999999999999999999.x", None),
            ("scan.eml", None),
            ("", None),
        ] {
            assert_eq!(seconds(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(microseconds(b"1737000000.M50P7.host"), 50);
        assert_eq!(microseconds(b"1737000000.7.host"), 0);
    }

    #[test]
    fn made_names_are_unique_and_ordered() {
        let names = UniqueNames::new();
        let made: Vec<_> = (0..1000).map(|_| names.next("2026-01-31T12:00:00.25Z".parse().unwrap(), 7)).collect();
        assert!(made.is_sorted() && made.windows(2).all(|two| two[0] != two[1]));
        assert_eq!(seconds(&made[0]), Some(1_769_860_800));
        assert_eq!(microseconds(&made[0]), 250_000);
        assert!(made[0].ends_with(b",S=7") && key(&made[0]) == made[0]);
    }

    #[test]
    fn what_is_no_handle_is_refused() {
        for id in [
            "",
            "x",
            "INBOX/",
            "INBOX/%00",
            "INBOX/a%2Fb",
            "INBOX/..",
            "INBOX/.x",
            "../x",
            ".A/x#",
            ".A/x#t=",
            "./x",
            ".A/x#q=1",
            "..%2F..%2Fetc/passwd",
            "INBOX/%2e%2e%2fx",
        ] {
            assert_eq!(Handle::parse(&MessageId::new(id)), None, "{id}");
        }
    }

    proptest! {
        #[test]
        fn handles_round_trip(
            key in "[^./\0].{0,40}", written in any::<Option<i64>>(), number in any::<Option<u64>>(),
        ) {
            prop_assume!(!key.contains(['/', '\0']));
            let handle = Handle { place: Place::inbox(), key: key.into_bytes().into(), written, number };
            let id = handle.id();
            prop_assert!(id.as_str().bytes().all(|b| matches!(b, 0x21..=0x7e)));
            prop_assert_eq!(Handle::parse(&id), Some(handle));
        }

        #[test]
        fn any_bytes_are_a_name(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (key(&name), flags(&name), seconds(&name), microseconds(&name), marked(&name, true));
        }
    }
}
