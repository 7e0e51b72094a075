//! What a part says of itself in its MIME header.

use super::{
    charset,
    decode::Encoding,
    header::{self, Field},
    names,
    params::Parametrised,
};

/// `Content-Disposition` (RFC 2183), as far as it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Disposition {
    #[default]
    Unsaid,
    Inline,
    Attachment,
}

impl Disposition {
    /// Unknown ones are attachments (RFC 2183, section 2.8).
    pub(crate) fn from_value(value: &str) -> Self {
        match value.trim().to_ascii_lowercase().as_str() {
            "" => Self::Unsaid,
            "inline" => Self::Inline,
            _ => Self::Attachment,
        }
    }
}

/// A part's MIME header, read.
#[derive(Clone, Debug, Default)]
pub(crate) struct PartHeader {
    /// `type/subtype`, lower case.
    pub(crate) content_type: String,
    /// More than one when `Content-Type` stands there more than once.
    pub(crate) boundaries: Vec<Vec<u8>>,
    pub(crate) charset: Option<String>,
    pub(crate) encoding: Encoding,
    pub(crate) disposition: Disposition,
    /// From the parameters that are made for it, which make a part an attachment.
    pub(crate) name: Option<String>,
    /// From other headers, good enough to call an attachment by.
    pub(crate) other_name: Option<String>,
    pub(crate) content_id: Option<String>,
}

impl PartHeader {
    /// `default` is the type of a part that does not say.
    pub(crate) fn parse(block: &[u8], default: &str) -> Self {
        Self::from_fields(&header::fields(block), default)
    }

    pub(crate) fn from_fields(fields: &[Field], default: &str) -> Self {
        let all = |name: &'static str| fields.iter().filter(move |field| field.is(name)).map(|field| &field.value[..]);
        let types: Vec<_> = all("content-type").map(Parametrised::parse).collect();
        let boundaries = types
            .iter()
            .filter(|t| t.value.starts_with("multipart/"))
            .filter_map(|t| t.word("boundary"))
            .map(String::into_bytes)
            .filter(|boundary| boundary.len() <= super::scan::LONGEST_BOUNDARY)
            .collect();
        // Parsers disagree about which of two counts. The one that says more makes the attachment findable.
        let chosen = types.into_iter().enumerate().max_by_key(|(i, t)| (says(t), std::cmp::Reverse(*i)));
        let chosen = chosen.map(|(_, t)| t).unwrap_or_default();

        let dispositions: Vec<_> = all("content-disposition").map(Parametrised::parse).collect();
        let charset = chosen.word("charset");
        let name = names::from_parameters(dispositions.iter().map(|d| &**d), &chosen, charset.as_deref());
        let encoding = all("content-transfer-encoding")
            .map(Encoding::from_header)
            .max_by_key(|e| u8::from(!matches!(e, Encoding::Identity | Encoding::Unknown)));
        let disposition =
            dispositions.iter().map(|d| Disposition::from_value(&d.value)).find(|d| *d != Disposition::Unsaid);
        Self {
            content_type: media_type(&chosen.value, default, name.is_some()),
            boundaries,
            encoding: encoding.unwrap_or_default(),
            disposition: disposition.unwrap_or_default(),
            other_name: names::from_other_headers(fields, charset.as_deref()),
            name,
            content_id: all("content-id").next().and_then(content_id),
            charset,
        }
    }

    pub(crate) fn is_multipart(&self) -> bool {
        self.content_type.starts_with("multipart/")
    }
}

/// How much a `Content-Type` helps to find attachments.
fn says(content_type: &Parametrised) -> u8 {
    match content_type.value.split_once('/') {
        Some(("multipart", _)) if content_type.word("boundary").is_some() => 5,
        Some(("multipart", _)) => 2,
        Some(("text", "plain")) => 1,
        Some(("text", _)) => 3,
        Some(_) => 4,
        None => 0,
    }
}

/// A media type that is one, whatever stood there.
fn media_type(value: &str, default: &str, named: bool) -> String {
    let is_token = |s: &str| {
        let special = |b: u8| b"()<>@,;:\\\"[]?=".contains(&b);
        (1..=127).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic() && !special(b))
    };
    match value.split_once('/') {
        // A type of the kind `message/rfc822` with another name for the same.
        Some(("message", "global")) => "message/rfc822".to_owned(),
        Some((kind, sub)) if is_token(kind) && is_token(sub) && !sub.contains('/') => value.to_owned(),
        _ if value.is_empty() => default.to_owned(),
        _ if value == "text" => "text/plain".to_owned(),
        _ if value == "multipart" => "multipart/mixed".to_owned(),
        // What cannot be read is plain text (RFC 2045, section 5.2), unless it has a name and so is a file.
        _ if named => "application/octet-stream".to_owned(),
        _ => "text/plain".to_owned(),
    }
}

/// What the HTML refers to a part by.
pub(crate) fn content_id(value: &[u8]) -> Option<String> {
    let text = charset::guess(None, value.trim_ascii());
    let text = text.trim_start_matches('<').trim_end_matches('>').trim();
    (!text.is_empty()).then(|| text.chars().take(names::LONGEST_NAME).collect())
}

/// Tells bodies from attachments, part by part in the order of the message: every leaf is an attachment but the first
/// plain text and the first HTML that have no name and are not declared one.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    plain: bool,
    html: bool,
}

/// What a leaf is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    PlainText,
    Html,
    /// A nameless text of no bytes: a remnant of some converter.
    Nothing,
    Attachment,
}

impl Bodies {
    /// `named` is whether `filename` or `name` was given, `size` the length of the encoded bytes.
    pub(crate) fn take(&mut self, content_type: &str, disposition: Disposition, named: bool, size: u64) -> Leaf {
        if named || disposition == Disposition::Attachment {
            return Leaf::Attachment;
        }
        let (body, taken) = match content_type {
            "text/plain" => (Leaf::PlainText, &mut self.plain),
            "text/html" => (Leaf::Html, &mut self.html),
            _ => return Leaf::Attachment,
        };
        if !*taken {
            *taken = true;
            return body;
        }
        if size == 0 { Leaf::Nothing } else { Leaf::Attachment }
    }
}

/// Whether a part is meant to be shown within the text. Only what can be shown counts: some senders declare every PDF
/// inline, and no invoice must be taken for a logo.
pub(crate) fn is_inline(content_type: &str, disposition: Disposition, content_id: Option<&str>) -> bool {
    let kind = content_type.split('/').next().unwrap_or_default();
    let shown = matches!(kind, "image" | "audio" | "video") || content_type == "text/css";
    shown && disposition != Disposition::Attachment && (disposition == Disposition::Inline || content_id.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(block: &str) -> PartHeader {
        PartHeader::parse(block.as_bytes(), "text/plain")
    }

    #[test]
    fn of_two_types_the_telling_one_counts() {
        let header = part("Content-Type: application/pdf; name=a.pdf\nContent-Type: text/plain");
        assert_eq!((header.content_type.as_str(), header.name.as_deref()), ("application/pdf", Some("a.pdf")));
        let header = part("Content-Type: text/plain\nContent-Type: multipart/mixed; boundary=a");
        assert_eq!((header.content_type.as_str(), header.boundaries), ("multipart/mixed", vec![b"a".to_vec()]));
        assert_eq!(part("Content-Type: image/png\nContent-Type: image/gif").content_type, "image/png");
    }

    #[test]
    fn types_that_are_none() {
        for (value, expected) in [
            ("", "text/plain"),
            ("text", "text/plain"),
            ("nonsense", "text/plain"),
            ("nonsense; name=a.pdf", "application/octet-stream"),
            ("a/b/c", "text/plain"),
            ("Application/PDF ; x", "application/pdf"),
            ("message/global", "message/rfc822"),
        ] {
            assert_eq!(part(&format!("Content-Type: {value}\n")).content_type, expected, "{value}");
        }
        assert_eq!(PartHeader::parse(b"", "message/rfc822").content_type, "message/rfc822");
    }

    #[test]
    fn the_other_headers() {
        let header = part(
            "Content-Disposition: INLINE; filename=a.png\nContent-Transfer-Encoding: 7bit\n\
             Content-Transfer-Encoding: base64\nContent-ID: <a@b>\n",
        );
        assert_eq!(header.disposition, Disposition::Inline);
        assert_eq!(header.encoding, Encoding::Base64);
        assert_eq!(header.content_id.as_deref(), Some("a@b"));
        assert_eq!(part("Content-Disposition: form-data; name=x").disposition, Disposition::Attachment);
    }

    #[test]
    fn the_first_texts_are_bodies() {
        use Disposition::{Attachment, Inline, Unsaid};
        let mut bodies = Bodies::default();
        assert_eq!(bodies.take("text/plain", Unsaid, true, 1), Leaf::Attachment);
        assert_eq!(bodies.take("text/plain", Attachment, false, 1), Leaf::Attachment);
        assert_eq!(bodies.take("text/plain", Inline, false, 1), Leaf::PlainText);
        assert_eq!(bodies.take("text/html", Unsaid, false, 1), Leaf::Html);
        assert_eq!(bodies.take("text/plain", Unsaid, false, 1), Leaf::Attachment);
        assert_eq!(bodies.take("text/plain", Unsaid, false, 0), Leaf::Nothing);
        assert_eq!(bodies.take("text/calendar", Unsaid, false, 1), Leaf::Attachment);
    }

    #[test]
    fn only_what_can_be_shown_is_inline() {
        assert!(is_inline("image/png", Disposition::Unsaid, Some("a")));
        assert!(is_inline("image/png", Disposition::Inline, None));
        assert!(!is_inline("image/png", Disposition::Attachment, Some("a")));
        assert!(!is_inline("image/png", Disposition::Unsaid, None));
        assert!(!is_inline("application/pdf", Disposition::Inline, Some("a")));
    }
}
