//! What counts against one rolling window, and until when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::time::Instant;

/// How long a wider spread is remembered that HubSpot's refusals taught.
const LEARNT_FOR: Duration = Duration::from_mins(10);

/// Calls that may lie in HubSpot's window, and those that are about to.
#[derive(Debug)]
pub(super) struct Ledger {
    window: Duration,
    /// Tokens that were given and neither spent nor given back.
    pub(super) in_hand: usize,
    /// Calls that went out and have not ended.
    in_flight: usize,
    /// Of the calls that have ended: when each ceases to count.
    ended: BinaryHeap<Reverse<Instant>>,
    /// The spread that refusals taught, and when.
    learnt: Option<(Duration, Instant)>,
    began: Instant,
}

impl Ledger {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            window,
            in_hand: 0,
            in_flight: 0,
            ended: BinaryHeap::new(),
            learnt: None,
            began: Instant::now(),
        }
    }

    pub(super) fn leaves(&mut self) {
        self.in_hand = self.in_hand.saturating_sub(1);
        self.in_flight += 1;
    }

    /// A call that left at `left` has ended `now`: it arrived before that, and no later than the
    /// spread after it left.
    pub(super) fn ends(&mut self, left: Instant, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let arrived = now.min(left + self.spread(now));
        self.ended.push(Reverse(arrived + self.window));
    }

    /// How many calls count.
    pub(super) fn calls(&mut self, now: Instant) -> usize {
        while (self.ended.peek()).is_some_and(|Reverse(until)| *until <= now) {
            self.ended.pop();
        }
        self.in_flight + self.ended.len()
    }

    /// When the next of them ceases to, if that is known.
    pub(super) fn next(&self) -> Option<Instant> {
        self.ended.peek().map(|Reverse(until)| *until)
    }

    /// HubSpot refused a call that fitted: calls arrive further apart from how they left.
    pub(super) fn refused(&mut self, now: Instant) {
        let wider = (self.spread(now) * 2).min(self.window / 4);
        self.learnt = Some((wider, now));
    }

    /// How much closer together than they left two calls may arrive.
    pub(super) fn spread(&self, now: Instant) -> Duration {
        // The first calls open their connections, and the later ones find them open.
        let first = now.saturating_duration_since(self.began) < self.window;
        let least = if first {
            super::SPREAD_MAX
        } else {
            super::spread(self.window)
        };
        match self.learnt {
            Some((learnt, at)) if now.saturating_duration_since(at) < LEARNT_FOR => {
                learnt.max(least)
            }
            Some(_) | None => least,
        }
    }
}
