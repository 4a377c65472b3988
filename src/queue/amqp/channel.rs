//! What is asked of a broker on an open channel, each with a time-out.

use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::{DeliveryTag, FieldTable};
use lapin::{Acker, Channel, Consumer, Queue};
use tokio::time::{Instant, timeout};

use super::error::{self, Place};
use super::link::Connections;
use super::open_channel::OpenChannel;
use crate::queue::QueueError;

/// One answer on a channel that is open. It takes milliseconds, and seconds while a quorum elects.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// RabbitMQ keeps the order of what is returned while so many returns are under way; more of them
/// it takes together, and puts back in any order.
const RETURN_BATCH: usize = 32;
/// How long a batch may take to be back.
const RETURN_TIMEOUT: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Gives one delivery back.
const REQUEUE: BasicNackOptions = BasicNackOptions {
    multiple: false,
    requeue: true,
};

/// A consuming channel whose every consumer holds at most `window` unacknowledged messages.
pub(super) async fn open(
    connections: &Connections,
    window: u16,
) -> Result<OpenChannel, QueueError> {
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
    let given_back = timeout(ANSWER_TIMEOUT, acker.nack(REQUEUE)).await;
    if !matches!(given_back, Ok(Ok(true))) {
        tracing::debug!("giving a delivery back: its channel is gone");
    }
}

/// Gives deliveries of one queue back, in this order, unless somebody else takes them meanwhile.
pub(super) async fn give_all_back(
    channel: &Channel,
    place: &Place,
    queue: &str,
    tags: &[DeliveryTag],
) -> Result<(), QueueError> {
    let ready = async || Ok(look_at(channel, place, queue).await?.message_count());
    let mut expected = ready().await?;
    let mut nobody_takes_them = true;
    for batch in tags.chunks(RETURN_BATCH) {
        let nacks = batch.iter().map(|tag| channel.basic_nack(*tag, REQUEUE));
        error::within(ANSWER_TIMEOUT, place, try_join_all(nacks)).await?;
        expected = expected.saturating_add(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        let until = Instant::now() + RETURN_TIMEOUT;
        while nobody_takes_them && ready().await? < expected {
            nobody_takes_them = Instant::now() < until;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    Ok(())
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
