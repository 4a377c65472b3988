//! From a publish to the call, when nothing waits.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::run::{Contestant, Rig};

/// One request in each.
const EVERY: Duration = Duration::from_millis(100);
/// Connections, caches, the lease.
const WARM_UP: u64 = 20;
/// For the last calls to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// In milliseconds, from the moment when the publish began until the call came in.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    pub median: f64,
    pub p99: f64,
    pub most: f64,
}

/// Publishes ten requests a second for so long, to a contestant that has nothing else to do.
pub async fn latency(rig: &Rig<'_>, contestant: Contestant, seconds: u64) -> Latency {
    let requests = seconds * 10;
    let program = rig.start(contestant, WARM_UP + requests).await;
    rig.backlog.trickle(WARM_UP, EVERY).await;
    let began = rig.backlog.trickle(requests, EVERY).await;
    let ended = Instant::now();
    let arrived = loop {
        // The last to warm up may arrive behind the first that counts.
        let arrived = rig.sandbox.arrivals(WARM_UP + requests).await;
        let missing = began.keys().filter(|id| !arrived.contains_key(*id)).count();
        if missing == 0 {
            break arrived;
        }
        let said = rig.said();
        assert!(
            ended.elapsed() < PATIENCE,
            "{missing} were not sent: {said}"
        );
        sleep(EVERY).await;
    };
    contestant.end(program);
    let waits = began.iter().map(|(id, began)| {
        let arrived = arrived.get(id).expect("each was sent");
        arrived.duration_since(*began).as_secs_f64() * 1_000.0
    });
    let mut waits: Vec<f64> = waits.collect();
    waits.sort_by(f64::total_cmp);
    let at = |share: usize| waits.get((waits.len() * share / 100).min(waits.len() - 1));
    Latency {
        median: *at(50).unwrap(),
        p99: *at(99).unwrap(),
        most: *waits.last().unwrap(),
    }
}
