//! Sign-in with access tokens that are replaced while sessions live.

use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::{
    Context, Error, Patience, Secret,
    auth::TokenProvider,
    provider::{Opening, imap::ImapConfig},
};

/// Gives what the test says.
#[derive(Debug)]
struct Told(Mutex<Result<&'static str, ErrorKind>>);

#[async_trait]
impl TokenProvider for Told {
    async fn token(&self) -> Result<Secret> {
        let token = *self.0.lock().unwrap();
        token.map(Secret::new).map_err(|kind| Error::new(kind, "no token now"))
    }

    fn reject(&self, _: &Secret, _: Option<&str>) {}
}

#[tokio::test]
async fn a_session_ends_when_its_token_is_replaced_and_not_while_there_is_no_new_one() {
    let server = server_with(2, |_| None).await;
    server.state().capability = "IMAP4rev1 SASL-IR AUTH=XOAUTH2 UIDPLUS MOVE LITERAL+".to_owned();
    let config: ImapConfig = serde_json::from_value(serde_json::json!({
        "host": "127.0.0.1", "port": server.port, "tls": "none", "username": "facturen@contoso.example",
        "oauth": {
            "auth": "app",
            "app": {"tenant": "contoso.example", "client_id": "11111111-2222-3333-4444-555555555555", "client_secret": "x~1"},
        },
    }))
    .unwrap();
    let tokens = Arc::new(Told(Mutex::new(Ok("first"))));
    let opening = Opening::new("a").with_context(Context::default());
    let account = config.account_with(opening, Some(tokens.clone()), Patience::default().into(), 1).unwrap();
    let sign_ins = || server.state().log.iter().filter(|line| line.starts_with("AUTHENTICATE XOAUTH2")).count();

    for (next, expected) in [(Ok("first"), 1), (Err(ErrorKind::Unavailable), 1), (Ok("second"), 2), (Ok("second"), 2)] {
        *tokens.0.lock().unwrap() = next;
        assert_eq!(soon(list(&account)).await.unwrap().len(), 2);
        assert_eq!(sign_ins(), expected, "{next:?}");
    }
    assert!(server.state().log.iter().any(|line| line.starts_with("LOGOUT")));
}
