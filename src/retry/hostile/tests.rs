use proptest::prelude::*;

use super::story;

fn any_number() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("4294967295".to_owned()),
        (0_u32..6).prop_map(|number| number.to_string()),
        "-?[0-9]{1,12}",
        Just("null".to_owned()),
    ]
}

fn any_time() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("-009999-01-02T01:59:59Z".to_owned()),
        Just("9999-12-30T22:00:00.999999999Z".to_owned()),
        "20[0-9]{2}-1[0-2]-[0-2][0-9]T1[0-9]:00:00Z",
        "[0-9T:-]{0,12}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_story_goes_on_within_its_bounds(
        numbers in prop::collection::vec(any_number(), 6),
        times in prop::collection::vec(any_time(), 5),
        outcome in prop::sample::select(&["halted", "transient", "", "word"][..]),
        attempts in 0_usize..40,
        seed in any::<u64>(),
        fields in prop::collection::vec(any::<bool>(), 12),
    ) {
        let attempt = format!(r#"{{"at":"{}","took_ms":1,"outcome":"{outcome}","new":[1]}}"#, times[0]);
        let all = [
            format!(r#""spent":{}"#, numbers[0]),
            format!(r#""generation":{}"#, numbers[1]),
            format!(r#""replays":{}"#, numbers[2]),
            format!(r#""halted_alone":{}"#, numbers[3]),
            format!(r#""attempts":[{}]"#, vec![attempt; attempts].join(",")),
            format!(r#""published_at":"{}""#, times[1]),
            format!(r#""trying_since":"{}""#, times[2]),
            format!(r#""due_at":"{}""#, times[3]),
            format!(r#""follow_up":{{"status_id":"s","accepted_at":"{}","look_ups":{}}}"#, times[4], numbers[4]),
            r#""may_have_mailed":true"#.to_owned(),
            r#""priority":"low","from_2027":{"a":[]}"#.to_owned(),
            format!(r#""death":{{"key":"k","reason":"refused","at":"{}","problem":"p","hint":"h"}}"#, times[0]),
        ];
        let chosen: Vec<_> = all.into_iter().zip(fields).filter(|(_, chosen)| *chosen).map(|it| it.0).collect();
        story(format!("{{{}}}", chosen.join(",")).as_bytes(), seed);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}", seed in any::<u64>()) {
        story(text.as_bytes(), seed);
    }
}
