//! `messages/delta`: a full round first, then what changed, with replays and removals.

use super::content::Slots;
use super::gate::Call;
use super::ids;
use super::odata::Options;
use super::render::{self, View};
use super::reply::{Refusal, Reply};
use super::state::State;
use serde_json::{Value, json};

/// Where a round stands: what the client already knows, what the round will have told it, and how
/// much of that was handed over.
#[derive(Clone, Copy)]
struct Round {
    since: u64,
    until: u64,
    position: usize,
}

impl Round {
    fn token(self) -> String {
        base64_simd::URL_SAFE_NO_PAD
            .encode_to_string(format!("fake-delta:{}:{}:{}", self.since, self.until, self.position))
    }

    fn parse(token: &str) -> Option<Round> {
        let bytes = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(token).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let mut numbers = text.strip_prefix("fake-delta:")?.split(':').map(|number| number.parse::<u64>().ok());
        Some(Round { since: numbers.next()??, until: numbers.next()??, position: numbers.next()?? as usize })
    }
}

fn lost(state: &State) -> Refusal {
    Refusal::new(410, "SyncStateNotFound", "The sync state generation is not found; generation token: '0'.")
        .with_header("Location", format!("{}/v1.0/", state.graph_root))
}

pub(super) fn list(call: &mut Call<'_>, user: usize, folder: &str) -> Result<Reply, Refusal> {
    let options = Options::parse(call.query, &render::DELTA)?;
    call.check_basic(&options)?;
    options.check_efficient()?;
    if options.order_by.iter().any(|(_, descending)| !descending) {
        return Err(Refusal::bad_request("Only $orderby=receivedDateTime desc is supported with change tracking."));
    }
    let mailbox = call.state.users[user].number;
    let store = &call.state.users[user].store;
    let folder = store.find_folder(mailbox, folder)?;
    let token = options
        .skip_token
        .as_deref()
        .or(options.delta_token.as_deref())
        // "From now on" is not supported for mail; everything is returned.
        .filter(|token| *token != "latest");
    let first_round = token.is_none();
    let mut round = match token {
        None => Round { since: 0, until: store.change, position: 0 },
        Some(token) => Round::parse(token).ok_or_else(|| lost(call.state))?,
    };
    if !first_round && round.since < store.oldest_delta && round.since > 0 {
        return Err(lost(call.state));
    }
    if options.delta_token.is_some() && options.skip_token.is_none() && !first_round {
        // A new round begins where the last one ended.
        round = Round { since: round.until, until: store.change, position: 0 };
    }
    let passes = |received: i64| {
        options
            .filter
            .as_ref()
            .is_none_or(|filter| filter.matches(&|_| vec![super::odata::Literal::Time(received * 1_000_000)]))
    };
    // The change after which the message came to the folder is not kept: a message that is older
    // than the last round and changed since is an update.
    let wanted = |kind: &str| round.since == 0 || options.change_type.as_deref().is_none_or(|asked| asked == kind);
    let shown = &store.folders[&folder];
    let mut events: Vec<(u64, Option<u64>, Option<ids::MessageRef>)> = shown
        .messages
        .iter()
        .rev()
        .map(|(_, _, key)| &store.messages[key])
        .filter(|message| message.change > round.since && message.change <= round.until)
        .filter(|message| passes(message.received))
        .filter(|_| wanted("created") || wanted("updated"))
        .map(|message| (message.change, Some(message.key), None))
        .collect();
    if round.since > 0 {
        let gone = shown.removed.iter().filter(|(change, reference)| {
            *change > round.since
                && *change <= round.until
                && wanted("deleted")
                && !shown.messages.iter().any(|(_, _, key)| *key == reference.key)
        });
        events.extend(gone.map(|(change, reference)| (*change, None, Some(*reference))));
    }
    let page_size =
        options.top.or(call.preferences.page_size).unwrap_or(call.state.settings.page_size).clamp(1, 1000) as usize;
    let page: Vec<_> = events.iter().skip(round.position).take(page_size).copied().collect();
    let mut next = round;
    next.position += page.len();
    let more = next.position < events.len();

    let mut slots = Slots::default();
    let view = View {
        settings: &call.state.settings,
        user: &call.state.users[user],
        preferences: call.preferences,
        select: options.select.as_ref(),
        expand: &options.expand,
        basic: call.basic,
    };
    let mut value: Vec<Value> = page
        .iter()
        .map(|(_, key, gone)| match (key, gone) {
            (Some(key), _) => view.message(&store.messages[key], &mut slots),
            (None, Some(reference)) => {
                let reference = ids::MessageRef {
                    generation: (!call.preferences.immutable_ids).then_some(reference.generation).flatten(),
                    ..*reference
                };
                json!({
                    "@odata.type": "#microsoft.graph.message",
                    "id": ids::message_id(reference),
                    "@removed": {"reason": "deleted"},
                })
            }
            (None, None) => Value::Null,
        })
        .collect();
    // Items can come twice in a round: the last of a page does, on the next one.
    if round.position > 0
        && let Some((_, Some(key), _)) = events.get(round.position - 1)
    {
        value.insert(0, view.message(&store.messages[key], &mut slots));
    }
    let id = &call.state.users[user].id;
    let mut out = json!({
        "@odata.context": format!(
            "{}/v1.0/$metadata#users('{id}')/mailFolders/messages/$delta",
            call.state.graph_root
        ),
        "value": value,
    });
    if more {
        out["@odata.nextLink"] = call.link(&options, "$skiptoken", &next.token()).into();
    } else {
        out["@odata.deltaLink"] = call.link(&options, "$deltatoken", &round.token()).into();
    }
    Ok(Reply::with_slots(200, out, slots))
}
