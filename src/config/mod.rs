//! The configuration file, and [`MailApp`], which is made of it.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | [`MailApp`] |
//! | `file.rs` | text to tables, and the line of every key |
//! | `value.rs` | checks a table against the description of its settings |
//! | `kinds.rs` | the settings of everything that is not a provider's |
//! | `account.rs`, `job.rs`, `state.rs` | the sections |
//! | `registry.rs` | the one table of providers |
//! | `checking.rs` | Test Connection, and accounts that sign in in a retired way |
//! | `watching.rs` | the states of accounts and the secret calendar |
//! | `sign_in.rs` | the hand-over: somebody signs in once for an account |
//! | `tests.rs` | tests of the whole file |
//!
//! # What stops what
//!
//! Loading reads the file and nothing else: no server, no database, no environment variable, no other file (links in
//! the path of a Maildir are followed, to know two names of one mailbox). It looks at everything in the file, whatever
//! is used of it later. What cannot be understood as a whole stops everything;
//! what is wrong inside one account or job stops that one, when it is used, so that ten accounts do not stand still
//! for the eleventh.
//!
//! | what is wrong | stops | when |
//! |---|---|---|
//! | the file cannot be read, is not UTF-8, or not TOML | everything | loading |
//! | an unknown section, key or provider, also in what is not used | everything | loading |
//! | a name that is empty, or that is another one but for blanks around it | everything | loading |
//! | anything in `[state]` | everything | loading |
//! | a job names an account that is not there, or the same mailbox twice | everything | loading |
//! | two jobs read the same import folder of the same mailbox | everything | loading |
//! | a missing key, a wrong type, a value that cannot be right | its account or job | use |
//! | an app registration that is not there, or a key both in it and in the account | its accounts | use |
//! | `enabled = false`; a provider that is not built into this program | its account | use |
//! | a variable that is not set, a secret or CA file that cannot be read | its accounts | first need |
//! | the processed folder is the import folder | the account, in that job | the run |
//! | the database cannot be opened | everything | the first run |
//! | no key for stored sign-ins, or one in a variable or file that is none | the accounts that people sign in to | first need |
//!
//! Using an account is [`MailApp::account`]; using a job is [`MailApp::importer`]. An account of a job that cannot be
//! opened is an error in the report of the run, beside the other accounts' results.

mod account;
mod checking;
mod file;
mod job;
mod kinds;
mod registry;
#[cfg(feature = "oauth")]
mod sign_in;
mod state;
mod value;
mod watching;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fs,
    path::{Path, absolute},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use checking::RetiringAccount;
pub use registry::Registry;
#[cfg(feature = "oauth")]
pub use sign_in::{HandOverHere, IdleRefresh};
pub use state::StateConfig;

use crate::{
    Context, Error, ErrorKind, ImportJob, Importer, Ledger, MailAccount, MailboxInfo, Result,
    import::JobAccount,
    setting::{Field, Kind},
    store::{StateStore, TokenStore},
};
use account::{Account, Accounts};
use file::{Document, suggest};
use job::Job;
use state::{LazyTokens, Stores};
use watching::Watching;

/// A configuration file, ready for use: its accounts, its jobs and its ledger.
///
/// A thin front over parts that can be used one by one. Loading does no I/O but reading the file; accounts connect
/// with their first call; the ledger is opened by the first importer, and the store of sign-ins by the first account
/// that needs it.
///
/// ```
/// use mail_account::MailApp;
///
/// let app = MailApp::from_str(
///     r#"
///     [accounts.local]
///     provider = "maildir"
///     path = "./mailbox"
///
///     [jobs.emailed-invoices]
///     accounts = ["local"]
///     import_folder = "Inbox"
///     processed_folder = "Inbox/Processed"
///     "#,
///     ".",
/// )?;
/// assert_eq!(app.job("emailed-invoices")?.max_attempts, 3);
/// assert_eq!(app.accounts().next().map(|account| account.name), Some("local".into()));
/// # Ok::<(), mail_account::Error>(())
/// ```
#[derive(Debug)]
pub struct MailApp {
    document: Document,
    registry: Registry,
    context: Context,
    accounts: Arc<Accounts>,
    jobs: Vec<Job>,
    opened: Opened,
    /// Accounts that were given instead of being opened.
    given: Vec<String>,
    watching: Watching,
    stores: Stores,
    /// What accounts are opened with: one for all, so that they share their sign-ins' tokens.
    lazy_tokens: Arc<dyn TokenStore>,
}

/// The accounts that were opened, by name: each is opened once, so that its connections and limits are shared.
type Opened = Arc<Mutex<HashMap<String, Arc<dyn MailAccount>>>>;

/// Makes a [`MailApp`] with other parts than the usual ones.
#[derive(Clone, Debug, Default)]
pub struct Loader {
    registry: Registry,
    context: Context,
}

/// What the configuration says of one account.
#[derive(Debug)]
#[non_exhaustive]
pub struct AccountInfo {
    /// Its identifier.
    pub name: String,
    /// Its provider.
    pub provider: String,
    /// Whether it may be opened.
    pub enabled: bool,
    /// Which mailbox it reads, where the file tells.
    pub mailbox: Option<MailboxInfo>,
    /// What is wrong with it, as far as the file tells.
    pub problem: Option<Error>,
    /// The server that it names, where its provider is told one.
    pub host: Option<String>,
    /// How it signs in, where it does.
    pub sign_in: Option<SignIn>,
}

/// How an account signs in, as far as the file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignIn {
    /// With a user name and a password.
    Password,
    /// With an access token, given to an app or to a person.
    Token,
}

impl Loader {
    /// With these providers.
    #[must_use]
    pub fn with_registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// With another clock or randomness.
    #[must_use]
    pub fn with_context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// As [`MailApp::load`].
    ///
    /// # Errors
    ///
    /// As [`MailApp::load`].
    pub fn load(self, path: impl AsRef<Path>) -> Result<MailApp> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let unreadable =
            |what: &str| Error::new(ErrorKind::InvalidConfig, format!("the configuration `{name}` {what}"));
        let bytes = fs::read(path).map_err(|e| unreadable("cannot be read").with_source(e))?;
        let text = String::from_utf8(bytes).map_err(|_| unreadable("is not UTF-8; save it as UTF-8"))?;
        // Windows editors put a byte order mark before UTF-8.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        self.build(Some(name.clone()), text, folder)
    }

    /// As [`MailApp::from_str`].
    ///
    /// # Errors
    ///
    /// As [`MailApp::from_str`].
    pub fn from_str(self, text: &str, folder: impl AsRef<Path>) -> Result<MailApp> {
        self.build(None, text, folder.as_ref())
    }

    fn build(self, name: Option<String>, text: &str, folder: &Path) -> Result<MailApp> {
        let base = absolute(folder).map_err(|e| {
            Error::new(ErrorKind::InvalidConfig, format!("the folder `{}` has no absolute path", folder.display()))
                .with_source(e)
        })?;
        let (document, mut table) = Document::parse(name, text, &base)?;
        let mut section = |name: &str| table.remove(name);
        let (state, registrations, accounts, jobs) =
            (section("state"), section("registrations"), section("accounts"), section("jobs"));
        if let Some(unknown) = table.keys().next() {
            let hint = suggest(unknown, ["state", "registrations", "accounts", "jobs"]);
            return Err(document.invalid(unknown, &format!("is not a section of the configuration; {hint}")));
        }
        let state = state::state(&document, state)?;
        let registrations = account::registrations(&document, registrations)?;
        let accounts = Arc::new(account::accounts(&document, &self.registry, &registrations, accounts)?);
        let jobs = job::jobs(&document, &accounts, jobs)?;
        let stores = Stores::new(state, self.context.clone());
        Ok(MailApp {
            document,
            registry: self.registry,
            lazy_tokens: Arc::new(LazyTokens(stores.clone())),
            watching: Watching::new(Arc::clone(&accounts), stores.clone(), self.context.clone()),
            stores,
            context: self.context,
            accounts,
            jobs,
            opened: Opened::default(),
            given: Vec::new(),
        })
    }
}

impl MailApp {
    /// Reads a configuration file. Paths in it are relative to its folder.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] for what stops everything; see the table in [`config`](crate::config). The text
    /// names the file, the line and the key, and the nearest known name.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::loader().load(path)
    }

    /// Reads a configuration from a text; paths in it are relative to `folder`.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn from_str(text: &str, folder: impl AsRef<Path>) -> Result<Self> {
        Self::loader().from_str(text, folder)
    }

    /// For other providers, or another clock.
    #[must_use]
    pub fn loader() -> Loader {
        Loader::default()
    }

    /// With this ledger instead of the one that `[state]` names.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Arc<dyn Ledger>) -> Self {
        self.stores = self.stores.with_ledger(ledger);
        self.watching = self.watching.with_stores(self.stores.clone());
        self
    }

    /// With this store of sign-ins instead of the one that `[state]` names.
    #[must_use]
    pub fn with_token_store(mut self, tokens: Arc<dyn TokenStore>) -> Self {
        self.stores = self.stores.with_token_store(tokens);
        self.lazy_tokens = Arc::new(LazyTokens(self.stores.clone()));
        self.watching = self.watching.with_stores(self.stores.clone());
        self
    }

    /// With this store of the accounts' states instead of the one that `[state]` names.
    #[must_use]
    pub fn with_state_store(mut self, states: Arc<dyn StateStore>) -> Self {
        self.stores = self.stores.with_state_store(states);
        self.watching = self.watching.with_stores(self.stores.clone());
        self
    }

    /// With this account in the place of the one of the same name in the file, so that a test can run a job on a
    /// mailbox it has made.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] when the file has no such account, or does not enable it.
    pub fn with_account(mut self, account: Arc<dyn MailAccount>) -> Result<Self> {
        let name = account.mailbox().account.clone();
        if !self.find(&name)?.enabled {
            return self.account(&name).map(|_| self);
        }
        lock(&self.opened).insert(name.clone(), account);
        self.given.push(name);
        Ok(self)
    }

    /// An account, by its identifier. Does no I/O, and gives the same account each time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] when there is no such account, it is not enabled, or something is wrong inside it;
    /// [`ErrorKind::Unsupported`] when its provider is not built into this program.
    pub fn account(&self, name: &str) -> Result<Arc<dyn MailAccount>> {
        open(self.find(name)?, &self.opened, &self.context, &self.lazy_tokens)
    }

    /// All accounts, in the order of the file.
    pub fn accounts(&self) -> impl Iterator<Item = AccountInfo> {
        self.accounts.iter().map(|account| AccountInfo {
            name: account.name.clone(),
            provider: account.provider.clone(),
            enabled: account.enabled,
            mailbox: account.mailbox(),
            problem: account.problem(),
            host: account.host.clone(),
            sign_in: account.sign_in,
        })
    }

    /// What runs a job. Opens the ledger, and each account when its turn comes: one that cannot be opened is an error
    /// in the report, and stops no other.
    ///
    /// # Errors
    ///
    /// As [`job`](Self::job) and [`ledger`](Self::ledger).
    pub async fn importer(&self, job: &str) -> Result<Importer> {
        let entry = self.find_job(job)?;
        let settings = entry.get()?.clone();
        let accounts = entry.accounts.iter().map(|name| self.find(name).map(|account| self.deferred(account)));
        let accounts: Vec<_> = accounts.collect::<Result<_>>()?;
        let importer = Importer::new(settings, accounts, self.ledger().await?).with_context(self.context.clone());
        self.secret_warnings();
        Ok(importer.with_observer(Arc::new(self.watching.clone())))
    }

    /// A job, by its name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] when there is no such job, or something is wrong inside it.
    pub fn job(&self, name: &str) -> Result<&ImportJob> {
        self.find_job(name)?.get()
    }

    /// The accounts that a job names.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] when there is no such job.
    pub fn accounts_of(&self, job: &str) -> Result<&[String]> {
        Ok(&self.find_job(job)?.accounts)
    }

    /// The names of all jobs, in the order of the file.
    pub fn jobs(&self) -> impl Iterator<Item = &str> {
        self.jobs.iter().map(|job| job.name.as_str())
    }

    /// The kinds of accounts there are; see [`Registry::kinds`].
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.registry.kinds()
    }

    /// The settings of a job, for a settings screen.
    #[must_use]
    pub fn job_fields() -> Vec<Field> {
        kinds::job()
    }

    /// `[state]` of the file.
    #[must_use]
    pub fn state(&self) -> &StateConfig {
        self.stores.config()
    }

    /// The ledger; opened by the first call.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Storage`] when the database cannot be opened; [`ErrorKind::Unsupported`] when it is of a kind that
    /// is not built into this program; [`ErrorKind::InvalidConfig`] when its URL cannot be read.
    pub async fn ledger(&self) -> Result<Arc<dyn Ledger>> {
        self.stores.ledger().await
    }

    /// The stored sign-ins; the database is the ledger's. Opened by the first call, which also reads the key.
    ///
    /// # Errors
    ///
    /// As [`ledger`](Self::ledger), and [`ErrorKind::InvalidConfig`] for a key that cannot be read or is none. That
    /// there is no key at all is an error of storing a sign-in.
    pub async fn token_store(&self) -> Result<Arc<dyn TokenStore>> {
        self.stores.tokens().await
    }

    fn deferred(&self, account: &Account) -> JobAccount {
        let info = match lock(&self.opened).get(&account.name) {
            Some(opened) => opened.mailbox().clone(),
            // A broken account may not tell which mailbox it is; its error says more than a name would.
            None => account.mailbox().unwrap_or_else(|| MailboxInfo::new(&account.name, account.provider.clone(), "")),
        };
        let (account, opened, context) = (account.clone(), Arc::clone(&self.opened), self.context.clone());
        let tokens = Arc::clone(&self.lazy_tokens);
        JobAccount::deferred(info, move || open(&account, &opened, &context, &tokens))
    }

    fn find(&self, name: &str) -> Result<&Account> {
        self.accounts.get(name.trim()).ok_or_else(|| self.unknown("account", name, self.accounts.names()))
    }

    fn find_job(&self, name: &str) -> Result<&Job> {
        self.jobs.iter().find(|job| job.name == name.trim()).ok_or_else(|| self.unknown("job", name, self.jobs()))
    }

    fn unknown<'a>(&self, what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
        let file = self.document.name();
        let hint = suggest(name, known);
        Error::new(ErrorKind::InvalidConfig, format!("there is no {what} `{}` in {file}; {hint}", name.trim()))
    }
}

fn open(
    account: &Account,
    opened: &Opened,
    context: &Context,
    tokens: &Arc<dyn TokenStore>,
) -> Result<Arc<dyn MailAccount>> {
    let mut opened = lock(opened);
    if let Some(account) = opened.get(&account.name) {
        return Ok(Arc::clone(account));
    }
    let open = account.open_with(context.clone(), |opening| opening.with_token_store(Arc::clone(tokens)))?;
    opened.insert(account.name.clone(), Arc::clone(&open));
    Ok(open)
}

fn lock(opened: &Opened) -> MutexGuard<'_, HashMap<String, Arc<dyn MailAccount>>> {
    // Nothing that holds the lock can leave the map half changed.
    opened.lock().unwrap_or_else(PoisonError::into_inner)
}
