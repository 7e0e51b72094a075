//! What a response is about. Anything unknown is `Other`, and no error: servers may say what they like between
//! the lines we wait for.

use bytes::Bytes;

use super::fetch::{self, Fetch};
use super::reader::Response;
use super::status::{self, Condition, Status};
use super::token::{Cursor, Value, number};

#[derive(Debug)]
pub(crate) enum Incoming {
    /// The end of the command with this tag.
    Tagged(Bytes, Status),
    /// The server waits for us: a challenge, or permission to send a literal.
    Continue(Bytes),
    Untagged(Untagged),
}

#[derive(Debug)]
pub(crate) enum Untagged {
    Status(Status),
    Capability(Vec<String>),
    List(ListEntry),
    MailboxStatus(MailboxStatus),
    Search(Vec<u64>),
    Exists(u64),
    Expunge,
    Fetch(Box<Fetch>),
    Namespace(Namespaces),
    /// What the user may do in a folder (RFC 4314, section 3.8).
    Rights(Bytes),
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListEntry {
    /// Attributes in lower case, with their backslash.
    pub(crate) attributes: Vec<String>,
    pub(crate) delimiter: Option<u8>,
    /// The name as the server wrote it, to be sent back exactly so.
    pub(crate) name: Bytes,
}

impl ListEntry {
    pub(crate) fn has(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|a| a == attribute)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MailboxStatus {
    pub(crate) name: Bytes,
    pub(crate) messages: Option<u64>,
    pub(crate) unseen: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Namespaces {
    pub(crate) personal: Vec<Namespace>,
    pub(crate) others: Vec<Namespace>,
    pub(crate) shared: Vec<Namespace>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespace {
    pub(crate) prefix: Bytes,
    pub(crate) delimiter: Option<u8>,
}

/// Gives a response its meaning. Never fails: what makes no sense is `Other`.
pub(crate) fn parse(response: &Response) -> Incoming {
    let mut cursor = Cursor::new(response);
    if response.raw.first() == Some(&b'+') {
        return Incoming::Continue(status::continuation(&response.raw));
    }
    let tag = cursor.word();
    cursor.spaces();
    if tag != "*" {
        let word = cursor.word();
        return match Condition::parse(&word) {
            Some(condition @ (Condition::Ok | Condition::No | Condition::Bad)) => {
                Incoming::Tagged(tag, Status::parse(condition, cursor.rest()))
            }
            _ => Incoming::Untagged(Untagged::Other),
        };
    }
    Incoming::Untagged(untagged(&mut cursor).unwrap_or(Untagged::Other))
}

fn untagged(cursor: &mut Cursor<'_>) -> Option<Untagged> {
    let word = cursor.word();
    cursor.spaces();
    if let Some(condition) = Condition::parse(&word) {
        return Some(Untagged::Status(Status::parse(condition, cursor.rest())));
    }
    if let Some(n) = number(&word) {
        let what = cursor.word();
        cursor.spaces();
        return match what.to_ascii_uppercase().as_slice() {
            b"EXISTS" => Some(Untagged::Exists(n)),
            b"EXPUNGE" => Some(Untagged::Expunge),
            b"FETCH" => Some(Untagged::Fetch(Box::new(fetch::parse(cursor)))),
            _ => None,
        };
    }
    match word.to_ascii_uppercase().as_slice() {
        b"CAPABILITY" => Some(Untagged::Capability(status::words(cursor.rest()))),
        b"LIST" => list(cursor).map(Untagged::List),
        b"STATUS" => mailbox_status(cursor).map(Untagged::MailboxStatus),
        b"SEARCH" => Some(Untagged::Search(search(cursor.rest()))),
        b"NAMESPACE" => namespaces(cursor).map(Untagged::Namespace),
        b"MYRIGHTS" => rights(cursor).map(Untagged::Rights),
        _ => None,
    }
}

fn search(rest: &[u8]) -> Vec<u64> {
    // `(MODSEQ n)` may follow; no word of it is a bare number but n, which ends in a parenthesis.
    rest.split(|b| *b == b' ').filter_map(number).collect()
}

fn list(cursor: &mut Cursor<'_>) -> Option<ListEntry> {
    let attributes = cursor.value().ok()?;
    let attributes = attributes
        .list()
        .unwrap_or_default()
        .iter()
        .filter_map(Value::bytes)
        .map(|a| String::from_utf8_lossy(a).to_ascii_lowercase())
        .collect();
    let delimiter = delimiter(&cursor.value().ok()?);
    let name = mailbox(cursor)?;
    Some(ListEntry { attributes, delimiter, name })
}

fn delimiter(value: &Value) -> Option<u8> {
    value.bytes().and_then(|bytes| bytes.first()).copied()
}

/// A folder name. One that is not properly quoted is taken as it stands.
fn mailbox(cursor: &mut Cursor<'_>) -> Option<Bytes> {
    cursor.spaces();
    let before = cursor.clone();
    match cursor.value() {
        Ok(Value::Atom(name) | Value::String(name)) => Some(name),
        // A folder may be called NIL.
        Ok(Value::Nil) => Some(before.rest_bytes().slice(..3)),
        Ok(_) => None,
        Err(_) => {
            let rest = before.rest_bytes();
            let name = rest.trim_ascii();
            let name = name.strip_prefix(b"\"").unwrap_or(name);
            (!name.is_empty()).then(|| rest.slice_ref(name))
        }
    }
}

fn mailbox_status(cursor: &mut Cursor<'_>) -> Option<MailboxStatus> {
    let name = mailbox(cursor)?;
    let items = cursor.value().ok()?;
    let mut status = MailboxStatus { name, messages: None, unseen: None };
    for pair in items.list()?.chunks_exact(2) {
        let Some(key) = pair[0].bytes() else { continue };
        match key.to_ascii_uppercase().as_slice() {
            b"MESSAGES" => status.messages = pair[1].number(),
            b"UNSEEN" => status.unseen = pair[1].number(),
            _ => {}
        }
    }
    Some(status)
}

fn rights(cursor: &mut Cursor<'_>) -> Option<Bytes> {
    cursor.value().ok()?;
    cursor.spaces();
    cursor.value().ok()?.bytes().cloned()
}

fn namespaces(cursor: &mut Cursor<'_>) -> Option<Namespaces> {
    Some(Namespaces {
        personal: namespace(&cursor.value().ok()?),
        others: cursor.value().map(|v| namespace(&v)).unwrap_or_default(),
        shared: cursor.value().map(|v| namespace(&v)).unwrap_or_default(),
    })
}

fn namespace(value: &Value) -> Vec<Namespace> {
    value
        .list()
        .unwrap_or_default()
        .iter()
        .filter_map(|one| {
            let one = one.list()?;
            Some(Namespace { prefix: one.first()?.bytes()?.clone(), delimiter: one.get(1).and_then(delimiter) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::token::tests::response;
    use super::*;

    fn of(text: &[u8]) -> Untagged {
        match parse(&response(text)) {
            Incoming::Untagged(untagged) => untagged,
            other => panic!("{other:?}"),
        }
    }

    fn list_of(text: &[u8]) -> ListEntry {
        match of(text) {
            Untagged::List(entry) => entry,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tagged_and_continue() {
        let Incoming::Tagged(tag, status) = parse(&response(b"a7 no [NOPERM] not you\r\n")) else {
            panic!("tagged");
        };
        assert_eq!((&tag[..], status.condition), (&b"a7"[..], Condition::No));
        let Incoming::Continue(challenge) = parse(&response(b"+ eyJ9\r\n")) else {
            panic!("continue");
        };
        assert_eq!(challenge, "eyJ9");
        for empty in [&b"+\r\n"[..], b"+ \r\n"] {
            assert!(matches!(parse(&response(empty)), Incoming::Continue(c) if c.is_empty()));
        }
    }

    #[test]
    fn lists() {
        let entry = list_of(b"* LIST (\\HasNoChildren \\Sent) \"\\\\\" \"a \\\"b\\\"\"\r\n");
        assert_eq!(entry.delimiter, Some(b'\\'));
        assert_eq!(entry.name, "a \"b\"");
        assert!(entry.has("\\sent"));
        let entry = list_of(b"* LIST () NIL {3}\r\na\"b\r\n");
        assert_eq!((entry.delimiter, &entry.name[..]), (None, &b"a\"b"[..]));
        assert_eq!(list_of(b"* LIST () \"/\" NIL\r\n").name, "NIL");
        assert_eq!(list_of(b"* list () / R\xe4x ((CHILDINFO ()))\r\n").name, &b"R\xe4x"[..]);
        // A name that is not closed still names a folder.
        assert_eq!(list_of(b"* LIST () \"/\" \"half\r\n").name, "half");
    }

    #[test]
    fn status_and_search() {
        let Untagged::MailboxStatus(status) = of(b"* STATUS \"Sent\" (MESSAGES 3 UNSEEN 1 X (a))\r\n") else {
            panic!("status");
        };
        assert_eq!((status.messages, status.unseen), (Some(3), Some(1)));
        assert!(matches!(of(b"* SEARCH 1 2  30 \r\n"), Untagged::Search(v) if v == [1, 2, 30]));
        assert!(matches!(of(b"* SEARCH\r\n"), Untagged::Search(v) if v.is_empty()));
        assert!(matches!(of(b"* SEARCH 5 (MODSEQ 917)\r\n"), Untagged::Search(v) if v == [5]));
    }

    #[test]
    fn namespaces_of_known_servers() {
        let Untagged::Namespace(courier) =
            of(b"* NAMESPACE ((\"INBOX.\" \".\")) NIL ((\"#shared.\" \".\")(\"shared.\" \".\"))\r\n")
        else {
            panic!("namespace");
        };
        assert_eq!(courier.personal[0].prefix, "INBOX.");
        assert_eq!(courier.personal[0].delimiter, Some(b'.'));
        assert!(courier.others.is_empty());
        assert_eq!(courier.shared.len(), 2);
    }

    #[test]
    fn nonsense_is_other() {
        for text in [
            &b"* \r\n"[..],
            b"\r\n",
            b"*\r\n",
            b"* 5\r\n",
            b"* LIST\r\n",
            b"* STATUS (\r\n",
            b"* 1 VANISHED\r\n",
            b"a1\r\n",
            b"a1 PREAUTH x\r\n",
            b"* QUOTA x (y)\r\n",
            b"\xff\xfe\r\n",
        ] {
            assert!(matches!(of(text), Untagged::Other), "{text:?}");
        }
    }

    /// What a server might send if it were made of pieces of IMAP in any order.
    fn pieces() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
        use proptest::prelude::*;
        let known = [
            "* ",
            "1 FETCH (",
            "UID 5 ",
            "BODYSTRUCTURE ",
            "BODY[1.MIME]<0> ",
            "FLAGS (\\Seen) ",
            "(",
            ")",
            "\"",
            "\\",
            "{3}\r\nabc",
            "{0}\r\n",
            "{9}\r\nab",
            "~{2}\r\nxy",
            "NIL ",
            "\"text\" \"plain\" ",
            "\r\n",
            "\n",
            " ",
            "LIST () \"/\" ",
            "SEARCH 1 2",
            "OK [",
            "COPYUID 1 1:3 4:6",
            "] ",
            "A1 NO ",
            "NAMESPACE ",
            "STATUS x (MESSAGES 1)",
            "&APw-",
            "INTERNALDATE \"1-Jan-2026 00:00:00 +0000\" ",
        ];
        let known = proptest::sample::select(known.map(|piece| piece.as_bytes().to_vec()).to_vec());
        let raw = proptest::collection::vec(any::<u8>(), 0..6);
        proptest::collection::vec(prop_oneof![9 => known, 1 => raw], 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_bytes_break_the_reader_or_the_parser(bytes in pieces()) {
            use super::super::reader::{Deadline, Frame, Reader};
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let soon = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
                let mut reader = Reader::new(&bytes[..], Deadline::At(soon));
                while let Ok(frame) = reader.next(|head, _| head.len() % 3 == 0).await {
                    if let Frame::Response(response) = frame {
                        parse(&response);
                    }
                }
            });
        }
    }
}
