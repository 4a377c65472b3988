//! A HubSpot of a few lines, on a real socket: it keeps what it was asked, to the byte, and
//! answers as it was told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the stub answers, given the path that was asked for.
#[derive(Clone)]
pub enum Reply {
    /// A whole answer: status, further header lines (each with its `\r\n`), body.
    Whole(u16, &'static str, String),
    /// These bytes, and then the connection is closed.
    Cut(String),
    /// Nothing, ever.
    Hang,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The connection it came by, from 0.
    pub connection: usize,
    /// Method and path: `GET /account-info/v3/details`.
    pub line: String,
    /// The header lines, names in lower case.
    pub headers: Vec<String>,
    pub body: String,
}

pub struct Stub {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Stub {
    /// Answers everything alike.
    pub async fn start(reply: Reply) -> Self {
        Self::answering(move |_| reply.clone()).await
    }

    pub async fn answering(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (kept, reply) = (asked.clone(), Arc::new(reply));
        let task = tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (kept, reply) = (kept.clone(), reply.clone());
                tokio::spawn(serve(stream, connection, kept, reply));
            }
        });
        Self {
            address,
            asked,
            task,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The only request that came.
    pub fn only(&self) -> Asked {
        let [asked] = <[Asked; 1]>::try_from(self.asked()).unwrap();
        asked
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    kept: Arc<Mutex<Vec<Asked>>>,
    reply: Arc<impl Fn(&Asked) -> Reply>,
) {
    while let Some(asked) = read(&mut stream, connection).await {
        kept.lock().unwrap().push(asked.clone());
        match reply(&asked) {
            Reply::Whole(status, headers, body) => {
                let head = format!(
                    "HTTP/1.1 {status} Told\r\n{headers}content-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                // The client may have heard enough of a huge body.
                if stream.write_all(body.as_bytes()).await.is_err() {
                    return;
                }
            }
            Reply::Cut(bytes) => {
                stream.write_all(bytes.as_bytes()).await.unwrap();
                return;
            }
            Reply::Hang => std::future::pending().await,
        }
    }
}

/// Reads one request; `None` when the client has closed.
async fn read(stream: &mut TcpStream, connection: usize) -> Option<Asked> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut lines = head.split("\r\n").map(str::to_owned);
    let line = lines.next()?;
    let mut asked = Asked {
        connection,
        line: line.trim_end_matches(" HTTP/1.1").to_owned(),
        headers: lines.collect(),
        body: String::new(),
    };
    let length: usize = asked
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = bytes.split_off(head_end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    asked.body = String::from_utf8(body).unwrap();
    Some(asked)
}
