//! HubSpot's limits: what a 429 holds back, for how long, and what it does not touch.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::config::{QuotaConfig, WindowConfig};
use postrider::dispatch::Settings;
use postrider::outcome::{LookUp, PauseReason, Words};
use postrider::pause::Covers;
use postrider::provider::{DailyLimit, Portal, Probe, RateLimits, RollingLimit};
use postrider::queue::Queue;

use super::HOUR;
use super::answers::{over_limit, over_the_day, to_a_look_up, to_a_probe, to_a_send};
use super::world::{Scripted, World, accepted, parcel, settings, start};

/// What a 429 asks for here: another time than is waited where it asks for none.
const RETRY_AFTER: u64 = 3;
/// From when and until when HubSpot refuses.
const REFUSES: std::ops::Range<Duration> = Duration::from_secs(20)..Duration::from_secs(80);

/// Ten sends a second, evenly.
fn ten_a_second() -> Settings {
    Settings {
        quota: QuotaConfig {
            send: Some(WindowConfig {
                limit: 100,
                window: Duration::from_secs(10),
            }),
            ..QuotaConfig::default()
        },
        ..settings()
    }
}

/// While HubSpot refuses, one call goes out whenever that is over which it asks for, and no other.
fn assert_asked_again(at: &[Duration]) {
    let during = at.iter().copied().filter(|at| REFUSES.contains(at));
    let during: Vec<_> = during.collect();
    let waits: Vec<_> = during
        .windows(2)
        .map(|it| it[1].saturating_sub(it[0]))
        .collect();
    // And for as long as an answer takes.
    let wait = Duration::from_secs(RETRY_AFTER);
    let waits_so_long = wait..wait + Duration::from_millis(50);
    let are_right = waits.iter().all(|it| waits_so_long.contains(it));
    assert!(are_right && waits.len() >= 18, "{during:?}");
}

/// A world whose look-ups are answered 429 for a minute, or not.
async fn with_look_ups_refused(refused: bool) -> World {
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    let origin = hubspot.origin;
    hubspot.results = Box::new(move |_, _| {
        // When it was asked.
        let at = origin.elapsed().saturating_sub(Duration::from_millis(30));
        if refused && REFUSES.contains(&at) {
            to_a_look_up(over_limit(Some(RETRY_AFTER)))
        } else {
            LookUp::Sent(Words::default())
        }
    });
    let world = start(hubspot, ten_a_second(), 1_000).await;
    world.drained(HOUR).await;
    world
}

#[tokio::test(start_paused = true)]
async fn look_ups_that_are_refused_delay_no_send() {
    let (calm, refused) = (
        with_look_ups_refused(false).await,
        with_look_ups_refused(true).await,
    );
    let sends = refused.hubspot.calls();
    assert_eq!(sends.len(), 1_000);
    assert!(sends.last().unwrap().at < Duration::from_secs(101));
    assert_eq!(sends, calm.hubspot.calls(), "each at the very same time");
    let look_ups = refused.hubspot.look_ups();
    assert_asked_again(&look_ups.iter().map(|it| it.at).collect::<Vec<_>>());
    let last = look_ups.last().unwrap().at;
    assert!(
        last < Duration::from_secs(105),
        "full speed again: {last:?}"
    );
    for world in [calm, refused] {
        assert!(world.dead().is_empty());
        let sent = "postrider_results_total{account=\"default\",result=\"sent\"}";
        assert_eq!(world.metric(sent), 1_000);
        world.end().await;
    }
}

/// A world in which sends are answered 429 for a minute, or not. Of the 150 that went out before, most
/// are pending still.
async fn with_sends_refused(refused: bool) -> World {
    let mut hubspot = Scripted::new(move |id, _, at| {
        if refused && REFUSES.contains(&at) {
            to_a_send(over_limit(Some(RETRY_AFTER)))
        } else {
            accepted(id)
        }
    });
    hubspot.results = Box::new(|_, nth| match nth {
        1..=3 => LookUp::Pending,
        _ => LookUp::Sent(Words::default()),
    });
    let world = start(hubspot, ten_a_second(), 150).await;
    tokio::time::sleep(REFUSES.start).await;
    world.queue.publish(parcel("late", "")).await.unwrap();
    world.drained(HOUR).await;
    world
}

#[tokio::test(start_paused = true)]
async fn sends_that_are_refused_delay_no_look_up() {
    let (calm, refused) = (
        with_sends_refused(false).await,
        with_sends_refused(true).await,
    );
    let look_ups = |world: &World| {
        let mut look_ups = world.hubspot.look_ups();
        look_ups.retain(|look_up| look_up.status_id != "status-of-late");
        look_ups
    };
    assert_eq!(
        look_ups(&refused),
        look_ups(&calm),
        "each at the very same time"
    );
    let late: Vec<_> = (refused.hubspot.calls().iter())
        .filter(|call| call.send_id == "late")
        .map(|call| call.at)
        .collect();
    assert_asked_again(&late);
    assert!(late.len() > 12, "more often than a request has attempts");
    for (world, refusals) in [(calm, 0), (refused, late.len() as u64 - 1)] {
        assert!(world.dead().is_empty());
        let throttled = "postrider_attempts_total{account=\"default\",outcome=\"throttled\"}";
        assert_eq!(world.metric(throttled), refusals);
        world.end().await;
    }
}

/// Its proof is refused for some minutes, since others use the window up.
#[tokio::test(start_paused = true)]
async fn a_pinned_account_is_proven_as_soon_as_the_window_is_free() {
    let free = Duration::from_secs(250);
    let window = Duration::from_secs(10);
    let all_used = RollingLimit {
        max: 190,
        remaining: 0,
        window,
    };
    for (retry_after, told, wait) in [
        (Some(RETRY_AFTER), None, Duration::from_secs(RETRY_AFTER)),
        (None, None, window),
        // The one probe that is ours of the window while others use the rest.
        (Some(RETRY_AFTER), Some(all_used), window),
    ] {
        let mut hubspot = Scripted::new(|id, _, _| accepted(id));
        hubspot.limits = RateLimits {
            api: told,
            ..RateLimits::default()
        };
        let probes: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let noted = Arc::clone(&probes);
        hubspot.probe = Box::new(move |at| {
            noted.lock().unwrap().push(at);
            if at < free {
                to_a_probe(over_limit(retry_after))
            } else {
                Probe::Open(Portal::default())
            }
        });
        let world = start(hubspot, pinned(window), 5).await;
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_the_limit_is_told(&world);
        tokio::time::sleep(free.checked_sub(Duration::from_mins(1)).unwrap()).await;
        assert!(world.hubspot.calls().is_empty());
        tokio::time::sleep(wait + Duration::from_millis(300)).await;
        assert_eq!(world.hubspot.calls().len(), 5, "{retry_after:?} {told:?}");
        let probes = probes.lock().unwrap().clone();
        let waits = probes.windows(2).map(|it| it[1].saturating_sub(it[0]));
        let sooner = waits.filter(|it| *it < wait).count();
        assert_eq!(sooner, 0, "{probes:?}");
        world.end().await;
    }
}

/// HubSpot's specs exempt sends from the day, and its guidelines do not: `quota.daily` decides.
#[tokio::test(start_paused = true)]
async fn a_day_that_others_used_up_holds_sends_only_where_the_day_is_counted() {
    let all_used = DailyLimit {
        max: 1_000,
        remaining: 0,
    };
    for (daily, sent) in [(Some(1_000), 0), (None, 5)] {
        let mut hubspot = Scripted::new(|id, _, _| accepted(id));
        hubspot.results = Box::new(|_, _| to_a_look_up(over_the_day()));
        hubspot.limits = RateLimits {
            day: Some(all_used),
            ..RateLimits::default()
        };
        let quota = QuotaConfig {
            daily,
            ..QuotaConfig::default()
        };
        let world = start(
            hubspot,
            Settings {
                quota,
                ..settings()
            },
            5,
        )
        .await;
        tokio::time::sleep(HOUR).await;
        assert_eq!(world.hubspot.calls().len(), sent, "{daily:?}");
        let held = world.account.held_back();
        let is_daily = held.iter().all(|pause| pause.reason == PauseReason::Daily);
        let holds_sends = held.iter().any(|pause| pause.covers == Covers::Both);
        assert!(is_daily && !held.is_empty(), "{held:?}");
        assert_eq!(holds_sends, daily.is_some(), "{held:?}");
        world.end().await;
    }
}

/// An account that is pinned, with a window of look-ups.
fn pinned(window: Duration) -> Settings {
    let quota = QuotaConfig {
        api: Some(WindowConfig { limit: 190, window }),
        ..QuotaConfig::default()
    };
    Settings {
        quota,
        pinned: true,
        ..settings()
    }
}

/// Nobody is to look for a wrong token there.
fn assert_the_limit_is_told(world: &World) {
    let held = world.account.held_back();
    let mut told: Vec<_> = (held.iter())
        .map(|pause| (pause.reason, pause.covers, pause.until.is_some()))
        .collect();
    told.sort_unstable_by_key(|(reason, ..)| reason.label());
    let throttled = (PauseReason::Throttled, Covers::Results, true);
    let unproven = (PauseReason::Unproven, Covers::Both, false);
    assert_eq!(told, [throttled, unproven]);
    for pause in held {
        let words = pause.words.message.unwrap_or_default();
        assert_eq!(words, "You have reached your ten_secondly_rolling limit.");
    }
}
