//! Receiving: the consumers of one lane, and the channel that outlives them.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions};
use lapin::options::{BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Acker, BasicProperties, Channel, Consumer};
use tokio::time::timeout;

use super::link::{Connections, Role};
use super::{Shared, error, properties};
use crate::message::{AccountName, Priority};
use crate::queue::{Delivery, Intake, Lane, QueueError, Tag};

/// One answer of the broker on a channel that is open.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// After a channel was lost on a link that stands: a consumer that is refused again and again must
/// not spin.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

/// Receives from one lane, over one channel after another.
///
/// `prefetch` is AMQP's: per priority it bounds what is held *and* what is in hand, so it must be
/// larger than the number of deliveries that are worked on side by side.
#[derive(Debug)]
pub struct AmqpIntake {
    shared: Arc<Shared>,
    account: AccountName,
    lane: Lane,
    prefetch: u16,
    /// None while the link is down.
    consuming: Option<Consuming>,
}

/// The consumers of one channel, the most urgent first.
#[derive(Debug)]
struct Consuming {
    session: Arc<Session>,
    sources: Vec<Source>,
}

/// One queue that is consumed.
#[derive(Debug)]
struct Source {
    queue: String,
    priority: Priority,
    consumer: Consumer,
    /// The next one, taken out of the consumer's buffer to compare the priorities.
    next: Option<Delivery>,
}

/// The channels over which deliveries came that may still be settled.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    last_number: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Session>>>,
}

/// One channel. It closes when its last `Arc` is dropped, and a channel that closes returns what
/// was not settled: so it stays in [`Sessions`] until its consumers are gone *and* nothing that
/// came over it is in hand.
#[derive(Debug)]
pub(super) struct Session {
    number: u64,
    channel: Channel,
    connections: Arc<Connections>,
    hand: Mutex<Hand>,
}

#[derive(Debug, Default)]
struct Hand {
    held: BTreeMap<u64, Held>,
    /// The consumers are gone: nothing is added any more.
    retired: bool,
}

/// What is kept of a delivery until it is settled.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) properties: BasicProperties,
    queue: String,
    published_at: Option<Timestamp>,
    acker: Acker,
}

// === impl AmqpIntake ===

impl AmqpIntake {
    pub(super) fn new(
        shared: Arc<Shared>,
        account: AccountName,
        lane: Lane,
        prefetch: u16,
    ) -> Self {
        Self {
            shared,
            account,
            lane,
            prefetch,
            consuming: None,
        }
    }

    async fn begin(&self) -> Result<Consuming, QueueError> {
        let connections = self.shared.link.connections().await?;
        let channel = connections.channel().await?;
        let place = connections.place().clone();
        let qos = channel.basic_qos(self.prefetch.max(1), BasicQosOptions::default());
        error::within(ANSWER_TIMEOUT, &place, qos).await?;
        let mut sources = Vec::new();
        for (queue, priority) in self.shared.topology.lanes(&self.account, self.lane) {
            let consuming = channel.basic_consume(
                queue.as_str().into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            );
            let consumer = match timeout(ANSWER_TIMEOUT, consuming).await {
                Ok(Ok(consumer)) => consumer,
                Ok(Err(error)) if error::is_not_found(&error) => {
                    if self.shared.role == Role::Worker {
                        // Somebody deleted it: new connections declare it anew.
                        connections.give_up();
                    }
                    return Err(QueueError::Unroutable { place: queue });
                }
                Ok(Err(error)) => return Err(place.of(&error)),
                Err(_) => return Err(place.unreachable("no answer to a consumer")),
            };
            sources.push(Source {
                queue,
                priority,
                consumer,
                next: None,
            });
        }
        let session = self.shared.sessions.add(channel, connections);
        Ok(Consuming { session, sources })
    }
}

impl Intake for AmqpIntake {
    async fn receive(&mut self) -> Result<Delivery, QueueError> {
        loop {
            let Some(consuming) = &mut self.consuming else {
                self.consuming = Some(self.begin().await?);
                continue;
            };
            let (account, lane) = (&self.account, self.lane);
            let next = std::future::poll_fn(|cx| consuming.poll_next(cx, account, lane));
            if let Some(delivery) = next.await {
                return Ok(delivery);
            }
            // Retired at once, so that this future may be dropped in the pause.
            let link_stands = !consuming.session.connections.is_gone();
            if let Some(consuming) = self.consuming.take() {
                consuming.retire(&self.shared);
            }
            if link_stands {
                tokio::time::sleep(REOPEN_PAUSE).await;
            }
        }
    }
}

impl Drop for AmqpIntake {
    fn drop(&mut self) {
        if let Some(consuming) = self.consuming.take() {
            consuming.retire(&self.shared);
        }
    }
}

// === impl Consuming ===

impl Consuming {
    /// The next delivery, or none when any of the consumers has ended.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        account: &AccountName,
        lane: Lane,
    ) -> Poll<Option<Delivery>> {
        for source in &mut self.sources {
            if source.next.is_some() {
                continue;
            }
            match Pin::new(&mut source.consumer).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    source.next = Some(self.session.hold(message, source, account, lane));
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
        }
        match self
            .sources
            .iter_mut()
            .find_map(|source| source.next.take())
        {
            Some(delivery) => Poll::Ready(Some(delivery)),
            None => Poll::Pending,
        }
    }

    /// Ends the consumers and returns what was not received. What was stays in hand, and its
    /// channel open.
    fn retire(self, shared: &Arc<Shared>) {
        let Self { session, sources } = self;
        let not_received = sources.iter().filter(|source| source.next.is_some());
        let received = session.hand().held.len() - not_received.count();
        if received == 0 || session.is_gone() {
            shared.sessions.remove(session.number);
            return;
        }
        let shared = Arc::clone(shared);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let giving_back = give_back(&session, sources);
                if timeout(ANSWER_TIMEOUT, giving_back).await.is_err() {
                    tracing::debug!("the broker did not take back what was not received");
                }
                shared.sessions.retire(&session);
            });
        }
    }
}

/// Cancels the consumers and returns what they still hold, in order.
async fn give_back(session: &Session, sources: Vec<Source>) {
    for mut source in sources {
        let tag = source.consumer.tag();
        let cancelled = (session.channel).basic_cancel(tag, BasicCancelOptions::default());
        if let Err(error) = cancelled.await {
            tracing::debug!(%error, "cancelling a consumer");
            return;
        }
        if let Some(held) = source.next.and_then(|next| session.take(next.tag.number)) {
            held.give_back().await;
        }
        // After the cancel the stream ends behind its last delivery.
        while let Some(Ok(message)) = source.consumer.next().await {
            if let Err(error) = message.nack(REQUEUE).await {
                tracing::debug!(%error, "giving a delivery back");
            }
        }
    }
}

const REQUEUE: BasicNackOptions = BasicNackOptions {
    multiple: false,
    requeue: true,
};

// === impl Session ===

impl Session {
    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came over it is in the queue again, or soon will be.
    pub(super) fn is_gone(&self) -> bool {
        self.connections.is_gone() || !self.channel.status().connected()
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    fn hold(
        &self,
        message: lapin::message::Delivery,
        source: &Source,
        account: &AccountName,
        lane: Lane,
    ) -> Delivery {
        let mut story = properties::story(&message.properties);
        let priority = match lane {
            Lane::Sends => source.priority,
            Lane::Results => story.priority,
        };
        story.priority = priority;
        let delivery = Delivery {
            body: message.data.into(),
            message_id: properties::message_id(&message.properties),
            account: account.clone(),
            priority,
            lane,
            redelivered: message.redelivered,
            tag: Tag {
                intake: self.number,
                number: message.delivery_tag,
            },
            story,
        };
        let held = Held {
            properties: message.properties,
            queue: source.queue.clone(),
            published_at: delivery.story.published_at,
            acker: message.acker,
        };
        self.hand().held.insert(message.delivery_tag, held);
        delivery
    }

    fn take(&self, number: u64) -> Option<Held> {
        self.hand().held.remove(&number)
    }
}

// === impl Held ===

impl Held {
    /// # Errors
    /// [`QueueError::Lost`]: the broker hands it out again.
    pub(super) async fn ack(&self) -> Result<(), QueueError> {
        let acked = self.acker.ack(BasicAckOptions::default());
        match timeout(ANSWER_TIMEOUT, acked).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false) | Err(_)) | Err(_) => Err(QueueError::Lost),
        }
    }

    /// Where that fails the channel is gone, and the broker takes it back by itself.
    pub(super) async fn give_back(&self) {
        let given_back = self.acker.nack(REQUEUE);
        if !matches!(timeout(ANSWER_TIMEOUT, given_back).await, Ok(Ok(true))) {
            tracing::debug!("giving a delivery back: its channel is gone");
        }
    }
}

// === impl Sessions ===

impl Sessions {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, channel: Channel, connections: Arc<Connections>) -> Arc<Session> {
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let session = Arc::new(Session {
            number,
            channel,
            connections,
            hand: Mutex::default(),
        });
        let mut open = self.open();
        // Of those whose connection ended, nothing can be settled.
        open.retain(|_, session| !session.is_gone());
        open.insert(number, Arc::clone(&session));
        session
    }

    fn remove(&self, number: u64) {
        self.open().remove(&number);
    }

    fn retire(&self, session: &Session) {
        let mut hand = session.hand();
        hand.retired = true;
        let empty = hand.held.is_empty();
        drop(hand);
        if empty {
            self.remove(session.number);
        }
    }

    /// Takes a delivery out of the hand, to settle it.
    ///
    /// # Errors
    /// [`QueueError::Lost`] when its channel or connection ended, or when it was settled before.
    pub(super) fn take(&self, tag: Tag) -> Result<(Arc<Session>, Held), QueueError> {
        let found = self.open().get(&tag.intake).cloned();
        let session = found.ok_or(QueueError::Lost)?;
        let mut hand = session.hand();
        let held = hand.held.remove(&tag.number).ok_or(QueueError::Lost)?;
        let last = hand.retired && hand.held.is_empty();
        drop(hand);
        if last {
            self.remove(session.number);
        }
        if session.is_gone() {
            return Err(QueueError::Lost);
        }
        Ok((session, held))
    }

    /// How many deliveries of each queue are held or in hand, and the oldest one's publish time.
    pub(super) fn held(&self) -> BTreeMap<String, (u64, Option<Timestamp>)> {
        let mut found: BTreeMap<String, (u64, Option<Timestamp>)> = BTreeMap::new();
        let open = self.open();
        for session in open.values().filter(|session| !session.is_gone()) {
            for held in session.hand().held.values() {
                let (count, oldest) = found.entry(held.queue.clone()).or_default();
                *count += 1;
                *oldest = [*oldest, held.published_at].into_iter().flatten().min();
            }
        }
        found
    }
}
