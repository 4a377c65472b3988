//! The model behind a socket.
//!
//! Every path is HubSpot's, but `/` (the page) and `/_sandbox/` (the control).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Call};
use super::model::{Ending, Model, Reply};
use super::wire::{CuttableListener, Scissors};
use super::{Options, control};
use crate::clock::Clock;

/// The largest body that is read, in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How long a body may take to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);
/// A call that is never answered is cut after this time, so that none is held for ever.
const NEVER: Duration = Duration::from_mins(10);
/// How long open connections may take to end after `shutdown`.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(2);

/// What the handlers share.
#[derive(Clone)]
pub(super) struct Shared {
    model: Arc<Mutex<Model>>,
    started: Timestamp,
    origin: Instant,
    shutdown: CancellationToken,
}

/// Serves until `shutdown`. Use port 0 and `listener.local_addr()` for a free port.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let started = Clock::system().exactly();
    let shared = Shared {
        model: Arc::new(Mutex::new(Model::new(options, started))),
        started,
        origin: Instant::now(),
        shutdown: shutdown.clone(),
    };
    let app = Router::new()
        .merge(control::routes())
        .fallback(hubspot)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
        .into_make_service_with_connect_info::<Scissors>();
    let server = axum::serve(CuttableListener(listener), app)
        .with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let stopped = async {
        shutdown.cancelled().await;
        tokio::time::sleep(SHUTDOWN_TIME_MAX).await;
    };
    tokio::select! {
        biased;
        result = server.into_future() => result.context("serve the sandbox"),
        () = stopped => Ok(()),
    }
}

impl Shared {
    /// Asks the model, with the time of asking: both under one lock, so that calls arrive in the
    /// order of their times.
    pub(super) fn with<T>(&self, ask: impl FnOnce(&mut Model, Timestamp) -> T) -> T {
        // The model holds no half-made change across a panic that would matter to a test.
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self
            .started
            .checked_add(self.origin.elapsed())
            .unwrap_or(Timestamp::MAX);
        ask(&mut model, now)
    }
}

/// Every call to HubSpot.
async fn hubspot(
    State(shared): State<Shared>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX);
    let Ok(Ok(body)) = tokio::time::timeout(BODY_TIME_MAX, body).await else {
        return plain(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is too large, or did not come",
        );
    };
    let text = |name| {
        parts
            .headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let call = Call {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query(),
        authorization: text(header::AUTHORIZATION),
        body: &body,
    };
    let Reply { after, ending } = shared.with(|model, now| model.call(now, &call));
    tracing::debug!(method = call.method, path = call.path, "sandbox.called");
    if !after.is_zero() && !sleep(&shared.shutdown, after).await {
        return cut(&scissors);
    }
    match ending {
        Ending::Answer(answer) => response(answer),
        Ending::Cut => cut(&scissors),
        Ending::Never => {
            sleep(&shared.shutdown, NEVER).await;
            cut(&scissors)
        }
    }
}

/// Whether the time passed before the shutdown came.
async fn sleep(shutdown: &CancellationToken, time: Duration) -> bool {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => false,
        () = tokio::time::sleep(time) => true,
    }
}

fn cut(scissors: &Scissors) -> Response {
    scissors.cut();
    Response::new(Body::empty())
}

fn response(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

pub(super) fn plain(status: StatusCode, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
