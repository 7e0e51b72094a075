//! Imports mail: takes every new message of a job's mailboxes, writes its attachments to disk, and moves it to the
//! processed folder.
//!
//! ```sh
//! cargo run --example import                  # a demo on a mailbox of its own
//! cargo run --example import -- --config mail.toml --job emailed-invoices --out invoices
//! ```

#[path = "support/demo.rs"]
mod demo;
mod support;

use std::{
    collections::HashMap,
    convert::Infallible,
    fs,
    io::{self, BufWriter, IsTerminal as _, Stdout, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use clap::Parser;
use futures::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::SignedDuration;
use mail_account::{
    Address, AttachmentKind, Delivered, Delivery, Error, ErrorKind, Handler, HandlerError, MailApp, Outcome, Result,
    import::{AccountReport, Event, Importer, JobReport, MessageRecord, Status},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

/// Imports the mail of a job; without arguments, a demo on a mailbox of its own.
#[derive(Parser)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE", requires = "job")]
    config: Option<PathBuf>,
    /// The job's name in it.
    #[arg(long, requires = "config")]
    job: Option<String>,
    /// Where attachments are written to; without it they are only read.
    #[arg(long, value_name = "DIR", requires = "config")]
    out: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// Run again and again, with this pause: 30s, 5m, 1h.
    #[arg(long, value_name = "PAUSE", requires = "config", conflicts_with = "json", value_parser = pause)]
    every: Option<Duration>,
    /// Hand over at most so many messages.
    #[arg(long, value_name = "N", requires = "config")]
    limit: Option<u64>,
}

fn pause(text: &str) -> Result<Duration, String> {
    let wrong = || "write a span of time of at least a second, such as 30s, 5m or 1h".to_owned();
    let pause: SignedDuration = text.parse().map_err(|_| wrong())?;
    let pause = Duration::try_from(pause).map_err(|_| wrong())?;
    if pause < Duration::from_secs(1) { Err(wrong()) } else { Ok(pause) }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Arguments = match support::arguments() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    }
    match import(&arguments).await {
        Ok(code) => code,
        Err(error) => support::fatal(arguments.json, &error),
    }
}

/// Everything that can stop the whole comes before the first word of the JSON document.
async fn import(arguments: &Arguments) -> Result<ExitCode> {
    let (app, job, out) = match (&arguments.config, &arguments.job) {
        (Some(config), Some(job)) => (MailApp::load(config)?, job.clone(), arguments.out.clone()),
        _ => {
            let (app, out) = demo::prepare().await?;
            (app, demo::JOB.to_owned(), Some(out))
        }
    };
    app.job(&job)?;
    if let Some(out) = &out {
        check_writable(out)?;
    }
    let importer = app.importer(&job).await?.with_limit(arguments.limit);

    let saved = Saved::default();
    let output = Arc::new(Output::new(arguments.json, importer.job().name.clone(), saved.clone()));
    let handler = Save { out: out.clone(), saved };
    let importer = importer.with_handler(handler).with_events({
        let output = Arc::clone(&output);
        move |event| output.event(event)
    });
    let stop = stop_on_signal();
    let Some(pause) = arguments.every else {
        let report = importer.run_all(stop).await?;
        output.finish(&report, out.as_deref());
        return Ok(exit_code(&report));
    };
    let running = again_and_again(&importer, pause, stop, &output, out.as_deref());
    tokio::select! {
        code = running => Ok(code),
        never = keep_sign_ins(&app) => match never {},
    }
}

/// Uses the sign-ins of accounts that no job has used for long, before the service forgets them.
#[cfg_attr(not(any(feature = "graph", feature = "imap")), allow(unused_variables, reason = "nobody signs in"))]
async fn keep_sign_ins(app: &MailApp) -> Infallible {
    loop {
        #[cfg(any(feature = "graph", feature = "imap"))]
        match app.refresh_idle().await {
            Ok(done) => {
                for error in done.iter().filter_map(|one| one.result.as_ref().err()) {
                    eprintln!("a sign-in was not renewed: {}", support::line(&error.chain().to_string()));
                }
            }
            Err(error) => eprintln!("sign-ins could not be renewed: {}", support::line(&error.chain().to_string())),
        }
        tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    }
}

async fn again_and_again(
    importer: &Importer,
    pause: Duration,
    stop: CancellationToken,
    output: &Output,
    out: Option<&Path>,
) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    importer
        .clone()
        .with_interval(pause)
        .run_every(stop, |report| match report {
            Ok(report) => {
                output.finish(&report, out);
                code = exit_code(&report);
            }
            // The state store may be back at the next run.
            Err(error) => code = support::fatal(false, &error),
        })
        .await;
    code
}

fn exit_code(report: &JobReport) -> ExitCode {
    ExitCode::from(match report {
        report if report.has_errors() => support::BROKEN,
        report if report.has_failures() => support::FAILED,
        _ => 0,
    })
}

/// Ends the run after the deliveries in hand at the first Ctrl-C, at once at the second. Either way the next run goes on
/// where this one ended.
fn stop_on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            eprintln!("stopping after the messages in hand; once more to stop at once");
            token.cancel();
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
    stop
}

/// Nothing is handed over when it could not be kept.
fn check_writable(out: &Path) -> Result<()> {
    let failed = |e: io::Error| {
        Error::new(ErrorKind::Storage, format!("cannot write to the output folder `{}`", out.display())).with_source(e)
    };
    fs::create_dir_all(out).map_err(failed)?;
    let probe = out.join(format!(".{}.part", std::process::id()));
    fs::write(&probe, b"x").and_then(|()| fs::remove_file(&probe)).map_err(failed)
}

/// What was read of each delivery's attachments, until its fate is told.
#[derive(Clone, Default)]
struct Saved(Arc<Mutex<HashMap<String, Vec<Value>>>>);

impl Saved {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Value>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host's part: keeps the attachments.
struct Save {
    out: Option<PathBuf>,
    saved: Saved,
}

#[async_trait]
impl Handler for Save {
    async fn handle(&self, mail: Delivery) -> Result<Outcome, HandlerError> {
        self.saved.lock().insert(mail.id().to_owned(), Vec::new());
        for file in mail.attachments() {
            let entry = self.keep(file).await?;
            if let Some(entries) = self.saved.lock().get_mut(mail.id()) {
                entries.push(entry);
            }
        }
        Ok(Outcome::Imported)
    }
}

impl Save {
    async fn keep(&self, file: &Delivered) -> Result<Value> {
        let (mut bytes, mut sha256, mut path) = (None, None, None);
        match &self.out {
            _ if file.kind == AttachmentKind::Link => {}
            Some(out) => {
                let saved = file.save_in(out).await?;
                (bytes, sha256) = (Some(saved.bytes), Some(hex(&saved.sha256)));
                path = Some(saved.path.display().to_string());
            }
            None => {
                let (mut hash, mut length) = (Sha256::new(), 0);
                let mut content = file.content().into_stream();
                while let Some(piece) = content.try_next().await? {
                    hash.update(&piece);
                    length += piece.len() as u64;
                }
                (bytes, sha256) = (Some(length), Some(hex(&hash.finalize())));
            }
        }
        Ok(json!({
            "name": file.name,
            "file_name": file.file_name(),
            "content_type": file.content_type,
            "kind": file.kind.as_str(),
            "inline": file.inline,
            "bytes": bytes,
            "sha256": sha256,
            "path": path,
        }))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the run tells: a progress bar and a table, or the JSON document, message by message.
struct Output {
    job: String,
    saved: Saved,
    bar: ProgressBar,
    document: Option<Mutex<Document>>,
}

/// Begun with the first thing there is to say, because until then an error may take its place.
struct Document {
    job: String,
    to: BufWriter<Stdout>,
    messages: u64,
}

impl Output {
    fn new(json: bool, job: String, saved: Saved) -> Self {
        let document = json.then(|| Mutex::new(Document::new(job.clone())));
        let bar = if io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{spinner} {elapsed_precise}  {pos} messages  {wide_msg}");
        bar.set_style(style.expect("a constant"));
        Self { job, saved, bar, document }
    }

    fn event(&self, event: &Event) {
        match event {
            Event::Message(record) => self.message(record),
            Event::Warning { account, message } => self.bar.suspend(|| eprintln!("warning: {account}: {message}")),
            _ => {}
        }
    }

    fn message(&self, record: &MessageRecord) {
        let attachments = record.delivery.as_ref().and_then(|id| self.saved.lock().remove(id)).unwrap_or_default();
        self.bar.inc(1);
        self.bar.set_message(support::cell(record.subject.as_deref().unwrap_or_default()));
        if let Some(document) = &self.document {
            document.lock().unwrap_or_else(PoisonError::into_inner).message(&message_json(record, attachments));
        }
    }

    fn finish(&self, report: &JobReport, out: Option<&Path>) {
        self.bar.finish_and_clear();
        match &self.document {
            Some(document) => document.lock().unwrap_or_else(PoisonError::into_inner).end(report),
            None => show(&self.job, report, out),
        }
        self.bar.reset();
    }
}

/// Nobody is left to tell when stdout is closed: the import itself goes on.
impl Document {
    fn new(job: String) -> Self {
        Self { job, to: BufWriter::new(io::stdout()), messages: 0 }
    }

    fn message(&mut self, message: &Value) {
        if self.messages == 0 {
            self.begin();
        }
        let separator = if self.messages == 0 { "\n" } else { ",\n" };
        let _ = write!(self.to, "{separator}{message}");
        self.messages += 1;
    }

    fn begin(&mut self) {
        let _ = write!(self.to, "{{\"job\":{},\"messages\":[", Value::from(self.job.as_str()));
    }

    fn end(&mut self, report: &JobReport) {
        if self.messages == 0 {
            self.begin();
        }
        let accounts: Value = report.accounts.iter().map(account_json).collect();
        let _ = writeln!(self.to, "\n],\"accounts\":{accounts}}}");
        let _ = self.to.flush();
    }
}

fn message_json(record: &MessageRecord, attachments: Vec<Value>) -> Value {
    let from = |from: &Address| json!({ "name": from.name, "address": from.address });
    json!({
        "account": record.account,
        "key": record.key.as_ref().map(|key| key.as_str()),
        "id": record.id.as_str(),
        "internet_message_id": record.internet_message_id,
        "subject": record.subject,
        "from": record.from.as_ref().map(from),
        "received": record.received.to_string(),
        "outcome": record.fate.as_str(),
        "reason": record.reason.as_ref().map(ToString::to_string),
        "attachments": attachments,
    })
}

fn account_json(account: &AccountReport) -> Value {
    let counts = &account.counts;
    json!({
        "account": account.account,
        "provider": account.provider,
        "mailbox": account.mailbox,
        "status": account.status.as_str(),
        "seen": counts.seen,
        "imported": counts.imported,
        "reimported": counts.reimported,
        "already_done": counts.already_done,
        "skipped": counts.skipped,
        "failed": counts.failed,
        "gone": counts.gone,
        "left": counts.left,
        "unmoved": counts.unmoved,
        "attachments": account.attachments,
        "bytes": account.bytes,
        "requests": account.requests,
        "error": account.error.as_ref().map(support::error_json),
    })
}

fn show(job: &str, report: &JobReport, out: Option<&Path>) {
    let head = [
        "Account",
        "Status",
        "Seen",
        "Imported",
        "Again",
        "Done before",
        "Skipped",
        "Failed",
        "Gone",
        "Left",
        "Unmoved",
        "Files",
        "Size",
    ];
    let mut table = support::table(head);
    for account in &report.accounts {
        let counts = &account.counts;
        let numbers = [
            counts.seen,
            counts.imported,
            counts.reimported,
            counts.already_done,
            counts.skipped,
            counts.failed,
            counts.gone,
            counts.left,
            counts.unmoved,
            account.attachments,
        ];
        let mut row = vec![account.account.clone(), account.status.as_str().to_owned()];
        row.extend(numbers.map(|n| n.to_string()));
        row.push(support::bytes(account.bytes));
        table.add_row(row);
    }
    println!("Job {job}\n{table}");
    if let Some(out) = out {
        println!("Files are in {}", out.display());
    }
    for account in &report.accounts {
        for failure in &account.failures {
            let subject = support::cell(failure.subject.as_deref().unwrap_or("(no subject)"));
            let reason = failure.reason.as_ref().map(ToString::to_string).unwrap_or_default();
            let again = if failure.will_retry { "; will be tried again" } else { "" };
            eprintln!("{}: {subject}: {}{again}", account.account, support::line(&reason));
        }
        if let Some(reason) = &account.stopped_by {
            eprintln!("{}: stopped: {}", account.account, support::line(&reason.to_string()));
        }
        if let (Status::Error, Some(error)) = (account.status, &account.error) {
            eprintln!("{}: {}", account.account, error.chain());
        }
    }
}
