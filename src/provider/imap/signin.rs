//! From a fresh connection to a signed-in session, and what a refusal means.

use std::sync::Arc;

use base64_simd::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use super::{
    config::{Tls as TlsMode, is_exchange_online},
    failure::{Failure, Outcome, SignIn, said},
    session::{Event, Session, Timeouts, checked},
    stream::{self, Stream, Tls},
    usage::Counters,
    wire::{
        encode::Command,
        reader::ReadError,
        response::Untagged,
        status::{Code, Condition, Status},
    },
};
use crate::{Error, ErrorKind, Secret};

/// Where to connect.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: TlsMode,
}

/// What to show at the door.
#[derive(Clone, Debug)]
pub(crate) enum Proof {
    Password(Secret),
    Token(Secret),
}

/// Longest initial response on the command line; a longer one waits for its prompt.
const MAX_INITIAL: usize = 6_000;

/// Connects and, where the mode asks for it, secures the connection. Nothing has been sent yet that matters.
pub(crate) async fn connect(
    server: &Server,
    tls: Option<&Tls>,
    timeouts: Timeouts,
    counters: &Arc<Counters>,
) -> Outcome<(Session, Condition)> {
    let socket: Stream = Box::new(stream::connect(&server.host, server.port, timeouts.connect).await?);
    match (server.tls, tls) {
        (TlsMode::None, _) => greet(socket, timeouts, counters).await,
        (TlsMode::Implicit, Some(tls)) => {
            let secured = secure(tls, &server.host, socket, timeouts).await?;
            greet(secured, timeouts, counters).await
        }
        (TlsMode::Starttls, Some(tls)) => {
            let (session, condition) = greet(socket, timeouts, counters).await?;
            let socket = start_tls(session, condition).await?;
            let secured = secure(tls, &server.host, socket, timeouts).await?;
            // A new session: whatever was said in plain text, by whomever, is forgotten. There is no second greeting.
            let mut session = Session::new(secured, timeouts, Arc::clone(counters));
            session.capability().await?;
            Ok((session, Condition::Ok))
        }
        (_, None) => Err(Failure::Protocol("TLS was not set up")),
    }
}

async fn secure(tls: &Tls, host: &str, socket: Stream, timeouts: Timeouts) -> Outcome<Stream> {
    match tokio::time::timeout(timeouts.greeting, tls.wrap(host, socket)).await {
        Ok(wrapped) => wrapped,
        Err(_) => Err(Failure::Lost(ReadError::Timeout)),
    }
}

async fn greet(socket: Stream, timeouts: Timeouts, counters: &Arc<Counters>) -> Outcome<(Session, Condition)> {
    let mut session = Session::new(socket, timeouts, Arc::clone(counters));
    let condition = session.greeting().await?;
    if session.offered.is_empty() {
        session.capability().await?;
    }
    Ok((session, condition))
}

async fn start_tls(mut session: Session, condition: Condition) -> Outcome<Stream> {
    if condition == Condition::Preauth {
        return Err(Failure::Public(Error::new(
            ErrorKind::InvalidConfig,
            "the server signs everybody in before the connection is secure, so STARTTLS is impossible; use `tls = \"implicit\"`",
        )));
    }
    if !session.offered.has("STARTTLS") {
        return Err(Failure::Public(Error::new(
            ErrorKind::InvalidConfig,
            "the server does not offer STARTTLS on this port; use `tls = \"implicit\"` with port 993",
        )));
    }
    session.run(Command::new("STARTTLS"), |_| {}).await?;
    let (stream, leftover) = session.into_stream();
    if leftover > 0 {
        // Somebody on the way has put commands where the handshake should begin (CVE-2011-0411 and its kin).
        return Err(Failure::Protocol("text in plain after STARTTLS, which looks like tampering"));
    }
    Ok(stream)
}

/// Signs in and learns what the server offers then, which is more than before.
pub(crate) async fn sign_in(session: &mut Session, server: &Server, user: &str, proof: &Proof) -> Outcome<()> {
    session.wait_at_most(session.timeouts().sign_in);
    session.offered_again = false;
    let mut methods = choose(session, server, proof)?.into_iter();
    let mut method = methods.next();
    while let Some(now) = method {
        let result = match now {
            Method::Login => login(session, user, proof).await,
            Method::Sasl(mechanism) => authenticate(session, server, user, proof, mechanism).await,
        };
        method = match result {
            Ok(()) => None,
            Err(Refusal::Failure(failure)) => return Err(at_the_door(failure)),
            Err(Refusal::Said { status, challenge }) => match methods.next() {
                // Announced, and not known after all; nobody has looked at what was shown.
                Some(next) if is_unsupported(&status) => Some(next),
                _ => return Err(Failure::SignIn(explain(&status, challenge.as_deref(), server, proof))),
            },
        };
    }
    if !session.offered_again {
        session.capability().await?;
    }
    Ok(())
}

enum Refusal {
    Failure(Failure),
    Said { status: Status, challenge: Option<String> },
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// A connection that ends during sign-in says nothing of the password.
fn at_the_door(failure: Failure) -> Failure {
    match failure {
        Failure::Lost(ReadError::Closed { .. }) => Failure::SignIn(SignIn {
            kind: ErrorKind::Unavailable,
            message: "the server closed the connection during sign-in, which servers do to slow callers down; this says nothing of the password".to_owned(),
            code: None,
            retry_after: None,
            counts: false,
        }),
        other => other,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    Plain,
    XOAuth2,
    OAuthBearer,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::XOAuth2 => "XOAUTH2",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Method {
    Login,
    Sasl(Mechanism),
}

/// The ways that the server offers, best first.
fn choose(session: &Session, server: &Server, proof: &Proof) -> Outcome<Vec<Method>> {
    let offers = |name: &str| session.offered.has(name);
    let no = |kind, message: String| {
        Err(Failure::SignIn(SignIn { kind, message, code: None, retry_after: None, counts: false }))
    };
    let methods: Vec<Method> = match proof {
        // XOAUTH2 first: where both are offered it is the one that the large services exercise every day.
        Proof::Token(_) => [Mechanism::XOAuth2, Mechanism::OAuthBearer]
            .into_iter()
            .filter(|mechanism| offers(&format!("AUTH={}", mechanism.name())))
            .map(Method::Sasl)
            .collect(),
        Proof::Password(_) => {
            let plain = offers("AUTH=PLAIN").then_some(Method::Sasl(Mechanism::Plain));
            plain.into_iter().chain((!offers("LOGINDISABLED")).then_some(Method::Login)).collect()
        }
    };
    if !methods.is_empty() {
        return Ok(methods);
    }
    match proof {
        Proof::Token(_) => no(
            ErrorKind::InvalidConfig,
            format!("{} does not accept OAuth tokens; use `password` for this account", server.host),
        ),
        Proof::Password(_) if server.tls == TlsMode::None => no(
            ErrorKind::InvalidConfig,
            format!("{} accepts passwords only over TLS; set `tls` to `implicit` or `starttls`", server.host),
        ),
        Proof::Password(_) => no(
            ErrorKind::InvalidConfig,
            format!("sign-in with a password is switched off on {}; use `oauth` for this account", server.host),
        ),
    }
}

/// Dovecot's words; the standards have no code for it.
fn is_unsupported(status: &Status) -> bool {
    status.text.to_ascii_lowercase().contains("unsupported authentication mechanism")
}

async fn login(session: &mut Session, user: &str, proof: &Proof) -> Result<(), Refusal> {
    let Proof::Password(password) = proof else {
        return Err(Refusal::Failure(Failure::Protocol("LOGIN takes a password")));
    };
    let command = Command::new("LOGIN").string(user.as_bytes()).string(password.expose().as_bytes());
    let tag = session.start(command).await?;
    match session.finish(tag, "LOGIN", |_| {}).await {
        Ok(_) => Ok(()),
        Err(Failure::Refused { status, .. }) => Err(Refusal::Said { status, challenge: None }),
        Err(other) => Err(Refusal::Failure(other)),
    }
}

async fn authenticate(
    session: &mut Session,
    server: &Server,
    user: &str,
    proof: &Proof,
    mechanism: Mechanism,
) -> Result<(), Refusal> {
    let initial = initial_response(mechanism, server, user, proof)?;
    let mut command = Command::new("AUTHENTICATE").raw(mechanism.name());
    let at_once = session.offered.has("SASL-IR") && initial.expose().len() <= MAX_INITIAL;
    if at_once {
        command = command.raw(initial.expose());
    }
    let tag = session.start(command).await?;
    let mut sent = at_once;
    let mut challenge = None;
    loop {
        match session.event(|_, _| false).await? {
            Event::Continue(_) if !sent => {
                sent = true;
                session.send(format!("{}\r\n", initial.expose()).as_bytes()).await?;
            }
            Event::Continue(data) if challenge.is_none() => {
                // The refusal. It must be answered before the server says NO, and never with the token.
                challenge = Some(describe_challenge(&data));
                let answer: &[u8] = match mechanism {
                    Mechanism::XOAuth2 => b"\r\n",
                    Mechanism::OAuthBearer => b"AQ==\r\n",
                    Mechanism::Plain => b"*\r\n",
                };
                session.send(answer).await?;
            }
            Event::Continue(_) => return Err(Failure::Protocol("one prompt after another during sign-in").into()),
            // Exchange ends an exchange of challenge and answer so, and says nothing more.
            Event::Untagged(Untagged::Status(status)) if status.condition == Condition::Bad && challenge.is_some() => {
                return Err(Refusal::Said { status, challenge });
            }
            Event::Done { tag: done, status } if done == tag => {
                return match checked("sign-in", status) {
                    Ok(_) => Ok(()),
                    Err(Failure::Refused { status, .. }) => Err(Refusal::Said { status, challenge }),
                    Err(other) => Err(other.into()),
                };
            }
            _ => {}
        }
    }
}

fn initial_response(mechanism: Mechanism, server: &Server, user: &str, proof: &Proof) -> Outcome<Secret> {
    let (Proof::Password(secret) | Proof::Token(secret)) = proof;
    let secret = secret.expose();
    if user.contains(['\0', '\r', '\n', '\x01']) || secret.contains(['\0', '\r', '\n', '\x01']) {
        return Err(Failure::Unsendable);
    }
    let text = match mechanism {
        Mechanism::Plain => Secret::new(format!("\0{user}\0{secret}")),
        Mechanism::XOAuth2 => Secret::new(format!("user={user}\x01auth=Bearer {secret}\x01\x01")),
        Mechanism::OAuthBearer => {
            let user = user.replace('=', "=3D").replace(',', "=2C");
            Secret::new(format!(
                "n,a={user},\x01host={}\x01port={}\x01auth=Bearer {secret}\x01\x01",
                server.host, server.port
            ))
        }
    };
    Ok(Secret::new(STANDARD.encode_to_string(text.expose().as_bytes())))
}

/// Status and scope out of the server's JSON; nothing else of it is worth repeating.
fn describe_challenge(data: &Bytes) -> String {
    let Ok(json) = STANDARD.decode_to_vec(data.trim_ascii()) else {
        return String::new();
    };
    let Ok(Value::Object(fields)) = serde_json::from_slice(&json) else {
        return String::new();
    };
    let field = |name: &str| match fields.get(name) {
        Some(Value::String(text)) => Some(format!("{name} {}", super::wire::status::clean(text.as_bytes()))),
        Some(Value::Number(number)) => Some(format!("{name} {number}")),
        _ => None,
    };
    ["status", "scope"].into_iter().filter_map(field).collect::<Vec<_>>().join(", ")
}

/// What a refused sign-in means: by code first, then by words, else "cannot tell", and says so.
fn explain(status: &Status, challenge: Option<&str>, server: &Server, proof: &Proof) -> SignIn {
    let text = status.text.to_ascii_lowercase();
    let says = |words: &str| text.contains(words);
    let said = said(status);
    let detail = match challenge {
        Some(challenge) if !challenge.is_empty() => format!(" ({challenge})"),
        _ => String::new(),
    };
    let oauth = matches!(proof, Proof::Token(_));
    let make = |kind, code: Option<&str>, counts, message: String| SignIn {
        kind,
        message: format!("{message}{said}{detail}"),
        code: code.map(str::to_owned),
        retry_after: status.backoff_millis().map(std::time::Duration::from_millis),
        counts,
    };
    let wrong = if oauth {
        "the server refused the access token: it is expired, lacks the IMAP permission, or belongs to somebody other than `username`"
    } else {
        "the server refused the user name or the password"
    };
    match &status.code {
        Some(Code::AuthenticationFailed) => {
            return make(ErrorKind::Unauthenticated, Some("AUTHENTICATIONFAILED"), true, wrong.to_owned());
        }
        Some(Code::AuthorizationFailed) => {
            let text = "the credentials are right, but they may not open this mailbox".to_owned();
            return make(ErrorKind::PermissionDenied, Some("AUTHORIZATIONFAILED"), false, text);
        }
        Some(Code::Expired) => {
            return make(ErrorKind::Unauthenticated, Some("EXPIRED"), true, "the password has expired".to_owned());
        }
        Some(Code::PrivacyRequired) => {
            let text = "the server wants TLS before sign-in; set `tls` to `implicit` or `starttls`".to_owned();
            return make(ErrorKind::InvalidConfig, Some("PRIVACYREQUIRED"), false, text);
        }
        Some(code @ (Code::Unavailable | Code::InUse | Code::ServerBug)) => {
            let code = match code {
                Code::Unavailable => "UNAVAILABLE",
                Code::InUse => "INUSE",
                _ => "SERVERBUG",
            };
            let kind = if says("maximum number") { ErrorKind::Throttled } else { ErrorKind::Unavailable };
            return make(kind, Some(code), false, "the server cannot sign anybody in just now".to_owned());
        }
        Some(Code::Limit | Code::OverQuota) => {
            return make(ErrorKind::Throttled, Some("LIMIT"), false, "a limit of the server was reached".to_owned());
        }
        Some(Code::ContactAdmin | Code::NoPerm) => {
            let text = "the server's policy forbids this sign-in; ask its administrator".to_owned();
            return make(ErrorKind::PermissionDenied, Some("CONTACTADMIN"), true, text);
        }
        Some(Code::WebAlert) => {
            let text = "the service wants somebody to sign in with a browser first".to_owned();
            return make(ErrorKind::Unauthenticated, Some("WEBALERT"), true, text);
        }
        _ => {}
    }
    if says("too many") || says("throttled") || says("backoff time") || says("server unavailable") {
        return make(ErrorKind::Throttled, None, false, "the server is slowing sign-ins down".to_owned());
    }
    if says("application-specific password") {
        let text = "the service wants an app password for this account".to_owned();
        return make(ErrorKind::Unauthenticated, None, true, text);
    }
    if says("basic authentication is disabled") || says("basicauthblocked") {
        let text = "sign-in with a password is switched off for this mailbox; use `oauth` for this account".to_owned();
        return make(ErrorKind::Unauthenticated, None, true, text);
    }
    if says("not enabled for imap") || says("imap access is disabled") || says("imap is disabled") {
        let text = "IMAP is switched off for this mailbox, the server says".to_owned();
        return make(ErrorKind::PermissionDenied, None, true, text);
    }
    if says("blocked") {
        let text = "the account is blocked; its owner must sign in with a browser".to_owned();
        return make(ErrorKind::Unauthenticated, None, true, text);
    }
    if is_unsupported(status) {
        let text = "the server does not accept this way of signing in".to_owned();
        return make(ErrorKind::InvalidConfig, None, false, text);
    }
    if status.condition == Condition::Bad && challenge.is_none() {
        return make(ErrorKind::Malformed, None, true, "the server did not understand the sign-in".to_owned());
    }
    if says("authentication failure") || says("invalid credentials") || says("incorrect") {
        return make(ErrorKind::Unauthenticated, None, true, wrong.to_owned());
    }
    let exchange = is_exchange_online(&server.host);
    let mut text = "the sign-in was refused, and the server does not say why".to_owned();
    text.push_str(match (oauth, exchange) {
        (false, true) => {
            ". Exchange Online has retired sign-in with a password: use `oauth`, or the provider `graph`. It \
             answers a wrong password, a mailbox with IMAP switched off and a locked account in the same way"
        }
        (false, false) => {
            ". It cannot be told apart whether the user name or password is wrong, sign-in with a password is \
             switched off, IMAP is switched off for this mailbox, or the account is locked"
        }
        (true, _) => {
            ". Likely causes: the token lacks the IMAP permission, IMAP is switched off for this mailbox, or the \
             mailbox in `username` does not belong to whoever signed in"
        }
    });
    make(ErrorKind::Unauthenticated, None, true, text)
}

/// What a server's refusal of a sign-in becomes.
#[cfg(test)]
pub(crate) fn refusal(text: &str, host: &str, oauth: bool) -> Error {
    let server = Server { host: host.to_owned(), port: 993, tls: TlsMode::Implicit };
    let secret = Secret::new("s");
    let proof = if oauth { Proof::Token(secret) } else { Proof::Password(secret) };
    Failure::SignIn(explain(&Status::parse(Condition::No, text.as_bytes()), None, &server, &proof)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(host: &str) -> Server {
        Server { host: host.to_owned(), port: 993, tls: TlsMode::Implicit }
    }

    fn decoded(mechanism: Mechanism, user: &str, proof: &Proof) -> String {
        let initial = initial_response(mechanism, &server("imap.example.com"), user, proof).unwrap();
        String::from_utf8(STANDARD.decode_to_vec(initial.expose().as_bytes()).unwrap()).unwrap()
    }

    fn password() -> Proof {
        Proof::Password(Secret::new("pass=wörd,"))
    }

    fn token() -> Proof {
        Proof::Token(Secret::new("t0k"))
    }

    #[test]
    fn initial_responses() {
        assert_eq!(decoded(Mechanism::Plain, "u@x", &password()), "\0u@x\0pass=wörd,");
        assert_eq!(decoded(Mechanism::XOAuth2, "u@x", &token()), "user=u@x\x01auth=Bearer t0k\x01\x01");
        assert_eq!(
            decoded(Mechanism::OAuthBearer, "u,=@x", &token()),
            "n,a=u=2C=3D@x,\x01host=imap.example.com\x01port=993\x01auth=Bearer t0k\x01\x01"
        );
    }

    #[test]
    fn separators_cannot_be_smuggled_in() {
        for user in ["a\0b", "a\x01auth=Bearer x", "a\r\nb"] {
            assert!(initial_response(Mechanism::XOAuth2, &server("x"), user, &token()).is_err());
        }
    }

    #[test]
    fn a_challenge_gives_status_and_scope_only() {
        let json = br#"{"status":"401","schemes":"bearer","scope":"mail","token":"secret"}"#;
        let data = Bytes::from(STANDARD.encode_to_string(json));
        assert_eq!(describe_challenge(&data), "status 401, scope mail");
        assert_eq!(describe_challenge(&Bytes::from_static(b"not base64!")), "");
    }

    fn explained(text: &str, host: &str, proof: &Proof) -> SignIn {
        explain(&Status::parse(Condition::No, text.as_bytes()), None, &server(host), proof)
    }

    #[test]
    fn refusals_are_sorted_by_code_then_by_words() {
        for (text, kind) in [
            ("[AUTHENTICATIONFAILED] no", ErrorKind::Unauthenticated),
            ("[AUTHORIZATIONFAILED] no", ErrorKind::PermissionDenied),
            ("[EXPIRED] no", ErrorKind::Unauthenticated),
            ("[PRIVACYREQUIRED] no", ErrorKind::InvalidConfig),
            ("[UNAVAILABLE] Temporary authentication failure.", ErrorKind::Unavailable),
            ("[UNAVAILABLE] Maximum number of connections from user+IP exceeded", ErrorKind::Throttled),
            ("[LIMIT] x", ErrorKind::Throttled),
            ("[CONTACTADMIN] x", ErrorKind::PermissionDenied),
            ("[ALERT] Too many simultaneous connections. (Failure)", ErrorKind::Throttled),
            ("[ALERT] Application-specific password required", ErrorKind::Unauthenticated),
            ("[ALERT] Your account is not enabled for IMAP use.", ErrorKind::PermissionDenied),
            ("[ALERT] IMAP access is disabled for your domain.", ErrorKind::PermissionDenied),
            ("[WEBALERT https://accounts.example/?x[1]] Web login required.", ErrorKind::Unauthenticated),
            ("[ALERT] Unsupported authentication mechanism.", ErrorKind::InvalidConfig),
            ("[INUSE] x", ErrorKind::Unavailable),
            ("[SERVERBUG] x", ErrorKind::Unavailable),
            ("[OVERQUOTA] x", ErrorKind::Throttled),
            ("[NOPERM] x", ErrorKind::PermissionDenied),
            ("Server Unavailable. 15", ErrorKind::Throttled),
            ("Account is blocked. Login to your account via a web browser", ErrorKind::Unauthenticated),
            ("Basic authentication is disabled.", ErrorKind::Unauthenticated),
            ("Login failed: authentication failure", ErrorKind::Unauthenticated),
            ("Request is throttled. Suggested Backoff Time: 5000 milliseconds", ErrorKind::Throttled),
        ] {
            assert_eq!(explained(text, "mail.example.com", &password()).kind, kind, "{text}");
        }
        let throttled = explained("Suggested Backoff Time: 5000 milliseconds", "x", &password());
        assert_eq!(throttled.retry_after, Some(std::time::Duration::from_secs(5)));
        let off = explained("Basic authentication is disabled.", "x", &password());
        assert!(off.message.contains("use `oauth`"), "{}", off.message);
    }

    #[test]
    fn what_cannot_be_told_is_not_claimed() {
        let plain = explained("LOGIN failed.", "mail.example.com", &password());
        assert!(plain.message.contains("cannot be told apart"), "{}", plain.message);
        let exchange = explained("LOGIN failed.", "outlook.office365.com", &password());
        assert!(exchange.message.contains("Exchange Online has retired"), "{}", exchange.message);
        let oauth = explained("AUTHENTICATE failed.", "outlook.office365.com", &token());
        assert!(oauth.message.contains("IMAP is switched off for this mailbox"), "{}", oauth.message);
        assert!(oauth.counts);
    }

    #[test]
    fn exchange_online_is_known_by_name() {
        assert!(is_exchange_online("Outlook.Office365.com"));
        assert!(!is_exchange_online("outlook.office365.com.example.org"));
        assert!(!is_exchange_online("notoutlook.com"));
    }
}
