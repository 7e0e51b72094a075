//! Authorize in a web application: a page with a link for each delegated account, and the page to which the sign-in
//! service sends the browser back. The library needs no web framework; this example uses axum.
//!
//! ```sh
//! cargo run --example web_callback -- --config mail.toml --port 8400
//! ```
//!
//! The app registration's redirect URI is the address of the callback, `http://localhost:8400/callback` here and
//! `https://...` in earnest. Put the first page behind your own sign-in: whoever opens it can begin a sign-in. The
//! callback needs none, because only a hand-over that was begun here is taken, once.

mod support;

use std::{net::Ipv4Addr, path::PathBuf, process::ExitCode, sync::Arc};

use axum::{
    Router,
    extract::{Path, RawQuery, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::get,
};
use clap::Parser;
use mail_account::{Error, ErrorKind, Language, MailApp, Result, auth::Auth};
use tokio::net::TcpListener;

/// Serves the pages on this machine.
#[derive(Parser)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The port; 0 for a free one.
    #[arg(long, default_value_t = 8400)]
    port: u16,
}

struct Site {
    app: MailApp,
    redirect_uri: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Arguments = match support::arguments() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match serve(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => support::fatal(false, &error),
    }
}

async fn serve(arguments: &Arguments) -> Result<()> {
    let app = MailApp::load(&arguments.config)?;
    let taken = |e: std::io::Error| Error::new(ErrorKind::Other, "the port cannot be listened on").with_source(e);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port)).await.map_err(taken)?;
    let port = listener.local_addr().map_err(taken)?.port();
    let site = Arc::new(Site { app, redirect_uri: format!("http://localhost:{port}/callback") });
    let pages = Router::new()
        .route("/", get(accounts))
        .route("/authorize/{account}", get(begin))
        .route("/callback", get(complete))
        .with_state(site);
    println!("http://localhost:{port}/");
    axum::serve(listener, pages).await.map_err(taken)
}

/// The accounts for which a person signs in.
async fn accounts(State(site): State<Arc<Site>>) -> Html<String> {
    let delegated = site.app.accounts().filter(|account| {
        let settings = site.app.sign_in_settings(&account.name);
        matches!(settings, Ok(Some(settings)) if settings.auth == Auth::Delegated)
    });
    let items: String = delegated
        .map(|account| {
            let mailbox = account.mailbox.map_or_else(String::new, |mailbox| mailbox.name);
            let link: String = url::form_urlencoded::byte_serialize(account.name.as_bytes()).collect();
            // A path knows no plus sign for a blank.
            let link = link.replace('+', "%20");
            format!("<li><a href=\"/authorize/{link}\">{}</a> {}</li>", escape(&account.name), escape(&mailbox))
        })
        .collect();
    Html(format!("<!DOCTYPE html><title>Accounts</title><ul>{items}</ul>"))
}

/// Sends the browser to sign in.
async fn begin(State(site): State<Arc<Site>>, Path(account): Path<String>) -> Response {
    match site.app.begin_sign_in(&account, Some(&site.redirect_uri)).await {
        Ok(hand_over) => Redirect::to(hand_over.link.as_str()).into_response(),
        Err(error) => failed(&error),
    }
}

/// Takes the browser back.
async fn complete(State(site): State<Arc<Site>>, RawQuery(query): RawQuery) -> Response {
    match site.app.complete_sign_in(&query.unwrap_or_default()).await {
        Ok(outcome) => {
            eprintln!("{}", support::line(&outcome.message(Language::English)));
            // The address holds the answer: no other site is to learn it.
            let headers = [(header::REFERRER_POLICY, "no-referrer"), (header::CACHE_CONTROL, "no-store")];
            (headers, Html(outcome.page())).into_response()
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &Error) -> Response {
    eprintln!("error: {}", error.chain());
    let page = format!("<!DOCTYPE html><title>Error</title><p>{}</p>", escape(&error.to_string()));
    (StatusCode::INTERNAL_SERVER_ERROR, Html(page)).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
