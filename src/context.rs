//! What every part takes from outside: the clock, sleep, randomness, patience and connections. Tests replace them.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;

/// The time of day, and waiting for it to pass.
#[async_trait]
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Returns after `wait`.
    async fn sleep(&self, wait: Duration);
}

/// Random bits: delivery ids, jitter, PKCE verifiers, states.
pub trait Random: fmt::Debug + Send + Sync + 'static {
    /// Fills `bytes` with bits nobody can foresee.
    fn fill(&self, bytes: &mut [u8]);
}

/// How long to wait for services. With the defaults an account whose server stays silent, refuses or breaks off for ever
/// ends with an error within 50 seconds; one that asks for a pause gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Patience {
    /// For a connection. Default 10 s.
    pub connect: Duration,
    /// Without a byte, while an answer is awaited or read. There is no limit on the whole: a large attachment takes as
    /// long as it takes. Default 20 s.
    pub silence: Duration,
    /// For everything that goes wrong in a row, without any progress. Default 40 s.
    pub faults: Duration,
    /// For the pauses that a service asks for in a row, without any progress. Default 5 min.
    pub pauses: Duration,
    /// Before the second attempt; doubled before each further one. Default 250 ms.
    pub first_wait: Duration,
    /// The longest that the wait grows to on its own. Default 8 s.
    pub longest_wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(20),
            faults: Duration::from_secs(40),
            pauses: Duration::from_secs(300),
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(8),
        }
    }
}

/// The clock, the randomness, the patience and the connections that everything uses; cheap to clone.
///
/// Accounts opened with clones of one context share HTTP connections, and the tokens of a registration.
///
/// ```
/// use mail_account::Context;
/// let context = Context::default();
/// assert!(context.now() > "2026-01-01T00:00:00Z".parse()?);
/// # Ok::<(), jiff::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Context {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    patience: Patience,
    #[cfg(feature = "oauth")]
    shared: crate::net::Shared,
    #[cfg(feature = "oauth")]
    worked: crate::auth::Worked,
}

impl Context {
    /// The same with other waiting times.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The same with connections and tokens of its own.
    pub(crate) fn apart(&self) -> Self {
        Self {
            #[cfg(feature = "oauth")]
            shared: crate::net::Shared::default(),
            ..self.clone()
        }
    }

    /// How long to wait for services.
    #[must_use]
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// HTTP clients and tokens.
    #[cfg(feature = "oauth")]
    pub(crate) fn shared(&self) -> &crate::net::Shared {
        &self.shared
    }

    /// Which of several secrets of an app worked last.
    #[cfg(feature = "oauth")]
    pub(crate) fn worked(&self) -> &crate::auth::Worked {
        &self.worked
    }

    /// The same with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The same with another source of randomness.
    #[must_use]
    pub fn with_random(mut self, random: Arc<dyn Random>) -> Self {
        self.random = random;
        self
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns after `wait`.
    pub async fn sleep(&self, wait: Duration) {
        self.clock.sleep(wait).await;
    }

    /// `N` random bytes.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes);
        bytes
    }

    /// `wait`, made up to a tenth longer, so that many callers do not come back at the same moment.
    #[must_use]
    pub fn jitter(&self, wait: Duration) -> Duration {
        let part = u32::from(u16::from_le_bytes(self.random()));
        wait + wait / 10 * part / u32::from(u16::MAX)
    }
}

impl Default for Context {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            patience: Patience::default(),
            #[cfg(feature = "oauth")]
            shared: crate::net::Shared::default(),
            #[cfg(feature = "oauth")]
            worked: crate::auth::Worked::default(),
        }
    }
}

#[derive(Debug)]
struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}

#[derive(Debug)]
struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        rand::fill(bytes);
    }
}
