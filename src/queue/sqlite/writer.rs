//! The one writer: many callers, one transaction (group commit).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::super::QueueError;
use super::change::Change;
use super::hand::Hand;
use super::store::Store;
use crate::clock::Clock;

/// How many changes share a transaction. A commit costs one flush of the disk, whatever it holds;
/// more than this saves little and makes the first of them wait.
const BATCH_MAX: usize = 256;
/// How many changes may wait for the writer; then callers wait.
const ORDERS_MAX: usize = 1024;
/// When a file that could not be written is tried again. Where it takes a probe and soon not what
/// comes after, since there is next to no room, the waits are doubled up to the last: each time a
/// few calls go out whose outcome is not kept.
const PROBE_FIRST: Duration = Duration::from_secs(1);
const PROBE_LAST: Duration = Duration::from_mins(1);
/// A file that took everything for so long is well.
const WELL_AFTER: Duration = Duration::from_mins(1);

/// Hands changes to the writing task, which ends with the last of these.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    orders: mpsc::Sender<Order>,
    place: PathBuf,
}

/// A change, and who waits for it.
#[derive(Debug)]
struct Order {
    change: Change,
    done: oneshot::Sender<Result<(), QueueError>>,
}

struct Desk {
    store: Arc<Mutex<Store>>,
    clock: Clock,
    hand: Arc<Hand>,
}

impl Writer {
    pub(super) fn start(
        store: Arc<Mutex<Store>>,
        place: PathBuf,
        clock: Clock,
        hand: Arc<Hand>,
    ) -> Self {
        let (orders, incoming) = mpsc::channel(ORDERS_MAX);
        let desk = Desk { store, clock, hand };
        tokio::spawn(desk.run(incoming));
        Self { orders, place }
    }

    /// Returns when the change is on the disk, or was not made. A change that was handed over is
    /// made even if nobody waits for it any more.
    pub(super) async fn make(&self, change: Change) -> Result<(), QueueError> {
        let (done, answer) = oneshot::channel();
        let order = Order { change, done };
        if self.orders.send(order).await.is_err() {
            return Err(self.closed());
        }
        answer.await.unwrap_or_else(|_| Err(self.closed()))
    }

    fn closed(&self) -> QueueError {
        QueueError::Unreachable {
            place: self.place.display().to_string(),
            why: "it was closed".to_owned(),
        }
    }
}

impl Desk {
    async fn run(self, mut incoming: mpsc::Receiver<Order>) {
        let mut orders = Vec::with_capacity(BATCH_MAX);
        let (mut wait, mut probe_at) = (PROBE_FIRST, Instant::now());
        let mut writable_since: Option<Instant> = None;
        loop {
            let stuck = *self.hand.stuck.borrow();
            tokio::select! {
                biased;
                // First, for producers may never let the orders run dry.
                () = tokio::time::sleep_until(probe_at), if stuck => {
                    if self.probe().await {
                        writable_since = Some(Instant::now());
                    }
                    probe_at = Instant::now() + wait;
                }
                count = incoming.recv_many(&mut orders, BATCH_MAX) => {
                    let closes = orders.iter().any(|order| matches!(order.change, Change::Close));
                    self.carry_out(std::mem::take(&mut orders)).await;
                    if closes || count == 0 {
                        return;
                    }
                    if !stuck && *self.hand.stuck.borrow() {
                        let soon = writable_since.is_some_and(|at| at.elapsed() < WELL_AFTER);
                        wait = if soon { (wait * 2).min(PROBE_LAST) } else { PROBE_FIRST };
                        probe_at = Instant::now() + wait;
                    }
                }
            }
        }
    }

    async fn carry_out(&self, orders: Vec<Order>) {
        let (changes, waiting): (Vec<_>, Vec<_>) = orders
            .into_iter()
            .map(|order| (order.change, order.done))
            .unzip();
        let settled: Vec<Option<i64>> = changes.iter().map(Change::settles).collect();
        let readied: BTreeSet<_> = changes.iter().filter_map(Change::readies).collect();
        let made = self.make(changes).await;
        for ((made, done), settled) in made.into_iter().zip(waiting).zip(settled) {
            match (settled, &made) {
                (Some(number), Ok(()) | Err(QueueError::Lost)) => self.hand.forget(number),
                (Some(number), Err(error)) => {
                    self.stick(error);
                    self.hand.give_back(number, true);
                }
                (None, _) => {}
            }
            // Whoever asked may have gone; the change is made all the same.
            drop(done.send(made));
        }
        for line in readied {
            self.hand.wake(&line);
        }
    }

    /// Whether it takes changes again.
    async fn probe(&self) -> bool {
        let made = self.make(vec![Change::Probe]).await;
        let writable = made.iter().all(Result::is_ok);
        if writable {
            tracing::info!("queue.writable: the queue takes changes again");
            self.hand.stuck.send_replace(false);
        }
        writable
    }

    /// What a delivery was settled to could not be kept: nothing is handed out until it could.
    fn stick(&self, error: &QueueError) {
        if !self.hand.stuck.send_replace(true) {
            tracing::error!(hint = error.hint(), "queue.stuck: dispatch rests: {error}");
        }
    }

    async fn make(&self, changes: Vec<Change>) -> Vec<Result<(), QueueError>> {
        let (store, now, count) = (Arc::clone(&self.store), self.clock.now(), changes.len());
        let made = tokio::task::spawn_blocking(move || {
            let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
            store.make(&changes.iter().collect::<Vec<_>>(), now)
        });
        made.await.unwrap_or_else(|error| {
            let failed = |_| {
                Err(QueueError::NotTaken {
                    why: format!("the writer stopped: {error}"),
                })
            };
            (0..count).map(failed).collect()
        })
    }
}
