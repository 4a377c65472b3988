//! `trace`: one request's story.

use std::time::Duration;

use jiff::Timestamp;
use postrider::journal::{Call, Entry, Then};
use postrider::message::{AccountName, Priority};
use postrider::outcome::{DeadReason, Words};
use postrider::queue::Queue;
use postrider::queue::sqlite::Mode;

use super::shop::{Shop, block_on};

fn at(second: i64) -> Timestamp {
    let start: Timestamp = "2026-05-01T12:00:00Z".parse().unwrap();
    start + Duration::from_millis(u64::try_from(second).unwrap() * 1_000 + 250)
}

/// One call, answered so many seconds after noon.
fn call(second: i64, attempt: Option<u32>, send_id: &str, outcome: &str, then: Then) -> Entry {
    let words = match outcome {
        "unknown" => Words {
            message: Some("time-out".into()),
            ..Words::default()
        },
        _ => Words {
            status: Some(200),
            correlation_id: Some(format!("c-{second}")),
            ..Words::default()
        },
    };
    let took = Duration::from_millis(31);
    Entry {
        published_at: Some(at(0)),
        call: Some(Call::new(attempt, send_id.into(), took, (outcome, &words))),
        ..Entry::new("order-1", at(second), &AccountName::default(), then)
    }
}

impl Shop {
    fn note(&self, entries: impl IntoIterator<Item = Entry>) {
        block_on(async {
            let queue = self.queue(Mode::Command).await;
            for entry in entries {
                queue.note(entry);
            }
            queue.close().await;
        });
    }
}

fn unknown_resolved_sent() -> [Entry; 4] {
    [
        call(1, Some(1), "order-1", "unknown", Then::Retry { at: at(2) }),
        Entry {
            redelivered: true,
            ..call(
                3,
                Some(2),
                "order-1",
                "accepted",
                Then::FollowUp { at: at(5) },
            )
        },
        call(5, None, "order-1", "pending", Then::FollowUp { at: at(10) }),
        call(10, None, "order-1", "sent", Then::Complete),
    ]
}

#[test]
fn a_story_is_told_from_the_first_attempt_to_the_result() {
    let shop = Shop::new();
    shop.note(unknown_resolved_sent());
    insta::assert_snapshot!(shop.run(&["trace", "order-1"]), @"
    exit 0
    --- stdout
    order-1  sent
      HubSpot's final result: sent
    2026-05-01T12:00:00.250Z  received     account default
    2026-05-01T12:00:01.250Z  attempt 1    unknown    31 ms  time-out; it may have been mailed: the same sendId goes out at 2026-05-01T12:00:02.250Z
    2026-05-01T12:00:03.250Z  attempt 2    accepted   31 ms  200  c-3; resolves attempt 1: HubSpot has its sendId, and mails it once; it had been handed out before: an earlier attempt may have been cut short; its result is looked up at 2026-05-01T12:00:05.250Z
    2026-05-01T12:00:05.250Z  result       pending    31 ms  200  c-5; its result is looked up at 2026-05-01T12:00:10.250Z
    2026-05-01T12:00:10.250Z  result       sent       31 ms  200  c-10
    ");
    insta::assert_snapshot!(shop.run(&["trace", "order-1", "--json"]), @r#"
    exit 0
    --- stdout
    {"id":"order-1","at":"2026-05-01T12:00:01.25Z","account":"default","published_at":"2026-05-01T12:00:00.25Z","call":{"attempt":1,"send_id":"order-1","took_ms":31,"outcome":"unknown","words":{"message":"time-out"}},"then":{"what":"retry","at":"2026-05-01T12:00:02.25Z"}}
    {"id":"order-1","at":"2026-05-01T12:00:03.25Z","account":"default","published_at":"2026-05-01T12:00:00.25Z","redelivered":true,"call":{"attempt":2,"send_id":"order-1","took_ms":31,"outcome":"accepted","words":{"status":200,"correlation_id":"c-3"}},"then":{"what":"follow_up","at":"2026-05-01T12:00:05.25Z"}}
    {"id":"order-1","at":"2026-05-01T12:00:05.25Z","account":"default","published_at":"2026-05-01T12:00:00.25Z","call":{"send_id":"order-1","took_ms":31,"outcome":"pending","words":{"status":200,"correlation_id":"c-5"}},"then":{"what":"follow_up","at":"2026-05-01T12:00:10.25Z"}}
    {"id":"order-1","at":"2026-05-01T12:00:10.25Z","account":"default","published_at":"2026-05-01T12:00:00.25Z","call":{"send_id":"order-1","took_ms":31,"outcome":"sent","words":{"status":200,"correlation_id":"c-10"}},"then":{"what":"complete"}}
    {"id":"order-1","state":"sent","told":"HubSpot's final result: sent","not_known":[]}
    "#);
}

#[test]
fn what_a_killed_worker_could_not_keep_is_told_as_not_known() {
    let shop = Shop::new();
    shop.note(unknown_resolved_sent().into_iter().take(3));
    let told = shop.run(&["trace", "order-1", "--json"]);
    let last = told.lines().last().unwrap();
    assert!(last.contains(r#""state":"not known""#), "{last}");
    assert!(
        last.contains(r#"["what took it out of the queue"]"#),
        "{last}"
    );
}

#[test]
fn a_replay_goes_on_under_the_next_send_id_in_the_same_story() {
    let shop = Shop::new();
    let dead = Then::DeadLetter {
        reason: DeadReason::Refused,
        problem: Some("HubSpot took it and then did not send it: BOUNCED".into()),
    };
    let replay = Then::Replay {
        send_id: "order-1.r2".into(),
        by: Some("ada".into()),
    };
    let published = Then::Published {
        priority: Priority::High,
    };
    let account = AccountName::default();
    shop.note([
        Entry::new("order-1", at(0), &account, published),
        call(
            1,
            Some(1),
            "order-1",
            "accepted",
            Then::FollowUp { at: at(3) },
        ),
        call(3, None, "order-1", "refused", dead),
        Entry::new("order-1", at(60), &account, replay),
        call(61, Some(2), "order-1.r2", "accepted", Then::Complete),
        Entry::new("order-1.r2", at(61), &account, Then::Complete),
    ]);
    insta::assert_snapshot!(shop.run(&["trace", "order-1"]), @"
    exit 0
    --- stdout
    order-1  accepted
      HubSpot took it; the result is not looked up (accounts.NAME.results)
    2026-05-01T12:00:00.250Z  published    account default, priority high
    2026-05-01T12:00:01.250Z  attempt 1    accepted   31 ms  200  c-1; its result is looked up at 2026-05-01T12:00:03.250Z
    2026-05-01T12:00:03.250Z  result       refused    31 ms  200  c-3; dead letter, refused: HubSpot took it and then did not send it: BOUNCED
    2026-05-01T12:01:00.250Z  replay       asked for by ada, sendId order-1.r2
    2026-05-01T12:01:01.250Z  attempt 2    accepted   31 ms  200  c-61  sendId order-1.r2
    ");
    let by_send_id = shop.run(&["trace", "order-1.r2"]);
    assert!(by_send_id.contains("attempt 1"), "{by_send_id}");
}

#[test]
fn what_the_trace_lost_the_dead_letter_still_tells() {
    let shop = Shop::new();
    shop.bury(&[("order-1", DeadReason::Rejected)]);
    insta::assert_snapshot!(shop.run(&["trace", "order-1"]), @"
    exit 0
    --- stdout
    order-1  dead
      a dead letter: the recipient bounced before; `postrider dead show order-1` tells what to do
    2026-05-01T12:00:00.000Z  received
    2026-05-01T12:00:00.000Z  attempt 1    accepted   42 ms  200  aaaaaaaa-1111
    2026-05-01T12:00:00.000Z  dead letter  rejected: the recipient bounced before
      not known: no trace is kept here yet
      not known: what followed 1 attempt that only the request itself remembers
    ");
    let discarded = shop.run(&["dead", "discard", "order-1", "--yes"]);
    assert!(discarded.starts_with("exit 0"), "{discarded}");
    let told = shop.run(&["trace", "order-1"]);
    assert!(told.contains("order-1  discarded\n"), "{told}");
}

#[test]
fn a_request_that_waits_is_found_in_the_queue() {
    let shop = Shop::new();
    let request = super::shop::request("order-1");
    shop.command(&["send"])
        .write_stdin(request)
        .assert()
        .success();
    let told = shop.run(&["trace", "order-1"]);
    assert!(told.contains("order-1  queued\n"), "{told}");
    assert!(
        told.contains("published    account default, priority normal"),
        "{told}"
    );
    // Without the trace too.
    std::fs::remove_file(shop.path("postrider.db.trace")).unwrap();
    insta::assert_snapshot!(shop.run(&["trace", "order-1", "--json"]), @r#"
    exit 0
    --- stdout
    {"id":"order-1","state":"queued","told":"in the queue, or in a worker's hands","not_known":["no trace is kept here yet"]}
    "#);
}

#[test]
fn what_is_missing_is_said() {
    let shop = Shop::new();
    let [first, second, third, fourth] = unknown_resolved_sent();
    shop.note([second, third, fourth]);
    insta::assert_snapshot!(shop.run(&["trace", "order-1"]), @"
    exit 0
    --- stdout
    order-1  sent
      HubSpot's final result: sent
    2026-05-01T12:00:00.250Z  received     account default
    2026-05-01T12:00:03.250Z  attempt 2    accepted   31 ms  200  c-3; it had been handed out before: an earlier attempt may have been cut short; its result is looked up at 2026-05-01T12:00:05.250Z
    2026-05-01T12:00:05.250Z  result       pending    31 ms  200  c-5; its result is looked up at 2026-05-01T12:00:10.250Z
    2026-05-01T12:00:10.250Z  result       sent       31 ms  200  c-10
      not known: what was before 2026-05-01T12:00:03.250Z, where the trace begins
      not known: attempt 1, which no step tells of
    ");
    shop.note([first]);
    std::fs::write(shop.path("postrider.db.trace"), "garbage".repeat(1_000)).unwrap();
    insta::assert_snapshot!(shop.run(&["trace", "order-1"]), @"
    exit 65
    --- stderr
    error: nothing is known of order-1
    hint: the trace cannot be read: postrider.db.trace is damaged or no queue of ours: file is not a database; mail does not need it
    ");
}

#[test]
fn an_unknown_id_exits_65() {
    let shop = Shop::new();
    insta::assert_snapshot!(shop.run(&["trace", "order-1"]), @"
    exit 69
    --- stderr
    error: there is no queue at sqlite:SHOP/postrider.db
    hint: run this in the worker's folder, or set queue.url to the worker's
    ");
    shop.bury(&[]);
    insta::assert_snapshot!(shop.run(&["trace", "order-1"]), @"
    exit 65
    --- stderr
    error: nothing is known of order-1
    hint: no trace is kept here yet; a worker begins one
    ");
    shop.note(unknown_resolved_sent());
    insta::assert_snapshot!(shop.run(&["trace", "order-2"]), @"
    exit 65
    --- stderr
    error: nothing is known of order-2
    hint: the trace reaches back to 2026-05-01T12:00:01.25Z; check the id, it is the message.sendId
    ");
    insta::assert_snapshot!(shop.run(&["trace", "order-1", "--since", "1h"]), @"
    exit 65
    --- stderr
    error: nothing is known of order-1
    hint: leave --since out to read all that is kept
    ");
    insta::assert_snapshot!(shop.run(&["trace", "order-1", "--since", "soon"]), @"
    exit 64
    --- stderr
    error: invalid value 'soon' for '--since <TIME>': write a time such as 90m, 36h or 7d

    For more information, try '--help'.
    ");
}

#[test]
fn what_went_to_the_sink_is_told_as_that() {
    let shop = Shop::new();
    shop.note(unknown_resolved_sent().map(|mut entry| {
        let call = entry.call.as_mut().unwrap();
        call.to_sink = call.attempt == Some(2);
        entry
    }));
    insta::assert_snapshot!(shop.run(&["trace", "order-1"]), @"
    exit 0
    --- stdout
    order-1  sent
      HubSpot's final result: sent; to delivery.sink alone, in the place of its recipients
    2026-05-01T12:00:00.250Z  received     account default
    2026-05-01T12:00:01.250Z  attempt 1    unknown    31 ms  time-out; it may have been mailed: the same sendId goes out at 2026-05-01T12:00:02.250Z
    2026-05-01T12:00:03.250Z  attempt 2    accepted   31 ms  200  c-3; to delivery.sink alone, in the place of its recipients; resolves attempt 1: HubSpot has its sendId, and mails it once; it had been handed out before: an earlier attempt may have been cut short; its result is looked up at 2026-05-01T12:00:05.250Z
    2026-05-01T12:00:05.250Z  result       pending    31 ms  200  c-5; its result is looked up at 2026-05-01T12:00:10.250Z
    2026-05-01T12:00:10.250Z  result       sent       31 ms  200  c-10
    ");
    let json = shop.run(&["trace", "order-1", "--json"]);
    assert_eq!(json.matches(r#""to_sink":true"#).count(), 1, "{json}");
}
