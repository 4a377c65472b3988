use super::*;
use crate::message::AccountName;
use crate::outcome::{Accepted, PauseReason};
use crate::story::{Attempt, REFUSED};

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn context() -> Context {
    Context {
        now: now(),
        key: "order-1".into(),
        account: AccountName::default(),
        email_id: Some(7),
        held_until: after(now(), Duration::from_secs(30)),
        last_accepted: None,
        last_sent: None,
        outage: false,
        handed_out_before: false,
        follow: true,
    }
}

fn policy() -> RetryPolicy {
    RetryPolicy::new(RetryConfig::default())
}

fn without_jitter() -> RetryPolicy {
    RetryPolicy::new(RetryConfig {
        jitter: 0.0,
        ..RetryConfig::default()
    })
}

/// One in some ten thousand was a nanosecond longer once, by the `backoff` crate's own chance.
#[test]
fn a_delay_knows_no_chance_but_the_jitter() {
    let mut rng = fastrand::Rng::with_seed(7);
    let policy = without_jitter();
    let delays = (0..300_000).map(|_| policy.delay(10, &mut rng));
    assert_eq!(delays.max(), Some(Duration::from_secs(512)));
}

fn failure(class: FailureClass, scope: Scope) -> Failure {
    Failure {
        class,
        scope,
        pause: None,
        retry_after: None,
        words: Words {
            status: Some(503),
            ..Words::default()
        },
        hint: "try again".into(),
    }
}

fn told(outcome: &str, at: Timestamp) -> Attempt {
    Attempt {
        at,
        took_ms: 30,
        outcome: outcome.into(),
        words: Words::default(),
    }
}

fn decide(outcome: Outcome, story: Story) -> Disposition {
    without_jitter().after_send(outcome, story, &context(), &mut fastrand::Rng::with_seed(1))
}

fn look(look_up: LookUp, story: Story) -> ResultDecision {
    without_jitter().after_look_up(look_up, story, &context(), &mut fastrand::Rng::with_seed(1))
}

/// The story of what is sent again or waits, with its wait.
fn waits(disposition: Disposition) -> (u64, Story) {
    match disposition {
        Disposition::Retry { at, story }
        | Disposition::Snooze { until: at, story }
        | Disposition::FollowUp { at, story } => (until(now(), at).as_secs(), *story),
        Disposition::Complete
        | Disposition::Route { .. }
        | Disposition::DeadLetter { .. }
        | Disposition::Release => panic!("not waiting"),
    }
}

fn followed(look_ups: u32, accepted_hours_ago: u64) -> Story {
    Story {
        follow_up: Some(FollowUp {
            status_id: "s".into(),
            accepted_at: now()
                .checked_sub(Duration::from_hours(accepted_hours_ago))
                .unwrap(),
            look_ups,
        }),
        ..Story::default()
    }
}

#[test]
fn the_schedule_doubles_up_to_its_cap() {
    let mut rng = fastrand::Rng::with_seed(1);
    let delays: Vec<u64> = (1..=12)
        .map(|spent| without_jitter().delay(spent, &mut rng).as_secs())
        .collect();
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
}

#[test]
fn chance_only_shortens_a_delay_and_repeats_with_its_seed() {
    let draw = |seed| -> Vec<Duration> {
        let mut rng = fastrand::Rng::with_seed(seed);
        (1..=12)
            .map(|spent| policy().delay(spent, &mut rng))
            .collect()
    };
    let full = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900];
    for (delay, full) in draw(3).iter().zip(full) {
        let full = Duration::from_secs(full);
        assert!(
            *delay <= full && *delay >= full / 2,
            "{delay:?} of {full:?}"
        );
    }
    assert_eq!(draw(3), draw(3));
    assert_ne!(draw(3), draw(4));
}

#[test]
fn an_accepted_send_is_followed_up_in_two_seconds_or_done() {
    let accepted = |status_id: Option<&str>| {
        Outcome::Accepted(Accepted {
            status_id: status_id.map(Into::into),
            words: Words::default(),
        })
    };
    let (wait, story) = waits(decide(accepted(Some("abc=")), Story::default()));
    assert_eq!(
        (wait, story.follow_up.unwrap().status_id.as_str()),
        (2, "abc=")
    );
    assert_eq!(
        decide(accepted(None), Story::default()),
        Disposition::Complete
    );
    let unfollowed = Context {
        follow: false,
        ..context()
    };
    let rng = &mut fastrand::Rng::with_seed(1);
    assert_eq!(
        policy().after_send(accepted(Some("x")), Story::default(), &unfollowed, rng),
        Disposition::Complete
    );
}

#[test]
fn waiting_spends_no_attempt() {
    for (class, seconds) in [(FailureClass::Throttled, 10), (FailureClass::Halted, 32)] {
        let (wait, story) = waits(decide(
            Outcome::NotSent(failure(class, Scope::Account)),
            Story::default(),
        ));
        assert_eq!((wait, story.spent), (seconds, 0), "{class:?}");
    }
}

#[test]
fn a_transient_failure_spends_one_and_an_outage_none() {
    let down = Outcome::NotSent(failure(FailureClass::Transient, Scope::Provider));
    let (wait, story) = waits(decide(down.clone(), Story::default()));
    assert_eq!((wait, story.spent), (1, 1));
    let outage = Context {
        outage: true,
        ..context()
    };
    let rng = &mut fastrand::Rng::with_seed(1);
    let (wait, story) = waits(policy().after_send(down, Story::default(), &outage, rng));
    assert_eq!((wait, story.spent), (30, 0));
}

#[test]
fn the_last_attempt_makes_a_dead_letter_that_explains_itself() {
    let story = Story {
        spent: 11,
        ..Story::default()
    };
    let unknown = Outcome::Unknown(failure(FailureClass::Transient, Scope::Provider));
    let disposition = decide(unknown, story);
    let death = disposition.death().unwrap();
    assert_eq!(death.reason, DeadReason::Exhausted);
    assert!(death.hint.contains("keeps the sendId"), "{}", death.hint);
    assert_eq!(death.words.status, Some(503));
}

#[test]
fn age_ends_the_retries_too() {
    let story = Story {
        spent: 2,
        trying_since: Some(now().checked_sub(Duration::from_hours(25)).unwrap()),
        ..Story::default()
    };
    let failure = failure(FailureClass::Transient, Scope::Message);
    let disposition = decide(Outcome::NotSent(failure), story);
    assert_eq!(disposition.death().unwrap().reason, DeadReason::Exhausted);
}

#[test]
fn what_hubspot_asks_for_is_clamped() {
    for (asked, waited) in [(0, 1), (60, 60), (86_400, 900)] {
        let failure = Failure {
            retry_after: Some(Duration::from_secs(asked)),
            ..failure(FailureClass::Throttled, Scope::Account)
        };
        let (wait, _) = waits(decide(Outcome::NotSent(failure), Story::default()));
        assert_eq!(wait, waited);
    }
}

#[test]
fn a_refused_call_is_rejected_and_a_refused_result_is_refused() {
    let permanent = failure(FailureClass::Permanent, Scope::Message);
    let rejected = decide(Outcome::NotSent(permanent.clone()), Story::default());
    assert_eq!(rejected.death().unwrap().reason, DeadReason::Rejected);
    let decision = look(LookUp::NotSent(permanent), followed(0, 0));
    assert_eq!(decision.result, Some(FinalResult::Refused));
    assert_eq!(
        decision.disposition.death().unwrap().reason,
        DeadReason::Refused
    );
}

#[test]
fn a_pending_result_is_asked_for_later_and_later_and_then_unknown() {
    let waited: Vec<u64> = (0..8)
        .map(|look_ups| waits(look(LookUp::Pending, followed(look_ups, 0)).disposition).0)
        .collect();
    assert_eq!(waited, [5, 15, 60, 300, 900, 3600, 3600, 3600]);
    let last = look(LookUp::Pending, followed(30, 24));
    assert_eq!(last.disposition, Disposition::Complete);
    assert_eq!(last.result, Some(FinalResult::Unknown));
}

#[test]
fn a_result_that_can_heal_is_sent_again_under_the_same_id() {
    let halted = Failure {
        pause: Some(PauseReason::Portal),
        ..failure(FailureClass::Halted, Scope::Account)
    };
    let (_, story) = waits(look(LookUp::NotSent(halted), followed(1, 0)).disposition);
    assert_eq!(
        (story.spent, story.generation, story.follow_up),
        (0, 0, None)
    );
    let throttled = failure(FailureClass::Transient, Scope::Message);
    let (_, story) = waits(look(LookUp::NotSent(throttled), followed(1, 0)).disposition);
    assert_eq!(
        (story.spent, story.generation, story.follow_up),
        (1, 0, None)
    );
}

#[test]
fn a_result_that_tells_of_a_limit_spends_no_attempt_and_waits_longer_each_time() {
    let throttled = || LookUp::NotSent(failure(FailureClass::Throttled, Scope::Message));
    let mut story = followed(0, 0);
    let (mut waited, mut age) = (Vec::new(), 0);
    let death = loop {
        story.follow_up = followed(0, 0).follow_up;
        story.trying_since = now().checked_sub(Duration::from_secs(age)).ok();
        let decision = look(throttled(), story);
        if let Some(death) = decision.disposition.death() {
            break death.clone();
        }
        let wait;
        (wait, story) = waits(decision.disposition);
        assert_eq!(
            (story.spent, story.generation, story.not_sent),
            (0, 0, true)
        );
        waited.push(wait);
        age += wait;
    };
    assert_eq!(waited[..7], [10, 10, 10, 15, 22, 33, 50]);
    assert_eq!(waited[14..], [900; 94]);
    assert_eq!(death.reason, DeadReason::Exhausted);
    assert!(death.problem.contains("too busy"), "{}", death.problem);
}

#[test]
fn a_failed_look_up_never_fails_the_mail() {
    for class in [
        FailureClass::Throttled,
        FailureClass::Halted,
        FailureClass::Transient,
        FailureClass::Permanent,
    ] {
        let decision = look(
            LookUp::Failed(failure(class, Scope::Account)),
            followed(0, 0),
        );
        assert_eq!(decision.result, None, "{class:?}");
        let (_, story) = waits(decision.disposition);
        assert!(story.follow_up.is_some(), "{class:?}");
    }
    let unclear = look(LookUp::Unclear(Words::default()), followed(0, 0));
    assert_eq!(unclear.result, Some(FinalResult::Unknown));
}

#[test]
fn the_wait_for_a_final_result_spends_no_age() {
    let day = Duration::from_hours(24);
    let mut story = followed(3, 24);
    story.trying_since = now().checked_sub(day + Duration::from_secs(1)).ok();
    let throttled = failure(FailureClass::Transient, Scope::Message);
    let (_, story) = waits(look(LookUp::NotSent(throttled), story).disposition);
    assert_eq!((story.spent, story.trying_for(now()).as_secs()), (1, 1));
}

#[test]
fn an_id_that_is_used_up_by_what_was_not_sent_is_followed_by_the_next_one() {
    let unclear = || LookUp::Unclear(Words::default());
    let refused = Story {
        not_sent: true,
        ..followed(0, 0)
    };
    let (wait, story) = waits(look(unclear(), refused.clone()).disposition);
    assert_eq!((wait, story.generation, story.spent), (0, 2, 0));
    assert!(!story.not_sent && story.follow_up.is_none());
    // An attempt that got no answer may have mailed it since.
    let unanswered = failure(FailureClass::Transient, Scope::Provider);
    let (_, story) = waits(decide(Outcome::Unknown(unanswered), refused));
    assert!(!story.not_sent && story.may_have_mailed);
    assert_eq!(look(unclear(), story).result, Some(FinalResult::Unknown));
}

#[test]
fn where_it_was_refused_once_and_nobody_can_tell_any_more_somebody_has_to_look() {
    let words = Words {
        send_result: Some("IDEMPOTENT_FAIL".into()),
        ..Words::default()
    };
    let story = Story {
        was_refused: true,
        ..followed(0, 0)
    };
    let unheard_of = LookUp::UnheardOf(failure(FailureClass::Permanent, Scope::Message));
    for (look_up, story) in [
        (LookUp::Unclear(words), story),
        (unheard_of, followed(0, 0)),
    ] {
        let decision = look(look_up, story);
        assert_eq!(decision.result, Some(FinalResult::Unknown));
        let Disposition::DeadLetter { story } = decision.disposition else {
            panic!("gone");
        };
        assert!(story.may_have_mailed);
        assert_eq!(story.replayed().generation, story.generation, "no other id");
    }
}

#[test]
fn another_copy_may_have_called_meanwhile() {
    let copied = Context {
        handed_out_before: true,
        ..context()
    };
    let mut rng = fastrand::Rng::with_seed(1);
    let throttled = LookUp::NotSent(failure(FailureClass::Transient, Scope::Message));
    let decision = policy().after_look_up(throttled, followed(0, 0), &copied, &mut rng);
    assert!(!waits(decision.disposition).1.not_sent);
}

#[test]
fn what_was_not_sent_is_followed_whatever_the_share() {
    let blind = Context {
        follow: false,
        ..context()
    };
    let accepted = || {
        Outcome::Accepted(Accepted {
            status_id: Some("s".into()),
            words: Words::default(),
        })
    };
    let mut rng = fastrand::Rng::with_seed(1);
    let mut after = |story| policy().after_send(accepted(), story, &blind, &mut rng);
    let refused = Story {
        not_sent: true,
        ..Story::default()
    };
    assert!(matches!(after(refused), Disposition::FollowUp { .. }));
    assert_eq!(after(Story::default()), Disposition::Complete);
}

#[test]
fn a_result_that_blames_the_account_over_one_request_alone_is_its_own_fault() {
    let halted = || {
        LookUp::NotSent(Failure {
            pause: Some(PauseReason::Portal),
            ..failure(FailureClass::Halted, Scope::Account)
        })
    };
    let mut story = followed(0, 0);
    let mut rng = fastrand::Rng::with_seed(1);
    for time in 0..=HALTED_ALONE_MAX {
        let at = after(now(), Duration::from_mins(time.into()));
        story.record(told(REFUSED, at));
        let others = Context {
            now: at,
            last_sent: at.checked_sub(Duration::from_secs(1)).ok(),
            ..context()
        };
        let decision = policy().after_look_up(halted(), story.clone(), &others, &mut rng);
        if time == HALTED_ALONE_MAX {
            assert_eq!(decision.result, Some(FinalResult::Refused));
            return;
        }
        (_, story) = waits(decision.disposition);
        assert_eq!(story.halted_alone, time);
        story.follow_up = followed(0, 0).follow_up;
    }
}

#[test]
fn what_no_request_can_be_the_cause_of_is_never_one_requests_fault() {
    for (reason, is_nobodys) in [
        (PauseReason::Daily, true),
        (PauseReason::Migrating, true),
        (PauseReason::App, true),
        (PauseReason::Forbidden, false),
        (PauseReason::Unauthorized, false),
    ] {
        let halted = Failure {
            pause: Some(reason),
            ..failure(FailureClass::Halted, Scope::Account)
        };
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut sent, mut looked_up) = (Story::default(), followed(0, 0));
        let mut died = [false; 2];
        for day in 0..20 {
            let at = after(now(), Duration::from_hours(24 * day));
            let others = at.checked_sub(Duration::from_hours(1)).ok();
            let context = Context {
                now: at,
                last_accepted: others,
                last_sent: others,
                ..context()
            };
            sent.record(told("halted", at));
            looked_up.record(told(REFUSED, at));
            let not_sent = Outcome::NotSent(halted.clone());
            let dispositions = [
                policy().after_send(not_sent, sent, &context, &mut rng),
                policy()
                    .after_look_up(
                        LookUp::NotSent(halted.clone()),
                        looked_up,
                        &context,
                        &mut rng,
                    )
                    .disposition,
            ];
            died = dispositions.each_ref().map(|it| it.death().is_some());
            let stories = dispositions.map(|it| it.story().unwrap().clone());
            [sent, looked_up] = stories;
            looked_up.follow_up = followed(0, 0).follow_up;
        }
        assert_eq!(died, [!is_nobodys; 2], "{reason:?}");
    }
}

#[test]
fn a_wait_that_is_not_its_own_spends_no_age() {
    let began = now().checked_sub(Duration::from_hours(1)).unwrap();
    let story = Story {
        trying_since: Some(began),
        ..Story::default()
    };
    let halted = Failure {
        pause: Some(PauseReason::Daily),
        ..failure(FailureClass::Halted, Scope::Account)
    };
    let (wait, held) = waits(decide(Outcome::NotSent(halted), story.clone()));
    let moved = after(began, Duration::from_secs(wait));
    assert_eq!(held.trying_since, Some(moved));
    let own = failure(FailureClass::Transient, Scope::Message);
    let (_, retried) = waits(decide(Outcome::NotSent(own), story));
    assert_eq!(retried.trying_since, Some(began));
    assert!(retried.due_at.is_some());
}
