//! One attempt at a request. Whether there is another one is decided by `retry.rs`.

use std::{
    error::Error as _,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use reqwest::{
    Client, RequestBuilder, Response, StatusCode,
    header::{CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER},
};

use super::{Route, retry, tls};
use crate::{Error, ErrorKind, Patience, Result};

/// A client that is made when it is first needed.
pub(crate) struct Http {
    route: Route,
    client: Mutex<Option<Client>>,
}

impl Http {
    pub(super) fn new(route: Route) -> Self {
        Self { route, client: Mutex::new(None) }
    }

    /// The client.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] when the CA file or the proxy's URL cannot be used; tried again the next time.
    pub(crate) fn client(&self, patience: Patience) -> Result<Client> {
        let mut made = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*made {
            return Ok(client.clone());
        }
        let client = tls::client(&self.route, patience)?;
        *made = Some(client.clone());
        Ok(client)
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// How long the service wants to be left alone.
    pub(crate) fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        retry_after(&self.headers, now)
    }

    /// What the answer claims to be, for the text of an error.
    pub(crate) fn content_type(&self) -> &str {
        self.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("no content type")
    }

    /// The service's clock.
    pub(crate) fn date(&self) -> Option<Timestamp> {
        let date = self.headers.get(DATE)?.to_str().ok()?;
        Some(jiff::fmt::rfc2822::parse(date).ok()?.timestamp())
    }
}

pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    retry::retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, now)
}

/// Sends a request and waits for the head of its answer.
///
/// # Errors
///
/// [`ErrorKind::Timeout`] after `silence`, [`ErrorKind::Unavailable`] when there is no connection or it broke, and
/// [`ErrorKind::InvalidConfig`] when the server's certificate is not trusted: nothing that waiting would mend.
pub(crate) async fn head(request: RequestBuilder, silence: Duration) -> Result<Response> {
    match tokio::time::timeout(silence, request.send()).await {
        Ok(sent) => sent.map_err(broken),
        Err(_) => Err(silent(silence)),
    }
}

/// Reads the rest of an answer.
///
/// # Errors
///
/// As [`head`], and [`ErrorKind::TooLarge`] when there are more than `cap` bytes after decompression; the connection
/// is given up then.
pub(crate) async fn whole(mut response: Response, cap: usize, silence: Duration) -> Result<Answer> {
    let too_large = || {
        Error::new(
            ErrorKind::TooLarge,
            format!("the service's answer is longer than the {cap} bytes that are read of it"),
        )
    };
    let announced = response.content_length().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    if announced > cap {
        return Err(too_large());
    }
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = BytesMut::with_capacity(announced);
    while let Some(piece) = chunk(&mut response, silence).await? {
        if body.len() + piece.len() > cap {
            return Err(too_large());
        }
        body.extend_from_slice(&piece);
    }
    Ok(Answer { status, headers, body: body.freeze() })
}

/// The next bytes of an answer; `None` at its end, which is certain: a body that is cut short is an error.
pub(crate) async fn chunk(response: &mut Response, silence: Duration) -> Result<Option<Bytes>> {
    match tokio::time::timeout(silence, response.chunk()).await {
        Ok(piece) => piece.map_err(broken),
        Err(_) => Err(silent(silence)),
    }
}

fn silent(silence: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("the service was silent for {} s", silence.as_secs()))
}

/// What a client error means. Its URL is left out: it holds the mailbox and what was searched for.
fn broken(error: reqwest::Error) -> Error {
    let host = error.url().and_then(|url| url.host_str()).unwrap_or("the service").to_owned();
    let mut chain = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        chain.push_str(&cause.to_string().to_ascii_lowercase());
        next = cause.source();
    }
    let error = error.without_url();
    if error.is_builder() {
        return Error::new(ErrorKind::Other, "the request cannot be made").with_source(error);
    }
    if error.is_timeout() {
        return Error::new(ErrorKind::Timeout, format!("`{host}` did not answer in time")).with_source(error);
    }
    // rustls reports these as text only by the time they get here.
    if chain.contains("certificate") {
        return Error::new(
            ErrorKind::InvalidConfig,
            format!("the certificate of `{host}` is not trusted; where a proxy or server uses a company's own, name that company's root in `ca_file`"),
        )
        .with_source(error);
    }
    if chain.contains("proxy auth") {
        return Error::new(
            ErrorKind::InvalidConfig,
            "the proxy asks for a user name and password; write them into the URL in `proxy`",
        )
        .with_source(error);
    }
    let what = if error.is_connect() { "cannot be reached" } else { "broke the connection off" };
    Error::new(ErrorKind::Unavailable, format!("`{host}` {what}")).with_source(error)
}
