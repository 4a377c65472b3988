//! The HTTP client with which an account is called: who is trusted, by which proxy, and that nothing is
//! done twice or elsewhere; and when a call leaves that has to connect, or that it does not.

mod departure;

use std::pin::Pin;
use std::task::{Context, Poll};

use reqwest::{Certificate, ClientBuilder, Proxy, redirect, retry};
use tower_layer::Layer;
use tower_service::Service;

pub use self::departure::{Departure, Fence, Leaving, NotLeft, connecting};
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
        .connector_layer(Departures)
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

/// Around a client's connector.
#[derive(Clone, Copy, Debug)]
struct Departures;

/// A connector that tells a call's [`Departure`] of the connection that it begins.
#[derive(Clone, Debug)]
struct Connector<S>(S);

impl<S> Layer<S> for Departures {
    type Service = Connector<S>;

    fn layer(&self, inner: S) -> Connector<S> {
        Connector(inner)
    }
}

impl<S, R> Service<R> for Connector<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    /// Is called by the task of the call that needs the connection; who waits for it may be another one.
    fn call(&mut self, to: R) -> Self::Future {
        Box::pin(connecting(self.0.call(to)))
    }
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
