//! The loop of one lane: an open gate, a permit, a token, and only then a delivery.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::boxes::Boxes;
use super::{
    Beside, Dispatcher, NoCall, QUEUE_ERROR_WAIT, Wait, attempt, follow_up, mishap, pause_for,
    sleep_until,
};
use crate::outcome::Disposition;
use crate::pause::Gate;
use crate::provider::{Departure, Fence, Provider};
use crate::queue::{Delivery, Intake, IntakeOptions, Lane, Lease, Queue, QueueError, Turns};
use crate::quota::{Flight, RateLimiter, Token};

/// How long prefetched messages are held through a pause. Then they go back to the queue, far
/// ahead of the broker's 30 minutes.
const HOLD_MAX: Duration = Duration::from_secs(20);
/// How long an intake is used. What it has prefetched of a lower priority waits in it while there
/// is a backlog of higher ones; a new intake gives that back, long before the broker's 30 minutes.
const INTAKE_AGE_MAX: Duration = Duration::from_mins(10);
/// Messages prefetched for each call that may be in flight: enough to never wait for the broker.
const PREFETCH_PER_PERMIT: u16 = 4;
/// From here on memory counts for more: then it is twice the calls that may be in flight, since
/// what is in hand is counted too.
const PREFETCH_ENOUGH: u16 = 500;

/// What a lane holds for its next call.
struct Turn<'a, Q: Queue> {
    lane: Lane,
    limiter: &'a Arc<RateLimiter>,
    /// Through which its calls leave.
    fence: &'a Fence,
    permits: Arc<Semaphore>,
    turns: Turns,
    intake: Option<Q::Intake>,
    /// When the intake was opened.
    opened: Instant,
    permit: Option<OwnedSemaphorePermit>,
    token: Option<Token>,
    boxes: Arc<Boxes>,
}

/// What a call holds: of the calls that may be in flight, and of the window. Nothing where no call
/// is made.
#[derive(Default)]
pub(super) struct Seat {
    pub(super) permit: Option<OwnedSemaphorePermit>,
    pub(super) flight: Option<Flight>,
    pub(super) departure: Option<Departure>,
}

/// A delivery whose call goes out now.
enum Ready {
    Send(Box<attempt::Ready>),
    LookUp(Box<follow_up::Ready>),
}

impl<Q: Queue, P: Provider> Dispatcher<Q, P> {
    /// Receives from one lane until the term ends. Tells how many deliveries were given back then.
    pub(super) async fn lane(
        self: &Arc<Self>,
        lane: Lane,
        (lease, fence): (Lease, &Fence),
        limiter: &Arc<RateLimiter>,
        term: &CancellationToken,
        calls: &TaskTracker,
    ) -> u64 {
        let mut given_back = 0;
        let mut turn = Turn {
            lane,
            limiter,
            fence,
            permits: Arc::new(Semaphore::new(self.settings.concurrency.into())),
            turns: Turns::new(match lane {
                Lane::Sends => self.settings.low_share,
                Lane::Results => 0.0,
            }),
            intake: None,
            opened: Instant::now(),
            permit: None,
            token: None,
            boxes: Arc::default(),
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
            // Where the lease has run out and is not lost, it is renewed or lost in seconds: the
            // delivery is held that long, since each return to the queue counts against it.
            if !lease.holds(Instant::now()) {
                self.account.waits(lane, Wait::Lease);
            }
            tokio::select! {
                biased;
                () = term.cancelled() => {
                    // Not read here: a panic over it would end the lane.
                    let id = delivery.message_id.clone().unwrap_or_default();
                    self.settle(delivery, Disposition::Release, &id, Beside::Nothing).await;
                    given_back += 1;
                    break;
                }
                () = lease.held() => {}
            }
            self.start(delivery, &mut turn, calls);
        }
        if let Some(token) = turn.token.take() {
            limiter.give_back(token);
        }
        if let Some(intake) = turn.intake {
            given_back += intake.close().await;
        }
        given_back
    }

    /// The next delivery, with everything in hand that its call needs.
    async fn next(&self, turn: &mut Turn<'_, Q>) -> Result<Delivery, QueueError> {
        loop {
            self.pass_gate(turn).await;
            if turn.permit.is_none() {
                let (calls, wait) = if self.account.pauses.one_by_one(turn.lane) {
                    (self.settings.concurrency, Wait::OneByOne) // None is in flight then.
                } else {
                    (1, Wait::Answer)
                };
                self.account.waits(turn.lane, wait);
                let permits = Arc::clone(&turn.permits);
                let permit = permits.acquire_many_owned(calls.into()).await;
                turn.permit = permit.ok();
                continue; // The wait may have been long: look at the gate again.
            }
            if turn.token.is_none() {
                self.account.waits(turn.lane, Wait::Room);
                let began = Instant::now();
                turn.token = Some(turn.limiter.token().await);
                self.metrics.quota_waited(began.elapsed());
                continue;
            }
            if turn.opened.elapsed() >= INTAKE_AGE_MAX {
                turn.intake = None;
            }
            if turn.intake.is_none() {
                let options = IntakeOptions {
                    prefetch: prefetch(self.settings.concurrency),
                    turns: turn.turns.clone(),
                };
                let account = &self.account.name;
                turn.intake = Some(self.queue.open(account, turn.lane, options).await?);
                turn.opened = Instant::now();
                continue;
            }
            let Some(intake) = turn.intake.as_mut() else {
                continue;
            };
            self.account.waits(turn.lane, Wait::Request);
            if turn.lane == Lane::Sends {
                self.account.holds(intake.held());
            }
            let change = self.account.pauses.change();
            let (least, mut until) = self.account.pauses.least_urgent();
            if turn.lane == Lane::Sends {
                turn.turns.down_to(least);
            }
            if until.is_some() {
                // What is less urgent may have been prefetched, and waits for as long.
                until = until.min(Some(turn.opened + INTAKE_AGE_MAX));
            }
            tokio::select! {
                biased;
                () = change => {}
                () = sleep_until(until) => {}
                delivery = intake.receive() => return delivery,
            }
        }
    }

    /// Waits until the lane may go on, be it with the one message that is tried.
    async fn pass_gate(&self, turn: &mut Turn<'_, Q>) {
        let shut_since = Instant::now();
        loop {
            let change = self.account.pauses.change();
            let until = match self.account.pauses.gate(turn.lane) {
                Gate::Open | Gate::Trial => return,
                Gate::Shut { until } => until,
            };
            self.account.waits(turn.lane, Wait::Pause);
            let hold_end = shut_since + HOLD_MAX;
            if turn.intake.is_some() && Instant::now() >= hold_end {
                turn.intake = None;
                if turn.lane == Lane::Sends {
                    self.account.holds(Default::default());
                }
            }
            let hold_end = turn.intake.is_some().then_some(hold_end);
            let wake = until.into_iter().chain(hold_end).min();
            tokio::select! {
                biased;
                () = change => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Sets the call off. What needs none is settled without spending the token.
    fn start(self: &Arc<Self>, delivery: Delivery, turn: &mut Turn<'_, Q>, calls: &TaskTracker) {
        let this = Arc::clone(self);
        let spare = mishap::spare(&delivery);
        let examined = catch_unwind(AssertUnwindSafe(|| match turn.lane {
            Lane::Sends => self.examine(delivery).map(|it| Ready::Send(Box::new(it))),
            Lane::Results => self
                .examine_follow_up(delivery)
                .map(|it| Ready::LookUp(Box::new(it))),
        }));
        let seat = match examined {
            Ok(Ok(_)) => self.spend(turn),
            Ok(Err(_)) | Err(_) => Seat {
                permit: turn.permit.take(),
                ..Seat::default()
            },
        };
        let dispatcher = Arc::clone(self);
        let mut work = turn.boxes.filled(async move {
            match examined {
                Ok(Ok(Ready::Send(ready))) => this.attempt(*ready, seat).await,
                Ok(Ok(Ready::LookUp(ready))) => this.follow_up(*ready, seat).await,
                Ok(Err(settled)) => {
                    let NoCall {
                        delivery,
                        disposition,
                        id,
                        beside,
                    } = *settled;
                    this.settle(delivery, disposition, &id, beside).await;
                    drop(seat);
                }
                // It was told where it happened; what follows is the same.
                Err(panic) => resume_unwind(panic),
            }
        });
        let boxes = Arc::clone(&turn.boxes);
        calls.spawn(async move {
            if dispatcher.to_the_end(&mut work, spare).await {
                boxes.keep(work);
            }
        });
    }

    /// Spends the token of a turn and counts the call; its permit goes with the call.
    fn spend(&self, turn: &mut Turn<'_, Q>) -> Seat {
        let token = turn.token.take();
        let flight = token.map(|token| turn.limiter.spend(token));
        self.account.pauses.spend_trial(turn.lane);
        self.count_call();
        Seat {
            permit: turn.permit.take(),
            flight,
            departure: Some(Departure::through(turn.fence.clone())),
        }
    }
}

/// How many messages of one priority a lane holds, in hand or not received yet.
fn prefetch(concurrency: u16) -> u16 {
    let least = concurrency.saturating_mul(2);
    concurrency
        .saturating_mul(PREFETCH_PER_PERMIT)
        .min(PREFETCH_ENOUGH.max(least))
}
