//! What goes from owner to owner: an id, and behind it how the owner spends its windows.

use lapin::BasicProperties;
use lapin::message::Delivery;
use uuid::Uuid;

use super::DEFAULT_EXCHANGE;
use super::link::Connections;
use super::properties::PERSISTENT;
use crate::queue::{QueueError, Spends};

/// Behind the id: the owner may spend a window at once.
const AT_ONCE: u8 = 1;

/// The token of a lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    id: Uuid,
    spends: Spends,
}

impl Token {
    pub(super) fn new(spends: Spends) -> Self {
        Self {
            id: Uuid::new_v4(),
            spends,
        }
    }

    /// Whether it is this one that was handed out.
    pub(super) fn is(self, token: &Delivery) -> bool {
        token.data.starts_with(self.id.as_bytes())
    }

    /// How the owner spends its windows that had this one last.
    pub(super) fn note(token: &Delivery) -> Spends {
        if token.data.get(size_of::<Uuid>()) == Some(&AT_ONCE) {
            Spends::AtOnce
        } else {
            Spends::Evenly
        }
    }

    pub(super) async fn publish(
        self,
        connections: &Connections,
        queue: &str,
    ) -> Result<(), QueueError> {
        let mut body = self.id.as_bytes().to_vec();
        if self.spends == Spends::AtOnce {
            body.push(AT_ONCE);
        }
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        (connections.publisher)
            .publish_confirmed(DEFAULT_EXCHANGE, queue, &body, properties)
            .await
    }
}
