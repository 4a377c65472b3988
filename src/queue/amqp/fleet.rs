//! How the accounts are spread over the workers.
//!
//! Every worker consumes one queue in which nothing ever stands. So the broker knows how many there
//! are, and forgets one that dies or falls silent by its own rules. (The line before an account does
//! not tell: of a single active consumer's queue, the broker counts the active one alone.)
//!
//! A worker that is handed an account and has its share passes it on. One that holds more than its
//! share, since another one joined, hands accounts over, one after another. No worker ends with more
//! than the accounts divided by the workers, rounded up. One that cannot count the others takes
//! itself for the only one, and so takes whatever it is handed.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use lapin::Consumer;
use lapin::options::BasicCancelOptions;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::channel;
use super::link::Connections;
use super::open_channel::OpenChannel;
use super::topology::Topology;
use crate::message::AccountName;
use crate::queue::{Grant, QueueError};

/// How often the workers are counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// The hand-overs of a spread are drawn out over this time, at most: each next owner begins with a
/// window that it takes for spent.
const SPREAD_TIME: Duration = Duration::from_secs(20);
/// Between two hand-overs, be the accounts ever so many.
const HAND_OVER_EVERY_MIN: Duration = Duration::from_millis(50);
/// However many workers are counted: a token that circles is an account that stands still.
const PASSES_MAX: usize = 8;
/// A queue that is missing or forbidden may be mended.
const TRY_AGAIN_AFTER: Duration = Duration::from_mins(1);
/// For the broker to strike a worker that ends off the roll: the others count a moment later.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Nothing comes.
const PREFETCH: u16 = 1;
const HINT: &str = "let the worker's user configure, write and read the queue PREFIX.workers, or \
                    delete it when its arguments differ; mail goes on meanwhile";

/// This worker's part in the spread.
#[derive(Debug)]
pub(super) struct Fleet {
    topology: Topology,
    state: Mutex<State>,
    /// Its entry, from when it stands in every line; held while the broker is asked.
    roll: tokio::sync::Mutex<Option<Roll>>,
}

#[derive(Debug, Default)]
struct State {
    /// Over which it stands in line.
    connections: Weak<Connections>,
    standing: BTreeSet<AccountName>,
    /// Ends its part, on these connections.
    leaves: CancellationToken,
    /// The newest last.
    held: Vec<Held>,
}

/// A lease that this worker holds.
#[derive(Debug)]
struct Held {
    grant: Arc<Grant>,
    /// It was taken beyond the share since nobody else would have it, by so many workers: it would
    /// only come back.
    kept_among: Option<usize>,
}

/// One consumer of the queue that tells how many workers there are.
#[derive(Debug)]
struct Roll {
    connections: Arc<Connections>,
    channel: OpenChannel,
    consumer: Consumer,
}

/// Counts one lease as held, until it is dropped.
#[derive(Debug)]
pub(super) struct Holding {
    grant: Arc<Grant>,
    fleet: Arc<Fleet>,
}

/// How many of the accounts a worker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    workers: usize,
    /// Before it passes any on.
    at_first: usize,
    at_most: usize,
}

// === impl Share ===

impl Share {
    fn new(accounts: usize, workers: usize) -> Self {
        let workers = workers.max(1);
        Self {
            workers,
            at_first: (accounts / workers).max(1),
            at_most: accounts.div_ceil(workers),
        }
    }

    /// Whether a worker that holds so many takes one more, which it passed on so often in a row:
    /// at last it does, or a token that nobody wants would circle for ever.
    fn takes(self, held: usize, passes: usize) -> bool {
        if passes >= self.workers.min(PASSES_MAX) {
            return true;
        }
        let limit = if passes == 0 {
            self.at_first
        } else {
            self.at_most
        };
        held < limit
    }
}

// === impl Fleet ===

impl Fleet {
    pub(super) fn new(topology: Topology) -> Self {
        Self {
            topology,
            state: Mutex::default(),
            roll: tokio::sync::Mutex::default(),
        }
    }

    /// This worker stands in an account's line. It is counted as soon as it stands in all of them:
    /// what others hand over before would find nobody who takes it.
    pub(super) fn stands(self: &Arc<Self>, connections: &Arc<Connections>, account: &AccountName) {
        let mut state = self.lock();
        if !std::ptr::eq(state.connections.as_ptr(), Arc::as_ptr(connections)) {
            state.connections = Arc::downgrade(connections);
            state.standing.clear();
        }
        if state.standing.insert(account.clone())
            && state.standing.len() == self.topology.accounts()
        {
            state.leaves = CancellationToken::new();
            let leaves = state.leaves.clone();
            let (fleet, connections) = (Arc::clone(self), Arc::clone(connections));
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = leaves.cancelled() => {}
                    () = connections.gone() => {}
                    () = fleet.take_part(&connections) => {}
                }
            });
        }
    }

    /// A holding for a lease that this worker is handed, unless it passes it on, which it did so often
    /// in a row.
    pub(super) async fn holding(
        self: &Arc<Self>,
        grant: Arc<Grant>,
        passes: usize,
    ) -> Option<Holding> {
        // Now, and not a second ago: the worker that had it may be gone.
        let workers = self.count().await.unwrap_or(1);
        let share = Share::new(self.topology.accounts(), workers);
        let mut state = self.lock();
        let held = state.held.len();
        share.takes(held, passes).then(|| {
            state.held.push(Held {
                grant: Arc::clone(&grant),
                kept_among: (held >= share.at_most).then_some(workers),
            });
            Holding {
                grant,
                fleet: Arc::clone(self),
            }
        })
    }

    /// Counts the workers, and hands over what is too much for this one.
    async fn take_part(&self, connections: &Arc<Connections>) {
        let mut told = false;
        loop {
            let Err(error) = self.spread(connections).await;
            if told || matches!(error, QueueError::Unreachable { .. }) {
                tracing::debug!(%error, "the workers cannot be counted");
            } else {
                tracing::warn!(%error, hint = HINT, "the workers cannot be counted: this one takes every account that it is handed");
                told = true;
            }
            *self.roll.lock().await = None;
            sleep(TRY_AGAIN_AFTER).await;
        }
    }

    /// # Errors
    /// The workers cannot be counted any more.
    async fn spread(&self, connections: &Arc<Connections>) -> Result<Infallible, QueueError> {
        *self.roll.lock().await = Some(Roll::sign(connections, &self.topology).await?);
        let accounts = u32::try_from(self.topology.accounts()).unwrap_or(u32::MAX);
        let pause = (SPREAD_TIME / accounts.max(1)).clamp(HAND_OVER_EVERY_MIN, COUNT_EVERY);
        loop {
            let workers = self.count().await?;
            if let Some(grant) = self.recall(workers) {
                grant.unused().await;
                sleep(pause).await;
            } else {
                sleep(COUNT_EVERY).await;
            }
        }
    }

    /// Asks back the newest lease that is too much among so many workers. The newest, so that a
    /// worker that was away for a moment gets its own ones again.
    fn recall(&self, workers: usize) -> Option<Arc<Grant>> {
        let share = Share::new(self.topology.accounts(), workers);
        let state = self.lock();
        let kept = state.held.iter().filter(|held| !held.grant.is_recalled());
        if kept.clone().count() <= share.at_most {
            return None;
        }
        let mut newest_first = kept.rev();
        let held = newest_first.find(|held| held.kept_among != Some(workers))?;
        held.grant.recall();
        Some(Arc::clone(&held.grant))
    }

    /// How many workers there are, this one too.
    async fn count(&self) -> Result<usize, QueueError> {
        let queue = self.topology.workers();
        let roll = self.roll.lock().await;
        let Some(roll) = &*roll else {
            return Err(QueueError::Unroutable { place: queue });
        };
        let found = channel::look_at(&roll.channel, roll.connections.place(), &queue).await?;
        Ok(usize::try_from(found.consumer_count()).unwrap_or(usize::MAX))
    }

    /// This worker ends: what it lets go of now, the others share without it.
    async fn leave(&self) {
        {
            let mut state = self.lock();
            state.leaves.cancel();
            state.standing.clear();
        }
        let strike_off = async {
            if let Some(roll) = self.roll.lock().await.take() {
                roll.strike_off().await;
            }
        };
        if timeout(LEAVE_TIMEOUT, strike_off).await.is_err() {
            tracing::debug!("the others still count this worker");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Roll ===

impl Roll {
    async fn sign(connections: &Arc<Connections>, topology: &Topology) -> Result<Self, QueueError> {
        let channel = channel::open(connections, PREFETCH).await?;
        let place = connections.place();
        topology.declare_workers(&channel, place).await?;
        let consumer = channel::consume(&channel, place, &topology.workers()).await?;
        channel.keep(&consumer);
        Ok(Self {
            connections: Arc::clone(connections),
            channel,
            consumer,
        })
    }

    /// Returns when the broker counts it no more: closing the channel would not say.
    async fn strike_off(&self) {
        let options = BasicCancelOptions::default();
        let cancelled = self.channel.basic_cancel(self.consumer.tag(), options);
        if let Err(error) = cancelled.await {
            tracing::debug!(%error, "leaving the roll of workers");
        }
    }
}

// === impl Holding ===

impl Holding {
    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The lease is let go. Where nobody asked for it, the worker ends.
    pub(super) async fn let_go(&self) {
        if !self.grant.is_recalled() {
            self.fleet.leave().await;
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut state = self.fleet.lock();
        state
            .held
            .retain(|held| !Arc::ptr_eq(&held.grant, &self.grant));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_one_account_has_one_owner() {
        for (accounts, workers, at_first, at_most) in [
            (1, 1, 1, 1),
            (1, 5, 1, 1),
            (4, 3, 1, 2),
            (50, 2, 25, 25),
            (50, 3, 16, 17),
            // Not to be counted.
            (50, 0, 50, 50),
        ] {
            let share = Share::new(accounts, workers);
            assert_eq!((share.at_first, share.at_most), (at_first, at_most));
        }
    }

    #[test]
    fn a_worker_with_its_share_passes_on_but_not_for_ever() {
        let share = Share::new(50, 3);
        assert!(share.takes(15, 0));
        assert!(!share.takes(16, 0), "another one may have less");
        assert!(share.takes(16, 1), "nobody had");
        assert!(!share.takes(17, 1) && !share.takes(17, 2));
        assert!(share.takes(17, 3), "nobody wants it");
        assert!(Share::new(50, 40).takes(2, PASSES_MAX));
        let alone = Share::new(50, 0);
        assert!((0..50).all(|held| alone.takes(held, 0)));
    }

    /// The whole game, without a broker: each token goes round until somebody takes it, and each
    /// worker gives up what is too much. However it begins, it comes to rest, with nobody above his
    /// share.
    #[test]
    fn any_fleet_comes_to_rest_evenly() {
        for accounts in 1..=60_usize {
            for workers in 1..=7_usize {
                for loaded in 0..workers {
                    let mut held = vec![0; workers];
                    held[loaded] = accounts;
                    let share = Share::new(accounts, workers);
                    let mut hand_overs = 0;
                    while let Some(owner) = held.iter().position(|held| *held > share.at_most) {
                        held[owner] -= 1;
                        let line = (1..).map(|step| (owner + step, (step - 1) / workers));
                        let mut handed = line.map(|(place, passes)| (place % workers, passes));
                        let taker = handed.find(|(next, passes)| share.takes(held[*next], *passes));
                        held[taker.unwrap().0] += 1;
                        hand_overs += 1;
                        assert!(hand_overs <= accounts, "{held:?}");
                    }
                    assert_eq!(held.iter().sum::<usize>(), accounts);
                    if accounts >= workers {
                        assert!(held.iter().all(|held| *held > 0), "{held:?}");
                    }
                }
            }
        }
    }
}
