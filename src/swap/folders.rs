//! The job's folders in one account, as far as can be told without writing.

use super::report::{Difference, DifferenceKind, FolderSeen, Severity, Side, Unproven, UnprovenKind};
use crate::{Access, ErrorKind, FolderId, FolderSpec, ImportJob, MailAccount, Result, provider::insight};

/// The folders whose messages are compared, and what is wrong with any.
#[derive(Default)]
pub(super) struct Found {
    pub(super) import: Option<FolderId>,
    pub(super) processed: Option<FolderId>,
    pub(super) troubles: Vec<Trouble>,
}

pub(super) enum Trouble {
    Difference(Difference),
    Unproven(Unproven),
}

/// Looks for the job's folders.
///
/// # Errors
///
/// What the account meets; a folder that is missing or unusable is a [`Trouble`].
pub(super) async fn folders(account: &dyn MailAccount, job: &ImportJob, side: &mut Side) -> Result<Found> {
    let mut found = Found::default();
    let moves = job.processed_folder.is_some() || job.failed_folder.is_some();
    let specs = [
        ("import_folder", Some(&job.import_folder), moves),
        ("processed_folder", job.processed_folder.as_ref(), true),
        ("failed_folder", job.failed_folder.as_ref(), true),
    ];
    for (key, spec, written) in specs {
        let Some(spec) = spec else { continue };
        let Some(folder) = find(account, job, key, spec, &mut found).await? else { continue };
        let target = key != "import_folder";
        if target && found.import.as_ref() == Some(&folder.id) {
            let what = ["is the import folder itself", "is de importmap zelf"];
            found.blocked(DifferenceKind::FolderUnusable, account, key, spec, what);
            continue;
        }
        if !folder.selectable || (target && folder.search) {
            let what = ["is not a folder that holds messages", "is geen map met berichten"];
            found.blocked(DifferenceKind::FolderUnusable, account, key, spec, what);
            continue;
        }
        let access = insight::access(account, &folder.id, target).await?;
        match access {
            Access::ReadOnly if written => {
                let what =
                    ["is read-only, but mail is to be moved", "is alleen-lezen, maar er moet mail worden verplaatst"];
                found.blocked(DifferenceKind::FolderReadOnly, account, key, spec, what);
            }
            Access::Unknown if written => {
                let account = &side.account;
                let detail = [
                    format!("{key}: only moving a message would tell whether `{account}` may write to `{spec}`"),
                    format!(
                        "{key}: alleen het verplaatsen van een bericht toont of `{account}` in `{spec}` mag schrijven"
                    ),
                ];
                found.troubles.push(Trouble::Unproven(Unproven::new(UnprovenKind::Writable, detail)));
            }
            _ => {}
        }
        side.folders.push(FolderSeen {
            key,
            path: folder.path(),
            access,
            messages: None,
            with_attachments_compared: None,
        });
        match key {
            "import_folder" => found.import = Some(folder.id),
            "processed_folder" => found.processed = Some(folder.id),
            _ => {}
        }
    }
    Ok(found)
}

async fn find(
    account: &dyn MailAccount,
    job: &ImportJob,
    key: &'static str,
    spec: &FolderSpec,
    found: &mut Found,
) -> Result<Option<crate::Folder>> {
    let error = match account.resolve_folder(spec).await {
        Ok(folder) => return Ok(Some(folder)),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::NotFound if job.creates(spec) && key != "import_folder" => {
            let name = &account.mailbox().account;
            let detail = [
                format!("{key}: `{spec}` is not there for `{name}`; the job would create it, if it is allowed to"),
                format!("{key}: `{spec}` is er niet voor `{name}`; de taak zou de map aanmaken, als dat mag"),
            ];
            found.troubles.push(Trouble::Unproven(Unproven::new(UnprovenKind::CreateFolder, detail)));
            Ok(None)
        }
        ErrorKind::NotFound => {
            found.blocked(DifferenceKind::FolderMissing, account, key, spec, [error.message(), "die is er niet"]);
            Ok(None)
        }
        // Ambiguous, or a role that this mailbox has no folder for.
        ErrorKind::InvalidConfig | ErrorKind::Unsupported => {
            let what = [error.message(), "de naam past bij meerdere mappen, of dit postvak heeft die map niet"];
            found.blocked(DifferenceKind::FolderUnusable, account, key, spec, what);
            Ok(None)
        }
        _ => Err(error),
    }
}

impl Found {
    fn blocked(
        &mut self,
        kind: DifferenceKind,
        account: &dyn MailAccount,
        key: &str,
        spec: &FolderSpec,
        [english, dutch]: [&str; 2],
    ) {
        let account = &account.mailbox().account;
        let detail = [
            format!("{key} `{spec}` of account `{account}`: {english}"),
            format!("{key} `{spec}` van account `{account}`: {dutch}"),
        ];
        self.troubles.push(Trouble::Difference(Difference::new(Severity::Blocking, kind, detail)));
    }
}
