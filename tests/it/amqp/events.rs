//! Outcomes on `PREFIX.events`.

use jiff::Timestamp;
use postrider::message::{AccountName, Priority};
use postrider::outcome::{DeadReason, Words};
use postrider::queue::{Announcement, Kind, Queue};
use serde_json::{Value, json};

use super::worker;
use crate::support::broker::{self, Version};
use crate::support::producer::Producer;

/// As many as wait for the broker, see `queue/amqp/events.rs`.
const WAITING_MAX: usize = 1_000;

#[tokio::test]
async fn whoever_binds_a_queue_hears_the_outcomes_without_an_address() {
    let (queue, prefix) = worker(Version::V3_10, "events").await;
    let listener = Producer::to(broker::shared().await).await;
    let heard = listener.listen(&format!("{prefix}.events"), "#").await;
    queue.announce(announcement(Kind::Accepted, "one"));
    queue.announce(Announcement {
        generation: 2,
        reason: Some(DeadReason::Refused),
        words: Words {
            status: Some(200),
            category: Some("VALIDATION_ERROR".into()),
            message: Some("ada@example.com bounced".into()),
            correlation_id: Some("c-1".into()),
            send_result: Some("PREVIOUSLY_BOUNCED".into()),
            ..Words::default()
        },
        ..announcement(Kind::Refused, "two")
    });

    let accepted = listener.get(&heard).await;
    assert_eq!(accepted.routing_key.as_str(), "accepted.default");
    let body: Value = serde_json::from_slice(&accepted.data).unwrap();
    let plain = json!({
        "kind": "accepted", "id": "one", "account": "default", "priority": "high",
        "emailId": 7, "at": "1970-01-01T00:00:00Z",
    });
    assert_eq!(body, plain);
    let properties = &accepted.properties;
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "one");
    let content_type = properties.content_type().as_ref().unwrap();
    assert_eq!(content_type.as_str(), "application/json");
    assert_eq!(*properties.delivery_mode(), None, "it is not persistent");

    let refused = listener.get(&heard).await;
    assert_eq!(refused.routing_key.as_str(), "refused.default");
    let body: Value = serde_json::from_slice(&refused.data).unwrap();
    let told = json!({
        "kind": "refused", "id": "two", "sendId": "two.r2", "account": "default",
        "priority": "high", "emailId": 7, "reason": "refused", "at": "1970-01-01T00:00:00Z",
        "status": 200, "category": "VALIDATION_ERROR", "correlationId": "c-1",
        "sendResult": "PREVIOUSLY_BOUNCED",
    });
    assert_eq!(body, told);
}

/// It is asked for anew ten times a second, and not for each outcome.
#[tokio::test]
async fn whoever_binds_a_queue_late_hears_from_then_on() {
    for version in [Version::V3_10, Version::V4_0] {
        let (queue, prefix) = worker(version, "late").await;
        let listener = Producer::to(broker::shared_of(version).await).await;
        for n in 0..100 {
            queue.announce(announcement(Kind::Sent, &format!("early-{n}")));
        }
        let exchange = format!("{prefix}.events");
        let other = listener.listen(&exchange, "dead.*").await;
        queue.announce(announcement(Kind::Dead, "other"));
        let told = listener.get(&other).await;
        assert_eq!(told.routing_key.as_str(), "dead.default");

        let heard = listener.listen(&exchange, "sent.*").await;
        let mut round = 0;
        while listener.depth(&heard).await == 0 {
            round += 1;
            assert!(round < 10_000, "nothing is heard");
            queue.announce(announcement(Kind::Sent, &format!("late-{round}")));
        }
        queue.announce(announcement(Kind::Sent, "last"));
        loop {
            let told = listener.get(&heard).await;
            let id = told.properties.message_id().as_ref().unwrap().as_str();
            assert!(!id.starts_with("early"), "{id}");
            if id == "last" {
                break;
            }
        }
    }
}

/// Nothing here awaits, so on this one thread nothing is told meanwhile.
#[tokio::test]
async fn more_outcomes_than_the_line_holds_are_dropped_and_hold_nothing_up() {
    let (queue, prefix) = worker(Version::V3_10, "flood").await;
    let listener = Producer::to(broker::shared().await).await;
    let heard = listener.listen(&format!("{prefix}.events"), "sent.*").await;
    for n in 0..3 * WAITING_MAX {
        queue.announce(announcement(Kind::Sent, &n.to_string()));
    }
    for n in 0..WAITING_MAX {
        let told = listener.get(&heard).await;
        let id = told.properties.message_id().as_ref().unwrap();
        assert_eq!(id.as_str(), n.to_string());
    }
    queue.announce(announcement(Kind::Sent, "after"));
    let told = listener.get(&heard).await;
    assert_eq!(
        told.properties.message_id().as_ref().unwrap().as_str(),
        "after"
    );
}

/// As many as the line holds, told at the very end.
#[tokio::test]
async fn an_orderly_close_tells_what_waits() {
    let (queue, prefix) = worker(Version::V3_10, "farewell").await;
    let listener = Producer::to(broker::shared().await).await;
    let heard = listener.listen(&format!("{prefix}.events"), "#").await;
    for n in 0..WAITING_MAX {
        queue.announce(announcement(Kind::Sent, &n.to_string()));
    }
    queue.close().await;
    for n in 0..WAITING_MAX {
        let told = listener.get(&heard).await;
        let id = told.properties.message_id().as_ref().unwrap();
        assert_eq!(id.as_str(), n.to_string());
    }
}

fn announcement(kind: Kind, id: &str) -> Announcement {
    Announcement {
        kind,
        id: id.into(),
        generation: 0,
        account: AccountName::default(),
        priority: Priority::High,
        email_id: Some(7),
        reason: None,
        at: Timestamp::UNIX_EPOCH,
        words: Words::default(),
    }
}
