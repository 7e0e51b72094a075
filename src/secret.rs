//! Secrets: no `Display`, a redacted `Debug`, wiped when dropped.
//!
//! A configuration names a secret by its place: literally, in an environment variable, or in a file. Variables and
//! files are read when the secret is first needed, so that one account's missing variable does not stop the others.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::{Error, ErrorKind, Result};

/// A secret's value in memory.
///
/// ```
/// use mail_account::Secret;
/// let secret = Secret::new("hunter2");
/// assert!(!format!("{secret:?}").contains("hunter2"));
/// assert_eq!(secret.expose(), "hunter2");
/// ```
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// The value. The name is long on purpose: every use of it should be easy to find.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where a secret stands: `"literal"`, `{ env = "NAME" }` or `{ file = "path" }`.
///
/// ```
/// use mail_account::SecretSource;
/// let source: SecretSource = serde_json::from_str(r#"{ "env": "SURELY_NOT_SET_1" }"#)?;
/// let error = source.read("accounts.a.password").unwrap_err();
/// assert!(error.to_string().contains("SURELY_NOT_SET_1"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected \"literal\", { env = \"NAME\" } or { file = \"path\" }")]
#[non_exhaustive]
pub enum SecretSource {
    /// The value itself.
    Literal(
        /// The value.
        #[serde(deserialize_with = "literal")]
        Secret,
    ),
    /// In an environment variable.
    Env(EnvName),
    /// In a file; one line break at its end is cut off.
    File(FileName),
}

/// `{ env = "NAME" }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvName {
    /// The variable's name.
    pub env: String,
}

/// `{ file = "path" }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileName {
    /// The file; relative to the configuration file once loaded.
    pub file: PathBuf,
}

fn literal<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

impl SecretSource {
    /// Reads the value; `key` is the place in the configuration, for the error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] when the variable is not set, the file cannot be read, or the value is empty.
    pub fn read(&self, key: &str) -> Result<Secret> {
        let value = match self {
            Self::Literal(secret) => secret.clone(),
            Self::Env(EnvName { env }) => match std::env::var(env) {
                Ok(value) => Secret::new(value),
                Err(std::env::VarError::NotPresent) => {
                    return Err(invalid(format!(
                        "`{key}` is read from the environment variable `{env}`, which is not set; set it for this process"
                    )));
                }
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(invalid(format!("`{key}`: the environment variable `{env}` is not valid UTF-8")));
                }
            },
            Self::File(FileName { file }) => {
                let text = std::fs::read_to_string(file).map_err(|e| {
                    invalid(format!("`{key}` is read from the file `{}`, which cannot be read", file.display()))
                        .with_source(e)
                })?;
                let text = text.strip_suffix('\n').unwrap_or(&text);
                Secret::new(text.strip_suffix('\r').unwrap_or(text))
            }
        };
        if value.expose().is_empty() {
            return Err(invalid(format!("`{key}` is empty")));
        }
        Ok(value)
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}
