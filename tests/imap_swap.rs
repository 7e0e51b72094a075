//! One mailbox, three accounts: the same job with the configuration changed in one place sees the same mail.
#![cfg(all(feature = "imap", feature = "graph"))]

#[path = "support/dovecot.rs"]
mod dovecot;
#[path = "support/tenant.rs"]
mod tenant;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use dovecot::{Dovecot, PASSWORD};
use jiff::Timestamp;
use mail_account::{
    AttachmentKind, Delivery, MailApp, Outcome, Status, handler_fn,
    swap::{self, Severity},
    testing::MemoryLedger,
};
use sha2::{Digest as _, Sha256};
use tenant::{SECRET, Tenant};

/// What the job must see in the same way, by key.
type Mail = BTreeMap<String, String>;

struct World {
    server: Dovecot,
    user: String,
    tenant: Tenant,
}

impl World {
    /// The demo's mail, each message in both mailboxes. Dovecot's folder is also what the Maildir account reads.
    async fn new() -> (Self, usize) {
        let world = Self::empty().await;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data");
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "eml"));
        files.sort();
        for (n, path) in files.iter().enumerate() {
            let received = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + 60 * n as u64);
            let raw = fs::read(path).unwrap();
            world.server.deliver(&world.user, "", &raw, received);
            world.tenant.mailbox.deliver_at("Inbox", raw, Timestamp::try_from(received).unwrap());
        }
        (world, files.len())
    }

    async fn empty() -> Self {
        let server = Dovecot::start();
        let user = server.user();
        Self { server, user, tenant: Tenant::start().await }
    }

    /// `account` is the one line that a swap changes.
    fn app(&self, account: &str) -> MailApp {
        let text = format!(
            r#"
[accounts.on-disk]
provider = "maildir"
path = "{maildir}"
address = "facturen@contoso.nl"

[accounts.before]
provider = "imap"
host = "localhost"
port = {port}
ca_file = "{ca_file}"
username = "{user}"
password = {{ file = "password.txt" }}
address = "facturen@contoso.nl"

[accounts.after]
provider = "graph"
tenant = "{tenant}"
client_id = "{client_id}"
client_secret = "{SECRET}"
login_url = "{login}"
graph_url = "{graph}"
auth = "app"
mailbox = "facturen@contoso.nl"

[jobs.invoices]
accounts = ["{account}"]
import_folder = "Inbox"
"#,
            maildir = self.server.maildir(&self.user, "").display(),
            port = self.server.tls_port,
            ca_file = self.server.ca_file.display(),
            user = self.user,
            tenant = self.tenant.fake.tenant(),
            client_id = self.tenant.app.client_id(),
            login = self.tenant.fake.login_url(),
            graph = self.tenant.fake.graph_url(),
        );
        let folder = self.server.ca_file.parent().unwrap();
        fs::write(folder.join("password.txt"), PASSWORD).unwrap();
        MailApp::from_str(&text, folder).unwrap().with_ledger(Arc::new(MemoryLedger::new()))
    }

    async fn seen(&self, account: &str) -> Mail {
        let seen: Arc<Mutex<Mail>> = Arc::default();
        let noted = Arc::clone(&seen);
        let handler = handler_fn(move |mail: Delivery| {
            let noted = Arc::clone(&noted);
            async move {
                let mut files = Vec::new();
                // Attached messages are rendered anew by services, and are not what invoices come in.
                for file in mail.attachments().iter().filter(|file| file.kind == AttachmentKind::File) {
                    let bytes = file.content().bytes(10 << 20).await?;
                    files.push(format!("{} {}", file.file_name(), folded(&bytes)));
                }
                files.sort();
                let addresses = |list: &[mail_account::Address]| {
                    list.iter().map(|a| a.address.to_lowercase()).collect::<Vec<_>>().join(",")
                };
                let from = mail.from.as_slice();
                let text = format!(
                    "{:?} from {} to {} sent {:?} files {files:#?}",
                    mail.subject,
                    addresses(from),
                    addresses(&mail.to),
                    mail.sent.map(|at| at.as_second()),
                );
                let key = format!("{} {}", mail.key(), mail.discriminator());
                noted.lock().unwrap().insert(key, text);
                Ok(Outcome::Imported)
            }
        });
        let report = self.app(account).importer("invoices").await.unwrap().run(handler).await.unwrap();
        assert_eq!(report.accounts[0].status, Status::Done, "{account}: {:?}", report.accounts[0].error);
        std::mem::take(&mut seen.lock().unwrap())
    }
}

/// Of the bytes with every line end as LF: text comes with either.
fn folded(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        if !(*byte == b'\r' && bytes.get(at + 1) == Some(&b'\n')) {
            text.push(*byte);
        }
    }
    Sha256::digest(&text)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What Exchange makes of these, and of no other: the beginning of the subject, and how it differs.
const CONVERTED: [(&str, Converted); 3] = [
    ("[[0001]] SCN_20260203_081512", Converted::MessageId),
    // The parts of a delivery report are called after what they are.
    ("Undelivered Mail", Converted::Names),
    // A winmail.dat is opened.
    ("Factuur LL-61207", Converted::Files),
];

#[derive(Clone, Copy, PartialEq)]
enum Converted {
    MessageId,
    Names,
    Files,
}

/// Without what Exchange is known to convert.
fn comparable(mail: &Mail) -> Vec<String> {
    let mut all = Vec::new();
    for (key, text) in mail {
        let found = CONVERTED.iter().find(|(subject, _)| text.starts_with(&format!("Some(\"{subject}")));
        let (head, files) = text.split_once(" files ").unwrap();
        let hashes: Vec<_> = files.split('"').skip(1).step_by(2).map(|file| file.rsplit(' ').next().unwrap()).collect();
        all.push(match found.map(|(_, converted)| converted) {
            None => format!("{key} {text}"),
            Some(Converted::MessageId) => text.clone(),
            Some(Converted::Names) => format!("{key} {head} {hashes:?}"),
            Some(Converted::Files) => format!("{key} {head}"),
        });
    }
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_sees_the_same_mail_through_every_account() {
    let (world, count) = World::new().await;
    let on_disk = world.seen("on-disk").await;
    assert_eq!(on_disk.len(), count);
    assert_eq!(on_disk, world.seen("before").await, "maildir and imap");
    let after = world.seen("after").await;
    assert_eq!(comparable(&on_disk), comparable(&after), "maildir and graph");
    let differing: Vec<_> = on_disk.iter().filter(|(key, text)| after.get(*key) != Some(*text)).collect();
    assert_eq!(differing.len(), CONVERTED.len(), "each of them is needed: {differing:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rehearsal_finds_the_swap_safe() {
    let (world, count) = World::new().await;
    let app = world.app("before");
    let (old, new) = (app.account("before").unwrap(), app.account("after").unwrap());
    let rehearsal = swap::rehearse(&*old, &*new, app.job("invoices").unwrap(), None).await.unwrap();
    assert!(rehearsal.safe(), "{:#?}", rehearsal.differences);
    assert_eq!(rehearsal.new.folders[0].messages, Some(count), "{rehearsal:#?}");
    let told: Vec<_> = rehearsal.differences.iter().filter(|d| d.severity != Severity::Info).collect();
    println!("{told:#?}");
}
