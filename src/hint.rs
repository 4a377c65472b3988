//! "Did you mean": the nearest known name to one that is unknown.

/// How far a name may be from a known one and still be taken for it (Jaro-Winkler, 0 to 1).
const LIKENESS_MIN: f64 = 0.7;

/// The one of `known` that is most like `name`, if any is like it at all.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
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

/// Serde's message without the value it found: `invalid type: string "ada@example.com", expected …`
/// would carry an address into a log.
#[must_use]
pub fn without_values(message: &str) -> String {
    let mut told = String::with_capacity(message.len());
    let mut parts = message.split('"');
    if let Some(first) = parts.next() {
        told.push_str(first);
    }
    // Everything from the first quote to the last one is the value.
    if let Some(last) = parts.next_back() {
        told.push('…');
        told.push_str(last);
    }
    told
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
}
