//! When a call leaves that has to connect, and that it does not once its fence is shut.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use postrider::config::AccountConfig;
use postrider::outcome::Outcome;
use postrider::provider::hubspot::HubSpot;
use postrider::provider::{Departure, Fence, NotLeft, Provider};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::stub::{Reply, Stub};
use super::{accepted, config, hubspot, small_request};
use crate::support::proxy::{Faults, Proxy};
use crate::support::tls::{Authority, TlsListener};

/// Long enough for a loaded machine; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(30);

/// What comes back waits.
const HELD: Faults = Faults {
    delay: Duration::ZERO,
    bytes_per_s: None,
    swallows_there: false,
    swallows_back: false,
    holds_back: true,
};

/// It leaves at once where a connection is at hand; else it is told by when it did, if that is known.
#[tokio::test]
async fn a_call_tells_whether_it_had_to_connect() {
    let stub = Stub::start(Reply::Whole(404, "", String::new())).await;
    let provider = hubspot(&config(&stub.url()));
    let mut told = Vec::new();
    for _ in 0..2 {
        let (departure, left) = (Departure::default(), Instant::now());
        departure.of(provider.look_up("abc")).await.unwrap();
        assert!(departure.is_known());
        told.push(departure.connected().map(|stood| stood >= left));
    }
    assert_eq!(told, [Some(true), None]);

    // TLS never answers: nobody knows of a call that is given up meanwhile.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}", silent.local_addr().unwrap());
    let provider = hubspot(&AccountConfig {
        timeout: Duration::from_millis(200),
        ..config(&base)
    });
    let departure = Departure::default();
    departure.of(provider.look_up("abc")).await.unwrap();
    assert!(!departure.is_known() && departure.connected().is_none());
}

/// HubSpot behind TLS, over a wire that can hold back what it says.
struct Wired {
    stub: Stub,
    wire: Proxy,
    _tls: TlsListener,
    folder: tempfile::TempDir,
}

impl Wired {
    async fn start() -> Self {
        let (stub, authority) = (Stub::start(accepted()).await, Authority::new("ours"));
        let port = stub.url().rsplit(':').next().unwrap().parse().unwrap();
        let tls = TlsListener::before(port, &authority.server("localhost")).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
        Self {
            wire: Proxy::to(tls.port()).await,
            stub,
            _tls: tls,
            folder,
        }
    }

    fn hubspot(&self, port: u16) -> Arc<HubSpot> {
        Arc::new(hubspot(&AccountConfig {
            ca_file: Some(self.folder.path().join("ca.pem")),
            ..config(&format!("https://localhost:{port}"))
        }))
    }
}

/// A call under way.
struct Begun {
    fence: Fence,
    departure: Departure,
    call: JoinHandle<Result<Outcome, NotLeft>>,
}

impl Begun {
    fn new(hubspot: &Arc<HubSpot>) -> Self {
        let fence = Fence::default();
        let departure = Departure::through(fence.clone());
        let (hubspot, its) = (Arc::clone(hubspot), departure.clone());
        let call = async move {
            let request = small_request();
            its.of(hubspot.send(&request, "order-1")).await
        };
        Self {
            fence,
            departure,
            call: tokio::spawn(call),
        }
    }

    async fn connects(&self) {
        until(|| !self.departure.is_known()).await;
    }

    async fn outcome(self) -> Result<Outcome, NotLeft> {
        let outcome = timeout(PATIENCE, self.call).await;
        outcome.expect("no outcome").unwrap()
    }
}

async fn until(is_so: impl Fn() -> bool) {
    let so = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, so).await.expect("never so");
}

#[tokio::test]
async fn a_call_does_not_leave_whose_fence_was_shut_while_it_connected() {
    for is_shut in [false, true] {
        let wired = Wired::start().await;
        wired.wire.set(HELD);
        let begun = Begun::new(&wired.hubspot(wired.wire.port()));
        begun.connects().await;
        let fence = begun.fence.clone();
        let early = timeout(Duration::ZERO, fence.all_left()).await;
        assert!(early.is_err(), "it is still to leave");
        if is_shut {
            fence.shut();
        }
        wired.wire.set(Faults::default());
        let outcome = begun.outcome().await;
        timeout(PATIENCE, fence.all_left()).await.unwrap();
        assert_eq!(outcome.is_err(), is_shut, "{outcome:?}");
        assert_eq!(wired.stub.asked().len(), usize::from(!is_shut));
    }
}

/// It waits for its own connection, and would leave over the first one that is free.
#[tokio::test]
async fn nor_does_it_leave_over_a_connection_that_another_call_is_done_with() {
    for is_shut in [false, true] {
        let wired = Wired::start().await;
        let (first, port) = only_the_first(wired.wire.port()).await;
        let hubspot = wired.hubspot(port);
        Begun::new(&hubspot).outcome().await.unwrap();
        wired.wire.set(HELD);
        let other = Begun::new(&hubspot);
        until(|| wired.stub.asked().len() == 2).await;
        assert!(other.departure.is_known(), "it had not to connect");
        let begun = Begun::new(&hubspot);
        begun.connects().await;
        if is_shut {
            begun.fence.shut();
        }
        wired.wire.set(Faults::default());
        other.outcome().await.unwrap();
        let fence = begun.fence.clone();
        let outcome = begun.outcome().await;
        timeout(PATIENCE, fence.all_left()).await.unwrap();
        assert_eq!(outcome.is_err(), is_shut, "{outcome:?}");
        assert_eq!(wired.stub.asked().len(), 2 + usize::from(!is_shut));
        drop(first);
    }
}

/// Leads the first connection to this port. To those behind it nobody ever answers.
async fn only_the_first(to: u16) -> (AbortOnDropHandle<()>, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let listening = async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await;
        let _ = copy_bidirectional(&mut near, &mut far.unwrap()).await;
    };
    (AbortOnDropHandle::new(tokio::spawn(listening)), port)
}

#[tokio::test]
async fn a_call_does_not_even_begin_through_a_fence_that_is_shut() {
    let stub = Stub::start(accepted()).await;
    let provider = hubspot(&config(&stub.url()));
    let fence = Fence::default();
    fence.shut();
    let departure = Departure::through(fence);
    let told = departure.of(provider.look_up("abc")).await;
    assert_eq!(told, Err(NotLeft));
    assert!(stub.asked().is_empty());
}
