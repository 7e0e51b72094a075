//! [`Pending`] hand-overs as columns.

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{
    committer::{Refusal, Transaction},
    db::{Arg, Record},
    rows::{from_micros, micros, missing},
};
use crate::{
    Error, ErrorKind, Result, Secret,
    store::{Pending, Purpose, SignInId, seal::Sealer},
};

/// How long one is remembered after its time, so that a late answer is told what became of it.
const KEPT_MICROS: i64 = 30 * 24 * 3600 * 1_000_000;

const WHAT: &str = "the sign-in that has begun";

/// A `state` as the database knows it.
#[derive(Clone, Debug)]
pub(super) struct StateHash([u8; 32]);

impl StateHash {
    pub(super) fn of(state: &Secret) -> Self {
        Self(Sha256::digest(state.expose().as_bytes()).into())
    }

    pub(super) fn arg(&self) -> Arg {
        Arg::Bytes(Some(self.0.to_vec()))
    }

    /// What a secret beside it is sealed for.
    fn place(&self, column: &str) -> String {
        let hash: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("mail-account hand-over {hash} {column}")
    }
}

/// See [`read`].
pub(super) const SELECT: &str = "SELECT account, purpose, authority, client_id, principal, verifier, nonce, \
     redirect_uri, begun, expires, used FROM mail_account_hand_overs WHERE state = $1";

pub(super) async fn put(tx: &mut Transaction<'_>, sealer: &Sealer, pending: &Pending) -> Result<(), Refusal> {
    let state = StateHash::of(&pending.state);
    // Where there is nothing to keep, no key is needed: an administrator's consent.
    let seal = |secret: &Secret, column| match secret.expose() {
        "" => Ok(None),
        _ => sealer.seal(tx.context(), secret, &state.place(column), &WHAT).map(Some),
    };
    let (verifier, nonce) = (seal(&pending.verifier, "verifier")?, seal(&pending.nonce, "nonce")?);
    let begun = micros(pending.begun);
    let added = tx
        .run(
            "INSERT INTO mail_account_hand_overs (state, account, purpose, authority, client_id, principal, verifier,
             nonce, redirect_uri, begun, expires) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT DO NOTHING",
            vec![
                state.arg(),
                pending.account.as_str().into(),
                purpose_number(pending.purpose).into(),
                pending.id.authority().into(),
                pending.id.client_id().into(),
                pending.id.principal().into(),
                Arg::Bytes(verifier),
                Arg::Bytes(nonce),
                pending.redirect_uri.as_str().into(),
                begun.into(),
                micros(pending.expires).into(),
            ],
        )
        .await?;
    if added == 0 {
        return Err(Error::new(ErrorKind::Conflict, "a sign-in with this `state` has begun before; begin anew").into());
    }
    tx.run("DELETE FROM mail_account_hand_overs WHERE expires < $1", vec![(begun - KEPT_MICROS).into()]).await?;
    Ok(())
}

/// Uses it up, unless somebody has, or its time has passed. Its secrets are wiped out of the database.
pub(super) async fn take(tx: &mut Transaction<'_>, state: &StateHash, now: Timestamp) -> Result<Option<i64>, Refusal> {
    let taken = tx
        .run(
            "UPDATE mail_account_hand_overs SET used = $2, verifier = NULL, nonce = NULL
             WHERE state = $1 AND used IS NULL AND expires > $2",
            vec![state.arg(), micros(now).into()],
        )
        .await?;
    Ok((taken == 1).then_some(1))
}

/// A row of [`SELECT`].
pub(super) struct Found {
    pub(super) account: String,
    pub(super) expires: Timestamp,
    pub(super) is_used: bool,
    purpose: Purpose,
    id: SignInId,
    verifier: Vec<u8>,
    nonce: Vec<u8>,
    redirect_uri: String,
    begun: Timestamp,
}

pub(super) fn read(record: &Record) -> sqlx::Result<Found> {
    let text = |column| Ok::<_, sqlx::Error>(record.text(column)?.unwrap_or_default());
    let time = |column, name| from_micros(record.int(column)?.ok_or_else(|| missing(name))?);
    Ok(Found {
        account: text(0)?,
        purpose: record.int(1)?.and_then(purpose_of).ok_or_else(|| missing("purpose"))?,
        id: SignInId::new(&text(2)?, &text(3)?, &text(4)?),
        verifier: record.bytes(5)?.unwrap_or_default(),
        nonce: record.bytes(6)?.unwrap_or_default(),
        redirect_uri: text(7)?,
        begun: time(8, "begun")?,
        expires: time(9, "expires")?,
        is_used: record.int(10)?.is_some(),
    })
}

impl Found {
    pub(super) fn open(self, sealer: &Sealer, state: &Secret) -> Result<Pending> {
        let hash = StateHash::of(state);
        let open = |sealed: &[u8], column| match sealed {
            [] => Ok(Secret::new("")),
            _ => sealer.open(sealed, &hash.place(column), &WHAT),
        };
        Ok(Pending {
            state: state.clone(),
            account: self.account,
            purpose: self.purpose,
            id: self.id,
            verifier: open(&self.verifier, "verifier")?,
            redirect_uri: self.redirect_uri,
            nonce: open(&self.nonce, "nonce")?,
            begun: self.begun,
            expires: self.expires,
        })
    }
}

const fn purpose_number(purpose: Purpose) -> i64 {
    match purpose {
        Purpose::SignIn => 0,
        Purpose::AdminConsent => 1,
    }
}

fn purpose_of(number: i64) -> Option<Purpose> {
    [Purpose::SignIn, Purpose::AdminConsent].into_iter().find(|purpose| purpose_number(*purpose) == number)
}
