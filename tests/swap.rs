//! The rehearsal of a swap: it names the differences that are there, no others, and only reads.

use std::sync::Arc;

use jiff::Timestamp;
use mail_account::{
    Access, Delivery, ErrorKind, ImportJob, Importer, Language, Ledger, MailAccount, Outcome, handler_fn,
    provider::memory::{MemoryAccount, MemoryMailbox, MemoryOptions, Operation},
    swap::{DifferenceKind, Limits, Rehearsal, Severity, UnprovenKind, rehearse, rehearse_with},
    testing::{Mail, MemoryLedger, mail},
};

const BASE: i64 = 1_790_000_000;

fn at(n: i64) -> Timestamp {
    Timestamp::from_second(BASE + n * 60).unwrap()
}

fn numbered(n: i64) -> Mail {
    let mail = mail().with_subject(format!("Factuur {n}")).with_date(at(n)).with_received(at(n));
    let mail = match n % 5 {
        // A scanner: no Message-ID; and one that uses the same again and again.
        0 => mail.with_message_id(None),
        1 => mail.with_message_id("<scan@printer.example>"),
        _ => mail.with_message_id(format!("<{n}@supplier.example>").as_str()),
    };
    // Text only, or files.
    if n % 7 == 3 { mail } else { mail.with_attachment(format!("factuur {n}.pdf"), format!("inhoud {n}\r\n")) }
}

fn put(mailbox: &MemoryMailbox, folder: &str, mail: &Mail) {
    mailbox.deliver(folder, mail.build(), mail.received()).unwrap();
}

/// Half of the mail imported already.
fn filled(name: &str) -> MemoryMailbox {
    let mailbox = MemoryMailbox::new(name).with_call_log();
    for n in 0..20 {
        put(&mailbox, if n < 10 { "Inbox/Processed" } else { "Inbox" }, &numbered(n));
    }
    mailbox.create_folder("Inbox/Failed").unwrap();
    mailbox
}

fn job() -> ImportJob {
    ImportJob::new("invoices", "Inbox".parse().unwrap())
        .with_processed_folder("Inbox/Processed".parse().unwrap())
        .with_failed_folder("Inbox/Failed".parse().unwrap())
}

fn old(mailbox: &MemoryMailbox) -> MemoryAccount {
    MemoryAccount::open("basic", mailbox, MemoryOptions::default())
}

fn new(mailbox: &MemoryMailbox) -> MemoryAccount {
    MemoryAccount::open("graph", mailbox, MemoryOptions::default().with_stable_ids(true).with_move_batch(20))
}

/// Fails when an account was asked to change anything.
fn only_read(mailboxes: &[&MemoryMailbox]) {
    use Operation::{CreateFolder, MarkRead, Move, MoveMessage};
    for mailbox in mailboxes {
        let calls = mailbox.calls();
        assert!(!calls.is_empty(), "the log shows nothing, so it proves nothing");
        let writes: Vec<_> =
            calls.iter().filter(|c| matches!(c.operation, CreateFolder | MarkRead | Move | MoveMessage)).collect();
        assert!(writes.is_empty(), "{writes:?}");
    }
}

/// What was found, once it is sure that all of it is told in Dutch too.
fn kinds(rehearsal: &Rehearsal) -> Vec<(Severity, DifferenceKind)> {
    // What an account meets is quoted.
    let quoted = [DifferenceKind::OldAccountError, DifferenceKind::NewAccountError];
    for difference in rehearsal.differences.iter().filter(|d| !quoted.contains(&d.kind)) {
        assert_ne!(difference.detail, difference.detail_in(Language::Dutch));
    }
    for unproven in &rehearsal.unproven {
        assert_ne!(unproven.detail, unproven.detail_in(Language::Dutch));
    }
    rehearsal
        .differences
        .iter()
        .map(|d| (d.severity, d.kind))
        .filter(|(_, k)| *k != DifferenceKind::StableIds)
        .collect()
}

async fn between(a: &MemoryMailbox, b: &MemoryMailbox) -> Rehearsal {
    let ledger = MemoryLedger::new();
    let rehearsal = rehearse(&old(a), &new(b), &job(), Some(&ledger)).await.unwrap();
    only_read(&[a, b]);
    rehearsal
}

use DifferenceKind::{
    ContentDiffers, FileNameDiffers, FolderMissing, FolderReadOnly, MailboxName, MessageExtra, MessageIdAdded,
    MessageMissing, OldAccountError, OtherMailbox, SentDiffers, SubjectDiffers,
};
use Severity::{Blocking, Conversion, Info};

#[tokio::test]
async fn the_same_mailbox_is_safe() {
    let mailbox = filled("facturen@contoso.nl");
    let rehearsal = between(&mailbox, &mailbox).await;
    assert!(rehearsal.safe());
    assert_eq!(kinds(&rehearsal), []);
    assert_eq!(rehearsal.unproven, []);
    assert_eq!(rehearsal.new.first.len(), 10);
    assert_eq!(rehearsal.new.first[0].subject.as_deref(), Some("Factuur 10"));
    let folder = &rehearsal.new.folders[1];
    assert_eq!(
        (folder.key, folder.messages, folder.with_attachments_compared),
        ("processed_folder", Some(10), Some(10))
    );
}

#[tokio::test]
async fn a_message_that_is_missing_is_named() {
    let (a, b) = (filled("f@contoso.nl"), filled("f@contoso.nl"));
    b.delete(b.ids("Inbox").unwrap()[2]);
    let rehearsal = between(&a, &b).await;
    assert!(!rehearsal.safe());
    assert_eq!(kinds(&rehearsal), [(Blocking, MessageMissing)]);
    let detail = &rehearsal.differences.last().unwrap().detail;
    assert!(rehearsal.differences.iter().any(|d| d.detail.contains("\"Factuur 12\"")), "{detail}");
    let dutch = rehearsal.differences.iter().map(|d| d.detail_in(Language::Dutch)).collect::<Vec<_>>();
    assert!(dutch.iter().any(|d| d.contains("\"Factuur 12\" ontvangen ")), "{dutch:?}");
    // Seen from the other side.
    let rehearsal = between(&b, &a).await;
    assert_eq!(kinds(&rehearsal), [(Blocking, MessageExtra)]);
}

#[tokio::test]
async fn one_scan_less_under_a_message_id_that_is_used_again_is_named() {
    let (a, b) = (filled("f@contoso.nl"), filled("f@contoso.nl"));
    // Factuur 11 and 16 share theirs.
    b.delete(b.ids("Inbox").unwrap()[1]);
    let rehearsal = between(&a, &b).await;
    assert_eq!(kinds(&rehearsal), [(Blocking, MessageMissing)]);
    assert!(rehearsal.differences.iter().any(|d| d.detail.contains("\"Factuur 11\"")), "{rehearsal:?}");
}

#[tokio::test]
async fn other_bytes_are_named() {
    let (a, b) = (filled("f@contoso.nl"), filled("f@contoso.nl"));
    b.delete(b.ids("Inbox/Processed").unwrap()[7]);
    let changed = mail()
        .with_subject("Factuur 7")
        .with_date(at(7))
        .with_received(at(7))
        .with_message_id("<7@supplier.example>")
        .with_attachment("factuur 7.pdf", "andere inhoud");
    put(&b, "Inbox/Processed", &changed);
    let rehearsal = between(&a, &b).await;
    assert_eq!(kinds(&rehearsal), [(Blocking, ContentDiffers)]);
    assert!(rehearsal.differences.iter().any(|d| d.detail.contains("\"Factuur 7\"")), "{rehearsal:?}");
}

#[tokio::test]
async fn what_services_rewrite_is_a_conversion() {
    let (a, b) =
        (MemoryMailbox::new("f@contoso.nl").with_call_log(), MemoryMailbox::new("f@contoso.nl").with_call_log());
    for mailbox in [&a, &b] {
        mailbox.create_folder("Inbox/Processed").unwrap();
        mailbox.create_folder("Inbox/Failed").unwrap();
    }
    let plain = || mail().with_date(at(1)).with_received(at(1)).with_message_id(None);
    put(&a, "Inbox", &plain().with_subject("A").with_attachment("a.pdf", "a\n"));
    put(&b, "Inbox", &plain().with_subject("A").with_attachment("a.pdf", "a\r\n").with_message_id("<made-up@x.nl>"));
    put(&a, "Inbox", &plain().with_subject("B").with_attachment("b.pdf", "b").with_message_id("<b@x.nl>"));
    put(&b, "Inbox", &plain().with_subject("B").with_attachment("B2.pdf", "b").with_message_id("<b@x.nl>"));
    put(&a, "Inbox", &plain().with_subject("C").with_attachment("c.pdf", "c").with_message_id("<c@x.nl>"));
    put(
        &b,
        "Inbox",
        &plain().with_subject("C!").with_attachment("c.pdf", "c").with_message_id("<c@x.nl>").with_date(at(2)),
    );
    let rehearsal = between(&a, &b).await;
    assert!(rehearsal.safe(), "{rehearsal:#?}");
    let mut found = kinds(&rehearsal);
    found.sort_by_key(|(_, kind)| kind.as_str());
    let expected = [FileNameDiffers, MessageIdAdded, SentDiffers, SubjectDiffers];
    assert_eq!(found, expected.map(|kind| (Conversion, kind)));
}

#[tokio::test]
async fn a_winmail_dat_that_one_account_opens_is_a_conversion_if_all_else_agrees() {
    let built = |subject: &str, files: &[(&str, &str, &str)]| {
        let mail = mail().with_date(at(1)).with_received(at(1)).with_message_id("<t@x.nl>").with_subject(subject);
        files.iter().fold(mail, |mail, (name, kind, bytes)| {
            mail.with_file(Some((*name).to_owned()), *kind, (*bytes).to_owned())
        })
    };
    let closed = [("winmail.dat", "application/ms-tnef", "sealed")];
    let open = [("f.pdf", "application/pdf", "factuur")];
    let beside = [closed[0], ("g.pdf", "application/pdf", "bijlage")];
    for (one, other, expected) in [
        (built("A", &closed), built("A", &open), (Conversion, DifferenceKind::ItemsDiffer)),
        (built("A", &closed), built("B", &open), (Blocking, ContentDiffers)),
        (built("A", &[]), built("A", &open), (Blocking, ContentDiffers)),
        // Whether the rest is the same cannot be told from the sum of all.
        (built("A", &beside), built("A", &open), (Blocking, ContentDiffers)),
    ] {
        for (one, other) in [(&one, &other), (&other, &one)] {
            let (a, b) = (filled("f@contoso.nl"), filled("f@contoso.nl"));
            put(&a, "Inbox", one);
            put(&b, "Inbox", other);
            assert_eq!(kinds(&between(&a, &b).await), [expected]);
        }
    }
}

#[tokio::test]
async fn folders_that_are_missing_or_read_only_are_named() {
    let (a, b) = (filled("f@contoso.nl"), filled("f@contoso.nl"));
    b.delete_folder("Inbox/Failed").unwrap();
    let rehearsal = between(&a, &b).await;
    assert_eq!(kinds(&rehearsal), [(Blocking, FolderMissing)]);
    // Not blocking where the job may make it, and not proven either.
    let rehearsal = rehearse(&old(&a), &new(&b), &job().with_create_folders(true), None).await.unwrap();
    assert!(rehearsal.safe());
    assert!(rehearsal.unproven.iter().any(|u| u.kind == UnprovenKind::CreateFolder));
    only_read(&[&a, &b]);

    let b = filled("f@contoso.nl");
    b.set_access("Inbox/Processed", Access::ReadOnly).unwrap();
    assert_eq!(kinds(&between(&a, &b).await), [(Blocking, FolderReadOnly)]);
}

#[tokio::test]
async fn another_mailbox_is_named_as_such() {
    let a = filled("f@contoso.nl");
    let b = MemoryMailbox::new("f@contoso.nl").with_call_log();
    for n in 100..105 {
        put(&b, "Inbox", &numbered(n).with_message_id(format!("<{n}@elsewhere.example>").as_str()));
    }
    b.create_folder("Inbox/Processed").unwrap();
    b.create_folder("Inbox/Failed").unwrap();
    assert_eq!(kinds(&between(&a, &b).await), [(Blocking, OtherMailbox)]);
}

#[tokio::test]
async fn an_account_that_fails_is_named_and_the_other_is_looked_at() {
    let (a, b) = (filled("f@contoso.nl"), filled("f@contoso.nl"));
    a.outage(ErrorKind::Unauthenticated);
    let rehearsal = between(&a, &b).await;
    assert_eq!(kinds(&rehearsal), [(Blocking, OldAccountError)]);
    assert_eq!(rehearsal.new.folders.len(), 3);
}

#[tokio::test]
async fn a_large_folder_is_compared_in_part_and_says_so() {
    let (a, b) = (filled("f@contoso.nl"), filled("f@contoso.nl"));
    let ledger = MemoryLedger::new();
    let limits = Limits::default().with_newest(2);
    let rehearsal = rehearse_with(&old(&a), &new(&b), &job(), Some(&ledger), limits).await.unwrap();
    assert!(rehearsal.safe());
    assert!(rehearsal.unproven.iter().any(|u| u.kind == UnprovenKind::Attachments), "{:?}", rehearsal.unproven);
    only_read(&[&a, &b]);
}

/// A job that has run under the old account.
async fn imported(mailbox: &MemoryMailbox) -> Arc<dyn Ledger> {
    let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::new());
    let account: Arc<dyn MailAccount> = Arc::new(old(mailbox));
    let importer = Importer::new(job(), [account], Arc::clone(&ledger)).with_limit(4);
    let report = importer.run(handler_fn(|_: Delivery| async { Ok(Outcome::Imported) })).await.unwrap();
    assert_eq!(report.accounts[0].counts.imported, 4);
    ledger
}

#[tokio::test]
async fn a_mailbox_that_is_named_differently_stops_with_the_key_to_set() {
    let mailbox = filled("f@contoso.nl");
    let ledger = imported(&mailbox).await;
    let other = MemoryAccount::open("graph", &mailbox, MemoryOptions::default().with_address("3f2b-object-id"));
    let error = rehearse(&old(&mailbox), &other, &job(), Some(&*ledger)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.message().contains("set `address = \"f@contoso.nl\"` in account `graph`"), "{error}");
    let fresh = MemoryLedger::new();
    let rehearsal = rehearse(&old(&mailbox), &other, &job(), Some(&fresh)).await.unwrap();
    assert_eq!(kinds(&rehearsal), [(Info, MailboxName)]);
}

#[tokio::test]
async fn what_comes_first_leaves_out_what_was_imported() {
    let mailbox = filled("f@contoso.nl");
    let ledger = imported(&mailbox).await;
    // One of them comes back, as its copy would through another account.
    let copied = numbered(12);
    put(&mailbox, "Inbox", &copied);
    let rehearsal = rehearse(&old(&mailbox), &new(&mailbox), &job(), Some(&*ledger)).await.unwrap();
    assert!(rehearsal.safe(), "{:#?}", rehearsal.differences);
    let first: Vec<_> = rehearsal.new.first.iter().filter_map(|m| m.subject.as_deref()).collect();
    assert_eq!(first, ["Factuur 14", "Factuur 15", "Factuur 16", "Factuur 17", "Factuur 18", "Factuur 19"]);
}
