//! Where nobody can tell for certain whether a mail was sent: nothing is lost, and nothing goes out
//! under a second id.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postrider::dispatch::Settings;
use postrider::outcome::{FailureClass, LookUp, Outcome, Scope, Words};
use postrider::queue::memory::Interruption;
use postrider::queue::{DeadLetters, Fate, Queue};

use super::world::{Scripted, accepted, down, failure, parcel, settings, start};

const HOUR: Duration = Duration::from_hours(1);

/// Not sent, for what may heal.
fn not_sent() -> LookUp {
    LookUp::NotSent(failure(FailureClass::Transient, Scope::Message, None))
}

/// The id was used before, and that is all that HubSpot says.
fn used() -> LookUp {
    LookUp::Unclear(Words {
        send_result: Some("IDEMPOTENT_FAIL".into()),
        ..Words::default()
    })
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_may_heal_is_not_lost_with_a_connection() {
    let mut hubspot = Scripted::new(|id, _, at| {
        if id == "m-1" && at < Duration::from_secs(20) {
            return Outcome::NotSent(failure(FailureClass::Throttled, Scope::Account, None));
        }
        accepted(id)
    });
    hubspot.results = Box::new(|id, nth| match (id, nth) {
        ("status-of-m-0", 1) => not_sent(),
        ("status-of-m-0", _) => used(),
        _ => LookUp::Sent(Words::default()),
    });
    let world = start(hubspot, settings(), 1).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    // It holds the lane back, so that the retry of the other one is prefetched and no more.
    world.queue.publish(parcel("m-1", "")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    world.queue.lose_connection();
    world.drained(HOUR).await;
    let mailed = world.hubspot.tries("m-0.r2");
    assert_eq!(
        mailed + world.dead().len(),
        1,
        "{:?}",
        world.hubspot.calls()
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_was_heard_is_not_forgotten_where_few_results_are_asked_for() {
    let refusals = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&refusals);
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    hubspot.results = Box::new(move |id, nth| {
        if id.contains(".r2") {
            LookUp::Sent(Words::default())
        } else if nth == 1 {
            told.fetch_add(1, Ordering::Relaxed);
            not_sent()
        } else {
            used()
        }
    });
    let few = Settings {
        results: 0.3,
        ..settings()
    };
    let world = start(hubspot, few, 100).await;
    world.drained(10 * HOUR).await;
    let calls = world.hubspot.calls();
    let mailed = calls.iter().filter(|call| call.send_id.contains(".r2"));
    let refusals = refusals.load(Ordering::Relaxed);
    assert!(refusals > 10);
    assert_eq!(mailed.count() + world.dead().len(), refusals);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_of_what_may_have_been_mailed_keeps_its_id() {
    let mut hubspot = Scripted::new(|id, nth, _| match (id, nth) {
        ("m-0", 1) => Outcome::Unknown(down()),
        _ => accepted(id),
    });
    hubspot.results = Box::new(|id, _| {
        if id == "status-of-m-0" {
            LookUp::NotSent(failure(FailureClass::Permanent, Scope::Message, None))
        } else {
            LookUp::Sent(Words::default())
        }
    });
    let world = start(hubspot, settings(), 1).await;
    world.drained(HOUR).await;
    let replay = |letter: &postrider::queue::DeadLetter| {
        ControlFlow::Continue(Fate::Replay(Box::new(letter.replay())))
    };
    assert_eq!(world.queue.sweep(replay).await.unwrap().replayed, 1);
    world.drained(HOUR).await;
    let calls = world.hubspot.calls();
    assert!(calls.iter().all(|call| call.send_id == "m-0"), "{calls:?}");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_copies_none_takes_another_id() {
    let mut hubspot = Scripted::new(|id, nth, _| match accepted(id) {
        Outcome::Accepted(mut accepted) => {
            accepted.status_id = Some(format!("{id}#{nth}"));
            Outcome::Accepted(accepted)
        }
        other @ (Outcome::NotSent(_) | Outcome::Unknown(_)) => other,
    });
    hubspot.results = Box::new(|id, _| match id {
        "m-0#1" => not_sent(),
        "m-0#2" => LookUp::Sent(Words::default()),
        _ => used(),
    });
    let world = start(hubspot, settings(), 1).await;
    // Its look-up is under way.
    tokio::time::sleep(Duration::from_millis(2_010)).await;
    world.queue.interrupt_next(Interruption::Between);
    world.drained(HOUR).await;
    assert_eq!(
        world.hubspot.tries("m-0.r2"),
        0,
        "{:?}",
        world.hubspot.calls()
    );
    world.end().await;
}
