//! The portal's emails: what a request's `emailId` names.
//!
//! Any id is an email for single send, but for some that stand for trouble.

use serde_json::json;

use super::Turn;
use crate::sandbox::answer::Answer;

/// There is none with this id.
pub(super) const MISSING: i64 = 404;
/// For a list of contacts, and not for single send.
pub(super) const BATCH: i64 = 1001;
/// Not published.
pub(super) const DRAFT: i64 = 1002;
/// For marketing single send.
const MARKETING: i64 = 1003;

/// HubSpot's `PublicEmail`, as far as it tells whether it can be sent.
pub(super) fn answer(turn: &Turn<'_>, id: &str) -> Answer {
    let Some(number) = id.parse::<i64>().ok().filter(|id| *id > 0) else {
        return turn.answers.invalid("Invalid emailId");
    };
    let kind = match number {
        MISSING => return turn.answers.not_found(),
        BATCH => "BATCH_EMAIL",
        MARKETING => "MARKETING_SINGLE_SEND_API",
        _ => "SINGLE_SEND_API",
    };
    let is_published = number != DRAFT;
    turn.answers.json(
        200,
        &json!({
            "id": id,
            "name": "An email of the sandbox",
            "type": kind,
            "state": if is_published { "AUTOMATED" } else { "AUTOMATED_DRAFT" },
            "isAb": false,
            "isPublished": is_published,
            "isTransactional": kind == "SINGLE_SEND_API",
            "archived": false,
        }),
    )
}
