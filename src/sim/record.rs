//! What happened in a run: the trace for people, and the facts that the checks look at.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::outcome::{DeadReason, Disposition};
use crate::story::Story;

/// More than any run needs in which nothing goes round in circles.
const EVENTS_MAX: usize = 50_000;

/// Who did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Who {
    World,
    Producer,
    Operator,
    HubSpot,
    /// From 0.
    Worker(usize),
}

/// One thing that happened.
#[derive(Clone, Debug, Hash)]
pub struct Event {
    /// Since the run began.
    at: Duration,
    who: Who,
    verb: &'static str,
    /// The id of the message, if one is concerned.
    id: String,
    detail: Cow<'static, str>,
}

/// All that happened, and what became of each message.
#[derive(Debug)]
pub(super) struct Record {
    origin: Instant,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) events: Vec<Event>,
    pub(super) fates: BTreeMap<String, Fate>,
    /// Answers to sends that a living worker heard.
    pub(super) heard: u64,
    /// Dead letters that a worker was told are durable.
    pub(super) buried: u64,
    /// Calls that a stopped process or its network held back and then let go, by their bucket: no
    /// limiter knows when they arrive.
    pub(super) late: BTreeMap<&'static str, u64>,
    /// What is wrong already, without looking at the end.
    pub(super) wrong: Vec<String>,
}

/// What became of the copies of one message.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Fate {
    /// A producer has heard that it is durable.
    pub(super) accepted: bool,
    /// More than one copy may stand: an acknowledgement, a confirm or a broker was lost.
    pub(super) copied: bool,
    /// It was handed out again: what became of a call may have been forgotten.
    pub(super) came_again: bool,
    /// Calls for it that HubSpot answered, or would have.
    pub(super) calls: Vec<SendCall>,
    /// Answers of the kind that spends an attempt, or none, that a living worker heard.
    pub(super) trouble: u32,
    /// How often a final result said *not sent*, be it that the message was sent again or died.
    pub(super) sent_back: u32,
    /// It was taken out of the queue as done.
    pub(super) completed: u32,
    pub(super) deaths: Vec<Death>,
    pub(super) replays: u32,
    pub(super) discarded: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct SendCall {
    pub(super) generation: u32,
    /// 0 when no answer comes.
    pub(super) status: u16,
}

#[derive(Clone, Debug)]
pub(super) struct Death {
    pub(super) reason: DeadReason,
    pub(super) generation: u32,
    pub(super) story: Story,
}

impl Record {
    pub(super) fn new() -> Self {
        Self {
            origin: Instant::now(),
            kept: Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(
        &self,
        who: Who,
        verb: &'static str,
        id: &str,
        detail: impl Into<Cow<'static, str>>,
    ) {
        self.lock().events.push(Event {
            at: self.origin.elapsed(),
            who,
            verb,
            id: id.to_owned(),
            detail: detail.into(),
        });
    }

    /// Something goes round in circles.
    pub(super) fn is_full(&self) -> bool {
        self.lock().events.len() >= EVENTS_MAX
    }

    /// Looks at, or changes, what became of a message.
    pub(super) fn fate<T>(&self, id: &str, change: impl FnOnce(&mut Fate) -> T) -> T {
        let mut kept = self.lock();
        if let Some(fate) = kept.fates.get_mut(id) {
            return change(fate);
        }
        change(kept.fates.entry(id.to_owned()).or_default())
    }

    pub(super) fn wrong(&self, problem: impl Into<String>) {
        self.lock().wrong.push(problem.into());
    }

    /// A disposition took effect.
    pub(super) fn carried_out(&self, id: &str, disposition: &Disposition) {
        self.fate(id, |fate| match disposition {
            Disposition::Complete => fate.completed += 1,
            Disposition::DeadLetter { story } => {
                if let Some(death) = &story.death {
                    fate.deaths.push(Death {
                        reason: death.reason,
                        generation: story.generation.max(1),
                        story: Story::clone(story),
                    });
                }
            }
            Disposition::FollowUp { .. }
            | Disposition::Retry { .. }
            | Disposition::Snooze { .. }
            | Disposition::Route { .. }
            | Disposition::Release => {}
        });
    }
}

/// A number that is the same for two runs in which the same happened.
pub(super) fn fingerprint(events: &[Event]) -> u64 {
    let mut hasher = DefaultHasher::new();
    events.hash(&mut hasher);
    hasher.finish()
}

/// A `sendId` is the id, or the id and a generation.
pub(super) fn base(send_id: &str) -> (&str, u32) {
    let split = send_id.rsplit_once(".r");
    let generation = split.and_then(|(id, generation)| Some((id, generation.parse().ok()?)));
    generation.unwrap_or((send_id, 1))
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.at.as_secs();
        let (hours, minutes, secs) = (secs / 3600, secs / 60 % 60, secs % 60);
        let millis = self.at.subsec_millis();
        write!(f, "{hours:3}:{minutes:02}:{secs:02}.{millis:03}  ")?;
        let who = match self.who {
            Who::World => "world".to_owned(),
            Who::Producer => "producer".to_owned(),
            Who::Operator => "operator".to_owned(),
            Who::HubSpot => "HubSpot".to_owned(),
            Who::Worker(number) => format!("worker {}", number + 1),
        };
        write!(
            f,
            "{who:<9} {:<12} {:<8} {}",
            self.verb, self.id, self.detail
        )
    }
}
