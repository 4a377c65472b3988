//! The form of a file: how a connection is set up, and how tables come to be.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tempfile::TempDir;

use super::super::QueueError;

/// What makes a file one of ours.
pub(super) struct Form {
    /// In the file's header: told apart from other programs' databases.
    application_id: i64,
    /// Rises with each change of the tables.
    version: i64,
    tables: &'static str,
    synchronous: &'static str,
}

pub(super) const QUEUE: Form = Form {
    // `PSTR`
    application_id: 0x5053_5452,
    version: 1,
    tables: TABLES,
    // A commit is on the disk before anybody is told of it.
    synchronous: "FULL",
};

/// Beside the queue's file: whatever happens to it must not happen to requests.
pub(super) const TRACE: Form = Form {
    // `PSTT`
    application_id: 0x5053_5454,
    version: 1,
    tables: TRACE_TABLES,
    // A power cut may take the newest entries, and no commit waits for the disk.
    synchronous: "NORMAL",
};

/// How long one process waits for another's transaction. Ours take milliseconds.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// A write-ahead log that grew in a storm is cut back to this size, in bytes.
const LOG_BYTES_KEPT: i64 = 64 * 1024 * 1024;
/// More than the number of different statements in `store.rs`.
const STATEMENTS_CACHED: usize = 32;

/// `due` is 0 for what never had to wait, else milliseconds of Unix time. `priority` is the index
/// into `Priority::ALL`, kept in the results lane too, for a retry to return by. Numbers are never
/// used twice, since what is in hand is remembered by number. `closed_at` is 0 before the first
/// worker, and null while one runs or after one that died. `room` is what a probe writes.
const TABLES: &str = "
CREATE TABLE account (
    name TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE message (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL,
    lane TEXT NOT NULL CHECK (lane IN ('sends', 'results')),
    priority INTEGER NOT NULL,
    due INTEGER NOT NULL,
    published INTEGER NOT NULL,
    message_id TEXT,
    story TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX message_by_turn ON message (account, lane, priority, due, number, published);

CREATE TABLE dead (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    reason TEXT,
    account TEXT NOT NULL,
    email_id INTEGER,
    died INTEGER NOT NULL,
    published INTEGER NOT NULL,
    message_id TEXT,
    story TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE INDEX dead_by_reason ON dead (reason, account, published);

CREATE TABLE worker (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    closed_at INTEGER,
    room BLOB
) STRICT;
INSERT INTO worker (only, closed_at) VALUES (1, 0);
";

/// What an owner tells the next one of an account's day, in seconds of Unix time. A worker makes it
/// where it is not there: a file of an earlier version has none, and goes on as it is.
pub(super) const DAY_TABLE: &str = "
CREATE TABLE IF NOT EXISTS day (
    account TEXT PRIMARY KEY,
    ends INTEGER NOT NULL,
    calls INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// `id` is empty for a gap, which may belong to any. `at` is in milliseconds of Unix time; `line` is
/// the record as JSON.
const TRACE_TABLES: &str = "
CREATE TABLE record (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    at INTEGER NOT NULL,
    line TEXT NOT NULL
) STRICT;
CREATE INDEX record_by_id ON record (id, number);
";

/// A connection to the file in `path`, which is made when there is none.
pub(super) fn connect(path: &Path, form: &Form) -> Result<Connection, QueueError> {
    let place = path.display().to_string();
    check_folder(path)?;
    if is_missing(path) {
        make(path, form)?;
    }
    // NO_MUTEX: each connection is used by one thread at a time, which Rust's borrows prove.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| fault(&place, &error))?;
    set_up(&connection, form).map_err(|error| fault(&place, &error))?;
    // Before anything is written: a file that is not ours stays as it is.
    recognise(&connection, &place, form)?;
    Ok(connection)
}

fn set_up(connection: &Connection, form: &Form) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // Plans that do not look at bound values: else a kept statement whose range is bound anew is
    // planned anew at each use. Every statement of ours has its one index.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    connection.pragma_update(None, "synchronous", form.synchronous)
}

fn recognise(connection: &Connection, place: &str, form: &Form) -> Result<(), QueueError> {
    let number = |pragma: &str| {
        connection
            .pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
            .map_err(|error| fault(place, &error))
    };
    match (number("application_id")?, number("user_version")?) {
        (id, version) if (id, version) == (form.application_id, form.version) => Ok(()),
        (id, found) if id == form.application_id => Err(QueueError::Newer {
            place: place.to_owned(),
            found,
            known: form.version,
        }),
        _ => Err(QueueError::Damaged {
            place: place.to_owned(),
            why: "it is another program's database".to_owned(),
        }),
    }
}

/// An empty file counts as none.
fn is_missing(path: &Path) -> bool {
    std::fs::metadata(path).map_or_else(
        |error| error.kind() == ErrorKind::NotFound,
        |meta| meta.is_file() && meta.len() == 0,
    )
}

/// Makes the file aside and moves it into its place, so that nobody ever sees half of one. Two
/// processes may come at once: the folder's lock lets one of them do it.
fn make(path: &Path, form: &Form) -> Result<(), QueueError> {
    let place = path.display().to_string();
    let folder = folder_of(path);
    let io_fault = |error: std::io::Error| {
        let place = place.clone();
        if error.kind() == ErrorKind::StorageFull {
            return QueueError::Full { place };
        }
        let why = format!("it cannot be made: {error}");
        QueueError::Unreachable { place, why }
    };
    let lock = File::open(folder).map_err(io_fault)?;
    lock.lock().map_err(io_fault)?;
    if !is_missing(path) {
        return Ok(());
    }
    let nest = TempDir::new_in(folder).map_err(io_fault)?;
    let new = nest.path().join("new.db");
    private(&new).map_err(io_fault)?;
    fill(&new, form).map_err(|error| fault(&place, &error))?;
    std::fs::rename(&new, path)
        .and_then(|()| lock.sync_all())
        .map_err(io_fault)
}

/// A new file that its owner alone can read, since it will hold addresses. SQLite gives the files
/// beside it the same permissions.
fn private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn fill(path: &Path, form: &Form) -> rusqlite::Result<()> {
    let connection = Connection::open(path)?;
    // Kept in the file: readers and the writer do not wait for one another.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute_batch(form.tables)?;
    connection.pragma_update(None, "application_id", form.application_id)?;
    connection.pragma_update(None, "user_version", form.version)?;
    // Moves the log into the file, and removes it.
    connection.close().map_err(|(_, error)| error)
}

/// What an SQLite error means to whoever runs the queue.
pub(super) fn fault(place: &str, error: &rusqlite::Error) -> QueueError {
    let place = place.to_owned();
    let why = error.to_string();
    let Some(code) = error.sqlite_error_code() else {
        // A column of another type than ours.
        return QueueError::Damaged { place, why };
    };
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "of SQLite's thirty codes these are the ones with a next step of their own"
    )]
    match code {
        ErrorCode::DiskFull => QueueError::Full { place },
        ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::TypeMismatch => {
            QueueError::Damaged { place, why }
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => QueueError::NotTaken {
            why: format!("another process has kept {place} locked for {BUSY_WAIT:?}"),
        },
        _ => QueueError::Unreachable { place, why },
    }
}

/// SQLite only says "unable to open database file".
pub(super) fn check_folder(path: &Path) -> Result<(), QueueError> {
    let folder = folder_of(path);
    if folder.is_dir() {
        return Ok(());
    }
    Err(QueueError::Unreachable {
        place: path.display().to_string(),
        why: format!("there is no folder {}", folder.display()),
    })
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
