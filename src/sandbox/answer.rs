//! What is asked and what is answered: HubSpot's paths, statuses, headers and bodies.
//!
//! The bodies are the ones seen in the wild (errors from real logs, the rest from the specs).
//! Where HubSpot is silent a comment says so.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One HTTP request to HubSpot, as far as the model cares.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub method: &'a str,
    /// Percent-decoding is done here, not before.
    pub path: &'a str,
    pub query: Option<&'a str>,
    /// The value of `Authorization`.
    pub authorization: Option<&'a str>,
    pub body: &'a [u8],
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// What a call asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Send(Api),
    Status(String),
    AccountDetails,
    ApiUsage,
    /// An email of the portal, by its id.
    Email(String),
    TokenInfo,
    WrongMethod,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    Transactional,
    Marketing,
}

/// Which limit a call counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bucket {
    Send,
    Api,
}

/// HubSpot's dated versions. `2025-09` has no marketing single send.
const DATED: [&str; 3] = ["2025-09", "2026-03", "2026-09"];

impl Operation {
    pub(super) fn of(method: &str, path: &str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (needs, operation) = match parts.as_slice() {
            ["marketing", "v3", "transactional", "single-email", "send"] => {
                ("POST", Self::Send(Api::Transactional))
            }
            [
                "marketing",
                "transactional",
                version,
                "single-email",
                "send",
            ] if DATED.contains(version) => ("POST", Self::Send(Api::Transactional)),
            ["marketing", "v4", "email", "single-send"]
            | [
                "marketing",
                "email-campaigns",
                "2026-03" | "2026-09",
                "single-send",
            ] => ("POST", Self::Send(Api::Marketing)),
            ["marketing", "v3", "email", "send-statuses", id] => {
                let id = percent_encoding::percent_decode_str(id).decode_utf8_lossy();
                ("GET", Self::Status(id.into_owned()))
            }
            // The one dated path of HubSpot's specs, and the one before it.
            ["marketing", "emails", "2026-03", id] | ["marketing", "v3", "emails", id] => {
                ("GET", Self::Email((*id).to_owned()))
            }
            ["account-info", version, rest @ ..] if *version == "v3" || DATED.contains(version) => {
                match rest {
                    ["details"] => ("GET", Self::AccountDetails),
                    ["api-usage", "daily", "private-apps"] => ("GET", Self::ApiUsage),
                    _ => return Self::Unknown,
                }
            }
            ["oauth", "v2", "private-apps", "get", "access-token-info"] => {
                ("POST", Self::TokenInfo)
            }
            _ => return Self::Unknown,
        };
        if method == needs {
            operation
        } else {
            Self::WrongMethod
        }
    }

    pub(super) fn bucket(&self) -> Bucket {
        if matches!(self, Self::Send(_)) {
            Bucket::Send
        } else {
            Bucket::Api
        }
    }

    /// The scopes of which a token needs one.
    pub(super) fn scopes(&self) -> &'static [&'static str] {
        match self {
            Self::Send(Api::Marketing) => &["marketing-email", "transactional-email"],
            Self::Send(Api::Transactional)
            | Self::Status(_)
            | Self::AccountDetails
            | Self::ApiUsage
            | Self::TokenInfo
            | Self::WrongMethod
            | Self::Unknown => &["transactional-email"],
            Self::Email(_) => &["content", "marketing.email.read"],
        }
    }

    /// Whether a token that may do nothing is refused over its scopes. What tells of the token and the
    /// account is answered to every token.
    pub(super) fn wants_scope(&self) -> bool {
        matches!(self, Self::Send(_) | Self::Status(_) | Self::Email(_))
    }
}

impl Bucket {
    pub const ALL: [Self; 2] = [Self::Send, Self::Api];

    pub fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Api => "api",
        }
    }
}

impl Api {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Transactional => "transactional",
            Self::Marketing => "marketing",
        }
    }
}

/// One HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

/// The bodies of one answer: each carries the same correlation id as the header.
pub(super) struct Answers {
    pub correlation_id: String,
}

impl Answers {
    pub(super) fn json(&self, status: u16, body: &Value) -> Answer {
        self.answer(status, "application/json;charset=utf-8", body.to_string())
    }

    fn answer(&self, status: u16, content_type: &str, body: String) -> Answer {
        Answer {
            status,
            headers: vec![
                ("content-type", content_type.to_owned()),
                ("x-hubspot-correlation-id", self.correlation_id.clone()),
            ],
            body: body.into(),
        }
    }

    fn error(&self, status: u16, category: &str, message: &str, more: Value) -> Answer {
        let mut body = json!({
            "status": "error",
            "message": message,
            "correlationId": self.correlation_id,
            "category": category,
        });
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        self.json(status, &body)
    }

    /// 401 with the words of real logs.
    pub(super) fn unauthorized(&self) -> Answer {
        self.not_authenticated(
            "Authentication credentials not found. This API supports OAuth 2.0 authentication \
             and you can find more details at \
             https://developers.hubspot.com/docs/methods/auth/oauth-overview",
            Value::Null,
        )
    }

    /// 401 for an API key, which HubSpot gave up in 2022.
    pub(super) fn api_key(&self) -> Answer {
        self.not_authenticated(
            "The API key provided is invalid. View or manage your API key here: \
             https://app.hubspot.com/l/api-key/",
            json!({"links": {"api key": "https://app.hubspot.com/l/api-key/"}}),
        )
    }

    /// 401 for an OAuth access token past its end, as real logs have it.
    pub(super) fn expired(&self, since: Timestamp, now: Timestamp) -> Answer {
        let ago = crate::clock::until(since, now).as_secs();
        self.error(
            401,
            "EXPIRED_AUTHENTICATION",
            &format!("The OAuth token used to make this call expired {ago} second(s) ago."),
            json!({"context": {"expire time": [since.to_string()]}}),
        )
    }

    fn not_authenticated(&self, message: &str, more: Value) -> Answer {
        self.error(401, "INVALID_AUTHENTICATION", message, more)
            .with("x-hubspot-auth-failure", "401 Unauthorized")
    }

    pub(super) fn missing_scopes(&self, scopes: &[&str]) -> Answer {
        let required = json!({"requiredGranularScopes": scopes});
        let message = "One or more of the following scopes are required.";
        self.error(
            403,
            "MISSING_SCOPES",
            "This app hasn't been granted all required scopes to make this call.",
            json!({"errors": [{"message": message, "context": required}]}),
        )
    }

    pub(super) fn invalid(&self, message: &str) -> Answer {
        self.error(400, "VALIDATION_ERROR", message, Value::Null)
    }

    /// A 400 that somebody got from Single Send, with no detail at all.
    pub(super) fn plain_invalid(&self) -> Answer {
        self.answer(
            400,
            "text/plain;charset=utf-8",
            "Invalid request".to_owned(),
        )
    }

    /// The 404 of an unknown status id. HubSpot's own was never seen; this is the one of its CRM.
    pub(super) fn not_found(&self) -> Answer {
        self.error(404, "OBJECT_NOT_FOUND", "resource not found", Value::Null)
    }

    /// The 404 of an unknown path: without a category.
    pub(super) fn no_such_path(&self) -> Answer {
        self.without_category(404, "resource not found")
    }

    /// HubSpot's words for it were not seen.
    pub(super) fn wrong_method(&self) -> Answer {
        self.without_category(405, "Method Not Allowed")
    }

    fn without_category(&self, status: u16, message: &str) -> Answer {
        self.json(
            status,
            &json!({
                "status": "error",
                "message": message,
                "correlationId": self.correlation_id,
            }),
        )
    }

    /// The shape of a 429 is its own: `errorType` and `policyName`, no `category`.
    pub(super) fn rolling_limit(&self, window: Duration, portal: u32) -> Answer {
        // HubSpot has two short policies; the one of seconds is known from its search API.
        let (policy, words) = if window > Duration::from_secs(1) {
            ("TEN_SECONDLY_ROLLING", "ten_secondly_rolling")
        } else {
            ("SECONDLY", "secondly")
        };
        self.json(
            429,
            &json!({
                "status": "error",
                "message": format!("You have reached your {words} limit."),
                "errorType": "RATE_LIMIT",
                "correlationId": self.correlation_id,
                "policyName": policy,
                "groupName": format!("publicapi:private_app-api-calls-ten-secondly:{APP_ID}:{portal}"),
            }),
        )
    }

    pub(super) fn daily_limit(&self) -> Answer {
        self.json(
            429,
            &json!({
                "status": "error",
                "message": "You have reached your daily limit.",
                "errorType": "RATE_LIMIT",
                "correlationId": self.correlation_id,
                "policyName": "DAILY",
                "requestId": self.correlation_id,
            }),
        )
    }

    /// The account moves between data centres; `Retry-After` is in whole seconds.
    pub(super) fn migrating(&self, remaining: Duration) -> Answer {
        let secs = remaining.as_millis().div_ceil(1_000).max(1);
        self.without_category(477, "Migration in progress")
            .with("retry-after", secs.to_string())
    }

    /// The answer with this status that stands for it when it is asked for by name.
    pub(super) fn of_status(
        &self,
        status: u16,
        operation: &Operation,
        portal: u32,
        left: Duration,
    ) -> Answer {
        match status {
            400 => self.invalid("Invalid input (asked for by a fault)"),
            401 => self.unauthorized(),
            403 => self.missing_scopes(operation.scopes()),
            404 => self.no_such_path(),
            405 => self.wrong_method(),
            409 => self.error(
                409,
                "CONFLICT",
                "Conflict (asked for by a fault)",
                Value::Null,
            ),
            429 => self.rolling_limit(Duration::from_secs(10), portal),
            477 => self.migrating(left),
            500 => self.without_category(500, "internal error"),
            502 => self.without_category(502, "Bad Gateway"),
            503 => self.without_category(503, "Service Unavailable"),
            504 => self.without_category(504, "Gateway Timeout"),
            other => self.without_category(other, "An error occurred (asked for by a fault)"),
        }
    }
}

/// The app that every token of the sandbox belongs to.
pub(super) const APP_ID: u32 = 1_000_001;

impl Answer {
    #[must_use]
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_single_send_is_known() {
        for (path, api) in [
            (
                "/marketing/v3/transactional/single-email/send",
                Api::Transactional,
            ),
            (
                "/marketing/transactional/2025-09/single-email/send",
                Api::Transactional,
            ),
            (
                "/marketing/transactional/2026-09/single-email/send",
                Api::Transactional,
            ),
            ("/marketing/v4/email/single-send", Api::Marketing),
            (
                "/marketing/email-campaigns/2026-03/single-send",
                Api::Marketing,
            ),
        ] {
            assert_eq!(Operation::of("POST", path), Operation::Send(api), "{path}");
            assert_eq!(Operation::of("GET", path), Operation::WrongMethod, "{path}");
        }
        assert_eq!(
            Operation::of("GET", "/marketing/v3/email/send-statuses/a%3D%3D"),
            Operation::Status("a==".into())
        );
        assert_eq!(
            Operation::of("POST", "/marketing/transactional/2024-01/single-email/send"),
            Operation::Unknown
        );
    }
}
