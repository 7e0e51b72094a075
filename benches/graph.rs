//! Our importer against the loop that everybody writes first, on the same fake of Microsoft Graph.
//!
//! `cargo bench --features testing --bench graph`. Messages with two attachments of 100 KB each are read and moved:
//!
//! | client | does |
//! |---|---|
//! | importer | the importer of this crate, with its ledger in SQLite |
//! | naive | list, get, attachments, `$value` of each, move; one request at a time, nothing recorded |
//!
//! The fake runs in this process and counts; the client is a process of its own, so that CPU and memory are its own.

use std::{
    fs,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use mail_account::{
    Delivery, FolderSpec, ImportJob, Importer, MailAccount, Outcome, Role, Secret, SecretSource, SqlStore,
    auth::{Auth, Registration},
    handler_fn,
    provider::{
        Opening,
        graph::{GraphAccount, GraphConfig},
    },
    testing::graph::{Counters, GeneratedMail, GraphFake, Route},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const MAILBOX: &str = "facturen@contoso.example";
const SECRET: &str = "a-secret-of-the-fake";
const ATTACHMENTS: u32 = 2;
const SIZE: u64 = 100 * 1024;

/// Service time in milliseconds, and messages: with 40 ms each the naive loop needs a fifth of a second for a message.
const CASES: [(u64, u64); 2] = [(0, 1_000), (40, 400)];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [child, client, place] = args.as_slice()
        && child == "child"
    {
        let place: Value = serde_json::from_str(place).expect("it comes from this program");
        runtime().block_on(run(client, &place));
        return ExitCode::SUCCESS;
    }
    println!("n messages with {ATTACHMENTS} attachments of {} KiB, read and moved\n", SIZE / 1024);
    println!(
        "{:>6} {:>9} {:>6} {:>9} {:>11} {:>8} {:>11} {:>9}",
        "L (ms)", "client", "n", "counted/n", "round t./n", "wall (s)", "CPU (ms)/n", "peak (MB)"
    );
    for (service_time, messages) in CASES {
        let [ours, naive] = ["importer", "naive"].map(|client| measure(client, service_time, messages));
        for measured in [&ours, &naive] {
            measured.show();
        }
        let ratio = |of: fn(&Measured) -> f64| of(&naive) / of(&ours);
        println!(
            "{:>6} {:>9} {:>6} {:>9.1} {:>11.1} {:>8.1} {:>11.1} {:>9.1}",
            "",
            "ratio",
            "",
            ratio(|m| m.counters.graph_requests as f64),
            ratio(|m| m.counters.round_trips as f64),
            ratio(|m| m.wall),
            ratio(|m| m.cpu),
            ratio(|m| m.peak),
        );
        if service_time > 0 {
            let pages = ours.counters.of(Route::ListMessages);
            let budget = 1.25 * (messages + pages) as f64 * service_time as f64 / 4_000.0;
            println!("{:>6} importer: {:.2} of 1.25 x (n + pages) x L / 4 = {budget:.1} s", "", ours.wall / budget);
        }
    }
    ExitCode::SUCCESS
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

struct Measured {
    client: &'static str,
    service_time: u64,
    messages: u64,
    counters: Counters,
    /// Seconds.
    wall: f64,
    cpu: f64,
    /// Megabytes.
    peak: f64,
}

impl Measured {
    fn show(&self) {
        let each = |count: f64| count / self.messages as f64;
        println!(
            "{:>6} {:>9} {:>6} {:>9.3} {:>11.3} {:>8.2} {:>11.2} {:>9.1}",
            self.service_time,
            self.client,
            self.messages,
            each(self.counters.graph_requests as f64),
            each(self.counters.round_trips as f64),
            self.wall,
            each(self.cpu * 1e3),
            self.peak,
        );
    }
}

/// One client, in a process of its own, on a mailbox of its own.
fn measure(client: &'static str, service_time: u64, messages: u64) -> Measured {
    let runtime = runtime();
    let fake = runtime.block_on(GraphFake::start());
    fake.configure(|settings| {
        settings.service_time = Duration::from_millis(service_time);
        settings.log_requests = false;
    });
    let app = fake.app("bench").secret(SECRET).permissions(["Mail.ReadWrite"]).create();
    let mailbox = fake.mailbox(MAILBOX).create();
    let start = "2026-01-31T10:00:00Z".parse().expect("a time");
    mailbox.generate("inbox", &GeneratedMail::new(messages).attachments(ATTACHMENTS, SIZE).received(start, 1));
    mailbox.create_folder("Inbox/Processed");
    let place = json!({
        "tenant": fake.tenant(), "client_id": app.client_id(), "login_url": fake.login_url(), "graph_url": fake.graph_url(),
        "processed": mailbox.folder_id("Inbox/Processed"),
    });
    let program = std::env::current_exe().expect("this program");
    let child = Command::new(program).args(["child", client, &place.to_string()]).stderr(Stdio::inherit()).output();
    let child = child.expect("the client runs");
    assert!(child.status.success(), "{client}: {}", String::from_utf8_lossy(&child.stdout));
    assert_eq!(mailbox.count("Inbox/Processed") as u64, messages, "{client}");
    let counters = fake.counters();
    assert_eq!(counters.throttled, 0, "{client}");
    let told: Value = serde_json::from_slice(&child.stdout).expect("figures");
    assert_eq!(told["bytes"], messages * u64::from(ATTACHMENTS) * SIZE, "{client}");
    let figure = |key: &str| told[key].as_f64().unwrap_or(f64::NAN);
    Measured {
        client,
        service_time,
        messages,
        counters,
        wall: figure("wall"),
        cpu: figure("cpu"),
        peak: figure("peak"),
    }
}

/// In the client's process: runs it, and prints what it took.
async fn run(client: &str, place: &Value) {
    let began = Instant::now();
    let bytes = match client {
        "importer" => import(place).await,
        _ => naive(place).await,
    };
    let wall = began.elapsed().as_secs_f64();
    println!("{}", json!({ "bytes": bytes, "wall": wall, "cpu": cpu(), "peak": peak() }));
}

/// Seconds of CPU of this process, where the system tells: user and system time, in hundredths.
fn cpu() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let ticks: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2).collect();
    Some(ticks.iter().filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0)
}

/// The most that was resident of this process, in megabytes, where the system tells.
fn peak() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0 / 1e6)
}

fn text<'a>(place: &'a Value, key: &str) -> &'a str {
    place[key].as_str().expect("it comes from this program")
}

async fn import(place: &Value) -> u64 {
    let mut app = Registration::default();
    let own = |key: &str| Some(text(place, key).to_owned());
    (app.tenant, app.client_id) = (own("tenant"), own("client_id"));
    (app.login_url, app.graph_url) = (own("login_url"), own("graph_url"));
    app.client_secret = Some(SecretSource::Literal(Secret::new(SECRET)));
    let config = GraphConfig::new(app, Auth::App, MAILBOX);
    let account: Arc<dyn MailAccount> =
        Arc::new(GraphAccount::open(&config, Opening::new("bench")).expect("the configuration is right"));
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = SqlStore::open(folder.path().join("state.db")).await.expect("a ledger");
    let job = ImportJob::new("bench", FolderSpec::Role(Role::Inbox))
        .with_processed_folder("Inbox/Processed".parse().expect("a path"));
    let handler = handler_fn(|mail: Delivery| async move {
        for file in mail.attachments() {
            file.content().bytes(usize::MAX).await?;
        }
        Ok(Outcome::Imported)
    });
    let report = Importer::new(job, [account], Arc::new(ledger)).run(handler).await.expect("the ledger can be read");
    report.accounts[0].bytes
}

async fn naive(place: &Value) -> u64 {
    let http = reqwest::Client::new();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", text(place, "client_id")),
        ("client_secret", SECRET),
        ("scope", "https://graph.microsoft.com/.default"),
    ];
    let token_url = format!("{}/{}/oauth2/v2.0/token", text(place, "login_url"), text(place, "tenant"));
    let token: Value = http.post(token_url).form(&form).send().await.expect("an answer").json().await.expect("JSON");
    let token = text(&token, "access_token").to_owned();
    let root = format!("{}/v1.0/users/{MAILBOX}", text(place, "graph_url"));
    let get = async |path: String| {
        let answer = http.get(format!("{root}{path}")).bearer_auth(&token).send().await.expect("an answer");
        answer.error_for_status().expect("no refusal")
    };
    let json = async |path: String| get(path).await.json::<Value>().await.expect("JSON");
    let mut bytes = 0;
    loop {
        // What was moved is gone, so that the first page is always the next one.
        let page = json("/mailFolders/inbox/messages?$select=id&$top=50".to_owned()).await;
        let messages = page["value"].as_array().expect("a list").clone();
        if messages.is_empty() {
            return bytes;
        }
        for message in messages {
            let id = text(&message, "id");
            json(format!("/messages/{id}")).await;
            let files = json(format!("/messages/{id}/attachments?$select=id,name,contentType,size,isInline")).await;
            for file in files["value"].as_array().expect("a list") {
                let value = get(format!("/messages/{id}/attachments/{}/$value", text(file, "id"))).await;
                bytes += value.bytes().await.expect("a body").len() as u64;
            }
            let to = json!({ "destinationId": text(place, "processed") });
            let moved = http.post(format!("{root}/messages/{id}/move")).bearer_auth(&token).json(&to);
            moved.send().await.expect("an answer").error_for_status().expect("no refusal");
        }
    }
}
