//! The demo's sample traffic: ordinary mail, and one request for each thing that can go wrong.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::clock::after;
use crate::message::{AccountName, Priority};
use crate::queue::Parcel;
use crate::story::Story;

/// Requests that nothing happens to.
const ORDINARY: usize = 100;
/// The one that is replayed at the end.
pub(super) const REPLAYED: &str = "wrong-template";

/// One request of the demo.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) id: String,
    /// What was provoked; `None` for ordinary mail.
    pub(super) about: Option<&'static str>,
    /// How it must end.
    pub(super) expected: Expected,
    pub(super) parcel: Parcel,
}

/// How a sample must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Mailed once, under its id.
    Sent,
    /// A dead letter of this reason (or, of the replayed one, mailed once under `ID.r2`).
    Dead(&'static str),
    SentByReplay,
}

/// All samples, in the order in which they are published.
pub(super) fn samples(now: Timestamp) -> Vec<Sample> {
    let mut samples: Vec<Sample> = (1..=ORDINARY)
        .map(|n| {
            sample(
                &format!("order-{n:04}"),
                None,
                Expected::Sent,
                "",
                &json!({}),
            )
        })
        .collect();
    samples.extend(healing(now));
    samples.extend(dying(now));
    // A producer that was not sure and published again: the same id, so the same email.
    samples.push(sample(
        "order-0001",
        Some("published twice"),
        Expected::Sent,
        "",
        &json!({}),
    ));
    samples
}

/// What goes wrong and heals.
fn healing(now: Timestamp) -> Vec<Sample> {
    let case = |id, about, tag| sample(id, Some(about), Expected::Sent, tag, &json!({}));
    let later = json!({"sendAt": after(now, Duration::from_secs(6))});
    vec![
        case("hiccup", "HubSpot answers 503 twice", "+http503x2"),
        case(
            "lost-answer",
            "HubSpot mails it and the connection breaks",
            "+cutx1",
        ),
        case(
            "false-alarm",
            "HubSpot mails it and answers 5xx",
            "+5xx-sentx1",
        ),
        sample(
            "urgent",
            Some("priority high, published last"),
            Expected::Sent,
            "",
            &json!({"priority": "high"}),
        ),
        sample(
            "scheduled",
            Some("sendAt in 6 s"),
            Expected::Sent,
            "",
            &later,
        ),
    ]
}

/// What never will be sent.
fn dying(now: Timestamp) -> Vec<Sample> {
    let case =
        |id, about, reason, tag| sample(id, Some(about), Expected::Dead(reason), tag, &json!({}));
    let past = json!({"expiresAt": now});
    let mut role = case("role-address", "sent to a role address", "malformed", "");
    role.parcel = parcel("role-address", "noreply@example.com", &json!({}));
    let mut typo = case("typo", "a field called emialId", "malformed", "");
    let body = String::from_utf8_lossy(&typo.parcel.body).replace("emailId", "emialId");
    typo.parcel.body = Bytes::from(body);
    vec![
        case(
            "bounced-before",
            "the recipient bounced before",
            "refused",
            "+PREVIOUSLY_BOUNCED",
        ),
        case("bad-request", "HubSpot answers 400", "rejected", "+http400"),
        sample(
            "too-late",
            Some("its expiresAt has passed"),
            Expected::Dead("expired"),
            "",
            &past,
        ),
        role,
        typo,
        sample(
            REPLAYED,
            Some("the template was broken; replayed"),
            Expected::SentByReplay,
            "+TEMPLATE_RENDER_EXCEPTIONx1",
            &json!({}),
        ),
    ]
}

fn sample(
    id: &str,
    about: Option<&'static str>,
    expected: Expected,
    tag: &str,
    dispatch: &Value,
) -> Sample {
    Sample {
        id: id.to_owned(),
        about,
        expected,
        parcel: parcel(id, &format!("{id}{tag}@example.com"), dispatch),
    }
}

fn parcel(id: &str, to: &str, dispatch: &Value) -> Parcel {
    let body = json!({
        "emailId": 4_126_643_121_i64,
        "message": {"to": to, "sendId": id},
        "customProperties": {"order": id},
        "dispatch": dispatch,
    });
    Parcel {
        body: Bytes::from(body.to_string()),
        message_id: None,
        account: AccountName::default(),
        priority: Priority::Normal,
        story: Story::default(),
    }
}
