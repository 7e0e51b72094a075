//! What an account has cost.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Usage;

#[derive(Debug, Default)]
pub(crate) struct Counters {
    commands: AtomicU64,
    throttled: AtomicU64,
}

impl Counters {
    pub(crate) fn command(&self) {
        self.commands.fetch_add(1, Relaxed);
    }

    pub(crate) fn throttled(&self) {
        self.throttled.fetch_add(1, Relaxed);
    }

    pub(crate) fn usage(&self) -> Usage {
        let commands = self.commands.load(Relaxed);
        Usage::new(commands, commands, self.throttled.load(Relaxed))
    }
}
