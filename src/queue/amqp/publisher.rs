//! Publishing: one function, and one outcome that counts as done.

use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::error::{self, Place};
use crate::queue::QueueError;

/// A confirm takes milliseconds; during a memory or disk alarm it takes until the alarm is over.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// The one channel that publishes. Confirms are pipelined on it: callers may run side by side, and
/// a second channel would make it no faster.
#[derive(Debug)]
pub(super) struct Publisher {
    channel: Channel,
    place: Place,
    /// Cancelled when the channel was closed: nothing can be published over it again.
    gone: CancellationToken,
}

impl Publisher {
    pub(super) fn new(channel: Channel, place: Place, gone: CancellationToken) -> Self {
        Self {
            channel,
            place,
            gone,
        }
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
            (self.channel)
                .basic_publish(exchange, key, options, body, properties)
                .await?
                .await
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
            Ok(Err(error)) => {
                if !self.channel.status().connected() {
                    self.gone.cancel();
                }
                if error::is_not_found(&error) {
                    return Err(unroutable());
                }
                Err(self.place.of(&error))
            }
            Err(_) => Err(self.place.unreachable(format!(
                "no confirm within {} s; the broker may be short of disk or memory",
                CONFIRM_TIMEOUT.as_secs()
            ))),
        }
    }
}
