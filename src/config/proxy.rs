//! The way to HubSpot: `HTTPS_PROXY` and `NO_PROXY`, as curl reads them.
//!
//! Nobody else reads them: a client is told its proxy, or that there is none.

use hyper_util::client::proxy::matcher::Matcher;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{Config, ConfigError, ProxyConfig};

/// Tells each account the proxy that its calls go through, if any.
pub(super) fn tell(config: &mut Config, env: &[(String, String)]) -> Result<(), ConfigError> {
    let Some((name, proxy)) = first(env, ["HTTPS_PROXY", "https_proxy"]) else {
        return Ok(());
    };
    let around = first(env, ["NO_PROXY", "no_proxy"]).map_or("", |(_, around)| around);
    let matcher = Matcher::builder()
        .https("http://a.proxy")
        .no(around)
        .build();
    for account in config.accounts.values_mut() {
        let is_through = (account.base_url.as_str().parse())
            .is_ok_and(|base: http::Uri| matcher.intercept(&base).is_some());
        if is_through {
            account.proxy = Some(parsed(name, proxy)?);
        }
    }
    Ok(())
}

/// The first of these that holds anything.
fn first<'a>(
    env: &'a [(String, String)],
    names: [&'static str; 2],
) -> Option<(&'static str, &'a str)> {
    let value = |wanted: &str| {
        let (_, value) = env.iter().find(|(name, _)| name == wanted)?;
        Some(value.trim()).filter(|value| !value.is_empty())
    };
    let mut found = (names.into_iter()).filter_map(|name| Some((name, value(name)?)));
    found.next()
}

/// The value is never repeated: it may hold a password.
fn parsed(name: &str, text: &str) -> Result<ProxyConfig, ConfigError> {
    let whole = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url = Url::parse(&whole).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    let place = url.as_ref().and_then(|url| {
        let (host, port) = (url.host_str()?, url.port_or_known_default()?);
        Some(format!("{host}:{port}"))
    });
    match place {
        Some(place) => Ok(ProxyConfig {
            url: SecretString::from(whole),
            place,
        }),
        None => Err(ConfigError::new(
            format!("the variable {name} is no address of an HTTP proxy"),
            "write http://HOST:PORT, with USER:PASSWORD@ before the host where it asks for one",
        )),
    }
}

impl ProxyConfig {
    /// Whole, with user and password.
    #[must_use]
    pub fn expose_url(&self) -> &str {
        self.url.expose_secret()
    }
}
