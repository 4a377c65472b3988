//! What is in hand: the channels over which deliveries came, and each delivery until it is settled.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use lapin::types::DeliveryTag;
use lapin::{Acker, BasicProperties, Channel};

use super::link::Connections;
use super::open_channel::OpenChannel;
use crate::queue::{QueueError, Tag};

/// The channels over which deliveries came that may still be settled.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    last_number: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Session>>>,
}

/// One channel. It closes when its last `Arc` is dropped, and a channel that closes returns what
/// was not settled: so it stays in [`Sessions`] until its consumers are gone *and* nothing that
/// came over it is in hand.
#[derive(Debug)]
pub(super) struct Session {
    number: u64,
    channel: OpenChannel,
    connections: Arc<Connections>,
    hand: Mutex<Hand>,
}

#[derive(Debug, Default)]
struct Hand {
    held: BTreeMap<DeliveryTag, Held>,
    /// The consumers are gone: nothing is added any more.
    retired: bool,
}

/// What is kept of a delivery until it is settled.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) properties: BasicProperties,
    pub(super) acker: Acker,
    /// Where it counts as standing.
    pub(super) queue: Arc<str>,
    pub(super) published_at: Option<Timestamp>,
}

// === impl Session ===

impl Session {
    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came over it is in the queue again, or soon will be.
    pub(super) fn is_gone(&self) -> bool {
        self.connections.is_gone() || !self.channel.status().connected()
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Keeps what settling needs, and names it.
    pub(super) fn hold(&self, number: DeliveryTag, held: Held) -> Tag {
        self.hand().held.insert(number, held);
        Tag {
            intake: self.number,
            number,
        }
    }

    /// Takes out what was held and never received.
    pub(super) fn forget(&self, tag: Tag) {
        self.hand().held.remove(&tag.number);
    }
}

// === impl Sessions ===

impl Sessions {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session of a new channel. Nothing keeps it open yet.
    pub(super) fn begin(
        &self,
        channel: OpenChannel,
        connections: Arc<Connections>,
    ) -> Arc<Session> {
        Arc::new(Session {
            number: self.last_number.fetch_add(1, Ordering::Relaxed) + 1,
            channel,
            connections,
            hand: Mutex::default(),
        })
    }

    /// Keeps a session open until it has retired and its hand is empty.
    pub(super) fn keep(&self, session: &Arc<Session>) {
        let mut open = self.open();
        // Of those whose connection ended, nothing can be settled.
        open.retain(|_, session| !session.is_gone());
        open.insert(session.number, Arc::clone(session));
    }

    /// Its consumers are gone.
    pub(super) fn retire(&self, session: &Session) {
        let mut hand = session.hand();
        hand.retired = true;
        let empty = hand.held.is_empty() || session.is_gone();
        drop(hand);
        if empty {
            self.open().remove(&session.number);
        }
    }

    /// Takes a delivery out of the hand, to settle it.
    ///
    /// # Errors
    /// [`QueueError::Lost`] when its channel or connection ended, or when it was settled before.
    pub(super) fn take(&self, tag: Tag) -> Result<(Arc<Session>, Held), QueueError> {
        let found = self.open().get(&tag.intake).cloned();
        let session = found.ok_or(QueueError::Lost)?;
        let mut hand = session.hand();
        let held = hand.held.remove(&tag.number).ok_or(QueueError::Lost)?;
        let last = hand.retired && hand.held.is_empty();
        drop(hand);
        if last {
            self.open().remove(&session.number);
        }
        if session.is_gone() {
            return Err(QueueError::Lost);
        }
        Ok((session, held))
    }

    /// How many deliveries of each queue were prefetched or are in hand, and the oldest one's
    /// publish time.
    pub(super) fn held(&self) -> BTreeMap<Arc<str>, (u64, Option<Timestamp>)> {
        let mut found: BTreeMap<Arc<str>, (u64, Option<Timestamp>)> = BTreeMap::new();
        let open = self.open();
        for session in open.values().filter(|session| !session.is_gone()) {
            for held in session.hand().held.values() {
                let (count, oldest) = found.entry(Arc::clone(&held.queue)).or_default();
                *count += 1;
                *oldest = [*oldest, held.published_at].into_iter().flatten().min();
            }
        }
        found
    }
}
