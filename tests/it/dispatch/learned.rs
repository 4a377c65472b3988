//! A learned limit through the whole dispatcher: each 429 pauses the lane, and then one call goes at a
//! time until one is not refused.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use postrider::config::{AdaptiveConfig, QuotaConfig, WindowConfig};
use postrider::dispatch::Settings;
use postrider::quota::Bucket;
use tokio::time::Instant;

use super::answers::{over_limit, to_a_send};
use super::world::{Scripted, World, accepted, settings, start};

const WINDOW: Duration = Duration::from_secs(10);
/// Before anything is known.
const BEGINS: u32 = 40;
const SETTLES: Duration = Duration::from_mins(10);
const LOOKS: Duration = Duration::from_mins(20);

/// What HubSpot bears in a window of its own; what it refuses counts for nothing.
#[derive(Clone, Copy, Debug)]
struct Bears {
    calls: u32,
    window: Duration,
    /// What a 429 asks for, in seconds.
    retry_after: Option<u64>,
    /// Of these calls others take so many in one minute of five.
    others: u32,
    /// By so much, at most, calls arrive closer together than they left, or further apart.
    jitter_ms: u64,
}

/// What was seen once the limit had time to settle.
#[derive(Debug)]
struct Seen {
    accepted: u32,
    refused: u32,
    falls: usize,
    /// The limit, second by second.
    limits: Vec<u32>,
}

impl Bears {
    /// How many calls of ours.
    fn at(self, at: Duration) -> usize {
        let is_busy = at.as_secs() % 300 >= 240;
        let others = if is_busy { self.others } else { 0 };
        (self.calls - others) as usize
    }

    /// Of ours in so long, at its worst.
    fn over(self, span: Duration) -> f64 {
        f64::from(self.calls - self.others) * span.div_duration_f64(self.window)
    }

    fn hubspot(self) -> Scripted {
        let taken: Mutex<VecDeque<Duration>> = Mutex::default();
        let origin = Instant::now();
        let mut hubspot = Scripted::new(move |id, _, _| {
            // They arrive when they are answered, and so in order.
            let at = origin.elapsed();
            let mut taken = taken.lock().unwrap();
            while taken.front().is_some_and(|it| *it + self.window <= at) {
                taken.pop_front();
            }
            if taken.len() >= self.at(at) {
                return to_a_send(over_limit(self.retry_after));
            }
            taken.push_back(at);
            accepted(id)
        });
        let rng = Mutex::new(fastrand::Rng::with_seed(7));
        hubspot.latency_of = Some(Box::new(move |_| {
            let jitter = rng.lock().unwrap().u64(0..=self.jitter_ms);
            Duration::from_millis(60 + jitter)
        }));
        hubspot
    }
}

fn learned_limit(world: &World) -> u32 {
    let quota = world.account.quota();
    let mut send = quota
        .into_iter()
        .filter(|(bucket, _)| *bucket == Bucket::Send);
    send.next().unwrap().1.unwrap().config.limit
}

fn outcomes(world: &World, outcome: &str) -> u32 {
    let line = format!("postrider_attempts_total{{account=\"default\",outcome=\"{outcome}\"}}");
    u32::try_from(world.metric(&line)).unwrap()
}

async fn seen(bears: Bears) -> Seen {
    let adaptive = Settings {
        quota: QuotaConfig {
            send: Some(WindowConfig {
                limit: BEGINS,
                window: WINDOW,
            }),
            adaptive: Some(AdaptiveConfig {
                floor: BEGINS / 2,
                ceiling: BEGINS * 10,
            }),
            ..QuotaConfig::default()
        },
        results: 0.0,
        concurrency: 32,
        ..settings()
    };
    // More than can go.
    let windows = (SETTLES + LOOKS).div_duration_f64(bears.window).ceil();
    #[expect(clippy::cast_sign_loss, reason = "whole windows")]
    let backlog = bears.calls as usize * windows as usize;
    let world = start(bears.hubspot(), adaptive, backlog).await;
    tokio::time::sleep(SETTLES).await;
    let before = ["accepted", "throttled"].map(|it| outcomes(&world, it));
    let mut limits = Vec::new();
    for _ in 0..LOOKS.as_secs() {
        limits.push(learned_limit(&world));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let after = ["accepted", "throttled"].map(|it| outcomes(&world, it));
    assert!(world.dead().is_empty());
    world.end().await;
    Seen {
        accepted: after[0] - before[0],
        refused: after[1] - before[1],
        falls: limits.windows(2).filter(|it| it[1] < it[0]).count(),
        limits,
    }
}

async fn settles(bears: Bears) {
    let seen = seen(bears).await;
    let share = f64::from(seen.accepted) / bears.over(LOOKS);
    assert!(share >= 0.85, "{share}: {seen:?}");
    assert!((1..=3).contains(&seen.falls), "{seen:?}");
    let least = seen.limits.iter().copied().min().unwrap();
    assert!(f64::from(least) >= 0.75 * bears.over(WINDOW), "{seen:?}");
    assert!(seen.refused * 1_000 < seen.accepted, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn it_settles_just_below_a_window_of_ten_seconds() {
    settles(Bears {
        calls: 100,
        window: WINDOW,
        retry_after: None,
        others: 0,
        jitter_ms: 100,
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn it_settles_just_below_a_window_of_one_second() {
    settles(Bears {
        calls: 10,
        window: Duration::from_secs(1),
        retry_after: Some(1),
        others: 0,
        jitter_ms: 0,
    })
    .await;
}

/// And does not climb and fall with them: it stays at what they leave.
#[tokio::test(start_paused = true)]
async fn it_settles_at_what_others_leave_who_come_and_go() {
    settles(Bears {
        calls: 100,
        window: WINDOW,
        retry_after: None,
        others: 50,
        jitter_ms: 100,
    })
    .await;
}
