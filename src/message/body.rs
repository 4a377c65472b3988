//! The body as it is written: the types from which both the parser and the schema are made.

use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{BODY_BYTES_MAX, Malformed, Priority};

/// The longest `dispatch.producer`, in characters.
const PRODUCER_CHARS_MAX: usize = 100;
/// What is wrong with a time, in the place of its parser's long words.
const NO_TIME: &str = "dispatch.sendAt or dispatch.expiresAt is no time";

/// HubSpot's Single Send body, with one field of Postrider's own: `dispatch`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "SendRequest")]
pub(super) struct Body {
    /// The content id of the email, from HubSpot's email tool (int64).
    #[schemars(range(min = 1, max = 9_223_372_036_854_775_807_i64))]
    pub(super) email_id: i64,
    #[schemars(with = "Message")]
    pub(super) message: Object<Message>,
    /// Written to the contact record; `{{ contact.NAME }}` in the template.
    #[serde(default)]
    pub(super) contact_properties: Option<Properties>,
    /// Not stored by HubSpot; `{{ custom.NAME }}` in the template.
    #[serde(default)]
    pub(super) custom_properties: Option<Properties>,
    /// Postrider's own instructions. Never sent to HubSpot.
    #[serde(default)]
    #[schemars(with = "Option<Dispatch>")]
    pub(super) dispatch: Option<Object<Dispatch>>,
}

/// Who gets the email, from whom, and under which id.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Message {
    /// The one recipient.
    #[schemars(length(min = 1))]
    pub(super) to: String,
    /// The sender: `ada@example.com` or `Ada <ada@example.com>`.
    #[serde(default)]
    pub(super) from: Option<String>,
    #[serde(default)]
    pub(super) reply_to: Option<Vec<String>>,
    #[serde(default)]
    pub(super) cc: Option<Vec<String>>,
    #[serde(default)]
    pub(super) bcc: Option<Vec<String>>,
    /// The id of this email in its HubSpot account: at most one email is sent for it. At most 200
    /// bytes in UTF-8.
    #[serde(default)]
    #[schemars(length(min = 1, max = 200))]
    pub(super) send_id: Option<String>,
}

/// Postrider's own instructions for one request.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Dispatch {
    /// The account that sends it, as named in the configuration.
    #[serde(default)]
    #[schemars(length(max = 40), regex(pattern = "^[a-z0-9][a-z0-9_-]*$"))]
    pub(super) account: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<Priority>")]
    pub(super) priority: Option<String>,
    /// Not before this time (RFC 3339, with an offset).
    #[serde(default, deserialize_with = "time")]
    pub(super) send_at: Option<Timestamp>,
    /// Not after this time: then it is a dead letter, reason `expired`. Until then it goes before
    /// requests of its priority that expire later.
    #[serde(default, deserialize_with = "time")]
    pub(super) expires_at: Option<Timestamp>,
    /// Who published it: for people who read dead letters.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub(super) producer: Option<String>,
    /// The only environment in which it is taken, as a worker's configuration names its own; a
    /// worker of another one makes it a dead letter, reason `malformed`.
    #[serde(default)]
    #[schemars(length(max = 30), regex(pattern = "^[a-z0-9-]+$"))]
    pub(super) environment: Option<String>,
}

/// When a request expires, in a body that is not read yet and may be malformed elsewhere. A look: a
/// name that is spelt with escapes is not seen, and most bodies are only searched for the word.
#[must_use]
pub fn expires_at(body: &[u8]) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Peek {
        dispatch: PeekDispatch,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct PeekDispatch {
        expires_at: Timestamp,
    }
    let text = std::str::from_utf8(body).ok();
    let text =
        text.filter(|text| text.len() <= BODY_BYTES_MAX && text.contains("\"expiresAt\""))?;
    let peek: Peek = serde_json::from_str(text).ok()?;
    Some(peek.dispatch.expires_at)
}

/// The JSON Schema of a request (draft 2020-12), made from the parser's own types.
#[must_use]
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Body).to_value();
    if let Some(map) = schema.as_object_mut() {
        map.insert("title".into(), "A Postrider request".into());
    }
    schema
}

/// The rule that a value broke, told by the parser's words: of the fields that people get wrong
/// most often.
pub(super) fn rule(problem: &str) -> Option<&'static str> {
    // There is no other number.
    if problem.contains("expected i64") {
        Some("emailId is a whole number without quotes, such as 4126643121")
    } else if problem.contains(NO_TIME) {
        Some("write RFC 3339 with an offset, in quotes: \"2026-12-01T10:00:00Z\"")
    } else {
        None
    }
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Option::deserialize(deserializer).map_err(|_| D::Error::custom(NO_TIME))
}

impl Dispatch {
    /// What no type can say.
    pub(super) fn check(&self) -> Result<(), Malformed> {
        if self
            .producer
            .as_ref()
            .is_some_and(|producer| producer.chars().count() > PRODUCER_CHARS_MAX)
        {
            return Err(Malformed::new(
                format!("dispatch.producer is longer than {PRODUCER_CHARS_MAX} characters"),
                "give the producer a short name",
            ));
        }
        match (self.send_at, self.expires_at) {
            (Some(send), Some(expires)) if expires <= send => Err(Malformed::new(
                format!("dispatch.expiresAt ({expires}) is not after dispatch.sendAt ({send})"),
                "give it time between the two",
            )),
            _ => Ok(()),
        }
    }
}

// === objects ===

/// A JSON object and nothing else: for a struct alone, serde would also take an array that holds
/// the fields in their order, and the schema would not.
pub(super) struct Object<T>(pub(super) T);

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// A JSON object that is passed on to the byte.
pub(super) struct Properties(pub(super) Box<RawValue>);

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        if raw.get().starts_with('{') {
            Ok(Self(raw))
        } else {
            Err(D::Error::custom(
                "contactProperties and customProperties are objects of names and values",
            ))
        }
    }
}

impl JsonSchema for Properties {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Properties".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "object", "additionalProperties": true})
    }
}
