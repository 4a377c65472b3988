//! The wire itself: reqwest, and what its errors say about whether a call arrived.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method};

use super::Transport;
use super::classify::{Heard, Silence};
use super::wire::{Answer, Call};
use crate::client::{self, innermost};
use crate::config::AccountConfig;
use crate::crypto::{TlsTrouble, TlsTroubleKind, tls_trouble};

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
    way: Arc<Way>,
}

/// Between us and HubSpot, for people.
#[derive(Debug)]
struct Way {
    /// `host:port`
    host: String,
    proxy: Option<String>,
}

impl Http {
    /// # Errors
    /// Why there is no client: what TLS needs is missing, or a file of authorities.
    pub(super) fn new(config: &AccountConfig) -> Result<Self, String> {
        let base = &config.base_url;
        let port = base.port_or_known_default().unwrap_or_default();
        let way = Arc::new(Way {
            host: format!("{}:{port}", base.host_str().unwrap_or_default()),
            proxy: config.proxy.as_ref().map(|proxy| proxy.place.clone()),
        });
        let client = client(config)?;
        Ok(Self { client, way })
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
        let mut response = (request.send().await).map_err(|error| self.way.silence(error))?;
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

fn client(config: &AccountConfig) -> Result<Client, String> {
    client::of(config)?
        .timeout(config.timeout)
        .connect_timeout(CONNECT_TIMEOUT_MAX.min(config.timeout / 2))
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(usize::from(config.concurrency))
        .build()
        .map_err(|error| innermost(&error.without_url()))
}

impl Way {
    /// reqwest tells for certain only when no connection was made. Everything else may have arrived.
    fn silence(&self, error: reqwest::Error) -> Silence {
        let error = error.without_url();
        if error.is_connect() || error.is_builder() {
            self.not_reached(&error)
        } else if error.is_timeout() {
            Silence::NotAnswered("time-out".into())
        } else {
            Silence::NotAnswered(innermost(&error))
        }
    }

    fn not_reached(&self, error: &reqwest::Error) -> Silence {
        if let Some(trouble) = tls_trouble(error) {
            return self.untrusted(&trouble);
        }
        let why = innermost(error);
        let Some(proxy) = &self.proxy else {
            return Silence::NotReached(why);
        };
        // hyper-util's words: it has no type for them that could be named.
        match why.strip_prefix("tunnel error: ") {
            Some("proxy authorization required") => Silence::Barred {
                why: format!("the proxy {proxy} wants a user and a password (407)"),
                hint: "write http://USER:PASSWORD@HOST:PORT into HTTPS_PROXY".into(),
            },
            Some(_) => Silence::NotReached(format!(
                "the proxy {proxy} does not connect us to {}",
                self.host
            )),
            None => Silence::NotReached(format!("by the proxy {proxy}: {why}")),
        }
    }

    fn untrusted(&self, trouble: &TlsTrouble) -> Silence {
        let hint = match trouble.kind {
            TlsTroubleKind::UnknownAuthority => {
                "set accounts.NAME.ca_file to the authority that signed it, if that is meant to be \
                 trusted: a proxy that opens TLS has its own"
            }
            TlsTroubleKind::OtherName => "check accounts.NAME.base_url, and who answers there",
            TlsTroubleKind::BadCertificate => "check this machine's clock, and who answers there",
            TlsTroubleKind::OurCertificate => {
                "HubSpot asks for no certificate: check accounts.NAME.base_url and the proxy"
            }
            TlsTroubleKind::Protocol => "check accounts.NAME.base_url, its port and the proxy",
        };
        Silence::Barred {
            why: format!("{} {}", self.host, trouble.why),
            hint: hint.into(),
        }
    }
}
