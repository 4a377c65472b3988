//! What a running worker tells of itself: `GET /api/status` of its admin server, read by
//! `postrider queue`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dispatch::Wait;
use crate::message::{AccountName, Priority};
use crate::outcome::{PauseReason, Words};
use crate::queue::Lane;
use crate::quota::Full;

/// Where a worker answers.
pub const PATH: &str = "/api/status";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub accounts: Vec<AccountStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccountStatus {
    pub name: AccountName,
    /// It holds the account's lease; else it stands by.
    pub owner: bool,
    /// Why nothing is sent now; empty when all is well.
    pub pauses: Vec<PauseStatus>,
    /// Whether each lane may go on, by the gate that its dispatch asks.
    #[serde(default)]
    pub lanes: Vec<LaneStatus>,
    /// Tokens that do not take over, or are told no more; mail may go out meanwhile.
    #[serde(default)]
    pub token_troubles: Vec<TokenStatus>,
    pub quota: Vec<QuotaStatus>,
    /// Calls to HubSpot under way.
    pub in_flight: u64,
    /// Requests of each priority that wait in the worker to be sent, beside what the queue counts.
    #[serde(default)]
    pub held: BTreeMap<Priority, u64>,
}

impl AccountStatus {
    /// The limit of a bucket, where it has one.
    #[must_use]
    pub fn quota_of(&self, bucket: &str) -> Option<&QuotaStatus> {
        self.quota.iter().find(|quota| quota.bucket == bucket)
    }

    /// Whether a lane may go on; an older worker does not tell.
    #[must_use]
    pub fn gate_of(&self, lane: Lane) -> Option<GateStatus> {
        Some(self.lane(lane)?.gate)
    }

    /// What a lane waits for; an older worker does not tell.
    #[must_use]
    pub fn wait_of(&self, lane: Lane) -> Option<Wait> {
        self.lane(lane)?.waits_for
    }

    fn lane(&self, lane: Lane) -> Option<&LaneStatus> {
        self.lanes.iter().find(|it| it.lane == lane.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// `sends` or `results`.
    pub lane: String,
    pub gate: GateStatus,
    /// What its next call waits for, as the lane's own loop last came to it.
    #[serde(default)]
    pub waits_for: Option<Wait>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GateStatus {
    Open,
    /// One request is let through, to find out whether the trouble is over.
    Trial,
    Shut,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PauseStatus {
    /// Which lanes it holds back: `sends`, `results`.
    #[serde(default)]
    pub lanes: Vec<String>,
    /// The priorities of sends that it holds back, where it does not hold back all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub priorities: Vec<Priority>,
    /// `account` or `provider`.
    pub scope: String,
    pub reason: PauseReason,
    pub since: Timestamp,
    /// When it ends or is tried again; `None` when nobody can say.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// HubSpot's own words that led to it.
    #[serde(default)]
    pub words: Words,
}

/// What is wrong with one key of an account's tokens. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenStatus {
    /// `token` or `next_token`.
    pub key: String,
    /// A file, a command.
    pub place: String,
    pub why: String,
    /// The next step.
    pub hint: String,
    pub since: Timestamp,
    /// When the token in force ends, where that is known and only this key can renew it.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuotaStatus {
    /// `send`, `api` or `daily`.
    pub bucket: String,
    /// Calls in one window.
    pub limit: u64,
    /// The window's length in seconds.
    pub window_s: f64,
    /// Calls in the window that ends now; of the day, calls of everybody as far as is known.
    pub used: u64,
    /// What others leave of the limit, where HubSpot told that they call too.
    #[serde(default)]
    pub share: Option<u64>,
    /// HubSpot's own limit, where it told of a lower one.
    #[serde(default)]
    pub told: Option<u64>,
    /// HubSpot refused calls that fitted, a while ago: it bears less, or others call too.
    #[serde(default)]
    pub is_refused: bool,
    /// Why the next call does not go yet, as whoever asked last was told.
    #[serde(default)]
    pub full: Option<Full>,
    /// Whether the limit is learned from what HubSpot bears.
    #[serde(default)]
    pub is_learned: bool,
    /// Of the day: when it is spent if calls go on as in the last hour, everybody's, where that is before
    /// midnight. Nothing before ten minutes were counted.
    #[serde(default)]
    pub spent_at: Option<Timestamp>,
    /// Of the day: when it ends.
    #[serde(default)]
    pub ends: Option<Timestamp>,
}
