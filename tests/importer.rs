//! What the importer does with each kind of outcome, folder, account and neighbour.
#![cfg(feature = "sqlite")]

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use mail_account::{
    Access, AccountReport, Clock, Context, Delivery, ErrorKind, Event, Fate, Handler, HandlerError, ImportJob,
    Importer, JobReport, Language, Ledger, MailAccount, Outcome, Reason, Result, Since, SqlStore, Status, handler_fn,
    provider::memory::{Fault, MemoryAccount, MemoryMailbox, MemoryOptions, Operation},
    store::Find,
};
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
struct TestClock(AtomicI64);

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(SeqCst)).unwrap()
    }

    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}

const START: i64 = 1_790_000_000;

/// A mailbox, a ledger, and a clock.
struct World {
    mailbox: MemoryMailbox,
    clock: Arc<TestClock>,
    folder: tempfile::TempDir,
    store: SqlStore,
    delivered: AtomicI64,
}

/// What a handler was given: subject, attempt, delivery id.
type Log = Arc<Mutex<Vec<(String, u32, String)>>>;

struct Mail {
    subject: &'static str,
    id: Option<&'static str>,
    files: Vec<&'static str>,
    date: &'static str,
}

fn mail(subject: &'static str) -> Mail {
    Mail { subject, id: None, files: vec!["inhoud"], date: "Mon, 5 Jan 2026 10:00:00 +0100" }
}

impl Mail {
    fn id(mut self, id: &'static str) -> Self {
        self.id = Some(id);
        self
    }

    fn files(mut self, files: &[&'static str]) -> Self {
        self.files = files.to_vec();
        self
    }

    fn bytes(&self) -> String {
        let mut text = format!(
            "From: Leverancier <facturen@leverancier.example>\r\nSubject: {}\r\nDate: {}\r\n",
            self.subject, self.date
        );
        if let Some(id) = self.id {
            text.push_str(&format!("Message-ID: <{id}>\r\n"));
        }
        text.push_str("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nBijgaand.\r\n");
        for (n, file) in self.files.iter().enumerate() {
            text.push_str(&format!(
                "--b\r\nContent-Type: application/xml\r\nContent-Disposition: attachment; filename={n}.xml\r\n\r\n{file}\r\n"
            ));
        }
        text.push_str("--b--\r\n");
        text
    }
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(TestClock(AtomicI64::new(START + 86_400)));
        let folder = tempfile::tempdir().unwrap();
        let context = Context::default().with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let store = SqlStore::open(folder.path().join("state.db")).await.unwrap().with_context(context);
        let mailbox = MemoryMailbox::new("import@contoso.example");
        Self { mailbox, clock, folder, store, delivered: AtomicI64::new(0) }
    }

    async fn with(mails: &[Mail]) -> Self {
        let world = Self::new().await;
        for mail in mails {
            world.deliver(mail);
        }
        world
    }

    fn deliver(&self, mail: &Mail) {
        let received = Timestamp::from_second(START + self.delivered.fetch_add(1, SeqCst)).unwrap();
        self.mailbox.deliver("Inbox", mail.bytes(), received).unwrap();
    }

    fn job() -> ImportJob {
        Self::reading().with_processed_folder("Inbox/Processed".parse().unwrap()).with_create_folders(true)
    }

    fn job_with_failed() -> ImportJob {
        Self::job().with_failed_folder("Inbox/Failed".parse().unwrap())
    }

    /// A job that moves nothing.
    fn reading() -> ImportJob {
        ImportJob::new("facturen", "Inbox".parse().unwrap()).with_handler_concurrency(1)
    }

    fn account(&self, name: &str) -> Arc<dyn MailAccount> {
        Arc::new(MemoryAccount::open(name, &self.mailbox, MemoryOptions::default()))
    }

    fn importer(&self, job: ImportJob) -> Importer {
        self.importer_as("memory", job)
    }

    fn importer_as(&self, account: &str, job: ImportJob) -> Importer {
        let context = Context::default().with_clock(Arc::clone(&self.clock) as Arc<dyn Clock>);
        Importer::new(job, [self.account(account)], Arc::new(self.store.clone())).with_context(context)
    }

    async fn run(&self, job: ImportJob, handler: impl Handler) -> AccountReport {
        only(self.importer(job).run(handler).await)
    }

    async fn run_as(&self, account: &str, job: ImportJob, handler: impl Handler) -> AccountReport {
        only(self.importer_as(account, job).run(handler).await)
    }

    fn pass(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds, SeqCst);
    }

    fn subjects(&self, folder: &str) -> Vec<String> {
        let Ok(mails) = self.mailbox.contents(folder) else { return Vec::new() };
        mails
            .iter()
            .map(|mail| {
                let text = String::from_utf8_lossy(&mail.raw).into_owned();
                text.lines().find_map(|l| l.strip_prefix("Subject: ")).unwrap_or_default().to_owned()
            })
            .collect()
    }
}

fn only(report: Result<JobReport>) -> AccountReport {
    let mut report = report.expect("the ledger can be read");
    assert_eq!(report.accounts.len(), 1);
    let account = report.accounts.remove(0);
    assert!(account.counts.closes(), "{:?}", account.counts);
    account
}

/// A handler that reads everything, writes down what it was given, and answers as told.
fn answering(
    log: &Log,
    answer: impl Fn(&Delivery) -> Result<Outcome, HandlerError> + Send + Sync + 'static,
) -> impl Handler {
    let log = Arc::clone(log);
    let answer = Arc::new(answer);
    handler_fn(move |mail: Delivery| {
        let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
        async move {
            for file in mail.attachments() {
                file.content().bytes(1 << 20).await?;
            }
            let subject = mail.subject.clone().unwrap_or_default();
            log.lock().unwrap().push((subject, mail.attempt(), mail.id().to_owned()));
            answer(&mail)
        }
    })
}

fn taking(log: &Log) -> impl Handler {
    answering(log, |_| Ok(Outcome::Imported))
}

fn subjects(log: &Log) -> Vec<String> {
    log.lock().unwrap().iter().map(|(subject, ..)| subject.clone()).collect()
}

#[tokio::test]
async fn imports_oldest_first_and_only_once() {
    let world = World::with(&[mail("a").id("a@x"), mail("b").id("b@x"), mail("c")]).await;
    let log = Log::default();
    let report = world.run(World::job(), taking(&log)).await;
    assert_eq!((report.status, report.counts.imported, report.counts.seen), (Status::Done, 3, 3));
    assert_eq!((report.attachments, report.bytes), (3, 18));
    assert_eq!(subjects(&log), ["a", "b", "c"]);
    assert_eq!(world.subjects("Inbox/Processed"), ["a", "b", "c"]);
    let report = world.run(World::job(), taking(&log)).await;
    assert_eq!(report.counts.seen, 0);
    assert_eq!(subjects(&log).len(), 3);
}

#[tokio::test]
async fn every_outcome_has_its_folder_and_its_count() {
    let world = World::with(&[mail("take"), mail("skip"), mail("reject"), mail("retry")]).await;
    let log = Log::default();
    let handler = answering(&log, |mail| {
        Ok(match mail.subject.as_deref().unwrap() {
            "take" => Outcome::Imported,
            "skip" => Outcome::Skip(Reason::new("no-invoice", "Nothing to import.").with_dutch("Niets te importeren.")),
            "reject" => Outcome::Reject("broken".into()),
            _ => Outcome::Retry("the archive is closed".into()),
        })
    });
    type Told = (String, Fate, Option<String>);
    let events: Arc<Mutex<Vec<Told>>> = Arc::default();
    let sink = Arc::clone(&events);
    let importer = world.importer(World::job_with_failed()).with_events(move |event| {
        if let Event::Message(record) = event {
            let code = record.reason.as_ref().map(|r| r.code().to_owned());
            sink.lock().unwrap().push((record.subject.clone().unwrap(), record.fate, code));
        }
    });
    let report = importer.run(handler).await.unwrap();
    assert!(report.has_failures() && !report.has_errors());
    let counts = only(Ok(report)).counts;
    assert_eq!((counts.imported, counts.skipped, counts.failed, counts.left), (1, 1, 1, 1));
    assert_eq!(world.subjects("Inbox/Processed"), ["take", "skip"]);
    assert_eq!(world.subjects("Inbox/Failed"), ["reject"]);
    assert_eq!(world.subjects("Inbox"), ["retry"]);
    let events = events.lock().unwrap();
    assert_eq!(events.len(), 4);
    assert!(events.contains(&("skip".into(), Fate::Skipped, Some("no-invoice".into()))));
    assert!(events.contains(&("take".into(), Fate::Imported, None)));
}

#[tokio::test]
async fn attempts_are_spaced_and_end_in_the_failed_folder() {
    let world = World::with(&[mail("bad").id("bad@x"), mail("good").id("good@x")]).await;
    let log = Log::default();
    let bad = || {
        answering(&log, |mail| {
            if mail.subject.as_deref() == Some("bad") { Err("cannot read it".into()) } else { Ok(Outcome::Imported) }
        })
    };
    let report = world.run(World::job_with_failed(), bad()).await;
    assert_eq!((report.counts.imported, report.counts.left), (1, 1));
    assert_eq!(report.failures[0].reason.as_ref().unwrap().code(), "handler-error");
    assert!(report.failures[0].reason.as_ref().unwrap().text(Language::Dutch).contains("cannot read it"));
    // Not due yet.
    let report = world.run(World::job_with_failed(), bad()).await;
    assert_eq!((report.counts.seen, report.counts.left), (1, 1));
    assert_eq!(subjects(&log), ["bad", "good"]);
    world.pass(61);
    assert_eq!(world.run(World::job_with_failed(), bad()).await.counts.left, 1);
    world.pass(120);
    assert_eq!(world.run(World::job_with_failed(), bad()).await.counts.left, 1, "the second pause is four minutes");
    world.pass(121);
    assert_eq!(world.run(World::job_with_failed(), bad()).await.counts.failed, 1);
    let log = log.lock().unwrap();
    assert_eq!(log.iter().filter(|l| l.0 == "bad").map(|l| l.1).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(world.subjects("Inbox/Failed"), ["bad"]);
}

#[tokio::test]
async fn try_again_takes_it_out_of_the_failed_folder() {
    let world = World::with(&[mail("bad").id("bad@x")]).await;
    let log = Log::default();
    let reject = || answering(&log, |_| Ok(Outcome::Reject("no".into())));
    assert_eq!(world.run(World::job_with_failed(), reject()).await.counts.failed, 1);
    assert_eq!(world.store.retry("facturen", Some(&"mid:bad@x".parse().unwrap())).await.unwrap(), 1);
    let report = world.run(World::job_with_failed(), taking(&log)).await;
    assert_eq!((report.counts.seen, report.counts.imported), (1, 1));
    assert_eq!(world.subjects("Inbox/Processed"), ["bad"]);
    assert_eq!(log.lock().unwrap()[1].1, 1, "attempts start over");
    // And not again.
    assert_eq!(world.run(World::job_with_failed(), taking(&log)).await.counts.seen, 0);
}

#[tokio::test]
async fn try_again_works_where_failed_messages_stay() {
    let world = World::with(&[mail("bad").id("bad@x")]).await;
    let log = Log::default();
    let reject = || answering(&log, |_| Ok(Outcome::Reject("no".into())));
    assert_eq!(world.run(World::job(), reject()).await.counts.failed, 1);
    let report = world.run(World::job(), reject()).await;
    assert_eq!((report.counts.seen, report.counts.already_done), (1, 1));
    assert_eq!(world.store.retry("facturen", None).await.unwrap(), 1);
    assert_eq!(world.run(World::job(), taking(&log)).await.counts.imported, 1);
    assert_eq!(world.subjects("Inbox/Processed"), ["bad"]);
}

#[tokio::test]
async fn a_host_in_trouble_costs_no_attempt() {
    const NAMES: [&str; 7] = ["0", "1", "2", "3", "4", "5", "6"];
    let world = World::with(&NAMES.map(mail)).await;
    let log = Log::default();
    // One attempt only: nothing may reach the failed folder even so.
    let job = || World::job_with_failed().with_max_attempts(1);
    let report = world.run(job(), answering(&log, |_| Err("the database is down".into()))).await;
    assert_eq!(report.status, Status::Stopped);
    assert_eq!(report.stopped_by.unwrap().code(), "host-trouble");
    assert_eq!((report.counts.failed, report.counts.left, log.lock().unwrap().len()), (0, 7, 5));
    assert_eq!(world.subjects("Inbox").len(), 7);
    log.lock().unwrap().clear();
    let report = world.run(job(), taking(&log)).await;
    assert_eq!(report.counts.imported, 7);
    assert!(log.lock().unwrap().iter().all(|l| l.1 == 1), "every attempt is the first");
}

#[tokio::test]
async fn what_the_host_can_never_take_does_not_keep_it_from_the_rest() {
    let world = World::with(&["bad 0", "bad 1", "bad 2", "bad 3", "bad 4", "good"].map(mail)).await;
    let log = Log::default();
    let handler = || {
        answering(&log, |mail| {
            if mail.subject.as_deref().unwrap().starts_with("bad") { Err("no".into()) } else { Ok(Outcome::Imported) }
        })
    };
    let report = world.run(World::job(), handler()).await;
    assert_eq!((report.status, report.counts.left), (Status::Stopped, 6));
    let report = world.run(World::job(), handler()).await;
    assert_eq!((report.counts.imported, report.counts.left), (1, 5));
}

#[tokio::test]
async fn a_full_disk_stops_at_the_first_message() {
    let world = World::with(&[mail("a"), mail("b")]).await;
    let log = Log::default();
    let full = answering(&log, |_| Err(io::Error::from(io::ErrorKind::StorageFull).into()));
    let report = world.run(World::job_with_failed().with_max_attempts(1), full).await;
    assert_eq!((report.status, report.counts.left, log.lock().unwrap().len()), (Status::Stopped, 2, 1));
    assert_eq!(report.stopped_by.unwrap().code(), "storage");
    assert_eq!(world.run(World::job_with_failed(), taking(&log)).await.counts.imported, 2);
}

#[tokio::test]
async fn stop_ends_the_run_and_counts_nothing() {
    let world = World::with(&[mail("a"), mail("b"), mail("c")]).await;
    let log = Log::default();
    let handler = answering(&log, |mail| {
        if mail.subject.as_deref() == Some("b") {
            Ok(Outcome::Stop("maintenance".into()))
        } else {
            Ok(Outcome::Imported)
        }
    });
    let report = world.run(World::job(), handler).await;
    assert_eq!((report.status, report.counts.imported, report.counts.left), (Status::Stopped, 1, 2));
    assert_eq!(world.subjects("Inbox/Processed"), ["a"]);
    let report = world.run(World::job(), taking(&log)).await;
    assert_eq!(report.counts.imported, 2);
    assert!(log.lock().unwrap().iter().all(|l| l.1 == 1));
}

#[tokio::test]
async fn a_panic_is_one_messages_failure() {
    let world = World::with(&[mail("boom"), mail("fine")]).await;
    let log = Log::default();
    let handler = answering(&log, |mail| {
        assert!(mail.subject.as_deref() != Some("boom"), "cannot go on");
        Ok(Outcome::Imported)
    });
    let report = world.run(World::job(), handler).await;
    assert_eq!((report.counts.imported, report.counts.left), (1, 1));
    let reason = report.failures[0].reason.as_ref().unwrap();
    assert_eq!(reason.code(), "handler-panic");
    assert!(reason.to_string().contains("cannot go on"));
}

#[tokio::test]
async fn an_account_that_fails_costs_no_attempt() {
    let world = World::with(&[mail("a").files(&["x"]), mail("b")]).await;
    let log = Log::default();
    // Content that does not come along is downloaded in the handler, and there the account fails.
    world.mailbox.fault(Fault::on(Operation::Download).always().error(ErrorKind::Unavailable));
    let raw = {
        let log = Arc::clone(&log);
        handler_fn(move |mail: Delivery| {
            let log = Arc::clone(&log);
            async move {
                log.lock().unwrap().push((String::new(), mail.attempt(), String::new()));
                mail.attachments()[0].content().bytes(1 << 20).await?;
                mail.raw().bytes(1 << 20).await?;
                Ok(Outcome::Imported)
            }
        })
    };
    let report = world.run(World::job_with_failed().with_max_attempts(1), raw).await;
    assert_eq!(report.counts.failed, 0, "{report:?}");
    world.mailbox.clear_faults();
    let report = world.run(World::job_with_failed(), taking(&log)).await;
    assert_eq!(report.counts.imported, 2);
    assert!(log.lock().unwrap().iter().all(|l| l.1 == 1));
}

#[tokio::test]
async fn an_account_that_fails_lets_what_is_in_hand_end() {
    // Two that share a Message-ID are told apart by their content, which the importer reads through the account.
    let large: &'static str = Box::leak("x".repeat(400_000).into_boxed_str());
    let world = World::with(&[mail("first").id("scanner@x").files(&[large])]).await;
    let log = Log::default();
    assert_eq!(world.run(World::job(), taking(&log)).await.counts.imported, 1);
    world.deliver(&mail("slow").id("slow@x"));
    world.deliver(&mail("second").id("scanner@x").files(&[large, "and more"]));
    world.mailbox.fault(Fault::on(Operation::Download).always().error(ErrorKind::Unavailable));
    let slow = handler_fn(|_: Delivery| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(Outcome::Imported)
    });
    let report = world.run(World::job().with_handler_concurrency(2), slow).await;
    assert_eq!(report.error.map(|error| error.kind()), Some(ErrorKind::Unavailable));
    assert_eq!((report.counts.imported, report.counts.left), (1, 1));
    world.mailbox.clear_faults();
    world.run(World::job(), taking(&log)).await;
    assert_eq!(subjects(&log), ["first", "second"], "what was taken is not handed over again");
}

#[tokio::test]
async fn one_message_id_for_two_invoices_loses_neither() {
    let world = World::with(&[
        mail("scan").id("scanner@x").files(&["invoice 1"]),
        mail("scan").id("scanner@x").files(&["invoice 2"]),
        mail("scan").id("scanner@x").files(&["invoice 1"]),
    ])
    .await;
    let log = Log::default();
    let report = world.run(World::job().with_handler_concurrency(4), taking(&log)).await;
    assert_eq!((report.counts.imported, report.counts.already_done), (2, 1));
    assert_eq!(world.subjects("Inbox/Processed").len(), 3);
}

/// One provider shows the files of a mail, another only what cannot be compared.
#[tokio::test]
async fn what_cannot_be_compared_is_imported_and_says_so() {
    for (first, second) in [(&[][..], &["invoice"][..]), (&["invoice"], &[])] {
        let world = World::with(&[mail("a").id("a@x").files(first)]).await;
        let log = Log::default();
        let told = Log::default();
        assert_eq!(world.run(World::job(), taking(&log)).await.counts.imported, 1);
        world.deliver(&mail("a").id("a@x").files(second));
        let answer = Arc::clone(&told);
        let handler = answering(&log, move |mail| {
            let of = mail.possible_duplicate_of().map(ToString::to_string).unwrap_or_default();
            answer.lock().unwrap().push((of, 0, String::new()));
            Ok(Outcome::Imported)
        });
        assert_eq!(world.run(World::job(), handler).await.counts.imported, 1);
        assert_eq!(subjects(&told), ["mid:a@x"]);
    }
}

#[tokio::test]
async fn an_unreadable_message_is_handed_over_as_itself() {
    let world = World::new().await;
    let raw = mail("a").bytes();
    world.mailbox.deliver_unreadable("Inbox", raw.clone(), Timestamp::from_second(START).unwrap()).unwrap();
    let report = world
        .run(
            World::job(),
            handler_fn(move |mail: Delivery| {
                let raw = raw.clone();
                async move {
                    let [itself] = mail.attachments() else { panic!("{:?}", mail.attachments()) };
                    assert_eq!(itself.file_name(), "attachment.eml");
                    assert_eq!(itself.content().bytes(1 << 20).await?, raw.as_bytes());
                    Ok(Outcome::Imported)
                }
            }),
        )
        .await;
    assert_eq!((report.counts.imported, report.attachments), (1, 1), "{:?}", report.failures);
}

#[tokio::test]
async fn messages_without_any_name_are_never_taken_for_one() {
    let world = World::new().await;
    for n in 0..3 {
        let received = Timestamp::from_second(START + n).unwrap();
        world.mailbox.deliver("Inbox", format!("Subject: scan\r\n\r\npage {n}\r\n"), received).unwrap();
    }
    let log = Log::default();
    assert_eq!(world.run(World::job(), taking(&log)).await.counts.imported, 3);
    assert_eq!(world.run(World::job(), taking(&log)).await.counts.seen, 0);
}

#[tokio::test]
async fn unread_files_are_compared_all_the_same_when_they_are_small() {
    let world = World::with(&[mail("scan").id("s@x").files(&["1"]), mail("scan").id("s@x").files(&["2"])]).await;
    let report = world.run(World::job(), handler_fn(|_| async { Ok(Outcome::Imported) })).await;
    assert_eq!(report.counts.imported, 2);
    world.deliver(&mail("scan").id("s@x").files(&["2"]));
    let report = world.run(World::job(), handler_fn(|_| async { Ok(Outcome::Imported) })).await;
    assert_eq!((report.counts.imported, report.counts.already_done), (0, 1));
}

#[tokio::test]
async fn what_a_person_puts_back_is_imported_again() {
    let world = World::with(&[mail("a").id("a@x")]).await;
    let log = Log::default();
    world.run(World::job(), taking(&log)).await;
    let stored = world.mailbox.ids("Inbox/Processed").unwrap()[0];
    world.mailbox.move_by_person(stored, "Inbox").unwrap();
    let earlier = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&earlier);
    let report = world
        .run(
            World::job(),
            handler_fn(move |mail: Delivery| {
                told.fetch_add(usize::from(mail.earlier().is_some()), SeqCst);
                async { Ok(Outcome::Imported) }
            }),
        )
        .await;
    assert_eq!((report.counts.reimported, report.counts.imported, earlier.load(SeqCst)), (1, 0, 1));
    assert_eq!(world.subjects("Inbox/Processed"), ["a"]);
}

#[tokio::test]
async fn a_second_copy_is_only_moved() {
    let world = World::with(&[mail("a").id("a@x")]).await;
    let log = Log::default();
    world.run(World::job(), taking(&log)).await;
    world.deliver(&mail("a").id("a@x"));
    let report = world.run(World::job(), taking(&log)).await;
    assert_eq!((report.counts.already_done, report.counts.imported), (1, 0));
    assert_eq!(world.subjects("Inbox/Processed"), ["a", "a"]);
    assert_eq!(log.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_swap_imports_nothing_twice() {
    let world = World::with(&[mail("a").id("a@x"), mail("b"), mail("c").id("c@x").files(&[])]).await;
    let log = Log::default();
    // Nothing can be moved under the old account.
    world.mailbox.create_folder("Inbox/Processed").unwrap();
    world.mailbox.fault(Fault::on(Operation::Move).always().error(ErrorKind::Other));
    let report = world.run_as("old", World::job(), taking(&log)).await;
    assert_eq!((report.counts.imported, report.counts.unmoved), (3, 3));
    assert!(report.warnings.iter().any(|w| w.contains("could not be moved")));
    world.mailbox.clear_faults();
    let report = world.run_as("new", World::job(), taking(&log)).await;
    assert_eq!((report.counts.already_done, report.counts.imported, report.counts.unmoved), (3, 0, 0));
    assert_eq!(world.subjects("Inbox/Processed"), ["a", "b", "c"]);
    assert_eq!(log.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn the_swap_works_where_messages_stay() {
    let world = World::with(&[mail("a").id("a@x"), mail("b")]).await;
    let log = Log::default();
    assert_eq!(world.run_as("old", World::reading(), taking(&log)).await.counts.imported, 2);
    for _ in 0..2 {
        let report = world.run_as("new", World::reading(), taking(&log)).await;
        assert_eq!((report.counts.already_done, report.counts.imported), (2, 0));
    }
    world.deliver(&mail("c"));
    assert_eq!(world.run_as("old", World::reading(), taking(&log)).await.counts.imported, 1);
    assert_eq!(subjects(&log), ["a", "b", "c"]);
    assert_eq!(world.subjects("Inbox").len(), 3);
}

#[tokio::test]
async fn a_poll_with_nothing_new_takes_no_lease_and_writes_nothing() {
    let world = World::with(&[mail("a")]).await;
    let log = Log::default();
    world.run(World::job(), taking(&log)).await;
    let syncs = world.store.syncs();
    for _ in 0..3 {
        assert_eq!(world.run(World::job(), taking(&log)).await.status, Status::Done);
    }
    assert_eq!(world.store.syncs(), syncs);
}

#[tokio::test]
async fn at_most_two_syncs_a_message() {
    let world = World::new().await;
    for n in 0..50 {
        let received = Timestamp::from_second(START + n).unwrap();
        world.mailbox.deliver("Inbox", mail("x").bytes().replace("inhoud", &n.to_string()), received).unwrap();
    }
    world.run(World::job(), handler_fn(|_| async { Ok(Outcome::Skip("warm".into())) })).await;
    for n in 50..150 {
        let received = Timestamp::from_second(START + n).unwrap();
        world.mailbox.deliver("Inbox", mail("x").bytes().replace("inhoud", &n.to_string()), received).unwrap();
    }
    let before = world.store.syncs();
    let log = Log::default();
    assert_eq!(world.run(World::job(), taking(&log)).await.counts.imported, 100);
    let syncs = world.store.syncs() - before;
    assert!(syncs <= 200, "{syncs} syncs for 100 messages");
}

#[tokio::test]
async fn a_second_run_is_busy() {
    let world = World::with(&[mail("a")]).await;
    let other = SqlStore::open(world.folder.path().join("state.db")).await.unwrap();
    let scope = mail_account::Scope::new("facturen", "import@contoso.example");
    let context = Context::default().with_clock(Arc::clone(&world.clock) as Arc<dyn Clock>);
    let other = other.with_context(context);
    let lease = other.acquire(&scope, Duration::from_secs(60)).await.unwrap().unwrap();
    let log = Log::default();
    let report = world.run(World::job(), taking(&log)).await;
    assert_eq!((report.status, report.counts.left, report.counts.seen), (Status::Busy, 1, 1));
    assert!(log.lock().unwrap().is_empty());
    other.release(&lease).await.unwrap();
    assert_eq!(world.run(World::job(), taking(&log)).await.counts.imported, 1);
}

#[tokio::test]
async fn the_limit_counts_hand_overs() {
    let world = World::with(&["0", "1", "2", "3", "4"].map(mail)).await;
    let log = Log::default();
    let report = only(world.importer(World::job()).with_limit(2).run(taking(&log)).await);
    assert_eq!((report.counts.imported, report.counts.left, report.status), (2, 3, Status::Done));
    assert_eq!(world.subjects("Inbox"), ["2", "3", "4"]);
    assert_eq!(world.run(World::job(), taking(&log)).await.counts.imported, 3);
}

#[tokio::test]
async fn cancelling_finishes_what_is_in_hand() {
    let world = World::with(&["0", "1", "2", "3"].map(mail)).await;
    let stop = CancellationToken::new();
    let log = Log::default();
    let pull = stop.clone();
    let handler = answering(&log, move |_| {
        pull.cancel();
        Ok(Outcome::Imported)
    });
    let importer = world.importer(World::job()).with_handler(handler);
    let report = only(importer.run_all(stop).await);
    assert_eq!((report.status, report.counts.imported), (Status::Stopped, 1));
    assert_eq!(world.subjects("Inbox/Processed"), ["0"]);
}

#[tokio::test]
async fn fetch_and_process_can_be_driven_apart() {
    let world = World::with(&["0", "1"].map(mail)).await;
    let log = Log::default();
    let importer = world.importer(World::job()).with_handler(taking(&log));
    let fetched = only(importer.fetch(CancellationToken::new()).await);
    assert_eq!((fetched.counts.left, log.lock().unwrap().len()), (2, 0));
    world.deliver(&mail("2"));
    let processed = only(importer.process(CancellationToken::new()).await);
    assert_eq!(processed.counts.imported, 2);
    assert_eq!(world.subjects("Inbox"), ["2"]);
}

#[tokio::test]
async fn since_now_leaves_the_old_mail_alone() {
    let world = World::with(&[mail("old")]).await;
    let log = Log::default();
    let job = || World::reading().with_since(Since::Now);
    assert_eq!(world.run(job(), taking(&log)).await.counts.seen, 0);
    world.pass(60);
    let received = Timestamp::from_second(START + 86_400 + 30).unwrap();
    world.mailbox.deliver("Inbox", mail("new").bytes(), received).unwrap();
    assert_eq!(world.run(job(), taking(&log)).await.counts.imported, 1);
    assert_eq!(subjects(&log), ["new"]);
}

#[tokio::test]
async fn a_ledger_of_another_mailbox_stops_the_run() {
    let world = World::with(&[mail("a")]).await;
    let log = Log::default();
    world.run(World::job(), taking(&log)).await;
    let other = MemoryMailbox::new("anders@contoso.example");
    let account: Arc<dyn MailAccount> = Arc::new(MemoryAccount::open("other", &other, MemoryOptions::default()));
    let run = async |job| {
        let importer = Importer::new(job, [Arc::clone(&account)], Arc::new(world.store.clone()));
        importer.run(taking(&log)).await
    };
    let report = only(run(World::job()).await);
    let error = report.error.unwrap();
    assert_eq!((report.status, error.kind()), (Status::Error, ErrorKind::InvalidConfig));
    assert!(error.to_string().contains("address = \"import@contoso.example\""), "{error}");
    assert!(error.to_string().contains("ledger = \"new\""), "{error}");
    assert_eq!(only(run(World::job().with_ledger_new(true)).await).status, Status::Done);
}

#[tokio::test]
async fn folders_are_checked_before_anything_is_handed_over() {
    let world = World::with(&[mail("a")]).await;
    world.mailbox.create_folder("Inbox/Done").unwrap();
    let log = Log::default();
    let processed = |folder: &str| World::reading().with_processed_folder(folder.parse().unwrap());
    let error = |report: AccountReport| report.error.expect("refused");
    let missing = error(world.run(processed("Inbox/Dome"), taking(&log)).await);
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("`Inbox/Done`"), "{missing}");
    let same = error(world.run(processed("INBOX"), taking(&log)).await);
    assert!(same.to_string().contains("import folder itself"), "{same}");
    world.mailbox.set_access("Inbox/Done", Access::ReadOnly).unwrap();
    let read_only = error(world.run(processed("Inbox/Done"), taking(&log)).await);
    assert_eq!(read_only.kind(), ErrorKind::PermissionDenied);
    assert!(log.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_can_only_copy_is_a_warning() {
    let world = World::with(&[mail("a")]).await;
    let account: Arc<dyn MailAccount> =
        Arc::new(MemoryAccount::open("memory", &world.mailbox, MemoryOptions::default().with_copy_only(true)));
    let log = Log::default();
    let report = only(Importer::new(World::job(), [account], Arc::new(world.store.clone())).run(taking(&log)).await);
    assert_eq!((report.counts.imported, report.counts.unmoved, report.warnings.len()), (1, 0, 1));
}

#[tokio::test]
async fn a_move_whose_message_is_gone_is_told() {
    let world = World::with(&[mail("a"), mail("b")]).await;
    let mailbox = world.mailbox.clone();
    let log = Log::default();
    let handler = answering(&log, move |mail| {
        if mail.subject.as_deref() == Some("a") {
            let id = mailbox.ids("Inbox").unwrap()[0];
            mailbox.delete(id);
        }
        Ok(Outcome::Imported)
    });
    let report = world.run(World::job(), handler).await;
    assert_eq!((report.counts.imported, report.counts.unmoved), (2, 1));
    assert_eq!(world.run(World::job(), taking(&log)).await.counts.seen, 0);
}

#[tokio::test]
async fn one_bad_account_never_ends_a_job() {
    let world = World::with(&[mail("a")]).await;
    let down = MemoryMailbox::new("down@contoso.example");
    down.outage(ErrorKind::Unauthenticated);
    let bad: Arc<dyn MailAccount> = Arc::new(MemoryAccount::open("bad", &down, MemoryOptions::default()));
    let log = Log::default();
    let importer = Importer::new(World::job(), [bad, world.account("good")], Arc::new(world.store.clone()));
    let report = importer.run(taking(&log)).await.unwrap();
    assert!(report.has_errors());
    assert_eq!(report.accounts[0].error.as_ref().unwrap().kind(), ErrorKind::Unauthenticated);
    assert_eq!(report.accounts[0].error.as_ref().unwrap().account(), Some("bad"));
    assert_eq!(report.accounts[1].counts.imported, 1);
}

#[tokio::test]
async fn the_ledger_says_what_it_knows() {
    let world = World::with(&[mail("Factuur 7").id("7@x").files(&["x"])]).await;
    let log = Log::default();
    world.run(World::job_with_failed(), answering(&log, |_| Ok(Outcome::Reject("no".into())))).await;
    let scope = mail_account::Scope::new("facturen", "import@contoso.example");
    let rows = world.store.find(&scope, Find::Failures).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].key.as_str(), "mid:7@x");
    assert_eq!(rows[0].subject.as_deref(), Some("Factuur 7"));
    assert_eq!(rows[0].attempts, 1);
    assert_eq!(rows[0].reason.as_ref().unwrap().to_string(), "no");
}
