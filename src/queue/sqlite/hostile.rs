//! What must hold of any row. Asked by the tests and by the fuzzer.
#![allow(clippy::unwrap_used, reason = "it is part of the tests alone")]

use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::store::stored_of;
use crate::message::{MessageId, Priority};

thread_local! {
    static CONNECTION: Connection = Connection::open_in_memory().unwrap();
}

/// One column of a row: what another hand may have put there.
#[derive(Clone, Copy, Debug)]
pub enum Column<'a> {
    Null,
    Number(i64),
    /// SQLite keeps any bytes as text.
    Text(&'a [u8]),
    Bytes(&'a [u8]),
}

impl Column<'_> {
    fn value(&self) -> ToSqlOutput<'_> {
        ToSqlOutput::Borrowed(match *self {
            Self::Null => ValueRef::Null,
            Self::Number(number) => ValueRef::Integer(number),
            Self::Text(bytes) => ValueRef::Text(bytes),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        })
    }
}

/// It is read as something that can be settled: a row that cannot be read would hold up its lane.
pub fn row(story: Column<'_>, message_id: Column<'_>, body: Column<'_>, rank: i64) {
    CONNECTION.with(|connection| {
        let mut statement = connection.prepare_cached("SELECT ?1, ?2, ?3, ?4").unwrap();
        let columns = [story.value(), message_id.value(), body.value(), rank.into()];
        let stored = statement
            .query_row(columns, |row| stored_of(row, 1))
            .unwrap();
        assert!(Priority::ALL.contains(&stored.priority));
        if let Column::Text(bytes) | Column::Bytes(bytes) = body {
            assert_eq!(&*stored.body, bytes);
        }
        if let Column::Text(bytes) | Column::Bytes(bytes) = message_id {
            let id = stored.message_id.unwrap();
            match std::str::from_utf8(bytes) {
                Ok(text) => assert_eq!(id, text),
                Err(_) => assert!(MessageId::parse(&id).is_err(), "{id:?}"),
            }
        }
    });
}

#[cfg(test)]
mod tests;
