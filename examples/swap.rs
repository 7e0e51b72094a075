//! Rehearses a swap: compares the mailbox as a job sees it through its account with what it would see through another,
//! and changes nothing.
//!
//! ```sh
//! cargo run --example swap -- --config mail.toml --job emailed-invoices --to invoices-graph
//! ```

mod support;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Parser;
use mail_account::{
    Error, ErrorKind, Language, MailAccount, MailApp, Result,
    check::StepId,
    swap::{self, Rehearsal, Severity, Side},
};
use serde_json::{Value, json};

/// Shows whether a job can go on with another account.
#[derive(Parser)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The job's name in it.
    #[arg(long)]
    job: String,
    /// The account that the job is to use.
    #[arg(long, value_name = "ACCOUNT")]
    to: String,
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
    let rehearsal = match rehearse(&arguments).await {
        Ok(rehearsal) => rehearsal,
        Err(error) => return support::fatal(arguments.json, &error),
    };
    if arguments.json {
        support::print_json(&as_json(&rehearsal));
    } else {
        show(&arguments, &rehearsal);
    }
    if rehearsal.safe() { ExitCode::SUCCESS } else { ExitCode::from(support::FAILED) }
}

async fn rehearse(arguments: &Arguments) -> Result<Rehearsal> {
    let app = MailApp::load(&arguments.config)?;
    let job = app.job(&arguments.job)?;
    let new = app.account(&arguments.to)?;
    let old = replaced(&app, &arguments.job, &*new)?;
    let ledger = app.ledger().await?;
    swap::rehearse(&*old, &*new, job, Some(&*ledger)).await
}

/// The account whose place the new one takes: the job's only one, or the one that reads the same mailbox.
fn replaced(app: &MailApp, job: &str, new: &dyn MailAccount) -> Result<Arc<dyn MailAccount>> {
    let new = new.mailbox();
    let names = app.accounts_of(job)?;
    if names.contains(&new.account) {
        let text =
            format!("job `{job}` uses the account `{}` already; name the one that is to take its place", new.account);
        return Err(Error::new(ErrorKind::InvalidConfig, text));
    }
    if let [only] = names {
        return app.account(only);
    }
    let same =
        |name: &&String| app.accounts().any(|a| a.name == **name && a.mailbox.is_some_and(|m| m.name == new.name));
    match names.iter().find(same) {
        Some(name) => app.account(name),
        None => Err(Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "job `{job}` has several accounts ({}), and none of them names the mailbox `{}`; set the `address` of the account `{}` to that of the one it is to replace",
                names.join(", "),
                new.name,
                new.account
            ),
        )),
    }
}

fn as_json(rehearsal: &Rehearsal) -> Value {
    let differences = rehearsal.differences.iter();
    let unproven = rehearsal.unproven.iter();
    json!({
        "safe": rehearsal.safe(),
        "differences": differences
            .map(|d| json!({ "severity": d.severity.as_str(), "kind": d.kind.as_str(), "detail": d.detail }))
            .collect::<Vec<_>>(),
        "unproven": unproven.map(|u| json!({ "kind": u.kind.as_str(), "detail": u.detail })).collect::<Vec<_>>(),
        "old": side_json(&rehearsal.old),
        "new": side_json(&rehearsal.new),
    })
}

fn side_json(side: &Side) -> Value {
    let folders = side.folders.iter().map(|folder| {
        json!({
            "key": folder.key,
            "path": folder.path,
            "messages": folder.messages,
            "attachments_compared": folder.with_attachments_compared,
        })
    });
    let first = side.first.iter().map(|message| {
        json!({
            "key": message.key.as_str(),
            "subject": message.subject,
            "received": message.received.to_string(),
        })
    });
    json!({
        "account": side.account,
        "provider": side.provider,
        "mailbox": side.mailbox,
        "requests": side.requests,
        "folders": folders.collect::<Vec<_>>(),
        "first": first.collect::<Vec<_>>(),
    })
}

fn show(arguments: &Arguments, rehearsal: &Rehearsal) {
    let language = support::language();
    let say = |english: &'static str, dutch: &'static str| if language == Language::Dutch { dutch } else { english };
    let (old, new) = (&rehearsal.old, &rehearsal.new);
    let mut table = support::table(["", &old.account, &new.account]);
    table.add_row([say("Provider", "Soort"), &old.provider, &new.provider]);
    table.add_row([say("Mailbox", "Postvak"), &old.mailbox, &new.mailbox]);
    let folders = [
        ("import_folder", StepId::ImportFolder),
        ("processed_folder", StepId::ProcessedFolder),
        ("failed_folder", StepId::FailedFolder),
    ];
    for (key, label) in folders {
        let cells = [old, new].map(|side| {
            let folder = side.folders.iter().find(|folder| folder.key == key)?;
            let path = support::cell(&folder.path);
            Some(match folder.messages {
                Some(messages) => format!("✓ {path}, {messages} {}", say("messages", "berichten")),
                None => format!("✓ {path}"),
            })
        });
        if cells.iter().any(Option::is_some) {
            let [old, new] = cells.map(|cell| cell.unwrap_or_else(|| "✗".to_owned()));
            table.add_row([label.text(language), &old, &new]);
        }
    }
    println!("{} {}\n{table}", say("Job", "Taak"), arguments.job);
    for difference in &rehearsal.differences {
        let mark = match difference.severity {
            Severity::Blocking => "✗",
            Severity::Conversion => "~",
            _ => "·",
        };
        println!("{mark} {}: {}", difference.kind.text(language), support::line(difference.detail_in(language)));
    }
    for unproven in &rehearsal.unproven {
        println!("? {}: {}", unproven.kind.text(language), support::line(unproven.detail_in(language)));
    }
    if !new.first.is_empty() {
        println!("`{}` {}:", new.account, say("would import first", "zou als eerste importeren"));
        for message in &new.first {
            let subject = support::cell(message.subject.as_deref().unwrap_or(say("(no subject)", "(geen onderwerp)")));
            println!("  {}  {subject}", message.received.strftime("%F %T"));
        }
    }
    if rehearsal.safe() {
        let place = format!("`{}` → `{}`, `jobs.{}.accounts`", old.account, new.account, arguments.job);
        println!(
            "✓ {} {place}",
            say(
                "Safe. Put the new account in the place of the old one; the ledger stays:",
                "Veilig. Zet het nieuwe account op de plaats van het oude; het logboek blijft:"
            )
        );
        return;
    }
    println!(
        "✗ {}",
        say(
            "Not safe. Do what follows and rehearse again; until then leave the job as it is.",
            "Niet veilig. Doe wat volgt en repeteer opnieuw; laat de taak tot dan zoals die is."
        )
    );
    let blocking = rehearsal.differences.iter().filter(|d| d.severity == Severity::Blocking);
    let mut remedies: Vec<_> = blocking.map(|d| d.kind.remedy(language)).filter(|remedy| !remedy.is_empty()).collect();
    remedies.dedup();
    for remedy in remedies {
        println!("  - {remedy}");
    }
}
