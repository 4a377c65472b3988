use std::time::Duration;

use super::super::{Before, Spends, Word};
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
    let intake = queue
        .open(
            &AccountName::default(),
            Lane::Sends,
            IntakeOptions::holding(1),
        )
        .await;
    (queue, intake.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_settle_that_fails_leaves_the_message() {
    let (queue, mut intake) = queue_with(&["one"]).await;
    let delivery = intake.receive().await.unwrap();
    queue.interrupt_next(Interruption::Fails(QueueError::Lost));
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
    let lease = queue.lease(&AccountName::default()).await.unwrap();
    assert!(lease.before == Before::Nobody && lease.holds(tokio::time::Instant::now()));
    assert!(lease.tell(Word::Spends(Spends::AtOnce)).await);
    queue.lose_connection();
    lease.lost().await;
    assert!(
        !lease.tell(Word::Spends(Spends::Evenly)).await,
        "it is no owner"
    );
    let lease = queue.lease(&AccountName::default()).await.unwrap();
    assert_eq!(lease.before, Before::Somebody(Spends::AtOnce));
    assert!(lease.holds(tokio::time::Instant::now()));
}
