//! Address lists (RFC 5322, section 3.4).
//!
//! mail-parser reads them. Before that, encoded words and raw bytes become quoted strings, so that a comma in a name is
//! no separator and a character cut between two words is whole; after it, names with a bare comma are put together
//! again.

use mail_parser::{HeaderValue, parsers::MessageStream};

use crate::Address;

use super::{
    charset,
    words::{self, Piece},
};

/// More are not kept. Nobody addresses so many by hand, and a header of separators must not become a million entries.
const MOST_ADDRESSES: usize = 5_000;

pub(crate) fn parse(value: &[u8], fallback: Option<&str>) -> Vec<Address> {
    let mut clean = rewrite(value, fallback);
    // mail-parser only takes what a line end follows.
    clean.push('\n');
    let mut addresses = parse_clean(&clean);
    // Some senders encode name and address together as one word.
    if let [only] = addresses.as_slice()
        && !only.address.contains('@')
        && words::maybe_encoded(value)
    {
        let decoded = parse_clean(&format!("{}\n", words::text(value, fallback)));
        if decoded.iter().any(|address| address.address.contains('@')) {
            addresses = decoded;
        }
    }
    join_names(addresses)
}

fn parse_clean(text: &str) -> Vec<Address> {
    let HeaderValue::Address(list) = MessageStream::new(text.as_bytes()).parse_address() else { return Vec::new() };
    let entry = |entry: &mail_parser::Addr<'_>| -> Option<Address> {
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let name = entry.name.as_deref().map(one_line).filter(|name| !name.is_empty());
        let address = entry.address.as_deref().map(one_line).filter(|address| !address.is_empty());
        match (name, address) {
            (name, Some(address)) => Some(Address { name, address }),
            (Some(name), None) => Some(Address::new(name)),
            (None, None) => None,
        }
    };
    // `a@b.example c@b.example`: the comma is missing.
    let split = |address: Address| -> Vec<Address> {
        let words: Vec<_> = address.address.split(' ').collect();
        match address.name.is_none() && words.len() > 1 && words.iter().all(|word| word.contains('@')) {
            true => words.into_iter().map(Address::new).collect(),
            false => vec![address],
        }
    };
    list.iter().filter_map(entry).flat_map(split).take(MOST_ADDRESSES).collect()
}

/// `Doe, John <j@d.example>` without quotes is one person.
fn join_names(addresses: Vec<Address>) -> Vec<Address> {
    let mut joined = Vec::with_capacity(addresses.len());
    let mut waiting: Vec<String> = Vec::new();
    for mut address in addresses {
        match address.name.take() {
            None if !address.address.contains('@') => {
                waiting.push(address.address);
                continue;
            }
            Some(name) if address.address.contains('@') => {
                waiting.push(name);
                address.name = Some(waiting.join(", "));
                waiting.clear();
            }
            name => address.name = name,
        }
        joined.extend(waiting.drain(..).map(Address::new));
        joined.push(address);
    }
    joined.extend(waiting.into_iter().map(Address::new));
    joined
}

/// All UTF-8, and nothing encoded any more.
fn rewrite(value: &[u8], fallback: Option<&str>) -> String {
    let mut out = String::with_capacity(value.len());
    let (mut in_quotes, mut comments, mut escaped) = (false, 0_u32, false);
    let mut after_address = false;
    for piece in words::pieces(value) {
        match piece {
            Piece::Raw(bytes) => {
                for c in charset::guess(fallback, bytes).chars() {
                    let quotes = c == '"' && comments == 0 && !escaped;
                    // `<a@b.example> Bob <b@b.example>`: the comma is missing.
                    if after_address && !c.is_whitespace() {
                        after_address = false;
                        if !matches!(c, ',' | ';' | '(' | '>') {
                            out.push(',');
                        }
                    }
                    after_address |= c == '>' && !in_quotes && comments == 0;
                    match c {
                        '(' if !in_quotes && !escaped => comments += 1,
                        ')' if !in_quotes && !escaped => comments = comments.saturating_sub(1),
                        _ => {}
                    }
                    escaped = c == '\\' && !escaped && (in_quotes || comments > 0);
                    if quotes {
                        in_quotes = !in_quotes;
                        open_quotes(&mut out, in_quotes);
                    } else {
                        out.push(if c.is_control() { ' ' } else { c });
                    }
                }
            }
            Piece::Words(text) => {
                let bare = !in_quotes && comments == 0;
                if bare {
                    if std::mem::take(&mut after_address) {
                        out.push(',');
                    }
                    open_quotes(&mut out, true);
                }
                for c in text.chars() {
                    match c {
                        '"' | '\\' => out.extend(['\\', c]),
                        '(' | ')' if comments > 0 => out.push(' '),
                        c if c.is_control() => out.push(' '),
                        c => out.push(c),
                    }
                }
                if bare {
                    out.push('"');
                }
            }
        }
    }
    out
}

/// mail-parser joins a quoted string to the word before it, blank or no blank; so the blank goes within.
fn open_quotes(out: &mut String, open: bool) {
    let blank = open && out.ends_with(' ') && !out.trim_end().ends_with([',', ';', ':', '<', '(']);
    out.push('"');
    if blank {
        out.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(value: &str) -> Vec<String> {
        parse(value.as_bytes(), None).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lists_as_they_are_sent() {
        for (value, expected) in [
            ("a@b.example", vec!["a@b.example"]),
            ("<a@b.example>", vec!["a@b.example"]),
            ("Ann <a@b.example>, bob@b.example", vec!["Ann <a@b.example>", "bob@b.example"]),
            ("\"Doe, John\" <j@d.example>", vec!["Doe, John <j@d.example>"]),
            ("Doe, John <j@d.example>, x@y.example", vec!["Doe, John <j@d.example>", "x@y.example"]),
            ("a@b.example (Joe D)", vec!["Joe D <a@b.example>"]),
            ("Ann <a@b.example", vec!["Ann <a@b.example>"]),
            ("nobody", vec!["nobody"]),
            ("friends: a@b.example, c@d.example;", vec!["a@b.example", "c@d.example"]),
            ("undisclosed-recipients:;", vec![]),
            ("", vec![]),
            ("Jan \"de\" Boer <j@b.example>", vec!["Jan de Boer <j@b.example>"]),
            ("Ann <a@b.example> Bob <b@b.example>", vec!["Ann <a@b.example>", "Bob <b@b.example>"]),
            ("a@b.example c@b.example", vec!["a@b.example", "c@b.example"]),
            ("\"it's \\\"me\\\"\" <a@b.example>", vec!["it's \"me\" <a@b.example>"]),
        ] {
            assert_eq!(list(value), expected, "{value}");
        }
    }

    #[test]
    fn encoded_names_keep_their_commas() {
        for (value, expected) in [
            ("=?utf-8?Q?Doe=2C_J=C3=B6rg?= <j@d.example>", vec!["Doe, Jörg <j@d.example>"]),
            ("\"=?utf-8?Q?Doe=2C_J=C3=B6rg?=\" <j@d.example>", vec!["Doe, Jörg <j@d.example>"]),
            ("Van =?utf-8?Q?=C3=89?= Boer <j@d.example>", vec!["Van É Boer <j@d.example>"]),
            ("=?utf-8?B?w4k=?= =?utf-8?B?w4k=?= <j@d.example>, x@y.example", vec!["ÉÉ <j@d.example>", "x@y.example"]),
            ("=?utf-8?Q?J=C3?= =?utf-8?Q?=B6rg?= <j@d.example>", vec!["Jörg <j@d.example>"]),
            ("j@d.example (=?utf-8?Q?J=C3=B6rg_(x)?=)", vec!["Jörg x <j@d.example>"]),
            ("=?utf-8?Q?J=C3=B6rg_=3Cj=40d.example=3E?=", vec!["Jörg <j@d.example>"]),
            ("=?utf-8?Q?say_=22hi=22?= <j@d.example>", vec!["say \"hi\" <j@d.example>"]),
        ] {
            assert_eq!(list(value), expected, "{value}");
        }
        assert_eq!(parse(b"Ren\xe9 <r@d.example>", None)[0].name.as_deref(), Some("René"));
    }

    #[test]
    fn a_flood_of_separators_is_bounded() {
        assert!(parse("a,".repeat(100_000).as_bytes(), None).len() <= MOST_ADDRESSES);
    }
}
