//! A broker that is short of memory or disk: it takes no publish from anybody until that is over.

use std::time::Duration;

use tokio::time::Instant;

use super::limits::{OWNS, limited};
use super::world::{World, eventually, ids, report};
use crate::support::broker::Broker;

const REST_TIME_MAX: Duration = Duration::from_mins(2);
/// The confirm's 30 s, and a busy machine.
const SEND_TIME_MAX: Duration = Duration::from_mins(1);
/// More than any machine has, in bytes.
const NEVER: &str = "1000000000000000";
const TAKES_NOTHING: &str = "the broker takes nothing for now; nothing is lost meanwhile";

#[tokio::test]
async fn during_a_memory_alarm_what_needs_no_publish_goes_on_and_send_says_why_it_fails() {
    let began = Instant::now();
    let broker = Broker::start().await;
    let world = limited(World::on_broker(&broker, "postrider", &["--latency", "20ms-80ms"]).await);
    let mut all = ids("alarm", 400);
    world.publish_backlog(&all).await;
    let worker = world.worker().await;
    world.sandbox.until_mailed(50, REST_TIME_MAX).await;
    broker.ctl(&["set_vm_memory_high_watermark", "0"]).await;
    let late = ids("late", 1);
    let asked = Instant::now();
    let sent = world.sent(&late, |_| "ada@example.com".into()).await;
    let told = String::from_utf8_lossy(&sent.stderr);
    assert_eq!(sent.status.code(), Some(69), "{told}");
    for word in [
        "takes nothing for now: low on memory",
        "hint: ",
        "late-00000 is not confirmed",
    ] {
        assert!(told.contains(word), "`{word}` is not in: {told}");
    }
    assert!(asked.elapsed() < SEND_TIME_MAX, "{:?}", asked.elapsed());
    let told_after = asked.elapsed();
    // Accepted and acknowledged during the alarm.
    world.sandbox.until_mailed(400, REST_TIME_MAX).await;
    broker.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    world.publish(&late).await;
    all.extend(late);
    world.sandbox.until_mailed(401, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&all).await;
    world.assert_at_rest_on(&broker, 0).await;
    let figures = format!("401 sends; `send` told it after {told_after:.1?}");
    report("memory alarm", began, &figures);
}

#[tokio::test]
async fn a_worker_told_to_end_during_a_disk_alarm_is_over_in_time_and_loses_nothing() {
    let began = Instant::now();
    let broker = Broker::start().await;
    let world = World::on_broker(&broker, "postrider", &["--latency", "20ms-80ms"]).await;
    let world = world.set("server.stop_timeout", "12s");
    let ids = ids("stuck", 200);
    // Of ten one is refused at first, and has to be published again, to wait for its next try.
    let worker = world.worker().await;
    worker.until_said(OWNS).await;
    worker.stop().await;
    let trouble = |n: usize| if n % 10 == 9 { "+5xxx1" } else { "" };
    let recipient = |n| format!("ada{n}{}@example.com", trouble(n));
    world.publish_to(&ids, recipient).await;
    broker.ctl(&["set_disk_free_limit", NEVER]).await;
    let mut worker = world.worker().await;
    worker.until_said(TAKES_NOTHING).await;
    // All have been asked for once, and what followed for some has nowhere to go.
    let asked_for = async || world.sandbox.count("sendCalls").await >= 200;
    eventually(REST_TIME_MAX, "all are asked for", asked_for).await;
    let asked = Instant::now();
    worker.signal("-TERM").await;
    assert_eq!(worker.ended().await.code(), Some(0));
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(16), "it ended after {took:?}");
    let log = worker.log();
    let last = log.last().unwrap();
    assert_eq!(last["message"], "worker stopped, and left calls in flight");
    let unsettled = last["unsettled"].as_u64().unwrap();
    assert!(unsettled > 0, "{last}");
    broker.ctl(&["set_disk_free_limit", "50MB"]).await;
    let worker = world.worker().await;
    world.sandbox.until_mailed(200, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest_on(&broker, 0).await;
    let figures =
        format!("200 sends; a stop of 12 s took {took:.1?} and left {unsettled} unsettled");
    report("disk alarm", began, &figures);
}
