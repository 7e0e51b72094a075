//! Test Connection: shows step by step whether an account works, for a job or as such, and what to do if not. Changes
//! nothing.
//!
//! ```sh
//! cargo run --example check -- --config mail.toml --account invoices-graph --job emailed-invoices --lang nl
//! ```

mod support;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use mail_account::{
    Language, MailApp, Result,
    check::{Report, Step, StepStatus, Who},
};
use serde_json::{Value, json};

/// Tests an account.
#[derive(Parser)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The account's name in it.
    #[arg(long)]
    account: String,
    /// The name of the job that is to use it.
    #[arg(long)]
    job: Option<String>,
    /// The language of the messages: en or nl.
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
    let (app, report) = match check(&arguments).await {
        Ok(checked) => checked,
        Err(error) => return support::fatal(arguments.json, &error),
    };
    if arguments.json {
        support::print_json(&as_json(&report, arguments.lang));
    } else {
        show(&report, arguments.lang);
        warn(&app, &arguments);
    }
    if report.ok() { ExitCode::SUCCESS } else { ExitCode::from(support::FAILED) }
}

async fn check(arguments: &Arguments) -> Result<(MailApp, Report)> {
    let app = MailApp::load(&arguments.config)?;
    let report = app.check(&arguments.account, arguments.job.as_deref()).await?;
    Ok((app, report))
}

fn as_json(report: &Report, language: Language) -> Value {
    let steps = report.steps.iter().map(|step| {
        json!({
            "step": step.step.as_str(),
            "status": step.status.as_str(),
            "cause": step.cause.map(|cause| cause.code()),
            "who": step.who().map(Who::as_str),
            "message": Some(step.message(language)).filter(|message| !message.is_empty()),
            "evidence": step.evidence.as_ref().map(|evidence| json!({
                "text": evidence.text,
                "code": evidence.code,
                "request_ids": evidence.request_ids,
            })),
        })
    });
    json!({ "account": report.account, "ok": report.ok(), "steps": steps.collect::<Vec<_>>() })
}

fn show(report: &Report, language: Language) {
    let [step, cause, who] = match language {
        Language::Dutch => ["Stap", "Oorzaak", "Wie"],
        _ => ["Step", "Cause", "Who"],
    };
    let mut table = support::table(["", step, cause, who]);
    for step in &report.steps {
        table.add_row([
            mark(step),
            step.step.text(language),
            step.cause.map_or("", |cause| cause.code()),
            step.who().map_or("", |who| who.text(language)),
        ]);
    }
    println!("{}\n{table}", report.account);
    for step in report.steps.iter().filter(|step| step.status != StepStatus::Skipped) {
        let message = step.message(language);
        if !message.is_empty() {
            println!("\n{} {}\n{}", mark(step), step.step.text(language), support::line(message));
        }
    }
    let verdict = match (report.ok(), language) {
        (true, Language::Dutch) => "✓ Dit account werkt.",
        (true, _) => "✓ This account works.",
        (false, Language::Dutch) => "✗ Dit account werkt nog niet.",
        (false, _) => "✗ This account does not work yet.",
    };
    println!("\n{verdict}");
}

/// What the account's service has ended.
fn warn(app: &MailApp, arguments: &Arguments) {
    let mut retiring = app.retiring().into_iter();
    if let Some(account) = retiring.find(|account| account.account == arguments.account.trim()) {
        println!("! {}", account.retirement.text(arguments.lang));
    }
}

fn mark(step: &Step) -> &'static str {
    match step.status {
        StepStatus::Ok => "✓",
        StepStatus::Failed => "✗",
        StepStatus::Unproven => "?",
        _ => "-",
    }
}
