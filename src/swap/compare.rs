//! Which messages of two accounts are the same, and how they differ.
//!
//! The rules are those by which the importer recognises a message ([`identity`](crate::import::identity)): what it
//! would recognise is at most a conversion, what it would not is blocking.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    hash::Hash,
};

use super::{
    listing::{Entry, Short, short},
    report::{DifferenceKind as Kind, Severity},
};
use crate::import::identity::Digest;

/// Messages of the old account by their index, each with what differs.
type Details = Vec<(usize, What)>;

/// What differs, in English and in Dutch.
type What = [&'static str; 2];

/// The kind of difference says it all.
const NO_MORE: What = ["", ""];

#[derive(Default)]
pub(super) struct Comparison {
    /// How many messages both accounts show.
    pub(super) pairs: usize,
    pub(super) findings: Vec<(Kind, Severity, Details)>,
    /// Only the old account shows them.
    pub(super) missing: Vec<usize>,
    /// Only the new account shows them.
    pub(super) extra: Vec<usize>,
    /// Of how many pairs the files were not both read.
    pub(super) unread: usize,
}

/// Whose files are to be read: of the newest messages, of all that share a key, and of those that might be the other
/// account's message under another key.
pub(super) fn wanted(old: &[Entry], new: &[Entry], newest: usize) -> (Vec<usize>, Vec<usize>) {
    let mut by_age: Vec<&Entry> = old.iter().collect();
    by_age.sort_by_key(|e| Reverse(e.received));
    let mut keys: HashSet<Short> = by_age.into_iter().take(newest).map(|e| e.key).collect();
    let (count_old, count_new) = (counted(old), counted(new));
    for count in [&count_old, &count_new] {
        keys.extend(count.iter().filter(|(_, n)| **n > 1).map(|(key, _)| *key));
    }
    // One service may have made up a Message-ID: only possible where the other side has messages without.
    let unnamed = |entries: &[Entry], others: &HashMap<Short, usize>| {
        entries.iter().any(|e| !e.has_message_id && !others.contains_key(&e.key))
    };
    if unnamed(old, &count_new) || unnamed(new, &count_old) {
        keys.extend(count_old.keys().filter(|key| !count_new.contains_key(*key)));
        keys.extend(count_new.keys().filter(|key| !count_old.contains_key(*key)));
    }
    let pick = |entries: &[Entry]| (0..entries.len()).filter(|&at| keys.contains(&entries[at].key)).collect();
    (pick(old), pick(new))
}

fn counted(entries: &[Entry]) -> HashMap<Short, usize> {
    let mut counts = HashMap::new();
    for entry in entries {
        *counts.entry(entry.key).or_default() += 1;
    }
    counts
}

pub(super) fn compare(old: &[Entry], new: &[Entry], unread_only: bool) -> Comparison {
    let mut comparison = Comparison::default();
    let mut left: Vec<usize> = (0..old.len()).collect();
    let mut right: Vec<usize> = (0..new.len()).collect();
    let mut pairs = Vec::new();
    // Of several with one key, those with the same content belong together; what is then left of a key differs.
    pairs.extend(pair(
        &mut left,
        &mut right,
        |at| Some((old[at].key, old[at].content())),
        |at| Some((new[at].key, new[at].content())),
    ));
    pairs.extend(pair(&mut left, &mut right, |at| Some(old[at].key), |at| Some(new[at].key)));
    let made_up = [
        pair(&mut left, &mut right, |at| old[at].unnamed(), |at| new[at].named()),
        pair(&mut left, &mut right, |at| old[at].named(), |at| new[at].unnamed()),
    ];
    for &(a, b) in made_up.iter().flatten() {
        if matches!((old[a].sent, new[b].sent), (Some(x), Some(y)) if x != y) {
            let what = [
                "only one account has its Message-ID, and the date differs: it would pass for another message",
                "maar één account heeft het Message-ID, en de datum verschilt: het zou voor een ander bericht doorgaan",
            ];
            comparison.add(Kind::MessageDiffers, Severity::Blocking, a, what);
        } else {
            comparison.add(Kind::MessageIdAdded, Severity::Conversion, a, NO_MORE);
        }
    }
    pairs.extend(made_up.into_iter().flatten());
    pairs.sort_unstable();
    for &(a, b) in &pairs {
        comparison.judge(a, &old[a], &new[b], unread_only);
    }
    comparison.pairs = pairs.len();
    comparison.missing = left;
    comparison.extra = right;
    comparison
}

/// Takes out of both lists what has the same name, one for one.
fn pair<K: Eq + Hash>(
    left: &mut Vec<usize>,
    right: &mut Vec<usize>,
    name_left: impl Fn(usize) -> Option<K>,
    name_right: impl Fn(usize) -> Option<K>,
) -> Vec<(usize, usize)> {
    let mut waiting: HashMap<K, Vec<usize>> = HashMap::new();
    for &at in right.iter().rev() {
        if let Some(name) = name_right(at) {
            waiting.entry(name).or_default().push(at);
        }
    }
    let mut pairs = Vec::new();
    left.retain(|&at| {
        let partner = name_left(at).and_then(|name| waiting.get_mut(&name)?.pop());
        pairs.extend(partner.map(|partner| (at, partner)));
        partner.is_none()
    });
    let taken: HashSet<usize> = pairs.iter().map(|(_, partner)| *partner).collect();
    right.retain(|at| !taken.contains(at));
    pairs
}

impl Entry {
    fn evidence(&self) -> Short {
        let sent = self.sent.map(i64::to_le_bytes);
        short(&[sent.as_ref().map_or(&[], |s| &s[..]), &self.sender, &self.subject])
    }

    /// Two messages of one key with the same content are the same.
    fn content(&self) -> Short {
        match self.files.map(|files| files.digest) {
            Some(Digest::Known(hash)) => short(&[b"files", &hash]),
            _ => short(&[b"evidence", &self.evidence()]),
        }
    }

    fn unnamed(&self) -> Option<Short> {
        (!self.has_message_id && self.files.is_some()).then(|| self.whatever_it_is_called())
    }

    fn named(&self) -> Option<Short> {
        (self.has_message_id && self.files.is_some()).then(|| self.whatever_it_is_called())
    }

    /// As [`same_without_message_id`](crate::import::identity::same_without_message_id) compares; the date is judged
    /// afterwards, because one side may lack it.
    fn whatever_it_is_called(&self) -> Short {
        match self.files.map(|files| files.digest) {
            Some(Digest::Known(hash)) => short(&[b"files", &hash, &self.subject]),
            _ => short(&[b"evidence", &self.sender, &self.subject]),
        }
    }
}

impl Comparison {
    fn add(&mut self, kind: Kind, severity: Severity, entry: usize, what: What) {
        match self.findings.iter_mut().find(|(k, s, _)| (*k, *s) == (kind, severity)) {
            Some((_, _, details)) => details.push((entry, what)),
            None => self.findings.push((kind, severity, vec![(entry, what)])),
        }
    }

    /// One message, as both accounts show it.
    fn judge(&mut self, at: usize, old: &Entry, new: &Entry, unread_only: bool) {
        if new.unreadable && !old.unreadable {
            let what = ["the new account cannot read it", "het nieuwe account kan het niet lezen"];
            return self.add(Kind::MessageUnreadable, Severity::Blocking, at, what);
        }
        let (subject, sender, recipients) =
            (old.subject != new.subject, old.sender != new.sender, old.recipients != new.recipients);
        let other_date = matches!((old.sent, new.sent), (Some(a), Some(b)) if a != b);
        // `winmail.dat` as it came on one side and opened on the other, and nothing else that differs.
        let opened = |closed: &Entry, open: &Entry| {
            let nothing = closed.files.is_some_and(|files| files.digest == Digest::Nothing);
            nothing && closed.has_tnef && !open.has_tnef && !(subject || sender || other_date)
        };
        let tnef = opened(old, new) || opened(new, old);
        match (old.files, new.files) {
            (Some(a), Some(b)) if a.digest != b.digest && tnef => {
                let what =
                    ["one account shows the files in its winmail.dat", "één account toont de bestanden in winmail.dat"];
                self.add(Kind::ItemsDiffer, Severity::Conversion, at, what);
            }
            (Some(a), Some(b)) if a.digest != b.digest => {
                let what = match (a.digest, b.digest) {
                    (Digest::Known(_), Digest::Nothing) => {
                        ["the new account shows no files", "het nieuwe account toont geen bestanden"]
                    }
                    (Digest::Nothing, Digest::Known(_)) => {
                        ["the old account shows no files", "het oude account toont geen bestanden"]
                    }
                    _ => ["the attached files differ", "de bijgevoegde bestanden verschillen"],
                };
                return self.add(Kind::ContentDiffers, Severity::Blocking, at, what);
            }
            (Some(a), Some(b)) => {
                if a.digest == Digest::Nothing && (subject || sender || other_date) {
                    let what = [
                        "it has no files, and its subject, sender or date differs: it would pass for another message",
                        "het heeft geen bestanden, en onderwerp, afzender of datum verschilt: het zou voor een ander bericht doorgaan",
                    ];
                    return self.add(Kind::MessageDiffers, Severity::Blocking, at, what);
                }
                if a.named != b.named {
                    self.add(Kind::FileNameDiffers, Severity::Conversion, at, NO_MORE);
                }
            }
            _ => self.unread += 1,
        }
        let addresses = if sender { ["the sender", "de afzender"] } else { ["the recipients", "de ontvangers"] };
        let findings = [
            (subject, Kind::SubjectDiffers, NO_MORE),
            (sender || recipients, Kind::AddressesDiffer, addresses),
            (old.sent != new.sent, Kind::SentDiffers, NO_MORE),
            (old.items != new.items && !tnef, Kind::ItemsDiffer, NO_MORE),
        ];
        for (differs, kind, what) in findings {
            if differs {
                self.add(kind, Severity::Conversion, at, what);
            }
        }
        if unread_only && old.is_read != new.is_read {
            let what = match new.is_read {
                true => ["read for the new account", "gelezen voor het nieuwe account"],
                false => ["unread for the new account", "ongelezen voor het nieuwe account"],
            };
            self.add(Kind::ReadStateDiffers, Severity::Blocking, at, what);
        }
    }
}
