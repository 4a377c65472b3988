//! Pauses: why the dispatch of an account is held back, since when, until when.
//!
//! A pause with an end (a rolling limit, the day, a migration) ends by itself. One without (a
//! refused token, a missing scope, an outage) is probed, and then tried with a single message,
//! before the account goes on. Nothing is dead-lettered and no attempt is spent for a pause.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::outcome::{PauseReason, Words};
use crate::queue::Lane;

/// The first wait before a probe; each further one doubles it.
const PROBE_FIRST: Duration = Duration::from_secs(1);
/// The longest wait between two probes.
const PROBE_MAX: Duration = Duration::from_mins(1);

/// Which lanes a pause holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    Sends,
    Results,
    Both,
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
    /// One message may go out to see whether the trouble is over.
    trial: bool,
}

/// Whether a lane may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// One message may be tried: take it with [`Pauses::take_trial`].
    Trial,
    /// Shut, until then or for an unknown time.
    Shut {
        until: Option<Instant>,
    },
}

/// All pauses of one account. Cheap to clone; everybody sees the same ones.
#[derive(Clone, Debug)]
pub struct Pauses {
    active: Arc<Mutex<Vec<Pause>>>,
    /// Counts changes, for those who wait for one.
    changes: Arc<watch::Sender<u64>>,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            active: Arc::default(),
            changes: Arc::new(watch::Sender::new(0)),
        }
    }
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
            pause.trial = false;
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
                trial: false,
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

    /// Ends what a success disproves: HubSpot took a send that began after the pause did.
    pub fn disproved(&self, called: Instant) -> Vec<Pause> {
        self.end(|pause| {
            pause.ends.is_none()
                && pause.began <= called
                && pause.reason != PauseReason::Unproven
                && pause.covers != Covers::Results
        })
    }

    /// Whether a lane may go on now. Pauses whose end has passed are gone.
    #[must_use]
    pub fn gate(&self, lane: Lane) -> Gate {
        let now = Instant::now();
        self.end(|pause| pause.ends.is_some_and(|ends| ends <= now));
        let active = self.lock();
        let mut gate = Gate::Open;
        for pause in active.iter().filter(|pause| pause.covers.lane(lane)) {
            // What holds both lanes is tried with a send: the other lane may be empty for ever.
            let trial = pause.trial && (lane == Lane::Sends || pause.covers == Covers::Results);
            gate = match (gate, trial) {
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

    /// Takes the one trial; false when somebody was faster.
    #[must_use]
    pub fn take_trial(&self, lane: Lane) -> bool {
        if self.gate(lane) != Gate::Trial {
            return false;
        }
        for pause in self
            .lock()
            .iter_mut()
            .filter(|pause| pause.covers.lane(lane))
        {
            pause.trial = false;
        }
        true
    }

    /// When the next probe is due; `None` when nothing is to be probed.
    #[must_use]
    pub fn next_probe(&self) -> Option<Instant> {
        self.lock()
            .iter()
            .filter(|pause| pause.ends.is_none() && !pause.trial)
            .map(|pause| pause.next_probe)
            .min()
    }

    /// Notes that a probe was made: the next one comes later.
    pub fn probed(&self) {
        let now = Instant::now();
        for pause in self.lock().iter_mut().filter(|pause| pause.ends.is_none()) {
            pause.probes += 1;
            let wait = PROBE_FIRST * 2_u32.saturating_pow(pause.probes.min(6));
            pause.next_probe = now + wait.min(PROBE_MAX);
        }
    }

    /// Lets one message through each pause for which `allow` holds.
    pub fn allow_trial(&self, allow: impl Fn(&Pause) -> bool) {
        for pause in self.lock().iter_mut().filter(|pause| pause.ends.is_none()) {
            if allow(pause) {
                pause.trial = true;
            }
        }
        self.changed();
    }

    /// Whether the provider is held to be down.
    #[must_use]
    pub fn outage(&self) -> bool {
        self.lock()
            .iter()
            .any(|pause| pause.reason == PauseReason::Outage)
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

    /// Something that resolves at the next change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Pause>> {
        self.active
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Covers {
    #[must_use]
    pub fn lane(self, lane: Lane) -> bool {
        match (self, lane) {
            (Self::Both, _) | (Self::Sends, Lane::Sends) | (Self::Results, Lane::Results) => true,
            (Self::Sends, Lane::Results) | (Self::Results, Lane::Sends) => false,
        }
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
