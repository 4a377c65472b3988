//! The verdicts: what HubSpot did with a call, and what is done with the delivery for it.
//!
//! Every fate is a variant. Only `classify` makes an [`Outcome`], only `retry` a [`Disposition`]
//! of a failed attempt, only a queue's `settle` carries one out.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::message::{AccountName, Priority};
use crate::story::{Death, Story};

/// What became of one call to Single Send.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// HubSpot took it. That is not *sent*: the final result is looked up.
    Accepted(Accepted),
    /// HubSpot did not send it, and said so.
    NotSent(Failure),
    /// The call went out and no answer says what became of it: resolved with the same `sendId`.
    Unknown(Failure),
}

/// HubSpot's 200.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accepted {
    /// What to look the result up by. Missing only when HubSpot's answer could not be read.
    pub status_id: Option<String>,
    pub words: Words,
}

/// What a look-up of a final result found.
#[derive(Clone, Debug, PartialEq)]
pub enum LookUp {
    /// Still on its way: ask again later.
    Pending,
    /// HubSpot sent it (or had sent it before, under the same `sendId`).
    Sent(Words),
    /// The final result is that it was not sent; the class says whether that can heal.
    NotSent(Failure),
    /// HubSpot's answer is final and does not say whether it was sent: never mailed again.
    Unclear(Words),
    /// A final result that this version has never heard of: perhaps it was sent.
    UnheardOf(Failure),
    /// The look-up itself failed; nothing was learnt of the mail.
    Failed(Failure),
}

/// Why a call did not do its work.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub class: FailureClass,
    pub scope: Scope,
    /// What is held back for it, when more than this message is concerned.
    pub pause: Option<PauseReason>,
    /// What HubSpot asked for, not yet clamped.
    pub retry_after: Option<Duration>,
    pub words: Words,
    /// One sentence: what to do about it.
    pub hint: String,
}

/// What kind of failure, which decides what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// Over a rate limit: wait, no attempt is spent.
    Throttled,
    /// May heal by itself: retried, an attempt is spent.
    Transient,
    /// The message's own fault: a dead letter at once.
    Permanent,
    /// The account's trouble, not this message's: everything of the account waits.
    Halted,
}

/// Whom a failure concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Message,
    Account,
    Provider,
}

/// Why dispatch is held back. The value of the metric label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseReason {
    /// 401: the token is not accepted.
    Unauthorized,
    /// HubSpot does not know our OAuth app, or not with this secret: no account is to blame.
    App,
    /// 403: a scope, an add-on or a permission is missing.
    Forbidden,
    /// 477: the account moves between data centres.
    Migrating,
    /// The day's quota is spent.
    Daily,
    /// A short rolling limit was met.
    Throttled,
    /// `PORTAL_*` and its kin: HubSpot has stopped the account.
    Portal,
    /// A storm of 5xx or time-outs.
    Outage,
    /// The token was not yet asked about, or not proven to open the configured account.
    Unproven,
}

/// HubSpot's own words, as they came; every field is optional there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Words {
    /// The HTTP status; none when no answer came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_category: Option<String>,
    /// Of a call without an answer: what stopped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Of a 429: `DAILY`, `TEN_SECONDLY_ROLLING`, `SECONDLY` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_name: Option<String>,
    /// HubSpot's final result of the mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_result: Option<String>,
}

impl Words {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a request is a dead letter. The value of the metric label and of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeadReason {
    /// No valid request, or no id.
    Malformed,
    /// HubSpot refused the call for the message's own fault (400 and its kin).
    Rejected,
    /// HubSpot took it and its final result says that it was not sent.
    Refused,
    /// The retries are used up.
    Exhausted,
    /// Its `expiresAt` passed before it could be sent.
    Expired,
    /// An operator put it here, or the rules of an environment that is not production.
    Operator,
}

/// What is done with a delivery. When `settle` returns `Ok`, it survives a crash.
#[derive(Clone, Debug, PartialEq)]
pub enum Disposition {
    /// Done: nothing of it stays in the queue.
    Complete,
    /// Accepted: kept as a follow-up, handed out by the results lane at `at`.
    FollowUp { at: Timestamp, story: Box<Story> },
    /// Sent again at `at`, by the sends lane of its priority. The story says what was spent.
    Retry { at: Timestamp, story: Box<Story> },
    /// Waits until `until` in the lane in which it was received. Nothing was spent.
    Snooze { until: Timestamp, story: Box<Story> },
    /// Belongs to another account or priority. Where the queue knows no such lane, `otherwise` is
    /// the death it gets.
    Route {
        account: AccountName,
        priority: Priority,
        story: Box<Story>,
        otherwise: Box<Death>,
    },
    /// Never will be sent: `story.death` says why.
    DeadLetter { story: Box<Story> },
    /// Given back untouched: for shutdown, never a way to wait.
    Release,
}

// === labels ===

impl Outcome {
    /// The value of the metric label `outcome`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::NotSent(failure) => failure.class.label(),
            Self::Unknown(_) => "unknown",
        }
    }

    /// Whether HubSpot answered the call, with whatever.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Accepted(_) => true,
            Self::NotSent(failure) | Self::Unknown(failure) => failure.words.status.is_some(),
        }
    }

    #[must_use]
    pub fn words(&self) -> &Words {
        match self {
            Self::Accepted(accepted) => &accepted.words,
            Self::NotSent(failure) | Self::Unknown(failure) => &failure.words,
        }
    }
}

impl LookUp {
    /// Whether HubSpot answered the call, with whatever.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Failed(failure) => failure.words.status.is_some(),
            Self::Pending
            | Self::Sent(_)
            | Self::NotSent(_)
            | Self::Unclear(_)
            | Self::UnheardOf(_) => true,
        }
    }
}

impl Disposition {
    /// Waits until `until`; nothing was spent. The story says so too: a queue may hand it out
    /// earlier than that, and then it waits again.
    #[must_use]
    pub fn snooze(until: Timestamp, mut story: Story) -> Self {
        story.due_at = Some(until);
        Self::Snooze {
            until,
            story: Box::new(story),
        }
    }

    /// Why it makes a dead letter, if it does.
    #[must_use]
    pub fn death(&self) -> Option<&Death> {
        match self {
            Self::DeadLetter { story } => story.death.as_ref(),
            Self::Complete
            | Self::FollowUp { .. }
            | Self::Retry { .. }
            | Self::Snooze { .. }
            | Self::Route { .. }
            | Self::Release => None,
        }
    }

    /// The story with which it goes on.
    #[must_use]
    pub fn story(&self) -> Option<&Story> {
        match self {
            Self::FollowUp { story, .. }
            | Self::Retry { story, .. }
            | Self::Snooze { story, .. }
            | Self::Route { story, .. }
            | Self::DeadLetter { story } => Some(story),
            Self::Complete | Self::Release => None,
        }
    }

    /// The word for it in a log line.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::FollowUp { .. } => "follow_up",
            Self::Retry { .. } => "retry",
            Self::Snooze { .. } => "snooze",
            Self::Route { .. } => "route",
            Self::DeadLetter { .. } => "dead_letter",
            Self::Release => "release",
        }
    }
}

impl FailureClass {
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Halted => "halted",
        }
    }
}

impl Scope {
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Account => "account",
            Self::Provider => "provider",
        }
    }
}

impl PauseReason {
    pub const ALL: [Self; 9] = [
        Self::Unauthorized,
        Self::App,
        Self::Forbidden,
        Self::Migrating,
        Self::Daily,
        Self::Throttled,
        Self::Portal,
        Self::Outage,
        Self::Unproven,
    ];

    /// Whom such a pause concerns.
    #[must_use]
    pub fn scope(self) -> Scope {
        match self {
            Self::Outage | Self::App => Scope::Provider,
            Self::Unauthorized
            | Self::Forbidden
            | Self::Migrating
            | Self::Daily
            | Self::Throttled
            | Self::Portal
            | Self::Unproven => Scope::Account,
        }
    }

    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::App => "app",
            Self::Forbidden => "forbidden",
            Self::Migrating => "migrating",
            Self::Daily => "daily",
            Self::Throttled => "throttled",
            Self::Portal => "portal",
            Self::Outage => "outage",
            Self::Unproven => "unproven",
        }
    }
}

impl DeadReason {
    pub const ALL: [Self; 6] = [
        Self::Malformed,
        Self::Rejected,
        Self::Refused,
        Self::Exhausted,
        Self::Expired,
        Self::Operator,
    ];

    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Rejected => "rejected",
            Self::Refused => "refused",
            Self::Exhausted => "exhausted",
            Self::Expired => "expired",
            Self::Operator => "operator",
        }
    }
}

impl std::fmt::Display for DeadReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}
