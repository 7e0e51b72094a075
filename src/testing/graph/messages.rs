//! Messages: listed, read, changed, moved and deleted.

use super::content::{self, Slots};
use super::gate::Call;
use super::links::position;
use super::mime;
use super::odata::{Literal, Options};
use super::render;
use super::reply::{Refusal, Reply, ReplyBody};
use super::routes::{check_members, unknown_member};
use super::state::{Message, Paging};
use serde_json::{Value, json};
use std::cell::OnceCell;
use std::sync::Arc;

impl Call<'_> {
    pub(super) fn list_messages(&mut self, user: usize, folder: Option<&str>) -> Result<Reply, Refusal> {
        let options = Options::parse(self.query, &render::MESSAGE)?;
        self.check_basic(&options)?;
        options.check_efficient()?;
        let mailbox = self.state.users[user].number;
        let folder = folder.map(|folder| self.state.users[user].store.find_folder(mailbox, folder)).transpose()?;
        let top = options.top.unwrap_or(self.state.settings.page_size) as usize;
        let every = self.state.settings.foreign_item_every.filter(|every| *every > 1);
        let start = position(&options)?;
        // Foreign items take every n-th position and are left out.
        let first = every.map_or(start, |every| start - start / every) as usize;
        let place = |item: usize| {
            let item = item as u64;
            every.map_or(item, |every| item + item / (every - 1))
        };
        let (mut keys, total) = self.matching(user, folder, &options, first, top + 1);
        let mut more = keys.len() > top;
        keys.truncate(top);
        if self.page_stays_empty(!keys.is_empty()) {
            keys.clear();
            more = true;
        }
        more = more || (self.state.settings.trailing_empty_page && keys.len() == top);

        let mut slots = Slots::default();
        let view = self.view(user, &options);
        let store = &self.state.users[user].store;
        let page: Vec<Value> = keys.iter().map(|key| view.message(&store.messages[key], &mut slots)).collect();
        let id = &self.state.users[user].id;
        let mut out = json!({
            "@odata.context": self.context(&format!("('{id}')/messages")),
        });
        if more {
            let next = match keys.len() {
                0 => start,
                count => place(first + count - 1) + 1,
            };
            let token = self.state.settings.paging == Paging::SkipToken;
            out["@odata.nextLink"] = self.next_link(&options, next, token).into();
        }
        if options.count {
            out["@odata.count"] = total.into();
        }
        out["value"] = page.into();
        self.within_time(Reply::with_slots(200, out, slots))
    }

    /// A list that is too heavy times out.
    pub(super) fn within_time(&self, reply: Reply) -> Result<Reply, Refusal> {
        let Some(limit) = self.state.settings.list_timeout_above else {
            return Ok(reply);
        };
        let Reply { status, headers, body: ReplyBody::Json(value, slots) } = reply else {
            return Ok(reply);
        };
        let body = slots.finish(&value);
        if body.len() > limit {
            return Err(Refusal::new(504, "UnknownError", ""));
        }
        Ok(Reply {
            status,
            headers,
            body: ReplyBody::Raw(body, "application/json;odata.metadata=minimal;charset=utf-8".into()),
        })
    }

    pub(super) fn page_stays_empty(&mut self, has_items: bool) -> bool {
        let Some(every) = self.state.settings.empty_page_every else {
            return false;
        };
        if !has_items {
            return false;
        }
        self.state.pages += 1;
        self.state.pages.is_multiple_of(every.max(2))
    }

    /// Keys of the messages that pass, from the `first` on, and how many pass in all (only
    /// reckoned if the count was asked for).
    pub(super) fn matching(
        &self,
        user: usize,
        folder: Option<u32>,
        options: &Options,
        first: usize,
        limit: usize,
    ) -> (Vec<u64>, usize) {
        let user = &self.state.users[user];
        let store = &user.store;
        let passes = |message: &Message| {
            let item = OnceCell::new();
            let item = || Arc::clone(item.get_or_init(|| message.item()));
            let filtered = options
                .filter
                .as_ref()
                .is_none_or(|filter| filter.matches(&|name| render::message_values(user.number, message, &item, name)));
            filtered && options.search.as_ref().is_none_or(|search| found_by_search(&item(), search))
        };
        let bounds = options.filter.as_ref().map_or((None, None), |filter| filter.time_bounds("receivedDateTime"));
        let seconds = |micros: i64| micros.div_euclid(1_000_000);
        let low = (bounds.0.map_or(i64::MIN, seconds), 0, 0);
        let high = (bounds.1.map_or(i64::MAX, seconds), u64::MAX, u64::MAX);
        if low > high {
            return (Vec::new(), 0);
        }
        let plain_folder =
            folder.and_then(|folder| store.folders.get(&folder)).filter(|folder| folder.search.is_none());
        let only_received = options.order_by.iter().all(|(name, _)| name == "receivedDateTime");
        let ascending = options.order_by.first().is_some_and(|(_, down)| !down);
        if let Some(folder) = plain_folder
            && only_received
            && options.search.is_none()
        {
            let range = folder.messages.range(low..=high);
            let ordered: Box<dyn Iterator<Item = &(i64, u64, u64)>> =
                if ascending { Box::new(range) } else { Box::new(range.rev()) };
            let mut matched = ordered.map(|(_, _, key)| *key).filter(|key| passes(&store.messages[key]));
            let page = matched.by_ref().skip(first).take(limit).collect::<Vec<_>>();
            let total = if options.count { first + page.len() + matched.count() } else { 0 };
            return (page, total);
        }
        let mut keys: Vec<u64> = match (folder, folder.and_then(|f| store.folders.get(&f))) {
            (Some(_), Some(folder)) => match &folder.search {
                // The fake's search folders show what is unread in their sources.
                Some(sources) => sources
                    .iter()
                    .filter_map(|source| store.folders.get(source))
                    .flat_map(|source| source.messages.iter().map(|(_, _, key)| *key))
                    .filter(|key| !store.messages[key].is_read)
                    .collect(),
                None => folder.messages.iter().map(|(_, _, key)| *key).collect(),
            },
            _ => store.messages.keys().copied().collect(),
        };
        keys.retain(|key| passes(&store.messages[key]));
        let sorting: Vec<(String, bool)> = if options.search.is_some() {
            vec![("sentDateTime".into(), true)]
        } else if options.order_by.is_empty() {
            vec![("receivedDateTime".into(), true)]
        } else {
            options.order_by.clone()
        };
        let mut decorated: Vec<(Vec<Vec<Literal>>, u64)> = keys
            .into_iter()
            .map(|key| {
                let message = &store.messages[&key];
                let item = || message.item();
                let values =
                    sorting.iter().map(|(name, _)| render::message_values(user.number, message, &item, name)).collect();
                (values, key)
            })
            .collect();
        decorated.sort_by(|left, right| {
            for (at, (_, descending)) in sorting.iter().enumerate() {
                let order = left.0[at].cmp(&right.0[at]);
                let order = if *descending { order.reverse() } else { order };
                if order.is_ne() {
                    return order;
                }
            }
            content::mix(left.1).cmp(&content::mix(right.1))
        });
        if options.search.is_some() {
            decorated.truncate(1000);
        }
        let total = decorated.len();
        let page = decorated.into_iter().skip(first).take(limit).map(|(_, key)| key).collect();
        (page, total)
    }

    pub(super) fn one_message(&mut self, user: usize, key: u64) -> Result<Reply, Refusal> {
        let options = Options::parse(self.query, &render::ONE_MESSAGE)?;
        self.check_basic(&options)?;
        Ok(self.message_reply(200, user, key, &options))
    }

    pub(super) fn message_reply(&self, status: u16, user: usize, key: u64, options: &Options) -> Reply {
        let mut slots = Slots::default();
        let view = self.view(user, options);
        let user = &self.state.users[user];
        let mut out = view.message(&user.store.messages[&key], &mut slots);
        out["@odata.context"] = self.context(&format!("('{}')/messages/$entity", user.id)).into();
        Reply::with_slots(status, out, slots)
    }

    pub(super) fn update(&mut self, user: usize, key: u64) -> Result<Reply, Refusal> {
        const ANY_TIME: [&str; 8] = [
            "isRead",
            "categories",
            "flag",
            "importance",
            "inferenceClassification",
            "isDeliveryReceiptRequested",
            "isReadReceiptRequested",
            "@odata.type",
        ];
        self.no_options()?;
        let body = self.request.json()?;
        let object = body.as_object().ok_or_else(|| Refusal::bad_request("The request body is not an object."))?;
        for name in object.keys() {
            if ANY_TIME.contains(&name.as_str()) {
                continue;
            }
            if render::MESSAGE.properties.contains(&name.as_str()) {
                return Err(Refusal::new(
                    400,
                    "ErrorInvalidPropertySet",
                    format!("The property '{name}' can be set only while the message is a draft."),
                ));
            }
            return Err(unknown_member(name, "microsoft.graph.message"));
        }
        let text = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
        let store = &mut self.state.users[user].store;
        if let Some(is_read) = object.get("isRead") {
            let is_read = is_read
                .as_bool()
                .ok_or_else(|| Refusal::bad_request("Cannot convert a value to target type 'Edm.Boolean'."))?;
            store.set_read(key, is_read);
        }
        store.change += 1;
        let change = store.change;
        let now = self.state.now_seconds();
        let store = &mut self.state.users[user].store;
        if let Some(message) = store.messages.get_mut(&key) {
            message.change = change;
            message.modified = now;
            if let Some(importance) = text("importance") {
                message.importance = Some(importance);
            }
            if let Some(inference) = text("inferenceClassification") {
                message.inference = Some(inference);
            }
            if let Some(status) = object.get("flag").and_then(|flag| flag.get("flagStatus")).and_then(Value::as_str) {
                message.flag = Some(status.to_owned());
            }
            if let Some(categories) = object.get("categories").and_then(Value::as_array) {
                message.categories =
                    categories.iter().filter_map(|category| category.as_str().map(str::to_owned)).collect();
            }
        }
        Ok(self.message_reply(200, user, key, &Options::default()))
    }

    pub(super) fn delete(&mut self, user: usize, key: u64) -> Result<Reply, Refusal> {
        self.no_options()?;
        let now = self.state.now_seconds();
        let user = &mut self.state.users[user];
        let store = &mut user.store;
        let bin = store.well_known("deleteditems");
        let target = if store.messages.get(&key).map(|message| message.folder) == bin {
            store.well_known("recoverableitemsdeletions")
        } else {
            bin
        };
        match target {
            Some(target) => store.move_message(user.number, key, target, now),
            None => store.remove_message(user.number, key),
        }
        Ok(Reply::empty(204))
    }

    pub(super) fn move_or_copy(&mut self, user: usize, key: u64, copy: bool) -> Result<Reply, Refusal> {
        let body = self.request.json()?;
        check_members(&body, &["destinationId", "DestinationId"], "move")?;
        let destination = body
            .get("destinationId")
            .or_else(|| body.get("DestinationId"))
            .and_then(Value::as_str)
            .ok_or_else(|| Refusal::new(400, "ErrorInvalidParameter", "The parameter destinationId is missing."))?;
        let now = self.state.now_seconds();
        let missing = self.state.settings.missing_folder_code.clone();
        let number = self.state.users[user].number;
        let store = &mut self.state.users[user].store;
        let target = store.find_folder(number, destination).map_err(|refusal| {
            if refusal.code == "ErrorItemNotFound" { Refusal::new(404, &missing, refusal.message) } else { refusal }
        })?;
        if store.folders[&target].search.is_some() {
            return Err(Refusal::new(400, "ErrorInvalidOperation", "A search folder cannot be the target of a move."));
        }
        let key = if copy {
            store.copy_message(key, target).ok_or_else(Refusal::item_not_found)?
        } else {
            store.move_message(number, key, target, now);
            key
        };
        Ok(self.message_reply(201, user, key, &Options::default()))
    }
}

fn found_by_search(item: &mime::Item, search: &str) -> bool {
    let address = |address: &Option<mime::Address>| {
        address.as_ref().map(|address| format!("{} {}", address.name, address.address)).unwrap_or_default()
    };
    let (field, text) = search.split_once(':').unwrap_or(("", search));
    let text = text.to_lowercase();
    let from = address(&item.from).to_lowercase();
    let subject = item.subject.clone().unwrap_or_default().to_lowercase();
    match field.to_ascii_lowercase().as_str() {
        "from" => from.contains(&text),
        "subject" => subject.contains(&text),
        _ => from.contains(&text) || subject.contains(&text) || item.body_text().to_lowercase().contains(&text),
    }
}
