//! `[jobs.*]`: which jobs there are, and what two of them must not share.

use std::collections::{HashMap, HashSet};

use toml::{Table, Value as Toml};

use super::{
    account::{Account, Accounts, named},
    file::{Document, join, suggest},
    kinds,
    value::{self, Problem},
};
use crate::{Error, ErrorKind, FolderSpec, ImportJob, Result, Role, folder::is_inbox};

/// One `[jobs.*]`.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) name: String,
    pub(super) accounts: Vec<String>,
    job: Result<ImportJob, Problem>,
}

impl Job {
    pub(super) fn get(&self) -> Result<&ImportJob> {
        self.job.as_ref().map_err(|Problem(text)| Error::new(ErrorKind::InvalidConfig, text.clone()))
    }
}

pub(super) fn jobs(document: &Document, accounts: &Accounts, value: Option<Toml>) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for (name, place, mut table) in named(document, "jobs", value)? {
        let fields = kinds::job();
        let problem = value::check(document, &place, "a job", &mut table, &fields)?
            .or_else(|| value::missing(document, &place, &table, &fields));
        let names = account_names(document, &place, &table, accounts)?;
        let job = match problem {
            Some(problem) => Err(problem),
            None if names.is_empty() => {
                Err(Problem(document.sentence(&join(&place, "accounts"), "is empty; name at least one account")))
            }
            None => read(document, &place, &name, &table),
        };
        jobs.push(Job { name, accounts: names, job });
    }
    refuse_shared_mailboxes(document, accounts, &jobs)?;
    Ok(jobs)
}

/// The accounts of a job.
///
/// # Errors
///
/// There is no such account.
fn account_names(document: &Document, place: &str, table: &Table, accounts: &Accounts) -> Result<Vec<String>> {
    let Some(Toml::Array(names)) = table.get("accounts") else {
        return Ok(Vec::new());
    };
    let names: Vec<_> = names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
    for name in &names {
        if accounts.get(name).is_none() {
            let hint = suggest(name, accounts.names());
            let what = format!("names `{name}`, but there is no `[accounts.{name}]`; {hint}");
            return Err(document.invalid(&join(place, "accounts"), &what));
        }
    }
    Ok(names)
}

fn read(document: &Document, place: &str, name: &str, table: &Table) -> Result<ImportJob, Problem> {
    let problem = |key: &str, what: String| Problem(document.sentence(&join(place, key), &what));
    let folder = |key: &str| -> Result<Option<FolderSpec>, Problem> {
        let spec = table.get(key).and_then(Toml::as_str);
        spec.map(|spec| spec.parse().map_err(|e: Error| problem(key, format!("is wrong: {e}")))).transpose()
    };
    let text = |key: &str| table.get(key).and_then(Toml::as_str);
    let flag = |key: &str| table.get(key).and_then(Toml::as_bool).unwrap_or(false);
    let number = |key: &str| table.get(key).and_then(Toml::as_integer);

    let Some(import_folder) = folder("import_folder")? else {
        return Err(problem("import_folder", "is missing".to_owned()));
    };
    let mut job = ImportJob::new(name, import_folder)
        .with_create_folders(flag("create_folders"))
        .with_unread_only(flag("unread_only"))
        .with_ledger_new(text("ledger") == Some("new"));
    job.processed_folder = folder("processed_folder")?;
    job.failed_folder = folder("failed_folder")?;
    if let Some(since) = text("since") {
        job = job.with_since(value::parse_since(since).map_err(|e| problem("since", e))?);
    }
    if let Some(interval) = text("interval") {
        job = job.with_interval(value::parse_duration(interval).map_err(|e| problem("interval", e))?);
    }
    if let Some(attempts) = number("max_attempts").and_then(|n| u32::try_from(n).ok()) {
        job = job.with_max_attempts(attempts);
    }
    if let Some(concurrency) = number("handler_concurrency").and_then(|n| usize::try_from(n).ok()) {
        job = job.with_handler_concurrency(concurrency);
    }
    Ok(job)
}

/// A job that reads a mailbox, by which account, and from which folder.
type Reader<'a> = (&'a Job, &'a Account, Option<String>);

/// Two runs over the same mail would take turns in importing it, each under a memory of its own.
fn refuse_shared_mailboxes(document: &Document, accounts: &Accounts, jobs: &[Job]) -> Result<()> {
    let mut readers: HashMap<String, Vec<Reader<'_>>> = HashMap::new();
    for job in jobs {
        let place = format!("jobs.{}.accounts", job.name);
        let folder = job.job.as_ref().ok().map(|job| comparable(&job.import_folder));
        let mut names = HashSet::new();
        for account in &job.accounts {
            if !names.insert(account) {
                return Err(document.invalid(&place, &format!("names `{account}` twice; remove one of them")));
            }
            let Some(account) = accounts.get(account) else { continue };
            let lies = account.lies_at();
            let called = account.mailbox().map(|mailbox| mailbox.name).filter(|name| lies.as_ref() != Some(name));
            for mailbox in called.into_iter().chain(lies.clone()) {
                let others = readers.entry(mailbox.clone()).or_default();
                for (other, other_account, other_folder) in others.iter() {
                    let what = if other.name == job.name {
                        let addresses = match lies.as_ref() == Some(&mailbox) {
                            true => "",
                            false => ", or give them different `address`es if they are different mailboxes",
                        };
                        format!(
                            "names the mailbox `{mailbox}` twice, by `{}` and by `{}`; remove one of them{addresses}",
                            other_account.name, account.name
                        )
                    } else if folder.is_some() && *other_folder == folder {
                        format!(
                            "reads the same import folder of the mailbox `{mailbox}` as the job `{}`; give one of them another import folder, or remove the account from one",
                            other.name
                        )
                    } else {
                        continue;
                    };
                    return Err(document.invalid(&place, &what));
                }
                others.push((job, account, folder.clone()));
            }
        }
    }
    Ok(())
}

/// Folders that may be one and the same have the same text here.
fn comparable(folder: &FolderSpec) -> String {
    match folder {
        // IMAP's name for it, and Graph's; the ids of other folders are not known here, and their case counts.
        FolderSpec::Id(id) if is_inbox(id.as_str()) => FolderSpec::Role(Role::Inbox).to_string().to_lowercase(),
        FolderSpec::Id(_) => folder.to_string(),
        other => other.to_string().to_lowercase(),
    }
}
