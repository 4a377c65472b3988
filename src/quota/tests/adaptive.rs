//! A learned limit before a HubSpot that bears so much: what it settles at, and how calmly.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::adaptive::Adaptive;
use super::*;
use crate::config::AdaptiveConfig;

const CONFIG: WindowConfig = WindowConfig {
    limit: 190,
    window: Duration::from_secs(10),
};
const RANGE: AdaptiveConfig = AdaptiveConfig {
    floor: 100,
    ceiling: 1_900,
};
/// How long it may take to settle, and how long is looked then.
const SETTLES: Duration = Duration::from_mins(10);
const LOOKS: Duration = Duration::from_mins(20);

/// What HubSpot bears in one window, and how it pushes back beyond.
#[derive(Clone, Copy, Debug)]
enum Bears {
    /// It answers 429, with no more words.
    Limit(u32),
    /// One in three calls fails.
    Failures(u32),
    /// Answers take longer and longer.
    Latency(u32),
    /// All of it; but after a minute answers take five times as long.
    AnythingSlowly,
    /// All of it, with answers that take so long that they may have been held up.
    AnythingLate,
    Anything,
}

/// What one look saw, window by window.
#[derive(Debug, Default)]
struct Look {
    limits: Vec<u32>,
    calls: u32,
    refused: u32,
}

struct HubSpot {
    bears: Bears,
    began: Instant,
    arrived: Mutex<VecDeque<Instant>>,
    refused: AtomicU32,
}

impl HubSpot {
    fn new(bears: Bears) -> Arc<Self> {
        Arc::new(Self {
            bears,
            began: Instant::now(),
            arrived: Mutex::default(),
            refused: AtomicU32::new(0),
        })
    }

    /// One call, that has left.
    async fn call(self: Arc<Self>, limiter: Arc<RateLimiter>, flight: Flight) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = Instant::now();
        let calls = {
            let mut arrived = self.arrived.lock().unwrap();
            arrived.push_back(now);
            while arrived.front().is_some_and(|it| *it + CONFIG.window <= now) {
                arrived.pop_front();
            }
            u32::try_from(arrived.len()).unwrap()
        };
        let mut latency = Duration::from_millis(60);
        match self.bears {
            Bears::Limit(most) if calls > most => {
                // What is refused counts for nothing.
                self.arrived.lock().unwrap().pop_back();
                self.refused.fetch_add(1, Ordering::Relaxed);
                limiter.refused();
            }
            Bears::Failures(most) if calls > most && calls.is_multiple_of(3) => limiter.failed(),
            Bears::AnythingSlowly if self.began.elapsed() > Duration::from_mins(1) => latency *= 5,
            Bears::AnythingLate => latency = Duration::from_secs(2),
            Bears::Latency(most) => latency *= 1 + calls.saturating_sub(most) / 10,
            Bears::Limit(_) | Bears::Failures(_) | Bears::Anything | Bears::AnythingSlowly => {}
        }
        tokio::time::sleep(latency).await;
        flight.heard(None);
    }

    /// As many calls as may go, for so long.
    async fn backlog(self: &Arc<Self>, limiter: &Arc<RateLimiter>, span: Duration) -> Look {
        let mut look = Look::default();
        let before = self.refused.load(Ordering::Relaxed);
        let end = Instant::now() + span;
        let mut next = Instant::now();
        while Instant::now() < end {
            let token = limiter.token().await;
            let flight = limiter.spend(token);
            look.calls += 1;
            tokio::spawn(Arc::clone(self).call(Arc::clone(limiter), flight));
            if Instant::now() >= next {
                look.limits.push(limiter.used().unwrap().config.limit);
                next += CONFIG.window;
            }
        }
        look.refused = self.refused.load(Ordering::Relaxed) - before;
        look
    }
}

fn limiter(range: AdaptiveConfig) -> Arc<RateLimiter> {
    Arc::new(RateLimiter::adaptive(CONFIG, range, Start::Empty))
}

/// The limits stay within these, in calls of a window, and at most so many of 10,000 calls are
/// refused.
fn assert_settled(look: &Look, within: std::ops::RangeInclusive<u32>, refused: u32) {
    let outside = look.limits.iter().filter(|it| !within.contains(it));
    assert_eq!(outside.count(), 0, "{look:?}");
    assert!(look.refused * 10_000 <= look.calls * refused, "{look:?}");
}

fn settles_at(bears: Bears, within: std::ops::RangeInclusive<u32>, refused: u32) {
    runtime().block_on(async {
        let (hubspot, limiter) = (HubSpot::new(bears), limiter(RANGE));
        hubspot.backlog(&limiter, SETTLES).await;
        let look = hubspot.backlog(&limiter, LOOKS).await;
        assert_settled(&look, within, refused);
        // It neither falls nor climbs more than a few times: no swing.
        let turns = look.limits.windows(2).filter(|it| it[1] < it[0]).count();
        assert!(turns <= 3, "{turns} falls: {look:?}");
    });
}

#[test]
fn it_settles_just_below_a_limit_above_the_tier() {
    settles_at(Bears::Limit(400), 310..=420, 5);
}

#[test]
fn it_settles_at_the_tier_where_sends_count() {
    settles_at(Bears::Limit(190), 150..=200, 5);
}

#[test]
fn it_settles_below_the_tier_where_others_call_too() {
    settles_at(Bears::Limit(120), 100..=126, 5);
}

#[test]
fn it_settles_where_answers_begin_to_fail() {
    settles_at(Bears::Failures(500), 390..=525, 0);
}

#[test]
fn it_settles_where_answers_begin_to_take_longer() {
    settles_at(Bears::Latency(500), 390..=560, 0);
}

#[test]
fn it_is_not_held_down_where_hubspot_is_slower_for_other_reasons() {
    settles_at(Bears::AnythingSlowly, 900..=RANGE.ceiling, 0);
    runtime().block_on(async {
        let (hubspot, limiter) = (HubSpot::new(Bears::AnythingSlowly), limiter(RANGE));
        let look = hubspot.backlog(&limiter, Duration::from_mins(5)).await;
        let least = look.limits.iter().min();
        assert!(
            least >= Some(&CONFIG.limit),
            "one fall shows that: {look:?}"
        );
    });
}

#[test]
fn pushes_where_it_cannot_fall_further_do_not_slow_the_way_back() {
    let now = Instant::now();
    let range = AdaptiveConfig {
        floor: CONFIG.limit,
        ceiling: 400,
    };
    let mut adaptive = Adaptive::new(range, CONFIG.limit, CONFIG.window);
    for window in 0..20 {
        adaptive.refused(190, now + 2 * window * CONFIG.window);
    }
    let mut windows = 0;
    let mut at = now + 100 * CONFIG.window;
    while adaptive.limit() < 200 {
        for _ in 0..adaptive.limit() {
            adaptive.leaves(at);
        }
        at += CONFIG.window;
        adaptive.look(at);
        windows += 1;
        assert!(windows < 40, "it is still at {}", adaptive.limit());
    }
}

#[test]
fn it_climbs_to_its_ceiling_and_stays_there() {
    settles_at(Bears::Anything, RANGE.ceiling..=RANGE.ceiling, 0);
}

#[test]
fn it_climbs_from_any_fraction_of_a_low_limit() {
    let range = AdaptiveConfig {
        floor: 1,
        ceiling: 400,
    };
    // It falls to four fifths of where it began.
    for first in 1..20 {
        let mut at = Instant::now();
        let mut adaptive = Adaptive::new(range, first, CONFIG.window);
        adaptive.refused(first as usize, at);
        for _ in 0..200 {
            for _ in 0..adaptive.limit() {
                adaptive.leaves(at);
            }
            at += CONFIG.window;
            adaptive.look(at);
        }
        let limit = adaptive.limit();
        assert!(limit > first, "from {first} to {limit}");
    }
}

#[test]
fn it_climbs_where_answers_take_so_long_that_calls_count_from_them() {
    runtime().block_on(async {
        let range = AdaptiveConfig {
            ceiling: 400,
            ..RANGE
        };
        let (hubspot, limiter) = (HubSpot::new(Bears::AnythingLate), limiter(range));
        hubspot.backlog(&limiter, Duration::from_mins(5)).await;
        assert_eq!(limiter.used().unwrap().config.limit, 400);
    });
}
