//! Wall time, asked for in one place.
//!
//! Monotonic time is `tokio::time`, which a test can pause. Wall time is this value, passed in by
//! the front door, so that a simulation can answer instead of the machine.

use jiff::{Timestamp, TimestampRound, Unit};
use tokio::time::Instant;

/// The only reader of wall time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    mode: Mode,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    System,
    /// `start` plus what tokio's (pausable) clock says has passed since `origin`.
    Simulated {
        start: Timestamp,
        origin: Instant,
    },
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self { mode: Mode::System }
    }

    /// A clock that shows `start` now and moves with tokio's time.
    #[must_use]
    pub fn simulated(start: Timestamp) -> Self {
        Self {
            mode: Mode::Simulated {
                start,
                origin: Instant::now(),
            },
        }
    }

    /// Now, in whole milliseconds: what headers, rows and stories keep.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = match self.mode {
            #[expect(
                clippy::disallowed_methods,
                reason = "this is the one place that asks the machine"
            )]
            Mode::System => Timestamp::now(),
            Mode::Simulated { start, origin } => start
                .checked_add(origin.elapsed())
                .unwrap_or(Timestamp::MAX),
        };
        now.round(
            TimestampRound::new()
                .smallest(Unit::Millisecond)
                .mode(jiff::RoundMode::Floor),
        )
        .unwrap_or(now)
    }
}

/// `at - now`, or zero when `at` has passed.
#[must_use]
pub fn until(now: Timestamp, at: Timestamp) -> std::time::Duration {
    std::time::Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

/// `now + wait`, clamped to the end of time.
#[must_use]
pub fn after(now: Timestamp, wait: std::time::Duration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}
