//! Attachments of a message.

use super::content::{Body, Slots};
use super::gate::Call;
use super::ids;
use super::mime::{self, Kind};
use super::odata::{ATTACHMENT, Literal, Options};
use super::reply::{Refusal, Reply};
use serde_json::{Value, json};

impl Call<'_> {
    pub(super) fn list_attachments(&mut self, user: usize, key: u64) -> Result<Reply, Refusal> {
        let options = Options::parse(self.query, &ATTACHMENT)?;
        let message = &self.state.users[user].store.messages[&key];
        let item = message.item();
        let mut slots = Slots::default();
        let one_message = Options::default();
        let view = self.view(user, &one_message);
        let skip = options.skip as usize;
        let values = |index: usize, name: &str| {
            let attachment = &item.attachments[index];
            let text = |text: &Option<String>| text.clone().map_or(Literal::Null, Literal::Text);
            vec![match name {
                "name" => text(&attachment.name),
                "contentType" => text(&attachment.content_type),
                "isInline" => Literal::Bool(attachment.inline),
                "size" => Literal::Number(attachment.stated_size() as i64),
                _ => Literal::Null,
            }]
        };
        let passing: Vec<usize> = (0..item.attachments.len())
            .filter(|index| options.filter.as_ref().is_none_or(|filter| filter.matches(&|name| values(*index, name))))
            .collect();
        let take = options.top.map_or(usize::MAX, |top| top as usize);
        let list: Vec<Value> = passing
            .iter()
            .skip(skip)
            .take(take)
            .map(|index| {
                let attachment = &item.attachments[*index];
                view.attachment(message, *index, attachment, options.select.as_ref(), true, &mut slots)
            })
            .collect();
        let next = skip + list.len();
        let id = &self.state.users[user].id;
        let mut out = json!({
            "@odata.context": self.context(&format!("('{id}')/messages('{}')/attachments", message.id(0, false))),
            "value": list,
        });
        if next < passing.len() {
            out["@odata.nextLink"] = self.next_link(&options, next as u64, false).into();
        }
        Ok(Reply::with_slots(200, out, slots))
    }

    pub(super) fn attachment_index(&self, user: usize, key: u64, id: &str) -> Result<usize, Refusal> {
        let user = &self.state.users[user];
        let (reference, index) = ids::parse_attachment_id(id).ok_or_else(Refusal::malformed_id)?;
        let message = user.store.look_up(user.number, reference)?;
        if message.key != key || index >= message.item().attachments.len() {
            return Err(Refusal::item_not_found());
        }
        Ok(index)
    }

    pub(super) fn one_attachment(&mut self, user: usize, key: u64, id: &str) -> Result<Reply, Refusal> {
        const ONE: super::odata::Schema = super::odata::Schema { options: &["$select", "$expand"], ..ATTACHMENT };
        let options = Options::parse(self.query, &ONE)?;
        let index = self.attachment_index(user, key, id)?;
        let message = &self.state.users[user].store.messages[&key];
        let item = message.item();
        let attachment = &item.attachments[index];
        let mut slots = Slots::default();
        let plain = Options::default();
        let view = self.view(user, &plain);
        let mut out = view.attachment(message, index, attachment, options.select.as_ref(), false, &mut slots);
        if !options.expand.is_empty() {
            out["item"] = view.inner_item(attachment);
        }
        let user = &self.state.users[user].id;
        out["@odata.context"] = self.context(&format!("('{user}')/messages/attachments/$entity")).into();
        Ok(Reply::with_slots(200, out, slots))
    }

    pub(super) fn attachment_value(&mut self, user: usize, key: u64, id: &str) -> Result<Reply, Refusal> {
        let index = self.attachment_index(user, key, id)?;
        let item = self.state.users[user].store.messages[&key].item();
        let attachment = &item.attachments[index];
        Ok(match &attachment.kind {
            Kind::File(content) => Reply::raw(
                200,
                Body::raw(content.clone()),
                attachment.content_type.as_deref().unwrap_or("application/octet-stream"),
            ),
            Kind::Message(inner) => Reply::raw(200, mime::to_mime(inner), "text/plain"),
            Kind::Other { text, .. } => {
                let mut body = Body::default();
                body.push(text.clone());
                Reply::raw(200, body, "text/plain")
            }
            Kind::Reference { .. } => {
                return Err(Refusal::new(
                    405,
                    "ErrorInvalidRequest",
                    "The $value of a reference attachment cannot be read.",
                ));
            }
        })
    }
}
