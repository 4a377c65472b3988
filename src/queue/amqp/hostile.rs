//! What must hold of whatever stands beside a body. Asked by the tests and by the fuzzer.
#![allow(clippy::unwrap_used, reason = "it is part of the tests alone")]

use lapin::BasicProperties;
use lapin::protocol::basic::{gen_properties, parse_properties};
use lapin::types::AMQPValue;

use super::mend::mend;
use super::properties;
use crate::outcome::{DeadReason, Words};
use crate::story::Death;

/// Class, weight and body size, which stand before the flags.
const HEAD_BYTES: usize = 12;
/// A frame of a broker as it comes, less its head and its end.
const FRAME_BYTES_MAX: usize = 128 * 1024 - 8;

/// The payload of a content header: mended, lapin can read it; and what is read of it goes on in a
/// frame that the broker takes.
pub fn content_header(payload: &[u8]) {
    let mut mended = payload.to_vec();
    let whole = mend(&mut mended);
    assert_eq!(mended.len(), payload.len());
    let mut again = mended.clone();
    assert_eq!(mend(&mut again), whole);
    assert_eq!(again, mended, "mended once is mended");
    let Some(on_the_wire) = mended.get(HEAD_BYTES..) else {
        return;
    };
    let read = parse_properties(on_the_wire);
    assert!(read.is_ok() || !whole, "it was walked to its end");
    if let Ok((_, properties)) = read {
        goes_on(&properties);
    }
}

fn goes_on(came: &BasicProperties) {
    let mut story = properties::story(came);
    for _ in 0..4 {
        story.record(crate::story::Attempt {
            at: jiff::Timestamp::MAX,
            took_ms: u64::MAX,
            outcome: "transient".into(),
            words: long_words(),
        });
    }
    story.death = Some(Death {
        key: "k".repeat(200),
        reason: DeadReason::Malformed,
        at: jiff::Timestamp::MAX,
        problem: "\u{1}".repeat(1500),
        hint: "h".repeat(1500),
        email_id: Some(i64::MAX),
        account: Some("a".repeat(40)),
        words: long_words(),
    });
    let goes = properties::again(came, &story);
    let wrote: Vec<u8> = gen_properties(&goes)(Vec::new().into()).unwrap().write;
    let bytes = HEAD_BYTES + wrote.len();
    assert!(bytes <= FRAME_BYTES_MAX, "{bytes} in one frame");
    for (name, value) in goes.headers().as_ref().unwrap() {
        let name = name.as_str();
        assert!(!["x-death", "x-delivery-count", "CC", "BCC"].contains(&name));
        assert!(depth(value) <= 17);
    }
    // What is written can be read, or is an empty story, and never a part of one.
    let (_, read) = parse_properties(wrote.as_slice()).unwrap();
    let kept = properties::story(&read);
    assert_eq!(kept.generation, story.generation);
    assert_eq!(kept.spent, story.spent);
    assert!(kept.death.is_some());
    assert_eq!(properties::message_id(&read), properties::message_id(came));
}

/// The longest that HubSpot can tell: of characters that JSON writes as six.
fn long_words() -> Words {
    let word = || Some("\u{1}".repeat(501));
    Words {
        status: Some(u16::MAX),
        category: word(),
        sub_category: word(),
        message: word(),
        correlation_id: word(),
        policy_name: word(),
        send_result: word(),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "AMQP's plain values")]
fn depth(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::FieldArray(values) => 1 + values.as_slice().iter().map(depth).max().unwrap_or(0),
        AMQPValue::FieldTable(table) => {
            1 + table.into_iter().map(|it| depth(it.1)).max().unwrap_or(0)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
