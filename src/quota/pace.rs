//! governor's GCRA, on tokio's clock, which a test can pause.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use tokio::time::Instant;

type Gcra = governor::RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>;

/// Spreads calls evenly.
#[derive(Debug)]
pub(super) struct Pace {
    gcra: Gcra,
    clock: TokioClock,
}

/// Time since it was made.
#[derive(Clone, Debug)]
struct TokioClock(Instant);

impl Pace {
    /// One call in each `period`; of those that did not come, so many at once. `None` when nothing
    /// could ever go.
    pub(super) fn new(period: Duration, at_once: u32) -> Option<Self> {
        let quota = governor::Quota::with_period(period)?;
        let quota = quota.allow_burst(NonZeroU32::new(at_once)?);
        let clock = TokioClock(Instant::now());
        Some(Self {
            gcra: Gcra::direct_with_clock(quota, clock.clone()),
            clock,
        })
    }

    /// Takes one call's turn, or tells how long it is until that.
    pub(super) fn take(&self) -> Result<(), Duration> {
        let taken = self.gcra.check();
        taken.map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
