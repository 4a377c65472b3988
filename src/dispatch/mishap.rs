//! A panic of ours, over one message.
//!
//! It is a bug, and the message may bring it about each time. So it counts as an attempt that got
//! no answer: the message comes back later and later, and at last it is a dead letter that says so.
//! Its lane and its neighbours go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures_util::FutureExt;

use super::{Beside, Called, Dispatcher, name_of, send_id_of};
use crate::journal::Call;
use crate::message::MessageId;
use crate::outcome::{Failure, FailureClass, LookUp, Outcome, Scope, Words};
use crate::provider::Provider;
use crate::queue::{Delivery, Lane, Queue};
use crate::story::Attempt;

/// What is told of it; the panic itself is in the log.
const TOLD: &str = "Postrider failed over this request; please report it";

impl<Q: Queue, P: Provider> Dispatcher<Q, P> {
    /// Does the work over a delivery to its end; whether it came there. After a panic `spare` is
    /// settled in its place.
    pub(super) async fn to_the_end(
        &self,
        work: impl Future<Output = ()> + Unpin,
        spare: Delivery,
    ) -> bool {
        if AssertUnwindSafe(work).catch_unwind().await.is_ok() {
            return true;
        }
        // Boxed, since it hardly ever happens: a future holds room for each of its steps.
        let settling = AssertUnwindSafe(Box::pin(self.settle_after_panic(spare)));
        if settling.catch_unwind().await.is_err() {
            tracing::error!(
                account = %self.account.name,
                "a request stays in hand: it could not even be given back; please report it"
            );
        }
        false
    }

    pub(super) async fn settle_after_panic(&self, mut spare: Delivery) {
        let now = self.clock.now();
        // To read it may be what fails.
        let named = catch_unwind(AssertUnwindSafe(|| name_of(&spare)));
        let (key, email_id) = named.unwrap_or_default();
        let key = if key.is_empty() {
            MessageId::mint_at(now, &mut self.rng()).to_string()
        } else {
            key
        };
        let context = self.context(now, key.clone(), email_id, spare.lane);
        let mut story = std::mem::take(&mut spare.story);
        story.published_at.get_or_insert(now);
        story.priority = spare.priority;
        let failure = ours();
        let mut beside = Beside::Nothing;
        let disposition = match spare.lane {
            Lane::Sends => {
                let outcome = Outcome::Unknown(failure);
                story.record(Attempt {
                    at: now,
                    took_ms: 0,
                    outcome: outcome.label().into(),
                    words: outcome.words().clone(),
                });
                let send_id = send_id_of(&key, story.generation);
                let heard = (outcome.label(), outcome.words());
                beside = Beside::Call(Box::new(Called {
                    call: Call::new(Some(story.sends()), send_id, Duration::ZERO, heard),
                    at: now,
                    published_at: story.published_at,
                    news: None,
                }));
                let retry = &self.retry;
                retry.after_send(outcome, *story, &context, &mut self.rng())
            }
            Lane::Results => {
                let look_up = LookUp::Failed(failure);
                let retry = &self.retry;
                let decision = retry.after_look_up(look_up, *story, &context, &mut self.rng());
                decision.disposition
            }
        };
        self.settle(spare, disposition, &key, beside).await;
    }
}

/// A second hand on the same delivery. Of the two only the first one that is settled counts; to
/// the other the queue says that it is lost.
pub(super) fn spare(delivery: &Delivery) -> Delivery {
    Delivery {
        body: delivery.body.clone(),
        message_id: delivery.message_id.clone(),
        account: delivery.account.clone(),
        priority: delivery.priority,
        lane: delivery.lane,
        story: delivery.story.clone(),
        redelivered: delivery.redelivered,
        tag: delivery.tag,
    }
}

/// What a call is taken for in which we panicked.
pub(super) fn ours() -> Failure {
    Failure {
        class: FailureClass::Transient,
        scope: Scope::Message,
        pause: None,
        retry_after: None,
        words: Words {
            message: Some(TOLD.into()),
            ..Words::default()
        },
        hint: TOLD.into(),
    }
}
