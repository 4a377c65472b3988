//! Producers that nobody here wrote, pika and amqplib: every good request is mailed once, every
//! broken one is a dead letter that says why.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::Instant;

use super::world::{World, report, within};
use crate::clients::{part, script};
use crate::support::broker::Broker;

/// Of each of the two producers.
const COUNT: &str = "2500";
/// 2,500 confirms, one by one.
const SCRIPT_TIME_MAX: Duration = Duration::from_mins(1);
const REST_TIME_MAX: Duration = Duration::from_mins(1);

/// How each broken request dies, and a word of its problem.
const DEATHS: [(&str, &str, &str); 20] = [
    ("not_json", "malformed", "is not JSON"),
    ("wrong_type", "malformed", "expected a string"),
    ("no_recipient", "malformed", "missing field `to`"),
    ("role_address", "malformed", "refuses role addresses"),
    ("unknown_field", "malformed", "unknown field"),
    ("no_id", "malformed", "there is no id"),
    ("two_ids", "malformed", "differ"),
    ("not_utf8", "malformed", "is not UTF-8"),
    ("too_large", "malformed", "at most 262144"),
    ("expired", "expired", "dispatch.expiresAt"),
    ("float_email_id", "malformed", "no request"),
    ("text_email_id", "malformed", "no request"),
    ("negative_email_id", "malformed", "positive"),
    ("empty_recipient", "malformed", "there is no recipient"),
    ("no_address", "malformed", "no email address"),
    ("no_object", "malformed", "expected an object"),
    ("properties_no_object", "malformed", "are objects"),
    ("no_such_account", "malformed", "no worker has that account"),
    ("rejected", "rejected", "HubSpot"),
    ("refused", "refused", "PREVIOUSLY_BOUNCED"),
];

#[tokio::test]
async fn what_pika_and_amqplib_publish_is_mailed_once_or_explained() {
    let began = Instant::now();
    let broker = Broker::start().await;
    let url = broker.url();
    let url = url.expose_secret();
    let world = World::on_broker(&broker, "postrider", &["--results-after", "0s-1s"]).await;
    let world = world.set("accounts.default.results", "all");
    let worker = world.worker().await;
    let (pika, amqplib) = tokio::join!(
        run(python(&["publish", url, COUNT])),
        run(node(&[url, COUNT]))
    );
    let published = [pika, amqplib].concat();
    assert_eq!(published.len(), 5_000);
    let (bad, good): (Vec<_>, Vec<_>) = published
        .into_iter()
        .partition(|request| request["broken"].is_string());
    let good: BTreeSet<String> = good.iter().map(|request| text(request, "id")).collect();
    assert_eq!((good.len(), bad.len()), (4_500, 500));
    (world.sandbox).until_mailed(4_500, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;

    world.assert_mailed(&good).await;
    let dead = run(python(&["dead", url, "postrider.dead"])).await;
    assert_explained(&bad, &dead);
    world.assert_at_rest_on(&broker, 500).await;
    assert_eq!(world.dead().await.len(), 500, "the command finds them too");
    report(
        "pika and amqplib",
        began,
        "5000 published, 4500 mailed once, 500 dead letters of 20 kinds",
    );
}

/// Each broken body stands there as it was published, with the reason of its kind.
fn assert_explained(bad: &[Value], dead: &[Value]) {
    let mut stand: BTreeMap<String, &Value> = BTreeMap::new();
    for letter in dead {
        let twice = stand.insert(text(letter, "sha256"), letter);
        assert!(twice.is_none(), "stands twice: {letter}");
    }
    let mut kinds = BTreeSet::new();
    for request in bad {
        let kind = text(request, "broken");
        let death = DEATHS.iter().find(|(name, ..)| *name == kind).unwrap();
        let letter = stand.remove(&text(request, "sha256"));
        let letter = letter.unwrap_or_else(|| panic!("no dead letter of {request}"));
        assert_eq!(letter["reason"], death.1, "{kind}: {letter}");
        assert!(
            text(letter, "problem").contains(death.2),
            "{kind}: {letter}"
        );
        kinds.insert(kind);
    }
    assert!(
        stand.is_empty(),
        "nobody published {:?}",
        stand.first_key_value()
    );
    assert_eq!(kinds.len(), DEATHS.len());
}

fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap().to_owned()
}

fn python(args: &[&str]) -> Command {
    let mut command = Command::new(part("POSTRIDER_TEST_PYTHON", "venv/bin/python"));
    command.arg(script("producer.py")).args(args);
    command
}

fn node(args: &[&str]) -> Command {
    let mut command = Command::new("node");
    command.arg(script("producer.js")).args(args);
    let modules = part("POSTRIDER_TEST_NODE_MODULES", "node/node_modules");
    command.env("NODE_PATH", modules);
    command
}

/// Runs a script to its end, and reads the lines that it printed.
async fn run(mut command: Command) -> Vec<Value> {
    command.kill_on_drop(true);
    let output = within(SCRIPT_TIME_MAX, "the producer's end", command.output());
    let output = output.await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
