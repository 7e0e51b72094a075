//! The settings of a Maildir account.

use std::{
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use super::{MaildirAccount, NAME};
use crate::{
    MailAccount, MailboxInfo, Result,
    provider::{Opening, ProviderConfig},
    setting::{Field, Kind, Label, Places, Value},
};

/// An account of provider `maildir`.
///
/// ```
/// use mail_account::provider::maildir::MaildirConfig;
/// let config = MaildirConfig::new("/var/mail/facturen");
/// assert!(config.path.is_absolute());
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MaildirConfig {
    /// The directory that holds `cur`, `new` and `tmp`.
    pub path: PathBuf,
}

impl MaildirConfig {
    /// The mailbox in this directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Checks what can be checked before any call.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) naming the key and the remedy.
    pub fn check(&self, places: &Places) -> Result<()> {
        if self.path.as_os_str().is_empty() {
            return Err(places.invalid("path", "is empty; write the directory that holds `cur`, `new` and `tmp`"));
        }
        if self.path.components().any(|part| part == Component::Normal("~".as_ref())) {
            return Err(places.invalid("path", "contains `~`, which only a shell understands; write the whole path"));
        }
        if sys_has_nul(&self.path) {
            return Err(places.invalid("path", "contains a zero byte; write the directory's path"));
        }
        Ok(())
    }
}

fn sys_has_nul(path: &Path) -> bool {
    super::sys::bytes(path.as_os_str()).contains(&0)
}

impl ProviderConfig for MaildirConfig {
    const NAME: &'static str = NAME;

    fn kind() -> Kind {
        let path = Field::new("path", Value::Path, "Folder of the mailbox", "Map van het postvak").required();
        Kind::new(NAME, Label::new("Maildir", "Maildir"), vec![path])
    }

    fn mailbox(&self, opening: &Opening) -> MailboxInfo {
        match &opening.address {
            Some(address) => MailboxInfo::new(&opening.account, NAME, address),
            None => MailboxInfo::from_path(&opening.account, NAME, &canonical(&self.path)),
        }
    }

    fn open(&self, opening: Opening) -> Result<Arc<dyn MailAccount>> {
        Ok(Arc::new(MaildirAccount::with(opening, self)?))
    }
}

/// The one name of a directory, also of one that does not exist yet: links are followed as far as there is something,
/// the rest is appended.
fn canonical(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut missing = Vec::new();
    let mut existing = absolute.as_path();
    loop {
        if let Ok(mut canonical) = existing.canonicalize() {
            for part in missing.iter().rev() {
                match part {
                    Component::ParentDir => _ = canonical.pop(),
                    part => canonical.push(part),
                }
            }
            return canonical;
        }
        let (Some(parent), Some(last)) = (existing.parent(), existing.components().next_back()) else {
            return absolute;
        };
        missing.push(last);
        existing = parent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_mailbox_has_one_name_however_it_is_written() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("mail")).unwrap();
        for (written, name) in [
            ("mail", "mail"),
            ("mail/", "mail"),
            ("./mail/../mail/.", "mail"),
            ("mail/new/box", "mail/new/box"),
            ("mail/absent/../box", "mail/box"),
            ("absent/../mail", "mail"),
        ] {
            assert_eq!(canonical(&root.join(written)), root.join(name), "{written}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(root.join("mail"), root.join("link")).unwrap();
            assert_eq!(canonical(&root.join("link/box")), root.join("mail/box"));
        }
    }

    #[test]
    fn the_address_names_the_mailbox_where_there_is_one() {
        let temp = tempfile::tempdir().unwrap();
        let config = MaildirConfig::new(temp.path().join("Box"));
        let opening = Opening::new("local");
        assert!(config.mailbox(&opening).name.ends_with("/Box"));
        let opening = opening.with_address(Some(" Facturen@Contoso.nl ".to_owned()));
        assert_eq!(config.mailbox(&opening).name, "facturen@contoso.nl");
    }

    #[test]
    fn bad_settings_name_the_key() {
        for path in ["", "~/Maildir", "/etc/mail/~/Maildir", "a\0b"] {
            let error = MaildirAccount::open("local", MaildirConfig::new(path)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.message().starts_with("`accounts.local.path` "), "{error}");
        }
        let unknown = toml::from_str::<MaildirConfig>("path = 'x'\nfolder = 'y'").unwrap_err();
        assert!(unknown.to_string().contains("folder"), "{unknown}");
    }
}
