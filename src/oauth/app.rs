//! The app's calls to HubSpot: a form goes out, an answer comes back. No retries, no redirects.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use url::{Url, form_urlencoded};

use super::classify::{Granted, classify, introspected};
use super::pkce::Attempt;
use super::{Grant, OAuthError, Words};
use crate::client::{self, innermost};
use crate::config::{AccountConfig, OAuthConfig};

/// One call. Shorter than the time that another process waits for the lock.
const TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer is read; a grant has some 2 KiB.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// HubSpot told this in seconds where it told it at all; more is no answer of a limit.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

/// An app at HubSpot.
#[derive(Clone, Debug)]
pub struct App {
    config: Arc<OAuthConfig>,
    base_url: Url,
    client: Client,
}

impl App {
    /// The app, called as the account's HubSpot is.
    ///
    /// # Errors
    /// Where TLS or a proxy lacks what it needs.
    pub fn new(config: Arc<OAuthConfig>, account: &AccountConfig) -> Result<Self, OAuthError> {
        let client = client::of(account).map_err(|why| OAuthError::Unreachable { why })?;
        let client = client.timeout(TIMEOUT).connect_timeout(CONNECT_TIMEOUT);
        let client = client.build().map_err(|error| unreachable(&error))?;
        Ok(Self {
            config,
            base_url: account.base_url.clone(),
            client,
        })
    }

    #[must_use]
    pub fn config(&self) -> &OAuthConfig {
        &self.config
    }

    /// Where a person consents to this login.
    #[must_use]
    pub fn authorize_url(&self, attempt: &Attempt) -> Url {
        let mut url = self.config.authorize_url.clone();
        let pairs = [
            ("client_id", self.config.client_id.as_str()),
            ("redirect_uri", self.config.redirect_url.as_str()),
            ("scope", &self.config.scopes.join(" ")),
            ("state", attempt.state()),
            ("code_challenge", &attempt.challenge()),
            ("code_challenge_method", "S256"),
        ];
        url.query_pairs_mut().extend_pairs(pairs);
        // A browser may be told in a shell, where `+` is as good, but HubSpot shows `%20`.
        let query = url.query().map(|query| query.replace('+', "%20"));
        url.set_query(query.as_deref());
        url
    }

    /// Turns the code of a login into a grant.
    ///
    /// # Errors
    /// [`OAuthError`]; a code is good once, and for a short time.
    pub async fn exchange(
        &self,
        attempt: &Attempt,
        code: &SecretString,
        now: Timestamp,
    ) -> Result<Grant, OAuthError> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.expose_secret()),
            ("redirect_uri", self.config.redirect_url.as_str()),
            ("code_verifier", attempt.verifier().expose_secret()),
        ];
        let granted = self.token(&form, &[code, attempt.verifier()], now).await?;
        let refresh_token = granted.refresh_token.clone();
        let refresh_token = refresh_token.ok_or_else(|| OAuthError::Failed {
            words: Words {
                status: 200,
                message: Some("the answer holds no refresh token".into()),
                ..Words::default()
            },
        })?;
        Ok(self.grant(granted, refresh_token, now))
    }

    /// The grant with a new access token; and with a new refresh token, where HubSpot gave one.
    ///
    /// # Errors
    /// [`OAuthError`].
    pub async fn refresh(&self, old: &Grant, now: Timestamp) -> Result<Grant, OAuthError> {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", old.refresh_token.expose_secret()),
        ];
        let granted = self.token(&form, &[&old.refresh_token], now).await?;
        let refresh_token = granted.refresh_token.clone();
        let refresh_token = refresh_token.unwrap_or_else(|| old.refresh_token.clone());
        let mut new = self.grant(granted, refresh_token, now);
        new.hub_id = new.hub_id.or(old.hub_id);
        new.scopes = new.scopes.or_else(|| old.scopes.clone());
        Ok(new)
    }

    /// Asks HubSpot whether it still takes the refresh token, which it does not spend.
    ///
    /// # Errors
    /// [`OAuthError`]; [`OAuthError::InvalidGrant`] where HubSpot takes it no more.
    pub async fn introspect(&self, grant: &Grant) -> Result<(), OAuthError> {
        let (answer, secrets) = self.about(grant, Method::GET, "token/introspect").await?;
        let (status, body, retry_after) = answer;
        let secrets: Vec<_> = secrets.iter().collect();
        introspected(status, &body, retry_after, &secrets, grant.issued_at)
    }

    /// Tells HubSpot that the refresh token is used no more. Access tokens live on to their end.
    ///
    /// # Errors
    /// [`OAuthError`].
    pub async fn revoke(&self, grant: &Grant) -> Result<(), OAuthError> {
        let (answer, secrets) = self.about(grant, Method::DELETE, "token/revoke").await?;
        let (status, body, retry_after) = answer;
        if (200..300).contains(&status) {
            return Ok(());
        }
        let secrets: Vec<_> = secrets.iter().collect();
        classify(status, &body, retry_after, &secrets, grant.issued_at).map(|_| ())
    }

    /// A call about a grant's refresh token: of v1 to an address of its own, of the others a form. The
    /// answer, and what it may repeat and nobody is to read.
    async fn about(
        &self,
        grant: &Grant,
        of_v1: Method,
        path: &str,
    ) -> Result<(Told, Vec<SecretString>), OAuthError> {
        let token = grant.refresh_token.expose_secret();
        let mut secrets = vec![grant.refresh_token.clone()];
        let request = if self.config.version == "v1" {
            self.client.request(of_v1, self.of_old(token))
        } else {
            let form = [("token", token), ("token_type_hint", "refresh_token")];
            let client_secret = self.client_secret().await?;
            let request = self.form(path, &form, &client_secret);
            secrets.push(client_secret);
            request
        };
        Ok((send(request).await?, secrets))
    }

    fn grant(&self, granted: Granted, refresh_token: SecretString, now: Timestamp) -> Grant {
        Grant {
            access_token: granted.access_token,
            refresh_token,
            issued_at: now,
            expires_at: granted.expires_at,
            hub_id: granted.hub_id,
            scopes: granted.scopes,
            client_id: self.config.client_id.clone(),
        }
    }

    async fn token(
        &self,
        form: &[(&str, &str)],
        secrets: &[&SecretString],
        now: Timestamp,
    ) -> Result<Granted, OAuthError> {
        let client_secret = self.client_secret().await?;
        let request = self.form("token", form, &client_secret);
        let (status, body, retry_after) = send(request).await?;
        let secrets = [secrets, &[&client_secret]].concat();
        classify(status, &body, retry_after, &secrets, now)
    }

    /// As it stands now: it may be a file's.
    async fn client_secret(&self) -> Result<SecretString, OAuthError> {
        let config = Arc::clone(&self.config);
        tokio::task::spawn_blocking(move || config.client_secret())
            .await
            .map_err(|error| lost(&error))?
            .map_err(OAuthError::Config)
    }

    /// A form with the app's own id and secret in it, as HubSpot takes them: in the body only.
    fn form(
        &self,
        path: &str,
        form: &[(&str, &str)],
        client_secret: &SecretString,
    ) -> RequestBuilder {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form)
            .append_pair("client_id", &self.config.client_id)
            .append_pair("client_secret", client_secret.expose_secret());
        let url = self.under(&format!("{}/{path}", self.config.version));
        (self.client.request(Method::POST, url))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body.finish())
    }

    /// Where v1 has a refresh token.
    fn of_old(&self, token: &str) -> Url {
        let mut url = self.under("v1/refresh-tokens/");
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(token);
        }
        url
    }

    fn under(&self, path: &str) -> Url {
        let mut url = self.base_url.clone();
        let above = self.base_url.path().trim_end_matches('/');
        url.set_path(&format!("{above}/oauth/{path}"));
        url
    }
}

/// Status, body, and how long to wait.
type Told = (u16, Vec<u8>, Option<Duration>);

async fn send(request: RequestBuilder) -> Result<Told, OAuthError> {
    let request = request.header(ACCEPT, "application/json");
    let mut response = request.send().await.map_err(|error| unreachable(&error))?;
    let mut body = Vec::new();
    while body.len() < BODY_BYTES_MAX {
        let chunk = response.chunk().await;
        let Some(chunk) = chunk.map_err(|error| unreachable(&error))? else {
            break;
        };
        body.extend_from_slice(&chunk);
    }
    let retry_after = response.headers().get(RETRY_AFTER);
    let retry_after = retry_after
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    Ok((response.status().as_u16(), body, retry_after))
}

/// The innermost cause, without the address: a path of v1 holds a token.
fn unreachable(error: &reqwest::Error) -> OAuthError {
    if error.is_timeout() {
        return OAuthError::Unreachable {
            why: "time-out".into(),
        };
    }
    // Of an error with nothing below it the text itself holds the address.
    let why = match std::error::Error::source(error) {
        Some(_) => innermost(error),
        None => "the call failed".to_owned(),
    };
    OAuthError::Unreachable { why }
}

/// Work on another thread that was given up, as at the end of the process.
pub(super) fn lost(error: &tokio::task::JoinError) -> OAuthError {
    OAuthError::Unreachable {
        why: format!("the work was given up: {error}"),
    }
}
