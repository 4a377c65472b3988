//! Whom a change wakes: a worker over three accounts, and another process beside it.
//!
//! The account `z` is the barrier: what another process publishes for it is seen after whatever was
//! changed before.

use bytes::Bytes;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::sync::watch::Receiver;
use tokio::time::timeout;

use super::super::hand::Line;
use super::super::{Mode, SqliteQueue};
use super::*;
use crate::clock::Clock;
use crate::message::Priority;
use crate::outcome::{DeadReason, Disposition, Words};
use crate::queue::{DayCalls, Intake, IntakeOptions, Parcel, Queue, Word};
use crate::story::{Death, Story};

/// It ends between two looks, and not at the moment of one.
const REST: Duration = LIVELY_FOR
    .saturating_mul(2)
    .saturating_add(LOOK_EVERY.saturating_mul(5));

struct Scene {
    worker: SqliteQueue,
    other: SqliteQueue,
    /// Of each lane, whether it was woken.
    woken: Vec<(Line, Receiver<u64>)>,
    _folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let (worker, other) = (Mode::Worker, Mode::Command);
        let (worker, other) = (open(&folder, worker).await, open(&folder, other).await);
        let hand = &worker.shared.hand;
        let lines = ["a", "b", "z"]
            .into_iter()
            .flat_map(|account| [Lane::Sends, Lane::Results].map(|lane| (name(account), lane)));
        let woken = lines.map(|line| (line.clone(), hand.changes_of(line)));
        let mut this = Self {
            woken: woken.collect(),
            worker,
            other,
            _folder: folder,
        };
        this.woken().await;
        this
    }

    /// The lanes that were woken since this was asked last.
    async fn woken(&mut self) -> Vec<Line> {
        self.other.publish(parcel("z")).await.unwrap();
        let barrier = (name("z"), Lane::Sends);
        self.wake_of(&barrier).await;
        let mut woken = Vec::new();
        for (line, changed) in &mut self.woken {
            if changed.has_changed().unwrap() {
                changed.mark_unchanged();
                woken.push(line.clone());
            }
        }
        woken
    }

    /// How long after another process has published for `a` its lane is woken.
    async fn until_seen(&mut self) -> Duration {
        self.other.publish(parcel("a")).await.unwrap();
        let published = Instant::now();
        self.wake_of(&(name("a"), Lane::Sends)).await;
        published.elapsed()
    }

    async fn wake_of(&mut self, awaited: &Line) {
        let mut lines = self.woken.iter_mut();
        let (_, changed) = lines.find(|(line, _)| line == awaited).unwrap();
        let woken = timeout(LIVELY_FOR, changed.changed()).await;
        woken.expect("the watcher wakes it").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_settled_delivery_wakes_the_lane_that_it_readies_alone() {
    let mut scene = Scene::new().await;
    let line = |account, lane| vec![(name(account), lane)];
    let (sends, results) = (line("a", Lane::Sends), line("a", Lane::Results));
    let (at, story) = (Timestamp::MAX, Box::<Story>::default);
    let otherwise = Box::new(Death {
        key: "key".to_owned(),
        reason: DeadReason::Operator,
        at,
        problem: String::new(),
        hint: String::new(),
        email_id: None,
        account: None,
        words: Words::default(),
    });
    let (account, priority) = (name("b"), Priority::Low);
    let cases = [
        (Disposition::Complete, vec![]),
        (Disposition::DeadLetter { story: story() }, vec![]),
        (Disposition::FollowUp { at, story: story() }, results),
        (Disposition::Retry { at, story: story() }, sends.clone()),
        (
            Disposition::Snooze {
                until: at,
                story: story(),
            },
            sends,
        ),
        (
            Disposition::Route {
                account,
                priority,
                story: story(),
                otherwise,
            },
            line("b", Lane::Sends),
        ),
    ];
    for (disposition, readied) in cases {
        let options = IntakeOptions::holding(1);
        let (worker, a) = (scene.worker.clone(), name("a"));
        let mut intake = worker.open(&a, Lane::Sends, options).await.unwrap();
        worker.publish(parcel("a")).await.unwrap();
        let delivery = intake.receive().await.unwrap();
        scene.woken().await;
        worker.settle(delivery, disposition.clone()).await.unwrap();
        assert_eq!(scene.woken().await, readied, "{disposition:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_process_publishes_wakes_its_lane_alone() {
    let mut scene = Scene::new().await;
    for account in ["b", "a", "b"] {
        scene.other.publish(parcel(account)).await.unwrap();
        assert_eq!(scene.woken().await, [(name(account), Lane::Sends)]);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_seen_at_once_while_anybody_changes_the_file_and_a_little_later_after_a_rest() {
    let mut scene = Scene::new().await;
    // The clock's own grain is a millisecond.
    assert!(scene.until_seen().await <= LOOK_EVERY * 2);
    tokio::time::sleep(REST).await;
    let after_a_rest = scene.until_seen().await;
    assert!(after_a_rest > LOOK_EVERY * 2, "{after_a_rest:?}");
    assert!(after_a_rest <= LOOK_SELDOM + LOOK_EVERY, "{after_a_rest:?}");

    // A change of this worker's, by which nobody is woken.
    tokio::time::sleep(REST).await;
    let day = DayCalls {
        calls: 1,
        ends: Timestamp::MAX,
    };
    let lease = scene.worker.lease(&name("a")).await.unwrap();
    assert!(lease.tell(Word::Day(day)).await);
    tokio::time::sleep(LOOK_SELDOM * 2).await;
    assert!(scene.until_seen().await <= LOOK_EVERY * 2);
}

async fn open(folder: &TempDir, mode: Mode) -> SqliteQueue {
    let (path, accounts) = (folder.path().join("queue.db"), ["a", "b", "z"].map(name));
    let queue = SqliteQueue::open(path, "postrider", accounts, Clock::system(), mode);
    queue.await.unwrap()
}

fn name(account: &str) -> AccountName {
    AccountName::parse(account).unwrap()
}

fn parcel(account: &str) -> Parcel {
    Parcel {
        body: Bytes::from_static(b"{}"),
        message_id: None,
        account: name(account),
        priority: Priority::Normal,
        story: Story::default(),
    }
}
