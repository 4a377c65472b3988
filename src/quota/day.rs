//! The calls of a day, in the account's own time zone.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::clock::{after, until};
use crate::provider::DailyLimit;

/// Of what the day may use, look-ups leave the last tenth to sends, low sends the last twentieth to
/// more urgent ones, and normal sends the last fiftieth to high ones.
const LEAVE: [(u64, Standing); 3] = [
    (50, Standing::HighOnly),
    (20, Standing::NoLow),
    (10, Standing::SendsOnly),
];

/// Calls of the account's own day. In memory: after a restart HubSpot's own answers, its headers and
/// its 429 `DAILY`, take its place until the next midnight.
#[derive(Debug)]
pub struct Day {
    limit: Option<u64>,
    /// What is left to other apps.
    reserve: u64,
    today: Option<Today>,
}

#[derive(Clone, Copy, Debug)]
struct Today {
    date: Date,
    ends: Timestamp,
    /// Of everybody, as far as is known.
    calls: u64,
    /// Of these, ours, and since when they are counted.
    ours: u64,
    since: Timestamp,
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
    /// When it is spent if calls go on as they did, where that is before midnight.
    pub spent_at: Option<Timestamp>,
}

impl Day {
    #[must_use]
    pub fn new(limit: Option<u64>, reserve: u64) -> Self {
        Self {
            limit,
            reserve,
            today: None,
        }
    }

    /// Counts one call. Tells how far the day is spent when that changes, and when the day ends.
    pub fn spend(&mut self, now: Timestamp, zone: &TimeZone) -> Option<(Standing, Timestamp)> {
        self.limit?;
        let today = self.today(now, zone);
        today.calls += 1;
        today.ours += 1;
        self.look()
    }

    /// HubSpot told how much of the day is used, by whomever. Just after our midnight it may have
    /// meant the day before.
    pub fn heed(
        &mut self,
        limit: DailyLimit,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Option<(Standing, Timestamp)> {
        self.limit?;
        if was_midnight(now, zone) {
            return None;
        }
        let today = self.today(now, zone);
        today.max = Some(limit.max);
        let used = limit.max.saturating_sub(limit.remaining);
        today.calls = today.calls.max(used);
        self.look()
    }

    /// What is told of it; `None` without a ceiling.
    #[must_use]
    pub fn used(&self, now: Timestamp) -> Option<DayUsed> {
        let today = self.today.filter(|today| now < today.ends);
        let limit = self.usable(today.as_ref())?;
        let spent_at = today.and_then(|today| today.spent_at(limit, now));
        Some(DayUsed {
            calls: today.map_or(0, |today| today.calls),
            limit,
            spent_at,
        })
    }

    fn today(&mut self, now: Timestamp, zone: &TimeZone) -> &mut Today {
        let date = zone.to_datetime(now).date();
        let today = self.today.filter(|today| today.date == date);
        let today = self.today.insert(today.unwrap_or(Today {
            date,
            ends: now,
            calls: 0,
            ours: 0,
            since: now,
            max: None,
            standing: Standing::Free,
        }));
        // The zone may have been told since.
        today.ends = midnight(now, zone);
        today
    }

    /// What may be used of a day.
    fn usable(&self, today: Option<&Today>) -> Option<u64> {
        let max = today.and_then(|today| today.max).unwrap_or(u64::MAX);
        Some(self.limit?.min(max).saturating_sub(self.reserve).max(1))
    }

    fn look(&mut self) -> Option<(Standing, Timestamp)> {
        let usable = self.usable(self.today.as_ref())?;
        let today = self.today.as_mut()?;
        let left = usable.saturating_sub(today.calls);
        let standing = if left == 0 {
            Standing::Spent
        } else {
            let given_way = LEAVE.iter().find(|(part, _)| left <= usable / part);
            given_way.map_or(Standing::Free, |(_, standing)| *standing)
        };
        let is_news = standing > today.standing;
        today.standing = standing.max(today.standing);
        is_news.then_some((standing, today.ends))
    }
}

impl Today {
    fn spent_at(&self, limit: u64, now: Timestamp) -> Option<Timestamp> {
        let (left, ours) = (limit.checked_sub(self.calls)?, self.ours.max(1));
        let took = until(self.since, now).as_secs().max(1);
        let wait = u128::from(left) * u128::from(took) / u128::from(ours);
        let spent_at = after(now, Duration::from_secs(u64::try_from(wait).ok()?));
        (self.ours > 0 && spent_at < self.ends).then_some(spent_at)
    }
}

/// The end of the day that `now` lies in, in the account's time zone.
#[must_use]
pub fn midnight(now: Timestamp, zone: &TimeZone) -> Timestamp {
    now.to_zoned(zone.clone())
        .checked_add(1.day())
        .and_then(|tomorrow| tomorrow.start_of_day())
        .map_or_else(
            |_| after(now, Duration::from_hours(24)),
            |day| day.timestamp(),
        )
}

/// How far HubSpot's clock may be behind ours.
const CLOCKS_APART: Duration = Duration::from_mins(5);
/// When HubSpot is asked again whose midnight seems to come later than ours.
const MIDNIGHT_AGAIN: Duration = Duration::from_mins(1);

/// Whether HubSpot's midnight may still be to come where ours is over.
fn was_midnight(now: Timestamp, zone: &TimeZone) -> bool {
    let before = now.checked_sub(CLOCKS_APART).unwrap_or(now);
    midnight(before, zone) <= now
}

/// When to go on after HubSpot said at `now` that the day is spent: at midnight. Just after ours
/// it may have meant the day before, and waiting for the next midnight would cost a whole day.
#[must_use]
pub fn day_over(now: Timestamp, zone: &TimeZone) -> Timestamp {
    if was_midnight(now, zone) {
        after(now, MIDNIGHT_AGAIN)
    } else {
        midnight(now, zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_ends_at_the_accounts_own_midnight() {
        let zone = TimeZone::get("America/New_York").unwrap();
        let now: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap(); // 22:00 the day before, there.
        let mut day = Day::new(Some(2), 0);
        assert_eq!(day.spend(now, &zone), None);
        let (standing, end) = day.spend(now, &zone).unwrap();
        assert_eq!(standing, Standing::Spent);
        assert_eq!(end.to_string(), "2026-11-22T05:00:00Z");
        assert_eq!(day.spend(end, &zone), None, "a new day");
    }

    #[test]
    fn the_least_urgent_gives_way_first_and_all_leave_the_reserve() {
        let now: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
        let mut day = Day::new(Some(300), 100);
        let mut news = Vec::new();
        for call in 1..=201 {
            news.extend((day.spend(now, &TimeZone::UTC)).map(|(standing, _)| (call, standing)));
        }
        let expected = [
            (180, Standing::SendsOnly),
            (190, Standing::NoLow),
            (196, Standing::HighOnly),
            (200, Standing::Spent),
        ];
        assert_eq!(news, expected);
    }

    #[test]
    fn what_others_use_counts_when_hubspot_tells_it() {
        let zone = TimeZone::UTC;
        let now: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
        let mut day = Day::new(Some(1_000), 0);
        let told = |remaining| DailyLimit {
            max: 500,
            remaining,
        };
        assert_eq!(day.heed(told(400), now, &zone), None);
        let used = day.used(now).unwrap();
        assert_eq!(
            (used.calls, used.limit),
            (100, 500),
            "HubSpot's is the lower"
        );
        let (standing, _) = day.heed(told(0), now, &zone).unwrap();
        assert_eq!(standing, Standing::Spent);
        assert_eq!(day.heed(told(0), now, &zone), None, "no news");
        let midnight: Timestamp = "2026-11-23T00:01:00Z".parse().unwrap();
        assert_eq!(
            day.heed(told(0), midnight, &zone),
            None,
            "it may mean yesterday"
        );
        assert_eq!(day.used(midnight).unwrap().calls, 0);
    }

    #[test]
    fn the_end_is_foretold_where_it_comes_before_midnight() {
        let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let later = after(noon, Duration::from_hours(1));
        let spent_at = |calls| {
            let mut day = Day::new(Some(1_000), 0);
            for _ in 0..calls {
                day.spend(noon, &TimeZone::UTC);
            }
            day.used(later).unwrap().spent_at
        };
        assert_eq!(spent_at(0), None);
        assert_eq!(spent_at(50), None, "at fifty an hour it lasts");
        let told = spent_at(250).unwrap();
        assert_eq!(told, after(later, Duration::from_hours(3)));
    }
}
