//! Which messages a folder has: the first step of a listing.
//!
//! Ids and received times alone, 500 a page, oldest received first. A page begins at the last second of the one before
//! it instead of following the next link wherever that is possible, because links go by position.

use std::collections::HashSet;

use jiff::Timestamp;

use super::{
    client::{Call, Client, To, encode, not_json, quoted, with_query},
    failure::About,
    wire::Stub,
};
use crate::{
    Error, ErrorKind, FolderId, MessageId, Query, Result,
    net::{http::Answer, page::Page, retry::Attempt},
};

/// Ids a page.
const IDS: usize = 500;

/// A message that is to be given.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) id: MessageId,
    /// Received, whole seconds.
    pub(super) second: i64,
    /// Its place among all that were listed, and that of the first of the same second.
    pub(super) rank: u32,
    pub(super) second_rank: u32,
    /// Where it was then; see [`Homes`].
    pub(super) home: u32,
}

/// The folders that messages were in by their own word when they were listed: one and the same, unless a view is read,
/// whose messages live elsewhere. Only one that is in another by now has been moved.
#[derive(Debug, Default)]
pub(super) struct Homes(Vec<FolderId>);

/// Of a message that did not say.
pub(super) const UNTOLD: u32 = u32::MAX;

impl Homes {
    fn note(&mut self, stub: &Stub) -> u32 {
        let Some(parent) = stub.parent.0.as_deref() else { return UNTOLD };
        let known = self.0.iter().position(|home| home.as_str() == parent);
        let at = known.unwrap_or_else(|| {
            self.0.push(FolderId::new(parent));
            self.0.len() - 1
        });
        u32::try_from(at).unwrap_or(UNTOLD)
    }

    /// Whether a message is still where it was. Where nobody told, it is.
    pub(super) fn holds(&self, wanted: &Wanted, now: Option<&FolderId>) -> bool {
        let then = usize::try_from(wanted.home).ok().and_then(|at| self.0.get(at));
        then.zip(now).is_none_or(|(then, now)| then == now)
    }
}

pub(super) fn folder_messages(folder: &FolderId) -> String {
    format!("/mailFolders/{}/messages", encode(folder.as_str()))
}

/// The filter of a query, from this second on. What is ordered by comes first, or Exchange calls it inefficient
/// (`InefficientFilter`).
pub(super) fn filter(query: &Query, from: Option<i64>) -> Option<String> {
    let since = query.since.map(|since| since.as_second());
    let from = from.max(since).or_else(|| query.unread_only.then_some(OLDEST));
    let from = Timestamp::from_second(from?).unwrap_or(Timestamp::UNIX_EPOCH);
    let unread = if query.unread_only { " and isRead eq false" } else { "" };
    Some(format!("receivedDateTime ge {}{unread}", from.strftime("%Y-%m-%dT%H:%M:%SZ")))
}

/// 1900-01-01T00:00:00Z.
pub(super) const OLDEST: i64 = -2_208_988_800;

/// The ids of a folder, oldest received first, that the caller does not skip.
pub(super) async fn scan(client: &Client, folder: &FolderId, query: &Query, homes: &mut Homes) -> Result<Vec<Wanted>> {
    let path = folder_messages(folder);
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut seen: HashSet<MessageId> = HashSet::new();
    let (mut rank, mut second_rank, mut second) = (0_u32, 0_u32, None::<i64>);
    let mut top = IDS;
    let mut link = None::<To>;
    let mut from = None::<i64>;
    // The second that the current chain of pages began with.
    let mut began = None::<i64>;
    let mut nothing_new = 0;
    loop {
        // Where the next link leads to, in our own words, should it take too long: a link cannot be asked for less.
        let instead = (began, (rank - second_rank) as usize);
        let (stubs, next) = ids_page(client, &path, query, from, link.take(), instead, &mut top).await?;
        let mut new = 0;
        for stub in &stubs {
            let id = MessageId::new(stub.id.as_str());
            // Without a time it stays where Graph put it.
            let at = stub.received().map_or_else(|| second.unwrap_or(OLDEST), |t| t.as_second());
            began.get_or_insert(at);
            if !seen.insert(id.clone()) {
                continue;
            }
            new += 1;
            if second != Some(at) {
                (second, second_rank) = (Some(at), rank);
            }
            if !query.skips(&id) {
                wanted.push(Wanted { id, second: at, rank, second_rank, home: homes.note(stub) });
                if query.limit.is_some_and(|limit| wanted.len() >= limit) {
                    return Ok(wanted);
                }
            }
            rank += 1;
        }
        let Some(next) = next else { return Ok(wanted) };
        nothing_new = if new == 0 { nothing_new + 1 } else { 0 };
        if nothing_new > 100 {
            return Err(Error::new(ErrorKind::Malformed, "Graph's list of messages does not end"));
        }
        // Once time has gone on, begin anew at the last second, and leave out what was seen of it. The next link goes by
        // position, and positions shift when somebody moves messages. Within one second there is nothing else to go by.
        if second > began {
            (from, began) = (second, second);
        } else {
            link = Some(client.follow(&next)?);
        }
    }
}

/// One page of ids; a page that takes too long is asked for again with half as many.
async fn ids_page(
    client: &Client,
    path: &str,
    query: &Query,
    mut from: Option<i64>,
    mut link: Option<To>,
    instead: (Option<i64>, usize),
    top: &mut usize,
) -> Result<(Vec<Stub>, Option<String>)> {
    let mut tries = client.tries();
    let mut skip = None::<String>;
    loop {
        let count = query.limit.filter(|_| query.skip.is_none()).map_or(*top, |limit| limit.min(*top)).to_string();
        let filter = filter(query, from);
        let make = || {
            if let Some(link) = &link {
                return Ok(Call::get(About::Folder, link.clone()));
            }
            let mut parameters =
                vec![("$select", "id,receivedDateTime,parentFolderId"), ("$orderby", "receivedDateTime asc")];
            parameters.push(("$top", &count));
            if let Some(skip) = &skip {
                parameters.push(("$skip", skip.as_str()));
            }
            if let Some(filter) = &filter {
                parameters.push(("$filter", filter));
            }
            Ok(Call::get(About::Folder, To::Mailbox(with_query(path, &parameters))))
        };
        match client.attempt(make, tries.silence()).await {
            Attempt::Done(answer) => match stubs(&answer) {
                Ok(page) => {
                    tries.progress();
                    return Ok(page);
                }
                Err(error) if error.kind() == ErrorKind::Malformed => return Err(error),
                Err(error) => tries.again(error).await?,
            },
            Attempt::Fail(error) => return Err(error),
            Attempt::Pause(asked, error) => tries.pause(asked, error).await?,
            Attempt::Again(error) => {
                if error.kind() == ErrorKind::Timeout {
                    *top = (*top / 2).max(10);
                    if link.take().is_some() {
                        from = instead.0;
                        skip = Some(instead.1.to_string());
                    }
                }
                tries.again(error).await?;
            }
        }
    }
}

fn stubs(answer: &Answer) -> Result<(Vec<Stub>, Option<String>)> {
    let page = Page::read(&answer.body).map_err(|e| not_json(answer).with_source(e))?;
    let stubs: Result<Vec<Stub>, _> = page.entries.iter().map(|raw| serde_json::from_str(raw.get())).collect();
    // It could never be given, nor missed.
    let stubs =
        stubs.map_err(|e| Error::new(ErrorKind::Malformed, "Graph listed a message without an id").with_source(e))?;
    Ok((stubs, page.next))
}

/// The messages with this `Message-ID`. Exchange keeps it with its angle brackets; should it not, it is found without.
pub(super) async fn search(
    client: &Client,
    folder: &FolderId,
    query: &Query,
    id: &str,
    homes: &mut Homes,
) -> Result<Vec<Wanted>> {
    let bare = id.trim().trim_start_matches('<').trim_end_matches('>');
    for form in [format!("<{bare}>"), bare.to_owned()] {
        let filter = format!("internetMessageId eq {}", quoted(&form));
        let parameters = [
            ("$select", "id,receivedDateTime,parentFolderId,isRead,internetMessageId"),
            ("$top", "50"),
            ("$filter", &filter),
        ];
        let mut link = Some(To::Mailbox(with_query(&folder_messages(folder), &parameters)));
        let mut found: Vec<(Timestamp, Stub)> = Vec::new();
        while let Some(to) = link.take() {
            let (page, next) = client.read(&Call::get(About::Folder, to), stubs).await?;
            found.extend(page.into_iter().map(|stub| (stub.received().unwrap_or(Timestamp::UNIX_EPOCH), stub)));
            if let Some(next) = next.filter(|_| found.len() < 10_000) {
                link = Some(client.follow(&next)?);
            }
        }
        found.retain(|(received, stub)| {
            let same = stub.internet_message_id.0.as_deref().is_none_or(|id| id.trim_matches(['<', '>']) == bare);
            let unread = !query.unread_only || stub.is_read.0 == Some(false);
            let since = query.since.is_none_or(|since| received.as_second() >= since.as_second());
            same && unread && since
        });
        found.sort_by_key(|(received, _)| *received);
        if found.is_empty() {
            continue;
        }
        // Ranks far apart: they have nothing to do with each other's windows.
        let far_apart = |(rank, (received, stub)): (u32, (Timestamp, Stub))| {
            let (rank, home) = (rank.saturating_mul(10_000), homes.note(&stub));
            Wanted { id: MessageId::new(stub.id), second: received.as_second(), rank, second_rank: rank, home }
        };
        let mut wanted: Vec<Wanted> = (0..).zip(found).map(far_apart).filter(|w| !query.skips(&w.id)).collect();
        wanted.truncate(query.limit.unwrap_or(usize::MAX));
        return Ok(wanted);
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_of_the_form_that_exchange_finds_efficient() {
        let query = Query::default();
        assert_eq!(filter(&query, None), None);
        let from = "2026-01-31T10:00:00.7Z".parse::<Timestamp>().unwrap();
        assert_eq!(filter(&query, Some(from.as_second())).unwrap(), "receivedDateTime ge 2026-01-31T10:00:00Z");
        let unread = Query::default().with_unread_only(true);
        assert_eq!(filter(&unread, None).unwrap(), "receivedDateTime ge 1900-01-01T00:00:00Z and isRead eq false");
        let since = unread.with_since(from);
        assert_eq!(filter(&since, None).unwrap(), "receivedDateTime ge 2026-01-31T10:00:00Z and isRead eq false");
    }
}
