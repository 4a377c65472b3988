//! When a short batch may go out at once.
//!
//! After a rest the whole window is free. A batch that a few windows take goes in bursts, one for
//! each of them. A long backlog goes evenly from the start: in bursts it would be done no sooner,
//! and whatever is urgent would wait for the next one. The next owner must know of a burst before
//! the first call of it goes out, since it would leave too little room otherwise.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Dispatcher, QUEUE_ERROR_WAIT, sleep_until};
use crate::config::WindowConfig;
use crate::provider::Provider;
use crate::queue::{Before, Lease, Queue, Spends, Word};
use crate::quota::RateLimiter;

/// A longer backlog goes evenly.
const WINDOWS_MAX: u64 = 3;
/// How often is looked whether a batch still grows. What comes in for that long is a backlog.
const LOOKS_MAX: u32 = 20;
/// Between two looks: a hundredth of a window, within these.
const LOOK_EVERY: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_millis(100);

impl<Q: Queue, P: Provider> Dispatcher<Q, P> {
    pub(super) async fn allow_bursts(
        &self,
        lease: &Lease,
        sends: &RateLimiter,
        term: &CancellationToken,
    ) {
        let Some(limit) = sends.bursts() else {
            return;
        };
        let is_over = limit.window + limit.window / 10;
        let work = async {
            // Whether the next owner will know of bursts for certain.
            let mut is_known = lease.before == Before::Somebody(Spends::AtOnce);
            // While it may be told of them: when that is to end.
            let mut told = is_known.then(|| Instant::now() + is_over);
            loop {
                tokio::select! {
                    biased;
                    () = sleep_until(told) => {
                        let evenly = lease.tell(Word::Spends(Spends::Evenly)).await;
                        // Until it is told, the next owner leaves more room than it need.
                        is_known = false;
                        told = (!evenly).then(|| Instant::now() + QUEUE_ERROR_WAIT);
                    }
                    () = sends.eager() => {
                        if !self.is_batch(limit).await {
                            continue;
                        }
                        is_known = is_known || lease.tell(Word::Spends(Spends::AtOnce)).await;
                        if is_known {
                            self.bursts(limit, sends).await;
                        }
                        // Where it could not be told, it may stand there all the same.
                        told = Some(Instant::now() + is_over);
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = term.cancelled() => {}
            () = work => {}
        }
    }

    /// One burst after the other, until nothing waits, or too much, or what waits is held back.
    async fn bursts(&self, limit: WindowConfig, sends: &RateLimiter) {
        let mut more = true;
        while more {
            sends.burst();
            tokio::time::sleep(limit.window).await;
            more = sends.has_burst() && self.is_batch(limit).await;
        }
        sends.calm();
    }

    /// Whether what waits is a batch that has come in, and no backlog.
    async fn is_batch(&self, limit: WindowConfig) -> bool {
        let most = WINDOWS_MAX * u64::from(limit.limit);
        let look_every = (limit.window / 100).clamp(*LOOK_EVERY.start(), *LOOK_EVERY.end());
        let mut last = 0;
        for _ in 0..LOOKS_MAX {
            match self.queue.waiting(&self.account.name, most).await {
                Ok(waiting) if waiting == 0 || waiting > most => return false,
                Ok(waiting) if waiting <= last => return true,
                Ok(waiting) => last = waiting,
                Err(error) => {
                    tracing::debug!(account = %self.account.name, %error, "no burst");
                    return false;
                }
            }
            tokio::time::sleep(look_every).await;
        }
        false
    }
}
