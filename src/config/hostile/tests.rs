use std::collections::BTreeSet;

use proptest::prelude::*;

use super::settings;
use crate::config::KEYS;

/// Stands in every secret.
const MARKER: &str = "zq-hidden-qz";

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(format!("\"amqp://user:{MARKER}@host:5672/%2f\"")),
        Just(format!("\"http://u:{MARKER}@host/\"")),
        Just(format!(
            "\"pat-na1-{MARKER}-4f3c2b1a-0000-1111-2222-333344445555\""
        )),
        "-?[0-9]{1,25}",
        "[0-9]{1,3}\\.[0-9]{1,3}",
        "\"[ -!#-\\[\\]-~ä]{0,60}\"",
        Just("[1, {a = 2}]".to_owned()),
        Just("1979-05-27T07:32:00Z".to_owned()),
        Just("nan".to_owned()),
    ]
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(KEYS).prop_map(|key| key.replacen("NAME", "default", 1)),
        "[a-z_.]{1,20}",
        "accounts\\.\"[ -!#-\\[\\]-~]{0,60}\"\\.token",
    ]
}

/// A path, a prefix and an app's id are shown, whatever they are.
fn is_shown(key: &str) -> bool {
    let ends = ["_file", "prefix", "folder", "client_id"];
    ends.iter().any(|end| key.ends_with(end))
}

/// Keys that are secrets, and others that are not, each with a value of any kind.
fn any_file() -> impl Strategy<Value = String> {
    let entry = (any_key(), any_value()).prop_filter("it is shown", move |(key, value)| {
        !(is_shown(key) && value.contains(MARKER))
    });
    prop::collection::vec(entry, 0..5).prop_map(|entries| {
        let lines = entries
            .iter()
            .map(|(key, value)| format!("{key} = {value}"));
        lines.collect::<Vec<_>>().join("\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn any_file_is_a_configuration_or_a_problem_that_tells_no_secret(file in any_file()) {
        settings(&file, &[], MARKER);
    }

    #[test]
    fn nor_does_what_a_variable_may_not_change(
        environment in prop_oneof![Just(String::new()), Just("environment = 'qa'\n".to_owned())],
        keys in prop::collection::vec(prop::sample::select(KEYS), 1..4),
        value in any_value(),
        other in any_value(),
    ) {
        let key = |key: &&str| key.replacen("NAME", "default", 1);
        let keys: BTreeSet<_> = keys.iter().map(key).filter(|key| !is_shown(key)).collect();
        let lines = keys.iter().map(|key| format!("{key} = {value}\n"));
        let variables: Vec<_> = keys.iter().map(|key| {
            let name = key.replace('.', "__").to_uppercase();
            (format!("POSTRIDER_{name}"), other.trim_matches('"').to_owned())
        }).collect();
        settings(&lines.fold(environment, |all, line| all + &line), &variables, MARKER);
    }

    #[test]
    fn a_secret_that_is_none_is_not_told(
        key in prop::sample::select(&["accounts.default.token", "queue.url", "accounts.a.base_url"][..]),
        before in "[ -!#-\\[\\]-~ä]{0,20}",
    ) {
        settings(&format!("{key} = \"{before}{MARKER}\""), &[], MARKER);
    }

    #[test]
    fn so_is_any_text(text in "\\PC{0,80}|[a-z.=\"\\[\\]{}\n #0-9]{0,60}") {
        settings(&text, &[], MARKER);
    }

    #[test]
    fn and_so_are_any_variables(
        names in prop::collection::vec("[A-Z_]{0,30}|ACCOUNTS__[A-Z]{1,9}__TOKEN|QUEUE__URL|\\PC{0,200}", 0..4),
        value in any_value(),
    ) {
        let value = value.trim_matches('"');
        let variables: Vec<_> = names
            .iter()
            .map(|name| (format!("POSTRIDER_{name}"), value.to_owned()))
            .collect();
        settings("", &variables, MARKER);
    }
}

/// Found by the fuzzer: the name nearest to a variable's was told with its account as it came.
#[test]
fn a_hint_repeats_no_odd_account() {
    let name = format!("POSTRIDER_ACCOUNTS__D\u{1}{}__APJ", "E".repeat(2000));
    settings("", &[(name, "v3".to_owned())], MARKER);
    settings("[accounts.\"d\\u0001\"]\ntokem = 1", &[], MARKER);
}

#[test]
fn nothing_is_too_deep_or_too_long() {
    let many = 100_000;
    for text in [
        format!("a{} = 1", ".a".repeat(many)),
        format!("[accounts.default{}]", ".a".repeat(many)),
        format!("x = {}", "[".repeat(many)),
        format!("queue = {}", "{ a = ".repeat(many)),
        format!("retry.max = \"{}\"", "x".repeat(many)),
        format!("{} = 1", "k".repeat(many)),
        format!("[accounts.{}]\ntoken = \"t\"", "n".repeat(many)),
        "[".repeat(many),
    ] {
        settings(&text, &[], MARKER);
    }
}
