//! The one writer of an opened store: everything that waits goes into one transaction, and so shares its sync.
//!
//! There is no task that lives as long as the store. Whoever brings work while nobody is writing starts one; it ends
//! when nothing waits any more. So nothing keeps a process or a runtime alive, and a store may be used from one
//! runtime after another. It has a thread for itself: a handler that blocks its runtime must not leave a transaction
//! open, which every other process would wait for. A runtime that is shut down waits for such a thread, and so for
//! the transaction.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{
    Disk,
    db::{Arg, Connection, Record},
    hand_overs::{self, StateHash},
    lease,
    owner::Owner,
    rows, sign_ins, states,
};
use crate::{
    Context, Error, ErrorKind, MessageKey, Result,
    store::{Lease, Pending, RefreshLease, Row, Scope, SignIn, SignInId, StoredState, seal::Sealer},
};

/// How many calls share one transaction at most: other processes wait for its end.
const MOST: usize = 500;

/// One call that writes.
#[derive(Debug)]
pub(super) enum Work {
    Acquire { scope: Scope, ttl: Duration },
    Renew { lease: Lease, ttl: Duration },
    Release { lease: Lease },
    Write { lease: Lease, rows: Vec<Row> },
    Retry { job: String, key: Option<MessageKey> },
    Baseline { scope: Scope, now: Timestamp },
    Lock { id: SignInId, ttl: Duration },
    Unlock { lease: RefreshLease },
    PutSignIn { id: SignInId, sign_in: Box<SignIn>, replace: bool, sealer: Arc<Sealer> },
    Forget { id: SignInId },
    Begin { pending: Box<Pending>, sealer: Arc<Sealer> },
    TakePending { state: StateHash, now: Timestamp },
    PutState { state: Box<StoredState> },
}

/// What the call returns: a token, a count or a time, if anything.
type Answer = Option<i64>;

#[derive(Debug)]
struct Call {
    work: Work,
    context: Context,
    answer: oneshot::Sender<Result<Answer>>,
}

/// Why a call did not do what it was asked for.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It may not: nothing was written, and the calls beside it go on.
    Refused(Error),
    /// The database failed, and with it the transaction.
    Database(sqlx::Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// A transaction as one call sees it.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    connection: &'a mut Connection,
    context: &'a Context,
    changed: bool,
}

impl Transaction<'_> {
    pub(super) async fn run(&mut self, sql: &'static str, args: Vec<Arg>) -> sqlx::Result<u64> {
        let rows = self.connection.run(sql, args).await?;
        self.changed |= rows > 0;
        Ok(rows)
    }

    pub(super) async fn one(&mut self, sql: &'static str, args: Vec<Arg>) -> sqlx::Result<Option<Record>> {
        self.connection.one(sql, args).await
    }

    pub(super) async fn all(&mut self, sql: &'static str, args: Vec<Arg>) -> sqlx::Result<Vec<Record>> {
        self.connection.all(sql, args).await
    }

    /// After a statement that changes and returns rows.
    pub(super) fn has_changed(&mut self) {
        self.changed = true;
    }

    pub(super) fn is_sqlite(&self) -> bool {
        self.connection.is_sqlite()
    }

    /// Of the store that the call was made on.
    pub(super) fn context(&self) -> &Context {
        self.context
    }

    /// The time that leases count by.
    pub(super) async fn now(&mut self) -> sqlx::Result<i64> {
        match lease::clock(self.is_sqlite(), self.context) {
            Ok(now) => Ok(now),
            Err(sql) => lease::server_time(self.all(sql, Vec::new()).await?),
        }
    }
}

#[derive(Debug)]
pub(super) struct Committer {
    disk: Arc<Disk>,
    owner: Owner,
    queue: Mutex<Queue>,
    /// Between two transactions. Taken out during one, so that a writer that is interrupted leaves no connection with
    /// an open transaction behind.
    connection: Mutex<Option<Connection>>,
    syncs: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Call>,
    has_writer: bool,
}

impl Committer {
    pub(super) fn new(disk: Arc<Disk>, owner: Owner, connection: Connection) -> Self {
        Self {
            disk,
            owner,
            queue: Mutex::default(),
            connection: Mutex::new(Some(connection)),
            syncs: AtomicU64::new(0),
        }
    }

    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// After the last handle of the store is gone.
    pub(super) fn leave(&self) {
        self.owner.leave();
    }

    /// Does this with whatever else waits. Dropping the future does not undo it: it is done whole, or not at all.
    pub(super) async fn submit(self: &Arc<Self>, context: &Context, work: Work) -> Result<Answer> {
        let (answer, answered) = oneshot::channel();
        let call = Call { work, context: context.clone(), answer };
        let needs_writer = {
            let mut queue = self.queue();
            queue.waiting.push(call);
            !std::mem::replace(&mut queue.has_writer, true)
        };
        if needs_writer {
            let writer = Writer { committer: Arc::clone(self), is_done: false };
            let runtime = tokio::runtime::Handle::current();
            tokio::task::spawn_blocking(move || runtime.block_on(write_all(writer)));
        }
        answered.await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Storage,
                format!(
                    "writing to {} was interrupted because its runtime was shut down; what was asked for is written \
                     whole or not at all, and the next run finds out which",
                    self.disk
                ),
            ))
        })
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn idle(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, mut calls: Vec<Call>) {
        // Nobody waits for it, and nothing was begun.
        calls.retain(|call| !call.answer.is_closed());
        if calls.is_empty() {
            return;
        }
        match self.transact(&calls).await {
            Ok(answers) => reply(calls, answers),
            Err(Broken { begun: true, .. }) if calls.len() > 1 => self.answer_singly(calls).await,
            Err(broken) => self.refuse(calls, broken.error),
        }
    }

    /// One call may have broken the transaction of all; each gets its own answer.
    async fn answer_singly(&self, calls: Vec<Call>) {
        let mut calls = calls.into_iter();
        while let Some(call) = calls.next() {
            match self.transact(std::slice::from_ref(&call)).await {
                Ok(answers) => reply(vec![call], answers),
                Err(broken) if broken.begun => self.refuse(vec![call], broken.error),
                Err(broken) => {
                    // Not even a transaction can be begun: the others would wait for the same end.
                    return self.refuse([call].into_iter().chain(calls).collect(), broken.error);
                }
            }
        }
    }

    fn refuse(&self, calls: Vec<Call>, error: sqlx::Error) {
        let error = Arc::new(error);
        for call in calls {
            // Whoever no longer waits needs no answer.
            let _ = call.answer.send(Err(self.disk.failed(Arc::clone(&error))));
        }
    }

    async fn transact(&self, calls: &[Call]) -> Result<Vec<Result<Answer>>, Broken> {
        let idle = self.idle().take();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.disk.target.connect().await.map_err(Broken::before)?,
        };
        match self.try_transact(&mut connection, calls).await {
            Ok(answers) => {
                *self.idle() = Some(connection);
                Ok(answers)
            }
            Err(broken) => {
                // The database may have ended the transaction or not; without the connection there is none.
                connection.close().await;
                Err(broken)
            }
        }
    }

    async fn try_transact(&self, connection: &mut Connection, calls: &[Call]) -> Result<Vec<Result<Answer>>, Broken> {
        connection.begin().await.map_err(Broken::before)?;
        let (mut answers, mut changed) = (Vec::with_capacity(calls.len()), false);
        for call in calls {
            let mut tx = Transaction { connection: &mut *connection, context: &call.context, changed: false };
            let answer = match self.perform(&mut tx, &call.work).await {
                Ok(answer) => Ok(answer),
                Err(Refusal::Refused(error)) => Err(error),
                Err(Refusal::Database(error)) => return Err(Broken::during(error)),
            };
            changed |= tx.changed;
            answers.push(answer);
        }
        if changed {
            connection.commit().await.map_err(Broken::during)?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
        } else {
            connection.rollback().await.map_err(Broken::during)?;
        }
        Ok(answers)
    }

    /// Refusals come before the first change, so that a refused call leaves nothing behind in the shared transaction.
    async fn perform(&self, tx: &mut Transaction<'_>, work: &Work) -> Result<Answer, Refusal> {
        match work {
            Work::Acquire { scope, ttl } => lease::acquire(tx, &self.owner, scope, *ttl).await,
            Work::Renew { lease, ttl } => lease::renew(tx, lease, *ttl).await.map(|()| None),
            Work::Release { lease } => lease::release(tx, lease).await.map(|()| None),
            Work::Write { lease, rows } => rows::write(tx, lease, rows).await.map(|()| None),
            Work::Retry { job, key } => {
                let count = rows::queue_again(tx, job, key.as_ref()).await?;
                Ok(Some(i64::try_from(count).unwrap_or(i64::MAX)))
            }
            Work::Baseline { scope, now } => lease::baseline(tx, scope, *now).await.map(Some),
            Work::Lock { id, ttl } => sign_ins::lock(tx, &self.owner, id, *ttl).await,
            Work::Unlock { lease } => sign_ins::unlock(tx, lease).await.map(|()| None),
            Work::PutSignIn { id, sign_in, replace, sealer } => {
                sign_ins::put(tx, sealer, id, sign_in, *replace).await.map(Some)
            }
            Work::Forget { id } => sign_ins::forget(tx, id).await.map(|()| None),
            Work::Begin { pending, sealer } => hand_overs::put(tx, sealer, pending).await.map(|()| None),
            Work::TakePending { state, now } => hand_overs::take(tx, state, *now).await,
            Work::PutState { state } => states::put(tx, state).await,
        }
    }
}

fn reply(calls: Vec<Call>, answers: Vec<Result<Answer>>) {
    for (call, answer) in calls.into_iter().zip(answers) {
        // Whoever no longer waits needs no answer.
        let _ = call.answer.send(answer);
    }
}

/// A transaction that failed.
#[derive(Debug)]
struct Broken {
    error: sqlx::Error,
    /// Whether a call's own statements had been reached.
    begun: bool,
}

impl Broken {
    fn before(error: sqlx::Error) -> Self {
        Self { error, begun: false }
    }

    fn during(error: sqlx::Error) -> Self {
        Self { error, begun: true }
    }
}

/// The task that writes, while there is something to write.
struct Writer {
    committer: Arc<Committer>,
    is_done: bool,
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        // The runtime was shut down before it began, or it panicked. Those who wait on another one must not wait for
        // ever.
        let mut queue = self.committer.queue();
        queue.has_writer = false;
        queue.waiting.clear();
    }
}

async fn write_all(mut writer: Writer) {
    loop {
        let calls = {
            let mut queue = writer.committer.queue();
            if queue.waiting.is_empty() {
                queue.has_writer = false;
                writer.is_done = true;
                return;
            }
            let count = queue.waiting.len().min(MOST);
            queue.waiting.drain(..count).collect()
        };
        writer.committer.answer(calls).await;
    }
}
