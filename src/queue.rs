//! The queue: a contract of intentions, kept by three backends.
//!
//! How a promise is kept (confirmed publish, then ack; one transaction) is each backend's secret.
//! The contract, in words, is the doc of each method; in code it is `tests/it/contract.rs`, one
//! suite that runs over all of them.
//!
//! A *lane* is what a worker receives from. An account has two: `Sends` (three priorities, served
//! high before normal before low, with a share left to each) and `Results` (follow-ups). Waiting
//! copies are in no lane until they are due.

pub mod amqp;
mod announcement;
mod lease;
pub mod memory;
pub mod sqlite;
mod turn;

use std::future::Future;
use std::ops::ControlFlow;

use bytes::Bytes;
use jiff::Timestamp;

use crate::crypto::{TlsTrouble, TlsTroubleKind};
use crate::journal::{Entry, Record};
use crate::message::{AccountName, Priority};
use crate::outcome::Disposition;
use crate::story::Story;

pub use announcement::{Announcement, Kind};
pub use lease::{Before, DayCalls, Grant, Lease, Note, Spends, Teller, Validity, Word};
pub use turn::Turns;

/// What a worker receives from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Requests to send: all three priorities.
    Sends,
    /// Accepted sends whose final result is to be looked up.
    Results,
}

/// One hand-over of one message. Not `Clone`: `settle` consumes it.
///
/// Dropping it unsettled gives nothing back: the message stays in hand until the connection is lost
/// or the process ends; then it is handed out again. It may be settled after its intake is gone.
#[derive(Debug)]
pub struct Delivery {
    pub body: Bytes,
    /// The id beside the body (AMQP `message_id`), as the producer set it.
    pub message_id: Option<String>,
    pub account: AccountName,
    pub priority: Priority,
    pub lane: Lane,
    /// Empty for a message that no worker has settled before. `published_at` is filled in from
    /// what the queue knows. Boxed, since a delivery is handed on from step to step.
    pub story: Box<Story>,
    /// It was handed out before, and may have been worked on.
    pub redelivered: bool,
    /// The backend's own handle.
    pub(crate) tag: Tag,
}

/// A body and what stands beside it: what a producer hands to a queue.
#[derive(Clone, Debug)]
pub struct Parcel {
    pub body: Bytes,
    pub message_id: Option<String>,
    pub account: AccountName,
    pub priority: Priority,
    pub story: Story,
}

/// Names a delivery to its backend: which intake handed it out, and under which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Tag {
    pub(crate) intake: u64,
    pub(crate) number: u64,
}

/// How a lane is received from.
#[derive(Clone, Debug)]
pub struct IntakeOptions {
    /// So many messages of one priority are looked at, or held, before they are received.
    pub prefetch: u16,
    /// What is left to those that are less urgent.
    pub turns: Turns,
}

/// Where requests stand until they are sent.
pub trait Queue: Clone + Send + Sync + 'static {
    type Intake: Intake;

    /// Waits for the right to dispatch `account`, which at most one worker has at a time.
    ///
    /// # Errors
    /// [`QueueError::Taken`] where a second worker cannot stand by.
    fn lease(
        &self,
        account: &AccountName,
    ) -> impl Future<Output = Result<Lease, QueueError>> + Send;

    /// Begins to receive from a lane, holding at most `prefetch` messages that were not received
    /// yet. Dropping the intake ends it and gives those back. A backend may count those in hand
    /// too: ask for more than are worked on side by side.
    fn open(
        &self,
        account: &AccountName,
        lane: Lane,
        options: IntakeOptions,
    ) -> impl Future<Output = Result<Self::Intake, QueueError>> + Send;

    /// Carries a disposition out. When it returns `Ok`, the disposition survives a crash, and the
    /// message stands in exactly one place (or, when complete, in none).
    ///
    /// # Errors
    /// The message still stands where it was and is handed out again. [`QueueError::Lost`]: its
    /// connection ended meanwhile; nothing was published for it.
    fn settle(
        &self,
        delivery: Delivery,
        disposition: Disposition,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Accepts a request into its lane. `Ok` means durable.
    ///
    /// # Errors
    /// [`QueueError::Unroutable`] when no worker has ever declared that account;
    /// any other error means unknown: publish again with the same id.
    fn publish(&self, parcel: Parcel) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// How many messages stand where. Queue names are those of `queue.prefix` in every backend.
    fn depths(&self) -> impl Future<Output = Result<Vec<Depth>, QueueError>> + Send;

    /// How many requests of an account stand in its sends lane and are due, in hand or not. Those
    /// that are just coming in may be missed; of more than `most` it may tell any number above that.
    fn waiting(
        &self,
        account: &AccountName,
        most: u64,
    ) -> impl Future<Output = Result<u64, QueueError>> + Send;

    /// Whether anybody may listen for such outcomes: what nobody hears need not be said.
    fn hears(&self, _kind: Kind, _account: &AccountName) -> bool {
        false
    }

    /// Tells an outcome to whoever listens, where the backend has such a place. It never fails and
    /// never waits: what cannot be told now is not told.
    fn announce(&self, announcement: Announcement) {
        drop(announcement);
    }

    /// Keeps an entry of the journal, where the backend has such a place. It never fails and never
    /// waits: what cannot be kept is dropped and counted, and no mail is lost for it.
    fn note(&self, entry: Entry) {
        drop(entry);
    }

    /// How many entries of the journal this process had to drop.
    fn notes_dropped(&self) -> u64 {
        0
    }

    /// Whether the backend is reached right now.
    fn is_up(&self) -> bool;

    /// Closes connections in order; what is still in hand goes back.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// Hands deliveries out.
pub trait Intake: Send + 'static {
    /// The next delivery; waits while there is none, and through outages.
    ///
    /// Of the sends lane it is of the highest priority that waits, and of a lower one as often as
    /// its [`Turns`] leave it a share. Within a priority it is, of the first ones (at most
    /// `prefetch`), the one that expires first; those that never expire keep their order. No
    /// message is overtaken by more than `prefetch` later ones.
    ///
    /// Cancel-safe: a delivery is either returned or still to come.
    ///
    /// # Errors
    /// What the operator must know of; call again after a while.
    fn receive(&mut self) -> impl Future<Output = Result<Delivery, QueueError>> + Send;

    /// How many of each of [`Priority::ALL`] it has taken from the queue and not handed out, as of the last
    /// `receive`: no depth counts them.
    fn held(&self) -> [u64; Priority::ALL.len()] {
        Default::default()
    }

    /// Ends it like dropping it, but returns when what was not received is back in the queue, in
    /// order, and tells how many that were. It takes seconds at most: what is not back by then goes
    /// back when the connection ends.
    fn close(self) -> impl Future<Output = u64> + Send
    where
        Self: Sized,
    {
        drop(self);
        std::future::ready(0)
    }
}

/// The dead letters, for operators. Apart from [`Queue`]: dispatch never reads them.
pub trait DeadLetters: Send + Sync {
    /// Visits each dead letter that stands now, oldest first, holding a bounded number in memory,
    /// and carries out the fate that `choose` gives it. Killed anywhere and run again, nothing is
    /// lost; a letter under replay may stand in both places for a moment, under one id.
    ///
    /// # Errors
    /// What was not carried out still stands.
    fn sweep<F>(&self, choose: F) -> impl Future<Output = Result<Tally, QueueError>> + Send
    where
        F: FnMut(&DeadLetter) -> ControlFlow<(), Fate> + Send;
}

/// The journal, for operators. Apart from [`Queue`]: dispatch never reads it.
pub trait Traces: Send + Sync {
    /// Visits what is kept of the requests with these ids, and every gap, page by page and about
    /// oldest first, from `since` on. A page may hold nothing of theirs, and a record may come
    /// twice. Tells how far back the journal reaches; `None` when nothing is kept.
    ///
    /// # Errors
    /// What was visited before it counts.
    fn trace<F>(
        &self,
        ids: &[String],
        since: Option<Timestamp>,
        visit: F,
    ) -> impl Future<Output = Result<Option<Timestamp>, QueueError>> + Send
    where
        F: FnMut(Vec<Record>) + Send;

    /// Where the request with this id stands among those that are to be sent or followed up.
    fn find(&self, id: &str) -> impl Future<Output = Result<Sight, QueueError>> + Send;
}

/// What is seen of one request in the lanes.
#[derive(Clone, Debug)]
pub enum Sight {
    /// The backend cannot look into its lanes.
    Blind,
    Nowhere,
    Stands(Box<Standing>),
}

/// A request that is to be sent or followed up.
#[derive(Clone, Debug)]
pub struct Standing {
    pub account: AccountName,
    pub lane: Lane,
    pub priority: Priority,
    /// When it has to wait for a time, or had to: that time.
    pub due: Option<Timestamp>,
    /// Its `expiresAt`.
    pub expires: Option<Timestamp>,
    pub story: Story,
}

/// What a sweep does with one dead letter. `ControlFlow::Break` ends the sweep and keeps it.
#[derive(Debug)]
pub enum Fate {
    Keep,
    /// Published again as this parcel (confirmed), then removed.
    Replay(Box<Parcel>),
    Discard,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    pub visited: u64,
    pub replayed: u64,
    pub discarded: u64,
}

/// A request that never will be sent, unless an operator replays it.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub body: Bytes,
    pub message_id: Option<String>,
    /// `story.death` is `None` only for a message that something else put into the queue.
    pub story: Story,
}

/// How many messages stand in one queue.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Depth {
    /// `postrider.send.ACCOUNT.PRIORITY`, `postrider.results.ACCOUNT`, `postrider.delay`,
    /// `postrider.dead`.
    pub queue: String,
    pub messages: u64,
    /// When the oldest one was published, where the backend knows.
    pub oldest: Option<Timestamp>,
}

/// What can go wrong at a queue. No variant carries a secret: addresses are printed without
/// user and password.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueueError {
    #[error("the queue at {place} cannot be reached: {why}")]
    Unreachable { place: String, why: String },
    #[error("the queue at {place} refuses the credentials: {why}")]
    Refused { place: String, why: String },
    /// TLS did not come about: nothing was said to it.
    #[error("the queue at {place} {}", trouble.why)]
    Untrusted { place: String, trouble: TlsTrouble },
    /// It is reached, and short of memory or disk: it takes nothing until that is over. Whether it
    /// has what was under way is unknown.
    #[error("the queue at {place} takes nothing for now: {why}")]
    Blocked { place: String, why: String },
    /// An existing queue or exchange has other arguments than ours.
    #[error("{thing} exists with other arguments: {why}")]
    Mismatch { thing: String, why: String },
    #[error("{place} is in use by another worker")]
    Taken { place: String },
    #[error("no worker has declared {place}")]
    Unroutable { place: String },
    #[error("the delivery's connection ended; the queue hands it out again")]
    Lost,
    #[error("the queue did not take it: {why}")]
    NotTaken { why: String },
    #[error("the disk of {place} is full")]
    Full { place: String },
    #[error("{place} is damaged or no queue of ours: {why}")]
    Damaged { place: String, why: String },
    /// A newer Postrider has written it, in a form that this one does not know.
    #[error("{place} was written by a newer Postrider (form {found}; this one knows {known})")]
    Newer {
        place: String,
        found: i64,
        known: i64,
    },
}

impl QueueError {
    /// The next step for whoever reads the error.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => {
                "check queue.url and that the broker runs; nothing is lost meanwhile"
            }
            Self::Blocked { .. } => {
                "free memory or disk at the broker (`rabbitmqctl status` tells its alarms); nothing \
                 is lost meanwhile"
            }
            Self::Refused { .. } => "check user, password and virtual host in queue.url",
            Self::Untrusted { trouble, .. } => match trouble.kind {
                TlsTroubleKind::UnknownAuthority => {
                    "set queue.ca_file to the authority that signed it; if it should be trusted \
                     already, somebody may be on the way"
                }
                TlsTroubleKind::OtherName => {
                    "write the name that the certificate is for into queue.url"
                }
                TlsTroubleKind::BadCertificate => "give the broker a valid certificate",
                TlsTroubleKind::OurCertificate => {
                    "set queue.cert_file and queue.key_file to a certificate that the broker takes"
                }
                TlsTroubleKind::Protocol => {
                    "check the port in queue.url: RabbitMQ's for TLS is 5671"
                }
            },
            Self::Mismatch { .. } => {
                "delete the queue when it is empty, or set queue.prefix to another word"
            }
            Self::Taken { .. } => {
                "stop the other worker, or move to RabbitMQ, where workers stand by"
            }
            Self::Unroutable { .. } => {
                "start a worker that has this account, or correct the account's name"
            }
            Self::Lost => "nothing to do: it is handed out again",
            Self::NotTaken { .. } => "publish it again with the same id",
            Self::Full { .. } => {
                "free space; requests already accepted are safe and go on by themselves"
            }
            Self::Damaged { .. } => {
                "check that queue.url names the right file; restore it from a backup"
            }
            Self::Newer { .. } => "run the newer Postrider; the file was not touched",
        }
    }
}

impl IntakeOptions {
    /// So many of each priority, the most urgent always first.
    #[must_use]
    pub fn holding(prefetch: u16) -> Self {
        Self {
            prefetch,
            turns: Turns::new(0.0),
        }
    }
}

impl Lane {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sends => "sends",
            Self::Results => "results",
        }
    }
}

// === impl Depth ===

impl Depth {
    pub(crate) fn empty(queue: String) -> Self {
        Self {
            queue,
            messages: 0,
            oldest: None,
        }
    }

    pub(crate) fn add(&mut self, messages: u64, oldest: Option<Timestamp>) {
        self.messages += messages;
        self.oldest = self.oldest.into_iter().chain(oldest).min();
    }
}

// === impl DeadLetter ===

impl DeadLetter {
    /// The parcel with which it goes out again.
    #[must_use]
    pub fn replay(&self) -> Parcel {
        let account = self
            .story
            .death
            .as_ref()
            .and_then(|death| death.account.clone())
            .and_then(|name| AccountName::parse(name).ok())
            .unwrap_or_default();
        Parcel {
            body: self.body.clone(),
            message_id: self.message_id.clone(),
            account,
            priority: self.story.priority,
            story: self.story.replayed(),
        }
    }
}
