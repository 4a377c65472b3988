//! Pauses: why the dispatch of an account is held back, since when, until when.
//!
//! A pause with an end (a rolling limit, the day, a migration) ends by itself. One without (a
//! refused token, a missing scope, an outage) is probed, and then tried with a single message,
//! before the account goes on. After a rolling limit a lane goes on with one call at a time, until
//! one is not refused. Nothing is dead-lettered and no attempt is spent for a pause.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use crate::message::Priority;
use crate::outcome::{PauseReason, Words};
use crate::queue::Lane;

/// The first wait before a probe; each further one doubles it.
const PROBE_FIRST: Duration = Duration::from_secs(1);
/// The longest wait between two probes.
const PROBE_MAX: Duration = Duration::from_mins(1);

/// Both.
pub const LANES: [Lane; 2] = [Lane::Sends, Lane::Results];

/// Which lanes a pause holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    Sends,
    Results,
    Both,
    /// No lane, but sends that are less urgent than this. It always has an end.
    Below(Priority),
}

/// One reason to wait.
#[derive(Clone, Debug)]
pub struct Pause {
    pub reason: PauseReason,
    pub covers: Covers,
    pub since: Timestamp,
    /// When it ends by itself; `None` when only a probe can tell.
    pub until: Option<Timestamp>,
    pub words: Words,
    began: Instant,
    ends: Option<Instant>,
    probes: u32,
    next_probe: Instant,
    /// The lanes of which one message may go out to see whether the trouble is over. Each has its
    /// own: the other one may be empty for ever.
    trials: BTreeSet<Lane>,
}

/// What an answer of HubSpot proves about the pauses that had begun before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It looked at a send, be it to refuse it: it is not down.
    Answered,
    /// It took a send. An account that it has stopped it also takes mail from, and then sends none.
    Accepted,
    /// It sent what it had taken.
    Sent,
    /// It told how far a send is.
    LookedUp,
}

/// Whether a lane may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// One message may be tried: when it goes out, [`Pauses::spend_trial`].
    Trial,
    /// Shut, until then or for an unknown time.
    Shut {
        until: Option<Instant>,
    },
}

/// All pauses of one account. Cheap to clone; everybody sees the same ones.
#[derive(Clone, Debug, Default)]
pub struct Pauses {
    active: Arc<Mutex<Vec<Pause>>>,
    /// The lanes that HubSpot throttled, when it did so last, and has not let through since then.
    throttled: Arc<Mutex<BTreeMap<Lane, Instant>>>,
    /// Wakes those who wait for a change, in the order in which they came. A `watch` would wake
    /// them in an order of its own, and no simulation would repeat.
    changes: Arc<Notify>,
}

impl Pauses {
    /// Begins a pause, or renews the one with the same reason. A renewed one keeps its `since`
    /// and its growing distance between probes. Returns whether it is new.
    pub fn begin(
        &self,
        reason: PauseReason,
        covers: Covers,
        now: Timestamp,
        until: Option<Timestamp>,
        words: Words,
    ) -> bool {
        let instant = Instant::now();
        if reason == PauseReason::Throttled {
            let mut throttled = self.throttled();
            for lane in LANES.into_iter().filter(|lane| covers.lane(*lane)) {
                throttled.insert(lane, instant);
            }
        }
        let ends = until.map(|until| instant + crate::clock::until(now, until));
        let mut active = self.lock();
        let known = active
            .iter_mut()
            .find(|pause| pause.reason == reason && pause.covers == covers);
        let new = known.is_none();
        if let Some(pause) = known {
            pause.ends = ends.max(pause.ends);
            pause.until = until.max(pause.until);
            pause.words = words;
            pause.began = instant;
        } else {
            active.push(Pause {
                reason,
                covers,
                since: now,
                until,
                words,
                began: instant,
                ends,
                probes: 0,
                // Nothing leaves before the first proof: that one is wanted at once.
                next_probe: if reason == PauseReason::Unproven {
                    instant
                } else {
                    instant + PROBE_FIRST
                },
                trials: BTreeSet::new(),
            });
        }
        drop(active);
        self.changed();
        new
    }

    /// Ends the pauses for which `over` holds; returns them.
    pub fn end(&self, over: impl Fn(&Pause) -> bool) -> Vec<Pause> {
        let mut active = self.lock();
        let (ended, rest) = std::mem::take(&mut *active).into_iter().partition(over);
        *active = rest;
        drop(active);
        let ended: Vec<Pause> = ended;
        if !ended.is_empty() {
            self.changed();
        }
        ended
    }

    /// Ends what an answer to a call made at `called` disproves: of the pauses that only a proof
    /// ends, those that had begun by then.
    pub fn disproved(&self, called: Instant, proof: Proof) -> Vec<Pause> {
        let lane = match proof {
            Proof::Answered | Proof::Accepted => Some(Lane::Sends),
            Proof::LookedUp => Some(Lane::Results),
            Proof::Sent => None,
        };
        let mut throttled = self.throttled();
        throttled.retain(|of, since| lane != Some(*of) || *since > called);
        drop(throttled);
        self.end(|pause| pause.ends.is_none() && pause.began <= called && proof.ends(pause))
    }

    /// A look-up was answered: the next one may go out too, through what holds both lanes.
    pub fn keep_looking_up(&self, called: Instant) {
        let mut more = false;
        for pause in self.lock().iter_mut() {
            let both = pause.covers == Covers::Both && pause.ends.is_none();
            if both && pause.began <= called && pause.reason != PauseReason::Unproven {
                more |= pause.trials.insert(Lane::Results);
            }
        }
        if more {
            self.changed();
        }
    }

    /// Whether a lane may go on now. Pauses whose end has passed are gone.
    #[must_use]
    pub fn gate(&self, lane: Lane) -> Gate {
        let now = Instant::now();
        self.end(|pause| pause.ends.is_some_and(|ends| ends <= now));
        let active = self.lock();
        let mut gate = Gate::Open;
        for pause in active.iter().filter(|pause| pause.covers.lane(lane)) {
            gate = match (gate, pause.trials.contains(&lane)) {
                (Gate::Open | Gate::Trial, true) => Gate::Trial,
                (Gate::Open | Gate::Trial, false) => Gate::Shut { until: pause.ends },
                // Of several, the last one to end counts; an unknown end is later than any.
                (Gate::Shut { until: Some(end) }, false) => Gate::Shut {
                    until: pause.ends.map(|ends| ends.max(end)),
                },
                (shut @ Gate::Shut { .. }, _) => shut,
            };
        }
        gate
    }

    /// The least urgent sends that may go through an open gate, and until when that is so if it is not
    /// for ever. Ask [`Self::gate`] first.
    #[must_use]
    pub fn least_urgent(&self) -> (Priority, Option<Instant>) {
        let mut least = (Priority::Low, None);
        for pause in self.lock().iter() {
            if let Covers::Below(priority) = pause.covers {
                least.0 = least.0.min(priority);
                least.1 = [least.1, pause.ends].into_iter().flatten().min();
            }
        }
        least
    }

    /// Whether the lane's calls are to go one by one: the last one that HubSpot heard was refused
    /// for a rolling limit. It is over by the clock, but a limit that others use up may last for
    /// hours, and a burst that only tells that again helps nobody.
    #[must_use]
    pub fn one_by_one(&self, lane: Lane) -> bool {
        self.throttled().contains_key(&lane)
    }

    /// The lane's one message goes out. Whatever becomes of it, there is to be another probe.
    pub fn spend_trial(&self, lane: Lane) {
        let mut spent = false;
        for pause in self.lock().iter_mut() {
            spent |= pause.trials.remove(&lane);
        }
        if spent {
            self.changed();
        }
    }

    /// When the next probe is due; `None` when nothing is to be probed. Never before the end of a
    /// pause that holds both lanes: there is no call left for it.
    #[must_use]
    pub fn next_probe(&self) -> Option<Instant> {
        let active = self.lock();
        let next = active
            .iter()
            .filter(|pause| pause.ends.is_none() && !pause.is_on_trial())
            .map(|pause| pause.next_probe)
            .min()?;
        let ends = active
            .iter()
            .filter(|pause| pause.covers == Covers::Both)
            .filter_map(|pause| pause.ends);
        ends.chain([next]).max()
    }

    /// Notes that a probe was made: the next one comes later, and no sooner than HubSpot asks where it
    /// `refused` the probe for a rolling limit. That tells nothing of the trouble. What waits for the
    /// first proof has no trouble but that: it is asked about as soon as the limit lets it be.
    pub fn probed(&self, refused: Option<Duration>) {
        let now = Instant::now();
        let asked = refused.map(|wait| wait.min(PROBE_MAX));
        for pause in self.lock().iter_mut().filter(|pause| pause.ends.is_none()) {
            let wait = match (pause.reason, asked) {
                (PauseReason::Unproven, Some(asked)) => asked,
                (_, asked) => {
                    pause.probes += 1;
                    let wait = PROBE_FIRST * 2_u32.saturating_pow(pause.probes.min(6));
                    wait.min(PROBE_MAX).max(asked.unwrap_or_default())
                }
            };
            pause.next_probe = now + wait;
        }
    }

    /// What is known by now of why it is paused, where it is for this reason.
    pub fn tell(&self, reason: PauseReason, words: &Words) {
        for pause in self.lock().iter_mut().filter(|it| it.reason == reason) {
            pause.words = words.clone();
        }
    }

    /// Lets one message of each lane through each pause for which `allow` holds.
    pub fn allow_trial(&self, allow: impl Fn(&Pause) -> bool) {
        for pause in self.lock().iter_mut().filter(|pause| pause.ends.is_none()) {
            if allow(pause) {
                let covers = pause.covers;
                let held = LANES.into_iter();
                pause.trials.extend(held.filter(|lane| covers.lane(*lane)));
            }
        }
        self.changed();
    }

    /// Whether it is paused for this reason, whatever that holds back.
    #[must_use]
    pub fn is_paused(&self, reason: PauseReason) -> bool {
        self.lock().iter().any(|pause| pause.reason == reason)
    }

    /// HubSpot has stopped the account: only a final result shows that it is over.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.is_paused(PauseReason::Portal)
    }

    /// Whether the provider is held to be down.
    #[must_use]
    pub fn outage(&self) -> bool {
        self.is_paused(PauseReason::Outage)
    }

    /// Until when a message of the lane waits that is not to be tried now: the end of the longest
    /// pause, or the next probe, and in any case at least a second.
    #[must_use]
    pub fn held_until(&self, lane: Lane, now: Timestamp) -> Timestamp {
        let instant = Instant::now();
        let wait = self
            .lock()
            .iter()
            .filter(|pause| pause.covers.lane(lane))
            .map(|pause| pause.ends.unwrap_or(pause.next_probe))
            .max()
            .map(|end| end.saturating_duration_since(instant))
            .unwrap_or_default();
        crate::clock::after(now, wait.max(Duration::from_secs(1)))
    }

    /// What is active now.
    #[must_use]
    pub fn list(&self) -> Vec<Pause> {
        self.lock().clone()
    }

    /// Resolves at the next change after this call.
    pub fn change(&self) -> OwnedNotified {
        Arc::clone(&self.changes).notified_owned()
    }

    fn changed(&self) {
        self.changes.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Pause>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn throttled(&self) -> MutexGuard<'_, BTreeMap<Lane, Instant>> {
        let throttled = self.throttled.lock();
        throttled.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pause {
    /// Each lane that it holds may try a message.
    fn is_on_trial(&self) -> bool {
        LANES
            .iter()
            .all(|lane| !self.covers.lane(*lane) || self.trials.contains(lane))
    }
}

impl Proof {
    fn ends(self, pause: &Pause) -> bool {
        match pause.reason {
            PauseReason::Unproven => false,
            PauseReason::Outage if self == Self::Answered => true,
            // Not even an accepted send shows that such an account sends.
            PauseReason::Portal if pause.covers == Covers::Sends => self == Self::Sent,
            PauseReason::Unauthorized
            | PauseReason::App
            | PauseReason::Forbidden
            | PauseReason::Migrating
            | PauseReason::Daily
            | PauseReason::Throttled
            | PauseReason::Portal
            | PauseReason::Outage => match pause.covers {
                Covers::Results => self == Self::LookedUp,
                Covers::Sends | Covers::Both => self == Self::Accepted,
                Covers::Below(_) => false,
            },
        }
    }
}

impl Covers {
    #[must_use]
    pub fn lane(self, lane: Lane) -> bool {
        match (self, lane) {
            (Self::Both, _) | (Self::Sends, Lane::Sends) | (Self::Results, Lane::Results) => true,
            (Self::Sends, Lane::Results) | (Self::Results, Lane::Sends) | (Self::Below(_), _) => {
                false
            }
        }
    }

    #[must_use]
    pub fn priority(self, priority: Priority) -> bool {
        matches!(self, Self::Below(least) if priority > least)
    }
}

impl From<Lane> for Covers {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Sends => Self::Sends,
            Lane::Results => Self::Results,
        }
    }
}

#[cfg(test)]
mod tests;
