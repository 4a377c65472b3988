//! One account under test: the memory queue on one side, a scripted `HubSpot` on the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use postrider::clock::Clock;
use postrider::config::{QuotaConfig, RetryConfig};
use postrider::delivery::Rules;
use postrider::dispatch::{Account, Dispatcher, Parts, Settings};
use postrider::message::{AccountName, Priority, SendRequest};
use postrider::metrics::Metrics;
use postrider::outcome::{
    Accepted, DeadReason, Failure, FailureClass, LookUp, Outcome, PauseReason, Scope, Words,
};
use postrider::provider::{Portal, Probe, Provider, RateLimits, connecting};
use postrider::queue::Parcel;
use postrider::queue::Queue;
use postrider::queue::memory::MemoryQueue;
use postrider::retry::RetryPolicy;
use postrider::story::Story;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::overheard::Overheard;

/// One call that reached the scripted HubSpot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) at: Duration,
    pub(super) send_id: String,
}

/// One look-up that did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LookedUp {
    pub(super) at: Duration,
    pub(super) status_id: String,
}

pub(super) type Results = dyn Fn(&str, usize) -> LookUp + Send + Sync;
pub(super) type Script = dyn Fn(&str, usize, Duration) -> Outcome + Send + Sync;

/// Answers by a script: the send id, how often that id was tried, and the time since the start.
pub(super) struct Scripted {
    pub(super) origin: Instant,
    /// How long each call's connection takes to stand, before which it does not leave.
    pub(super) connects: Duration,
    pub(super) latency: Duration,
    /// Instead of `latency`: that of each call, by its number.
    pub(super) latency_of: Option<Box<dyn Fn(u64) -> Duration + Send + Sync>>,
    pub(super) sends: Box<Script>,
    pub(super) results: Box<Results>,
    pub(super) probe: Box<dyn Fn(Duration) -> Probe + Send + Sync>,
    /// Told by every answer.
    pub(super) probe_latency: Duration,
    pub(super) limits: RateLimits,
    calls: Mutex<Vec<Call>>,
    tries: Mutex<BTreeMap<String, usize>>,
    look_ups: Mutex<Vec<LookedUp>>,
    asked: Mutex<BTreeMap<String, usize>>,
}

impl Scripted {
    pub(super) fn new(
        sends: impl Fn(&str, usize, Duration) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Self {
            origin: Instant::now(),
            connects: Duration::ZERO,
            latency: Duration::from_millis(30),
            latency_of: None,
            sends: Box::new(sends),
            results: Box::new(|_, _| LookUp::Sent(Words::default())),
            probe: Box::new(|_| Probe::Open(Portal::default())),
            probe_latency: Duration::ZERO,
            limits: RateLimits::default(),
            calls: Mutex::default(),
            tries: Mutex::default(),
            look_ups: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub(super) fn look_ups(&self) -> Vec<LookedUp> {
        self.look_ups.lock().unwrap().clone()
    }

    async fn connect(&self) {
        if !self.connects.is_zero() {
            connecting(Box::pin(tokio::time::sleep(self.connects))).await;
        }
    }

    pub(super) fn tries(&self, send_id: &str) -> usize {
        let tries = self.tries.lock().unwrap();
        tries.get(send_id).copied().unwrap_or_default()
    }
}

/// The number of this one among those of its name.
fn counted(of: &Mutex<BTreeMap<String, usize>>, name: &str) -> usize {
    let mut of = of.lock().unwrap();
    let nth = of.entry(name.to_owned()).or_default();
    *nth += 1;
    *nth
}

#[derive(Clone)]
pub(super) struct Shared(pub(super) Arc<Scripted>);

impl Provider for Shared {
    async fn send(&self, _: &SendRequest, send_id: &str) -> Outcome {
        self.0.connect().await;
        let at = self.0.origin.elapsed();
        let nth = counted(&self.0.tries, send_id);
        let number = {
            let mut calls = self.0.calls.lock().unwrap();
            calls.push(Call {
                at,
                send_id: send_id.to_owned(),
            });
            calls.len() as u64
        };
        let latency = self.0.latency_of.as_ref();
        tokio::time::sleep(latency.map_or(self.0.latency, |of| of(number))).await;
        (self.0.sends)(send_id, nth, at)
    }

    async fn look_up(&self, status_id: &str) -> LookUp {
        self.0.connect().await;
        let nth = counted(&self.0.asked, status_id);
        self.0.look_ups.lock().unwrap().push(LookedUp {
            at: self.0.origin.elapsed(),
            status_id: status_id.to_owned(),
        });
        tokio::time::sleep(self.0.latency).await;
        (self.0.results)(status_id, nth)
    }

    async fn probe(&self) -> Probe {
        tokio::time::sleep(self.0.probe_latency).await;
        (self.0.probe)(self.0.origin.elapsed())
    }

    fn rate_limits(&self) -> RateLimits {
        self.0.limits
    }
}

pub(super) fn accepted(send_id: &str) -> Outcome {
    Outcome::Accepted(Accepted {
        status_id: Some(format!("status-of-{send_id}")),
        words: Words::default(),
    })
}

pub(super) fn failure(class: FailureClass, scope: Scope, pause: Option<PauseReason>) -> Failure {
    Failure {
        class,
        scope,
        pause,
        retry_after: None,
        words: Words::default(),
        hint: "as the test says".into(),
    }
}

pub(super) fn down() -> Failure {
    failure(FailureClass::Transient, Scope::Provider, None)
}

pub(super) fn unauthorized() -> Failure {
    failure(
        FailureClass::Halted,
        Scope::Account,
        Some(PauseReason::Unauthorized),
    )
}

/// One account under test.
pub(super) struct World {
    pub(super) queue: MemoryQueue,
    pub(super) overheard: Overheard,
    pub(super) hubspot: Arc<Scripted>,
    metrics: Metrics,
    pub(super) account: Arc<Account>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), postrider::queue::QueueError>>,
    pub(super) clock: Clock,
}

pub(super) fn settings() -> Settings {
    Settings {
        quota: QuotaConfig::default(),
        results: 1.0,
        concurrency: 8,
        low_share: 0.05,
        pinned: false,
        delivery: Rules::default(),
        grace: Duration::from_secs(35),
    }
}

pub(super) async fn start(hubspot: Scripted, settings: Settings, requests: usize) -> World {
    let clock = Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap());
    let name = AccountName::default();
    let queue = MemoryQueue::new(clock, "postrider", [name.clone()]);
    let overheard = Overheard::new(queue.clone());
    for n in 0..requests {
        queue.publish(parcel(&format!("m-{n}"), "")).await.unwrap();
    }
    World::over(queue, overheard, Arc::new(hubspot), clock, settings)
}

pub(super) fn parcel(id: &str, dispatch: &str) -> Parcel {
    let body = format!(
        r#"{{"emailId": 7, "message": {{"to": "ada@example.com", "sendId": "{id}"}}{dispatch}}}"#
    );
    Parcel {
        body: Bytes::from(body),
        message_id: None,
        account: AccountName::default(),
        priority: Priority::Normal,
        story: Story::default(),
    }
}

impl World {
    /// A worker that has just started.
    fn over(
        queue: MemoryQueue,
        overheard: Overheard,
        hubspot: Arc<Scripted>,
        clock: Clock,
        settings: Settings,
    ) -> Self {
        let metrics = Metrics::new();
        let dispatcher = Arc::new(Dispatcher::new(Parts {
            account: AccountName::default(),
            settings,
            queue: overheard.clone(),
            provider: Shared(Arc::clone(&hubspot)),
            clock,
            retry: RetryPolicy::new(RetryConfig::default()),
            metrics: metrics.clone(),
            seed: 7,
        }));
        let (account, stop) = (dispatcher.account(), CancellationToken::new());
        let running = tokio::spawn(dispatcher.run(stop.clone()));
        Self {
            queue,
            overheard,
            hubspot,
            metrics,
            account,
            stop,
            running,
            clock,
        }
    }

    /// Another worker in place of this one, which ends in order.
    pub(super) async fn stopped_and_started(mut self, settings: Settings) -> Self {
        self.stop.cancel();
        (&mut self.running).await.unwrap().unwrap();
        self.replaced(settings)
    }

    /// Another worker in place of this one, which dies.
    pub(super) fn killed_and_started(self, settings: Settings) -> Self {
        self.running.abort();
        self.queue.lose_connection();
        self.replaced(settings)
    }

    fn replaced(self, settings: Settings) -> Self {
        let (queue, overheard) = (self.queue, self.overheard);
        Self::over(queue, overheard, self.hubspot, self.clock, settings)
    }

    /// Lets time pass until nothing stands anywhere but among the dead, at most `limit`.
    pub(super) async fn drained(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            let standing = self.queue.standing();
            if standing.ready.is_empty()
                && standing.waiting.is_empty()
                && standing.in_hand.is_empty()
            {
                return;
            }
            let left = [
                standing.ready.len(),
                standing.waiting.len(),
                standing.in_hand.len(),
            ];
            assert!(
                Instant::now() < deadline,
                "ready, waiting, in hand: {left:?}"
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    pub(super) fn dead(&self) -> Vec<(String, DeadReason)> {
        let dead = self.queue.standing().dead;
        dead.into_iter()
            .map(|letter| letter.story.death.unwrap())
            .map(|death| (death.key, death.reason))
            .collect()
    }

    pub(super) fn metric(&self, line: &str) -> u64 {
        self.account.observe(&self.metrics, self.clock.now());
        let text = self.metrics.render();
        let found = text.lines().find_map(|l| l.strip_prefix(line));
        found.map_or(0, |value| value.trim().parse().unwrap())
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    pub(super) async fn end(self) {
        self.stop();
        self.running.await.unwrap().unwrap();
    }
}
