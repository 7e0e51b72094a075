//! BODYSTRUCTURE, as far as it can be believed.
//!
//! The values come from the tokeniser, which bounds their depth, so the recursion here is bounded too. A structure
//! with anything in it that cannot be a body part is [`Structure::Unknown`] as a whole: a listing that silently
//! lacks one attachment is worse than reading the message itself.

use bytes::Bytes;

use super::token::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Structure {
    Part(Box<Part>),
    Unknown,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// The section number, `1.2`; empty for a multipart at the top.
    pub(crate) section: String,
    /// `text/plain`, in lower case.
    pub(crate) content_type: String,
    /// Names in lower case.
    pub(crate) params: Vec<(String, Bytes)>,
    pub(crate) id: Option<Bytes>,
    pub(crate) description: Option<Bytes>,
    /// In lower case; `7bit` where the server said nothing.
    pub(crate) encoding: String,
    /// Encoded size.
    pub(crate) size: Option<u64>,
    /// In lower case.
    pub(crate) disposition: Option<String>,
    pub(crate) disposition_params: Vec<(String, Bytes)>,
    pub(crate) children: Vec<Part>,
    /// The subject of an attached message.
    pub(crate) subject: Option<Bytes>,
}

impl Part {
    pub(crate) fn is_multipart(&self) -> bool {
        self.content_type.starts_with("multipart/")
    }

    pub(crate) fn is_message(&self) -> bool {
        matches!(self.content_type.as_str(), "message/rfc822" | "message/global")
    }

    /// The parts that hold something themselves. An attached message is one of them; its own parts are not.
    pub(crate) fn leaves(&self) -> Vec<&Part> {
        let mut leaves = Vec::new();
        let mut open = vec![self];
        while let Some(part) = open.pop() {
            if part.is_multipart() {
                open.extend(part.children.iter().rev());
            } else {
                leaves.push(part);
            }
        }
        leaves
    }
}

pub(crate) fn parse(value: &Value) -> Structure {
    let top = match value.list() {
        Some(fields) if is_multipart(fields) => part(value, ""),
        Some(_) => part(value, "1"),
        None => None,
    };
    match top {
        // One empty text where a message should be: the server did not find the parts, for want of a boundary.
        Some(top) if top.is_multipart() && top.leaves().iter().all(|leaf| leaf.size == Some(0)) => Structure::Unknown,
        Some(top) => Structure::Part(Box::new(top)),
        None => Structure::Unknown,
    }
}

fn is_multipart(fields: &[Value]) -> bool {
    matches!(fields.first(), Some(Value::List(_)))
}

fn part(value: &Value, section: &str) -> Option<Part> {
    let fields = value.list()?;
    if is_multipart(fields) { multipart(fields, section) } else { single(fields, section) }
}

fn multipart(fields: &[Value], section: &str) -> Option<Part> {
    let count = fields.iter().take_while(|f| matches!(f, Value::List(_))).count();
    let (children, rest) = fields.split_at(count);
    let subtype = lower(rest.first()?)?;
    let children = children
        .iter()
        .enumerate()
        .map(|(i, child)| part(child, &numbered(section, i + 1)))
        .collect::<Option<Vec<_>>>()?;
    let mut part = Part {
        section: section.to_owned(),
        content_type: format!("multipart/{subtype}"),
        children,
        encoding: "7bit".to_owned(),
        ..Part::default()
    };
    part.params = rest.get(1).map(params).unwrap_or_default();
    disposition(rest.get(2), &mut part);
    Some(part)
}

fn numbered(section: &str, n: usize) -> String {
    if section.is_empty() { n.to_string() } else { format!("{section}.{n}") }
}

fn single(fields: &[Value], section: &str) -> Option<Part> {
    let kind = lower(fields.first()?)?;
    let subtype = lower(fields.get(1)?)?;
    // `("ALTERNATIVE")`, `("RELATED" NIL (..) NIL)` and a multipart with the fields of a leaf: there are parts
    // inside, and we were not told which.
    let known = matches!(
        kind.as_str(),
        "text" | "application" | "image" | "audio" | "video" | "message" | "font" | "model" | "chemical"
    );
    let plausible = known || kind.starts_with("x-") || fields.len() >= 6;
    if kind == "multipart" || !plausible || fields.len() < 3 {
        return None;
    }
    let mut part = Part {
        section: section.to_owned(),
        content_type: format!("{kind}/{subtype}"),
        params: params(fields.get(2)?),
        id: fields.get(3).and_then(text),
        description: fields.get(4).and_then(text),
        encoding: fields.get(5).and_then(lower).filter(|e| !e.is_empty()).unwrap_or_else(|| "7bit".to_owned()),
        size: fields.get(6).and_then(Value::number),
        ..Part::default()
    };
    let mut rest = fields.get(7..).unwrap_or_default();
    if part.content_type.starts_with("text/") {
        rest = skip_lines(rest);
    } else if part.is_message() {
        rest = message(rest, &mut part);
    }
    // MD5 comes first, then the disposition. Exchange leaves fields out: the disposition is the first list that
    // looks like one, or a bare string that names one.
    if let Some(found) = rest.iter().take(3).find(|v| is_disposition(v)) {
        disposition(Some(found), &mut part);
    }
    Some(part)
}

fn skip_lines(rest: &[Value]) -> &[Value] {
    match rest.first() {
        Some(value) if value.number().is_some() => &rest[1..],
        _ => rest,
    }
}

/// Envelope, body and lines of an attached message, any of which may be missing.
fn message<'a>(rest: &'a [Value], part: &mut Part) -> &'a [Value] {
    let mut rest = rest;
    if let Some(envelope) = rest.first().and_then(Value::list)
        && envelope.len() >= 8
        && !is_disposition(&rest[0])
    {
        part.subject = envelope.get(1).and_then(text);
        rest = &rest[1..];
        if matches!(rest.first(), Some(Value::List(_) | Value::Nil | Value::Unreadable)) {
            rest = &rest[1..];
        }
    }
    skip_lines(rest)
}

fn is_disposition(value: &Value) -> bool {
    let word = match value {
        Value::List(fields) => match fields.first() {
            Some(Value::Atom(word) | Value::String(word)) if fields.len() <= 2 => word,
            _ => return false,
        },
        Value::Atom(word) | Value::String(word) => word,
        _ => return false,
    };
    [&b"attachment"[..], b"inline", b"form-data"].iter().any(|known| word.eq_ignore_ascii_case(known))
}

fn disposition(value: Option<&Value>, part: &mut Part) {
    let Some(value) = value.filter(|v| is_disposition(v)) else {
        return;
    };
    match value {
        Value::List(fields) => {
            part.disposition = fields.first().and_then(lower);
            part.disposition_params = fields.get(1).map(params).unwrap_or_default();
        }
        bare => part.disposition = lower(bare),
    }
}

/// Pairs of name and value. `()`, NIL and a value that is NIL are all "nothing".
fn params(value: &Value) -> Vec<(String, Bytes)> {
    value
        .list()
        .unwrap_or_default()
        .chunks(2)
        .filter_map(|pair| Some((lower(&pair[0])?, text(pair.get(1)?)?)))
        .collect()
}

fn text(value: &Value) -> Option<Bytes> {
    value.bytes().filter(|bytes| !bytes.is_empty()).cloned()
}

fn lower(value: &Value) -> Option<String> {
    Some(String::from_utf8_lossy(value.bytes()?).trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::super::token::Cursor;
    use super::super::token::tests::response;
    use super::*;

    fn of(text: &str) -> Structure {
        parse(&Cursor::new(&response(text.as_bytes())).value().unwrap())
    }

    fn known(text: &str) -> Part {
        match of(text) {
            Structure::Part(part) => *part,
            Structure::Unknown => panic!("unknown: {text}"),
        }
    }

    const PLAIN: &str = r#"("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 12 1 NIL NIL NIL NIL)"#;
    const PDF: &str = r#"("application" "pdf" ("name" "a.pdf") "<id@x>" NIL "BASE64" 4000 NIL ("attachment" ("filename" "b.pdf")) NIL NIL)"#;

    #[test]
    fn a_mail_with_an_attachment() {
        let top = known(&format!(r#"({PLAIN}{PDF} "mixed" ("boundary" "b") NIL NIL NIL)"#));
        assert_eq!(top.content_type, "multipart/mixed");
        let leaves = top.leaves();
        assert_eq!(leaves[0].section, "1");
        let pdf = leaves[1];
        assert_eq!((pdf.section.as_str(), pdf.content_type.as_str()), ("2", "application/pdf"));
        assert_eq!(pdf.encoding, "base64");
        assert_eq!(pdf.size, Some(4000));
        assert_eq!(pdf.disposition.as_deref(), Some("attachment"));
        assert_eq!(pdf.disposition_params, [("filename".to_owned(), Bytes::from("b.pdf"))]);
        assert_eq!(pdf.id.as_deref(), Some(&b"<id@x>"[..]));
    }

    #[test]
    fn a_single_part_is_part_one() {
        assert_eq!(known(PDF).section, "1");
        assert_eq!(known(PLAIN).size, Some(12));
    }

    #[test]
    fn an_attached_message_is_one_leaf() {
        let envelope = r#"("date" "Inner subject" NIL NIL NIL NIL NIL NIL NIL "<x>")"#;
        let message = format!(
            r#"("message" "rfc822" NIL NIL NIL "7bit" 500 {envelope} ({PLAIN}{PDF} "mixed") 20 NIL ("attachment" NIL) NIL)"#
        );
        let top = known(&format!(r#"({PLAIN}{message} "mixed")"#));
        let leaves = top.leaves();
        assert_eq!(leaves.len(), 2);
        assert_eq!(leaves[1].subject.as_deref(), Some(&b"Inner subject"[..]));
        assert_eq!(leaves[1].disposition.as_deref(), Some("attachment"));
        assert!(leaves[1].is_message());
    }

    #[test]
    fn nested_sections_are_numbered() {
        let top = known(&format!(r#"((({PLAIN}{PDF} "alternative"){PDF} "related"){PDF} "mixed")"#));
        let sections: Vec<_> = top.leaves().iter().map(|l| l.section.clone()).collect();
        assert_eq!(sections, ["1.1.1", "1.1.2", "1.2", "2"]);
    }

    #[test]
    fn malformed_but_readable() {
        for (text, why) in [
            (r#"("text" "plain" NIL NIL NIL NIL 5 1)"#, "encoding NIL"),
            (r#"("text" "plain" () NIL NIL "7bit" 5 1)"#, "() as parameters"),
            (r#"("text"  "plain"  ("charset" NIL)  NIL NIL  "7bit" 5 1)"#, "two blanks, value NIL"),
            (r#"("text" "plain" ("charset" "x") NIL """" "7bit" 5 1)"#, "description of quotes"),
            (r#"("application" "pdf" ("name" "a") NIL NIL "base64" NIL NIL "inline")"#, "bare disposition"),
            (
                r#"("message" "rfc822" NIL NIL NIL "base64" 10 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) () 0)"#,
                "all NIL envelope, () as body",
            ),
            (r#"("message" "rfc822" NIL NIL NIL "7bit" 10)"#, "no envelope"),
            (r#"("message" "delivery-status" NIL NIL NIL "7bit" 10 NIL NIL)"#, "no rfc822"),
            (r#"((("text" "plain" NIL NIL NIL "7bit" 5 1) "mixed" ("boundary" NIL)) "mixed")"#, "boundary NIL"),
        ] {
            assert!(matches!(of(text), Structure::Part(_)), "{why}");
        }
        let bare = known(r#"("application" "pdf" ("name" "a") NIL NIL "base64" 9 NIL "ATTACHMENT" NIL)"#);
        assert_eq!(bare.disposition.as_deref(), Some("attachment"));
        let described = known(r#"("application" "pdf" NIL NIL "inline" "base64" 9 NIL "Some description")"#);
        assert_eq!(described.disposition, None);
        let exchange =
            known(r#"("message" "rfc822" NIL NIL NIL "7bit" 10 NIL ("attachment" ("filename" "m.eml")) NIL)"#);
        assert_eq!(exchange.disposition.as_deref(), Some("attachment"));
    }

    #[test]
    fn malformed_beyond_belief() {
        for text in [
            r#"(("text" "plain" NIL NIL NIL "7bit" 5 1)("RELATED" NIL ("ATTACHMENT" NIL) NIL) "mixed")"#,
            r#"("ALTERNATIVE")"#,
            r#"("multipart" "mixed" ("boundary" "x") NIL NIL "7BIT" 1234)"#,
            r#"(("text" "plain" NIL NIL NIL "7bit" 0 0) "mixed" NIL)"#,
            r#"(("text" "plain" NIL NIL NIL "7bit" 5 1))"#,
            r#"(() "mixed")"#,
            "()",
            "NIL",
            "text",
            r#"(NIL "mixed")"#,
        ] {
            assert_eq!(of(text), Structure::Unknown, "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_unknown() {
        for depth in [65, 300, 20_000] {
            let text = format!("{}{PLAIN}{}", "(".repeat(depth), r#" "mixed")"#.repeat(depth));
            assert_eq!(of(&text), Structure::Unknown, "{depth}");
        }
        let text = format!("{}{PLAIN}{}", "(".repeat(50), r#" "mixed")"#.repeat(50));
        assert!(matches!(of(&text), Structure::Part(_)));
    }

    #[test]
    fn a_literal_as_a_name() {
        let part = parse(
            &Cursor::new(&response(b"(\"application\" \"pdf\" (\"name\" {9}\r\nR\xe4xx\" .pdf) NIL NIL \"base64\" 9)"))
                .value()
                .unwrap(),
        );
        let Structure::Part(part) = part else { panic!("unknown") };
        assert_eq!(part.params[0].1, &b"R\xe4xx\" .pdf"[..9]);
    }
}
