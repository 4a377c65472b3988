//! RabbitMQ nodes of this machine that are one cluster; also a cluster of one.

use tokio::join;

use super::broker::{Broker, Version};

/// Dropping it ends all nodes.
#[derive(Debug)]
pub struct Cluster {
    /// Dropped before the first one, whose port mapper they use.
    others: Vec<Broker>,
    first: Broker,
}

impl Cluster {
    pub async fn of_one(version: Version) -> Self {
        Self {
            others: Vec::new(),
            first: Broker::start_of(version).await,
        }
    }

    /// Every quorum queue has a member on each of them.
    pub async fn of_three(version: Version) -> Self {
        let first = Broker::start_of(version).await;
        let others = join!(Broker::start_beside(&first), Broker::start_beside(&first));
        let others = vec![others.0, others.1];
        Self { others, first }
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Broker> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub fn ports(&self) -> Vec<u16> {
        self.nodes().map(Broker::port).collect()
    }

    /// The node to which everybody turns who reads or writes this queue. All nodes must be up.
    pub async fn leader(&self, queue: &str) -> &Broker {
        let told = self.first.ctl(&["list_queues", "name", "leader"]).await;
        let line = told.lines().find_map(|line| line.strip_prefix(queue));
        let leader = line.unwrap_or_else(|| panic!("no queue {queue} in {told}"));
        self.nodes()
            .find(|node| node.name() == leader.trim())
            .unwrap_or_else(|| panic!("no node {leader} leads {queue}"))
    }
}
