//! What the journal tells of a request.

use std::time::Duration;

use postrider::journal::{Entry, Then};
use postrider::outcome::{DeadReason, FailureClass, LookUp, Outcome, Scope, Words};
use postrider::queue::memory::Interruption;
use postrider::queue::{Queue, QueueError};

use super::world::{Scripted, accepted, failure, parcel, settings, start};

/// `send 1 unknown, retry`
fn line(entry: &Entry) -> String {
    let then = serde_json::to_value(&entry.then).unwrap();
    let then = then["what"].as_str().unwrap();
    let again = if entry.redelivered { "again: " } else { "" };
    match &entry.call {
        None => format!("{again}{then}"),
        Some(call) => {
            let call_to = match call.attempt {
                Some(number) => format!("send {number}"),
                None => "look up".into(),
            };
            format!("{again}{call_to} {} {}, {then}", call.send_id, call.outcome)
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_attempt_its_resolution_and_the_result_are_told() {
    let mut hubspot = Scripted::new(|id, nth, _| {
        if nth == 1 {
            let mut silence = failure(FailureClass::Transient, Scope::Provider, None);
            silence.words.message = Some("time-out".into());
            Outcome::Unknown(silence)
        } else {
            accepted(id)
        }
    });
    hubspot.results = Box::new(|_, nth| match nth {
        1 => LookUp::Pending,
        _ => LookUp::Sent(Words::default()),
    });
    let world = start(hubspot, settings(), 1).await;
    world.drained(Duration::from_mins(5)).await;
    let notes = world.queue.notes();
    let lines: Vec<_> = notes.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "send 1 m-0 unknown, retry",
            "send 2 m-0 accepted, follow_up",
            "look up m-0 pending, follow_up",
            "look up m-0 sent, complete",
        ]
    );
    assert!(notes.iter().all(|entry| entry.id == "m-0"));
    assert!(notes.iter().all(|entry| entry.account == "default"));
    let published = world.clock.now();
    assert!(
        notes
            .iter()
            .all(|entry| entry.published_at < Some(published))
    );
    let words = &notes[0].call.as_ref().unwrap().words;
    assert_eq!(words.message.as_deref(), Some("time-out"));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_not_settled_is_told_and_comes_again() {
    let world = start(Scripted::new(|id, _, _| accepted(id)), settings(), 0).await;
    world.queue.publish(parcel("m-0", "")).await.unwrap();
    world
        .queue
        .interrupt_next(Interruption::Fails(QueueError::Lost));
    world.drained(Duration::from_mins(5)).await;
    let lines: Vec<_> = world.queue.notes().iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "send 1 m-0 accepted, not_settled",
            "again: send 1 m-0 accepted, follow_up",
            "look up m-0 sent, complete",
        ]
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_death_is_told_without_the_words_that_may_hold_an_address() {
    let hubspot = Scripted::new(|_, _, _| {
        let mut refusal = failure(FailureClass::Permanent, Scope::Message, None);
        refusal.words.status = Some(400);
        refusal.words.message = Some("ada@example.com is no address".into());
        Outcome::NotSent(refusal)
    });
    let world = start(hubspot, settings(), 1).await;
    let mut malformed = parcel("m-1", "");
    malformed.body = r#"{"ada@example.com": 1}"#.into();
    malformed.message_id = Some("m-1".into());
    world.queue.publish(malformed).await.unwrap();
    world.drained(Duration::from_mins(5)).await;
    let notes = world.queue.notes();
    let thens: Vec<_> = notes.iter().map(|entry| entry.then.clone()).collect();
    let dead = |reason, problem: Option<&str>| Then::DeadLetter {
        reason,
        problem: problem.map(str::to_owned),
    };
    let rejected = dead(DeadReason::Rejected, Some("HubSpot refused the request"));
    assert!(thens.contains(&rejected), "{thens:?}");
    assert!(
        thens.contains(&dead(DeadReason::Malformed, None)),
        "{thens:?}"
    );
    let text = serde_json::to_string(&notes).unwrap();
    assert!(!text.contains('@'), "{text}");
    world.end().await;
}
