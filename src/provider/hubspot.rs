//! HubSpot over HTTP: one call, one answer, one verdict.
//!
//! No retries, no redirects and no waiting here: `classify` says what an answer means, and
//! `retry` what follows from it.

mod classify;
mod probe;
mod send_result;
mod token;
mod wire;

use std::fmt;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, RequestBuilder, redirect, retry};
use tokio::time::Instant;
use url::Url;

use self::classify::{Heard, Silence};
use self::token::{Token, TokenFile, Tokens};
use self::wire::Answer;
use crate::clock::Clock;
use crate::config::{AccountConfig, Api, ApiVersion, TokenSource};
use crate::crypto::init_crypto;
use crate::message::{AccountName, SendRequest};
use crate::outcome::{LookUp, Outcome};
use crate::provider::{Probe, Provider};

/// How much of an answer is read; HubSpot's have less than 2 KiB. The rest is cut off.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// The most that a connection may take to stand. Shorter than a call's time-out, because a
/// connection that never stood is certain not to have mailed.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// How long an idle connection is kept: short, since a request on a connection that the other
/// side just closed is one of which nobody knows whether it arrived.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// What a status id may hold unescaped in a path.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// One account at HubSpot.
pub struct HubSpot {
    account: AccountName,
    api: Api,
    client: Client,
    tokens: Tokens,
    urls: Urls,
    clock: Clock,
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
        init_crypto();
        let base = &config.base_url;
        let web = matches!(base.scheme(), "http" | "https") && base.has_host();
        // A user in the address would add a second `Authorization` to the bearer's.
        if !web || !base.username().is_empty() || base.password().is_some() {
            return Err(HubSpotError::BadBaseUrl {
                account: account.clone(),
            });
        }
        Ok(Self {
            account: account.clone(),
            api: config.api,
            client: client(config).map_err(|error| HubSpotError::NoClient {
                account: account.clone(),
                why: innermost(&error),
            })?,
            tokens: tokens(account, &config.token)?,
            urls: Urls::new(config),
            clock,
        })
    }

    /// Makes one call and reads its answer.
    async fn call(&self, operation: &'static str, request: RequestBuilder, token: Token) -> Heard {
        let begun = Instant::now();
        let heard = listen(request.header(AUTHORIZATION, token.header()), &token).await;
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
        heard
    }

    async fn details(&self) -> Heard {
        let request = self.client.get(self.urls.details.clone());
        self.call("details", request, self.tokens.current().await)
            .await
    }

    async fn token_info(&self) -> Heard {
        let token = self.tokens.current().await;
        let request = self
            .client
            .post(self.urls.token_info.clone())
            .json(&serde_json::json!({"tokenKey": token.expose()}));
        self.call("token_info", request, token).await
    }
}

impl Provider for HubSpot {
    async fn send(&self, request: &SendRequest, send_id: &str) -> Outcome {
        #[expect(
            clippy::expect_used,
            reason = "strings, numbers and JSON that was read as JSON can be written as JSON"
        )]
        let body = wire::send_body(request, send_id).expect("a request is JSON");
        let call = self
            .client
            .post(self.urls.send.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(body);
        let heard = self.call("send", call, self.tokens.current().await).await;
        classify::send(&heard, self.clock.now())
    }

    async fn look_up(&self, status_id: &str) -> LookUp {
        let call = self.client.get(self.urls.status(status_id));
        let heard = self
            .call("look_up", call, self.tokens.current().await)
            .await;
        classify::look_up(&heard, self.clock.now())
    }

    async fn probe(&self) -> Probe {
        let (details, token_info) = tokio::join!(self.details(), self.token_info());
        probe::probe(self.api, &details, &token_info, self.clock.now())
    }
}

impl fmt::Debug for HubSpot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSpot")
            .field("account", &self.account)
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}

// === the call ===

fn client(config: &AccountConfig) -> reqwest::Result<Client> {
    let mut client = Client::builder()
        .user_agent(concat!("postrider/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .timeout(config.timeout)
        .connect_timeout(CONNECT_TIMEOUT_MAX.min(config.timeout / 2))
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(usize::from(config.concurrency));
    if config.base_url.scheme() == "http" {
        // A sandbox: no certificate is ever checked, so a machine without any will do.
        client = client.tls_certs_only([]);
    }
    client.build()
}

async fn listen(request: RequestBuilder, token: &Token) -> Heard {
    let mut response = request.send().await.map_err(silence)?;
    let mut body = Vec::new();
    // A body that breaks off keeps what came of it: the status, which decides, is known by then.
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = BODY_BYTES_MAX.saturating_sub(body.len());
        body.extend(chunk.iter().take(room));
        if body.len() == BODY_BYTES_MAX {
            break;
        }
    }
    Ok(Answer {
        status: response.status().as_u16(),
        headers: std::mem::take(response.headers_mut()),
        body: token.hidden_in(&String::from_utf8_lossy(&body)),
    })
}

/// reqwest tells for certain only when no connection was made. Everything else may have arrived.
fn silence(error: reqwest::Error) -> Silence {
    let error = error.without_url();
    if error.is_connect() || error.is_builder() {
        Silence::NotReached(innermost(&error))
    } else if error.is_timeout() {
        Silence::NotAnswered("time-out".into())
    } else {
        Silence::NotAnswered(innermost(&error))
    }
}

/// The cause at the bottom, such as `Connection refused`; the layers above it only repeat the
/// address.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
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
