//! Trouble that tempts a pause to last for ever, or a lane to spin.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postrider::config::{QuotaConfig, WindowConfig};
use postrider::dispatch::Settings;
use postrider::message::{AccountName, Priority};
use postrider::outcome::{
    DeadReason, Failure, FailureClass, LookUp, Outcome, PauseReason, Scope, Words,
};
use postrider::provider::{Portal, Probe};
use postrider::queue::memory::Interruption;
use postrider::queue::{Queue, QueueError};

use super::world::{Scripted, accepted, down, failure, parcel, settings, start};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

fn halted(reason: PauseReason) -> Failure {
    failure(FailureClass::Halted, Scope::Account, Some(reason))
}

fn rejected() -> Outcome {
    Outcome::NotSent(failure(FailureClass::Permanent, Scope::Message, None))
}

#[tokio::test(start_paused = true)]
async fn look_ups_that_were_forbidden_go_on_at_full_speed_when_they_are_not() {
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    let origin = hubspot.origin;
    hubspot.results = Box::new(move |_, _| {
        if origin.elapsed() < MINUTE {
            LookUp::Failed(halted(PauseReason::Forbidden))
        } else {
            LookUp::Sent(Words::default())
        }
    });
    let world = start(hubspot, settings(), 200).await;
    world.drained(10 * MINUTE).await;
    assert!(world.account.pauses.list().is_empty());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_account_that_accepts_and_then_stops_all_mail_is_not_hammered() {
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    let origin = hubspot.origin;
    hubspot.results = Box::new(move |_, _| {
        if origin.elapsed() < HOUR {
            LookUp::NotSent(halted(PauseReason::Portal))
        } else {
            LookUp::Sent(Words::default())
        }
    });
    let world = start(hubspot, settings(), 50).await;
    world.drained(3 * HOUR).await;
    let during = world
        .hubspot
        .calls()
        .iter()
        .filter(|call| call.at < HOUR)
        .count();
    assert!(
        during <= 50 + 90,
        "{during} sends while HubSpot had stopped the account"
    );
    assert!(world.dead().is_empty());
    assert!(world.account.pauses.list().is_empty());
    world.end().await;
}

/// It may be the recipient's domain, or all of HubSpot: nobody knows whose limit it is.
#[tokio::test(start_paused = true)]
async fn a_result_that_tells_of_a_limit_is_sent_again_and_keeps_no_other_waiting() {
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    hubspot.results = Box::new(|id, nth| match (id, nth) {
        ("status-of-m-0", ..30) => {
            LookUp::NotSent(failure(FailureClass::Throttled, Scope::Message, None))
        }
        _ => LookUp::Sent(Words::default()),
    });
    let world = start(hubspot, settings(), 1).await;
    for n in 1..100 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let others = format!("m-{n}");
        world.queue.publish(parcel(&others, "")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(world.hubspot.tries(&others), 1, "it waits: {others}");
        assert!(world.account.pauses.list().is_empty());
    }
    world.drained(6 * HOUR).await;
    assert!(world.dead().is_empty());
    assert_eq!(world.hubspot.tries("m-0"), 30);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_counts_from_its_end() {
    let silence = || failure(FailureClass::Permanent, Scope::Message, None);
    let window = Some(WindowConfig {
        limit: 100,
        window: Duration::from_secs(10),
    });
    let limited = Settings {
        quota: QuotaConfig {
            send: window,
            api: window,
            ..QuotaConfig::default()
        },
        ..settings()
    };
    for (is_answered, counted) in [(true, [0, 0]), (false, [1, 2])] {
        let mut hubspot = Scripted::new(move |id, _, _| match id {
            "m-1" if !is_answered => Outcome::Unknown(silence()),
            _ => accepted(id),
        });
        hubspot.latency = Duration::from_millis(500);
        hubspot.results = Box::new(move |_, _| {
            if is_answered {
                LookUp::Sent(Words::default())
            } else {
                LookUp::Failed(silence())
            }
        });
        let world = start(hubspot, limited.clone(), 2).await;
        let calls = |nth: usize| world.account.quota()[nth].1.unwrap().calls;
        tokio::time::sleep(Duration::from_millis(10_250)).await;
        let sends = calls(0);
        // Of the look-ups, the first goes out 2 s after the answer to the send.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!([sends, calls(1)], counted);
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_over_when_hubspot_answers_be_it_with_a_refusal() {
    let mut hubspot = Scripted::new(|_, _, at| {
        if at < 5 * MINUTE {
            Outcome::NotSent(down())
        } else {
            rejected()
        }
    });
    hubspot.probe = Box::new(|at| {
        if at < 5 * MINUTE {
            Probe::Inconclusive(down())
        } else {
            Probe::Open(Portal::default())
        }
    });
    let world = start(hubspot, settings(), 100).await;
    world.drained(15 * MINUTE).await;
    assert_eq!(world.dead().len(), 100);
    assert!(world.account.pauses.list().is_empty());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_sends_alone_is_tried_once_a_minute() {
    let hubspot = Scripted::new(|id, _, at| {
        if at < 5 * HOUR {
            Outcome::NotSent(down())
        } else {
            accepted(id)
        }
    });
    let world = start(hubspot, settings(), 20).await;
    world.drained(6 * HOUR).await;
    let calls = world.hubspot.calls();
    let during = calls.iter().filter(|call| call.at < 5 * HOUR).count();
    assert!(during <= 8 + 310, "{during} calls while HubSpot was down");
    assert!(world.dead().is_empty());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_one_also_where_a_single_urgent_request_is_tried_again_and_again() {
    let hubspot = Scripted::new(|id, _, at| {
        if at < 12 * HOUR {
            Outcome::NotSent(down())
        } else {
            accepted(id)
        }
    });
    let world = start(hubspot, settings(), 300).await;
    let mut urgent = parcel("urgent", "");
    urgent.priority = Priority::High;
    world.queue.publish(urgent).await.unwrap();
    world.drained(20 * HOUR).await;
    assert!(world.dead().is_empty(), "{:?}", world.dead());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_told_now_and_then_hides_no_outage() {
    let number = AtomicUsize::new(0);
    let hubspot = Scripted::new(move |id, _, at| {
        if at >= 6 * HOUR {
            accepted(id)
        } else if number.fetch_add(1, Ordering::Relaxed) % 6 == 5 {
            Outcome::NotSent(failure(FailureClass::Throttled, Scope::Account, None))
        } else {
            Outcome::NotSent(down())
        }
    });
    let world = start(hubspot, settings(), 200).await;
    world.drained(40 * HOUR).await;
    assert!(world.dead().is_empty(), "{:?}", world.dead());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_few_requests_that_always_fail_are_no_outage_for_ever() {
    let mut hubspot = Scripted::new(|_, _, _| Outcome::NotSent(down()));
    hubspot.probe = Box::new(|at| {
        if at < 5 * MINUTE {
            Probe::Inconclusive(down())
        } else {
            Probe::Open(Portal::default())
        }
    });
    let world = start(hubspot, settings(), 3).await;
    tokio::time::sleep(4 * MINUTE).await;
    assert!(world.account.pauses.outage());
    world.drained(3 * HOUR).await;
    let dead = world.dead();
    assert_eq!(dead.len(), 3, "{dead:?}");
    assert!(
        dead.iter()
            .all(|(_, reason)| *reason == DeadReason::Exhausted)
    );
    assert!(world.account.pauses.list().is_empty());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn results_are_learnt_after_an_outage_in_which_every_send_expired() {
    let mut hubspot = Scripted::new(|id, _, at| {
        if id == "first" || at > HOUR {
            accepted(id)
        } else {
            Outcome::NotSent(down())
        }
    });
    let origin = hubspot.origin;
    hubspot.results = Box::new(move |_, _| {
        if origin.elapsed() < 10 * MINUTE {
            LookUp::Pending
        } else {
            LookUp::Sent(Words::default())
        }
    });
    let world = start(hubspot, settings(), 0).await;
    world.queue.publish(parcel("first", "")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let soon = postrider::clock::after(world.clock.now(), MINUTE);
    for n in 0..10 {
        let gone = format!(r#", "dispatch": {{"expiresAt": "{soon}"}}"#);
        world
            .queue
            .publish(parcel(&format!("m-{n}"), &gone))
            .await
            .unwrap();
    }
    tokio::time::sleep(20 * MINUTE).await;
    assert_eq!(world.dead().len(), 10);
    world.drained(2 * HOUR).await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_migration_that_names_no_wait_at_all_is_not_hammered() {
    let hubspot = Scripted::new(|id, _, at| {
        if at < 2 * MINUTE {
            Outcome::NotSent(Failure {
                retry_after: Some(Duration::ZERO),
                ..halted(PauseReason::Migrating)
            })
        } else {
            accepted(id)
        }
    });
    let world = start(hubspot, settings(), 1_000).await;
    world.drained(HOUR).await;
    let during = world.hubspot.calls().len() - 1_000;
    assert!(during <= 16 * 120, "{during} calls while the account moved");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_ahead_of_hubspots_does_not_cost_a_day() {
    // It is 12:00 UTC at the start; HubSpot's midnight comes three seconds after ours.
    let hubspot = Scripted::new(|id, _, at| {
        if at < 12 * HOUR + Duration::from_secs(3) {
            Outcome::NotSent(halted(PauseReason::Daily))
        } else {
            accepted(id)
        }
    });
    let world = start(hubspot, settings(), 20).await;
    world.drained(14 * HOUR).await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn probes_keep_to_the_day() {
    let probes = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&probes);
    let mut hubspot = Scripted::new(|_, _, _| Outcome::NotSent(halted(PauseReason::Forbidden)));
    hubspot.probe = Box::new(move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
        Probe::Shut(halted(PauseReason::Forbidden))
    });
    let daily = Settings {
        quota: QuotaConfig {
            daily: Some(30),
            ..QuotaConfig::default()
        },
        ..settings()
    };
    let world = start(hubspot, daily, 10).await;
    tokio::time::sleep(11 * HOUR).await;
    let calls = world.hubspot.calls().len() + 2 * probes.load(Ordering::Relaxed);
    assert!(calls <= 30, "{calls} calls in a day of 30");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn panics_leave_the_lanes_running() {
    let mut hubspot = Scripted::new(|id, nth, _| {
        assert!(nth > 2, "the test says so");
        accepted(id)
    });
    hubspot.results = Box::new(|_, nth| {
        assert!(nth > 1, "the test says so");
        LookUp::Sent(Words::default())
    });
    let world = start(hubspot, settings(), 10).await;
    world.drained(5 * HOUR).await;
    assert_eq!(world.account.in_flight(), 0);
    world.end().await;
}

/// A bug of ours that one request brings about each time.
#[tokio::test(start_paused = true)]
async fn a_request_over_which_we_panic_ends_as_one_dead_letter_and_blames_no_neighbour() {
    let world = start(Scripted::new(|id, _, _| accepted(id)), settings(), 300).await;
    let trips = parcel("trips-1", "");
    world.queue.publish(trips).await.unwrap();
    for n in 300..600 {
        let parcel = parcel(&format!("m-{n}"), "");
        world.queue.publish(parcel).await.unwrap();
    }
    world.drained(5 * HOUR).await;
    let dead = world.dead();
    assert_eq!(dead, [("trips-1".to_owned(), DeadReason::Exhausted)]);
    let letter = world.queue.standing().dead.remove(0);
    let told = letter.story.death.unwrap().words.message.unwrap();
    assert!(told.contains("please report it"), "{told}");
    assert_eq!(world.hubspot.tries("trips-1"), 12);
    assert_eq!(world.hubspot.calls().len(), 600 + 12);
    assert_eq!(world.account.in_flight(), 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_refuses_what_became_of_a_message_does_not_make_us_spin() {
    let world = start(Scripted::new(|_, _, _| rejected()), settings(), 20).await;
    for _ in 0..60_000 {
        world
            .queue
            .interrupt_next(Interruption::Fails(QueueError::NotTaken {
                why: "full".into(),
            }));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let calls = world.hubspot.calls().len();
    assert!(calls <= 60 * 8 + 20, "{calls} calls in a minute");
    world.drained(HOUR).await;
    assert_eq!(
        world.dead().first().map(|dead| dead.1),
        Some(DeadReason::Rejected)
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_spends_no_age() {
    let unwell = || Outcome::NotSent(failure(FailureClass::Transient, Scope::Message, None));
    let hubspot = Scripted::new(move |id, nth, at| {
        if nth == 1 {
            unwell()
        } else if at < 30 * HOUR {
            Outcome::NotSent(halted(PauseReason::Forbidden))
        } else if at < 30 * HOUR + 2 * MINUTE {
            unwell()
        } else {
            accepted(id)
        }
    });
    let world = start(hubspot, settings(), 1).await;
    world.drained(40 * HOUR).await;
    assert!(world.dead().is_empty(), "{:?}", world.dead());
    world.end().await;
}

/// What a backlog of higher priorities keeps waiting in an intake, the broker wants acknowledged
/// within half an hour.
#[tokio::test(start_paused = true)]
async fn no_intake_is_used_for_long() {
    let slow = Settings {
        quota: QuotaConfig {
            send: Some(WindowConfig {
                limit: 10,
                window: Duration::from_secs(10),
            }),
            ..QuotaConfig::default()
        },
        results: 0.0,
        ..settings()
    };
    let world = start(Scripted::new(|id, _, _| accepted(id)), slow, 4_000).await;
    tokio::time::sleep(MINUTE).await;
    let before = world.queue.intakes();
    tokio::time::sleep(HOUR).await;
    assert!(world.queue.intakes() >= before + 5, "one every ten minutes");
    assert!(
        !world.queue.standing().ready.is_empty(),
        "the backlog lasted"
    );
    world.end().await;
}

/// `HubSpot` may answer 403 or 401 over one template, with an account that is well.
#[tokio::test(start_paused = true)]
async fn a_request_that_alone_is_blamed_on_the_account_dies_and_holds_nobody_up() {
    for reason in [PauseReason::Forbidden, PauseReason::Unauthorized] {
        let hubspot = Scripted::new(move |id, _, _| match id {
            "m-3" => Outcome::NotSent(halted(reason)),
            id => accepted(id),
        });
        let world = start(hubspot, settings(), 50).await;
        for n in 0..300 {
            let published = world.hubspot.origin.elapsed();
            let id = format!("later-{n}");
            world.queue.publish(parcel(&id, "")).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let calls = world.hubspot.calls();
            let newest = calls
                .iter()
                .rev()
                .find(|call| call.send_id.starts_with("later"));
            let at = newest.map_or(published, |call| call.at);
            assert!(
                at + Duration::from_secs(5) > published,
                "{reason:?}: {id} waits"
            );
        }
        world.drained(10 * MINUTE).await;
        assert_eq!(world.dead(), [("m-3".to_owned(), DeadReason::Rejected)]);
        assert_eq!(world.hubspot.tries("m-3"), 6, "{reason:?}");
        world.end().await;
    }
}

/// The next owner has it, until that one lets it go.
#[tokio::test(start_paused = true)]
async fn a_recalled_account_is_handed_on_in_order_and_taken_again() {
    let world = start(Scripted::new(|id, _, _| accepted(id)), settings(), 0).await;
    for n in 0..200 {
        let parcel = parcel(&format!("m-{n}"), "");
        world.queue.publish(parcel).await.unwrap();
        if n % 50 == 49 {
            while !world.account.is_owner() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            world.queue.recall_lease(&AccountName::default());
            let another = world.queue.connect(world.clock);
            let account = AccountName::default();
            let lease = tokio::time::timeout(MINUTE, another.lease(&account)).await;
            let lease = lease.expect("it is handed on").unwrap();
            assert!(!world.account.is_owner(), "it waits in line");
            let stands_still = world.hubspot.calls().len();
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(world.hubspot.calls().len(), stands_still);
            drop(lease);
        }
    }
    world.drained(HOUR).await;
    assert!(world.account.is_owner());
    assert_eq!(world.hubspot.calls().len(), 200, "each once");
    assert_eq!(world.dead(), []);
    world.end().await;
}
