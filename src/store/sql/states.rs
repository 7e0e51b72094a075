//! [`StoredState`] as columns.

use super::{
    committer::{Refusal, Transaction},
    db::Record,
    rows::{from_micros, micros, missing},
};
use crate::store::StoredState;

macro_rules! select {
    ($suffix:literal) => {
        concat!(
            "SELECT account, condition, cause, code, english, dutch, since, last_success FROM mail_account_states ",
            $suffix
        )
    };
}

pub(super) const SELECT: &str = select!("WHERE account = $1");
pub(super) const SELECT_ALL: &str = select!("ORDER BY account");

/// Whether it was another one.
pub(super) async fn put(tx: &mut Transaction<'_>, state: &StoredState) -> Result<Option<i64>, Refusal> {
    let changed = tx
        .run(
            "INSERT INTO mail_account_states (account, condition, cause, code, english, dutch, since, last_success)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (account) DO UPDATE SET condition = excluded.condition, cause = excluded.cause,
             code = excluded.code, english = excluded.english, dutch = excluded.dutch, since = excluded.since,
             last_success = excluded.last_success
             WHERE mail_account_states.condition <> excluded.condition
             OR coalesce(mail_account_states.cause, '') <> coalesce(excluded.cause, '')",
            vec![
                state.account.as_str().into(),
                state.condition.as_str().into(),
                state.cause.as_deref().into(),
                state.code.as_deref().into(),
                state.english.as_str().into(),
                state.dutch.as_str().into(),
                micros(state.since).into(),
                state.last_success.map(micros).into(),
            ],
        )
        .await?;
    Ok((changed > 0).then_some(1))
}

pub(super) fn read(record: &Record) -> sqlx::Result<StoredState> {
    let text = |column| Ok::<_, sqlx::Error>(record.text(column)?.unwrap_or_default());
    let time = |column| record.int(column)?.map(from_micros).transpose();
    Ok(StoredState {
        cause: record.text(2)?,
        code: record.text(3)?,
        english: text(4)?,
        dutch: text(5)?,
        last_success: time(7)?,
        ..StoredState::new(text(0)?, text(1)?, time(6)?.ok_or_else(|| missing("since"))?)
    })
}
