//! A Maildir, and beside it what delivery and mail programs do to its files.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use mail_account::{
    Error, ErrorKind, FolderSpec, MailAccount, Result,
    provider::maildir::{MaildirAccount, MaildirConfig},
    testing::conformance::{Harness, Need, Seen},
};
use mail_parser::MessageParser;
use tempfile::TempDir;

pub(crate) struct MaildirHarness {
    mailbox: TempDir,
    delivered: AtomicUsize,
}

impl MaildirHarness {
    pub(crate) fn new() -> io::Result<Self> {
        let mailbox = tempfile::tempdir()?;
        for sub in ["cur", "new", "tmp"] {
            fs::create_dir(mailbox.path().join(sub))?;
        }
        Ok(Self { mailbox, delivered: AtomicUsize::new(0) })
    }

    fn account(&self) -> Result<MaildirAccount> {
        MaildirAccount::open("check", MaildirConfig::new(self.mailbox.path()))
    }

    async fn directory(&self, folder: &FolderSpec) -> Result<PathBuf> {
        let id = self.account()?.resolve_folder(folder).await?.id;
        let root = self.mailbox.path();
        Ok(if id.as_str() == "INBOX" { root.to_owned() } else { root.join(id.as_str().replace("%25", "%")) })
    }

    async fn find(&self, folder: &FolderSpec, internet_message_id: &str) -> Result<PathBuf> {
        let found = files(&self.directory(folder).await?)
            .map_err(failed)?
            .into_iter()
            .find(|file| message_id(file).is_ok_and(|id| id.as_deref() == Some(internet_message_id)));
        found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("`{folder}` has no message `{internet_message_id}`"))
        })
    }
}

fn failed(error: io::Error) -> Error {
    Error::new(ErrorKind::Other, "the mailbox of the test is broken").with_source(error)
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for sub in ["new", "cur"] {
        for entry in fs::read_dir(folder.join(sub))? {
            files.push(entry?.path());
        }
    }
    Ok(files)
}

/// Read by another parser than the account's.
fn message_id(file: &Path) -> io::Result<Option<String>> {
    let raw = fs::read(file)?;
    let parsed = MessageParser::default().parse_headers(&raw);
    Ok(parsed.and_then(|message| message.message_id().map(|id| format!("<{id}>"))))
}

fn name(file: &Path) -> String {
    file.file_name().expect("it has one").to_string_lossy().into_owned()
}

/// A mail program that shows a message moves it to `cur`, with its flags behind its name.
fn in_cur(folder: &Path, file: &Path, read: bool) -> PathBuf {
    let name = name(file);
    let base = name.split(":2,").next().expect("there is a first");
    folder.join("cur").join(format!("{base}:2,{}", if read { "S" } else { "" }))
}

#[async_trait]
impl Harness for MaildirHarness {
    async fn open(&self) -> Result<Arc<dyn MailAccount>> {
        Ok(Arc::new(self.account()?))
    }

    async fn deliver(&self, folder: &FolderSpec, raw: Bytes, received: Timestamp) -> Result<()> {
        let folder = self.directory(folder).await?;
        let count = self.delivered.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}.M{count}P1.conformance", received.as_second());
        fs::write(folder.join("tmp").join(&name), raw).map_err(failed)?;
        fs::rename(folder.join("tmp").join(&name), folder.join("new").join(&name)).map_err(failed)
    }

    async fn delete_folder(&self, folder: &FolderSpec) -> Result<()> {
        let directory = self.directory(folder).await?;
        let below = format!("{}.", name(&directory));
        for entry in fs::read_dir(self.mailbox.path()).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path == directory || name(&path).starts_with(&below) {
                fs::remove_dir_all(path).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn lacks(&self, need: Need) -> Option<String> {
        match need {
            Need::Links => Some("links to files in a cloud are a matter of Graph".to_owned()),
            Need::Unreadable => Some("a file that cannot be read cannot be downloaded either".to_owned()),
            _ => None,
        }
    }

    async fn look(&self, folder: &FolderSpec) -> Result<Vec<Seen>> {
        let seen = |file: &PathBuf| {
            let name = name(file);
            let read = name.split_once(":2,").is_some_and(|(_, flags)| flags.contains('S'));
            message_id(file).map(|id| Seen::new(id, read))
        };
        let files = files(&self.directory(folder).await?).map_err(failed)?;
        files.iter().map(seen).collect::<io::Result<_>>().map_err(failed)
    }

    async fn delete(&self, folder: &FolderSpec, internet_message_id: &str) -> Result<()> {
        fs::remove_file(self.find(folder, internet_message_id).await?).map_err(failed)
    }

    async fn relocate(&self, folder: &FolderSpec, internet_message_id: &str, to: &FolderSpec) -> Result<()> {
        let file = self.find(folder, internet_message_id).await?;
        let target = self.directory(to).await?.join("cur").join(name(&file));
        fs::rename(file, target).map_err(failed)
    }

    async fn mark(&self, folder: &FolderSpec, internet_message_id: &str, read: bool) -> Result<()> {
        let file = self.find(folder, internet_message_id).await?;
        fs::rename(&file, in_cur(&self.directory(folder).await?, &file, read)).map_err(failed)
    }
}
