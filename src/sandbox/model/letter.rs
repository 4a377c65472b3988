//! The body of a send, as HubSpot reads it.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::emails::{BATCH, DRAFT, MISSING};
use crate::hint;
use crate::message::ROLE_PREFIXES;
use crate::sandbox::faults::Magic;

/// What the model needs of a body.
#[derive(Debug)]
pub(super) struct Letter {
    pub email_id: i64,
    pub to: String,
    pub send_id: Option<String>,
    pub magic: Magic,
}

/// The dated specs also require the maps and the lists. Whether HubSpot does is not known, so
/// they may be missing here. Fields that are not in the spec pass, too.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    email_id: i64,
    message: Message,
    #[serde(default, borrow)]
    contact_properties: Option<&'a RawValue>,
    #[serde(default, borrow)]
    custom_properties: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "some fields are read for their types only")]
struct Message {
    to: String,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    reply_to: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    cc: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    bcc: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    send_id: Option<String>,
}

impl Letter {
    /// Reads a body, or says what is wrong with it. HubSpot's own words for it were not seen;
    /// these have the form of its CRM's.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let body: Body<'_> = serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let words = hint::without_values(&error.to_string());
            format!("Invalid input JSON on line {line}, column {column}: {words}")
        })?;
        // Maps, not the arrays of v1.
        let properties = [body.contact_properties, body.custom_properties];
        if properties
            .into_iter()
            .flatten()
            .any(|properties| !properties.get().starts_with('{'))
        {
            return Err("contactProperties and customProperties must be objects".to_owned());
        }
        let Message { to, send_id, .. } = body.message;
        Ok(Self {
            email_id: body.email_id,
            magic: Magic::of(&to),
            send_id: send_id.filter(|id| !id.is_empty()),
            to,
        })
    }

    /// What HubSpot finds wrong with it only after it accepted the send.
    pub(super) fn flaw(&self) -> Option<&'static str> {
        let local = self.to.rsplit_once('@').map(|(local, _)| local);
        let is_role = |local: &str| {
            ROLE_PREFIXES
                .iter()
                .any(|role| role.eq_ignore_ascii_case(local))
        };
        if local.is_none_or(|local| local.is_empty() || is_role(local)) {
            Some("INVALID_TO_ADDRESS")
        } else if self.email_id < 1 || [MISSING, BATCH, DRAFT].contains(&self.email_id) {
            Some("MISSING_CONTENT")
        } else {
            None
        }
    }
}
