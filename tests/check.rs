//! Test Connection on mailboxes and configurations that are right, and wrong in one way each.

use mail_account::{
    Access, ErrorKind, ImportJob, Language, MailApp,
    check::{Cause, Report, StepId, StepStatus, check},
    provider::memory::{MemoryAccount, MemoryMailbox, MemoryOptions, Operation},
    testing::mail,
};

fn mailbox() -> MemoryMailbox {
    let mailbox = MemoryMailbox::new("facturen@contoso.nl").with_call_log();
    let mail = mail();
    mailbox.deliver("Inbox", mail.build(), mail.received()).unwrap();
    mailbox.create_folder("Inbox/Processed").unwrap();
    mailbox
}

fn job() -> ImportJob {
    let processed = "Inbox/Processed".parse().unwrap();
    ImportJob::new("invoices", "Inbox".parse().unwrap()).with_processed_folder(processed)
}

async fn checked(mailbox: &MemoryMailbox, job: &ImportJob) -> Report {
    let account = MemoryAccount::open("local", mailbox, MemoryOptions::default());
    let before: Vec<_> = mailbox.contents("Inbox").unwrap().iter().map(|m| m.read).collect();
    let report = check(&account, Some(job)).await;
    use Operation::{CreateFolder, MarkRead, Move, MoveMessage};
    let writes = |o| matches!(o, CreateFolder | MarkRead | Move | MoveMessage);
    assert!(!mailbox.calls().is_empty() && mailbox.calls().iter().all(|call| !writes(call.operation)));
    assert_eq!(before, mailbox.contents("Inbox").unwrap().iter().map(|m| m.read).collect::<Vec<_>>());
    assert_eq!(report.steps.iter().map(|step| step.step).collect::<Vec<_>>(), StepId::ALL);
    report
}

fn failures(report: &Report) -> Vec<(StepId, Cause)> {
    let failed = report.steps.iter().filter(|step| step.status == StepStatus::Failed);
    failed.map(|step| (step.step, step.cause.unwrap())).collect()
}

fn status(report: &Report, id: StepId) -> StepStatus {
    report.steps.iter().find(|step| step.step == id).unwrap().status
}

#[tokio::test]
async fn a_mailbox_that_works_passes() {
    let report = checked(&mailbox(), &job()).await;
    assert!(report.ok());
    let expected = |step: StepId| match step {
        StepId::FailedFolder => StepStatus::Skipped,
        _ => StepStatus::Ok,
    };
    for step in &report.steps {
        assert_eq!(step.status, expected(step.step), "{step:?}");
    }
}

/// `create_folders` makes what a path names; there is nothing to make of a role or an id.
#[tokio::test]
async fn a_folder_that_no_run_creates_is_missing() {
    for (spec, expected) in [("New", vec![]), ("role:flagged", vec![(StepId::FailedFolder, Cause::FolderMissing)])] {
        let job = job().with_create_folders(true).with_failed_folder(spec.parse().unwrap());
        assert_eq!(failures(&checked(&mailbox(), &job).await), expected, "{spec}");
    }
}

/// An administrator reads one language at a time.
#[tokio::test]
async fn a_missing_folder_is_told_in_one_language_with_what_is_there() {
    let report = checked(&mailbox(), &job().with_processed_folder("Inbox/Procesed".parse().unwrap())).await;
    let step = report.steps.iter().find(|step| step.step == StepId::ProcessedFolder).unwrap();
    for (language, foreign) in [(Language::English, "map"), (Language::Dutch, "folder")] {
        let message = step.message(language);
        assert!(message.contains("`Inbox/Processed`") && !message.contains(foreign), "{message}");
    }
}

#[tokio::test]
async fn the_first_failure_does_not_hide_the_next() {
    let job = job().with_processed_folder("Gone".parse().unwrap()).with_failed_folder("Inbox".parse().unwrap());
    let report = checked(&mailbox(), &job).await;
    let expected = [(StepId::ProcessedFolder, Cause::FolderMissing), (StepId::FoldersDiffer, Cause::FolderSame)];
    assert_eq!(failures(&report), expected);
    assert_eq!(status(&report, StepId::Permissions), StepStatus::Ok);
}

#[tokio::test]
async fn what_only_writing_would_tell_is_unproven() {
    let mailbox = mailbox();
    mailbox.set_access("Inbox/Processed", Access::Unknown).unwrap();
    let report = checked(&mailbox, &job()).await;
    assert!(report.ok());
    assert_eq!(status(&report, StepId::ProcessedFolder), StepStatus::Unproven);
    assert_eq!(status(&report, StepId::Permissions), StepStatus::Unproven);
    let absent = job().with_failed_folder("Inbox/Failed".parse().unwrap()).with_create_folders(true);
    let report = checked(&mailbox, &absent).await;
    assert_eq!(status(&report, StepId::FailedFolder), StepStatus::Unproven);
    mailbox.set_access("Inbox/Processed", Access::ReadOnly).unwrap();
    let report = checked(&mailbox, &job()).await;
    assert_eq!(failures(&report), [(StepId::ProcessedFolder, Cause::FolderReadOnly)]);
}

#[tokio::test]
async fn an_outage_stops_at_the_step_it_belongs_to() {
    let expected = [
        (ErrorKind::Unavailable, StepId::Reach, Cause::ServiceDown),
        (ErrorKind::Unauthenticated, StepId::SignIn, Cause::SignInRefused),
        (ErrorKind::SignInNeeded, StepId::SignIn, Cause::SignInNeeded),
        (ErrorKind::MailboxGone, StepId::Mailbox, Cause::MailboxUnknown),
        (ErrorKind::PermissionDenied, StepId::Mailbox, Cause::PermissionLacking),
        (ErrorKind::Other, StepId::Mailbox, Cause::Unknown),
    ];
    for (kind, step, cause) in expected {
        let mailbox = mailbox();
        mailbox.outage(kind);
        let report = checked(&mailbox, &job()).await;
        assert_eq!(failures(&report), [(step, cause)], "{kind}");
        for other in &report.steps {
            match other.step.cmp(&step) {
                std::cmp::Ordering::Less => assert_eq!(other.status, StepStatus::Ok),
                std::cmp::Ordering::Greater => assert_eq!(other.status, StepStatus::Skipped),
                std::cmp::Ordering::Equal => assert!(other.evidence.is_some()),
            }
        }
    }
}

const DRAFT: &str = r#"
[accounts.basic]
provider = "imap"
host = "imap.contoso.example"
username = "facturen@contoso.example"

[accounts.local]
provider = "maildir"
path = "mailbox"

[jobs.invoices]
accounts = ["local"]
import_folder = "Inbox"
processed_folder = "Inbox"
"#;

#[tokio::test]
async fn a_draft_is_told_what_is_wrong_inside_it() {
    let folder = tempfile::tempdir().unwrap();
    let app = MailApp::from_str(DRAFT, folder.path()).unwrap();
    let report = app.check("basic", None).await.unwrap();
    assert_eq!(failures(&report), [(StepId::Settings, Cause::SettingsWrong)]);
    let message = report.steps[0].message(Language::Dutch);
    assert!(message.contains("`basic`") && message.contains("password"), "{message}");

    // No mailbox there yet, and none is made.
    assert!(!app.check("local", None).await.unwrap().ok());
    assert!(!folder.path().join("mailbox").exists());
    for part in ["cur", "new", "tmp"] {
        std::fs::create_dir_all(folder.path().join("mailbox").join(part)).unwrap();
    }
    let report = app.check("local", Some("invoices")).await.unwrap();
    assert_eq!(failures(&report), [(StepId::FoldersDiffer, Cause::FolderSame)]);

    for (account, job) in [("loca", None), ("local", Some("invoice"))] {
        let error = app.check(account, job).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    }
    // Nothing but the mailbox is there: no database was opened.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
