//! Listing messages.
//!
//! Two steps. First the ids and received times of the whole folder (`ids.rs`): that fixes the set, tells what the caller
//! skips before any content is asked for, and is one request for an empty folder. Then the content, in windows that go by
//! received time and never by position alone, so that moving what was given skips nothing: a window begins at the second
//! of its first message, and leaves out (`$skip`) only those of that second that are known to be still there.
//!
//! | the window | is asked for |
//! |---|---|
//! | mostly wanted | as one page with `$expand=attachments`: a request for twenty messages |
//! | mostly skipped | message by message, by id |
//! | too large for the cap | once more as metadata; the large messages are given without content, the rest asked for again |
//!
//! From the second window on, the one after it is asked for at the same time where it begins a second of its own, so
//! that nothing depends on what the first one shows.
//!
//! Whatever a window should hold and does not is asked for by id; only that tells a message that is gone, or was moved
//! out of the folder since it was listed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use jiff::Timestamp;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Inner,
    batch::{self, Part},
    client::{CAP, Call, To, encode, names_nothing, not_json, with_query},
    failure::About,
    folders,
    ids::{self, Homes, OLDEST, Wanted, folder_messages},
    wire::{self, More, SELECT, SELECT_ATTACHMENT, Stub, WireAttachment, WireMessage},
};
use crate::{
    AttachmentKind, Error, ErrorKind, FolderId, Message, MessageId, Query, Result,
    net::{http::Answer, page::Page, retry::Attempt},
};

/// Messages a window, to begin with. Large pages with bodies end in 504.
const START: usize = 20;

/// The most messages a window grows to.
const MOST: usize = 100;

/// What a page should come to: safely below the cap.
const AIM: usize = 6 * 1024 * 1024;

/// A single message that is fetched by id; four may be under way.
const CAP_ONE: usize = 3 * 1024 * 1024;

/// A message of a window that was too large comes with its content only if it is not larger than this.
const SMALL: u64 = 1024 * 1024;

/// Messages that were moved away while listings are open, so that they can count what is left of a second.
#[derive(Debug, Default)]
pub(super) struct Departures(Mutex<Vec<std::sync::Weak<Departed>>>);

type Departed = Mutex<HashSet<MessageId>>;

impl Departures {
    pub(super) fn note(&self, id: &MessageId) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| match listener.upgrade() {
            Some(departed) => {
                departed.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
                true
            }
            None => false,
        });
    }

    fn listen(&self) -> Arc<Departed> {
        let departed = Arc::<Departed>::default();
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&departed));
        departed
    }
}

/// The messages of a folder, oldest received first.
pub(super) fn list(inner: Arc<Inner>, folder: FolderId, query: Query) -> BoxStream<'static, Result<Message>> {
    let listing = Listing { inner, folder, query: Arc::new(query), ready: VecDeque::new(), plan: None, refound: false };
    stream::try_unfold(listing, |mut listing| async { Ok(listing.next().await?.map(|message| (message, listing))) })
        .boxed()
}

struct Listing {
    inner: Arc<Inner>,
    folder: FolderId,
    query: Arc<Query>,
    ready: VecDeque<Message>,
    plan: Option<Plan>,
    refound: bool,
}

/// What is still to be given.
#[derive(Debug)]
struct Plan {
    wanted: Vec<Wanted>,
    homes: Homes,
    /// The next one.
    at: usize,
    /// Messages a window may have.
    top: usize,
    /// The most that a window may grow to; less once a page took too long.
    most: usize,
    /// The last window that did not.
    fits: usize,
    departed: Arc<Departed>,
    /// Of this second: how many more places Exchange counts than messages were listed. It counts items that are no
    /// messages and never shows them.
    drift: (i64, i64),
    /// Metadata of a window that was too large, by id.
    known: HashMap<MessageId, Known>,
    /// Messages that came before it was their turn.
    ahead: HashMap<MessageId, Message>,
}

#[derive(Debug)]
struct Known {
    message: Message,
    small: bool,
}

impl Listing {
    async fn next(&mut self) -> Result<Option<Message>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(message));
            }
            let Some(plan) = self.plan.take() else {
                if names_nothing(self.folder.as_str()) {
                    return Err(folders::no_id());
                }
                if self.query.limit == Some(0) {
                    return Ok(None);
                }
                self.plan = Some(self.plan().await?);
                continue;
            };
            if plan.at >= plan.wanted.len() {
                self.plan = Some(plan);
                return Ok(None);
            }
            // In a task of its own: a reader that stops polling must not keep a half-read answer, and with it one of
            // the mailbox's four places.
            let work =
                Window { inner: Arc::clone(&self.inner), folder: self.folder.clone(), query: Arc::clone(&self.query) };
            let (plan, messages) = own_task(async move { work.fetch(plan).await }).await?;
            self.plan = Some(plan);
            self.ready.extend(messages);
        }
    }

    async fn plan(&mut self) -> Result<Plan> {
        loop {
            let (inner, folder, query) = (Arc::clone(&self.inner), self.folder.clone(), Arc::clone(&self.query));
            let planned = own_task(async move {
                let departed = inner.departures.listen();
                let mut homes = Homes::default();
                let wanted = match &query.internet_message_id {
                    Some(id) => ids::search(&inner.client, &folder, &query, id, &mut homes).await?,
                    None => ids::scan(&inner.client, &folder, &query, &mut homes).await?,
                };
                Ok(Plan {
                    wanted,
                    homes,
                    at: 0,
                    top: START,
                    most: MOST,
                    fits: 1,
                    departed,
                    drift: (OLDEST, 0),
                    known: HashMap::new(),
                    ahead: HashMap::new(),
                })
            })
            .await;
            match planned {
                Err(error) if error.kind() == ErrorKind::NotFound && !self.refound => {
                    self.refound = true;
                    match self.inner.folders.refind(&self.inner.client, &self.folder).await? {
                        Some(folder) => self.folder = folder.id,
                        None => return Err(error),
                    }
                }
                planned => return planned,
            }
        }
    }
}

async fn own_task<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    AbortOnDropHandle::new(tokio::spawn(work))
        .await
        .map_err(|e| Error::new(ErrorKind::Other, "listing messages was broken off").with_source(e))?
}

impl Plan {
    /// The next messages to fetch together, and how many of the folder lie between the first and the last of them.
    fn chunk(&self) -> (usize, usize) {
        self.chunk_at(self.at)
    }

    fn chunk_at(&self, at: usize) -> (usize, usize) {
        let first = &self.wanted[at];
        let is_known = |wanted: &Wanted| self.known.contains_key(&wanted.id);
        let together = |wanted: &&Wanted| {
            let near = ((wanted.rank - first.rank) as usize) < self.top;
            // What a metadata page told apart stays apart.
            let alike =
                is_known(wanted) == is_known(first) && self.known.get(&wanted.id).is_none_or(|known| known.small);
            near && alike && !self.ahead.contains_key(&wanted.id)
        };
        let count = self.wanted[at..].iter().take_while(together).count().max(1);
        let last = &self.wanted[at + count - 1];
        (count, (last.rank - first.rank) as usize + 1)
    }

    /// The window after the next one, if it can be asked for at the same time: where it begins, and its chunk.
    fn beside(&self, count: usize) -> Option<(usize, usize, usize)> {
        let at = self.at + count;
        let first = self.wanted.get(at)?;
        let calm = self.at > 0 && self.known.is_empty() && self.ahead.is_empty() && self.most >= MOST;
        let (count, span) = self.chunk_at(at);
        (calm && first.rank == first.second_rank && count > 1 && count * 2 >= span).then_some((at, count, span))
    }

    /// Messages of the first one's second that come before it and are still there.
    fn skip(&self, at: usize) -> usize {
        let first = &self.wanted[at];
        let listed = (first.rank - first.second_rank) as usize;
        if listed == 0 {
            return 0;
        }
        let departed = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.wanted[..at].iter().rev().take_while(|w| w.second == first.second);
        let left = listed.saturating_sub(before.filter(|w| departed.contains(&w.id)).count());
        let drift = if self.drift.0 == first.second { self.drift.1 } else { 0 };
        left.saturating_add_signed(isize::try_from(drift).unwrap_or(0))
    }

    /// Learns from a page where it began, and says how many of the next messages it settles: up to the last one that is
    /// in it. A page may be shorter than it was asked for, and what comes after it is left for the next.
    fn settle(&mut self, page: &[MessageId]) -> usize {
        let places: HashMap<&MessageId, usize> = page.iter().zip(0..).collect();
        let ahead = &self.wanted[self.at..];
        let first = &ahead[0];
        let near = ahead.iter().take(page.len() + MOST).enumerate();
        let mut found = near.filter_map(|(at, w)| Some((at, *places.get(&w.id)?)));
        let head = found.next();
        let settled = found.next_back().or(head).map_or(0, |(at, _)| at + 1);
        if first.rank > first.second_rank {
            let (late, early) = head.unwrap_or((0, page.len()));
            let known = if self.drift.0 == first.second { self.drift.1 } else { 0 };
            let drift = known + i64::try_from(early).unwrap_or(0) - i64::try_from(late).unwrap_or(0);
            self.drift = (first.second, drift);
        }
        settled
    }
}

/// Fetches the content of what comes next.
struct Window {
    inner: Arc<Inner>,
    folder: FolderId,
    query: Arc<Query>,
}

/// A message as it came.
struct Read {
    message: Message,
    /// The folder it is in.
    parent: Option<FolderId>,
    /// The rest of its attachments.
    more: Option<More>,
}

/// How much of attachments to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    Content,
    Metadata,
}

impl Depth {
    fn expand(self) -> String {
        match self {
            Self::Content => "attachments".to_owned(),
            Self::Metadata => format!("attachments($select={SELECT_ATTACHMENT})"),
        }
    }
}

impl Window {
    fn depth(&self) -> Depth {
        if self.query.inline_up_to == 0 { Depth::Metadata } else { Depth::Content }
    }

    fn select(&self) -> String {
        if self.query.text { format!("{SELECT},body") } else { SELECT.to_owned() }
    }

    async fn fetch(&self, mut plan: Plan) -> Result<(Plan, Vec<Message>)> {
        let client = &self.inner.client;
        let mut tries = client.tries();
        loop {
            if let Some(large) = plan.known.remove(&plan.wanted[plan.at].id) {
                if !large.small {
                    plan.at += 1;
                    let mut messages = vec![large.message];
                    self.finish(&mut messages).await?;
                    return Ok((plan, messages));
                }
                plan.known.insert(large.message.id.clone(), large);
            }
            let ready = plan.wanted[plan.at..].iter().map_while(|w| plan.ahead.remove(&w.id)).collect::<Vec<_>>();
            if !ready.is_empty() {
                return self.given(plan, ready.len(), ready).await;
            }
            let (count, span) = plan.chunk();
            if count == 1 || count * 2 < span {
                let messages = self.by_id(&plan.wanted[plan.at..plan.at + count], &plan.homes).await?;
                return self.given(plan, count, messages).await;
            }
            let silence = tries.silence();
            let page = match plan.beside(count) {
                None => self.page(&plan, plan.at, span, silence).await,
                Some((at, count_beside, span_beside)) => {
                    let (page, beside) = futures::future::join(
                        self.page(&plan, plan.at, span, silence),
                        self.page(&plan, at, span_beside, silence),
                    )
                    .await;
                    // What came of it otherwise comes again when it is its turn.
                    if let Attempt::Done(answer) = beside
                        && let Ok((mut found, _)) = self.read(&answer)
                    {
                        let wanted = &plan.wanted[at..at + count_beside];
                        plan.ahead = wanted.iter().filter_map(|w| found.remove_entry(&w.id)).collect();
                    }
                    page
                }
            };
            match page {
                Attempt::Done(answer) => {
                    let (mut found, listed) = match self.read(&answer) {
                        Ok(found) => found,
                        Err(error) => {
                            tries.again(error).await?;
                            continue;
                        }
                    };
                    tries.progress();
                    let each = answer.body.len() / listed.len().max(1);
                    drop(answer);
                    if plan.known.is_empty() {
                        if span >= plan.most {
                            plan.most = (plan.most + plan.most / 8).min(MOST);
                        }
                        plan.fits = span;
                        plan.top = (AIM / each.max(1)).clamp(1, (plan.top * 2).min(plan.most));
                    }
                    let settled = match plan.settle(&listed) {
                        // None of them: they are gone, or places have shifted. By id there is no doubt.
                        0 => count,
                        settled => settled,
                    };
                    let wanted = &plan.wanted[plan.at..plan.at + settled];
                    let missing: Vec<Wanted> = wanted.iter().filter(|w| !found.contains_key(&w.id)).cloned().collect();
                    for message in self.by_id(&missing, &plan.homes).await? {
                        found.insert(message.id.clone(), message);
                    }
                    let messages = wanted.iter().filter_map(|w| found.remove(&w.id)).collect();
                    return self.given(plan, settled, messages).await;
                }
                Attempt::Fail(error) if error.kind() == ErrorKind::TooLarge => {
                    self.divide(&mut plan, count, span).await?;
                }
                Attempt::Fail(error) => return Err(error),
                Attempt::Pause(asked, error) => tries.pause(asked, error).await?,
                Attempt::Again(error) => {
                    if error.kind() == ErrorKind::Timeout {
                        plan.most = (span - 1).max(1);
                        let known = if plan.fits < span { plan.fits } else { 1 };
                        plan.top = known.max(span / 2).clamp(1, plan.most);
                    }
                    tries.again(error).await?;
                }
            }
        }
    }

    async fn given(&self, mut plan: Plan, count: usize, mut messages: Vec<Message>) -> Result<(Plan, Vec<Message>)> {
        for wanted in &plan.wanted[plan.at..plan.at + count] {
            plan.known.remove(&wanted.id);
            plan.ahead.remove(&wanted.id);
        }
        self.finish(&mut messages).await?;
        plan.at += count;
        Ok((plan, messages))
    }

    async fn page(&self, plan: &Plan, at: usize, span: usize, silence: Duration) -> Attempt<Answer> {
        let make = || Ok(self.page_call(plan, at, span, self.depth()));
        self.inner.client.attempt(make, silence).await
    }

    fn page_call(&self, plan: &Plan, at: usize, span: usize, depth: Depth) -> Call {
        let filter = ids::filter(&self.query, Some(plan.wanted[at].second)).unwrap_or_default();
        let (top, skip) = (span.to_string(), plan.skip(at).to_string());
        let (select, expand) = (self.select(), depth.expand());
        let mut parameters = vec![
            ("$select", select.as_str()),
            ("$filter", filter.as_str()),
            ("$orderby", "receivedDateTime asc"),
            ("$top", top.as_str()),
            ("$expand", expand.as_str()),
        ];
        if skip != "0" {
            parameters.push(("$skip", &skip));
        }
        Call::get(About::Folder, To::Mailbox(with_query(&folder_messages(&self.folder), &parameters))).cap(CAP)
    }

    /// The messages of a page by id, and their order. One whose attachments are not all there is in the order only: it
    /// is asked for by id.
    fn read(&self, answer: &Answer) -> Result<(HashMap<MessageId, Message>, Vec<MessageId>)> {
        let page = Page::read(&answer.body).map_err(|e| not_json(answer).with_source(e))?;
        let read: Vec<Read> = page.entries.iter().filter_map(|raw| self.message(raw.get().as_bytes())).collect();
        let order = read.iter().map(|read| read.message.id.clone()).collect();
        let whole = read.into_iter().filter(|read| read.more.is_none());
        Ok((whole.map(|read| (read.message.id.clone(), read.message)).collect(), order))
    }

    fn message(&self, json: &[u8]) -> Option<Read> {
        let mailbox = &self.inner.info.name;
        match serde_json::from_slice::<WireMessage<'_>>(json) {
            Ok(wire) => {
                let (parent, more) = (wire.parent().map(FolderId::new), wire.more_attachments());
                Some(Read { message: wire.into_message(&self.folder, &self.query, mailbox), parent, more })
            }
            Err(_) => {
                let stub: Stub = serde_json::from_slice(json).ok()?;
                let received = stub.received().unwrap_or(Timestamp::UNIX_EPOCH);
                let parent = stub.parent.0.map(FolderId::new);
                Some(Read { message: wire::unreadable(stub.id, &self.folder, received), parent, more: None })
            }
        }
    }

    /// A window is larger than the cap: asks for it as metadata, to tell the large messages from the others.
    async fn divide(&self, plan: &mut Plan, count: usize, span: usize) -> Result<()> {
        let client = &self.inner.client;
        let wanted = &plan.wanted[plan.at..plan.at + count];
        if wanted.iter().all(|w| plan.known.contains_key(&w.id)) {
            // The sizes that Graph told were wrong. They are given without content.
            for wanted in wanted {
                plan.known.entry(wanted.id.clone()).and_modify(|known| known.small = false);
            }
            return Ok(());
        }
        plan.top = (span / 2).max(4).min(plan.top);
        let call = self.page_call(plan, plan.at, span, Depth::Metadata);
        let read = |answer: &Answer| self.read(answer);
        match client.read(&call, read).await {
            Ok((mut found, _)) => {
                let known = plan.known.len();
                for wanted in wanted {
                    if let Some(message) = found.remove(&wanted.id) {
                        let small = is_small(&message, self.query.inline_up_to);
                        plan.known.insert(wanted.id.clone(), Known { message, small });
                    }
                }
                if plan.known.len() == known {
                    // It holds others by now. By id there is no doubt.
                    plan.top = 1;
                }
                Ok(())
            }
            // Texts alone can be too much; the next attempt asks for fewer.
            Err(error) if error.kind() == ErrorKind::TooLarge => {
                plan.top = (span / 2).max(1);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Messages one by one; those that are gone, or are elsewhere by now, are left out.
    async fn by_id(&self, wanted: &[Wanted], homes: &Homes) -> Result<Vec<Message>> {
        let ids: Vec<_> = wanted.iter().map(|w| w.id.clone()).collect();
        let found: Vec<_> =
            stream::iter(ids).map(|id| async move { self.one(&id).await }).buffered(4).try_collect().await?;
        let here = found.into_iter().zip(wanted).filter_map(|(found, wanted)| {
            let (message, parent) = found?;
            homes.holds(wanted, parent.as_ref()).then_some(message)
        });
        Ok(here.collect())
    }

    /// One message, and the folder it is in. `None` when there is none.
    async fn one(&self, id: &MessageId) -> Result<Option<(Message, Option<FolderId>)>> {
        let path = format!("/messages/{}", encode(id.as_str()));
        let read = |answer: &Answer| self.message(&answer.body).ok_or_else(|| not_json(answer));
        let depths: &[(Depth, usize)] = match self.depth() {
            Depth::Content => &[(Depth::Content, CAP_ONE), (Depth::Metadata, CAP)],
            Depth::Metadata => &[(Depth::Metadata, CAP)],
        };
        for (depth, cap) in depths {
            let path = with_query(&path, &[("$select", &self.select()), ("$expand", &depth.expand())]);
            match self.inner.client.read(&Call::get(About::Message, To::Mailbox(path)).cap(*cap), read).await {
                Ok(Read { mut message, parent, more }) => {
                    if let Some(parent) = &parent {
                        message.folder = parent.clone();
                    }
                    return match self.add_attachments(&mut message, more).await {
                        Ok(()) => Ok(Some((message, parent))),
                        // It went between the two.
                        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                        Err(error) => Err(error),
                    };
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) if error.kind() == ErrorKind::TooLarge => {}
                Err(error) => return Err(error),
            }
        }
        // Even its properties are beyond the cap. The raw message can still be downloaded.
        let stub: Stub = {
            let path = with_query(&path, &[("$select", "id,receivedDateTime,parentFolderId")]);
            self.inner.client.json(&Call::get(About::Message, To::Mailbox(path))).await?
        };
        let received = stub.received().unwrap_or(Timestamp::UNIX_EPOCH);
        let parent = stub.parent.0.map(FolderId::new);
        let message = wire::unreadable(stub.id, parent.as_ref().unwrap_or(&self.folder), received);
        Ok(Some((message, parent)))
    }

    /// The attachments that did not come along with their message.
    async fn add_attachments(&self, message: &mut Message, more: Option<More>) -> Result<()> {
        let client = &self.inner.client;
        let mut from = match more {
            None => return Ok(()),
            Some(More::Link(link)) => Some(client.follow(&link)?),
            Some(More::All) => {
                let path = format!("/messages/{}/attachments", encode(message.id.as_str()));
                Some(To::Mailbox(with_query(&path, &[("$select", SELECT_ATTACHMENT)])))
            }
        };
        while let Some(to) = from.take() {
            let read = |answer: &Answer| {
                let page = Page::read(&answer.body).map_err(|e| not_json(answer).with_source(e))?;
                let wire =
                    page.entries.iter().filter_map(|raw| serde_json::from_str::<WireAttachment<'_>>(raw.get()).ok());
                let attachments = wire.filter_map(|wire| wire.into_attachment(self.query.inline_up_to));
                Ok((attachments.collect::<Vec<_>>(), page.next))
            };
            let (attachments, next) = client.read(&Call::get(About::Message, to), read).await?;
            let known = message.attachments.len();
            for attachment in attachments {
                if message.attachments.iter().all(|a| a.id != attachment.id) {
                    message.attachments.push(attachment);
                }
            }
            if next.is_some() && message.attachments.len() == known {
                return Err(Error::new(ErrorKind::Malformed, "Graph's list of attachments does not end"));
            }
            from = next.map(|next| client.follow(&next)).transpose()?;
        }
        Ok(())
    }

    /// What Graph does not tell in the page: what an attached item is, and the plain text of an HTML message.
    async fn finish(&self, messages: &mut [Message]) -> Result<()> {
        self.look_closer(messages).await?;
        if self.query.text {
            self.add_text(messages).await?;
        }
        Ok(())
    }

    async fn look_closer(&self, messages: &mut [Message]) -> Result<()> {
        let mut places = Vec::new();
        let mut parts = Vec::new();
        for (m, message) in messages.iter().enumerate() {
            for (a, attachment) in message.attachments.iter().enumerate() {
                if attachment.kind == AttachmentKind::Item {
                    let path = format!(
                        "/messages/{}/attachments/{}",
                        encode(message.id.as_str()),
                        encode(attachment.id.as_str())
                    );
                    let query = [("$expand", "microsoft.graph.itemattachment/item")];
                    places.push((m, a));
                    parts.push(Part::get(About::Attachment, with_query(&path, &query)));
                }
            }
        }
        if parts.is_empty() {
            return Ok(());
        }
        match batch::all(&self.inner.client, parts).await {
            Ok(answers) => {
                for ((m, a), answer) in places.into_iter().zip(answers) {
                    match answer {
                        Ok(body) => wire::look_closer(&mut messages[m].attachments[a], &body),
                        Err(error) if error.kind().is_account_wide() => return Err(error),
                        // It stays a message, which nearly all items are.
                        Err(_) => {}
                    }
                }
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::TooLarge => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Graph gives one form of a text. The page brought the one the message is kept in; where that is HTML, plain text is
    /// asked for beside it.
    async fn add_text(&self, messages: &mut [Message]) -> Result<()> {
        let html = messages.iter_mut().filter(|message| message.html.is_some() && message.text.is_none());
        let calls = html.map(|message| async move {
            let path = with_query(&format!("/messages/{}", encode(message.id.as_str())), &[("$select", "body")]);
            let call = Call::get(About::Message, To::Mailbox(path)).prefer(r#"outlook.body-content-type="text""#);
            match self.inner.client.call(&call).await {
                Ok(answer) => {
                    wire::read_text(&String::from_utf8_lossy(&answer.body), message);
                    Ok(())
                }
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::TooLarge) => Ok(()),
                Err(error) => Err(error),
            }
        });
        stream::iter(calls.collect::<Vec<_>>()).buffer_unordered(4).try_collect().await
    }
}

/// Whether a message should come with its content although its neighbours are too large for that.
fn is_small(message: &Message, inline_up_to: u64) -> bool {
    let files = || message.attachments.iter().filter(|a| a.kind == AttachmentKind::File);
    let total: u64 = files().map(|a| a.size_hint.unwrap_or(SMALL)).sum();
    // Graph's sizes include some overhead.
    total <= SMALL && files().any(|a| a.size_hint.is_none_or(|size| size / 4 * 3 <= inline_up_to))
}

/// One message, wherever it is.
pub(super) async fn fetch(inner: Arc<Inner>, id: &MessageId) -> Result<Message> {
    let gone = || Error::new(ErrorKind::NotFound, "there is no such message in the mailbox (any more)");
    if names_nothing(id.as_str()) {
        return Err(gone());
    }
    let window = Window { inner, folder: FolderId::new(""), query: Arc::new(Query::default()) };
    let (message, _) = window.one(id).await?.ok_or_else(gone)?;
    let mut messages = [message];
    window.finish(&mut messages).await?;
    let [message] = messages;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(ranks: &[(u32, i64, u32)]) -> Plan {
        let wanted = ranks.iter().map(|(rank, second, second_rank)| Wanted {
            id: MessageId::new(format!("m{rank}")),
            second: *second,
            rank: *rank,
            second_rank: *second_rank,
            home: ids::UNTOLD,
        });
        Plan {
            wanted: wanted.collect(),
            homes: Homes::default(),
            at: 0,
            top: START,
            most: MOST,
            fits: 1,
            departed: Arc::default(),
            drift: (0, 0),
            known: HashMap::new(),
            ahead: HashMap::new(),
        }
    }

    #[test]
    fn a_window_holds_what_lies_close_together() {
        let dense: Vec<_> = (0..50).map(|n| (n, i64::from(n), n)).collect();
        assert_eq!(plan(&dense).chunk(), (20, 20));
        let sparse: Vec<_> = (0..50).map(|n| (n * 7, i64::from(n), n * 7)).collect();
        assert_eq!(plan(&sparse).chunk(), (3, 15));
        assert_eq!(plan(&[(5, 1, 3)]).chunk(), (1, 1));
    }

    #[test]
    fn a_window_skips_those_of_its_second_that_are_still_there() {
        let mut plan = plan(&(0..40).map(|n| (n, 7, 0)).collect::<Vec<_>>());
        assert_eq!(plan.skip(plan.at), 0);
        plan.at = 20;
        assert_eq!(plan.skip(plan.at), 20);
        for gone in ["m3", "m19", "m30"] {
            plan.departed.lock().unwrap().insert(MessageId::new(gone));
        }
        assert_eq!(plan.skip(plan.at), 18);
    }

    #[test]
    fn a_page_tells_how_far_places_are_off() {
        let ids = |ranks: std::ops::Range<u32>| ranks.map(|n| MessageId::new(format!("m{n}"))).collect::<Vec<_>>();
        let mut plan = plan(&(0..60).map(|n| (n, 7, 0)).collect::<Vec<_>>());
        // A page that is short.
        assert_eq!(plan.settle(&ids(0..17)), 17);
        plan.at = 17;
        // Three items that are no messages stood before it: three messages come again.
        assert_eq!((plan.skip(plan.at), plan.settle(&ids(14..31))), (17, 14));
        plan.at = 31;
        assert_eq!(plan.skip(plan.at), 34);
        // Too far now: two were passed over, and are among those that it settles.
        assert_eq!(plan.settle(&ids(33..50)), 19);
        plan.at = 50;
        assert_eq!(plan.skip(plan.at), 51);
        assert_eq!(plan.settle(&[]), 0);
    }

    #[test]
    fn two_windows_at_once_only_where_neither_hangs_on_the_other() {
        let mut apart = plan(&(0..60).map(|n| (n, i64::from(n), n)).collect::<Vec<_>>());
        assert_eq!(apart.beside(20), None, "the first window goes alone");
        apart.at = 20;
        assert_eq!(apart.beside(20), Some((40, 20, 20)));
        apart.most = 7;
        assert_eq!(apart.beside(20), None, "pages took too long");
        let mut together = plan(&(0..60).map(|n| (n, 7, 0)).collect::<Vec<_>>());
        together.at = 20;
        assert_eq!(together.beside(20), None, "it would go by what the first one shows of the same second");
        let mut near = plan(&(0..60).map(|n| (n, i64::from(n), n)).collect::<Vec<_>>());
        near.at = 20;
        let message = Message::new(MessageId::new("m30"), FolderId::new("f"), Timestamp::UNIX_EPOCH);
        near.ahead.insert(message.id.clone(), message);
        assert_eq!(near.chunk(), (10, 10), "what is there already is not asked for again");
    }

    #[test]
    fn what_is_known_to_be_large_is_on_its_own() {
        let mut plan = plan(&(0..10).map(|n| (n, i64::from(n), n)).collect::<Vec<_>>());
        for n in 0..10 {
            let id = MessageId::new(format!("m{n}"));
            let message = Message::new(id.clone(), FolderId::new("f"), Timestamp::UNIX_EPOCH);
            plan.known.insert(id, Known { message, small: n != 4 });
        }
        assert_eq!(plan.chunk(), (4, 4));
        plan.at = 4;
        assert_eq!(plan.chunk().0, 1);
        plan.at = 5;
        assert_eq!(plan.chunk(), (5, 5));
    }
}
