//! Most of a window at once, and what the next owner makes of it.

use super::*;

/// Lets calls go as fast as they may, while bursts begin and end at these times.
fn with_bursts(config: WindowConfig, fares: &[Fare], switches: &[u64]) -> Vec<Seen> {
    runtime().block_on(async {
        let limiter = Arc::new(RateLimiter::new(Some(config), Start::Empty));
        let switch = Arc::clone(&limiter);
        let switches = switches.to_vec();
        tokio::spawn(async move {
            for (turn, wait) in switches.into_iter().enumerate() {
                if turn % 2 == 0 {
                    switch.burst();
                } else {
                    switch.calm();
                }
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
        });
        as_fast_as_they_may(&limiter, fares, config.window * 5).await
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn no_burst_exceeds_a_window(
        (config, fares) in world(true),
        switches in prop::collection::vec(0_u64..20_000, 1..12),
    ) {
        let calls = with_bursts(config, &fares, &switches);
        let most = worst(&calls, config.window);
        prop_assert!(most <= config.limit as usize, "{most}");
    }

    #[test]
    fn a_successor_that_knows_of_bursts_never_breaks_the_window(
        (config, fares) in world(false),
        switches in prop::collection::vec(0_u64..20_000, 1..12),
        at in 0.0..1.0_f64,
    ) {
        let mut both = with_bursts(config, &fares, &switches);
        let dies = both.iter().map(|call| call.left).max().unwrap().mul_f64(at);
        both.retain(|call| call.left <= dies);
        let second = greedy(config, Start::SpentAtOnce, &fares, config.window * 3);
        both.extend(second.into_iter().map(|call| Seen {
            left: call.left + dies,
            arrived: call.arrived + dies,
        }));
        both.sort_by_key(|call| call.arrived);
        let most = worst(&both, config.window);
        prop_assert!(most <= config.limit as usize, "{most}");
    }
}

#[test]
fn bursts_in_a_row_use_the_windows_too() {
    for (limit, millis) in [(190, 10_000), (100, 1_000)] {
        let config = window(limit, millis);
        let heard = Duration::from_millis(50);
        let fares = [Fare { heard, ..AT_ONCE }];
        // On for a window, again for the next, and so on.
        let switches: Vec<u64> = (0..20).flat_map(|_| [millis, 0]).collect();
        let calls = with_bursts(config, &fares, &switches);
        assert!(worst(&calls, config.window) <= limit as usize);
        let first = calls
            .iter()
            .take_while(|call| call.left < config.window / 50);
        assert!(first.count() >= limit as usize * 9 / 10);
        for later in 1..4 {
            let within = config.window * later..config.window * (later + 1);
            let used = calls.iter().filter(|call| within.contains(&call.arrived));
            let used = used.count();
            assert!(used * 100 >= limit as usize * 99, "{used} of {limit}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn eagerness_is_told_once_for_each_rest() {
    let limiter = Arc::new(RateLimiter::new(Some(window(100, 10_000)), Start::Empty));
    let send = async |calls| {
        for _ in 0..calls {
            drop(limiter.spend(limiter.token().await));
        }
    };
    let is_eager = async || {
        let told = tokio::time::timeout(Duration::ZERO, limiter.eager());
        told.await.is_ok()
    };
    send(2).await;
    assert!(!is_eager().await, "the pace is kept to");
    send(5).await;
    assert!(is_eager().await);
    send(50).await;
    assert!(!is_eager().await, "it is a backlog now");
    tokio::time::sleep(Duration::from_secs(9)).await;
    send(5).await;
    assert!(!is_eager().await, "that was no rest");
    tokio::time::sleep(Duration::from_secs(11)).await;
    send(5).await;
    assert!(is_eager().await);
}

#[tokio::test(start_paused = true)]
async fn after_a_predecessor_that_spent_at_once_a_window_passes() {
    let start = Start::SpentAtOnce;
    let limiter = Arc::new(RateLimiter::new(Some(window(100, 10_000)), start));
    let began = Instant::now();
    limiter.give_back(limiter.token().await);
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(10), "{waited:?}");
    assert!(waited <= Duration::from_millis(10_500), "{waited:?}");
}
