//! Who goes first: under a backlog, and against the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use postrider::clock;
use postrider::config::{QuotaConfig, WindowConfig};
use postrider::dispatch::Settings;
use postrider::message::Priority;
use postrider::outcome::{DeadReason, FailureClass, Outcome, PauseReason, Scope};
use postrider::provider::{DailyLimit, Portal, Probe};
use postrider::queue::{Parcel, Queue, Spends};

use super::HOUR;
use super::overheard::Heard;
use super::world::{Scripted, World, accepted, down, failure, parcel, settings, start};

const MINUTE: Duration = Duration::from_mins(1);

/// Ten calls a minute.
fn slow() -> Settings {
    Settings {
        quota: QuotaConfig {
            send: Some(WindowConfig {
                limit: 10,
                window: MINUTE,
            }),
            ..QuotaConfig::default()
        },
        ..settings()
    }
}

/// So many calls a day.
fn of_a_day(calls: u64) -> Settings {
    Settings {
        quota: QuotaConfig {
            daily: Some(calls),
            ..QuotaConfig::default()
        },
        ..settings()
    }
}

async fn publish(world: &World, id: &str, priority: Priority, expires_at: Option<Timestamp>) {
    let dispatch = expires_at.map_or(String::new(), |at| {
        format!(r#", "dispatch": {{"priority": "{priority}", "expiresAt": "{at}"}}"#)
    });
    let parcel = Parcel {
        priority,
        ..parcel(id, &dispatch)
    };
    world.queue.publish(parcel).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn low_has_its_share_while_high_never_ends() {
    let world = start(Scripted::new(|id, _, _| accepted(id)), slow(), 0).await;
    for n in 0..250 {
        for priority in [Priority::Low, Priority::High] {
            publish(&world, &format!("{priority}-{n}"), priority, None).await;
        }
    }
    tokio::time::sleep(20 * MINUTE).await;
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    for call in world.hubspot.calls() {
        let (priority, _) = call.send_id.split_once('-').unwrap();
        *sent.entry(priority.to_owned()).or_default() += 1;
    }
    let (high, low) = (sent["high"], sent["low"]);
    assert!(high + low >= 195, "{sent:?}");
    assert_eq!(low, high / 20, "{sent:?}");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_costs_nothing_of_the_window() {
    let world = start(Scripted::new(|id, _, _| accepted(id)), slow(), 0).await;
    // The two that may go out at once: those behind them have to wait for longer than they have.
    for n in 0..2 {
        publish(&world, &format!("first-{n}"), Priority::Normal, None).await;
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let soon = clock::after(world.clock.now(), Duration::from_secs(1));
    for n in 0..100 {
        publish(&world, &format!("gone-{n}"), Priority::Normal, Some(soon)).await;
    }
    for n in 0..8 {
        publish(&world, &format!("last-{n}"), Priority::Normal, None).await;
    }
    tokio::time::sleep(MINUTE).await;
    let calls = world.hubspot.calls();
    assert_eq!(calls.len(), 10, "all that there is room for in a minute");
    assert!(calls.iter().all(|call| !call.send_id.starts_with("gone")));
    assert_eq!(world.dead().len(), 100);
    assert!(
        world
            .dead()
            .iter()
            .all(|(_, why)| *why == DeadReason::Expired)
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_expires_first_goes_first_of_a_backlog() {
    let world = start(Scripted::new(|id, _, _| accepted(id)), slow(), 0).await;
    let now = world.clock.now();
    // In the order of their coming the last four would be too late.
    for n in 0..14 {
        let tomorrow = clock::after(now, 24 * HOUR);
        let expires_at = (n % 2 == 0).then_some(tomorrow);
        publish(&world, &format!("time-{n}"), Priority::Normal, expires_at).await;
    }
    for n in 0..14 {
        let soon = clock::after(now, 100 * MINUTE / 60);
        publish(&world, &format!("soon-{n}"), Priority::Normal, Some(soon)).await;
    }
    world.drained(HOUR).await;
    assert!(world.dead().is_empty(), "{:?}", world.dead());
    let calls = world.hubspot.calls();
    let rest: Vec<_> = calls.iter().map(|call| call.send_id.as_str()).collect();
    let never: Vec<_> = rest.iter().filter(|id| id.starts_with("time")).collect();
    assert_eq!(never[..2], [&"time-0", &"time-2"], "{rest:?}");
    world.end().await;
}

/// HubSpot answers 503 for an hour. Ten calls a minute go out after it: in the order of their coming
/// not one of `soon` would be in time.
#[tokio::test(start_paused = true)]
async fn after_an_outage_what_can_still_arrive_goes_first_and_what_cannot_costs_nothing() {
    let mut hubspot = Scripted::new(|id, _, at| {
        if at < HOUR {
            Outcome::NotSent(down())
        } else {
            accepted(id)
        }
    });
    hubspot.probe = Box::new(|at| {
        if at < HOUR {
            Probe::Inconclusive(down())
        } else {
            Probe::Open(Portal::default())
        }
    });
    // Those that meet it.
    let world = start(hubspot, slow(), 8).await;
    tokio::time::sleep(10 * MINUTE).await;
    assert!(world.account.pauses.outage());
    assert_eq!(world.hubspot.calls().len(), 8);
    let over = clock::after(world.clock.now(), 50 * MINUTE);
    let kinds = [
        ("never", None),
        ("tomorrow", Some(clock::after(over, 24 * HOUR))),
        ("gone", Some(clock::after(world.clock.now(), 40 * MINUTE))),
        ("soon", Some(clock::after(over, MINUTE / 2))),
    ];
    for n in 0..7 {
        for (name, expires_at) in kinds {
            publish(&world, &format!("{name}-{n}"), Priority::Normal, expires_at).await;
        }
    }
    world.drained(3 * HOUR).await;

    let mut dead = world.dead();
    dead.sort();
    let gone = (0..7).map(|n| (format!("gone-{n}"), DeadReason::Expired));
    assert_eq!(dead, gone.collect::<Vec<_>>());
    let calls = world.hubspot.calls();
    assert_eq!(
        calls.len(),
        8 + 8 + 3 * 7,
        "no other spends an attempt: {calls:?}"
    );
    let after = &calls[8..];
    assert!(after[0].at >= HOUR, "the outage spares them: {after:?}");
    let of = |name: &'static str| (0..7).map(move |n| format!("{name}-{n}"));
    let first: Vec<_> = of("soon").chain(of("tomorrow")).collect();
    let ids = after.iter().map(|call| &call.send_id);
    assert!(ids.clone().take(14).eq(&first), "{after:?}");
    let never = ids.skip(14).filter(|id| id.starts_with("never"));
    assert!(never.cloned().eq(of("never")), "{after:?}");
    world.end().await;
}

/// 200 calls a day, two of them the probe's: the last 10 are left to what is not low, and the last 4
/// to what is high.
#[tokio::test(start_paused = true)]
async fn as_the_day_ends_the_least_urgent_waits_for_midnight() {
    let daily = Settings {
        results: 0.0,
        concurrency: 1,
        ..of_a_day(200)
    };
    let world = start(Scripted::new(|id, _, _| accepted(id)), daily, 0).await;
    let sent = || world.hubspot.calls().len();
    let mut sent_by = Vec::new();
    for priority in [Priority::Low, Priority::Normal, Priority::High] {
        for n in 0..250 {
            publish(&world, &format!("{priority}-{n}"), priority, None).await;
        }
        let opened = world.overheard.opened();
        tokio::time::sleep(HOUR).await;
        sent_by.push(sent());
        let opened = world.overheard.opened() - opened;
        assert!(
            opened >= 5 || priority == Priority::High,
            "what waits in hand goes back long before half an hour is over: {opened}"
        );
    }
    assert_eq!(sent_by, [188, 194, 198]);
    // It was noon; then three days more are spent in the same way.
    world.drained(4 * 24 * HOUR).await;
    assert!(world.dead().is_empty());
    let calls = world.hubspot.calls();
    let first = &calls[198];
    assert!(
        first.at >= 12 * HOUR && first.send_id == "high-4",
        "{first:?}"
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn where_hubspot_tells_of_a_day_that_ends_all_give_way_that_should() {
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    hubspot.limits.day = Some(DailyLimit {
        max: 1_000,
        remaining: 15,
    });
    let world = start(hubspot, of_a_day(2_000), 10).await;
    tokio::time::sleep(MINUTE).await;
    let mut held: Vec<_> = (world.account.pauses.list().iter())
        .map(|pause| format!("{:?}", pause.covers))
        .collect();
    held.sort();
    assert_eq!(held, ["Below(High)", "Below(Normal)", "Results"]);
    world.end().await;
}

/// Two calls of each worker are its probe's. It is seven in the morning there.
#[tokio::test(start_paused = true)]
async fn a_day_goes_on_with_the_next_worker() {
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    hubspot.probe = Box::new(|_| {
        Probe::Open(Portal {
            time_zone: Some("America/New_York".into()),
            ..Portal::default()
        })
    });
    let of_a_day = || Settings {
        results: 0.0,
        ..of_a_day(300)
    };
    let mut world = start(hubspot, of_a_day(), 0).await;
    let publish = async |world: &World, name: &str| {
        for n in 0..100 {
            let high = Parcel {
                priority: Priority::High,
                ..parcel(&format!("{name}-{n}"), "")
            };
            world.queue.publish(high).await.unwrap();
        }
    };
    publish(&world, "first").await;
    world.drained(HOUR).await;
    world = world.stopped_and_started(of_a_day()).await;
    publish(&world, "second").await;
    world.drained(HOUR).await;
    tokio::time::sleep(MINUTE).await;
    world = world.killed_and_started(of_a_day());
    publish(&world, "third").await;
    tokio::time::sleep(HOUR).await;
    let used = world.account.day_used(world.clock.now()).unwrap();
    assert_eq!((used.calls, used.limit), (300, 300));
    assert_eq!(world.hubspot.calls().len(), 300 - 3 * 2);
    let reason = world.account.pauses.list().pop().unwrap().reason;
    assert_eq!(reason, PauseReason::Daily);
    // A worker that starts with a spent day, and knows no time zone yet, waits for the same midnight.
    world = world.stopped_and_started(of_a_day()).await;
    world.drained(24 * HOUR).await;
    let calls = world.hubspot.calls();
    let midnight = 17 * HOUR;
    let waited = calls[300 - 3 * 2].at;
    assert!(
        midnight <= waited && waited < midnight + MINUTE,
        "{waited:?}"
    );
    world.end().await;
}

/// How windows are spent, as the next owner was told, or as it was tried.
fn told(world: &World) -> Vec<Spends> {
    let told = world.overheard.heard().into_iter();
    let told = told.filter_map(|heard| match heard {
        Heard::Spends(spends) => Some(spends),
        Heard::Settled(_) | Heard::NotSettled(_) | Heard::Announced(_) => None,
    });
    told.collect()
}

/// Whether the next owner knows of it is not known then: it is told otherwise, some time later.
#[tokio::test(start_paused = true)]
async fn where_a_burst_cannot_be_told_mail_goes_evenly_and_that_is_told() {
    let world = start(Scripted::new(|id, _, _| accepted(id)), slow(), 15).await;
    world.overheard.be_deaf();
    tokio::time::sleep(MINUTE / 2).await;
    let early = world.hubspot.calls().len();
    assert!(early <= 7, "{early} of 10 a minute in half of it");
    world.drained(HOUR).await;
    tokio::time::sleep(MINUTE * 2).await;
    assert_eq!(told(&world), [Spends::AtOnce, Spends::Evenly]);
    world.end().await;
}

/// A word that failed is no word: each burst needs one that stands.
#[tokio::test(start_paused = true)]
async fn a_burst_that_was_not_told_does_not_make_up_for_the_next_one() {
    let world = start(Scripted::new(|id, _, _| accepted(id)), slow(), 0).await;
    world.overheard.be_deaf();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let publish_some = async |name: &str, count: u32| {
        for n in 0..count {
            let id = format!("{name}-{n}");
            publish(&world, &id, Priority::Normal, None).await;
        }
    };
    publish_some("first", 3).await;
    // The window has just become free, and the next owner is told otherwise only a moment later.
    tokio::time::sleep(MINUTE + Duration::from_millis(5_950)).await;
    publish_some("second", 6).await;
    tokio::time::sleep(MINUTE * 2).await;
    let expected = [Spends::AtOnce, Spends::AtOnce, Spends::Evenly];
    assert_eq!(told(&world), expected);
    let calls = world.hubspot.calls();
    assert!(calls[8].at >= calls[3].at + MINUTE / 4, "{calls:?}");
    world.end().await;
}

/// HubSpot's day began at seven in the morning, UTC; nobody has told so until the next one begins.
#[tokio::test(start_paused = true)]
async fn a_worker_that_starts_on_a_spent_day_learns_when_that_ends() {
    let spent = || {
        failure(
            FailureClass::Halted,
            Scope::Account,
            Some(PauseReason::Daily),
        )
    };
    let mut hubspot = Scripted::new(move |id, _, at| {
        if at < 19 * HOUR {
            Outcome::NotSent(spent())
        } else {
            accepted(id)
        }
    });
    hubspot.probe = Box::new(move |at| {
        if at < 19 * HOUR {
            return Probe::Inconclusive(spent());
        }
        Probe::Open(Portal {
            time_zone: Some("America/Denver".into()),
            ..Portal::default()
        })
    });
    let world = start(hubspot, of_a_day(40), 5).await;
    tokio::time::sleep(19 * HOUR + 10 * MINUTE).await;
    let calls = world.hubspot.calls();
    let later = calls.iter().filter(|call| call.at >= 19 * HOUR).count();
    assert_eq!(later, 5, "and not at UTC's second midnight");
    assert!(world.dead().is_empty());
    world.end().await;
}
