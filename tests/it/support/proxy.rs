//! A wire that can be cut: a TCP proxy to one port of this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

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
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let wires = Arc::new(Mutex::new(JoinSet::new()));
        let listening = tokio::spawn(listen(listener, port, Arc::clone(&wires)));
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

async fn listen(listener: TcpListener, port: u16, wires: Arc<Mutex<JoinSet<()>>>) {
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        wires.lock().unwrap().spawn(async move {
            if let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                // However it ends, both sides see it.
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}
