//! The admin server of a worker: `/metrics`, `/healthz`, `/readyz`, `/api/status`.
//!
//! Nothing here shows what a message holds, and nothing changes anything. All the same, only what is
//! for every scraper and load balancer is open: whatever stands under `/api` is behind the `guard`.

mod guard;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router, middleware};
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::guard::{Guard, guard};
use crate::clock::{Clock, until};
use crate::dispatch::Account;
use crate::message::Priority;
use crate::metrics::Metrics;
use crate::pause::{Gate, LANES};
use crate::queue::{Lane, Queue};
use crate::quota::DAILY;
use crate::status::{
    AccountStatus, GateStatus, LaneStatus, PATH, PauseStatus, QuotaStatus, Status, TokenStatus,
};

/// How long a scrape waits for the queue's depths before it shows the last ones.
const DEPTHS_TIMEOUT: Duration = Duration::from_secs(2);
/// Depths are asked for at most this often, whoever scrapes.
const DEPTHS_EVERY: Duration = Duration::from_secs(1);
/// What a day's window is told as.
const DAY: Duration = Duration::from_hours(24);

/// What the admin server shows.
#[derive(Clone, Debug)]
pub struct Admin<Q> {
    pub queue: Q,
    pub metrics: Metrics,
    pub accounts: Vec<Arc<Account>>,
    pub clock: Clock,
    /// Cancelled when the worker begins to stop: it is not ready any more.
    pub stopping: CancellationToken,
    /// What `/api` asks for; with none it answers on a loopback address only.
    pub token: Option<SecretString>,
}

struct Shown<Q> {
    admin: Admin<Q>,
    depths_read: Mutex<Option<Instant>>,
}

/// Serves until `end`.
///
/// # Errors
/// When the listener fails, or does not tell its address.
pub async fn serve<Q: Queue>(
    listener: TcpListener,
    admin: Admin<Q>,
    end: CancellationToken,
) -> std::io::Result<()> {
    let guards = Arc::new(Guard::new(admin.token.clone(), listener.local_addr()?));
    let shown = Arc::new(Shown {
        admin,
        depths_read: Mutex::new(None),
    });
    let router = Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics::<Q>))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::<Q>))
        .merge(guarded(guards))
        .with_state(shown)
        .into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, router)
        .with_graceful_shutdown(end.cancelled_owned())
        .await
}

/// What not everybody may see. Another method than a path has is refused before the guard: 405.
fn guarded<Q: Queue>(guards: Arc<Guard>) -> Router<Arc<Shown<Q>>> {
    let layer = middleware::from_fn_with_state(guards, guard);
    Router::new().route(PATH, get(status::<Q>).route_layer(layer))
}

async fn index() -> &'static str {
    concat!(
        "postrider ",
        env!("CARGO_PKG_VERSION"),
        "\n/metrics\n/healthz\n/readyz\n/api/status\n"
    )
}

async fn metrics<Q: Queue>(State(shown): State<Arc<Shown<Q>>>) -> impl IntoResponse {
    shown.read_depths().await;
    let dropped = shown.admin.queue.notes_dropped();
    shown.admin.metrics.trace_dropped(dropped);
    for account in &shown.admin.accounts {
        account.observe(&shown.admin.metrics, shown.admin.clock.now());
    }
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, shown.admin.metrics.render())
}

/// Ready once the queues are declared and the worker consumes or stands by.
async fn ready<Q: Queue>(State(shown): State<Arc<Shown<Q>>>) -> (StatusCode, &'static str) {
    if shown.admin.stopping.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else if shown.admin.queue.is_up() {
        (StatusCode::OK, "ready\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the queue is not reached; nothing is lost meanwhile\n",
        )
    }
}

async fn status<Q: Queue>(State(shown): State<Arc<Shown<Q>>>) -> Json<Status> {
    let accounts = shown.admin.accounts.iter();
    let now = shown.admin.clock.now();
    Json(Status {
        accounts: accounts.map(|account| status_of(account, now)).collect(),
    })
}

fn status_of(account: &Account, now: Timestamp) -> AccountStatus {
    AccountStatus {
        name: account.name.clone(),
        owner: account.is_owner(),
        pauses: account
            .held_back()
            .into_iter()
            .map(|pause| PauseStatus {
                lanes: lanes(|lane| pause.covers.lane(lane)),
                priorities: Priority::ALL
                    .into_iter()
                    .filter(|priority| pause.covers.priority(*priority))
                    .collect(),
                scope: pause.reason.scope().label().into(),
                reason: pause.reason,
                since: pause.since,
                until: pause.until,
                words: pause.words,
            })
            .collect(),
        lanes: gates(account),
        token_troubles: tokens(account),
        quota: quota_of(account, now),
        in_flight: u64::try_from(account.in_flight()).unwrap_or(0),
        held: Priority::ALL.into_iter().zip(account.held()).collect(),
    }
}

fn tokens(account: &Account) -> Vec<TokenStatus> {
    let troubles = account.token_troubles().into_iter();
    let troubles = troubles.map(|trouble| TokenStatus {
        key: trouble.key.to_owned(),
        place: trouble.place,
        why: trouble.why,
        hint: trouble.hint,
        since: trouble.since,
        until: trouble.until,
    });
    troubles.collect()
}

fn lanes(holds: impl Fn(Lane) -> bool) -> Vec<String> {
    let held = LANES.into_iter().filter(|lane| holds(*lane));
    held.map(|lane| lane.as_str().to_owned()).collect()
}

fn gates(account: &Account) -> Vec<LaneStatus> {
    let gate = |lane| match account.pauses.gate(lane) {
        Gate::Open => GateStatus::Open,
        Gate::Trial => GateStatus::Trial,
        Gate::Shut { .. } => GateStatus::Shut,
    };
    let lane = |lane: Lane| LaneStatus {
        lane: lane.as_str().to_owned(),
        gate: gate(lane),
        waits_for: account.waits_for(lane),
    };
    LANES.into_iter().map(lane).collect()
}

fn quota_of(account: &Account, now: Timestamp) -> Vec<QuotaStatus> {
    let windows = account.quota().into_iter().filter_map(|(bucket, used)| {
        let used = used?;
        let limit = used.config.limit;
        Some(QuotaStatus {
            bucket: bucket.label().into(),
            limit: limit.into(),
            window_s: used.config.window.as_secs_f64(),
            used: used.calls.into(),
            share: (used.share < limit).then_some(used.share.into()),
            told: used.told.filter(|told| *told < limit).map(u64::from),
            is_refused: used.is_refused,
            full: used.full,
            is_learned: used.is_learned,
            spent_at: None,
            ends: None,
        })
    });
    let day = account.day_used(now).map(|day| QuotaStatus {
        bucket: DAILY.into(),
        limit: day.limit,
        window_s: DAY.as_secs_f64(),
        used: day.calls,
        share: None,
        told: None,
        is_refused: false,
        full: None,
        is_learned: false,
        spent_at: day.spent_at,
        ends: Some(day.ends),
    });
    windows.chain(day).collect()
}

impl<Q: Queue> Shown<Q> {
    /// Brings the depths up to date. Scrapers that come meanwhile wait for the same answer.
    async fn read_depths(&self) {
        let mut read = self.depths_read.lock().await;
        if read.is_some_and(|read| read.elapsed() < DEPTHS_EVERY) {
            return;
        }
        *read = Some(Instant::now());
        match tokio::time::timeout(DEPTHS_TIMEOUT, self.admin.queue.depths()).await {
            Ok(Ok(depths)) => {
                let now = self.admin.clock.now();
                for depth in depths {
                    let age = depth.oldest.map(|oldest| until(oldest, now));
                    self.admin.metrics.queue(&depth.queue, depth.messages, age);
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "cannot read the queue's depths"),
            Err(_) => tracing::debug!("the queue does not tell its depths in time"),
        }
    }
}
