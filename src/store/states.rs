//! [`StateStore`]: what was last known of each account.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use jiff::Timestamp;

use crate::Result;

/// What is kept of the state of one account. Codes and texts are plain here; what they mean is said in
/// [`watch`](crate::watch).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredState {
    /// The account's identifier.
    pub account: String,
    /// The state's code, such as `ready`.
    pub condition: String,
    /// The code of its cause.
    pub cause: Option<String>,
    /// The service's own code, such as `AADSTS50173`.
    pub code: Option<String>,
    /// For a person, in English.
    pub english: String,
    /// The same in Dutch.
    pub dutch: String,
    /// Since when.
    pub since: Timestamp,
    /// When a run last went well, as known at that moment.
    pub last_success: Option<Timestamp>,
}

impl StoredState {
    /// Of an account that is in this state from this moment on.
    pub fn new(account: impl Into<String>, condition: impl Into<String>, since: Timestamp) -> Self {
        Self {
            account: account.into(),
            condition: condition.into(),
            cause: None,
            code: None,
            english: String::new(),
            dutch: String::new(),
            since,
            last_success: None,
        }
    }
}

/// Durable memory of the states of accounts, shared by all processes that run jobs on them.
#[async_trait]
pub trait StateStore: fmt::Debug + Send + Sync + 'static {
    /// Of this account.
    async fn account_state(&self, account: &str) -> Result<Option<StoredState>>;

    /// Of all accounts that anything is known of, in the order of their names.
    async fn account_states(&self) -> Result<Vec<StoredState>>;

    /// Writes the state of an account if its condition or cause differ from what is stored, and says whether they did:
    /// of several processes that find the same change, one is told so.
    async fn put_account_state(&self, state: &StoredState) -> Result<bool>;
}

/// As long as the process lives.
#[derive(Debug, Default)]
pub(crate) struct MemoryStates(Mutex<BTreeMap<String, StoredState>>);

impl MemoryStates {
    fn states(&self) -> MutexGuard<'_, BTreeMap<String, StoredState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl StateStore for MemoryStates {
    async fn account_state(&self, account: &str) -> Result<Option<StoredState>> {
        Ok(self.states().get(account).cloned())
    }

    async fn account_states(&self) -> Result<Vec<StoredState>> {
        Ok(self.states().values().cloned().collect())
    }

    async fn put_account_state(&self, state: &StoredState) -> Result<bool> {
        let mut states = self.states();
        let known = states.get(&state.account);
        if known.is_some_and(|known| known.condition == state.condition && known.cause == state.cause) {
            return Ok(false);
        }
        states.insert(state.account.clone(), state.clone());
        Ok(true)
    }
}
