//! The status of a send: the 51 results, and a `statusId` that carries all its answer needs.
//!
//! HubSpot's own `statusId`, decoded once, is 16 bytes that look random, a time in milliseconds
//! and the portal. Ours has the same form, and its first 16 bytes hold when the result is due and
//! which it is. So the model remembers nothing per send, however long it runs.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::clock;

/// Every `sendResult` of HubSpot's specs (2026-09), in their order. The list grows: eight were
/// added in seven months.
pub const SEND_RESULTS: [&str; 51] = [
    "ADDRESS_LIST_BOMBED",
    "ADDRESS_ONLY_ACCEPTED_ON_PROD",
    "ADDRESS_OPTED_OUT",
    "ATTACHMENT_DOWNLOAD_QUEUE_FULL",
    "BLOCKED_ADDRESS",
    "BLOCKED_DOMAIN",
    "BRAND_RECIPIENT_FATIGUE_SUPPRESSED",
    "CAMPAIGN_CANCELLED",
    "CANCELLED_ABUSE",
    "CONTACT_VIEW_PERMISSION",
    "CORRUPT_INPUT",
    "EMAIL_DISABLED",
    "EMAIL_UNCONFIRMED",
    "GDPR_DOI_ENABLED",
    "GRAYMAIL_SUPPRESSED",
    "HUBL_LIMIT_EXCEEDED",
    "IDEMPOTENT_FAIL",
    "IDEMPOTENT_IGNORE",
    "INVALID_APP_ID_ATTRIBUTION",
    "INVALID_FROM_ADDRESS",
    "INVALID_TO_ADDRESS",
    "LOW_CONTACT_QUALITY_SCORE",
    "MARKETING_ACTIVATION_DISALLOWED",
    "MISSING_CONTENT",
    "MISSING_REQUIRED_PARAMETER",
    "MISSING_TEMPLATE_PROPERTIES",
    "MTA_IGNORE",
    "NON_MARKETABLE_CONTACT",
    "PORTAL_AUTHENTICATION_FAILURE",
    "PORTAL_EXPIRED",
    "PORTAL_MISSING_MARKETING_SCOPE",
    "PORTAL_NOT_AUTHORIZED_FOR_APPLICATION",
    "PORTAL_OVER_LIMIT",
    "PORTAL_SUSPENDED",
    "PREVIOUS_SPAM",
    "PREVIOUSLY_BOUNCED",
    "PREVIOUSLY_UNSUBSCRIBED_BRAND",
    "PREVIOUSLY_UNSUBSCRIBED_BUSINESS_UNIT",
    "PREVIOUSLY_UNSUBSCRIBED_MESSAGE",
    "PREVIOUSLY_UNSUBSCRIBED_PORTAL",
    "QUARANTINED_ADDRESS",
    "QUEUED",
    "RECIPIENT_FATIGUE_SUPPRESSED",
    "SENT",
    "TEMPLATE_RENDER_EXCEPTION",
    "THROTTLED",
    "TOO_MANY_RECIPIENTS",
    "UBB_GOVERNANCE_MISSING",
    "UNCONFIGURED_SENDING_DOMAIN",
    "UNDELIVERABLE",
    "VALIDATION_FAILED",
];

/// Different `X_…` results that are kept.
const OURS_MAX: usize = 1_000;

/// The result of this name, as the list spells it.
#[must_use]
pub fn known_result(name: &str) -> Option<&'static str> {
    SEND_RESULTS.into_iter().find(|known| *known == name)
}

/// Whether this result means that the mail went out, or will: `QUEUED` is HubSpot's own queue.
#[must_use]
pub fn is_mailed(result: &str) -> bool {
    matches!(result, "SENT" | "QUEUED")
}

/// The list that a [`Ticket`] points into: HubSpot's results, then the `X_…` ones asked for here.
#[derive(Clone, Debug, Default)]
pub(super) struct Results {
    ours: Vec<String>,
}

impl Results {
    /// The place of a result. When there are too many of ours, it is `VALIDATION_FAILED`.
    pub(super) fn place(&mut self, result: &str) -> u16 {
        let theirs = SEND_RESULTS.len();
        let place = if let Some(place) = SEND_RESULTS.iter().position(|known| *known == result) {
            place
        } else if let Some(place) = self.ours.iter().position(|known| known == result) {
            theirs + place
        } else if self.ours.len() < OURS_MAX {
            self.ours.push(result.to_owned());
            theirs + self.ours.len() - 1
        } else {
            theirs - 1
        };
        u16::try_from(place).unwrap_or_default()
    }

    pub(super) fn name(&self, place: u16) -> &str {
        let place = usize::from(place);
        let theirs = SEND_RESULTS.get(place).copied();
        let ours = || self.ours.get(place.checked_sub(SEND_RESULTS.len())?);
        theirs
            .or_else(|| ours().map(String::as_str))
            .unwrap_or("VALIDATION_FAILED")
    }
}

/// What a `statusId` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// Makes two sends of one millisecond different.
    pub serial: u32,
    /// Place of the result in the list of results.
    pub result: u16,
    /// From the request to the final result; `u32::MAX` is never.
    pub delay_ms: u32,
    pub requested_ms: i64,
    pub portal: u32,
}

/// `delay_ms` of a result that never comes.
pub(super) const NEVER: u32 = u32::MAX;

impl Ticket {
    pub(super) fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(28);
        bytes.extend(self.check().to_be_bytes().into_iter().skip(2));
        bytes.extend(self.serial.to_be_bytes());
        bytes.extend(self.result.to_be_bytes());
        bytes.extend(self.delay_ms.to_be_bytes());
        bytes.extend(self.requested_ms.to_be_bytes());
        bytes.extend(self.portal.to_be_bytes());
        URL_SAFE.encode(bytes)
    }

    /// `None` when it is no id of ours.
    pub(super) fn decode(status_id: &str) -> Option<Self> {
        let bytes = URL_SAFE.decode(status_id).ok()?;
        let (check, rest) = bytes.split_first_chunk::<6>()?;
        let (serial, rest) = rest.split_first_chunk()?;
        let (result, rest) = rest.split_first_chunk()?;
        let (delay_ms, rest) = rest.split_first_chunk()?;
        let (requested_ms, rest) = rest.split_first_chunk()?;
        let ticket = Self {
            serial: u32::from_be_bytes(*serial),
            result: u16::from_be_bytes(*result),
            delay_ms: u32::from_be_bytes(*delay_ms),
            requested_ms: i64::from_be_bytes(*requested_ms),
            portal: u32::from_be_bytes(rest.try_into().ok()?),
        };
        ticket
            .check()
            .to_be_bytes()
            .ends_with(check)
            .then_some(ticket)
    }

    /// Tells our ids from others; 48 bits of it are kept.
    fn check(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let Self {
            serial,
            result,
            delay_ms,
            requested_ms,
            portal,
        } = self;
        (serial, result, delay_ms, requested_ms, portal).hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn requested_at(&self) -> Timestamp {
        Timestamp::from_millisecond(self.requested_ms).unwrap_or_default()
    }

    /// When the final result is there; `None` is never.
    pub(super) fn completed_at(&self) -> Option<Timestamp> {
        let delay = Duration::from_millis(self.delay_ms.into());
        (self.delay_ms != NEVER).then(|| clock::after(self.requested_at(), delay))
    }

    /// The answer to the send itself: always `PENDING`.
    pub(super) fn pending(&self) -> Value {
        self.view(Timestamp::MIN, "")
    }

    /// HubSpot's `EmailSendStatusView` at `now`, `PENDING`, then `PROCESSING`, then final.
    ///
    /// HubSpot couples `status` and `sendResult` nowhere. Inferred: a cancelled mail is `CANCELED`,
    /// all else ends `COMPLETE`, `QUEUED` too.
    pub(super) fn view(&self, now: Timestamp, result: &str) -> Value {
        let requested = self.requested_at();
        let started = clock::after(
            requested,
            Duration::from_millis(u64::from(self.delay_ms) / 2),
        );
        let mut view = json!({
            "statusId": self.encode(),
            "requestedAt": millis(requested),
            "status": "PENDING",
        });
        let mut set = |key: &str, value: Value| {
            if let Some(view) = view.as_object_mut() {
                view.insert(key.to_owned(), value);
            }
        };
        let Some(completed) = self.completed_at() else {
            return view;
        };
        if now >= started {
            set("status", "PROCESSING".into());
            set("startedAt", millis(started).into());
        }
        if now >= completed {
            let canceled = matches!(result, "CAMPAIGN_CANCELLED" | "CANCELLED_ABUSE");
            set(
                "status",
                if canceled { "CANCELED" } else { "COMPLETE" }.into(),
            );
            set("completedAt", millis(completed).into());
            set("sendResult", result.into());
            let event = uuid::Uuid::from_u64_pair(self.check(), self.check().rotate_left(32));
            set(
                "eventId",
                json!({"id": event.to_string(), "created": millis(completed)}),
            );
            if !is_mailed(result) {
                set(
                    "message",
                    format!("The email was not sent: {result}").into(),
                );
            }
        }
        view
    }
}

/// As HubSpot writes times: `2023-01-31T20:34:26.575Z`.
pub(super) fn millis(at: Timestamp) -> String {
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: u16 = 43;

    fn ticket(delay_ms: u32) -> Ticket {
        Ticket {
            serial: 7,
            result: SENT,
            delay_ms,
            requested_ms: 1_700_000_000_000,
            portal: 62_515,
        }
    }

    #[test]
    fn an_id_carries_its_ticket_and_a_foreign_one_is_known() {
        let id = ticket(1_000).encode();
        assert_eq!(
            (id.len(), id.ends_with("==")),
            (40, true),
            "the form of HubSpot's: {id}"
        );
        assert_eq!(Ticket::decode(&id), Some(ticket(1_000)));
        assert_eq!(
            Ticket::decode("Hv-ltMeaTXqm_kmxDE0w8AAAAYYJiboWAWm-0Q=="),
            None
        );
        assert_eq!(Ticket::decode("no id at all"), None);
    }

    #[test]
    fn a_result_comes_when_it_is_due() {
        let at = |ms: i64| Timestamp::from_millisecond(1_700_000_000_000 + ms).unwrap();
        let view = |ms| ticket(1_000).view(at(ms), "SENT");
        assert_eq!(view(0)["status"], "PENDING");
        assert_eq!(view(500)["status"], "PROCESSING");
        assert_eq!(view(999)["sendResult"], Value::Null);
        assert_eq!(view(1_000)["status"], "COMPLETE");
        assert_eq!(view(1_000)["sendResult"], "SENT");
        assert_eq!(view(1_000)["completedAt"], "2023-11-14T22:13:21.000Z");
        let lost = ticket(NEVER).view(Timestamp::MAX, "SENT");
        assert_eq!(lost["status"], "PENDING");
    }
}
