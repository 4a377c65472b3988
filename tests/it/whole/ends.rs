//! A worker that is told to end, in the middle of its work.

use std::time::Duration;

use tokio::time::Instant;

use super::world::{World, eventually, ids, report};
use crate::support::broker;

/// Calls that take long enough to be in flight when the signal comes.
const SLOW: [&str; 2] = ["--latency", "1s-2s"];
const REST_TIME_MAX: Duration = Duration::from_mins(1);

#[tokio::test]
async fn sigterm_under_load_loses_and_doubles_nothing_on_rabbitmq() {
    let broker = broker::shared().await;
    let prefix = broker::prefix("ended");
    let world = World::on_broker(broker, &prefix, &SLOW).await;
    end_under_load(&world).await;
    world.assert_at_rest_on(broker, 0).await;
}

#[tokio::test]
async fn sigterm_under_load_loses_and_doubles_nothing_on_sqlite() {
    let world = World::on_sqlite(&SLOW).await;
    end_under_load(&world).await;
    world.assert_at_rest(0).await;
}

async fn end_under_load(world: &World) {
    let began = Instant::now();
    let ids = ids("ended", 200);
    world.publish_backlog(&ids).await;
    let mut worker = world.worker().await;
    world.sandbox.until_mailed(50, REST_TIME_MAX).await;
    let told = Instant::now();
    worker.signal("-TERM").await;
    // Before anything else: while its calls are still in flight, it answers that it is not ready.
    let refuses = async || worker.ready().await == Some(503);
    eventually(Duration::from_secs(10), "it is not ready any more", refuses).await;
    assert_eq!(worker.ended().await.code(), Some(0), "it ends in order");
    let took = told.elapsed();
    let mailed = world.sandbox.count("mails").await;
    assert!(mailed < 200, "it ended in the middle");
    assert_eq!(
        world.sandbox.count("sendCalls").await,
        mailed,
        "every call that it began has been heard"
    );

    let worker = world.worker().await;
    world.sandbox.until_mailed(200, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    // Nothing in its hands was lost, so nothing was tried twice.
    assert_eq!(world.sandbox.count("duplicates").await, 0);
    let figures = format!("200 sends, ended after {mailed} within {took:.1?}");
    report("SIGTERM", began, &figures);
}
