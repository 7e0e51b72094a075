//! Whether a token opens a mailbox by IMAP: for a scripted server, and for Dovecot by introspection (RFC 7662).

use super::super::reply::Reply;
use super::super::routes::Incoming;
use super::super::state::{MailboxState, State};
use super::codes::Aadsts;
use super::jwt;
use super::token::Form;
use percent_encoding::percent_decode_str;
use serde_json::json;

/// What Exchange Online says to `AUTHENTICATE XOAUTH2`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImapAnswer {
    /// `OK AUTHENTICATE completed.`, and the mailbox opens.
    Accepted,
    /// `OK AUTHENTICATE completed.`, and then `BAD User is authenticated but not connected.` on the first command: the
    /// token is good, its bearer has no right to this mailbox, or there is no such mailbox.
    NotConnected,
    /// `NO AUTHENTICATE failed.`; Exchange does not say why, the fake does.
    Refused(&'static str),
}

/// `user=` and `auth=Bearer` of a SASL exchange.
pub(crate) fn imap(state: &State, token: &str, mailbox: &str) -> ImapAnswer {
    let Ok(token) = jwt::read(state, token) else {
        return ImapAnswer::Refused("the token is no token of the fake, expired or revoked");
    };
    if !["https://outlook.office.com", "https://outlook.office365.com"].contains(&token.audience.as_str()) {
        return ImapAnswer::Refused("the token is for another resource");
    }
    if mailbox.is_empty() {
        return ImapAnswer::Refused("user= is empty");
    }
    let found = state.users.iter().find(|user| user.id != mailbox && user.goes_by(mailbox));
    let found = found.filter(|user| user.state == MailboxState::Ready && user.tenant == token.tenant);
    let app = state.app(&token.client_id);
    let allowed = match &token.scopes {
        Some(scopes) => {
            if !scopes.iter().any(|scope| scope == "IMAP.AccessAsUser.All") {
                return ImapAnswer::Refused("the token lacks IMAP.AccessAsUser.All");
            }
            found.is_some_and(|user| user.id == token.object_id || state.has_full_access(user, &token.object_id))
        }
        None => {
            if !token.roles.iter().any(|role| role == "IMAP.AccessAsApp") {
                return ImapAnswer::Refused("the token lacks IMAP.AccessAsApp");
            }
            let Some(mailboxes) = app.and_then(|app| app.imap_mailboxes.as_ref()) else {
                return ImapAnswer::Refused("the service principal is not registered in Exchange");
            };
            found.is_some_and(|user| mailboxes.iter().any(|name| user.goes_by(name)))
        }
    };
    if allowed { ImapAnswer::Accepted } else { ImapAnswer::NotConnected }
}

/// `POST /introspect` with `token`, `GET` with `?token=`, or with the token as bearer; `/introspect/{mailbox}` asks
/// about that mailbox.
pub(super) fn introspect(state: &mut State, incoming: &Incoming<'_>) -> Result<Reply, Aadsts> {
    let (path, query) = incoming.target.split_once('?').unwrap_or((incoming.target, ""));
    let form = if incoming.method == "POST" { Form::read(incoming)? } else { Form::parse(query)? };
    let bearer = incoming.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let text = form.get("token").or(bearer).unwrap_or_default();
    let dead = Ok(Reply::json(200, json!({"active": false})));
    let Ok(token) = jwt::read(state, text) else {
        return dead;
    };
    let bearer = state.users.iter().find(|user| user.id == token.object_id);
    let own = bearer.map(|user| user.mail.clone().unwrap_or_else(|| user.upn.clone()));
    let named = path.strip_prefix("/introspect/").map(|name| percent_decode_str(name).decode_utf8_lossy().into_owned());
    let Some(asked) = named.or_else(|| own.clone()) else {
        return dead;
    };
    let username = match imap(state, text, &asked) {
        ImapAnswer::Accepted => asked,
        // Good, but for someone else's mailbox.
        ImapAnswer::NotConnected => own.unwrap_or_default(),
        ImapAnswer::Refused(_) => return dead,
    };
    Ok(Reply::json(
        200,
        json!({
            "active": true,
            "token_type": "Bearer",
            "username": username,
            "email": username,
            "client_id": token.client_id,
            "scope": token.scopes.unwrap_or(token.roles).join(" "),
            "exp": token.expires,
            "iat": token.issued,
            "sub": token.object_id,
            "aud": token.audience,
        }),
    ))
}
