//! "Did you mean": the nearest known name to one that is unknown.

/// How far a name may be from a known one and still be taken for it (Jaro-Winkler, 0 to 1).
const LIKENESS_MIN: f64 = 0.7;
/// No known name is so long, in bytes; of one that is, the likeness would take long to tell.
const NAME_BYTES_MAX: usize = 200;
/// The longest name that a message repeats, in bytes.
const SHOWN_BYTES_MAX: usize = 40;

/// The one of `known` that is most like `name`, if any is like it at all.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let name = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (likeness(&name, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// One slip of the fingers is nearly the same word, also in a word as short as `url`.
fn likeness(name: &str, known: &str) -> f64 {
    if strsim::osa_distance(name, known) == 1 {
        0.99
    } else {
        strsim::jaro_winkler(name, known)
    }
}

/// A hint for serde's `unknown field` (or `variant`) message: the words between back-ticks are the
/// unknown name and then the known ones.
#[must_use]
pub fn nearest_field(message: &str) -> Option<String> {
    if !message.contains("unknown field") && !message.contains("unknown variant") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    nearest(unknown, quoted).map(|known| format!("did you mean `{known}`?"))
}

/// What of a name that somebody typed may stand in a message: nothing of one that is long or may
/// be an address.
#[must_use]
pub fn shown(name: &str) -> String {
    if name.len() > SHOWN_BYTES_MAX || name.contains('@') {
        "…".to_owned()
    } else {
        name.escape_debug().to_string()
    }
}

/// Serde's message without the values and names it found: `invalid type: string "ada@example.com",
/// expected …` would carry an address into a log, and an unknown field can be as long as a body.
#[must_use]
pub fn without_values(message: &str) -> String {
    // Everything from the first quote to the last one is the value.
    let told = match (message.split_once('"'), message.rsplit_once('"')) {
        (Some((before, _)), Some((_, after))) => format!("{before}…{after}"),
        _ => message.to_owned(),
    };
    // And what is back-ticked before `expected` is the name.
    let named = told
        .split_once('`')
        .and_then(|(before, rest)| Some((before, rest.rsplit_once("`, expected")?)));
    match named {
        // A number is back-ticked as well, and may be somebody's: it stood where a text should.
        Some((before, (_, after))) if before.starts_with("invalid") => {
            format!("{before}…, expected{after}")
        }
        Some((before, (name, after))) => {
            format!("{before}`{}`, expected{after}", shown(name))
        }
        None => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("emialId", ["emailId", "message"]), Some("emailId"));
        assert_eq!(nearest("replyto", ["replyTo", "cc"]), Some("replyTo"));
        assert_eq!(nearest("ulr", ["url", "prefix"]), Some("url"));
        assert_eq!(nearest("zzz", ["emailId", "message"]), None);
    }

    #[test]
    fn a_value_with_quotes_in_it_is_left_out_whole() {
        let told =
            without_values(r#"invalid type: string "a\"b@x.example", expected i64 at line 1"#);
        assert_eq!(told, "invalid type: string …, expected i64 at line 1");
    }

    #[test]
    fn a_number_is_left_out() {
        let told = without_values("invalid type: integer `491701234567`, expected a string");
        assert_eq!(told, "invalid type: integer …, expected a string");
    }

    #[test]
    fn a_name_is_left_out_when_it_is_long_or_an_address() {
        for (name, shown) in [
            ("emialId", "emialId"),
            ("ada@example.com", "…"),
            ("a`ada@example.com", "…"),
            ("a`, expected ada@example.com", "…"),
            ("a\"ada@example.com", "…"),
            (&*"x".repeat(41), "…"),
        ] {
            let told = without_values(&format!("unknown field `{name}`, expected `to` at line 1"));
            assert_eq!(
                told,
                format!("unknown field `{shown}`, expected `to` at line 1")
            );
        }
    }
}
