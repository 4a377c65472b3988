//! Whether an email is there and made for single send: a question that sends nothing.
//!
//! `GET /marketing/emails/2026-03/{emailId}` tells an email's `type`. It wants the scope `content` or
//! `marketing.email.read`, which sending does not: a token that may send may still not ask.

use jiff::Timestamp;

use super::classify::{Heard, failure};
use super::wire::text;
use crate::config::Api;
use crate::outcome::Failure;

/// What is known of an email.
#[derive(Clone, Debug, PartialEq)]
pub enum Letter {
    /// It can be sent; in words, what it is.
    Ready(String),
    /// Only a send can tell.
    Doubtful { found: String, hint: String },
    /// Single send will refuse it.
    Unfit { found: String, hint: String },
    /// HubSpot did not say.
    Unknown(Failure),
}

/// The types that HubSpot made for single send, by its spec of marketing emails.
const TRANSACTIONAL: &str = "SINGLE_SEND_API";
const MARKETING: &str = "MARKETING_SINGLE_SEND_API";

pub(super) fn letter(api: Api, heard: &Heard, now: Timestamp) -> Letter {
    let answer = match heard {
        Ok(answer) if answer.is_success() => answer,
        Ok(answer) if answer.status == 404 => {
            return Letter::Unfit {
                found: "the portal has no such email".into(),
                hint: "take the id from the email's address in HubSpot, or from its details there"
                    .into(),
            };
        }
        Ok(answer) if answer.status == 403 => {
            return Letter::Doubtful {
                found: "the token may not read emails: only a send can tell".into(),
                hint: "grant it the scope `content` (or `marketing.email.read`) to have this checked; \
                       sending does not need it"
                    .into(),
            };
        }
        _ => return Letter::Unknown(failure(heard, now)),
    };
    let json = answer.json();
    let is = |name| json.get(name).and_then(serde_json::Value::as_bool);
    let (wanted, api_name) = match api {
        Api::Transactional => (TRANSACTIONAL, "transactional"),
        Api::Marketing => (MARKETING, "marketing"),
    };
    let Some(kind) = text(json, "type") else {
        return Letter::Doubtful {
            found: "HubSpot does not tell its type".into(),
            hint: format!("it should be {wanted}: send it to yourself once"),
        };
    };
    if is("archived") == Some(true) || is("isPublished") == Some(false) {
        return Letter::Unfit {
            found: format!("it is {kind}, and not published"),
            hint: "publish it in HubSpot".into(),
        };
    }
    if kind == wanted {
        return Letter::Ready(format!("{kind}, published"));
    }
    // What may be sent by which of the two is told for these types alone.
    let is_transactional = api == Api::Transactional && is("isTransactional") == Some(true);
    if kind == TRANSACTIONAL || kind == MARKETING || is_transactional {
        return Letter::Doubtful {
            found: format!("it is {kind}, and api = \"{api_name}\" is made for {wanted}"),
            hint: "send it to yourself once, or see accounts.NAME.api".into(),
        };
    }
    Letter::Unfit {
        found: format!("it is {kind}, which single send refuses; it takes {wanted}"),
        hint: "in HubSpot, make it an email for the single-send API".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::classify::Silence;
    use super::super::wire::Answer;
    use super::*;

    fn told(api: Api, status: u16, body: &str) -> &'static str {
        let heard = Ok(Answer::new(status, &[], body.as_bytes()));
        match letter(api, &heard, Timestamp::UNIX_EPOCH) {
            Letter::Ready(_) => "ready",
            Letter::Doubtful { .. } => "doubtful",
            Letter::Unfit { .. } => "unfit",
            Letter::Unknown(_) => "unknown",
        }
    }

    #[test]
    fn its_type_and_state_decide() {
        use Api::{Marketing, Transactional};
        for (api, status, body, expected) in [
            (
                Transactional,
                200,
                r#"{"type":"SINGLE_SEND_API","isPublished":true}"#,
                "ready",
            ),
            (Transactional, 200, r#"{"type":"SINGLE_SEND_API"}"#, "ready"),
            (
                Transactional,
                200,
                r#"{"type":"SINGLE_SEND_API","isPublished":false}"#,
                "unfit",
            ),
            (
                Transactional,
                200,
                r#"{"type":"SINGLE_SEND_API","archived":true}"#,
                "unfit",
            ),
            (
                Transactional,
                200,
                r#"{"type":"BATCH_EMAIL","isPublished":true}"#,
                "unfit",
            ),
            (
                Transactional,
                200,
                r#"{"type":"AUTOMATED_EMAIL","isTransactional":true}"#,
                "doubtful",
            ),
            (
                Transactional,
                200,
                r#"{"type":"MARKETING_SINGLE_SEND_API"}"#,
                "doubtful",
            ),
            (Transactional, 200, "{}", "doubtful"),
            (
                Marketing,
                200,
                r#"{"type":"MARKETING_SINGLE_SEND_API"}"#,
                "ready",
            ),
            (Marketing, 200, r#"{"type":"SINGLE_SEND_API"}"#, "doubtful"),
            (
                Marketing,
                200,
                r#"{"type":"BATCH_EMAIL","isTransactional":true}"#,
                "unfit",
            ),
            (Transactional, 404, "", "unfit"),
            (Transactional, 403, "", "doubtful"),
            (Transactional, 401, "", "unknown"),
            (Transactional, 503, "", "unknown"),
        ] {
            assert_eq!(told(api, status, body), expected, "{api:?} {status} {body}");
        }
        let silent = Err(Silence::NotAnswered("time-out".into()));
        let found = letter(Transactional, &silent, Timestamp::UNIX_EPOCH);
        assert!(matches!(found, Letter::Unknown(_)));
    }
}
