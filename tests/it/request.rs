//! The request: what is taken, what is refused and how that is told.

mod agreement;
mod schema;

use postrider::message::{
    AccountName, BODY_BYTES_MAX, Environment, Malformed, Priority, ROLE_PREFIXES, SendRequest,
    expires_at,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const ADDRESS: &str = "ada@example.com";

fn parse(body: &str) -> Result<SendRequest, Malformed> {
    SendRequest::parse(body.as_bytes(), Some("id-1"))
}

/// The smallest request, with these fields put over it (`null` takes one out).
fn with(change: Value) -> String {
    let mut body = json!({"emailId": 1, "message": {"to": ADDRESS}});
    merge(&mut body, change);
    body.to_string()
}

fn merge(base: &mut Value, change: Value) {
    let (Some(object), Value::Object(changes)) = (base.as_object_mut(), change) else {
        return;
    };
    for (name, value) in changes {
        match object.get_mut(&name) {
            _ if value.is_null() => {
                object.remove(&name);
            }
            Some(inner) if inner.is_object() && value.is_object() => merge(inner, value),
            _ => {
                object.insert(name, value);
            }
        }
    }
}

/// Refused, with these words in the problem and in the hint.
fn refused(body: &str, problem: &str, hint: &str) {
    let malformed = parse(body).expect_err(body);
    assert!(
        malformed.problem.contains(problem),
        "{body}: {}",
        malformed.problem
    );
    let told = malformed.hint.unwrap_or_default();
    assert!(told.contains(hint), "{body}: {told}");
}

#[test]
fn every_field_is_read() {
    let request = parse(
        r#"{"emailId":4126643121,
        "message":{"to":"ada@example.com","from":"Sales <sales@example.com>","replyTo":["a@example.com"],
                   "cc":["b@example.com","Bo <c@example.com>"],"bcc":[],"sendId":"id-1"},
        "contactProperties":{"firstname":"Ada"},"customProperties":{"order":"1042"},
        "dispatch":{"account":"eu-1","priority":"high","sendAt":"2026-12-01T08:00:00Z",
                    "expiresAt":"2026-12-01T10:00:00+01:00","producer":"billing",
                    "environment":"qa"}}"#,
    )
    .unwrap();
    assert_eq!(request.id.as_str(), "id-1");
    assert_eq!(request.email_id, 4_126_643_121);
    assert_eq!(request.to.expose(), ADDRESS);
    assert_eq!(request.from.as_deref(), Some("Sales <sales@example.com>"));
    assert_eq!(request.reply_to, ["a@example.com"]);
    assert_eq!(request.cc, ["b@example.com", "Bo <c@example.com>"]);
    assert!(request.bcc.is_empty());
    assert_eq!(
        request.contact_properties.unwrap().get(),
        r#"{"firstname":"Ada"}"#
    );
    assert_eq!(request.account, AccountName::parse("eu-1").ok());
    assert_eq!(request.priority, Some(Priority::High));
    let hour = request.expires_at.unwrap() - request.send_at.unwrap();
    assert_eq!(hour.total(jiff::Unit::Hour).unwrap().to_string(), "1");
    assert_eq!(request.producer.as_deref(), Some("billing"));
    assert_eq!(request.environment, Environment::parse("qa").ok());
}

#[test]
fn a_look_tells_when_a_body_expires() {
    let at = |text: &str| expires_at(text.as_bytes());
    let noon = "2026-12-01T12:00:00Z".parse().ok();
    let body =
        r#"{"message":{"to":[{}]},"dispatch":{"sendAt":7,"expiresAt":"2026-12-01T12:00:00Z"}}"#;
    assert_eq!(at(body), noon, "whatever else is wrong with it");
    for none in [
        r#"{"dispatch":{"expiresAt":null}}"#,
        r#"{"dispatch":{"expiresAt":"soon"}}"#,
        r#"{"expiresAt":"2026-12-01T12:00:00Z"}"#,
        r#"{"customProperties":{"dispatch":{"expiresAt":"2026-12-01T12:00:00Z"}}}"#,
        r#"["expiresAt"#,
    ] {
        assert_eq!(at(none), None, "{none}");
    }
    assert_eq!(expires_at(&[0xFF]), None);
}

#[test]
fn null_is_absent() {
    let request = parse(
        r#"{"emailId":1,"message":{"to":"ada@example.com","from":null,"cc":null,"sendId":null},
        "contactProperties":null,"customProperties":null,"dispatch":null}"#,
    )
    .unwrap();
    assert!(request.contact_properties.is_none() && request.custom_properties.is_none());
    assert!(request.cc.is_empty() && request.from.is_none() && request.account.is_none());
}

#[test]
fn properties_are_kept_to_the_byte() {
    let odd = "{ \"n\" : 1e400,\"m\":0.10, \"a\":[1 ,{\"b\":null}],\n\"a\":\"\\u00e9\\ud800\" }";
    for name in ["contactProperties", "customProperties"] {
        let request = parse(&format!(
            r#"{{"{name}":  {odd}  ,"emailId":1,"message":{{"to":"ada@example.com"}}}}"#
        ))
        .unwrap();
        let kept = request.contact_properties.or(request.custom_properties);
        assert_eq!(kept.unwrap().get(), odd);
    }
    for value in ["[]", "\"a\"", "7", "true"] {
        refused(
            &format!(
                r#"{{"emailId":1,"message":{{"to":"ada@example.com"}},"customProperties":{value}}}"#
            ),
            "are objects of names and values",
            "postrider schema",
        );
    }
}

#[test]
fn an_unknown_field_is_refused_with_the_nearest_name() {
    for (change, hint) in [
        (json!({"emialId": 1}), "did you mean `emailId`?"),
        (json!({"customproperties": {}}), "`customProperties`"),
        (json!({"message": {"replyto": []}}), "`replyTo`"),
        (json!({"message": {"sendid": "a"}}), "`sendId`"),
        (json!({"dispatch": {"expireAt": "x"}}), "`expiresAt`"),
        (json!({"dispatch": {"Priority": "high"}}), "`priority`"),
        (json!({"zzz": 1}), "postrider schema"),
    ] {
        refused(&with(change), "unknown field", hint);
    }
}

#[test]
fn the_id_is_one_and_the_same() {
    let id = |send_id: Option<&str>, message_id| {
        let body = with(json!({"message": {"sendId": send_id}}));
        SendRequest::parse(body.as_bytes(), message_id)
            .map(|request| request.id.to_string())
            .map_err(|malformed| malformed.problem)
    };
    let taken = |id: &str| Ok(id.to_owned());
    assert_eq!(id(Some("a"), None), taken("a"));
    assert_eq!(id(None, Some("b")), taken("b"));
    assert_eq!(id(Some("a"), Some("a")), taken("a"));
    assert!(id(Some("a"), Some("b")).unwrap_err().contains("differ"));
    assert!(id(None, None).unwrap_err().contains("there is no id"));

    let longest = "x".repeat(200);
    assert_eq!(id(Some(&longest), None), taken(&longest));
    for bad in [
        "",
        "  ",
        "a\nb",
        "a\u{0}",
        &"x".repeat(201),
        &"ä".repeat(101),
    ] {
        assert!(id(Some(bad), None).unwrap_err().contains("the id has"));
        assert!(id(None, Some(bad)).is_err());
    }
}

#[test]
fn a_malformed_body_still_tells_its_id() {
    let told = |body: &str, message_id| {
        let malformed = SendRequest::parse(body.as_bytes(), message_id).unwrap_err();
        malformed.id.map(|id| id.to_string())
    };
    let id = |id: &str| Some(id.to_owned());
    assert_eq!(told(r#"{"message":{"sendId":"a"}}"#, None), id("a"));
    assert_eq!(told(r#"{"message":{"sendId":"a"}}"#, Some("b")), id("a"));
    assert_eq!(told("no JSON", Some("b")), id("b"));
    assert_eq!(told("no JSON", None), None);
}

#[test]
fn size_and_encoding_have_limits() {
    let body = with(json!({"customProperties": {"a": ""}}));
    let filled = |bytes: usize| {
        let filler = "x".repeat(bytes - body.len());
        body.replace(r#""a":"""#, &format!(r#""a":"{filler}""#))
    };
    assert_eq!(filled(BODY_BYTES_MAX).len(), BODY_BYTES_MAX);
    assert!(parse(&filled(BODY_BYTES_MAX)).is_ok());
    refused(&filled(BODY_BYTES_MAX + 1), "at most 262144", "template");

    let malformed = SendRequest::parse(b"{\"emailId\":\xff}", Some("id-1")).unwrap_err();
    assert!(malformed.problem.contains("not UTF-8 (byte 11)"));
    for body in ["", " ", "{", "emailId=1", "\u{feff}{}", "{\"emailId\":1,}"] {
        refused(body, "is not JSON", "one JSON object");
    }
    refused(&body.repeat(2), "is not JSON", "one JSON object");
}

#[test]
fn what_is_no_object_is_no_request() {
    // serde would take the arrays, as fields in their order.
    for body in [
        "[]",
        "null",
        "\"a\"",
        "7",
        r#"[1,{"to":"ada@example.com"},null,null,null]"#,
        r#"{"emailId":1,"message":["ada@example.com",null,null,null,null,null]}"#,
        r#"{"emailId":1,"message":{"to":"ada@example.com"},"dispatch":[]}"#,
    ] {
        refused(body, "expected an object", "postrider schema");
    }
}

#[test]
fn wrong_types_and_missing_fields_are_refused() {
    for change in [
        json!({"message": "ada"}),
        json!({"message": {"to": ["ada@example.com"]}}),
        json!({"message": {"to": 7}}),
        json!({"message": {"from": 7}}),
        json!({"message": {"cc": "b@example.com"}}),
        json!({"message": {"replyTo": [7]}}),
        json!({"message": {"sendId": 7}}),
        json!({"dispatch": "high"}),
        json!({"dispatch": {"account": 7}}),
        json!({"dispatch": {"priority": 1}}),
        json!({"dispatch": {"priority": {"high": null}}}),
        json!({"dispatch": {"producer": ["a"]}}),
    ] {
        refused(&with(change), "invalid type", "postrider schema");
    }
    for id in [json!("1"), json!([1]), json!(1.5)] {
        let body = with(json!({"emailId": id}));
        refused(&body, "invalid type", "a whole number without quotes");
    }
    refused(&with(json!({"emailId": null})), "missing field", "schema");
    refused(&with(json!({"message": null})), "missing field", "schema");
    refused(r#"{"emailId":1,"message":{}}"#, "missing field", "schema");
}

#[test]
fn a_field_given_twice_is_refused() {
    for body in [
        r#"{"emailId":1,"emailId":1,"message":{"to":"ada@example.com"}}"#,
        r#"{"emailId":1,"message":{"to":"ada@example.com","to":"b@example.com"}}"#,
        r#"{"emailId":1,"message":{"to":"ada@example.com"},"dispatch":{"account":"a","account":"b"}}"#,
    ] {
        refused(body, "duplicate field", "postrider schema");
    }
}

#[test]
fn an_email_id_is_an_exact_int64() {
    let id = |id: &str| {
        let body = format!(r#"{{"emailId":{id},"message":{{"to":"ada@example.com"}}}}"#);
        parse(&body).map(|request| request.email_id)
    };
    for exact in ["1", "9007199254740993", "9223372036854775807"] {
        assert_eq!(id(exact).unwrap().to_string(), exact);
    }
    for bad in [
        "0",
        "-1",
        "9223372036854775808",
        "99999999999999999999999",
        "1.0",
        "1e3",
        "null",
        "true",
    ] {
        assert!(id(bad).is_err(), "{bad}");
    }
}

#[test]
fn addresses_are_checked() {
    for (change, problem) in [
        (json!({"message": {"to": ""}}), "message.to is empty"),
        (json!({"message": {"to": "  "}}), "message.to is empty"),
        (json!({"message": {"to": "ada"}}), "message.to is no email"),
        (
            json!({"message": {"to": "a@b.c, d@e.f"}}),
            "message.to is no email",
        ),
        (json!({"message": {"from": "Ada"}}), "message.from holds"),
        (
            json!({"message": {"replyTo": [""]}}),
            "message.replyTo holds",
        ),
        (
            json!({"message": {"cc": [ADDRESS, "x"]}}),
            "message.cc holds",
        ),
        (json!({"message": {"bcc": ["@"]}}), "message.bcc holds"),
    ] {
        refused(&with(change), problem, "");
    }
    for taken in [
        "ada+tag@example.co.uk",
        "ö@exämple.com",
        "Ada <ada@example.com>",
    ] {
        assert!(
            parse(&with(json!({"message": {"to": taken}}))).is_ok(),
            "{taken}"
        );
    }
}

#[test]
fn role_addresses_are_refused_before_hubspot_does() {
    for role in ROLE_PREFIXES {
        for to in [
            format!("{role}@example.com"),
            format!("{}@example.com", role.to_uppercase()),
            format!("The team <{role}@example.com>"),
        ] {
            refused(
                &with(json!({"message": {"to": to}})),
                "HubSpot refuses role addresses",
                "a person's address",
            );
        }
        let longer = format!("{role}x@example.com");
        assert!(parse(&with(json!({"message": {"to": longer}}))).is_ok());
    }
}

#[test]
fn dispatch_has_rules_of_its_own() {
    let noon = "2026-12-01T12:00:00Z";
    for (dispatch, problem, hint) in [
        (
            json!({"priority": "hihg"}),
            "`hihg` is no priority",
            "`high`?",
        ),
        (
            json!({"priority": "0"}),
            "is no priority",
            "high, normal, low",
        ),
        (
            json!({"account": "EU"}),
            "`EU` is no account name",
            "lower-case",
        ),
        (json!({"account": "_a"}), "is no account name", "lower-case"),
        (
            json!({"account": "a".repeat(41)}),
            "is no account name",
            "40",
        ),
        (
            json!({"producer": "ä".repeat(101)}),
            "producer is longer",
            "short",
        ),
        (
            json!({"environment": "QA"}),
            "`QA` is no name of an environment",
            "lower-case",
        ),
        (
            json!({"environment": "q".repeat(31)}),
            "is no name of an environment",
            "30",
        ),
        (
            json!({"sendAt": noon, "expiresAt": noon}),
            "not after",
            "between",
        ),
        (
            json!({"sendAt": "2026-12-01T12:00:00"}),
            "sendAt or dispatch.expiresAt is no time at line 1",
            "with an offset",
        ),
        (json!({"sendAt": 1_764_576_000}), "is no time", "in quotes"),
        (json!({"sendAt": "tomorrow"}), "is no time", "RFC 3339"),
        (json!({"expiresAt": ""}), "is no time", "RFC 3339"),
    ] {
        refused(&with(json!({"dispatch": dispatch})), problem, hint);
    }
    for dispatch in [
        json!({}),
        json!({"account": "a".repeat(40)}),
        json!({"producer": "ä".repeat(100)}),
        json!({"environment": "q".repeat(30)}),
        json!({"expiresAt": "1999-01-01T00:00:00Z"}),
        json!({"sendAt": noon, "expiresAt": "2026-12-01T12:00:00.001Z"}),
        json!({"sendAt": "2026-12-01T12:00:00.123456789+05:30"}),
    ] {
        assert!(
            parse(&with(json!({"dispatch": dispatch}))).is_ok(),
            "{dispatch}"
        );
    }
}

#[test]
fn no_address_is_told_and_no_text_is_long() {
    let long = "x".repeat(10_000);
    for text in [
        "eve@secret.example",
        "a`eve@secret.example",
        "\"eve@secret.example\"",
        &*long,
    ] {
        for change in [
            json!({text: 1}),
            json!({"emailId": text}),
            json!({"message": text}),
            json!({"message": {"to": format!("{text} {text}")}}),
            json!({"message": {"from": format!("{text} {text}")}}),
            json!({"message": {"cc": text}}),
            json!({"message": {"cc": [format!("{text}>")]}}),
            json!({"message": {"sendId": format!("{text}\n")}}),
            json!({"message": {text: 1}}),
            json!({"customProperties": text}),
            json!({"dispatch": text}),
            json!({"dispatch": {text: text}}),
            json!({"dispatch": {"account": text}}),
            json!({"dispatch": {"priority": text}}),
            json!({"dispatch": {"sendAt": text}}),
            json!({"dispatch": {"sendAt": format!("2026-12-01T12:00:00Z{text}")}}),
        ] {
            let body = with(change);
            let malformed = parse(&body).expect_err(&body);
            let told = format!("{malformed} {malformed:?}");
            assert!(!told.contains("secret.example"), "{body}: {told}");
            assert!(told.len() < 1000, "{body}: {told}");
        }
    }
    let request = parse(&with(json!({"message": {"cc": ["eve@secret.example"]}}))).unwrap();
    assert!(!format!("{request:?}").contains("secret.example"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(SendRequest::parse(&bytes, Some("id-1")).is_err());
    }
}

/// A log tells of a mark that is none or another one's, and quotes nothing else of a request.
#[test]
fn what_a_log_may_tell_of_a_refused_mark_quotes_nothing_that_is_free() {
    let marked = |mark: &str| with(json!({"dispatch": {"environment": mark}}));
    let malformed = parse(&marked("Eve of Evil")).unwrap_err();
    assert_eq!(
        malformed.told.as_deref(),
        Some("dispatch.environment is no name of an environment")
    );
    let request = parse(&marked("qa")).unwrap();
    let production = Environment::parse("production").unwrap();
    let malformed = request.meant_for(&production).unwrap_err();
    assert_eq!(malformed.told.as_deref(), Some(&*malformed.problem));
    let other = parse(&with(json!({"dispatch": {"account": "EU"}})));
    assert_eq!(other.unwrap_err().told, None);
}
