//! Leases: one run at a time writes about a scope, and a late write of an earlier one is refused. The right to refresh
//! a sign-in is taken the same way; see `sign_ins.rs`.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    committer::{Refusal, Transaction},
    db::{Arg, Record},
    owner::{Machine, Owner},
    rows::{from_micros, micros},
};
use crate::{
    Context, Error, ErrorKind, Result,
    store::{Lease, Scope},
};

/// The columns of a lease, in whatever table; see [`Held::read`].
macro_rules! lease_columns {
    () => {
        "token, owner, host, boot, ttl, expires"
    };
}
pub(super) use lease_columns;

/// The statements about the lease in a row of this table.
macro_rules! lease_statements {
    ($table:literal) => {
        $crate::store::sql::lease::Statements {
            shorten: concat!("UPDATE ", $table, " SET expires = $2 WHERE id = $1"),
            take: concat!(
                "UPDATE ",
                $table,
                " SET token = token + 1, owner = $2, host = $3, boot = $4, ttl = $5, expires = $6
                 WHERE id = $1 RETURNING token"
            ),
        }
    };
}
pub(super) use lease_statements;

pub(super) struct Statements {
    pub(super) shorten: &'static str,
    pub(super) take: &'static str,
}

const STATEMENTS: Statements = lease_statements!("mail_account_scopes");

macro_rules! select_lease {
    ($suffix:literal) => {
        concat!(
            "SELECT id, baseline, ",
            lease_columns!(),
            " FROM mail_account_scopes WHERE job = $1 AND mailbox = $2",
            $suffix
        )
    };
}

/// Also read outside of a transaction, by [`Ledger::check`](crate::Ledger::check).
pub(super) const SELECT: &str = select_lease!("");
/// On PostgreSQL another writer could take the lease over between our look and our commit. SQLite has one writer.
const SELECT_LOCKED: &str = select_lease!(" FOR UPDATE");

/// What a row tells about its lease.
#[derive(Debug)]
pub(super) struct Held {
    token: i64,
    holder: Option<(String, Machine)>,
    ttl: i64,
    expires: i64,
}

impl Held {
    /// From [`lease_columns`], the first of which has this number.
    pub(super) fn read(record: &Record, first: usize) -> sqlx::Result<Self> {
        let text = |column: usize| record.text(first + column);
        let int = |column: usize| Ok::<_, sqlx::Error>(record.int(first + column)?.unwrap_or_default());
        let machine = Machine { host: text(2)?.unwrap_or_default(), boot: text(3)?.unwrap_or_default() };
        Ok(Self { token: int(0)?, holder: text(1)?.map(|id| (id, machine)), ttl: int(4)?, expires: int(5)? })
    }
}

/// What the database knows about a scope.
#[derive(Debug)]
pub(super) struct State {
    pub(super) id: i64,
    pub(super) baseline: Option<Timestamp>,
    held: Held,
}

impl State {
    pub(super) fn read(record: &Record) -> sqlx::Result<Self> {
        Ok(Self {
            id: record.int(0)?.unwrap_or_default(),
            baseline: record.int(1)?.map(from_micros).transpose()?,
            held: Held::read(record, 2)?,
        })
    }

    /// Refuses a lease that somebody else has taken over, or that was given back.
    fn is_current(&self, lease: &Lease) -> Result<()> {
        let why = if self.held.token != lease.token {
            format!("was taken over by run {}", self.held.token)
        } else if self.held.holder.is_none() {
            "was given back".to_owned()
        } else {
            return Ok(());
        };
        Err(lost(lease, &why))
    }

    /// Refuses a lease that no longer holds.
    pub(super) fn holds(&self, lease: &Lease, now: i64) -> Result<()> {
        self.is_current(lease)?;
        if self.held.expires <= now {
            return Err(lost(lease, "has expired"));
        }
        Ok(())
    }
}

pub(super) fn lost(lease: &Lease, why: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!(
            "the lease of run {} on {} {why}; nothing more is written by that run, and the next run goes on from what \
             is recorded",
            lease.token, lease.scope
        ),
    )
}

pub(super) fn scope_args(scope: &Scope) -> Vec<Arg> {
    vec![scope.job.as_str().into(), scope.mailbox.as_str().into()]
}

pub(super) async fn state(tx: &mut Transaction<'_>, scope: &Scope) -> sqlx::Result<Option<State>> {
    let sql = if tx.is_sqlite() { SELECT } else { SELECT_LOCKED };
    tx.one(sql, scope_args(scope)).await?.map(|record| State::read(&record)).transpose()
}

/// The state of a scope, which is known from now on.
async fn state_or_new(tx: &mut Transaction<'_>, scope: &Scope) -> sqlx::Result<State> {
    // A number that another session took first makes the insert do nothing; the next round has the next one.
    loop {
        if let Some(state) = state(tx, scope).await? {
            return Ok(state);
        }
        tx.run(
            "INSERT INTO mail_account_scopes (id, job, mailbox)
             SELECT coalesce(max(id), 0) + 1, $1, $2 FROM mail_account_scopes WHERE 1 = 1
             ON CONFLICT DO NOTHING",
            scope_args(scope),
        )
        .await?;
    }
}

/// The token, or `None` when another run holds the lease.
pub(super) async fn acquire(
    tx: &mut Transaction<'_>,
    owner: &Owner,
    scope: &Scope,
    ttl: Duration,
) -> Result<Option<i64>, Refusal> {
    let found = state_or_new(tx, scope).await?;
    Ok(take(tx, owner, &STATEMENTS, found.id.into(), &found.held, ttl).await?)
}

/// Takes the lease in the row with this id, which was found `held`: the token, or `None` when somebody else has it.
pub(super) async fn take(
    tx: &mut Transaction<'_>,
    owner: &Owner,
    statements: &Statements,
    row: Arg,
    held: &Held,
    ttl: Duration,
) -> sqlx::Result<Option<i64>> {
    let now = tx.now().await?;
    if let Some((id, machine)) = &held.holder
        && held.expires > now
        && !owner.is_dead(id, machine)
    {
        // The clock was set back since the holder wrote this. Without a new bound a paused holder would keep the
        // lease for as long as the clock was set back.
        if held.expires > now.saturating_add(held.ttl) {
            tx.run(statements.shorten, vec![row, now.saturating_add(held.ttl).into()]).await?;
        }
        return Ok(None);
    }
    let ttl = length(ttl);
    let taken = tx
        .one(
            statements.take,
            vec![
                row,
                owner.id.as_str().into(),
                owner.machine.host.as_str().into(),
                owner.machine.boot.as_str().into(),
                ttl.into(),
                now.saturating_add(ttl).into(),
            ],
        )
        .await?;
    tx.has_changed();
    taken.map(|record| record.int(0)).transpose().map(Option::flatten)
}

pub(super) async fn renew(tx: &mut Transaction<'_>, lease: &Lease, ttl: Duration) -> Result<(), Refusal> {
    let found = state(tx, &lease.scope).await?.ok_or_else(|| lost(lease, "is not known to this ledger"))?;
    // One that has expired is revived as long as nobody else has taken it: a clock that was set forward, or a computer
    // that slept, need not end a run.
    found.is_current(lease)?;
    let ttl = length(ttl);
    // Never to an earlier moment: the clock may have been set back, and may be set right again.
    let expires = tx.now().await?.saturating_add(ttl).max(found.held.expires);
    tx.run(
        "UPDATE mail_account_scopes SET ttl = $2, expires = $3 WHERE id = $1",
        vec![found.id.into(), ttl.into(), expires.into()],
    )
    .await?;
    Ok(())
}

pub(super) async fn release(tx: &mut Transaction<'_>, lease: &Lease) -> Result<(), Refusal> {
    let mut args = scope_args(&lease.scope);
    args.push(lease.token.into());
    tx.run(
        "UPDATE mail_account_scopes SET owner = NULL, host = NULL, boot = NULL, expires = 0
         WHERE job = $1 AND mailbox = $2 AND token = $3 AND owner IS NOT NULL",
        args,
    )
    .await?;
    Ok(())
}

pub(super) async fn baseline(tx: &mut Transaction<'_>, scope: &Scope, now: Timestamp) -> Result<i64, Refusal> {
    let found = state_or_new(tx, scope).await?;
    if let Some(baseline) = found.baseline {
        return Ok(micros(baseline));
    }
    let now = micros(now);
    tx.run("UPDATE mail_account_scopes SET baseline = $2 WHERE id = $1", vec![found.id.into(), now.into()]).await?;
    Ok(now)
}

/// The time that leases count by, in microseconds since 1970, or the statement that asks for it: on SQLite the
/// computer's clock, which all who can open the file share; on PostgreSQL the server's, because the clocks of several
/// computers differ.
pub(super) fn clock(is_sqlite: bool, context: &Context) -> Result<i64, &'static str> {
    if is_sqlite {
        return Ok(micros(context.now()));
    }
    Err("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
}

/// The answer to the statement of [`clock`].
pub(super) fn server_time(records: Vec<Record>) -> sqlx::Result<i64> {
    let record = records.first().ok_or(sqlx::Error::RowNotFound)?;
    record.int(0)?.ok_or(sqlx::Error::RowNotFound)
}

fn length(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX)
}
