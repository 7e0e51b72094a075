//! [`SignIn`] as columns, and the lease for refreshing it.

use std::{fmt, time::Duration};

use super::{
    committer::{Refusal, Transaction},
    db::{Arg, Record},
    lease::{self, Held, Statements, lease_columns, lease_statements},
    owner::Owner,
    rows::{from_micros, micros, missing},
};
use crate::{
    Error, ErrorKind, Result,
    store::{RefreshLease, SignIn, SignInId, SignInNeeded, Signer, seal::Sealer},
};

const STATEMENTS: Statements = lease_statements!("mail_account_sign_ins");

macro_rules! of_id {
    () => {
        " WHERE authority = $1 AND client_id = $2 AND principal = $3"
    };
}

macro_rules! select_row {
    ($suffix:literal) => {
        concat!("SELECT id, version, signed_in, ", lease_columns!(), " FROM mail_account_sign_ins", of_id!(), $suffix)
    };
}

const SELECT_ROW: &str = select_row!("");
/// Against another session on PostgreSQL. SQLite has one writer.
const SELECT_ROW_LOCKED: &str = select_row!(" FOR UPDATE");

/// One stored sign-in; see [`read`].
pub(super) const SELECT: &str = concat!(
    "SELECT id, version, refresh_token, previous, scopes, signer_id, signer_tenant, signer_name, signed_in, refreshed, \
     needed_since, needed_code, needed_why FROM mail_account_sign_ins",
    of_id!(),
    " AND refresh_token IS NOT NULL"
);

pub(super) const LIST: &str = "SELECT authority, client_id, principal, refreshed FROM mail_account_sign_ins \
     WHERE refresh_token IS NOT NULL ORDER BY authority, client_id, principal";

pub(super) fn id_args(id: &SignInId) -> Vec<Arg> {
    vec![id.authority().into(), id.client_id().into(), id.principal().into()]
}

/// What a stored sign-in is called in errors.
struct What<'a>(&'a SignInId);

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the sign-in of {}", self.0)
    }
}

/// What the refresh token of a row is sealed for.
fn refresh_of(row: &str) -> String {
    format!("mail-account sign-in {row} refresh token")
}

/// What the token before it is sealed for.
fn previous_of(row: &str) -> String {
    format!("mail-account sign-in {row} previous token")
}

/// What the database knows about a sign-in, without its secrets.
struct Row {
    id: String,
    version: i64,
    is_stored: bool,
    held: Held,
}

async fn row(tx: &mut Transaction<'_>, id: &SignInId) -> sqlx::Result<Option<Row>> {
    let sql = if tx.is_sqlite() { SELECT_ROW } else { SELECT_ROW_LOCKED };
    let Some(record) = tx.one(sql, id_args(id)).await? else { return Ok(None) };
    Ok(Some(Row {
        id: record.text(0)?.ok_or_else(|| missing("id"))?,
        version: record.int(1)?.unwrap_or_default(),
        is_stored: record.int(2)?.is_some(),
        held: Held::read(&record, 3)?,
    }))
}

async fn row_or_new(tx: &mut Transaction<'_>, id: &SignInId) -> sqlx::Result<Row> {
    // Another session may insert it first; the next round finds it.
    loop {
        if let Some(row) = row(tx, id).await? {
            return Ok(row);
        }
        let mut args = id_args(id);
        args.push(uuid::Uuid::new_v4().to_string().as_str().into());
        tx.run(
            "INSERT INTO mail_account_sign_ins (authority, client_id, principal, id) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING",
            args,
        )
        .await?;
    }
}

/// The token, or `None` when another process is refreshing.
pub(super) async fn lock(
    tx: &mut Transaction<'_>,
    owner: &Owner,
    id: &SignInId,
    ttl: Duration,
) -> Result<Option<i64>, Refusal> {
    let row = row_or_new(tx, id).await?;
    Ok(lease::take(tx, owner, &STATEMENTS, row.id.as_str().into(), &row.held, ttl).await?)
}

pub(super) async fn unlock(tx: &mut Transaction<'_>, lease: &RefreshLease) -> Result<(), Refusal> {
    let mut args = id_args(&lease.id);
    args.push(lease.token.into());
    tx.run(
        concat!(
            "UPDATE mail_account_sign_ins SET owner = NULL, host = NULL, boot = NULL, expires = 0",
            of_id!(),
            " AND token = $4 AND owner IS NOT NULL"
        ),
        args,
    )
    .await?;
    Ok(())
}

/// The new version.
pub(super) async fn put(
    tx: &mut Transaction<'_>,
    sealer: &Sealer,
    id: &SignInId,
    sign_in: &SignIn,
    replace: bool,
) -> Result<i64, Refusal> {
    // Before there is anything to undo.
    sealer.can_seal(&What(id))?;
    let row = match row(tx, id).await? {
        Some(row) => row,
        None if replace || sign_in.version == 0 => row_or_new(tx, id).await?,
        None => return Err(changed(id).into()),
    };
    let stored = if row.is_stored { row.version } else { 0 };
    if !replace && stored != sign_in.version {
        return Err(changed(id).into());
    }
    let seal = |secret, place: String| sealer.seal(tx.context(), secret, &place, &What(id));
    let refresh_token = seal(&sign_in.refresh_token, refresh_of(&row.id))?;
    let previous = sign_in.previous.as_ref().map(|secret| seal(secret, previous_of(&row.id))).transpose()?;
    let needed = sign_in.needed.as_ref();
    let version = row.version + 1;
    tx.run(
        "UPDATE mail_account_sign_ins SET version = $2, refresh_token = $3, previous = $4, scopes = $5, signer_id = $6,
         signer_tenant = $7, signer_name = $8, signed_in = $9, refreshed = $10, needed_since = $11, needed_code = $12,
         needed_why = $13 WHERE id = $1",
        vec![
            row.id.as_str().into(),
            version.into(),
            Arg::Bytes(Some(refresh_token)),
            Arg::Bytes(previous),
            sign_in.scopes.join(" ").as_str().into(),
            sign_in.signer.id.as_str().into(),
            sign_in.signer.tenant.as_deref().into(),
            sign_in.signer.name.as_str().into(),
            micros(sign_in.signed_in).into(),
            micros(sign_in.refreshed).into(),
            needed.map(|needed| micros(needed.since)).into(),
            needed.and_then(|needed| needed.code.as_deref()).into(),
            needed.map(|needed| needed.why.as_str()).into(),
        ],
    )
    .await?;
    Ok(version)
}

fn changed(id: &SignInId) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("the sign-in of {id} was changed by another process meanwhile; read it again"),
    )
}

pub(super) async fn forget(tx: &mut Transaction<'_>, id: &SignInId) -> Result<(), Refusal> {
    tx.run(
        concat!(
            "UPDATE mail_account_sign_ins SET version = version + 1, refresh_token = NULL, previous = NULL,
             scopes = NULL, signer_id = NULL, signer_tenant = NULL, signer_name = NULL, signed_in = NULL,
             refreshed = NULL, needed_since = NULL, needed_code = NULL, needed_why = NULL",
            of_id!(),
            " AND refresh_token IS NOT NULL"
        ),
        id_args(id),
    )
    .await?;
    Ok(())
}

/// A row of [`SELECT`], its secrets still sealed.
pub(super) struct Sealed {
    row: String,
    refresh_token: Vec<u8>,
    previous: Option<Vec<u8>>,
    /// All but the secrets.
    rest: SignIn,
}

pub(super) fn read(record: &Record) -> sqlx::Result<Sealed> {
    let time = |column| record.int(column)?.map(from_micros).transpose();
    let mut signer = Signer::new(record.text(5)?.unwrap_or_default(), record.text(7)?.unwrap_or_default());
    signer.tenant = record.text(6)?;
    let needed = match time(10)? {
        Some(since) => Some(SignInNeeded::new(since, record.text(11)?, record.text(12)?.unwrap_or_default())),
        None => None,
    };
    let rest = SignIn {
        version: record.int(1)?.unwrap_or_default(),
        scopes: record.text(4)?.unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        refreshed: time(9)?.ok_or_else(|| missing("refreshed"))?,
        needed,
        ..SignIn::new(crate::Secret::new(""), signer, time(8)?.ok_or_else(|| missing("signed_in"))?)
    };
    Ok(Sealed {
        row: record.text(0)?.unwrap_or_default(),
        refresh_token: record.bytes(2)?.unwrap_or_default(),
        previous: record.bytes(3)?,
        rest,
    })
}

impl Sealed {
    pub(super) fn open(self, sealer: &Sealer, id: &SignInId) -> Result<SignIn> {
        let open = |sealed: &[u8], place: String| sealer.open(sealed, &place, &What(id));
        Ok(SignIn {
            refresh_token: open(&self.refresh_token, refresh_of(&self.row))?,
            previous: self.previous.map(|sealed| open(&sealed, previous_of(&self.row))).transpose()?,
            ..self.rest
        })
    }
}

/// A row of [`LIST`].
pub(super) fn listed(record: &Record) -> sqlx::Result<(SignInId, jiff::Timestamp)> {
    let text = |column| Ok::<_, sqlx::Error>(record.text(column)?.unwrap_or_default());
    let refreshed = record.int(3)?.ok_or_else(|| missing("refreshed"))?;
    Ok((SignInId::new(&text(0)?, &text(1)?, &text(2)?), from_micros(refreshed)?))
}
