//! What pauses an account, and how that ends.

use std::time::Duration;

use postrider::config::{QuotaConfig, WindowConfig};
use postrider::dispatch::Settings;
use postrider::outcome::{Failure, FailureClass, Outcome, Scope};
use postrider::provider::{PROBE_CALLS, Portal, Probe};
use postrider::quota::Bucket;

use super::HOUR;
use super::world::{Scripted, accepted, down, failure, settings, start, unauthorized};

#[tokio::test(start_paused = true)]
async fn an_outage_of_five_hours_kills_nothing_and_spends_next_to_nothing() {
    let end = HOUR * 5;
    for requests in [2, 200] {
        let mut hubspot = Scripted::new(move |id, _, at| {
            if at < end {
                Outcome::Unknown(down())
            } else {
                accepted(id)
            }
        });
        hubspot.probe = Box::new(move |at| {
            if at < end {
                Probe::Inconclusive(down())
            } else {
                Probe::Open(Portal::default())
            }
        });
        let world = start(hubspot, settings(), requests).await;
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(world.account.pauses.outage(), "{requests} requests");
        world.drained(HOUR * 7).await;
        assert!(world.dead().is_empty(), "{:?}", world.dead());
        assert!(world.account.pauses.list().is_empty());
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_without_a_probe_is_tried_with_single_messages() {
    let end = HOUR;
    let mut hubspot = Scripted::new(move |id, _, at| {
        if at < end {
            Outcome::Unknown(down())
        } else {
            accepted(id)
        }
    });
    hubspot.probe =
        Box::new(|_| Probe::Inconclusive(failure(FailureClass::Permanent, Scope::Message, None)));
    let world = start(hubspot, settings(), 100).await;
    world.drained(HOUR * 2).await;
    assert!(world.dead().is_empty());
    let during = world
        .hubspot
        .calls()
        .iter()
        .filter(|call| call.at < end)
        .count();
    assert!(
        during < 100,
        "HubSpot was hammered while it was down: {during} calls"
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_pauses_and_kills_nothing() {
    let refused = |at: Duration| (Duration::from_secs(5)..Duration::from_secs(25)).contains(&at);
    let mut hubspot = Scripted::new(move |id, _, at| {
        if refused(at) {
            Outcome::NotSent(unauthorized())
        } else {
            accepted(id)
        }
    });
    hubspot.probe = Box::new(move |at| {
        if refused(at) {
            Probe::Shut(unauthorized())
        } else {
            Probe::Open(Portal::default())
        }
    });
    let limited = Settings {
        quota: QuotaConfig {
            send: Some(WindowConfig {
                limit: 100,
                window: Duration::from_secs(1),
            }),
            ..QuotaConfig::default()
        },
        ..settings()
    };
    let world = start(hubspot, limited, 2_000).await;
    world.drained(HOUR).await;
    assert!(world.dead().is_empty());
    let calls = world.hubspot.calls();
    let wasted = calls.iter().filter(|call| refused(call.at)).count();
    assert!(wasted <= 16, "calls with a refused token: {wasted}");
    assert_eq!(calls.len(), 2_000 + wasted);
    assert_eq!(
        world.metric("postrider_attempts_total{account=\"default\",outcome=\"accepted\"}"),
        2_000
    );
    assert_eq!(
        world.metric(
            "postrider_pause{account=\"default\",reason=\"unauthorized\",scope=\"account\"}"
        ),
        0
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn throttling_spends_no_attempt_and_holds_the_lane() {
    let hubspot = Scripted::new(|id, _, at| {
        if at < Duration::from_mins(2) {
            Outcome::NotSent(Failure {
                retry_after: Some(Duration::from_secs(10)),
                ..failure(FailureClass::Throttled, Scope::Account, None)
            })
        } else {
            accepted(id)
        }
    });
    let world = start(hubspot, settings(), 50).await;
    world.drained(HOUR).await;
    assert!(world.dead().is_empty());
    let early = world
        .hubspot
        .calls()
        .iter()
        .filter(|call| call.at < Duration::from_mins(2))
        .count();
    // The first calls, and then one at a time.
    assert!(early <= 8 + 13, "{early} calls while throttled");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_day_that_is_spent_waits_for_midnight() {
    let daily = Settings {
        quota: QuotaConfig {
            daily: Some(20),
            ..QuotaConfig::default()
        },
        results: 0.0,
        concurrency: 1,
        ..settings()
    };
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    hubspot.probe = Box::new(|_| {
        Probe::Open(Portal {
            time_zone: Some("Europe/Berlin".into()),
            ..Portal::default()
        })
    });
    let world = start(hubspot, daily, 30).await;
    tokio::time::sleep(HOUR).await;
    // The calls of the probe at the start belong to the day as well.
    let probed = usize::try_from(PROBE_CALLS).unwrap();
    assert_eq!(world.hubspot.calls().len(), 20 - probed);
    world.drained(HOUR * 24).await;
    let last = world.hubspot.calls().last().unwrap().at;
    // It was 13:00 in Berlin.
    assert!(last >= HOUR * 11 && last < HOUR * 12, "{last:?}");
    world.end().await;
}

/// Whatever HubSpot says of it, and be it nothing, where no account is pinned.
#[tokio::test(start_paused = true)]
async fn nothing_leaves_before_the_token_was_asked_about() {
    let says: [fn() -> Probe; 2] = [
        || Probe::Open(Portal::default()),
        || Probe::Inconclusive(failure(FailureClass::Permanent, Scope::Message, None)),
    ];
    for says in says {
        let mut hubspot = Scripted::new(|id, _, _| accepted(id));
        hubspot.probe_latency = Duration::from_secs(3);
        hubspot.probe = Box::new(move |_| says());
        let world = start(hubspot, settings(), 5).await;
        tokio::time::sleep(Duration::from_millis(2_900)).await;
        assert!(world.hubspot.calls().is_empty(), "{:?}", says());
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(world.hubspot.calls().len(), 5, "{:?}", says());
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_of_another_portal_sends_nothing() {
    let pinned = Settings {
        pinned: true,
        ..settings()
    };
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    hubspot.probe = Box::new(|_| Probe::Wrong(Portal::default(), "it opens another portal".into()));
    let world = start(hubspot, pinned, 5).await;
    tokio::time::sleep(HOUR).await;
    assert!(world.hubspot.calls().is_empty());
    assert_eq!(
        world.metric("postrider_pause{account=\"default\",reason=\"unproven\",scope=\"account\"}"),
        1
    );
    world.end().await;
}

/// A worker proves the token before it has the lease, and so before it has a window.
#[tokio::test(start_paused = true)]
async fn what_was_called_before_counts_in_the_window_and_in_the_day() {
    let quota = QuotaConfig {
        api: Some(WindowConfig {
            limit: 100,
            window: Duration::from_secs(10),
        }),
        daily: Some(1_000),
        ..QuotaConfig::default()
    };
    let limited = Settings {
        quota,
        ..settings()
    };
    let world = start(Scripted::new(|id, _, _| accepted(id)), limited, 0).await;
    world.account.was_called(4);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let expected = 4 + PROBE_CALLS;
    let quota = world.account.quota();
    let mut windows = quota.into_iter().filter(|(it, _)| *it == Bucket::Api);
    let (_, used) = windows.next().unwrap();
    assert_eq!(used.unwrap().calls, expected);
    let day = world.account.day_used(world.clock.now()).unwrap();
    assert_eq!(day.calls, u64::from(expected));
    world.end().await;
}
