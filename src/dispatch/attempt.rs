//! One delivery of the sends lane, from bytes to disposition: the straight line.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::time::Instant;

use super::lane::Seat;
use super::mishap::ours;
use super::{Beside, Called, Dispatcher, NoCall, millis, name_of};
use crate::clock::until;
use crate::delivery::{Mode, Verdict};
use crate::journal::Call;
use crate::message::{MessageId, SendRequest};
use crate::metrics::Operation;
use crate::outcome::{DeadReason, Disposition, Failure, Outcome, Words};
use crate::provider::{Departure, NotLeft, Provider};
use crate::queue::{Delivery, Kind, Lane, Queue};
use crate::quota::Flight;
use crate::retry::{dead, death};
use crate::story::{Attempt, Story};

/// What to do about a request that nobody asks for any more.
const MAYBE_MAILED: &str =
    "it may have been mailed; replay keeps the sendId, so it is mailed at most once";

/// A delivery that goes out now.
pub(super) struct Ready {
    delivery: Delivery,
    request: SendRequest,
    /// The sink gets it, in the place of its recipients.
    to_sink: bool,
    story: Box<Story>,
}

impl<Q: Queue, P: Provider> Dispatcher<Q, P> {
    /// Reads a delivery: not due, malformed, of another lane, expired, held in this environment, or
    /// ready.
    pub(super) fn examine(&self, mut delivery: Delivery) -> Result<Ready, Box<NoCall>> {
        let now = self.clock.now();
        let mut story = std::mem::take(&mut delivery.story);
        self.count_receipt(&delivery, &story);
        story.published_at.get_or_insert(now);
        story.priority = delivery.priority;
        if delivery.redelivered {
            // Whoever had it may have called, and told nobody what became of it.
            story.may_have_mailed = true;
            story.not_sent = false;
        }
        if let Some(due) = story.due_at.take() {
            if due > now {
                let (id, _) = name_of(&delivery);
                return NoCall::with(delivery, Disposition::snooze(due, *story), id);
            }
            // It waited for its turn: for a backlog, or through a pause.
            story.excuse(until(due, now));
        }
        let rules = &self.settings.delivery;
        let read = SendRequest::parse(&delivery.body, delivery.message_id.as_deref())
            .and_then(|request| request.meant_for(&rules.environment));
        let mut request = match read {
            Ok(request) => request,
            Err(malformed) => {
                let mint = || MessageId::mint_at(now, &mut self.rng());
                let key = malformed.id.unwrap_or_else(mint).to_string();
                let context = self.context(now, key.clone(), None, Lane::Sends);
                let told = (malformed.problem, malformed.hint.unwrap_or_default());
                let disposition = dead(
                    *story,
                    DeadReason::Malformed,
                    &context,
                    told,
                    Words::default(),
                );
                return Err(Box::new(NoCall {
                    delivery,
                    disposition,
                    id: key,
                    beside: Beside::Malformed(malformed.told),
                }));
            }
        };
        if let Some(disposition) = self.without_call(&delivery, &request, &story, now) {
            return NoCall::with(delivery, disposition, request.id);
        }
        match rules.decide(&request) {
            Verdict::Send => {}
            Verdict::Instead(other) => request = *other,
            Verdict::Hold { problem, hint } => {
                let disposition = self.held(&request, *story, now, (problem, hint));
                return NoCall::with(delivery, disposition, request.id);
            }
        }
        Ok(Ready {
            delivery,
            request,
            to_sink: matches!(rules.mode, Mode::Sink(_)),
            story,
        })
    }

    /// Not sent, by the rules of the environment. What an earlier attempt may have done stays told.
    fn held(
        &self,
        request: &SendRequest,
        story: Story,
        now: Timestamp,
        mut told: (String, String),
    ) -> Disposition {
        if let Some(doubt) = doubt(&story) {
            told = (format!("{}; {doubt}", told.0), MAYBE_MAILED.to_owned());
        }
        let (key, email_id) = (request.id.to_string(), Some(request.email_id));
        let context = self.context(now, key, email_id, Lane::Sends);
        dead(
            story,
            DeadReason::Operator,
            &context,
            told,
            Words::default(),
        )
    }

    /// The fates of a valid request that need no call.
    fn without_call(
        &self,
        delivery: &Delivery,
        request: &SendRequest,
        story: &Story,
        now: Timestamp,
    ) -> Option<Disposition> {
        let context = || {
            self.context(
                now,
                request.id.to_string(),
                Some(request.email_id),
                Lane::Sends,
            )
        };
        let account = request.account.as_ref().unwrap_or(&delivery.account);
        let priority = request.priority.unwrap_or(delivery.priority);
        if (account, priority) != (&delivery.account, delivery.priority) {
            let told = (
                format!("dispatch.account names `{account}`, and no worker has that account"),
                "start a worker with that account, and replay it".to_owned(),
            );
            let otherwise = death(DeadReason::Malformed, &context(), told, Words::default());
            return Some(Disposition::Route {
                account: account.clone(),
                priority,
                story: Box::new(Story {
                    priority,
                    ..story.clone()
                }),
                otherwise: Box::new(otherwise),
            });
        }
        if let Some(send_at) = request.send_at.filter(|at| *at > now) {
            return Some(Disposition::snooze(send_at, story.clone()));
        }
        let expires_at = request.expires_at.filter(|at| *at <= now)?;
        let (problem, hint) = match doubt(story) {
            Some(doubt) => (
                format!("{doubt}, and its time passed before another one could tell"),
                MAYBE_MAILED,
            ),
            None => (
                "its time passed before it could be sent".to_owned(),
                "publish it anew with a later dispatch.expiresAt if it still matters",
            ),
        };
        let told = (
            format!("{problem} (dispatch.expiresAt {expires_at})"),
            hint.to_owned(),
        );
        Some(dead(
            story.clone(),
            DeadReason::Expired,
            &context(),
            told,
            Words::default(),
        ))
    }

    /// One call and what follows from it.
    pub(super) async fn attempt(&self, ready: Ready, mut seat: Seat) {
        let Ready {
            delivery,
            request,
            to_sink,
            mut story,
        } = ready;
        let send_id = request.id.generation(story.generation);
        let called = Instant::now();
        let sending = self.provider.send(&request, &send_id);
        let (flight, departure) = (seat.flight.take(), seat.departure.take());
        let sending = self.guarded(sending, flight, departure, Outcome::is_answer);
        let Ok(outcome) = sending.await else {
            return self.give_back(delivery, request.id.as_str(), seat).await;
        };
        let outcome = outcome.unwrap_or_else(Outcome::Unknown);
        let now = self.clock.now();
        let took = called.elapsed();
        story.record(Attempt {
            at: now,
            took_ms: millis(took),
            outcome: outcome.label().into(),
            words: outcome.words().clone(),
        });
        let account = &self.account.name;
        self.metrics.attempt(account, &outcome);
        self.metrics
            .called(account, Operation::Send, took, outcome.words());
        if let (Outcome::Accepted(_), Some(published)) = (&outcome, story.published_at) {
            self.metrics
                .accepted_after(account, delivery.priority, until(published, now));
        }
        self.heed_limits(now);
        self.learn(&outcome, &request.id, called, now);
        let context = self.context(
            now,
            request.id.to_string(),
            Some(request.email_id),
            Lane::Sends,
        );
        let news = match &outcome {
            Outcome::Accepted(accepted) => {
                let named = (story.priority, story.generation);
                self.news(Kind::Accepted, &context, named, &accepted.words)
            }
            Outcome::NotSent(_) | Outcome::Unknown(_) => None,
        };
        let heard = (outcome.label(), outcome.words());
        let called = Box::new(Called {
            call: Call {
                to_sink,
                ..Call::new(Some(story.sends()), send_id, took, heard)
            },
            at: now,
            published_at: story.published_at,
            news,
        });
        let disposition = self
            .retry
            .after_send(outcome, *story, &context, &mut self.rng());
        self.settle(
            delivery,
            disposition,
            request.id.as_str(),
            Beside::Call(called),
        )
        .await;
        // Held until here: what is in a worker's hands stays bounded.
        drop(seat.permit);
    }

    /// Its call has not left and may not any more, which is no fault of it: nothing was spent.
    pub(super) async fn give_back(&self, delivery: Delivery, id: &str, seat: Seat) {
        self.settle(delivery, Disposition::Release, id, Beside::Nothing)
            .await;
        drop(seat.permit);
    }

    /// One call, which begins now. Where it ends without an answer, nobody knows when it arrived. A panic in
    /// it is our bug, and no reason to lose the message from sight.
    ///
    /// # Errors
    /// It has not left and may not any more.
    pub(super) fn guarded<T>(
        &self,
        call: impl Future<Output = T>,
        mut flight: Option<Flight>,
        departure: Option<Departure>,
        is_answer: fn(&T) -> bool,
    ) -> impl Future<Output = Result<Result<T, Failure>, NotLeft>> {
        self.flying(1);
        if let Some(flight) = &mut flight {
            flight.leaves();
        }
        let departure = departure.unwrap_or_default();
        // No async block, which would hold the call twice.
        AssertUnwindSafe(departure.of(call))
            .catch_unwind()
            .map(move |answer| {
                if let Some(flight) = flight
                    && matches!(&answer, Ok(Ok(told)) if is_answer(told))
                    && departure.is_known()
                {
                    flight.heard(departure.connected());
                }
                self.flying(-1);
                answer.map_or_else(|_| Ok(Err(ours())), |answer| answer.map(Ok))
            })
    }

    /// Counts what is seen for the first time, and what came back by replay.
    fn count_receipt(&self, delivery: &Delivery, story: &Story) {
        if delivery.redelivered || story.trying_since.is_some() || story.due_at.is_some() {
            return;
        }
        if story.replays > 0 {
            self.metrics.replayed();
        } else {
            self.metrics.received(&self.account.name, delivery.priority);
        }
    }
}

/// Why it may have been mailed before, if it may.
fn doubt(story: &Story) -> Option<&'static str> {
    let is_told = (story.attempts.last()).is_some_and(|it| it.outcome == "unknown");
    story.may_have_mailed.then_some(if is_told {
        "an attempt got no answer"
    } else {
        "it was handed out before and came back without a word, perhaps after a call"
    })
}
