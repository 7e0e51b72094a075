//! A fake of Microsoft Graph mail and of Entra's sign-in, for tests.
//!
//! It keeps a tenant in memory (applications, users, mailboxes with folders and messages), listens
//! on loopback over plain HTTP, and refuses what the service refuses, with its status and code: an
//! unknown property or query parameter, a filter that does not fit the order, a token with too few
//! permissions, a fifth request at once on a mailbox, the old id of a moved message. Delivered MIME
//! is taken apart and made anew as Exchange does it ([`Rendering`]). Faults are scripted with
//! [`Fault`] or drawn from a seed with [`Chaos`]; [`GraphFake::counters`] and
//! [`GraphFake::requests`] tell what was asked.
//!
//! ```
//! use mail_account::testing::graph::{Fault, GraphFake, Route};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let fake = GraphFake::start().await;
//! let app = fake
//!     .app("invoices")
//!     .secret("s3cret")
//!     .permissions(["Mail.ReadWrite"])
//!     .create();
//! let mailbox = fake.mailbox("facturen@contoso.nl").create();
//! mailbox.create_folder("Inbox/Processed");
//! mailbox.deliver("inbox", "From: a@example.org\r\nSubject: Invoice 1\r\n\r\nhello\r\n");
//!
//! // Point the code under test to these:
//! let (login, graph) = (fake.login_url(), fake.graph_url());
//! let (tenant, client_id) = (fake.tenant(), app.client_id());
//! assert!(login.starts_with("http://127.0.0.1:") && graph.starts_with("http://127.0.0.1:"));
//! # let _ = (tenant, client_id);
//!
//! // And make its life hard:
//! fake.fault(Fault::after_performing(504).on(Route::Move).times(1));
//!
//! // Afterwards, see what became of the mail and what was asked.
//! assert_eq!(mailbox.count("Inbox"), 1);
//! assert_eq!(fake.counters().graph_requests, 0);
//! # }
//! ```
//!
//! People sign in on pages that a browser can show ([`FakeBrowser`] does it without one): account list, password,
//! consent, and what a tenant's policy puts in their way. Their tokens, refresh tokens and device codes live and die
//! by the fake's clock. Requests are taken to the letter of the documentation; what it leaves open stands in
//! [`Settings`] and [`SignInSettings`].
//!
//! What Graph has and the fake has not answers 501 `NotModelledByTheFake`: calendars, contacts,
//! sending, uploads, subscriptions and rules.
//!
//! | file | what it holds |
//! |---|---|
//! | `state.rs`, `tenant.rs` | the tenant, and what a test puts into it and looks up in it |
//! | `proxy.rs` | the TCP side |
//! | `routes.rs`, `gate.rs` | one request, and what stands between it and its work |
//! | `faults.rs`, `log.rs` | what is to go wrong; what was asked |
//! | `odata.rs`, `address.rs`, `links.rs` | the query, the path, and links to next pages |
//! | `reply.rs`, `render.rs`, `content.rs` | answers: status and body, items as JSON, bytes that are not held |
//! | `folders.rs`, `messages.rs`, `attachments.rs`, `delta.rs`, `directory.rs` | Graph's resources |
//! | `batch.rs` | up to 20 requests in one |
//! | `ids.rs` | ids as Exchange makes them |
//! | `mime.rs`, `tnef.rs` | MIME and `winmail.dat` into the item that Exchange keeps, and back |
//! | `entra/` | the login site |

// For maintainers, from the wire inwards:
//   proxy.rs    TCP: reads requests, writes answers, and spoils them
//   routes.rs   one request: fault, answer, log; batch.rs: twenty in one
//   address.rs  what a path of Graph names; gate.rs: what stands between a request and its work
//   folders.rs, messages.rs, attachments.rs, directory.rs, delta.rs   the work; links.rs: next pages
//   entra/      the login site: tokens, and the pages where people sign in
//   odata.rs    the query, strictly
//   render.rs   items as JSON; mime.rs: MIME to items and back; tnef.rs: winmail.dat
//   state.rs    the tenant; ids.rs: ids; content.rs: bytes that are described instead of kept
//   faults.rs   scripts and chaos; log.rs: counters and the request log; reply.rs: answers
mod address;
mod attachments;
mod batch;
mod content;
mod delta;
mod directory;
mod entra;
mod faults;
mod folders;
mod gate;
mod ids;
mod links;
mod log;
mod messages;
mod mime;
mod odata;
mod proxy;
mod render;
mod reply;
mod routes;
mod state;
mod tenant;
mod tnef;

pub use entra::{Answer, FakeBrowser, ImapAnswer, Platform, Rotation, SignInSettings};
pub use faults::{Chaos, ChaosKind, Fault, RetryAfter};
pub use log::{Counters, LoggedRequest, Route};
pub use mime::Rendering;
pub use state::{Language, MailboxState, Paging, Settings};
pub use tenant::{App, AppBuilder, Attached, GeneratedMail, Mailbox, MailboxBuilder, StoredAttachment, StoredMessage};

use proxy::{Extras, Site};
use routes::Incoming;
use state::{ActiveFault, State};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// What all parts of the fake hold on to.
pub(crate) struct Shared {
    state: Mutex<State>,
    extras: Mutex<HashMap<u64, Extras>>,
}

impl Shared {
    /// A test that panicked while it held the lock must not hide its own message behind ours.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extras(&self) -> MutexGuard<'_, HashMap<u64, Extras>> {
        self.extras.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take_extras(&self, number: u64) -> Option<Extras> {
        self.extras().remove(&number)
    }

    pub(crate) fn count_sent(&self, bytes: u64) {
        self.state().counters.bytes_sent += bytes;
    }
}

/// Hands requests from wiremock to the fake. The body of the answer does not come back this way.
struct Responder {
    shared: Arc<Shared>,
}

impl Respond for Responder {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let mut headers = Vec::new();
        let (mut target, mut number, mut site, mut no_length) = (String::new(), 0, Site::Graph, false);
        for (name, value) in &request.headers {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            match name.as_str() {
                proxy::TARGET => target = value,
                proxy::NUMBER => number = value.parse().unwrap_or_default(),
                proxy::SITE if value == Site::Login.name() => site = Site::Login,
                proxy::SITE => site = Site::Graph,
                proxy::NO_LENGTH => no_length = true,
                name => headers.push((name.to_owned(), value)),
            }
        }
        let incoming = Incoming {
            site,
            method: request.method.as_str(),
            target: &target,
            headers: &headers,
            body: &request.body,
            no_length,
        };
        let answer = routes::handle(&self.shared, &incoming);
        let mut template = ResponseTemplate::new(answer.status);
        for (name, value) in &answer.headers {
            // A client's own header may come back in an answer; what is no header value is left out.
            let clean: String = value.chars().filter(|c| !c.is_control()).collect();
            template = template.append_header(name.as_str(), clean.as_str());
        }
        self.shared.extras().insert(
            number,
            Extras { body: answer.body, transport: answer.transport, delay: answer.delay, permits: answer.permits },
        );
        template
    }
}

/// The running fake. Clones are the same fake; it ends with the last of them.
#[derive(Clone)]
pub struct GraphFake {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    login: SocketAddr,
    graph: SocketAddr,
    _stop: watch::Sender<()>,
    _server: MockServer,
}

impl fmt::Debug for GraphFake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphFake")
            .field("login", &self.inner.login)
            .field("graph", &self.inner.graph)
            .finish_non_exhaustive()
    }
}

impl GraphFake {
    /// Starts a fake on free ports of the loopback interface.
    ///
    /// # Panics
    ///
    /// If the machine gives no port or thread.
    pub async fn start() -> Self {
        Self::start_on(0, 0).await.expect("the loopback interface has free ports")
    }

    /// Starts a fake on these ports; 0 takes a free one.
    ///
    /// # Errors
    ///
    /// If a port is in use.
    pub async fn start_on(graph_port: u16, login_port: u16) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::new(State::new()), extras: Mutex::new(HashMap::new()) });
        let bind = |port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let (graph, login) = (bind(graph_port)?, bind(login_port)?);
        let (graph_address, login_address) = (graph.local_addr()?, login.local_addr()?);
        {
            let mut state = shared.state();
            state.graph_root = format!("http://{graph_address}");
            state.login_root = format!("http://{login_address}");
        }
        let server = MockServer::builder().disable_request_recording().start().await;
        Mock::given(wiremock::matchers::any())
            .respond_with(Responder { shared: Arc::clone(&shared) })
            .mount(&server)
            .await;
        let upstream = *server.address();
        let (stop, stopped) = watch::channel(());
        let for_proxy = Arc::clone(&shared);
        // A runtime of its own: a test that blocks its runtime, or pauses its clock, must not stop
        // the other side of the wire.
        std::thread::Builder::new().name("graph-fake".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime for the fake's proxy");
            runtime.block_on(async move {
                let both = [(graph, Site::Graph), (login, Site::Login)].map(|(listener, site)| {
                    listener.set_nonblocking(true).expect("a listener can be made non-blocking");
                    let listener = TcpListener::from_std(listener).expect("a listener for the proxy");
                    proxy::serve(listener, upstream, site, Arc::clone(&for_proxy), stopped.clone())
                });
                futures::future::join_all(both).await;
            });
        })?;
        Ok(GraphFake {
            inner: Arc::new(Inner { shared, login: login_address, graph: graph_address, _stop: stop, _server: server }),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.shared.state()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// The login authority, without tenant: `http://127.0.0.1:PORT`.
    pub fn login_url(&self) -> String {
        format!("http://{}", self.inner.login)
    }

    /// The Graph root, without version: `http://127.0.0.1:PORT`.
    pub fn graph_url(&self) -> String {
        format!("http://{}", self.inner.graph)
    }

    /// The tenant's id. Its domains (`contoso.nl` and those of its mailboxes) name it as well.
    pub fn tenant(&self) -> String {
        self.state().tenant_id.clone()
    }

    /// A new application registration with this display name.
    pub fn app(&self, name: &str) -> AppBuilder {
        AppBuilder::new(self, name)
    }

    /// A new user with this address, and a mailbox.
    pub fn mailbox(&self, address: &str) -> MailboxBuilder {
        MailboxBuilder::new(self, address)
    }

    /// Changes what the documentation leaves open. Applies from the next request or delivery on.
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.state().settings);
    }

    /// Adds a fault script. Scripts are asked in the order in which they were added.
    pub fn fault(&self, fault: Fault) -> FaultHandle {
        let mut state = self.state();
        let id = state.next_fault;
        state.next_fault += 1;
        state.faults.push(ActiveFault { id, fault, until: None });
        FaultHandle { shared: Arc::clone(&self.inner.shared), id }
    }

    /// Takes all fault scripts away.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Puts random faults on requests, or stops that with `None`.
    pub fn chaos(&self, chaos: impl Into<Option<Chaos>>) {
        self.state().chaos = chaos.into();
    }

    /// How often chaos struck, by kind.
    pub fn chaos_struck(&self) -> BTreeMap<String, u64> {
        self.state().chaos_struck.clone()
    }

    /// What was asked so far.
    pub fn counters(&self) -> Counters {
        self.state().counters.clone()
    }

    /// Sets all counters to zero and empties the log.
    pub fn reset_counters(&self) {
        let mut state = self.state();
        state.counters = Counters::default();
        state.log.clear();
        state.chaos_struck.clear();
    }

    /// Every request so far, parts of batches included, in the order of their answers.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.state().log.clone()
    }

    /// The fake's clock.
    pub fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.state().now()).unwrap_or_default()
    }

    /// Sets the clock; it goes on from there.
    pub fn set_time(&self, time: jiff::Timestamp) {
        let mut state = self.state();
        state.frozen = None;
        state.ahead = time.as_microsecond() - jiff::Timestamp::now().as_microsecond();
    }

    /// Moves the clock ahead: tokens expire, throttles end.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state();
        let by = by.as_micros() as i64;
        state.ahead += by;
        if let Some(frozen) = &mut state.frozen {
            *frozen += by;
        }
    }

    /// Stops the clock at this time. [`GraphFake::set_time`] lets it run again.
    pub fn freeze_time(&self, time: jiff::Timestamp) {
        self.state().frozen = Some(time.as_microsecond());
    }

    /// Makes every delta token that was handed out so far unknown: 410 `SyncStateNotFound`.
    pub fn forget_sync_state(&self) {
        for user in &mut self.state().users {
            user.store.change += 1;
            user.store.oldest_delta = user.store.change;
        }
    }

    /// Waits until no request is in flight on any mailbox; `false` if that takes longer.
    pub async fn idle(&self, patience: Duration) -> bool {
        let end = std::time::Instant::now() + patience;
        loop {
            if self.state().in_flight.values().all(|count| *count == 0) {
                return true;
            }
            if std::time::Instant::now() >= end {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A fault script in force.
#[derive(Clone)]
pub struct FaultHandle {
    shared: Arc<Shared>,
    id: u64,
}

impl FaultHandle {
    /// How many requests it met.
    pub fn hits(&self) -> u64 {
        self.shared.state().faults.iter().find(|active| active.id == self.id).map_or(0, |active| active.fault.hits)
    }

    /// Ends it.
    pub fn remove(&self) {
        self.shared.state().faults.retain(|active| active.id != self.id);
    }
}

impl fmt::Debug for FaultHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultHandle").field("hits", &self.hits()).finish_non_exhaustive()
    }
}
