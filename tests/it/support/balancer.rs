//! What RabbitMQ's own documentation puts before a cluster: one address, and behind it every node
//! that takes connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Dropping it cuts everything.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    wires: Arc<Mutex<JoinSet<()>>>,
    _listening: AbortOnDropHandle<()>,
}

impl Balancer {
    pub async fn before(ports: Vec<u16>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let wires = Arc::new(Mutex::new(JoinSet::new()));
        let listening = tokio::spawn(listen(listener, ports, Arc::clone(&wires)));
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

/// Each connection is led to the next node in turn, and past those that are down.
async fn listen(listener: TcpListener, mut ports: Vec<u16>, wires: Arc<Mutex<JoinSet<()>>>) {
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        ports.rotate_left(1);
        let ports = ports.clone();
        wires.lock().unwrap().spawn(async move {
            for port in ports {
                if let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                    // However it ends, both sides see it.
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                    return;
                }
            }
        });
    }
}
