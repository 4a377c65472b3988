//! A full disk: SQLite's own limit of pages plays it, since it gives the same error by the same way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use tempfile::TempDir;
use tokio::time::{Instant, timeout_at};

use super::change::Change;
use super::hand::{Hand, row_of};
use super::intake::SqliteIntake;
use super::store::Store;
use super::view::View;
use super::writer::Writer;
use super::{Delivery, IntakeOptions, Lane, QueueError};
use crate::clock::Clock;
use crate::message::{AccountName, BODY_BYTES_MAX, Priority};
use crate::outcome::Disposition;
use crate::queue::Intake;
use crate::queue::Parcel;
use crate::story::{Attempt, Story};

/// A queue in parts, so that a test can take the writer's connection into its hand.
struct Parts {
    store: Arc<Mutex<Store>>,
    hand: Arc<Hand>,
    writer: Writer,
    intake: SqliteIntake,
    _folder: TempDir,
}

impl Parts {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("queue.db");
        let (clock, hand) = (Clock::system(), Arc::new(Hand::default()));
        let mut store = Store::open(&path).unwrap();
        store.declare(&[AccountName::default()]).unwrap();
        let store = Arc::new(Mutex::new(store));
        let options = IntakeOptions::holding(1);
        let seen = Store::open(&path).unwrap();
        let view = View::new(seen, AccountName::default(), Lane::Sends, options);
        Self {
            writer: Writer::start(Arc::clone(&store), path.clone(), clock, Arc::clone(&hand)),
            intake: SqliteIntake::new(view, Arc::clone(&hand), clock),
            store,
            hand,
            _folder: folder,
        }
    }

    /// The disk is full with `pages` more.
    fn room_for(&self, pages: i64) {
        let store = self.store.lock().unwrap();
        store.limit_pages(store.pages() + pages);
    }

    async fn publish(&self, bytes: usize) -> Result<(), QueueError> {
        let parcel = Parcel {
            body: Bytes::from(vec![b' '; bytes]),
            message_id: None,
            account: AccountName::default(),
            priority: Priority::Normal,
            story: Story::default(),
        };
        self.writer.make(Change::Publish(Box::new(parcel))).await
    }

    /// Into a waiting place, with a story of about 1 MB.
    async fn settle_large(&self, delivery: &Delivery) -> Result<(), QueueError> {
        let at = Clock::system().now();
        let mut story = Box::new(Story::default());
        story.record(Attempt {
            at,
            took_ms: 5,
            outcome: "transient".repeat(100_000),
            words: crate::outcome::Words::default(),
        });
        let change = Change::Settle {
            number: row_of(delivery.tag),
            line: (AccountName::default(), Lane::Sends),
            disposition: Disposition::Retry { at, story },
        };
        self.writer.make(change).await
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_full_disk_a_large_request_fails_alone() {
    let parts = Parts::new();
    parts.room_for(8);
    // One batch: the writer runs when both have been handed over.
    let (large, small) = join(parts.publish(BODY_BYTES_MAX), parts.publish(100)).await;
    assert!(matches!(large, Err(QueueError::Full { .. })), "{large:?}");
    small.unwrap();
}

#[tokio::test(start_paused = true)]
async fn work_rests_while_the_disk_is_full_and_goes_on_by_itself() {
    let mut parts = Parts::new();
    parts.publish(100).await.unwrap();
    let delivery = parts.intake.receive().await.unwrap();
    parts.publish(100).await.unwrap();
    parts.room_for(0);

    let settled = parts.settle_large(&delivery).await;
    assert!(
        matches!(settled, Err(QueueError::Full { .. })),
        "{settled:?}"
    );
    assert!(*parts.hand.stuck.borrow());
    let received = tokio::time::timeout(Duration::from_millis(500), parts.intake.receive()).await;
    assert!(received.is_err(), "it goes on though nothing can be kept");

    parts.room_for(1000);
    let again = parts.intake.receive().await.unwrap();
    assert!(!*parts.hand.stuck.borrow());
    assert_eq!(again.tag.number, delivery.tag.number);
    assert!(again.redelivered);
    assert!(again.story.attempts.is_empty(), "half of a change was kept");
}

#[tokio::test(start_paused = true)]
async fn where_a_probe_fits_and_the_work_does_not_less_and_less_is_tried() {
    let mut parts = Parts::new();
    parts.publish(100).await.unwrap();
    parts.room_for(40);
    let end = Instant::now() + Duration::from_mins(10);
    let mut tries = 0;
    while let Ok(delivery) = timeout_at(end, parts.intake.receive()).await {
        let settled = parts.settle_large(&delivery.unwrap()).await;
        assert!(matches!(settled, Err(QueueError::Full { .. })));
        tries += 1;
    }
    // After 1, 2, 4 … 32 s, and then once a minute.
    assert!((10..=20).contains(&tries), "{tries} in ten minutes");
}
