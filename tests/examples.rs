//! The examples as a person or a script runs them: as processes, judged by what they print and how they end.

#[path = "support/example.rs"]
mod example;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use example::example;
use mail_account::{
    Delivery, MailAccount as _, MailApp, Outcome, Reason, handler_fn,
    provider::maildir::{MaildirAccount, MaildirConfig},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}\n{}\n{}", self.stdout, self.stderr))
    }

    /// The kind and the message of an error that stopped everything.
    fn fatal(&self) -> (String, String) {
        let json = self.json();
        assert_eq!(self.code, 2, "{json}");
        assert_eq!(keys(&json), ["error"], "nothing but the error");
        assert_eq!(keys(&json["error"]), ["kind", "message"]);
        (text(&json["error"]["kind"]), text(&json["error"]["message"]))
    }
}

fn run(command: &mut Command) -> Ended {
    let Output { status, stdout, stderr } = command.output().unwrap();
    Ended {
        code: status.code().expect("not killed"),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("{value} is no object")).keys().map(String::as_str).collect()
}

fn sorted<const N: usize>(mut names: [&str; N]) -> [&str; N] {
    names.sort_unstable();
    names
}

/// A folder with a configuration, a mailbox, and room for what comes out.
struct Place {
    folder: TempDir,
}

const JOB: &str = r#"
[accounts.box]
provider = "maildir"
path = "mailbox"

[jobs.daily]
accounts = ["box"]
import_folder = "Inbox"
processed_folder = "Inbox/Processed"
failed_folder = "Inbox/Failed"
create_folders = true
"#;

impl Place {
    /// With so many mails, each with one attachment.
    fn new(config: &str, mails: usize) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(place.path("mail.toml"), config).unwrap();
        place.deliver("mailbox", mails);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn deliver(&self, mailbox: &str, mails: usize) {
        let account = MaildirAccount::open("box", MaildirConfig::new(self.path(mailbox))).unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            account.create_mailbox().await.unwrap();
            let inbox = account.resolve_folder(&"Inbox".parse().unwrap()).await.unwrap();
            for n in 0..mails {
                let received = format!("2026-11-{:02}T10:00:00Z", n + 1).parse().unwrap();
                account.deliver_at(&inbox.id, mail(n), received).await.unwrap();
            }
        });
    }

    /// The example with `--json` and the configuration of this place.
    fn command(&self, name: &str) -> Command {
        let mut command = example(name);
        command.current_dir(self.folder.path()).args(["--config", "mail.toml", "--json"]);
        command
    }

    fn import(&self) -> Command {
        let mut command = self.command("import");
        command.args(["--job", "daily"]);
        command
    }

    fn in_processed(&self) -> usize {
        ["cur", "new"].iter().map(|sub| count(&self.path("mailbox/.INBOX.Processed").join(sub))).sum()
    }
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

fn mail(n: usize) -> String {
    format!(
        "From: Jan de Vries <jan@supplier.example>\r\nTo: in@contoso.example\r\nSubject: Factuur {n}\r\n\
         Message-ID: <{n}@supplier.example>\r\nDate: Sun, {} Nov 2026 10:00:00 +0100\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nZie bijlage.\r\n\
         --b\r\nContent-Type: application/pdf; name=\"factuur.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=\"factuur.pdf\"\r\n\r\nJVBERi0x\r\n--b--\r\n",
        n + 1
    )
}

#[test]
fn the_demo_imports_every_mail_once() {
    // The demo has one place; other tests leave it alone.
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/mail-account-demo");
    let _ = fs::remove_dir_all(&demo);
    let first = run(example("import").arg("--json"));
    assert_eq!(first.code, 0, "{}{}", first.stdout, first.stderr);
    let document = first.json();
    let mails = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "eml"))
        .count();
    let account = &document["accounts"][0];
    assert_eq!(account["imported"], mails, "{account}");
    assert_eq!(account["seen"], mails);
    assert_eq!((&account["account"], &account["provider"]), (&json!("demo"), &json!("maildir")));
    assert_eq!(document["messages"].as_array().unwrap().len(), mails);
    let moved = ["cur", "new"].iter().map(|sub| count(&demo.join("mailbox/.INBOX.Processed").join(sub))).sum::<usize>();
    assert_eq!(moved, mails);

    let mut files = 0;
    for message in document["messages"].as_array().unwrap() {
        let received: jiff::Timestamp = text(&message["received"]).parse().unwrap();
        assert!(received < "2026-11-22T00:00:00Z".parse().unwrap(), "received is the mail's date: {received}");
        for attachment in message["attachments"].as_array().unwrap() {
            let content = fs::read(demo.join("out").join(text(&attachment["path"]))).unwrap();
            assert_eq!(attachment["bytes"], content.len());
            let sha256: String = Sha256::digest(&content).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(attachment["sha256"], sha256);
            files += 1;
            if attachment["content_type"] == "application/pdf" {
                assert!(content.starts_with(b"%PDF-"), "{attachment}");
            }
        }
    }
    assert_eq!(account["attachments"], files);

    let second = run(example("import").arg("--json"));
    assert_eq!(second.code, 0);
    let account = &second.json()["accounts"][0];
    assert_eq!((&account["seen"], &account["imported"]), (&json!(0), &json!(0)), "{account}");
    let third = run(&mut example("import"));
    assert_eq!(third.code, 0);
    assert!(third.stdout.contains("demo") && third.stdout.contains("done"), "{}", third.stdout);
}

#[test]
fn import_prints_the_documented_document() {
    let place = Place::new(JOB, 2);
    let ended = run(place.import().args(["--out", "out"]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let document = ended.json();
    assert_eq!(keys(&document), sorted(["job", "messages", "accounts"]));
    assert_eq!(document["job"], "daily");
    let messages = document["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 2);
    let message = messages.iter().find(|message| message["subject"] == "Factuur 0").unwrap();
    assert_eq!(
        keys(message),
        sorted([
            "account",
            "key",
            "id",
            "internet_message_id",
            "subject",
            "from",
            "received",
            "outcome",
            "reason",
            "attachments"
        ])
    );
    assert_eq!(message["account"], "box");
    assert_eq!(message["internet_message_id"], "<0@supplier.example>");
    assert_eq!(message["from"], json!({ "name": "Jan de Vries", "address": "jan@supplier.example" }));
    assert_eq!(message["received"], "2026-11-01T10:00:00Z");
    assert_eq!((&message["outcome"], &message["reason"]), (&json!("imported"), &Value::Null));
    let attachment = &message["attachments"][0];
    assert_eq!(
        keys(attachment),
        sorted(["name", "file_name", "content_type", "kind", "inline", "bytes", "sha256", "path"])
    );
    let path = text(&attachment["path"]);
    assert_eq!(
        *attachment,
        json!({
            "name": "factuur.pdf", "file_name": "factuur.pdf", "content_type": "application/pdf", "kind": "file",
            "inline": false, "bytes": 6,
            "sha256": "21af8e71c8703196df7fe1ff901869a88fe64c07bbaa83d838efb45a52b4f303",
            "path": path,
        })
    );
    let mut parts = path.split('/');
    assert_eq!(parts.next(), Some("box"));
    assert!(parts.next().unwrap().starts_with("20261101-100000-"), "{path}");
    assert_eq!(parts.next(), Some("factuur.pdf"));
    assert_eq!(fs::read(place.path("out").join(&path)).unwrap(), b"%PDF-1");

    let account = &document["accounts"][0];
    assert_eq!(
        keys(account),
        sorted([
            "account",
            "provider",
            "mailbox",
            "status",
            "seen",
            "imported",
            "reimported",
            "already_done",
            "skipped",
            "failed",
            "gone",
            "left",
            "unmoved",
            "attachments",
            "bytes",
            "requests",
            "error"
        ])
    );
    assert_eq!(
        (&account["status"], &account["seen"], &account["imported"], &account["attachments"], &account["bytes"]),
        (&json!("done"), &json!(2), &json!(2), &json!(2), &json!(12))
    );
    assert_eq!((&account["requests"], &account["error"]), (&json!(0), &Value::Null));
    assert_eq!(place.in_processed(), 2);
    assert!(place.path("mail-account.db").exists(), "beside the configuration");
}

#[test]
fn without_out_nothing_is_written() {
    let place = Place::new(JOB, 1);
    let ended = run(&mut place.import());
    let attachment = &ended.json()["messages"][0]["attachments"][0];
    assert_eq!((&attachment["path"], &attachment["bytes"]), (&Value::Null, &json!(6)));
    assert!(attachment["sha256"].is_string());
}

#[test]
fn a_limit_leaves_the_rest_and_is_no_failure() {
    let place = Place::new(JOB, 3);
    let ended = run(place.import().args(["--limit", "1"]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let document = ended.json();
    let account = &document["accounts"][0];
    assert_eq!((&account["imported"], &account["left"]), (&json!(1), &json!(2)), "{account}");
    let left = document["messages"].as_array().unwrap().iter().find(|message| message["outcome"] == "left").unwrap();
    assert!(left["reason"].is_string() && left["attachments"] == json!([]), "{left}");
    let ended = run(&mut place.import());
    assert_eq!(ended.json()["accounts"][0]["imported"], 2);
}

#[test]
fn the_limit_counts_over_all_accounts() {
    let config = JOB.replace("[\"box\"]", "[\"box\", \"other\"]")
        + "[accounts.other]\nprovider = \"maildir\"\npath = \"other\"\n";
    let place = Place::new(&config, 2);
    place.deliver("other", 2);
    let document = run(place.import().args(["--limit", "3"])).json();
    let sum =
        |key: &str| document["accounts"].as_array().unwrap().iter().map(|a| a[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("imported"), sum("left")), (3, 1), "{document}");
}

#[test]
fn a_wrong_command_line_is_told_as_asked() {
    for (arguments, says) in [
        (&["--json", "--every", "5m", "--config", "x", "--job", "y"][..], "--every"),
        (&["--json", "--config", "x"], "--job"),
        (&["--json", "--job", "x"], "--config"),
        (&["--json", "--limit", "3"], "--config"),
        (&["--json", "--limit", "many", "--config", "x", "--job", "y"], "many"),
        (&["--json", "--nonsense"], "--nonsense"),
    ] {
        let (kind, message) = run(example("import").args(arguments)).fatal();
        assert_eq!(kind, "invalid_config");
        assert!(message.contains(says), "{arguments:?}: {message}");
    }
    let ended = run(example("import").arg("--nonsense"));
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert!(ended.stderr.contains("--nonsense"), "{}", ended.stderr);
    let ended = run(example("import").args(["--config", "x", "--job", "y", "--every", "soon"]));
    assert!(ended.code == 2 && ended.stderr.contains("span of time"), "{}", ended.stderr);
    assert_eq!(run(example("import").arg("--help")).code, 0);
}

/// What stops everything: what is done to a good place, and what the error must say.
#[test]
fn what_is_wrong_with_the_whole_is_fatal() {
    let replaced = |from: &str, to: &str| JOB.replace(from, to);
    for (config, says) in [
        (replaced("path = ", "pat = "), &["mail.toml:4: `accounts.box.pat`", "did you mean `path`?"][..]),
        (
            replaced("\"maildir\"", "\"maldir\""),
            &["mail.toml:3: `accounts.box.provider` is `maldir`", "did you mean `maildir`?"],
        ),
        (replaced("[\"box\"]", "[\"bax\"]"), &["`jobs.daily.accounts` names `bax`", "did you mean `box`?"]),
        (replaced("daily", "dayly"), &["there is no job `daily` in mail.toml", "did you mean `dayly`?"]),
        (
            replaced("[\"box\"]", "[\"box\", \"again\"]")
                + "[accounts.again]\nprovider = \"maildir\"\npath = \"./mailbox/.\"",
            &["`jobs.daily.accounts` names the mailbox", "twice, by `box` and by `again`", "remove one of them"],
        ),
        (format!("{JOB}since = \"last week\""), &["`jobs.daily.since` is `last week`", "`\"now\"`"]),
        (format!("[state]\npath = \"mail.toml/state.db\"\n{JOB}"), &["mail.toml/state.db"]),
        (format!("[state]\npath = \"mailbox\"\n{JOB}"), &["mailbox"]),
        (
            format!("[state]\nurl = {{ env = \"SURELY_NOT_SET_4\" }}\n{JOB}"),
            &["`state.url`", "`SURELY_NOT_SET_4`, which is not set"],
        ),
    ] {
        let place = Place::new(&config, 1);
        let (_, message) = run(place.import().args(["--out", "out"])).fatal();
        for part in says {
            assert!(message.contains(part), "{message}\ndoes not contain\n{part}");
        }
        assert_eq!(count(&place.path("mailbox/new")), 1, "nothing is lost");
    }
    let place = Place::new(JOB, 0);
    fs::remove_file(place.path("mail.toml")).unwrap();
    let (kind, message) = run(&mut place.import()).fatal();
    assert!(kind == "invalid_config" && message.contains("`mail.toml` cannot be read"), "{message}");
}

#[test]
fn an_output_folder_that_cannot_be_written_stops_before_the_first_message() {
    let place = Place::new(JOB, 1);
    // Below a file no folder can be made, not even by the superuser.
    for out in ["mail.toml", "mail.toml/out"] {
        let (kind, message) = run(place.import().args(["--out", out])).fatal();
        assert_eq!(kind, "storage");
        assert!(message.contains(&format!("cannot write to the output folder `{out}`")), "{message}");
    }
    assert_eq!(count(&place.path("mailbox/new")), 1);
    let document = run(place.import().args(["--out", "out"])).json();
    assert_eq!(document["accounts"][0]["imported"], 1, "no attempt was lost: {document}");
}

/// What an account meets stands in the whole document.
#[test]
fn what_is_wrong_with_an_account_is_its_error() {
    let oauth = "provider = \"graph\"\nauth = \"app\"\nmailbox = \"a@contoso.nl\"\ntenant = \"contoso.nl\"\nclient_id = \"00000000-0000-0000-0000-000000000000\"\n";
    let maildir = "provider = \"maildir\"\npath = \"mailbox\"";
    for (config, kind, says) in [
        (JOB.replace("\"Inbox\"", "\"Inboxx\""), "not_found", &["there is no folder `Inboxx`", "`Inbox`"][..]),
        (JOB.replace("\"Inbox/Processed\"", "\"INBOX\""), "invalid_config", &["processed"]),
        (JOB.replace("path = \"mailbox\"", "path = \"absent\""), "", &["absent"]),
        (
            JOB.replace("path = \"mailbox\"\n", "path = \"mailbox\"\nenabled = false\n"),
            "invalid_config",
            &["`accounts.box.enabled` is `false`"],
        ),
        (JOB.replace("path = \"mailbox\"", ""), "invalid_config", &["`accounts.box.path` is missing"]),
        (
            JOB.replace(maildir, &format!("{oauth}client_secret = \"11111111-2222-3333-4444-555555555555\"")),
            "invalid_config",
            &["`accounts.box.client_secret` looks like the secret's ID"],
        ),
    ] {
        let place = Place::new(&config, 1);
        let ended = run(place.import().args(["--out", "out"]));
        let document = ended.json();
        assert_eq!(ended.code, 2, "{document}");
        let account = &document["accounts"][0];
        assert_eq!((&account["status"], &account["imported"]), (&json!("error"), &json!(0)), "{config}\n{document}");
        let message = text(&account["error"]["message"]);
        assert!(kind.is_empty() || account["error"]["kind"] == kind, "{account}");
        for part in says {
            assert!(message.contains(part), "{message}\ndoes not contain\n{part}");
        }
        assert_eq!(count(&place.path("mailbox/new")), 1, "nothing is lost");
    }
}

#[test]
fn a_missing_secret_is_an_error_of_its_account() {
    let maildir = "provider = \"maildir\"\npath = \"mailbox\"";
    let imap = "provider = \"imap\"\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\nusername = \"a@contoso.nl\"\n";
    for (secret, says) in [("env = \"SURELY_NOT_SET_3\"", "SURELY_NOT_SET_3"), ("file = \"absent.txt\"", "absent.txt")]
    {
        let place = Place::new(&JOB.replace(maildir, &format!("{imap}password = {{ {secret} }}")), 0);
        let ended = run(&mut place.import());
        let account = &ended.json()["accounts"][0];
        assert_eq!((ended.code, &account["error"]["kind"]), (2, &json!("invalid_config")), "{account}");
        let message = text(&account["error"]["message"]);
        assert!(message.contains("`accounts.box.password`") && message.contains(says), "{message}");
    }
}

#[test]
fn one_bad_account_stops_no_other() {
    let config = JOB.replace("[\"box\"]", "[\"bad\", \"box\"]")
        + "[accounts.bad]\nprovider = \"imap\"\nusername = \"a@contoso.nl\"\npassword = \"x\"\n";
    let place = Place::new(&config, 1);
    let ended = run(&mut place.import());
    let document = ended.json();
    assert_eq!(ended.code, 2);
    assert_eq!(document["accounts"][0]["status"], "error", "{document}");
    assert!(text(&document["accounts"][0]["error"]["message"]).contains("`accounts.bad.host` is missing"));
    assert_eq!((&document["accounts"][1]["status"], &document["accounts"][1]["imported"]), (&json!("done"), &json!(1)));
}

#[test]
fn a_ledger_of_another_mailbox_stops_until_it_is_explained() {
    let place = Place::new(JOB, 1);
    assert_eq!(run(&mut place.import()).code, 0);
    place.deliver("moved", 2);
    let moved = JOB.replace("\"mailbox\"", "\"moved\"");
    fs::write(place.path("mail.toml"), &moved).unwrap();
    let ended = run(&mut place.import());
    assert_eq!(ended.code, 2);
    let account = &ended.json()["accounts"][0];
    let message = text(&account["error"]["message"]);
    assert_eq!(account["status"], "error");
    assert!(
        message.contains("address") && message.contains("ledger = \"new\"") && message.contains("mailbox"),
        "{message}"
    );
    assert_eq!(count(&place.path("moved/new")), 2);

    fs::write(place.path("mail.toml"), moved + "ledger = \"new\"\n").unwrap();
    let ended = run(&mut place.import());
    assert_eq!((ended.code, &ended.json()["accounts"][0]["imported"]), (0, &json!(2)));
}

/// Nobody knows which mailbox a broken account was, so its ledger seems to be another's.
#[test]
fn a_broken_account_tells_what_is_wrong_with_itself() {
    let place = Place::new(JOB, 1);
    assert_eq!(run(&mut place.import()).code, 0);
    fs::write(place.path("mail.toml"), JOB.replace("path = \"mailbox\"", "path = 5")).unwrap();
    let ended = run(&mut place.import());
    let message = text(&ended.json()["accounts"][0]["error"]["message"]);
    assert!(ended.code == 2 && message.contains("`accounts.box.path` must be different"), "{message}");
}

/// The database opens, but is not what it was.
#[test]
fn a_ledger_that_cannot_be_read_is_the_only_thing_told() {
    use sqlx::Connection as _;

    let place = Place::new(JOB, 1);
    assert_eq!(run(&mut place.import()).code, 0);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let file = format!("sqlite:{}", place.path("mail-account.db").display());
        let mut database = sqlx::SqliteConnection::connect(&file).await.unwrap();
        for table in ["mail_account_messages", "mail_account_scopes"] {
            sqlx::query(sqlx::AssertSqlSafe(format!("DROP TABLE {table}"))).execute(&mut database).await.unwrap();
        }
        database.close().await.unwrap();
    });
    let (kind, message) = run(&mut place.import()).fatal();
    assert!(kind == "storage" && message.contains("mail-account.db"), "{kind}: {message}");
}

#[test]
fn an_unreadable_file_is_no_end_of_the_run() {
    let place = Place::new(JOB, 1);
    // A folder where a mail should be cannot be read by anybody.
    fs::create_dir(place.path("mailbox/new/1700000000.M1P1.host")).unwrap();
    let ended = run(&mut place.import());
    let document = ended.json();
    let account = &document["accounts"][0];
    assert_eq!(account["imported"], 1, "{document}");
    assert_eq!(place.in_processed(), 1);
}

/// What cannot be read now may hold an invoice: it is tried again like any other failure, and stays where it is.
#[cfg(unix)]
#[test]
fn an_unreadable_message_is_not_taken_for_an_empty_one() {
    let place = Place::new(JOB, 1);
    // A link that leads nowhere cannot be read by anybody.
    let file = place.path("mailbox/new/1700000000.M1P1.host");
    std::os::unix::fs::symlink("/nowhere/at/all", &file).unwrap();
    let ended = run(place.import().args(["--out", "out"]));
    let document = ended.json();
    let account = &document["accounts"][0];
    assert_eq!((ended.code, &account["imported"], &account["left"]), (1, &json!(1), &json!(1)), "{document}");
    let left = document["messages"].as_array().unwrap().iter().find(|message| message["outcome"] == "left").unwrap();
    assert!(text(&left["reason"]).contains("cannot be read"), "{left}");
    assert!(file.is_symlink(), "it is where it was");

    fs::remove_file(&file).unwrap();
    fs::write(&file, mail(7)).unwrap();
    run(place.command("failures").args(["--job", "daily", "--retry-all"]));
    let ended = run(place.import().args(["--out", "out"]));
    let document = ended.json();
    assert_eq!((ended.code, &document["accounts"][0]["imported"]), (0, &json!(1)), "{document}");
    assert_eq!(document["messages"][0]["attachments"][0]["file_name"], "factuur.pdf");
}

#[test]
fn an_attachment_called_like_a_temporary_file_is_kept() {
    let place = Place::new(JOB, 0);
    let mail = mail(0);
    // The same attachment twice, under two names.
    let at = mail.find("--b\r\nContent-Type: application/pdf").unwrap();
    let (before, attachment) = (&mail[..at], mail[at..].trim_end_matches("--b--\r\n"));
    let twice = format!("{before}{}{attachment}--b--\r\n", attachment.replace("factuur.pdf", "factuur.pdf.part"));
    fs::write(place.path("mailbox/new/1700000000.M1P1.host"), twice).unwrap();
    let document = run(place.import().args(["--out", "out"])).json();
    let attachments = document["messages"][0]["attachments"].as_array().unwrap();
    let names: Vec<_> = attachments.iter().map(|attachment| text(&attachment["file_name"])).collect();
    assert_eq!(names, ["factuur.pdf.part", "factuur.pdf"]);
    for attachment in attachments {
        assert_eq!(fs::read(place.path("out").join(text(&attachment["path"]))).unwrap(), b"%PDF-1", "{attachment}");
    }
}

#[cfg(unix)]
#[test]
fn a_run_that_a_person_stops_has_not_failed() {
    use std::io::{BufRead as _, BufReader};

    let place = Place::new(JOB, 1);
    let mut command = example("import");
    command.current_dir(place.folder.path()).args(["--config", "mail.toml", "--job", "daily", "--every", "1h"]);
    let mut running = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "Job daily", "the first run has ended");
    assert!(Command::new("kill").arg("-INT").arg(running.id().to_string()).status().unwrap().success());
    assert_eq!(running.wait().unwrap().code(), Some(0));
    assert_eq!(place.in_processed(), 1);
}

#[test]
fn folders_prints_the_documented_list() {
    let place = Place::new(JOB, 2);
    run(place.import().args(["--limit", "1"]));
    let ended = run(place.command("folders").args(["--account", "box"]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let folders = ended.json();
    let inbox = folders.as_array().unwrap().iter().find(|folder| folder["role"] == "inbox").unwrap();
    assert_eq!(keys(inbox), sorted(["path", "role", "id", "messages", "unread", "hidden", "search"]));
    assert_eq!((&inbox["messages"], &inbox["hidden"], &inbox["search"]), (&json!(1), &json!(false), &json!(false)));
    let processed = folders
        .as_array()
        .unwrap()
        .iter()
        .find(|folder| folder["path"] == "INBOX/Processed" || folder["path"] == "Inbox/Processed");
    assert_eq!(processed.unwrap()["messages"], 1, "{folders}");

    let (_, message) = run(place.command("folders").args(["--account", "bax"])).fatal();
    assert!(message.contains("there is no account `bax` in mail.toml; did you mean `box`?"), "{message}");
    let table =
        run(example("folders").current_dir(place.folder.path()).args(["--config", "mail.toml", "--account", "box"]));
    assert!(table.code == 0 && table.stdout.contains("Processed"), "{}", table.stdout);
}

#[test]
fn failures_prints_the_documented_list_and_queues() {
    let place = Place::new(JOB, 2);
    let failures = |arguments: &[&str]| run(place.command("failures").args(["--job", "daily"]).args(arguments));
    let ended = failures(&[]);
    assert_eq!((ended.code, ended.json()), (0, json!([])));

    // The host's handler refuses; the example only looks at what that left.
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let app = MailApp::load(place.path("mail.toml")).unwrap();
        let handler = handler_fn(|_: Delivery| async {
            Ok(Outcome::Reject(Reason::new("no-invoice", "No invoice.").with_dutch("Geen factuur.")))
        });
        let report = app.importer("daily").await.unwrap().run(handler).await.unwrap();
        assert_eq!(report.counts().failed, 2);
    });
    let ended = failures(&["--lang", "nl"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let rows = ended.json();
    let row = &rows[0];
    assert_eq!(keys(row), sorted(["key", "account", "subject", "reason", "code", "attempts", "last_attempt", "state"]));
    assert_eq!((&row["account"], &row["subject"], &row["attempts"]), (&json!("box"), &json!("Factuur 0"), &json!(1)));
    assert_eq!((&row["reason"], &row["code"]), (&json!("Geen factuur."), &json!("no-invoice")));
    assert_eq!(row["state"], "failed");
    text(&row["last_attempt"]).parse::<jiff::Timestamp>().unwrap();
    let table =
        run(example("failures").current_dir(place.folder.path()).args(["--config", "mail.toml", "--job", "daily"]));
    assert!(table.code == 0 && table.stdout.contains("No invoice."), "{}", table.stdout);

    let rows = failures(&["--retry", &text(&row["key"])]).json();
    let states: Vec<_> = rows.as_array().unwrap().iter().map(|row| text(&row["state"])).collect();
    assert_eq!(states, ["queued", "failed"]);
    failures(&["--retry-all"]);
    let document = run(&mut place.import()).json();
    assert_eq!(document["accounts"][0]["imported"], 2, "{document}");
    assert_eq!(place.in_processed(), 2);
    assert_eq!(failures(&[]).json(), json!([]));

    for (arguments, says) in [
        (&["--retry", "<9@x>"][..], "<9@x>"),
        (&["--retry", "x", "--retry-all"], "--retry-all"),
        (&["--lang", "fr"], "`en` or `nl`"),
    ] {
        let (_, message) = failures(arguments).fatal();
        assert!(message.contains(says), "{message}");
    }
    let (_, message) = run(place.command("failures").args(["--job", "daly"])).fatal();
    assert!(message.contains("did you mean `daily`?"), "{message}");
}
