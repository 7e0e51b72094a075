//! Items, folders and users as Graph writes them in JSON.

use super::content::Slots;
use super::ids;
use super::mime::{Address, Attachment, Item, Kind, sanitise, text_to_html};
use super::odata::{Edm, Expand, Literal, Schema, selected};
use super::state::{Folder, Message, ROOT, Settings, Store, User, iso};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What of the `Prefer` header concerns mail.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Preferences {
    pub(crate) immutable_ids: bool,
    pub(crate) text_body: Option<bool>,
    pub(crate) unsafe_html: bool,
    pub(crate) page_size: Option<u64>,
}

impl Preferences {
    pub(crate) fn parse(headers: &[&str]) -> Self {
        let mut preferences = Preferences::default();
        for one in headers.iter().flat_map(|header| header.split(',')) {
            let (name, value) = one.split_once('=').unwrap_or((one, ""));
            let value = value.trim().trim_matches('"').to_ascii_lowercase();
            match name.trim().to_ascii_lowercase().as_str() {
                "idtype" => preferences.immutable_ids = value == "immutableid",
                "outlook.body-content-type" => preferences.text_body = Some(value == "text"),
                "outlook.allow-unsafe-html" => preferences.unsafe_html = true,
                "odata.maxpagesize" => preferences.page_size = value.parse().ok(),
                _ => {}
            }
        }
        preferences
    }

    /// The value of `Preference-Applied`.
    pub(crate) fn applied(self) -> Option<String> {
        let mut applied = Vec::new();
        if self.immutable_ids {
            applied.push("IdType=\"ImmutableId\"".to_owned());
        }
        if let Some(text) = self.text_body {
            let kind = if text { "text" } else { "html" };
            applied.push(format!("outlook.body-content-type=\"{kind}\""));
        }
        (!applied.is_empty()).then(|| applied.join(", "))
    }
}

pub(crate) const MESSAGE: Schema = Schema {
    type_name: "microsoft.graph.message",
    options: &["$select", "$expand", "$filter", "$orderby", "$top", "$skip", "$skiptoken", "$count", "$search"],
    properties: &[
        "id",
        "changeKey",
        "categories",
        "createdDateTime",
        "lastModifiedDateTime",
        "receivedDateTime",
        "sentDateTime",
        "hasAttachments",
        "internetMessageId",
        "internetMessageHeaders",
        "subject",
        "body",
        "bodyPreview",
        "uniqueBody",
        "importance",
        "parentFolderId",
        "sender",
        "from",
        "toRecipients",
        "ccRecipients",
        "bccRecipients",
        "replyTo",
        "conversationId",
        "conversationIndex",
        "isDeliveryReceiptRequested",
        "isReadReceiptRequested",
        "isRead",
        "isDraft",
        "webLink",
        "inferenceClassification",
        "flag",
    ],
    filterable: &[
        ("id", Edm::Text),
        ("receivedDateTime", Edm::Time),
        ("sentDateTime", Edm::Time),
        ("createdDateTime", Edm::Time),
        ("lastModifiedDateTime", Edm::Time),
        ("isRead", Edm::Bool),
        ("isDraft", Edm::Bool),
        ("hasAttachments", Edm::Bool),
        ("subject", Edm::Text),
        ("internetMessageId", Edm::Text),
        ("conversationId", Edm::Text),
        ("importance", Edm::Text),
        ("from/emailAddress/address", Edm::Text),
        ("from/emailAddress/name", Edm::Text),
        ("sender/emailAddress/address", Edm::Text),
        ("flag/flagStatus", Edm::Text),
        ("categories", Edm::Texts),
    ],
    sortable: &[
        "receivedDateTime",
        "sentDateTime",
        "createdDateTime",
        "lastModifiedDateTime",
        "subject",
        "isRead",
        "hasAttachments",
        "importance",
        "from/emailAddress/address",
        "from/emailAddress/name",
    ],
    expandable: &["attachments", "singleValueExtendedProperties"],
    max_top: 1000,
};

/// One message: the options that make sense without a list.
pub(crate) const ONE_MESSAGE: Schema = Schema { options: &["$select", "$expand"], ..MESSAGE };

/// "message: delta" allows less than the list.
pub(crate) const DELTA: Schema = Schema {
    options: &["$select", "$expand", "$filter", "$orderby", "$top", "$skiptoken", "$deltatoken", "changeType"],
    filterable: &[("receivedDateTime", Edm::Time)],
    sortable: &["receivedDateTime"],
    ..MESSAGE
};

pub(crate) const FOLDER: Schema = Schema {
    type_name: "microsoft.graph.mailFolder",
    options: &["$select", "$filter", "$top", "$skip", "$skiptoken", "$count", "includeHiddenFolders"],
    properties: &[
        "id",
        "displayName",
        "parentFolderId",
        "childFolderCount",
        "unreadItemCount",
        "totalItemCount",
        "isHidden",
        "sizeInBytes",
    ],
    filterable: &[
        ("displayName", Edm::Text),
        ("totalItemCount", Edm::Number),
        ("unreadItemCount", Edm::Number),
        ("childFolderCount", Edm::Number),
        ("isHidden", Edm::Bool),
    ],
    sortable: &[],
    expandable: &[],
    max_top: 1000,
};

pub(crate) const ONE_FOLDER: Schema = Schema { options: &["$select", "includeHiddenFolders"], ..FOLDER };

pub(crate) const USER: Schema = Schema {
    type_name: "microsoft.graph.user",
    options: &["$select", "$filter", "$orderby", "$top", "$skiptoken", "$count", "$search"],
    properties: &[
        "id",
        "businessPhones",
        "displayName",
        "givenName",
        "jobTitle",
        "mail",
        "mobilePhone",
        "officeLocation",
        "preferredLanguage",
        "surname",
        "userPrincipalName",
        "proxyAddresses",
        "accountEnabled",
        "userType",
        "mailNickname",
        "assignedPlans",
        "assignedLicenses",
        "onPremisesSyncEnabled",
    ],
    filterable: &[
        ("id", Edm::Text),
        ("mail", Edm::Text),
        ("userPrincipalName", Edm::Text),
        ("displayName", Edm::Text),
        ("accountEnabled", Edm::Bool),
        ("userType", Edm::Text),
        ("proxyAddresses", Edm::Texts),
    ],
    sortable: &["displayName", "userPrincipalName"],
    expandable: &[],
    max_top: 999,
};

pub(crate) const ONE_USER: Schema = Schema { options: &["$select"], ..USER };

pub(crate) const MAILBOX_SETTINGS: Schema = Schema {
    type_name: "microsoft.graph.mailboxSettings",
    options: &["$select"],
    properties: &[
        "archiveFolder",
        "automaticRepliesSetting",
        "dateFormat",
        "delegateMeetingMessageDeliveryOptions",
        "language",
        "timeFormat",
        "timeZone",
        "userPurpose",
        "workingHours",
    ],
    filterable: &[],
    sortable: &[],
    expandable: &[],
    max_top: 1,
};

/// Properties that come without `$select`.
const DEFAULT_USER: [&str; 11] = [
    "businessPhones",
    "displayName",
    "givenName",
    "id",
    "jobTitle",
    "mail",
    "mobilePhone",
    "officeLocation",
    "preferredLanguage",
    "surname",
    "userPrincipalName",
];
const ONLY_SELECTED: [&str; 2] = ["internetMessageHeaders", "uniqueBody"];
/// What `Mail.ReadBasic` may not see ("Mail.ReadBasic" in the permissions reference).
pub(crate) const NOT_BASIC: [&str; 3] = ["body", "bodyPreview", "uniqueBody"];

/// Everything that decides how a message is written.
pub(crate) struct View<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) user: &'a User,
    pub(crate) preferences: Preferences,
    pub(crate) select: Option<&'a Vec<String>>,
    pub(crate) expand: &'a [Expand],
    /// Only `Mail.ReadBasic` was granted.
    pub(crate) basic: bool,
}

impl View<'_> {
    fn selection(&self) -> BTreeSet<String> {
        let mut set = match self.select {
            Some(_) => selected(self.select, &[]),
            None => MESSAGE
                .properties
                .iter()
                .filter(|name| !ONLY_SELECTED.contains(name))
                .map(|name| (*name).to_owned())
                .collect(),
        };
        if self.basic {
            set.retain(|name| !NOT_BASIC.contains(&name.as_str()));
        }
        set
    }

    pub(crate) fn message(&self, message: &Message, slots: &mut Slots) -> Value {
        let wanted = self.selection();
        let item = message.item();
        let mailbox = self.user.number;
        let id = message.id(mailbox, self.preferences.immutable_ids);
        let change_key = ids::change_key(mailbox, message.change);
        let mut out = Map::new();
        out.insert("@odata.etag".into(), format!("W/\"{change_key}\"").into());
        if let Some(odata_type) = item.odata_type {
            out.insert("@odata.type".into(), odata_type.into());
        }
        for name in &wanted {
            let value = match name.as_str() {
                "id" => id.clone().into(),
                "changeKey" => change_key.clone().into(),
                "categories" => json!(message.categories),
                "createdDateTime" | "receivedDateTime" => iso(message.received).into(),
                "lastModifiedDateTime" => iso(message.modified).into(),
                "sentDateTime" => item.sent.map_or(Value::Null, |sent| iso(sent).into()),
                "hasAttachments" => item.has_attachments().into(),
                "internetMessageId" => json!(item.internet_message_id),
                "internetMessageHeaders" => {
                    item.headers.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
                }
                "subject" => json!(item.subject),
                "body" | "uniqueBody" => self.body(&item),
                "bodyPreview" => item.body_text().chars().take(255).collect::<String>().into(),
                "importance" => message.importance.clone().unwrap_or_else(|| item.importance.to_owned()).into(),
                "parentFolderId" => ids::folder_id(mailbox, message.folder).into(),
                "sender" => recipient(item.sender.as_ref()),
                "from" => recipient(item.from.as_ref()),
                "toRecipients" => recipients(&item.to),
                "ccRecipients" => recipients(&item.cc),
                "bccRecipients" => recipients(&item.bcc),
                "replyTo" => recipients(&item.reply_to),
                "conversationId" => ids::change_key(mailbox, message.key ^ 0xc0ff_ee00).replace('/', "-").into(),
                "conversationIndex" => ids::change_key(mailbox, message.key ^ 0x1d_ea00).into(),
                "isDeliveryReceiptRequested" => Value::Null,
                "isReadReceiptRequested" => item.read_receipt.into(),
                "isRead" => message.is_read.into(),
                "isDraft" => false.into(),
                "webLink" => format!(
                    "https://outlook.office365.com/owa/?ItemID={}&exvsurl=1&viewmodel=ReadMessageItem",
                    id.replace('=', "%3D")
                )
                .into(),
                "inferenceClassification" => message.inference.as_deref().unwrap_or("focused").into(),
                "flag" => json!({
                    "flagStatus": message.flag.as_deref().unwrap_or("notFlagged")
                }),
                _ => continue,
            };
            out.insert(name.clone(), value);
        }
        for expand in self.expand {
            match expand.path.as_str() {
                "attachments" => {
                    let list = item
                        .attachments
                        .iter()
                        .enumerate()
                        .map(|(index, attachment)| {
                            self.attachment(message, index, attachment, expand.select.as_ref(), true, slots)
                        })
                        .collect::<Vec<_>>();
                    out.insert("attachments".into(), list.into());
                }
                "singleValueExtendedProperties" => {
                    let properties = extended(expand, &item, message);
                    if !properties.is_empty() {
                        out.insert(expand.path.clone(), properties.into());
                    }
                }
                _ => {}
            }
        }
        Value::Object(out)
    }

    fn body(&self, item: &Item) -> Value {
        let rendering = &self.settings.rendering;
        let asked_for_text = self.preferences.text_body == Some(true);
        match (&item.html, &item.text) {
            (_, _) if asked_for_text => {
                json!({"contentType": "text", "content": item.body_text()})
            }
            (Some(html), _) => {
                let safe = if rendering.sanitise_html && !self.preferences.unsafe_html {
                    sanitise(html)
                } else {
                    html.clone()
                };
                json!({"contentType": "html", "content": safe})
            }
            (None, text) => {
                let text = text.as_deref().unwrap_or_default();
                if rendering.text_as_html {
                    json!({"contentType": "html", "content": text_to_html(text)})
                } else {
                    json!({"contentType": "text", "content": text})
                }
            }
        }
    }

    /// `of_many`: in a list or an expansion, where large contents are missing.
    pub(crate) fn attachment(
        &self,
        message: &Message,
        index: usize,
        attachment: &Attachment,
        select: Option<&Vec<String>>,
        of_many: bool,
        slots: &mut Slots,
    ) -> Value {
        let message_id = message.id(self.user.number, self.preferences.immutable_ids);
        let all = [
            "name",
            "contentType",
            "size",
            "isInline",
            "lastModifiedDateTime",
            "microsoft.graph.fileAttachment/contentId",
            "microsoft.graph.fileAttachment/contentBytes",
            "microsoft.graph.fileAttachment/contentLocation",
        ];
        let wanted = selected(select, &all);
        let odata_type = match &attachment.kind {
            Kind::File(_) => "#microsoft.graph.fileAttachment",
            Kind::Message(_) | Kind::Other { .. } => "#microsoft.graph.itemAttachment",
            Kind::Reference { .. } => "#microsoft.graph.referenceAttachment",
        };
        let mut out = Map::new();
        out.insert("@odata.type".into(), odata_type.into());
        for name in &wanted {
            let short = name.rsplit('/').next().unwrap_or(name);
            let file = match &attachment.kind {
                Kind::File(content) => Some(content),
                _ => None,
            };
            let value = match (short, file) {
                ("id", _) => ids::attachment_id(&message_id, index).into(),
                ("name", _) => json!(attachment.name),
                ("contentType", _) => json!(attachment.content_type),
                ("size", _) => attachment.stated_size().into(),
                ("isInline", _) => attachment.inline.into(),
                ("lastModifiedDateTime", _) => iso(message.received).into(),
                ("contentId", Some(_)) => json!(attachment.content_id),
                ("contentLocation", Some(_)) => Value::Null,
                ("contentBytes", Some(content)) if !of_many || content.len() <= self.settings.content_bytes_limit => {
                    slots.base64(content)
                }
                _ => continue,
            };
            out.insert(short.to_owned(), value);
        }
        if let Some(content_type) = &attachment.content_type {
            out.insert("@odata.mediaContentType".into(), content_type.clone().into());
        }
        Value::Object(out)
    }

    /// The item inside an item attachment; its `id` is empty, it cannot be addressed.
    pub(crate) fn inner_item(&self, attachment: &Attachment) -> Value {
        match &attachment.kind {
            Kind::Message(item) => json!({
                "@odata.type": "#microsoft.graph.message",
                "id": "",
                "subject": item.subject,
                "body": self.body(item),
                "from": recipient(item.from.as_ref()),
                "sender": recipient(item.sender.as_ref()),
                "toRecipients": recipients(&item.to),
                "ccRecipients": recipients(&item.cc),
                "internetMessageId": item.internet_message_id,
                "sentDateTime": item.sent.map(iso),
                "hasAttachments": item.has_attachments(),
            }),
            Kind::Other { odata_type, .. } => json!({
                "@odata.type": odata_type,
                "id": "",
                "subject": attachment.name,
            }),
            _ => Value::Null,
        }
    }
}

fn recipient(address: Option<&Address>) -> Value {
    address.map_or(Value::Null, |address| json!({"emailAddress": {"name": address.name, "address": address.address}}))
}

fn recipients(addresses: &[Address]) -> Value {
    addresses.iter().map(|address| recipient(Some(address))).collect()
}

/// The extended properties that are known: the size, and the delivery time.
fn extended(expand: &Expand, item: &Item, message: &Message) -> Vec<Value> {
    let mut ids = Vec::new();
    if let Some(filter) = &expand.filter {
        filter.equal_texts(&mut ids);
    }
    ids.iter()
        .filter_map(|id| {
            let (kind, tag) = id.split_once(' ')?;
            let digits = tag.strip_prefix("0x").or_else(|| tag.strip_prefix("0X"))?;
            let number = u32::from_str_radix(digits, 16).ok()?;
            let value = match (kind.to_ascii_lowercase().as_str(), number) {
                ("long" | "integer", 0x0e08) => item.stated_size().to_string(),
                ("systemtime", 0x0e06) => iso(message.received),
                _ => return None,
            };
            let mut kind = kind.to_ascii_lowercase();
            if let Some(first) = kind.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            // The id comes back in another spelling than it was asked in.
            Some(json!({"id": format!("{kind} 0x{number:x}"), "value": value}))
        })
        .collect()
}

/// The values of a message's property, for filters and sorting.
pub(crate) fn message_values(
    mailbox: u32,
    message: &Message,
    item: &dyn Fn() -> Arc<Item>,
    name: &str,
) -> Vec<Literal> {
    let text = |text: Option<&str>| text.map_or(Literal::Null, |text| Literal::Text(text.to_owned()));
    let time = |seconds: i64| Literal::Time(seconds * 1_000_000);
    vec![match name {
        "id" => Literal::Text(message.id(mailbox, false)),
        "receivedDateTime" | "createdDateTime" => time(message.received),
        "lastModifiedDateTime" => time(message.modified),
        "sentDateTime" => item().sent.map_or(Literal::Null, time),
        "isRead" => Literal::Bool(message.is_read),
        "isDraft" => Literal::Bool(false),
        "hasAttachments" => Literal::Bool(item().has_attachments()),
        "subject" => text(item().subject.as_deref()),
        "internetMessageId" => text(item().internet_message_id.as_deref()),
        "importance" => text(Some(message.importance.as_deref().unwrap_or(item().importance))),
        "from/emailAddress/address" => text(item().from.as_ref().map(|from| from.address.as_str())),
        "from/emailAddress/name" => text(item().from.as_ref().map(|from| from.name.as_str())),
        "sender/emailAddress/address" => text(item().sender.as_ref().map(|from| from.address.as_str())),
        "flag/flagStatus" => text(Some(message.flag.as_deref().unwrap_or("notFlagged"))),
        "conversationId" => Literal::Text(ids::change_key(mailbox, message.key ^ 0xc0ff_ee00).replace('/', "-")),
        "categories" => {
            return message.categories.iter().map(|category| Literal::Text(category.clone())).collect();
        }
        _ => Literal::Null,
    }]
}

pub(crate) fn folder(
    user: &User,
    number: u32,
    folder: &Folder,
    select: Option<&Vec<String>>,
    include_hidden: bool,
    foreign_item_every: Option<u64>,
) -> Value {
    let store = &user.store;
    let messages = folder.messages.len() as u64;
    let wanted = selected(
        select,
        &[
            "displayName",
            "parentFolderId",
            "childFolderCount",
            "unreadItemCount",
            "totalItemCount",
            "isHidden",
            "sizeInBytes",
        ],
    );
    let mut out = Map::new();
    if folder.search.is_some() {
        out.insert("@odata.type".into(), "#microsoft.graph.mailSearchFolder".into());
        out.insert("isSupported".into(), true.into());
        out.insert("includeNestedFolders".into(), true.into());
        let sources = folder.search.iter().flatten();
        out.insert(
            "sourceFolderIds".into(),
            sources.map(|source| Value::from(ids::folder_id(user.number, *source))).collect(),
        );
        out.insert("filterQuery".into(), "isRead eq false".into());
    }
    for name in &wanted {
        let value = match name.as_str() {
            "id" => ids::folder_id(user.number, number).into(),
            "displayName" => folder.name.clone().into(),
            "parentFolderId" => ids::folder_id(user.number, folder.parent.unwrap_or(ROOT)).into(),
            "childFolderCount" => {
                store.children(number).filter(|(_, child)| include_hidden || !child.hidden).count().into()
            }
            "unreadItemCount" => folder.unread.into(),
            // Items of other types count too, so this is no number of messages.
            "totalItemCount" => foreign_item_every
                .filter(|every| *every > 1)
                .map_or(messages, |every| messages + messages / (every - 1))
                .into(),
            "isHidden" => folder.hidden.into(),
            "sizeInBytes" => (messages * 75_000).into(),
            _ => continue,
        };
        out.insert(name.clone(), value);
    }
    Value::Object(out)
}

pub(crate) fn folder_values(store: &Store, number: u32, folder: &Folder, name: &str) -> Vec<Literal> {
    vec![match name {
        "displayName" => Literal::Text(folder.name.clone()),
        "totalItemCount" => Literal::Number(folder.messages.len() as i64),
        "unreadItemCount" => Literal::Number(folder.unread as i64),
        "childFolderCount" => Literal::Number(store.children(number).count() as i64),
        "isHidden" => Literal::Bool(folder.hidden),
        _ => Literal::Null,
    }]
}

pub(crate) fn user(user: &User, select: Option<&Vec<String>>) -> Value {
    let wanted = selected(select, &DEFAULT_USER);
    let mut out = Map::new();
    for name in &wanted {
        let value = match name.as_str() {
            "id" => user.id.clone().into(),
            "displayName" => user.display_name.clone().into(),
            "mail" => json!(user.mail),
            "userPrincipalName" => user.upn.clone().into(),
            "proxyAddresses" => json!(user.proxy_addresses()),
            "accountEnabled" => user.enabled.into(),
            "userType" => user.user_type.clone().into(),
            "mailNickname" => user.upn.split('@').next().unwrap_or_default().into(),
            "assignedPlans" => user
                .licensed
                .and_then(|since| jiff::Timestamp::from_second(since).ok())
                .map(|since| {
                    json!({
                        "assignedDateTime": since.to_string(),
                        "capabilityStatus": "Enabled",
                        "service": "exchange",
                        "servicePlanId": "efb87545-963c-4e0d-99df-69c6916d9eb0",
                    })
                })
                .into_iter()
                .collect(),
            "onPremisesSyncEnabled" if user.synced => true.into(),
            "businessPhones" | "assignedLicenses" => json!([]),
            _ => Value::Null,
        };
        out.insert(name.clone(), value);
    }
    Value::Object(out)
}

pub(crate) fn user_values(user: &User, name: &str) -> Vec<Literal> {
    let text = |text: &str| Literal::Text(text.to_owned());
    vec![match name {
        "id" => text(&user.id),
        "mail" => user.mail.as_deref().map_or(Literal::Null, text),
        "userPrincipalName" => text(&user.upn),
        "displayName" => text(&user.display_name),
        "accountEnabled" => Literal::Bool(user.enabled),
        "userType" => text(&user.user_type),
        "proxyAddresses" => {
            return user.proxy_addresses().iter().map(|entry| text(entry)).collect();
        }
        _ => Literal::Null,
    }]
}
