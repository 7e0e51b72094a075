//! An assertion signed with a certificate's key ("Microsoft identity platform application authentication certificate
//! credentials"): PS256, named by the certificate's SHA-256 thumbprint.

use std::path::Path;

use base64_simd::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use url::Url;
use uuid::Uuid;

use super::{Certificate, credential::text};
use crate::{Error, ErrorKind, Result, Secret, setting::Places};

/// How far the two clocks may differ.
const SKEW: i64 = 120;

/// How long an assertion is good for, from `SKEW` seconds ago.
const LIFE: i64 = 600;

/// A certificate and its key.
pub(super) struct Pair {
    thumbprint: [u8; 32],
    key: EncodingKey,
}

impl Pair {
    /// Reads both files.
    pub(super) fn read(certificate: &Certificate, places: &Places) -> Result<Self> {
        let invalid = |key: &str, file: &std::path::Path, what: &str| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("`{}`: the file `{}` {what}", places.place(key), file.display()),
            )
        };
        let pem = text(&certificate.cert_file, &places.place("cert_file"))?;
        let der = first_certificate(&pem)
            .ok_or_else(|| invalid("cert_file", &certificate.cert_file, "holds no certificate in PEM form"))?;
        let pem = Secret::new(text(&certificate.key_file, &places.place("key_file"))?);
        // The parser's own error is left out: it is about the key's bytes.
        let key = EncodingKey::from_rsa_pem(pem.expose().as_bytes()).map_err(|_| {
            invalid("key_file", &certificate.key_file, "holds no RSA private key in PEM form that is not encrypted")
        })?;
        Ok(Self { thumbprint: Sha256::digest(der).into(), key })
    }

    pub(super) fn thumbprint(&self) -> [u8; 32] {
        self.thumbprint
    }

    /// A signed statement that this app asks this endpoint now.
    pub(super) fn assertion(&self, client_id: &str, url: &Url, now: Timestamp) -> Result<Secret> {
        let from = now.as_second() - SKEW;
        let mut header = Header::new(Algorithm::PS256);
        header.x5t_s256 = Some(URL_SAFE_NO_PAD.encode_to_string(self.thumbprint));
        let claims = json!({
            "aud": url.as_str(), "iss": client_id, "sub": client_id, "jti": Uuid::new_v4().to_string(),
            "nbf": from, "iat": from, "exp": from + LIFE,
        });
        let failed = |e: jsonwebtoken::errors::Error| {
            Error::new(ErrorKind::InvalidConfig, "the assertion cannot be signed").with_source(e)
        };
        let part = |value: Result<Vec<u8>, serde_json::Error>| {
            value.map(|json| URL_SAFE_NO_PAD.encode_to_string(json)).map_err(|e| failed(e.into()))
        };
        let signed = format!("{}.{}", part(serde_json::to_vec(&header))?, part(serde_json::to_vec(&claims))?);
        // The provider is named, because with two of them compiled in jsonwebtoken panics instead of choosing.
        let signer = (jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.signer_factory)(&Algorithm::PS256, &self.key)
            .map_err(failed)?;
        let signature = signer
            .try_sign(signed.as_bytes())
            .map_err(|_| Error::new(ErrorKind::InvalidConfig, "the certificate's key cannot sign with PS256"))?;
        Ok(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode_to_string(signature))))
    }
}

/// When the first certificate of a PEM file ends (RFC 5280, `notAfter`).
///
/// # Errors
///
/// Why that is not known, for a person.
pub(crate) fn end(file: &Path) -> Result<Timestamp, String> {
    let wrong = |what: &str| format!("the file `{}` {what}", file.display());
    let pem = std::fs::read_to_string(file).map_err(|e| wrong(&format!("cannot be read: {e}")))?;
    let der = first_certificate(&pem).ok_or_else(|| wrong("holds no certificate in PEM form"))?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).map_err(|_| wrong("holds no certificate"))?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).map_err(|_| wrong("has no end that is a time"))
}

/// The first certificate of a PEM file (RFC 7468).
fn first_certificate(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
    let (base64, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let base64: String = base64.split_ascii_whitespace().collect();
    STANDARD.decode_to_vec(base64).ok().filter(|der| !der.is_empty())
}
