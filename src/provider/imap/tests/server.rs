//! A small IMAP server that can be told to misbehave: what no healthy server does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, tcp::OwnedWriteHalf},
};

use crate::{
    Clock, Context, Secret, SecretSource,
    auth::TokenProvider,
    provider::{
        Opening,
        imap::{ImapAccount, ImapConfig, Tls, session::Timeouts},
    },
};

/// What to do instead of the proper thing. `{tag}` in texts is the command's tag.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// This, and on to the next command.
    Say(String),
    /// This, and then nothing any more, with the socket open.
    SayAndHang(String),
    /// This, and the end of the connection.
    SayAndClose(String),
    /// The proper thing, but the connection ends before the answer.
    DoAndClose,
    /// The proper answer, cut off after so many bytes.
    Cut(usize),
    /// The proper answer, with a pause of so long after so many bytes.
    Stall(usize, Duration),
    /// This before the proper answer.
    Before(String),
    /// The proper answer, but for the line that ends the command: that comes behind the next answer.
    Late,
}

/// A clock whose pauses are over soon.
#[derive(Debug)]
struct Hurry;

#[async_trait]
impl Clock for Hurry {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait.min(Duration::from_millis(2))).await;
    }
}

type Hook = Box<dyn FnMut(&str) -> Option<Act> + Send>;

pub(super) struct State {
    /// Folder, UID, message.
    pub(super) mail: BTreeMap<(String, u64), Vec<u8>>,
    /// Flagged as deleted.
    pub(super) deleted: BTreeSet<(String, u64)>,
    pub(super) validity: u64,
    pub(super) capability: String,
    /// Every command, without its tag.
    pub(super) log: Vec<String>,
    /// The last [`Act::Cut`] left all of the answer.
    pub(super) uncut: bool,
    late: Vec<u8>,
    hook: Hook,
    next: u64,
}

#[derive(Clone)]
pub(super) struct Server {
    pub(super) port: u16,
    state: Arc<Mutex<State>>,
}

pub(super) const CAPABILITY: &str = "IMAP4rev1 SASL-IR AUTH=PLAIN UIDPLUS MOVE LITERAL+";

impl Server {
    pub(super) async fn start(hook: impl FnMut(&str) -> Option<Act> + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let state = Arc::new(Mutex::new(State {
            mail: BTreeMap::new(),
            deleted: BTreeSet::new(),
            validity: 7,
            capability: CAPABILITY.to_owned(),
            log: Vec::new(),
            uncut: false,
            late: Vec::new(),
            hook: Box::new(hook),
            next: 100,
        }));
        let server = Self { port: listener.local_addr().unwrap().port(), state };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let server = serving.clone();
                tokio::spawn(async move {
                    // A client that leaves is none of our trouble.
                    let _ = server.serve(socket).await;
                });
            }
        });
        server
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn put(&self, folder: &str, uid: u64, message: &[u8]) {
        self.state().mail.insert((folder.to_owned(), uid), message.to_vec());
    }

    pub(super) fn count(&self, folder: &str) -> usize {
        self.state().mail.keys().filter(|(f, _)| f == folder).count()
    }

    pub(super) fn account(&self, connections: usize) -> ImapAccount {
        account_at(self.port, None, connections)
    }

    async fn serve(&self, socket: tokio::net::TcpStream) -> std::io::Result<()> {
        let (read, mut write) = socket.into_split();
        let mut read = BufReader::new(read);
        if !self.answer("GREETING", "*", "* OK ready\r\n".into(), &mut write).await? {
            return Ok(());
        }
        let mut selected = String::new();
        let mut line = String::new();
        loop {
            line.clear();
            if read.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let Some((tag, command)) = line.trim_end().split_once(' ') else { continue };
            let (tag, command) = (tag.to_owned(), command.to_owned());
            self.state().log.push(command.clone());
            let answer = self.proper(&tag, &command, &mut selected);
            if !self.answer(&command, &tag, answer, &mut write).await? {
                return Ok(());
            }
        }
    }

    /// `false` when the connection is over.
    async fn answer(
        &self,
        command: &str,
        tag: &str,
        proper: Proper,
        write: &mut OwnedWriteHalf,
    ) -> std::io::Result<bool> {
        let act = (self.state().hook)(command);
        let text = |text: String| text.replace("{tag}", tag).into_bytes();
        let hang = |bytes: Vec<u8>| (bytes, true);
        let (bytes, hangs) = match act {
            Some(Act::Say(said)) => (text(said), false),
            Some(Act::SayAndHang(said)) => hang(text(said)),
            Some(Act::SayAndClose(said)) => {
                write.write_all(&text(said)).await?;
                return Ok(false);
            }
            Some(Act::DoAndClose) => {
                proper.apply(self);
                return Ok(false);
            }
            Some(Act::Cut(at)) => {
                let bytes = proper.apply(self);
                self.state().uncut = at >= bytes.len();
                write.write_all(&bytes[..at.min(bytes.len())]).await?;
                return Ok(false);
            }
            Some(Act::Stall(at, pause)) => {
                let bytes = proper.apply(self);
                let at = at.min(bytes.len());
                write.write_all(&bytes[..at]).await?;
                tokio::time::sleep(pause).await;
                (bytes[at..].to_vec(), false)
            }
            Some(Act::Before(said)) => {
                let mut bytes = text(said);
                bytes.extend(proper.apply(self));
                (bytes, false)
            }
            Some(Act::Late) => {
                let mut bytes = proper.apply(self);
                let end = bytes[..bytes.len() - 2].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
                self.state().late.extend(bytes.split_off(end));
                (bytes, false)
            }
            None => {
                let mut bytes = proper.apply(self);
                let end = bytes[..bytes.len() - 2].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
                let late = std::mem::take(&mut self.state().late);
                bytes.splice(end..end, late);
                (bytes, false)
            }
        };
        write.write_all(&bytes).await?;
        if hangs {
            std::future::pending::<()>().await;
        }
        Ok(true)
    }

    fn proper(&self, tag: &str, command: &str, selected: &mut String) -> Proper {
        let state = self.state();
        let upper = command.to_ascii_uppercase();
        let ok = |mut lines: Vec<u8>| {
            lines.extend(format!("{tag} OK done\r\n").into_bytes());
            Proper::from(lines)
        };
        if upper.starts_with("CAPABILITY") {
            return ok(format!("* CAPABILITY {}\r\n", state.capability).into_bytes());
        }
        if upper.starts_with("LIST") {
            let names = ["INBOX", "Done"].map(|name| format!("* LIST () \"/\" \"{name}\"\r\n"));
            let all = upper.contains("\"*\"");
            let lines = names.iter().filter(|line| all || upper.contains(&line.to_ascii_uppercase()[14..].trim()[1..]));
            return ok(lines.cloned().collect::<String>().into_bytes());
        }
        if upper.starts_with("EXAMINE") || upper.starts_with("SELECT") {
            *selected = command.split('"').nth(1).unwrap_or_default().to_owned();
            let exists = state.mail.keys().filter(|(f, _)| f == selected).count();
            let (validity, next) = (state.validity, state.next + 1);
            return ok(format!("* {exists} EXISTS\r\n* OK [UIDVALIDITY {validity}] x\r\n* OK [UIDNEXT {next}] x\r\n")
                .into_bytes());
        }
        let here: Vec<(u64, Vec<u8>)> =
            state.mail.iter().filter(|((f, _), _)| f == selected).map(|((_, uid), m)| (*uid, m.clone())).collect();
        if upper.starts_with("UID SEARCH") {
            let set = upper.strip_prefix("UID SEARCH UID ").map(uids);
            let ids: Vec<&str> = command.split('"').skip(1).step_by(2).collect();
            let fits = |(uid, message): &&(u64, Vec<u8>)| {
                let text = String::from_utf8_lossy(message);
                let gone = upper.contains("UNDELETED") && state.deleted.contains(&(selected.clone(), *uid));
                !gone
                    && set.as_ref().is_none_or(|set| set.contains(uid))
                    && (ids.is_empty() || ids.iter().any(|id| text.contains(id)))
            };
            let found: String = here.iter().filter(fits).map(|(uid, _)| format!(" {uid}")).collect();
            return ok(format!("* SEARCH{found}\r\n").into_bytes());
        }
        let asked = uids(upper.split(' ').nth(2).unwrap_or_default());
        if upper.starts_with("UID FETCH") {
            let mut lines = Vec::new();
            for (seq, (uid, message)) in here.iter().enumerate().filter(|(_, (uid, _))| asked.contains(uid)) {
                lines.extend(fetched(seq + 1, *uid, message, &upper));
            }
            return ok(lines);
        }
        let (tag, folder) = (tag.to_owned(), selected.clone());
        let present: Vec<u64> = here.iter().map(|(uid, _)| *uid).filter(|uid| asked.contains(uid)).collect();
        let to = command.split('"').nth(1).unwrap_or_default().to_owned();
        if upper.starts_with("UID MOVE") {
            return Proper::does(move |state| {
                let code = state.copy(&folder, &to, &present);
                present.into_iter().for_each(|uid| _ = state.mail.remove(&(folder.clone(), uid)));
                format!("{}{tag} OK done\r\n", code.map(|code| format!("* OK {code} x\r\n")).unwrap_or_default())
            });
        }
        if upper.starts_with("UID COPY") {
            return Proper::does(move |state| {
                let code = state.copy(&folder, &to, &present);
                format!("{tag} OK {} done\r\n", code.unwrap_or_default())
            });
        }
        if upper.starts_with("UID STORE") && upper.contains("\\DELETED") {
            return Proper::does(move |state| {
                state.deleted.extend(present.into_iter().map(|uid| (folder.clone(), uid)));
                format!("{tag} OK done\r\n")
            });
        }
        if upper.starts_with("UID EXPUNGE") {
            return Proper::does(move |state| {
                for at in present.into_iter().map(|uid| (folder.clone(), uid)) {
                    if state.deleted.remove(&at) {
                        state.mail.remove(&at);
                    }
                }
                format!("{tag} OK done\r\n")
            });
        }
        ok(Vec::new())
    }
}

/// An account on a server at this port, with a password, or with tokens instead.
pub(super) fn account_at(port: u16, tokens: Option<Arc<dyn TokenProvider>>, connections: usize) -> ImapAccount {
    let mut config = ImapConfig::new("127.0.0.1", "u@example.com", SecretSource::Literal(Secret::new("pa55word")));
    config.port = Some(port);
    config.tls = Tls::None;
    if tokens.is_some() {
        config.password = None;
        let oauth = r#"{"app": {"client_id": "x", "client_secret": "y"}, "auth": "app", "token_url": "https://login.example.com/token", "scopes": ["imap"]}"#;
        config.oauth = Some(serde_json::from_str(oauth).unwrap());
    }
    let second = Duration::from_secs(1);
    let timeouts = Timeouts {
        connect: second,
        greeting: second,
        sign_in: second,
        command: second,
        progress: second,
        operation: 4 * second,
    };
    let opening = Opening::new("hostile").with_context(Context::default().with_clock(Arc::new(Hurry)));
    config.account_with(opening, tokens, timeouts, connections).unwrap()
}

impl State {
    /// The code that says what became of them, if any were there and the server knows such codes.
    fn copy(&mut self, from: &str, to: &str, uids: &[u64]) -> Option<String> {
        let list = |uids: &[u64]| uids.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let mut new = Vec::new();
        for uid in uids {
            self.next += 1;
            let message = self.mail[&(from.to_owned(), *uid)].clone();
            self.mail.insert((to.to_owned(), self.next), message);
            new.push(self.next);
        }
        let told = !uids.is_empty() && self.capability.contains("UIDPLUS");
        told.then(|| format!("[COPYUID {} {} {}]", self.validity, list(uids), list(&new)))
    }
}

/// An answer, and what it does to the mailbox when it is given.
pub(super) enum Proper {
    Says(Vec<u8>),
    Does(Box<dyn FnOnce(&mut State) -> String + Send>),
}

impl From<Vec<u8>> for Proper {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Says(bytes)
    }
}

impl From<&str> for Proper {
    fn from(text: &str) -> Self {
        text.as_bytes().to_vec().into()
    }
}

impl Proper {
    fn does(what: impl FnOnce(&mut State) -> String + Send + 'static) -> Self {
        Self::Does(Box::new(what))
    }

    fn apply(self, server: &Server) -> Vec<u8> {
        match self {
            Self::Says(bytes) => bytes,
            Self::Does(what) => what(&mut server.state()).into_bytes(),
        }
    }
}

fn uids(set: &str) -> Vec<u64> {
    // No folder here has a UID as large as the last one's stand-in.
    let set = set.replace('*', "9999");
    crate::provider::imap::wire::uidset::expand(set.as_bytes(), 1_000_000).unwrap_or_default()
}

fn fetched(seq: usize, uid: u64, message: &[u8], items: &str) -> Vec<u8> {
    let mut line = format!("* {seq} FETCH (UID {uid}").into_bytes();
    if items.contains("FLAGS") {
        line.extend(b" FLAGS ()");
    }
    if items.contains("INTERNALDATE") {
        let (hour, minute, second) = (uid / 3600 % 24, uid / 60 % 60, uid % 60);
        line.extend(format!(" INTERNALDATE \"01-Jan-2026 {hour:02}:{minute:02}:{second:02} +0000\"").into_bytes());
    }
    if items.contains("RFC822.SIZE") {
        line.extend(format!(" RFC822.SIZE {}", message.len()).into_bytes());
    }
    let head = message.windows(4).position(|w| w == b"\r\n\r\n").map_or(message.len(), |at| at + 4);
    let mut section = |name: &str, data: &[u8]| {
        line.extend(format!(" {name} {{{}}}\r\n", data.len()).into_bytes());
        line.extend(data);
    };
    if items.contains("BODY.PEEK[HEADER.FIELDS") {
        let text = String::from_utf8_lossy(&message[..head]).into_owned();
        let id = text.lines().find(|l| l.to_ascii_lowercase().starts_with("message-id")).unwrap_or_default();
        section("BODY[HEADER.FIELDS (MESSAGE-ID)]", format!("{id}\r\n\r\n").as_bytes());
    } else if items.contains("BODY.PEEK[HEADER]") {
        section("BODY[HEADER]", &message[..head]);
    }
    if let Some((_, rest)) = items.split_once("BODY.PEEK[]") {
        match rest.strip_prefix('<').and_then(|rest| rest.split('>').next()?.split_once('.')) {
            Some((origin, count)) => {
                let origin: usize = origin.parse().unwrap();
                let from = origin.min(message.len());
                let to = (from + count.parse::<usize>().unwrap()).min(message.len());
                section(&format!("BODY[]<{origin}>"), &message[from..to]);
            }
            None => section("BODY[]", message),
        }
    }
    line.extend(b")\r\n");
    line
}
