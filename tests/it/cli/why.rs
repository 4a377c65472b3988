//! `why`: where a request is, and what it waits for.

use super::shop::{Shop, answer_once, request};

/// The lines of the answer, of a shop with one request and a worker that says this of its account.
fn told(shop: &Shop, account: &str) -> String {
    let worker = answer_once(format!(
        r#"{{"accounts": [{{"name": "default", "in_flight": 0, {account}}}]}}"#
    ));
    let shown = shop.run(&["why", "order-1", "--worker", &worker]);
    shown.replace(&worker, "WORKER")
}

#[test]
fn a_request_that_waits_is_told_what_for() {
    let shop = Shop::new();
    shop.write("one.json", &request("order-1"));
    shop.run(&["send", "one.json"]);
    let open =
        r#""lanes": [{"lane": "sends", "gate": "open"}, {"lane": "results", "gate": "open"}]"#;
    let dispatched = |used: u32| {
        let quota =
            format!(r#"{{"bucket": "send", "limit": 190, "window_s": 10.0, "used": {used}}}"#);
        told(
            &shop,
            &format!(r#""owner": true, "pauses": [], {open}, "quota": [{quota}]"#),
        )
    };
    insta::assert_snapshot!(dispatched(190), @"
    exit 0
    --- stdout
    order-1  queued
      in the queue, or in a worker's hands
      the window is full: 190 of 190 calls in 10 s
      to be sent: 1, about 1s at 19.0 a second (quota.send)
    ");
    insta::assert_snapshot!(dispatched(7), @"
    exit 0
    --- stdout
    order-1  queued
      in the queue, or in a worker's hands
      nothing holds it back
      to be sent: 1, about 1s at 19.0 a second (quota.send)
    ");
    let paused = r#""owner": true, "quota": [],
        "lanes": [{"lane": "sends", "gate": "shut"}, {"lane": "results", "gate": "open"}],
        "pauses": [{"scope": "account", "reason": "daily", "lanes": ["results"],
                    "since": "2026-01-01T00:00:00Z", "until": "2099-01-02T00:00:00Z"},
                   {"scope": "account", "reason": "forbidden", "lanes": ["sends"],
                    "since": "2099-01-01T00:00:00Z"}]"#;
    insta::assert_snapshot!(told(&shop, paused), @"
    exit 0
    --- stdout
    order-1  queued
      in the queue, or in a worker's hands
      paused (account), forbidden: began 0s ago, ends when a probe finds it healed; nothing is lost
    ");
    let trial = paused.replace(r#""gate": "shut""#, r#""gate": "trial""#);
    insta::assert_snapshot!(told(&shop, &trial), @"
    exit 0
    --- stdout
    order-1  queued
      in the queue, or in a worker's hands
      paused (account), forbidden: began 0s ago, ends when a probe finds it healed; nothing is lost
      one request is let through, to see whether that is over
    ");
    let stands_by = r#""owner": false, "quota": [], "pauses": []"#;
    insta::assert_snapshot!(told(&shop, stands_by), @"
    exit 0
    --- stdout
    order-1  queued
      in the queue, or in a worker's hands
      the worker at WORKER stands by for account default: name the one that dispatches it with --worker
    ");
}

#[test]
fn why_tells_where_it_looked_in_vain() {
    let shop = Shop::new();
    shop.write("one.json", &request("order-1"));
    shop.run(&["send", "one.json"]);
    insta::assert_snapshot!(shop.run(&["why", "order-1", "--worker", "127.0.0.1:1"]), @"
    exit 0
    --- stdout
    order-1  queued
      in the queue, or in a worker's hands
      no worker answers at 127.0.0.1:1 (nothing listens there): name the one that dispatches it with --worker
    ");
    let json = shop.run(&["why", "order-1", "--worker", "127.0.0.1:1", "--json"]);
    assert!(json.contains(r#""state":"queued""#), "{json}");
    assert!(
        json.contains(r#""waits_for":["no worker answers"#),
        "{json}"
    );
    let unknown = shop.run(&["why", "order-2"]);
    assert!(unknown.contains("exit 65"), "{unknown}");
    assert!(unknown.contains("nothing is known of order-2"), "{unknown}");
}
