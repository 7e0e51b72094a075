//! Dovecot asks the fake of Entra what a token is worth, as its documentation shows.

#![cfg(all(feature = "testing", feature = "graph", feature = "imap"))]

#[path = "support/dovecot.rs"]
mod dovecot;
#[path = "support/sign_in.rs"]
mod sign_in;

use dovecot::{Dovecot, Options};
use sign_in::{CALLBACK, Rig, code};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// What the server says to a token.
async fn log_in(server: &Dovecot, mailbox: &str, token: &str) -> String {
    let mut wire = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    let sasl = base64_simd::STANDARD.encode_to_string(format!("user={mailbox}\x01auth=Bearer {token}\x01\x01"));
    wire.write_all(format!("a AUTHENTICATE XOAUTH2 {sasl}\r\n").as_bytes()).await.unwrap();
    let mut said = String::new();
    let mut piece = [0; 4096];
    loop {
        let n = wire.read(&mut piece).await.unwrap();
        assert!(n > 0, "the server hangs up after: {said}");
        said.push_str(&String::from_utf8_lossy(&piece[..n]));
        if let Some(line) = said.lines().find(|line| line.starts_with("a ") || line.starts_with("+ ")) {
            return line.to_owned();
        }
    }
}

#[tokio::test]
async fn dovecot_asks_the_fake_about_tokens() {
    let imap = "https://outlook.office.com/IMAP.AccessAsUser.All";
    let rig =
        Rig::with(|app| app.secret("right").redirect_uri(CALLBACK).delegated_permissions([imap]).consented()).await;
    let other = rig.fake.mailbox("beheer@contoso.nl").create();
    let settings = format!(
        "introspection_mode = post\nintrospection_url = {}/introspect\nusername_attribute = email\nactive_attribute = active\nactive_value = true\n",
        rig.fake.login_url()
    );
    let server = Dovecot::with(Options { oauth: Some(settings), ..Options::default() });
    let mut tokens = Vec::new();
    for (user, scope) in [(&rig.user, imap), (&other, imap), (&rig.user, "Mail.ReadWrite")] {
        let callback = rig.fake.sign_in_as(&rig.link().with("scope", scope).url(), user).await;
        let answer = rig.redeem(&code(&callback), &[]).await.good();
        tokens.push(answer["access_token"].as_str().unwrap().to_owned());
    }
    let said = log_in(&server, "facturen@contoso.nl", &tokens[0]).await;
    assert!(said.starts_with("a OK"), "{said}");
    for (what, token) in [("somebody else's", &tokens[1]), ("Graph's", &tokens[2]), ("nobody's", &"x".repeat(40))] {
        let said = log_in(&server, "facturen@contoso.nl", token).await;
        assert!(!said.starts_with("a OK"), "{what} token: {said}");
    }
}
