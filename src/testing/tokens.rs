//! [`MemoryTokenStore`]: the contract of [`TokenStore`] without a database.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use crate::{
    Context, Error, ErrorKind, Result, Secret,
    store::{Pending, RefreshLease, SignIn, SignInId, Taken, TokenStore},
};

/// How long a hand-over is remembered after its time.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A store of sign-ins that lasts as long as the test, and seals nothing. Cheap to clone; clones are the same store.
#[derive(Clone, Default)]
pub struct MemoryTokenStore {
    context: Context,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    sign_ins: BTreeMap<SignInId, SignIn>,
    /// The last version of each, also of those that were forgotten: none comes again.
    versions: BTreeMap<SignInId, i64>,
    leases: BTreeMap<SignInId, (i64, Option<Timestamp>)>,
    /// By state; `true` once used.
    pending: Vec<(Pending, bool)>,
}

impl MemoryTokenStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another clock, by which leases expire.
    #[must_use]
    pub fn with_context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryTokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTokenStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl TokenStore for MemoryTokenStore {
    async fn ready(&self) -> Result<()> {
        Ok(())
    }

    async fn sign_in(&self, id: &SignInId) -> Result<Option<SignIn>> {
        Ok(self.state().sign_ins.get(id).cloned())
    }

    async fn put_sign_in(&self, id: &SignInId, sign_in: &SignIn, replace: bool) -> Result<i64> {
        let mut state = self.state();
        let stored = state.sign_ins.get(id).map_or(0, |stored| stored.version);
        if !replace && stored != sign_in.version {
            return Err(Error::new(ErrorKind::Conflict, format!("the sign-in of {id} was changed meanwhile")));
        }
        let last = state.versions.entry(id.clone()).or_default();
        *last += 1;
        let version = *last;
        state.sign_ins.insert(id.clone(), SignIn { version, ..sign_in.clone() });
        Ok(version)
    }

    async fn forget_sign_in(&self, id: &SignInId) -> Result<()> {
        self.state().sign_ins.remove(id);
        Ok(())
    }

    async fn sign_ins(&self) -> Result<Vec<(SignInId, Timestamp)>> {
        Ok(self.state().sign_ins.iter().map(|(id, sign_in)| (id.clone(), sign_in.refreshed)).collect())
    }

    async fn lock(&self, id: &SignInId, ttl: Duration) -> Result<Option<RefreshLease>> {
        let now = self.context.now();
        let mut state = self.state();
        let (token, until) = state.leases.entry(id.clone()).or_default();
        if until.is_some_and(|until| until > now) {
            return Ok(None);
        }
        *token += 1;
        let ttl = SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX);
        *until = Some(now.saturating_add(ttl).unwrap_or(Timestamp::MAX));
        Ok(Some(RefreshLease { id: id.clone(), token: *token }))
    }

    async fn unlock(&self, lease: &RefreshLease) -> Result<()> {
        if let Some((token, until)) = self.state().leases.get_mut(&lease.id)
            && *token == lease.token
        {
            *until = None;
        }
        Ok(())
    }

    async fn put_pending(&self, pending: &Pending) -> Result<()> {
        let mut state = self.state();
        let long_past = pending.begun.saturating_sub(KEPT).unwrap_or(Timestamp::MIN);
        state.pending.retain(|(old, _)| old.expires >= long_past);
        state.pending.push((pending.clone(), false));
        Ok(())
    }

    async fn take_pending(&self, state: &Secret, now: Timestamp) -> Result<Taken> {
        let mut all = self.state();
        let Some((pending, used)) = all.pending.iter_mut().find(|(p, _)| p.state.expose() == state.expose()) else {
            return Ok(Taken::Unknown);
        };
        let account = pending.account.clone();
        if *used {
            return Ok(Taken::Used { account });
        }
        if pending.expires <= now {
            return Ok(Taken::Expired { account });
        }
        *used = true;
        Ok(Taken::Open(pending.clone()))
    }
}
