//! TLS to the broker: whom it trusts, and as whom it comes.

#[cfg(not(feature = "amqps"))]
pub(super) use self::without::Connector;
#[cfg(feature = "amqps")]
pub(super) use lapin::tcp::RustlsConnector as Connector;

use crate::crypto::Tls;

/// # Errors
/// Why TLS cannot be prepared: the system has no authorities.
#[cfg(feature = "amqps")]
pub(super) fn connector(tls: Tls) -> Result<Connector, String> {
    use lapin::tcp::RustlsConnectorConfig;

    crate::crypto::init_crypto();
    let config = match tls.authorities {
        Some(authorities) => {
            RustlsConnectorConfig::default().with_parsable_certificates(authorities)
        }
        None => RustlsConnectorConfig::new_with_platform_verifier(),
    };
    let connector = match tls.identity {
        Some(ours) => config.connector_with_single_cert(ours.chain, ours.key),
        None => config.connector_with_no_client_auth(),
    };
    connector.map_err(|error| error.to_string())
}

/// # Errors
/// Always: the configuration refuses amqps before.
#[cfg(not(feature = "amqps"))]
pub(super) fn connector(_: Tls) -> Result<Connector, String> {
    Err("this build was made without TLS".into())
}

#[cfg(not(feature = "amqps"))]
mod without {
    /// There is none.
    #[derive(Clone)]
    pub(in crate::queue::amqp) enum Connector {}
}
