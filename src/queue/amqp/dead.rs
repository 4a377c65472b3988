//! The sweep over the dead letters.
//!
//! A letter that is kept stays unacknowledged until the end, so that none comes twice; then the
//! broker gets them back, in order. But what is unacknowledged fills a consumer's window: so
//! whenever one is full of kept letters, the next consumer begins, with a window of its own. The
//! broker remembers the kept ones; this process only their numbers.

use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, TryStreamExt};
use lapin::Consumer;
use lapin::message::Delivery as Message;
use lapin::options::BasicCancelOptions;
use lapin::types::DeliveryTag;
use tokio::time::timeout;

use super::channel::ANSWER_TIMEOUT;
use super::link::Connections;
use super::open_channel::OpenChannel;
use super::{AmqpQueue, DEFAULT_EXCHANGE, LINK_WAIT, channel, error, properties};
use crate::queue::Parcel;
use crate::queue::{DeadLetter, DeadLetters, Fate, QueueError, Tally};

/// Letters in one consumer's window: what bounds memory.
const WINDOW: u16 = 1_000;
/// Replays and removals under way at once: enough to hide the wait for a confirm.
const IN_FLIGHT_MAX: usize = 500;
/// No letter comes for so long: another sweep holds the rest.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// One sweep: a channel, and how many letters are still to be visited.
struct Sweep<'a> {
    connections: &'a Connections,
    channel: OpenChannel,
    queue: String,
    left: u32,
    /// In the order in which they came.
    kept: Vec<DeliveryTag>,
}

/// What was done with one letter, for the tally.
enum Done {
    Replayed,
    Discarded,
}

impl DeadLetters for AmqpQueue {
    async fn sweep<F>(&self, mut choose: F) -> Result<Tally, QueueError>
    where
        F: FnMut(&DeadLetter) -> ControlFlow<(), Fate> + Send,
    {
        let connections = self.shared.link.connections_within(LINK_WAIT).await?;
        let queue = self.shared.topology.dead();
        let mut sweep = Sweep::begin(&connections, queue).await?;
        let mut tally = Tally::default();
        let mut in_flight = FuturesUnordered::new();
        let mut consumer = sweep.consumer().await?;
        let mut kept_in_window = 0;
        while sweep.left > 0 {
            if in_flight.len() >= IN_FLIGHT_MAX
                && let Some(done) = in_flight.try_next().await?
            {
                tally.count(&done);
            }
            if kept_in_window == WINDOW {
                consumer = sweep.consumer().await?;
                kept_in_window = 0;
            }
            let message = tokio::select! {
                biased;
                Some(done) = in_flight.next() => {
                    tally.count(&done?);
                    continue;
                }
                message = sweep.next(&mut consumer) => message?,
            };
            let Some(mut message) = message else { break };
            let letter = DeadLetter {
                message_id: properties::message_id(&message.properties),
                story: properties::story(&message.properties),
                body: std::mem::take(&mut message.data).into(),
            };
            tally.visited += 1;
            let ControlFlow::Continue(fate) = choose(&letter) else {
                sweep.kept.push(message.delivery_tag);
                break;
            };
            match fate {
                Fate::Keep => {
                    kept_in_window += 1;
                    sweep.kept.push(message.delivery_tag);
                }
                Fate::Replay(parcel) => {
                    in_flight.push(self.carry_out(&connections, message, Some(parcel)));
                }
                Fate::Discard => in_flight.push(self.carry_out(&connections, message, None)),
            }
        }
        while let Some(done) = in_flight.try_next().await? {
            tally.count(&done);
        }
        if let Err(error) = sweep.end(consumer).await {
            // Without us the broker returns what was kept as well, if in another order.
            tracing::debug!(%error, "ending a sweep");
        }
        Ok(tally)
    }
}

impl AmqpQueue {
    /// Publishes a letter again, when it is to be, and then removes it.
    async fn carry_out(
        &self,
        connections: &Connections,
        message: Message,
        replay: Option<Box<Parcel>>,
    ) -> Result<Done, QueueError> {
        let done = match replay {
            None => Done::Discarded,
            Some(parcel) => {
                let Parcel {
                    body,
                    message_id,
                    account,
                    priority,
                    mut story,
                } = *parcel;
                story.priority = priority;
                let properties = properties::again(&message.properties, &story);
                let properties = properties::with_id(properties, message_id)?;
                let queue = self.shared.topology.send(&account, priority);
                (connections.publisher)
                    .publish_confirmed(DEFAULT_EXCHANGE, &queue, &body, properties)
                    .await?;
                Done::Replayed
            }
        };
        channel::ack(&message.acker).await?;
        Ok(done)
    }
}

// === impl Sweep ===

impl<'a> Sweep<'a> {
    async fn begin(connections: &'a Connections, queue: String) -> Result<Self, QueueError> {
        let channel = channel::open(connections, WINDOW).await?;
        let standing = channel::look_at(&channel, connections.place(), &queue).await?;
        Ok(Self {
            connections,
            channel,
            queue,
            left: standing.message_count(),
            kept: Vec::new(),
        })
    }

    /// One more consumer. What those before it gave out stays with the channel.
    async fn consumer(&self) -> Result<Consumer, QueueError> {
        channel::consume(&self.channel, self.connections.place(), &self.queue).await
    }

    /// The next letter; none when there is no more to be had.
    async fn next(&mut self, consumer: &mut Consumer) -> Result<Option<Message>, QueueError> {
        match timeout(IDLE_MAX, consumer.next()).await {
            Ok(Some(Ok(message))) => {
                self.left -= 1;
                Ok(Some(message))
            }
            Ok(Some(Err(error))) => Err(self.connections.place().of(&error)),
            Ok(None) => Err(QueueError::Lost),
            Err(_) => Ok(None),
        }
    }

    /// Returns what was kept, and waits until it is back: whoever sweeps next is to find it.
    async fn end(mut self, mut consumer: Consumer) -> Result<(), QueueError> {
        let place = self.connections.place();
        let cancelled = (self.channel).basic_cancel(consumer.tag(), BasicCancelOptions::default());
        error::within(ANSWER_TIMEOUT, place, cancelled).await?;
        while let Some(Ok(message)) = consumer.next().await {
            self.kept.push(message.delivery_tag);
        }
        channel::give_all_back(&self.channel, place, &self.queue, &self.kept).await?;
        let closing = self.channel.close(200, "bye".into());
        error::within(ANSWER_TIMEOUT, place, closing).await?;
        Ok(())
    }
}

// === impl Tally ===

impl Tally {
    fn count(&mut self, done: &Done) {
        match done {
            Done::Replayed => self.replayed += 1,
            Done::Discarded => self.discarded += 1,
        }
    }
}
