//! Producers that publish throughout, and again under the same ids whenever they were not told that
//! all of it stands.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use tokio::join;
use tokio::time::sleep;

use crate::whole::kills::troubled;
use crate::whole::world::{World, request, within};

/// Requests of one `send`.
const CHUNK: usize = 200;
/// So many more are published than are mailed: whatever strikes, there is mail to be sent.
const AHEAD_MAX: usize = 1_000;
/// Of one `send`: each publish is tried four times, and a confirm waits for half a minute.
const SEND_TIME_MAX: Duration = Duration::from_mins(4);
/// Before a producer looks whether it is too far ahead, or tries again.
const WAIT: Duration = Duration::from_millis(500);

/// What `send` says when it could not publish everything.
const UNAVAILABLE: i32 = 69;

pub struct Producers {
    least: usize,
    /// How many requests were made; the next one has this number.
    made: Cell<usize>,
    published: Cell<usize>,
    again: Cell<usize>,
    enough: Cell<bool>,
}

impl Producers {
    /// They publish so many at the least.
    pub fn new(least: usize) -> Self {
        Self {
            least,
            made: Cell::new(0),
            published: Cell::new(0),
            again: Cell::new(0),
            enough: Cell::new(false),
        }
    }

    /// From here on only as many are published as there have to be.
    pub fn enough(&self) {
        self.enough.set(true);
    }

    /// The ids that are to be mailed.
    pub fn good(&self) -> BTreeSet<String> {
        let numbers = 0..self.made.get();
        numbers.filter(|n| !is_refused(*n)).map(id).collect()
    }

    /// The ids that are to become dead letters.
    pub fn bad(&self) -> BTreeSet<String> {
        let numbers = 0..self.made.get();
        numbers.filter(|n| is_refused(*n)).map(id).collect()
    }

    /// How often a producer had to publish again.
    pub fn again(&self) -> usize {
        self.again.get()
    }

    /// Two at a time, until it is enough and all of it stands.
    pub async fn publish_all(&self, world: &World) {
        join!(self.publish(world), self.publish(world));
    }

    async fn publish(&self, world: &World) {
        while !self.enough.get() || self.made.get() < self.least {
            if self.ahead(world).await > AHEAD_MAX {
                sleep(WAIT).await;
                continue;
            }
            let first = self.made.get();
            self.made.set(first + CHUNK);
            let lines: String = (first..first + CHUNK).map(line).collect();
            loop {
                let sent = within(SEND_TIME_MAX, "a producer ends", world.send(&lines)).await;
                if sent.status.success() {
                    break;
                }
                let errors = String::from_utf8_lossy(&sent.stderr);
                assert_eq!(sent.status.code(), Some(UNAVAILABLE), "send: {errors}");
                self.again.set(self.again.get() + 1);
                sleep(WAIT).await;
            }
            self.published.set(self.published.get() + CHUNK);
        }
    }

    /// How many are published and not mailed yet, about.
    async fn ahead(&self, world: &World) -> usize {
        let mailed = world.sandbox.count("mails").await as usize;
        (self.published.get() * 99 / 100).saturating_sub(mailed)
    }
}

fn id(number: usize) -> String {
    format!("storm-{number:06}")
}

/// HubSpot refuses one in a hundred, for good. With seven in a hundred there is trouble at first, so
/// that whatever strikes some retries are on their way.
fn is_refused(number: usize) -> bool {
    number % 100 == 90
}

fn line(number: usize) -> String {
    let to = if is_refused(number) {
        format!("ada{number}+http400@example.com")
    } else {
        troubled(number)
    };
    request(&id(number), &to)
}
