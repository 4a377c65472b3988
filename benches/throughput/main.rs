//! The whole system, beside a bare loop: sends a second without a limit, processor time, memory, the
//! time from a publish to its call, replay, and how long the program takes to start.
//!
//! `cargo bench --bench throughput` prints it all over RabbitMQ and the embedded queue; `--
//! --million` also fills each with a million requests (some minutes). Broker, sandbox and
//! worker share the machine, so only what is measured in the same minute can be compared: the
//! rounds are interleaved, and the ratio is the median of the rounds' own ratios.
//!
//! It prints; it asserts nothing about time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark talks, and may stop at once"
)]

mod backlog;
mod bare;
#[path = "../../tests/it/support/broker.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod broker;
mod latency;
mod program;
mod replay;
mod report;
mod run;

use clap::{Parser, Subcommand};

use self::backlog::Backlog;
use self::program::Sandbox;
use self::run::{Contestant, Figures, Rig};

/// Some seconds of each contestant.
const REQUESTS: u64 = 100_000;
/// What memory is compared at.
const SHORT_BACKLOG: u64 = 10_000;
const LONG_BACKLOG: u64 = 1_000_000;

#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
struct Args {
    /// Requests of each round
    #[arg(long, default_value_t = REQUESTS)]
    requests: u64,
    /// Rounds of each contestant
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Also measure memory with a million queued
    #[arg(long)]
    million: bool,
    /// Leave the embedded queue out
    #[arg(long)]
    no_sqlite: bool,
    /// Rates alone
    #[arg(long)]
    only_rates: bool,
    /// For how long requests trickle in, ten a second
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    trickle: u64,
    /// Dead letters to replay
    #[arg(long, default_value_t = 100_000)]
    letters: u64,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What this program runs as a process of its own.
#[derive(Debug, Subcommand)]
enum Part {
    /// The bare loop
    #[command(hide = true)]
    Bare(bare::Args),
    /// Its replay
    #[command(hide = true)]
    BareReplay(replay::Args),
}

fn main() {
    let args = Args::parse();
    postrider::crypto::init_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    match args.part {
        Some(Part::Bare(bare)) => runtime.block_on(bare::run(bare)),
        Some(Part::BareReplay(replay)) => runtime.block_on(replay::bare(replay)),
        None => runtime.block_on(measure(&args)),
    }
}

async fn measure(args: &Args) {
    let sandbox = Sandbox::start().await;
    let broker = broker::Broker::start().await;
    let rabbitmq = Rig::new(&sandbox, Backlog::amqp(&broker).await);
    let all = [Contestant::Bare, Contestant::Worker, Contestant::Untraced];
    rates("RabbitMQ, a quorum queue", &rabbitmq, &all, args).await;
    let sqlite = if args.no_sqlite {
        None
    } else {
        Some(Rig::new(&sandbox, Backlog::sqlite().await))
    };
    if let Some(sqlite) = &sqlite {
        let workers = [Contestant::Worker, Contestant::Untraced];
        rates("SQLite", sqlite, &workers, args).await;
    }
    if args.only_rates {
        return;
    }
    trickle(
        "RabbitMQ",
        &rabbitmq,
        &[Contestant::Bare, Contestant::Worker],
        args,
    )
    .await;
    if let Some(sqlite) = &sqlite {
        trickle("SQLite", sqlite, &[Contestant::Worker], args).await;
    }
    replay("RabbitMQ", &rabbitmq, args).await;
    if let Some(sqlite) = &sqlite {
        replay("SQLite", sqlite, args).await;
    }
    report::start(program::times_to_start());
    if let Some(sqlite) = &sqlite {
        memory("SQLite", sqlite, args).await;
    }
    memory("RabbitMQ", &rabbitmq, args).await;
}

/// From a publish to its call, at ten a second.
async fn trickle(title: &str, rig: &Rig<'_>, contestants: &[Contestant], args: &Args) {
    println!(
        "\n{title}: from a publish to its call, ten a second for {} s\n",
        args.trickle
    );
    for contestant in contestants {
        report::latency(
            *contestant,
            latency::latency(rig, *contestant, args.trickle).await,
        );
    }
}

/// Dead letters, back in their lane.
async fn replay(title: &str, rig: &Rig<'_>, args: &Args) {
    let (bare, command) = replay::replay(rig, args.letters).await;
    report::replay(title, args.letters, bare, command);
}

/// Rounds of all contestants, one after the other in each.
async fn rates(title: &str, rig: &Rig<'_>, contestants: &[Contestant], args: &Args) {
    println!(
        "\n{title}: {} requests, {} rounds\n",
        args.requests, args.rounds
    );
    report::heading();
    let mut rounds: Vec<Vec<Figures>> = Vec::new();
    for round in 1..=args.rounds {
        let mut figures = Vec::new();
        for contestant in contestants {
            rig.backlog.fill(args.requests).await;
            let one = rig.run(*contestant, args.requests).await;
            report::line(&format!("round {round}"), *contestant, one);
            figures.push(one);
        }
        rounds.push(figures);
    }
    report::medians(contestants, &rounds);
}

/// The worker's peak memory after the same number of sends from backlogs of different lengths.
/// The long one comes last: most of it is left in the queue.
async fn memory(title: &str, rig: &Rig<'_>, args: &Args) {
    println!("\n{title}: peak memory of the worker after {SHORT_BACKLOG} sends\n");
    let lengths = [Some(SHORT_BACKLOG), args.million.then_some(LONG_BACKLOG)];
    for queued in lengths.into_iter().flatten() {
        let filled = rig.backlog.fill(queued).await;
        let figures = rig.run(Contestant::Worker, SHORT_BACKLOG).await;
        report::memory(queued, filled, figures);
    }
}
