//! The settings of everything in the file that is not a provider's, described like a provider's.

use crate::setting::{Field, Kind, Value};

/// The key that says which provider an account is of.
pub(super) const PROVIDER: &str = "provider";

/// The key that names the app registration whose keys an account or its group shares.
pub(super) const REGISTRATION: &str = "registration";

/// The field of a provider's struct that gets the keys of the app registration.
pub(super) const APP: &str = "app";

/// What a settings screen needs to know about one provider: its own settings, and those of every account.
pub(super) fn complete(mut kind: Kind) -> Kind {
    with_registration(&mut kind.fields);
    kind.fields.extend(common());
    kind
}

/// `[accounts.*]`, whatever the provider.
fn common() -> [Field; 2] {
    [
        Field::new("address", Value::Text, "Mailbox name in the ledger", "Naam van het postvak in het geheugen"),
        Field::new("enabled", Value::Flag, "Enabled", "Ingeschakeld"),
    ]
}

/// Where keys of an app registration may stand, a registration may be named instead.
fn with_registration(fields: &mut Vec<Field>) {
    for field in fields.iter_mut() {
        if let Value::Group(inner) = &mut field.value {
            with_registration(inner);
        }
    }
    if fields.iter().any(|field| field.registration) {
        fields.insert(0, Field::new(REGISTRATION, Value::Text, "App registration", "App-registratie"));
    }
}

/// `[state]`.
pub(super) fn state() -> Vec<Field> {
    vec![
        Field::new("path", Value::Path, "Database file", "Databasebestand"),
        Field::new("url", Value::Text, "Database URL", "Database-URL").secret(),
        Field::new("key", Value::Text, "Key for stored sign-ins", "Sleutel voor bewaarde aanmeldingen").secret(),
        Field::new("plaintext_tokens", Value::Flag, "Store sign-ins unprotected", "Aanmeldingen onbeveiligd bewaren"),
    ]
}

/// `[jobs.*]`.
pub(super) fn job() -> Vec<Field> {
    vec![
        Field::new("accounts", Value::List, "Accounts", "Accounts").required(),
        Field::new("import_folder", Value::Text, "Import folder", "Importmap").required(),
        Field::new("processed_folder", Value::Text, "Processed folder", "Map voor verwerkte mail"),
        Field::new("failed_folder", Value::Text, "Failed folder", "Map voor mislukte mail"),
        Field::new("create_folders", Value::Flag, "Create folders", "Mappen aanmaken"),
        Field::new("unread_only", Value::Flag, "Unread mail only", "Alleen ongelezen mail"),
        Field::new("since", Value::Since, "From when on", "Vanaf wanneer"),
        Field::new("max_attempts", Value::Number { min: 1, max: 1_000 }, "Attempts", "Pogingen"),
        Field::new("handler_concurrency", Value::Number { min: 1, max: 1_000 }, "At the same time", "Tegelijk"),
        Field::new("interval", Value::Duration, "Interval", "Interval"),
        Field::new(
            "ledger",
            Value::Choice(&["new"]),
            "Accept a mailbox without history",
            "Postvak zonder geheugen accepteren",
        ),
    ]
}
