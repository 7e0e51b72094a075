//! Links to the next page, and the position that one holds.

use super::address::segments;
use super::gate::Call;
use super::odata::Options;
use super::reply::Refusal;

impl Call<'_> {
    /// A whole URL with all parameters, in the form that the service prefers.
    pub(super) fn next_link(&self, options: &Options, next: u64, token: bool) -> String {
        let (name, value) = if token { ("$skiptoken", skip_token(next)) } else { ("$skip", next.to_string()) };
        self.link(options, name, &value)
    }

    pub(super) fn link(&self, options: &Options, name: &str, value: &str) -> String {
        const PAGING: [&str; 3] = ["$skip", "$skiptoken", "$deltatoken"];
        let mut url = format!("{}/v1.0", self.state.graph_root);
        let segments = segments(self.path).unwrap_or_default();
        let mut keyed = false;
        for segment in &segments {
            let collection =
                ["users", "mailfolders", "messages", "childfolders"].contains(&segment.to_ascii_lowercase().as_str());
            if keyed && !segment.eq_ignore_ascii_case("delta") {
                url.push_str(&format!("('{}')", encode(&segment.replace('\'', "''"))));
                keyed = false;
            } else {
                url.push('/');
                url.push_str(segment);
                keyed = collection;
            }
        }
        let mut separator = '?';
        let kept = options.raw.iter().filter(|(name, _)| !PAGING.contains(&name.to_ascii_lowercase().as_str()));
        for (name, value) in kept.map(|(name, value)| (name.as_str(), value.as_str())).chain([(name, value)]) {
            url.push(separator);
            separator = '&';
            url.push_str(&format!("{name}={}", encode(value).replace("%20", "+")));
        }
        url
    }
}

fn encode(text: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~')
        .remove(b'@')
        .remove(b'=')
        .remove(b'$')
        .remove(b',')
        .remove(b'(')
        .remove(b')')
        .remove(b':');
    percent_encoding::utf8_percent_encode(text, KEPT).to_string()
}

fn skip_token(position: u64) -> String {
    base64_simd::URL_SAFE_NO_PAD.encode_to_string(format!("fake-page:{position}"))
}

/// Where a page starts, from `$skip` or `$skiptoken`.
pub(super) fn position(options: &Options) -> Result<u64, Refusal> {
    let Some(token) = &options.skip_token else {
        return Ok(options.skip);
    };
    base64_simd::URL_SAFE_NO_PAD
        .decode_to_vec(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| text.strip_prefix("fake-page:")?.parse().ok())
        .ok_or_else(|| Refusal::bad_request("The $skiptoken is not valid."))
}
