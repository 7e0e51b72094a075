//! The steps, one after the other.

use std::{future::Future, time::Duration};

use futures::StreamExt as _;

use super::{
    A_STEP, Others, SIGN_IN,
    causes::{self, Cause, Seen},
    permissions::{Assessment, Need, Service, least},
    report::{Evidence, Report, Step, StepId, StepStatus},
    texts::{Values, listed},
};
use crate::{
    Access, Error, ErrorKind, Folder, FolderId, FolderSpec, ImportJob, MailAccount, Query, Result, Role,
    auth::{Auth, Claims},
    provider::insight::{self, Absence, Facts, Insight},
};

/// A failed step: what its error means.
fn failed(step: StepId, error: &Error, seen: Option<Seen>, values: &Values<'_>) -> Step {
    let cause = causes::of(error, step, seen);
    let [english, dutch] = cause.texts(values, error);
    Step {
        cause: Some(cause),
        evidence: Some(Evidence::of(error)),
        ..Step::new(step, StepStatus::Failed, english, dutch)
    }
}

async fn within<T>(limit: Duration, asked: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Timeout, format!("there was no answer within {} s", limit.as_secs())))
    })
}

/// Whether the same app opens another mailbox. Asks a few only, for nothing but their inbox.
async fn opens_another(others: Others<'_>, facts: &Facts) -> bool {
    const ASKED: usize = 3;
    let same_app = |other: &dyn MailAccount| {
        let other = insight::insight(other).map(Insight::facts).unwrap_or_default();
        other.client_id.is_some() && (&other.client_id, &other.tenant) == (&facts.client_id, &facts.tenant)
    };
    for other in others().filter(|other| same_app(&**other)).take(ASKED) {
        if within(A_STEP, other.resolve_folder(&FolderSpec::Role(Role::Inbox))).await.is_ok() {
            return true;
        }
    }
    false
}

impl Report {
    /// Of an account that cannot be opened, because of this.
    pub(crate) fn unopened(account: &str, error: &Error) -> Self {
        let values = Values { account, ..Values::default() };
        let mut steps = vec![failed(StepId::Settings, error, None, &values)];
        steps.extend(StepId::ALL[1..].iter().map(|step| Step::after_failure(*step)));
        Self { account: account.to_owned(), steps }
    }

    /// The same account for a job in which this is wrong: of its folders nothing is known.
    pub(crate) fn for_broken_job(mut self, error: &Error) -> Self {
        let values = Values { account: &self.account, ..Values::default() };
        self.steps[0] = failed(StepId::Settings, error, None, &values);
        for step in &mut self.steps {
            if (StepId::ImportFolder..=StepId::FoldersDiffer).contains(&step.step) {
                *step = Step::after_failure(step.step);
            }
        }
        self
    }
}

pub(super) struct Checking<'a> {
    account: &'a dyn MailAccount,
    job: Option<&'a ImportJob>,
    others: Option<Others<'a>>,
    insight: Option<&'a dyn Insight>,
    facts: Facts,
    needed: Vec<&'static str>,
    steps: Vec<Step>,
    tree: Vec<Folder>,
    folders: Vec<(StepId, FolderId)>,
    /// Whether only writing would tell about one of the folders.
    unsure: bool,
}

impl<'a> Checking<'a> {
    pub(super) fn new(account: &'a dyn MailAccount, job: Option<&'a ImportJob>, others: Option<Others<'a>>) -> Self {
        let insight = insight::insight(account);
        let facts = insight.map(Insight::facts).unwrap_or_default();
        let mut checking = Self {
            account,
            job,
            others,
            insight,
            facts,
            needed: Vec::new(),
            steps: Vec::new(),
            tree: Vec::new(),
            folders: Vec::new(),
            unsure: false,
        };
        if let Some((service, auth)) = checking.service() {
            checking.needed = least(service, auth, &Need::of(job));
        }
        checking
    }

    pub(super) async fn run(mut self) -> Report {
        if self.connect().await {
            self.job_folders().await;
            self.permissions().await;
        }
        Report { account: self.account.mailbox().account.clone(), steps: self.steps }
    }

    /// Whose permissions count, where the service is Microsoft's.
    fn service(&self) -> Option<(Service, Auth)> {
        let auth = self.facts.auth.filter(|_| self.facts.is_microsofts)?;
        let service = match self.account.mailbox().provider.as_str() {
            "imap" => Service::ExchangeImap,
            _ if self.facts.shared => Service::GraphShared,
            _ => Service::Graph,
        };
        Some((service, auth))
    }

    fn values<'v>(&'v self, spec: &'v str) -> Values<'v> {
        let mailbox = self.account.mailbox();
        Values {
            account: &mailbox.account,
            mailbox: &mailbox.name,
            spec,
            folders: &self.tree,
            server: self.facts.server.as_deref(),
            tenant: self.facts.tenant.as_deref(),
            client_id: self.facts.client_id.as_deref(),
            permissions: self.service().map(|(service, auth)| (service.api(), auth, self.needed.clone())),
        }
    }

    /// A failed step, after its error has been looked into.
    async fn failed(&self, step: StepId, error: &Error, spec: &str) -> Step {
        let seen = match causes::of(error, step, None) {
            Cause::MailboxNotHosted => self.absence().await,
            Cause::PermissionLacking => self.why_refused().await,
            _ => None,
        };
        failed(step, error, seen, &self.values(spec))
    }

    async fn absence(&self) -> Option<Seen> {
        let insight = self.insight?;
        Some(match within(A_STEP, async { Ok(insight.absence().await) }).await.ok()?? {
            Absence::NoLicence => Seen::NoLicence,
            Absence::JustLicensed => Seen::JustLicensed,
            Absence::OnPremises => Seen::OnPremises,
        })
    }

    async fn claims(&self) -> Option<Claims> {
        within(A_STEP, self.insight?.claims()).await.ok()?
    }

    async fn why_refused(&self) -> Option<Seen> {
        let (service, auth) = self.service()?;
        let claims = self.claims().await?;
        let assessment = Assessment::of(&claims, service, auth, &Need::of(self.job));
        if assessment.shown && !assessment.other_kind {
            // What is needed was consented to: it is Exchange that does not let this person in.
            let not_let_in = self.facts.shared && assessment.lacking.is_empty();
            return not_let_in.then_some(Seen::PersonNotLetIn);
        }
        if auth == Auth::App
            && let Some(others) = self.others
            && opens_another(others, &self.facts).await
        {
            return Some(Seen::OtherMailboxOpens);
        }
        Some(Seen::NoPermission)
    }

    /// The first call goes all the way to the mailbox; how far it came is told by its error.
    async fn connect(&mut self) -> bool {
        const WAY: [StepId; 4] = [StepId::Settings, StepId::Reach, StepId::SignIn, StepId::Mailbox];
        let error = match within(SIGN_IN, self.account.list_folders()).await {
            Ok(tree) => {
                self.tree = tree;
                self.steps.extend(WAY.map(Step::ok));
                return true;
            }
            Err(error) => error,
        };
        let stopped = causes::of(&error, StepId::Mailbox, None).stops_at(&error);
        for step in StepId::ALL {
            let step = match step {
                step if step < stopped => Step::ok(step),
                step if step == stopped => self.failed(step, &error, "").await,
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
                    failed(
                        StepId::FoldersDiffer,
                        &Error::new(ErrorKind::InvalidConfig, text),
                        None,
                        &self.values(&spec),
                    )
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
            let access = insight::access(self.account, &folder.id, target).await?;
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
            Err(error) => self.failed(id, &error, &shown).await,
        }
    }

    /// Reads a message with its attachments, if there is one. Only the service's refusal is a failure.
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
                self.failed(StepId::Permissions, &error, "").await
            }
            Err(error) => Step {
                evidence: Some(Evidence::of(&error)),
                ..unproven(
                    "No message could be read to try it.",
                    "Er kon geen bericht worden gelezen om het te proberen.",
                )
            },
            Ok(read) => self.shown(read.is_some()).await,
        };
        self.steps.push(step);
    }

    /// Nothing was refused: what the reading proves, and what the token adds to it.
    async fn shown(&self, read: bool) -> Step {
        let proven = match (read, self.unsure) {
            (true, false) => Step::ok(StepId::Permissions),
            (true, true) => unproven(
                "Reading works; only moving a message would tell whether that is allowed too.",
                "Lezen werkt; alleen het verplaatsen van een bericht toont of dat ook mag.",
            ),
            (false, _) => {
                unproven("There is no message to try reading on.", "Er is geen bericht om het lezen op te proberen.")
            }
        };
        let Some((service, auth)) = self.service() else { return proven };
        let Some(claims) = self.claims().await else { return proven };
        let seen = Assessment::of(&claims, service, auth, &Need::of(self.job));
        if !seen.shown {
            // RBAC for Applications: it works, and nothing here says how far.
            return proven.say(
                "The token shows no permissions, as is usual where Exchange's RBAC for Applications grants them; how far they reach cannot be seen from here.",
                "Het token toont geen machtigingen, zoals gebruikelijk is als RBAC voor toepassingen van Exchange ze geeft; hoe ver ze reiken is hier niet te zien.",
                StepStatus::Unproven,
            );
        }
        if !seen.lacking.is_empty() {
            let names = listed(&seen.lacking);
            let mut step = proven.say(
                &format!("The token does not show {names}; unless a role of Exchange grants it, moving or reading will be refused."),
                &format!("Het token toont {names} niet; tenzij een rol van Exchange dat toestaat, zal lezen of verplaatsen worden geweigerd."),
                StepStatus::Unproven,
            );
            step.cause = Some(Cause::PermissionLacking);
            return step;
        }
        // All that is needed is there: by the token's word moving is allowed, whatever each folder says.
        let mut step = if read { Step::ok(StepId::Permissions) } else { proven };
        if !seen.surplus.is_empty() {
            let surplus = Error::new(ErrorKind::Other, listed(&seen.surplus));
            let [english, dutch] = Cause::PermissionSurplus.texts(&self.values(""), &surplus);
            let status = step.status;
            step = step.say(&english, &dutch, status);
            step.cause = Some(Cause::PermissionSurplus);
        } else if seen.tenant_wide {
            let status = step.status;
            step = step.say(
                "The permission reaches every mailbox of the tenant, unless a policy of Exchange limits it; RBAC for Applications can grant it for single mailboxes instead.",
                "De machtiging geldt voor elk postvak van de tenant, tenzij een beleid van Exchange haar beperkt; RBAC voor toepassingen kan haar in plaats daarvan voor losse postvakken geven.",
                status,
            );
        }
        step
    }
}

fn unproven(english: impl Into<String>, dutch: impl Into<String>) -> Step {
    Step::new(StepId::Permissions, StepStatus::Unproven, english, dutch)
}
