//! The calls of a day, in the account's own time zone.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Calls of the account's own day. In memory: after a restart HubSpot's own answer
/// (429 `DAILY`) takes its place until the next midnight.
#[derive(Debug)]
pub struct Day {
    limit: Option<u64>,
    today: Option<Date>,
    calls: u64,
}

impl Day {
    #[must_use]
    pub fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            today: None,
            calls: 0,
        }
    }

    /// Counts one call. `Some(midnight)` when it was the last one that the day allows.
    pub fn spend(&mut self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let limit = self.limit?;
        let date = zone.to_datetime(now).date();
        if self.today != Some(date) {
            self.today = Some(date);
            self.calls = 0;
        }
        self.calls += 1;
        (self.calls >= limit).then(|| midnight(now, zone))
    }
}

/// The end of the day that `now` lies in, in the account's time zone.
#[must_use]
pub fn midnight(now: Timestamp, zone: &TimeZone) -> Timestamp {
    now.to_zoned(zone.clone())
        .checked_add(1.day())
        .and_then(|tomorrow| tomorrow.start_of_day())
        .map_or_else(
            |_| crate::clock::after(now, Duration::from_hours(24)),
            |day| day.timestamp(),
        )
}

/// How far HubSpot's clock may be behind ours.
const CLOCKS_APART: Duration = Duration::from_mins(5);
/// When HubSpot is asked again whose midnight seems to come later than ours.
const MIDNIGHT_AGAIN: Duration = Duration::from_mins(1);

/// When to go on after HubSpot said at `now` that the day is spent: at midnight. Just after ours
/// it may have meant the day before, and waiting for the next midnight would cost a whole day.
#[must_use]
pub fn day_over(now: Timestamp, zone: &TimeZone) -> Timestamp {
    let before = now.checked_sub(CLOCKS_APART).unwrap_or(now);
    if midnight(before, zone) <= now {
        crate::clock::after(now, MIDNIGHT_AGAIN)
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
        let mut day = Day::new(Some(2));
        assert_eq!(day.spend(now, &zone), None);
        let end = day.spend(now, &zone).unwrap();
        assert_eq!(end.to_string(), "2026-11-22T05:00:00Z");
        assert_eq!(day.spend(end, &zone), None, "a new day");
    }
}
