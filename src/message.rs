//! The request: HubSpot's own Single Send body, read once and found valid, or found malformed.
//!
//! The body as it came is never changed: [`SendRequest`] is a view of it. Parsing does no I/O,
//! takes no time and never logs, since a body holds addresses.

mod body;
mod environment;
mod recipient;

use std::fmt;
use std::sync::Arc;

use email_address::{EmailAddress, Options};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::body::{Body, Object};
pub use self::body::{expires_at, schema};
pub use self::environment::Environment;
pub use self::recipient::{ROLE_PREFIXES, Recipient};
use crate::hint;

/// The largest request body, in bytes. HubSpot names no limit; a queue needs one.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
/// The longest id, in bytes: an AMQP short string holds 255, and a replay may add `.r99`.
pub const ID_BYTES_MAX: usize = 200;
/// The longest account name, in bytes: it is part of queue names and routing keys.
pub const ACCOUNT_BYTES_MAX: usize = 40;

/// A request that is valid and has an id.
#[derive(Clone)]
pub struct SendRequest {
    /// What makes it one email: `message.sendId`, or else the AMQP `message_id`.
    pub id: MessageId,
    /// HubSpot's content id.
    pub email_id: i64,
    pub to: Recipient,
    pub from: Option<String>,
    pub reply_to: Vec<String>,
    pub cc: Vec<String>,
    pub bcc: Vec<String>,
    /// As it came, to the byte; `None` when absent or null.
    pub contact_properties: Option<Box<RawValue>>,
    /// As it came, to the byte; `None` when absent or null.
    pub custom_properties: Option<Box<RawValue>>,
    pub account: Option<AccountName>,
    pub priority: Option<Priority>,
    pub send_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub producer: Option<String>,
    /// The only environment in which it is taken; `None`: any.
    pub environment: Option<Environment>,
}

/// Why a body is no request. Names the field and the next step, never an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Malformed {
    /// The id, when the body or the `message_id` told one in spite of all.
    pub id: Option<MessageId>,
    pub problem: String,
    pub hint: Option<String>,
    /// What a log may tell of it. The problem may quote the request, and stays out of logs.
    pub told: Option<String>,
}

// === impl SendRequest ===

impl SendRequest {
    /// Reads a body. `message_id` is the id that came beside it (the AMQP property), if any.
    ///
    /// # Errors
    /// [`Malformed`] when it is not one valid request with one id.
    pub fn parse(body: &[u8], message_id: Option<&str>) -> Result<Self, Malformed> {
        Self::read(body, message_id).map_err(|mut malformed| {
            malformed.id = best_effort_id(body, message_id);
            malformed
        })
    }

    /// Reads a body as it is taken from people and over HTTP: where it has no id, one is minted,
    /// which travels beside the body as its `message_id`.
    ///
    /// # Errors
    /// [`Malformed`] when it is not one valid request.
    pub fn parse_or_mint(body: &[u8]) -> Result<(Self, Option<MessageId>), Malformed> {
        let minted = (!has_send_id(body)).then(MessageId::mint);
        let request = Self::parse(body, minted.as_ref().map(MessageId::as_str))?;
        Ok((request, minted))
    }

    fn read(body: &[u8], message_id: Option<&str>) -> Result<Self, Malformed> {
        if body.len() > BODY_BYTES_MAX {
            return Err(Malformed::new(
                format!(
                    "the body has {} bytes; at most {BODY_BYTES_MAX} are taken",
                    body.len()
                ),
                "put large content into the template, not into its properties",
            ));
        }
        let text = std::str::from_utf8(body).map_err(|error| {
            Malformed::new(
                format!("the body is not UTF-8 (byte {})", error.valid_up_to()),
                "publish JSON in UTF-8",
            )
        })?;
        let Object(body): Object<Body> =
            serde_json::from_str(text).map_err(|error| Malformed::of_json(&error))?;
        let Object(message) = body.message;
        let id = one_id(message.send_id.as_deref(), message_id)?;
        if body.email_id < 1 {
            return Err(Malformed::new(
                format!(
                    "emailId is {}; HubSpot's content ids are positive",
                    body.email_id
                ),
                "take the id from the email's address in HubSpot's email tool",
            ));
        }

        let to = Recipient::parse(&message.to)?;
        check_addresses("message.from", message.from.as_slice())?;
        let reply_to = message.reply_to.unwrap_or_default();
        let cc = message.cc.unwrap_or_default();
        let bcc = message.bcc.unwrap_or_default();
        check_addresses("message.replyTo", &reply_to)?;
        check_addresses("message.cc", &cc)?;
        check_addresses("message.bcc", &bcc)?;
        let dispatch = body.dispatch.map(|it| it.0).unwrap_or_default();
        dispatch.check()?;
        Ok(Self {
            id,
            email_id: body.email_id,
            to,
            from: message.from,
            reply_to,
            cc,
            bcc,
            contact_properties: body.contact_properties.map(|p| p.0),
            custom_properties: body.custom_properties.map(|p| p.0),
            account: dispatch.account.map(AccountName::parse).transpose()?,
            priority: dispatch
                .priority
                .as_deref()
                .map(Priority::parse)
                .transpose()?,
            send_at: dispatch.send_at,
            expires_at: dispatch.expires_at,
            producer: dispatch.producer,
            environment: dispatch
                .environment
                .as_deref()
                .map(Environment::parse)
                .transpose()?,
        })
    }
}

impl fmt::Debug for SendRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendRequest")
            .field("id", &self.id)
            .field("email_id", &self.email_id)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

// === impl Malformed ===

impl Malformed {
    pub(crate) fn new(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            id: None,
            problem: problem.into(),
            hint: Some(hint.into()),
            told: None,
        }
    }

    fn of_json(error: &serde_json::Error) -> Self {
        use serde_json::error::Category;
        let at = format!("line {} column {}", error.line(), error.column());
        match error.classify() {
            Category::Data => {
                let told = hint::without_values(&error.to_string());
                let schema = "`postrider schema` prints what a request may hold";
                let rule = || body::rule(&told).unwrap_or(schema).to_owned();
                Self::new(
                    format!("the body is no request: {told}"),
                    hint::nearest_field(&told).unwrap_or_else(rule),
                )
            }
            Category::Syntax | Category::Eof | Category::Io => Self::new(
                format!("the body is not JSON ({at})"),
                "publish one JSON object in each message",
            ),
        }
    }
}

/// A look at the id alone, in a body that may be malformed elsewhere.
#[derive(Deserialize)]
struct Peek {
    message: PeekMessage,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PeekMessage {
    send_id: String,
}

fn has_send_id(body: &[u8]) -> bool {
    serde_json::from_slice::<Peek>(body).is_ok()
}

/// The id that a malformed body would have had: enough to find it again.
fn best_effort_id(body: &[u8], message_id: Option<&str>) -> Option<MessageId> {
    serde_json::from_slice::<Peek>(body)
        .ok()
        .and_then(|peek| MessageId::parse(&peek.message.send_id).ok())
        .or_else(|| message_id.and_then(|id| MessageId::parse(id).ok()))
}

fn one_id(send_id: Option<&str>, message_id: Option<&str>) -> Result<MessageId, Malformed> {
    match (send_id, message_id) {
        (Some(send_id), Some(message_id)) if send_id != message_id => Err(Malformed::new(
            "message.sendId and the AMQP message_id differ: which email is it?",
            "set one of them, or both to the same id",
        )),
        (Some(id), _) | (None, Some(id)) => MessageId::parse(id),
        (None, None) => Err(Malformed::new(
            "there is no id: neither message.sendId nor the AMQP message_id is set",
            "set message.sendId to an id of your own, the same each time you publish this email",
        )),
    }
}

fn check_addresses(field: &str, addresses: &[String]) -> Result<(), Malformed> {
    for address in addresses {
        if EmailAddress::parse_with_options(address, Options::default()).is_err() {
            return Err(Malformed::new(
                format!("{field} holds something that is no email address"),
                "write `ada@example.com` or `Ada <ada@example.com>`",
            ));
        }
    }
    Ok(())
}

// === the small words ===

/// Names one email of one account: HubSpot's `sendId`. Safe to log.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageId(String);

impl MessageId {
    /// # Errors
    /// [`Malformed`] when it is empty, longer than [`ID_BYTES_MAX`], or holds a control character.
    pub fn parse(id: &str) -> Result<Self, Malformed> {
        if id.trim().is_empty() || id.len() > ID_BYTES_MAX || id.chars().any(char::is_control) {
            return Err(Malformed::new(
                format!("the id has {} bytes or a control character", id.len()),
                format!("an id has 1 to {ID_BYTES_MAX} bytes and no control characters"),
            ));
        }
        Ok(Self(id.to_owned()))
    }

    /// A new id, in the order of time (`UUIDv7`).
    #[must_use]
    pub fn mint() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }

    /// The same, at this time and by this chance.
    #[must_use]
    pub fn mint_at(now: Timestamp, rng: &mut fastrand::Rng) -> Self {
        let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
        let [chance @ .., _, _, _, _, _, _] = rng.u128(..).to_be_bytes();
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &chance).into_uuid();
        Self(id.to_string())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The `sendId` of the given generation: the id itself, and `ID.r2` after a final refusal,
    /// since HubSpot has used the first one up.
    #[must_use]
    pub fn generation(&self, generation: u32) -> String {
        if generation <= 1 {
            self.0.clone()
        } else {
            format!("{}.r{generation}", self.0)
        }
    }
}

impl TryFrom<String> for MessageId {
    type Error = Malformed;
    fn try_from(id: String) -> Result<Self, Malformed> {
        Self::parse(&id)
    }
}

impl From<MessageId> for String {
    fn from(id: MessageId) -> Self {
        id.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An account's name in the configuration, in queue names and in labels. Shared: whatever is done
/// names it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountName(Arc<str>);

impl AccountName {
    /// # Errors
    /// [`Malformed`] unless it is `[a-z0-9][a-z0-9_-]*`, at most [`ACCOUNT_BYTES_MAX`] long.
    pub fn parse(name: impl Into<String>) -> Result<Self, Malformed> {
        let name = name.into();
        let first = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let rest = name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
        if first && rest && name.len() <= ACCOUNT_BYTES_MAX {
            Ok(Self(name.into()))
        } else {
            Err(Malformed::new(
                format!("`{}` is no account name", hint::shown(&name)),
                "lower-case letters, digits, `-` and `_`, at most 40",
            ))
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for AccountName {
    fn default() -> Self {
        Self("default".into())
    }
}

impl TryFrom<String> for AccountName {
    type Error = Malformed;
    fn try_from(name: String) -> Result<Self, Malformed> {
        Self::parse(name)
    }
}

impl From<AccountName> for String {
    fn from(name: AccountName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which of an account's three lanes a request waits in.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

impl Priority {
    /// In the order in which they are served.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// # Errors
    /// [`Malformed`] unless it is one of the three words.
    pub fn parse(name: &str) -> Result<Self, Malformed> {
        let known = Self::ALL.map(Self::as_str);
        Self::ALL
            .into_iter()
            .find(|priority| priority.as_str() == name)
            .ok_or_else(|| {
                Malformed::new(
                    format!("`{}` is no priority", hint::shown(name)),
                    match hint::nearest(name, known) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("one of {}", known.join(", ")),
                    },
                )
            })
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
