//! The model, call by call, on a clock of the test's own.

use super::*;
use serde_json::{Value, json};

const SEND: &str = "/marketing/transactional/2026-09/single-email/send";
const TOKEN: &str = "Bearer pat-na1-test";

/// A model and its clock, which stands still unless it is told to move.
struct World {
    model: Model,
    now: Timestamp,
}

fn world(options: Options) -> World {
    let now = "2026-11-22T10:00:00Z".parse().unwrap();
    World {
        model: Model::new(options, now),
        now,
    }
}

fn with_faults(text: &str) -> World {
    world(Options {
        faults: text.parse().unwrap(),
        ..Options::default()
    })
}

impl World {
    fn wait(&mut self, secs: f64) {
        self.now = clock::after(self.now, Duration::from_secs_f64(secs));
    }

    fn call(&mut self, method: &str, path: &str, token: &str, body: &str) -> Reply {
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(p, q)| (p, Some(q)));
        let authorization = Some(token).filter(|token| !token.is_empty());
        let body = body.as_bytes();
        self.model.call(
            self.now,
            &Call {
                method,
                path,
                query,
                authorization,
                body,
            },
        )
    }

    fn post(&mut self, to: &str, send_id: &str) -> Reply {
        let body = json!({"emailId": 1, "message": {"to": to, "sendId": send_id}});
        self.call("POST", SEND, TOKEN, &body.to_string())
    }

    fn send(&mut self, to: &str, send_id: &str) -> (u16, Value) {
        read(self.post(to, send_id))
    }

    fn get(&mut self, path: &str) -> (u16, Value) {
        read(self.call("GET", path, TOKEN, ""))
    }

    /// What the look-up of an accepted send says now.
    fn look_up(&mut self, view: &Value) -> Value {
        let id = view["statusId"].as_str().unwrap().replace('=', "%3D");
        self.get(&format!("/marketing/v3/email/send-statuses/{id}"))
            .1
    }

    /// The final result of a send, when all of them are due.
    fn result(&mut self, to: &str, send_id: &str) -> String {
        let (status, view) = self.send(to, send_id);
        assert_eq!(status, 200, "{view}");
        self.wait(3.0);
        self.look_up(&view)["sendResult"]
            .as_str()
            .unwrap_or("none")
            .to_owned()
    }

    fn stats(&self) -> Value {
        serde_json::to_value(self.model.stats(self.now)).unwrap()
    }
}

fn answer(reply: Reply) -> Answer {
    match reply.ending {
        Ending::Answer(answer) => answer,
        other @ (Ending::Cut | Ending::Never) => panic!("no answer: {other:?}"),
    }
}

fn read(reply: Reply) -> (u16, Value) {
    let answer = answer(reply);
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    (
        answer.status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer
        .headers
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value.as_str())
}

// === sends ===

#[test]
fn a_send_id_is_mailed_once() {
    let mut world = world(Options::default());
    assert_eq!(world.result("ada@example.com", "a"), "SENT");
    assert_eq!(world.result("ada@example.com", "a"), "IDEMPOTENT_IGNORE");
    assert_eq!(world.result("ada@example.com", "b"), "SENT");
    assert_eq!(
        world.result("ada+UNDELIVERABLE@example.com", "c"),
        "UNDELIVERABLE"
    );
    assert_eq!(world.result("ada@example.com", "c"), "IDEMPOTENT_FAIL");
    let stats = world.stats();
    assert_eq!(
        (&stats["mails"], &stats["sendIdsMailed"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(
        (&stats["duplicates"], &stats["refused"]),
        (&json!(2), &json!(1))
    );
}

#[test]
fn a_send_id_belongs_to_its_portal() {
    let mut world = world(Options::default());
    let body = r#"{"emailId":1,"message":{"to":"ada@example.com","sendId":"a"}}"#;
    for portal in [1, 2] {
        let token = format!("Bearer pat-portal-{portal}");
        world.call("POST", SEND, &token, body);
        let (_, details) = read(world.call("GET", "/account-info/v3/details", &token, ""));
        assert_eq!(details["portalId"], portal);
    }
    assert_eq!(world.stats()["mails"], 2);
}

#[test]
fn a_send_without_an_id_is_mailed_each_time() {
    let mut world = world(Options::default());
    let body = r#"{"emailId":1,"message":{"to":"ada@example.com"}}"#;
    (0..3).for_each(|_| drop(world.call("POST", SEND, TOKEN, body)));
    let stats = world.stats();
    assert_eq!(
        (&stats["mails"], &stats["sendIdsMailed"]),
        (&json!(3), &json!(0))
    );
}

#[test]
fn a_result_comes_after_its_time_and_stays() {
    let mut world = world(Options {
        results_after: "2s".parse().unwrap(),
        ..Options::default()
    });
    let (_, view) = world.send("ada@example.com", "a");
    assert_eq!(
        (&view["status"], &view["sendResult"]),
        (&json!("PENDING"), &Value::Null)
    );
    world.wait(1.5);
    assert_eq!(world.look_up(&view)["status"], "PROCESSING");
    world.wait(0.5);
    let result = world.look_up(&view);
    assert_eq!(
        (&result["status"], &result["sendResult"]),
        (&json!("COMPLETE"), &json!("SENT"))
    );
    world.wait(100_000.0);
    assert_eq!(world.look_up(&view), result);
}

#[test]
fn what_is_wrong_with_a_mail_is_told_late_and_with_a_body_at_once() {
    let mut world = world(Options::default());
    assert_eq!(
        world.result("noreply@example.com", "a"),
        "INVALID_TO_ADDRESS"
    );
    assert_eq!(world.result("nobody", "b"), "INVALID_TO_ADDRESS");
    for body in [
        "",
        "{}",
        r#"{"emailId":1,"message":{}}"#,
        r#"{"emailId":"x","message":{"to":"a@b.c"}}"#,
        r#"{"emailId":1,"message":{"to":"a@b.c"},"customProperties":[]}"#,
    ] {
        let (status, error) = read(world.call("POST", SEND, TOKEN, body));
        assert_eq!(
            (status, &error["category"]),
            (400, &json!("VALIDATION_ERROR")),
            "{body}"
        );
    }
}

#[test]
fn every_result_can_be_asked_for_by_address() {
    let mut world = world(Options::default());
    for (n, result) in super::super::status::SEND_RESULTS
        .into_iter()
        .chain(["X_NEW"])
        .enumerate()
    {
        let got = world.result(&format!("ada+{result}@example.com"), &n.to_string());
        assert_eq!(got, result);
    }
}

// === who may ===

#[test]
fn only_a_token_that_is_accepted_opens() {
    let mut world = world(Options {
        token: Some("secret".into()),
        ..Options::default()
    });
    let details = "/account-info/2026-09/details";
    for (token, path, expected) in [
        ("Bearer secret", details, 200),
        ("Bearer other", details, 401),
        ("secret", details, 401),
        ("", details, 401),
        (
            "Bearer secret",
            "/account-info/2026-09/details?hapikey=x",
            401,
        ),
    ] {
        let answer = answer(world.call("GET", path, token, ""));
        assert_eq!(answer.status, expected, "{token} {path}");
        let failed = header(&answer, "x-hubspot-auth-failure").is_some();
        assert_eq!(failed, expected == 401);
    }
    world.model.set_tokens(Tokens::These(Vec::new()));
    assert_eq!(read(world.call("GET", details, "Bearer secret", "")).0, 401);
    world.model.set_tokens(Tokens::Any);
    assert_eq!(
        read(world.call("GET", details, "Bearer whatever", "")).0,
        200
    );
}

#[test]
fn a_token_tells_its_portal_and_scopes() {
    let mut world = with_faults("403=1m");
    let path = "/oauth/v2/private-apps/get/access-token-info";
    let body = r#"{"tokenKey":"pat-portal-7"}"#;
    let (status, info) = read(world.call("POST", path, "", body));
    assert_eq!((status, &info["hubId"]), (200, &json!(7)));
    assert_eq!(info["scopes"], json!(["oauth"]));
    let (status, error) = world.send("ada@example.com", "a");
    assert_eq!(
        (status, &error["category"]),
        (403, &json!("MISSING_SCOPES"))
    );
    world.wait(60.0);
    let (_, info) = read(world.call("POST", path, "", body));
    assert!(
        info["scopes"]
            .as_array()
            .unwrap()
            .contains(&json!("transactional-email"))
    );
    assert_eq!(world.send("ada@example.com", "a").0, 200);
}

#[test]
fn every_answer_names_its_correlation_id() {
    let mut world = with_faults("404=1s");
    for _ in 0..2 {
        let answer = answer(world.post("ada+http500x1@example.com", "a"));
        let id = header(&answer, "x-hubspot-correlation-id")
            .unwrap()
            .to_owned();
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(
            body["correlationId"] == id || answer.status == 200,
            "{body}"
        );
        world.wait(2.0);
    }
    assert_eq!(world.get("/nowhere").0, 404);
    assert_eq!(world.get(SEND).0, 405);
}

// === limits ===

#[test]
fn one_send_too_many_in_a_window_is_refused_and_counted() {
    let mut world = world(Options {
        limit: Some("2/10s".parse().unwrap()),
        ..Options::default()
    });
    let statuses: Vec<u16> = (0..4)
        .map(|n| world.send("ada@example.com", &n.to_string()).0)
        .collect();
    assert_eq!(statuses, [200, 200, 429, 429]);
    let (_, error) = world.send("ada@example.com", "x");
    assert_eq!(error["policyName"], "TEN_SECONDLY_ROLLING");
    assert_eq!(error["category"], Value::Null);
    assert_eq!(
        world.get("/account-info/v3/details").0,
        200,
        "look-ups have their own window"
    );
    world.wait(10.0);
    assert_eq!(world.send("ada@example.com", "x").0, 200);
    let stats = world.stats();
    assert_eq!(
        (&stats["throttled"], &stats["windows"]["send"]["most"]),
        (&json!(3), &json!(5))
    );
    assert_eq!(stats["windows"]["send"]["limit"], 2);
}

#[test]
fn look_ups_have_a_limit_and_headers_of_their_own() {
    let options = Options {
        api_limit: Some("2/10s".parse().unwrap()),
        daily: Some(100),
        ..Options::default()
    };
    let mut world = world(options);
    let details = answer(world.call("GET", "/account-info/v3/details", TOKEN, ""));
    assert_eq!(header(&details, "x-hubspot-ratelimit-remaining"), Some("1"));
    assert_eq!(
        header(&details, "x-hubspot-ratelimit-daily-remaining"),
        Some("99")
    );
    let send = answer(world.post("ada@example.com", "a"));
    assert_eq!(
        header(&send, "x-hubspot-ratelimit-remaining"),
        None,
        "sends are exempt"
    );
    world.get("/account-info/v3/details");
    assert_eq!(world.get("/account-info/v3/details").0, 429);
}

#[test]
fn the_day_ends_at_midnight_of_the_account() {
    let time_zone = jiff::tz::TimeZone::get("Asia/Kolkata").unwrap();
    let mut world = world(Options {
        daily: Some(2),
        time_zone,
        ..Options::default()
    });
    assert_eq!(world.send("ada@example.com", "a").0, 200);
    let (_, usage) = world.get("/account-info/2026-03/api-usage/daily/private-apps");
    assert_eq!(usage["results"][0]["currentUsage"], 2);
    assert_eq!(usage["results"][0]["resetsAt"], "2026-11-22T18:30:00.000Z");
    let (status, error) = world.send("ada@example.com", "b");
    assert_eq!((status, &error["policyName"]), (429, &json!("DAILY")));
    world.now = "2026-11-22T18:29:59.999Z".parse().unwrap();
    assert_eq!(world.send("ada@example.com", "b").0, 429);
    world.now = "2026-11-22T18:30:00Z".parse().unwrap();
    assert_eq!(world.send("ada@example.com", "b").0, 200);
}

// === faults ===

#[test]
fn each_fault_ends_a_call_as_it_says() {
    let mut world = world(Options::default());
    let mut ending = |tag: &str| {
        let mails = world.stats()["mails"].as_u64().unwrap();
        let reply = world.post(&format!("ada+{tag}@example.com"), tag);
        let mailed = world.stats()["mails"].as_u64().unwrap() > mails;
        let status = match &reply.ending {
            Ending::Answer(answer) => answer.status,
            Ending::Cut => 0,
            Ending::Never => 1,
        };
        (status, mailed, reply.after)
    };
    let at_once = Duration::ZERO;
    assert_eq!(ending("cut"), (0, true, at_once));
    assert_eq!(ending("cut-before"), (0, false, at_once));
    assert_eq!(ending("never"), (1, true, at_once));
    assert_eq!(ending("slow"), (200, true, SLOW));
    assert_eq!(ending("http400"), (400, false, at_once));
    assert_eq!(ending("400-text"), (400, false, at_once));
    assert_eq!(ending("daily"), (429, false, at_once));
    assert!(matches!(ending("5xx"), (500..600, false, _)));
    assert!(matches!(ending("5xx-sent"), (502 | 504, true, _)));
    for status in [
        401, 403, 404, 405, 409, 414, 423, 429, 477, 500, 503, 521, 524, 599,
    ] {
        assert_eq!(ending(&format!("http{status}")), (status, false, at_once));
    }
}

#[test]
fn a_counted_fault_strikes_so_many_times() {
    let mut world = world(Options::default());
    let statuses: Vec<u16> = (0..4)
        .map(|_| world.send("ada+http503x2@example.com", "a").0)
        .collect();
    assert_eq!(statuses, [503, 503, 200, 200]);
    assert_eq!(
        world.send("ada+http503x2@example.com", "b").0,
        503,
        "each mail has its own"
    );
}

#[test]
fn a_migration_says_when_it_ends() {
    let mut world = with_faults("477=30s");
    world.wait(9.5);
    let answer = answer(world.post("ada@example.com", "a"));
    assert_eq!(
        (answer.status, header(&answer, "retry-after")),
        (477, Some("21"))
    );
    world.wait(20.5);
    assert_eq!(world.send("ada@example.com", "a").0, 200);
}

#[test]
fn results_can_be_late_lost_or_other() {
    let mut world = world(Options::default());
    assert_eq!(world.result("ada+lost@example.com", "a"), "none");
    assert_eq!(world.result("ada+late@example.com", "b"), "none");
    let (_, late) = world.send("ada+late@example.com", "c");
    world.wait(63.0);
    assert_eq!(world.look_up(&late)["sendResult"], "SENT");
    let now = world.now;
    world
        .model
        .set_faults(now, "PREVIOUSLY_BOUNCED=1".parse().unwrap());
    assert_eq!(world.result("ada@example.com", "d"), "PREVIOUSLY_BOUNCED");
}

#[test]
fn the_same_seed_gives_the_same_answers() {
    let run = || {
        let mut world = world(Options {
            latency: "20ms-80ms".parse().unwrap(),
            faults: "5xx=0.2,cut=0.1,never=0.1,PREVIOUSLY_BOUNCED=0.2"
                .parse()
                .unwrap(),
            ..Options::default()
        });
        (0..200)
            .map(|n| {
                world.wait(0.01);
                world.post("ada@example.com", &n.to_string())
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

// === the books ===

#[test]
fn a_mail_keeps_its_attempts() {
    let mut world = world(Options::default());
    world.send("ada+http503x1@example.com", "a");
    world.wait(1.0);
    world.send("ada+http503x1@example.com", "a");
    world.wait(5.0);
    let mails = world.model.mails(world.now, Some(0), 10);
    let [mail] = mails.as_slice() else {
        panic!("one mail: {mails:?}")
    };
    assert_eq!(
        (&mail["sendId"], &mail["result"]),
        (&json!("a"), &json!("SENT"))
    );
    assert_eq!(mail["attempts"][0]["status"], 503);
    assert_eq!(mail["attempts"][1]["status"], 200);
    assert_eq!(mail["attempts"][1]["at"], "2026-11-22T10:00:01Z");
    world.model.reset(world.now);
    assert!(world.model.mails(world.now, Some(0), 10).is_empty());
    assert_eq!(world.send("ada@example.com", "a").0, 200);
    assert_eq!(world.stats()["mails"], 1);
}
