//! What reading and moving mail over IMAP costs, on Dovecot, with and without distance.
//!
//! `cargo bench --features testing --bench imap`. Every message has two attachments of 100 KB, which are read, and is
//! moved to another folder. Contenders:
//!
//! | name | what it does |
//! |---|---|
//! | `socket` | sends one FETCH for everything and reads the answer to its end; moves nothing |
//! | `importer` | this crate's importer on its IMAP account |
//! | `one by one` | the same account, one message at a time: look, download both, move |
//! | `async-imap` | the crate `async-imap`, in sets of 100, with mail-parser |
//!
//! Each runs as a process of its own, this program again, so that time of the processor and memory are its alone. The
//! connection is in the clear, through a proxy that holds every byte back for as long as the table says. One by one is
//! measured on a tenth of the messages. Environment: `MESSAGES` (default 1,000).

#[path = "../tests/support/dovecot.rs"]
mod dovecot;
#[path = "../tests/support/proxy.rs"]
mod proxy;

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use comfy_table::Table;
use futures::TryStreamExt as _;
use mail_account::{
    Delivery, FolderId, ImportJob, Importer, MailAccount, MessageId, MoveOutcome, Outcome, Query, Secret, SecretSource,
    handler_fn,
    provider::{
        Opening,
        imap::{ImapAccount, ImapConfig, Tls},
    },
    testing::{MemoryLedger, mail},
};
use mail_parser::{MessageParser, MimeHeaders as _};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use dovecot::{Dovecot, PASSWORD};
use proxy::Proxy;

const ATTACHMENT: usize = 100_000;
const DELAYS: [Duration; 2] = [Duration::ZERO, Duration::from_millis(20)];
const CONTENDERS: [(&str, usize); 4] = [("socket", 1), ("importer", 1), ("async-imap", 1), ("one by one", 10)];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [child, contender, port, user, messages] = args.as_slice()
        && child == "child"
    {
        return contend(contender, port.parse().expect("a port"), user, messages.parse().expect("a count"));
    }
    let messages: usize = std::env::var("MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000);
    let server = Dovecot::start();
    let template = server.user();
    for n in 0..messages {
        let received = SystemTime::now() - Duration::from_secs((messages - n) as u64);
        server.deliver(&template, "", &message(n), received);
    }
    // All made before anybody signs in; see there.
    let mut users: Vec<String> = (0..DELAYS.len() * CONTENDERS.len()).map(|_| server.user()).collect();
    // The first who signs in waits for processes of the server to start.
    let warm = server.user();
    link(&server.maildir(&template, ""), &server.maildir(&warm, ""), messages);
    run("socket", server.port, &warm, messages);
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "each way",
        "contender",
        "messages",
        "ms for each",
        "of socket",
        "commands",
        "processor ms for each",
        "peak MiB",
    ]);
    for delay in DELAYS {
        let proxy = Proxy::delayed(server.port, delay);
        let mut socket = None;
        for (contender, part) in CONTENDERS {
            let count = (messages / part).max(1);
            let user = users.pop().expect("one for each");
            link(&server.maildir(&template, ""), &server.maildir(&user, ""), count);
            server.maildir(&user, ".Processed");
            let done = run(contender, proxy.port, &user, count);
            let each = done.ms / count as f64;
            let ratio = each / *socket.get_or_insert(each);
            table.add_row([
                format!("{} ms", delay.as_millis()),
                contender.to_owned(),
                count.to_string(),
                format!("{each:.2}"),
                format!("{ratio:.1}"),
                done.commands.to_string(),
                format!("{:.2}", done.cpu_ms / count as f64),
                format!("{:.0}", done.peak_kib / 1024.0),
            ]);
        }
    }
    println!("{table}");
    ExitCode::SUCCESS
}

fn message(n: usize) -> bytes::Bytes {
    let file = |salt: usize| {
        let mut state = 0x2545_f491_4f6c_dd1d_u64 ^ (n * 2 + salt) as u64;
        let random = std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        });
        random.take(ATTACHMENT).collect::<Vec<u8>>()
    };
    mail()
        .with_subject(format!("Invoice {n}"))
        .with_message_id(format!("<{n}@example.com>").as_str())
        .with_attachment("a.pdf", file(0))
        .with_attachment("b.pdf", file(1))
        .build()
}

/// The first so many messages, in another mailbox, without copying them.
fn link(from: &Path, to: &Path, count: usize) {
    let mut names: Vec<_> = fs::read_dir(from.join("new")).expect("a folder").map(|e| e.expect("a file")).collect();
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names.into_iter().take(count) {
        fs::hard_link(entry.path(), to.join("new").join(entry.file_name())).expect("a link");
    }
}

#[derive(Default)]
struct Done {
    ms: f64,
    cpu_ms: f64,
    peak_kib: f64,
    commands: u64,
}

fn run(contender: &str, port: u16, user: &str, messages: usize) -> Done {
    let program = std::env::current_exe().expect("this program");
    let args = ["child", contender, &port.to_string(), user, &messages.to_string()];
    let output = Command::new(program).args(args).output().expect("a process");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{contender}: {said}{}", String::from_utf8_lossy(&output.stderr));
    let numbers: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [ms, cpu_ms, peak_kib, commands] = numbers[..] else { panic!("{contender}: {said}") };
    Done { ms, cpu_ms, peak_kib, commands: commands as u64 }
}

// ---- The contenders, each in its process ----------------------------------------------------------------------------

fn contend(contender: &str, port: u16, user: &str, messages: usize) -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let started = Instant::now();
    let work = async {
        match contender {
            "socket" => socket(port, user, messages).await,
            "importer" => importer(port, user, messages).await,
            "async-imap" => other_crate(port, user, messages).await,
            _ => one_by_one(port, user, messages).await,
        }
    };
    let in_time = async { tokio::time::timeout(Duration::from_secs(120), work).await };
    let commands = runtime.block_on(in_time).expect("an end within two minutes");
    let ms = started.elapsed().as_secs_f64() * 1000.0;
    // Fields 14 and 15, in hundredths of a second (proc_pid_stat(5)).
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let cpu_ms: f64 = ticks.filter_map(|word| word.parse::<f64>().ok()).sum::<f64>() * 10.0;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0").trim();
    println!("{ms:.1} {cpu_ms:.0} {} {commands}", peak.trim_end_matches(" kB"));
    ExitCode::SUCCESS
}

fn account(port: u16, user: &str) -> ImapAccount {
    let mut config = ImapConfig::new("127.0.0.1", user, SecretSource::Literal(Secret::new(PASSWORD)));
    (config.port, config.tls) = (Some(port), Tls::None);
    config.account(Opening::new("bench"), None).expect("a configuration")
}

async fn importer(port: u16, user: &str, messages: usize) -> u64 {
    let account = Arc::new(account(port, user));
    let job = ImportJob::new("bench", "Inbox".parse().expect("a folder"))
        .with_processed_folder("Processed".parse().expect("a folder"))
        .with_handler_concurrency(4);
    let ledger = Arc::new(MemoryLedger::new());
    let importer = Importer::new(job, [Arc::clone(&account) as Arc<dyn MailAccount>], ledger);
    let handler = handler_fn(|mail: Delivery| async move {
        for file in mail.attachments() {
            assert_eq!(file.content().bytes(1 << 20).await?.len(), ATTACHMENT);
        }
        Ok(Outcome::Imported)
    });
    let report = importer.run(handler).await.expect("a run");
    let counts = &report.accounts[0].counts;
    assert_eq!((counts.imported, counts.unmoved), (messages as u64, 0), "{counts:?}");
    account.close().await;
    account.usage().requests
}

async fn one_by_one(port: u16, user: &str, messages: usize) -> u64 {
    let account = account(port, user);
    let ids: Arc<Mutex<Vec<MessageId>>> = Arc::default();
    let seen = Arc::clone(&ids);
    let only_ids = Query::default().with_skip(move |id| {
        seen.lock().expect("no panic under it").push(id.clone());
        true
    });
    let inbox = FolderId::new("INBOX");
    account.fetch_messages(&inbox, only_ids).try_collect::<Vec<_>>().await.expect("a listing");
    let ids = std::mem::take(&mut *ids.lock().expect("no panic under it"));
    assert_eq!(ids.len(), messages);
    for id in ids {
        let message = account.fetch_message(&id).await.expect("a message");
        for attachment in &message.attachments {
            let bytes = account.download_attachment(&id, &attachment.id).bytes(1 << 20).await.expect("a file");
            assert_eq!(bytes.len(), ATTACHMENT);
        }
        let moved = account.move_to_processed(&[id], &FolderId::new("Processed")).await.remove(0);
        assert!(matches!(moved, Ok(MoveOutcome::Moved(_))), "{moved:?}");
    }
    account.close().await;
    account.usage().requests
}

async fn other_crate(port: u16, user: &str, messages: usize) -> u64 {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let mut client = async_imap::Client::new(stream);
    client.read_response().await.expect("a greeting");
    let mut session = client.login(user, PASSWORD).await.map_err(|(error, _)| error).expect("a sign-in");
    session.select("INBOX").await.expect("a folder");
    let mut uids: Vec<u32> = session.uid_search("UNDELETED").await.expect("a search").into_iter().collect();
    uids.sort_unstable();
    let (mut commands, mut read) = (3, 0);
    for some in uids.chunks(100) {
        let set = some.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let mut fetched = session.uid_fetch(&set, "(UID BODY.PEEK[])").await.expect("a fetch");
        while let Some(message) = fetched.try_next().await.expect("a message") {
            let parsed = MessageParser::default().parse(message.body().expect("a body")).expect("a mail");
            let files: Vec<usize> = parsed.attachments().map(|part| part.contents().len()).collect();
            assert_eq!(files, [ATTACHMENT; 2], "{:?}", parsed.attachment(0).and_then(|part| part.attachment_name()));
            read += 1;
        }
        drop(fetched);
        session.uid_mv(&set, "Processed").await.expect("a move");
        commands += 2;
    }
    session.logout().await.expect("an end");
    assert_eq!(read, messages);
    commands + 1
}

async fn socket(port: u16, user: &str, messages: usize) -> u64 {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.expect("a greeting");
    let password = PASSWORD.replace('"', "\\\"");
    for (tag, command) in [("a", format!("LOGIN {user} \"{password}\"")), ("b", "EXAMINE INBOX".to_owned())] {
        stream.write_all(format!("{tag} {command}\r\n").as_bytes()).await.expect("a command");
        loop {
            line.clear();
            stream.read_line(&mut line).await.expect("an answer");
            if line.starts_with(&format!("{tag} ")) {
                assert!(line.contains("OK"), "{line}");
                break;
            }
        }
    }
    stream.write_all(b"c UID FETCH 1:* (UID BODY.PEEK[])\r\n").await.expect("a command");
    let (mut tail, mut piece, mut total) = (Vec::new(), vec![0; 64 * 1024], 0);
    while !tail.windows(7).any(|bytes| bytes == b"\r\nc OK ") {
        let read = stream.read(&mut piece).await.expect("bytes");
        assert!(read > 0, "the server left");
        total += read;
        // Enough to find the end, which may be cut in two.
        tail.drain(..tail.len().saturating_sub(8));
        tail.extend_from_slice(&piece[..read]);
    }
    assert!(total > messages * 2 * ATTACHMENT, "{total} bytes");
    3
}
