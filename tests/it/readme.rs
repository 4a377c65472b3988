//! The README is true: its requests parse, its commands exist, its producers publish.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use postrider::clock::Clock;
use postrider::message::{AccountName, SendRequest};
use postrider::outcome::Disposition;
use postrider::queue::amqp::{AmqpOptions, AmqpQueue};
use postrider::queue::{Intake, IntakeOptions, Lane, Queue};
use secrecy::ExposeSecret;
use tokio::process::Command;

use crate::clients::{node_modules, python};
use crate::support::broker;

const README: &str = include_str!("../../README.md");
const PRODUCER_TIMEOUT: Duration = Duration::from_mins(1);

/// The code blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let found: Vec<_> = README
        .split(&fence)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(!found.is_empty(), "the README has no {language} in it");
    found
}

#[test]
fn its_requests_are_requests() {
    for body in blocks("json") {
        SendRequest::parse(body.as_bytes(), None).unwrap();
    }
}

#[test]
fn its_commands_are_commands() {
    let lines = blocks("sh").into_iter().flat_map(str::lines);
    let commands: Vec<&str> = lines
        .filter_map(|line| line.split('#').next())
        .filter_map(|line| line.strip_prefix("postrider "))
        .collect();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        let ended = std::process::Command::new(env!("CARGO_BIN_EXE_postrider"))
            .args(command.split_whitespace())
            .arg("--help")
            .output()
            .unwrap();
        assert!(
            ended.status.success(),
            "postrider {command}: {}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_producers_publish() {
    let broker = broker::shared().await;
    // What a worker does first: the exchange and the queues of the README's names.
    let queue = AmqpQueue::start(AmqpOptions {
        url: broker.url().into(),
        prefix: "postrider".into(),
        accounts: vec![AccountName::default()],
        clock: Clock::system(),
    })
    .await
    .unwrap();
    let url = broker.url();
    let at_broker = |code: &str| {
        assert!(code.contains("amqp://localhost"));
        code.replace("amqp://localhost", url.expose_secret())
    };
    run(Command::new(python())
        .arg("-c")
        .arg(at_broker(blocks("python")[0])))
    .await;
    let node = at_broker(blocks("js")[0]);
    run(Command::new("node")
        .env("NODE_PATH", node_modules())
        .arg("-e")
        .arg(node))
    .await;

    let mut intake = queue
        .open(
            &AccountName::default(),
            Lane::Sends,
            IntakeOptions::holding(10),
        )
        .await
        .unwrap();
    for _ in 0..2 {
        let delivery = tokio::time::timeout(PRODUCER_TIMEOUT, intake.receive())
            .await
            .unwrap()
            .unwrap();
        let request = SendRequest::parse(&delivery.body, delivery.message_id.as_deref()).unwrap();
        assert_eq!(request.id.as_str(), "order-1042-receipt");
        queue.settle(delivery, Disposition::Complete).await.unwrap();
    }
    queue.close().await;
}

async fn run(producer: &mut Command) {
    let output = producer.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PRODUCER_TIMEOUT, output)
        .await
        .unwrap()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What the README points at is there.
#[test]
fn its_links_lead_somewhere() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let links = README
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    for link in links.filter(|link| !link.starts_with("https://")) {
        assert!(root.join(link).exists(), "{link} is not there");
    }
}
