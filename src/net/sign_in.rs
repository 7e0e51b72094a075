//! The way of `auth` to the sign-in service: it opens no connection of its own.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::{Client, RequestBuilder, header::AUTHORIZATION};
use url::Url;

use super::{
    Route, bearer, fingerprint,
    http::{self, Http},
    retry::{Attempt, Health, Tries, attempts},
};
use crate::{
    Context, Error, ErrorKind, Result, Secret,
    auth::{App, Ask, Audience, Auth, Endpoint, Judge, Person, Reply, SignInSettings, TokenProvider, Verdict},
    store::{SignInId, TokenStore},
};

/// More than any token answer; a gateway's page may be longer.
const CAP: usize = 256 * 1024;

/// What makes two accounts share tokens: service, app, resource, credential, and person.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    token_url: String,
    client_id: String,
    scope: String,
    credential: Vec<[u8; 32]>,
    /// The person, and the store that their sign-in is in (by its address, which is not given to another one as long
    /// as the tokens hold it).
    person: Option<(SignInId, usize)>,
}

/// Who gives access tokens, shared by everybody who asks for the same. Does no I/O.
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`] when the registration names no tenant or client id, or there is no store for a
/// person's sign-in.
pub(crate) fn tokens(
    context: &Context,
    settings: &SignInSettings,
    store: Option<&Arc<dyn TokenStore>>,
) -> Result<Arc<dyn TokenProvider>> {
    let person = match settings.auth {
        Auth::App => None,
        Auth::Delegated => Some(person(context, settings, store)?),
    };
    let address = |store: &Arc<dyn TokenStore>| Arc::as_ptr(store).cast::<()>() as usize;
    let app = &settings.app;
    let secrets = [&app.client_secret, &app.client_secret_next].into_iter().flatten().map(fingerprint);
    let files = app.certificate.iter().flat_map(|c| [&c.cert_file, &c.key_file]).chain(&app.federated_token_file);
    let files =
        files.map(|file| fingerprint(&crate::SecretSource::File(crate::secret::FileName { file: file.clone() })));
    let scope = settings.scopes()?.join(" ");
    let key = Key {
        token_url: settings.token_url()?.to_string(),
        client_id: app.client_id.as_deref().unwrap_or_default().trim().to_owned(),
        scope: scope.clone(),
        credential: secrets.chain(files).collect(),
        person: match (&person, store) {
            (Some(_), Some(store)) => Some((settings.id()?, address(store))),
            _ => None,
        },
    };
    let app = endpoint(context, settings)?;
    Ok(context.shared().tokens(key, move || match person {
        Some(person) => person.tokens(),
        None => App::tokens(app, scope),
    }))
}

/// A person's stored sign-in.
///
/// # Errors
///
/// As [`tokens`].
pub(crate) fn person(
    context: &Context,
    settings: &SignInSettings,
    store: Option<&Arc<dyn TokenStore>>,
) -> Result<Person> {
    let Some(store) = store else {
        return Err(settings.places.invalid(
            "auth",
            "is `delegated`, but there is no store for sign-ins here; open the account with `MailApp`, or give `Opening` a token store",
        ));
    };
    let scope = match settings.audience {
        // What was granted at the sign-in, in that service's words.
        Audience::Other { .. } => None,
        _ => Some([settings.scopes()?, vec!["offline_access".to_owned()]].concat().join(" ")),
    };
    Ok(Person::new(endpoint(context, settings)?, scope, settings.id()?, Arc::clone(store)))
}

/// The app at its token endpoint.
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`] when the registration names no tenant.
pub(crate) fn endpoint(context: &Context, settings: &SignInSettings) -> Result<Arc<Endpoint>> {
    let (app, places) = (&settings.app, &settings.places);
    let post = Arc::new(Post {
        http: context.shared().http(&Route::of(app, places)),
        context: context.clone(),
        health: Health::default(),
    });
    Ok(Arc::new(Endpoint::new(app.clone(), places.clone(), settings.token_url()?, context.clone(), post)))
}

#[derive(Debug)]
struct Post {
    http: Arc<Http>,
    context: Context,
    health: Health,
}

#[async_trait]
impl Ask for Post {
    async fn post(&self, url: &Url, form: &[(&str, &str)], judge: &Judge<'_>) -> Result<Reply> {
        // Not logged: the body is the secret.
        self.ask(url, judge, |client| client.post(url.clone()).form(form)).await
    }

    async fn get(&self, url: &Url, token: &Secret, judge: &Judge<'_>) -> Result<Reply> {
        let Some(authorization) = bearer(token) else {
            return Err(Error::new(ErrorKind::Malformed, "the access token cannot stand in a header"));
        };
        self.ask(url, judge, |client| client.get(url.clone()).header(AUTHORIZATION, authorization.clone())).await
    }
}

impl Post {
    async fn ask(
        &self,
        url: &Url,
        judge: &Judge<'_>,
        request: impl Fn(&Client) -> RequestBuilder + Send + Sync,
    ) -> Result<Reply> {
        let client = self.http.client(self.context.patience())?;
        let mut tries = Tries::new(&self.context, &self.health);
        attempts!(tries, {
            let silence = tries.silence();
            let sent = async {
                let response = http::head(request(&client), silence).await?;
                http::whole(response, CAP, silence).await
            };
            match sent.await {
                Err(error) if error.kind() == ErrorKind::TooLarge => Attempt::Again(not_a_reply(url, "far too long")),
                Err(error) => super::retry::of_error(error),
                Ok(answer) => {
                    let reply = Reply {
                        status: answer.status.as_u16(),
                        retry_after: answer.retry_after(self.context.now()),
                        date: answer.date(),
                        content_type: answer.content_type().to_owned(),
                        body: answer.body,
                    };
                    match judge(&reply) {
                        Verdict::Final => Attempt::Done(reply),
                        Verdict::Again(error) if reply.status == 429 || reply.retry_after.is_some() => {
                            Attempt::Pause(reply.retry_after, error)
                        }
                        Verdict::Again(error) => Attempt::Again(error),
                    }
                }
            }
        })
    }
}

fn not_a_reply(url: &Url, what: &str) -> Error {
    let host = url.host_str().unwrap_or_default();
    Error::new(ErrorKind::Unavailable, format!("the answer of the sign-in service at `{host}` is {what}"))
}
