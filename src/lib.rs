//! Import mail from Microsoft Graph, IMAP or a Maildir, through one interface, and lose nothing.

pub mod account;
pub mod attachment;
pub mod auth;
pub mod config;
pub mod context;
pub mod error;
pub mod folder;
pub mod import;
pub mod message;
mod mime;
#[cfg(feature = "oauth")]
mod net;
pub mod provider;
pub mod secret;
pub mod setting;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use account::{Access, Capabilities, MailAccount, MailboxInfo, MoveOutcome, Query, Usage};
pub use attachment::{Attachment, AttachmentId, AttachmentKind, Content};
pub use config::MailApp;
pub use context::{Clock, Context, Patience, Random};
pub use error::{Error, ErrorKind, Result};
pub use folder::{Folder, FolderId, FolderSpec, Role};
pub use import::{
    AccountReport, Delivered, Delivery, Digest, Event, Fate, Handler, HandlerError, ImportJob, Importer, JobAccount,
    JobReport, Language, MessageKey, Outcome, Reason, RunError, SavedFile, Since, Status, handler_fn,
};
pub use message::{Address, Defect, Hints, Message, MessageId};
pub use secret::{Secret, SecretSource};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use store::SqlStore;
pub use store::{Ledger, Scope};
