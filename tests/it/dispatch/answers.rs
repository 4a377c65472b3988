//! What HubSpot's own answers come to: read by the very client, over no network.

use futures_util::FutureExt;
use postrider::clock::Clock;
use postrider::config::AccountConfig;
use postrider::message::{AccountName, SendRequest};
use postrider::outcome::{LookUp, Outcome};
use postrider::provider::hubspot::{Answer, Call, Heard, HubSpot, Transport};
use postrider::provider::{Probe, Provider};

use crate::hubspot::config;

/// Gives the same answer to each call.
struct Always(Answer);

impl Transport for Always {
    async fn carry(&self, _: Call) -> Heard {
        Ok(self.0.clone())
    }
}

/// A 429 of the window of ten seconds, as it was captured, and for how many seconds it asks to be
/// left alone, where it does.
pub(super) fn over_limit(retry_after: Option<u64>) -> Answer {
    let headers = retry_after.map(|seconds| ("retry-after", seconds.to_string()));
    let body = br#"{"status":"error","message":"You have reached your ten_secondly_rolling limit.","errorType":"RATE_LIMIT","correlationId":"c-1","policyName":"TEN_SECONDLY_ROLLING","groupName":"publicapi:private_app-api-calls-ten-secondly:1:2"}"#;
    Answer::new(429, headers.as_slice(), body)
}

/// The documented 429 of a day that is used up.
pub(super) fn over_the_day() -> Answer {
    let body = br#"{"status":"error","message":"You have reached your daily limit.","errorType":"RATE_LIMIT","correlationId":"c-1","policyName":"DAILY","requestId":"r-1"}"#;
    Answer::new(429, &[], body)
}

pub(super) fn to_a_send(answer: Answer) -> Outcome {
    let body = br#"{"emailId":1,"message":{"to":"ada@example.com"}}"#;
    let request = SendRequest::parse(body, Some("order-1")).unwrap();
    let hubspot = over(answer, &config("https://hubspot.test"));
    let outcome = hubspot.send(&request, "order-1").now_or_never();
    outcome.unwrap()
}

pub(super) fn to_a_look_up(answer: Answer) -> LookUp {
    let hubspot = over(answer, &config("https://hubspot.test"));
    hubspot.look_up("status-1").now_or_never().unwrap()
}

/// Of an account whose portal is pinned.
pub(super) fn to_a_probe(answer: Answer) -> Probe {
    let pinned = AccountConfig {
        portal_id: Some(1234),
        ..config("https://hubspot.test")
    };
    over(answer, &pinned).probe().now_or_never().unwrap()
}

fn over(answer: Answer, config: &AccountConfig) -> HubSpot<Always> {
    let (name, clock) = (AccountName::default(), Clock::system());
    HubSpot::over(Always(answer), &name, config, clock).unwrap()
}
