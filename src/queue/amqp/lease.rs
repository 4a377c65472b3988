//! The lease of an account: a queue with one active consumer, and in it a token.
//!
//! Whoever holds the token owns the account. When the owner's connection ends, the broker hands the
//! token to the next consumer within milliseconds; when the owner falls silent, after two to three
//! heartbeats. A frozen owner does not notice by itself: so its lease ends a little less than two
//! heartbeats after the last question that the broker answered, and it sends nothing past that. The
//! heartbeat is the one that was agreed on: the lower one of the broker's and ours.
//!
//! The token says what its owner tells the next one (`token`): where that changes, another token
//! takes its place.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::Consumer;
use lapin::message::Delivery;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::fleet::{Fleet, Holding};
use super::link::Connections;
use super::open_channel::OpenChannel;
use super::token::Token;
use super::{Shared, channel};
use crate::message::AccountName;
use crate::queue::{Before, Grant, Lease, Note, QueueError, Teller, Validity, Word};

/// How often the broker is asked in a heartbeat, which renews the lease.
const ASKS_PER_HEARTBEAT: u32 = 5;
/// A token is replaced long before the broker closes the channel for an unacknowledged delivery,
/// which it does after 30 minutes.
const RENEW_TOKEN_EVERY: Duration = Duration::from_mins(5);
/// The token in hand, the one that replaces it, and a few that crashes left over.
const PREFETCH: u16 = 8;
/// After this long without the token, another worker has it.
const STANDING_BY_AFTER: Duration = Duration::from_secs(2);
/// How long a token may take to be replaced that tells so; it takes milliseconds.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);
/// Before a lease is asked for again, on a link that stands.
const PAUSE: Duration = Duration::from_millis(500);
/// Before a worker that passed the token on stands in line again: for others to take it.
const PASS_PAUSE: Duration = Duration::from_millis(100);

/// One worker that stands in line for the token.
struct Candidate {
    connections: Arc<Connections>,
    channel: OpenChannel,
    consumer: Consumer,
    queue: String,
    /// The token that this worker made, where there was none.
    made: Option<Token>,
}

/// A candidate with the token in its hand, which may still pass it on.
struct Handed {
    candidate: Candidate,
    token: Delivery,
    /// Another worker had it meanwhile.
    stood_by: bool,
}

/// The worker that has it.
struct Owner {
    connections: Arc<Connections>,
    channel: OpenChannel,
    consumer: Consumer,
    queue: String,
    token: Delivery,
    /// What it says, or will say in a moment.
    note: Note,
    told: mpsc::Receiver<Told>,
    holding: Holding,
}

/// What the next owner is to know, and where to say that it can.
struct Told {
    word: Word,
    done: oneshot::Sender<()>,
}

/// Waits for the lease, through outages.
///
/// # Errors
/// Only what waiting does not heal.
pub(super) async fn wait(shared: &Shared, account: &AccountName) -> Result<Lease, QueueError> {
    // How often the token was passed on, in a row.
    let mut passes = 0;
    loop {
        let connections = shared.link.connections().await?;
        let queue = shared.topology.lease(account);
        let got = async {
            let candidate = Candidate::stand(Arc::clone(&connections), queue).await?;
            shared.fleet.stands(&connections, account);
            let handed = candidate.token(account).await?;
            if handed.stood_by {
                passes = 0;
            }
            handed.take(&shared.fleet, passes).await
        };
        match got.await {
            Ok(Some((owner, lease))) => {
                let farewells = connections.farewells().clone();
                farewells.spawn(owner.keep(account.clone()));
                return Ok(lease);
            }
            Ok(None) => {
                passes += 1;
                tracing::debug!(%account, passes, "passed the account on; standing in line again");
                tokio::time::sleep(PASS_PAUSE).await;
                continue;
            }
            Err(error @ QueueError::Unreachable { .. }) => {
                tracing::debug!(%account, %error, "standing in line again");
            }
            // Somebody deleted the queue: new connections declare it anew.
            Err(QueueError::Unroutable { .. }) => connections.give_up(),
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

// === impl Candidate ===

impl Candidate {
    async fn stand(connections: Arc<Connections>, queue: String) -> Result<Self, QueueError> {
        let channel = channel::open(&connections, PREFETCH).await?;
        let found = channel::look_at(&channel, connections.place(), &queue).await?;
        // With a consumer there is a token too, in its hand. Two workers that start in one moment
        // may make two: whoever gets both keeps one.
        let made = if found.message_count() == 0 && found.consumer_count() == 0 {
            let token = Token::new(Note::default());
            token.publish(&connections, &queue).await?;
            Some(token)
        } else {
            None
        };
        let consumer = channel::consume(&channel, connections.place(), &queue).await?;
        channel.keep(&consumer);
        Ok(Self {
            connections,
            channel,
            consumer,
            queue,
            made,
        })
    }

    /// Waits for the token, for as long as another worker lives.
    async fn token(mut self, account: &AccountName) -> Result<Handed, QueueError> {
        let soon = timeout(STANDING_BY_AFTER, self.consumer.next()).await;
        let stood_by = soon.is_err();
        let first = if let Ok(first) = soon {
            first
        } else {
            tracing::info!(%account, "another worker owns the account; standing by");
            self.consumer.next().await
        };
        let Some(Ok(token)) = first else {
            return Err(self.connections.place().unreachable("the line was closed"));
        };
        Ok(Handed {
            candidate: self,
            token,
            stood_by,
        })
    }
}

// === impl Handed ===

impl Handed {
    /// Takes the lease, unless this worker has its share: then the token goes to the next in line,
    /// as the channel is closed.
    async fn take(
        self,
        fleet: &Arc<Fleet>,
        passes: usize,
    ) -> Result<Option<(Owner, Lease)>, QueueError> {
        let Self {
            candidate, token, ..
        } = self;
        // A token that was in no hand before, and that we made: nobody owned the account.
        let ours = (candidate.made).is_some_and(|made| made.is(&token));
        let fresh = ours && !token.redelivered;
        let asked_at = Instant::now();
        let place = candidate.connections.place();
        channel::look_at(&candidate.channel, place, &candidate.queue).await?;
        let note = Token::note(&token);
        let before = if fresh {
            Before::Nobody
        } else {
            Before::Somebody(note.spends)
        };
        let (teller, told) = teller();
        let valid_for = valid_for(candidate.connections.heartbeat());
        let validity = Validity::Until(asked_at + valid_for);
        let (grant, lease) = Grant::new(validity, before, note.day, teller);
        let holding = fleet.holding(Arc::new(grant), passes).await;
        let owner = holding.map(|holding| Owner {
            connections: candidate.connections,
            channel: candidate.channel,
            consumer: candidate.consumer,
            queue: candidate.queue,
            token,
            note,
            told,
            holding,
        });
        Ok(owner.map(|owner| (owner, lease)))
    }
}

// === impl Owner ===

impl Owner {
    /// Renews the lease until it is lost, or until nobody has it any more. Then the channel is
    /// closed, and with it the token goes to the next in line.
    async fn keep(mut self, account: AccountName) {
        match self.renew().await {
            Ok(()) => self.holding.let_go().await,
            Err(error) => tracing::debug!(%account, %error, "the lease is lost"),
        }
        self.holding.grant().set(Validity::Lost);
    }

    /// Returns when it is let go.
    ///
    /// # Errors
    /// It is lost.
    async fn renew(&mut self) -> Result<(), QueueError> {
        let connections = Arc::clone(&self.connections);
        let lost = |why| Err(connections.place().unreachable(why));
        let heartbeat = connections.heartbeat();
        let mut ask_now = interval(heartbeat / ASKS_PER_HEARTBEAT);
        ask_now.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut token_made_at = Instant::now();
        // The last that was made here. What was told waits until it is the only one.
        let mut newest: Option<Token> = None;
        let mut waiting: Vec<oneshot::Sender<()>> = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = connections.gone() => return lost("the connection is gone"),
                () = self.holding.grant().unused() => return Ok(()),
                token = self.consumer.next() => {
                    let Some(Ok(token)) = token else { return lost("the line was closed") };
                    // The newest is kept, even where an older one comes in behind it. The queue is
                    // never without: a token was published before the old one is taken away.
                    let is_newest = |token: &Delivery| newest.is_some_and(|newest| newest.is(token));
                    let old = if is_newest(&self.token) {
                        token
                    } else {
                        std::mem::replace(&mut self.token, token)
                    };
                    channel::ack(&old.acker).await?;
                    if is_newest(&self.token) && !waiting.is_empty() {
                        // Answered behind the acknowledgement: the old token is gone.
                        channel::look_at(&self.channel, connections.place(), &self.queue).await?;
                        for done in waiting.drain(..) {
                            if done.send(()).is_err() {
                                tracing::debug!("nobody waits for the new token any more");
                            }
                        }
                    }
                }
                Some(Told { word, done }) = self.told.recv() => {
                    self.note.add(word);
                    newest = Some(self.replace_token());
                    waiting.retain(|done| !done.is_closed());
                    waiting.push(done);
                    token_made_at = Instant::now();
                }
                _ = ask_now.tick() => {
                    let asked_at = Instant::now();
                    // An answer proves that the broker takes our connection for alive.
                    channel::look_at(&self.channel, connections.place(), &self.queue).await?;
                    let end = asked_at + valid_for(heartbeat);
                    self.holding.grant().set(Validity::Until(end));
                    if token_made_at.elapsed() > RENEW_TOKEN_EVERY {
                        token_made_at = Instant::now();
                        newest = Some(self.replace_token());
                    }
                }
            }
        }
    }

    /// Has a new token made, beside us: during an alarm a publish waits for half a minute, and the
    /// lease must be renewed meanwhile. One that fails is made up for by the next, long before the
    /// broker loses patience.
    fn replace_token(&self) -> Token {
        let token = Token::new(self.note);
        let (connections, queue) = (Arc::clone(&self.connections), self.queue.clone());
        tokio::spawn(async move {
            if let Err(error) = token.publish(&connections, &queue).await {
                tracing::debug!(%error, "the lease's token is not replaced yet");
            }
        });
        token
    }
}

/// For how long an answer of the broker proves the lease: two heartbeats, after which it gives a silent
/// owner up at the soonest, less a fifth for a call that is let go just before the end to reach HubSpot.
fn valid_for(heartbeat: Duration) -> Duration {
    heartbeat * 2 * 4 / 5
}

/// What the holder tells goes to the owner's task, which has a new token made.
fn teller() -> (Teller, mpsc::Receiver<Told>) {
    let (tell, told) = mpsc::channel(1);
    let teller = Teller::new(move |word| {
        let tell = tell.clone();
        Box::pin(async move {
            let (done, is_done) = oneshot::channel();
            let told = async {
                tell.send(Told { word, done }).await.ok()?;
                is_done.await.ok()
            };
            matches!(timeout(TELL_TIMEOUT, told).await, Ok(Some(())))
        })
    });
    (teller, told)
}
