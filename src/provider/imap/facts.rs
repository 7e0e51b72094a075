//! Which messages a folder has, and what is to be known of them before their content: the first step of a listing.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::{
    evidence,
    failure::Outcome,
    session::Session,
    wire::{
        date,
        encode::Command,
        response::Untagged,
        uidset::{self, Cut},
    },
};
use crate::Query;

/// Sizes and dates in one command.
const FACTS: Cut = Cut { count: 5_000, bytes: u64::MAX, line: uidset::MAX_SET };

/// What is known of a message before its content.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) uid: u64,
    pub(super) size: Option<u64>,
    pub(super) received: Option<Timestamp>,
    pub(super) seen: bool,
    /// The caller has been asked whether it wants it.
    pub(super) wanted: bool,
    /// Reading it in a set has failed.
    pub(super) odd: bool,
}

/// The messages of the open folder that fit a query, oldest received first: one SEARCH, and sizes and dates by the
/// thousand.
pub(super) async fn search(session: &mut Session, query: &Query) -> Outcome<VecDeque<Facts>> {
    let mut command = Command::new("UID SEARCH").raw("UNDELETED");
    if query.unread_only {
        command = command.raw("UNSEEN");
    }
    if let Some(since) = query.since {
        // Days, in whatever zone the server keeps; what is too early is dropped below.
        let day = since.checked_sub(jiff::SignedDuration::from_hours(24)).unwrap_or(since);
        command = command.raw("SINCE").raw(&date::search_day(day));
    }
    if let Some(id) = query.internet_message_id.as_deref().and_then(evidence::normal_id)
        && id.is_ascii()
    {
        command = command.raw("HEADER Message-ID").string(id.as_bytes());
    }
    let mut uids: Vec<u64> = Vec::new();
    session
        .run(command, |untagged| {
            if let Untagged::Search(found) = untagged {
                uids.extend(found);
            }
        })
        .await?;
    uids.retain(|uid| *uid > 0);
    uids.sort_unstable();
    uids.dedup();
    let mut facts = of(session, &uids).await?;
    if let Some(since) = query.since {
        let since = since.as_second() - 1;
        facts.retain(|facts| facts.received.is_none_or(|at| at.as_second() >= since));
    }
    // Copying keeps the received date and gives a new UID, so UIDs alone are not the order of arrival. One without
    // a date stays behind its neighbour.
    let mut last = Timestamp::MIN;
    let mut keyed: Vec<(Timestamp, Facts)> = Vec::with_capacity(facts.len());
    for facts in facts {
        last = facts.received.unwrap_or(last);
        keyed.push((last, facts));
    }
    keyed.sort_by_key(|(at, facts)| (*at, facts.uid));
    Ok(keyed.into_iter().map(|(_, facts)| facts).collect())
}

/// Sizes, dates and flags of these messages, whose UIDs are in ascending order.
pub(super) async fn of(session: &mut Session, uids: &[u64]) -> Outcome<Vec<Facts>> {
    let unknown = |uid| Facts { uid, size: None, received: None, seen: false, wanted: false, odd: false };
    let mut all: Vec<Facts> = uids.iter().copied().map(unknown).collect();
    let mut at = 0;
    while at < all.len() {
        let sized: Vec<(u64, u64)> = all[at..].iter().take(FACTS.count).map(|f| (f.uid, 0)).collect();
        let count = uidset::cut(&sized, FACTS);
        let set: Vec<u64> = sized[..count].iter().map(|(uid, _)| *uid).collect();
        let some = &mut all[at..at + count];
        session.wait_for_progress();
        let command = Command::new("UID FETCH").set(&set).raw("(UID FLAGS INTERNALDATE RFC822.SIZE)");
        let tag = session.start(command).await?;
        session
            .finish(tag, "UID FETCH", |untagged| {
                let Untagged::Fetch(fetch) = untagged else { return };
                let Some(uid) = fetch.uid else { return };
                let Ok(found) = some.binary_search_by_key(&uid, |f| f.uid) else { return };
                let facts = &mut some[found];
                facts.size = fetch.size.or(facts.size);
                facts.received = fetch.internal_date.or(facts.received);
                if let Some(flags) = &fetch.flags {
                    facts.seen = flags.iter().any(|flag| flag == "\\seen");
                }
            })
            .await?;
        at += count;
    }
    Ok(all)
}
