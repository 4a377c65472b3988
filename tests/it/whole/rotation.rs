//! A broker's password, and a token, that are changed under a running worker.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::world::{World, eventually, ids, report, within};
use crate::support::proxy::Proxy;
use crate::support::{broker, secret};

const REST_TIME_MAX: Duration = Duration::from_mins(1);
/// From a token to the next one.
const ROTATION: Duration = Duration::from_secs(10);
/// After that a changed file is in force: the old token may be revoked.
const TAKEN_OVER: Duration = Duration::from_secs(5);

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
        secret::keep(&file, &url);
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

/// `POSTRIDER_TEST_ROTATIONS=60` takes ten minutes.
#[tokio::test]
async fn a_token_that_is_rotated_under_load_fails_no_send() {
    let began = Instant::now();
    let asked = std::env::var_os("POSTRIDER_TEST_ROTATIONS");
    let rotations = asked.map_or(3, |number| number.to_str().unwrap().parse().unwrap());
    let world = World::on_sqlite(&["--latency", "20ms-80ms"]).await;
    let file = world.path("token");
    let token = |number: usize| format!("pat-na1-rotated-{number}");
    secret::keep(&file, &token(0));
    world.sandbox.tell("token", &token(0)).await;
    let world = world
        .unset("accounts.default.token")
        .set("accounts.default.token_file", file.to_str().unwrap())
        .set("accounts.default.portal_id", "62515")
        .set("accounts.default.results", "all")
        .set("accounts.default.quota.send.limit", "40")
        .set("accounts.default.quota.send.window", "1s");
    // A little more than goes out meanwhile.
    let ids = ids("under-load", rotations * 10 * 40 + 400);
    world.publish_backlog(&ids).await;
    let worker = world.worker().await;
    world.sandbox.until_mailed(1, REST_TIME_MAX).await;
    for number in 1..=rotations {
        let (old, new) = (token(number - 1), token(number));
        world.sandbox.tell("token", &format!("{old}\n{new}")).await;
        let next = Instant::now() + ROTATION;
        secret::keep(&file, &new);
        sleep(TAKEN_OVER).await;
        world.sandbox.tell("token", &new).await;
        let mailed = world.sandbox.count("mails").await;
        world.sandbox.until_mailed(mailed + 1, REST_TIME_MAX).await;
        tokio::time::sleep_until(next).await;
    }
    let count = ids.len() as u64;
    world.sandbox.until_mailed(count, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest(0).await;
    let stats = world.sandbox.stats().await;
    assert_eq!(stats["unauthorized"], 0, "{stats}");
    let figures = format!("{rotations} rotations, {count} sends, none refused");
    report("token rotated", began, &figures);
}

/// Neither at the start nor by a file that changes under a worker that mails.
#[tokio::test]
async fn a_token_of_another_account_mails_nobody() {
    let world = World::on_sqlite(&["--account-type", "SANDBOX"]).await;
    let file = world.path("token");
    secret::keep(&file, "pat-na1-of-ours");
    let world = world
        .unset("accounts.default.token")
        .set("accounts.default.token_file", file.to_str().unwrap())
        .set("accounts.default.account_type", "STANDARD");
    let output = world.run(&["worker"]).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert!(
        told.contains("SANDBOX") && told.contains("STANDARD"),
        "{told}"
    );

    let world = world
        .set("accounts.default.account_type", "SANDBOX")
        .set("accounts.default.portal_id", "62515");
    let worker = world.worker().await;
    let ids = ids("ours", 20);
    let mut halves = ids.iter().cloned();
    world.publish(&halves.by_ref().take(10).collect()).await;
    world.sandbox.until_mailed(10, REST_TIME_MAX).await;
    secret::keep(&file, "pat-na1-portal-42");
    worker
        .until_said_like("another token stands ready and is not proven")
        .await;
    // Of one that HubSpot refuses, its own words are told.
    world.sandbox.tell("token", "pat-na1-of-ours").await;
    secret::keep(&file, "pat-na1-of-nobody");
    let words = "HubSpot answers 401: INVALID_AUTHENTICATION Authentication credentials not found.";
    let is_told = |line: &Value| {
        let why = line["why"].as_str();
        why.is_some_and(|why| why.starts_with(words))
    };
    let told = async || worker.log().iter().any(is_told);
    eventually(REST_TIME_MAX, "it says why", told).await;
    world.publish(&halves.collect()).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    // Another portal's mail would be told apart by its `sendId`s alone; its calls are told by number.
    let calls = world.sandbox.calls().await;
    let others = calls.iter().filter(|call| call["portal"] == 42);
    assert!(others.clone().count() > 0, "it was asked about");
    assert!(
        others.into_iter().all(|call| call["bucket"] == "api"),
        "and nothing was sent"
    );
}

/// It has no terminal that would tell it of Ctrl-C.
#[tokio::test]
async fn an_interrupted_check_leaves_no_command_behind() {
    let world = World::on_sqlite(&[]).await;
    let file = world.path("pid");
    let world = world.unset("accounts.default.token").set(
        "accounts.default.token_command",
        "echo $$ >pid; exec sleep 600",
    );
    let mut check = world.command(&["check"]).spawn().unwrap();
    let pid = async || std::fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n'));
    eventually(REST_TIME_MAX, "the command runs", pid).await;
    let own = check.id().unwrap().to_string();
    let sent = Command::new("kill").args(["-INT", &own]).status().await;
    assert!(sent.unwrap().success());
    let ended = within(REST_TIME_MAX, "it ends", check.wait()).await;
    assert_eq!(ended.unwrap().code(), Some(130));
    let pid = std::fs::read_to_string(&file).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    // Killed, and perhaps not asked after by anybody.
    let dead = async || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z"));
    eventually(REST_TIME_MAX, "the command is dead", dead).await;
}

#[tokio::test]
async fn a_token_that_cannot_take_over_is_shown_to_operators() {
    let world = World::on_sqlite(&[]).await;
    let file = world.path("token");
    let (good, wrong) = ("pat-na1-good", "pat-na1-wrong");
    secret::keep(&file, good);
    world.sandbox.tell("token", good).await;
    let world = world
        .unset("accounts.default.token")
        .set("accounts.default.token_file", file.to_str().unwrap());
    let worker = world.worker().await;
    let address = worker.address();
    let ids = ids("shown", 2);
    let mut one_by_one = ids.iter().map(|id| BTreeSet::from([id.clone()]));
    world.publish(&one_by_one.next().unwrap()).await;
    world.sandbox.until_mailed(1, REST_TIME_MAX).await;
    let gauge = |key: &str, value: u8| {
        format!("postrider_token_trouble{{account=\"default\",key=\"{key}\"}} {value}")
    };
    let shows = async |line: String| {
        let shows = async || worker.metrics().await.lines().any(|it| it == line);
        eventually(REST_TIME_MAX, &line, shows).await;
    };
    shows(gauge("token", 0)).await;

    secret::keep(&file, wrong);
    shows(gauge("token", 1)).await;
    shows(gauge("next_token", 0)).await;
    let refused = "postrider_hubspot_responses_total{account=\"default\",status=\"401\"} 2";
    shows(refused.to_owned()).await;
    let told = world.told(&["queue", "--worker", &address]).await;
    let place = file.display();
    let line = format!("token trouble, token ({place}): it is not proven: HubSpot answers 401");
    assert!(
        told.contains(&line) && told.contains("next step: "),
        "{told}"
    );
    let json = world.told(&["queue", "--json", "--worker", &address]).await;
    let status: Value = serde_json::from_str(&json).unwrap();
    let trouble = &status["worker"]["accounts"][0]["token_troubles"][0];
    assert_eq!(trouble["key"], "token", "{json}");
    assert!(!(told + &json).contains(wrong), "a token is told");
    // Mail goes on.
    world.publish(&one_by_one.next().unwrap()).await;
    world.sandbox.until_mailed(2, REST_TIME_MAX).await;

    secret::keep(&file, good);
    shows(gauge("token", 0)).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
}
