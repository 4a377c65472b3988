//! What HubSpot tells about the account and the token, without sending.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{Model, Turn};
use crate::sandbox::answer::{APP_ID, Answer};
use crate::sandbox::faults::CallFault;
use crate::sandbox::status::millis;

/// The day's limit that `api-usage` tells where none is set: HubSpot's professional tier.
const DAILY: u64 = 625_000;

/// Whether a token has the scopes that sending takes.
pub(super) fn may_send(token: &str) -> bool {
    !token.contains("-unscoped")
}

/// Which bearer tokens are accepted.
#[derive(Clone, Debug)]
pub enum Tokens {
    Any,
    /// None of them, when the list is empty.
    These(Vec<SecretString>),
}

impl Tokens {
    pub(super) fn accept(&self, token: &str) -> bool {
        match self {
            Self::Any => !token.is_empty(),
            Self::These(tokens) => tokens.iter().any(|known| known.expose_secret() == token),
        }
    }
}

impl Model {
    /// HubSpot's `PortalInformationResponse`.
    pub(super) fn account(&self, turn: &Turn<'_>) -> Value {
        let offset = self.options.time_zone.to_offset(turn.now);
        let minutes = offset.seconds() / 60;
        let sign = if minutes < 0 { '-' } else { '+' };
        json!({
            "portalId": turn.portal,
            "accountType": self.options.account_type,
            "timeZone": self.options.time_zone.iana_name().unwrap_or("UTC"),
            "companyCurrency": "USD",
            "additionalCurrencies": [],
            "utcOffset": format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60),
            "utcOffsetMilliseconds": i64::from(offset.seconds()) * 1_000,
            "uiDomain": "app.hubspot.com",
            "dataHostingLocation": "na1",
        })
    }

    pub(super) fn usage(&self, turn: &Turn<'_>) -> Value {
        let day = self.limits.day(turn.portal);
        json!({"results": [{
            "name": "private-apps-api-calls-daily",
            "usageLimit": self.limits.daily.unwrap_or(DAILY),
            "currentUsage": day.map_or(0, |day| day.used),
            "collectedAt": millis(turn.now),
            "fetchStatus": "SUCCESS",
            "resetsAt": millis(day.map_or(turn.now, |day| day.ends)),
        }]})
    }

    /// The token travels in the body. What HubSpot answers to an unknown one was never seen.
    pub(super) fn token_info(&mut self, turn: &Turn<'_>) -> Answer {
        let body: Value = serde_json::from_slice(turn.call.body).unwrap_or_default();
        let Some(token) = body.get("tokenKey").and_then(Value::as_str) else {
            return turn
                .answers
                .invalid("Some required fields were not set: [tokenKey]");
        };
        // Whether HubSpot answers it for an OAuth token was never seen; here it does.
        let mut scopes = match self.oauth.access(token, turn.now) {
            Some(Ok(scopes)) => scopes.iter().map(String::as_str).collect(),
            Some(Err(since)) => return turn.answers.expired(since, turn.now),
            None if self.tokens.accept(token) => {
                vec!["oauth", "content", "marketing-email", "transactional-email"]
            }
            None => return turn.answers.unauthorized(),
        };
        let age = self.faults_age();
        let strike = self.faults.during(age);
        let forbidden = strike.is_some_and(|strike| strike.fault == CallFault::Http(403));
        if forbidden || !may_send(token) {
            scopes.truncate(1);
        }
        turn.answers.json(
            200,
            &json!({
                "userId": 1,
                "hubId": self.limits.portal_of(token),
                "appId": APP_ID,
                "scopes": scopes,
            }),
        )
    }
}
