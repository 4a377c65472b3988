//! What a lane waits for is told by its own loop, whatever that is.

use std::time::Duration;

use postrider::config::{QuotaConfig, WindowConfig};
use postrider::dispatch::{Settings, Wait};
use postrider::outcome::{FailureClass, Outcome, Scope};
use postrider::provider::{Portal, Probe};
use postrider::queue::{Lane, Queue};
use postrider::quota::{Bucket, Full};

use super::world::{Scripted, World, accepted, failure, parcel, settings, start, unauthorized};

const MINUTE: Duration = Duration::from_mins(1);

fn limited(limit: u32) -> Settings {
    Settings {
        quota: QuotaConfig {
            send: Some(WindowConfig {
                limit,
                window: MINUTE,
            }),
            ..QuotaConfig::default()
        },
        concurrency: 2,
        ..settings()
    }
}

/// What sends wait for after so long, and why their window has no room.
async fn after(time: Duration, world: &World) -> (Option<Wait>, Option<Full>) {
    tokio::time::sleep(time).await;
    let quota = world.account.quota().into_iter();
    let mut sends = quota.filter(|(bucket, _)| *bucket == Bucket::Send);
    let used = sends.next().and_then(|(_, used)| used);
    (
        world.account.waits_for(Lane::Sends),
        used.and_then(|used| used.full),
    )
}

#[tokio::test(start_paused = true)]
async fn of_the_window_its_pace_and_who_was_before() {
    let world = start(Scripted::new(|id, _, _| accepted(id)), limited(10), 0).await;
    assert_eq!(world.account.waits_for(Lane::Sends), None, "no owner yet");
    let second = Duration::from_secs(1);
    assert_eq!(after(second, &world).await, (Some(Wait::Request), None));
    // Too many to go at once.
    for n in 0..40 {
        world
            .queue
            .publish(parcel(&format!("m-{n}"), ""))
            .await
            .unwrap();
    }
    let paced = (Some(Wait::Room), Some(Full::Pace));
    assert_eq!(after(second, &world).await, paced);
    let world = world.killed_and_started(limited(10));
    let before = (Some(Wait::Room), Some(Full::Predecessor));
    assert_eq!(after(second, &world).await, before);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn of_answers_and_of_the_end_of_a_pause() {
    let mut hubspot = Scripted::new(|id, _, _| match id {
        "m-0" | "m-1" => accepted(id),
        _ => Outcome::NotSent(unauthorized()),
    });
    hubspot.latency = MINUTE;
    hubspot.probe = Box::new(|at| {
        if at < MINUTE {
            Probe::Open(Portal::default())
        } else {
            Probe::Shut(unauthorized())
        }
    });
    let world = start(hubspot, limited(1_000), 4).await;
    let half = MINUTE / 2;
    assert_eq!(after(half, &world).await.0, Some(Wait::Answer));
    assert_eq!(
        after(MINUTE, &world).await.0,
        Some(Wait::Answer),
        "of the next two"
    );
    assert_eq!(after(MINUTE, &world).await.0, Some(Wait::Pause));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn of_the_one_call_that_may_follow_a_refused_one() {
    let mut hubspot = Scripted::new(|id, nth, _| {
        if nth == 1 {
            return Outcome::NotSent(failure(FailureClass::Throttled, Scope::Account, None));
        }
        accepted(id)
    });
    hubspot.latency_of = Some(Box::new(
        |number| if number > 2 { MINUTE } else { Duration::ZERO },
    ));
    let world = start(hubspot, limited(1_000), 8).await;
    assert_eq!(after(MINUTE, &world).await.0, Some(Wait::OneByOne));
    world.end().await;
}
