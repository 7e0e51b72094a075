//! Quoted-printable (RFC 2045, section 6.7), clean or not.

/// Blanks at a line's end are dropped, so they are held back until it is known what follows. A line has at most 76
/// characters; of an absurd run this many are kept.
const BLANKS_CAP: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct QuotedPrintable {
    state: State,
    blanks: Vec<u8>,
    pub(super) broken: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Text,
    /// After a CR that may belong to a line end.
    Return,
    /// After `=`.
    Equals,
    /// After `=` and blanks: a soft line break whose line end is still to come.
    SoftBlanks,
    /// After `=` and CR.
    SoftReturn,
    /// After `=` and one hexadecimal digit, which is kept as it was written.
    Hex(u8),
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

impl QuotedPrintable {
    pub(super) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        out.reserve(input.len());
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            // A byte that does not belong to the escape before it is looked at again as text.
            let taken = match self.state {
                State::Text => {
                    let rest = &input[at..];
                    match *rest {
                        // By far the most frequent escape, in one piece.
                        [b'=', high, low, ..] if hex(high).is_some() && hex(low).is_some() => {
                            self.flush(out);
                            out.extend(hex(high).zip(hex(low)).map(|(high, low)| high << 4 | low));
                            at += 3;
                        }
                        [b'=' | b'\r' | b'\n', ..] => {
                            self.special(byte, out);
                            at += 1;
                        }
                        _ => {
                            let end = memchr::memchr3(b'=', b'\r', b'\n', rest).unwrap_or(rest.len());
                            self.plain(&rest[..end], out);
                            at += end;
                        }
                    }
                    continue;
                }
                State::Return => self.after_return(byte, out),
                State::Equals => self.after_equals(byte, out),
                State::SoftBlanks => self.after_soft_blanks(byte, out),
                State::SoftReturn => {
                    self.blanks.clear();
                    self.state = State::Text;
                    byte == b'\n'
                }
                State::Hex(first) => self.after_hex(first, byte, out),
            };
            at += usize::from(taken);
        }
    }

    fn special(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            b'=' => {
                self.flush(out);
                self.state = State::Equals;
            }
            b'\r' => self.state = State::Return,
            _ => {
                self.blanks.clear();
                out.push(b'\n');
            }
        }
    }

    /// A stretch of a line with nothing special in it but blanks.
    fn plain(&mut self, mut run: &[u8], out: &mut Vec<u8>) {
        // In one go, unless the cap on blanks may matter: where a piece was cut must not.
        if self.blanks.is_empty() && run.len() <= BLANKS_CAP {
            let end = run.iter().rposition(|&b| !is_blank(b)).map_or(0, |last| last + 1);
            out.extend_from_slice(&run[..end]);
            self.blanks.extend_from_slice(&run[end..]);
            return;
        }
        while let Some(&first) = run.first() {
            if is_blank(first) {
                self.hold(first);
                run = &run[1..];
                continue;
            }
            let end = run.iter().position(|&b| is_blank(b)).unwrap_or(run.len());
            self.flush(out);
            out.extend_from_slice(&run[..end]);
            run = &run[end..];
        }
    }

    fn after_return(&mut self, byte: u8, out: &mut Vec<u8>) -> bool {
        self.state = State::Text;
        if byte == b'\n' {
            self.blanks.clear();
            out.extend_from_slice(b"\r\n");
            return true;
        }
        self.flush(out);
        out.push(b'\r');
        false
    }

    fn after_equals(&mut self, byte: u8, out: &mut Vec<u8>) -> bool {
        self.state = match byte {
            b'\n' => State::Text,
            b'\r' => State::SoftReturn,
            b' ' | b'\t' => {
                self.hold(byte);
                State::SoftBlanks
            }
            _ if hex(byte).is_some() => State::Hex(byte),
            _ => {
                self.literal(out);
                return false;
            }
        };
        true
    }

    fn after_soft_blanks(&mut self, byte: u8, out: &mut Vec<u8>) -> bool {
        match byte {
            b' ' | b'\t' => self.hold(byte),
            b'\r' => self.state = State::SoftReturn,
            b'\n' => {
                self.blanks.clear();
                self.state = State::Text;
            }
            _ => {
                self.literal(out);
                return false;
            }
        }
        true
    }

    fn after_hex(&mut self, first: u8, byte: u8, out: &mut Vec<u8>) -> bool {
        if let (Some(high), Some(low)) = (hex(first), hex(byte)) {
            out.push(high << 4 | low);
            self.state = State::Text;
            return true;
        }
        self.literal(out);
        out.push(first);
        false
    }

    /// The `=` was no escape: it stands for itself.
    fn literal(&mut self, out: &mut Vec<u8>) {
        self.broken = true;
        self.state = State::Text;
        out.push(b'=');
    }

    fn hold(&mut self, blank: u8) {
        if self.blanks.len() < BLANKS_CAP {
            self.blanks.push(blank);
        } else {
            self.broken = true;
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        if !self.blanks.is_empty() {
            out.append(&mut self.blanks);
        }
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        match self.state {
            State::Return => {
                self.blanks.clear();
                out.push(b'\r');
            }
            State::Hex(first) => {
                self.literal(out);
                out.push(first);
            }
            State::Text | State::Equals | State::SoftBlanks | State::SoftReturn => self.blanks.clear(),
        }
        self.state = State::Text;
    }
}
