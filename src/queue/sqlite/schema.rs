//! The form of the file: how a connection is set up, and how tables come to be.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::super::QueueError;

/// `PSTR`, in the file's header: told apart from other programs' databases.
const APPLICATION_ID: i64 = 0x5053_5452;
/// Rises with each change of the tables.
const VERSION: i64 = 1;
/// How long one process waits for another's transaction. Ours take milliseconds.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// A write-ahead log that grew in a storm is cut back to this size, in bytes.
const LOG_BYTES_KEPT: i64 = 64 * 1024 * 1024;
/// More than the number of different statements in `store.rs`.
const STATEMENTS_CACHED: usize = 32;

/// `due` is 0 for what never had to wait, else milliseconds of Unix time. `priority` is the index
/// into `Priority::ALL`, kept in the results lane too, for a retry to return by. Numbers are never
/// used twice, since what is in hand is remembered by number. `closed_at` is 0 before the first
/// worker, and null while one runs or after one that died.
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
CREATE INDEX message_by_turn ON message (account, lane, priority, due, number);

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

CREATE TABLE worker (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    closed_at INTEGER,
    probed_at INTEGER
) STRICT;
INSERT INTO worker (only, closed_at) VALUES (1, 0);
";

/// A connection to the queue in `path`, which is made when there is none.
pub(super) fn connect(path: &Path) -> Result<Connection, QueueError> {
    let place = path.display().to_string();
    let fault = |error: rusqlite::Error| fault(&place, &error);
    check_folder(path)?;
    // NO_MUTEX: each connection is used by one thread at a time, which Rust's borrows prove.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(fault)?;
    connection.busy_timeout(BUSY_WAIT).map_err(fault)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // Looked at before anything is written: a file that is not ours stays as it is.
    match recognise(&connection, &place)? {
        Form::Ours => {}
        Form::Empty => create(&mut connection, &place)?,
    }
    // FULL: a commit is on the disk before anybody is told of it.
    connection
        .pragma_update(None, "synchronous", "FULL")
        .and_then(|()| connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT))
        .map_err(fault)?;
    Ok(connection)
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

enum Form {
    Ours,
    Empty,
}

fn recognise(connection: &Connection, place: &str) -> Result<Form, QueueError> {
    let number = |pragma: &str| {
        connection
            .pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
            .map_err(|error| fault(place, &error))
    };
    match (number("application_id")?, number("user_version")?) {
        (APPLICATION_ID, VERSION) => Ok(Form::Ours),
        (APPLICATION_ID, found) => Err(QueueError::Newer {
            place: place.to_owned(),
            found,
            known: VERSION,
        }),
        (0, 0) if is_empty(connection).map_err(|error| fault(place, &error))? => Ok(Form::Empty),
        _ => Err(QueueError::Damaged {
            place: place.to_owned(),
            why: "it is another program's database".to_owned(),
        }),
    }
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| {
        row.get(0)
    })
}

fn create(connection: &mut Connection, place: &str) -> Result<(), QueueError> {
    let fault = |error: rusqlite::Error| fault(place, &error);
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .map_err(fault)?;
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(fault)?;
    // Another process may have made them while this one waited.
    if matches!(recognise(&transaction, place)?, Form::Ours) {
        return Ok(());
    }
    transaction
        .execute_batch(TABLES)
        .and_then(|()| transaction.pragma_update(None, "application_id", APPLICATION_ID))
        .and_then(|()| transaction.pragma_update(None, "user_version", VERSION))
        .and_then(|()| transaction.commit())
        .map_err(fault)
}

/// SQLite only says "unable to open database file".
pub(super) fn check_folder(path: &Path) -> Result<(), QueueError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if folder.is_dir() {
        return Ok(());
    }
    Err(QueueError::Unreachable {
        place: path.display().to_string(),
        why: format!("there is no folder {}", folder.display()),
    })
}
