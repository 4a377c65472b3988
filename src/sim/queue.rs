//! A worker's hold on the queue: the memory queue, over a connection that can break and in a
//! process that can die at each step.

use std::sync::{Arc, Mutex, PoisonError};

use super::life::Life;
use super::record::{Record, Who};
use super::scenario::Scenario;
use crate::message::AccountName;
use crate::outcome::Disposition;
use crate::queue::memory::{Interruption, MemoryIntake, MemoryQueue};
use crate::queue::{
    Delivery, Depth, Intake, IntakeOptions, Lane, Lease, Parcel, Queue, QueueError,
};

/// A worker's connection; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) queue: MemoryQueue,
    pub(super) life: Arc<Life>,
    pub(super) worker: usize,
    pub(super) record: Arc<Record>,
    pub(super) scenario: Arc<Scenario>,
    pub(super) rng: Arc<Mutex<fastrand::Rng>>,
}

/// What comes in over it.
#[derive(Debug)]
pub(super) struct HeldIntake {
    intake: MemoryIntake,
    held: Held,
    /// Received, and not seen yet by a process that is frozen or cut off.
    arrived: Option<Delivery>,
}

impl Held {
    fn note(
        &self,
        verb: &'static str,
        id: &str,
        detail: impl Into<std::borrow::Cow<'static, str>>,
    ) {
        self.record.note(Who::Worker(self.worker), verb, id, detail);
    }

    /// What comes between, if anything does this time.
    fn interruption(&self) -> Option<Interruption> {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.scenario.is_stormy() || rng.f64() >= self.scenario.interrupted {
            return None;
        }
        let kinds = [
            Interruption::Before,
            Interruption::Between,
            Interruption::After,
            Interruption::AckLost,
            Interruption::Fails(QueueError::NotTaken {
                why: "the broker has no room".into(),
            }),
        ];
        rng.choice(kinds)
    }
}

impl Queue for Held {
    type Intake = HeldIntake;

    async fn lease(&self, account: &AccountName) -> Result<Lease, QueueError> {
        self.life.reaches_broker().await;
        self.life.step().await;
        let lease = self.queue.lease(account).await?;
        self.note("owns", "", account.to_string());
        self.life.reaches_broker().await;
        self.life.step().await;
        Ok(lease)
    }

    async fn open(
        &self,
        account: &AccountName,
        lane: Lane,
        options: IntakeOptions,
    ) -> Result<HeldIntake, QueueError> {
        self.life.reaches_broker().await;
        Ok(HeldIntake {
            intake: self.queue.open(account, lane, options).await?,
            held: self.clone(),
            arrived: None,
        })
    }

    async fn settle(&self, delivery: Delivery, disposition: Disposition) -> Result<(), QueueError> {
        self.life.is_answered().await;
        self.life.step().await;
        let id = id_of(&delivery.body, delivery.message_id.as_deref());
        let lane = delivery.lane;
        let interruption = self.interruption();
        if let Some(interruption) = &interruption {
            self.note("interrupted", &id, format!("{interruption:?}"));
            self.queue.interrupt_next(interruption.clone());
        }
        let in_hand = self.queue.is_in_hand(&delivery);
        let settled = self.queue.settle(delivery, disposition.clone()).await;
        let publishes = !matches!(disposition, Disposition::Complete | Disposition::Release);
        // A delivery that was lost before stays so, whatever else would have come.
        let took_effect = in_hand
            && match interruption {
                None => settled.is_ok(),
                Some(Interruption::Before | Interruption::Fails(_)) => false,
                Some(Interruption::Between | Interruption::AckLost) => publishes,
                Some(Interruption::After) => true,
            };
        if took_effect {
            self.record.carried_out(&id, &disposition);
        }
        if interruption.is_some() && took_effect {
            self.record.fate(&id, |fate| fate.copied = true);
        }
        let not_sent = matches!(
            disposition,
            Disposition::Retry { .. } | Disposition::DeadLetter { .. }
        );
        if took_effect && lane == Lane::Results && not_sent {
            self.record.fate(&id, |fate| fate.sent_back += 1);
        }
        let how = if settled.is_ok() {
            ""
        } else {
            " (not settled)"
        };
        self.note("settles", &id, format!("{}{how}", told(&disposition)));
        self.life.step().await;
        // Now the worker knows.
        if settled.is_ok() && matches!(disposition, Disposition::DeadLetter { .. }) {
            self.record.lock().buried += 1;
        }
        settled
    }

    async fn publish(&self, parcel: Parcel) -> Result<(), QueueError> {
        self.queue.publish(parcel).await
    }

    async fn depths(&self) -> Result<Vec<Depth>, QueueError> {
        self.queue.depths().await
    }

    async fn waiting(&self, account: &AccountName, most: u64) -> Result<u64, QueueError> {
        self.life.is_answered().await;
        self.queue.waiting(account, most).await
    }

    fn is_up(&self) -> bool {
        self.queue.is_up()
    }

    async fn close(&self) {
        self.queue.close().await;
    }
}

impl Drop for HeldIntake {
    fn drop(&mut self) {
        if let Some(delivery) = self.arrived.take() {
            self.held.queue.hand_back(&delivery);
        }
    }
}

impl Intake for HeldIntake {
    async fn receive(&mut self) -> Result<Delivery, QueueError> {
        if self.arrived.is_none() {
            self.arrived = Some(self.intake.receive().await?);
        }
        self.held.life.reaches_broker().await;
        self.held.life.step().await;
        if self.held.record.is_full() {
            // So that the run comes to its end.
            std::future::pending::<()>().await;
        }
        let delivery = self.arrived.take().ok_or(QueueError::Lost)?;
        let id = id_of(&delivery.body, delivery.message_id.as_deref());
        let again = if delivery.redelivered { "again" } else { "" };
        let record = &self.held.record;
        record.fate(&id, |fate| fate.came_again |= delivery.redelivered);
        self.held.note("receives", &id, again);
        Ok(delivery)
    }
}

/// The id that the harness knows a body by: every body that is drawn tells it, beside it or inside.
pub(super) fn id_of(body: &[u8], message_id: Option<&str>) -> String {
    let body = String::from_utf8_lossy(body);
    let inside = body.split_once(r#""sendId":""#);
    let inside = inside.and_then(|(_, rest)| Some(rest.split_once('"')?.0));
    inside.or(message_id).unwrap_or_default().to_owned()
}

fn told(disposition: &Disposition) -> String {
    match disposition {
        Disposition::DeadLetter { story } => {
            let reason = story.death.as_ref().map(|death| death.reason.label());
            format!("dead letter: {}", reason.unwrap_or("?"))
        }
        Disposition::Retry { at, story } => {
            format!("retry at {at}, {} spent", story.spent)
        }
        Disposition::Snooze { until, .. } => format!("snooze until {until}"),
        Disposition::FollowUp { at, .. } => format!("follow up at {at}"),
        Disposition::Route { .. } | Disposition::Complete | Disposition::Release => {
            disposition.label().to_owned()
        }
    }
}
