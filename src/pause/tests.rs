use super::*;

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn begin(pauses: &Pauses, reason: PauseReason, covers: Covers, seconds: Option<u64>) -> bool {
    let until = seconds.map(|seconds| crate::clock::after(now(), Duration::from_secs(seconds)));
    pauses.begin(reason, covers, now(), until, Words::default())
}

#[tokio::test(start_paused = true)]
async fn a_pause_with_an_end_ends_by_itself_and_holds_only_its_lane() {
    let pauses = Pauses::default();
    assert!(begin(
        &pauses,
        PauseReason::Throttled,
        Covers::Results,
        Some(10)
    ));
    assert_eq!(pauses.gate(Lane::Sends), Gate::Open);
    assert!(matches!(
        pauses.gate(Lane::Results),
        Gate::Shut { until: Some(_) }
    ));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(pauses.gate(Lane::Results), Gate::Open);
    assert!(pauses.list().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_throttled_lane_goes_one_by_one_until_a_later_call_gets_through() {
    let pauses = Pauses::default();
    let called_before = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    begin(&pauses, PauseReason::Throttled, Covers::Sends, Some(10));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(pauses.gate(Lane::Sends), Gate::Open);
    assert!(pauses.one_by_one(Lane::Sends) && !pauses.one_by_one(Lane::Results));
    pauses.disproved(called_before, Proof::Accepted);
    pauses.disproved(Instant::now(), Proof::LookedUp);
    assert!(pauses.one_by_one(Lane::Sends));
    pauses.disproved(Instant::now(), Proof::Accepted);
    assert!(!pauses.one_by_one(Lane::Sends));
}

#[tokio::test(start_paused = true)]
async fn one_message_is_tried_and_a_late_success_of_before_proves_nothing() {
    let pauses = Pauses::default();
    let called_before = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    begin(&pauses, PauseReason::Forbidden, Covers::Sends, None);
    assert_eq!(pauses.gate(Lane::Sends), Gate::Shut { until: None });
    pauses.allow_trial(|_| true);
    assert_eq!(pauses.gate(Lane::Sends), Gate::Trial);
    pauses.spend_trial(Lane::Sends);
    assert_eq!(
        pauses.gate(Lane::Sends),
        Gate::Shut { until: None },
        "there is one trial"
    );
    assert!(pauses.disproved(called_before, Proof::Accepted).is_empty());
    let now = Instant::now();
    assert_eq!(pauses.disproved(now, Proof::Accepted).len(), 1);
    assert_eq!(pauses.gate(Lane::Sends), Gate::Open);
}

#[tokio::test(start_paused = true)]
async fn probes_come_later_and_later_also_through_renewals() {
    let pauses = Pauses::default();
    let mut waits = Vec::new();
    for _ in 0..8 {
        begin(&pauses, PauseReason::Unauthorized, Covers::Both, None);
        let next = pauses.next_probe().unwrap();
        waits.push(next.saturating_duration_since(Instant::now()).as_secs());
        tokio::time::sleep_until(next).await;
        pauses.probed(None);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_a_limit_refused_comes_again_when_that_is_over() {
    let seconds = Duration::from_secs;
    for (reason, refused, expected) in [
        (PauseReason::Unproven, seconds(3), [3, 3, 3, 3, 3, 3, 3]),
        (PauseReason::Unproven, seconds(600), [60; 7]),
        (
            PauseReason::Outage,
            seconds(10),
            [10, 10, 10, 16, 32, 60, 60],
        ),
    ] {
        let pauses = Pauses::default();
        begin(&pauses, reason, Covers::Both, None);
        let waits = expected.map(|_| {
            pauses.probed(Some(refused));
            let next = pauses.next_probe().unwrap();
            next.saturating_duration_since(Instant::now()).as_secs()
        });
        assert_eq!(waits, expected, "{reason:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_pauses_the_longest_counts() {
    let pauses = Pauses::default();
    begin(&pauses, PauseReason::Throttled, Covers::Sends, Some(1));
    begin(&pauses, PauseReason::Daily, Covers::Sends, Some(60));
    let until = Instant::now() + Duration::from_mins(1);
    assert_eq!(pauses.gate(Lane::Sends), Gate::Shut { until: Some(until) });
    begin(&pauses, PauseReason::Unauthorized, Covers::Both, None);
    assert_eq!(pauses.gate(Lane::Sends), Gate::Shut { until: None });
    pauses.allow_trial(|_| true);
    assert_eq!(
        pauses.gate(Lane::Sends),
        Gate::Shut { until: Some(until) },
        "a trial passes no pause that has an end"
    );
}

#[tokio::test(start_paused = true)]
async fn each_lane_has_a_trial_and_a_failed_one_is_followed_by_another_probe() {
    let pauses = Pauses::default();
    begin(&pauses, PauseReason::Outage, Covers::Both, None);
    pauses.allow_trial(|_| true);
    for lane in [Lane::Sends, Lane::Results] {
        assert_eq!(pauses.gate(lane), Gate::Trial);
    }
    assert_eq!(pauses.next_probe(), None, "both are still to be tried");
    let called = Instant::now();
    pauses.spend_trial(Lane::Results);
    assert_eq!(pauses.gate(Lane::Results), Gate::Shut { until: None });
    assert_eq!(pauses.gate(Lane::Sends), Gate::Trial);
    assert!(pauses.next_probe().is_some());
    // A look-up that is answered lets the next one out, and proves nothing about sends.
    assert!(pauses.disproved(called, Proof::LookedUp).is_empty());
    pauses.keep_looking_up(called);
    assert_eq!(pauses.gate(Lane::Results), Gate::Trial);
}

#[tokio::test(start_paused = true)]
async fn what_ends_a_pause_depends_on_what_it_is() {
    use PauseReason::{Forbidden, Outage, Portal, Unauthorized, Unproven};
    let proofs = [
        Proof::Answered,
        Proof::Accepted,
        Proof::Sent,
        Proof::LookedUp,
    ];
    for (reason, covers, enough) in [
        (Outage, Covers::Both, &proofs[..2]),
        (Unauthorized, Covers::Both, &proofs[1..2]),
        (Forbidden, Covers::Sends, &proofs[1..2]),
        (Forbidden, Covers::Results, &proofs[3..]),
        (Portal, Covers::Sends, &proofs[2..3]),
        (Portal, Covers::Results, &proofs[3..]),
        (Unproven, Covers::Both, &[]),
    ] {
        for proof in proofs {
            let pauses = Pauses::default();
            begin(&pauses, reason, covers, None);
            let ended = !pauses.disproved(Instant::now(), proof).is_empty();
            assert_eq!(
                ended,
                enough.contains(&proof),
                "{reason:?} {covers:?} {proof:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_probed_on_a_day_that_is_spent() {
    let pauses = Pauses::default();
    begin(&pauses, PauseReason::Unauthorized, Covers::Both, None);
    begin(&pauses, PauseReason::Daily, Covers::Both, Some(3_600));
    let midnight = Instant::now() + Duration::from_hours(1);
    assert_eq!(pauses.next_probe(), Some(midnight));
}
