//! Into a lane, and out of it.

use std::time::Duration;

use bytes::Bytes;
use postrider::message::{AccountName, Priority};
use postrider::outcome::Disposition;
use postrider::queue::Parcel;
use postrider::queue::{Before, DayCalls, IntakeOptions, Lane, Queue, QueueError, Spends, Word};

use super::Backend;
use super::steps::{
    DEADLINE, account, complete, in_a_while, name, next, nothing, parcel, published, route, sends,
    settle, stands, text,
};

pub async fn a_request_is_received_as_it_came<B: Backend>(backend: B) {
    let body = br#"{"emailId": 9007199254740993, "message":  {"to":"ada@example.com"}}"#;
    let parcel = Parcel {
        body: Bytes::from_static(body),
        message_id: Some("order-1".into()),
        priority: Priority::High,
        ..parcel("")
    };
    let before = backend.clock().now();
    backend.queue().publish(parcel).await.unwrap();
    let mut intake = sends(&backend).await;
    let delivery = next(&mut intake).await;
    assert_eq!(&*delivery.body, body);
    assert_eq!(delivery.message_id.as_deref(), Some("order-1"));
    assert_eq!(delivery.account, AccountName::default());
    assert_eq!(
        (delivery.lane, delivery.priority),
        (Lane::Sends, Priority::High)
    );
    assert!(!delivery.redelivered);
    let published = delivery.story.published_at.unwrap();
    assert!(before <= published && published <= backend.clock().now());
    assert_eq!((delivery.story.spent, delivery.story.replays), (0, 0));
    nothing(&mut intake).await;
}

pub async fn order_is_kept_within_a_priority<B: Backend>(backend: B) {
    let bodies: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    for body in &bodies {
        backend.queue().publish(parcel(body)).await.unwrap();
    }
    let mut intake = sends(&backend).await;
    for body in &bodies {
        let delivery = next(&mut intake).await;
        assert_eq!(text(&delivery), body);
        complete(&backend, delivery).await;
    }
}

pub async fn high_goes_before_normal_before_low<B: Backend>(backend: B) {
    for priority in [Priority::Low, Priority::Normal, Priority::High] {
        for n in 0..3 {
            let parcel = Parcel {
                priority,
                ..parcel(&format!("{priority}{n}"))
            };
            backend.queue().publish(parcel).await.unwrap();
        }
    }
    let mut intake = sends(&backend).await;
    tokio::time::sleep(B::ARRIVAL).await;
    let mut order = Vec::new();
    for _ in 0..9 {
        let delivery = next(&mut intake).await;
        order.push(text(&delivery).to_owned());
        complete(&backend, delivery).await;
    }
    let expected = ["high", "normal", "low"].map(|p| [0, 1, 2].map(|n| format!("{p}{n}")));
    assert_eq!(order, expected.as_flattened());
}

pub async fn accounts_do_not_mix<B: Backend>(backend: B) {
    let mut first = sends(&backend).await;
    let mut second = backend
        .queue()
        .open(&account("second"), Lane::Sends, IntakeOptions::holding(10))
        .await
        .unwrap();
    let parcel = Parcel {
        account: account("second"),
        ..parcel("to the second")
    };
    backend.queue().publish(parcel).await.unwrap();
    let delivery = next(&mut second).await;
    assert_eq!(delivery.account, account("second"));
    nothing(&mut first).await;
}

pub async fn complete_leaves_nothing<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let delivery = published(&backend, &mut intake, "one").await;
    stands(&backend, &[("send.default.normal", 1)]).await;
    complete(&backend, delivery).await;
    stands(&backend, &[]).await;
    nothing(&mut intake).await;
}

pub async fn a_routed_request_changes_its_lane<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let mut second = backend
        .queue()
        .open(&account("second"), Lane::Sends, IntakeOptions::holding(10))
        .await
        .unwrap();
    let delivery = published(&backend, &mut intake, "not mine").await;
    let route = route(&backend, &delivery, "second");
    settle(&backend, delivery, route).await;
    let delivery = next(&mut second).await;
    assert_eq!(text(&delivery), "not mine");
    assert_eq!(delivery.message_id.as_deref(), Some("id-not mine"));
    assert_eq!(
        (&delivery.account, delivery.priority),
        (&account("second"), Priority::High)
    );
    assert_eq!(delivery.story.death, None);
    nothing(&mut intake).await;
    complete(&backend, delivery).await;
    stands(&backend, &[]).await;
}

pub async fn an_unknown_account_is_unroutable<B: Backend>(backend: B) {
    let nowhere = Parcel {
        account: account("nowhere"),
        ..parcel("one")
    };
    let published = backend.queue().publish(nowhere).await;
    assert!(
        matches!(published, Err(QueueError::Unroutable { .. })),
        "{published:?}"
    );
    stands(&backend, &[]).await;
}

pub async fn depths_name_every_queue<B: Backend>(backend: B) {
    let before = backend.clock().now();
    backend.queue().publish(parcel("one")).await.unwrap();
    stands(&backend, &[("send.default.normal", 1)]).await;
    let depths = backend.queue().depths().await.unwrap();
    let mut names: Vec<_> = depths.iter().map(|depth| name(&depth.queue)).collect();
    names.sort_unstable();
    let expected = [
        "dead",
        "delay",
        "results.default",
        "results.second",
        "send.default.high",
        "send.default.low",
        "send.default.normal",
        "send.second.high",
        "send.second.low",
        "send.second.normal",
    ];
    assert_eq!(names, expected);
    // Where the backend knows the age at all, it knows the right one.
    for oldest in depths.iter().filter_map(|depth| depth.oldest) {
        assert!(before <= oldest && oldest <= backend.clock().now());
    }
}

pub async fn a_lease_is_given<B: Backend>(backend: B) {
    let account = AccountName::default();
    let lease = tokio::time::timeout(DEADLINE, backend.queue().lease(&account)).await;
    assert!(lease.unwrap().unwrap().holds(tokio::time::Instant::now()));
}

pub async fn what_an_owner_tells_the_next_one_knows<B: Backend>(mut backend: B) {
    let account = AccountName::default();
    let lease = async |backend: &B| {
        let lease = tokio::time::timeout(DEADLINE, backend.queue().lease(&account)).await;
        lease.unwrap().unwrap()
    };
    let day = |calls| DayCalls {
        calls,
        ends: "2026-12-02T05:00:00Z".parse().unwrap(),
    };
    let first = lease(&backend).await;
    assert_eq!(first.day, None);
    for word in [
        Word::Day(day(1)),
        Word::Spends(Spends::AtOnce),
        Word::Day(day(500_001)),
    ] {
        assert!(first.tell(word).await, "{word:?}");
    }
    drop(first);
    let second = lease(&backend).await;
    assert_eq!(second.day, Some(day(500_001)));
    let other = self::account("second");
    let other = backend.queue().lease(&other).await.unwrap();
    assert_eq!(other.day, None, "of another account nothing was told");
    backend.lose_connection().await;
    drop(second);
    let third = lease(&backend).await;
    assert_eq!(third.day, Some(day(500_001)));
    assert_eq!(third.before, Before::Somebody(Spends::AtOnce));
}

pub async fn what_is_due_to_be_sent_is_counted<B: Backend>(backend: B) {
    let waiting = async || {
        let account = AccountName::default();
        backend.queue().waiting(&account, 100).await.unwrap()
    };
    assert_eq!(waiting().await, 0);
    for priority in Priority::ALL {
        let parcel = Parcel {
            priority,
            ..parcel(priority.as_str())
        };
        backend.queue().publish(parcel).await.unwrap();
    }
    // What comes in counts when it is in hand.
    let counted = async |expected| {
        let arrived = async {
            while waiting().await != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, arrived)
            .await
            .expect("counted");
    };
    counted(3).await;
    let mut intake = sends(&backend).await;
    let high = next(&mut intake).await;
    let normal = next(&mut intake).await;
    let _low = next(&mut intake).await;
    counted(3).await;
    complete(&backend, high).await;
    counted(2).await;
    let snooze = Disposition::snooze(in_a_while(&backend), (*normal.story).clone());
    settle(&backend, normal, snooze).await;
    counted(1).await;
}
