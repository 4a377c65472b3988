use super::*;

fn new_york() -> TimeZone {
    TimeZone::get("America/New_York").unwrap()
}

#[test]
fn a_day_that_is_taken_up_ends_when_it_was_said_to() {
    let ends: Timestamp = "2026-11-23T05:00:00Z".parse().unwrap();
    for now in ["2026-11-23T01:00:00Z", "2026-11-22T23:30:00Z"] {
        let now: Timestamp = now.parse().unwrap();
        let mut day = Day::new(Some(10), 0);
        let news = day.resume((10, ends), now);
        assert_eq!(
            news.last(),
            Some(&(Standing::Spent, ends)),
            "no zone is known yet"
        );
        let later = after(now, Duration::from_hours(3));
        day.spend(later);
        assert_eq!(day.counted(later), Some((11, ends)));
        assert_eq!(day.lies_in(new_york(), later), None, "no news");
        assert_eq!(day.over(later), ends);
        assert_eq!(day.spend(ends), [], "a new day");
    }
}

#[test]
fn a_count_that_nobody_can_reach_is_a_spent_day() {
    let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let mut day = Day::new(Some(10), 0);
    let news = day.resume((u64::MAX, after(now, Duration::from_hours(1))), now);
    assert_eq!(news.last().unwrap().0, Standing::Spent);
    assert_eq!(day.spend(now), []);
    assert_eq!(day.used(now).unwrap().calls, u64::MAX);
}

#[test]
fn what_was_told_for_another_midnight_is_told_anew() {
    let now: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
    let mut day = Day::new(Some(1), 0);
    let utc = day.spend(now);
    assert_eq!(utc.last().unwrap().1.to_string(), "2026-11-23T00:00:00Z");
    let told = day.lies_in(new_york(), now).unwrap();
    let (standing, ends) = *told.last().unwrap();
    assert_eq!(
        (standing, ends.to_string()),
        (Standing::Spent, "2026-11-22T05:00:00Z".into())
    );
}

#[test]
fn the_day_ends_at_the_accounts_own_midnight() {
    let now: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap(); // 22:00 the day before, there.
    let mut day = Day::new(Some(2), 0);
    assert_eq!(day.lies_in(new_york(), now), Some(Vec::new()));
    assert_eq!(day.spend(now), []);
    let (standing, end) = *day.spend(now).last().unwrap();
    assert_eq!(standing, Standing::Spent);
    assert_eq!(end.to_string(), "2026-11-22T05:00:00Z");
    assert_eq!(day.spend(end), [], "a new day");
}

#[test]
fn what_was_counted_before_the_zone_was_known_counts() {
    let now: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
    let mut day = Day::new(Some(1_000), 0);
    day.spend(now);
    // There it is the day before.
    assert_eq!(day.lies_in(new_york(), now), Some(Vec::new()));
    day.spend(now);
    let ends = "2026-11-22T05:00:00Z".parse().unwrap();
    assert_eq!(day.counted(now), Some((2, ends)));
}

#[test]
fn the_next_owner_goes_on_where_the_one_before_was() {
    let now: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
    let mut first = Day::new(Some(10), 0);
    for _ in 0..8 {
        first.spend(now);
    }
    let counted = first.counted(now).unwrap();
    let mut next = Day::new(Some(10), 0);
    assert_eq!(next.resume(counted, now), []);
    assert_eq!(next.resume((5, counted.1), now), [], "it is older");
    let ninth = next.spend(now);
    assert_eq!(ninth, [(Standing::SendsOnly, counted.1)]);
    let tomorrow = counted.1;
    let mut later = Day::new(Some(10), 0);
    later.resume(counted, tomorrow);
    assert_eq!(later.counted(tomorrow), None, "that day is over");
    later.resume((9, after(tomorrow, Duration::from_hours(48))), tomorrow);
    assert_eq!(later.counted(tomorrow), None, "no day ends then");
    assert_eq!(next.counted(tomorrow), None);
}

#[test]
fn the_least_urgent_gives_way_first_and_all_leave_the_reserve() {
    let now: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
    let mut day = Day::new(Some(300), 100);
    let mut news = Vec::new();
    for call in 1..=201 {
        let passed = day.spend(now).into_iter();
        news.extend(passed.map(|(standing, _)| (call, standing)));
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
    let now: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
    let mut day = Day::new(Some(1_000), 0);
    let told = |remaining| DailyLimit {
        max: 500,
        remaining,
    };
    assert_eq!(day.heed(told(400), now), []);
    let used = day.used(now).unwrap();
    assert_eq!(
        (used.calls, used.limit),
        (100, 500),
        "HubSpot's is the lower"
    );
    let news = day.heed(told(0), now);
    let passed: Vec<_> = news.iter().map(|(standing, _)| *standing).collect();
    let all = [
        Standing::SendsOnly,
        Standing::NoLow,
        Standing::HighOnly,
        Standing::Spent,
    ];
    assert_eq!(passed, all);
    assert_eq!(day.heed(told(0), now), [], "no news");
    let midnight: Timestamp = "2026-11-23T00:01:00Z".parse().unwrap();
    assert_eq!(day.heed(told(0), midnight), [], "it may mean yesterday");
    assert_eq!(day.used(midnight).unwrap().calls, 0);
}

#[test]
fn the_end_is_foretold_where_it_comes_before_midnight() {
    let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let minute = |minute| after(noon, Duration::from_mins(minute));
    let spent_at = |a_minute, minutes| {
        let mut day = Day::new(Some(1_000), 0);
        for of in 0..minutes {
            for _ in 0..a_minute {
                day.spend(minute(of));
            }
        }
        day.used(minute(minutes)).unwrap().spent_at
    };
    assert_eq!(spent_at(0, 60), None);
    assert_eq!(spent_at(1, 60), None, "at sixty an hour it lasts");
    assert_eq!(spent_at(200, 2), None, "two minutes tell nothing");
    // 300 of the thousand in an hour.
    let told = spent_at(5, 60).unwrap();
    let wait = until(minute(60), told);
    assert!(
        wait.abs_diff(Duration::from_mins(140)) < Duration::from_mins(15),
        "{wait:?}"
    );
}

#[test]
fn the_zone_is_asked_for_after_each_full_hour_as_our_calls_allow() {
    let at = |time: &str| -> Timestamp { format!("2026-11-22T{time}Z").parse().unwrap() };
    let mut day = Day::new(Some(4), 0);
    assert_eq!(day.asks_for_zone(at("12:00:00")), Some(at("12:05:01")));
    assert_eq!(day.asks_for_zone(at("12:04:00")), Some(at("12:05:01")));
    assert_eq!(day.asks_for_zone(at("12:05:01")), Some(at("13:05:01")));
    let (max, remaining) = (4, 0);
    day.heed(DailyLimit { max, remaining }, at("12:00:00"));
    let asks = day.asks_for_zone(at("12:30:00"));
    assert_eq!(asks, Some(at("13:05:01")), "others called");
    for _ in 0..3 {
        day.spend(at("12:30:00"));
    }
    assert_eq!(day.asks_for_zone(at("12:30:00")), None, "it takes two");
    assert!(day.asks_for_zone(at("12:30:00") + 24.hours()).is_some());
    day.lies_in(TimeZone::UTC, at("12:30:00"));
    assert_eq!(day.asks_for_zone(at("12:30:00") + 24.hours()), None);
}

#[test]
fn the_end_is_foretold_by_everybodys_calls() {
    let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let later = after(noon, Duration::from_mins(30));
    let told = |day: &mut Day, remaining, now| {
        let max = 100_000;
        day.heed(DailyLimit { max, remaining }, now);
    };
    let mut day = Day::new(Some(100_000), 0);
    day.resume((20_000, after(noon, Duration::from_hours(12))), noon);
    // Of 40,000 before noon nobody knows when they came.
    told(&mut day, 60_000, noon);
    day.spend(noon);
    assert_eq!(
        day.used(later).unwrap().spent_at,
        None,
        "of ours alone it lasts"
    );
    told(&mut day, 50_000, later);
    let spent_at = day.used(later).unwrap().spent_at.unwrap();
    let (wait, expected) = (until(later, spent_at), Duration::from_mins(150));
    assert!(wait.abs_diff(expected) < Duration::from_mins(1), "{wait:?}");
    // A new day begins without a rate.
    let midnight = after(noon, Duration::from_hours(12));
    day.spend(midnight);
    let soon = after(midnight, Duration::from_mins(20));
    assert_eq!(day.used(soon).unwrap().spent_at, None);
}
