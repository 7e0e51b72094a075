//! What the browser brings back: from the query of a redirect to what it says.

use crate::Secret;

/// The answer of a sign-in service, as it stands in the query of the redirect ("OAuth 2.0 authorization code flow" and
/// "Admin consent", Microsoft identity platform).
///
/// Nothing in it is proven: whoever can make a browser open a page can write one.
///
/// ```
/// use mail_account::auth::{Answer, Callback};
///
/// // An administrator's refusal says that consent was given as well.
/// let callback = Callback::parse("error=access_denied&admin_consent=True&state=x");
/// assert!(matches!(callback.answer, Answer::Refused { error, .. } if error == "access_denied"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Callback {
    /// Which hand-over it answers.
    pub state: Option<Secret>,
    /// What it says.
    pub answer: Answer,
}

/// What a [`Callback`] says.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Answer {
    /// It did not work.
    Refused {
        /// The OAuth error code, such as `access_denied`.
        error: String,
        /// The service's words; may be empty.
        description: String,
    },
    /// A person signed in; this is exchanged for tokens.
    Code(Secret),
    /// An administrator consented.
    Consent {
        /// The tenant for which, a hint only.
        tenant: Option<String>,
    },
    /// None of these.
    Nothing,
}

impl Callback {
    /// Reads the query of a redirect, or the whole URL. An error counts before anything else that it says.
    #[must_use]
    pub fn parse(query: &str) -> Self {
        // A question mark may also stand in a value (RFC 3986, section 3.4).
        let query =
            query.split_once('?').filter(|(url, _)| !url.contains(['=', '&'])).map_or(query, |(_, query)| query);
        let query = query.split_once('#').map_or(query, |(query, _)| query);
        let value = |name: &str| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.into_owned())
        };
        let answer = if let Some(error) = value("error") {
            Answer::Refused { error, description: value("error_description").unwrap_or_default() }
        } else if let Some(code) = value("code") {
            Answer::Code(Secret::new(code))
        } else if value("admin_consent").is_some_and(|given| given.eq_ignore_ascii_case("true")) {
            Answer::Consent { tenant: value("tenant") }
        } else {
            Answer::Nothing
        };
        Self { state: value("state").map(Secret::new), answer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_counts_first_and_nothing_is_taken_for_more_than_it_is() {
        let of = |query| Callback::parse(query);
        let code = of("?code=0.AbC%2Bd&state=s%201&session_state=x");
        assert!(matches!(&code.answer, Answer::Code(code) if code.expose() == "0.AbC+d"));
        assert_eq!(code.state.unwrap().expose(), "s 1");
        assert!(matches!(of("code=x&error=e&state=s").answer, Answer::Refused { error, .. } if error == "e"));
        let consent = of("https://host.example/cb?admin_consent=True&tenant=t-1&scope=a+b&state=s#frag");
        assert!(matches!(consent.answer, Answer::Consent { tenant: Some(tenant) } if tenant == "t-1"));
        assert!(matches!(of("admin_consent=False&state=s").answer, Answer::Nothing));
        assert!(matches!(of("code=&state=s").answer, Answer::Nothing));
        assert!(of("").state.is_none());
        for query in ["state=s&error=access_denied&error_description=why?", "?state=s&error=access_denied&x=?y"] {
            assert!(matches!(of(query).answer, Answer::Refused { error, .. } if error == "access_denied"), "{query}");
            assert_eq!(of(query).state.unwrap().expose(), "s");
        }
        assert!(!format!("{:?}", of("code=c0de&state=st4te")).contains("c0de"));
    }
}
