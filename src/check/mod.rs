//! Test Connection: does this account work for this job, and if not, who does what about it.
//!
//! [`check`] looks at an account step by step and changes nothing. A failed step has a [`Cause`]: what is wrong, who
//! repairs it, and the next step, in English and Dutch. The list of causes is `docs/causes.md`.
//!
//! Nothing here knows a configuration. [`MailApp::check`](crate::MailApp::check) opens an account of one and tests it,
//! [`MailApp::check_job`](crate::MailApp::check_job) all accounts of a job.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | [`check`], and how long it waits |
//! | `steps.rs` | the steps, one after the other |
//! | `report.rs` | what they find |
//! | `causes.rs` | [`Cause`], and the one table from what services answer to causes |
//! | `causes/` | the answers of services that the table is tested with |
//! | `brief.rs` | causes for whoever meets an error elsewhere |
//! | `texts.rs` | what each cause says, in English and Dutch |
//! | `texts.snapshot.txt` | the same filled in, to be read aloud |
//! | `permissions.rs` | what a job needs to be permitted, and what a token shows |
//! | `retirement.rs` | ways of signing in that a service has retired |

mod brief;
mod causes;
pub mod permissions;
mod report;
mod retirement;
mod steps;
mod texts;

use std::{sync::Arc, time::Duration};

pub use causes::{Cause, Who};
pub use report::{Evidence, Report, Step, StepId, StepStatus};
pub use retirement::Retirement;

use crate::{ImportJob, MailAccount, Patience};
use steps::Checking;

/// A step that asks a server.
const A_STEP: Duration = Duration::from_secs(10);
/// Signing in: some servers delay the answer to a wrong password.
const SIGN_IN: Duration = Duration::from_secs(40);

/// How long an account that is opened to be checked waits for its service: less than a step, and for a sign-in less than
/// that step, so that each ends with what went wrong and not with its own deadline.
pub(crate) fn patience() -> Patience {
    Patience {
        connect: Duration::from_secs(7),
        silence: Duration::from_secs(18),
        faults: Duration::from_secs(8),
        pauses: Duration::from_secs(8),
        ..Patience::default()
    }
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

/// Opens the other accounts of a host, one by one as they are asked for. They may show that an app has access by other
/// ways than its token.
pub(crate) type Others<'a> = &'a (dyn Fn() -> Box<dyn Iterator<Item = Arc<dyn MailAccount>> + Send + 'a> + Sync);

/// As [`check()`], and looks at others where this account alone does not tell why it is refused.
pub(crate) async fn check_among<'a>(
    account: &'a dyn MailAccount,
    job: Option<&'a ImportJob>,
    others: Others<'a>,
) -> Report {
    Checking::new(account, job, Some(others)).run().await
}
