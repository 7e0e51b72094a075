//! The way of `auth` to the sign-in service: it opens no connection of its own.

use std::sync::Arc;

use async_trait::async_trait;
use url::Url;

use super::{
    Route, fingerprint,
    http::{self, Http},
    retry::{Attempt, Health, Tries, attempts},
};
use crate::{
    Context, Error, ErrorKind, Result,
    auth::{AppTokens, Audience, PostForm, Registration, Reply, TokenProvider, Verdict},
    setting::Places,
};

/// More than any token answer; a gateway's page may be longer.
const CAP: usize = 256 * 1024;

/// What makes two accounts share tokens: service, app, resource and credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    token_url: String,
    client_id: String,
    scope: String,
    credential: Vec<[u8; 32]>,
}

/// The tokens of an app that signs in by itself; shared by everybody who asks for the same.
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`] when the registration names no tenant or client id. Does no I/O.
pub(crate) fn app_tokens(
    context: &Context,
    app: &Registration,
    audience: &Audience,
    places: &Places,
) -> Result<Arc<dyn TokenProvider>> {
    let (token_url, scope) = match audience {
        Audience::Other { token_url, .. } => (token_url.clone(), audience.app_scope(app.cloud.unwrap_or_default())),
        Audience::Graph | Audience::Exchange => {
            let authority = app.authority(places)?;
            (audience.token_url(&authority), audience.app_scope(authority.cloud))
        }
    };
    let client_id = app.client_id.as_deref().unwrap_or_default().trim().to_owned();
    let secrets = [&app.client_secret, &app.client_secret_next].into_iter().flatten().map(fingerprint);
    let files = app.certificate.iter().flat_map(|c| [&c.cert_file, &c.key_file]).chain(&app.federated_token_file);
    let files =
        files.map(|file| fingerprint(&crate::SecretSource::File(crate::secret::FileName { file: file.clone() })));
    let key = Key {
        token_url: token_url.to_string(),
        client_id: client_id.clone(),
        scope: scope.clone(),
        credential: secrets.chain(files).collect(),
    };
    let shared = context.shared();
    let post = Arc::new(Post {
        http: shared.http(&Route::of(app, places)),
        context: context.clone(),
        health: Health::default(),
    });
    Ok(shared.tokens(key, || {
        AppTokens::new(app.clone(), places.clone(), token_url, client_id, scope, context.clone(), post)
    }))
}

#[derive(Debug)]
struct Post {
    http: Arc<Http>,
    context: Context,
    health: Health,
}

#[async_trait]
impl PostForm for Post {
    async fn post(
        &self,
        url: &Url,
        form: &[(&str, &str)],
        judge: &(dyn for<'a> Fn(&'a Reply) -> Verdict + Sync),
    ) -> Result<Reply> {
        let client = self.http.client(self.context.patience())?;
        let mut tries = Tries::new(&self.context, &self.health);
        attempts!(tries, {
            let silence = tries.silence();
            let sent = async {
                // Not logged: the body is the secret.
                let response = http::head(client.post(url.clone()).form(form), silence).await?;
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
