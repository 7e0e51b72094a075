//! The fake of Entra's sign-in for people: consent, policy, tenants, and what a person's token opens at Graph and IMAP.

#![cfg(all(feature = "testing", feature = "graph"))]

#[path = "support/sign_in.rs"]
mod sign_in;

use mail_account::testing::graph::{ImapAnswer, Mailbox};
use serde_json::json;
use sign_in::{CALLBACK, Link, Rig, VERIFIER, answer, claims, code, fields};
use std::time::Duration;

const DEFAULT: &str = "https://graph.microsoft.com/.default";

#[tokio::test]
async fn consent_is_asked_once_and_can_be_declined() {
    let rig = Rig::new().await;
    let mut browser = rig.fake.browser();
    let declined = browser.decline(&rig.link().url(), &rig.user).await;
    let told = fields(&declined);
    assert_eq!((told["error"].as_str(), told["state"].as_str()), ("access_denied", "s1"), "{declined}");
    assert!(told["error_description"].starts_with("AADSTS65004: "), "{declined}");
    let quiet = rig.link().with("prompt", "none").url();
    assert_eq!(fields(&browser.follow(&quiet).await)["error"], "consent_required");
    browser.sign_in(&rig.link().url(), &rig.user).await;
    code(&browser.follow(&quiet).await);
    // Asked again only with prompt=consent, or for more.
    let again = browser.decline(&rig.link().with("prompt", "consent").url(), &rig.user).await;
    assert_eq!(fields(&again)["error"], "access_denied");
    let more = rig.link().with("scope", "Mail.ReadWrite.Shared").url();
    assert_eq!(fields(&browser.decline(&more, &rig.user).await)["error"], "access_denied");
}

#[tokio::test]
async fn some_consent_is_an_administrators() {
    let rig =
        Rig::with(|app| app.secret("right").redirect_uri(CALLBACK).delegated_permissions(["User.Read.All"])).await;
    let admin = rig.fake.mailbox("beheer@contoso.nl").admin().create();
    let told = async |link: &Link, user: &Mailbox| fields(&rig.fake.sign_in_as(&link.url(), user).await);
    let high = rig.link().with("scope", "User.Read.All");
    let refused = told(&high, &rig.user).await;
    assert_eq!(refused["error"], "access_denied");
    assert!(refused["error_description"].starts_with("AADSTS90094: "));
    assert!(told(&high, &admin).await.contains_key("code"));

    rig.fake.configure(|settings| {
        settings.sign_in.people_consent = false;
        settings.sign_in.consent_requests = true;
        settings.sign_in.admin_consent_error = "consent_required".into();
    });
    let refused = told(&rig.link(), &rig.user).await;
    assert_eq!(refused["error"], "consent_required");
    assert!(refused["error_description"].starts_with("AADSTS90095: "));
    rig.app.consent_for_everyone();
    assert!(told(&rig.link(), &rig.user).await.contains_key("code"));
}

#[tokio::test]
async fn policy_stands_in_the_way_of_people() {
    let rig = Rig::new().await;
    let told = async |user: &Mailbox| {
        let told = fields(&rig.fake.sign_in_as(&rig.link().url(), user).await);
        assert!(!told.contains_key("code") && told["state"] == "s1");
        (told["error"].clone(), told["error_description"].split(':').next().unwrap().to_owned())
    };
    for (code, error) in [
        (50076, "interaction_required"),
        (50079, "interaction_required"),
        (53003, "access_denied"),
        (53000, "access_denied"),
        (530035, "access_denied"),
        (50053, "access_denied"),
        (50055, "access_denied"),
    ] {
        rig.user.refuse_sign_in(code);
        assert_eq!(told(&rig.user).await, (error.to_owned(), format!("AADSTS{code}")));
    }
    rig.user.refuse_sign_in(None);
    rig.app.assign_to(["iemand@contoso.nl"]);
    assert_eq!(told(&rig.user).await, ("access_denied".into(), "AADSTS50105".into()));
    rig.app.assign_to(["facturen@contoso.nl"]);
    rig.signed_in().await;
    let shared = rig.fake.mailbox("gedeeld@contoso.nl").shared().create();
    assert_eq!(told(&shared).await, ("access_denied".into(), "AADSTS50057".into()));
    // Someone who was let in before the policy came gets no token either.
    let code = code(&rig.fake.sign_in_as(&rig.link().url(), &rig.user).await);
    rig.user.refuse_sign_in(53003);
    rig.redeem(&code, &[]).await.refused(400, "invalid_grant", 53003);
}

#[tokio::test]
async fn an_administrator_consents_for_everyone() {
    let rig =
        Rig::with(|app| app.secret("right").redirect_uri(CALLBACK).requested_permissions(["Mail.ReadWrite"])).await;
    let admin = rig.fake.mailbox("beheer@contoso.nl").admin().create();
    let link = |path: &str, scope: Option<&str>| rig.consent_link(path, scope);
    let all = Some(DEFAULT);
    let newer = link("organizations/v2.0/adminconsent", all);
    let older = link(&format!("{}/adminconsent", rig.fake.tenant()), None);

    let refused = fields(&rig.fake.sign_in_as(&newer, &rig.user).await);
    assert_eq!((refused["error"].as_str(), refused["admin_consent"].as_str()), ("access_denied", "True"));
    let declined = fields(&rig.fake.browser().decline(&older, &admin).await);
    assert_eq!(declined["error"], "permission_denied");
    assert!(!declined.contains_key("admin_consent"));

    let app_token = async || rig.app_token("contoso.nl", &rig.app.client_id(), DEFAULT).await.good();
    assert!(claims(&app_token().await["access_token"]).get("roles").is_none());
    for link in [newer, older] {
        let granted = fields(&rig.fake.sign_in_as(&link, &admin).await);
        assert_eq!(
            (granted["admin_consent"].as_str(), granted["tenant"].as_str()),
            ("True", rig.fake.tenant().as_str())
        );
        assert_eq!(granted["state"], "s1");
    }
    assert_eq!(claims(&app_token().await["access_token"])["roles"], json!(["Mail.ReadWrite"]));
    // Nobody is asked any more.
    let mut browser = rig.fake.browser();
    code(&browser.decline(&rig.link().url(), &rig.user).await);

    for (path, scope, code) in [
        ("common/v2.0/adminconsent", all, 90130),
        ("contoso.nl/v2.0/adminconsent", None, 900144),
        ("contoso.nl/adminconsent", all, 9002313),
    ] {
        let text = rig.http.get(link(path, scope)).send().await.unwrap().text().await.unwrap();
        assert!(text.contains(&format!("data-code=\"{code}\"")), "{path}: {text}");
    }
}

#[tokio::test]
async fn a_person_sees_their_own_mail_and_what_they_were_given() {
    let rig = Rig::new().await;
    let shared = rig.fake.mailbox("gedeeld@contoso.nl").shared().create();
    let sign_in = async |scope: &str| {
        rig.app.withdraw_consent();
        let callback = rig.fake.sign_in_as(&rig.link().with("scope", scope).url(), &rig.user).await;
        rig.redeem(&code(&callback), &[]).await.good()
    };
    let plain = sign_in("Mail.ReadWrite").await;
    let inbox = format!("/users/{}/mailFolders/inbox", shared.id());
    assert_eq!(rig.graph(&plain, "/me").await.status, 403, "User.Read was not asked for");
    rig.graph(&plain, "/me/mailFolders/inbox").await.good();
    shared.set_full_access("facturen@contoso.nl", true);
    let refused = rig.graph(&plain, &inbox).await;
    assert_eq!((refused.status, refused.graph_code().as_str()), (403, "ErrorAccessDenied"), "no .Shared scope");

    let both = sign_in("Mail.ReadWrite.Shared").await;
    rig.graph(&both, &inbox).await.good();
    rig.graph(&both, "/me/mailFolders/inbox").await.good();
    assert_eq!(rig.graph(&both, &format!("/users/{}/mailboxSettings", shared.id())).await.status, 403);
    shared.set_full_access("facturen@contoso.nl", false);
    assert_eq!(rig.graph(&both, &inbox).await.graph_code(), "ErrorAccessDenied");
    rig.fake.configure(|settings| settings.stranger_code = Some("ErrorFolderNotFound".into()));
    let refused = rig.graph(&both, &inbox).await;
    assert_eq!((refused.status, refused.graph_code().as_str()), (404, "ErrorFolderNotFound"));
    let parts = json!({"requests": [
        {"id": "1", "method": "GET", "url": "/me/mailFolders/inbox"},
        {"id": "2", "method": "GET", "url": format!("/users/{}/messages", shared.id())},
    ]});
    let url = format!("{}/v1.0/$batch", rig.fake.graph_url());
    let batch = rig.http.post(url).bearer_auth(both["access_token"].as_str().unwrap()).json(&parts);
    let batch = answer(batch).await.good();
    let mut statuses: Vec<_> = batch["responses"].as_array().unwrap().iter().map(|part| &part["status"]).collect();
    statuses.sort_unstable_by_key(|status| status.as_u64());
    assert_eq!(statuses, [&json!(200), &json!(404)]);
    // The directory shows others only with a permission for it.
    let profile = sign_in("User.Read").await;
    rig.graph(&profile, "/users/facturen@contoso.nl").await.good();
    assert_eq!(rig.graph(&profile, "/users/gedeeld@contoso.nl").await.graph_code(), "Authorization_RequestDenied");
    assert_eq!(rig.graph(&profile, "/me/mailFolders/inbox").await.status, 403);

    // An application is nobody.
    let app = rig.fake.app("job").secret("right").permissions(["Mail.ReadWrite", "User.Read.All"]).create();
    let token = rig.app_token("contoso.nl", &app.client_id(), DEFAULT).await.good();
    for path in ["/me", "/me/mailFolders/inbox"] {
        let refused = rig.graph(&token, path).await;
        assert_eq!((refused.status, refused.graph_code().as_str()), (400, "BadRequest"));
    }
    rig.graph(&token, &inbox).await.good();
}

#[tokio::test]
async fn exchange_tokens_open_mailboxes_by_imap() {
    let imap = "https://outlook.office.com/IMAP.AccessAsUser.All";
    let rig = Rig::with(|app| {
        app.secret("right")
            .redirect_uri(CALLBACK)
            .delegated_permissions([imap, "https://graph.microsoft.com/IMAP.AccessAsUser.All"])
            .permissions(["IMAP.AccessAsApp", "Mail.ReadWrite"])
            .imap_mailboxes(["gedeeld@contoso.nl"])
    })
    .await;
    let shared = rig.fake.mailbox("gedeeld@contoso.nl").shared().create();
    let sign_in = async |scope: &str| {
        let callback = rig.fake.sign_in_as(&rig.link().with("scope", scope).url(), &rig.user).await;
        rig.redeem(&code(&callback), &[]).await.good()["access_token"].as_str().unwrap().to_owned()
    };
    let token = sign_in(imap).await;
    assert_eq!(rig.fake.imap_login(&token, "facturen@contoso.nl"), ImapAnswer::Accepted);
    assert_eq!(rig.fake.imap_login(&token, "gedeeld@contoso.nl"), ImapAnswer::NotConnected);
    assert_eq!(rig.fake.imap_login(&token, "niemand@contoso.nl"), ImapAnswer::NotConnected);
    shared.set_full_access("facturen@contoso.nl", true);
    assert_eq!(rig.fake.imap_login(&token, "gedeeld@contoso.nl"), ImapAnswer::Accepted);
    for refused in [sign_in("https://graph.microsoft.com/IMAP.AccessAsUser.All").await, "nonsense".into()] {
        assert!(matches!(rig.fake.imap_login(&refused, "facturen@contoso.nl"), ImapAnswer::Refused(_)));
    }
    // Graph refuses the other's audience too.
    assert_eq!(rig.graph(&json!({"access_token": token}), "/me").await.status, 401);

    let app_token = async |scope: &str| {
        rig.app_token("contoso.nl", &rig.app.client_id(), scope).await.good()["access_token"].clone()
    };
    let app = app_token("https://outlook.office365.com/.default").await;
    assert_eq!(claims(&app)["roles"], json!(["IMAP.AccessAsApp"]), "only Exchange's permissions");
    let app = app.as_str().unwrap();
    assert_eq!(rig.fake.imap_login(app, "gedeeld@contoso.nl"), ImapAnswer::Accepted);
    assert_eq!(rig.fake.imap_login(app, "facturen@contoso.nl"), ImapAnswer::NotConnected);
    let graph = app_token(DEFAULT).await;
    assert!(matches!(rig.fake.imap_login(graph.as_str().unwrap(), "gedeeld@contoso.nl"), ImapAnswer::Refused(_)));

    // What Dovecot asks.
    let ask = async |path: &str, token: &str| rig.post(path, &[("token", token)]).await.good();
    let own = ask("introspect", &token).await;
    assert_eq!((&own["active"], &own["email"]), (&json!(true), &json!("facturen@contoso.nl")));
    assert_eq!(ask("introspect/gedeeld@contoso.nl", app).await["username"], "gedeeld@contoso.nl");
    assert_eq!(ask("introspect", "nonsense").await["active"], false);
    shared.set_full_access("facturen@contoso.nl", false);
    assert_eq!(ask("introspect/gedeeld@contoso.nl", &token).await["email"], "facturen@contoso.nl");
    let url = format!("{}/introspect?token={token}", rig.fake.login_url());
    assert_eq!(answer(rig.http.get(url)).await.good()["active"], true);
    rig.fake.advance(Duration::from_secs(3700));
    assert_eq!(ask("introspect", &token).await["active"], false);
}

#[tokio::test]
async fn people_of_another_tenant() {
    let rig = Rig::with(|app| {
        app.secret("right").redirect_uri(CALLBACK).multi_tenant().requested_permissions(["Mail.ReadWrite"])
    })
    .await;
    let fabrikam = rig.fake.add_tenant("fabrikam.nl");
    let there = rig.fake.mailbox("inkoop@fabrikam.nl").in_tenant("fabrikam.nl").create();
    let admin = rig.fake.mailbox("baas@fabrikam.nl").in_tenant(&fabrikam).admin().create();

    // At the first tenant's address there is no such person.
    let refused = fields(&rig.fake.sign_in_as(&rig.link().url(), &there).await);
    assert!(refused["error_description"].starts_with("AADSTS50020: "), "{refused:?}");
    for tenant in ["common", "organizations", "fabrikam.nl"] {
        let link = rig.link().tenant(&rig.fake, tenant).url();
        let callback = rig.fake.sign_in_as(&link, &there).await;
        // Redeemed at the first tenant it is worth nothing.
        rig.redeem(&code(&callback), &[]).await.refused(400, "invalid_grant", 70000);
        let client_id = rig.app.client_id();
        let found = code(&callback);
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", client_id.as_str()),
            ("client_secret", "right"),
            ("code", &found),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ];
        let answer = rig.post(&format!("{tenant}/oauth2/v2.0/token"), &form).await.good();
        assert_eq!(claims(&answer["id_token"])["tid"], fabrikam);
        rig.graph(&answer, "/me").await.good();
        assert_eq!(rig.graph(&answer, "/users/facturen@contoso.nl/messages").await.graph_code(), "ErrorInvalidUser");
    }
    // A live session from elsewhere is picked, and refused.
    let mut browser = rig.fake.browser();
    browser.sign_in(&rig.link().tenant(&rig.fake, "organizations").url(), &there).await;
    let refused = fields(&browser.sign_in(&rig.link().url(), &there).await);
    assert!(refused["error_description"].starts_with("AADSTS16000: "), "{refused:?}");

    // The application itself comes there by an administrator's consent.
    let app_token = async || rig.app_token("fabrikam.nl", &rig.app.client_id(), DEFAULT).await;
    app_token().await.refused(400, "unauthorized_client", 700016);
    let link = rig.consent_link("organizations/v2.0/adminconsent", Some(DEFAULT));
    assert_eq!(fields(&rig.fake.sign_in_as(&link, &admin).await)["tenant"], fabrikam);
    let answer = app_token().await.good();
    assert_eq!(claims(&answer["access_token"])["roles"], json!(["Mail.ReadWrite"]));
    rig.graph(&answer, "/users/inkoop@fabrikam.nl/mailFolders/inbox").await.good();
    assert_eq!(rig.graph(&answer, "/users/facturen@contoso.nl/messages").await.graph_code(), "ErrorInvalidUser");
}

#[tokio::test]
async fn a_capable_client_is_challenged_when_sessions_are_revoked() {
    let rig = Rig::new().await;
    let capable = r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#;
    let plain = rig.signed_in().await;
    let link = rig.link().with("claims", capable).url();
    let code = code(&rig.fake.sign_in_as(&link, &rig.user).await);
    let answer = rig.redeem(&code, &[("claims", Some(capable))]).await.good();
    rig.graph(&answer, "/me").await.good();
    rig.user.sign_out_everywhere();
    rig.graph(&plain, "/me").await.good();
    let url = format!("{}/v1.0/me", rig.fake.graph_url());
    let refused = rig.http.get(url).bearer_auth(answer["access_token"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert!(refused.headers()["www-authenticate"].to_str().unwrap().contains("error=\"insufficient_claims\""));
    rig.graph(&rig.signed_in().await, "/me").await.good();
}
