mod adaptive;
mod burst;
mod stall;

use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::provider::{PROBE_CALLS, RollingLimit};

fn window(limit: u32, millis: u64) -> WindowConfig {
    WindowConfig {
        limit,
        window: Duration::from_millis(millis),
    }
}

/// How a call fares: idle time before it leaves, and then until its connection stands, if it needs one,
/// and until it arrives and its answer is heard, or it is `silent` and given up.
#[derive(Clone, Copy, Debug)]
struct Fare {
    idle: Duration,
    connects: Option<Duration>,
    arrives: Duration,
    heard: Duration,
    silent: bool,
}

/// A call as it leaves and as it arrives.
#[derive(Clone, Copy, Debug)]
struct Seen {
    left: Duration,
    arrived: Duration,
}

const AT_ONCE: Fare = Fare {
    idle: Duration::ZERO,
    connects: None,
    arrives: Duration::ZERO,
    heard: Duration::ZERO,
    silent: false,
};

/// Calls that are answered within `heard_max` ms, and arrive within what the window allows for. Where
/// there are `stalls`, some are never answered, or late, and may arrive at any time until then.
fn fares(window: Duration, heard_max: u64, stalls: bool) -> impl Strategy<Value = Vec<Fare>> {
    let most = u64::try_from(spread(window).as_micros()).unwrap();
    let idle = prop_oneof![4 => Just(0_u64), 1 => 0..3_000_u64];
    let connects = prop_oneof![4 => Just(None), 1 => (0..=200_u64).prop_map(Some)];
    let stall = (any::<bool>(), 0..=15_000_u64, 0.0..=1.0_f64).prop_map(Some);
    let stall = prop_oneof![4 => Just(None), u32::from(stalls) => stall];
    let fare = (idle, connects, 0..=most, 0..=heard_max, stall);
    let fare = fare.prop_map(|(idle, connects, arrives, heard, stall)| {
        let connects = connects.map(Duration::from_millis);
        let mut arrives = connects.unwrap_or_default() + Duration::from_micros(arrives);
        let mut heard = Duration::from_millis(heard).max(arrives);
        if let Some((silent, took, share)) = stall {
            let least = Duration::from_millis(if silent { 0 } else { 1_001 });
            let took = Duration::from_millis(took).max(least);
            arrives = connects.unwrap_or_default() + took.mul_f64(share);
            heard = connects.unwrap_or_default() + took;
        }
        Fare {
            idle: Duration::from_millis(idle),
            connects,
            arrives,
            heard,
            silent: stall.is_some_and(|(silent, ..)| silent),
        }
    });
    prop::collection::vec(fare, 1..20)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

/// Lets calls go for `span`, as fast as they may.
fn greedy(config: WindowConfig, start: Start, fares: &[Fare], span: Duration) -> Vec<Seen> {
    runtime().block_on(async {
        let limiter = Arc::new(RateLimiter::new(Some(config), start));
        as_fast_as_they_may(&limiter, fares, span).await
    })
}

async fn as_fast_as_they_may(
    limiter: &Arc<RateLimiter>,
    fares: &[Fare],
    span: Duration,
) -> Vec<Seen> {
    let origin = Instant::now();
    let mut calls = Vec::new();
    let mut fares = fares.iter().cycle();
    while origin.elapsed() < span {
        let token = limiter.token().await;
        let fare = fares.next().copied().unwrap_or(AT_ONCE);
        tokio::time::sleep(fare.idle).await;
        let flight = limiter.spend(token);
        let left = origin.elapsed();
        calls.push(Seen {
            left,
            arrived: left + fare.arrives,
        });
        let connected = fare.connects.map(|connects| Instant::now() + connects);
        let ends = move || {
            if !fare.silent {
                flight.heard(connected);
            }
        };
        if fare.heard.is_zero() {
            ends();
        } else {
            tokio::spawn(async move {
                tokio::time::sleep(fare.heard).await;
                ends();
            });
        }
    }
    calls.sort_by_key(|call| call.arrived);
    calls
}

/// The most calls that arrive in any rolling window.
fn worst(calls: &[Seen], window: Duration) -> usize {
    let count = |(first, from): (usize, &Seen)| {
        calls[first..]
            .iter()
            .take_while(|call| call.arrived.saturating_sub(from.arrived) < window)
            .count()
    };
    calls.iter().enumerate().map(count).max().unwrap_or(0)
}

/// A limit, a window, and how calls fare.
fn world(stalls: bool) -> impl Strategy<Value = (WindowConfig, Vec<Fare>)> {
    let heard_max = prop_oneof![Just(0_u64), Just(100), Just(5_000)];
    let config = (1_u32..250, 200_u64..10_000).prop_map(|(limit, ms)| window(limit, ms));
    (config, heard_max).prop_flat_map(move |(config, heard_max)| {
        (Just(config), fares(config.window, heard_max, stalls))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn no_rolling_window_is_ever_exceeded((config, fares) in world(true), spent in any::<bool>()) {
        let start = if spent { Start::Spent } else { Start::Empty };
        let calls = greedy(config, start, &fares, config.window * 4);
        let most = worst(&calls, config.window);
        prop_assert!(most <= config.limit as usize, "{most}");
    }

    #[test]
    fn a_successor_never_breaks_the_window_of_its_predecessor(
        (config, fares) in world(false),
        spans in (1_u32..40, 5_u32..40),
    ) {
        let mut both = greedy(config, Start::Empty, &fares, config.window * spans.0 / 10);
        let end = both.iter().map(|call| call.left).max().unwrap();
        let second = greedy(config, Start::Spent, &fares, config.window * spans.1 / 10);
        both.extend(second.into_iter().map(|call| Seen {
            left: call.left + end,
            arrived: call.arrived + end,
        }));
        both.sort_by_key(|call| call.arrived);
        let most = worst(&both, config.window);
        prop_assert!(most <= config.limit as usize, "{most}");
    }
}

/// A lane that takes tokens one by one and holds each until something comes, and a keeper that now
/// and then takes those of a probe and lets all of its calls go at once.
fn lane_and_keeper(config: WindowConfig, holds: &[u64], probes: &[u64]) -> Vec<Seen> {
    runtime().block_on(async {
        let limiter = Arc::new(RateLimiter::new(Some(config), Start::Empty));
        let (origin, calls) = (Instant::now(), Mutex::new(Vec::new()));
        let spend = |token| {
            drop(limiter.spend(token));
            let now = origin.elapsed();
            calls.lock().unwrap().push(Seen {
                left: now,
                arrived: now,
            });
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
        calls.sort_by_key(|call| call.arrived);
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
        prop_assert!(worst(&calls, config.window) <= limit as usize);
    }
}

#[test]
fn a_limit_with_room_for_one_lane_and_one_probe_is_kept_too() {
    let calls = lane_and_keeper(window(3, 2_720), &[1, 97, 1_360], &[2]);
    let most = worst(&calls, Duration::from_millis(2_720));
    assert!(most <= 3, "{most}: {calls:?}");
}

#[test]
fn the_smallest_limit_lets_a_probe_through_beside_an_idle_lane() {
    for limit in 1..4 {
        // The lane waits for an hour; without an end, the probe would come only then.
        let calls = lane_and_keeper(window(limit, 1_000), &[3_600_000], &[1]);
        assert!(calls[0].left < Duration::from_mins(1), "{limit}: {calls:?}");
    }
}

#[test]
fn a_backlog_uses_99_of_100_of_every_window() {
    let mut rng = fastrand::Rng::with_seed(4);
    let mut answered = |(from, to)| -> Vec<Fare> {
        let heard = |_| Duration::from_millis(rng.u64(from..=to));
        (0..500)
            .map(heard)
            .map(|heard| Fare { heard, ..AT_ONCE })
            .collect()
    };
    for (limit, millis) in [(190, 10_000), (100, 1_000), (100, 10_000)] {
        for latency in [(0, 0), (20, 80)] {
            let config = window(limit, millis);
            let calls = greedy(config, Start::Empty, &answered(latency), config.window * 10);
            assert!(worst(&calls, config.window) <= limit as usize);
            // After the first window, which begins with none.
            let late = calls.iter().filter(|call| call.arrived >= config.window);
            let share = f64::from(u32::try_from(late.count()).unwrap()) / (f64::from(limit) * 9.0);
            assert!(
                share >= 0.99,
                "{limit} in {millis} ms at {latency:?}: {share}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_counts_until_its_answer_and_then_for_a_window() {
    let limiter = Arc::new(RateLimiter::new(Some(window(1, 1_000)), Start::Empty));
    let flight = limiter.spend(limiter.token().await);
    let began = Instant::now();
    tokio::join!(
        async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            flight.heard(None);
        },
        async {
            let token = limiter.token().await;
            // It may have been held up for that long.
            assert_eq!(began.elapsed(), Duration::from_secs(31));
            limiter.give_back(token);
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_had_to_connect_left_when_its_connection_stood() {
    let limit = window(1, 4_000);
    let limiter = Arc::new(RateLimiter::new(Some(limit), Start::Empty));
    let mut waits = Vec::new();
    let half = Duration::from_millis(500);
    let before: fn(Instant) -> Option<Instant> = |left| left.checked_sub(Duration::from_secs(1));
    for connected in [
        |_| None,
        before,
        |left| Some(left + Duration::from_millis(500)),
    ] {
        let flight = limiter.spend(limiter.token().await);
        let left = Instant::now();
        tokio::time::sleep(2 * half).await;
        flight.heard(connected(left));
        limiter.give_back(limiter.token().await);
        waits.push(left.elapsed().saturating_sub(limit.window));
    }
    // Nobody tells of this one.
    let flight = limiter.spend(limiter.token().await);
    let left = Instant::now();
    tokio::time::sleep(2 * half).await;
    drop(flight);
    limiter.give_back(limiter.token().await);
    waits.push(left.elapsed().saturating_sub(limit.window));
    let spread = spread(limit.window);
    assert_eq!(waits, [spread, spread, half + spread, 2 * half]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_widens_the_spread_for_a_while() {
    let limiter = Arc::new(RateLimiter::new(Some(window(1, 4_000)), Start::Empty));
    let next = async || {
        let flight = limiter.spend(limiter.token().await);
        let left = Instant::now();
        tokio::time::sleep(Duration::from_secs(1)).await;
        flight.heard(None);
        limiter.give_back(limiter.token().await);
        left.elapsed()
    };
    let usual = next().await;
    let event = || (0..6).for_each(|_| limiter.refused());
    event();
    assert_eq!(
        next().await,
        usual + spread(Duration::from_secs(4)),
        "one event widens it once"
    );
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        event();
    }
    assert_eq!(next().await, Duration::from_secs(5), "a quarter at most");
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(next().await, usual, "it is forgotten");
}

#[tokio::test(start_paused = true)]
async fn without_a_ceiling_nothing_waits() {
    let limiter = Arc::new(RateLimiter::new(None, Start::Spent));
    let began = Instant::now();
    for _ in 0..10_000 {
        let token = limiter.token().await;
        drop(limiter.spend(token));
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(limiter.used(), None);
}

#[tokio::test(start_paused = true)]
async fn a_token_given_back_is_not_counted() {
    let limiter = Arc::new(RateLimiter::new(Some(window(2, 1_000)), Start::Empty));
    let began = Instant::now();
    limiter.give_back(limiter.token().await);
    assert_eq!(limiter.used().unwrap().calls, 0);
    drop(limiter.spend(limiter.token().await));
    assert!(began.elapsed() < Duration::from_secs(1) && limiter.used().unwrap().calls == 1);
}

#[tokio::test(start_paused = true)]
async fn what_others_use_is_left_to_them_for_a_while() {
    let config = window(100, 10_000);
    let limiter = Arc::new(RateLimiter::new(Some(config), Start::Empty));
    let ten = async || {
        for _ in 0..10 {
            drop(limiter.spend(limiter.token().await));
        }
    };
    ten().await;
    let told = |remaining, window| RollingLimit {
        max: 100,
        remaining,
        window,
    };
    limiter.heed(told(90, config.window));
    assert_eq!(limiter.used().unwrap().share, 100, "these ten are ours");
    limiter.heed(told(0, Duration::from_secs(1)));
    assert_eq!(limiter.used().unwrap().share, 100, "that is another window");
    limiter.heed(told(27, config.window));
    // A few that we do not count any more may be ours, 3 of 63 here; and 15 are margin.
    assert_eq!(limiter.used().unwrap().share, 24);
    ten().await;
    let began = Instant::now();
    ten().await;
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(5), "all of ours is used");
    limiter.heed(RollingLimit {
        max: 10,
        ..told(0, config.window)
    });
    assert_eq!(limiter.used().unwrap().share, 10, "ours are all there is");
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(limiter.used().unwrap().share, 100, "it is old news");
}

#[tokio::test(start_paused = true)]
async fn what_the_predecessor_used_is_not_others() {
    let config = window(190, 10_000);
    let limiter = Arc::new(RateLimiter::new(Some(config), Start::Spent));
    let told = |used: u32| RollingLimit {
        max: 190,
        remaining: 190 - used,
        window: config.window,
    };
    for _ in 0..4 {
        drop(limiter.spend(limiter.token().await));
        limiter.heed(told(188));
        assert_eq!(limiter.used().unwrap().share, 190);
    }
    // By then its calls are gone. A few of these may be ours, 4 of 60 here; and 24 are margin.
    tokio::time::sleep(config.window * 2).await;
    limiter.heed(told(60));
    assert_eq!(limiter.used().unwrap().share, 110);
}

#[tokio::test(start_paused = true)]
async fn a_probe_goes_beside_an_idle_lane_where_others_use_all() {
    let config = window(10, 1_000);
    let limiter = Arc::new(RateLimiter::new(Some(config), Start::Empty));
    let _of_the_lane = limiter.token().await;
    limiter.heed(RollingLimit {
        max: 10,
        remaining: 0,
        window: config.window,
    });
    let probe = async {
        for _ in 0..PROBE_CALLS {
            drop(limiter.spend(limiter.token().await));
        }
    };
    let soon = tokio::time::timeout(Duration::from_secs(5), probe).await;
    assert!(soon.is_ok(), "its answer tells how things are by then");
}
