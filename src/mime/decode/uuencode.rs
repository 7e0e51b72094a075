//! Uuencode (POSIX `uuencode`, historical algorithm), clean or not.

/// No line of uuencode is longer than 61 characters; what is beyond this is dropped.
const LINE_CAP: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Uuencode {
    state: State,
    line: Vec<u8>,
    pub(super) broken: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the `begin` line.
    #[default]
    Before,
    Lines,
    /// After the `end` line.
    After,
    /// There was no `begin` line: the bytes are given as they are.
    Raw,
}

impl Uuencode {
    pub(super) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let mut rest = input;
        while !rest.is_empty() {
            match self.state {
                State::After => return,
                State::Raw => {
                    out.extend_from_slice(rest);
                    return;
                }
                State::Before | State::Lines => {}
            }
            let end = memchr::memchr(b'\n', rest);
            let (piece, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
            rest = after;
            // Up to here the line may still have to be given as it is, so it is kept whole.
            let cap = LINE_CAP.saturating_sub(self.line.len());
            if self.state == State::Before && piece.len() > cap {
                self.raw(piece, out);
                continue;
            }
            self.line.extend_from_slice(&piece[..piece.len().min(cap)]);
            if end.is_some() {
                self.end_of_line(out);
            }
        }
    }

    fn end_of_line(&mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.line);
        let text = line.trim_ascii_end();
        match self.state {
            State::Before if text.is_empty() => {}
            State::Before if is_begin(text) => self.state = State::Lines,
            State::Before => self.raw(&line, out),
            State::Lines if text == b"end" => self.state = State::After,
            State::Lines => decode_line(text, out),
            State::After | State::Raw => {}
        }
        self.line = line;
        self.line.clear();
    }

    fn raw(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        self.broken = true;
        self.state = State::Raw;
        out.append(&mut self.line);
        out.extend_from_slice(piece);
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.line.is_empty() {
            self.end_of_line(out);
        }
        self.broken |= self.state == State::Lines;
    }
}

/// Whether a line is `begin <mode> <name>`.
pub(crate) fn is_begin(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"begin ") else { return false };
    let mode = rest.iter().take_while(|b| matches!(b, b'0'..=b'7')).count();
    (3..=4).contains(&mode) && rest.get(mode) == Some(&b' ') && !rest[mode..].trim_ascii().is_empty()
}

/// Whether a line can be one of data: its first character says how many bytes it holds.
pub(crate) fn is_data(line: &[u8]) -> bool {
    let Some((&first, rest)) = line.split_first() else { return false };
    if !(b' '..=b'`').contains(&first) {
        return false;
    }
    let characters = (usize::from(first - b' ') & 0x3f).div_ceil(3) * 4;
    // A checksum may follow, and blanks at the end may have got lost.
    rest.len() <= characters + 3 && rest.len() >= characters / 2 && rest.iter().all(|b| (b' '..=b'`').contains(b))
}

fn decode_line(line: &[u8], out: &mut Vec<u8>) {
    let Some((&first, rest)) = line.split_first() else { return };
    let value = |byte: u8| byte.wrapping_sub(b' ') & 0x3f;
    let mut left = usize::from(value(first));
    let mut groups = rest.chunks(4);
    while left > 0 {
        let group = groups.next().unwrap_or_default();
        let at = |i: usize| u32::from(group.get(i).map_or(0, |&byte| value(byte)));
        let bits = at(0) << 18 | at(1) << 12 | at(2) << 6 | at(3);
        let bytes = &bits.to_be_bytes()[1..];
        let some = left.min(3);
        out.extend_from_slice(&bytes[..some]);
        left -= some;
    }
}
