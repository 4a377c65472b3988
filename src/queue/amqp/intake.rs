//! Receiving: the consumers of one lane, and the channel that outlives them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use lapin::Consumer;
use lapin::message::Delivery as Message;
use lapin::options::BasicCancelOptions;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::channel::{self, ANSWER_TIMEOUT};
use super::session::{Held, Session};
use super::{Shared, error, properties};
use crate::message::{AccountName, Priority};
use crate::queue::turn::{Turns, Waiting};
use crate::queue::{Delivery, Intake, IntakeOptions, Lane, QueueError};

/// Before a lane is opened again, so that a consumer which is refused at once does not spin.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
/// How long a close waits for what is given back. It takes milliseconds; a broker that is that
/// slow takes everything back when the connection ends.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_secs(3);

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
    turns: Turns,
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
    queue: Arc<str>,
    priority: Priority,
    consumer: Consumer,
    /// Not received yet, in the order in which they came; the consumer itself cannot be looked into.
    waiting: VecDeque<(Waiting, Delivery)>,
}

// === impl AmqpIntake ===

impl AmqpIntake {
    /// Begins at once, in the background.
    pub(super) fn open(
        shared: Arc<Shared>,
        account: AccountName,
        lane: Lane,
        options: IntakeOptions,
    ) -> Self {
        let mut intake = Self {
            shared,
            account,
            lane,
            prefetch: options.prefetch.max(1),
            turns: options.turns,
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
            loop {
                match Consuming::begin(&shared, &account, lane, prefetch).await {
                    // The link went down meanwhile, or the queue has no leader just now.
                    Err(QueueError::Unreachable { .. }) if !shared.link.is_closed() => {
                        tokio::time::sleep(REOPEN_PAUSE).await;
                    }
                    begun => return begun,
                }
            }
        });
        State::Opening(AbortOnDropHandle::new(task))
    }

    /// Ends the consumers, if there are any. What goes back does so even if nobody waits for it.
    fn end(&mut self) -> Option<JoinHandle<u64>> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Consuming(consuming) => consuming.retire(&self.shared),
            State::Ended | State::Opening(_) => None,
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
                    let (turns, prefetch) = (&self.turns, self.prefetch);
                    let next = std::future::poll_fn(|cx| {
                        if !consuming.take_in(cx, account, lane) {
                            return Poll::Ready(None);
                        }
                        match consuming.next(turns, prefetch) {
                            Some(delivery) => Poll::Ready(Some(delivery)),
                            None => Poll::Pending,
                        }
                    });
                    if let Some(delivery) = next.await {
                        return Ok(delivery);
                    }
                    drop(self.end());
                }
            }
        }
    }

    fn held(&self) -> [u64; Priority::ALL.len()] {
        let State::Consuming(consuming) = &self.state else {
            return Default::default();
        };
        Priority::ALL.map(|priority| {
            let sources = consuming.sources.iter();
            let line = sources.filter(|source| source.priority == priority);
            line.map(|source| source.waiting.len() as u64).sum()
        })
    }

    async fn close(mut self) -> u64 {
        let Some(going_back) = self.end() else {
            return 0;
        };
        if let Ok(given_back) = timeout(GIVE_BACK_TIMEOUT, going_back).await {
            return given_back.unwrap_or(0);
        }
        tracing::warn!("the broker is slow to take back what was not begun");
        0
    }
}

impl Drop for AmqpIntake {
    fn drop(&mut self) {
        drop(self.end());
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
        let channel = channel::open(&connections, prefetch).await?;
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
                queue: queue.into(),
                priority,
                consumer,
                waiting: VecDeque::new(),
            });
        }
        let session = shared.sessions.begin(channel, connections);
        Ok(Self { session, sources })
    }

    /// Takes in what has come, until it has to wait; `false` when any of the consumers has ended.
    fn take_in(&mut self, cx: &mut Context<'_>, account: &AccountName, lane: Lane) -> bool {
        for source in &mut self.sources {
            loop {
                match Pin::new(&mut source.consumer).poll_next(cx) {
                    Poll::Ready(Some(Ok(message))) => {
                        let delivery = source.delivery(message, &self.session, account, lane);
                        let waiting = Waiting::new(lane, &delivery.body);
                        source.waiting.push_back((waiting, delivery));
                    }
                    Poll::Ready(Some(Err(_)) | None) => return false,
                    Poll::Pending => break,
                }
            }
        }
        true
    }

    /// The delivery whose turn it is.
    fn next(&mut self, turns: &Turns, look_ahead: u16) -> Option<Delivery> {
        let given = turns.give(Priority::ALL.map(|priority| {
            let waits = |it: &Source| it.priority == priority && !it.waiting.is_empty();
            self.sources.iter().any(waits)
        }))?;
        let mut sources = self.sources.iter_mut();
        sources.find(|it| it.priority == given)?.next(look_ahead)
    }

    /// Ends the consumers and returns what was not received, and how many that were. What was
    /// received stays in hand, and its channel open.
    fn retire(self, shared: &Arc<Shared>) -> Option<JoinHandle<u64>> {
        let (shared, runtime) = (Arc::clone(shared), Handle::try_current());
        let (false, Ok(runtime)) = (self.session.is_gone(), runtime) else {
            shared.sessions.retire(&self.session);
            return None;
        };
        let farewells = self.session.connections().farewells().clone();
        let going_back = async move {
            let given_back = give_back(&self.session, self.sources).await;
            shared.sessions.retire(&self.session);
            given_back.unwrap_or_else(|error| {
                tracing::debug!(%error, "giving back what was not received");
                0
            })
        };
        Some(farewells.spawn_on(going_back, &runtime))
    }
}

// === impl Source ===

impl Source {
    /// The next of those that wait: the others stay in their order.
    fn next(&mut self, look_ahead: u16) -> Option<Delivery> {
        let place = Waiting::earliest(self.waiting.iter().map(|(it, _)| it), look_ahead);
        for (overtaken, _) in self.waiting.iter_mut().take(place) {
            overtaken.let_pass();
        }
        self.waiting.remove(place).map(|(_, delivery)| delivery)
    }

    fn delivery(
        &self,
        message: Message,
        session: &Session,
        account: &AccountName,
        lane: Lane,
    ) -> Delivery {
        let mut story = properties::story(&message.properties);
        let priority = match lane {
            Lane::Sends => self.priority,
            Lane::Results => story.priority,
        };
        story.priority = priority;
        let message_id = properties::message_id(&message.properties);
        let held = Held {
            properties: message.properties,
            acker: message.acker,
            queue: Arc::clone(&self.queue),
            published_at: story.published_at,
        };
        Delivery {
            body: message.data.into(),
            message_id,
            account: account.clone(),
            priority,
            lane,
            story: Box::new(story),
            redelivered: message.redelivered,
            tag: session.hold(message.delivery_tag, held),
        }
    }
}

/// Cancels the consumers and returns what they still hold, in order, and how many that were.
async fn give_back(session: &Session, sources: Vec<Source>) -> Result<u64, QueueError> {
    let place = session.connections().place();
    let mut given_back = 0;
    for mut source in sources {
        let tag = source.consumer.tag();
        let cancelled = (session.channel()).basic_cancel(tag, BasicCancelOptions::default());
        error::within(ANSWER_TIMEOUT, place, cancelled).await?;
        let mut tags = Vec::new();
        for (_, delivery) in source.waiting {
            session.forget(delivery.tag);
            tags.push(delivery.tag.number);
        }
        // After the cancel the stream ends behind its last delivery.
        while let Some(Ok(message)) = source.consumer.next().await {
            tags.push(message.delivery_tag);
        }
        channel::give_all_back(session.channel(), place, &source.queue, &tags).await?;
        given_back += tags.len() as u64;
    }
    Ok(given_back)
}
