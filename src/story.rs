//! The story: what travels with a request beside its body, through every copy of it.
//!
//! A queue keeps it as one JSON text (an AMQP header, a column). Readers tolerate fields they do
//! not know and fields that are missing, so that two versions can work on one queue.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::message::Priority;
use crate::outcome::{DeadReason, Words};

/// How many attempts are kept word for word; of more, the first and the newest stay.
pub const ATTEMPTS_KEPT_MAX: usize = 20;

/// The outcome of an attempt whose final result is that it was not sent.
pub const REFUSED: &str = "refused";
/// The outcome of an attempt whose final result does not tell whether it was sent.
pub const UNCLEAR: &str = "unclear";

/// What has happened to one request so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "snake_case")]
pub struct Story {
    /// When it was first seen: the publisher's timestamp, or else the first receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published_at: Option<Timestamp>,
    /// The lane it came by, so that a retry returns to it.
    pub priority: Priority,
    /// Attempts spent since the last replay. Waits, throttling and pauses spend none.
    pub spent: u32,
    /// When the schedule of retries began: at the first attempt, and anew at a replay. Moved on by
    /// what it waited through no fault of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trying_since: Option<Timestamp>,
    /// The attempts, oldest first; see [`ATTEMPTS_KEPT_MAX`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// Not before this time; a queue may hand it out earlier, and then it waits again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// 1, or higher after a replay of a final refusal: the `sendId` is then `ID.r2`, `ID.r3` …
    pub generation: u32,
    /// How often an operator replayed it.
    pub replays: u32,
    /// HubSpot took it; its final result is looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow_up: Option<FollowUp>,
    /// How often HubSpot blamed the account over this request, for what may be its own, and then took others.
    pub halted_alone: u32,
    /// The attempt that is under way may have mailed it: no answer came.
    pub may_have_mailed: bool,
    /// HubSpot's last word on the `sendId` in use is that it was not sent, and that may heal.
    pub not_sent: bool,
    /// HubSpot told of the `sendId` in use that it was not sent, or what may mean that. Unlike
    /// `not_sent` it stays, whatever was called since.
    pub was_refused: bool,
    /// Why it is a dead letter, when it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub death: Option<Death>,
}

/// One try at HubSpot, or one final result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub at: Timestamp,
    /// How long HubSpot took, in milliseconds.
    pub took_ms: u64,
    /// `accepted`, `transient`, `permanent`, `throttled`, `unknown`, `halted`; or of a look-up
    /// `sent`, `refused`, `unclear`.
    pub outcome: String,
    #[serde(default, skip_serializing_if = "Words::is_empty")]
    pub words: Words,
}

/// An accepted send whose final result is not known yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FollowUp {
    pub status_id: String,
    pub accepted_at: Timestamp,
    /// Look-ups that found it still under way.
    #[serde(default)]
    pub look_ups: u32,
}

/// Why a request became a dead letter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Death {
    /// What `dead show` takes: the request's id, or a minted one when it had none.
    pub key: String,
    pub reason: DeadReason,
    pub at: Timestamp,
    /// One sentence for the operator.
    pub problem: String,
    /// What to do about it.
    pub hint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_id: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// HubSpot's own words, as they came.
    #[serde(default, skip_serializing_if = "Words::is_empty")]
    pub words: Words,
}

impl Attempt {
    /// It tells of a final result, and not of a send.
    #[must_use]
    pub fn is_result(&self) -> bool {
        [REFUSED, UNCLEAR].contains(&self.outcome.as_str())
    }
}

impl Story {
    /// Adds an attempt; of a long list the middle goes, never the first or the newest.
    pub fn record(&mut self, attempt: Attempt) {
        if self.attempts.len() >= ATTEMPTS_KEPT_MAX {
            self.attempts.remove(1);
        }
        self.attempts.push(attempt);
    }

    /// How many sends are among the attempts; the others are final results.
    #[must_use]
    pub fn sends(&self) -> u32 {
        let sends = self.attempts.iter().filter(|a| !a.is_result());
        u32::try_from(sends.count()).unwrap_or(u32::MAX)
    }

    /// How long the schedule of retries has run.
    #[must_use]
    pub fn trying_for(&self, now: Timestamp) -> Duration {
        self.trying_since
            .map(|since| crate::clock::until(since, now))
            .unwrap_or_default()
    }

    /// Takes a wait that was no fault of its own out of the schedule of retries.
    pub fn excuse(&mut self, wait: Duration) {
        self.trying_since = self
            .trying_since
            .map(|since| crate::clock::after(since, wait));
    }

    /// From now on the `sendId` is the next generation's: HubSpot has used this one up and sent
    /// nothing under it.
    pub fn use_next_id(&mut self) {
        self.generation = self.generation.max(1).saturating_add(1);
        self.not_sent = false;
        self.was_refused = false;
        self.may_have_mailed = false;
    }

    /// The story with which a dead letter goes out again: the schedule begins anew, and after a
    /// final refusal the generation rises, because HubSpot has used the `sendId` up. Not so where a
    /// call under that id may have mailed it after all: no other id may go out then.
    #[must_use]
    pub fn replayed(&self) -> Self {
        let refused = self
            .death
            .as_ref()
            .is_some_and(|death| death.reason == DeadReason::Refused)
            && !self.may_have_mailed;
        Self {
            published_at: self.published_at,
            priority: self.priority,
            attempts: self.attempts.clone(),
            generation: if refused {
                self.generation.max(1).saturating_add(1)
            } else {
                self.generation
            },
            replays: self.replays.saturating_add(1),
            may_have_mailed: self.may_have_mailed,
            not_sent: self.not_sent && !refused,
            was_refused: self.was_refused && !refused,
            ..Self::default()
        }
    }
}
