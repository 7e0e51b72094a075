//! What a rehearsal finds.

use jiff::Timestamp;

use super::folders::{Found, Trouble};
use crate::{Access, Error, Language, MailAccount, MessageKey, Result};

/// What a rehearsal found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rehearsal {
    /// How the accounts differ, in the order in which it was found.
    pub differences: Vec<Difference>,
    /// What could not be proven without writing, or was not looked at.
    pub unproven: Vec<Unproven>,
    /// The account that the job uses now.
    pub old: Side,
    /// The account that it would use.
    pub new: Side,
}

/// One way in which the accounts differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// Whether it forbids the swap.
    pub severity: Severity,
    /// What it is.
    pub kind: DifferenceKind,
    /// Where, in English.
    pub detail: String,
    dutch: String,
}

impl Difference {
    pub(super) fn new(severity: Severity, kind: DifferenceKind, [detail, dutch]: [String; 2]) -> Self {
        Self { severity, kind, detail, dutch }
    }

    /// Where, for people. May quote an account's error, in English.
    #[must_use]
    pub fn detail_in(&self, language: Language) -> &str {
        match language {
            Language::Dutch => &self.dutch,
            Language::English => &self.detail,
        }
    }
}

/// What a difference means for the swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// The swap would lose a message, import one twice, or not work at all.
    Blocking,
    /// One service renders a message in another way; the importer recognises it all the same.
    Conversion,
    /// Good to know.
    Info,
}

impl Severity {
    /// The name used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocking => "blocking",
            Self::Conversion => "conversion",
            Self::Info => "info",
        }
    }
}

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DifferenceKind {
    /// The old account failed, so that nothing could be compared.
    OldAccountError,
    /// The new account failed.
    NewAccountError,
    /// A folder of the job is not there.
    FolderMissing,
    /// A folder cannot be used: ambiguous, the import folder itself, or one that holds no messages.
    FolderUnusable,
    /// Mail cannot be moved out of or into a folder.
    FolderReadOnly,
    /// The accounts read two mailboxes.
    OtherMailbox,
    /// The accounts name the mailbox differently.
    MailboxName,
    /// `ledger = "new"` would forget what was imported under the other name.
    NewLedger,
    /// Only the old account shows a message.
    MessageMissing,
    /// Only the new account shows a message.
    MessageExtra,
    /// The new account cannot read a message that the old one can.
    MessageUnreadable,
    /// The attached files of a message differ.
    ContentDiffers,
    /// A message without files differs in subject, sender or date, so that it would pass for another one.
    MessageDiffers,
    /// The job takes unread messages only, and one is read for one account and unread for the other.
    ReadStateDiffers,
    /// A file has another name.
    FileNameDiffers,
    /// The subject differs.
    SubjectDiffers,
    /// The sender or the recipients differ.
    AddressesDiffer,
    /// The sent time differs, or only one account has one.
    SentDiffers,
    /// The number of attached messages, links or calendar entries differs, or one account shows the files in a
    /// `winmail.dat` and the other the file itself.
    ItemsDiffer,
    /// Only one account has a `Message-ID`, which its service made up.
    MessageIdAdded,
    /// Moved, deleted or arrived while the rehearsal ran.
    ChangedMeanwhile,
    /// Whether a message keeps its id when it moves.
    StableIds,
}

impl DifferenceKind {
    /// The stable name used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OldAccountError => "old_account_error",
            Self::NewAccountError => "new_account_error",
            Self::FolderMissing => "folder_missing",
            Self::FolderUnusable => "folder_unusable",
            Self::FolderReadOnly => "folder_read_only",
            Self::OtherMailbox => "other_mailbox",
            Self::MailboxName => "mailbox_name",
            Self::NewLedger => "new_ledger",
            Self::MessageMissing => "message_missing",
            Self::MessageExtra => "message_extra",
            Self::MessageUnreadable => "message_unreadable",
            Self::ContentDiffers => "content_differs",
            Self::MessageDiffers => "message_differs",
            Self::ReadStateDiffers => "read_state_differs",
            Self::FileNameDiffers => "file_name_differs",
            Self::SubjectDiffers => "subject_differs",
            Self::AddressesDiffer => "addresses_differ",
            Self::SentDiffers => "sent_differs",
            Self::ItemsDiffer => "items_differ",
            Self::MessageIdAdded => "message_id_added",
            Self::ChangedMeanwhile => "changed_meanwhile",
            Self::StableIds => "stable_ids",
        }
    }
}

/// Something that a rehearsal could not prove.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unproven {
    /// What it is.
    pub kind: UnprovenKind,
    /// Why, in English.
    pub detail: String,
    dutch: String,
}

impl Unproven {
    pub(super) fn new(kind: UnprovenKind, [detail, dutch]: [String; 2]) -> Self {
        Self { kind, detail, dutch }
    }

    /// Why, for people.
    #[must_use]
    pub fn detail_in(&self, language: Language) -> &str {
        match language {
            Language::Dutch => &self.dutch,
            Language::English => &self.detail,
        }
    }
}

/// What was not proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnprovenKind {
    /// Whether a folder can be written to.
    Writable,
    /// Whether a folder that is missing can be created.
    CreateFolder,
    /// Whether the attachments of all messages are the same.
    Attachments,
    /// Whether both accounts read the same mailbox.
    SameMailbox,
    /// What was imported already.
    Ledger,
    /// From when on the job imports.
    SinceNow,
}

impl UnprovenKind {
    /// The stable name used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Writable => "writable",
            Self::CreateFolder => "create_folder",
            Self::Attachments => "attachments",
            Self::SameMailbox => "same_mailbox",
            Self::Ledger => "ledger",
            Self::SinceNow => "since_now",
        }
    }
}

/// One of the two accounts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Side {
    /// Its identifier.
    pub account: String,
    /// Its provider.
    pub provider: String,
    /// The mailbox's name in the ledger.
    pub mailbox: String,
    /// Whether a message keeps its id when it moves.
    pub stable_ids: bool,
    /// The job's folders that it has.
    pub folders: Vec<FolderSeen>,
    /// What the job would import first; only of the new account.
    pub first: Vec<FirstMessage>,
    /// What the account has cost so far, as [`Usage::requests`](crate::Usage::requests).
    pub requests: u64,
}

/// One of the job's folders in one account.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FolderSeen {
    /// The key of the job: `import_folder`, `processed_folder`, `failed_folder`.
    pub key: &'static str,
    /// Its path.
    pub path: String,
    /// Whether it can be written to.
    pub access: Access,
    /// How many messages were compared; `None` for a folder whose messages are not looked at.
    pub messages: Option<usize>,
    /// Of how many the attachments were compared.
    pub with_attachments_compared: Option<usize>,
}

/// A message that the job would import.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FirstMessage {
    /// What it is called across providers.
    pub key: MessageKey,
    /// Its subject.
    pub subject: Option<String>,
    /// When the mailbox got it.
    pub received: Timestamp,
}

impl FirstMessage {
    pub(super) fn new(key: MessageKey, subject: Option<String>, received: Timestamp) -> Self {
        Self { key, subject, received }
    }
}

impl Side {
    pub(super) fn of(account: &dyn MailAccount) -> Self {
        let mailbox = account.mailbox();
        Self {
            account: mailbox.account.clone(),
            provider: mailbox.provider.clone(),
            mailbox: mailbox.name.clone(),
            stable_ids: account.capabilities().stable_ids,
            folders: Vec::new(),
            first: Vec::new(),
            requests: 0,
        }
    }

    pub(super) fn counted(&mut self, key: &str, messages: usize, compared: usize) {
        if let Some(folder) = self.folders.iter_mut().find(|folder| folder.key == key) {
            folder.messages = Some(messages);
            folder.with_attachments_compared = Some(compared);
        }
    }
}

impl Rehearsal {
    pub(super) fn new(old: Side, new: Side) -> Self {
        Self { differences: Vec::new(), unproven: Vec::new(), old, new }
    }

    /// Whether nothing forbids the swap. What is [unproven](Self#structfield.unproven) does not.
    #[must_use]
    pub fn safe(&self) -> bool {
        self.differences.iter().all(|difference| difference.severity != Severity::Blocking)
    }

    pub(super) fn add(&mut self, severity: Severity, kind: DifferenceKind, detail: [String; 2]) {
        self.differences.push(Difference::new(severity, kind, detail));
    }

    pub(super) fn unproven(&mut self, kind: UnprovenKind, detail: [String; 2]) {
        self.unproven.push(Unproven::new(kind, detail));
    }

    pub(super) fn account_error(&mut self, kind: DifferenceKind, error: &Error) {
        let said = error.chain().to_string();
        self.add(Severity::Blocking, kind, [said.clone(), said]);
    }

    /// What an account gave; its error becomes a difference.
    pub(super) fn take<T>(&mut self, kind: DifferenceKind, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.account_error(kind, &error);
                None
            }
        }
    }

    pub(super) fn take_folders(&mut self, kind: DifferenceKind, result: Result<Found>) -> Option<Found> {
        let mut found = self.take(kind, result)?;
        for trouble in found.troubles.drain(..) {
            match trouble {
                Trouble::Difference(difference) => self.differences.push(difference),
                Trouble::Unproven(unproven) => self.unproven.push(unproven),
            }
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Language::{Dutch, English};

    /// Those that are ever blocking; the others need no remedy.
    const BLOCKING: [DifferenceKind; 13] = [
        DifferenceKind::OldAccountError,
        DifferenceKind::NewAccountError,
        DifferenceKind::FolderMissing,
        DifferenceKind::FolderUnusable,
        DifferenceKind::FolderReadOnly,
        DifferenceKind::OtherMailbox,
        DifferenceKind::NewLedger,
        DifferenceKind::MessageMissing,
        DifferenceKind::MessageExtra,
        DifferenceKind::MessageUnreadable,
        DifferenceKind::ContentDiffers,
        DifferenceKind::MessageDiffers,
        DifferenceKind::ReadStateDiffers,
    ];

    #[test]
    fn what_forbids_the_swap_has_a_remedy_in_both_languages() {
        for kind in BLOCKING {
            for language in [English, Dutch] {
                assert!(kind.remedy(language).ends_with('.') && !kind.text(language).is_empty(), "{kind:?}");
            }
            assert_ne!(kind.remedy(English), kind.remedy(Dutch));
            assert_ne!(kind.text(English), kind.text(Dutch));
        }
        assert!(DifferenceKind::StableIds.remedy(English).is_empty());
    }
}
