//! A producer that writes its own frames: what no client library would write.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
const FRAME_END: u8 = 0xCE;
/// Within the 128 KiB that a broker takes.
const BODY_FRAME_BYTES: usize = 100_000;
/// The flag of the property `headers`.
const HAS_HEADERS: u16 = 0x2000;

#[derive(Debug)]
pub struct RawProducer {
    stream: TcpStream,
}

impl RawProducer {
    pub async fn over(port: u16) -> Self {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        stream.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
        let mut raw = Self { stream };
        raw.answer(10, 10).await;
        let mut start_ok = long(b"");
        start_ok.extend(short(b"PLAIN"));
        start_ok.extend(long(b"\0guest\0guest"));
        start_ok.extend(short(b"en_US"));
        raw.method(0, 10, 11, &start_ok).await;
        let mut tune = raw.answer(10, 30).await;
        let heartbeat = tune.len() - 2;
        tune[heartbeat..].fill(0);
        raw.method(0, 10, 31, &tune).await;
        raw.method(0, 10, 40, b"\x01/\0\0").await;
        raw.answer(10, 41).await;
        raw.method(1, 20, 10, b"\0").await;
        raw.answer(20, 11).await;
        raw.method(1, 85, 10, b"\0").await;
        raw.answer(85, 11).await;
        raw
    }

    /// Publishes with this one header, type and all, and returns when it is confirmed.
    pub async fn publish_with_header(
        &mut self,
        exchange: &str,
        key: &str,
        body: &[u8],
        header: &[u8],
    ) {
        let mut properties = HAS_HEADERS.to_be_bytes().to_vec();
        properties.extend(table("header", header));
        self.publish(exchange, key, body, &properties).await;
    }

    /// Publishes with properties as they stand on the wire, flags first, and returns when it is
    /// confirmed.
    pub async fn publish(&mut self, exchange: &str, key: &str, body: &[u8], properties: &[u8]) {
        let mut publish = vec![0, 0];
        publish.extend(short(exchange.as_bytes()));
        publish.extend(short(key.as_bytes()));
        publish.push(1); // mandatory
        self.method(1, 60, 40, &publish).await;
        let mut header = vec![0, 60, 0, 0];
        header.extend((body.len() as u64).to_be_bytes());
        header.extend(properties);
        self.frame(HEADER, 1, &header).await;
        for part in body.chunks(BODY_FRAME_BYTES) {
            self.frame(BODY, 1, part).await;
        }
        self.answer(60, 80).await;
    }

    async fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        let mut payload = class.to_be_bytes().to_vec();
        payload.extend(method.to_be_bytes());
        payload.extend(arguments);
        self.frame(METHOD, channel, &payload).await;
    }

    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let mut frame = vec![kind];
        frame.extend(channel.to_be_bytes());
        frame.extend(long(payload));
        frame.push(FRAME_END);
        self.stream.write_all(&frame).await.unwrap();
    }

    /// The arguments of the method that the broker is expected to send now.
    async fn answer(&mut self, class: u16, method: u16) -> Vec<u8> {
        loop {
            let mut head = [0; 7];
            self.stream.read_exact(&mut head).await.unwrap();
            let [kind, _, _, length @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes(length) as usize + 1];
            self.stream.read_exact(&mut payload).await.unwrap();
            if kind == HEARTBEAT {
                continue;
            }
            payload.pop();
            let expected = [class.to_be_bytes(), method.to_be_bytes()].concat();
            let told = String::from_utf8_lossy(&payload).into_owned();
            assert!(payload.starts_with(&expected), "not {expected:?}: {told:?}");
            return payload.split_off(expected.len());
        }
    }
}

/// A value of AMQP's type `A` that holds one of the same type, and so on, so many deep.
pub fn nested(depth: usize) -> Vec<u8> {
    let mut value = Vec::new();
    for inner in (0..depth).rev() {
        value.push(b'A');
        value.extend((inner as u32 * 5).to_be_bytes());
    }
    value
}

/// A table with one entry, its type before it.
pub fn table(name: &str, value: &[u8]) -> Vec<u8> {
    long(&[short(name.as_bytes()), value.to_vec()].concat())
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[text.len() as u8], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}
