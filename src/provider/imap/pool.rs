//! An account's few connections: who has one, when a new one is made, and what is tried again.
//!
//! Nobody keeps a connection while nobody polls him: whoever is blocked on his own consumer watches
//! [`Shared::somebody_waits`] and lets go. That is how one connection is enough.

use std::{
    fmt, mem,
    ops::{Deref, DerefMut},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, OnceCell, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    NAME,
    config::Tls as TlsMode,
    evidence::Known,
    failure::{Failure, Outcome},
    folders::Tree,
    session::{Session, Timeouts},
    signin::{self, Proof, Server},
    stream::Tls,
    usage::Counters,
    wire::{response::Namespace, status::Condition},
};
use crate::{Context, Error, ErrorKind, MailboxInfo, Result, Secret, SecretSource, auth::TokenProvider};

/// After so long unused, a connection is asked whether it still lives before it is trusted.
const ASK_AFTER: Duration = Duration::from_secs(5 * 60);
/// How long credentials that were refused are not shown again: accounts lock.
const REFUSED_FOR: Duration = Duration::from_secs(10 * 60);
/// Tries of one operation.
const TRIES: u32 = 3;
/// Longest pause that is waited for within an operation; a longer one is the caller's business.
const SHORT_PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) enum Credentials {
    /// With its place in the configuration, for errors.
    Password(SecretSource, String),
    Tokens(Arc<dyn TokenProvider>),
}

/// What an account is made of.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) info: MailboxInfo,
    pub(crate) facts: crate::provider::insight::Facts,
    pub(crate) server: Server,
    pub(crate) user: String,
    pub(crate) credentials: Credentials,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) timeouts: Timeouts,
    pub(crate) connections: usize,
}

/// What all clones of an account share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) context: Context,
    pub(crate) counters: Arc<Counters>,
    tls: OnceCell<Tls>,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Session>>,
    waiting: AtomicUsize,
    arrived: Notify,
    pause: Mutex<Option<Instant>>,
    pub(crate) tree: Mutex<Option<Tree>>,
    /// Where the user's own folders are, once asked.
    pub(crate) namespace: OnceLock<Option<Namespace>>,
    pub(crate) known: Mutex<Known>,
    refused: Mutex<Option<Refused>>,
    /// Marks handles that are good for this run only, where the server has no lasting numbering.
    run: u64,
}

struct Refused {
    at: Instant,
    secret: Secret,
    kind: ErrorKind,
    message: String,
    code: Option<String>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("info", &self.settings.info)
            .field("server", &self.settings.server)
            .field("user", &self.settings.user)
            .finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done under these locks, so a panic elsewhere does not spoil them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(settings: Settings, context: Context) -> Arc<Self> {
        let connections = settings.connections.max(1);
        Arc::new(Self {
            counters: Arc::default(),
            tls: OnceCell::new(),
            permits: Arc::new(Semaphore::new(connections)),
            idle: Mutex::default(),
            waiting: AtomicUsize::new(0),
            arrived: Notify::new(),
            pause: Mutex::default(),
            tree: Mutex::default(),
            namespace: OnceLock::new(),
            known: Mutex::default(),
            refused: Mutex::default(),
            run: u64::from_le_bytes(context.random()),
            settings: Settings { connections, ..settings },
            context,
        })
    }

    /// What a folder's numbering is called in handles.
    pub(crate) fn epoch(&self, validity: u64) -> String {
        match validity {
            0 => format!("r{:x}", self.run),
            n => n.to_string(),
        }
    }

    /// Adds what every error of this account carries.
    pub(crate) fn place(&self, error: impl Into<Error>, operation: &'static str) -> Error {
        error.into().with_provider(NAME).with_account(&self.settings.info.account).with_operation(operation)
    }

    /// Whether somebody waits for a connection right now.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// Returns when somebody waits for a connection.
    pub(crate) async fn somebody_waits(&self) {
        loop {
            let arrived = self.arrived.notified();
            if self.is_wanted() {
                return;
            }
            arrived.await;
        }
    }

    pub(crate) fn attempts(self: &Arc<Self>) -> Attempts {
        Attempts { shared: Arc::clone(self), tries: 0, until: None }
    }

    /// Says goodbye on all idle connections.
    pub(crate) async fn close(&self) {
        let sessions = mem::take(&mut *locked(&self.idle));
        futures::future::join_all(sessions.into_iter().map(Session::logout)).await;
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return permit;
        }
        let _waiting = Waiting::new(self);
        Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// An idle connection, one that has the folder open if possible.
    fn take_idle(&self, folder: Option<&Bytes>) -> Option<Session> {
        let mut idle = locked(&self.idle);
        let fits = |session: &Session| session.selected.as_ref().map(|open| &open.folder) == folder;
        let at = idle.iter().rposition(fits).or_else(|| idle.len().checked_sub(1))?;
        Some(idle.remove(at))
    }

    fn check_pause(&self) -> Outcome<()> {
        match *locked(&self.pause) {
            Some(until) if until > Instant::now() => Err(Failure::Paused { left: until - Instant::now() }),
            _ => Ok(()),
        }
    }

    /// A signed-in session, new or not.
    async fn session(&self, folder: Option<&Bytes>, until: Instant) -> Outcome<Session> {
        self.check_pause()?;
        while let Some(mut session) = self.take_idle(folder) {
            session.set_limit(Some(until));
            if tokio::time::timeout_at(until, self.is_outdated(session.token.as_ref())).await.unwrap_or(false) {
                session.logout().await;
            } else if session.still_good(ASK_AFTER).await {
                return Ok(session);
            }
        }
        let connecting = self.new_session();
        match tokio::time::timeout_at(until, connecting).await {
            Ok(session) => {
                let mut session = session?;
                session.set_limit(Some(until));
                Ok(session)
            }
            Err(_) => Err(Failure::Lost(super::wire::reader::ReadError::Timeout)),
        }
    }

    async fn new_session(&self) -> Outcome<Session> {
        let mut proof = self.proof(None).await?;
        self.check_refused(&proof)?;
        let tls = match self.settings.server.tls {
            TlsMode::None => None,
            _ => Some(self.tls().await?),
        };
        let mut renewed = false;
        loop {
            let (mut session, condition) =
                signin::connect(&self.settings.server, tls, self.settings.timeouts, &self.counters).await?;
            if condition == Condition::Preauth {
                return Ok(session);
            }
            match signin::sign_in(&mut session, &self.settings.server, &self.settings.user, &proof).await {
                Ok(()) => {
                    if let Proof::Token(token) = proof {
                        session.token = Some(token);
                    }
                    return Ok(session);
                }
                Err(Failure::SignIn(refused)) => {
                    if let (Proof::Token(old), ErrorKind::Unauthenticated, false) = (&proof, refused.kind, renewed) {
                        // A token may have been revoked early; a fresh one is worth exactly one try.
                        let fresh = self.proof(Some(old)).await?;
                        if fresh.secret().expose() != old.expose() {
                            renewed = true;
                            proof = fresh;
                            continue;
                        }
                    }
                    if refused.counts {
                        *locked(&self.refused) = Some(Refused {
                            at: Instant::now(),
                            secret: proof.secret().clone(),
                            kind: refused.kind,
                            message: refused.message.clone(),
                            code: refused.code.clone(),
                        });
                    }
                    return Err(Failure::SignIn(refused));
                }
                Err(other) => return Err(other),
            }
        }
    }

    async fn proof(&self, refused: Option<&Secret>) -> Result<Proof> {
        match &self.settings.credentials {
            Credentials::Password(source, place) => Ok(Proof::Password(source.read(place)?)),
            Credentials::Tokens(tokens) => {
                if let Some(refused) = refused {
                    tokens.reject(refused, None);
                }
                Ok(Proof::Token(tokens.token().await?))
            }
        }
    }

    /// Whether the token that a session was signed in with has been replaced since, because it is about to expire: a
    /// server may end the session with it, in the middle of a message. IMAP knows no second sign-in on a connection.
    async fn is_outdated(&self, shown: Option<&Secret>) -> bool {
        let (Credentials::Tokens(tokens), Some(shown)) = (&self.settings.credentials, shown) else {
            return false;
        };
        // While there is no new one, the session may do as long as it lives.
        tokens.token().await.is_ok_and(|current| current.expose() != shown.expose())
    }

    /// The same password is not shown again soon after it was refused.
    fn check_refused(&self, proof: &Proof) -> Outcome<()> {
        let refused = locked(&self.refused);
        match &*refused {
            Some(refused)
                if refused.at.elapsed() < REFUSED_FOR && refused.secret.expose() == proof.secret().expose() =>
            {
                Err(Failure::SignIn(signin_again(refused)))
            }
            _ => Ok(()),
        }
    }

    async fn tls(&self) -> Result<&Tls> {
        self.tls
            .get_or_try_init(|| async {
                let file = self.settings.ca_file.clone();
                // Reads the platform's certificate files.
                tokio::task::spawn_blocking(move || Tls::new(file.as_deref()))
                    .await
                    .map_err(|e| Error::new(ErrorKind::Other, "TLS could not be set up").with_source(e))?
            })
            .await
    }
}

fn signin_again(refused: &Refused) -> super::failure::SignIn {
    super::failure::SignIn {
        kind: refused.kind,
        message: format!(
            "{} (not tried again with the same credentials, so that the account is not locked)",
            refused.message
        ),
        code: refused.code.clone(),
        retry_after: None,
        counts: false,
    }
}

impl Proof {
    pub(crate) fn secret(&self) -> &Secret {
        match self {
            Self::Password(secret) | Self::Token(secret) => secret,
        }
    }
}

struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, SeqCst);
        shared.arrived.notify_waiters();
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

/// A connection for one caller. Dropped in the middle of anything, it is closed; given back with [`Lease::done`], the
/// next caller gets it.
#[derive(Debug)]
pub(crate) struct Lease {
    session: Option<Session>,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    pub(crate) fn done(mut self) {
        if let Some(mut session) = self.session.take()
            && session.is_idle()
        {
            session.set_limit(None);
            locked(&self.shared.idle).push(session);
        }
    }

    /// Given back, or closed where what failed leaves it useless.
    pub(crate) fn end(self, failure: &Failure) {
        if failure.leaves_session_usable() {
            self.done();
        }
    }
}

impl Deref for Lease {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session.as_ref().expect("taken only by `done`, which consumes the lease")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Session {
        self.session.as_mut().expect("taken only by `done`, which consumes the lease")
    }
}

/// One operation and its tries: the only place where anything is tried again.
///
/// ```text
/// loop {
///     let mut lease = attempts.lease(..).await?;
///     match work(&mut lease).await {
///         Ok(done) => { lease.done(); return Ok(done) }
///         Err(failure) => attempts.failed(lease, failure).await?,
///     }
/// }
/// ```
#[derive(Debug)]
pub(crate) struct Attempts {
    shared: Arc<Shared>,
    tries: u32,
    until: Option<Instant>,
}

impl Attempts {
    /// A connection, one that has `folder` open if possible.
    pub(crate) async fn lease(&mut self, folder: Option<&Bytes>) -> Result<Lease> {
        loop {
            let permit = self.shared.permit().await;
            // The operation's time starts when it is its turn.
            let operation = self.shared.settings.timeouts.operation;
            let until = *self.until.get_or_insert_with(|| Instant::now() + operation);
            match self.shared.session(folder, until).await {
                Ok(session) => {
                    return Ok(Lease { session: Some(session), shared: Arc::clone(&self.shared), _permit: permit });
                }
                Err(failure) => {
                    drop(permit);
                    self.again(failure).await?;
                }
            }
        }
    }

    /// Returns when it is time to try again, or with the error when it is not.
    pub(crate) async fn failed(&mut self, lease: Lease, failure: Failure) -> Result<()> {
        lease.end(&failure);
        self.again(failure).await
    }

    /// Something was achieved, so what follows is a new operation.
    pub(crate) fn progressed(&mut self) {
        self.tries = 0;
        self.until = None;
    }

    async fn again(&mut self, failure: Failure) -> Result<()> {
        self.tries += 1;
        let now = Instant::now();
        let mut wait = None;
        if let Some(pause) = failure.asked_pause() {
            self.shared.counters.throttled();
            *locked(&self.shared.pause) = Some(now + pause);
            if pause <= SHORT_PAUSE {
                wait = Some(pause);
            }
        } else if failure.is_worth_another_try() {
            wait = Some(Duration::from_millis(400) * 4u32.pow(self.tries - 1));
        }
        let Some(wait) = wait.filter(|_| self.tries < TRIES) else {
            return Err(failure.into());
        };
        let wait = self.shared.context.jitter(wait);
        if self.until.is_some_and(|until| now + wait >= until) {
            return Err(failure.into());
        }
        tracing::debug!(account = %self.shared.settings.info.account, tries = self.tries, ?failure, "trying again");
        self.shared.context.sleep(wait).await;
        Ok(())
    }
}
