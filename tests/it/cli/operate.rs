//! `queue`, `check` and `sandbox`.

use std::net::TcpListener;
use std::time::Duration;

use postrider::clock::{self, Clock};
use postrider::queue::Queue;
use postrider::queue::sqlite::Mode;

use super::shop::{Shop, answer_once, interrupt, request, told, without_word_after};

#[test]
fn queue_shows_what_the_worker_says() {
    let shop = Shop::new();
    shop.write("one.json", &request("order-1"));
    shop.run(&["send", "one.json"]);
    let worker = answer_once(
        r#"{"accounts": [
            {"name": "default", "owner": true, "in_flight": 3,
             "pauses": [{"scope": "account", "reason": "unauthorized",
                         "since": "2026-01-01T00:00:00Z",
                         "words": {"status": 401, "message": "Authentication failed"}},
                        {"scope": "account", "reason": "daily",
                         "since": "2026-01-01T00:00:00Z", "until": "2099-01-02T00:00:00Z",
                         "words": {"status": 429}},
                        {"scope": "provider", "reason": "app", "since": "2026-01-01T00:00:00Z",
                         "words": {"message": "no call was made: HubSpot does not know the app"}}],
             "quota": [{"bucket": "send", "limit": 190, "window_s": 10.0, "used": 12},
                       {"bucket": "api", "limit": 190, "window_s": 10.0, "used": 7, "share": 90},
                       {"bucket": "daily", "limit": 625000, "window_s": 86400.0, "used": 99000,
                        "spent_at": "2099-01-01T21:40:00Z"}]},
            {"name": "shop", "owner": false, "in_flight": 0, "pauses": [], "quota": []}]}"#,
    );
    let shown = shop.run(&["queue", "--worker", &worker]);
    let shown = without_word_after(&shown, ": began ");
    let shown = without_word_after(&shown, "oldest ");
    insta::assert_snapshot!(shown, @"
    exit 0
    --- stdout
    postrider.send.default.high            0
    postrider.send.default.normal          1  oldest AGE
    postrider.send.default.low             0
    postrider.results.default              0
    postrider.delay                        0
    postrider.dead                         0

    account default: dispatches, 3 calls in flight
      send   12 of 190 calls in 10 s used
      api    7 of 190 calls in 10 s used; others call too and leave 90
      daily  99000 of 625000 calls today used; at this rate spent at 2099-01-01T21:40:00Z
      paused (account), unauthorized: began AGE ago, ends when a probe finds it healed; nothing is lost
      HubSpot says: Authentication failed
      next step: give the account a token that HubSpot takes; `postrider check` tries it
      paused (account), daily: began AGE ago, ends 2099-01-02T00:00:00Z; nothing is lost
      paused (provider), app: began AGE ago, ends when a probe finds it healed; nothing is lost
      no call was made: HubSpot does not know the app
      next step: correct oauth.client_id and the client secret
      rate: no sends go out while that pause lasts
      to be sent: 1, about 1s once nothing holds them back

    account shop: stands by, 0 calls in flight
    ");
}

const SEND: &str = r#"{"bucket": "send", "limit": 190, "window_s": 10.0, "used": 190}"#;

#[test]
fn queue_says_the_rate_in_force_and_how_long_what_waits_takes() {
    let shop = two_hundred();
    let queue = |gate: &str, quota: &str, wait: &str| rate_of(&shop, gate, quota, wait);
    let sends = |more: &str| SEND.replace('}', more) + "}";
    let told = [
        queue("open", &sends(""), "room"),
        queue("open", &sends(r#", "is_learned": true"#), "room"),
        queue("open", &sends(r#", "share": 20"#), "room"),
        queue("open", &sends(r#", "share": 100, "told": 100"#), "room"),
        queue("open", &sends(""), "answer"),
        queue("open", &sends(""), "one_by_one"),
        queue("open", "", "room"),
        queue("shut", &sends(""), "pause"),
        queue("trial", &sends(""), "request"),
    ];
    insta::assert_snapshot!(told.join("\n---\n"), @"
    at most 19.0 sends a second (quota.send: 190 in 10 s)
    to be sent: 200, about 11s
    ---
    at most 19.0 sends a second (190 in 10 s, learned from what HubSpot bears)
    to be sent: 200, about 11s
    ---
    at most 2.0 sends a second (other apps call too and leave 20 of 190 in 10 s)
    to be sent: 200, about 1m 40s
    ---
    at most 10.0 sends a second (HubSpot tells of 100 in 10 s)
    to be sent: 200, about 20s
    ---
    at most 19.0 sends a second (quota.send: 190 in 10 s); now all that accounts.default.concurrency allows are in flight
    to be sent: 200, about 11s
    ---
    one send at a time: HubSpot refused one for a rolling limit, and has taken none since
    to be sent: 200, about 11s once nothing holds them back
    ---
    as fast as HubSpot answers: no limit is set for sends
    to be sent: 200
    ---
    no sends go out while that pause lasts
    to be sent: 200, about 11s once nothing holds them back
    ---
    one request is let through, to see whether that is over
    to be sent: 200, about 11s once nothing holds them back
    ");
}

#[test]
fn what_the_day_is_too_short_for_takes_until_the_next_one() {
    let shop = two_hundred();
    let now = Clock::system().now();
    let ends = clock::after(now, Duration::from_secs(3_630)).to_string();
    let rate = |send: &str, limit: u32, used: u32| {
        let day = format!(
            r#"{send}, {{"bucket": "daily", "limit": {limit}, "window_s": 86400.0, "used": {used}, "ends": "{ends}"}}"#
        );
        rate_of(&shop, "open", &day, "room").replace(&ends, "MIDNIGHT")
    };
    // There is time for one of those that the last day has left, and for 24 on the next one.
    let slow = r#"{"bucket": "send", "limit": 1, "window_s": 3600.0, "used": 0}"#;
    let told = [
        rate(SEND, 150, 100),
        rate(SEND, 150, 140),
        rate(slow, 500, 0),
    ];
    insta::assert_snapshot!(told.join("\n---\n"), @"
    at most 19.0 sends a second (quota.send: 190 in 10 s)
    to be sent: 200, about 1h 0m: today's calls last for 50 of them at most, and the next day begins at MIDNIGHT
    ---
    at most 19.0 sends a second (quota.send: 190 in 10 s)
    to be sent: 200, about 1d 1h: today's calls last for 10 of them at most, and the next day begins at MIDNIGHT
    ---
    at most 1.0 sends an hour (quota.send: 1 in 3600 s)
    to be sent: 200, about 8d 8h
    ");
}

/// What `queue` says of the rate, where look-ups alone are held back.
fn rate_of(shop: &Shop, gate: &str, quota: &str, wait: &str) -> String {
    let worker = answer_once(format!(
        r#"{{"accounts": [{{"name": "default", "owner": true, "in_flight": 0,
             "lanes": [{{"lane": "sends", "gate": "{gate}", "waits_for": "{wait}"}}],
             "pauses": [{{"scope": "account", "reason": "daily", "lanes": ["results"],
                          "since": "2026-01-01T00:00:00Z", "until": "2099-01-02T00:00:00Z"}}],
             "quota": [{quota}]}}]}}"#
    ));
    let shown = shop.run(&["queue", "--worker", &worker]);
    let (_, rate) = shown.split_once("  rate: ").unwrap();
    rate.trim_end().replace("\n  ", "\n")
}

#[test]
fn the_rate_is_told_as_json_too() {
    let shop = two_hundred();
    let answer = format!(
        r#"{{"accounts": [{{"name": "default", "owner": true, "in_flight": 0, "pauses": [],
             "lanes": [{{"lane": "sends", "gate": "open"}}], "quota": [{SEND}]}}]}}"#
    );
    let worker = answer_once(answer);
    let shown = shop.run(&["queue", "--json", "--worker", &worker]);
    let (_, rates) = shown.split_once(r#""rates":"#).unwrap();
    insta::assert_snapshot!(rates.trim_end(), @r#"[{"account":"default","limit_per_second":19.0,"goes":true,"told":"at most 19.0 sends a second (quota.send: 190 in 10 s)","drain":{"waiting":200,"held":0,"seconds":11,"today":null,"told":"to be sent: 200, about 11s"}}]}"#);
}

/// With so many requests that wait.
fn two_hundred() -> Shop {
    let shop = Shop::new();
    let lines: Vec<String> = (0..200).map(|n| request(&format!("order-{n}"))).collect();
    shop.write("all.jsonl", &lines.join("\n"));
    shop.run(&["send", "all.jsonl"]);
    shop
}

/// Its address is taken too, and that is not what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_worker_is_told_of_the_file() {
    let shop = Shop::new();
    let first = shop.queue(Mode::Worker).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut second = shop.command(&["worker", "--listen", &address]);
    second.env("POSTRIDER_ACCOUNTS__DEFAULT__TOKEN", "pat-na1-test");
    insta::assert_snapshot!(told(second), @"
    exit 69
    --- stderr
    error: postrider.db is in use by another worker
    hint: stop the other worker, or move to RabbitMQ, where workers stand by
    ");
    first.close().await;
}

#[test]
fn queue_says_plainly_when_no_worker_answers() {
    let shop = Shop::new();
    insta::assert_snapshot!(shop.run(&["queue"]), @"
    exit 69
    --- stderr
    error: there is no queue at sqlite:SHOP/postrider.db
    hint: run this in the worker's folder, or set queue.url to the worker's
    ");
    shop.write("one.json", &request("order-1"));
    shop.run(&["send", "one.json"]);
    let shown = shop.run(&["queue", "--worker", "127.0.0.1:1"]);
    insta::assert_snapshot!(without_word_after(&shown, "oldest "), @"
    exit 0
    --- stdout
    postrider.send.default.high            0
    postrider.send.default.normal          1  oldest AGE
    postrider.send.default.low             0
    postrider.results.default              0
    postrider.delay                        0
    postrider.dead                         0

    no worker answers at 127.0.0.1:1 (nothing listens there): pauses and rates are known to the worker alone
    --- stderr
    hint: start one with `postrider worker`, or name its address with --worker
    ");
}

#[test]
fn logs_are_json_lines_without_addresses_and_secrets_at_any_level() {
    let shop = Shop::new();
    let (mut sandbox, address) = shop.sandbox(&[]);
    shop.write("one.json", &request("order-1"));
    for args in [&["send", "one.json"][..], &["check"]] {
        let mut command = shop.command(args);
        command.env("RUST_LOG", "trace");
        command.env("POSTRIDER_ACCOUNTS__DEFAULT__BASE_URL", &address);
        command.env("POSTRIDER_ACCOUNTS__DEFAULT__TOKEN", "pat-na1-hidden");
        let output = command.output().unwrap();
        assert!(output.status.success());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("hidden"), "{stderr}");
        assert!(!stderr.contains("ada@example.com"), "{stderr}");
        let lines = stderr.lines().filter(|line| line.starts_with('{'));
        assert!(lines.clone().next().is_some() || args[0] == "send");
        for line in lines {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["level"].is_string() && line["target"].is_string());
        }
    }
    interrupt(&sandbox);
    assert!(sandbox.wait().unwrap().success());
}

#[test]
fn queue_shows_what_keeps_a_token_from_taking_over() {
    let shop = Shop::new();
    shop.bury(&[]);
    let worker = answer_once(
        r#"{"accounts": [{"name": "default", "owner": true, "in_flight": 0, "pauses": [], "quota": [],
            "token_troubles": [
                {"key": "next_token", "place": "/run/next", "since": "2026-01-01T00:00:00Z",
                 "why": "it is not proven: HubSpot answers 401", "hint": "check it"},
                {"key": "token", "place": "token_command", "since": "2026-01-01T00:00:00Z",
                 "until": "2099-01-02T00:00:00Z", "why": "it is to be renewed, and is not",
                 "hint": "log in"}]}]}"#,
    );
    let shown = shop.run(&["queue", "--worker", &worker]);
    let shown = without_word_after(&shown, "; began ");
    let (_, shown) = shown.split_once("\naccount ").unwrap();
    insta::assert_snapshot!(shown, @"
    default: dispatches, 0 calls in flight
      no pause
      token trouble, next_token (/run/next): it is not proven: HubSpot answers 401; began AGE ago
      next step: check it
      token trouble, token (token_command): it is to be renewed, and is not; began AGE ago; the token in force ends at 2099-01-02T00:00:00Z
      next step: log in
      rate: as fast as HubSpot answers: no limit is set for sends
    ");
}
