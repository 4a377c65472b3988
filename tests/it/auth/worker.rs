//! Workers that dispatch under OAuth: access tokens that end all the time, a login that is over, an app
//! that is unknown.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::desk::{counts, desk, logged_in, run};
use crate::support::broker;
use crate::support::proxy::{Faults, Proxy};
use crate::whole::world::{World, eventually, ids, within};

const REST_TIME_MAX: Duration = Duration::from_mins(1);

/// A sandbox whose access tokens live for so many seconds.
async fn short_lived(world: &World, seconds: u64) {
    let control = format!(r#"{{"expires_in":{seconds},"rotate":true}}"#);
    world.sandbox.tell("oauth", &control).await;
}

async fn pauses(world: &World, worker: &str) -> Vec<(String, String)> {
    let told = world.told(&["queue", "--json", "--worker", worker]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    let pauses = told["worker"]["accounts"][0]["pauses"].as_array().cloned();
    let text = |pause: &Value, name| pause[name].as_str().unwrap().to_owned();
    let pauses = pauses.unwrap_or_default();
    pauses
        .iter()
        .map(|it| (text(it, "scope"), text(it, "reason")))
        .collect()
}

/// Refresh tokens change each time, and an access token lives for twelve seconds: it is due for the
/// last two.
#[tokio::test]
async fn a_worker_is_ahead_of_every_end_of_its_token() {
    let world = desk(&["--latency", "20ms-80ms"]).await;
    short_lived(&world, 12).await;
    logged_in(&world).await;
    let world = world
        .set("accounts.default.results", "all")
        .set("accounts.default.quota.send.limit", "40")
        .set("accounts.default.quota.send.window", "1s");
    let ids = ids("oauth", 1_200);
    world.publish_backlog(&ids).await;
    let worker = world.worker().await;
    world.sandbox.until_mailed(1_200, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest(0).await;
    let refreshes = counts(&world).await["refreshes"];
    assert!(refreshes >= 2, "{refreshes} refreshes");
    assert_eq!(world.sandbox.stats().await["unauthorized"], 0);
}

#[tokio::test]
async fn a_login_that_is_over_pauses_the_account_until_the_next_one() {
    let world = desk(&[]).await;
    let worker = world.worker().await;
    let address = worker.address();
    let ids = ids("login", 40);
    let mut halves = ids.iter().cloned();
    world.publish(&halves.by_ref().take(20).collect()).await;
    // Nobody has logged in yet.
    worker.until_said("no token is told there").await;
    let log = format!("{:?}", worker.log());
    assert!(
        log.contains("postrider auth login --account default"),
        "{log}"
    );
    let unauthorized = ("account".to_owned(), "unauthorized".to_owned());
    let paused = async || pauses(&world, &address).await.contains(&unauthorized);
    eventually(REST_TIME_MAX, "it is paused", paused).await;
    assert_eq!(world.sandbox.count("mails").await, 0);

    short_lived(&world, 3).await;
    logged_in(&world).await;
    // The first one takes no other's place.
    let proven = "the token is proven: calls go out under it from now on";
    worker.until_said(proven).await;
    world.sandbox.until_mailed(20, REST_TIME_MAX).await;
    let of = |message: &str, name: &str| {
        let log = worker.log();
        let is_it = |line: &&Value| line["message"] == message && line["reason"] == "unauthorized";
        log.iter().find(is_it).unwrap()[name].clone()
    };
    let held = "paused: nothing is lost and no attempt is spent";
    assert_eq!(of(held, "until"), "HubSpot accepts a token");
    let why = of(held, "why").as_str().unwrap().to_owned();
    assert!(
        why.starts_with("no call was made: account `default` is not logged in"),
        "{why}"
    );
    assert_eq!(of("pause over", "why"), "HubSpot accepts the token");

    // The app is uninstalled: the token lives on for a while, and then the account waits.
    world.sandbox.tell("oauth", r#"{"revoke":true}"#).await;
    eventually(REST_TIME_MAX, "it is paused again", paused).await;
    let mailed = world.sandbox.count("mails").await;
    world.publish(&halves.collect()).await;
    assert_eq!(world.sandbox.count("mails").await, mailed);

    logged_in(&world).await;
    world.sandbox.until_mailed(40, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest(0).await;
}

#[tokio::test]
async fn an_app_that_is_unknown_blames_no_account() {
    let world = desk(&[]).await;
    short_lived(&world, 3).await;
    logged_in(&world).await;
    let worker = world.worker().await;
    let address = worker.address();
    let ids = ids("app", 10);
    world
        .sandbox
        .tell("oauth", r#"{"client_secret":"another"}"#)
        .await;
    let app = ("provider".to_owned(), "app".to_owned());
    let told = async || pauses(&world, &address).await == [app.clone()];
    eventually(REST_TIME_MAX, "the app is what is wrong", told).await;
    let check = run(&world, &["check"]).await;
    assert!(check.starts_with("exit 64"), "{check}");
    assert!(
        check.contains("no call was made: HubSpot does not know the app"),
        "{check}"
    );
    world.publish(&ids).await;
    let metrics = worker.metrics().await;
    let line = r#"postrider_pause{account="default",reason="app",scope="provider"} 1"#;
    assert!(metrics.contains(line), "{metrics}");

    world
        .sandbox
        .tell("oauth", r#"{"client_secret":"app-secret"}"#)
        .await;
    world.sandbox.until_mailed(10, REST_TIME_MAX).await;
    let log = worker.log();
    let of = |message: &str, name: &str| {
        let is_it = |line: &&Value| line["message"] == message && line["reason"] == "app";
        log.iter().find(is_it).unwrap()[name].clone()
    };
    assert_eq!(
        of("paused: nothing is lost and no attempt is spent", "until"),
        "HubSpot knows the OAuth app, and gives an access token"
    );
    assert_eq!(
        of("pause over", "why"),
        "HubSpot knows the OAuth app: it gave an access token that it accepts"
    );
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest(0).await;
}

/// One owner dispatches, both look at the same folder: a refresh token that is good once is spent once.
#[tokio::test]
async fn two_workers_of_one_folder_never_spend_a_refresh_token_twice() {
    let broker = broker::shared().await;
    let prefix = broker::prefix("oauth");
    let world = desk(&[]).await;
    let world = world
        .set(
            "queue.url",
            secrecy::ExposeSecret::expose_secret(&broker.url()),
        )
        .set("queue.prefix", &prefix)
        .set("accounts.default.quota.send.limit", "20")
        .set("accounts.default.quota.send.window", "1s");
    short_lived(&world, 3).await;
    logged_in(&world).await;
    let ids = ids("two", 300);
    world.publish_backlog(&ids).await;
    let first = world.worker().await;
    let second = world.worker().await;
    world.sandbox.until_mailed(60, REST_TIME_MAX).await;
    let (owner, other) = if first.is_owner().await {
        (first, second)
    } else {
        (second, first)
    };
    owner.kill().await;
    world.sandbox.until_mailed(300, REST_TIME_MAX).await;
    other.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    let counts = counts(&world).await;
    assert!(counts["refreshes"] >= 4, "{counts:?}");
    assert_eq!(counts["refused"], 0, "{counts:?}");
}

/// What HubSpot said of a token when it issued it proves nothing while it refuses it.
#[tokio::test]
async fn a_refused_access_token_pauses_the_account_once() {
    let world = desk(&[]).await;
    logged_in(&world).await;
    let worker = world.worker().await;
    let ids = ids("refused", 40);
    let mut halves = ids.iter().cloned();
    world.publish(&halves.by_ref().take(20).collect()).await;
    world.sandbox.until_mailed(20, REST_TIME_MAX).await;
    world.sandbox.tell("faults", "401=8s").await;
    world.publish(&halves.collect()).await;
    world.sandbox.until_mailed(40, REST_TIME_MAX).await;
    worker.until_idle(REST_TIME_MAX).await;
    let log = worker.log();
    let of = |message: &str| {
        let is = |line: &&Value| line["message"] == message;
        let lines: Vec<_> = log.iter().filter(is).collect();
        lines.len()
    };
    assert_eq!(
        of("paused: nothing is lost and no attempt is spent"),
        1,
        "{log:?}"
    );
    // That of the start, and that one.
    assert_eq!(of("pause over"), 2, "{log:?}");
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&ids).await;
    world.assert_at_rest(0).await;
}

/// A login whose access token has ended, and a wire to the sandbox that lets nothing come back: HubSpot
/// gives a new refresh token for the old one, and its answer is on its way for as long as the test likes.
async fn held_refresh() -> (World, Proxy) {
    let world = desk(&[]).await;
    short_lived(&world, 0).await;
    logged_in(&world).await;
    short_lived(&world, 1_800).await;
    let wire = Proxy::to(world.sandbox.port()).await;
    wire.set(Faults {
        holds_back: true,
        ..Faults::default()
    });
    (world, wire)
}

async fn until_refreshed(world: &World) {
    let refreshed = async || counts(world).await["refreshes"] == 1;
    eventually(REST_TIME_MAX, "HubSpot has answered", refreshed).await;
}

/// Only the refresh token that the sandbox gave last opens the account.
async fn assert_it_was_kept(world: World, base: &str) {
    let world = world.set("accounts.default.base_url", base);
    let told = run(&world, &["check"]).await;
    assert!(told.starts_with("exit 0"), "{told}");
    assert_eq!(counts(&world).await["refused"], 0);
}

#[tokio::test]
async fn a_worker_that_stops_waits_for_the_refresh_under_way() {
    let (world, wire) = held_refresh().await;
    stops_in_order(world, wire).await;
}

/// Where the portal is pinned, the token is asked about before the worker begins.
#[tokio::test]
async fn a_worker_that_stops_before_it_began_waits_for_the_refresh_under_way() {
    let (world, wire) = held_refresh().await;
    stops_in_order(world.set("accounts.default.portal_id", "42"), wire).await;
}

async fn stops_in_order(world: World, wire: Proxy) {
    let base = world.sandbox.base().to_owned();
    let through = format!("http://127.0.0.1:{}", wire.port());
    let world = world.set("accounts.default.base_url", &through);
    let mut worker = world.start_worker();
    until_refreshed(&world).await;
    worker.signal("-TERM").await;
    worker
        .until_said_like("waits for HubSpot's answer to a refresh")
        .await;
    assert!(worker.is_running());
    wire.set(Faults::default());
    assert_eq!(worker.ended().await.code(), Some(0));
    assert_it_was_kept(world, &base).await;
}

#[tokio::test]
async fn an_interrupted_check_waits_for_the_refresh_under_way() {
    let (world, wire) = held_refresh().await;
    let base = world.sandbox.base().to_owned();
    let through = format!("http://127.0.0.1:{}", wire.port());
    let world = world.set("accounts.default.base_url", &through);
    let mut check = world.command(&["check"]).spawn().unwrap();
    until_refreshed(&world).await;
    let pid = check.id().unwrap().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().await;
    assert!(sent.unwrap().success());
    let mut talk = BufReader::new(check.stderr.take().unwrap()).lines();
    let says = async {
        while let Some(line) = talk.next_line().await.unwrap() {
            if line.contains("waits for HubSpot's answer to a refresh") {
                return;
            }
        }
        panic!("it never said that it waits");
    };
    within(REST_TIME_MAX, "it says that it waits", says).await;
    wire.set(Faults::default());
    let ended = within(REST_TIME_MAX, "it ends", check.wait()).await;
    assert_eq!(ended.unwrap().code(), Some(130));
    assert_it_was_kept(world, &base).await;
}
