//! RabbitMQ: what the contract suite cannot ask of every backend.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use postrider::clock::{self, Clock};
use postrider::message::{AccountName, MessageId, Priority};
use postrider::outcome::{DeadReason, Disposition, Words};
use postrider::queue::Parcel;
use postrider::queue::amqp::{AmqpOptions, AmqpQueue};
use postrider::queue::{
    DeadLetter, DeadLetters, Delivery, Fate, Intake, IntakeOptions, Lane, Queue, QueueError,
};
use postrider::story::{Death, Story};
use tokio::time::{Instant, timeout};

mod confirms;
mod events;
mod hostile;
mod outages;

use crate::support::broker::{self, Broker, Version};
use crate::support::on_each_rabbitmq;
use crate::support::producer::Producer;
use crate::support::proxy::Proxy;

/// Long enough for a loaded machine; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(90);

on_each_rabbitmq! {
    tokio::test:
    a_producer_publishes_to_the_exchange_by_account_and_priority_or_just_send
    of_many_publishes_at_a_time_each_is_told_its_own_fate
    a_copy_keeps_what_is_the_producers_and_strips_what_does_harm
    an_odd_story_is_an_empty_one_and_large_headers_do_not_end_the_connection
    an_id_that_is_not_utf_8_holds_nothing_up_and_is_no_id
    what_is_due_after_the_longest_delay_carries_its_due_time
    a_queue_with_other_arguments_is_named_with_the_argument
    wrong_credentials_and_hosts_are_refused_without_telling_the_password
    a_command_fails_where_a_worker_waits_for_the_broker
    a_sweep_goes_through_more_letters_than_a_window_holds
}

// === the line between producer and worker ===

async fn a_producer_publishes_to_the_exchange_by_account_and_priority_or_just_send(
    version: Version,
) {
    let (queue, prefix) = worker(version, "keys").await;
    let producer = Producer::to(broker::shared_of(version).await).await;
    let keys = ["send", "send.default.high", "send.default.low"];
    for key in keys {
        let properties = BasicProperties::default().with_timestamp(1_700_000_000);
        producer
            .publish(&prefix, key, key.as_bytes(), properties)
            .await;
    }
    let mut intake = open(&queue).await;
    for _ in keys {
        let delivery = receive(&mut intake).await;
        let expected = match &*delivery.body {
            b"send" => Priority::Normal,
            b"send.default.high" => Priority::High,
            _ => Priority::Low,
        };
        assert_eq!(delivery.priority, expected);
        assert_eq!(delivery.message_id, None);
        let published = delivery.story.published_at.unwrap();
        assert_eq!(published.as_second(), 1_700_000_000);
        settle(&queue, delivery, Disposition::Complete).await;
    }
}

/// The broker tells of a message that no queue takes apart from its confirm: each publisher must be
/// told of its own.
async fn of_many_publishes_at_a_time_each_is_told_its_own_fate(version: Version) {
    let (queue, _) = worker(version, "fates").await;
    let publishes = (0..500).map(|number| {
        let mut parcel = parcel(&format!("fate-{number}"), Priority::Normal);
        let nobody = number % 3 == 0;
        if nobody {
            parcel.account = AccountName::parse("nobody").unwrap();
        }
        let queue = queue.clone();
        async move { (nobody, queue.publish(parcel).await) }
    });
    for (nobody, told) in join_all(publishes).await {
        match told {
            Ok(()) => assert!(!nobody, "told that it stands, and stands nowhere"),
            Err(QueueError::Unroutable { .. }) => assert!(nobody, "it stands in its lane"),
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Each of these does harm when it goes with the copy: it ends the delay early, is refused by the
/// broker, makes more copies, or is taken for a circle.
async fn a_copy_keeps_what_is_the_producers_and_strips_what_does_harm(version: Version) {
    let (queue, prefix) = worker(version, "strip").await;
    let producer = Producer::to(broker::shared_of(version).await).await;
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("trace", "kept"),
        ("x-first-death-queue", "harm"),
        ("x-delivery-count", "harm"),
        ("x-postrider-reason", "harm"),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let copy_to = AMQPValue::LongString(format!("{prefix}.dead").into());
    headers.insert("x-death".into(), AMQPValue::FieldArray(vec![].into()));
    headers.insert("CC".into(), AMQPValue::FieldArray(vec![copy_to].into()));
    let properties = BasicProperties::default()
        .with_message_id("one".into())
        .with_user_id("guest".into())
        .with_app_id("billing".into())
        .with_correlation_id("order".into())
        .with_expiration("600000".into())
        .with_headers(headers);
    producer.publish(&prefix, "send", b"body", properties).await;
    let mut intake = open(&queue).await;

    let delivery = receive(&mut intake).await;
    let at = clock::after(Clock::system().now(), Duration::from_millis(10));
    let story = delivery.story.clone();
    settle(&queue, delivery, Disposition::Retry { at, story }).await;
    let delivery = receive(&mut intake).await;
    let story = Box::new(Story {
        death: Some(death("one")),
        ..(*delivery.story).clone()
    });
    settle(&queue, delivery, Disposition::DeadLetter { story }).await;
    until_standing(&queue, &[("dead", 1)]).await;

    let found = producer.get(&format!("{prefix}.dead")).await;
    assert_eq!(found.data, b"body");
    let properties = &found.properties;
    assert_eq!(properties.app_id().as_ref().unwrap().as_str(), "billing");
    assert_eq!(
        properties.correlation_id().as_ref().unwrap().as_str(),
        "order"
    );
    assert_eq!(properties.expiration(), &None);
    assert_eq!(properties.user_id(), &None);
    assert_eq!(*properties.delivery_mode(), Some(2));
    let headers = properties.headers().as_ref().unwrap().inner();
    let text = |name: &str| match headers.get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(text("trace"), "kept");
    assert_eq!(text("x-postrider-reason"), "rejected");
    assert_eq!(text("x-postrider-problem"), "HubSpot refused it");
    assert_eq!(text("x-postrider-priority"), "normal");
    for name in ["x-death", "x-first-death-queue", "CC"] {
        assert!(!headers.contains_key(name), "{name} went with the copy");
    }
}

async fn an_odd_story_is_an_empty_one_and_large_headers_do_not_end_the_connection(
    version: Version,
) {
    let (queue, prefix) = worker(version, "odd").await;
    let producer = Producer::to(broker::shared_of(version).await).await;
    let mut huge = String::from("{\"attempts\": [");
    huge.push_str(&"0,".repeat(50_000));
    let stories = [
        AMQPValue::LongString("no JSON".into()),
        AMQPValue::LongString(vec![0xff, 0xfe].into()),
        AMQPValue::LongString(huge.into()),
        AMQPValue::LongLongInt(7),
        AMQPValue::Void,
    ];
    let odd = stories.len();
    for story in stories {
        let mut headers = FieldTable::default();
        headers.insert("x-postrider-story".into(), story);
        let properties = BasicProperties::default().with_headers(headers);
        producer.publish(&prefix, "send", b"odd", properties).await;
    }
    let mut intake = open(&queue).await;
    for _ in 0..odd {
        let delivery = receive(&mut intake).await;
        assert_eq!(*delivery.story, Story::default());
        // Together these would not fit into one frame beside the producer's own.
        let story = Box::new(Story {
            death: Some(Death {
                problem: "p".repeat(200_000),
                ..death("odd")
            }),
            ..(*delivery.story).clone()
        });
        settle(&queue, delivery, Disposition::DeadLetter { story }).await;
    }
    until_standing(&queue, &[("dead", odd as u64)]).await;
}

/// Such a message ends the connection that reads it; it must not do so for ever.
async fn an_id_that_is_not_utf_8_holds_nothing_up_and_is_no_id(version: Version) {
    let (queue, prefix) = worker(version, "binary").await;
    let wire = Proxy::spoiling(broker::shared_of(version).await.port()).await;
    let producer = Producer::over(wire.port()).await;
    for id in ["binary-~~~", "ok"] {
        let mut headers = FieldTable::default();
        headers.insert("trace".into(), AMQPValue::LongString("kept".into()));
        let properties = BasicProperties::default()
            .with_message_id(id.into())
            .with_headers(headers);
        producer.publish(&prefix, "send", b"body", properties).await;
    }
    let mut intake = open(&queue).await;
    let spoilt = receive(&mut intake).await;
    let id = spoilt.message_id.clone().unwrap();
    assert_eq!(id, "binary-\u{1a}\u{1a}\u{1a}");
    assert!(MessageId::parse(&id).is_err());
    let good = receive(&mut intake).await;
    assert_eq!(good.message_id.as_deref(), Some("ok"));
    for delivery in [spoilt, good] {
        settle(&queue, delivery, Disposition::Complete).await;
    }
    until_standing(&queue, &[]).await;
}

async fn what_is_due_after_the_longest_delay_carries_its_due_time(version: Version) {
    let (queue, prefix) = worker(version, "far").await;
    let producer = Producer::to(broker::shared_of(version).await).await;
    (queue.publish(parcel("one", Priority::Normal)).await).unwrap();
    let delivery = receive(&mut open(&queue).await).await;
    let at = clock::after(Clock::system().now(), Duration::from_hours(100));
    let story = delivery.story.clone();
    settle(&queue, delivery, Disposition::FollowUp { at, story }).await;
    // 72 hours begin with the highest level.
    let found = producer.get(&format!("{prefix}.delay.17")).await;
    let headers = found.properties.headers().as_ref().unwrap().inner();
    let Some(AMQPValue::LongString(story)) = headers.get("x-postrider-story") else {
        panic!("no story");
    };
    let story: Story = serde_json::from_slice(story.as_bytes()).unwrap();
    assert_eq!(story.due_at, Some(at));
}

// === what is refused ===

async fn a_queue_with_other_arguments_is_named_with_the_argument(version: Version) {
    let broker = broker::shared_of(version).await;
    let options = options(broker, "mismatch");
    let producer = Producer::to(broker).await;
    let name = format!("{}.send.default.low", options.prefix);
    producer.declare_classic(&name).await;
    let error = AmqpQueue::start(options).await.unwrap_err();
    let QueueError::Mismatch { thing, why } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(thing, &format!("queue {name}"));
    assert!(why.contains("inequivalent arg 'x-"), "{why}");
}

async fn wrong_credentials_and_hosts_are_refused_without_telling_the_password(version: Version) {
    let broker = broker::shared_of(version).await;
    let port = broker.port();
    for address in [
        format!("amqp://guest:s3cret@127.0.0.1:{port}/%2f"),
        format!("amqp://guest:guest@127.0.0.1:{port}/nobody-has-s3cret"),
    ] {
        let options = AmqpOptions {
            url: address.into(),
            ..options(broker, "refused")
        };
        for error in [
            AmqpQueue::start(options.clone()).await.unwrap_err(),
            AmqpQueue::connect(options).await.unwrap_err(),
        ] {
            assert!(matches!(error, QueueError::Refused { .. }), "{error:?}");
            assert!(!error.to_string().contains("guest:"), "{error}");
        }
    }
}

async fn a_command_fails_where_a_worker_waits_for_the_broker(version: Version) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = broker::url(listener.local_addr().unwrap().port());
    drop(listener);
    let options = AmqpOptions {
        url: nobody.into(),
        ..options(broker::shared_of(version).await, "nobody")
    };
    let error = AmqpQueue::connect(options.clone()).await.unwrap_err();
    assert!(matches!(error, QueueError::Unreachable { .. }), "{error:?}");
    let queue = AmqpQueue::start(options.clone()).await.unwrap();
    assert!(!queue.is_up());
    queue.close().await;
    let unread = AmqpOptions {
        url: "amqp//guest:s3cret@nowhere".into(),
        ..options
    };
    let error = AmqpQueue::start(unread).await.unwrap_err().to_string();
    assert!(!error.contains("s3cret"), "{error}");
}

// === dead letters ===

async fn a_sweep_goes_through_more_letters_than_a_window_holds(version: Version) {
    const LETTERS: u64 = 2_500;
    let (queue, prefix) = worker(version, "sweep").await;
    let producer = Producer::to(broker::shared_of(version).await).await;
    let dead = format!("{prefix}.dead");
    let bodies: Vec<String> = (0..LETTERS).map(|n| n.to_string()).collect();
    let all = bodies
        .iter()
        .map(|body| producer.publish("", &dead, body.as_bytes(), BasicProperties::default()));
    join_all(all).await;
    let number = |letter: &DeadLetter| -> u64 {
        std::str::from_utf8(&letter.body).unwrap().parse().unwrap()
    };
    let mut seen = Vec::new();
    // The first 2,200 are kept, so the third window is needed for the rest.
    let choose = |letter: &DeadLetter| {
        let n = number(letter);
        seen.push(n);
        ControlFlow::Continue(match n {
            0..2_200 => Fate::Keep,
            _ if n % 2 == 0 => Fate::Replay(Box::new(letter.replay())),
            _ => Fate::Discard,
        })
    };
    let tally = timeout(PATIENCE, queue.sweep(choose))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (tally.visited, tally.replayed, tally.discarded),
        (LETTERS, 150, 150)
    );
    assert!(seen.iter().copied().eq(0..LETTERS), "not the oldest first");
    until_standing(&queue, &[("dead", 2_200), ("send.default.normal", 150)]).await;
    // Those that were kept are back in their old order.
    let mut kept = Vec::new();
    let look = |letter: &DeadLetter| {
        kept.push(number(letter));
        ControlFlow::Continue(Fate::Keep)
    };
    timeout(PATIENCE, queue.sweep(look)).await.unwrap().unwrap();
    assert!(kept.iter().copied().eq(0..2_200), "another order: {kept:?}");
}

// === helpers ===

/// A worker's queue on the shared node, and its prefix.
async fn worker(version: Version, subject: &str) -> (AmqpQueue, String) {
    let options = options(broker::shared_of(version).await, subject);
    let prefix = options.prefix.clone();
    (AmqpQueue::start(options).await.unwrap(), prefix)
}

fn options(broker: &Broker, subject: &str) -> AmqpOptions {
    AmqpOptions {
        url: broker.url().into(),
        prefix: broker::prefix(subject),
        accounts: vec![AccountName::default()],
        clock: Clock::system(),
    }
}

fn parcel(id: &str, priority: Priority) -> Parcel {
    Parcel {
        body: Bytes::copy_from_slice(id.as_bytes()),
        message_id: Some(id.into()),
        account: AccountName::default(),
        priority,
        story: Story::default(),
    }
}

fn death(key: &str) -> Death {
    Death {
        key: key.into(),
        reason: DeadReason::Rejected,
        at: Timestamp::UNIX_EPOCH,
        problem: "HubSpot refused it".into(),
        hint: "correct it".into(),
        email_id: Some(7),
        account: Some("default".into()),
        words: Words::default(),
    }
}

async fn open(queue: &AmqpQueue) -> impl Intake + use<> {
    let account = AccountName::default();
    queue
        .open(&account, Lane::Sends, IntakeOptions::holding(10))
        .await
        .unwrap()
}

async fn receive(intake: &mut impl Intake) -> Delivery {
    let received = timeout(PATIENCE, intake.receive()).await;
    received.expect("nothing was received").unwrap()
}

async fn settle(queue: &AmqpQueue, delivery: Delivery, disposition: Disposition) {
    let settled = timeout(PATIENCE, queue.settle(delivery, disposition)).await;
    settled.expect("settle hangs").unwrap();
}

/// Waits until exactly these queues (without the prefix) hold these numbers of messages.
async fn until_standing(queue: &AmqpQueue, expected: &[(&str, u64)]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let depths = queue.depths().await.unwrap();
        let mut standing: Vec<_> = depths
            .iter()
            .filter(|depth| depth.messages > 0)
            .filter_map(|depth| Some((depth.queue.split_once('.')?.1, depth.messages)))
            .collect();
        standing.sort_unstable();
        if standing == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{standing:?} stand, not {expected:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
