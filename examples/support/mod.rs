//! What the examples share: arguments, errors and exit codes, a table.

#![allow(dead_code, reason = "each example uses a part of it")]

use std::{ffi::OsString, fmt::Display, io::Write as _, process::ExitCode};

use clap::{Parser, error::ErrorKind as ClapKind};
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use mail_account::{Error, ErrorKind, Language};
use serde_json::{Value, json};

/// Something an account met, or a message that failed.
pub(crate) const FAILED: u8 = 1;
/// The configuration is bad, or an account has an error.
pub(crate) const BROKEN: u8 = 2;

/// Reads the command line; what to exit with when it is not to be followed.
pub(crate) fn arguments<A: Parser>() -> Result<A, ExitCode> {
    let line: Vec<OsString> = std::env::args_os().collect();
    A::try_parse_from(&line).map_err(|error| match error.kind() {
        ClapKind::DisplayHelp | ClapKind::DisplayVersion => {
            print!("{error}");
            ExitCode::SUCCESS
        }
        _ if line.iter().any(|word| word == "--json") => {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let first = text.split("\n\n").next().unwrap_or(text).split_whitespace().collect::<Vec<_>>().join(" ");
            fatal(true, &Error::new(ErrorKind::InvalidConfig, format!("the command line is wrong: {first}")))
        }
        _ => {
            eprint!("{error}");
            ExitCode::from(BROKEN)
        }
    })
}

/// Tells an error that stops everything: as the only document on stdout, or to a person.
pub(crate) fn fatal(json: bool, error: &Error) -> ExitCode {
    if json {
        print_json(&json!({ "error": error_json(error) }));
    } else {
        eprintln!("error: {}", error.chain());
    }
    ExitCode::from(BROKEN)
}

pub(crate) fn error_json(error: &Error) -> Value {
    json!({ "kind": error.kind().as_str(), "message": error.chain().to_string() })
}

/// One JSON document. Nobody is left to tell when stdout is closed.
pub(crate) fn print_json(document: &Value) {
    let _ = writeln!(std::io::stdout().lock(), "{document:#}");
}

pub(crate) fn table<S: Display>(head: impl IntoIterator<Item = S>) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(head.into_iter().map(|name| name.to_string()));
    // On a terminal, long texts go on in the next line of their cell.
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// A text that may quote a mail or a server: no line breaks, no escape sequences for the terminal.
pub(crate) fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Such a text in one cell, not too long.
pub(crate) fn cell(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut clean: String = line(text).chars().take(LONGEST + 1).collect();
    if clean.chars().count() > LONGEST {
        clean.pop();
        clean.push('…');
    }
    clean
}

/// A number of bytes for people.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        _ => format!("{:.1} MB", n as f64 / 1e6),
    }
}

/// The language of whoever sits at the terminal, where the command line does not say.
pub(crate) fn language() -> Language {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().find_map(set).unwrap_or_default();
    if locale.starts_with("nl") { Language::Dutch } else { Language::English }
}
