//! Workers are restarted one after another, as every deployment does it, while mail flows.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::BasicProperties;
use tokio::time::{Instant, interval};

use super::limits::{assert_no_window_exceeded, below, limited, longest_gap, sends};
use super::worker::Worker;
use super::world::{World, ids, report};
use crate::support::broker;
use crate::support::producer::Producer;

const RESTARTS: u32 = 50;
/// What a worker sends before it is its turn.
const SENDS_BETWEEN: u64 = 60;
/// Some more than that, so that there is always something to send.
const COUNT: u32 = 3_500;
/// Of them stand there at the start.
const BACKLOG: usize = 500;
/// It judges each call by the same windows as the worker.
const SANDBOX: [&str; 8] = [
    "--limit",
    "100/1s",
    "--api-limit",
    "100/1s",
    "--latency",
    "20ms-80ms",
    "--results-after",
    "0s-1s",
];
/// The producer's steady pace, which is the limit's.
const PUBLISH_EVERY: Duration = Duration::from_millis(10);
const SEND_TIME_MAX: Duration = Duration::from_mins(3);
const REST_TIME_MAX: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_rolling_restarts_lose_and_double_nothing_and_keep_the_pace() {
    let began = Instant::now();
    let broker = broker::shared().await;
    let prefix = broker::prefix("rolling");
    let world = limited(World::on_broker(broker, &prefix, &SANDBOX).await)
        // Fifty take-overs, on a machine that may be short of time.
        .set("accounts.default.quota.send.limit", &below(90))
        .set("accounts.default.quota.api.limit", &below(90))
        .set("accounts.default.quota.api.window", "1s")
        .set("accounts.default.results", "all");
    let ids = ids("rolling", COUNT as usize);
    let workers = [world.worker().await, world.worker().await];
    let producer = Producer::to(broker).await;
    let (toll, ()) = tokio::join!(
        restart_in_turn(&world, workers),
        publish(&producer, &prefix, &ids)
    );

    world.assert_mailed(&ids).await;
    world.assert_at_rest_on(broker, 0).await;
    let most = assert_no_window_exceeded(&world.sandbox).await;
    let stats = world.sandbox.stats().await;
    assert_eq!(stats["duplicates"], 0, "every answer was heard: {stats}");
    let sends = sends(&world.sandbox).await;
    let took = sends.last().unwrap() - sends.first().unwrap();
    let due = f64::from(COUNT) / below(90).parse::<f64>().unwrap() * 1_000.0;
    let lost = (took - due) / f64::from(RESTARTS);
    let gap = longest_gap(&sends);
    report(
        "rolling restarts",
        began,
        &format!(
            "{COUNT} sends, {RESTARTS} restarts of the owner, {toll:?}; at most {most} in a window of \
             100; each restart cost {lost:.0} ms of sending, the longest pause {gap:.0} ms"
        ),
    );
}

/// What the stops took and left, all together.
#[derive(Debug, Default)]
struct Toll {
    longest: Duration,
    finished: u64,
    handed_back: u64,
}

/// The line moves on with each restart: it is always the owner's turn.
async fn restart_in_turn(world: &World, mut workers: [Worker; 2]) -> Toll {
    let mut toll = Toll::default();
    for restart in 0..RESTARTS {
        let mailed = SENDS_BETWEEN * (u64::from(restart) + 1);
        world.sandbox.until_mailed(mailed, SEND_TIME_MAX).await;
        let worker = &mut workers[restart as usize % 2];
        let from = Instant::now();
        worker.signal("-TERM").await;
        assert_eq!(worker.ended().await.code(), Some(0));
        toll.longest = toll.longest.max(from.elapsed());
        let log = worker.log();
        let errors: Vec<_> = log.iter().filter(|line| line["level"] != "INFO").collect();
        assert!(errors.is_empty(), "an orderly end is quiet: {errors:?}");
        let last = log.last().unwrap();
        assert_eq!(last["message"], "worker stopped in order");
        toll.finished += last["finished"].as_u64().unwrap();
        toll.handed_back += last["handed_back"].as_u64().unwrap();
        *worker = world.worker().await;
    }
    world
        .sandbox
        .until_mailed(COUNT.into(), SEND_TIME_MAX)
        .await;
    let [first, second] = workers;
    first.stop().await;
    second.finish(REST_TIME_MAX).await;
    toll
}

async fn publish(producer: &Producer, exchange: &str, ids: &BTreeSet<String>) {
    let mut pace = interval(PUBLISH_EVERY);
    for (number, id) in ids.iter().enumerate() {
        if number >= BACKLOG {
            pace.tick().await;
        } else {
            pace.reset();
        }
        let to = format!("ada{number}@example.com");
        let body = format!(r#"{{"emailId":7,"message":{{"to":"{to}","sendId":"{id}"}}}}"#);
        let properties = BasicProperties::default().with_delivery_mode(2);
        let published = producer.publish(exchange, "send", body.as_bytes(), properties);
        published.await;
    }
}
