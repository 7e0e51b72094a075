//! The fake of Microsoft Graph as a process of its own.
//!
//! Prints one line of JSON once it listens, and runs until it is stopped:
//!
//! ```text
//! cargo run --features testing --example graph_fake -- --seed 100 --attachments 2 --attachment-size 100000
//! {"login_url":"http://127.0.0.1:40001","graph_url":"http://127.0.0.1:40000","tenant":"...",...}
//! ```

use clap::{Parser, ValueEnum};
use mail_account::testing::graph::{GeneratedMail, GraphFake, Language};
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Parser)]
#[command(about = "A fake of Microsoft Graph mail and of Entra's token endpoint, on loopback")]
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
}

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
    let app = fake
        .app("graph_fake")
        .secret(secret)
        .permissions(["Mail.ReadWrite", "User.Read.All", "MailboxSettings.Read"])
        .create();
    let language = match arguments.language {
        Lang::Nl => Language::Dutch,
        Lang::En => Language::English,
    };
    let mailboxes: Vec<_> =
        arguments.mailbox.iter().map(|address| fake.mailbox(address).language(language).create()).collect();
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
        "mailboxes": arguments.mailbox,
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
