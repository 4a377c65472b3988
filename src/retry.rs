//! What follows from an outcome: pure, no I/O, no log; `now` and chance come in as arguments.
//!
//! A retry is a verdict with a time, carried out by the queue. Waiting, throttling and pauses
//! spend no attempt. This is the only module that names the `backoff` crate, and it takes
//! arithmetic from it and nothing else: jitter is ours, from a seeded generator, so that a
//! simulation repeats.

mod blame;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod hostile;

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;
use jiff::Timestamp;

pub use self::blame::HALTED_ALONE_MAX;
use self::blame::{after_halt, after_halted_result};
use crate::clock::{after, until};
use crate::config::RetryConfig;
use crate::message::AccountName;
use crate::outcome::{
    DeadReason, Disposition, Failure, FailureClass, LookUp, Outcome, Scope, Words,
};
use crate::story::{Death, FollowUp, Story};

/// The least that HubSpot's `Retry-After` is taken for.
pub const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// The most that HubSpot's `Retry-After` is taken for where one message waits. (A migration may
/// pause an account for a day; that is a pause, not a retry.)
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(15);
/// How long a throttled message waits when HubSpot names no time: one rolling window.
pub const THROTTLED_WAIT: Duration = Duration::from_secs(10);
/// When a final result is looked up after acceptance, and then after each look-up that found it
/// pending. The last one repeats until [`RESULT_AGE_MAX`].
pub const LOOK_UP_DELAYS: [Duration; 7] = [
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(15),
    Duration::from_hours(1),
];
/// After this time without a final result, the result is *unknown*. HubSpot documents no limit.
pub const RESULT_AGE_MAX: Duration = Duration::from_hours(24);

/// The schedule of retries, and every decision that follows from an outcome.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    config: RetryConfig,
}

/// What a decision needs to know beside the outcome.
#[derive(Clone, Debug)]
pub struct Context {
    pub now: Timestamp,
    /// Names the request in a death: its id.
    pub key: String,
    pub account: AccountName,
    pub email_id: Option<i64>,
    /// Until when a message waits whose account or provider is held back.
    pub held_until: Timestamp,
    /// When the newest send that HubSpot took went out.
    pub last_accepted: Option<Timestamp>,
    /// When the newest send that HubSpot has sent was taken.
    pub last_sent: Option<Timestamp>,
    /// The provider is down: its failures are not this message's, and spend nothing.
    pub outage: bool,
    /// Of a look-up: another copy of the request may stand.
    pub handed_out_before: bool,
    /// Whether the final result of this send is looked up.
    pub follow: bool,
}

/// How a request ended, as far as its final result is concerned. The metric label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalResult {
    Sent,
    Refused,
    Unknown,
}

/// What follows from a look-up.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultDecision {
    pub disposition: Disposition,
    /// Set when the look-up settled the matter.
    pub result: Option<FinalResult>,
}

impl RetryPolicy {
    #[must_use]
    pub fn new(config: RetryConfig) -> Self {
        Self { config }
    }

    /// The wait after `spent` attempts (1 or more): between `1 - jitter` and all of the
    /// exponential delay, so that chance never exceeds `retry.max`.
    #[must_use]
    pub fn delay(&self, spent: u32, rng: &mut fastrand::Rng) -> Duration {
        let mut schedule = ExponentialBackoff {
            current_interval: self.config.initial,
            initial_interval: self.config.initial,
            randomization_factor: 0.0,
            multiplier: self.config.multiplier,
            max_interval: self.config.max,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        for _ in 1..spent.clamp(1, self.config.max_attempts.max(1)) {
            // What it gives is up to a nanosecond longer, by a chance of its own.
            schedule.next_backoff();
        }
        self.by_chance(schedule.current_interval.min(self.config.max), rng)
    }

    fn by_chance(&self, wait: Duration, rng: &mut fastrand::Rng) -> Duration {
        wait.mul_f64(1.0 - self.config.jitter.clamp(0.0, 1.0) * rng.f64())
    }

    /// What follows from a call to Single Send. The attempt is already in the story.
    #[must_use]
    pub fn after_send(
        &self,
        outcome: Outcome,
        mut story: Story,
        context: &Context,
        rng: &mut fastrand::Rng,
    ) -> Disposition {
        story.trying_since.get_or_insert(context.now);
        match outcome {
            Outcome::Accepted(accepted) => match accepted.status_id {
                // What was not sent once is never let out of sight.
                Some(status_id) if context.follow || story.not_sent => {
                    story.follow_up = Some(FollowUp {
                        status_id,
                        accepted_at: context.now,
                        look_ups: 0,
                    });
                    Disposition::FollowUp {
                        at: after(context.now, look_up_delay(0)),
                        story: Box::new(story),
                    }
                }
                _ => Disposition::Complete,
            },
            Outcome::Unknown(failure) => {
                story.may_have_mailed = true;
                story.not_sent = false;
                self.after_failure(&failure, story, context, rng)
            }
            Outcome::NotSent(failure) => self.after_failure(&failure, story, context, rng),
        }
    }

    fn after_failure(
        &self,
        failure: &Failure,
        mut story: Story,
        context: &Context,
        rng: &mut fastrand::Rng,
    ) -> Disposition {
        match failure.class {
            FailureClass::Throttled => {
                held(story, after(context.now, throttled_wait(failure)), context)
            }
            FailureClass::Halted => after_halt(failure, story, context),
            FailureClass::Transient if context.outage && failure.scope == Scope::Provider => {
                held(story, context.held_until, context)
            }
            FailureClass::Transient => {
                story.spent = story.spent.saturating_add(1);
                self.again_or_exhausted(failure, story, context, rng)
            }
            FailureClass::Permanent => dead(
                story,
                DeadReason::Rejected,
                context,
                ("HubSpot refused the request".into(), failure.hint.clone()),
                failure.words.clone(),
            ),
        }
    }

    fn again_or_exhausted(
        &self,
        failure: &Failure,
        story: Story,
        context: &Context,
        rng: &mut fastrand::Rng,
    ) -> Disposition {
        let age = story.trying_for(context.now);
        if story.spent >= self.config.max_attempts || age >= self.config.max_age {
            return exhausted(failure, story, context);
        }
        let wait = match failure.retry_after {
            Some(asked) => self.delay(story.spent, rng).max(clamped(asked)),
            None => self.delay(story.spent, rng),
        };
        again(story, after(context.now, wait))
    }

    /// HubSpot took it and was too busy to send it. That is no request's fault and spends no attempt; but whose
    /// limit it was HubSpot tells nobody, so this request alone waits, longer each time. Its age counts, or
    /// one that HubSpot never sends would cost calls for ever.
    fn after_throttled_result(
        &self,
        failure: &Failure,
        story: Story,
        context: &Context,
        rng: &mut fastrand::Rng,
    ) -> Disposition {
        let age = story.trying_for(context.now);
        if age >= self.config.max_age {
            return exhausted(failure, story, context);
        }
        let wait = self.by_chance((age / 2).min(self.config.max), rng);
        let wait = wait.max(throttled_wait(failure));
        again(story, after(context.now, wait))
    }

    /// What follows from a look-up of a final result.
    #[must_use]
    pub fn after_look_up(
        &self,
        look_up: LookUp,
        mut story: Story,
        context: &Context,
        rng: &mut fastrand::Rng,
    ) -> ResultDecision {
        match look_up {
            LookUp::Sent(_) => ResultDecision::ended(FinalResult::Sent),
            // It was refused before for what may heal, and since then nothing can have mailed it: the
            // sendId is used up, and only another one can still be sent.
            LookUp::Unclear(_) if story.not_sent => {
                story.follow_up = None;
                story.use_next_id();
                ResultDecision::open(again(story, context.now))
            }
            LookUp::Unclear(words) if story.was_refused => doubtful(
                story,
                "HubSpot told once that it was not sent, and now only that its sendId is used",
                "look the email up in HubSpot; if it was not sent, publish it anew under another id",
                words,
                context,
            ),
            LookUp::Unclear(_) => ResultDecision::ended(FinalResult::Unknown),
            LookUp::UnheardOf(failure) => doubtful(
                story,
                "HubSpot told a final result that is new to Postrider",
                &failure.hint,
                failure.words,
                context,
            ),
            LookUp::Pending => later(story, context),
            LookUp::NotSent(failure) => {
                if let Some(follow_up) = story.follow_up.take() {
                    // HubSpot's time to tell, or ours to ask: neither is a retry of this request.
                    story.excuse(until(follow_up.accepted_at, context.now));
                }
                // Another copy may have called meanwhile, and been mailed.
                story.not_sent = !context.handed_out_before;
                story.was_refused = true;
                match failure.class {
                    FailureClass::Permanent => ResultDecision {
                        disposition: refused(story, failure, context),
                        result: Some(FinalResult::Refused),
                    },
                    FailureClass::Halted => after_halted_result(failure, story, context),
                    FailureClass::Throttled => ResultDecision::open(
                        self.after_throttled_result(&failure, story, context, rng),
                    ),
                    FailureClass::Transient => {
                        story.spent = story.spent.saturating_add(1);
                        ResultDecision::open(self.again_or_exhausted(&failure, story, context, rng))
                    }
                }
            }
            LookUp::Failed(failure) => match failure.class {
                FailureClass::Throttled => {
                    let until = after(context.now, throttled_wait(&failure));
                    ResultDecision::open(Disposition::snooze(until, story))
                }
                FailureClass::Halted => {
                    ResultDecision::open(Disposition::snooze(context.held_until, story))
                }
                FailureClass::Transient | FailureClass::Permanent => later(story, context),
            },
        }
    }
}

impl ResultDecision {
    fn ended(result: FinalResult) -> Self {
        Self {
            disposition: Disposition::Complete,
            result: Some(result),
        }
    }

    fn open(disposition: Disposition) -> Self {
        Self {
            disposition,
            result: None,
        }
    }
}

impl FinalResult {
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// A dead letter: `told` is the problem and what to do about it.
#[must_use]
pub fn dead(
    mut story: Story,
    reason: DeadReason,
    context: &Context,
    told: (String, String),
    words: Words,
) -> Disposition {
    story.due_at = None;
    story.death = Some(death(reason, context, told, words));
    Disposition::DeadLetter {
        story: Box::new(story),
    }
}

/// Why a request is a dead letter: `told` is the problem and what to do about it.
#[must_use]
pub fn death(
    reason: DeadReason,
    context: &Context,
    (problem, hint): (String, String),
    words: Words,
) -> Death {
    Death {
        key: context.key.clone(),
        reason,
        at: context.now,
        problem,
        hint,
        email_id: context.email_id,
        account: Some(context.account.to_string()),
        words,
    }
}

/// Waits for what is not its fault: that spends neither an attempt nor age.
fn held(mut story: Story, end: Timestamp, context: &Context) -> Disposition {
    story.excuse(until(context.now, end));
    Disposition::snooze(end, story)
}

/// Tried again at `at`. What it then waits for its turn is seen by `due_at`, and spends no age.
fn again(mut story: Story, at: Timestamp) -> Disposition {
    story.due_at = Some(at);
    Disposition::Retry {
        at,
        story: Box::new(story),
    }
}

fn exhausted(failure: &Failure, story: Story, context: &Context) -> Disposition {
    let (spent, age) = (story.spent, story.trying_for(context.now).as_secs());
    let problem = if spent == 0 {
        format!("for {age} s HubSpot took it and was too busy to send it")
    } else {
        format!("{spent} attempts in {age} s did not get through")
    };
    let hint = if story.may_have_mailed {
        "an attempt may have mailed it: replay keeps the sendId, so it is mailed at most once"
    } else {
        "replay it when HubSpot is well again"
    };
    dead(
        story,
        DeadReason::Exhausted,
        context,
        (problem, hint.into()),
        failure.words.clone(),
    )
}

fn refused(story: Story, failure: Failure, context: &Context) -> Disposition {
    let problem = match &failure.words.send_result {
        Some(result) => format!("HubSpot took it and then did not send it: {result}"),
        None => "HubSpot took it and then did not send it".into(),
    };
    dead(
        story,
        DeadReason::Refused,
        context,
        (problem, failure.hint),
        failure.words,
    )
}

/// Nobody can tell whether it was sent, and somebody has to look: it goes out under no other id.
fn doubtful(
    mut story: Story,
    problem: &str,
    hint: &str,
    words: Words,
    context: &Context,
) -> ResultDecision {
    story.follow_up = None;
    story.may_have_mailed = true;
    story.was_refused = true;
    let told = match &words.send_result {
        Some(result) => format!("{problem}: {result}"),
        None => problem.to_owned(),
    };
    let told = (told, hint.to_owned());
    ResultDecision {
        disposition: dead(story, DeadReason::Refused, context, told, words),
        result: Some(FinalResult::Unknown),
    }
}

/// Asked again later; after [`RESULT_AGE_MAX`] the result is unknown.
fn later(mut story: Story, context: &Context) -> ResultDecision {
    let Some(follow_up) = story.follow_up.as_mut() else {
        return ResultDecision::ended(FinalResult::Unknown);
    };
    let age = until(follow_up.accepted_at, context.now);
    if age >= RESULT_AGE_MAX {
        return ResultDecision::ended(FinalResult::Unknown);
    }
    follow_up.look_ups = follow_up.look_ups.saturating_add(1);
    let wait = look_up_delay(follow_up.look_ups);
    ResultDecision::open(Disposition::FollowUp {
        at: after(context.now, wait),
        story: Box::new(story),
    })
}

fn look_up_delay(look_ups: u32) -> Duration {
    let [.., last] = LOOK_UP_DELAYS;
    LOOK_UP_DELAYS
        .get(look_ups as usize)
        .copied()
        .unwrap_or(last)
}

/// How long a throttled lane waits: what HubSpot asked for, clamped, or one rolling window.
#[must_use]
pub fn throttled_wait(failure: &Failure) -> Duration {
    clamped(failure.retry_after.unwrap_or(THROTTLED_WAIT))
}

fn clamped(asked: Duration) -> Duration {
    asked.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests;
