//! The calls of a day, in the account's own time zone.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{RoundMode, Timestamp, TimestampRound, ToSpan, Unit};

use super::rate::Rate;
use crate::clock::{after, until};
use crate::provider::{DailyLimit, PROBE_CALLS};

/// Of what the day may use, look-ups leave the last tenth to sends, low sends the last twentieth to
/// more urgent ones, and normal sends the last fiftieth to high ones.
const LEAVE: [(u64, Standing); 3] = [
    (10, Standing::SendsOnly),
    (20, Standing::NoLow),
    (50, Standing::HighOnly),
];
/// How far HubSpot's clock may be behind ours.
const CLOCKS_APART: Duration = Duration::from_mins(5);
/// When HubSpot is asked again whose midnight seems to come later than ours.
const MIDNIGHT_AGAIN: Duration = Duration::from_mins(1);
/// No day is longer; one in autumn has 25 hours.
const DAY_MAX: Duration = Duration::from_hours(26);
const HOUR: Duration = Duration::from_hours(1);

/// Calls of the account's own day. An owner takes up what the one before counted ([`Day::resume`]);
/// what that one had no time to tell, HubSpot's own answers make good, its headers and its 429 `DAILY`.
#[derive(Debug)]
pub struct Day {
    limit: Option<u64>,
    /// What is left to other apps.
    reserve: u64,
    /// The account's, once HubSpot has told it.
    zone: Option<TimeZone>,
    today: Option<Today>,
    /// Of today's calls, everybody's as far as is known.
    rate: Rate,
}

#[derive(Clone, Copy, Debug)]
struct Today {
    ends: Timestamp,
    /// Of everybody, as far as is known.
    calls: u64,
    /// Of these, what was counted here or taken up.
    ours: u64,
    /// HubSpot's own limit.
    max: Option<u64>,
    standing: Standing,
}

/// How far the day is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Free,
    /// What is left is for sends.
    SendsOnly,
    /// For sends that are not low.
    NoLow,
    /// For high sends.
    HighOnly,
    Spent,
}

/// A day as it is told to an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayUsed {
    pub calls: u64,
    pub limit: u64,
    /// When it is spent if calls go on as in the last hour, everybody's, where that is before midnight.
    pub spent_at: Option<Timestamp>,
    /// Midnight in the account's own time zone, as far as that is known.
    pub ends: Timestamp,
}

impl Day {
    #[must_use]
    pub fn new(limit: Option<u64>, reserve: u64) -> Self {
        Self {
            limit,
            reserve,
            zone: None,
            today: None,
            rate: Rate::default(),
        }
    }

    /// Counts one call. Tells what the day has come to with it, and when it ends.
    pub fn spend(&mut self, now: Timestamp) -> Vec<(Standing, Timestamp)> {
        if self.limit.is_none() {
            return Vec::new();
        }
        let today = self.today(now);
        today.calls = today.calls.saturating_add(1);
        today.ours = today.ours.saturating_add(1);
        self.rate.called(now);
        self.look()
    }

    /// Takes up what an owner before had counted of the day that ends then. That one knew the time
    /// zone, as a rule; this one learns it a little later.
    pub fn resume(
        &mut self,
        (calls, ends): (u64, Timestamp),
        now: Timestamp,
    ) -> Vec<(Standing, Timestamp)> {
        if self.limit.is_none() || ends <= now || until(now, ends) > DAY_MAX {
            return Vec::new();
        }
        let is_zone_known = self.zone.is_some();
        let today = self.today(now);
        today.calls = today.calls.max(calls);
        today.ours = today.ours.max(calls);
        if !is_zone_known {
            today.ends = ends;
        }
        self.look()
    }

    /// HubSpot told the account's time zone. Where the day ends otherwise than was thought, everything
    /// that the day has come to is told anew.
    pub fn lies_in(
        &mut self,
        zone: TimeZone,
        now: Timestamp,
    ) -> Option<Vec<(Standing, Timestamp)>> {
        let thought = self.ends(now);
        self.zone = Some(zone);
        if self.ends(now) == thought {
            return None;
        }
        if let Some(today) = &mut self.today {
            today.standing = Standing::Free;
        }
        if self.today.is_none_or(|today| now >= today.ends) {
            return Some(Vec::new());
        }
        self.today(now);
        Some(self.look())
    }

    /// When the account's time zone is to be asked for again, while it is not known and the day leaves
    /// room for the question: midnight lies at a full hour nearly everywhere.
    #[must_use]
    pub fn asks_for_zone(&self, now: Timestamp) -> Option<Timestamp> {
        let today = self.today.filter(|today| now < today.ends);
        // What others called of it does not matter: that is what HubSpot refuses the question for.
        let asked = today.map_or(0, |today| today.ours) + u64::from(PROBE_CALLS);
        let is_full = (self.usable(today.as_ref())).is_some_and(|usable| asked > usable);
        if self.zone.is_some() || is_full {
            return None;
        }
        let hour = TimestampRound::new().smallest(Unit::Hour);
        // What comes a moment sooner than it should is not this hour's once more.
        let apart = CLOCKS_APART + Duration::from_secs(1);
        let before = now.checked_sub(apart).ok()?;
        let hour = before.round(hour.mode(RoundMode::Floor)).ok()?;
        Some(after(hour, HOUR + apart))
    }

    /// When to go on after HubSpot said at `now` that the day is spent: at midnight. Just after ours it
    /// may have meant the day before, and waiting for the next midnight would cost a whole day.
    #[must_use]
    pub fn over(&self, now: Timestamp) -> Timestamp {
        if self.has_just_begun(now) {
            after(now, MIDNIGHT_AGAIN)
        } else {
            self.ends(now)
        }
    }

    /// Whether HubSpot's midnight may still be to come where ours is over.
    fn has_just_begun(&self, now: Timestamp) -> bool {
        let before = now.checked_sub(CLOCKS_APART).unwrap_or(now);
        self.ends(before) <= now
    }

    /// When the day ends that `now` lies in.
    fn ends(&self, now: Timestamp) -> Timestamp {
        match (&self.zone, &self.today) {
            (Some(zone), _) => midnight(now, zone),
            (None, Some(today)) if now < today.ends => today.ends,
            (None, _) => midnight(now, &TimeZone::UTC),
        }
    }

    /// What the next owner is to take up: the calls of today, and when that ends.
    #[must_use]
    pub fn counted(&self, now: Timestamp) -> Option<(u64, Timestamp)> {
        let today = self.today.filter(|today| now < today.ends)?;
        Some((today.calls, today.ends))
    }

    /// HubSpot told how much of the day is used, by whomever. Just after our midnight it may have
    /// meant the day before.
    pub fn heed(&mut self, limit: DailyLimit, now: Timestamp) -> Vec<(Standing, Timestamp)> {
        if self.limit.is_none() || self.has_just_begun(now) {
            return Vec::new();
        }
        let today = self.today(now);
        today.max = Some(limit.max);
        let used = limit.max.saturating_sub(limit.remaining);
        let more = used.saturating_sub(today.calls);
        today.calls += more;
        self.rate.told(more, now);
        self.look()
    }

    /// What is told of it; `None` without a ceiling.
    #[must_use]
    pub fn used(&self, now: Timestamp) -> Option<DayUsed> {
        let today = self.today.filter(|today| now < today.ends);
        let limit = self.usable(today.as_ref())?;
        let spent_at = today.and_then(|today| self.spent_at(&today, limit, now));
        Some(DayUsed {
            calls: today.map_or(0, |today| today.calls),
            limit,
            spent_at,
            ends: today.map_or_else(|| self.ends(now), |today| today.ends),
        })
    }

    fn today(&mut self, now: Timestamp) -> &mut Today {
        let ends = self.ends(now);
        let today = self.today.filter(|today| now < today.ends);
        if today.is_none() {
            self.rate = Rate::default();
        }
        let today = self.today.insert(today.unwrap_or(Today {
            ends: now,
            calls: 0,
            ours: 0,
            max: None,
            standing: Standing::Free,
        }));
        // The zone may have been told since.
        today.ends = ends;
        today
    }

    fn spent_at(&self, today: &Today, limit: u64, now: Timestamp) -> Option<Timestamp> {
        let left = limit.checked_sub(today.calls).filter(|left| *left > 0)?;
        let spent_at = after(now, self.rate.takes(left, now)?);
        (spent_at < today.ends).then_some(spent_at)
    }

    /// What may be used of a day.
    fn usable(&self, today: Option<&Today>) -> Option<u64> {
        let max = today.and_then(|today| today.max).unwrap_or(u64::MAX);
        Some(self.limit?.min(max).saturating_sub(self.reserve).max(1))
    }

    /// Each standing that the day has come to since the last look; HubSpot's word may pass several.
    fn look(&mut self) -> Vec<(Standing, Timestamp)> {
        let usable = self.usable(self.today.as_ref());
        let (Some(usable), Some(today)) = (usable, self.today.as_mut()) else {
            return Vec::new();
        };
        let left = usable.saturating_sub(today.calls);
        let given_way = LEAVE.iter().filter(|(part, _)| left <= usable / part);
        let come_to = given_way
            .map(|(_, standing)| *standing)
            .chain((left == 0).then_some(Standing::Spent));
        let news = come_to.filter(|standing| *standing > today.standing);
        let news: Vec<_> = news.map(|standing| (standing, today.ends)).collect();
        today.standing = news
            .last()
            .map_or(today.standing, |(standing, _)| *standing);
        news
    }
}

/// The end of the day that `now` lies in, in a time zone.
fn midnight(now: Timestamp, zone: &TimeZone) -> Timestamp {
    now.to_zoned(zone.clone())
        .checked_add(1.day())
        .and_then(|tomorrow| tomorrow.start_of_day())
        .map_or_else(
            |_| after(now, Duration::from_hours(24)),
            |day| day.timestamp(),
        )
}

#[cfg(test)]
mod tests;
