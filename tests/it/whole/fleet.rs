//! Many accounts over several workers: spread evenly, and anew when a worker joins or is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use lapin::BasicProperties;
use serde_json::Value;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::limits::OWNS;
use super::worker::Worker;
use super::world::{World, report};
use crate::support::broker::Broker;
use crate::support::producer::Producer;

const ACCOUNTS: usize = 50;
/// The sandbox judges each account by a window of its own, and of a longer one than the worker's:
/// on a machine that is short of time, calls may come closer together than they left.
const SANDBOX: [&str; 4] = ["--limit", "6/2s", "--latency", "20ms-80ms"];
const ALLOWED: u64 = 6;
const LIMIT: &str = "4";
/// The producer's pace, for each account: the worker's limit.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);
const SPREAD_TIME_MAX: Duration = Duration::from_mins(1);
const REST_TIME_MAX: Duration = Duration::from_mins(2);
/// In which balanced workers are looked at: longer than they take to notice one that joins.
const STEADY_TIME: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
const HANDS_ON: &str = "handing the account on to another worker";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_accounts_are_spread_over_three_workers_and_anew_when_one_dies_or_comes() {
    let began = Instant::now();
    let broker = Broker::start().await;
    let world = with_accounts(World::on_broker(&broker, "postrider", &SANDBOX).await);
    let mut logs = Vec::new();
    let first = world.worker().await;
    spread(&[&first], &[50]).await;
    let done = CancellationToken::new();
    let publishing = tokio::spawn(publish(Producer::to(&broker).await, done.clone()));

    let second = world.worker().await;
    let third = world.worker().await;
    let joined = spread(&[&first, &second, &third], &[16, 17, 17]).await;
    steady(&[&first, &second, &third]).await;

    logs.extend(third.log());
    third.kill().await;
    let taken_over = spread(&[&first, &second], &[25, 25]).await;
    let third = world.worker().await;
    let joined_again = spread(&[&first, &second, &third], &[16, 17, 17]).await;
    steady(&[&first, &second, &third]).await;

    let leaving = Instant::now();
    logs.extend(first.log());
    first.stop().await;
    spread(&[&second, &third], &[25, 25]).await;
    let left = leaving.elapsed();
    done.cancel();
    let ids = publishing.await.unwrap();
    world
        .sandbox
        .until_mailed(ids.len() as u64, REST_TIME_MAX)
        .await;
    third.until_idle(REST_TIME_MAX).await;
    logs.extend(second.log().into_iter().chain(third.log()));
    second.stop().await;
    third.stop().await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest_on(&broker, 0).await;
    let stats = world.sandbox.stats().await;
    let most = stats["windows"]["send"]["most"].as_u64().unwrap();
    assert!(most <= ALLOWED && stats["throttled"] == 0, "{stats}");
    let (hand_overs, median, longest) = stand_stills(&logs);
    report(
        "fleet",
        began,
        &format!(
            "{} sends of {ACCOUNTS} accounts; at most {most} in a window of {ALLOWED}; two workers joined: \
             spread in {joined:.1?}, one killed: taken over in {taken_over:.1?}, back: {joined_again:.1?}, \
             one stopped: {left:.1?}; {hand_overs} accounts handed on, each stood still for {median:.0?}, \
             at most {longest:.0?}",
            ids.len()
        ),
    );
}

/// The accounts, each of a portal of its own.
fn names() -> impl Iterator<Item = (usize, String)> {
    let others = (1..ACCOUNTS).map(|number| (number, format!("a{number:02}")));
    std::iter::once((0, "default".to_owned())).chain(others)
}

fn with_accounts(world: World) -> World {
    let base = world.sandbox.base().to_owned();
    names().fold(world, |world, (number, name)| {
        let token = format!("pat-na1-test-portal-{}", number + 1);
        let settings = [
            ("base_url", base.as_str()),
            ("token", &token),
            ("results", "off"),
            ("quota.send.limit", LIMIT),
            ("quota.send.window", "2s"),
            ("quota.api.limit", "0"),
            ("quota.daily", "0"),
            ("concurrency", "4"),
        ];
        settings.iter().fold(world, |world, (key, value)| {
            world.set(&format!("accounts.{name}.{key}"), value)
        })
    })
}

/// Publishes to all accounts at a steady pace, until it is told to end; returns the ids.
async fn publish(producer: Producer, done: CancellationToken) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut pace = interval(PUBLISH_EVERY);
    while !done.is_cancelled() {
        pace.tick().await;
        let round: Vec<_> = names()
            .map(|(_, name)| (format!("{name}-{:05}", ids.len()), name))
            .collect();
        let published = round.iter().map(async |(id, name)| {
            let to = format!("{id}@example.com");
            let body = format!(r#"{{"emailId":7,"message":{{"to":"{to}","sendId":"{id}"}}}}"#);
            let key = format!("send.{name}.normal");
            let properties = BasicProperties::default().with_delivery_mode(2);
            (producer.publish("postrider", &key, body.as_bytes(), properties)).await;
        });
        join_all(published).await;
        ids.extend(round.into_iter().map(|(id, _)| id));
    }
    ids
}

/// Waits until these workers own so many accounts each, in any order; tells how long it took.
async fn spread(workers: &[&Worker], expected: &[usize]) -> Duration {
    let began = Instant::now();
    loop {
        let counts = counts(workers).await;
        let took = began.elapsed();
        if counts == expected {
            return took;
        }
        assert!(took < SPREAD_TIME_MAX, "{counts:?}, not {expected:?}");
        sleep(POLL).await;
    }
}

/// How many accounts each worker owns, the fewest first.
async fn counts(workers: &[&Worker]) -> Vec<usize> {
    let owned = join_all(workers.iter().map(|worker| worker.owned())).await;
    let mut counts: Vec<_> = owned.iter().map(BTreeSet::len).collect();
    counts.sort_unstable();
    counts
}

/// Balanced workers keep what they have.
async fn steady(workers: &[&Worker]) {
    let owned = async || join_all(workers.iter().map(|worker| worker.owned())).await;
    let before = owned().await;
    sleep(STEADY_TIME).await;
    assert_eq!(owned().await, before, "accounts swing");
}

/// How often an account was handed on in order, and how long nobody owned it then: the median and
/// the longest.
fn stand_stills(logs: &[Value]) -> (usize, Duration, Duration) {
    let said = |message: &'static str| {
        let lines = logs.iter().filter(move |line| line["message"] == message);
        lines.map(|line| {
            let at: Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
            (line["account"].as_str().unwrap(), at)
        })
    };
    let mut gaps: Vec<Duration> = said(HANDS_ON)
        .filter_map(|(account, from)| {
            let owned = said(OWNS).filter(|(name, at)| *name == account && *at >= from);
            let next = owned.map(|(_, at)| at).min()?;
            Some(next.duration_since(from).unsigned_abs())
        })
        .collect();
    gaps.sort_unstable();
    let longest = gaps.last().copied().unwrap_or_default();
    (gaps.len(), gaps[gaps.len() / 2], longest)
}
