//! One machine with a worker on it, which is started anew each time it dies or is stopped.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::World;
use super::hubspot::Way;
use super::life::Life;
use super::queue::Held;
use super::record::Who;
use crate::clock::Clock;
use crate::config::{AccountConfig, Api, ApiVersion, TokenSource};
use crate::delivery::Rules;
use crate::dispatch::{Dispatcher, Parts, Settings};
use crate::message::AccountName;
use crate::metrics::Metrics;
use crate::provider::hubspot::HubSpot;
use crate::queue::memory::MemoryQueue;
use crate::queue::{Queue, QueueError, Validity};
use crate::retry::RetryPolicy;
use crate::sandbox::model::PORTAL;

/// What is left of `server.stop_timeout` for the calls, unless it is set.
const GRACE: Duration = Duration::from_secs(35);

/// Until when a lease holds after the broker last answered, as on RabbitMQ.
const LEASE_VALID: Duration = Duration::from_secs(8);
/// After which silence the broker gives a connection up: two to three heartbeats.
const GIVE_UP: std::ops::Range<u64> = 10_000..15_000;

/// A machine.
#[derive(Debug)]
pub(super) struct Machine {
    number: usize,
    clock: Clock,
    rng: Mutex<fastrand::Rng>,
    /// The process that runs now, if one does.
    running: Mutex<Option<(Arc<Life>, MemoryQueue)>>,
    /// Of every process so far.
    pub(super) metrics: Mutex<Vec<Metrics>>,
}

impl Machine {
    pub(super) fn new(number: usize, clock: Clock, rng: fastrand::Rng) -> Self {
        Self {
            number,
            clock,
            rng: Mutex::new(rng),
            running: Mutex::new(None),
            metrics: Mutex::default(),
        }
    }

    fn chance(&self, range: std::ops::Range<u64>) -> u64 {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        rng.u64(range)
    }

    fn running(&self) -> Option<(Arc<Life>, MemoryQueue)> {
        (self.running.lock())
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Runs one process after another until `end`, and the last one to an orderly end.
    pub(super) async fn run(self: Arc<Self>, world: Arc<World>, end: CancellationToken) {
        while !end.is_cancelled() {
            let queue = world.queue.connect(self.clock);
            let life = Arc::new(Life::default());
            let running = Some((Arc::clone(&life), queue.clone()));
            *self.running.lock().unwrap_or_else(PoisonError::into_inner) = running;
            let who = Who::Worker(self.number);
            world.record.note(who, "starts", "", "");
            let stop = end.child_token();
            let mut runs = self.start(&world, &life, &queue, &stop);
            let died = tokio::select! {
                biased;
                () = life.died() => true,
                () = ended(&mut runs, &world) => {
                    if !end.is_cancelled() {
                        world.record.wrong("a dispatcher ended by itself");
                    }
                    false
                }
                () = life.asked_to_stop() => {
                    world.record.note(who, "stops", "", "SIGTERM");
                    stop.cancel();
                    tokio::select! {
                        biased;
                        () = life.died() => true,
                        () = ended(&mut runs, &world) => false,
                    }
                }
            };
            if died {
                world.record.note(who, "dies", "", "SIGKILL");
                // The kernel closes its sockets.
                queue.lose_connection();
                runs.abort_all();
            } else {
                queue.close().await;
                world.record.note(who, "has stopped", "", "");
            }
            sleep(Duration::from_millis(self.chance(100..20_000))).await;
        }
    }

    fn start(
        &self,
        world: &Arc<World>,
        life: &Arc<Life>,
        queue: &MemoryQueue,
        stop: &CancellationToken,
    ) -> JoinSet<Result<(), QueueError>> {
        let metrics = Metrics::new();
        (self.metrics.lock())
            .unwrap_or_else(PoisonError::into_inner)
            .push(metrics.clone());
        let rng = fastrand::Rng::with_seed(self.chance(0..u64::MAX));
        let held = Held {
            queue: queue.clone(),
            life: Arc::clone(life),
            worker: self.number,
            record: Arc::clone(&world.record),
            scenario: Arc::clone(&world.scenario),
            rng: Arc::new(Mutex::new(rng)),
        };
        let mut runs = JoinSet::new();
        for (number, name) in world.accounts.iter().enumerate() {
            let config = account(world, number);
            let way = Way {
                door: Arc::clone(&world.door),
                life: Arc::clone(life),
                worker: self.number,
                account: name.clone(),
                clock: self.clock,
                timeout: config.timeout,
            };
            let Ok(provider) = HubSpot::over(way, name, &config, self.clock) else {
                world.record.wrong("no client");
                continue;
            };
            let dispatcher = Dispatcher::new(Parts {
                account: name.clone(),
                settings: Settings {
                    quota: config.quota,
                    results: config.results,
                    concurrency: config.concurrency,
                    low_share: config.low_share,
                    pinned: config.is_pinned(),
                    delivery: Rules::default(),
                    grace: GRACE,
                },
                queue: held.clone(),
                provider,
                clock: self.clock,
                retry: RetryPolicy::new(world.scenario.retry.clone()),
                metrics: metrics.clone(),
                seed: self.chance(0..u64::MAX),
            });
            runs.spawn(Arc::new(dispatcher).run(stop.clone()));
        }
        runs
    }

    /// SIGKILL, after so many steps more.
    pub(super) fn kill(&self, steps: u32) {
        if let Some((life, _)) = self.running() {
            life.dies_after(steps);
        }
    }

    /// SIGTERM.
    pub(super) fn stop(&self) {
        if let Some((life, _)) = self.running() {
            life.stop();
        }
    }

    /// SIGSTOP, or a network that loses everything between it and the broker, for that long.
    pub(super) async fn silence(&self, length: Duration, is_frozen: bool) {
        let Some((life, queue)) = self.running() else {
            return;
        };
        if is_frozen {
            life.freeze(true);
        } else {
            life.cut_off(true);
        }
        let last_answer = Duration::from_millis(self.chance(0..1_000));
        queue.renew_lease(Validity::Until(Instant::now() + LEASE_VALID - last_answer));
        let give_up = Duration::from_millis(self.chance(GIVE_UP)).saturating_sub(last_answer);
        if length < give_up {
            sleep(length).await;
            queue.renew_lease(Validity::Held);
        } else {
            sleep(give_up).await;
            queue.lose_connection();
            life.give_up();
            sleep(length.saturating_sub(give_up)).await;
        }
        if is_frozen {
            life.freeze(false);
        } else {
            life.cut_off(false);
        }
    }
}

/// Returns when all dispatchers of a process have ended.
async fn ended(runs: &mut JoinSet<Result<(), QueueError>>, world: &World) {
    while let Some(ended) = runs.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => world.record.wrong(format!("a dispatcher gave up: {error}")),
            Err(error) => world.record.wrong(format!("a dispatcher stopped: {error}")),
        }
    }
}

fn account(world: &World, number: usize) -> AccountConfig {
    let scenario = &world.scenario;
    let portal = PORTAL + u32::try_from(number).unwrap_or_default();
    AccountConfig {
        ca_file: None,
        proxy: None,
        token: TokenSource::Given(SecretString::from(format!("pat-na1-portal-{portal}"))),
        next_token: TokenSource::Missing,
        portal_id: scenario.checks_portal.then_some(portal.into()),
        account_type: None,
        base_url: world.base_url.clone(),
        api: Api::Transactional,
        api_version: ApiVersion::V2026_09,
        quota: scenario.quota,
        results: scenario.results,
        concurrency: scenario.concurrency,
        low_share: scenario.low_share,
        timeout: scenario.timeout,
    }
}

/// The names of the accounts of a run.
pub(super) fn accounts(count: usize) -> Vec<AccountName> {
    let second = AccountName::parse("second").into_iter();
    let all = [AccountName::default()].into_iter().chain(second);
    all.take(count).collect()
}
