//! The journal of the embedded queue and of RabbitMQ: kept, read back, and never in mail's way.

mod rabbitmq;
mod sqlite;

use std::time::Duration;

use jiff::Timestamp;
use postrider::clock::Clock;
use postrider::journal::{Entry, Record, Then};
use postrider::message::{AccountName, Priority};
use postrider::outcome::Disposition;
use postrider::queue::{Intake, IntakeOptions, Lane, Parcel, Queue, Traces};
use postrider::story::Story;
use tokio::time::{Instant, sleep, timeout};

/// Generous: a broker may start meanwhile.
const PATIENCE: Duration = Duration::from_mins(1);

fn entry(id: &str, at: Timestamp) -> Entry {
    Entry::new(id, at, &AccountName::default(), Then::Complete)
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

/// What is kept of these, as `id` or `gap`, each once.
async fn told(queue: &impl Traces, of: &[&str], since: Option<Timestamp>) -> Vec<String> {
    let mut records: Vec<Record> = Vec::new();
    let ids = ids(of);
    let read = queue.trace(&ids, since, |page| records.extend(page));
    timeout(PATIENCE, read).await.unwrap().unwrap();
    records.dedup();
    let name = |record: &Record| record.id().unwrap_or("gap").to_owned();
    records.iter().map(name).collect()
}

/// Waits until exactly these are kept of these ids.
async fn until_told(queue: &impl Traces, of: &[&str], expected: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = told(queue, of, None).await;
        if told == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{told:?} is told, not {expected:?}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// Notes, waits, and reads back.
async fn is_read_back(queue: &(impl Queue + Traces)) {
    assert_eq!(
        told(queue, &["one"], None).await,
        [""; 0],
        "there is nothing yet"
    );
    let began = Clock::system().now();
    let long_ago = began - Duration::from_hours(1);
    queue.note(entry("one", long_ago));
    // Of neither id, though it has both in it.
    queue.note(entry("not one or one.r2", began));
    queue.note(entry("", began));
    until_told(queue, &["one"], &["one"]).await;
    for number in 0..2_000 {
        queue.note(entry(&format!("other-{number}"), began));
    }
    queue.note(entry("one", began));
    queue.note(entry("quote\"d \\ ünï", began));
    let all = ["one", "one", "quote\"d \\ ünï"];
    until_told(queue, &["one", "quote\"d \\ ünï"], &all).await;
    assert_eq!(told(queue, &["one"], Some(began)).await, ["one"]);
    assert_eq!(told(queue, &["two"], None).await, [""; 0]);
    let reach = queue.trace(&ids(&["two"]), None, |_| {}).await.unwrap();
    assert_eq!(reach, Some(long_ago), "as far back as it goes");
    assert_eq!(queue.notes_dropped(), 0);
}

/// Mail is published, handed out, and settled.
async fn mail_goes_on(queue: &impl Queue) {
    let account = AccountName::default();
    let mut intake = queue
        .open(&account, Lane::Sends, IntakeOptions::holding(1))
        .await
        .unwrap();
    let parcel = Parcel {
        body: "{}".into(),
        message_id: Some("mail".into()),
        account: account.clone(),
        priority: Priority::Normal,
        story: Story::default(),
    };
    queue.publish(parcel).await.unwrap();
    let delivery = timeout(PATIENCE, intake.receive()).await.unwrap().unwrap();
    queue.settle(delivery, Disposition::Complete).await.unwrap();
}
