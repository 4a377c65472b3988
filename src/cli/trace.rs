//! `postrider trace`: one request's story.
//!
//! It is put together from what there is: the journal, the dead letters, and (on SQLite) the lanes.
//! What travels with the request itself is told even where the journal is lost.

mod place;
mod tell;

use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args as ClapArgs;
use jiff::Timestamp;
use serde::Serialize;

pub(super) use self::place::Place;
use super::dead::{key, time};
use super::failure::{Exit, Failure};
use super::open::{Purpose, with_queue};
use super::output::{Output, progress};
use crate::clock::Clock;
use crate::config::Config;
use crate::journal::{Call, Entry, Gap, Record, Then};
use crate::message::Priority;
use crate::queue::{DeadLetter, DeadLetters, Fate, Queue, QueueError, Sight, Standing, Traces};
use crate::story::Story;

/// Tell what was done with one request: each attempt, what followed, the result
///
/// The steps are kept for a week, beside the queue (`PREFIX.trace` on RabbitMQ, `PATH.trace` on
/// SQLite). They are no part of it: a step may be lost, and no mail with it.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The request's id; ID.r2 stands for ID
    id: String,
    /// Read no further back than this, such as 90m or 7d
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Duration>,
}

/// All that is known of one request.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: String,
    /// In the order of time, each once.
    entries: Vec<Entry>,
    gaps: Vec<Gap>,
    /// How far back the journal reaches.
    reach: Result<Option<Timestamp>, QueueError>,
    since: Option<Timestamp>,
    dead: Option<DeadLetter>,
    sight: Sight,
    /// How many attempts are told by the request's own story alone.
    remembered: usize,
}

/// The last line of `--json`.
#[derive(Serialize)]
struct Summary<'a> {
    id: &'a str,
    state: &'static str,
    told: String,
    not_known: Vec<String>,
}

pub(super) async fn run(config: &Config, args: &Args, output: &mut Output) -> Result<(), Failure> {
    let now = Clock::system().now();
    let since = args.since.and_then(|age| now.checked_sub(age).ok());
    let known = with_queue!(config, Purpose::Inspect, |queue| gather(
        &queue, &args.id, since
    )
    .await)?;
    if known.is_nothing() {
        return Err(known.nothing());
    }
    let place = Place::of(&known, now);
    if output.json {
        for gap in &known.gaps {
            output.object(&Record::Gap { gap: *gap })?;
        }
        for entry in &known.entries {
            output.object(entry)?;
        }
        output.object(&Summary {
            id: &known.id,
            state: place.state,
            told: place.told,
            not_known: tell::not_known(&known),
        })?;
        return Ok(());
    }
    Ok(tell::all(&known, &place, output)?)
}

pub(super) async fn gather<Q>(
    queue: &Q,
    id: &str,
    since: Option<Timestamp>,
) -> Result<Known, Failure>
where
    Q: Queue + DeadLetters + Traces,
{
    let ids = names(id);
    let bar = progress(None, "pages of the trace");
    let mut records = Vec::new();
    let reach = queue.trace(&ids, since, |page| {
        bar.inc(1);
        records.extend(page);
    });
    let reach = reach.await;
    bar.finish_and_clear();
    let mut dead = None;
    let is_it = |letter: &DeadLetter| ids.iter().any(|id| id == key(letter));
    queue
        .sweep(|letter| {
            if is_it(letter) {
                dead = Some(letter.clone());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(Fate::Keep)
        })
        .await?;
    let mut sight = Sight::Nowhere;
    for id in &ids {
        if matches!(sight, Sight::Nowhere) {
            sight = queue.find(id).await?;
        }
    }
    let mut known = Known {
        id: id.to_owned(),
        entries: Vec::new(),
        gaps: Vec::new(),
        reach,
        since,
        dead,
        sight,
        remembered: 0,
    };
    known.sort(records);
    Ok(known)
}

/// The id as it was typed, and the one whose later generation that is.
fn names(id: &str) -> Vec<String> {
    let mut ids = vec![id.to_owned()];
    if let Some((first, generation)) = id.rsplit_once(".r")
        && generation.parse::<u32>().is_ok()
    {
        ids.push(first.to_owned());
    }
    ids
}

// === impl Known ===

impl Known {
    fn sort(&mut self, records: Vec<Record>) {
        for record in records {
            match record {
                Record::Entry(entry) => self.entries.push(entry),
                Record::Gap { gap } => self.gaps.push(gap),
            }
        }
        self.remember();
        // In the same millisecond it was published first.
        let is_later = |entry: &Entry| !matches!(entry.then, Then::Published { .. });
        self.entries
            .sort_by_key(|entry| (entry.at, is_later(entry)));
        self.entries.dedup();
        self.gaps.dedup();
        if let Some(entry) = self.entries.first() {
            self.id.clone_from(&entry.id);
        }
    }

    /// Adds the attempts that only the request itself knows of.
    fn remember(&mut self) {
        let Some(story) = self.story().cloned() else {
            return;
        };
        let mut number = 0;
        for attempt in &story.attempts {
            let is_send = !attempt.is_result();
            number += u32::from(is_send);
            let is_told = |entry: &Entry| {
                let call = entry.call.as_ref();
                entry.at == attempt.at && call.is_some_and(|call| call.outcome == attempt.outcome)
            };
            if self.entries.iter().any(is_told) || self.since.is_some_and(|at| attempt.at < at) {
                continue;
            }
            let heard = (attempt.outcome.as_str(), &attempt.words);
            let took = Duration::from_millis(attempt.took_ms);
            let call = Call::new(is_send.then_some(number), String::new(), took, heard);
            self.remembered += 1;
            self.entries.push(Entry {
                id: self.id.clone(),
                at: attempt.at,
                account: String::new(),
                published_at: story.published_at,
                redelivered: false,
                call: Some(call),
                then: Then::Other,
            });
        }
    }

    /// What travels with the request, where it can be seen.
    fn story(&self) -> Option<&Story> {
        let dead = self.dead.as_ref().map(|letter| &letter.story);
        dead.or(self.standing().map(|standing| &standing.story))
    }

    fn standing(&self) -> Option<&Standing> {
        match &self.sight {
            Sight::Stands(standing) => Some(standing),
            Sight::Blind | Sight::Nowhere => None,
        }
    }

    /// The queue can be seen and does not hold it, though the last step that is kept left it there.
    fn is_gone(&self) -> bool {
        matches!(self.sight, Sight::Nowhere) && self.was_left_in_the_queue()
    }

    fn was_left_in_the_queue(&self) -> bool {
        let last = self.entries.last().filter(|_| self.dead.is_none());
        last.is_some_and(|last| match last.then {
            Then::Complete | Then::Discard { .. } | Then::DeadLetter { .. } => false,
            Then::Published { .. }
            | Then::FollowUp { .. }
            | Then::Retry { .. }
            | Then::Snooze { .. }
            | Then::Route { .. }
            | Then::Replay { .. }
            | Then::Release
            | Then::NotSettled
            | Then::Other => true,
        })
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.entries.is_empty() && self.dead.is_none() && self.standing().is_none()
    }

    /// Whether the last send whose step is kept went to the sink.
    fn went_to_sink(&self) -> bool {
        let calls = self.entries.iter().filter_map(|entry| entry.call.as_ref());
        let mut sends = calls.rev().filter(|call| call.attempt.is_some());
        sends.next().is_some_and(|call| call.to_sink)
    }

    /// The account that the last step names which names one.
    pub(super) fn account(&self) -> Option<&str> {
        if let Some(standing) = self.standing() {
            return Some(standing.account.as_str());
        }
        let named = self.entries.iter().map(|entry| entry.account.as_str());
        named.rev().find(|account| !account.is_empty())
    }

    /// How urgent it is, where that is known.
    pub(super) fn priority(&self) -> Option<Priority> {
        if let Some(standing) = self.standing() {
            return Some(standing.priority);
        }
        let mut steps = self.entries.iter().rev();
        steps.find_map(|entry| {
            if let Then::Published { priority } | Then::Route { priority, .. } = entry.then {
                Some(priority)
            } else {
                None
            }
        })
    }

    /// When it expires, where it can be seen in the queue.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        self.standing()?.expires
    }

    pub(super) fn nothing(&self) -> Failure {
        let hint = match (&self.reach, self.since) {
            (Err(error), _) => {
                format!("the trace cannot be read: {error}; mail does not need it")
            }
            (Ok(None), _) => "no trace is kept here yet; a worker begins one".to_owned(),
            (Ok(Some(_)), Some(_)) => "leave --since out to read all that is kept".to_owned(),
            (Ok(Some(reach)), None) => {
                format!("the trace reaches back to {reach}; check the id, it is the message.sendId")
            }
        };
        let problem = format!("nothing is known of {}", self.id);
        Failure::new(Exit::Data, problem).hint(hint)
    }
}
