//! The model queue: simulation and tests.
//!
//! It keeps the whole contract and nothing outlives the process. Every order is that of a
//! `BTreeMap`, time is the [`Clock`] it was given, and there are no threads: a seeded run on tokio's
//! paused clock is the same each time. It is our belief about RabbitMQ; what the contract suite
//! teaches about the real one goes back into this file.

mod state;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

pub use self::state::Message;
use self::state::State;
use super::{
    DeadLetter, DeadLetters, Delivery, Depth, Fate, Intake, Lane, Lease, Queue, QueueError, Tally,
    Validity,
};
use crate::clock::{self, Clock};
use crate::message::AccountName;
use crate::outcome::Disposition;
use crate::queue::Parcel;

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
                state: Mutex::new(State::new(accounts)),
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

    /// How many intakes were opened so far.
    #[must_use]
    pub fn intakes(&self) -> u64 {
        self.shared.lock().intakes
    }

    /// As if the broker fell silent for longer than a lease holds, or answered again.
    pub fn renew_lease(&self, validity: Validity) {
        self.shared.lock().lease.send_replace(validity);
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
        state.intakes += 1;
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
        state.publish(parcel, self.shared.clock.now())?;
        drop(state);
        self.shared.wake();
        Ok(())
    }

    async fn depths(&self) -> Result<Vec<Depth>, QueueError> {
        Ok(self.shared.state_now().depths(&self.shared.prefix))
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
                    state.publish(*parcel, self.shared.clock.now())?;
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
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::Priority;
    use crate::story::Story;

    async fn queue_with(bodies: &[&str]) -> (MemoryQueue, MemoryIntake) {
        let clock = Clock::simulated(Timestamp::UNIX_EPOCH);
        let queue = MemoryQueue::new(clock, "postrider", [AccountName::default()]);
        for body in bodies {
            let parcel = Parcel {
                body: (*body).to_owned().into(),
                message_id: None,
                account: AccountName::default(),
                priority: Priority::Normal,
                story: Story::default(),
            };
            queue.publish(parcel).await.unwrap();
        }
        let intake = queue.open(&AccountName::default(), Lane::Sends, 1).await;
        (queue, intake.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_settle_that_fails_leaves_the_message() {
        let (queue, mut intake) = queue_with(&["one"]).await;
        let delivery = intake.receive().await.unwrap();
        queue.fail_next_settle(QueueError::Lost);
        queue
            .settle(delivery, Disposition::Complete)
            .await
            .unwrap_err();
        let delivery = intake.receive().await.unwrap();
        assert!(delivery.redelivered);
        queue.settle(delivery, Disposition::Complete).await.unwrap();
        assert!(queue.standing().ready.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn each_message_stands_in_one_place() {
        let (queue, mut intake) = queue_with(&["ready", "in hand", "waiting", "dead"]).await;
        let mut received = Vec::new();
        for _ in 0..4 {
            received.push(intake.receive().await.unwrap());
        }
        let story = Box::new(Story::default());
        let dead = Disposition::DeadLetter {
            story: story.clone(),
        };
        let until = Timestamp::from_second(60).unwrap();
        let wait = Disposition::Snooze { until, story };
        queue.settle(received.pop().unwrap(), dead).await.unwrap();
        queue.settle(received.pop().unwrap(), wait).await.unwrap();
        queue
            .settle(received.remove(0), Disposition::Release)
            .await
            .unwrap();
        let standing = queue.standing();
        assert_eq!(standing.ready[0].body, "ready");
        assert_eq!(standing.in_hand[0].body, "in hand");
        assert_eq!(
            (standing.waiting[0].0, &*standing.waiting[0].1.body),
            (until, &b"waiting"[..])
        );
        assert_eq!(standing.dead[0].body, "dead");
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(queue.standing().ready[1].body, "waiting");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_lease_is_told_and_the_next_one_is_not_fresh() {
        let (queue, _intake) = queue_with(&[]).await;
        let mut lease = queue.lease(&AccountName::default()).await.unwrap();
        assert!(lease.fresh && lease.holds(tokio::time::Instant::now()));
        queue.lose_lease();
        lease.lost().await;
        let lease = queue.lease(&AccountName::default()).await.unwrap();
        assert!(!lease.fresh && lease.holds(tokio::time::Instant::now()));
    }
}
