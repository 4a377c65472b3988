//! Where a request is now, as far as is known.

use jiff::Timestamp;

use super::{Known, tell};
use crate::cli::output::Mood;
use crate::journal::{Entry, Then};
use crate::queue::{Lane, Standing};

/// One word and one sentence.
#[derive(Debug)]
pub(in crate::cli) struct Place {
    /// `sent`, `unknown`, `accepted`, `dead`, `waiting`, `queued`, `discarded`, or `not known`.
    pub(in crate::cli) state: &'static str,
    pub(in crate::cli) told: String,
    pub(in crate::cli) mood: Mood,
    /// The lane in which it waits, if it does.
    pub(in crate::cli) lane: Option<Lane>,
    /// Before when it does not go on, whatever else holds it back.
    pub(in crate::cli) due: Option<Timestamp>,
}

impl Place {
    pub(in crate::cli) fn of(known: &Known, now: Timestamp) -> Self {
        let mut place = Self::found(known, now);
        let is_taken = matches!(place.state, "sent" | "accepted" | "unknown");
        if is_taken && known.went_to_sink() {
            place.told = format!("{}; {}", place.told, tell::TO_SINK);
        }
        place
    }

    /// What is seen goes before what was once noted.
    fn found(known: &Known, now: Timestamp) -> Self {
        if let Some(letter) = &known.dead {
            let death = letter.story.death.as_ref();
            let why = death.map_or("not put there by Postrider", |death| &death.problem);
            let id = super::key(letter);
            return Self::bad(
                "dead",
                format!("a dead letter: {why}; `postrider dead show {id}` tells what to do"),
            );
        }
        if let Some(standing) = known.standing() {
            return Self::standing(standing, now);
        }
        match known.entries.last() {
            Some(_) if known.is_gone() => Self::open(
                "not known",
                "it stands in the queue no more, and no step tells what took it out: a worker that is \
                 killed keeps none of its last moment",
            ),
            Some(last) => Self::after(last, now),
            None => Self::open("not known", "nothing tells where it is"),
        }
    }

    fn standing(standing: &Standing, now: Timestamp) -> Self {
        let due = standing.due.filter(|due| *due > now);
        match (standing.lane, due) {
            (Lane::Results, due) => {
                let when = due.map_or_else(|| "now".to_owned(), tell::time);
                let told = format!("HubSpot took it; its result is looked up: {when}");
                Self::open("accepted", told).waits(Lane::Results, due)
            }
            (Lane::Sends, Some(due)) => {
                Self::open("waiting", format!("in the queue until {}", tell::time(due)))
                    .waits(Lane::Sends, Some(due))
            }
            (Lane::Sends, None) => Self::queued("in the queue, or in a worker's hands"),
        }
    }

    /// Where the last step that is known has led.
    fn after(last: &Entry, now: Timestamp) -> Self {
        let heard = last.call.as_ref().map(|call| call.outcome.as_str());
        let is_send = last
            .call
            .as_ref()
            .is_some_and(|call| call.attempt.is_some());
        match &last.then {
            Then::Complete => match heard {
                Some("sent") => Self {
                    state: "sent",
                    told: "HubSpot's final result: sent".into(),
                    mood: Mood::Good,
                    lane: None,
                    due: None,
                },
                Some("accepted") if is_send => Self::open(
                    "accepted",
                    "HubSpot took it; the result is not looked up (accounts.NAME.results)",
                ),
                _ => Self::open("unknown", "HubSpot took it and told no final result"),
            },
            Then::FollowUp { at } => Self::wait(
                "accepted",
                "HubSpot took it; its result is looked up",
                *at,
                now,
            ),
            Then::Retry { at } => Self::wait("waiting", "it goes out again", *at, now),
            Then::Snooze { until } => Self::wait("waiting", "it waits", *until, now),
            Then::DeadLetter { .. } => Self::open(
                "not known",
                "it was a dead letter, and stands there no more: replayed or discarded",
            ),
            Then::Discard { .. } => Self::bad("discarded", "an operator threw it away".into()),
            Then::Published { .. } | Then::Replay { .. } => {
                Self::queued("in the queue; no worker has told of it since")
            }
            Then::Route {
                account, priority, ..
            } => Self::queued(format!(
                "in the queue of account {account}, priority {priority}"
            )),
            Then::Release | Then::NotSettled => {
                Self::queued("in the queue: it is handed out again")
            }
            Then::Other => Self::open("not known", "no step tells what followed the last one"),
        }
    }

    fn wait(state: &'static str, what: &str, at: Timestamp, now: Timestamp) -> Self {
        let lane = if state == "accepted" {
            Lane::Results
        } else {
            Lane::Sends
        };
        let when = tell::time(at);
        if at > now {
            return Self::open(state, format!("{what} at {when}")).waits(lane, Some(at));
        }
        // A backlog, a pause, a worker that is down, or a step that was lost.
        let told = format!("{what}, due since {when}; no worker has told of it since");
        Self::open(state, told).waits(lane, None)
    }

    fn open(state: &'static str, told: impl Into<String>) -> Self {
        Self {
            state,
            told: told.into(),
            mood: Mood::Quiet,
            lane: None,
            due: None,
        }
    }

    fn queued(told: impl Into<String>) -> Self {
        Self::open("queued", told).waits(Lane::Sends, None)
    }

    fn waits(self, lane: Lane, due: Option<Timestamp>) -> Self {
        Self {
            lane: Some(lane),
            due,
            ..self
        }
    }

    fn bad(state: &'static str, told: String) -> Self {
        Self {
            state,
            told,
            mood: Mood::Bad,
            lane: None,
            due: None,
        }
    }
}
