//! Checks one table of the file against the description of its settings.

use std::{path::Path, time::Duration};

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use toml::{Table, Value as Toml};

use super::file::{Document, join, suggest};
use crate::{
    Result, Since,
    setting::{Field, Value},
};

/// Something wrong inside one account or job. It does not stop the others, so it is kept until that one is used.
#[derive(Clone, Debug)]
pub(super) struct Problem(pub(super) String);

/// Checks keys and types, and brings values into the form that providers read: paths joined to the file's folder,
/// days as text. The first thing wrong with a value is the answer.
///
/// # Errors
///
/// An unknown key.
pub(super) fn check(
    document: &Document,
    place: &str,
    what: &str,
    table: &mut Table,
    fields: &[Field],
) -> Result<Option<Problem>> {
    let mut first = None;
    for (key, value) in table.iter_mut() {
        let place = join(place, key);
        let Some(field) = fields.iter().find(|field| field.name == key) else {
            let known = fields.iter().map(|field| field.name);
            return Err(document.invalid(&place, &format!("is not a setting of {what}; {}", suggest(key, known))));
        };
        let problem = match &field.value {
            Value::Group(inner) => match value {
                Toml::Table(group) => check(document, &place, &format!("`{}`", field.name), group, inner)?,
                _ => Some(Problem(document.sentence(&place, "must be a group of settings: `{ ... }`"))),
            },
            _ if field.secret => check_secret(document, &place, value)?,
            _ => check_value(&document.base, value, &field.value).err().map(|e| Problem(document.sentence(&place, &e))),
        };
        first = first.or(problem);
    }
    Ok(first)
}

/// The first required setting that is not there.
pub(super) fn missing(document: &Document, place: &str, table: &Table, fields: &[Field]) -> Option<Problem> {
    fields.iter().find_map(|field| match (table.get(field.name), &field.value) {
        (None, _) if field.required => {
            let place = join(place, field.name);
            Some(Problem(document.sentence(&place, &format!("is missing; {}", expected(&field.value)))))
        }
        (Some(Toml::Table(group)), Value::Group(inner)) => missing(document, &join(place, field.name), group, inner),
        _ => None,
    })
}

fn check_secret(document: &Document, place: &str, value: &mut Toml) -> Result<Option<Problem>> {
    let form = "must be a secret: \"literal\", { env = \"NAME\" } or { file = \"path\" }";
    let problem = || Ok(Some(Problem(document.sentence(place, form))));
    let Toml::Table(source) = value else {
        return if value.is_str() { Ok(None) } else { problem() };
    };
    for key in source.keys() {
        if key != "env" && key != "file" {
            let hint = suggest(key, ["env", "file"]);
            return Err(document.invalid(&join(place, key), &format!("is not known in a secret; {hint}")));
        }
    }
    let names = source.values().all(|name| name.as_str().is_some_and(|name| !name.trim().is_empty()));
    if source.len() != 1 || !names {
        return problem();
    }
    if let Some(Toml::String(file)) = source.get_mut("file") {
        *file = beside(&document.base, file);
    }
    Ok(None)
}

fn check_value(base: &Path, value: &mut Toml, expected_value: &Value) -> Result<(), String> {
    let wrong = || Err(format!("must be different: {}", expected(expected_value)));
    match (expected_value, &mut *value) {
        (Value::Text | Value::Url, Toml::String(text)) => {
            if text.trim().is_empty() {
                return Err("is empty".to_owned());
            }
            *text = text.trim().to_owned();
        }
        (Value::Path, Toml::String(path)) => {
            if path.trim().is_empty() {
                return Err("is empty".to_owned());
            }
            *path = beside(base, path);
        }
        (Value::Number { min, max }, Toml::Integer(n)) if (*min..=*max).contains(n) => {}
        (Value::Flag, Toml::Boolean(_)) => {}
        (Value::Choice(words), Toml::String(word)) => {
            if !words.contains(&word.as_str()) {
                return Err(format!("is `{word}`, which is not known; {}", suggest(word, words.iter().copied())));
            }
        }
        (Value::List, Toml::Array(items)) => {
            for item in items {
                match item {
                    Toml::String(text) if !text.trim().is_empty() => *text = text.trim().to_owned(),
                    _ => return wrong(),
                }
            }
        }
        (Value::Duration, Toml::String(text)) => {
            parse_duration(text)?;
        }
        (Value::Since, Toml::String(text)) => {
            parse_since(text)?;
        }
        (Value::Date, Toml::String(text)) => {
            parse_date(text)?;
        }
        // TOML has days of its own, without quotes.
        (Value::Date | Value::Since, Toml::Datetime(day)) if day.time.is_none() && day.offset.is_none() => {
            let text = day.to_string();
            parse_date(&text)?;
            *value = Toml::String(text);
        }
        _ => return wrong(),
    }
    Ok(())
}

fn expected(value: &Value) -> String {
    match value {
        Value::Text => "write a text".to_owned(),
        Value::Number { min, max } => format!("write a whole number from {min} to {max}"),
        Value::Flag => "write `true` or `false`".to_owned(),
        Value::Choice(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
            format!("write {}", words.join(" or "))
        }
        Value::Path => "write a file or folder".to_owned(),
        Value::Url => "write a URL".to_owned(),
        Value::Date => "write a day, such as `\"2027-11-01\"`".to_owned(),
        Value::Since => "write `\"all\"`, `\"now\"` or a day, such as `\"2026-01-31\"`".to_owned(),
        Value::Duration => "write a span of time, such as `\"5m\"`, `\"30s\"` or `\"1h30m\"`".to_owned(),
        Value::List => "write a list of texts, such as `[\"a\", \"b\"]`".to_owned(),
        Value::Group(_) => "write a group of settings: `{ ... }`".to_owned(),
    }
}

/// `5m`, `30s`, `1h30m`: at least a second.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let span: SignedDuration = text
        .trim()
        .parse()
        .map_err(|_| format!("is `{text}`, which is not a span of time; {}", expected(&Value::Duration)))?;
    let span = Duration::try_from(span).map_err(|_| format!("is `{text}`; a span of time cannot be negative"))?;
    if span < Duration::from_secs(1) {
        return Err(format!("is `{text}`; the shortest span of time is `\"1s\"`"));
    }
    Ok(span)
}

/// `all`, `now`, or a day, which begins at midnight UTC.
pub(super) fn parse_since(text: &str) -> Result<Since, String> {
    match text.trim() {
        "all" => Ok(Since::All),
        "now" => Ok(Since::Now),
        day => parse_date(day)
            .map(Since::Date)
            .map_err(|_| format!("is `{text}`, which is not known; {}", expected(&Value::Since))),
    }
}

fn parse_date(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("is `{text}`, which is not a day; {}", expected(&Value::Date));
    // jiff would also take a day out of a whole time stamp.
    if text.trim().len() != "2026-01-31".len() {
        return Err(wrong());
    }
    let day: Date = text.trim().parse().map_err(|_| wrong())?;
    day.to_zoned(TimeZone::UTC).map(|midnight| midnight.timestamp()).map_err(|_| wrong())
}

/// Paths are relative to the file that names them.
fn beside(base: &Path, path: &str) -> String {
    base.join(path.trim()).to_string_lossy().into_owned()
}
