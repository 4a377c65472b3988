//! The journal in the file beside the embedded queue.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use postrider::clock::Clock;
use postrider::message::AccountName;
use postrider::queue::Queue;
use postrider::queue::sqlite::{Mode, SqliteQueue};
use tempfile::TempDir;

use super::{entry, is_read_back, mail_goes_on, told, until_told};

async fn open(folder: &Path, mode: Mode) -> SqliteQueue {
    let path = folder.join("queue.db");
    let accounts = [AccountName::default()];
    let opened = SqliteQueue::open(path, "postrider", accounts, Clock::system(), mode);
    opened.await.unwrap()
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("queue.db.trace")
}

#[tokio::test]
async fn what_is_noted_is_read_back() {
    let folder = TempDir::new().unwrap();
    let queue = open(folder.path(), Mode::Worker).await;
    is_read_back(&queue).await;
    let mode = fs::metadata(file(&folder)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let log = fs::metadata(folder.path().join("queue.db.trace-wal")).unwrap();
    assert_eq!(log.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn processes_write_side_by_side_and_the_next_worker_reads_it_all() {
    let folder = TempDir::new().unwrap();
    let worker = open(folder.path(), Mode::Worker).await;
    let command = open(folder.path(), Mode::Command).await;
    let now = Clock::system().now();
    for _ in 0..50 {
        worker.note(entry("worker", now));
        command.note(entry("command", now));
    }
    // What is on its way is kept at the end.
    command.close().await;
    worker.close().await;
    let worker = open(folder.path(), Mode::Worker).await;
    let told = told(&worker, &["worker", "command"], None).await;
    assert_eq!(
        told.len(),
        2,
        "repeats to the millisecond count once: {told:?}"
    );
}

#[tokio::test]
async fn whatever_happens_to_the_file_mail_goes_on() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(file(&folder)).unwrap();
    let queue = open(folder.path(), Mode::Worker).await;
    let now = Clock::system().now();
    queue.note(entry("early", now));
    mail_goes_on(&queue).await;
    fs::remove_dir(file(&folder)).unwrap();
    until_told(&queue, &["early"], &["early"]).await;

    fs::remove_file(file(&folder)).unwrap();
    mail_goes_on(&queue).await;
    queue.note(entry("later", now));
    until_told(&queue, &["early", "later"], &["later"]).await;
    queue.close().await;

    let garbage = "garbage ".repeat(2_000);
    fs::write(file(&folder), &garbage).unwrap();
    let queue = open(folder.path(), Mode::Worker).await;
    mail_goes_on(&queue).await;
    queue.note(entry("last", now));
    // Until then it cannot be read.
    while !folder.path().join("queue.db.trace.damaged").exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    until_told(&queue, &["later", "last"], &["last"]).await;
    let aside = fs::read_to_string(folder.path().join("queue.db.trace.damaged"));
    assert_eq!(aside.unwrap(), garbage, "it is left to whoever wants it");
}
