//! What is asked of a broker on an open channel, each with a time-out.

use std::time::Duration;

use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Consumer, Queue};
use tokio::time::timeout;

use super::error::{self, Place};
use super::link::Connections;
use crate::queue::QueueError;

/// One answer on a channel that is open. It takes milliseconds, and seconds while a quorum elects.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A consuming channel whose every consumer holds at most `window` unacknowledged messages.
pub(super) async fn open(connections: &Connections, window: u16) -> Result<Channel, QueueError> {
    let channel = connections.channel().await?;
    let qos = channel.basic_qos(window, BasicQosOptions::default());
    error::within(ANSWER_TIMEOUT, connections.place(), qos).await?;
    Ok(channel)
}

/// How many messages are ready in a queue, and how many consumers it has.
///
/// # Errors
/// [`QueueError::Unroutable`] when there is no such queue; the channel is closed then.
pub(super) async fn look_at(
    channel: &Channel,
    place: &Place,
    queue: &str,
) -> Result<Queue, QueueError> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let asked = channel.queue_declare(queue.into(), options, FieldTable::default());
    of_queue(queue, place, timeout(ANSWER_TIMEOUT, asked).await)
}

/// # Errors
/// [`QueueError::Unroutable`] when there is no such queue; the channel is closed then.
pub(super) async fn consume(
    channel: &Channel,
    place: &Place,
    queue: &str,
) -> Result<Consumer, QueueError> {
    let consuming = channel.basic_consume(
        queue.into(),
        // The broker makes up a tag.
        "".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    of_queue(queue, place, timeout(ANSWER_TIMEOUT, consuming).await)
}

/// # Errors
/// [`QueueError::Lost`]: the broker hands it out again.
pub(super) async fn ack(acker: &Acker) -> Result<(), QueueError> {
    match timeout(ANSWER_TIMEOUT, acker.ack(BasicAckOptions::default())).await {
        Ok(Ok(true)) => Ok(()),
        // `false`: its channel had ended before.
        Ok(Ok(false) | Err(_)) | Err(_) => Err(QueueError::Lost),
    }
}

/// Where that fails the channel is gone, and the broker takes the delivery back by itself.
pub(super) async fn give_back(acker: &Acker) {
    let requeue = BasicNackOptions {
        multiple: false,
        requeue: true,
    };
    let given_back = timeout(ANSWER_TIMEOUT, acker.nack(requeue)).await;
    if !matches!(given_back, Ok(Ok(true))) {
        tracing::debug!("giving a delivery back: its channel is gone");
    }
}

fn of_queue<T>(
    queue: &str,
    place: &Place,
    answer: Result<lapin::Result<T>, tokio::time::error::Elapsed>,
) -> Result<T, QueueError> {
    match answer {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if error::is_not_found(&error) => Err(QueueError::Unroutable {
            place: queue.into(),
        }),
        Ok(Err(error)) => Err(place.of(&error)),
        Err(_) => Err(place.unreachable(format!("no answer about {queue}"))),
    }
}
