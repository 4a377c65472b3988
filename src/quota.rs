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
//! [`spread`] after it left. That is what two calls may arrive closer together than they left. A call
//! that had to connect first left when its connection stood, at the latest. Of a call that ends without
//! an answer, and of one whose answer takes longer than HubSpot does (`STALLED_AFTER`), nobody knows:
//! packets may have been lost until a moment ago, so it counts from its end.
//! Where HubSpot refuses a call that fitted, the spread is widened for a while. Where its headers
//! tell that more of the window is used than we have, others call too, and theirs is left to them.
//!
//! A window is spent evenly: then an urgent message never waits for long. After a time without
//! calls all of the window is free, and a short batch may go out at once. That is a *burst*: the
//! dispatcher allows it, which knows how much waits, and tells it to the next owner first.
//!
//! Where an operator says so, the limit of sends is *learned*: it begins as configured and goes by
//! what HubSpot bears.

mod adaptive;
mod day;
mod ledger;
mod pace;
mod rate;
mod window;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use self::day::{Day, DayUsed, Standing};
use self::window::Window;
use crate::config::{AdaptiveConfig, WindowConfig};
use crate::provider::{PROBE_CALLS, RollingLimit};

/// The most that two calls are taken to arrive closer together than they left, before HubSpot has
/// taught otherwise.
const SPREAD_MAX: Duration = Duration::from_millis(75);
/// An answer that took longer than this may have been held up on the way, as by lost packets, and its call
/// too. Of a shorter stall that cannot be told: what is held back for less may arrive closer together by so
/// much.
///
/// Where HubSpot itself is that slow, a window's calls take the time of an answer longer. Of 190 calls in
/// 10 s, 32 at a time, that costs a seventh at most, where answers take 1.7 s; from 2 s on the calls that
/// may be in flight are what bounds the rate anyway.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// By how much a wait for the next call ends late, on a machine that has time.
const LATE: Duration = Duration::from_millis(5);
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

/// The word for the day's calls, beside those of the buckets.
pub const DAILY: &str = "daily";

/// What was spent of the window before this limiter began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing: nobody sent before.
    Empty,
    /// All of it, evenly, by a predecessor that kept to the same limit until a moment ago.
    Spent,
    /// All of it, and perhaps all of that at once, a moment ago.
    SpentAtOnce,
}

/// Keeps one bucket inside its rolling window.
#[derive(Debug)]
pub struct RateLimiter {
    /// `None`: no ceiling.
    window: Option<Window>,
}

/// The right to make one call. It counts for as long as it is in hand, since nobody knows when the
/// call will go out, and then as a call of that moment.
#[derive(Debug)]
#[must_use]
pub struct Token(());

/// A call that goes out. It has ended when this is dropped. Unless it was [`heard`](Self::heard), it
/// may have arrived just then.
#[derive(Debug)]
#[must_use]
pub struct Flight {
    limiter: Arc<RateLimiter>,
    left: Instant,
    /// When it was on its way at the latest; `None` where nobody has told.
    on_its_way: Option<Instant>,
}

/// Why the next call does not go yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Full {
    /// There is room: calls are spread evenly, and its turn is to come.
    Pace,
    /// All of the limit is used.
    Window,
    /// All that is left of the limit by others, or by a lower one that HubSpot tells of.
    Share,
    /// What the owner before may have used is not free yet.
    Predecessor,
}

/// A window as it is told to an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowUsed {
    /// Ours in the window that ends now.
    pub calls: u32,
    /// What of the limit is ours while others use some of it; else all of it.
    pub share: u32,
    /// HubSpot's own limit, where it told of one lately.
    pub told: Option<u32>,
    /// HubSpot refused calls that fitted, and that is not forgotten yet.
    pub is_refused: bool,
    /// What whoever asked last was told; `None` if a call was let go.
    pub full: Option<Full>,
    /// With the limit that is in force.
    pub config: WindowConfig,
    /// Whether the limit is learned from what HubSpot bears.
    pub is_learned: bool,
}

/// How much closer together than they left two calls may arrive, unless HubSpot teaches otherwise:
/// a hundredth of the window, less what waits end late by (half of it at the least), and at most
/// 75 ms.
#[must_use]
pub fn spread(window: Duration) -> Duration {
    let hundredth = window / 100;
    let rest = hundredth.saturating_sub(LATE).max(hundredth / 2);
    rest.min(SPREAD_MAX)
}

impl RateLimiter {
    #[must_use]
    pub fn new(config: Option<WindowConfig>, start: Start) -> Self {
        Self {
            window: config.and_then(|config| Window::new(config, None, start)),
        }
    }

    /// The limit is learned: it begins as configured and stays within `range`. What headers tell is
    /// not heeded then.
    #[must_use]
    pub fn adaptive(config: WindowConfig, range: AdaptiveConfig, start: Start) -> Self {
        Self {
            window: Window::new(config, Some(range), start),
        }
    }

    /// Waits until one more call stays inside the window. Cancel-safe but for one thing: a token
    /// given up while it waits for its pace counts as a call until its window has passed.
    pub async fn token(&self) -> Token {
        if let Some(window) = &self.window {
            window.token().await;
        }
        Token(())
    }

    /// The call goes out now.
    pub fn spend(self: &Arc<Self>, _token: Token) -> Flight {
        let left = Instant::now();
        if let Some(window) = &self.window {
            window.leaves(left);
        }
        Flight {
            limiter: Arc::clone(self),
            left,
            on_its_way: None,
        }
    }

    /// HubSpot refused a call for this limit.
    pub fn refused(&self) {
        if let Some(window) = &self.window {
            window.refused(Instant::now());
        }
    }

    /// HubSpot failed over a call, or did not answer it. It tells only where the limit is learned.
    pub fn failed(&self) {
        if let Some(window) = &self.window {
            window.failed(Instant::now());
        }
    }

    /// HubSpot told how much of the window is used, which counts others' calls too.
    pub fn heed(&self, limit: RollingLimit) {
        if let Some(window) = &self.window {
            window.heed(limit, Instant::now());
        }
    }

    /// Gives a token back unused.
    pub fn give_back(&self, _token: Token) {
        if let Some(window) = &self.window {
            window.give_back();
        }
    }

    /// How much of the window is used; `None` without a ceiling.
    #[must_use]
    pub fn used(&self) -> Option<WindowUsed> {
        let window = self.window.as_ref()?;
        Some(window.used(Instant::now()))
    }

    /// The limit of which bursts may be made; `None` where nothing limits, one call is all, or the
    /// limit is learned.
    #[must_use]
    pub fn bursts(&self) -> Option<WindowConfig> {
        self.window.as_ref()?.bursts()
    }

    /// Returns when, just after a rest, more calls are asked for than the pace gives; once for each
    /// rest.
    pub async fn eager(&self) {
        match &self.window {
            Some(window) => window.eager().await,
            None => std::future::pending().await,
        }
    }

    /// From now on most of the window may go out at once, and what is left of it evenly.
    pub fn burst(&self) {
        if let Some(window) = &self.window {
            window.burst();
        }
    }

    /// Whether anything went out at once since [`Self::burst`].
    #[must_use]
    pub fn has_burst(&self) -> bool {
        (self.window.as_ref()).is_some_and(Window::has_burst)
    }

    /// From now on everything goes out evenly.
    pub fn calm(&self) {
        if let Some(window) = &self.window {
            window.calm();
        }
    }
}

impl Flight {
    /// It leaves only now: there was something to do before.
    pub fn leaves(&mut self) {
        self.left = Instant::now();
    }

    /// Its answer is heard. `connected` is when the connection stood for which it may have had to wait.
    pub fn heard(mut self, connected: Option<Instant>) {
        self.on_its_way = Some(connected.map_or(self.left, |stood| stood.max(self.left)));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(window) = &self.limiter.window {
            window.ends(self.left, self.on_its_way, Instant::now());
        }
    }
}

impl Bucket {
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Api => "api",
        }
    }
}

#[cfg(test)]
mod tests;
