//! The bearer token: fit for a header, and for nothing else.

use std::fmt;
use std::sync::{Arc, OnceLock};

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use crate::message::AccountName;

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

/// A secret that tells when nobody holds it any longer, once it is to be given up.
struct Held {
    secret: SecretString,
    /// Whose it was, when another token has taken its place.
    retired: OnceLock<AccountName>,
}

impl Token {
    /// # Errors
    /// Why it is no token, without a character of it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let token = text.trim();
        if token.is_empty() {
            return Err("it is empty".into());
        }
        let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| "it holds characters that no HTTP header may carry".to_owned())?;
        header.set_sensitive(true);
        Ok(Self {
            held: Arc::new(Held {
                secret: SecretString::from(token),
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
        if let Some(account) = self.retired.get() {
            tracing::info!(%account, "no call is under way with the old token: it may be revoked");
        }
    }
}
