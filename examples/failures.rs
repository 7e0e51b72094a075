//! Shows the messages of a job that failed, and why; and has them tried again.
//!
//! ```sh
//! cargo run --example failures -- --config mail.toml --job emailed-invoices --lang nl
//! cargo run --example failures -- --config mail.toml --job emailed-invoices --retry-all
//! ```

mod support;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use mail_account::{
    Error, ErrorKind, Language, MailApp, MessageKey, Result, Scope,
    store::{Find, Recorded, Row},
};
use serde_json::{Value, json};

/// Shows the messages that failed, and has them tried again.
#[derive(Parser)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The job's name in it.
    #[arg(long)]
    job: String,
    /// Have the message with this key tried again in the next run.
    #[arg(long, value_name = "KEY", conflicts_with = "retry_all")]
    retry: Option<MessageKey>,
    /// Have all of them tried again in the next run.
    #[arg(long)]
    retry_all: bool,
    /// The language of the reasons: en or nl.
    #[arg(long, default_value = "en", value_name = "LANGUAGE")]
    lang: Language,
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
    match failures(&arguments).await {
        Ok(rows) if arguments.json => {
            support::print_json(&rows.iter().map(|row| as_json(row, arguments.lang)).collect())
        }
        Ok(rows) => show(&rows, arguments.lang),
        Err(error) => return support::fatal(arguments.json, &error),
    }
    ExitCode::SUCCESS
}

async fn failures(arguments: &Arguments) -> Result<Vec<Row>> {
    let app = MailApp::load(&arguments.config)?;
    let job = &app.job(&arguments.job)?.name;
    let ledger = app.ledger().await?;
    if arguments.retry.is_some() || arguments.retry_all {
        let queued = ledger.retry(job, arguments.retry.as_ref()).await?;
        if let (0, Some(key)) = (queued, &arguments.retry) {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no message of job `{job}` that failed has the key `{key}`; without `--retry` they are listed"),
            ));
        }
        eprintln!("{queued} queued for the next run");
    }
    let mut rows = Vec::new();
    for mailbox in ledger.mailboxes(job).await? {
        rows.extend(ledger.find(&Scope::new(job, mailbox), Find::Failures).await?);
    }
    Ok(rows)
}

fn as_json(row: &Row, language: Language) -> Value {
    json!({
        "key": row.key.as_str(),
        "account": row.account,
        "subject": row.subject,
        "reason": row.reason.as_ref().map(|reason| reason.text(language)),
        "code": row.reason.as_ref().map(|reason| reason.code()),
        "attempts": row.attempts,
        "last_attempt": row.last_attempt.map(|at| at.to_string()),
        "state": state(row),
    })
}

/// `queued`: somebody asked for another try; `failed`: nothing more is tried; `waiting`: will be tried again.
fn state(row: &Row) -> &'static str {
    match row.outcome {
        _ if row.retry => "queued",
        Some(Recorded::Failed) => "failed",
        _ => "waiting",
    }
}

fn show(rows: &[Row], language: Language) {
    if rows.is_empty() {
        println!("Nothing has failed.");
        return;
    }
    let mut table = support::table(["Key", "Account", "Subject", "Reason", "Attempts", "Last attempt", "State"]);
    for row in rows {
        table.add_row([
            row.key.to_string(),
            row.account.clone(),
            support::cell(row.subject.as_deref().unwrap_or_default()),
            support::line(row.reason.as_ref().map_or("", |reason| reason.text(language))),
            row.attempts.to_string(),
            row.last_attempt.map(|at| at.strftime("%F %T").to_string()).unwrap_or_default(),
            state(row).to_owned(),
        ]);
    }
    println!("{table}");
}
