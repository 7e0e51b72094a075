//! When two messages are the same message.

use std::{fmt, str::FromStr};

use crate::{Error, ErrorKind, Result};

/// What a message is called across providers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageKey(String);

impl MessageKey {
    /// The text form, as JSON and the command line show it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MessageKey {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        if s.trim().is_empty() {
            return Err(Error::new(ErrorKind::InvalidConfig, "a message key is empty"));
        }
        Ok(Self(s.trim().to_owned()))
    }
}

/// What a message's attached files hash to, whatever provider gave them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Digest {
    /// Not all of the attached files were read.
    #[default]
    Unknown,
    /// There are no attached files.
    Nothing,
    /// Of all attached files.
    Known([u8; 32]),
}
