//! `postrider demo`: the main job on one machine.
//!
//! Everything in it is real but HubSpot: the embedded queue in a temporary file, the worker, its
//! admin server, and the sandbox behind a socket.

mod report;
mod traffic;

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args as ClapArgs;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::report::Inbox;
use self::traffic::Sample;
use super::failure::{Exit, Failure};
use super::output::{Output, progress, talk};
use super::signals::Stop;
use super::worker;
use crate::clock::Clock;
use crate::config::{Config, Sources};
use crate::message::AccountName;
use crate::queue::sqlite::{Mode, SqliteQueue};
use crate::queue::{DeadLetter, DeadLetters, Fate, Queue};
use crate::sandbox::{self, Limit, Span};

/// Where the sandbox and the worker listen when nobody else does.
const SANDBOX_ADDR: &str = "127.0.0.1:8085";
const ADMIN_ADDR: &str = "127.0.0.1:9464";
/// How long the token is refused, in the middle of it all.
const TOKEN_REFUSED: &str = "401=3s";
/// Mails after which that happens.
const MAILS_BEFORE: u64 = 30;
/// Nothing in the demo takes longer.
const DEADLINE: Duration = Duration::from_mins(2);
/// Where dead letters stand: they are done.
const DEAD: &str = "postrider.dead";
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Show the main job on this machine: sandbox, embedded queue, worker, sample traffic
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Keep the sandbox's page and the worker's metrics up afterwards, until Ctrl-C
    #[arg(long)]
    stay: bool,
}

/// The parts that run.
struct Stage {
    queue: SqliteQueue,
    sandbox: String,
    admin: SocketAddr,
    client: reqwest::Client,
    end: CancellationToken,
    worker: tokio::task::JoinHandle<Result<(), Failure>>,
    /// Holds the queue's file; removed with it.
    _dir: TempDir,
}

pub(super) async fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    let stop = Stop::on_signal()?;
    let stage = Stage::set(&stop).await?;
    talk(format_args!(
        "inbox    {}   what HubSpot would have sent",
        stage.sandbox
    ));
    talk(format_args!("metrics  http://{}/metrics", stage.admin));
    talk("quota    20 calls a second; the token is refused for 3 s in the middle");
    let samples = traffic::samples(Clock::system().now());
    let shown = tokio::select! {
        biased;
        () = stop.told.cancelled() => Err(Failure::new(Exit::Interrupted, "the demo was stopped")),
        shown = show(&stage, &samples, output) => shown,
    };
    if shown.is_ok() && args.stay {
        talk("the pages stay up: Ctrl-C ends them");
        stop.told.cancelled().await;
    }
    stop.told.cancel();
    let ended = stage.worker.await;
    stage.end.cancel();
    shown?;
    ended.map_err(|error| Failure::bug(format!("the worker stopped: {error}")))?
}

/// Publishes, watches, replays, and tells what happened.
async fn show(stage: &Stage, samples: &[Sample], output: &mut Output) -> Result<(), Failure> {
    for sample in samples {
        stage.queue.publish(sample.parcel.clone()).await?;
    }
    talk(format_args!("{} requests published", samples.len()));
    stage.drained(samples.len() as u64, true).await?;
    let dead = stage
        .dead(|letter| Fate::Replay(Box::new(letter.replay())))
        .await?;
    if dead.iter().any(is_replayed) {
        talk(format_args!(
            "the template is mended: `postrider dead replay {}`",
            traffic::REPLAYED
        ));
    }
    stage.drained(1, false).await?;
    let inbox: Inbox = stage.ask("/_sandbox/mail?after=0&limit=10000").await?;
    let dead = stage.dead(|_| Fate::Keep).await?;
    let stats: serde_json::Value = stage.ask("/_sandbox/stats").await?;
    let good = report::print(samples, &inbox, &dead, output)?;
    let most = stats
        .pointer("/windows/send/most")
        .and_then(serde_json::Value::as_u64);
    talk(format_args!(
        "most calls in any second: {} of 20; {} answers of 429",
        most.unwrap_or_default(),
        stats
            .get("throttled")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or_default()
    ));
    if good {
        Ok(())
    } else {
        Err(Failure::bug("not every request ended as it must"))
    }
}

fn is_replayed(letter: &DeadLetter) -> bool {
    letter
        .story
        .death
        .as_ref()
        .is_some_and(|death| death.key == traffic::REPLAYED)
}

impl Stage {
    /// Starts everything.
    async fn set(stop: &Stop) -> Result<Self, Failure> {
        let sandbox = listen(SANDBOX_ADDR).await?;
        let admin = listen(ADMIN_ADDR).await?;
        let (sandbox_addr, admin_addr) = (addr(&sandbox)?, addr(&admin)?);
        let end = CancellationToken::new();
        tokio::spawn(sandbox::serve(sandbox, sandbox_options()?, end.clone()));

        let dir = TempDir::with_prefix("postrider-demo-").map_err(|error| {
            Failure::new(
                Exit::Unavailable,
                format!("cannot make a temporary folder: {error}"),
            )
        })?;
        let config = config(&dir, sandbox_addr)?;
        let account = AccountName::default();
        let path = dir.path().join("queue.db");
        let queue =
            SqliteQueue::open(path, "postrider", [account], Clock::system(), Mode::Worker).await?;
        let accounts = worker::served(&config)?;
        let (served, stop) = (queue.clone(), stop.clone());
        let worker =
            tokio::spawn(
                async move { worker::serve(&config, served, accounts, admin, stop).await },
            );
        Ok(Self {
            queue,
            sandbox: format!("http://{sandbox_addr}"),
            admin: admin_addr,
            client: reqwest::Client::builder()
                .no_proxy()
                .build()
                .map_err(unreachable)?,
            end,
            worker,
            _dir: dir,
        })
    }

    /// Watches until nothing stands in the queue but dead letters.
    async fn drained(&self, requests: u64, with_trouble: bool) -> Result<(), Failure> {
        let bar = progress(Some(requests), "requests done");
        let deadline = Instant::now() + DEADLINE;
        let mut trouble = with_trouble;
        loop {
            let depths = self.queue.depths().await?;
            let open: u64 = depths
                .iter()
                .filter(|depth| depth.queue != DEAD)
                .map(|depth| depth.messages)
                .sum();
            bar.set_position(requests.saturating_sub(open));
            if open == 0 {
                bar.finish_and_clear();
                return Ok(());
            }
            if trouble {
                let stats: serde_json::Value = self.ask("/_sandbox/stats").await?;
                if stats.get("mails").and_then(serde_json::Value::as_u64) >= Some(MAILS_BEFORE) {
                    trouble = false;
                    self.refuse_token().await?;
                    bar.println(
                        "HubSpot refuses the token for 3 s: the account pauses, nothing is lost",
                    );
                }
            }
            if Instant::now() > deadline {
                return Err(Failure::bug(format!(
                    "{open} requests are still open after {DEADLINE:?}"
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// All dead letters, with one fate for the one that is replayed.
    async fn dead(
        &self,
        fate: impl Fn(&DeadLetter) -> Fate + Send + Sync,
    ) -> Result<Vec<DeadLetter>, Failure> {
        let mut dead = Vec::new();
        let sweep = self.queue.sweep(|letter| {
            dead.push(letter.clone());
            ControlFlow::Continue(if is_replayed(letter) {
                fate(letter)
            } else {
                Fate::Keep
            })
        });
        sweep.await?;
        Ok(dead)
    }

    async fn refuse_token(&self) -> Result<(), Failure> {
        let url = format!("{}/_sandbox/faults", self.sandbox);
        self.client
            .post(url)
            .body(TOKEN_REFUSED)
            .send()
            .await
            .map_err(unreachable)?;
        Ok(())
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let url = format!("{}{path}", self.sandbox);
        let answer = self.client.get(url).send().await.map_err(unreachable)?;
        answer.json().await.map_err(unreachable)
    }
}

fn unreachable(error: reqwest::Error) -> Failure {
    Failure::new(
        Exit::Unavailable,
        format!("the sandbox does not answer: {}", error.without_url()),
    )
}

/// The usual address, or a free one when somebody has it.
async fn listen(usual: &str) -> Result<TcpListener, Failure> {
    match TcpListener::bind(usual).await {
        Ok(listener) => Ok(listener),
        Err(_) => worker::listen(SocketAddr::from(([127, 0, 0, 1], 0))).await,
    }
}

fn addr(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener
        .local_addr()
        .map_err(|error| Failure::bug(format!("a listener without an address: {error}")))
}

fn sandbox_options() -> Result<sandbox::Options, Failure> {
    let bad = |error: sandbox::BadOption| Failure::bug(error.to_string());
    Ok(sandbox::Options {
        latency: "20ms-80ms".parse::<Span>().map_err(bad)?,
        results_after: "200ms-1s".parse::<Span>().map_err(bad)?,
        limit: Some("20/1s".parse::<Limit>().map_err(bad)?),
        ..sandbox::Options::default()
    })
}

/// The configuration a user would write for this, read like any other.
fn config(dir: &TempDir, sandbox: SocketAddr) -> Result<Config, Failure> {
    let file = dir.path().join("postrider.toml");
    let text = format!(
        "[accounts.default]\n\
         token = \"demo\"\n\
         base_url = \"http://{sandbox}\"\n\
         quota.send = {{ limit = 20, window = \"1s\" }}\n\
         [retry]\n\
         initial = \"500ms\"\n"
    );
    std::fs::write(&file, text).map_err(|error| {
        Failure::new(
            Exit::Unavailable,
            format!("cannot write {}: {error}", file.display()),
        )
    })?;
    Ok(Config::load(&Sources {
        file: Some(file),
        ..Sources::default()
    })?)
}
