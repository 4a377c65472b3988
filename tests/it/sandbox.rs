//! The sandbox's HTTP face.

use std::time::Duration;

use postrider::sandbox::{self, Options};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const SEND: &str = "/marketing/transactional/2026-09/single-email/send";

/// A sandbox in this process, on a port of its own, until it is dropped.
pub struct Sandbox {
    pub base: String,
    pub http: reqwest::Client,
    shutdown: CancellationToken,
}

pub async fn start(options: Options) -> Sandbox {
    postrider::crypto::init_crypto();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    tokio::spawn(sandbox::serve(listener, options, shutdown.clone()));
    let http = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    Sandbox {
        base,
        http,
        shutdown,
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Sandbox {
    pub async fn send(&self, to: &str, send_id: &str) -> reqwest::Result<reqwest::Response> {
        let body = json!({"emailId": 4_126_643_121_i64, "message": {"to": to, "sendId": send_id}});
        self.http
            .post(format!("{}{SEND}", self.base))
            .bearer_auth("pat-na1-test")
            .json(&body)
            .send()
            .await
    }

    pub async fn get(&self, path: &str) -> Value {
        let request = self
            .http
            .get(format!("{}{path}", self.base))
            .bearer_auth("pat-na1-test");
        request.send().await.unwrap().json().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &'static str) -> reqwest::Response {
        self.http
            .post(format!("{}{path}", self.base))
            .body(body)
            .send()
            .await
            .unwrap()
    }

    /// The final result of a send, asked for until it is there.
    async fn result(&self, status_id: &str) -> Value {
        let id = status_id.replace('=', "%3D");
        for _ in 0..500 {
            let view = self
                .get(&format!("/marketing/v3/email/send-statuses/{id}"))
                .await;
            if view["status"] == "COMPLETE" {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no result came");
    }
}

fn fast() -> Options {
    Options {
        results_after: "1ms-20ms".parse().unwrap(),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_send_is_pending_and_then_sent() {
    let sandbox = start(fast()).await;
    let answer = sandbox.send("ada@example.com", "a-1").await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().contains_key("x-hubspot-correlation-id"));
    let view: Value = answer.json().await.unwrap();
    assert_eq!(view["status"], "PENDING");
    let result = sandbox.result(view["statusId"].as_str().unwrap()).await;
    assert_eq!(result["sendResult"], "SENT");

    let again: Value = sandbox
        .send("ada@example.com", "a-1")
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_ne!(again["statusId"], view["statusId"]);
    let result = sandbox.result(again["statusId"].as_str().unwrap()).await;
    assert_eq!(result["sendResult"], "IDEMPOTENT_IGNORE");

    let stats = sandbox.get("/_sandbox/stats").await;
    assert_eq!(
        (&stats["mails"], &stats["duplicates"]),
        (&json!(1), &json!(1))
    );
    let mail = sandbox.get("/_sandbox/mail?after=0").await;
    assert_eq!(mail["mail"].as_array().unwrap().len(), 1);
    assert_eq!(mail["mail"][0]["result"], "SENT");
    assert_eq!(mail["mail"][0]["attempts"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_cut_is_a_reset_after_the_mail_was_sent() {
    let sandbox = start(fast()).await;
    let error = sandbox
        .send("ada+cutx1@example.com", "c-1")
        .await
        .unwrap_err();
    assert!(error.is_request() && !error.is_timeout(), "{error:?}");
    assert!(
        format!("{error:?}").contains("ConnectionReset"),
        "{error:?}"
    );
    let again = sandbox.send("ada+cutx1@example.com", "c-1").await.unwrap();
    assert_eq!(again.status(), 200);
    let stats = sandbox.get("/_sandbox/stats").await;
    assert_eq!(
        (&stats["mails"], &stats["duplicates"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(stats["cut"], 1);
}

#[tokio::test]
async fn tokens_can_be_refused_and_accepted_again() {
    let sandbox = start(Options {
        token: Some("secret".into()),
        ..fast()
    })
    .await;
    let refused = sandbox.send("ada@example.com", "t-1").await.unwrap();
    assert_eq!(refused.status(), 401);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["category"], "INVALID_AUTHENTICATION");
    assert_eq!(
        sandbox
            .post("/_sandbox/token", "pat-na1-test")
            .await
            .status(),
        204
    );
    assert_eq!(
        sandbox
            .send("ada@example.com", "t-1")
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(sandbox.post("/_sandbox/token", "").await.status(), 204);
    assert_eq!(
        sandbox
            .send("ada@example.com", "t-1")
            .await
            .unwrap()
            .status(),
        401
    );
}

#[tokio::test]
async fn the_page_runs_nothing_but_its_own_script() {
    let sandbox = start(fast()).await;
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let page = sandbox.http.get(&sandbox.base).send().await.unwrap();
        let policy = page.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        let nonce = policy
            .split("'nonce-")
            .nth(1)
            .unwrap()
            .split('\'')
            .next()
            .unwrap()
            .to_owned();
        let html = page.text().await.unwrap();
        assert_eq!(html.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
        assert!(
            !html.contains("innerHTML"),
            "an address is data, never markup"
        );
        assert!(
            !html.contains("https://"),
            "the page works without a network"
        );
        nonces.push(nonce);
    }
    assert_ne!(nonces[0], nonces[1]);
}

#[tokio::test]
async fn faults_are_replaced_while_it_runs() {
    let sandbox = start(fast()).await;
    assert_eq!(
        sandbox.post("/_sandbox/faults", "503=1").await.status(),
        200
    );
    assert_eq!(
        sandbox
            .send("ada@example.com", "f-1")
            .await
            .unwrap()
            .status(),
        503
    );
    let refused = sandbox.post("/_sandbox/faults", "cutt=1").await;
    assert_eq!(refused.status(), 400);
    assert!(
        refused
            .text()
            .await
            .unwrap()
            .contains("did you mean `cut`?")
    );
    assert_eq!(
        sandbox.get("/_sandbox/stats").await["faults"],
        "503=1",
        "the old ones stay"
    );
    assert_eq!(sandbox.post("/_sandbox/faults", "").await.status(), 200);
    assert_eq!(
        sandbox
            .send("ada@example.com", "f-1")
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(sandbox.post("/_sandbox/reset", "").await.status(), 204);
    assert_eq!(sandbox.get("/_sandbox/stats").await["calls"], 0);
}

#[tokio::test]
async fn every_call_is_told_with_its_time() {
    let options = Options {
        limit: Some("2/10s".parse().unwrap()),
        ..fast()
    };
    let sandbox = start(options).await;
    for n in 0..3 {
        sandbox
            .send("ada@example.com", &format!("l-{n}"))
            .await
            .unwrap();
    }
    sandbox.get("/account-info/v3/details").await;
    let lines = sandbox
        .http
        .get(format!("{}/_sandbox/calls", sandbox.base))
        .send()
        .await
        .unwrap();
    let lines: Vec<Value> = lines
        .text()
        .await
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["bucket"].as_str().unwrap(), &line["status"]))
        .collect();
    let (ok, over) = (json!(200), json!(429));
    assert_eq!(
        told,
        [("send", &ok), ("send", &ok), ("send", &over), ("api", &ok)]
    );
    let at = |line: &Value| line["at"].as_f64().unwrap();
    assert!(lines.windows(2).all(|pair| at(&pair[0]) <= at(&pair[1])));
    let stats = sandbox.get("/_sandbox/stats").await;
    assert_eq!(
        (&stats["windows"]["send"]["most"], &stats["throttled"]),
        (&json!(3), &json!(1))
    );
}

#[tokio::test]
async fn a_call_without_an_answer_ends_with_the_sandbox() {
    let sandbox = start(fast()).await;
    let waiting = sandbox.send("ada+never@example.com", "n-1");
    let stop = async {
        while sandbox.get("/_sandbox/stats").await["never"] != 1 {
            tokio::task::yield_now().await;
        }
        sandbox.shutdown.cancel();
    };
    let (answer, ()) = tokio::join!(waiting, stop);
    let error = answer.unwrap_err();
    assert!(!error.is_timeout(), "the shutdown cut it: {error:?}");
}

#[tokio::test]
async fn latency_is_added_after_the_arrival_was_counted() {
    let sandbox = start(Options {
        latency: "200ms".parse().unwrap(),
        ..fast()
    })
    .await;
    let began = tokio::time::Instant::now();
    let counted = async {
        while sandbox.get("/_sandbox/stats").await["calls"] != 1 {
            tokio::task::yield_now().await;
        }
        began.elapsed()
    };
    let (answer, counted) = tokio::join!(sandbox.send("ada@example.com", "d-1"), counted);
    assert_eq!(answer.unwrap().status(), 200);
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(counted < began.elapsed());
}

/// docs/sandbox.md has every tag of an address, and each address of its control answers as it says.
#[tokio::test]
async fn its_page_of_the_docs_is_true() {
    const PAGE: &str = include_str!("../../docs/sandbox.md");
    let sandbox = start(Options::default()).await;
    let told = sandbox.get("/_sandbox/faults").await;
    let tags = told["tags"].as_array().unwrap();
    for tag in tags {
        let text = |name| tag[name].as_str().unwrap();
        let line = format!("| `{}` | {} |", text("tag"), text("meaning"));
        assert!(PAGE.contains(&line), "missing: {line}");
    }
    let rows = PAGE
        .lines()
        .filter(|line| line.starts_with("| `/_sandbox/"));
    let rows: Vec<Vec<&str>> = rows
        .map(|row| row.split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), 7);
    for row in rows {
        let [_, path, get, post, _] = row[..] else {
            panic!("{row:?}");
        };
        let url = format!("{}{}", sandbox.base, path.trim_matches('`'));
        let got = sandbox.http.get(&url).send().await.unwrap();
        assert_eq!(got.status().is_success(), !get.is_empty(), "GET {path}");
        let body = if path.contains("oauth") { "{}" } else { "" };
        let posted = sandbox.http.post(&url).body(body).send().await.unwrap();
        assert_eq!(
            posted.status().is_success(),
            !post.is_empty(),
            "POST {path}"
        );
    }
}
