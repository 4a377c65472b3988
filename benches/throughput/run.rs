//! One run of one contestant over a queue that is full.

use std::env;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::backlog::{Backlog, PREFIX};
use crate::program::{Program, Sandbox, postrider};

/// Calls in flight: the default of `accounts.NAME.concurrency`.
pub const CONCURRENCY: u16 = 32;
/// What a worker prefetches at that concurrency.
pub const PREFETCH: u16 = 128;
/// The share of the sends that is not measured: connections, caches, the lease.
const WARM_UP: u64 = 10;
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A contestant that sends nothing for so long has failed.
const STILL_MAX: Duration = Duration::from_secs(30);

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contestant {
    Bare,
    Worker,
    /// A worker that may not keep its journal.
    Untraced,
}

/// What one run showed.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub sends_per_second: f64,
    pub cpu_ms_per_send: f64,
    pub sandbox_cpu_ms_per_send: f64,
    pub peak_kib: u64,
}

/// What a run takes place between.
pub struct Rig<'a> {
    pub backlog: Backlog<'a>,
    pub sandbox: &'a Sandbox,
    folder: TempDir,
}

/// How far a run had come at one moment.
struct Moment {
    at: Instant,
    sent: u64,
    cpu: Duration,
    sandbox_cpu: Duration,
}

impl<'a> Rig<'a> {
    pub fn new(sandbox: &'a Sandbox, backlog: Backlog<'a>) -> Self {
        Self {
            backlog,
            sandbox,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Runs a contestant until it has sent so many, and measures all but the first of them.
    pub async fn run(&self, contestant: Contestant, requests: u64) -> Figures {
        let before = self.sandbox.mails().await;
        let program = self.start(contestant, requests).await;
        let begin = self
            .wait_for(&program, before, requests / WARM_UP, contestant)
            .await;
        let end = self.wait_for(&program, before, requests, contestant).await;
        let peak_kib = program.peak_kib();
        contestant.end(program);
        let sent = to_f64(end.sent - begin.sent);
        let per_send =
            |from: Duration, to: Duration| to.abs_diff(from).as_secs_f64() * 1_000.0 / sent;
        Figures {
            sends_per_second: sent / (end.at - begin.at).as_secs_f64(),
            cpu_ms_per_send: per_send(begin.cpu, end.cpu),
            sandbox_cpu_ms_per_send: per_send(begin.sandbox_cpu, end.sandbox_cpu),
            peak_kib,
        }
    }

    /// Starts a contestant; the bare loop ends after so many requests.
    pub async fn start(&self, contestant: Contestant, requests: u64) -> Program {
        let traced = contestant != Contestant::Untraced;
        self.backlog.keeps_trace(traced).await;
        let command = match contestant {
            Contestant::Bare => {
                let (queue, sandbox) = (&self.backlog.url, &self.sandbox.base_url);
                ours(&["bare", queue, sandbox, &requests.to_string()])
            }
            Contestant::Worker | Contestant::Untraced => {
                self.command(&["worker", "--listen", "127.0.0.1:0"])
            }
        };
        Program::start(command, self.folder.path())
    }

    /// What the last program said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    /// `postrider`, over this queue and the sandbox, without limits.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = postrider(args);
        let account = |key: &str| format!("POSTRIDER_ACCOUNTS__DEFAULT__{key}");
        command
            .env("POSTRIDER_QUEUE__URL", &self.backlog.url)
            .env("POSTRIDER_QUEUE__PREFIX", PREFIX)
            .env(account("TOKEN"), "bench")
            .env(account("BASE_URL"), &self.sandbox.base_url)
            .env(account("CONCURRENCY"), CONCURRENCY.to_string())
            .env(account("RESULTS"), "off")
            .env(account("QUOTA__SEND__LIMIT"), "0")
            .env(account("QUOTA__API__LIMIT"), "0")
            .env(account("QUOTA__DAILY"), "0");
        command
    }

    /// Until so many were sent since `before`.
    async fn wait_for(
        &self,
        program: &Program,
        before: u64,
        requests: u64,
        contestant: Contestant,
    ) -> Moment {
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            let sent = self.sandbox.mails().await - before;
            if sent >= requests {
                return Moment {
                    at: Instant::now(),
                    sent,
                    cpu: program.cpu(),
                    sandbox_cpu: self.sandbox.program.cpu(),
                };
            }
            if sent > last {
                (last, moved) = (sent, Instant::now());
            }
            assert!(
                moved.elapsed() < STILL_MAX,
                "{contestant:?} stands still after {sent} sends: {}",
                self.said()
            );
            sleep(LOOK_EVERY).await;
        }
    }
}

impl Contestant {
    /// In order: what was sent is acknowledged, and not in the next run's way.
    pub fn end(self, program: Program) {
        match self {
            Self::Bare => program.dismiss(),
            Self::Worker | Self::Untraced => program.stop(),
        }
    }
}

/// This program, as another part.
pub fn ours(args: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(args);
    command
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn to_f64(count: u64) -> f64 {
    count as f64
}
