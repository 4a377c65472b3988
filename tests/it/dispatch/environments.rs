//! What the rules of an environment hold back: nothing is called for it, and no doubt is lost.

use std::ops::ControlFlow;
use std::time::Duration;

use postrider::delivery::{Mode, Rules};
use postrider::dispatch::Settings;
use postrider::message::Environment;
use postrider::outcome::{DeadReason, Outcome};
use postrider::queue::{DeadLetters, Fate, Queue};

use super::world::{Scripted, World, accepted, down, parcel, settings, start};

const HOUR: Duration = Duration::from_hours(1);

fn holding() -> Settings {
    Settings {
        delivery: Rules {
            environment: Environment::parse("qa").unwrap(),
            mode: Mode::Hold,
        },
        ..settings()
    }
}

/// Reason, problem and hint of the one dead letter.
fn told(world: &World) -> (DeadReason, String, String) {
    let mut dead = world.queue.standing().dead;
    let letter = dead.pop().expect("a dead letter");
    assert!(dead.is_empty());
    let death = letter.story.death.unwrap();
    (death.reason, death.problem, death.hint)
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_no_call_and_goes_out_by_a_replay_elsewhere() {
    let world = start(Scripted::new(|id, _, _| accepted(id)), holding(), 1).await;
    world.drained(HOUR).await;
    let (reason, problem, hint) = told(&world);
    assert_eq!(reason, DeadReason::Operator);
    assert_eq!(
        problem,
        "held: environment \"qa\" sends nothing (delivery.mode = \"hold\")"
    );
    assert!(
        hint.contains("`postrider dead replay ID` sends it"),
        "{hint}"
    );
    assert_eq!(world.hubspot.calls().len(), 0);
    let world = world.stopped_and_started(settings()).await;
    let replay = |letter: &postrider::queue::DeadLetter| {
        ControlFlow::Continue(Fate::Replay(Box::new(letter.replay())))
    };
    assert_eq!(world.queue.sweep(replay).await.unwrap().replayed, 1);
    world.drained(HOUR).await;
    assert_eq!(world.hubspot.tries("m-0"), 1);
    assert!(world.dead().is_empty());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_without_an_answer_stays_told() {
    let hubspot = Scripted::new(|_, _, _| Outcome::Unknown(down()));
    let world = start(hubspot, settings(), 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.hubspot.tries("m-0"), 1);
    let world = world.stopped_and_started(holding()).await;
    world.drained(HOUR).await;
    let (reason, problem, hint) = told(&world);
    assert_eq!(reason, DeadReason::Operator);
    assert!(problem.starts_with("held: environment"), "{problem}");
    assert!(problem.ends_with("; an attempt got no answer"), "{problem}");
    assert!(hint.contains("may have been mailed"), "{hint}");
    assert_eq!(world.hubspot.tries("m-0"), 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn so_does_that_it_was_handed_out_before() {
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    hubspot.latency = Duration::from_secs(20);
    let world = start(hubspot, settings(), 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let world = world.killed_and_started(holding());
    world.drained(HOUR).await;
    let (_, problem, hint) = told(&world);
    assert!(problem.contains("it was handed out before"), "{problem}");
    assert!(hint.contains("may have been mailed"), "{hint}");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_mark_of_another_environment_is_a_dead_letter_at_once() {
    let world = start(Scripted::new(|id, _, _| accepted(id)), settings(), 0).await;
    let marked = |id: &str, environment: &str| {
        // Not due for a day: a mark is told before that.
        let rest = r#""sendAt":"2026-11-23T12:00:00Z""#;
        parcel(
            id,
            &format!(r#", "dispatch": {{"environment":"{environment}",{rest}}}"#),
        )
    };
    world.queue.publish(marked("m-qa", "qa")).await.unwrap();
    world
        .queue
        .publish(marked("m-ours", "production"))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (reason, problem, hint) = told(&world);
    assert_eq!(reason, DeadReason::Malformed);
    assert!(
        problem.contains("\"qa\"") && problem.contains("\"production\""),
        "{problem}"
    );
    assert!(!hint.is_empty());
    assert_eq!(world.dead(), [("m-qa".to_owned(), DeadReason::Malformed)]);
    world.drained(25 * HOUR).await;
    assert_eq!(world.hubspot.tries("m-qa"), 0);
    assert_eq!(world.hubspot.tries("m-ours"), 1);
    world.end().await;
}
