//! Causes for whoever meets an error outside of a check.

use super::{Cause, StepId, causes, texts::Values};
use crate::Error;

impl Cause {
    /// What an error of an account means.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        causes::of(error, StepId::Mailbox, None)
    }

    /// What is wrong and the next step, in English and in Dutch, for an account on this mailbox.
    #[must_use]
    pub fn explain(self, error: &Error, account: &str, mailbox: &str) -> [String; 2] {
        // What is wrong with a folder begins with its name.
        let folder = error.message().split('`').nth(1).unwrap_or_default();
        match self {
            // Which folders there are is known to the error alone.
            Self::FolderMissing => [
                format!("{}.", error.chain().to_string().trim_end_matches('.')),
                format!("Er is geen map `{folder}` in `{mailbox}`. Verbeter de naam in de taak, of maak de map aan."),
            ],
            _ => self.texts(&Values { account, mailbox, spec: folder, ..Values::default() }, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, folder::not_found};

    #[test]
    fn what_a_run_says_of_a_folder_is_told_in_both_languages() {
        let explain = |error: &Error| {
            let cause = Cause::of(error);
            (cause, cause.explain(error, "invoices", "facturen@contoso.nl"))
        };
        let (cause, [english, dutch]) = explain(&not_found(&"Inbox/Klaar".parse().unwrap(), &[]));
        assert_eq!(cause, Cause::FolderMissing);
        assert!(english.starts_with("there is no folder `Inbox/Klaar`; the mailbox has no folders."), "{english}");
        assert_eq!(
            dutch,
            "Er is geen map `Inbox/Klaar` in `facturen@contoso.nl`. Verbeter de naam in de taak, of maak de map aan."
        );
        let same =
            "the folder `Inbox` (`processed_folder` of job `a`) is the import folder itself; name another folder";
        let (cause, [english, dutch]) = explain(&Error::new(ErrorKind::InvalidConfig, same));
        assert_eq!(cause, Cause::FolderSame);
        for text in [english, dutch] {
            assert!(text.contains(" `Inbox` ") && !text.contains("itself"), "{text}");
        }
    }
}
