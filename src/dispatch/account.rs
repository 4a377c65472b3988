//! What others may see of an account while it is dispatched.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::QuotaConfig;
use crate::message::{AccountName, Priority};
use crate::metrics::Metrics;
use crate::pause::{Pause, Pauses};
use crate::provider::{RateLimits, TOKEN_KEYS, TokenTrouble, TokenTroubles};
use crate::queue::Lane;
use crate::quota::{Bucket, DAILY, Day, DayUsed, RateLimiter, WindowUsed};

/// What others may see of an account while it is dispatched.
#[derive(Debug)]
pub struct Account {
    pub name: AccountName,
    pub pauses: Pauses,
    owner: AtomicBool,
    in_flight: AtomicI64,
    /// Calls of before it was dispatched, that no window counts yet.
    earlier_calls: AtomicU32,
    tokens: TokenTroubles,
    day: Mutex<Day>,
    limiters: Mutex<Option<Limiters>>,
    held: Mutex<[u64; Priority::ALL.len()]>,
    sends_wait: Mutex<Wait>,
    results_wait: Mutex<Wait>,
    /// Deliveries that went back to the queue while a term ended: they could not be settled, or their
    /// calls had not gone out.
    returned: AtomicU64,
    /// What the last term of ownership left. While it ends, `finished` are those not finished yet.
    left: Mutex<Left>,
}

/// What a lane waits for before its next call, as its own loop last came to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// The end of a pause.
    #[default]
    Pause,
    /// An answer: as many calls as may be are in flight.
    Answer,
    /// The answer of the one call that may be in flight, after HubSpot refused one for a rolling limit.
    OneByOne,
    /// Room in its rolling window.
    Room,
    /// A request: nothing else holds the next one back.
    Request,
    /// The account's lease, which is to be renewed.
    Lease,
}

/// What became of all that was in hand when a term of ownership ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Answered, and settled in the queue.
    pub finished: u64,
    /// Given back to the queue: not begun, or not settled.
    pub handed_back: u64,
    /// Calls whose answer was not waited for any longer: they may have mailed, and are handed out
    /// again under the same `sendId`.
    pub unanswered: u64,
    /// Answered, and the queue had not taken it in time: handed out again too.
    pub unsettled: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Limiters {
    pub(super) send: Arc<RateLimiter>,
    pub(super) api: Arc<RateLimiter>,
}

impl Account {
    pub(super) fn new(name: AccountName, quota: &QuotaConfig, tokens: TokenTroubles) -> Self {
        Self {
            name,
            pauses: Pauses::default(),
            owner: AtomicBool::new(false),
            in_flight: AtomicI64::new(0),
            earlier_calls: AtomicU32::new(0),
            tokens,
            day: Mutex::new(Day::new(quota.daily, quota.daily_reserve)),
            limiters: Mutex::new(None),
            held: Mutex::default(),
            sends_wait: Mutex::default(),
            results_wait: Mutex::default(),
            returned: AtomicU64::new(0),
            left: Mutex::default(),
        }
    }

    /// A term of ownership begins.
    pub(super) fn owned(&self, limiters: Limiters) {
        *self.lock() = Some(limiters);
        self.owner.store(true, Ordering::Relaxed);
    }

    /// The lane's next call needs this next.
    pub(super) fn waits(&self, lane: Lane, wait: Wait) {
        *self.wait_of(lane) = wait;
    }

    /// So many requests of each priority were taken from the queue, and wait in this worker.
    pub(super) fn holds(&self, held: [u64; Priority::ALL.len()]) {
        *self.held_now() = held;
    }

    /// How many requests of each of [`Priority::ALL`] wait in this worker to be sent, beside what the
    /// queue counts.
    #[must_use]
    pub fn held(&self) -> [u64; Priority::ALL.len()] {
        *self.held_now()
    }

    fn held_now(&self) -> MutexGuard<'_, [u64; Priority::ALL.len()]> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the lane waits for; `None` where another worker dispatches the account.
    #[must_use]
    pub fn waits_for(&self, lane: Lane) -> Option<Wait> {
        self.is_owner().then(|| *self.wait_of(lane))
    }

    fn wait_of(&self, lane: Lane) -> MutexGuard<'_, Wait> {
        let wait = match lane {
            Lane::Sends => &self.sends_wait,
            Lane::Results => &self.results_wait,
        };
        wait.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// HubSpot refused a call of this lane for a rolling limit.
    pub(super) fn refused(&self, lane: Lane) {
        if let Some(limiters) = self.lock().as_ref() {
            match lane {
                Lane::Sends => limiters.send.refused(),
                Lane::Results => limiters.api.refused(),
            }
        }
    }

    /// HubSpot failed over a send, or did not answer it.
    pub(super) fn failed(&self) {
        if let Some(limiters) = self.lock().as_ref() {
            limiters.send.failed();
        }
    }

    /// HubSpot told the limits of its windows.
    pub(super) fn heed(&self, limits: RateLimits) {
        if let Some(limiters) = self.lock().as_ref() {
            let both = [(&limiters.send, limits.send), (&limiters.api, limits.api)];
            for (limiter, limit) in both {
                if let Some(limit) = limit {
                    limiter.heed(limit);
                }
            }
        }
    }

    pub(super) fn day(&self) -> MutexGuard<'_, Day> {
        self.day.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The day's calls; `None` without a ceiling.
    #[must_use]
    pub fn day_used(&self, now: Timestamp) -> Option<DayUsed> {
        self.is_owner().then(|| self.day().used(now)).flatten()
    }

    /// A term of ownership ends: so many deliveries were given back, and so many are at work.
    pub(super) fn given_up(&self, given_back: u64, at_work: usize) {
        self.owner.store(false, Ordering::Relaxed);
        self.holds(Default::default());
        self.returned.store(0, Ordering::Relaxed);
        *self.left_now() = Left {
            finished: at_work as u64,
            handed_back: given_back,
            ..Left::default()
        };
    }

    /// A delivery could not be settled, or was given back.
    pub(super) fn returned(&self) {
        self.returned.fetch_add(1, Ordering::Relaxed);
    }

    /// So many are at work still, and are not waited for any longer.
    pub(super) fn ended(&self, at_work: usize) {
        let (at_work, returned) = (at_work as u64, self.returned.load(Ordering::Relaxed));
        let unanswered = u64::try_from(self.in_flight()).unwrap_or(0).min(at_work);
        let mut left = self.left_now();
        left.handed_back += returned;
        left.finished = left.finished.saturating_sub(at_work + returned);
        left.unanswered = unanswered;
        left.unsettled = at_work - unanswered;
    }

    /// Whatever the last term left, the next stop did not leave it.
    pub(super) fn stands_by(&self) {
        *self.left_now() = Left::default();
    }

    /// What the last term of ownership left, once it has ended.
    #[must_use]
    pub fn left(&self) -> Left {
        *self.left_now()
    }

    fn left_now(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn flying(&self, change: i64) {
        self.in_flight.fetch_add(change, Ordering::Relaxed);
    }

    /// Whether this worker dispatches the account (otherwise it stands by).
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.owner.load(Ordering::Relaxed)
    }

    /// So many calls were made for it by somebody else than its dispatcher.
    pub fn was_called(&self, calls: u32) {
        self.earlier_calls.fetch_add(calls, Ordering::Relaxed);
    }

    /// Whether there is one more of those calls to count.
    pub(super) fn takes_earlier_call(&self) -> bool {
        let one_less = |calls: u32| calls.checked_sub(1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.earlier_calls
            .fetch_update(set, fetch, one_less)
            .is_ok()
    }

    /// What is wrong with where its tokens come from. A worker that stands by does not look at them.
    #[must_use]
    pub fn token_troubles(&self) -> Vec<TokenTrouble> {
        if self.is_owner() {
            self.tokens.list()
        } else {
            Vec::new()
        }
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
    pub fn observe(&self, metrics: &Metrics, now: Timestamp) {
        metrics.owner(&self.name, self.is_owner());
        metrics.pauses(&self.name, &self.held_back());
        let troubles = self.token_troubles();
        for key in TOKEN_KEYS {
            let is_trouble = troubles.iter().any(|trouble| trouble.key == key);
            metrics.token_trouble(&self.name, key, is_trouble);
        }
        for (bucket, used) in self.quota() {
            let (limit, ratio) = match used {
                Some(used) => {
                    let limit = used.config.limit;
                    (limit, f64::from(used.calls) / f64::from(limit))
                }
                None => (0, 0.0),
            };
            metrics.quota(&self.name, bucket.label(), limit.into(), ratio);
        }
        if let Some(day) = self.day_used(now) {
            #[expect(clippy::cast_precision_loss, reason = "a ratio of a day's calls")]
            let ratio = day.calls as f64 / day.limit as f64;
            metrics.quota(&self.name, DAILY, day.limit, ratio);
        }
    }

    /// How much of each bucket's window is used; `None` without a ceiling.
    #[must_use]
    pub fn quota(&self) -> Vec<(Bucket, Option<WindowUsed>)> {
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

impl AddAssign for Left {
    fn add_assign(&mut self, other: Self) {
        self.finished += other.finished;
        self.handed_back += other.handed_back;
        self.unanswered += other.unanswered;
        self.unsettled += other.unsettled;
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
        let quota = QuotaConfig::default();
        let account = Account::new(AccountName::default(), &quota, TokenTroubles::default());
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
        account.given_up(0, 0);
        assert!(account.held_back().is_empty());
    }
}
