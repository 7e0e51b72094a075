//! Framing: where one response ends and the next begins.
//!
//! A response is a line, except that a line that ends in `{n}` is followed by n bytes of anything and then goes on.
//! Small literals are kept with the line; a literal that the caller wants to stream is handed out in pieces. A
//! length that the server announces is never allocated: memory follows what has arrived, up to the caps below.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

/// Longest line, literals not counted.
pub(crate) const MAX_LINE: usize = 1 << 20;
/// A SEARCH answer is one line however many messages there are, and costs nothing to read.
pub(crate) const MAX_SEARCH_LINE: usize = 16 << 20;
/// Longest literal that is kept in memory.
pub(crate) const MAX_LITERAL: u64 = 8 << 20;
/// Most literal bytes that one response may keep in memory.
pub(crate) const MAX_LITERALS: usize = 12 << 20;
/// Most literals in one response; more would only fill memory with their positions.
const MAX_LITERAL_COUNT: usize = 65_536;
/// Most bytes of unwanted literals that one response may make us read past.
const MAX_SKIPPED: u64 = 512 << 20;
/// A piece of a streamed literal.
const CHUNK: usize = 64 * 1024;
/// A server makes progress when this many bytes arrive within the window.
const PROGRESS: u64 = 1024;

/// Why no response could be read. After any of these the connection is of no further use.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The stream ended; `inside` says whether it was in the middle of a response.
    Closed {
        inside: bool,
    },
    Io(io::Error),
    /// Nothing, or too little, came in time.
    Timeout,
    /// The bytes cannot be a response, or exceed a cap.
    Framing(&'static str),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { inside: false } => f.write_str("the server closed the connection"),
            Self::Closed { inside: true } => f.write_str("the server closed the connection in the middle of an answer"),
            Self::Io(_) => f.write_str("the connection broke"),
            Self::Timeout => f.write_str("the server did not answer in time"),
            Self::Framing(what) => write!(f, "the server's answer cannot be read: {what}"),
        }
    }
}

/// How long to wait for bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deadline {
    /// All of it must be there by then.
    At(Instant),
    /// Something must keep coming. Only time spent waiting for the server counts, so a slow consumer of a
    /// download never makes the server look stalled.
    Progress { window: Duration, waited: Duration, bytes: u64 },
}

impl Deadline {
    pub(crate) fn progress(window: Duration) -> Self {
        Self::Progress { window, waited: Duration::ZERO, bytes: 0 }
    }
}

/// What became of a literal's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Inline,
    Streamed,
    Skipped,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Literal {
    /// Where its first byte is, or would be, in [`Response::raw`].
    pub(crate) at: usize,
    pub(crate) announced: u64,
    pub(crate) kept: Kept,
}

/// One whole response as it came, with its small literals in place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Response {
    pub(crate) raw: Bytes,
    pub(crate) literals: Vec<Literal>,
}

#[derive(Debug)]
pub(crate) enum Frame {
    Response(Response),
    /// A literal that the caller asked to stream begins: read it with [`Reader::chunk`], then call
    /// [`Reader::next`] again for the rest of the response.
    Literal {
        size: u64,
    },
}

pub(crate) struct Reader<S> {
    stream: S,
    input: BytesMut,
    response: BytesMut,
    literals: Vec<Literal>,
    /// Bytes of `response` that are line, not literal.
    text: usize,
    kept: usize,
    skipped: u64,
    /// What is left of the literal that is being streamed.
    remaining: u64,
    deadline: Deadline,
    received: u64,
}

impl<S> fmt::Debug for Reader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The buffers hold people's mail.
        f.debug_struct("Reader")
            .field("received", &self.received)
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub(crate) fn new(stream: S, deadline: Deadline) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            response: BytesMut::new(),
            literals: Vec::new(),
            text: 0,
            kept: 0,
            skipped: 0,
            remaining: 0,
            deadline,
            received: 0,
        }
    }

    pub(crate) fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The stream, and whatever was read from it but not used.
    pub(crate) fn into_parts(self) -> (S, BytesMut) {
        (self.stream, self.input)
    }

    pub(crate) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// Bytes read so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Whether the last response was read to its end and nothing waits in the buffer.
    pub(crate) fn is_idle(&self) -> bool {
        self.remaining == 0 && self.response.is_empty() && self.input.is_empty()
    }

    /// The next response. `stream_it` is asked about each literal, with the response up to and including its
    /// `{n}` and the announced size, and says whether the caller wants to stream it.
    pub(crate) async fn next(&mut self, mut stream_it: impl FnMut(&[u8], u64) -> bool) -> Result<Frame, ReadError> {
        while self.chunk().await?.is_some() {}
        let mut scanned = 0;
        loop {
            let Some(end) = memchr(b'\n', &self.input[scanned..]).map(|i| scanned + i + 1) else {
                scanned = self.input.len();
                self.check_line(scanned)?;
                self.fill().await?;
                continue;
            };
            self.check_line(end)?;
            let line = self.input.split_to(end);
            scanned = 0;
            self.text += line.len();
            self.response.extend_from_slice(&line);
            let size = match announced(&self.response, line.len()) {
                Announced::No => return Ok(Frame::Response(self.take())),
                Announced::Unreadable => return Err(ReadError::Framing("a literal's length")),
                Announced::Literal(size) => size,
            };
            if self.literals.len() >= MAX_LITERAL_COUNT {
                return Err(ReadError::Framing("too many literals in one answer"));
            }
            let kept = if stream_it(&self.response, size) {
                Kept::Streamed
            } else if size <= MAX_LITERAL && self.kept + size as usize <= MAX_LITERALS {
                Kept::Inline
            } else {
                Kept::Skipped
            };
            self.literals.push(Literal { at: self.response.len(), announced: size, kept });
            match kept {
                Kept::Inline => self.keep(size as usize).await?,
                Kept::Skipped => {
                    self.skipped = self.skipped.saturating_add(size);
                    if self.skipped > MAX_SKIPPED {
                        return Err(ReadError::Framing("a literal longer than the limit"));
                    }
                    self.remaining = size;
                    while self.chunk().await?.is_some() {}
                }
                Kept::Streamed => {
                    self.remaining = size;
                    return Ok(Frame::Literal { size });
                }
            }
        }
    }

    /// The next piece of the literal that is being streamed, or `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        if self.remaining == 0 {
            return Ok(None);
        }
        if self.input.is_empty() {
            self.fill().await?;
        }
        let n = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(self.input.len());
        self.remaining -= n as u64;
        Ok(Some(self.input.split_to(n).freeze()))
    }

    fn check_line(&self, pending: usize) -> Result<(), ReadError> {
        let length = self.text + pending;
        if length <= MAX_LINE {
            return Ok(());
        }
        // A line's beginning may still be in the input buffer.
        let head = if self.response.is_empty() { &self.input[..] } else { &self.response[..] };
        let search = head.get(..8).is_some_and(|head| head.eq_ignore_ascii_case(b"* SEARCH"));
        if search && length <= MAX_SEARCH_LINE {
            return Ok(());
        }
        Err(ReadError::Framing("a line longer than the limit"))
    }

    fn take(&mut self) -> Response {
        self.text = 0;
        self.kept = 0;
        self.skipped = 0;
        Response { raw: self.response.split().freeze(), literals: std::mem::take(&mut self.literals) }
    }

    /// Reads `size` bytes behind the response, growing it only as they come.
    async fn keep(&mut self, size: usize) -> Result<(), ReadError> {
        self.kept += size;
        let mut left = size;
        while left > 0 {
            if self.input.is_empty() && left >= CHUNK {
                self.response.reserve(CHUNK);
                let n = read_into(&mut self.stream, &mut (&mut self.response).limit(left), &mut self.deadline).await?;
                self.received += n as u64;
                left -= n;
                continue;
            }
            if self.input.is_empty() {
                self.fill().await?;
            }
            let n = left.min(self.input.len());
            self.response.extend_from_slice(&self.input.split_to(n));
            left -= n;
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), ReadError> {
        self.input.reserve(CHUNK);
        let read = read_into(&mut self.stream, &mut self.input, &mut self.deadline).await;
        match read {
            Ok(n) => {
                self.received += n as u64;
                Ok(())
            }
            Err(ReadError::Closed { .. }) => Err(ReadError::Closed {
                inside: !self.response.is_empty() || !self.input.is_empty() || self.remaining > 0,
            }),
            Err(error) => Err(error),
        }
    }
}

async fn read_into<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut impl BufMut,
    deadline: &mut Deadline,
) -> Result<usize, ReadError> {
    let started = Instant::now();
    let until = match deadline {
        Deadline::At(at) => *at,
        Deadline::Progress { window, waited, .. } => started + window.saturating_sub(*waited),
    };
    // A timer is only looked at when there is nothing to read, and a server may talk without a pause.
    if started >= until && matches!(deadline, Deadline::At(_)) {
        return Err(ReadError::Timeout);
    }
    let n = match tokio::time::timeout_at(until, stream.read_buf(buffer)).await {
        Err(_) => return Err(ReadError::Timeout),
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            // rustls reports a peer that left without saying so in TLS; for us it is the same.
            return Err(ReadError::Closed { inside: true });
        }
        Ok(Err(error)) => return Err(ReadError::Io(error)),
        Ok(Ok(0)) => return Err(ReadError::Closed { inside: true }),
        Ok(Ok(n)) => n,
    };
    if let Deadline::Progress { waited, bytes, .. } = deadline {
        *waited += started.elapsed();
        *bytes += n as u64;
        if *bytes >= PROGRESS {
            *waited = Duration::ZERO;
            *bytes = 0;
        }
    }
    Ok(n)
}

enum Announced {
    No,
    Literal(u64),
    Unreadable,
}

/// Whether the last `line` bytes of `response` end by announcing a literal.
fn announced(response: &[u8], line: usize) -> Announced {
    let text = trim_end(&response[response.len() - line..]);
    let Some(text) = text.strip_suffix(b"}") else {
        return Announced::No;
    };
    let text = text.strip_suffix(b"+").unwrap_or(text);
    let digits = text.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (head, digits) = text.split_at(text.len() - digits);
    if digits.is_empty() || head.last() != Some(&b'{') || is_status(response) {
        return Announced::No;
    }
    match std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok()) {
        Some(size) => Announced::Literal(size),
        None => Announced::Unreadable,
    }
}

/// Status text is written for people and may end in `{5}` without meaning anything by it.
fn is_status(response: &[u8]) -> bool {
    // Only the beginning: a line may be long and have a literal in every word.
    let mut words = response[..response.len().min(64)].splitn(3, |b| *b == b' ');
    let first = words.next().unwrap_or_default();
    if first == b"+" {
        return true;
    }
    let second = trim_end(words.next().unwrap_or_default());
    [&b"OK"[..], b"NO", b"BAD", b"BYE", b"PREAUTH"].iter().any(|word| second.eq_ignore_ascii_case(word))
}

pub(crate) fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    fn soon() -> Deadline {
        Deadline::At(Instant::now() + Duration::from_secs(5))
    }

    async fn all(bytes: &[u8]) -> Vec<Result<Response, ReadError>> {
        let mut reader = Reader::new(bytes, soon());
        let mut out = Vec::new();
        loop {
            match reader.next(|_, _| false).await {
                Ok(Frame::Response(response)) => out.push(Ok(response)),
                Ok(Frame::Literal { .. }) => unreachable!("nothing is streamed"),
                Err(ReadError::Closed { inside: false }) => return out,
                Err(error) => {
                    out.push(Err(error));
                    return out;
                }
            }
        }
    }

    #[tokio::test]
    async fn lines_and_literals() {
        let got = all(b"* OK hi\r\n* LIST () \"/\" {3}\r\na\r\n\r\n* 1 EXISTS\n").await;
        let raw: Vec<_> = got.iter().map(|r| r.as_ref().unwrap().raw.clone()).collect();
        assert_eq!(raw[0], "* OK hi\r\n");
        assert_eq!(raw[1], "* LIST () \"/\" {3}\r\na\r\n\r\n");
        assert_eq!(raw[2], "* 1 EXISTS\n");
        let literal = got[1].as_ref().unwrap().literals[0];
        assert_eq!((literal.at, literal.announced), (19, 3));
    }

    #[tokio::test]
    async fn status_text_that_looks_like_a_literal_is_text() {
        let got = all(b"* OK see {5}\r\na1 NO {7}\r\n+ {3}\r\n* 1 EXISTS\r\n").await;
        assert_eq!(got.len(), 4);
        assert!(got.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn a_streamed_literal_comes_in_pieces_and_the_line_goes_on() {
        let mut wire = b"* 1 FETCH (UID 5 BODY[2] {200000}\r\n".to_vec();
        wire.extend(std::iter::repeat_n(b'x', 200_000));
        wire.extend(b" FLAGS ())\r\n");
        let mut reader = Reader::new(&wire[..], soon());
        let frame = reader.next(|head, n| head.ends_with(b"BODY[2] {200000}\r\n") && n == 200_000);
        assert!(matches!(frame.await.unwrap(), Frame::Literal { size: 200_000 }));
        let mut total = 0;
        while let Some(piece) = reader.chunk().await.unwrap() {
            total += piece.len();
        }
        assert_eq!(total, 200_000);
        let Frame::Response(response) = reader.next(|_, _| false).await.unwrap() else {
            panic!("the rest of the line");
        };
        assert!(response.raw.ends_with(b" FLAGS ())\r\n"));
        assert_eq!(response.literals[0].kept, Kept::Streamed);
        assert!(reader.is_idle());
    }

    #[tokio::test]
    async fn a_literal_that_was_not_read_is_drained() {
        let mut reader = Reader::new(&b"* X {3}\r\nabc\r\n* Y\r\n"[..], soon());
        assert!(matches!(reader.next(|_, _| true).await.unwrap(), Frame::Literal { size: 3 }));
        let Frame::Response(_) = reader.next(|_, _| true).await.unwrap() else {
            panic!("the rest");
        };
        let Frame::Response(next) = reader.next(|_, _| true).await.unwrap() else {
            panic!("the next line");
        };
        assert_eq!(next.raw, "* Y\r\n");
    }

    #[tokio::test]
    async fn an_announced_size_costs_no_memory() {
        let mut reader = Reader::new(&b"* 1 FETCH (BODY[] {500000000}\r\nabc"[..], soon());
        let error = reader.next(|_, _| false).await.unwrap_err();
        assert!(matches!(error, ReadError::Closed { inside: true }));
        assert!(reader.response.capacity() < 1 << 20, "{}", reader.response.capacity());
        let mut reader = Reader::new(&b"* 1 FETCH (BODY[] {8000000}\r\nabc"[..], soon());
        reader.next(|_, _| false).await.unwrap_err();
        assert!(reader.response.capacity() < 1 << 20, "{}", reader.response.capacity());
    }

    #[tokio::test]
    async fn a_literal_too_big_to_keep_is_read_past() {
        let mut wire = format!("* 1 FETCH (BODY[] {{{}}}\r\n", MAX_LITERAL + 1).into_bytes();
        wire.resize(wire.len() + MAX_LITERAL as usize + 1, b'x');
        wire.extend(b" UID 7)\r\n* 2 EXISTS\r\n");
        let got = all(&wire).await;
        let first = got[0].as_ref().unwrap();
        assert_eq!(first.literals[0].kept, Kept::Skipped);
        assert!(first.raw.len() < 100);
        assert_eq!(got[1].as_ref().unwrap().raw, "* 2 EXISTS\r\n");
    }

    #[tokio::test]
    async fn caps_end_the_connection() {
        let long = vec![b'a'; MAX_LINE + 10];
        assert!(matches!(all(&long).await[0], Err(ReadError::Framing(_))));
        let mut search = b"* SEARCH".to_vec();
        while search.len() < 2 * MAX_LINE {
            search.extend(b" 123456");
        }
        search.extend(b"\r\n");
        assert!(all(&search).await[0].is_ok());
        let got = all(b"* X {99999999999999999999999}\r\n").await;
        assert!(matches!(got[0], Err(ReadError::Framing(_))));
        let got = all(b"* X {18446744073709551615}\r\n").await;
        assert!(matches!(got[0], Err(ReadError::Framing(_))));
    }

    #[tokio::test]
    async fn many_small_literals_cannot_fill_memory() {
        let wire = b"{0}\r\n".repeat(MAX_LITERAL_COUNT + 2);
        assert!(matches!(all(&wire).await[0], Err(ReadError::Framing(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_literal_times_out_on_progress_not_on_total_time() {
        let (mut server, client) = tokio::io::duplex(1 << 16);
        let mut reader = Reader::new(client, Deadline::progress(Duration::from_secs(30)));
        let talk = tokio::spawn(async move {
            server.write_all(b"* 1 FETCH (BODY[] {100000}\r\n").await.unwrap();
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                server.write_all(&[b'x'; 2048]).await.unwrap();
            }
            // Now a trickle, which is not progress.
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                let _ = server.write_all(b"x").await;
            }
        });
        let started = Instant::now();
        reader.next(|_, _| true).await.unwrap();
        let error = loop {
            match reader.chunk().await {
                Ok(piece) => assert!(piece.is_some()),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ReadError::Timeout));
        let took = started.elapsed();
        assert!(took >= Duration::from_secs(220) && took < Duration::from_secs(240), "{took:?}");
        talk.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_consumer_is_not_a_stalled_server() {
        let (mut server, client) = tokio::io::duplex(1 << 16);
        let mut reader = Reader::new(client, Deadline::progress(Duration::from_secs(30)));
        server.write_all(b"* X {4}\r\nab").await.unwrap();
        reader.next(|_, _| true).await.unwrap();
        assert_eq!(reader.chunk().await.unwrap().unwrap(), "ab");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        server.write_all(b"cd\r\n").await.unwrap();
        assert_eq!(reader.chunk().await.unwrap().unwrap(), "cd");
    }
}
