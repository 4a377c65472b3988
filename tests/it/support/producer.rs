//! Somebody else's AMQP client.

use std::time::Duration;

use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use secrecy::ExposeSecret;
use tokio::time::{Instant, sleep};

use super::broker::{self, Broker};

#[derive(Debug)]
pub struct Producer {
    channel: Channel,
    _connection: Connection,
}

impl Producer {
    pub async fn to(broker: &Broker) -> Self {
        Self::over(broker.port()).await
    }

    pub async fn over(port: u16) -> Self {
        let properties = ConnectionProperties::default();
        let url = broker::url(port);
        let connection = Connection::connect(url.expose_secret(), properties);
        let connection = connection.await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let confirms = ConfirmSelectOptions::default();
        channel.confirm_select(confirms).await.unwrap();
        Self {
            channel,
            _connection: connection,
        }
    }

    pub async fn publish(
        &self,
        exchange: &str,
        key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) {
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let published =
            (self.channel).basic_publish(exchange.into(), key.into(), options, body, properties);
        let confirmed = published.await.unwrap().await.unwrap();
        assert_eq!(confirmed, Confirmation::Ack(None), "to {exchange} {key}");
    }

    /// Takes one message out of a queue, as soon as there is one.
    pub async fn get(&self, queue: &str) -> BasicGetMessage {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let options = BasicGetOptions { no_ack: true };
            if let Some(message) = self.channel.basic_get(queue.into(), options).await.unwrap() {
                return message;
            }
            assert!(Instant::now() < deadline, "nothing stands in {queue}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many messages stand ready in a queue.
    pub async fn depth(&self, queue: &str) -> u64 {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let none = FieldTable::default();
        let declared = self.channel.queue_declare(queue.into(), options, none);
        declared.await.unwrap().message_count().into()
    }

    /// A queue of this producer alone, bound to an exchange; returns its name.
    pub async fn listen(&self, exchange: &str, pattern: &str) -> String {
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = (self.channel).queue_declare("".into(), options, FieldTable::default());
        let queue = declared.await.unwrap().name().clone();
        let options = QueueBindOptions::default();
        let (exchange, pattern, none) = (exchange.into(), pattern.into(), FieldTable::default());
        let bound = (self.channel).queue_bind(queue.clone(), exchange, pattern, options, none);
        bound.await.unwrap();
        queue.to_string()
    }

    pub async fn declare_classic(&self, queue: &str) {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let none = FieldTable::default();
        let declared = self.channel.queue_declare(queue.into(), options, none);
        declared.await.unwrap();
    }

    pub async fn delete(&self, queue: &str) {
        let options = QueueDeleteOptions::default();
        self.channel
            .queue_delete(queue.into(), options)
            .await
            .unwrap();
    }
}
