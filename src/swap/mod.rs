//! The rehearsal: whether a job may go on with another account, asked before anything is changed.
//!
//! A swap is one line of the configuration. [`rehearse`] says beforehand whether it would lose a message or import one
//! twice: it looks at one mailbox through both accounts and compares what the job would see. It only reads.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | [`rehearse`], read top to bottom |
//! | `report.rs` | what it finds |
//! | `folders.rs` | the job's folders in one account |
//! | `listing.rs` | what is kept of a message, and how its files are read |
//! | `compare.rs` | which messages are the same, and how they differ |
//! | `texts.rs` | what is found, for people, in English and Dutch |

mod compare;
mod folders;
mod listing;
mod report;
mod texts;

use std::collections::HashSet;

pub use report::{
    Difference, DifferenceKind, FirstMessage, FolderSeen, Rehearsal, Severity, Side, Unproven, UnprovenKind,
};

use crate::{
    Error, ErrorKind, ImportJob, Ledger, MailAccount, Message, Query, Result, Scope, Since,
    import::identity::{Digest, Evidence, MessageKey, Relation, same, same_without_message_id},
    store::{Find, Recorded, Row, Step},
};
use compare::{Comparison, compare};
use folders::{Found, folders};
use futures::StreamExt as _;
use listing::Entry;

/// How much a rehearsal reads.
///
/// ```
/// use mail_account::swap::Limits;
/// assert_eq!(Limits::default().with_newest(100).newest, 100);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// In a folder with more messages than this, attachments are compared of so many of the newest only, and the result
    /// says so. Default 1,000.
    pub newest: usize,
    /// How many messages of one kind of difference are told one by one; the rest is counted. Default 20.
    pub told: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { newest: 1_000, told: 20 }
    }
}

impl Limits {
    /// Sets [`newest`](Self::newest).
    #[must_use]
    pub fn with_newest(mut self, messages: usize) -> Self {
        self.newest = messages;
        self
    }

    /// Sets [`told`](Self::told).
    #[must_use]
    pub fn with_told(mut self, messages: usize) -> Self {
        self.told = messages;
        self
    }
}

/// Compares what a job sees through two accounts of one mailbox, with the default [`Limits`].
///
/// Both accounts are only listed, read and asked; nothing is moved, marked or created. Memory grows by a few hundred
/// bytes for each message. What an account meets is a [`Difference`]: the other one's folders are looked at all the
/// same. Without the job's ledger nobody can tell what was imported already, and the result says so.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use mail_account::{ImportJob, provider::memory::{MemoryAccount, MemoryMailbox, MemoryOptions}, swap};
///
/// let mailbox = MemoryMailbox::new("facturen@contoso.example");
/// let old = MemoryAccount::open("basic", &mailbox, MemoryOptions::default());
/// let new = MemoryAccount::open("graph", &mailbox, MemoryOptions::default().with_stable_ids(true));
/// let rehearsal = swap::rehearse(&old, &new, &ImportJob::new("invoices", "Inbox".parse()?), None).await?;
/// assert!(rehearsal.safe());
/// # Ok::<(), mail_account::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`] when the two accounts name their mailbox differently and the ledger holds rows only for
/// the old name: the run after the swap would stop for the same reason. The text says which key to set.
/// [`ErrorKind::Storage`] when the ledger cannot be read.
pub async fn rehearse(
    old: &dyn MailAccount,
    new: &dyn MailAccount,
    job: &ImportJob,
    ledger: Option<&dyn Ledger>,
) -> Result<Rehearsal> {
    rehearse_with(old, new, job, ledger, Limits::default()).await
}

/// As [`rehearse`], reading more or less.
///
/// # Errors
///
/// As [`rehearse`].
pub async fn rehearse_with(
    old: &dyn MailAccount,
    new: &dyn MailAccount,
    job: &ImportJob,
    ledger: Option<&dyn Ledger>,
    limits: Limits,
) -> Result<Rehearsal> {
    let mut rehearsal = Rehearsal::new(Side::of(old), Side::of(new));
    names(old, new, job, ledger, &mut rehearsal).await?;

    let (old_folders, new_folders) =
        futures::join!(folders(old, job, &mut rehearsal.old), folders(new, job, &mut rehearsal.new));
    let old_found = rehearsal.take_folders(DifferenceKind::OldAccountError, old_folders);
    let new_found = rehearsal.take_folders(DifferenceKind::NewAccountError, new_folders);
    if let (Some(old_found), Some(new_found)) = (old_found, new_found) {
        let sides = Sides { old, new, job, limits };
        sides.messages(&old_found, &new_found, &mut rehearsal).await;
        if let Some(import) = &new_found.import {
            match first(new, job, ledger, import).await? {
                Ok(first) => rehearsal.new.first = first,
                Err(error) => rehearsal.account_error(DifferenceKind::NewAccountError, &error),
            }
        }
    }
    behaviour(job, &mut rehearsal);
    rehearsal.old.requests = old.usage().requests;
    rehearsal.new.requests = new.usage().requests;
    Ok(rehearsal)
}

/// Whether the ledger will know the mailbox again.
async fn names(
    old: &dyn MailAccount,
    new: &dyn MailAccount,
    job: &ImportJob,
    ledger: Option<&dyn Ledger>,
    rehearsal: &mut Rehearsal,
) -> Result<()> {
    let (before, after) = (&old.mailbox().name, &new.mailbox().name);
    let Some(ledger) = ledger else {
        rehearsal.unproven(
            UnprovenKind::Ledger,
            [
                "the job's ledger was not looked at, so nobody can tell what was imported already".to_owned(),
                "het logboek van de taak is niet bekeken, dus niemand weet wat al is geïmporteerd".to_owned(),
            ],
        );
        if before != after {
            rehearsal.add(Severity::Info, DifferenceKind::MailboxName, differently_named(before, after));
        }
        return Ok(());
    };
    if before == after {
        return Ok(());
    }
    let remembered = ledger.mailboxes(&job.name).await?;
    if !remembered.contains(before) || remembered.contains(after) {
        rehearsal.add(Severity::Info, DifferenceKind::MailboxName, differently_named(before, after));
        return Ok(());
    }
    if job.ledger_new {
        rehearsal.add(
            Severity::Blocking,
            DifferenceKind::NewLedger,
            [
                format!(
                    "the ledger knows what was imported from `{before}`; `ledger = \"new\"` lets the job begin anew with `{after}`. If it is the same mailbox, remove that line and set `address = \"{before}\"` in account `{}`",
                    new.mailbox().account
                ),
                format!(
                    "het logboek weet wat uit `{before}` is geïmporteerd; door `ledger = \"new\"` begint de taak opnieuw met `{after}`. Als het hetzelfde postvak is, verwijder dan die regel en stel `address = \"{before}\"` in bij account `{}`",
                    new.mailbox().account
                ),
            ],
        );
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidConfig,
        format!(
            "the ledger of job `{}` belongs to the mailbox `{before}` and knows nothing of `{after}`. Is it the same mailbox? Then set `address = \"{before}\"` in account `{}`; if it is another one, set `ledger = \"new\"` in the job",
            job.name,
            new.mailbox().account
        ),
    )
    .with_account(&new.mailbox().account))
}

fn differently_named(before: &str, after: &str) -> [String; 2] {
    [
        format!("the old account names the mailbox `{before}`, the new one `{after}`"),
        format!("het oude account noemt het postvak `{before}`, het nieuwe `{after}`"),
    ]
}

/// What the job does differently afterwards, whatever the mailbox holds.
fn behaviour(job: &ImportJob, rehearsal: &mut Rehearsal) {
    if rehearsal.old.stable_ids != rehearsal.new.stable_ids {
        let (keeps, changes) = match rehearsal.new.stable_ids {
            true => (&rehearsal.new.account, &rehearsal.old.account),
            false => (&rehearsal.old.account, &rehearsal.new.account),
        };
        let detail = [
            format!("a message keeps its id when it moves through `{keeps}`, and gets another through `{changes}`"),
            format!("een bericht dat `{keeps}` verplaatst houdt zijn id, en krijgt bij `{changes}` een andere"),
        ];
        rehearsal.add(Severity::Info, DifferenceKind::StableIds, detail);
    }
    if job.since == Since::Now {
        rehearsal.unproven(
            UnprovenKind::SinceNow,
            [
                "the job imports what arrived after its first run; the list of what comes first does not take that into account".to_owned(),
                "de taak importeert wat na de eerste ronde binnenkwam; de lijst van wat het eerst komt houdt daar geen rekening mee".to_owned(),
            ],
        );
    }
}

struct Sides<'a> {
    old: &'a dyn MailAccount,
    new: &'a dyn MailAccount,
    job: &'a ImportJob,
    limits: Limits,
}

impl Sides<'_> {
    async fn messages(&self, old: &Found, new: &Found, rehearsal: &mut Rehearsal) {
        let pairs = [("import_folder", &old.import, &new.import), ("processed_folder", &old.processed, &new.processed)];
        let (mut seen_old, mut seen_new, mut same) = (0, 0, 0);
        let mut found = Vec::new();
        for (key, old, new) in pairs {
            let (Some(old), Some(new)) = (old, new) else { continue };
            let Some((entries_old, entries_new)) = self.read(key, old, new, rehearsal).await else { return };
            let comparison = compare(&entries_old, &entries_new, self.job.unread_only);
            seen_old += entries_old.len();
            seen_new += entries_new.len();
            same += comparison.pairs;
            found.push((key, old, new, entries_old, entries_new, comparison));
        }
        if seen_old > 0 && seen_new > 0 && same == 0 {
            let (old, new) = (&rehearsal.old.account, &rehearsal.new.account);
            let detail = [
                format!(
                    "`{old}` shows {seen_old} messages in the job's folders and `{new}` shows {seen_new}, and not one is the same: these are two mailboxes, or other folders"
                ),
                format!(
                    "`{old}` toont {seen_old} berichten in de mappen van de taak en `{new}` {seen_new}, en niet één is hetzelfde: dit zijn twee postvakken, of andere mappen"
                ),
            ];
            rehearsal.add(Severity::Blocking, DifferenceKind::OtherMailbox, detail);
            return;
        }
        if same == 0 && rehearsal.old.mailbox != rehearsal.new.mailbox {
            rehearsal.unproven(
                UnprovenKind::SameMailbox,
                [
                    "there is no message to tell by whether both accounts read the same mailbox".to_owned(),
                    "er is geen bericht waaraan te zien is of beide accounts hetzelfde postvak lezen".to_owned(),
                ],
            );
        }
        for (key, old, new, entries_old, entries_new, comparison) in found {
            let told = Told { key, old, new, entries_old: &entries_old, entries_new: &entries_new };
            self.tell(&told, comparison, rehearsal).await;
        }
    }

    /// What both accounts show of a folder; `None` when one of them failed.
    async fn read(
        &self,
        key: &'static str,
        old: &crate::FolderId,
        new: &crate::FolderId,
        rehearsal: &mut Rehearsal,
    ) -> Option<(Vec<Entry>, Vec<Entry>)> {
        let (a, b) = futures::join!(listing::list(self.old, old), listing::list(self.new, new));
        let a = rehearsal.take(DifferenceKind::OldAccountError, a);
        let b = rehearsal.take(DifferenceKind::NewAccountError, b);
        let (mut a, mut b) = (a?, b?);
        let (wanted_a, wanted_b) = compare::wanted(&a, &b, self.limits.newest);
        let (ra, rb) = futures::join!(
            listing::read_files(self.old, old, &mut a, wanted_a),
            listing::read_files(self.new, new, &mut b, wanted_b)
        );
        let ra = rehearsal.take(DifferenceKind::OldAccountError, ra);
        let rb = rehearsal.take(DifferenceKind::NewAccountError, rb);
        ra.and(rb)?;
        for (side, entries) in [(&mut rehearsal.old, &a), (&mut rehearsal.new, &b)] {
            let compared = entries.iter().filter(|e| e.files.is_some()).count();
            side.counted(key, entries.len(), compared);
        }
        Some((a, b))
    }

    async fn tell(&self, told: &Told<'_>, comparison: Comparison, rehearsal: &mut Rehearsal) {
        for (kind, severity, details) in comparison.findings {
            let more = details.len().saturating_sub(self.limits.told);
            for (entry, what) in details.into_iter().take(self.limits.told) {
                let mut detail = told.message(&told.entries_old[entry]);
                for (detail, what) in detail.iter_mut().zip(what).filter(|(_, what)| !what.is_empty()) {
                    detail.push_str(": ");
                    detail.push_str(what);
                }
                rehearsal.add(severity, kind, detail);
            }
            if more > 0 {
                rehearsal.add(severity, kind, told.more(more));
            }
        }
        if comparison.unread > 0 {
            let (key, messages) = (told.key, comparison.unread);
            let detail = [
                format!(
                    "{key}: the attachments of {messages} messages were not compared; those of the newest were, and of every message without a Message-ID of its own"
                ),
                format!(
                    "{key}: de bijlagen van {messages} berichten zijn niet vergeleken; die van de nieuwste wel, en van elk bericht zonder eigen Message-ID"
                ),
            ];
            rehearsal.unproven(UnprovenKind::Attachments, detail);
        }
        self.unmatched(told, &comparison.missing, true, rehearsal).await;
        self.unmatched(told, &comparison.extra, false, rehearsal).await;
    }

    /// Messages that only one account shows. The mailbox lives on: what has moved or arrived meanwhile is looked for
    /// once more before it is told.
    async fn unmatched(&self, told: &Told<'_>, unmatched: &[usize], missing: bool, rehearsal: &mut Rehearsal) {
        let (here, mine, there, entries, others, kind) = match missing {
            true => (
                self.old,
                told.old,
                (self.new, told.new),
                told.entries_old,
                told.entries_new,
                DifferenceKind::MessageMissing,
            ),
            false => (
                self.new,
                told.new,
                (self.old, told.old),
                told.entries_new,
                told.entries_old,
                DifferenceKind::MessageExtra,
            ),
        };
        // A message more in the processed folder costs nothing; in the import folder it would be imported.
        let severity = match (missing, told.key) {
            (false, "processed_folder") => Severity::Info,
            _ => Severity::Blocking,
        };
        let known: HashSet<_> = others.iter().map(|e| e.key).collect();
        for &at in unmatched.iter().take(self.limits.told) {
            let entry = &entries[at];
            let detail = told.message(entry);
            if listing::has_changed(here, mine, entry, there, known.contains(&entry.key)).await {
                rehearsal.add(Severity::Info, DifferenceKind::ChangedMeanwhile, detail);
                continue;
            }
            rehearsal.add(severity, kind, detail);
        }
        let more = unmatched.len().saturating_sub(self.limits.told);
        if more > 0 {
            rehearsal.add(severity, kind, told.more(more));
        }
    }
}

struct Told<'a> {
    key: &'static str,
    old: &'a crate::FolderId,
    new: &'a crate::FolderId,
    entries_old: &'a [Entry],
    entries_new: &'a [Entry],
}

impl Told<'_> {
    fn message(&self, entry: &Entry) -> [String; 2] {
        entry.label().map(|label| format!("{}: {label}", self.key))
    }

    fn more(&self, messages: usize) -> [String; 2] {
        [format!("{}: and {messages} more", self.key), format!("{}: en nog {messages}", self.key)]
    }
}

/// How many messages of the import folder are looked up in the ledger to find those that come first.
const LOOKED_UP: usize = 1_000;
const FIRST: usize = 10;

/// What the new account would hand over first. The outer error is the ledger's.
async fn first(
    new: &dyn MailAccount,
    job: &ImportJob,
    ledger: Option<&dyn Ledger>,
    import: &crate::FolderId,
) -> Result<Result<Vec<FirstMessage>>> {
    let mailbox = new.mailbox();
    let scope = Scope::new(&job.name, &mailbox.name);
    let since = if let Since::Date(date) = job.since { Some(date) } else { None };
    let query =
        Query::default().with_unread_only(job.unread_only).with_since(since).with_inline_up_to(0).with_limit(LOOKED_UP);
    let mut messages = new.fetch_messages(import, query);
    let mut first = Vec::new();
    while let Some(message) = messages.next().await {
        let message = match message {
            Ok(message) => message,
            Err(error) => return Ok(Err(error)),
        };
        let known = match ledger {
            Some(ledger) => is_known(new, &message, ledger, &scope).await?,
            None => key_of(new, &message).await.map(|key| (key, false)),
        };
        let key = match known {
            Ok((_, true)) => continue,
            Ok((key, false)) => key,
            Err(error) => return Ok(Err(error)),
        };
        first.push(FirstMessage::new(key, message.subject, message.received));
        if first.len() == FIRST {
            break;
        }
    }
    Ok(Ok(first))
}

async fn key_of(account: &dyn MailAccount, message: &Message) -> Result<MessageKey> {
    let own = message.internet_message_id.as_deref().and_then(MessageKey::of_message_id);
    if let Some(key) = own {
        return Ok(key);
    }
    let digest = digest_of(account, message).await?;
    Ok(MessageKey::without_message_id(digest, &Evidence::of(message)))
}

async fn digest_of(account: &dyn MailAccount, message: &Message) -> Result<Digest> {
    Ok(listing::Files::read(account, message).await?.map_or(Digest::Unknown, |files| files.digest))
}

/// The message's key, and whether its outcome is recorded. Its files are read only where a row could be about it. The
/// outer error is the ledger's.
async fn is_known(
    account: &dyn MailAccount,
    message: &Message,
    ledger: &dyn Ledger,
    scope: &Scope,
) -> Result<Result<(MessageKey, bool)>> {
    let key = match key_of(account, message).await {
        Ok(key) => key,
        Err(error) => return Ok(Err(error)),
    };
    let named = message.internet_message_id.as_deref().and_then(MessageKey::of_message_id).is_some();
    let evidence = Evidence::of(message);
    let me = &account.mailbox().account;
    let settled =
        |row: &Row| row.step == Step::Done || matches!(row.outcome, Some(outcome) if outcome != Recorded::Gone);
    let by_key = ledger.find(scope, Find::Message { account: me, handle: &message.id, key: &key }).await?;
    if by_key.iter().any(|row| settled(row) && row.account == *me && row.handle == message.id) {
        return Ok(Ok((key, true)));
    }
    let subject = Find::Subject { subject_norm: &evidence.subject, without_message_id: named };
    let by_subject = ledger.find(scope, subject).await?;
    if !by_key.iter().chain(&by_subject).any(settled) {
        return Ok(Ok((key, false)));
    }
    let digest = match digest_of(account, message).await {
        Ok(digest) => digest,
        Err(error) => return Ok(Err(error)),
    };
    let is_same = |row: &Row| row.key == key && same(row, digest, &evidence) == Relation::Same;
    let known = by_key.iter().any(|row| settled(row) && is_same(row))
        || by_subject.iter().any(|row| settled(row) && same_without_message_id(row, digest, &evidence));
    Ok(Ok((key, known)))
}
