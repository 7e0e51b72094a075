//! Downloads: `$value`, streamed.
//!
//! A download holds one of the mailbox's four places while it is under way. A reader that stops reading must not keep
//! it, or moves and other downloads would wait for the reader. So the bytes are pumped by a task of their own into a
//! short queue; when nobody takes them out for [`PATIENCE`], the task lets go of connection and place, and the next poll
//! starts over and leaves out what was given already. The same way a broken download is mended: Graph documents no
//! ranges for `$value`. A second download is compared with the first by its hash, so that it cannot end as a mixture.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use reqwest::{
    Version,
    header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{
    client::{Call, Client, Open, To, encode, names_nothing, with_query},
    failure::About,
};
use crate::{
    AttachmentId, Content, Error, ErrorKind, MessageId, Result,
    net::{
        http,
        retry::{Attempt, Tries, of_error},
    },
};

/// How long a reader may stop reading before its place goes to somebody else. Doubled each time that happens, so that a
/// slow reader is not made to start over for ever.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// The longest that grows to.
const LONGEST: Duration = Duration::from_secs(60);

/// Pieces on their way between the task and the reader.
const QUEUE: usize = 4;

/// The bytes of an attachment, or of the whole message.
pub(super) fn download(
    client: Arc<Client>,
    message: &MessageId,
    attachment: &AttachmentId,
    named: impl Fn(Error) -> Error + Send + Sync + 'static,
) -> Content {
    if names_nothing(message.as_str()) || names_nothing(attachment.as_str()) {
        return Content::refused(named(Error::new(
            ErrorKind::NotFound,
            "an empty handle, or one of dots, names nothing",
        )));
    }
    let about = if attachment.is_raw() { About::Message } else { About::Attachment };
    let message = format!("/messages/{}", encode(message.as_str()));
    let path =
        if attachment.is_raw() { message } else { format!("{message}/attachments/{}", encode(attachment.as_str())) };
    Content::from_fn(async move || -> Result<BoxStream<'static, Result<Bytes>>> {
        Ok(stream::try_unfold(
            Download { client, about, path, pump: None, patience: PATIENCE, given: 0, hash: Sha256::new() },
            |mut download| async { Ok(download.next().await?.map(|piece| (piece, download))) },
        )
        .map_err(named)
        .boxed())
    })
}

struct Download {
    client: Arc<Client>,
    about: About,
    path: String,
    pump: Option<Pump>,
    patience: Duration,
    /// How many bytes the reader has, and their hash.
    given: u64,
    hash: Sha256,
}

struct Pump {
    pieces: mpsc::Receiver<Piece>,
    /// Bytes the reader already has, still to be left out.
    skip: u64,
    skipped: Sha256,
    _task: AbortOnDropHandle<()>,
}

enum Piece {
    Bytes(Bytes),
    End,
    Broken(Error),
    /// Final.
    Failed(Error),
    Pause(Option<Duration>, Error),
}

impl Download {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let client = Arc::clone(&self.client);
        let mut tries: Option<Tries<'_>> = None;
        loop {
            let silence = tries.as_ref().map_or(client.context.patience().silence, Tries::silence);
            let (given, hash) = (self.given, &self.hash);
            let start =
                || Pump::start(Arc::clone(&client), self.about, self.path.clone(), given, silence, self.patience);
            let pump = self.pump.get_or_insert_with(start);
            let broken = match pump.pieces.recv().await {
                // The queue is closed without an end: the task gave its place away.
                None => {
                    self.patience = (self.patience * 2).min(LONGEST);
                    None
                }
                Some(Piece::Bytes(bytes)) => match pump.beyond(bytes, hash)? {
                    Some(bytes) => {
                        self.hash.update(&bytes);
                        self.given += bytes.len() as u64;
                        if let Some(tries) = &mut tries {
                            tries.progress();
                        }
                        return Ok(Some(bytes));
                    }
                    None => continue,
                },
                Some(Piece::End) if pump.skip > 0 => return Err(changed()),
                Some(Piece::End) => return Ok(None),
                Some(Piece::Failed(error)) => return Err(self.named(error).await),
                Some(Piece::Broken(error)) => Some(Attempt::<()>::Again(error)),
                Some(Piece::Pause(asked, error)) => Some(Attempt::Pause(asked, error)),
            };
            self.pump = None;
            let tries = tries.get_or_insert_with(|| client.tries());
            match broken {
                Some(Attempt::Again(error)) => tries.again(error).await?,
                Some(Attempt::Pause(asked, error)) => tries.pause(asked, error).await?,
                _ => {}
            }
        }
    }

    /// "Method not allowed" means a link to a file in somebody's cloud: it has no content here.
    async fn named(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Unsupported || self.about != About::Attachment {
            return error;
        }
        #[derive(Deserialize)]
        struct Link {
            #[serde(default, rename = "sourceUrl")]
            source_url: Option<String>,
            #[serde(default)]
            name: Option<String>,
        }
        let call = Call::get(About::Attachment, To::Mailbox(self.path.clone()));
        let Ok(link) = self.client.json::<Link>(&call).await else { return error };
        let name = link.name.unwrap_or_default();
        let to = match link.source_url {
            Some(url) => format!("leads to {url}"),
            None => "leads to an address that Graph does not tell".to_owned(),
        };
        Error::new(
            ErrorKind::Unsupported,
            format!("the attachment `{name}` is a link that {to}; its content is not in the mailbox"),
        )
        .with_source(error)
    }
}

impl Pump {
    fn start(
        client: Arc<Client>,
        about: About,
        path: String,
        skip: u64,
        silence: Duration,
        patience: Duration,
    ) -> Self {
        let (sender, pieces) = mpsc::channel(QUEUE);
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            pump(&client, about, &path, silence, patience, &sender).await
        }));
        Self { pieces, skip, skipped: Sha256::new(), _task: task }
    }

    /// What of these bytes the reader does not have yet.
    fn beyond(&mut self, mut bytes: Bytes, known: &Sha256) -> Result<Option<Bytes>> {
        if self.skip == 0 {
            return Ok((!bytes.is_empty()).then_some(bytes));
        }
        let known_part = bytes.split_to(usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len()));
        self.skipped.update(&known_part);
        self.skip -= known_part.len() as u64;
        if self.skip == 0 && self.skipped.clone().finalize() != known.clone().finalize() {
            return Err(changed());
        }
        Ok((!bytes.is_empty()).then_some(bytes))
    }
}

fn changed() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "the download broke off and gave other bytes when it was repeated; what was written so far must be thrown away",
    )
}

async fn pump(
    client: &Client,
    about: About,
    path: &str,
    silence: Duration,
    patience: Duration,
    to: &mpsc::Sender<Piece>,
) {
    let call = || Ok(Call::get(about, To::Mailbox(format!("{path}/$value"))));
    let mut may_be_html = false;
    let end = loop {
        break match client.open(call, silence, true).await {
            Attempt::Done((open, _)) if is_html(&open.response) && !may_be_html => {
                let has_ids = has_ids(&open.response);
                // Gives the place back before another request needs one.
                drop(open);
                may_be_html = has_ids && about == About::Attachment && is_html_attachment(client, path).await;
                if may_be_html {
                    continue;
                }
                Piece::Broken(Error::new(
                    ErrorKind::Unavailable,
                    "Graph's address answered with a page of HTML that is not the content; a proxy or network portal may stand in between",
                ))
            }
            Attempt::Done((open, _)) => match stream_to(open, silence, patience, to).await {
                Some(end) => end,
                // Nobody reads: the place is given back by leaving.
                None => return,
            },
            Attempt::Fail(error) => Piece::Failed(error),
            Attempt::Again(error) => Piece::Broken(error),
            Attempt::Pause(asked, error) => Piece::Pause(asked, error),
        };
    };
    let _ = to.send(end).await;
}

/// Whether an attachment is HTML by its own word, and not by that of a page in its place.
async fn is_html_attachment(client: &Client, path: &str) -> bool {
    #[derive(Deserialize)]
    struct Attachment {
        #[serde(default, rename = "contentType")]
        content_type: Option<String>,
    }
    let call = Call::get(About::Attachment, To::Mailbox(with_query(path, &[("$select", "id,contentType")])));
    let told = client.json::<Attachment>(&call).await.ok().and_then(|attachment| attachment.content_type);
    told.is_some_and(|told| told.trim().to_ascii_lowercase().starts_with("text/html"))
}

/// `None` when nobody takes the bytes.
async fn stream_to(open: Open, silence: Duration, patience: Duration, to: &mpsc::Sender<Piece>) -> Option<Piece> {
    let Open { mut response, permit } = open;
    if !has_an_end(&response) {
        return Some(Piece::Broken(Error::new(
            ErrorKind::Unavailable,
            "the answer does not say how long it is, so that it could be cut without notice; a proxy may have changed it",
        )));
    }
    let end = loop {
        match http::chunk(&mut response, silence).await {
            Ok(Some(bytes)) => {
                let sent = tokio::time::timeout(patience, to.send(Piece::Bytes(bytes))).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return None;
                }
            }
            Ok(None) => break Piece::End,
            Err(error) => match of_error::<()>(error) {
                Attempt::Fail(error) => break Piece::Failed(error),
                Attempt::Again(error) | Attempt::Pause(_, error) => break Piece::Broken(error),
                Attempt::Done(()) => break Piece::End,
            },
        }
    };
    drop((response, permit));
    Some(end)
}

/// Whether this may be a page of something that stands in between.
fn is_html(response: &reqwest::Response) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|t| t.to_str().ok());
    content_type.is_some_and(|t| t.trim_start().to_ascii_lowercase().starts_with("text/html"))
}

/// Whether the answer bears one of Graph's ids.
fn has_ids(response: &reqwest::Response) -> bool {
    ["request-id", "client-request-id"].iter().any(|name| response.headers().contains_key(*name))
}

/// Whether the end of a body can be told from a broken connection (RFC 9112, section 6.3).
fn has_an_end(response: &reqwest::Response) -> bool {
    response.version() >= Version::HTTP_2
        || response.headers().contains_key(CONTENT_LENGTH)
        || response.headers().contains_key(TRANSFER_ENCODING)
}
