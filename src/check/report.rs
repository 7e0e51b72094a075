//! What a check finds: steps, and how each ended.

use super::causes::{Cause, Who};
use crate::{Error, Language};

/// What is looked at, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StepId {
    /// The configuration of the account and the job, and the secrets that it names.
    Settings,
    /// The server answers.
    Reach,
    /// It accepts the credentials.
    SignIn,
    /// It opens the mailbox.
    Mailbox,
    /// The folder that mail is read from.
    ImportFolder,
    /// The folder that handled mail is moved to.
    ProcessedFolder,
    /// The folder that failed mail is moved to.
    FailedFolder,
    /// They are not the same folder.
    FoldersDiffer,
    /// The account may do what the job needs.
    Permissions,
}

impl StepId {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Settings,
        Self::Reach,
        Self::SignIn,
        Self::Mailbox,
        Self::ImportFolder,
        Self::ProcessedFolder,
        Self::FailedFolder,
        Self::FoldersDiffer,
        Self::Permissions,
    ];

    /// For people.
    #[must_use]
    pub const fn text(self, language: Language) -> &'static str {
        let [english, dutch] = match self {
            Self::Settings => ["Settings", "Instellingen"],
            Self::Reach => ["Server reached", "Server bereikt"],
            Self::SignIn => ["Signed in", "Aangemeld"],
            Self::Mailbox => ["Mailbox opened", "Postvak geopend"],
            Self::ImportFolder => ["Import folder", "Importmap"],
            Self::ProcessedFolder => ["Processed folder", "Map voor verwerkte mail"],
            Self::FailedFolder => ["Failed folder", "Map voor mislukte mail"],
            Self::FoldersDiffer => ["Folders differ", "Mappen verschillen"],
            Self::Permissions => ["Permissions", "Machtigingen"],
        };
        match language {
            Language::Dutch => dutch,
            Language::English => english,
        }
    }

    /// The stable name used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Reach => "reach",
            Self::SignIn => "sign_in",
            Self::Mailbox => "mailbox",
            Self::ImportFolder => "import_folder",
            Self::ProcessedFolder => "processed_folder",
            Self::FailedFolder => "failed_folder",
            Self::FoldersDiffer => "folders_differ",
            Self::Permissions => "permissions",
        }
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StepStatus {
    /// It works.
    Ok,
    /// It does not; see [`Step::cause`].
    Failed,
    /// It does not apply, or an earlier failure keeps it from being looked at.
    Skipped,
    /// Only changing something would tell.
    Unproven,
}

impl StepStatus {
    /// The stable name used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Unproven => "unproven",
        }
    }
}

/// What the service said, for its support.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Evidence {
    /// The error in full. Holds no secret.
    pub text: String,
    /// The service's own code.
    pub code: Option<String>,
    /// Ids under which its support finds the requests.
    pub request_ids: Vec<String>,
}

impl Evidence {
    pub(super) fn of(error: &Error) -> Self {
        Self {
            text: error.chain().to_string(),
            code: error.code().map(str::to_owned),
            request_ids: error.request_ids().to_vec(),
        }
    }
}

/// One step.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Step {
    /// Which.
    pub step: StepId,
    /// How it ended.
    pub status: StepStatus,
    /// Why it failed; of a step that did not, what is worth a look all the same.
    pub cause: Option<Cause>,
    /// What the service said.
    pub evidence: Option<Evidence>,
    pub(super) english: String,
    pub(super) dutch: String,
}

impl Step {
    pub(super) fn new(step: StepId, status: StepStatus, english: impl Into<String>, dutch: impl Into<String>) -> Self {
        Self { step, status, cause: None, evidence: None, english: english.into(), dutch: dutch.into() }
    }

    pub(super) fn ok(step: StepId) -> Self {
        Self::new(step, StepStatus::Ok, "", "")
    }

    pub(super) fn after_failure(step: StepId) -> Self {
        let english = "Not looked at, because an earlier step failed.";
        Self::new(step, StepStatus::Skipped, english, "Niet bekeken, omdat een eerdere stap is mislukt.")
    }

    pub(super) fn not_set(step: StepId) -> Self {
        let english = "Does not apply: no such folder is configured.";
        Self::new(step, StepStatus::Skipped, english, "Niet van toepassing: er is geen map ingesteld.")
    }

    /// The same step with one more thing said.
    pub(super) fn say(mut self, english: &str, dutch: &str, status: StepStatus) -> Self {
        for (text, more) in [(&mut self.english, english), (&mut self.dutch, dutch)] {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(more);
        }
        Self { status, ..self }
    }

    /// What is wrong and the next step, in a few sentences; empty where the step is ok and there is nothing to say.
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
}

/// All steps of one account.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The account's identifier.
    pub account: String,
    /// Every [`StepId`], in order.
    pub steps: Vec<Step>,
}

impl Report {
    /// Whether no step failed.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.steps.iter().all(|step| step.status != StepStatus::Failed)
    }
}
