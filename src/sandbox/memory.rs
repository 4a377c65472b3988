//! What the sandbox remembers, each part with its limit.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use serde::Serialize;

use super::answer::Bucket;
use super::status::Ticket;

/// One generation of `sendId`s. Two are kept, so at least this many are always remembered, in
/// about 70 MB each when full. HubSpot documents no retention.
const GENERATION_MAX: usize = 2_000_000;
/// Mails for `/_sandbox/mail`; about 40 MB when full.
const MAILS_MAX: usize = 100_000;
/// Attempts kept of one mail.
const ATTEMPTS_MAX: usize = 20;
/// Calls for `/_sandbox/calls`; 16 bytes each.
const CALLS_MAX: usize = 1_000_000;
/// Addresses whose tags strike a number of times.
const TRIES_MAX: usize = 100_000;

/// How much was forgotten since the start, for want of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forgotten {
    pub send_ids: u64,
    pub mails: u64,
    pub calls: u64,
}

/// The fingerprint of a `sendId` (or an address) of a portal. Two of two million collide with a
/// probability of one in ten million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u64);

impl Key {
    pub(super) fn new(portal: u32, text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (portal, text).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// A map whose order is never asked for, with a hasher that has no seed of its own.
type Map<V> = HashMap<Key, V, BuildHasherDefault<DefaultHasher>>;

/// Which `sendId`s were used, and whether a mail went out for each.
#[derive(Clone, Debug)]
pub(super) struct SendIds {
    young: Map<bool>,
    old: Map<bool>,
    generation_max: usize,
}

impl Default for SendIds {
    fn default() -> Self {
        Self {
            young: Map::default(),
            old: Map::default(),
            generation_max: GENERATION_MAX,
        }
    }
}

impl SendIds {
    /// Whether a mail went out for this id; `None` when it was not used before.
    pub(super) fn get(&self, key: Key) -> Option<bool> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    /// Remembers an id, and says how many were forgotten for it.
    pub(super) fn insert(&mut self, key: Key, mailed: bool) -> usize {
        self.young.insert(key, mailed);
        if self.young.len() < self.generation_max {
            return 0;
        }
        let forgotten = self.old.len();
        self.old = std::mem::take(&mut self.young);
        forgotten
    }
}

/// How often each address with a counted tag was struck.
#[derive(Clone, Debug, Default)]
pub(super) struct Tries(Map<u32>);

impl Tries {
    /// Counts one more try, and says which it is, from 1.
    pub(super) fn count(&mut self, key: Key) -> u32 {
        if self.0.len() >= TRIES_MAX && !self.0.contains_key(&key) {
            self.0.clear();
        }
        let tries = self.0.entry(key).or_default();
        *tries = tries.saturating_add(1);
        *tries
    }
}

/// One email that somebody asked for.
#[derive(Clone, Debug)]
pub(super) struct Mail {
    pub seq: u64,
    pub portal: u32,
    pub api: &'static str,
    pub send_id: Option<String>,
    pub email_id: i64,
    pub to: String,
    /// Of the send that was accepted; `None` while none was.
    pub ticket: Option<Ticket>,
    pub attempts: Vec<Attempt>,
    /// All of them, also those that are not kept.
    pub attempts_total: u64,
}

/// One call for a mail.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Attempt {
    pub at: Timestamp,
    /// The HTTP status; for a call without an answer the one it would have had.
    pub status: u16,
    pub ending: Manner,
    /// Accepted, and absorbed because the `sendId` had been used.
    pub duplicate: bool,
}

/// How a call ended for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Manner {
    Answered,
    /// The connection was reset after, or before, the call was processed.
    Cut,
    CutBefore,
    Never,
}

/// The mails, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct MailBook {
    mails: BTreeMap<u64, Mail>,
    by_key: Map<u64>,
    last_seq: u64,
}

impl MailBook {
    /// The mail of this `sendId`, or a new one that `make` makes of its number. Says how many
    /// mails were forgotten for it.
    pub(super) fn entry(
        &mut self,
        key: Option<Key>,
        make: impl FnOnce(u64) -> Mail,
    ) -> (usize, Option<&mut Mail>) {
        let known = key.and_then(|key| self.by_key.get(&key)).copied();
        let mut forgotten = 0;
        let seq = known
            .filter(|seq| self.mails.contains_key(seq))
            .unwrap_or_else(|| {
                self.last_seq += 1;
                let seq = self.last_seq;
                self.mails.insert(seq, make(seq));
                if let Some(key) = key {
                    self.by_key.insert(key, seq);
                }
                forgotten = self.forget();
                seq
            });
        (forgotten, self.mails.get_mut(&seq))
    }

    fn forget(&mut self) -> usize {
        if self.mails.len() <= MAILS_MAX {
            return 0;
        }
        let Some((seq, mail)) = self.mails.pop_first() else {
            return 0;
        };
        if let Some(send_id) = &mail.send_id {
            let key = Key::new(mail.portal, send_id);
            if self.by_key.get(&key) == Some(&seq) {
                self.by_key.remove(&key);
            }
        }
        1
    }

    pub(super) fn after(&self, seq: u64, limit: usize) -> impl Iterator<Item = &Mail> {
        self.mails
            .range(seq.saturating_add(1)..)
            .take(limit)
            .map(|(_, mail)| mail)
    }

    pub(super) fn newest(&self, limit: usize) -> impl Iterator<Item = &Mail> {
        self.mails.values().rev().take(limit)
    }
}

impl Mail {
    pub(super) fn attempt(&mut self, attempt: Attempt) {
        if self.attempts.len() == ATTEMPTS_MAX {
            self.attempts.remove(0);
        }
        self.attempts.push(attempt);
        self.attempts_total += 1;
    }
}

/// One call, for an offline checker.
#[derive(Clone, Copy, Debug)]
pub struct CallRecord {
    /// Of its arrival, in microseconds since 1970.
    pub at: i64,
    pub portal: u32,
    pub bucket: Bucket,
    pub status: u16,
}

/// The calls, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct CallLog(VecDeque<CallRecord>);

impl CallLog {
    /// Keeps a call, and says how many were forgotten for it.
    pub(super) fn push(&mut self, call: CallRecord) -> usize {
        let full = self.0.len() == CALLS_MAX;
        if full {
            self.0.pop_front();
        }
        self.0.push_back(call);
        usize::from(full)
    }

    pub(super) fn all(&self) -> Vec<CallRecord> {
        self.0.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn send_ids_are_forgotten_a_generation_at_a_time() {
        let mut ids = SendIds {
            generation_max: 3,
            ..SendIds::default()
        };
        let key = |n: u32| Key::new(1, &n.to_string());
        let forgotten: usize = (0..9).map(|n| ids.insert(key(n), n % 2 == 0)).sum();
        assert_eq!(forgotten, 6);
        assert_eq!(ids.get(key(0)), None);
        let kept: Vec<_> = (6..9).map(|n| ids.get(key(n))).collect();
        assert_eq!(kept, [Some(true), Some(false), Some(true)]);
    }

    #[test]
    fn the_oldest_mail_makes_room() {
        let mut book = MailBook::default();
        let mut forgotten = 0;
        for n in 0..MAILS_MAX + 2 {
            let send_id = n.to_string();
            let (gone, _) = book.entry(Some(Key::new(1, &send_id)), |seq| Mail {
                seq,
                portal: 1,
                api: "transactional",
                send_id: Some(send_id),
                email_id: 1,
                to: String::new(),
                ticket: None,
                attempts: Vec::new(),
                attempts_total: 0,
            });
            forgotten += gone;
        }
        assert_eq!(forgotten, 2);
        assert_eq!(book.by_key.len(), MAILS_MAX);
        assert_eq!(book.after(0, 1).next().map(|mail| mail.seq), Some(3));
        let newest = book.newest(1).next().map(|mail| mail.seq);
        assert_eq!(newest, Some(MAILS_MAX as u64 + 2));
    }
}
