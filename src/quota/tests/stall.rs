//! Calls of which nobody knows when they arrived: nothing gets through for a while, and then all of it.

use tokio::sync::Semaphore;

use super::*;

const CONFIG: WindowConfig = WindowConfig {
    limit: 190,
    window: Duration::from_secs(10),
};
/// Calls in flight at most.
const CONCURRENCY: usize = 32;
/// Of a call that nothing is in the way of: until it arrives, and from there until its answer is heard.
const WAY: Duration = Duration::from_millis(15);

/// A backlog of one minute, of which nothing gets through from 20 s on, for `stall`.
fn through_a_stall(stall: Duration, silent: bool) -> Vec<Seen> {
    let from = Duration::from_secs(20);
    runtime().block_on(async {
        let limiter = Arc::new(RateLimiter::new(Some(CONFIG), Start::Empty));
        let (origin, permits) = (Instant::now(), Arc::new(Semaphore::new(CONCURRENCY)));
        let mut calls = Vec::new();
        while origin.elapsed() < Duration::from_mins(1) {
            let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
            let flight = limiter.spend(limiter.token().await);
            let left = origin.elapsed();
            let stalls = (from..from + stall).contains(&left);
            let arrived = if stalls { from + stall } else { left } + WAY;
            calls.push(Seen { left, arrived });
            tokio::spawn(async move {
                tokio::time::sleep_until(origin + arrived + WAY).await;
                if !(stalls && silent) {
                    flight.heard(None);
                }
                drop(permit);
            });
        }
        calls.sort_by_key(|call| call.arrived);
        calls
    })
}

#[test]
fn what_was_stalled_counts_from_when_it_got_through() {
    for (stall, silent) in [(12_000, false), (12_000, true), (500, true)] {
        let calls = through_a_stall(Duration::from_millis(stall), silent);
        let most = worst(&calls, CONFIG.window);
        assert!(most <= CONFIG.limit as usize, "{most} at {stall} ms");
    }
}
