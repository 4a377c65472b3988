//! The queue's contract: one suite, every backend.
//!
//! A rule is an async function over a [`Backend`]; [`suite!`] makes a test of each rule with each
//! backend, such as `contract::sqlite::a_retry_is_not_early`. What stands where is read from
//! `depths`, which is part of the contract itself.
//!
//! Memory and SQLite run on tokio's paused clock: it waits for `spawn_blocking`, and their due times
//! come from a clock that moves with it. RabbitMQ is another process, and takes its time.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use postrider::clock::{self, Clock};
use postrider::message::{AccountName, Parcel, Priority};
use postrider::outcome::{DeadReason, Disposition};
use postrider::queue::amqp::{AmqpOptions, AmqpQueue};
use postrider::queue::memory::MemoryQueue;
use postrider::queue::sqlite::{Mode, SqliteQueue};
use postrider::queue::{
    DeadLetter, DeadLetters, Delivery, Fate, Intake, Lane, Queue, QueueError, Tally,
};
use postrider::story::{Death, FollowUp, Story};
use tempfile::TempDir;

use crate::support::broker;
use crate::support::proxy::Proxy;

/// How long a rule waits for what must come.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a rule waits to see that nothing comes.
const QUIET: Duration = Duration::from_millis(300);
const DELAY: Duration = Duration::from_secs(2);

/// A queue that knows the accounts `default` and `second`, and is empty.
trait Backend: Sized {
    type Queue: Queue + DeadLetters;
    /// How long a message takes to reach an intake that does not receive yet.
    const ARRIVAL: Duration = Duration::ZERO;
    /// Whether it knows, after its connection was lost, what was in hand.
    const TELLS_REDELIVERY: bool = true;

    async fn fresh() -> Self;
    fn queue(&self) -> &Self::Queue;
    fn clock(&self) -> Clock;
    /// Returns when the connection was lost (or the process died) and is back; `queue` may be
    /// another one then.
    async fn lose_connection(&mut self);
}

macro_rules! suite {
    ($($rule:ident)*) => {
        mod memory {
            use super::Backend;
            $(#[tokio::test(start_paused = true)]
            async fn $rule() {
                super::$rule(super::Memory::fresh().await).await;
            })*
        }
        mod sqlite {
            use super::Backend;
            $(#[tokio::test(start_paused = true)]
            async fn $rule() {
                super::$rule(super::Sqlite::fresh().await).await;
            })*
        }
        mod amqp {
            use super::Backend;
            $(#[tokio::test]
            async fn $rule() {
                super::$rule(super::Amqp::fresh().await).await;
            })*
        }
    };
}

suite! {
    a_request_is_received_as_it_came
    order_is_kept_within_a_priority
    high_goes_before_normal_before_low
    accounts_do_not_mix
    complete_leaves_nothing
    a_retry_comes_back_by_its_lane_and_not_early
    a_snooze_comes_back_by_the_lane_it_was_received_in
    what_waits_holds_up_nothing
    a_follow_up_comes_by_the_results_lane
    a_due_time_may_be_far_ahead
    a_due_time_may_have_passed
    a_dead_letter_keeps_body_id_and_story
    dead_letters_are_visited_oldest_first_until_break
    a_replay_goes_out_again
    a_replay_that_nobody_takes_stays_dead
    a_discarded_letter_is_gone
    a_routed_request_changes_its_lane
    a_route_to_nowhere_is_a_death
    a_released_request_is_handed_out_again
    what_was_in_hand_is_handed_out_after_a_lost_connection
    a_dropped_intake_gives_back_what_was_not_received
    an_intake_holds_no_more_than_its_prefetch
    receive_may_be_cancelled
    an_unknown_account_is_unroutable
    depths_name_every_queue
    a_lease_is_given
}

// === the rules ===

async fn a_request_is_received_as_it_came<B: Backend>(backend: B) {
    let body = br#"{"emailId": 9007199254740993, "message":  {"to":"ada@example.com"}}"#;
    let parcel = Parcel {
        body: Bytes::from_static(body),
        message_id: Some("order-1".into()),
        priority: Priority::High,
        ..parcel("")
    };
    let before = backend.clock().now();
    backend.queue().publish(parcel).await.unwrap();
    let mut intake = sends(&backend).await;
    let delivery = next(&mut intake).await;
    assert_eq!(&*delivery.body, body);
    assert_eq!(delivery.message_id.as_deref(), Some("order-1"));
    assert_eq!(delivery.account, AccountName::default());
    assert_eq!(
        (delivery.lane, delivery.priority),
        (Lane::Sends, Priority::High)
    );
    assert!(!delivery.redelivered);
    let published = delivery.story.published_at.unwrap();
    assert!(before <= published && published <= backend.clock().now());
    assert_eq!((delivery.story.spent, delivery.story.replays), (0, 0));
    nothing(&mut intake).await;
}

async fn order_is_kept_within_a_priority<B: Backend>(backend: B) {
    let bodies: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    for body in &bodies {
        backend.queue().publish(parcel(body)).await.unwrap();
    }
    let mut intake = sends(&backend).await;
    for body in &bodies {
        let delivery = next(&mut intake).await;
        assert_eq!(text(&delivery), body);
        complete(&backend, delivery).await;
    }
}

async fn high_goes_before_normal_before_low<B: Backend>(backend: B) {
    for priority in [Priority::Low, Priority::Normal, Priority::High] {
        for n in 0..3 {
            let parcel = Parcel {
                priority,
                ..parcel(&format!("{priority}{n}"))
            };
            backend.queue().publish(parcel).await.unwrap();
        }
    }
    let mut intake = sends(&backend).await;
    tokio::time::sleep(B::ARRIVAL).await;
    let mut order = Vec::new();
    for _ in 0..9 {
        let delivery = next(&mut intake).await;
        order.push(text(&delivery).to_owned());
        complete(&backend, delivery).await;
    }
    let expected = ["high", "normal", "low"].map(|p| [0, 1, 2].map(|n| format!("{p}{n}")));
    assert_eq!(order, expected.as_flattened());
}

async fn accounts_do_not_mix<B: Backend>(backend: B) {
    let mut first = sends(&backend).await;
    let mut second = backend
        .queue()
        .open(&account("second"), Lane::Sends, 10)
        .await
        .unwrap();
    let parcel = Parcel {
        account: account("second"),
        ..parcel("to the second")
    };
    backend.queue().publish(parcel).await.unwrap();
    let delivery = next(&mut second).await;
    assert_eq!(delivery.account, account("second"));
    nothing(&mut first).await;
}

async fn complete_leaves_nothing<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let delivery = published(&backend, &mut intake, "one").await;
    stands(&backend, &[("send.default.normal", 1)]).await;
    complete(&backend, delivery).await;
    stands(&backend, &[]).await;
    nothing(&mut intake).await;
}

async fn a_retry_comes_back_by_its_lane_and_not_early<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let low = Parcel {
        priority: Priority::Low,
        ..parcel("later")
    };
    backend.queue().publish(low).await.unwrap();
    let delivery = next(&mut intake).await;
    let at = in_a_while(&backend);
    let story = Story {
        spent: 3,
        trying_since: Some(backend.clock().now()),
        due_at: Some(at),
        generation: 2,
        may_have_mailed: true,
        ..delivery.story.clone()
    };
    settle(
        &backend,
        delivery,
        Disposition::Retry {
            at,
            story: Box::new(story.clone()),
        },
    )
    .await;
    stands(&backend, &[("delay", 1)]).await;
    let delivery = next(&mut intake).await;
    assert!(backend.clock().now() >= at, "it came early");
    assert_eq!(text(&delivery), "later");
    assert_eq!(delivery.message_id.as_deref(), Some("id-later"));
    assert_eq!(
        (delivery.lane, delivery.priority),
        (Lane::Sends, Priority::Low)
    );
    assert_eq!(delivery.story, story);
    complete(&backend, delivery).await;
    stands(&backend, &[]).await;
}

async fn a_snooze_comes_back_by_the_lane_it_was_received_in<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let mut results = results(&backend).await;
    let delivery = published(&backend, &mut intake, "one").await;
    let until = in_a_while(&backend);
    let story = Box::new(delivery.story.clone());
    settle(
        &backend,
        delivery,
        Disposition::Snooze {
            until,
            story: story.clone(),
        },
    )
    .await;
    let delivery = next(&mut intake).await;
    assert!(backend.clock().now() >= until, "it came early");
    assert_eq!(delivery.story.spent, 0);

    let at = backend.clock().now();
    settle(&backend, delivery, Disposition::FollowUp { at, story }).await;
    let delivery = next(&mut results).await;
    let story = Box::new(delivery.story.clone());
    let until = in_a_while(&backend);
    settle(&backend, delivery, Disposition::Snooze { until, story }).await;
    let delivery = next(&mut results).await;
    assert!(backend.clock().now() >= until, "it came early");
    assert_eq!(delivery.lane, Lane::Results);
}

async fn what_waits_holds_up_nothing<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    for wait in [40, 4, 2] {
        let delivery = published(&backend, &mut intake, &wait.to_string()).await;
        let at = clock::after(backend.clock().now(), Duration::from_secs(wait));
        let story = Box::new(delivery.story.clone());
        settle(&backend, delivery, Disposition::Retry { at, story }).await;
    }
    let delivery = published(&backend, &mut intake, "at once").await;
    assert_eq!(text(&delivery), "at once");
    for wait in ["2", "4"] {
        assert_eq!(text(&next(&mut intake).await), wait);
    }
}

async fn a_follow_up_comes_by_the_results_lane<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let mut results = results(&backend).await;
    let high = Parcel {
        priority: Priority::High,
        ..parcel("one")
    };
    backend.queue().publish(high).await.unwrap();
    let delivery = next(&mut intake).await;
    let at = in_a_while(&backend);
    let story = Story {
        follow_up: Some(FollowUp {
            status_id: "status/1".into(),
            accepted_at: backend.clock().now(),
            look_ups: 0,
        }),
        ..delivery.story.clone()
    };
    let follow_up = Disposition::FollowUp {
        at,
        story: Box::new(story.clone()),
    };
    settle(&backend, delivery, follow_up).await;
    let delivery = next(&mut results).await;
    assert!(backend.clock().now() >= at, "it came early");
    assert_eq!(delivery.lane, Lane::Results);
    assert_eq!(delivery.story, story);

    // Not sent after all: a retry leaves the results lane for the one it first came by.
    let at = backend.clock().now();
    let retry = Disposition::Retry {
        at,
        story: Box::new(story),
    };
    settle(&backend, delivery, retry).await;
    let delivery = next(&mut intake).await;
    assert_eq!(
        (delivery.lane, delivery.priority),
        (Lane::Sends, Priority::High)
    );
    nothing(&mut results).await;
}

async fn a_due_time_may_be_far_ahead<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let delivery = published(&backend, &mut intake, "next year").await;
    let at = clock::after(backend.clock().now(), Duration::from_hours(400 * 24));
    let story = Box::new(Story {
        due_at: Some(at),
        ..delivery.story.clone()
    });
    settle(&backend, delivery, Disposition::Snooze { until: at, story }).await;
    stands(&backend, &[("delay", 1)]).await;
    nothing(&mut intake).await;
}

async fn a_due_time_may_have_passed<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let delivery = published(&backend, &mut intake, "overdue").await;
    let story = Box::new(delivery.story.clone());
    let at = Timestamp::UNIX_EPOCH;
    settle(&backend, delivery, Disposition::Retry { at, story }).await;
    assert_eq!(text(&next(&mut intake).await), "overdue");
}

async fn a_dead_letter_keeps_body_id_and_story<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let delivery = published(&backend, &mut intake, "dead").await;
    let story = dead_story(&backend, &delivery, DeadReason::Rejected);
    settle(
        &backend,
        delivery,
        Disposition::DeadLetter {
            story: Box::new(story.clone()),
        },
    )
    .await;
    stands(&backend, &[("dead", 1)]).await;
    let letters = dead(&backend).await;
    let [letter] = letters.as_slice() else {
        panic!("one letter, not {}", letters.len());
    };
    assert_eq!(&*letter.body, b"dead");
    assert_eq!(letter.message_id.as_deref(), Some("id-dead"));
    assert_eq!(letter.story, story);
    nothing(&mut intake).await;
}

async fn dead_letters_are_visited_oldest_first_until_break<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    for body in ["a", "b", "c"] {
        bury(&backend, &mut intake, body, DeadReason::Rejected).await;
    }
    let seen: Vec<_> = dead(&backend)
        .await
        .iter()
        .map(|letter| letter.body.clone())
        .collect();
    assert_eq!(seen, ["a", "b", "c"]);

    let mut visits = 0;
    let tally = sweep(&backend, |letter| {
        visits += 1;
        match &*letter.body {
            b"a" => ControlFlow::Continue(Fate::Discard),
            b"b" => ControlFlow::Break(()),
            _ => panic!("it was visited after a break"),
        }
    })
    .await
    .unwrap();
    assert_eq!((visits, tally.discarded), (2, 1));
    stands(&backend, &[("dead", 2)]).await;
}

async fn a_replay_goes_out_again<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    bury(&backend, &mut intake, "refused", DeadReason::Refused).await;
    bury(&backend, &mut intake, "exhausted", DeadReason::Exhausted).await;
    let letters = dead(&backend).await;
    let tally = sweep(&backend, |letter| {
        ControlFlow::Continue(Fate::Replay(Box::new(letter.replay())))
    })
    .await
    .unwrap();
    assert_eq!((tally.visited, tally.replayed, tally.discarded), (2, 2, 0));
    for letter in letters {
        let delivery = next(&mut intake).await;
        assert_eq!(delivery.body, letter.body);
        assert_eq!(delivery.message_id, letter.message_id);
        assert_eq!(delivery.priority, Priority::Normal);
        assert_eq!(delivery.story, letter.story.replayed());
        assert_eq!(delivery.story.replays, 1);
        complete(&backend, delivery).await;
    }
    stands(&backend, &[]).await;
}

async fn a_replay_that_nobody_takes_stays_dead<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    bury(&backend, &mut intake, "one", DeadReason::Rejected).await;
    let swept = sweep(&backend, |letter| {
        let lost = Parcel {
            account: account("nowhere"),
            ..letter.replay()
        };
        ControlFlow::Continue(Fate::Replay(Box::new(lost)))
    })
    .await;
    assert!(
        matches!(swept, Err(QueueError::Unroutable { .. })),
        "{swept:?}"
    );
    stands(&backend, &[("dead", 1)]).await;
}

async fn a_discarded_letter_is_gone<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    for body in ["kept", "discarded"] {
        bury(&backend, &mut intake, body, DeadReason::Rejected).await;
    }
    let tally = sweep(&backend, |letter| {
        ControlFlow::Continue(match &*letter.body {
            b"kept" => Fate::Keep,
            _ => Fate::Discard,
        })
    })
    .await
    .unwrap();
    assert_eq!((tally.visited, tally.replayed, tally.discarded), (2, 0, 1));
    assert_eq!(dead(&backend).await[0].body, "kept");
    stands(&backend, &[("dead", 1)]).await;
}

async fn a_routed_request_changes_its_lane<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let mut second = backend
        .queue()
        .open(&account("second"), Lane::Sends, 10)
        .await
        .unwrap();
    let delivery = published(&backend, &mut intake, "not mine").await;
    let route = route(&backend, &delivery, "second");
    settle(&backend, delivery, route).await;
    let delivery = next(&mut second).await;
    assert_eq!(text(&delivery), "not mine");
    assert_eq!(delivery.message_id.as_deref(), Some("id-not mine"));
    assert_eq!(
        (&delivery.account, delivery.priority),
        (&account("second"), Priority::High)
    );
    assert_eq!(delivery.story.death, None);
    nothing(&mut intake).await;
    complete(&backend, delivery).await;
    stands(&backend, &[]).await;
}

async fn a_route_to_nowhere_is_a_death<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let delivery = published(&backend, &mut intake, "to nowhere").await;
    let route = route(&backend, &delivery, "nowhere");
    settle(&backend, delivery, route).await;
    stands(&backend, &[("dead", 1)]).await;
    let letters = dead(&backend).await;
    let death = letters[0].story.death.as_ref().unwrap();
    assert_eq!(
        (death.reason, &*death.problem),
        (DeadReason::Malformed, "a problem")
    );
    assert_eq!(letters[0].body, "to nowhere");
}

async fn a_released_request_is_handed_out_again<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let delivery = published(&backend, &mut intake, "one").await;
    settle(&backend, delivery, Disposition::Release).await;
    let delivery = next(&mut intake).await;
    assert_eq!(text(&delivery), "one");
    complete(&backend, delivery).await;
    stands(&backend, &[]).await;
}

async fn what_was_in_hand_is_handed_out_after_a_lost_connection<B: Backend>(mut backend: B) {
    let mut intake = sends(&backend).await;
    let before = backend.queue().clone();
    let old = published(&backend, &mut intake, "in hand").await;
    let older = published(&backend, &mut intake, "in hand too").await;
    backend.lose_connection().await;
    drop(intake);

    let settled = backend.queue().settle(old, Disposition::Complete).await;
    assert!(matches!(settled, Err(QueueError::Lost)), "{settled:?}");
    let story = Box::new(dead_story(&backend, &older, DeadReason::Rejected));
    let settled = before
        .settle(older, Disposition::DeadLetter { story })
        .await;
    assert!(matches!(settled, Err(QueueError::Lost)), "{settled:?}");

    let mut intake = sends(&backend).await;
    for body in ["in hand", "in hand too"] {
        let delivery = next(&mut intake).await;
        assert_eq!(text(&delivery), body);
        assert_eq!(delivery.redelivered, B::TELLS_REDELIVERY);
        complete(&backend, delivery).await;
    }
    stands(&backend, &[]).await;
}

async fn a_dropped_intake_gives_back_what_was_not_received<B: Backend>(backend: B) {
    for body in ["a", "b", "c"] {
        backend.queue().publish(parcel(body)).await.unwrap();
    }
    let mut intake = sends(&backend).await;
    let in_hand = next(&mut intake).await;
    tokio::time::sleep(B::ARRIVAL).await;
    drop(intake);

    let mut intake = sends(&backend).await;
    for body in ["b", "c"] {
        let delivery = next(&mut intake).await;
        assert_eq!(text(&delivery), body);
        complete(&backend, delivery).await;
    }
    nothing(&mut intake).await;
    complete(&backend, in_hand).await;
    stands(&backend, &[]).await;
}

async fn an_intake_holds_no_more_than_its_prefetch<B: Backend>(backend: B) {
    for n in 0..10 {
        backend
            .queue()
            .publish(parcel(&n.to_string()))
            .await
            .unwrap();
    }
    let queue = backend.queue();
    let _idle = queue
        .open(&AccountName::default(), Lane::Sends, 2)
        .await
        .unwrap();
    tokio::time::sleep(B::ARRIVAL).await;
    let mut busy = queue
        .open(&AccountName::default(), Lane::Sends, 10)
        .await
        .unwrap();
    for _ in 0..8 {
        let delivery = next(&mut busy).await;
        complete(&backend, delivery).await;
    }
}

async fn receive_may_be_cancelled<B: Backend>(backend: B) {
    const COUNT: usize = 30;
    let mut intake = sends(&backend).await;
    for n in 0..COUNT {
        backend
            .queue()
            .publish(parcel(&n.to_string()))
            .await
            .unwrap();
    }
    let mut received = Vec::new();
    let all = async {
        while received.len() < COUNT {
            tokio::select! {
                biased;
                delivery = intake.receive() => {
                    let delivery = delivery.unwrap();
                    received.push(text(&delivery).to_owned());
                    complete(&backend, delivery).await;
                }
                // Given up at the first wait, whatever it waits for.
                () = std::future::ready(()) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    tokio::time::timeout(DEADLINE, all)
        .await
        .expect("a delivery was lost on the way");
    let expected: Vec<_> = (0..COUNT).map(|n| n.to_string()).collect();
    assert_eq!(received, expected);
}

async fn an_unknown_account_is_unroutable<B: Backend>(backend: B) {
    let nowhere = Parcel {
        account: account("nowhere"),
        ..parcel("one")
    };
    let published = backend.queue().publish(nowhere).await;
    assert!(
        matches!(published, Err(QueueError::Unroutable { .. })),
        "{published:?}"
    );
    stands(&backend, &[]).await;
}

async fn depths_name_every_queue<B: Backend>(backend: B) {
    let before = backend.clock().now();
    backend.queue().publish(parcel("one")).await.unwrap();
    stands(&backend, &[("send.default.normal", 1)]).await;
    let depths = backend.queue().depths().await.unwrap();
    let mut names: Vec<_> = depths.iter().map(|depth| name(&depth.queue)).collect();
    names.sort_unstable();
    let expected = [
        "dead",
        "delay",
        "results.default",
        "results.second",
        "send.default.high",
        "send.default.low",
        "send.default.normal",
        "send.second.high",
        "send.second.low",
        "send.second.normal",
    ];
    assert_eq!(names, expected);
    // Where the backend knows the age at all, it knows the right one.
    for oldest in depths.iter().filter_map(|depth| depth.oldest) {
        assert!(before <= oldest && oldest <= backend.clock().now());
    }
}

async fn a_lease_is_given<B: Backend>(backend: B) {
    let account = AccountName::default();
    let lease = tokio::time::timeout(DEADLINE, backend.queue().lease(&account)).await;
    assert!(lease.unwrap().unwrap().holds(tokio::time::Instant::now()));
}

// === the words of the rules ===

fn account(name: &str) -> AccountName {
    AccountName::parse(name).unwrap()
}

fn parcel(body: &str) -> Parcel {
    Parcel {
        body: Bytes::from(body.to_owned()),
        message_id: Some(format!("id-{body}")),
        account: AccountName::default(),
        priority: Priority::Normal,
        story: Story::default(),
    }
}

fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.body).unwrap()
}

fn in_a_while(backend: &impl Backend) -> Timestamp {
    clock::after(backend.clock().now(), DELAY)
}

type IntakeOf<B> = <<B as Backend>::Queue as Queue>::Intake;

async fn sends<B: Backend>(backend: &B) -> IntakeOf<B> {
    backend
        .queue()
        .open(&AccountName::default(), Lane::Sends, 10)
        .await
        .unwrap()
}

async fn results<B: Backend>(backend: &B) -> IntakeOf<B> {
    backend
        .queue()
        .open(&AccountName::default(), Lane::Results, 10)
        .await
        .unwrap()
}

async fn next(intake: &mut impl Intake) -> Delivery {
    let received = tokio::time::timeout(DEADLINE, intake.receive()).await;
    received.expect("nothing came").unwrap()
}

async fn nothing(intake: &mut impl Intake) {
    if let Ok(received) = tokio::time::timeout(QUIET, intake.receive()).await {
        panic!(
            "something came: {:?}",
            received.map(|delivery| delivery.body)
        );
    }
}

/// Publishes a request and receives it.
async fn published<B: Backend>(backend: &B, intake: &mut IntakeOf<B>, body: &str) -> Delivery {
    backend.queue().publish(parcel(body)).await.unwrap();
    let delivery = next(intake).await;
    assert_eq!(text(&delivery), body);
    delivery
}

async fn settle(backend: &impl Backend, delivery: Delivery, disposition: Disposition) {
    backend.queue().settle(delivery, disposition).await.unwrap();
}

async fn complete(backend: &impl Backend, delivery: Delivery) {
    settle(backend, delivery, Disposition::Complete).await;
}

fn death(backend: &impl Backend, reason: DeadReason) -> Death {
    Death {
        key: "a key".into(),
        reason,
        at: backend.clock().now(),
        problem: "a problem".into(),
        hint: "a hint".into(),
        email_id: Some(9_007_199_254_740_993),
        account: Some("default".into()),
        words: postrider::outcome::Words {
            message: Some("HubSpot's \"own\" words: ünïcode".into()),
            ..Default::default()
        },
    }
}

fn dead_story(backend: &impl Backend, delivery: &Delivery, reason: DeadReason) -> Story {
    Story {
        spent: 2,
        generation: 1,
        death: Some(death(backend, reason)),
        ..delivery.story.clone()
    }
}

async fn bury<B: Backend>(backend: &B, intake: &mut IntakeOf<B>, body: &str, reason: DeadReason) {
    let delivery = published(backend, intake, body).await;
    let story = Box::new(dead_story(backend, &delivery, reason));
    settle(backend, delivery, Disposition::DeadLetter { story }).await;
}

fn route(backend: &impl Backend, delivery: &Delivery, to: &str) -> Disposition {
    Disposition::Route {
        account: account(to),
        priority: Priority::High,
        story: Box::new(delivery.story.clone()),
        otherwise: Box::new(death(backend, DeadReason::Malformed)),
    }
}

async fn sweep<F>(backend: &impl Backend, choose: F) -> Result<Tally, QueueError>
where
    F: FnMut(&DeadLetter) -> ControlFlow<(), Fate> + Send,
{
    let swept = tokio::time::timeout(DEADLINE, backend.queue().sweep(choose)).await;
    swept.expect("the sweep does not end")
}

async fn dead(backend: &impl Backend) -> Vec<DeadLetter> {
    let mut letters = Vec::new();
    let look = |letter: &DeadLetter| {
        letters.push(letter.clone());
        ControlFlow::Continue(Fate::Keep)
    };
    sweep(backend, look).await.unwrap();
    letters
}

/// A queue's name without the prefix.
fn name(queue: &str) -> &str {
    queue.split_once('.').unwrap().1
}

/// Waits until exactly this stands in the queue: a broker counts with a delay.
async fn stands(backend: &impl Backend, expected: &[(&str, u64)]) {
    let expected: BTreeMap<String, u64> = expected
        .iter()
        .map(|(queue, messages)| ((*queue).to_owned(), *messages))
        .collect();
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let depths = backend.queue().depths().await.unwrap();
        let found: BTreeMap<String, u64> = (depths.iter())
            .filter(|depth| depth.messages > 0)
            .map(|depth| (name(&depth.queue).to_owned(), depth.messages))
            .collect();
        if found == expected {
            return;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{found:?} stands, not {expected:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

// === the backends ===

fn known_accounts() -> [AccountName; 2] {
    [AccountName::default(), account("second")]
}

fn simulated() -> Clock {
    Clock::simulated("2026-12-01T08:00:00Z".parse().unwrap())
}

struct Memory {
    queue: MemoryQueue,
    clock: Clock,
}

impl Backend for Memory {
    type Queue = MemoryQueue;

    async fn fresh() -> Self {
        let clock = simulated();
        let queue = MemoryQueue::new(clock, "postrider", known_accounts());
        Self { queue, clock }
    }

    fn queue(&self) -> &MemoryQueue {
        &self.queue
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    async fn lose_connection(&mut self) {
        self.queue.lose_connection();
    }
}

struct Sqlite {
    queue: SqliteQueue,
    clock: Clock,
    folder: TempDir,
}

impl Sqlite {
    async fn open(folder: &TempDir, clock: Clock) -> SqliteQueue {
        let path = folder.path().join("queue.db");
        SqliteQueue::open(path, "postrider", known_accounts(), clock, Mode::Worker)
            .await
            .unwrap()
    }
}

impl Backend for Sqlite {
    type Queue = SqliteQueue;
    /// A file does not know what its last worker had in hand.
    const TELLS_REDELIVERY: bool = false;

    async fn fresh() -> Self {
        let (folder, clock) = (TempDir::new().unwrap(), simulated());
        let queue = Self::open(&folder, clock).await;
        Self {
            queue,
            clock,
            folder,
        }
    }

    fn queue(&self) -> &SqliteQueue {
        &self.queue
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    /// The nearest thing that a file has: another worker opens it.
    async fn lose_connection(&mut self) {
        self.queue.close().await;
        self.queue = Self::open(&self.folder, self.clock).await;
    }
}

struct Amqp {
    queue: AmqpQueue,
    wire: Proxy,
}

impl Backend for Amqp {
    type Queue = AmqpQueue;
    const ARRIVAL: Duration = Duration::from_secs(1);

    async fn fresh() -> Self {
        let wire = Proxy::to(broker::shared().await.port()).await;
        let options = AmqpOptions {
            url: broker::url(wire.port()),
            prefix: broker::prefix("contract"),
            accounts: known_accounts().into(),
            clock: Clock::system(),
        };
        let queue = AmqpQueue::start(options).await.unwrap();
        Self { queue, wire }
    }

    fn queue(&self) -> &AmqpQueue {
        &self.queue
    }

    fn clock(&self) -> Clock {
        Clock::system()
    }

    async fn lose_connection(&mut self) {
        self.wire.cut();
        for up in [false, true] {
            let deadline = tokio::time::Instant::now() + DEADLINE;
            while self.queue.is_up() != up {
                assert!(tokio::time::Instant::now() < deadline, "up is not {up}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}
