//! Fills a queue, over Postrider's own durable publish.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use postrider::clock::Clock;
use postrider::message::{AccountName, Priority};
use postrider::queue::Parcel;
use postrider::queue::Queue;
use postrider::queue::amqp::{AmqpOptions, AmqpQueue};
use postrider::queue::sqlite::{Mode, SqliteQueue};
use postrider::story::Story;
use secrecy::ExposeSecret;
use tempfile::TempDir;
use tokio::time::{Instant, interval};

use crate::broker::Broker;

pub const PREFIX: &str = "bench";
/// Confirms under way, or changes that share SQLite's transactions.
const PUBLISHING: usize = 1_000;

/// Where requests wait for the contestants.
pub struct Backlog<'a> {
    /// What `queue.url` is set to.
    pub url: String,
    queue: Kind,
    trace: Trace<'a>,
    published: AtomicU64,
}

/// What can be made to refuse the journal.
enum Trace<'a> {
    Stream(&'a Broker),
    File(PathBuf),
}

enum Kind {
    Amqp(AmqpQueue),
    Sqlite {
        queue: SqliteQueue,
        _folder: TempDir,
    },
}

/// When a producer began to publish a request, and when it knew that it is kept.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    pub began: Timestamp,
    pub confirmed: Timestamp,
}

impl<'a> Backlog<'a> {
    /// Declares everything, as a worker does.
    pub async fn amqp(broker: &'a Broker) -> Self {
        let queue = AmqpQueue::start(AmqpOptions {
            url: broker.url().into(),
            prefix: PREFIX.into(),
            accounts: vec![AccountName::default()],
            clock: Clock::system(),
        });
        let url = broker.url().expose_secret().to_owned();
        Self::of(url, Kind::Amqp(queue.await.unwrap()), Trace::Stream(broker))
    }

    /// On a disk, not in memory: its syncs are what is measured.
    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path().join("queue.db");
        let url = format!("sqlite:{}", path.display());
        let trace = Trace::File(folder.path().join("queue.db.trace"));
        let (accounts, clock) = ([AccountName::default()], Clock::system());
        let queue = SqliteQueue::open(path, PREFIX, accounts, clock, Mode::Command);
        let kind = Kind::Sqlite {
            queue: queue.await.unwrap(),
            _folder: folder,
        };
        Self::of(url, kind, trace)
    }

    fn of(url: String, queue: Kind, trace: Trace<'a>) -> Self {
        Self {
            url,
            queue,
            trace,
            published: AtomicU64::new(0),
        }
    }

    pub fn is_amqp(&self) -> bool {
        matches!(self.queue, Kind::Amqp(_))
    }

    /// Lets the next worker keep its journal, or refuses it: by rights on the stream, or by a
    /// folder in the file's place.
    pub async fn keeps_trace(&self, yes: bool) {
        match &self.trace {
            Trace::Stream(broker) => {
                let others = if yes { ".*" } else { r"^(?!bench\.trace$).*$" };
                let rights = ["set_permissions", "guest", others, others, others];
                broker.ctl(&rights).await;
            }
            Trace::File(path) if yes => drop(std::fs::remove_dir(path)),
            Trace::File(path) => {
                for file in ["", "-wal", "-shm"] {
                    drop(std::fs::remove_file(format!("{}{file}", path.display())));
                }
                std::fs::create_dir(path).unwrap();
            }
        }
    }

    /// Publishes so many requests, each durable, and tells how long that took.
    pub async fn fill(&self, requests: u64) -> Duration {
        let began = Instant::now();
        let first = self.published.fetch_add(requests, Ordering::Relaxed);
        let numbers = first..first + requests;
        self.publish_all(numbers.map(|number| parcel(&self.url, number)))
            .await;
        began.elapsed()
    }

    /// Publishes so many requests, one in each `every`, and tells when each was.
    pub async fn trickle(&self, requests: u64, every: Duration) -> HashMap<String, Published> {
        let first = self.published.fetch_add(requests, Ordering::Relaxed);
        let (mut pace, mut published) = (interval(every), HashMap::new());
        for number in first..first + requests {
            pace.tick().await;
            let parcel = parcel(&self.url, number);
            let (id, began) = (
                parcel.message_id.clone().unwrap(),
                Clock::system().exactly(),
            );
            self.publish(parcel).await;
            let confirmed = Clock::system().exactly();
            published.insert(id, Published { began, confirmed });
        }
        published
    }

    /// Publishes so many requests that nobody can read: a worker makes dead letters of them.
    pub async fn fill_unreadable(&self, requests: u64) {
        let unreadable = |number: u64| Parcel {
            body: "no request".into(),
            message_id: Some(format!("letter-{number}")),
            ..parcel(&self.url, number)
        };
        self.publish_all((0..requests).map(unreadable)).await;
    }

    /// How many dead letters stand.
    pub async fn dead(&self) -> u64 {
        let depths = match &self.queue {
            Kind::Amqp(queue) => queue.depths().await,
            Kind::Sqlite { queue, .. } => queue.depths().await,
        };
        let depths = depths.unwrap().into_iter();
        let dead = depths.filter(|depth| depth.queue.ends_with("dead"));
        dead.map(|depth| depth.messages).sum()
    }

    async fn publish_all(&self, parcels: impl Iterator<Item = Parcel>) {
        stream::iter(parcels)
            .for_each_concurrent(PUBLISHING, |parcel| self.publish(parcel))
            .await;
    }

    async fn publish(&self, parcel: Parcel) {
        match &self.queue {
            Kind::Amqp(queue) => queue.publish(parcel).await.unwrap(),
            Kind::Sqlite { queue, .. } => queue.publish(parcel).await.unwrap(),
        }
    }
}

/// A small receipt. No id comes twice in one run, whatever the queue: the sandbox remembers them.
fn parcel(queue: &str, number: u64) -> Parcel {
    let kind = queue.split(':').next().unwrap_or_default();
    let id = format!("{kind}-{number}");
    let body = format!(
        r#"{{"emailId":4126643121,"message":{{"to":"ada-{number}@example.com","sendId":"{id}"}},"contactProperties":{{"firstname":"Ada","lastname":"Lovelace"}},"customProperties":{{"order":"{number}","total":"19.90 EUR"}}}}"#
    );
    Parcel {
        body: body.into(),
        message_id: Some(id),
        account: AccountName::default(),
        priority: Priority::Normal,
        story: Story::default(),
    }
}
