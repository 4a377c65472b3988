//! The journal in a stream of RabbitMQ.

use std::ops::ControlFlow;
use std::time::Duration;

use postrider::clock::Clock;
use postrider::message::AccountName;
use postrider::queue::amqp::{AmqpOptions, AmqpQueue};
use postrider::queue::{DeadLetters, Fate, Queue, QueueError, Traces};
use secrecy::SecretString;
use tokio::time::{Instant, sleep};

use super::{PATIENCE, entry, ids, is_read_back, mail_goes_on, told, until_told};
use crate::support::broker::{self, Broker, Version};
use crate::support::on_each_rabbitmq;
use crate::support::producer::Producer;

on_each_rabbitmq! {
    tokio::test(flavor = "multi_thread", worker_threads = 2):
    what_is_noted_is_read_back
    a_command_notes_into_the_stream_that_a_worker_made_and_makes_none
    the_stream_is_bounded
    mail_goes_on_when_the_stream_is_deleted_and_it_comes_again
    mail_goes_on_beside_a_queue_of_other_arguments
    mail_goes_on_without_rights_on_the_stream
    it_outlives_the_broker_and_waits_while_the_broker_takes_nothing
}

fn options(url: SecretString, prefix: &str) -> AmqpOptions {
    AmqpOptions {
        url: url.into(),
        prefix: prefix.into(),
        accounts: vec![AccountName::default()],
        clock: Clock::system(),
    }
}

async fn worker(version: Version, subject: &str) -> (AmqpQueue, String) {
    let prefix = broker::prefix(subject);
    let url = broker::shared_of(version).await.url();
    let queue = AmqpQueue::start(options(url, &prefix)).await.unwrap();
    (queue, prefix)
}

async fn what_is_noted_is_read_back(version: Version) {
    let (queue, _) = worker(version, "journal").await;
    is_read_back(&queue).await;
}

async fn a_command_notes_into_the_stream_that_a_worker_made_and_makes_none(version: Version) {
    let prefix = broker::prefix("journal-command");
    let broker = broker::shared_of(version).await;
    let now = Clock::system().now();
    let command = async || {
        let command = AmqpQueue::connect(options(broker.url(), &prefix));
        command.await.unwrap()
    };
    let early = command().await;
    early.note(entry("early", now));
    early.close().await;
    let stream = format!("{prefix}.trace");
    assert!(!broker.queues().await.contains(&stream));
    let worker = AmqpQueue::start(options(broker.url(), &prefix))
        .await
        .unwrap();
    while !broker.queues().await.contains(&stream) {
        sleep(Duration::from_millis(50)).await;
    }
    let later = command().await;
    later.note(entry("later", now));
    later.close().await;
    until_told(&worker, &["early", "later"], &["later"]).await;
}

async fn the_stream_is_bounded(version: Version) {
    let (queue, prefix) = worker(version, "journal-bounds").await;
    queue.note(entry("one", Clock::system().now()));
    until_told(&queue, &["one"], &["one"]).await;
    let broker = broker::shared_of(version).await;
    let queues = broker.ctl(&["list_queues", "name", "arguments"]).await;
    let stream = queues
        .lines()
        .find(|line| line.starts_with(&format!("{prefix}.trace\t")));
    let stream = stream.unwrap();
    for bound in [
        "\"x-queue-type\",\"stream\"",
        "\"x-max-age\",\"604800s\"",
        "x-max-length-bytes",
    ] {
        assert!(stream.contains(bound), "{bound} in {stream}");
    }
}

async fn mail_goes_on_when_the_stream_is_deleted_and_it_comes_again(version: Version) {
    let (queue, prefix) = worker(version, "journal-deleted").await;
    let producer = Producer::to(broker::shared_of(version).await).await;
    let now = Clock::system().now();
    queue.note(entry("early", now));
    until_told(&queue, &["early"], &["early"]).await;
    producer.delete(&format!("{prefix}.trace")).await;
    mail_goes_on(&queue).await;
    queue.note(entry("later", now));
    mail_goes_on(&queue).await;
    until_told(&queue, &["early", "later"], &["later"]).await;
    assert!(queue.is_up(), "the connections were not given up for it");
}

async fn mail_goes_on_beside_a_queue_of_other_arguments(version: Version) {
    let prefix = broker::prefix("journal-mismatch");
    let broker = broker::shared_of(version).await;
    let producer = Producer::to(broker).await;
    let stream = format!("{prefix}.trace");
    producer.declare_classic(&stream).await;
    let queue = AmqpQueue::start(options(broker.url(), &prefix))
        .await
        .unwrap();
    let now = Clock::system().now();
    queue.note(entry("one", now));
    mail_goes_on(&queue).await;
    // After two tries.
    sleep(Duration::from_millis(1_500)).await;
    mail_goes_on(&queue).await;
    assert_eq!(producer.depth(&stream).await, 0, "it may have no bounds");
    producer.delete(&stream).await;
    until_told(&queue, &["one"], &["one"]).await;
}

async fn mail_goes_on_without_rights_on_the_stream(version: Version) {
    let prefix = broker::prefix("journal-rights");
    let broker = broker::shared_of(version).await;
    let user = format!("user-{prefix}");
    broker.ctl(&["add_user", &user, &user]).await;
    let ours = format!(r"^({prefix}(\.(?!trace).*)?|amq\.default)$");
    broker
        .ctl(&["set_permissions", &user, &ours, &ours, &ours])
        .await;
    let url = broker::url_of(&user, broker.port());
    let queue = AmqpQueue::start(options(url, &prefix)).await.unwrap();
    queue.note(entry("one", Clock::system().now()));
    mail_goes_on(&queue).await;
    sleep(Duration::from_millis(1_500)).await;
    mail_goes_on(&queue).await;
    assert!(queue.is_up(), "the connections were not given up for it");
    let read = queue.trace(&ids(&["one"]), None, |_| {}).await;
    assert!(
        matches!(read, Ok(None) | Err(QueueError::Refused { .. })),
        "{read:?}"
    );
    // Who may do no more than docs/operating.md says can read it.
    let reader = format!("reader-{prefix}");
    broker.ctl(&["add_user", &reader, &reader]).await;
    let read = format!(r"^{prefix}\.(trace|dead)$");
    broker
        .ctl(&["set_permissions", &reader, "^$", "^$", &read])
        .await;
    let all = AmqpQueue::start(options(broker.url(), &prefix));
    let all = all.await.unwrap();
    all.note(entry("two", Clock::system().now()));
    let url = broker::url_of(&reader, broker.port());
    let reader = AmqpQueue::connect(options(url, &prefix)).await.unwrap();
    until_told(&reader, &["two"], &["two"]).await;
    let swept = reader.sweep(|_| ControlFlow::Continue(Fate::Keep)).await;
    assert_eq!(swept.unwrap().visited, 0);
    let began = Instant::now();
    queue.close().await;
    assert!(began.elapsed() < PATIENCE / 4, "{:?}", began.elapsed());
}

async fn it_outlives_the_broker_and_waits_while_the_broker_takes_nothing(version: Version) {
    let broker = Broker::start_of(version).await;
    let queue = AmqpQueue::start(options(broker.url(), "outlives"))
        .await
        .unwrap();
    let now = Clock::system().now();
    queue.note(entry("before", now));
    until_told(&queue, &["before"], &["before"]).await;
    // A node that is killed within a second of its very first stream (3.10.8) never finds that
    // stream again, and says that it is down. In order, once: then it knows that it has streams.
    broker.stop().await;
    broker.boot().await;
    until_up(&queue).await;
    until_told(&queue, &["before"], &["before"]).await;
    broker.kill().await;
    queue.note(entry("meanwhile", now));
    broker.boot().await;
    let all = ["before", "meanwhile"];
    until_up(&queue).await;
    until_told(&queue, &all, &all).await;

    broker.ctl(&["set_vm_memory_high_watermark", "0"]).await;
    for number in 0..20_000 {
        queue.note(entry(&format!("flood-{number}"), now));
    }
    assert!(queue.notes_dropped() > 5_000, "{}", queue.notes_dropped());
    assert_eq!(told(&queue, &["flood-0"], None).await, [""; 0]);
    broker.ctl(&["set_vm_memory_high_watermark", "0.6"]).await;
    // The last one found no room; when the first page was taken, and with it the gap, is chance.
    let ids = ["flood-0", "flood-9000", "flood-19999"];
    let deadline = Instant::now() + PATIENCE;
    let mut kept = Vec::new();
    while kept != ["flood-0", "flood-9000", "gap"] {
        assert!(Instant::now() < deadline, "{kept:?}");
        kept = told(&queue, &ids, None).await;
        kept.sort();
        kept.dedup();
    }
    mail_goes_on(&queue).await;
    queue.close().await;
}

async fn until_up(queue: &AmqpQueue) {
    let deadline = Instant::now() + PATIENCE;
    while !queue.is_up() {
        assert!(Instant::now() < deadline, "the link does not come back");
        sleep(Duration::from_millis(20)).await;
    }
}
