//! Header blocks: which fields there are, as raw bytes.

/// One header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: String,
    /// Unfolded (RFC 5322, section 2.2.3) and trimmed, not decoded.
    pub(crate) value: Vec<u8>,
}

impl Field {
    pub(crate) fn new(name: impl Into<String>, value: &[u8]) -> Self {
        Self { name: name.into(), value: value.trim_ascii().to_vec() }
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// The name of the field that starts on this line, if one does.
pub(crate) fn field_name(line: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(|b| (b'!'..=b'~').contains(b));
    is_name.then_some(name)
}

/// Whether a line goes on with the field before it.
pub(crate) fn is_continuation(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

/// Whether a line is a parameter whose indentation got lost: `boundary="x"` at the start of a line, after a field that
/// ended in a semicolon.
pub(crate) fn is_lost_continuation(line: &[u8], before: &[u8]) -> bool {
    let Some(equals) = memchr::memchr(b'=', line) else { return false };
    before.trim_ascii_end().ends_with(b";")
        && equals > 0
        && line[..equals].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'*' | b'-' | b'_'))
}

/// All fields of a header block; lines that belong to none are left out.
pub(crate) fn fields(block: &[u8]) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for line in lines(block) {
        if line.is_empty() {
            // A block that comes with more than its header ends here.
            if fields.is_empty() {
                continue;
            }
            break;
        }
        if let Some(last) = fields.last_mut()
            && (is_continuation(line) || (field_name(line).is_none() && is_lost_continuation(line, &last.value)))
        {
            if !is_continuation(line) {
                last.value.push(b' ');
            }
            last.value.extend_from_slice(line);
            continue;
        }
        if let Some(name) = field_name(line) {
            let value = &line[memchr::memchr(b':', line).map_or(0, |colon| colon + 1)..];
            fields.push(Field { name: String::from_utf8_lossy(name).into_owned(), value: value.to_vec() });
        }
    }
    for field in &mut fields {
        field.value = field.value.trim_ascii().to_vec();
    }
    fields
}

/// Lines, without their ends: CRLF, LF or CR.
pub(crate) fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = block;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        let after = &rest[end..];
        rest = after.strip_prefix(b"\r\n").unwrap_or_else(|| after.get(1..).unwrap_or_default());
        Some(line)
    })
}

/// The first field of a name.
pub(crate) fn first<'a>(fields: &'a [Field], name: &str) -> Option<&'a [u8]> {
    fields.iter().find(|field| field.is(name)).map(|field| field.value.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(block: &str) -> Vec<(String, String)> {
        let text = |field: Field| (field.name, String::from_utf8(field.value).unwrap());
        fields(block.as_bytes()).into_iter().map(text).collect()
    }

    #[test]
    fn folded_fields_are_one() {
        let expected = [("A".to_owned(), "1 2\t3".to_owned()), ("b".to_owned(), String::new())];
        for end in ["\n", "\r\n", "\r"] {
            assert_eq!(pairs(&"A: 1\n 2\n\t3\nb :\n\nc: body\n".replace('\n', end)), expected, "{end:?}");
        }
    }

    #[test]
    fn a_lost_indentation_is_found() {
        assert_eq!(pairs("Content-Type: multipart/mixed;\nboundary=\"x\"\n")[0].1, "multipart/mixed; boundary=\"x\"");
    }

    #[test]
    fn lines_that_are_no_field_are_left_out() {
        assert_eq!(
            pairs("From someone Thu Jan  1\nA: 1\nnonsense\n: nothing\nB: 2"),
            [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())]
        );
    }
}
