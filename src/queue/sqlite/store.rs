//! What is asked of the file; how it is changed stands in `change.rs`. Synchronous; takes `now`.
//!
//! What is in hand is not written down here: a crash forgets it, and everything is handed out
//! again.

use std::ops::RangeInclusive;
use std::path::Path;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Rows, TransactionBehavior, params};

use super::super::{DayCalls, DeadLetter, Depth, Lane, QueueError, Standing};
use super::change::{self, Change};
use super::schema::{self, DAY_TABLE};
use crate::message::{AccountName, Priority, SendRequest};
use crate::story::Story;

/// How many dead letters a page holds.
const PAGE_LETTERS_MAX: usize = 500;
/// How many bytes of bodies a page holds, by which it ends: bodies may have 256 KiB.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// ASCII's *substitute*: a control character, which no id may hold.
const UNREADABLE: &str = "\u{1a}";
/// Another process holds the lock: it would make each of many changes wait as long as the first.
const BUSY: Option<ErrorCode> = Some(ErrorCode::DatabaseBusy);

/// One connection.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    place: String,
}

/// A message, read to be handed out.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) body: Bytes,
    pub(super) message_id: Option<String>,
    pub(super) priority: Priority,
    pub(super) story: Story,
}

impl Store {
    /// Opens the file, and makes the tables of a new one.
    pub(super) fn open(path: &Path) -> Result<Self, QueueError> {
        Ok(Self {
            connection: schema::connect(path, &schema::QUEUE)?,
            place: path.display().to_string(),
        })
    }

    pub(super) fn fault(&self, error: &rusqlite::Error) -> QueueError {
        schema::fault(&self.place, error)
    }

    /// As if the disk had no more room than this.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: i64) {
        (self.connection)
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            .unwrap();
    }

    #[cfg(test)]
    pub(super) fn pages(&self) -> i64 {
        (self.connection)
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .unwrap()
    }

    // === changes ===

    /// Makes the accounts known. Writes nothing when they are: a full disk stops no reader.
    pub(super) fn declare(&mut self, accounts: &[AccountName]) -> rusqlite::Result<()> {
        for account in accounts {
            if !change::is_declared(&self.connection, account)? {
                self.connection.execute(
                    "INSERT OR IGNORE INTO account VALUES (?1)",
                    [account.as_str()],
                )?;
            }
        }
        Ok(())
    }

    /// Reads the whole file where a worker did not end in order: a disk that lies about what it has
    /// written, or a copy made of a file in use, shows only when a page is read. About a second for
    /// a million messages.
    ///
    /// # Errors
    /// [`QueueError::Damaged`]: nothing of it should be sent before somebody has looked.
    pub(super) fn check_after_a_crash(&self) -> Result<(), QueueError> {
        let crashed = "SELECT closed_at IS NULL FROM worker";
        let crashed = (self.connection).query_row(crashed, [], first_bool);
        if !crashed.map_err(|error| self.fault(&error))? {
            return Ok(());
        }
        let found = (self.connection).query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
        let why: String = found.map_err(|error| self.fault(&error))?;
        if why == "ok" {
            return Ok(());
        }
        Err(QueueError::Damaged {
            place: self.place.clone(),
            why,
        })
    }

    /// Takes note that a worker runs, and tells when the one before it ended: `None` when it did
    /// not end in order.
    pub(super) fn begin_work(&mut self) -> rusqlite::Result<Option<Timestamp>> {
        let closed_at: Option<i64> =
            (self.connection).query_row("SELECT closed_at FROM worker", [], |row| row.get(0))?;
        self.connection
            .execute("UPDATE worker SET closed_at = NULL", [])?;
        self.connection.execute_batch(DAY_TABLE)?;
        Ok(closed_at.map(of_millis))
    }

    /// What the owners before told of an account's day.
    pub(super) fn day(&self, account: &AccountName) -> rusqlite::Result<Option<DayCalls>> {
        let sql = "SELECT ends, calls FROM day WHERE account = ?1";
        let row = self.connection.query_row(sql, [account.as_str()], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)?))
        });
        Ok(row.optional()?.and_then(|(ends, calls)| {
            Some(DayCalls {
                calls: u64::try_from(calls).ok()?,
                ends: Timestamp::from_second(ends).ok()?,
            })
        }))
    }

    /// The number of the newest message that there was.
    pub(super) fn last_message(&self) -> rusqlite::Result<i64> {
        let last = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'message'";
        self.connection.query_row(last, [], |row| row.get(0))
    }

    /// Makes all changes in one transaction, and tells of each whether it was made.
    pub(super) fn make(
        &mut self,
        changes: &[&Change],
        now: Timestamp,
    ) -> Vec<Result<(), QueueError>> {
        match self.transact(changes, now) {
            Ok(made) => made,
            // One of them needed more room than there is: each by itself, so that it fails alone.
            Err(error) if changes.len() > 1 && error.sqlite_error_code() != BUSY => changes
                .iter()
                .flat_map(|change| self.make(&[change], now))
                .collect(),
            Err(error) => changes.iter().map(|_| Err(self.fault(&error))).collect(),
        }
    }

    fn transact(
        &mut self,
        changes: &[&Change],
        now: Timestamp,
    ) -> rusqlite::Result<Vec<Result<(), QueueError>>> {
        let transaction =
            (self.connection).transaction_with_behavior(TransactionBehavior::Immediate)?;
        let made = (changes.iter())
            .map(|change| change.make(&transaction, now))
            .collect::<rusqlite::Result<_>>()?;
        transaction.commit()?;
        Ok(made)
    }

    // === reading ===

    /// The first messages of one priority of a lane that are free, at most `count`.
    ///
    /// What had to wait goes before what just arrived: it is older. This steps through the index
    /// over what is in hand, and reads no row.
    pub(super) fn first(
        &self,
        (account, lane, priority): (&AccountName, Lane, Priority),
        now: Timestamp,
        count: usize,
        is_free: impl Fn(i64) -> bool,
    ) -> rusqlite::Result<Vec<i64>> {
        let mut waited = self.connection.prepare_cached(
            "SELECT number FROM message
             WHERE account = ?1 AND lane = ?2 AND priority = ?3 AND due BETWEEN 1 AND ?4
             ORDER BY due, number",
        )?;
        let mut arrived = self.connection.prepare_cached(
            "SELECT number FROM message
             WHERE account = ?1 AND lane = ?2 AND priority = ?3 AND due = 0
             ORDER BY number",
        )?;
        let (account, lane, rank) = (account.as_str(), lane.as_str(), rank(priority));
        let mut found = Vec::new();
        let rows = waited.query(params![account, lane, rank, now.as_millisecond()])?;
        take_free(rows, &is_free, count, &mut found)?;
        if found.len() < count {
            let rows = arrived.query(params![account, lane, rank])?;
            take_free(rows, &is_free, count, &mut found)?;
        }
        Ok(found)
    }

    /// A look at the body of a message; `None` where it cannot be read, which is told when it is
    /// to be handed out.
    pub(super) fn look_at<T>(&self, number: i64, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let body = "SELECT body FROM message WHERE number = ?1";
        let mut statement = self.connection.prepare_cached(body).ok()?;
        let looked = statement.query_row([number], |row| {
            Ok(look(bytes_of(row.get_ref(0)?).unwrap_or_default()))
        });
        looked.ok()
    }

    /// When the next one of a lane falls due.
    pub(super) fn next_due(
        &self,
        account: &AccountName,
        lane: Lane,
        now: Timestamp,
    ) -> rusqlite::Result<Option<Timestamp>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT min(due) FROM message
             WHERE account = ?1 AND lane = ?2 AND priority = ?3 AND due > ?4",
        )?;
        let mut next: Option<i64> = None;
        for priority in Priority::ALL {
            let key = params![
                account.as_str(),
                lane.as_str(),
                rank(priority),
                now.as_millisecond()
            ];
            let due: Option<i64> = statement.query_row(key, |row| row.get(0))?;
            next = next.into_iter().chain(due).min();
        }
        Ok(next.map(of_millis))
    }

    pub(super) fn read(&self, number: i64) -> rusqlite::Result<Stored> {
        let mut statement = self.connection.prepare_cached(
            "SELECT story, message_id, body, priority FROM message WHERE number = ?1",
        )?;
        statement.query_row([number], |row| stored_of(row, number))
    }

    /// The request with this id in a lane. Reads every body: there is no index over ids, which
    /// would cost each request that nobody asks about.
    pub(super) fn find(&self, id: &str) -> rusqlite::Result<Option<Standing>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT story, message_id, body, priority, lane, due, number, account FROM message
             WHERE message_id = ?1 OR instr(body, CAST(?1 AS BLOB)) > 0 ORDER BY number",
        )?;
        let mut rows = statement.query([id])?;
        while let Some(row) = rows.next()? {
            let (message_id, body) = (message_id_of(row)?, body_of(row)?);
            let request = SendRequest::parse(&body, message_id.as_deref());
            let Some(request) = request.ok().filter(|request| request.id.as_str() == id) else {
                continue;
            };
            let (lane, due): (String, i64) = (row.get(4)?, row.get(5)?);
            let account: String = row.get(7)?;
            let (lane, until) = if lane == Lane::Results.as_str() {
                (Lane::Results, None)
            } else {
                (Lane::Sends, request.send_at)
            };
            return Ok(Some(Standing {
                account: AccountName::parse(account).unwrap_or_default(),
                lane,
                priority: priority_of(row.get(3)?),
                due: (due > 0).then(|| of_millis(due)).max(until),
                expires: request.expires_at,
                story: story_of(row, row.get(6)?)?,
            }));
        }
        Ok(None)
    }

    /// The greatest number among the dead letters: where a sweep ends.
    pub(super) fn last_dead(&self) -> rusqlite::Result<i64> {
        (self.connection).query_row("SELECT ifnull(max(number), 0) FROM dead", [], first)
    }

    /// The dead letters after one number and up to another, oldest first: a page of them.
    pub(super) fn dead_page(
        &self,
        after: i64,
        last: i64,
    ) -> rusqlite::Result<Vec<(i64, DeadLetter)>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT story, message_id, body, number FROM dead
             WHERE number > ?1 AND number <= ?2 ORDER BY number",
        )?;
        let mut rows = statement.query([after, last])?;
        let mut page = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            let number = row.get(3)?;
            let letter = DeadLetter {
                body: body_of(row)?,
                message_id: message_id_of(row)?,
                story: story_of(row, number)?,
            };
            bytes += letter.body.len();
            page.push((number, letter));
            if page.len() >= PAGE_LETTERS_MAX || bytes >= PAGE_BYTES_MAX {
                break;
            }
        }
        Ok(page)
    }

    /// How many stand where, the empty queues too: a graph should fall to zero, not end.
    ///
    /// Counted within the indexes: about 0.1 s for a million.
    pub(super) fn depths(&self, prefix: &str, now: Timestamp) -> rusqlite::Result<Vec<Depth>> {
        let mut delay = Depth::empty(format!("{prefix}.delay"));
        let mut depths = Vec::new();
        let now = now.as_millisecond();
        for account in self.accounts()? {
            let mut results = Depth::empty(format!("{prefix}.results.{account}"));
            for priority in Priority::ALL {
                let mut sends = Depth::empty(format!("{prefix}.send.{account}.{priority}"));
                for (lane, depth) in [(Lane::Sends, &mut sends), (Lane::Results, &mut results)] {
                    let key = (account.as_str(), lane, priority);
                    self.count(key, 0..=now, depth)?;
                    self.count(key, now + 1..=i64::MAX, &mut delay)?;
                }
                depths.push(sends);
            }
            depths.push(results);
        }
        let mut dead = Depth::empty(format!("{prefix}.dead"));
        let sql = "SELECT count(*), min(published) FROM dead";
        (self.connection).query_row(sql, [], |row| add(row, &mut dead))?;
        depths.extend([delay, dead]);
        Ok(depths)
    }

    /// How many requests of an account are due to be sent; no more than one above `most` are counted.
    pub(super) fn waiting(
        &self,
        account: &AccountName,
        now: Timestamp,
        most: u64,
    ) -> rusqlite::Result<u64> {
        let mut statement = self.connection.prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM message
             WHERE account = ?1 AND lane = ?2 AND priority = ?3 AND due <= ?4 LIMIT ?5)",
        )?;
        let most = most.saturating_add(1).cast_signed();
        let mut waiting = 0;
        for priority in Priority::ALL {
            let key = params![
                account.as_str(),
                Lane::Sends.as_str(),
                rank(priority),
                now.as_millisecond(),
                most,
            ];
            let found: i64 = statement.query_row(key, |row| row.get(0))?;
            waiting += found.cast_unsigned();
        }
        Ok(waiting)
    }

    fn accounts(&self) -> rusqlite::Result<Vec<String>> {
        let mut names = self.connection.prepare_cached("SELECT name FROM account")?;
        let names = names.query_map([], |row| row.get(0))?;
        names.collect()
    }

    fn count(
        &self,
        (account, lane, priority): (&str, Lane, Priority),
        due: RangeInclusive<i64>,
        depth: &mut Depth,
    ) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(
            "SELECT count(*), min(published) FROM message
             WHERE account = ?1 AND lane = ?2 AND priority = ?3 AND due BETWEEN ?4 AND ?5",
        )?;
        let key = params![
            account,
            lane.as_str(),
            rank(priority),
            due.start(),
            due.end()
        ];
        statement.query_row(key, |row| add(row, depth))
    }
}

// === what a column means ===

/// A priority as a column keeps it: the most urgent one is 0.
pub(super) fn rank(priority: Priority) -> i64 {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

fn priority_of(rank: i64) -> Priority {
    (Priority::ALL.into_iter())
        .find(|priority| self::rank(*priority) == rank)
        .unwrap_or_default()
}

fn of_millis(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

fn add(row: &Row<'_>, depth: &mut Depth) -> rusqlite::Result<()> {
    let oldest: Option<i64> = row.get(1)?;
    depth.add(row.get::<_, i64>(0)?.cast_unsigned(), oldest.map(of_millis));
    Ok(())
}

/// Adds those of `rows` that are free, until there are `count`.
fn take_free(
    mut rows: Rows<'_>,
    is_free: impl Fn(i64) -> bool,
    count: usize,
    found: &mut Vec<i64>,
) -> rusqlite::Result<()> {
    while found.len() < count
        && let Some(row) = rows.next()?
    {
        let number = row.get(0)?;
        if is_free(number) {
            found.push(number);
        }
    }
    Ok(())
}

fn first_bool(row: &Row<'_>) -> rusqlite::Result<bool> {
    row.get(0)
}

fn first(row: &Row<'_>) -> rusqlite::Result<i64> {
    row.get(0)
}

// What another hand has written must not hold up the lane: SQLite keeps any bytes as text, in a
// strict table too. Whatever stands in these three columns is read as something.

pub(super) fn stored_of(row: &Row<'_>, number: i64) -> rusqlite::Result<Stored> {
    Ok(Stored {
        body: body_of(row)?,
        message_id: message_id_of(row)?,
        priority: priority_of(row.get(3)?),
        story: story_of(row, number)?,
    })
}

/// The story in the first column; an empty one where none can be read.
fn story_of(row: &Row<'_>, number: i64) -> rusqlite::Result<Story> {
    let text = bytes_of(row.get_ref(0)?).unwrap_or_default();
    Ok(serde_json::from_slice(text).unwrap_or_else(|error| {
        tracing::warn!(number, %error, "queue.story_unreadable: row {number} has no readable story");
        Story::default()
    }))
}

/// The id in the second column. What cannot be read of it becomes [`UNREADABLE`].
fn message_id_of(row: &Row<'_>) -> rusqlite::Result<Option<String>> {
    let id = bytes_of(row.get_ref(1)?);
    Ok(id.map(|id| match std::str::from_utf8(id) {
        Ok(id) => id.to_owned(),
        Err(_) => String::from_utf8_lossy(id).replace(char::REPLACEMENT_CHARACTER, UNREADABLE),
    }))
}

/// The body in the third column.
fn body_of(row: &Row<'_>) -> rusqlite::Result<Bytes> {
    let body = bytes_of(row.get_ref(2)?).unwrap_or_default();
    Ok(Bytes::copy_from_slice(body))
}

/// Nothing of a null, and of a number.
fn bytes_of(value: ValueRef<'_>) -> Option<&[u8]> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => None,
    }
}
