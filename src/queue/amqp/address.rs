//! Where the broker is: asked anew for each connection, since its password may have changed.

use std::fmt;
use std::sync::Arc;

use lapin::uri::{AMQPScheme, AMQPUri};
use secrecy::{ExposeSecret, SecretString};

use super::error::Place;
use super::link::HEARTBEAT;
use super::tls::{self, Connector};
use crate::crypto::Tls;
use crate::queue::QueueError;

/// `amqp://USER:PASSWORD@HOST:PORT/VHOST`, or `amqps://…`, or whoever knows it.
#[derive(Clone)]
pub struct Address {
    url: Arc<Source<SecretString>>,
    tls: Arc<Source<Tls>>,
}

type Source<T> = dyn Fn() -> Result<T, String> + Send + Sync;

/// The address as it was when one pair of connections was made.
pub(super) struct Target {
    pub(super) uri: AMQPUri,
    pub(super) place: Place,
    /// Of an amqps address.
    pub(super) tls: Option<Connector>,
}

// === impl Address ===

impl Address {
    /// An address that is asked for at each connection. An error, in words without a secret, means
    /// that there is none now: it is asked for again.
    pub fn asked(
        source: impl Fn() -> Result<SecretString, String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            url: Arc::new(source),
            tls: Arc::new(|| Ok(Tls::default())),
        }
    }

    /// The same, with TLS of its own where the address is one of `amqps`: asked for in the same way.
    #[must_use]
    pub fn with_tls(
        self,
        source: impl Fn() -> Result<Tls, String> + Send + Sync + 'static,
    ) -> Self {
        let tls = Arc::new(source);
        Self { tls, ..self }
    }

    /// # Errors
    /// [`QueueError::Unreachable`] when there is none now, or when it or its certificates cannot be
    /// read.
    pub(super) fn now(&self) -> Result<Target, QueueError> {
        let url = (self.url)().map_err(|why| Place::unread().unreachable(why))?;
        // The parser's error is not passed on: it may hold the address, and so the password.
        let mut uri: AMQPUri = (url.expose_secret().parse()).map_err(|_| {
            Place::unread().unreachable("it is no address like amqp://USER:PASSWORD@HOST:5672/%2f")
        })?;
        // A bare slash would name the virtual host "", which nobody has.
        if uri.vhost.is_empty() {
            uri.vhost = "/".into();
        }
        uri.query.heartbeat = Some(u16::try_from(HEARTBEAT.as_secs()).unwrap_or(u16::MAX));
        let place = Place::of_uri(&uri);
        let tls = match uri.scheme {
            AMQPScheme::AMQP => None,
            AMQPScheme::AMQPS => {
                let connector = (self.tls)().and_then(tls::connector);
                Some(connector.map_err(|why| place.unreachable(why))?)
            }
        };
        Ok(Target { uri, place, tls })
    }
}

impl<T: Into<SecretString>> From<T> for Address {
    fn from(url: T) -> Self {
        let url = url.into();
        Self::asked(move || Ok(url.clone()))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<address>")
    }
}
