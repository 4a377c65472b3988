//! The bodies: what goes out, to the byte; what comes back, read with forbearance.
//!
//! HubSpot tells its clients to treat every field of an error as optional, and some of its errors
//! are plain text. So an answer is read field by field: one that is missing or of a wrong type is
//! passed over, and never spoils the rest.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use super::token::Token;
use crate::message::SendRequest;
use crate::outcome::Words;
use crate::provider::{DailyLimit, RollingLimit};

/// The longest of HubSpot's words that is kept, in characters: they travel in a message header.
const WORD_CHARS_MAX: usize = 500;
/// As much as a body seldom has beside its properties.
const REST_BYTES: usize = 512;
/// The longest status id that is taken, in bytes. The one seen in the wild has 40.
const STATUS_ID_BYTES_MAX: usize = 512;

// === out ===

/// One call: POST when it has a body, which is JSON, and else GET.
#[derive(Clone, Debug)]
pub struct Call {
    pub(super) url: Url,
    pub(super) body: Option<Vec<u8>>,
    pub(super) token: Token,
}

impl Call {
    pub(super) fn get(url: &Url, token: Token) -> Self {
        Self {
            url: url.clone(),
            body: None,
            token,
        }
    }

    pub(super) fn post(url: &Url, body: Vec<u8>, token: Token) -> Self {
        Self {
            body: Some(body),
            ..Self::get(url, token)
        }
    }

    #[must_use]
    pub fn method(&self) -> &'static str {
        if self.body.is_some() { "POST" } else { "GET" }
    }

    #[must_use]
    pub fn path(&self) -> &str {
        self.url.path()
    }

    /// The value of `Authorization`: a secret.
    #[must_use]
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.token.expose())
    }

    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    email_id: i64,
    message: Message<'a>,
    contact_properties: Properties<'a>,
    custom_properties: Properties<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    to: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    reply_to: &'a [String],
    cc: &'a [String],
    bcc: &'a [String],
    send_id: &'a str,
}

/// A map as it came, or an empty one.
struct Properties<'a>(Option<&'a RawValue>);

/// The body of Single Send. The dated specs require the lists and maps even when they are empty;
/// the older ones do not mind. `dispatch` is ours and never goes out.
pub(super) fn send_body(request: &SendRequest, send_id: &str) -> serde_json::Result<Vec<u8>> {
    let properties = [&request.contact_properties, &request.custom_properties];
    let properties = properties.into_iter().flatten();
    let length: usize = properties.map(|raw| raw.get().len()).sum();
    let mut bytes = Vec::with_capacity(length + REST_BYTES);
    let body = Body {
        email_id: request.email_id,
        message: Message {
            to: request.to.expose(),
            from: request.from.as_deref(),
            reply_to: &request.reply_to,
            cc: &request.cc,
            bcc: &request.bcc,
            send_id,
        },
        contact_properties: Properties(request.contact_properties.as_deref()),
        custom_properties: Properties(request.custom_properties.as_deref()),
    };
    serde_json::to_writer(&mut bytes, &body)?;
    Ok(bytes)
}

impl Serialize for Properties<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(raw) => raw.serialize(serializer),
            None => serializer.serialize_map(Some(0))?.end(),
        }
    }
}

// === in ===

/// One HTTP answer, its body cut to a bound.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
    json: OnceLock<Value>,
}

impl Answer {
    /// An answer that came by another way than HTTP. A header that HTTP could not carry is left out.
    #[must_use]
    pub fn new(status: u16, headers: &[(&'static str, String)], body: &[u8]) -> Self {
        let headers = headers.iter().filter_map(|(name, value)| {
            let value = HeaderValue::from_str(value).ok()?;
            Some((HeaderName::from_static(name), value))
        });
        let body = String::from_utf8_lossy(body).into_owned();
        Self::with_headers(status, headers.collect(), body)
    }

    pub(super) fn with_headers(status: u16, headers: HeaderMap, body: String) -> Self {
        Self {
            status,
            headers,
            body,
            json: OnceLock::new(),
        }
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The rolling window that the call counted in, where the headers tell it.
    pub(super) fn rolling_limit(&self) -> Option<RollingLimit> {
        let window = self.number("x-hubspot-ratelimit-interval-milliseconds")?;
        Some(RollingLimit {
            max: u32::try_from(self.number("x-hubspot-ratelimit-max")?).ok()?,
            remaining: u32::try_from(self.number("x-hubspot-ratelimit-remaining")?).ok()?,
            window: Duration::from_millis(window),
        })
    }

    /// The account's day, where the headers tell it.
    pub(super) fn daily_limit(&self) -> Option<DailyLimit> {
        Some(DailyLimit {
            max: self.number("x-hubspot-ratelimit-daily")?,
            remaining: self.number("x-hubspot-ratelimit-daily-remaining")?,
        })
    }

    fn number(&self, header: &str) -> Option<u64> {
        self.header(header)?.trim().parse().ok()
    }

    /// The body as JSON, read once; null when it is none.
    pub(super) fn json(&self) -> &Value {
        let read = || serde_json::from_str(&self.body).unwrap_or_default();
        self.json.get_or_init(read)
    }

    /// HubSpot's own words in an error or in a status view.
    pub(super) fn words(&self) -> Words {
        let json = self.json();
        Words {
            status: Some(self.status),
            category: text(json, "category").or_else(|| text(json, "errorType")),
            sub_category: text(json, "subCategory"),
            message: if json.is_object() {
                text(json, "message")
            } else {
                prose(&self.body)
            },
            correlation_id: self
                .header("x-hubspot-correlation-id")
                .map(cut)
                .or_else(|| text(json, "correlationId")),
            policy_name: text(json, "policyName"),
            send_result: text(json, "sendResult"),
        }
    }

    /// What the result is to be looked up by, when the answer names it.
    pub(super) fn status_id(&self) -> Option<String> {
        let json = self.json();
        let id = json.get("statusId")?.as_str()?;
        (1..=STATUS_ID_BYTES_MAX)
            .contains(&id.len())
            .then(|| id.to_owned())
    }
}

/// A field that holds one word or number, cut to a bound.
pub(super) fn text(json: &Value, name: &str) -> Option<String> {
    let value = json.get(name)?;
    match value.as_str() {
        Some(text) => (!text.is_empty()).then(|| cut(text)),
        None => value.is_number().then(|| value.to_string()),
    }
}

/// What a body that is no JSON says: plain text as it is, of an HTML page its title.
fn prose(body: &str) -> Option<String> {
    let body = body.trim();
    let told = if body.starts_with('<') {
        let (_, rest) = body.split_once("<title>")?;
        rest.split_once("</title>")?.0.trim()
    } else {
        body
    };
    (!told.is_empty()).then(|| cut(told))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(WORD_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_from_the_headers_where_they_are_whole() {
        let all = [
            ("x-hubspot-ratelimit-daily", "625000".to_owned()),
            ("x-hubspot-ratelimit-daily-remaining", "624999".to_owned()),
            (
                "x-hubspot-ratelimit-interval-milliseconds",
                "10000".to_owned(),
            ),
            ("x-hubspot-ratelimit-max", "190".to_owned()),
            ("x-hubspot-ratelimit-remaining", "7".to_owned()),
        ];
        let answer = Answer::new(200, &all, b"");
        let (max, remaining) = (625_000, 624_999);
        assert_eq!(answer.daily_limit(), Some(DailyLimit { max, remaining }));
        let rolling = RollingLimit {
            max: 190,
            remaining: 7,
            window: Duration::from_secs(10),
        };
        assert_eq!(answer.rolling_limit(), Some(rolling));
        let (_, some) = all.split_at(1);
        assert_eq!(
            Answer::new(200, some, b"").daily_limit(),
            None,
            "an OAuth app"
        );
        let odd = [("x-hubspot-ratelimit-max", "-1".to_owned())];
        assert_eq!(Answer::new(200, &odd, b"").rolling_limit(), None);
    }
}
