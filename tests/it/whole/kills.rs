//! Workers and brokers are killed; nothing is lost and nothing is mailed twice.

use std::time::Duration;

use tokio::time::Instant;

use super::world::{World, ids, report};
use crate::support::broker::{self, Broker, Version};
use crate::support::on_each_rabbitmq;

on_each_rabbitmq! {
    tokio::test:
    a_worker_killed_ten_times_loses_and_doubles_nothing
    a_broker_killed_three_times_loses_and_doubles_nothing
}

/// Final results come soon, so that those of an early send are looked up among late sends.
const RESULTS_SOON: [&str; 2] = ["--results-after", "0s-1s"];
const SEND_TIME_MAX: Duration = Duration::from_mins(2);
/// The last retries wait for seconds, and a final result is looked up after two.
const REST_TIME_MAX: Duration = Duration::from_mins(1);

/// Of a hundred sends five are answered with a 5xx at first, of which two were mailed all the same,
/// and of two the answer is cut off after they were mailed.
pub fn troubled(number: usize) -> String {
    match number % 100 {
        10 | 30 | 50 => format!("ada{number}+5xxx1@example.com"),
        20 | 40 => format!("ada{number}+5xx-sentx1@example.com"),
        60 | 80 => format!("ada{number}+cutx1@example.com"),
        _ => format!("ada{number}@example.com"),
    }
}

async fn a_worker_killed_ten_times_loses_and_doubles_nothing(version: Version) {
    let broker = broker::shared_of(version).await;
    let prefix = broker::prefix("killed");
    let world = World::on_broker(broker, &prefix, &RESULTS_SOON).await;
    let world = world.set("accounts.default.results", "all");
    kill_workers(&world, 5_000, 10).await;
    world.assert_at_rest_on(broker, 0).await;
}

#[tokio::test]
async fn a_worker_killed_five_times_loses_and_doubles_nothing_on_sqlite() {
    let world = World::on_sqlite(&RESULTS_SOON).await;
    let world = world.set("accounts.default.results", "all");
    kill_workers(&world, 2_000, 5).await;
    world.assert_at_rest(0).await;
}

async fn kill_workers(world: &World, count: usize, kills: u64) {
    let began = Instant::now();
    let ids = ids("kill", count);
    let mut worker = world.worker().await;
    let kill = async {
        for kill in 1..=kills {
            let mailed = count as u64 * kill / (kills + 1);
            world.sandbox.until_mailed(mailed, SEND_TIME_MAX).await;
            worker.kill().await;
            worker = world.worker().await;
        }
        worker
    };
    let ((), worker) = tokio::join!(world.publish_to(&ids, troubled), kill);
    world
        .sandbox
        .until_mailed(count as u64, SEND_TIME_MAX)
        .await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    let stats = world.sandbox.stats().await;
    let cut = stats["cut"].as_u64().unwrap();
    assert!(cut >= count as u64 / 50, "2 % were cut: {stats}");
    report(
        "worker killed",
        began,
        &format!(
            "{count} sends, {kills} kills, {} calls, answers {}, {} cut, {} repeats that mailed nothing",
            stats["sendCalls"], stats["answers"], stats["cut"], stats["duplicates"]
        ),
    );
}

async fn a_broker_killed_three_times_loses_and_doubles_nothing(version: Version) {
    let began = Instant::now();
    let broker = Broker::start_of(version).await;
    let world = World::on_broker(&broker, "postrider", &["--latency", "20ms-60ms"]).await;
    let ids = ids("broker", 5_000);
    world.publish_backlog(&ids).await;
    let mut worker = world.worker().await;
    for mailed in [1_250, 2_500, 3_750] {
        world.sandbox.until_mailed(mailed, SEND_TIME_MAX).await;
        broker.kill().await;
        broker.boot().await;
    }
    world.sandbox.until_mailed(5_000, SEND_TIME_MAX).await;
    assert!(worker.is_running(), "the worker survives the broker");
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest_on(&broker, 0).await;
    let repeats = world.sandbox.count("duplicates").await;
    report(
        "broker killed",
        began,
        &format!("5000 sends, 3 kills, {repeats} repeats that mailed nothing"),
    );
}
