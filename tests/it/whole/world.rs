//! A queue, a sandbox, a folder, and the program run among them.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::worker::Worker;
use crate::support::broker::{self, Broker};
use crate::support::producer::Producer;

const PROGRAM: &str = env!("CARGO_BIN_EXE_postrider");
const POLL: Duration = Duration::from_millis(20);
/// One command. The longest replays 2,000 dead letters.
const COMMAND_TIME_MAX: Duration = Duration::from_mins(1);
/// Of a worker's log, on failure.
const LOG_LINES_SHOWN: usize = 40;
/// So many workers' logs, of the last ones.
const LOGS_SHOWN: u32 = 4;

/// Dropping it ends its sandbox. When the test has failed, it shows the end of the workers' logs, and
/// its folder is kept.
pub struct World {
    folder: TempDir,
    settings: BTreeMap<String, String>,
    /// The program that runs ours, and its arguments; none unless a test sets it.
    through: Vec<String>,
    pub prefix: String,
    pub sandbox: Sandbox,
    workers: Cell<u32>,
}

/// The sandbox in a process of its own.
pub struct Sandbox {
    _child: Child,
    base: String,
    http: reqwest::Client,
}

impl World {
    /// An embedded queue of its own.
    pub async fn on_sqlite(sandbox: &[&str]) -> Self {
        Self::new("sqlite:postrider.db", "postrider", sandbox).await
    }

    /// Over whatever leads to a broker.
    pub async fn at(port: u16, prefix: &str, sandbox: &[&str]) -> Self {
        Self::new(broker::url(port).expose_secret(), prefix, sandbox).await
    }

    pub async fn on_broker(broker: &Broker, prefix: &str, sandbox: &[&str]) -> Self {
        Self::new(broker.url().expose_secret(), prefix, sandbox).await
    }

    /// No ceilings, and results are not looked up, unless a test sets it otherwise.
    async fn new(queue: &str, prefix: &str, sandbox: &[&str]) -> Self {
        postrider::crypto::init_crypto();
        let sandbox = Sandbox::start(sandbox).await;
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
            settings: BTreeMap::new(),
            through: Vec::new(),
            prefix: prefix.to_owned(),
            workers: Cell::new(0),
            sandbox,
        };
        let base = world.sandbox.base.clone();
        world
            .set("queue.url", queue)
            .set("queue.prefix", prefix)
            .set("server.listen", "127.0.0.1:0")
            .set("accounts.default.base_url", &base)
            .set("accounts.default.token", "pat-na1-test")
            .set("accounts.default.results", "off")
            .set("accounts.default.quota.send.limit", "0")
            .set("accounts.default.quota.api.limit", "0")
            .set("accounts.default.quota.daily", "0")
    }

    /// Sets a key of the configuration, as everyone may: by its variable.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(variable(key), value.to_owned());
        self
    }

    /// Sets a variable that is not ours.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn unset(mut self, key: &str) -> Self {
        self.settings.remove(&variable(key));
        self
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs every command through another program.
    pub fn through(mut self, program: Vec<String>) -> Self {
        self.through = program;
        self
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut words = self.through.iter().map(String::as_str).chain([PROGRAM]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(args).current_dir(&self.folder);
        command.env_clear().envs(&self.settings);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output();
        within(COMMAND_TIME_MAX, &args.join(" "), output)
            .await
            .unwrap()
    }

    /// What a command that does its work prints.
    pub async fn told(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a worker; it may not be ready yet.
    pub fn start_worker(&self) -> Worker {
        self.workers.set(self.workers.get() + 1);
        let log = format!("worker-{}.log", self.workers.get());
        Worker::start(self.command(&["worker"]), self.folder.path().join(log))
    }

    /// Starts a worker and waits until it is ready.
    pub async fn worker(&self) -> Worker {
        let worker = self.start_worker();
        worker.until_ready().await;
        worker
    }

    /// Publishes requests with these ids, in order, and returns when all of them are durable.
    pub async fn publish(&self, ids: &BTreeSet<String>) {
        self.publish_to(ids, |number| format!("ada{number}@example.com"))
            .await;
    }

    /// The same, to the recipient of each number. Some recipients are trouble, see
    /// [`postrider::sandbox`].
    pub async fn publish_to(&self, ids: &BTreeSet<String>, recipient: impl Fn(usize) -> String) {
        let sent = self.sent(ids, recipient).await;
        let errors = String::from_utf8_lossy(&sent.stderr);
        assert!(sent.status.success(), "send: {errors}");
    }

    /// The same, however it ends.
    pub async fn sent(
        &self,
        ids: &BTreeSet<String>,
        recipient: impl Fn(usize) -> String,
    ) -> Output {
        let mut lines = String::new();
        for (number, id) in ids.iter().enumerate() {
            lines.push_str(&request(id, &recipient(number)));
        }
        within(COMMAND_TIME_MAX, "send ends", self.send(&lines)).await
    }

    /// Publishes requests, and returns when all of them are durable.
    pub async fn publish_lines(&self, lines: &str) {
        let sent = within(COMMAND_TIME_MAX, "all are published", self.send(lines)).await;
        let errors = String::from_utf8_lossy(&sent.stderr);
        assert!(sent.status.success(), "send: {errors}");
    }

    /// `postrider send` of these lines.
    pub async fn send(&self, lines: &str) -> Output {
        let mut command = self.command(&["send", "-"]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let write = async {
            // It may end before it has read everything.
            let _ = stdin.write_all(lines.as_bytes()).await;
            drop(stdin);
        };
        tokio::join!(write, child.wait_with_output()).1.unwrap()
    }

    /// Publishes requests while no worker runs, once one has declared the queues.
    pub async fn publish_backlog(&self, ids: &BTreeSet<String>) {
        self.worker().await.stop().await;
        self.publish(ids).await;
    }

    /// What `dead list --json` prints: a dead letter a line.
    pub async fn dead(&self) -> Vec<Value> {
        let text = self.told(&["dead", "list", "--json"]).await;
        let lines = text.lines().map(serde_json::from_str);
        lines.map(Result::unwrap).collect()
    }

    fn dead_queue(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// Every one of these was mailed once, and nothing else was.
    pub async fn assert_mailed(&self, ids: &BTreeSet<String>) {
        let mailed = self.sandbox.mailed().await;
        let of = |ids: Vec<&String>| ids.into_iter().take(5).cloned().collect::<Vec<_>>();
        let lost: Vec<_> = ids.difference(&mailed).collect();
        assert!(lost.is_empty(), "{} lost: {:?} …", lost.len(), of(lost));
        let other: Vec<_> = mailed.difference(ids).collect();
        assert!(other.is_empty(), "nobody published {:?}", of(other));
        let stats = self.sandbox.stats().await;
        let count = ids.len() as u64;
        let counted = (&stats["mails"], &stats["sendIdsMailed"]);
        assert_eq!(counted, (&count.into(), &count.into()), "{stats}");
    }

    /// So many dead letters stand, and nothing else anywhere in the embedded queue.
    pub async fn assert_at_rest(&self, dead: u64) {
        let told: Value = serde_json::from_str(&self.told(&["queue", "--json"]).await).unwrap();
        let mut expected = BTreeMap::new();
        let mut depths = BTreeMap::new();
        for depth in told["depths"].as_array().unwrap() {
            let queue = depth["queue"].as_str().unwrap().to_owned();
            let is_dead = queue == self.dead_queue();
            expected.insert(queue.clone(), if is_dead { dead } else { 0 });
            depths.insert(queue, depth["messages"].as_u64().unwrap());
        }
        assert_eq!(depths, expected);
    }

    /// So many dead letters stand, and nothing in any other queue, by the broker's own word. No
    /// worker may run: what is in its hands would not be counted.
    pub async fn assert_at_rest_on(&self, broker: &Broker, dead: u64) {
        let client = Producer::to(broker).await;
        let mut expected = BTreeMap::new();
        let mut depths = BTreeMap::new();
        let own = format!("{}.", self.prefix);
        let (lease, trace) = (format!("{own}lease."), format!("{own}trace"));
        for queue in broker.queues().await {
            // In a lease queue stands the token of ownership, in the stream the journal; and never
            // a request.
            if queue.starts_with(&own) && !queue.starts_with(&lease) && queue != trace {
                let is_dead = queue == self.dead_queue();
                depths.insert(queue.clone(), client.depth(&queue).await);
                expected.insert(queue, if is_dead { dead } else { 0 });
            }
        }
        assert!(depths.len() > 20, "all queues are looked at: {depths:?}");
        assert_eq!(depths, expected);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.folder.disable_cleanup(true);
        let last = self.workers.get();
        for number in last.saturating_sub(LOGS_SHOWN) + 1..=last {
            let path = self.folder.path().join(format!("worker-{number}.log"));
            let log = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
            let (count, last) = (lines.len(), lines[from..].join("\n"));
            #[expect(clippy::print_stderr, reason = "whoever reads the failure needs it")]
            {
                eprintln!("--- the end of worker {number}'s log ({count} lines)\n{last}");
            }
        }
        #[expect(clippy::print_stderr, reason = "whoever reads the failure needs it")]
        {
            eprintln!("--- all logs are kept in {}", self.folder.path().display());
        }
    }
}

// === impl Sandbox ===

impl Sandbox {
    async fn start(args: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command
            .args(["sandbox", "--listen", "127.0.0.1:0"])
            .args(args);
        command.env_clear().kill_on_drop(true);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut base = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        within(
            COMMAND_TIME_MAX,
            "the sandbox starts",
            stdout.read_line(&mut base),
        )
        .await
        .unwrap();
        Self {
            _child: child,
            base: base.trim().to_owned(),
            http: reqwest::Client::new(),
        }
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("{}{path}", self.base)).await
    }

    /// Another app of the account asks for its details; the status that it hears.
    pub async fn asked_by_another_app(&self) -> u16 {
        let url = format!("{}/account-info/v3/details", self.base);
        let answer = self.http.get(url).bearer_auth("another").send().await;
        answer.unwrap().status().as_u16()
    }

    /// What an address of HTTP answers.
    pub async fn ask(&self, url: &str) -> String {
        let answer = self.http.get(url).send();
        answer.await.unwrap().text().await.unwrap()
    }

    /// What a worker counts under the metric that begins a line.
    pub async fn metric(&self, worker: &str, line: &str) -> u64 {
        let metrics = self.ask(&format!("http://{worker}/metrics")).await;
        let found = metrics.lines().find_map(|l| l.strip_prefix(line));
        found.map_or(0, |count| count.parse().unwrap())
    }

    /// Its address.
    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn port(&self) -> u16 {
        let (_, port) = self.base.rsplit_once(':').unwrap();
        port.parse().unwrap()
    }

    /// Its counts, `/_sandbox/stats`.
    pub async fn stats(&self) -> Value {
        serde_json::from_str(&self.get("/_sandbox/stats").await).unwrap()
    }

    /// One of its counts.
    pub async fn count(&self, name: &str) -> u64 {
        self.stats().await[name].as_u64().unwrap()
    }

    /// Every call, oldest first: `{"at":ms,"bucket":"send","status":200}`.
    pub async fn calls(&self) -> Vec<Value> {
        let text = self.get("/_sandbox/calls").await;
        let lines = text.lines().map(serde_json::from_str);
        lines.map(Result::unwrap).collect()
    }

    /// Tells it something under `/_sandbox/`.
    pub async fn tell(&self, path: &str, text: &str) {
        let url = format!("{}/_sandbox/{path}", self.base);
        let answer = self.http.post(url).body(text.to_owned()).send().await;
        assert!(answer.unwrap().status().is_success(), "{path} {text}");
    }

    /// The ids of everything that left as an email.
    async fn mailed(&self) -> BTreeSet<String> {
        self.mails().await.into_iter().map(|(id, _)| id).collect()
    }

    /// Everything that left as an email: `sendId` and recipient.
    pub async fn mails(&self) -> Vec<(String, String)> {
        let text = |mail: &Value, name| mail[name].as_str().unwrap().to_owned();
        let left = self.letters().await;
        let left = left.iter();
        left.map(|mail| (text(mail, "sendId"), text(mail, "to")))
            .collect()
    }

    /// Everything that left as an email, as the sandbox tells it.
    pub async fn letters(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let page = format!("/_sandbox/mail?after={after}&limit=1000");
            let page: Value = serde_json::from_str(&self.get(&page).await).unwrap();
            let mails = page["mail"].as_array().unwrap();
            let Some(last) = mails.last() else {
                return all;
            };
            after = last["seq"].as_u64().unwrap();
            let left = |mail: &&Value| mail["result"] == "SENT" || mail["result"] == "QUEUED";
            all.extend(mails.iter().filter(left).cloned());
        }
    }

    /// Waits until so many emails have left.
    pub async fn until_mailed(&self, count: u64, limit: Duration) {
        let mailed = async || self.count("mails").await >= count;
        eventually(limit, &format!("{count} are mailed"), mailed).await;
    }
}

// === small words ===

/// A line for `send`.
pub fn request(id: &str, to: &str) -> String {
    format!(r#"{{"emailId":4126643121,"message":{{"to":"{to}","sendId":"{id}"}}}}"#) + "\n"
}

/// The variable of a key.
fn variable(key: &str) -> String {
    format!("POSTRIDER_{}", key.replace('.', "__").to_uppercase())
}

pub fn ids(subject: &str, count: usize) -> BTreeSet<String> {
    let ids = 0..count;
    ids.map(|number| format!("{subject}-{number:05}")).collect()
}

/// Waits until it is so.
pub async fn eventually(limit: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        sleep(POLL).await;
    }
}

/// Awaits it, but not for ever.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(limit, future).await;
    done.unwrap_or_else(|_| panic!("not within {limit:?}: {what}"))
}

/// Prints a test's figures; `cargo test -- --nocapture` shows them.
#[expect(clippy::print_stdout, reason = "for people")]
pub fn report(subject: &str, began: Instant, figures: &str) {
    println!(
        "{subject}: {figures}; {:.1} s",
        began.elapsed().as_secs_f64()
    );
}
