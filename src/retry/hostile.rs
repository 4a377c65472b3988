//! What must hold of any story: it comes from a header that any producer may write. Asked by the
//! tests and by the fuzzer.
#![allow(clippy::unwrap_used, reason = "it is part of the tests alone")]

use crate::message::AccountName;
use jiff::Timestamp;

use super::{Context, RETRY_AFTER_MAX, RETRY_AFTER_MIN, RetryPolicy, throttled_wait};
use crate::config::RetryConfig;
use crate::outcome::{
    Accepted, Disposition, Failure, FailureClass, LookUp, Outcome, PauseReason, Scope, Words,
};
use crate::story::{ATTEMPTS_KEPT_MAX, Attempt, Story};

/// It is read or refused; and whatever became of a call, it goes on from there within its bounds.
pub fn story(text: &[u8], seed: u64) {
    let Ok(story) = serde_json::from_slice::<Story>(text) else {
        return;
    };
    let mut rng = fastrand::Rng::with_seed(seed);
    let policy = RetryPolicy::new(RetryConfig::default());
    let context = context(&mut rng);
    let mut story = story;
    story.record(Attempt {
        at: context.now,
        took_ms: rng.u64(..),
        outcome: "halted".into(),
        words: Words::default(),
    });
    for outcome in outcomes(&mut rng) {
        let replayed = story.replayed();
        assert!(replayed.generation >= story.generation && replayed.replays >= story.replays);
        let was = story.clone();
        let next = policy.after_send(outcome, story.clone(), &context, &mut rng);
        check(&was, &next, &context);
    }
    for failure in failures(&mut rng) {
        let wait = throttled_wait(&failure);
        assert!((RETRY_AFTER_MIN..=RETRY_AFTER_MAX).contains(&wait));
    }
    for look_up in look_ups(&mut rng) {
        let next = policy.after_look_up(look_up, story.clone(), &context, &mut rng);
        check(&story, &next.disposition, &context);
    }
}

fn check(was: &Story, next: &Disposition, context: &Context) {
    let (at, story) = match next {
        Disposition::Complete => return,
        Disposition::FollowUp { at, story } | Disposition::Retry { at, story } => (Some(at), story),
        Disposition::Snooze { until, story } => (Some(until), story),
        Disposition::DeadLetter { story } => (None, story),
        Disposition::Route { .. } | Disposition::Release => unreachable!("retry chooses neither"),
    };
    if let Some(at) = at {
        assert!(*at >= context.now, "{at} has passed");
        assert!(story.death.is_none() || story.death == was.death);
    }
    assert!(story.spent >= was.spent, "an attempt is not given back");
    assert!(story.attempts.len() <= ATTEMPTS_KEPT_MAX.max(was.attempts.len()));
    let text = serde_json::to_string(story).unwrap();
    assert_eq!(&serde_json::from_str::<Story>(&text).unwrap(), &**story);
}

fn context(rng: &mut fastrand::Rng) -> Context {
    let now = Timestamp::from_millisecond(rng.i64(0..4_000_000_000_000)).unwrap();
    Context {
        now,
        key: "id".into(),
        account: AccountName::default(),
        email_id: None,
        held_until: crate::clock::after(now, std::time::Duration::from_secs(rng.u64(..))),
        last_accepted: rng.bool().then_some(now),
        last_sent: rng.bool().then_some(now),
        outage: rng.bool(),
        handed_out_before: rng.bool(),
        follow: rng.bool(),
    }
}

fn failures(rng: &mut fastrand::Rng) -> [Failure; 4] {
    [
        FailureClass::Throttled,
        FailureClass::Transient,
        FailureClass::Permanent,
        FailureClass::Halted,
    ]
    .map(|class| Failure {
        class,
        scope: if rng.bool() {
            Scope::Provider
        } else {
            Scope::Message
        },
        pause: Some(PauseReason::Portal),
        retry_after: rng
            .bool()
            .then(|| std::time::Duration::from_secs(rng.u64(..))),
        words: Words::default(),
        hint: "h".into(),
    })
}

fn outcomes(rng: &mut fastrand::Rng) -> Vec<Outcome> {
    let accepted = Outcome::Accepted(Accepted {
        status_id: Some("status".into()),
        words: Words::default(),
    });
    let unknown = failures(rng).map(Outcome::Unknown);
    let not_sent = failures(rng).map(Outcome::NotSent);
    unknown
        .into_iter()
        .chain(not_sent)
        .chain([accepted])
        .collect()
}

fn look_ups(rng: &mut fastrand::Rng) -> Vec<LookUp> {
    let failed = failures(rng).map(LookUp::Failed);
    let not_sent = failures(rng).map(LookUp::NotSent);
    let pending = [LookUp::Pending, LookUp::Sent(Words::default())];
    failed.into_iter().chain(not_sent).chain(pending).collect()
}

#[cfg(test)]
mod tests;
