//! A folder of very many small messages: memory grows only by ids, and what is sent only by the messages.
//!
//! What is measured is a process, so each measurement is one: this program again, with the first argument `child`.
#![cfg(target_os = "linux")]

use std::{
    io::{BufRead as _, BufReader, BufWriter, Write},
    net::{TcpListener, TcpStream},
    process::{Command, ExitCode},
    sync::Arc,
    thread,
    time::Instant,
};

use futures::TryStreamExt as _;
use libtest_mimic::{Arguments, Failed, Trial};
use mail_account::{
    Delivery, FolderId, ImportJob, Importer, JobReport, MailAccount, Message, Outcome, Query, Secret, SecretSource,
    SqlStore, handler_fn,
    provider::{
        Opening,
        imap::{ImapAccount, ImapConfig, Tls},
    },
};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [child, work, count] = args.as_slice()
        && child == "child"
    {
        return measure(work, count.parse().expect("a count"));
    }
    let trial = |name: &str, work: &'static str, few: u64, many: u64| {
        Trial::test(name, move || grows_by_ids(work, few, many).map_err(Failed::from))
    };
    let trials = vec![
        trial("listing_twice_as_many", "list", 20_000, 40_000),
        // From fewer on, the caches of SQLite are not full yet.
        trial("importing_and_polling_twice_as_many", "poll", 8_000, 16_000),
        trial("taking_up_twice_as_many_that_wait", "process", 16_000, 32_000),
        trial("listing_a_hundred_thousand", "list", 50_000, 100_000).with_ignored_flag(true),
        trial("importing_and_polling_a_hundred_thousand", "poll", 50_000, 100_000).with_ignored_flag(true),
        trial("taking_up_a_hundred_thousand_that_wait", "process", 50_000, 100_000).with_ignored_flag(true),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

struct Measured {
    kib: u64,
    commands: u64,
}

fn run_child(work: &str, count: u64) -> Result<Measured, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let done = Command::new(program).args(["child", work, &count.to_string()]).output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        return Err(format!("{said}{}", String::from_utf8_lossy(&done.stderr)));
    }
    println!("{}", said.trim());
    let number = |name: &str| {
        let word = said.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.and_then(|word| word.parse().ok()).ok_or_else(|| format!("no {name} in {said}"))
    };
    Ok(Measured { kib: number("peak_kib")?, commands: number("commands")? })
}

fn grows_by_ids(work: &str, few: u64, many: u64) -> Result<(), String> {
    let (small, large) = (run_child(work, few)?, run_child(work, many)?);
    let each = large.kib.saturating_sub(small.kib) * 1024 / (many - few);
    println!("{work}: {each} bytes each");
    if each >= 400 {
        return Err(format!("{each} bytes for each message"));
    }
    // Sign-in and the like are the same for both.
    if large.commands > 2 * small.commands || large.commands - small.commands > (many - few) / 100 {
        return Err(format!("{} commands for {few}, {} for {many}", small.commands, large.commands));
    }
    Ok(())
}

// ---- One process ----------------------------------------------------------------------------------------------------

fn measure(work: &str, count: u64) -> ExitCode {
    let port = serve(count);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut config = ImapConfig::new("127.0.0.1", "u@example.com", SecretSource::Literal(Secret::new("pa55word")));
    (config.port, config.tls) = (Some(port), Tls::None);
    let account = Arc::new(config.account(Opening::new("many"), None).expect("a configuration"));
    let started = Instant::now();
    let seen = runtime.block_on(async {
        match work {
            "list" => list(&account).await,
            _ => import(Arc::clone(&account), work).await,
        }
    });
    assert_eq!(seen, count, "every message was seen");
    let status = std::fs::read_to_string("/proc/self/status").expect("the process's own state");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    let peak = peak.trim().trim_end_matches(" kB");
    println!(
        "work={work} messages={count} peak_kib={peak} commands={} ms={}",
        account.usage().requests,
        started.elapsed().as_millis()
    );
    ExitCode::SUCCESS
}

async fn list(account: &ImapAccount) -> u64 {
    let mut messages = account.fetch_messages(&FolderId::new("INBOX"), Query::default());
    let mut seen = 0;
    while let Some(message) = messages.try_next().await.expect("a message") {
        let _: Message = message;
        seen += 1;
    }
    seen
}

/// None is moved away, because the server has no second folder: a later run finds them all again.
async fn import(account: Arc<ImapAccount>, work: &str) -> u64 {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqlStore::open(folder.path().join("state.db")).await.expect("a ledger");
    let job = ImportJob::new("many", "Inbox".parse().expect("a folder")).with_handler_concurrency(8);
    let importer = Importer::new(job, [account as Arc<dyn MailAccount>], Arc::new(store))
        .with_handler(handler_fn(|_: Delivery| async { Ok(Outcome::Imported) }));
    let stop = CancellationToken::new;
    let count = |report: JobReport| {
        let counts = report.accounts[0].counts;
        assert!(counts.closes(), "{counts:?}");
        counts
    };
    match work {
        "process" => {
            let fetched = count(importer.fetch(stop()).await.expect("a run"));
            // It reads all that waits, and sees to the first of it.
            let processed = count(importer.with_limit(100).process(stop()).await.expect("a run"));
            assert_eq!((fetched.seen, processed.imported), (fetched.left, 100));
            fetched.seen
        }
        _ => {
            let imported = count(importer.run_all(stop()).await.expect("a run")).imported;
            let again = count(importer.run_all(stop()).await.expect("a run"));
            assert_eq!((again.seen, again.already_done), (imported, imported));
            imported
        }
    }
}

// ---- The server -----------------------------------------------------------------------------------------------------

/// A server whose mail is made up while it is sent, so that it takes no memory itself.
fn serve(count: u64) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that leaves is none of its trouble.
            thread::spawn(move || answer(stream, count));
        }
    });
    port
}

fn answer(stream: TcpStream, count: u64) -> std::io::Result<()> {
    let mut out = BufWriter::new(stream.try_clone()?);
    out.write_all(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN UIDPLUS MOVE LITERAL+] ready\r\n")?;
    out.flush()?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let (tag, command) = line.split_once(' ').unwrap_or((&line, ""));
        if command.starts_with("EXAMINE") || command.starts_with("SELECT") {
            write!(out, "* {count} EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n")?;
        } else if command.starts_with("UID SEARCH UID") {
            write!(out, "* SEARCH")?;
            uids(command.rsplit(' ').next().unwrap_or_default()).try_for_each(|uid| write!(out, " {uid}"))?;
            out.write_all(b"\r\n")?;
        } else if command.starts_with("UID SEARCH") {
            write!(out, "* SEARCH")?;
            (1..=count).try_for_each(|uid| write!(out, " {uid}"))?;
            out.write_all(b"\r\n")?;
        } else if command.starts_with("UID FETCH") {
            let set = command.split(' ').nth(2).unwrap_or_default();
            uids(set).try_for_each(|uid| fetched(&mut out, uid, command.contains("BODY.PEEK[]")))?;
        } else if command.starts_with("LIST") {
            out.write_all(b"* LIST () \"/\" INBOX\r\n")?;
        } else if command == "CAPABILITY" {
            out.write_all(b"* CAPABILITY IMAP4rev1 UIDPLUS MOVE LITERAL+\r\n")?;
        }
        write!(out, "{tag} OK done\r\n")?;
        out.flush()?;
    }
    Ok(())
}

fn fetched(out: &mut impl Write, uid: u64, whole: bool) -> std::io::Result<()> {
    let mail = format!(
        "Message-ID: <{uid}@example.com>\r\nFrom: a@example.com\r\nSubject: Number {uid}\r\nDate: Mon, 05 Jan 2026 10:00:00 +0000\r\n\r\nHello\r\n"
    );
    let size = mail.len();
    if whole {
        return write!(out, "* {uid} FETCH (UID {uid} BODY[] {{{size}}}\r\n{mail})\r\n");
    }
    let (day, hour, minute, second) = (1 + uid / 86_400, uid / 3600 % 24, uid / 60 % 60, uid % 60);
    write!(
        out,
        "* {uid} FETCH (UID {uid} FLAGS () INTERNALDATE \"{day:02}-Jan-2026 {hour:02}:{minute:02}:{second:02} +0000\" RFC822.SIZE {size})\r\n"
    )
}

fn uids(set: &str) -> impl Iterator<Item = u64> + '_ {
    set.split(',').flat_map(|range| {
        let (from, to) = range.split_once(':').unwrap_or((range, range));
        from.parse::<u64>().unwrap_or(1)..=to.parse::<u64>().unwrap_or(0)
    })
}
