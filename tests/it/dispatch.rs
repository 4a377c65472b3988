//! The dispatcher on the paused clock: the memory queue on one side, a scripted HubSpot on the
//! other. Each test is one story.

mod answers;
mod doubt;
mod environments;
mod journal;
mod learned;
mod leaving;
mod limits;
mod overheard;
mod pauses;
mod trouble;
mod turns;
mod waits;
mod world;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use postrider::config::{QuotaConfig, WindowConfig};
use postrider::dispatch::{Left, Settings};
use postrider::message::Priority;
use postrider::outcome::{DeadReason, FailureClass, LookUp, Outcome, Scope, Words};
use postrider::queue::Parcel;
use postrider::queue::memory::Interruption;
use postrider::queue::{DeadLetters, Fate, Kind, Queue, QueueError, Validity};
use tokio::time::Instant;

use overheard::Heard;
use world::{Scripted, accepted, down, failure, parcel, settings, start};

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test(start_paused = true)]
async fn requests_are_sent_once_and_followed_up() {
    let world = start(Scripted::new(|id, _, _| accepted(id)), settings(), 100).await;
    world.drained(HOUR).await;
    assert_eq!(world.hubspot.calls().len(), 100);
    assert_eq!(
        world.metric("postrider_results_total{account=\"default\",result=\"sent\"}"),
        100
    );
    assert_eq!(
        world.metric("postrider_requests_received_total{account=\"default\",priority=\"normal\"}"),
        100
    );
    assert!(world.dead().is_empty());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_time_out_is_resolved_with_the_same_id() {
    let hubspot = Scripted::new(|id, nth, _| match nth {
        1 => Outcome::Unknown(down()),
        _ => accepted(id),
    });
    let world = start(hubspot, settings(), 1).await;
    world.drained(HOUR).await;
    assert_eq!(world.hubspot.tries("m-0"), 2);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_always_fails_alone_is_exhausted() {
    let hubspot = Scripted::new(|id, _, _| match id {
        "m-3" => Outcome::NotSent(down()),
        id => accepted(id),
    });
    let world = start(hubspot, settings(), 10).await;
    world.drained(HOUR * 4).await;
    assert_eq!(world.dead(), [("m-3".to_owned(), DeadReason::Exhausted)]);
    assert_eq!(world.hubspot.tries("m-3"), 12);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_result_is_a_dead_letter_and_its_replay_takes_a_new_send_id() {
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    hubspot.results = Box::new(|status, _| match status {
        "status-of-m-0" => LookUp::NotSent(failure(FailureClass::Permanent, Scope::Message, None)),
        _ => LookUp::Sent(Words::default()),
    });
    let world = start(hubspot, settings(), 1).await;
    world.drained(HOUR).await;
    assert_eq!(world.dead(), [("m-0".to_owned(), DeadReason::Refused)]);
    let tally = world
        .queue
        .sweep(|letter| std::ops::ControlFlow::Continue(Fate::Replay(Box::new(letter.replay()))))
        .await
        .unwrap();
    assert_eq!(tally.replayed, 1);
    world.drained(HOUR).await;
    assert!(world.dead().is_empty());
    assert_eq!(world.hubspot.tries("m-0.r2"), 1);
    assert_eq!(world.metric("postrider_replayed_total"), 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_result_that_never_comes_is_unknown_and_no_dead_letter() {
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    hubspot.results = Box::new(|_, _| LookUp::Pending);
    let world = start(hubspot, settings(), 3).await;
    world.drained(HOUR * 26).await;
    assert!(world.dead().is_empty());
    assert_eq!(
        world.metric("postrider_results_total{account=\"default\",result=\"unknown\"}"),
        3
    );
    assert_eq!(world.hubspot.calls().len(), 3, "never mailed again");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn send_at_and_expires_at_are_honoured_without_a_call() {
    let world = start(Scripted::new(|id, _, _| accepted(id)), settings(), 0).await;
    let at = |seconds: u64| -> Timestamp {
        postrider::clock::after(world.clock.now(), Duration::from_secs(seconds))
    };
    let later = format!(r#", "dispatch": {{"sendAt": "{}"}}"#, at(600));
    let gone = format!(r#", "dispatch": {{"expiresAt": "{}"}}"#, world.clock.now());
    world.queue.publish(parcel("later", &later)).await.unwrap();
    world.queue.publish(parcel("gone", &gone)).await.unwrap();
    world.drained(HOUR).await;
    assert_eq!(world.dead(), [("gone".to_owned(), DeadReason::Expired)]);
    let calls = world.hubspot.calls();
    assert_eq!(calls.len(), 1);
    assert!(calls[0].at >= Duration::from_mins(10) && calls[0].at < Duration::from_secs(601));
    let received = "postrider_requests_received_total{account=\"default\",priority=\"normal\"}";
    assert_eq!(world.metric(received), 2, "what waits is received once");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn malformed_requests_die_and_other_lanes_are_routed() {
    let world = start(Scripted::new(|id, _, _| accepted(id)), settings(), 0).await;
    world
        .queue
        .publish(parcel("urgent", r#", "dispatch": {"priority": "high"}"#))
        .await
        .unwrap();
    world
        .queue
        .publish(parcel("stray", r#", "dispatch": {"account": "nobody"}"#))
        .await
        .unwrap();
    let broken = Parcel {
        body: Bytes::from_static(b"{]"),
        message_id: Some("broken".into()),
        ..parcel("", "")
    };
    world.queue.publish(broken).await.unwrap();
    world.drained(HOUR).await;
    let mut dead = world.dead();
    dead.sort();
    assert_eq!(
        dead,
        [
            ("broken".to_owned(), DeadReason::Malformed),
            ("stray".to_owned(), DeadReason::Malformed)
        ]
    );
    assert_eq!(world.hubspot.tries("urgent"), 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn high_overtakes_under_backlog() {
    let limited = Settings {
        quota: QuotaConfig {
            send: Some(WindowConfig {
                limit: 100,
                window: Duration::from_secs(10),
            }),
            ..QuotaConfig::default()
        },
        results: 0.0,
        ..settings()
    };
    let world = start(Scripted::new(|id, _, _| accepted(id)), limited, 2_000).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let published = world.hubspot.origin.elapsed();
    let urgent = Parcel {
        priority: Priority::High,
        ..parcel("urgent", "")
    };
    world.queue.publish(urgent).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let calls = world.hubspot.calls();
    let call = calls
        .iter()
        .find(|call| call.send_id == "urgent")
        .expect("sent within 5 s");
    assert!(
        call.at.saturating_sub(published) < Duration::from_millis(250),
        "waited {:?}",
        call.at.saturating_sub(published)
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_takes_nothing_more_and_hears_every_answer() {
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    hubspot.latency = Duration::from_secs(3);
    let world = start(
        hubspot,
        Settings {
            results: 0.0,
            ..settings()
        },
        100,
    )
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (queue, hubspot) = (world.queue.clone(), Arc::clone(&world.hubspot));
    world.end().await;
    let standing = queue.standing();
    assert_eq!(hubspot.calls().len(), 8, "the calls in flight and no more");
    assert_eq!(standing.ready.len(), 92);
    assert!(standing.in_hand.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_tells_what_it_left_and_is_over_in_time() {
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    // Of eight calls the first three are answered within the grace, and one of them is not settled.
    hubspot.latency_of = Some(Box::new(|nth| Duration::from_secs(10 * nth)));
    let world = start(hubspot, settings(), 100).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (queue, account) = (world.queue.clone(), Arc::clone(&world.account));
    queue.interrupt_next(Interruption::Fails(QueueError::Lost));
    let told = Instant::now();
    world.end().await;
    assert_eq!(
        told.elapsed(),
        Duration::from_secs(35),
        "and not a moment later"
    );
    let expected = Left {
        finished: 2,
        handed_back: 1,
        unanswered: 5,
        unsettled: 0,
    };
    assert_eq!(account.left(), expected);
    assert_eq!(
        queue.standing().in_hand.len(),
        5,
        "until the connection ends"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ran_out_lets_nothing_go_and_gives_nothing_back() {
    let world = start(Scripted::new(|id, _, _| accepted(id)), settings(), 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.queue.renew_lease(Validity::Until(Instant::now()));
    for n in 0..20 {
        world
            .queue
            .publish(parcel(&format!("m-{n}"), ""))
            .await
            .unwrap();
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(world.hubspot.calls().is_empty(), "fenced");
    let standing = world.queue.standing();
    let all = standing.ready.iter().chain(&standing.in_hand);
    assert!(
        all.clone().all(|message| !message.redelivered),
        "a return counts against it"
    );
    assert_eq!(all.count(), 20);
    world.queue.renew_lease(Validity::Held);
    world.drained(HOUR).await;
    assert_eq!(world.hubspot.calls().len(), 20);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_means_a_second_call_under_the_same_id_at_most() {
    let world = start(Scripted::new(|id, _, _| accepted(id)), settings(), 200).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        world.queue.lose_connection();
    }
    world.drained(HOUR).await;
    assert!(world.dead().is_empty());
    for n in 0..200 {
        assert!(world.hubspot.tries(&format!("m-{n}")) >= 1);
    }
    world.end().await;
}

// === what is announced ===

#[tokio::test(start_paused = true)]
async fn an_outcome_is_announced_once_and_only_after_it_was_settled() {
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    hubspot.results = Box::new(|_, nth| match nth {
        1 => LookUp::Pending,
        _ => LookUp::Sent(Words::default()),
    });
    let world = start(hubspot, settings(), 1).await;
    world
        .queue
        .interrupt_next(Interruption::Fails(QueueError::Lost));
    world.drained(HOUR).await;
    let told: Vec<_> = world.overheard.heard().iter().map(told).collect();
    assert_eq!(
        told,
        [
            "not settled: follow_up",
            "settled: follow_up",
            "announced: accepted m-0",
            "settled: follow_up",
            "settled: complete",
            "announced: sent m-0",
        ]
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn each_end_of_a_request_is_announced_as_one_thing() {
    let mut hubspot = Scripted::new(|id, _, _| match id {
        "m-0" => Outcome::NotSent(failure(FailureClass::Permanent, Scope::Message, None)),
        id => accepted(id),
    });
    hubspot.results = Box::new(|status_id, _| match status_id {
        "status-of-m-1" => LookUp::NotSent(failure(FailureClass::Permanent, Scope::Message, None)),
        "status-of-m-2" => LookUp::Unclear(Words::default()),
        _ => LookUp::Sent(Words::default()),
    });
    let world = start(hubspot, settings(), 4).await;
    world
        .queue
        .publish(parcel("m-4", ", \"x\": 1"))
        .await
        .unwrap();
    world.drained(HOUR).await;
    let mut ends: Vec<_> = (world.overheard.heard().into_iter())
        .filter_map(|heard| match heard {
            Heard::Announced(news) if news.kind != Kind::Accepted => Some(news),
            Heard::Settled(_) | Heard::NotSettled(_) | Heard::Announced(_) | Heard::Spends(_) => {
                None
            }
        })
        .map(|news| (news.id, news.kind, news.reason))
        .collect();
    ends.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("m-0", Kind::Dead, Some(DeadReason::Rejected)),
        ("m-1", Kind::Refused, Some(DeadReason::Refused)),
        ("m-2", Kind::Unknown, None),
        ("m-3", Kind::Sent, None),
        ("m-4", Kind::Dead, Some(DeadReason::Malformed)),
    ];
    assert_eq!(
        ends,
        expected.map(|(id, kind, why)| (id.to_owned(), kind, why))
    );
    world.end().await;
}

fn told(heard: &Heard) -> String {
    match heard {
        Heard::Settled(what) => format!("settled: {what}"),
        Heard::NotSettled(what) => format!("not settled: {what}"),
        Heard::Spends(spends) => format!("spends: {spends:?}"),
        Heard::Announced(news) => format!("announced: {} {}", news.kind.label(), news.id),
    }
}
