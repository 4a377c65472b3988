//! A process that hangs for longer than anybody waits for it, and then goes on as if nothing had
//! been.

use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::limits::{LIMITED, OWNS, assert_no_window_exceeded, limited_below};
use super::world::{World, ids, report};
use crate::support::broker::{self, Broker};

const REST_TIME_MAX: Duration = Duration::from_mins(2);
const CONNECTION_LOST: &str = "queue connection lost; nothing is lost meanwhile";
const CONNECTION_BACK: &str = "queue connection is back";

#[tokio::test]
async fn a_frozen_owner_is_replaced_and_stands_by_when_it_thaws() {
    let began = Instant::now();
    let broker = broker::shared().await;
    let prefix = broker::prefix("frozen");
    let world = limited_below(World::on_broker(broker, &prefix, &LIMITED).await);
    let ids = ids("frozen", 1_000);
    let first = world.worker().await;
    first.until_said(OWNS).await;
    let second = world.worker().await;
    world.publish(&ids).await;
    world.sandbox.until_mailed(200, REST_TIME_MAX).await;
    first.signal("-STOP").await;
    let frozen = Instant::now();
    second.until_said(OWNS).await;
    let taken_over = frozen.elapsed();
    world.sandbox.until_mailed(500, REST_TIME_MAX).await;
    // It goes on in the middle of its work, and of that of the other.
    first.signal("-CONT").await;
    first.until_said(CONNECTION_BACK).await;
    world.sandbox.until_mailed(1_000, REST_TIME_MAX).await;
    first.stop().await;
    second.finish(REST_TIME_MAX).await;

    world.assert_mailed(&ids).await;
    world.assert_at_rest_on(broker, 0).await;
    let most = assert_no_window_exceeded(&world.sandbox).await;
    let repeats = world.sandbox.count("duplicates").await;
    let figures = format!(
        "1000 sends, taken over after {taken_over:.1?}, at most {most} in a window of 100, \
         {repeats} repeats that mailed nothing"
    );
    report("worker frozen", began, &figures);
}

#[tokio::test]
async fn a_frozen_worker_on_sqlite_keeps_its_file_and_goes_on() {
    let began = Instant::now();
    let world = limited_below(World::on_sqlite(&LIMITED).await);
    // Those in flight run out while it hangs.
    let world = world.set("accounts.default.timeout", "2s");
    let ids = ids("frozen", 600);
    world.publish_backlog(&ids).await;
    let worker = world.worker().await;
    world.sandbox.until_mailed(200, REST_TIME_MAX).await;
    worker.signal("-STOP").await;
    let second = world.run(&["worker"]).await;
    assert_eq!(second.status.code(), Some(69));
    let told = String::from_utf8_lossy(&second.stderr);
    assert!(told.contains("in use by another worker"), "{told}");
    sleep(Duration::from_secs(5)).await;
    worker.signal("-CONT").await;
    world.sandbox.until_mailed(600, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;

    world.assert_mailed(&ids).await;
    world.assert_at_rest(0).await;
    let most = assert_no_window_exceeded(&world.sandbox).await;
    let repeats = world.sandbox.count("duplicates").await;
    let figures = format!(
        "600 sends on SQLite, at most {most} in a window of 100, {repeats} repeats that mailed nothing"
    );
    report("worker frozen", began, &figures);
}

#[tokio::test]
async fn a_frozen_broker_costs_time_and_nothing_else() {
    let began = Instant::now();
    let broker = Broker::start().await;
    let world = limited_below(World::on_broker(&broker, "postrider", &LIMITED).await);
    let ids = ids("thawed", 800);
    world.publish_backlog(&ids).await;
    let mut worker = world.worker().await;
    world.sandbox.until_mailed(200, REST_TIME_MAX).await;
    let pid = broker.ctl(&["eval", "os:getpid()."]).await;
    let pid = pid.trim().trim_matches('"');
    signal("-STOP", pid).await;
    let frozen = Instant::now();
    worker.until_said(CONNECTION_LOST).await;
    let noticed = frozen.elapsed();
    signal("-CONT", pid).await;
    worker.until_said(CONNECTION_BACK).await;
    world.sandbox.until_mailed(800, REST_TIME_MAX).await;
    assert!(worker.is_running());
    worker.finish(REST_TIME_MAX).await;

    world.assert_mailed(&ids).await;
    world.assert_at_rest_on(&broker, 0).await;
    let most = assert_no_window_exceeded(&world.sandbox).await;
    let repeats = world.sandbox.count("duplicates").await;
    let figures = format!(
        "800 sends, noticed after {noticed:.1?}, at most {most} in a window of 100, {repeats} repeats \
         that mailed nothing"
    );
    report("broker frozen", began, &figures);
}

async fn signal(signal: &str, pid: &str) {
    let sent = Command::new("kill").args([signal, pid]).status().await;
    assert!(sent.unwrap().success(), "kill {signal} {pid}");
}
