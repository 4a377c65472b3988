//! What waits until it is due.

use std::time::Duration;

use jiff::Timestamp;
use postrider::clock;
use postrider::message::{BODY_BYTES_MAX, Priority};
use postrider::outcome::{Disposition, Words};
use postrider::queue::Parcel;
use postrider::queue::{Lane, Queue};
use postrider::story::{ATTEMPTS_KEPT_MAX, Attempt, FollowUp, Story};

use super::Backend;
use super::steps::{
    complete, in_a_while, next, nothing, parcel, published, results, sends, settle, stands, text,
};

pub async fn a_retry_comes_back_by_its_lane_and_not_early<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let low = Parcel {
        priority: Priority::Low,
        ..parcel("later")
    };
    backend.queue().publish(low).await.unwrap();
    let delivery = next(&mut intake).await;
    let at = in_a_while(&backend);
    let story = Story {
        spent: 3,
        trying_since: Some(backend.clock().now()),
        due_at: Some(at),
        generation: 2,
        may_have_mailed: true,
        ..(*delivery.story).clone()
    };
    settle(
        &backend,
        delivery,
        Disposition::Retry {
            at,
            story: Box::new(story.clone()),
        },
    )
    .await;
    stands(&backend, &[("delay", 1)]).await;
    let delivery = next(&mut intake).await;
    assert!(backend.clock().now() >= at, "it came early");
    assert_eq!(text(&delivery), "later");
    assert_eq!(delivery.message_id.as_deref(), Some("id-later"));
    assert_eq!(
        (delivery.lane, delivery.priority),
        (Lane::Sends, Priority::Low)
    );
    assert_eq!(*delivery.story, story);
    complete(&backend, delivery).await;
    stands(&backend, &[]).await;
}

pub async fn a_snooze_comes_back_by_the_lane_it_was_received_in<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let mut results = results(&backend).await;
    let delivery = published(&backend, &mut intake, "one").await;
    let until = in_a_while(&backend);
    let story = delivery.story.clone();
    settle(
        &backend,
        delivery,
        Disposition::Snooze {
            until,
            story: story.clone(),
        },
    )
    .await;
    let delivery = next(&mut intake).await;
    assert!(backend.clock().now() >= until, "it came early");
    assert_eq!(delivery.story.spent, 0);

    let at = backend.clock().now();
    settle(&backend, delivery, Disposition::FollowUp { at, story }).await;
    let delivery = next(&mut results).await;
    let story = delivery.story.clone();
    let until = in_a_while(&backend);
    settle(&backend, delivery, Disposition::Snooze { until, story }).await;
    let delivery = next(&mut results).await;
    assert!(backend.clock().now() >= until, "it came early");
    assert_eq!(delivery.lane, Lane::Results);
}

pub async fn what_waits_holds_up_nothing<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    for wait in [40, 4, 2] {
        let delivery = published(&backend, &mut intake, &wait.to_string()).await;
        let at = clock::after(backend.clock().now(), Duration::from_secs(wait));
        let story = delivery.story.clone();
        settle(&backend, delivery, Disposition::Retry { at, story }).await;
    }
    let delivery = published(&backend, &mut intake, "at once").await;
    assert_eq!(text(&delivery), "at once");
    for wait in ["2", "4"] {
        assert_eq!(text(&next(&mut intake).await), wait);
    }
}

pub async fn a_follow_up_comes_by_the_results_lane<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let mut results = results(&backend).await;
    let high = Parcel {
        priority: Priority::High,
        ..parcel("one")
    };
    backend.queue().publish(high).await.unwrap();
    let delivery = next(&mut intake).await;
    let at = in_a_while(&backend);
    let story = Story {
        follow_up: Some(FollowUp {
            status_id: "status/1".into(),
            accepted_at: backend.clock().now(),
            look_ups: 0,
        }),
        ..(*delivery.story).clone()
    };
    let follow_up = Disposition::FollowUp {
        at,
        story: Box::new(story.clone()),
    };
    settle(&backend, delivery, follow_up).await;
    let delivery = next(&mut results).await;
    assert!(backend.clock().now() >= at, "it came early");
    assert_eq!(delivery.lane, Lane::Results);
    assert_eq!(*delivery.story, story);

    // Not sent after all: a retry leaves the results lane for the one it first came by.
    let at = backend.clock().now();
    let retry = Disposition::Retry {
        at,
        story: Box::new(story),
    };
    settle(&backend, delivery, retry).await;
    let delivery = next(&mut intake).await;
    assert_eq!(
        (delivery.lane, delivery.priority),
        (Lane::Sends, Priority::High)
    );
    nothing(&mut results).await;
}

pub async fn a_due_time_may_be_far_ahead<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let delivery = published(&backend, &mut intake, "next year").await;
    let at = clock::after(backend.clock().now(), Duration::from_hours(400 * 24));
    let story = Box::new(Story {
        due_at: Some(at),
        ..(*delivery.story).clone()
    });
    settle(&backend, delivery, Disposition::Snooze { until: at, story }).await;
    stands(&backend, &[("delay", 1)]).await;
    nothing(&mut intake).await;
}

pub async fn a_due_time_may_have_passed<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let delivery = published(&backend, &mut intake, "overdue").await;
    let story = delivery.story.clone();
    let at = Timestamp::UNIX_EPOCH;
    settle(&backend, delivery, Disposition::Retry { at, story }).await;
    assert_eq!(text(&next(&mut intake).await), "overdue");
}

/// The longest story there is, beside the largest body: they travel through every copy.
pub async fn a_long_story_and_a_large_body_come_back_whole<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let body = "ü".repeat(BODY_BYTES_MAX / 2);
    let delivery = published(&backend, &mut intake, &body).await;
    let mut story = delivery.story.clone();
    for n in 0..=ATTEMPTS_KEPT_MAX {
        story.record(Attempt {
            at: backend.clock().now(),
            took_ms: n as u64,
            outcome: "transient".into(),
            words: Words {
                status: Some(503),
                message: Some("Ein Fehler \u{1F4EE} \"hier\" ".repeat(40)),
                ..Words::default()
            },
        });
    }
    let retry = Disposition::Retry {
        at: in_a_while(&backend),
        story: story.clone(),
    };
    settle(&backend, delivery, retry).await;
    let delivery = next(&mut intake).await;
    assert_eq!(delivery.story, story);
    assert_eq!(text(&delivery), body);
    complete(&backend, delivery).await;
}
