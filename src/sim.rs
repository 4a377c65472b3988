//! The deterministic simulation: many days in a second, all of them from one number.
//!
//! The real dispatcher, several of them on machines of their own, works on the memory queue and
//! calls the model of HubSpot through the real client. Everything that comes from outside is drawn
//! from the seed before the run begins (`scenario`): requests, HubSpot's weather, kills, frozen
//! and cut-off workers, restarts, a broker that dies, connections that break in the middle of a
//! settle, clocks that are set, an operator. Time is tokio's paused clock on one thread, so the same
//! seed gives the same run, to the event. When all is over and calm again, what happened is held
//! against the promises (`checks`).
//!
//! What it cannot find: whatever lies below the queue's contract and the transport. The memory
//! queue is our belief about RabbitMQ, and the model is our belief about HubSpot.

mod checks;
mod hubspot;
mod life;
mod queue;
mod record;
mod scenario;
mod worker;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use self::hubspot::Door;
pub use self::record::Event;
use self::record::{Record, Who};
use self::scenario::{Letter, Scenario, Shock};
use self::worker::Machine;
use crate::clock::Clock;
use crate::message::AccountName;
use crate::outcome::DeadReason;
use crate::queue::memory::{Interruption, MemoryQueue};
use crate::queue::{DeadLetters, Fate, Parcel, Queue};
use crate::sandbox::{Faults, Model, Options};
use crate::story::Story;

/// In which a queue must be empty once all is calm: a day's quota is spent for days on end, and a
/// result is waited for a day.
const DRAIN_MAX: Duration = Duration::from_hours(24 * 20);
/// How often it is looked whether it is.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often a producer sends one more request that HubSpot takes, while old ones still stand: where
/// nothing else goes out, nobody could tell an outage from eight requests that always fail.
const FRESH_EVERY: Duration = Duration::from_hours(1);
/// Between two tries of a producer.
const PUBLISH_AGAIN: Duration = Duration::from_secs(2);

/// What one seed came to.
#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    /// Which promises did not hold; empty when all is well.
    pub broken: Vec<String>,
    /// Everything that happened, in order.
    pub events: Vec<Event>,
    /// The same for two runs in which the same happened.
    pub fingerprint: u64,
    /// Requests that a producer was told are durable.
    pub requests: usize,
    /// How much time passed in the run.
    pub took: Duration,
}

impl Report {
    /// Of a run of which nothing else is known.
    #[must_use]
    pub fn empty(seed: u64) -> Self {
        Self {
            seed,
            broken: Vec::new(),
            events: Vec::new(),
            fingerprint: 0,
            requests: 0,
            took: Duration::ZERO,
        }
    }
}

/// Everything that takes part in one run.
#[derive(Debug)]
struct World {
    scenario: Arc<Scenario>,
    record: Arc<Record>,
    clock: Clock,
    queue: MemoryQueue,
    door: Arc<Door>,
    accounts: Vec<AccountName>,
    base_url: Url,
    machines: Vec<Arc<Machine>>,
}

/// Runs what a seed stands for, on this thread, and holds it against the promises.
///
/// # Errors
/// When the runtime cannot be made.
pub fn run(seed: u64) -> std::io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    Ok(runtime.block_on(async {
        let world = Arc::new(World::new(Scenario::draw(seed)));
        world.clone().play().await;
        let broken = checks::all(&world);
        let mut kept = world.record.lock();
        let events = std::mem::take(&mut kept.events);
        let requests = kept.fates.values().filter(|fate| fate.accepted).count();
        drop(kept);
        Report {
            seed,
            broken,
            fingerprint: record::fingerprint(&events),
            events,
            requests,
            took: world.scenario.began.elapsed(),
        }
    }))
}

impl World {
    fn new(scenario: Scenario) -> Self {
        let scenario = Arc::new(scenario);
        let record = Arc::new(Record::new());
        let clock = Clock::simulated(scenario.starts_at);
        let mut rng = fastrand::Rng::with_seed(scenario.seed.wrapping_add(1));
        let accounts = worker::accounts(scenario.accounts);
        if let Err(error) = scenario.faults.parse::<Faults>() {
            record.wrong(format!("no weather: {error}"));
        }
        let model = Model::new(options(&scenario), clock.now());
        let door = Door::new(
            model,
            rng.fork(),
            clock,
            Arc::clone(&record),
            Arc::clone(&scenario),
        );
        let clocks = scenario.clocks.iter().enumerate();
        let machines = clocks
            .map(|(number, set)| Arc::new(Machine::new(number, clock.stepping(*set), rng.fork())));
        Self {
            machines: machines.collect(),
            queue: MemoryQueue::new(clock, "postrider", accounts.clone()),
            base_url: base_url(),
            door: Arc::new(door),
            accounts,
            clock,
            record,
            scenario,
        }
    }

    /// From the first request until nothing is left to do.
    async fn play(self: Arc<Self>) {
        let (end, tasks) = (CancellationToken::new(), TaskTracker::new());
        let machines: Vec<_> = (self.machines.iter())
            .map(|machine| tokio::spawn(Arc::clone(machine).run(Arc::clone(&self), end.clone())))
            .collect();
        for letter in self.scenario.letters.values().cloned() {
            tasks.spawn(Arc::clone(&self).publish(letter));
        }
        for (at, shock) in self.scenario.shocks.clone() {
            tasks.spawn(Arc::clone(&self).strike(at, shock));
        }
        tasks.close();
        sleep_until(self.scenario.calm_at).await;
        self.record.note(Who::World, "is calm", "", "");
        let now = self.clock.now();
        self.door.model().set_faults(now, Faults::default());
        tasks.wait().await;
        self.drain("once all was calm").await;
        // Whoever is patient replays what died for a fault that is over.
        self.replay(1.0, self.scenario.seed).await;
        self.drain("after the last replay").await;
        end.cancel();
        for machine in machines {
            if let Err(error) = machine.await {
                self.record.wrong(format!("a machine stopped: {error}"));
            }
        }
    }

    async fn drain(self: &Arc<Self>, when: &str) {
        let deadline = Instant::now() + DRAIN_MAX;
        let mut fresh_at = Instant::now() + FRESH_EVERY;
        while self.queue.undone() > 0 {
            let spins = self.record.is_full();
            if spins || Instant::now() >= deadline {
                let left = self.queue.undone();
                let why = if spins {
                    "something goes round in circles"
                } else {
                    "too long"
                };
                let problem = format!("{left} still stand in the queue {when}: {why}");
                return self.record.wrong(problem);
            }
            if Instant::now() >= fresh_at {
                fresh_at += FRESH_EVERY;
                for account in 0..self.accounts.len() {
                    let letter = Letter::fresh(account, self.clock.now());
                    Arc::clone(self).publish(letter).await;
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Publishes a request until its confirm comes, and again where the producer is not sure.
    async fn publish(self: Arc<Self>, letter: Letter) {
        sleep(letter.at).await;
        let times = 1 + usize::from(letter.again_after.is_some());
        for time in 0..times {
            let connection = self.queue.connect(self.clock);
            let mut rng = fastrand::Rng::with_seed(letter.seed);
            loop {
                if self.scenario.is_stormy() && rng.f64() < self.scenario.interrupted {
                    connection.interrupt_next(Interruption::After);
                }
                let published = connection.publish(self.parcel(&letter)).await;
                let confirm = if published.is_ok() {
                    ""
                } else {
                    " (no confirm)"
                };
                let detail = format!("{}{confirm}", letter.body);
                self.record
                    .note(Who::Producer, "publishes", &letter.id, detail);
                self.record.fate(&letter.id, |fate| {
                    fate.accepted |= published.is_ok();
                    fate.copied |= published.is_err() || time > 0;
                });
                if published.is_ok() {
                    break;
                }
                sleep(PUBLISH_AGAIN).await;
            }
            sleep(letter.again_after.unwrap_or_default()).await;
        }
    }

    fn parcel(&self, letter: &Letter) -> Parcel {
        Parcel {
            body: Bytes::from(letter.body.clone()),
            message_id: letter.message_id.clone(),
            account: self
                .accounts
                .get(letter.account)
                .cloned()
                .unwrap_or_default(),
            priority: letter.priority,
            story: Story::default(),
        }
    }

    async fn strike(self: Arc<Self>, at: Duration, shock: Shock) {
        sleep(at).await;
        self.record
            .note(Who::World, "strikes", "", format!("{shock:?}"));
        let machine = |worker: usize| self.machines.get(worker);
        match shock {
            Shock::Kill { worker, steps } => {
                if let Some(machine) = machine(worker) {
                    machine.kill(steps);
                }
            }
            Shock::Restart { worker } => {
                if let Some(machine) = machine(worker) {
                    machine.stop();
                }
            }
            Shock::Freeze { worker, length } => {
                if let Some(machine) = machine(worker) {
                    machine.silence(length, true).await;
                }
            }
            Shock::CutOff { worker, length } => {
                if let Some(machine) = machine(worker) {
                    machine.silence(length, false).await;
                }
            }
            Shock::BrokerDown { length, twice } => {
                for (body, message_id) in self.queue.go_down(&twice) {
                    let id = queue::id_of(&body, message_id.as_deref());
                    self.record.note(Who::World, "repeats", &id, "");
                    self.record.fate(&id, |fate| fate.copied = true);
                }
                sleep(length).await;
                self.queue.come_up();
            }
            Shock::Replay { share, seed } => self.replay(share, seed).await,
        }
    }

    /// An operator replays this share of the dead letters. Malformed ones would only come back.
    async fn replay(&self, share: f64, seed: u64) {
        let connection = self.queue.connect(self.clock);
        let mut rng = fastrand::Rng::with_seed(seed);
        if self.scenario.is_stormy() && rng.f64() < self.scenario.interrupted {
            connection.interrupt_next(Interruption::After);
        }
        let swept = connection.sweep(|letter| {
            let id = queue::id_of(&letter.body, letter.message_id.as_deref());
            let malformed = letter
                .story
                .death
                .as_ref()
                .is_some_and(|death| death.reason == DeadReason::Malformed);
            let chance = rng.f64();
            let fate = if chance >= share || malformed {
                Fate::Keep
            } else if self.scenario.is_stormy() && rng.u32(0..20) == 0 {
                self.record.note(Who::Operator, "discards", &id, "");
                self.record.fate(&id, |fate| fate.discarded = true);
                Fate::Discard
            } else {
                self.record.note(Who::Operator, "replays", &id, "");
                self.record.fate(&id, |fate| fate.replays += 1);
                Fate::Replay(Box::new(letter.replay()))
            };
            ControlFlow::Continue(fate)
        });
        if swept.await.is_err() {
            self.record.note(Who::Operator, "breaks off", "", "");
            // Whichever it was stands in both places.
            for fate in self.record.lock().fates.values_mut() {
                fate.copied |= fate.replays > 0;
            }
        }
    }
}

#[expect(clippy::expect_used, reason = "a constant, parsed in every run")]
fn base_url() -> Url {
    Url::parse("https://api.hubapi.com").expect("it is an address")
}

fn options(scenario: &Scenario) -> Options {
    let span = |(min, max)| crate::sandbox::Span { min, max };
    let limit = |window: Option<crate::config::WindowConfig>| {
        window.map(|window| crate::sandbox::Limit {
            calls: window.limit,
            window: window.window,
        })
    };
    Options {
        latency: span(scenario.latency),
        results_after: span(scenario.results_after),
        limit: limit(scenario.quota.send),
        api_limit: limit(scenario.quota.api),
        daily: scenario.daily,
        faults: scenario.faults.parse().unwrap_or_default(),
        seed: scenario.seed,
        time_zone: jiff::tz::TimeZone::get(scenario.time_zone).unwrap_or(jiff::tz::TimeZone::UTC),
        ..Options::default()
    }
}
