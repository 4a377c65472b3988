//! The memory queue, with somebody who writes down what it is asked to do, and who panics where a
//! request whose id begins with `trips-` was sent.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use postrider::journal::Entry;
use postrider::message::AccountName;
use postrider::outcome::Disposition;
use postrider::queue::Parcel;
use postrider::queue::memory::{MemoryIntake, MemoryQueue};
use postrider::queue::{
    Announcement, Before, Delivery, Depth, IntakeOptions, Kind, Lane, Lease, Queue, QueueError,
    Spends, Teller, Word,
};

#[derive(Clone)]
pub(super) struct Overheard {
    pub(super) queue: MemoryQueue,
    heard: Arc<Mutex<Vec<Heard>>>,
    /// No owner can say that it spends windows at once.
    is_deaf: Arc<AtomicBool>,
    /// Intakes of sends so far.
    opened: Arc<AtomicUsize>,
}

#[derive(Clone, Debug)]
pub(super) enum Heard {
    Settled(&'static str),
    NotSettled(&'static str),
    Announced(Box<Announcement>),
    Spends(Spends),
}

impl Overheard {
    pub(super) fn new(queue: MemoryQueue) -> Self {
        Self {
            queue,
            heard: Arc::default(),
            is_deaf: Arc::default(),
            opened: Arc::default(),
        }
    }

    /// From the next lease on.
    pub(super) fn be_deaf(&self) {
        self.is_deaf.store(true, Ordering::Relaxed);
    }

    pub(super) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    pub(super) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    fn hear(&self, heard: Heard) {
        self.heard.lock().unwrap().push(heard);
    }
}

impl Queue for Overheard {
    type Intake = MemoryIntake;

    async fn lease(&self, account: &AccountName) -> Result<Lease, QueueError> {
        if self.is_deaf.load(Ordering::Relaxed) {
            let this = self.clone();
            let teller = Teller::new(move |word| {
                if let Word::Spends(spends) = word {
                    this.hear(Heard::Spends(spends));
                }
                let is_told = word == Word::Spends(Spends::Evenly);
                Box::pin(std::future::ready(is_told))
            });
            return Ok(Lease::forever(Before::Nobody, None, teller));
        }
        self.queue.lease(account).await
    }

    async fn open(
        &self,
        account: &AccountName,
        lane: Lane,
        options: IntakeOptions,
    ) -> Result<MemoryIntake, QueueError> {
        self.opened
            .fetch_add(usize::from(lane == Lane::Sends), Ordering::Relaxed);
        self.queue.open(account, lane, options).await
    }

    async fn settle(&self, delivery: Delivery, disposition: Disposition) -> Result<(), QueueError> {
        let what = disposition.label();
        let body = String::from_utf8_lossy(&delivery.body);
        let sent = matches!(disposition, Disposition::FollowUp { .. });
        assert!(!(sent && body.contains("trips-")), "the test says so");
        let settled = self.queue.settle(delivery, disposition).await;
        self.hear(match settled {
            Ok(()) => Heard::Settled(what),
            Err(_) => Heard::NotSettled(what),
        });
        settled
    }

    async fn publish(&self, parcel: Parcel) -> Result<(), QueueError> {
        self.queue.publish(parcel).await
    }

    async fn depths(&self) -> Result<Vec<Depth>, QueueError> {
        self.queue.depths().await
    }

    async fn waiting(&self, account: &AccountName, most: u64) -> Result<u64, QueueError> {
        self.queue.waiting(account, most).await
    }

    fn hears(&self, _: Kind, _: &AccountName) -> bool {
        true
    }

    fn announce(&self, announcement: Announcement) {
        self.hear(Heard::Announced(announcement.into()));
    }

    fn note(&self, entry: Entry) {
        self.queue.note(entry);
    }

    fn is_up(&self) -> bool {
        self.queue.is_up()
    }

    async fn close(&self) {
        self.queue.close().await;
    }
}
