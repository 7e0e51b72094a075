//! What a job is: folders and policy.

use std::time::Duration;

use jiff::Timestamp;

use crate::FolderSpec;

/// From when on messages are imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Since {
    /// Everything that is in the folder.
    #[default]
    All,
    /// What arrives after the job's first run on the mailbox.
    Now,
    /// What was received then or later.
    Date(Timestamp),
}

/// One import job: which folders, and what to do with what.
///
/// ```
/// use mail_account::ImportJob;
/// let job = ImportJob::new("emailed-invoices", "Inbox".parse()?)
///     .with_processed_folder("Inbox/Processed".parse()?)
///     .with_create_folders(true);
/// assert_eq!(job.max_attempts, 3);
/// # Ok::<(), mail_account::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImportJob {
    /// The job's name: half of the ledger's scope.
    pub name: String,
    /// Where new messages are.
    pub import_folder: FolderSpec,
    /// Where they go once imported or skipped. Without one they stay, and the ledger remembers.
    pub processed_folder: Option<FolderSpec>,
    /// Where they go once failed. Without one they stay, known to the ledger.
    pub failed_folder: Option<FolderSpec>,
    /// Whether to create the processed and the failed folder.
    pub create_folders: bool,
    /// Only messages nobody has read.
    pub unread_only: bool,
    /// From when on.
    pub since: Since,
    /// How often a message is handed over before it counts as failed. Default 3.
    pub max_attempts: u32,
    /// How many messages of one mailbox are handed over at the same time. Default 4.
    pub handler_concurrency: usize,
    /// Time between two runs. Default 5 minutes.
    pub interval: Duration,
    /// Accepts mailboxes that have no rows yet although the ledger holds one that no account names.
    pub ledger_new: bool,
    /// Headers that the handler wants to see.
    pub headers: Vec<String>,
    /// Whether the handler wants the text.
    pub text: bool,
    /// Bytes of attachments kept ready ahead of the handler. Default 16 MiB.
    pub prefetch_bytes: u64,
}

impl ImportJob {
    /// A job with the defaults of the configuration file.
    pub fn new(name: impl Into<String>, import_folder: FolderSpec) -> Self {
        Self {
            name: name.into(),
            import_folder,
            processed_folder: None,
            failed_folder: None,
            create_folders: false,
            unread_only: false,
            since: Since::All,
            max_attempts: 3,
            handler_concurrency: 4,
            interval: Duration::from_secs(300),
            ledger_new: false,
            headers: Vec::new(),
            text: false,
            prefetch_bytes: 16 << 20,
        }
    }

    /// Sets [`processed_folder`](Self::processed_folder).
    #[must_use]
    pub fn with_processed_folder(mut self, folder: FolderSpec) -> Self {
        self.processed_folder = Some(folder);
        self
    }

    /// Sets [`failed_folder`](Self::failed_folder).
    #[must_use]
    pub fn with_failed_folder(mut self, folder: FolderSpec) -> Self {
        self.failed_folder = Some(folder);
        self
    }

    /// Sets [`create_folders`](Self::create_folders).
    #[must_use]
    pub fn with_create_folders(mut self, create: bool) -> Self {
        self.create_folders = create;
        self
    }

    /// Sets [`unread_only`](Self::unread_only).
    #[must_use]
    pub fn with_unread_only(mut self, unread_only: bool) -> Self {
        self.unread_only = unread_only;
        self
    }

    /// Sets [`since`](Self::since).
    #[must_use]
    pub fn with_since(mut self, since: Since) -> Self {
        self.since = since;
        self
    }

    /// Sets [`max_attempts`](Self::max_attempts); at least 1.
    #[must_use]
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// Sets [`handler_concurrency`](Self::handler_concurrency); at least 1.
    #[must_use]
    pub fn with_handler_concurrency(mut self, concurrency: usize) -> Self {
        self.handler_concurrency = concurrency.max(1);
        self
    }

    /// Sets [`interval`](Self::interval).
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets [`ledger_new`](Self::ledger_new).
    #[must_use]
    pub fn with_ledger_new(mut self, accept: bool) -> Self {
        self.ledger_new = accept;
        self
    }

    /// Sets [`headers`](Self::headers).
    #[must_use]
    pub fn with_headers<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.headers = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`text`](Self::text).
    #[must_use]
    pub fn with_text(mut self, text: bool) -> Self {
        self.text = text;
        self
    }

    /// Sets [`prefetch_bytes`](Self::prefetch_bytes).
    #[must_use]
    pub fn with_prefetch_bytes(mut self, bytes: u64) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// Whether a run makes this folder when it is not there. Only a path says what to make.
    pub(crate) fn creates(&self, folder: &FolderSpec) -> bool {
        self.create_folders && matches!(folder, FolderSpec::Path(_))
    }
}
