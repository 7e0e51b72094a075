//! Authorize in a real browser: the person clicks, the program on this machine takes the answer and says what came of it.

#![cfg(all(feature = "testing", feature = "graph", feature = "sqlite"))]

#[path = "support/browser.rs"]
mod browser;
#[path = "support/consent.rs"]
mod consent;

use browser::Browser;
use consent::Site;
use mail_account::{
    Delivery, MailApp, Outcome,
    auth::{HandOver, SignInOutcome},
    handler_fn,
    testing::graph::Mailbox,
};

/// Begins a sign-in on this machine; the person does something in the browser; what the page says in the end.
async fn hand_over(
    host: &MailApp,
    browser: &Browser,
    account: &str,
    person: impl AsyncFnOnce(&HandOver),
) -> (SignInOutcome, String) {
    let here = host.sign_in_here(account).await.unwrap_or_else(|e| panic!("{}", e.chain()));
    let begun = here.hand_over().clone();
    let watch = async {
        browser.open(begun.link.as_str()).await;
        person(&begun).await;
        browser
            .wait_for("the program's own page", async |b| {
                b.url().await.starts_with(&begun.redirect_uri) && b.text().await.contains("You can close this page")
            })
            .await;
        browser.text().await
    };
    let (outcome, page) = tokio::join!(here.finish(), watch);
    (outcome.unwrap(), page)
}

/// A case that vendors warn of: five mailboxes after one another in one browser profile, with somebody else's live session
/// each time. No private window is needed, and a wrong pick does no harm.
#[tokio::test]
async fn five_mailboxes_in_one_browser_profile() {
    let mut site = Site::with(|app| app.secret(consent::SECRET).redirect_uri("http://localhost").consented()).await;
    let names = ["een", "twee", "drie", "vier", "vijf"].map(|name| format!("{name}@contoso.nl"));
    let boxes: Vec<Mailbox> = names.iter().map(|name| site.fake.mailbox(name).create()).collect();
    site.accounts = names
        .iter()
        .map(|name| {
            format!("[accounts.\"{name}\"]\nprovider = \"graph\"\nregistration = \"contoso\"\nauth = \"delegated\"\nmailbox = \"{name}\"\n")
        })
        .collect();
    site.accounts.push_str("[jobs.j]\naccounts = [\"vijf@contoso.nl\"]\nimport_folder = \"Inbox\"\n");
    let host = site.host();
    let browser = Browser::start().await;
    for (at, (name, mailbox)) in names.iter().zip(&boxes).enumerate() {
        if let Some(before) = at.checked_sub(1).map(|before| &boxes[before]) {
            let (outcome, page) =
                hand_over(&host, &browser, name, async |_| browser.pick(before.address()).await).await;
            assert!(matches!(outcome, SignInOutcome::WrongIdentity { .. }), "{outcome:?}");
            for says in ["Not signed in", "Niet aangemeld", "Nothing was stored", before.address(), name] {
                assert!(page.contains(says), "`{says}` is missing in: {page}");
            }
            assert!(site.stored(&host, name).await.is_none());
        }
        let (outcome, page) = hand_over(&host, &browser, name, async |_| match at {
            0 => {
                browser.wait_for_page("username").await;
                assert_eq!(browser.filled("input[name=username]").await, *name, "the hint");
                browser.click("button[name=next]").await;
                browser.wait_for_page("password").await;
                browser.fill("input[name=password]", &mailbox.password()).await;
                browser.click("button[name=next]").await;
            }
            _ => {
                browser.wait_for_page("accounts").await;
                browser.sign_in_other(mailbox.address(), &mailbox.password()).await;
            }
        })
        .await;
        assert!(outcome.is_ok(), "{outcome:?}");
        for says in ["Signed in", "Aangemeld", &format!("{name} has signed in")] {
            assert!(page.contains(says), "`{says}` is missing in: {page}");
        }
        host.account(name).unwrap().list_folders().await.unwrap();
    }
    boxes[4].deliver("Inbox", "Message-ID: <1@x>\r\nFrom: a@b.example\r\nSubject: One\r\n\r\nHello\r\n");
    let importer = site.host().importer("j").await.unwrap();
    let report = importer.run(handler_fn(|_: Delivery| async { Ok(Outcome::Imported) })).await.unwrap();
    assert_eq!(report.counts().imported, 1, "{report:?}");
}
