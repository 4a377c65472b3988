//! The journal in a stream: `PREFIX.trace`, a page of JSON Lines a message.
//!
//! It has a channel of its own on the publishing connection. While the broker takes nothing, for
//! want of memory or disk, it waits like all that is published, in a buffer that ends; nothing
//! waits for it. It is declared apart from the rest: where that is refused, mail goes on.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use lapin::message::Delivery as Message;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Consumer};
use tokio::time::{Instant, timeout, timeout_at};

use super::link::{Connections, Link, Role};
use super::open_channel::OpenChannel;
use super::topology::Topology;
use super::{AmqpQueue, DEFAULT_EXCHANGE, LINK_WAIT, channel, error, properties};
use crate::journal::{Keeper, Record};
use crate::queue::{QueueError, Sight, Traces};

/// A confirm takes milliseconds; during a memory or disk alarm it takes until the alarm is over.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// Pages on their way to a reader, of 150 KB each at most: a stream needs such a bound.
const WINDOW: u16 = 50;
/// How long a stream may be without a replica at the broker's node that is asked.
const REPLICA_MAX: Duration = Duration::from_secs(3);
/// How long a stream may take to hand its first page out. What is silent for longer is empty.
const FIRST_PAGE_MAX: Duration = Duration::from_secs(5);
/// How long no page comes at the end of a stream. A reader on the way waits [`STILL_MAX`].
const QUIET: Duration = Duration::from_millis(300);
const STILL_MAX: Duration = Duration::from_secs(20);
/// What a busy worker writes while the end is read need not all be read.
const END_MAX: Duration = Duration::from_secs(2);

/// Keeps pages in the stream.
pub(super) struct Stream {
    link: Arc<Link>,
    role: Role,
    topology: Topology,
    /// Confirms, and belongs to a connection that may be gone.
    channel: Option<OpenChannel>,
}

// === impl Stream ===

impl Stream {
    pub(super) fn new(link: Arc<Link>, role: Role, topology: Topology) -> Self {
        Self {
            link,
            role,
            topology,
            channel: None,
        }
    }

    /// A channel that confirms, to a stream that is declared.
    async fn open(&self) -> Result<OpenChannel, QueueError> {
        let Some(connections) = self.link.up() else {
            return Err(QueueError::Lost);
        };
        let place = connections.place();
        let channel = connections.journal_channel().await?;
        if self.role == Role::Worker {
            (self.topology.declare_trace(&channel, place)).await?;
        }
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        error::within(channel::ANSWER_TIMEOUT, place, confirms).await?;
        Ok(channel)
    }

    async fn publish(&self, channel: &Channel, page: &[Record]) -> Result<(), String> {
        let lines: Vec<_> = page.iter().map(Record::line).collect();
        let properties = BasicProperties::default()
            .with_content_type("application/x-ndjson".into())
            .with_delivery_mode(properties::PERSISTENT);
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let (exchange, stream) = (DEFAULT_EXCHANGE.into(), self.topology.trace());
        let body = lines.join("\n");
        let published = channel.basic_publish(
            exchange,
            stream.as_str().into(),
            options,
            body.as_bytes(),
            properties,
        );
        let confirmed = async { published.await?.await };
        match timeout(CONFIRM_TIMEOUT, confirmed).await {
            Ok(Ok(Confirmation::Ack(None))) => Ok(()),
            Ok(Ok(Confirmation::Ack(Some(_)))) => Err(format!("there is no stream {stream}")),
            Ok(Ok(Confirmation::Nack(_) | Confirmation::NotRequested)) => {
                Err(format!("the broker refused it for {stream}"))
            }
            Ok(Err(error)) => Err(error::why(&error)),
            Err(_) => Err("no confirm; the broker may be short of disk or memory".into()),
        }
    }
}

impl Keeper for Stream {
    async fn keep(&mut self, page: &[Record]) -> Result<(), String> {
        let channel = match self.channel.take() {
            Some(channel) if channel.status().connected() => channel,
            Some(_) | None => self.open().await.map_err(|error| error.to_string())?,
        };
        if !page.is_empty() {
            self.publish(&channel, page).await?;
        }
        // Only one that works is used again: else the stream is declared anew.
        self.channel = Some(channel);
        Ok(())
    }
}

// === reading ===

impl Traces for AmqpQueue {
    async fn trace<F>(
        &self,
        ids: &[String],
        since: Option<Timestamp>,
        mut visit: F,
    ) -> Result<Option<Timestamp>, QueueError>
    where
        F: FnMut(Vec<Record>) + Send,
    {
        let (link, stream) = (&self.shared.link, self.shared.topology.trace());
        let newest = Reader::open(link, &stream, text("last")).await;
        let Some(mut newest) = absent_is_none(newest)? else {
            return Ok(None);
        };
        let Some(last) = newest.next(FIRST_PAGE_MAX).await? else {
            return Ok(None);
        };
        let last = offset(&last);
        drop(newest);
        let from = match since {
            // Seconds. The stream begins with the chunk in which that time lies.
            Some(at) => AMQPValue::Timestamp(u64::try_from(at.as_second()).unwrap_or_default()),
            None => text("first"),
        };
        let mut reader = Reader::open(link, &stream, from).await?;
        let mut oldest = None;
        let mut end = None;
        while end.is_none_or(|end| Instant::now() < end) {
            let wait = if end.is_some() { QUIET } else { STILL_MAX };
            let Some(message) = reader.next(wait).await? else {
                break;
            };
            let lines = String::from_utf8_lossy(&message.data);
            if oldest.is_none() {
                oldest = lines.lines().find_map(Record::read).map(|first| first.at());
            }
            let records = lines.lines().filter(|line| may_tell_of(line, ids));
            let records = records.filter_map(Record::read);
            let told = records.filter(|record| tells_of(record, ids, since));
            visit(told.collect());
            if offset(&message) >= last && end.is_none() {
                end = Some(Instant::now() + END_MAX);
            }
        }
        Ok(oldest)
    }

    /// A broker shows nobody what stands in a queue without handing it out.
    async fn find(&self, _id: &str) -> Result<Sight, QueueError> {
        Ok(Sight::Blind)
    }
}

/// A look at the bytes: parsing every line of a long stream would take minutes.
fn may_tell_of(line: &str, ids: &[String]) -> bool {
    let named = |id: &String| {
        let quoted = serde_json::to_string(id).unwrap_or_default();
        line.contains(&quoted)
    };
    line.starts_with("{\"gap\"") || ids.iter().any(named)
}

fn tells_of(record: &Record, ids: &[String], since: Option<Timestamp>) -> bool {
    let named = |id: &str| ids.iter().any(|wanted| wanted == id);
    record.id().is_none_or(named) && since.is_none_or(|since| record.at() >= since)
}

/// Pages from some place in a stream on.
struct Reader {
    connections: Arc<Connections>,
    /// Closes when it is dropped, and the consumer with it.
    _channel: OpenChannel,
    consumer: Consumer,
}

impl Reader {
    /// A stream that was declared a moment ago has no replica yet; 3.10 may even close the
    /// connection over the question.
    async fn open(link: &Link, stream: &str, from: AMQPValue) -> Result<Self, QueueError> {
        let deadline = Instant::now() + REPLICA_MAX;
        loop {
            let connections = link.connections_within(LINK_WAIT).await?;
            match Self::open_now(connections, stream, from.clone()).await {
                Err(QueueError::Unreachable { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(QUIET).await;
                }
                opened => return opened,
            }
        }
    }

    async fn open_now(
        connections: Arc<Connections>,
        stream: &str,
        from: AMQPValue,
    ) -> Result<Self, QueueError> {
        let channel = channel::open(&connections, WINDOW).await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), from);
        let options = BasicConsumeOptions::default();
        let consuming = channel.basic_consume(stream.into(), "".into(), options, arguments);
        let place = connections.place();
        let consumer = match timeout(channel::ANSWER_TIMEOUT, consuming).await {
            // The same code for one that exists and is down, which may be a matter of seconds.
            Ok(Err(error)) if error::is_not_found(&error) && !error::is_down(&error) => {
                return Err(QueueError::Unroutable {
                    place: stream.into(),
                });
            }
            Ok(consumer) => consumer.map_err(|error| place.of(&error))?,
            Err(_) => return Err(place.unreachable(format!("no answer about {stream}"))),
        };
        Ok(Self {
            connections,
            _channel: channel,
            consumer,
        })
    }

    /// The next page; `None` when none comes in that time.
    async fn next(&mut self, limit: Duration) -> Result<Option<Message>, QueueError> {
        match timeout_at(Instant::now() + limit, self.consumer.next()).await {
            Ok(Some(Ok(message))) => {
                // Makes room for another one; a stream forgets nothing for it.
                let acked = message.acker.ack(BasicAckOptions::default());
                let place = self.connections.place();
                error::within(channel::ANSWER_TIMEOUT, place, acked).await?;
                Ok(Some(message))
            }
            Ok(Some(Err(error))) => Err(self.connections.place().of(&error)),
            Ok(None) => Err(QueueError::Lost),
            Err(_) => Ok(None),
        }
    }
}

fn absent_is_none<T>(opened: Result<T, QueueError>) -> Result<Option<T>, QueueError> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(QueueError::Unroutable { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where in its stream a message stands.
fn offset(message: &Message) -> i64 {
    let headers = message.properties.headers().as_ref();
    let offset = headers.and_then(|headers| headers.inner().get("x-stream-offset"));
    match offset {
        Some(AMQPValue::LongLongInt(offset)) => *offset,
        _ => 0,
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}
