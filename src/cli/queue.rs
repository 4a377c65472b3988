//! `postrider queue`: what stands where, and what the running worker says of itself.

use jiff::Timestamp;
use serde::Serialize;

use super::failure::Failure;
use super::open::{Purpose, with_queue};
use super::output::{Mood, Output, talk};
use super::rate::{Rate, Waiting};
use super::status::{Workers, age, ask_all, next_step, spent, told, troubled};
use crate::clock::Clock;
use crate::config::Config;
use crate::queue::Depth;
use crate::status::{AccountStatus, Status};

/// Show how much stands where, how old it is, and what holds it back
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    workers: Workers,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Told<'a> {
    queue: String,
    depths: &'a [Depth],
    /// Of all workers that were asked; `null` when none answers, or tells us.
    worker: Option<&'a Status>,
    /// Of each account that this worker dispatches.
    rates: Vec<Rate>,
    /// Why it is `null`, or lacks a worker, and the next step.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_hint: Option<&'static str>,
}

pub(super) async fn run(config: &Config, args: &Args, output: &mut Output) -> Result<(), Failure> {
    let depths = with_queue!(config, Purpose::Inspect, |queue| queue.depths().await)?;
    let workers = ask_all(&args.workers, &config.server).await;
    let status = workers.status.as_ref();
    let now = Clock::system().now();
    let rate = |account: &AccountStatus| {
        let waiting = Waiting::of(config, &depths, account);
        Rate::of(account, waiting, now)
    };
    if output.json {
        let accounts = status.iter().flat_map(|status| &status.accounts);
        let unknown = workers.unknown.first();
        return Ok(output.object(&Told {
            queue: config.queue.url.place(),
            depths: &depths,
            worker: status,
            rates: accounts.filter_map(rate).collect(),
            worker_error: unknown.map(|(why, _)| why.as_str()),
            worker_hint: unknown.map(|(_, hint)| *hint),
        })?);
    }
    let width = depths.iter().map(|depth| depth.queue.len()).max();
    for depth in &depths {
        let age = match depth.oldest {
            Some(at) => format!("oldest {}", age(now, at)),
            None => String::new(),
        };
        let line = format!(
            "{:<width$}  {:>9}  {age}",
            depth.queue,
            depth.messages,
            width = width.unwrap_or_default()
        );
        output.line(line.trim_end())?;
    }
    for account in status.iter().flat_map(|status| &status.accounts) {
        print_account(account, rate(account), now, output)?;
    }
    for (why, hint) in &workers.unknown {
        output.line("")?;
        let why = output.paint(Mood::Bad, why);
        output.line(format_args!(
            "{why}: pauses and rates are known to the worker alone"
        ))?;
        talk(format_args!("hint: {hint}"));
    }
    Ok(())
}

fn print_account(
    account: &AccountStatus,
    rate: Option<Rate>,
    now: Timestamp,
    output: &mut Output,
) -> Result<(), Failure> {
    let role = if account.owner {
        "dispatches"
    } else {
        "stands by"
    };
    output.line("")?;
    output.line(format_args!(
        "account {}: {role}, {} calls in flight",
        account.name, account.in_flight
    ))?;
    for quota in &account.quota {
        output.line(spent(quota))?;
    }
    if account.pauses.is_empty() && account.owner {
        let good = output.paint(Mood::Good, "no pause");
        output.line(format_args!("  {good}"))?;
    }
    for pause in &account.pauses {
        let text = output.paint(Mood::Bad, &told(pause, now));
        output.line(format_args!("  {text}"))?;
        match (&pause.words.message, pause.words.status) {
            (Some(message), Some(_)) => {
                output.line(format_args!("  HubSpot says: {message}"))?;
            }
            // Without an answer it is our own word: no answer, or no call.
            (Some(message), None) => output.line(format_args!("  {message}"))?,
            (None, _) => {}
        }
        if let Some(step) = next_step(pause.reason) {
            output.line(format_args!("  next step: {step}"))?;
        }
    }
    for trouble in &account.token_troubles {
        let text = output.paint(Mood::Bad, &troubled(trouble, now));
        output.line(format_args!("  {text}"))?;
        output.line(format_args!("  next step: {}", trouble.hint))?;
    }
    if let Some(rate) = rate {
        output.line(format_args!("  rate: {}", rate.told))?;
        if let Some(drain) = rate.drain {
            output.line(format_args!("  {}", drain.told))?;
        }
    }
    Ok(())
}
