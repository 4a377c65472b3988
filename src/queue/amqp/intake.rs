//! Receiving: the consumers of one lane, and the channel that outlives them.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use lapin::options::BasicCancelOptions;
use lapin::{Acker, BasicProperties, Channel, Consumer};
use tokio_util::task::AbortOnDropHandle;

use super::channel::{self, ANSWER_TIMEOUT};
use super::link::Connections;
use super::{Shared, error, properties};
use crate::message::{AccountName, Priority};
use crate::queue::{Delivery, Intake, Lane, QueueError, Tag};

/// Before a lane is opened again, so that a consumer which is refused at once does not spin.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

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
    state: State,
}

#[derive(Debug)]
enum State {
    Ended,
    /// A task of its own, so that a `receive` that is given up does not begin from the start.
    Opening(AbortOnDropHandle<Result<Consuming, QueueError>>),
    Consuming(Consuming),
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
    /// Not received yet; the consumer itself cannot be looked into.
    waiting: VecDeque<Delivery>,
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
    pub(super) acker: Acker,
}

// === impl AmqpIntake ===

impl AmqpIntake {
    /// Begins at once, in the background.
    pub(super) fn open(
        shared: Arc<Shared>,
        account: AccountName,
        lane: Lane,
        prefetch: u16,
    ) -> Self {
        let mut intake = Self {
            shared,
            account,
            lane,
            prefetch,
            state: State::Ended,
        };
        intake.state = intake.opening(Duration::ZERO);
        intake
    }

    fn opening(&self, pause: Duration) -> State {
        let (shared, account) = (Arc::clone(&self.shared), self.account.clone());
        let (lane, prefetch) = (self.lane, self.prefetch);
        let task = tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            Consuming::begin(&shared, &account, lane, prefetch).await
        });
        State::Opening(AbortOnDropHandle::new(task))
    }

    /// Ends the consumers, if there are any.
    fn end(&mut self) {
        if let State::Consuming(consuming) = std::mem::replace(&mut self.state, State::Ended) {
            consuming.retire(&self.shared);
        }
    }
}

impl Intake for AmqpIntake {
    async fn receive(&mut self) -> Result<Delivery, QueueError> {
        loop {
            match &mut self.state {
                State::Ended => self.state = self.opening(REOPEN_PAUSE),
                State::Opening(task) => {
                    let opened = task.await;
                    self.state = State::Ended;
                    let opened = opened.map_err(|error| QueueError::NotTaken {
                        why: format!("opening a lane: {error}"),
                    })?;
                    let consuming = opened?;
                    self.shared.sessions.keep(&consuming.session);
                    self.state = State::Consuming(consuming);
                }
                State::Consuming(consuming) => {
                    let (account, lane) = (&self.account, self.lane);
                    let next = std::future::poll_fn(|cx| consuming.poll_next(cx, account, lane));
                    if let Some(delivery) = next.await {
                        return Ok(delivery);
                    }
                    self.end();
                }
            }
        }
    }
}

impl Drop for AmqpIntake {
    fn drop(&mut self) {
        self.end();
    }
}

// === impl Consuming ===

impl Consuming {
    /// Opens a channel and its consumers, as soon as the link is up.
    async fn begin(
        shared: &Shared,
        account: &AccountName,
        lane: Lane,
        prefetch: u16,
    ) -> Result<Self, QueueError> {
        let connections = shared.link.connections().await?;
        let channel = channel::open(&connections, prefetch.max(1)).await?;
        let mut sources = Vec::new();
        for (queue, priority) in shared.topology.lanes(account, lane) {
            let consuming = channel::consume(&channel, connections.place(), &queue);
            let consumer = consuming.await.inspect_err(|error| {
                if matches!(error, QueueError::Unroutable { .. }) {
                    // Somebody deleted it: a worker's new connections declare it anew.
                    connections.give_up();
                }
            })?;
            sources.push(Source {
                queue,
                priority,
                consumer,
                waiting: VecDeque::new(),
            });
        }
        let session = Arc::new(Session {
            number: shared.sessions.number(),
            channel,
            connections,
            hand: Mutex::default(),
        });
        Ok(Self { session, sources })
    }

    /// The next delivery, or none when any of the consumers has ended.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        account: &AccountName,
        lane: Lane,
    ) -> Poll<Option<Delivery>> {
        for source in &mut self.sources {
            loop {
                match Pin::new(&mut source.consumer).poll_next(cx) {
                    Poll::Ready(Some(Ok(message))) => {
                        let delivery = self.session.hold(message, source, account, lane);
                        source.waiting.push_back(delivery);
                    }
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
                    Poll::Pending => break,
                }
            }
        }
        let mut sources = self.sources.iter_mut();
        match sources.find_map(|source| source.waiting.pop_front()) {
            Some(delivery) => Poll::Ready(Some(delivery)),
            None => Poll::Pending,
        }
    }

    /// Ends the consumers and returns what was not received. What was stays in hand, and its
    /// channel open.
    fn retire(self, shared: &Arc<Shared>) {
        let Self { session, sources } = self;
        let runtime = tokio::runtime::Handle::try_current();
        let (false, Ok(runtime)) = (session.is_gone(), runtime) else {
            shared.sessions.remove(session.number);
            return;
        };
        let shared = Arc::clone(shared);
        runtime.spawn(async move {
            if let Err(error) = give_back(&session, sources).await {
                tracing::debug!(%error, "giving back what was not received");
            }
            shared.sessions.retire(&session);
        });
    }
}

/// Cancels the consumers and returns what they still hold, in order.
async fn give_back(session: &Session, sources: Vec<Source>) -> Result<(), QueueError> {
    let place = session.connections.place();
    for mut source in sources {
        let cancelled =
            (session.channel).basic_cancel(source.consumer.tag(), BasicCancelOptions::default());
        error::within(ANSWER_TIMEOUT, place, cancelled).await?;
        let mut tags = Vec::new();
        for delivery in source.waiting {
            session.hand().held.remove(&delivery.tag.number);
            tags.push(delivery.tag.number);
        }
        // After the cancel the stream ends behind its last delivery.
        while let Some(Ok(message)) = source.consumer.next().await {
            tags.push(message.delivery_tag);
        }
        channel::give_all_back(&session.channel, place, &source.queue, &tags).await?;
    }
    Ok(())
}

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
}

// === impl Sessions ===

impl Sessions {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Keeps a session open until it is removed.
    fn keep(&self, session: &Arc<Session>) {
        let mut open = self.open();
        // Of those whose connection ended, nothing can be settled.
        open.retain(|_, session| !session.is_gone());
        open.insert(session.number, Arc::clone(session));
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
