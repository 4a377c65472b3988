//! Dead letters replayed by a command that is killed in the middle, and run again.

use std::time::Duration;

use tokio::time::Instant;

use super::world::{World, eventually, ids, report};
use crate::support::broker;
use crate::support::producer::Producer;

const COUNT: usize = 2_000;
const REST_TIME_MAX: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_replay_killed_in_the_middle_loses_and_doubles_nothing() {
    let began = Instant::now();
    let broker = broker::shared().await;
    let prefix = broker::prefix("replay");
    let world = World::on_broker(broker, &prefix, &["--faults", "http400=1"]).await;
    let ids = ids("replay", COUNT);
    let worker = world.worker().await;
    world.publish(&ids).await;
    let client = Producer::to(broker).await;
    let dead = format!("{prefix}.dead");
    let all = async || client.depth(&dead).await == COUNT as u64;
    eventually(REST_TIME_MAX, "all are dead letters", all).await;
    assert_eq!(world.sandbox.count("mails").await, 0);

    // HubSpot would take them now. No worker runs: what is replayed can be counted.
    worker.stop().await;
    world.sandbox.tell("faults", "").await;
    let mut replay = world
        .command(&["dead", "replay", "--all", "--yes"])
        .spawn()
        .unwrap();
    let lane = format!("{prefix}.send.default.normal");
    let some = async || client.depth(&lane).await >= COUNT as u64 / 4;
    eventually(REST_TIME_MAX, "a quarter is replayed", some).await;
    replay.start_kill().unwrap();
    let killed = replay.wait().await.unwrap();
    assert_eq!(killed.code(), None, "it was killed before its end");
    // What it had in hand is back when the broker has seen that it is gone.
    let all = async || client.depth(&dead).await + client.depth(&lane).await >= COUNT as u64;
    eventually(REST_TIME_MAX, "its letters are back", all).await;
    let replayed = client.depth(&lane).await;
    world.told(&["dead", "replay", "--all", "--yes"]).await;
    let worker = world.worker().await;

    world
        .sandbox
        .until_mailed(COUNT as u64, REST_TIME_MAX)
        .await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest_on(broker, 0).await;
    let repeats = world.sandbox.count("duplicates").await;
    let figures =
        format!("{COUNT} letters, killed after {replayed}, {repeats} repeats that mailed nothing");
    report("replay killed", began, &figures);
}
