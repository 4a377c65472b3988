//! Where the messages of a model queue stand. Takes `now`; waits for nothing.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use super::super::turn::{Turns, Waiting};
use super::super::{DeadLetter, Delivery, Depth, Lane, QueueError, Tag};
use super::line::Line;
use crate::clock::{Clock, until};
use crate::journal::Entry;
use crate::message::{AccountName, Priority};
use crate::outcome::Disposition;
use crate::queue::Parcel;
use crate::story::Story;

/// Each copy of a message stands in exactly one of the four maps.
#[derive(Debug)]
pub(super) struct State {
    pub(super) accounts: BTreeSet<AccountName>,
    /// The most urgent first, and then in the order in which they came.
    pub(super) ready: BTreeMap<Seat, Message>,
    /// A delay is measured by the broker's own clock, from when the message came.
    pub(super) waiting: BTreeMap<(Instant, u64), (Timestamp, Message)>,
    pub(super) in_hand: BTreeMap<Tag, Message>,
    pub(super) dead: BTreeMap<u64, DeadLetter>,
    /// Who dispatches each account, and who waits to.
    pub(super) lines: BTreeMap<AccountName, Line>,
    pub(super) consumers: BTreeMap<u64, Consumer>,
    /// How many were opened so far.
    pub(super) intakes: u64,
    pub(super) notes: Vec<Entry>,
    /// Nobody is served until the broker is back.
    pub(super) down: bool,
    /// Numbers messages, deliveries, intakes and connections alike.
    last_number: u64,
}

/// One intake, as the broker knows it.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) connection: u64,
    pub(super) account: AccountName,
    pub(super) lane: Lane,
    pub(super) prefetch: u16,
    pub(super) turns: Turns,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seat {
    account: AccountName,
    lane: Lane,
    /// `None` in the results lane, which has one order for all.
    priority: Option<Priority>,
    place: Place,
}

/// What was given back goes before all else, in the order in which it was given back: so a quorum
/// queue does it, on 3.10 and on 4.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Returned(u64),
    Queued(u64),
}

/// One message, as it stands.
#[derive(Clone, Debug)]
pub struct Message {
    pub body: Bytes,
    pub message_id: Option<String>,
    pub account: AccountName,
    pub priority: Priority,
    pub lane: Lane,
    pub story: Story,
    pub redelivered: bool,
    /// The connection in whose hands it is, or was last.
    pub(super) connection: u64,
    /// Its turn among those of its priority.
    waiting: Waiting,
    number: u64,
}

// === impl State ===

impl State {
    pub(super) fn new(accounts: impl IntoIterator<Item = AccountName>) -> Self {
        Self {
            accounts: accounts.into_iter().collect(),
            ready: BTreeMap::new(),
            waiting: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            dead: BTreeMap::new(),
            lines: BTreeMap::new(),
            consumers: BTreeMap::new(),
            intakes: 0,
            notes: Vec::new(),
            down: false,
            last_number: 0,
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn publish(&mut self, parcel: Parcel, now: Timestamp) -> Result<(), QueueError> {
        if !self.accounts.contains(&parcel.account) {
            return Err(QueueError::Unroutable {
                place: format!("account `{}`", parcel.account),
            });
        }
        let mut story = parcel.story;
        story.priority = parcel.priority;
        story.published_at.get_or_insert(now);
        let message = Message {
            body: parcel.body,
            message_id: parcel.message_id,
            account: parcel.account,
            priority: parcel.priority,
            lane: Lane::Sends,
            story,
            redelivered: false,
            connection: 0,
            waiting: Waiting::default(),
            number: self.number(),
        };
        let place = Place::Queued(message.number);
        self.stand(message, place);
        Ok(())
    }

    /// How many stand where, the empty queues too: a graph should fall to zero, not end.
    pub(super) fn depths(&self, prefix: &str) -> Vec<Depth> {
        let mut delay = Depth::empty(format!("{prefix}.delay"));
        for (_, message) in self.waiting.values() {
            delay.add(1, message.story.published_at);
        }
        let mut dead = Depth::empty(format!("{prefix}.dead"));
        for letter in self.dead.values() {
            dead.add(1, letter.story.published_at);
        }
        let mut depths = Vec::new();
        for account in &self.accounts {
            let mut lane = |queue: String, lane: Lane, priority: Option<Priority>| {
                let mut depth = Depth::empty(queue);
                for message in self.ready.values().chain(self.in_hand.values()) {
                    let here = message.account == *account && message.lane == lane;
                    if here && priority.is_none_or(|priority| priority == message.priority) {
                        depth.add(1, message.story.published_at);
                    }
                }
                depths.push(depth);
            };
            for priority in Priority::ALL {
                let queue = format!("{prefix}.send.{account}.{priority}");
                lane(queue, Lane::Sends, Some(priority));
            }
            lane(format!("{prefix}.results.{account}"), Lane::Results, None);
        }
        depths.extend([delay, dead]);
        depths
    }

    fn stand(&mut self, mut message: Message, place: Place) {
        message.waiting = Waiting::new(message.lane, &message.body);
        let seat = Seat {
            account: message.account.clone(),
            lane: message.lane,
            priority: (message.lane == Lane::Sends).then_some(message.priority),
            place,
        };
        self.ready.insert(seat, message);
    }

    pub(super) fn give_back(&mut self, mut message: Message) {
        message.redelivered = true;
        let place = Place::Returned(self.number());
        self.stand(message, place);
    }

    /// All that a lost connection had in hand is given back in the order in which it came, and the
    /// leases it held are lost.
    pub(super) fn lose(&mut self, connection: u64) {
        let held = std::mem::take(&mut self.in_hand);
        for (tag, message) in held {
            if message.connection == connection {
                self.give_back(message);
            } else {
                self.in_hand.insert(tag, message);
            }
        }
        let lost = self.consumers.iter();
        let lost = lost.filter(|(_, consumer)| consumer.connection == connection);
        let lost: Vec<u64> = lost.map(|(intake, _)| *intake).collect();
        for intake in lost {
            self.cancel(intake);
        }
        for line in self.lines.values_mut() {
            line.lose(connection);
        }
    }

    /// Nothing more comes to an intake. What it had prefetched counts as handed out before, though
    /// nobody has seen it: so RabbitMQ has it, 3.10 and 4.0 alike.
    pub(super) fn cancel(&mut self, intake: u64) {
        let Some(consumer) = self.consumers.remove(&intake) else {
            return;
        };
        for priority in [None].into_iter().chain(Priority::ALL.map(Some)) {
            let prefetched = self.ready.iter_mut().filter(|(seat, _)| {
                seat.account == consumer.account
                    && seat.lane == consumer.lane
                    && seat.priority == priority
            });
            for (_, message) in prefetched.take(consumer.prefetch.into()) {
                message.redelivered = true;
            }
        }
    }

    /// Every connection is lost.
    pub(super) fn lose_all(&mut self) {
        let held = self.in_hand.values().map(|message| message.connection);
        let consumers = self.consumers.values().map(|consumer| consumer.connection);
        let owners = self.lines.values().filter_map(Line::owner);
        let connections: BTreeSet<u64> = held.chain(consumers).chain(owners).collect();
        for connection in connections {
            self.lose(connection);
        }
    }

    /// Moves what is due to the end of its lane, as a broker's delay queue does.
    pub(super) fn promote(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now || self.down {
                return;
            }
            let (_, message) = entry.remove();
            let place = Place::Queued(self.number());
            self.stand(message, place);
        }
    }

    /// A broker that dies while it moves what is due on may do so twice: a fresh copy, that tells
    /// nobody it is one.
    pub(super) fn repeat_waiting(&mut self, which: usize) -> Option<(Bytes, Option<String>)> {
        let (key, (due, message)) = self.waiting.iter().nth(which)?;
        let (at, due, mut copy) = (key.0, *due, message.clone());
        copy.number = self.number();
        let told = (copy.body.clone(), copy.message_id.clone());
        self.waiting.insert((at, copy.number), (due, copy));
        Some(told)
    }

    /// The seat whose turn it is.
    fn next(&mut self, account: &AccountName, lane: Lane, intake: u64) -> Option<Seat> {
        let Consumer {
            turns, prefetch, ..
        } = self.consumers.get_mut(&intake)?;
        let seats = |priority: Option<Priority>| {
            let seat = |place| Seat {
                account: account.clone(),
                lane,
                priority,
                place,
            };
            seat(Place::Returned(0))..=seat(Place::Queued(u64::MAX))
        };
        let given = match lane {
            Lane::Sends => {
                let waits = |priority| self.ready.range(seats(Some(priority))).next().is_some();
                seats(Some(turns.give(Priority::ALL.map(waits))?))
            }
            Lane::Results => seats(None),
        };
        let ahead = self.ready.range(given.clone()).take((*prefetch).into());
        let place = Waiting::earliest(ahead.map(|(_, message)| &message.waiting), *prefetch);
        let mut waiting = self.ready.range_mut(given);
        for (_, message) in waiting.by_ref().take(place) {
            message.waiting.let_pass();
        }
        waiting.next().map(|(seat, _)| seat.clone())
    }

    pub(super) fn hand_out(
        &mut self,
        account: &AccountName,
        lane: Lane,
        intake: u64,
    ) -> Option<Delivery> {
        if self.down {
            return None;
        }
        let seat = self.next(account, lane, intake)?;
        let connection = self.consumers.get(&intake)?.connection;
        let mut message = self.ready.remove(&seat)?;
        message.connection = connection;
        let tag = Tag {
            intake,
            number: self.number(),
        };
        let delivery = Delivery {
            body: message.body.clone(),
            message_id: message.message_id.clone(),
            account: message.account.clone(),
            priority: message.priority,
            lane: message.lane,
            story: Box::new(message.story.clone()),
            redelivered: message.redelivered,
            tag,
        };
        self.in_hand.insert(tag, message);
        Some(delivery)
    }

    pub(super) fn carry_out(
        &mut self,
        mut message: Message,
        disposition: Disposition,
        clock: &Clock,
    ) {
        // What comes back after a settle is a new copy, as a republished one is on a broker.
        match disposition {
            Disposition::Complete => {}
            Disposition::FollowUp { at, story } => {
                self.wait(message, Lane::Results, at, *story, clock);
            }
            Disposition::Retry { at, story } => {
                self.wait(message, Lane::Sends, at, *story, clock);
            }
            Disposition::Snooze { until, story } => {
                let lane = message.lane;
                self.wait(message, lane, until, *story, clock);
            }
            Disposition::Route {
                account,
                priority,
                mut story,
                otherwise,
            } => {
                if self.accounts.contains(&account) {
                    story.priority = priority;
                    message.account = account;
                    message.priority = priority;
                    message.story = *story;
                    message.redelivered = false;
                    let place = Place::Queued(self.number());
                    self.stand(message, place);
                } else {
                    story.death = Some(*otherwise);
                    self.bury(message, *story);
                }
            }
            Disposition::DeadLetter { story } => self.bury(message, *story),
            Disposition::Release => self.give_back(message),
        }
    }

    fn wait(
        &mut self,
        mut message: Message,
        lane: Lane,
        due: Timestamp,
        story: Story,
        clock: &Clock,
    ) {
        message.lane = lane;
        message.story = story;
        message.redelivered = false;
        let at = Instant::now() + until(clock.now(), due);
        message.number = self.number();
        self.waiting.insert((at, message.number), (due, message));
    }

    fn bury(&mut self, message: Message, story: Story) {
        let letter = DeadLetter {
            body: message.body,
            message_id: message.message_id,
            story,
        };
        let number = self.number();
        self.dead.insert(number, letter);
    }
}
