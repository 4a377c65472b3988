//! The model queue: simulation and tests.
//!
//! It keeps the whole contract and nothing outlives the process. Every order is that of a
//! `BTreeMap`, time is the [`Clock`] it was given, and there are no threads: a seeded run on tokio's
//! paused clock is the same each time. It is our belief about RabbitMQ; what the contract suite
//! teaches about the real one goes back into this file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    DeadLetter, DeadLetters, Delivery, Depth, Fate, Intake, Lane, Lease, Queue, QueueError, Tag,
    Tally, Validity,
};
use crate::clock::{self, Clock};
use crate::message::{AccountName, Parcel, Priority};
use crate::outcome::Disposition;
use crate::story::Story;

/// A handle; clones share one queue.
#[derive(Clone, Debug)]
pub struct MemoryQueue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    prefix: String,
    state: Mutex<State>,
    /// Moves whenever something may have become ready.
    changed: watch::Sender<u64>,
}

/// Each message stands in exactly one of the four maps.
#[derive(Debug)]
struct State {
    accounts: BTreeSet<AccountName>,
    /// In the order in which they are handed out.
    ready: BTreeMap<Seat, Message>,
    waiting: BTreeMap<(Timestamp, u64), Message>,
    in_hand: BTreeMap<Tag, Message>,
    dead: BTreeMap<u64, DeadLetter>,
    /// Numbers messages, deliveries and intakes alike.
    last_number: u64,
    settle_fails_with: Option<QueueError>,
    lease: watch::Sender<Validity>,
    leased_before: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seat {
    account: AccountName,
    lane: Lane,
    /// `None` in the results lane, which has one order for all.
    priority: Option<Priority>,
    number: u64,
}

/// One message, as it stands.
#[derive(Clone, Debug)]
pub struct Message {
    pub body: Bytes,
    pub message_id: Option<String>,
    pub account: AccountName,
    pub priority: Priority,
    pub lane: Lane,
    pub story: Story,
    pub redelivered: bool,
    number: u64,
}

/// What stands where.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// In the order in which they would be handed out, account by account.
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
    shared: Arc<Shared>,
    account: AccountName,
    lane: Lane,
    number: u64,
    changed: watch::Receiver<u64>,
}

// === impl MemoryQueue ===

impl MemoryQueue {
    #[must_use]
    pub fn new(
        clock: Clock,
        prefix: impl Into<String>,
        accounts: impl IntoIterator<Item = AccountName>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock,
                prefix: prefix.into(),
                state: Mutex::new(State {
                    accounts: accounts.into_iter().collect(),
                    ready: BTreeMap::new(),
                    waiting: BTreeMap::new(),
                    in_hand: BTreeMap::new(),
                    dead: BTreeMap::new(),
                    last_number: 0,
                    settle_fails_with: None,
                    lease: watch::Sender::new(Validity::Held),
                    leased_before: false,
                }),
                changed: watch::Sender::new(0),
            }),
        }
    }

    /// What stands where, now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let state = self.shared.state_now();
        Standing {
            ready: state.ready.values().cloned().collect(),
            waiting: (state.waiting.iter())
                .map(|((due, _), message)| (*due, message.clone()))
                .collect(),
            in_hand: state.in_hand.values().cloned().collect(),
            dead: state.dead.values().cloned().collect(),
        }
    }

    /// The next `settle` fails with `error`, and its message is handed out again.
    pub fn fail_next_settle(&self, error: QueueError) {
        self.shared.lock().settle_fails_with = Some(error);
    }

    /// As if the connection broke and came back: all that is in hand is handed out again, and the
    /// older deliveries settle to [`QueueError::Lost`].
    pub fn lose_connection(&self) {
        let mut state = self.shared.lock();
        for (_, message) in std::mem::take(&mut state.in_hand) {
            state.give_back(message);
        }
        drop(state);
        self.shared.wake();
    }

    /// As if another worker had taken the lease over; the next `lease` gets it back, not fresh.
    pub fn lose_lease(&self) {
        let mut state = self.shared.lock();
        state.lease.send_replace(Validity::Lost);
        state.lease = watch::Sender::new(Validity::Held);
    }
}

impl Queue for MemoryQueue {
    type Intake = MemoryIntake;

    async fn lease(&self, _account: &AccountName) -> Result<Lease, QueueError> {
        let mut state = self.shared.lock();
        let fresh = !std::mem::replace(&mut state.leased_before, true);
        Ok(Lease::new(state.lease.subscribe(), fresh))
    }

    /// It holds none that were not received, whatever `prefetch` says.
    async fn open(
        &self,
        account: &AccountName,
        lane: Lane,
        _prefetch: u16,
    ) -> Result<MemoryIntake, QueueError> {
        let mut state = self.shared.lock();
        state.accounts.insert(account.clone());
        Ok(MemoryIntake {
            number: state.number(),
            shared: Arc::clone(&self.shared),
            account: account.clone(),
            lane,
            changed: self.shared.changed.subscribe(),
        })
    }

    async fn settle(&self, delivery: Delivery, disposition: Disposition) -> Result<(), QueueError> {
        let mut state = self.shared.lock();
        let message = (state.in_hand.remove(&delivery.tag)).ok_or(QueueError::Lost)?;
        let settled = match state.settle_fails_with.take() {
            None => {
                state.carry_out(message, disposition);
                Ok(())
            }
            Some(error) => {
                state.give_back(message);
                Err(error)
            }
        };
        drop(state);
        self.shared.wake();
        settled
    }

    async fn publish(&self, parcel: Parcel) -> Result<(), QueueError> {
        let mut state = self.shared.lock();
        self.shared.publish(&mut state, parcel)?;
        drop(state);
        self.shared.wake();
        Ok(())
    }

    async fn depths(&self) -> Result<Vec<Depth>, QueueError> {
        let prefix = &self.shared.prefix;
        let state = self.shared.state_now();
        // Every queue is listed, the empty ones too: a graph should fall to zero, not end.
        let mut standing: BTreeMap<String, Vec<Option<Timestamp>>> = BTreeMap::new();
        for account in &state.accounts {
            for priority in Priority::ALL {
                standing
                    .entry(format!("{prefix}.send.{account}.{priority}"))
                    .or_default();
            }
            standing
                .entry(format!("{prefix}.results.{account}"))
                .or_default();
        }
        for message in state.ready.values().chain(state.in_hand.values()) {
            let Message {
                account, priority, ..
            } = message;
            let queue = match message.lane {
                Lane::Sends => format!("{prefix}.send.{account}.{priority}"),
                Lane::Results => format!("{prefix}.results.{account}"),
            };
            standing
                .entry(queue)
                .or_default()
                .push(message.story.published_at);
        }
        let waiting = state
            .waiting
            .values()
            .map(|message| message.story.published_at);
        standing.insert(format!("{prefix}.delay"), waiting.collect());
        let dead = state.dead.values().map(|letter| letter.story.published_at);
        standing.insert(format!("{prefix}.dead"), dead.collect());
        Ok(standing
            .into_iter()
            .map(|(queue, published)| Depth {
                queue,
                messages: published.len() as u64,
                oldest: published.into_iter().flatten().min(),
            })
            .collect())
    }

    fn is_up(&self) -> bool {
        true
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
        let numbers: Vec<u64> = self.shared.lock().dead.keys().copied().collect();
        for number in numbers {
            let Some(letter) = self.shared.lock().dead.get(&number).cloned() else {
                continue;
            };
            tally.visited += 1;
            let ControlFlow::Continue(fate) = choose(&letter) else {
                break;
            };
            let mut state = self.shared.lock();
            match fate {
                Fate::Keep => {}
                Fate::Replay(parcel) => {
                    self.shared.publish(&mut state, *parcel)?;
                    state.dead.remove(&number);
                    tally.replayed += 1;
                }
                Fate::Discard => {
                    state.dead.remove(&number);
                    tally.discarded += 1;
                }
            }
            drop(state);
            self.shared.wake();
        }
        Ok(tally)
    }
}

// === impl MemoryIntake ===

impl Intake for MemoryIntake {
    async fn receive(&mut self) -> Result<Delivery, QueueError> {
        loop {
            self.changed.mark_unchanged();
            let next_due = {
                let mut state = self.shared.state_now();
                if let Some(delivery) = state.hand_out(&self.account, self.lane, self.number) {
                    return Ok(delivery);
                }
                state.waiting.first_key_value().map(|((due, _), _)| *due)
            };
            let wait = next_due.map(|due| clock::until(self.shared.clock.now(), due));
            tokio::select! {
                biased;
                // The sender lives in `shared`, so this cannot end with an error.
                _ = self.changed.changed() => {}
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No method panics half-way through a change, so a poisoned state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, with everything that is due in its lane.
    fn state_now(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.promote(self.clock.now());
        state
    }

    fn wake(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    fn publish(&self, state: &mut State, parcel: Parcel) -> Result<(), QueueError> {
        if !state.accounts.contains(&parcel.account) {
            return Err(QueueError::Unroutable {
                place: format!(
                    "{}.send.{}.{}",
                    self.prefix, parcel.account, parcel.priority
                ),
            });
        }
        let mut story = parcel.story;
        story.priority = parcel.priority;
        story.published_at.get_or_insert_with(|| self.clock.now());
        let message = Message {
            body: parcel.body,
            message_id: parcel.message_id,
            account: parcel.account,
            priority: parcel.priority,
            lane: Lane::Sends,
            story,
            redelivered: false,
            number: state.number(),
        };
        state.stand(message);
        Ok(())
    }
}

// === impl State ===

impl State {
    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn stand(&mut self, message: Message) {
        let seat = Seat {
            account: message.account.clone(),
            lane: message.lane,
            priority: (message.lane == Lane::Sends).then_some(message.priority),
            number: message.number,
        };
        self.ready.insert(seat, message);
    }

    fn give_back(&mut self, mut message: Message) {
        message.redelivered = true;
        self.stand(message);
    }

    /// Moves what is due to the end of its lane, as a broker's delay queue does.
    fn promote(&mut self, now: Timestamp) {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let mut message = entry.remove();
            message.number = self.number();
            self.stand(message);
        }
    }

    fn hand_out(&mut self, account: &AccountName, lane: Lane, intake: u64) -> Option<Delivery> {
        let first = Seat {
            account: account.clone(),
            lane,
            priority: None,
            number: 0,
        };
        let (seat, _) = self.ready.range(first..).next()?;
        if seat.account != *account || seat.lane != lane {
            return None;
        }
        let seat = seat.clone();
        let message = self.ready.remove(&seat)?;
        let tag = Tag {
            intake,
            number: self.number(),
        };
        let delivery = Delivery {
            body: message.body.clone(),
            message_id: message.message_id.clone(),
            account: message.account.clone(),
            priority: message.priority,
            lane: message.lane,
            story: message.story.clone(),
            redelivered: message.redelivered,
            tag,
        };
        self.in_hand.insert(tag, message);
        Some(delivery)
    }

    fn carry_out(&mut self, mut message: Message, disposition: Disposition) {
        // What comes back after a settle is a new copy, as a republished one is on a broker.
        match disposition {
            Disposition::Complete => {}
            Disposition::FollowUp { at, story } => self.wait(message, Lane::Results, at, *story),
            Disposition::Retry { at, story } => self.wait(message, Lane::Sends, at, *story),
            Disposition::Snooze { until, story } => {
                let lane = message.lane;
                self.wait(message, lane, until, *story);
            }
            Disposition::Route {
                account,
                priority,
                mut story,
                otherwise,
            } => {
                if self.accounts.contains(&account) {
                    story.priority = priority;
                    message.account = account;
                    message.priority = priority;
                    message.story = *story;
                    message.redelivered = false;
                    message.number = self.number();
                    self.stand(message);
                } else {
                    story.death = Some(*otherwise);
                    self.bury(message, *story);
                }
            }
            Disposition::DeadLetter { story } => self.bury(message, *story),
            Disposition::Release => self.give_back(message),
        }
    }

    fn wait(&mut self, mut message: Message, lane: Lane, due: Timestamp, story: Story) {
        message.lane = lane;
        message.story = story;
        message.redelivered = false;
        self.waiting.insert((due, message.number), message);
    }

    fn bury(&mut self, message: Message, story: Story) {
        let letter = DeadLetter {
            body: message.body,
            message_id: message.message_id,
            story,
        };
        let number = self.number();
        self.dead.insert(number, letter);
    }
}
