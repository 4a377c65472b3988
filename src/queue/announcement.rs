//! What became of a request, for whoever wants to hear of it.

use jiff::Timestamp;

use crate::message::{AccountName, Priority};
use crate::outcome::{DeadReason, Disposition, Words};

/// Said once for each fact, after the queue has made the fact durable.
///
/// A courtesy: a crash, an outage or a slow listener loses some. The dead letters and the metrics
/// are the truth.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    pub kind: Kind,
    /// The request's id, by which `dead show` finds it.
    pub id: String,
    /// Of the `sendId` that HubSpot saw, see [`Story::generation`](crate::story::Story).
    pub generation: u32,
    pub account: AccountName,
    pub priority: Priority,
    pub email_id: Option<i64>,
    /// Of `refused` and `dead`: why it is a dead letter.
    pub reason: Option<DeadReason>,
    pub at: Timestamp,
    pub words: Words,
}

/// Which fact. `Accepted` is followed by one of the others, unless results are not looked up; the
/// others are where a request ends, and exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// HubSpot took it. That is not *sent*.
    Accepted,
    /// HubSpot's final result: sent.
    Sent,
    /// HubSpot's final result: not sent. It is a dead letter now.
    Refused,
    /// HubSpot took it and told no final result.
    Unknown,
    /// A dead letter for any other reason than a final result.
    Dead,
}

impl Kind {
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Sent => "sent",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Dead => "dead",
        }
    }
}

impl Announcement {
    /// The dead letter that a disposition makes, if it makes one.
    #[must_use]
    pub fn of_death(disposition: &Disposition, account: &AccountName) -> Option<Self> {
        let Disposition::DeadLetter { story } = disposition else {
            return None;
        };
        let death = story.death.as_ref()?;
        Some(Self {
            kind: match death.reason {
                DeadReason::Refused => Kind::Refused,
                DeadReason::Malformed
                | DeadReason::Rejected
                | DeadReason::Exhausted
                | DeadReason::Expired
                | DeadReason::Operator => Kind::Dead,
            },
            id: death.key.clone(),
            generation: story.generation,
            account: account.clone(),
            priority: story.priority,
            email_id: death.email_id,
            reason: Some(death.reason),
            at: death.at,
            words: death.words.clone(),
        })
    }
}
