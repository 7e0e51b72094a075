//! MIME into the item that Exchange keeps, and the item back into MIME.
//!
//! Exchange does not keep the bytes that arrived: it takes a message apart on delivery and makes
//! MIME anew when asked for `$value`. What it changes on the way is in [`Rendering`], each change
//! with a switch of its own. The decoders here are the fake's own on purpose: a mistake in the
//! library's must not be repeated by what tests it.

use super::content::{Body, Content, mix};
use super::tnef;
use bytes::Bytes;
use mail_parser::{MessageParser, MimeHeaders, PartType};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What the fake changes in a message as Exchange does. All on by default.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rendering {
    /// The sender's name comes from the directory where the address is known there; the domain is
    /// written in lower case, a missing name becomes the address.
    pub rewrite_sender: bool,
    /// Runs of blanks, tabs and folds in the subject become one blank.
    pub collapse_subject: bool,
    /// A message without Message-ID gets one.
    pub substitute_message_id: bool,
    /// A missing or unreadable Date becomes the time of arrival.
    pub substitute_date: bool,
    /// Scripts, event attributes and the like are taken out of HTML bodies in JSON, unless
    /// `Prefer: outlook.allow-unsafe-html` is sent.
    pub sanitise_html: bool,
    /// Attached messages are made anew, so that their bytes differ from what was sent.
    pub rerender_attached: bool,
    /// `winmail.dat` is opened and its files stand in its place.
    pub open_tnef: bool,
    /// `$value` of a message is made anew; if off, it is the bytes that were delivered.
    pub rerender_message: bool,
    /// Plain text bodies are answered as HTML unless text is asked for. If off they arrive as text
    /// without having been asked for, which clients have reported too.
    pub text_as_html: bool,
}

impl Default for Rendering {
    fn default() -> Self {
        Rendering {
            rewrite_sender: true,
            collapse_subject: true,
            substitute_message_id: true,
            substitute_date: true,
            sanitise_html: true,
            rerender_attached: true,
            open_tnef: true,
            rerender_message: true,
            text_as_html: true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) name: String,
    pub(crate) address: String,
}

#[derive(Clone)]
pub(crate) struct Item {
    /// `None` is a message; meeting mail is an `eventMessage`.
    pub(crate) odata_type: Option<&'static str>,
    pub(crate) subject: Option<String>,
    pub(crate) from: Option<Address>,
    pub(crate) sender: Option<Address>,
    pub(crate) to: Vec<Address>,
    pub(crate) cc: Vec<Address>,
    pub(crate) bcc: Vec<Address>,
    pub(crate) reply_to: Vec<Address>,
    /// Unix seconds.
    pub(crate) sent: Option<i64>,
    pub(crate) internet_message_id: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: Option<String>,
    pub(crate) html: Option<String>,
    pub(crate) importance: &'static str,
    pub(crate) read_receipt: bool,
    pub(crate) attachments: Vec<Attachment>,
    /// The bytes as delivered, where they are still wanted.
    pub(crate) original: Option<Bytes>,
}

#[derive(Clone)]
pub(crate) struct Attachment {
    pub(crate) name: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) content_id: Option<String>,
    pub(crate) inline: bool,
    pub(crate) kind: Kind,
}

#[derive(Clone)]
pub(crate) enum Kind {
    File(Content),
    Message(Arc<Item>),
    /// An event or contact, as iCalendar or vCard.
    Other {
        odata_type: &'static str,
        text: Bytes,
    },
    Reference {
        url: String,
    },
}

impl Attachment {
    /// Length of the decoded content.
    pub(crate) fn content_len(&self) -> u64 {
        match &self.kind {
            Kind::File(content) => content.len(),
            Kind::Message(item) => to_mime(item).len(),
            Kind::Other { text, .. } => text.len() as u64,
            Kind::Reference { .. } => 0,
        }
    }

    /// What Exchange says it is: the properties of the attachment count too, so the figure is
    /// larger than the content.
    pub(crate) fn stated_size(&self) -> u64 {
        match &self.kind {
            // The item is not rendered to count it: this stands in every list.
            Kind::Message(item) => 3000 + item.attachments.iter().map(Self::stated_size).sum::<u64>(),
            Kind::Reference { .. } => 412,
            _ => self.content_len() + 237,
        }
    }
}

impl Item {
    pub(crate) fn has_attachments(&self) -> bool {
        self.attachments.iter().any(|attachment| !attachment.inline)
    }

    /// What the service shows as the size of the whole item (`PidTagMessageSize`).
    pub(crate) fn stated_size(&self) -> u64 {
        4321 + self.text.as_ref().map_or(0, String::len) as u64
            + self.html.as_ref().map_or(0, String::len) as u64
            + self.headers.iter().map(|(name, value)| (name.len() + value.len() + 4) as u64).sum::<u64>()
            + self.attachments.iter().map(Attachment::stated_size).sum::<u64>()
    }

    /// The body as text, whatever it came as.
    pub(crate) fn body_text(&self) -> String {
        match (&self.text, &self.html) {
            (Some(text), _) => text.clone(),
            (None, Some(html)) => mail_parser::decoders::html::html_to_text(html),
            (None, None) => String::new(),
        }
    }
}

/// What the fake knows about addresses: the directory's name and primary address for one.
pub(crate) type Resolve<'a> = &'a dyn Fn(&str) -> Option<Address>;

/// Takes a message apart as Exchange does on delivery.
pub(crate) fn to_item(raw: &Bytes, received: i64, rendering: &Rendering, resolve: Resolve<'_>) -> Item {
    parse(raw, received, rendering, resolve, 0)
}

/// "Nested attachments": 30 levels are supported, what lies deeper stays closed.
const MAX_DEPTH: usize = 30;

fn parse(raw: &Bytes, received: i64, rendering: &Rendering, resolve: Resolve<'_>, depth: usize) -> Item {
    let parsed = MessageParser::default().parse(raw.as_ref());
    let mut item = Item {
        odata_type: None,
        subject: None,
        from: None,
        sender: None,
        to: Vec::new(),
        cc: Vec::new(),
        bcc: Vec::new(),
        reply_to: Vec::new(),
        sent: None,
        internet_message_id: None,
        headers: header_lines(raw),
        text: None,
        html: None,
        importance: "normal",
        read_receipt: false,
        attachments: Vec::new(),
        original: (if depth == 0 { !rendering.rerender_message } else { !rendering.rerender_attached })
            .then(|| raw.clone()),
    };
    let header = |name: &str| {
        item.headers.iter().find(|(candidate, _)| candidate.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    };
    let importance = header("Importance").or_else(|| header("X-Priority"));
    item.importance = match importance.as_deref().map(str::trim) {
        Some(value) if value.eq_ignore_ascii_case("high") || value.starts_with('1') => "high",
        Some(value) if value.eq_ignore_ascii_case("low") || value.starts_with('5') => "low",
        _ => "normal",
    };
    item.read_receipt = header("Disposition-Notification-To").is_some();
    item.internet_message_id =
        header("Message-ID").map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    if item.internet_message_id.is_none() && rendering.substitute_message_id {
        let digest = Sha256::digest(raw);
        let number = u64::from_be_bytes(digest[..8].try_into().expect("eight bytes"));
        item.internet_message_id =
            Some(format!("<{:012X}{:016X}@FAKEPR01MB0001.eurprd01.prod.exchangelabs.com>", mix(number) >> 16, number));
    }
    let Some(parsed) = parsed else {
        item.sent = rendering.substitute_date.then_some(received);
        return item;
    };
    item.sent = parsed
        .date()
        .filter(|date| date.is_valid() && date.year >= 1970)
        .map(mail_parser::DateTime::to_timestamp)
        .or(rendering.substitute_date.then_some(received));
    item.subject = parsed.subject().map(|subject| {
        if rendering.collapse_subject {
            subject.split_whitespace().collect::<Vec<_>>().join(" ")
        } else {
            subject.to_owned()
        }
    });
    let list = |addresses: Option<&mail_parser::Address<'_>>| -> Vec<Address> {
        addresses
            .into_iter()
            .flat_map(mail_parser::Address::iter)
            .filter_map(|entry| {
                let address = entry.address.as_deref().unwrap_or_default().to_owned();
                let name = entry.name.as_deref().unwrap_or_default().to_owned();
                (!address.is_empty() || !name.is_empty()).then_some(Address { name, address })
            })
            .map(|address| canonical(address, rendering, resolve))
            .collect()
    };
    // Exchange keeps one author, whatever the header lists.
    item.from = list(parsed.from()).into_iter().next();
    item.sender = list(parsed.sender()).into_iter().next().or_else(|| item.from.clone());
    item.to = list(parsed.to());
    item.cc = list(parsed.cc());
    item.bcc = list(parsed.bcc());
    item.reply_to = list(parsed.reply_to());

    if is_signed(&parsed) {
        // A clear-signed message is kept whole, as one file.
        let root = parsed.root_part();
        let start = root.raw_body_offset() as usize;
        let mut file = Vec::new();
        for (name, value) in &item.headers {
            if name.to_ascii_lowercase().starts_with("content-") {
                file.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
        }
        file.extend_from_slice(b"\r\n");
        file.extend_from_slice(&raw[start.min(raw.len())..]);
        item.attachments.push(Attachment {
            name: Some("smime.p7m".into()),
            content_type: Some("multipart/signed".into()),
            content_id: None,
            inline: false,
            kind: Kind::File(Content::Stored(file.into())),
        });
        return item;
    }
    let mut walk = Walk { raw, parsed: &parsed, received, rendering, resolve, depth, item: &mut item };
    walk.part(0, false);
    item
}

fn is_signed(parsed: &mail_parser::Message<'_>) -> bool {
    let root = parsed.root_part();
    root.is_content_type("multipart", "signed")
        && root
            .content_type()
            .and_then(|content_type| content_type.attribute("protocol"))
            .is_some_and(|protocol| protocol.contains("pkcs7"))
}

fn canonical(mut address: Address, rendering: &Rendering, resolve: Resolve<'_>) -> Address {
    if !rendering.rewrite_sender {
        return address;
    }
    if let Some(known) = resolve(&address.address) {
        return known;
    }
    if let Some((local, domain)) = address.address.rsplit_once('@') {
        address.address = format!("{local}@{}", domain.to_lowercase());
    }
    address.name = address
        .name
        .trim_matches(|c: char| c == '\'' || c == '"' || c.is_whitespace())
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    if address.name.is_empty() {
        address.name.clone_from(&address.address);
    }
    address
}

/// The header lines, unfolded, in their order and with their repetitions.
fn header_lines(raw: &[u8]) -> Vec<(String, String)> {
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut rest = raw;
    loop {
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let line = String::from_utf8_lossy(&rest[..end]);
        let line = line.trim_end_matches(['\r', '\n']);
        rest = &rest[end..];
        if line.is_empty() {
            return lines;
        }
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = lines.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            lines.push((name.trim_end().to_owned(), value.trim().to_owned()));
        }
        if rest.is_empty() {
            return lines;
        }
    }
}

struct Walk<'a> {
    raw: &'a Bytes,
    parsed: &'a mail_parser::Message<'a>,
    received: i64,
    rendering: &'a Rendering,
    resolve: Resolve<'a>,
    depth: usize,
    item: &'a mut Item,
}

impl Walk<'_> {
    fn part(&mut self, id: u32, related: bool) {
        let parsed = self.parsed;
        let Some(part) = parsed.part(id) else {
            return;
        };
        if let Some(children) = part.sub_parts() {
            let related = related || part.is_content_type("multipart", "related");
            for child in children {
                self.part(*child, related);
            }
            return;
        }
        let name = part.attachment_name().map(|name| match name.contains('\u{fffd}') {
            true => self.mended_name(part).unwrap_or_else(|| name.to_owned()),
            false => name.to_owned(),
        });
        let attached = part.content_disposition().is_some_and(|disposition| disposition.is_attachment());
        let content_type = part.content_type().map(|content_type| {
            match content_type.subtype() {
                Some(subtype) => format!("{}/{subtype}", content_type.ctype()),
                None => content_type.ctype().to_owned(),
            }
            .to_ascii_lowercase()
        });
        if !attached && name.is_none() {
            match &part.body {
                PartType::Text(text) if self.item.text.is_none() => {
                    self.item.text = Some(text.to_string());
                    return;
                }
                PartType::Html(html) if self.item.html.is_none() => {
                    self.item.html = Some(html.to_string());
                    return;
                }
                _ => {}
            }
        }
        let content = self.decoded(part);
        let is_message = content_type.as_deref() == Some("message/rfc822");
        if is_message && self.depth < MAX_DEPTH {
            let inner = parse(&content, self.received, self.rendering, self.resolve, self.depth + 1);
            self.item.attachments.push(Attachment {
                // An attached item is named by its subject, without `.eml`.
                name: inner.subject.clone().or(name),
                content_type: None,
                content_id: None,
                inline: false,
                kind: Kind::Message(Arc::new(inner)),
            });
            return;
        }
        let winmail = content_type.as_deref() == Some("application/ms-tnef")
            || name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case("winmail.dat"));
        if winmail
            && self.rendering.open_tnef
            && let Some(opened) = tnef::open(&content)
        {
            for file in opened.files {
                self.item.attachments.push(Attachment {
                    name: Some(file.name),
                    content_type: Some("application/octet-stream".into()),
                    content_id: None,
                    inline: false,
                    kind: Kind::File(Content::Stored(file.bytes.into())),
                });
            }
            if self.item.text.is_none() {
                self.item.text = opened.body;
            }
            return;
        }
        if content_type.as_deref() == Some("text/calendar") && self.item.odata_type.is_none() {
            self.item.odata_type = Some("#microsoft.graph.eventMessageRequest");
        }
        let content_id = part.content_id().map(|id| id.trim_matches(['<', '>']).to_owned());
        let inline = !attached
            && (part.content_disposition().is_some_and(|disposition| disposition.is_inline())
                || (related && content_id.is_some()));
        self.item.attachments.push(Attachment {
            name,
            content_type: content_type.or_else(|| Some("application/octet-stream".into())),
            content_id,
            inline,
            kind: Kind::File(Content::Stored(content)),
        });
    }

    /// The exact bytes of a part. Not the parser's text, which has gone through a character set.
    /// A file name that the parser could not decode: its pieces (RFC 2231) are cut inside a character, or it is raw bytes
    /// that are no UTF-8, which are Windows-1252 then.
    fn mended_name(&self, part: &mail_parser::MessagePart<'_>) -> Option<String> {
        let end = (part.raw_body_offset() as usize).min(self.raw.len());
        let head = self.raw.get(part.raw_header_offset() as usize..end)?;
        // One byte a character, so that nothing is lost before the charset is known.
        let head: String =
            head.iter().map(|byte| if byte.is_ascii_whitespace() { ' ' } else { char::from(*byte) }).collect();
        let lower = head.to_ascii_lowercase();
        let (mut bytes, mut piece) = (Vec::new(), 0);
        loop {
            let key = ["filename", "name"].into_iter().find_map(|name| {
                let forms = match piece {
                    0 => vec![format!("{name}*0*="), format!("{name}*0="), format!("{name}*="), format!("{name}=")],
                    _ => vec![format!("{name}*{piece}*="), format!("{name}*{piece}=")],
                };
                forms.into_iter().find_map(|form| Some((lower.find(&form)? + form.len(), form.ends_with("*="))))
            });
            let Some((at, extended)) = key else { break };
            let value = head[at..].trim_start();
            let value = match value.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next()?,
                None => value.split([';', ' ']).next()?,
            };
            let value = if extended && piece == 0 { value.splitn(3, '\'').last()? } else { value };
            let raw: Vec<u8> = value.chars().filter(|c| *c != '\\').map(|c| c as u8).collect();
            match extended {
                true => bytes.extend(percent_encoding::percent_decode(&raw)),
                false => bytes.extend(raw),
            }
            piece += 1;
        }
        let text = String::from_utf8(bytes);
        let text = text.unwrap_or_else(|e| encoding_rs::WINDOWS_1252.decode(e.as_bytes()).0.into_owned());
        (!text.is_empty()).then_some(text)
    }

    fn decoded(&self, part: &mail_parser::MessagePart<'_>) -> Bytes {
        let start = (part.raw_body_offset() as usize).min(self.raw.len());
        let end = (part.raw_end_offset() as usize).clamp(start, self.raw.len());
        let encoding = part.content_transfer_encoding().map(|encoding| encoding.trim().to_ascii_lowercase());
        match encoding.as_deref() {
            Some("base64") => decode_base64(&self.raw[start..end]).into(),
            Some("quoted-printable") => decode_quoted_printable(&self.raw[start..end]).into(),
            _ => self.raw.slice(start..end),
        }
    }
}

/// Base64 as mail carries it: line ends and whatever else does not belong are passed over.
fn decode_base64(text: &[u8]) -> Vec<u8> {
    // Nearly all of it is well-formed but for line ends, and is decoded at once.
    if let Ok(bytes) = base64_simd::forgiving_decode_to_vec(text) {
        return bytes;
    }
    let mut clean: Vec<u8> =
        text.iter().copied().filter(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')).collect();
    if clean.len() % 4 == 1 {
        clean.pop();
    }
    base64_simd::forgiving_decode_to_vec(&clean).unwrap_or_default()
}

fn decode_quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let stripped = line.strip_suffix(b"\n").unwrap_or(line);
        let stripped = stripped.strip_suffix(b"\r").unwrap_or(stripped);
        let ending = &line[stripped.len()..];
        let stripped = stripped.trim_ascii_end();
        let (stripped, soft) = match stripped.strip_suffix(b"=") {
            Some(rest) => (rest, true),
            None => (stripped, false),
        };
        let mut rest = stripped;
        while let Some((&byte, tail)) = rest.split_first() {
            let hex = |at: usize| tail.get(at).and_then(|digit| char::from(*digit).to_digit(16));
            if byte == b'='
                && let (Some(high), Some(low)) = (hex(0), hex(1))
            {
                out.push((high * 16 + low) as u8);
                rest = &tail[2..];
            } else {
                out.push(byte);
                rest = tail;
            }
        }
        if !soft {
            out.extend_from_slice(ending);
        }
    }
    out
}

/// Headers that are written from the item's own fields, or belong to the old structure.
const REWRITTEN: [&str; 15] = [
    "from",
    "sender",
    "to",
    "cc",
    "bcc",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
    "content-id",
    "content-description",
];

/// Makes MIME of an item, as `$value` answers it.
pub(crate) fn to_mime(item: &Item) -> Body {
    if let Some(original) = &item.original {
        return Body::raw(Content::Stored(original.clone()));
    }
    render(item, 0)
}

fn render(item: &Item, depth: usize) -> Body {
    let mut head = String::new();
    for (name, value) in &item.headers {
        if !REWRITTEN.contains(&name.to_ascii_lowercase().as_str()) {
            push_header(&mut head, name, value);
        }
    }
    let mut addresses = |name: &str, list: &[Address]| {
        if !list.is_empty() {
            let list: Vec<String> = list.iter().map(mailbox).collect();
            push_header(&mut head, name, &list.join(",\r\n\t"));
        }
    };
    addresses("From", item.from.as_slice());
    if item.sender != item.from {
        addresses("Sender", item.sender.as_slice());
    }
    addresses("To", &item.to);
    addresses("CC", &item.cc);
    addresses("Bcc", &item.bcc);
    addresses("Reply-To", &item.reply_to);
    if let Some(subject) = &item.subject {
        push_header(&mut head, "Subject", &encode_word(subject));
    }
    if let Some(sent) = item.sent.and_then(|sent| jiff::Timestamp::from_second(sent).ok()) {
        let date = jiff::fmt::rfc2822::to_string(&sent.to_zoned(jiff::tz::TimeZone::UTC));
        push_header(&mut head, "Date", &date.unwrap_or_default());
    }
    if let Some(id) = &item.internet_message_id {
        push_header(&mut head, "Message-ID", id);
    }
    head.push_str("X-MS-Has-Attach: ");
    head.push_str(if item.has_attachments() { "yes\r\n" } else { "\r\n" });
    head.push_str("MIME-Version: 1.0\r\n");

    let inline: Vec<&Attachment> = item.attachments.iter().filter(|a| a.inline).collect();
    let files: Vec<&Attachment> = item.attachments.iter().filter(|a| !a.inline).collect();
    let boundary = |level: &str| format!("_{level}{depth:02}_{:016x}_", mix(item.stated_size()));

    let mut body = bodies(item, &boundary("001"));
    if !inline.is_empty() {
        body = multipart("related", &boundary("002"), body, &inline, depth);
    }
    if !files.is_empty() {
        body = multipart("mixed", &boundary("003"), body, &files, depth);
    }
    let mut whole = Body::default();
    whole.push(head);
    whole.append(body);
    whole
}

/// Each of the following functions writes a part from its `Content-Type` line on.
fn bodies(item: &Item, boundary: &str) -> Body {
    match (&item.text, &item.html) {
        (Some(text), Some(html)) => {
            let mut body = Body::default();
            body.push(format!("Content-Type: multipart/alternative; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n"));
            body.append(text_part("plain", text));
            body.push(format!("\r\n--{boundary}\r\n"));
            body.append(text_part("html", html));
            body.push(format!("\r\n--{boundary}--\r\n"));
            body
        }
        (None, Some(html)) => text_part("html", html),
        (text, None) => text_part("plain", text.as_deref().unwrap_or_default()),
    }
}

fn text_part(subtype: &str, text: &str) -> Body {
    let mut body = Body::default();
    body.push(format!("Content-Type: text/{subtype}; charset=\"utf-8\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"));
    body.push_base64_lines(Content::Stored(text.to_owned().into()));
    body
}

fn multipart(subtype: &str, boundary: &str, first: Body, attachments: &[&Attachment], depth: usize) -> Body {
    let mut body = Body::default();
    body.push(format!("Content-Type: multipart/{subtype}; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n"));
    body.append(first);
    for attachment in attachments {
        body.push(format!("\r\n--{boundary}\r\n"));
        body.append(attachment_part(attachment, depth));
    }
    body.push(format!("\r\n--{boundary}--\r\n"));
    body
}

fn attachment_part(attachment: &Attachment, depth: usize) -> Body {
    let name = attachment.name.as_deref().unwrap_or_default();
    let name = encode_word(&name.replace(['"', '\\', '\r', '\n'], "_"));
    let disposition = if attachment.inline { "inline" } else { "attachment" };
    let mut body = Body::default();
    match &attachment.kind {
        Kind::File(content) => {
            let content_type = attachment.content_type.as_deref().unwrap_or("application/octet-stream");
            let mut head = format!(
                "Content-Type: {content_type}; name=\"{name}\"\r\nContent-Disposition: {disposition}; filename=\"{name}\"\r\n"
            );
            if let Some(id) = &attachment.content_id {
                head.push_str(&format!("Content-ID: <{id}>\r\n"));
            }
            head.push_str("Content-Transfer-Encoding: base64\r\n\r\n");
            body.push(head);
            body.push_base64_lines(content.clone());
        }
        Kind::Message(item) => {
            body.push("Content-Type: message/rfc822\r\nContent-Disposition: attachment\r\n\r\n");
            body.append(match &item.original {
                Some(original) => Body::raw(Content::Stored(original.clone())),
                None => render(item, depth + 1),
            });
        }
        Kind::Other { odata_type, text } => {
            let content_type = if odata_type.ends_with("event") {
                "text/calendar; charset=utf-8"
            } else {
                "text/vcard; charset=utf-8"
            };
            body.push(format!(
                "Content-Type: {content_type}\r\nContent-Disposition: attachment; filename=\"{name}\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            ));
            body.push_base64_lines(Content::Stored(text.clone()));
        }
        Kind::Reference { url } => {
            body.push(format!(
                "Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: attachment; filename=\"{name}.url\"\r\n\r\n{url}\r\n"
            ));
        }
    }
    body
}

fn mailbox(address: &Address) -> String {
    if address.name.is_empty() {
        return format!("<{}>", address.address);
    }
    if address.name.is_ascii() {
        let name = address.name.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{name}\" <{}>", address.address)
    } else {
        format!("{} <{}>", encode_word(&address.name), address.address)
    }
}

/// RFC 2047, 45 bytes a word at most so that each stays under 75 characters.
fn encode_word(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    let mut words = Vec::new();
    let mut piece = String::new();
    for letter in text.chars() {
        if piece.len() + letter.len_utf8() > 42 {
            words.push(std::mem::take(&mut piece));
        }
        piece.push(letter);
    }
    words.push(piece);
    words
        .iter()
        .map(|word| format!("=?utf-8?B?{}?=", base64_simd::STANDARD.encode_to_string(word)))
        .collect::<Vec<_>>()
        .join("\r\n ")
}

fn push_header(head: &mut String, name: &str, value: &str) {
    head.push_str(name);
    head.push_str(": ");
    head.push_str(value);
    head.push_str("\r\n");
}

/// HTML as the service shows it: no scripts, no frames, no event attributes ("user.message:
/// outlook.allow-unsafe-html" describes the switch).
pub(crate) fn sanitise(html: &str) -> String {
    const DROPPED: [&str; 6] = ["script", "iframe", "object", "embed", "applet", "form"];
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    let mut inside: Option<&str> = None;
    while let Some(open) = rest.find('<') {
        if inside.is_none() {
            out.push_str(&rest[..open]);
        }
        let tag = &rest[open..];
        let close = tag.find('>').map_or(tag.len(), |at| at + 1);
        let (tag, tail) = tag.split_at(close);
        rest = tail;
        let name: String = tag[1..]
            .trim_start_matches('/')
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect::<String>()
            .to_ascii_lowercase();
        if let Some(element) = inside {
            if tag.starts_with("</") && name == element {
                inside = None;
            }
            continue;
        }
        if let Some(element) = DROPPED.iter().find(|dropped| **dropped == name) {
            // Only a script's text goes with its tags; what stands in a form stays readable.
            if *element == "script" && !tag.starts_with("</") && !tag.ends_with("/>") {
                inside = Some(element);
            }
            continue;
        }
        out.push_str(&without_events(tag));
    }
    if inside.is_none() {
        out.push_str(rest);
    }
    const META: &str = "<meta http-equiv=\"Content-Type\" content=\"text/html; charset=utf-8\">";
    if out.contains("<head>") {
        out.replacen("<head>", &format!("<head>\r\n{META}"), 1)
    } else if out.contains("<html>") {
        out.replacen("<html>", &format!("<html><head>\r\n{META}</head>"), 1)
    } else {
        format!("<html><head>\r\n{META}</head><body>{out}</body></html>")
    }
}

fn without_events(tag: &str) -> String {
    let lower = tag.to_ascii_lowercase();
    if !lower.contains(" on") && !lower.contains("javascript:") {
        return tag.to_owned();
    }
    let mut out = String::new();
    let mut rest = tag;
    while let Some(at) = rest.find(char::is_whitespace) {
        out.push_str(&rest[..at]);
        let attribute = rest[at..].trim_start();
        let name_end = attribute.find(['=', '>', ' ', '/']).unwrap_or(attribute.len());
        let mut end = name_end;
        if attribute[name_end..].starts_with('=') {
            let value = &attribute[name_end + 1..];
            let length = match value.chars().next() {
                Some(quote @ ('"' | '\'')) => value[1..].find(quote).map_or(value.len(), |at| at + 2),
                _ => value.find([' ', '>']).unwrap_or(value.len()),
            };
            end = name_end + 1 + length;
        }
        let whole = &attribute[..end];
        let lower = whole.to_ascii_lowercase();
        if !lower.starts_with("on") && !lower.contains("javascript:") {
            out.push(' ');
            out.push_str(whole);
        }
        rest = &attribute[end..];
        if end == 0 {
            break;
        }
    }
    out.push_str(rest);
    out
}

/// A plain text body in the HTML that the service makes of it.
pub(crate) fn text_to_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 200);
    for line in text.lines() {
        for letter in line.chars() {
            match letter {
                '<' => escaped.push_str("&lt;"),
                '>' => escaped.push_str("&gt;"),
                '&' => escaped.push_str("&amp;"),
                other => escaped.push(other),
            }
        }
        escaped.push_str("<br>\r\n");
    }
    format!(
        "<html><head>\r\n<meta http-equiv=\"Content-Type\" content=\"text/html; charset=utf-8\"></head><body><div class=\"PlainText\">{escaped}</div></body></html>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(mime: &str) -> Item {
        to_item(&Bytes::from(mime.replace('\n', "\r\n")), 1_700_000_000, &Rendering::default(), &|_| None)
    }

    #[test]
    fn mime_survives_the_way_through_the_store() {
        let source = "From: \"A\" <a@Example.ORG>\nTo: b@example.org\nSubject: Rekening   \u{20ac}\n 12\nDate: Mon, 02 Mar 2026 10:00:00 +0100\nMessage-ID: <1@x>\nContent-Type: multipart/mixed; boundary=q\n\n--q\nContent-Type: text/plain\n\nhello\n--q\nContent-Type: text/csv; name=\"a.csv\"\nContent-Disposition: attachment; filename=\"a.csv\"\nContent-Transfer-Encoding: quoted-printable\n\na;b=3D\n1;2\n--q\nContent-Type: message/rfc822\n\nSubject: inner\nFrom: c@example.org\n\ntext\n--q--\n";
        let first = item(source);
        assert_eq!(first.from.as_ref().unwrap().address, "a@example.org");
        assert_eq!(first.attachments.len(), 2);
        assert_eq!(first.attachments[1].name.as_deref(), Some("inner"));
        let Kind::File(content) = &first.attachments[0].kind else {
            panic!("a file");
        };
        assert_eq!(content.to_bytes(), "a;b=\r\n1;2".as_bytes());
        let again = to_item(&to_mime(&first).to_bytes().into(), 0, &Rendering::default(), &|_| None);
        assert_eq!(again.subject, first.subject);
        assert_eq!(again.sent, first.sent);
        assert_eq!(again.internet_message_id.as_deref(), Some("<1@x>"));
        assert_eq!(again.attachments.len(), 2);
        let Kind::File(content) = &again.attachments[0].kind else {
            panic!("a file");
        };
        assert_eq!(content.to_bytes(), "a;b=\r\n1;2".as_bytes());
    }

    #[test]
    fn html_is_made_harmless() {
        let safe = sanitise(
            "<html><head></head><body onload=\"x()\" class='a'><script>evil()</script><a href=\"javascript:y\">b</a></body></html>",
        );
        assert!(!safe.contains("evil") && !safe.contains("onload") && !safe.contains("javascript"));
        assert!(safe.contains("class='a'") && safe.contains(">b</a>"), "{safe}");
    }
}
