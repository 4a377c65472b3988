//! The least that sends from RabbitMQ: lapin, reqwest, an ack. It reads nothing, checks nothing,
//! retries nothing and keeps to no limit.

use std::sync::Arc;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, Consumer};
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use tokio::sync::Semaphore;

use crate::backlog::PREFIX;
use crate::run::{CONCURRENCY, PREFETCH};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The broker
    url: String,
    /// The sandbox
    base_url: String,
    /// After how many requests it ends
    requests: u64,
}

pub async fn run(args: Args) {
    let queue = format!("{PREFIX}.send.default.normal");
    let (connection, _channel, mut consumer) = consume(&args.url, &queue, PREFETCH).await;
    let client = Client::builder().tls_certs_only([]).build().unwrap();
    let url: Arc<str> = format!(
        "{}/marketing/transactional/2026-09/single-email/send",
        args.base_url
    )
    .into();
    let permits = Arc::new(Semaphore::new(CONCURRENCY.into()));
    for _ in 0..args.requests {
        let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
        let delivery = consumer.next().await.unwrap().unwrap();
        let (client, url) = (client.clone(), Arc::clone(&url));
        tokio::spawn(async move {
            send(&client, &url, delivery).await;
            drop(permit);
        });
    }
    let all = permits.acquire_many(CONCURRENCY.into()).await;
    drop(all.unwrap());
    connection.close(200, "".into()).await.unwrap();
    // Whoever measures it looks at it until then.
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink())
        .await
        .unwrap();
}

/// A connection, its one channel, and what it receives from a queue.
pub async fn consume(url: &str, queue: &str, prefetch: u16) -> (Connection, Channel, Consumer) {
    let connection = Connection::connect(url, ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let qos = BasicQosOptions::default();
    channel.basic_qos(prefetch, qos).await.unwrap();
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    let consumer = consumer.await.unwrap();
    (connection, channel, consumer)
}

async fn send(client: &Client, url: &str, delivery: Delivery) {
    let call = client
        .post(url)
        .header(AUTHORIZATION, "Bearer bench")
        .header(CONTENT_TYPE, "application/json")
        .body(delivery.data);
    let answer = call.send().await.unwrap().error_for_status().unwrap();
    answer.bytes().await.unwrap();
    let acked = delivery.acker.ack(BasicAckOptions::default()).await;
    assert!(acked.unwrap(), "the channel is gone");
}
