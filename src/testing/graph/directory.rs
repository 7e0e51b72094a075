//! Users, their settings, and ids in another form.

use super::gate::Call;
use super::links::position;
use super::odata::Options;
use super::render;
use super::reply::{Refusal, Reply};
use super::routes::check_members;
use super::state::MailboxState;
use serde_json::{Value, json};

impl Call<'_> {
    pub(super) fn users(&mut self) -> Result<Reply, Refusal> {
        let options = Options::parse(self.query, &render::USER)?;
        let eventual =
            self.request.header("consistencylevel").is_some_and(|value| value.eq_ignore_ascii_case("eventual"));
        let advanced = options.search.is_some()
            || (options.filter.is_some() && !options.order_by.is_empty())
            || options.raw.iter().any(|(name, value)| name == "$filter" && value.contains("endsWith"));
        if advanced && !(eventual && options.count) {
            return Err(Refusal::new(
                400,
                "Request_UnsupportedQuery",
                "Operator is not supported without the header 'ConsistencyLevel:eventual' and '$count=true'.",
            ));
        }
        let search = options.search.as_ref().map(|search| {
            let text = search.split_once(':').map_or(search.as_str(), |(_, text)| text);
            text.to_lowercase()
        });
        let mut found: Vec<&super::state::User> = self
            .state
            .users
            .iter()
            .filter(|user| user.state != MailboxState::UserDeleted && user.tenant == self.tenant)
            .filter(|user| {
                options.filter.as_ref().is_none_or(|filter| filter.matches(&|name| render::user_values(user, name)))
            })
            .filter(|user| {
                search.as_ref().is_none_or(|search| {
                    user.display_name.to_lowercase().contains(search) || user.upn.to_lowercase().contains(search)
                })
            })
            .collect();
        if let Some((name, descending)) = options.order_by.first() {
            found.sort_by_key(|user| render::user_values(user, name));
            if *descending {
                found.reverse();
            }
        }
        let total = found.len();
        let start = position(&options)?;
        // "List users": 100 by default, 999 at most.
        let top = options.top.unwrap_or(100) as usize;
        let page: Vec<Value> = found
            .iter()
            .skip(start as usize)
            .take(top)
            .map(|user| render::user(user, options.select.as_ref()))
            .collect();
        let next = start as usize + page.len();
        let more = next < total;
        let mut out = json!({"@odata.context": self.context(""), "value": page});
        if options.count && eventual {
            out["@odata.count"] = total.into();
        }
        if more {
            out["@odata.nextLink"] = self.next_link(&options, next as u64, true).into();
        }
        Ok(Reply::json(200, out))
    }

    pub(super) fn one_user(&mut self, name: &str) -> Result<Reply, Refusal> {
        let options = Options::parse(self.query, &render::ONE_USER)?;
        let user = self.state.user(name).filter(|user| self.state.users[*user].tenant == self.tenant);
        let user = user.ok_or_else(|| {
            Refusal::new(
                404,
                "Request_ResourceNotFound",
                format!(
                    "Resource '{name}' does not exist or one of its queried reference-property objects are not present."
                ),
            )
        })?;
        let mut out = render::user(&self.state.users[user], options.select.as_ref());
        out["@odata.context"] = self.context("/$entity").into();
        Ok(Reply::json(200, out))
    }

    pub(super) fn mailbox_settings(&mut self, user: usize, purpose: bool) -> Result<Reply, Refusal> {
        let options = Options::parse(self.query, &render::MAILBOX_SETTINGS)?;
        let user = &self.state.users[user];
        if purpose {
            return Ok(Reply::json(
                200,
                json!({
                    "@odata.context": self.context(&format!("('{}')/mailboxSettings/userPurpose", user.id)),
                    "value": user.purpose,
                }),
            ));
        }
        let mut out = json!({
            "@odata.context": self.context(&format!("('{}')/mailboxSettings", user.id)),
        });
        let all = [
            ("userPurpose", Value::from(user.purpose.clone())),
            ("timeZone", "W. Europe Standard Time".into()),
            ("language", json!({"locale": "nl-NL", "displayName": "Dutch (Netherlands)"})),
        ];
        for (name, value) in all {
            if options.select.as_ref().is_none_or(|select| select.iter().any(|wanted| wanted == name)) {
                out[name] = value;
            }
        }
        Ok(Reply::json(200, out))
    }

    pub(super) fn translate(&mut self, user: usize) -> Result<Reply, Refusal> {
        self.no_options()?;
        let body = self.request.json()?;
        check_members(
            &body,
            &["inputIds", "sourceIdType", "targetIdType", "InputIds", "SourceIdType", "TargetIdType"],
            "translateExchangeIds",
        )?;
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        let inputs = body
            .get("inputIds")
            .and_then(Value::as_array)
            .ok_or_else(|| Refusal::bad_request("The parameter inputIds is missing."))?;
        if inputs.len() > 1000 {
            return Err(Refusal::bad_request("At most 1000 ids can be translated at once."));
        }
        let immutable = match (text("sourceIdType"), text("targetIdType")) {
            ("restId" | "restImmutableEntryId", "restImmutableEntryId") => true,
            ("restId" | "restImmutableEntryId", "restId") => false,
            _ => {
                return Err(Refusal::new(
                    501,
                    "NotModelledByTheFake",
                    "Only restId and restImmutableEntryId are modelled.",
                ));
            }
        };
        let user = &self.state.users[user];
        let mut out = Vec::new();
        for input in inputs {
            let source = input.as_str().unwrap_or_default();
            let message = user.store.find(user.number, source)?;
            out.push(json!({
                "sourceId": source,
                "targetId": message.id(user.number, immutable),
            }));
        }
        Ok(Reply::json(
            200,
            json!({
                "@odata.context": format!("{}/v1.0/$metadata#Collection(microsoft.graph.convertIdResult)", self.state.graph_root),
                "value": out,
            }),
        ))
    }
}
