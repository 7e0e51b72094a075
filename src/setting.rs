//! What the settings of a provider are, as data: enough to generate a settings screen, and to check a file by.

use std::{collections::BTreeMap, fmt};

use crate::{Error, ErrorKind, Language};

/// A kind of account: one provider and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kind {
    /// The value of `provider`: `graph`, `imap`, `maildir`, `memory`.
    pub id: &'static str,
    /// What to call it.
    pub label: Label,
    /// Its settings, in the order to show them.
    pub fields: Vec<Field>,
}

impl Kind {
    /// A kind with these settings. The keys that every account has (`address`, `enabled`) are added by the registry.
    #[must_use]
    pub fn new(id: &'static str, label: Label, fields: Vec<Field>) -> Self {
        Self { id, label, fields }
    }

    /// The setting of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// A name for people, in English and Dutch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Label {
    /// In English.
    pub english: &'static str,
    /// In Dutch.
    pub dutch: &'static str,
}

impl Label {
    /// A name in both languages.
    #[must_use]
    pub const fn new(english: &'static str, dutch: &'static str) -> Self {
        Self { english, dutch }
    }

    /// The name in this language.
    #[must_use]
    pub const fn text(&self, language: Language) -> &'static str {
        match language {
            Language::Dutch => self.dutch,
            Language::English => self.english,
        }
    }
}

/// One setting.
///
/// ```
/// use mail_account::setting::{Field, Value};
///
/// let host = Field::new("host", Value::Text, "Server", "Server").required();
/// assert!(host.required && !host.secret);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// The key in the configuration file.
    pub name: &'static str,
    /// What to call it.
    pub label: Label,
    /// What its value looks like.
    pub value: Value,
    /// Never to be shown. In the file a secret stands literally, or as `{ env = "..." }` or `{ file = "..." }`.
    pub secret: bool,
    /// Whether the account does not work without it.
    pub required: bool,
    /// Whether it belongs to the app registration: it may stand in `[registrations.*]` instead, once for many
    /// accounts, and a provider's struct finds it in its field `app`.
    pub registration: bool,
}

impl Field {
    /// An optional setting that is no secret.
    #[must_use]
    pub const fn new(name: &'static str, value: Value, english: &'static str, dutch: &'static str) -> Self {
        let label = Label::new(english, dutch);
        Self { name, label, value, secret: false, required: false, registration: false }
    }

    /// The account does not work without it.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Its value is a secret.
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// It belongs to the app registration.
    #[must_use]
    pub(crate) fn of_registration(mut self) -> Self {
        self.registration = true;
        self
    }
}

/// What a setting's value looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// Any text.
    Text,
    /// A whole number within these bounds.
    Number {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A file or folder, relative to the configuration file.
    Path,
    /// A URL.
    Url,
    /// A day: `2027-11-01`.
    Date,
    /// From when on: `all`, `now` or a day.
    Since,
    /// A span of time: `5m`, `30s`, `1h30m`.
    Duration,
    /// Several texts.
    List,
    /// A group of settings.
    Group(Vec<Field>),
}

/// Where the keys of one account stand in the configuration, so that errors can name the place.
///
/// ```
/// use mail_account::setting::Places;
///
/// let places = Places::new("invoices");
/// assert_eq!(places.place("password"), "accounts.invoices.password");
/// assert_eq!(places.within("oauth").place("auth"), "accounts.invoices.oauth.auth");
/// ```
#[derive(Clone, Debug)]
pub struct Places {
    account: String,
    /// Of the group that keys are in; ends in a dot unless empty.
    prefix: String,
    /// Keys with their prefix that do not stand in the account's own table.
    elsewhere: BTreeMap<String, String>,
}

impl Places {
    /// All keys stand in the table of this account.
    pub fn new(account: impl Into<String>) -> Self {
        Self { account: account.into(), prefix: String::new(), elsewhere: BTreeMap::new() }
    }

    /// A key stands somewhere else, such as in `registrations.contoso.tenant`.
    pub(crate) fn put(&mut self, key: String, place: String) {
        self.elsewhere.insert(key, place);
    }

    /// The same for the keys of a group.
    #[must_use]
    pub fn within(&self, group: &str) -> Self {
        Self { prefix: format!("{}{group}.", self.prefix), ..self.clone() }
    }

    /// Where this key stands.
    #[must_use]
    pub fn place(&self, key: &str) -> String {
        let key = format!("{}{key}", self.prefix);
        self.elsewhere.get(&key).cloned().unwrap_or_else(|| format!("accounts.{}.{key}", self.account))
    }

    /// An error about this key; `what` continues a sentence that begins with it.
    #[must_use]
    pub fn invalid(&self, key: &str, what: impl fmt::Display) -> Error {
        Error::new(ErrorKind::InvalidConfig, format!("`{}` {what}", self.place(key))).with_account(&self.account)
    }
}
