//! The wire itself: reqwest, and what its errors say about whether a call arrived.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method, redirect, retry};

use super::Transport;
use super::classify::{Heard, Silence};
use super::wire::{Answer, Call};
use crate::config::AccountConfig;
use crate::crypto::init_crypto;

/// How much of an answer is read; HubSpot's have less than 2 KiB. The rest is cut off.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// The most that a connection may take to stand. Shorter than a call's time-out, because a
/// connection that never stood is certain not to have mailed.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// How long an idle connection is kept: short, since a request on a connection that the other
/// side just closed is one of which nobody knows whether it arrived.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Calls over HTTP.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client,
}

impl Http {
    /// # Errors
    /// Why there is no client: what TLS needs is missing.
    pub(super) fn new(config: &AccountConfig) -> Result<Self, String> {
        init_crypto();
        let client = client(config).map_err(|error| innermost(&error))?;
        Ok(Self { client })
    }
}

impl Transport for Http {
    async fn carry(&self, call: Call) -> Heard {
        let mut request = match call.body {
            Some(body) => (self.client.request(Method::POST, call.url))
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .body(body),
            None => self.client.request(Method::GET, call.url),
        };
        request = request.header(AUTHORIZATION, call.token.header());
        let mut response = request.send().await.map_err(silence)?;
        let mut body = Vec::new();
        // A body that breaks off keeps what came of it: the status, which decides, is known by then.
        while let Ok(Some(chunk)) = response.chunk().await {
            let room = BODY_BYTES_MAX.saturating_sub(body.len());
            body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
            if body.len() == BODY_BYTES_MAX {
                break;
            }
        }
        Ok(Answer::with_headers(
            response.status().as_u16(),
            std::mem::take(response.headers_mut()),
            call.token.hidden_in(body),
        ))
    }
}

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
