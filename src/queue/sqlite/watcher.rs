//! Sees what other processes publish, and wakes the lanes for which it is.
//!
//! `PRAGMA data_version` only says that somebody has committed, which this worker does all the
//! time; and of fifty accounts a hundred intakes would claim at each commit. So it asks as well for
//! whom there are new rows: whatever another process makes ready has a new number, and waits to be
//! sent. What this worker makes ready, its writer tells (`Change::readies`).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use super::super::{Lane, QueueError};
use super::hand::Hand;
use super::schema;
use crate::message::AccountName;

/// How often the worker looks whether another process has changed the file: for some time after anybody
/// did, this worker too, and else. A look costs some 50 µs of processor time.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const LOOK_SELDOM: Duration = Duration::from_millis(25);
const LIVELY_FOR: Duration = Duration::from_secs(10);

/// A connection of its own: what the writer commits would not show on the writer's.
#[derive(Debug)]
pub(super) struct Watcher {
    connection: Connection,
    /// Of the file, as it was seen last.
    version: Option<i64>,
    /// The greatest number that was seen, or stood there before anybody could wait for it.
    last: i64,
}

impl Watcher {
    /// Whatever has a number up to `last` is found by the intakes, which are opened later.
    pub(super) fn open(path: &Path, last: i64) -> Result<Self, QueueError> {
        Ok(Self {
            connection: schema::connect(path, &schema::QUEUE)?,
            version: None,
            last,
        })
    }

    /// Watches for as long as it is polled.
    pub(super) async fn run(self, hand: Arc<Hand>) {
        let watcher = Arc::new(Mutex::new(self));
        let mut changed_at = Instant::now();
        loop {
            let is_lively = changed_at.elapsed() < LIVELY_FOR;
            tokio::time::sleep(if is_lively { LOOK_EVERY } else { LOOK_SELDOM }).await;
            let watcher = Arc::clone(&watcher);
            let looked = tokio::task::spawn_blocking(move || {
                let mut watcher = watcher.lock().unwrap_or_else(PoisonError::into_inner);
                watcher.look()
            });
            // What cannot be read now is told by the intakes, which read the same file.
            if let Ok(Ok(Some(accounts))) = looked.await {
                changed_at = Instant::now();
                for account in accounts {
                    hand.wake(&(account, Lane::Sends));
                }
            }
        }
    }

    /// The accounts that have new rows; `None` where nobody has changed the file.
    fn look(&mut self) -> rusqlite::Result<Option<BTreeSet<AccountName>>> {
        let version = (self.connection)
            .pragma_query_value(None, "data_version", |row| row.get(0))
            .map(Some)?;
        if version == self.version {
            return Ok(None);
        }
        // By number, whatever the planner thinks of the index: of a million rows few are new.
        let mut new = self.connection.prepare_cached(
            "SELECT number, account FROM message NOT INDEXED WHERE number > ?1 ORDER BY number",
        )?;
        let mut rows = new.query([self.last])?;
        let (mut last, mut accounts) = (self.last, BTreeSet::new());
        while let Some(row) = rows.next()? {
            last = row.get(0)?;
            // What another hand has written under no name has no lane.
            if let Ok(name) = row.get_ref(1)?.as_str()
                && let Ok(account) = AccountName::parse(name)
            {
                accounts.insert(account);
            }
        }
        (self.version, self.last) = (version, last);
        Ok(Some(accounts))
    }
}

#[cfg(test)]
mod tests;
