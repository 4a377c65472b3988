//! The HTTP client against a HubSpot on a real socket.

mod leaving;
pub mod stub;
mod tokens;
mod with_sandbox;

use std::fmt::Write;
use std::time::Duration;

use postrider::clock::Clock;
use postrider::config::{AccountConfig, Api, ApiVersion, QuotaConfig, TokenSource};
use postrider::message::{AccountName, SendRequest};
use postrider::outcome::{Failure, FailureClass, LookUp, Outcome, PauseReason, Scope};
use postrider::provider::hubspot::{HubSpot, HubSpotError};
use postrider::provider::{Probe, Provider};

use self::stub::{Reply, Stub};

const TOKEN: &str = "pat-eu1-11111111-2222-3333-4444-555555555555";
const ACCEPTED: &str =
    r#"{"requestedAt":"2026-11-22T08:00:00Z","statusId":"abc-_w==","status":"PENDING"}"#;

pub(super) fn config(base_url: &str) -> AccountConfig {
    AccountConfig {
        token: TokenSource::Given(TOKEN.into()),
        next_token: TokenSource::Missing,
        portal_id: None,
        account_type: None,
        base_url: base_url.parse().unwrap(),
        ca_file: None,
        proxy: None,
        api: Api::Transactional,
        api_version: ApiVersion::V2026_09,
        quota: QuotaConfig::default(),
        results: 1.0,
        concurrency: 4,
        low_share: 0.05,
        timeout: Duration::from_secs(20),
    }
}

fn hubspot(config: &AccountConfig) -> HubSpot {
    HubSpot::new(&AccountName::default(), config, Clock::system()).unwrap()
}

fn request(body: &str) -> SendRequest {
    SendRequest::parse(body.as_bytes(), Some("order-1")).unwrap()
}

fn small_request() -> SendRequest {
    request(r#"{"emailId":1,"message":{"to":"ada@example.com"}}"#)
}

async fn send(config: &AccountConfig) -> Outcome {
    hubspot(config).send(&small_request(), "order-1").await
}

fn accepted() -> Reply {
    Reply::Whole(
        200,
        "x-hubspot-correlation-id: c-1\r\n",
        ACCEPTED.to_owned(),
    )
}

fn unknown(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Unknown(failure) => failure,
        Outcome::Accepted(_) | Outcome::NotSent(_) => panic!("{outcome:?}"),
    }
}

fn not_sent(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::NotSent(failure) => failure,
        Outcome::Accepted(_) | Outcome::Unknown(_) => panic!("{outcome:?}"),
    }
}

#[tokio::test]
async fn each_api_and_version_has_its_path() {
    let stub = Stub::start(accepted()).await;
    for (api, version, path) in [
        (
            Api::Transactional,
            ApiVersion::V2026_09,
            "/marketing/transactional/2026-09/single-email/send",
        ),
        (
            Api::Transactional,
            ApiVersion::V2026_03,
            "/marketing/transactional/2026-03/single-email/send",
        ),
        (
            Api::Transactional,
            ApiVersion::V3,
            "/marketing/v3/transactional/single-email/send",
        ),
        (
            Api::Marketing,
            ApiVersion::V2026_09,
            "/marketing/email-campaigns/2026-09/single-send",
        ),
        (
            Api::Marketing,
            ApiVersion::V2026_03,
            "/marketing/email-campaigns/2026-03/single-send",
        ),
        (
            Api::Marketing,
            ApiVersion::V4,
            "/marketing/v4/email/single-send",
        ),
    ] {
        for base in ["", "/", "/hub", "/hub/"] {
            let mut config = config(&format!("{}{base}", stub.url()));
            (config.api, config.api_version) = (api, version);
            assert!(matches!(send(&config).await, Outcome::Accepted(_)));
            let prefix = if base.starts_with("/hub") { "/hub" } else { "" };
            let asked = stub.asked().pop().unwrap();
            assert_eq!(asked.line, format!("POST {prefix}{path}"));
        }
    }
}

#[tokio::test]
async fn a_body_goes_out_to_the_byte() {
    let stub = Stub::start(accepted()).await;
    let request = request(
        r#"{"emailId":9223372036854775807,
        "message":{"to":"ada@example.com","from":"Sales <sales@example.com>","cc":["b@example.com"],"sendId":"order-1"},
        "contactProperties":{ "firstname" : "Ada \u00e9 \ud83d\ude80" },
        "customProperties":{"huge":1e400,"price":0.10,"big":123456789012345678901234567890,"list":[1, 2,{"a":null}]},
        "dispatch":{"account":"default","priority":"high","producer":"billing"}}"#,
    );
    let outcome = hubspot(&config(&stub.url()))
        .send(&request, "order-1.r2")
        .await;

    let asked = stub.only();
    assert_eq!(
        asked.body,
        concat!(
            r#"{"emailId":9223372036854775807,"message":{"to":"ada@example.com","#,
            r#""from":"Sales <sales@example.com>","replyTo":[],"cc":["b@example.com"],"bcc":[],"#,
            r#""sendId":"order-1.r2"},"#,
            r#""contactProperties":{ "firstname" : "Ada \u00e9 \ud83d\ude80" },"#,
            r#""customProperties":{"huge":1e400,"price":0.10,"#,
            r#""big":123456789012345678901234567890,"list":[1, 2,{"a":null}]}}"#,
        )
    );
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert_eq!(
        asked.header("authorization"),
        Some(format!("Bearer {TOKEN}").as_str())
    );
    assert_eq!(
        asked.header("user-agent"),
        Some(concat!("postrider/", env!("CARGO_PKG_VERSION")))
    );
    let Outcome::Accepted(accepted) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(accepted.status_id.as_deref(), Some("abc-_w=="));
    assert_eq!(accepted.words.correlation_id.as_deref(), Some("c-1"));
}

#[tokio::test]
async fn what_is_absent_goes_out_empty() {
    let stub = Stub::start(accepted()).await;
    send(&config(&stub.url())).await;
    assert_eq!(
        stub.only().body,
        concat!(
            r#"{"emailId":1,"message":{"to":"ada@example.com","replyTo":[],"cc":[],"bcc":[],"#,
            r#""sendId":"order-1"},"contactProperties":{},"customProperties":{}}"#,
        )
    );
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let stub = Stub::start(accepted()).await;
    let hubspot = hubspot(&config(&stub.url()));
    for _ in 0..3 {
        hubspot.send(&small_request(), "order-1").await;
    }
    let connections: Vec<_> = stub.asked().iter().map(|asked| asked.connection).collect();
    assert_eq!(connections, [0, 0, 0]);
}

#[tokio::test]
async fn a_status_id_is_escaped_in_its_path() {
    let body = r#"{"status":"COMPLETE","statusId":"x","sendResult":"SENT"}"#;
    let stub = Stub::start(Reply::Whole(200, "", body.into())).await;
    let hubspot = hubspot(&config(&format!("{}/hub/", stub.url())));
    let look_up = hubspot.look_up("a/b+c-d_e==?#%ä").await;
    assert!(matches!(look_up, LookUp::Sent(_)), "{look_up:?}");
    assert_eq!(
        stub.only().line,
        "GET /hub/marketing/v3/email/send-statuses/a%2Fb%2Bc-d_e%3D%3D%3F%23%25%C3%A4"
    );
}

#[tokio::test]
async fn a_time_out_is_unknown() {
    let stub = Stub::start(Reply::Hang).await;
    let mut config = config(&stub.url());
    config.timeout = Duration::from_millis(300);
    let failure = unknown(send(&config).await);
    assert_eq!(failure.class, FailureClass::Transient);
    assert_eq!(failure.scope, Scope::Provider);
    assert_eq!(
        failure.words.message.as_deref(),
        Some("no answer: time-out")
    );
    assert_eq!(stub.asked().len(), 1, "a call is never repeated here");
}

#[tokio::test]
async fn what_breaks_off_is_unknown() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n";
    for bytes in [
        String::new(),
        "HTTP/1.1 2".to_owned(),
        head.to_owned(),
        format!("{head}{}", ACCEPTED.get(..40).unwrap()),
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
    ] {
        let stub = Stub::start(Reply::Cut(bytes.clone())).await;
        unknown(send(&config(&stub.url())).await);
        assert_eq!(stub.asked().len(), 1, "{bytes:?} is never asked for again");
    }
}

#[tokio::test]
async fn a_status_decides_even_when_its_body_breaks_off() {
    let stub = Stub::start(Reply::Cut(
        "HTTP/1.1 400 Bad\r\ncontent-length: 500\r\n\r\nInvalid req".into(),
    ))
    .await;
    let failure = not_sent(send(&config(&stub.url())).await);
    assert_eq!(failure.class, FailureClass::Permanent);
    assert_eq!(failure.words.message.as_deref(), Some("Invalid req"));
}

#[tokio::test]
async fn without_a_connection_nothing_was_sent() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let plain = Stub::start(Reply::Hang).await;
    for base_url in [
        nobody,
        "http://no-such-host.invalid".into(),
        // The handshake fails before a byte of the request is out. The stub waits for a request
        // head that never ends, so it is our own patience for a connection that runs out.
        plain.url().replace("http:", "https:"),
    ] {
        let mut config = config(&base_url);
        config.timeout = Duration::from_secs(2);
        let failure = not_sent(send(&config).await);
        assert_eq!(failure.class, FailureClass::Transient, "{base_url}");
        assert_eq!(failure.scope, Scope::Provider);
        assert!(!failure.hint.contains("127.0.0.1"), "{}", failure.hint);
    }
    assert!(plain.asked().is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Stub::start(accepted()).await;
    let target = elsewhere.url();
    let redirect = format!("HTTP/1.1 307 Go\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n");
    let stub = Stub::start(Reply::Cut(redirect)).await;
    let failure = not_sent(send(&config(&stub.url())).await);
    assert_eq!(failure.class, FailureClass::Halted);
    assert!(elsewhere.asked().is_empty(), "the token went to a stranger");
}

#[tokio::test]
async fn a_huge_body_is_cut() {
    let stub = Stub::start(Reply::Whole(503, "", "x".repeat(50_000_000))).await;
    let failure = not_sent(send(&config(&stub.url())).await);
    assert_eq!(failure.words.message.unwrap().chars().count(), 501);
}

#[tokio::test]
async fn waits_are_told() {
    let stub = Stub::start(Reply::Whole(
        429,
        "retry-after: 3\r\n",
        r#"{"errorType":"RATE_LIMIT","policyName":"TEN_SECONDLY_ROLLING"}"#.into(),
    ))
    .await;
    let failure = not_sent(send(&config(&stub.url())).await);
    assert_eq!(failure.class, FailureClass::Throttled);
    assert_eq!(failure.pause, Some(PauseReason::Throttled));
    assert_eq!(failure.retry_after, Some(Duration::from_secs(3)));
}

#[tokio::test]
async fn a_probe_sends_no_mail() {
    let stub = Stub::answering(|asked| {
        let body = if asked.line.starts_with("GET") {
            r#"{"portalId":77,"accountType":"STANDARD","timeZone":"Europe/Dublin"}"#
        } else {
            r#"{"userId":1,"hubId":77,"appId":2,"scopes":["transactional-email"]}"#
        };
        Reply::Whole(200, "", body.into())
    })
    .await;
    for (version, details) in [
        (ApiVersion::V2026_09, "/account-info/2026-09/details"),
        (ApiVersion::V3, "/account-info/v3/details"),
    ] {
        let mut config = config(&stub.url());
        config.api_version = version;
        let Probe::Open(portal) = hubspot(&config).probe().await else {
            panic!("it is open");
        };
        assert_eq!(portal.portal_id, Some(77));
        let mut lines: Vec<_> = stub.asked().into_iter().map(|asked| asked.line).collect();
        lines.sort();
        assert!(lines.contains(&format!("GET {details}")), "{lines:?}");
        assert!(lines.contains(&"POST /oauth/v2/private-apps/get/access-token-info".to_owned()));
    }
    let asked = stub.asked();
    assert!(asked.iter().all(|asked| !asked.line.contains("send")));
    let info = asked.iter().find(|asked| asked.line.starts_with("POST"));
    assert_eq!(info.unwrap().body, format!(r#"{{"tokenKey":"{TOKEN}"}}"#));
}

#[tokio::test]
async fn what_cannot_call_is_refused_at_once() {
    let refused = |config: &AccountConfig| {
        let error = HubSpot::new(&AccountName::default(), config, Clock::system()).unwrap_err();
        let told = format!("{error} {error:?} {}", error.hint());
        assert!(!told.contains("secret"), "{told}");
        error
    };
    let mut config = config("https://api.hubapi.com");
    config.token = TokenSource::Missing;
    assert!(matches!(refused(&config), HubSpotError::NoToken { .. }));
    for token in ["", "  ", "secret\u{7f}", "secret\nsecret"] {
        config.token = TokenSource::Given(token.into());
        assert!(matches!(refused(&config), HubSpotError::BadToken { .. }));
    }
    config.token = TokenSource::File("/no/such/file".into());
    assert!(matches!(refused(&config), HubSpotError::BadToken { .. }));
    config.token = TokenSource::Missing;
    config.next_token = TokenSource::Given("secret\nsecret".into());
    assert!(matches!(refused(&config), HubSpotError::BadToken { .. }));
    config.next_token = TokenSource::Missing;
    config.token = TokenSource::Given("secret".into());
    for base_url in [
        "ftp://example.com/secret",
        "https://secret@example.com",
        "https://:secret@example.com",
        "data:secret",
        "unix:/secret",
    ] {
        config.base_url = base_url.parse().unwrap();
        assert!(matches!(refused(&config), HubSpotError::BadBaseUrl { .. }));
    }
}

#[tokio::test]
async fn no_secret_is_told() {
    let echo = format!("<html><title>Bad: authorization: Bearer {TOKEN}</title>");
    let stub = Stub::start(Reply::Whole(400, "", echo)).await;
    let whole = Stub::start(Reply::Whole(
        401,
        "",
        format!(r#"{{"message":"token {TOKEN} is not known"}}"#),
    ))
    .await;
    let mut told = String::new();
    for base_url in [stub.url(), whole.url()] {
        let hubspot = hubspot(&config(&base_url));
        write!(
            told,
            "{hubspot:?} {:?} {:?} {:?}",
            hubspot.send(&small_request(), "order-1").await,
            hubspot.look_up("abc").await,
            hubspot.probe().await
        )
        .unwrap();
    }
    for secret in [TOKEN, "ada@example.com"] {
        assert!(!told.contains(secret), "{told}");
    }
    assert!(told.contains("[token]"), "{told}");
}
