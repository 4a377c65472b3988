//! Whose turn it is: a share for each priority, and what expires first within one.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use postrider::clock;
use postrider::message::{AccountName, Priority};
use postrider::outcome::Disposition;
use postrider::queue::{Delivery, Intake, IntakeOptions, Lane, Parcel, Queue, Turns};

use super::Backend;
use super::steps::{IntakeOf, complete, next, nothing, parcel, results, sends, settle, stands};

async fn open<B: Backend>(backend: &B, options: IntakeOptions) -> IntakeOf<B> {
    let account = AccountName::default();
    let intake = backend.queue().open(&account, Lane::Sends, options);
    intake.await.unwrap()
}

/// A request of that name; it expires in so many hours, or never.
fn expiring(backend: &impl Backend, name: &str, hours: Option<u64>) -> Parcel {
    let dispatch = hours.map_or(String::new(), |hours| {
        let at = clock::after(backend.clock().now(), Duration::from_hours(hours));
        format!(r#","dispatch":{{"priority":"normal","expiresAt":"{at}"}}"#)
    });
    let body = format!(r#"{{"emailId":7,"message":{{"to":"ada@example.com"}}{dispatch}}}"#);
    Parcel {
        body: Bytes::from(body),
        message_id: Some(name.to_owned()),
        ..parcel("")
    }
}

async fn publish(backend: &impl Backend, requests: &[(&str, Option<u64>)]) {
    for (name, hours) in requests {
        let parcel = expiring(backend, name, *hours);
        backend.queue().publish(parcel).await.unwrap();
    }
}

fn name(delivery: &Delivery) -> String {
    delivery.message_id.clone().unwrap()
}

/// The names of the next ones.
async fn names<B: Backend>(backend: &B, intake: &mut IntakeOf<B>, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..count {
        let delivery = next(intake).await;
        names.push(name(&delivery));
        complete(backend, delivery).await;
    }
    names
}

pub async fn a_share_is_left_to_each_priority_that_waits<B: Backend>(backend: B) {
    for (priority, count) in [
        (Priority::Low, 5),
        (Priority::Normal, 1),
        (Priority::High, 30),
    ] {
        for _ in 0..count {
            let parcel = Parcel {
                priority,
                ..parcel("one")
            };
            backend.queue().publish(parcel).await.unwrap();
        }
    }
    let options = IntakeOptions {
        turns: Turns::new(0.1),
        ..IntakeOptions::holding(50)
    };
    let mut intake = open(&backend, options.clone()).await;
    tokio::time::sleep(B::ARRIVAL).await;
    let mut order = String::new();
    for received in 0..36 {
        if received == 5 {
            // What is owed outlives an intake.
            intake.close().await;
            intake = open(&backend, options.clone()).await;
            tokio::time::sleep(B::ARRIVAL).await;
        }
        let delivery = next(&mut intake).await;
        order.push_str(&delivery.priority.as_str()[..1]);
        complete(&backend, delivery).await;
    }
    assert_eq!(order, "hhhhhhhhhhnlhhhhhhhhhlhhhhhhhhhhlhll");
}

pub async fn what_is_not_urgent_enough_waits<B: Backend>(backend: B) {
    for priority in [Priority::Low, Priority::Normal] {
        let parcel = Parcel {
            priority,
            ..parcel(priority.as_str())
        };
        backend.queue().publish(parcel).await.unwrap();
    }
    let options = IntakeOptions::holding(50);
    let turns = options.turns.clone();
    let mut intake = open(&backend, options).await;
    for least in [Priority::High, Priority::Normal, Priority::Low] {
        turns.down_to(least);
        if least != Priority::High {
            let delivery = next(&mut intake).await;
            assert_eq!(delivery.priority, least);
            complete(&backend, delivery).await;
        }
        nothing(&mut intake).await;
    }
}

pub async fn what_expires_first_goes_first<B: Backend>(backend: B) {
    let requests = [
        ("never", None),
        ("in 3 h", Some(3)),
        ("never either", None),
        ("in 1 h", Some(1)),
        ("in 2 h", Some(2)),
    ];
    publish(&backend, &requests).await;
    let mut intake = sends(&backend).await;
    tokio::time::sleep(B::ARRIVAL).await;
    let order = names(&backend, &mut intake, 5).await;
    assert_eq!(
        order,
        ["in 1 h", "in 2 h", "in 3 h", "never", "never either"]
    );
    stands(&backend, &[]).await;
}

pub async fn nobody_is_overtaken_by_more_than_the_prefetch<B: Backend>(backend: B) {
    publish(&backend, &[("never", None)]).await;
    for hours in (1..=12).rev() {
        publish(&backend, &[(&format!("in {hours} h"), Some(hours))]).await;
    }
    let mut intake = open(&backend, IntakeOptions::holding(4)).await;
    tokio::time::sleep(B::ARRIVAL).await;
    let order = names(&backend, &mut intake, 13).await;
    let place = order.iter().position(|name| name == "never").unwrap();
    assert!((1..=4).contains(&place), "{order:?}");
}

pub async fn what_was_overtaken_is_given_back_in_order<B: Backend>(backend: B) {
    for number in 0..10 {
        let hours = match number {
            5 => Some(2),
            7 => Some(1),
            _ => None,
        };
        publish(&backend, &[(&number.to_string(), hours)]).await;
    }
    let mut intake = open(&backend, IntakeOptions::holding(20)).await;
    tokio::time::sleep(B::ARRIVAL).await;
    assert_eq!(names(&backend, &mut intake, 3).await, ["7", "5", "0"]);
    intake.close().await;
    let mut intake = sends(&backend).await;
    let rest = names(&backend, &mut intake, 7).await;
    assert_eq!(rest, ["1", "2", "3", "4", "6", "8", "9"]);
    nothing(&mut intake).await;
}

pub async fn follow_ups_keep_their_order<B: Backend>(backend: B) {
    let requests = [("first", Some(2)), ("second", Some(1)), ("third", None)];
    let mut intake = sends(&backend).await;
    for request in requests {
        publish(&backend, &[request]).await;
        let delivery = next(&mut intake).await;
        let story = delivery.story.clone();
        let at = Timestamp::UNIX_EPOCH;
        settle(&backend, delivery, Disposition::FollowUp { at, story }).await;
    }
    let mut results = results(&backend).await;
    tokio::time::sleep(B::ARRIVAL).await;
    let order = names(&backend, &mut results, 3).await;
    assert_eq!(order, ["first", "second", "third"]);
}
