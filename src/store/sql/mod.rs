//! [`SqlStore`]: the ledger and the sign-ins in a SQL database. The same statements run on SQLite and on PostgreSQL.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | opening, and a trait impl that only forwards |
//! | `db.rs` | the little that differs between the databases |
//! | `schema.rs` | the tables, and how an older database becomes a current one |
//! | `committer.rs` | the one writer: many calls, one transaction, one sync |
//! | `lease.rs` | leases with their fencing token |
//! | `owner.rs` | telling that the holder of a lease is dead, with a file lock |
//! | `rows.rs` | rows as columns: writing, finding, queueing for another try |
//! | `sign_ins.rs`, `hand_overs.rs` | sign-ins as columns, and those that have begun |
//! | `states.rs` | states of accounts as columns |
//! | `fault.rs` | what a database's failure means, and what to do about it |
//! | `tests.rs` | what only shows with the database in hand |

mod committer;
mod db;
mod fault;
mod hand_overs;
mod lease;
mod owner;
mod rows;
mod schema;
mod sign_ins;
mod states;
#[cfg(all(test, feature = "sqlite"))]
mod tests;

#[cfg(feature = "sqlite")]
use std::path::Path;
use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
#[cfg(feature = "sqlite")]
use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions, sqlite::SqliteSynchronous};

use self::{
    committer::{Committer, Work},
    db::{Arg, Connection, Readers, Record, Take, Target},
    fault::Disk,
    hand_overs::StateHash,
    owner::Owner,
    schema::{Failed, STEPS},
};
use super::{
    Find, KeyRing, Lease, Ledger, Pending, RefreshLease, Row, Scope, SignIn, SignInId, StateStore, StoredState, Taken,
    TokenStore, seal::Sealer,
};
use crate::{Context, MessageKey, Result, Secret};

/// The [`Ledger`] and the [`TokenStore`] in a SQL database: SQLite in one file (feature `sqlite`), or PostgreSQL
/// (feature `postgres`).
///
/// Cheap to clone; clones are the same opened store. What a call has written is on disk when it returns (SQLite in WAL
/// mode with `synchronous=FULL`). Calls that wait at the same moment share one transaction and its sync.
///
/// Several processes on one computer may open the same file: the importer, and an operator's look at its failures. A
/// file on a network file system does not work, because WAL mode needs memory that all who open it share. Use
/// PostgreSQL for several computers.
///
/// While a store is open, a locked file in the folder `<path>-owners` (on PostgreSQL in a folder of the user's) shows
/// that its process lives: the lease of one that died on this computer is taken over at once. Leave that folder alone
/// while a job runs.
///
/// Sign-ins are stored sealed; give the keys [`with_keys`](Self::with_keys). Without any only the ledger can be used.
///
/// Times are kept in whole microseconds.
///
/// ```
/// use std::time::Duration;
/// use mail_account::{Ledger, MessageId, Scope, SqlStore, store::{Find, Row}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> mail_account::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// let store = SqlStore::open(folder.path().join("mail-account.db")).await?;
///
/// let scope = Scope::new("emailed-invoices", "facturen@contoso.nl");
/// let lease = store.acquire(&scope, Duration::from_secs(120)).await?.expect("nobody else runs this job");
/// assert!(store.acquire(&scope, Duration::from_secs(120)).await?.is_none());
///
/// let received = "2026-11-22T09:30:00Z".parse().unwrap();
/// let row = Row::new("<1@contoso.nl>".parse()?, "invoices-graph", MessageId::new("AAMkAG="), received);
/// store.commit(&lease, vec![row.clone()]).await?;
/// assert_eq!(store.find(&scope, Find::Pending).await?, [row]);
///
/// store.release(&lease).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqlStore {
    shared: Arc<Shared>,
    context: Context,
    sealer: Arc<Sealer>,
}

struct Shared {
    disk: Arc<Disk>,
    readers: Readers,
    committer: Arc<Committer>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The writer's thread may outlive the last answer it gave by a moment.
        self.committer.leave();
    }
}

impl fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore").field("place", &self.shared.disk.to_string()).finish_non_exhaustive()
    }
}

impl SqlStore {
    /// Opens the SQLite database at this path. A file that does not exist is made, readable by its owner alone; its
    /// folder must exist. An older one is brought up to date.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage), naming the path and what to do: the folder is missing, the
    /// file cannot be written or is not a SQLite database, a newer version of this crate has written it, or it lies on
    /// a network file system.
    #[cfg(feature = "sqlite")]
    pub async fn open(path: impl AsRef<Path> + Send) -> Result<Self> {
        Self::open_with(path.as_ref(), SqliteConnectOptions::new()).await
    }

    #[cfg(feature = "sqlite")]
    async fn open_with(path: &Path, options: SqliteConnectOptions) -> Result<Self> {
        let disk = Disk::new(path.display(), Target::Sqlite(Box::new(options.clone())));
        let path = fault::prepare(path).map_err(|problem| disk.cannot_open(problem))?;
        let options = options
            .filename(&path)
            .create_if_missing(true)
            .busy_timeout(Duration::from_secs(10))
            .foreign_keys(true)
            .synchronous(SqliteSynchronous::Full)
            // Elsewhere the same as a sync; on macOS only this one reaches the platter.
            .pragma("fullfsync", "ON")
            .pragma("checkpoint_fullfsync", "ON")
            // How large the file beside the database may stay after a burst.
            .pragma("journal_size_limit", "16777216")
            .disable_statement_logging();
        let disk = disk.at(Target::Sqlite(Box::new(options)));
        let owner = Owner::beside(&path).map_err(|e| disk.no_owner(e))?;
        Self::start(disk, owner).await
    }

    /// Connects to a PostgreSQL database, and makes the tables there (their names begin with `mail_account_`).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for a URL that is none;
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage) when the server cannot be reached, refuses, or a newer version
    /// of this crate has written there.
    #[cfg(feature = "postgres")]
    pub async fn connect(url: &str) -> Result<Self> {
        let disk = fault::server(url)?;
        Self::start(disk, Owner::on_this_machine()).await
    }

    async fn start(disk: Disk, owner: Owner) -> Result<Self> {
        let mut connection = disk.connect_first().await?;
        match schema::migrate(&mut connection, STEPS).await {
            Ok(()) => {}
            Err(Failed::Newer { found, known }) => return Err(disk.newer(found, known)),
            Err(Failed::Database(error)) => return Err(disk.failed(Arc::new(error))),
        }
        let disk = Arc::new(disk);
        let committer = Arc::new(Committer::new(Arc::clone(&disk), owner, connection));
        let shared = Shared { disk, readers: Readers::new(), committer };
        Ok(Self { shared: Arc::new(shared), context: Context::default(), sealer: Arc::default() })
    }

    /// The same opened store with another clock. On SQLite leases expire by it; on PostgreSQL by the server's.
    #[must_use]
    pub fn with_context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// The same opened store, sealing sign-ins with these keys.
    #[must_use]
    pub fn with_keys(mut self, keys: KeyRing) -> Self {
        self.sealer = Arc::new(Sealer { ring: Some(Arc::new(keys)), plaintext: self.sealer.plaintext });
        self
    }

    /// The same opened store, which may hold sign-ins in plain text: it writes them so without a key, and reads them
    /// so with or without one. Whoever can read the database can then read the mailboxes.
    #[must_use]
    pub fn with_plaintext_tokens(mut self) -> Self {
        self.sealer = Arc::new(Sealer { ring: self.sealer.ring.clone(), plaintext: true });
        self
    }

    /// How many transactions this opened store, with all its clones, has written: each is one sync of the database's
    /// log. The syncs with which SQLite now and then moves its log into the database are not counted.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.shared.committer.syncs()
    }

    async fn write(&self, work: Work) -> Result<Option<i64>> {
        self.shared.committer.submit(&self.context, work).await
    }

    async fn read(&self, sql: &'static str, args: Vec<Arg>) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        self.read_each(sql, args, &mut |record| {
            records.push(record);
            Ok(())
        })
        .await?;
        Ok(records)
    }

    async fn read_each(&self, sql: &'static str, args: Vec<Arg>, take: Take<'_>) -> Result<()> {
        let target = &self.shared.disk.target;
        self.shared.readers.each(target, sql, args, take).await.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: sqlx::Error) -> crate::Error {
        self.shared.disk.failed(Arc::new(error))
    }

    async fn lease(&self, scope: &Scope) -> Result<Option<lease::State>> {
        let records = self.read(lease::SELECT, lease::scope_args(scope)).await?;
        records.first().map(lease::State::read).transpose().map_err(|e| self.failed(e))
    }
}

#[async_trait]
impl Ledger for SqlStore {
    async fn acquire(&self, scope: &Scope, ttl: Duration) -> Result<Option<Lease>> {
        let token = self.write(Work::Acquire { scope: scope.clone(), ttl }).await?;
        Ok(token.map(|token| Lease { scope: scope.clone(), token }))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<()> {
        self.write(Work::Renew { lease: lease.clone(), ttl }).await.map(drop)
    }

    async fn check(&self, lease: &Lease) -> Result<()> {
        let state = self.lease(&lease.scope).await?.ok_or_else(|| lease::lost(lease, "is not known to this ledger"))?;
        let now = match lease::clock(self.shared.disk.target.is_sqlite(), &self.context) {
            Ok(now) => now,
            Err(sql) => lease::server_time(self.read(sql, Vec::new()).await?).map_err(|e| self.failed(e))?,
        };
        state.holds(lease, now)
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        self.write(Work::Release { lease: lease.clone() }).await.map(drop)
    }

    async fn commit(&self, lease: &Lease, rows: Vec<Row>) -> Result<()> {
        self.write(Work::Write { lease: lease.clone(), rows }).await.map(drop)
    }

    async fn find(&self, scope: &Scope, what: Find<'_>) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        self.find_each(scope, what, &mut |row| rows.push(row)).await?;
        Ok(rows)
    }

    async fn find_each(&self, scope: &Scope, what: Find<'_>, take: &mut (dyn FnMut(Row) + Send)) -> Result<()> {
        let (sql, args) = rows::query(scope, &what);
        self.read_each(sql, args, &mut |record| rows::read(&record).map(&mut *take)).await
    }

    async fn watermark(&self, scope: &Scope) -> Result<Option<Timestamp>> {
        let records = self.read(rows::WATERMARK, lease::scope_args(scope)).await?;
        let read = |record: &Record| record.int(0)?.map(rows::from_micros).transpose();
        records.first().map(read).transpose().map(Option::flatten).map_err(|e| self.failed(e))
    }

    async fn mailboxes(&self, job: &str) -> Result<Vec<String>> {
        let records = self.read(rows::MAILBOXES, vec![job.into()]).await?;
        let read = |record: &Record| Ok(record.text(0)?.unwrap_or_default());
        records.iter().map(read).collect::<sqlx::Result<_>>().map_err(|e| self.failed(e))
    }

    async fn retry(&self, job: &str, key: Option<&MessageKey>) -> Result<u64> {
        let count = self.write(Work::Retry { job: job.to_owned(), key: key.cloned() }).await?;
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default())
    }

    async fn baseline(&self, scope: &Scope, now: Timestamp) -> Result<Timestamp> {
        // Nearly always known already: an empty poll writes nothing.
        if let Some(baseline) = self.lease(scope).await?.and_then(|state| state.baseline) {
            return Ok(baseline);
        }
        let baseline = self.write(Work::Baseline { scope: scope.clone(), now }).await?;
        baseline.map_or(Ok(now), |micros| rows::from_micros(micros).map_err(|e| self.failed(e)))
    }
}

#[async_trait]
impl TokenStore for SqlStore {
    async fn ready(&self) -> Result<()> {
        self.sealer.can_seal(&"a sign-in")
    }

    async fn sign_in(&self, id: &SignInId) -> Result<Option<SignIn>> {
        let records = self.read(sign_ins::SELECT, sign_ins::id_args(id)).await?;
        let sealed = records.first().map(sign_ins::read).transpose().map_err(|e| self.failed(e))?;
        sealed.map(|sealed| sealed.open(&self.sealer, id)).transpose()
    }

    async fn put_sign_in(&self, id: &SignInId, sign_in: &SignIn, replace: bool) -> Result<i64> {
        let sealer = Arc::clone(&self.sealer);
        let work = Work::PutSignIn { id: id.clone(), sign_in: Box::new(sign_in.clone()), replace, sealer };
        self.write(work).await.map(Option::unwrap_or_default)
    }

    async fn forget_sign_in(&self, id: &SignInId) -> Result<()> {
        self.write(Work::Forget { id: id.clone() }).await.map(drop)
    }

    async fn sign_ins(&self) -> Result<Vec<(SignInId, Timestamp)>> {
        let records = self.read(sign_ins::LIST, Vec::new()).await?;
        records.iter().map(sign_ins::listed).collect::<sqlx::Result<_>>().map_err(|e| self.failed(e))
    }

    async fn lock(&self, id: &SignInId, ttl: Duration) -> Result<Option<RefreshLease>> {
        let token = self.write(Work::Lock { id: id.clone(), ttl }).await?;
        Ok(token.map(|token| RefreshLease { id: id.clone(), token }))
    }

    async fn unlock(&self, lease: &RefreshLease) -> Result<()> {
        self.write(Work::Unlock { lease: lease.clone() }).await.map(drop)
    }

    async fn put_pending(&self, pending: &Pending) -> Result<()> {
        let work = Work::Begin { pending: Box::new(pending.clone()), sealer: Arc::clone(&self.sealer) };
        self.write(work).await.map(drop)
    }

    async fn take_pending(&self, state: &Secret, now: Timestamp) -> Result<Taken> {
        let hash = StateHash::of(state);
        let records = self.read(hand_overs::SELECT, vec![hash.arg()]).await?;
        let Some(found) = records.first().map(hand_overs::read).transpose().map_err(|e| self.failed(e))? else {
            return Ok(Taken::Unknown);
        };
        let account = found.account.clone();
        if found.is_used {
            return Ok(Taken::Used { account });
        }
        if found.expires <= now {
            return Ok(Taken::Expired { account });
        }
        // Opened before it is used up: without its key nothing is lost.
        let pending = found.open(&self.sealer, state)?;
        match self.write(Work::TakePending { state: hash, now }).await? {
            Some(_) => Ok(Taken::Open(pending)),
            None => Ok(Taken::Used { account }),
        }
    }
}

#[async_trait]
impl StateStore for SqlStore {
    async fn account_state(&self, account: &str) -> Result<Option<StoredState>> {
        let records = self.read(states::SELECT, vec![account.into()]).await?;
        records.first().map(states::read).transpose().map_err(|e| self.failed(e))
    }

    async fn account_states(&self) -> Result<Vec<StoredState>> {
        let records = self.read(states::SELECT_ALL, Vec::new()).await?;
        records.iter().map(states::read).collect::<sqlx::Result<_>>().map_err(|e| self.failed(e))
    }

    async fn put_account_state(&self, state: &StoredState) -> Result<bool> {
        // Nearly always known already: an empty poll writes nothing.
        let known = self.account_state(&state.account).await?;
        if known.is_some_and(|known| known.condition == state.condition && known.cause == state.cause) {
            return Ok(false);
        }
        let changed = self.write(Work::PutState { state: Box::new(state.clone()) }).await?;
        Ok(changed.is_some())
    }
}
