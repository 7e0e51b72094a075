//! The text of a configuration file: parsed, with the line of every key, and what to call a place in an error.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use toml::{
    Spanned, Table,
    de::{DeTable, DeValue},
};

use crate::{Error, ErrorKind, Result, folder::distance};

/// A parsed file.
#[derive(Debug)]
pub(super) struct Document {
    /// What to call the file in errors.
    name: Option<String>,
    /// What relative paths are relative to.
    pub(super) base: PathBuf,
    /// The line of every key, by its place.
    lines: HashMap<String, usize>,
}

impl Document {
    pub(super) fn parse(name: Option<String>, text: &str, base: &Path) -> Result<(Self, Table)> {
        let mut document = Self { name, base: base.to_owned(), lines: HashMap::new() };
        // The error's own Display quotes the line, which may hold a secret.
        let parsed = DeTable::parse(text).map_err(|e| {
            let line = e.span().map_or(1, |span| line_of(text, span.start));
            Error::new(
                ErrorKind::InvalidConfig,
                format!("{}this is not valid TOML: {}", document.at_line(line), e.message()),
            )
        })?;
        note_lines(text, "", parsed.get_ref(), &mut document.lines);
        let table = toml::from_str(text)
            .map_err(|e| Error::new(ErrorKind::InvalidConfig, format!("{}{}", document.at_line(1), e.message())))?;
        Ok((document, table))
    }

    /// The line of this place; of the nearest place around it that has one.
    pub(super) fn line(&self, place: &str) -> Option<usize> {
        let mut place = place;
        loop {
            match (self.lines.get(place), place.rsplit_once('.')) {
                (Some(line), _) => return Some(*line),
                (None, Some((around, _))) => place = around,
                (None, None) => return None,
            }
        }
    }

    /// An error about a place; `what` continues a sentence that begins with it.
    pub(super) fn invalid(&self, place: &str, what: &str) -> Error {
        Error::new(ErrorKind::InvalidConfig, self.sentence(place, what))
    }

    /// Where, and what is wrong there.
    pub(super) fn sentence(&self, place: &str, what: &str) -> String {
        let at = self.line(place).map(|line| self.at_line(line)).unwrap_or_default();
        format!("{at}`{place}` {what}")
    }

    /// What to call the file.
    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("the configuration")
    }

    fn at_line(&self, line: usize) -> String {
        match &self.name {
            Some(name) => format!("{name}:{line}: "),
            None => format!("line {line}: "),
        }
    }
}

/// The place of a key in a table.
pub(super) fn join(around: &str, key: &str) -> String {
    if around.is_empty() { key.to_owned() } else { format!("{around}.{key}") }
}

/// Says which known name was probably meant, else which are known.
pub(super) fn suggest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut near: Vec<_> =
        known.into_iter().map(|name| (distance(&wanted.to_lowercase(), &name.to_lowercase()), name)).collect();
    near.sort_unstable();
    match near.first() {
        None => "there are none".to_owned(),
        Some((far, name)) if is_near(*far, wanted, name) => format!("did you mean `{name}`?"),
        Some(_) => {
            let listed: Vec<_> = near.iter().take(20).map(|(_, name)| format!("`{name}`")).collect();
            let more = if near.len() > 20 { format!(" and {} more", near.len() - 20) } else { String::new() };
            format!("known are {}{more}", listed.join(", "))
        }
    }
}

/// Two letters swapped are two changes; but a name of which nothing is left is another name.
fn is_near(changes: usize, wanted: &str, name: &str) -> bool {
    let longer = wanted.chars().count().max(name.chars().count());
    changes <= (longer / 3).max(2) && changes < longer
}

fn note_lines(text: &str, around: &str, table: &DeTable<'_>, lines: &mut HashMap<String, usize>) {
    for (key, value) in table {
        note(text, join(around, key.get_ref()), key.span().start, value, lines);
    }
}

fn note(text: &str, place: String, start: usize, value: &Spanned<DeValue<'_>>, lines: &mut HashMap<String, usize>) {
    if let DeValue::Table(inner) = value.get_ref() {
        note_lines(text, &place, inner, lines);
    }
    lines.entry(place).or_insert_with(|| line_of(text, start));
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count()
}
