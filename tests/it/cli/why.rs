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

/// A worker that dispatches, whose sends wait for this.
fn dispatching(wait: &str, full: &str) -> String {
    format!(
        r#""owner": true, "pauses": [],
           "lanes": [{{"lane": "sends", "gate": "open", "waits_for": "{wait}"}}],
           "quota": [{{"bucket": "send", "limit": 190, "window_s": 10.0, "used": 190{full}}}]"#
    )
}

#[test]
fn a_request_that_waits_is_told_what_its_lane_came_to() {
    let shop = Shop::new();
    shop.write("one.json", &request("order-1"));
    shop.run(&["send", "one.json"]);
    let dispatched = |wait: &str, full: &str| told(&shop, &dispatching(wait, full));
    insta::assert_snapshot!(dispatched("room", r#", "full": "window""#), @"
    exit 0
    --- stdout
    order-1  queued
      in the queue, or in a worker's hands
      the window is full: 190 calls in 10 s (quota.send: 190 in 10 s)
      its turn: a line of 1 of priority normal, and nothing more urgent: together about 1s
    ");
    let line = |wait: &str, full: &str| {
        let shown = dispatched(wait, full);
        shown.lines().nth(4).unwrap().trim().to_owned()
    };
    let told: Vec<String> = [
        line("room", r#", "full": "pace""#),
        line("room", r#", "full": "share", "share": 20"#),
        line("room", r#", "full": "share", "share": 100, "told": 100"#),
        line("room", r#", "full": "window", "is_learned": true"#),
        line("room", r#", "full": "predecessor""#),
        line("answer", ""),
        line("one_by_one", ""),
        line("lease", ""),
        line("request", ""),
    ]
    .into();
    insta::assert_snapshot!(told.join("\n"), @"
    the window's calls are spread evenly, and the next one's turn is to come (quota.send: 190 in 10 s)
    the window is full: 190 calls in 10 s (other apps call too and leave 20 of 190 in 10 s)
    the window is full: 190 calls in 10 s (HubSpot tells of 100 in 10 s)
    the window is full: 190 calls in 10 s (190 in 10 s, learned from what HubSpot bears)
    the worker before may have used the window a moment ago: calls go as it comes free (quota.send: 190 in 10 s)
    as many calls are in flight as may be: 0 (accounts.default.concurrency)
    calls go one by one, since HubSpot refused one for a rolling limit and has taken none since
    this worker's hold on the account is to be renewed
    nothing holds its lane back: it goes out next
    ");
}

#[test]
fn its_turn_is_told_by_what_is_more_urgent() {
    let shop = Shop::new();
    let urgent = |id: &str, priority: &str| {
        let request = request(id);
        let dispatch = format!(r#", "dispatch": {{"priority": "{priority}"}}}}"#);
        format!(
            "{}{dispatch}",
            request.trim_end().strip_suffix('}').unwrap()
        )
    };
    let mut lines: Vec<String> = (0..38)
        .map(|n| urgent(&format!("high-{n}"), "high"))
        .collect();
    lines.push(urgent("order-1", "low"));
    shop.write("all.jsonl", &lines.join("\n"));
    shop.run(&["send", "all.jsonl"]);
    let open = dispatching("room", r#", "full": "pace""#);
    insta::assert_snapshot!(told(&shop, &open), @"
    exit 0
    --- stdout
    order-1  queued
      in the queue, or in a worker's hands
      the window's calls are spread evenly, and the next one's turn is to come (quota.send: 190 in 10 s)
      its turn: a line of 1 of priority low, behind 38 more urgent, which leave it a share of the turns: together about 3s
    ");
    // Where the day is nearly spent, the less urgent ones wait.
    let held = open.replace(
        r#""pauses": []"#,
        r#""pauses": [{"scope": "account", "reason": "daily", "lanes": [], "priorities": ["low"],
                       "since": "2099-01-01T00:00:00Z", "until": "2099-01-02T00:00:00Z"}]"#,
    );
    insta::assert_snapshot!(told(&shop, &held), @"
    exit 0
    --- stdout
    order-1  queued
      in the queue, or in a worker's hands
      paused (account), daily, low sends alone: began 0s ago, ends 2099-01-02T00:00:00Z; nothing is lost
    ");
}

#[test]
fn what_is_due_later_is_not_told_of_a_full_window() {
    let shop = Shop::new();
    let request = request("order-1");
    let dispatch = r#", "dispatch": {"sendAt": "2099-01-01T08:00:00Z"}}"#;
    let request = format!(
        "{}{dispatch}",
        request.trim_end().strip_suffix('}').unwrap()
    );
    shop.write("one.json", &request);
    shop.run(&["send", "one.json"]);
    let shown = told(&shop, &dispatching("room", r#", "full": "window""#));
    insta::assert_snapshot!(shown, @"
    exit 0
    --- stdout
    order-1  waiting
      in the queue until 2099-01-01T08:00:00.000Z
      nothing else holds it back until then
    ");
}

#[test]
fn a_request_of_a_held_lane_is_told_the_pause() {
    let shop = Shop::new();
    shop.write("one.json", &request("order-1"));
    shop.run(&["send", "one.json"]);
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
      paused (account), forbidden, sends alone: began 0s ago, ends when a probe finds it healed; nothing is lost
    ");
    let trial = paused.replace(r#""gate": "shut""#, r#""gate": "trial""#);
    insta::assert_snapshot!(told(&shop, &trial), @"
    exit 0
    --- stdout
    order-1  queued
      in the queue, or in a worker's hands
      paused (account), forbidden, sends alone: began 0s ago, ends when a probe finds it healed; nothing is lost
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
      no worker answers at 127.0.0.1:1 (nothing listens there): start one with `postrider worker`, or name its address with --worker
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

/// Of several workers the one is heard that dispatches the account, whichever it is.
#[test]
fn several_workers_can_be_asked() {
    let shop = Shop::new();
    shop.write("one.json", &request("order-1"));
    shop.run(&["send", "one.json"]);
    let worker = |account: &str| {
        answer_once(format!(
            r#"{{"accounts": [{{"name": "default", "in_flight": 0, {account}}}]}}"#
        ))
    };
    let stands_by = || worker(r#""owner": false, "quota": [], "pauses": []"#);
    let dispatches = || worker(&dispatching("room", r#", "full": "pace""#));
    for command in [&["why", "order-1"][..], &["queue"]] {
        for (first, second) in [(stands_by(), dispatches()), (dispatches(), stands_by())] {
            let asked = [
                "--worker",
                &first,
                "--worker",
                &second,
                "--worker",
                "127.0.0.1:1",
            ];
            let shown = shop.run(&[command, &asked].concat());
            assert!(shown.contains("quota.send: 190 in 10 s"), "{shown}");
            assert!(!shown.contains("stands by"), "{shown}");
            let is_told = shown.contains("no worker answers at 127.0.0.1:1");
            assert_eq!(is_told, command == ["queue"], "{shown}");
        }
    }
    let (first, second) = (stands_by(), stands_by());
    let shown = shop.run(&["why", "order-1", "--worker", &first, "--worker", &second]);
    let told = format!("each of the workers at {first}, {second} stands by for account default");
    assert!(shown.contains(&told), "{shown}");
}
