//! What a seed stands for: everything that will happen from outside, drawn before the run begins.
//!
//! Each kind of trouble is in about every third run or so, since a run with all of them at once
//! would hide what one of them alone does.

mod letters;
mod weather;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

pub(super) use self::letters::Letter;
use crate::config::{AdaptiveConfig, QuotaConfig, RetryConfig, WindowConfig};
use crate::quota::spread;

/// Requests of one run.
const LETTERS: std::ops::RangeInclusive<usize> = 8..=90;
const WORKERS_MAX: usize = 3;
/// Over which the requests come.
const SPANS: [Duration; 4] = [
    Duration::from_secs(20),
    Duration::from_mins(5),
    Duration::from_hours(1),
    Duration::from_hours(6),
];

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) began: Instant,
    /// What all clocks show then.
    pub(super) starts_at: Timestamp,
    pub(super) accounts: usize,
    /// How the clock of each worker's machine is set.
    pub(super) clocks: Vec<[(Instant, SignedDuration); 2]>,
    pub(super) quota: QuotaConfig,
    pub(super) retry: RetryConfig,
    pub(super) results: f64,
    pub(super) concurrency: u16,
    pub(super) low_share: f64,
    pub(super) checks_portal: bool,
    /// Of one call to HubSpot.
    pub(super) timeout: Duration,
    /// By id.
    pub(super) letters: BTreeMap<String, Letter>,
    /// HubSpot's faults, until [`Self::calm_at`].
    pub(super) faults: String,
    /// How much longer one call may be on its way than another: less than what `quota` allows for.
    pub(super) arrival_max: Duration,
    /// How long HubSpot takes to answer, and to its final results.
    pub(super) latency: (Duration, Duration),
    pub(super) results_after: (Duration, Duration),
    pub(super) daily: Option<u64>,
    pub(super) time_zone: &'static str,
    /// Share of calls for which no connection stands.
    pub(super) unreachable: f64,
    /// Share of settles, and of publishes, that are interrupted.
    pub(super) interrupted: f64,
    pub(super) shocks: Vec<(Duration, Shock)>,
    /// From here on nothing goes wrong any more.
    pub(super) calm_at: Instant,
}

/// Something that happens to a process or to the broker.
#[derive(Clone, Debug)]
pub(super) enum Shock {
    /// SIGKILL, after so many steps more.
    Kill { worker: usize, steps: u32 },
    /// SIGSTOP, and SIGCONT after that time.
    Freeze { worker: usize, length: Duration },
    /// The broker and a worker do not hear each other.
    CutOff { worker: usize, length: Duration },
    /// SIGTERM, and a new start.
    Restart { worker: usize },
    /// The broker is killed and comes back; some of what waits then comes twice.
    BrokerDown { length: Duration, twice: Vec<usize> },
    /// An operator replays so many of the dead letters, and discards a few.
    Replay { share: f64, seed: u64 },
}

impl Scenario {
    /// What this seed stands for. Called within the runtime of the run: times count from now.
    pub(super) fn draw(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let began = Instant::now();
        let span = *rng.choice(SPANS.iter()).unwrap_or(&SPANS[0]);
        let starts_at = Timestamp::from_second(1_796_083_200 + rng.i64(0..86_400));
        let starts_at = starts_at.unwrap_or(Timestamp::UNIX_EPOCH);
        let workers = rng.usize(1..=WORKERS_MAX);
        let accounts = rng.usize(1..=2);
        let count = rng.usize(LETTERS);
        let letters = letters::draw(&mut rng, count, accounts, span, starts_at);
        let weather = weather::draw(&mut rng, span);
        let (shocks, last) = shocks(&mut rng, span, workers);
        let quota = QuotaConfig {
            send: window(&mut rng),
            adaptive: None,
            api: window(&mut rng),
            daily: some(&mut rng, 0.1, |rng| rng.u64(100..600)),
            daily_reserve: 0,
        };
        let calm_after = weather.until.max(last).max(span) + Duration::from_secs(30);
        let mut scenario = Self {
            seed,
            began,
            starts_at,
            accounts,
            clocks: (0..workers).map(|_| clock(&mut rng, began, span)).collect(),
            arrival_max: arrival_max(&quota),
            quota,
            retry: if rng.bool() {
                RetryConfig::default()
            } else {
                RetryConfig {
                    max_attempts: rng.u32(2..8),
                    max_age: Duration::from_secs(rng.u64(60..7_200)),
                    ..RetryConfig::default()
                }
            },
            results: *rng.choice(&[1.0, 1.0, 1.0, 0.3, 0.0]).unwrap_or(&1.0),
            concurrency: *rng.choice(&[1, 2, 8, 32]).unwrap_or(&8),
            checks_portal: rng.f64() < 0.3,
            timeout: Duration::from_secs(*rng.choice(&[5, 30]).unwrap_or(&30)),
            letters,
            faults: weather.text,
            latency: (Duration::ZERO, Duration::from_millis(rng.u64(1..400))),
            results_after: (
                Duration::from_millis(100),
                Duration::from_secs(rng.u64(1..20)),
            ),
            daily: some(&mut rng, 0.1, |rng| rng.u64(100..600)),
            time_zone: rng
                .choice(["UTC", "America/New_York", "Asia/Kolkata"])
                .unwrap_or("UTC"),
            unreachable: some(&mut rng, 0.3, |rng| 0.1 * rng.f64()).unwrap_or_default(),
            interrupted: some(&mut rng, 0.5, |rng| 0.1 * rng.f64()).unwrap_or_default(),
            low_share: *rng.choice(&[0.0, 0.05, 0.5]).unwrap_or(&0.05),
            shocks,
            calm_at: began + calm_after,
        };
        // Drawn last, so that older seeds stay what they were.
        if let Some(send) = scenario.quota.send.filter(|_| rng.f64() < 0.15) {
            scenario.quota.adaptive = Some(AdaptiveConfig {
                floor: rng.u32(1..=send.limit),
                ceiling: send.limit * 4,
            });
        }
        scenario
    }

    pub(super) fn letter(&self, id: &str) -> Option<&Letter> {
        self.letters.get(id)
    }

    /// Whether anything may still go wrong.
    pub(super) fn is_stormy(&self) -> bool {
        Instant::now() < self.calm_at
    }
}

/// What happens to processes, in order, and when the last of it is over.
fn shocks(
    rng: &mut fastrand::Rng,
    span: Duration,
    workers: usize,
) -> (Vec<(Duration, Shock)>, Duration) {
    let mut shocks = Vec::new();
    let mut last = Duration::ZERO;
    let kinds: [(f64, usize); 6] = [(0.6, 8), (0.3, 3), (0.3, 3), (0.3, 4), (0.3, 2), (0.5, 3)];
    for (kind, (share, most)) in kinds.into_iter().enumerate() {
        if rng.f64() >= share {
            continue;
        }
        for _ in 0..rng.usize(1..=most) {
            let at = span.mul_f64(1.2 * rng.f64());
            let worker = rng.usize(0..workers);
            let length = Duration::from_millis(rng.u64(200..40_000));
            let shock = match kind {
                0 => Shock::Kill {
                    worker,
                    steps: rng.u32(0..40),
                },
                1 => Shock::Freeze { worker, length },
                2 => Shock::CutOff { worker, length },
                3 => Shock::Restart { worker },
                4 => Shock::BrokerDown {
                    length,
                    twice: (0..rng.usize(0..4)).map(|_| rng.usize(0..1_000)).collect(),
                },
                _ => Shock::Replay {
                    share: rng.f64(),
                    seed: rng.u64(..),
                },
            };
            last = last.max(at + length);
            shocks.push((at, shock));
        }
    }
    shocks.sort_by_key(|(at, _)| *at);
    (shocks, last)
}

/// How one machine's clock is set: seldom at all, and then by up to two hours.
fn clock(
    rng: &mut fastrand::Rng,
    began: Instant,
    span: Duration,
) -> [(Instant, SignedDuration); 2] {
    let is_set = rng.f64() < 0.25;
    [(); 2].map(|()| {
        let by = if is_set { rng.i64(-7_200..7_200) } else { 0 };
        (
            began + span.mul_f64(rng.f64()),
            SignedDuration::from_secs(by),
        )
    })
}

fn window(rng: &mut fastrand::Rng) -> Option<WindowConfig> {
    let (limit, secs) = *rng.choice(&[(0, 1), (5, 1), (20, 1), (10, 10), (100, 10), (190, 10)])?;
    (limit > 0).then_some(WindowConfig {
        limit,
        window: Duration::from_secs(secs),
    })
}

fn arrival_max(quota: &QuotaConfig) -> Duration {
    let windows = [quota.send, quota.api].into_iter().flatten();
    let spreads = windows.map(|config| spread(config.window));
    spreads.min().unwrap_or(Duration::from_millis(75)) * 9 / 10
}

fn some<T>(
    rng: &mut fastrand::Rng,
    share: f64,
    draw: impl FnOnce(&mut fastrand::Rng) -> T,
) -> Option<T> {
    (rng.f64() < share).then(|| draw(rng))
}
