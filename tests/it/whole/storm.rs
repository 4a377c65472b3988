//! The storm: faults of every kind, in an order and at moments that chance draws from a seed, while
//! producers publish. It ends with one page of figures, and with nothing lost and nothing doubled.
//!
//! The tests run a short one; `tests/storm` runs the long one. Each run tells its seed, and
//! `POSTRIDER_TEST_SEED` draws the same faults again. The processes are real, so when each of them
//! is hit is never quite the same.

mod fault;
mod form;
mod page;
mod producers;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use self::fault::Faults;
use self::form::{CLUSTER, Form, Forms, NODE, SQLITE};
use self::page::Page;
use self::producers::Producers;
use super::worker::Worker;
use super::world::World;
use crate::support::balancer::Balancer;
use crate::support::broker::Version;
use crate::support::cluster::Cluster;
use crate::support::on_each_rabbitmq;

/// From one fault to so much mail that the next one strikes. What takes longest is a node that
/// starts on a loaded machine.
const RECOVERY_TIME_MAX: Duration = Duration::from_mins(4);
/// The last retries, and the last results.
const REST_TIME_MAX: Duration = Duration::from_mins(2);
/// RabbitMQ looks for what is as old as its `dead_letter_worker_publisher_confirm_timeout`, 30 s here, as
/// often as that: a minute, and some.
const HANDED_ON_AGAIN_MAX: Duration = Duration::from_mins(3);
/// RabbitMQ counts anew every five seconds what it tells of its queues.
const TOLD_ANEW: Duration = Duration::from_secs(6);
const POLL: Duration = Duration::from_millis(100);
const PREFIX: &str = "postrider";
/// Final results come soon, so that look-ups are under way whatever strikes. It has no limit of its
/// own: how many calls a window held is counted by the page.
const SANDBOX: [&str; 4] = ["--results-after", "0s-1s", "--latency", "20ms-60ms"];

on_each_rabbitmq! {
    tokio::test:
    over_one_node
    over_a_cluster
}

async fn over_one_node(version: Version) {
    let cluster = Cluster::of_one(version).await;
    over_rabbitmq(&format!("RabbitMQ {version}, one node"), &cluster, &NODE).await;
}

async fn over_a_cluster(version: Version) {
    let cluster = Cluster::of_three(version).await;
    let title = format!("RabbitMQ {version}, three nodes");
    over_rabbitmq(&title, &cluster, &CLUSTER).await;
}

async fn over_rabbitmq(title: &str, cluster: &Cluster, forms: &Forms) {
    let form = forms.chosen();
    let balancer = Balancer::before(cluster.ports()).await;
    let world = World::at(balancer.port(), PREFIX, &SANDBOX).await;
    let world = settled(world, form);
    let workers = vec![
        world.worker().await,
        world.start_worker(),
        world.start_worker(),
    ];
    let place = Some((cluster, &balancer));
    let dead = rage(title, form, Faults::new(&world, place, workers, seed())).await;
    let any = cluster.nodes().next().unwrap();
    world.assert_at_rest_on(any, dead).await;
}

#[tokio::test]
async fn over_sqlite() {
    let form = SQLITE.chosen();
    let world = settled(World::on_sqlite(&SANDBOX).await, form);
    let workers = vec![world.worker().await];
    let dead = rage("SQLite", form, Faults::new(&world, None, workers, seed())).await;
    world.assert_at_rest(dead).await;
}

fn settled(world: World, form: &Form) -> World {
    world
        .set("accounts.default.quota.send.limit", &form.limit.to_string())
        .set("accounts.default.quota.send.window", "1s")
        .set("accounts.default.results", "0.2")
        // Some answers never come.
        .set("accounts.default.timeout", "5s")
}

/// From `POSTRIDER_TEST_SEED`, or a new one.
fn seed() -> u64 {
    match std::env::var_os("POSTRIDER_TEST_SEED") {
        Some(seed) => seed.to_str().unwrap().parse().unwrap(),
        None => fastrand::u64(0..1_000_000),
    }
}

/// Returns how many dead letters stand at the end, where no worker runs any more.
async fn rage(title: &str, form: &Form, mut faults: Faults<'_>) -> u64 {
    let began = Instant::now();
    let world = faults.world;
    let producers = Producers::new(form.messages);
    tokio::join!(
        producers.publish_all(world),
        faults.strike_all(form, &producers)
    );
    let good = producers.good();
    last_mail(world, good.len() as u64).await;
    if let Some(cluster) = faults.cluster() {
        all_handed_on(cluster).await;
    }
    end(faults.take_workers()).await;
    let page = Page {
        title,
        seed: faults.seed,
        took: began.elapsed(),
        limit: form.limit,
        strikes: faults.strikes(),
        calm_at: faults.calm_at(),
        good,
        bad: producers.bad(),
        published_again: producers.again(),
        stats: world.sandbox.stats().await,
        mails: world.sandbox.mails().await,
        calls: world.sandbox.calls().await,
        dead: world.dead().await,
    };
    page.print();
    page.assert_all_is_well();
    page.dead.len() as u64
}

/// Waits for the last mail, but not for ever: what was lost is told by the page. Where a node dies
/// while it hands a delayed message on, RabbitMQ does so again after a time-out.
async fn last_mail(world: &World, count: u64) {
    let deadline = Instant::now() + HANDED_ON_AGAIN_MAX;
    while world.sandbox.count("mails").await < count && Instant::now() < deadline {
        sleep(POLL).await;
    }
}

/// Waits until no look-up is delayed any more either. What RabbitMQ hands on again after a time-out
/// is in no depth that AMQP tells.
async fn all_handed_on(cluster: &Cluster) {
    let any = cluster.nodes().next().unwrap();
    let deadline = Instant::now() + HANDED_ON_AGAIN_MAX;
    let mut empty = 0;
    while empty < 2 {
        let told = any.ctl(&["list_queues", "name", "messages"]).await;
        let delayed = |line: &&str| line.starts_with("postrider.delay.") && !line.ends_with("\t0");
        let left: Vec<_> = told.lines().filter(delayed).collect();
        empty = if left.is_empty() { empty + 1 } else { 0 };
        assert!(Instant::now() < deadline, "not handed on: {left:?}");
        sleep(TOLD_ANEW).await;
    }
}

/// Ends all workers in order, the last one when nothing is left to do.
async fn end(mut workers: Vec<Worker>) {
    let last = workers.pop().unwrap();
    for worker in workers {
        worker.stop().await;
    }
    last.finish(REST_TIME_MAX).await;
}
