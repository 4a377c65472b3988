//! The bearer token: fit for a header, and for nothing else.

use std::fmt;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use crate::config::{HAPIKEY_DEAD_SINCE, is_api_key};
use crate::message::AccountName;
use crate::oauth::Access;

/// HubSpot's tokens have 40 bytes and more. A shorter one is a sandbox's: no secret, and perhaps
/// part of an ordinary word of an answer.
const SECRET_BYTES_MIN: usize = 16;

/// A token that is fit for a header. Prints as nothing.
#[derive(Clone)]
pub(super) struct Token {
    /// Shared: each call has one.
    held: Arc<Held>,
    header: HeaderValue,
}

/// What HubSpot said of a token when it issued it.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) hub_id: Option<u64>,
    pub(super) scopes: Option<Vec<String>>,
    /// When another one is to take its place.
    pub(super) refresh_due: Timestamp,
    pub(super) expires_at: Timestamp,
}

/// A secret that tells when nobody holds it any longer, once it is to be given up.
struct Held {
    secret: SecretString,
    /// Of an access token of OAuth.
    granted: Option<Granted>,
    /// Whose it was, when another token has taken its place.
    retired: OnceLock<AccountName>,
}

impl Token {
    /// # Errors
    /// Why it is no token, without a character of it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Self::with(text, None)
    }

    /// An access token of OAuth.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub(super) fn of(access: Access) -> Result<Self, String> {
        let granted = Granted {
            hub_id: access.hub_id,
            scopes: access.scopes,
            refresh_due: access.refresh_due,
            expires_at: access.expires_at,
        };
        Self::with(access.token.expose_secret(), Some(granted))
    }

    fn with(text: &str, granted: Option<Granted>) -> Result<Self, String> {
        let token = text.trim();
        if token.is_empty() {
            return Err("it is empty".into());
        }
        if is_api_key(token) {
            return Err(format!(
                "it has the form of an API key (hapikey), which HubSpot has not taken since \
                 {HAPIKEY_DEAD_SINCE}: `postrider auth migrate` leads on"
            ));
        }
        let fits = token.bytes().all(|byte| byte.is_ascii_graphic());
        let header = HeaderValue::from_str(&format!("Bearer {token}")).ok();
        let header = header.filter(|_| fits);
        let mut header = header.ok_or("it holds a space or a sign that no token has")?;
        header.set_sensitive(true);
        Ok(Self {
            held: Arc::new(Held {
                secret: SecretString::from(token),
                granted,
                retired: OnceLock::new(),
            }),
            header,
        })
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    pub(super) fn expose(&self) -> &str {
        self.held.secret.expose_secret()
    }

    /// What HubSpot said of it when it issued it, if it did.
    pub(super) fn granted(&self) -> Option<&Granted> {
        self.held.granted.as_ref()
    }

    /// Another token has taken its place. When the last call under it has ended, that is told.
    pub(super) fn retire(&self, account: &AccountName) {
        self.held.retired.get_or_init(|| account.clone());
    }

    /// The text without the token: a proxy's error page may show the request's headers.
    pub(super) fn hidden_in(&self, body: Vec<u8>) -> String {
        let text = String::from_utf8(body)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        let secret = self.expose();
        if secret.len() < SECRET_BYTES_MIN || !text.contains(secret) {
            return text;
        }
        text.replace(secret, "[token]")
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[token]")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // An access token ends by itself.
        if let Some(account) = self.retired.get().filter(|_| self.granted.is_none()) {
            tracing::info!(%account, "no call is under way with the old token: it may be revoked");
        }
    }
}
