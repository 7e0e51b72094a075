//! Test Connection: does this account work for this job, and if not, who does what about it.
//!
//! [`check`] looks at an account step by step and changes nothing. A failed step has a [`Cause`]: what is wrong, who
//! repairs it, and the next step, in English and Dutch. The list of causes is `docs/causes.md`.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | the front: an open account, an account of a configuration, all accounts of a job |
//! | `steps.rs` | the steps, one after the other |
//! | `report.rs` | what they find |
//! | `causes.rs` | [`Cause`], and the one table from what services answer to causes |
//! | `brief.rs` | causes for whoever meets an error elsewhere |
//! | `texts.rs` | what each cause says, in English and Dutch |
//! | `permissions.rs` | what a job needs to be permitted, and what a token shows |
//! | `inventory.rs` | which accounts sign in in a way that their service retires |

mod brief;
mod causes;
pub mod inventory;
pub mod permissions;
mod report;
mod steps;
mod texts;

use std::time::Duration;

pub use causes::{Cause, Who};
pub use report::{Evidence, Report, Step, StepId, StepStatus};

use crate::{Error, ImportJob, MailAccount, MailApp, Patience, Result};
use steps::{Checking, Peers, failed};
use texts::Values;

/// A step that asks a server.
const A_STEP: Duration = Duration::from_secs(10);
/// Signing in: some servers delay the answer to a wrong password.
const SIGN_IN: Duration = Duration::from_secs(40);

/// How long an account that is opened to be checked waits for its service: less than a step, and for a sign-in less than
/// that step, so that each ends with what went wrong and not with its own deadline.
fn patience() -> Patience {
    Patience {
        connect: Duration::from_secs(7),
        silence: Duration::from_secs(18),
        faults: Duration::from_secs(8),
        pauses: Duration::from_secs(8),
        ..Patience::default()
    }
}

/// Tests an account of a configuration, for a job or as such.
///
/// What is wrong inside the account or the job is a failed step. No ledger is opened: this works on a draft. The account
/// signs in anew, so that what was granted a minute ago counts.
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when the configuration has no such account or job.
pub async fn check_configured(app: &MailApp, account: &str, job: Option<&str>) -> Result<Report> {
    let known = app.accounts().any(|known| known.name == account.trim());
    let opened = app.opened_apart(account, patience());
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
    let values = Values { account: account.trim(), ..Values::default() };
    let account = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let mut report = Report { account: account.trim().to_owned(), steps: Vec::new() };
            report.steps.push(failed(StepId::Settings, &error, None, &values));
            report.steps.extend(StepId::ALL[1..].iter().map(|step| Step::after_failure(*step)));
            return Ok(report);
        }
    };
    let peers = Peers::of(app);
    match job {
        None => Ok(Checking::new(&*account, None, Some(peers)).run().await),
        Some(Ok(job)) => Ok(Checking::new(&*account, Some(job), Some(peers)).run().await),
        Some(Err(error)) => {
            // The account itself is looked at all the same.
            let mut report = Checking::new(&*account, None, Some(peers)).run().await;
            report.steps[0] = failed(StepId::Settings, &error, None, &values);
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
/// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when the configuration has no such job.
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
    Checking::new(account, job, None).run().await
}
