//! `postrider queue`: what stands where, and what the running worker says of itself.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::Serialize;

use super::failure::Failure;
use super::open::{Purpose, with_queue};
use super::output::{Mood, Output, talk};
use super::rate::{Rate, Waiting};
use super::status::{Unknown, age, ask, reachable, spent, told, troubled};
use crate::clock::Clock;
use crate::config::Config;
use crate::queue::Depth;
use crate::status::{AccountStatus, Status};

/// Show how much stands where, how old it is, and what holds it back
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The worker's admin server [default: server.listen of the configuration]
    #[arg(long, value_name = "ADDR")]
    worker: Option<SocketAddr>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Told<'a> {
    queue: String,
    depths: &'a [Depth],
    /// `null` when no worker answers, or tells us.
    worker: Option<&'a Status>,
    /// Of each account that this worker dispatches.
    rates: Vec<Rate>,
    /// Why it is `null`, and the next step.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_hint: Option<&'static str>,
}

pub(super) async fn run(config: &Config, args: &Args, output: &mut Output) -> Result<(), Failure> {
    let depths = with_queue!(config, Purpose::Inspect, |queue| queue.depths().await)?;
    let worker = reachable(args.worker.unwrap_or(config.server.listen));
    let status = ask(worker, &config.server).await;
    let now = Clock::system().now();
    let rate = |account: &AccountStatus| {
        let waiting = Waiting::of(config, &depths, account.name.as_str());
        Rate::of(account, waiting, now)
    };
    if output.json {
        let accounts = status.iter().flat_map(|status| &status.accounts);
        return Ok(output.object(&Told {
            queue: config.queue.url.place(),
            depths: &depths,
            worker: status.as_ref().ok(),
            rates: accounts.filter_map(rate).collect(),
            worker_error: status.as_ref().err().map(|why| why.told(worker)),
            worker_hint: status.as_ref().err().map(Unknown::hint),
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
    match status {
        Ok(status) => {
            for account in &status.accounts {
                print_account(account, rate(account), now, output)?;
            }
        }
        Err(why) => {
            output.line("")?;
            let told = output.paint(Mood::Bad, &why.told(worker));
            output.line(format_args!(
                "{told}: pauses and rates are known to the worker alone"
            ))?;
            talk(format_args!("hint: {}", why.hint()));
        }
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
