//! From a publish to the call, when nothing waits.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{Instant, sleep};

use crate::backlog::Published;
use crate::run::{Contestant, Rig};

/// One request in each.
const EVERY: Duration = Duration::from_millis(100);
/// Connections, caches, the lease.
const WARM_UP: u64 = 20;
/// For the last calls to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it took, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// From the moment when the publish began until the call came in.
    pub whole: Spread,
    /// The publish alone, until it was confirmed: on SQLite a flush of the disk.
    pub publish: Spread,
    /// From its confirm until the call came in, which is sooner now and then.
    pub after: Spread,
}

#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    pub p99: f64,
    pub most: f64,
}

/// Publishes ten requests a second for so long, to a contestant that has nothing else to do.
pub async fn latency(rig: &Rig<'_>, contestant: Contestant, seconds: u64) -> Latency {
    let requests = seconds * 10;
    let program = rig.start(contestant, WARM_UP + requests).await;
    rig.backlog.trickle(WARM_UP, EVERY).await;
    let published = rig.backlog.trickle(requests, EVERY).await;
    let ended = Instant::now();
    let arrived = loop {
        // The last to warm up may arrive behind the first that counts.
        let arrived = rig.sandbox.arrivals(WARM_UP + requests).await;
        let missing = published.keys().filter(|id| !arrived.contains_key(*id));
        let missing = missing.count();
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
    let times = published
        .iter()
        .map(|(id, Published { began, confirmed })| {
            let arrived = arrived.get(id).expect("each was sent");
            (*began, *confirmed, *arrived)
        });
    Latency {
        whole: Spread::of(
            times
                .clone()
                .map(|(began, _, arrived)| arrived.duration_since(began)),
        ),
        publish: Spread::of(
            times
                .clone()
                .map(|(began, confirmed, _)| confirmed.duration_since(began)),
        ),
        after: Spread::of(times.map(|(_, confirmed, arrived)| arrived.duration_since(confirmed))),
    }
}

impl Spread {
    fn of(times: impl Iterator<Item = SignedDuration>) -> Self {
        let mut times: Vec<f64> = times.map(|time| time.as_secs_f64() * 1_000.0).collect();
        times.sort_by(f64::total_cmp);
        let at = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1));
        Self {
            median: *at(50).unwrap(),
            p99: *at(99).unwrap(),
            most: *times.last().unwrap(),
        }
    }
}
