//! Rolling windows: one [`RateLimiter`] for each account and bucket.
//!
//! Two instruments, each for what it can do. governor's GCRA carries the rate: it spreads calls
//! evenly, sized so that burst + rate × window ≤ limit. It knows when calls were allowed and not
//! when they went out, so an exact ledger of the last calls stands beside it as the hard gate.
//!
//! The window counts at HubSpot's door, not at ours. Two calls that leave us a window apart can
//! arrive closer together, so every window is kept [`ARRIVAL_SPREAD`] longer than HubSpot's.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use tokio::time::Instant;

use crate::config::WindowConfig;
use crate::provider::PROBE_CALLS;

/// How much closer together than they left two calls may arrive.
pub const ARRIVAL_SPREAD: Duration = Duration::from_millis(75);
/// The share of a limit that may go out at once: one in fifty. What the burst takes, the steady
/// rate cannot have.
const BURST_SHARE: u32 = 50;

/// What a call is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// Calls to Single Send: first tries, retries, replays.
    Send,
    /// Look-ups and probes.
    Api,
}

/// What was spent of the window before this limiter began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing: nobody sent before.
    Empty,
    /// All of it, evenly, by a predecessor that kept to the same limit until a moment ago.
    Spent,
}

type Gcra = governor::RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>;

/// Keeps one bucket inside its rolling window.
#[derive(Debug)]
pub struct RateLimiter {
    /// `None`: no ceiling.
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    config: WindowConfig,
    pace: Gcra,
    clock: TokioClock,
    ledger: Mutex<Ledger>,
    /// When a predecessor made its last call, if there was one.
    predecessor: Option<Instant>,
}

/// What counts against a window.
#[derive(Debug, Default)]
struct Ledger {
    /// When the last calls went out.
    calls: VecDeque<Instant>,
    /// Tokens that were given and neither spent nor given back.
    in_hand: usize,
}

/// The right to make one call. It counts for as long as it is in hand, since nobody knows when the
/// call will go out, and then as a call of that moment.
#[derive(Debug)]
#[must_use]
pub struct Token(());

impl RateLimiter {
    #[must_use]
    pub fn new(config: Option<WindowConfig>, start: Start) -> Self {
        Self {
            window: config.and_then(|config| Window::new(config, start)),
        }
    }

    /// Waits until one more call stays inside the window. Cancel-safe but for one thing: a token
    /// given up while it waits for its pace counts as a call until its window has passed.
    pub async fn token(&self) -> Token {
        let Some(window) = &self.window else {
            return Token(());
        };
        while let Err(not_until) = window.pace.check() {
            tokio::time::sleep(not_until.wait_time_from(window.clock.now())).await;
        }
        loop {
            match window.give(Instant::now()) {
                Ok(token) => return token,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    /// Records that the call goes out now.
    pub fn spend(&self, _token: Token) {
        if let Some(window) = &self.window {
            let mut ledger = window.lock();
            ledger.in_hand = ledger.in_hand.saturating_sub(1);
            ledger.calls.push_back(Instant::now());
        }
    }

    /// Gives a token back unused.
    pub fn give_back(&self, _token: Token) {
        if let Some(window) = &self.window {
            let mut ledger = window.lock();
            ledger.in_hand = ledger.in_hand.saturating_sub(1);
        }
    }

    /// Calls in the last window and tokens in hand, and the limit; `None` without a ceiling.
    #[must_use]
    pub fn used(&self) -> Option<(u32, WindowConfig)> {
        let window = self.window.as_ref()?;
        let now = Instant::now();
        let ledger = window.lock();
        let calls = ledger.calls.iter();
        let recent = calls.filter(|call| now.duration_since(**call) < window.config.window);
        let used = recent.count() + ledger.in_hand;
        Some((u32::try_from(used).unwrap_or(u32::MAX), window.config))
    }
}

impl Window {
    fn new(config: WindowConfig, start: Start) -> Option<Self> {
        let limit = NonZeroU32::new(config.limit)?;
        let burst = (limit.get() / BURST_SHARE).max(1);
        let period = config.window / (limit.get() - burst).max(1);
        let quota = governor::Quota::with_period(period)?.allow_burst(NonZeroU32::new(burst)?);
        let clock = TokioClock::new();
        let pace = Gcra::direct_with_clock(quota, clock.clone());
        let predecessor = (start == Start::Spent).then(|| {
            while pace.check().is_ok() {}
            // It may have been a burst ahead of the even spread that is assumed of it, and its last
            // calls may still be on their way, as the first of ours may overtake theirs.
            Instant::now() + period * (burst + 1) + 2 * ARRIVAL_SPREAD
        });
        Some(Self {
            config,
            pace,
            clock,
            ledger: Mutex::default(),
            predecessor,
        })
    }

    /// How long a call counts.
    fn kept(&self) -> Duration {
        self.config.window + ARRIVAL_SPREAD
    }

    /// A token when one more call fits into the ledger, or else how long until it may.
    fn give(&self, now: Instant) -> Result<Token, Duration> {
        let kept = self.kept();
        let mut ledger = self.lock();
        while (ledger.calls.front()).is_some_and(|call| now.duration_since(*call) >= kept) {
            ledger.calls.pop_front();
        }
        let before = self.calls_before(now);
        let reserved = if self.reserves() { ledger.in_hand } else { 0 };
        if ledger.calls.len() + reserved + before < self.config.limit as usize {
            ledger.in_hand += 1;
            return Ok(Token(()));
        }
        let oldest =
            (ledger.calls.front()).map(|call| kept.saturating_sub(now.duration_since(*call)));
        let next_before = (before > 0).then(|| kept / self.config.limit);
        Err(oldest.into_iter().chain(next_before).min().unwrap_or(kept))
    }

    /// Whether tokens in hand count. A lane may hold one for as long as nothing comes: where there is
    /// room for a probe and no more, that would keep it from ever going out.
    fn reserves(&self) -> bool {
        self.config.limit > PROBE_CALLS
    }

    /// How many calls of the predecessor still count: a full window's, evenly spread.
    fn calls_before(&self, now: Instant) -> usize {
        let Some(last) = self.predecessor else {
            return 0;
        };
        let left = (last + self.kept()).saturating_duration_since(now);
        let share = left.div_duration_f64(self.kept()).min(1.0);
        // At most the limit, which is a u32.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to the limit"
        )]
        let calls = (share * f64::from(self.config.limit)).ceil() as usize;
        calls
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Bucket {
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Api => "api",
        }
    }
}

/// governor on tokio's clock, which a test can pause.
#[derive(Clone, Debug)]
struct TokioClock {
    origin: Instant,
}

impl TokioClock {
    fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl GovernorClock for TokioClock {
    /// Time since the clock was made.
    type Instant = Duration;
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}

// === the day ===

/// Calls of the account's own day. In memory: after a restart HubSpot's own answer
/// (429 `DAILY`) takes its place until the next midnight.
#[derive(Debug)]
pub struct Day {
    limit: Option<u64>,
    today: Option<Date>,
    calls: u64,
}

impl Day {
    #[must_use]
    pub fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            today: None,
            calls: 0,
        }
    }

    /// Counts one call. `Some(midnight)` when it was the last one that the day allows.
    pub fn spend(&mut self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let limit = self.limit?;
        let date = zone.to_datetime(now).date();
        if self.today != Some(date) {
            self.today = Some(date);
            self.calls = 0;
        }
        self.calls += 1;
        (self.calls >= limit).then(|| midnight(now, zone))
    }
}

/// The end of the day that `now` lies in, in the account's time zone.
#[must_use]
pub fn midnight(now: Timestamp, zone: &TimeZone) -> Timestamp {
    now.to_zoned(zone.clone())
        .checked_add(1.day())
        .and_then(|tomorrow| tomorrow.start_of_day())
        .map_or_else(
            |_| crate::clock::after(now, Duration::from_hours(24)),
            |day| day.timestamp(),
        )
}

/// How far HubSpot's clock may be behind ours.
const CLOCKS_APART: Duration = Duration::from_mins(5);
/// When HubSpot is asked again whose midnight seems to come later than ours.
const MIDNIGHT_AGAIN: Duration = Duration::from_mins(1);

/// When to go on after HubSpot said at `now` that the day is spent: at midnight. Just after ours
/// it may have meant the day before, and waiting for the next midnight would cost a whole day.
#[must_use]
pub fn day_over(now: Timestamp, zone: &TimeZone) -> Timestamp {
    let before = now.checked_sub(CLOCKS_APART).unwrap_or(now);
    if midnight(before, zone) <= now {
        crate::clock::after(now, MIDNIGHT_AGAIN)
    } else {
        midnight(now, zone)
    }
}

#[cfg(test)]
mod tests;
