//! HubSpot behind TLS and a proxy: what goes over the wire, and what is said where it goes wrong.

use std::fs;
use std::process::Output;
use std::time::Duration;

use super::world::{World, eventually, ids};
use crate::support::forward::Forward;
use crate::support::tls::{Authority, TlsListener};

/// Known to no name server: the proxy alone knows the way.
const HOST: &str = "api.hubapi.invalid";
const REST_TIME_MAX: Duration = Duration::from_mins(1);

/// The sandbox behind TLS, a proxy to it, and a world that knows neither yet.
struct Stage {
    world: World,
    proxy: Forward,
    tls: TlsListener,
}

impl Stage {
    async fn new(name: &str) -> Self {
        let world = World::on_sqlite(&[]).await;
        let (ours, others) = (Authority::new("Ours"), Authority::new("Others"));
        fs::write(world.path("ca.pem"), &ours.pem).unwrap();
        fs::write(world.path("other-ca.pem"), &others.pem).unwrap();
        let tls = TlsListener::before(world.sandbox.port(), &ours.server(name)).await;
        let proxy = Forward::to(tls.port()).await;
        let base = format!("https://{HOST}");
        let ca = world.path("ca.pem").display().to_string();
        let world = world
            .set("accounts.default.base_url", &base)
            .set("accounts.default.ca_file", &ca)
            .env(
                "HTTPS_PROXY",
                &format!("http://ada:s3cret@{}", proxy.address()),
            );
        Self { world, proxy, tls }
    }

    /// `check`, which finds that HubSpot is not reached.
    async fn assert_not_reached(&self, words: &[&str]) {
        let told = all_of(&self.world.run(&["check"]).await, 69);
        for word in words {
            assert!(told.contains(word), "{word}: {told}");
        }
    }
}

fn all_of(output: &Output, code: i32) -> String {
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = told + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(!told.contains("s3cret"), "a password: {told}");
    told
}

#[tokio::test]
async fn mail_goes_by_the_proxy_and_nothing_of_it_in_clear() {
    let stage = Stage::new(HOST).await;
    let Stage { world, proxy, .. } = &stage;
    let all = ids("proxied", 5);
    let worker = world.worker().await;
    world.publish(&all).await;
    world.sandbox.until_mailed(5, REST_TIME_MAX).await;
    let checked = all_of(&world.run(&["check"]).await, 0);
    let place = format!("https://{HOST}/ (by the proxy {})", proxy.address());
    assert!(checked.contains(&place), "{checked}");

    let heads = proxy.heads();
    assert!(!heads.is_empty());
    for head in heads {
        let line = format!("CONNECT {HOST}:443 HTTP/1.1\r\n");
        assert!(head.starts_with(&line), "{head}");
        // ada:s3cret
        let user = "proxy-authorization: basic ywrhonmzy3jldA==".to_lowercase();
        assert!(head.to_lowercase().contains(&user), "{head}");
        assert!(!head.contains("pat-na1"), "{head}");
    }
    let passed = proxy.passed();
    // Handshakes of TLS, the first of them.
    assert_eq!(passed[..2], [22, 3]);
    let text = String::from_utf8_lossy(&passed);
    for clear in ["pat-na1", "Bearer", "example.com", "single-email"] {
        assert!(!text.contains(clear), "{clear} in clear");
    }
    let log = format!("{:?}", worker.log());
    assert!(!log.contains("s3cret"), "{log}");
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&all).await;
}

#[tokio::test]
async fn no_proxy_leads_around_it() {
    let Stage { world, proxy, tls } = Stage::new("localhost").await;
    let base = format!("https://localhost:{}", tls.port());
    let world = world.set("accounts.default.base_url", &base);
    let world = world.env("NO_PROXY", "example.com, localhost");
    let checked = all_of(&world.run(&["check"]).await, 0);
    assert!(!checked.contains("by the proxy"), "{checked}");
    let all = ids("around", 3);
    let worker = world.worker().await;
    world.publish(&all).await;
    world.sandbox.until_mailed(3, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&all).await;
    assert_eq!(proxy.heads(), Vec::<String>::new());

    // What is no HTTPS goes by no proxy, whatever else the environment names.
    let way = proxy.address().to_string();
    let plain = world.sandbox.base().to_owned();
    let world = world.set("accounts.default.base_url", &plain);
    let world = world.env("NO_PROXY", "").unset("accounts.default.ca_file");
    let world = world.env("HTTP_PROXY", &way).env("ALL_PROXY", &way);
    all_of(&world.run(&["check"]).await, 0);
    let world = world.env("http_proxy", &way).env("all_proxy", &way);
    all_of(&world.run(&["check"]).await, 0);
    assert_eq!(proxy.heads(), Vec::<String>::new());
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_stops_the_account_and_no_message() {
    let stage = Stage::new(HOST).await;
    let other = stage.world.path("other-ca.pem").display().to_string();
    // An attempt that was spent would be the last one.
    let world = stage.world.set("retry.max_attempts", "1");
    let stage = Stage {
        world: world.set("accounts.default.ca_file", &other),
        ..stage
    };
    stage
        .assert_not_reached(&[
            &format!("{HOST}:443 has a certificate that is not trusted: UnknownIssuer"),
            "set accounts.NAME.ca_file to the authority that signed it",
        ])
        .await;
    let world = &stage.world;
    let all = ids("distrusted", 3);
    let worker = world.worker().await;
    world.publish(&all).await;
    worker
        .until_said("paused: nothing is lost and no attempt is spent")
        .await;
    let queue = world.told(&["queue", "--worker", &worker.address()]).await;
    assert!(queue.contains("UnknownIssuer"), "{queue}");
    worker.stop().await;
    assert_eq!(world.dead().await, Vec::<serde_json::Value>::new());
    assert_eq!(world.sandbox.mails().await, []);
    assert_eq!(world.sandbox.calls().await.len(), 0, "nothing was asked");

    // The system's authorities are trusted too.
    let ca = stage.world.path("ca.pem").display().to_string();
    let world = stage.world.env("SSL_CERT_FILE", &ca);
    let worker = world.worker().await;
    world.sandbox.until_mailed(3, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&all).await;
}

#[tokio::test]
async fn a_certificate_of_another_name_is_refused() {
    let stage = Stage::new("another.invalid").await;
    let words = format!("{HOST}:443 has another one's: certificate not valid for name \"{HOST}\"");
    stage.assert_not_reached(&[&words, "another.invalid"]).await;
    assert_eq!(
        stage.world.sandbox.calls().await.len(),
        0,
        "nothing was asked"
    );
}

#[tokio::test]
async fn a_proxy_that_does_not_let_through_loses_nothing() {
    let stage = Stage::new(HOST).await;
    let address = stage.proxy.address();
    let wants = format!("the proxy {address} wants a user and a password (407)");
    let fails = format!("the proxy {address} does not connect us to {HOST}:443");
    for (refusal, words, count) in [
        ("407 Proxy Authentication Required", &wants, 1),
        ("502 Bad Gateway", &fails, 2),
    ] {
        stage.proxy.refuse(Some(refusal));
        stage.assert_not_reached(&[words]).await;
        let world = &stage.world;
        let all = ids(&refusal[..3], 2);
        let worker = world.worker().await;
        world.publish(&all).await;
        let tried = stage.proxy.heads().len() + 4;
        let has_tried = async || stage.proxy.heads().len() >= tried;
        eventually(REST_TIME_MAX, "it tries", has_tried).await;
        let log = format!("{:?}", worker.log());
        assert!(log.contains(words.as_str()), "{log}");
        assert_eq!(world.dead().await, Vec::<serde_json::Value>::new());
        stage.proxy.refuse(None);
        world.sandbox.until_mailed(count * 2, REST_TIME_MAX).await;
        worker.finish(REST_TIME_MAX).await;
    }
    let all = ids("407", 2).into_iter().chain(ids("502", 2)).collect();
    stage.world.assert_mailed(&all).await;
}
