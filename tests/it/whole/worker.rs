//! A worker in a process of its own.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use super::world::eventually;

/// In which a worker ends after SIGTERM.
pub const END_TIME_MAX: Duration = Duration::from_secs(45);
/// A debug build beside other tests.
const START_TIME_MAX: Duration = Duration::from_secs(90);

/// Dropping it kills it.
pub struct Worker {
    child: Child,
    log: PathBuf,
    http: reqwest::Client,
}

impl Worker {
    /// Starts it; its log goes to a file of its own.
    pub fn start(mut command: Command, log: PathBuf) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log).unwrap());
        command.kill_on_drop(true);
        Self {
            child: command.spawn().unwrap(),
            log,
            http: reqwest::Client::new(),
        }
    }

    /// Everything it has said so far, its last word too.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The log, line by line; a line that is half written is left out.
    pub fn log(&self) -> Vec<Value> {
        let text = self.said();
        let lines = text.lines().map(serde_json::from_str);
        lines.filter_map(Result::ok).collect()
    }

    pub fn has_said(&self, message: &str) -> bool {
        self.log().iter().any(|line| line["message"] == message)
    }

    /// When it said that, in RFC 3339.
    pub fn said_at(&self, message: &str) -> Option<String> {
        let log = self.log();
        let line = log.iter().find(|line| line["message"] == message)?;
        Some(line["timestamp"].as_str().unwrap().to_owned())
    }

    pub async fn until_said(&self, message: &str) {
        let said = async || self.has_said(message);
        eventually(START_TIME_MAX, &format!("the worker says: {message}"), said).await;
    }

    /// Waits until it says something that begins so.
    pub async fn until_said_like(&self, beginning: &str) {
        let begins = |line: &Value| {
            let message = line["message"].as_str();
            message.is_some_and(|message| message.starts_with(beginning))
        };
        let said = async || self.log().iter().any(begins);
        eventually(
            START_TIME_MAX,
            &format!("the worker says: {beginning}"),
            said,
        )
        .await;
    }

    fn admin(&self) -> Option<String> {
        let log = self.log();
        let started = log
            .iter()
            .find(|line| line["message"] == "worker started")?;
        Some(started["listen"].as_str().unwrap().to_owned())
    }

    /// Where its admin server listens.
    pub fn address(&self) -> String {
        self.admin().expect("it has started")
    }

    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let url = format!("http://{}{path}", self.admin()?);
        let request = self.http.get(url).timeout(Duration::from_secs(5));
        let answer = request.send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// The status of `/readyz`, when it answers.
    pub async fn ready(&self) -> Option<u16> {
        self.get("/readyz").await.map(|(status, _)| status)
    }

    pub async fn until_ready(&self) {
        let ready = async || self.ready().await == Some(200);
        eventually(START_TIME_MAX, "the worker is ready", ready).await;
    }

    /// Where messages stand, in its hands too, but for dead letters: `queue{...} count`, none that
    /// is empty. `None` when it cannot tell.
    pub async fn backlog(&self) -> Option<Vec<String>> {
        let (status, metrics) = self.get("/metrics").await?;
        let depths = || {
            let lines = metrics.lines();
            lines.filter_map(|line| line.strip_prefix("postrider_queue_messages"))
        };
        let standing = depths().filter(|line| !line.contains(".dead\"") && !line.ends_with(" 0"));
        (status == 200 && depths().count() > 0).then(|| standing.map(str::to_owned).collect())
    }

    /// What `/metrics` tells.
    pub async fn metrics(&self) -> String {
        let (status, metrics) = self.get("/metrics").await.expect("it answers");
        assert_eq!(status, 200);
        metrics
    }

    /// Whether it dispatches the account, by its own word.
    pub async fn is_owner(&self) -> bool {
        let told = self.get("/metrics").await;
        told.is_some_and(|(_, metrics)| {
            metrics.contains("\npostrider_owner{account=\"default\"} 1\n")
        })
    }

    /// The accounts that it dispatches, by its own word.
    pub async fn owned(&self) -> BTreeSet<String> {
        let told = self.get("/api/status").await;
        let status: Value = told.map_or(Value::Null, |(_, text)| {
            serde_json::from_str(&text).unwrap()
        });
        let accounts = status["accounts"].as_array().into_iter().flatten();
        let owned = accounts.filter(|account| account["owner"] == true);
        owned
            .map(|account| account["name"].as_str().unwrap().to_owned())
            .collect()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Of its process.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub async fn signal(&self, signal: &str) {
        let pid = self.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().await;
        assert!(sent.unwrap().success(), "kill {signal} {pid}");
    }

    /// As the kernel ends a process that is out of memory.
    pub async fn kill(mut self) {
        self.signal("-KILL").await;
        let status = self.ended().await;
        assert_eq!(status.code(), None, "it was killed, and ended by itself");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let ended = timeout(END_TIME_MAX, self.child.wait()).await;
        ended.expect("it ends within 45 s").unwrap()
    }

    /// Ends it in order.
    pub async fn stop(mut self) {
        self.signal("-TERM").await;
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "a worker ends in order");
    }

    /// Waits until it has nothing left to do, and ends it.
    pub async fn finish(self, limit: Duration) {
        self.until_idle(limit).await;
        self.stop().await;
    }

    /// Waits until it has nothing left to do.
    ///
    /// A reading is no snapshot: a message that moves may be in neither of two queues. None moves
    /// past two readings, since a worker reads once a second and a wait takes at least as long.
    pub async fn until_idle(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut empty = 0;
        while empty < 2 {
            tokio::time::sleep(Duration::from_millis(1_050)).await;
            let backlog = self.backlog().await;
            let none = backlog.as_ref().is_some_and(Vec::is_empty);
            empty = if none { empty + 1 } else { 0 };
            assert!(Instant::now() < deadline, "left undone: {backlog:?}");
        }
    }
}
