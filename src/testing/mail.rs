//! [`mail`]: messages for tests, as RFC 5322.

use std::fmt::Write as _;

use bytes::Bytes;
use jiff::{Timestamp, tz::TimeZone};
use sha2::{Digest as _, Sha256};

use crate::Address;

/// Starts a believable message: a Dutch supplier's invoice without attachments, of 31 January 2026.
///
/// The same calls make the same bytes, so that a message can be delivered twice; other calls make another
/// `Message-ID`, unless one is set.
///
/// ```
/// use mail_account::testing::mail;
/// let bytes = mail().with_subject("Factuur 12").with_attachment("factuur.pdf", "%PDF-1.4").build();
/// let text = std::str::from_utf8(&bytes).expect("ASCII");
/// assert!(text.contains("Subject: Factuur 12\r\n"));
/// ```
#[must_use]
pub fn mail() -> Mail {
    let at = Timestamp::constant(1_769_860_800, 0);
    Mail {
        subject: Some("Factuur 2026-0001".to_owned()),
        from: Some(Address::new("verkoop@leverancier.example").with_name("Leverancier BV")),
        to: vec![Address::new("facturen@contoso.nl")],
        cc: Vec::new(),
        reply_to: Vec::new(),
        message_id: Id::Made,
        date: Some(at),
        received: at,
        text: Some("Bijgaand onze factuur.\r\n".to_owned()),
        html: None,
        headers: Vec::new(),
        parts: Vec::new(),
    }
}

/// A message for tests; see [`mail`].
#[derive(Clone, Debug)]
pub struct Mail {
    subject: Option<String>,
    from: Option<Address>,
    to: Vec<Address>,
    cc: Vec<Address>,
    reply_to: Vec<Address>,
    message_id: Id,
    date: Option<Timestamp>,
    received: Timestamp,
    text: Option<String>,
    html: Option<String>,
    headers: Vec<(String, String)>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Id {
    Made,
    Given(String),
    Absent,
}

#[derive(Clone, Debug)]
struct Part {
    name: Option<String>,
    content_type: String,
    content_id: Option<String>,
    content: Inside,
}

#[derive(Clone, Debug)]
enum Inside {
    File(Bytes),
    Mail(Box<Mail>),
}

impl Mail {
    /// Sets the subject.
    #[must_use]
    pub fn with_subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Sets the writer.
    #[must_use]
    pub fn with_from(mut self, from: Address) -> Self {
        self.from = Some(from);
        self
    }

    /// Sets the recipients.
    #[must_use]
    pub fn with_to(mut self, to: impl IntoIterator<Item = Address>) -> Self {
        self.to = to.into_iter().collect();
        self
    }

    /// Sets the copy recipients.
    #[must_use]
    pub fn with_cc(mut self, cc: impl IntoIterator<Item = Address>) -> Self {
        self.cc = cc.into_iter().collect();
        self
    }

    /// Sets where answers should go.
    #[must_use]
    pub fn with_reply_to(mut self, reply_to: impl IntoIterator<Item = Address>) -> Self {
        self.reply_to = reply_to.into_iter().collect();
        self
    }

    /// Sets the `Message-ID`, with or without angle brackets; or leaves it out with `None`.
    #[must_use]
    pub fn with_message_id<'a>(mut self, id: impl Into<Option<&'a str>>) -> Self {
        self.message_id = match id.into() {
            Some(id) => Id::Given(format!("<{}>", id.trim_start_matches('<').trim_end_matches('>'))),
            None => Id::Absent,
        };
        self
    }

    /// Sets the `Date` header, or leaves it out with `None`. What says when the mailbox gets it stays.
    #[must_use]
    pub fn with_date(mut self, date: impl Into<Option<Timestamp>>) -> Self {
        self.date = date.into();
        self
    }

    /// Sets when the mailbox gets it.
    #[must_use]
    pub fn with_received(mut self, received: Timestamp) -> Self {
        self.received = received;
        self
    }

    /// Sets the plain text.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Adds an HTML text beside the plain one.
    #[must_use]
    pub fn with_html(mut self, html: impl Into<String>) -> Self {
        self.html = Some(html.into());
        self
    }

    /// Adds a header as it is. The value must be ASCII and may be folded.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Attaches a file; its type follows from the name.
    #[must_use]
    pub fn with_attachment(self, name: impl Into<String>, content: impl Into<Bytes>) -> Self {
        let name = name.into();
        let content_type = match name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).as_deref() {
            Some("pdf") => "application/pdf",
            Some("xml") => "application/xml",
            Some("png") => "image/png",
            Some("txt") => "text/plain",
            Some("csv") => "text/csv",
            _ => "application/octet-stream",
        };
        self.with_file(Some(name), content_type, content)
    }

    /// Attaches a file of this type, with or without a name.
    #[must_use]
    pub fn with_file(
        mut self,
        name: impl Into<Option<String>>,
        content_type: impl Into<String>,
        content: impl Into<Bytes>,
    ) -> Self {
        self.parts.push(Part {
            name: name.into(),
            content_type: content_type.into(),
            content_id: None,
            content: Inside::File(content.into()),
        });
        self
    }

    /// Adds an image that the HTML text shows by its content id.
    #[must_use]
    pub fn with_inline_image(
        mut self,
        name: impl Into<String>,
        content_id: impl Into<String>,
        content: impl Into<Bytes>,
    ) -> Self {
        self.parts.push(Part {
            name: Some(name.into()),
            content_type: "image/png".to_owned(),
            content_id: Some(content_id.into()),
            content: Inside::File(content.into()),
        });
        self
    }

    /// Attaches a whole message.
    #[must_use]
    pub fn with_attached_mail(mut self, mail: Self) -> Self {
        self.parts.push(Part {
            name: None,
            content_type: "message/rfc822".to_owned(),
            content_id: None,
            content: Inside::Mail(Box::new(mail)),
        });
        self
    }

    /// When the mailbox gets it.
    #[must_use]
    pub fn received(&self) -> Timestamp {
        self.received
    }

    /// The subject.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// The `Date` header.
    #[must_use]
    pub fn date(&self) -> Option<Timestamp> {
        self.date
    }

    /// The writer.
    #[must_use]
    pub fn from(&self) -> Option<&Address> {
        self.from.as_ref()
    }

    /// The recipients.
    #[must_use]
    pub fn to(&self) -> &[Address] {
        &self.to
    }

    /// The `Message-ID` with its angle brackets.
    #[must_use]
    pub fn message_id(&self) -> Option<String> {
        match &self.message_id {
            Id::Given(id) => Some(id.clone()),
            Id::Absent => None,
            Id::Made => {
                let rest = Self { message_id: Id::Absent, ..self.clone() }.build();
                Some(format!("<{}@leverancier.example>", hex(&Sha256::digest(&rest)[..8])))
            }
        }
    }

    /// The attached files, inline ones included, attached messages not: name and bytes.
    #[must_use]
    pub fn files(&self) -> Vec<(Option<&str>, Bytes)> {
        self.parts
            .iter()
            .filter_map(|part| match &part.content {
                Inside::File(bytes) => Some((part.name.as_deref(), bytes.clone())),
                Inside::Mail(_) => None,
            })
            .collect()
    }

    /// The message as RFC 5322, with CRLF.
    #[must_use]
    pub fn build(&self) -> Bytes {
        let mut raw = String::new();
        let mut header = |name: &str, value: &str| {
            let _ = write!(raw, "{name}: {value}\r\n");
        };
        if let Some(date) = self.date {
            header("Date", &date.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S +0000").to_string());
        }
        for (name, addresses) in [
            ("From", self.from.as_slice()),
            ("To", self.to.as_slice()),
            ("Cc", self.cc.as_slice()),
            ("Reply-To", self.reply_to.as_slice()),
        ] {
            if !addresses.is_empty() {
                header(name, &addresses.iter().map(mailbox).collect::<Vec<_>>().join(",\r\n "));
            }
        }
        if let Some(subject) = &self.subject {
            header("Subject", &words(subject));
        }
        if let Some(id) = self.message_id() {
            header("Message-ID", &id);
        }
        for (name, value) in &self.headers {
            header(name, value);
        }
        header("MIME-Version", "1.0");
        raw += &self.body();
        raw.into()
    }

    /// The headers of the body and the body.
    fn body(&self) -> String {
        let text = self.text.as_deref().map(|text| leaf("text/plain; charset=utf-8", &[], text.as_bytes()));
        let html = self.html.as_deref().map(|html| leaf("text/html; charset=utf-8", &[], html.as_bytes()));
        let (inline, attached): (Vec<_>, Vec<_>) = self.parts.iter().partition(|part| part.content_id.is_some());
        let shown = together("alternative", [text, html].into_iter().flatten().collect());
        let related = together("related", shown.into_iter().chain(inline.into_iter().map(Part::build)).collect());
        let mixed = together("mixed", related.into_iter().chain(attached.into_iter().map(Part::build)).collect());
        mixed.unwrap_or_else(|| leaf("text/plain", &[], b""))
    }
}

impl Part {
    fn build(&self) -> String {
        let disposition = match (&self.content_id, &self.name) {
            (Some(_), name) => format!("inline{}", parameter("filename", name.as_deref())),
            (None, name) => format!("attachment{}", parameter("filename", name.as_deref())),
        };
        let mut headers = vec![("Content-Disposition", disposition)];
        if let Some(id) = &self.content_id {
            headers.push(("Content-ID", format!("<{id}>")));
        }
        match &self.content {
            Inside::File(bytes) => leaf(&self.content_type, &headers, bytes),
            Inside::Mail(mail) => {
                // RFC 2046, section 5.2.1: a message is attached as it is.
                let inner = mail.build();
                format!(
                    "Content-Type: message/rfc822\r\nContent-Disposition: attachment\r\n\r\n{}",
                    String::from_utf8_lossy(&inner)
                )
            }
        }
    }
}

/// One part by itself, or several in a multipart; its boundary follows from what is in it.
fn together(subtype: &str, parts: Vec<String>) -> Option<String> {
    if parts.len() < 2 {
        return parts.into_iter().next();
    }
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let boundary = format!("=_{}", hex(&hash.finalize()[..12]));
    let mut all = format!("Content-Type: multipart/{subtype}; boundary=\"{boundary}\"\r\n\r\n");
    for part in parts {
        let _ = write!(all, "--{boundary}\r\n{part}\r\n");
    }
    let _ = write!(all, "--{boundary}--\r\n");
    Some(all)
}

fn leaf(content_type: &str, headers: &[(&str, String)], bytes: &[u8]) -> String {
    let mut part = format!("Content-Type: {content_type}\r\n");
    for (name, value) in headers {
        let _ = write!(part, "{name}: {value}\r\n");
    }
    if content_type.starts_with("text/") && headers.is_empty() && plain(bytes) {
        let _ = write!(part, "Content-Transfer-Encoding: 7bit\r\n\r\n{}", String::from_utf8_lossy(bytes));
        return part;
    }
    part += "Content-Transfer-Encoding: base64\r\n\r\n";
    // 57 bytes make a line of 76 characters (RFC 2045, section 6.8).
    for line in bytes.chunks(57) {
        part += &base64_simd::STANDARD.encode_to_string(line);
        part += "\r\n";
    }
    part
}

/// Whether bytes may stand in a message as they are: ASCII, lines that end in CRLF and are not too long.
fn plain(bytes: &[u8]) -> bool {
    bytes.is_ascii()
        && !bytes.contains(&0)
        && bytes.split(|b| *b == b'\n').rev().skip(1).all(|line| line.last() == Some(&b'\r') && line.len() < 900)
}

fn mailbox(address: &Address) -> String {
    match &address.name {
        Some(name) if name.is_ascii() => {
            format!("\"{}\" <{}>", name.replace('\\', r"\\").replace('"', "\\\""), address.address)
        }
        Some(name) => format!("{} <{}>", words(name), address.address),
        None => address.address.clone(),
    }
}

/// Encoded words (RFC 2047) where they are needed: at most 75 characters each, never splitting a character.
fn words(text: &str) -> String {
    if text.is_ascii() && text.len() < 900 && !text.contains("=?") {
        return text.to_owned();
    }
    let mut words: Vec<String> = vec![String::new()];
    for c in text.chars() {
        if words.last().is_none_or(|word| word.len() + c.len_utf8() > 45) {
            words.push(String::new());
        }
        words.last_mut().expect("never empty").push(c);
    }
    let encoded = words.iter().map(|word| format!("=?UTF-8?B?{}?=", base64_simd::STANDARD.encode_to_string(word)));
    encoded.collect::<Vec<_>>().join("\r\n ")
}

/// A parameter of a header, after RFC 2231 where the value is not ASCII or long.
fn parameter(name: &str, value: Option<&str>) -> String {
    let Some(value) = value else { return String::new() };
    if value.is_ascii() && value.len() <= 60 && !value.contains(|c: char| c.is_control()) {
        return format!("; {name}=\"{}\"", value.replace('\\', r"\\").replace('"', "\\\""));
    }
    let octets: Vec<String> = value
        .bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-._".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect();
    let mut out = String::new();
    for (n, section) in octets.chunks(20).enumerate() {
        let charset = if n == 0 { "utf-8''" } else { "" };
        let _ = write!(out, ";\r\n {name}*{n}*={charset}{}", section.concat());
    }
    out
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use mail_parser::{MessageParser, MimeHeaders as _};

    use super::*;

    #[test]
    fn an_independent_parser_reads_what_was_meant() {
        let pdf: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let long = "Rekening voor geleverde diensten en materialen – januari 2026 (definitief) € 1.234,56.pdf";
        let mail = mail()
            .with_subject("Geëxporteerde facturen: een onderwerp dat over de regel heen gaat – en verder")
            .with_from(Address::new("a@b.example").with_name("Café \"De Hoek\""))
            .with_cc([Address::new("c@d.example").with_name("O'Neil, \"Pat\"")])
            .with_html("<p><img src=\"cid:logo@x\"></p>")
            .with_inline_image("logo.png", "logo@x", "png")
            .with_attachment(long, pdf.clone())
            .with_attached_mail(super::mail().with_subject("Doorgestuurd").with_attachment("in.pdf", "inner"));
        let raw = mail.build();
        assert!(raw.split(|b| *b == b'\n').rev().skip(1).all(|line| line.ends_with(b"\r") && line.len() < 999));
        let read = MessageParser::default().parse(&raw[..]).unwrap();
        assert_eq!(read.subject(), mail.subject());
        assert_eq!(read.from().unwrap().first().unwrap().name(), Some("Café \"De Hoek\""));
        assert_eq!(read.cc().unwrap().first().unwrap().name(), Some("O'Neil, \"Pat\""));
        assert_eq!(Some(format!("<{}>", read.message_id().unwrap())), mail.message_id());
        assert_eq!(read.date().unwrap().to_timestamp(), mail.date().unwrap().as_second());
        let parts: Vec<_> = read.attachments().map(|part| (part.attachment_name(), part.contents().to_vec())).collect();
        assert_eq!(parts[0], (Some("logo.png"), b"png".to_vec()));
        assert_eq!(parts[1], (Some(long), pdf));
        assert_eq!(read.attachment(2).unwrap().message().unwrap().subject(), Some("Doorgestuurd"));
    }

    #[test]
    fn the_message_id_follows_from_the_rest() {
        assert_eq!(mail().build(), mail().build());
        assert_ne!(mail().message_id(), mail().with_subject("x").message_id());
        assert_eq!(mail().with_message_id("a@b").message_id().as_deref(), Some("<a@b>"));
        assert!(!String::from_utf8_lossy(&mail().with_message_id(None).build()).contains("Message-ID"));
    }
}
