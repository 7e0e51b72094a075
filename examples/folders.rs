//! Shows the folders of a configured account: the whole tree, with roles and counts.
//!
//! ```sh
//! cargo run --example folders -- --config mail.toml --account invoices
//! ```

mod support;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use mail_account::{Folder, MailApp, Result};
use serde_json::{Value, json};

/// Shows the folders of an account.
#[derive(Parser)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The account's name in it.
    #[arg(long)]
    account: String,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Arguments = match support::arguments() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match folders(&arguments).await {
        Ok(folders) if arguments.json => support::print_json(&folders.iter().map(as_json).collect()),
        Ok(folders) => show(&folders),
        Err(error) => return support::fatal(arguments.json, &error),
    }
    ExitCode::SUCCESS
}

async fn folders(arguments: &Arguments) -> Result<Vec<Folder>> {
    MailApp::load(&arguments.config)?.account(&arguments.account)?.list_folders().await
}

fn as_json(folder: &Folder) -> Value {
    json!({
        "path": folder.path(),
        "role": folder.role.map(|role| role.as_str()),
        "id": folder.id.as_str(),
        "messages": folder.messages,
        "unread": folder.unread,
        "hidden": folder.hidden,
        "search": folder.search,
    })
}

fn show(folders: &[Folder]) {
    let mut table = support::table(["Folder", "Role", "Messages", "Unread", ""]);
    let count = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
    for folder in folders {
        let notes = [(folder.hidden, "hidden"), (folder.search, "search"), (!folder.selectable, "holds no messages")];
        let notes: Vec<_> = notes.into_iter().filter_map(|(is, note)| is.then_some(note)).collect();
        table.add_row([
            support::cell(&folder.path()),
            folder.role.map(|role| role.to_string()).unwrap_or_default(),
            count(folder.messages),
            count(folder.unread),
            notes.join(", "),
        ]);
    }
    println!("{table}");
}
