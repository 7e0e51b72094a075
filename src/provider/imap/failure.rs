//! What goes wrong, where the detail is known; and the one place where it becomes a public [`Error`].

use std::{fmt, io, time::Duration};

use crate::{
    Error, ErrorKind,
    provider::imap::{
        NAME,
        wire::{
            reader::ReadError,
            status::{Code, Condition, Status},
        },
    },
};

pub(crate) type Outcome<T> = Result<T, Failure>;

#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection came about.
    Connect { to: String, error: io::Error },
    /// A connection came about, and TLS on it did not.
    Tls { host: String, error: io::Error },
    /// The connection is of no further use.
    Lost(ReadError),
    /// The server ended the session.
    Bye(Status),
    /// A tagged NO or BAD.
    Refused { command: &'static str, status: Status },
    /// Signing in failed; already worded for people.
    SignIn(SignIn),
    /// The folder's numbering was voided, so the handle means nothing any more.
    Voided,
    /// There is no such folder (any more).
    NoFolder { name: String },
    /// The folder can be read but not changed.
    ReadOnly { folder: String },
    /// The server asked for a pause that is not over yet.
    Paused { left: Duration },
    /// The server answered with something that is no answer to this.
    Protocol(&'static str),
    /// A name that could not be sent without becoming a command.
    Unsendable,
    /// Already public: configuration, tokens.
    Public(Error),
}

/// A refused sign-in, sorted by what the caller can do.
#[derive(Debug)]
pub(crate) struct SignIn {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
    pub(crate) code: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    /// Whether the server may count this as a failed attempt, and lock the account after a few.
    pub(crate) counts: bool,
}

impl Failure {
    /// Whether the session can be used for another command.
    pub(crate) fn leaves_session_usable(&self) -> bool {
        match self {
            // After BAD, we and the server may be out of step.
            Self::Refused { status, .. } => status.condition == Condition::No,
            Self::Voided | Self::NoFolder { .. } | Self::ReadOnly { .. } | Self::Unsendable => true,
            _ => false,
        }
    }

    /// Whether a new connection may do better at once.
    pub(crate) fn is_worth_another_try(&self) -> bool {
        match self {
            Self::Connect { .. } => true,
            Self::Lost(error) => !matches!(error, ReadError::Framing(_)),
            Self::Bye(status) => sort(status).0.is_retryable(),
            Self::Refused { status, .. } => sort(status).0 == ErrorKind::Unavailable,
            Self::SignIn(refused) => refused.kind == ErrorKind::Unavailable,
            _ => false,
        }
    }

    /// The pause the server asked for in so many words.
    pub(crate) fn asked_pause(&self) -> Option<Duration> {
        match self {
            Self::Bye(status) | Self::Refused { status, .. } => status.backoff_millis().map(Duration::from_millis),
            Self::SignIn(refused) => refused.retry_after,
            _ => None,
        }
    }

    pub(crate) fn refused(&self) -> Option<&Status> {
        match self {
            Self::Refused { status, .. } => Some(status),
            _ => None,
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::Lost(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Public(error)
    }
}

/// What a NO, BAD or BYE means for the caller: by code, then by the words that large services are known to use.
fn sort(status: &Status) -> (ErrorKind, Option<&'static str>) {
    let text = status.text.to_ascii_lowercase();
    let says = |words: &str| text.contains(words);
    match &status.code {
        Some(Code::NonExistent | Code::TryCreate) => return (ErrorKind::NotFound, Some("NONEXISTENT")),
        Some(Code::NoPerm) => return (ErrorKind::PermissionDenied, Some("NOPERM")),
        Some(Code::ReadOnly) => return (ErrorKind::PermissionDenied, Some("READ-ONLY")),
        Some(Code::AlreadyExists) => return (ErrorKind::Conflict, Some("ALREADYEXISTS")),
        Some(Code::OverQuota) => return (ErrorKind::PermissionDenied, Some("OVERQUOTA")),
        Some(Code::Other(name)) if name == "CANNOT" => return (ErrorKind::InvalidConfig, Some("CANNOT")),
        Some(Code::Unavailable) => return (ErrorKind::Unavailable, Some("UNAVAILABLE")),
        Some(Code::InUse) => return (ErrorKind::Unavailable, Some("INUSE")),
        Some(Code::ServerBug) => return (ErrorKind::Unavailable, Some("SERVERBUG")),
        Some(Code::Limit) => return (ErrorKind::Throttled, Some("LIMIT")),
        Some(Code::PrivacyRequired) => return (ErrorKind::InvalidConfig, Some("PRIVACYREQUIRED")),
        Some(Code::AuthorizationFailed) => return (ErrorKind::PermissionDenied, Some("AUTHORIZATIONFAILED")),
        Some(Code::AuthenticationFailed) => return (ErrorKind::Unauthenticated, Some("AUTHENTICATIONFAILED")),
        Some(Code::Expired) => return (ErrorKind::Unauthenticated, Some("EXPIRED")),
        Some(Code::ContactAdmin) => return (ErrorKind::PermissionDenied, Some("CONTACTADMIN")),
        _ => {}
    }
    if says("throttled") || says("too many") || says("backoff time") || says("server unavailable") {
        return (ErrorKind::Throttled, None);
    }
    if says("not connected") {
        return (ErrorKind::Unavailable, None);
    }
    match status.condition {
        Condition::Bye => (ErrorKind::Unavailable, None),
        Condition::Bad => (ErrorKind::Malformed, None),
        _ => (ErrorKind::Other, None),
    }
}

/// The server's words for the end of a sentence.
pub(crate) fn said(status: &Status) -> String {
    if status.text.is_empty() { String::new() } else { format!(": \"{}\"", status.text) }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let pause = failure.asked_pause();
        let error = match failure {
            Failure::Public(error) => error,
            Failure::Connect { to, error } => {
                Error::new(ErrorKind::Unavailable, format!("no connection to {to}")).with_source(error)
            }
            Failure::Tls { host, error } => tls_error(&host, error),
            Failure::Lost(ReadError::Io(error)) => {
                Error::new(ErrorKind::Unavailable, "the connection to the server broke").with_source(error)
            }
            Failure::Lost(error) => {
                let kind = match error {
                    ReadError::Timeout => ErrorKind::Timeout,
                    ReadError::Framing(_) => ErrorKind::Malformed,
                    _ => ErrorKind::Unavailable,
                };
                Error::new(kind, error.to_string())
            }
            Failure::Bye(status) => {
                let (kind, code) = sort(&status);
                with_code(Error::new(kind, format!("the server ended the session{}", said(&status))), code)
            }
            Failure::Refused { command, status } => {
                let (kind, code) = sort(&status);
                let extra = if status.text.to_ascii_lowercase().contains("not connected") {
                    ". The sign-in was accepted, but the mailbox was not opened: IMAP may be switched off for it, a \
                     permission may be missing, or the mailbox in `username` may be another one"
                } else {
                    ""
                };
                let text = format!("the server refused {command}{}{extra}", said(&status));
                with_code(Error::new(kind, text), code)
            }
            Failure::SignIn(refused) => {
                let error = Error::new(refused.kind, refused.message);
                match refused.code {
                    Some(code) => error.with_code(code),
                    None => error,
                }
            }
            Failure::Voided => Error::new(
                ErrorKind::NotFound,
                "the server has renumbered the folder (UIDVALIDITY), so this handle no longer names a message; list \
                 the folder again",
            )
            .with_code("UIDVALIDITY"),
            Failure::NoFolder { name } => {
                Error::new(ErrorKind::NotFound, format!("there is no folder `{name}` (any more)"))
                    .with_code("NONEXISTENT")
            }
            Failure::ReadOnly { folder } => {
                Error::new(ErrorKind::PermissionDenied, format!("the folder `{folder}` can be read but not changed"))
            }
            Failure::Paused { left } => {
                Error::new(ErrorKind::Throttled, "the server has asked for a pause that is not over")
                    .with_retry_after(left)
            }
            Failure::Protocol(what) => {
                Error::new(ErrorKind::Malformed, format!("the server's answer makes no sense: {what}"))
            }
            Failure::Unsendable => {
                Error::new(ErrorKind::InvalidConfig, "a name contains a line break or a NUL and cannot be sent")
            }
        };
        match pause {
            Some(pause) => error.with_retry_after(pause),
            None => error,
        }
        .with_provider(NAME)
    }
}

fn with_code(error: Error, code: Option<&'static str>) -> Error {
    match code {
        Some(code) => error.with_code(code),
        None => error,
    }
}

fn tls_error(host: &str, error: io::Error) -> Error {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<tokio_rustls::rustls::Error>());
    let (kind, text) = match inner {
        // What `openssl req -x509` makes without more is the certificate of an authority.
        Some(cause) if cause.to_string().contains("CaUsedAsEndEntity") => (
            ErrorKind::InvalidConfig,
            format!(
                "the certificate of {host} is not trusted: it is one of an authority, which cannot be a server's too; give the server one with `basicConstraints = CA:FALSE`"
            ),
        ),
        Some(tokio_rustls::rustls::Error::InvalidCertificate(_)) => (
            ErrorKind::InvalidConfig,
            format!(
                "the certificate of {host} is not trusted; correct `host`, or name the issuing authority in `ca_file`"
            ),
        ),
        Some(_) => (
            ErrorKind::InvalidConfig,
            format!("{host} does not speak TLS as expected; check `port` and `tls` (implicit on 993, starttls on 143)"),
        ),
        None => (ErrorKind::Unavailable, format!("the TLS handshake with {host} broke off")),
    };
    Error::new(kind, text).with_source(error)
}

impl fmt::Display for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What a server's refusal of a command becomes.
#[cfg(test)]
pub(crate) fn refusal_of(command: &'static str, condition: Condition, text: &str) -> Error {
    Failure::Refused { command, status: Status::parse(condition, text.as_bytes()) }.into()
}
