//! The little that differs between the databases: connecting, binding, reading a column, beginning.
//!
//! Connections are held one by one, without sqlx's pool: a pool ties itself to the runtime and the clock of whoever
//! opened it, and a store outlives both in tests and in hosts with several runtimes.

use std::sync::{Mutex, PoisonError};

use futures::TryStreamExt as _;
#[cfg(feature = "postgres")]
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow, Postgres};
#[cfg(feature = "sqlite")]
use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::sync::Semaphore;

/// What to connect to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    #[cfg(feature = "sqlite")]
    Sqlite(Box<SqliteConnectOptions>),
    #[cfg(feature = "postgres")]
    Postgres(Box<PgConnectOptions>),
}

impl Target {
    pub(super) async fn connect(&self) -> sqlx::Result<Connection> {
        Ok(match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(options) => Connection::Sqlite(Box::new(options.connect().await?)),
            #[cfg(feature = "postgres")]
            Self::Postgres(options) => Connection::Postgres(Box::new(options.connect().await?)),
        })
    }

    pub(super) fn is_sqlite(&self) -> bool {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => true,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => false,
        }
    }

    /// One that cannot write, and so never waits for the writer.
    async fn connect_reader(&self) -> sqlx::Result<Connection> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(options) => {
                let reader = (**options).clone().pragma("query_only", "ON");
                Self::Sqlite(Box::new(reader)).connect().await
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => self.connect().await,
        }
    }
}

/// One connection to either database.
#[derive(Debug)]
pub(super) enum Connection {
    #[cfg(feature = "sqlite")]
    Sqlite(Box<SqliteConnection>),
    #[cfg(feature = "postgres")]
    Postgres(Box<PgConnection>),
}

/// A value for a placeholder. A column is one of these three types on both databases.
#[derive(Clone, Debug)]
pub(super) enum Arg {
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self::Int(Some(i64::from(value)))
    }
}

impl From<Option<i64>> for Arg {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Arg {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<Option<&str>> for Arg {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}

/// One expression for both databases: `$body` with `$database` and `$it` of that arm.
macro_rules! either {
    ($value:expr, $database:ident, $it:ident => $body:expr) => {
        match $value {
            #[cfg(feature = "sqlite")]
            Self::Sqlite($it) => {
                #[allow(dead_code)]
                type $database = Sqlite;
                $body
            }
            #[cfg(feature = "postgres")]
            Self::Postgres($it) => {
                #[allow(dead_code)]
                type $database = Postgres;
                $body
            }
        }
    };
}

macro_rules! bound {
    ($database:ty, $sql:expr, $args:expr) => {{
        let mut query = sqlx::query::<$database>($sql);
        for arg in $args {
            query = match arg {
                Arg::Int(value) => query.bind(value),
                Arg::Text(value) => query.bind(value),
                Arg::Bytes(value) => query.bind(value),
            };
        }
        query
    }};
}

impl Connection {
    /// Runs a statement, and says how many rows it changed.
    pub(super) async fn run(&mut self, sql: &'static str, args: Vec<Arg>) -> sqlx::Result<u64> {
        let args = self.fit(args);
        either!(self, Db, it => Ok(bound!(Db, sql, args).execute(&mut **it).await?.rows_affected()))
    }

    /// Runs a statement, and gives the rows it returns one after the other: some KiB each, of which few are in memory
    /// at a time.
    pub(super) async fn each(&mut self, sql: &'static str, args: Vec<Arg>, take: Take<'_>) -> sqlx::Result<()> {
        let args = self.fit(args);
        either!(self, Db, it => {
            let mut rows = bound!(Db, sql, args).fetch(&mut **it);
            while let Some(row) = rows.try_next().await? {
                take(row.into())?;
            }
        });
        Ok(())
    }

    /// Runs a statement, and gives the rows it returns.
    pub(super) async fn all(&mut self, sql: &'static str, args: Vec<Arg>) -> sqlx::Result<Vec<Record>> {
        let mut records = Vec::new();
        self.each(sql, args, &mut |record| {
            records.push(record);
            Ok(())
        })
        .await?;
        Ok(records)
    }

    /// Runs a statement that returns at most one row.
    pub(super) async fn one(&mut self, sql: &'static str, args: Vec<Arg>) -> sqlx::Result<Option<Record>> {
        Ok(self.all(sql, args).await?.into_iter().next())
    }

    /// Begins a transaction that writes. SQLite takes its write lock at once: a transaction that reads first and
    /// writes later would fail without waiting when somebody else wrote in between.
    pub(super) async fn begin(&mut self) -> sqlx::Result<()> {
        let sql = if self.is_sqlite() { "BEGIN IMMEDIATE" } else { "BEGIN" };
        self.run(sql, Vec::new()).await.map(drop)
    }

    pub(super) async fn commit(&mut self) -> sqlx::Result<()> {
        self.run("COMMIT", Vec::new()).await.map(drop)
    }

    pub(super) async fn rollback(&mut self) -> sqlx::Result<()> {
        self.run("ROLLBACK", Vec::new()).await.map(drop)
    }

    /// Ends the connection, and with it whatever transaction is still open.
    pub(super) async fn close(self) {
        // An error changes nothing: the connection is gone either way.
        let _ = either!(self, Db, it => it.close().await);
    }

    /// How SQLite would go about a query.
    #[cfg(all(test, feature = "sqlite"))]
    pub(super) async fn explain(&mut self, sql: &str) -> String {
        let Self::Sqlite(it) = self else { unreachable!("these tests are of SQLite") };
        let sql = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let rows = sqlx::query(sql).fetch_all(&mut **it).await.unwrap();
        rows.iter().map(|row| row.get::<String, _>(3) + "\n").collect()
    }

    pub(super) fn is_sqlite(&self) -> bool {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => true,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => false,
        }
    }

    /// PostgreSQL has no text with U+0000, which a hostile subject may hold.
    fn fit(&self, mut args: Vec<Arg>) -> Vec<Arg> {
        if self.is_sqlite() {
            return args;
        }
        for arg in &mut args {
            if let Arg::Text(Some(text)) = arg
                && text.contains('\0')
            {
                *text = text.replace('\0', "\u{fffd}");
            }
        }
        args
    }
}

/// One row of an answer.
#[derive(Debug)]
pub(super) enum Record {
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteRow),
    #[cfg(feature = "postgres")]
    Postgres(PgRow),
}

#[cfg(feature = "sqlite")]
impl From<SqliteRow> for Record {
    fn from(row: SqliteRow) -> Self {
        Self::Sqlite(row)
    }
}

#[cfg(feature = "postgres")]
impl From<PgRow> for Record {
    fn from(row: PgRow) -> Self {
        Self::Postgres(row)
    }
}

/// What is done with each row of an answer; the first error ends the reading.
pub(super) type Take<'a> = &'a mut (dyn FnMut(Record) -> sqlx::Result<()> + Send);

impl Record {
    pub(super) fn int(&self, column: usize) -> sqlx::Result<Option<i64>> {
        either!(self, Db, it => it.try_get(column))
    }

    pub(super) fn text(&self, column: usize) -> sqlx::Result<Option<String>> {
        either!(self, Db, it => it.try_get(column))
    }

    pub(super) fn bytes(&self, column: usize) -> sqlx::Result<Option<Vec<u8>>> {
        either!(self, Db, it => it.try_get(column))
    }
}

/// A few connections for reading, so that nobody who reads waits behind the writer.
#[derive(Debug)]
pub(super) struct Readers {
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new() -> Self {
        Self { permits: Semaphore::new(4), idle: Mutex::default() }
    }

    pub(super) async fn each(
        &self,
        target: &Target,
        sql: &'static str,
        args: Vec<Arg>,
        take: Take<'_>,
    ) -> sqlx::Result<()> {
        // Never closed, so never an error.
        let _permit = self.permits.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => target.connect_reader().await?,
        };
        // One that failed, or whose caller went away, is dropped instead of put back.
        connection.each(sql, args, take).await?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(())
    }
}
