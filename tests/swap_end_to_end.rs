//! The swap, end to end and both ways: one mailbox, served by Dovecot and by the fake of Graph. Half of it is imported
//! over one, the process is killed, the line of the configuration is changed, and the other finishes.
//!
//! Two servers cannot share a mailbox, so the test plays the part of Exchange: what was moved on one is moved on the
//! other before the swap ([`World::mirror`]). Copies are told apart by the second at which they were received.
//!
//! The processes are this program again, with the first argument `child`.

#[path = "support/dovecot.rs"]
mod dovecot;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, SystemTime},
};

use dovecot::{Dovecot, PASSWORD};
use futures::TryStreamExt as _;
use jiff::Timestamp;
use libtest_mimic::{Arguments, Failed, Trial};
use mail_account::{
    Delivery, FolderSpec, MailAccount, MailApp, Outcome, Query, Status, handler_fn,
    swap::{self, DifferenceKind, Rehearsal, Severity},
    testing::graph::{App, GraphFake, Language, Mailbox, Route},
};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [child, config, log] = args.as_slice()
        && child == "child"
    {
        return runtime().block_on(import(Path::new(config), Path::new(log)));
    }
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok::<(), Failed>(())
        })
    };
    let trials = vec![
        trial("half_over_imap_killed_and_finished_over_graph_and_back", there_and_back),
        trial("a_rehearsal_names_what_differs_and_nothing_else", seeded_differences),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What a child does: one run of the job, as the configuration has it. It writes down each message it is given.
async fn import(config: &Path, log: &Path) -> ExitCode {
    let app = MailApp::load(config).unwrap();
    let log = log.to_owned();
    let handler = handler_fn(move |mail: Delivery| {
        let log = log.clone();
        async move {
            for file in mail.attachments() {
                file.content().bytes(1 << 20).await?;
            }
            // One write: lines of several hand-overs do not mix.
            let line = format!("{}\t{}\n", serial(mail.subject.as_deref().unwrap_or_default()), mail.id());
            fs::OpenOptions::new().append(true).create(true).open(log)?.write_all(line.as_bytes())?;
            Ok(Outcome::Imported)
        }
    });
    let report = app.importer("facturen").await.unwrap().run(handler).await.unwrap();
    let account = &report.accounts[0];
    assert!(account.counts.closes(), "{:?}", account.counts);
    println!("{} {:?} {:?}", account.status.as_str(), account.counts, account.error);
    if account.status == Status::Done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The number in a subject such as `Factuur 17 café`.
fn serial(subject: &str) -> usize {
    let number = subject.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no number in {subject:?}"))
}

const BASE: i64 = 1_790_000_000;

fn received(copy: usize) -> Timestamp {
    Timestamp::from_second(BASE + 60 * i64::try_from(copy).unwrap()).unwrap()
}

/// Which message a copy is of: every tenth is a resent copy of another.
fn serial_of(copy: usize) -> usize {
    if copy % 10 == 6 { copy - 2 } else { copy }
}

/// A message of every kind that the rules of identity treat on their own.
fn message(copy: usize) -> Vec<u8> {
    let n = serial_of(copy);
    let date = received(n).strftime("%a, %d %b %Y %H:%M:%S +0000").to_string();
    let (scanner, own) = ("<scan@printer.contoso.nl>".to_owned(), format!("<factuur.{n}@leverancier.example>"));
    let id = match n % 10 {
        0 | 3 => None,
        1 | 2 => Some(scanner),
        _ => Some(own),
    };
    let mut mail = Vec::new();
    let mut line = |text: &[u8]| {
        mail.extend_from_slice(text);
        mail.extend_from_slice(b"\r\n");
    };
    if copy != n {
        line(b"Resent-From: <balie@contoso.nl>");
        line(format!("Resent-Date: {}", received(copy).strftime("%a, %d %b %Y %H:%M:%S +0000")).as_bytes());
    }
    match n % 10 {
        // Raw Latin-1 in a name, and raw UTF-8 in a subject.
        5 => line(b"From: Caf\xe9 Ren\xe9 <verkoop@leverancier.example>"),
        _ => line(b"From: Leverancier BV <Verkoop@Leverancier.example>"),
    }
    line(b"To: facturen@contoso.nl");
    match n % 10 {
        4 => line(format!("Subject: Factuur {n} voor caf\u{e9} \u{2018}De Brug\u{2019}").as_bytes()),
        7 => line(format!("Subject: Factuur  {n}\r\n   met   veel wit").as_bytes()),
        9 => line(format!("Subject: =?utf-8?Q?Factuur_{n}_=E2=82=AC?=").as_bytes()),
        _ => line(format!("Subject: Factuur {n}").as_bytes()),
    }
    line(format!("Date: {date}").as_bytes());
    if let Some(id) = id {
        line(format!("Message-ID: {id}").as_bytes());
    }
    line(b"MIME-Version: 1.0");
    if matches!(n % 10, 2 | 3) {
        line(b"Content-Type: text/plain; charset=utf-8\r\n");
        line(format!("Wij schrijven {n} euro af.").as_bytes());
        return mail;
    }
    line(b"Content-Type: multipart/mixed; boundary=grens\r\n");
    line(b"--grens\r\nContent-Type: text/plain\r\n\r\nBijgaand.");
    let mut file = |name: &str, text: &str| {
        line(format!("--grens\r\nContent-Type: application/xml; name=\"{name}\"\r\nContent-Disposition: attachment; filename=\"{name}\"\r\nContent-Transfer-Encoding: base64\r\n").as_bytes());
        line(base64(text.as_bytes()).as_bytes());
    };
    file(&format!("factuur-{n}.xml"), &format!("<factuur>{n}</factuur>\r\n"));
    if n % 10 == 7 {
        file("voorwaarden.xml", "<voorwaarden/>\n");
    }
    if n % 10 == 8 {
        line(b"--grens\r\nContent-Type: message/rfc822\r\n");
        line(format!("From: a@leverancier.example\r\nSubject: Bestelling {n}\r\n\r\nGraag.").as_bytes());
    }
    line(b"--grens--");
    mail
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let group = three.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let six = (group >> (18 - 6 * at)) & 63;
            out.push(if at <= three.len() { ALPHABET[six as usize] as char } else { '=' });
        }
    }
    out
}

const PROCESSED: &str = "Inbox/Ge\u{ef}mporteerd";
const FAILED: &str = "Inbox/Mislukt";
const SECRET: &str = "canary-5ecr3t~value";

/// One mailbox, twice.
struct World {
    folder: tempfile::TempDir,
    server: Dovecot,
    user: String,
    fake: GraphFake,
    app: App,
    mailbox: Mailbox,
    copies: usize,
    /// What other clients say to Dovecot, line by line.
    overheard: Arc<Mutex<Vec<String>>>,
    overhearing: u16,
}

impl World {
    async fn new(copies: usize) -> Self {
        let server = Dovecot::start();
        let user = server.user();
        let fake = GraphFake::start().await;
        let app = fake.app("invoices").secret(SECRET).permissions(["Mail.ReadWrite"]).create();
        let mailbox = fake.mailbox(&user).language(Language::Dutch).create();
        let overheard = Arc::<Mutex<Vec<String>>>::default();
        let overhearing = overhear(server.port, Arc::clone(&overheard));
        let folder = tempfile::tempdir().unwrap();
        let mut world = Self { folder, server, user, fake, app, mailbox, copies: 0, overheard, overhearing };
        world.swap_to("oud");
        let imap = world.open("oud");
        for folder in [PROCESSED, FAILED] {
            imap.create_folder(&folder.parse().unwrap()).await.unwrap();
            world.mailbox.create_folder(folder);
        }
        world.deliver(copies);
        world
    }

    /// More mail, the same in both.
    fn deliver(&mut self, copies: usize) {
        for copy in self.copies..self.copies + copies {
            let (mail, at) = (message(copy), received(copy));
            self.server.deliver(
                &self.user,
                "",
                &mail,
                SystemTime::UNIX_EPOCH + Duration::from_secs(at.as_second() as u64),
            );
            self.mailbox.deliver_at("Inbox", mail, at);
        }
        self.copies += copies;
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("mail.toml")
    }

    /// The swap: one line.
    fn swap_to(&self, account: &str) {
        let password = PASSWORD.replace('"', "\\\"");
        let text = format!(
            r#"
            [registrations.contoso]
            tenant = "{tenant}"
            client_id = "{client_id}"
            client_secret = "{SECRET}"
            login_url = "{login}"
            graph_url = "{graph}"

            [accounts.oud]
            provider = "imap"
            host = "localhost"
            port = {port}
            ca_file = "{ca}"
            username = "{user}"
            password = "{password}"

            # The same, where the test hears what is said.
            [accounts.oud-overheard]
            provider = "imap"
            host = "127.0.0.1"
            port = {overhearing}
            tls = "none"
            username = "{user}"
            password = "{password}"

            [accounts.nieuw]
            provider = "graph"
            registration = "contoso"
            auth = "app"
            mailbox = "{user}"

            [accounts.ander]
            provider = "graph"
            registration = "contoso"
            auth = "app"
            mailbox = "inkoop@contoso.nl"
            address = "{user}"

            [jobs.facturen]
            accounts = ["{account}"]
            import_folder = "Inbox"
            processed_folder = "{PROCESSED}"
            failed_folder = "{FAILED}"
            "#,
            tenant = self.fake.tenant(),
            client_id = self.app.client_id(),
            login = self.fake.login_url(),
            graph = self.fake.graph_url(),
            port = self.server.tls_port,
            ca = self.server.ca_file.display(),
            user = self.user,
            overhearing = self.overhearing,
        );
        fs::write(self.config(), text).unwrap();
    }

    fn app(&self) -> MailApp {
        MailApp::load(self.config()).unwrap()
    }

    fn open(&self, account: &str) -> Arc<dyn MailAccount> {
        self.app().account(account).unwrap()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("hand-overs")
    }

    /// Message and delivery of every hand-over so far.
    fn handed_over(&self) -> Vec<(usize, String)> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let line = |line: &str| {
            let (serial, delivery) = line.split_once('\t').unwrap();
            (serial.parse().unwrap(), delivery.to_owned())
        };
        text.lines().map(line).collect()
    }

    fn start(&self) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("child").arg(self.config()).arg(self.log());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts a run, and kills it at a random moment once so many hand-overs have been made.
    fn run_and_kill(&self, after: usize) {
        let mut child = self.start();
        let random = u64::from(SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_micros());
        while self.handed_over().len() < after {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
            thread::sleep(Duration::from_millis(2));
        }
        thread::sleep(Duration::from_micros(random % 50_000));
        // On Unix this is SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Runs to the end; the child itself asserts that its sums close.
    fn run(&self) -> String {
        let output = self.start().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    /// The copies in a folder on Dovecot, with their handles.
    async fn on_dovecot(&self, folder: &str) -> BTreeMap<Timestamp, mail_account::MessageId> {
        let imap = self.open("oud");
        let folder = imap.resolve_folder(&folder.parse().unwrap()).await.unwrap().id;
        let messages = imap.fetch_messages(&folder, Query::default().with_inline_up_to(0));
        messages.map_ok(|mail| (mail.received, mail.id)).try_collect().await.unwrap()
    }

    fn on_graph(&self, folder: &str) -> BTreeMap<Timestamp, String> {
        self.mailbox.messages(folder).into_iter().map(|mail| (mail.received, mail.id)).collect()
    }

    /// What one account has moved to the processed folder is there for the other too.
    async fn mirror(&self) {
        let (imap, graph) = (self.on_dovecot(PROCESSED).await, self.on_graph(PROCESSED));
        let waiting = self.on_graph("Inbox");
        for at in imap.keys().filter(|at| !graph.contains_key(at)) {
            self.mailbox.move_message(&waiting[at], PROCESSED);
        }
        let waiting = self.on_dovecot("Inbox").await;
        let ids: Vec<_> = graph.keys().filter(|at| !imap.contains_key(at)).map(|at| waiting[at].clone()).collect();
        let account = self.open("oud");
        let to = account.resolve_folder(&PROCESSED.parse::<FolderSpec>().unwrap()).await.unwrap().id;
        for moved in account.move_to_processed(&ids, &to).await {
            moved.unwrap();
        }
    }

    /// The rehearsal, over a wire on which everything is heard: neither server is asked to change anything.
    async fn rehearse(&self, old: &str, new: &str) -> Rehearsal {
        let app = self.app();
        self.overheard.lock().unwrap().clear();
        self.fake.reset_counters();
        let (old, new) = (app.account(old).unwrap(), app.account(new).unwrap());
        let ledger = app.ledger().await.unwrap();
        let found = swap::rehearse(&*old, &*new, app.job("facturen").unwrap(), Some(&*ledger)).await.unwrap();
        let requests = self.fake.requests();
        let reads = |route: Route, method: &str| method == "GET" || matches!(route, Route::Token | Route::Batch);
        let writes: Vec<_> = requests.iter().filter(|r| !reads(r.route, &r.method)).collect();
        assert!(!requests.is_empty() && writes.is_empty(), "{writes:?}");
        let heard = self.overheard.lock().unwrap();
        const WRITES: [&str; 9] =
            ["SELECT", "STORE", "COPY", "MOVE", "EXPUNGE", "APPEND", "CREATE", "DELETE", "RENAME"];
        let is_write =
            |line: &&String| line.to_ascii_uppercase().split(' ').skip(1).take(2).any(|word| WRITES.contains(&word));
        let writes: Vec<_> = heard.iter().filter(is_write).collect();
        assert!(heard.iter().any(|line| line.contains("EXAMINE")), "the wire shows nothing, so it proves nothing");
        assert!(writes.is_empty(), "{writes:?}");
        found
    }

    /// Every message was given to the host as one delivery, and every copy was moved.
    async fn verify(&self, kills: usize, swapped_to: &str) {
        let mut deliveries = BTreeMap::<usize, BTreeSet<String>>::new();
        let handed_over = self.handed_over();
        for (serial, delivery) in &handed_over {
            deliveries.entry(*serial).or_default().insert(delivery.clone());
        }
        let all: BTreeSet<_> = (0..self.copies).map(serial_of).collect();
        assert_eq!(deliveries.keys().copied().collect::<BTreeSet<_>>(), all, "something was never imported");
        let twice: Vec<_> = deliveries.iter().filter(|(_, ids)| ids.len() > 1).collect();
        assert!(twice.is_empty(), "imported twice: {twice:?}");
        // What was in hand when the process died is handed over again, under the same delivery id.
        let again = handed_over.len() - all.len();
        assert!(again <= 4 * kills, "{again} hand-overs were repeated");
        let copies: BTreeSet<_> = (0..self.copies).map(received).collect();
        let (inbox, processed) = match swapped_to {
            "nieuw" => (self.on_graph("Inbox").len(), self.on_graph(PROCESSED).into_keys().collect::<BTreeSet<_>>()),
            _ => (self.on_dovecot("Inbox").await.len(), self.on_dovecot(PROCESSED).await.into_keys().collect()),
        };
        assert_eq!(inbox, 0, "something is left in the inbox");
        assert_eq!(processed, copies);
    }
}

/// A way to Dovecot on which everything is heard.
fn overhear(server: u16, heard: Arc<Mutex<Vec<String>>>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
            let (mut down_from, mut down_to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut down_from, &mut down_to);
                let _ = down_to.shutdown(std::net::Shutdown::Both);
            });
            let heard = Arc::clone(&heard);
            thread::spawn(move || {
                let (mut client, mut server) = (client, server);
                let (mut piece, mut line) = ([0; 4096], Vec::new());
                while let Ok(n @ 1..) = client.read(&mut piece) {
                    if server.write_all(&piece[..n]).is_err() {
                        break;
                    }
                    for byte in &piece[..n] {
                        line.push(*byte);
                        if *byte == b'\n' {
                            heard.lock().unwrap().push(String::from_utf8_lossy(&line).trim().to_owned());
                            line.clear();
                        }
                    }
                }
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    port
}

fn blocking(found: &Rehearsal) -> Vec<(DifferenceKind, &str)> {
    let blocking = found.differences.iter().filter(|d| d.severity == Severity::Blocking);
    blocking.map(|d| (d.kind, d.detail.as_str())).collect()
}

fn there_and_back() {
    runtime().block_on(async {
        let mut world = World::new(500).await;
        let found = world.rehearse("oud-overheard", "nieuw").await;
        assert!(found.safe() && found.old.folders[0].messages == Some(500), "{:#?}", blocking(&found));

        // Half over IMAP, then dead.
        world.run_and_kill(220);
        world.mirror().await;
        let found = world.rehearse("oud-overheard", "nieuw").await;
        assert!(found.safe(), "{:#?}", blocking(&found));
        world.swap_to("nieuw");
        world.run_and_kill(340);
        let said = world.run();
        world.verify(2, "nieuw").await;
        // Nothing is left to do.
        assert!(world.run().contains("imported: 0"), "{said}");

        // And back: what is new is begun over Graph, and finished over IMAP.
        world.deliver(100);
        world.run_and_kill(world.handed_over().len() + 40);
        world.mirror().await;
        let found = world.rehearse("nieuw", "oud-overheard").await;
        assert!(found.safe(), "{:#?}", blocking(&found));
        world.swap_to("oud");
        world.run();
        world.verify(3, "oud").await;
    });
}

fn seeded_differences() {
    runtime().block_on(async {
        const ALL: usize = 40;
        let world = World::new(ALL).await;
        let rehearse = async |new: &str| world.rehearse("oud-overheard", new).await;
        let named = |found: &Rehearsal, kind: DifferenceKind, what: &str| {
            assert!(!found.safe());
            let blocking = blocking(found);
            assert!(
                blocking.len() == 1 && blocking[0].0 == kind && blocking[0].1.contains(what),
                "{kind:?}: {blocking:#?}"
            );
        };
        let clean = rehearse("nieuw").await;
        assert!(clean.safe(), "{:#?}", blocking(&clean));
        let at = |copy: usize| world.on_graph("Inbox")[&received(copy)].clone();

        // A message is missing, with and without a Message-ID of its own.
        for copy in [19, 10, 31] {
            let id = at(copy);
            world.mailbox.delete_message(&id);
            named(&rehearse("nieuw").await, DifferenceKind::MessageMissing, &format!("Factuur {copy}"));
            world.mailbox.deliver_at("Inbox", message(copy), received(copy));
        }
        // Other bytes.
        world.mailbox.delete_message(&at(27));
        let changed = String::from_utf8(message(27))
            .unwrap()
            .replace(&base64(b"<factuur>27</factuur>\r\n"), &base64(b"<factuur>72</factuur>\r\n"));
        let changed = world.mailbox.deliver_at("Inbox", changed, received(27));
        named(&rehearse("nieuw").await, DifferenceKind::ContentDiffers, "Factuur 27");
        world.mailbox.delete_message(&changed);
        world.mailbox.deliver_at("Inbox", message(27), received(27));
        assert!(rehearse("nieuw").await.safe());
        // A folder.
        world.mailbox.remove_folder(FAILED);
        named(&rehearse("nieuw").await, DifferenceKind::FolderMissing, FAILED);
        world.mailbox.create_folder(FAILED);
        // Another mailbox, that claims to be this one.
        let other = world.fake.mailbox("inkoop@contoso.nl").create();
        for folder in [PROCESSED, FAILED] {
            other.create_folder(folder);
        }
        for n in 0..ALL {
            let mail =
                format!("From: x@y.example\r\nMessage-ID: <{n}@ander.example>\r\nSubject: Bestelling {n}\r\n\r\nx\r\n");
            other.deliver_at("Inbox", mail, received(n));
        }
        named(&rehearse("ander").await, DifferenceKind::OtherMailbox, "two mailboxes");
        // A permission.
        world.app.revoke("Mail.ReadWrite");
        named(&rehearse("nieuw").await, DifferenceKind::NewAccountError, "may not do this");
    });
}
