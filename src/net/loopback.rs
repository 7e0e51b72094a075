//! Waits on this machine for the browser to come back from a sign-in (RFC 8252, section 7.3).
//!
//! The redirect URI is `http://localhost` with a free port: the sign-in service ignores the port when it compares
//! ("Redirect URI restrictions", Microsoft identity platform). Browsers ask for icons, and open connections on which they
//! say nothing; only a request with the hand-over's own `state` is an answer.

use std::{fmt, net::Ipv4Addr, net::Ipv6Addr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use url::Url;

use crate::{
    Error, ErrorKind, Result, Secret,
    auth::{Callback, SignInSettings},
};

/// More than the head of a browser's request; codes are about a kilobyte.
const HEAD: usize = 32 * 1024;

/// How long a connection may take to say something.
const SILENCE: Duration = Duration::from_secs(30);

/// A server for one answer.
pub(crate) struct Loopback {
    listeners: Vec<TcpListener>,
    redirect_uri: String,
    path: String,
}

/// The answer, and the connection on which to say what came of it.
pub(crate) struct Answered {
    pub(crate) query: String,
    connection: TcpStream,
}

impl Loopback {
    /// Listens where the app registration says, or on a free port.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] when the registration's redirect URI leads elsewhere, [`ErrorKind::Unavailable`]
    /// when its port is taken.
    pub(crate) async fn bind(settings: &SignInSettings) -> Result<Self> {
        let registered = settings.app.redirect_uri.as_deref().map_or("http://localhost", str::trim);
        let elsewhere = || {
            settings.places.invalid(
                "redirect_uri",
                format!("is `{registered}`, a page of the host's, which takes the answer; to sign in on this machine write `http://localhost` there and in the app registration, or use a device code"),
            )
        };
        let url = Url::parse(registered).map_err(|_| elsewhere())?;
        if !settings.returns_here() {
            return Err(elsewhere());
        }
        let taken = |e: std::io::Error| {
            Error::new(ErrorKind::Unavailable, format!("the port of `{registered}` cannot be listened on"))
                .with_source(e)
        };
        let (listeners, port) = listen(url.port().unwrap_or(0)).await.map_err(taken)?;
        // Its spelling counts, so that only the port is put in: no slash is added where there was none.
        let host = url.host_str().unwrap_or("localhost");
        let rest = registered.split_once("://").map_or("", |(_, rest)| rest);
        let path = rest.find('/').map_or("", |at| &rest[at..]);
        let redirect_uri = format!("http://{host}:{port}{path}");
        Ok(Self { listeners, redirect_uri, path: if path.is_empty() { "/".to_owned() } else { path.to_owned() } })
    }

    pub(crate) fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// The first request that answers the hand-over with this state.
    pub(crate) async fn answer(&self, state: &Secret) -> Result<Answered> {
        let (found, mut answers) = mpsc::channel(1);
        let wanted = Arc::new((self.path.clone(), state.clone()));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accepting = self.listeners.iter().map(|listener| Box::pin(listener.accept()));
            tokio::select! {
                Some(answer) = answers.recv() => return Ok(answer),
                (accepted, ..) = futures::future::select_all(accepting) => {
                    let Ok((connection, _)) = accepted else {
                        // Out of handles, or reset before it was taken.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    let (found, wanted) = (found.clone(), Arc::clone(&wanted));
                    connections.spawn(async move {
                        if let Ok(Some(answer)) = tokio::time::timeout(SILENCE, hear(connection, &wanted)).await {
                            let _ = found.send(answer).await;
                        }
                    });
                    while connections.try_join_next().is_some() {}
                }
            }
        }
    }
}

/// Listens on both addresses of `localhost`: a browser may take either, and nobody else should hear it there. Not
/// every machine has the second.
async fn listen(port: u16) -> std::io::Result<(Vec<TcpListener>, u16)> {
    loop {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let bound = first.local_addr()?.port();
        match TcpListener::bind((Ipv6Addr::LOCALHOST, bound)).await {
            Ok(second) => return Ok((vec![first, second], bound)),
            // Any other free port does where none is asked for.
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && port == 0 => {}
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => return Err(e),
            Err(_) => return Ok((vec![first], bound)),
        }
    }
}

impl Answered {
    /// Shows the page on which the sign-in ends.
    pub(crate) async fn show(mut self, page: &str) {
        let _ = tokio::time::timeout(SILENCE, respond(&mut self.connection, "200 OK", page)).await;
    }
}

/// Reads one request; anything but the answer is turned away.
async fn hear(mut connection: TcpStream, wanted: &(String, Secret)) -> Option<Answered> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 4096];
        let n = connection.read(&mut piece).await.ok()?;
        head.extend_from_slice(&piece[..n]);
        if n == 0 || head.len() > HEAD {
            return None;
        }
    }
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).unwrap_or_default();
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (wanted_path, state) = wanted;
    let is_ours = Callback::parse(query).state.is_some_and(|given| given.expose() == state.expose());
    if method == "GET" && path == wanted_path && is_ours {
        return Some(Answered { query: query.to_owned(), connection });
    }
    respond(&mut connection, "404 Not Found", "<!DOCTYPE html><title>404</title>").await.ok()?;
    None
}

async fn respond(connection: &mut TcpStream, status: &str, page: &str) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'\r\n\r\n",
        page.len()
    );
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(page.as_bytes()).await?;
    connection.shutdown().await
}

impl fmt::Debug for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loopback").field("redirect_uri", &self.redirect_uri).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_else_hears_the_answer_on_the_other_address() {
        let (mut listeners, port) = listen(0).await.unwrap();
        // A machine without IPv6 has no other address.
        let Some(other) = listeners.drain(..).nth(1) else { return };
        assert_eq!(listen(port).await.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
        drop(other);
    }
}
