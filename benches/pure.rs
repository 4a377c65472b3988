//! The pure parts, one by one: `cargo bench --bench pure`.
//!
//! What a send costs beside the network and the queue is the sum of a few of these.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark may stop at once"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt;
use jiff::Timestamp;
use postrider::clock::Clock;
use postrider::config::{AccountConfig, Config, RetryConfig, Sources, WindowConfig};
use postrider::message::{AccountName, SendRequest};
use postrider::outcome::{Accepted, Failure, FailureClass, Outcome, Scope, Words};
use postrider::provider::Provider;
use postrider::provider::hubspot::{Answer, Call, Heard, HubSpot, Transport};
use postrider::quota::{RateLimiter, Start};
use postrider::retry::{Context, RetryPolicy};
use postrider::sandbox::{self, Model};
use postrider::story::Story;

const RECEIPT: &str = r#"{"emailId":4126643121,"message":{"to":"ada@example.com","sendId":"order-1042-receipt"},"contactProperties":{"firstname":"Ada","lastname":"Lovelace"},"customProperties":{"order":"1042","total":"19.90 EUR"}}"#;
const ACCEPTED: &str =
    r#"{"requestedAt":"2026-11-22T08:00:00Z","statusId":"abc-_w==","status":"PENDING"}"#;

/// Answers at once, and always the same.
struct AtOnce;

impl Transport for AtOnce {
    async fn carry(&self, call: Call) -> Heard {
        black_box(call.body());
        Ok(Answer::new(200, &[], ACCEPTED.as_bytes()))
    }
}

/// A receipt with a property of so many bytes.
fn request_of(bytes: usize) -> String {
    let long = format!(r#""order":"{}""#, "x".repeat(bytes));
    RECEIPT.replace(r#""order":"1042""#, &long)
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse a request");
    for (name, body) in [
        ("200 bytes", RECEIPT.to_owned()),
        ("200 KiB", request_of(200 * 1024)),
    ] {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| SendRequest::parse(black_box(body.as_bytes()), None).unwrap());
        });
    }
    group.finish();
}

fn call(criterion: &mut Criterion) {
    let hubspot = HubSpot::over(AtOnce, &AccountName::default(), &account(), Clock::system());
    let hubspot = hubspot.unwrap();
    let request = SendRequest::parse(RECEIPT.as_bytes(), None).unwrap();
    criterion.bench_function("write a body, read an answer", |bencher| {
        let send = || hubspot.send(black_box(&request), "order-1042-receipt");
        bencher.iter(|| send().now_or_never().unwrap());
    });
}

fn decide(criterion: &mut Criterion) {
    let policy = RetryPolicy::new(RetryConfig::default());
    let mut rng = fastrand::Rng::with_seed(1);
    let accepted = Outcome::Accepted(Accepted {
        status_id: Some("abc-_w==".into()),
        words: Words::default(),
    });
    let down = Outcome::NotSent(Failure {
        class: FailureClass::Transient,
        scope: Scope::Provider,
        pause: None,
        retry_after: None,
        words: Words::default(),
        hint: String::new(),
    });
    let mut group = criterion.benchmark_group("decide what follows");
    for (name, outcome) in [("accepted", accepted), ("a failure", down)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                policy.after_send(outcome.clone(), Story::default(), &context(), &mut rng)
            });
        });
    }
    group.finish();
}

fn window(criterion: &mut Criterion) {
    // Wide enough that nothing waits: the ledger holds some ten thousand calls.
    let limit = WindowConfig {
        limit: 100_000_000,
        window: Duration::from_millis(10),
    };
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().build().unwrap();
    let _inside = runtime.enter();
    let limiter = Arc::new(RateLimiter::new(Some(limit), Start::Empty));
    criterion.bench_function("a call through its window", |bencher| {
        bencher.iter(|| {
            let token = limiter.token().now_or_never().unwrap();
            drop(limiter.spend(token));
        });
    });
}

fn model(criterion: &mut Criterion) {
    let now = Timestamp::UNIX_EPOCH;
    let mut hubspot = Model::new(sandbox::Options::default(), now);
    criterion.bench_function("an answer of the sandbox", |bencher| {
        bencher.iter(|| {
            hubspot.call(
                now,
                &sandbox::Call {
                    method: "POST",
                    path: "/marketing/transactional/2026-09/single-email/send",
                    query: None,
                    authorization: Some("Bearer any"),
                    body: black_box(RECEIPT.as_bytes()),
                },
            )
        });
    });
}

fn context() -> Context {
    Context {
        now: Timestamp::UNIX_EPOCH,
        key: "order-1042-receipt".into(),
        account: AccountName::default(),
        email_id: Some(4_126_643_121),
        held_until: Timestamp::UNIX_EPOCH,
        last_accepted: None,
        last_sent: None,
        outage: false,
        handed_out_before: false,
        follow: true,
    }
}

/// As it is where nothing but a token is configured.
fn account() -> AccountConfig {
    let token = ("POSTRIDER_ACCOUNTS__DEFAULT__TOKEN", "pat-eu1-bench");
    let sources = Sources {
        env: vec![(token.0.to_owned(), token.1.to_owned())],
        ..Sources::default()
    };
    let mut config = Config::load(&sources).unwrap();
    config.accounts.remove(&AccountName::default()).unwrap()
}

criterion_group!(pure, parse, call, decide, window, model);
criterion_main!(pure);
