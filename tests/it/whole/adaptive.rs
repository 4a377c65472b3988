//! A limit that is learned from what HubSpot bears.

use std::time::Duration;

use tokio::time::Instant;

use super::world::{World, ids, report};

const DRAIN_TIME_MAX: Duration = Duration::from_mins(3);
const REST_TIME_MAX: Duration = Duration::from_mins(1);

/// It begins at a third of what HubSpot bears, and gets there.
#[tokio::test]
async fn sends_go_as_fast_as_hubspot_bears() {
    let began = Instant::now();
    let world = World::on_sqlite(&["--limit", "60/1s", "--latency", "5ms-20ms"]).await;
    let world = world
        .set("accounts.default.results", "off")
        .set("accounts.default.quota.send.limit", "20")
        .set("accounts.default.quota.send.window", "1s")
        .set("accounts.default.quota.send.adaptive", "true");
    let ids = ids("adaptive", 2_000);
    world.publish_backlog(&ids).await;
    let worker = world.worker().await;
    world.sandbox.until_mailed(1_500, DRAIN_TIME_MAX).await;

    let told = world.told(&["queue", "--worker", &worker.address()]).await;
    assert!(
        told.contains(", learned from what HubSpot bears)"),
        "{told}"
    );
    let line = r#"postrider_quota_limit{account="default",bucket="send"} "#;
    let limit = world.sandbox.metric(&worker.address(), line).await;
    assert!((40..=66).contains(&limit), "{limit} a second");

    world.sandbox.until_mailed(2_000, DRAIN_TIME_MAX).await;
    let throttled = world.sandbox.count("throttled").await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest(0).await;
    let figures =
        format!("2,000 sends, {limit} of 60 a second learned from 20, {throttled} refused");
    report("a learned limit", began, &figures);
    assert!(throttled <= 40, "{figures}");
}
