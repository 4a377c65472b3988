//! What an answer says about more than its own message: pauses begun and pauses disproved.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Dispatcher;
use super::storm::Weather;
use crate::clock::{after, until};
use crate::message::MessageId;
use crate::outcome::{Failure, FailureClass, LookUp, Outcome, PauseReason, Scope};
use crate::pause::{Covers, Pause, Proof};
use crate::provider::Provider;
use crate::queue::{Lane, Queue};
use crate::retry::{RETRY_AFTER_MIN, throttled_wait};

/// The most that HubSpot's `Retry-After` of a migration is taken for: it names up to 24 hours.
const MIGRATION_MAX: Duration = Duration::from_hours(48);

impl<Q: Queue, P: Provider> Dispatcher<Q, P> {
    /// Learns from the outcome of a send that was called at `called`.
    pub(super) fn learn(&self, outcome: &Outcome, id: &MessageId, called: Instant, now: Timestamp) {
        let failure = match outcome {
            Outcome::Accepted(_) => {
                self.storm().answered();
                let began = now.checked_sub(called.elapsed()).unwrap_or(now);
                let mut last = self.last_accepted();
                *last = (*last).max(Some(began));
                drop(last);
                self.proven(Proof::Accepted, called, "HubSpot takes mail again");
                return;
            }
            Outcome::NotSent(failure) | Outcome::Unknown(failure) => failure,
        };
        if failure.scope == Scope::Provider {
            self.account.failed();
            let outage = self.account.pauses.outage();
            let weather = self.storm().failed(id, outage);
            match weather {
                Weather::Calm => {}
                // In an outage the probes come later and later, whatever the requests that they let
                // through come to.
                Weather::Suspect if outage => {}
                Weather::Suspect => self.suspicion.notify_one(),
                Weather::Outage => self.hold(PauseReason::Outage, failure, Lane::Sends, now),
                Weather::Few => {
                    let pauses = &self.account.pauses;
                    let over = pauses.end(|pause| pause.reason == PauseReason::Outage);
                    self.ended(&over, "a few requests alone fail: it is their own trouble");
                }
            }
        }
        // A limit or a refused token may be told by a gateway, in front of a HubSpot that is down.
        if matches!(outcome, Outcome::NotSent(_)) && failure.scope == Scope::Message {
            self.storm().answered();
            self.proven(Proof::Answered, called, "HubSpot answers again");
        }
        self.heed(failure, Lane::Sends, now);
    }

    /// Learns from a look-up that was made at `called`.
    pub(super) fn learn_look_up(
        &self,
        look_up: &LookUp,
        accepted_at: Timestamp,
        called: Instant,
        now: Timestamp,
    ) {
        let failure = match look_up {
            LookUp::Failed(failure) => return self.heed(failure, Lane::Results, now),
            // A final result that tells of the account's trouble holds back sends, not look-ups. One that
            // tells of a limit does not say whose: it tells of no window, and holds nothing back.
            LookUp::NotSent(failure) => Some(failure).filter(|it| it.class == FailureClass::Halted),
            LookUp::Pending | LookUp::Sent(_) | LookUp::Unclear(_) | LookUp::UnheardOf(_) => None,
        };
        self.account.pauses.keep_looking_up(called);
        self.proven(Proof::LookedUp, called, "HubSpot tells results again");
        if let LookUp::Sent(_) = look_up {
            let mut last = self.last_sent();
            *last = (*last).max(Some(accepted_at));
        }
        let accepted = Instant::now().checked_sub(until(accepted_at, now));
        if let (LookUp::Sent(_), Some(accepted)) = (look_up, accepted) {
            self.proven(
                Proof::Sent,
                accepted,
                "HubSpot sends the account's mail again",
            );
        }
        if let Some(failure) = failure {
            self.heed(failure, Lane::Sends, now);
        }
    }

    fn proven(&self, proof: Proof, called: Instant, why: &str) {
        let ended = self.account.pauses.disproved(called, proof);
        self.ended(&ended, why);
    }

    /// Begins the pause that a failure calls for, if it does.
    pub(super) fn heed(&self, failure: &Failure, lane: Lane, now: Timestamp) {
        let reason = match failure.class {
            FailureClass::Throttled => Some(PauseReason::Throttled),
            FailureClass::Halted => failure.pause,
            FailureClass::Transient | FailureClass::Permanent => None,
        };
        if let Some(reason) = reason {
            self.hold(reason, failure, lane, now);
        }
    }

    /// Begins or renews a pause, with the lanes and the end that its reason implies.
    pub(super) fn hold(&self, reason: PauseReason, failure: &Failure, lane: Lane, now: Timestamp) {
        let (covers, ends) = match reason {
            PauseReason::Unauthorized
            | PauseReason::App
            | PauseReason::Outage
            | PauseReason::Unproven => (Covers::Both, None),
            // The other lane may need other scopes, and look-ups are a way to learn that it is over.
            PauseReason::Forbidden | PauseReason::Portal => (lane.into(), None),
            // Without a time, only a probe can tell when the migration is over.
            PauseReason::Migrating => {
                let asked = failure.retry_after;
                let wait = asked.map(|wait| wait.clamp(RETRY_AFTER_MIN, MIGRATION_MAX));
                (Covers::Both, wait.map(|wait| after(now, wait)))
            }
            PauseReason::Daily => (lane.into(), Some(self.account.day().over(now))),
            PauseReason::Throttled => {
                self.account.refused(lane);
                (lane.into(), Some(after(now, throttled_wait(failure))))
            }
        };
        let new = self
            .account
            .pauses
            .begin(reason, covers, now, ends, failure.words.clone());
        if new {
            self.announce(reason, covers, ends, failure);
        }
    }

    fn announce(
        &self,
        reason: PauseReason,
        covers: Covers,
        ends: Option<Timestamp>,
        failure: &Failure,
    ) {
        let until = ends.map_or_else(|| ended_by(reason).to_owned(), |ends| ends.to_string());
        tracing::warn!(
            account = %self.account.name,
            reason = reason.label(),
            scope = reason.scope().label(),
            lanes = ?covers,
            until,
            status = failure.words.status,
            category = failure.words.category,
            correlation_id = failure.words.correlation_id,
            // HubSpot's own message may hold an address; without an answer it is ours.
            why = failure.words.message.as_ref().filter(|_| failure.words.status.is_none()),
            hint = failure.hint,
            "paused: nothing is lost and no attempt is spent"
        );
    }

    pub(super) fn ended(&self, pauses: &[Pause], why: &str) {
        for pause in pauses {
            tracing::info!(account = %self.account.name, reason = pause.reason.label(), why, "pause over");
        }
    }
}

/// What ends a pause that does not end by the clock.
fn ended_by(reason: PauseReason) -> &'static str {
    match reason {
        PauseReason::Unauthorized => "HubSpot accepts a token",
        PauseReason::App => "HubSpot knows the OAuth app, and gives an access token",
        PauseReason::Forbidden => "HubSpot lets the token do it",
        PauseReason::Unproven => "the token is proven",
        PauseReason::Portal => "HubSpot sends the account's mail again",
        PauseReason::Migrating => "the account has moved",
        PauseReason::Outage | PauseReason::Daily | PauseReason::Throttled => {
            "HubSpot is well again"
        }
    }
}
