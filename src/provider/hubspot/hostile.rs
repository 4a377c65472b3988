//! What must hold of any request and of any answer. Asked by the tests and by the fuzzer.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "it is part of the tests alone"
)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::classify::{self, Heard};
use super::probe::probe;
use super::wire::{Answer, send_body};
use crate::config::Api;
use crate::message::{BODY_BYTES_MAX, Malformed, SendRequest};
use crate::outcome::{Failure, FailureClass, LookUp, Outcome, Words};
use crate::provider::{Pinned, Probe};

/// What a problem, or a hint, may have at most: it stands in a log line and in a header.
const TOLD_BYTES_MAX: usize = 1500;
/// HubSpot's words are cut to 500, and a mark shows it.
const WORD_CHARS_MAX: usize = 501;

type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// It goes out as it came, or what is wrong with it is told without a word of it.
pub fn request(body: &[u8], message_id: Option<&str>) {
    let read = || SendRequest::parse(body, message_id);
    match (read(), read()) {
        (Ok(request), Ok(again)) => {
            assert!(body.len() <= BODY_BYTES_MAX);
            let went = send_body(&request, request.id.as_str()).unwrap();
            assert_eq!(went, send_body(&again, again.id.as_str()).unwrap());
            goes_out_as_it_came(&request, body, &went);
        }
        (Err(malformed), Err(again)) => {
            assert_eq!(malformed, again);
            is_told_safely(&malformed);
        }
        (_, again) => panic!("once so and once {again:?}"),
    }
}

fn goes_out_as_it_came(request: &SendRequest, body: &[u8], went: &[u8]) {
    let came: Fields<'_> = serde_json::from_slice(body).unwrap();
    let went: Fields<'_> = serde_json::from_slice(went).unwrap();
    let names: Vec<_> = went.keys().map(String::as_str).collect();
    let all = [
        "contactProperties",
        "customProperties",
        "emailId",
        "message",
    ];
    assert_eq!(names, all);
    assert_eq!(went["emailId"].get(), came["emailId"].get());
    for name in ["contactProperties", "customProperties"] {
        let came = came.get(name).map_or("null", |raw| raw.get());
        let expected = if came == "null" { "{}" } else { came };
        assert_eq!(went[name].get(), expected, "to the byte");
    }
    let came: BTreeMap<String, Value> = serde_json::from_str(came["message"].get()).unwrap();
    let went: BTreeMap<String, Value> = serde_json::from_str(went["message"].get()).unwrap();
    for (name, value) in went {
        let came = came.get(&name).filter(|value| !value.is_null());
        let expected = match (came, &*name) {
            (Some(came), _) => came.clone(),
            (None, "sendId") => request.id.as_str().into(),
            (None, _) => json!([]),
        };
        assert_eq!(value, expected, "{name}");
    }
}

fn is_told_safely(malformed: &Malformed) {
    let Malformed { problem, hint, .. } = malformed;
    assert!(problem.len() <= TOLD_BYTES_MAX, "{problem}");
    assert!(!problem.contains(char::is_control), "{problem}");
    // The sign itself is told of, and the beginning of a role's address: `abuse@`.
    let rest = problem.replace("@`", "").replace("'@'", "");
    assert!(!rest.contains('@'), "{problem}");
    let hint = hint.as_deref().unwrap_or_default();
    assert!(hint.len() <= TOLD_BYTES_MAX, "{hint}");
}

/// It is exactly one verdict, in words that are bounded, and never *not sent* of what HubSpot may
/// have mailed.
pub fn answer(status: u16, retry_after: &[u8], correlation_id: &[u8], body: &[u8]) {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("retry-after", retry_after),
        ("x-hubspot-correlation-id", correlation_id),
    ] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    let body = String::from_utf8_lossy(body).into_owned();
    let heard: Heard = Ok(Answer::with_headers(status, headers, body));
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let outcome = classify::send(&heard, now);
    assert_eq!(outcome, classify::send(&heard, now));
    // A redirect and a refusal come before any work; of the others these say that nothing was done.
    let nothing_done = matches!(status, 300..=407 | 409..=499 | 503 | 521 | 523 | 525 | 526);
    match &outcome {
        Outcome::Accepted(accepted) => {
            assert!((200..300).contains(&status));
            let id = accepted.status_id.as_ref().unwrap();
            assert!((1..=512).contains(&id.len()));
            are_bounded(&accepted.words);
        }
        Outcome::NotSent(failure) => {
            assert!(nothing_done, "{status} may have mailed");
            is_sound(failure);
        }
        Outcome::Unknown(failure) => {
            assert!(!nothing_done, "{status} has not mailed");
            is_sound(failure);
        }
    }
    match classify::look_up(&heard, now) {
        LookUp::Pending => assert!((200..300).contains(&status)),
        LookUp::Sent(words) | LookUp::Unclear(words) => {
            assert!((200..300).contains(&status));
            assert!(words.send_result.is_some());
            are_bounded(&words);
        }
        LookUp::NotSent(failure) | LookUp::UnheardOf(failure) => {
            assert!((200..300).contains(&status));
            are_bounded(&failure.words);
        }
        LookUp::Failed(failure) => is_sound(&failure),
    }
    let pinned = Pinned::default();
    match probe((Api::Marketing, &pinned), &heard, &heard, now) {
        Probe::Open(_) => assert!((200..300).contains(&status)),
        Probe::Wrong(..) | Probe::Kept => {
            panic!("nothing is pinned, and one token was asked about")
        }
        Probe::Shut(failure) | Probe::Inconclusive(failure) => is_sound(&failure),
    }
}

fn is_sound(failure: &Failure) {
    let pauses = matches!(
        failure.class,
        FailureClass::Halted | FailureClass::Throttled
    );
    assert_eq!(failure.pause.is_some(), pauses, "{failure:?}");
    assert!((1..=TOLD_BYTES_MAX).contains(&failure.hint.len()));
    are_bounded(&failure.words);
}

fn are_bounded(words: &Words) {
    for word in [
        &words.category,
        &words.sub_category,
        &words.message,
        &words.correlation_id,
        &words.policy_name,
        &words.send_result,
    ] {
        let chars = word.as_ref().map_or(0, |word| word.chars().count());
        assert!(chars <= WORD_CHARS_MAX, "{chars} characters");
    }
}

#[cfg(test)]
mod tests;
