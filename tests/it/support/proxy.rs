//! A wire that can be cut: a TCP proxy to one port of this machine.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Dropping it cuts everything.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    wires: Arc<Mutex<JoinSet<()>>>,
    _listening: AbortOnDropHandle<()>,
}

impl Proxy {
    pub async fn to(port: u16) -> Self {
        Self::new(port, false).await
    }

    /// Makes bytes that are not UTF-8 of every `~` on the way there.
    pub async fn spoiling(port: u16) -> Self {
        Self::new(port, true).await
    }

    async fn new(port: u16, spoils: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let wires = Arc::new(Mutex::new(JoinSet::new()));
        let listening = tokio::spawn(listen(listener, port, spoils, Arc::clone(&wires)));
        Self {
            address,
            wires,
            _listening: AbortOnDropHandle::new(listening),
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Ends every connection that there is now; new ones are taken.
    pub fn cut(&self) {
        self.wires.lock().unwrap().abort_all();
    }
}

async fn listen(listener: TcpListener, port: u16, spoils: bool, wires: Arc<Mutex<JoinSet<()>>>) {
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        wires.lock().unwrap().spawn(async move {
            let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
                return;
            };
            // However it ends, both sides see it.
            if spoils {
                let _ = spoil(near, far).await;
            } else {
                let _ = copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}

async fn spoil(near: TcpStream, far: TcpStream) -> io::Result<()> {
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let there = async {
        let mut buffer = vec![0; 4096];
        loop {
            let count = from_near.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            for byte in &mut buffer[..count] {
                *byte = if *byte == b'~' { 0xff } else { *byte };
            }
            to_far.write_all(&buffer[..count]).await?;
        }
    };
    let back = async { copy(&mut from_far, &mut to_near).await.map(|_| ()) };
    tokio::try_join!(there, back).map(|_| ())
}
