//! What others may see of an account while it is dispatched.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::WindowConfig;
use crate::message::AccountName;
use crate::metrics::Metrics;
use crate::pause::{Pause, Pauses};
use crate::quota::{Bucket, RateLimiter};

/// What others may see of an account while it is dispatched.
#[derive(Debug)]
pub struct Account {
    pub name: AccountName,
    pub pauses: Pauses,
    owner: AtomicBool,
    in_flight: AtomicI64,
    limiters: Mutex<Option<Limiters>>,
}

#[derive(Clone, Debug)]
pub(super) struct Limiters {
    pub(super) send: Arc<RateLimiter>,
    pub(super) api: Arc<RateLimiter>,
}

impl Account {
    pub(super) fn new(name: AccountName) -> Self {
        Self {
            name,
            pauses: Pauses::default(),
            owner: AtomicBool::new(false),
            in_flight: AtomicI64::new(0),
            limiters: Mutex::new(None),
        }
    }

    /// A term of ownership begins.
    pub(super) fn owned(&self, limiters: Limiters) {
        *self.lock() = Some(limiters);
        self.owner.store(true, Ordering::Relaxed);
    }

    /// A term of ownership ends.
    pub(super) fn given_up(&self) {
        self.owner.store(false, Ordering::Relaxed);
    }

    pub(super) fn flying(&self, change: i64) {
        self.in_flight.fetch_add(change, Ordering::Relaxed);
    }

    /// Whether this worker dispatches the account (otherwise it stands by).
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.owner.load(Ordering::Relaxed)
    }

    /// Calls under way.
    #[must_use]
    pub fn in_flight(&self) -> i64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What holds it back. A worker that stands by has only old news, and tells none.
    #[must_use]
    pub fn held_back(&self) -> Vec<Pause> {
        if self.is_owner() {
            self.pauses.list()
        } else {
            Vec::new()
        }
    }

    /// Brings the gauges up to date.
    pub fn observe(&self, metrics: &Metrics) {
        metrics.owner(&self.name, self.is_owner());
        metrics.pauses(&self.name, &self.held_back());
        for (bucket, used) in self.quota() {
            let (limit, ratio) = match used {
                Some((used, window)) => (window.limit, f64::from(used) / f64::from(window.limit)),
                None => (0, 0.0),
            };
            metrics.quota(&self.name, bucket, limit, ratio);
        }
    }

    /// Calls in the last window and its limit, for each bucket; `None` without a ceiling.
    #[must_use]
    pub fn quota(&self) -> Vec<(Bucket, Option<(u32, WindowConfig)>)> {
        match self.lock().as_ref() {
            Some(limiters) => vec![
                (Bucket::Send, limiters.send.used()),
                (Bucket::Api, limiters.api.used()),
            ],
            None => Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Limiters>> {
        self.limiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::outcome::{PauseReason, Words};
    use crate::pause::Covers;
    use crate::quota::Start;

    #[tokio::test]
    async fn only_the_owner_tells_pauses() {
        let account = Account::new(AccountName::default());
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        account.pauses.begin(
            PauseReason::Forbidden,
            Covers::Sends,
            now,
            None,
            Words::default(),
        );
        assert!(account.held_back().is_empty());
        let limiter = Arc::new(RateLimiter::new(None, Start::Empty));
        account.owned(Limiters {
            send: Arc::clone(&limiter),
            api: limiter,
        });
        assert_eq!(account.held_back().len(), 1);
        account.given_up();
        assert!(account.held_back().is_empty());
    }
}
