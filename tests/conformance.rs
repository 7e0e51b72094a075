//! Every provider against the same list of checks. A check that a provider cannot make is shown as ignored, with the
//! reason in front of its name.
//!
//! A provider is one line in `main` and one file in `support/`.

mod support;

use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use mail_account::testing::conformance::{Harness, checks};

fn main() {
    let mut arguments = Arguments::from_args();
    // Servers and disks are shared by all checks; more threads than this only make each of them slower.
    arguments.test_threads.get_or_insert(4);
    let mut trials = Vec::new();
    trials.extend(trials_of("maildir", support::maildir::MaildirHarness::new().expect("a temporary folder")));
    trials.extend(trials_of("memory", support::memory::MemoryHarness::new()));
    trials.extend(trials_of("memory_stable", support::memory::MemoryHarness::with_stable_ids()));
    trials.extend(trials_of("memory_copying", support::memory::MemoryHarness::that_only_copies()));
    #[cfg(feature = "imap")]
    {
        trials.extend(trials_of("imap", support::imap::ImapHarness::new()));
        let copying = support::imap::ImapHarness::announcing("IMAP4rev1 UIDPLUS NAMESPACE LITERAL-");
        trials.extend(trials_of("imap_without_move", copying));
    }
    #[cfg(feature = "graph")]
    trials.extend(trials_of("graph", support::graph::GraphHarness::new()));
    libtest_mimic::run(&arguments, trials).exit();
}

/// The whole list for one provider, as `provider::check`.
fn trials_of(provider: &'static str, harness: impl Harness + 'static) -> Vec<Trial> {
    let harness: Arc<dyn Harness> = Arc::new(harness);
    let trial = |check: &'static mail_account::testing::conformance::Check| {
        let missing = check.missing(&*harness);
        let harness = Arc::clone(&harness);
        let trial = Trial::test(format!("{provider}::{}", check.name()), move || {
            // A runtime of its own: no connection outlives its check.
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(check.run(&*harness)).map_err(Into::into)
        });
        match missing {
            Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
            None => trial,
        }
    };
    checks().iter().map(trial).collect()
}
