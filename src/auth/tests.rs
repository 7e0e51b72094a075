//! The flows against a service that says what the test tells it to, by a clock that only sleeping moves.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use url::Url;

use super::{
    Answer, Audience, Auth, Callback, Flow, Person, Registration, SignInOutcome, SignInSettings, TokenProvider as _,
    endpoint::{Ask, Endpoint, Judge, Reply, Verdict},
};
use crate::{
    Clock, Context, Error, ErrorKind, Result, Secret, SecretSource,
    setting::Places,
    store::{Pending, RefreshLease, SignIn, SignInId, Signer, Taken, TokenStore},
    testing::MemoryTokenStore,
};

const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
const TENANT: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const OID: &str = "99999999-8888-4777-8666-555555555555";
const MAILBOX: &str = "facturen@contoso.example";

/// What was asked: the path, and the form.
type Asked = (String, Vec<(String, String)>);

/// Answers in the order of the script.
#[derive(Debug, Default)]
struct Service {
    script: Mutex<VecDeque<(u16, Value)>>,
    asked: Mutex<Vec<Asked>>,
}

impl Service {
    fn then(&self, status: u16, body: Value) -> &Self {
        self.script.lock().unwrap().push_back((status, body));
        self
    }

    fn refuses(&self, error: &str, code: u64) -> &Self {
        self.then(400, json!({"error": error, "error_codes": [code], "error_description": format!("AADSTS{code}: no")}))
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    async fn answer(&self, url: &Url, form: &[(&str, &str)], judge: &Judge<'_>) -> Result<Reply> {
        tokio::task::yield_now().await;
        let form = form.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.asked.lock().unwrap().push((url.path().to_owned(), form));
        let (status, body) = self.script.lock().unwrap().pop_front().expect("the script has an answer to this");
        let reply = Reply {
            status,
            retry_after: None,
            date: None,
            content_type: "application/json".into(),
            body: body.to_string().into(),
        };
        match judge(&reply) {
            Verdict::Final => Ok(reply),
            Verdict::Again(error) => Err(error),
        }
    }
}

#[async_trait]
impl Ask for Service {
    async fn post(&self, url: &Url, form: &[(&str, &str)], judge: &Judge<'_>) -> Result<Reply> {
        self.answer(url, form, judge).await
    }

    async fn get(&self, url: &Url, token: &Secret, judge: &Judge<'_>) -> Result<Reply> {
        self.answer(url, &[("bearer", token.expose())], judge).await
    }
}

#[derive(Debug)]
struct Sleepy(Mutex<Timestamp>);

impl Sleepy {
    fn pass(&self, time: Duration) {
        let mut now = self.0.lock().unwrap();
        *now = now.checked_add(SignedDuration::try_from(time).unwrap()).unwrap();
    }
}

#[async_trait]
impl Clock for Sleepy {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    async fn sleep(&self, wait: Duration) {
        self.pass(wait);
        tokio::task::yield_now().await;
    }
}

struct World {
    service: Arc<Service>,
    clock: Arc<Sleepy>,
    store: MemoryTokenStore,
    settings: SignInSettings,
    endpoint: Arc<Endpoint>,
}

fn world(change: impl FnOnce(&mut SignInSettings)) -> World {
    let app = Registration {
        tenant: Some(TENANT.into()),
        client_id: Some(CLIENT.into()),
        client_secret: Some(SecretSource::Literal(Secret::new("the-app's-own-secret"))),
        ..Registration::default()
    };
    let mut settings = SignInSettings::new(app, Places::new("invoices"), Auth::Delegated, Audience::Graph, MAILBOX);
    change(&mut settings);
    let clock = Arc::new(Sleepy(Mutex::new("2026-01-31T10:00:00Z".parse().unwrap())));
    let context = Context::default().with_clock(clock.clone());
    let service = Arc::new(Service::default());
    let endpoint = Arc::new(Endpoint::new(
        settings.app.clone(),
        settings.places.clone(),
        settings.token_url().unwrap(),
        context.clone(),
        service.clone(),
    ));
    World { service, clock, store: MemoryTokenStore::new().with_context(context), settings, endpoint }
}

impl World {
    fn id(&self) -> SignInId {
        self.settings.id().unwrap()
    }

    fn person(&self) -> Person {
        Person::new(self.endpoint.clone(), Some("s".into()), self.id(), Arc::new(self.store.clone()))
    }

    async fn stores(&self, refresh: &str, previous: Option<&str>) {
        let mut sign_in = SignIn::new(Secret::new(refresh), Signer::new(OID, MAILBOX), self.clock.now());
        sign_in.previous = previous.map(Secret::new);
        self.store.put_sign_in(&self.id(), &sign_in, true).await.unwrap();
    }

    async fn stored(&self) -> SignIn {
        self.store.sign_in(&self.id()).await.unwrap().expect("a stored sign-in")
    }

    fn flow(&self) -> Flow {
        self.flow_proven(|| Ok(()))
    }

    fn flow_proven(&self, proves: impl Fn() -> Result<()> + Send + Sync + 'static) -> Flow {
        Flow {
            account: "invoices".into(),
            settings: self.settings.clone(),
            endpoint: self.endpoint.clone(),
            store: Arc::new(self.store.clone()),
            also: Vec::new(),
            prove: Box::new(move |_| Box::pin(std::future::ready(proves()))),
        }
    }

    /// Begins a hand-over, and gives what is pending and the link's parameters.
    async fn begun(&self) -> (Pending, Vec<(String, String)>) {
        let hand_over = self.flow().begin("http://localhost:1234", Duration::from_secs(600)).await.unwrap();
        let parameters = hand_over.link.query_pairs().into_owned().collect();
        let Taken::Open(pending) = self.store.take_pending(&hand_over.state, self.clock.now()).await.unwrap() else {
            panic!("the hand-over is not pending")
        };
        (pending, parameters)
    }
}

fn value<'a>(form: &'a [(String, String)], name: &str) -> Option<&'a str> {
    form.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

fn id_token(nonce: &str, name: &str) -> String {
    encoded(&json!({"aud": CLIENT, "nonce": nonce, "oid": OID, "tid": TENANT, "preferred_username": name}))
}

fn encoded(claims: &Value) -> String {
    format!("e30.{}.sig", base64_simd::URL_SAFE_NO_PAD.encode_to_string(claims.to_string()))
}

fn granted(access: &str, refresh: Option<&str>, id_token: Option<String>) -> Value {
    json!({"token_type": "Bearer", "expires_in": 3599, "scope": "Mail.ReadWrite", "access_token": access,
        "refresh_token": refresh, "id_token": id_token})
}

fn profile(id: &str, name: &str, aliases: &[&str]) -> Value {
    json!({"id": id, "userPrincipalName": name, "mail": null, "proxyAddresses": aliases})
}

#[tokio::test]
async fn the_rotated_token_is_stored_before_the_access_token_is_used() {
    let w = world(|_| ());
    w.stores("r1", None).await;
    let tokens = w.person().tokens();
    w.service.then(200, granted("a1", Some("r2"), None));
    assert_eq!(tokens.token().await.unwrap().expose(), "a1");
    let stored = w.stored().await;
    assert_eq!((stored.refresh_token.expose(), stored.previous.unwrap().expose().to_owned()), ("r2", "r1".into()));
    let [(path, form)] = &w.service.asked()[..] else { panic!("one request") };
    assert_eq!(path, &format!("/{TENANT}/oauth2/v2.0/token"));
    assert_eq!(value(form, "grant_type"), Some("refresh_token"));
    assert_eq!(value(form, "refresh_token"), Some("r1"));
    assert_eq!(value(form, "client_secret"), Some("the-app's-own-secret"));
    // Without a new one in the answer the old goes on.
    w.clock.pass(Duration::from_secs(3_500));
    w.service.then(200, granted("a2", None, None));
    assert_eq!(tokens.token().await.unwrap().expose(), "a2");
    let stored = w.stored().await;
    assert_eq!((stored.refresh_token.expose(), stored.refreshed), ("r2", w.clock.now()));
    // Nothing of it is held by a lease.
    assert!(w.store.lock(&w.id(), Duration::from_secs(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn one_refresh_however_many_wait_and_a_challenge_is_answered() {
    let w = world(|_| ());
    w.stores("r1", None).await;
    let tokens = w.person().tokens();
    w.service.then(200, granted("a1", Some("r2"), None)).then(200, granted("a2", Some("r3"), None));
    let all = futures::future::join_all((0..50).map(|_| tokens.token())).await;
    assert!(all.iter().all(|token| token.as_ref().is_ok_and(|token| token.expose() == "a1")));
    assert_eq!(w.service.asked().len(), 1);
    tokens.reject(&Secret::new("a1"), Some("{\"x\":1}"));
    assert_eq!(tokens.token().await.unwrap().expose(), "a2");
    let asked = w.service.asked();
    assert_eq!((value(&asked[0].1, "claims"), value(&asked[0].1, "refresh_token")), (Some("{\"x\":1}"), Some("r2")));
}

#[tokio::test]
async fn a_refused_sign_in_is_noted_once_and_nothing_more_is_asked_until_somebody_signs_in() {
    let w = world(|_| ());
    w.stores("r2", Some("r1")).await;
    let tokens = w.person().tokens();
    w.service.refuses("invalid_grant", 50_173).refuses("invalid_grant", 50_173);
    let error = tokens.token().await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::SignInNeeded, Some("AADSTS50173")));
    assert!(error.message().contains(MAILBOX) && error.message().contains("revoked"), "{error}");
    let used: Vec<_> =
        w.service.asked().iter().map(|(_, form)| value(form, "refresh_token").unwrap().to_owned()).collect();
    assert_eq!(used, ["r2", "r1"], "the one before is tried once");
    let needed = w.stored().await.needed.expect("noted");
    assert_eq!((needed.since, needed.code.as_deref()), (w.clock.now(), Some("AADSTS50173")));
    let version = w.stored().await.version;
    for _ in 0..5 {
        w.clock.pass(Duration::from_secs(60));
        assert_eq!(tokens.token().await.unwrap_err().kind(), ErrorKind::SignInNeeded);
    }
    assert!(w.service.asked().is_empty());
    assert_eq!(w.stored().await.version, version);
    // Signing in anew helps at once.
    w.stores("r9", None).await;
    w.service.then(200, granted("a9", None, None));
    assert_eq!(tokens.token().await.unwrap().expose(), "a9");
}

#[tokio::test]
async fn the_generation_before_is_used_when_the_newest_is_unknown() {
    let w = world(|_| ());
    w.stores("lost", Some("r1")).await;
    w.service.refuses("invalid_grant", 70_000).then(200, granted("a1", Some("r2"), None));
    assert_eq!(w.person().tokens().token().await.unwrap().expose(), "a1");
    let stored = w.stored().await;
    assert!(stored.needed.is_none());
    assert_eq!((stored.refresh_token.expose(), stored.previous.unwrap().expose().to_owned()), ("r2", "r1".into()));
}

#[tokio::test]
async fn a_fault_or_a_wrong_secret_is_not_a_sign_in_that_is_needed() {
    let w = world(|_| ());
    w.stores("r1", None).await;
    let tokens = w.person().tokens();
    w.service.then(
        401,
        json!({"error":"invalid_client","error_codes":[7_000_222],"error_description":"AADSTS7000222: expired"}),
    );
    assert_eq!(tokens.token().await.unwrap_err().kind(), ErrorKind::Unauthenticated);
    // Remembered for half a minute.
    assert_eq!(tokens.token().await.unwrap_err().kind(), ErrorKind::Unauthenticated);
    w.clock.pass(Duration::from_secs(31));
    w.service.then(503, json!({"error":"temporarily_unavailable"}));
    assert_eq!(tokens.token().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(w.stored().await.needed.is_none());
    w.clock.pass(Duration::from_secs(31));
    w.service.then(200, granted("a1", None, None));
    assert_eq!(tokens.token().await.unwrap().expose(), "a1");
}

#[tokio::test]
async fn who_has_not_signed_in_is_told_so_without_asking_the_service() {
    let w = world(|_| ());
    let error = w.person().tokens().token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInNeeded);
    assert!(error.message().contains("has not signed in yet"), "{error}");
}

#[tokio::test]
async fn a_renewal_is_finished_when_nobody_waits_for_it_any_more() {
    let w = world(|_| ());
    w.stores("r1", None).await;
    w.service.then(200, granted("a1", Some("r2"), None));
    let tokens = w.person().tokens();
    let mut asking = Box::pin(tokens.token());
    while w.service.asked.lock().unwrap().is_empty() {
        assert!(futures::poll!(&mut asking).is_pending());
        tokio::task::yield_now().await;
    }
    drop(asking);
    while w.stored().await.refresh_token.expose() != "r2" {
        tokio::task::yield_now().await;
    }
}

/// Takes longer to write than a renewal may ask.
#[derive(Debug)]
struct Slow(MemoryTokenStore);

#[async_trait]
impl TokenStore for Slow {
    async fn sign_in(&self, id: &SignInId) -> Result<Option<SignIn>> {
        self.0.sign_in(id).await
    }

    async fn put_sign_in(&self, id: &SignInId, sign_in: &SignIn, replace: bool) -> Result<i64> {
        tokio::time::sleep(Duration::from_secs(26)).await;
        self.0.put_sign_in(id, sign_in, replace).await
    }

    async fn lock(&self, id: &SignInId, ttl: Duration) -> Result<Option<RefreshLease>> {
        self.0.lock(id, ttl).await
    }

    async fn unlock(&self, lease: &RefreshLease) -> Result<()> {
        self.0.unlock(lease).await
    }

    async fn ready(&self) -> Result<()> {
        unreachable!("nobody begins")
    }

    async fn forget_sign_in(&self, _: &SignInId) -> Result<()> {
        unreachable!("nobody forgets")
    }

    async fn sign_ins(&self) -> Result<Vec<(SignInId, Timestamp)>> {
        unreachable!("nobody lists")
    }

    async fn put_pending(&self, _: &Pending) -> Result<()> {
        unreachable!("nobody begins")
    }

    async fn take_pending(&self, _: &Secret, _: Timestamp) -> Result<Taken> {
        unreachable!("nobody answers")
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_is_stored_however_long_that_takes() {
    let w = world(|_| ());
    w.stores("r1", None).await;
    w.service.then(200, granted("a1", Some("r2"), None));
    let person = Person::new(w.endpoint.clone(), None, w.id(), Arc::new(Slow(w.store.clone())));
    assert_eq!(person.tokens().token().await.unwrap().expose(), "a1");
    assert_eq!(w.stored().await.refresh_token.expose(), "r2");
}

#[tokio::test]
async fn the_link_holds_what_the_service_needs_and_no_more() {
    let w = world(|_| ());
    let (pending, link) = w.begun().await;
    let scope = "openid profile offline_access https://graph.microsoft.com/Mail.ReadWrite https://graph.microsoft.com/User.Read";
    for (name, expected) in [
        ("client_id", CLIENT),
        ("response_type", "code"),
        ("response_mode", "query"),
        ("redirect_uri", "http://localhost:1234"),
        ("scope", scope),
        ("prompt", "select_account"),
        ("login_hint", MAILBOX),
        ("code_challenge_method", "S256"),
        ("state", pending.state.expose()),
        ("nonce", pending.nonce.expose()),
    ] {
        assert_eq!(value(&link, name), Some(expected), "{name}");
    }
    use sha2::Digest as _;
    let challenge = sha2::Sha256::digest(pending.verifier.expose());
    assert_eq!(value(&link, "code_challenge").unwrap(), base64_simd::URL_SAFE_NO_PAD.encode_to_string(challenge));
    assert_eq!(link.len(), 11, "{link:?}");
    assert!((43..=128).contains(&pending.verifier.expose().len()));
    let (other, _) = w.begun().await;
    assert_ne!(other.state.expose(), pending.state.expose());
    assert_ne!(other.verifier.expose(), pending.verifier.expose());
    assert_ne!(other.nonce.expose(), pending.nonce.expose());
}

#[test]
fn scopes_follow_service_cloud_and_person() {
    let scopes = |change: fn(&mut SignInSettings)| world(change).settings.scopes().unwrap().join(" ");
    assert_eq!(
        scopes(|s| s.principal = "beheer@contoso.example".into()),
        "https://graph.microsoft.com/Mail.ReadWrite.Shared https://graph.microsoft.com/User.Read"
    );
    assert_eq!(scopes(|s| s.audience = Audience::Exchange), "https://outlook.office.com/IMAP.AccessAsUser.All");
    let gov = |s: &mut SignInSettings| {
        s.audience = Audience::Exchange;
        s.app.cloud = Some(super::Cloud::UsGov);
    };
    assert_eq!(world(gov).settings.scopes().unwrap(), ["https://outlook.office365.us/IMAP.AccessAsUser.All"]);
    let app = |s: &mut SignInSettings| {
        gov(s);
        s.auth = Auth::App;
    };
    assert_eq!(world(app).settings.scopes().unwrap(), ["https://outlook.office365.us/.default"]);
}

#[tokio::test]
async fn the_right_person_is_stored_and_only_then() {
    for (principal, profile, right) in [
        (MAILBOX, profile(OID, MAILBOX, &[]), true),
        ("oud@contoso.example", profile(OID, MAILBOX, &["SMTP:a@b", "smtp:Oud@Contoso.example", "x500:q"]), true),
        (MAILBOX, profile(OID, "beheer@contoso.example", &["sip:facturen@contoso.example"]), false),
    ] {
        let w = world(|s| s.principal = principal.into());
        let (pending, _) = w.begun().await;
        w.service.then(200, granted("a1", Some("r1"), Some(id_token(pending.nonce.expose(), "x")))).then(200, profile);
        let answer = Answer::Code(Secret::new("the-code"));
        let outcome = w.flow().complete(&pending, answer).await.unwrap();
        let asked = w.service.asked();
        assert_eq!(value(&asked[0].1, "code"), Some("the-code"));
        assert_eq!(value(&asked[0].1, "code_verifier"), Some(pending.verifier.expose()));
        assert_eq!(value(&asked[0].1, "redirect_uri"), Some("http://localhost:1234"));
        assert_eq!((asked[1].0.as_str(), value(&asked[1].1, "bearer")), ("/v1.0/me", Some("a1")));
        let stored = w.store.sign_in(&w.id()).await.unwrap();
        match outcome {
            SignInOutcome::Authorised { signer, .. } => {
                assert!(right);
                assert_eq!((signer.id.as_str(), signer.tenant.as_deref()), (OID, Some(TENANT)));
                assert_eq!(stored.unwrap().refresh_token.expose(), "r1");
            }
            SignInOutcome::WrongIdentity { expected, signed_in, .. } => {
                assert!(!right && stored.is_none());
                assert_eq!((expected.as_str(), signed_in.name.as_str()), (MAILBOX, "beheer@contoso.example"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn nothing_is_stored_without_proof() {
    // The mailbox cannot be read; another sign-in's answer; another person's profile; no lasting sign-in.
    type Case = (fn(&str) -> Value, Value, bool, &'static str);
    let cases: [Case; 4] = [
        (|n| granted("a", Some("r"), Some(id_token(n, "x"))), profile(OID, MAILBOX, &[]), false, "no right"),
        (|_| granted("a", Some("r"), Some(id_token("other", "x"))), Value::Null, true, "another sign-in"),
        (|n| granted("a", Some("r"), Some(id_token(n, "x"))), profile("someone", MAILBOX, &[]), true, "two people"),
        (|n| granted("a", None, Some(id_token(n, "x"))), profile(OID, MAILBOX, &[]), true, "offline_access"),
    ];
    for (tokens, profile, proves, says) in cases {
        let w = world(|_| ());
        let (pending, _) = w.begun().await;
        w.service.then(200, tokens(pending.nonce.expose())).then(200, profile);
        let flow = w.flow_proven(move || match proves {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::PermissionDenied, "no right to the mailbox")),
        });
        let outcome = flow.complete(&pending, Answer::Code(Secret::new("c"))).await.unwrap();
        let SignInOutcome::Refused { error, .. } = &outcome else { panic!("{outcome:?}") };
        assert!(error.message().contains(says), "{error}");
        assert!(w.store.sign_in(&w.id()).await.unwrap().is_none(), "{says}");
    }
}

#[tokio::test]
async fn an_id_token_without_a_nonce_will_do() {
    let w = world(|_| ());
    let (pending, _) = w.begun().await;
    let bare = encoded(&json!({"aud": CLIENT, "oid": OID, "tid": TENANT}));
    w.service.then(200, granted("a", Some("r"), Some(bare))).then(200, profile(OID, MAILBOX, &[]));
    let outcome = w.flow().complete(&pending, Answer::Code(Secret::new("c"))).await.unwrap();
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[tokio::test]
async fn an_object_id_needs_no_profile_and_imap_reads_it_with_a_token_of_its_own() {
    let w = world(|s| {
        s.principal = OID.to_uppercase();
        s.audience = Audience::Exchange;
    });
    let (pending, link) = w.begun().await;
    assert!(
        value(&link, "scope").unwrap().ends_with("offline_access https://outlook.office.com/IMAP.AccessAsUser.All")
    );
    assert_eq!(value(&link, "login_hint"), None);
    w.service.then(200, granted("a", Some("r"), Some(id_token(pending.nonce.expose(), MAILBOX))));
    assert!(w.flow().complete(&pending, Answer::Code(Secret::new("c"))).await.unwrap().is_ok());

    for told in [true, false] {
        let w = world(|s| s.audience = Audience::Exchange);
        let (pending, link) = w.begun().await;
        assert!(
            value(&link, "scope").unwrap().ends_with("IMAP.AccessAsUser.All https://graph.microsoft.com/User.Read")
        );
        w.service.then(200, granted("a", Some("r1"), Some(id_token(pending.nonce.expose(), MAILBOX))));
        if told {
            w.service.then(200, granted("graph", Some("r2"), None)).then(200, profile(OID, MAILBOX, &[]));
        } else {
            // The name in the id token does, within the tenant.
            w.service.refuses("invalid_grant", 65_001);
        }
        let outcome = w.flow().complete(&pending, Answer::Code(Secret::new("c"))).await.unwrap();
        assert!(outcome.is_ok(), "{outcome:?}");
        let asked = w.service.asked();
        assert_eq!(value(&asked[1].1, "scope"), Some("https://graph.microsoft.com/User.Read"));
        assert_eq!(w.stored().await.refresh_token.expose(), if told { "r2" } else { "r1" });
    }
}

#[tokio::test]
async fn missing_consent_gives_the_administrators_link() {
    let callbacks = [
        "error=access_denied&error_description=AADSTS90094%3A+The+grant+requires+admin+permission.&state=s",
        "error=consent_required&error_description=&state=s",
        "error=invalid_client&error_description=AADSTS65001%3A+no&state=s",
    ];
    for callback in callbacks {
        let w = world(|_| ());
        let (pending, _) = w.begun().await;
        let outcome = w.flow().complete(&pending, Callback::parse(callback).answer).await.unwrap();
        let SignInOutcome::ConsentPending { link: Some(link), .. } = &outcome else { panic!("{outcome:?}") };
        assert_eq!(link.path(), format!("/{TENANT}/v2.0/adminconsent"));
        let link: Vec<_> = link.query_pairs().into_owned().collect();
        assert_eq!(value(&link, "scope"), Some("https://graph.microsoft.com/.default"));
        assert_eq!(value(&link, "client_id"), Some(CLIENT));
    }
    let w = world(|_| ());
    let (pending, _) = w.begun().await;
    let declined = "error=access_denied&error_description=AADSTS65004%3A+User+declined+to+consent&state=s";
    let outcome = w.flow().complete(&pending, Callback::parse(declined).answer).await.unwrap();
    assert!(outcome.message(crate::Language::English).contains("declined"), "{outcome:?}");
}

#[tokio::test]
async fn a_public_client_shows_nothing() {
    let w = world(|s| s.app.client_secret = None);
    let (pending, _) = w.begun().await;
    w.service.then(200, granted("a1", Some("r1"), None)).then(200, profile(OID, MAILBOX, &[]));
    assert!(w.flow().complete(&pending, Answer::Code(Secret::new("c"))).await.unwrap().is_ok());
    let form = &w.service.asked()[0].1;
    assert!(value(form, "client_secret").is_none() && value(form, "client_assertion").is_none());
    assert_eq!(value(form, "client_id"), Some(CLIENT));
}

fn device(interval: Option<u64>) -> Value {
    let mut code = json!({"device_code": "dc", "user_code": "ABCD-EFGH", "expires_in": 900,
        "verification_uri": "https://microsoft.com/devicelogin", "message": "Go there"});
    if let Some(interval) = interval {
        code["interval"] = interval.into();
    }
    code
}

#[tokio::test]
async fn a_device_code_is_asked_about_as_often_as_the_service_says() {
    let w = world(|_| ());
    let flow = w.flow();
    let begun = w.clock.now();
    w.service.then(200, device(Some(2)));
    let code = flow.begin_device().await.unwrap();
    assert_eq!(
        (code.user_code.as_str(), code.verification_uri.as_str()),
        ("ABCD-EFGH", "https://microsoft.com/devicelogin")
    );
    w.service
        .refuses("authorization_pending", 70_016)
        .then(400, json!({"error": "slow_down"}))
        .refuses("authorization_pending", 70_016)
        .then(200, granted("a1", Some("r1"), None))
        .then(200, profile(OID, MAILBOX, &[]));
    assert!(flow.await_device(&code).await.unwrap().is_ok());
    assert!(w.service.asked.lock().unwrap().iter().all(|(_, form)| value(form, "client_secret").is_none()));
    // 2 + 2 + 7 + 7.
    assert_eq!(w.clock.now().duration_since(begun), SignedDuration::from_secs(18));
    let asked = w.service.asked();
    assert_eq!(asked[0].0, format!("/{TENANT}/oauth2/v2.0/devicecode"));
    assert_eq!(asked[0].1.len(), 2, "{asked:?}");
    assert_eq!(value(&asked[1].1, "device_code"), Some("dc"));
    // No secret was shown, so none is known to work.
    assert_eq!(w.endpoint.context().worked().of(&w.settings.token_url().unwrap(), CLIENT), None);
}

#[tokio::test]
async fn a_device_is_a_public_client_unless_the_service_wants_proof() {
    let w = world(|_| ());
    w.service.then(200, device(None));
    let code = w.flow().begin_device().await.unwrap();
    w.service.refuses("invalid_request", 7_000_218).refuses("authorization_pending", 70_016);
    w.service.then(200, granted("a1", Some("r1"), None)).then(200, profile(OID, MAILBOX, &[]));
    assert!(w.flow().await_device(&code).await.unwrap().is_ok());
    let proven: Vec<bool> =
        w.service.asked()[1..4].iter().map(|(_, form)| value(form, "client_secret").is_some()).collect();
    assert_eq!(proven, [false, true, true]);
    // And its refresh token is that of a public client.
    w.service.refuses("invalid_client", 700_025).then(200, granted("a2", None, None));
    assert_eq!(w.person().tokens().token().await.unwrap().expose(), "a2");
    let asked = w.service.asked();
    assert!(value(&asked[0].1, "client_secret").is_some() && value(&asked[1].1, "client_secret").is_none());
}

#[tokio::test]
async fn a_device_code_ends_when_it_is_declined_or_expires_or_nobody_comes() {
    for (error, code, expired, says) in [
        ("authorization_declined", 70_000_000, false, "authorization_declined"),
        ("expired_token", 70_019, true, "expired"),
        ("bad_verification_code", 70_018, false, "bad_verification_code"),
        ("access_denied", 53_003, false, "Conditional Access"),
    ] {
        let w = world(|_| ());
        w.service.then(200, device(None));
        let code_shown = w.flow().begin_device().await.unwrap();
        w.service.refuses(error, code);
        let begun = w.clock.now();
        let outcome = w.flow().await_device(&code_shown).await.unwrap();
        assert_eq!(
            w.clock.now().duration_since(begun),
            SignedDuration::from_secs(5),
            "five seconds where none are given"
        );
        assert_eq!(matches!(outcome, SignInOutcome::Expired { .. }), expired, "{outcome:?}");
        assert!(outcome.message(crate::Language::English).contains(says), "{outcome:?}");
    }
    let w = world(|_| ());
    w.service.then(200, device(Some(300)));
    let code = w.flow().begin_device().await.unwrap();
    w.service.refuses("authorization_pending", 70_016).refuses("authorization_pending", 70_016);
    assert!(matches!(w.flow().await_device(&code).await.unwrap(), SignInOutcome::Expired { .. }));
    assert!(w.store.sign_in(&w.id()).await.unwrap().is_none());
    // Nobody waits longer than the code lasts.
    let w = world(|_| ());
    let begun = w.clock.now();
    w.service.then(200, device(Some(u64::MAX)));
    let code = w.flow().begin_device().await.unwrap();
    assert!(matches!(w.flow().await_device(&code).await.unwrap(), SignInOutcome::Expired { .. }));
    assert_eq!(w.clock.now().duration_since(begun), SignedDuration::from_secs(900));
}

#[tokio::test]
async fn another_service_is_asked_in_its_own_words() {
    let other = |s: &mut SignInSettings| {
        s.audience = Audience::Other {
            token_url: Url::parse("https://id.example/token").unwrap(),
            scopes: vec!["openid".into(), "https://mail.example/".into()],
        };
        s.authorize_url = Some(Url::parse("https://id.example/authorize?access_type=offline&prompt=consent").unwrap());
    };
    let w = world(other);
    let (pending, link) = w.begun().await;
    assert_eq!(value(&link, "scope"), Some("openid https://mail.example/"));
    assert_eq!((value(&link, "access_type"), value(&link, "prompt")), (Some("offline"), Some("consent")));
    assert_eq!(link.iter().filter(|(name, _)| name == "prompt").count(), 1);
    let claims =
        json!({"aud": [CLIENT], "nonce": pending.nonce.expose(), "sub": "7", "email": MAILBOX, "email_verified": true});
    w.service.then(200, granted("a", Some("r"), Some(encoded(&claims))));
    let outcome = w.flow().complete(&pending, Answer::Code(Secret::new("c"))).await.unwrap();
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(value(&w.service.asked()[0].1, "scope"), None);
    // Some add `openid` themselves to a wish for the address.
    let unasked = world(|s| {
        other(s);
        let Audience::Other { scopes, .. } = &mut s.audience else { unreachable!("just set") };
        *scopes = vec!["email".into()];
    });
    let (pending, link) = unasked.begun().await;
    assert_eq!(value(&link, "nonce"), Some(pending.nonce.expose()));
    unasked.service.then(200, granted("a", Some("r"), Some(id_token(pending.nonce.expose(), MAILBOX))));
    let outcome = unasked.flow().complete(&pending, Answer::Code(Secret::new("c"))).await.unwrap();
    assert!(outcome.is_ok(), "{outcome:?}");
    // Who nobody vouches for is nobody.
    let (pending, _) = w.begun().await;
    w.service.then(200, granted("a", Some("r"), None));
    let outcome = w.flow().complete(&pending, Answer::Code(Secret::new("c"))).await.unwrap();
    assert!(outcome.message(crate::Language::English).contains("`openid`"), "{outcome:?}");
}
