//! When secrets and certificates run out.

#[cfg(feature = "oauth")]
use std::path::{Path, PathBuf};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

#[cfg(feature = "oauth")]
use jiff::civil::Date;
use jiff::{Timestamp, tz::TimeZone};

use crate::Language;
#[cfg(feature = "oauth")]
use crate::{auth::Registration, setting::Places};

/// How many days before its end a credential is warned about.
const WARNINGS: [i64; 4] = [1, 7, 30, 60];

/// What runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CredentialKind {
    /// The client secret of an app registration.
    Secret,
    /// Its certificate.
    Certificate,
}

/// One credential of an app registration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credential {
    /// Where it stands in the configuration: `registrations.contoso.client_secret`.
    pub place: String,
    /// What it is.
    pub kind: CredentialKind,
    /// The app that it is of.
    pub client_id: Option<String>,
    /// When it ends: the day of `secret_expires`, by which it must be replaced, or the end of the certificate. `None`
    /// where the configuration has no `secret_expires`, or the certificate cannot be read.
    pub expires: Option<Timestamp>,
    /// Why the certificate's end is not known.
    pub problem: Option<String>,
    /// Whether the secret that replaces it stands beside it already (`client_secret_next`).
    pub has_next: bool,
    /// Whether the secret that replaces it is the one that is in use; `None` where there is none, or this process has
    /// not signed in with the app yet.
    pub next_in_use: Option<bool>,
    /// The accounts that use it.
    pub accounts: Vec<String>,
}

impl Credential {
    /// Whole days from then until it ends; negative afterwards, 0 on the last day.
    #[must_use]
    pub fn days_left(&self, now: Timestamp) -> Option<i64> {
        Some((self.expires?.as_second() - now.as_second()).div_euclid(24 * 3600))
    }

    /// Which warning is due: the smallest of 60, 30, 7 and 1 days that it ends within, or 0 when it has ended.
    fn due(&self, now: Timestamp) -> Option<i64> {
        if self.expires? <= now {
            return Some(0);
        }
        let seconds = self.expires?.as_second() - now.as_second();
        WARNINGS.into_iter().find(|days| seconds <= days * 24 * 3600)
    }
}

/// A credential that runs out soon, or has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CredentialWarning {
    /// What.
    pub credential: Credential,
    /// When that is.
    pub expires: Timestamp,
    /// Within how many days: 60, 30, 7 or 1; 0 when it has ended.
    pub within: i64,
}

impl CredentialWarning {
    /// What is the matter, and what to do.
    #[must_use]
    pub fn message(&self, language: Language) -> String {
        let Credential { place, kind, accounts, has_next, .. } = &self.credential;
        let day = self.expires.to_zoned(TimeZone::UTC).date();
        let accounts: Vec<_> = accounts.iter().map(|account| format!("`{account}`")).collect();
        let accounts = accounts.join(", ");
        if language == Language::Dutch {
            let what = if *kind == CredentialKind::Secret { "Het clientgeheim" } else { "Het certificaat" };
            let when = match self.within {
                0 => format!("is verlopen op {day}"),
                1 => format!("verloopt binnen een dag, op {day}"),
                days => format!("verloopt binnen {days} dagen, op {day}"),
            };
            let next = match (kind, has_next) {
                (CredentialKind::Secret, true) => {
                    "Het volgende geheim staat er al als `client_secret_next`; zet het in `client_secret` en pas `secret_expires` aan."
                }
                (CredentialKind::Secret, false) => {
                    "Maak in de app-registratie een nieuw geheim en schrijf de waarde als `client_secret_next`."
                }
                _ => {
                    "Maak een nieuw certificaat en upload het in de app-registratie voordat de bestanden worden vervangen."
                }
            };
            return format!("{what} `{place}` {when}. {next} Het gaat om: {accounts}.");
        }
        let what = if *kind == CredentialKind::Secret { "The client secret" } else { "The certificate" };
        let when = match self.within {
            0 => format!("has expired on {day}"),
            1 => format!("expires within a day, on {day}"),
            days => format!("expires within {days} days, on {day}"),
        };
        let next = match (kind, has_next) {
            (CredentialKind::Secret, true) => {
                "The next secret is there already as `client_secret_next`; put it in `client_secret` and correct `secret_expires`."
            }
            (CredentialKind::Secret, false) => {
                "Make a new secret in the app registration, and write its value as `client_secret_next`."
            }
            _ => "Make a new certificate, and upload it in the app registration before the files are replaced.",
        };
        format!("{what} `{place}` {when}. {next} It is used by {accounts}.")
    }
}

/// What was warned about in this process.
#[derive(Debug, Default)]
pub(crate) struct Calendar {
    /// By the credential's place: its end, and the last warning.
    told: Mutex<HashMap<String, (Timestamp, i64)>>,
}

impl Calendar {
    /// Those warnings that are due now and were not given yet in this process: each of 60, 30, 7 and 1 days once, and
    /// that it has ended.
    pub(crate) fn due(&self, credentials: &[Credential], now: Timestamp) -> Vec<CredentialWarning> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        for credential in credentials {
            let (Some(expires), Some(within)) = (credential.expires, credential.due(now)) else { continue };
            // A new end is a new credential.
            let before = told.get(&credential.place).filter(|(end, _)| *end == expires).map(|(_, within)| *within);
            if before.is_some_and(|before| before <= within) {
                continue;
            }
            told.insert(credential.place.clone(), (expires, within));
            due.push(CredentialWarning { credential: credential.clone(), expires, within });
        }
        due
    }

    /// Lays the credentials of all accounts together; accounts that share one are listed with it. `certificate_end`
    /// reads a file.
    #[cfg(feature = "oauth")]
    pub(crate) fn credentials<'a>(
        accounts: impl IntoIterator<Item = (&'a str, &'a Registration, &'a Places)>,
        certificate_end: impl Fn(&Path) -> Result<Timestamp, String>,
    ) -> Vec<Credential> {
        let mut all: Vec<Credential> = Vec::new();
        let mut ends: HashMap<PathBuf, Result<Timestamp, String>> = HashMap::new();
        for (account, app, places) in accounts {
            let (kind, key) = match (&app.certificate, &app.client_secret) {
                (Some(_), _) => (CredentialKind::Certificate, "certificate"),
                (None, Some(_)) => (CredentialKind::Secret, "client_secret"),
                (None, None) => continue,
            };
            let place = places.place(key);
            if let Some(known) = all.iter_mut().find(|known| known.place == place) {
                known.accounts.push(account.to_owned());
                continue;
            }
            let end = match &app.certificate {
                None => Ok(app.secret_expires.map(midnight)),
                Some(pair) => {
                    let end = ends.entry(pair.cert_file.clone()).or_insert_with(|| certificate_end(&pair.cert_file));
                    end.clone().map(Some)
                }
            };
            let (expires, problem) = match end {
                Ok(expires) => (expires, None),
                Err(problem) => (None, Some(problem)),
            };
            all.push(Credential {
                place,
                kind,
                client_id: app.client_id.clone(),
                expires,
                problem,
                has_next: app.client_secret_next.is_some(),
                next_in_use: None,
                accounts: vec![account.to_owned()],
            });
        }
        all
    }
}

/// The day counts from its beginning: nobody knows at which hour of it a secret ends.
#[cfg(feature = "oauth")]
fn midnight(day: Date) -> Timestamp {
    day.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |zoned| zoned.timestamp())
}
