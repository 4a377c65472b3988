//! How fast an account's sends go, and why; how long what waits takes at that.
//!
//! All of it is what the worker itself last came to: the gate and the limit by which it dispatches, and
//! what its lane of sends waits for.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::status::in_words;
use crate::clock;
use crate::config::Config;
use crate::dispatch::Wait;
use crate::message::{AccountName, Priority};
use crate::queue::{Depth, Lane};
use crate::quota::{Bucket, DAILY};
use crate::status::{AccountStatus, GateStatus, QuotaStatus};

/// What is told where a pause may be over.
pub(super) const TRIAL: &str = "one request is let through, to see whether that is over";

/// The rate in force.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Rate {
    pub(super) account: AccountName,
    /// Sends a second at the most, once nothing holds them back; `None` without a limit.
    #[serde(rename = "limit_per_second")]
    per_second: Option<f64>,
    /// Whether sends go one after the other as that allows.
    goes: bool,
    /// The rate and whose it is, or what holds sends back.
    pub(super) told: String,
    /// What is to be sent, and how long that takes; `None` while nothing waits.
    pub(super) drain: Option<Drain>,
    #[serde(skip)]
    day: Option<Day>,
}

/// What is to be sent.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Drain {
    waiting: u64,
    /// Of priorities that are held back now, beside those.
    held: u64,
    /// How long those that wait take from now, or from when nothing holds them back (`goes`), where that is
    /// known.
    seconds: Option<u64>,
    /// How many of those the rest of the day has room for, where it has not for all.
    today: Option<u64>,
    pub(super) told: String,
}

/// How many requests of each priority wait to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting([u64; Priority::ALL.len()]);

impl Waiting {
    /// In the queue, and in the hands of the worker.
    pub(super) fn of(config: &Config, depths: &[Depth], account: &AccountStatus) -> Self {
        Self(Priority::ALL.map(|priority| {
            let queue = format!("{}.send.{}.{priority}", config.queue.prefix, account.name);
            let lane = depths.iter().filter(|depth| depth.queue == queue);
            let held = account.held.get(&priority).copied().unwrap_or_default();
            lane.map(|depth| depth.messages).sum::<u64>() + held
        }))
    }

    /// Those of the priorities for which `takes` holds.
    pub(super) fn count(&self, takes: impl Fn(Priority) -> bool) -> u64 {
        let lanes = Priority::ALL.into_iter().zip(self.0);
        let chosen = lanes.filter(|(priority, _)| takes(*priority));
        chosen.map(|(_, count)| count).sum()
    }
}

impl Rate {
    /// Of an account that this worker dispatches.
    pub(super) fn of(account: &AccountStatus, waiting: Waiting, now: Timestamp) -> Option<Self> {
        if !account.owner {
            return None;
        }
        let quota = account.quota_of(Bucket::Send.label());
        let per_second = quota.map(per_second);
        let (goes, told) = match held_back(account) {
            Some(held) => (false, held.to_owned()),
            None => (true, limited(account, quota)),
        };
        let mut rate = Self {
            account: account.name.clone(),
            per_second,
            goes,
            told,
            drain: None,
            day: account
                .quota_of(DAILY)
                .and_then(|day| Day::of(day, now, per_second)),
        };
        let held = |priority| is_held(account, priority);
        let waits = waiting.count(|priority| !held(priority));
        rate.drain = rate.drain_of(waits, waiting.count(held));
        Some(rate)
    }

    /// How long so many sends take, in words; nothing where that cannot be told.
    pub(super) fn time_for(&self, sends: u64) -> Option<String> {
        let (time, over_midnight) = self.takes(sends)?;
        let about = format!("about {}", in_words(time));
        Some(if self.goes || over_midnight {
            about
        } else {
            format!("{about} once nothing holds them back")
        })
    }

    /// How long so many sends take, and whether this day is too short for them.
    fn takes(&self, sends: u64) -> Option<(Duration, bool)> {
        if sends == 0 {
            return None;
        }
        let day = self.day.as_ref().filter(|day| sends > day.left);
        Some(match day {
            Some(day) => (self.over_days(sends, day)?, true),
            None => (self.at_once(sends)?, false),
        })
    }

    fn at_once(&self, sends: u64) -> Option<Duration> {
        let per_second = self.per_second?;
        Duration::try_from_secs_f64((to_f64(sends) / per_second).ceil()).ok()
    }

    /// As [`Self::at_once`], where the rest of this day is not enough.
    fn over_days(&self, sends: u64, day: &Day) -> Option<Duration> {
        let later = sends.saturating_sub(day.left);
        let whole_days = u32::try_from(later.saturating_sub(1) / day.limit).ok()?;
        let last = later - u64::from(whole_days) * day.limit;
        let days = Duration::from_hours(24).checked_mul(whole_days)?;
        self.at_once(last)?.checked_add(days)?.checked_add(day.rest)
    }

    fn drain_of(&self, waiting: u64, held: u64) -> Option<Drain> {
        if waiting + held == 0 {
            return None;
        }
        let mut told = format!("to be sent: {waiting}");
        if let Some(time) = self.time_for(waiting) {
            told = format!("{told}, {time}");
        }
        let day = self.day.as_ref().filter(|day| waiting > day.calls);
        if let Some(Day { calls, ends, .. }) = day {
            told = format!(
                "{told}: today's calls last for {calls} of them at most, and the next day begins at {ends}"
            );
        }
        if held > 0 {
            told = format!("{told}; {held} more are held back by their priority");
        }
        Some(Drain {
            waiting,
            held,
            seconds: self.takes(waiting).map(|(time, _)| time.as_secs()),
            today: day.map(|day| day.calls),
            told,
        })
    }
}

/// What of a day can be used yet.
#[derive(Debug, PartialEq)]
struct Day {
    /// The calls that it has left, and how many of these go out before it ends.
    calls: u64,
    left: u64,
    /// How many go out in a whole day.
    limit: u64,
    ends: Timestamp,
    rest: Duration,
}

impl Day {
    /// `None` where the worker does not tell when it ends. No more of it can be used than goes in its time.
    fn of(quota: &QuotaStatus, now: Timestamp, per_second: Option<f64>) -> Option<Self> {
        let ends = quota.ends?;
        let rest = clock::until(now, ends);
        let goes_in =
            |time: Duration| per_second.map_or(u64::MAX, |rate| to_u64(rate * time.as_secs_f64()));
        let calls = quota.limit.saturating_sub(quota.used);
        Some(Self {
            calls,
            limit: quota.limit.min(goes_in(Duration::from_hours(24))).max(1),
            left: calls.min(goes_in(rest)),
            ends,
            rest,
        })
    }
}

fn per_second(quota: &QuotaStatus) -> f64 {
    to_f64(share(quota)) / quota.window_s
}

/// What of a limit is ours.
fn share(quota: &QuotaStatus) -> u64 {
    quota.share.unwrap_or(quota.limit)
}

/// What keeps sends from going at the rate of their limit.
fn held_back(account: &AccountStatus) -> Option<&'static str> {
    let gate = account.gate_of(Lane::Sends);
    let is_shut = match gate {
        Some(gate) => gate == GateStatus::Shut,
        None => !account.pauses.is_empty(),
    };
    if is_shut {
        return Some("no sends go out while that pause lasts");
    }
    if gate == Some(GateStatus::Trial) {
        return Some(TRIAL);
    }
    match account.wait_of(Lane::Sends) {
        Some(Wait::OneByOne) => Some(
            "one send at a time: HubSpot refused one for a rolling limit, and has taken none since",
        ),
        Some(Wait::Lease) => Some("none: this worker's hold on the account is to be renewed"),
        _ => None,
    }
}

/// The rate and whose it is.
fn limited(account: &AccountStatus, quota: Option<&QuotaStatus>) -> String {
    let told = match quota {
        Some(quota) => {
            let (rate, time) = match per_second(quota) {
                slow if slow < 0.1 => (slow * 3_600.0, "an hour"),
                rate => (rate, "a second"),
            };
            format!("at most {rate:.1} sends {time} ({})", whose(quota))
        }
        None => "as fast as HubSpot answers: no limit is set for sends".to_owned(),
    };
    if quota.is_some_and(|quota| quota.is_refused) {
        return format!(
            "{told}, but HubSpot refused calls that fitted, not ten minutes ago: lower quota.send.limit, or set \
             quota.send.adaptive"
        );
    }
    match account.wait_of(Lane::Sends) {
        Some(Wait::Answer) => {
            format!(
                "{told}; now all that accounts.{}.concurrency allows are in flight",
                account.name
            )
        }
        _ => told,
    }
}

/// Where the limit in force comes from.
pub(super) fn whose(quota: &QuotaStatus) -> String {
    let QuotaStatus {
        bucket,
        limit,
        window_s,
        ..
    } = quota;
    let ours = share(quota);
    match quota.told {
        Some(told) if ours == told => format!("HubSpot tells of {told} in {window_s} s"),
        _ if ours < *limit => {
            format!("other apps call too and leave {ours} of {limit} in {window_s} s")
        }
        _ if quota.is_learned => {
            format!("{limit} in {window_s} s, learned from what HubSpot bears")
        }
        _ => format!("quota.{bucket}: {limit} in {window_s} s"),
    }
}

/// Whether sends of this priority are held back while others go.
fn is_held(account: &AccountStatus, priority: Priority) -> bool {
    let mut pauses = account.pauses.iter();
    pauses.any(|pause| pause.priorities.contains(&priority))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is beyond either end stays there"
)]
fn to_u64(count: f64) -> u64 {
    count as u64
}

#[expect(clippy::cast_precision_loss, reason = "told to a person")]
fn to_f64(count: u64) -> f64 {
    count as f64
}
