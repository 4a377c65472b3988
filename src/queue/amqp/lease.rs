//! The lease of an account: a queue with one active consumer, and in it a token.
//!
//! Whoever holds the token owns the account. When the owner's connection ends, the broker hands the
//! token to the next consumer within milliseconds; when the owner falls silent, after two to three
//! heartbeats. A frozen owner does not notice by itself: so its lease ends two heartbeats after the
//! last question that the broker answered, and it sends nothing past that.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::{BasicProperties, Consumer};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use uuid::Uuid;

use super::link::{Connections, HEARTBEAT};
use super::open_channel::OpenChannel;
use super::properties::PERSISTENT;
use super::{DEFAULT_EXCHANGE, Shared, channel};
use crate::message::AccountName;
use crate::queue::{Before, Grant, Lease, QueueError, Spends, Teller, Validity};

/// How often the broker is asked, which renews the lease.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The broker gives a silent owner up after two heartbeats at the soonest.
const VALID_FOR: Duration = HEARTBEAT.saturating_mul(2).saturating_sub(MARGIN);
/// For a call that was let go just before the end to reach HubSpot.
const MARGIN: Duration = Duration::from_secs(2);
/// A token is replaced long before the broker closes the channel for an unacknowledged delivery,
/// which it does after 30 minutes.
const RENEW_TOKEN_EVERY: Duration = Duration::from_mins(5);
/// The token in hand, the one that replaces it, and a few that crashes left over.
const PREFETCH: u16 = 8;
/// After this long without the token, another worker has it.
const STANDING_BY_AFTER: Duration = Duration::from_secs(2);
/// Before a lease is asked for again, on a link that stands.
const PAUSE: Duration = Duration::from_millis(500);

/// One worker that stands in line for the token.
struct Candidate {
    connections: Arc<Connections>,
    channel: OpenChannel,
    consumer: Consumer,
    queue: String,
    /// The token that this worker made, where there was none.
    made: Option<Uuid>,
}

/// The worker that has it.
struct Owner {
    connections: Arc<Connections>,
    channel: OpenChannel,
    consumer: Consumer,
    queue: String,
    token: Delivery,
    grant: Grant,
}

/// Waits for the lease, through outages.
///
/// # Errors
/// Only what waiting does not heal.
pub(super) async fn wait(shared: &Shared, account: &AccountName) -> Result<Lease, QueueError> {
    loop {
        let connections = shared.link.connections().await?;
        let queue = shared.topology.lease(account);
        let got = async {
            let candidate = Candidate::stand(Arc::clone(&connections), queue).await?;
            candidate.token(account).await
        };
        match got.await {
            Ok((owner, lease)) => {
                let farewells = connections.farewells().clone();
                farewells.spawn(owner.keep(account.clone()));
                return Ok(lease);
            }
            Err(error @ QueueError::Unreachable { .. }) => {
                tracing::debug!(%account, %error, "standing in line again");
            }
            // Somebody deleted the queue: new connections declare it anew.
            Err(QueueError::Unroutable { .. }) => connections.give_up(),
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

// === impl Candidate ===

impl Candidate {
    async fn stand(connections: Arc<Connections>, queue: String) -> Result<Self, QueueError> {
        let channel = channel::open(&connections, PREFETCH).await?;
        let found = channel::look_at(&channel, connections.place(), &queue).await?;
        // With a consumer there is a token too, in its hand. Two workers that start in one moment
        // may make two: whoever gets both keeps one.
        let made = if found.message_count() == 0 && found.consumer_count() == 0 {
            let token = Uuid::new_v4();
            publish_token(&connections, &queue, token).await?;
            Some(token)
        } else {
            None
        };
        let consumer = channel::consume(&channel, connections.place(), &queue).await?;
        Ok(Self {
            connections,
            channel,
            consumer,
            queue,
            made,
        })
    }

    /// Waits for the token, for as long as another worker lives.
    async fn token(mut self, account: &AccountName) -> Result<(Owner, Lease), QueueError> {
        let soon = timeout(STANDING_BY_AFTER, self.consumer.next()).await;
        let first = if let Ok(first) = soon {
            first
        } else {
            tracing::info!(%account, "another worker owns the account; standing by");
            self.consumer.next().await
        };
        let Some(Ok(token)) = first else {
            return Err(self.connections.place().unreachable("the line was closed"));
        };
        // A token that was in no hand before, and that we made: nobody owned the account.
        let fresh = !token.redelivered && self.made.is_some_and(|id| token.data == id.as_bytes());
        let asked_at = Instant::now();
        channel::look_at(&self.channel, self.connections.place(), &self.queue).await?;
        let before = if fresh {
            Before::Nobody
        } else {
            Before::Somebody(Spends::Evenly)
        };
        let validity = Validity::Until(asked_at + VALID_FOR);
        let (grant, lease) = Grant::new(validity, before, Teller::none());
        let owner = Owner {
            connections: self.connections,
            channel: self.channel,
            consumer: self.consumer,
            queue: self.queue,
            token,
            grant,
        };
        Ok((owner, lease))
    }
}

// === impl Owner ===

impl Owner {
    /// Renews the lease until it is lost, or until nobody has it any more. Then the channel is
    /// closed, and with it the token goes to the next in line.
    async fn keep(mut self, account: AccountName) {
        if let Err(error) = self.renew().await {
            tracing::debug!(%account, %error, "the lease is lost");
        }
        self.grant.set(Validity::Lost);
    }

    async fn renew(&mut self) -> Result<(), QueueError> {
        let connections = Arc::clone(&self.connections);
        let mut ask_now = interval(ASK_EVERY);
        ask_now.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut token_made_at = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = connections.gone() => return Ok(()),
                () = self.grant.unused() => return Ok(()),
                token = self.consumer.next() => {
                    let Some(Ok(token)) = token else { return Ok(()) };
                    // The newest is kept. The queue is never without: it was published before
                    // the old one is taken away.
                    let old = std::mem::replace(&mut self.token, token);
                    channel::ack(&old.acker).await?;
                }
                _ = ask_now.tick() => {
                    let asked_at = Instant::now();
                    // An answer proves that the broker takes our connection for alive.
                    channel::look_at(&self.channel, connections.place(), &self.queue).await?;
                    self.grant.set(Validity::Until(asked_at + VALID_FOR));
                    if token_made_at.elapsed() > RENEW_TOKEN_EVERY {
                        token_made_at = Instant::now();
                        // Beside us: during an alarm a publish waits for half a minute, and the
                        // lease must be renewed meanwhile. One that fails is made up for by the
                        // next, long before the broker loses patience.
                        tokio::spawn(replace_token(Arc::clone(&connections), self.queue.clone()));
                    }
                }
            }
        }
    }
}

async fn replace_token(connections: Arc<Connections>, queue: String) {
    if let Err(error) = publish_token(&connections, &queue, Uuid::new_v4()).await {
        tracing::debug!(%error, "the lease's token is not replaced yet");
    }
}

async fn publish_token(
    connections: &Connections,
    queue: &str,
    token: Uuid,
) -> Result<(), QueueError> {
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    (connections.publisher)
        .publish_confirmed(DEFAULT_EXCHANGE, queue, token.as_bytes(), properties)
        .await
}
