//! The hand-over of [`MailApp`]: somebody signs in once, and from then on jobs run.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use url::Url;

use super::{MailApp, account::Account};
use crate::{
    Error, ErrorKind, FolderSpec, Query, Result, Role, Secret,
    auth::{
        Answer, Auth, Callback, DeviceCode, Flow, HandOver, OneToken, SignInOutcome, SignInSettings, WEB, is_loopback,
    },
    net::{self, loopback::Loopback},
    store::{Pending, Purpose, SignInId, Taken},
};

/// How long the browser on this machine is waited for.
const HERE: Duration = Duration::from_secs(15 * 60);

/// A sign-in that is used at least this often is not forgotten: Entra forgets one after 90 days ("Refresh tokens").
const IDLE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A hand-over whose answer comes back to this machine; see [`MailApp::sign_in_here`].
#[derive(Debug)]
pub struct HandOverHere<'a> {
    app: &'a MailApp,
    hand_over: HandOver,
    loopback: Loopback,
}

impl HandOverHere<'_> {
    /// What to open in a browser on this machine, and until when.
    #[must_use]
    pub fn hand_over(&self) -> &HandOver {
        &self.hand_over
    }

    /// Waits for the browser, and shows it a page that says what came of it. Dropped before, nothing is left behind
    /// but a link that leads nowhere.
    ///
    /// # Errors
    ///
    /// As [`MailApp::complete_sign_in`].
    pub async fn finish(self) -> Result<SignInOutcome> {
        let Self { app, hand_over, loopback } = self;
        let left = Duration::try_from(hand_over.expires.duration_since(app.context.now())).unwrap_or_default();
        let answered = tokio::select! {
            answered = loopback.answer(&hand_over.state) => answered?,
            () = app.context.sleep(left) => return Ok(SignInOutcome::Expired { account: hand_over.account }),
        };
        let outcome = app.complete_sign_in(&answered.query).await;
        match &outcome {
            Ok(outcome) => answered.show(&outcome.page()).await,
            // The program tells it; the page has no more to say than that.
            Err(error) => {
                let error = Error::new(error.kind(), error.message().to_owned());
                answered.show(&SignInOutcome::Refused { account: hand_over.account, error }.page()).await;
            }
        }
        outcome
    }
}

/// What came of one idle sign-in; see [`MailApp::refresh_idle`].
#[derive(Debug)]
#[non_exhaustive]
pub struct IdleRefresh {
    /// Whose sign-in it is.
    pub id: SignInId,
    /// The account through which it was used.
    pub account: String,
    /// Whether the service took it.
    pub result: Result<()>,
}

impl MailApp {
    /// Begins a sign-in for a delegated account: [`HandOver::link`] is what to open, in any browser, at any time before
    /// it expires (seven days). The service sends the browser to the host's own page, whose address is
    /// `redirect_uri`, or else that of the app registration; what it brings there goes to
    /// [`complete_sign_in`](Self::complete_sign_in), in this process or another one with the same store.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] when nobody signs in for this account, when no redirect URI is known, when the app's
    /// secret cannot be read, and when there is no key to seal a sign-in with: before anybody is sent anywhere.
    /// [`ErrorKind::Storage`].
    pub async fn begin_sign_in(&self, account: &str, redirect_uri: Option<&str>) -> Result<HandOver> {
        let flow = self.flow(account)?;
        let redirect = self.redirect(&flow.settings, redirect_uri)?;
        flow.begin(&redirect, WEB).await.map_err(|e| e.with_account(&flow.account))
    }

    /// The same for an administrator, who consents to the app for the whole tenant. For accounts of apps and of people.
    ///
    /// # Errors
    ///
    /// As [`begin_sign_in`](Self::begin_sign_in); [`ErrorKind::Unsupported`] at services other than Microsoft's.
    pub async fn begin_admin_consent(&self, account: &str, redirect_uri: Option<&str>) -> Result<HandOver> {
        let flow = self.flow(account)?;
        let redirect = self.redirect(&flow.settings, redirect_uri)?;
        flow.begin_consent(&redirect, WEB).await.map_err(|e| e.with_account(&flow.account))
    }

    /// Takes what the browser brought back: the query of the redirect, or its whole URL.
    ///
    /// Only for [`SignInOutcome::Authorised`] is anything stored: the person is who the configuration names, by the
    /// service's own word, and the mailbox was read with the new token. Every hand-over is answered once.
    ///
    /// # Errors
    ///
    /// What stands in the way on this side, such as [`ErrorKind::Storage`]. What the service or the person did is an
    /// outcome.
    pub async fn complete_sign_in(&self, query: &str) -> Result<SignInOutcome> {
        let outcome = self.answered(query).await?;
        self.watching.handed_over(&outcome).await;
        Ok(outcome)
    }

    async fn answered(&self, query: &str) -> Result<SignInOutcome> {
        let callback = Callback::parse(query);
        let Some(state) = callback.state else { return Ok(SignInOutcome::Foreign) };
        let pending = match self.lazy_tokens.take_pending(&state, self.context.now()).await? {
            Taken::Open(pending) => pending,
            Taken::Used { account } => return Ok(SignInOutcome::AlreadyUsed { account }),
            Taken::Expired { account } => return Ok(SignInOutcome::Expired { account }),
            Taken::Unknown => return Ok(SignInOutcome::Foreign),
        };
        let flow = self.flow(&pending.account)?;
        if flow.settings.id()? != pending.id {
            return Ok(flow.no(Error::new(
                ErrorKind::InvalidConfig,
                "the account's app registration or principal was changed since the sign-in began. Start it again",
            )));
        }
        match pending.purpose {
            Purpose::SignIn => flow.complete(&pending, callback.answer).await,
            Purpose::AdminConsent => self.consented(flow, &pending, callback.answer).await,
        }
    }

    /// Begins a sign-in for a delegated account whose answer comes back to this machine: the program waits on a free
    /// port, or on that of the app registration's redirect URI, for fifteen minutes at most.
    ///
    /// # Errors
    ///
    /// As [`begin_sign_in`](Self::begin_sign_in); also when the app registration's redirect URI leads elsewhere, or its
    /// port is taken.
    pub async fn sign_in_here(&self, account: &str) -> Result<HandOverHere<'_>> {
        self.here(account, Purpose::SignIn).await
    }

    /// The same for an administrator's consent.
    ///
    /// # Errors
    ///
    /// As [`sign_in_here`](Self::sign_in_here) and [`begin_admin_consent`](Self::begin_admin_consent).
    pub async fn admin_consent_here(&self, account: &str) -> Result<HandOverHere<'_>> {
        self.here(account, Purpose::AdminConsent).await
    }

    /// Begins a sign-in with a code that is typed on any device; [`await_device`](Self::await_device) waits for it. The
    /// app registration must allow public client flows.
    ///
    /// # Errors
    ///
    /// As [`begin_sign_in`](Self::begin_sign_in), and what the service refuses.
    pub async fn device_code(&self, account: &str) -> Result<DeviceCode> {
        let flow = self.flow(account)?;
        flow.begin_device().await.map_err(|e| e.with_account(&flow.account))
    }

    /// Waits until the code was typed and somebody signed in, or will not any more.
    ///
    /// # Errors
    ///
    /// As [`complete_sign_in`](Self::complete_sign_in).
    pub async fn await_device(&self, code: &DeviceCode) -> Result<SignInOutcome> {
        let outcome = self.flow(&code.account)?.await_device(code).await?;
        self.watching.handed_over(&outcome).await;
        Ok(outcome)
    }

    /// Uses the sign-ins once that were not used for thirty days, so that the service does not forget them: Entra does
    /// after ninety. A host calls it once a day or so; with nothing to do it is one look into the store, and none if no
    /// person signs in for any account.
    ///
    /// # Errors
    ///
    /// When the store cannot be read. What happens to one sign-in is in its result, and stops no other.
    pub async fn refresh_idle(&self) -> Result<Vec<IdleRefresh>> {
        let mut people = Vec::new();
        let mut seen = HashSet::new();
        for account in self.accounts.iter().filter(|account| account.enabled) {
            // A broken account is told when it is used.
            if let Ok(Some(settings)) = account.sign_in()
                && settings.auth == Auth::Delegated
                && seen.insert(settings.id()?)
            {
                people.push((account.name.clone(), settings));
            }
        }
        if people.is_empty() {
            return Ok(Vec::new());
        }
        let idle = SignedDuration::try_from(IDLE).unwrap_or(SignedDuration::MAX);
        let limit = self.context.now().saturating_sub(idle).unwrap_or(Timestamp::MIN);
        let stored = self.lazy_tokens.sign_ins().await?;
        let mut done = Vec::new();
        for (account, settings) in people {
            let id = settings.id()?;
            if !stored.iter().any(|(of, refreshed)| *of == id && *refreshed <= limit) {
                continue;
            }
            let result = match net::person(&self.context, &settings, Some(&self.lazy_tokens)) {
                Ok(person) => person.renew().await,
                Err(error) => Err(error),
            };
            if let Err(error) = &result {
                for (sharing, _) in self.sharing(&id) {
                    self.watching.not_renewed(sharing, error).await;
                }
            }
            done.push(IdleRefresh { id, result: result.map_err(|e| e.with_account(&account)), account });
        }
        Ok(done)
    }

    /// How an account signs in with OAuth; `None` when it does not.
    ///
    /// # Errors
    ///
    /// As [`account`](Self::account).
    pub fn sign_in_settings(&self, account: &str) -> Result<Option<SignInSettings>> {
        self.find(account)?.sign_in()
    }

    async fn here(&self, account: &str, purpose: Purpose) -> Result<HandOverHere<'_>> {
        let flow = self.flow(account)?;
        let begun = async {
            let loopback = Loopback::bind(&flow.settings).await?;
            let hand_over = match purpose {
                Purpose::AdminConsent => flow.begin_consent(loopback.redirect_uri(), HERE).await?,
                Purpose::SignIn => flow.begin(loopback.redirect_uri(), HERE).await?,
            };
            Ok(HandOverHere { app: self, hand_over, loopback })
        };
        begun.await.map_err(|e: Error| e.with_account(&flow.account))
    }

    fn redirect(&self, settings: &SignInSettings, given: Option<&str>) -> Result<String> {
        let Some(uri) = given.or(settings.app.redirect_uri.as_deref()).map(str::trim) else {
            return Err(settings.places.invalid(
                "redirect_uri",
                "is missing; write the address of the page that takes the answer, as it stands in the app registration",
            ));
        };
        match Url::parse(uri) {
            Ok(url) if url.scheme() == "http" && !url.host_str().is_some_and(is_loopback) => {
                Err(settings.places.invalid(
                    "redirect_uri",
                    "would bring the answer unprotected; write https, http is only for this machine",
                ))
            }
            Ok(_) => Ok(uri.to_owned()),
            Err(e) => Err(settings.places.invalid("redirect_uri", "is not a URL").with_source(e)),
        }
    }

    fn flow(&self, account: &str) -> Result<Flow> {
        let account = self.find(account)?;
        let Some(settings) = account.sign_in()? else {
            return Err(account.error("it does not sign in with OAuth, so there is nothing to authorize".to_owned()));
        };
        let endpoint = net::endpoint(&self.context, &settings)?;
        Ok(Flow {
            account: account.name.clone(),
            also: self.also(account, &settings)?,
            endpoint,
            store: Arc::clone(&self.lazy_tokens),
            prove: self.prove(account),
            settings,
        })
    }

    /// What the other accounts ask for that the same sign-in serves.
    fn also(&self, account: &Account, settings: &SignInSettings) -> Result<Vec<String>> {
        let id = settings.id()?;
        let mut scopes = Vec::new();
        for (_, settings) in self.sharing(&id).filter(|(other, _)| other.name != account.name) {
            scopes.extend(settings.scopes()?);
        }
        Ok(scopes)
    }

    /// The accounts that one person's sign-in serves. A broken one is told when it is used.
    fn sharing<'a>(&'a self, id: &'a SignInId) -> impl Iterator<Item = (&'a Account, SignInSettings)> {
        let enabled = self.accounts.iter().filter(|account| account.enabled);
        let people = enabled.filter_map(|account| Some((account, account.sign_in().ok()??)));
        people.filter(move |(_, settings)| {
            settings.auth == Auth::Delegated && settings.id().is_ok_and(|other| other == *id)
        })
    }

    /// Reads the mailbox's inbox with a token.
    fn prove(&self, account: &Account) -> crate::auth::Prove {
        let (account, context) = (account.clone(), self.context.clone());
        Box::new(move |token: Secret| {
            let (account, context) = (account.clone(), context.clone());
            Box::pin(async move {
                let account = account.open_with(context, |opening| opening.with_tokens(Arc::new(OneToken(token))))?;
                let inbox = account.resolve_folder(&FolderSpec::Role(Role::Inbox)).await?;
                // One message, or that there is none.
                let mut messages = account.fetch_messages(&inbox.id, Query::default().with_limit(1));
                messages.next().await.transpose().map(drop)
            })
        })
    }

    /// An administrator's answer. The query proves nothing, so a token is asked for, and it must be a new one: those in
    /// hand were made before.
    async fn consented(&self, flow: Flow, pending: &Pending, answer: Answer) -> Result<SignInOutcome> {
        let hint = match answer {
            Answer::Consent { tenant } => tenant,
            Answer::Refused { error, description } => return Ok(flow.declined(&error, &description)),
            Answer::Code(_) | Answer::Nothing => {
                return Ok(flow.no(Error::new(ErrorKind::Malformed, "the answer does not say that consent was given")));
            }
        };
        if flow.is_elsewhere(hint.as_deref())? {
            return Ok(flow.no(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "consent was given in another tenant than `{}`. Sign in there as an administrator of the account's tenant",
                    flow.settings.places.place("tenant")
                ),
            )));
        }
        // Apart: neither a token nor a refusal of before counts.
        let asked = net::tokens(&self.context.apart(), &flow.settings, Some(&self.lazy_tokens))?.token().await;
        let consented = SignInOutcome::Consented { account: flow.account.clone() };
        match asked {
            Ok(_) => {
                let shared = net::tokens(&self.context, &flow.settings, Some(&self.lazy_tokens))?;
                if let Ok(old) = shared.token().await {
                    shared.reject(&old, None);
                }
                Ok(consented)
            }
            // Nobody has signed in yet; that is the next step, and it will tell.
            Err(error) if error.kind() == ErrorKind::SignInNeeded => Ok(consented),
            Err(error) => flow.refused(error.into(), &pending.redirect_uri).await,
        }
    }
}
