//! `postrider why`: what a waiting request waits for.
//!
//! Where it stands is what `trace` knows. What holds its lane back is told by the worker that
//! dispatches it, from the gate and the limit by which it does.

use std::net::SocketAddr;

use serde::Serialize;

use super::failure::Failure;
use super::open::{Purpose, with_queue};
use super::output::Output;
use super::status::{Unknown, ask, drained, reachable, standing, told};
use super::trace::{Known, Place, gather};
use crate::clock::Clock;
use crate::config::{Config, ServerConfig};
use crate::message::AccountName;
use crate::queue::{DeadLetters, Depth, Lane, Queue, Traces};
use crate::quota::Bucket;
use crate::status::{AccountStatus, GateStatus, PauseStatus};

/// Tell where a request is, and what it waits for
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The request's id; ID.r2 stands for ID
    id: String,
    /// The admin server of the worker that dispatches it [default: server.listen of the
    /// configuration]
    #[arg(long, value_name = "ADDR")]
    worker: Option<SocketAddr>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    /// As of `postrider trace`.
    state: &'static str,
    told: &'a str,
    /// Empty when it waits for nothing, or no more.
    waits_for: &'a [String],
}

pub(super) async fn run(config: &Config, args: &Args, output: &mut Output) -> Result<(), Failure> {
    let now = Clock::system().now();
    let (known, depths) = with_queue!(config, Purpose::Inspect, |queue| look(&queue, &args.id)
        .await)?;
    if known.is_nothing() {
        return Err(known.nothing());
    }
    let place = Place::of(&known, now);
    let waits_for = match place.lane() {
        Some(lane) => {
            let worker = reachable(args.worker.unwrap_or(config.server.listen));
            let default = AccountName::default();
            let account = known.account().unwrap_or(default.as_str());
            let sends = |account: &AccountStatus| standing(config, &depths, account);
            of_worker(worker, &config.server, lane, account, sends).await
        }
        None => Vec::new(),
    };
    if output.json {
        return Ok(output.object(&Answer {
            id: &known.id,
            state: place.state,
            told: &place.told,
            waits_for: &waits_for,
        })?);
    }
    let state = output.paint(place.mood, place.state);
    output.line(format_args!("{}  {state}", known.id))?;
    output.line(format_args!("  {}", place.told))?;
    for reason in waits_for {
        output.line(format_args!("  {reason}"))?;
    }
    Ok(())
}

async fn look<Q>(queue: &Q, id: &str) -> Result<(Known, Vec<Depth>), Failure>
where
    Q: Queue + DeadLetters + Traces,
{
    let known = gather(queue, id, None).await?;
    Ok((known, queue.depths().await?))
}

/// What the worker at an address says of an account's lane.
async fn of_worker(
    worker: SocketAddr,
    server: &ServerConfig,
    lane: Lane,
    account: &str,
    standing: impl Fn(&AccountStatus) -> u64,
) -> Vec<String> {
    let status = match ask(worker, server).await {
        Ok(status) => status,
        Err(why @ Unknown::Refused { .. }) => {
            return vec![format!("{}: {}", why.told(worker), why.hint())];
        }
        Err(why @ Unknown::Silent(_)) => {
            return vec![format!(
                "{}: name the one that dispatches it with --worker",
                why.told(worker)
            )];
        }
    };
    let mut accounts = status.accounts.iter();
    match accounts.find(|it| it.name.as_str() == account) {
        Some(account) if account.owner => reasons(lane, account, standing(account)),
        Some(_) => vec![format!(
            "the worker at {worker} stands by for account {account}: name the one that dispatches it \
             with --worker"
        )],
        None => vec![format!("the worker at {worker} has no account {account}")],
    }
}

/// What holds a lane back, by the gate that its dispatch asks, or else its limit.
fn reasons(lane: Lane, account: &AccountStatus, sends: u64) -> Vec<String> {
    let now = Clock::system().now();
    let holds = |it: &&PauseStatus| {
        let some = lane == Lane::Sends && !it.priorities.is_empty();
        some || it.lanes.iter().any(|held| held == lane.as_str())
    };
    let pauses = account.pauses.iter().filter(holds);
    let mut reasons: Vec<String> = pauses.map(|pause| told(pause, now)).collect();
    match account.gate_of(lane) {
        Some(GateStatus::Shut) => return reasons,
        Some(GateStatus::Trial) => {
            reasons.push("one request is let through, to see whether that is over".to_owned());
            return reasons;
        }
        Some(GateStatus::Open) | None => {}
    }
    let bucket = match lane {
        Lane::Sends => Bucket::Send,
        Lane::Results => Bucket::Api,
    };
    let full = account.quota_of(bucket.label()).and_then(|quota| {
        let ours = quota.share.unwrap_or(quota.limit);
        (quota.used >= ours).then(|| {
            let (used, window) = (quota.used, quota.window_s);
            format!("the window is full: {used} of {ours} calls in {window} s")
        })
    });
    reasons.extend(full);
    if reasons.is_empty() {
        reasons.push("nothing holds it back".to_owned());
    }
    if lane == Lane::Sends {
        reasons.extend(drained(account, sends));
    }
    reasons
}
