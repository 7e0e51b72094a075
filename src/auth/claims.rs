//! What an access token says of itself, for help texts only.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Auth;
use crate::Secret;

/// What an access token of Microsoft's says of itself ("Access token claims reference", Microsoft identity platform).
///
/// A hint and never a gate: tokens are opaque to their holder by contract, may be encrypted or change, and what
/// Exchange's RBAC for Applications grants does not stand in them. Holds nothing that could be used to sign in.
///
/// ```
/// use mail_account::{Secret, auth::{Auth, Claims}};
///
/// // {"alg":"none"} . {"aud":"https://graph.microsoft.com","roles":["Mail.ReadWrite"],"appid":"1111"} . (no signature)
/// let token = Secret::new(
///     "eyJhbGciOiJub25lIn0.eyJhdWQiOiJodHRwczovL2dyYXBoLm1pY3Jvc29mdC5jb20iLCJyb2xlcyI6WyJNYWlsLlJlYWRXcml0ZSJdLCJhcHBpZCI6IjExMTEifQ.",
/// );
/// let claims = Claims::of(&token).unwrap();
/// assert_eq!(claims.roles, ["Mail.ReadWrite"]);
/// assert_eq!(claims.grant(), Auth::App);
/// assert!(Claims::of(&Secret::new("EwB4A8l6BAAU-opaque")).is_none());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claims {
    /// `aud`: the service that the token is for.
    pub audience: Option<String>,
    /// `tid`: the tenant that gave it.
    pub tenant: Option<String>,
    /// `appid` or `azp`: the application.
    pub client_id: Option<String>,
    /// `roles`: its application permissions.
    pub roles: Vec<String>,
    /// `scp`: its delegated permissions.
    pub scopes: Vec<String>,
}

impl Claims {
    /// Reads them out of a token, without checking its signature; `None` when it is no JWT that can be read.
    #[must_use]
    pub fn of(token: &Secret) -> Option<Self> {
        #[derive(Deserialize)]
        struct Payload {
            #[serde(default)]
            aud: Value,
            #[serde(default)]
            tid: Value,
            #[serde(default)]
            appid: Value,
            #[serde(default)]
            azp: Value,
            #[serde(default)]
            roles: Value,
            #[serde(default)]
            scp: Value,
        }
        let mut parts = token.expose().split('.');
        let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
        let json = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(payload.trim_end_matches('=')).ok()?;
        // A list would do for the struct as well.
        let object: Map<String, Value> = serde_json::from_slice(&json).ok()?;
        let payload: Payload = serde_json::from_value(Value::Object(object)).ok()?;
        let text = |value: &Value| match value {
            Value::Array(all) => all.first().and_then(Value::as_str).map(clean),
            value => value.as_str().map(clean),
        };
        let list = |value: &Value| match value {
            Value::Array(all) => all.iter().filter_map(Value::as_str).map(clean).collect(),
            Value::String(all) => all.split_whitespace().map(clean).collect(),
            _ => Vec::new(),
        };
        Some(Self {
            audience: text(&payload.aud),
            tenant: text(&payload.tid),
            client_id: text(&payload.appid).or_else(|| text(&payload.azp)),
            roles: list(&payload.roles),
            scopes: list(&payload.scp),
        })
    }

    /// Whose token it is: a person's has scopes. (A person may have roles of the app's own, too.)
    #[must_use]
    pub fn grant(&self) -> Auth {
        if self.scopes.is_empty() { Auth::App } else { Auth::Delegated }
    }

    /// The permissions that count for this kind of token.
    #[must_use]
    pub fn permissions(&self) -> &[String] {
        if self.scopes.is_empty() { &self.roles } else { &self.scopes }
    }
}

/// It is shown to people.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> Secret {
        let part = |text: &str| base64_simd::URL_SAFE_NO_PAD.encode_to_string(text);
        Secret::new(format!("{}.{}.c2ln", part(r#"{"alg":"RS256"}"#), part(payload)))
    }

    #[test]
    fn a_persons_token_and_an_apps() {
        let person = Claims::of(&token(
            r#"{"aud":["00000003-0000-0000-c000-000000000000"],"azp":"1","scp":"Mail.Read User.Read","roles":["Task.Write"]}"#,
        ));
        let person = person.unwrap();
        assert_eq!(
            (person.grant(), person.permissions()),
            (Auth::Delegated, &["Mail.Read".into(), "User.Read".into()][..])
        );
        assert_eq!(person.audience.as_deref(), Some("00000003-0000-0000-c000-000000000000"));
        assert_eq!(person.client_id.as_deref(), Some("1"));
        // Nothing granted, or by Exchange's own roles.
        let app = Claims::of(&token(r#"{"aud":"https://graph.microsoft.com","appid":"2","tid":"3"}"#)).unwrap();
        assert_eq!((app.grant(), app.permissions().len(), app.tenant.as_deref()), (Auth::App, 0, Some("3")));
    }

    #[test]
    fn what_is_no_token_of_that_kind_says_nothing() {
        for text in ["", "opaque", "a.b", "a.b.c", "..", token("[]").expose(), token("no").expose()] {
            assert_eq!(Claims::of(&Secret::new(text.to_owned())), None, "{text}");
        }
        // Other shapes than the usual ones are survived.
        let odd = Claims::of(&token(r#"{"aud":1,"roles":"Mail.Read","scp":null,"tid":{}}"#)).unwrap();
        assert_eq!((odd.audience, odd.roles, odd.scopes.len()), (None, vec!["Mail.Read".to_owned()], 0));
    }
}
