//! Whether an account works, learnt from two calls that send no mail.
//!
//! *Account details* prove the bearer and name the portal and its time zone; *token info* names
//! the portal and the scopes. Neither is offered for every kind of token, so each one only speaks
//! for itself: a 404 or 403 of one of them says nothing about sending.

use jiff::Timestamp;
use serde_json::Value;

use super::classify::{Heard, SCOPE_BYTES_MAX, SCOPES_TOLD_MAX, failure};
use super::wire::{Answer, text};
use crate::config::Api;
use crate::outcome::{Failure, FailureClass, PauseReason, Scope, Words};
use crate::provider::{Fit, Pinned, Portal, Probe};

/// One of these lets a token send. The `-api` names stood in HubSpot's specs for six weeks of 2026.
const TRANSACTIONAL_SCOPES: [&str; 2] = ["transactional-email", "transactional-email-api"];
const MARKETING_SCOPES: [&str; 2] = ["marketing-email", "marketing-email-api"];

/// A limit was met: the question was not looked at.
const LIMITED: u16 = 429;
/// Of HubSpot's words about a token that are repeated in the log.
const WHY_CHARS_MAX: usize = 200;

/// What the two answers say together, of an account that has to be the pinned one.
pub(super) fn probe(
    (api, pinned): (Api, &Pinned),
    details: &Heard,
    token_info: &Heard,
    now: Timestamp,
) -> Probe {
    let found = heard(api, details, token_info, now);
    let Probe::Open(portal) = found else {
        return found;
    };
    match pinned.fit(&portal) {
        Fit::Fits => Probe::Open(portal),
        Fit::Differs(problem) => Probe::Wrong(portal, problem),
        // It may be told as soon as HubSpot's limit lets it be.
        Fit::Untold if status(details) == LIMITED => Probe::Inconclusive(failure(details, now)),
        Fit::Untold if status(token_info) == LIMITED => {
            Probe::Inconclusive(failure(token_info, now))
        }
        Fit::Untold => Probe::Inconclusive(untold(pinned, details, token_info)),
    }
}

/// The token is good, and what is pinned was not told: no mail may leave.
fn untold(pinned: &Pinned, details: &Heard, token_info: &Heard) -> Failure {
    let refused = [details, token_info]
        .into_iter()
        .filter_map(|heard| heard.as_ref().ok())
        .find(|answer| !answer.is_success());
    // Only the account's details tell its type.
    let what = if pinned.account_type.is_some() {
        "account_type (the scope `oauth` may be what the token lacks to read it)"
    } else {
        "portal_id"
    };
    Failure {
        class: FailureClass::Halted,
        scope: Scope::Account,
        pause: Some(PauseReason::Unproven),
        retry_after: None,
        words: refused.map(Answer::words).unwrap_or_default(),
        hint: format!(
            "HubSpot does not tell whether the token opens the account that {what} names"
        ),
    }
}

fn heard(api: Api, details: &Heard, token_info: &Heard, now: Timestamp) -> Probe {
    let statuses = [status(details), status(token_info)];
    if statuses.contains(&477) {
        let migrating = if status(details) == 477 {
            details
        } else {
            token_info
        };
        return Probe::Shut(failure(migrating, now));
    }
    if let Some(answer) = success(token_info) {
        let portal = portal(success(details), Some(answer));
        return match &portal.scopes {
            Some(scopes) => match missing_scope(api, scopes) {
                Some(needed) => Probe::Shut(unscoped(needed, scopes, answer)),
                None => Probe::Open(portal),
            },
            None => Probe::Open(portal),
        };
    }
    if let Some(answer) = success(details) {
        return Probe::Open(portal(Some(answer), None));
    }
    match statuses {
        // One of them refuses the token, and the other refuses it too or is not offered.
        [401, 401 | 404] => Probe::Shut(failure(details, now)),
        [404, 401] => Probe::Shut(failure(token_info, now)),
        // The one that may be better another time, or else the one that knows the token.
        [401 | 404, _] | [403, LIMITED] => Probe::Inconclusive(failure(token_info, now)),
        _ => Probe::Inconclusive(failure(details, now)),
    }
}

/// Why a token is not proven, for a log: in HubSpot's words, cut, and without whatever has the form of an
/// address. Answers hold no token of ours.
pub(super) fn why(failure: &Failure) -> String {
    let Words {
        status,
        category,
        message,
        ..
    } = &failure.words;
    let said: Vec<&str> = [category, message]
        .into_iter()
        .flatten()
        .flat_map(|words| words.split_whitespace())
        .map(|word| if word.contains('@') { "…" } else { word })
        .collect();
    let said: String = said.join(" ").chars().take(WHY_CHARS_MAX).collect();
    let head = match status {
        Some(200..=299) => "HubSpot accepts it, and that does not suffice".to_owned(),
        Some(status) => format!("HubSpot answers {status}"),
        None if said.is_empty() => "HubSpot does not tell enough".to_owned(),
        None => return said,
    };
    if said.is_empty() {
        head
    } else {
        format!("{head}: {said}")
    }
}

/// What the token's issue said, as the answer to the question that would tell it of another one.
pub(super) fn token_info(hub_id: Option<u64>, scopes: Option<&[String]>) -> Answer {
    let body = serde_json::json!({"hubId": hub_id, "scopes": scopes}).to_string();
    Answer::new(200, &[], body.as_bytes())
}

/// Whether HubSpot knows the token, be it that it may not ask this.
pub(super) fn lets_in(details: &Heard) -> bool {
    matches!(status(details), 200..=299 | 403 | 404)
}

/// 0 when no answer came.
fn status(heard: &Heard) -> u16 {
    heard.as_ref().map_or(0, |answer| answer.status)
}

/// An answer that can be read.
fn success(heard: &Heard) -> Option<&Answer> {
    heard
        .as_ref()
        .ok()
        .filter(|answer| answer.is_success() && answer.json().is_object())
}

fn portal(details: Option<&Answer>, token_info: Option<&Answer>) -> Portal {
    let details = details.map(Answer::json).unwrap_or_default();
    let token_info = token_info.map(Answer::json).unwrap_or_default();
    let id = |json: &Value, name| json.get(name).and_then(Value::as_u64);
    Portal {
        portal_id: id(details, "portalId").or_else(|| id(token_info, "hubId")),
        account_type: text(details, "accountType"),
        time_zone: text(details, "timeZone"),
        scopes: token_info
            .get("scopes")
            .and_then(Value::as_array)
            .map(|scopes| {
                scopes
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect()
            }),
    }
}

/// The scopes of which HubSpot wants one to send, if none of them is among these. Marketing single send
/// takes either, says HubSpot's spec.
#[must_use]
pub fn missing_scope(api: Api, scopes: &[String]) -> Option<&'static [&'static str]> {
    let has = |known: &[&str]| scopes.iter().any(|scope| known.contains(&scope.as_str()));
    if has(&TRANSACTIONAL_SCOPES) || (api == Api::Marketing && has(&MARKETING_SCOPES)) {
        return None;
    }
    Some(match api {
        Api::Transactional => &["transactional-email"],
        Api::Marketing => &["marketing-email", "transactional-email"],
    })
}

fn unscoped(needed: &[&str], scopes: &[String], answer: &Answer) -> Failure {
    let known = scopes.iter().filter(|scope| scope.len() <= SCOPE_BYTES_MAX);
    let known: Vec<&str> = known.take(SCOPES_TOLD_MAX).map(String::as_str).collect();
    let has = match known.as_slice() {
        [] => String::new(),
        known => format!(" (it has {})", known.join(", ")),
    };
    Failure {
        class: FailureClass::Halted,
        scope: Scope::Account,
        pause: Some(PauseReason::Forbidden),
        retry_after: None,
        words: answer.words(),
        hint: format!(
            "the token lacks the scope {}{has}: grant it in HubSpot",
            needed.join(" or ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::classify::Silence;
    use super::*;

    #[expect(
        clippy::unnecessary_wraps,
        reason = "the other variant stands beside it"
    )]
    fn answer(status: u16, body: &str) -> Heard {
        Ok(Answer::new(status, &[], body.as_bytes()))
    }

    fn probed(api: Api, details: &Heard, token_info: &Heard) -> Probe {
        let pinned = Pinned::default();
        probe((api, &pinned), details, token_info, Timestamp::UNIX_EPOCH)
    }

    /// `open`, or why not: `shut` or `inconclusive`, and the status that is told.
    fn told(details: &Heard, token_info: &Heard) -> String {
        match probed(Api::Transactional, details, token_info) {
            Probe::Open(_) => "open".into(),
            Probe::Wrong(..) => "wrong".into(),
            Probe::Kept => "kept".into(),
            Probe::Shut(failure) => format!("shut {:?}", failure.pause.unwrap()),
            Probe::Inconclusive(failure) => match failure.words.status {
                Some(status) => format!("inconclusive {status}"),
                None => "inconclusive".into(),
            },
        }
    }

    const DETAILS: &str =
        r#"{"portalId":1234,"accountType":"STANDARD","timeZone":"Europe/Berlin"}"#;
    const TOKEN_INFO: &str =
        r#"{"userId":1,"hubId":1234,"appId":2,"scopes":["oauth","transactional-email"]}"#;

    #[test]
    fn both_answers_make_the_portal() {
        let Probe::Open(portal) = probed(
            Api::Transactional,
            &answer(200, DETAILS),
            &answer(200, TOKEN_INFO),
        ) else {
            panic!("it is open");
        };
        assert_eq!(portal.portal_id, Some(1234));
        assert_eq!(portal.account_type.as_deref(), Some("STANDARD"));
        assert_eq!(portal.time_zone.as_deref(), Some("Europe/Berlin"));
        assert_eq!(portal.scopes.unwrap(), ["oauth", "transactional-email"]);
    }

    #[test]
    fn each_answer_speaks_for_itself() {
        let silent = || Err(Silence::NotAnswered("time-out".into()));
        let good = || answer(200, DETAILS);
        let known = || answer(200, TOKEN_INFO);
        let code = |status| answer(status, "");
        for (details, token_info, expected) in [
            (good(), code(404), "open"),
            (good(), code(500), "open"),
            (good(), code(401), "open"),
            (code(404), known(), "open"),
            (code(403), known(), "open"),
            (silent(), known(), "open"),
            (code(401), code(401), "shut Unauthorized"),
            (code(401), code(404), "shut Unauthorized"),
            (code(404), code(401), "shut Unauthorized"),
            (code(477), known(), "shut Migrating"),
            (code(404), code(477), "shut Migrating"),
            (code(404), code(404), "inconclusive 404"),
            (code(403), code(404), "inconclusive 403"),
            (code(403), code(401), "inconclusive 403"),
            (code(401), code(500), "inconclusive 500"),
            (code(404), code(500), "inconclusive 500"),
            (code(503), code(401), "inconclusive 503"),
            (code(429), known(), "open"),
            (good(), code(429), "open"),
            (code(403), code(429), "inconclusive 429"),
            (code(429), code(401), "inconclusive 429"),
            (code(200), code(404), "inconclusive 200"),
            (silent(), silent(), "inconclusive"),
            (code(401), silent(), "inconclusive"),
        ] {
            assert_eq!(
                told(&details, &token_info),
                expected,
                "{details:?} {token_info:?}"
            );
        }
    }

    #[test]
    fn a_token_that_lacks_the_scope_is_shut_out() {
        let with = |scopes| answer(200, &format!(r#"{{"hubId":1,"scopes":{scopes}}}"#));
        let nothing = answer(404, "");
        for (api, scopes, open) in [
            (Api::Transactional, r#"["transactional-email"]"#, true),
            (Api::Transactional, r#"["marketing-email"]"#, false),
            (Api::Transactional, "[]", false),
            (Api::Transactional, "null", true),
            (Api::Marketing, r#"["marketing-email"]"#, true),
            (Api::Marketing, r#"["transactional-email"]"#, true),
            (Api::Marketing, r#"["content"]"#, false),
        ] {
            let found = probed(api, &nothing, &with(scopes));
            assert_eq!(matches!(found, Probe::Open(_)), open, "{api:?} {scopes}");
            if let Probe::Shut(failure) = found {
                assert_eq!(failure.pause, Some(PauseReason::Forbidden));
            }
        }
    }

    #[test]
    fn why_a_token_is_not_proven_is_told_in_hubspots_words() {
        let told = |found: Probe| match found {
            Probe::Shut(failure) | Probe::Inconclusive(failure) => why(&failure),
            found @ (Probe::Open(_) | Probe::Wrong(..) | Probe::Kept) => panic!("{found:?}"),
        };
        let api = Api::Transactional;
        let refused =
            r#"{"category":"INVALID_AUTHENTICATION","message":"ask ada@example.com  for it"}"#;
        let refused = answer(401, refused);
        assert_eq!(
            told(probed(api, &refused, &refused)),
            "HubSpot answers 401: INVALID_AUTHENTICATION ask … for it"
        );
        let bare = answer(401, "");
        assert_eq!(told(probed(api, &bare, &bare)), "HubSpot answers 401");
        let poor = answer(200, r#"{"hubId":1,"scopes":["content"]}"#);
        assert_eq!(
            told(probed(api, &poor, &poor)),
            "HubSpot accepts it, and that does not suffice"
        );
        let silent = Err(Silence::NotAnswered("time-out".into()));
        assert_eq!(told(probed(api, &silent, &silent)), "no answer: time-out");
        let pinned = Pinned {
            account_type: Some("SANDBOX".into()),
            ..Pinned::default()
        };
        let found = probe(
            (api, &pinned),
            &answer(200, "{}"),
            &answer(200, TOKEN_INFO),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(told(found), "HubSpot does not tell enough");
        let long = answer(401, &format!(r#"{{"message":"{}"}}"#, "x ".repeat(300)));
        assert!(told(probed(api, &long, &long)).len() < 300);
    }

    #[test]
    fn the_pinned_account_has_to_be_told() {
        let details = || answer(200, DETAILS);
        let known = || answer(200, TOKEN_INFO);
        let lost = || answer(404, "");
        let limited = || answer(429, "");
        let pin = |portal_id: Option<u64>, kind: Option<&str>| Pinned {
            portal_id,
            account_type: kind.map(str::to_owned),
        };
        for (pinned, details, token_info, expected) in [
            (
                pin(Some(1234), Some("STANDARD")),
                details(),
                known(),
                "open",
            ),
            (pin(Some(1234), None), lost(), known(), "open"),
            (pin(None, Some("STANDARD")), details(), lost(), "open"),
            (pin(Some(99), None), details(), known(), "wrong"),
            (pin(Some(99), None), lost(), known(), "wrong"),
            (pin(None, Some("SANDBOX")), details(), known(), "wrong"),
            // Only the details tell the type.
            (pin(None, Some("STANDARD")), lost(), known(), "unproven"),
            (
                pin(Some(1234), Some("STANDARD")),
                answer(403, ""),
                known(),
                "unproven",
            ),
            (pin(Some(1234), None), answer(200, "{}"), lost(), "unproven"),
            (pin(Some(1234), None), lost(), lost(), "inconclusive"),
            (pin(None, Some("STANDARD")), limited(), known(), "limited"),
            (pin(Some(1234), None), limited(), known(), "open"),
            (
                pin(Some(1234), None),
                answer(200, "{}"),
                limited(),
                "limited",
            ),
        ] {
            let api = Api::Transactional;
            let found = match probe((api, &pinned), &details, &token_info, Timestamp::UNIX_EPOCH) {
                Probe::Open(_) => "open",
                Probe::Wrong(..) => "wrong",
                Probe::Inconclusive(failure) => match failure.pause {
                    Some(PauseReason::Unproven) => "unproven",
                    Some(PauseReason::Throttled) => "limited",
                    _ => "inconclusive",
                },
                Probe::Shut(_) | Probe::Kept => "other",
            };
            assert_eq!(found, expected, "{pinned:?} {details:?} {token_info:?}");
        }
    }
}
