//! The faults, and how each of them strikes.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use postrider::clock::Clock;
use tokio::time::{Instant, sleep, sleep_until};

use super::form::Form;
use super::producers::Producers;
use super::{PREFIX, RECOVERY_TIME_MAX};
use crate::support::balancer::Balancer;
use crate::support::broker::Broker;
use crate::support::cluster::Cluster;
use crate::whole::worker::Worker;
use crate::whole::world::World;

/// Heartbeats come every 5 s, and two or three that are missed are the end of a connection.
const FREEZE: (u64, u64) = (11_000, 16_000);
/// From so much mail that a fault is due to its strike: so that none strikes at a round number.
const DELAY: (u64, u64) = (0, 500);
/// No node of a cluster is killed sooner after the last one.
const BETWEEN_NODES: Duration = Duration::from_secs(20);
/// Of all calls. Of those that are answered wrongly or not at all, more than half have sent mail.
const TROUBLES: &str = "5xx=0.06,5xx-sent=0.06,cut=0.06,cut-before=0.04,never=0.04";

/// In the order of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL to the worker that owns the account.
    OwnerKilled,
    /// SIGKILL to another one.
    StandbyKilled,
    /// SIGSTOP to the owner for longer than its heartbeat, then SIGCONT.
    OwnerFrozen,
    /// SIGKILL to the node that leads the account's queues; it starts again at once.
    NodeKilled,
    /// SIGTERM to it, likewise.
    NodeStopped,
    /// SIGSTOP to it for longer than its heartbeat, then SIGCONT.
    NodeFrozen,
    /// Every connection of workers and producers to the broker is cut.
    WiresCut,
    /// HubSpot answers some calls with a 5xx, cuts some off, never answers some; and so it does while
    /// the next fault strikes.
    HubSpotTroubled,
}

/// A fault that has struck.
#[derive(Clone, Copy, Debug)]
pub struct Strike {
    pub fault: Fault,
    pub at: Timestamp,
}

/// Who strikes. When it is dropped in a failing test it tells the seed and saves what nodes logged.
pub struct Faults<'a> {
    pub world: &'a World,
    pub seed: u64,
    broker: Option<(&'a Cluster, &'a Balancer)>,
    workers: Vec<Worker>,
    rng: fastrand::Rng,
    strikes: Vec<Strike>,
    /// When a share of the mail had left after the last one.
    calm_at: Option<Timestamp>,
    next_node_at: Instant,
}

impl<'a> Faults<'a> {
    pub fn new(
        world: &'a World,
        broker: Option<(&'a Cluster, &'a Balancer)>,
        workers: Vec<Worker>,
        seed: u64,
    ) -> Self {
        Self {
            world,
            seed,
            broker,
            workers,
            rng: fastrand::Rng::with_seed(seed),
            strikes: Vec::new(),
            calm_at: None,
            next_node_at: Instant::now(),
        }
    }

    pub fn strikes(&self) -> &[Strike] {
        &self.strikes
    }

    pub fn calm_at(&self) -> Timestamp {
        self.calm_at.unwrap()
    }

    pub fn cluster(&self) -> Option<&'a Cluster> {
        self.broker.map(|(cluster, _)| cluster)
    }

    pub fn take_workers(&mut self) -> Vec<Worker> {
        std::mem::take(&mut self.workers)
    }

    /// All of them, in an order of chance. After each one its share of the mail has to leave.
    pub async fn strike_all(&mut self, form: &Form, producers: &Producers) {
        let all = form.faults.iter();
        let mut all: Vec<Fault> = all
            .flat_map(|(fault, count)| std::iter::repeat_n(*fault, *count))
            .collect();
        self.rng.shuffle(&mut all);
        let share = (form.messages / all.len()) as u64;
        for fault in all {
            self.mail_leaves(share).await;
            self.wait(DELAY).await;
            self.strike(fault).await;
        }
        self.mail_leaves(share).await;
        self.world.sandbox.tell("faults", "").await;
        self.calm_at = Some(Clock::system().now());
        producers.enough();
    }

    async fn mail_leaves(&self, count: u64) {
        let sandbox = &self.world.sandbox;
        let mailed = sandbox.count("mails").await;
        sandbox
            .until_mailed(mailed + count, RECOVERY_TIME_MAX)
            .await;
    }

    async fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::OwnerKilled => {
                let owner = self.owner().await;
                self.kill(owner, fault).await;
            }
            Fault::StandbyKilled => {
                let next = (self.owner().await + 1) % self.workers.len();
                self.kill(next, fault).await;
            }
            Fault::OwnerFrozen => {
                let owner = self.owner().await;
                self.mark(fault);
                self.workers[owner].signal("-STOP").await;
                self.wait(FREEZE).await;
                self.workers[owner].signal("-CONT").await;
            }
            Fault::NodeKilled => {
                sleep_until(self.next_node_at).await;
                let node = self.node().await;
                self.mark(fault);
                if self.cluster().unwrap().nodes().count() > 1 {
                    self.next_node_at = Instant::now() + BETWEEN_NODES;
                }
                node.kill().await;
                node.boot().await;
            }
            Fault::NodeStopped => {
                let node = self.node().await;
                self.mark(fault);
                node.stop().await;
                node.boot().await;
            }
            Fault::NodeFrozen => {
                let node = self.node().await;
                self.mark(fault);
                node.freeze();
                self.wait(FREEZE).await;
                node.thaw();
            }
            Fault::WiresCut => {
                self.mark(fault);
                self.broker.unwrap().1.cut();
            }
            Fault::HubSpotTroubled => {
                self.mark(fault);
                self.world.sandbox.tell("faults", TROUBLES).await;
                return;
            }
        }
        self.world.sandbox.tell("faults", "").await;
    }

    /// Another one is started in its place.
    async fn kill(&mut self, worker: usize, fault: Fault) {
        self.mark(fault);
        self.workers.remove(worker).kill().await;
        self.workers.push(self.world.start_worker());
    }

    #[expect(clippy::print_stderr, reason = "the long run takes long")]
    fn mark(&mut self, fault: Fault) {
        let at = Clock::system().now();
        self.strikes.push(Strike { fault, at });
        eprintln!("{at:.3} {}: {fault}", self.strikes.len());
    }

    /// A worker that owns the account, or any while none does.
    async fn owner(&self) -> usize {
        for (number, worker) in self.workers.iter().enumerate() {
            if worker.is_owner().await {
                return number;
            }
        }
        0
    }

    /// The one that leads the account's queues.
    async fn node(&self) -> &'a Broker {
        let queue = format!("{PREFIX}.send.default.normal");
        self.cluster().unwrap().leader(&queue).await
    }

    async fn wait(&mut self, (least, most): (u64, u64)) {
        sleep(Duration::from_millis(self.rng.u64(least..=most))).await;
    }
}

impl Drop for Faults<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        if let Some((cluster, _)) = self.broker {
            for node in cluster.nodes() {
                node.save_logs(self.world.folder());
            }
        }
        #[expect(clippy::print_stderr, reason = "whoever reads the failure needs it")]
        {
            eprintln!(
                "--- the same faults again: POSTRIDER_TEST_SEED={}",
                self.seed
            );
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::OwnerKilled => "owner killed",
            Self::StandbyKilled => "standby killed",
            Self::OwnerFrozen => "owner frozen",
            Self::NodeKilled => "node killed",
            Self::NodeStopped => "node stopped",
            Self::NodeFrozen => "node frozen",
            Self::WiresCut => "connections cut",
            Self::HubSpotTroubled => "HubSpot troubled",
        })
    }
}
