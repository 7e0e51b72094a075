//! Status responses: OK, NO, BAD, BYE, PREAUTH, and the codes they carry.

use bytes::Bytes;

use super::token::number;
use super::uidset;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Ok,
    No,
    Bad,
    Bye,
    Preauth,
}

/// A response code. Codes that change nothing for us are `Other`, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Code {
    Alert,
    AlreadyExists,
    AuthenticationFailed,
    AuthorizationFailed,
    BadCharset,
    Capability(Vec<String>),
    Closed,
    ContactAdmin,
    /// Pairs of (old, new) UID, in the order the server gave them.
    CopyUid {
        validity: u64,
        pairs: Vec<(u64, u64)>,
    },
    Expired,
    InUse,
    Limit,
    NonExistent,
    NoPerm,
    OverQuota,
    PermanentFlags(Vec<String>),
    PrivacyRequired,
    ReadOnly,
    ReadWrite,
    ServerBug,
    TryCreate,
    UidNext(u64),
    UidNotSticky,
    UidValidity(u64),
    Unavailable,
    /// Gmail: sign in with a browser first.
    WebAlert,
    Other(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) condition: Condition,
    pub(crate) code: Option<Code>,
    /// The text for people, without the code.
    pub(crate) text: String,
}

/// Longest status text kept: it ends up in errors and logs.
const MAX_TEXT: usize = 500;
/// Most UIDs that one COPYUID is expanded to.
const MAX_COPIED: usize = 100_000;

impl Condition {
    pub(crate) fn parse(word: &[u8]) -> Option<Self> {
        let found = [
            (&b"OK"[..], Self::Ok),
            (b"NO", Self::No),
            (b"BAD", Self::Bad),
            (b"BYE", Self::Bye),
            (b"PREAUTH", Self::Preauth),
        ];
        found.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, condition)| condition)
    }
}

impl Status {
    /// From what follows the condition word.
    pub(crate) fn parse(condition: Condition, rest: &[u8]) -> Self {
        let rest = rest.trim_ascii();
        let (code, text) = match rest.strip_prefix(b"[") {
            Some(inner) => split_code(inner),
            None => (None, rest),
        };
        // Exchange puts a base64 blob in brackets into its greeting; that is not a code.
        let (code, text) = match code.map(parse_code) {
            Some(Some(code)) => (Some(code), text),
            Some(None) => (None, rest),
            None => (None, text),
        };
        Self { condition, code, text: clean(text) }
    }

    /// What the server asks for in words: "Suggested Backoff Time: 299988 milliseconds".
    pub(crate) fn backoff_millis(&self) -> Option<u64> {
        let lower = self.text.to_ascii_lowercase();
        let at = lower.find("backoff time:")? + "backoff time:".len();
        let digits: String = lower[at..].trim_start().chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }
}

fn split_code(inner: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let webalert = inner.get(..9).is_some_and(|head| head.eq_ignore_ascii_case(b"WEBALERT "));
    // The URL of a WEBALERT may contain brackets.
    let end = if webalert { inner.iter().rposition(|b| *b == b']') } else { inner.iter().position(|b| *b == b']') };
    match end {
        Some(end) => (Some(&inner[..end]), inner[end + 1..].trim_ascii()),
        None => (None, inner),
    }
}

/// `None` where what stands in brackets is not a code at all.
fn parse_code(code: &[u8]) -> Option<Code> {
    let code = code.trim_ascii();
    let (name, rest) = match code.iter().position(|b| *b == b' ') {
        Some(space) => (&code[..space], code[space..].trim_ascii()),
        None => (code, &b""[..]),
    };
    if name.is_empty() || !name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
        return None;
    }
    let name = std::str::from_utf8(name).ok()?.to_ascii_uppercase();
    let other = Code::Other(name.clone());
    Some(match name.as_str() {
        "ALERT" => Code::Alert,
        "ALREADYEXISTS" => Code::AlreadyExists,
        "AUTHENTICATIONFAILED" => Code::AuthenticationFailed,
        "AUTHORIZATIONFAILED" => Code::AuthorizationFailed,
        "BADCHARSET" => Code::BadCharset,
        "CAPABILITY" => Code::Capability(words(rest)),
        "CLOSED" => Code::Closed,
        "CONTACTADMIN" => Code::ContactAdmin,
        // The copy has been made; an unreadable list of what it became is not a failure.
        "COPYUID" => copy_uid(rest).unwrap_or(other),
        "EXPIRED" => Code::Expired,
        "INUSE" => Code::InUse,
        "LIMIT" => Code::Limit,
        "NONEXISTENT" => Code::NonExistent,
        "NOPERM" => Code::NoPerm,
        "OVERQUOTA" => Code::OverQuota,
        "PERMANENTFLAGS" => Code::PermanentFlags(words(
            rest.strip_prefix(b"(").and_then(|rest| rest.strip_suffix(b")")).unwrap_or(rest),
        )),
        "PRIVACYREQUIRED" => Code::PrivacyRequired,
        "READ-ONLY" => Code::ReadOnly,
        "READ-WRITE" => Code::ReadWrite,
        "SERVERBUG" => Code::ServerBug,
        "TRYCREATE" => Code::TryCreate,
        "UIDNEXT" => number(rest).map_or(other, Code::UidNext),
        "UIDNOTSTICKY" => Code::UidNotSticky,
        "UIDVALIDITY" => number(rest).map_or(other, Code::UidValidity),
        "UNAVAILABLE" => Code::Unavailable,
        "WEBALERT" => Code::WebAlert,
        _ => other,
    })
}

fn copy_uid(rest: &[u8]) -> Option<Code> {
    let words: Vec<&[u8]> = rest.split(|b| *b == b' ').filter(|w| !w.is_empty()).collect();
    let [validity, from, to] = words[..] else {
        return None;
    };
    let from = uidset::expand(from, MAX_COPIED)?;
    let to = uidset::expand(to, MAX_COPIED)?;
    if from.is_empty() || from.len() != to.len() {
        return None;
    }
    // 0 has been seen from servers without lasting numbers, and names nothing that could be found again.
    let validity = number(validity).filter(|validity| *validity > 0)?;
    Some(Code::CopyUid { validity, pairs: from.into_iter().zip(to).collect() })
}

pub(crate) fn words(text: &[u8]) -> Vec<String> {
    text.split(|b| *b == b' ')
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// Text that may be shown: no control characters, bounded.
pub(crate) fn clean(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_TEXT)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// The parameter of a SASL challenge or continuation: everything after `+ `.
pub(crate) fn continuation(raw: &Bytes) -> Bytes {
    let line = super::reader::trim_end(raw);
    let start = if line.starts_with(b"+ ") { 2 } else { 1 };
    raw.slice(start.min(line.len())..line.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(rest: &str) -> Status {
        Status::parse(Condition::Ok, rest.as_bytes())
    }

    #[test]
    fn codes() {
        assert_eq!(ok("[UIDVALIDITY 17] fine").code, Some(Code::UidValidity(17)));
        assert_eq!(ok("[uidvalidity 17] fine").text, "fine");
        assert_eq!(ok("[UIDVALIDITY 99999999999] x").code, Some(Code::UidValidity(99_999_999_999)));
        assert_eq!(ok("[TRYCREATE] no such").code, Some(Code::TryCreate));
        assert_eq!(
            ok("[CAPABILITY IMAP4rev1 MOVE] hi").code,
            Some(Code::Capability(vec!["IMAP4rev1".into(), "MOVE".into()]))
        );
        assert_eq!(
            ok(r"[PERMANENTFLAGS (\Answered \Deleted \*)] Limited").code,
            Some(Code::PermanentFlags(vec![r"\Answered".into(), r"\Deleted".into(), r"\*".into()]))
        );
        assert_eq!(ok("[X-SOMETHING a b] t").code, Some(Code::Other("X-SOMETHING".into())));
        assert_eq!(ok("no code").code, None);
        assert_eq!(ok("").text, "");
    }

    #[test]
    fn a_blob_in_brackets_is_text() {
        let status = ok("The Microsoft Exchange IMAP4 service is ready. [QQBNADAAUABSADAA==]");
        assert_eq!(status.code, None);
        let status = ok("[QQBNADAA+/=] ready");
        assert_eq!(status.code, None);
        assert_eq!(status.text, "[QQBNADAA+/=] ready");
        assert_eq!(ok("[unfinished").code, None);
    }

    #[test]
    fn webalert_urls_may_contain_brackets() {
        let status = Status::parse(Condition::No, b"[WEBALERT https://x/?a[0]=1] Web login required.");
        assert_eq!(status.code, Some(Code::WebAlert));
        assert_eq!(status.text, "Web login required.");
    }

    #[test]
    fn copyuid_pairs_in_order() {
        assert_eq!(
            ok("[COPYUID 38505 304,319:321 3956:3959] Done").code,
            Some(Code::CopyUid { validity: 38505, pairs: vec![(304, 3956), (319, 3957), (320, 3958), (321, 3959)] })
        );
    }

    #[test]
    fn a_malformed_copyuid_is_ignored() {
        for odd in ["COPYUID 1 * 2", "COPYUID 1  ", "COPYUID", "COPYUID 1 1:3 5", "COPYUID 1 1:4000000000 1:4000000000"]
        {
            assert_eq!(ok(&format!("[{odd}] x")).code, Some(Code::Other("COPYUID".into())), "{odd}");
        }
    }

    #[test]
    fn backoff_in_words() {
        let status =
            Status::parse(Condition::Bad, b"Request is throttled. Suggested Backoff Time: 299988 milliseconds");
        assert_eq!(status.backoff_millis(), Some(299_988));
        assert_eq!(ok("fine").backoff_millis(), None);
    }

    #[test]
    fn text_is_fit_to_be_shown() {
        let status = Status::parse(Condition::No, b"a\x1b[31m\xff b");
        assert!(!status.text.contains('\x1b'));
        let long = vec![b'x'; 10_000];
        assert!(Status::parse(Condition::No, &long).text.len() <= MAX_TEXT);
    }
}
