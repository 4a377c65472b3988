//! One request's story in the whole system: its answer is lost, its worker is killed, and
//! `postrider trace` tells how it ended.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::world::{World, eventually};
use crate::support::broker;

const TIME_MAX: Duration = Duration::from_mins(1);
/// The first wait after a failure: time enough to kill the worker in it.
const FIRST_WAIT: &str = "8s";

#[tokio::test]
async fn an_answer_lost_and_a_worker_killed_are_told_on_sqlite() {
    let world = World::on_sqlite(&["--results-after", "1s-1s"]).await;
    tell_the_story(world).await;
}

#[tokio::test]
async fn an_answer_lost_and_a_worker_killed_are_told_on_rabbitmq() {
    let broker = broker::shared().await;
    let prefix = broker::prefix("trace");
    let world = World::on_broker(broker, &prefix, &["--results-after", "1s-1s"]).await;
    tell_the_story(world).await;
}

async fn tell_the_story(world: World) {
    let world = world
        .set("accounts.default.results", "all")
        .set("retry.initial", FIRST_WAIT);
    let ids: BTreeSet<String> = ["cut", "refused", "rejected"].map(String::from).into();
    let worker = world.worker().await;
    let recipients = [
        "ada+cutx1@example.com",
        "ada+PREVIOUSLY_BOUNCED@example.com",
        "ada+http400@example.com",
    ];
    world
        .publish_to(&ids, |number| recipients[number].to_owned())
        .await;
    until(&world, "cut", "unknown", "retry").await;
    worker.kill().await;
    let _worker = world.worker().await;
    until(&world, "refused", "refused", "dead_letter").await;
    until(&world, "rejected", "permanent", "dead_letter").await;
    until(&world, "cut", "sent", "complete").await;

    let story = world.told(&["trace", "cut"]).await;
    assert!(story.starts_with("cut  sent\n"), "{story}");
    let steps = ["published ", "attempt 1 ", "attempt 2 ", "result "];
    let places = steps.map(|step| {
        story
            .find(step)
            .unwrap_or_else(|| panic!("{step}: {story}"))
    });
    assert!(places.is_sorted(), "{story}");
    assert!(story.contains("resolves attempt 1:"), "{story}");
    assert!(!story.contains("not known"), "{story}");
    let stats = world.sandbox.stats().await;
    assert_eq!(stats["mails"], stats["sendIdsMailed"], "{stats}");
    assert_eq!(stats["cut"], 1, "{stats}");

    let dead = world.told(&["trace", "refused"]).await;
    assert!(dead.starts_with("refused  dead\n"), "{dead}");
    for id in &ids {
        let told = world.told(&["trace", id, "--json"]).await;
        assert!(!told.contains('@'), "an address: {told}");
    }
}

/// Waits until a call with this outcome, and what followed, is told.
async fn until(world: &World, id: &str, outcome: &str, then: &str) {
    let told = async || {
        let output = world.run(&["trace", id, "--json"]).await;
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines
            .into_iter()
            .any(|line: Value| line["call"]["outcome"] == outcome && line["then"]["what"] == then)
    };
    eventually(TIME_MAX, &format!("{id} {outcome}, {then}"), told).await;
}
