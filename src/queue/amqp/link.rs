//! The link to the broker: two connections that live and die together, and the loop that makes
//! new ones.
//!
//! One connection consumes, the other publishes: while the broker is short of memory or disk it
//! stops reading from those that publish, and acknowledgements must go on. lapin's own recovery is
//! not used: it keeps an outage to itself, and deliveries of before would settle on a channel of
//! after.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::{Connection, ConnectionProperties, Event};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::address::{Address, Target};
use super::error::{self, Place};
use super::events::Events;
use super::mended;
use super::open_channel::OpenChannel;
use super::publisher::Publisher;
use super::topology::Topology;
use crate::queue::QueueError;

/// What a silent peer costs: noticed after two of them. Short, because a lease hangs on it. A broker may
/// be set to a shorter one, see [`Connections::heartbeat`].
pub(super) const HEARTBEAT: Duration = Duration::from_secs(5);
/// One connection, or one channel.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Saying good-bye is a courtesy.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// And so are the last outcomes told before it, and the channels closed.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause between attempts: doubled from the first to the last, less up to a half by chance, so
/// that a hundred workers do not come back in one moment.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LAST: Duration = Duration::from_secs(5);

/// Whether this process may declare exchanges and queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Declares everything, at every new connection.
    Worker,
    /// Uses what a worker has declared.
    Command,
}

/// Holds the link; dropping it ends the connections.
#[derive(Debug)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

#[derive(Clone, Debug)]
enum State {
    Up(Arc<Connections>),
    Down(QueueError),
    Closed,
}

/// The two connections of one generation.
#[derive(Debug)]
pub(super) struct Connections {
    consume: Connection,
    pub(super) publisher: Publisher,
    pub(super) events: Events,
    /// Cancelled when either connection is lost: what came over them is in the queue again.
    gone: CancellationToken,
    /// What has to end before the connections are closed in order.
    farewells: TaskTracker,
}

/// How connections are made.
#[derive(Debug)]
struct Connector {
    address: Address,
    role: Role,
    topology: Topology,
}

// === impl Link ===

impl Link {
    /// Makes the first connection and keeps the link up from then on.
    ///
    /// # Errors
    /// Those of the first attempt. A worker gets none for a broker that cannot be reached: it is
    /// tried again for ever, in the background.
    pub(super) async fn start(
        address: Address,
        role: Role,
        topology: Topology,
    ) -> Result<Self, QueueError> {
        let target = address.now()?;
        let connector = Connector {
            address,
            role,
            topology,
        };
        let first = match (connector.connect(target).await, role) {
            (Ok(connections), _) => State::Up(connections),
            (Err(error @ QueueError::Unreachable { .. }), Role::Worker) => {
                tracing::warn!(%error, hint = error.hint(), "queue not reached; trying on");
                State::Down(error)
            }
            (Err(error), _) => return Err(error),
        };
        let (teller, state) = watch::channel(first);
        let stop = CancellationToken::new();
        tokio::spawn(keep_up(connector, teller, stop.clone()));
        Ok(Self {
            state,
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        })
    }

    /// The connections, if there are any right now.
    pub(super) fn up(&self) -> Option<Arc<Connections>> {
        match &*self.state.borrow() {
            State::Up(connections) if !connections.is_gone() => Some(Arc::clone(connections)),
            State::Up(_) | State::Down(_) | State::Closed => None,
        }
    }

    /// For good: `close` was called.
    pub(super) fn is_closed(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// The connections, as soon as there are any.
    ///
    /// # Errors
    /// What waiting does not heal: other arguments, a closed link.
    pub(super) async fn connections(&self) -> Result<Arc<Connections>, QueueError> {
        let mut state = self.state.clone();
        loop {
            match &*state.borrow_and_update() {
                State::Up(connections) if !connections.is_gone() => {
                    return Ok(Arc::clone(connections));
                }
                // Refused only after it was let in, or could not be reached: the password or a
                // certificate may be changed just now.
                State::Up(_)
                | State::Down(
                    QueueError::Unreachable { .. }
                    | QueueError::Refused { .. }
                    | QueueError::Untrusted { .. },
                ) => {}
                State::Down(error) => return Err(error.clone()),
                State::Closed => return Err(closed()),
            }
            if state.changed().await.is_err() {
                return Err(closed());
            }
        }
    }

    /// The same, but not for ever.
    pub(super) async fn connections_within(
        &self,
        limit: Duration,
    ) -> Result<Arc<Connections>, QueueError> {
        match timeout(limit, self.connections()).await {
            Ok(connections) => connections,
            Err(_) => Err(match &*self.state.borrow() {
                State::Down(error) => error.clone(),
                State::Up(_) | State::Closed => closed(),
            }),
        }
    }

    pub(super) async fn close(&self) {
        self.stop.cancel();
        let mut state = self.state.clone();
        let closed = state.wait_for(|state| matches!(state, State::Closed));
        if timeout(FAREWELL_TIMEOUT + 2 * CLOSE_TIMEOUT, closed)
            .await
            .is_err()
        {
            tracing::warn!("the broker did not answer the good-bye");
        }
    }
}

fn closed() -> QueueError {
    Place::unread().unreachable("the queue was closed")
}

/// Makes new connections whenever the old ones are lost, until `stop`.
async fn keep_up(connector: Connector, teller: watch::Sender<State>, stop: CancellationToken) {
    let mut lost_at = Instant::now();
    let mut pause = PAUSE_FIRST;
    loop {
        let now = teller.borrow().clone();
        if let State::Up(connections) = now {
            let loss = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                loss = connections.lost() => Some(loss),
            };
            connections.gone.cancel();
            if loss.is_none() {
                connections.farewell().await;
            }
            connections.close().await;
            let Some(why) = loss else {
                break;
            };
            let place = connections.place();
            tracing::warn!(%place, %why, "queue connection lost; nothing is lost meanwhile");
            teller.send_replace(State::Down(place.unreachable(why)));
            lost_at = Instant::now();
            pause = PAUSE_FIRST;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause.mul_f64(1.0 - fastrand::f64() / 2.0)) => {}
        }
        pause = (pause * 2).min(PAUSE_LAST);
        let attempt = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            attempt = connector.connect_anew() => attempt,
        };
        match attempt {
            Ok(connections) => {
                let place = connections.place();
                let after_s = lost_at.elapsed().as_secs_f64();
                tracing::info!(%place, after_s, "queue connection is back");
                teller.send_replace(State::Up(connections));
            }
            Err(error) => {
                let told = matches!(&*teller.borrow(), State::Down(last)
                    if last.to_string() == error.to_string());
                // An outage was told when it began; what waiting does not heal is told once.
                if !told && !matches!(error, QueueError::Unreachable { .. }) {
                    tracing::error!(%error, hint = error.hint(), "queue cannot be used");
                }
                teller.send_replace(State::Down(error));
            }
        }
    }
    teller.send_replace(State::Closed);
}

// === impl Connector ===

impl Connector {
    async fn connect_anew(&self) -> Result<Arc<Connections>, QueueError> {
        let target = self.address.now().inspect_err(|error| {
            // Not the broker's trouble: nobody else tells of it.
            tracing::warn!(%error, "the queue's address cannot be read; trying on");
        })?;
        self.connect(target).await
    }

    async fn connect(&self, target: Target) -> Result<Arc<Connections>, QueueError> {
        let publish = connection(&target, "publish", false).await?;
        let consume = connection(&target, "consume", true).await?;
        let place = target.place;
        let (gone, farewells) = (CancellationToken::new(), TaskTracker::new());
        if self.role == Role::Worker {
            let channel = open(&consume, &place, &farewells).await?;
            self.topology.declare(&channel, &place).await?;
        }
        let events = open(&publish, &place, &farewells).await?;
        Ok(Arc::new(Connections {
            consume,
            publisher: Publisher::new(publish, place, gone.clone(), farewells.clone()),
            events: Events::over(events, self.topology.events()),
            gone,
            farewells,
        }))
    }
}

async fn open(
    connection: &Connection,
    place: &Place,
    farewells: &TaskTracker,
) -> Result<OpenChannel, QueueError> {
    let channel = error::within(CONNECT_TIMEOUT, place, connection.create_channel()).await?;
    Ok(OpenChannel::new(channel, farewells))
}

async fn connection(target: &Target, purpose: &str, mends: bool) -> Result<Connection, QueueError> {
    let name = format!("postrider {purpose}");
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let tls = target.tls.clone();
    let connecting = Connection::connector(
        target.uri.clone(),
        mended::runtime(),
        async move |uri, _| Ok(mended::connect(&uri, tls.as_ref(), mends).await?),
        properties,
    );
    let connecting = async {
        let connected = connecting.await;
        let told = connected.as_ref().err().filter(|_| target.tls.is_some());
        let told = told.and_then(|error| error::of_hanging_up(&target.place, error));
        Ok(told.map_or(Ok(connected), Err))
    };
    let connected = error::within(CONNECT_TIMEOUT, &target.place, connecting).await??;
    connected.map_err(|error| target.place.of(&error))
}

// === impl Connections ===

impl Connections {
    /// Deliveries of these connections can no longer be settled.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
            || !self.consume.status().connected()
            || !self.publisher.connection().status().connected()
    }

    /// Returns when they are lost.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Gives these connections up; the link makes new ones, and a worker declares anew.
    pub(super) fn give_up(&self) {
        self.gone.cancel();
    }

    /// A channel of the consuming connection.
    pub(super) async fn channel(&self) -> Result<OpenChannel, QueueError> {
        open(&self.consume, self.place(), &self.farewells).await
    }

    /// What is spawned here is waited for, a moment, before the connections are closed in order.
    pub(super) fn farewells(&self) -> &TaskTracker {
        &self.farewells
    }

    /// Returns when the last outcomes are told and no channel is about to be closed.
    async fn farewell(&self) {
        self.farewells.close();
        let ended = async {
            self.events.finish().await;
            self.farewells.wait().await;
        };
        if timeout(FAREWELL_TIMEOUT, ended).await.is_err() {
            tracing::debug!("not everything was ended before the connection");
        }
    }

    /// A channel of the publishing connection, for what must not be in the way of what else is
    /// published.
    pub(super) async fn journal_channel(&self) -> Result<OpenChannel, QueueError> {
        open(self.publisher.connection(), self.place(), &self.farewells).await
    }

    pub(super) fn place(&self) -> &Place {
        self.publisher.place()
    }

    /// What was agreed on for the consuming connection, on which the leases hang: the lower one of the
    /// broker's and ours.
    pub(super) fn heartbeat(&self) -> Duration {
        match self.consume.configuration().heartbeat() {
            // Ours holds for a broker that has none. If it did not, a silent owner would never be given
            // up, and nobody else would own.
            0 => HEARTBEAT,
            seconds => Duration::from_secs(seconds.into()),
        }
    }

    /// Returns why, when either is lost.
    async fn lost(&self) -> String {
        tokio::select! {
            biased;
            loss = lost(&self.consume, |_| {}) => loss,
            loss = lost(self.publisher.connection(), |why| self.publisher.block(why)) => loss,
            () = self.gone.cancelled() => "a channel was closed".into(),
        }
    }

    /// Side by side: during an alarm the publishing one gets no answer, and the consuming one
    /// should not wait for that.
    async fn close(&self) {
        tokio::join!(close(self.publisher.connection()), close(&self.consume));
    }
}

async fn close(connection: &Connection) {
    if !connection.status().connected() {
        return;
    }
    let closing = connection.close(200, "bye".into());
    match timeout(CLOSE_TIMEOUT, closing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "closing the queue connection"),
        Err(_) => tracing::debug!("closing the queue connection: no answer"),
    }
}

/// `block` is told why the broker takes nothing, and that it takes again.
async fn lost(connection: &Connection, block: impl Fn(Option<String>)) -> String {
    let mut events = std::pin::pin!(connection.events_listener());
    // An error that came before we listened is told by the status alone.
    if !connection.status().connected() {
        return "it was closed".into();
    }
    while let Some(event) = events.next().await {
        #[expect(clippy::wildcard_enum_match_arm, reason = "lapin's, non-exhaustive")]
        match event {
            // Of one channel: a question about a queue that nobody has declared yet, or a delivery
            // that was in hand for too long. Where the channel was the publisher's, it gives the
            // connections up itself.
            Event::Error(error) if error.is_amqp_soft_error() => {}
            Event::Error(error) => return error::why(&error),
            Event::ConnectionBlocked(why) => {
                tracing::warn!(
                    why,
                    "the broker takes nothing for now; nothing is lost meanwhile"
                );
                block(Some(why));
            }
            Event::ConnectionUnblocked => {
                tracing::info!("the broker takes again");
                block(None);
            }
            // `Connected`, and what a later lapin may tell.
            _ => {}
        }
        if !connection.status().connected() {
            return "it was closed".into();
        }
    }
    "it ended".into()
}
