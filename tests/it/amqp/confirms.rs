//! A copy is confirmed before the message goes.

use std::time::Duration;

use postrider::clock::{Clock, after};
use postrider::message::Priority;
use postrider::outcome::Disposition;
use postrider::queue::{Queue, QueueError};
use tokio::time::timeout;

use super::{PATIENCE, open, parcel, receive, worker};
use crate::support::broker::{self, Version};
use crate::support::on_each_rabbitmq;
use crate::support::producer::Producer;

on_each_rabbitmq! {
    tokio::test:
    a_message_whose_copy_no_queue_takes_is_handed_out_again
}

async fn a_message_whose_copy_no_queue_takes_is_handed_out_again(version: Version) {
    let (queue, prefix) = worker(version, "confirms").await;
    let mut intake = open(&queue).await;
    queue
        .publish(parcel("one", Priority::Normal))
        .await
        .unwrap();
    let delivery = receive(&mut intake).await;
    let somebody = Producer::to(broker::shared_of(version).await).await;
    // Where a message waits for 2 and 3 seconds.
    somebody.delete(&format!("{prefix}.delay.1")).await;
    let wait = Disposition::FollowUp {
        at: after(Clock::system().now(), Duration::from_millis(2_500)),
        story: delivery.story.clone(),
    };
    let settled = timeout(PATIENCE, queue.settle(delivery, wait)).await;
    let error = settled.expect("settle hangs").unwrap_err();
    assert!(matches!(error, QueueError::Unroutable { .. }), "{error}");
    assert_eq!(receive(&mut intake).await.body, "one");
}
