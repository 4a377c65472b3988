//! One delivery of the results lane: what became of an accepted send.

use tokio::time::Instant;

use super::lane::Seat;
use super::{Called, Dispatcher, NoCall, millis, name_of, send_id_of};
use crate::journal::Call;
use crate::metrics::Operation;
use crate::outcome::{Disposition, LookUp, Words};
use crate::provider::Provider;
use crate::queue::{Delivery, Kind, Lane, Queue};
use crate::retry::FinalResult;
use crate::story::{Attempt, FollowUp, REFUSED, Story};

/// A follow-up whose look-up goes out now.
pub(super) struct Ready {
    delivery: Delivery,
    story: Story,
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
            return NoCall::with(delivery, Disposition::snooze(due, story), id);
        }
        let Some(follow_up) = story.follow_up.clone() else {
            let again = Disposition::Retry {
                at: now,
                story: Box::new(story),
            };
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
        let look_up = self
            .guarded(
                self.provider.look_up(&follow_up.status_id),
                seat.flight.take(),
            )
            .await
            .unwrap_or_else(LookUp::Failed);
        let took = called.elapsed();
        let now = self.clock.now();
        let words = look_up.words();
        self.metrics
            .called(&self.account.name, Operation::LookUp, took, &words);
        self.learn_look_up(&look_up, follow_up.accepted_at, called, now);
        let lane = match &look_up {
            LookUp::NotSent(_) => Lane::Sends,
            LookUp::Pending | LookUp::Sent(_) | LookUp::Unclear(_) | LookUp::Failed(_) => {
                Lane::Results
            }
        };
        if !matches!(look_up, LookUp::Pending | LookUp::Failed(_)) {
            story.record(Attempt {
                at: now,
                took_ms: millis(took),
                outcome: look_up.label().into(),
                words: words.clone(),
            });
        }
        let (key, email_id) = name_of(&delivery);
        let context = self.context(now, key.clone(), email_id, lane);
        let named = (story.priority, story.generation);
        let send_id = send_id_of(&key, story.generation);
        let call = Call::new(None, send_id, took, (look_up.label(), &words));
        let published_at = story.published_at;
        let decision = self
            .retry
            .after_look_up(look_up, story, &context, &mut self.rng());
        if let Some(result) = decision.result {
            self.metrics.result(&self.account.name, result);
            if result == FinalResult::Unknown {
                tracing::warn!(
                    account = %self.account.name, id = key, status_id = follow_up.status_id,
                    "HubSpot took it and told no final result: the result is unknown"
                );
            }
        }
        let ended_as = match decision.result {
            Some(FinalResult::Sent) => Some(Kind::Sent),
            Some(FinalResult::Unknown) => Some(Kind::Unknown),
            // A refusal is a dead letter: `settle` sees it.
            Some(FinalResult::Refused) | None => None,
        };
        let news = ended_as.map(|kind| self.news(kind, &context, named, words));
        let called = Called {
            call,
            at: now,
            published_at,
            news,
        };
        self.settle(delivery, decision.disposition, &key, Some(called))
            .await;
        drop(seat.permit);
    }
}

impl LookUp {
    /// The word for it in a story.
    fn label(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent(_) => "sent",
            Self::NotSent(_) => REFUSED,
            Self::Unclear(_) => "unknown",
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
            Self::NotSent(failure) | Self::Failed(failure) => failure.words.clone(),
        }
    }
}
