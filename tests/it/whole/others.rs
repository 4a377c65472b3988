//! Other apps use the same limits.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::world::{World, ids, report};

const REST_TIME_MAX: Duration = Duration::from_mins(2);
/// Half of the limit.
const OTHERS_EVERY: Duration = Duration::from_millis(100);

#[tokio::test]
async fn what_another_app_calls_is_left_to_it() {
    let began = Instant::now();
    let world = World::on_sqlite(&["--api-limit", "40/2s", "--latency", "5ms-20ms"]).await;
    let world = world
        .set("accounts.default.results", "all")
        .set("accounts.default.quota.api.limit", "40")
        .set("accounts.default.quota.api.window", "2s");
    let ids = ids("others", 200);
    world.publish_backlog(&ids).await;
    let worker = world.worker().await;
    world.sandbox.until_mailed(200, REST_TIME_MAX).await;

    // Every send has to be looked up, at half of the limit.
    let mut tick = interval(OTHERS_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut asked, mut refused) = (0_u32, 0_u32);
    let results = r#"postrider_results_total{account="default",result="sent"} "#;
    while world.sandbox.metric(&worker.address(), results).await < 200 {
        tick.tick().await;
        asked += 1;
        refused += u32::from(world.sandbox.asked_by_another_app().await == 429);
        assert!(began.elapsed() < REST_TIME_MAX, "the results do not come");
    }
    let throttled = world.sandbox.count("throttled").await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    let figures = format!(
        "200 look-ups beside {asked} calls of another app at half of the limit: {throttled} refused, \
         {refused} of them the other's"
    );
    report("other apps", began, &figures);
    assert!(throttled * 20 < u64::from(asked), "{figures}");
}
