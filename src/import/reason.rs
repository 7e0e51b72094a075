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

/// The library's own reasons, in one place.
impl Reason {
    const fn own(code: &'static str, english: &'static str, dutch: &'static str) -> Self {
        Self { code: Cow::Borrowed(code), english: Cow::Borrowed(english), dutch: Some(Cow::Borrowed(dutch)) }
    }

    pub(crate) const ALREADY_DONE: Self = Self::own(
        "already-done",
        "Was imported before; not imported again.",
        "Is al eerder verwerkt; niet opnieuw verwerkt.",
    );
    pub(crate) const DUPLICATE: Self = Self::own(
        "duplicate",
        "Another copy of this message was imported before.",
        "Een andere kopie van dit bericht is al eerder verwerkt.",
    );
    pub(crate) const PUT_BACK: Self = Self::own(
        "put-back",
        "Imported again, because somebody put it back into the import folder.",
        "Opnieuw verwerkt, omdat iemand het in de importmap heeft teruggezet.",
    );
    pub(crate) const VANISHED: Self = Self::own(
        "vanished",
        "Was moved or deleted by somebody else before it was imported.",
        "Is door iemand anders verplaatst of verwijderd voordat het verwerkt was.",
    );
    pub(crate) const WAITING: Self = Self::own("waiting", "Waits to be imported.", "Wacht op verwerking.");
    pub(crate) const LIMIT: Self = Self::own(
        "limit",
        "Not imported yet: the run had reached its limit.",
        "Nog niet verwerkt: de limiet van deze ronde was bereikt.",
    );
    pub(crate) const STOPPED: Self =
        Self::own("stopped", "Not imported yet: the run was stopped.", "Nog niet verwerkt: de ronde is gestopt.");
    pub(crate) const BUSY: Self = Self::own(
        "busy",
        "Not looked at: another run is working on this mailbox.",
        "Niet bekeken: een andere ronde is met deze mailbox bezig.",
    );
    pub(crate) const ACCOUNT_ERROR: Self = Self::own(
        "account-error",
        "Not imported yet: the account failed during the run.",
        "Nog niet verwerkt: het account gaf een fout tijdens de ronde.",
    );
    pub(crate) const HOST_TROUBLE: Self = Self::own(
        "host-trouble",
        "The run was stopped: five messages in a row could not be handled, so the application itself seems to be in trouble. No attempt was counted.",
        "De ronde is gestopt: vijf berichten achter elkaar konden niet worden verwerkt, dus de toepassing zelf lijkt een probleem te hebben. Er is geen poging geteld.",
    );

    pub(crate) fn handler_error(error: &str) -> Self {
        Self::new("handler-error", format!("The application could not handle the message: {error}"))
            .with_dutch(format!("De toepassing kon het bericht niet verwerken: {error}"))
    }

    pub(crate) fn handler_panic(text: &str) -> Self {
        Self::new("handler-panic", format!("The application broke off while handling the message: {text}"))
            .with_dutch(format!("De toepassing brak af tijdens het verwerken van het bericht: {text}"))
    }

    pub(crate) fn storage(error: &str) -> Self {
        Self::new("storage", format!("The run was stopped: the application's own disk or database failed: {error}"))
            .with_dutch(format!(
                "De ronde is gestopt: de eigen schijf of database van de toepassing gaf een fout: {error}"
            ))
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
