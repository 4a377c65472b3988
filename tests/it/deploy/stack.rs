//! A sandbox, a worker on SQLite and a Prometheus that scrapes it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use postrider::clock::Clock;
use postrider::message::{AccountName, Priority};
use postrider::queue::Parcel;
use postrider::queue::Queue;
use postrider::queue::sqlite::{Mode, SqliteQueue};
use postrider::sandbox::Options;
use postrider::story::Story;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::{PROGRAM, path, yaml};
use crate::sandbox::{self, Sandbox};

const PROMETHEUS: &str = "/usr/bin/prometheus";
const DEADLINE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);

/// A send ceiling low enough that the traffic meets it, and lasts for several scrapes; the sandbox
/// allows a little less, so that some are throttled.
const SETTINGS: [(&str, &str); 6] = [
    ("POSTRIDER_ACCOUNTS__DEFAULT__TOKEN", "pat-na1-test"),
    ("POSTRIDER_ACCOUNTS__DEFAULT__QUOTA__SEND__LIMIT", "20"),
    ("POSTRIDER_ACCOUNTS__DEFAULT__QUOTA__SEND__WINDOW", "1s"),
    ("POSTRIDER_RETRY__MAX_ATTEMPTS", "2"),
    ("POSTRIDER_RETRY__INITIAL", "100ms"),
    ("POSTRIDER_SERVER__LISTEN", "127.0.0.1:0"),
];

pub(super) struct Stack {
    pub(super) sandbox: Sandbox,
    /// Where the worker's admin server is.
    pub(super) admin: String,
    /// Where Prometheus' API is.
    prometheus: String,
    settings: Vec<(String, String)>,
    worker: Child,
    /// Killed when it is dropped, and after it its folder removed.
    _prometheus: Child,
    folder: TempDir,
}

impl Stack {
    pub(super) async fn start() -> Self {
        let sandbox = sandbox::start(Options {
            results_after: "300ms".parse().unwrap(),
            limit: Some("15/1s".parse().unwrap()),
            ..Options::default()
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let queue = format!("sqlite:{}", folder.path().join("postrider.db").display());
        let mut settings = vec![
            ("POSTRIDER_QUEUE__URL".to_owned(), queue),
            (
                "POSTRIDER_ACCOUNTS__DEFAULT__BASE_URL".to_owned(),
                sandbox.base.clone(),
            ),
        ];
        settings.extend(SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let (worker, admin) = start_worker(&folder, &settings).await;
        let (child, prometheus) = start_prometheus(&folder, &admin);
        let stack = Self {
            sandbox,
            admin,
            prometheus,
            settings,
            worker,
            _prometheus: child,
            folder,
        };
        // Counters must be seen at zero, or nothing ever increases.
        until("the first scrape", async || {
            stack.has("up{job=\"postrider\"} == 1").await
        })
        .await;
        stack
    }

    pub(super) async fn publish(&self, bodies: impl IntoIterator<Item = (String, Priority)>) {
        let path = self.folder.path().join("postrider.db");
        let account = AccountName::default();
        let accounts = [account.clone()];
        let opened =
            SqliteQueue::open(path, "postrider", accounts, Clock::system(), Mode::Command).await;
        let queue = opened.unwrap();
        for (body, priority) in bodies {
            let parcel = Parcel {
                body: body.into(),
                message_id: None,
                account: account.clone(),
                priority,
                story: Story::default(),
            };
            queue.publish(parcel).await.unwrap();
        }
        queue.close().await;
    }

    /// Runs a command of Postrider's in the worker's folder.
    pub(super) async fn run(&self, args: &[&str]) {
        let settings = self.settings.iter().map(|(key, value)| (key, value));
        let mut command = Command::new(PROGRAM);
        command.args(args).current_dir(&self.folder);
        let output = command.env_clear().envs(settings).output().await.unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    }

    /// What the worker's own page says.
    pub(super) async fn metrics(&self) -> String {
        self.get(&format!("http://{}/metrics", self.admin), &[])
            .await
            .text()
            .await
            .unwrap()
    }

    /// The sum of the samples that begin so.
    pub(super) async fn sum(&self, begin: &str) -> f64 {
        let text = self.metrics().await;
        let samples = text.lines().filter(|line| line.starts_with(begin));
        samples
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// The samples of an expression; none may be `NaN` alone.
    pub(super) async fn query(&self, expression: &str) -> Vec<f64> {
        let answer = self.api("query", &[("query", expression)]).await;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let samples = answer["data"]["result"].as_array().unwrap().iter();
        samples
            .map(|sample| sample["value"][1].as_str().unwrap().parse().unwrap())
            .filter(|value: &f64| value.is_finite())
            .collect()
    }

    pub(super) async fn has(&self, expression: &str) -> bool {
        !self.query(expression).await.is_empty()
    }

    /// Every alert rule that Prometheus loaded, by name, with its expression.
    pub(super) async fn alerts(&self) -> BTreeMap<String, String> {
        let answer = self.api("rules", &[]).await;
        let groups = answer["data"]["groups"].as_array().unwrap();
        let rules = groups.iter().flat_map(|g| g["rules"].as_array().unwrap());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        rules
            .map(|rule| (text(&rule["name"]), text(&rule["query"])))
            .collect()
    }

    async fn api(&self, what: &str, query: &[(&str, &str)]) -> Value {
        let url = format!("{}/api/v1/{what}", self.prometheus);
        // Until it listens, Prometheus answers nothing.
        let deadline = Instant::now() + DEADLINE;
        loop {
            let request = self.sandbox.http.get(&url).query(query);
            match request.send().await {
                Ok(answer) if answer.status() != 503 => return answer.json().await.unwrap(),
                _ => assert!(Instant::now() < deadline, "Prometheus does not start"),
            }
            sleep(POLL).await;
        }
    }

    async fn get(&self, url: &str, query: &[(&str, &str)]) -> reqwest::Response {
        let request = self.sandbox.http.get(url).query(query);
        request.send().await.unwrap()
    }

    /// Ends the worker in order.
    pub(super) async fn stop(mut self) {
        let pid = self.worker.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(sent.unwrap().success());
        let ended = tokio::time::timeout(DEADLINE, self.worker.wait()).await;
        assert_eq!(ended.unwrap().unwrap().code(), Some(0));
    }
}

/// Waits until something becomes true, for a while.
pub(super) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(POLL).await;
    }
}

/// Waits until something becomes this, for a while.
pub(super) async fn comes_to<T: Debug + PartialEq>(wanted: T, mut now: impl AsyncFnMut() -> T) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let found = now().await;
        if found == wanted {
            return;
        }
        if Instant::now() > deadline {
            assert_eq!(found, wanted, "in vain");
        }
        sleep(POLL).await;
    }
}

async fn start_worker(folder: &TempDir, settings: &[(String, String)]) -> (Child, String) {
    let mut command = Command::new(PROGRAM);
    command.arg("worker").current_dir(folder).env_clear();
    command.envs(settings.iter().map(|(key, value)| (key, value)));
    command.stderr(Stdio::piped()).kill_on_drop(true);
    let mut worker = command.spawn().unwrap();
    let mut lines = BufReader::new(worker.stderr.take().unwrap()).lines();
    let address = loop {
        let line = lines.next_line().await.unwrap();
        let line = line.expect("the worker ended at its start");
        let entry: Value = serde_json::from_str(&line).unwrap();
        if let Some(address) = find(&entry, "listen") {
            break address.to_owned();
        }
    };
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (worker, address)
}

/// The field of a log line, on whatever level it stands.
fn find<'a>(entry: &'a Value, field: &str) -> Option<&'a str> {
    let fields = entry.get("fields").unwrap_or(entry);
    fields.get(field)?.as_str()
}

/// Prometheus with the project's own configuration: the targets and the pace are the test's.
fn start_prometheus(folder: &TempDir, admin: &str) -> (Child, String) {
    assert!(
        PathBuf::from(PROMETHEUS).exists(),
        "{PROMETHEUS} is missing: run ./test, which installs it"
    );
    let mut config = yaml("deploy/prometheus/prometheus.yml");
    for key in ["scrape_interval", "evaluation_interval"] {
        config["global"][key] = "1s".into();
    }
    config["rule_files"] = serde_json::json!([path("deploy/prometheus/alerts.yml")]);
    for job in config["scrape_configs"].as_array_mut().unwrap() {
        // There is no broker: to Prometheus, it is down.
        let target = match job["job_name"].as_str().unwrap() {
            "postrider" => admin,
            _ => "127.0.0.1:1",
        };
        job["static_configs"][0]["targets"] = serde_json::json!([target]);
    }
    let file = folder.path().join("prometheus.yml");
    // JSON is YAML.
    std::fs::write(&file, config.to_string()).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut command = Command::new(PROMETHEUS);
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--web.listen-address={address}"))
        .arg(format!(
            "--storage.tsdb.path={}",
            folder.path().join("data").display()
        ))
        .stderr(Stdio::null())
        .kill_on_drop(true);
    (command.spawn().unwrap(), format!("http://{address}"))
}
