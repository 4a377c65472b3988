//! Hands deliveries out of one lane of the file.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::ErrorCode;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::{Delivery, Intake, QueueError, Tag};
use super::hand::{Claim, Hand};
use super::view::View;
use crate::clock::{self, Clock};

/// The longest sleep before a lane is looked at again. Wall time may be set forward.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Numbers intakes through the process: a delivery of a queue that was closed is not taken for
/// one of the queue that was opened after it.
static INTAKES: AtomicU64 = AtomicU64::new(0);

/// Hands out of one lane, one message at a time: what it hands out is the most urgent one.
#[derive(Debug)]
pub struct SqliteIntake {
    place: Arc<Place>,
    changed: watch::Receiver<u64>,
    stuck: watch::Receiver<bool>,
    /// A claim under way. Kept here, so that a cancelled `receive` goes on where it was.
    claiming: Option<JoinHandle<Result<Found, QueueError>>>,
}

#[derive(Debug)]
struct Place {
    view: Mutex<View>,
    hand: Arc<Hand>,
    clock: Clock,
    intake: u64,
}

#[derive(Debug)]
enum Found {
    Next(Box<Claim>),
    /// Nothing is ready; the next one falls due then.
    NothingUntil(Option<Timestamp>),
    Closed,
}

impl SqliteIntake {
    pub(super) fn new(view: View, hand: Arc<Hand>, clock: Clock) -> Self {
        Self {
            changed: hand.changes_of(view.line()),
            stuck: hand.stuck.subscribe(),
            claiming: None,
            place: Arc::new(Place {
                view: Mutex::new(view),
                hand,
                clock,
                intake: INTAKES.fetch_add(1, Ordering::Relaxed),
            }),
        }
    }

    async fn claim(&mut self) -> Result<Found, QueueError> {
        let claiming = self.claiming.get_or_insert_with(|| {
            // Before the file is read: what changes from here on is looked at again.
            self.changed.mark_unchanged();
            let place = Arc::clone(&self.place);
            tokio::task::spawn_blocking(move || place.claim())
        });
        let found = claiming.await;
        self.claiming = None;
        found.unwrap_or_else(|error| {
            Err(QueueError::NotTaken {
                why: format!("the lane could not be read: {error}"),
            })
        })
    }
}

impl Intake for SqliteIntake {
    async fn receive(&mut self) -> Result<Delivery, QueueError> {
        loop {
            // An error is a sender that is gone; it lives in `place`.
            drop(self.stuck.wait_for(|stuck| !stuck).await);
            let wait = match self.claim().await? {
                Found::Next(claim) => match claim.take() {
                    Some(delivery) => return Ok(delivery),
                    None => continue,
                },
                Found::Closed => std::future::pending().await,
                Found::NothingUntil(due) => due.map_or(LOOK_AGAIN, |due| {
                    clock::until(self.place.clock.now(), due).min(LOOK_AGAIN)
                }),
            };
            tokio::select! {
                biased;
                // Its sender lives in `place` too.
                _ = self.changed.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

impl Place {
    fn claim(&self) -> Result<Found, QueueError> {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let found = self.next(&mut view, now);
        found.map_err(|error| view.store.fault(&error))
    }

    fn next(&self, view: &mut View, now: Timestamp) -> rusqlite::Result<Found> {
        let mut held = self.hand.lock();
        if held.is_closed() {
            return Ok(Found::Closed);
        }
        loop {
            let Some(number) = view.next(now, |number| held.is_free(number))? else {
                return view.next_due(now).map(Found::NothingUntil);
            };
            // Read before it is taken in hand: after an error it is still there for the next look.
            let stored = match view.store.read(number) {
                // Its own pages are damaged, for the index has just been read: the others go on.
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
                    held.set_aside(number);
                    tracing::error!(
                        number, %error, hint = view.store.fault(&error).hint(),
                        "queue.row_damaged: row {number} cannot be read and is set aside; it stays in the file"
                    );
                    continue;
                }
                stored => stored?,
            };
            let tag = Tag {
                intake: self.intake,
                number: number.cast_unsigned(),
            };
            let delivery = view.delivery(stored, tag, held.take(number, self.intake));
            drop(held);
            let claim = Claim::new(Arc::clone(&self.hand), delivery);
            return Ok(Found::Next(Box::new(claim)));
        }
    }
}
