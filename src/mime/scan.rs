//! Where the parts of a message lie: byte ranges, found in one pass, without holding a body.
//!
//! The scanner is pushed bytes in pieces of any length. It never goes back, never recurses, and keeps no more than the
//! header block it is in, one line that may be a boundary, and what it has found. What is wrong with a message's
//! structure is lived with: a boundary that nobody declared but that plainly is one, a missing last boundary, any mix
//! of line ends.

use std::ops::Range;

use memchr::memchr2;

use super::{
    decode::{Encoding, is_uu_begin, is_uu_data},
    header,
    part::{Disposition, PartHeader},
    words,
};

/// Boundaries have at most 70 characters (RFC 2046, section 5.1.1).
pub(super) const LONGEST_BOUNDARY: usize = 1024;

/// Multiparts within multiparts. Real mail has five.
const DEEPEST: usize = 64;

/// Leaves. Real mail has a few; digests some hundreds.
const MOST_PARTS: usize = 10_000;

/// Bytes kept of the message's header block, of one part's, and of one line in them. The `Content-` fields are kept
/// beyond that.
const HEADER_CAP: usize = 1024 * 1024;
const PART_HEADER_CAP: usize = 128 * 1024;
const LINE_CAP: usize = 64 * 1024;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Structure {
    /// The message's own header block.
    pub(crate) header: Vec<u8>,
    /// What the message's own header says of its content.
    pub(crate) root: PartHeader,
    /// Leaves, in the order of the message.
    pub(crate) parts: Vec<Part>,
    /// It ended before its last boundary.
    pub(crate) truncated: bool,
    /// Deeper, or more parts, than is followed.
    pub(crate) too_complex: bool,
}

/// A leaf.
#[derive(Debug)]
pub(crate) struct Part {
    /// As IMAP numbers parts (RFC 3501, section 6.4.5): `1`, `2.1`; `1.u1` is the first uuencoded file in `1`.
    pub(crate) id: String,
    pub(crate) header: PartHeader,
    /// Where its encoded bytes lie.
    pub(crate) body: Range<u64>,
}

/// Finds parts.
#[derive(Debug)]
pub(crate) struct Scanner {
    found: Structure,
    /// Stop when this part is complete.
    wanted: Option<String>,
    open: Vec<Multipart>,
    at: At,
    done: bool,
    /// How many bytes have been looked at.
    offset: u64,
    /// The last two bytes before `offset`, to tell how long a line end was.
    before: [u8; 2],
    /// Where the line that is looked at starts, and the two bytes before it.
    line_start: u64,
    line_before: [u8; 2],
    /// The beginning of a line whose end is still to come. A CR as its last byte may have an LF to come.
    held: Vec<u8>,
    /// Within a line of which nothing needs to be known.
    skipping: bool,
    /// After a line of which nothing needs to be known, and which may still have an LF to come.
    skipped_cr: bool,
}

#[derive(Debug)]
enum At {
    Header(HeaderBlock),
    /// In a leaf.
    Body(Box<Leaf>),
    /// Before the first part of a multipart, or after its last.
    Between,
}

#[derive(Debug)]
struct Multipart {
    id: String,
    header: PartHeader,
    boundaries: Vec<Vec<u8>>,
    children: u32,
    body_start: u64,
    /// A line in its preamble that looks like a boundary, waiting for what follows it.
    suspect: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct HeaderBlock {
    /// Empty for the message itself.
    id: String,
    bytes: Vec<u8>,
    /// The line before was dropped because the block is full; its continuations are too.
    dropped: bool,
    /// Where a line started that is no field: the body's first, unless a field follows before a blank line does.
    stray: Option<u64>,
}

#[derive(Debug)]
struct Leaf {
    part: Part,
    /// Whether uuencoded files are looked for in it.
    uu: bool,
    files: Vec<Part>,
    /// A file that has begun.
    file: Option<UuFile>,
}

#[derive(Debug)]
struct UuFile {
    start: u64,
    name: Vec<u8>,
    lines: u64,
}

impl Scanner {
    pub(crate) fn new() -> Self {
        Self {
            found: Structure::default(),
            wanted: None,
            open: Vec::new(),
            at: At::Header(HeaderBlock::default()),
            done: false,
            offset: 0,
            before: [0; 2],
            line_start: 0,
            line_before: [0; 2],
            held: Vec::new(),
            skipping: false,
            skipped_cr: false,
        }
    }

    /// Only as far as this part.
    pub(crate) fn until(part: &str) -> Self {
        Self { wanted: Some(part.to_owned()), ..Self::new() }
    }

    /// Whether nothing that follows matters, except how long the message is.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    pub(crate) fn push(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while !rest.is_empty() && !self.done {
            let (seen, after) = rest.split_at(self.step(rest));
            self.offset += seen.len() as u64;
            match *seen {
                [] => {}
                [last] => self.before = [self.before[1], last],
                [.., a, b] => self.before = [a, b],
            }
            rest = after;
        }
    }

    /// What was found, in a message of so many bytes.
    pub(crate) fn finish(mut self, length: u64) -> Structure {
        if !self.held.is_empty() && !self.done {
            let line = std::mem::take(&mut self.held);
            self.line(line.strip_suffix(b"\r").unwrap_or(&line), length);
        }
        if let At::Header(block) = &mut self.at {
            let block = std::mem::take(block);
            let start = block.stray.unwrap_or(length);
            self.header_ends(block, start);
        }
        self.leaf_ends(length);
        self.found.truncated = !self.open.is_empty() && self.wanted.is_none();
        while let Some(multipart) = self.open.pop() {
            self.multipart_ends(multipart, length);
        }
        if let Some(last) = self.found.parts.last_mut()
            && last.body.end == u64::MAX
        {
            last.body.end = length.max(last.body.start);
        }
        self.found
    }

    /// Looks at some of `rest`, and says how much.
    fn step(&mut self, rest: &[u8]) -> usize {
        if std::mem::take(&mut self.skipped_cr) && rest[0] == b'\n' {
            return 1;
        }
        if self.held.last() == Some(&b'\r') {
            self.held.pop();
            let taken = usize::from(rest[0] == b'\n');
            self.held_line(taken);
            return taken;
        }
        if self.skipping {
            return self.skip_line(rest);
        }
        if self.held.is_empty() {
            if !self.wants_all_lines() && !self.is_interesting(rest[0]) {
                return self.skim(rest);
            }
            self.line_start = self.offset;
            self.line_before = self.before;
        }
        let Some(end) = memchr2(b'\r', b'\n', rest) else {
            self.hold(rest);
            return rest.len();
        };
        let after = match rest[end..] {
            [b'\r', b'\n', ..] => end + 2,
            [b'\r'] => {
                self.hold(&rest[..end]);
                match std::mem::take(&mut self.skipping) {
                    true => self.skipped_cr = true,
                    false => self.held.push(b'\r'),
                }
                return rest.len();
            }
            _ => end + 1,
        };
        if self.held.is_empty() {
            self.line(&rest[..end.min(LINE_CAP)], self.offset + after as u64);
            return after;
        }
        self.hold(&rest[..end]);
        if !std::mem::take(&mut self.skipping) {
            self.held_line(after);
        }
        after
    }

    fn hold(&mut self, piece: &[u8]) {
        let cap = LINE_CAP.saturating_sub(self.held.len());
        self.held.extend_from_slice(&piece[..piece.len().min(cap)]);
        if self.held.len() > LONGEST_BOUNDARY + 8 && !self.wants_all_lines() {
            // Too long for a boundary.
            self.held.clear();
            self.skipping = true;
        }
    }

    fn held_line(&mut self, taken: usize) {
        let mut line = std::mem::take(&mut self.held);
        self.line(&line, self.offset + taken as u64);
        line.clear();
        self.held = line;
    }

    fn wants_all_lines(&self) -> bool {
        match &self.at {
            At::Header(_) => true,
            At::Body(leaf) => leaf.file.is_some(),
            At::Between => self.open.last().is_some_and(|multipart| multipart.suspect.is_some()),
        }
    }

    /// Whether a line that begins so may be a boundary, or the start of a uuencoded file.
    fn is_interesting(&self, first: u8) -> bool {
        match first {
            b'-' => true,
            b'b' => matches!(&self.at, At::Body(leaf) if leaf.uu),
            _ => false,
        }
    }

    /// From the start of a line of no interest to the start of the next one of some, or as far as can be seen.
    fn skim(&mut self, rest: &[u8]) -> usize {
        let mut at = 0;
        loop {
            at += self.skip_line(&rest[at..]);
            match rest.get(at) {
                Some(&first) if !self.is_interesting(first) => {}
                _ => return at,
            }
        }
    }

    /// To the end of a line of no interest, or as far as can be seen.
    fn skip_line(&mut self, rest: &[u8]) -> usize {
        let Some(end) = memchr2(b'\r', b'\n', rest) else {
            self.skipping = true;
            return rest.len();
        };
        self.skipping = false;
        match rest[end..] {
            [b'\r', b'\n', ..] => end + 2,
            [b'\r'] => {
                self.skipped_cr = true;
                end + 1
            }
            _ => end + 1,
        }
    }

    /// A line, without its end; `next` is where the line after it starts.
    fn line(&mut self, line: &[u8], next: u64) {
        if let Some((level, closes)) = self.boundary(line) {
            if let At::Header(block) = &mut self.at {
                let block = std::mem::take(block);
                let start = block.stray.unwrap_or(self.line_start);
                self.header_ends(block, start);
            }
            self.at_boundary(level, closes, next);
            return;
        }
        if let At::Header(block) = &mut self.at {
            match block.line(line, self.line_start) {
                Verdict::Taken => return,
                Verdict::Blank => {
                    let block = std::mem::take(block);
                    return self.header_ends(block, next);
                }
                Verdict::NotMine(start) => {
                    let block = std::mem::take(block);
                    self.header_ends(block, start);
                    // The line may be the first boundary of what that header began.
                    if let Some((level, closes)) = self.boundary(line) {
                        return self.at_boundary(level, closes, next);
                    }
                }
            }
        }
        match &mut self.at {
            At::Header(_) => {}
            At::Body(leaf) => leaf.line(line, self.line_start, next, self.found.parts.len()),
            At::Between => self.between(line),
        }
    }

    /// The open multipart whose boundary a line is, and whether it is its last.
    fn boundary(&self, line: &[u8]) -> Option<(usize, bool)> {
        // Whole lines are compared, not beginnings (RFC 2046, section 5.1.1): one boundary may begin with another.
        let text = line.strip_prefix(b"--")?.trim_ascii_end();
        let find = |judge: fn(&[u8]) -> Option<bool>| {
            self.open.iter().enumerate().rev().find_map(|(level, multipart)| {
                let rest = |boundary: &Vec<u8>| text.strip_prefix(boundary.as_slice());
                let closes = multipart.boundaries.iter().filter_map(rest).find_map(judge)?;
                Some((level, closes))
            })
        };
        find(|rest| match rest {
            b"" => Some(false),
            b"--" => Some(true),
            _ => None,
        })
        // Some put a mark after the last boundary.
        .or_else(|| find(|rest| matches!(rest, [b'-', b'-', b' ' | b'>' | b'<' | b'*', ..]).then_some(true)))
    }

    fn at_boundary(&mut self, level: usize, closes: bool, next: u64) {
        // The line end before a boundary belongs to the boundary.
        let line_end = match self.line_before {
            [b'\r', b'\n'] => 2,
            [_, b'\n' | b'\r'] => 1,
            _ => 0,
        };
        let end = self.line_start.saturating_sub(line_end);
        self.leaf_ends(end);
        let keep = if closes { level } else { level + 1 };
        while self.open.len() > keep
            && let Some(multipart) = self.open.pop()
        {
            self.multipart_ends(multipart, end);
        }
        self.at = At::Between;
        if closes {
            self.done |= self.open.is_empty();
            return;
        }
        let Some(multipart) = self.open.last_mut() else { return };
        multipart.children += 1;
        multipart.suspect = None;
        let id = match multipart.id.as_str() {
            "" => multipart.children.to_string(),
            parent => format!("{parent}.{}", multipart.children),
        };
        if self.found.parts.len() < MOST_PARTS {
            self.at = At::Header(HeaderBlock { id, ..HeaderBlock::default() });
            return;
        }
        let header = PartHeader { content_type: "application/octet-stream".to_owned(), ..PartHeader::default() };
        self.found.too_complex = true;
        self.found.parts.push(Part { id, header, body: next..u64::MAX });
        self.open.clear();
        self.done = true;
    }

    fn between(&mut self, line: &[u8]) {
        let Some(multipart) = self.open.last_mut() else { return };
        if multipart.children > 0 {
            return;
        }
        // A boundary that is missing from the header, or another one there: what is plainly a boundary is one.
        match multipart.suspect.take() {
            Some(suspect) if line.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"content-")) => {
                multipart.boundaries.push(suspect);
                let level = self.open.len() - 1;
                self.at_boundary(level, false, self.line_start);
                if let At::Header(block) = &mut self.at {
                    block.line(line, self.line_start);
                }
            }
            _ => {
                let text = line.strip_prefix(b"--").unwrap_or_default().trim_ascii_end();
                let likely = (1..=LONGEST_BOUNDARY).contains(&text.len()) && !text.ends_with(b"--");
                multipart.suspect = likely.then(|| text.to_vec());
            }
        }
    }

    fn header_ends(&mut self, block: HeaderBlock, body_start: u64) {
        let in_digest = self.open.last().is_some_and(|parent| parent.header.content_type == "multipart/digest");
        let header = PartHeader::parse(&block.bytes, if in_digest { "message/rfc822" } else { "text/plain" });
        if block.id.is_empty() {
            self.found.header = block.bytes;
            self.found.root = header.clone();
        }
        if header.is_multipart() && self.open.len() < DEEPEST {
            let boundaries = header.boundaries.clone();
            self.open.push(Multipart { id: block.id, header, boundaries, children: 0, body_start, suspect: None });
            self.at = At::Between;
            return;
        }
        self.found.too_complex |= header.is_multipart();
        let id = if block.id.is_empty() { "1".to_owned() } else { block.id };
        let uu = header.content_type == "text/plain"
            && header.encoding == Encoding::Identity
            && header.name.is_none()
            && header.disposition != Disposition::Attachment;
        // A single part ends where the message ends.
        self.done |= self.open.is_empty() && !uu;
        let part = Part { id, header, body: body_start..body_start };
        self.at = At::Body(Box::new(Leaf { part, uu, files: Vec::new(), file: None }));
    }

    fn leaf_ends(&mut self, end: u64) {
        let At::Body(leaf) = std::mem::replace(&mut self.at, At::Between) else { return };
        let mut leaf = *leaf;
        leaf.file_ends(end);
        leaf.part.body.end = end.max(leaf.part.body.start);
        self.add(leaf.part);
        for file in leaf.files {
            self.add(file);
        }
    }

    /// A multipart without a single part is text, as what cannot be understood is (RFC 2045, section 5.2).
    fn multipart_ends(&mut self, multipart: Multipart, end: u64) {
        if multipart.children > 0 {
            return;
        }
        let id = if multipart.id.is_empty() { "1".to_owned() } else { multipart.id };
        let header = PartHeader { content_type: "text/plain".to_owned(), ..multipart.header };
        self.add(Part { id, header, body: multipart.body_start..end.max(multipart.body_start) });
    }

    fn add(&mut self, part: Part) {
        self.done |= self.wanted.as_ref() == Some(&part.id);
        self.found.parts.push(part);
    }
}

/// What a line is to a header block.
enum Verdict {
    Taken,
    /// The block ends with it.
    Blank,
    /// The block has ended, without a blank line: the body starts there.
    NotMine(u64),
}

impl HeaderBlock {
    fn line(&mut self, line: &[u8], start: u64) -> Verdict {
        let is_root = self.id.is_empty();
        if is_root && self.bytes.is_empty() && self.stray.is_none() {
            // Blank lines and an mbox separator before everything are nobody's.
            if line.is_empty() || line.starts_with(b"From ") || line.starts_with(b">From ") {
                return Verdict::Taken;
            }
        }
        if line.is_empty() {
            return self.stray.map_or(Verdict::Blank, Verdict::NotMine);
        }
        let name = header::field_name(line);
        if name.is_some_and(is_known) {
            self.stray = None;
        }
        let continues = header::is_continuation(line) && !self.bytes.is_empty();
        if continues || (name.is_none() && header::is_lost_continuation(line, &self.bytes)) {
            if !self.dropped {
                if !continues {
                    self.bytes.push(b' ');
                }
                self.append(line);
            }
            return Verdict::Taken;
        }
        if name.is_some() {
            self.append(line);
            return Verdict::Taken;
        }
        let stray = *self.stray.get_or_insert(start);
        if line.starts_with(b"--") { Verdict::NotMine(stray) } else { Verdict::Taken }
    }

    fn append(&mut self, line: &[u8]) {
        let cap = if self.id.is_empty() { HEADER_CAP } else { PART_HEADER_CAP };
        let after = self.bytes.len() + line.len() + 1;
        let matters = line.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"content-"));
        self.dropped = after > cap && !(matters && after < 2 * cap);
        if !self.dropped {
            self.bytes.extend_from_slice(line);
            self.bytes.push(b'\n');
        }
    }
}

/// Whether a field belongs into a header for certain, so that a line before it that is no field is an accident.
fn is_known(name: &[u8]) -> bool {
    const NAMES: [&str; 14] = [
        "mime-version",
        "received",
        "date",
        "from",
        "to",
        "cc",
        "sender",
        "subject",
        "message-id",
        "reply-to",
        "return-path",
        "references",
        "in-reply-to",
        "delivered-to",
    ];
    const FAMILIES: [&str; 4] = ["content-", "x-", "list-", "dkim-"];
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    NAMES.contains(&name.as_str()) || FAMILIES.iter().any(|family| name.starts_with(family))
}

impl Leaf {
    /// `others` is how many parts there are already.
    fn line(&mut self, line: &[u8], start: u64, next: u64, others: usize) {
        if !self.uu {
            return;
        }
        let text = line.trim_ascii_end();
        match &mut self.file {
            None if is_uu_begin(text) && others + self.files.len() < MOST_PARTS => {
                // After `begin`, a blank, the mode and another blank.
                let name = text[6..].trim_ascii_start();
                let name = name.iter().position(|&b| b == b' ').map_or(name, |blank| &name[blank + 1..]);
                self.file = Some(UuFile { start, name: name.to_vec(), lines: 0 });
            }
            None => {}
            Some(_) if text == b"end" => self.file_ends(next),
            Some(file) if is_uu_data(line) => file.lines += 1,
            // A single blank, or nothing: no bytes, before the end.
            Some(_) if text.is_empty() => {}
            Some(_) => self.file_ends(start),
        }
    }

    fn file_ends(&mut self, end: u64) {
        let Some(file) = self.file.take().filter(|file| file.lines > 0) else { return };
        let name = words::text(&file.name, self.part.header.charset.as_deref());
        let header = PartHeader {
            content_type: "application/octet-stream".to_owned(),
            encoding: Encoding::Uuencode,
            disposition: Disposition::Attachment,
            name: Some(name.chars().take(super::names::LONGEST_NAME).collect()),
            ..PartHeader::default()
        };
        let id = format!("{}.u{}", self.part.id, self.files.len() + 1);
        self.files.push(Part { id, header, body: file.start..end.max(file.start) });
    }
}
