//! What a message is recognised by in another folder, when the server does not say what became of it.
//!
//! A Message-ID alone is not enough, because it may be missing, or the same in several messages; with the size or the
//! received date it is. A message without one is known by its header block.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{
    failure::Outcome,
    session::Session,
    wire::{
        encode::Command,
        fetch::{Data, Fetch},
        response::Untagged,
        uidset::{self, Cut},
    },
};
use crate::MessageId;

/// Messages that are remembered for the time between being listed and being moved.
const MAX_KNOWN: usize = 4_000;
/// Ids in one SEARCH; each nests one level deeper.
const MAX_IDS: usize = 30;
/// Arrivals beside those that are looked for; more of them are not looked through.
const MAX_OTHERS: usize = 1_000;
const SETS: Cut = Cut { count: 500, bytes: u64::MAX, line: uidset::MAX_SET };

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// Without angle brackets and blanks.
    pub(crate) message_id: Option<Box<str>>,
    pub(crate) size: Option<u64>,
    pub(crate) date: Option<Timestamp>,
    /// Hash of the header block, where there is no Message-ID.
    pub(crate) header: Option<[u8; 32]>,
}

impl Evidence {
    fn same(&self, other: &Self) -> bool {
        let sizes = self.size.is_some() && self.size == other.size;
        let dates = self.date.is_some() && self.date == other.date;
        match (&self.message_id, &other.message_id) {
            (Some(a), Some(b)) => a == b && (sizes || dates),
            (None, None) => self.header.is_some() && self.header == other.header,
            _ => false,
        }
    }
}

pub(crate) fn normal_id(value: &str) -> Option<Box<str>> {
    let id: String = value.chars().filter(|c| !c.is_whitespace() && !matches!(c, '<' | '>')).collect();
    (!id.is_empty()).then(|| id.into())
}

/// The hash of the header block of `message`, which may be the block alone.
pub(crate) fn header_hash(message: &[u8]) -> [u8; 32] {
    let end = memchr::memmem::find(message, b"\r\n\r\n").unwrap_or(message.len());
    Sha256::digest(message[..end].trim_ascii_end()).into()
}

/// The hash of the header block of a whole message that seems to have no Message-ID.
pub(crate) fn header_hash_if_anonymous(message: &[u8]) -> Option<[u8; 32]> {
    let end = memchr::memmem::find(message, b"\r\n\r\n").unwrap_or(message.len());
    let block = message[..end].to_ascii_lowercase();
    let named = block.starts_with(b"message-id:") || memchr::memmem::find(&block, b"\nmessage-id:").is_some();
    (!named).then(|| header_hash(message))
}

/// Evidence of messages that were listed lately.
#[derive(Debug, Default)]
pub(crate) struct Known {
    by_id: HashMap<MessageId, Evidence>,
    order: VecDeque<MessageId>,
}

impl Known {
    pub(crate) fn note(&mut self, id: &MessageId, evidence: Evidence) {
        if self.by_id.insert(id.clone(), evidence).is_none() {
            self.order.push_back(id.clone());
        }
        while self.order.len() > MAX_KNOWN {
            if let Some(old) = self.order.pop_front() {
                self.by_id.remove(&old);
            }
        }
    }

    pub(crate) fn get(&self, id: &MessageId) -> Option<Evidence> {
        self.by_id.get(id).cloned()
    }
}

/// The evidence of messages in the open folder. One that is not in the result is not in the folder.
pub(crate) async fn gather(session: &mut Session, uids: &[u64]) -> Outcome<HashMap<u64, Evidence>> {
    let mut found: HashMap<u64, Evidence> = HashMap::new();
    for_sets(session, uids, "(UID RFC822.SIZE INTERNALDATE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])", |uid, fetch| {
        let evidence = found.entry(uid).or_default();
        evidence.size = evidence.size.or(fetch.size);
        evidence.date = evidence.date.or(fetch.internal_date);
        if let Some(block) = header(&fetch, "HEADER.FIELDS") {
            evidence.message_id = message_id(block);
        }
    })
    .await?;
    let mut anonymous: Vec<u64> = found.iter().filter(|(_, e)| e.message_id.is_none()).map(|(uid, _)| *uid).collect();
    anonymous.sort_unstable();
    for_sets(session, &anonymous, "(UID BODY.PEEK[HEADER])", |uid, fetch| {
        if let (Some(block), Some(evidence)) = (header(&fetch, "HEADER"), found.get_mut(&uid)) {
            evidence.header = Some(header_hash(block));
        }
    })
    .await?;
    Ok(found)
}

async fn for_sets(session: &mut Session, uids: &[u64], items: &str, mut each: impl FnMut(u64, Fetch)) -> Outcome<()> {
    let mut rest = uids;
    while !rest.is_empty() {
        let sized: Vec<(u64, u64)> = rest.iter().take(SETS.count).map(|uid| (*uid, 0)).collect();
        let (set, after) = rest.split_at(uidset::cut(&sized, SETS));
        rest = after;
        let wanted: HashSet<u64> = set.iter().copied().collect();
        session
            .run(Command::new("UID FETCH").set(set).raw(items), |untagged| {
                if let Untagged::Fetch(fetch) = untagged
                    && let Some(uid) = fetch.uid
                    && wanted.contains(&uid)
                {
                    each(uid, *fetch);
                }
            })
            .await?;
    }
    Ok(())
}

fn header<'a>(fetch: &'a Fetch, name: &str) -> Option<&'a Bytes> {
    fetch.sections.iter().find(|s| s.name.starts_with(name)).and_then(|s| match &s.data {
        Data::Bytes(bytes) => Some(bytes),
        _ => None,
    })
}

fn message_id(block: &[u8]) -> Option<Box<str>> {
    let text = String::from_utf8_lossy(block);
    normal_id(text.split_once(':')?.1)
}

/// Which of these UIDs are in the open folder.
pub(crate) async fn present(session: &mut Session, uids: &[u64]) -> Outcome<HashSet<u64>> {
    let mut found = HashSet::new();
    let mut rest = uids;
    while !rest.is_empty() {
        let sized: Vec<(u64, u64)> = rest.iter().take(SETS.count).map(|uid| (*uid, 0)).collect();
        let (set, after) = rest.split_at(uidset::cut(&sized, SETS));
        rest = after;
        session
            .run(Command::new("UID SEARCH").raw("UID").set(set), |untagged| {
                if let Untagged::Search(uids) = untagged {
                    found.extend(uids);
                }
            })
            .await?;
    }
    let wanted: HashSet<u64> = uids.iter().copied().collect();
    // SEARCH results may hold more than was asked for.
    found.retain(|uid| wanted.contains(uid));
    Ok(found)
}

/// Finds messages in a folder by their evidence: UID there, by UID here. Each message there is found once.
///
/// What came in from the UID `since` on is looked through first. That takes no more than a server's least SEARCH, while
/// some do not know many of a message's headers, or of several terms only one.
pub(crate) async fn find(
    session: &mut Session,
    folder: &Bytes,
    wanted: &[(u64, Evidence)],
    since: Option<u64>,
) -> Outcome<HashMap<u64, u64>> {
    if wanted.is_empty() || session.look_again(folder, false).await?.exists == 0 {
        return Ok(HashMap::new());
    }
    let mut hits: HashSet<u64> = HashSet::new();
    if let Some(since) = since {
        let mut arrived = HashSet::new();
        search(session, Command::new("UID SEARCH").raw(&format!("UID {since}:*")), &mut arrived).await?;
        // Whatever SEARCH makes of it.
        arrived.retain(|uid| *uid >= since);
        if arrived.len() <= wanted.len() + MAX_OTHERS {
            let found = recognise(session, &arrived, wanted).await?;
            if found.len() == wanted.len() {
                return Ok(found);
            }
            hits = arrived;
        }
    }
    let searchable = |e: &Evidence| {
        e.message_id
            .as_deref()
            .is_some_and(|id| id.len() < 200 && id.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\')))
    };
    let by_id: Vec<&Evidence> = wanted.iter().map(|(_, e)| e).filter(|e| searchable(e)).collect();
    for some in by_id.chunks(MAX_IDS) {
        match search(session, any_of(some), &mut hits).await {
            // Too much for it, perhaps.
            Err(failure) if some.len() > 1 && failure.refused().is_some() => {
                for one in some {
                    search(session, any_of(std::slice::from_ref(one)), &mut hits).await?;
                }
            }
            searched => searched?,
        }
    }
    for (_, evidence) in wanted.iter().filter(|(_, e)| !searchable(e)) {
        let Some(size) = evidence.size else { continue };
        let range = format!("UNDELETED LARGER {} SMALLER {}", size.saturating_sub(1), size + 1);
        search(session, Command::new("UID SEARCH").raw(&range), &mut hits).await?;
    }
    recognise(session, &hits, wanted).await
}

/// A search for messages with any of these Message-IDs.
fn any_of(some: &[&Evidence]) -> Command {
    let mut command = Command::new("UID SEARCH").raw("UNDELETED");
    for (i, evidence) in some.iter().enumerate() {
        if i + 1 < some.len() {
            command = command.raw("OR");
        }
        command =
            command.raw("HEADER Message-ID").string(evidence.message_id.as_deref().unwrap_or_default().as_bytes());
    }
    command
}

/// Which of the hits in the open folder is which of the wanted.
async fn recognise(
    session: &mut Session,
    hits: &HashSet<u64>,
    wanted: &[(u64, Evidence)],
) -> Outcome<HashMap<u64, u64>> {
    let mut uids: Vec<u64> = hits.iter().copied().collect();
    uids.sort_unstable();
    let mut there = gather(session, &uids).await?;
    let mut found = HashMap::new();
    for (uid, evidence) in wanted {
        // The newest copy is the likeliest.
        let hit = uids.iter().rev().find(|uid| there.get(uid).is_some_and(|e| e.same(evidence))).copied();
        if let Some(hit) = hit {
            there.remove(&hit);
            found.insert(*uid, hit);
        }
    }
    Ok(found)
}

async fn search(session: &mut Session, command: Command, hits: &mut HashSet<u64>) -> Outcome<()> {
    session
        .run(command, |untagged| {
            if let Untagged::Search(uids) = untagged {
                hits.extend(uids);
            }
        })
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(id: Option<&str>, size: u64, header: u8) -> Evidence {
        Evidence { message_id: id.and_then(normal_id), size: Some(size), date: None, header: Some([header; 32]) }
    }

    #[test]
    fn a_message_id_alone_proves_nothing() {
        assert!(evidence(Some("<a@b>"), 5, 0).same(&evidence(Some(" <a@b> "), 5, 1)));
        assert!(!evidence(Some("<a@b>"), 5, 0).same(&evidence(Some("<a@b>"), 6, 0)));
        assert!(!evidence(Some("<a@b>"), 5, 0).same(&evidence(None, 5, 0)));
        assert!(evidence(None, 5, 1).same(&evidence(Some("<>"), 5, 1)));
        assert!(!evidence(None, 5, 1).same(&evidence(None, 5, 2)));
    }

    #[test]
    fn a_header_block_is_the_same_with_and_without_its_body() {
        assert_eq!(header_hash(b"A: b\r\nC: d\r\n\r\nbody"), header_hash(b"A: b\r\nC: d\r\n\r\n"));
        assert_ne!(header_hash(b"A: b\r\n\r\n"), header_hash(b"A: c\r\n\r\n"));
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut known = Known::default();
        for n in 0..MAX_KNOWN + 10 {
            known.note(&MessageId::new(n.to_string()), Evidence::default());
        }
        assert_eq!(known.by_id.len(), MAX_KNOWN);
        assert!(known.get(&MessageId::new("0")).is_none());
        assert!(known.get(&MessageId::new((MAX_KNOWN + 9).to_string())).is_some());
    }
}
