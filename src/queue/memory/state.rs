//! Where the messages of a model queue stand. Takes `now`; waits for nothing.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use super::super::{DeadLetter, Delivery, Depth, Lane, QueueError, Tag, Validity};
use crate::message::{AccountName, Priority};
use crate::outcome::Disposition;
use crate::queue::Parcel;
use crate::story::Story;

/// Each message stands in exactly one of the four maps.
#[derive(Debug)]
pub(super) struct State {
    pub(super) accounts: BTreeSet<AccountName>,
    /// In the order in which they are handed out.
    pub(super) ready: BTreeMap<Seat, Message>,
    pub(super) waiting: BTreeMap<(Timestamp, u64), Message>,
    pub(super) in_hand: BTreeMap<Tag, Message>,
    pub(super) dead: BTreeMap<u64, DeadLetter>,
    /// Numbers messages, deliveries and intakes alike.
    last_number: u64,
    pub(super) settle_fails_with: Option<QueueError>,
    pub(super) lease: watch::Sender<Validity>,
    pub(super) leased_before: bool,
    pub(super) intakes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seat {
    account: AccountName,
    lane: Lane,
    /// `None` in the results lane, which has one order for all.
    priority: Option<Priority>,
    number: u64,
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
            last_number: 0,
            settle_fails_with: None,
            lease: watch::Sender::new(Validity::Held),
            leased_before: false,
            intakes: 0,
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
            number: self.number(),
        };
        self.stand(message);
        Ok(())
    }

    /// How many stand where, the empty queues too: a graph should fall to zero, not end.
    pub(super) fn depths(&self, prefix: &str) -> Vec<Depth> {
        let mut delay = Depth::empty(format!("{prefix}.delay"));
        for message in self.waiting.values() {
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

    fn stand(&mut self, message: Message) {
        let seat = Seat {
            account: message.account.clone(),
            lane: message.lane,
            priority: (message.lane == Lane::Sends).then_some(message.priority),
            number: message.number,
        };
        self.ready.insert(seat, message);
    }

    pub(super) fn give_back(&mut self, mut message: Message) {
        message.redelivered = true;
        self.stand(message);
    }

    /// Moves what is due to the end of its lane, as a broker's delay queue does.
    pub(super) fn promote(&mut self, now: Timestamp) {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let mut message = entry.remove();
            message.number = self.number();
            self.stand(message);
        }
    }

    pub(super) fn hand_out(
        &mut self,
        account: &AccountName,
        lane: Lane,
        intake: u64,
    ) -> Option<Delivery> {
        let first = Seat {
            account: account.clone(),
            lane,
            priority: None,
            number: 0,
        };
        let (seat, _) = self.ready.range(first..).next()?;
        if seat.account != *account || seat.lane != lane {
            return None;
        }
        let seat = seat.clone();
        let message = self.ready.remove(&seat)?;
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
            story: message.story.clone(),
            redelivered: message.redelivered,
            tag,
        };
        self.in_hand.insert(tag, message);
        Some(delivery)
    }

    pub(super) fn carry_out(&mut self, mut message: Message, disposition: Disposition) {
        // What comes back after a settle is a new copy, as a republished one is on a broker.
        match disposition {
            Disposition::Complete => {}
            Disposition::FollowUp { at, story } => self.wait(message, Lane::Results, at, *story),
            Disposition::Retry { at, story } => self.wait(message, Lane::Sends, at, *story),
            Disposition::Snooze { until, story } => {
                let lane = message.lane;
                self.wait(message, lane, until, *story);
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
                    message.number = self.number();
                    self.stand(message);
                } else {
                    story.death = Some(*otherwise);
                    self.bury(message, *story);
                }
            }
            Disposition::DeadLetter { story } => self.bury(message, *story),
            Disposition::Release => self.give_back(message),
        }
    }

    fn wait(&mut self, mut message: Message, lane: Lane, due: Timestamp, story: Story) {
        message.lane = lane;
        message.story = story;
        message.redelivered = false;
        self.waiting.insert((due, message.number), message);
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
