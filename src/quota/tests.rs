use proptest::prelude::*;

use super::*;

fn window(limit: u32, millis: u64) -> WindowConfig {
    WindowConfig {
        limit,
        window: Duration::from_millis(millis),
    }
}

/// Takes tokens for `span`, as fast as they come, after the idle times given; returns when each
/// call went out.
fn greedy(config: WindowConfig, start: Start, idles: &[u64], span: Duration) -> Vec<Duration> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(async {
            let limiter = RateLimiter::new(Some(config), start);
            let origin = Instant::now();
            let mut calls = Vec::new();
            let mut idles = idles.iter().cycle();
            while origin.elapsed() < span {
                let token = limiter.token().await;
                if let Some(idle) = idles.next() {
                    tokio::time::sleep(Duration::from_millis(*idle)).await;
                }
                limiter.spend(token);
                calls.push(origin.elapsed());
            }
            calls
        })
}

/// The most calls in any rolling window.
fn worst(calls: &[Duration], window: Duration) -> usize {
    let count = |(first, from): (usize, &Duration)| {
        calls[first..]
            .iter()
            .take_while(|at| at.saturating_sub(*from) < window)
            .count()
    };
    calls.iter().enumerate().map(count).max().unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_rolling_window_is_ever_exceeded(
        limit in 1_u32..250,
        millis in 200_u64..10_000,
        idles in prop::collection::vec(prop_oneof![4 => Just(0_u64), 1 => 0_u64..3_000], 1..20),
        spent in any::<bool>(),
    ) {
        let config = window(limit, millis);
        let start = if spent { Start::Spent } else { Start::Empty };
        let calls = greedy(config, start, &idles, config.window * 4);
        // HubSpot's window, and what it sees when calls arrive closer together than they left.
        prop_assert!(worst(&calls, config.window + ARRIVAL_SPREAD) <= limit as usize);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_successor_never_breaks_the_window_of_its_predecessor(
        limit in 1_u32..250,
        millis in 200_u64..10_000,
        idles in prop::collection::vec(prop_oneof![6 => Just(0_u64), 1 => 0_u64..3_000], 1..20),
        spans in (1_u32..40, 5_u32..40),
    ) {
        let config = window(limit, millis);
        let first = greedy(config, Start::Empty, &idles, config.window * spans.0 / 10);
        let end = *first.last().unwrap();
        let second = greedy(config, Start::Spent, &[0], config.window * spans.1 / 10);
        let both: Vec<Duration> = first
            .into_iter()
            .chain(second.into_iter().map(|at| at + end))
            .collect();
        // Also when calls arrive closer together than they left.
        let most = worst(&both, config.window + ARRIVAL_SPREAD);
        prop_assert!(most <= limit as usize, "{most}");
    }
}

/// A lane that takes tokens one by one and holds each until something comes, and a keeper that now
/// and then takes those of a probe and lets all of its calls go at once.
fn lane_and_keeper(config: WindowConfig, holds: &[u64], probes: &[u64]) -> Vec<Duration> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(async {
            let limiter = RateLimiter::new(Some(config), Start::Empty);
            let (origin, calls) = (Instant::now(), Mutex::new(Vec::new()));
            let spend = |token| {
                limiter.spend(token);
                calls.lock().unwrap().push(origin.elapsed());
            };
            let lane = async {
                for hold in holds {
                    let token = limiter.token().await;
                    tokio::time::sleep(Duration::from_millis(*hold)).await;
                    spend(token);
                }
            };
            let keeper = async {
                for wait in probes {
                    tokio::time::sleep(Duration::from_millis(*wait)).await;
                    let mut tokens = Vec::new();
                    for _ in 0..PROBE_CALLS {
                        tokens.push(limiter.token().await);
                    }
                    tokens.into_iter().for_each(spend);
                }
            };
            tokio::join!(lane, keeper);
            let mut calls = calls.lock().unwrap().clone();
            calls.sort();
            calls
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn tokens_that_are_held_for_long_break_no_window(
        limit in 3_u32..30,
        millis in 200_u64..10_000,
        holds in prop::collection::vec(prop_oneof![2 => 0_u64..100, 1 => 0_u64..3_000], 1..60),
        probes in prop::collection::vec(0_u64..3_000, 1..20),
    ) {
        let config = window(limit, millis);
        let calls = lane_and_keeper(config, &holds, &probes);
        prop_assert!(worst(&calls, config.window + ARRIVAL_SPREAD) <= limit as usize);
    }
}

#[test]
fn a_limit_with_room_for_one_lane_and_one_probe_is_kept_too() {
    let calls = lane_and_keeper(window(3, 2_720), &[1, 97, 1_360], &[2]);
    let most = worst(&calls, Duration::from_millis(2_720) + ARRIVAL_SPREAD);
    assert!(most <= 3, "{most}: {calls:?}");
}

#[test]
fn the_smallest_limit_lets_a_probe_through_beside_an_idle_lane() {
    for limit in 1..4 {
        // The lane waits for an hour; without an end, the probe would come only then.
        let calls = lane_and_keeper(window(limit, 1_000), &[3_600_000], &[1]);
        assert!(calls[0] < Duration::from_mins(1), "{limit}: {calls:?}");
    }
}

#[test]
fn a_backlog_uses_nearly_all_of_the_window() {
    for (limit, millis) in [(100, 1_000), (190, 10_000), (100, 10_000)] {
        let config = window(limit, millis);
        let calls = greedy(config, Start::Empty, &[0], config.window * 10);
        let share = f64::from(u32::try_from(calls.len()).unwrap()) / (f64::from(limit) * 10.0);
        assert!(
            (0.92..=1.0).contains(&share),
            "{limit} in {millis} ms: {share}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_ceiling_nothing_waits() {
    let limiter = RateLimiter::new(None, Start::Spent);
    let began = Instant::now();
    for _ in 0..10_000 {
        let token = limiter.token().await;
        limiter.spend(token);
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(limiter.used(), None);
}

#[tokio::test(start_paused = true)]
async fn a_token_given_back_is_not_counted() {
    let limiter = RateLimiter::new(Some(window(1, 1_000)), Start::Empty);
    let token = limiter.token().await;
    assert_eq!(limiter.used().unwrap().0, 1);
    limiter.give_back(token);
    assert_eq!(limiter.used().unwrap().0, 0);
}

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
