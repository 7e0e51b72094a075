//! The same job on a Maildir and on Microsoft Graph, with equal results; and a swap from one to the other half-way.
//!
//! ```sh
//! cargo run --example swap_demo --features testing
//! ```
//!
//! Both mailboxes hold the mails of `examples/data`. Graph is the fake of this crate, which renders messages anew as
//! Exchange does. Ends with 1 if the results differ, the rehearsal finds the swap not safe, or a message is handed over
//! twice or not at all.

#[path = "support/demo.rs"]
mod demo;
mod support;

use std::{
    collections::BTreeMap,
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use clap::Parser;
use futures::TryStreamExt as _;
use mail_account::{
    Address, AttachmentId, AttachmentKind, Delivered, Delivery, Error, ErrorKind, FolderSpec, HandlerError,
    MailAccount as _, MailApp, Outcome, Query, Result, handler_fn,
    provider::maildir::{MaildirAccount, MaildirConfig},
    swap::{self, Rehearsal},
    testing::graph::{GraphFake, Mailbox},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Runs one job over two providers, and swaps them half-way.
#[derive(Parser)]
struct Arguments {
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

const ADDRESS: &str = "facturen@leverancierdemo.example";
const SECRET: &str = "a-secret-of-the-fake";
const JOB: &str = "invoices";
const FOLDERS: [&str; 3] = ["Inbox", "Inbox/Processed", "Inbox/Failed"];

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Arguments = match support::arguments() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let (both, swapped) = match demonstrate().await {
        Ok(shown) => shown,
        Err(error) => return support::fatal(arguments.json, &error),
    };
    if arguments.json {
        let messages: Vec<_> = both.iter().map(Pair::as_json).collect();
        let equal = both.iter().all(Pair::is_equal);
        support::print_json(&json!({ "equal": equal, "messages": messages, "swap": swapped.as_json() }));
    } else {
        show(&both, &swapped);
    }
    if both.iter().all(Pair::is_equal) && swapped.is_right() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(support::FAILED)
    }
}

async fn demonstrate() -> Result<(Vec<Pair>, Swapped)> {
    let mails = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join("data");
    // The whole job on either, each with a ledger of its own.
    let (maildir, graph) = (Stage::new(&mails).await?, Stage::new(&mails).await?);
    graph.migrate().await?;
    let one = maildir.import("old", None).await?;
    let other = graph.import("new", None).await?;

    // Half of it, the mailbox moves to Exchange as it is, the line is swapped, and the job goes on.
    let stage = Stage::new(&mails).await?;
    let before = stage.import("old", Some(one.len() as u64 / 2)).await?;
    stage.migrate().await?;
    let rehearsal = stage.rehearse().await?;
    let after = if rehearsal.safe() { stage.import("new", None).await? } else { Vec::new() };
    let left = stage.mailbox.count("Inbox");
    let swapped = Swapped { rehearsal, wanted: one.clone(), before, after, left };
    Ok((pairs(one, other), swapped))
}

/// A folder with a configuration, a Maildir in it, and a Graph beside it.
struct Stage {
    folder: tempfile::TempDir,
    fake: GraphFake,
    client_id: String,
    mailbox: Mailbox,
}

impl Stage {
    async fn new(mails: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()
            .map_err(|e| Error::new(ErrorKind::Storage, "cannot create a temporary folder").with_source(e))?;
        demo::fill(mails, &folder.path().join("mailbox")).await?;
        let fake = GraphFake::start().await;
        let app = fake.app(JOB).secret(SECRET).permissions(["Mail.ReadWrite"]).create();
        let mailbox = fake.mailbox(ADDRESS).create();
        Ok(Self { folder, client_id: app.client_id(), mailbox, fake })
    }

    /// The configuration; the swap is the name in `accounts`.
    fn app(&self, account: &str) -> Result<MailApp> {
        let (tenant, login, graph) = (self.fake.tenant(), self.fake.login_url(), self.fake.graph_url());
        let client_id = &self.client_id;
        let config = format!(
            r#"
[state]
path = "state.db"

[accounts.old]
provider = "maildir"
path = "mailbox"
address = "{ADDRESS}"

[accounts.new]
provider = "graph"
auth = "app"
mailbox = "{ADDRESS}"
tenant = "{tenant}"
client_id = "{client_id}"
client_secret = "{SECRET}"
login_url = "{login}"
graph_url = "{graph}"

[jobs.{JOB}]
accounts = ["{account}"]
import_folder = "Inbox"
processed_folder = "Inbox/Processed"
failed_folder = "Inbox/Failed"
create_folders = true
"#
        );
        MailApp::from_str(&config, self.folder.path())
    }

    /// What the job hands over.
    async fn import(&self, account: &str, limit: Option<u64>) -> Result<Vec<Seen>> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let handler = handler_fn({
            let seen = Arc::clone(&seen);
            move |mail: Delivery| {
                let seen = Arc::clone(&seen);
                async move {
                    let mail = Seen::new(&mail).await?;
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
                    Ok(Outcome::Imported)
                }
            }
        });
        let mut report = self.app(account)?.importer(JOB).await?.with_limit(limit).run(handler).await?;
        if let Some(error) = report.accounts.iter_mut().find_map(|account| account.error.take()) {
            return Err(error);
        }
        let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(seen)
    }

    /// Copies the mailbox to Graph, folder by folder, with the times of arrival.
    async fn migrate(&self) -> Result<()> {
        let maildir = MaildirAccount::open("old", MaildirConfig::new(self.folder.path().join("mailbox")))?;
        for path in FOLDERS {
            let spec: FolderSpec = path.parse()?;
            let folder = match maildir.resolve_folder(&spec).await {
                Ok(folder) => folder,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if self.mailbox.folder_id(path).is_none() {
                self.mailbox.create_folder(path);
            }
            let mut messages = maildir.fetch_messages(&folder.id, Query::default());
            while let Some(message) = messages.try_next().await? {
                let raw = maildir.download_attachment(&message.id, &AttachmentId::raw()).bytes(usize::MAX).await?;
                self.mailbox.deliver_at(path, raw, message.received);
            }
        }
        Ok(())
    }

    async fn rehearse(&self) -> Result<Rehearsal> {
        let app = self.app("old")?;
        let (old, new) = (app.account("old")?, app.account("new")?);
        let ledger = app.ledger().await?;
        swap::rehearse(&*old, &*new, app.job(JOB)?, Some(&*ledger)).await
    }
}

/// A message as the job's handler saw it.
#[derive(Clone)]
struct Seen {
    key: String,
    has_message_id: bool,
    received: i64,
    sent: Option<i64>,
    subject: String,
    from: Option<String>,
    to: Vec<String>,
    files: Vec<File>,
    /// Outlook's `winmail.dat`, which Exchange opens: its files stand in its place there.
    has_tnef: bool,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct File {
    name: String,
    /// Of the bytes with LF as line end.
    sha256: String,
}

impl Seen {
    async fn new(mail: &Delivery) -> Result<Self, HandlerError> {
        let mut files = Vec::new();
        for file in mail.attachments().iter().filter(|file| is_compared(file)) {
            files.push(File { name: file.file_name().to_owned(), sha256: folded_hash(file).await? });
        }
        files.sort();
        let has_tnef = mail.attachments().iter().any(|file| file.content_type.ends_with("ms-tnef"));
        let address = |address: &Address| address.address.to_lowercase();
        let mut to: Vec<_> = mail.to.iter().map(address).collect();
        to.sort();
        Ok(Self {
            key: mail.key().to_string(),
            has_message_id: mail.internet_message_id.is_some(),
            received: mail.received.as_second(),
            sent: mail.sent.map(|sent| sent.as_second()),
            subject: mail.subject.as_deref().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "),
            from: mail.from.as_ref().map(address),
            to,
            files,
            has_tnef,
        })
    }

    /// The same whichever provider showed it: no two of these mails came in the same second.
    fn name(&self) -> (i64, &str) {
        (self.received, &self.subject)
    }

    fn as_json(&self) -> Value {
        let files = self.files.iter().map(|file| json!({ "file_name": file.name, "sha256_lf": file.sha256 }));
        json!({
            "key": self.key,
            "subject": self.subject,
            "from": self.from,
            "to": self.to,
            "sent": self.sent.and_then(|sent| jiff::Timestamp::from_second(sent).ok()).map(|sent| sent.to_string()),
            "files": files.collect::<Vec<_>>(),
        })
    }
}

/// Files keep their bytes. What services render anew does not: attached messages, calendars, reports, and Outlook's
/// `winmail.dat`, which Exchange opens.
fn is_compared(file: &Delivered) -> bool {
    let rendered = ["message/", "text/calendar", "application/ms-tnef", "application/vnd.ms-tnef"];
    file.kind == AttachmentKind::File && !rendered.iter().any(|kind| file.content_type.starts_with(kind))
}

async fn folded_hash(file: &Delivered) -> Result<String> {
    let bytes = file.content().bytes(100 << 20).await?;
    let mut hash = Sha256::new();
    for (at, byte) in bytes.iter().enumerate() {
        if *byte != b'\r' || bytes.get(at + 1) != Some(&b'\n') {
            hash.update([*byte]);
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A message over Maildir and over Graph; one of them is missing where the other has none like it.
struct Pair {
    maildir: Option<Seen>,
    graph: Option<Seen>,
}

fn pairs(maildir: Vec<Seen>, graph: Vec<Seen>) -> Vec<Pair> {
    let mut graph: Vec<Option<Seen>> = graph.into_iter().map(Some).collect();
    let mut partner = |seen: &Seen, is_same: &dyn Fn(&Seen, &Seen) -> bool| {
        graph.iter_mut().find(|other| other.as_ref().is_some_and(|other| is_same(seen, other)))?.take()
    };
    let by_name: Vec<_> =
        maildir.into_iter().map(|seen| (partner(&seen, &|a, b| a.name() == b.name()), seen)).collect();
    // What is left may still be the same, and differ in something.
    let mut all: Vec<Pair> = by_name
        .into_iter()
        .map(|(other, seen)| Pair {
            graph: other.or_else(|| partner(&seen, &|a, b| a.received == b.received)),
            maildir: Some(seen),
        })
        .collect();
    all.extend(graph.into_iter().flatten().map(|seen| Pair { maildir: None, graph: Some(seen) }));
    all
}

impl Pair {
    fn differs(&self) -> Vec<&'static str> {
        let (Some(a), Some(b)) = (&self.maildir, &self.graph) else { return vec!["missing"] };
        let checks = [
            ("key", a.key != b.key && !self.has_made_up_id()),
            ("subject", a.subject != b.subject),
            ("from", a.from != b.from),
            ("to", a.to != b.to),
            ("sent", a.sent != b.sent),
            ("files", a.files != b.files && !self.has_opened_tnef()),
        ];
        checks.into_iter().filter_map(|(what, differs)| differs.then_some(what)).collect()
    }

    /// Exchange makes up a Message-ID for a mail that has none. The ledger knows the message all the same.
    fn has_made_up_id(&self) -> bool {
        matches!((&self.maildir, &self.graph), (Some(a), Some(b)) if !a.has_message_id && b.has_message_id)
    }

    /// The files of a `winmail.dat` that Exchange has opened have nothing to be compared with.
    fn has_opened_tnef(&self) -> bool {
        matches!((&self.maildir, &self.graph), (Some(a), Some(b)) if a.has_tnef && !b.has_tnef && a.files.is_empty())
    }

    /// What Exchange makes of a mail when it takes it in.
    fn converted(&self) -> Vec<&'static str> {
        let all = [
            ("Exchange made up a Message-ID", self.has_made_up_id()),
            ("Exchange opened the winmail.dat", self.has_opened_tnef()),
        ];
        all.into_iter().filter_map(|(what, is)| is.then_some(what)).collect()
    }

    fn is_equal(&self) -> bool {
        self.differs().is_empty()
    }

    fn as_json(&self) -> Value {
        json!({
            "equal": self.is_equal(),
            "differs": self.differs(),
            "converted": self.converted(),
            "maildir": self.maildir.as_ref().map(Seen::as_json),
            "graph": self.graph.as_ref().map(Seen::as_json),
        })
    }
}

/// What became of the mailbox that was swapped half-way.
struct Swapped {
    rehearsal: Rehearsal,
    wanted: Vec<Seen>,
    before: Vec<Seen>,
    after: Vec<Seen>,
    /// In the import folder at the end.
    left: usize,
}

impl Swapped {
    /// Subjects of messages that were not handed over exactly once.
    fn lost_and_twice(&self) -> (Vec<&str>, Vec<&str>) {
        let mut times: BTreeMap<_, u32> = self.wanted.iter().map(|seen| (seen.name(), 0)).collect();
        for seen in self.before.iter().chain(&self.after) {
            *times.entry(seen.name()).or_insert(1) += 1;
        }
        let of = |wanted: fn(u32) -> bool| {
            times.iter().filter(|(_, times)| wanted(**times)).map(|((_, subject), _)| *subject).collect()
        };
        (of(|times| times < 1), of(|times| times > 1))
    }

    fn is_right(&self) -> bool {
        let (lost, twice) = self.lost_and_twice();
        self.rehearsal.safe() && lost.is_empty() && twice.is_empty() && self.left == 0
    }

    fn as_json(&self) -> Value {
        let (lost, twice) = self.lost_and_twice();
        let differences = self.rehearsal.differences.iter();
        json!({
            "safe": self.rehearsal.safe(),
            "differences": differences
                .map(|d| json!({ "severity": d.severity.as_str(), "kind": d.kind.as_str(), "detail": d.detail }))
                .collect::<Vec<_>>(),
            "before": self.before.len(),
            "after": self.after.len(),
            "left": self.left,
            "lost": lost,
            "twice": twice,
        })
    }
}

fn show(both: &[Pair], swapped: &Swapped) {
    let mut table = support::table(["Subject", "From", "Sent", "Files", "Maildir and Graph"]);
    for pair in both {
        let Some(seen) = pair.maildir.as_ref().or(pair.graph.as_ref()) else { continue };
        let sent = seen.sent.and_then(|sent| jiff::Timestamp::from_second(sent).ok());
        let verdict = match &pair.differs()[..] {
            [] => ["✓ equal"].into_iter().chain(pair.converted()).collect::<Vec<_>>().join("; "),
            differs => format!("✗ {}", differs.join(", ")),
        };
        table.add_row([
            support::cell(&seen.subject),
            support::cell(seen.from.as_deref().unwrap_or_default()),
            sent.map(|sent| sent.strftime("%F %T").to_string()).unwrap_or_default(),
            seen.files.len().to_string(),
            verdict,
        ]);
    }
    println!("The same job on a Maildir and on Graph\n{table}");
    println!("Equal are key, subject, from and to, the second it was sent, file names and hashes (CRLF as LF).");
    let Swapped { rehearsal, before, after, .. } = swapped;
    println!("\nA swap half-way");
    println!("· {} messages over the Maildir", before.len());
    for difference in &rehearsal.differences {
        println!("· {}: {}", difference.kind.as_str(), support::cell(&difference.detail));
    }
    println!("{} the rehearsal says {}", mark(rehearsal.safe()), if rehearsal.safe() { "safe" } else { "not safe" });
    println!("· `accounts = [\"old\"]` becomes `accounts = [\"new\"]`; the ledger stays");
    println!("· {} messages over Graph", after.len());
    let (lost, twice) = swapped.lost_and_twice();
    println!("{} lost: {}", mark(lost.is_empty() && swapped.left == 0), lost.len() + swapped.left);
    println!("{} twice: {}", mark(twice.is_empty()), twice.len());
}

fn mark(right: bool) -> &'static str {
    if right { "✓" } else { "✗" }
}
