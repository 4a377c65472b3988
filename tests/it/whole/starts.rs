//! A worker that cannot start, or not yet: it says what is wrong and what to do.

use std::process::Output;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::world::{World, ids};
use crate::support::broker::{self, Broker};
use crate::support::producer::Producer;

const REST_TIME_MAX: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_second_worker_on_one_sqlite_file_is_refused_and_harms_nothing() {
    let world = World::on_sqlite(&[]).await;
    let worker = world.worker().await;
    let second = refused(&world).await;
    assert_eq!(second.status.code(), Some(69));
    assert_says(
        &second,
        &[
            "postrider.db",
            "in use by another worker",
            "hint: stop the other worker",
        ],
    );
    let ids = ids("alone", 50);
    world.publish(&ids).await;
    world.sandbox.until_mailed(50, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest(0).await;
}

#[tokio::test]
async fn a_worker_waits_for_a_broker_that_is_not_there_yet() {
    let broker = Broker::start().await;
    let world = World::on_broker(&broker, "postrider", &[]).await;
    broker.stop().await;
    let mut worker = world.start_worker();
    worker.until_said("worker started").await;
    worker.until_said("queue not reached; trying on").await;
    assert_eq!(worker.ready().await, Some(503), "it has no queue yet");
    broker.boot().await;
    worker.until_ready().await;
    assert!(worker.is_running());
    let ids = ids("late", 50);
    world.publish(&ids).await;
    world.sandbox.until_mailed(50, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest_on(&broker, 0).await;
}

#[tokio::test]
async fn wrong_credentials_end_the_worker() {
    let broker = broker::shared().await;
    let prefix = broker::prefix("stranger");
    let world = World::on_broker(broker, &prefix, &[]).await;
    let url = broker.url().expose_secret().replace(":guest@", ":wr0ng@");
    let world = world.set("queue.url", &url);
    let refused = refused(&world).await;
    assert_eq!(refused.status.code(), Some(69));
    assert_says(
        &refused,
        &["refuses the credentials", "hint: check user, password"],
    );
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!told.contains("wr0ng"), "a password is told: {told}");
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_refused_and_named() {
    let broker = broker::shared().await;
    let prefix = broker::prefix("classic");
    let world = World::on_broker(broker, &prefix, &[]).await;
    let queue = format!("{prefix}.send.default.normal");
    Producer::to(broker).await.declare_classic(&queue).await;
    let refused = refused(&world).await;
    assert_eq!(refused.status.code(), Some(64));
    assert_says(
        &refused,
        &[
            &queue,
            "exists with other arguments",
            "inequivalent arg 'x-",
            "hint: ",
        ],
    );
}

/// What a worker says that ends by itself.
async fn refused(world: &World) -> Output {
    world.run(&["worker"]).await
}

fn assert_says(output: &Output, words: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    let error = told.lines().find(|line| line.starts_with("error: "));
    assert!(error.is_some(), "{told}");
    for word in words {
        assert!(told.contains(word), "`{word}` is not in: {told}");
    }
}
