//! The journal in a file of its own, `PATH.trace`: a damaged, full or deleted one never touches the
//! queue's.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior, params};

use super::super::{QueueError, Sight, Standing, Traces};
use super::{SqliteQueue, blocking, schema};
use crate::clock::Clock;
use crate::journal::{AGE_MAX, Keeper, Record};

/// What the file holds at most; the oldest records make room. About half a million steps.
const BYTES_MAX: i64 = 256 * 1024 * 1024;
/// So many old records go for each new one, until the file is small enough again.
const LEAVE_PER_RECORD: i64 = 2;

/// Keeps pages in the file.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    clock: Clock,
    bytes_max: i64,
    /// `None` before the first page, and after trouble.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    /// The file that is open: another one may have taken its place, or none.
    file: (u64, u64),
}

/// Where the journal of this queue is.
pub(super) fn beside(queue: &Path) -> PathBuf {
    with(queue, ".trace")
}

// === impl Book ===

impl Book {
    pub(super) fn new(path: PathBuf, clock: Clock) -> Self {
        Self {
            path,
            clock,
            bytes_max: BYTES_MAX,
            open: None,
        }
    }
}

impl Keeper for Book {
    async fn keep(&mut self, page: &[Record]) -> Result<(), String> {
        let rows: Vec<Row> = page.iter().map(Row::of).collect();
        let (path, bytes_max) = (self.path.clone(), self.bytes_max);
        let oldest = self.clock.now().checked_sub(AGE_MAX);
        let open = self.open.take();
        let kept = blocking(move || {
            let mut open = open.map_or_else(|| Open::new(&path), |open| open.still_at(&path));
            if let Err(QueueError::Damaged { why, .. }) = &open {
                set_aside(&path, why);
                open = Open::new(&path);
            }
            let mut open = open?;
            match open.keep(&rows, oldest.unwrap_or_default(), bytes_max) {
                Ok(()) => Ok(open),
                Err(error) => {
                    let error = schema::fault(&path.display().to_string(), &error);
                    if let QueueError::Damaged { why, .. } = &error {
                        drop(open);
                        set_aside(&path, why);
                    }
                    Err(error)
                }
            }
        });
        self.open = Some(kept.await.map_err(|error| error.to_string())?);
        Ok(())
    }
}

// === impl Open ===

impl Open {
    fn new(path: &Path) -> Result<Self, QueueError> {
        if !path.exists() {
            remove_log(path);
        }
        let connection = schema::connect(path, &schema::TRACE)?;
        let file = identity(path).unwrap_or_default();
        Ok(Self { connection, file })
    }

    /// This one, or a new one where somebody has removed or replaced the file.
    fn still_at(self, path: &Path) -> Result<Self, QueueError> {
        if identity(path) == Some(self.file) {
            return Ok(self);
        }
        drop(self);
        Self::new(path)
    }

    fn keep(&mut self, rows: &[Row], oldest: Timestamp, bytes_max: i64) -> rusqlite::Result<()> {
        let transaction =
            (self.connection).transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            // First, so that the new ones find room on a full disk.
            let too_large = bytes(&transaction)? > bytes_max;
            let newest_to_go = if too_large {
                i64::MAX
            } else {
                oldest.as_millisecond()
            };
            let mut leave = transaction.prepare_cached(
                "DELETE FROM record WHERE number IN
                     (SELECT number FROM record ORDER BY number LIMIT ?1) AND at < ?2",
            )?;
            let count = i64::try_from(rows.len()).unwrap_or(i64::MAX / LEAVE_PER_RECORD);
            leave.execute([count * LEAVE_PER_RECORD, newest_to_go])?;
            let mut keep = transaction
                .prepare_cached("INSERT INTO record (id, at, line) VALUES (?1, ?2, ?3)")?;
            for row in rows {
                keep.execute(params![row.id, row.at, row.line])?;
            }
        }
        transaction.commit()
    }
}

/// One record, as a row.
struct Row {
    id: String,
    at: i64,
    line: String,
}

impl Row {
    fn of(record: &Record) -> Self {
        Self {
            id: record.id().unwrap_or_default().to_owned(),
            at: record.at().as_millisecond(),
            line: record.line(),
        }
    }
}

/// What is in use: pages that became free are used again before the file grows.
fn bytes(connection: &Connection) -> rusqlite::Result<i64> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    Ok((number("page_count")? - number("freelist_count")?) * number("page_size")?)
}

/// Makes room for a new file, and leaves the damaged one to whoever wants it.
fn set_aside(path: &Path, why: &str) {
    let aside = with(path, ".damaged");
    let file = path.display();
    if let Err(error) = std::fs::rename(path, &aside) {
        tracing::warn!(%error, "trace.damaged: {file} is damaged and cannot be moved: {error}");
        return;
    }
    remove_log(path);
    let aside = aside.display();
    tracing::warn!(
        why,
        "trace.damaged: {file} is damaged ({why}); it is {aside} now, and a new one begins"
    );
}

/// The log of a file that is gone: SQLite would work it into the next one.
fn remove_log(path: &Path) {
    for end in ["-wal", "-shm"] {
        // Mostly there is none.
        drop(std::fs::remove_file(with(path, end)));
    }
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

// === reading ===

impl Traces for SqliteQueue {
    async fn trace<F>(
        &self,
        ids: &[String],
        since: Option<Timestamp>,
        mut visit: F,
    ) -> Result<Option<Timestamp>, QueueError>
    where
        F: FnMut(Vec<Record>) + Send,
    {
        let path = beside(&self.shared.path);
        let ids = ids.to_vec();
        let (records, oldest) = blocking(move || {
            if !path.exists() {
                return Ok((Vec::new(), None));
            }
            let place = path.display().to_string();
            let connection = schema::connect(&path, &schema::TRACE)?;
            read(&connection, &ids, since).map_err(|error| schema::fault(&place, &error))
        })
        .await?;
        visit(records);
        Ok(oldest)
    }

    async fn find(&self, id: &str) -> Result<Sight, QueueError> {
        let id = id.to_owned();
        let found = self.read(move |store| store.find(&id)).await?;
        Ok(found.map_or(Sight::Nowhere, |standing: Standing| {
            Sight::Stands(Box::new(standing))
        }))
    }
}

fn read(
    connection: &Connection,
    ids: &[String],
    since: Option<Timestamp>,
) -> rusqlite::Result<(Vec<Record>, Option<Timestamp>)> {
    let since = since.unwrap_or(Timestamp::UNIX_EPOCH).as_millisecond();
    let mut found: Vec<(i64, String)> = Vec::new();
    let mut statement = connection
        .prepare("SELECT number, line FROM record WHERE id = ?1 AND at >= ?2 ORDER BY number")?;
    let gaps = std::iter::once("");
    for id in gaps.chain(ids.iter().map(String::as_str)) {
        let rows = statement.query_map(params![id, since], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for row in rows {
            found.push(row?);
        }
    }
    found.sort_unstable();
    let records = found.iter().filter_map(|(_, line)| Record::read(line));
    let oldest: Option<i64> =
        connection.query_row("SELECT min(number), at FROM record", [], |row| row.get(1))?;
    let oldest = oldest.and_then(|at| Timestamp::from_millisecond(at).ok());
    Ok((records.collect(), oldest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Entry, Then};
    use crate::message::AccountName;

    fn record(number: i64) -> Record {
        let at = Timestamp::from_second(1_800_000_000 + number).unwrap();
        let account = AccountName::default();
        let id = format!("a-quite-ordinary-order-number-{number}");
        Record::Entry(Entry::new(id, at, &account, Then::Complete))
    }

    fn book(folder: &tempfile::TempDir, bytes_max: i64) -> Book {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let path = folder.path().join("queue.db.trace");
        Book {
            bytes_max,
            ..Book::new(path, Clock::simulated(now))
        }
    }

    fn numbers(book: &Book) -> (i64, i64) {
        let connection = &book.open.as_ref().unwrap().connection;
        let sql = "SELECT min(number), max(number) FROM record";
        (connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_is_bounded_and_the_oldest_go_first() {
        const BOUND: i64 = 256 * 1024;
        let folder = tempfile::tempdir().unwrap();
        let mut book = book(&folder, BOUND);
        for page in 0..100 {
            let page: Vec<_> = (100 * page..100 * (page + 1)).map(record).collect();
            book.keep(&page).await.unwrap();
        }
        let (first, last) = numbers(&book);
        assert_eq!(last, 10_000, "the newest are kept");
        assert!((7_000..9_900).contains(&first), "{first}");
        let size = std::fs::metadata(&book.path).unwrap().len();
        assert!(size < 2 * BOUND.cast_unsigned(), "{size}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_old_goes_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut book = book(&folder, BYTES_MAX);
        book.keep(&[record(0), record(1), record(2)]).await.unwrap();
        tokio::time::sleep(AGE_MAX + std::time::Duration::from_secs(2)).await;
        book.keep(&[record(700_000)]).await.unwrap();
        assert_eq!(numbers(&book), (3, 4), "two were more than a week old");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_removed_or_replaced_or_damaged_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut book = book(&folder, BYTES_MAX);
        book.keep(&[record(1), record(2)]).await.unwrap();
        std::fs::remove_file(&book.path).unwrap();
        book.keep(&[record(3)]).await.unwrap();
        assert_eq!(numbers(&book), (1, 1));
        std::fs::write(
            &book.path,
            "this is no database of anybody's, and quite long",
        )
        .unwrap();
        drop(book.open.take());
        remove_log(&book.path);
        book.keep(&[record(4)]).await.unwrap();
        assert_eq!(numbers(&book), (1, 1));
        assert!(with(&book.path, ".damaged").exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_in_its_place_is_trouble_that_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut book = book(&folder, BYTES_MAX);
        std::fs::create_dir(&book.path).unwrap();
        book.keep(&[record(1)]).await.unwrap_err();
        std::fs::remove_dir(&book.path).unwrap();
        book.keep(&[record(1)]).await.unwrap();
    }
}
