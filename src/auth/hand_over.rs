//! The hand-over: a person is sent to the sign-in service with a link, and comes back with an answer.
//!
//! Several may be on their way in one browser: each has a `state` of its own, the code is bound to a PKCE verifier
//! (RFC 7636), and the id token to a nonce. What began is stored, so that the answer may come in another process and
//! days later. Nothing of the answer is stored before the signer is known to be the principal and the mailbox was read
//! with the new token.

use std::{fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use oauth2::{
    AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, basic::BasicClient,
};
use url::Url;

use super::{
    Answer, Audience, Auth, SignInSettings,
    endpoint::{Endpoint, Granted},
    entra::Refusal,
    identity, is_guid,
    outcome::SignInOutcome,
};
use crate::{
    Context, Error, ErrorKind, Result, Secret,
    provider::is_address,
    store::{Pending, Purpose, SignIn, TokenStore},
};

/// How long an answer is awaited on a web page.
pub(crate) const WEB: Duration = Duration::from_secs(7 * 24 * 3600);

/// A hand-over that has begun.
#[derive(Clone)]
#[non_exhaustive]
pub struct HandOver {
    /// The account that it is for.
    pub account: String,
    /// What to open in a browser.
    pub link: Url,
    /// Where the browser comes back to.
    pub redirect_uri: String,
    /// Until when it may.
    pub expires: Timestamp,
    pub(crate) state: Secret,
}

impl fmt::Debug for HandOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Who has the whole link can answer it.
        let mut link = self.link.clone();
        link.set_query(None);
        f.debug_struct("HandOver")
            .field("account", &self.account)
            .field("link", &link.as_str())
            .field("redirect_uri", &self.redirect_uri)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// One account's way through a sign-in.
pub(crate) struct Flow {
    pub(crate) account: String,
    pub(crate) settings: SignInSettings,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) store: Arc<dyn TokenStore>,
    /// Scopes of other accounts that share the sign-in, so that the person agrees to everything at once.
    pub(crate) also: Vec<String>,
    /// Reads the mailbox with a token.
    pub(crate) prove: Prove,
}

pub(crate) type Prove = Box<dyn Fn(Secret) -> BoxFuture<'static, Result<()>> + Send + Sync>;

impl Flow {
    fn context(&self) -> &Context {
        self.endpoint.context()
    }

    /// The scopes of this account's token.
    pub(super) fn token_scope(&self) -> Result<String> {
        let scopes = self.settings.scopes()?;
        let lasting = self.settings.lasting_scopes().iter().map(|scope| (*scope).to_owned());
        Ok(lasting.chain(scopes).collect::<Vec<_>>().join(" "))
    }

    /// What a person must be, and the store must be able to, before anybody is sent anywhere.
    pub(super) async fn check(&self) -> Result<()> {
        if self.settings.auth == Auth::App {
            return Err(self.settings.places.invalid(
                "auth",
                "is `app`: nobody signs in for this account. An administrator may have to consent, no more",
            ));
        }
        self.store.ready().await?;
        self.endpoint.material().await.map(drop)
    }

    /// Sends a person to sign in.
    pub(crate) async fn begin(&self, redirect_uri: &str, lasts: Duration) -> Result<HandOver> {
        self.check().await?;
        let pending = self.pending(Purpose::SignIn, redirect_uri, lasts)?;
        let link = self.link(&pending)?;
        self.store.put_pending(&pending).await?;
        Ok(HandOver {
            account: pending.account,
            link,
            redirect_uri: pending.redirect_uri,
            expires: pending.expires,
            state: pending.state,
        })
    }

    /// Sends an administrator to consent for the whole tenant.
    pub(crate) async fn begin_consent(&self, redirect_uri: &str, lasts: Duration) -> Result<HandOver> {
        if matches!(self.settings.audience, Audience::Other { .. }) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "there is no administrator's consent at this service, only at Microsoft's",
            ));
        }
        let pending = self.pending(Purpose::AdminConsent, redirect_uri, lasts)?;
        let authority = self.settings.app.authority(&self.settings.places)?;
        let mut link = authority.admin_consent_url();
        // Everything the registration lists, application permissions included ("The .default scope").
        link.query_pairs_mut()
            .append_pair("client_id", self.endpoint.client_id())
            .append_pair("scope", &format!("{}/.default", authority.cloud.graph_url()))
            .append_pair("redirect_uri", &pending.redirect_uri)
            .append_pair("state", pending.state.expose());
        self.store.put_pending(&pending).await?;
        Ok(HandOver {
            account: pending.account,
            link,
            redirect_uri: pending.redirect_uri,
            expires: pending.expires,
            state: pending.state,
        })
    }

    fn pending(&self, purpose: Purpose, redirect_uri: &str, lasts: Duration) -> Result<Pending> {
        let random = || Secret::new(base64_simd::URL_SAFE_NO_PAD.encode_to_string(self.context().random::<32>()));
        let now = self.context().now();
        let lasts = SignedDuration::try_from(lasts).unwrap_or(SignedDuration::MAX);
        let expires = now.saturating_add(lasts).unwrap_or(Timestamp::MAX);
        let id = self.settings.id()?;
        let (verifier, nonce) = match purpose {
            Purpose::SignIn => (random(), random()),
            Purpose::AdminConsent => (Secret::new(""), Secret::new("")),
        };
        Ok(Pending::new(random(), &self.account, purpose, id, verifier, redirect_uri, nonce, now, expires))
    }

    fn link(&self, pending: &Pending) -> Result<Url> {
        let settings = &self.settings;
        let unusable =
            |what: &'static str| move |e: url::ParseError| Error::new(ErrorKind::InvalidConfig, what).with_source(e);
        let at = match &settings.authorize_url {
            Some(url) => url.clone(),
            None => settings.app.authority(&settings.places)?.authorize_url(),
        };
        let chooses = at.query_pairs().any(|(name, _)| name == "prompt");
        let auth_url = AuthUrl::new(at.to_string()).map_err(unusable("the address to sign in at is not a URL"))?;
        let redirect =
            RedirectUrl::new(pending.redirect_uri.clone()).map_err(unusable("the redirect URI is not a URL"))?;
        let client = BasicClient::new(ClientId::new(self.endpoint.client_id().to_owned()))
            .set_auth_uri(auth_url)
            .set_redirect_uri(redirect);
        let mut scopes = settings.lasting_scopes().iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        for scope in settings.scopes()?.into_iter().chain(self.also.iter().cloned()).chain(settings.more_to_consent()?)
        {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        let verifier = PkceCodeVerifier::new(pending.verifier.expose().to_owned());
        let mut request = client
            .authorize_url(|| CsrfToken::new(pending.state.expose().to_owned()))
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            // Also where nobody asks for an id token: some services give one unasked.
            .add_extra_param("nonce", pending.nonce.expose().to_owned())
            .add_scopes(scopes.into_iter().map(Scope::new));
        if !chooses {
            // Without it a live session of somebody else is used without a question.
            request = request.add_extra_param("prompt", "select_account");
        }
        if settings.authorize_url.is_none() {
            request = request.add_extra_param("response_mode", "query");
        }
        if is_address(&settings.principal) {
            request = request.add_extra_param("login_hint", settings.principal.clone());
        }
        Ok(request.url().0)
    }

    /// What a person's answer comes to.
    pub(crate) async fn complete(&self, pending: &Pending, answer: Answer) -> Result<SignInOutcome> {
        let code = match answer {
            Answer::Code(code) => code,
            Answer::Refused { error, description } => {
                return self.refused(Refusal::of_redirect(&error, &description), &pending.redirect_uri).await;
            }
            Answer::Consent { .. } | Answer::Nothing => {
                return Ok(self.no(Error::new(
                    ErrorKind::Malformed,
                    "the answer of the sign-in service holds neither a code nor an error. Start the sign-in again",
                )));
            }
        };
        let material = self.endpoint.material().await?;
        let scope = self.token_scope()?;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", &pending.redirect_uri),
            ("code_verifier", pending.verifier.expose()),
        ];
        if !matches!(self.settings.audience, Audience::Other { .. }) {
            // Elsewhere the code stands for the scopes (RFC 6749, section 4.1.3).
            form.push(("scope", &scope));
        }
        match self.endpoint.grant(&material, &form, &[&code, &pending.verifier]).await {
            Ok(granted) => self.accept(granted, Some(&pending.nonce)).await,
            Err(refusal) => self.refused(refusal, &pending.redirect_uri).await,
        }
    }

    /// Stores a sign-in, if it is the right person's and opens the mailbox.
    pub(super) async fn accept(&self, mut granted: Granted, nonce: Option<&Secret>) -> Result<SignInOutcome> {
        let identity = match identity::learn(&self.endpoint, &self.settings, &mut granted, nonce).await {
            Ok(identity) => identity,
            Err(error) => return Ok(self.no(error)),
        };
        let principal = &self.settings.principal;
        if !identity.is(principal) {
            return Ok(SignInOutcome::WrongIdentity {
                account: self.account.clone(),
                expected: principal.clone(),
                signed_in: identity.signer,
            });
        }
        let Some(refresh_token) = granted.refresh_token else {
            return Ok(self.no(Error::new(
                ErrorKind::InvalidConfig,
                "the sign-in service gave no refresh token, so that the sign-in would end within the hour. `offline_access` was not granted: add that permission to the app registration (elsewhere to `scopes`) and sign in again",
            )));
        };
        if let Err(error) = (self.prove)(granted.token.secret.clone()).await {
            return Ok(self.no(error));
        }
        let mut sign_in = SignIn::new(refresh_token, identity.signer.clone(), self.context().now());
        sign_in.scopes = granted.scopes;
        self.store.put_sign_in(&self.settings.id()?, &sign_in, true).await?;
        tracing::info!(account = %self.account, signer = %identity.signer.name, "signed in");
        Ok(SignInOutcome::Authorised { account: self.account.clone(), signer: identity.signer })
    }

    /// A refusal; where an administrator's consent is missing, with the link for it.
    pub(crate) async fn refused(&self, refusal: Refusal, redirect_uri: &str) -> Result<SignInOutcome> {
        if !refusal.needs_consent() {
            return Ok(self.no(refusal.error));
        }
        let link = match self.begin_consent(redirect_uri, WEB).await {
            Ok(hand_over) => Some(hand_over.link),
            Err(error) if error.kind() == ErrorKind::Unsupported => None,
            Err(error) => return Err(error),
        };
        Ok(SignInOutcome::ConsentPending { account: self.account.clone(), link, error: refusal.error })
    }

    /// A refusal that came through the browser and that no consent mends.
    pub(crate) fn declined(&self, error: &str, description: &str) -> SignInOutcome {
        self.no(Refusal::of_redirect(error, description).error)
    }

    /// Whether the consent was given for another tenant than the account's, as far as can be told from a hint.
    pub(crate) fn is_elsewhere(&self, hint: Option<&str>) -> Result<bool> {
        let tenant = self.settings.app.authority(&self.settings.places)?.tenant;
        Ok(hint.is_some_and(|hint| is_guid(hint) && is_guid(&tenant) && !hint.eq_ignore_ascii_case(&tenant)))
    }

    pub(crate) fn no(&self, error: Error) -> SignInOutcome {
        SignInOutcome::Refused { account: self.account.clone(), error: error.with_account(&self.account) }
    }
}

/// A redirect URI for a link that is opened by somebody else, somewhere else. The consent is given before the browser
/// comes back, so that it does no harm when nobody listens there.
pub(crate) fn somewhere(settings: &SignInSettings) -> String {
    settings.app.redirect_uri.as_deref().map_or("http://localhost", str::trim).to_owned()
}
