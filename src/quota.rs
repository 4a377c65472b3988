//! Rolling windows: one [`RateLimiter`] for each account and bucket.
//!
//! Two instruments, each for what it can do. governor's GCRA carries the rate: it spreads calls
//! evenly, the limit over the window. It cannot express a rolling window: with any burst at all it
//! would let more than the limit through, sized below that it wastes the burst, and it knows when
//! calls were allowed and not when they went out. So an exact ledger stands beside it as the hard
//! gate.
//!
//! The window counts at HubSpot's door, not at ours, and nobody tells when a call gets there. It is
//! no sooner than it leaves and no later than its answer is heard. So a call counts while it is in
//! flight, and then for a window from its answer on; but where the answer takes its time, from
//! [`spread`] after it left. That is what two calls may arrive closer together than they left.
//! Where HubSpot refuses a call that fitted, the spread is widened for a while.

mod day;
mod ledger;

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::day::{Day, day_over, midnight};
use self::ledger::Ledger;
use crate::config::WindowConfig;
use crate::provider::PROBE_CALLS;

/// The most that two calls are taken to arrive closer together than they left, before HubSpot has
/// taught otherwise.
const SPREAD_MAX: Duration = Duration::from_millis(75);
/// The share of a limit that may go out at once after a moment without calls: one in fifty, and
/// two at the least.
const BURST_SHARE: u32 = 50;

/// How many tokens are in hand at most: one of a lane, and those of a probe.
const IN_HAND_MAX: u32 = 1 + PROBE_CALLS;

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
    /// A call has ended.
    ended: Notify,
    /// When a predecessor made its last call, if there was one.
    predecessor: Option<Instant>,
}

/// The right to make one call. It counts for as long as it is in hand, since nobody knows when the
/// call will go out, and then as a call of that moment.
#[derive(Debug)]
#[must_use]
pub struct Token(());

/// A call that goes out. It has ended when this is dropped: when its answer is heard, or nobody
/// waits for one any more.
#[derive(Debug)]
#[must_use]
pub struct Flight {
    limiter: Arc<RateLimiter>,
    left: Instant,
}

/// How much closer together than they left two calls may arrive, unless HubSpot teaches otherwise:
/// what costs less than one in a hundred of the window, and at most 75 ms.
#[must_use]
pub fn spread(window: Duration) -> Duration {
    (window * 3 / 400).min(SPREAD_MAX)
}

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
            let ended = window.ended.notified();
            let wait = match window.give(Instant::now()) {
                Ok(token) => return token,
                Err(wait) => wait,
            };
            tokio::select! {
                biased;
                () = ended => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// The call goes out now.
    pub fn spend(self: &Arc<Self>, _token: Token) -> Flight {
        if let Some(window) = &self.window {
            window.lock().leaves();
        }
        Flight {
            limiter: Arc::clone(self),
            left: Instant::now(),
        }
    }

    /// HubSpot refused a call for this limit.
    pub fn refused(&self) {
        if let Some(window) = &self.window {
            window.lock().refused(Instant::now());
        }
    }

    /// Gives a token back unused.
    pub fn give_back(&self, _token: Token) {
        if let Some(window) = &self.window {
            let mut ledger = window.lock();
            ledger.in_hand = ledger.in_hand.saturating_sub(1);
        }
    }

    /// Calls in the last window, and the limit; `None` without a ceiling.
    #[must_use]
    pub fn used(&self) -> Option<(u32, WindowConfig)> {
        let window = self.window.as_ref()?;
        let mut ledger = window.lock();
        let used = ledger.calls(Instant::now());
        Some((u32::try_from(used).unwrap_or(u32::MAX), window.config))
    }
}

impl Flight {
    /// It leaves only now: there was something to do before.
    pub fn leaves(&mut self) {
        self.left = Instant::now();
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(window) = &self.limiter.window {
            window.lock().ends(self.left, Instant::now());
            window.ended.notify_waiters();
        }
    }
}

impl Window {
    fn new(config: WindowConfig, start: Start) -> Option<Self> {
        let limit = NonZeroU32::new(config.limit)?;
        // Two at the least, or each wait that ends a little late would cost the rate that much.
        let burst = (limit.get() / BURST_SHARE).max(2).min(limit.get());
        let period = config.window / limit.get();
        let quota = governor::Quota::with_period(period)?.allow_burst(NonZeroU32::new(burst)?);
        let clock = TokioClock::new();
        let pace = Gcra::direct_with_clock(quota, clock.clone());
        let predecessor = (start == Start::Spent).then(|| {
            while pace.check().is_ok() {}
            // It may have been ahead of the even spread that is assumed of it: by a burst, and by
            // the tokens that were in hand. Its last calls may still be on their way, and the first
            // of ours overtake them.
            Instant::now() + period * (burst + IN_HAND_MAX) + 2 * SPREAD_MAX
        });
        Some(Self {
            config,
            pace,
            clock,
            ledger: Mutex::new(Ledger::new(config.window)),
            ended: Notify::new(),
            predecessor,
        })
    }

    /// How long a call of the predecessor counts.
    fn kept(&self) -> Duration {
        self.config.window + SPREAD_MAX
    }

    /// A token when one more call fits into the ledger, or else how long until it may.
    fn give(&self, now: Instant) -> Result<Token, Duration> {
        let mut ledger = self.lock();
        let (calls, before) = (ledger.calls(now), self.calls_before(now));
        let reserved = if self.reserves() { ledger.in_hand } else { 0 };
        if calls + reserved + before < self.config.limit as usize {
            ledger.in_hand += 1;
            return Ok(Token(()));
        }
        let next = ledger
            .next()
            .map(|until| until.saturating_duration_since(now));
        let next_before = (before > 0).then(|| self.kept() / self.config.limit);
        let wait = next.into_iter().chain(next_before).min();
        Err(wait.unwrap_or(self.config.window))
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

#[cfg(test)]
mod tests;
