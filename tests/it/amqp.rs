//! RabbitMQ: what the contract suite cannot ask of every backend.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use postrider::clock::{self, Clock};
use postrider::message::{AccountName, Parcel, Priority};
use postrider::outcome::{DeadReason, Disposition, Words};
use postrider::queue::amqp::{AmqpOptions, AmqpQueue};
use postrider::queue::{Delivery, Intake, Lane, Queue};
use postrider::story::{Death, Story};
use tokio::time::timeout;

use crate::support::broker::{self, Broker};

/// Long enough for a loaded machine; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(30);

// === the straight line ===

#[tokio::test]
async fn a_request_is_received_as_it_was_published_and_then_nothing_is_left() {
    let queue = worker("line").await;
    queue.publish(parcel("one", Priority::High)).await.unwrap();
    let mut intake = open(&queue).await;
    let delivery = receive(&mut intake).await;
    assert_eq!(delivery.body, Bytes::from_static(b"one"));
    assert_eq!(delivery.message_id.as_deref(), Some("one"));
    assert_eq!(delivery.priority, Priority::High);
    assert!(delivery.story.published_at.is_some());
    assert!(!delivery.redelivered);
    settle(&queue, delivery, Disposition::Complete).await;
    drop(intake);
    until_standing(&queue, &[]).await;
}

#[tokio::test]
async fn a_retry_comes_back_after_its_time_with_its_story() {
    let queue = worker("retry").await;
    queue.publish(parcel("one", Priority::Low)).await.unwrap();
    let mut intake = open(&queue).await;
    let delivery = receive(&mut intake).await;
    let at = clock::after(Clock::system().now(), Duration::from_millis(1_500));
    let mut story = Box::new(delivery.story.clone());
    story.spent = 3;
    settle(&queue, delivery, Disposition::Retry { at, story }).await;
    let again = receive(&mut intake).await;
    assert!(Clock::system().now() >= at, "it came early");
    assert_eq!(again.story.spent, 3);
    assert_eq!(again.story.due_at, Some(at));
    assert_eq!(again.priority, Priority::Low);
    assert_eq!(again.message_id.as_deref(), Some("one"));
    settle(&queue, again, Disposition::Complete).await;
    until_standing(&queue, &[]).await;
}

#[tokio::test]
async fn a_dead_letter_stands_in_the_dead_queue_alone() {
    let queue = worker("dead").await;
    (queue.publish(parcel("one", Priority::Normal)).await).unwrap();
    let mut intake = open(&queue).await;
    let delivery = receive(&mut intake).await;
    let story = Box::new(Story {
        death: Some(death("one")),
        ..delivery.story.clone()
    });
    settle(&queue, delivery, Disposition::DeadLetter { story }).await;
    until_standing(&queue, &[("dead", 1)]).await;
}

// === helpers ===

/// A worker's queue on the shared node, under a prefix of its own.
async fn worker(subject: &str) -> AmqpQueue {
    let options = options(broker::shared().await, subject);
    AmqpQueue::start(options).await.unwrap()
}

fn options(broker: &Broker, subject: &str) -> AmqpOptions {
    AmqpOptions {
        url: broker.url(),
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
    queue.open(&account, Lane::Sends, 10).await.unwrap()
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
    let deadline = tokio::time::Instant::now() + PATIENCE;
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
        let late = tokio::time::Instant::now() > deadline;
        assert!(!late, "{standing:?} stand, not {expected:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
