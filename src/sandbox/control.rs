//! The page, and the control under `/_sandbox/`.

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::faults::{self, Faults};
use super::memory::CallRecord;
use super::model::{Model, OAuthControl, Tokens};
use super::server::{Shared, plain};
use super::status::SEND_RESULTS;

const PAGE: &str = include_str!("page.html");
/// Mails of one answer: as many as were not asked for, and at most.
const MAILS_DEFAULT: usize = 100;
const MAILS_MAX: usize = 10_000;
/// Lines of `/_sandbox/calls` that are made at a time.
const LINES_PER_CHUNK: usize = 1_000;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/", get(page))
        .route("/_sandbox/stats", get(stats))
        .route("/_sandbox/mail", get(mail))
        .route("/_sandbox/calls", get(calls))
        .route("/_sandbox/faults", get(show_faults).post(set_faults))
        .route("/_sandbox/token", post(set_token))
        .route("/_sandbox/oauth", get(show_oauth).post(set_oauth))
        .route("/_sandbox/reset", post(reset))
}

/// The page loads nothing from anywhere, talks to this server only, and runs no script but its own.
async fn page() -> Response {
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    (headers, PAGE.replace("NONCE", &nonce)).into_response()
}

async fn stats(State(shared): State<Shared>) -> Response {
    Json(shared.with(|model, now| model.stats(now))).into_response()
}

#[derive(Deserialize)]
struct MailQuery {
    /// Oldest first, from behind this `seq`; without it, the newest first.
    after: Option<u64>,
    limit: Option<usize>,
}

async fn mail(State(shared): State<Shared>, Query(query): Query<MailQuery>) -> Json<Value> {
    let limit = query.limit.unwrap_or(MAILS_DEFAULT).min(MAILS_MAX);
    let mails = shared.with(|model, now| model.mails(now, query.after, limit));
    Json(json!({"mail": mails}))
}

/// JSON Lines: `{"at":1700000000000.123,"portal":1,"bucket":"send","status":200}`, `at` in milliseconds.
/// `postrider sandbox check` reads them.
async fn calls(State(shared): State<Shared>) -> Response {
    let calls = shared.with(|model, _| model.calls());
    let chunks = stream::unfold(calls.into_iter(), |mut calls| async move {
        let chunk: String = calls.by_ref().take(LINES_PER_CHUNK).map(line).collect();
        (!chunk.is_empty()).then_some((Ok::<_, std::io::Error>(Bytes::from(chunk)), calls))
    });
    let lines = [(header::CONTENT_TYPE, "application/jsonl")];
    (lines, Body::from_stream(chunks)).into_response()
}

fn line(call: CallRecord) -> String {
    let (ms, us) = (call.at.div_euclid(1_000), call.at.rem_euclid(1_000));
    let bucket = call.bucket.name();
    format!(
        "{{\"at\":{ms}.{us:03},\"portal\":{},\"bucket\":\"{bucket}\",\"status\":{}}}\n",
        call.portal, call.status
    )
}

/// The faults in force, and what an address can ask for.
async fn show_faults(State(shared): State<Shared>) -> Json<Value> {
    let faults = shared.with(|model, _| model.faults().to_string());
    let tags: Vec<Value> = faults::tags()
        .map(|(tag, meaning)| json!({"tag": tag, "meaning": meaning}))
        .collect();
    Json(json!({"faults": faults, "tags": tags, "results": SEND_RESULTS.as_slice()}))
}

/// The body is the text of the faults; an empty one ends them.
async fn set_faults(State(shared): State<Shared>, text: String) -> Response {
    match text.parse::<Faults>() {
        Ok(faults) => {
            shared.with(|model, now| model.set_faults(now, faults));
            show_faults(State(shared)).await.into_response()
        }
        Err(error) => plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

/// The body is `*` (any token will do), or the tokens that will, one a line; none when it is empty.
async fn set_token(State(shared): State<Shared>, text: String) -> StatusCode {
    let tokens = match text.trim() {
        "*" => Tokens::Any,
        text => Tokens::These(text.split_whitespace().map(Into::into).collect()),
    };
    shared.with(|model, _| model.set_tokens(tokens));
    StatusCode::NO_CONTENT
}

/// Calls to the token endpoint, counted.
async fn show_oauth(State(shared): State<Shared>) -> Response {
    Json(shared.with(|model, _| model.oauth_counts())).into_response()
}

/// The body is JSON: what is to change, as [`OAuthControl`] has it.
async fn set_oauth(State(shared): State<Shared>, body: Bytes) -> Response {
    match serde_json::from_slice::<OAuthControl>(&body) {
        Ok(told) => {
            shared.with(|model, _| model.control_oauth(told));
            show_oauth(State(shared)).await
        }
        Err(error) => plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

async fn reset(State(shared): State<Shared>) -> StatusCode {
    shared.with(Model::reset);
    StatusCode::NO_CONTENT
}
