//! What an app shows at the door: a secret, an assertion signed with its certificate, or another issuer's token.

use std::path::Path;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::Registration;
use crate::{Error, ErrorKind, Result, Secret, setting::Places};

/// The credential as read from its place; read again for every token, because secrets are rotated and federated
/// tokens live for minutes.
pub(super) enum Material {
    /// A public client proves nothing, and must not: "Mobile and desktop applications" (Microsoft identity platform).
    Public,
    Secrets(Vec<Secret>),
    #[cfg(feature = "certificate")]
    Certificate(super::certificate::Pair),
    Federated(Secret),
}

/// What goes into one request.
pub(super) enum Proof {
    Secret(Secret),
    Assertion(Secret),
}

impl Proof {
    pub(super) fn secret(&self) -> &Secret {
        match self {
            Self::Secret(secret) | Self::Assertion(secret) => secret,
        }
    }
}

/// Reads the credential.
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`] naming the key, the place and the remedy; [`ErrorKind::Unsupported`] for a certificate
/// in a program built without the feature `certificate`.
pub(super) async fn read(app: Registration, places: Places) -> Result<Material> {
    // Small files, but on whatever disk.
    tokio::task::spawn_blocking(move || read_now(&app, &places))
        .await
        .map_err(|e| Error::new(ErrorKind::Other, "the credential could not be read").with_source(e))?
}

fn read_now(app: &Registration, places: &Places) -> Result<Material> {
    if let Some(file) = &app.federated_token_file {
        let place = places.place("federated_token_file");
        let token = text(file, &place)?;
        let token = token.trim();
        if token.split('.').count() != 3 || token.contains(char::is_whitespace) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "`{place}`: the file `{}` does not hold a token (three parts with dots between)",
                    file.display()
                ),
            ));
        }
        return Ok(Material::Federated(Secret::new(token)));
    }
    if let Some(certificate) = &app.certificate {
        #[cfg(feature = "certificate")]
        return super::certificate::Pair::read(certificate, &places.within("certificate")).map(Material::Certificate);
        #[cfg(not(feature = "certificate"))]
        {
            let _ = certificate;
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "`{}`: signing in with a certificate is not built into this program; enable the feature `certificate` of mail-account",
                    places.place("certificate")
                ),
            ));
        }
    }
    if app.client_secret.is_none() {
        return Ok(Material::Public);
    }
    app.read_client_secrets(places).map(Material::Secrets)
}

/// Reads a text file that a setting names.
pub(super) fn text(file: &Path, place: &str) -> Result<String> {
    std::fs::read_to_string(file).map_err(|e| {
        Error::new(ErrorKind::InvalidConfig, format!("`{place}`: the file `{}` cannot be read", file.display()))
            .with_source(e)
    })
}

impl Material {
    /// How many proofs there are to try.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Secrets(secrets) => secrets.len(),
            _ => 1,
        }
    }

    /// Whether a proof says when it was made.
    pub(super) fn is_dated(&self) -> bool {
        #[cfg(feature = "certificate")]
        return matches!(self, Self::Certificate(_));
        #[cfg(not(feature = "certificate"))]
        false
    }

    /// Tells one reading from the next.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        match self {
            Self::Public => {}
            Self::Secrets(secrets) => secrets.iter().for_each(|s| hash.update(Sha256::digest(s.expose()))),
            #[cfg(feature = "certificate")]
            Self::Certificate(pair) => hash.update(pair.thumbprint()),
            Self::Federated(token) => hash.update(token.expose()),
        }
        hash.finalize().into()
    }

    /// The proof to show now, where there is one to show.
    #[cfg_attr(
        not(feature = "certificate"),
        allow(unused_variables, clippy::unnecessary_wraps, reason = "only a certificate signs")
    )]
    pub(super) fn proof(&self, at: usize, client_id: &str, url: &Url, now: Timestamp) -> Result<Option<Proof>> {
        Ok(match self {
            Self::Public => None,
            Self::Secrets(secrets) => Some(Proof::Secret(secrets[at].clone())),
            #[cfg(feature = "certificate")]
            Self::Certificate(pair) => Some(Proof::Assertion(pair.assertion(client_id, url, now)?)),
            Self::Federated(token) => Some(Proof::Assertion(token.clone())),
        })
    }
}
