//! The schema says the same as the parser.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ADDRESS, parse, schema};

/// Rules that a schema cannot say: what it accepts may still be refused with these words.
const BEYOND_A_SCHEMA: [&str; 6] = [
    "no email address",
    "message.to is empty",
    "role addresses",
    "the id has",
    "is not after",
    "differ",
];

fn agree(root: &Value, body: &Value) {
    let parsed = parse(&body.to_string());
    match (schema::accepts(root, body), parsed) {
        (true, Ok(_)) | (false, Err(_)) => {}
        (false, Ok(_)) => panic!("only the parser takes {body}"),
        (true, Err(malformed)) => assert!(
            BEYOND_A_SCHEMA
                .iter()
                .any(|rule| malformed.problem.contains(rule)),
            "only the schema takes {body}: {malformed}"
        ),
    }
}

/// Anything that may stand somewhere in a request, rightly or wrongly.
fn any_value() -> impl Strategy<Value = Value> {
    let pool = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(1.5),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(""),
        json!("high"),
        json!("HIGH"),
        json!("eu-1"),
        json!("id-1"),
        json!(ADDRESS),
        json!("Ada <ada@example.com>"),
        json!("noreply@example.com"),
        json!("2026-12-01T08:00:00Z"),
        json!("2026-12-01T08:00:00"),
        json!("x".repeat(101)),
        json!("x".repeat(201)),
        json!([]),
        json!([ADDRESS]),
        json!([1]),
        json!([1, {"to": ADDRESS}, null, null, null]),
        json!({}),
        json!({"a": {"b": [1.5]}}),
        json!({"high": null}),
        json!({"to": ADDRESS}),
    ];
    prop::sample::select(pool.to_vec())
}

/// An object with some of these fields, seldom one of no known name, and each value a likely one
/// in two of three cases.
fn object(fields: Vec<(&'static str, Value)>) -> BoxedStrategy<Value> {
    let unknown = prop::option::weighted(0.1, ("[a-zA-Z]{1,8}", any_value()));
    let known = fields
        .into_iter()
        .map(|(name, likely)| {
            let value = prop_oneof![2 => Just(likely), 1 => any_value()];
            prop::option::weighted(0.7, value).prop_map(move |value| Some((name.into(), value?)))
        })
        .collect::<Vec<_>>();
    (known, unknown)
        .prop_map(|(known, unknown)| {
            Value::Object(known.into_iter().flatten().chain(unknown).collect())
        })
        .boxed()
}

fn any_request() -> impl Strategy<Value = Value> {
    let message = object(vec![
        ("to", json!(ADDRESS)),
        ("from", json!("Ada <ada@example.com>")),
        ("replyTo", json!([ADDRESS])),
        ("cc", json!([])),
        ("bcc", json!(null)),
        ("sendId", json!("id-1")),
    ]);
    let dispatch = object(vec![
        ("account", json!("eu-1")),
        ("priority", json!("low")),
        ("sendAt", json!("2026-12-01T08:00:00Z")),
        ("expiresAt", json!("2026-12-01T09:00:00Z")),
        ("producer", json!("billing")),
        ("environment", json!("qa-2")),
    ]);
    (message, dispatch).prop_flat_map(|(message, dispatch)| {
        object(vec![
            ("emailId", json!(4_126_643_121_i64)),
            ("message", message),
            ("contactProperties", json!({"firstname": "Ada"})),
            ("customProperties", json!({"order": [1, null]})),
            ("dispatch", dispatch),
        ])
    })
}

#[test]
fn the_schema_knows_every_field_of_the_design() {
    let schema = postrider::message::schema();
    let fields = |pointer: &str| {
        let fields = schema.pointer(pointer).unwrap().as_object().unwrap();
        fields.keys().map(String::as_str).collect::<Vec<_>>()
    };
    assert_eq!(
        fields("/properties"),
        [
            "contactProperties",
            "customProperties",
            "dispatch",
            "emailId",
            "message"
        ]
    );
    assert_eq!(
        fields("/$defs/Message/properties"),
        ["bcc", "cc", "from", "replyTo", "sendId", "to"]
    );
    assert_eq!(
        fields("/$defs/Dispatch/properties"),
        [
            "account",
            "environment",
            "expiresAt",
            "priority",
            "producer",
            "sendAt"
        ]
    );
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn the_schema_and_the_parser_agree(body in any_request()) {
        agree(&postrider::message::schema(), &body);
    }
}
