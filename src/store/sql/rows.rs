//! [`Row`] as columns: writing, finding, queueing for another try.

use jiff::Timestamp;

use super::{
    committer::{Refusal, Transaction},
    db::{Arg, Record},
    lease::{self, scope_args},
};
use crate::{
    Address, Digest, Language, MessageId, MessageKey, Reason,
    store::{Find, Lease, Place, Recorded, Row, Scope, Step},
};

macro_rules! columns {
    () => {
        "key, discriminator, step, outcome, reason_code, reason_en, reason_nl, deliveries, attempts, deaths, \
         last_attempt, next_attempt, retry, account, handle, place, run, digest, sent_second, sender, subject_norm, \
         subject, from_name, from_address, internet_message_id, received, first_seen, duplicate_key, \
         duplicate_discriminator"
    };
}

/// Stays empty for a scope nobody has written about.
macro_rules! in_scope {
    () => {
        "scope = (SELECT id FROM mail_account_scopes WHERE job = $1 AND mailbox = $2)"
    };
}

macro_rules! find {
    ($condition:expr) => {
        concat!("SELECT ", columns!(), " FROM mail_account_messages WHERE ", in_scope!(), " AND ", $condition)
    };
}

macro_rules! oldest_first {
    ($query:expr) => {
        concat!($query, " ORDER BY received, first_seen, key, discriminator")
    };
}

// Two searches, each by its own index: one condition with OR makes the planner guess.
const FIND_MESSAGE: &str = oldest_first!(concat!(
    find!("account = $3 AND handle = $4"),
    " UNION ALL ",
    find!("key = $5 AND NOT (account = $3 AND handle = $4)")
));
const FIND_SUBJECT: &str = oldest_first!(find!("subject_norm = $3"));
const FIND_SUBJECT_WITHOUT_ID: &str = oldest_first!(find!("subject_norm = $3 AND internet_message_id IS NULL"));
const FIND_PENDING: &str = oldest_first!(find!("pending = 1"));
const FIND_REMAINING: &str = oldest_first!(find!("remaining = 1 AND account = $3 AND received >= $4"));
const FIND_FAILURES: &str = oldest_first!(find!("failing = 1"));

pub(super) const MAILBOXES: &str = "SELECT mailbox FROM mail_account_scopes AS s WHERE job = $1
     AND EXISTS (SELECT 1 FROM mail_account_messages WHERE scope = s.id) ORDER BY mailbox";

/// The smallest of what is open, else the largest of all.
pub(super) const WATERMARK: &str = concat!(
    "SELECT coalesce((SELECT min(settled_at) FROM mail_account_messages WHERE ",
    in_scope!(),
    " AND unsettled = 1), (SELECT max(settled_at) FROM mail_account_messages WHERE ",
    in_scope!(),
    "))"
);

/// Whether a stored request for another try outlives this write: only handing the message over, or an end that is not
/// a failure, answers it. Without this a run that read the row before the request would wipe it out.
macro_rules! if_retry_stays {
    ($then:literal, $else:literal) => {
        concat!(
            "CASE WHEN mail_account_messages.retry = 1 AND excluded.step <> 1 AND coalesce(excluded.outcome, 2) = 2 \
             THEN ",
            $then,
            " ELSE ",
            $else,
            " END"
        )
    };
}

const UPSERT: &str = concat!(
    "INSERT INTO mail_account_messages (",
    columns!(),
    ", scope) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0, $13, $14, $15, $16, $17, $18, \
     $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29) \
     ON CONFLICT (scope, key, discriminator) DO UPDATE SET step = excluded.step, outcome = excluded.outcome, \
     reason_code = excluded.reason_code, reason_en = excluded.reason_en, reason_nl = excluded.reason_nl, \
     deliveries = excluded.deliveries, attempts = ",
    if_retry_stays!("mail_account_messages.attempts", "excluded.attempts"),
    ", deaths = excluded.deaths, last_attempt = excluded.last_attempt, next_attempt = ",
    if_retry_stays!("mail_account_messages.next_attempt", "excluded.next_attempt"),
    ", retry = ",
    if_retry_stays!("1", "0"),
    ", account = excluded.account, handle = excluded.handle, place = excluded.place, run = excluded.run, \
     digest = excluded.digest, sent_second = excluded.sent_second, sender = excluded.sender, \
     subject_norm = excluded.subject_norm, subject = excluded.subject, from_name = excluded.from_name, \
     from_address = excluded.from_address, internet_message_id = excluded.internet_message_id, \
     received = excluded.received, first_seen = excluded.first_seen, duplicate_key = excluded.duplicate_key, \
     duplicate_discriminator = excluded.duplicate_discriminator"
);

macro_rules! queue_failing {
    ($condition:literal) => {
        concat!(
            "UPDATE mail_account_messages SET retry = 1, attempts = 0, next_attempt = NULL \
             WHERE scope IN (SELECT id FROM mail_account_scopes WHERE job = $1) AND failing = 1",
            $condition
        )
    };
}

const RETRY: &str = queue_failing!("");
pub(super) const RETRY_KEY: &str = queue_failing!(" AND key = $2");
const FAILING_KEYS: &str = "SELECT DISTINCT key FROM mail_account_messages \
     WHERE scope IN (SELECT id FROM mail_account_scopes WHERE job = $1) AND failing = 1";

/// Microseconds since 1970, rounded down: what both databases hold, and far enough for any date a message may claim.
pub(super) fn micros(time: Timestamp) -> i64 {
    // Within +-2^58 for every `Timestamp`.
    i64::try_from(time.as_nanosecond().div_euclid(1000)).unwrap_or(i64::MAX)
}

pub(super) fn from_micros(micros: i64) -> sqlx::Result<Timestamp> {
    // By nanoseconds, because jiff's own microseconds leave the last second of the range out.
    Timestamp::from_nanosecond(i128::from(micros) * 1000).map_err(|e| sqlx::Error::Decode(e.into()))
}

pub(super) async fn write(tx: &mut Transaction<'_>, lease: &Lease, rows: &[Row]) -> Result<(), Refusal> {
    let found =
        lease::state(tx, &lease.scope).await?.ok_or_else(|| lease::lost(lease, "is not known to this ledger"))?;
    found.holds(lease, tx.now().await?)?;
    for row in rows {
        tx.run(UPSERT, args(found.id, row)).await?;
    }
    Ok(())
}

pub(super) async fn queue_again(tx: &mut Transaction<'_>, job: &str, key: Option<&MessageKey>) -> Result<u64, Refusal> {
    let Some(key) = key else {
        return Ok(tx.run(RETRY, vec![job.into()]).await?);
    };
    let exact = tx.run(RETRY_KEY, vec![job.into(), key.as_str().into()]).await?;
    if exact > 0 {
        return Ok(exact);
    }
    // A person who copies a Message-ID out of a mail writes its brackets, and not the kind of key before it.
    let wanted = key.as_str().trim_start_matches('<').trim_end_matches('>');
    let mut count = 0;
    for record in tx.all(FAILING_KEYS, vec![job.into()]).await? {
        let failing = record.text(0)?.unwrap_or_default();
        if failing.split_once(':').is_some_and(|(_, bare)| bare == key.as_str() || bare == wanted) {
            count += tx.run(RETRY_KEY, vec![job.into(), failing.as_str().into()]).await?;
        }
    }
    Ok(count)
}

/// The statement and its arguments.
pub(super) fn query(scope: &Scope, what: &Find<'_>) -> (&'static str, Vec<Arg>) {
    let mut args = scope_args(scope);
    let sql = match what {
        Find::Message { account, handle, key } => {
            args.extend([(*account).into(), handle.as_str().into(), key.as_str().into()]);
            FIND_MESSAGE
        }
        Find::Subject { subject_norm, without_message_id } => {
            args.push((*subject_norm).into());
            if *without_message_id { FIND_SUBJECT_WITHOUT_ID } else { FIND_SUBJECT }
        }
        Find::Pending => FIND_PENDING,
        Find::Remaining { account, since } => {
            args.extend([(*account).into(), since.map_or(i64::MIN, micros).into()]);
            FIND_REMAINING
        }
        Find::Failures => FIND_FAILURES,
    };
    (sql, args)
}

/// In the order of the placeholders of [`UPSERT`].
fn args(scope: i64, row: &Row) -> Vec<Arg> {
    let reason = row.reason.as_ref();
    let digest = match row.digest {
        Digest::Unknown => None,
        Digest::Nothing => Some(Vec::new()),
        Digest::Known(bytes) => Some(bytes.to_vec()),
    };
    let duplicate = row.possible_duplicate_of.as_ref();
    vec![
        row.key.as_str().into(),
        row.discriminator.into(),
        step_number(row.step).into(),
        row.outcome.map(outcome_number).into(),
        reason.map(Reason::code).into(),
        reason.map(|reason| reason.text(Language::English)).into(),
        reason.and_then(Reason::dutch).into(),
        row.deliveries.into(),
        row.attempts.into(),
        row.deaths.into(),
        row.last_attempt.map(micros).into(),
        row.next_attempt.map(micros).into(),
        row.account.as_str().into(),
        row.handle.as_str().into(),
        place_number(row.place).into(),
        row.run.into(),
        Arg::Bytes(digest),
        row.sent_second.into(),
        row.sender.as_str().into(),
        row.subject_norm.as_str().into(),
        row.subject.as_deref().into(),
        row.from.as_ref().and_then(|from| from.name.as_deref()).into(),
        row.from.as_ref().map(|from| from.address.as_str()).into(),
        row.internet_message_id.as_deref().into(),
        micros(row.received).into(),
        micros(row.first_seen).into(),
        duplicate.map(|(key, _)| key.as_str()).into(),
        duplicate.map(|(_, discriminator)| i64::from(*discriminator)).into(),
        scope.into(),
    ]
}

/// In the order of `columns!`.
pub(super) fn read(record: &Record) -> sqlx::Result<Row> {
    let mut columns = Columns { record, next: 0 };
    Ok(Row {
        key: columns.key()?.ok_or_else(|| missing("key"))?,
        discriminator: columns.count()?,
        step: columns.int()?.and_then(step_of).ok_or_else(|| missing("step"))?,
        outcome: columns.int()?.map(|n| outcome_of(n).ok_or_else(|| missing("outcome"))).transpose()?,
        reason: columns.reason()?,
        deliveries: columns.count()?,
        attempts: columns.count()?,
        deaths: columns.count()?,
        last_attempt: columns.time()?,
        next_attempt: columns.time()?,
        retry: columns.int()? == Some(1),
        account: columns.text()?.unwrap_or_default(),
        handle: MessageId::new(columns.text()?.unwrap_or_default()),
        place: columns.int()?.and_then(place_of).ok_or_else(|| missing("place"))?,
        run: columns.int()?.unwrap_or_default(),
        digest: columns.digest()?,
        sent_second: columns.int()?,
        sender: columns.text()?.unwrap_or_default(),
        subject_norm: columns.text()?.unwrap_or_default(),
        subject: columns.text()?,
        from: columns.address()?,
        internet_message_id: columns.text()?,
        received: columns.time()?.ok_or_else(|| missing("received"))?,
        first_seen: columns.time()?.ok_or_else(|| missing("first_seen"))?,
        possible_duplicate_of: match (columns.key()?, columns.int()?) {
            (Some(key), Some(n)) => Some((key, count(n)?)),
            _ => None,
        },
    })
}

/// Reads one column after the other.
struct Columns<'a> {
    record: &'a Record,
    next: usize,
}

impl Columns<'_> {
    fn step(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    fn int(&mut self) -> sqlx::Result<Option<i64>> {
        let column = self.step();
        self.record.int(column)
    }

    fn text(&mut self) -> sqlx::Result<Option<String>> {
        let column = self.step();
        self.record.text(column)
    }

    fn count(&mut self) -> sqlx::Result<u32> {
        count(self.int()?.unwrap_or_default())
    }

    fn time(&mut self) -> sqlx::Result<Option<Timestamp>> {
        self.int()?.map(from_micros).transpose()
    }

    fn key(&mut self) -> sqlx::Result<Option<MessageKey>> {
        self.text()?.map(|key| key.parse().map_err(|e: crate::Error| sqlx::Error::Decode(e.into()))).transpose()
    }

    fn reason(&mut self) -> sqlx::Result<Option<Reason>> {
        let (code, english, dutch) = (self.text()?, self.text()?, self.text()?);
        let Some(code) = code else { return Ok(None) };
        let reason = Reason::new(code, english.unwrap_or_default());
        Ok(Some(match dutch {
            Some(dutch) => reason.with_dutch(dutch),
            None => reason,
        }))
    }

    fn digest(&mut self) -> sqlx::Result<Digest> {
        let column = self.step();
        match self.record.bytes(column)? {
            None => Ok(Digest::Unknown),
            Some(bytes) if bytes.is_empty() => Ok(Digest::Nothing),
            Some(bytes) => Ok(Digest::Known(bytes.try_into().map_err(|_| missing("digest"))?)),
        }
    }

    fn address(&mut self) -> sqlx::Result<Option<Address>> {
        let (name, address) = (self.text()?, self.text()?);
        Ok(address.map(|address| Address { name, address }))
    }
}

fn count(n: i64) -> sqlx::Result<u32> {
    u32::try_from(n).map_err(|e| sqlx::Error::Decode(e.into()))
}

pub(super) fn missing(column: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("the column `{column}` holds a value that this version does not know").into())
}

const fn step_number(step: Step) -> i64 {
    match step {
        Step::Waiting => 0,
        Step::Claimed => 1,
        Step::Handled => 2,
        Step::Done => 3,
    }
}

fn step_of(number: i64) -> Option<Step> {
    [Step::Waiting, Step::Claimed, Step::Handled, Step::Done].into_iter().find(|step| step_number(*step) == number)
}

const fn outcome_number(outcome: Recorded) -> i64 {
    match outcome {
        Recorded::Imported => 0,
        Recorded::Skipped => 1,
        Recorded::Failed => 2,
        Recorded::Gone => 3,
    }
}

fn outcome_of(number: i64) -> Option<Recorded> {
    [Recorded::Imported, Recorded::Skipped, Recorded::Failed, Recorded::Gone]
        .into_iter()
        .find(|outcome| outcome_number(*outcome) == number)
}

const fn place_number(place: Place) -> i64 {
    match place {
        Place::Import => 0,
        Place::Processed => 1,
        Place::Failed => 2,
    }
}

fn place_of(number: i64) -> Option<Place> {
    [Place::Import, Place::Processed, Place::Failed].into_iter().find(|place| place_number(*place) == number)
}
