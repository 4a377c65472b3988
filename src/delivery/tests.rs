use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn rules(mode: Mode) -> Rules {
    Rules {
        environment: Environment::parse("qa").unwrap(),
        mode,
    }
}

fn allowing(list: &str) -> Rules {
    rules(Mode::Allow(Arc::new(AllowList::parse(list).unwrap())))
}

fn to_sink() -> Rules {
    rules(Mode::Sink(Recipient::parse("sink@example.com").unwrap()))
}

fn request(body: &Value) -> SendRequest {
    SendRequest::parse(body.to_string().as_bytes(), Some("id-1")).unwrap()
}

fn to(to: &str) -> SendRequest {
    request(&json!({"emailId": 7, "message": {"to": to}}))
}

fn is_sent(rules: &Rules, request: &SendRequest) -> bool {
    match rules.decide(request) {
        Verdict::Send => true,
        Verdict::Hold { .. } => false,
        Verdict::Instead(other) => panic!("{other:?}"),
    }
}

#[test]
fn production_and_a_sandbox_send_as_it_is() {
    assert!(is_sent(&Rules::default(), &to("ada@example.com")));
    assert!(is_sent(&rules(Mode::Sandbox), &to("ada@example.com")));
    assert!(!is_sent(&rules(Mode::Hold), &to("ada@example.com")));
}

#[test]
fn a_list_takes_addresses_and_domains() {
    let rules = allowing(" Ada@Example.com ,example.ORG, kiosk.example");
    for inside in [
        "ada@example.com",
        "ADA@EXAMPLE.COM",
        "Ada <ada@example.com>",
        "anybody@example.org",
        "Bo <bo@EXAMPLE.org>",
    ] {
        assert!(is_sent(&rules, &to(inside)), "{inside}");
    }
    for outside in [
        "eve@example.com",
        "ada@sub.example.com",
        "ada@sub.example.org",
        "ada@notexample.org",
        "ada@example.org.evil.example",
        "ada+eve@example.com",
        // Where another reader may see another address.
        "\"eve@evil.example\"@example.org",
        "eve@evil.example <ada@example.com>",
        // The sign of the Kelvin, which is a k in lower case.
        "ada@\u{212a}iosk.example",
    ] {
        assert!(!is_sent(&rules, &to(outside)), "{outside}");
    }
}

#[test]
fn every_recipient_must_be_listed_and_none_is_repeated() {
    let rules = allowing("ada@example.com");
    for (field, message) in [
        ("message.to", json!({"to": "eve@evil.example"})),
        (
            "message.cc",
            json!({"to": "ada@example.com", "cc": ["ada@example.com", "eve@evil.example"]}),
        ),
        (
            "message.bcc",
            json!({"to": "ada@example.com", "bcc": ["eve@evil.example"]}),
        ),
    ] {
        let request = request(&json!({"emailId": 7, "message": message}));
        let Verdict::Hold { problem, hint } = rules.decide(&request) else {
            panic!("{field}");
        };
        let told = format!("{problem} {hint}");
        assert!(told.contains(field) && told.contains("\"qa\""), "{told}");
        assert!(!told.contains('@'), "{told}");
    }
}

#[test]
fn a_list_that_is_none_is_refused_by_its_entry() {
    for (text, entry) in [
        ("", 0),
        (" ", 0),
        ("ada@example.com,", 2),
        ("example.org,,", 2),
        ("example.org, @example.org", 2),
        ("*.example.org", 1),
        ("localhost", 1),
        ("ada@localhost", 1),
        ("Ada <ada@example.com>", 1),
        ("example.org example.com", 1),
        ("ada@bo@example.org", 1),
        ("[127.0.0.1]", 1),
        ("https://example.org", 1),
    ] {
        assert_eq!(AllowList::parse(text).err(), Some(entry), "{text}");
    }
}

#[test]
fn the_sink_gets_it_and_what_is_no_recipient_stays() {
    let request = request(&json!({
        "emailId": 7,
        "message": {"to": "eve@evil.example", "cc": ["eve@evil.example"], "bcc": ["eve@evil.example"],
                    "from": "shop@example.com", "replyTo": ["help@example.com"]},
        "contactProperties": {"firstname": "Eve", " E-mail": 1, "EMAIL": "eve@evil.example",
                              "hs_additional_emails ": "eve@evil.example", "n": [1, {"email": 2}]},
        "customProperties": {"email": "in the template"},
    }));
    let Verdict::Instead(sent) = to_sink().decide(&request) else {
        panic!("it goes to the sink");
    };
    assert_eq!(sent.to.expose(), "sink@example.com");
    assert!(sent.cc.is_empty() && sent.bcc.is_empty());
    assert_eq!(sent.from, request.from);
    assert_eq!(sent.reply_to, request.reply_to);
    let properties = |raw: &Option<Box<RawValue>>| -> Value {
        serde_json::from_str(raw.as_ref().unwrap().get()).unwrap()
    };
    assert_eq!(
        properties(&sent.contact_properties),
        json!({"firstname": "Eve", " E-mail": 1, "n": [1, {"email": 2}]})
    );
    assert_eq!(
        properties(&sent.custom_properties),
        properties(&request.custom_properties)
    );
    assert_eq!(request.to.expose(), "eve@evil.example", "untouched");
}

// === whatever the request ===

fn any_recipient() -> impl Strategy<Value = String> {
    let local = "[a-z.]{0,3}[a-z]";
    let domain = prop_oneof![
        Just("example.com".to_owned()),
        Just("Example.ORG".to_owned()),
        "[a-z]{1,8}\\.(com|org|example)",
    ];
    let bare = (local, domain).prop_map(|(local, domain)| format!("x{local}@{domain}"));
    (bare, 0..4).prop_map(|(bare, form)| match form {
        0 => format!("Ada Zq <{bare}>"),
        1 => "\"x\"@example.org".to_owned(),
        _ => bare,
    })
}

fn any_request() -> impl Strategy<Value = SendRequest> {
    let some = || prop::collection::vec(any_recipient(), 0..3);
    (any_recipient(), some(), some()).prop_filter_map("no request", |(to, cc, bcc)| {
        let message = json!({"to": to, "cc": cc, "bcc": bcc});
        let body = json!({"emailId": 7, "message": message}).to_string();
        SendRequest::parse(body.as_bytes(), Some("id-1")).ok()
    })
}

proptest! {
    #[test]
    fn nobody_outside_the_list_is_mailed(request in any_request()) {
        let rules = allowing("example.org, xa@example.com");
        let recipients = [&request.cc[..], &request.bcc[..], &[request.to.expose().to_owned()]].concat();
        let all_inside = recipients.iter().all(|recipient| {
            let bare = recipient.trim_start_matches("Ada Zq <").trim_end_matches('>');
            let bare = bare.to_lowercase();
            bare.ends_with("@example.org") || bare == "xa@example.com"
        });
        prop_assert_eq!(is_sent(&rules, &request), all_inside);
    }
}

/// HubSpot would give the contact that address, and write to it the next time.
#[test]
fn a_list_lets_no_other_address_through_in_a_property() {
    let rules = allowing("example.org");
    let with = |properties: Value| {
        let body = json!({"emailId": 7, "message": {"to": "ada@example.org"},
            "contactProperties": properties});
        rules.decide(&request(&body))
    };
    assert!(matches!(with(json!({"firstname": "Ada"})), Verdict::Send));
    let Verdict::Instead(sent) = with(json!({"firstname": "Ada", "Email": "eve@example.com"}))
    else {
        panic!("it goes out without that");
    };
    assert_eq!(
        sent.contact_properties.unwrap().get(),
        r#"{"firstname":"Ada"}"#
    );
}
