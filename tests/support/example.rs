//! The examples as programs.

use std::{path::PathBuf, process::Command, sync::OnceLock};

/// An example. `cargo test` builds them all, but `cargo test --test examples` does not, so they are built here; where
/// nothing has changed that takes a moment.
pub(crate) fn example(name: &str) -> Command {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(build_examples);
    let mut command = Command::new(folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)));
    command.env_remove("RUST_LOG");
    command
}

fn build_examples() -> PathBuf {
    // target/<profile>/deps/<this test>
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let features = [
        ("graph", cfg!(feature = "graph")),
        ("imap", cfg!(feature = "imap")),
        ("sqlite", cfg!(feature = "sqlite")),
        ("postgres", cfg!(feature = "postgres")),
        ("certificate", cfg!(feature = "certificate")),
        ("testing", cfg!(feature = "testing")),
    ];
    let features: Vec<_> = features.into_iter().filter_map(|(name, on)| on.then_some(name)).collect();
    let defaults = ["graph", "imap", "sqlite"].iter().all(|default| features.contains(default));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--examples", "--features"]);
    cargo.arg(features.join(",")).arg("--target-dir").arg(profile.parent().unwrap());
    // The same features as this test has, so that nothing is built twice.
    if !defaults {
        cargo.arg("--no-default-features");
    }
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let built = cargo.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    profile.join("examples")
}
