//! Import mail from Microsoft Graph, IMAP or a Maildir, through one interface: lose nothing, import nothing twice.
//!
//! A job is written once. Which mailbox it reads is a line of configuration; swapping that line for another provider
//! loses nothing and repeats nothing, because the memory of what was done hangs on the mailbox, not on the way to it.
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # #[tokio::main]
//! # async fn main() -> mail_account::Result<()> {
//! use mail_account::{Delivery, MailApp, Outcome, handler_fn};
//!
//! let config = r#"
//!     [accounts.invoices]
//!     provider = "memory"
//!     mailbox = "facturen@contoso.example"
//!
//!     [jobs.emailed-invoices]
//!     accounts = ["invoices"]
//!     import_folder = "Inbox"
//!     processed_folder = "Inbox/Processed"
//!     create_folders = true
//! "#;
//! # let folder = tempfile::tempdir().expect("a folder");
//! # let folder = folder.path();
//! let app = MailApp::from_str(config, folder)?; // or MailApp::load("mail.toml")
//!
//! let report = app
//!     .importer("emailed-invoices")
//!     .await?
//!     .run(handler_fn(|mail: Delivery| async move {
//!         for file in mail.attachments() {
//!             file.save_in("out").await?;
//!         }
//!         Ok(Outcome::Imported)
//!     }))
//!     .await?;
//! assert!(!report.has_errors() && report.counts().closes());
//! # Ok(()) }
//! # #[cfg(not(feature = "sqlite"))]
//! # fn main() {}
//! ```
//!
//! # The nouns
//!
//! | word | what it is | where |
//! |---|---|---|
//! | account | a named way to reach one mailbox: provider, credentials, mailbox | [`MailAccount`] |
//! | message | envelope and attachments, content fetched when asked for | [`Message`], [`Attachment`], [`Content`] |
//! | folder | found by path, role or id, whatever the language of the mailbox | [`Folder`], [`FolderSpec`] |
//! | job | accounts, folders and policy | [`ImportJob`] |
//! | delivery | one hand-over of one message to your code | [`Delivery`], [`Handler`], [`Outcome`] |
//! | ledger | the durable memory of what each job did with each message | [`Ledger`], [`SqlStore`] |
//! | report | what a run did: counts that must close, reasons for what failed | [`JobReport`], [`Reason`] |
//! | sign-in | a person's, made once and kept sealed; jobs run on it from then on | [`auth`], [`store::TokenStore`] |
//! | state | how an account fares, as its last runs have met it | [`watch::AccountState`] |
//! | cause | why something does not work, who repairs it, and how | [`check::Cause`] |
//! | rehearsal | what a swap to another account would change, found before it is made | [`swap::Rehearsal`] |
//! | error | named for what you can do about it | [`Error`], [`ErrorKind`] |
//!
//! Data flows one way: config, account, importer, handler, move. [`MailApp`] puts the parts together from a file; each
//! can be used without it: an [`Importer`] on any accounts and ledger, or just an `Arc<dyn MailAccount>`.
//!
//! # Providers
//!
//! | name | reads | module |
//! |---|---|---|
//! | `maildir` | a Maildir on disk | [`provider::maildir`] |
//! | `memory` | a mailbox in memory, with faults on demand | [`provider::memory`] |
//! | `imap` | an IMAP server (feature `imap`) | [`provider::imap`] |
//! | `graph` | Microsoft 365 over Graph (feature `graph`) | [`provider::graph`] |
//!
//! A provider of your own implements [`MailAccount`] and [`ProviderConfig`](provider::ProviderConfig); see
//! [`Registry`](config::Registry).
//!
//! # Features
//!
//! Default: `graph`, `imap`, `sqlite` (ledger, sign-ins and states in a file). Others: `postgres` (the same in
//! PostgreSQL), `certificate` (sign-in of an app with a certificate), `testing` (the conformance list, and fakes). A
//! feature brings dependencies and never changes what something else does; the settings of every provider are read and
//! checked in every build.
//!
//! # Where next
//!
//! - [`config`]: what stops what, and [`MailApp`]
//! - [`import`]: the guarantee, and [`Importer`]
//! - [`auth`]: how an app or a person signs in
//! - [`check`]: Test Connection, and [`MailApp::check`]
//! - [`watch`]: how accounts fare, and when their secrets run out
//! - [`swap`]: the rehearsal before a job goes on with another account
//! - [`account`]: the contract that every provider keeps
//! - `examples/import.rs`: a whole program; `authorize.rs` and `web_callback.rs`: signing in
//! - [`_design`]: why it is built as it is

pub mod account;
pub mod attachment;
pub mod auth;
pub mod check;
pub mod config;
pub mod context;
pub mod error;
pub mod folder;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod import;
pub mod message;
mod mime;
#[cfg(feature = "oauth")]
#[cfg_attr(not(feature = "graph"), allow(dead_code, unused_imports, reason = "sign-in alone needs less than Graph"))]
mod net;
pub mod provider;
pub mod secret;
pub mod setting;
pub mod store;
pub mod swap;
#[cfg(feature = "testing")]
pub mod testing;
pub mod watch;

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

#[doc = include_str!("../DESIGN.md")]
#[cfg(doc)]
pub mod _design {}

/// Compiles the example that the README begins with.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
pub mod readme {}
