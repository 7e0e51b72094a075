//! Authorize, against the fake of Entra: who may sign in, what is stored when, and what the host is told.

#![cfg(all(feature = "testing", feature = "graph", feature = "sqlite"))]

#[path = "support/consent.rs"]
mod consent;
#[path = "support/log.rs"]
mod log;

use std::{sync::Arc, time::Duration};

use consent::{INVOICES, SECRET, Site};
use log::Log;
use mail_account::{
    Delivery, ErrorKind, Language, MailApp, Outcome, Secret, Status,
    auth::SignInOutcome,
    handler_fn,
    store::{SignInId, TokenStore},
    testing::graph::{Answer, FakeBrowser, Fault, Mailbox, Rotation, Route},
    watch::{AccountEvent, Condition},
};

const DAY: Duration = Duration::from_secs(24 * 3600);
const WEB: &str = "https://host.example/callback";

/// Signs in as the user of this mailbox, in a host's web page.
async fn sign_in(host: &MailApp, site: &Site, account: &str, user: &Mailbox) -> SignInOutcome {
    sign_in_with(host, &mut site.fake.browser(), account, user).await
}

async fn sign_in_with(host: &MailApp, browser: &mut FakeBrowser, account: &str, user: &Mailbox) -> SignInOutcome {
    let hand_over = host.begin_sign_in(account, None).await.unwrap_or_else(|e| panic!("{}", e.chain()));
    let callback = browser.sign_in(hand_over.link.as_str(), user).await;
    host.complete_sign_in(&callback).await.unwrap()
}

#[track_caller]
fn worked(outcome: &SignInOutcome) {
    assert!(outcome.is_ok(), "{outcome:?}");
}

fn english(outcome: &SignInOutcome) -> String {
    outcome.message(Language::English)
}

/// Whether the account's mailbox can be read now.
async fn read(host: &MailApp, account: &str) -> Result<(), mail_account::Error> {
    host.account(account)?.list_folders().await.map(drop)
}

/// A site whose redirect is a page of the host.
async fn web() -> Site {
    let mut site = Site::with(|app| app.secret(SECRET).redirect_uri(WEB)).await;
    site.registration = format!("client_secret = \"{SECRET}\"\nredirect_uri = \"{WEB}\"\n");
    site
}

#[tokio::test]
async fn somebody_signs_in_on_this_machine_once_and_the_jobs_run() {
    let mut site = Site::start().await;
    site.accounts.push_str("\n[jobs.j]\naccounts = [\"invoices\"]\nimport_folder = \"Inbox\"\nprocessed_folder = \"Inbox/Done\"\ncreate_folders = true\n");
    site.user.deliver("Inbox", "Message-ID: <1@x>\r\nFrom: a@b.example\r\nSubject: One\r\n\r\nHello\r\n");
    let host = site.host();
    let before = read(&host, "invoices").await.unwrap_err();
    assert_eq!((before.kind(), before.account()), (ErrorKind::SignInNeeded, Some("invoices")));
    assert!(before.message().contains("Authorize"), "{before}");

    let here = host.sign_in_here("invoices").await.unwrap();
    let redirect = here.hand_over().redirect_uri.clone();
    assert!(redirect.starts_with("http://localhost:") && !redirect.ends_with('/'), "{redirect}");
    let callback = site.fake.sign_in_as(here.hand_over().link.as_str(), &site.user).await;
    let finished = here.finish();
    let browser = async {
        // What browsers ask for besides, and what another page of the machine might try.
        for other in ["/favicon.ico", "/?code=x&state=y", "/"] {
            let answer = reqwest::get(format!("{redirect}{other}")).await.unwrap();
            assert_eq!(answer.status(), 404, "{other}");
        }
        let _silent = tokio::net::TcpStream::connect(redirect.trim_start_matches("http://")).await.unwrap();
        let page = reqwest::get(&callback).await.unwrap();
        assert_eq!(page.headers()["referrer-policy"], "no-referrer");
        let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        page.text().await.unwrap()
    };
    let (outcome, page) = tokio::join!(finished, browser);
    let outcome = outcome.unwrap();
    let SignInOutcome::Authorised { account, signer } = &outcome else { panic!("{outcome:?}") };
    assert_eq!((account.as_str(), signer.name.as_str()), ("invoices", "facturen@contoso.nl"));
    assert_eq!((signer.id.as_str(), signer.tenant.as_deref()), (&*site.user.id(), Some(&*site.fake.tenant())));
    for says in
        ["The account `invoices` works. facturen@contoso.nl has signed in.", "Aangemeld is facturen@contoso.nl."]
    {
        assert!(page.contains(says), "{page}");
    }
    assert!(reqwest::get(&callback).await.is_err(), "nobody listens any more");

    // The job runs in a process that never saw the browser.
    let report = site.host().importer("j").await.unwrap();
    let report = report.run(handler_fn(|_: Delivery| async { Ok(Outcome::Imported) })).await.unwrap();
    assert!(!report.has_errors(), "{report:?}");
    assert_eq!((report.counts().imported, site.user.messages("Inbox/Done").len()), (1, 1));
    // And so does the one that did.
    read(&host, "invoices").await.unwrap();
}

#[tokio::test]
async fn five_mailboxes_in_one_browser_and_a_wrong_pick_is_refused_by_name() {
    let mut site = web().await;
    let names = ["een", "twee", "drie", "vier", "vijf"].map(|name| format!("{name}@contoso.nl"));
    let boxes: Vec<Mailbox> = names.iter().map(|name| site.fake.mailbox(name).create()).collect();
    site.accounts = names
        .iter()
        .map(|name| {
            format!("[accounts.\"{name}\"]\nprovider = \"graph\"\nregistration = \"contoso\"\nauth = \"delegated\"\nmailbox = \"{name}\"\n")
        })
        .collect();
    let host = site.host();
    let mut browser = site.fake.browser();
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            let wrong = sign_in_with(&host, &mut browser, name, &boxes[at - 1]).await;
            let SignInOutcome::WrongIdentity { expected, signed_in, .. } = &wrong else { panic!("{wrong:?}") };
            assert_eq!((expected, &signed_in.name), (name, &names[at - 1]));
            assert!(english(&wrong).contains(name.as_str()) && english(&wrong).contains(names[at - 1].as_str()));
            assert!(wrong.message(Language::Dutch).contains("Er is niets opgeslagen"));
            assert!(site.stored(&host, name).await.is_none());
        }
        worked(&sign_in_with(&host, &mut browser, name, &boxes[at]).await);
        read(&host, name).await.unwrap();
    }
}

#[tokio::test]
async fn an_administrator_reads_anothers_mailbox_only_when_the_configuration_says_so() {
    let mut site = web().await;
    let admin = site.fake.mailbox("beheer@contoso.nl").create();
    site.user.set_full_access("beheer@contoso.nl", true);
    let host = site.host();
    let by_mistake = sign_in(&host, &site, "invoices", &admin).await;
    assert!(
        matches!(&by_mistake, SignInOutcome::WrongIdentity { signed_in, .. } if signed_in.name == "beheer@contoso.nl")
    );
    assert!(site.stored(&host, "invoices").await.is_none());

    site.accounts = format!("{INVOICES}principal = \"beheer@contoso.nl\"\n");
    let host = site.host();
    worked(&sign_in(&host, &site, "invoices", &admin).await);
    read(&host, "invoices").await.unwrap();
    // The right to the mailbox is proven, not assumed.
    site.user.set_full_access("beheer@contoso.nl", false);
    let without = sign_in(&host, &site, "invoices", &admin).await;
    let SignInOutcome::Refused { error, .. } = &without else { panic!("{without:?}") };
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    // Another principal has no sign-in of this one.
    site.accounts = INVOICES.to_owned();
    assert_eq!(read(&site.host(), "invoices").await.unwrap_err().kind(), ErrorKind::SignInNeeded);
}

#[tokio::test]
async fn the_principal_may_be_named_by_any_address_or_by_its_object_id() {
    let mut site = web().await;
    for principal in ["oud@contoso.nl".to_owned(), "FACTUREN@Contoso.NL".to_owned(), site.user.id().to_uppercase()] {
        site.accounts = format!("{INVOICES}principal = \"{principal}\"\n");
        worked(&sign_in(&site.host(), &site, "invoices", &site.user).await);
    }
}

#[tokio::test]
async fn hand_overs_are_answered_once_in_time_and_not_crosswise() {
    let mut site = web().await;
    let other = site.fake.mailbox("other@contoso.nl").create();
    site.accounts.push_str(&INVOICES.replace("invoices", "other").replace("facturen@", "other@"));
    let (begins, ends) = (site.host(), site.host());
    let mut browser = site.fake.browser();
    let (one, two) =
        (begins.begin_sign_in("invoices", None).await.unwrap(), begins.begin_sign_in("other", None).await.unwrap());
    assert_eq!(one.redirect_uri, WEB);
    let answer_one = browser.sign_in(one.link.as_str(), &site.user).await;
    let answer_two = browser.sign_in(two.link.as_str(), &other).await;
    let value = |answer: &str, name: &str| {
        let url = url::Url::parse(answer).unwrap();
        url.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned()).unwrap()
    };
    // The code of one with the state of the other: PKCE, whatever the identity.
    let crossed = format!("code={}&state={}", value(&answer_one, "code"), value(&answer_two, "state"));
    let outcome = ends.complete_sign_in(&crossed).await.unwrap();
    assert!(english(&outcome).contains("another sign-in"), "{outcome:?}");
    assert!(
        matches!(ends.complete_sign_in(&answer_two).await.unwrap(), SignInOutcome::AlreadyUsed { account } if account == "other")
    );
    // The rest still stands, in another process.
    worked(&ends.complete_sign_in(&answer_one.replace("code=", "x=1&code=")).await.unwrap());
    assert!(matches!(begins.complete_sign_in(&answer_one).await.unwrap(), SignInOutcome::AlreadyUsed { .. }));
    for foreign in ["", "code=x", "code=x&state=unknown", "error=access_denied"] {
        assert!(matches!(ends.complete_sign_in(foreign).await.unwrap(), SignInOutcome::Foreign), "{foreign}");
    }

    let late = begins.begin_sign_in("other", None).await.unwrap();
    let answer = browser.sign_in(late.link.as_str(), &other).await;
    site.clock.pass(7 * DAY - Duration::from_secs(60));
    let still = begins.begin_sign_in("invoices", None).await.unwrap();
    site.clock.pass(Duration::from_secs(120));
    assert!(
        matches!(ends.complete_sign_in(&answer).await.unwrap(), SignInOutcome::Expired { account } if account == "other")
    );
    // Changed since: the answer is not taken for another person than it was begun for.
    let answer = browser.sign_in(still.link.as_str(), &site.user).await;
    site.accounts = format!("{INVOICES}principal = \"{}\"\n", site.user.id());
    let outcome = site.host().complete_sign_in(&answer).await.unwrap();
    assert!(english(&outcome).contains("was changed since"), "{outcome:?}");
}

#[tokio::test]
async fn missing_consent_is_pending_until_an_administrator_gives_it() {
    for (requests, error) in [(false, "access_denied"), (true, "consent_required")] {
        let site = web().await;
        site.fake.configure(|settings| {
            settings.sign_in.people_consent = false;
            settings.sign_in.consent_requests = requests;
            settings.sign_in.admin_consent_error = error.into();
        });
        let admin = site.fake.mailbox("beheer@contoso.nl").admin().create();
        let host = site.host();
        let pending = sign_in(&host, &site, "invoices", &site.user).await;
        let SignInOutcome::ConsentPending { account, link: Some(link), error } = &pending else {
            panic!("{pending:?}")
        };
        assert_eq!(account, "invoices");
        assert_eq!(error.code(), Some(if requests { "AADSTS90095" } else { "AADSTS90094" }));
        assert!(english(&pending).contains(link.as_str()));
        assert_eq!(host.state_of("invoices").await.unwrap().condition, Condition::ConsentPending);
        assert!(site.stored(&host, "invoices").await.is_none());
        // Somebody else, somewhere else, days later.
        site.clock.pass(3 * DAY);
        let callback = site.fake.sign_in_as(link.as_str(), &admin).await;
        let consented = site.host().complete_sign_in(&callback).await.unwrap();
        assert!(matches!(&consented, SignInOutcome::Consented { account } if account == "invoices"), "{consented:?}");
        assert_eq!(host.state_of("invoices").await.unwrap().condition, Condition::AwaitingSignIn);
        worked(&sign_in(&host, &site, "invoices", &site.user).await);
    }
}

#[tokio::test]
async fn an_administrators_answer_proves_nothing_by_itself() {
    let mut site =
        Site::with(|app| app.secret(SECRET).redirect_uri(WEB).requested_permissions(["Mail.ReadWrite"])).await;
    site.registration = format!("client_secret = \"{SECRET}\"\nredirect_uri = \"{WEB}\"\n");
    site.accounts = INVOICES.replace("delegated", "app");
    let admin = site.fake.mailbox("beheer@contoso.nl").admin().create();
    let host = site.host();
    assert_eq!(host.begin_sign_in("invoices", None).await.unwrap_err().kind(), ErrorKind::InvalidConfig);
    let state = |hand_over: &mail_account::auth::HandOver| {
        hand_over.link.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned()
    };
    let begin = || host.begin_admin_consent("invoices", None);
    // Refused, with `admin_consent=True` all the same.
    let refused = format!(
        "admin_consent=True&error=access_denied&error_description=AADSTS65004%3A+no&state={}",
        state(&begin().await.unwrap())
    );
    let outcome = host.complete_sign_in(&refused).await.unwrap();
    assert!(matches!(&outcome, SignInOutcome::Refused { .. }) && english(&outcome).contains("declined"), "{outcome:?}");
    // For a tenant of somebody else's.
    let elsewhere = format!(
        "admin_consent=True&tenant=12345678-1234-4234-8234-123456789012&state={}",
        state(&begin().await.unwrap())
    );
    let outcome = host.complete_sign_in(&elsewhere).await.unwrap();
    assert!(english(&outcome).contains("another tenant"), "{outcome:?}");
    // In earnest: tokens of before are not used any more.
    assert_eq!(read(&host, "invoices").await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    let callback = site.fake.sign_in_as(begin().await.unwrap().link.as_str(), &admin).await;
    let outcome = host.complete_sign_in(&callback).await.unwrap();
    assert!(matches!(outcome, SignInOutcome::Consented { .. }), "{outcome:?}");
    read(&host, "invoices").await.unwrap();
}

#[tokio::test]
async fn a_device_code_signs_in_without_a_browser_here() {
    let mut site = Site::with(|app| app.public_client().native_redirect_uri("http://localhost")).await;
    site.registration = String::new();
    site.fake.configure(|settings| settings.sign_in.device_interval = Some(1));
    let other = site.fake.mailbox("other@contoso.nl").create();
    let host = site.host();
    for (user, answer) in [(&other, Answer::Accept), (&site.user, Answer::Decline), (&site.user, Answer::Accept)] {
        let code = host.device_code("invoices").await.unwrap();
        let (outcome, ()) =
            tokio::join!(host.await_device(&code), site.fake.answer_device_code(&code.user_code, user, answer));
        let outcome = outcome.unwrap();
        match (user.address(), answer) {
            ("other@contoso.nl", _) => assert!(matches!(outcome, SignInOutcome::WrongIdentity { .. }), "{outcome:?}"),
            (_, Answer::Decline) => assert!(matches!(outcome, SignInOutcome::Refused { .. }), "{outcome:?}"),
            _ => worked(&outcome),
        }
    }
    // A public client refreshes without a secret, too.
    read(&site.host(), "invoices").await.unwrap();
    let late = host.device_code("invoices").await.unwrap();
    site.clock.pass(Duration::from_secs(901));
    assert!(matches!(host.await_device(&late).await.unwrap(), SignInOutcome::Expired { .. }));
}

#[tokio::test]
async fn a_public_client_sends_no_secret_and_one_that_does_is_told() {
    let mut site = Site::with(|app| app.secret(SECRET).native_redirect_uri("http://localhost")).await;
    site.registration = "redirect_uri = \"http://localhost\"\n".into();
    worked(&sign_in(&site.host(), &site, "invoices", &site.user).await);
    site.registration = format!("client_secret = \"{SECRET}\"\n{}", site.registration);
    let outcome = sign_in(&site.host(), &site, "invoices", &site.user).await;
    assert!(english(&outcome).contains("Remove `client_secret`"), "{outcome:?}");
}

#[cfg(feature = "certificate")]
#[tokio::test]
async fn a_certificate_redeems_and_refreshes() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("an RSA key");
    let certificate = rcgen::CertificateParams::new(vec!["x.example".into()]).unwrap().self_signed(&key).unwrap();
    let mut site = Site::with(|app| app.certificate(&certificate.pem()).redirect_uri(WEB)).await;
    std::fs::write(site.folder.path().join("app.crt"), certificate.pem()).unwrap();
    std::fs::write(site.folder.path().join("app.key"), key.serialize_pem()).unwrap();
    site.registration =
        format!("certificate = {{ cert_file = \"app.crt\", key_file = \"app.key\" }}\nredirect_uri = \"{WEB}\"\n");
    worked(&sign_in(&site.host(), &site, "invoices", &site.user).await);
    read(&site.host(), "invoices").await.unwrap();
}

#[tokio::test]
async fn both_secrets_of_a_rotation_work() {
    let mut site = web().await;
    site.registration =
        format!("client_secret = \"the-old-secret~x\"\nclient_secret_next = \"{SECRET}\"\nredirect_uri = \"{WEB}\"\n");
    worked(&sign_in(&site.host(), &site, "invoices", &site.user).await);
    read(&site.host(), "invoices").await.unwrap();
}

/// Renews so many times, as if the service had refused the token each time.
async fn renew(host: &MailApp, site: &Site, times: u64) {
    for _ in 0..times {
        site.fake.fault(Fault::token_expired().times(1));
        read(host, "invoices").await.unwrap_or_else(|e| panic!("{}", e.chain()));
    }
}

#[tokio::test]
async fn every_rotation_is_survived_and_a_revocation_is_noted_once() {
    for rotation in [Rotation::SingleUse, Rotation::Reusable, Rotation::Kept] {
        let mut site = web().await;
        site.fake.configure(|settings| settings.sign_in.rotation = rotation);
        let other = site.fake.mailbox("other@contoso.nl").create();
        site.accounts.push_str(&INVOICES.replace("invoices", "other").replace("facturen@", "other@"));
        let host = site.host();
        worked(&sign_in(&host, &site, "invoices", &site.user).await);
        worked(&sign_in(&host, &site, "other", &other).await);
        renew(&host, &site, 5).await;
        // Two processes in turn.
        let second = site.host();
        renew(&second, &site, 2).await;
        renew(&host, &site, 2).await;

        site.user.sign_out_everywhere();
        site.fake.fault(Fault::token_expired().times(1));
        let error = read(&host, "invoices").await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::SignInNeeded, Some("AADSTS50173")), "{}", error.chain());
        let needed = site.stored(&host, "invoices").await.unwrap().needed.expect("noted");
        assert_eq!(needed.code.as_deref(), Some("AADSTS50173"));
        let asked = site.fake.counters().of(Route::Token);
        for host in [&host, &site.host()] {
            assert_eq!(read(host, "invoices").await.unwrap_err().kind(), ErrorKind::SignInNeeded);
        }
        assert_eq!(site.fake.counters().of(Route::Token), asked, "nothing is asked until somebody signs in");
        read(&host, "other").await.unwrap();
        worked(&sign_in(&host, &site, "invoices", &site.user).await);
        read(&host, "invoices").await.unwrap();
        assert!(site.stored(&host, "invoices").await.unwrap().needed.is_none());
    }
}

#[tokio::test]
async fn a_write_lost_in_a_crash_costs_one_generation_and_not_the_account() {
    let site = web().await;
    let host = site.host();
    worked(&sign_in(&host, &site, "invoices", &site.user).await);
    let id = host.sign_in_settings("invoices").unwrap().unwrap().id().unwrap();
    let store = host.token_store().await.unwrap();
    let mut sign_in = store.sign_in(&id).await.unwrap().unwrap();
    sign_in.previous = Some(std::mem::replace(&mut sign_in.refresh_token, Secret::new("never-heard-of")));
    store.put_sign_in(&id, &sign_in, false).await.unwrap();
    read(&site.host(), "invoices").await.unwrap();
    assert!(site.stored(&host, "invoices").await.unwrap().needed.is_none());
}

#[tokio::test]
async fn a_sign_in_that_would_not_last_is_told_at_once() {
    let site = web().await;
    let host = site.host();
    let link = host.begin_sign_in("invoices", None).await.unwrap().link;
    let without = link.as_str().replace("+offline_access", "");
    assert_ne!(without, link.as_str());
    let callback = site.fake.sign_in_as(&without, &site.user).await;
    let outcome = host.complete_sign_in(&callback).await.unwrap();
    assert!(english(&outcome).contains("`offline_access`"), "{outcome:?}");
    assert!(site.stored(&host, "invoices").await.is_none());
}

#[tokio::test]
async fn one_sign_in_serves_two_services_with_a_token_each() {
    let mut site = web().await;
    site.accounts.push_str(
        "[accounts.by-imap]\nprovider = \"imap\"\nhost = \"127.0.0.1\"\nport = 9\ntls = \"none\"\nusername = \"facturen@contoso.nl\"\noauth = { registration = \"contoso\", auth = \"delegated\" }\n",
    );
    let host = site.host();
    let link = host.begin_sign_in("invoices", None).await.unwrap().link;
    let scope = link.query_pairs().find(|(name, _)| name == "scope").unwrap().1.into_owned();
    assert_eq!(
        scope,
        "openid profile offline_access https://graph.microsoft.com/Mail.ReadWrite https://graph.microsoft.com/User.Read https://outlook.office.com/IMAP.AccessAsUser.All"
    );
    worked(&sign_in(&host, &site, "invoices", &site.user).await);
    // No server is there; but the token was asked for first, and given.
    let before = site.fake.counters().of_grant("refresh_token");
    let error = read(&host, "by-imap").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    assert_eq!(site.fake.counters().of_grant("refresh_token"), before + 1);
    let scopes = site.stored(&host, "invoices").await.unwrap().scopes.join(" ");
    assert!(scopes.contains("IMAP.AccessAsUser.All") && scopes.contains("Mail.ReadWrite"), "{scopes}");
}

#[tokio::test]
async fn sign_ins_that_nobody_uses_are_kept_alive() {
    let site = web().await;
    let host = site.host();
    assert!(host.refresh_idle().await.unwrap().is_empty());
    worked(&sign_in(&host, &site, "invoices", &site.user).await);
    for _ in 0..4 {
        let before = site.fake.counters().of_grant("refresh_token");
        site.clock.pass(29 * DAY);
        site.fake.advance(29 * DAY);
        assert!(host.refresh_idle().await.unwrap().is_empty());
        site.clock.pass(2 * DAY);
        site.fake.advance(2 * DAY);
        let refreshed = site.host().refresh_idle().await.unwrap();
        assert!(matches!(&refreshed[..], [one] if one.result.is_ok() && one.account == "invoices"), "{refreshed:?}");
        assert_eq!(site.fake.counters().of_grant("refresh_token"), before + 1);
    }
    // Without it, after ninety days.
    site.clock.pass(91 * DAY);
    site.fake.advance(91 * DAY);
    let error = read(&site.host(), "invoices").await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::SignInNeeded, Some("AADSTS700082")), "{}", error.chain());
}

#[tokio::test]
async fn without_a_key_nobody_is_sent_anywhere() {
    let mut site = web().await;
    site.fake.configure(|settings| settings.sign_in.device_interval = Some(1));
    site.state = "[state]\npath = \"state.db\"\n".into();
    let host = site.host();
    let errors = [
        host.begin_sign_in("invoices", None).await.map(drop).unwrap_err(),
        host.device_code("invoices").await.map(drop).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("key"), "{error}");
    }
    assert_eq!(site.fake.counters().of(Route::DeviceCode), 0);
    site.state.push_str("plaintext_tokens = true\n");
    worked(&sign_in(&site.host(), &site, "invoices", &site.user).await);
}

#[tokio::test]
async fn accounts_that_store_nothing_need_neither_key_nor_store() {
    let mut site = Site::with(|app| app.secret(SECRET).permissions(["Mail.ReadWrite"])).await;
    site.state = "[state]\npath = \"no-such-folder/state.db\"\n".into();
    site.accounts = INVOICES.replace("delegated", "app");
    let host = site.host();
    read(&host, "invoices").await.unwrap();
    assert!(host.refresh_idle().await.unwrap().is_empty());
}

#[tokio::test]
async fn consent_for_an_app_needs_no_key_and_counts_at_once() {
    let mut site =
        Site::with(|app| app.secret(SECRET).redirect_uri(WEB).requested_permissions(["Mail.ReadWrite"])).await;
    site.state = "[state]\npath = \"state.db\"\n".into();
    site.registration = format!("client_secret = \"{SECRET}\"\nredirect_uri = \"{WEB}\"\n");
    site.accounts = INVOICES.replace("delegated", "app");
    let admin = site.fake.mailbox("beheer@contoso.nl").admin().create();
    let host = site.host();
    // An app that is unknown in the tenant, as one of another tenant is before anybody there has consented.
    site.fake.fault(Fault::aadsts(700_016).times(1));
    assert_eq!(read(&host, "invoices").await.unwrap_err().code(), Some("AADSTS700016"));
    let hand_over = host.begin_admin_consent("invoices", None).await.unwrap_or_else(|e| panic!("{}", e.chain()));
    let callback = site.fake.sign_in_as(hand_over.link.as_str(), &admin).await;
    let outcome = host.complete_sign_in(&callback).await.unwrap();
    assert!(matches!(outcome, SignInOutcome::Consented { .. }), "{outcome:?}");
    assert!(matches!(host.complete_sign_in(&callback).await.unwrap(), SignInOutcome::AlreadyUsed { .. }));
}

#[tokio::test]
async fn an_idle_sign_in_that_was_revoked_is_told_once() {
    let site = web().await;
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = told.clone();
    let host = site.host().with_account_events(move |event| {
        if let AccountEvent::StateChanged { state, .. } = event {
            sink.lock().unwrap().push((state.account.clone(), state.condition));
        }
    });
    worked(&sign_in(&host, &site, "invoices", &site.user).await);
    site.user.sign_out_everywhere();
    site.clock.pass(31 * DAY);
    for _ in 0..2 {
        let idle = host.refresh_idle().await.unwrap();
        let [one] = &idle[..] else { panic!("{idle:?}") };
        assert_eq!(one.result.as_ref().unwrap_err().kind(), ErrorKind::SignInNeeded);
        assert_eq!(host.state_of("invoices").await.unwrap().condition, Condition::SignInNeeded);
    }
    let expected = [Condition::Ready, Condition::SignInNeeded].map(|condition| ("invoices".to_owned(), condition));
    assert_eq!(*told.lock().unwrap(), expected);
}

#[tokio::test]
async fn the_answer_does_not_travel_unprotected() {
    let site = web().await;
    let error = site.host().begin_sign_in("invoices", Some("http://host.example/callback")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("unprotected"), "{error}");
}

/// What the service tells through the browser, and how the host hears of it; each row with the code and what is said.
#[tokio::test]
async fn every_pitfall_of_a_sign_in_is_named() {
    let site = web().await;
    let host = site.host();
    let redirected = [
        (65_004, "declined consent"),
        (50_105, "not assigned"),
        (53_003, "Conditional Access"),
        (650_057, "does not list the API"),
        (70_011, "scope is not valid"),
    ];
    for (code, says) in redirected {
        let fault = site.fake.fault(Fault::aadsts_redirect(code).times(1));
        let hand_over = host.begin_sign_in("invoices", None).await.unwrap();
        let callback = site.fake.browser().follow(hand_over.link.as_str()).await;
        fault.remove();
        let outcome = host.complete_sign_in(&callback).await.unwrap();
        let SignInOutcome::Refused { error, .. } = &outcome else { panic!("{code}: {outcome:?}") };
        assert_eq!(error.code(), Some(format!("AADSTS{code}").as_str()));
        assert!(english(&outcome).contains(says), "{code}: {}", english(&outcome));
    }
    let redeemed = [
        // The secret's ID, an expired secret, no secret, a secret too many.
        (7_000_215, "not its ID"),
        (7_000_222, "has expired"),
        (7_000_218, "allow public client flows"),
        (700_025, "Remove `client_secret`"),
        // An object id for the client id; another tenant; another cloud.
        (700_016, "not an object ID"),
        (90_002, "Check `tenant` and `cloud`"),
        (50_194, "Write the tenant's id or domain"),
        (9_001_023, "Write the tenant's id or domain"),
        // A single-page application's redirect.
        (9_002_325, "Register it as Web"),
        (9_002_327, "Register it as Web"),
        (50_011, "redirect URI is not registered"),
        // The clock.
        (700_024, "this machine's clock"),
        (54_005, "used already"),
        (70_008, "expired or was revoked"),
    ];
    for (code, says) in redeemed {
        let fault = site.fake.fault(Fault::aadsts(code).times(1));
        let outcome = sign_in(&host, &site, "invoices", &site.user).await;
        fault.remove();
        let SignInOutcome::Refused { error, .. } = &outcome else { panic!("{code}: {outcome:?}") };
        assert_eq!(error.code(), Some(format!("AADSTS{code}").as_str()));
        assert!(english(&outcome).contains(says), "{code}: {}", english(&outcome));
    }
    // Consent that is missing shows its link, whichever way it is told.
    for code in [65_001, 90_094] {
        let fault = site.fake.fault(Fault::aadsts(code).times(1));
        let outcome = sign_in(&host, &site, "invoices", &site.user).await;
        fault.remove();
        assert!(matches!(&outcome, SignInOutcome::ConsentPending { link: Some(_), .. }), "{code}: {outcome:?}");
    }
    // What a proxy says instead.
    let fault = site.fake.fault(Fault::html(407).on(Route::Token).times(1));
    let outcome = sign_in(&host, &site, "invoices", &site.user).await;
    fault.remove();
    assert!(english(&outcome).contains("407") && english(&outcome).contains("proxy"), "{outcome:?}");
    assert!(site.stored(&host, "invoices").await.is_none());
}

#[tokio::test]
async fn a_refused_refresh_is_told_in_words_that_help() {
    for (code, says) in [
        (700_082, "Sign in again"),
        (700_084, "Register the redirect URI as Web"),
        (70_043, "sign-in frequency"),
        (50_076, "further proof of identity"),
        (50_173, "expired or was revoked"),
        (50_132, "password"),
    ] {
        let site = web().await;
        let host = site.host();
        worked(&sign_in(&host, &site, "invoices", &site.user).await);
        site.fake.fault(Fault::aadsts(code));
        let error = read(&host, "invoices").await.unwrap_err();
        assert_eq!((error.kind(), error.account()), (ErrorKind::SignInNeeded, Some("invoices")), "{code}: {error}");
        assert!(error.message().contains(says) && error.message().contains("facturen@contoso.nl"), "{code}: {error}");
        let why = site.stored(&host, "invoices").await.unwrap().needed.unwrap().why;
        assert!(why.contains(says), "{why}");
    }
}

#[tokio::test]
async fn a_job_goes_on_without_the_account_that_must_sign_in() {
    let mut site = web().await;
    let other = site.fake.mailbox("other@contoso.nl").create();
    site.accounts.push_str(&INVOICES.replace("invoices", "other").replace("facturen@", "other@"));
    site.accounts.push_str("[jobs.j]\naccounts = [\"invoices\", \"other\"]\nimport_folder = \"Inbox\"\n");
    other.deliver("Inbox", "Message-ID: <1@x>\r\nFrom: a@b.example\r\nSubject: One\r\n\r\nHello\r\n");
    let host = site.host();
    worked(&sign_in(&host, &site, "other", &other).await);
    let importer = host.importer("j").await.unwrap();
    let report = importer.run(handler_fn(|_: Delivery| async { Ok(Outcome::Imported) })).await.unwrap();
    let status: Vec<_> = report.accounts.iter().map(|account| (&*account.account, account.status)).collect();
    assert_eq!(status, [("invoices", Status::Error), ("other", Status::Done)], "{report:?}");
    assert_eq!(report.accounts[0].error.as_ref().unwrap().kind(), ErrorKind::SignInNeeded);
    assert_eq!(report.counts().imported, 1);
}

#[tokio::test]
async fn no_secret_is_logged_told_or_kept_in_the_clear() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    // Of the whole process: what the other tests log is looked through, too.
    tracing::subscriber::set_global_default(subscriber).expect("nobody else listens");
    tracing::trace!("the log is heard");

    let site = web().await;
    site.fake.configure(|settings| settings.sign_in.rotation = Rotation::SingleUse);
    let host = site.host();
    let mut canaries = vec![SECRET.to_owned(), consent::KEY.to_owned()];
    let mut told = String::new();
    let keep = async |canaries: &mut Vec<String>| {
        let stored = site.stored(&host, "invoices").await.expect("a stored sign-in");
        canaries.push(stored.refresh_token.expose().to_owned());
        canaries.extend(stored.previous.as_ref().map(|token| token.expose().to_owned()));
        format!("{stored:?}")
    };
    for fault in
        [None, Some(Fault::aadsts(7_000_215)), Some(Fault::aadsts(501_481)), Some(Fault::html(502).on(Route::Token))]
    {
        let hand_over = host.begin_sign_in("invoices", None).await.unwrap();
        told += &format!("{hand_over:?}");
        let callback = site.fake.sign_in_as(hand_over.link.as_str(), &site.user).await;
        let url = url::Url::parse(&callback).unwrap();
        canaries.extend(url.query_pairs().find(|(name, _)| name == "code").map(|(_, code)| code.into_owned()));
        told += &format!("{:?}", mail_account::auth::Callback::parse(&callback));
        let fault = fault.map(|fault| site.fake.fault(fault.times(1)));
        let outcome = host.complete_sign_in(&callback).await.unwrap();
        told += &format!("{outcome:?} {} {}", english(&outcome), outcome.page());
        fault.inspect(mail_account::testing::graph::FaultHandle::remove);
        told += &keep(&mut canaries).await;
    }
    renew(&host, &site, 3).await;
    told += &keep(&mut canaries).await;
    let error = {
        site.user.sign_out_everywhere();
        site.fake.fault(Fault::token_expired().times(1));
        read(&host, "invoices").await.unwrap_err()
    };
    told += &format!("{error:?} {} {host:?} {:?}", error.chain(), host.account("invoices").unwrap());
    // States, nonces and verifiers.
    let random = site.random.given();
    assert!(random.len() >= 12 && canaries.len() >= 10, "{} {}", random.len(), canaries.len());
    canaries.extend(random);

    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("the log is heard") && log.contains("signed in"), "nothing was logged");
    let mut files = String::new();
    for file in std::fs::read_dir(site.folder.path()).unwrap().map(|entry| entry.unwrap().path()) {
        if file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("state.db")) && file.is_file() {
            files.push_str(&String::from_utf8_lossy(&std::fs::read(file).unwrap()));
        }
    }
    assert!(files.contains("facturen@contoso.nl"), "the database was looked into");
    for (place, text) in [("log", &log), ("texts", &told), ("database", &files)] {
        for (at, canary) in canaries.iter().enumerate() {
            assert!(!text.contains(canary.as_str()), "canary {at} stands in the {place}");
        }
        // Access tokens, id tokens and assertions are all of this form.
        assert!(!text.contains("eyJ"), "a token stands in the {place}");
    }
}

/// Everywhere else a mailbox is named: `/me` would be whoever happens to have signed in.
#[test]
fn only_the_place_that_learns_who_signed_in_asks_for_me() {
    fn walk(folder: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // The fakes answer it.
                if !path.ends_with("testing") {
                    walk(&path, found);
                }
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let asks = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '-');
            // The tests of the flows look at what was asked.
            let is_test = path.file_name().is_some_and(|name| name == "tests.rs");
            if !is_test && text.match_indices("/me").any(|(at, me)| asks(&text[at + me.len()..])) {
                found.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert_eq!(found, ["identity.rs"]);
}

#[tokio::test]
async fn an_outside_store_may_be_handed_in() {
    let site = web().await;
    let store: Arc<dyn TokenStore> = Arc::new(mail_account::testing::MemoryTokenStore::new());
    let host = site.host().with_token_store(store.clone());
    worked(&sign_in(&host, &site, "invoices", &site.user).await);
    read(&host, "invoices").await.unwrap();
    let ids: Vec<SignInId> = store.sign_ins().await.unwrap().into_iter().map(|(id, _)| id).collect();
    assert!(matches!(&ids[..], [id] if id.principal() == "facturen@contoso.nl"), "{ids:?}");
}
