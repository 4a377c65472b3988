//! What is in hand: bounded by the calls in flight, and marked for whoever comes after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::super::{Delivery, Lane, Spends, Tag};
use super::marks::Marks;
use crate::message::AccountName;

/// An intake that there never is.
const NOBODY: u64 = u64::MAX;

/// A lane of an account: what intakes are opened over, and woken by.
pub(super) type Line = (AccountName, Lane);

/// What the writer, the intakes and the watcher share.
#[derive(Debug, Default)]
pub(super) struct Hand {
    held: Mutex<Held>,
    /// Of each lane that was opened: moves whenever something of it may have become ready.
    lines: Mutex<BTreeMap<Line, watch::Sender<u64>>>,
    /// What a delivery was settled to could not be written. Nothing is handed out until the file
    /// takes changes again: no call should be made whose outcome cannot be kept.
    pub(super) stuck: watch::Sender<bool>,
}

#[derive(Debug, Default)]
pub(super) struct Held {
    /// By row number: the intake that has it.
    in_hand: BTreeMap<i64, u64>,
    /// Handed out before, and ready again.
    returned: BTreeSet<i64>,
    /// Up to this row nobody knows what was in hand when the worker before ended.
    doubtful: i64,
    marks: Option<Marks>,
    /// Whose windows may be spent at once.
    at_once: BTreeSet<AccountName>,
    closed: bool,
}

/// A delivery that goes back by itself unless it is taken: a `receive` that was cancelled while
/// the file was read leaves one of these behind.
#[derive(Debug)]
pub(super) struct Claim {
    hand: Arc<Hand>,
    delivery: Option<Delivery>,
}

impl Hand {
    /// After a worker that had `returned` in its hands when it ended, and perhaps any row up to
    /// `doubtful`, and that may have spent windows of `at_once` so.
    pub(super) fn new(
        marks: Marks,
        returned: Vec<i64>,
        doubtful: i64,
        at_once: BTreeSet<AccountName>,
    ) -> Self {
        Self {
            held: Mutex::new(Held {
                marks: Some(marks),
                returned: returned.into_iter().collect(),
                doubtful,
                at_once,
                ..Held::default()
            }),
            ..Self::default()
        }
    }

    /// Moves whenever something of this lane may have become ready.
    pub(super) fn changes_of(&self, line: Line) -> watch::Receiver<u64> {
        self.lines().entry(line).or_default().subscribe()
    }

    pub(super) fn wake(&self, line: &Line) {
        if let Some(changed) = self.lines().get(line) {
            changed.send_modify(|version| *version += 1);
        }
    }

    /// For what is rare, and does not say which lane it is of.
    fn wake_all(&self) {
        for changed in self.lines().values() {
            changed.send_modify(|version| *version += 1);
        }
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<Line, watch::Sender<u64>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while a lane is read for the next number, so that what is not in hand is as the file
    /// has it.
    pub(super) fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn holds(&self, tag: Tag) -> bool {
        let number = row_of(tag);
        self.lock().in_hand.get(&number) == Some(&tag.intake)
    }

    /// It was settled: nothing of it is in hand.
    pub(super) fn forget(&self, number: i64) {
        let mut held = self.lock();
        held.in_hand.remove(&number);
        held.unmark(number);
    }

    /// How an account's windows are spent from now on; whether the next worker will know it. One
    /// mark stands for all accounts.
    pub(super) fn tell(&self, account: &AccountName, spends: Spends) -> bool {
        let held = &mut *self.lock();
        match spends {
            Spends::AtOnce => held.at_once.insert(account.clone()),
            Spends::Evenly => held.at_once.remove(account),
        };
        let of_any = if held.at_once.is_empty() {
            Spends::Evenly
        } else {
            Spends::AtOnce
        };
        (held.marks.as_mut()).is_some_and(|marks| marks.tell(of_any))
    }

    /// It is ready again; `redelivered` says whether anybody may have worked on it.
    pub(super) fn give_back(&self, number: i64, redelivered: bool) {
        let mut held = self.lock();
        if held.in_hand.remove(&number).is_some() {
            if redelivered {
                held.returned.insert(number);
            } else {
                held.unmark(number);
            }
        }
        drop(held);
        self.wake_all();
    }

    /// What is in hand from now on settles to `Lost`, and nothing more is handed out.
    pub(super) fn close(&self) {
        *self.lock() = Held {
            closed: true,
            ..Held::default()
        };
        self.wake_all();
    }
}

impl Held {
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn is_free(&self, number: i64) -> bool {
        !self.in_hand.contains_key(&number)
    }

    /// It cannot be read: nobody gets it, until the queue is opened anew.
    pub(super) fn set_aside(&mut self, number: i64) {
        self.in_hand.insert(number, NOBODY);
    }

    /// Takes it in hand, and tells whether it was there before.
    pub(super) fn take(&mut self, number: i64, intake: u64) -> bool {
        self.in_hand.insert(number, intake);
        if let Some(marks) = &mut self.marks {
            marks.put(number);
        }
        self.returned.remove(&number) || number <= self.doubtful
    }

    fn unmark(&mut self, number: i64) {
        if let Some(marks) = &mut self.marks {
            marks.clear(number);
        }
    }
}

impl Claim {
    pub(super) fn new(hand: Arc<Hand>, delivery: Delivery) -> Self {
        Self {
            hand,
            delivery: Some(delivery),
        }
    }

    pub(super) fn take(mut self) -> Option<Delivery> {
        self.delivery.take()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(delivery) = self.delivery.take() {
            self.hand
                .give_back(row_of(delivery.tag), delivery.redelivered);
        }
    }
}

/// The row that a tag names.
pub(super) fn row_of(tag: Tag) -> i64 {
    tag.number.cast_signed()
}
