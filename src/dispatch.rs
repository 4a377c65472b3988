//! Dispatch: the loop of one account's lanes.
//!
//! One [`Dispatcher`] serves one account. It waits for the account's lease, then runs two lanes
//! (sends and results) and the keeper of its pauses side by side, until it is stopped or the lease
//! is lost. A lane takes, in this order: an open gate, a permit, a token of its bucket, and only
//! then a delivery. So nothing waits for its turn in a worker's hands, and the next call always
//! belongs to the message whose turn it is then.

mod account;
mod attempt;
mod boxes;
mod burst;
mod day;
mod follow_up;
mod keeper;
mod lane;
mod learn;
mod mishap;
mod storm;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::QuotaConfig;
use crate::delivery::Rules;
use crate::journal::{Call, Entry, Then};
use crate::message::{AccountName, MessageId, Priority, SendRequest};
use crate::metrics::Metrics;
use crate::outcome::{DeadReason, Disposition, Words};
use crate::provider::{Fence, Provider};
use crate::queue::{Announcement, Before, Delivery, Kind, Lane, Lease, Queue, QueueError, Spends};
use crate::quota::{RateLimiter, Start};
use crate::retry::{Context, RetryPolicy};

use account::Limiters;
use storm::Storm;

pub use account::{Account, Left, Wait};

/// The wait after an error of the queue.
const QUEUE_ERROR_WAIT: Duration = Duration::from_secs(1);

/// How long the next owner is kept waiting for calls of ours that are still connecting.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// What an account's dispatch is set to.
#[derive(Clone, Debug)]
pub struct Settings {
    pub quota: QuotaConfig,
    /// Share of accepted sends that is followed up, 0.0 to 1.0.
    pub results: f64,
    /// Calls in flight, for each of the two lanes.
    pub concurrency: u16,
    /// What of a turn each priority that waits is owed for each turn of a more urgent one.
    pub low_share: f64,
    /// The token must be proven to open the configured account, whatever it takes.
    pub pinned: bool,
    /// Who gets mail.
    pub delivery: Rules,
    /// How long calls in flight may still take after the stop. Longer than one call, so that every
    /// answer is heard.
    pub grace: Duration,
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
    storm: Mutex<Storm>,
    /// When the newest send that HubSpot took went out.
    last_accepted: Mutex<Option<Timestamp>>,
    /// When the newest send that HubSpot has sent was taken.
    last_sent: Mutex<Option<Timestamp>>,
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
        let tokens = parts.provider.token_troubles();
        Self {
            account: Arc::new(Account::new(parts.account, &parts.settings.quota, tokens)),
            settings: parts.settings,
            queue: parts.queue,
            provider: parts.provider,
            clock: parts.clock,
            retry: parts.retry,
            metrics: parts.metrics,
            rng: Mutex::new(fastrand::Rng::with_seed(parts.seed)),
            storm: Mutex::new(Storm::default()),
            last_accepted: Mutex::new(None),
            last_sent: Mutex::new(None),
            suspicion: Notify::new(),
        }
    }

    /// What others may see of it.
    #[must_use]
    pub fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account)
    }

    /// Dispatches until `stop`: then it takes nothing more, gives back what it has not begun, lets
    /// the next owner in, and waits for the calls in flight. What became of them [`Account::left`]
    /// tells.
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
            self.account.stands_by();
        }
    }

    /// One term of ownership.
    async fn own(self: &Arc<Self>, lease: Lease, stop: &CancellationToken) {
        // Only sends go in bursts.
        let (send, api) = match lease.before {
            Before::Nobody => (Start::Empty, Start::Empty),
            Before::Somebody(Spends::Evenly) => (Start::Spent, Start::Spent),
            Before::Somebody(Spends::AtOnce) => (Start::SpentAtOnce, Start::Spent),
        };
        let quota = &self.settings.quota;
        let limiters = Limiters {
            send: Arc::new(match (quota.send, quota.adaptive) {
                (Some(limit), Some(range)) => RateLimiter::adaptive(limit, range, send),
                (limit, _) => RateLimiter::new(limit, send),
            }),
            api: Arc::new(RateLimiter::new(quota.api, api)),
        };
        self.account.owned(limiters.clone());
        tracing::info!(account = %self.account.name, "dispatching: this worker owns the account");

        let term = stop.child_token();
        let calls = TaskTracker::new();
        let guard = lease.clone();
        let fence = Fence::new(lease.watched());
        self.hold_until_proven(Words::default());
        self.resume_day(&lease);
        let ending = async {
            let lost = async {
                tokio::select! {
                    biased;
                    () = term.cancelled() => {}
                    () = lease.lost() => {
                        tracing::warn!(account = %self.account.name, "the account's lease is lost; standing by");
                        term.cancel();
                    }
                    () = lease.recalled() => {
                        tracing::info!(account = %self.account.name, "handing the account on to another worker");
                        term.cancel();
                    }
                }
            };
            let (sends, results, told, (), (), ()) = tokio::join!(
                self.lane(
                    Lane::Sends,
                    (guard.clone(), &fence),
                    &limiters.send,
                    &term,
                    &calls
                ),
                self.lane(Lane::Results, (guard, &fence), &limiters.api, &term, &calls),
                self.keep_day(&lease, &term),
                self.keep_pauses(&limiters.api, &term),
                self.allow_bursts(&lease, &limiters.send, &term),
                lost,
            );
            self.account.given_up(sends + results, calls.len());
            self.tell_day(&lease, told).await;
            self.let_go(lease, &fence).await;
            calls.close();
            calls.wait().await;
        };
        let overdue = async {
            term.cancelled().await;
            tokio::time::sleep(self.settings.grace).await;
        };
        tokio::select! {
            biased;
            () = ending => {}
            () = overdue => fence.shut(),
        }
        self.account.ended(calls.len());
    }

    /// Lets the next owner in as soon as every call of ours has gone out: it need not wait for their
    /// answers. One that takes longer to connect does not go out any more, and its message goes back.
    async fn let_go(&self, lease: Lease, fence: &Fence) {
        // Where the lease does not hold, none of them goes out as it is.
        if fence.is_open() && timeout(LEAVE_TIMEOUT, fence.all_left()).await.is_err() {
            tracing::debug!(account = %self.account.name, "calls that are still connecting are given up");
        }
        fence.shut();
        drop(lease);
    }

    /// Carries a disposition out; one metric and one log line, here and nowhere else. Once that is
    /// durable it is announced, be it a death; and it is an entry of the journal, either way.
    async fn settle(&self, delivery: Delivery, disposition: Disposition, id: &str, beside: Beside) {
        let account = self.account.name.clone();
        let lane = delivery.lane.as_str();
        let death = disposition.death().cloned();
        let what = disposition.label();
        let is_release = disposition == Disposition::Release;
        let mut entry = self.entry(&delivery, &disposition, id);
        let mut news = Announcement::of_death(&disposition, &account);
        let mut told = None;
        match beside {
            Beside::Nothing => {}
            Beside::Malformed(problem) => told = problem,
            Beside::Call(called) => {
                news = called.news.or(news);
                entry.at = called.at;
                entry.published_at = called.published_at;
                entry.call = Some(called.call);
            }
        }
        if let Err(error) = self.queue.settle(delivery, disposition).await {
            entry.then = Then::NotSettled;
            self.queue.note(entry);
            tracing::warn!(%account, lane, id, disposition = what, %error, hint = error.hint(), "not settled; it is handed out again");
            self.account.returned();
            // The caller holds its permit meanwhile: a queue that refuses is not called in a circle.
            tokio::time::sleep(QUEUE_ERROR_WAIT).await;
            return;
        }
        self.queue.note(entry);
        if is_release {
            self.account.returned();
        }
        if let Some(death) = death {
            self.metrics.dead_letter(&account, death.reason);
            // A malformed request's problem may quote the request: that is told by `dead show` alone.
            let problem = if death.reason == DeadReason::Malformed {
                told
            } else {
                Some(death.problem)
            };
            tracing::warn!(
                %account, lane, id, reason = %death.reason, problem,
                status = death.words.status, category = death.words.category,
                correlation_id = death.words.correlation_id, "dead letter"
            );
        } else {
            tracing::debug!(%account, lane, id, disposition = what, "settled");
        }
        if let Some(news) = news {
            self.queue.announce(news);
        }
    }
}

/// The small shared state, and what a decision needs to know of it.
impl<Q: Queue, P: Provider> Dispatcher<Q, P> {
    fn context(&self, now: Timestamp, key: String, email_id: Option<i64>, lane: Lane) -> Context {
        Context {
            now,
            key,
            account: self.account.name.clone(),
            email_id,
            held_until: self.held_until(lane, now),
            last_accepted: *self.last_accepted(),
            last_sent: *self.last_sent(),
            outage: self.account.pauses.outage(),
            handed_out_before: false,
            follow: self.follows(),
        }
    }

    /// What is announced of a request that is no dead letter, where anybody may listen.
    fn news(
        &self,
        kind: Kind,
        context: &Context,
        (priority, generation): (Priority, u32),
        words: &Words,
    ) -> Option<Announcement> {
        let is_heard = self.queue.hears(kind, &self.account.name);
        is_heard.then(|| Announcement {
            kind,
            id: context.key.clone(),
            generation,
            account: self.account.name.clone(),
            priority,
            email_id: context.email_id,
            reason: None,
            at: context.now,
            words: words.clone(),
        })
    }

    /// What the journal keeps of a delivery for which no call was made.
    fn entry(&self, delivery: &Delivery, disposition: &Disposition, id: &str) -> Entry {
        let then = Then::from(disposition);
        Entry {
            published_at: disposition.story().and_then(|story| story.published_at),
            redelivered: delivery.redelivered,
            ..Entry::new(id, self.clock.now(), &self.account.name, then)
        }
    }

    /// Whether the next accepted send is followed up.
    fn follows(&self) -> bool {
        let share = self.settings.results;
        // Of an account that HubSpot has stopped, nothing but a result shows that it is over.
        share >= 1.0 || self.account.pauses.stopped() || (share > 0.0 && self.rng().f64() < share)
    }

    fn flying(&self, change: i64) {
        self.account.flying(change);
        self.metrics.in_flight(&self.account.name, change);
    }

    fn rng(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn storm(&self) -> MutexGuard<'_, Storm> {
        self.storm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_accepted(&self) -> MutexGuard<'_, Option<Timestamp>> {
        self.last_accepted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn last_sent(&self) -> MutexGuard<'_, Option<Timestamp>> {
        self.last_sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A delivery whose fate needs no call.
struct NoCall {
    delivery: Delivery,
    disposition: Disposition,
    /// Names it in the log and in the journal.
    id: String,
    beside: Beside,
}

/// What is told of a delivery beside its disposition.
enum Beside {
    Nothing,
    /// What the log may say of a malformed request.
    Malformed(Option<String>),
    Call(Box<Called>),
}

/// What a call adds to what is told of a delivery.
struct Called {
    call: Call,
    /// As in the story's own attempt.
    at: Timestamp,
    published_at: Option<Timestamp>,
    news: Option<Announcement>,
}

/// The id and the content id of a request that need not be valid; the id may be empty.
fn name_of(delivery: &Delivery) -> (String, Option<i64>) {
    match SendRequest::parse(&delivery.body, delivery.message_id.as_deref()) {
        Ok(request) => (request.id.to_string(), Some(request.email_id)),
        Err(_) => (delivery.message_id.clone().unwrap_or_default(), None),
    }
}

/// What HubSpot sees as the `sendId` of a request whose id may be none.
fn send_id_of(id: &str, generation: u32) -> String {
    MessageId::parse(id).map_or_else(|_| id.to_owned(), |id| id.generation(generation))
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
            beside: Beside::Nothing,
        }))
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
