//! IMAP as bytes: what a server may send, and what we send.
//!
//! | file | what it holds |
//! |---|---|
//! | `reader.rs` | responses, one by one, with their literals as streams; every cap lives there |
//! | `token.rs` | a response as values, without what cannot be read |
//! | `status.rs`, `response.rs`, `fetch.rs`, `structure.rs` | what the values mean |
//! | `encode.rs`, `uidset.rs` | commands |
//! | `date.rs` | the odd encoding of times; that of folder names is `folder/utf7.rs` |
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
