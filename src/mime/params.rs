//! Parameters of `Content-Type` and `Content-Disposition`, as they are sent rather than as RFC 2045 has them.

use std::{collections::BTreeMap, iter};

use super::{charset, words};

/// No header has so many parameters; a long name in RFC 2231 pieces comes nearest.
const MAX_PARAMETERS: usize = 500;

/// A header value with parameters.
#[derive(Debug, Default)]
pub(crate) struct Parametrised {
    /// What stands before the first semicolon, lower case.
    pub(crate) value: String,
    parameters: Parameters,
}

/// Parameters as (name, value), names in lower case, quotes removed, values not decoded.
#[derive(Debug, Default)]
pub(crate) struct Parameters(Vec<(String, Vec<u8>)>);

impl std::ops::Deref for Parametrised {
    type Target = Parameters;

    fn deref(&self) -> &Parameters {
        &self.parameters
    }
}

impl Parametrised {
    pub(crate) fn parse(header: &[u8]) -> Self {
        let end = memchr::memchr(b';', header).unwrap_or(header.len());
        let mut value = &header[..end];
        // `multipart/mixed boundary=x`: the semicolon is missing.
        let mut rest = header.get(end + 1..).unwrap_or_default();
        if let Some(equals) = memchr::memchr(b'=', value)
            && let Some(blank) = value[..equals].trim_ascii_end().iter().rposition(u8::is_ascii_whitespace)
        {
            rest = &header[blank..];
            value = &value[..blank];
        }
        let value = String::from_utf8_lossy(value);
        let value = value.split('(').next().unwrap_or_default().trim().to_ascii_lowercase();
        Self { value, parameters: Parameters::parse(rest) }
    }
}

impl Parameters {
    fn parse(mut rest: &[u8]) -> Self {
        let mut all = Vec::new();
        while all.len() < MAX_PARAMETERS {
            rest = skip_comments(rest);
            let Some(end) = memchr::memchr2(b'=', b';', rest) else { break };
            let name = String::from_utf8_lossy(rest[..end].trim_ascii()).to_ascii_lowercase();
            let is_parameter = rest[end] == b'=';
            rest = &rest[end + 1..];
            if !is_parameter {
                continue;
            }
            let (value, after) = value(rest.trim_ascii_start());
            rest = after;
            // `name =?utf-8?...`, or a parameter before which a semicolon is missing.
            let name = name.rsplit(char::is_whitespace).next().unwrap_or_default().to_owned();
            all.push((name, value));
        }
        Self(all)
    }

    fn raw(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    /// A parameter that is one word: `boundary`, `charset`, `report-type`. A quoted boundary may have blanks in it.
    pub(crate) fn word(&self, name: &str) -> Option<String> {
        let text = self.text(name, None)?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A parameter that is text: RFC 2231 first, then encoded words and raw bytes in the plain one.
    pub(crate) fn text(&self, name: &str, fallback: Option<&str>) -> Option<String> {
        let plain = || self.raw(name).map(|value| words::text(value, fallback));
        match self.extended(name, fallback) {
            // The plain form beside it says more than one that cannot be read.
            Some(text) if text.contains('\u{fffd}') => {
                plain().filter(|plain| !plain.contains('\u{fffd}')).or(Some(text))
            }
            Some(text) if !text.trim().is_empty() => Some(text),
            _ => plain(),
        }
    }

    /// `name*`, or `name*0`, `name*1*` ... (RFC 2231). All bytes are joined before the charset is applied: a character
    /// may be cut between two pieces.
    fn extended(&self, name: &str, fallback: Option<&str>) -> Option<String> {
        let mut pieces = BTreeMap::new();
        for (key, value) in &self.0 {
            let Some(rest) = key.strip_prefix(name).and_then(|rest| rest.strip_prefix('*')) else { continue };
            let encoded = rest.is_empty() || rest.ends_with('*');
            // A form in one piece comes before the others.
            let index = match rest.trim_end_matches('*') {
                "" => -1,
                number => match number.parse::<u32>() {
                    Ok(number) => i64::from(number),
                    Err(_) => continue,
                },
            };
            pieces.entry(index).or_insert((encoded, value.as_slice()));
        }
        if let Some(whole) = pieces.remove(&-1) {
            pieces = iter::once((0, whole)).collect();
        }
        let (first_encoded, first) = pieces.values().next().copied()?;
        let (label, first) = if first_encoded { charset_of(first) } else { (None, first) };
        let mut any_encoded = false;
        let mut bytes = Vec::new();
        for (i, &(encoded, value)) in pieces.values().enumerate() {
            let value = if i == 0 { first } else { value };
            any_encoded |= encoded;
            if encoded {
                bytes.extend(percent_encoding::percent_decode(value));
            } else {
                bytes.extend_from_slice(value);
            }
        }
        // Pieces of an encoded word: two standards at once, and both are meant.
        if words::maybe_encoded(&bytes) && (!any_encoded || label.is_none()) {
            return Some(words::text(&bytes, fallback));
        }
        match label {
            Some(label) => Some(charset::decode(Some(&label), &bytes)),
            None => Some(charset::guess(fallback, &bytes)),
        }
    }
}

/// `charset'language'value`. Senders leave out both quotes, or one.
fn charset_of(value: &[u8]) -> (Option<String>, &[u8]) {
    let Some(quote) = memchr::memchr(b'\'', value) else { return (None, value) };
    let label = &value[..quote];
    let is_label = label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'+'));
    let Some(second) = memchr::memchr(b'\'', &value[quote + 1..]).filter(|_| is_label) else { return (None, value) };
    let label = (!label.is_empty()).then(|| String::from_utf8_lossy(label).into_owned());
    (label, &value[quote + second + 2..])
}

fn skip_comments(mut rest: &[u8]) -> &[u8] {
    loop {
        rest = rest.trim_ascii_start();
        match rest.first() {
            Some(b';') => rest = &rest[1..],
            Some(b'(') => match memchr::memchr(b')', rest) {
                Some(end) => rest = &rest[end + 1..],
                None => return rest,
            },
            _ => return rest,
        }
    }
}

/// The value that `rest` starts with, and what follows it.
fn value(rest: &[u8]) -> (Vec<u8>, &[u8]) {
    match rest.strip_prefix(b"\"") {
        Some(rest) => quoted(rest),
        None => unquoted(rest),
    }
}

fn quoted(rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut value = Vec::new();
    let mut at = 0;
    // From the end, so that each quote does not search the rest again.
    let last = memchr::memrchr(b'"', rest);
    while let Some(&byte) = rest.get(at) {
        match byte {
            // `C:\scans\x.pdf` has backslashes that quote nothing; and one before the last quote of all is a path's end.
            b'\\' if matches!(rest.get(at + 1), Some(b'"' | b'\\')) && last != Some(at + 1) => {
                value.push(rest[at + 1]);
                at += 2;
            }
            // A quote within, as in `"the "good" one.pdf"`, is not followed by what follows a value.
            b'"' if last == Some(at) || ends_value(&rest[at + 1..]) => return (value, &rest[at + 1..]),
            _ => {
                value.push(byte);
                at += 1;
            }
        }
    }
    // The quote never ends: a semicolon has to do.
    if memchr::memchr(b';', rest).is_some() { unquoted(rest) } else { (value, &[]) }
}

/// Whether what follows a quote shows that the value is over: nothing, a semicolon, a comment, the next parameter.
fn ends_value(rest: &[u8]) -> bool {
    let rest = rest.trim_ascii_start();
    let word =
        rest.iter().take(80).take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'*' | b'_')).count();
    matches!(rest.first(), None | Some(b';' | b'(')) || (word > 0 && rest.get(word) == Some(&b'='))
}

/// Up to the semicolon, blanks and all: `filename=my invoice.pdf`.
fn unquoted(rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut at = 0;
    while let Some(next) = memchr::memchr2(b';', b'=', &rest[at..]) {
        at += next;
        if rest[at] == b';' {
            return (rest[..at].trim_ascii().to_vec(), &rest[at + 1..]);
        }
        // A semicolon within an encoded word does not count.
        at += match rest[at..].starts_with(b"=?") {
            true => {
                let word = &rest[at..rest.len().min(at + words::LONGEST_WORD)];
                memchr::memmem::find(word, b"?=").map_or(1, |end| end + 1)
            }
            false => 1,
        };
    }
    (rest.trim_ascii().to_vec(), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(header: &str) -> Option<String> {
        Parametrised::parse(header.as_bytes()).text("name", None)
    }

    #[test]
    fn plain_parameters() {
        for (header, expected) in [
            ("a/b; name=x.pdf", "x.pdf"),
            ("a/b;name = \"x.pdf\" ; charset=y", "x.pdf"),
            ("a/b; name=my file.pdf", "my file.pdf"),
            ("a/b; name=my file.pdf; charset=y", "my file.pdf"),
            ("a/b; charset=\"y\" name=\"x;y.pdf\"", "x;y.pdf"),
            ("a/b (c; d) ; (e) name=x.pdf", "x.pdf"),
            ("a/b name=x.pdf", "x.pdf"),
            (r#"a/b; name="C:\dir\x.pdf""#, r"C:\dir\x.pdf"),
            (r#"a/b; name="C:\\dir\\x.pdf""#, r"C:\dir\x.pdf"),
            (r#"a/b; name="a\"b.pdf""#, "a\"b.pdf"),
            (r#"a/b; name="C:\dir\"; x=y"#, r"C:\dir\"),
            (r#"a/b; name="the "good" one.pdf"; x=y"#, r#"the "good" one.pdf"#),
            (r#"a/b; name="open.pdf; x=y"#, "open.pdf"),
            (r#"a/b; name="open.pdf"#, "open.pdf"),
            ("a/b; NAME=report (1).pdf", "report (1).pdf"),
            ("a/b; name==?utf-8?Q?a;b?=.pdf; x=y", "a;b.pdf"),
            ("a/b; name=\"=?utf-8?Q?=C3=A9?=\r\n =?utf-8?Q?.pdf?=\"", "é.pdf"),
        ] {
            assert_eq!(name(header).as_deref(), Some(expected), "{header}");
        }
        assert_eq!(name("a/b"), None);
        assert_eq!(name("a/b; names=x"), None);
        assert_eq!(Parametrised::parse(b" Text/HTML (x) ; a=b").value, "text/html");
    }

    #[test]
    fn rfc_2231_parameters() {
        for (header, expected) in [
            ("a/b; name*=utf-8''caf%c3%A9.pdf", "café.pdf"),
            ("a/b; name*=iso-8859-1'fr'caf%E9.pdf; name=cafe.pdf", "café.pdf"),
            ("a/b; name=plain.pdf; name*=utf-8''x%FF.pdf", "plain.pdf"),
            ("a/b; name*0=long; name*1=\" name\"; name*2=.pdf", "long name.pdf"),
            ("a/b; name*1=b; name*2=.pdf; name*0=a", "ab.pdf"),
            ("a/b; name*0*=utf-8''caf%C3; name*1*=%A9; name*2=%20.pdf", "café%20.pdf"),
            ("a/b; name*0*=utf-8''a; name*1*=b; name*10*=d; name*9*=c", "abcd"),
            ("a/b; name*=caf%C3%A9.pdf", "café.pdf"),
            ("a/b; name*=''caf%E9.pdf", "café.pdf"),
            ("a/b; name*0=\"=?utf-8?Q?caf\"; name*1=\"=C3=A9?=.pdf\"", "café.pdf"),
            ("a/b; name*=\"utf-8''it's 100%.pdf\"", "it's 100%.pdf"),
        ] {
            assert_eq!(name(header).as_deref(), Some(expected), "{header}");
        }
    }

    #[test]
    fn raw_bytes_are_guessed() {
        assert_eq!(Parametrised::parse(b"a/b; name=\"caf\xe9\"").text("name", None).unwrap(), "café");
        assert_eq!(Parametrised::parse(b"a/b; name=\"\xf0\"").text("name", Some("koi8-r")).unwrap(), "П");
    }
}
