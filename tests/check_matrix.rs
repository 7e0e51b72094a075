//! Every cause, provoked by something that really answers that way: the fake of Graph and of its sign-in, Dovecot, a
//! server that plays lines, TLS with certificates that are wrong in one way each, a proxy, a port where nobody listens.
//!
//! What is said in each case is kept in `tests/snapshots/check.en.txt` and `check.nl.txt`; `RENEW=1` writes them anew.
#![cfg(all(feature = "graph", feature = "imap", feature = "certificate"))]

#[path = "support/dovecot.rs"]
mod dovecot;

use std::{
    any::Any,
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use dovecot::{Dovecot, Options, PASSWORD};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use mail_account::{
    Language, MailApp,
    check::{Cause, Report, StepId, StepStatus, Who},
    testing::{
        graph::{AppBuilder, Fault, GraphFake, Language as FolderLanguage, MailboxState, RetryAfter, Route},
        mail,
    },
};

/// One way to go wrong, and what is to be said about it.
struct Case {
    cause: Cause,
    who: Who,
    step: StepId,
    app: MailApp,
    account: &'static str,
    job: Option<&'static str>,
    /// Nothing that changes a mailbox may reach it.
    fake: Option<GraphFake>,
    /// Servers, and the folder of the configuration.
    _keep: Vec<Box<dyn Any + Send>>,
}

const SECRET: &str = "canary-5ecr3t~value";
const MAILBOX: &str = "facturen@contoso.nl";

/// A configuration with one job on its first account.
fn configured(accounts: &str, job: &str) -> (MailApp, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let app = MailApp::from_str(&format!("{accounts}\n[jobs.facturen]\naccounts = [\"first\"]\n{job}"), folder.path());
    (app.unwrap_or_else(|e| panic!("{}\n{accounts}", e.chain())), folder)
}

const JOB: &str = "import_folder = \"Inbox\"\nprocessed_folder = \"Inbox/Processed\"";

/// An account on the fake; `change` replaces or adds lines by their key.
fn graph_account(name: &str, fake: &GraphFake, client_id: &str, mailbox: &str, change: &[(&str, &str)]) -> String {
    let quoted = |value: &str| format!("\"{value}\"");
    let mut lines = vec![
        ("provider", quoted("graph")),
        ("tenant", quoted(&fake.tenant())),
        ("client_id", quoted(client_id)),
        ("client_secret", quoted(SECRET)),
        ("auth", quoted("app")),
        ("mailbox", quoted(mailbox)),
        ("login_url", quoted(&fake.login_url())),
        ("graph_url", quoted(&fake.graph_url())),
    ];
    for (key, value) in change {
        lines.retain(|(known, _)| known != key);
        if !value.is_empty() {
            lines.push((key, (*value).to_owned()));
        }
    }
    let lines = lines.iter().fold(String::new(), |text, (key, value)| format!("{text}{key} = {value}\n"));
    format!("[accounts.{name}]\n{lines}")
}

/// A tenant with the mailbox, one invoice and a folder for what was handled.
async fn tenant(of_app: impl FnOnce(AppBuilder) -> AppBuilder) -> (GraphFake, String) {
    let fake = GraphFake::start().await;
    let app = of_app(fake.app("invoices")).create();
    let mailbox = fake.mailbox(MAILBOX).language(FolderLanguage::Dutch).create();
    mailbox.deliver("inbox", mail().with_attachment("factuur.pdf", "%PDF").build());
    mailbox.create_folder("Inbox/Processed");
    (fake, app.client_id())
}

fn right(app: AppBuilder) -> AppBuilder {
    app.secret(SECRET).permissions(["Mail.ReadWrite"])
}

fn case(cause: Cause, who: Who, step: StepId, accounts: &str, job: &str) -> Case {
    let (app, folder) = configured(accounts, job);
    let keep: Vec<Box<dyn Any + Send>> = vec![Box::new(folder)];
    Case { cause, who, step, app, account: "first", job: Some("facturen"), fake: None, _keep: keep }
}

impl Case {
    fn on(mut self, fake: &GraphFake) -> Self {
        self.fake = Some(fake.clone());
        self
    }

    fn keep(mut self, server: impl Any + Send) -> Self {
        self._keep.push(Box::new(server));
        self
    }
}

/// The right account on a fake that a fault makes answer wrongly.
async fn faulty(cause: Cause, who: Who, step: StepId, fault: Fault) -> Case {
    let (fake, id) = tenant(right).await;
    fake.fault(fault);
    case(cause, who, step, &graph_account("first", &fake, &id, MAILBOX, &[]), JOB).on(&fake)
}

async fn entra(cause: Cause, who: Who, step: StepId, error: &str, code: u32) -> Case {
    faulty(cause, who, step, Fault::entra(400, error, code, "Refused.")).await
}

/// The right fake with an account that is wrong in one line.
async fn miswritten(cause: Cause, who: Who, step: StepId, key: &str, value: &str) -> Case {
    let (fake, id) = tenant(right).await;
    case(cause, who, step, &graph_account("first", &fake, &id, MAILBOX, &[(key, value)]), JOB).on(&fake)
}

async fn granted(cause: Cause, who: Who, step: StepId, of_app: impl FnOnce(AppBuilder) -> AppBuilder) -> Case {
    let (fake, id) = tenant(of_app).await;
    let accounts = graph_account("first", &fake, &id, MAILBOX, &[])
        + &graph_account("second", &fake, &id, "inkoop@contoso.nl", &[]);
    fake.mailbox("inkoop@contoso.nl").create();
    case(cause, who, step, &accounts, JOB).on(&fake)
}

async fn folders(cause: Cause, who: Who, step: StepId, job: &str) -> Case {
    let (fake, id) = tenant(right).await;
    let mailbox = fake.mailbox("met-zoekmap@contoso.nl").create();
    mailbox.create_folder("Inbox/Processed");
    mailbox.create_search_folder("Ongelezen", &["inbox"]);
    case(cause, who, step, &graph_account("first", &fake, &id, "met-zoekmap@contoso.nl", &[]), job).on(&fake)
}

/// What the directory says of a user whose mailbox does not answer.
async fn absent(cause: Cause, who: Who, permissions: &[&str], licensed: Option<Timestamp>, synced: bool) -> Case {
    let fake = GraphFake::start().await;
    let app = fake.app("invoices").secret(SECRET).permissions(permissions.iter().copied()).create();
    let mut user = fake.mailbox(MAILBOX).state(MailboxState::NotEnabled);
    if let Some(since) = licensed {
        user = user.licensed_since(since);
    }
    let _ = if synced { user.synced() } else { user }.create();
    case(cause, who, StepId::Mailbox, &graph_account("first", &fake, &app.client_id(), MAILBOX, &[]), JOB).on(&fake)
}

fn imap_account(host: &str, port: u16, tls: &str, change: &str) -> String {
    format!(
        "[accounts.first]\nprovider = \"imap\"\nhost = \"{host}\"\nport = {port}\ntls = \"{tls}\"\nusername = \"{MAILBOX}\"\npassword = \"geheim\"\n{change}\n"
    )
}

/// A server that announces these capabilities and answers every command by `answer` (the command without its tag).
fn playing(capability: &'static str, answer: impl Fn(&str) -> String + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        // Until the test program ends.
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                let mut writer = stream.try_clone()?;
                write!(writer, "* OK [CAPABILITY IMAP4rev1 {capability}] ready\r\n")?;
                for line in BufReader::new(stream).lines() {
                    let line = line?;
                    let (tag, command) = line.split_once(' ').unwrap_or((&line, ""));
                    let text = match command {
                        "CAPABILITY" => format!("* CAPABILITY IMAP4rev1 {capability}\r\n{tag} OK done\r\n"),
                        "LOGOUT" => format!("* BYE\r\n{tag} OK done\r\n"),
                        command => format!("{tag} {}\r\n", answer(command)),
                    };
                    writer.write_all(text.as_bytes())?;
                }
                Ok::<_, std::io::Error>(())
            });
        }
    });
    port
}

/// A server that refuses the sign-in with these words.
fn refusing(cause: Cause, who: Who, words: &'static str) -> Case {
    let port = playing("", move |_| format!("NO {words}"));
    case(cause, who, StepId::SignIn, &imap_account("127.0.0.1", port, "none", ""), JOB)
}

/// Something on this port that answers every HTTP request alike, as a proxy or network portal does.
fn answering_http(status: &'static str) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
                let _ = stream.read(&mut [0; 8192]);
                let page = "<html>Sign in to the network</html>";
                let head =
                    format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {}\r\n", page.len());
                let _ = write!(stream, "{head}Connection: close\r\n\r\n{page}");
            });
        }
    });
    port
}

fn nobody_there() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A server that only shakes hands, with a certificate for this name that ends on this day; and its CA.
fn tls_server(name: &str, ends: (i32, u8, u8)) -> (u16, String) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tokio_rustls::rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};

    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(ends.0, ends.1, ends.2);
    let chain = vec![leaf.signed_by(&key, &ca).unwrap().der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = acceptor.accept(stream).await;
            }
        });
    });
    (port, ca.pem())
}

/// An IMAP account that trusts the CA of such a server.
fn with_tls(cause: Cause, who: Who, name: &str, ends: (i32, u8, u8)) -> Case {
    let (port, ca) = tls_server(name, ends);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), ca).unwrap();
    let ca_file = format!("ca_file = \"{}\"", file.path().display());
    case(cause, who, StepId::Reach, &imap_account("localhost", port, "implicit", &ca_file), JOB).keep(file)
}

fn dovecot_account(server: &Dovecot, user: &str, change: &str) -> String {
    let password = PASSWORD.replace('"', "\\\"");
    format!(
        "[accounts.first]\nprovider = \"imap\"\nhost = \"localhost\"\nport = {}\nusername = \"{user}\"\nca_file = \"{}\"\npassword = \"{password}\"\n{change}",
        server.tls_port,
        server.ca_file.display()
    )
}

use Cause as C;
use StepId::{FoldersDiffer, ImportFolder, Mailbox, Permissions, ProcessedFolder, Reach, Settings, SignIn};
use Who::{ExchangeAdmin, ItAdmin, Vendor, You};

async fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |case| cases.push(case);

    // The configuration.
    add(case(C::SettingsWrong, You, Settings, &imap_account("imap://mail.contoso.nl", 993, "implicit", ""), JOB));
    let missing = imap_account("mail.contoso.nl", 993, "implicit", "")
        .replace("password = \"geheim\"", "password = { env = \"MAIL_ACCOUNT_TEST_NOT_SET\" }");
    add(case(C::SecretMissing, You, Settings, &missing, JOB));
    let id = "\"0f8fad5b-d9cb-469f-a165-70867728950e\"";
    add(miswritten(C::SecretIsId, You, Settings, "client_secret", id).await);

    // The way to the server.
    add(case(C::DnsFailed, You, Reach, &imap_account("mail.contoso.invalid", 993, "implicit", ""), JOB));
    add(case(C::ConnectionRefused, ItAdmin, Reach, &imap_account("localhost", nobody_there(), "implicit", ""), JOB));
    let closed = format!("\"http://127.0.0.1:{}\"", nobody_there());
    add(miswritten(C::ConnectionRefused, ItAdmin, Reach, "graph_url", &closed).await);
    add(with_tls(C::TlsName, You, "mail.contoso.nl", (2099, 1, 1)));
    add(with_tls(C::TlsExpired, ItAdmin, "localhost", (2021, 1, 1)));
    let (port, _) = tls_server("localhost", (2099, 1, 1));
    add(case(C::TlsUnknownCa, ItAdmin, Reach, &imap_account("localhost", port, "implicit", ""), JOB));
    let https = format!("\"https://localhost:{port}\"");
    add(miswritten(C::TlsUnknownCa, ItAdmin, Reach, "login_url", &https).await);
    let plain = playing("STARTTLS LOGINDISABLED", |_| "BAD not here".to_owned());
    add(case(C::NeedsTls, You, Reach, &imap_account("127.0.0.1", plain, "none", ""), JOB));
    add(case(C::NeedsTls, You, Reach, &imap_account("127.0.0.1", plain, "implicit", ""), JOB));
    let proxy = format!("\"http://127.0.0.1:{}\"", answering_http("407 Proxy Authentication Required"));
    add(miswritten(C::Proxy, ItAdmin, Reach, "proxy", &proxy).await);
    add(faulty(C::Proxy, ItAdmin, Reach, Fault::html(502).on(Route::ListFolders)).await);
    add(faulty(C::NoAnswer, ItAdmin, Reach, Fault::stall().on(Route::Token)).await);
    add(faulty(C::ServiceDown, Vendor, Reach, Fault::unavailable(503).on(Route::ListFolders)).await);
    let pause = Fault::throttle(Duration::from_secs(300), RetryAfter::from("120")).on(Route::ListFolders);
    add(faulty(C::Throttled, Vendor, Reach, pause).await);

    // Microsoft's sign-in.
    add(entra(C::ClockSkew, ItAdmin, SignIn, "invalid_client", 700024).await);
    add(miswritten(C::TenantUnknown, You, SignIn, "tenant", "\"onbekend.example\"").await);
    add(entra(C::WrongCloud, You, SignIn, "invalid_request", 90038).await);
    let other = "\"99999999-0000-0000-0000-000000000009\"";
    add(miswritten(C::ClientIdUnknown, You, SignIn, "client_id", other).await);
    add(miswritten(C::SecretWrong, You, SignIn, "client_secret", "\"not-the-s3cret~value\"").await);
    let yesterday = Timestamp::now() - jiff::SignedDuration::from_hours(24);
    add(granted(C::SecretExpired, ItAdmin, SignIn, |app| app.secret_until(SECRET, yesterday)).await);
    add(with_certificate().await);
    add(entra(C::RedirectUri, ItAdmin, SignIn, "invalid_request", 50011).await);
    add(granted(C::RegistrationDisabled, ItAdmin, SignIn, |app| right(app).disabled()).await);
    add(entra(C::ConsentMissing, ItAdmin, SignIn, "invalid_grant", 65001).await);
    add(entra(C::ConsentPending, ItAdmin, SignIn, "invalid_request", 90094).await);
    add(entra(C::ConditionalAccess, ItAdmin, SignIn, "invalid_grant", 53003).await);
    add(entra(C::MfaRequired, You, SignIn, "interaction_required", 50076).await);
    add(entra(C::SignInNeeded, You, SignIn, "invalid_grant", 700082).await);
    add(entra(C::WrongIdentity, You, SignIn, "invalid_grant", 50020).await);
    add(entra(C::PasswordExpired, You, SignIn, "invalid_grant", 50055).await);

    // IMAP's.
    let server = Dovecot::start();
    let user = server.user();
    let wrong = dovecot_account(&server, &user, "").replace("s3cret", "geraden");
    add(case(C::PasswordWrong, You, SignIn, &wrong, JOB));
    add(refusing(C::AccountLocked, ItAdmin, "Account is blocked. Login to your account via a web browser"));
    add(refusing(C::AppPassword, You, "[ALERT] Application-specific password required"));
    add(refusing(C::BasicAuthOff, You, "Basic authentication is disabled."));
    add(refusing(C::SignInRefused, You, "LOGIN failed."));
    add(refusing(C::ImapDisabled, ExchangeAdmin, "[ALERT] Your account is not enabled for IMAP use. (Failure)"));
    let full = Dovecot::with(Options { max_sessions: Some(1), ..Options::default() });
    let busy = full.user();
    let session = signed_in(full.port, &busy);
    add(case(C::ConnectionLimit, You, SignIn, &dovecot_account(&full, &busy, ""), JOB).keep(session).keep(full));
    let exchange = playing("", |command| match command.split(' ').next() {
        Some("LOGIN") => "OK AUTHENTICATE completed.".to_owned(),
        _ => "BAD User is authenticated but not connected.".to_owned(),
    });
    let account = imap_account("127.0.0.1", exchange, "none", "");
    add(case(C::NotConnected, ExchangeAdmin, Mailbox, &account, JOB));

    // The mailbox, and what may be done with it.
    add(miswritten(C::MailboxUnknown, You, Mailbox, "mailbox", "\"niemand@contoso.nl\"").await);
    let reads = ["Mail.ReadWrite"];
    let asks = ["Mail.ReadWrite", "User.Read.All"];
    let (now, hours) = (Timestamp::now(), jiff::SignedDuration::from_hours(48));
    add(absent(C::MailboxNotHosted, ItAdmin, &reads, None, false).await);
    add(absent(C::MailboxNotHosted, ItAdmin, &asks, Some(now - hours), false).await);
    add(absent(C::NoLicence, ItAdmin, &asks, None, false).await);
    add(absent(C::LicenceLag, You, &asks, Some(now), false).await);
    add(absent(C::OnPremises, ExchangeAdmin, &asks, None, true).await);
    add(granted(C::PermissionLacking, ItAdmin, Mailbox, |app| app.secret(SECRET).permissions(["User.Read.All"])).await);
    let basic = |app: AppBuilder| app.secret(SECRET).permissions(["Mail.ReadBasic.All"]);
    add(granted(C::PermissionLacking, ItAdmin, Permissions, basic).await);
    add(granted(C::PermissionWrongKind, ItAdmin, Mailbox, |app| app.secret(SECRET)).await);
    let scoped = |app: AppBuilder| app.secret(SECRET).rbac("Application Mail.ReadWrite", ["inkoop@contoso.nl"]);
    add(granted(C::RbacScope, ExchangeAdmin, Mailbox, scoped).await);
    let policy = |app: AppBuilder| right(app).restricted_to(["inkoop@contoso.nl"]);
    add(granted(C::PolicyExcludesMailbox, ExchangeAdmin, Mailbox, policy).await);
    for route in [Route::GetFolder, Route::ListFolders] {
        let hidden = Fault::error(404, "ErrorItemNotFound", "Default folder Root not found.").on(route);
        add(faulty(C::SharedRightsMissing, ExchangeAdmin, Mailbox, hidden).await);
    }
    let new = Fault::error(418, "ErrorTeapot", "A teapot was asked for coffee.").on(Route::ListFolders);
    add(faulty(C::Unknown, Vendor, Mailbox, new).await);

    // The job's folders.
    add(folders(C::FolderMissing, You, ImportFolder, "import_folder = \"Inbox/Facturen\"").await);
    let search = "import_folder = \"Ongelezen\"\nprocessed_folder = \"Inbox/Processed\"";
    add(folders(C::FolderReadOnly, ExchangeAdmin, ImportFolder, search).await);
    let into_search = "import_folder = \"Inbox\"\nprocessed_folder = \"Ongelezen\"";
    add(folders(C::FolderNoMail, You, ProcessedFolder, into_search).await);
    let same = "import_folder = \"Inbox\"\nprocessed_folder = \"role:inbox\"";
    add(folders(C::FolderSame, You, FoldersDiffer, same).await);
    let acl = Dovecot::with(Options { extra: ACL, ..Options::default() });
    let reader = acl.user();
    fs::write(acl.maildir(&reader, ".Gedeeld").join("dovecot-acl"), format!("user={reader} lr\n")).unwrap();
    let shared = "import_folder = \"Gedeeld\"\nfailed_folder = \"Archive\"";
    add(case(C::FolderReadOnly, ExchangeAdmin, ImportFolder, &dovecot_account(&acl, &reader, ""), shared).keep(acl));
    server.maildir(&user, ".Facturen");
    server.maildir(&user, ".facturen");
    let ambiguous = "import_folder = \"FACTUREN\"";
    add(case(C::FolderAmbiguous, You, ImportFolder, &dovecot_account(&server, &user, ""), ambiguous).keep(server));
    cases
}

/// Folders have lists of who may do what, and the server tells.
const ACL: &str = "mail_plugins = acl\nplugin {\n  acl = vfile\n}\nprotocol imap {\n  mail_plugins = acl imap_acl\n}\n";

/// A certificate that nobody has uploaded.
async fn with_certificate() -> Case {
    let (fake, id) = tenant(right).await;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["x.example".into()]).unwrap().self_signed(&key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let (cert, key) = (file("cert.pem", &certificate.pem()), file("key.pem", &key.serialize_pem()));
    let pair = format!("{{ cert_file = \"{cert}\", key_file = \"{key}\" }}");
    let change = [("client_secret", ""), ("certificate", pair.as_str())];
    let account = graph_account("first", &fake, &id, MAILBOX, &change);
    case(C::CertificateRejected, ItAdmin, SignIn, &account, JOB).on(&fake).keep(folder)
}

/// Another program that reads the mailbox.
fn signed_in(port: u16, user: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let password = PASSWORD.replace('"', "\\\"");
    write!(stream, "a LOGIN \"{user}\" \"{password}\"\r\n").unwrap();
    assert!(lines.any(|line| line.unwrap().starts_with("a OK")));
    stream
}

fn found(report: &Report) -> Vec<(StepId, Cause)> {
    report
        .steps
        .iter()
        .filter(|step| step.status == StepStatus::Failed)
        .map(|step| (step.step, step.cause.unwrap()))
        .collect()
}

/// Nothing that a check sends may change a mailbox.
fn only_read(fake: &GraphFake) {
    let requests = fake.requests();
    let writes: Vec<_> = requests
        .iter()
        .filter(|r| !matches!(r.method.as_str(), "GET") && !matches!(r.route, Route::Token | Route::Batch))
        .collect();
    assert!(writes.is_empty(), "{writes:?}");
}

/// Ports, dates and ids that differ from run to run.
fn steady(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        out.push_str(&rest[..at]);
        let digits = rest[at..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| at + end);
        let (number, host) = (&rest[at..digits], &out);
        let is_port = (host.ends_with("localhost:") || host.ends_with("127.0.0.1:")) && number.len() > 3;
        let is_user = host.ends_with("`user");
        out.push_str(if is_port || is_user || number.len() >= 9 { "N" } else { number });
        rest = &rest[digits..];
    }
    out.push_str(rest);
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cause_is_found_where_it_is_provoked() {
    let cases = cases().await;
    let reports: Vec<_> = stream::iter(&cases)
        .map(|case| async move { case.app.check(case.account, case.job).await.unwrap() })
        .buffered(cases.len())
        .collect()
        .await;
    let mut wrong = String::new();
    let mut said = [String::new(), String::new()];
    for (case, report) in cases.iter().zip(&reports) {
        if found(report) != [(case.step, case.cause)] {
            let texts: Vec<_> = report.steps.iter().filter_map(|s| s.evidence.as_ref()).map(|e| &e.text).collect();
            writeln!(wrong, "{:?} at {:?}: {:?} {texts:?}", case.cause, case.step, found(report)).unwrap();
            continue;
        }
        let step = report.steps.iter().find(|step| step.step == case.step).unwrap();
        assert_eq!(step.who(), Some(case.who), "{:?}", case.cause);
        assert!(!report.ok());
        // What comes before was passed, also by the report.
        let before = report.steps.iter().take_while(|s| s.step != case.step);
        for passed in before {
            assert_ne!(passed.status, StepStatus::Failed, "{:?}", case.cause);
        }
        for (text, language) in said.iter_mut().zip([Language::English, Language::Dutch]) {
            let label = format!("{}, {}, {}", case.cause.code(), case.step.as_str(), case.who.as_str());
            writeln!(text, "{label}\n  {}", steady(step.message(language))).unwrap();
        }
        let everything = format!("{report:?}");
        assert!(!everything.contains(SECRET) && !everything.contains("eyJ"), "{everything}");
        if let Some(fake) = &case.fake {
            only_read(fake);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let provoked: BTreeSet<_> = cases.iter().map(|case| case.cause.code()).collect();
    let missed: Vec<_> = C::ALL.iter().map(|c| c.code()).filter(|code| !provoked.contains(code)).collect();
    // A hint about an account that works; see below.
    assert_eq!(missed, [C::PermissionSurplus.code()]);
    for (text, name) in said.iter().zip(["check.en.txt", "check.nl.txt"]) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
        if std::env::var_os("RENEW").is_some() {
            fs::write(&path, text).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        let differs = text.lines().zip(kept.lines()).find(|(new, old)| new != old);
        assert!(*text == kept, "{name} has changed; read it aloud, and renew it with RENEW=1: {differs:#?}");
    }
}

fn permissions(report: &Report) -> (StepStatus, Option<Cause>, &str) {
    let step = report.steps.iter().find(|step| step.step == Permissions).unwrap();
    (step.status, step.cause, step.message(Language::English))
}

/// The token is a hint and never a gate: what works is never failed for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_token_shows_is_said_and_fails_nothing() {
    let check = async |of_app: fn(AppBuilder) -> AppBuilder, job: &str| {
        let (fake, id) = tenant(of_app).await;
        let (app, _folder) = configured(&graph_account("first", &fake, &id, MAILBOX, &[]), job);
        let report = app.check("first", Some("facturen")).await.unwrap();
        assert!(report.ok(), "{report:?}");
        only_read(&fake);
        report
    };
    let report = check(right, JOB).await;
    let (status, cause, text) = permissions(&report);
    assert_eq!((status, cause), (StepStatus::Ok, None));
    assert!(text.contains("every mailbox of the tenant"), "{text}");

    let report = check(|app| right(app).permissions(["Mail.Send", "User.Read.All"]), JOB).await;
    let (status, cause, text) = permissions(&report);
    assert_eq!((status, cause), (StepStatus::Ok, Some(C::PermissionSurplus)));
    assert!(text.contains("`Mail.Send`") && !text.contains("User.Read.All"), "{text}");

    // Exchange's own roles do not stand in the token, and work.
    let report = check(|app| app.secret(SECRET).rbac("Mail.ReadWrite", [MAILBOX]), JOB).await;
    let (status, cause, text) = permissions(&report);
    assert_eq!((status, cause), (StepStatus::Unproven, None));
    assert!(text.contains("RBAC for Applications"), "{text}");

    // Reading is permitted, and the job moves; without moving it is enough, and writing is more than enough.
    let reads: fn(AppBuilder) -> AppBuilder = |app| app.secret(SECRET).permissions(["Mail.Read"]);
    let report = check(reads, JOB).await;
    let (status, cause, text) = permissions(&report);
    assert_eq!((status, cause), (StepStatus::Unproven, Some(C::PermissionLacking)));
    assert!(text.contains("does not show `Mail.ReadWrite`"), "{text}");
    let only_reads = "import_folder = \"Inbox\"";
    assert_eq!(permissions(&check(reads, only_reads).await).1, None);
    assert_eq!(permissions(&check(right, only_reads).await).1, Some(C::PermissionSurplus));
}

/// Newly granted permissions count at once, and all accounts of a job are looked at together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_accounts_of_a_job_are_checked_and_none_hides_another() {
    let fake = GraphFake::start().await;
    let app = fake.app("invoices").secret(SECRET).create();
    for address in [MAILBOX, "inkoop@contoso.nl"] {
        fake.mailbox(address).create().create_folder("Inbox/Processed");
    }
    let accounts = graph_account("first", &fake, &app.client_id(), MAILBOX, &[])
        + &graph_account("second", &fake, &app.client_id(), "inkoop@contoso.nl", &[])
        + "[accounts.third]\nprovider = \"imap\"\nhost = \"\"\nusername = \"a@b.nl\"\npassword = \"geheim\"\n";
    let folder = tempfile::tempdir().unwrap();
    let job = "[jobs.facturen]\naccounts = [\"first\", \"third\", \"second\"]\n";
    let config = MailApp::from_str(&format!("{accounts}{job}{JOB}"), folder.path()).unwrap();
    let reports = config.check_job("facturen").await.unwrap();
    let expected = [
        ("first", vec![(Mailbox, C::PermissionWrongKind)]),
        ("third", vec![(Settings, C::SettingsWrong)]),
        ("second", vec![(Mailbox, C::PermissionWrongKind)]),
    ];
    let got: Vec<_> = reports.iter().map(|report| (report.account.as_str(), found(report))).collect();
    assert_eq!(got, expected);
    app.grant("Mail.ReadWrite");
    let reports = config.check_job("facturen").await.unwrap();
    assert_eq!(reports.iter().map(Report::ok).collect::<Vec<_>>(), [true, false, true]);
    // Nothing else was made: no database, no folder.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    only_read(&fake);
}

/// The same mailbox on Dovecot: what works passes, and reading it leaves no trace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_on_dovecot_passes_and_stays_as_it_was() {
    let server = Dovecot::start();
    let user = server.user();
    server.maildir(&user, ".INBOX.Processed");
    let mail = mail().with_attachment("factuur.pdf", "%PDF").build();
    server.deliver(&user, "", &mail, SystemTime::now());
    let new = server.maildir(&user, "").join("new");
    let (app, _folder) = configured(&dovecot_account(&server, &user, ""), JOB);
    let report = app.check("first", Some("facturen")).await.unwrap();
    assert!(report.ok(), "{report:?}");
    // Nobody has opened it for writing: that would have moved the message out of `new`.
    assert_eq!(fs::read_dir(new).unwrap().count(), 1);
}
