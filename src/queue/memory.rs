//! The model queue: simulation and tests.
//!
//! It keeps the whole contract and nothing outlives the process. Every order is that of a
//! `BTreeMap`, time is the [`Clock`] it was given, those who wait are woken in the order in which
//! they came, and there are no threads: a seeded run on tokio's paused clock is the same each time.
//! It is our belief about RabbitMQ; what the contract suite teaches about the real one goes back
//! into this file.
//!
//! A broker has as many connections as are made with [`MemoryQueue::connect`], one for each
//! process, and each of them can be lost, silenced, or broken in the middle of a settle.

mod line;
mod state;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Notify;

pub use self::state::Message;
use self::state::{Consumer, State};
use super::{
    DeadLetter, DeadLetters, Delivery, Depth, Fate, Intake, IntakeOptions, Lane, Lease, Queue,
    QueueError, Tally, Teller, Validity,
};
use crate::clock::Clock;
use crate::journal::Entry;
use crate::message::AccountName;
use crate::outcome::Disposition;
use crate::queue::Parcel;

/// One process's connection; clones share it.
#[derive(Clone, Debug)]
pub struct MemoryQueue {
    broker: Arc<Broker>,
    connection: Arc<Connection>,
}

#[derive(Debug)]
struct Broker {
    prefix: String,
    state: Mutex<State>,
    /// Told whenever something may have become ready. No `watch`: it would wake in an order of its
    /// own.
    changed: Notify,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    /// Of the process.
    clock: Clock,
    /// What happens to the next settle or publish.
    next: Mutex<Option<Interruption>>,
}

/// What may come in the middle of a settle or of a publish.
#[derive(Clone, Debug)]
pub enum Interruption {
    /// It fails with this error, and nothing was done.
    Fails(QueueError),
    /// The connection is lost before the broker heard of it.
    Before,
    /// The connection is lost after the new copy was taken and before the old one was acknowledged:
    /// both stand. The caller gets an error.
    Between,
    /// The connection is lost after all of it was done. The caller gets an error.
    After,
    /// The new copy was confirmed, and the acknowledgement of the old one was lost on its way with
    /// the connection: both stand, and the caller takes it for done. Acknowledgements are not
    /// confirmed.
    AckLost,
}

/// What stands where.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Account by account, the most urgent first, and then in the order in which they came.
    pub ready: Vec<Message>,
    /// With their due times, the next one first.
    pub waiting: Vec<(Timestamp, Message)>,
    /// Handed out and not settled.
    pub in_hand: Vec<Message>,
    pub dead: Vec<DeadLetter>,
}

/// Hands out of one lane.
#[derive(Debug)]
pub struct MemoryIntake {
    queue: MemoryQueue,
    account: AccountName,
    lane: Lane,
    options: IntakeOptions,
    number: u64,
}

// === impl MemoryQueue ===

impl MemoryQueue {
    /// A broker, and the first connection to it.
    #[must_use]
    pub fn new(
        clock: Clock,
        prefix: impl Into<String>,
        accounts: impl IntoIterator<Item = AccountName>,
    ) -> Self {
        let broker = Arc::new(Broker {
            prefix: prefix.into(),
            state: Mutex::new(State::new(accounts)),
            changed: Notify::new(),
        });
        Self::over(broker, clock)
    }

    fn over(broker: Arc<Broker>, clock: Clock) -> Self {
        let connection = Arc::new(Connection {
            number: broker.lock().number(),
            clock,
            next: Mutex::new(None),
        });
        Self { broker, connection }
    }

    /// The connection of another process, whose clock this is, to the same broker.
    #[must_use]
    pub fn connect(&self, clock: Clock) -> Self {
        Self::over(Arc::clone(&self.broker), clock)
    }

    /// What stands where, now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let state = self.broker.state_now();
        Standing {
            ready: state.ready.values().cloned().collect(),
            waiting: state.waiting.values().cloned().collect(),
            in_hand: state.in_hand.values().cloned().collect(),
            dead: state.dead.values().cloned().collect(),
        }
    }

    /// Whether a delivery can still be settled.
    #[must_use]
    pub fn is_in_hand(&self, delivery: &Delivery) -> bool {
        self.broker.lock().in_hand.contains_key(&delivery.tag)
    }

    /// How many messages stand anywhere but among the dead letters.
    #[must_use]
    pub fn undone(&self) -> usize {
        let state = self.broker.state_now();
        state.ready.len() + state.waiting.len() + state.in_hand.len()
    }

    /// The next settle or publish of this connection is interrupted.
    pub fn interrupt_next(&self, interruption: Interruption) {
        *self.connection.next() = Some(interruption);
    }

    /// As if the connection broke and came back: all that it had in hand is handed out again, and
    /// the older deliveries settle to [`QueueError::Lost`].
    pub fn lose_connection(&self) {
        self.broker.lock().lose(self.connection.number);
        self.broker.changed.notify_waiters();
    }

    /// The journal so far.
    #[must_use]
    pub fn notes(&self) -> Vec<Entry> {
        self.broker.lock().notes.clone()
    }

    /// What its intake handed out, and nobody received, goes back with the intake.
    pub(crate) fn hand_back(&self, delivery: &Delivery) {
        let mut state = self.broker.lock();
        if let Some(message) = state.in_hand.remove(&delivery.tag) {
            state.give_back(message);
        }
        drop(state);
        self.broker.changed.notify_waiters();
    }

    /// How many intakes were opened so far.
    #[must_use]
    pub fn intakes(&self) -> u64 {
        self.broker.lock().intakes
    }

    /// As if this process and the broker did not hear each other for longer than a lease holds, or
    /// did again.
    pub fn renew_lease(&self, validity: Validity) {
        for line in self.broker.lock().lines.values() {
            line.set(self.connection.number, validity);
        }
    }

    /// As if another worker should dispatch the account.
    pub fn recall_lease(&self, account: &AccountName) {
        if let Some(line) = self.broker.lock().lines.get(account) {
            line.recall();
        }
    }

    /// The broker dies: all connections are lost, and nobody is served until [`Self::come_up`]. Of
    /// what waits, the copies at these places (modulo their number) come twice; returns those, each
    /// a body and its `message_id`.
    pub fn go_down(&self, twice: &[usize]) -> Vec<(Bytes, Option<String>)> {
        let mut state = self.broker.lock();
        state.lose_all();
        state.down = true;
        let waiting = state.waiting.len().max(1);
        let twice = twice.iter().map(|place| place % waiting);
        let repeated = twice.filter_map(|place| state.repeat_waiting(place));
        let repeated = repeated.collect();
        drop(state);
        self.broker.changed.notify_waiters();
        repeated
    }

    /// The broker is back.
    pub fn come_up(&self) {
        self.broker.lock().down = false;
        self.broker.changed.notify_waiters();
    }

    /// The lease, unless another connection has it or nobody is served.
    fn take_lease(&self, account: &AccountName) -> Option<Lease> {
        let mut state = self.broker.lock();
        if state.down {
            return None;
        }
        let line = state.lines.entry(account.clone()).or_default();
        let teller = self.teller(account);
        let (lease, grant, term) = line.take(self.connection.number, teller)?;
        let (broker, account) = (Arc::clone(&self.broker), account.clone());
        tokio::spawn(async move {
            grant.unused().await;
            if let Some(line) = broker.lock().lines.get_mut(&account) {
                line.let_go(term);
            }
            broker.changed.notify_waiters();
        });
        Some(lease)
    }

    /// What an owner tells stands in the line.
    fn teller(&self, account: &AccountName) -> Teller {
        let (broker, connection) = (Arc::clone(&self.broker), self.connection.number);
        let account = account.clone();
        Teller::new(move |word| {
            let mut state = broker.lock();
            let line = state.lines.get_mut(&account);
            let told = line.is_some_and(|line| line.told(connection, word));
            Box::pin(std::future::ready(told))
        })
    }

    fn unreachable() -> QueueError {
        QueueError::Unreachable {
            place: "memory".into(),
            why: "the broker is down".into(),
        }
    }
}

impl Queue for MemoryQueue {
    type Intake = MemoryIntake;

    async fn lease(&self, account: &AccountName) -> Result<Lease, QueueError> {
        loop {
            let changed = self.broker.changed.notified();
            if let Some(lease) = self.take_lease(account) {
                return Ok(lease);
            }
            changed.await;
        }
    }

    /// It holds none that were not received; `prefetch` counts when the connection is lost, and
    /// says how far it looks ahead.
    async fn open(
        &self,
        account: &AccountName,
        lane: Lane,
        options: IntakeOptions,
    ) -> Result<MemoryIntake, QueueError> {
        let mut state = self.broker.lock();
        state.accounts.insert(account.clone());
        state.intakes += 1;
        let intake = MemoryIntake {
            queue: self.clone(),
            account: account.clone(),
            lane,
            options,
            number: state.number(),
        };
        intake.consume(&mut state);
        Ok(intake)
    }

    async fn settle(&self, delivery: Delivery, disposition: Disposition) -> Result<(), QueueError> {
        let Connection { number, clock, .. } = self.connection.as_ref();
        let interruption = self.connection.next().take();
        let mut state = self.broker.lock();
        let message = (state.in_hand.remove(&delivery.tag)).ok_or(QueueError::Lost)?;
        let publishes = !matches!(disposition, Disposition::Complete | Disposition::Release);
        let settled = match interruption {
            None => {
                state.carry_out(message, disposition, clock);
                Ok(())
            }
            Some(Interruption::Fails(error)) => {
                state.give_back(message);
                Err(error)
            }
            Some(interruption) => {
                let taken = !matches!(interruption, Interruption::Before);
                let acknowledged = matches!(interruption, Interruption::After);
                if taken && (publishes || acknowledged) {
                    state.carry_out(message.clone(), disposition, clock);
                }
                if !acknowledged {
                    state.in_hand.insert(delivery.tag, message);
                }
                state.lose(*number);
                if matches!(interruption, Interruption::AckLost) {
                    Ok(())
                } else {
                    Err(QueueError::Lost)
                }
            }
        };
        drop(state);
        self.broker.changed.notify_waiters();
        settled
    }

    async fn publish(&self, parcel: Parcel) -> Result<(), QueueError> {
        let mut state = self.broker.lock();
        if state.down {
            return Err(Self::unreachable());
        }
        let now = self.connection.clock.now();
        let published = match self.connection.next().take() {
            None => state.publish(parcel, now),
            Some(Interruption::Fails(error)) => Err(error),
            Some(Interruption::Before) => Err(Self::unreachable()),
            // It stands, and no confirm says so.
            Some(Interruption::Between | Interruption::After | Interruption::AckLost) => state
                .publish(parcel, now)
                .and_then(|()| Err(Self::unreachable())),
        };
        drop(state);
        self.broker.changed.notify_waiters();
        published
    }

    async fn depths(&self) -> Result<Vec<Depth>, QueueError> {
        Ok(self.broker.state_now().depths(&self.broker.prefix))
    }

    async fn waiting(&self, account: &AccountName, _most: u64) -> Result<u64, QueueError> {
        let state = self.broker.state_now();
        let messages = state.ready.values().chain(state.in_hand.values());
        let here = messages.filter(|it| it.account == *account && it.lane == Lane::Sends);
        Ok(here.count() as u64)
    }

    fn note(&self, entry: Entry) {
        self.broker.lock().notes.push(entry);
    }

    fn is_up(&self) -> bool {
        !self.broker.lock().down
    }

    async fn close(&self) {
        self.lose_connection();
    }
}

impl DeadLetters for MemoryQueue {
    async fn sweep<F>(&self, mut choose: F) -> Result<Tally, QueueError>
    where
        F: FnMut(&DeadLetter) -> ControlFlow<(), Fate> + Send,
    {
        let mut tally = Tally::default();
        let numbers: Vec<u64> = self.broker.lock().dead.keys().copied().collect();
        for number in numbers {
            let Some(letter) = self.broker.lock().dead.get(&number).cloned() else {
                continue;
            };
            tally.visited += 1;
            let ControlFlow::Continue(fate) = choose(&letter) else {
                break;
            };
            match fate {
                Fate::Keep => {}
                Fate::Replay(parcel) => {
                    self.publish(*parcel).await?;
                    self.broker.lock().dead.remove(&number);
                    tally.replayed += 1;
                }
                Fate::Discard => {
                    self.broker.lock().dead.remove(&number);
                    tally.discarded += 1;
                }
            }
        }
        Ok(tally)
    }
}

// === impl MemoryIntake ===

impl MemoryIntake {
    /// Makes itself known to the broker, if it is not.
    fn consume(&self, state: &mut State) {
        let consumer = || Consumer {
            connection: self.queue.connection.number,
            account: self.account.clone(),
            lane: self.lane,
            prefetch: self.options.prefetch,
            turns: self.options.turns.clone(),
        };
        if !state.down {
            state.consumers.entry(self.number).or_insert_with(consumer);
        }
    }
}

impl Drop for MemoryIntake {
    fn drop(&mut self) {
        self.queue.broker.lock().cancel(self.number);
    }
}

impl Intake for MemoryIntake {
    async fn receive(&mut self) -> Result<Delivery, QueueError> {
        let broker = Arc::clone(&self.queue.broker);
        loop {
            let changed = broker.changed.notified();
            let next_due = {
                let mut state = broker.state_now();
                self.consume(&mut state);
                if let Some(delivery) = state.hand_out(&self.account, self.lane, self.number) {
                    return Ok(delivery);
                }
                let next = state.waiting.first_key_value();
                next.map(|((due, _), _)| *due).filter(|_| !state.down)
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = sleep_until(next_due) => {}
            }
        }
    }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

// === impl Broker, Connection ===

impl Broker {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No method panics half-way through a change, so a poisoned state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, with everything that is due in its lane.
    fn state_now(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.promote();
        state
    }
}

impl Connection {
    fn next(&self) -> MutexGuard<'_, Option<Interruption>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
