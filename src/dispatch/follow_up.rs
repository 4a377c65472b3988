//! One delivery of the results lane: what became of an accepted send.

use tokio::time::Instant;

use super::lane::Seat;
use super::{Beside, Called, Dispatcher, NoCall, millis, name_of, send_id_of};
use crate::journal::Call;
use crate::metrics::Operation;
use crate::outcome::{Disposition, LookUp, Words};
use crate::provider::Provider;
use crate::queue::{Delivery, Kind, Lane, Queue};
use crate::retry::{Context, FinalResult, ResultDecision};
use crate::story::{Attempt, FollowUp, REFUSED, Story, UNCLEAR};

/// A follow-up whose look-up goes out now.
pub(super) struct Ready {
    delivery: Delivery,
    story: Box<Story>,
    follow_up: FollowUp,
}

impl<Q: Queue, P: Provider> Dispatcher<Q, P> {
    /// Reads a follow-up: not due, or ready. One without its status id is sent again, under the
    /// same `sendId`, since nothing else can tell what became of it.
    pub(super) fn examine_follow_up(&self, mut delivery: Delivery) -> Result<Ready, Box<NoCall>> {
        let now = self.clock.now();
        let mut story = std::mem::take(&mut delivery.story);
        if let Some(due) = story.due_at.take().filter(|due| *due > now) {
            let (id, _) = name_of(&delivery);
            return NoCall::with(delivery, Disposition::snooze(due, *story), id);
        }
        let Some(follow_up) = story.follow_up.clone() else {
            let again = Disposition::Retry { at: now, story };
            let (id, _) = name_of(&delivery);
            return NoCall::with(delivery, again, id);
        };
        Ok(Ready {
            delivery,
            story,
            follow_up,
        })
    }

    /// One look-up and what follows from it.
    pub(super) async fn follow_up(&self, ready: Ready, mut seat: Seat) {
        let Ready {
            delivery,
            mut story,
            follow_up,
        } = ready;
        let called = Instant::now();
        let looking = self.provider.look_up(&follow_up.status_id);
        let (flight, departure) = (seat.flight.take(), seat.departure.take());
        let looking = self.guarded(looking, flight, departure, LookUp::is_answer);
        let Ok(look_up) = looking.await else {
            let (id, _) = name_of(&delivery);
            return self.give_back(delivery, &id, seat).await;
        };
        let look_up = look_up.unwrap_or_else(LookUp::Failed);
        let took = called.elapsed();
        let now = self.clock.now();
        let words = look_up.words();
        self.metrics
            .called(&self.account.name, Operation::LookUp, took, &words);
        self.heed_limits(now);
        self.learn_look_up(&look_up, follow_up.accepted_at, called, now);
        if !matches!(look_up, LookUp::Pending | LookUp::Failed(_)) {
            story.record(Attempt {
                at: now,
                took_ms: millis(took),
                outcome: look_up.kept_as().into(),
                words: words.clone(),
            });
        }
        let (key, email_id) = name_of(&delivery);
        let context = Context {
            handed_out_before: delivery.redelivered,
            ..self.context(now, key.clone(), email_id, look_up.goes_on_in())
        };
        let named = (story.priority, story.generation);
        let send_id = send_id_of(&key, story.generation);
        let call = Call::new(None, send_id, took, (look_up.label(), &words));
        let published_at = story.published_at;
        let decision = self
            .retry
            .after_look_up(look_up, *story, &context, &mut self.rng());
        if let Some(result) = decision.result {
            self.metrics.result(&self.account.name, result);
            if result == FinalResult::Unknown {
                tracing::warn!(
                    account = %self.account.name, id = key, status_id = follow_up.status_id,
                    "HubSpot took it and told no final result: the result is unknown"
                );
            }
        }
        let news = ended_as(&decision).and_then(|kind| self.news(kind, &context, named, &words));
        let called = Box::new(Called {
            call,
            at: now,
            published_at,
            news,
        });
        self.settle(delivery, decision.disposition, &key, Beside::Call(called))
            .await;
        drop(seat.permit);
    }
}

/// What is announced of it beside a dead letter, which `settle` announces.
fn ended_as(decision: &ResultDecision) -> Option<Kind> {
    match decision.result? {
        _ if matches!(decision.disposition, Disposition::DeadLetter { .. }) => None,
        FinalResult::Sent => Some(Kind::Sent),
        FinalResult::Unknown => Some(Kind::Unknown),
        FinalResult::Refused => None,
    }
}

impl LookUp {
    /// The lane whose pauses a request waits for that goes on after it.
    fn goes_on_in(&self) -> Lane {
        match self {
            Self::NotSent(_) => Lane::Sends,
            Self::Pending
            | Self::Sent(_)
            | Self::Unclear(_)
            | Self::UnheardOf(_)
            | Self::Failed(_) => Lane::Results,
        }
    }

    /// The word for it among the attempts, where `unknown` is a send without an answer.
    fn kept_as(&self) -> &'static str {
        match self {
            Self::Unclear(_) | Self::UnheardOf(_) => UNCLEAR,
            Self::Pending | Self::Sent(_) | Self::NotSent(_) | Self::Failed(_) => self.label(),
        }
    }

    /// The word for it in the journal.
    fn label(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent(_) => "sent",
            Self::NotSent(_) => REFUSED,
            Self::Unclear(_) | Self::UnheardOf(_) => "unknown",
            Self::Failed(_) => "not told",
        }
    }

    fn words(&self) -> Words {
        match self {
            Self::Pending => Words {
                status: Some(200),
                ..Words::default()
            },
            Self::Sent(words) | Self::Unclear(words) => words.clone(),
            Self::NotSent(failure) | Self::UnheardOf(failure) | Self::Failed(failure) => {
                failure.words.clone()
            }
        }
    }
}
