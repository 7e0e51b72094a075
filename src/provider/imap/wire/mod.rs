//! IMAP as bytes: what a server may send, and what we send.
//!
//! - `reader` frames responses and streams literals; every cap lives there.
//! - `token` turns a response into values, and skips what cannot be read.
//! - `status`, `response`, `fetch`, `structure` give the values their meaning.
//! - `encode` and `uidset` write commands; `utf7` and `date` are the two odd encodings.
//!
//! Nothing here knows what a mailbox is for, and nothing here does I/O but the reader. Servers are read as they
//! are, not as the standard says: an item that makes no sense is dropped, never the line it stands in, and never
//! the UID beside it.

pub(crate) mod date;
pub(crate) mod encode;
pub(crate) mod fetch;
pub(crate) mod reader;
pub(crate) mod response;
pub(crate) mod status;
pub(crate) mod structure;
pub(crate) mod token;
pub(crate) mod uidset;
pub(crate) use crate::folder::utf7;
