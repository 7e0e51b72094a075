//! IMAP accounts on Dovecot, and a second client that looks at the same mailbox in its own way.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{Timestamp, tz::TimeZone};
use mail_account::{
    Error, ErrorKind, FolderSpec, MailAccount, Result, Secret, SecretSource,
    provider::{
        Opening,
        imap::{ImapAccount, ImapConfig},
    },
    testing::conformance::{Harness, Need, Seen},
};

use super::dovecot::{Dovecot, Options, PASSWORD};

/// A mailbox on a server of its own, over TLS.
pub(crate) struct ImapHarness {
    server: Dovecot,
    user: String,
    /// Connections of the other client, and what it knows of names: hundreds of deliveries use them.
    clients: Arc<Mutex<Vec<Client>>>,
    names: Mutex<HashMap<String, String>>,
}

impl ImapHarness {
    pub(crate) fn new() -> Self {
        Self::with(Options::default())
    }

    /// A server that announces less than it can.
    pub(crate) fn announcing(capability: &'static str) -> Self {
        Self::with(Options { capability: Some(capability), ..Options::default() })
    }

    fn with(options: Options) -> Self {
        let server = Dovecot::with(options);
        let user = server.user();
        Self { server, user, clients: Arc::default(), names: Mutex::default() }
    }

    fn account(&self) -> Result<ImapAccount> {
        let mut config = ImapConfig::new("localhost", &self.user, SecretSource::Literal(Secret::new(PASSWORD)));
        config.port = Some(self.server.tls_port);
        config.ca_file = Some(self.server.ca_file.clone());
        config.account(Opening::new("check"), None)
    }

    /// The name of a folder as the server has it, in quotes.
    async fn raw(&self, folder: &FolderSpec) -> Result<String> {
        let known = self.names.lock().expect("no panic under it").get(&folder.to_string()).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let found = self.account()?.resolve_folder(folder).await?;
        let name: Vec<u8> = percent_encoding::percent_decode_str(found.id.as_str()).collect();
        let name = String::from_utf8(name).map_err(|_| other("a folder with a raw 8-bit name"))?;
        let name = format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
        self.names.lock().expect("no panic under it").insert(folder.to_string(), name.clone());
        Ok(name)
    }

    /// Does something as another client. It speaks plain text, one command at a time.
    async fn client<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Client) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (port, user) = (self.server.port, self.user.clone());
        let clients = Arc::clone(&self.clients);
        tokio::task::spawn_blocking(move || {
            let idle = clients.lock().expect("no panic under it").pop();
            // The server hangs up on a client whose folder was deleted.
            let idle = idle.and_then(|mut client| client.run("NOOP").is_ok().then_some(client));
            let mut client = idle.map_or_else(|| Client::connect(port, &user), Ok)?;
            let done = work(&mut client)?;
            clients.lock().expect("no panic under it").push(client);
            Ok::<T, std::io::Error>(done)
        })
        .await
        .map_err(|e| other("the other client panicked").with_source(e))?
        .map_err(|e| other("the other client failed").with_source(e))
    }

    async fn on_message(&self, folder: &FolderSpec, id: &str, command: String) -> Result<()> {
        let (raw, id) = (self.raw(folder).await?, id.to_owned());
        self.client(move |client| {
            client.run(&format!("SELECT {raw}"))?;
            let found = client.run(&format!("UID SEARCH HEADER Message-ID \"{}\"", id.trim_matches(['<', '>'])))?;
            let uid = found
                .lines()
                .find_map(|line| line.strip_prefix("* SEARCH")?.split_whitespace().next().map(str::to_owned))
                .ok_or_else(|| std::io::Error::other(format!("no message {id}")))?;
            for part in command.split('\n') {
                client.run(&part.replace("{uid}", &uid))?;
            }
            client.run("UNSELECT").map(drop)
        })
        .await
    }
}

fn other(text: &'static str) -> Error {
    Error::new(ErrorKind::Other, text)
}

#[async_trait]
impl Harness for ImapHarness {
    async fn open(&self) -> Result<Arc<dyn MailAccount>> {
        Ok(Arc::new(self.account()?))
    }

    async fn deliver(&self, folder: &FolderSpec, raw: Bytes, received: Timestamp) -> Result<()> {
        let name = self.raw(folder).await?;
        let date = received.to_zoned(TimeZone::UTC).strftime("%d-%b-%Y %H:%M:%S +0000").to_string();
        self.client(move |client| client.append(&format!("APPEND {name} \"{date}\""), &raw)).await
    }

    async fn delete_folder(&self, folder: &FolderSpec) -> Result<()> {
        let found = match self.account()?.resolve_folder(folder).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        let mut below: Vec<_> = self.account()?.list_folders().await?;
        below.retain(|f| f.segments.starts_with(&found.segments));
        // Deepest first: a folder with children is not deleted.
        below.sort_by_key(|f| std::cmp::Reverse(f.segments.len()));
        for folder in below {
            let raw = self.raw(&FolderSpec::Id(folder.id.clone())).await?;
            let deletes = folder.selectable;
            self.client(move |client| if deletes { client.run(&format!("DELETE {raw}")).map(drop) } else { Ok(()) })
                .await?;
        }
        Ok(())
    }

    fn lacks(&self, need: Need) -> Option<String> {
        match need {
            Need::Unreadable => Some(
                "a healthy Dovecot gives every message; the tests of the imap provider script a server that does not"
                    .to_owned(),
            ),
            Need::Links => Some("IMAP mailboxes hold no links of their own".to_owned()),
            _ => None,
        }
    }

    async fn look(&self, folder: &FolderSpec) -> Result<Vec<Seen>> {
        let raw = self.raw(folder).await?;
        let text = self
            .client(move |client| {
                client.run(&format!("EXAMINE {raw}"))?;
                let there = client.run("UID SEARCH UNDELETED")?;
                let uids: Vec<_> = there
                    .lines()
                    .filter_map(|line| line.strip_prefix("* SEARCH"))
                    .flat_map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
                    .collect();
                let seen = match uids.is_empty() {
                    true => String::new(),
                    false => {
                        let set = uids.join(",");
                        client.run(&format!("UID FETCH {set} (FLAGS BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])"))?
                    }
                };
                client.run("UNSELECT")?;
                Ok(seen)
            })
            .await?;
        let mut seen = Vec::new();
        for one in text.split("\r\n* ").filter(|one| one.contains("FETCH (")) {
            let lower = one.to_ascii_lowercase();
            let id = lower.find("message-id:").filter(|at| one[*at..].contains('<')).map(|at| {
                let rest = &one[at + "message-id:".len()..];
                rest[..rest.find('>').map_or(rest.len(), |end| end + 1)].trim().to_owned()
            });
            seen.push(Seen::new(id, lower.contains("\\seen")));
        }
        Ok(seen)
    }

    async fn delete(&self, folder: &FolderSpec, internet_message_id: &str) -> Result<()> {
        let commands = "UID STORE {uid} +FLAGS.SILENT (\\Deleted)\nUID EXPUNGE {uid}";
        self.on_message(folder, internet_message_id, commands.to_owned()).await
    }

    async fn relocate(&self, folder: &FolderSpec, internet_message_id: &str, to: &FolderSpec) -> Result<()> {
        let to = self.raw(to).await?;
        self.on_message(folder, internet_message_id, format!("UID MOVE {{uid}} {to}")).await
    }

    async fn mark(&self, folder: &FolderSpec, internet_message_id: &str, read: bool) -> Result<()> {
        let sign = if read { '+' } else { '-' };
        self.on_message(folder, internet_message_id, format!("UID STORE {{uid}} {sign}FLAGS (\\Seen)")).await
    }
}

/// As little of a client as will do.
struct Client {
    stream: BufReader<TcpStream>,
    tag: u32,
}

impl Client {
    fn connect(port: u16, user: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
        let mut client = Self { stream: BufReader::new(stream), tag: 0 };
        client.line()?;
        let password = PASSWORD.replace('\\', "\\\\").replace('"', "\\\"");
        client.run(&format!("LOGIN \"{user}\" \"{password}\""))?;
        Ok(client)
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        let mut text = String::from_utf8_lossy(&line).into_owned();
        if let Some(size) =
            text.trim_end().strip_suffix('}').and_then(|t| t.rsplit_once('{')).and_then(|(_, n)| n.parse().ok())
        {
            let mut literal = vec![0; size];
            self.stream.read_exact(&mut literal)?;
            text.push_str(&String::from_utf8_lossy(&literal));
            text.push_str(&self.line()?);
        }
        if text.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(text)
    }

    fn answer(&mut self) -> std::io::Result<String> {
        let tag = format!("C{} ", self.tag);
        let mut all = String::new();
        loop {
            let line = self.line()?;
            if let Some(status) = line.strip_prefix(&tag) {
                return if status.starts_with("OK") { Ok(all) } else { Err(std::io::Error::other(status.to_owned())) };
            }
            all.push_str(&line);
        }
    }

    fn run(&mut self, command: &str) -> std::io::Result<String> {
        self.tag += 1;
        write!(self.stream.get_mut(), "C{} {command}\r\n", self.tag)?;
        self.answer()
    }

    fn append(&mut self, command: &str, raw: &[u8]) -> std::io::Result<()> {
        self.tag += 1;
        write!(self.stream.get_mut(), "C{} {command} {{{}}}\r\n", self.tag, raw.len())?;
        let go = self.line()?;
        if !go.starts_with('+') {
            return Err(std::io::Error::other(go));
        }
        self.stream.get_mut().write_all(raw)?;
        self.stream.get_mut().write_all(b"\r\n")?;
        self.answer().map(drop)
    }
}
