//! Debian's Dovecot as an ordinary process, on free ports of 127.0.0.1, with everything in a temporary folder.
//!
//! Each [`Dovecot`] is a server of its own: TLS with a certificate made for it, password users, and sign-in with
//! tokens that it asks a local endpoint about. It is stopped, and its folder removed, when the value is dropped.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

/// The password of every user.
pub(crate) const PASSWORD: &str = "s3cret/with \"quotes\"";

/// What a server is like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Announce these capabilities instead of what Dovecot can do. What is not announced is not used.
    pub(crate) capability: Option<&'static str>,
    /// Sessions of one user at a time.
    pub(crate) max_sessions: Option<u32>,
    /// Raw lines for the end of the configuration.
    pub(crate) extra: &'static str,
    /// Another endpoint to ask about tokens: the settings of the `oauth2` passdb.
    pub(crate) oauth: Option<String>,
}

/// A running server.
pub(crate) struct Dovecot {
    root: PathBuf,
    child: Child,
    oauth: Introspection,
    _temp: tempfile::TempDir,
    /// Plain text and STARTTLS.
    pub(crate) port: u16,
    /// TLS from the first byte.
    pub(crate) tls_port: u16,
    /// The certificate to trust.
    pub(crate) ca_file: PathBuf,
}

impl Dovecot {
    /// An ordinary server.
    pub(crate) fn start() -> Self {
        Self::with(Options::default())
    }

    /// # Panics
    ///
    /// Without Dovecot: the test cannot be done, and must not seem to have been.
    pub(crate) fn with(options: Options) -> Self {
        let program = program();
        for attempt in 0.. {
            match Self::try_start(&program, &options) {
                Ok(server) => return server,
                // Somebody else may have taken the ports between looking and starting.
                Err(error) => assert!(attempt < 3, "dovecot does not start: {error}"),
            }
        }
        unreachable!("the loop ends by return or panic")
    }

    fn try_start(program: &Path, options: &Options) -> Result<Self, String> {
        let temp = tempfile::Builder::new().prefix("dovecot-").tempdir().map_err(|e| e.to_string())?;
        let root = temp.path().to_path_buf();
        open_to_all(&root);
        let (port, tls_port) = (free_port(), free_port());
        let oauth = Introspection::start();
        let ca_file = certificate(&root);
        fs::create_dir_all(root.join("users")).map_err(|e| e.to_string())?;
        let settings = options.oauth.clone().unwrap_or_else(|| oauth.settings());
        fs::write(root.join("oauth.ext"), settings).map_err(|e| e.to_string())?;
        fs::write(root.join("passwd"), "").map_err(|e| e.to_string())?;
        let config = root.join("dovecot.conf");
        fs::write(&config, configuration(&root, port, tls_port, options)).map_err(|e| e.to_string())?;
        give_away(&root);
        let log = fs::File::create(root.join("stderr.log")).map_err(|e| e.to_string())?;
        let child = Command::new(program)
            .arg("-F")
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut server = Self { root, child, oauth, _temp: temp, port, tls_port, ca_file };
        let deadline = Instant::now() + Duration::from_secs(15);
        while !greets(port) {
            let over = server.child.try_wait().ok().flatten().is_some();
            if over || Instant::now() > deadline {
                return Err(server.logs());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// What the server has logged, for messages of failed tests.
    pub(crate) fn logs(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.root.join(name)).unwrap_or_default();
        format!("{}{}", read("stderr.log"), read("dovecot.log"))
    }

    /// Decides about tokens from now on: whose mailbox one opens, or `None`. A token that belongs to another user than
    /// the one who is to be signed in is refused by the server itself. Sessions that are open stay so.
    pub(crate) fn judge_tokens(&self, judge: impl Fn(&str) -> Option<String> + Send + Sync + 'static) {
        self.oauth.asked.lock().expect("no panic under it").judge = Box::new(judge);
    }

    /// Every token that was shown so far, refused ones included.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.oauth.asked.lock().expect("no panic under it").tokens.clone()
    }

    /// A new, empty mailbox; returns the user's name. All users of a server are best made before the first signs in:
    /// within a second of a sign-in, the server does not look for new ones.
    pub(crate) fn user(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let user = format!("user{}@example.com", NEXT.fetch_add(1, Relaxed));
        let mut passwd = fs::OpenOptions::new().append(true).open(self.root.join("passwd")).expect("the password file");
        writeln!(passwd, "{user}:{{PLAIN}}{PASSWORD}::::::").expect("the password file");
        for folder in ["", ".Sent", ".Trash", ".Junk", ".Drafts", ".Archive"] {
            self.maildir(&user, folder);
        }
        user
    }

    /// Where a folder of a user lies; made if need be. `folder` is as on disk: empty for the inbox, `.Processed`.
    pub(crate) fn maildir(&self, user: &str, folder: &str) -> PathBuf {
        let top = self.root.join("users").join(user);
        let path = top.join("Maildir").join(folder);
        for part in ["cur", "new", "tmp"] {
            fs::create_dir_all(path.join(part)).expect("a maildir");
        }
        give_away(&top);
        path
    }

    /// Puts a message into a folder, received at this moment.
    pub(crate) fn deliver(&self, user: &str, folder: &str, message: &[u8], received: SystemTime) {
        self.deliver_with(user, folder, received, |file| file.write_all(message));
    }

    /// The same, written in pieces; returns its size.
    pub(crate) fn deliver_with(
        &self,
        user: &str,
        folder: &str,
        received: SystemTime,
        write: impl FnOnce(&mut fs::File) -> std::io::Result<()>,
    ) -> u64 {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let dir = self.root.join("users").join(user).join("Maildir").join(folder);
        let seconds = received.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let name = format!("{seconds}.M{}.test", NEXT.fetch_add(1, Relaxed));
        let tmp = dir.join("tmp").join(&name);
        let mut file = fs::File::create(&tmp).expect("a message");
        write(&mut file).expect("a message");
        file.set_modified(received).expect("the received time");
        give_away_one(&tmp);
        fs::rename(&tmp, dir.join("new").join(&name)).expect("a message");
        file.metadata().expect("a message").len()
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // The master takes its workers with it only when it is asked to stop.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> PathBuf {
    let places = ["/usr/sbin/dovecot", "/usr/local/sbin/dovecot", "/usr/bin/dovecot", "/sbin/dovecot"];
    let found = places.iter().map(PathBuf::from).find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!(
            "these tests talk to a real IMAP server and dovecot is not installed; install it with \
             `apt-get install --no-install-recommends dovecot-imapd` (the package's own service need not run)"
        )
    })
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).expect("a free port").port()
}

fn greets(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let mut start = [0; 4];
    stream.read_exact(&mut start).is_ok() && &start == b"* OK"
}

fn is_root() -> bool {
    fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0).unwrap_or(false)
}

fn name_of_id(file: &str, id: u32) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let of = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        (fields.nth(1)?.parse() == Ok(id)).then_some(name)
    };
    text.lines().find_map(of).unwrap_or_else(|| id.to_string())
}

/// Dovecot refuses to serve mail as root, so root's tests give the mail to `nobody`.
const NOBODY: u32 = 65_534;

fn give_away(path: &Path) {
    if !is_root() {
        return;
    }
    give_away_one(path);
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { give_away(&path) } else { give_away_one(&path) }
    }
}

fn give_away_one(path: &Path) {
    if is_root() {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("root may give files away");
    }
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our own folder");
}

/// A CA, and a certificate that it signs, for `localhost` and 127.0.0.1.
fn certificate(root: &Path) -> PathBuf {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(rcgen::DnType::CommonName, "Tests of mail-account");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("a key")).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let cert = leaf.signed_by(&key, &ca).expect("a certificate");
    fs::write(root.join("cert.pem"), cert.pem()).expect("the certificate");
    fs::write(root.join("key.pem"), key.serialize_pem()).expect("its key");
    let file = root.join("ca.pem");
    fs::write(&file, ca.pem()).expect("the CA");
    file
}

fn configuration(root: &Path, port: u16, tls_port: u16, options: &Options) -> String {
    let dir = root.display();
    let mut text = format!(
        r#"
protocols = imap
listen = 127.0.0.1
base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/dovecot.log
ssl = yes
ssl_cert = <{dir}/cert.pem
ssl_key = <{dir}/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain login xoauth2 oauthbearer
auth_failure_delay = 0
mail_location = maildir:~/Maildir
first_valid_uid = 1
first_valid_gid = 0
maildir_stat_dirs = yes
mail_max_userip_connections = {max}
# One login process for all, and processes that serve one session after another: tests open hundreds.
service imap-login {{
  chroot =
  service_count = 0
  process_min_avail = 1
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
}}
service imap {{
  service_count = 1000
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {dir}/oauth.ext
}}
passdb {{
  driver = passwd-file
  mechanisms = plain login
  args = scheme=plain username_format=%u {dir}/passwd
}}
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Sent {{
    special_use = \Sent
  }}
  mailbox Trash {{
    special_use = \Trash
  }}
  mailbox Junk {{
    special_use = \Junk
  }}
  mailbox Drafts {{
    special_use = \Drafts
  }}
  mailbox Archive {{
    special_use = \Archive
  }}
}}
"#,
        max = options.max_sessions.unwrap_or(50),
    );
    if is_root() {
        text.push_str(&format!("mail_uid = {NOBODY}\nmail_gid = {NOBODY}\n"));
        text.push_str(&format!(
            "userdb {{\n  driver = static\n  args = uid={NOBODY} gid={NOBODY} home={dir}/users/%u\n}}\n"
        ));
    } else {
        let meta = fs::metadata("/proc/self").expect("/proc");
        let user = name_of_id("/etc/passwd", std::os::unix::fs::MetadataExt::uid(&meta));
        let group = name_of_id("/etc/group", std::os::unix::fs::MetadataExt::gid(&meta));
        text.push_str(&format!(
            "default_internal_user = {user}\ndefault_internal_group = {group}\ndefault_login_user = {user}\nmail_uid = {user}\nmail_gid = {group}\nservice auth {{\n  unix_listener auth-userdb {{\n    user =\n    group =\n  }}\n}}\nuserdb {{\n  driver = static\n  args = home={dir}/users/%u\n}}\n",
        ));
    }
    if let Some(capability) = options.capability {
        text.push_str(&format!("imap_capability = {capability}\n"));
    }
    text.push_str(options.extra);
    text
}

/// Says whose mailbox a token opens; `None` where it opens none.
type Judge = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Answers the server's questions about tokens (RFC 7662, as Dovecot asks them).
struct Introspection {
    port: u16,
    asked: Arc<Mutex<Asked>>,
}

struct Asked {
    judge: Judge,
    tokens: Vec<String>,
}

impl Introspection {
    /// The token `good:<user>` is that user's; every other is refused, until a test says otherwise.
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let judge: Judge = Box::new(|token| token.strip_prefix("good:").map(str::to_owned));
        let asked = Arc::new(Mutex::new(Asked { judge, tokens: Vec::new() }));
        let answering = Arc::clone(&asked);
        thread::spawn(move || {
            // Until the test program ends.
            for stream in listener.incoming().flatten() {
                let asked = Arc::clone(&answering);
                thread::spawn(move || answer(stream, &asked));
            }
        });
        Self { port, asked }
    }

    fn settings(&self) -> String {
        format!(
            "introspection_mode = post\nintrospection_url = http://127.0.0.1:{}/introspect\nactive_attribute = active\nactive_value = true\nusername_attribute = username\nusername_format = %u\ntimeout_msecs = 5000\n",
            self.port
        )
    }
}

fn answer(mut stream: TcpStream, asked: &Mutex<Asked>) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    let (head, length) = loop {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(n) => request.extend_from_slice(&piece[..n]),
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some(end) = text.find("\r\n\r\n") {
            let length =
                text.to_ascii_lowercase().lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok());
            break (end + 4, length.unwrap_or(0usize));
        }
    };
    while request.len() < head + length {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(n) => request.extend_from_slice(&piece[..n]),
        }
    }
    let body = String::from_utf8_lossy(&request[head..]).into_owned();
    let token = body.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap_or_default().replace('+', " ");
    let token = percent_encoding::percent_decode_str(&token).decode_utf8_lossy().into_owned();
    let user = {
        let mut asked = asked.lock().expect("no panic under it");
        let user = (asked.judge)(&token);
        asked.tokens.push(token);
        user
    };
    let json = match user {
        Some(user) => format!("{{\"active\": true, \"username\": \"{user}\"}}"),
        None => "{\"active\": false}".to_owned(),
    };
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{json}",
        json.len()
    );
}
