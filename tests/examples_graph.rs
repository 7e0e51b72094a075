//! The examples on Graph: the demo job as it is, on the fake as a process of its own, and the swap from a Maildir.
#![cfg(feature = "graph")]

#[path = "support/example.rs"]
mod example;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Stdio},
};

use example::example;
use serde_json::Value;

/// The fake as a process; it ends with the test.
struct Fake {
    process: Child,
    told: Value,
}

impl Fake {
    fn start(arguments: &[&str]) -> Self {
        let mut process = example("graph_fake").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, told: serde_json::from_str(&line).unwrap() }
    }

    fn text(&self, key: &str) -> &str {
        self.told[key].as_str().unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn import(config: &Path, out: Option<&Path>) -> (i32, Value) {
    let mut command = example("import");
    command.args(["--json", "--job", "demo", "--config"]).arg(config);
    if let Some(out) = out {
        command.arg("--out").arg(out);
    }
    let ended = command.output().unwrap();
    let stdout = String::from_utf8(ended.stdout).unwrap();
    let json = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"));
    (ended.status.code().unwrap(), json)
}

/// Of each message its files, by name and hash.
fn files(document: &Value) -> BTreeMap<String, Vec<(String, String)>> {
    let files = |message: &Value| {
        let list = message["attachments"].as_array().unwrap().iter();
        let list = list.filter(|file| file["kind"] == "file" && !file["sha256"].is_null());
        let mut list: Vec<_> = list.map(|f| (f["file_name"].to_string(), f["sha256"].to_string())).collect();
        list.sort();
        (message["id"].to_string(), list)
    };
    document["messages"].as_array().unwrap().iter().map(files).collect()
}

#[test]
fn the_demo_job_runs_unchanged_on_graph() {
    let mails = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data");
    let count =
        fs::read_dir(&mails).unwrap().filter(|f| f.as_ref().unwrap().path().extension() == Some("eml".as_ref()));
    let count = count.count();
    let fake = Fake::start(&["--language", "nl", "--dir", mails.to_str().unwrap()]);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mail.toml");
    let text = format!(
        r#"
[accounts.demo]
provider = "graph"
auth = "app"
mailbox = "{}"
tenant = "{}"
client_id = "{}"
client_secret = "{}"
login_url = "{}"
graph_url = "{}"

[jobs.demo]
accounts = ["demo"]
import_folder = "Inbox"
processed_folder = "Inbox/Processed"
failed_folder = "Inbox/Failed"
create_folders = true
"#,
        fake.told["mailboxes"][0].as_str().unwrap(),
        fake.text("tenant"),
        fake.text("client_id"),
        fake.text("client_secret"),
        fake.text("login_url"),
        fake.text("graph_url"),
    );
    fs::write(&config, text).unwrap();
    let out = folder.path().join("out");
    let (code, first) = import(&config, Some(&out));
    let account = &first["accounts"][0];
    assert_eq!((code, &account["status"]), (0, &Value::from("done")), "{account}");
    assert_eq!((&account["provider"], &account["imported"]), (&Value::from("graph"), &Value::from(count)));
    assert_eq!((&account["unmoved"], &account["error"]), (&Value::from(0), &Value::Null));
    let all = files(&first);
    assert!(all.values().map(Vec::len).sum::<usize>() >= 15, "{all:?}");
    for message in first["messages"].as_array().unwrap() {
        assert_eq!(message["outcome"], "imported");
        for file in message["attachments"].as_array().unwrap() {
            let path = out.join(file["path"].as_str().unwrap());
            assert_eq!(fs::metadata(&path).unwrap().len(), file["bytes"].as_u64().unwrap(), "{path:?}");
        }
    }
    let (code, second) = import(&config, Some(&out));
    assert_eq!((code, &second["accounts"][0]["seen"]), (0, &Value::from(0)), "{second}");
    assert!(second["accounts"][0]["requests"].as_u64().unwrap() <= 10, "{second}");
}

#[test]
fn a_swap_half_way_gives_equal_results() {
    let ended = example("swap_demo").arg("--json").output().unwrap();
    let document: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{document:#}");
    assert_eq!(document["equal"], true);
    let messages = document["messages"].as_array().unwrap();
    assert!(messages.len() >= 16);
    for message in messages {
        let (one, other) = (&message["maildir"], &message["graph"]);
        for key in ["subject", "from", "to", "sent"] {
            assert_eq!(one[key], other[key], "{message:#}");
        }
        if message["converted"].as_array().unwrap().is_empty() {
            assert_eq!(one, other, "{message:#}");
        }
    }
    // What Exchange makes up or opens is said, and is the exception.
    assert_eq!(messages.iter().filter(|m| !m["converted"].as_array().unwrap().is_empty()).count(), 2);
    let swap = &document["swap"];
    assert_eq!(swap["safe"], true, "{swap:#}");
    let (before, after) = (swap["before"].as_u64().unwrap(), swap["after"].as_u64().unwrap());
    assert!(before > 0 && after > 0 && before + after == messages.len() as u64, "{swap:#}");
    assert_eq!(
        (&swap["lost"], &swap["twice"], &swap["left"]),
        (&Value::from([""; 0].to_vec()), &Value::from([""; 0].to_vec()), &Value::from(0))
    );
}
