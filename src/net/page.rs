//! Lists that come in pages (OData 4.01, section 11.2.6.7).

use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use crate::{Error, ErrorKind, Result};

/// One page: its entries still as JSON, so that one that cannot be understood does not spoil the others.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    pub(crate) entries: Vec<&'a RawValue>,
    /// Whole, and to be used as it is: it carries every parameter of the first request, but no header.
    pub(crate) next: Option<String>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    // No default: without it this is not a list, and must not look like an empty one.
    #[serde(borrow)]
    value: Vec<&'a RawValue>,
    #[serde(default, rename = "@odata.nextLink")]
    next: Option<String>,
}

impl<'a> Page<'a> {
    /// Reads a page.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`] for anything but a whole JSON list: HTML, half a page, nothing at all.
    pub(crate) fn read(body: &'a [u8]) -> Result<Self> {
        let envelope: Envelope<'a> = serde_json::from_slice(body).map_err(|e| {
            Error::new(ErrorKind::Malformed, "the service's answer is not the list that was asked for").with_source(e)
        })?;
        Ok(Self { entries: envelope.value, next: envelope.next.filter(|next| !next.is_empty()) })
    }
}

/// Checks that a link leads to the service itself: the token goes with it.
///
/// # Errors
///
/// [`ErrorKind::Malformed`] naming the foreign host.
pub(crate) fn follow(link: &str, service: &Url) -> Result<Url> {
    let bad = |what: String| {
        Error::new(ErrorKind::Malformed, format!("the service sent a link to its next page that {what}"))
    };
    let url = Url::parse(link).map_err(|e| bad("is not a URL".into()).with_source(e))?;
    if url.origin() != service.origin() {
        let host = url.host_str().unwrap_or("nowhere");
        return Err(bad(format!("leads to `{host}`; it was not followed, because the token would go there too")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("has a user name in it; it was not followed".into()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_list_is_a_page() {
        let page =
            Page::read(br#"{"@odata.context":"x","value":[{"id":"a"},7],"@odata.nextLink":"https://x/y"}"#).unwrap();
        assert_eq!((page.entries.len(), page.next.as_deref()), (2, Some("https://x/y")));
        assert!(Page::read(br#"{"value":[]}"#).unwrap().next.is_none());
        for bad in [
            &b""[..],
            b"<html>Sign in to the network</html>",
            b"{}",
            br#"{"value":null}"#,
            br#"{"value":{}}"#,
            br#"{"value":[{"id":"a"},{"id":"#,
            br#"{"error":{"code":"x"}}"#,
            b"[]",
        ] {
            assert_eq!(Page::read(bad).unwrap_err().kind(), ErrorKind::Malformed, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn the_token_goes_only_to_the_service() {
        let service = Url::parse("https://graph.microsoft.com").unwrap();
        let link = "https://graph.microsoft.com/v1.0/users/a%40b/messages?$skiptoken=x%3D%3D";
        assert_eq!(follow(link, &service).unwrap().as_str(), link);
        for bad in [
            "https://graph.microsoft.com.evil.example/v1.0",
            "http://graph.microsoft.com/v1.0",
            "https://graph.microsoft.com:444/v1.0",
            "https://graph.microsoft.com@evil.example/",
            "https://user@graph.microsoft.com/",
            "/v1.0/next",
        ] {
            assert_eq!(follow(bad, &service).unwrap_err().kind(), ErrorKind::Malformed, "{bad}");
        }
    }
}
