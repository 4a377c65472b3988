//! The broker dies, a queue vanishes, the owner of an account is cut off.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use lapin::BasicProperties;
use postrider::clock::{self, Clock};
use postrider::message::{AccountName, Priority};
use postrider::outcome::Disposition;
use postrider::queue::amqp::{AmqpOptions, AmqpQueue};
use postrider::queue::{Before, DayCalls, Intake, Queue, QueueError, Spends, Word};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::{PATIENCE, open, options, parcel, receive, settle, until_standing, worker};
use crate::support::broker::{self, Broker, Version};
use crate::support::on_each_rabbitmq;
use crate::support::producer::Producer;
use crate::support::proxy::{Faults, Proxy};

on_each_rabbitmq! {
    tokio::test(flavor = "multi_thread", worker_threads = 2):
    nothing_is_lost_when_the_broker_is_killed_or_stopped_in_the_middle
    a_deleted_queue_is_declared_again
    the_lease_goes_to_the_next_worker_when_the_owner_is_cut_off
    a_lease_ends_before_the_broker_gives_a_silent_owner_up_whatever_its_heartbeat
    a_token_that_comes_late_does_not_take_the_place_of_the_newest
}

async fn nothing_is_lost_when_the_broker_is_killed_or_stopped_in_the_middle(version: Version) {
    let broker = Broker::start_of(version).await;
    for killed in [true, false] {
        // Queues of its own, so that what comes again late is no other round's message.
        let prefix = format!("outage-{killed}");
        let queue = AmqpQueue::start(options(&broker, &prefix)).await.unwrap();
        let ids: BTreeSet<String> = (0..300).map(|n| format!("{killed}-{n}")).collect();
        let all = ids
            .iter()
            .map(|id| queue.publish(parcel(id, Priority::Normal)));
        for published in join_all(all).await {
            published.unwrap();
        }
        let mut intake = open(&queue).await;
        let stale = receive(&mut intake).await;
        let half_way = Notify::new();
        let outage = async {
            half_way.notified().await;
            if killed {
                broker.kill().await;
            } else {
                broker.stop().await;
            }
            broker.boot().await;
        };
        let (done, ()) = tokio::join!(work(&queue, &mut intake, &ids, &half_way), outage);
        assert_eq!(done, ids);
        let settled = queue.settle(stale, Disposition::Complete).await;
        assert!(matches!(settled, Err(QueueError::Lost)), "{settled:?}");
        // What was acknowledged just before the end comes again: the broker never heard of it.
        let again = async {
            loop {
                let delivery = receive(&mut intake).await;
                let id = delivery.message_id.clone().unwrap();
                assert!(ids.contains(&id), "{id} was done before the outage began");
                settle(&queue, delivery, Disposition::Complete).await;
            }
        };
        tokio::select! {
            () = until_standing(&queue, &[]) => {}
            () = again => {}
        }
        queue.close().await;
    }
}

/// Settles every kind of way, until each of `ids` is complete, and returns those that are.
async fn work(
    queue: &AmqpQueue,
    intake: &mut impl Intake,
    ids: &BTreeSet<String>,
    half_way: &Notify,
) -> BTreeSet<String> {
    let mut done = BTreeSet::new();
    while done.len() < ids.len() {
        if done.len() == ids.len() / 2 {
            half_way.notify_one();
        }
        let delivery = receive(intake).await;
        let id = delivery.message_id.clone().unwrap();
        let first_time = delivery.story.spent == 0 && id.ends_with('7');
        let disposition = if first_time {
            let at = clock::after(Clock::system().now(), Duration::from_millis(900));
            let mut story = delivery.story.clone();
            story.spent = 1;
            Disposition::Retry { at, story }
        } else {
            Disposition::Complete
        };
        // An error means: handed out again.
        if queue.settle(delivery, disposition).await.is_ok() && !first_time {
            done.insert(id);
        }
    }
    done
}

async fn a_deleted_queue_is_declared_again(version: Version) {
    let (queue, prefix) = worker(version, "deleted").await;
    let producer = Producer::to(broker::shared_of(version).await).await;
    let mut intake = open(&queue).await;
    queue.publish(parcel("one", Priority::High)).await.unwrap();
    let delivery = receive(&mut intake).await;
    settle(&queue, delivery, Disposition::Complete).await;
    producer
        .delete(&format!("{prefix}.send.default.high"))
        .await;
    // It tells of the trouble once or more, and then goes on.
    let again = async {
        while let Err(error) = queue.publish(parcel("two", Priority::High)).await {
            assert!(matches!(
                error,
                QueueError::Unroutable { .. } | QueueError::Unreachable { .. }
            ));
            let _ = timeout(Duration::from_millis(100), intake.receive()).await;
        }
        loop {
            if let Ok(delivery) = intake.receive().await {
                break delivery;
            }
        }
    };
    let delivery = timeout(PATIENCE, again).await.unwrap();
    assert_eq!(delivery.message_id.as_deref(), Some("two"));
}

async fn the_lease_goes_to_the_next_worker_when_the_owner_is_cut_off(version: Version) {
    let broker = broker::shared_of(version).await;
    let wire = Proxy::to(broker.port()).await;
    let direct = options(broker, "lease");
    let over_wire = AmqpOptions {
        url: broker::url(wire.port()).into(),
        ..direct.clone()
    };
    let account = AccountName::default();
    let first = AmqpQueue::start(over_wire).await.unwrap();
    let held = timeout(PATIENCE, first.lease(&account))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(held.before, Before::Nobody);
    assert!(held.holds(Instant::now()));

    let second = AmqpQueue::start(direct).await.unwrap();
    let standing_by = tokio::spawn({
        let (second, account) = (second.clone(), account.clone());
        async move { second.lease(&account).await }
    });
    // It is renewed, again and again.
    let end = Instant::now() + Duration::from_secs(8);
    timeout(PATIENCE, async {
        while !held.holds(end) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the lease was not renewed");
    assert!(!standing_by.is_finished(), "two owners");

    assert!(held.tell(Word::Spends(Spends::AtOnce)).await);
    assert!(held.tell(Word::Spends(Spends::Evenly)).await);
    assert!(held.tell(Word::Spends(Spends::AtOnce)).await);
    wire.cut();
    let next = timeout(PATIENCE, standing_by)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    timeout(PATIENCE, held.lost())
        .await
        .expect("the old owner does not know");
    assert!(next.holds(Instant::now()));
    assert!(
        !held.tell(Word::Spends(Spends::Evenly)).await,
        "it is no owner"
    );
    assert_eq!(next.before, Before::Somebody(Spends::AtOnce));

    // Let go of, it is free again.
    drop(next);
    let back = timeout(PATIENCE, first.lease(&account))
        .await
        .unwrap()
        .unwrap();
    assert!(back.holds(Instant::now()));
}

async fn a_lease_ends_before_the_broker_gives_a_silent_owner_up_whatever_its_heartbeat(
    version: Version,
) {
    let broker = Broker::start_of(version).await;
    let account = AccountName::default();
    // Ours is 5. A broker that is set to none takes that.
    for (set, agreed) in [(0, "5"), (2, "2")] {
        let order = format!("application:set_env(rabbit, heartbeat, {set}).");
        broker.ctl(&["eval", &order]).await;
        let wire = Proxy::to(broker.port()).await;
        let direct = options(&broker, "silent");
        let over_wire = AmqpOptions {
            url: broker::url(wire.port()).into(),
            ..direct.clone()
        };
        let first = AmqpQueue::start(over_wire).await.unwrap();
        let held = timeout(PATIENCE, first.lease(&account)).await;
        let held = held.unwrap().unwrap();
        let told = broker.ctl(&["list_connections", "timeout"]).await;
        assert!(told.lines().all(|told| told == agreed), "{set}: {told}");

        let second = AmqpQueue::start(direct).await.unwrap();
        let next = tokio::spawn({
            let (second, account) = (second.clone(), account.clone());
            async move { (second.lease(&account).await.map(drop), Instant::now()) }
        });
        wire.set(Faults {
            swallows_there: true,
            ..Faults::default()
        });
        // No answer can come to a question of later: by then it ends.
        let swallowed = Instant::now();
        let ends = (0..20_000).map(|ms| swallowed + Duration::from_millis(ms));
        let ends = ends.take_while(|at| held.holds(*at)).last().unwrap();
        let (owned, since) = timeout(PATIENCE, next).await.unwrap().unwrap();
        owned.unwrap();
        let both = ends.saturating_duration_since(since);
        assert_eq!(both, Duration::ZERO, "{set}: so long there were two owners");
        first.close().await;
        second.close().await;
    }
}

async fn a_token_that_comes_late_does_not_take_the_place_of_the_newest(version: Version) {
    let broker = broker::shared_of(version).await;
    let options = options(broker, "token");
    let name = format!("{}.lease.default", options.prefix);
    let queue = AmqpQueue::start(options).await.unwrap();
    let account = AccountName::default();
    let held = queue.lease(&account).await.unwrap();
    let day = DayCalls {
        calls: 7,
        ends: "2026-12-02T05:00:00Z".parse().unwrap(),
    };
    assert!(held.tell(Word::Day(day)).await);
    // As if it had been made before, and had been held up on its way: it tells nothing.
    let (token, properties) = ([7; 16], BasicProperties::default());
    let producer = Producer::to(broker).await;
    producer.publish("", &name, &token, properties).await;
    let one_is_left = async {
        loop {
            let told = broker.ctl(&["list_queues", "name", "messages"]).await;
            let mut counts = told.lines().filter_map(|line| line.strip_prefix(&name));
            if counts.next().map(str::trim) == Some("1") {
                return;
            }
        }
    };
    timeout(PATIENCE, one_is_left).await.unwrap();
    drop(held);
    let next = timeout(PATIENCE, queue.lease(&account)).await;
    assert_eq!(next.unwrap().unwrap().day, Some(day));
}
