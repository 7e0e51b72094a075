//! Why a message was skipped, failed, or is tried again: the host's reasons and the library's own, in one shape.

use std::{borrow::Cow, fmt, str::FromStr};

use crate::{Error, ErrorKind};

/// The language of a text for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Dutch.
    Dutch,
}

impl FromStr for Language {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        match s {
            "en" => Ok(Self::English),
            "nl" => Ok(Self::Dutch),
            other => Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("the language `{other}` is not known; write `en` or `nl`"),
            )),
        }
    }
}

/// A reason with a stable code and a text for people.
///
/// ```
/// use mail_account::{Language, Reason};
///
/// let reason = Reason::new("no-invoice", "No invoice is attached.").with_dutch("Er zit geen factuur bij.");
/// assert_eq!(reason.code(), "no-invoice");
/// assert_eq!(reason.text(Language::Dutch), "Er zit geen factuur bij.");
/// assert_eq!(Reason::from("odd").text(Language::Dutch), "odd");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reason {
    code: Cow<'static, str>,
    english: Cow<'static, str>,
    dutch: Option<Cow<'static, str>>,
}

impl Reason {
    /// A reason of the host's. The code is for programs and stays the same; the text is for people.
    pub fn new(code: impl Into<Cow<'static, str>>, english: impl Into<Cow<'static, str>>) -> Self {
        Self { code: code.into(), english: english.into(), dutch: None }
    }

    /// The same text in Dutch.
    #[must_use]
    pub fn with_dutch(mut self, dutch: impl Into<Cow<'static, str>>) -> Self {
        self.dutch = Some(dutch.into());
        self
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The text; English where there is no Dutch one.
    #[must_use]
    pub fn text(&self, language: Language) -> &str {
        match language {
            Language::Dutch => self.dutch.as_ref().unwrap_or(&self.english),
            Language::English => &self.english,
        }
    }

    /// Whether there is a Dutch text of its own.
    #[must_use]
    pub fn dutch(&self) -> Option<&str> {
        self.dutch.as_deref()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.english)
    }
}

impl From<&'static str> for Reason {
    fn from(text: &'static str) -> Self {
        Self::new("host", text)
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self::new("host", text)
    }
}
