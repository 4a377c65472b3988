//! A worker that is told to end, in the middle of its work.

use std::time::Duration;

use tokio::time::Instant;

use super::limits::OWNS;
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

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_tells_what_it_left() {
    let began = Instant::now();
    let world = World::on_sqlite(&["--latency", "4s-5s"]).await;
    let ids = ids("twice", 60);
    world.publish_backlog(&ids).await;
    let mut worker = world.worker().await;
    until_called(&world, 10).await;
    worker.signal("-TERM").await;
    let refuses = async || worker.ready().await == Some(503);
    eventually(REST_TIME_MAX, "it is not ready any more", refuses).await;
    worker.signal("-TERM").await;
    assert_eq!(worker.ended().await.code(), Some(130));
    let log = worker.log();
    let last = log.last().unwrap();
    let message = last["message"].as_str().unwrap();
    assert!(message.starts_with("stopped at once; "), "{last}");
    let unanswered = last["unanswered"].as_u64().unwrap();
    assert!(unanswered > 0, "{last}");

    let worker = world.worker().await;
    world.sandbox.until_mailed(60, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest(0).await;
    let figures = format!("60 sends, {unanswered} calls left, none mailed twice");
    report("SIGTERM twice", began, &figures);
}

#[tokio::test]
async fn the_next_worker_does_not_wait_for_the_last_answers() {
    let began = Instant::now();
    let broker = broker::shared().await;
    let prefix = broker::prefix("handover");
    let world = World::on_broker(broker, &prefix, &["--latency", "10s-11s"]).await;
    let ids = ids("handover", 60);
    let mut first = world.worker().await;
    first.until_said(OWNS).await;
    let second = world.worker().await;
    world.publish(&ids).await;
    until_called(&world, 32).await;
    first.signal("-TERM").await;
    assert_eq!(first.ended().await.code(), Some(0));
    let log = first.log();
    let last = log.last().unwrap();
    assert_eq!(
        (&last["finished"], &last["unanswered"]),
        (&32.into(), &0.into())
    );
    assert_eq!(last["handed_back"], 28, "{last}");
    let owned_at = second.said_at(OWNS).expect("it has taken over");
    let ended_at = first.said_at("worker stopped in order").unwrap();
    assert!(owned_at < ended_at, "{owned_at} and {ended_at}");

    world.sandbox.until_mailed(60, REST_TIME_MAX).await;
    second.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest_on(broker, 0).await;
    assert_eq!(world.sandbox.count("duplicates").await, 0);
    report(
        "hand-over",
        began,
        "60 sends, taken over in the middle of 32 calls of 10 s",
    );
}

/// Waits until so many calls are under way or over.
async fn until_called(world: &World, calls: u64) {
    let called = async || world.sandbox.count("sendCalls").await >= calls;
    eventually(REST_TIME_MAX, &format!("{calls} calls are made"), called).await;
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
