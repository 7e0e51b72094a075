//! The TCP side of the fake: a small HTTP/1.1 proxy in front of wiremock.
//!
//! wiremock answers whole messages or none. What a network does to an answer (cut, reset, trickle,
//! silence) is done here, and bodies are written here from their description, since wiremock would
//! copy each of them several times. A request counts as in flight until just before the last bytes
//! of its answer are handed to the socket: later would refuse clients that keep the limit, because
//! they may send the next request before this task runs again.

use super::Shared;
use super::content::{Body, BodyReader};
use super::faults::Transport;
use super::routes::Permits;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Which of the two services a connection reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    Login,
    Graph,
}

impl Site {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Site::Login => "login",
            Site::Graph => "graph",
        }
    }
}

/// What belongs to an answer and does not go through wiremock.
pub(crate) struct Extras {
    pub(crate) body: Body,
    pub(crate) transport: Option<Transport>,
    pub(crate) delay: Duration,
    pub(crate) permits: Permits,
}

/// Headers between proxy and responder.
pub(crate) const TARGET: &str = "x-fake-target";
pub(crate) const NUMBER: &str = "x-fake-number";
pub(crate) const SITE: &str = "x-fake-site";
pub(crate) const NO_LENGTH: &str = "x-fake-no-length";

const MAX_HEAD: usize = 256 * 1024;
/// More than any request to Graph may be long, with room for the refusal to be Graph's.
const MAX_BODY: usize = 32 * 1024 * 1024;
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Accepts until the fake is gone.
pub(crate) async fn serve(
    listener: TcpListener,
    upstream: SocketAddr,
    site: Site,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<()>,
) {
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let shared = Arc::clone(&shared);
                let mut stopped = stop.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = connection(client, upstream, site, &shared) => {}
                        _ = stopped.changed() => {}
                    }
                });
            }
            _ = stop.changed() => return,
        }
    }
}

pub(super) struct Head {
    pub(super) first: String,
    headers: Vec<(String, String)>,
}

impl Head {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A stream with what was read too far.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Wire { stream, buffer: Vec::new() }
    }

    async fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        let count = self.stream.read(&mut chunk).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(())
    }

    pub(super) async fn head(&mut self) -> io::Result<Head> {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.fill().await?;
        };
        let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        Ok(Head { first, headers })
    }

    async fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill().await?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 2);
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    pub(super) async fn body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        let chunked = head.get("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        if !chunked {
            let length = match head.get("content-length") {
                Some(text) => text.parse().map_err(|_| io::ErrorKind::InvalidData)?,
                None => 0,
            };
            if length > MAX_BODY {
                return Err(io::ErrorKind::InvalidData.into());
            }
            return self.exactly(length).await;
        }
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(body);
            }
            if body.len() + size > MAX_BODY {
                return Err(io::ErrorKind::InvalidData.into());
            }
            body.extend(self.exactly(size).await?);
            self.exactly(2).await?;
        }
    }
}

async fn connection(client: TcpStream, upstream: SocketAddr, site: Site, shared: &Shared) -> io::Result<()> {
    let mut client = Wire::new(client);
    let mut server = Wire::new(TcpStream::connect(upstream).await?);
    loop {
        let head = client.head().await?;
        let mut words = head.first.split(' ');
        let (method, target, version) = (
            words.next().unwrap_or_default().to_owned(),
            words.next().unwrap_or_default().to_owned(),
            words.next().unwrap_or_default().to_owned(),
        );
        let close =
            version != "HTTP/1.1" || head.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        // Anything a header cannot carry is no target either.
        let sound = version.starts_with("HTTP/1.")
            && target.starts_with('/')
            && target.bytes().all(|byte| byte.is_ascii_graphic())
            && words.next().is_none();
        if !sound {
            let refusal = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            client.stream.write_all(refusal).await?;
            return Ok(());
        }
        if head.get("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            client.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let body = client.body(&head).await?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut request = format!("{method} / HTTP/1.1\r\nhost: fake\r\n");
        for (name, value) in &head.headers {
            let lower = name.to_ascii_lowercase();
            let hop =
                matches!(lower.as_str(), "host" | "connection" | "content-length" | "transfer-encoding" | "expect");
            if !hop && !lower.starts_with("x-fake-") {
                request.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        if head.get("content-length").is_none() && head.get("transfer-encoding").is_none() {
            request.push_str(&format!("{NO_LENGTH}: 1\r\n"));
        }
        request.push_str(&format!(
            "{TARGET}: {target}\r\n{NUMBER}: {number}\r\n{SITE}: {}\r\ncontent-length: {}\r\n\r\n",
            site.name(),
            body.len()
        ));
        server.stream.write_all(request.as_bytes()).await?;
        server.stream.write_all(&body).await?;
        let answer = server.head().await?;
        server.body(&answer).await?;
        let Some(extras) = shared.take_extras(number) else {
            // The head could not be read by hyper: its own refusal stands.
            let text = format!("{}\r\ncontent-length: 0\r\n\r\n", answer.first);
            client.stream.write_all(text.as_bytes()).await?;
            return Ok(());
        };
        if !extras.delay.is_zero() {
            tokio::time::sleep(extras.delay).await;
        }
        if !write_answer(&mut client, &answer, extras, close, shared).await? || close {
            return Ok(());
        }
    }
}

/// Writes an answer; `false` if the connection is not to be used any more.
async fn write_answer(
    client: &mut Wire,
    answer: &Head,
    extras: Extras,
    close: bool,
    shared: &Shared,
) -> io::Result<bool> {
    let Extras { body, transport, permits, .. } = extras;
    let length = body.len();
    let mut head = format!("{}\r\n", answer.first);
    for (name, value) in &answer.headers {
        if !name.eq_ignore_ascii_case("content-length") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if close {
        head.push_str("connection: close\r\n");
    }
    let bodiless = answer.first.contains(" 204 ");
    if !bodiless {
        head.push_str(&format!("content-length: {length}\r\n"));
    }
    head.push_str("\r\n");

    // An answer too short to be cut is not sent at all.
    let transport = match transport {
        Some(Transport::CutInBody | Transport::ResetInBody) if length < 2 => Some(Transport::ResetBeforeAnswer),
        Some(Transport::StallInBody) if length < 2 => Some(Transport::Stall),
        other => other,
    };
    match transport {
        None => {}
        Some(Transport::ResetBeforeAnswer) => {
            drop(permits);
            client.stream.set_zero_linger()?;
            return Ok(false);
        }
        Some(Transport::Stall) => {
            drop(permits);
            wait_for_end(client).await;
            return Ok(false);
        }
        Some(wire @ (Transport::CutInBody | Transport::ResetInBody | Transport::StallInBody)) => {
            drop(permits);
            client.stream.write_all(head.as_bytes()).await?;
            let mut left = (length / 2) as usize;
            let mut reader = BodyReader::new(body);
            while let Some(mut chunk) = reader.next_chunk() {
                chunk.truncate(left);
                client.stream.write_all(&chunk).await?;
                left -= chunk.len();
                if left == 0 {
                    break;
                }
            }
            client.stream.flush().await?;
            shared.count_sent(length / 2);
            match wire {
                Transport::ResetInBody => client.stream.set_zero_linger()?,
                Transport::StallInBody => wait_for_end(client).await,
                _ => {}
            }
            return Ok(false);
        }
        Some(Transport::Trickle { bytes, pause }) => {
            client.stream.write_all(head.as_bytes()).await?;
            let mut reader = BodyReader::new(body);
            let mut permits = Some(permits);
            let mut sent = 0;
            while let Some(chunk) = reader.next_chunk() {
                for piece in chunk.chunks(bytes) {
                    tokio::time::sleep(pause).await;
                    sent += piece.len() as u64;
                    if sent == length {
                        permits.take();
                    }
                    client.stream.write_all(piece).await?;
                }
            }
            shared.count_sent(sent);
            return Ok(true);
        }
    }

    let mut pending = head.into_bytes();
    let mut reader = BodyReader::new(body);
    let mut permits = Some(permits);
    loop {
        match reader.next_chunk() {
            Some(chunk) => {
                // Head and first bytes go together; after that one chunk is always held back.
                if pending.len() > 8192 {
                    client.stream.write_all(&pending).await?;
                    pending = chunk;
                } else {
                    pending.extend_from_slice(&chunk);
                }
            }
            None => {
                permits.take();
                shared.count_sent(length);
                client.stream.write_all(&pending).await?;
                return Ok(true);
            }
        }
    }
}

/// Silence until the client gives up.
async fn wait_for_end(client: &mut Wire) {
    let mut scrap = [0; 1024];
    while matches!(client.stream.read(&mut scrap).await, Ok(count) if count > 0) {}
}
