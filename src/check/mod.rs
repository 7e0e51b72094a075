//! Test Connection: does this account work for this job, and if not, who does what about it.
//!
//! [`check`] looks at an account step by step and changes nothing. A failed step has a [`Cause`]: what is wrong, who
//! repairs it, and the next step, in English and Dutch.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | the steps |
//! | `causes.rs` | [`Cause`], and the one table from what services answer to causes |
//! | `texts.rs` | what each cause says, in English and Dutch |

mod causes;
mod texts;

use std::{future::Future, time::Duration};

use futures::StreamExt as _;

pub use causes::{Cause, Who};
use texts::Values;

use crate::folder::nearest;
use crate::{
    Access, Error, ErrorKind, Folder, FolderId, FolderSpec, ImportJob, Language, MailAccount, MailApp, Query, Result,
    Role,
};

/// A step that asks a server.
const A_STEP: Duration = Duration::from_secs(10);
/// Signing in: some servers delay the answer to a wrong password.
const SIGN_IN: Duration = Duration::from_secs(40);

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

/// One step.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Step {
    /// Which.
    pub step: StepId,
    /// How it ended.
    pub status: StepStatus,
    /// Why it failed.
    pub cause: Option<Cause>,
    /// What the service said.
    pub evidence: Option<Evidence>,
    english: String,
    dutch: String,
}

impl Step {
    fn new(step: StepId, status: StepStatus, english: impl Into<String>, dutch: impl Into<String>) -> Self {
        Self { step, status, cause: None, evidence: None, english: english.into(), dutch: dutch.into() }
    }

    fn ok(step: StepId) -> Self {
        Self::new(step, StepStatus::Ok, "", "")
    }

    fn after_failure(step: StepId) -> Self {
        let english = "Not looked at, because an earlier step failed.";
        Self::new(step, StepStatus::Skipped, english, "Niet bekeken, omdat een eerdere stap is mislukt.")
    }

    fn not_set(step: StepId) -> Self {
        let english = "Does not apply: no such folder is configured.";
        Self::new(step, StepStatus::Skipped, english, "Niet van toepassing: er is geen map ingesteld.")
    }

    /// What is wrong and the next step, in a few sentences; empty where the step is ok.
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

/// Tests an account of a configuration, for a job or as such.
///
/// What is wrong inside the account or the job is a failed step. No ledger is opened.
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`] when the configuration has no such account or job.
pub async fn check_configured(app: &MailApp, account: &str, job: Option<&str>) -> Result<Report> {
    let known = app.accounts().any(|known| known.name == account.trim());
    let opened = app.account(account);
    if let (false, Err(error)) = (known, &opened) {
        return Err(Error::new(error.kind(), error.message().to_owned()));
    }
    let job = match job {
        None => None,
        Some(name) => {
            let found = app.job(name);
            match found {
                Err(error) if !app.jobs().any(|known| known == name.trim()) => return Err(error),
                found => Some(found),
            }
        }
    };
    let values = Values { account: account.trim(), mailbox: "", spec: "", near: "" };
    let account = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let mut report = Report { account: account.trim().to_owned(), steps: Vec::new() };
            report.steps.push(failed(StepId::Settings, &error, &values));
            report.steps.extend(StepId::ALL[1..].iter().map(|step| Step::after_failure(*step)));
            return Ok(report);
        }
    };
    match job {
        None => Ok(check(&*account, None).await),
        Some(Ok(job)) => Ok(check(&*account, Some(job)).await),
        Some(Err(error)) => {
            // The account itself is looked at all the same.
            let mut report = check(&*account, None).await;
            report.steps[0] = failed(StepId::Settings, &error, &values);
            for step in &mut report.steps {
                if (StepId::ImportFolder..=StepId::FoldersDiffer).contains(&step.step) {
                    *step = Step::after_failure(step.step);
                }
            }
            Ok(report)
        }
    }
}

/// Tests all accounts of a job, at the same time, in the job's order.
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`] when the configuration has no such job.
pub async fn check_job(app: &MailApp, job: &str) -> Result<Vec<Report>> {
    let accounts = app.accounts_of(job)?;
    futures::future::try_join_all(accounts.iter().map(|account| check_configured(app, account, Some(job)))).await
}

/// Tests an open account, for a job or as such. Only lists, reads and asks; what only a change would prove is
/// [`StepStatus::Unproven`].
///
/// Ends within some 100 seconds, whatever the server does: 40 s for signing in, 10 s for each step after it.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use mail_account::{ImportJob, check, provider::memory::{MemoryAccount, MemoryMailbox, MemoryOptions}};
///
/// let account = MemoryAccount::open("local", &MemoryMailbox::new("facturen@contoso.example"), MemoryOptions::default());
/// let report = check::check(&account, Some(&ImportJob::new("invoices", "Facturen".parse()?))).await;
/// assert!(!report.ok());
/// let failed = report.steps.iter().find(|step| step.cause.is_some()).unwrap();
/// assert_eq!(failed.cause, Some(check::Cause::FolderMissing));
/// # Ok::<(), mail_account::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn check(account: &dyn MailAccount, job: Option<&ImportJob>) -> Report {
    let mailbox = account.mailbox();
    let mut checking =
        Checking { account, job, steps: Vec::new(), existing: Vec::new(), folders: Vec::new(), unsure: false };
    if checking.connect().await {
        checking.job_folders().await;
        checking.permissions().await;
    }
    Report { account: mailbox.account.clone(), steps: checking.steps }
}

/// A failed step: what its error means.
fn failed(step: StepId, error: &Error, values: &Values<'_>) -> Step {
    let cause = causes::of(error, step);
    let evidence = Evidence {
        text: error.chain().to_string(),
        code: error.code().map(str::to_owned),
        request_ids: error.request_ids().to_vec(),
    };
    let [english, dutch] = cause.texts(values, &evidence.text);
    Step { cause: Some(cause), evidence: Some(evidence), ..Step::new(step, StepStatus::Failed, english, dutch) }
}

async fn within<T>(limit: Duration, asked: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Timeout, format!("there was no answer within {} s", limit.as_secs())))
    })
}

struct Checking<'a> {
    account: &'a dyn MailAccount,
    job: Option<&'a ImportJob>,
    steps: Vec<Step>,
    /// All that the mailbox has.
    existing: Vec<Folder>,
    /// Those of the job.
    folders: Vec<(StepId, FolderId)>,
    /// Whether only writing would tell about one of the folders.
    unsure: bool,
}

impl Checking<'_> {
    fn values<'v>(&'v self, spec: &'v str) -> Values<'v> {
        let mailbox = self.account.mailbox();
        Values { account: &mailbox.account, mailbox: &mailbox.name, spec, near: "" }
    }

    /// The first call goes all the way to the mailbox; how far it came is told by its error.
    async fn connect(&mut self) -> bool {
        const WAY: [StepId; 4] = [StepId::Settings, StepId::Reach, StepId::SignIn, StepId::Mailbox];
        let error = match within(SIGN_IN, self.account.list_folders()).await {
            Ok(existing) => {
                self.existing = existing;
                self.steps.extend(WAY.map(Step::ok));
                return true;
            }
            Err(error) => error,
        };
        let stopped = causes::of(&error, StepId::Mailbox).stops_at(&error);
        for step in StepId::ALL {
            let step = match step {
                step if step < stopped => Step::ok(step),
                step if step == stopped => failed(step, &error, &self.values("")),
                step => Step::after_failure(step),
            };
            self.steps.push(step);
        }
        false
    }

    async fn job_folders(&mut self) {
        let specs = [
            (StepId::ImportFolder, self.job.map(|job| &job.import_folder)),
            (StepId::ProcessedFolder, self.job.and_then(|job| job.processed_folder.as_ref())),
            (StepId::FailedFolder, self.job.and_then(|job| job.failed_folder.as_ref())),
        ];
        for (id, spec) in specs {
            let step = match spec {
                Some(spec) => self.folder(id, spec).await,
                None => Step::not_set(id),
            };
            self.steps.push(step);
        }
        let import = self.folders.iter().find(|(id, _)| *id == StepId::ImportFolder);
        let targets: Vec<_> = self.folders.iter().filter(|(id, _)| *id != StepId::ImportFolder).collect();
        let step = match import {
            _ if targets.is_empty() => Step::not_set(StepId::FoldersDiffer),
            None => Step::after_failure(StepId::FoldersDiffer),
            Some((_, import)) => match targets.iter().find(|(_, id)| id == import) {
                None => Step::ok(StepId::FoldersDiffer),
                Some((id, _)) => {
                    let spec = self.job.map(|job| job.import_folder.to_string()).unwrap_or_default();
                    let text = format!("`{}` is the import folder itself", id.as_str());
                    failed(StepId::FoldersDiffer, &Error::new(ErrorKind::InvalidConfig, text), &self.values(&spec))
                }
            },
        };
        self.steps.push(step);
    }

    async fn folder(&mut self, id: StepId, spec: &FolderSpec) -> Step {
        let job = self.job.expect("a folder comes from a job");
        let target = id != StepId::ImportFolder;
        let moves = job.processed_folder.is_some() || job.failed_folder.is_some();
        let shown = spec.to_string();
        let looked = within(A_STEP, async {
            let folder = self.account.resolve_folder(spec).await?;
            if !folder.selectable || (target && folder.search) {
                return Err(Error::new(ErrorKind::InvalidConfig, format!("the folder `{shown}` holds no messages")));
            }
            let access = self.account.folder_access(&folder.id).await?;
            if access == Access::ReadOnly && moves {
                let text = format!("the folder `{shown}` is read-only for this account");
                return Err(Error::new(ErrorKind::PermissionDenied, text));
            }
            Ok((folder.id, access))
        });
        match looked.await {
            Ok((folder, access)) => {
                self.folders.push((id, folder));
                if access == Access::Unknown && moves {
                    self.unsure = true;
                    return Step::new(
                        id,
                        StepStatus::Unproven,
                        format!("`{shown}` is there; only moving a message would tell whether it can be written to."),
                        format!(
                            "`{shown}` is er; alleen het verplaatsen van een bericht toont of erin geschreven mag worden."
                        ),
                    );
                }
                Step::ok(id)
            }
            Err(error) if error.kind() == ErrorKind::NotFound && target && job.creates(spec) => {
                self.unsure = true;
                Step::new(
                    id,
                    StepStatus::Unproven,
                    format!("`{shown}` is not there yet; the first run creates it, if it is allowed to."),
                    format!("`{shown}` is er nog niet; de eerste ronde maakt de map aan, als dat mag."),
                )
            }
            Err(error) => {
                let near = nearest(spec, &self.existing).join(", ");
                failed(id, &error, &Values { near: &near, ..self.values(&shown) })
            }
        }
    }

    /// Reads a message, if there is one. Claims of a token prove nothing either way: grants by Exchange's own roles do
    /// not show in them ("Role Based Access Control for Applications in Exchange Online").
    async fn permissions(&mut self) {
        let import = self.folders.iter().find(|(id, _)| *id == StepId::ImportFolder).map(|(_, id)| id.clone());
        let read = within(A_STEP, async {
            let folder = match import {
                Some(folder) => folder,
                None => self.account.resolve_folder(&FolderSpec::Role(Role::Inbox)).await?.id,
            };
            let mut messages = self.account.fetch_messages(&folder, Query::default().with_limit(1));
            messages.next().await.transpose()
        });
        let step = match read.await {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                failed(StepId::Permissions, &error, &self.values(""))
            }
            Err(error) => Step::new(
                StepId::Permissions,
                StepStatus::Unproven,
                format!("No message could be read: {}", error.chain()),
                format!("Er kon geen bericht worden gelezen: {}", error.chain()),
            ),
            Ok(None) => Step::new(
                StepId::Permissions,
                StepStatus::Unproven,
                "There is no message to try reading on.",
                "Er is geen bericht om het lezen op te proberen.",
            ),
            Ok(Some(_)) if self.unsure => Step::new(
                StepId::Permissions,
                StepStatus::Unproven,
                "Reading works; only moving a message would tell whether that is allowed too.",
                "Lezen werkt; alleen het verplaatsen van een bericht toont of dat ook mag.",
            ),
            Ok(Some(_)) => Step::ok(StepId::Permissions),
        };
        self.steps.push(step);
    }
}
