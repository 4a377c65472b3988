//! A story for people: where it is now, a line for each step, and what is not known.

use std::io;

use jiff::Timestamp;

use super::{Known, Place};
use crate::cli::output::{Mood, Output, count};
use crate::journal::{Call, Entry, Then};
use crate::queue::Sight;

/// Who got it, where that is nobody of those whom the request names. No address: that of the sink is in
/// the configuration.
pub(super) const TO_SINK: &str = "to delivery.sink alone, in the place of its recipients";

/// From the head to what is not known.
pub(super) fn all(known: &Known, place: &Place, output: &mut Output) -> io::Result<()> {
    let state = output.paint(place.mood, place.state);
    output.line(format_args!("{}  {state}", known.id))?;
    output.line(format_args!("  {}", place.told))?;
    if let Some(row) = published(known) {
        output.line(row)?;
    }
    for (index, entry) in known.entries.iter().enumerate() {
        let before = known.entries.get(..index).unwrap_or_default();
        output.line(row(entry, before))?;
    }
    let is_told = |entry: &Entry| matches!(entry.then, Then::DeadLetter { .. });
    if let Some(death) = (known.dead.as_ref()).and_then(|dead| dead.story.death.as_ref())
        && !known.entries.iter().any(is_told)
    {
        let why = format!("{}: {}", death.reason, death.problem);
        output.line(line(death.at, "dead letter", &[why]))?;
    }
    for unknown in not_known(known) {
        output.line(output.paint(Mood::Quiet, &format!("  not known: {unknown}")))?;
    }
    Ok(())
}

/// What the story lacks, or may lack.
pub(super) fn not_known(known: &Known) -> Vec<String> {
    let mut lacks = Vec::new();
    match (&known.reach, known.since) {
        (Err(error), _) => lacks.push(format!("the trace cannot be read: {error}")),
        (Ok(None), _) => lacks.push("no trace is kept here yet".into()),
        (Ok(Some(_)), Some(since)) => {
            lacks.push(format!("what was before {} (--since)", time(since)));
        }
        (Ok(Some(reach)), None) => {
            let begun = published_at(known);
            if begun.is_none_or(|begun| begun < *reach) && !tells_the_beginning(known) {
                lacks.push(format!(
                    "what was before {}, where the trace begins",
                    time(*reach)
                ));
            }
        }
    }
    for gap in &known.gaps {
        lacks.push(format!(
            "{} of all requests between {} and {}, which could not be kept",
            count(gap.lost, "step"),
            time(gap.since),
            time(gap.until)
        ));
    }
    if known.is_gone() {
        lacks.push("what took it out of the queue".into());
    } else if matches!(known.sight, Sight::Blind) && known.was_left_in_the_queue() {
        lacks.push("whether it still stands in the queue, which RabbitMQ shows nobody".into());
    }
    let missing = missing(known);
    if !missing.is_empty() {
        let numbers: Vec<_> = missing.iter().map(u32::to_string).collect();
        lacks.push(format!(
            "attempt {}, which no step tells of",
            numbers.join(", ")
        ));
    }
    if known.remembered > 0 {
        lacks.push(format!(
            "what followed {} that only the request itself remembers",
            count(known.remembered as u64, "attempt")
        ));
    }
    lacks
}

fn tells_the_beginning(known: &Known) -> bool {
    known.entries.iter().any(|entry| {
        let attempt = entry.call.as_ref().and_then(|call| call.attempt);
        attempt == Some(1) || matches!(entry.then, Then::Published { .. })
    })
}

/// The numbers of attempts between those that are told.
fn missing(known: &Known) -> Vec<u32> {
    let calls = known.entries.iter().filter_map(|entry| entry.call.as_ref());
    let told: Vec<u32> = calls.filter_map(|call| call.attempt).collect();
    let last = told.iter().max().copied().unwrap_or_default();
    let first = match known.since {
        Some(_) => told.iter().min().copied().unwrap_or_default(),
        None => 1,
    };
    (first..last)
        .filter(|number| !told.contains(number))
        .collect()
}

fn published_at(known: &Known) -> Option<Timestamp> {
    let entries = known.entries.iter().filter_map(|entry| entry.published_at);
    let story = known.story().and_then(|story| story.published_at);
    entries.chain(story).min()
}

/// When it was published, where no step says so.
fn published(known: &Known) -> Option<String> {
    let told = |entry: &Entry| matches!(entry.then, Then::Published { .. });
    if known.entries.iter().any(told) {
        return None;
    }
    let mut accounts = known.entries.iter().map(|entry| entry.account.clone());
    let account = accounts.next_back().filter(|account| !account.is_empty());
    let account = account.map(|account| format!("account {account}"));
    Some(line(published_at(known)?, "received", account.as_slice()))
}

/// One step.
fn row(entry: &Entry, before: &[Entry]) -> String {
    let mut told = Vec::new();
    let step = match (&entry.call, &entry.then) {
        (Some(call), _) => {
            told.push(heard(call, &entry.id));
            told.extend(call.to_sink.then(|| TO_SINK.to_owned()));
            told.extend(resolves(call, before));
            match call.attempt {
                Some(number) => format!("attempt {number}"),
                None => "result".into(),
            }
        }
        (None, Then::Published { .. }) => "published".into(),
        (None, Then::Replay { .. }) => "replay".into(),
        (None, Then::Discard { .. }) => "discard".into(),
        (None, _) => "no call".into(),
    };
    if entry.redelivered {
        told.push(
            "it had been handed out before: an earlier attempt may have been cut short".into(),
        );
    }
    told.extend(follows(entry));
    line(entry.at, &step, &told)
}

fn line(at: Timestamp, step: &str, told: &[String]) -> String {
    format!("{}  {step:<11}  {}", time(at), told.join("; "))
        .trim_end()
        .to_owned()
}

/// The answer, in HubSpot's words.
fn heard(call: &Call, id: &str) -> String {
    let words = &call.words;
    let parts = [
        Some(format!("{:<9}", call.outcome)),
        Some(format!("{} ms", call.took_ms)),
        words.status.map(|status| status.to_string()),
        words.category.clone(),
        words.sub_category.clone(),
        words.policy_name.clone(),
        words.message.clone(),
        words.send_result.clone(),
        words.correlation_id.clone(),
        (!call.send_id.is_empty() && call.send_id != id)
            .then(|| format!("sendId {}", call.send_id)),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    parts.join("  ")
}

/// An answer tells what became of the attempts before it that had none, under the same `sendId`.
fn resolves(call: &Call, before: &[Entry]) -> Option<String> {
    let is_answer = matches!(call.outcome.as_str(), "accepted" | "sent");
    let silent = before.iter().rev().filter_map(|entry| entry.call.as_ref());
    let silent = silent
        .take_while(|earlier| earlier.outcome != "accepted")
        .filter(|earlier| earlier.outcome == "unknown" && earlier.attempt.is_some())
        .filter(|earlier| earlier.send_id.is_empty() || earlier.send_id == call.send_id)
        .last()?;
    is_answer.then(|| {
        format!(
            "resolves attempt {}: HubSpot has its sendId, and mails it once",
            silent.attempt.unwrap_or_default()
        )
    })
}

fn follows(entry: &Entry) -> Option<String> {
    let heard = entry.call.as_ref().map(|call| call.outcome.as_str());
    let by = |who: &Option<String>| match who {
        Some(who) => format!("asked for by {who}"),
        None => "asked for".to_owned(),
    };
    Some(match &entry.then {
        Then::Published { priority } => {
            format!("account {}, priority {priority}", entry.account)
        }
        Then::Retry { at } if heard == Some("unknown") => format!(
            "it may have been mailed: the same sendId goes out at {}",
            time(*at)
        ),
        Then::Retry { at } => format!("again at {}", time(*at)),
        Then::Snooze { until } => format!("waits until {}", time(*until)),
        Then::FollowUp { at } => format!("its result is looked up at {}", time(*at)),
        Then::Route { account, priority } => {
            format!("belongs to account {account}, priority {priority}")
        }
        Then::DeadLetter { reason, problem } => match problem {
            Some(problem) => format!("dead letter, {reason}: {problem}"),
            None => format!("dead letter, {reason}"),
        },
        Then::Complete if heard == Some("pending") => "given up: the result stays unknown".into(),
        Then::Complete | Then::Other => return None,
        Then::Release => "given back untouched".into(),
        Then::NotSettled => "the queue did not take what followed: it is handed out again".into(),
        Then::Replay { send_id, by: who } => format!("{}, sendId {send_id}", by(who)),
        Then::Discard { by: who } => by(who),
    })
}

/// To the millisecond: attempts may follow each other closely.
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}
