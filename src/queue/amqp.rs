//! RabbitMQ, 3.10 to 4.x.
//!
//! | file | what it knows |
//! |---|---|
//! | `topology` | names and arguments; declaration |
//! | `address` | where the broker is, just now |
//! | `tls` | whom it must be, and as whom we come |
//! | `link` | the two connections, and making new ones |
//! | `channel` | what is asked of an open channel, with time-outs |
//! | `open_channel` | closing one, in order |
//! | `mend` | messages that lapin could not read, made readable |
//! | `mended` | the stream from which lapin reads them |
//! | `publisher` | one function: published, and confirmed |
//! | `events` | outcomes, told to whoever listens |
//! | `intake` | the consumers of a lane |
//! | `session` | what is in hand |
//! | `delay` | waiting, by binary levels |
//! | `dead` | the sweep over the dead letters |
//! | `trace` | the journal, in a stream |
//! | `lease` | who owns an account |
//! | `token` | what the owner of an account has, and the next one gets |
//! | `fleet` | how the accounts are spread over the workers |
//! | `properties` | what stands beside a body |
//! | `error` | what lapin's errors mean |
//!
//! Everything of ours goes to a queue by name, over the default exchange: a confirm then says that
//! it stands in *that* queue. Over the topic exchange, somebody else's binding would do. So the
//! user needs rights on `PREFIX` and everything that begins with it, and on `amq.default`.

mod address;
mod channel;
mod dead;
mod delay;
mod error;
mod events;
mod fleet;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod hostile;
mod intake;
mod lease;
mod link;
mod mend;
mod mended;
mod open_channel;
mod properties;
mod publisher;
mod session;
mod tls;
mod token;
mod topology;
mod trace;

pub use address::Address;
pub use intake::AmqpIntake;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lapin::BasicProperties;

use self::delay::Precision;
use self::fleet::Fleet;
use self::link::{Link, Role};
use self::session::{Held, Session, Sessions};
use self::topology::Topology;
use self::trace::Stream;
use super::{Announcement, Delivery, Depth, IntakeOptions, Kind, Lane, Lease, Queue, QueueError};
use crate::clock::{self, Clock};
use crate::journal::{Entry, Journal};
use crate::message::AccountName;
use crate::outcome::Disposition;
use crate::queue::Parcel;
use crate::story::Story;

/// How long a publish waits for a connection before it fails.
const LINK_WAIT: Duration = Duration::from_secs(10);
/// AMQP's own exchange: its routing key is a queue's name.
const DEFAULT_EXCHANGE: &str = "";

/// What an [`AmqpQueue`] is made of.
#[derive(Clone, Debug)]
pub struct AmqpOptions {
    /// Asked for at each new connection.
    pub url: Address,
    /// First word of every exchange and queue name.
    pub prefix: String,
    /// Whose queues are declared (by a worker) and whose depths are told.
    pub accounts: Vec<AccountName>,
    pub clock: Clock,
}

/// A handle; clones share two connections.
#[derive(Clone, Debug)]
pub struct AmqpQueue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    topology: Topology,
    link: Arc<Link>,
    fleet: Arc<Fleet>,
    sessions: Sessions,
    journal: Journal,
}

// === impl AmqpQueue ===

impl AmqpQueue {
    /// For a worker: declares every exchange and queue, now and at each new connection.
    ///
    /// Comes back after the first attempt. A broker that cannot be reached is no error: it is
    /// tried for ever, in the background, and `receive` waits.
    ///
    /// # Errors
    /// [`QueueError::Refused`], [`QueueError::Untrusted`] and [`QueueError::Mismatch`] at the first
    /// attempt. Refused or untrusted at a later
    /// one, it tries on: the password may be changed just then.
    pub async fn start(options: AmqpOptions) -> Result<Self, QueueError> {
        Self::new(options, Role::Worker).await
    }

    /// For a command: declares nothing, and fails when the broker cannot be reached.
    ///
    /// # Errors
    /// [`QueueError::Unreachable`] within about 20 s, [`QueueError::Refused`],
    /// [`QueueError::Untrusted`].
    pub async fn connect(options: AmqpOptions) -> Result<Self, QueueError> {
        Self::new(options, Role::Command).await
    }

    async fn new(options: AmqpOptions, role: Role) -> Result<Self, QueueError> {
        let topology = Topology::new(options.prefix, options.accounts);
        let link = Arc::new(Link::start(options.url, role, topology.clone()).await?);
        let stream = Stream::new(Arc::clone(&link), role, topology.clone());
        let fleet = Arc::new(Fleet::new(topology.clone()));
        Ok(Self {
            shared: Arc::new(Shared {
                clock: options.clock,
                topology,
                link,
                fleet,
                sessions: Sessions::default(),
                journal: Journal::start(stream, role == Role::Worker),
            }),
        })
    }
}

impl Queue for AmqpQueue {
    type Intake = AmqpIntake;

    async fn lease(&self, account: &AccountName) -> Result<Lease, QueueError> {
        lease::wait(&self.shared, account).await
    }

    async fn open(
        &self,
        account: &AccountName,
        lane: Lane,
        options: IntakeOptions,
    ) -> Result<AmqpIntake, QueueError> {
        let shared = Arc::clone(&self.shared);
        Ok(AmqpIntake::open(shared, account.clone(), lane, options))
    }

    async fn settle(&self, delivery: Delivery, disposition: Disposition) -> Result<(), QueueError> {
        let (session, held) = self.shared.sessions.take(delivery.tag)?;
        let settling = Settling {
            shared: &self.shared,
            session: &session,
            held: &held,
            delivery: &delivery,
        };
        match settling.publish(disposition).await {
            Ok(Then::Ack) => channel::ack(&held.acker).await,
            Ok(Then::GiveBack) => {
                channel::give_back(&held.acker).await;
                Ok(())
            }
            Err(error) => {
                channel::give_back(&held.acker).await;
                Err(error)
            }
        }
    }

    async fn publish(&self, parcel: Parcel) -> Result<(), QueueError> {
        let mut story = parcel.story;
        story.priority = parcel.priority;
        (story.published_at).get_or_insert_with(|| self.shared.clock.now());
        let properties = properties::with_id(properties::first(&story), parcel.message_id)?;
        let queue = self.shared.topology.send(&parcel.account, parcel.priority);
        let connections = self.shared.link.connections_within(LINK_WAIT).await?;
        (connections.publisher)
            .publish_confirmed(DEFAULT_EXCHANGE, &queue, &parcel.body, properties)
            .await
    }

    async fn depths(&self) -> Result<Vec<Depth>, QueueError> {
        let connections = self.shared.link.connections_within(LINK_WAIT).await?;
        let held = self.shared.sessions.held();
        let mut asking = connections.channel().await?;
        let mut depths: Vec<Depth> = Vec::new();
        for (queue, told_as) in self.shared.topology.depths() {
            let ready = match channel::look_at(&asking, connections.place(), &queue).await {
                Ok(queue) => u64::from(queue.message_count()),
                Err(QueueError::Unroutable { .. }) => {
                    asking = connections.channel().await?;
                    0
                }
                Err(error) => return Err(error),
            };
            let (in_hand, oldest) = held.get(queue.as_str()).copied().unwrap_or_default();
            match depths.iter_mut().find(|depth| depth.queue == told_as) {
                Some(depth) => depth.messages += ready,
                None => depths.push(Depth {
                    queue: told_as,
                    messages: ready + in_hand,
                    oldest,
                }),
            }
        }
        // Nothing ever stands there unless somebody deleted a lane.
        let parked = self.shared.topology.delay_parked();
        depths.retain(|depth| depth.queue != parked || depth.messages > 0);
        Ok(depths)
    }

    async fn waiting(&self, account: &AccountName, _most: u64) -> Result<u64, QueueError> {
        let connections = self.shared.link.connections_within(LINK_WAIT).await?;
        let asking = connections.channel().await?;
        let held = self.shared.sessions.held();
        let mut waiting = 0;
        for (queue, _) in self.shared.topology.lanes(account, Lane::Sends) {
            let found = channel::look_at(&asking, connections.place(), &queue).await?;
            let (in_hand, _) = held.get(queue.as_str()).copied().unwrap_or_default();
            waiting += u64::from(found.message_count()) + in_hand;
        }
        Ok(waiting)
    }

    fn hears(&self, kind: Kind, account: &AccountName) -> bool {
        let connections = self.shared.link.up();
        connections.is_some_and(|connections| connections.events.hears(kind, account))
    }

    fn announce(&self, announcement: Announcement) {
        if let Some(connections) = self.shared.link.up() {
            connections.events.announce(announcement);
        }
    }

    fn note(&self, entry: Entry) {
        self.shared.journal.note(entry);
    }

    fn notes_dropped(&self) -> u64 {
        self.shared.journal.dropped()
    }

    fn is_up(&self) -> bool {
        self.shared.link.up().is_some()
    }

    async fn close(&self) {
        self.shared.journal.close().await;
        self.shared.link.close().await;
    }
}

// === settling ===

/// One delivery on its way out of the hand: first published where it goes, then acknowledged.
struct Settling<'a> {
    shared: &'a Shared,
    session: &'a Session,
    held: &'a Held,
    delivery: &'a Delivery,
}

/// What remains to be done with the delivery itself.
enum Then {
    Ack,
    GiveBack,
}

impl Settling<'_> {
    async fn publish(&self, disposition: Disposition) -> Result<Then, QueueError> {
        let Delivery { account, lane, .. } = self.delivery;
        match disposition {
            Disposition::Complete => {}
            Disposition::Release => return Ok(Then::GiveBack),
            Disposition::FollowUp { at, story } => {
                (self.wait(Lane::Results, *story, at, Precision::Exact)).await?;
            }
            Disposition::Retry { at, story } => {
                self.wait(Lane::Sends, *story, at, Precision::Rough).await?;
            }
            Disposition::Snooze { until, mut story } => {
                story.due_at = Some(until);
                self.wait(*lane, *story, until, Precision::Exact).await?;
            }
            Disposition::Route {
                account,
                priority,
                mut story,
                otherwise,
            } => {
                story.priority = priority;
                let queue = self.shared.topology.send(&account, priority);
                match self.to_queue(&queue, &story).await {
                    Err(QueueError::Unroutable { .. }) => {
                        story.death = Some(*otherwise);
                        self.bury(*story).await?;
                    }
                    routed => routed?,
                }
            }
            Disposition::DeadLetter { mut story } => {
                if let Some(death) = &mut story.death {
                    let account = || account.as_str().to_owned();
                    death.account.get_or_insert_with(account);
                }
                self.bury(*story).await?;
            }
        }
        Ok(Then::Ack)
    }

    /// Into the lane at `due`, over the delay levels when that is not yet. What is due later than
    /// they reach comes back before: by `story.due_at` it is sent round again.
    async fn wait(
        &self,
        lane: Lane,
        mut story: Story,
        due: Timestamp,
        precision: Precision,
    ) -> Result<(), QueueError> {
        let topology = &self.shared.topology;
        let account = &self.delivery.account;
        let priority = story.priority;
        let now = self.shared.clock.now();
        let seconds = delay::seconds(now, due, precision);
        if seconds == 0 {
            let queue = topology.lane(account, lane, priority);
            return self.to_queue(&queue, &story).await;
        }
        if clock::until(now, due) > delay::DELAY_MAX {
            story.due_at = Some(due);
        }
        let exchange = topology.delay_level(delay::entry_level(seconds));
        let key = delay::routing_key(seconds, account, lane, priority);
        self.to(&exchange, &key, self.properties(&story)).await
    }

    async fn bury(&self, story: Story) -> Result<(), QueueError> {
        let queue = self.shared.topology.dead();
        self.to_queue(&queue, &story).await
    }

    async fn to_queue(&self, queue: &str, story: &Story) -> Result<(), QueueError> {
        self.to(DEFAULT_EXCHANGE, queue, self.properties(story))
            .await
    }

    async fn to(
        &self,
        exchange: &str,
        key: &str,
        properties: BasicProperties,
    ) -> Result<(), QueueError> {
        let publisher = &self.session.connections().publisher;
        (publisher.publish_confirmed(exchange, key, &self.delivery.body, properties)).await
    }

    fn properties(&self, story: &Story) -> BasicProperties {
        properties::again(&self.held.properties, story)
    }
}
