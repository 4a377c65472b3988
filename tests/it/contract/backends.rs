//! The backends, each with a way to lose what it has in hand.

use std::time::Duration;

use postrider::clock::Clock;
use postrider::message::AccountName;
use postrider::queue::Queue;
use postrider::queue::amqp::{AmqpOptions, AmqpQueue};
use postrider::queue::memory::MemoryQueue;
use postrider::queue::sqlite::{Mode, SqliteQueue};
use tempfile::TempDir;

use super::Backend;
use super::steps::{DEADLINE, account};
use crate::support::broker::{self, Version};
use crate::support::proxy::Proxy;

fn known_accounts() -> [AccountName; 2] {
    [AccountName::default(), account("second")]
}

fn simulated() -> Clock {
    Clock::simulated("2026-12-01T08:00:00Z".parse().unwrap())
}

pub struct Memory {
    queue: MemoryQueue,
    clock: Clock,
}

impl Memory {
    #[expect(clippy::unused_async, reason = "the suite makes all of them alike")]
    pub async fn fresh() -> Self {
        let clock = simulated();
        let queue = MemoryQueue::new(clock, "postrider", known_accounts());
        Self { queue, clock }
    }
}

impl Backend for Memory {
    type Queue = MemoryQueue;

    fn queue(&self) -> &MemoryQueue {
        &self.queue
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    async fn lose_connection(&mut self) {
        self.queue.lose_connection();
    }
}

pub struct Sqlite {
    queue: SqliteQueue,
    clock: Clock,
    folder: TempDir,
}

impl Sqlite {
    pub async fn fresh() -> Self {
        let (folder, clock) = (TempDir::new().unwrap(), simulated());
        let queue = Self::open(&folder, clock).await;
        Self {
            queue,
            clock,
            folder,
        }
    }

    async fn open(folder: &TempDir, clock: Clock) -> SqliteQueue {
        let path = folder.path().join("queue.db");
        SqliteQueue::open(path, "postrider", known_accounts(), clock, Mode::Worker)
            .await
            .unwrap()
    }
}

impl Backend for Sqlite {
    type Queue = SqliteQueue;

    fn queue(&self) -> &SqliteQueue {
        &self.queue
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    /// The nearest thing that a file has: another worker opens it.
    async fn lose_connection(&mut self) {
        self.queue.close().await;
        self.queue = Self::open(&self.folder, self.clock).await;
    }
}

pub struct Amqp {
    queue: AmqpQueue,
    wire: Proxy,
}

impl Amqp {
    pub async fn on_3_10() -> Self {
        Self::on(Version::V3_10).await
    }

    pub async fn on_4_0() -> Self {
        Self::on(Version::V4_0).await
    }

    async fn on(version: Version) -> Self {
        let wire = Proxy::to(broker::shared_of(version).await.port()).await;
        let options = AmqpOptions {
            url: broker::url(wire.port()).into(),
            prefix: broker::prefix("contract"),
            accounts: known_accounts().into(),
            clock: Clock::system(),
        };
        let queue = AmqpQueue::start(options).await.unwrap();
        Self { queue, wire }
    }
}

impl Backend for Amqp {
    type Queue = AmqpQueue;
    const ARRIVAL: Duration = Duration::from_secs(1);

    fn queue(&self) -> &AmqpQueue {
        &self.queue
    }

    fn clock(&self) -> Clock {
        Clock::system()
    }

    async fn lose_connection(&mut self) {
        self.wire.cut();
        for up in [false, true] {
            let deadline = tokio::time::Instant::now() + DEADLINE;
            while self.queue.is_up() != up {
                assert!(tokio::time::Instant::now() < deadline, "up is not {up}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}
