//! The names and arguments of every exchange and queue, and their declaration.
//!
//! All of it must be taken by RabbitMQ 3.10 and 4.x alike, and must be the same in every worker: a
//! broker refuses a second declaration with other arguments.

use std::time::Duration;

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use tokio::time::timeout;

use super::delay;
use super::error::Place;
use crate::journal::AGE_MAX;
use crate::message::{AccountName, Priority};
use crate::queue::{Lane, QueueError};

/// RabbitMQ 4 dead-letters after 20 returns when nothing is set, 3.10 never. A restart of a busy
/// worker is a return; this many are practically none on both. (`-1` means *at once* to 3.10.)
const DELIVERY_LIMIT: i32 = 1_000_000;
/// What the journal's stream holds at most, give or take a segment: some million steps.
const TRACE_BYTES_MAX: i64 = 1024 * 1024 * 1024;
/// A segment goes as a whole, and the newest one never: a small one keeps the bounds sharp.
const TRACE_SEGMENT_BYTES: i64 = 8 * 1024 * 1024;
/// One declaration. A quorum queue on a busy cluster takes seconds.
const DECLARE_TIMEOUT: Duration = Duration::from_secs(20);

/// What is declared, and under which names.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    prefix: String,
    accounts: Vec<AccountName>,
}

/// One queue that a worker declares.
struct QueueSpec {
    name: String,
    arguments: FieldTable,
}

// === impl Topology ===

impl Topology {
    pub(super) fn new(prefix: String, accounts: Vec<AccountName>) -> Self {
        Self { prefix, accounts }
    }

    /// Where producers publish.
    pub(super) fn exchange(&self) -> &str {
        &self.prefix
    }

    /// Where outcomes are told.
    pub(super) fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    pub(super) fn send(&self, account: &AccountName, priority: Priority) -> String {
        format!("{}.send.{account}.{priority}", self.prefix)
    }

    pub(super) fn results(&self, account: &AccountName) -> String {
        format!("{}.results.{account}", self.prefix)
    }

    /// The queue in which a message of this lane stands when it is due.
    pub(super) fn lane(&self, account: &AccountName, lane: Lane, priority: Priority) -> String {
        match lane {
            Lane::Sends => self.send(account, priority),
            Lane::Results => self.results(account),
        }
    }

    /// The queues of a lane, in the order in which they are served.
    pub(super) fn lanes(&self, account: &AccountName, lane: Lane) -> Vec<(String, Priority)> {
        match lane {
            Lane::Sends => Priority::ALL
                .map(|priority| (self.send(account, priority), priority))
                .into(),
            // The priority of a follow-up is in its story.
            Lane::Results => vec![(self.results(account), Priority::default())],
        }
    }

    pub(super) fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// Where the journal stands.
    pub(super) fn trace(&self) -> String {
        format!("{}.trace", self.prefix)
    }

    /// Declares the journal's stream, apart from the rest: nothing of the rest needs it.
    pub(super) async fn declare_trace(
        &self,
        channel: &Channel,
        place: &Place,
    ) -> Result<(), QueueError> {
        let spec = QueueSpec::stream(self.trace());
        Declarer { channel, place }.queue(spec).await
    }

    /// All levels together, as a depth is told.
    pub(super) fn delay(&self) -> String {
        format!("{}.delay", self.prefix)
    }

    /// Both the exchange and the queue of one level, which holds a message for 2^`level` seconds.
    pub(super) fn delay_level(&self, level: u32) -> String {
        format!("{}.delay.{level}", self.prefix)
    }

    /// The exchange at which every delay ends.
    pub(super) fn delay_due(&self) -> String {
        format!("{}.delay.due", self.prefix)
    }

    /// The exchange and the queue for what was due and had no lane any more: without it, 32 such
    /// messages would hold up the whole level.
    pub(super) fn delay_parked(&self) -> String {
        format!("{}.delay.parked", self.prefix)
    }

    pub(super) fn lease(&self, account: &AccountName) -> String {
        format!("{}.lease.{account}", self.prefix)
    }

    /// Which every worker consumes, so that they can be counted; nothing ever stands there.
    pub(super) fn workers(&self) -> String {
        format!("{}.workers", self.prefix)
    }

    /// Declares it, apart from the rest too: without it, the accounts are not spread.
    pub(super) async fn declare_workers(
        &self,
        channel: &Channel,
        place: &Place,
    ) -> Result<(), QueueError> {
        let spec = QueueSpec::plain(self.workers());
        Declarer { channel, place }.queue(spec).await
    }

    pub(super) fn accounts(&self) -> usize {
        self.accounts.len()
    }

    /// Declares what is missing and compares what is there.
    ///
    /// # Errors
    /// [`QueueError::Mismatch`] names the queue or exchange and the argument.
    pub(super) async fn declare(&self, channel: &Channel, place: &Place) -> Result<(), QueueError> {
        let declarer = Declarer { channel, place };
        for exchange in [self.exchange(), &self.events()] {
            (declarer.exchange(exchange, ExchangeKind::Topic, FieldTable::default())).await?;
        }
        for spec in self.queues() {
            declarer.queue(spec).await?;
        }
        for account in &self.accounts {
            for priority in Priority::ALL {
                let key = format!("send.{account}.{priority}");
                let queue = self.send(account, priority);
                declarer.bind(&queue, self.exchange(), &key).await?;
            }
        }
        if let Some(default) = self.accounts.iter().find(|a| **a == AccountName::default()) {
            let queue = self.send(default, Priority::default());
            declarer.bind(&queue, self.exchange(), "send").await?;
        }
        self.declare_delay(&declarer).await
    }

    async fn declare_delay(&self, declarer: &Declarer<'_>) -> Result<(), QueueError> {
        let parked = self.delay_parked();
        let none = FieldTable::default;
        (declarer.exchange(&parked, ExchangeKind::Fanout, none())).await?;
        declarer.bind(&parked, &parked, "").await?;
        let due = self.delay_due();
        let mut arguments = FieldTable::default();
        arguments.insert("alternate-exchange".into(), text(&parked));
        (declarer.exchange(&due, ExchangeKind::Topic, arguments)).await?;
        for account in &self.accounts {
            for (lane, priority) in (Priority::ALL.map(|priority| (Lane::Sends, priority)))
                .into_iter()
                .chain([(Lane::Results, Priority::default())])
            {
                let queue = self.lane(account, lane, priority);
                let pattern = delay::due_pattern(account, lane, priority);
                declarer.bind(&queue, &due, &pattern).await?;
            }
        }
        for level in 0..delay::LEVELS {
            let exchange = self.delay_level(level);
            (declarer.exchange(&exchange, ExchangeKind::Topic, none())).await?;
            let pattern = delay::level_pattern(level, true);
            declarer.bind(&exchange, &exchange, &pattern).await?;
            let next = self.delay_next(level);
            let pattern = delay::level_pattern(level, false);
            (declarer.bind_exchange(&next, &exchange, &pattern)).await?;
        }
        Ok(())
    }

    /// Where a message goes from a level.
    fn delay_next(&self, level: u32) -> String {
        match level.checked_sub(1) {
            Some(next) => self.delay_level(next),
            None => self.delay_due(),
        }
    }

    fn queues(&self) -> Vec<QueueSpec> {
        let mut queues = vec![
            QueueSpec::plain(self.dead()),
            QueueSpec::plain(self.delay_parked()),
        ];
        for account in &self.accounts {
            for priority in Priority::ALL {
                queues.push(QueueSpec::lane(self.send(account, priority), &self.dead()));
            }
            queues.push(QueueSpec::lane(self.results(account), &self.dead()));
            queues.push(QueueSpec::lease(self.lease(account)));
        }
        for level in 0..delay::LEVELS {
            let name = self.delay_level(level);
            queues.push(QueueSpec::delay(name, level, &self.delay_next(level)));
        }
        queues
    }

    /// Every queue whose depth is told, with the name under which it is told.
    pub(super) fn depths(&self) -> Vec<(String, String)> {
        let mut named: Vec<String> = Vec::new();
        for account in &self.accounts {
            named.extend(Priority::ALL.map(|priority| self.send(account, priority)));
            named.push(self.results(account));
        }
        named.extend([self.dead(), self.delay_parked()]);
        let own_name = named.into_iter().map(|queue| (queue.clone(), queue));
        let levels = (0..delay::LEVELS).map(|level| (self.delay_level(level), self.delay()));
        own_name.chain(levels).collect()
    }
}

// === impl QueueSpec ===

impl QueueSpec {
    fn plain(name: String) -> Self {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), text("quorum"));
        arguments.insert(
            "x-delivery-limit".into(),
            AMQPValue::LongInt(DELIVERY_LIMIT),
        );
        Self { name, arguments }
    }

    /// A lane also catches what an operator rejects by hand: a dead letter rather than nothing.
    fn lane(name: String, dead: &str) -> Self {
        let mut spec = Self::plain(name);
        (spec.arguments).insert("x-dead-letter-exchange".into(), text(""));
        (spec.arguments).insert("x-dead-letter-routing-key".into(), text(dead));
        spec
    }

    fn lease(name: String) -> Self {
        let mut spec = Self::plain(name);
        let yes = AMQPValue::Boolean(true);
        (spec.arguments).insert("x-single-active-consumer".into(), yes);
        spec
    }

    /// The oldest segments of a stream go when it is too large or they are too old.
    fn stream(name: String) -> Self {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), text("stream"));
        let seconds = AGE_MAX.as_secs();
        arguments.insert("x-max-age".into(), text(&format!("{seconds}s")));
        let bytes = AMQPValue::LongLongInt(TRACE_BYTES_MAX);
        arguments.insert("x-max-length-bytes".into(), bytes);
        let bytes = AMQPValue::LongLongInt(TRACE_SEGMENT_BYTES);
        arguments.insert("x-stream-max-segment-size-bytes".into(), bytes);
        Self { name, arguments }
    }

    /// Moves each message on after 2^`level` seconds: at least once, which needs reject-publish.
    fn delay(name: String, level: u32, next: &str) -> Self {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), text("quorum"));
        let ttl_ms = 1_000 * (1_i32 << level);
        arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(ttl_ms));
        arguments.insert("x-dead-letter-exchange".into(), text(next));
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        arguments.insert("x-overflow".into(), text("reject-publish"));
        Self { name, arguments }
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

// === declaring ===

struct Declarer<'a> {
    channel: &'a Channel,
    place: &'a Place,
}

impl Declarer<'_> {
    async fn exchange(
        &self,
        name: &str,
        kind: ExchangeKind,
        arguments: FieldTable,
    ) -> Result<(), QueueError> {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let declared = (self.channel).exchange_declare(name.into(), kind, options, arguments);
        self.check(&format!("exchange {name}"), declared).await
    }

    async fn queue(&self, spec: QueueSpec) -> Result<(), QueueError> {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let name = spec.name.as_str().into();
        let declared = (self.channel).queue_declare(name, options, spec.arguments);
        let declared = async { declared.await.map(|_| ()) };
        self.check(&format!("queue {}", spec.name), declared).await
    }

    async fn bind(&self, queue: &str, exchange: &str, pattern: &str) -> Result<(), QueueError> {
        let bound = self.channel.queue_bind(
            queue.into(),
            exchange.into(),
            pattern.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        self.check(&format!("queue {queue}"), bound).await
    }

    async fn bind_exchange(&self, to: &str, from: &str, pattern: &str) -> Result<(), QueueError> {
        let bound = self.channel.exchange_bind(
            to.into(),
            from.into(),
            pattern.into(),
            ExchangeBindOptions::default(),
            FieldTable::default(),
        );
        self.check(&format!("exchange {to}"), bound).await
    }

    async fn check(
        &self,
        thing: &str,
        declared: impl Future<Output = lapin::Result<()>>,
    ) -> Result<(), QueueError> {
        match timeout(DECLARE_TIMEOUT, declared).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.place.of_declaring(thing, &error)),
            Err(_) => Err(self.place.unreachable(format!("no answer about {thing}"))),
        }
    }
}
