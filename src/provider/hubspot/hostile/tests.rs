use proptest::prelude::*;

use super::{answer, request};
use crate::message::{BODY_BYTES_MAX, SendRequest};

/// Stands in every value of a request that is spoilt.
const SECRET: &str = "zq-hidden-qz";

/// JSON of any shape, as text: numbers no type holds, escapes, white space.
fn any_json() -> impl Strategy<Value = String> {
    let plain = prop_oneof![
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        "\"[ -!#-\\[\\]-~äß€😀]{0,12}\"",
        "\"\\\\u[0-9a-f]{4}\\\\n\"",
        Just("null".to_owned()),
        Just("true".to_owned()),
    ];
    plain.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|v| format!("[{}]", v.join(" ,"))),
            any_object(inner),
        ]
    })
}

fn any_object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec(("[a-zA-Z_ ]{0,8}", value), 0..5).prop_map(|fields| {
        let fields = fields
            .iter()
            .map(|(name, value)| format!("\"{name}\" : {value}"));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    })
}

/// A request that is valid, in the words of any writer.
fn valid() -> impl Strategy<Value = String> {
    let list = prop_oneof![
        Just("[]"),
        Just("null"),
        Just(r#"["r@example.com", "Ada <b@example.com>"]"#),
    ];
    (1_i64.., any_object(any_json()), any_object(any_json()), list, "[ \t\r\n]{0,3}").prop_map(
        |(id, contact, custom, list, gap)| {
            format!(
                r#"{gap}{{"customProperties":{custom},{gap}"email\u0049d":{gap}{id},"message":{{"cc":{list},
                "to":"ada\u0040example.com","sendId":"id-1"}},"contactProperties":{gap}{contact}}}{gap}"#
            )
        },
    )
}

/// What stands where something else should.
fn spoilt_value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(format!("\"{SECRET}\"")),
        Just(format!("\"{SECRET}@example.com\"")),
        Just(format!("[\"{SECRET}\"]")),
        Just(format!("{{\"{SECRET}@x.example\": 1}}")),
        Just(format!("\"a`{SECRET}`, expected\\\"{SECRET}\\u0000\"")),
        Just("491701234567".to_owned()),
        Just("4917012345.67".to_owned()),
        any_json(),
    ]
}

const FIELDS: [&str; 12] = [
    "to",
    "from",
    "replyTo",
    "cc",
    "bcc",
    "sendId",
    "message",
    "emailId",
    "contactProperties",
    "customProperties",
    "dispatch",
    "nothing",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_valid_request_goes_out_as_it_came(body in valid()) {
        prop_assert!(SendRequest::parse(body.as_bytes(), None).is_ok(), "{body}");
        request(body.as_bytes(), None);
    }

    #[test]
    fn what_is_wrong_with_a_request_is_told_without_its_values(
        field in prop::sample::select(&FIELDS[..]),
        value in spoilt_value(),
    ) {
        let top = ["message", "emailId", "contactProperties", "customProperties", "dispatch"];
        let body = if top.contains(&field) {
            let rest = if field == "message" { "" } else { r#", "message": {"to": "a@b.example"}"# };
            let id = if field == "emailId" { "" } else { r#", "emailId": 7"# };
            format!(r#"{{"{field}": {value}{rest}{id}}}"#)
        } else {
            let to = if field == "to" { "" } else { r#", "to": "a@b.example""# };
            format!(r#"{{"emailId": 7, "message": {{"{field}": {value}{to}}}}}"#)
        };
        request(body.as_bytes(), Some("id-1"));
        if let Err(malformed) = SendRequest::parse(body.as_bytes(), Some("id-1")) {
            let told = format!("{malformed} {:?}", malformed.hint);
            prop_assert!(!told.contains(SECRET), "{body}: {told}");
            prop_assert!(!told.contains("49170"), "{body}: {told}");
        }
    }

    #[test]
    fn a_request_that_is_cut_or_changed_anywhere_is_read_soundly(
        body in valid(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut body = body.into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        if cut {
            body.truncate(at);
        }
        request(&body, Some("id-1"));
    }

    #[test]
    fn any_answer_is_one_verdict(
        status in any::<u16>(),
        retry_after in "[0-9]{0,25}|[A-Z][a-z]{2}, [0-9]{2} Oct 2[0-9]{3} 07:28:00 GMT|\\PC{0,20}",
        body in prop_oneof![any_json().prop_map(String::into_bytes), any::<Vec<u8>>()],
    ) {
        answer(status, retry_after.as_bytes(), &body, &body);
        answer(status % 400 + 200, retry_after.as_bytes(), b"c", &body);
    }

    #[test]
    fn an_answer_with_any_field_of_hubspots_is_one_verdict(
        status in prop::sample::select(&[200_u16, 207, 400, 401, 403, 404, 423, 429, 477, 500, 503][..]),
        field in prop::sample::select(&[
            "status", "statusId", "sendResult", "message", "category", "policyName", "errors",
            "context", "correlationId", "scopes", "portalId",
        ][..]),
        value in any_json(),
        long in 0_usize..3000,
    ) {
        let body = format!(r#"{{"{field}": {value}, "x": "{}"}}"#, "ä".repeat(long));
        answer(status, b"3", b"", body.as_bytes());
        let scopes = format!(
            r#"{{"{field}": "{0}", "context": {{"requiredScopes": ["{0}", {value}]}}}}"#,
            "s".repeat(long)
        );
        answer(status, b"", b"", scopes.as_bytes());
    }
}

#[test]
fn nothing_is_too_deep() {
    for depth in [100, 127, 128, 10_000, 100_000] {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let body = format!(
            r#"{{"emailId":7,"message":{{"to":"a@b.example"}},"customProperties":{{"a":{nested}}}}}"#
        );
        request(body.as_bytes(), Some("id-1"));
        request(
            format!(r#"{{"emailId":7,"message":{nested}}}"#).as_bytes(),
            Some("id-1"),
        );
        request(nested.as_bytes(), Some("id-1"));
        answer(200, b"", b"", nested.as_bytes());
        answer(
            200,
            b"",
            b"",
            format!(r#"{{"statusId":"s","x":{nested}}}"#).as_bytes(),
        );
    }
}

#[test]
fn a_body_at_the_limit_is_read_and_one_above_it_is_not() {
    let text = r#"{"emailId":7,"message":{"to":"a@b.example"},"customProperties":{"a":""}}"#;
    let (head, tail) = text.split_at(text.len() - 3);
    for above in [0, 1] {
        let filling = "x".repeat(BODY_BYTES_MAX - text.len() + above);
        let body = format!("{head}{filling}{tail}");
        request(body.as_bytes(), Some("id-1"));
        let read = SendRequest::parse(body.as_bytes(), Some("id-1"));
        assert_eq!(read.is_ok(), above == 0);
    }
}
