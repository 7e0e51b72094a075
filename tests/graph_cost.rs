//! What the Graph account costs, counted by the fake.

#![cfg(all(feature = "testing", feature = "graph"))]

#[path = "support/tenant.rs"]
mod tenant;

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use mail_account::{
    Delivery, Importer, MailAccount, MessageId, Outcome, Query, Status, handler_fn,
    testing::{
        MemoryLedger,
        graph::{GeneratedMail, LoggedRequest, Route},
    },
};
use tenant::{INBOX, Tenant, bytes, job, list, mime, noise};

#[tokio::test]
async fn importing_a_thousand_messages_keeps_to_the_budget() {
    const N: u64 = 1_000;
    for step in [1, 0] {
        let tenant = Tenant::start().await;
        let start = "2026-01-31T10:00:00Z".parse().expect("a time");
        tenant.mailbox.generate("inbox", &GeneratedMail::new(N).attachments(2, 100 * 1024).received(start, step));
        let account = tenant.open();
        let importer =
            Importer::new(job(), [Arc::new(account.clone()) as Arc<dyn MailAccount>], Arc::new(MemoryLedger::new()))
                .with_context(tenant.context.clone());
        let handler = handler_fn(|mail: Delivery| async move {
            let mut sizes = 0;
            for attachment in mail.attachments() {
                sizes += attachment.content().bytes(1 << 20).await?.len();
            }
            assert_eq!(sizes, 2 * 100 * 1024);
            Ok(Outcome::Imported)
        });
        let report = importer.run(handler).await.expect("the ledger can be read");
        let account_report = &report.accounts[0];
        assert_eq!(account_report.status, Status::Done, "{:?}", account_report.error);
        assert_eq!((account_report.counts.imported, account_report.counts.unmoved), (N, 0));
        assert_eq!(tenant.mailbox.count("Inbox/Processed") as u64, N);

        let counters = tenant.fake.counters();
        println!(
            "step {step}: {} counted, {} round trips, {:?}",
            counters.graph_requests, counters.round_trips, counters.by_route
        );
        assert!(counters.graph_requests <= N * 115 / 100 + 10, "{} counted requests", counters.graph_requests);
        assert!(counters.round_trips <= N / 4, "{} round trips", counters.round_trips);
        assert_eq!(counters.throttled, 0, "no 429 was provoked");
        assert!(counters.peak_concurrency.values().all(|most| *most <= 4), "{:?}", counters.peak_concurrency);
        assert_eq!(counters.token_requests, 1);
        let usage = account.usage();
        assert_eq!((usage.requests, usage.round_trips), (counters.graph_requests, counters.round_trips));
        assert!(
            tenant.fake.requests().iter().all(|r| r.immutable_ids || matches!(r.route, Route::Batch | Route::Token))
        );

        // Everything is cached now, and nothing is there.
        tenant.fake.reset_counters();
        let report =
            importer.run(handler_fn(|_| async { Ok(Outcome::Imported) })).await.expect("the ledger can be read");
        assert_eq!(report.accounts[0].counts.seen, 0);
        assert_eq!(tenant.fake.counters().graph_requests, 1, "an empty poll is one request");
        assert_eq!(tenant.fake.counters().token_requests, 0);
    }
}

/// How often the service time of one request passes until an import is over, if nothing but the parts of a batch went on
/// at the same time: what there is at the same time beside that only makes it less.
fn service_times(requests: &[LoggedRequest]) -> usize {
    let (mut times, mut parts) = (0, 0_usize);
    for request in requests {
        match request.route {
            Route::Token => {}
            // The parts are logged before their batch.
            _ if request.in_batch => parts += 1,
            Route::Batch => times += std::mem::take(&mut parts).div_ceil(4),
            _ => times += 1,
        }
    }
    times
}

/// The time an import takes is given by the service: with L for each request at most 1.25 x (n + pages) x L / 4. Counted
/// from what was asked, because the machine's own time is no measure.
#[tokio::test]
async fn the_services_time_is_used_four_times_over() {
    const N: u64 = 1_000;
    let tenant = Tenant::start().await;
    tenant.fake.configure(|settings| settings.service_time = Duration::from_millis(40));
    let start = "2026-01-31T10:00:00Z".parse().expect("a time");
    tenant.mailbox.generate("inbox", &GeneratedMail::new(N).attachments(2, 100 * 1024).received(start, 1));
    let account: Arc<dyn MailAccount> = Arc::new(tenant.open());
    let importer = Importer::new(job(), [account], Arc::new(MemoryLedger::new())).with_context(tenant.context.clone());
    let report = importer.run(handler_fn(|_| async { Ok(Outcome::Imported) })).await.expect("the ledger can be read");
    assert_eq!(report.counts().imported, N);
    let counters = tenant.fake.counters();
    let (pages, times) = (counters.of(Route::ListMessages), service_times(&tenant.fake.requests()) as u64);
    println!("{pages} pages, {times} service times, {:?}", counters.by_route);
    assert!(times * 4 <= (N + pages) * 125 / 100, "{times} service times");
    assert_eq!(counters.throttled, 0, "no 429 was provoked");
    assert!(counters.peak_concurrency.values().all(|most| *most <= 4), "{:?}", counters.peak_concurrency);
}

#[tokio::test]
async fn a_thousand_mailboxes_of_one_registration_ask_for_one_token() {
    let tenant = Tenant::start().await;
    let mut accounts = Vec::new();
    for n in 0..1_000 {
        let address = format!("box{n}@contoso.nl");
        tenant.fake.mailbox(&address).create();
        accounts.push(tenant.open_as(&address));
    }
    let found: Vec<_> = futures::stream::iter(&accounts)
        .map(|account| async move { account.resolve_folder(&INBOX).await })
        .buffer_unordered(50)
        .collect()
        .await;
    assert!(found.iter().all(Result::is_ok));
    assert_eq!(tenant.fake.counters().token_requests, 1);
}

#[tokio::test]
async fn accounts_on_one_mailbox_share_its_four_places() {
    let tenant = Tenant::start().await;
    tenant.fake.configure(|settings| settings.service_time = Duration::from_millis(5));
    tenant.mailbox.generate("inbox", &GeneratedMail::new(60).attachments(1, 1_000));
    let accounts: Vec<_> = (0..6).map(|_| tenant.open()).collect();
    let all = futures::future::join_all(accounts.iter().map(|account| list(account, Query::default()))).await;
    assert!(all.iter().all(|messages| messages.len() == 60));
    let counters = tenant.fake.counters();
    assert_eq!(counters.throttled, 0);
    assert_eq!(counters.peak_concurrency.values().max(), Some(&4), "all four are used");
}

#[tokio::test]
async fn two_windows_are_asked_for_at_once_and_none_twice() {
    let tenant = Tenant::start().await;
    tenant.fake.configure(|settings| settings.service_time = Duration::from_millis(20));
    let start = "2026-01-31T10:00:00Z".parse().expect("a time");
    tenant.mailbox.generate("inbox", &GeneratedMail::new(300).attachments(1, 200_000).received(start, 1));
    let messages = list(&tenant.open(), Query::default()).await;
    assert_eq!(messages.len(), 300);
    assert!(messages.is_sorted_by_key(|m| m.received));
    let counters = tenant.fake.counters();
    assert_eq!(counters.peak_concurrency.values().max(), Some(&2));
    assert!(counters.of(Route::ListMessages) <= 300 / 17 + 2, "{:?}", counters.by_route);
    assert_eq!(counters.of(Route::GetMessage), 0);
}

#[tokio::test]
async fn what_is_skipped_is_not_fetched() {
    let tenant = Tenant::start().await;
    tenant.mailbox.generate("inbox", &GeneratedMail::new(400).attachments(2, 50_000));
    let account = tenant.open();
    let stubs = list(&account, Query::default().with_inline_up_to(0)).await;
    let wanted: Vec<MessageId> = [17, 200, 399].iter().map(|n| stubs[*n].id.clone()).collect();
    tenant.fake.reset_counters();
    let kept = wanted.clone();
    let found = list(&account, Query::default().with_skip(move |id| !kept.contains(id))).await;
    assert_eq!(found.iter().map(|m| m.id.clone()).collect::<Vec<_>>(), wanted);
    assert!(found.iter().all(|m| m.attachments.iter().all(|a| a.content.is_some())));
    let counters = tenant.fake.counters();
    assert!(counters.graph_requests <= 5, "{:?}", counters.by_route);
    assert!(counters.bytes_sent < 1_000_000, "{} bytes", counters.bytes_sent);
}

#[tokio::test]
async fn large_messages_are_told_from_their_neighbours() {
    let tenant = Tenant::start().await;
    let large = noise(5_000_000, 9);
    for n in 0..30 {
        let small = noise(20_000, n);
        let subject = format!("m{n:02}");
        let raw = match n {
            7 | 8 | 21 => mime(&subject, &[("klein.pdf", &small), ("groot.pdf", &large)]),
            _ => mime(&subject, &[("klein.pdf", &small)]),
        };
        let received = jiff::Timestamp::from_second(1_769_853_600 + i64::from(n)).expect("a time");
        tenant.mailbox.deliver_at("inbox", raw, received);
    }
    let account = tenant.open();
    let messages = list(&account, Query::default()).await;
    let subjects: Vec<_> = messages.iter().filter_map(|m| m.subject.clone()).collect();
    assert_eq!(subjects, (0..30).map(|n| format!("m{n:02}")).collect::<Vec<_>>());
    for (n, message) in messages.iter().enumerate() {
        let small = &message.attachments[0];
        let content = match &small.content {
            Some(content) => content.to_vec(),
            None => bytes(account.download_attachment(&message.id, &small.id)).await,
        };
        assert!(content == noise(20_000, u8::try_from(n).expect("small")), "{n}");
    }
    let inline = messages.iter().filter(|m| m.attachments[0].content.is_some()).count();
    assert!(inline >= 24, "most small ones come along; {inline} did");
    let got = bytes(account.download_attachment(&messages[21].id, &messages[21].attachments[1].id)).await;
    assert!(got == large);
    let counters = tenant.fake.counters();
    assert!(counters.graph_requests < 30, "{:?}", counters.by_route);
}
