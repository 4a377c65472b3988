//! A wire with faults: a TCP proxy to one port of this machine that delays, throttles, swallows,
//! cuts and resets.

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Small, so that a slow wire is slow evenly.
const CHUNK_BYTES: usize = 4 * 1024;

/// Dropping it cuts everything; then its port refuses connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    wires: Arc<Mutex<JoinSet<()>>>,
    faults: watch::Sender<Faults>,
    resets: watch::Sender<()>,
    last_there: Arc<Mutex<Option<Instant>>>,
    _listening: AbortOnDropHandle<()>,
}

/// What a wire does to what goes over it. A wire that has swallowed anything never carries again,
/// and does not tell of an end either; new ones do as they are told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Of each chunk.
    pub delay: Duration,
    pub bytes_per_s: Option<u32>,
    /// Takes what comes from whoever connected, and does not pass it on.
    pub swallows_there: bool,
    /// The same with what comes back.
    pub swallows_back: bool,
    /// Keeps what comes back until it is told otherwise.
    pub holds_back: bool,
}

/// What every wire of a proxy follows.
#[derive(Clone)]
struct Orders {
    port: u16,
    faults: watch::Receiver<Faults>,
    resets: watch::Receiver<()>,
    last_there: Arc<Mutex<Option<Instant>>>,
    /// Makes bytes that are not UTF-8 of every `~` on the way there.
    spoils: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

impl Proxy {
    pub async fn to(port: u16) -> Self {
        Self::on(0, port, false).await
    }

    /// Makes bytes that are not UTF-8 of every `~` on the way there.
    pub async fn spoiling(port: u16) -> Self {
        Self::on(0, port, true).await
    }

    /// Listens at a port of the caller's choice, see [`Proxy::free_port`].
    pub async fn at(own: u16, port: u16) -> Self {
        Self::on(own, port, false).await
    }

    /// A port that stays free while nobody listens there: below the range from which the system
    /// gives out its own, and apart from those of the brokers.
    pub async fn free_port() -> u16 {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let process = u16::try_from(std::process::id() % 700).unwrap() * 10;
        loop {
            let port = 12_000 + process + NEXT.fetch_add(1, Ordering::Relaxed) % 1_000;
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
                return port;
            }
        }
    }

    async fn on(own: u16, port: u16, spoils: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, own)).await;
        let listener = listener.unwrap();
        let address = listener.local_addr().unwrap();
        let wires = Arc::new(Mutex::new(JoinSet::new()));
        let (faults, resets) = (watch::Sender::default(), watch::Sender::default());
        let last_there = Arc::default();
        let orders = Orders {
            port,
            faults: faults.subscribe(),
            resets: resets.subscribe(),
            last_there: Arc::clone(&last_there),
            spoils,
        };
        let listening = listen(listener, orders, Arc::clone(&wires));
        Self {
            address,
            wires,
            faults,
            resets,
            last_there,
            _listening: AbortOnDropHandle::new(tokio::spawn(listening)),
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// When anything last went there, on any wire.
    pub fn last_there(&self) -> Option<Instant> {
        *self.last_there.lock().unwrap()
    }

    /// From now on, on every wire.
    pub fn set(&self, faults: Faults) {
        self.faults.send_replace(faults);
    }

    /// Ends every connection that there is now; new ones are taken.
    pub fn cut(&self) {
        self.wires.lock().unwrap().abort_all();
    }

    /// The same, but with RST: what was on its way is lost too.
    pub fn reset(&self) {
        self.resets.send_replace(());
    }
}

async fn listen(listener: TcpListener, orders: Orders, wires: Arc<Mutex<JoinSet<()>>>) {
    loop {
        let (near, _) = listener.accept().await.unwrap();
        let orders = orders.clone();
        wires.lock().unwrap().spawn(async move {
            if let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, orders.port)).await {
                carry(near, far, orders).await;
            }
        });
    }
}

/// However it ends, both sides see it.
async fn carry(mut near: TcpStream, mut far: TcpStream, mut orders: Orders) {
    orders.resets.mark_unchanged();
    let (from_near, to_near) = near.split();
    let (from_far, to_far) = far.split();
    let there = pump(from_near, to_far, orders.clone(), Way::There);
    let back = pump(from_far, to_near, orders.clone(), Way::Back);
    tokio::select! {
        biased;
        told = orders.resets.changed() => {
            if told.is_ok() {
                near.set_zero_linger().unwrap();
                far.set_zero_linger().unwrap();
            }
        }
        _ = async { tokio::try_join!(there, back) } => {}
    }
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut orders: Orders,
    way: Way,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut swallowed = false;
    loop {
        let count = from.read(&mut buffer).await?;
        let faults = *orders.faults.borrow();
        swallowed |= faults.swallow(way);
        match (count, swallowed) {
            (0, true) => return pending().await,
            (0, false) => return to.shutdown().await,
            (_, true) => continue,
            (_, false) => {}
        }
        if way == Way::Back {
            // Where nobody can tell any more, it goes on.
            let _ = orders.faults.wait_for(|faults| !faults.holds_back).await;
        }
        tokio::time::sleep(faults.time_for(count)).await;
        let chunk = &mut buffer[..count];
        if orders.spoils && way == Way::There {
            for byte in chunk.iter_mut().filter(|byte| **byte == b'~') {
                *byte = 0xff;
            }
        }
        if way == Way::There {
            *orders.last_there.lock().unwrap() = Some(Instant::now());
        }
        to.write_all(chunk).await?;
    }
}

impl Faults {
    fn swallow(&self, way: Way) -> bool {
        match way {
            Way::There => self.swallows_there,
            Way::Back => self.swallows_back,
        }
    }

    fn time_for(&self, count: usize) -> Duration {
        let rate = self.bytes_per_s.map_or(f64::INFINITY, f64::from);
        let count = f64::from(u32::try_from(count).unwrap());
        self.delay + Duration::from_secs_f64(count / rate)
    }
}
