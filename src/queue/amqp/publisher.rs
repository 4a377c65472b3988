//! Publishing: one function, and one outcome that counts as done.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Confirmation, Connection};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::{self, Place};
use super::open_channel::OpenChannel;
use crate::queue::QueueError;

/// A confirm takes milliseconds; during a memory or disk alarm it takes until the alarm is over.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// Publishes under way at a time: enough to hide the wait for a confirm.
const CHANNELS_MAX: usize = 64;

/// The connection that publishes, with one publish at a time on each of its channels.
///
/// Callers may run side by side, but never on one channel: a message that no queue takes comes back
/// apart from its confirm, and lapin hands it to whichever publish of that channel is confirmed
/// next. The wrong one would be told that it stands nowhere, and worse, the right one that it does.
#[derive(Debug)]
pub(super) struct Publisher {
    connection: Connection,
    place: Place,
    /// Channels on which nothing is under way.
    free: Mutex<Vec<OpenChannel>>,
    turns: Semaphore,
    /// Cancelled when a channel was closed: something that we publish to is missing.
    gone: CancellationToken,
    /// Those whose channels were dropped.
    farewells: TaskTracker,
    /// Why the broker takes nothing for now.
    blocked: Mutex<Option<String>>,
}

impl Publisher {
    pub(super) fn new(
        connection: Connection,
        place: Place,
        gone: CancellationToken,
        farewells: TaskTracker,
    ) -> Self {
        Self {
            connection,
            place,
            free: Mutex::default(),
            turns: Semaphore::new(CHANNELS_MAX),
            gone,
            farewells,
            blocked: Mutex::default(),
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The broker takes nothing for now, and why; or it takes again.
    pub(super) fn block(&self, why: Option<String>) {
        *self.blocked.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// No confirm came in time.
    fn unconfirmed(&self) -> QueueError {
        let blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        match blocked.clone() {
            Some(why) => QueueError::Blocked {
                place: self.place.to_string(),
                why,
            },
            None => self
                .place
                .unreachable(format!("no confirm within {} s", CONFIRM_TIMEOUT.as_secs())),
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<OpenChannel>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel on which nothing is under way.
    async fn channel(&self) -> lapin::Result<OpenChannel> {
        let free = self.free().pop();
        if let Some(channel) = free {
            return Ok(channel);
        }
        let channel = self.connection.create_channel().await?;
        let channel = OpenChannel::new(channel, &self.farewells);
        (channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Publishes and waits until the broker has it on disk, in a queue.
    ///
    /// # Errors
    /// [`QueueError::Unroutable`] and [`QueueError::NotTaken`]: it stands nowhere. Any other:
    /// unknown, publish it again under the same id.
    pub(super) async fn publish_confirmed(
        &self,
        exchange: &str,
        routing_key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<(), QueueError> {
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let (exchange, key) = (exchange.into(), routing_key.into());
        let publishing = async {
            // Held to the end; the semaphore is never closed.
            let _turn = self.turns.acquire().await;
            let channel = self.channel().await?;
            let confirming = channel.basic_publish(exchange, key, options, body, properties);
            let confirmed = async { confirming.await?.await }.await;
            // Only what is settled goes back: a channel that is dropped is closed, and with it go
            // the confirm and the return that nobody waits for any more.
            if confirmed.is_ok() {
                self.free().push(channel);
            } else if !channel.status().connected() {
                self.gone.cancel();
            }
            confirmed
        };
        let unroutable = || QueueError::Unroutable {
            place: routing_key.into(),
        };
        match timeout(CONFIRM_TIMEOUT, publishing).await {
            Ok(Ok(Confirmation::Ack(None))) => Ok(()),
            Ok(Ok(Confirmation::Ack(Some(_)))) => Err(unroutable()),
            Ok(Ok(Confirmation::Nack(_))) => Err(QueueError::NotTaken {
                why: format!("the broker refused it for {routing_key}"),
            }),
            // Cannot be: confirms were asked for when the channel was opened.
            Ok(Ok(Confirmation::NotRequested)) => Err(QueueError::NotTaken {
                why: "the broker does not confirm".into(),
            }),
            Ok(Err(error)) if error::is_not_found(&error) => Err(unroutable()),
            Ok(Err(error)) => Err(self.place.of(&error)),
            Err(_) => Err(self.unconfirmed()),
        }
    }
}
