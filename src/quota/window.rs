//! One rolling window: when the next call may go.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::adaptive::Adaptive;
use super::ledger::Ledger;
use super::pace::Pace;
use super::{Full, IN_HAND_MAX, SPREAD_MAX, Start, WindowUsed};
use crate::config::{AdaptiveConfig, WindowConfig};
use crate::provider::{PROBE_CALLS, RollingLimit};

/// The share of a limit that may go out ahead of the pace: one in fifty, and two at the least, or
/// each wait that ends a little late would cost the rate that much.
const AHEAD_SHARE: u32 = 50;
/// The share of a window that a burst leaves to what comes later: one in ten.
const LATER_SHARE: u32 = 10;
/// How soon after the first call behind a rest a burst must be asked for, as a share of the window.
const EAGER_SHARE: u32 = 10;

#[derive(Debug)]
pub(super) struct Window {
    /// Where the limit is learned, this is what it began with.
    config: WindowConfig,
    is_adaptive: bool,
    state: Mutex<State>,
    /// There may be room now, or another pace.
    changed: Notify,
    /// More is asked for than the pace gives.
    eager: Notify,
    predecessor: Option<Predecessor>,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    pace: Pace,
    adaptive: Option<Adaptive>,
    burst: Option<Burst>,
    /// The first call behind a rest, if nobody was eager since.
    woke: Option<Instant>,
    /// Why the last one that asked was not let go.
    full: Option<Full>,
}

/// Most of a window at once.
#[derive(Debug)]
struct Burst {
    left: u32,
    /// Of the others.
    pace: Pace,
}

/// Who called before.
#[derive(Debug)]
struct Predecessor {
    /// When it made its last call, at the latest.
    last: Instant,
    at_once: bool,
}

impl Window {
    pub(super) fn new(
        config: WindowConfig,
        range: Option<AdaptiveConfig>,
        start: Start,
    ) -> Option<Self> {
        let period = config.window.checked_div(config.limit)?;
        let ahead = ahead(config.limit);
        let pace = Pace::new(period, ahead)?;
        // Its last calls may still be on their way, and the first of ours overtake them.
        let over = Instant::now() + 2 * SPREAD_MAX;
        let predecessor = match start {
            Start::Empty => None,
            Start::Spent => {
                while pace.take().is_ok() {}
                // It may have been ahead of the even spread that is assumed of it, and by the
                // tokens that were in hand.
                Some(Predecessor {
                    last: over + period * (ahead + IN_HAND_MAX),
                    at_once: false,
                })
            }
            Start::SpentAtOnce => Some(Predecessor {
                last: over,
                at_once: true,
            }),
        };
        Some(Self {
            config,
            is_adaptive: range.is_some(),
            state: Mutex::new(State {
                ledger: Ledger::new(config.window),
                pace,
                adaptive: range.map(|range| Adaptive::new(range, config.limit, config.window)),
                burst: None,
                woke: None,
                full: None,
            }),
            changed: Notify::new(),
            eager: Notify::new(),
            predecessor,
        })
    }

    pub(super) async fn token(&self) {
        let mut paced = false;
        loop {
            let changed = self.changed.notified();
            let Err(wait) = self.give(&mut paced) else {
                return;
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Gives a token when its turn has come (`paced`, once that is so) and the ledger has room, or
    /// else tells how long until it may.
    fn give(&self, paced: &mut bool) -> Result<(), Duration> {
        let mut state = self.lock();
        let given = self.decide(&mut state, paced);
        state.full = given.err().map(|(why, _)| why);
        given.map_err(|(_, wait)| wait)
    }

    fn decide(&self, state: &mut State, paced: &mut bool) -> Result<(), (Full, Duration)> {
        let now = Instant::now();
        state.learn(self.config, |adaptive| adaptive.look(now));
        let room = self.room(state, now);
        let at_once = state.burst.as_mut().filter(|burst| burst.left > 0);
        if let (Ok(()), Some(burst)) = (&room, at_once) {
            burst.left -= 1;
        } else {
            if !*paced {
                let burst = state.burst.as_ref();
                let pace = burst.map_or(&state.pace, |burst| &burst.pace);
                let turn = pace.take();
                if turn.is_err() && state.is_eager(now, self.config.window) {
                    self.eager.notify_one();
                }
                let why = room.err().map_or(Full::Pace, |(why, _)| why);
                turn.map_err(|wait| (why, wait))?;
                *paced = true;
            }
            room?;
        }
        state.ledger.in_hand += 1;
        Ok(())
    }

    /// Whether one more call fits, or else how long until it may.
    fn room(&self, state: &mut State, now: Instant) -> Result<(), (Full, Duration)> {
        let all = state.limit(self.config);
        let ledger = &mut state.ledger;
        let (calls, before) = (ledger.calls(now), self.calls_before(now));
        let reserved = if self.reserves() { ledger.in_hand } else { 0 };
        let (limit, until) = ledger.share(all as usize, now);
        if calls + reserved + before < limit {
            return Ok(());
        }
        let next = [ledger.next(), until].into_iter().flatten().min();
        let next = next.map(|until| until.saturating_duration_since(now));
        let next_before = (before > 0).then(|| self.kept() / self.config.limit);
        let wait = next.into_iter().chain(next_before).min();
        let why = if calls + reserved < limit {
            Full::Predecessor
        } else if limit < all as usize {
            Full::Share
        } else {
            Full::Window
        };
        Err((why, wait.unwrap_or(self.config.window)))
    }

    /// A call goes out.
    pub(super) fn leaves(&self, now: Instant) {
        let mut state = self.lock();
        let rested = state.ledger.calls(now) == 0 && self.calls_before(now) == 0;
        if rested && self.bursts().is_some() {
            state.woke = Some(now);
        }
        state.learn(self.config, |adaptive| adaptive.leaves(now));
        state.ledger.leaves();
    }

    /// A call that left at `left` has ended `now`.
    pub(super) fn ends(&self, left: Instant, on_its_way: Option<Instant>, now: Instant) {
        let mut state = self.lock();
        // A connection's time says nothing of how HubSpot bears the rate.
        if on_its_way == Some(left) {
            let took = now.saturating_duration_since(left);
            state.learn(self.config, |adaptive| adaptive.answered(took));
        }
        state.ledger.ends(on_its_way, now);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Where the limit is learned it was too high; else calls came closer together than was thought.
    pub(super) fn refused(&self, now: Instant) {
        let mut state = self.lock();
        let calls = state.ledger.calls(now);
        if self.is_adaptive {
            state.learn(self.config, |adaptive| adaptive.refused(calls, now));
        } else {
            state.ledger.refused(now);
        }
    }

    pub(super) fn failed(&self, now: Instant) {
        self.lock()
            .learn(self.config, |adaptive| adaptive.failed(now));
    }

    /// Where HubSpot's window is another one than ours, nothing follows. Nor where the limit is
    /// learned, since HubSpot's count may be of other calls then.
    pub(super) fn heed(&self, limit: RollingLimit, now: Instant) {
        if limit.window == self.config.window && !self.is_adaptive {
            let before = self.calls_before(now);
            self.lock().ledger.heed(limit, before, now);
            self.changed.notify_waiters();
        }
    }

    pub(super) fn give_back(&self) {
        let ledger = &mut self.lock().ledger;
        ledger.in_hand = ledger.in_hand.saturating_sub(1);
    }

    pub(super) fn used(&self, now: Instant) -> WindowUsed {
        let mut state = self.lock();
        let limit = state.limit(self.config);
        let (share, _) = state.ledger.share(limit as usize, now);
        WindowUsed {
            calls: u32::try_from(state.ledger.calls(now)).unwrap_or(u32::MAX),
            share: u32::try_from(share).unwrap_or(u32::MAX),
            told: state.ledger.told(now),
            is_refused: state.ledger.is_refused(now),
            full: state.full,
            config: WindowConfig {
                limit,
                ..self.config
            },
            is_learned: self.is_adaptive,
        }
    }

    // === bursts ===

    /// The limit of which bursts may be made; `None` where one call is all, or the limit is learned:
    /// that is done call by call.
    pub(super) fn bursts(&self) -> Option<WindowConfig> {
        (self.burst_size() > 0 && !self.is_adaptive).then_some(self.config)
    }

    /// What goes out at once in a burst.
    fn burst_size(&self) -> u32 {
        self.config.limit - self.later()
    }

    fn later(&self) -> u32 {
        (self.config.limit / LATER_SHARE).max(1)
    }

    pub(super) async fn eager(&self) {
        self.eager.notified().await;
    }

    pub(super) fn burst(&self) {
        let pace = Pace::new(self.config.window / self.later(), 1);
        self.lock().burst = pace.map(|pace| Burst {
            left: self.burst_size(),
            pace,
        });
        self.changed.notify_waiters();
    }

    /// Whether anything went out at once in this burst.
    pub(super) fn has_burst(&self) -> bool {
        let burst = &self.lock().burst;
        (burst.as_ref()).is_some_and(|burst| burst.left < self.burst_size())
    }

    pub(super) fn calm(&self) {
        self.lock().burst = None;
        self.changed.notify_waiters();
    }

    // === the one before ===

    /// How long a call of the predecessor counts.
    fn kept(&self) -> Duration {
        self.config.window + SPREAD_MAX
    }

    /// Whether tokens in hand count. A lane may hold one for as long as nothing comes: where there is
    /// room for a probe and no more, that would keep it from ever going out.
    fn reserves(&self) -> bool {
        self.config.limit > PROBE_CALLS
    }

    /// How many calls of the predecessor still count: a full window's, evenly spread unless they may
    /// have gone out at once.
    fn calls_before(&self, now: Instant) -> usize {
        let Some(predecessor) = &self.predecessor else {
            return 0;
        };
        let left = (predecessor.last + self.kept()).saturating_duration_since(now);
        if predecessor.at_once && !left.is_zero() {
            return self.config.limit as usize;
        }
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ahead(limit: u32) -> u32 {
    (limit / AHEAD_SHARE).max(2).min(limit)
}

impl State {
    fn limit(&self, config: WindowConfig) -> u32 {
        self.adaptive.as_ref().map_or(config.limit, Adaptive::limit)
    }

    /// Where the limit is learned: takes something in, and takes up another pace if it changes.
    fn learn(&mut self, config: WindowConfig, lesson: impl FnOnce(&mut Adaptive)) {
        let Some(adaptive) = &mut self.adaptive else {
            return;
        };
        let before = adaptive.limit();
        lesson(adaptive);
        let limit = adaptive.limit();
        if limit == before {
            return;
        }
        if let Some(pace) = Pace::new(config.window / limit, ahead(limit)) {
            // What may go ahead of the pace has gone.
            while pace.take().is_ok() {}
            self.pace = pace;
        }
    }

    /// Whether a burst is to be asked for; only once for each rest.
    fn is_eager(&mut self, now: Instant, window: Duration) -> bool {
        let woke = self.woke.take_if(|_| self.burst.is_none());
        woke.is_some_and(|woke| now.saturating_duration_since(woke) < window / EAGER_SHARE)
    }
}
