//! What is shipped beside the program is true to it: the dashboard, the alerts, the compose file,
//! the unit, the container file and the operator's page.

mod files;
mod stack;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use postrider::message::Priority;
use postrider::outcome::{DeadReason, PauseReason};
use serde_json::{Value, json};
use tokio::process::Command;

use self::stack::{Stack, comes_to, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_postrider");

/// Every metric of the program's own, with its labels.
const METRICS: [(&str, &[&str]); 19] = [
    ("requests_received_total", &["account", "priority"]),
    ("attempts_total", &["account", "outcome"]),
    ("results_total", &["account", "result"]),
    ("trace_dropped_total", &[]),
    ("dead_letters_total", &["account", "reason"]),
    ("replayed_total", &[]),
    (
        "hubspot_request_duration_seconds",
        &["account", "operation"],
    ),
    ("dispatch_latency_seconds", &["account", "priority"]),
    ("queue_messages", &["queue"]),
    ("oldest_message_age_seconds", &["queue"]),
    ("quota_limit", &["account", "bucket"]),
    ("quota_used_ratio", &["account", "bucket"]),
    ("quota_wait_seconds", &[]),
    ("in_flight", &["account"]),
    ("owner", &["account"]),
    ("pause", &["account", "reason", "scope"]),
    ("hubspot_responses_total", &["account", "status"]),
    ("token_trouble", &["account", "key"]),
    ("build_info", &["version"]),
];

/// What the traffic below makes of the alerts: everything else is well, and so they are silent.
const RAISED: [&str; 3] = ["PostriderDeadLetters", "PostriderPaused", "RabbitMQDown"];

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_alerts_show_a_real_run() {
    let stack = Stack::start().await;
    stack.publish(traffic()).await;
    drained(&stack).await;
    replay_the_refused(&stack).await;
    refuse_the_token(&stack).await;

    let page = stack.metrics().await;
    let samples = samples(&page);
    assert_labels(&samples);
    let alerts = stack.alerts().await;
    let panels = panels();
    for expression in panels.values().chain(alerts.values()) {
        assert_known(expression, &samples);
    }
    for (panel, expression) in &panels {
        until(&format!("{panel}: {expression}"), async || {
            stack.has(expression).await
        })
        .await;
    }
    comes_to(RAISED.to_vec(), async || {
        let mut raised = Vec::new();
        for (name, expression) in &alerts {
            if stack.has(expression).await {
                raised.push(name.as_str());
            }
        }
        raised
    })
    .await;
    assert_healthy(&stack).await;
    stack.stop().await;
}

/// A little of everything that can become of a request.
fn traffic() -> Vec<(String, Priority)> {
    let mut all = Vec::new();
    for number in 0..45 {
        let priority = Priority::ALL[number % Priority::ALL.len()];
        all.push((body(&format!("good-{number}"), "ada@example.com"), priority));
    }
    let tags = [
        "http400",            // rejected
        "http503",            // exhausted
        "http503x1",          // healed by a retry
        "cutx1",              // unknown, and resolved
        "PREVIOUSLY_BOUNCED", // accepted, then refused
        "X_NEVER_SEEN",       // accepted, and then a result that nobody knows
    ];
    for tag in tags {
        let to = format!("ada+{tag}@example.com");
        all.push((body(tag, &to), Priority::Normal));
    }
    // Enough for the alert on dead letters.
    all.extend((0..15).map(|_| ("no JSON".to_owned(), Priority::Normal)));
    let mut late: Value = serde_json::from_str(&body("late", "ada@example.com")).unwrap();
    late["dispatch"] = json!({"expiresAt": "2020-01-01T00:00:00Z"});
    all.push((late.to_string(), Priority::Normal));
    all
}

fn body(id: &str, to: &str) -> String {
    json!({"emailId": 4_126_643_121_i64, "message": {"to": to, "sendId": id}}).to_string()
}

/// Waits until each request has met its fate. How often some were throttled first, chance decides.
async fn drained(stack: &Stack) {
    let fates = [
        ("attempts_total", "outcome", "accepted", 49),
        ("attempts_total", "outcome", "permanent", 1),
        ("attempts_total", "outcome", "transient", 3),
        ("attempts_total", "outcome", "unknown", 1),
        ("results_total", "result", "refused", 1),
        ("results_total", "result", "unknown", 1),
        ("results_total", "result", "sent", 47),
        ("dead_letters_total", "reason", "exhausted", 1),
        ("dead_letters_total", "reason", "expired", 1),
        ("dead_letters_total", "reason", "malformed", 15),
        ("dead_letters_total", "reason", "refused", 2),
        ("dead_letters_total", "reason", "rejected", 1),
    ];
    let line = |(name, label, value, count)| {
        format!("postrider_{name}{{account=\"default\",{label}=\"{value}\"}} {count}")
    };
    let wanted: BTreeSet<String> = fates.into_iter().map(line).collect();
    comes_to(wanted, async || {
        let page = stack.metrics().await;
        let lines = page.lines().filter(|line| {
            let of = |name| line.starts_with(&format!("postrider_{name}_total{{"));
            ["attempts", "results", "dead_letters"].into_iter().any(of)
                && !line.ends_with(" 0")
                && !line.contains("throttled")
        });
        lines.map(str::to_owned).collect()
    })
    .await;
    let throttled = "postrider_attempts_total{account=\"default\",outcome=\"throttled\"";
    assert!(
        stack.sum(throttled).await > 0.0,
        "the sandbox allows less than the worker does"
    );
}

/// The refused ones go again, and are counted as replayed.
async fn replay_the_refused(stack: &Stack) {
    let replay = ["dead", "replay", "--reason", "refused", "--yes"];
    stack.run(&replay).await;
    until("a dead letter comes back", async || {
        stack.sum("postrider_replayed_total").await > 0.0
    })
    .await;
}

/// From here on the account is paused.
async fn refuse_the_token(stack: &Stack) {
    stack.sandbox.post("/_sandbox/token", "pat-na1-new").await;
    let one_more = body("one-more", "ada@example.com");
    stack.publish([(one_more, Priority::High)]).await;
    until("a pause", async || {
        stack
            .sum("postrider_pause{account=\"default\",reason=\"unauthorized\"")
            .await
            > 0.0
    })
    .await;
}

/// The compose file's own check says that the worker is ready.
async fn assert_healthy(stack: &Stack) {
    let check = files::worker_health_check();
    let (_, port) = stack.admin.rsplit_once(':').unwrap();
    assert!(check.last().unwrap().contains("/9464"), "{check:?}");
    let mut command = Command::new(&check[0]);
    command.args(check[1..].iter().map(|arg| arg.replace("9464", port)));
    assert!(command.status().await.unwrap().success(), "{check:?}");
}

// === the dashboard ===

/// Every expression of the dashboard, as Grafana would send it.
fn panels() -> BTreeMap<String, String> {
    let text = read("deploy/grafana/dashboards/postrider.json");
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut expressions = BTreeMap::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        if panel["type"] == "row" {
            continue;
        }
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let expression = target["expr"].as_str().unwrap();
            let sent = expression
                .replace("$account", ".*")
                .replace("$__rate_interval", "1m");
            assert!(!sent.contains('$'), "{title} uses a variable: {sent}");
            let name = format!("{title} {}", target["refId"].as_str().unwrap());
            assert!(expressions.insert(name, sent).is_none(), "two {title}");
        }
    }
    assert!(expressions.len() > 20);
    expressions
}

/// The label names of every sample name.
fn samples(text: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = match line.split_once('{') {
            Some((name, rest)) => (name, rest.split_once('}').unwrap().0),
            None => (line.split_once(' ').unwrap().0, ""),
        };
        // No value has a quote in it, so every other piece is a name.
        let labels = labels.split('"').step_by(2).filter_map(|piece| {
            let name = piece.trim_start_matches(',').strip_suffix('=')?;
            (name != "le").then_some(name)
        });
        samples.insert(name, labels.collect());
    }
    samples
}

fn assert_labels(samples: &BTreeMap<&str, BTreeSet<&str>>) {
    let family = |name: &str| -> String {
        let short = name.trim_start_matches("postrider_");
        let of_histogram = ["_bucket", "_sum", "_count"].into_iter();
        let mut short = of_histogram.filter_map(|part| short.strip_suffix(part));
        short
            .next()
            .unwrap_or(name.trim_start_matches("postrider_"))
            .to_owned()
    };
    let ours = samples
        .iter()
        .filter(|(name, _)| name.starts_with("postrider_"));
    let found: BTreeMap<String, BTreeSet<&str>> = ours
        .map(|(name, labels)| (family(name), labels.clone()))
        .collect();
    let promised: BTreeMap<String, BTreeSet<&str>> = METRICS
        .iter()
        .map(|(name, labels)| ((*name).to_owned(), labels.iter().copied().collect()))
        .collect();
    assert_eq!(found, promised);
}

/// Every metric of an expression is one that the worker shows.
fn assert_known(expression: &str, samples: &BTreeMap<&str, BTreeSet<&str>>) {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for word in words {
        if word.starts_with("postrider_") || word.starts_with("process_") {
            assert!(samples.contains_key(word), "{word} of {expression}");
        }
    }
}

// === the rules, and the page about them ===

#[tokio::test]
async fn promtool_accepts_the_files_and_proves_each_alert() {
    let test = "tests/it/deploy/alerts.test.yml";
    for args in [
        ["check", "config", "deploy/prometheus/prometheus.yml"],
        ["check", "rules", "deploy/prometheus/alerts.yml"],
        ["test", "rules", test],
    ] {
        let mut command = Command::new("promtool");
        command.args(args).current_dir(path(""));
        let output = command.output().await;
        let output = output.expect("promtool is missing: run ./test, which installs prometheus");
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
    let proof = read(test);
    for alert in alert_names() {
        assert!(proof.contains(&format!("alertname: {alert}\n")), "{alert}");
    }
}

#[test]
fn the_operators_page_names_everything() {
    let page = read("docs/operating.md");
    let metrics = METRICS.map(|(name, _)| format!("postrider_{name}"));
    let pauses = PauseReason::ALL.map(|reason| reason.label().to_owned());
    let deaths = DeadReason::ALL.map(|reason| reason.label().to_owned());
    for name in (metrics.into_iter().chain(pauses).chain(deaths)).chain(alert_names()) {
        assert!(page.contains(&format!("`{name}`")), "`{name}`");
    }
    for rule in rules() {
        let runbook = rule["annotations"]["runbook"].as_str().unwrap();
        let anchor = runbook.strip_prefix("docs/operating.md#").unwrap();
        let heading = format!("\n## {}\n", anchor.replace('-', " "));
        assert!(page.to_lowercase().contains(&heading), "{runbook}");
    }
}

fn rules() -> Vec<Value> {
    let groups = yaml("deploy/prometheus/alerts.yml")["groups"].take();
    let groups = groups.as_array().unwrap().iter();
    groups
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

fn alert_names() -> Vec<String> {
    let name = |rule: Value| rule["alert"].as_str().unwrap().to_owned();
    rules().into_iter().map(name).collect()
}

// === files of the repository ===

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A YAML file, its merges done.
fn yaml(name: &str) -> Value {
    let mut value: serde_norway::Value = serde_norway::from_str(&read(name)).unwrap();
    // What is merged in may itself merge something in.
    for _ in 0..2 {
        value.apply_merge().unwrap();
    }
    serde_json::to_value(value).unwrap()
}
