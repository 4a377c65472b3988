//! Who may ask the admin server for what: with the token, without it, and from a page of another site.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::worker::Worker;
use super::world::{World, ids, within};

const TOKEN: &str = "admin-4f1c-secret";
const OPEN: [&str; 4] = ["/", "/metrics", "/healthz", "/readyz"];
const STATUS: &str = "/api/status";
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// What it answers: the status, the headers, the text.
async fn ask(
    worker: &Worker,
    path: &str,
    headers: &[(&'static str, &str)],
) -> (u16, HeaderMap, String) {
    let mut request = reqwest::Client::new().get(format!("http://{}{path}", worker.address()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.timeout(ANSWER_TIME_MAX).send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    (status, headers, answer.text().await.unwrap())
}

async fn status(worker: &Worker, headers: &[(&'static str, &str)]) -> u16 {
    ask(worker, STATUS, headers).await.0
}

async fn assert_open(worker: &Worker) {
    for path in OPEN {
        // A scraper may come by any name, and a load balancer too.
        let (status, _, _) = ask(worker, path, &[("host", "worker-1.example:9464")]).await;
        assert_eq!(status, 200, "{path}");
    }
}

fn refusals(worker: &Worker) -> Vec<Value> {
    let log = worker.log().into_iter();
    log.filter(|line| line["message"] == "an admin request was refused")
        .collect()
}

#[tokio::test]
async fn with_a_token_only_its_owner_sees_the_status() {
    let world = World::on_sqlite(&[]).await;
    let world = world.set("server.token", TOKEN);
    let worker = world.worker().await;
    assert_open(&worker).await;
    assert!(refusals(&worker).is_empty());

    let (status_code, headers, text) = ask(&worker, STATUS, &[]).await;
    assert_eq!(status_code, 401, "{text}");
    assert_eq!(headers["www-authenticate"], "Bearer");
    let wrong = format!("Bearer {TOKEN}x");
    for given in [
        wrong.as_str(),
        "Bearer ",
        "Bearer",
        "Bearer admin-4f1c-secreT",
        "Basic YWRtaW46YWRtaW4=",
        TOKEN,
    ] {
        let code = status(&worker, &[("authorization", given)]).await;
        assert_eq!(code, 401, "{given}");
    }
    let right = format!("Bearer {TOKEN}");
    let (status_code, headers, text) = ask(&worker, STATUS, &[("authorization", &right)]).await;
    assert_eq!(status_code, 200, "{text}");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(text.contains(r#""name":"default""#), "{text}");
    // The token in the address is none: addresses stand in logs.
    let by_address = format!("{STATUS}?token={TOKEN}");
    assert_eq!(ask(&worker, &by_address, &[]).await.0, 401);

    // Told once, however many came, and never with what they brought.
    let told = refusals(&worker);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["level"], "WARN");
    assert_eq!(told[0]["path"], STATUS);
    assert_eq!(told[0]["why"], "it has no token");
    let peer = told[0]["peer"].as_str().unwrap();
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
    let log = format!("{:?}", worker.log());
    assert!(!log.contains("admin-4f1c"), "{log}");
    worker.stop().await;
}

#[tokio::test]
async fn without_a_token_only_this_machine_sees_the_status() {
    let here = World::on_sqlite(&[]).await;
    let worker = here.worker().await;
    assert_eq!(status(&worker, &[]).await, 200);
    worker.stop().await;

    let everywhere = here.set("server.listen", "0.0.0.0:0");
    let worker = everywhere.worker().await;
    assert_open(&worker).await;
    let (code, _, text) = ask(&worker, STATUS, &[]).await;
    assert_eq!(code, 403);
    assert!(text.contains("set server.token"), "{text}");
    let any = [("authorization", "Bearer guess")];
    assert_eq!(status(&worker, &any).await, 403);
    worker.stop().await;

    let known = everywhere.set("server.token", TOKEN);
    let worker = known.worker().await;
    assert_eq!(status(&worker, &[]).await, 401);
    let right = format!("Bearer {TOKEN}");
    assert_eq!(status(&worker, &[("authorization", &right)]).await, 200);
    worker.stop().await;
}

#[tokio::test]
async fn a_page_of_another_site_never_sees_the_status() {
    let world = World::on_sqlite(&[]).await;
    let worker = world.worker().await;
    let address = worker.address();
    let own = format!("http://{address}");
    let port = address.rsplit_once(':').unwrap().1;
    let by_name = format!("localhost:{port}");
    for fine in [
        vec![("sec-fetch-site", "same-origin"), ("origin", own.as_str())],
        vec![("sec-fetch-site", "none")],
        vec![("host", by_name.as_str())],
        vec![("host", "[::1]:9464")],
    ] {
        assert_eq!(status(&worker, &fine).await, 200, "{fine:?}");
    }
    assert!(refusals(&worker).is_empty());
    let other_port = "http://127.0.0.1:1";
    let rebound = format!("evil.example:{port}");
    let rebound_origin = format!("http://{rebound}");
    let other_sites = [
        vec![("origin", "https://evil.example")],
        vec![("origin", "null")],
        vec![("origin", other_port)],
        vec![("sec-fetch-site", "cross-site")],
        vec![("sec-fetch-site", "same-site")],
        vec![("host", rebound.as_str())],
        vec![
            ("host", rebound.as_str()),
            ("origin", rebound_origin.as_str()),
            ("sec-fetch-site", "same-origin"),
        ],
        vec![("host", "localhost.evil.example")],
    ];
    for other in &other_sites {
        assert_eq!(status(&worker, other).await, 403, "{other:?}");
    }
    assert_eq!(refusals(&worker)[0]["why"], "its Origin is another site");
    worker.stop().await;

    // Not even with the token: it may be one that a browser has kept.
    let known = world.set("server.token", TOKEN);
    let worker = known.worker().await;
    let right = format!("Bearer {TOKEN}");
    for mut other in other_sites {
        other.push(("authorization", &right));
        assert_eq!(status(&worker, &other).await, 403, "{other:?}");
    }
    worker.stop().await;
}

#[tokio::test]
async fn what_changes_things_is_refused_before_its_body_is_read() {
    let world = World::on_sqlite(&[]).await.set("server.token", TOKEN);
    let worker = world.worker().await;
    for path in [STATUS, "/metrics"] {
        let mut wire = TcpStream::connect(worker.address()).await.unwrap();
        // The body never comes.
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: 1000000\r\n\r\n",
            worker.address()
        );
        wire.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        let read = wire.read_exact(&mut answer);
        within(ANSWER_TIME_MAX, "an answer", read).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 405", "{path}");
    }
    worker.stop().await;
}

#[tokio::test]
async fn the_commands_send_the_token_and_say_when_it_is_not_the_one() {
    let world = World::on_sqlite(&[]).await.set("server.token", TOKEN);
    // At least one of two waits.
    let world = world.set("accounts.default.quota.send.limit", "1");
    let world = world.set("accounts.default.quota.send.window", "1h");
    let worker = world.worker().await;
    let address = worker.address();
    world.publish(&ids("waits", 2)).await;
    let queue = ["queue", "--worker", &address];
    let why = ["why", "waits-00001", "--worker", &address];
    assert!(
        world
            .told(&queue)
            .await
            .contains("account default: dispatches")
    );
    let told = world.told(&why).await;
    assert!(told.contains("the window is full"), "{told}");

    let stranger = world.set("server.token", "another");
    let refused =
        format!("the worker at {address} does not take the server.token that is set here");
    let hint = "set server.token (or server.token_file) to the worker's here";
    for args in [&queue[..], &why[..]] {
        let output = stranger.run(args).await;
        assert!(output.status.success());
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(told.contains(&refused) && told.contains(hint), "{told}");
        assert!(!told.contains("no worker"), "{told}");
    }
    let machine = [&["--json"], &queue[..]].concat();
    let told: Value = serde_json::from_str(&stranger.told(&machine).await).unwrap();
    assert_eq!(told["worker"], Value::Null);
    assert_eq!(told["worker_error"], refused);
    assert_eq!(told["worker_hint"], hint);
    let stranger = stranger.unset("server.token");
    let told: Value = serde_json::from_str(&stranger.told(&machine).await).unwrap();
    let asks = format!("the worker at {address} asks for server.token, and none is set here");
    assert_eq!(told["worker_error"], asks);
    // By a file, as a secret store gives it.
    let file = stranger.path("admin-token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let friend = stranger.unset("server.token");
    let friend = friend.set("server.token_file", file.to_str().unwrap());
    assert!(
        friend
            .told(&queue)
            .await
            .contains("account default: dispatches")
    );
    let told: Value = serde_json::from_str(&friend.told(&machine).await).unwrap();
    assert_eq!(told.get("worker_error"), None);
    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let told: Value = serde_json::from_str(&friend.told(&machine).await).unwrap();
    let told = told["worker_error"].as_str().unwrap();
    assert!(
        told.contains("was not asked") && told.contains("its mode is 644"),
        "{told}"
    );
    worker.stop().await;

    let open = friend.unset("server.token_file");
    let open = open.set("server.listen", "0.0.0.0:0");
    let worker = open.worker().await;
    let machine = ["queue", "--json", "--worker", &worker.address()];
    let told: Value = serde_json::from_str(&open.told(&machine).await).unwrap();
    assert_eq!(
        told["worker_hint"],
        "set server.token (or server.token_file), the same one there and here"
    );
    worker.stop().await;
}
