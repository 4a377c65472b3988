//! Dispatch: the loop of one account's lanes.
//!
//! One [`Dispatcher`] serves one account. It waits for the account's lease, then runs two lanes
//! (sends and results) and the keeper of its pauses side by side, until it is stopped or the lease
//! is lost. A lane takes, in this order: an open gate, a permit, a token of its bucket, and only
//! then a delivery. So nothing waits for its turn in a worker's hands, and the next call always
//! belongs to the most urgent message.

mod attempt;
mod follow_up;
mod keeper;
mod learn;
mod storm;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::QuotaConfig;
use crate::message::AccountName;
use crate::metrics::Metrics;
use crate::outcome::{DeadReason, Disposition};
use crate::pause::{Gate, Pauses};
use crate::provider::Provider;
use crate::queue::{Delivery, Intake, Lane, Lease, Queue, QueueError};
use crate::quota::{Bucket, Day, RateLimiter, Start, Token};
use crate::retry::{Context, RetryPolicy};

use storm::Storm;

/// How long calls in flight may still take after the stop. Longer than one HubSpot call, so that
/// every answer is heard; shorter than the 45 s in which a worker ends.
const GRACE: Duration = Duration::from_secs(35);
/// How long prefetched messages are held through a pause. Then they go back to the queue, far
/// ahead of the broker's 30 minutes.
const HOLD_MAX: Duration = Duration::from_secs(20);
/// The wait after an error of the queue.
const QUEUE_ERROR_WAIT: Duration = Duration::from_secs(1);
/// Messages prefetched for each call that may be in flight: enough to never wait for the broker.
const PREFETCH_PER_PERMIT: u16 = 4;
/// The most messages a lane prefetches: what bounds memory.
const PREFETCH_MAX: u16 = 500;

/// What an account's dispatch is set to.
#[derive(Clone, Debug)]
pub struct Settings {
    pub quota: QuotaConfig,
    /// Share of accepted sends that is followed up, 0.0 to 1.0.
    pub results: f64,
    /// Calls in flight, for each of the two lanes.
    pub concurrency: u16,
    /// The portal that the token must open.
    pub portal_id: Option<u64>,
}

/// What others may see of an account while it is dispatched.
#[derive(Debug)]
pub struct Account {
    pub name: AccountName,
    pub pauses: Pauses,
    owner: AtomicBool,
    in_flight: AtomicI64,
    limiters: Mutex<Option<Limiters>>,
}

#[derive(Clone, Debug)]
struct Limiters {
    send: Arc<RateLimiter>,
    api: Arc<RateLimiter>,
}

/// Serves one account.
#[derive(Debug)]
pub struct Dispatcher<Q, P> {
    account: Arc<Account>,
    settings: Settings,
    queue: Q,
    provider: P,
    clock: Clock,
    retry: RetryPolicy,
    metrics: Metrics,
    rng: Mutex<fastrand::Rng>,
    day: Mutex<Day>,
    /// The account's time zone, once HubSpot has told it.
    zone: Mutex<TimeZone>,
    storm: Mutex<Storm>,
    /// Failures look like an outage: the keeper probes at once.
    suspicion: Notify,
}

/// What a dispatcher is made of.
#[derive(Debug)]
pub struct Parts<Q, P> {
    pub account: AccountName,
    pub settings: Settings,
    pub queue: Q,
    pub provider: P,
    pub clock: Clock,
    pub retry: RetryPolicy,
    pub metrics: Metrics,
    /// Seeds jitter and the choice of what is followed up.
    pub seed: u64,
}

impl<Q: Queue, P: Provider> Dispatcher<Q, P> {
    #[must_use]
    pub fn new(parts: Parts<Q, P>) -> Self {
        parts.metrics.declare(&parts.account);
        Self {
            account: Arc::new(Account {
                name: parts.account,
                pauses: Pauses::default(),
                owner: AtomicBool::new(false),
                in_flight: AtomicI64::new(0),
                limiters: Mutex::new(None),
            }),
            day: Mutex::new(Day::new(parts.settings.quota.daily)),
            settings: parts.settings,
            queue: parts.queue,
            provider: parts.provider,
            clock: parts.clock,
            retry: parts.retry,
            metrics: parts.metrics,
            rng: Mutex::new(fastrand::Rng::with_seed(parts.seed)),
            zone: Mutex::new(TimeZone::UTC),
            storm: Mutex::new(Storm::default()),
            suspicion: Notify::new(),
        }
    }

    /// What others may see of it.
    #[must_use]
    pub fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account)
    }

    /// Dispatches until `stop`: then it takes nothing more and waits for the calls in flight.
    ///
    /// # Errors
    /// Only what another try cannot heal: a lease that cannot be waited for, a queue of other
    /// arguments, refused credentials.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> Result<(), QueueError> {
        loop {
            let lease = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                lease = self.queue.lease(&self.account.name) => lease,
            };
            match lease {
                Ok(lease) => self.own(lease, &stop).await,
                Err(
                    error @ (QueueError::Taken { .. }
                    | QueueError::Mismatch { .. }
                    | QueueError::Refused { .. }),
                ) => return Err(error),
                Err(error) => {
                    tracing::warn!(account = %self.account.name, %error, hint = error.hint(), "no lease yet");
                    pause_for(&stop, QUEUE_ERROR_WAIT).await;
                }
            }
            if stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// One term of ownership.
    async fn own(self: &Arc<Self>, mut lease: Lease, stop: &CancellationToken) {
        let start = if lease.fresh {
            Start::Empty
        } else {
            Start::Spent
        };
        let limiters = Limiters {
            send: Arc::new(RateLimiter::new(self.settings.quota.send, start)),
            api: Arc::new(RateLimiter::new(self.settings.quota.api, start)),
        };
        *self.account.lock() = Some(limiters.clone());
        self.account.owner.store(true, Ordering::Relaxed);
        tracing::info!(account = %self.account.name, "dispatching: this worker owns the account");

        let term = stop.child_token();
        let calls = TaskTracker::new();
        let guard = lease.clone();
        let lost = async {
            tokio::select! {
                biased;
                () = term.cancelled() => {}
                () = lease.lost() => {
                    tracing::warn!(account = %self.account.name, "the account's lease is lost; standing by");
                    term.cancel();
                }
            }
        };
        self.hold_until_proven();
        tokio::join!(
            self.lane(Lane::Sends, &guard, &limiters.send, &term, &calls),
            self.lane(Lane::Results, &guard, &limiters.api, &term, &calls),
            self.keep_pauses(&limiters.api, &term),
            lost,
        );
        self.account.owner.store(false, Ordering::Relaxed);
        calls.close();
        if tokio::time::timeout(GRACE, calls.wait()).await.is_err() {
            tracing::warn!(
                account = %self.account.name,
                left = calls.len(),
                "calls still in flight at the end; the queue hands their messages out again"
            );
        }
    }

    /// Receives from one lane until the term ends.
    async fn lane(
        self: &Arc<Self>,
        lane: Lane,
        lease: &Lease,
        limiter: &Arc<RateLimiter>,
        term: &CancellationToken,
        calls: &TaskTracker,
    ) {
        let mut turn = Turn {
            lane,
            limiter,
            permits: Arc::new(Semaphore::new(self.settings.concurrency.into())),
            intake: None,
            permit: None,
            token: None,
            trial: false,
        };
        loop {
            let delivery = tokio::select! {
                biased;
                () = term.cancelled() => break,
                delivery = self.next(&mut turn) => delivery,
            };
            let delivery = match delivery {
                Ok(delivery) => delivery,
                Err(error) => {
                    tracing::warn!(account = %self.account.name, lane = lane.as_str(), %error, hint = error.hint(), "cannot receive");
                    turn.intake = None;
                    pause_for(term, QUEUE_ERROR_WAIT).await;
                    continue;
                }
            };
            if lease.holds(Instant::now()) {
                self.start(delivery, &mut turn, calls).await;
            } else {
                self.settle(delivery, Disposition::Release, "lease ran out")
                    .await;
            }
        }
        if let Some(token) = &turn.token {
            limiter.give_back(token);
        }
    }

    /// The next delivery, with everything in hand that its call needs.
    async fn next(&self, turn: &mut Turn<'_, Q>) -> Result<Delivery, QueueError> {
        loop {
            self.pass_gate(turn).await;
            if turn.permit.is_none() {
                let permit = Arc::clone(&turn.permits).acquire_owned().await;
                turn.permit = permit.ok();
                continue; // The wait may have been long: look at the gate again.
            }
            if turn.token.is_none() {
                let began = Instant::now();
                turn.token = Some(turn.limiter.token().await);
                self.metrics.quota_waited(began.elapsed());
                continue;
            }
            if turn.intake.is_none() {
                let prefetch = self
                    .settings
                    .concurrency
                    .saturating_mul(PREFETCH_PER_PERMIT)
                    .min(PREFETCH_MAX);
                let account = &self.account.name;
                turn.intake = Some(self.queue.open(account, turn.lane, prefetch).await?);
            }
            let Some(intake) = turn.intake.as_mut() else {
                continue;
            };
            let mut changes = self.account.pauses.watch();
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                delivery = intake.receive() => return delivery,
            }
        }
    }

    /// Waits until the lane may go on: the gate is open, or the one trial is ours.
    async fn pass_gate(&self, turn: &mut Turn<'_, Q>) {
        let shut_since = Instant::now();
        loop {
            let mut changes = self.account.pauses.watch();
            let until = match self.account.pauses.gate(turn.lane) {
                Gate::Open => {
                    turn.trial = false;
                    return;
                }
                _ if turn.trial => return,
                Gate::Trial => {
                    turn.trial = self.account.pauses.take_trial(turn.lane);
                    continue;
                }
                Gate::Shut { until } => until,
            };
            let hold_end = shut_since + HOLD_MAX;
            if turn.intake.is_some() && Instant::now() >= hold_end {
                turn.intake = None;
            }
            let hold_end = turn.intake.is_some().then_some(hold_end);
            let wake = until.into_iter().chain(hold_end).min();
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Sets the call off. What needs none is settled without spending the token.
    async fn start(
        self: &Arc<Self>,
        delivery: Delivery,
        turn: &mut Turn<'_, Q>,
        calls: &TaskTracker,
    ) {
        let this = Arc::clone(self);
        let settled = match turn.lane {
            Lane::Sends => match self.examine(delivery) {
                Ok(ready) => {
                    let permit = self.spend(turn).await;
                    calls.spawn(async move { this.attempt(ready, permit).await });
                    return;
                }
                Err(settled) => settled,
            },
            Lane::Results => match self.examine_follow_up(delivery) {
                Ok(ready) => {
                    let permit = self.spend(turn).await;
                    calls.spawn(async move { this.follow_up(ready, permit).await });
                    return;
                }
                Err(settled) => settled,
            },
        };
        let permit = turn.permit.take();
        calls.spawn(async move {
            this.settle(settled.delivery, settled.disposition, &settled.id)
                .await;
            drop(permit);
        });
    }

    /// Spends the token of a turn and counts the call; its permit goes with the call.
    async fn spend(&self, turn: &mut Turn<'_, Q>) -> Option<OwnedSemaphorePermit> {
        if let Some(token) = turn.token.take() {
            turn.limiter.spend(token).await;
        }
        turn.trial = false;
        self.count_call();
        turn.permit.take()
    }

    /// Carries a disposition out; one metric and one log line, here and nowhere else.
    async fn settle(&self, delivery: Delivery, disposition: Disposition, id: &str) {
        let account = self.account.name.clone();
        let lane = delivery.lane.as_str();
        let death = disposition.death().cloned();
        let what = disposition.label();
        if let Err(error) = self.queue.settle(delivery, disposition).await {
            tracing::warn!(%account, lane, id, disposition = what, %error, hint = error.hint(), "not settled; it is handed out again");
            return;
        }
        if let Some(death) = death {
            self.metrics.dead_letter(&account, death.reason);
            // A malformed request's problem may quote the request; it is told by `dead show` alone.
            let problem = (death.reason != DeadReason::Malformed).then_some(death.problem);
            tracing::warn!(
                %account, lane, id, reason = %death.reason, problem,
                status = death.words.status, category = death.words.category,
                correlation_id = death.words.correlation_id, "dead letter"
            );
        } else {
            tracing::debug!(%account, lane, id, disposition = what, "settled");
        }
    }
}

/// The small shared state, and what a decision needs to know of it.
impl<Q: Queue, P: Provider> Dispatcher<Q, P> {
    fn context(&self, now: Timestamp, key: String, email_id: Option<i64>, lane: Lane) -> Context {
        Context {
            now,
            key,
            account: self.account.name.to_string(),
            email_id,
            held_until: self.account.pauses.held_until(lane, now),
            outage: self.account.pauses.outage(),
            follow: self.follows(),
        }
    }

    /// Whether the next accepted send is followed up.
    fn follows(&self) -> bool {
        let share = self.settings.results;
        share >= 1.0 || (share > 0.0 && self.rng().f64() < share)
    }

    fn flying(&self, change: i64) {
        self.account.in_flight.fetch_add(change, Ordering::Relaxed);
        self.metrics.in_flight(&self.account.name, change);
    }

    fn rng(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn storm(&self) -> MutexGuard<'_, Storm> {
        self.storm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn day(&self) -> MutexGuard<'_, Day> {
        self.day.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn zone(&self) -> TimeZone {
        self.zone
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_zone(&self, zone: TimeZone) {
        *self.zone.lock().unwrap_or_else(PoisonError::into_inner) = zone;
    }
}

/// A delivery whose fate needs no call.
struct NoCall {
    delivery: Delivery,
    disposition: Disposition,
    /// Names it in the log.
    id: String,
}

impl NoCall {
    fn with<T>(
        delivery: Delivery,
        disposition: Disposition,
        id: impl Into<String>,
    ) -> Result<T, Box<Self>> {
        Err(Box::new(Self {
            delivery,
            disposition,
            id: id.into(),
        }))
    }
}

/// What a lane holds for its next call.
struct Turn<'a, Q: Queue> {
    lane: Lane,
    limiter: &'a Arc<RateLimiter>,
    permits: Arc<Semaphore>,
    intake: Option<Q::Intake>,
    permit: Option<OwnedSemaphorePermit>,
    token: Option<Token>,
    /// The one message that may go out through a pause is ours to send.
    trial: bool,
}

impl Account {
    /// Whether this worker dispatches the account (otherwise it stands by).
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.owner.load(Ordering::Relaxed)
    }

    /// Calls under way.
    #[must_use]
    pub fn in_flight(&self) -> i64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Brings the gauges up to date.
    pub fn observe(&self, metrics: &Metrics) {
        metrics.pauses(&self.name, &self.pauses.list());
        for (bucket, used) in self.quota() {
            let (limit, ratio) = match used {
                Some((used, window)) => (window.limit, f64::from(used) / f64::from(window.limit)),
                None => (0, 0.0),
            };
            metrics.quota(&self.name, bucket, limit, ratio);
        }
    }

    /// Calls in the last window and its limit, for each bucket; `None` without a ceiling.
    #[must_use]
    pub fn quota(&self) -> Vec<(Bucket, Option<(u32, crate::config::WindowConfig)>)> {
        match self.lock().as_ref() {
            Some(limiters) => vec![
                (Bucket::Send, limiters.send.used()),
                (Bucket::Api, limiters.api.used()),
            ],
            None => Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Limiters>> {
        self.limiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pause_for(stop: &CancellationToken, wait: Duration) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = tokio::time::sleep(wait) => {}
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}
