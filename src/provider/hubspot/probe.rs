//! Whether an account works, learnt from two calls that send no mail.
//!
//! *Account details* prove the bearer and name the portal and its time zone; *token info* names
//! the portal and the scopes. Neither is offered for every kind of token, so each one only speaks
//! for itself: a 404 or 403 of one of them says nothing about sending.

use jiff::Timestamp;
use serde_json::Value;

use super::classify::{Heard, failure};
use super::wire::{Answer, text};
use crate::config::Api;
use crate::outcome::{Failure, FailureClass, PauseReason, Scope};
use crate::provider::{Portal, Probe};

/// One of these lets a token send. The `-api` names stood in HubSpot's specs for six weeks of 2026.
const TRANSACTIONAL_SCOPES: [&str; 2] = ["transactional-email", "transactional-email-api"];
const MARKETING_SCOPES: [&str; 2] = ["marketing-email", "marketing-email-api"];

/// What the two answers say together.
pub(super) fn probe(api: Api, details: &Heard, token_info: &Heard, now: Timestamp) -> Probe {
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
            Some(scopes) if !may_send(api, scopes) => Probe::Shut(missing_scope(api, answer)),
            _ => Probe::Open(portal),
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
        [401 | 404, _] => Probe::Inconclusive(failure(token_info, now)),
        _ => Probe::Inconclusive(failure(details, now)),
    }
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
        portal_id: id(&details, "portalId").or_else(|| id(&token_info, "hubId")),
        account_type: text(&details, "accountType"),
        time_zone: text(&details, "timeZone"),
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

/// Marketing single send takes either scope, says HubSpot's spec.
fn may_send(api: Api, scopes: &[String]) -> bool {
    let has = |known: &[&str]| scopes.iter().any(|scope| known.contains(&scope.as_str()));
    has(&TRANSACTIONAL_SCOPES) || (api == Api::Marketing && has(&MARKETING_SCOPES))
}

fn missing_scope(api: Api, answer: &Answer) -> Failure {
    let needed = match api {
        Api::Transactional => "transactional-email",
        Api::Marketing => "marketing-email or transactional-email",
    };
    Failure {
        class: FailureClass::Halted,
        scope: Scope::Account,
        pause: Some(PauseReason::Forbidden),
        retry_after: None,
        words: answer.words(),
        hint: format!("the token lacks the scope {needed}: grant it in HubSpot"),
    }
}
