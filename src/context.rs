//! What every part takes from outside: the clock, sleep and randomness. Tests replace them.

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

/// The clock and the randomness that everything uses; cheap to clone.
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
}

impl Context {
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
        Self { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) }
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
