//! No secret is told: of a whole run with trouble of every kind, everything that was written is searched
//! for each of them, with every library talking.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::world::{World, ids};
use crate::support::broker;
use crate::support::secret::{assert_told_none, keep, keep_with_mode};

const REST_TIME_MAX: Duration = Duration::from_mins(1);
/// In the place of what nobody may see. Long, so that nothing else is like it.
const TOKEN: &str = "pat-na1-5ec2e700-aaaa-bbbb-cccc-000000000001";
const NEXT: &str = "pat-na1-5ec2e700-aaaa-bbbb-cccc-000000000002-unscoped";
const ROTATED: &str = "pat-na1-5ec2e700-aaaa-bbbb-cccc-000000000003";
const PASSWORD: &str = "5ec2e7-pass-word-of-the-broker";
/// Mail is no secret of ours, and still not for a log.
const RECIPIENT: &str = "5ec2e7.recipient";

const SECRETS: [&str; 5] = [TOKEN, NEXT, ROTATED, PASSWORD, RECIPIENT];

/// What the system shows of a process to everybody.
fn command_line(pid: u32) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/cmdline")).unwrap()
}

async fn world() -> World {
    let broker = broker::shared().await;
    let user = broker::prefix("secrets");
    broker.ctl(&["add_user", &user, PASSWORD]).await;
    let all = ["set_permissions", user.as_str(), ".*", ".*", ".*"];
    broker.ctl(&all).await;
    let world = World::on_broker(broker, &user, &["--latency", "5ms-20ms"]).await;
    let url = format!("amqp://{user}:{PASSWORD}@127.0.0.1:{}/%2f", broker.port());
    let (token, next) = (world.path("token"), world.path("next"));
    keep(&token, TOKEN);
    keep(&next, NEXT);
    let file = |path: &Path| path.to_str().unwrap().to_owned();
    world
        .unset("accounts.default.token")
        .set("queue.url", &url)
        .set("accounts.default.token_file", &file(&token))
        .set("accounts.default.next_token_file", &file(&next))
        .set("accounts.default.portal_id", "62515")
        .set("accounts.default.results", "all")
        .set("retry.max_attempts", "2")
        .set("retry.initial", "100ms")
        .env("RUST_LOG", "trace")
}

#[tokio::test]
async fn nothing_that_is_written_holds_a_secret() {
    let world = world().await;
    let mut worker = world.start_worker();
    worker.until_ready().await;
    let mut written = vec![("the process list", command_line(worker.id()))];
    // Mail that goes, that is refused, that is malformed; a token that is refused, wrong and rotated.
    let trouble = |number: usize| match number % 4 {
        0 => format!("{RECIPIENT}{number}@example.com"),
        1 => format!("{RECIPIENT}+PREVIOUSLY_BOUNCED@example{number}.com"),
        2 => format!("{RECIPIENT}+http400@example{number}.com"),
        _ => format!("{RECIPIENT}+5xx@example{number}.com"),
    };
    world.publish_to(&ids("secret", 40), trouble).await;
    worker
        .until_said_like("another token stands ready and is not proven")
        .await;
    world.sandbox.tell("token", ROTATED).await;
    world
        .publish_to(&ids("refused", 5), |n| {
            format!("{RECIPIENT}{n}@example.com")
        })
        .await;
    worker.until_said_like("paused").await;
    keep_with_mode(&world.path("token"), ROTATED, 0o644);
    worker.until_said_like("no token is told there").await;
    keep(&world.path("token"), ROTATED);
    worker.until_said_like("another token is proven").await;
    world.sandbox.tell("faults", "cut=0.3,5xx=0.3").await;
    world
        .publish_to(&ids("faulty", 20), |n| {
            format!("{RECIPIENT}{n}@example.com")
        })
        .await;
    world.sandbox.tell("faults", "").await;
    worker.until_idle(REST_TIME_MAX).await;

    let address = worker.address();
    for path in ["/metrics", "/api/status", "/readyz", "/"] {
        let told = world.sandbox.ask(&format!("http://{address}{path}")).await;
        written.push((path, told.into_bytes()));
    }
    let dead = world.dead().await;
    assert!(dead.len() >= 20, "{} dead letters", dead.len());
    for args in [
        &["check"][..],
        &["check", "--json"],
        &["check", "--show"],
        &["check", "--show", "--json"],
        &["queue", "--json", "--worker", &address],
        &["queue", "--worker", &address],
        &["trace", "secret-000", "--json"],
        &["why", "secret-000"],
        &["dead", "list"],
        &["dead", "list", "--json", "--group"],
    ] {
        let output = world.run(args).await;
        written.push(("a command", [output.stdout, output.stderr].concat()));
    }
    worker.signal("-TERM").await;
    assert!(worker.ended().await.success());
    written.push((
        "the worker's log",
        std::fs::read(world.path("worker-1.log")).unwrap(),
    ));
    for (what, bytes) in &written {
        assert_told_none(what, bytes, &SECRETS);
    }
    // It is the log of somebody who talks: every library had its say.
    let log = String::from_utf8_lossy(&written.last().unwrap().1).into_owned();
    for talker in ["hyper", "lapin", "reqwest", "postrider"] {
        let said = format!("\"target\":\"{talker}");
        assert!(log.contains(&said), "{talker} has said something");
    }
    assert!(log.contains("\"TRACE\""), "everything was asked for");
}

#[tokio::test]
async fn a_configuration_that_is_wrong_is_told_without_its_secrets() {
    let world = World::on_sqlite(&[]).await;
    let secret = json!({"token": TOKEN, "password": PASSWORD}).to_string();
    for (key, value) in [
        ("queue.url", format!("amqp://ada:{PASSWORD}@[::1/x")),
        ("queue.url", PASSWORD.to_owned()),
        ("accounts.default.token", format!("{TOKEN} {TOKEN}")),
        (
            "accounts.default.base_url",
            format!("https://api.hubapi.com?hapikey={TOKEN}"),
        ),
        ("accounts.default.hapikey", TOKEN.to_owned()),
        ("accounts.default.quota.tier", secret.clone()),
        ("accounts.default.next_token", format!("{TOKEN}\n{TOKEN}")),
        (
            "accounts.default.token_command",
            format!("echo {TOKEN} >&2; exit 1"),
        ),
    ] {
        let wrong = World::on_sqlite(&[]).await;
        let wrong = match key {
            "accounts.default.token_command" => wrong.unset("accounts.default.token"),
            _ => wrong,
        };
        let output = wrong.set(key, &value).run(&["check"]).await;
        assert!(!output.status.success(), "{key}");
        let told = [output.stdout, output.stderr].concat();
        if key == "accounts.default.quota.tier" {
            // What is no secret's key is repeated, and then so is what somebody put there.
            continue;
        }
        assert_told_none(key, &told, &SECRETS);
    }
    drop(world);
}

/// A dump of the memory would hold every token. By its signal a process without this has one.
#[tokio::test]
async fn a_crash_leaves_no_dump_of_the_memory() {
    let world = World::on_sqlite(&[]).await;
    let unlimited = ["sh", "-c", "ulimit -c unlimited; exec \"$@\"", "sh"];
    let world = world.through(unlimited.map(str::to_owned).to_vec());
    let mut worker = world.worker().await;
    worker.signal("-ABRT").await;
    let ended = worker.ended().await;
    assert_eq!(ended.signal(), Some(6), "{ended:?}");
    assert!(!ended.core_dumped(), "{ended:?}");
}
