//! Watches the accounts of a [`MailApp`]: what runs and sign-ins say about them is remembered, and changes are told.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::{MailApp, account::Account, account::Accounts, state::Stores};
use crate::{
    Context, Error, ImportJob, Result,
    import::{AccountReport, Observer, RunError, Status},
    watch::{AccountEvent, AccountEventSink, AccountState, Calendar, Condition, Credential, CredentialWarning},
};

/// What is known of the accounts beside the store, and who is told of changes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Watching {
    accounts: Arc<Accounts>,
    stores: Stores,
    context: Context,
    loaded: Timestamp,
    sink: Option<AccountEventSink>,
    recent: Arc<Mutex<HashMap<String, Recent>>>,
    calendar: Arc<Calendar>,
}

/// What only this process knows of an account: too much to be written at every poll.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    success: Option<Timestamp>,
    next_try: Option<Timestamp>,
}

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watching").field("loaded", &self.loaded).finish_non_exhaustive()
    }
}

impl Watching {
    pub(super) fn new(accounts: Arc<Accounts>, stores: Stores, context: Context) -> Self {
        let loaded = context.now();
        Self { accounts, stores, context, loaded, sink: None, recent: Arc::default(), calendar: Arc::default() }
    }

    pub(super) fn with_sink(self, sink: AccountEventSink) -> Self {
        Self { sink: Some(sink), ..self }
    }

    pub(super) fn with_stores(self, stores: Stores) -> Self {
        Self { stores, ..self }
    }

    fn tell(&self, event: &AccountEvent) {
        if let Some(sink) = &self.sink {
            sink(event);
        }
    }

    fn recent(&self) -> MutexGuard<'_, HashMap<String, Recent>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a state, and tells it if it is another one than before.
    async fn note(&self, mut state: AccountState) -> Result<()> {
        let store = self.stores.states().await?;
        let before = store.account_state(&state.account).await?.map(AccountState::from_stored);
        let success = self.recent().get(&state.account).and_then(|recent| recent.success);
        state.last_success = success.or(before.as_ref().and_then(|before| before.last_success));
        if before.as_ref().is_some_and(|before| before.condition == state.condition && before.cause == state.cause) {
            return Ok(());
        }
        if store.put_account_state(&state.store()).await? {
            let before = before.map(|before| before.condition);
            self.tell(&AccountEvent::StateChanged { before, state: Box::new(state) });
        }
        Ok(())
    }

    /// A state that cannot be written down stops nothing: the run's report tells the same.
    async fn note_or_warn(&self, state: AccountState) {
        let account = state.account.clone();
        if let Err(error) = self.note(state).await {
            tracing::warn!(account, error = %error.chain(), "the state of an account cannot be remembered");
        }
    }

    /// What this error says about the account.
    async fn ill(&self, account: &Account, error: &Error) -> Option<AccountState> {
        let mut condition = Condition::of(error)?;
        if condition == Condition::SignInNeeded && matches!(self.signed_in(account).await, Ok(Some(None))) {
            condition = Condition::AwaitingSignIn;
        }
        let mailbox = account.mailbox().map(|mailbox| mailbox.name).unwrap_or_default();
        Some(AccountState::new(&account.name, condition, self.context.now()).because(error, &mailbox))
    }

    /// When the stored sign-in of the account's person was last used with success; `Some(None)` when there is none,
    /// `None` when no person signs in for it.
    #[cfg(feature = "oauth")]
    async fn signed_in(&self, account: &Account) -> Result<Option<Option<Timestamp>>> {
        // What is wrong with the settings is told elsewhere.
        let Ok(Some(settings)) = account.sign_in() else { return Ok(None) };
        if settings.auth != crate::auth::Auth::Delegated {
            return Ok(None);
        }
        let id = settings.id()?;
        let stored = self.stores.sign_ins().await?;
        Ok(Some(stored.into_iter().find(|(of, _)| *of == id).map(|(_, refreshed)| refreshed)))
    }

    #[cfg(not(feature = "oauth"))]
    async fn signed_in(&self, _account: &Account) -> Result<Option<Option<Timestamp>>> {
        Ok(None)
    }

    async fn state_of(&self, account: &Account) -> Result<AccountState> {
        let derived = |condition| AccountState::new(&account.name, condition, self.loaded);
        if !account.enabled {
            return Ok(derived(Condition::Draft));
        }
        if let Some(problem) = account.problem() {
            let mailbox = account.mailbox().map(|mailbox| mailbox.name).unwrap_or_default();
            return Ok(derived(Condition::Misconfigured).because(&problem, &mailbox));
        }
        let stored = self.stores.states().await?.account_state(&account.name).await?;
        let mut state = stored.map_or_else(|| derived(Condition::Draft), AccountState::from_stored);
        if let Some(refreshed) = self.signed_in(account).await? {
            state = state.with_sign_in(refreshed);
        }
        if let Some(recent) = self.recent().get(&account.name) {
            state.last_success = recent.success.or(state.last_success);
            state.next_try = recent.next_try;
        }
        Ok(state)
    }

    /// After somebody has tried to sign in for an account.
    #[cfg(feature = "oauth")]
    pub(super) async fn handed_over(&self, outcome: &crate::auth::SignInOutcome) {
        use crate::auth::SignInOutcome;
        let now = self.context.now();
        match outcome {
            SignInOutcome::Authorised { account, .. } => {
                self.note_or_warn(AccountState::new(account, Condition::Ready, now)).await;
            }
            SignInOutcome::ConsentPending { account, error, .. } => {
                let pending = AccountState::new(account, Condition::ConsentPending, now);
                self.note_or_warn(pending.because(error, "")).await;
            }
            // What was pending is given; what comes next is known.
            SignInOutcome::Consented { account } => {
                if let Some(known) = self.accounts.get(account)
                    && matches!(self.signed_in(known).await, Ok(Some(None)))
                {
                    self.note_or_warn(AccountState::new(account, Condition::AwaitingSignIn, now)).await;
                }
            }
            // Nothing was stored, and what was there before still is.
            _ => {}
        }
    }

    /// After the sign-in of this account was used only to keep it alive, and failed. What may pass is no news.
    #[cfg(feature = "oauth")]
    pub(super) async fn not_renewed(&self, account: &Account, error: &Error) {
        if error.kind() == crate::ErrorKind::SignInNeeded
            && let Some(state) = self.ill(account, error).await
        {
            self.note_or_warn(state).await;
        }
    }
}

#[async_trait]
impl Observer for Watching {
    async fn ended(&self, job: &ImportJob, run: &Result<AccountReport, RunError>) {
        let (report, error) = match run {
            Ok(report) => (report, report.error.as_ref()),
            Err(failed) => (failed.report(), Some(failed.error())),
        };
        let Some(account) = self.accounts.get(&report.account).filter(|account| account.enabled) else { return };
        let now = self.context.now();
        let state = match (error, report.status) {
            (Some(error), _) => {
                let Some(state) = self.ill(account, error).await else { return };
                let pause = job.interval.max(error.retry_after().unwrap_or(Duration::ZERO));
                let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
                let next_try = now.saturating_add(pause).unwrap_or(Timestamp::MAX);
                self.recent().entry(account.name.clone()).or_default().next_try = Some(next_try);
                state
            }
            (None, Status::Done) => {
                *self.recent().entry(account.name.clone()).or_default() = Recent { success: Some(now), next_try: None };
                AccountState::new(&account.name, Condition::Ready, now)
            }
            // Busy, or stopped by the host: nothing is known about the account.
            (None, _) => return,
        };
        self.note_or_warn(state).await;
    }
}

impl MailApp {
    /// Tells this sink when the state of an account changes, and when a secret or certificate runs out.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// use mail_account::{MailApp, watch::{AccountEvent, Condition}};
    ///
    /// let app = MailApp::from_str("[accounts.a]\nprovider = \"memory\"\nmailbox = \"a@contoso.example\"", ".")?.with_account_events(|event| {
    ///     if let AccountEvent::StateChanged { state, .. } = event {
    ///         println!("{}: {}", state.account, state.message(mail_account::Language::English));
    ///     }
    /// });
    /// # let app = app.with_ledger(std::sync::Arc::new(mail_account::testing::MemoryLedger::new()));
    /// assert_eq!(app.state_of("a").await?.condition, Condition::Draft);
    /// # Ok::<(), mail_account::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_account_events(mut self, sink: impl Fn(&AccountEvent) + Send + Sync + 'static) -> Self {
        self.watching = self.watching.with_sink(Arc::new(sink));
        self
    }

    /// How an account fares: what the file says, what its last runs met in whatever process, and whether somebody has
    /// signed in. Asks no service, and needs no working token.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when there is no such account; otherwise as [`ledger`](Self::ledger).
    pub async fn state_of(&self, account: &str) -> Result<AccountState> {
        self.watching.state_of(self.find(account)?).await
    }

    /// How all accounts fare, in the order of the file.
    ///
    /// # Errors
    ///
    /// As [`ledger`](Self::ledger).
    pub async fn states(&self) -> Result<Vec<AccountState>> {
        let mut states = Vec::new();
        for account in self.accounts.iter() {
            states.push(self.watching.state_of(account).await?);
        }
        Ok(states)
    }

    /// The secrets and certificates of the app registrations that enabled accounts use, each with its accounts, and
    /// when it runs out. Reads the certificates' files and nothing else.
    #[must_use]
    pub fn secret_calendar(&self) -> Vec<Credential> {
        #[cfg(feature = "oauth")]
        {
            let enabled = self.accounts.iter().filter(|account| account.enabled);
            // A broken account is told when it is used.
            let settings = enabled.filter_map(|account| Some((account.name.as_str(), account.sign_in().ok()??)));
            let settings: Vec<_> = settings.collect();
            let apps = settings.iter().map(|(name, settings)| (*name, &settings.app, &settings.places));
            let mut credentials = Calendar::credentials(apps, certificate_end);
            for credential in credentials.iter_mut().filter(|credential| credential.has_next) {
                let user = credential.accounts.first();
                let worked = settings.iter().find(|(name, _)| user.is_some_and(|user| user == name)).and_then(
                    |(_, settings)| {
                        let url = settings.token_url().ok()?;
                        self.context.worked().of(&url, credential.client_id.as_deref()?.trim())
                    },
                );
                credential.next_in_use = worked.map(|at| at == 1);
            }
            credentials
        }
        #[cfg(not(feature = "oauth"))]
        Vec::new()
    }

    /// The warnings that are due: 60, 30, 7 and 1 days before a secret or certificate ends, and when it has ended.
    /// Each is given once by a process, and told to the sink of [`with_account_events`](Self::with_account_events).
    /// A host calls this once a day or so; a run of a job does it too.
    pub fn secret_warnings(&self) -> Vec<CredentialWarning> {
        let due = self.watching.calendar.due(&self.secret_calendar(), self.context.now());
        for warning in &due {
            self.watching.tell(&AccountEvent::Credential(warning.clone()));
        }
        due
    }
}

/// The end of the first certificate of a PEM file.
#[cfg(all(feature = "oauth", feature = "certificate"))]
fn certificate_end(file: &std::path::Path) -> Result<Timestamp, String> {
    crate::auth::certificate_end(file)
}

#[cfg(all(feature = "oauth", not(feature = "certificate")))]
fn certificate_end(file: &std::path::Path) -> Result<Timestamp, String> {
    Err(format!("`{}` is not read: the feature `certificate` is not built into this program", file.display()))
}
