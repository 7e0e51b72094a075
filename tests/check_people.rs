//! Test Connection on accounts for which a person signs in: what only such accounts can meet.
#![cfg(all(feature = "testing", feature = "graph", feature = "sqlite"))]

#[path = "support/consent.rs"]
mod consent;

use consent::{INVOICES, SECRET, Site};
use mail_account::{
    Language,
    check::{Cause, Report, StepId, StepStatus},
    testing::graph::{Fault, Mailbox, Route},
};

const WEB: &str = "https://host.example/callback";
const JOB: &str =
    "\n[jobs.facturen]\naccounts = [\"invoices\"]\nimport_folder = \"Inbox\"\nprocessed_folder = \"Inbox/Processed\"\n";

/// A tenant whose mailbox holds one message, and a host that somebody has not signed in to yet.
async fn site(accounts: &str) -> Site {
    let mut site = Site::with(|app| app.secret(SECRET).redirect_uri(WEB)).await;
    site.registration = format!("client_secret = \"{SECRET}\"\nredirect_uri = \"{WEB}\"\n");
    site.accounts = format!("{accounts}{JOB}");
    site.user.deliver("Inbox", "Message-ID: <1@x>\r\nFrom: a@b.example\r\nSubject: One\r\n\r\nHello\r\n");
    site.user.create_folder("Inbox/Processed");
    site
}

async fn sign_in(site: &Site, user: &Mailbox) {
    let host = site.host();
    let hand_over = host.begin_sign_in("invoices", None).await.unwrap_or_else(|e| panic!("{}", e.chain()));
    let callback = site.fake.browser().sign_in(hand_over.link.as_str(), user).await;
    let outcome = host.complete_sign_in(&callback).await.unwrap();
    assert!(outcome.is_ok(), "{outcome:?}");
}

async fn check(site: &Site) -> Report {
    site.host().check("invoices", Some("facturen")).await.unwrap()
}

fn found(report: &Report) -> Vec<(StepId, Cause)> {
    let failed = report.steps.iter().filter(|step| step.status == StepStatus::Failed);
    failed.map(|step| (step.step, step.cause.unwrap())).collect()
}

#[tokio::test]
async fn a_person_signs_in_and_the_check_follows() {
    let site = site(INVOICES).await;
    let before = check(&site).await;
    assert_eq!(found(&before), [(StepId::SignIn, Cause::SignInNeeded)]);
    let message = before.steps[2].message(Language::Dutch);
    assert!(message.contains("Meld u opnieuw aan voor `facturen@contoso.nl`"), "{message}");

    sign_in(&site, &site.user).await;
    let after = check(&site).await;
    assert!(after.ok(), "{after:?}");
    let permissions = after.steps.last().unwrap();
    assert_eq!(permissions.status, StepStatus::Ok, "{permissions:?}");

    // What the service says when the stored sign-in is used.
    let refusals = [
        ("interaction_required", 50076, Cause::MfaRequired),
        ("invalid_grant", 53003, Cause::ConditionalAccess),
        ("invalid_grant", 50173, Cause::SignInNeeded),
    ];
    for (error, code, cause) in refusals {
        sign_in(&site, &site.user).await;
        let fault = site.fake.fault(Fault::entra(400, error, code, "Refused.").on(Route::Token));
        assert_eq!(found(&check(&site).await), [(StepId::SignIn, cause)], "{code}");
        fault.remove();
    }
}

#[tokio::test]
async fn rights_on_a_shared_mailbox_that_are_taken_back_are_missed() {
    let accounts = format!("{INVOICES}principal = \"beheer@contoso.nl\"\n");
    let site = site(&accounts).await;
    let admin = site.fake.mailbox("beheer@contoso.nl").create();
    site.user.set_full_access("beheer@contoso.nl", true);
    sign_in(&site, &admin).await;
    let report = check(&site).await;
    assert!(report.ok(), "{report:?}");
    site.user.set_full_access("beheer@contoso.nl", false);
    let report = check(&site).await;
    assert_eq!(found(&report), [(StepId::Mailbox, Cause::SharedRightsMissing)], "{report:?}");
}
