//! `postrider why`: what a waiting request waits for.
//!
//! Where it stands is what `trace` knows. What holds its lane back is told by the worker that
//! dispatches it: what the loop of that lane last came to itself, and nothing that is worked out here.

use jiff::Timestamp;
use serde::Serialize;

use super::failure::Failure;
use super::open::{Purpose, with_queue};
use super::output::Output;
use super::rate::{Rate, TRIAL, Waiting, whose};
use super::status::{Told, Workers, ask_all, told};
use super::trace::{Known, Place, gather};
use crate::clock::Clock;
use crate::config::Config;
use crate::dispatch::Wait;
use crate::message::{AccountName, Priority};
use crate::queue::{DeadLetters, Depth, Lane, Queue, Traces};
use crate::quota::{Bucket, Full};
use crate::status::{AccountStatus, GateStatus, PauseStatus, QuotaStatus};

/// Tell where a request is, and what it waits for
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The request's id; ID.r2 stands for ID
    id: String,
    #[command(flatten)]
    workers: Workers,
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

/// What is known of the request that is asked about.
struct Asked<'a> {
    account: &'a str,
    lane: Lane,
    priority: Option<Priority>,
    /// It does not go on before that.
    due: Option<Timestamp>,
    /// It is not sent after that.
    expires: Option<Timestamp>,
    /// How many wait to be sent, by what the worker says of its account.
    waiting: &'a dyn Fn(&AccountStatus) -> Waiting,
}

pub(super) async fn run(config: &Config, args: &Args, output: &mut Output) -> Result<(), Failure> {
    let now = Clock::system().now();
    let (known, depths) = with_queue!(config, Purpose::Inspect, |queue| look(&queue, &args.id)
        .await)?;
    if known.is_nothing() {
        return Err(known.nothing());
    }
    let place = Place::of(&known, now);
    let waits_for = match place.lane {
        Some(lane) => {
            let default = AccountName::default();
            let account = known.account().unwrap_or(default.as_str());
            let asked = Asked {
                account,
                lane,
                priority: known.priority(),
                due: place.due,
                expires: known.expires(),
                waiting: &|account| Waiting::of(config, &depths, account),
            };
            let workers = ask_all(&args.workers, &config.server).await;
            of_workers(&workers, &asked)
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

/// What the worker says that dispatches the account, or that none of those does.
fn of_workers(workers: &Told, asked: &Asked<'_>) -> Vec<String> {
    let name = asked.account;
    let mut accounts = workers.status.iter().flat_map(|status| &status.accounts);
    let account = accounts.find(|account| account.name.as_str() == name);
    if let Some(account) = account.filter(|account| account.owner) {
        return reasons(account, asked);
    }
    let unknown = workers.unknown.iter();
    let mut told: Vec<String> = unknown
        .map(|(why, hint)| format!("{why}: {hint}"))
        .collect();
    if workers.status.is_some() {
        let who = workers.asked();
        told.push(match account {
            Some(_) => format!(
                "{who} stands by for account {name}: name the one that dispatches it with --worker"
            ),
            None => format!("{who} has no account {name}"),
        });
    }
    told
}

/// What holds it back: the pauses, then what its lane waits for, and at last its turn.
fn reasons(account: &AccountStatus, asked: &Asked<'_>) -> Vec<String> {
    let now = Clock::system().now();
    let is_held = |pause: &&PauseStatus| {
        let of_all = pause.lanes.iter().any(|lane| lane == asked.lane.as_str());
        let priorities = &pause.priorities;
        let of_it = match asked.priority {
            Some(priority) => priorities.contains(&priority),
            None => !priorities.is_empty(),
        };
        of_all || asked.lane == Lane::Sends && of_it
    };
    let pauses = account.pauses.iter().filter(is_held);
    let mut reasons: Vec<String> = pauses.map(|pause| told(pause, now)).collect();
    if asked.due.is_some() {
        if reasons.is_empty() {
            reasons.push("nothing else holds it back until then".to_owned());
        }
        return reasons;
    }
    match account.gate_of(asked.lane) {
        Some(GateStatus::Shut) => return reasons,
        Some(GateStatus::Trial) => {
            reasons.push(TRIAL.to_owned());
            return reasons;
        }
        Some(GateStatus::Open) | None => {}
    }
    if !reasons.is_empty() {
        return reasons;
    }
    reasons.extend(waits(account, asked.lane));
    if asked.lane == Lane::Sends {
        let waiting = (asked.waiting)(account);
        let rate = Rate::of(account, waiting, now);
        reasons.extend(rate.and_then(|rate| turn(&rate, asked.priority?, waiting)));
        reasons.extend(asked.expires.map(|at| expiry(at, now)));
    }
    reasons
}

/// What the lane's own loop waits for before its next call; an older worker does not tell.
fn waits(account: &AccountStatus, lane: Lane) -> Option<String> {
    let told = match account.wait_of(lane)? {
        Wait::Pause => "its lane waits for the end of a pause".to_owned(),
        Wait::Answer => format!(
            "as many calls are in flight as may be: {} (accounts.{}.concurrency)",
            account.in_flight, account.name
        ),
        Wait::OneByOne => {
            "calls go one by one, since HubSpot refused one for a rolling limit and has \
                           taken none since"
                .to_owned()
        }
        Wait::Lease => "this worker's hold on the account is to be renewed".to_owned(),
        Wait::Request => "nothing holds its lane back: it goes out next".to_owned(),
        Wait::Room => room(account, lane),
    };
    Some(told)
}

/// Why its rolling window has no room yet.
fn room(account: &AccountStatus, lane: Lane) -> String {
    let bucket = match lane {
        Lane::Sends => Bucket::Send,
        Lane::Results => Bucket::Api,
    };
    let quota = account.quota_of(bucket.label());
    let Some((quota, full)) = quota.and_then(|quota| Some((quota, quota.full?))) else {
        return "nothing holds its lane back: the next call goes out now".to_owned();
    };
    let QuotaStatus { used, window_s, .. } = quota;
    let whose = whose(quota);
    match full {
        Full::Pace => format!(
            "the window's calls are spread evenly, and the next one's turn is to come ({whose})"
        ),
        Full::Window | Full::Share => {
            format!("the window is full: {used} calls in {window_s} s ({whose})")
        }
        Full::Predecessor => format!(
            "the worker before may have used the window a moment ago: calls go as it comes free ({whose})"
        ),
    }
}

/// The line in which it stands, what goes before that, and how long all of it takes.
fn turn(rate: &Rate, priority: Priority, waiting: Waiting) -> Option<String> {
    let before = waiting.count(|other| other < priority);
    let line = waiting.count(|other| other == priority);
    if before + line == 0 {
        // In the worker's hands already.
        return None;
    }
    let ahead = match before {
        0 => "and nothing more urgent".to_owned(),
        _ => format!("behind {before} more urgent, which leave it a share of the turns"),
    };
    let told = format!("its turn: a line of {line} of priority {priority}, {ahead}");
    Some(match rate.time_for(before + line) {
        Some(time) => format!("{told}: together {time}"),
        None => told,
    })
}

/// What becomes of it where its turn comes too late.
fn expiry(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        format!("it expires at {at}: it becomes a dead letter if it has not gone out by then")
    } else {
        format!(
            "it expired at {at}: it is not sent any more, and becomes a dead letter as its turn comes"
        )
    }
}
