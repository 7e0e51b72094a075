//! Header fields to the envelope of a [`Message`].

use crate::{Defect, Message, Query};

use super::{
    addresses, date,
    header::{self, Field},
    params::Parametrised,
    words,
};

/// Fills in what a message's header block tells. The block may be followed by the body, which is not looked at.
pub(crate) fn from_block(block: &[u8], message: &mut Message, query: &Query, mailbox: &str) {
    let fields = header::fields(block);
    fill(&fields, message, query, mailbox);
    if message.sent.is_none() && !message.defects.contains(&Defect::BadDate) {
        message.defects.push(Defect::BadDate);
    }
}

/// The same for headers that a service has split and decoded. What the list does not hold stays as it is: the service
/// may have told it elsewhere.
#[cfg_attr(not(feature = "graph"), allow(dead_code))]
pub(crate) fn from_list<'a>(
    list: impl IntoIterator<Item = (&'a str, &'a str)>,
    message: &mut Message,
    query: &Query,
    mailbox: &str,
) {
    let fields: Vec<_> = list.into_iter().map(|(name, value)| Field::new(name, value.as_bytes())).collect();
    fill(&fields, message, query, mailbox);
}

fn fill(fields: &[Field], message: &mut Message, query: &Query, mailbox: &str) {
    let content_type = header::first(fields, "content-type").map(Parametrised::parse).unwrap_or_default();
    let charset = content_type.word("charset");
    let charset = charset.as_deref();
    let first = |name: &str| header::first(fields, name).filter(|value| !value.is_empty());
    let text = |name: &str| first(name).map(|value| words::text(value, charset));
    let all_addresses = |name: &str| {
        let values = fields.iter().filter(|field| field.is(name));
        values.flat_map(|field| addresses::parse(&field.value, charset)).collect::<Vec<_>>()
    };
    // An entry that is an address comes before one that only stands where an address should.
    let one_address = |name: &str| {
        let mut all = all_addresses(name);
        let best = all.iter().position(|address| address.address.contains('@')).unwrap_or(0);
        (!all.is_empty()).then(|| all.swap_remove(best))
    };

    set(&mut message.internet_message_id, first("message-id").and_then(message_id));
    set(&mut message.in_reply_to, first("in-reply-to").and_then(|value| message_ids(value).into_iter().next()));
    set_list(&mut message.references, first("references").map(message_ids).unwrap_or_default());
    set(&mut message.subject, text("subject"));
    set(&mut message.from, one_address("from"));
    set(&mut message.sender, one_address("sender"));
    set_list(&mut message.reply_to, all_addresses("reply-to"));
    set_list(&mut message.to, all_addresses("to"));
    set_list(&mut message.cc, all_addresses("cc"));
    set(&mut message.sent, first("date").and_then(date::parse));
    let delivered = ["delivered-to", "x-original-to", "envelope-to"].into_iter().find_map(text);
    set(&mut message.delivered_to, delivered.map(|to| to.trim_matches(['<', '>', ' ']).to_owned()));

    message.is_bounce |= is_bounce(fields, &content_type, message);
    message.is_automatic |= message.is_bounce || is_automatic(fields);
    let own = |from: &crate::Address| from.address.trim().to_lowercase() == mailbox.trim().to_lowercase();
    message.is_own |= message.from.as_ref().is_some_and(own);
    if !query.headers.is_empty() {
        let wanted = |field: &&Field| query.headers.iter().any(|name| field.is(name.trim()));
        let decoded = |field: &Field| (field.name.clone(), words::text(&field.value, charset));
        message.headers = fields.iter().filter(wanted).map(decoded).collect();
    }
}

fn set<T>(target: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *target = value;
    }
}

fn set_list<T>(target: &mut Vec<T>, value: Vec<T>) {
    if !value.is_empty() {
        *target = value;
    }
}

/// With its angle brackets, where they are; what stands there, where they are not.
fn message_id(value: &[u8]) -> Option<String> {
    message_ids(value).into_iter().next().or_else(|| {
        let text = String::from_utf8_lossy(value);
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    })
}

/// Everything in angle brackets, or else every word with an `@` in it.
fn message_ids(value: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(value);
    let bracketed: Vec<_> = text
        .split_inclusive('>')
        .filter(|piece| piece.ends_with('>'))
        .filter_map(|piece| Some(&piece[piece.rfind('<')?..]))
        .map(|id| id.split_whitespace().collect::<String>())
        .filter(|id| id.len() > 2)
        .collect();
    if !bracketed.is_empty() {
        return bracketed;
    }
    text.split_whitespace().filter(|word| word.contains('@')).map(str::to_owned).collect()
}

/// RFC 3464 reports, and everything that is sent so that no answer can come back (RFC 5321, section 4.5.5).
fn is_bounce(fields: &[Field], content_type: &Parametrised, message: &Message) -> bool {
    let report = match content_type.value.as_str() {
        "multipart/report" => {
            content_type.word("report-type").is_some_and(|kind| kind.eq_ignore_ascii_case("delivery-status"))
        }
        "message/delivery-status" => true,
        _ => false,
    };
    let no_return = header::first(fields, "return-path").is_some_and(|path| path == b"<>");
    let daemon = message.from.as_ref().is_some_and(|from| {
        from.address.split('@').next().is_some_and(|local| local.eq_ignore_ascii_case("mailer-daemon"))
    });
    report || no_return || daemon || header::first(fields, "x-failed-recipients").is_some()
}

/// RFC 3834, and what was in use before it.
fn is_automatic(fields: &[Field]) -> bool {
    let word = |name: &str| {
        let value = header::first(fields, name)?;
        let value = String::from_utf8_lossy(value).to_ascii_lowercase();
        Some(value.split([';', '(']).next().unwrap_or_default().trim().to_owned())
    };
    let submitted = word("auto-submitted").is_some_and(|value| !value.is_empty() && value != "no");
    let precedence =
        word("precedence").is_some_and(|value| matches!(value.as_str(), "bulk" | "list" | "junk" | "auto_reply"));
    let suppress = word("x-auto-response-suppress").is_some_and(|value| !value.is_empty() && value != "none");
    let others = ["list-id", "x-autoreply", "x-autorespond", "x-autoreply-from", "x-mail-autoreply"];
    submitted || precedence || suppress || others.iter().any(|name| header::first(fields, name).is_some())
}

#[cfg(test)]
mod tests {
    use crate::{Address, FolderId, MessageId};

    use super::*;

    fn read(block: &[u8], query: &Query) -> Message {
        let mut message = Message::new(MessageId::new("1"), FolderId::new("f"), jiff::Timestamp::UNIX_EPOCH);
        from_block(block, &mut message, query, "Facturen@contoso.example");
        message
    }

    fn plain(block: &str) -> Message {
        read(block.as_bytes(), &Query::default())
    }

    #[test]
    fn an_ordinary_header() {
        let message = plain(
            "Return-Path: <a@b.example>\r\nDelivered-To: in@contoso.example\r\nMessage-ID:\r\n <1@b.example>\r\n\
             In-Reply-To: <0@x>\r\nReferences: <0@x>\r\n\t<00@x>\r\nDate: Mon, 23 Feb 2026 16:22:40 +0100 (CET)\r\n\
             From: =?utf-8?Q?Zo=C3=AB?= Jansen <a@b.example>\r\nSender: \"S, T\" <s@b.example>\r\nReply-To: r@b.example\r\n\
             To: one@c.example, Two <two@c.example>\r\nCc: group: three@c.example, four@c.example;\r\n\
             Subject: =?utf-8?B?w6k=?= and\r\n more\r\n\r\nTo: not@this\r\n",
        );
        assert_eq!(message.internet_message_id.as_deref(), Some("<1@b.example>"));
        assert_eq!(message.in_reply_to.as_deref(), Some("<0@x>"));
        assert_eq!(message.references, ["<0@x>", "<00@x>"]);
        assert_eq!(message.sent.unwrap().to_string(), "2026-02-23T15:22:40Z");
        assert_eq!(message.from, Some(Address::new("a@b.example").with_name("Zoë Jansen")));
        assert_eq!(message.sender, Some(Address::new("s@b.example").with_name("S, T")));
        assert_eq!(message.reply_to, [Address::new("r@b.example")]);
        assert_eq!(message.to, [Address::new("one@c.example"), Address::new("two@c.example").with_name("Two")]);
        assert_eq!(message.cc, [Address::new("three@c.example"), Address::new("four@c.example")]);
        assert_eq!(message.subject.as_deref(), Some("é and more"));
        assert_eq!(message.delivered_to.as_deref(), Some("in@contoso.example"));
        assert!(!message.is_automatic && !message.is_bounce && !message.is_own);
        assert!(message.defects.is_empty());
    }

    #[test]
    fn what_is_missing_or_broken() {
        let message = plain("Message-ID: 12345\nDate: yesterday\nSubject:\nReferences: a@b c@d\n");
        assert_eq!(message.internet_message_id.as_deref(), Some("12345"));
        assert_eq!(message.references, ["a@b", "c@d"]);
        assert_eq!((message.sent, message.subject), (None, None));
        assert_eq!(message.defects, [Defect::BadDate]);
        assert_eq!(plain("").defects, [Defect::BadDate]);
        assert_eq!(plain("Message-ID: (x) <a\n b@c> z").internet_message_id.as_deref(), Some("<ab@c>"));
    }

    #[test]
    fn raw_bytes_in_a_header() {
        let message = read(b"Subject: Caf\xe9\nFrom: Ren\xe9 <r@b.example>", &Query::default());
        assert_eq!(message.subject.as_deref(), Some("Café"));
        assert_eq!(message.from.unwrap().name.as_deref(), Some("René"));
        let russian = read(b"Content-Type: text/plain; charset=koi8-r\nSubject: \xf0\xd2\xc9", &Query::default());
        assert_eq!(russian.subject.as_deref(), Some("При"));
    }

    #[test]
    fn machines_are_recognised() {
        for (block, automatic, bounce) in [
            ("Auto-Submitted: auto-replied (vacation)", true, false),
            ("Auto-Submitted: No", false, false),
            ("Precedence: bulk", true, false),
            ("Precedence: first-class", false, false),
            ("List-Id: <x.y>", true, false),
            ("X-Auto-Response-Suppress: All", true, false),
            ("X-Autoreply: yes", true, false),
            ("Return-Path: <>", true, true),
            ("From: Mail Delivery System <MAILER-DAEMON@x>", true, true),
            ("Content-Type: multipart/report; report-type=delivery-status; boundary=x", true, true),
            ("Content-Type: multipart/report; report-type=disposition-notification; boundary=x", false, false),
        ] {
            let message = plain(block);
            assert_eq!((message.is_automatic, message.is_bounce), (automatic, bounce), "{block}");
        }
        assert!(plain("From: X <FACTUREN@contoso.example>").is_own);
    }

    #[test]
    fn asked_for_headers_come_decoded_and_repeated() {
        let query = Query::default().with_headers(["received", "X-Order"]);
        let message = read(b"Received: a\nX-ORDER: =?utf-8?Q?=C3=A9?=\nReceived: b\nX-Other: c\n", &query);
        assert_eq!(message.header("x-order"), Some("é"));
        assert_eq!(message.headers.iter().filter(|(name, _)| name == "Received").count(), 2);
        assert_eq!(message.headers.len(), 3);
    }

    #[test]
    fn a_list_adds_and_does_not_take_away() {
        let mut message = Message::new(MessageId::new("1"), FolderId::new("f"), jiff::Timestamp::UNIX_EPOCH);
        message.subject = Some("kept".to_owned());
        let list = [("List-Id", "<x>"), ("X-Original-To", "<in@contoso.example>"), ("References", "<a@b>")];
        from_list(list, &mut message, &Query::default(), "");
        assert_eq!(message.subject.as_deref(), Some("kept"));
        assert_eq!(message.delivered_to.as_deref(), Some("in@contoso.example"));
        assert_eq!(message.references, ["<a@b>"]);
        assert!(message.is_automatic && message.defects.is_empty());
    }
}
