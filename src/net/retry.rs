//! The one retry policy: around one remote call, never around another retry.
//!
//! Two budgets, because a service that fails and one that asks for a pause are different things. Faults (silence,
//! refusals, broken answers, 5xx) may go on for [`Patience::faults`] without any progress; pauses the service asks for
//! are granted up to [`Patience::pauses`]. Both are kept twice: for the call, and in [`Health`] for everything that
//! goes to the same place, so that ten calls in a row do not each wait the whole time for a server that is down.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use jiff::Timestamp;

use crate::{Context, Error, ErrorKind, Patience, Result};

/// What one attempt came to.
#[derive(Debug)]
pub(crate) enum Attempt<T> {
    Done(T),
    /// Final.
    Fail(Error),
    /// No answer, or one that says "not now" without asking for a pause.
    Again(Error),
    /// The service asked for a pause, of at least this length where it says so.
    Pause(Option<Duration>, Error),
}

/// How one place (a mailbox behind one app, a token endpoint) is doing.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    calls: u32,
    failing: Option<Failing>,
    paused: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Timestamp,
    last: Timestamp,
}

impl Health {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place gave something useful.
    fn well(&self) {
        let mut state = self.lock();
        state.failing = None;
        state.paused = Duration::ZERO;
    }
}

/// The attempts at one call.
#[derive(Debug)]
pub(crate) struct Tries<'a> {
    context: &'a Context,
    health: &'a Health,
    patience: Patience,
    backoff: ExponentialBackoff,
    failing: Option<Timestamp>,
    paused: Duration,
}

/// A place that failed longer ago than this, with no call since, is given its full time again.
const FORGIVEN: Duration = Duration::from_secs(2);

/// What an attempt gets even when the time is used up.
const LAST_CHANCE: Duration = Duration::from_secs(3);

impl<'a> Tries<'a> {
    pub(crate) fn new(context: &'a Context, health: &'a Health) -> Self {
        let patience = context.patience();
        let now = context.now();
        let mut state = health.lock();
        let rested = |f: Failing| since(f.last, now) > FORGIVEN;
        if state.calls == 0 && state.failing.is_none_or(rested) {
            state.failing = None;
            state.paused = Duration::ZERO;
        }
        state.calls += 1;
        drop(state);
        Self { context, health, patience, backoff: backoff(patience), failing: None, paused: Duration::ZERO }
    }

    /// How long the next attempt may stay without progress.
    pub(crate) fn silence(&self) -> Duration {
        let left = self.patience.faults.saturating_sub(self.failing_for(self.context.now()));
        self.patience.silence.min(left.max(LAST_CHANCE))
    }

    /// Something useful arrived, though the call is not over.
    pub(crate) fn progress(&mut self) {
        self.health.well();
        self.failing = None;
        self.paused = Duration::ZERO;
        self.backoff = backoff(self.patience);
    }

    /// Waits before the next attempt after a fault.
    ///
    /// # Errors
    ///
    /// Gives `error` back when the time for faults is used up.
    pub(crate) async fn again(&mut self, error: Error) -> Result<()> {
        let now = self.context.now();
        self.failing.get_or_insert(now);
        {
            let mut state = self.health.lock();
            let since = state.failing.map_or(now, |f| f.since);
            state.failing = Some(Failing { since, last: now });
        }
        let wait = self.context.jitter(self.backoff.next().unwrap_or(self.patience.longest_wait));
        if self.failing_for(now) + wait >= self.patience.faults {
            return Err(error);
        }
        tracing::debug!(wait_ms = millis(wait), error = %error.chain(), "trying again");
        self.context.sleep(wait).await;
        Ok(())
    }

    /// Waits as the service asked, or longer.
    ///
    /// # Errors
    ///
    /// Gives `error` back when the time for pauses is used up.
    pub(crate) async fn pause(&mut self, asked: Option<Duration>, error: Error) -> Result<()> {
        let wait = self.granted(asked, error)?;
        self.context.sleep(wait).await;
        Ok(())
    }

    /// The pause to make; without making it.
    pub(crate) fn granted(&mut self, asked: Option<Duration>, error: Error) -> Result<Duration> {
        // The service's figure is a lower bound, and 1 every time is a figure it has been seen to give.
        let own = self.backoff.next().unwrap_or(self.patience.longest_wait);
        let wait = self.context.jitter(asked.unwrap_or_default().max(own));
        self.paused += wait;
        let paused = {
            let mut state = self.health.lock();
            // The same pause is asked of four requests at once.
            state.paused = state.paused.max(self.paused);
            state.paused
        };
        if paused > self.patience.pauses {
            return Err(match asked {
                Some(asked) => error.with_retry_after(asked),
                None => error,
            });
        }
        tracing::debug!(wait_ms = millis(wait), error = %error.chain(), "making the pause that was asked for");
        Ok(wait)
    }

    fn failing_for(&self, now: Timestamp) -> Duration {
        let own = self.failing.map_or(Duration::ZERO, |then| since(then, now));
        let place = self.health.lock().failing.map_or(Duration::ZERO, |f| since(f.since, now));
        own.max(place)
    }
}

impl Drop for Tries<'_> {
    fn drop(&mut self) {
        let mut state = self.health.lock();
        state.calls = state.calls.saturating_sub(1);
    }
}

/// Runs out of patience with `$tries` or goes on; the loop that every call is made of.
macro_rules! attempts {
    ($tries:ident, $attempt:expr) => {
        loop {
            match $attempt {
                $crate::net::retry::Attempt::Done(done) => {
                    $tries.progress();
                    break Ok(done);
                }
                $crate::net::retry::Attempt::Fail(error) => break Err(error),
                $crate::net::retry::Attempt::Again(error) => {
                    if let Err(error) = $tries.again(error).await {
                        break Err(error);
                    }
                }
                $crate::net::retry::Attempt::Pause(asked, error) => {
                    if let Err(error) = $tries.pause(asked, error).await {
                        break Err(error);
                    }
                }
            }
        }
    };
}
pub(crate) use attempts;

fn backoff(patience: Patience) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(patience.first_wait)
        .with_max_delay(patience.longest_wait)
        .with_factor(2.0)
        .without_max_times()
        .build()
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

/// `Retry-After`: seconds, which Microsoft also sends with decimals, or a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        // Not a number, or beyond all reason: as if it were missing.
        return Duration::try_from_secs_f64(if seconds < 0.0 { 0.0 } else { seconds }).ok();
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(since(now, date))
}

/// The kinds of error that an attempt may be repeated for.
pub(crate) fn of_error<T>(error: Error) -> Attempt<T> {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Timeout => Attempt::Again(error),
        ErrorKind::Throttled => Attempt::Pause(error.retry_after(), error),
        _ => Attempt::Fail(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;

    use super::*;
    use crate::Clock;

    /// Time that passes only by waiting.
    #[derive(Debug)]
    struct Skipping(Mutex<Timestamp>);

    #[async_trait]
    impl Clock for Skipping {
        fn now(&self) -> Timestamp {
            *self.0.lock().unwrap()
        }

        async fn sleep(&self, wait: Duration) {
            let mut now = self.0.lock().unwrap();
            *now = now.checked_add(wait).unwrap();
        }
    }

    fn context() -> Context {
        Context::default().with_clock(Arc::new(Skipping(Mutex::new("2026-01-01T00:00:00Z".parse().unwrap()))))
    }

    fn down() -> Error {
        Error::new(ErrorKind::Unavailable, "down")
    }

    async fn until_given_up(context: &Context, health: &Health, asked: Option<Duration>, pause: bool) -> Duration {
        let began = context.now();
        let mut tries = Tries::new(context, health);
        let error: Result<()> =
            attempts!(tries, if pause { Attempt::Pause(asked, down()) } else { Attempt::Again(down()) });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable);
        since(began, context.now())
    }

    #[tokio::test]
    async fn faults_end_within_the_time_for_faults() {
        let (context, health) = (context(), Health::default());
        let took = until_given_up(&context, &health, None, false).await;
        assert!(took > Duration::from_secs(20) && took <= Duration::from_secs(40), "{took:?}");
        // The next call to the same place does not wait all that time again,
        let took = until_given_up(&context, &health, None, false).await;
        assert!(took < Duration::from_secs(10), "{took:?}");
        // but one of the next run does.
        context.sleep(Duration::from_secs(60)).await;
        let took = until_given_up(&context, &health, None, false).await;
        assert!(took > Duration::from_secs(20), "{took:?}");
    }

    #[tokio::test]
    async fn a_pause_that_is_asked_for_is_no_fault() {
        let (context, health) = (context(), Health::default());
        let took = until_given_up(&context, &health, Some(Duration::from_secs(30)), true).await;
        assert!(took > Duration::from_secs(200) && took <= Duration::from_secs(300), "{took:?}");
    }

    #[tokio::test]
    async fn what_the_service_asks_for_is_a_lower_bound() {
        let (context, health) = (context(), Health::default());
        let mut tries = Tries::new(&context, &health);
        for asked in [0.0, 1.0, 2.128, 45.0] {
            let asked = Duration::from_secs_f64(asked);
            assert!(tries.granted(Some(asked), down()).unwrap() >= asked);
        }
        // 1 every time is not obeyed to the letter: the own waits grow.
        let one = Some(Duration::from_secs(1));
        let mut tries = Tries::new(&context, &health);
        let waits: Vec<_> = (0..8).map(|_| tries.granted(one, down()).unwrap()).collect();
        assert!(waits[7] > Duration::from_secs(5), "{waits:?}");
    }

    #[tokio::test]
    async fn progress_gives_the_whole_time_again() {
        let (context, health) = (context(), Health::default());
        let mut tries = Tries::new(&context, &health);
        for _ in 0..50 {
            tries.again(down()).await.unwrap();
            tries.progress();
        }
        assert_eq!(tries.silence(), Patience::default().silence);
    }

    #[test]
    fn retry_after_has_three_forms() {
        let now = "2026-01-31T10:00:00Z".parse().unwrap();
        assert_eq!(retry_after("2.128", now), Some(Duration::from_millis(2128)));
        assert_eq!(retry_after(" 10 ", now), Some(Duration::from_secs(10)));
        assert_eq!(retry_after("Sat, 31 Jan 2026 10:00:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sat, 31 Jan 2026 09:00:00 GMT", now), Some(Duration::ZERO));
        for bad in ["", "soon", "-1x", "NaN", "inf", "1e400"] {
            assert_eq!(retry_after(bad, now), None, "{bad}");
        }
        assert_eq!(retry_after("-1", now), Some(Duration::ZERO));
    }
}
