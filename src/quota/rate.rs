//! How fast the day's calls come, whoever makes them.
//!
//! Ours are counted as they go out. Of others' HubSpot tells now and then how many there were since it
//! told last: they are taken to have come evenly.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::until;

/// One slot's length, in seconds: five minutes.
const SLOT_S: i64 = 300;
/// So many slots tell the rate: an hour, which is long beside a batch and short beside a day.
const SLOTS: i64 = 12;
/// What was counted for a shorter time tells no rate.
const ENOUGH: Duration = Duration::from_mins(10);

#[derive(Debug, Default)]
pub(super) struct Rate {
    /// Since when calls are counted.
    since: Option<Timestamp>,
    /// When HubSpot told last how many there were.
    told: Option<Timestamp>,
    /// Calls, by the slot in which they came.
    slots: BTreeMap<i64, u64>,
}

impl Rate {
    /// One call of ours.
    pub(super) fn called(&mut self, now: Timestamp) {
        self.since.get_or_insert(now);
        self.add(slot(now), 1, now);
    }

    /// HubSpot told how many calls there were: so many more than were known of. When those came that it
    /// tells of first, nobody knows: from there on everybody's are counted.
    pub(super) fn told(&mut self, more: u64, now: Timestamp) {
        match self.told {
            Some(before) if before < now => self.spread(more, before, now),
            Some(_) => self.add(slot(now), more, now),
            None => {
                *self = Self {
                    since: Some(now),
                    ..Self::default()
                }
            }
        }
        self.told = Some(now);
    }

    /// How long so many calls take at this rate; `None` where there is too little to go by.
    pub(super) fn takes(&self, calls: u64, now: Timestamp) -> Option<Duration> {
        let first = first_slot(now);
        let since = self.since?.max(begin(first)?);
        let counted: u64 = self.slots.range(first..=slot(now)).map(|(_, it)| it).sum();
        let took = until(since, now);
        if took < ENOUGH || counted == 0 {
            return None;
        }
        let takes = u128::from(calls) * u128::from(took.as_secs()) / u128::from(counted);
        u64::try_from(takes).ok().map(Duration::from_secs)
    }

    /// Calls that came evenly between two times: what of them lies in slots that count.
    fn spread(&mut self, calls: u64, from: Timestamp, to: Timestamp) {
        let (from_s, to_s) = (from.as_second(), to.as_second());
        let Ok(length) = u128::try_from(to_s - from_s) else {
            return;
        };
        if length == 0 {
            return self.add(slot(to), calls, to);
        }
        let come_by = |at: i64| {
            let part = u128::try_from(at.clamp(from_s, to_s) - from_s).unwrap_or(0);
            u64::try_from(u128::from(calls) * part / length).unwrap_or(u64::MAX)
        };
        for it in first_slot(to)..=slot(to) {
            let (begins, ends) = (it * SLOT_S, (it + 1) * SLOT_S);
            self.add(it, come_by(ends) - come_by(begins), to);
        }
    }

    fn add(&mut self, slot: i64, calls: u64, now: Timestamp) {
        if calls == 0 {
            return;
        }
        if !self.slots.contains_key(&slot) {
            self.slots = self.slots.split_off(&first_slot(now));
        }
        let of = self.slots.entry(slot).or_default();
        *of = of.saturating_add(calls);
    }
}

fn slot(at: Timestamp) -> i64 {
    at.as_second().div_euclid(SLOT_S)
}

/// The first one that counts.
fn first_slot(now: Timestamp) -> i64 {
    slot(now) + 1 - SLOTS
}

fn begin(slot: i64) -> Option<Timestamp> {
    Timestamp::from_second(slot * SLOT_S).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::after;

    const MINUTE: Duration = Duration::from_mins(1);

    fn noon() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    /// So many calls a minute, until then.
    fn call(rate: &mut Rate, a_minute: u32, minutes: std::ops::Range<u32>) {
        for minute in minutes {
            for _ in 0..a_minute {
                rate.called(after(noon(), MINUTE * minute));
            }
        }
    }

    fn takes(rate: &Rate, calls: u64, minute: u32) -> Option<u64> {
        let takes = rate.takes(calls, after(noon(), MINUTE * minute));
        takes.map(|it| it.as_secs() / 60)
    }

    #[test]
    fn a_moment_tells_no_rate() {
        let mut rate = Rate::default();
        assert_eq!(takes(&rate, 100, 30), None);
        call(&mut rate, 5, 0..15);
        assert_eq!(takes(&rate, 100, 9), None);
        assert_eq!(takes(&rate, 100, 15), Some(20));
        assert_eq!(takes(&rate, 0, 15), Some(0));
        assert_eq!(takes(&rate, 100, 90), None, "nobody calls any more");
    }

    #[test]
    fn the_last_hour_counts_and_no_more_is_kept() {
        let mut rate = Rate::default();
        call(&mut rate, 50, 0..60);
        call(&mut rate, 5, 60..180);
        assert_eq!(takes(&rate, 100, 180), Some(20));
        assert_eq!(rate.slots.len(), 12);
    }

    #[test]
    fn others_calls_count_as_if_they_came_evenly() {
        let told = |rate: &mut Rate, more, minute: u32| {
            rate.told(more, after(noon(), MINUTE * minute));
        };
        let mut rate = Rate::default();
        // Of the time before, nobody knows how long it was.
        told(&mut rate, 100_000, 0);
        call(&mut rate, 5, 0..10);
        told(&mut rate, 150, 10);
        assert_eq!(takes(&rate, 100, 10), Some(5), "of twenty a minute");
        // Three hours later, at once: and not as if all of it came in this hour.
        let mut rate = Rate::default();
        told(&mut rate, 0, 0);
        told(&mut rate, 1_800, 180);
        assert_eq!(takes(&rate, 100, 180), Some(10), "of ten a minute");
        told(&mut rate, 10, 180);
        let more = rate.takes(100, after(noon(), MINUTE * 180)).unwrap();
        assert!(more < MINUTE * 10, "{more:?}");
    }

    #[test]
    fn others_calls_that_are_told_first_begin_the_count_anew() {
        let mut rate = Rate::default();
        call(&mut rate, 5, 0..30);
        rate.told(5_000, after(noon(), MINUTE * 30));
        assert_eq!(takes(&rate, 100, 35), None, "too little of everybody's");
        call(&mut rate, 10, 30..50);
        assert_eq!(takes(&rate, 100, 50), Some(10));
    }

    #[test]
    fn a_clock_that_goes_back_tells_nothing_wrong() {
        let mut rate = Rate::default();
        call(&mut rate, 5, 60..90);
        rate.told(0, after(noon(), MINUTE * 90));
        rate.told(u64::MAX, noon());
        rate.called(noon());
        assert_eq!(rate.takes(100, noon()), None);
    }
}
