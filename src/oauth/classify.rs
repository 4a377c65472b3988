//! What the token endpoint's answer means. Pure.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{OAuthError, Words};
use crate::clock;

/// Characters of HubSpot's words that are repeated.
const WORD_CHARS_MAX: usize = 60;
const MESSAGE_CHARS_MAX: usize = 300;
/// The life of an access token that does not tell its own: HubSpot's.
const LIFE: Duration = Duration::from_mins(30);
/// No token lives longer, whatever an answer says.
const LIFE_MAX: Duration = Duration::from_hours(24);

/// An answer that grants: the same, whether it was asked with a code or a refresh token.
pub(super) struct Granted {
    pub(super) access_token: SecretString,
    /// After a refresh it may be missing: then the old one stays.
    pub(super) refresh_token: Option<SecretString>,
    pub(super) expires_at: Timestamp,
    pub(super) hub_id: Option<u64>,
    pub(super) scopes: Option<Vec<String>>,
}

/// HubSpot's `AccessTokenResponse`; what is not read is not needed.
#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    refresh_token: Option<String>,
    expires_in: Option<i64>,
    hub_id: Option<u64>,
    scopes: Option<Vec<String>>,
}

/// HubSpot's answer about a token. v1 tells no `active`, and of one that it takes the portal.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenInfo {
    active: Option<bool>,
    hub_id: Option<u64>,
}

/// Every field may be missing, and any may be of another kind.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: Option<serde_json::Value>,
    error_description: Option<serde_json::Value>,
    status: Option<serde_json::Value>,
    message: Option<serde_json::Value>,
}

/// `secrets` are those that the call carried: an answer that repeats one has it blotted out.
pub(super) fn classify(
    status: u16,
    body: &[u8],
    retry_after: Option<Duration>,
    secrets: &[&SecretString],
    now: Timestamp,
) -> Result<Granted, OAuthError> {
    if (200..300).contains(&status) {
        return granted(body, now).ok_or_else(|| OAuthError::Failed {
            words: Words {
                status,
                message: Some("the answer is no token".into()),
                ..Words::default()
            },
        });
    }
    let words = words(status, body, secrets);
    // A 5xx may come from anything between us and HubSpot, and no word of it makes a login bad.
    if !(400..500).contains(&status) {
        return Err(OAuthError::Failed { words });
    }
    let of_error = words.error.as_deref().and_then(verdict_of_error);
    let of_code = words.code.as_deref().and_then(verdict_of_code);
    Err(match of_error.or(of_code) {
        Some(Whose::Account) => OAuthError::InvalidGrant { words },
        Some(Whose::App) => OAuthError::InvalidClient { words },
        None if status == 429 => OAuthError::Limited { words, retry_after },
        None => OAuthError::Failed { words },
    })
}

/// The answer to whether HubSpot still takes a refresh token. `secrets` as in [`classify`].
///
/// A 404 tells nothing: v1 is about to end, and what it says of an unknown token was not seen.
pub(super) fn introspected(
    status: u16,
    body: &[u8],
    retry_after: Option<Duration>,
    secrets: &[&SecretString],
    now: Timestamp,
) -> Result<(), OAuthError> {
    if !(200..300).contains(&status) {
        return classify(status, body, retry_after, secrets, now).map(|_| ());
    }
    let told = |message: &str| Words {
        status,
        message: Some(message.into()),
        ..Words::default()
    };
    let info: TokenInfo = serde_json::from_slice(body).unwrap_or_default();
    match (info.active, info.hub_id) {
        (Some(true), _) | (None, Some(_)) => Ok(()),
        (Some(false), _) => Err(OAuthError::InvalidGrant {
            words: told("the refresh token is not active"),
        }),
        (None, None) => Err(OAuthError::Failed {
            words: told("the answer does not tell of the refresh token"),
        }),
    }
}

#[derive(Clone, Copy)]
enum Whose {
    Account,
    App,
}

/// RFC 6749, 5.2. `access_denied` came with `BAD_HUB`: the portal is not known (any more).
fn verdict_of_error(error: &str) -> Option<Whose> {
    match error {
        "invalid_grant" | "access_denied" => Some(Whose::Account),
        "invalid_client" | "unauthorized_client" | "invalid_scope" => Some(Whose::App),
        // `invalid_request` and what is unknown: HubSpot's own word may tell more.
        _ => None,
    }
}

/// HubSpot's own words; those but `BAD_REFRESH_TOKEN` are known from reports only.
fn verdict_of_code(code: &str) -> Option<Whose> {
    match code {
        "BAD_REFRESH_TOKEN" | "BAD_AUTH_CODE" | "EXPIRED_AUTH_CODE" | "BAD_CODE_VERIFIER"
        | "BAD_HUB" => Some(Whose::Account),
        "BAD_CLIENT_ID" | "BAD_CLIENT_SECRET" | "BAD_REDIRECT_URI" | "BAD_SCOPES" => {
            Some(Whose::App)
        }
        _ => None,
    }
}

fn granted(body: &[u8], now: Timestamp) -> Option<Granted> {
    let token: TokenResponse = serde_json::from_slice(body).ok()?;
    let fits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !fits(&token.access_token) {
        return None;
    }
    let life = token.expires_in.map_or(LIFE, |seconds| {
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    });
    Some(Granted {
        access_token: token.access_token.into(),
        refresh_token: token
            .refresh_token
            .filter(|text| fits(text))
            .map(Into::into),
        expires_at: clock::after(now, life.min(LIFE_MAX)),
        hub_id: token.hub_id,
        scopes: token.scopes,
    })
}

fn words(status: u16, body: &[u8], secrets: &[&SecretString]) -> Words {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let text = |value: Option<serde_json::Value>, most| {
        let value = value?;
        let mut text = value.as_str()?.to_owned();
        for secret in secrets {
            text = text.replace(secret.expose_secret(), "…");
        }
        let shown: String = text
            .chars()
            .filter(|c| !c.is_control())
            .take(most)
            .collect();
        (!shown.is_empty()).then_some(shown)
    };
    Words {
        status,
        error: text(refusal.error, WORD_CHARS_MAX),
        code: text(refusal.status, WORD_CHARS_MAX).filter(|code| code != "error"),
        message: text(
            refusal.error_description.or(refusal.message),
            MESSAGE_CHARS_MAX,
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_answers_is_a_grant_or_a_refusal_without_a_secret(
            status in 0_u16..700,
            body in prop_oneof![
                "\\PC{0,60}",
                "(\\{\"(error|status|message|access_token|expires_in|scopes)\":(\"[a-z ]{0,9}(the-secret)?\"|-?[0-9]{1,20}|null|\\[\\])\\})",
            ],
        ) {
            if let Err(error) = of(status, &body) {
                let told = format!("{error} {error:?}");
                prop_assert!(!told.contains("the-secret"), "{}", told);
                prop_assert!(told.len() < 2_000);
            }
        }
    }

    fn of(status: u16, body: &str) -> Result<Granted, OAuthError> {
        let now = "2026-11-22T10:00:00Z".parse().unwrap();
        let secrets = [&SecretString::from("the-secret")];
        classify(
            status,
            body.as_bytes(),
            Some(Duration::from_secs(7)),
            &secrets,
            now,
        )
    }

    #[test]
    fn each_refusal_blames_whose_it_is() {
        for (status, body, verdict) in [
            (
                400,
                r#"{"error":"invalid_grant","error_description":"refresh token is invalid, expired or revoked","status":"BAD_REFRESH_TOKEN","message":"x"}"#,
                "InvalidGrant",
            ),
            (
                400,
                r#"{"status":"BAD_REFRESH_TOKEN","message":"x"}"#,
                "InvalidGrant",
            ),
            (400, r#"{"status":"EXPIRED_AUTH_CODE"}"#, "InvalidGrant"),
            (
                400,
                r#"{"error":"access_denied","status":"BAD_HUB"}"#,
                "InvalidGrant",
            ),
            (400, r#"{"error":"invalid_client"}"#, "InvalidClient"),
            (
                401,
                r#"{"error":"invalid_client","status":"BAD_CLIENT_SECRET"}"#,
                "InvalidClient",
            ),
            // The word of the standard first.
            (
                400,
                r#"{"error":"invalid_client","status":"BAD_REFRESH_TOKEN"}"#,
                "InvalidClient",
            ),
            (
                400,
                r#"{"error":"invalid_request","status":"BAD_REDIRECT_URI"}"#,
                "InvalidClient",
            ),
            (400, r#"{"error":"invalid_scope"}"#, "InvalidClient"),
            (
                429,
                r#"{"status":"error","message":"You have reached your rate limit."}"#,
                "Limited",
            ),
            (429, r#"{"error":"invalid_grant"}"#, "InvalidGrant"),
            (400, r#"{"error":"invalid_request"}"#, "Failed"),
            (400, r#"{"error":7,"status":[]}"#, "Failed"),
            (404, "not JSON", "Failed"),
            (502, r#"{"error":"invalid_grant"}"#, "Failed"),
            (302, "", "Failed"),
            (200, r#"{"token_type":"bearer"}"#, "Failed"),
            (200, r#"{"access_token":"a b"}"#, "Failed"),
        ] {
            let told = format!("{:?}", of(status, body).err().unwrap());
            assert!(told.starts_with(verdict), "{status} {body}: {told}");
        }
    }

    #[test]
    fn what_is_granted_is_read_also_from_older_versions() {
        let new = of(
            200,
            r#"{"access_token":"a","refresh_token":"r","expires_in":60,"hub_id":42,"scopes":["oauth"],"new":1}"#,
        );
        let new = new.ok().unwrap();
        assert_eq!((new.hub_id, new.scopes.unwrap().len()), (Some(42), 1));
        assert_eq!(new.expires_at.to_string(), "2026-11-22T10:01:00Z");
        let old = of(200, r#"{"access_token":"a","refresh_token":""}"#)
            .ok()
            .unwrap();
        assert!(old.hub_id.is_none() && old.scopes.is_none() && old.refresh_token.is_none());
        assert_eq!(old.expires_at.to_string(), "2026-11-22T10:30:00Z");
        let odd = of(
            200,
            r#"{"access_token":"a","expires_in":9223372036854775807}"#,
        );
        assert_eq!(
            odd.ok().unwrap().expires_at.to_string(),
            "2026-11-23T10:00:00Z"
        );
        let past = of(200, r#"{"access_token":"a","expires_in":-5}"#);
        assert_eq!(
            past.ok().unwrap().expires_at.to_string(),
            "2026-11-22T10:00:00Z"
        );
    }

    #[test]
    fn what_is_told_of_a_refresh_token_is_taken_refused_or_nothing() {
        for (status, body, verdict) in [
            (200, r#"{"active":true,"hub_id":42}"#, "taken"),
            (200, r#"{"active":false}"#, "InvalidGrant"),
            (200, r#"{"active":false,"hub_id":42}"#, "InvalidGrant"),
            // v1.
            (200, r#"{"token":"x","hub_id":42}"#, "taken"),
            (
                400,
                r#"{"status":"BAD_REFRESH_TOKEN","message":"x"}"#,
                "InvalidGrant",
            ),
            (404, r#"{"status":"error","message":"x"}"#, "Failed"),
            (400, r#"{"error":"invalid_client"}"#, "InvalidClient"),
            (503, "", "Failed"),
            (200, "<html>", "Failed"),
            (200, r#"{"active":"yes"}"#, "Failed"),
            (200, "{}", "Failed"),
        ] {
            let now = "2026-11-22T10:00:00Z".parse().unwrap();
            let secrets = [&SecretString::from("the-secret")];
            let told = match introspected(status, body.as_bytes(), None, &secrets, now) {
                Ok(()) => "taken".to_owned(),
                Err(error) => format!("{error:?}"),
            };
            assert!(told.starts_with(verdict), "{status} {body}: {told}");
        }
    }

    #[test]
    fn words_are_bounded_and_hold_no_secret() {
        let body = format!(
            r#"{{"error":"invalid_grant","message":"the-secret is\u0007 bad {}"}}"#,
            "x".repeat(999)
        );
        let told = of(400, &body).err().unwrap().to_string();
        assert!(told.contains("… is bad xxx"), "{told}");
        assert!(!told.contains("the-secret") && told.len() < 500, "{told}");
    }
}
