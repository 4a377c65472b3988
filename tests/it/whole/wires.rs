//! The network between a worker and its broker, and between a worker and HubSpot.

use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::limits::{LIMITED, OWNS, assert_no_window_exceeded, assert_window_kept, limited_below};
use super::world::{World, eventually, ids, report};
use crate::support::broker::{self, Broker};
use crate::support::proxy::{Faults, Proxy};

const REST_TIME_MAX: Duration = Duration::from_mins(2);
const CONNECTION_LOST: &str = "queue connection lost; nothing is lost meanwhile";
const CONNECTION_BACK: &str = "queue connection is back";
/// What a worker asks for at the broker (`HEARTBEAT` in `queue/amqp/link`), and the broker grants.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// From the last question that the broker answered: two heartbeats less two seconds (`VALID_FOR` in
/// `queue/amqp/lease`). It is asked once a second.
const LEASE: Duration = Duration::from_secs(8);
/// On top of what is promised, for a machine that others need too.
const BUSY: Duration = Duration::from_secs(1);

// === to the broker ===

#[tokio::test]
async fn a_wire_to_the_broker_that_swallows_one_way_loses_and_doubles_nothing() {
    let began = Instant::now();
    let broker = broker::shared().await;
    for (subject, faults) in [
        (
            "there",
            Faults {
                swallows_there: true,
                ..Faults::default()
            },
        ),
        (
            "back",
            Faults {
                swallows_back: true,
                ..Faults::default()
            },
        ),
    ] {
        let (world, wire) = wired(broker, subject).await;
        let ids = ids(subject, 500);
        world.publish_backlog(&ids).await;
        let worker = world.worker().await;
        world.sandbox.until_mailed(150, REST_TIME_MAX).await;
        wire.set(faults);
        worker.until_said(CONNECTION_LOST).await;
        wire.set(Faults::default());
        world.sandbox.until_mailed(500, REST_TIME_MAX).await;
        worker.finish(REST_TIME_MAX).await;
        world.assert_mailed(&ids).await;
        world.assert_at_rest_on(broker, 0).await;
        let most = assert_no_window_exceeded(&world.sandbox).await;
        let repeats = world.sandbox.count("duplicates").await;
        let figures = format!(
            "500 sends, swallowed on the way {subject}, at most {most} in a window of 100, {repeats} \
             repeats that mailed nothing"
        );
        report("broker black-holed", began, &figures);
    }
}

#[tokio::test]
async fn a_slow_wire_to_the_broker_that_is_reset_again_and_again_loses_and_doubles_nothing() {
    let began = Instant::now();
    let broker = broker::shared().await;
    let (world, wire) = wired(broker, "slow").await;
    let ids = ids("slow", 600);
    world.publish_backlog(&ids).await;
    let worker = world.worker().await;
    wire.set(Faults {
        delay: Duration::from_millis(5),
        bytes_per_s: Some(200_000),
        ..Faults::default()
    });
    for mailed in [100, 200, 300, 400, 500] {
        world.sandbox.until_mailed(mailed, REST_TIME_MAX).await;
        wire.reset();
    }
    world.sandbox.until_mailed(600, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest_on(broker, 0).await;
    let most = assert_no_window_exceeded(&world.sandbox).await;
    let repeats = world.sandbox.count("duplicates").await;
    let figures = format!(
        "600 sends, 5 resets on a slow wire, at most {most} in a window of 100, {repeats} repeats \
         that mailed nothing"
    );
    report("broker reset", began, &figures);
}

/// Nobody tells either end: the owner still reaches HubSpot, and has enough in hand to go on.
#[tokio::test]
async fn an_owner_cut_off_from_the_broker_is_silent_before_the_one_that_stands_by_owns() {
    let began = Instant::now();
    let broker = broker::shared().await;
    let prefix = broker::prefix("parted");
    let judge = ["--limit", "60/3s", LIMITED[2], LIMITED[3]];
    let world = World::on_broker(broker, &prefix, &judge).await;
    let to_broker = Proxy::to(broker.port()).await;
    let to_hubspot = Proxy::to(world.sandbox.port()).await;
    let base = world.sandbox.base().to_owned();
    let world = world
        .set("accounts.default.quota.send.limit", "50")
        .set("accounts.default.quota.send.window", "3s")
        // Four for each call are at hand, and a lease lasts for 133.
        .set("accounts.default.concurrency", "64")
        .set("queue.url", broker::url(to_broker.port()).expose_secret());
    let world = at_hubspot(world, to_hubspot.port());
    let first = world.worker().await;
    first.until_said(OWNS).await;
    let world = world
        .set("queue.url", broker.url().expose_secret())
        .set("accounts.default.base_url", &base);
    let second = world.worker().await;
    let ids = ids("parted", 200);
    world.publish(&ids).await;
    world.sandbox.until_mailed(20, REST_TIME_MAX).await;
    to_broker.set(Faults {
        swallows_there: true,
        swallows_back: true,
        ..Faults::default()
    });
    let parted = Instant::now();
    assert!(!second.has_said(OWNS), "there is one owner");
    second.until_said(OWNS).await;
    let taken_over = parted.elapsed();
    world.sandbox.until_mailed(200, REST_TIME_MAX).await;
    to_broker.set(Faults::default());
    first.until_said(CONNECTION_BACK).await;
    first.stop().await;
    second.finish(REST_TIME_MAX).await;

    world.assert_mailed(&ids).await;
    world.assert_at_rest_on(broker, 0).await;
    let most = assert_window_kept(&world.sandbox, 60, 3_000.0).await;
    let last = to_hubspot.last_there().unwrap() - parted;
    let repeats = world.sandbox.count("duplicates").await;
    let figures = format!(
        "200 sends, silent after {last:.1?}, taken over after {taken_over:.1?}, at most {most} in a \
         window of 60, {repeats} repeats that mailed nothing"
    );
    report("owner cut off", began, &figures);
    assert!(last <= LEASE + BUSY, "{last:?}: it sent without a lease");
    let asked = Duration::from_secs(1);
    assert!(
        last + asked + BUSY >= LEASE,
        "{last:?}: nothing was left to it when its lease ended"
    );
    assert!(
        taken_over <= 3 * HEARTBEAT + BUSY,
        "{taken_over:?} until the other one owned"
    );
}

/// Everything that is ours reaches the broker over the wire.
async fn wired(broker: &Broker, subject: &str) -> (World, Proxy) {
    let wire = Proxy::to(broker.port()).await;
    let prefix = broker::prefix(subject);
    let world = limited_below(World::on_broker(broker, &prefix, &LIMITED).await);
    let url = broker::url(wire.port());
    (world.set("queue.url", url.expose_secret()), wire)
}

// === to HubSpot ===

#[tokio::test]
async fn a_call_without_an_answer_is_made_again_under_its_id_and_kills_nothing() {
    let began = Instant::now();
    let world = World::on_sqlite(&["--latency", "10ms-30ms"]).await;
    let wire = Proxy::to(world.sandbox.port()).await;
    let world = to_hubspot_over(world, wire.port());
    let ids = ids("hole", 1_000);
    world.publish_backlog(&ids).await;
    let worker = world.worker().await;
    // Mailed, and the answer lost; then not even asked.
    for (mailed, back, there) in [(200, true, false), (500, true, true)] {
        world.sandbox.until_mailed(mailed, REST_TIME_MAX).await;
        wire.set(Faults {
            swallows_back: back,
            swallows_there: there,
            ..Faults::default()
        });
        let before = unknown(&world, &worker.address()).await;
        let more = async || unknown(&world, &worker.address()).await > before;
        eventually(REST_TIME_MAX, "a call got no answer", more).await;
        wire.set(Faults::default());
        wire.cut();
    }
    world.sandbox.until_mailed(1_000, REST_TIME_MAX).await;
    let unknown = unknown(&world, &worker.address()).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest(0).await;
    let repeats = world.sandbox.count("duplicates").await;
    assert!(repeats > 0, "an unknown one is asked for again");
    let figures = format!(
        "1000 sends, {unknown} calls without an answer, {repeats} of them mailed before, none twice"
    );
    report("HubSpot black-holed", began, &figures);
}

#[tokio::test]
async fn while_hubspot_is_not_reached_the_account_rests_and_no_request_pays() {
    let began = Instant::now();
    let world = World::on_sqlite(&["--latency", "10ms-30ms"]).await;
    let port = Proxy::free_port().await;
    let wire = Proxy::at(port, world.sandbox.port()).await;
    // Nobody has an attempt to spare.
    let world = to_hubspot_over(world, port).set("retry.max_attempts", "3");
    let ids = ids("away", 600);
    world.publish_backlog(&ids).await;
    let worker = world.worker().await;
    world.sandbox.until_mailed(100, REST_TIME_MAX).await;
    drop(wire);
    let address = worker.address();
    let rests = async || {
        let told = world.told(&["queue", "--json", "--worker", &address]).await;
        told.contains(r#""outage""#)
    };
    eventually(REST_TIME_MAX, "the account rests: outage", rests).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(rests().await, "it rests as long as HubSpot is away");
    let _wire = Proxy::at(port, world.sandbox.port()).await;
    world.sandbox.until_mailed(600, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest(0).await;
    report(
        "HubSpot away",
        began,
        "600 sends, 15 s away, 3 attempts each, none dead",
    );
}

fn to_hubspot_over(world: World, port: u16) -> World {
    at_hubspot(world, port)
        .set("accounts.default.timeout", "2s")
        .set("retry.initial", "200ms")
}

fn at_hubspot(world: World, port: u16) -> World {
    let base = format!("http://127.0.0.1:{port}");
    world.set("accounts.default.base_url", &base)
}

/// How many calls got no answer, by the worker's own count.
async fn unknown(world: &World, address: &str) -> u64 {
    let line = r#"postrider_attempts_total{account="default",outcome="unknown"} "#;
    world.sandbox.metric(address, line).await
}
