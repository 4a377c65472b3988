//! What goes out to HubSpot under the rules of an environment: whatever the request, nothing of its
//! recipients where a sink gets it.

use std::sync::{Arc, Mutex};

use postrider::clock::Clock;
use postrider::config::{Config, Sources};
use postrider::delivery::{Mode, Rules, Verdict};
use postrider::message::{AccountName, Environment, Recipient, SendRequest};
use postrider::provider::Provider;
use postrider::provider::hubspot::{Answer, Call, Heard, HubSpot, Transport};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Stands in every recipient's address, and nowhere else.
const MARKER: &str = "zq-recipient";

/// Keeps the body of the call.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<String>>);

impl Transport for Kept {
    async fn carry(&self, call: Call) -> Heard {
        *self.0.lock().unwrap() = String::from_utf8(call.body().to_vec()).unwrap();
        Ok(Answer::new(200, &[], b"{}"))
    }
}

/// The body that goes out.
fn sent(request: &SendRequest, api_version: &str) -> String {
    let env = [("TOKEN", "pat-na1-test"), ("API_VERSION", api_version)];
    let env = env.map(|(key, value)| {
        let name = format!("POSTRIDER_ACCOUNTS__DEFAULT__{key}");
        (name, value.to_owned())
    });
    let config = Config::load(&Sources {
        env: env.to_vec(),
        ..Sources::default()
    });
    let name = AccountName::default();
    let account = &config.unwrap().accounts[&name];
    let kept = Kept::default();
    let clock = Clock::system();
    let hubspot = HubSpot::over(kept.clone(), &name, account, clock).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(hubspot.send(request, "id-1"));
    kept.0.lock().unwrap().clone()
}

fn any_recipient() -> impl Strategy<Value = String> {
    let local = "[a-z]{1,4}(\\.[a-z]{1,4})?";
    let domain = "[a-z]{1,8}\\.(com|org|example)|\\[127\\.0\\.0\\.1\\]";
    (local, domain, 0..3).prop_map(|(local, domain, form)| match form {
        0 => format!("Ada {MARKER} <{MARKER}{local}@{domain}>"),
        1 => format!("\"{MARKER}{local}\"@{domain}"),
        _ => format!("{MARKER}{local}@{domain}"),
    })
}

/// A property of the contact, as it is written: the name of an address in any case and with escapes.
fn any_property() -> impl Strategy<Value = String> {
    let address = prop::sample::select(
        &[
            "email",
            "Email",
            "EMAIL ",
            "hs_additional_emails",
            "HS_additional_emails",
            "\\u0065mail",
        ][..],
    );
    let nested = any_recipient().prop_map(|it| json!([{"value": it}]));
    let value = prop_oneof![any_recipient().prop_map(Value::from), nested];
    prop_oneof![
        (address, value).prop_map(|(name, value)| format!("\"{name}\":{value}")),
        "\"[a-z_]{1,6}\":-?[1-9][0-9]{0,30}(\\.[0-9]{1,9})?",
    ]
}

proptest! {
    #[test]
    fn nothing_of_a_recipient_goes_out_to_a_sink(
        to in any_recipient(),
        cc in prop::collection::vec(any_recipient(), 0..3),
        bcc in prop::option::of(prop::collection::vec(any_recipient(), 0..3)),
        properties in prop::collection::vec(any_property(), 0..5),
        version in prop::sample::select(&["2026-09", "v3"][..]),
    ) {
        let message = json!({"to": to, "cc": cc, "bcc": bcc, "replyTo": ["help@example.com"]});
        let properties = properties.join(",");
        let body = format!(
            "{{\"emailId\":7,\"message\":{message},\"contactProperties\":{{{properties}}}}}"
        );
        let request = SendRequest::parse(body.as_bytes(), Some("id-1")).unwrap();
        let rules = Rules {
            environment: Environment::parse("qa").unwrap(),
            mode: Mode::Sink(Recipient::parse("sink@example.com").unwrap()),
        };
        let Verdict::Instead(other) = rules.decide(&request) else {
            return Err(TestCaseError::fail("it goes to the sink"));
        };
        let body = sent(&other, version);
        prop_assert!(!body.contains(MARKER), "{}", body);
        let sent: Value = serde_json::from_str(&body).unwrap();
        let expected = json!({
            "to": "sink@example.com", "cc": [], "bcc": [], "sendId": "id-1",
            "replyTo": ["help@example.com"],
        });
        prop_assert_eq!(&sent["message"], &expected);
        prop_assert!(sent["contactProperties"].is_object(), "{}", body);
    }
}

#[test]
fn nothing_of_dispatch_goes_out_and_a_number_is_as_it_came() {
    let body = r#"{"emailId":7,"message":{"to":"ada@example.com"},"dispatch":{"environment":"qa"},
                   "contactProperties":{"email":1,"n":123456789012345678901234567890.10}}"#;
    let request = SendRequest::parse(body.as_bytes(), Some("id-1")).unwrap();
    let body = sent(&request, "2026-09");
    assert!(!body.contains("dispatch") && !body.contains("qa"), "{body}");
    let rules = Rules {
        environment: Environment::parse("qa").unwrap(),
        mode: Mode::Sink(Recipient::parse("sink@example.com").unwrap()),
    };
    let Verdict::Instead(other) = rules.decide(&request) else {
        panic!("it goes to the sink");
    };
    let body = sent(&other, "2026-09");
    assert!(
        body.contains(r#""contactProperties":{"n":123456789012345678901234567890.10}"#),
        "{body}"
    );
}
