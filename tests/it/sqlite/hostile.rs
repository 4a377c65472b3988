//! Rows that another hand, or the disk, has spoilt.

use std::ops::ControlFlow;
use std::path::Path;

use postrider::message::MessageId;
use postrider::outcome::Disposition;
use postrider::queue::sqlite::{Mode, SqliteIntake};
use postrider::queue::{
    DeadLetters, Delivery, Fate, Intake, IntakeOptions, Lane, Queue, Sight, Traces,
};
use rusqlite::Connection;
use tokio::time::timeout;

use super::{DEADLINE, File, account, parcel};

/// Long enough to fill pages of its own.
const LONG: usize = 20_000;

#[tokio::test]
async fn rows_that_are_no_text_hold_nothing_up_and_are_no_ids() {
    let file = File::new();
    let queue = file.open(Mode::Worker).await.unwrap();
    for body in ["first", "second", "third"] {
        queue.publish(parcel(body)).await.unwrap();
    }
    // A strict table's column of text takes any bytes as text.
    let spoilt = "UPDATE message SET message_id = CAST(x'69642dff' AS TEXT) WHERE number = 1;
         UPDATE message SET story = CAST(x'7b22fffe' AS TEXT) WHERE number = 2;";
    let connection = Connection::open(&file.path).unwrap();
    connection.execute_batch(spoilt).unwrap();
    // Nor does `trace` stumble over them.
    for body in ["first", "second"] {
        let found = queue.find(body).await.unwrap();
        assert!(matches!(found, Sight::Nowhere), "{found:?}");
    }

    let mut intake = queue
        .open(&account(), Lane::Sends, IntakeOptions::holding(10))
        .await
        .unwrap();
    let first = receive(&mut intake).await;
    let id = first.message_id.clone().unwrap();
    assert_eq!(id, "id-\u{1a}");
    assert!(
        MessageId::parse(&id).is_err(),
        "such a request is malformed"
    );
    for body in ["second", "third"] {
        assert_eq!(receive(&mut intake).await.body, body);
    }

    let story = first.story.clone();
    let dead = Disposition::DeadLetter { story };
    queue.settle(first, dead).await.unwrap();
    let mut ids = Vec::new();
    let look = |letter: &postrider::queue::DeadLetter| {
        ids.push(letter.message_id.clone());
        ControlFlow::Continue(Fate::Keep)
    };
    queue.sweep(look).await.unwrap();
    assert_eq!(ids, [Some(id)], "it can be swept as well");
}

#[tokio::test]
async fn a_row_whose_pages_are_damaged_is_set_aside_and_its_neighbours_go_on() {
    let file = File::new();
    let queue = file.open(Mode::Worker).await.unwrap();
    for body in ["first", &"z".repeat(LONG), "third"] {
        queue.publish(parcel(body)).await.unwrap();
    }
    queue.close().await;
    drop(queue);
    damage(&file.path);

    let queue = file.open(Mode::Worker).await.unwrap();
    let mut intake = queue
        .open(&account(), Lane::Sends, IntakeOptions::holding(10))
        .await
        .unwrap();
    for body in ["first", "third"] {
        let delivery = receive(&mut intake).await;
        assert_eq!(delivery.body, body);
        queue.settle(delivery, Disposition::Complete).await.unwrap();
    }
    let depths = queue.depths().await.unwrap();
    let standing: u64 = depths.iter().map(|depth| depth.messages).sum();
    assert_eq!(standing, 1, "it still stands, for whoever mends the file");
}

/// Spoils a page in the middle of the long body: where its next one is, stands in its first bytes.
fn damage(path: &Path) {
    let connection = Connection::open(path).unwrap();
    let moved = "PRAGMA wal_checkpoint(TRUNCATE)";
    connection.query_row(moved, [], |_| Ok(())).unwrap();
    drop(connection);
    let mut bytes = std::fs::read(path).unwrap();
    let page = 4096;
    let full = |part: &[u8]| part[4..].iter().all(|byte| *byte == b'z');
    let pages: Vec<_> = (bytes.chunks(page).enumerate())
        .filter(|(_, part)| full(part))
        .map(|(number, _)| number * page)
        .collect();
    bytes[pages[0]..pages[0] + 4].fill(0x7f);
    std::fs::write(path, bytes).unwrap();
}

async fn receive(intake: &mut SqliteIntake) -> Delivery {
    let received = timeout(DEADLINE, intake.receive()).await;
    received.expect("the lane goes on").unwrap()
}
