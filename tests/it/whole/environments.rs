//! Development, QA and production: what leaves a worker of each, and what a variable cannot change.

use std::collections::BTreeSet;
use std::process::Output;
use std::time::Duration;

use lapin::BasicProperties;

use super::world::{World, eventually, request};
use crate::support::broker;
use crate::support::producer::Producer;

const REST_TIME_MAX: Duration = Duration::from_mins(1);

const HOLD: &str = "environment = 'qa'\n";
const ALLOW: &str = "environment = 'qa'\n[delivery]\nmode = 'allow'\nallow = 'bo@example.com'\n";
const SINK: &str = "environment = 'qa'\n[delivery]\nmode = 'sink'\nsink = 'qa@example.com'\n";
const SANDBOX: &str = "environment = 'qa'\n[delivery]\nmode = 'sandbox'\n";

/// From now on its commands and workers read this file.
fn configure(world: &World, text: &str) {
    let folder = world.path("config");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("postrider.toml"), text).unwrap();
}

async fn until_dead(world: &World, count: usize) {
    let all = async || world.dead().await.len() == count;
    eventually(REST_TIME_MAX, &format!("{count} are dead letters"), all).await;
}

async fn mails(world: &World) -> BTreeSet<(String, String)> {
    world.sandbox.mails().await.into_iter().collect()
}

fn mail(id: &str, to: &str) -> (String, String) {
    (id.to_owned(), to.to_owned())
}

/// Held whole, shown whole; then replayed where its recipient is allowed, and mailed once.
async fn held_and_replayed(world: &World) {
    configure(world, HOLD);
    let worker = world.worker().await;
    let lines = request("held-bo", "bo@example.com") + &request("held-eve", "eve@example.com");
    world.publish_lines(&lines).await;
    until_dead(world, 2).await;
    for letter in world.dead().await {
        assert_eq!(letter["reason"], "operator", "{letter}");
        let problem = letter["problem"].as_str().unwrap();
        assert!(problem.starts_with("held: environment \"qa\""), "{problem}");
    }
    let shown = world.told(&["dead", "show", "held-bo"]).await;
    assert!(
        shown.contains("bo@example.com") && shown.contains("delivery.mode"),
        "{shown}"
    );
    assert!(
        shown.contains("`postrider dead replay held-bo` sends it"),
        "{shown}"
    );
    worker.stop().await;
    assert_eq!(world.sandbox.count("sendCalls").await, 0);

    configure(world, ALLOW);
    let worker = world.worker().await;
    world.told(&["dead", "replay", "--all", "--yes"]).await;
    world.sandbox.until_mailed(1, REST_TIME_MAX).await;
    until_dead(world, 1).await;
    worker.finish(REST_TIME_MAX).await;
    assert_eq!(
        mails(world).await,
        BTreeSet::from([mail("held-bo", "bo@example.com")])
    );
    let letter = &world.dead().await[0];
    let problem = letter["problem"].as_str().unwrap();
    assert!(
        problem.contains("mails only to delivery.allow"),
        "{problem}"
    );
    assert!(!problem.contains('@'), "{problem}");
}

#[tokio::test]
async fn what_is_held_on_sqlite_goes_out_once_where_it_is_allowed() {
    let world = World::on_sqlite(&[]).await;
    held_and_replayed(&world).await;
    world.assert_at_rest(1).await;
}

#[tokio::test]
async fn what_is_held_on_rabbitmq_goes_out_once_where_it_is_allowed() {
    let broker = broker::shared().await;
    let prefix = broker::prefix("environments");
    let world = World::on_broker(broker, &prefix, &[]).await;
    held_and_replayed(&world).await;

    // Marked for another environment, and published by a client that asks nobody.
    let body = marked("strange", "production");
    let worker = world.worker().await;
    let producer = Producer::to(broker).await;
    let properties = BasicProperties::default().with_delivery_mode(2);
    producer
        .publish(&prefix, "send", body.as_bytes(), properties)
        .await;
    until_dead(&world, 2).await;
    worker.stop().await;
    assert_refused_mark(&world).await;
    world.assert_at_rest_on(broker, 2).await;
}

#[tokio::test]
async fn a_sink_gets_everything_and_a_sandbox_everyone() {
    let world = World::on_sqlite(&[]).await;
    configure(&world, SINK);
    let worker = world.worker().await;
    let copied = r#"{"emailId":7,"message":{"to":"bo@example.com","sendId":"sink-2",
                     "cc":["eve@example.com"]},"contactProperties":{"email":"bo@example.com"}}"#;
    let lines = request("sink-1", "ada@example.com") + &copied.replace('\n', "") + "\n";
    world.publish_lines(&lines).await;
    world.sandbox.until_mailed(2, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    let to_sink = ["sink-1", "sink-2"].map(|id| mail(id, "qa@example.com"));
    assert_eq!(mails(&world).await, BTreeSet::from(to_sink.clone()));
    for id in ["sink-1", "sink-2"] {
        let story = world.told(&["trace", id]).await;
        let told = story.matches("to delivery.sink alone").count();
        assert_eq!(told, 2, "in the head, and at the attempt: {story}");
        assert!(!story.contains('@'), "an address: {story}");
    }

    configure(&world, SANDBOX);
    let worker = world.worker().await;
    let started = worker.log();
    let started = started
        .iter()
        .find(|line| line["message"] == "worker started");
    let started = started.unwrap();
    assert_eq!(
        (&started["environment"], &started["delivery"]),
        (&"qa".into(), &"sandbox".into())
    );
    world
        .publish_lines(&request("sandbox-1", "ada@example.com"))
        .await;
    world.sandbox.until_mailed(3, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    let mut all = BTreeSet::from(to_sink);
    all.insert(mail("sandbox-1", "ada@example.com"));
    let story = world.told(&["trace", "sandbox-1"]).await;
    assert!(!story.contains("sink"), "{story}");
    assert_eq!(mails(&world).await, all);
    world.assert_at_rest(0).await;
    let check = world.told(&["check"]).await;
    assert!(
        check.contains("environment: qa: mail goes to a sandbox (delivery.mode = \"sandbox\")"),
        "{check}"
    );
}

fn marked(id: &str, environment: &str) -> String {
    let dispatch = format!(r#","dispatch":{{"environment":"{environment}"}}}}"#);
    let plain = request(id, "bo@example.com");
    plain.trim_end().strip_suffix('}').unwrap().to_owned() + &dispatch + "\n"
}

/// The worker of QA met `strange`, which is marked for production.
async fn assert_refused_mark(world: &World) {
    let dead = world.dead().await;
    let letter = dead.iter().find(|letter| letter["id"] == "strange");
    let letter = letter.unwrap();
    assert_eq!(letter["reason"], "malformed", "{letter}");
    let problem = letter["problem"].as_str().unwrap();
    assert!(
        problem.contains("\"production\"") && problem.contains("\"qa\""),
        "{problem}"
    );
    let mailed = world.sandbox.mails().await;
    assert!(mailed.iter().all(|(id, _)| id != "strange"), "{mailed:?}");
}

#[tokio::test]
async fn a_mark_of_another_environment_is_refused_at_the_door_and_by_the_worker() {
    let world = World::on_sqlite(&[]).await;
    configure(&world, SANDBOX);
    let sent = world.send(&marked("door", "production")).await;
    let told = said(&sent);
    assert_eq!(sent.status.code(), Some(65), "{told}");
    for word in ["line 1: ", "\"production\"", "\"qa\"", "hint: "] {
        assert!(told.contains(word), "{word}: {told}");
    }
    // Of a file nothing at all is published.
    let lines = marked("fine", "qa") + &request("plain", "bo@example.com");
    let path = world.path("requests.jsonl");
    std::fs::write(&path, lines.clone() + &marked("door", "production")).unwrap();
    let sent = world.run(&["send", path.to_str().unwrap()]).await;
    assert_eq!(sent.status.code(), Some(65));
    assert!(
        said(&sent).contains("nothing was published"),
        "{}",
        said(&sent)
    );
    world.assert_at_rest(0).await;

    // It got past: by another configuration's `send`.
    configure(&world, "environment = 'production'\n");
    world.publish_lines(&marked("strange", "production")).await;
    configure(&world, SANDBOX);
    world.publish_lines(&lines).await;
    let worker = world.worker().await;
    world.sandbox.until_mailed(2, REST_TIME_MAX).await;
    until_dead(&world, 1).await;
    worker.until_said("dead letter").await;
    let log = worker.log();
    let line = log.iter().find(|line| line["message"] == "dead letter");
    assert_eq!(
        line.unwrap()["problem"],
        r#"dispatch.environment is "production", and this is the environment "qa""#
    );
    worker.finish(REST_TIME_MAX).await;
    assert_refused_mark(&world).await;
    let ours = ["fine", "plain"].map(|id| mail(id, "bo@example.com"));
    assert_eq!(mails(&world).await, BTreeSet::from(ours));
    world.assert_at_rest(1).await;
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A worker that ends at once with 64, and says these words.
async fn assert_unusable(world: &World, words: &[&str]) {
    let ended = world.run(&["worker"]).await;
    let told = said(&ended);
    assert_eq!(ended.status.code(), Some(64), "{told}");
    for word in words {
        assert!(told.contains(word), "{word}: {told}");
    }
}

#[tokio::test]
async fn no_variable_changes_what_the_file_says_of_who_gets_mail() {
    let file = "config/postrider.toml line 1";
    let world = World::on_sqlite(&[]).await;
    let base = world.sandbox.base().to_owned();
    let world = world.set("environment", "qa");
    configure(&world, "environment = 'production'\n");
    assert_unusable(&world, &["environment", file, "POSTRIDER_ENVIRONMENT"]).await;
    let world = world.set("environment", "production");
    configure(&world, HOLD);
    assert_unusable(&world, &["environment", file, "POSTRIDER_ENVIRONMENT"]).await;

    let world = world.unset("environment");
    let world = world.set("accounts.default.portal_id", "2");
    configure(&world, "accounts.default.portal_id = 1\n");
    let variable = "POSTRIDER_ACCOUNTS__DEFAULT__PORTAL_ID";
    assert_unusable(&world, &["accounts.default.portal_id", file, variable]).await;

    let world = world.unset("accounts.default.portal_id");
    let world = world.set("delivery.mode", "sandbox");
    configure(&world, HOLD);
    let world = world.set("accounts.default.base_url", "https://api.hubapi.com");
    assert_unusable(&world, &["accounts.default.base_url", "api.hubapi.com"]).await;
    configure(&world, SANDBOX);
    assert_unusable(&world, &["accounts.default.base_url", "api.hubapi.com"]).await;

    // With nothing to contradict, the same worker starts.
    let world = world.set("accounts.default.base_url", &base);
    world.worker().await.stop().await;
}
