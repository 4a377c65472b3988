//! What is in hand, and what becomes of it.

use std::time::Duration;

use postrider::message::AccountName;
use postrider::outcome::{DeadReason, Disposition};
use postrider::queue::{Intake, IntakeOptions, Lane, Queue, QueueError};

use super::Backend;
use super::steps::{
    DEADLINE, complete, dead_story, next, nothing, parcel, published, sends, settle, stands, text,
};

pub async fn a_released_request_is_handed_out_again<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let delivery = published(&backend, &mut intake, "one").await;
    settle(&backend, delivery, Disposition::Release).await;
    let delivery = next(&mut intake).await;
    assert_eq!(text(&delivery), "one");
    complete(&backend, delivery).await;
    stands(&backend, &[]).await;
}

pub async fn what_was_in_hand_is_handed_out_after_a_lost_connection<B: Backend>(mut backend: B) {
    let mut intake = sends(&backend).await;
    let before = backend.queue().clone();
    let old = published(&backend, &mut intake, "in hand").await;
    let older = published(&backend, &mut intake, "in hand too").await;
    backend.lose_connection().await;
    drop(intake);

    let settled = backend.queue().settle(old, Disposition::Complete).await;
    assert!(matches!(settled, Err(QueueError::Lost)), "{settled:?}");
    let story = Box::new(dead_story(&backend, &older, DeadReason::Rejected));
    let settled = before
        .settle(older, Disposition::DeadLetter { story })
        .await;
    assert!(matches!(settled, Err(QueueError::Lost)), "{settled:?}");

    let mut intake = sends(&backend).await;
    for body in ["in hand", "in hand too"] {
        let delivery = next(&mut intake).await;
        assert_eq!(text(&delivery), body);
        assert!(delivery.redelivered, "a call may have been made for it");
        complete(&backend, delivery).await;
    }
    stands(&backend, &[]).await;
}

pub async fn a_dropped_intake_gives_back_what_was_not_received<B: Backend>(backend: B) {
    for body in ["a", "b", "c"] {
        backend.queue().publish(parcel(body)).await.unwrap();
    }
    let mut intake = sends(&backend).await;
    let in_hand = next(&mut intake).await;
    tokio::time::sleep(B::ARRIVAL).await;
    drop(intake);

    let mut intake = sends(&backend).await;
    for body in ["b", "c"] {
        let delivery = next(&mut intake).await;
        assert_eq!(text(&delivery), body);
        complete(&backend, delivery).await;
    }
    nothing(&mut intake).await;
    complete(&backend, in_hand).await;
    stands(&backend, &[]).await;
}

pub async fn a_closed_intake_has_given_back_what_was_not_received_in_order<B: Backend>(backend: B) {
    let bodies: Vec<String> = (0..70).map(|n| format!("{n:02}")).collect();
    for body in &bodies {
        backend.queue().publish(parcel(body)).await.unwrap();
    }
    let queue = backend.queue();
    let account = AccountName::default();
    let opened = queue.open(&account, Lane::Sends, IntakeOptions::holding(100));
    let mut intake = opened.await.unwrap();
    let in_hand = next(&mut intake).await;
    tokio::time::sleep(B::ARRIVAL).await;
    intake.close().await;
    // Settled after its intake is gone; and the others stand in the queue by now.
    complete(&backend, in_hand).await;
    let mut intake = sends(&backend).await;
    for body in &bodies[1..] {
        let delivery = next(&mut intake).await;
        assert_eq!(text(&delivery), body);
        complete(&backend, delivery).await;
    }
    stands(&backend, &[]).await;
}

pub async fn an_intake_holds_no_more_than_its_prefetch<B: Backend>(backend: B) {
    for n in 0..10 {
        backend
            .queue()
            .publish(parcel(&n.to_string()))
            .await
            .unwrap();
    }
    let queue = backend.queue();
    let _idle = queue
        .open(
            &AccountName::default(),
            Lane::Sends,
            IntakeOptions::holding(2),
        )
        .await
        .unwrap();
    tokio::time::sleep(B::ARRIVAL).await;
    let mut busy = queue
        .open(
            &AccountName::default(),
            Lane::Sends,
            IntakeOptions::holding(10),
        )
        .await
        .unwrap();
    for _ in 0..8 {
        let delivery = next(&mut busy).await;
        complete(&backend, delivery).await;
    }
}

pub async fn receive_may_be_cancelled<B: Backend>(backend: B) {
    const COUNT: usize = 30;
    let mut intake = sends(&backend).await;
    for n in 0..COUNT {
        backend
            .queue()
            .publish(parcel(&n.to_string()))
            .await
            .unwrap();
    }
    let mut received = Vec::new();
    let all = async {
        while received.len() < COUNT {
            tokio::select! {
                biased;
                delivery = intake.receive() => {
                    let delivery = delivery.unwrap();
                    received.push(text(&delivery).to_owned());
                    complete(&backend, delivery).await;
                }
                // Given up at the first wait, whatever it waits for.
                () = std::future::ready(()) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    tokio::time::timeout(DEADLINE, all)
        .await
        .expect("a delivery was lost on the way");
    let expected: Vec<_> = (0..COUNT).map(|n| n.to_string()).collect();
    assert_eq!(received, expected);
}
