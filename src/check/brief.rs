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
        let said = error.chain().to_string();
        let about_a_folder =
            [Self::FolderMissing, Self::FolderAmbiguous, Self::FolderReadOnly, Self::FolderSame, Self::FolderNoMail];
        if about_a_folder.contains(&self) {
            // The error names the folder, and those that are there.
            return [said.clone(), format!("Een map van de taak is niet in orde: {said}")];
        }
        self.texts(&Values { account, mailbox, ..Values::default() }, error)
    }
}
