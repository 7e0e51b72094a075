//! The fake of Microsoft Graph as a process of its own.
//!
//! Prints one line of JSON once it listens, and runs until it is stopped:
//!
//! ```text
//! cargo run --features testing --example graph_fake -- --seed 100 --attachments 2 --attachment-size 100000
//! {"login_url":"http://127.0.0.1:40001","graph_url":"http://127.0.0.1:40000","tenant":"...",...}
//! ```
//!
//! People can sign in too, on the login site's pages in a browser: every mailbox is a user, and `users` in that line
//! holds their passwords. `client_id` is registered as a server with `client_secret`, `public_client_id` as a desktop
//! application; both send people back to `--redirect-uri`.

use clap::{Parser, ValueEnum};
use mail_account::testing::graph::{GeneratedMail, GraphFake, Language, MailboxState};
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Parser)]
#[command(about = "A fake of Microsoft Graph mail and of Entra's sign-in, on loopback")]
struct Arguments {
    /// Port of Graph; a free one by default.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Port of the login service; a free one by default.
    #[arg(long, default_value_t = 0)]
    login_port: u16,
    /// Put this many generated messages into each inbox.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Files on each generated message.
    #[arg(long, default_value_t = 0)]
    attachments: u32,
    /// Bytes of each of these files.
    #[arg(long, default_value_t = 100_000)]
    attachment_size: u64,
    /// Deliver the .eml files of this directory to the first mailbox, in order of their names.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// A mailbox; may be given several times.
    #[arg(long, default_value = "facturen@contoso.nl")]
    mailbox: Vec<String>,
    /// How long the service works on each request, in milliseconds.
    #[arg(long, default_value_t = 0)]
    latency: u64,
    /// The language of the folders' names.
    #[arg(long, value_enum, default_value_t = Lang::En)]
    language: Lang,
    /// Where people are sent back to after they signed in; may be given several times.
    #[arg(long, default_value = "http://localhost")]
    redirect_uri: Vec<String>,
    /// An administrator without a mailbox; may be given several times.
    #[arg(long)]
    admin: Vec<String>,
    /// Full access to a mailbox for another user, as MAILBOX=USER; may be given several times.
    #[arg(long, value_parser = access)]
    full_access: Vec<(String, String)>,
    /// An administrator has consented for everyone: people are not asked.
    #[arg(long)]
    consented: bool,
}

fn access(text: &str) -> Result<(String, String), String> {
    let (mailbox, user) = text.split_once('=').ok_or("expected MAILBOX=USER")?;
    Ok((mailbox.to_owned(), user.to_owned()))
}

/// What both registrations ask of people.
const DELEGATED: [&str; 4] = ["Mail.ReadWrite", "Mail.ReadWrite.Shared", "User.Read", "IMAP.AccessAsUser.All"];

#[derive(Clone, Copy, ValueEnum)]
enum Lang {
    Nl,
    En,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let fake = GraphFake::start_on(arguments.port, arguments.login_port).await?;
    fake.configure(|settings| settings.service_time = Duration::from_millis(arguments.latency));
    let secret = "a-secret-of-the-fake";
    let mut app = fake
        .app("graph_fake")
        .secret(secret)
        .permissions(["Mail.ReadWrite", "User.Read.All", "MailboxSettings.Read"])
        .delegated_permissions(DELEGATED);
    let mut public = fake.app("graph_fake").public_client().delegated_permissions(DELEGATED);
    for uri in &arguments.redirect_uri {
        app = app.redirect_uri(uri);
        public = public.native_redirect_uri(uri);
    }
    let (app, public) = (app.create(), public.create());
    if arguments.consented {
        app.consent_for_everyone();
        public.consent_for_everyone();
    }
    let language = match arguments.language {
        Lang::Nl => Language::Dutch,
        Lang::En => Language::English,
    };
    let mailboxes: Vec<_> =
        arguments.mailbox.iter().map(|address| fake.mailbox(address).language(language).create()).collect();
    let admins: Vec<_> = arguments
        .admin
        .iter()
        .map(|address| fake.mailbox(address).admin().state(MailboxState::NotEnabled).create())
        .collect();
    for (mailbox, user) in &arguments.full_access {
        let known = mailboxes.iter().find(|known| known.address().eq_ignore_ascii_case(mailbox));
        known.ok_or_else(|| format!("--full-access names no --mailbox: {mailbox}"))?.set_full_access(user, true);
    }
    for (number, mailbox) in mailboxes.iter().enumerate() {
        let mail = GeneratedMail::new(arguments.seed)
            .seed(1 + number as u64)
            .attachments(arguments.attachments, arguments.attachment_size);
        mailbox.generate("inbox", &mail);
    }
    if let (Some(directory), Some(mailbox)) = (&arguments.dir, mailboxes.first()) {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        files.retain(|path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("eml")));
        files.sort();
        for file in files {
            mailbox.deliver("inbox", std::fs::read(file)?);
        }
    }
    let line = serde_json::json!({
        "login_url": fake.login_url(),
        "graph_url": fake.graph_url(),
        "tenant": fake.tenant(),
        "client_id": app.client_id(),
        "client_secret": secret,
        "public_client_id": public.client_id(),
        "mailboxes": arguments.mailbox,
        "users": mailboxes.iter().chain(&admins).map(|user| serde_json::json!({
            "address": user.address(),
            "password": user.password(),
        })).collect::<Vec<_>>(),
    });
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}")?;
    stdout.flush()?;
    stopped().await?;
    Ok(())
}

#[cfg(unix)]
async fn stopped() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn stopped() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
