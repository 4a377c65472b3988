//! A rolling window over arrivals, exact at its edges.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use super::Limit;

/// At most this many arrivals are kept for one window: 100,000 a second for ten seconds. Beyond
/// it the oldest are forgotten, and `most` tells too little.
const ARRIVALS_MAX: usize = 1_000_000;

/// Counts the calls of one bucket in the window that ends at each arrival.
#[derive(Clone, Debug)]
pub(super) struct Window {
    limit: Option<Limit>,
    span: Duration,
    /// In microseconds, oldest first; all within `span` of the last one.
    arrivals: VecDeque<i64>,
    most: usize,
}

impl Window {
    /// Without a limit, calls are counted over `otherwise` and none is too many.
    pub(super) fn new(limit: Option<Limit>, otherwise: Duration) -> Self {
        Self {
            limit,
            span: limit.map_or(otherwise, |limit| limit.window),
            arrivals: VecDeque::new(),
            most: 0,
        }
    }

    /// Counts an arrival. Two calls exactly one span apart are not in one window.
    ///
    /// A call that is refused counts as well. HubSpot does not say; this is the stricter reading.
    pub(super) fn arrive(&mut self, now: Timestamp) {
        let now = now.as_microsecond();
        self.forget(now);
        if self.arrivals.len() == ARRIVALS_MAX {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back(now);
        self.most = self.most.max(self.arrivals.len());
    }

    fn forget(&mut self, now: i64) {
        let span = i64::try_from(self.span.as_micros()).unwrap_or(i64::MAX);
        let start = now.saturating_sub(span);
        while self
            .arrivals
            .front()
            .is_some_and(|arrival| *arrival <= start)
        {
            self.arrivals.pop_front();
        }
    }

    /// Whether the window that ends with the last arrival holds more than it may.
    pub(super) fn is_over(&self) -> bool {
        self.limit
            .is_some_and(|limit| self.arrivals.len() > limit.calls as usize)
    }

    /// How many more calls the window that ends with the last arrival has room for.
    pub(super) fn remaining(&self) -> Option<usize> {
        Some((self.limit?.calls as usize).saturating_sub(self.arrivals.len()))
    }

    pub(super) fn span(&self) -> Duration {
        self.span
    }

    /// The most calls that any window has held.
    pub(super) fn most(&self) -> usize {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: i64) -> Timestamp {
        Timestamp::from_microsecond(1_700_000_000_000_000 + us).unwrap()
    }

    fn two_a_second() -> Window {
        let limit = Limit {
            calls: 2,
            window: Duration::from_secs(1),
        };
        Window::new(Some(limit), Duration::from_secs(10))
    }

    #[test]
    fn the_window_is_exact_at_its_edges() {
        let mut window = two_a_second();
        for (us, over) in [
            (0, false),
            (1, false),
            (1_000_000, false),
            (1_000_000, true),
        ] {
            window.arrive(at(us));
            assert_eq!(window.is_over(), over, "at {us} µs");
        }
        assert_eq!(window.most(), 3);
    }

    #[test]
    fn it_rolls_where_a_counter_per_second_would_not() {
        let mut window = two_a_second();
        for us in [900_000, 950_000, 1_050_000] {
            window.arrive(at(us));
        }
        assert!(window.is_over());
        assert_eq!(window.remaining(), Some(0));
        window.arrive(at(2_100_000));
        assert_eq!((window.is_over(), window.remaining()), (false, Some(1)));
    }

    #[test]
    fn without_a_limit_nothing_is_too_many() {
        let mut window = Window::new(None, Duration::from_secs(1));
        (0..1_000).for_each(|us| window.arrive(at(us)));
        assert_eq!(
            (window.is_over(), window.most(), window.remaining()),
            (false, 1_000, None)
        );
    }
}
