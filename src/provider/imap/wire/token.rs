//! From bytes to values: atoms, strings, literals and lists.
//!
//! A list is read without recursion, and one that is nested too deeply or has too many members becomes
//! [`Value::Unreadable`] while the cursor still ends up behind it: the item beside it can be read.

use bytes::Bytes;

use super::reader::{Kept, Response};

/// Deepest nesting that is kept. Mail that people send stays below ten.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most values in one list with all it contains.
pub(crate) const MAX_VALUES: usize = 50_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Nil,
    Atom(Bytes),
    String(Bytes),
    /// A literal that was streamed elsewhere or skipped for its size.
    Elsewhere {
        size: u64,
        skipped: bool,
    },
    List(Vec<Value>),
    /// Something is here, and that is all that can be said.
    Unreadable,
}

impl Value {
    /// The bytes of an atom or string; `None` for NIL and everything else.
    pub(crate) fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Atom(bytes) | Self::String(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn list(&self) -> Option<&[Value]> {
        match self {
            Self::List(values) => Some(values),
            _ => None,
        }
    }

    /// A number, also where a server put it in quotes. NIL, -1 and nonsense are unknown.
    pub(crate) fn number(&self) -> Option<u64> {
        number(self.bytes()?)
    }
}

pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The bytes cannot be told apart into values, for example because of a quote inside quotes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Untokenisable;

/// A place in a response.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    response: &'a Response,
    at: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(response: &'a Response) -> Self {
        Self { response, at: 0, end: super::reader::trim_end(&response.raw).len() }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.response.raw[self.at..self.end]
    }

    /// What is left, sharing the response's memory.
    pub(crate) fn rest_bytes(&self) -> Bytes {
        self.response.raw.slice(self.at..self.end)
    }

    pub(crate) fn is_end(&self) -> bool {
        self.at >= self.end
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    pub(crate) fn spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    /// Bytes up to the next blank or parenthesis. May be empty.
    pub(crate) fn word(&mut self) -> Bytes {
        let start = self.at;
        while self.peek().is_some_and(|b| !matches!(b, b' ' | b'(' | b')' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.response.raw.slice(start..self.at)
    }

    /// The name of a FETCH item: `UID`, `BODY[1.MIME]<0>`, `BODY[HEADER.FIELDS (A B)]`.
    pub(crate) fn item_name(&mut self) -> Bytes {
        let start = self.at;
        let mut inside = false;
        while let Some(byte) = self.peek() {
            match byte {
                b'[' => inside = true,
                b']' => inside = false,
                b'\r' | b'\n' => break,
                b' ' | b'(' | b')' if !inside => break,
                _ => {}
            }
            self.at += 1;
        }
        self.response.raw.slice(start..self.at)
    }

    /// The next value, with leading blanks skipped.
    pub(crate) fn value(&mut self) -> Result<Value, Untokenisable> {
        let mut open: Vec<Vec<Value>> = Vec::new();
        // Lists below the deepest one kept, and whether the whole is to be given up.
        let mut below = 0usize;
        let mut count = 0usize;
        let mut unreadable = false;
        loop {
            self.spaces();
            let Some(byte) = self.peek() else {
                return Err(Untokenisable);
            };
            let value = match byte {
                b'(' => {
                    self.at += 1;
                    if below > 0 || open.len() >= MAX_DEPTH || unreadable {
                        below += 1;
                        unreadable = true;
                    } else {
                        open.push(Vec::new());
                    }
                    continue;
                }
                b')' => {
                    self.at += 1;
                    if below > 0 {
                        below -= 1;
                        continue;
                    }
                    match open.pop() {
                        Some(values) => Value::List(values),
                        None => return Err(Untokenisable),
                    }
                }
                b'"' => self.quoted()?,
                b'{' => self.literal()?,
                b'~' if self.rest().starts_with(b"~{") => {
                    self.at += 1;
                    self.literal()?
                }
                _ => {
                    let word = self.word();
                    if word.is_empty() {
                        // A bare CR or LF that belongs to nothing.
                        return Err(Untokenisable);
                    }
                    if word.eq_ignore_ascii_case(b"NIL") { Value::Nil } else { Value::Atom(word) }
                }
            };
            if below > 0 {
                continue;
            }
            count += 1;
            if count > MAX_VALUES {
                unreadable = true;
            }
            match open.last_mut() {
                None if unreadable => return Ok(Value::Unreadable),
                None => return Ok(value),
                Some(_) if unreadable => {}
                Some(values) => values.push(value),
            }
        }
    }

    /// A quoted string. Its end is a quote that is followed by what may follow a string: some servers do not
    /// escape the quotes inside, and `""""` has been seen for an empty description.
    fn quoted(&mut self) -> Result<Value, Untokenisable> {
        debug_assert_eq!(self.peek(), Some(b'"'));
        self.at += 1;
        let start = self.at;
        let mut unescaped: Option<Vec<u8>> = None;
        loop {
            let byte = self.peek().ok_or(Untokenisable)?;
            self.at += 1;
            match byte {
                b'\\' => {
                    let next = self.peek().ok_or(Untokenisable)?;
                    let text = unescaped.get_or_insert_with(|| self.response.raw[start..self.at - 1].to_vec());
                    // Only these two may be escaped; a lone backslash is meant as one.
                    if matches!(next, b'"' | b'\\') {
                        text.push(next);
                        self.at += 1;
                    } else {
                        text.push(b'\\');
                    }
                }
                b'"' if matches!(self.peek(), None | Some(b' ' | b'(' | b')' | b']')) => {
                    let bytes = match unescaped {
                        Some(text) => Bytes::from(text),
                        None => self.response.raw.slice(start..self.at - 1),
                    };
                    return Ok(Value::String(bytes));
                }
                b'\r' | b'\n' => return Err(Untokenisable),
                other => {
                    if let Some(text) = &mut unescaped {
                        text.push(other);
                    }
                }
            }
        }
    }

    fn literal(&mut self) -> Result<Value, Untokenisable> {
        let rest = self.rest();
        let Some(line) = memchr::memchr(b'\n', rest) else {
            // `{` that announces nothing is an atom in all but name.
            return Ok(Value::Atom(self.word()));
        };
        let at = self.at + line + 1;
        let Ok(found) = self.response.literals.binary_search_by_key(&at, |l| l.at) else {
            return Ok(Value::Atom(self.word()));
        };
        let literal = self.response.literals[found];
        // Between the brace and the data stand only digits; anything else means the brace was text.
        if rest[1..line].iter().any(|b| matches!(b, b' ' | b'{' | b'(' | b')' | b'"')) {
            return Ok(Value::Atom(self.word()));
        }
        self.at = at;
        match literal.kept {
            Kept::Inline => {
                let data = at + literal.announced as usize;
                // The end was computed from the last line, which cannot lie inside a literal.
                if data > self.end {
                    return Err(Untokenisable);
                }
                self.at = data;
                Ok(Value::String(self.response.raw.slice(at..data)))
            }
            kept => Ok(Value::Elsewhere { size: literal.announced, skipped: kept == Kept::Skipped }),
        }
    }

    /// Everything that is left but the inside of literals: where to look when tokens make no sense.
    pub(crate) fn text_outside_literals(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let mut at = self.at;
        for literal in self.response.literals.iter().filter(|l| l.at >= self.at) {
            text.extend_from_slice(&self.response.raw[at.min(literal.at)..literal.at]);
            at = literal.at;
            if literal.kept == Kept::Inline {
                at += literal.announced as usize;
            }
        }
        text.extend_from_slice(self.response.raw.get(at..self.end).unwrap_or_default());
        text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::reader::Literal;
    use super::*;

    /// A response with its literals found, as the reader would.
    pub(crate) fn response(text: &[u8]) -> Response {
        let mut literals = Vec::new();
        let mut at = 0;
        while let Some(end) = memchr::memchr(b'\n', &text[at..]).map(|i| at + i + 1) {
            let line = super::super::reader::trim_end(&text[at..end]);
            let open = line.iter().rposition(|b| *b == b'{');
            at = end;
            if let (Some(open), true) = (open, line.ends_with(b"}"))
                && let Some(size) = number(&line[open + 1..line.len() - 1])
            {
                literals.push(Literal { at, announced: size, kept: Kept::Inline });
                at += size as usize;
            }
        }
        Response { raw: Bytes::copy_from_slice(text), literals }
    }

    fn value(text: &[u8]) -> Result<Value, Untokenisable> {
        let response = response(text);
        Cursor::new(&response).value()
    }

    fn string(text: &str) -> Value {
        Value::String(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn atom(text: &str) -> Value {
        Value::Atom(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn the_ordinary_shapes() {
        assert_eq!(value(b"NIL"), Ok(Value::Nil));
        assert_eq!(value(b"\\Seen"), Ok(atom("\\Seen")));
        assert_eq!(value(br#""a \"b\" \\c""#), Ok(string(r#"a "b" \c"#)));
        assert_eq!(value(b"{5}\r\na\r\n\"b rest"), Ok(string("a\r\n\"b")));
        assert_eq!(value(b"~{3}\r\na\0b"), Ok(string("a\0b")));
        assert_eq!(
            value(b"(a  (\"b\"()) nil)"),
            Ok(Value::List(vec![atom("a"), Value::List(vec![string("b"), Value::List(vec![])]), Value::Nil]))
        );
    }

    #[test]
    fn eight_bit_bytes_are_bytes() {
        assert_eq!(value(b"\"R\xe4x\""), Ok(Value::String(Bytes::from_static(b"R\xe4x"))));
    }

    #[test]
    fn quotes_that_were_not_escaped() {
        assert_eq!(value(b"\"\"\"\" x"), Ok(string("\"\"")));
        assert_eq!(
            value(br#"("name" "a "b".pdf" 5)"#),
            // The blank before the inner quote is indistinguishable from an end; what matters is that the
            // list still ends where it should.
            Ok(Value::List(vec![string("name"), string("a \"b\".pdf"), atom("5")]))
        );
        assert_eq!(value(br#""x\y""#), Ok(string(r"x\y")));
        assert_eq!(value(b"\"open"), Err(Untokenisable));
    }

    #[test]
    fn too_deep_is_unreadable_and_the_next_value_is_not() {
        let mut text = b"(".repeat(20_000);
        text.extend(b")".repeat(20_000));
        text.extend(b" 7");
        let response = response(&text);
        let mut cursor = Cursor::new(&response);
        assert_eq!(cursor.value(), Ok(Value::Unreadable));
        assert_eq!(cursor.value(), Ok(atom("7")));
    }

    #[test]
    fn too_many_is_unreadable_and_the_next_value_is_not() {
        let mut text = b"(".to_vec();
        text.extend(b"() ".repeat(MAX_VALUES + 5));
        text.extend(b") 7");
        let response = response(&text);
        let mut cursor = Cursor::new(&response);
        assert_eq!(cursor.value(), Ok(Value::Unreadable));
        assert_eq!(cursor.value(), Ok(atom("7")));
    }

    #[test]
    fn item_names_keep_their_sections() {
        let response = response(b"BODY[HEADER.FIELDS (A B)]<0> {1}\r\nx");
        let mut cursor = Cursor::new(&response);
        assert_eq!(cursor.item_name(), "BODY[HEADER.FIELDS (A B)]<0>");
        assert_eq!(cursor.value(), Ok(string("x")));
        assert!(cursor.is_end());
    }

    #[test]
    fn numbers() {
        assert_eq!(atom("18446744073709551615").number(), Some(u64::MAX));
        assert_eq!(string("5").number(), Some(5));
        for odd in ["-1", "", "5x", "99999999999999999999999"] {
            assert_eq!(atom(odd).number(), None, "{odd}");
        }
        assert_eq!(Value::Nil.number(), None);
    }
}
