//! What goes from owner to owner: an id, and behind it what one tells the next.

use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::message::Delivery;
use uuid::Uuid;

use super::DEFAULT_EXCHANGE;
use super::link::Connections;
use super::properties::PERSISTENT;
use crate::queue::{DayCalls, QueueError, Spends, Word};

/// Behind the id: how the owner spends windows.
const EVENLY: u8 = 0;
const AT_ONCE: u8 = 1;

/// The token of a lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    id: Uuid,
    note: Note,
}

/// What an owner tells the next one: a byte for how it spends windows and, where it counts days,
/// two numbers of eight bytes for when that day ends, in seconds of Unix time, and its calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) spends: Spends,
    pub(super) day: Option<DayCalls>,
}

impl Token {
    pub(super) fn new(note: Note) -> Self {
        Self {
            id: Uuid::new_v4(),
            note,
        }
    }

    /// Whether it is this one that was handed out.
    pub(super) fn is(self, token: &Delivery) -> bool {
        token.data.starts_with(self.id.as_bytes())
    }

    /// What the owner told that had this one last.
    pub(super) fn note(token: &Delivery) -> Note {
        Note::read(token.data.get(size_of::<Uuid>()..).unwrap_or_default())
    }

    pub(super) async fn publish(
        self,
        connections: &Connections,
        queue: &str,
    ) -> Result<(), QueueError> {
        let body = [&self.id.as_bytes()[..], &self.note.written()].concat();
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        (connections.publisher)
            .publish_confirmed(DEFAULT_EXCHANGE, queue, &body, properties)
            .await
    }
}

impl Note {
    pub(super) fn add(&mut self, word: Word) {
        match word {
            Word::Spends(spends) => self.spends = spends,
            Word::Day(day) => self.day = Some(day),
        }
    }

    fn written(self) -> Vec<u8> {
        let spends = match self.spends {
            Spends::Evenly => EVENLY,
            Spends::AtOnce => AT_ONCE,
        };
        let mut bytes = vec![spends];
        if let Some(day) = self.day {
            bytes.extend(day.ends.as_second().to_be_bytes());
            bytes.extend(day.calls.to_be_bytes());
        }
        bytes
    }

    /// Whatever cannot be read was not told.
    fn read(bytes: &[u8]) -> Self {
        let (spends, day) = bytes.split_first().unwrap_or((&EVENLY, &[]));
        let day = day.split_first_chunk().and_then(|(ends, calls)| {
            Some(DayCalls {
                calls: u64::from_be_bytes(*calls.first_chunk()?),
                ends: Timestamp::from_second(i64::from_be_bytes(*ends)).ok()?,
            })
        });
        let spends = if *spends == AT_ONCE {
            Spends::AtOnce
        } else {
            Spends::Evenly
        };
        Self { spends, day }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(at_once: bool, day: Option<(u64, u32)>) {
            let note = Note {
                spends: if at_once { Spends::AtOnce } else { Spends::Evenly },
                day: day.map(|(calls, ends)| DayCalls {
                    calls,
                    ends: Timestamp::from_second(ends.into()).unwrap(),
                }),
            };
            prop_assert_eq!(Note::read(&note.written()), note);
        }

        #[test]
        fn anything_is_read(bytes: Vec<u8>) {
            Note::read(&bytes);
        }
    }

    #[test]
    fn what_older_owners_wrote_is_read() {
        assert_eq!(Note::read(&[]), Note::default());
        let at_once = Note {
            spends: Spends::AtOnce,
            day: None,
        };
        assert_eq!(Note::read(&[AT_ONCE]), at_once);
    }
}
