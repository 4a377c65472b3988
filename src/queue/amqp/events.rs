//! Outcomes, told on the exchange `PREFIX.events`: a courtesy that never holds anything up.
//!
//! They go over a channel of their own, beside the publisher's. It lives as long as its connection:
//! what happens while the link is down is not told. Where nobody has bound a queue for them they are
//! not sent at all, but for one now and then that asks the broker: each would cost as much as the
//! acknowledgement of its request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::BasicProperties;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::open_channel::OpenChannel;
use super::{error, properties};
use crate::message::{AccountName, MessageId};
use crate::outcome::DeadReason;
use crate::queue::{Announcement, Kind};

/// Announcements that wait while the broker takes none, in about 500 KiB; more are dropped. An
/// account at 20 sends a second fills it in half a minute.
const WAITING_MAX: usize = 1_000;
/// When the broker is asked again whether anybody listens.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// What confirms is the queue of whoever listens, which may take its time.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// Where announcements go in.
#[derive(Debug)]
pub(super) struct Events {
    line: mpsc::Sender<Announcement>,
    dropped: Arc<AtomicU64>,
    audiences: Arc<Audiences>,
    /// Nothing is told after what waits now.
    end: CancellationToken,
    telling: TaskTracker,
}

/// Tells them over one channel.
struct Teller {
    channel: OpenChannel,
    exchange: String,
    dropped: Arc<AtomicU64>,
    audiences: Arc<Audiences>,
}

/// Who listens for which kind, by account.
#[derive(Debug, Default)]
struct Audiences(Mutex<BTreeMap<(Kind, AccountName), Audience>>);

/// Whether anybody has bound a queue for outcomes of a kind, and when the broker said so.
#[derive(Debug)]
struct Audience {
    listens: bool,
    answered_at: Instant,
}

/// The JSON of one announcement. HubSpot's `message` is left out: it may hold an address.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    kind: &'a str,
    id: &'a str,
    /// What HubSpot saw, where that is not the id.
    #[serde(skip_serializing_if = "Option::is_none")]
    send_id: Option<String>,
    account: &'a str,
    priority: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    at: jiff::Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    send_result: Option<&'a str>,
}

// === impl Events ===

impl Events {
    /// Tells over this channel, in the background, until it is closed or nobody has anything to
    /// say any more.
    pub(super) fn over(channel: OpenChannel, exchange: String) -> Self {
        let (line, waiting) = mpsc::channel(WAITING_MAX);
        let (dropped, end) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let audiences = Arc::<Audiences>::default();
        let teller = Teller {
            channel,
            exchange,
            dropped: Arc::clone(&dropped),
            audiences: Arc::clone(&audiences),
        };
        let telling = TaskTracker::new();
        telling.spawn(teller.run(waiting, end.clone()));
        telling.close();
        Self {
            line,
            dropped,
            audiences,
            end,
            telling,
        }
    }

    /// Whether anybody may listen: it is so unless the broker has just said otherwise.
    pub(super) fn hears(&self, kind: Kind, account: &AccountName) -> bool {
        self.audiences.of(kind, account).unwrap_or(true)
    }

    /// Returns when what waits now is told; nothing is told after that.
    pub(super) async fn finish(&self) {
        self.end.cancel();
        self.telling.wait().await;
    }

    /// Never waits: when the line is full or closed, the announcement is dropped.
    pub(super) fn announce(&self, announcement: Announcement) {
        if self.line.try_send(announcement).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// === impl Teller ===

impl Teller {
    async fn run(mut self, mut waiting: mpsc::Receiver<Announcement>, end: CancellationToken) {
        // No time-out: it waits while the broker is short of memory or disk, and ends at the
        // latest with the connection, which has heartbeats.
        let told = async {
            let options = ConfirmSelectOptions::default();
            self.channel.confirm_select(options).await?;
            loop {
                let next = tokio::select! {
                    biased;
                    next = waiting.recv() => next,
                    () = end.cancelled() => None,
                };
                let Some(announcement) = next else {
                    return Ok(());
                };
                let dropped = self.dropped.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    tracing::debug!(dropped, "outcomes were not told: the broker took none");
                }
                self.tell(&announcement, &end).await?;
            }
        };
        if let Err(error) = told.await {
            let (exchange, why) = (&self.exchange, error::why(&error));
            tracing::debug!(exchange, why, "outcomes are not told over this connection");
        }
    }

    /// Tells one, unless nobody has listened for its like a moment ago.
    async fn tell(
        &mut self,
        announcement: &Announcement,
        end: &CancellationToken,
    ) -> lapin::Result<()> {
        let (kind, account) = (announcement.kind, &announcement.account);
        let known = self.audiences.of(kind, account);
        if known == Some(false) {
            return Ok(());
        }
        let key = format!("{}.{account}", kind.label());
        if known == Some(true) {
            return self.publish(announcement, &key, false).await;
        }
        self.publish(announcement, &key, true).await?;
        let returned = tokio::select! {
            biased;
            () = end.cancelled() => return Ok(()),
            returned = timeout(ANSWER_TIME_MAX, self.channel.wait_for_confirms()) => returned,
        };
        let is_back = |message: &BasicReturnMessage| message.routing_key.as_str() == key;
        let listens = match returned {
            Ok(returned) => !returned?.iter().any(is_back),
            // It stands in line for a queue that takes nothing now: somebody's.
            Err(_) => true,
        };
        self.audiences.answered(kind, account, listens);
        Ok(())
    }

    /// What is `mandatory` comes back where nobody listens.
    async fn publish(
        &self,
        announcement: &Announcement,
        key: &str,
        mandatory: bool,
    ) -> lapin::Result<()> {
        let properties = BasicProperties::default().with_content_type("application/json".into());
        // An id of more than 255 bytes is in the body alone.
        let id = Some(announcement.id.clone());
        let properties = properties::with_id(properties.clone(), id).unwrap_or(properties);
        let options = BasicPublishOptions {
            mandatory,
            ..BasicPublishOptions::default()
        };
        let body = body(announcement);
        let exchange = self.exchange.as_str().into();
        let publishing =
            (self.channel).basic_publish(exchange, key.into(), options, &body, properties);
        publishing.await.map(drop)
    }
}

// === impl Audiences ===

impl Audiences {
    /// Whether anybody listens, where the broker has said so a moment ago.
    fn of(&self, kind: Kind, account: &AccountName) -> Option<bool> {
        let audiences = self.lock();
        let audience = audiences.get(&(kind, account.clone()))?;
        (audience.answered_at.elapsed() < ASK_AGAIN).then_some(audience.listens)
    }

    fn answered(&self, kind: Kind, account: &AccountName, listens: bool) {
        let audience = Audience {
            listens,
            answered_at: Instant::now(),
        };
        self.lock().insert((kind, account.clone()), audience);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Kind, AccountName), Audience>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn body(announcement: &Announcement) -> Vec<u8> {
    let Announcement { id, words, .. } = announcement;
    let derived = (announcement.generation > 1).then(|| MessageId::parse(id).ok());
    let body = Body {
        kind: announcement.kind.label(),
        id,
        send_id: derived
            .flatten()
            .map(|id| id.generation(announcement.generation)),
        account: announcement.account.as_str(),
        priority: announcement.priority.as_str(),
        email_id: announcement.email_id,
        reason: announcement.reason.map(DeadReason::label),
        at: announcement.at,
        status: words.status,
        category: words.category.as_deref(),
        correlation_id: words.correlation_id.as_deref(),
        send_result: words.send_result.as_deref(),
    };
    // Plain data: it always can be written.
    serde_json::to_vec(&body).unwrap_or_default()
}
