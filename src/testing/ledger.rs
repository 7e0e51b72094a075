//! [`MemoryLedger`]: the contract of [`Ledger`] without a database.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use crate::{
    Context, Error, ErrorKind, Ledger, MessageId, MessageKey, Result, Scope,
    store::{Find, Lease, Place, Recorded, Row, Step},
};

/// A ledger that lasts as long as the test. Cheap to clone; clones are the same ledger.
#[derive(Clone)]
pub struct MemoryLedger {
    context: Context,
    state: Arc<Mutex<HashMap<Scope, Book>>>,
}

/// What a row is called within its scope.
type Name = (MessageKey, u32);

/// What is known of one scope.
#[derive(Default)]
struct Book {
    token: i64,
    /// Until when somebody holds the lease.
    expires: Option<Timestamp>,
    rows: BTreeMap<Name, Row>,
    /// Which rows have this handle and which this subject: both are asked for with every message.
    by_handle: HashMap<MessageId, BTreeSet<Name>>,
    by_subject: HashMap<String, BTreeSet<Name>>,
    baseline: Option<Timestamp>,
}

impl MemoryLedger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self { context: Context::default(), state: Arc::default() }
    }

    /// Another clock, by which leases expire.
    #[must_use]
    pub fn with_context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// All rows of a scope, the oldest received first.
    #[must_use]
    pub fn rows(&self, scope: &Scope) -> Vec<Row> {
        sorted(self.books().get(scope).into_iter().flat_map(|book| book.rows.values()).cloned().collect())
    }

    /// Takes every lease from its holder, as if the processes that hold them had died.
    pub fn drop_leases(&self) {
        self.books().values_mut().for_each(|book| book.expires = None);
    }

    fn books(&self) -> MutexGuard<'_, HashMap<Scope, Book>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn until(&self, ttl: Duration) -> Timestamp {
        let ttl = SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX);
        self.context.now().saturating_add(ttl).unwrap_or(Timestamp::MAX)
    }
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    // The sort is stable, and equals are in the order of their names already.
    rows.sort_by_key(|row| (row.received, row.first_seen));
    rows
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLedger").finish_non_exhaustive()
    }
}

impl Book {
    fn is_current(&self, lease: &Lease) -> Result<Timestamp> {
        match self.expires {
            Some(expires) if self.token == lease.token => Ok(expires),
            _ => Err(lost(lease, "was given back or taken over")),
        }
    }

    fn holds(&self, lease: &Lease, now: Timestamp) -> Result<()> {
        if self.is_current(lease)? <= now { Err(lost(lease, "has expired")) } else { Ok(()) }
    }

    fn write(&mut self, mut row: Row) {
        let name = (row.key.clone(), row.discriminator);
        let asked = self.rows.get(&name).filter(|known| known.retry);
        let answered = row.step == Step::Claimed || row.outcome.is_some_and(|outcome| outcome != Recorded::Failed);
        row.retry = false;
        if let Some(known) = asked.filter(|_| !answered) {
            row.retry = true;
            row.attempts = known.attempts;
            row.next_attempt = known.next_attempt;
        }
        self.by_handle.entry(row.handle.clone()).or_default().insert(name.clone());
        self.by_subject.entry(row.subject_norm.clone()).or_default().insert(name.clone());
        if let Some(old) = self.rows.insert(name.clone(), row) {
            let new = &self.rows[&name];
            if old.handle != new.handle {
                self.by_handle.get_mut(&old.handle).map(|names| names.remove(&name));
            }
            if old.subject_norm != new.subject_norm {
                self.by_subject.get_mut(&old.subject_norm).map(|names| names.remove(&name));
            }
        }
    }

    /// The rows that may be meant, by name.
    fn candidates(&self, what: &Find<'_>) -> Vec<&Row> {
        let names: BTreeSet<&Name> = match what {
            Find::Message { handle, key, .. } => {
                let of_key = ((*key).clone(), 0)..=((*key).clone(), u32::MAX);
                let of_key = self.rows.range(of_key).map(|(name, _)| name);
                self.by_handle.get(*handle).into_iter().flatten().chain(of_key).collect()
            }
            Find::Subject { subject_norm, .. } => self.by_subject.get(*subject_norm).into_iter().flatten().collect(),
            _ => return self.rows.values().collect(),
        };
        names.into_iter().map(|name| &self.rows[name]).collect()
    }
}

fn lost(lease: &Lease, why: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("the lease of run {} on {} {why}", lease.token, lease.scope))
}

fn is_failing(row: &Row) -> bool {
    row.outcome == Some(Recorded::Failed) || (row.step == Step::Waiting && (row.attempts > 0 || row.retry))
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn acquire(&self, scope: &Scope, ttl: Duration) -> Result<Option<Lease>> {
        let mut books = self.books();
        let book = books.entry(scope.clone()).or_default();
        if book.expires.is_some_and(|expires| expires > self.context.now()) {
            return Ok(None);
        }
        book.token += 1;
        book.expires = Some(self.until(ttl));
        Ok(Some(Lease { scope: scope.clone(), token: book.token }))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<()> {
        let mut books = self.books();
        let book = books.entry(lease.scope.clone()).or_default();
        // Never to an earlier moment: a clock that was set back may be set right again.
        book.expires = Some(book.is_current(lease)?.max(self.until(ttl)));
        Ok(())
    }

    async fn check(&self, lease: &Lease) -> Result<()> {
        self.books().entry(lease.scope.clone()).or_default().holds(lease, self.context.now())
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        let mut books = self.books();
        let book = books.entry(lease.scope.clone()).or_default();
        if book.token == lease.token {
            book.expires = None;
        }
        Ok(())
    }

    async fn commit(&self, lease: &Lease, rows: Vec<Row>) -> Result<()> {
        let mut books = self.books();
        let book = books.entry(lease.scope.clone()).or_default();
        book.holds(lease, self.context.now())?;
        rows.into_iter().for_each(|row| book.write(row));
        Ok(())
    }

    async fn find(&self, scope: &Scope, what: Find<'_>) -> Result<Vec<Row>> {
        let books = self.books();
        let rows = books.get(scope).map(|book| book.candidates(&what)).unwrap_or_default().into_iter();
        let wanted = |row: &&Row| match what {
            Find::Message { account, handle, key } => {
                (row.account == account && row.handle == *handle) || row.key == *key
            }
            Find::Subject { subject_norm, without_message_id } => {
                row.subject_norm == subject_norm && !(without_message_id && row.internet_message_id.is_some())
            }
            Find::Pending => row.step != Step::Done || row.retry,
            Find::Remaining { account, since } => {
                row.step == Step::Done
                    && row.place == Place::Import
                    && row.account == account
                    && since.is_none_or(|since| row.received >= since)
            }
            Find::Failures => is_failing(row),
        };
        Ok(sorted(rows.filter(wanted).cloned().collect()))
    }

    async fn watermark(&self, scope: &Scope) -> Result<Option<Timestamp>> {
        let rows = self.rows(scope);
        let at = |row: &Row| row.received.min(row.first_seen);
        let open = rows.iter().filter(|row| row.step != Step::Done).map(at).min();
        Ok(open.or_else(|| rows.iter().map(at).max()))
    }

    async fn mailboxes(&self, job: &str) -> Result<Vec<String>> {
        let books = self.books();
        let named = books.iter().filter(|(scope, book)| scope.job == job && !book.rows.is_empty());
        let mut names: Vec<_> = named.map(|(scope, _)| scope.mailbox.clone()).collect();
        names.sort();
        Ok(names)
    }

    async fn retry(&self, job: &str, key: Option<&MessageKey>) -> Result<u64> {
        let mut books = self.books();
        let mut failing: Vec<&mut Row> = books
            .iter_mut()
            .filter(|(scope, _)| scope.job == job)
            .flat_map(|(_, book)| book.rows.values_mut())
            .filter(|row| is_failing(row))
            .collect();
        if let Some(key) = key {
            let exact = failing.iter().any(|row| row.key == *key);
            failing.retain(|row| match row.key.as_str().split_once(':') {
                _ if exact => row.key == *key,
                Some((_, bare)) => bare == key.as_str(),
                None => false,
            });
        }
        for row in &mut failing {
            (row.retry, row.attempts, row.next_attempt) = (true, 0, None);
        }
        Ok(failing.len() as u64)
    }

    async fn baseline(&self, scope: &Scope, now: Timestamp) -> Result<Timestamp> {
        Ok(*self.books().entry(scope.clone()).or_default().baseline.get_or_insert(now))
    }
}
