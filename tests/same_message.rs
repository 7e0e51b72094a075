//! The same mail through a Maildir, IMAP and Graph is recognised as the same, whatever Exchange rewrites; different mails
//! under one Message-ID never collapse. Asked of the importer itself: what one account has imported, no other imports.
#![cfg(all(feature = "graph", feature = "imap"))]

#[path = "support/dovecot.rs"]
mod dovecot;
#[path = "support/tenant.rs"]
mod tenant;

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, SystemTime},
};

use dovecot::{Dovecot, PASSWORD};
use jiff::Timestamp;
use mail_account::{
    Delivery, FolderSpec, ImportJob, Importer, Ledger, MailAccount, Outcome, Role, Secret, SecretSource, handler_fn,
    provider::{
        Opening, ProviderConfig as _,
        imap::ImapConfig,
        maildir::{MaildirAccount, MaildirConfig},
    },
    testing::MemoryLedger,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tenant::Tenant;

/// One mail, by what of it services treat differently.
#[derive(Clone, Debug)]
struct Seed {
    message_id: MessageId,
    date: Date,
    blanks: &'static str,
    sender: &'static str,
    files: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum MessageId {
    Missing,
    Empty,
    Own,
    /// As a scanner has it: the same on every mail.
    Reused,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Date {
    Good,
    Missing,
    Bad,
}

const SENDERS: [&str; 4] = [
    "Verkoop <Verkoop@Leverancier.EXAMPLE>",
    "inkoop@contoso.nl",
    "\"Onbekende naam\" <inkoop@contoso.nl>",
    "=?iso-8859-1?Q?Caf=E9?= <cafe@leverancier.example>",
];
const BLANKS: [&str; 4] = [" ", "   ", "\r\n\t", " \r\n  "];

fn seeds() -> impl Strategy<Value = Vec<Seed>> {
    use MessageId::{Empty, Missing, Own, Reused};
    let seed = (
        prop::sample::select(vec![Missing, Empty, Own, Own, Reused, Reused]),
        prop::sample::select(vec![Date::Good, Date::Good, Date::Missing, Date::Bad]),
        prop::sample::select(BLANKS.to_vec()),
        prop::sample::select(SENDERS.to_vec()),
        0..3usize,
    );
    let seed = seed.prop_map(|(message_id, date, blanks, sender, files)| {
        // Without a name, a file and a date there is too little to know a message by, and none is taken for another:
        // it would be imported again, as a possible duplicate.
        let thin = files == 0 && matches!(message_id, Missing | Empty);
        Seed { message_id, date: if thin { Date::Good } else { date }, blanks, sender, files }
    });
    prop::collection::vec(seed, 1..14)
}

fn received(n: usize) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + 60 * i64::try_from(n).unwrap()).unwrap()
}

impl Seed {
    fn build(&self, n: usize) -> String {
        let mut mail =
            format!("From: {}\r\nTo: facturen@contoso.nl\r\nSubject: Factuur{}{n}\r\n", self.sender, self.blanks);
        match self.message_id {
            MessageId::Missing => {}
            MessageId::Empty => mail.push_str("Message-ID: \r\n"),
            MessageId::Own => mail.push_str(&format!("Message-ID: <{n}.a@Leverancier.Example>\r\n")),
            MessageId::Reused => mail.push_str("Message-ID: <scan@printer>\r\n"),
        }
        match self.date {
            Date::Good => mail.push_str(&format!("Date: {}\r\n", received(n).strftime("%a, %d %b %Y %T +0000"))),
            Date::Missing => {}
            Date::Bad => mail.push_str("Date: gisteren, denk ik\r\n"),
        }
        mail.push_str("MIME-Version: 1.0\r\n");
        if self.files == 0 {
            mail.push_str(&format!("Content-Type: text/plain\r\n\r\nWij schrijven {n} euro af.\r\n"));
            return mail;
        }
        mail.push_str("Content-Type: multipart/mixed; boundary=grens\r\n\r\n");
        for file in 0..self.files {
            mail.push_str(&format!(
                "--grens\r\nContent-Type: application/xml; name=\"f{file}.xml\"\r\nContent-Disposition: attachment; filename=\"f{file}.xml\"\r\n\r\n<factuur>{n}-{file}</factuur>\r\n"
            ));
        }
        mail.push_str("--grens--\r\n");
        mail
    }
}

fn job() -> ImportJob {
    ImportJob::new("facturen", FolderSpec::Role(Role::Inbox))
}

/// How many messages an account imports, and how many it knows already.
async fn run(account: &Arc<dyn MailAccount>, ledger: &Arc<dyn Ledger>) -> (u64, u64) {
    let importer = Importer::new(job(), [Arc::clone(account)], Arc::clone(ledger));
    let report = importer
        .run(handler_fn(|mail: Delivery| async move {
            for file in mail.attachments() {
                file.content().bytes(1 << 20).await?;
            }
            Ok(Outcome::Imported)
        }))
        .await
        .unwrap();
    let account = &report.accounts[0];
    assert!(account.error.is_none() && account.counts.closes(), "{account:?}");
    (account.counts.imported, account.counts.already_done)
}

#[test]
fn a_mail_is_the_same_through_every_provider() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let server = Dovecot::start();
    // All at once: Dovecot looks at its list of users again only after a while.
    let users = RefCell::new((0..16 + 61).map(|_| server.user()).collect::<Vec<_>>());
    // Nothing is kept of failures: the same seed would deliver to other mailboxes.
    let config = Config { cases: 16, failure_persistence: None, max_shrink_iters: 60, ..Config::default() };
    let rewrites = prop::array::uniform4(any::<bool>());
    let order = prop::sample::select(vec![[0, 1, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0], [0, 2, 1], [1, 0, 2]]);
    let judged = TestRunner::new(config).run(&(seeds(), rewrites, order), |(seeds, rewrites, order)| {
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let maildir = MaildirAccount::open("maildir", MaildirConfig::new(folder.path().join("mailbox"))).unwrap();
            maildir.create_mailbox().await.unwrap();
            let inbox = maildir.resolve_folder(&FolderSpec::Role(Role::Inbox)).await.unwrap().id;
            let user = users.borrow_mut().pop().expect("a mailbox for every case");
            let tenant = Tenant::start().await;
            // Exchange shows the names of its own directory.
            tenant.fake.mailbox("inkoop@contoso.nl").display_name("Afdeling Inkoop").create();
            tenant.fake.configure(|settings| {
                let rendering = &mut settings.rendering;
                rendering.rewrite_sender = rewrites[0];
                rendering.collapse_subject = rewrites[1];
                rendering.substitute_message_id = rewrites[2];
                rendering.substitute_date = rewrites[3];
            });
            for (n, seed) in seeds.iter().enumerate() {
                let (mail, at) = (seed.build(n), received(n));
                maildir.deliver_at(&inbox, mail.clone().into_bytes(), at).await.unwrap();
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(at.as_second() as u64);
                server.deliver(&user, "", mail.as_bytes(), time);
                tenant.mailbox.deliver_at("Inbox", mail, at);
            }
            // All three say that they are one mailbox.
            let named = |name: &str| Opening::new(name).with_address("facturen@contoso.nl".to_owned());
            let mut imap = ImapConfig::new("localhost", &user, SecretSource::Literal(Secret::new(PASSWORD)));
            (imap.port, imap.ca_file) = (Some(server.tls_port), Some(server.ca_file.clone()));
            let maildir = MaildirConfig::new(folder.path().join("mailbox")).open(named("maildir")).unwrap();
            let accounts: [Arc<dyn MailAccount>; 3] =
                [maildir, Arc::new(imap.account(named("imap"), None).unwrap()), Arc::new(tenant.open())];
            let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::new());
            let all = seeds.len() as u64;
            let [first, second, third] = order.map(|at| &accounts[at]);
            // Each is a message of its own, also those of one Message-ID.
            prop_assert_eq!(run(first, &ledger).await, (all, 0), "{}", first.mailbox().account);
            // And the same one elsewhere, whichever account saw it first.
            for account in [second, third, first] {
                let (imported, _) = run(account, &ledger).await;
                prop_assert_eq!(imported, 0, "again through {}", account.mailbox().account);
            }
            Ok(())
        })
    });
    judged.unwrap();
}
