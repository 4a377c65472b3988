//! A limit that is learned from what HubSpot bears.
//!
//! HubSpot's own description of Single Send exempts it from the limits that its guidelines publish,
//! and no other number is told. So the limit climbs while it is used up and nothing pushes back.
//! What does is a refusal, answers that fail, and answers that take longer than they used to. Then
//! the limit falls at once, and where it stood is remembered as the knee. It climbs fast to just
//! below that, and from there so slowly that it takes many windows to get to the knee; twice as
//! many each time that the knee is where it was. So it settles.

use std::time::Duration;

use tokio::time::Instant;

use super::STALLED_AFTER;
use crate::config::AdaptiveConfig;

/// What a limit grows to in one round where nothing is known to be near.
const CLIMB: f64 = 1.125;
/// What is left of it after a fall.
const FALL: f64 = 0.8;
/// To where it climbs fast, as a share of the knee; and how far beyond the knee it is forgotten.
const BELOW: f64 = 0.95;
const BEYOND: f64 = 1.05;
/// How many rounds it takes from there to the knee.
const ROUNDS: std::ops::RangeInclusive<f64> = 20.0..=640.0;
/// Two knees so near each other are one.
const SAME: f64 = 0.1;
/// The share of a limit that counts as used up.
const BUSY: f64 = 0.9;
/// So many failures among a round's calls push back: one in ten, and three at the least.
const FAILURES_SHARE: u32 = 10;
const FAILURES_MIN: u32 = 3;
/// Answers that take so many times as long as they used to, and this time more, push back.
const SLOWER: f64 = 2.0;
const SLOWER_MIN: Duration = Duration::from_millis(50);
/// What is left of that time after a fall that helped.
const HELPED: f64 = 0.9;
/// A mean of fewer tells nothing.
const ANSWERS_MIN: u32 = 10;
/// How fast a longer time becomes the usual one, for each round: far more slowly than the limit climbs.
const USED_TO: f64 = 1.001;

#[derive(Debug)]
pub(super) struct Adaptive {
    range: AdaptiveConfig,
    window: Duration,
    /// Whole calls of it count.
    limit: f64,
    knee: Option<Knee>,
    /// How long an answer takes.
    usual: Option<Duration>,
    /// How long it took when the limit fell for that.
    late: Option<Duration>,
    round: Round,
    /// Until then what is heard tells of the limit before.
    fell_until: Option<Instant>,
}

/// Where HubSpot pushed back.
#[derive(Clone, Copy, Debug)]
struct Knee {
    at: f64,
    /// From just below to it.
    rounds: f64,
}

/// A window's time, from the first call in it.
#[derive(Debug, Default)]
struct Round {
    began: Option<Instant>,
    calls: u32,
    failures: u32,
    answers: u32,
    waited: Duration,
    /// By how much longer its calls count, for answers that may have been held up.
    longer: Duration,
}

impl Adaptive {
    pub(super) fn new(range: AdaptiveConfig, limit: u32, window: Duration) -> Self {
        Self {
            range,
            window,
            limit: limit.into(),
            knee: None,
            usual: None,
            late: None,
            round: Round::default(),
            fell_until: None,
        }
    }

    pub(super) fn limit(&self) -> u32 {
        // Within the range, which are u32.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from the floor to the ceiling"
        )]
        let limit = self.limit as u32;
        limit
    }

    pub(super) fn leaves(&mut self, now: Instant) {
        self.round.began.get_or_insert(now);
        self.round.calls += 1;
    }

    pub(super) fn answered(&mut self, took: Duration) {
        self.round.answers += 1;
        self.round.waited += took;
        if took > STALLED_AFTER {
            self.round.longer += took;
        }
    }

    /// HubSpot failed over a call, or did not answer it.
    pub(super) fn failed(&mut self, now: Instant) {
        self.round.failures += 1;
        if self.round.failures >= (self.round.calls / FAILURES_SHARE).max(FAILURES_MIN) {
            self.pushed_back(self.limit, now);
        }
    }

    /// HubSpot refused a call, which was one of so many in the window.
    pub(super) fn refused(&mut self, calls: usize, now: Instant) {
        #[expect(clippy::cast_precision_loss, reason = "calls of one window")]
        self.pushed_back(self.limit.min(calls as f64), now);
    }

    fn pushed_back(&mut self, at: f64, now: Instant) {
        if self.fell_until.is_some_and(|until| now < until) {
            return;
        }
        let known = self.knee.filter(|it| (it.at - at).abs() < it.at * SAME);
        let rounds = match known {
            // It had nowhere to fall, and so this says nothing new.
            Some(known) if self.is_at_floor() => known.rounds,
            Some(known) => known.rounds * 2.0,
            None => *ROUNDS.start(),
        };
        self.knee = Some(Knee {
            at,
            rounds: rounds.min(*ROUNDS.end()),
        });
        self.limit = self.in_range(at * FALL);
        self.fell_until = Some(now + self.window);
        self.round = Round::default();
    }

    /// Ends the round when its time is over.
    pub(super) fn look(&mut self, now: Instant) {
        let time = self.round.began.map(|it| now.saturating_duration_since(it));
        let Some(time) = time.filter(|time| *time >= self.window) else {
            return;
        };
        let round = std::mem::take(&mut self.round);
        if self.is_slower(&round) {
            self.pushed_back(self.limit, now);
            return;
        }
        let calls = (self.window * round.calls + round.longer).div_duration_f64(time);
        // Of a low limit, what is left beyond the whole calls would pass for calls that were not made.
        if calls >= f64::from(self.limit()) * BUSY {
            self.climb();
        }
    }

    /// Whether answers take longer than they used to, and a lower limit may help.
    fn is_slower(&mut self, round: &Round) -> bool {
        if round.answers < ANSWERS_MIN {
            return false;
        }
        let mean = round.waited / round.answers;
        let usual = self.usual.unwrap_or(mean);
        self.usual = Some(usual.mul_f64(USED_TO).min(mean));
        let late = self.late.take();
        if mean <= usual.mul_f64(SLOWER) + SLOWER_MIN {
            return false;
        }
        if self.is_at_floor() || late.is_some_and(|late| mean > late.mul_f64(HELPED)) {
            // It is not for us that it is slow.
            self.usual = Some(mean);
            return false;
        }
        self.late = Some(mean);
        true
    }

    fn is_at_floor(&self) -> bool {
        self.limit <= self.range.floor.into()
    }

    fn climb(&mut self) {
        let fast = (self.limit * CLIMB).max(self.limit + 1.0);
        let limit = match self.knee {
            None => fast,
            Some(knee) if self.limit < knee.at * BELOW => fast.min(knee.at * BELOW),
            Some(knee) => self.limit + knee.at * (1.0 - BELOW) / knee.rounds,
        };
        self.limit = self.in_range(limit);
        self.knee = self.knee.filter(|knee| limit < knee.at * BEYOND);
    }

    fn in_range(&self, limit: f64) -> f64 {
        limit.clamp(self.range.floor.into(), self.range.ceiling.into())
    }
}
