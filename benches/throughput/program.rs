//! Processes of their own, and what the kernel knows of them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Client;
use serde_json::Value;
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_postrider");
/// The kernel counts a process's time in these.
const TICKS_PER_SECOND: f64 = 100.0;
const STARTS: u32 = 50;

/// A process that ends with this value.
pub struct Program(Child);

/// `postrider sandbox`, and its count of sends.
pub struct Sandbox {
    pub base_url: String,
    pub program: Program,
    client: Client,
}

/// `postrider` with no environment but what is added.
pub fn postrider(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).env_clear().env("RUST_LOG", "warn");
    command
}

impl Program {
    /// Starts it in `folder`; what it says goes to a file there.
    pub fn start(mut command: Command, folder: &Path) -> Self {
        let said = File::create(folder.join("stderr")).unwrap();
        command.current_dir(folder).stdin(Stdio::piped());
        Self(command.stderr(said).spawn().unwrap())
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Processor time, in user code and in the kernel.
    pub fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        // Behind the name, which may hold anything, these are fields 14 and 15 of proc(5).
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks: u32 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u32>().unwrap())
            .sum();
        Duration::from_secs_f64(f64::from(ticks) / TICKS_PER_SECOND)
    }

    /// The most memory it ever had, in KiB.
    pub fn peak_kib(&self) -> u64 {
        let status = self.proc("status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.unwrap().trim().trim_end_matches(" kB");
        peak.parse().unwrap()
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap()
    }

    /// Closes its standard input, and waits until it has ended.
    pub fn dismiss(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) {
        if !self.has_ended() {
            let pid = self.0.id().to_string();
            Command::new("kill").arg(pid).status().unwrap();
        }
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
}

impl Sandbox {
    pub async fn start() -> Self {
        let mut command = postrider(&["sandbox", "--listen", "127.0.0.1:0"]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut address).unwrap();
        let sandbox = Self {
            base_url: address.trim().to_owned(),
            program: Program(child),
            client: Client::builder().tls_certs_only([]).build().unwrap(),
        };
        assert_eq!(sandbox.mails().await, 0);
        sandbox
    }

    /// How many emails left it so far.
    pub async fn mails(&self) -> u64 {
        let stats = self.told("stats").await;
        stats.get("mails").unwrap().as_u64().unwrap()
    }

    /// When the first call for each of the newest emails came in, by `sendId`.
    pub async fn arrivals(&self, newest: u64) -> HashMap<String, Timestamp> {
        let told = self.told(&format!("mail?limit={newest}")).await;
        let mails = told.get("mail").unwrap().as_array().unwrap();
        let arrival = |mail: &Value| {
            let id = mail.get("sendId").unwrap().as_str().unwrap();
            let first = mail.pointer("/attempts/0/at").unwrap().as_str().unwrap();
            (id.to_owned(), first.parse().unwrap())
        };
        mails.iter().map(arrival).collect()
    }

    async fn told(&self, what: &str) -> Value {
        let url = format!("{}/_sandbox/{what}", self.base_url);
        let answer = self.client.get(url).send().await.unwrap();
        answer.json().await.unwrap()
    }
}

/// How long `postrider --version` takes, in milliseconds, again and again.
pub fn times_to_start() -> Vec<f64> {
    let once = |_| {
        let began = Instant::now();
        let ended = postrider(&["--version"]).stdout(Stdio::null()).status();
        assert!(ended.unwrap().success());
        began.elapsed().as_secs_f64() * 1_000.0
    };
    (0..STARTS).map(once).collect()
}
