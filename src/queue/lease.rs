//! The right to dispatch an account, and its end.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The right to dispatch an account: held, with an end, or lost. One that is recalled still holds:
/// its holder is asked to end its term in order, and then to drop it.
#[derive(Clone, Debug)]
pub struct Lease {
    term: Arc<Term>,
    pub before: Before,
    /// What the owners before told of the day.
    pub day: Option<DayCalls>,
    teller: Teller,
    /// Tells the grant when the last clone is dropped.
    _use: Arc<DropGuard>,
}

/// Who dispatched the account until a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Nobody that we know of, so no window can be half spent.
    Nobody,
    /// One that spent its windows like this.
    Somebody(Spends),
}

/// How an owner spends its windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spends {
    #[default]
    Evenly,
    /// Perhaps most of one within a moment.
    AtOnce,
}

/// How much of a day was spent, and when that day ends (or ended).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayCalls {
    /// Of everybody, as far as the owner knew.
    pub calls: u64,
    /// In whole seconds.
    pub ends: Timestamp,
}

/// What an owner tells the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Spends(Spends),
    Day(DayCalls),
}

/// All that the owners so far have told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    pub spends: Spends,
    pub day: Option<DayCalls>,
}

/// Writes a word down where the next owner finds it; whether that was done.
#[derive(Clone)]
pub struct Teller(Arc<Tell>);

type Tell = dyn Fn(Word) -> BoxFuture<'static, bool> + Send + Sync;

/// The other end of a lease: a queue says by it how long the lease holds. Dropping it changes
/// nothing.
#[derive(Debug)]
pub struct Grant {
    term: Arc<Term>,
    unused: CancellationToken,
}

/// Until when a lease holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Validity {
    /// Until the holder lets it go.
    Held,
    /// Until then, unless it is renewed: a frozen owner must not send past it.
    Until(Instant),
    Lost,
}

/// A `Notify` and no `watch`: it wakes in the order in which they came, so that a simulation
/// repeats.
#[derive(Debug)]
struct Term {
    validity: Mutex<Validity>,
    recalled: AtomicBool,
    changed: Notify,
}

impl Grant {
    /// A new lease and its other end.
    #[must_use]
    pub fn new(
        validity: Validity,
        before: Before,
        day: Option<DayCalls>,
        teller: Teller,
    ) -> (Self, Lease) {
        let term = Arc::new(Term {
            validity: Mutex::new(validity),
            recalled: AtomicBool::new(false),
            changed: Notify::new(),
        });
        let unused = CancellationToken::new();
        let lease = Lease {
            term: Arc::clone(&term),
            before,
            day,
            teller,
            _use: Arc::new(unused.clone().drop_guard()),
        };
        (Self { term, unused }, lease)
    }

    pub fn set(&self, validity: Validity) {
        let mut now = (self.term.validity.lock()).unwrap_or_else(PoisonError::into_inner);
        *now = validity;
        drop(now);
        self.term.changed.notify_waiters();
    }

    /// Asks the holder to let the lease go, since another worker should have it.
    pub fn recall(&self) {
        self.term.recalled.store(true, Ordering::Relaxed);
        self.term.changed.notify_waiters();
    }

    #[must_use]
    pub fn is_recalled(&self) -> bool {
        self.term.recalled.load(Ordering::Relaxed)
    }

    /// Returns when nobody has the lease any more.
    pub async fn unused(&self) {
        self.unused.cancelled().await;
    }
}

impl Lease {
    /// A lease that nobody can take away.
    #[must_use]
    pub fn forever(before: Before, day: Option<DayCalls>, teller: Teller) -> Self {
        Grant::new(Validity::Held, before, day, teller).1
    }

    /// Tells the next owner what holds from now on. Unless it is true, it may not have been told.
    pub async fn tell(&self, word: Word) -> bool {
        (self.teller.0)(word).await
    }

    /// Whether a call may go out at `now`.
    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        self.term.holds(now)
    }

    /// Whether a call may go out now, asked without having the lease: it can be let go meanwhile.
    pub fn watched(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let term = Arc::clone(&self.term);
        move || term.holds(Instant::now())
    }

    /// Returns when a call may go out: at once, or when the lease is renewed.
    pub async fn held(&self) {
        self.until(|| self.holds(Instant::now())).await;
    }

    /// Returns when the lease is lost; never, when it cannot be.
    pub async fn lost(&self) {
        self.until(|| self.term.validity() == Validity::Lost).await;
    }

    /// Returns when another worker should have it; never, when nobody asks for it.
    pub async fn recalled(&self) {
        self.until(|| self.term.recalled.load(Ordering::Relaxed))
            .await;
    }

    async fn until(&self, is_so: impl Fn() -> bool) {
        loop {
            // Before the look, so that no change falls between.
            let changed = self.term.changed.notified();
            if is_so() {
                return;
            }
            changed.await;
        }
    }
}

// === impl Term ===

impl Term {
    fn holds(&self, now: Instant) -> bool {
        match self.validity() {
            Validity::Held => true,
            Validity::Until(end) => now < end,
            Validity::Lost => false,
        }
    }

    fn validity(&self) -> Validity {
        *(self.validity.lock()).unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Note ===

impl Note {
    pub fn add(&mut self, word: Word) {
        match word {
            Word::Spends(spends) => self.spends = spends,
            Word::Day(day) => self.day = Some(day),
        }
    }
}

// === impl Teller ===

impl Teller {
    pub fn new(tell: impl Fn(Word) -> BoxFuture<'static, bool> + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<teller>")
    }
}
