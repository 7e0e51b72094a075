//! Commands, as bytes that cannot mean anything but what was meant.

use std::fmt;

use super::uidset;

/// One command without its tag: text, with literals where quoting does not do.
pub(crate) struct Command {
    /// For errors and logs; never holds an argument.
    pub(crate) name: &'static str,
    pub(crate) pieces: Vec<Piece>,
    error: Option<Refused>,
}

pub(crate) enum Piece {
    Text(Vec<u8>),
    Literal(Vec<u8>),
}

/// A string that could end the line and begin a command of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments may be passwords.
        f.debug_struct("Command").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Longest quoted string; beyond that some servers' line limits are near.
const MAX_QUOTED: usize = 1000;

impl Command {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, pieces: vec![Piece::Text(name.as_bytes().to_vec())], error: None }
    }

    /// Protocol words: written as they are, so never anything that came from outside.
    pub(crate) fn raw(mut self, text: &str) -> Self {
        debug_assert!(!text.contains(['\r', '\n', '\0']));
        self.text().push(b' ');
        self.text().extend_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn set(self, uids: &[u64]) -> Self {
        self.raw(&uidset::format(uids))
    }

    /// A string from outside: quoted where possible, a literal where not, refused where it would be a command.
    pub(crate) fn string(mut self, value: &[u8]) -> Self {
        if value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
            self.error = Some(Refused);
            return self;
        }
        let quotable = value.len() <= MAX_QUOTED && value.is_ascii();
        self.text().push(b' ');
        if !quotable {
            self.pieces.push(Piece::Literal(value.to_vec()));
            return self;
        }
        let text = self.text();
        text.push(b'"');
        for &byte in value {
            if matches!(byte, b'"' | b'\\') {
                text.push(b'\\');
            }
            text.push(byte);
        }
        text.push(b'"');
        self
    }

    /// The pieces, or a refusal.
    pub(crate) fn finish(self) -> Result<Vec<Piece>, Refused> {
        match self.error {
            Some(refused) => Err(refused),
            None => Ok(self.pieces),
        }
    }

    pub(crate) fn has_literal(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Literal(_)))
    }

    fn text(&mut self) -> &mut Vec<u8> {
        if !matches!(self.pieces.last(), Some(Piece::Text(_))) {
            self.pieces.push(Piece::Text(Vec::new()));
        }
        match self.pieces.last_mut() {
            Some(Piece::Text(text)) => text,
            _ => unreachable!("a text piece was pushed above"),
        }
    }
}

/// Whether a literal may be sent without waiting for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NonSync {
    /// `LITERAL+`
    Always,
    /// `LITERAL-`: up to 4096 bytes.
    Small,
    Never,
}

impl NonSync {
    pub(crate) fn allows(self, size: usize) -> bool {
        match self {
            Self::Always => true,
            Self::Small => size <= 4096,
            Self::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(command: Command) -> String {
        let mut out = String::new();
        for piece in command.finish().unwrap() {
            match piece {
                Piece::Text(text) => out.push_str(&String::from_utf8(text).unwrap()),
                Piece::Literal(data) => out.push_str(&format!("<{}>", String::from_utf8_lossy(&data))),
            }
        }
        out
    }

    #[test]
    fn strings_are_quoted() {
        assert_eq!(written(Command::new("SELECT").string(br#"a "b" \c &- {5}"#)), r#"SELECT "a \"b\" \\c &- {5}""#);
        assert_eq!(written(Command::new("SELECT").string(b"")), r#"SELECT """#);
    }

    #[test]
    fn eight_bit_and_long_strings_are_literals() {
        assert_eq!(
            written(Command::new("UID MOVE").set(&[1, 2]).string("Räx".as_bytes()).raw("END")),
            "UID MOVE 1:2 <Räx> END"
        );
        let long = "x".repeat(5000);
        assert!(Command::new("LOGIN").string(long.as_bytes()).has_literal());
    }

    #[test]
    fn nothing_becomes_a_second_command() {
        for evil in ["a\r\nb", "a\nb", "a\rb", "a\0b"] {
            let command = Command::new("SELECT").string(evil.as_bytes());
            assert_eq!(command.finish().err(), Some(Refused), "{evil:?}");
        }
    }

    #[test]
    fn debug_shows_no_argument() {
        let command = Command::new("LOGIN").string(b"user").string(b"hunter2");
        assert!(!format!("{command:?}").contains("hunter2"));
    }

    #[test]
    fn literals_without_waiting() {
        assert!(NonSync::Always.allows(1 << 20));
        assert!(NonSync::Small.allows(4096) && !NonSync::Small.allows(4097));
        assert!(!NonSync::Never.allows(1));
    }
}
