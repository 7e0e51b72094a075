//! The importer: config -> account -> importer -> handler -> move.

mod handler;
mod identity;
mod job;
mod reason;

pub use handler::{Delivered, Delivery, Earlier, Handler, HandlerError, HandlerFn, Outcome, SavedFile, handler_fn};
pub use identity::{Digest, MessageKey};
pub use job::{ImportJob, Since};
pub use reason::{Language, Reason};
