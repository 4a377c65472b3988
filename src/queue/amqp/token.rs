//! What goes from owner to owner: an id, and behind it what one tells the next.

use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::message::Delivery;
use uuid::Uuid;

use super::DEFAULT_EXCHANGE;
use super::link::Connections;
use super::properties::PERSISTENT;
use crate::queue::{DayCalls, Note, QueueError, Spends};

/// Behind the id: how the owner spends windows.
const EVENLY: u8 = 0;
const AT_ONCE: u8 = 1;

/// The token of a lease. Behind the id stand a byte for how the owner spends windows and, where it
/// counts days, two numbers of eight bytes: when that day ends, in seconds of Unix time, and its calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    id: Uuid,
    note: Note,
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
        read(token.data.get(size_of::<Uuid>()..).unwrap_or_default())
    }

    pub(super) async fn publish(
        self,
        connections: &Connections,
        queue: &str,
    ) -> Result<(), QueueError> {
        let body = [&self.id.as_bytes()[..], &written(self.note)].concat();
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        (connections.publisher)
            .publish_confirmed(DEFAULT_EXCHANGE, queue, &body, properties)
            .await
    }
}

fn written(note: Note) -> Vec<u8> {
    let spends = match note.spends {
        Spends::Evenly => EVENLY,
        Spends::AtOnce => AT_ONCE,
    };
    let mut bytes = vec![spends];
    if let Some(day) = note.day {
        bytes.extend(day.ends.as_second().to_be_bytes());
        bytes.extend(day.calls.to_be_bytes());
    }
    bytes
}

/// Whatever cannot be read was not told.
fn read(bytes: &[u8]) -> Note {
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
    Note { spends, day }
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
            prop_assert_eq!(read(&written(note)), note);
        }

        #[test]
        fn anything_is_read(bytes: Vec<u8>) {
            read(&bytes);
        }
    }

    #[test]
    fn what_older_owners_wrote_is_read() {
        assert_eq!(read(&[]), Note::default());
        let at_once = Note {
            spends: Spends::AtOnce,
            day: None,
        };
        assert_eq!(read(&[AT_ONCE]), at_once);
    }
}
