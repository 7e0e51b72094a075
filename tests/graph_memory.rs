//! Memory over Graph follows neither the size of an attachment nor that of a message, and little of their number. What is
//! measured is a process of its own, beside that of the fake.
//!
//! The processes are the example `import`, and this program again with the first argument `child`. The large numbers of
//! the budget take minutes: `cargo test --release --all-features --test graph_memory -- --ignored --nocapture`.
#![cfg(all(feature = "testing", feature = "graph", feature = "sqlite", target_os = "linux"))]

#[path = "support/example.rs"]
mod example;
#[path = "support/tenant.rs"]
mod tenant;

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use example::example;
use futures::{StreamExt as _, TryStreamExt as _};
use libtest_mimic::{Arguments, Failed, Trial};
use mail_account::{MailApp, Query, testing::graph::GeneratedMail};
use serde_json::Value;
use tenant::{INBOX, Tenant};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [child, what, config] = args.as_slice()
        && child == "child"
    {
        runtime().block_on(async {
            match what.as_str() {
                "list" => list(Path::new(config)).await,
                _ => open(Path::new(config)).await,
            }
        });
        return ExitCode::SUCCESS;
    }
    let trial = |name: &str, large: bool, test: fn()| {
        let run = move || {
            test();
            Ok::<(), Failed>(())
        };
        Trial::test(name, run).with_ignored_flag(large)
    };
    let trials = vec![
        trial("an_attachment_of_150_mb_takes_little_memory", false, || attachment(150)),
        trial("messages_take_the_memory_of_their_ids", false, || listing(4_000, 24_000)),
        trial("a_hundred_thousand_messages_take_the_memory_of_their_ids", true, || listing(10_000, 100_000)),
        trial("a_hundred_thousand_messages_are_imported_in_linear_time", true, || import(10_000, 100_000)),
        trial("an_idle_mailbox_takes_little_memory", false, || mailboxes(1_000)),
        trial("ten_thousand_idle_mailboxes_take_little_memory", true, || mailboxes(10_000)),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A line of a process's status, in KiB: `VmHWM` is the peak of what was resident, `VmRSS` what is.
fn status(process: &str, line: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status
        .lines()
        .find_map(|l| l.strip_prefix(line))?
        .trim_matches([':', ' ', '\t'])
        .trim_end_matches(" kB")
        .parse()
        .ok()
}

/// What one process printed, how long it took, and the most that was resident of it, in KiB.
struct Measured {
    printed: String,
    peak: u64,
    took: Duration,
}

fn measure(command: &mut Command) -> Measured {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let process = child.id().to_string();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut printed = String::new();
        stdout.read_to_string(&mut printed).map(|_| printed)
    });
    let mut peak = 0;
    let ended = loop {
        peak = peak.max(status(&process, "VmHWM").unwrap_or(0));
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let printed = reader.join().unwrap().unwrap();
    assert!(ended.success(), "{printed}");
    Measured { printed, peak, took: began.elapsed() }
}

const MOVES: &str = "processed_folder = \"Inbox/Processed\"\ncreate_folders = true\n";

/// The fake, in this process, and a configuration that leads to it.
struct World {
    runtime: Runtime,
    tenant: Tenant,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let runtime = runtime();
        let tenant = runtime.block_on(Tenant::start());
        tenant.fake.configure(|settings| {
            settings.log_requests = false;
            // More than one mailbox may ask for in ten minutes.
            settings.requests_per_ten_minutes = u64::MAX;
        });
        Self { runtime, tenant, folder: tempfile::tempdir().unwrap() }
    }

    fn config<'a>(&self, job: &str, mailboxes: impl IntoIterator<Item = &'a str>) -> PathBuf {
        let (fake, file) = (&self.tenant.fake, self.folder.path().join("mail.toml"));
        let mut config = format!(
            "[registrations.contoso]\ntenant = \"{}\"\nclient_id = \"{}\"\nclient_secret = \"{}\"\nlogin_url = \"{}\"\ngraph_url = \"{}\"\n",
            fake.tenant(),
            self.tenant.app.client_id(),
            tenant::SECRET,
            fake.login_url(),
            fake.graph_url(),
        );
        for (n, mailbox) in mailboxes.into_iter().enumerate() {
            config.push_str(&format!(
                "[accounts.a{n}]\nprovider = \"graph\"\nregistration = \"contoso\"\nauth = \"app\"\nmailbox = \"{mailbox}\"\n"
            ));
        }
        config.push_str(&format!("[jobs.demo]\naccounts = [\"a0\"]\nimport_folder = \"Inbox\"\n{job}"));
        fs::write(&file, config).unwrap();
        file
    }

    fn child(&self, what: &str, config: &Path) -> Measured {
        measure(Command::new(std::env::current_exe().unwrap()).args(["child", what]).arg(config))
    }
}

fn attachment(megabytes: u64) {
    let world = World::new();
    let bytes = megabytes * 1_000_000;
    world.tenant.mailbox.generate("inbox", &GeneratedMail::new(1).attachments(1, bytes));
    let config = world.config(MOVES, [world.tenant.mailbox.address()]);
    let out = world.folder.path().join("out");
    let mut command = example("import");
    command.args(["--json", "--job", "demo", "--config"]).arg(config).arg("--out").arg(&out);
    let Measured { printed, peak, .. } = measure(&mut command);
    let document: Value = serde_json::from_str(&printed).unwrap();
    let account = &document["accounts"][0];
    assert_eq!((&account["imported"], &account["bytes"]), (&Value::from(1), &Value::from(bytes)), "{account}");
    println!("an attachment of {megabytes} MB: peak {peak} KiB");
    assert!(peak < 48 * 1024, "{peak} KiB");
}

/// Lists a whole folder and keeps nothing.
async fn list(config: &Path) {
    let account = MailApp::load(config).unwrap().account("a0").unwrap();
    let inbox = account.resolve_folder(&INBOX).await.unwrap();
    let query = Query::default().with_inline_up_to(0);
    let count =
        account.fetch_messages(&inbox.id, query).try_fold(0_u64, |n, _| async move { Ok(n + 1) }).await.unwrap();
    println!("{count}");
}

fn listing(few: u64, many: u64) {
    let peak_of = |messages: u64| {
        let world = World::new();
        let start = "2026-01-31T10:00:00Z".parse().unwrap();
        world.tenant.mailbox.generate("inbox", &GeneratedMail::new(messages).received(start, 1));
        let config = world.config("", [world.tenant.mailbox.address()]);
        let Measured { printed, peak, took } = world.child("list", &config);
        assert_eq!(printed.trim(), messages.to_string());
        println!("{messages} messages listed: peak {peak} KiB, {:.1} s", took.as_secs_f64());
        peak
    };
    let (small, large) = (peak_of(few), peak_of(many));
    let each = large.saturating_sub(small) * 1024 / (many - few);
    println!("{each} bytes for each message");
    assert!(each < 400, "{each} bytes for each message");
}

/// The whole of the example and its ledger, without moves: of those Exchange allows 10,000 in ten minutes.
fn import(few: u64, many: u64) {
    let run = |messages: u64| {
        let world = World::new();
        let start = "2026-01-31T10:00:00Z".parse().unwrap();
        world.tenant.mailbox.generate("inbox", &GeneratedMail::new(messages).received(start, 1));
        let config = world.config("", [world.tenant.mailbox.address()]);
        let Measured { printed, peak, took } =
            measure(example("import").args(["--json", "--job", "demo", "--config"]).arg(config));
        let document: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(document["accounts"][0]["imported"], messages, "{}", document["accounts"]);
        let each = took.as_secs_f64() * 1e3 / messages as f64;
        println!("{messages} messages imported: peak {peak} KiB, {:.1} s, {each:.2} ms each", took.as_secs_f64());
        peak
    };
    let (small, large) = (run(few), run(many));
    let each = large.saturating_sub(small) * 1024 / (many - few);
    println!("{each} bytes for each message");
    assert!(each < 400, "{each} bytes for each message");
}

/// Opens all accounts, asks each for its inbox, and prints what that took: bytes for each of them.
async fn open(config: &Path) {
    let app = MailApp::load(config).unwrap();
    let names: Vec<String> = app.accounts().map(|account| account.name).collect();
    let before = status("self", "VmRSS").unwrap();
    let accounts: Vec<_> = names.iter().map(|name| app.account(name).unwrap()).collect();
    let found =
        futures::stream::iter(&accounts).map(|account| async move { account.resolve_folder(&INBOX).await.map(drop) });
    found.buffer_unordered(20).try_collect::<Vec<()>>().await.unwrap();
    let after = status("self", "VmRSS").unwrap();
    println!("{}", (after - before) * 1024 / accounts.len() as u64);
    std::io::stdout().flush().unwrap();
    drop(accounts);
}

fn mailboxes(count: usize) {
    let world = World::new();
    let addresses: Vec<String> = (0..count).map(|n| format!("box{n}@contoso.nl")).collect();
    for address in &addresses {
        world.runtime.block_on(async { world.tenant.fake.mailbox(address).create() });
    }
    let config = world.config("", addresses.iter().map(String::as_str));
    let Measured { printed, peak, took } = world.child("open", &config);
    let each: u64 = printed.trim().parse().unwrap();
    println!(
        "{count} mailboxes: {each} bytes each, peak {peak} KiB with their configuration, {:.1} s",
        took.as_secs_f64()
    );
    let counters = world.tenant.fake.counters();
    assert_eq!((counters.token_requests, counters.graph_requests), (1, count as u64));
    assert!(each < 20_000, "{each} bytes for each mailbox");
}
