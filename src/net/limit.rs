//! What Exchange allows one app on one mailbox ("Microsoft Graph service-specific throttling limits", Outlook): four
//! requests at a time, and 10,000 in ten minutes.
//!
//! The limits belong to app and mailbox, so all accounts of this process that meet on one mailbox share them, whoever
//! opened them: that is why the table is the process's own. It holds only mailboxes in use.
//!
//! The ten minutes are counted as a sliding window, exactly. A token bucket cannot: it either lets 10,000 plus its
//! burst through within ten minutes, or has to be slower than the service allows for ever.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::retry::Health;
use crate::Context;

/// Requests at a time.
pub(crate) const AT_ONCE: u32 = 4;

/// Requests within [`WINDOW`].
const WITHIN_WINDOW: u32 = 10_000;

/// Ten minutes, in seconds.
const WINDOW: i64 = 600;

/// Whose limit: service, app, mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LimitKey {
    pub(crate) service: String,
    pub(crate) app: String,
    pub(crate) mailbox: String,
}

/// The limit of one app on one mailbox. Fair: who comes first goes first, a batch included.
#[derive(Debug)]
pub(crate) struct Limiter {
    permits: Arc<Semaphore>,
    state: Mutex<State>,
    /// How the mailbox is doing; shared for the same reason.
    pub(crate) health: Health,
}

#[derive(Debug, Default)]
struct State {
    /// Requests per second of the clock, oldest first; only seconds with requests.
    sent: VecDeque<(i64, u32)>,
    within: u32,
    pause: Option<(Timestamp, Duration)>,
}

/// Permission for one request, or one batch, while it is under way.
#[derive(Debug)]
pub(crate) struct Permit {
    _permits: OwnedSemaphorePermit,
}

static IN_USE: LazyLock<Mutex<HashMap<LimitKey, Weak<Limiter>>>> = LazyLock::new(Mutex::default);

impl Limiter {
    /// The process's limiter for this app and mailbox.
    pub(crate) fn of(key: LimitKey) -> Arc<Self> {
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(limiter) = in_use.get(&key).and_then(Weak::upgrade) {
            return limiter;
        }
        // Looking through the table each time would make opening 10,000 accounts quadratic.
        if in_use.len() == in_use.capacity() {
            in_use.retain(|_, limiter| limiter.strong_count() > 0);
        }
        let limiter = Arc::new(Self::new());
        in_use.insert(key, Arc::downgrade(&limiter));
        limiter
    }

    fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(AT_ONCE as usize)), state: Mutex::default(), health: Health::default() }
    }

    /// Waits until `requests` more are allowed; a batch takes as many places as it has parts, up to all four, because
    /// that is how many of its parts Graph sends on at a time.
    pub(crate) async fn acquire(&self, requests: u32, context: &Context) -> Permit {
        loop {
            let permits = Arc::clone(&self.permits)
                .acquire_many_owned(requests.clamp(1, AT_ONCE))
                .await
                .expect("the semaphore is never closed");
            match self.admit(requests, context.now()) {
                Ok(()) => return Permit { _permits: permits },
                Err(wait) => {
                    drop(permits);
                    context.sleep(context.jitter(wait)).await;
                }
            }
        }
    }

    /// The service asked for a pause: nothing more is sent to this mailbox until it is over.
    pub(crate) fn pause(&self, wait: Duration, now: Timestamp) {
        let Ok(until) = now.checked_add(wait) else { return };
        let mut state = self.lock();
        if state.pause.is_none_or(|(earlier, _)| earlier < until) {
            state.pause = Some((until, wait));
        }
    }

    fn admit(&self, requests: u32, now: Timestamp) -> Result<(), Duration> {
        let mut state = self.lock();
        if let Some((until, asked)) = state.pause {
            // A clock that was set back must not make the pause longer than it was asked for.
            let left = Duration::try_from(until.duration_since(now)).unwrap_or_default().min(asked);
            if !left.is_zero() {
                return Err(left);
            }
            state.pause = None;
        }
        state.count(requests, now.as_second())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&mut self, requests: u32, now: i64) -> Result<(), Duration> {
        if self.sent.back().is_some_and(|&(second, _)| second > now) {
            // The clock was set back: what was sent counts from now.
            self.sent = VecDeque::from([(now, self.within)]);
        }
        while let Some(&(second, count)) = self.sent.front()
            && second <= now - WINDOW
        {
            self.within -= count;
            self.sent.pop_front();
        }
        if self.sent.is_empty() {
            // An idle mailbox keeps nothing.
            self.sent = VecDeque::new();
        }
        if self.within + requests > WITHIN_WINDOW
            && let Some(&(oldest, _)) = self.sent.front()
        {
            return Err(Duration::from_secs(u64::try_from(oldest + WINDOW - now).unwrap_or(1)));
        }
        self.within += requests;
        match self.sent.back_mut() {
            Some((second, count)) if *second == now => *count += requests,
            _ => self.sent.push_back((now, requests)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn key(mailbox: &str) -> LimitKey {
        LimitKey { service: "test".into(), app: "limit".into(), mailbox: mailbox.into() }
    }

    #[test]
    fn one_mailbox_has_one_limiter_while_it_is_in_use() {
        let one = Limiter::of(key("one"));
        assert!(Arc::ptr_eq(&one, &Limiter::of(key("one"))));
        assert!(!Arc::ptr_eq(&one, &Limiter::of(key("two"))));
    }

    #[tokio::test]
    async fn four_at_a_time_and_a_batch_takes_all() {
        let (limiter, context) = (Arc::new(Limiter::new()), Context::default());
        let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let tasks = (0..60u32).map(|n| {
            let (limiter, context) = (Arc::clone(&limiter), context.clone());
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            tokio::spawn(async move {
                let parts = if n % 7 == 0 { 20 } else { 1 };
                let permit = limiter.acquire(parts, &context).await;
                let there = now.fetch_add(parts.min(4), Ordering::SeqCst) + parts.min(4);
                most.fetch_max(there, Ordering::SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(parts.min(4), Ordering::SeqCst);
                drop(permit);
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn ten_thousand_in_any_ten_minutes() {
        let mut state = State::default();
        for second in 0..100 {
            assert_eq!(state.count(100, second), Ok(()));
        }
        assert_eq!(state.count(1, 100), Err(Duration::from_secs(500)));
        assert_eq!(state.count(1, 599), Err(Duration::from_secs(1)));
        assert_eq!(state.count(100, 600), Ok(()));
        assert_eq!(state.count(1, 600), Err(Duration::from_secs(1)));
        assert_eq!(state.count(1, 10_000), Ok(()));
        assert_eq!(state.sent.len(), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_neither_forgets_nor_blocks_for_long() {
        let mut state = State::default();
        assert_eq!(state.count(10_000, 100_000), Ok(()));
        assert_eq!(state.count(1, 50_000), Err(Duration::from_secs(600)));
        assert_eq!(state.count(1, 50_600), Ok(()));
    }

    #[test]
    fn a_pause_holds_for_everybody() {
        let limiter = Limiter::new();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        limiter.pause(Duration::from_secs(10), now);
        limiter.pause(Duration::from_secs(5), now);
        assert_eq!(limiter.admit(1, now), Err(Duration::from_secs(10)));
        let later = now.checked_add(Duration::from_secs(10)).unwrap();
        assert_eq!(limiter.admit(1, later), Ok(()));
    }
}
