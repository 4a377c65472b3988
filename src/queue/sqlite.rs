//! The embedded queue: one SQLite file, one worker, any number of commands beside it.
//!
//! ```text
//! publish ─┐                        ┌─> account, message, dead      (the file)
//! settle  ─┼─> writer: one task, ───┤
//! sweep   ─┘   one transaction      └─> hand: what is in hand       (memory)
//!              for all that wait             ^        and marked in PATH.lock
//!                                            └── intake: claims the first that is not in hand
//! ```
//!
//! The journal stands in a file of its own, `PATH.trace`: nothing that happens to it happens to a
//! request. A worker holds an advisory lock on `PATH.lock`, which the kernel frees when it dies. Commands
//! open the same file without the lock; the worker's `watcher` sees what they publish by polling
//! `PRAGMA data_version`. All SQL runs in `spawn_blocking`: tokio holds a paused clock meanwhile,
//! as it would not for a thread of our own.

mod change;
mod hand;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod hostile;
mod intake;
mod marks;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod trace;
mod view;
mod watcher;
mod writer;

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::change::Change;
use self::hand::{Hand, row_of};
pub use self::intake::SqliteIntake;
use self::marks::{InHand, Marks};
use self::store::Store;
use self::trace::Book;
use self::view::View;
use self::watcher::Watcher;
use self::writer::Writer;
use super::{
    Before, DeadLetter, DeadLetters, Delivery, Depth, Fate, IntakeOptions, Lane, Lease, Queue,
    QueueError, Spends, Tally, Teller, Word,
};
use crate::clock::{self, Clock};
use crate::journal::{Entry, Journal};
use crate::message::AccountName;
use crate::outcome::Disposition;
use crate::queue::Parcel;

/// A worker that ended in order this long ago has left no rolling window half spent: HubSpot's
/// longest is ten seconds.
const WINDOWS_OVER: Duration = Duration::from_mins(1);

/// What a process does with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dispatches: there is one, and it holds the lock.
    Worker,
    /// Publishes, counts and sweeps, beside a worker or without one.
    Command,
}

/// A handle; clones share one queue.
#[derive(Clone, Debug)]
pub struct SqliteQueue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    prefix: String,
    clock: Clock,
    mode: Mode,
    before: Before,
    writer: Writer,
    hand: Arc<Hand>,
    journal: Journal,
    /// The lock on `PATH.lock`, held until this is closed or dropped.
    lock: Mutex<Option<Arc<File>>>,
    /// Ends the watcher.
    watcher: Mutex<Option<DropGuard>>,
}

impl SqliteQueue {
    /// Opens the queue in the file `path`, or makes one, and makes `accounts` known to it.
    ///
    /// # Errors
    /// [`QueueError::Taken`] when another worker has it; `Unreachable`, `Damaged`, `Newer`, `Full`.
    pub async fn open(
        path: impl Into<PathBuf>,
        prefix: impl Into<String>,
        accounts: impl IntoIterator<Item = AccountName>,
        clock: Clock,
        mode: Mode,
    ) -> Result<Self, QueueError> {
        let path = path.into();
        let accounts: Vec<_> = accounts.into_iter().collect();
        let opened = blocking({
            let path = path.clone();
            move || Opened::new(&path, &accounts, mode, clock)
        })
        .await?;
        let hand = Arc::new(opened.hand);
        let store = Arc::new(Mutex::new(opened.store));
        let watcher = opened.watcher.map(|watcher| {
            let end = CancellationToken::new();
            let watching = watcher.run(Arc::clone(&hand));
            tokio::spawn(end.clone().run_until_cancelled_owned(watching));
            end.drop_guard()
        });
        let book = Book::new(trace::beside(&path), clock);
        Ok(Self {
            shared: Arc::new(Shared {
                journal: Journal::start(book, mode == Mode::Worker),
                writer: Writer::start(store, path.clone(), clock, Arc::clone(&hand)),
                path,
                prefix: prefix.into(),
                clock,
                mode,
                before: opened.before,
                hand,
                lock: Mutex::new(opened.lock),
                watcher: Mutex::new(watcher),
            }),
        })
    }

    fn taken(&self) -> QueueError {
        QueueError::Taken {
            place: self.shared.path.display().to_string(),
        }
    }

    /// Runs `read` on a connection of its own, off the runtime's threads.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        let path = self.shared.path.clone();
        blocking(move || {
            let store = Store::open(&path)?;
            read(&store).map_err(|error| store.fault(&error))
        })
        .await
    }

    /// How an owner spends windows stands in the lock file, and the day's calls in the file itself.
    fn teller(&self, account: &AccountName) -> Teller {
        let (shared, account) = (Arc::downgrade(&self.shared), account.clone());
        Teller::new(move |word| {
            let (shared, account) = (shared.upgrade(), account.clone());
            Box::pin(async move {
                match (shared, word) {
                    (None, _) => false,
                    (Some(shared), Word::Spends(spends)) => shared.hand.tell(&account, spends),
                    (Some(shared), Word::Day(day)) => {
                        let change = Change::KeepDay { account, day };
                        shared.writer.make(change).await.is_ok()
                    }
                }
            })
        })
    }

    /// Makes the changes of a sweep: all at once, so that they share transactions.
    async fn carry_out(&self, changes: Vec<Change>, tally: &mut Tally) -> Result<(), QueueError> {
        let made = changes.into_iter().map(async |change| {
            let replays = matches!(change, Change::Replay { .. });
            (replays, self.shared.writer.make(change).await)
        });
        for (replays, made) in join_all(made).await {
            match made {
                Ok(()) if replays => tally.replayed += 1,
                Ok(()) => tally.discarded += 1,
                // Another sweep was faster.
                Err(QueueError::Lost) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Queue for SqliteQueue {
    type Intake = SqliteIntake;

    async fn lease(&self, account: &AccountName) -> Result<Lease, QueueError> {
        match self.shared.mode {
            Mode::Worker => {
                let name = account.clone();
                let day = self.read(move |store| store.day(&name)).await?;
                let before = self.shared.before;
                Ok(Lease::forever(before, day, self.teller(account)))
            }
            Mode::Command => Err(self.taken()),
        }
    }

    /// It holds none that were not received, since a claim costs microseconds: `prefetch` only says
    /// how far it looks ahead, and it looks no further than 128.
    async fn open(
        &self,
        account: &AccountName,
        lane: Lane,
        options: IntakeOptions,
    ) -> Result<SqliteIntake, QueueError> {
        if self.shared.mode == Mode::Command {
            return Err(self.taken());
        }
        let path = self.shared.path.clone();
        let store = blocking(move || Store::open(&path)).await?;
        let hand = Arc::clone(&self.shared.hand);
        let view = View::new(store, account.clone(), lane, options);
        Ok(SqliteIntake::new(view, hand, self.shared.clock))
    }

    async fn settle(&self, delivery: Delivery, disposition: Disposition) -> Result<(), QueueError> {
        let Shared { hand, writer, .. } = self.shared.as_ref();
        if !hand.holds(delivery.tag) {
            return Err(QueueError::Lost);
        }
        let number = row_of(delivery.tag);
        if disposition == Disposition::Release {
            hand.give_back(number, true);
            return Ok(());
        }
        writer
            .make(Change::Settle {
                number,
                line: (delivery.account, delivery.lane),
                disposition,
            })
            .await
    }

    async fn publish(&self, parcel: Parcel) -> Result<(), QueueError> {
        self.shared
            .writer
            .make(Change::Publish(Box::new(parcel)))
            .await
    }

    async fn depths(&self) -> Result<Vec<Depth>, QueueError> {
        let (prefix, now) = (self.shared.prefix.clone(), self.shared.clock.now());
        self.read(move |store| store.depths(&prefix, now)).await
    }

    async fn waiting(&self, account: &AccountName, most: u64) -> Result<u64, QueueError> {
        let (account, now) = (account.clone(), self.shared.clock.now());
        self.read(move |store| store.waiting(&account, now, most))
            .await
    }

    fn note(&self, entry: Entry) {
        self.shared.journal.note(entry);
    }

    fn notes_dropped(&self) -> u64 {
        self.shared.journal.dropped()
    }

    /// Whether the file takes what became of deliveries.
    fn is_up(&self) -> bool {
        !*self.shared.hand.stuck.borrow()
    }

    async fn close(&self) {
        if self.shared.mode == Mode::Worker
            && let Err(error) = self.shared.writer.make(Change::Close).await
        {
            tracing::warn!(%error, "queue.close: the queue was not closed in order: {error}");
        }
        self.shared.journal.close().await;
        self.shared.hand.close();
        drop(lock(&self.shared.watcher).take());
        // Last: now another worker may come.
        drop(lock(&self.shared.lock).take());
    }
}

impl DeadLetters for SqliteQueue {
    async fn sweep<F>(&self, mut choose: F) -> Result<Tally, QueueError>
    where
        F: FnMut(&DeadLetter) -> ControlFlow<(), Fate> + Send,
    {
        let mut tally = Tally::default();
        let last = self.read(Store::last_dead).await?;
        let mut after = 0;
        loop {
            let page = self.read(move |store| store.dead_page(after, last)).await?;
            let Some((number, _)) = page.last() else {
                return Ok(tally);
            };
            after = *number;
            let mut changes = Vec::new();
            let mut ended = false;
            for (letter, dead) in page {
                tally.visited += 1;
                let ControlFlow::Continue(fate) = choose(&dead) else {
                    ended = true;
                    break;
                };
                match fate {
                    Fate::Keep => {}
                    Fate::Replay(parcel) => changes.push(Change::Replay { letter, parcel }),
                    Fate::Discard => changes.push(Change::Discard { letter }),
                }
            }
            self.carry_out(changes, &mut tally).await?;
            if ended {
                return Ok(tally);
            }
        }
    }
}

/// What opening a file gives.
struct Opened {
    store: Store,
    /// A worker's, to see what other processes commit.
    watcher: Option<Watcher>,
    lock: Option<Arc<File>>,
    hand: Hand,
    before: Before,
}

impl Opened {
    fn new(
        path: &Path,
        accounts: &[AccountName],
        mode: Mode,
        clock: Clock,
    ) -> Result<Self, QueueError> {
        let lock = match mode {
            Mode::Worker => Some(lock_file(path)?),
            Mode::Command => None,
        };
        let mut store = Store::open(path)?;
        store
            .declare(accounts)
            .map_err(|error| store.fault(&error))?;
        let (mut before, mut hand, mut watcher) = (Before::Nobody, Hand::default(), None);
        if let Some(lock) = &lock {
            store.check_after_a_crash()?;
            let closed_at = store.begin_work().map_err(|error| store.fault(&error))?;
            let (marks, found) = Marks::open(lock).map_err(|e| not_locked(path, &e))?;
            let over = closed_at.is_some_and(|at| clock::until(at, clock.now()) >= WINDOWS_OVER);
            if !over {
                before = Before::Somebody(found.spends);
            }
            let last = store.last_message().map_err(|error| store.fault(&error))?;
            watcher = Some(Watcher::open(path, last)?);
            let (returned, doubtful) = match found.in_hand {
                InHand::These(rows) => (rows, 0),
                // It gave everything back before it ended in order.
                InHand::NobodyKnows if closed_at.is_some() => (Vec::new(), 0),
                InHand::NobodyKnows => (Vec::new(), last),
            };
            let at_once = match found.spends {
                Spends::AtOnce => accounts.iter().cloned().collect(),
                Spends::Evenly => BTreeSet::new(),
            };
            hand = Hand::new(marks, returned, doubtful, at_once);
        }
        Ok(Self {
            store,
            watcher,
            lock,
            hand,
            before,
        })
    }
}

fn lock_file(path: &Path) -> Result<Arc<File>, QueueError> {
    schema::check_folder(path)?;
    // Not cut short: what the worker before had in hand stands there, and it may still run.
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(false);
    let file = options.open(lock_path(path));
    let file = file.map_err(|error| not_locked(path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Arc::new(file)),
        Err(TryLockError::WouldBlock) => Err(QueueError::Taken {
            place: path.display().to_string(),
        }),
        Err(TryLockError::Error(error)) => Err(not_locked(path, &error)),
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn not_locked(path: &Path, error: &std::io::Error) -> QueueError {
    QueueError::Unreachable {
        place: path.display().to_string(),
        why: format!("{} cannot be locked: {error}", lock_path(path).display()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` where it may wait for a disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, QueueError> + Send + 'static,
) -> Result<T, QueueError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(QueueError::NotTaken {
                why: format!("the file could not be worked on: {error}"),
            })
        })
}
