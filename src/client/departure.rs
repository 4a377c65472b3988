//! When a call leaves, and whether it still may.
//!
//! A call that finds a connection at hand leaves at once. Any other begins to connect, and leaves when
//! that connection stands, or sooner over one that another call is done with. Of that nobody else tells:
//! while a call waits, its connection is asked each time that the call goes on, and not any more when it
//! has left.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::task::futures::TaskLocalFuture;
use tokio::time::Instant;

tokio::task_local! {
    static DEPARTURE: Departure;
}

/// Whether calls may leave, until it is shut. All clones are one.
#[derive(Clone)]
pub struct Fence(Arc<Gate>);

struct Gate {
    holds: Box<dyn Fn() -> bool + Send + Sync>,
    shut: AtomicBool,
    /// Calls that are begun and have not left.
    waiting: AtomicUsize,
    all_left: Notify,
}

/// One call: by when it left, and that it does not once its fence is shut.
#[derive(Clone, Debug)]
pub struct Departure(Arc<Way>);

#[derive(Debug)]
struct Way {
    fence: Fence,
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    /// It has not left: it is not begun, or waits for a connection.
    waits: bool,
    /// Since it last went on, its connection was asked and did not stand.
    connects: bool,
    under_way: u32,
    /// When the last connection stood, or failed.
    ended: Option<Instant>,
}

/// The fence was shut, and the call had not left: nobody has heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLeft;

pin_project! {
    /// A call on its way through its fence.
    #[derive(Debug)]
    pub struct Leaving<F> {
        departure: Departure,
        #[pin]
        call: TaskLocalFuture<Departure, F>,
    }
}

pin_project! {
    /// A connection that is being made for the call that began it.
    #[derive(Debug)]
    pub struct Connecting<F> {
        #[pin]
        connection: F,
        departure: Option<Departure>,
    }
}

/// Tells the call in whose task this is of the connection that it begins.
pub fn connecting<F: Future>(connection: F) -> Connecting<F> {
    let departure = DEPARTURE.try_with(Departure::clone).ok();
    if let Some(departure) = &departure {
        departure.told().under_way += 1;
    }
    Connecting {
        connection,
        departure,
    }
}

// === impl Fence ===

impl Fence {
    /// Open for as long as `holds` says so, and until it is shut.
    pub fn new(holds: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(Gate {
            holds: Box::new(holds),
            shut: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            all_left: Notify::new(),
        }))
    }

    /// Whether a call may leave now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.0.shut.load(Ordering::Acquire) && (self.0.holds)()
    }

    /// From now on no call leaves.
    pub fn shut(&self) {
        self.0.shut.store(true, Ordering::Release);
    }

    /// Returns when every call that was begun has left, or never will.
    pub async fn all_left(&self) {
        loop {
            // Before the look, so that no change falls between.
            let all_left = self.0.all_left.notified();
            if self.0.waiting.load(Ordering::Acquire) == 0 {
                return;
            }
            all_left.await;
        }
    }

    fn comes(&self) {
        self.0.waiting.fetch_add(1, Ordering::AcqRel);
    }

    fn goes(&self) {
        if self.0.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.all_left.notify_waiters();
        }
    }
}

impl Default for Fence {
    fn default() -> Self {
        Self::new(|| true)
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<fence>")
    }
}

// === impl Departure ===

impl Departure {
    /// Of a call that is begun, and leaves through this fence.
    #[must_use]
    pub fn through(fence: Fence) -> Self {
        fence.comes();
        let told = Mutex::new(Told {
            waits: true,
            connects: false,
            under_way: 0,
            ended: None,
        });
        Self(Arc::new(Way { fence, told }))
    }

    /// The call of which it tells; one.
    pub fn of<F: Future>(&self, call: F) -> Leaving<F> {
        Leaving {
            departure: self.clone(),
            call: DEPARTURE.scope(self.clone(), call),
        }
    }

    /// Whether it is known by when the call left: not while a connection that it began is under way.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.told().under_way == 0
    }

    /// When its connection stood, if it had to connect: it left no later than that.
    #[must_use]
    pub fn connected(&self) -> Option<Instant> {
        self.told().ended
    }

    /// Whether the call goes on: it has left, or may.
    fn goes_on(&self) -> bool {
        let mut told = self.told();
        told.connects = false;
        !told.waits || self.0.fence.is_open()
    }

    /// The call went on, as far as it could.
    fn went_on(&self, is_over: bool) {
        let mut told = self.told();
        let waits = told.connects && !is_over;
        // It waits again where the connection that it had taken turned out to be closed.
        match (told.waits, waits) {
            (true, false) => self.0.fence.goes(),
            (false, true) => self.0.fence.comes(),
            (true, true) | (false, false) => {}
        }
        told.waits = waits;
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Departure {
    /// Of a call that may always leave.
    fn default() -> Self {
        Self::through(Fence::default())
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        let told = self.told.get_mut().unwrap_or_else(PoisonError::into_inner);
        if told.waits {
            self.fence.goes();
        }
    }
}

// === impl Leaving ===

impl<F: Future> Future for Leaving<F> {
    type Output = Result<F::Output, NotLeft>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if !this.departure.goes_on() {
            this.departure.went_on(true);
            return Poll::Ready(Err(NotLeft));
        }
        let answer = this.call.poll(context);
        this.departure.went_on(answer.is_ready());
        answer.map(Ok)
    }
}

// === impl Connecting ===

impl<F: Future> Future for Connecting<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = this.connection.poll(context);
        if polled.is_pending() {
            // Where the call left over another connection, a task of its own brings this one about, and
            // nobody is told.
            let _ = DEPARTURE.try_with(|departure| departure.told().connects = true);
        }
        let connection = ready!(polled);
        if let Some(departure) = this.departure.take() {
            let mut told = departure.told();
            told.under_way -= 1;
            told.ended = Some(Instant::now());
        }
        Poll::Ready(connection)
    }
}
