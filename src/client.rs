//! The HTTP client with which an account is called: who is trusted, by which proxy, and that nothing is
//! done twice or elsewhere; and when a call left that had to connect.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use reqwest::{Certificate, ClientBuilder, Proxy, redirect, retry};
use tokio::task::futures::TaskLocalFuture;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

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

tokio::task_local! {
    static DEPARTURE: Departure;
}

/// Whether a call had to connect before it left, and until when: of that nobody else tells.
///
/// A call that finds a connection at hand leaves at once. Any other begins to connect, and leaves when
/// that connection stands, or sooner over one that another call is done with.
#[derive(Clone, Debug, Default)]
pub struct Departure(Arc<Mutex<Connecting>>);

#[derive(Debug, Default)]
struct Connecting {
    under_way: u32,
    /// When the last one ended.
    ended: Option<Instant>,
}

impl Departure {
    /// The call of which it tells.
    pub fn of<F: Future>(&self, call: F) -> TaskLocalFuture<Self, F> {
        DEPARTURE.scope(self.clone(), call)
    }

    /// Whether it is known by when the call left: not while a connection that it began is under way.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.lock().under_way == 0
    }

    /// When its connection stood, if it had to connect: it left no later than that.
    #[must_use]
    pub fn connected(&self) -> Option<Instant> {
        self.lock().ended
    }

    fn lock(&self) -> MutexGuard<'_, Connecting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let departure = DEPARTURE.try_with(Departure::clone).unwrap_or_default();
        departure.lock().under_way += 1;
        let connecting = self.0.call(to);
        Box::pin(async move {
            let connection = connecting.await;
            let mut told = departure.lock();
            told.under_way -= 1;
            told.ended = Some(Instant::now());
            drop(told);
            connection
        })
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
