//! The one public error.
//!
//! [`ErrorKind`] is named for what a caller can do about it, not for which dependency failed. The text says what is
//! wrong, where, and what to do; the service's own words, code and request ids are kept beside it.

use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The message, folder or attachment is not there (any more).
    NotFound,
    /// The mailbox itself does not exist, is not licensed, or is not hosted here. An administrator must act; polling
    /// on does not help.
    MailboxGone,
    /// The credentials were refused. Trying again with the same ones may lock the account.
    Unauthenticated,
    /// A person must sign in (again) before this account works.
    SignInNeeded,
    /// Signed in, but not allowed to do this.
    PermissionDenied,
    /// The service asked for a pause; see [`Error::retry_after`].
    Throttled,
    /// The service cannot be reached, or is failing. Trying later may help.
    Unavailable,
    /// No answer, or no progress, within the deadline. Trying later may help.
    Timeout,
    /// It changed under us: a name that exists already, a lease that somebody else took over.
    Conflict,
    /// Something in the configuration must be corrected; the text says what and where.
    InvalidConfig,
    /// This account cannot do this at all.
    Unsupported,
    /// The service sent something that cannot be understood.
    Malformed,
    /// More bytes than the caller, or a cap of this crate, allows.
    TooLarge,
    /// The host's own disk or database failed. Never counted against a message.
    Storage,
    /// None of the above.
    Other,
}

impl ErrorKind {
    /// Whether the same call may succeed later without anybody repairing anything.
    ///
    /// ```
    /// use mail_account::ErrorKind;
    /// assert!(ErrorKind::Throttled.is_retryable());
    /// assert!(!ErrorKind::Unauthenticated.is_retryable());
    /// ```
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable | Self::Timeout | Self::Conflict)
    }

    /// Whether the error speaks of the account as a whole rather than of one message or folder, so that going on with
    /// the next message is pointless.
    #[must_use]
    pub const fn is_account_wide(self) -> bool {
        matches!(
            self,
            Self::MailboxGone
                | Self::Unauthenticated
                | Self::SignInNeeded
                | Self::PermissionDenied
                | Self::Throttled
                | Self::Unavailable
                | Self::Timeout
                | Self::InvalidConfig
        )
    }

    /// The stable name used in JSON and in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::MailboxGone => "mailbox_gone",
            Self::Unauthenticated => "unauthenticated",
            Self::SignInNeeded => "sign_in_needed",
            Self::PermissionDenied => "permission_denied",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Conflict => "conflict",
            Self::InvalidConfig => "invalid_config",
            Self::Unsupported => "unsupported",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Storage => "storage",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why something failed.
///
/// `Display` gives one sentence without the sources; walk [`source`](StdError::source) for the chain, or use
/// [`Error::chain`] for all of it on one line. Never holds a secret, a token or a message's text.
///
/// ```
/// use mail_account::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::NotFound, "there is no folder `Inbox/Procesed`")
///     .with_provider("maildir")
///     .with_account("local")
///     .with_operation("resolve_folder");
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert_eq!(error.to_string(), "there is no folder `Inbox/Procesed` (account `local`)");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    provider: Option<Cow<'static, str>>,
    account: Option<String>,
    operation: Option<&'static str>,
    code: Option<String>,
    retry_after: Option<Duration>,
    request_ids: Vec<String>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of this kind; `message` says what is wrong, where, and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            provider: None,
            account: None,
            operation: None,
            code: None,
            retry_after: None,
            request_ids: Vec::new(),
            source: None,
        }))
    }

    /// The provider that failed (`graph`, `imap`, ...). Kept if one is known already: the inner layer knows best.
    #[must_use]
    pub fn with_provider(mut self, provider: impl Into<Cow<'static, str>>) -> Self {
        self.0.provider.get_or_insert_with(|| provider.into());
        self
    }

    /// The account's identifier in the configuration. Kept if one is known already.
    #[must_use]
    pub fn with_account(mut self, account: impl Into<String>) -> Self {
        self.0.account.get_or_insert_with(|| account.into());
        self
    }

    /// The operation of the trait that failed, such as `list_folders`. Kept if one is known already.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// The service's own code: `ErrorAccessDenied`, `AADSTS7000215`, `AUTHENTICATIONFAILED`.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.0.code = Some(code.into());
        self
    }

    /// The service's lower bound for the next attempt.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// An id under which the service's support finds the request.
    #[must_use]
    pub fn with_request_id(mut self, id: impl Into<String>) -> Self {
        self.0.request_ids.push(id.into());
        self
    }

    /// What caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The sentence alone, without the account.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The provider that failed.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        self.0.provider.as_deref()
    }

    /// The account's identifier.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        self.0.account.as_deref()
    }

    /// The operation of the trait that failed.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The service's own code.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The service's lower bound for the next attempt.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Ids under which the service's support finds the requests.
    #[must_use]
    pub fn request_ids(&self) -> &[String] {
        &self.0.request_ids
    }

    /// Same as [`ErrorKind::is_retryable`] of [`kind`](Self::kind).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// The sentence and all sources, on one line.
    ///
    /// ```
    /// use mail_account::{Error, ErrorKind};
    /// let io = std::io::Error::other("disk on fire");
    /// let error = Error::new(ErrorKind::Storage, "cannot write `out/a.pdf`").with_source(io);
    /// assert_eq!(error.chain().to_string(), "cannot write `out/a.pdf`: disk on fire");
    /// ```
    #[must_use]
    pub fn chain(&self) -> impl fmt::Display + '_ {
        Chain(self)
    }
}

struct Chain<'a>(&'a Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(account) = &self.0.account {
            write!(f, " (account `{account}`)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("Error");
        s.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(v) = &self.0.provider {
            s.field("provider", v);
        }
        if let Some(v) = &self.0.account {
            s.field("account", v);
        }
        if let Some(v) = &self.0.operation {
            s.field("operation", v);
        }
        if let Some(v) = &self.0.code {
            s.field("code", v);
        }
        if let Some(v) = &self.0.retry_after {
            s.field("retry_after", v);
        }
        if !self.0.request_ids.is_empty() {
            s.field("request_ids", &self.0.request_ids);
        }
        if let Some(v) = &self.0.source {
            s.field("source", v);
        }
        s.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|s| &**s as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inner_layer_names_the_place() {
        let error = Error::new(ErrorKind::Other, "x").with_account("inner").with_account("outer");
        assert_eq!(error.account(), Some("inner"));
    }
}
