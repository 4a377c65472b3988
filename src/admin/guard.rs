//! Who may ask for `/api`: whoever has the token, or who asks on this machine where there is none.
//!
//! A page of another site that is open in an operator's browser never may. It is known by its `Origin`
//! and `Sec-Fetch-Site`; and where its own name was made to lead to this machine (DNS rebinding), by
//! the `Host`. Nothing of a refused request is read but its head.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// One line of the log in so long, however many are refused: a scanner writes 9,000 a day at most.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Stands before what not everybody may see.
#[derive(Debug)]
pub(super) struct Guard {
    token: Option<SecretString>,
    /// The listener is for this machine only.
    is_local: bool,
    told: Mutex<Told>,
}

/// What the log says of refusals.
#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    /// Refused since, and not told.
    untold: u64,
}

/// Why a request is refused, in words without anything of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// A page of another site asks, or may be asking.
    CrossSite(&'static str),
    /// There is no token, and the listener is not for this machine only.
    NoTokenSet,
    NoToken,
    WrongToken,
}

/// Answers in the place of what it guards, or adds what keeps its answer out of caches and pages.
pub(super) async fn guard(
    State(guard): State<Arc<Guard>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let mut answer = match guard.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            guard.tell(refusal, request.uri().path(), peer);
            refusal.into_response()
        }
    };
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    answer
}

impl Guard {
    pub(super) fn new(token: Option<SecretString>, listener: SocketAddr) -> Self {
        Self {
            token,
            is_local: listener.ip().to_canonical().is_loopback(),
            told: Mutex::default(),
        }
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        self.refuse_other_sites(headers)?;
        let Some(token) = &self.token else {
            return self.is_local.then_some(()).ok_or(Refusal::NoTokenSet);
        };
        let given = headers.get(header::AUTHORIZATION);
        let given = given.and_then(bearer).ok_or(Refusal::NoToken)?;
        let is_right = given.ct_eq(token.expose_secret().as_bytes());
        bool::from(is_right)
            .then_some(())
            .ok_or(Refusal::WrongToken)
    }

    fn refuse_other_sites(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let texts = |name: HeaderName| {
            let values = headers.get_all(name).into_iter();
            // What is no text is no name of ours either.
            values.map(|value| value.to_str().unwrap_or("?"))
        };
        let site = |site: &str| !matches!(site, "same-origin" | "none");
        if texts(SEC_FETCH_SITE).any(site) {
            return Err(Refusal::CrossSite("its Sec-Fetch-Site is another site's"));
        }
        let hosts: Vec<&str> = texts(header::HOST).collect();
        let [host] = hosts.as_slice() else {
            return Err(Refusal::CrossSite("it names no Host, or several"));
        };
        if self.is_local && !is_this_machine(host) {
            return Err(Refusal::CrossSite("its Host is not this machine"));
        }
        let is_ours = |origin: &str| {
            let rest = origin.strip_prefix("http://");
            rest.or_else(|| origin.strip_prefix("https://")) == Some(host)
        };
        if texts(header::ORIGIN).all(is_ours) {
            Ok(())
        } else {
            Err(Refusal::CrossSite("its Origin is another site"))
        }
    }

    fn tell(&self, refusal: Refusal, path: &str, peer: SocketAddr) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last.is_some_and(|last| last.elapsed() < TOLD_EVERY) {
            told.untold = told.untold.saturating_add(1);
            return;
        }
        let untold = std::mem::take(&mut told.untold);
        told.last = Some(Instant::now());
        drop(told);
        let why = refusal.why();
        tracing::warn!(path, %peer, why, untold, "an admin request was refused");
    }
}

/// The token of an `Authorization: Bearer TOKEN`; the scheme's case means nothing (RFC 9110, 11.1).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// Whether a `Host` names this machine, at whatever port.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        // A colon within brackets belongs to the address.
        Some((name, port)) if !port.ends_with(']') => name,
        Some(_) | None => host,
    };
    let bare = name.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    name.eq_ignore_ascii_case("localhost")
        || (bare.unwrap_or(name).parse::<IpAddr>()).is_ok_and(|ip| ip.to_canonical().is_loopback())
}

impl Refusal {
    fn why(self) -> &'static str {
        match self {
            Self::CrossSite(why) => why,
            Self::NoTokenSet => {
                "no server.token is set, and the listener is not on a loopback address"
            }
            Self::NoToken => "it has no token",
            Self::WrongToken => "its token is not server.token",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let why = self.why();
        match self {
            Self::NoToken | Self::WrongToken => {
                let asked = [(header::WWW_AUTHENTICATE, "Bearer")];
                let text = format!("{why}: send `Authorization: Bearer TOKEN`\n");
                (StatusCode::UNAUTHORIZED, asked, text).into_response()
            }
            Self::NoTokenSet => {
                let text = format!("{why}: set server.token\n");
                (StatusCode::FORBIDDEN, text).into_response()
            }
            Self::CrossSite(_) => (StatusCode::FORBIDDEN, format!("{why}\n")).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_few_names() {
        for host in [
            "localhost",
            "LOCALHOST:9464",
            "127.0.0.1:80",
            "127.1.2.3",
            "[::1]",
            "[::1]:9464",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "",
            ":",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9464",
            "evil.example",
            "0.0.0.0:9464",
            "10.0.0.1",
            "[::2]",
            "localhost:80:80",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
