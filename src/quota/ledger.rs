//! What counts against one rolling window, and until when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::time::Instant;

use super::{IN_HAND_MAX, STALLED_AFTER};
use crate::provider::RollingLimit;

/// How long a wider spread is remembered that HubSpot's refusals taught.
const LEARNT_FOR: Duration = Duration::from_mins(10);
/// How much room is left beside what others use: so much of that, and of the limit.
const OTHERS_MARGIN: usize = 10;
/// How long it is remembered, where no answer tells more.
const OTHERS_FOR: Duration = Duration::from_mins(1);
/// One in so many of a window's calls may have ceased to count with us and not yet with HubSpot.
const COUNTED_LONGER: usize = 50;
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
    others: Option<Others>,
}

/// What HubSpot told that others use of the same window.
#[derive(Clone, Copy, Debug)]
struct Others {
    calls: usize,
    /// HubSpot's own limit.
    max: usize,
    until: Instant,
}

impl Ledger {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            window,
            in_hand: 0,
            in_flight: 0,
            ended: BinaryHeap::new(),
            learnt: None,
            others: None,
        }
    }

    /// A call goes out.
    pub(super) fn leaves(&mut self) {
        self.in_hand = self.in_hand.saturating_sub(1);
        self.in_flight += 1;
    }

    /// A call has ended `now`: it arrived before that. Where it is known when it was on its way, it was no
    /// later than the spread after that, unless it was held up.
    pub(super) fn ends(&mut self, on_its_way: Option<Instant>, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let on_its_way = on_its_way.filter(|at| *at + STALLED_AFTER >= now);
        let arrived = on_its_way.map_or(now, |at| now.min(at + self.spread(now)));
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

    /// HubSpot refused a call that fitted: calls arrive further apart from how they left. What else is
    /// refused within a window of that tells the same: all that was under way may be.
    pub(super) fn refused(&mut self, now: Instant) {
        if self.learnt.is_some_and(|(_, at)| now < at + self.window) {
            return;
        }
        let wider = (self.spread(now) * 2).min(self.window / 4);
        self.learnt = Some((wider, now));
    }

    /// HubSpot told how much of the window is used, by whomever. What is more than ours and those of the
    /// one `before`, but for calls that it still counted and we do not, are others'.
    pub(super) fn heed(&mut self, limit: RollingLimit, before: usize, now: Instant) {
        let (max, remaining) = (limit.max as usize, limit.remaining as usize);
        let ours = self.calls(now) + before + 1 + max / COUNTED_LONGER;
        let calls = max.saturating_sub(remaining).saturating_sub(ours);
        // They need not call as evenly as we do.
        let margin = if calls > 0 {
            calls / OTHERS_MARGIN + max / OTHERS_MARGIN
        } else {
            0
        };
        self.others = Some(Others {
            calls: calls + margin,
            max,
            until: now + self.window.max(OTHERS_FOR),
        });
    }

    /// What is ours of `limit`, and for how long that is so if others use some of it.
    pub(super) fn share(&self, limit: usize, now: Instant) -> (usize, Option<Instant>) {
        match self.others.filter(|others| now < others.until) {
            Some(others) => {
                // So much at the least that a probe goes out beside an idle lane: its answers tell how
                // things are by then.
                let ours = limit.min(others.max).saturating_sub(others.calls);
                (
                    ours.max(IN_HAND_MAX as usize).min(limit),
                    Some(others.until),
                )
            }
            None => (limit, None),
        }
    }

    /// Whether HubSpot refused calls that fitted, and that is remembered.
    pub(super) fn is_refused(&self, now: Instant) -> bool {
        self.learnt_lately(now).is_some()
    }

    fn learnt_lately(&self, now: Instant) -> Option<Duration> {
        let (learnt, at) = self.learnt?;
        (now.saturating_duration_since(at) < LEARNT_FOR).then_some(learnt)
    }

    /// HubSpot's own limit, as it told lately.
    pub(super) fn told(&self, now: Instant) -> Option<u32> {
        let others = self.others.filter(|others| now < others.until)?;
        u32::try_from(others.max).ok()
    }

    /// How much closer together than they left two calls may arrive.
    pub(super) fn spread(&self, now: Instant) -> Duration {
        let least = super::spread(self.window);
        self.learnt_lately(now)
            .map_or(least, |learnt| learnt.max(least))
    }
}
