//! What an intake sees of its lane: whose turn it is. Each body is looked at once.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::super::turn::{Turns, Waiting};
use super::super::{Delivery, IntakeOptions, Lane, Tag};
use super::hand::Line;
use super::store::{Store, Stored};
use crate::message::{AccountName, Priority};

/// How far an intake looks ahead at the most: each claim steps over so many entries of the index, some
/// 20 us, and a worker with many calls in flight asks for thousands.
const LOOK_AHEAD_MAX: u16 = 128;

/// One lane, through a connection of its own.
#[derive(Debug)]
pub(super) struct View {
    pub(super) store: Store,
    account: AccountName,
    lane: Lane,
    /// How far it looks ahead within a priority.
    look_ahead: u16,
    turns: Turns,
    /// What was looked at, by number: little more than `look_ahead` of each priority.
    seen: BTreeMap<Priority, BTreeMap<i64, Waiting>>,
}

impl View {
    pub(super) fn new(
        store: Store,
        account: AccountName,
        lane: Lane,
        options: IntakeOptions,
    ) -> Self {
        Self {
            store,
            account,
            lane,
            look_ahead: match lane {
                Lane::Sends => options.prefetch.clamp(1, LOOK_AHEAD_MAX),
                Lane::Results => 1,
            },
            turns: options.turns,
            seen: BTreeMap::new(),
        }
    }

    pub(super) fn line(&self) -> Line {
        (self.account.clone(), self.lane)
    }

    /// The message whose turn it is, of those that are free.
    pub(super) fn next(
        &mut self,
        now: Timestamp,
        is_free: impl Fn(i64) -> bool,
    ) -> rusqlite::Result<Option<i64>> {
        let mut lines: [Vec<i64>; Priority::ALL.len()] = Default::default();
        for (line, priority) in lines.iter_mut().zip(Priority::ALL) {
            let of = (&self.account, self.lane, priority);
            *line = (self.store).first(of, now, self.look_ahead.into(), &is_free)?;
        }
        let waiting = lines.each_ref().map(|line| !line.is_empty());
        let Some(given) = self.turns.give(waiting) else {
            return Ok(None);
        };
        let mut lines = lines.iter().zip(Priority::ALL);
        let line = lines.find(|(_, priority)| *priority == given);
        Ok(line.and_then(|(ahead, _)| self.earliest(given, ahead)))
    }

    /// When the next one falls due, where nothing is free.
    pub(super) fn next_due(&self, now: Timestamp) -> rusqlite::Result<Option<Timestamp>> {
        self.store.next_due(&self.account, self.lane, now)
    }

    pub(super) fn delivery(&self, stored: Stored, tag: Tag, redelivered: bool) -> Delivery {
        Delivery {
            body: stored.body,
            message_id: stored.message_id,
            account: self.account.clone(),
            priority: stored.priority,
            lane: self.lane,
            story: Box::new(stored.story),
            redelivered,
            tag,
        }
    }

    /// The one that expires first, of the first ones of a priority.
    fn earliest(&mut self, priority: Priority, ahead: &[i64]) -> Option<i64> {
        if self.look_ahead == 1 {
            return ahead.first().copied();
        }
        let seen = self.seen.entry(priority).or_default();
        if seen.len() > 2 * usize::from(self.look_ahead) {
            seen.retain(|number, _| ahead.contains(number));
        }
        for number in ahead {
            let look = |body: &[u8]| Waiting::new(self.lane, body);
            let look = || self.store.look_at(*number, look).unwrap_or_default();
            seen.entry(*number).or_insert_with(look);
        }
        let waiting = ahead.iter().filter_map(|number| seen.get(number));
        let place = Waiting::earliest(waiting, self.look_ahead);
        for number in ahead.iter().take(place) {
            if let Some(overtaken) = seen.get_mut(number) {
                overtaken.let_pass();
            }
        }
        let next = ahead.get(place)?;
        seen.remove(next);
        Some(*next)
    }
}
