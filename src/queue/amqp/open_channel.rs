//! A channel that is closed when it is dropped, and whose closing can be waited for.
//!
//! lapin closes a dropped channel too, but in its own time: when the connection is closed just then,
//! it takes that for an error of the connection, and does not hear the broker's good-bye. So a
//! connection is closed when those whose channels were dropped have ended.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lapin::{Channel, Consumer};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// The broker answers within milliseconds; the connection's end closes what is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct OpenChannel {
    channel: Channel,
    /// Of its connection.
    farewells: TaskTracker,
    /// Kept until it is closed: one that is dropped before cancels itself, and lapin takes a cancel
    /// on a channel that closes for the end of the connection.
    consumers: Mutex<Vec<Consumer>>,
}

impl OpenChannel {
    pub(super) fn new(channel: Channel, farewells: &TaskTracker) -> Self {
        Self {
            channel,
            farewells: farewells.clone(),
            consumers: Mutex::default(),
        }
    }

    /// A consumer that ends with the channel.
    pub(super) fn keep(&self, consumer: &Consumer) {
        let consumers = self.consumers.lock();
        let mut consumers = consumers.unwrap_or_else(PoisonError::into_inner);
        consumers.push(consumer.clone());
    }
}

impl Deref for OpenChannel {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.channel
    }
}

impl Drop for OpenChannel {
    fn drop(&mut self) {
        let (true, Ok(runtime)) = (self.channel.status().connected(), Handle::try_current()) else {
            return;
        };
        let channel = self.channel.clone();
        let consumers = std::mem::take(&mut self.consumers);
        let closing = async move {
            let closing = channel.close(200, "bye".into());
            if !matches!(timeout(CLOSE_TIMEOUT, closing).await, Ok(Ok(()))) {
                tracing::debug!("a channel was not closed in order");
            }
            drop(consumers);
        };
        self.farewells.spawn_on(closing, &runtime);
    }
}
