//! The journal: what was done with each request, step by step, for whoever asks `postrider trace`.
//!
//! A courtesy beside the queue: it is kept off the sending path, bounded, and may be lost without
//! losing mail. An entry holds an id, times, and HubSpot's words, but never an address, a token or
//! anything of a body: so HubSpot's `message` is left out, which may quote an address, and so is
//! what was wrong with a malformed request. `dead show` has both, for as long as the letter stands.
//!
//! Readers tolerate fields and steps that they do not know, so that two versions can work on one
//! queue.

mod scribe;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::message::{AccountName, Priority};
use crate::outcome::{DeadReason, Disposition, Words};

pub use scribe::{Journal, Keeper};

/// How long entries are kept, in both backends: long enough for a complaint after a weekend, and
/// no archive of who was mailed when.
pub const AGE_MAX: Duration = Duration::from_hours(7 * 24);

/// One step of one request: what was heard, and what followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The request's id, whatever generation of its `sendId` this is about.
    pub id: String,
    pub at: Timestamp,
    pub account: String,
    /// See [`Story::published_at`](crate::story::Story).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<Timestamp>,
    /// It was handed out before: an earlier attempt may have been cut short.
    #[serde(default, skip_serializing_if = "is_false")]
    pub redelivered: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Call>,
    pub then: Then,
}

/// One call to HubSpot, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Call {
    /// Which send of this request it was, from 1, as far as its story remembers; `None` for a
    /// look-up of the final result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// What HubSpot saw: the id, or `ID.r2` …
    pub send_id: String,
    pub took_ms: u64,
    /// It went to the sink of its environment, and to none of its recipients.
    #[serde(skip_serializing_if = "is_false")]
    pub to_sink: bool,
    /// As in [`Attempt`](crate::story::Attempt), and `pending`, `not told`.
    pub outcome: String,
    #[serde(skip_serializing_if = "Words::is_empty")]
    pub words: Words,
}

/// What followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Then {
    /// A command of ours put it into its lane.
    Published { priority: Priority },
    /// Sent again at that time.
    Retry { at: Timestamp },
    /// Waits until then; nothing was spent.
    Snooze { until: Timestamp },
    /// Accepted; its final result is looked up then.
    FollowUp { at: Timestamp },
    /// Belongs to another lane.
    Route { account: String, priority: Priority },
    DeadLetter {
        reason: DeadReason,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<String>,
    },
    /// Nothing of it stays in the queue.
    Complete,
    /// Given back untouched.
    Release,
    /// The queue could not carry out what was to follow: it is handed out again.
    NotSettled,
    /// An operator asked for a replay, under this `sendId`.
    Replay {
        send_id: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// An operator asked to throw it away.
    Discard {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// Of a newer Postrider.
    #[serde(other)]
    Other,
}

/// One line of what is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are entries: a box would cost each of them"
)]
pub enum Record {
    Gap { gap: Gap },
    Entry(Entry),
}

/// Entries that could not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub lost: u64,
    /// Of the first one.
    pub since: Timestamp,
    /// Of the last one.
    pub until: Timestamp,
}

impl Entry {
    /// A step in which no call was made.
    #[must_use]
    pub fn new(id: impl Into<String>, at: Timestamp, account: &AccountName, then: Then) -> Self {
        Self {
            id: id.into(),
            at,
            account: account.to_string(),
            published_at: None,
            redelivered: false,
            call: None,
            then,
        }
    }
}

impl Record {
    /// `None` for a line that cannot be read, be it of a newer Postrider.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// One line, without its end.
    #[must_use]
    pub fn line(&self) -> String {
        // Plain data: it always can be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whose story it belongs to; a gap may belong to any.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Gap { .. } => None,
            Self::Entry(entry) => Some(&entry.id),
        }
    }

    #[must_use]
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Gap { gap } => gap.until,
            Self::Entry(entry) => entry.at,
        }
    }
}

impl Gap {
    fn at(at: Timestamp) -> Self {
        Self {
            lost: 1,
            since: at,
            until: at,
        }
    }

    fn widen(&mut self, at: Timestamp) {
        self.lost += 1;
        self.since = self.since.min(at);
        self.until = self.until.max(at);
    }
}

impl Call {
    /// `attempt` is `None` for a look-up.
    #[must_use]
    pub fn new(
        attempt: Option<u32>,
        send_id: String,
        took: Duration,
        (outcome, words): (&str, &Words),
    ) -> Self {
        let mut words = words.clone();
        // Without an answer the words are ours: what stopped the call.
        if words.status.is_some() {
            words.message = None;
        }
        Self {
            attempt,
            send_id,
            to_sink: false,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            outcome: outcome.to_owned(),
            words,
        }
    }
}

impl From<&Disposition> for Then {
    fn from(disposition: &Disposition) -> Self {
        match disposition {
            Disposition::Complete => Self::Complete,
            Disposition::FollowUp { at, .. } => Self::FollowUp { at: *at },
            Disposition::Retry { at, .. } => Self::Retry { at: *at },
            Disposition::Snooze { until, .. } => Self::Snooze { until: *until },
            Disposition::Route {
                account, priority, ..
            } => Self::Route {
                account: account.to_string(),
                priority: *priority,
            },
            Disposition::DeadLetter { story } => {
                let death = story.death.as_ref();
                let reason = death.map_or(DeadReason::Operator, |death| death.reason);
                let problem = death.map(|death| death.problem.clone());
                Self::DeadLetter {
                    reason,
                    // It may quote the request.
                    problem: problem.filter(|_| reason != DeadReason::Malformed),
                }
            }
            Disposition::Release => Self::Release,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_entry_comes_back_as_it_was_written() {
        let words = Words {
            status: Some(400),
            message: Some("ada@example.com is no address".into()),
            correlation_id: Some("c-1".into()),
            ..Words::default()
        };
        let entry = Entry {
            published_at: Some(at(1)),
            redelivered: true,
            call: Some(Call::new(
                Some(2),
                "one".into(),
                Duration::from_millis(31),
                ("permanent", &words),
            )),
            ..Entry::new("one", at(2), &AccountName::default(), Then::Complete)
        };
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(
            text,
            r#"{"id":"one","at":"1970-01-01T00:00:02Z","account":"default","published_at":"1970-01-01T00:00:01Z","redelivered":true,"call":{"attempt":2,"send_id":"one","took_ms":31,"outcome":"permanent","words":{"status":400,"correlation_id":"c-1"}},"then":{"what":"complete"}}"#
        );
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
    }

    #[test]
    fn what_stopped_a_call_without_an_answer_is_told() {
        let words = Words {
            message: Some("time-out".into()),
            ..Words::default()
        };
        let call = Call::new(Some(1), "one".into(), Duration::ZERO, ("unknown", &words));
        assert_eq!(call.words, words);
    }

    #[test]
    fn a_newer_entry_can_be_read() {
        let text = r#"{"id":"one","at":"1970-01-01T00:00:02Z","account":"default","mood":"good",
            "call":{"outcome":"accepted","weather":"fair"},"then":{"what":"sung","song":[1,2]}}"#;
        let entry: Entry = serde_json::from_str(text).unwrap();
        assert_eq!(entry.then, Then::Other);
        assert_eq!(entry.call.unwrap().outcome, "accepted");
    }
}
