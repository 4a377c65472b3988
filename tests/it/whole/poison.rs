//! One message among thousands that nobody can work on: it is one dead letter, and its neighbours,
//! which were prefetched beside it, are mailed as if it were not there.

use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use super::world::{World, ids, report};
use crate::support::broker::{self, Broker};
use crate::support::raw::{RawProducer, nested, table};

/// Thirteen calls in flight hold 52 messages.
const CONCURRENCY: &str = "13";
const SEND_TIME_MAX: Duration = Duration::from_mins(4);
const REST_TIME_MAX: Duration = Duration::from_mins(1);
/// As deep as a frame has room for beside the rest.
const DEEP: usize = 25_000;

/// A poison: its properties from their flags on, its body, and a word of how it is told.
struct Poison {
    properties: Vec<u8>,
    body: Vec<u8>,
    told: &'static str,
}

impl Poison {
    /// With an id, as AMQP's short string, and headers nested `deep`.
    fn new(id: &[u8], deep: usize, body: &[u8], told: &'static str) -> Self {
        // headers, delivery_mode, message_id
        let mut properties = 0x3080_u16.to_be_bytes().to_vec();
        properties.extend(table("nested", &nested(deep)));
        properties.push(2);
        properties.extend([&[id.len() as u8], id].concat());
        let body = body.to_vec();
        Self {
            properties,
            body,
            told,
        }
    }
}

#[tokio::test]
async fn one_poison_among_ten_thousand_is_one_dead_letter_on_rabbitmq() {
    let broker = broker::shared().await;
    let prefix = broker::prefix("poison");
    // A binary id in front of a body that is none, and headers that overflow a stack.
    let poison = Poison::new(b"id-\xff\xfe", DEEP, b"\xff{", "not UTF-8");
    poisoned(broker, &prefix, vec![poison], 10_000).await;
}

#[tokio::test]
async fn poisons_of_every_kind_are_a_dead_letter_each() {
    let broker = broker::shared().await;
    let prefix = broker::prefix("poisons");
    let request = br#"{"emailId":7,"message":{"to":"ada@example.com"}}"#;
    let deep = format!(r#"{{"emailId":7,"message":{}"#, "[".repeat(200_000));
    let poisons = vec![
        Poison::new(b"not-json", 1, b"{", "is not JSON"),
        Poison::new(b"id-\xff", 1, request, "control character"),
        Poison::new(b"large", 1, &vec![b' '; 4_000_000], "at most 262144"),
        Poison::new(b"deep-body", 1, deep.as_bytes(), "expected an object"),
        Poison::new(b"deep-headers", DEEP, b"[]", "expected an object"),
    ];
    poisoned(broker, &prefix, poisons, 1_000).await;
}

/// Each poison stands in the midst of the requests.
async fn poisoned(broker: &Broker, prefix: &str, poisons: Vec<Poison>, count: usize) {
    let began = Instant::now();
    let world = World::on_broker(broker, prefix, &[]).await;
    let world = world.set("accounts.default.concurrency", CONCURRENCY);
    let first = ids("before", count / 2);
    let last = ids("after", count / 2);
    world.publish_backlog(&first).await;
    let mut producer = RawProducer::over(broker.port()).await;
    for poison in &poisons {
        producer
            .publish(prefix, "send", &poison.body, &poison.properties)
            .await;
    }
    world.publish(&last).await;

    let worker = world.worker().await;
    world
        .sandbox
        .until_mailed(count as u64, SEND_TIME_MAX)
        .await;
    let cut = worker.has_said("queue connection lost; nothing is lost meanwhile");
    assert!(!cut, "its neighbours were handed out twice");
    worker.finish(REST_TIME_MAX).await;

    let neighbours = first.union(&last).cloned().collect();
    world.assert_mailed(&neighbours).await;
    let calls = world.sandbox.count("sendCalls").await;
    assert_eq!(calls, count as u64, "no neighbour was tried twice");
    let dead = world.dead().await;
    let problems: Vec<_> = dead.iter().map(ToString::to_string).collect();
    assert_eq!(dead.len(), poisons.len(), "{problems:?}");
    for poison in &poisons {
        let found = problems.iter().any(|told| told.contains(poison.told));
        assert!(found, "{} in {problems:?}", poison.told);
    }
    world.assert_at_rest_on(broker, poisons.len() as u64).await;
    let figures = format!("{count} sends, {} poisons, {calls} calls", poisons.len());
    report("poison on RabbitMQ", began, &figures);
}

#[tokio::test]
async fn one_poison_among_ten_thousand_is_one_dead_letter_on_sqlite() {
    const COUNT: u64 = 10_000;
    let began = Instant::now();
    let world = World::on_sqlite(&[]).await;
    let world = world.set("accounts.default.concurrency", CONCURRENCY);
    let all = ids("poison", COUNT as usize + 1);
    world.publish_backlog(&all).await;
    let spoilt = "poison-05000";
    let connection = Connection::open(world.path("postrider.db")).unwrap();
    let changed = connection.execute(
        "UPDATE message SET message_id = CAST(x'69ff' AS TEXT), story = CAST(x'ff' AS TEXT),
         body = x'ff00' WHERE instr(body, ?1) > 0",
        [spoilt],
    );
    assert_eq!(changed.unwrap(), 1);
    drop(connection);

    let worker = world.worker().await;
    world.sandbox.until_mailed(COUNT, SEND_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    let mut neighbours = all;
    neighbours.remove(spoilt);
    world.assert_mailed(&neighbours).await;
    assert_eq!(world.sandbox.count("sendCalls").await, COUNT);
    assert_eq!(world.dead().await.len(), 1);
    world.assert_at_rest(1).await;
    report("poison on SQLite", began, "10000 sends, 1 poison");
}

/// Its worker dies over it, three times, as it would if the kernel ended it for its memory. How
/// often a worker may die over one message is not bounded; its neighbours are none the worse.
#[tokio::test]
async fn a_request_over_which_workers_die_takes_no_neighbour_with_it_on_rabbitmq() {
    let broker = broker::shared().await;
    let world = World::on_broker(broker, &broker::prefix("deadly"), &[]).await;
    die_over_it(&world).await;
    world.assert_at_rest_on(broker, 0).await;
}

#[tokio::test]
async fn a_request_over_which_workers_die_takes_no_neighbour_with_it_on_sqlite() {
    let world = World::on_sqlite(&[]).await;
    die_over_it(&world).await;
    world.assert_at_rest(0).await;
}

async fn die_over_it(world: &World) {
    let mut all = ids("deadly", 600);
    world.publish_backlog(&all).await;
    // Urgent: each worker calls with it before anything else. HubSpot mails it and says nothing.
    let deadly = concat!(
        r#"{"emailId":7,"message":{"to":"ada+neverx3@example.com","sendId":"deadly"},"#,
        r#""dispatch":{"priority":"high"}}"#
    );
    world.publish_lines(deadly).await;
    all.insert("deadly".to_owned());
    for mailed in [100, 200, 300] {
        let worker = world.worker().await;
        world.sandbox.until_mailed(mailed, REST_TIME_MAX).await;
        worker.kill().await;
    }
    let worker = world.worker().await;
    world.sandbox.until_mailed(601, SEND_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&all).await;
}
