//! FETCH responses. Items come in any order, unasked, and sometimes broken; what can be read is kept.

use bytes::Bytes;
use jiff::Timestamp;

use super::date;
use super::structure::{self, Structure};
use super::token::{Cursor, Untokenisable, Value, number};

#[derive(Debug, Default)]
pub(crate) struct Fetch {
    pub(crate) uid: Option<u64>,
    /// In lower case.
    pub(crate) flags: Option<Vec<String>>,
    pub(crate) internal_date: Option<Timestamp>,
    pub(crate) size: Option<u64>,
    pub(crate) structure: Option<Structure>,
    pub(crate) sections: Vec<Section>,
    /// Some of the line could not be told apart; what is missing here may have been in it.
    pub(crate) damaged: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Section {
    /// What stands between the brackets, in upper case: `` for the whole message, `2.MIME`, `HEADER`.
    pub(crate) name: String,
    pub(crate) origin: Option<u64>,
    pub(crate) data: Data,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Bytes(Bytes),
    Nil,
    /// Handed out while it came in.
    Streamed(u64),
    TooLarge(u64),
}

impl Fetch {
    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }
}

/// The cursor stands behind the word FETCH.
pub(crate) fn parse(cursor: &mut Cursor<'_>) -> Fetch {
    let mut fetch = Fetch::default();
    cursor.spaces();
    cursor.eat(b'(');
    loop {
        cursor.spaces();
        if cursor.is_end() || cursor.eat(b')') {
            return fetch;
        }
        let before = cursor.clone();
        if item(cursor, &mut fetch).is_err() {
            fetch.damaged = true;
            if fetch.uid.is_none() {
                fetch.uid = find_uid(&before.text_outside_literals());
            }
            return fetch;
        }
    }
}

fn item(cursor: &mut Cursor<'_>, fetch: &mut Fetch) -> Result<(), Untokenisable> {
    let name = cursor.item_name().to_ascii_uppercase();
    if name.is_empty() {
        return Err(Untokenisable);
    }
    let value = cursor.value()?;
    match name.as_slice() {
        b"UID" => fetch.uid = value.number(),
        b"RFC822.SIZE" => fetch.size = value.number(),
        b"INTERNALDATE" => fetch.internal_date = value.bytes().and_then(|text| date::parse(text)),
        b"FLAGS" => {
            fetch.flags = value.list().map(|flags| {
                flags
                    .iter()
                    .filter_map(Value::bytes)
                    .map(|flag| String::from_utf8_lossy(flag).to_ascii_lowercase())
                    .collect()
            });
        }
        b"BODYSTRUCTURE" => fetch.structure = Some(structure::parse(&value)),
        name => {
            if let Some(section) = section(name) {
                let (name, origin) = section;
                let data = match value {
                    Value::String(bytes) | Value::Atom(bytes) => Data::Bytes(bytes),
                    Value::Elsewhere { size, skipped: true } => Data::TooLarge(size),
                    Value::Elsewhere { size, .. } => Data::Streamed(size),
                    Value::Nil => Data::Nil,
                    // A list is no body; say that it is damaged rather than that it is empty.
                    Value::List(_) | Value::Unreadable => {
                        fetch.damaged = true;
                        return Ok(());
                    }
                };
                fetch.sections.push(Section { name, origin, data });
            }
        }
    }
    Ok(())
}

/// `BODY[2.MIME]<100>` as (`2.MIME`, 100).
pub(crate) fn section(name: &[u8]) -> Option<(String, Option<u64>)> {
    let inner = name.strip_prefix(b"BODY[")?;
    let end = inner.iter().rposition(|b| *b == b']')?;
    let origin = inner[end + 1..].strip_prefix(b"<").and_then(|rest| rest.strip_suffix(b">")).and_then(number);
    Some((String::from_utf8_lossy(&inner[..end]).into_owned(), origin))
}

/// The UID in a line whose items cannot be told apart. It may be a lie, written by whoever named an attachment
/// `" UID 5`; so it only ever leads to that message being fetched on its own.
fn find_uid(text: &[u8]) -> Option<u64> {
    let text = text.to_ascii_uppercase();
    memchr::memmem::find_iter(&text, b"UID ").filter(|at| *at == 0 || matches!(text[at - 1], b' ' | b'(')).find_map(
        |at| {
            let digits = &text[at + 4..];
            let end = digits.iter().position(|b| !b.is_ascii_digit())?;
            number(&digits[..end])
        },
    )
}

#[cfg(test)]
mod tests {
    use super::super::response::{Incoming, Untagged, parse};
    use super::super::token::tests::response;
    use super::*;

    fn of(text: &[u8]) -> Fetch {
        match parse(&response(text)) {
            Incoming::Untagged(Untagged::Fetch(fetch)) => *fetch,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn items_in_any_order() {
        let fetch = of(
            b"* 3 FETCH (BODY[HEADER] {4}\r\na: b FLAGS (\\Seen $X) RFC822.SIZE 9999999999 X-GM-LABELS (\"a\" b) INTERNALDATE \"17-Jul-1996 02:44:25 -0700\" UID 7 BODY[2]<5> NIL)\r\n",
        );
        assert_eq!(fetch.uid, Some(7));
        assert_eq!(fetch.size, Some(9_999_999_999));
        assert_eq!(fetch.flags.as_deref(), Some(&["\\seen".to_owned(), "$x".to_owned()][..]));
        assert!(fetch.internal_date.is_some());
        assert_eq!(fetch.section("HEADER").unwrap().data, Data::Bytes(Bytes::from_static(b"a: b")));
        let partial = fetch.section("2").unwrap();
        assert_eq!((partial.origin, &partial.data), (Some(5), &Data::Nil));
        assert!(!fetch.damaged);
    }

    #[test]
    fn odd_numbers_are_unknown() {
        let fetch = of(b"* 3 FETCH (UID 7 RFC822.SIZE -1)\r\n");
        assert_eq!((fetch.uid, fetch.size), (Some(7), None));
        assert_eq!(of(b"* 3 FETCH (UID 7 RFC822.SIZE NIL)\r\n").size, None);
    }

    #[test]
    fn an_unreadable_structure_keeps_the_rest() {
        let mut text = b"* 3 FETCH (UID 7 BODYSTRUCTURE ".to_vec();
        text.extend(b"(".repeat(20_000));
        text.extend(b")".repeat(20_000));
        text.extend(b" FLAGS (\\Seen) BODY[HEADER] {2}\r\nab)\r\n");
        let fetch = of(&text);
        assert_eq!(fetch.uid, Some(7));
        assert!(matches!(fetch.structure, Some(Structure::Unknown)));
        assert!(fetch.flags.is_some() && fetch.section("HEADER").is_some());
    }

    #[test]
    fn a_line_that_cannot_be_tokenised_still_names_its_message() {
        let fetch = of(b"* 3 FETCH (BODYSTRUCTURE (\"text\" \"unclosed) UID 7 FLAGS ())\r\n");
        assert!(fetch.damaged);
        assert_eq!(fetch.uid, Some(7));
        let fetch = of(b"* 3 FETCH (UID 7 BODYSTRUCTURE (\"text\" \"plain\" (\"name\" \"x)\r\n");
        assert!(fetch.damaged);
        assert_eq!(fetch.uid, Some(7));
        let fetch = of(b"* 3 FETCH (BODY[] {7}\r\n UID 9  ENVELOPE \"\r\n");
        assert_eq!((fetch.uid, fetch.damaged), (None, true));
    }

    #[test]
    fn no_parentheses_no_matter() {
        let fetch = of(b"* 3 FETCH UID 7 FLAGS ()\r\n");
        assert_eq!(fetch.uid, Some(7));
        assert!(of(b"* 3 FETCH ()\r\n").uid.is_none());
        assert!(of(b"* 3 FETCH\r\n").uid.is_none());
    }

    #[test]
    fn a_body_that_is_a_list_is_damage_not_emptiness() {
        let fetch = of(b"* 3 FETCH (UID 7 BODY[2] (a b))\r\n");
        assert!(fetch.damaged && fetch.sections.is_empty());
    }
}
