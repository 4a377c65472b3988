//! A forward proxy: takes `CONNECT` and leads all of them to one port, or answers as it was told.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// Dropping it ends it; what it has led through stays.
pub struct Forward {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _listening: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// The heads of what was asked, each whole.
    heads: Vec<String>,
    /// All that came from clients after a `CONNECT` that was taken.
    passed: Vec<u8>,
    /// What is answered in the place of 200.
    refusal: Option<&'static str>,
}

impl Forward {
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let kept = Arc::clone(&seen);
        let listening = async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(near, port, Arc::clone(&kept)));
            }
        };
        Self {
            address,
            seen,
            _listening: AbortOnDropHandle::new(tokio::spawn(listening)),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on: a status and its words, or `None` to let everything through.
    pub fn refuse(&self, refusal: Option<&'static str>) {
        self.seen.lock().unwrap().refusal = refusal;
    }

    pub fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().heads.clone()
    }

    pub fn passed(&self) -> Vec<u8> {
        self.seen.lock().unwrap().passed.clone()
    }
}

async fn serve(mut near: TcpStream, port: u16, seen: Arc<Mutex<Seen>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = near.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    let refusal = {
        let mut seen = seen.lock().unwrap();
        seen.heads.push(String::from_utf8(head).unwrap());
        seen.refusal
    };
    if let Some(refusal) = refusal {
        let answer = format!("HTTP/1.1 {refusal}\r\ncontent-length: 0\r\n\r\n");
        let _ = near.write_all(answer.as_bytes()).await;
        return;
    }
    let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    let taken = near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
    taken.await.unwrap();
    let (mut from_near, mut to_near) = near.split();
    let (mut from_far, mut to_far) = far.split();
    let there = async {
        let mut buffer = [0; 4096];
        while let Ok(count) = from_near.read(&mut buffer).await {
            if count == 0 {
                break;
            }
            seen.lock().unwrap().passed.extend(&buffer[..count]);
            if to_far.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        let _ = to_far.shutdown().await;
    };
    let back = tokio::io::copy(&mut from_far, &mut to_near);
    let _ = tokio::join!(there, back);
}
