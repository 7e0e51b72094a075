//! The tables, and how an older database becomes a current one.
//!
//! The version table is our own: sqlx's default one is shared with the migrations of the host, which may keep its
//! tables in the same database. For the same reason every name begins with `mail_account_`.

use super::db::Connection;

/// The statements that lead to each version, oldest first; the last one's version is the one this crate writes.
/// A step that has been published is never edited: a new one follows it.
///
/// Integers and times (microseconds since 1970 in UTC, without leap seconds) are `bigint`, so that the same text and
/// the same binding work on both databases.
pub(super) const STEPS: &[Step] = &[
    Step { version: 1, statements: MESSAGES },
    Step { version: 2, statements: SIGN_INS },
    Step { version: 3, statements: STATES },
];

const MESSAGES: &[&str] = &[
    // One row for each (job, mailbox): a small number for the rows of messages to refer to, the lease, and when
    // `since = "now"` began.
    "CREATE TABLE IF NOT EXISTS mail_account_scopes (
            id bigint NOT NULL PRIMARY KEY,
            job text NOT NULL,
            mailbox text NOT NULL,
            token bigint NOT NULL DEFAULT 0,
            owner text,
            host text,
            boot text,
            ttl bigint NOT NULL DEFAULT 0,
            expires bigint NOT NULL DEFAULT 0,
            baseline bigint,
            UNIQUE (job, mailbox)
        )",
    // The columns at the end are what the searches ask for, each written down once and kept true by the database:
    // `settled_at` is what the watermark is made of, the others mark the few rows that a search is about. As columns
    // they are compared for equality, which makes the planner prefer their indexes whatever its statistics say.
    "CREATE TABLE IF NOT EXISTS mail_account_messages (
            scope bigint NOT NULL REFERENCES mail_account_scopes (id),
            key text NOT NULL,
            discriminator bigint NOT NULL,
            step bigint NOT NULL,
            outcome bigint,
            reason_code text,
            reason_en text,
            reason_nl text,
            deliveries bigint NOT NULL,
            attempts bigint NOT NULL,
            deaths bigint NOT NULL,
            last_attempt bigint,
            next_attempt bigint,
            retry bigint NOT NULL,
            account text NOT NULL,
            handle text NOT NULL,
            place bigint NOT NULL,
            run bigint NOT NULL,
            digest bytea,
            sent_second bigint,
            sender text NOT NULL,
            subject_norm text NOT NULL,
            subject text,
            from_name text,
            from_address text,
            internet_message_id text,
            received bigint NOT NULL,
            first_seen bigint NOT NULL,
            duplicate_key text,
            duplicate_discriminator bigint,
            settled_at bigint GENERATED ALWAYS AS
                (CASE WHEN received < first_seen THEN received ELSE first_seen END) STORED,
            unsettled bigint GENERATED ALWAYS AS
                (CASE WHEN step <> 3 THEN 1 END) STORED,
            pending bigint GENERATED ALWAYS AS
                (CASE WHEN step <> 3 OR retry = 1 THEN 1 END) STORED,
            failing bigint GENERATED ALWAYS AS
                (CASE WHEN outcome = 2 OR (step = 0 AND (attempts > 0 OR retry = 1)) THEN 1 END) STORED,
            remaining bigint GENERATED ALWAYS AS
                (CASE WHEN step = 3 AND place = 0 THEN 1 END) STORED,
            PRIMARY KEY (scope, key, discriminator)
        )",
    "CREATE INDEX IF NOT EXISTS mail_account_messages_handle
            ON mail_account_messages (scope, account, handle)",
    "CREATE INDEX IF NOT EXISTS mail_account_messages_subject
            ON mail_account_messages (scope, subject_norm)",
    "CREATE INDEX IF NOT EXISTS mail_account_messages_settled
            ON mail_account_messages (scope, settled_at)",
    // The partial ones stay small however long the ledger grows.
    "CREATE INDEX IF NOT EXISTS mail_account_messages_unsettled
            ON mail_account_messages (scope, unsettled, settled_at) WHERE unsettled = 1",
    "CREATE INDEX IF NOT EXISTS mail_account_messages_pending
            ON mail_account_messages (scope, pending) WHERE pending = 1",
    "CREATE INDEX IF NOT EXISTS mail_account_messages_failing
            ON mail_account_messages (scope, failing, key) WHERE failing = 1",
    "CREATE INDEX IF NOT EXISTS mail_account_messages_remaining
            ON mail_account_messages (scope, remaining, account, received) WHERE remaining = 1",
];

const SIGN_INS: &[&str] = &[
    // One row for each person at an app registration: the lease for refreshing, and the sign-in, if there is one. The
    // secrets in it are sealed for the row's id, which is random and never changes; a row whose sign-in is forgotten
    // stays, so that neither `version` nor `token` ever comes again.
    "CREATE TABLE IF NOT EXISTS mail_account_sign_ins (
            id text NOT NULL PRIMARY KEY,
            authority text NOT NULL,
            client_id text NOT NULL,
            principal text NOT NULL,
            token bigint NOT NULL DEFAULT 0,
            owner text,
            host text,
            boot text,
            ttl bigint NOT NULL DEFAULT 0,
            expires bigint NOT NULL DEFAULT 0,
            version bigint NOT NULL DEFAULT 0,
            refresh_token bytea,
            previous bytea,
            scopes text,
            signer_id text,
            signer_tenant text,
            signer_name text,
            signed_in bigint,
            refreshed bigint,
            needed_since bigint,
            needed_code text,
            needed_why text,
            UNIQUE (authority, client_id, principal)
        )",
    // `state` is the SHA-256 of the parameter: whoever reads the database cannot answer in its name.
    "CREATE TABLE IF NOT EXISTS mail_account_hand_overs (
            state bytea NOT NULL PRIMARY KEY,
            account text NOT NULL,
            purpose bigint NOT NULL,
            authority text NOT NULL,
            client_id text NOT NULL,
            principal text NOT NULL,
            verifier bytea,
            nonce bytea,
            redirect_uri text NOT NULL,
            begun bigint NOT NULL,
            expires bigint NOT NULL,
            used bigint
        )",
];

const STATES: &[&str] = &["CREATE TABLE IF NOT EXISTS mail_account_states (
        account text NOT NULL PRIMARY KEY,
        condition text NOT NULL,
        cause text,
        code text,
        english text NOT NULL,
        dutch text NOT NULL,
        since bigint NOT NULL,
        last_success bigint
    )"];

/// One version.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) version: i64,
    pub(super) statements: &'static [&'static str],
}

/// What kept a database from becoming current.
#[derive(Debug)]
pub(super) enum Failed {
    /// It was written by a newer version of this crate.
    Newer {
        found: i64,
        known: i64,
    },
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// Makes a database current, in one transaction: a second process that opens it at the same moment waits, and then
/// finds nothing left to do.
pub(super) async fn migrate(connection: &mut Connection, steps: &[Step]) -> Result<(), Failed> {
    connection.begin().await?;
    match upgrade(connection, steps).await {
        Ok(()) => Ok(connection.commit().await?),
        Err(failed) => {
            // The first error is the one to report.
            let _ = connection.rollback().await;
            Err(failed)
        }
    }
}

async fn upgrade(connection: &mut Connection, steps: &[Step]) -> Result<(), Failed> {
    if !connection.is_sqlite() {
        // `IF NOT EXISTS` alone does not keep two sessions apart on PostgreSQL. The number is ours, and arbitrary.
        connection.run("SELECT pg_advisory_xact_lock(7236152190034)", Vec::new()).await?;
    }
    connection
        .run("CREATE TABLE IF NOT EXISTS mail_account_schema (version bigint NOT NULL PRIMARY KEY)", Vec::new())
        .await?;
    let found = connection.one("SELECT max(version) FROM mail_account_schema", Vec::new()).await?;
    let found = found.map(|record| record.int(0)).transpose()?.flatten().unwrap_or(0);
    let known = steps.last().map_or(0, |step| step.version);
    if found > known {
        return Err(Failed::Newer { found, known });
    }
    for step in steps.iter().filter(|step| step.version > found) {
        for statement in step.statements {
            connection.run(statement, Vec::new()).await?;
        }
        connection.run("INSERT INTO mail_account_schema (version) VALUES ($1)", vec![step.version.into()]).await?;
    }
    Ok(())
}
