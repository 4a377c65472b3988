//! The table, row by row; then the bodies that HubSpot was seen to give; then anything at all.

use proptest::prelude::*;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::*;

fn now() -> Timestamp {
    "2026-11-22T08:00:00Z".parse().unwrap()
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the other variant stands beside it"
)]
fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Heard {
    let headers = headers
        .iter()
        .map(|(name, value)| {
            let value = HeaderValue::from_str(value).unwrap();
            (HeaderName::from_static(name), value)
        })
        .collect();
    Ok(Answer::with_headers(status, headers, body.to_owned()))
}

fn sent(status: u16, body: &str) -> Outcome {
    send(&answer(status, &[], body), now())
}

fn failed(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::NotSent(failure) | Outcome::Unknown(failure) => failure,
        Outcome::Accepted(_) => panic!("it was accepted"),
    }
}

/// `not sent` or `unknown`, the class, the scope and the pause, and the wait in seconds.
fn told(outcome: &Outcome) -> String {
    let (mailed, failure) = match outcome {
        Outcome::Accepted(accepted) => return format!("accepted {:?}", accepted.status_id),
        Outcome::NotSent(failure) => ("not sent", failure),
        Outcome::Unknown(failure) => ("unknown", failure),
    };
    let pause = failure.pause.map(|pause| format!("/{pause:?}"));
    let wait = failure
        .retry_after
        .map(|wait| format!(", {} s", wait.as_secs()));
    format!(
        "{mailed}, {:?}/{:?}{}{}",
        failure.class,
        failure.scope,
        pause.unwrap_or_default(),
        wait.unwrap_or_default()
    )
}

#[test]
fn every_status_has_its_verdict_whatever_the_body() {
    let refused = "not sent, Permanent/Message";
    let down = "not sent, Transient/Provider";
    let unknown = "unknown, Transient/Provider";
    let elsewhere = "not sent, Halted/Account/Outage";
    let rows = [
        (200, unknown),
        (202, unknown),
        (204, unknown),
        (207, unknown),
        (301, elsewhere),
        (302, elsewhere),
        (308, elsewhere),
        (400, refused),
        (401, "not sent, Halted/Account/Unauthorized"),
        (402, "not sent, Halted/Account/Portal"),
        (403, "not sent, Halted/Account/Forbidden"),
        (404, refused),
        (405, elsewhere),
        (407, elsewhere),
        (408, unknown),
        (409, refused),
        (410, refused),
        (413, refused),
        (414, refused),
        (415, refused),
        (418, refused),
        (421, elsewhere),
        (422, refused),
        (423, "not sent, Transient/Message, 2 s"),
        (425, down),
        (429, "not sent, Throttled/Account/Throttled, 10 s"),
        (451, refused),
        (477, "not sent, Halted/Account/Migrating"),
        (499, refused),
        (500, unknown),
        (501, unknown),
        (502, unknown),
        (503, down),
        (504, unknown),
        (520, unknown),
        (521, down),
        (522, unknown),
        (523, down),
        (524, unknown),
        (525, down),
        (526, down),
        (530, unknown),
        (599, unknown),
        (600, unknown),
        (999, unknown),
    ];
    for (status, expected) in rows {
        for body in [
            "",
            "Invalid request",
            "<html>",
            "{}",
            "[]",
            "null",
            "{\"status\":1}",
        ] {
            let outcome = sent(status, body);
            assert_eq!(told(&outcome), expected, "{status} {body:?}");
            let failure = failed(outcome);
            assert_eq!(failure.words.status, Some(status));
            assert!(!failure.hint.is_empty(), "{status}");
        }
    }
}

#[test]
fn silence_is_unknown_unless_no_connection_stood() {
    let refused = send(&Err(Silence::NotReached("refused".into())), now());
    assert_eq!(told(&refused), "not sent, Transient/Provider");
    let (why, hint) = ("not trusted".into(), "trust it".into());
    let barred = send(&Err(Silence::Barred { why, hint }), now());
    assert_eq!(told(&barred), "not sent, Halted/Account/Outage");
    let timed_out = send(&Err(Silence::NotAnswered("time-out".into())), now());
    assert_eq!(told(&timed_out), "unknown, Transient/Provider");
    let words = failed(timed_out).words;
    assert_eq!(words.status, None);
    assert_eq!(words.message.as_deref(), Some("no answer: time-out"));
}

#[test]
fn acceptance_is_a_status_id_in_a_success() {
    // The first answer that was captured in the wild (2023).
    let body = r#"{"requestedAt":"2023-01-31T20:34:26.575Z",
        "statusId":"Hv-ltMeaTXqm_kmxDE0w8AAAAYYJiboWAWm-0Q==","status":"PENDING"}"#;
    let id = "accepted Some(\"Hv-ltMeaTXqm_kmxDE0w8AAAAYYJiboWAWm-0Q==\")";
    for status in [200, 201, 202] {
        assert_eq!(told(&sent(status, body)), id);
    }
    let early = sent(
        200,
        r#"{"status":"COMPLETE","statusId":"a","sendResult":"SENT"}"#,
    );
    assert_eq!(early.words().send_result.as_deref(), Some("SENT"));
    assert_eq!(told(&early), "accepted Some(\"a\")");
}

#[test]
fn a_success_without_a_status_id_is_unknown() {
    let long = format!(r#"{{"statusId":"{}"}}"#, "x".repeat(513));
    for body in [
        // The v1 answer: no status id.
        r#"{"sendResult":"SENT","id":"62a4","eventId":{"id":"62a4","created":1513626117453}}"#,
        r#"{"statusId":"","status":"PENDING"}"#,
        r#"{"statusId":7,"status":"PENDING"}"#,
        r#"{"statusId":"Hv-ltMeaTXqm_kmxDE0w8AAAAYY"#,
        long.as_str(),
    ] {
        assert_eq!(told(&sent(200, body)), "unknown, Transient/Provider");
    }
}

#[test]
fn the_errors_that_were_seen_keep_their_words() {
    let expired = failed(sent(
        401,
        r#"{"status":"error","message":"The OAuth token used to make this call expired 75 second(s) ago.",
        "correlationId":"c1","category":"EXPIRED_AUTHENTICATION","context":{"expire time":["2026-11-22T07:58:45Z"]}}"#,
    ));
    assert_eq!(expired.pause, Some(PauseReason::Unauthorized));
    assert!(expired.hint.contains("expired"));
    assert_eq!(expired.words.correlation_id.as_deref(), Some("c1"));
    assert_eq!(
        expired.words.category.as_deref(),
        Some("EXPIRED_AUTHENTICATION")
    );

    let scopes = failed(sent(
        403,
        r#"{"status":"error","message":"This app hasn't been granted all required scopes to make this call.",
        "category":"MISSING_SCOPES","errors":[{"message":"Any of the following",
        "context":{"requiredGranularScopes":["transactional-email"],"requiredScopes":["marketing-email","transactional-email"]}}]}"#,
    ));
    assert!(
        scopes
            .hint
            .contains("asks for marketing-email, transactional-email)"),
        "{}",
        scopes.hint
    );

    let banned = failed(sent(
        403,
        r#"{"category":"BANNED","subCategory":"SandboxErrors.DEVELOPMENT_SANDBOX_ACCESS_NOT_ALLOWED"}"#,
    ));
    assert!(banned.hint.contains("bars"));
    assert!(banned.words.sub_category.unwrap().ends_with("NOT_ALLOWED"));

    let plain = failed(sent(400, "Invalid request"));
    assert_eq!(plain.words.message.as_deref(), Some("Invalid request"));
}

#[test]
fn the_kinds_of_429_are_told_apart() {
    let daily = "not sent, Halted/Account/Daily";
    let ten = "not sent, Throttled/Account/Throttled, 10 s";
    let one = "not sent, Throttled/Account/Throttled, 1 s";
    for (body, expected) in [
        (
            r#"{"status":"error","message":"You have reached your daily limit.","errorType":"RATE_LIMIT","correlationId":"c","policyName":"DAILY","requestId":"r"}"#,
            daily,
        ),
        (
            r#"{"message":"You have reached your ten_secondly_rolling limit.","errorType":"RATE_LIMIT","policyName":"TEN_SECONDLY_ROLLING","groupName":"publicapi:hapikey-api-calls-ten-secondly:6748263"}"#,
            ten,
        ),
        (
            r#"{"groupName":"publicapi:private_app-api-calls-ten-secondly:1:2"}"#,
            ten,
        ),
        (
            r#"{"message":"You have reached your secondly limit."}"#,
            one,
        ),
        (r#"{"policyName":"SECONDLY"}"#, one),
        (r#"{"policyName":"A_POLICY_OF_2027"}"#, ten),
        (
            r#"{"category":"RATE_LIMITS","message":"You have reached your daily limit."}"#,
            daily,
        ),
        (r#"{"policyName":5,"message":["daily"]}"#, ten),
        ("", ten),
    ] {
        assert_eq!(told(&sent(429, body)), expected, "{body}");
    }
    let words = failed(sent(
        429,
        r#"{"errorType":"RATE_LIMIT","policyName":"DAILY"}"#,
    ))
    .words;
    assert_eq!(words.category.as_deref(), Some("RATE_LIMIT"));
    assert_eq!(words.policy_name.as_deref(), Some("DAILY"));
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let wait = |status, told| {
        let heard = answer(status, &[("retry-after", told)], "");
        failure(&heard, now())
            .retry_after
            .map(|wait| wait.as_secs())
    };
    assert_eq!(wait(477, "86400"), Some(86400));
    assert_eq!(wait(477, "Sun, 22 Nov 2026 09:00:00 GMT"), Some(3600));
    assert_eq!(wait(477, "Sun, 22 Nov 2026 07:00:00 GMT"), Some(0));
    assert_eq!(wait(477, "soon"), None);
    assert_eq!(wait(477, "-5"), None);
    assert_eq!(wait(429, "3"), Some(3), "HubSpot knows better than we do");
    assert_eq!(wait(429, "soon"), Some(10));
    assert_eq!(wait(423, "1"), Some(2), "a lock is waited for in any case");
    assert_eq!(wait(423, "60"), Some(60));
    assert_eq!(wait(503, "7"), Some(7));
    assert_eq!(wait(502, "99999999999999999999999"), None);
}

#[test]
fn a_look_up_is_final_only_when_hubspot_says_so() {
    let look_up = |status, body| look_up(&answer(status, &[], body), now());
    assert_eq!(
        look_up(200, r#"{"status":"PENDING","statusId":"a"}"#),
        LookUp::Pending
    );
    assert!(matches!(
        look_up(200, r#"{"status":"COMPLETE","sendResult":"SENT"}"#),
        LookUp::Sent(words) if words.send_result.as_deref() == Some("SENT")
    ));
    assert!(matches!(
        look_up(200, r#"{"sendResult":"IDEMPOTENT_FAIL"}"#),
        LookUp::Unclear(_)
    ));
    let LookUp::NotSent(refused) = look_up(
        200,
        r#"{"status":"COMPLETE","sendResult":"MISSING_CONTENT","message":"no such email"}"#,
    ) else {
        panic!("it was not sent");
    };
    assert_eq!(refused.words.message.as_deref(), Some("no such email"));

    for (status, body, class, scope) in [
        (404, "", FailureClass::Transient, Scope::Message),
        (200, "<html>", FailureClass::Transient, Scope::Provider),
        (200, "{}", FailureClass::Transient, Scope::Provider),
        (401, "", FailureClass::Halted, Scope::Account),
        (429, "", FailureClass::Throttled, Scope::Account),
        (502, "", FailureClass::Transient, Scope::Provider),
    ] {
        let LookUp::Failed(failure) = look_up(status, body) else {
            panic!("{status} tells nothing");
        };
        assert_eq!((failure.class, failure.scope), (class, scope), "{status}");
    }
}

#[test]
fn words_are_cut_and_the_header_names_the_call() {
    let heard = answer(
        400,
        &[("x-hubspot-correlation-id", "of-the-header")],
        &format!(
            r#"{{"message":"{}","correlationId":"of-the-body","category":7}}"#,
            "ä".repeat(9000)
        ),
    );
    let words = failure(&heard, now()).words;
    assert_eq!(words.message.unwrap().chars().count(), 501);
    assert_eq!(words.correlation_id.as_deref(), Some("of-the-header"));
    assert_eq!(words.category.as_deref(), Some("7"));

    let page = "<!doctype html><html><head><title> 502 Bad Gateway </title></head>";
    let words = failed(sent(502, page)).words;
    assert_eq!(words.message.as_deref(), Some("502 Bad Gateway"));
}

proptest! {
    #[test]
    fn nothing_that_comes_back_is_too_strange(
        status in any::<u16>(),
        body in "\\PC*|[{\\[\"a-zA-Z:0-9,\\]} ]{0,60}",
        after in "[ -~]{0,30}",
    ) {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from_str(&after).unwrap());
        let heard = Ok(Answer::with_headers(status, headers, body));
        let outcome = send(&heard, now());
        prop_assert!(!matches!(look_up(&heard, now()), LookUp::Sent(_)));
        if let Outcome::NotSent(failure) | Outcome::Unknown(failure) = outcome {
            prop_assert!(!failure.hint.is_empty());
            prop_assert_eq!(failure.pause.is_some(), matches!(
                failure.class, FailureClass::Halted | FailureClass::Throttled
            ));
        } else {
            prop_assert!((200..300).contains(&status));
        }
    }
}
