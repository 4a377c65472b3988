//! The keeper of an account's pauses: it probes whether the trouble is over.
//!
//! A probe sends no mail. Where it cannot tell, one message is let through to find out.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Dispatcher, sleep_until};
use crate::clock::until;
use crate::metrics::Operation;
use crate::outcome::{Failure, FailureClass, PauseReason, Scope, Words};
use crate::pause::Covers;
use crate::provider::{PROBE_CALLS, Probe, Provider};
use crate::queue::{Lane, Queue};
use crate::quota::RateLimiter;
use crate::retry::throttled_wait;

impl<Q: Queue, P: Provider> Dispatcher<Q, P> {
    /// Holds everything back until the token is proven, as far as HubSpot lets it be proven.
    pub(super) fn hold_until_proven(&self, words: Words) {
        let (now, pauses) = (self.clock.now(), &self.account.pauses);
        pauses.begin(PauseReason::Unproven, Covers::Both, now, None, words);
    }

    /// Probes once at the start, on suspicion, when another token stands ready, and while something
    /// is held back.
    pub(super) async fn keep_pauses(&self, api: &Arc<RateLimiter>, term: &CancellationToken) {
        let work = async {
            self.count_earlier_calls(api).await;
            self.probe(api).await;
            let mut changed = pin!(self.provider.token_changed());
            loop {
                let change = self.account.pauses.change();
                let next = self.account.pauses.next_probe();
                let zone = self.next_look_for_zone();
                tokio::select! {
                    biased;
                    () = self.suspicion.notified() => self.probe(api).await,
                    () = sleep_until(next) => self.probe(api).await,
                    () = sleep_until(zone) => self.probe(api).await,
                    () = &mut changed => {
                        self.probe(api).await;
                        changed.set(self.provider.token_changed());
                    }
                    () = change => {}
                }
            }
        };
        tokio::select! {
            biased;
            () = term.cancelled() => {}
            () = work => {}
        }
    }

    /// While a day is spent of which nobody has told when it ends: HubSpot may have refused the very probe
    /// that asks for the account's time zone, and answers it as soon as the day is over there.
    fn next_look_for_zone(&self) -> Option<Instant> {
        let now = self.clock.now();
        Some(Instant::now() + until(now, self.looks_for_zone(now)?))
    }

    fn looks_for_zone(&self, now: Timestamp) -> Option<Timestamp> {
        let mut pauses = self.account.pauses.list().into_iter();
        let is_spent = pauses
            .any(|pause| pause.reason == PauseReason::Daily && pause.covers.lane(Lane::Sends));
        is_spent.then(|| self.account.day().asks_for_zone(now))?
    }

    /// Until when a message of the lane waits that is not to be tried now: no longer than it takes to learn
    /// that a day has ended of which nobody told when it does.
    pub(super) fn held_until(&self, lane: Lane, now: Timestamp) -> Timestamp {
        let held = self.account.pauses.held_until(lane, now);
        self.looks_for_zone(now).map_or(held, |look| held.min(look))
    }

    /// Counts what was called for the account before it was dispatched, such as the proof at the
    /// worker's start. Later than it went out is the safe side.
    async fn count_earlier_calls(&self, api: &Arc<RateLimiter>) {
        while self.account.takes_earlier_call() {
            let token = api.token().await;
            drop(api.spend(token));
            self.count_call();
        }
    }

    /// Probes until something is known of the token in force, if that is in question.
    async fn probe(&self, api: &Arc<RateLimiter>) {
        while !self.probe_once(api).await && self.account.pauses.next_probe().is_some() {}
    }

    /// One probe and what it says about each pause. Whether it was about the token in force.
    async fn probe_once(&self, api: &Arc<RateLimiter>) -> bool {
        let mut tokens = Vec::new();
        for _ in 0..PROBE_CALLS {
            tokens.push(api.token().await);
        }
        // All at once, since that is how they go out: the first one may have waited for the others.
        let flights: Vec<_> = tokens.into_iter().map(|token| api.spend(token)).collect();
        for _ in &flights {
            self.count_call();
        }
        let called = Instant::now();
        let probe = self.provider.probe().await;
        // They may have waited for a token: what is known is that they arrived by now.
        drop(flights);
        let now = self.clock.now();
        if let Probe::Open(portal) = &probe {
            // Before the limits are read, which tell of that day.
            let zone = portal.time_zone.as_deref();
            if let Some(zone) = zone.and_then(|name| TimeZone::get(name).ok()) {
                self.learn_zone(zone, now);
            }
        }
        self.heed_limits(now);
        let name = &self.account.name;
        self.metrics.took(name, Operation::Probe, called.elapsed());
        // Each call by itself: of a token that stood ready, what was found says nothing of the account.
        for status in self.provider.probe_answers() {
            self.metrics.answered(name, status);
        }
        if probe == Probe::Kept {
            return false;
        }
        self.account.pauses.probed(limited(&probe));
        match probe {
            Probe::Open(_) => self.opened(),
            Probe::Wrong(_, problem) => {
                self.hold_until_proven(ours(problem.clone()));
                tracing::error!(
                    account = %self.account.name, problem,
                    hint = "correct the token, or what accounts.NAME pins; nothing is sent meanwhile",
                    "the token opens another account than the configured one"
                );
            }
            Probe::Shut(failure) => {
                self.heed(&failure, Lane::Sends, now);
                self.proven_enough("HubSpot says what is wrong with the token", &failure);
            }
            Probe::Kept => {}
            Probe::Inconclusive(failure) => {
                self.proven_enough("HubSpot does not say more of the token", &failure);
                if failure.class == FailureClass::Throttled {
                    // A probe counts where look-ups do.
                    self.heed(&failure, Lane::Results, now);
                }
                let down = failure.scope == Scope::Provider;
                if down && self.storm().is_suspect() {
                    self.hold(PauseReason::Outage, &failure, Lane::Sends, now);
                }
                // Where HubSpot itself is not reached there is nothing to try.
                let may_try = !down && !self.settings.pinned;
                self.account.pauses.allow_trial(|_| may_try);
            }
        }
        true
    }

    /// The token opens the account.
    fn opened(&self) {
        let pauses = &self.account.pauses;
        let ended = pauses.end(|pause| pause.reason == PauseReason::Unproven);
        self.ended(&ended, "the token opens the configured account");
        let ended = pauses.end(|pause| pause.reason == PauseReason::Unauthorized);
        self.ended(&ended, "HubSpot accepts the token");
        let ended = pauses.end(|pause| pause.reason == PauseReason::App);
        self.ended(
            &ended,
            "HubSpot knows the OAuth app: it gave an access token that it accepts",
        );
        pauses.allow_trial(|_| true);
    }

    /// A pinned account has to be proven, and tells why it is not. Any other goes on as far as its other
    /// pauses let it.
    fn proven_enough(&self, why: &str, failure: &Failure) {
        let pauses = &self.account.pauses;
        if self.settings.pinned {
            let words = &failure.words;
            let is_told = words.message.is_some() || words.status.is_some();
            let hint = (!is_told).then(|| ours(failure.hint.clone()));
            pauses.tell(PauseReason::Unproven, hint.as_ref().unwrap_or(words));
        } else {
            let ended = pauses.end(|pause| pause.reason == PauseReason::Unproven);
            self.ended(&ended, why);
        }
    }
}

/// For how long HubSpot is to be left alone, where it refused a probe for a rolling limit.
fn limited(probe: &Probe) -> Option<Duration> {
    match probe {
        Probe::Inconclusive(failure) if failure.class == FailureClass::Throttled => {
            Some(throttled_wait(failure))
        }
        Probe::Inconclusive(_)
        | Probe::Open(_)
        | Probe::Wrong(..)
        | Probe::Shut(_)
        | Probe::Kept => None,
    }
}

/// Words of ours and not of HubSpot's.
fn ours(message: String) -> Words {
    Words {
        message: Some(message),
        ..Words::default()
    }
}
