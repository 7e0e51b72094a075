//! For the tests of hosts and of other providers (feature `testing`).

pub mod graph;
