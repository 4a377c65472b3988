//! The changes: each is made whole or not at all, within a transaction of the writer's.

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};

use super::super::{Lane, QueueError};
use super::hand::Line;
use super::store::rank;
use crate::message::{AccountName, Priority};
use crate::outcome::Disposition;
use crate::queue::{DayCalls, Parcel};
use crate::story::Story;

/// As much as the longest stories take: an attempt has some hundred bytes, and twenty are kept.
const ROOM_BYTES: i64 = 64 * 1024;

#[derive(Debug)]
pub(super) enum Change {
    Publish(Box<Parcel>),
    /// Never with [`Disposition::Release`], which changes nothing in the file.
    Settle {
        number: i64,
        /// Where it was received.
        line: Line,
        disposition: Disposition,
    },
    Replay {
        letter: i64,
        parcel: Box<Parcel>,
    },
    Discard {
        letter: i64,
    },
    /// What the next owner is to know of the account's day.
    KeepDay {
        account: AccountName,
        day: DayCalls,
    },
    /// Shows that there is room for [`ROOM_BYTES`] again.
    Probe,
    /// The worker ends in order.
    Close,
}

/// What a transaction made of one change.
type Made = rusqlite::Result<Result<(), QueueError>>;

impl Change {
    /// The row that it settles.
    pub(super) fn settles(&self) -> Option<i64> {
        match self {
            Self::Settle { number, .. } => Some(*number),
            Self::Publish(_)
            | Self::Replay { .. }
            | Self::Discard { .. }
            | Self::KeepDay { .. }
            | Self::Probe
            | Self::Close => None,
        }
    }

    /// The lane of which there may be something more to hand out after it, now or at a due time.
    pub(super) fn readies(&self) -> Option<Line> {
        let sends = |account: &AccountName| Some((account.clone(), Lane::Sends));
        match self {
            Self::Publish(parcel) | Self::Replay { parcel, .. } => sends(&parcel.account),
            Self::Settle {
                line, disposition, ..
            } => match disposition {
                Disposition::FollowUp { .. } => Some((line.0.clone(), Lane::Results)),
                Disposition::Retry { .. } => sends(&line.0),
                Disposition::Snooze { .. } => Some(line.clone()),
                Disposition::Route { account, .. } => sends(account),
                Disposition::Complete | Disposition::DeadLetter { .. } | Disposition::Release => {
                    None
                }
            },
            Self::Discard { .. } | Self::KeepDay { .. } | Self::Probe | Self::Close => None,
        }
    }

    /// The outer error undoes the whole transaction; after the inner one nothing was changed.
    pub(super) fn make(&self, transaction: &Transaction<'_>, now: Timestamp) -> Made {
        match self {
            Self::Publish(parcel) => publish(transaction, parcel, now),
            Self::Settle {
                number,
                disposition,
                ..
            } => settle(transaction, *number, disposition, now),
            Self::Replay { letter, parcel } => replay(transaction, *letter, parcel, now),
            Self::Discard { letter } => discard(transaction, *letter),
            Self::KeepDay { account, day } => keep_day(transaction, account, *day),
            Self::Probe => mark(
                transaction,
                "UPDATE worker SET room = zeroblob(?1)",
                ROOM_BYTES,
            ),
            Self::Close => {
                let sql = "UPDATE worker SET closed_at = ?1";
                mark(transaction, sql, now.as_millisecond())
            }
        }
    }
}

pub(super) fn is_declared(
    connection: &Connection,
    account: &AccountName,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM account WHERE name = ?1")?
        .exists([account.as_str()])
}

fn publish(transaction: &Transaction<'_>, parcel: &Parcel, now: Timestamp) -> Made {
    if !is_declared(transaction, &parcel.account)? {
        return Ok(Err(unroutable(&parcel.account)));
    }
    insert(transaction, parcel, now)?;
    Ok(Ok(()))
}

/// Out of `dead` first: of two replays at once only one publishes.
fn replay(transaction: &Transaction<'_>, letter: i64, parcel: &Parcel, now: Timestamp) -> Made {
    if !is_declared(transaction, &parcel.account)? {
        return Ok(Err(unroutable(&parcel.account)));
    }
    if let Err(gone) = discard(transaction, letter)? {
        return Ok(Err(gone));
    }
    insert(transaction, parcel, now)?;
    Ok(Ok(()))
}

fn discard(transaction: &Transaction<'_>, letter: i64) -> Made {
    let sql = "DELETE FROM dead WHERE number = ?1";
    Ok(one(transaction.prepare_cached(sql)?.execute([letter])?))
}

fn insert(transaction: &Transaction<'_>, parcel: &Parcel, now: Timestamp) -> rusqlite::Result<()> {
    let published = parcel.story.published_at.unwrap_or(now);
    let story = Story {
        published_at: Some(published),
        priority: parcel.priority,
        ..parcel.story.clone()
    };
    transaction
        .prepare_cached(
            "INSERT INTO message (account, lane, priority, due, published, message_id, story, body)
             VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            parcel.account.as_str(),
            Lane::Sends.as_str(),
            rank(parcel.priority),
            published.as_millisecond(),
            parcel.message_id,
            text(&story)?,
            &*parcel.body,
        ])?;
    Ok(())
}

fn unroutable(account: &AccountName) -> QueueError {
    QueueError::Unroutable {
        place: format!("account `{account}`"),
    }
}

fn settle(
    transaction: &Transaction<'_>,
    number: i64,
    disposition: &Disposition,
    now: Timestamp,
) -> Made {
    match disposition {
        // Nothing to write: see `Change::Settle`.
        Disposition::Release => Ok(Ok(())),
        Disposition::Complete => remove(transaction, number),
        Disposition::FollowUp { at, story } => {
            wait(transaction, number, Some(Lane::Results), *at, story)
        }
        Disposition::Retry { at, story } => {
            wait(transaction, number, Some(Lane::Sends), *at, story)
        }
        Disposition::Snooze { until, story } => wait(transaction, number, None, *until, story),
        Disposition::Route {
            account,
            priority,
            story,
            otherwise,
        } => {
            let mut story = story.as_ref().clone();
            if is_declared(transaction, account)? {
                story.priority = *priority;
                route(transaction, number, account, *priority, &story)
            } else {
                story.death = Some(otherwise.as_ref().clone());
                bury(transaction, number, &story, now)
            }
        }
        Disposition::DeadLetter { story } => bury(transaction, number, story, now),
    }
}

/// The same row, due at another time, and by another lane unless `lane` is `None`.
fn wait(
    transaction: &Transaction<'_>,
    number: i64,
    lane: Option<Lane>,
    due: Timestamp,
    story: &Story,
) -> Made {
    let mut statement = transaction.prepare_cached(
        "UPDATE message SET lane = ifnull(?2, lane), due = ?3, story = ?4 WHERE number = ?1",
    )?;
    let lane = lane.map(Lane::as_str);
    Ok(one(statement.execute(params![
        number,
        lane,
        millis_up(due),
        text(story)?
    ])?))
}

/// To the end of another lane: by a new number.
fn route(
    transaction: &Transaction<'_>,
    number: i64,
    account: &AccountName,
    priority: Priority,
    story: &Story,
) -> Made {
    transaction
        .prepare_cached(
            "INSERT INTO message (account, lane, priority, due, published, message_id, story, body)
             SELECT ?2, ?3, ?4, 0, published, message_id, ?5, body
             FROM message WHERE number = ?1",
        )?
        .execute(params![
            number,
            account.as_str(),
            Lane::Sends.as_str(),
            rank(priority),
            text(story)?,
        ])?;
    remove(transaction, number)
}

fn bury(transaction: &Transaction<'_>, number: i64, story: &Story, now: Timestamp) -> Made {
    let death = story.death.as_ref();
    transaction
        .prepare_cached(
            "INSERT INTO dead (reason, account, email_id, died, published, message_id, story, body)
             SELECT ?2, ifnull(?3, account), ?4, ?5, published, message_id, ?6, body
             FROM message WHERE number = ?1",
        )?
        .execute(params![
            number,
            death.map(|death| death.reason.label()),
            death.and_then(|death| death.account.as_deref()),
            death.and_then(|death| death.email_id),
            death.map_or(now, |death| death.at).as_millisecond(),
            text(story)?,
        ])?;
    remove(transaction, number)
}

fn remove(transaction: &Transaction<'_>, number: i64) -> Made {
    let sql = "DELETE FROM message WHERE number = ?1";
    Ok(one(transaction.prepare_cached(sql)?.execute([number])?))
}

fn keep_day(transaction: &Transaction<'_>, account: &AccountName, day: DayCalls) -> Made {
    let calls = i64::try_from(day.calls).unwrap_or(i64::MAX);
    let row = params![account.as_str(), day.ends.as_second(), calls];
    let sql = "INSERT OR REPLACE INTO day (account, ends, calls) VALUES (?1, ?2, ?3)";
    Ok(one(transaction.prepare_cached(sql)?.execute(row)?))
}

fn mark(transaction: &Transaction<'_>, sql: &str, value: i64) -> Made {
    Ok(one(transaction.prepare_cached(sql)?.execute([value])?))
}

/// A row that is gone was settled before, or replayed by another process.
fn one(rows: usize) -> Result<(), QueueError> {
    if rows == 1 {
        Ok(())
    } else {
        Err(QueueError::Lost)
    }
}

fn text(story: &Story) -> rusqlite::Result<String> {
    serde_json::to_string(story)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// A due time in whole milliseconds, never earlier than it was asked for, and never 0.
fn millis_up(due: Timestamp) -> i64 {
    let millis = due.as_millisecond();
    let rest = due.as_nanosecond() > i128::from(millis) * 1_000_000;
    (millis + i64::from(rest)).max(1)
}
