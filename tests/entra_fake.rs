//! The fake of Entra's sign-in for people does what the service does, and refuses what it refuses: pages, codes, refresh
//! tokens, device codes.

#![cfg(all(feature = "testing", feature = "graph"))]

#[path = "support/sign_in.rs"]
mod sign_in;

use mail_account::testing::graph::{Answer, Fault, Rotation, Route};
use serde_json::json;
use sign_in::{CALLBACK, DEVICE_GRANT, GRAPH, Rig, SCOPES, VERIFIER, answer, claims, code, fields, refresh_token};
use std::time::Duration;

#[tokio::test]
async fn a_person_signs_in_and_reads_their_own_mail() {
    let rig = Rig::new().await;
    rig.user.deliver("inbox", "From: a@example.org\r\nSubject: Invoice 1\r\n\r\nhello\r\n");
    let callback = rig.fake.sign_in_as(&rig.link().url(), &rig.user).await;
    assert!(callback.starts_with("https://host.example/callback?code="), "{callback}");
    assert_eq!(fields(&callback)["state"], "s1");
    let answer = rig.redeem(&code(&callback), &[]).await.good();
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(3599)));
    let scope = answer["scope"].as_str().unwrap();
    assert_eq!(scope, format!("{GRAPH}Mail.ReadWrite {GRAPH}User.Read openid profile"));

    let id = claims(&answer["id_token"]);
    assert_eq!(id["oid"], rig.user.id());
    assert_eq!((&id["tid"], &id["aud"]), (&json!(rig.fake.tenant()), &json!(rig.app.client_id())));
    assert_eq!((&id["nonce"], &id["preferred_username"]), (&json!("n1"), &json!("facturen@contoso.nl")));
    let access = claims(&answer["access_token"]);
    assert_eq!(access["scp"], "Mail.ReadWrite User.Read");
    assert_eq!((&access["oid"], &access["appidacr"]), (&id["oid"], &json!("1")));
    assert!(access.get("roles").is_none());

    let me = rig.graph(&answer, "/me?$select=id,userPrincipalName,mail").await.good();
    assert_eq!((&me["id"], &me["mail"]), (&id["oid"], &json!("facturen@contoso.nl")));
    for path in ["/me/mailFolders/inbox/messages", "/users/facturen@contoso.nl/mailFolders/inbox/messages"] {
        assert_eq!(rig.graph(&answer, path).await.good()["value"][0]["subject"], "Invoice 1");
    }
    assert_eq!(rig.fake.counters().of_grant("authorization_code"), 1);
    assert_eq!(rig.fake.counters().token_requests, 1);
    assert_eq!(rig.fake.counters().of(Route::Authorize), 1);
}

#[tokio::test]
async fn a_code_is_good_once_for_ten_minutes_for_its_application_redirect_and_verifier() {
    let rig = Rig::new().await;
    let sign_in = async || code(&rig.fake.sign_in_as(&rig.link().url(), &rig.user).await);
    let used = sign_in().await;
    rig.redeem(&used, &[]).await.good();
    rig.redeem(&used, &[]).await.refused(400, "invalid_grant", 54005);

    let old = sign_in().await;
    rig.fake.advance(Duration::from_secs(601));
    rig.redeem(&old, &[]).await.refused(400, "invalid_grant", 70008);

    let fresh = sign_in().await;
    rig.redeem("nonsense", &[]).await.refused(400, "invalid_grant", 70000);
    rig.redeem(&fresh, &[("redirect_uri", Some("https://host.example/other"))]).await.refused(
        400,
        "invalid_request",
        50011,
    );
    rig.redeem(&fresh, &[("redirect_uri", None)]).await.refused(400, "invalid_request", 900144);
    let wrong = "b".repeat(43);
    rig.redeem(&fresh, &[("code_verifier", Some(&wrong))]).await.refused(400, "invalid_grant", 501481);
    rig.redeem(&fresh, &[("code_verifier", None)]).await.refused(400, "invalid_grant", 501481);
    rig.redeem(&fresh, &[("client_secret", None)]).await.refused(401, "invalid_client", 7000218);
    rig.redeem(&fresh, &[("client_secret", Some("wrong"))]).await.refused(401, "invalid_client", 7000215);
    let stray = [("resource", Some("https://graph.microsoft.com"))];
    rig.redeem(&fresh, &stray).await.refused(400, "invalid_request", 9002313);
    let other = rig.fake.app("Other").secret("right").create().client_id();
    rig.redeem(&fresh, &[("client_id", Some(&other))]).await.refused(400, "invalid_grant", 70000);
    // None of that used it up.
    rig.redeem(&fresh, &[]).await.good();
}

#[tokio::test]
async fn requests_are_taken_to_the_letter() {
    let rig = Rig::new().await;
    for (link, code) in [
        (rig.link().without("client_id"), 900144),
        (rig.link().without("redirect_uri"), 900144),
        (rig.link().with("client_id", "11111111-2222-3333-4444-555555555555"), 700016),
        (rig.link().with("redirect_uri", "https://host.example/callback/"), 50011),
        (rig.link().with("redirect_uri", "https://host.example/Callback"), 50011),
        (rig.link().with("redirect_uri", "https://evil.example/callback"), 50011),
        (rig.link().with("response_mode", "web_message"), 9002313),
        (rig.link().with("resource", "https://graph.microsoft.com"), 9002313),
        (rig.link().tenant(&rig.fake, "common"), 50194),
        (rig.link().tenant(&rig.fake, "organizations"), 50194),
        (rig.link().tenant(&rig.fake, "consumers"), 90130),
        (rig.link().tenant(&rig.fake, "nowhere.example"), 90002),
        (rig.link().tenant(&rig.fake, "nowhere"), 900023),
    ] {
        rig.refused_on_page(&link, code).await;
    }
    let mut doubled = rig.link();
    doubled.parameters.push(("state".into(), "s2".into()));
    rig.refused_on_page(&doubled, 9002313).await;
    for (link, error, code) in [
        (rig.link().without("response_type"), "invalid_request", 900144),
        (rig.link().with("response_type", "token"), "unsupported_response_type", 700054),
        (rig.link().without("scope"), "invalid_request", 900144),
        (rig.link().with("scope", "openid Mail.Everything"), "invalid_scope", 70011),
        (rig.link().with("scope", "https://graph.microsoft.com/.default Mail.ReadWrite"), "invalid_scope", 70011),
        (rig.link().with("scope", "https%3A%2F%2Fgraph.microsoft.com%2FMail.ReadWrite"), "invalid_scope", 70011),
        (rig.link().with("scope", "https://graph.microsoft.nl/Mail.ReadWrite"), "invalid_resource", 500011),
        (rig.link().with("scope", "https://outlook.office.com/IMAP.AccessAsUser.All"), "invalid_resource", 650057),
        (rig.link().with("prompt", "maybe"), "invalid_request", 9002313),
        (rig.link().without("code_challenge"), "invalid_request", 9002313),
        (rig.link().without("code_challenge").without("code_challenge_method"), "invalid_request", 9002313),
        (rig.link().with("code_challenge_method", "plain"), "invalid_request", 9002313),
        (rig.link().with("code_challenge", "short"), "invalid_request", 9002313),
        (rig.link().with("claims", "{"), "invalid_request", 9002313),
    ] {
        rig.refused_by_redirect(&link, error, code).await;
    }
    rig.app.set_disabled(true);
    rig.refused_on_page(&rig.link(), 7000112).await;
    let nowhere = rig.fake.app("No reply address").create().client_id();
    rig.refused_on_page(&rig.link().with("client_id", &nowhere), 900971).await;
}

#[tokio::test]
async fn answers_come_back_as_the_mode_and_the_redirect_say() {
    let rig = Rig::with(|app| {
        app.redirect_uri(CALLBACK)
            .native_redirect_uri("http://localhost")
            .native_redirect_uri("http://localhost/done")
            .redirect_uri("https://host.example?page=mail")
            .consented()
    })
    .await;
    let to = async |redirect: &str, mode: &str| {
        let link = rig.link().with("redirect_uri", redirect).with("response_mode", mode);
        rig.fake.sign_in_as(&link.url(), &rig.user).await
    };
    for (redirect, mode, start) in [
        (CALLBACK, "query", "https://host.example/callback?code="),
        (CALLBACK, "fragment", "https://host.example/callback#code="),
        (CALLBACK, "form_post", "https://host.example/callback?code="),
        ("http://localhost:53682", "query", "http://localhost:53682/?code="),
        ("http://localhost", "query", "http://localhost/?code="),
        ("http://localhost:1/done", "query", "http://localhost:1/done?code="),
        ("https://host.example?page=mail", "query", "https://host.example?page=mail&code="),
    ] {
        let callback = to(redirect, mode).await;
        assert!(callback.starts_with(start), "{callback}");
        assert_eq!(fields(&callback)["state"], "s1", "{callback}");
    }
    for redirect in [
        "http://localhost:1/",
        "http://localhost:1/other",
        "http://localhost.example",
        "http://127.0.0.1:1",
        "https://localhost",
    ] {
        rig.refused_on_page(&rig.link().with("redirect_uri", redirect), 50011).await;
    }
    let code = code(&to("http://localhost:53682", "query").await);
    let other_port = [("redirect_uri", Some("http://localhost:53683")), ("client_secret", None)];
    rig.redeem(&code, &other_port).await.refused(400, "invalid_request", 50011);
    rig.redeem(&code, &[("redirect_uri", Some("http://localhost:53682")), ("client_secret", None)]).await.good();
}

#[tokio::test]
async fn the_browsers_sessions_decide_what_is_asked() {
    let rig = Rig::with(|app| app.secret("right").redirect_uri(CALLBACK).consented()).await;
    let other = rig.fake.mailbox("beheer@contoso.nl").create();
    let who = async |callback: &str| {
        let answer = rig.redeem(&code(callback), &[]).await.good();
        claims(&answer["id_token"])["preferred_username"].as_str().unwrap().to_owned()
    };
    let mut browser = rig.fake.browser();
    let quiet = rig.link().with("prompt", "none").url();
    assert_eq!(fields(&browser.follow(&quiet).await)["error"], "login_required");
    browser.sign_in(&rig.link().url(), &other).await;

    // The trap: without a prompt, whoever is signed in goes on, whatever the hint says.
    let hinted = rig.link().without("prompt").with("login_hint", "facturen@contoso.nl").url();
    assert_eq!(who(&browser.follow(&hinted).await).await, "beheer@contoso.nl");
    assert_eq!(who(&browser.follow(&quiet).await).await, "beheer@contoso.nl");
    // Not with select_account: the list comes, and someone else can sign in.
    assert_eq!(who(&browser.sign_in(&rig.link().url(), &rig.user).await).await, "facturen@contoso.nl");
    // Two live sessions: no prompt is ambiguous, a hint decides.
    assert_eq!(fields(&browser.follow(&quiet).await)["error"], "interaction_required");
    assert_eq!(who(&browser.follow(&hinted).await).await, "facturen@contoso.nl");
    let list = rig.http.get(rig.link().url()).send().await.unwrap().text().await.unwrap();
    assert!(list.contains("data-page=\"username\""), "another browser knows nobody: {list}");

    // prompt=login asks for the password whoever is there.
    let login = rig.link().with("prompt", "login").url();
    assert_eq!(who(&browser.sign_in(&login, &other).await).await, "beheer@contoso.nl");

    rig.user.sign_out_everywhere();
    assert_eq!(who(&browser.follow(&quiet).await).await, "beheer@contoso.nl", "one session is left");
    assert_eq!(who(&browser.sign_in(&rig.link().url(), &rig.user).await).await, "facturen@contoso.nl");
    let logout = format!("{}/{}/oauth2/v2.0/logout", rig.fake.login_url(), rig.fake.tenant());
    assert_eq!(rig.http.get(logout).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_test_can_demand_the_account_list() {
    let rig = Rig::new().await;
    rig.fake.configure(|settings| settings.sign_in.demand_account_choice = true);
    for link in [rig.link().without("prompt"), rig.link().with("prompt", "consent"), rig.link().with("prompt", "login")]
    {
        rig.refused_by_redirect(&link, "invalid_request", 9002313).await;
    }
    rig.signed_in().await;
}

#[tokio::test]
async fn the_account_must_exist_and_the_password_be_right() {
    let rig = Rig::new().await;
    let browser = reqwest::Client::builder().build().unwrap();
    let first = browser.get(rig.link().with("login_hint", "facturen@contoso.nl").url()).send().await.unwrap();
    let cookie = first.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let page = first.text().await.unwrap();
    assert!(page.contains("name=\"username\" type=\"text\" value=\"facturen@contoso.nl\""), "{page}");
    let flow = page.split("name=\"flow\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let post = async |cookie: &str, name: &str, value: &str| {
        let form = [("flow", flow.as_str()), (name, value)];
        let url = format!("{}/login", rig.fake.login_url());
        answer(browser.post(url).header("cookie", cookie).form(&form)).await.text
    };
    assert!(post(&cookie, "username", "niemand@contoso.nl").await.contains("data-code=\"50034\""));
    assert!(post(&cookie, "password", "too early").await.contains("data-code=\"50089\""));
    assert!(post(&cookie, "username", "facturen@contoso.nl").await.contains("data-page=\"password\""));
    assert!(post(&cookie, "password", "wrong").await.contains("data-code=\"50126\""));
    assert!(post(&cookie, "consent", "accept").await.contains("data-code=\"9002313\""), "nobody is signed in");
    assert!(post("ESTSAUTH=b.other", "password", &rig.user.password()).await.contains("data-code=\"50089\""));
    assert!(post(&cookie, "password", &rig.user.password()).await.contains("data-page=\"consent\""));
    rig.fake.advance(Duration::from_secs(3601));
    assert!(post(&cookie, "consent", "accept").await.contains("data-code=\"50089\""));
}

#[tokio::test]
async fn refresh_tokens_rotate_and_the_old_one_stays_good() {
    let rig = Rig::new().await;
    let first = refresh_token(&rig.signed_in().await);
    let answer = rig.refresh(&first, &[]).await.good();
    assert_eq!(claims(&answer["access_token"])["upn"], "facturen@contoso.nl");
    let second = refresh_token(&answer);
    assert_ne!(first, second);
    for token in [&first, &second, &first] {
        rig.refresh(token, &[]).await.good();
    }
    rig.refresh(&first, &[("client_secret", None)]).await.refused(401, "invalid_client", 7000218);
    rig.refresh("nonsense", &[]).await.refused(400, "invalid_grant", 70000);
    let other = rig.fake.app("Other").secret("right").create().client_id();
    rig.refresh(&first, &[("client_id", Some(&other))]).await.refused(400, "invalid_grant", 70000);

    // 90 days of inactivity, sliding.
    let day = Duration::from_secs(86_400);
    for _ in 0..3 {
        rig.fake.advance(day * 80);
        rig.refresh(&second, &[]).await.good();
    }
    rig.fake.advance(day * 91);
    rig.refresh(&second, &[]).await.refused(400, "invalid_grant", 700082);
    assert!(rig.fake.counters().of_grant("refresh_token") > 8);
}

#[tokio::test]
async fn rotation_can_be_strict_or_absent() {
    let rig = Rig::new().await;
    rig.fake.configure(|settings| settings.sign_in.rotation = Rotation::Kept);
    let kept = refresh_token(&rig.signed_in().await);
    assert!(rig.refresh(&kept, &[]).await.good().get("refresh_token").is_none());
    rig.refresh(&kept, &[]).await.good();

    rig.fake.configure(|settings| settings.sign_in.rotation = Rotation::SingleUse);
    let first = refresh_token(&rig.signed_in().await);
    let second = refresh_token(&rig.refresh(&first, &[]).await.good());
    let third = refresh_token(&rig.refresh(&second, &[]).await.good());
    rig.refresh(&first, &[]).await.refused(400, "invalid_grant", 70000);
    // A replay ends the whole grant, the newest token too.
    rig.refresh(&third, &[]).await.refused(400, "invalid_grant", 50173);
}

#[tokio::test]
async fn what_ends_a_refresh_token() {
    let web = Rig::new().await;
    let native = Rig::native().await;
    let at = [("redirect_uri", Some("http://localhost:5")), ("client_secret", None)];
    let native_in = async || {
        let link = native.link().with("redirect_uri", "http://localhost:5").url();
        let callback = native.fake.sign_in_as(&link, &native.user).await;
        refresh_token(&native.redeem(&code(&callback), &at).await.good())
    };
    let no_secret = [("client_secret", None)];
    // The user changes the password: only public clients' tokens end.
    let (of_web, of_native) = (refresh_token(&web.signed_in().await), native_in().await);
    web.user.change_password("Nieuw-1");
    native.user.change_password("Nieuw-1");
    web.refresh(&of_web, &[]).await.good();
    native.refresh(&of_native, &no_secret).await.refused(400, "invalid_grant", 50173);
    // Revoked sessions, a reset by an administrator, sign-in frequency: all of them.
    let of_native = native_in().await;
    native.user.sign_out_everywhere();
    native.refresh(&of_native, &no_secret).await.refused(400, "invalid_grant", 50173);
    web.user.reset_password("Nieuw-2");
    web.refresh(&of_web, &[]).await.refused(400, "invalid_grant", 50173);
    let fresh = refresh_token(&web.signed_in().await);
    web.user.end_by_sign_in_frequency();
    web.refresh(&fresh, &[]).await.refused(400, "invalid_grant", 70043);
    // What only stands in the way as long as it is there.
    let fresh = refresh_token(&web.signed_in().await);
    web.user.refuse_sign_in(50076);
    let body = web.refresh(&fresh, &[]).await.refused(400, "invalid_grant", 50076);
    assert_eq!(body["suberror"], "basic_action");
    web.user.refuse_sign_in(None);
    web.user.set_enabled(false);
    web.refresh(&fresh, &[]).await.refused(400, "invalid_grant", 50057);
    web.user.set_enabled(true);
    web.app.withdraw_consent();
    let body = web.refresh(&fresh, &[]).await.refused(400, "invalid_grant", 65001);
    assert_eq!(body["suberror"], "consent_required");
    web.app.consent_for_everyone();
    web.refresh(&fresh, &[]).await.good();
}

#[tokio::test]
async fn one_refresh_token_serves_every_resource_one_at_a_time() {
    let imap = "https://outlook.office.com/IMAP.AccessAsUser.All";
    let rig = Rig::with(|app| app.secret("right").redirect_uri(CALLBACK).delegated_permissions([imap])).await;
    let both = format!("offline_access Mail.ReadWrite {imap}");
    let callback = rig.fake.sign_in_as(&rig.link().with("scope", &both).url(), &rig.user).await;
    let answer = rig.redeem(&code(&callback), &[]).await.good();
    assert_eq!(claims(&answer["access_token"])["aud"], "https://graph.microsoft.com", "the first resource");
    assert!(answer.get("id_token").is_none());
    let token = refresh_token(&answer);
    let answer = rig.refresh(&token, &[("scope", Some(imap))]).await.good();
    assert_eq!(claims(&answer["access_token"])["aud"], "https://outlook.office.com");
    assert_eq!(answer["scope"], imap);
    // offline_access was left out of the scope this time.
    assert!(answer.get("refresh_token").is_none());
    rig.refresh(&token, &[("scope", Some(&both))]).await.refused(400, "invalid_request", 28000);
    let more = "https://graph.microsoft.com/MailboxSettings.Read";
    rig.refresh(&token, &[("scope", Some(more))]).await.refused(400, "invalid_grant", 65001);
}

#[tokio::test]
async fn tokens_hold_what_was_asked_for_and_granted() {
    let rig = Rig::with(|app| app.secret("right").redirect_uri(CALLBACK).withholding("Mail.ReadWrite.Shared")).await;
    let sign_in = async |scope: &str| {
        let callback = rig.fake.sign_in_as(&rig.link().with("scope", scope).url(), &rig.user).await;
        rig.redeem(&code(&callback), &[]).await.good()
    };
    let answer = sign_in("openid email Mail.ReadWrite Mail.ReadWrite.Shared").await;
    assert_eq!(answer["scope"], format!("{GRAPH}Mail.ReadWrite email openid"), "less than asked");
    assert!(answer.get("refresh_token").is_none());
    let id = claims(&answer["id_token"]);
    assert_eq!(id["email"], "facturen@contoso.nl");
    assert!(id.get("oid").is_none() && id.get("preferred_username").is_none(), "only with `profile`");
    // More than asked: what was consented to before.
    rig.fake.configure(|settings| settings.sign_in.short_scopes = true);
    let answer = sign_in("User.Read offline_access").await;
    assert_eq!(answer["scope"], "Mail.ReadWrite User.Read");
    refresh_token(&answer);
}

#[tokio::test]
async fn the_platform_decides_how_codes_are_redeemed() {
    let native = Rig::native().await;
    let link = native.link().with("redirect_uri", "http://localhost:5").url();
    let at = ("redirect_uri", Some("http://localhost:5"));
    let callback = native.fake.sign_in_as(&link, &native.user).await;
    native.redeem(&code(&callback), &[at]).await.refused(401, "invalid_client", 700025);
    let redeemed = native.redeem(&code(&callback), &[at, ("client_secret", None)]).await.good();
    assert_eq!(claims(&redeemed["access_token"])["appidacr"], "0");
    let token = refresh_token(&redeemed);
    native.refresh(&token, &[]).await.refused(401, "invalid_client", 700025);
    native.refresh(&token, &[("client_secret", None)]).await.good();

    let spa = Rig::with(|app| app.secret("right").spa_redirect_uri(CALLBACK).consented()).await;
    let bare = spa.link().without("code_challenge").without("code_challenge_method");
    spa.refused_by_redirect(&bare, "invalid_request", 9002325).await;
    let callback = spa.fake.sign_in_as(&spa.link().url(), &spa.user).await;
    spa.redeem(&code(&callback), &[]).await.refused(400, "invalid_request", 9002327);
    let client_id = spa.app.client_id();
    let url = format!("{}/{}/oauth2/v2.0/token", spa.fake.login_url(), spa.fake.tenant());
    let from_page = async |form: &[(&str, &str)]| {
        answer(spa.http.post(&url).header("origin", "https://host.example").form(form)).await
    };
    let found = code(&callback);
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", client_id.as_str()),
        ("code", &found),
        ("redirect_uri", CALLBACK),
        ("code_verifier", VERIFIER),
    ];
    let token = refresh_token(&from_page(&form).await.good());
    let form = [("grant_type", "refresh_token"), ("client_id", &client_id), ("refresh_token", &token)];
    from_page(&form).await.good();
    spa.fake.advance(Duration::from_secs(86_401));
    from_page(&form).await.refused(400, "invalid_grant", 700084);
}

#[tokio::test]
async fn a_device_signs_in_by_code() {
    let rig = Rig::native().await;
    let device = rig.device_code(SCOPES).await;
    assert_eq!((&device["expires_in"], &device["interval"]), (&json!(900), &json!(5)));
    assert_eq!(device["verification_uri"], format!("{}/devicelogin", rig.fake.login_url()));
    let user_code = device["user_code"].as_str().unwrap();
    assert!(device["message"].as_str().unwrap().contains(user_code));
    assert!(device.get("verification_uri_complete").is_none());
    rig.poll(&device).await.refused(400, "authorization_pending", 70016);
    rig.fake.answer_device_code(&user_code.to_lowercase(), &rig.user, Answer::Accept).await;
    let answer = rig.poll(&device).await.good();
    assert_eq!(claims(&answer["id_token"])["oid"], rig.user.id());
    rig.refresh(&refresh_token(&answer), &[("client_secret", None)]).await.good();
    rig.poll(&device).await.refused(400, "invalid_grant", 54005);

    let declined = rig.device_code(SCOPES).await;
    rig.fake.answer_device_code(declined["user_code"].as_str().unwrap(), &rig.user, Answer::Decline).await;
    rig.poll(&declined).await.refused(400, "authorization_declined", 0);
    let old = rig.device_code(SCOPES).await;
    rig.fake.advance(Duration::from_secs(901));
    rig.poll(&old).await.refused(400, "expired_token", 70019);
    rig.poll(&json!({"device_code": "nonsense"})).await.refused(400, "bad_verification_code", 70018);

    rig.fake.configure(|settings| {
        settings.sign_in.device_interval = None;
        settings.sign_in.slow_down = true;
    });
    let device = rig.device_code(SCOPES).await;
    assert!(device.get("interval").is_none());
    rig.poll(&device).await.refused(400, "authorization_pending", 70016);
    rig.poll(&device).await.refused(400, "slow_down", 0);
    rig.fake.advance(Duration::from_secs(11));
    rig.poll(&device).await.refused(400, "authorization_pending", 70016);
}

#[tokio::test]
async fn device_codes_need_public_client_flows() {
    let rig = Rig::new().await;
    let device = rig.device_code(SCOPES).await;
    rig.poll(&device).await.refused(401, "invalid_client", 7000218);
    let public = Rig::native().await;
    let device = public.device_code(SCOPES).await;
    let code = device["device_code"].as_str().unwrap();
    let client_id = public.app.client_id();
    let form =
        [("grant_type", DEVICE_GRANT), ("client_id", &client_id), ("device_code", code), ("client_secret", "right")];
    public.token(&form).await.refused(401, "invalid_client", 700025);
    let path = format!("{}/oauth2/v2.0/devicecode", public.fake.tenant());
    public.post(&path, &[("client_id", &client_id)]).await.refused(400, "invalid_request", 900144);
    let hinted = [("client_id", client_id.as_str()), ("scope", SCOPES), ("login_hint", "facturen@contoso.nl")];
    public.post(&path, &hinted).await.refused(400, "invalid_request", 9002313);
    let dutch = public.post(&format!("{path}?mkt=nl-NL"), &[("client_id", &client_id), ("scope", SCOPES)]).await;
    assert!(dutch.good()["message"].as_str().unwrap().starts_with("Open in een browser"));
}

/// Every code of the error list that a mail client meets, at both places that tell it.
#[tokio::test]
async fn every_code_can_be_scripted() {
    let rig = Rig::new().await;
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", &rig.app.client_id()),
        ("client_secret", "right"),
        ("refresh_token", "any"),
    ];
    for code in [
        7000215, 7000222, 7000218, 700025, 7000112, 700016, 700027, 700024, 50012, 70021, 700213, 90002, 900023, 90038,
        50194, 9001023, 90130, 90124, 50011, 900971, 9002325, 9002327, 501481, 54005, 70008, 700082, 700084, 70043,
        70000, 50173, 50132, 50133, 50089, 50076, 50079, 50072, 50074, 50158, 53003, 53000, 53001, 530032, 530035,
        50105, 65001, 65004, 90094, 90095, 650057, 650056, 65005, 650052, 500011, 70011, 1002012, 28000, 700022, 50034,
        50020, 16000, 50126, 50053, 50055, 50057, 50058, 50196, 90033, 90055, 9002313, 900144, 90014, 900561, 900382,
        900432,
    ] {
        rig.fake.fault(Fault::aadsts(code).times(1));
        let body = rig.token(&form).await.json();
        assert_eq!(body["error_codes"], json!([code]), "{body}");
        let description = body["error_description"].as_str().unwrap();
        assert!(description.starts_with(&format!("AADSTS{code}: ")), "{description}");
        assert!(
            description.contains("\r\nTrace ID: ") && description.contains("\r\nCorrelation ID: "),
            "{description}"
        );
        assert!(description.ends_with(&format!("\r\nTimestamp: {}", body["timestamp"].as_str().unwrap())));
        assert!(body["timestamp"].as_str().unwrap().contains(' '), "a space in place of the T");
        rig.fake.fault(Fault::aadsts_redirect(code).times(1));
        let (status, location) = rig.shown(&rig.link()).await;
        assert_eq!(status, 302, "{location}");
        assert!(fields(&location)["error_description"].starts_with(&format!("AADSTS{code}: ")), "{location}");
    }
    rig.fake.fault(Fault::entra(400, "slow_down", 0, "").times(1));
    assert!(rig.token(&form).await.refused(400, "slow_down", 0).get("error_codes").is_none());
}
