//! Graph's JSON, and what becomes of it ("message resource type", "attachment resource type", Microsoft Graph v1.0).
//!
//! Read leniently: a property that is missing, null or of another type is as good as absent, and unknown ones are passed
//! over. Only ids are needed. Texts are borrowed from the answer, so that a page of attachments is not held twice.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::{Timestamp, civil, tz::TimeZone};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::{
    Address, Attachment, AttachmentId, AttachmentKind, Defect, Folder, FolderId, Hints, Message, MessageId, Query,
    mime::envelope,
};

/// A property that may be anything.
#[derive(Debug)]
pub(super) struct Lenient<T>(pub(super) Option<T>);

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str(raw.get()).ok()))
    }
}

/// A list of which what cannot be understood is left out.
#[derive(Debug)]
pub(super) struct Each<T>(pub(super) Vec<T>);

impl<T> Default for Each<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Each<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Lenient(list) = Lenient::<Vec<&'de RawValue>>::deserialize(deserializer)?;
        let all = list.unwrap_or_default();
        Ok(Self(all.into_iter().filter_map(|raw| serde_json::from_str(raw.get()).ok()).collect()))
    }
}

/// One of `internetMessageHeaders`.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Debug, Deserialize)]
struct Recipient {
    #[serde(rename = "emailAddress")]
    email_address: EmailAddress,
}

#[derive(Debug, Deserialize)]
struct EmailAddress {
    #[serde(default)]
    name: Lenient<String>,
    #[serde(default)]
    address: Lenient<String>,
}

#[derive(Debug, Deserialize)]
struct Body {
    #[serde(default, rename = "contentType")]
    content_type: Lenient<String>,
    #[serde(default)]
    content: Lenient<String>,
}

/// What is needed to know which messages there are.
#[derive(Debug, Deserialize)]
pub(super) struct Stub {
    pub(super) id: String,
    #[serde(default, rename = "receivedDateTime")]
    received: Lenient<String>,
    #[serde(default, rename = "parentFolderId")]
    pub(super) parent: Lenient<String>,
    #[serde(default, rename = "isRead")]
    pub(super) is_read: Lenient<bool>,
    #[serde(default, rename = "internetMessageId")]
    pub(super) internet_message_id: Lenient<String>,
}

impl Stub {
    pub(super) fn received(&self) -> Option<Timestamp> {
        self.received.0.as_deref().and_then(timestamp)
    }
}

/// A message, with its attachments where they were asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireMessage<'a> {
    pub(super) id: String,
    #[serde(default)]
    parent_folder_id: Lenient<String>,
    #[serde(default)]
    subject: Lenient<String>,
    #[serde(default)]
    from: Lenient<Recipient>,
    #[serde(default)]
    sender: Lenient<Recipient>,
    #[serde(default)]
    reply_to: Each<Recipient>,
    #[serde(default)]
    to_recipients: Each<Recipient>,
    #[serde(default)]
    cc_recipients: Each<Recipient>,
    #[serde(default)]
    received_date_time: Lenient<String>,
    #[serde(default)]
    sent_date_time: Lenient<String>,
    #[serde(default)]
    created_date_time: Lenient<String>,
    #[serde(default)]
    internet_message_id: Lenient<String>,
    #[serde(default)]
    internet_message_headers: Each<Header>,
    #[serde(default)]
    conversation_id: Lenient<String>,
    #[serde(default)]
    is_read: Lenient<bool>,
    #[serde(default)]
    has_attachments: Lenient<bool>,
    #[serde(default)]
    body: Lenient<Body>,
    #[serde(default, borrow)]
    attachments: Option<Each<WireAttachment<'a>>>,
    #[serde(default, rename = "attachments@odata.nextLink")]
    more_attachments: Lenient<String>,
}

/// Attachments that did not come along with their message.
#[derive(Debug)]
pub(super) enum More {
    /// Those beyond a link.
    Link(String),
    /// All of them. The message has no list, not even an empty one, so that nothing is known of them.
    All,
}

/// The properties of a message that are asked for.
///
/// `internetMessageHeaders` are among them for every message, though they are the largest of them: only they tell what
/// was sent by a machine, what is a bounce, the address it was delivered to and the references. It costs some kilobytes
/// beside attachments of hundreds, and no request.
pub(super) const SELECT: &str = "id,parentFolderId,subject,from,sender,replyTo,toRecipients,ccRecipients,receivedDateTime,sentDateTime,internetMessageId,internetMessageHeaders,conversationId,isRead,hasAttachments";

/// The properties of an attachment without its content. `contentId` belongs to the derived type, and must be named so.
pub(super) const SELECT_ATTACHMENT: &str = "id,name,contentType,size,isInline,microsoft.graph.fileAttachment/contentId";

/// Texts are given up to this length.
const TEXT_CAP: usize = 1024 * 1024;

impl WireMessage<'_> {
    /// The folder it is in.
    pub(super) fn parent(&self) -> Option<&str> {
        self.parent_folder_id.0.as_deref()
    }

    /// Where the attachments are that did not come along. OData lets a service cut an expanded list short; Exchange has
    /// not been seen to do it, nor to leave the list out.
    pub(super) fn more_attachments(&self) -> Option<More> {
        match self.more_attachments.0.as_deref() {
            Some(link) if !link.is_empty() => Some(More::Link(link.to_owned())),
            _ => self.attachments.is_none().then_some(More::All),
        }
    }

    /// The message, in `folder` unless it says otherwise.
    pub(super) fn into_message(self, folder: &FolderId, query: &Query, mailbox: &str) -> Message {
        let time = |value: &Lenient<String>| value.0.as_deref().and_then(timestamp);
        let received = time(&self.received_date_time).or_else(|| time(&self.created_date_time));
        let mut message =
            Message::new(MessageId::new(self.id), folder.clone(), received.unwrap_or(Timestamp::UNIX_EPOCH));
        let list = |all: Each<Recipient>| all.0.into_iter().filter_map(address).collect();
        message.subject = self.subject.0.filter(|s| !s.is_empty());
        message.from = self.from.0.and_then(address);
        message.sender = self.sender.0.and_then(address);
        message.reply_to = list(self.reply_to);
        message.to = list(self.to_recipients);
        message.cc = list(self.cc_recipients);
        message.sent = self.sent_date_time.0.as_deref().and_then(timestamp);
        message.internet_message_id = self.internet_message_id.0.filter(|id| !id.trim().is_empty());
        message.conversation_id = self.conversation_id.0;
        message.is_read = self.is_read.0.unwrap_or(false);
        message.hints = Hints::new(self.has_attachments.0, None);
        let headers = &self.internet_message_headers.0;
        let made_up = message.sent.take();
        envelope::from_list(headers.iter().map(|h| (h.name.as_str(), h.value.as_str())), &mut message, query, mailbox);
        if message.sent.is_none() {
            // A date that cannot be read is replaced by Exchange with one of its own.
            if headers.iter().any(|h| h.name.eq_ignore_ascii_case("date")) {
                message.defects.push(Defect::BadDate);
            } else {
                message.sent = made_up;
            }
        }
        if received.is_none() {
            message.defects.push(Defect::Unreadable);
        }
        if query.text
            && let Some(body) = self.body.0
        {
            set_body(&mut message, body);
        }
        message.attachments = self
            .attachments
            .unwrap_or_default()
            .0
            .into_iter()
            .filter_map(|a| a.into_attachment(query.inline_up_to))
            .collect();
        message
    }
}

/// A message of which only the id can be told.
pub(super) fn unreadable(id: String, folder: &FolderId, received: Timestamp) -> Message {
    let mut message = Message::new(MessageId::new(id), folder.clone(), received);
    message.defects.push(Defect::Unreadable);
    message
}

fn set_body(message: &mut Message, body: Body) {
    let Some(mut content) = body.content.0.filter(|c| !c.is_empty()) else { return };
    if content.len() > TEXT_CAP {
        content.truncate(content.floor_char_boundary(TEXT_CAP));
        message.defects.push(Defect::TextCut);
    }
    // Without a preference for text, plain mail is given as text by some mailboxes and as HTML by others.
    if body.content_type.0.is_some_and(|kind| kind.eq_ignore_ascii_case("text")) {
        message.text = Some(content);
    } else {
        message.html = Some(content);
    }
}

/// Reads only the text of a message.
pub(super) fn read_text(json: &str, message: &mut Message) {
    #[derive(Deserialize)]
    struct Only {
        #[serde(default)]
        body: Lenient<Body>,
    }
    if let Ok(Only { body: Lenient(Some(body)) }) = serde_json::from_str(json)
        && body.content_type.0.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("text"))
    {
        set_body(message, body);
    }
}

fn address(recipient: Recipient) -> Option<Address> {
    let EmailAddress { name, address } = recipient.email_address;
    let name = name.0.filter(|n| !n.trim().is_empty());
    match address.0.filter(|a| !a.trim().is_empty()) {
        // Graph repeats the address where there is no name.
        Some(address) => {
            let name = name.filter(|name| *name != address);
            Some(Address { name, address })
        }
        None => name.map(Address::new),
    }
}

/// `2018-08-12T08:43:22Z`, with or without a fraction; some samples lack the zone, which is UTC.
pub(super) fn timestamp(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let time: civil::DateTime = text.parse().ok()?;
        Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })
}

/// An attachment, with its content where that was asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireAttachment<'a> {
    #[serde(default, rename = "@odata.type")]
    odata_type: Lenient<String>,
    #[serde(default)]
    id: Lenient<String>,
    #[serde(default)]
    name: Lenient<String>,
    #[serde(default)]
    content_type: Lenient<String>,
    #[serde(default)]
    size: Lenient<i64>,
    #[serde(default)]
    is_inline: Lenient<bool>,
    #[serde(default)]
    content_id: Lenient<String>,
    #[serde(default, borrow)]
    content_bytes: Option<&'a RawValue>,
    #[serde(default)]
    source_url: Lenient<String>,
}

impl WireAttachment<'_> {
    pub(super) fn into_attachment(self, inline_up_to: u64) -> Option<Attachment> {
        let id = self.id.0.filter(|id| !id.is_empty())?;
        let odata_type = self.odata_type.0.unwrap_or_default().to_ascii_lowercase();
        let kind = if odata_type.ends_with("itemattachment") {
            AttachmentKind::Item
        } else if odata_type.ends_with("referenceattachment") || (odata_type.is_empty() && self.source_url.0.is_some())
        {
            AttachmentKind::Link
        } else {
            AttachmentKind::File
        };
        let content_type = self.content_type.0.as_deref().map(media_type).filter(|t| !t.is_empty());
        let content_type = match kind {
            // Graph tells no type of an item; until somebody looks closer it is a message, which nearly all are.
            AttachmentKind::Item => MESSAGE.0.to_owned(),
            _ => content_type.unwrap_or_else(|| "application/octet-stream".to_owned()),
        };
        let mut attachment = Attachment::new(AttachmentId::new(id), content_type);
        attachment.kind = kind;
        attachment.name = self.name.0.filter(|name| !name.is_empty());
        if kind == AttachmentKind::Item {
            name_item(&mut attachment, MESSAGE);
        }
        attachment.inline = self.is_inline.0.unwrap_or(false);
        let content_id = self.content_id.0.map(|id| id.trim().trim_matches(['<', '>']).to_owned());
        attachment.content_id = content_id.filter(|id| !id.is_empty());
        attachment.size_hint = self.size.0.and_then(|size| u64::try_from(size).ok());
        attachment.url = self.source_url.0.filter(|url| !url.is_empty());
        if kind == AttachmentKind::File {
            // Absent does not mean empty: for larger files the listing leaves it out.
            attachment.content = self.content_bytes.and_then(|raw| decode(raw, inline_up_to));
        }
        Some(attachment)
    }
}

/// Media type and extension of an attached item, as its `$value` gives it.
type ItemForm = (&'static str, &'static str);

const MESSAGE: ItemForm = ("message/rfc822", ".eml");

/// What an attached item is, by the type of what is in it.
fn item_form(odata_type: &str) -> ItemForm {
    let kind = odata_type.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    match kind.as_str() {
        // Not `eventMessage`, which is mail about an event.
        "event" => ("text/calendar", ".ics"),
        "contact" => ("text/vcard", ".vcf"),
        _ => MESSAGE,
    }
}

fn name_item(attachment: &mut Attachment, (content_type, extension): ItemForm) {
    content_type.clone_into(&mut attachment.content_type);
    let name = attachment.name.take().unwrap_or_default();
    let bare = name.strip_suffix(MESSAGE.1).unwrap_or(&name);
    attachment.name = (!bare.is_empty()).then(|| format!("{bare}{extension}"));
}

/// Says what an attached item is, from `?$expand=microsoft.graph.itemattachment/item`.
pub(super) fn look_closer(attachment: &mut Attachment, json: &[u8]) {
    #[derive(Deserialize)]
    struct Outer {
        #[serde(default)]
        item: Lenient<Inner>,
    }
    #[derive(Deserialize)]
    struct Inner {
        #[serde(default, rename = "@odata.type")]
        odata_type: Lenient<String>,
    }
    if let Ok(Outer { item: Lenient(Some(Inner { odata_type: Lenient(Some(kind)) })) }) = serde_json::from_slice(json) {
        name_item(attachment, item_form(&kind));
    }
}

/// Lower case, without parameters.
fn media_type(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Base64 out of a JSON string, if there are at most `limit` bytes. `None` for anything else; a download will tell.
fn decode(raw: &RawValue, limit: u64) -> Option<Bytes> {
    let text = raw.get();
    let base64 = match text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
        Some(_) => Cow::Owned(serde_json::from_str::<String>(text).ok()?),
        None => return None,
    };
    if (base64.len() as u64 / 4).saturating_mul(3) > limit.saturating_add(2) {
        return None;
    }
    let bytes = base64_simd::STANDARD.decode_to_vec(base64.as_bytes()).ok()?;
    (bytes.len() as u64 <= limit).then(|| bytes.into())
}

/// A folder.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireFolder {
    #[serde(default, rename = "@odata.type")]
    odata_type: Lenient<String>,
    pub(super) id: String,
    #[serde(default)]
    display_name: Lenient<String>,
    #[serde(default)]
    pub(super) parent_folder_id: Lenient<String>,
    #[serde(default)]
    pub(super) child_folder_count: Lenient<i64>,
    #[serde(default)]
    total_item_count: Lenient<i64>,
    #[serde(default)]
    unread_item_count: Lenient<i64>,
    #[serde(default)]
    is_hidden: Lenient<bool>,
}

impl WireFolder {
    pub(super) fn name(&self) -> &str {
        self.display_name.0.as_deref().unwrap_or_default()
    }

    pub(super) fn into_folder(self, above: &[String]) -> Folder {
        let count = |value: Lenient<i64>| value.0.and_then(|n| u64::try_from(n).ok());
        let segments = above.iter().cloned().chain([self.display_name.0.unwrap_or_default()]).collect();
        let mut folder = Folder::new(FolderId::new(self.id), segments);
        folder.messages = count(self.total_item_count);
        folder.unread = count(self.unread_item_count);
        folder.hidden = self.is_hidden.0.unwrap_or(false);
        // "mailSearchFolder resource type": a view of messages that live elsewhere.
        folder.search = self.odata_type.0.is_some_and(|t| t.to_ascii_lowercase().ends_with("mailsearchfolder"));
        folder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, query: &Query) -> Message {
        let wire: WireMessage<'_> = serde_json::from_str(json).unwrap();
        wire.into_message(&FolderId::new("f"), query, "info@contoso.nl")
    }

    #[test]
    fn a_message_with_everything() {
        let json = r##"{
            "@odata.etag": "W/\"CQ\"", "id": "AAkALg=", "parentFolderId": "f", "subject": "Factuur",
            "from": {"emailAddress": {"name": "Bar", "address": "bar@b.example"}},
            "sender": {"emailAddress": {"name": "bar@b.example", "address": "bar@b.example"}},
            "replyTo": [], "toRecipients": [{"emailAddress": {"address": "info@contoso.nl"}}, {"odd": 1}],
            "ccRecipients": null, "receivedDateTime": "2026-01-31T10:00:00Z", "sentDateTime": "2026-01-31T09:59:58Z",
            "internetMessageId": "<a@b>", "conversationId": "AAQk", "isRead": true, "hasAttachments": false,
            "internetMessageHeaders": [{"name": "Auto-Submitted", "value": "auto-replied"},
                {"name": "References", "value": "<x@y> <z@y>"}, {"name": "Delivered-To", "value": "alias@contoso.nl"}],
            "somethingNew": {"deep": [1, 2]},
            "attachments": [
                {"@odata.type": "#microsoft.graph.fileAttachment", "@odata.mediaContentType": "application/pdf",
                 "id": "a1", "name": "f.pdf", "contentType": "Application/PDF; name=x", "size": 1053, "isInline": false,
                 "contentId": "<c@d>", "contentLocation": null, "contentBytes": "aGVsbG8="},
                {"@odata.type": "#microsoft.graph.fileAttachment", "id": "a2", "name": null, "contentType": null,
                 "size": -1, "isInline": true, "contentBytes": null},
                {"@odata.type": "#microsoft.graph.itemAttachment", "id": "a3", "name": "De vraag", "contentType": null},
                {"@odata.type": "#microsoft.graph.referenceAttachment", "id": "a4", "name": "b.xlsx", "size": 3,
                 "sourceUrl": "https://contoso.example/b.xlsx"},
                {"id": null, "name": "no id"}, 7
            ]}"##;
        let query = Query::default().with_headers(["auto-submitted"]);
        let message = read(json, &query);
        assert_eq!(message.subject.as_deref(), Some("Factuur"));
        assert_eq!(message.from, Some(Address::new("bar@b.example").with_name("Bar")));
        assert_eq!(message.sender, Some(Address::new("bar@b.example")));
        assert_eq!(message.to, [Address::new("info@contoso.nl")]);
        assert_eq!(message.sent, Some("2026-01-31T09:59:58Z".parse().unwrap()));
        assert!(message.is_automatic && !message.is_bounce && message.is_read);
        assert_eq!(message.references, ["<x@y>", "<z@y>"]);
        assert_eq!(message.delivered_to.as_deref(), Some("alias@contoso.nl"));
        assert_eq!(message.header("Auto-Submitted"), Some("auto-replied"));
        assert_eq!(message.hints.has_attachments, Some(false));
        let [file, missing, item, link] = &message.attachments[..] else { panic!("{:?}", message.attachments) };
        assert_eq!((file.content_type.as_str(), file.content.as_deref()), ("application/pdf", Some(&b"hello"[..])));
        assert_eq!(file.content_id.as_deref(), Some("c@d"));
        assert_eq!((missing.content.as_ref(), missing.size_hint, missing.inline), (None, None, true));
        assert_eq!((item.name.as_deref(), item.content_type.as_str()), (Some("De vraag.eml"), "message/rfc822"));
        assert_eq!(link.url.as_deref(), Some("https://contoso.example/b.xlsx"));
        assert_eq!(link.kind, AttachmentKind::Link);
    }

    #[test]
    fn a_message_with_nothing_but_an_id() {
        let message =
            read(r#"{"id": "x", "isRead": "yes", "subject": 5, "from": {}, "attachments": {}}"#, &Query::default());
        assert_eq!(message.defects(), [Defect::Unreadable]);
        assert!(message.from.is_none() && message.subject.is_none() && message.attachments.is_empty());
    }

    #[test]
    fn a_date_that_exchange_made_up_is_left_out() {
        let json = |headers: &str| {
            format!(
                r#"{{"id":"x","receivedDateTime":"2026-01-31T10:00:00Z","sentDateTime":"2026-01-31T10:00:00Z","internetMessageHeaders":{headers}}}"#
            )
        };
        let bad = read(&json(r#"[{"name":"Date","value":"yesterday"}]"#), &Query::default());
        assert_eq!((bad.sent, bad.defects()), (None, &[Defect::BadDate][..]));
        let none = read(&json("null"), &Query::default());
        assert_eq!(none.sent, Some("2026-01-31T10:00:00Z".parse().unwrap()));
    }

    #[test]
    fn content_comes_along_up_to_a_size() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        assert_eq!(decode(&raw(r#""aGVsbG8=""#), 5).as_deref(), Some(&b"hello"[..]));
        assert_eq!(decode(&raw(r#""aGVsbG8=""#), 4), None);
        assert_eq!(decode(&raw(r#""\/\/\/\/""#), 5).as_deref(), Some(&b"\xff\xff\xff"[..]));
        assert_eq!(decode(&raw(r#""""#), 0).as_deref(), Some(&b""[..]));
        for odd in ["null", "5", r#""%%""#, r#""aGVsbG8""#] {
            assert_eq!(decode(&raw(odd), 100), None, "{odd}");
        }
    }

    #[test]
    fn items_are_named_for_what_they_are() {
        let mut item = Attachment::new(AttachmentId::new("1"), MESSAGE.0);
        for (kind, name) in [
            ("#microsoft.graph.event", "Overleg.ics"),
            ("#microsoft.graph.contact", "Overleg.vcf"),
            ("#microsoft.graph.message", "Overleg.eml"),
            ("#microsoft.graph.eventMessageRequest", "Overleg.eml"),
        ] {
            item.name = Some("Overleg.eml".into());
            look_closer(&mut item, format!(r#"{{"item":{{"@odata.type":"{kind}","id":""}}}}"#).as_bytes());
            assert_eq!(item.name.as_deref(), Some(name));
        }
        look_closer(&mut item, b"<html>");
        assert_eq!(item.name.as_deref(), Some("Overleg.eml"));
    }

    #[test]
    fn times_have_fractions_or_no_zone() {
        let expected: Timestamp = "2018-08-12T08:43:22Z".parse().unwrap();
        assert_eq!(timestamp("2018-08-12T08:43:22Z"), Some(expected));
        assert_eq!(timestamp("2018-08-12T08:43:22.0000000Z"), Some(expected));
        assert_eq!(timestamp("2018-08-12T08:43:22"), Some(expected));
        assert_eq!(timestamp("soon"), None);
    }
}
