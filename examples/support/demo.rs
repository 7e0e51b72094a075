//! The demo mailbox: a Maildir in the target folder, filled once with the mails of `examples/data`.

#![allow(dead_code, reason = "each example uses a part of it")]

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use mail_account::{
    Error, ErrorKind, FolderSpec, MailAccount as _, MailApp, Result, Role,
    provider::maildir::{MaildirAccount, MaildirConfig},
};

pub(crate) const JOB: &str = "demo";

const CONFIG: &str = r#"# The demo of `cargo run --example import`; `cargo run --example folders` works on it too.
[state]
path = "state.db"

[accounts.demo]
provider = "maildir"
path = "mailbox"

[jobs.demo]
accounts = ["demo"]
import_folder = "Inbox"
processed_folder = "Inbox/Processed"
failed_folder = "Inbox/Failed"
create_folders = true
"#;

/// The demo's configuration, and the folder its files go to.
pub(crate) async fn prepare() -> Result<(MailApp, PathBuf)> {
    // Beside Cargo.toml whatever the build's own target folder is, so that the README can name the place.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let demo = root.join("target").join("mail-account-demo");
    fs::create_dir_all(&demo).map_err(|e| failed("create", &demo, e))?;
    fill(&root.join("examples").join("data"), &demo.join("mailbox")).await?;
    let file = demo.join("mail.toml");
    fs::write(&file, CONFIG).map_err(|e| failed("write", &file, e))?;
    Ok((MailApp::load(&file)?, demo.join("out")))
}

/// Puts the mails into a mailbox that is not there yet. One that is there is left alone: what was imported from it has
/// moved. It is filled under another name first, so that a run that was interrupted leaves no half of it.
pub(crate) async fn fill(mails: &Path, mailbox: &Path) -> Result<()> {
    if mailbox.exists() {
        return Ok(());
    }
    let unfinished = mailbox.with_file_name(format!("mailbox.{}.part", std::process::id()));
    let account = MaildirAccount::open("demo", MaildirConfig::new(&unfinished))?;
    account.create_mailbox().await?;
    let inbox = account.resolve_folder(&FolderSpec::Role(Role::Inbox)).await?;
    for file in sorted(mails).map_err(|e| failed("read", mails, e))? {
        let mail = fs::read(&file).map_err(|e| failed("read", &file, e))?;
        account.deliver_at(&inbox.id, &mail, sent(&mail).unwrap_or_else(Timestamp::now)).await?;
    }
    match fs::rename(&unfinished, mailbox) {
        // Another run was faster.
        Err(_) if mailbox.exists() => fs::remove_dir_all(&unfinished).map_err(|e| failed("remove", &unfinished, e)),
        done => done.map_err(|e| failed("create", mailbox, e)),
    }
}

fn sorted(mails: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(mails)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "eml"));
    files.sort();
    Ok(files)
}

/// The mail's own date: it arrived the moment it was sent.
fn sent(mail: &[u8]) -> Option<Timestamp> {
    let date = mail_parser::MessageParser::new().parse_headers(mail)?.date()?.to_timestamp();
    Timestamp::from_second(date).ok()
}

fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Storage, format!("cannot {what} `{}`", path.display())).with_source(error)
}
