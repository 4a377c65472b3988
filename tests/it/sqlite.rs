//! What only the embedded queue has: a file, its lock, and other processes beside the worker.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::FutureExt;
use postrider::clock::Clock;
use postrider::message::{AccountName, Priority};
use postrider::outcome::Disposition;
use postrider::queue::Parcel;
use postrider::queue::sqlite::{Mode, SqliteQueue};
use postrider::queue::{
    Before, DeadLetters, Fate, Intake, IntakeOptions, Lane, Queue, QueueError, Spends, Word,
};
use postrider::story::Story;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::time::timeout;

mod hostile;

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_second_worker_is_refused_until_the_first_is_gone() {
    let file = File::new();
    let first = file.open(Mode::Worker).await.unwrap();
    let second = file.open(Mode::Worker).await.unwrap_err();
    assert!(matches!(second, QueueError::Taken { .. }), "{second:?}");
    assert!(second.to_string().contains("queue.db"), "{second}");
    first.close().await;
    file.open(Mode::Worker).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_vanished_leaves_no_lock() {
    let file = File::new();
    drop(file.open(Mode::Worker).await.unwrap());
    file.open(Mode::Worker).await.unwrap();
}

#[tokio::test]
async fn a_command_works_beside_a_worker() {
    let file = File::new();
    let worker = file.open(Mode::Worker).await.unwrap();
    let command = file.open(Mode::Command).await.unwrap();
    let mut intake = worker
        .open(&account(), Lane::Sends, IntakeOptions::holding(10))
        .await
        .unwrap();

    // The worker waits already, and learns of it by the file alone.
    let (received, published) = tokio::join!(
        timeout(DEADLINE, intake.receive()),
        command.publish(parcel("from outside")),
    );
    published.unwrap();
    let delivery = received.unwrap().unwrap();
    assert_eq!(delivery.body, "from outside");
    let depths = command.depths().await.unwrap();
    assert_eq!(depths.iter().map(|depth| depth.messages).sum::<u64>(), 1);

    let story = delivery.story.clone();
    worker
        .settle(delivery, Disposition::DeadLetter { story })
        .await
        .unwrap();
    let replay = |letter: &postrider::queue::DeadLetter| {
        ControlFlow::Continue(Fate::Replay(Box::new(letter.replay())))
    };
    let (received, swept) =
        tokio::join!(timeout(DEADLINE, intake.receive()), command.sweep(replay),);
    assert_eq!(swept.unwrap().replayed, 1);
    assert_eq!(received.unwrap().unwrap().story.replays, 1);
}

#[tokio::test]
async fn a_command_dispatches_nothing() {
    let file = File::new();
    let command = file.open(Mode::Command).await.unwrap();
    let lease = command.lease(&account()).await;
    assert!(matches!(lease, Err(QueueError::Taken { .. })), "{lease:?}");
    let intake = command
        .open(&account(), Lane::Sends, IntakeOptions::holding(1))
        .await;
    assert!(
        matches!(intake, Err(QueueError::Taken { .. })),
        "{intake:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_open_a_new_file_at_once() {
    let file = File::new();
    let opened = (0..8).map(|n| {
        let path = file.path.clone();
        tokio::spawn(async move {
            let queue = open(&path, Mode::Command, Clock::system()).await?;
            queue.publish(parcel(&n.to_string())).await
        })
    });
    for opened in futures_util::future::join_all(opened).await {
        opened.unwrap().unwrap();
    }
    let depths = file
        .open(Mode::Command)
        .await
        .unwrap()
        .depths()
        .await
        .unwrap();
    assert_eq!(depths.iter().map(|depth| depth.messages).sum::<u64>(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_intakes_of_one_lane_never_hand_out_the_same() {
    const COUNT: usize = 400;
    let file = File::new();
    let queue = file.open(Mode::Worker).await.unwrap();
    for n in 0..COUNT {
        queue.publish(parcel(&n.to_string())).await.unwrap();
    }
    let drain = async || {
        let mut intake = queue
            .open(&account(), Lane::Sends, IntakeOptions::holding(10))
            .await
            .unwrap();
        let mut bodies = Vec::new();
        while let Ok(delivery) = timeout(Duration::from_millis(500), intake.receive()).await {
            let delivery = delivery.unwrap();
            bodies.push(delivery.body.clone());
            queue.settle(delivery, Disposition::Complete).await.unwrap();
        }
        bodies
    };
    let (first, second) = tokio::join!(drain(), drain());
    assert_eq!(first.len() + second.len(), COUNT);
    let different: BTreeSet<_> = first.iter().chain(&second).collect();
    assert_eq!(different.len(), COUNT);
}

#[tokio::test]
async fn a_file_outlives_its_worker() {
    let file = File::new();
    let queue = file.open(Mode::Worker).await.unwrap();
    queue.publish(parcel("one")).await.unwrap();
    // In hand when the worker vanishes.
    let mut intake = queue
        .open(&account(), Lane::Sends, IntakeOptions::holding(10))
        .await
        .unwrap();
    intake.receive().await.unwrap();
    drop((queue, intake));

    let queue = file.open(Mode::Worker).await.unwrap();
    let mut intake = queue
        .open(&account(), Lane::Sends, IntakeOptions::holding(10))
        .await
        .unwrap();
    let delivery = timeout(DEADLINE, intake.receive()).await.unwrap().unwrap();
    assert_eq!(delivery.body, "one");
    assert!(delivery.redelivered, "a call may have been made for it");
}

#[tokio::test]
async fn where_nobody_knows_what_was_in_hand_all_of_it_may_have_been() {
    let file = File::new();
    let queue = file.open(Mode::Worker).await.unwrap();
    queue.publish(parcel("one")).await.unwrap();
    drop(queue);
    std::fs::remove_file(file.folder.path().join("queue.db.lock")).unwrap();

    let queue = file.open(Mode::Worker).await.unwrap();
    queue.publish(parcel("two")).await.unwrap();
    let mut intake = queue
        .open(&account(), Lane::Sends, IntakeOptions::holding(10))
        .await
        .unwrap();
    for (body, redelivered) in [("one", true), ("two", false)] {
        let delivery = timeout(DEADLINE, intake.receive()).await.unwrap().unwrap();
        assert_eq!(
            (&delivery.body[..], delivery.redelivered),
            (body.as_bytes(), redelivered)
        );
    }
}

#[tokio::test]
async fn a_settle_that_nobody_waits_for_is_made_all_the_same() {
    let file = File::new();
    let queue = file.open(Mode::Worker).await.unwrap();
    queue.publish(parcel("one")).await.unwrap();
    let mut intake = queue
        .open(&account(), Lane::Sends, IntakeOptions::holding(10))
        .await
        .unwrap();
    let delivery = intake.receive().await.unwrap();
    let until = Clock::system().now();
    let story = delivery.story.clone();
    // Handed over at the first poll, and given up at once.
    let settle = queue.settle(delivery, Disposition::Snooze { until, story });
    assert!(settle.now_or_never().is_none());
    let again = timeout(DEADLINE, intake.receive()).await.unwrap().unwrap();
    assert_eq!(again.body, "one");
    assert!(!again.redelivered, "it was settled, not given back");
}

#[tokio::test(start_paused = true)]
async fn a_lease_tells_who_may_have_spent_a_window_before() {
    let file = File::new();
    let clock = Clock::simulated("2026-12-01T08:00:00Z".parse().unwrap());
    let lease = async || {
        let queue = open(&file.path, Mode::Worker, clock).await.unwrap();
        let lease = queue.lease(&account()).await.unwrap();
        (queue, lease)
    };
    let (queue, new) = lease().await;
    assert_eq!(new.before, Before::Nobody);
    queue.close().await;
    let (queue, restarted) = lease().await;
    let a_moment_ago = Before::Somebody(Spends::Evenly);
    assert_eq!(restarted.before, a_moment_ago);
    queue.close().await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    let (queue, rested) = lease().await;
    assert_eq!(rested.before, Before::Nobody);
    assert!(rested.tell(Word::Spends(Spends::AtOnce)).await);
    drop(queue);
    tokio::time::sleep(Duration::from_mins(2)).await;
    // Nobody knows when it last sent.
    let (queue, after_a_crash) = lease().await;
    assert_eq!(after_a_crash.before, Before::Somebody(Spends::AtOnce));
    drop(queue);
    let (queue, not_told_otherwise) = lease().await;
    assert_eq!(not_told_otherwise.before, after_a_crash.before);
    assert!(not_told_otherwise.tell(Word::Spends(Spends::Evenly)).await);
    drop(queue);
    let (_queue, told) = lease().await;
    assert_eq!(told.before, a_moment_ago);
}

#[tokio::test]
async fn a_file_is_its_owners_alone() {
    let file = File::new();
    let queue = file.open(Mode::Worker).await.unwrap();
    queue.publish(parcel("an address")).await.unwrap();
    for name in ["queue.db", "queue.db-wal"] {
        let meta = std::fs::metadata(file.folder.path().join(name)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_alone() {
    let file = File::new();
    let text = "not a database, but somebody's letters\n".repeat(100);
    std::fs::write(&file.path, &text).unwrap();
    let refused = file.open(Mode::Worker).await.unwrap_err();
    assert!(matches!(refused, QueueError::Damaged { .. }), "{refused:?}");
    assert!(refused.to_string().contains("queue.db"), "{refused}");
    assert_eq!(std::fs::read_to_string(&file.path).unwrap(), text);
}

#[tokio::test]
async fn another_programs_database_is_left_alone() {
    let file = File::new();
    let other = file.outsider();
    other
        .execute_batch("CREATE TABLE bookmarks (url TEXT)")
        .unwrap();
    let refused = file.open(Mode::Command).await.unwrap_err();
    assert!(matches!(refused, QueueError::Damaged { .. }), "{refused:?}");
    let tables = "SELECT count(*) FROM sqlite_schema";
    assert_eq!(
        other
            .query_one(tables, [], |row| row.get::<_, i64>(0))
            .unwrap(),
        1
    );
}

#[tokio::test]
async fn a_newer_form_is_refused() {
    let file = File::new();
    file.open(Mode::Worker).await.unwrap().close().await;
    let newer = file.outsider();
    newer.pragma_update(None, "user_version", 7).unwrap();
    let refused = file.open(Mode::Worker).await.unwrap_err();
    assert!(
        matches!(refused, QueueError::Newer { found: 7, .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_damaged_file_is_named() {
    let file = File::new();
    let queue = file.open(Mode::Worker).await.unwrap();
    for n in 0..200 {
        queue.publish(parcel(&n.to_string())).await.unwrap();
    }
    queue.close().await;
    // The log goes into the file; then everything after the header's page is overwritten.
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    file.outsider()
        .query_one(checkpoint, [], |_| Ok(()))
        .unwrap();
    let mut bytes = std::fs::read(&file.path).unwrap();
    bytes[4096..].fill(0xAA);
    std::fs::write(&file.path, bytes).unwrap();
    let refused = file.open(Mode::Worker).await.unwrap_err();
    assert!(matches!(refused, QueueError::Damaged { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("nowhere/queue.db");
    for mode in [Mode::Worker, Mode::Command] {
        let refused = open(&path, mode, Clock::system()).await.unwrap_err();
        assert!(
            matches!(refused, QueueError::Unreachable { .. }),
            "{refused:?}"
        );
        assert!(
            refused.to_string().contains("there is no folder"),
            "{refused}"
        );
    }
    let refused = open(folder.path(), Mode::Command, Clock::system())
        .await
        .unwrap_err();
    assert!(
        matches!(refused, QueueError::Unreachable { .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_hundred_thousand_dead_letters_are_swept_page_by_page() {
    const COUNT: u64 = 100_000;
    /// Of bodies alone, 200 MB stand in the file.
    const MEMORY_GROWTH_MAX: u64 = 100 * 1024 * 1024;
    let file = File::new();
    let queue = file.open(Mode::Command).await.unwrap();
    file.bury(COUNT);
    let before = resident_bytes();
    let mut most = 0;
    let mut visits = 0;
    let tally = queue
        .sweep(|letter| {
            visits += 1;
            if visits % 1000 == 0 {
                most = most.max(resident_bytes());
            }
            match visits % 10 {
                0 => ControlFlow::Continue(Fate::Replay(Box::new(letter.replay()))),
                1 => ControlFlow::Continue(Fate::Discard),
                _ => ControlFlow::Continue(Fate::Keep),
            }
        })
        .await
        .unwrap();
    assert_eq!(
        (tally.visited, tally.replayed, tally.discarded),
        (COUNT, 10_000, 10_000)
    );
    assert!(
        most < before + MEMORY_GROWTH_MAX,
        "{before} bytes before, {most} in between"
    );
    let depths = queue.depths().await.unwrap();
    let standing: Vec<_> = (depths.iter())
        .filter(|depth| depth.messages > 0)
        .map(|depth| (depth.queue.as_str(), depth.messages))
        .collect();
    let expected = [
        ("postrider.send.default.normal", 10_000),
        ("postrider.dead", 80_000),
    ];
    assert_eq!(standing, expected);
}

#[tokio::test]
async fn two_sweeps_at_once_replay_each_letter_once() {
    let file = File::new();
    let first = file.open(Mode::Command).await.unwrap();
    let second = file.open(Mode::Command).await.unwrap();
    file.bury(300);
    let replay = |letter: &postrider::queue::DeadLetter| {
        ControlFlow::Continue(Fate::Replay(Box::new(letter.replay())))
    };
    let (one, other) = tokio::join!(first.sweep(replay), second.sweep(replay));
    assert_eq!(one.unwrap().replayed + other.unwrap().replayed, 300);
    let depths = first.depths().await.unwrap();
    assert_eq!(depths.iter().map(|depth| depth.messages).sum::<u64>(), 300);
}

// === the words of the tests ===

/// A place for a queue, removed at the end.
struct File {
    folder: TempDir,
    path: PathBuf,
}

impl File {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("queue.db");
        Self { folder, path }
    }

    /// Puts dead letters of 2,000 bytes into the file.
    fn bury(&self, count: u64) {
        self.outsider()
            .execute(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                 INSERT INTO dead (reason, account, died, published, message_id, story, body)
                 SELECT 'rejected', 'default', 0, 0, 'id-' || i, '{}', zeroblob(2000) FROM n",
                [count.cast_signed()],
            )
            .unwrap();
    }

    /// A connection that is none of ours.
    fn outsider(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    async fn open(&self, mode: Mode) -> Result<SqliteQueue, QueueError> {
        open(&self.path, mode, Clock::system()).await
    }
}

async fn open(path: &Path, mode: Mode, clock: Clock) -> Result<SqliteQueue, QueueError> {
    SqliteQueue::open(path, "postrider", [account()], clock, mode).await
}

fn account() -> AccountName {
    AccountName::default()
}

fn parcel(body: &str) -> Parcel {
    Parcel {
        body: body.to_owned().into(),
        message_id: Some(format!("id-{body}")),
        account: account(),
        priority: Priority::Normal,
        story: Story::default(),
    }
}

/// The memory of this process that is in use, by the kernel's own count.
fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * PAGE_BYTES
}
