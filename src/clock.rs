//! Wall time, asked for in one place.
//!
//! Monotonic time is `tokio::time`, which a test can pause. Wall time is this value, passed in by
//! the front door, so that a simulation can answer instead of the machine.

use jiff::{SignedDuration, Timestamp, TimestampRound, Unit};
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
        steps: [Step; STEPS_MAX],
    },
}

/// How often one simulated clock can be set.
const STEPS_MAX: usize = 2;

/// A clock is set: at `at` it jumps by `by`, in either direction.
#[derive(Clone, Copy, Debug)]
struct Step {
    at: Instant,
    by: SignedDuration,
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
        let origin = Instant::now();
        let none = Step {
            at: origin,
            by: SignedDuration::ZERO,
        };
        Self {
            mode: Mode::Simulated {
                start,
                origin,
                steps: [none; STEPS_MAX],
            },
        }
    }

    /// A simulated clock that is set by `by` at each of these times, as an operator or a time
    /// server sets one. The machine's own clock is left as it is.
    #[must_use]
    pub fn stepping(mut self, set: [(Instant, SignedDuration); STEPS_MAX]) -> Self {
        if let Mode::Simulated { steps, .. } = &mut self.mode {
            *steps = set.map(|(at, by)| Step { at, by });
        }
        self
    }

    /// Now, in whole milliseconds: what headers, rows and stories keep.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = self.exactly();
        now.round(
            TimestampRound::new()
                .smallest(Unit::Millisecond)
                .mode(jiff::RoundMode::Floor),
        )
        .unwrap_or(now)
    }

    /// Now, as finely as it is known: where another moment is told from it.
    #[must_use]
    pub fn exactly(&self) -> Timestamp {
        match self.mode {
            #[expect(
                clippy::disallowed_methods,
                reason = "this is the one place that asks the machine"
            )]
            Mode::System => Timestamp::now(),
            Mode::Simulated {
                start,
                origin,
                steps,
            } => {
                let now = Instant::now();
                let set = steps.iter().filter(|step| step.at <= now);
                let by: SignedDuration = set.map(|step| step.by).sum();
                let passed = start.checked_add(now.duration_since(origin));
                passed
                    .and_then(|shown| shown.checked_add(by))
                    .unwrap_or(Timestamp::MAX)
            }
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_is_set_and_set_back() {
        let (origin, hour) = (Instant::now(), SignedDuration::from_hours(1));
        let at = |minutes| origin + Duration::from_mins(minutes);
        let clock =
            Clock::simulated(Timestamp::UNIX_EPOCH).stepping([(at(1), -hour), (at(2), hour)]);
        let mut shown = Vec::new();
        for _ in 0..3 {
            shown.push(clock.now().as_second());
            tokio::time::sleep(Duration::from_mins(1)).await;
        }
        assert_eq!(shown, [0, 60 - 3600, 120]);
    }
}
