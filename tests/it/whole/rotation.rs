//! A broker's password that is changed under a running worker.

use std::fs;
use std::time::Duration;

use super::world::{World, ids};
use crate::support::broker;
use crate::support::proxy::Proxy;

const REST_TIME_MAX: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_changed_password_reaches_the_worker_without_a_restart() {
    let broker = broker::shared().await;
    let wire = Proxy::to(broker.port()).await;
    let user = broker::prefix("rotated");
    broker.ctl(&["add_user", &user, "first"]).await;
    let all = ["set_permissions", user.as_str(), ".*", ".*", ".*"];
    broker.ctl(&all).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    let write = |password: &str| {
        let url = format!("amqp://{user}:{password}@127.0.0.1:{}/%2f", wire.port());
        fs::write(&file, url).unwrap();
    };
    write("first");
    let world = World::on_broker(broker, &user, &[])
        .await
        .unset("queue.url");
    let world = world.set("queue.url_file", file.to_str().unwrap());
    let ids = ids("rotated", 20);
    let mut halves = ids.iter().cloned();
    let worker = world.worker().await;
    world.publish(&halves.by_ref().take(10).collect()).await;
    world.sandbox.until_mailed(10, REST_TIME_MAX).await;

    // Who is connected stays so; a new connection is refused while the file is as it was.
    broker.ctl(&["change_password", &user, "second"]).await;
    wire.cut();
    worker.until_said("queue cannot be used").await;
    write("second");
    worker.until_said("queue connection is back").await;
    world.publish(&halves.collect()).await;
    world.sandbox.until_mailed(20, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
}
