//! Urgent mail, published one by one while a backlog of `low` drains at the limit.
//!
//! `POSTRIDER_TEST_BACKLOG=500000` makes the backlog that long, and publishes ten times as many
//! urgent requests. The backlog is not drained then: that takes hours.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use postrider::clock::Clock;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::limits::limited;
use super::world::{World, eventually, report, within};
use crate::support::broker;

/// The backlog, unless `POSTRIDER_TEST_BACKLOG` says otherwise.
const BACKLOG: usize = 3_000;
/// Between two urgent requests: one in ten calls is theirs.
const PACE: Duration = Duration::from_millis(100);
const URGENT: usize = 100;
/// Without a limit of its own: what it takes decides nothing here.
const SANDBOX: [&str; 2] = ["--latency", "20ms-80ms"];
/// What the issue promises, from publish to accepted.
const P99_MAX: SignedDuration = SignedDuration::from_secs(1);

#[tokio::test]
async fn urgent_mail_overtakes_a_backlog_on_rabbitmq() {
    let broker = broker::shared().await;
    let prefix = broker::prefix("urgent");
    let world = World::on_broker(broker, &prefix, &SANDBOX).await;
    urgent_mail_overtakes_a_backlog("rabbitmq", world).await;
}

#[tokio::test]
async fn urgent_mail_overtakes_a_backlog_on_sqlite() {
    let world = World::on_sqlite(&SANDBOX).await;
    urgent_mail_overtakes_a_backlog("sqlite", world).await;
}

async fn urgent_mail_overtakes_a_backlog(queue: &str, world: World) {
    let backlog = backlog();
    let urgent = if backlog > BACKLOG {
        10 * URGENT
    } else {
        URGENT
    };
    let world = limited(world);
    let filled = Instant::now();
    publish_low(&world, backlog).await;
    let filling = filled.elapsed();

    let began = Instant::now();
    let worker = world.worker().await;
    world
        .sandbox
        .until_mailed(100, Duration::from_mins(1))
        .await;
    let before = world.sandbox.count("mails").await;
    let from = Instant::now();
    let published = publish_urgent(&world, urgent).await;
    let sent = async || accepted(&worker.metrics().await, "+Inf") == urgent as u64;
    eventually(Duration::from_mins(1), "all urgent mail is accepted", sent).await;
    let low = world.sandbox.count("mails").await - before - urgent as u64;
    let rate = u128::from(low) * 1_000 / from.elapsed().as_millis();
    let metrics = worker.metrics().await;
    worker.stop().await;

    let mut arrived = BTreeMap::new();
    let told = async || {
        arrived = arrivals(&world).await;
        arrived.len() == urgent
    };
    eventually(Duration::from_secs(20), "their results are final", told).await;
    let mut waits: Vec<SignedDuration> = published
        .iter()
        .map(|(id, at)| arrived[id].duration_since(*at))
        .collect();
    waits.sort_unstable();
    let of = |share: usize| waits[(waits.len() * share).div_ceil(100) - 1];
    let figures = format!(
        "{urgent} high beside {backlog} low (filled in {:.0} s) at 100 a second: from publish to \
         HubSpot's door p50 {:?}, p99 {:?}, at most {:?}; low went on with {rate} a second; \
         the worker had {:.0} MiB",
        filling.as_secs_f64(),
        of(50),
        of(99),
        of(100),
        resident(&metrics) / 1_048_576.0,
    );
    report(&format!("urgent mail on {queue}"), began, &figures);

    assert!(of(99) < P99_MAX, "{figures}");
    // The worker's own histogram tells it from the publish to the answer.
    let soon = accepted(&metrics, "1");
    assert!(
        soon * 100 >= urgent as u64 * 99,
        "{soon} of {urgent} within 1 s"
    );
    assert!(rate > 50, "low goes on: {figures}");
    let stats = world.sandbox.stats().await;
    assert_eq!(stats["mails"], stats["sendIdsMailed"], "{stats}");
    let mailed = stats["mails"].as_u64().unwrap();
    let all = async || standing(&world).await + mailed == (backlog + urgent) as u64;
    eventually(
        Duration::from_secs(20),
        "the others stand in the queue",
        all,
    )
    .await;
}

fn backlog() -> usize {
    let set = std::env::var_os("POSTRIDER_TEST_BACKLOG");
    set.map_or(BACKLOG, |count| count.to_str().unwrap().parse().unwrap())
}

fn request(id: &str, priority: &str) -> String {
    format!(
        r#"{{"emailId":4126643121,"message":{{"to":"ada@example.com","sendId":"{id}"}},"dispatch":{{"priority":"{priority}"}}}}"#
    ) + "\n"
}

/// While no worker runs, once one has declared the queues.
async fn publish_low(world: &World, count: usize) {
    world.worker().await.stop().await;
    let mut lines = String::new();
    for number in 0..count {
        lines += &request(&format!("low-{number}"), "low");
    }
    let sent = world.send(&lines);
    let sent = within(Duration::from_hours(1), "the backlog is published", sent).await;
    assert!(
        sent.status.success(),
        "{}",
        String::from_utf8_lossy(&sent.stderr)
    );
}

/// Publishes so many, one at a time, by one `postrider send`. Tells when each of them was written to
/// it, which is somewhat before it was published.
async fn publish_urgent(world: &World, count: usize) -> BTreeMap<String, Timestamp> {
    let mut command = world.command(&["send", "-"]);
    let mut send = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = send.stdin.take().unwrap();
    let mut published = BTreeMap::new();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0..count {
        pace.tick().await;
        let id = format!("high-{number}");
        published.insert(id.clone(), Clock::system().now());
        stdin
            .write_all(request(&id, "high").as_bytes())
            .await
            .unwrap();
    }
    drop(stdin);
    let ended = within(Duration::from_mins(1), "send ends", send.wait_with_output()).await;
    assert!(ended.unwrap().status.success());
    published
}

/// When each urgent request arrived at the sandbox.
async fn arrivals(world: &World) -> BTreeMap<String, Timestamp> {
    let mails = world.sandbox.letters().await;
    let urgent = mails.iter().filter_map(|mail| {
        let id = mail["sendId"]
            .as_str()
            .filter(|id| id.starts_with("high-"))?;
        let at = mail["requestedAt"].as_str()?.parse().unwrap();
        Some((id.to_owned(), at))
    });
    urgent.collect()
}

/// How many messages stand anywhere in the queue.
async fn standing(world: &World) -> u64 {
    let told: Value = serde_json::from_str(&world.told(&["queue", "--json"]).await).unwrap();
    let depths = told["depths"].as_array().unwrap().iter();
    depths
        .map(|depth| depth["messages"].as_u64().unwrap())
        .sum()
}

/// How many urgent requests were accepted within so many seconds.
fn accepted(metrics: &str, seconds: &str) -> u64 {
    let labels = format!(r#"{{account="default",priority="high",le="{seconds}"}} "#);
    let name = "postrider_dispatch_latency_seconds_bucket";
    value(metrics, &(name.to_owned() + &labels)).map_or(0, |count| count.parse().unwrap())
}

/// The worker's memory, in bytes.
fn resident(metrics: &str) -> f64 {
    let bytes = value(metrics, "process_resident_memory_bytes ");
    bytes.map_or(0.0, |bytes| bytes.parse().unwrap())
}

fn value<'a>(metrics: &'a str, series: &str) -> Option<&'a str> {
    metrics.lines().find_map(|line| line.strip_prefix(series))
}
