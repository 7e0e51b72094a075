//! The providers: one folder each, with the same rooms.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | the public account type and a trait impl that only forwards |
//! | `config.rs` | the settings as they stand in the configuration file, and `open` |
//! | `client.rs`, `session.rs` or `disk.rs` | one function per remote call |
//! | `wire.rs` | the service's shapes and their conversion |
//!
//! A new provider is a folder here, its line below, one line in the table of `config/registry.rs`, and one line in
//! `tests/conformance.rs`.
