//! HubSpot over HTTP: one call, one answer, one verdict.
//!
//! No retries, no redirects and no waiting here: `classify` says what an answer means, and
//! `retry` what follows from it. What carries a call there and its answer back is a [`Transport`]:
//! [`Http`], or in a simulation the model of HubSpot itself. All that lies behind it, from the body
//! to the verdict, is the same.

mod classify;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod hostile;
mod http;
mod probe;
mod send_result;
mod token;
mod wire;

use std::fmt;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;
use url::Url;

pub use self::classify::{Heard, Silence};
pub use self::http::Http;
use self::token::{Token, TokenFile, Tokens};
pub use self::wire::{Answer, Call};
use crate::clock::Clock;
use crate::config::{AccountConfig, Api, ApiVersion, TokenSource};
use crate::message::{AccountName, SendRequest};
use crate::outcome::{LookUp, Outcome};
use crate::provider::{Probe, Provider, RateLimits};

/// The operation that is no look-up and no check.
const SEND: &str = "send";
/// What a status id may hold unescaped in a path.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Carries a call to HubSpot and brings back what was heard: an answer, or none.
pub trait Transport: Send + Sync + 'static {
    fn carry(&self, call: Call) -> impl Future<Output = Heard> + Send;
}

/// One account at HubSpot.
pub struct HubSpot<T = Http> {
    account: AccountName,
    api: Api,
    transport: T,
    tokens: Tokens,
    urls: Urls,
    clock: Clock,
    rate_limits: Mutex<RateLimits>,
}

struct Urls {
    base: Url,
    send: Url,
    details: Url,
    token_info: Url,
}

/// Why an account cannot be called at all. Never holds a token.
#[derive(Debug, thiserror::Error)]
pub enum HubSpotError {
    #[error("account `{account}` has no token")]
    NoToken { account: AccountName },
    #[error("the token of account `{account}` is no token: {why}")]
    BadToken { account: AccountName, why: String },
    #[error("the token file {file} of account `{account}` cannot be used: {why}")]
    BadTokenFile {
        account: AccountName,
        file: String,
        why: String,
    },
    #[error("the base_url of account `{account}` is no plain http or https address")]
    BadBaseUrl { account: AccountName },
    #[error("cannot prepare TLS for account `{account}`: {why}")]
    NoClient { account: AccountName, why: String },
}

impl HubSpotError {
    /// The next step for whoever reads the error.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoToken { account } | Self::BadToken { account, .. } => format!(
                "set accounts.{account}.token or accounts.{account}.token_file to a service key \
                 or an app's token"
            ),
            Self::BadTokenFile { .. } => "the file holds the token and nothing else".into(),
            Self::BadBaseUrl { account } => {
                format!("leave accounts.{account}.base_url out, or set it to https://HOST")
            }
            Self::NoClient { .. } => "install the system's CA certificates".into(),
        }
    }
}

impl HubSpot {
    /// Prepares the calls of one account; makes none.
    ///
    /// # Errors
    /// [`HubSpotError`] when the configuration holds no usable token or address.
    pub fn new(
        account: &AccountName,
        config: &AccountConfig,
        clock: Clock,
    ) -> Result<Self, HubSpotError> {
        let base = &config.base_url;
        let web = matches!(base.scheme(), "http" | "https") && base.has_host();
        // A user in the address would add a second `Authorization` to the bearer's.
        if !web || !base.username().is_empty() || base.password().is_some() {
            return Err(HubSpotError::BadBaseUrl {
                account: account.clone(),
            });
        }
        let transport = Http::new(config).map_err(|why| HubSpotError::NoClient {
            account: account.clone(),
            why,
        })?;
        Self::over(transport, account, config, clock)
    }
}

impl<T: Transport> HubSpot<T> {
    /// The same account over another transport.
    ///
    /// # Errors
    /// [`HubSpotError`] when the configuration holds no usable token.
    pub fn over(
        transport: T,
        account: &AccountName,
        config: &AccountConfig,
        clock: Clock,
    ) -> Result<Self, HubSpotError> {
        Ok(Self {
            account: account.clone(),
            api: config.api,
            transport,
            tokens: tokens(account, &config.token)?,
            urls: Urls::new(config),
            clock,
            rate_limits: Mutex::default(),
        })
    }

    /// Makes one call and reads its answer.
    async fn call(&self, operation: &'static str, call: Call) -> Heard {
        let begun = Instant::now();
        let heard = self.transport.carry(call).await;
        if let Ok(answer) = &heard {
            self.heed(answer, operation == SEND);
        }
        if tracing::enabled!(tracing::Level::DEBUG) {
            let words = heard.as_ref().ok().map(Answer::words).unwrap_or_default();
            // Never the words themselves: HubSpot's messages may hold an address.
            tracing::debug!(
                account = %self.account,
                operation,
                status = words.status,
                correlation_id = words.correlation_id,
                duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                "called HubSpot"
            );
        }
        heard
    }

    /// Keeps the rate limits that an answer tells: the newest count.
    fn heed(&self, answer: &Answer, is_send: bool) {
        let mut limits = self.rate_limits_now();
        let rolling = if is_send {
            &mut limits.send
        } else {
            &mut limits.api
        };
        *rolling = answer.rolling_limit().or(*rolling);
        limits.day = answer.daily_limit().or(limits.day);
    }

    fn rate_limits_now(&self) -> MutexGuard<'_, RateLimits> {
        let limits = self.rate_limits.lock();
        limits.unwrap_or_else(PoisonError::into_inner)
    }

    async fn details(&self) -> Heard {
        let call = Call::get(&self.urls.details, self.tokens.current().await);
        self.call("details", call).await
    }

    async fn token_info(&self) -> Heard {
        let token = self.tokens.current().await;
        let body = serde_json::json!({"tokenKey": token.expose()}).to_string();
        let call = Call::post(&self.urls.token_info, body.into_bytes(), token);
        self.call("token_info", call).await
    }
}

impl<T: Transport> Provider for HubSpot<T> {
    async fn send(&self, request: &SendRequest, send_id: &str) -> Outcome {
        #[expect(
            clippy::expect_used,
            reason = "strings, numbers and JSON that was read as JSON can be written as JSON"
        )]
        let body = wire::send_body(request, send_id).expect("a request is JSON");
        let call = Call::post(&self.urls.send, body, self.tokens.current().await);
        let heard = self.call(SEND, call).await;
        classify::send(&heard, self.clock.now())
    }

    async fn look_up(&self, status_id: &str) -> LookUp {
        let url = self.urls.status(status_id);
        let call = Call::get(&url, self.tokens.current().await);
        let heard = self.call("look_up", call).await;
        classify::look_up(&heard, self.clock.now())
    }

    async fn probe(&self) -> Probe {
        let (details, token_info) = tokio::join!(self.details(), self.token_info());
        probe::probe(self.api, &details, &token_info, self.clock.now())
    }

    fn rate_limits(&self) -> RateLimits {
        std::mem::take(&mut *self.rate_limits_now())
    }
}

impl<T> fmt::Debug for HubSpot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSpot")
            .field("account", &self.account)
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}

fn tokens(account: &AccountName, source: &TokenSource) -> Result<Tokens, HubSpotError> {
    use secrecy::ExposeSecret;
    match source {
        TokenSource::Given(secret) => Token::parse(secret.expose_secret())
            .map(Tokens::Given)
            .map_err(|why| HubSpotError::BadToken {
                account: account.clone(),
                why,
            }),
        TokenSource::File(path) => {
            TokenFile::open(path)
                .map(Tokens::File)
                .map_err(|why| HubSpotError::BadTokenFile {
                    account: account.clone(),
                    file: path.display().to_string(),
                    why,
                })
        }
        TokenSource::Missing => Err(HubSpotError::NoToken {
            account: account.clone(),
        }),
    }
}

// === the addresses ===

impl Urls {
    /// The paths of HubSpot's specs. Configuration refuses `v4` for transactional mail and `v3`
    /// for marketing mail; here they mean the oldest path of that API.
    fn new(config: &AccountConfig) -> Self {
        let base = &config.base_url;
        let dated = match config.api_version {
            ApiVersion::V2026_09 => Some("2026-09"),
            ApiVersion::V2026_03 => Some("2026-03"),
            ApiVersion::V3 | ApiVersion::V4 => None,
        };
        let send = match (config.api, dated) {
            (Api::Transactional, Some(v)) => {
                format!("marketing/transactional/{v}/single-email/send")
            }
            (Api::Transactional, None) => "marketing/v3/transactional/single-email/send".into(),
            (Api::Marketing, Some(v)) => format!("marketing/email-campaigns/{v}/single-send"),
            (Api::Marketing, None) => "marketing/v4/email/single-send".into(),
        };
        Self {
            send: under(base, &send),
            details: under(
                base,
                &format!("account-info/{}/details", dated.unwrap_or("v3")),
            ),
            token_info: under(base, "oauth/v2/private-apps/get/access-token-info"),
            base: base.clone(),
        }
    }

    /// The one status path there is, for sends of either API. Status ids are base64 with `=`.
    fn status(&self, status_id: &str) -> Url {
        let id = utf8_percent_encode(status_id, UNRESERVED);
        under(
            &self.base,
            &format!("marketing/v3/email/send-statuses/{id}"),
        )
    }
}

/// `path` under `base`, which may have a path of its own and may or may not end in `/`.
fn under(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}
