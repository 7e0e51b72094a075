//! Fault scripts: what goes wrong, for which requests, how often. And chaos, from a seed.

use super::content::mix;
use super::log::Route;
use std::time::Duration;

/// The `Retry-After` of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryAfter {
    /// No such header.
    Missing,
    /// The header's text as given: `"1"`, `"2.128"`, or nonsense.
    Text(String),
    /// The HTTP date this much after the fake's clock.
    DateIn(Duration),
}

impl RetryAfter {
    /// `Retry-After: 2.128`, as Microsoft's sample shows it.
    pub fn decimal() -> Self {
        RetryAfter::Text("2.128".into())
    }
}

impl From<&str> for RetryAfter {
    fn from(text: &str) -> Self {
        RetryAfter::Text(text.to_owned())
    }
}

/// What happens on the wire after the answer was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// The connection is closed with half of the body sent.
    CutInBody,
    /// The connection is reset with half of the body sent.
    ResetInBody,
    /// The connection is reset without an answer.
    ResetBeforeAnswer,
    /// Few bytes at a time.
    Trickle { bytes: usize, pause: Duration },
    /// Half of the body, then silence.
    StallInBody,
    /// Silence.
    Stall,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// 429 to every request that matches until the time is over.
    Throttle {
        lasting: Duration,
        retry_after: RetryAfter,
    },
    /// Refused without being performed.
    Error {
        status: u16,
        code: String,
        message: String,
        retry_after: RetryAfter,
    },
    /// Performed, then answered as if it had failed.
    AfterPerforming {
        status: u16,
    },
    /// A page of a gateway in between.
    Html {
        status: u16,
    },
    /// Half of the JSON, in an HTTP answer that is whole.
    CutJson,
    Wire(Transport),
    /// The token is refused as expired, from now on.
    TokenExpired,
    /// 401 with a claims challenge.
    ClaimsChallenge {
        claims: String,
    },
    /// Someone else moves the message away before the request is performed.
    MovedFirst {
        folder: String,
    },
    /// Someone else deletes the message for good before the request is performed.
    DeletedFirst,
    /// The token endpoint refuses with this AADSTS code.
    Entra {
        status: u16,
        error: String,
        code: u32,
        message: String,
    },
}

impl Kind {
    /// Faults of the connection concern whole HTTP requests, not the parts of a batch.
    fn fits(&self, in_batch: bool, route: Route) -> bool {
        let login = route.at_login();
        match self {
            // What `$value` answers is no JSON, and bytes that are simply fewer cannot be told from the right ones.
            Kind::CutJson => !in_batch && !matches!(route, Route::MessageValue | Route::AttachmentValue),
            Kind::Html { .. } | Kind::Wire(_) => !in_batch,
            Kind::Entra { .. } => matches!(route, Route::Token | Route::Authorize | Route::DeviceCode),
            Kind::TokenExpired | Kind::ClaimsChallenge { .. } => !login && !in_batch,
            Kind::MovedFirst { .. } | Kind::DeletedFirst => route.names_a_message(),
            // A batch as a whole is not performed and refused; its parts are.
            Kind::AfterPerforming { .. } => !login,
            Kind::Throttle { .. } | Kind::Error { .. } => true,
        }
    }
}

/// One rule: what goes wrong, and for which requests.
///
/// Without any condition a rule meets every request. Conditions add up.
///
/// ```
/// use mail_account::testing::graph::{Fault, RetryAfter, Route};
/// use std::time::Duration;
///
/// // Two moves time out although they were performed.
/// let lost = Fault::after_performing(504).on(Route::Move).times(2);
/// // The third page is refused for 40 seconds.
/// let busy = Fault::throttle(Duration::from_secs(40), RetryAfter::decimal())
///     .on(Route::ListMessages)
///     .nth(3);
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    pub(crate) kind: Kind,
    routes: Vec<Route>,
    method: Option<String>,
    mailbox: Option<String>,
    skip: u64,
    times: Option<u64>,
    probability: Option<(f64, u64)>,
    parts: Option<bool>,
    seen: u64,
    pub(crate) hits: u64,
}

impl Fault {
    fn new(kind: Kind) -> Self {
        Fault {
            kind,
            routes: Vec::new(),
            method: None,
            mailbox: None,
            skip: 0,
            times: None,
            probability: None,
            parts: None,
            seen: 0,
            hits: 0,
        }
    }

    /// From the first request that matches, all that match get 429 `ApplicationThrottled` for this
    /// long by the fake's clock.
    pub fn throttle(lasting: Duration, retry_after: RetryAfter) -> Self {
        Fault::new(Kind::Throttle { lasting, retry_after })
    }

    /// 429 `ApplicationThrottled` to each request that matches.
    pub fn too_many_requests(retry_after: RetryAfter) -> Self {
        Fault::new(Kind::Error {
            status: 429,
            code: "ApplicationThrottled".into(),
            message: "Application is over its MailboxConcurrency limit.".into(),
            retry_after,
        })
    }

    /// The usual 500, 502, 503 or 504: code `UnknownError`, no message. Nothing is performed.
    pub fn unavailable(status: u16) -> Self {
        Fault::new(Kind::Error {
            status,
            code: "UnknownError".into(),
            message: String::new(),
            retry_after: RetryAfter::Missing,
        })
    }

    /// Any refusal in Graph's error envelope. Nothing is performed.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        Fault::new(Kind::Error { status, code: code.into(), message: message.into(), retry_after: RetryAfter::Missing })
    }

    /// The request is performed, and then answered with this status and `UnknownError`.
    pub fn after_performing(status: u16) -> Self {
        Fault::new(Kind::AfterPerforming { status })
    }

    /// A gateway's HTML page with this status, 200 included. Nothing is performed.
    pub fn html(status: u16) -> Self {
        Fault::new(Kind::Html { status })
    }

    /// The request is performed; the JSON of the answer stops half way, in a complete HTTP answer.
    pub fn cut_json() -> Self {
        Fault::new(Kind::CutJson)
    }

    /// The request is performed; the connection is closed half way through the body.
    pub fn cut_in_body() -> Self {
        Fault::new(Kind::Wire(Transport::CutInBody))
    }

    /// The request is performed; the connection is reset half way through the body.
    pub fn reset_in_body() -> Self {
        Fault::new(Kind::Wire(Transport::ResetInBody))
    }

    /// The request is performed; the connection is reset before any of the answer.
    pub fn reset_before_answer() -> Self {
        Fault::new(Kind::Wire(Transport::ResetBeforeAnswer))
    }

    /// The answer comes in pieces of this many bytes with a pause before each.
    pub fn trickle(bytes: usize, pause: Duration) -> Self {
        Fault::new(Kind::Wire(Transport::Trickle { bytes: bytes.max(1), pause }))
    }

    /// The request is performed; half of the body comes, then nothing more on an open connection.
    pub fn stall_in_body() -> Self {
        Fault::new(Kind::Wire(Transport::StallInBody))
    }

    /// The request is performed; no answer comes on an open connection.
    pub fn stall() -> Self {
        Fault::new(Kind::Wire(Transport::Stall))
    }

    /// 401 `InvalidAuthenticationToken`; the token stays refused afterwards.
    pub fn token_expired() -> Self {
        Fault::new(Kind::TokenExpired)
    }

    /// 401 with `error="insufficient_claims"` and these claims (JSON) in base64. The token stays
    /// refused afterwards.
    pub fn claims_challenge(claims: &str) -> Self {
        Fault::new(Kind::ClaimsChallenge { claims: claims.into() })
    }

    /// Someone else moves the message to this folder first. The folder is made if it is missing.
    pub fn moved_first(folder: &str) -> Self {
        Fault::new(Kind::MovedFirst { folder: folder.into() })
    }

    /// Someone else deletes the message first.
    pub fn deleted_first() -> Self {
        Fault::new(Kind::DeletedFirst)
    }

    /// The token endpoint refuses: `Fault::entra(400, "invalid_grant", 700082, "...")`. Code 0 leaves the AADSTS code
    /// out, for errors of OAuth that Entra does not list: `Fault::entra(400, "slow_down", 0, "")`.
    pub fn entra(status: u16, error: &str, code: u32, message: &str) -> Self {
        Fault::new(Kind::Entra { status, error: error.into(), code, message: message.into() }).on(Route::Token)
    }

    /// The token endpoint refuses with this AADSTS code, and with the status, `error`, `suberror` and text that go
    /// with it. Any code of "Microsoft Entra authentication & authorization error codes" that a mail client meets.
    pub fn aadsts(code: u32) -> Self {
        let (status, error, message) = super::entra::usual(code);
        Fault::entra(status, &error, code, &message)
    }

    /// The same by redirect to the application, from the authorize endpoint.
    pub fn aadsts_redirect(code: u32) -> Self {
        let mut fault = Fault::aadsts(code);
        fault.routes = vec![Route::Authorize];
        fault
    }

    /// Changes the `Retry-After` of a refusal.
    #[must_use]
    pub fn with_retry_after(mut self, value: RetryAfter) -> Self {
        if let Kind::Throttle { retry_after, .. } | Kind::Error { retry_after, .. } = &mut self.kind {
            *retry_after = value;
        }
        self
    }

    /// Only requests of this kind; called again, also of that one.
    #[must_use]
    pub fn on(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Only requests with this method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_ascii_uppercase());
        self
    }

    /// Only requests about the mailbox with this address or id.
    #[must_use]
    pub fn mailbox(mut self, mailbox: &str) -> Self {
        self.mailbox = Some(mailbox.to_owned());
        self
    }

    /// Only the n-th request that matches, counted from 1.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Self {
        self.skip = n.saturating_sub(1);
        self.times = Some(1);
        self
    }

    /// Lets the first `n` that match pass.
    #[must_use]
    pub fn after(mut self, n: u64) -> Self {
        self.skip = n;
        self
    }

    /// At most this often.
    #[must_use]
    pub fn times(mut self, n: u64) -> Self {
        self.times = Some(n);
        self
    }

    /// With this probability (0 to 1), decided by a seed.
    #[must_use]
    pub fn with_probability(mut self, probability: f64, seed: u64) -> Self {
        self.probability = Some((probability, seed));
        self
    }

    /// Only parts of a `$batch`.
    #[must_use]
    pub fn in_batch(mut self) -> Self {
        self.parts = Some(true);
        self
    }

    /// Only requests that are no part of a `$batch`.
    #[must_use]
    pub fn outside_batch(mut self) -> Self {
        self.parts = Some(false);
        self
    }

    /// Whether the conditions on the request itself hold.
    pub(crate) fn would_match(&self, request: &Seen<'_>) -> bool {
        (self.routes.is_empty() || self.routes.contains(&request.route))
            && self.method.as_deref().is_none_or(|method| method == request.method)
            && self
                .mailbox
                .as_deref()
                .is_none_or(|wanted| request.mailbox_names.iter().any(|name| name.eq_ignore_ascii_case(wanted)))
            && self.parts.is_none_or(|parts| parts == request.in_batch)
            && self.kind.fits(request.in_batch, request.route)
    }

    /// Whether the rule meets this request; counts it.
    pub(crate) fn strikes(&mut self, request: &Seen<'_>) -> bool {
        if !self.would_match(request) {
            return false;
        }
        self.seen += 1;
        if self.seen <= self.skip || self.times.is_some_and(|times| self.hits >= times) {
            return false;
        }
        if let Some((probability, seed)) = self.probability
            && unit(mix(seed ^ mix(self.seen))) >= probability
        {
            return false;
        }
        self.hits += 1;
        true
    }
}

/// What a rule sees of a request.
pub(crate) struct Seen<'a> {
    pub(crate) route: Route,
    pub(crate) method: &'a str,
    pub(crate) mailbox_names: &'a [String],
    pub(crate) in_batch: bool,
}

fn unit(value: u64) -> f64 {
    (value >> 11) as f64 / (1u64 << 53) as f64
}

/// A kind of fault that chaos draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChaosKind {
    /// 429 with one of the given `Retry-After`s.
    Throttled,
    /// 503 `UnknownError`.
    Unavailable,
    /// 504 `UnknownError`, nothing performed.
    GatewayTimeout,
    /// 504 `UnknownError` after performing.
    TimeoutAfterPerforming,
    /// 502 with a page of HTML.
    Html,
    /// JSON that stops half way.
    CutJson,
    /// Connection closed in mid-body.
    CutInBody,
    /// Connection reset in mid-body.
    ResetInBody,
    /// Connection reset before the answer.
    ResetBeforeAnswer,
    /// The answer in small pieces.
    Trickle,
    /// No answer at all.
    Stall,
    /// 401, the token is dead from then on.
    TokenExpired,
    /// Someone else moves the message first. Only if asked for.
    MovedFirst,
    /// Someone else deletes the message first. Only if asked for.
    DeletedFirst,
}

impl ChaosKind {
    /// Every kind that leaves the mailbox's messages alone.
    pub const ALL: [ChaosKind; 12] = [
        ChaosKind::Throttled,
        ChaosKind::Unavailable,
        ChaosKind::GatewayTimeout,
        ChaosKind::TimeoutAfterPerforming,
        ChaosKind::Html,
        ChaosKind::CutJson,
        ChaosKind::CutInBody,
        ChaosKind::ResetInBody,
        ChaosKind::ResetBeforeAnswer,
        ChaosKind::Trickle,
        ChaosKind::Stall,
        ChaosKind::TokenExpired,
    ];
}

/// Random faults on a share of all requests, the same ones for the same seed and order of requests.
#[derive(Clone, Debug)]
pub struct Chaos {
    percent: f64,
    state: u64,
    kinds: Vec<ChaosKind>,
    retry_after: Vec<RetryAfter>,
    trickle: (usize, Duration),
    folder: String,
}

impl Chaos {
    /// Faults of all kinds in [`ChaosKind::ALL`] on this percentage of requests and batch parts.
    pub fn new(percent: f64, seed: u64) -> Self {
        Chaos {
            percent,
            state: mix(seed),
            kinds: ChaosKind::ALL.to_vec(),
            retry_after: vec!["0.05".into(), RetryAfter::Missing, "0.128".into()],
            trickle: (4096, Duration::from_millis(1)),
            folder: "deleteditems".into(),
        }
    }

    /// Only these kinds.
    #[must_use]
    pub fn kinds(mut self, kinds: &[ChaosKind]) -> Self {
        self.kinds = kinds.to_vec();
        self
    }

    /// All but this kind.
    #[must_use]
    pub fn without(mut self, kind: ChaosKind) -> Self {
        self.kinds.retain(|known| *known != kind);
        self
    }

    /// The `Retry-After`s that 429s carry in turn. Short ones by default, so that tests end.
    #[must_use]
    pub fn retry_after(mut self, values: &[RetryAfter]) -> Self {
        self.retry_after = values.to_vec();
        self
    }

    /// Where [`ChaosKind::MovedFirst`] moves to.
    #[must_use]
    pub fn moved_to(mut self, folder: &str) -> Self {
        self.folder = folder.to_owned();
        self
    }

    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    pub(crate) fn strike(&mut self, request: &Seen<'_>) -> Option<(ChaosKind, Kind)> {
        // People at the pages are no client: only scripts trouble them.
        if request.route.at_login() && request.route != Route::Token {
            return None;
        }
        if unit(self.draw()) * 100.0 >= self.percent {
            return None;
        }
        let choice = self.draw();
        let candidates: Vec<(ChaosKind, Kind)> = self
            .kinds
            .clone()
            .into_iter()
            .map(|kind| (kind, self.make(kind, choice)))
            .filter(|(_, made)| made.fits(request.in_batch, request.route))
            .collect();
        let count = candidates.len().max(1);
        candidates.into_iter().nth((choice >> 8) as usize % count)
    }

    fn make(&self, kind: ChaosKind, choice: u64) -> Kind {
        let error = |status, code: &str, retry_after| Kind::Error {
            status,
            code: code.into(),
            message: String::new(),
            retry_after,
        };
        match kind {
            ChaosKind::Throttled => {
                let value = self
                    .retry_after
                    .get(choice as usize % self.retry_after.len().max(1))
                    .cloned()
                    .unwrap_or(RetryAfter::Missing);
                error(429, "ApplicationThrottled", value)
            }
            ChaosKind::Unavailable => error(503, "UnknownError", RetryAfter::Missing),
            ChaosKind::GatewayTimeout => error(504, "UnknownError", RetryAfter::Missing),
            ChaosKind::TimeoutAfterPerforming => Kind::AfterPerforming { status: 504 },
            ChaosKind::Html => Kind::Html { status: 502 },
            ChaosKind::CutJson => Kind::CutJson,
            ChaosKind::CutInBody => Kind::Wire(Transport::CutInBody),
            ChaosKind::ResetInBody => Kind::Wire(Transport::ResetInBody),
            ChaosKind::ResetBeforeAnswer => Kind::Wire(Transport::ResetBeforeAnswer),
            ChaosKind::Trickle => Kind::Wire(Transport::Trickle { bytes: self.trickle.0, pause: self.trickle.1 }),
            ChaosKind::Stall => Kind::Wire(Transport::Stall),
            ChaosKind::TokenExpired => Kind::TokenExpired,
            ChaosKind::MovedFirst => Kind::MovedFirst { folder: self.folder.clone() },
            ChaosKind::DeletedFirst => Kind::DeletedFirst,
        }
    }
}
