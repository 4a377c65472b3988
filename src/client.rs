//! The HTTP client with which an account is called: who is trusted, by which proxy, and that nothing is
//! done twice or elsewhere.

use reqwest::{Certificate, ClientBuilder, Proxy, redirect, retry};

use crate::config::AccountConfig;
use crate::crypto::init_crypto;

/// A client for the account's HubSpot; time-outs are for whoever builds it to set.
///
/// # Errors
/// Which file of authorities cannot be read, or what is wrong with the proxy.
pub fn of(account: &AccountConfig) -> Result<ClientBuilder, String> {
    init_crypto();
    let mut client = ClientBuilder::new()
        .user_agent(concat!("postrider/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        // Only the configuration reads the environment.
        .no_proxy();
    if let Some(proxy) = &account.proxy {
        client = client.proxy(Proxy::https(proxy.expose_url()).map_err(told)?);
    }
    if account.base_url.scheme() == "http" {
        // A sandbox: no certificate is ever checked, so a machine without any will do.
        return Ok(client.tls_certs_only([]));
    }
    let trusted = account.authorities().map_err(|error| error.to_string())?;
    let trusted: Result<Vec<_>, _> = trusted.iter().map(|it| Certificate::from_der(it)).collect();
    Ok(client.tls_certs_merge(trusted.map_err(told)?))
}

fn told(error: reqwest::Error) -> String {
    innermost(&error.without_url())
}

/// The cause at the bottom, such as `Connection refused`; the layers above it only repeat the
/// address.
pub fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
