//! What lapin's errors mean to us. No address is printed with its user and password.

use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::uri::AMQPUri;
use lapin::{Error, ErrorKind};
use tokio::time::timeout;

use crate::crypto::tls_trouble;
use crate::queue::QueueError;

/// Where the broker is, as it may be printed: `host:port/vhost`.
#[derive(Clone, Debug)]
pub(super) struct Place(String);

/// Awaits an answer of the broker, but not for ever.
pub(super) async fn within<T>(
    limit: Duration,
    place: &Place,
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<T, QueueError> {
    match timeout(limit, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(place.of(&error)),
        Err(_) => Err(place.unreachable(format!("no answer within {} s", limit.as_secs()))),
    }
}

/// What a broker may mean that hangs up while a connection over TLS begins: its reason may be lost with
/// what of ours it had not read.
pub(super) fn of_hanging_up(place: &Place, error: &Error) -> Option<QueueError> {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ErrorKind::IOError(io) = error.kind() else {
        return None;
    };
    let hung_up = [
        BrokenPipe,
        ConnectionAborted,
        ConnectionReset,
        UnexpectedEof,
    ];
    (hung_up.contains(&io.kind()) && tls_trouble(io.as_ref()).is_none()).then(|| {
        place.unreachable(format!(
            "{error}: perhaps it does not take our certificate, or asks for one: then set queue.cert_file and \
             queue.key_file"
        ))
    })
}

/// The exchange or queue does not exist.
pub(super) fn is_not_found(error: &Error) -> bool {
    is_soft(error, &AMQPSoftError::NOTFOUND)
}

/// The queue exists, and no node that is up has it.
pub(super) fn is_down(error: &Error) -> bool {
    why(error).contains("is down or inaccessible")
}

fn is_soft(error: &Error, soft: &AMQPSoftError) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error)
        if matches!(error.kind(), AMQPErrorKind::Soft(kind) if kind == soft))
}

// === impl Place ===

impl Place {
    pub(super) fn of_uri(uri: &AMQPUri) -> Self {
        let authority = &uri.authority;
        let vhost = uri.vhost.trim_start_matches('/');
        Self(format!("{}:{}/{vhost}", authority.host, authority.port))
    }

    /// Of an address that could not be read.
    pub(super) fn unread() -> Self {
        Self("queue.url".into())
    }

    pub(super) fn unreachable(&self, why: impl Into<String>) -> QueueError {
        QueueError::Unreachable {
            place: self.0.clone(),
            why: why.into(),
        }
    }

    fn refused(&self, why: impl Into<String>) -> QueueError {
        QueueError::Refused {
            place: self.0.clone(),
            why: why.into(),
        }
    }

    pub(super) fn of(&self, error: &Error) -> QueueError {
        let ErrorKind::ProtocolError(told) = error.kind() else {
            if let ErrorKind::IOError(io) = error.kind()
                && let Some(trouble) = tls_trouble(io.as_ref())
            {
                let place = self.0.clone();
                return QueueError::Untrusted { place, trouble };
            }
            return self.unreachable(why(error));
        };
        let why = why(error);
        match told.kind() {
            // 530 is an unknown virtual host, or one that the user may not enter.
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
            | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => self.refused(why),
            AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => self.unreachable(why),
        }
    }

    /// Of a declaration: the broker's words name the argument that differs.
    pub(super) fn of_declaring(&self, thing: &str, error: &Error) -> QueueError {
        if is_soft(error, &AMQPSoftError::PRECONDITIONFAILED) {
            QueueError::Mismatch {
                thing: thing.into(),
                why: why(error),
            }
        } else {
            self.of(error)
        }
    }
}

/// The broker's own words where there are any, else lapin's.
pub(super) fn why(error: &Error) -> String {
    if let ErrorKind::ProtocolError(told) = error.kind() {
        told.get_message().to_string()
    } else {
        error.to_string()
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
