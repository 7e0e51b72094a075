//! How accounts fare, for the screens and alarms of a host: the state of each, and when credentials run out.
//!
//! [`MailApp::state_of`](crate::MailApp::state_of) and [`MailApp::secret_calendar`](crate::MailApp::secret_calendar) ask
//! no service and need no working token. Changes are told as [`AccountEvent`]s, to whom
//! [`MailApp::with_account_events`](crate::MailApp::with_account_events) names.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | [`AccountState`], and what the end of a run says about it |
//! | `calendar.rs` | [`Credential`]: when secrets and certificates run out |

mod calendar;

use std::sync::Arc;

use jiff::Timestamp;

pub(crate) use calendar::Calendar;
pub use calendar::{Credential, CredentialKind, CredentialWarning};

use crate::{Error, ErrorKind, Language, check::Cause, check::Who, setting::Label, store::StoredState};

/// How an account fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Condition {
    /// It stands in the configuration, and was not used yet, or is switched off.
    Draft,
    /// Somebody must sign in for it, for the first time.
    AwaitingSignIn,
    /// An administrator must consent first.
    ConsentPending,
    /// It worked when it was last used.
    Ready,
    /// Somebody signed in, and must do so again.
    SignInNeeded,
    /// Somebody must correct something: a setting, a credential, a permission, a folder.
    Misconfigured,
    /// The mailbox does not exist any more, has no licence, or has moved away.
    MailboxGone,
    /// The service could not be reached, was failing, or asked for a pause. It may pass by itself.
    Unreachable,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Draft,
        Self::AwaitingSignIn,
        Self::ConsentPending,
        Self::Ready,
        Self::SignInNeeded,
        Self::Misconfigured,
        Self::MailboxGone,
        Self::Unreachable,
    ];

    /// The stable name used in JSON and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::AwaitingSignIn => "awaiting_sign_in",
            Self::ConsentPending => "consent_pending",
            Self::Ready => "ready",
            Self::SignInNeeded => "sign_in_needed",
            Self::Misconfigured => "misconfigured",
            Self::MailboxGone => "mailbox_gone",
            Self::Unreachable => "unreachable",
        }
    }

    /// What to call it.
    #[must_use]
    pub const fn label(self) -> Label {
        match self {
            Self::Draft => Label::new("Not in use yet", "Nog niet in gebruik"),
            Self::AwaitingSignIn => Label::new("Waiting for somebody to sign in", "Wacht op aanmelding"),
            Self::ConsentPending => {
                Label::new("Waiting for an administrator's consent", "Wacht op toestemming van een beheerder")
            }
            Self::Ready => Label::new("Works", "Werkt"),
            Self::SignInNeeded => Label::new("Somebody must sign in again", "Er moet opnieuw worden aangemeld"),
            Self::Misconfigured => Label::new("Must be corrected", "Moet worden hersteld"),
            Self::MailboxGone => Label::new("The mailbox is gone", "Het postvak is verdwenen"),
            Self::Unreachable => Label::new("Cannot be reached", "Niet bereikbaar"),
        }
    }

    /// What an error of a run says about its account; `None` when it is not about the account: the host's own disk, or
    /// another run that took over.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        let cause = Cause::of(error);
        Some(match error.kind() {
            ErrorKind::Storage | ErrorKind::Conflict => return None,
            _ if matches!(cause, Cause::ConsentMissing | Cause::ConsentPending) => Self::ConsentPending,
            ErrorKind::MailboxGone => Self::MailboxGone,
            ErrorKind::SignInNeeded => Self::SignInNeeded,
            ErrorKind::NotFound
            | ErrorKind::Unauthenticated
            | ErrorKind::PermissionDenied
            | ErrorKind::InvalidConfig
            | ErrorKind::Unsupported => Self::Misconfigured,
            ErrorKind::Throttled
            | ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::Malformed
            | ErrorKind::TooLarge
            | ErrorKind::Other => Self::Unreachable,
        })
    }
}

/// The state of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccountState {
    /// The account's identifier.
    pub account: String,
    /// How it fares.
    pub condition: Condition,
    /// Why, unless all is well.
    pub cause: Option<Cause>,
    /// The service's own code, such as `AADSTS50173`.
    pub code: Option<String>,
    /// Since when: when the change was found, or, where nothing was ever found, when the configuration was loaded.
    pub since: Timestamp,
    /// When a run last went well. In a process that has not run the account itself: as it was known when the state
    /// last changed.
    pub last_success: Option<Timestamp>,
    /// The earliest time of the next try after a failure in this process: the job's interval, or later if the service
    /// asked for more.
    pub next_try: Option<Timestamp>,
    english: String,
    dutch: String,
}

impl AccountState {
    pub(crate) fn new(account: impl Into<String>, condition: Condition, since: Timestamp) -> Self {
        Self {
            account: account.into(),
            condition,
            cause: None,
            code: None,
            since,
            last_success: None,
            next_try: None,
            english: condition.label().english.to_owned(),
            dutch: condition.label().dutch.to_owned(),
        }
    }

    /// In this condition because of this error.
    pub(crate) fn because(mut self, error: &Error, mailbox: &str) -> Self {
        let cause = Cause::of(error);
        [self.english, self.dutch] = cause.explain(error, &self.account, mailbox);
        self.cause = Some(cause);
        self.code = error.code().map(str::to_owned);
        self
    }

    /// What is the matter, and what to do, in a sentence or two. May quote the service, in its own language.
    #[must_use]
    pub fn message(&self, language: Language) -> &str {
        match language {
            Language::Dutch => &self.dutch,
            Language::English => &self.english,
        }
    }

    /// Who repairs it.
    #[must_use]
    pub fn who(&self) -> Option<Who> {
        self.cause.map(Cause::who)
    }

    pub(crate) fn store(&self) -> StoredState {
        let mut stored = StoredState::new(&self.account, self.condition.as_str(), self.since);
        stored.cause = self.cause.map(|cause| cause.code().to_owned());
        stored.code.clone_from(&self.code);
        stored.english.clone_from(&self.english);
        stored.dutch.clone_from(&self.dutch);
        stored.last_success = self.last_success;
        stored
    }

    /// A condition that this version does not know was written by a newer one: somebody should look.
    pub(crate) fn from_stored(stored: StoredState) -> Self {
        let condition = Condition::ALL.into_iter().find(|known| known.as_str() == stored.condition);
        let cause = |code: &str| Cause::ALL.iter().copied().find(|known| known.code() == code);
        Self {
            account: stored.account,
            condition: condition.unwrap_or(Condition::Misconfigured),
            cause: stored.cause.map(|code| cause(&code).unwrap_or(Cause::Unknown)),
            code: stored.code,
            since: stored.since,
            last_success: stored.last_success,
            next_try: None,
            english: stored.english,
            dutch: stored.dutch,
        }
    }

    /// What is known, together with when the stored sign-in of its person was last used with success: an account for
    /// which nobody has signed in cannot be ready, and one whose person has signed in since works again.
    pub(crate) fn with_sign_in(self, refreshed: Option<Timestamp>) -> Self {
        let Some(refreshed) = refreshed else {
            return match self.condition {
                Condition::AwaitingSignIn | Condition::ConsentPending => self,
                _ => Self {
                    last_success: self.last_success,
                    ..Self::new(self.account, Condition::AwaitingSignIn, self.since)
                },
            };
        };
        match self.condition {
            // A sign-in is stored when the mailbox was read with it, and not before.
            Condition::Draft | Condition::AwaitingSignIn => {
                Self { last_success: self.last_success, ..Self::new(self.account, Condition::Ready, refreshed) }
            }
            Condition::SignInNeeded | Condition::ConsentPending if refreshed > self.since => {
                Self { last_success: self.last_success, ..Self::new(self.account, Condition::Ready, refreshed) }
            }
            _ => self,
        }
    }
}

/// Something that a host may want to tell a person.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AccountEvent {
    /// The state of an account is another one than before, or has another cause. Told once for each change, by the
    /// process that found it.
    StateChanged {
        /// How the account fared before, where that is known.
        before: Option<Condition>,
        /// How it fares now.
        state: Box<AccountState>,
    },
    /// A secret or certificate runs out soon, or has.
    Credential(CredentialWarning),
}

/// Takes events; called from the run, so it should be quick.
pub type AccountEventSink = Arc<dyn Fn(&AccountEvent) + Send + Sync>;
