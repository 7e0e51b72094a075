//! Authorize: somebody signs in once for a delegated account, and from then on jobs run. Prints a link, waits for the
//! browser to come back, and stores the sign-in when it is the right person's and opens the mailbox.
//!
//! ```sh
//! cargo run --example authorize -- --config mail.toml --account invoices-graph
//! cargo run --example authorize -- --config mail.toml --account invoices-graph --device-code
//! cargo run --example authorize -- --config mail.toml --account invoices-graph --admin-consent --no-browser
//! ```
//!
//! Ends with 0 when it worked, 1 when the wrong person signed in or the service refused, 2 when the configuration is bad.

mod support;

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use clap::Parser;
use jiff::Timestamp;
use mail_account::{
    Language, MailApp, Result,
    auth::{HandOver, SignInOutcome, SignInSettings},
};

/// Signs somebody in for an account.
#[derive(Parser)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The account's name in it.
    #[arg(long)]
    account: String,
    /// Sign in with a code that is typed on another device.
    #[arg(long, conflicts_with = "admin_consent")]
    device_code: bool,
    /// Ask an administrator to consent for the whole tenant instead.
    #[arg(long)]
    admin_consent: bool,
    /// Do not open the browser.
    #[arg(long)]
    no_browser: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments: Arguments = match support::arguments() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match authorize(&arguments).await {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(outcome)) => {
            let message = support::line(&outcome.message(Language::English));
            if outcome.is_ok() {
                say(&message);
                return ExitCode::SUCCESS;
            }
            eprintln!("{message}");
            ExitCode::from(support::FAILED)
        }
        Err(error) => support::fatal(false, &error),
    }
}

/// `None` when the answer is somebody else's to take.
async fn authorize(arguments: &Arguments) -> Result<Option<SignInOutcome>> {
    let app = MailApp::load(&arguments.config)?;
    let account = &arguments.account;
    if arguments.device_code {
        let code = app.device_code(account).await?;
        eprintln!("Open this page on any device, type the code, and sign in:");
        show(arguments, &code.verification_uri);
        say(&support::line(&code.user_code));
        return app.await_device(&code).await.map(Some);
    }
    let settings = app.sign_in_settings(account)?;
    if let Some(settings) = settings.filter(|settings| !settings.returns_here()) {
        return elsewhere(arguments, &app, &settings).await;
    }
    let here = match arguments.admin_consent {
        true => app.admin_consent_here(account).await?,
        false => app.sign_in_here(account).await?,
    };
    eprintln!("Open this link in a browser on this machine and {}:", what_to_do(arguments));
    show(arguments, here.hand_over().link.as_str());
    here.finish().await.map(Some)
}

/// The app registration sends the browser to a page of the host, which completes the sign-in; here it is only awaited.
async fn elsewhere(arguments: &Arguments, app: &MailApp, settings: &SignInSettings) -> Result<Option<SignInOutcome>> {
    let begun = Timestamp::now();
    let hand_over: HandOver = match arguments.admin_consent {
        true => app.begin_admin_consent(&arguments.account, None).await?,
        false => app.begin_sign_in(&arguments.account, None).await?,
    };
    eprintln!("Open this link in a browser and {}:", what_to_do(arguments));
    show(arguments, hand_over.link.as_str());
    eprintln!("The answer goes to {}, and the program behind it must take it.", hand_over.redirect_uri);
    if arguments.admin_consent {
        return Ok(None);
    }
    let (store, id) = (app.token_store().await?, settings.id()?);
    while Timestamp::now() < hand_over.expires {
        if let Some(sign_in) = store.sign_in(&id).await?
            && sign_in.signed_in >= begun
        {
            return Ok(Some(SignInOutcome::Authorised { account: hand_over.account, signer: sign_in.signer }));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    Ok(Some(SignInOutcome::Expired { account: hand_over.account }))
}

fn what_to_do(arguments: &Arguments) -> &'static str {
    if arguments.admin_consent { "consent as an administrator" } else { "sign in" }
}

/// The link on a line of its own, for people and for programs; and in the browser, where there is one.
fn show(arguments: &Arguments, link: &str) {
    let link = support::line(link);
    say(&link);
    // What a service calls its page is opened only if it is one.
    if arguments.no_browser || !link.starts_with("https://") && !link.starts_with("http://") {
        return;
    }
    let (program, first): (_, &[&str]) = match std::env::consts::OS {
        "macos" => ("open", &[]),
        "windows" => ("rundll32", &["url.dll,FileProtocolHandler"]),
        _ => ("xdg-open", &[]),
    };
    let opened = Command::new(program)
        .args(first)
        .arg(&link)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if opened.is_err() {
        eprintln!("No browser could be opened here; open the link yourself.");
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody is left to tell when stdout is closed.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
