//! A real browser clicks through the fake's sign-in.

#![cfg(all(feature = "testing", feature = "graph"))]

#[path = "support/browser.rs"]
mod browser;

use browser::Browser;
use mail_account::testing::graph::{App, GraphFake, Mailbox, Route};

/// A page of the host that people come back to: the fake's own, so that no other server is needed.
async fn host(fake: &GraphFake) -> String {
    format!("{}/callback", fake.login_url().replace("127.0.0.1", "localhost"))
}

fn link(fake: &GraphFake, app: &App, redirect: &str, change: &[(&str, &str)]) -> String {
    let base = format!("{}/{}/oauth2/v2.0/authorize", fake.login_url(), fake.tenant());
    let client_id = app.client_id();
    let mut parameters = vec![
        ("client_id", client_id.as_str()),
        ("response_type", "code"),
        ("redirect_uri", redirect),
        ("scope", "openid offline_access Mail.ReadWrite User.Read"),
        ("state", "s1"),
        ("prompt", "select_account"),
        ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        ("code_challenge_method", "S256"),
    ];
    parameters.retain(|(name, _)| !change.iter().any(|(changed, _)| changed == name));
    parameters.extend(change.iter().filter(|(_, value)| !value.is_empty()));
    url::Url::parse_with_params(&base, parameters).unwrap().to_string()
}

/// Waits until the browser is back at the host, and tells with what.
async fn back(browser: &Browser, redirect: &str) -> String {
    browser.wait_for("the way back", async |browser| browser.url().await.starts_with(redirect)).await;
    browser.url().await
}

#[tokio::test]
async fn account_list_wrong_account_and_consent_in_a_browser() {
    let fake = GraphFake::start().await;
    let app = fake
        .app("Invoices")
        .redirect_uri("http://localhost/callback")
        .delegated_permissions(["Mail.ReadWrite", "User.Read"])
        .create();
    let people: Vec<Mailbox> =
        ["facturen@contoso.nl", "beheer@contoso.nl"].iter().map(|address| fake.mailbox(address).create()).collect();
    let (user, other) = (&people[0], &people[1]);
    let redirect = host(&fake).await;
    let browser = Browser::start().await;

    // Nobody was here before: the hint fills the name in, and binds nobody to it.
    browser.open(&link(&fake, &app, &redirect, &[("login_hint", user.address())])).await;
    browser.wait_for_page("username").await;
    assert_eq!(browser.filled("input[name=username]").await, user.address());
    browser.fill("input[name=username]", "niemand@contoso.nl").await;
    browser.click("button[name=next]").await;
    browser.wait_for("the refusal of an unknown name", async |b| b.has("[data-code='50034']").await).await;
    browser.sign_in_other(other.address(), "wrong").await;
    browser.wait_for("the refusal of a password", async |b| b.has("[data-code='50126']").await).await;
    browser.fill("input[name=password]", &other.password()).await;
    browser.click("button[name=next]").await;

    // Consent is declined, and then given.
    browser.wait_for_page("consent").await;
    assert!(browser.text().await.contains("Mail.ReadWrite"));
    browser.click("button[name=consent][value=cancel]").await;
    assert!(back(&browser, &redirect).await.contains("error=access%5Fdenied"));
    browser.open(&link(&fake, &app, &redirect, &[])).await;
    browser.pick(other.address()).await;
    browser.click("button[name=consent][value=accept]").await;
    assert!(back(&browser, &redirect).await.contains("?code="));

    // Without a prompt the wrong one would go on unasked; with the list someone else signs in.
    browser.open(&link(&fake, &app, &redirect, &[("prompt", ""), ("login_hint", user.address())])).await;
    assert!(back(&browser, &redirect).await.contains("?code="));
    browser.open(&link(&fake, &app, &redirect, &[("login_hint", user.address())])).await;
    browser.wait_for_page("accounts").await;
    assert!(browser.text().await.contains(other.address()) && !browser.text().await.contains(user.address()));
    browser.sign_in_other(user.address(), &user.password()).await;
    browser.click("button[name=consent][value=accept]").await;
    assert!(back(&browser, &redirect).await.contains("?code="));
    // Both are in the list from now on; a session that ended asks for the password.
    user.sign_out_everywhere();
    browser.open(&link(&fake, &app, &redirect, &[])).await;
    browser.pick(user.address()).await;
    browser.wait_for_page("password").await;
    browser.fill("input[name=password]", &user.password()).await;
    browser.click("button[name=next]").await;
    assert!(back(&browser, &redirect).await.contains("?code="));

    // What the tenant forbids is shown, and told to the application.
    user.refuse_sign_in(53003);
    browser.open(&link(&fake, &app, &redirect, &[])).await;
    browser.pick(user.address()).await;
    browser.wait_for_page("blocked").await;
    browser.click("button[name=return]").await;
    assert!(back(&browser, &redirect).await.contains("AADSTS53003"));
    user.refuse_sign_in(None);

    // The answer by form.
    browser.open(&link(&fake, &app, &redirect, &[("response_mode", "form_post")])).await;
    browser.pick(user.address()).await;
    assert_eq!(back(&browser, &redirect).await, redirect);
    assert!(fake.counters().of(Route::SignInPage) > 10);
}
