//! Whose turn it is in the lane of sends: one rule for every backend.
//!
//! Between priorities the most urgent goes first, and a share is left to each of the others that
//! waits. Within one, what expires first may go before what came sooner.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::Lane;
use crate::message::{Priority, expires_at};

/// A whole turn, in the parts that credit is counted in.
const TURN: u32 = 1_000_000;

/// Whose turn it is between priorities. Clones share it: what is owed outlives an intake.
#[derive(Clone, Debug)]
pub struct Turns {
    /// What a priority that waits is owed for each turn of a more urgent one.
    share: u32,
    /// What each is owed, the most urgent first: less than a turn and two shares.
    owed: Arc<Mutex<[u32; Priority::ALL.len()]>>,
    /// What is less urgent than this gets none.
    least: Arc<Mutex<Priority>>,
}

/// What decides the turn of a message that waits, among those of its priority.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    expires_at: Option<Timestamp>,
    /// How many that came later have gone before it.
    overtaken: u16,
}

// === impl Turns ===

impl Turns {
    /// For each turn of a more urgent one, `low_share` of a turn is owed to each priority of which
    /// something waits; and nothing to others.
    #[must_use]
    pub fn new(low_share: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to a whole turn"
        )]
        let share = (low_share.clamp(0.0, 1.0) * f64::from(TURN)).round() as u32;
        Self {
            share,
            owed: Arc::default(),
            least: Arc::new(Mutex::new(Priority::Low)),
        }
    }

    /// From now on what is less urgent than this gets no turn.
    pub fn down_to(&self, least: Priority) {
        *self.least.lock().unwrap_or_else(PoisonError::into_inner) = least;
    }

    /// Gives the next turn to one of those that wait, the most urgent first.
    pub(super) fn give(&self, waiting: [bool; Priority::ALL.len()]) -> Option<Priority> {
        let least = *self.least.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waiting = waiting;
        for (waits, priority) in waiting.iter_mut().zip(Priority::ALL) {
            *waits &= priority <= least;
        }
        let mut all = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut first, mut overdue) = (None, None);
        for (place, (waits, owed)) in waiting.into_iter().zip(*all).enumerate() {
            if waits && first.is_none() {
                first = Some(place);
            } else if waits && overdue.is_none() && owed >= TURN {
                overdue = Some(place);
            }
        }
        let given = overdue.or(first)?;
        for (place, (waits, owed)) in waiting.into_iter().zip(&mut *all).enumerate() {
            if place == given {
                // What has the first turn anyway is owed none.
                *owed = overdue.map_or(0, |_| *owed - TURN);
            } else if waits && place > given {
                *owed += self.share;
            }
        }
        Priority::ALL.get(given).copied()
    }
}

// === impl Waiting ===

impl Waiting {
    pub(super) fn new(lane: Lane, body: &[u8]) -> Self {
        Self {
            expires_at: match lane {
                Lane::Sends => expires_at(body),
                Lane::Results => None,
            },
            overtaken: 0,
        }
    }

    /// The place of the one whose turn it is, of those that wait, in the order in which they came:
    /// the one that expires first. Each lets so many go before it at the most.
    ///
    /// What has expired already goes first of all: it costs no call, and makes room for others.
    pub(super) fn earliest<'a>(
        waiting: impl IntoIterator<Item = &'a Self>,
        look_ahead: u16,
    ) -> usize {
        let mut earliest: Option<(usize, Timestamp)> = None;
        for (place, it) in waiting.into_iter().enumerate() {
            if let Some(at) = it.expires_at
                && earliest.is_none_or(|(_, before)| at < before)
            {
                earliest = Some((place, at));
            }
            if it.overtaken >= look_ahead {
                break;
            }
        }
        earliest.map_or(0, |(place, _)| place)
    }

    /// One that came later goes before it.
    pub(super) fn let_pass(&mut self) {
        self.overtaken = self.overtaken.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many turns each priority gets, while these wait.
    fn given(turns: &Turns, count: usize, waits: [bool; 3]) -> [usize; 3] {
        let mut given = [0; 3];
        for _ in 0..count {
            let next = turns.give(waits).unwrap();
            given[next as usize] += 1;
        }
        given
    }

    #[test]
    fn a_share_is_left_to_each_that_waits() {
        let all = [true, true, true];
        assert_eq!(
            given(&Turns::new(0.05), 2100, [true, false, true]),
            [2000, 0, 100]
        );
        assert_eq!(
            given(&Turns::new(0.05), 2100, [false, true, true]),
            [0, 2000, 100]
        );
        assert_eq!(given(&Turns::new(0.0), 1000, all), [1000, 0, 0]);
        let [high, normal, low] = given(&Turns::new(0.05), 2210, all);
        // For twenty of high one of normal, and for twenty of the two one of low.
        assert!((2000..=2006).contains(&high), "{high}");
        assert!((99..=101).contains(&normal) && (104..=106).contains(&low));
        let [high, normal, low] = given(&Turns::new(0.5), 900, all);
        assert!(
            high >= 300 && normal >= 150 && low >= 250,
            "{high} {normal} {low}"
        );
    }

    #[test]
    fn the_first_turn_is_that_of_the_most_urgent() {
        let turns = Turns::new(0.5);
        assert_eq!(given(&turns, 2, [true, true, true]), [2, 0, 0]);
        assert_eq!(turns.give([false; 3]), None);
    }

    #[test]
    fn what_is_less_urgent_than_the_least_gets_none() {
        let turns = Turns::new(0.5);
        turns.down_to(Priority::Normal);
        assert_eq!(given(&turns, 300, [false, true, true]), [0, 300, 0]);
        assert_eq!(turns.give([false, false, true]), None);
        turns.clone().down_to(Priority::High);
        assert_eq!(turns.give([false, true, true]), None);
        turns.down_to(Priority::Low);
        assert_eq!(given(&turns, 1, [false, false, true]), [0, 0, 1]);
    }

    #[test]
    fn nothing_is_saved_up() {
        let turns = Turns::new(0.1);
        // Low does not wait, and then it is alone.
        assert_eq!(given(&turns, 1000, [true, false, false])[0], 1000);
        assert_eq!(given(&turns, 9, [true, false, true]), [9, 0, 0]);
        assert_eq!(given(&turns, 1, [false, false, true]), [0, 0, 1]);
        assert_eq!(given(&turns, 10, [true, false, true]), [10, 0, 0]);
        assert_eq!(given(&turns, 1, [true, false, true]), [0, 0, 1]);
    }

    fn waiting(expires: &[i64]) -> Vec<(usize, Waiting)> {
        let one = |seconds: &i64| Waiting {
            expires_at: (*seconds > 0).then(|| Timestamp::from_second(*seconds).unwrap()),
            overtaken: 0,
        };
        expires.iter().map(one).enumerate().collect()
    }

    fn next(waiting: &mut Vec<(usize, Waiting)>, look_ahead: u16) -> usize {
        let place = Waiting::earliest(waiting.iter().map(|(_, it)| it), look_ahead);
        for (_, it) in &mut waiting[..place] {
            it.let_pass();
        }
        waiting.remove(place).0
    }

    #[test]
    fn what_expires_first_goes_first_and_the_others_in_order() {
        let mut all = waiting(&[0, 50, 0, 20, 0, 20]);
        let order: Vec<_> = (0..6).map(|_| next(&mut all, 100)).collect();
        assert_eq!(order, [3, 5, 1, 0, 2, 4]);
    }

    #[test]
    fn nobody_is_overtaken_for_ever() {
        // An endless stream of requests that expire, each sooner than the one before.
        let mut expires = vec![0, 0];
        expires.extend((1..=50).rev());
        let mut all = waiting(&expires);
        let order: Vec<_> = (0..20).map(|_| next(&mut all, 8)).collect();
        let place = |number| order.iter().position(|it| *it == number).unwrap();
        assert_eq!((place(0), place(1)), (8, 9), "{order:?}");
    }
}
